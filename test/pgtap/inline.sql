-- SQL functions run without being called: what the server inlines, and what it does not. Every case runs natively and as the server
-- would run it; the results must be the same, and the server's statistics of function calls tell what was called, and how often.
-- Runs in an empty database.

CREATE EXTENSION pgtap;
CREATE EXTENSION mako_migration;

SELECT * FROM no_plan();

CREATE SCHEMA t;
CREATE ROLE mako_inline_author;
GRANT USAGE ON SCHEMA t TO mako_inline_author;
SET track_functions = 'all';
SET client_min_messages = warning;

-- What is called and counted. The statistics see every call of these.
CREATE FUNCTION t.probe(value jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN value; END $$;

-- Makes and registers a workflow whose apply function has this body.
CREATE FUNCTION pg_temp.define(kind text, body text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('CREATE FUNCTION t.apply_%s(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS %L', kind, body);
  PERFORM mako_register_workflow((kind || '@FV2024-10-01')::mako_workflow_id, apply => 't.apply_' || kind, initial_state => '{}');
END
$$;

-- How often functions of schema t have been called, in the part of the statistics that is still to be sent.
CREATE FUNCTION pg_temp.counts() RETURNS jsonb LANGUAGE sql VOLATILE AS $$
  SELECT coalesce(jsonb_object_agg(funcname, calls), '{}') FROM pg_stat_xact_user_functions WHERE schemaname = 't'
$$;

-- Folds events in one of the two ways: the state or the error, and what was called meanwhile.
CREATE FUNCTION pg_temp.run(kind text, events jsonb, native boolean, OUT result text, OUT called text) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  before jsonb;
BEGIN
  PERFORM set_config('mako_migration.native_evaluation', native::text, true);
  before := pg_temp.counts();
  BEGIN
    result := mako_fold((kind || '@FV2024-10-01')::mako_workflow_id, events);
  EXCEPTION WHEN OTHERS THEN
    result := sqlstate || ' ' || sqlerrm;
  END;
  called := (SELECT coalesce(string_agg(key || ' ' || n, ', ' ORDER BY key COLLATE "C"), '')
             FROM jsonb_each(pg_temp.counts()), LATERAL (SELECT value::text::int - coalesce((before->>key)::int, 0) AS n) difference
             WHERE n > 0);
END
$$;

-- Events with these payloads.
CREATE FUNCTION pg_temp.events(VARIADIC payloads jsonb[]) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT jsonb_agg(jsonb_build_object('event_type', 'Happened', 'payload', payload) ORDER BY no)
  FROM unnest(payloads) WITH ORDINALITY p (payload, no)
$$;

-- The result, both ways, and what is called natively.
CREATE FUNCTION pg_temp.runs(kind text, events jsonb, expected_result text, expected_called text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
  native record;
  plain record;
BEGIN
  SELECT * INTO native FROM pg_temp.run(kind, events, true);
  SELECT * INTO plain FROM pg_temp.run(kind, events, false);
  RETURN NEXT is(native.result, expected_result, kind || ': result');
  RETURN NEXT is(plain.result, native.result, kind || ': the same result as the server''s');
  RETURN NEXT is(native.called, expected_called, kind || ': what is called');
END
$$;

----------------------------------------------------------------------------------------------------
-- Arguments that are used more than once
----------------------------------------------------------------------------------------------------

CREATE FUNCTION t.twice(x jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT jsonb_build_array(x, x, x) $$;
SELECT pg_temp.define('twice', 'SELECT t.twice(t.probe(payload))');
SELECT pg_temp.runs('twice', pg_temp.events('1'), '[1, 1, 1]', 'probe 1');
SELECT pg_temp.runs('twice', pg_temp.events('1', '2', '3'), '[3, 3, 3]', 'probe 3');
SELECT is((pg_temp.run('twice', pg_temp.events('1'), false)).called, 'probe 1, twice 1', '(the server calls it)');

CREATE FUNCTION t.deep(x jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT jsonb_build_array(t.twice(t.probe(x)), t.twice(t.twice(x)), x) $$;
SELECT pg_temp.define('nested', 'SELECT t.deep(t.probe(payload))');
SELECT pg_temp.runs('nested', pg_temp.events('1'), '[[1, 1, 1], [[1, 1, 1], [1, 1, 1], [1, 1, 1]], 1]', 'probe 2');

CREATE FUNCTION t.choose(c boolean, a jsonb, b jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN c THEN jsonb_build_array(a, a) ELSE jsonb_build_array(b, b) END
$$;
SELECT pg_temp.define('branch', $$ SELECT t.choose(payload = '1', t.probe('"a"' || payload), t.twice(payload)) $$);
SELECT pg_temp.runs('branch', pg_temp.events('1'), '[["a", 1], ["a", 1]]', 'probe 1');
SELECT pg_temp.runs('branch', pg_temp.events('2'), '[[2, 2, 2], [2, 2, 2]]', '');
SELECT pg_temp.runs('branch', pg_temp.events('1', '2', '1'), '[["a", 1], ["a", 1]]', 'probe 2');

CREATE FUNCTION t.ignore(a jsonb, b jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT jsonb_build_array(b, b) $$;
SELECT pg_temp.define('unused', 'SELECT t.ignore(t.probe(payload), payload)');
SELECT pg_temp.runs('unused', pg_temp.events('1'), '[1, 1]', '');

SELECT pg_temp.define('cheap', $$ SELECT t.twice(payload->'a') $$);
SELECT pg_temp.runs('cheap', pg_temp.events('{"a": 1}'), '[1, 1, 1]', '');

CREATE FUNCTION t.options(a jsonb, b jsonb DEFAULT '"b"', c jsonb DEFAULT t.probe('"c"')) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT jsonb_build_array(a, a, b, b, c, c)
$$;
SELECT pg_temp.define('defaults', 'SELECT t.options(b => t.probe(payload), a => payload)');
SELECT pg_temp.runs('defaults', pg_temp.events('1'), '[1, 1, 1, 1, "c", "c"]', 'probe 2');

CREATE FUNCTION t.many(VARIADIC a jsonb[]) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT to_jsonb(a) || to_jsonb(a[2]) $$;
SELECT pg_temp.define('variadic', 'SELECT t.many(t.probe(payload), t.twice(payload))');
SELECT pg_temp.runs('variadic', pg_temp.events('1'), '[1, [1, 1, 1], 1, 1, 1]', 'probe 1');

CREATE OPERATOR t.@@ (LEFTARG = jsonb, RIGHTARG = jsonb, FUNCTION = t.ignore);
SELECT pg_temp.define('operator', 'SELECT payload OPERATOR(t.@@) t.probe(payload)');
SELECT pg_temp.runs('operator', pg_temp.events('1'), '[1, 1]', 'probe 1');

----------------------------------------------------------------------------------------------------
-- Subselects without tables
----------------------------------------------------------------------------------------------------

SELECT pg_temp.define('subselect', 'SELECT jsonb_build_array(e, e, e) FROM (SELECT t.probe(payload) AS e) x');
SELECT pg_temp.runs('subselect', pg_temp.events('1'), '[1, 1, 1]', 'probe 1');

SELECT pg_temp.define('lazy', $$ SELECT CASE WHEN payload = '1' THEN jsonb_build_array(e, e) ELSE '"other"' END
  FROM (SELECT t.probe(payload) AS e, t.probe(state) AS f) x $$);
SELECT pg_temp.runs('lazy', pg_temp.events('1'), '[1, 1]', 'probe 1');
SELECT pg_temp.runs('lazy', pg_temp.events('2'), '"other"', '');

SELECT pg_temp.define('lateral', $$ SELECT jsonb_build_array(e, f, g, f, g)
  FROM (SELECT t.probe(payload) AS e) x, LATERAL (SELECT e || t.probe('2') AS f) y
  CROSS JOIN LATERAL (SELECT jsonb_build_array(e, f) AS g) z $$);
SELECT pg_temp.runs('lateral', pg_temp.events('1'), '[1, [1, 2], [1, [1, 2]], [1, 2], [1, [1, 2]]]', 'probe 2');

SELECT pg_temp.define('inner_subselect', $$ SELECT jsonb_build_array(f, f) FROM (SELECT jsonb_build_array(e, e) AS f
  FROM (SELECT t.probe(payload) AS e) x) y $$);
SELECT pg_temp.runs('inner_subselect', pg_temp.events('1'), '[[1, 1], [1, 1]]', 'probe 1');

SELECT pg_temp.define('left_join', $$ SELECT jsonb_build_array(e, f, f)
  FROM (SELECT t.probe(payload) AS e) x LEFT JOIN LATERAL (SELECT t.probe(e) AS f) y ON true $$);
SELECT pg_temp.runs('left_join', pg_temp.events('1'), '[1, 1, 1]', 'probe 2');

SELECT pg_temp.define('join_alias', $$ SELECT jsonb_build_array(a, b, a, b)
  FROM ((SELECT t.probe(payload)) x CROSS JOIN (SELECT 2) y) AS j (a, b) $$);
SELECT pg_temp.runs('join_alias', pg_temp.events('1'), '[1, 2, 1, 2]', 'probe 1');

SELECT pg_temp.define('one_values', $$ SELECT jsonb_build_array(a, b, a, b) FROM (VALUES (t.probe(payload), t.probe('2'))) v (a, b) $$);
SELECT pg_temp.runs('one_values', pg_temp.events('1'), '[1, 2, 1, 2]', 'probe 2');

SELECT pg_temp.define('function_in_from', 'SELECT jsonb_build_array(e, e) FROM t.probe(payload) e');
SELECT pg_temp.runs('function_in_from', pg_temp.events('1'), '[1, 1]', 'probe 1');

SELECT pg_temp.define('sublink', $$ SELECT jsonb_build_array((SELECT t.probe(payload)), (SELECT jsonb_build_array(e, e, f)
  FROM (SELECT t.probe(f) AS e) y)) FROM (SELECT t.probe(payload) AS f) x $$);
SELECT pg_temp.runs('sublink', pg_temp.events('1'), '[1, [1, 1, 1]]', 'probe 3');

SELECT pg_temp.define('whole_row', 'SELECT jsonb_build_array(x, x.a, (x).b) FROM (SELECT t.probe(payload) AS a, payload->''n'' AS b) x');
SELECT pg_temp.runs('whole_row', pg_temp.events('{"n": 1}'), '[{"a": {"n": 1}, "b": 1}, {"n": 1}, 1]', 'probe 1');

SELECT pg_temp.define('empty_row', $$ SELECT jsonb_build_array(x IS NULL, x.a IS NULL) FROM (SELECT t.probe(payload->'n') AS a) x $$);
SELECT pg_temp.runs('empty_row', pg_temp.events('{}'), '[true, true]', 'probe 1');

-- Where the server does not look either, nothing is evaluated and nothing fails.
SELECT pg_temp.define('unused_column', 'SELECT jsonb_build_array(a, a) FROM (SELECT payload AS a, 1 / 0 AS b) x');
SELECT pg_temp.runs('unused_column', pg_temp.events('1'), '[1, 1]', '');

----------------------------------------------------------------------------------------------------
-- STRICT
----------------------------------------------------------------------------------------------------

CREATE FUNCTION t.strict_loose(a jsonb, b jsonb) RETURNS jsonb LANGUAGE sql STABLE STRICT AS $$ SELECT jsonb_build_array(a, a) $$;
SELECT pg_temp.define('strict_loose', $$ SELECT coalesce(t.strict_loose(t.probe(payload->'a'), t.probe(payload->'b')), '"null"') $$);
SELECT pg_temp.runs('strict_loose', pg_temp.events('{"a": 1, "b": 2}'), '[1, 1]', 'probe 2');
SELECT pg_temp.runs('strict_loose', pg_temp.events('{"a": 1}'), '"null"', 'probe 2');
SELECT pg_temp.runs('strict_loose', pg_temp.events('{"b": 1}'), '"null"', 'probe 1');
SELECT pg_temp.runs('strict_loose', pg_temp.events('{"a": null, "b": 2}'), '[null, null]', 'probe 2');

CREATE FUNCTION t.strict_body(a jsonb, b jsonb) RETURNS jsonb LANGUAGE sql STABLE STRICT AS $$ SELECT a || b || a $$;
SELECT pg_temp.define('strict_body', $$ SELECT coalesce(t.strict_body(t.probe(payload->'a'), payload->'b'), '"null"') $$);
SELECT pg_temp.runs('strict_body', pg_temp.events('{"a": 1, "b": 2}'), '[1, 2, 1]', 'probe 1');
SELECT pg_temp.runs('strict_body', pg_temp.events('{"a": 1}'), '"null"', 'probe 1');

CREATE FUNCTION t.strict_column(a jsonb) RETURNS jsonb LANGUAGE sql STABLE STRICT AS $$
  SELECT e || e FROM (SELECT coalesce(a, '"none"') AS e) x
$$;
SELECT pg_temp.define('strict_column', $$ SELECT coalesce(t.strict_column(payload->'a'), '"null"') $$);
SELECT pg_temp.runs('strict_column', pg_temp.events('{"a": 1}'), '[1, 1]', '');
SELECT pg_temp.runs('strict_column', pg_temp.events('{}'), '"null"', '');

CREATE FUNCTION t.nothing(a jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT NULL::jsonb FROM (SELECT a AS e) x $$;
SELECT pg_temp.define('strict_constant', $$ SELECT coalesce(t.strict_loose(payload, t.nothing(payload)), '"null"') $$);
SELECT pg_temp.runs('strict_constant', pg_temp.events('1'), '"null"', '');

-- A null that shows only when what gives it has been inlined decides as well, and nothing else is evaluated.
CREATE FUNCTION t.null_at_once(a jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$ SELECT NULL::jsonb $$;
CREATE FUNCTION t.fails(a jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$ BEGIN RAISE 'evaluated'; END $$;
CREATE FUNCTION t.merged(a jsonb, b jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT a || b $$;
CREATE FUNCTION t.strict_unused(a jsonb, b jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE STRICT AS $$ SELECT '1'::jsonb $$;
SELECT pg_temp.define('strict_late', $$ SELECT jsonb_build_array(t.strict_unused(t.fails(payload), jsonb_strip_nulls(t.null_at_once(payload))),
  t.strict_loose(t.fails(payload), t.strict_unused(payload, jsonb_strip_nulls(t.null_at_once(payload)))),
  t.merged(t.fails(payload), t.merged(payload, jsonb_strip_nulls(t.null_at_once(payload))))) $$);
SELECT pg_temp.runs('strict_late', pg_temp.events('1'), '[null, null, null]', '');

----------------------------------------------------------------------------------------------------
-- Types and collations
----------------------------------------------------------------------------------------------------

CREATE FUNCTION t.pick(a anyelement, b anyelement) RETURNS anyelement LANGUAGE sql STABLE AS $$ SELECT CASE WHEN a = b THEN a ELSE b END $$;
SELECT pg_temp.define('polymorphic', $$ SELECT jsonb_build_array(t.pick(t.probe(payload), t.probe('2')), t.pick(1.50, (payload->>0)::numeric), t.pick('x'::text, payload->>1)) $$);
SELECT pg_temp.runs('polymorphic', pg_temp.events('[1.5, "y"]'), '[2, 1.50, "y"]', 'probe 2');

CREATE FUNCTION t.first_of(a anyarray) RETURNS anyelement LANGUAGE sql STABLE AS $$ SELECT coalesce(a[1], a[2]) $$;
SELECT pg_temp.define('polymorphic_array', $$ SELECT t.first_of(ARRAY[NULL, t.probe(payload)]) $$);
SELECT pg_temp.runs('polymorphic_array', pg_temp.events('1'), '1', 'probe 1');

CREATE DOMAIN t.object AS jsonb CHECK (jsonb_typeof(VALUE) = 'object');
CREATE FUNCTION t.as_object(a jsonb) RETURNS t.object LANGUAGE sql STABLE AS $$ SELECT CASE WHEN a IS NULL THEN '{}' ELSE a END $$;
CREATE FUNCTION t.takes_object(a t.object) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT jsonb_build_array(a, a) $$;
SELECT pg_temp.define('domain', 'SELECT jsonb_build_array(t.as_object(t.probe(payload)), t.takes_object(t.probe(payload)))');
SELECT pg_temp.runs('domain', pg_temp.events('{}'), '[{}, [{}, {}]]', 'probe 2');
SELECT pg_temp.runs('domain', pg_temp.events('1'), '23514 value for domain t.object violates check constraint "object_check"', 'probe 1');

CREATE FUNCTION t.as_bigint(a jsonb) RETURNS bigint LANGUAGE sql STABLE AS $$ SELECT CASE WHEN a IS NULL THEN 0 ELSE 1 END $$;
SELECT pg_temp.define('coerced', 'SELECT jsonb_build_array(pg_typeof(t.as_bigint(t.probe(payload))), t.as_bigint(payload))');
SELECT pg_temp.runs('coerced', pg_temp.events('1'), '["bigint", 1]', 'probe 1');

CREATE FUNCTION t.collations(a text) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT jsonb_build_array(pg_collation_for(a), pg_collation_for(b), pg_collation_for(a || b)) FROM (SELECT a || a AS b) x
$$;
CREATE FUNCTION t.longer(a text) RETURNS text LANGUAGE sql STABLE AS $$ SELECT a || a $$;
SELECT pg_temp.define('collation', $$ SELECT jsonb_build_array(t.collations(payload->>'a'), t.collations(payload->>'a' COLLATE "C"),
  t.collations(t.longer(payload->>'a' COLLATE "POSIX"))) $$);
SELECT pg_temp.runs('collation', pg_temp.events('{"a": "x"}'),
  '[["\"default\"", "\"default\"", "\"default\""], ["\"C\"", "\"C\"", "\"C\""], ["\"POSIX\"", "\"POSIX\"", "\"POSIX\""]]', '');

CREATE TYPE t.pair AS (a int, b int);
CREATE FUNCTION t.pair_to_text(p t.pair) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT p.a || '-' || p.b || '-' || p.a $$;
CREATE CAST (t.pair AS text) WITH FUNCTION t.pair_to_text(t.pair);
SELECT pg_temp.define('conversion', 'SELECT jsonb_build_array(a::text[], a[1]::text)
  FROM (SELECT ARRAY[ROW(1, payload::int), ROW(3, payload::int)]::t.pair[] AS a) x');
SELECT pg_temp.runs('conversion', pg_temp.events('2'), '[["1-2-1", "3-2-3"], "1-2-1"]', 'pair_to_text 2');

CREATE FUNCTION t.case_inside(a jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT CASE a WHEN '1' THEN jsonb_build_array(a) ELSE a END $$;
SELECT pg_temp.define('case_inside', $$ SELECT t.case_inside(CASE payload->>'k' WHEN 'x' THEN t.case_inside(t.probe(payload->'v')) ELSE '2' END) $$);
SELECT pg_temp.runs('case_inside', pg_temp.events('{"k": "x", "v": 1}'), '[1]', 'probe 1');
SELECT pg_temp.runs('case_inside', pg_temp.events('{"k": "y", "v": 1}'), '2', '');

-- A value that its user might change must not change for the next one.
CREATE FUNCTION t.numbers(n int) RETURNS int[] LANGUAGE plpgsql STABLE AS $$ DECLARE a int[] := '{}'; BEGIN FOR i IN 1..n LOOP a[i] := i; END LOOP; RETURN a; END $$;
SELECT pg_temp.define('read_only', 'SELECT jsonb_build_array(array_append(a, 8), array_append(a, 9), a) FROM (SELECT t.numbers(payload::int) AS a) x');
SELECT pg_temp.runs('read_only', pg_temp.events('2'), '[[1, 2, 8], [1, 2, 9], [1, 2]]', 'numbers 1');

----------------------------------------------------------------------------------------------------
-- Kinds of functions
----------------------------------------------------------------------------------------------------

-- Before PostgreSQL 14 there are only bodies of text.
DO $$
BEGIN
  EXECUTE 'CREATE FUNCTION t.atomic(a jsonb) RETURNS jsonb LANGUAGE sql STABLE ' ||
    CASE WHEN current_setting('server_version_num')::int >= 140000
      THEN 'BEGIN ATOMIC SELECT jsonb_build_array(e, e, a) FROM (SELECT t.probe(a) AS e) x; END'
      ELSE 'AS $f$ SELECT jsonb_build_array(e, e, a) FROM (SELECT t.probe(a) AS e) x $f$' END;
END
$$;
DO $$
BEGIN
  EXECUTE 'CREATE FUNCTION t.returned(a jsonb) RETURNS jsonb LANGUAGE sql STABLE ' ||
    CASE WHEN current_setting('server_version_num')::int >= 140000
      THEN 'RETURN jsonb_build_array(a, a)'
      ELSE 'AS $f$ SELECT jsonb_build_array(a, a) $f$' END;
END
$$;
SELECT pg_temp.define('atomic', 'SELECT jsonb_build_array(t.atomic(t.probe(payload)), t.returned(t.probe(payload)))');
SELECT pg_temp.runs('atomic', pg_temp.events('1'), '[[1, 1, 1], [1, 1]]', 'probe 3');

CREATE FUNCTION t.said_immutable(a jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$ SELECT jsonb_build_array(a, a) $$;
SELECT pg_temp.define('immutable', 'SELECT t.said_immutable(t.probe(payload))');
SELECT pg_temp.runs('immutable', pg_temp.events('1'), '[1, 1]', 'probe 1');

CREATE FUNCTION t.recursive(a jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN jsonb_array_length(e) = 0 THEN '[]' ELSE t.recursive(e - 0) || jsonb_build_array(e, e) END FROM (SELECT a AS e) x
$$;
SELECT pg_temp.define('recursive', 'SELECT t.recursive(payload)');
SELECT pg_temp.runs('recursive', pg_temp.events('[1, 2]'), '[[2], [2], [1, 2], [1, 2]]', 'recursive 2');

CREATE FUNCTION t.unstable(a jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT jsonb_build_array(a, a, random() < 0) $$;
SELECT pg_temp.define('volatile', 'SELECT t.unstable(t.probe(payload))');
SELECT pg_temp.runs('volatile', pg_temp.events('1'), '[1, 1, false]', 'probe 1, unstable 1');

CREATE TABLE t.wordbook (code text PRIMARY KEY, word jsonb);
INSERT INTO t.wordbook VALUES ('a', '"Anmeldung"');
CREATE FUNCTION t.word(a text) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT word FROM t.wordbook WHERE code = a $$;
SELECT pg_temp.define('reads_table', 'SELECT t.twice(t.word(payload->>0))');
SELECT pg_temp.runs('reads_table', pg_temp.events('["a"]'), '["Anmeldung", "Anmeldung", "Anmeldung"]', 'word 1');

CREATE FUNCTION t.rows(a jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT jsonb_agg(e) FROM jsonb_array_elements(a) e $$;
SELECT pg_temp.define('reads_rows', 'SELECT t.twice(t.rows(payload))');
SELECT pg_temp.runs('reads_rows', pg_temp.events('[1]'), '[[1], [1], [1]]', 'rows 1');

-- Each calls the one before it twice: somewhere there must be an end.
DO $$
BEGIN
  CREATE FUNCTION t.double0(a jsonb) RETURNS jsonb LANGUAGE sql STABLE AS 'SELECT a';
  FOR i IN 1..14 LOOP
    EXECUTE format('CREATE FUNCTION t.double%s(a jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $f$
      SELECT jsonb_build_array(t.double%s(t.probe(a)), t.double%2$s(a)) FROM (SELECT 1) x $f$', i, i - 1);
  END LOOP;
END
$$;
SELECT pg_temp.define('too_large', 'SELECT to_jsonb(md5(t.double14(payload)::text))');
SELECT is((pg_temp.run('too_large', pg_temp.events('1'), true)).result, (pg_temp.run('too_large', pg_temp.events('1'), false)).result,
          'what is too large is called');
SELECT cmp_ok((SELECT calls FROM mako_explain_function('t.apply_too_large(jsonb,text,jsonb)') WHERE reason = 'too large' LIMIT 1), '>', 0,
              'and told');

----------------------------------------------------------------------------------------------------
-- Errors
----------------------------------------------------------------------------------------------------

SELECT pg_temp.define('rejects', $$ SELECT CASE WHEN payload = '1' THEN jsonb_build_array(e, e) ELSE payload END
  FROM (SELECT public.mako_reject('no ' || payload::text) AS e) x $$);
SELECT pg_temp.runs('rejects', pg_temp.events('1'), 'MK002 no 1', '');
SELECT pg_temp.runs('rejects', pg_temp.events('2'), '2', '');

SELECT pg_temp.define('divides', $$ SELECT CASE WHEN payload = '0' THEN payload ELSE to_jsonb(e) END FROM (SELECT 6 / payload::int AS e) x $$);
SELECT pg_temp.runs('divides', pg_temp.events('0', '2'), '3', '');

-- What cannot be planned fails when it is called, and not before.
CREATE FUNCTION t.constant_error(a jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT to_jsonb(e + e) FROM (SELECT 1 / 0 AS e) x $$;
SELECT pg_temp.define('constant_error', $$ SELECT CASE WHEN payload = '1' THEN payload ELSE t.constant_error(payload) END $$);
SELECT pg_temp.runs('constant_error', pg_temp.events('1'), '1', '');
SELECT pg_temp.runs('constant_error', pg_temp.events('2'), '22012 division by zero', '');

-- One function may be hidden from the owner of another one. Only what calls it fails, where the server does not call it at once.
CREATE FUNCTION t.secret(a jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT jsonb_build_array(e, e) FROM (SELECT a AS e) x $$;
REVOKE EXECUTE ON FUNCTION t.secret FROM PUBLIC;
CREATE FUNCTION t.calls_secret(a jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT t.twice(e) || t.secret(e) FROM (SELECT t.probe(a) AS e) x $$;
SELECT pg_temp.define('denied', $$ SELECT CASE WHEN payload = '1' THEN t.twice(payload) ELSE t.calls_secret(payload) END $$);
SELECT pg_temp.runs('denied', pg_temp.events('2'), '[2, 2, 2, 2, 2]', 'probe 1');
ALTER FUNCTION t.apply_denied OWNER TO mako_inline_author;
SELECT mako_register_workflow('denied@FV2024-10-01', apply => 't.apply_denied', initial_state => '{}', replace => true);
SELECT pg_temp.runs('denied', pg_temp.events('1'), '[1, 1, 1]', '');
SELECT pg_temp.runs('denied', pg_temp.events('2'), '42501 permission denied for function secret', '');

SELECT pg_temp.define('denied_at_once', 'SELECT CASE WHEN payload = ''1'' THEN payload ELSE t.secret(payload) END');
ALTER FUNCTION t.apply_denied_at_once OWNER TO mako_inline_author;
SELECT mako_register_workflow('denied_at_once@FV2024-10-01', apply => 't.apply_denied_at_once', initial_state => '{}', replace => true);
SELECT pg_temp.runs('denied_at_once', pg_temp.events('1'), '42501 permission denied for function secret', '');

-- A body that cannot be parsed fails when its caller would have failed.
CREATE SCHEMA hidden;
CREATE FUNCTION hidden.inner_function(a jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT a $$;
CREATE FUNCTION t.outer_function(a jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT hidden.inner_function(a) $$;
CREATE FUNCTION t.around(a jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT jsonb_build_array(t.outer_function(e), e) FROM (SELECT a AS e) x $$;
SELECT pg_temp.define('hidden', $$ SELECT CASE WHEN payload = '1' THEN t.twice(payload) ELSE t.around(payload) END $$);
ALTER FUNCTION t.apply_hidden OWNER TO mako_inline_author;
SELECT mako_register_workflow('hidden@FV2024-10-01', apply => 't.apply_hidden', initial_state => '{}', replace => true);
SELECT pg_temp.runs('hidden', pg_temp.events('1'), '[1, 1, 1]', '');
SELECT pg_temp.runs('hidden', pg_temp.events('2'), '42501 permission denied for schema hidden', '');

----------------------------------------------------------------------------------------------------
-- Cached folds follow the setting
----------------------------------------------------------------------------------------------------

SELECT mako_create_store();
SELECT mako_spawn('twice@FV2024-10-01', '00000000-0000-0000-0000-000000000001', '00000000-0000-0000-0000-000000000002') AS stream_id \gset
SELECT mako_append(:'stream_id', 'twice@FV2024-10-01', 'Happened', '1');
CREATE FUNCTION pg_temp.state(stream_id text, native boolean, OUT state jsonb, OUT twice bigint) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  before jsonb := pg_temp.counts();
BEGIN
  PERFORM set_config('mako_migration.native_evaluation', native::text, true);
  state := (SELECT s.state FROM mako_state(stream_id) s);
  twice := coalesce((pg_temp.counts()->>'twice')::int, 0) - coalesce((before->>'twice')::int, 0);
END
$$;
SELECT is(pg_temp.state(:'stream_id', true), ROW('[1, 1, 1]'::jsonb, 0::bigint), 'native');
SELECT is(pg_temp.state(:'stream_id', true), ROW('[1, 1, 1]'::jsonb, 0::bigint), 'native, from the cache');
SELECT is(pg_temp.state(:'stream_id', false), ROW('[1, 1, 1]'::jsonb, 1::bigint), 'as the server does');
SELECT is(pg_temp.state(:'stream_id', true), ROW('[1, 1, 1]'::jsonb, 0::bigint), 'native again');

----------------------------------------------------------------------------------------------------
-- mako_explain_function
----------------------------------------------------------------------------------------------------

-- Native or not is the business of other tests.
CREATE FUNCTION pg_temp.explained(function regprocedure) RETURNS SETOF text LANGUAGE sql AS $$
  SELECT concat_ws(' | ', call, evaluation, calls, reason, hint) FROM mako_explain_function(function)
  WHERE evaluation NOT IN ('native', 'server')
$$;

SELECT results_eq($$ SELECT pg_temp.explained('t.apply_nested(jsonb,text,jsonb)') $$,
  ARRAY['t.apply_nested(jsonb,text,jsonb) | inlined | 1', 't.deep(jsonb) | bound | 1', 't.twice(jsonb) | bound | 3',
        't.probe(jsonb) | called | 2 | language plpgsql | Write it in SQL, as one SELECT of one expression.'],
  'inlined, bound, called');
SELECT results_eq($$ SELECT pg_temp.explained('t.apply_subselect(jsonb,text,jsonb)') $$,
  ARRAY['t.apply_subselect(jsonb,text,jsonb) | bound | 1',
        't.probe(jsonb) | called | 1 | language plpgsql | Write it in SQL, as one SELECT of one expression.'],
  'columns are bound, too');
CREATE FUNCTION t.once(a jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT CASE WHEN is_known THEN e END FROM (SELECT true AS is_known, a AS e) x $$;
CREATE FUNCTION t.uses_once(a jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT t.once(t.probe(a)) $$;
SELECT results_eq($$ SELECT pg_temp.explained('t.uses_once(jsonb)') $$,
  ARRAY['t.uses_once(jsonb) | inlined | 1', 't.once(jsonb) | inlined | 1',
        't.probe(jsonb) | called | 1 | language plpgsql | Write it in SQL, as one SELECT of one expression.'],
  'what is used once needs no binding');
SELECT results_eq($$ SELECT pg_temp.explained('t.apply_recursive(jsonb,text,jsonb)') $$,
  ARRAY['t.apply_recursive(jsonb,text,jsonb) | inlined | 1', 't.recursive(jsonb) | inlined | 1', 't.recursive(jsonb) | called | 1 | calls itself'],
  'inlined once, called where it calls itself');
SELECT results_eq($$ SELECT pg_temp.explained('t.apply_reads_table(jsonb,text,jsonb)') $$,
  ARRAY['t.apply_reads_table(jsonb,text,jsonb) | inlined | 1', 't.twice(jsonb) | bound | 1',
        't.word(text) | called | 1 | FROM with a table | Depend on the arguments only.'],
  'a table');
SELECT results_eq($$ SELECT pg_temp.explained('t.apply_volatile(jsonb,text,jsonb)') $$,
  ARRAY['t.apply_volatile(jsonb,text,jsonb) | inlined | 1',
        't.probe(jsonb) | called | 1 | language plpgsql | Write it in SQL, as one SELECT of one expression.',
        't.unstable(jsonb) | called | 1 | calls random(), which is volatile | If its result depends on its arguments only, declare it STABLE.'],
  'a volatile function inside');
SELECT results_eq($$ SELECT pg_temp.explained('t.apply_denied(jsonb,text,jsonb)') $$,
  ARRAY['t.apply_denied(jsonb,text,jsonb) | inlined | 1', 't.twice(jsonb) | inlined | 1',
        't.calls_secret(jsonb) | called | 1 | calls t.secret(jsonb), for which permission is denied | Grant EXECUTE on it to "mako_inline_author".'],
  'planned with the rights of the owner');
SELECT results_eq($$ SELECT pg_temp.explained('t.apply_denied_at_once(jsonb,text,jsonb)') $$,
  ARRAY['t.apply_denied_at_once(jsonb,text,jsonb) | inlined | 1',
        't.secret(jsonb) | called | 1 | permission denied | Grant EXECUTE on it to "mako_inline_author".'],
  'the server inlines it all the same');
SELECT results_eq($$ SELECT pg_temp.explained('t.apply_hidden(jsonb,text,jsonb)') $$,
  ARRAY['t.apply_hidden(jsonb,text,jsonb) | inlined | 1', 't.around(jsonb) | inlined | 1', 't.twice(jsonb) | inlined | 1',
        't.outer_function(jsonb) | called | 1 | error: permission denied for schema hidden'],
  'a body that cannot be parsed');
SELECT results_eq($$ SELECT pg_temp.explained('t.probe(jsonb)') $$,
  ARRAY['t.probe(jsonb) | called | 1 | language plpgsql | Write it in SQL, as one SELECT of one expression.'],
  'not SQL');
SELECT results_eq($$ SELECT pg_temp.explained('t.pick(anyelement,anyelement)') $$, ARRAY['t.pick(anyelement,anyelement) | inlined | 1'],
  'polymorphic');

-- What a body must not have.
CREATE TABLE pg_temp.refused (no int, body text, attributes text, reason text);
INSERT INTO pg_temp.refused VALUES
  (1, 'SELECT a; SELECT a', 'STABLE', 'not one statement'),
  (2, 'SELECT a WHERE a IS NOT NULL', 'STABLE', 'WHERE'),
  (3, 'WITH x AS (SELECT a) SELECT a FROM x', 'STABLE', 'WITH'),
  (22, 'SELECT a FROM (WITH x AS (SELECT 1) SELECT a) y', 'STABLE', 'WITH'),
  (4, 'SELECT a UNION ALL SELECT a', 'STABLE', 'UNION, INTERSECT or EXCEPT'),
  (5, 'SELECT a ORDER BY 1', 'STABLE', 'ORDER BY'),
  (6, 'SELECT a LIMIT 1', 'STABLE', 'LIMIT or OFFSET'),
  (7, 'SELECT DISTINCT a', 'STABLE', 'DISTINCT'),
  (8, 'SELECT max(1)::text::jsonb', 'STABLE', 'an aggregate'),
  (9, 'SELECT to_jsonb(row_number() OVER ())', 'STABLE', 'a window function'),
  (10, 'SELECT jsonb_array_elements(a)', 'STABLE', 'a function that returns rows'),
  (11, 'SELECT a GROUP BY a', 'STABLE', 'GROUP BY or HAVING'),
  (12, 'SELECT x FROM (VALUES (a), (a)) v (x)', 'STABLE', 'VALUES with several rows'),
  (13, 'SELECT x FROM (SELECT a AS x) y JOIN (SELECT 1) z ON x IS NULL', 'STABLE', 'JOIN with a condition'),
  (14, 'SELECT x FROM jsonb_array_elements(a) x', 'STABLE', 'FROM with a function that returns rows'),
  (15, 'SELECT CASE WHEN EXISTS (SELECT FROM t.wordbook) THEN a END', 'STABLE', 'FROM with a table'),
  (16, 'SELECT CASE WHEN a IN (SELECT a) THEN a END', 'STABLE', 'EXISTS, IN or ARRAY with a subselect'),
  (17, 'SELECT x FROM (SELECT (SELECT word FROM t.wordbook LIMIT 1) AS x) y', 'STABLE', 'FROM with a table'),
  (18, 'SELECT a', 'VOLATILE', 'VOLATILE'),
  (19, 'SELECT a', 'STABLE SECURITY DEFINER', 'SECURITY DEFINER'),
  (20, 'SELECT a', 'STABLE SET datestyle = iso', 'SET clause'),
  (21, 'INSERT INTO t.wordbook VALUES (a, a) RETURNING word', 'STABLE', 'not a SELECT');
DO $$
DECLARE
  r record;
BEGIN
  SET LOCAL check_function_bodies = off;
  UPDATE pg_temp.refused SET body = 'INSERT INTO t.wordbook VALUES (''b'', a) RETURNING word' WHERE no = 21;
  FOR r IN SELECT * FROM pg_temp.refused LOOP
    EXECUTE format('CREATE FUNCTION t.refused%s(a jsonb) RETURNS jsonb LANGUAGE sql %s AS %L', r.no, r.attributes, r.body);
  END LOOP;
END
$$;
SELECT results_eq(format($$ SELECT evaluation, calls, reason FROM mako_explain_function('t.refused%s(jsonb)') $$, no),
                  format('VALUES (%L, 1, %L)', 'called', reason), 'refused: ' || reason)
FROM pg_temp.refused ORDER BY no;

CREATE FUNCTION t.returns_rows(a jsonb) RETURNS SETOF jsonb LANGUAGE sql STABLE AS $$ SELECT a $$;
CREATE FUNCTION t.returns_record(a jsonb, OUT b jsonb, OUT c jsonb) LANGUAGE sql STABLE AS $$ SELECT a, a $$;
CREATE FUNCTION t.returns_pair(a int) RETURNS t.pair LANGUAGE sql STABLE AS $$ SELECT a, a $$;
CREATE FUNCTION t.returns_void(a jsonb) RETURNS void LANGUAGE sql STABLE AS $$ SELECT a $$;
SELECT is((SELECT reason FROM mako_explain_function('t.returns_rows(jsonb)')), 'returns a set', 'a set');
SELECT is((SELECT reason FROM mako_explain_function('t.returns_record(jsonb)')), 'returns a record', 'a record');
SELECT is((SELECT reason FROM mako_explain_function('t.returns_pair(int)')), 'returns a row', 'columns of a row');
SELECT is((SELECT reason FROM mako_explain_function('t.returns_void(jsonb)')), 'returns void', 'nothing');

-- Operators, casts and calls of the server, as they are written, and how often.
CREATE FUNCTION t.calls(a jsonb, n int, b text, c text, d int[], e text) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN a ? 'x' AND -n = ANY (d) OR b IS DISTINCT FROM c THEN a->'x' ELSE jsonb_build_object(nullif(b, c), a->'y', e, a::text) END
$$;
SELECT set_eq($$ SELECT call, calls FROM mako_explain_function('t.calls(jsonb,int,text,text,int[],text)') $$,
  $$ VALUES ('t.calls(jsonb,integer,text,text,integer[],text)', 1), ('- integer', 1), ('CAST(jsonb AS text)', 1), ('integer = integer', 1),
            ('jsonb -> text', 2), ('jsonb ? text', 1), ('jsonb_build_object("any")', 1), ('text = text', 2) $$,
  'what is called, and how often');
SELECT is((SELECT call FROM mako_explain_function('t.calls(jsonb,int,text,text,int[],text)') LIMIT 1),
          't.calls(jsonb,integer,text,text,integer[],text)', 'the function itself comes first');

SET mako_migration.native_evaluation = off;
SELECT results_eq($$ SELECT pg_temp.explained('t.apply_cheap(jsonb,text,jsonb)') $$,
  ARRAY['t.apply_cheap(jsonb,text,jsonb) | inlined | 1', 't.twice(jsonb) | inlined | 1'],
  'off: what the server inlines');
SELECT results_eq($$ SELECT pg_temp.explained('t.apply_subselect(jsonb,text,jsonb)') $$,
  ARRAY['t.apply_subselect(jsonb,text,jsonb) | called | 1 | mako_migration.native_evaluation is off | Set it to on.'],
  'off: what it does not');
RESET mako_migration.native_evaluation;

SELECT throws_ok($$ SELECT * FROM mako_explain_function('sum(int)') $$, '42809',
                 'pg_catalog.sum(integer) is not an ordinary function', 'an aggregate');
SELECT throws_ok($$ SELECT * FROM mako_explain_function(1::oid) $$, '42883', 'function with OID 1 does not exist', 'no function');
SELECT throws_ok($$ SELECT mako_explain_function('t.probe(jsonb)') IS NULL FROM (SELECT 1) x WHERE mako_explain_function('t.probe(jsonb)') IS NULL $$,
                 '0A000', NULL, 'where no rows can be returned');

SELECT * FROM finish();
DROP OWNED BY mako_inline_author;
DROP ROLE mako_inline_author;
