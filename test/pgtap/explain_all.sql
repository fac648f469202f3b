-- mako_explain_function() of everything: each function of the server and of the extension, and a
-- body for each function, operator and cast that calls it. It answers, or says why not.
-- Runs in an empty database.

CREATE EXTENSION pgtap;
CREATE EXTENSION mako_migration;

\ir include/helpers.sql
SET client_min_messages = error;
SET check_function_bodies = off;
CREATE SCHEMA body;

-- The error of explaining a function.
CREATE FUNCTION pg_temp.refusal(function oid) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  PERFORM count(*) FROM mako_explain_function(function);
  RETURN NULL;
EXCEPTION WHEN OTHERS THEN
  RETURN SQLSTATE || ' ' || SQLERRM;
END
$$;
-- Makes a function of a body with one or two arguments, if the server takes it, and explains it.
CREATE FUNCTION pg_temp.refusal(arguments text, result text, body text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
  refusal text;
BEGIN
  EXECUTE format('CREATE FUNCTION body.f(%s) RETURNS %s LANGUAGE sql STABLE AS %L',
                 arguments, result, 'SELECT ' || body);
  refusal := pg_temp.refusal(to_regproc('body.f'));
  DROP FUNCTION body.f;
  RETURN refusal;
END
$$;

-- Bodies that call something, with the types of their arguments and of their result.
CREATE TEMPORARY TABLE body AS
SELECT 'function ' || p.oid::regprocedure AS what, p.proargtypes::oid[] AS arguments,
       p.prorettype AS result,
       format('pg_catalog.%I(%s)', p.proname,
              (SELECT string_agg(CASE WHEN n = p.pronargs AND p.provariadic <> 0 THEN 'VARIADIC $'
                                   ELSE '$' END || n, ', ' ORDER BY n)
               FROM generate_series(1, p.pronargs) n)) AS body
FROM pg_proc p
WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f' AND NOT p.proretset
UNION ALL
SELECT 'operator ' || o.oid::regoperator, array_remove(ARRAY[o.oprleft, o.oprright], 0::oid),
       o.oprresult, format('%s OPERATOR(pg_catalog.%s) $%s', CASE WHEN o.oprleft <> 0 THEN '$1' END,
                           o.oprname, CASE WHEN o.oprleft <> 0 THEN 2 ELSE 1 END)
FROM pg_operator o
WHERE o.oprright <> 0
UNION ALL
SELECT format('cast from %s to %s', c.castsource::regtype, c.casttarget::regtype),
       ARRAY[c.castsource], c.casttarget, format('CAST($1 AS %s)', c.casttarget::regtype)
FROM pg_cast c;
CREATE TEMPORARY TABLE answer AS
SELECT what, pg_temp.refusal((SELECT string_agg(format_type(t, NULL), ', ' ORDER BY n)
                              FROM unnest(arguments) WITH ORDINALITY AS a (t, n)),
                             format_type(result, NULL), body) AS refusal
FROM body
-- Pseudo-types are nobody's arguments.
WHERE NOT EXISTS (SELECT FROM unnest(arguments || result) AS t JOIN pg_type y ON y.oid = t
                  WHERE y.typtype = 'p')
UNION ALL
SELECT 'itself, ' || prokind::text || ' ' || oid::regprocedure, pg_temp.refusal(oid) FROM pg_proc;

SELECT plan(4);
SELECT cmp_ok((SELECT count(*) FROM answer), '>', 6000::bigint, 'there are many functions');
SELECT is_empty($$SELECT * FROM answer WHERE what !~ '^itself' AND refusal IS NOT NULL$$,
                'every body is explained');
SELECT is_empty($$SELECT * FROM answer WHERE what ~ '^itself, [apw]' AND refusal !~ '^42809 '$$,
                'aggregates, procedures and window functions are no functions');
-- Polymorphic ones are asked for with one type for all.
SELECT is_empty($$SELECT * FROM answer WHERE what ~ '^itself, f' AND refusal !~ '^(42804|42883) '$$,
                'functions are explained, or would be another one with arguments of one type');

SELECT * FROM finish();
