-- What test/fuzz/native.pl calls: programs are run natively and plainly, and what becomes of each stream is compared.
CREATE SCHEMA fuzz;

-- Texts that are equal without being the same, where the server can compare them so.
DO $$
BEGIN
  CREATE COLLATION fuzz.any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
EXCEPTION WHEN feature_not_supported OR invalid_parameter_value THEN
  CREATE COLLATION fuzz.any_case FROM "C";
END $$;

-- Where values leave the expressions and come back.
CREATE DOMAIN fuzz.document AS jsonb CHECK (jsonb_typeof(VALUE) <> 'string');
CREATE TYPE fuzz.pair AS (name text, value jsonb);

CREATE FUNCTION fuzz.pl_echo(value jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
DECLARE
  kept jsonb := value;
BEGIN
  value := NULL;
  RETURN kept;
END $$;

CREATE FUNCTION fuzz.pl_pair(name text, value jsonb) RETURNS fuzz.pair LANGUAGE plpgsql STABLE AS $$
DECLARE
  result fuzz.pair;
BEGIN
  result.name := name;
  result.value := value;
  RETURN result;
END $$;

-- The value changes in place, as far as PL/pgSQL can.
CREATE FUNCTION fuzz.pl_merge(value jsonb, change jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
DECLARE
  before jsonb := value;
BEGIN
  FOR i IN 1 .. 3 LOOP
    value := value || jsonb_build_object('round', i, 'change', change);
  END LOOP;
  RETURN jsonb_build_array(before, value);
END $$;

-- The value outlives a subtransaction.
CREATE FUNCTION fuzz.pl_caught(value jsonb, key text) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
DECLARE
  kept jsonb;
BEGIN
  BEGIN
    kept := value -> 'data';
    RETURN mako_required(value, key);
  EXCEPTION WHEN OTHERS THEN
    RETURN jsonb_build_object('error', SQLERRM, 'kept', kept, 'value', value);
  END;
END $$;

CREATE FUNCTION fuzz.pl_array(elements jsonb[]) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
DECLARE
  element jsonb;
  last jsonb;
BEGIN
  FOREACH element IN ARRAY elements LOOP
    last := COALESCE(element, last);
  END LOOP;
  RETURN last;
END $$;

CREATE FUNCTION fuzz.otherwise(value anyelement, other anyelement) RETURNS anyelement LANGUAGE sql STABLE AS
$$ SELECT CASE WHEN value IS NULL THEN other ELSE value END $$;

-- An error as text, in which fields may be missing.
CREATE FUNCTION fuzz.error(VARIADIC fields text[]) RETURNS text LANGUAGE sql AS
$$ SELECT 'error ' || string_agg(COALESCE(field, ''), '|' ORDER BY i) FROM unnest(fields) WITH ORDINALITY AS f (field, i) $$;

-- Makes a program's functions, registers them for a workflow and its successor, and sets what decides about evaluation. Raises what goes
-- wrong. A program is {"workflow", "upcast": boolean, "migrate": boolean, "initial_state": text}, a variant
-- {"statements": [...], "settings": {...}}.
CREATE FUNCTION fuzz.prepare(program jsonb, variant jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  statement text;
  source text := (program->>'workflow') || '@FV2024-10-01';
  target text := (program->>'workflow') || '@FV2025-10-01';
BEGIN
  FOR statement IN SELECT jsonb_array_elements_text(variant->'statements') LOOP
    EXECUTE statement;
  END LOOP;
  PERFORM mako_register_workflow(source, apply => 'fuzz.apply', upcast => CASE WHEN (program->>'upcast')::boolean THEN 'fuzz.upcast' END,
                                 initial_state => (program->>'initial_state')::jsonb, replace => true);
  PERFORM mako_register_workflow(target, replace => true);
  PERFORM mako_register_migration(source, target, CASE WHEN (program->>'migrate')::boolean THEN 'fuzz.migrate' END, replace => true);
  PERFORM set_config('mako_migration.' || key, value, true) FROM jsonb_each_text(variant->'settings');
END $$;

-- Migrates the streams of a workflow: the number of the run as text, or the error that ended it.
CREATE FUNCTION fuzz.run(workflow text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  state text; message text; detail text; hint text;
BEGIN
  RETURN (SELECT run_id FROM mako_migrate(workflow || '@FV2024-10-01', workflow || '@FV2025-10-01', update_registry => false));
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
  RETURN fuzz.error(state, message, detail, hint);
END $$;

-- What became of each stream in a run.
CREATE FUNCTION fuzz.outcome(run text) RETURNS TABLE (stream_no bigint, sequence_number bigint, state jsonb, error text) LANGUAGE sql AS $$
  SELECT stream_no, sequence_number, state, NULL FROM mako.snapshot WHERE run ~ '^\d+$' AND run_id = run::bigint
  UNION ALL
  SELECT stream_no, sequence_number, NULL, fuzz.error(phase, sequence_number::text, sqlstate, message, detail, hint)
  FROM mako.migration_error WHERE run ~ '^\d+$' AND run_id = run::bigint
$$;

-- The streams that two runs made something else of: equal are the texts of their states, the bytes of them, and errors. Without a stream
-- when a run as a whole ended in an error and the other one did not, or in another one.
CREATE FUNCTION fuzz.differences(run text, other_run text) RETURNS TABLE (stream_no bigint, one text, other text) LANGUAGE sql AS $$
  SELECT stream_no, COALESCE(x.state::text, x.error), COALESCE(y.state::text, y.error)
  FROM fuzz.outcome(run) AS x FULL JOIN fuzz.outcome(other_run) AS y USING (stream_no)
  WHERE run || other_run ~ '^\d+$'
    AND (x.state::text IS DISTINCT FROM y.state::text OR NOT record_image_eq(ROW(x.state), ROW(y.state))
         OR x.error IS DISTINCT FROM y.error OR x.sequence_number IS DISTINCT FROM y.sequence_number)
  UNION ALL
  SELECT NULL, run, other_run WHERE run || other_run !~ '^\d+$' AND run <> other_run
$$;

-- The calls that keep a program's functions from running natively. What cannot be planned does not run at all.
CREATE FUNCTION fuzz.obstacles() RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
  RETURN QUERY
    SELECT DISTINCT e.evaluation || ' ' || e.call || ': ' || COALESCE(e.reason, '')
    FROM unnest(ARRAY['fuzz.apply(jsonb,text,jsonb)', 'fuzz.upcast(text,int,jsonb)', 'fuzz.migrate(jsonb)']) AS name,
         mako_explain_function(to_regprocedure(name)) AS e
    WHERE to_regprocedure(name) IS NOT NULL AND (e.evaluation = 'called' OR (e.evaluation = 'server' AND e.reason IS NOT NULL));
EXCEPTION WHEN OTHERS THEN
  RETURN NEXT 'none: it cannot be planned';
END $$;

-- Runs the variants of a program over the workflow's streams and compares the first two, of which the first is native. Where only one of
-- them ends in an error, the third one decides, in which no function is called: then the same is evaluated as lazily as natively. For the
-- server evaluates the arguments of a function that it calls even where nothing needs them; but from PostgreSQL 18 on it plans such a
-- function for the values of its arguments, and where one of them is null, it may leave out the others. A plain run that ends as a whole,
-- or a stream of it, where nothing is wrong natively, could not plan a constant that is an error; natively only the streams fail that
-- reach it. All of it is undone.
CREATE FUNCTION fuzz.compare(program jsonb, variants jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
  runs text[];
  differences jsonb;
  result jsonb;
BEGIN
  PERFORM fuzz.prepare(program, variants->0);
  runs[1] := fuzz.run(program->>'workflow');
  result := jsonb_build_object('obstacles', ARRAY(SELECT fuzz.obstacles()));
  PERFORM fuzz.prepare(program, variants->1);
  runs[2] := fuzz.run(program->>'workflow');
  -- A failed event was evaluated, too; an error of migrate comes after all of them.
  result := result || (
    SELECT jsonb_build_object('runs', runs, 'evaluated', COALESCE(sum(sequence_number), 0),
      'good', COALESCE(sum(sequence_number - (error ~ '^error (upcast|apply)' IS TRUE)::int), 0))
    FROM fuzz.outcome(runs[1]));
  result := result || jsonb_build_object('errors', (
    SELECT jsonb_object_agg(code, number)
    FROM (SELECT split_part(error, '|', 3) AS code, count(*) AS number
          FROM fuzz.outcome(runs[1]) WHERE error IS NOT NULL GROUP BY code) AS e));
  SELECT jsonb_agg(jsonb_build_array(stream_no, one, other) ORDER BY stream_no) INTO differences FROM fuzz.differences(runs[1], runs[2])
  WHERE NOT (runs[1] !~ '^error' AND runs[2] ~ '^error');

  IF jsonb_array_length(variants) > 2
     AND EXISTS (SELECT FROM jsonb_array_elements(differences) AS d WHERE d->>1 ~ '^error' OR d->>2 ~ '^error') THEN
    PERFORM fuzz.prepare(program, variants->2);
    runs[3] := fuzz.run(program->>'workflow');
    SELECT jsonb_agg(d.value ORDER BY d.ordinality) INTO differences
    FROM jsonb_array_elements(differences) WITH ORDINALITY AS d
    WHERE concat(d.value->>1) !~ '^error' AND concat(d.value->>2) !~ '^error'
       OR (EXISTS (SELECT FROM fuzz.differences(runs[1], runs[3]) AS x
                   WHERE x.stream_no IS NULL OR x.stream_no = COALESCE((d.value->>0)::bigint, x.stream_no))
           AND NOT (runs[3] ~ '^error' AND concat(d.value->>2) ~ '^error'));
  END IF;
  result := result || jsonb_build_object('differences', COALESCE(differences, '[]'));
  RAISE EXCEPTION USING ERRCODE = 'FUZZ0';
EXCEPTION WHEN SQLSTATE 'FUZZ0' THEN
  RETURN result;
END $$;

-- The state after folding events and migrating the result, or the error.
CREATE FUNCTION fuzz.fold(workflow text, events jsonb, OUT result jsonb, OUT error text) LANGUAGE plpgsql AS $$
DECLARE
  state text; message text; detail text; hint text; context text;
BEGIN
  result := mako_migrate_state(workflow || '@FV2024-10-01', workflow || '@FV2025-10-01', mako_fold(workflow || '@FV2024-10-01', events));
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT,
    context = PG_EXCEPTION_CONTEXT;
  error := fuzz.error(substring(context FROM '(?:event \d+, )?phase \w+'), state, message, detail, hint);
END $$;

-- The same comparison for one list of events that need not be in the store; for shrinking.
CREATE FUNCTION fuzz.compare_fold(program jsonb, variants jsonb, events jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
  native record;
  plain record;
  written_out record;
  differ boolean;
BEGIN
  PERFORM fuzz.prepare(program, variants->0);
  native := fuzz.fold(program->>'workflow', events);
  PERFORM fuzz.prepare(program, variants->1);
  plain := fuzz.fold(program->>'workflow', events);
  differ := NOT record_image_eq(native, plain);
  IF differ AND COALESCE(native.error, plain.error) IS NOT NULL AND jsonb_array_length(variants) > 2 THEN
    PERFORM fuzz.prepare(program, variants->2);
    written_out := fuzz.fold(program->>'workflow', events);
    -- Without a phase, the error is one of planning.
    differ := NOT record_image_eq(native, written_out)
      AND NOT (plain.error IS NOT NULL AND COALESCE(written_out.error ~ '^error \|', false));
  END IF;
  RAISE EXCEPTION USING ERRCODE = 'FUZZ0';
EXCEPTION WHEN SQLSTATE 'FUZZ0' THEN
  RETURN jsonb_build_object('differences', CASE WHEN differ THEN
    jsonb_build_array(jsonb_build_array(NULL, COALESCE(native.result::text, native.error), COALESCE(plain.result::text, plain.error)))
    ELSE '[]' END);
END $$;
