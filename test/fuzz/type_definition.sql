-- What test/fuzz/type_definition.pl calls. Needs mako_is_valid() and mako_validate(), wherever they come from.
CREATE SCHEMA fuzz;
CREATE TABLE fuzz.outcome (outcome text PRIMARY KEY, count bigint NOT NULL);

CREATE FUNCTION fuzz.note(outcome text) RETURNS void LANGUAGE sql AS $$
  INSERT INTO fuzz.outcome VALUES ($1, 1) ON CONFLICT (outcome) DO UPDATE SET count = outcome.count + 1
$$;

-- Bytes as jsonb, or NULL when they are not.
CREATE FUNCTION fuzz.to_jsonb(bytes bytea) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
  RETURN convert_from(bytes, 'UTF8')::jsonb;
EXCEPTION WHEN OTHERS THEN
  RETURN NULL;
END $$;

-- Runs both functions; raises whatever must not be.
CREATE FUNCTION fuzz.try(definition jsonb, instance jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  valid boolean;
  errors bigint;
BEGIN
  IF definition IS NULL OR instance IS NULL THEN
    RETURN 'no JSON';
  END IF;
  BEGIN
    valid := mako_is_valid(definition, instance);
    SELECT count(instance_path || schema_path) INTO errors FROM mako_validate(definition, instance);
  EXCEPTION WHEN SQLSTATE '22032' OR SQLSTATE '54001' THEN
    RETURN SQLSTATE;
  END;
  IF valid <> (errors = 0) THEN
    RAISE 'mako_is_valid() says %, mako_validate() has % rows', valid, errors;
  END IF;
  RETURN valid;
END $$;

-- Tries a pair of byte strings. What ends otherwise than it may is a warning, and counts as FAILED.
CREATE FUNCTION fuzz.check(definition bytea, instance bytea) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM fuzz.note(fuzz.try(fuzz.to_jsonb(definition), fuzz.to_jsonb(instance)));
EXCEPTION WHEN OTHERS THEN
  RAISE WARNING 'fuzz: % % for fuzz.check(''%'', ''%'')', SQLSTATE, SQLERRM, definition, instance;
  PERFORM fuzz.note('FAILED');
END $$;
