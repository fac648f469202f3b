-- Native evaluation is exact: expressions over documents give what the server gives for the same expression in the same query, results
-- to the byte, and errors with message, detail and hint. Values pass through everything that knows nothing of them.
-- Runs in an empty database, from the root of the project. The random test is test/fuzz/native.pl.

CREATE EXTENSION pgtap;
CREATE EXTENSION mako_migration;
SET client_min_messages = warning;

CREATE SCHEMA t;
\ir include/helpers.sql

SELECT plan(39);

SELECT ok(current_setting('mako_migration.native_evaluation')::boolean, 'programs are evaluated natively by default');

----------------------------------------------------------------------------------------------------
-- Documents
----------------------------------------------------------------------------------------------------

CREATE TABLE t.document (name text PRIMARY KEY, value jsonb NOT NULL);
INSERT INTO t.document VALUES
  ('null', 'null'), ('true', 'true'), ('number', '-1.50'), ('string', '"a"'), ('empty string', '""'), ('empty object', '{}'), ('empty array', '[]'),
  ('nested empty', '{"o": {}, "a": [], "s": "", "": {"": null}}'),
  ('object', '{"a": 1, "b": "x", "c": null, "d": true, "o": {"a": {"b": [1, {"c": 2}]}}, "l": [10, "a", null, [1], {"k": "v"}, false]}'),
  ('other object', '{"b": {"b": 1}, "a": [3, 2, 1], "bb": 0, "ba": 1, "ab": 2, "aaa": 3, "A": 4, " a": 5, "a ": 6, "1": 7, "-1": 8}'),
  ('nulls', '{"a": null, "o": {"a": null, "b": {"c": null}}, "l": [null, {"a": null}, [null]]}'),
  ('array', '[0, "a", {"a": 1}, [1, [2, [3]]], null, "b", "a"]'),
  ('array of arrays', '[[], [[]], [{}], {"a": [[1, 2], [3, 4]]}]'),
  ('numbers', '{"a": 1.0, "b": 1.00, "c": 1e5, "d": -0, "e": -0.0, "f": 123456789012345678901234567890, "g": 1e-20, "h": 0.00, "i": 1E+30, "j": 2147483647,
                "k": 2147483648, "l": 9223372036854775807, "m": 9223372036854775808, "n": 1.5, "o": -1.5, "p": 1e400}'),
  ('unicode', '{"ä": "ö", "a\u0308": 1, "日本": "語", "😀": ["😀", "\ud83d\ude00"], "\"": "\\", "t\t": "\n", "\u0001": "\u001f"}'),
  ('long strings', jsonb_build_object('a', repeat('x', 126), 'b', repeat('y', 127), 'c', repeat('ä', 5000), 'd', repeat('k', 1000000), repeat('k', 300), 1)),
  ('33 keys', (SELECT jsonb_object_agg('k' || i, i) FROM generate_series(1, 33) i)),
  ('150 keys', (SELECT jsonb_object_agg('key' || lpad(i::text, 1 + i % 7, '0'), CASE i % 4 WHEN 0 THEN to_jsonb(i) WHEN 1 THEN 'null'::jsonb
                                        WHEN 2 THEN jsonb_build_object('a', i) ELSE to_jsonb(repeat('v', i)) END) FROM generate_series(1, 150) i)),
  ('200 elements', (SELECT jsonb_agg(CASE i % 3 WHEN 0 THEN to_jsonb(i * 1.10) WHEN 1 THEN to_jsonb(i::text) ELSE jsonb_build_array(i) END) FROM generate_series(1, 200) i)),
  ('deep', (repeat('{"a":[', 200) || '1' || repeat(']}', 200))::jsonb);

-- Incompressible and out of line when it is stored.
INSERT INTO t.document SELECT 'random string', jsonb_build_object('a', string_agg(md5(i::text), ''), 'b', 1) FROM generate_series(1, 400) i;

----------------------------------------------------------------------------------------------------
-- Expressions
----------------------------------------------------------------------------------------------------

-- What values meet on their way that knows nothing of them.
CREATE DOMAIN t.document_domain AS jsonb CHECK (VALUE IS NULL OR jsonb_typeof(VALUE) <> 'string');
CREATE TYPE t.pair AS (name text, value jsonb);
CREATE FUNCTION t.echo(value jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN value; END $$;
CREATE FUNCTION t.variable(value jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$ DECLARE v jsonb := value; BEGIN value := NULL; RETURN v; END $$;
CREATE FUNCTION t.grown(value jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
DECLARE
  before jsonb := value;
BEGIN
  FOR i IN 1 .. 3 LOOP
    value := jsonb_build_object('inner', value, 'i', i) || jsonb_build_object('j', i);
  END LOOP;
  RETURN jsonb_build_array(before, value);
END $$;
CREATE FUNCTION t.caught(value jsonb, key text) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
  RETURN mako_required(value, key);
EXCEPTION WHEN OTHERS THEN
  RETURN jsonb_build_array(SQLSTATE, SQLERRM, value);
END $$;
CREATE FUNCTION t.made_pair(name text, value jsonb) RETURNS t.pair LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN ROW(name, value); END $$;
CREATE FUNCTION t.last(elements jsonb[]) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN elements[array_upper(elements, 1)]; END $$;
CREATE FUNCTION t.called(value jsonb) RETURNS jsonb LANGUAGE sql STABLE SET work_mem = '1MB' AS $$ SELECT value $$;
CREATE FUNCTION t.domain_function(value t.document_domain) RETURNS t.document_domain LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN value; END $$;

CREATE TABLE t.expression (topic text NOT NULL, number int GENERATED ALWAYS AS IDENTITY, sql text NOT NULL);
INSERT INTO t.expression (topic, sql) VALUES
  ('->', $$ state -> 'a' $$), ('->', $$ state -> '' $$), ('->', $$ state -> 'o' -> 'a' -> 'b' $$), ('->', $$ state -> 'zz' $$), ('->', $$ state -> NULL::text $$),
  ('->', $$ state -> repeat('k', 300) $$), ('->', $$ state -> 'key077' $$), ('->', $$ state -> 'k33' $$), ('->', $$ state -> '😀' $$), ('->', $$ state -> (state ->> 'b') $$),
  ('->', $$ state -> 0 $$), ('->', $$ state -> -1 $$), ('->', $$ state -> 6 -> 0 $$), ('->', $$ state -> 199 $$), ('->', $$ state -> -200 $$), ('->', $$ state -> 1000 $$),
  ('->', $$ state -> (-2147483647 - 1) $$), ('->', $$ state -> 'l' -> 3 -> 0 $$),
  ('->>', $$ state ->> 'a' $$), ('->>', $$ state ->> 'b' $$), ('->>', $$ state ->> 'o' $$), ('->>', $$ state -> 'l' ->> -2 $$), ('->>', $$ state ->> 0 $$), ('->>', $$ state ->> 2 $$),
  ('->>', $$ state ->> '日本' $$), ('->>', $$ state ->> 'c' $$), ('->>', $$ state ->> 'd' $$), ('->>', $$ state ->> 'g' $$),
  ('#>', $$ state #> '{}' $$), ('#>', $$ state #> '{o,a,b,1,c}' $$), ('#>', $$ state #> '{l,-1}' $$), ('#>', $$ state #> '{3,1,1,0}' $$), ('#>', $$ state #> '{l, 1}' $$),
  ('#>', $$ state #> '{0}' $$), ('#>', $$ state #> '{+1}' $$), ('#>', $$ state #> ARRAY[' 1'] $$), ('#>', $$ state #> ARRAY['1 '] $$), ('#>', $$ state #> '{01}' $$), ('#>', $$ state #> '{-0}' $$),
  ('#>', $$ state #> '{99999999999}' $$), ('#>', $$ state #> '{-2147483648}' $$), ('#>', $$ state #> ARRAY['a', NULL] $$), ('#>', $$ state #> NULL::text[] $$),
  ('#>', $$ state #> '{{a,b},{c,d}}' $$), ('#>', $$ state #> ARRAY[state ->> 'b', 'x'] $$), ('#>', $$ jsonb_extract_path(state, 'o', 'a') $$),
  ('#>', $$ jsonb_extract_path(state, VARIADIC ARRAY['l', '0']) $$), ('#>', $$ jsonb_extract_path(state, NULL, 'a') $$),
  ('#>>', $$ state #>> '{}' $$), ('#>>', $$ state #>> '{o,a,b}' $$), ('#>>', $$ state #>> '{l,1}' $$), ('#>>', $$ state #>> '{a}' $$), ('#>>', $$ state #>> '{0}' $$),
  ('#>>', $$ jsonb_extract_path_text(state, 'l', '-1') $$), ('#>>', $$ jsonb_extract_path_text(state -> 'o', VARIADIC '{}') $$),
  ('||', $$ state || '{"a": "new", "zzz": {}}' $$), ('||', $$ '{"a": "old", "A": 1}' || state $$), ('||', $$ state || state $$), ('||', $$ state || '[1]' $$), ('||', $$ '[]' || state $$),
  ('||', $$ state || '{}' $$), ('||', $$ state || '1' $$), ('||', $$ '"x"' || state $$), ('||', $$ state || NULL $$), ('||', $$ (state -> 'o') || (state -> 'l') $$),
  ('||', $$ state || jsonb_build_object('a', state -> 'b', 'n', NULL) || jsonb_build_object('b', state -> 'a') $$),
  ('-', $$ state - 'a' $$), ('-', $$ state - '' $$), ('-', $$ state - 'zz' $$), ('-', $$ state - 'key00077' $$), ('-', $$ state - NULL::text $$), ('-', $$ state - 0 $$), ('-', $$ state - -1 $$),
  ('-', $$ state - 1000 $$), ('-', $$ state - (-1000) $$), ('-', $$ state - ARRAY['a', 'b', 'zz', 'a'] $$), ('-', $$ state - '{}'::text[] $$), ('-', $$ state - ARRAY['a', NULL] $$),
  ('-', $$ state - '{{a,b},{c,d}}'::text[] $$), ('-', $$ (state -> 'l') - 'a' $$), ('-', $$ (state - 'a') - 'b' $$),
  ('#-', $$ state #- '{a}' $$), ('#-', $$ state #- '{o,a,b,1,c}' $$), ('#-', $$ state #- '{l,-1}' $$), ('#-', $$ state #- '{}' $$), ('#-', $$ state #- '{0}' $$), ('#-', $$ state #- '{3,1,1,0}' $$),
  ('#-', $$ state #- ARRAY['a', NULL] $$), ('#-', $$ state #- '{1000}' $$), ('#-', $$ state #- '{l,x}' $$), ('#-', $$ state #- '{a,b}' $$),
  ('?', $$ state ? 'a' $$), ('?', $$ state ? '' $$), ('?', $$ (state -> 'l') ? 'a' $$), ('?', $$ state ? '1' $$), ('?', $$ state ?| ARRAY['zz', 'b', NULL] $$), ('?', $$ state ?| '{}' $$),
  ('?', $$ state ?| ARRAY['x', 'a'] $$), ('?', $$ state ?& ARRAY['a', 'b'] $$), ('?', $$ state ?& ARRAY['a', NULL] $$), ('?', $$ state ?& '{}' $$), ('?', $$ state ?& ARRAY['a', 'zz'] $$),
  ('@>', $$ state @> '{}' $$), ('@>', $$ state @> '[]' $$), ('@>', $$ state @> '{"a": 1.00}' $$), ('@>', $$ state @> '"a"' $$), ('@>', $$ state @> '["a"]' $$), ('@>', $$ state @> '{"o": {"a": {}}}' $$),
  ('@>', $$ state <@ '{"a": 1}' $$), ('@>', $$ '{"a": null}' <@ state $$), ('@>', $$ state @> state $$), ('@>', $$ state @> jsonb_build_object('a', state -> 'a') $$),
  ('=', $$ state = state $$), ('=', $$ state = '{}' $$), ('=', $$ state <> '[]' $$), ('=', $$ (state -> 'a') = (state -> 'b') $$), ('=', $$ (state -> 'a') = '1' $$), ('=', $$ (state -> 'd') = '0' $$),
  ('=', $$ state = NULL $$), ('=', $$ state IS DISTINCT FROM jsonb_build_object('a', state -> 'a') $$), ('=', $$ state IN ('1', 'null', '{}', '[]', '"a"') $$), ('=', $$ (state || '{}') = state $$),
  ('=', $$ (state -> 'a') IS NOT DISTINCT FROM (state -> 'c') $$), ('=', $$ jsonb_build_array(state, 1.0) = jsonb_build_array(state, 1) $$),
  ('jsonb_build_object', $$ jsonb_build_object() $$), ('jsonb_build_object', $$ jsonb_build_object('b', 1, 'a', 2, 'b', 3, 'aa', 4, '', 5) $$),
  ('jsonb_build_object', $$ jsonb_build_object('state', state, 'copy', state, 'field', state -> 'a', 'text', state ->> 'a') $$),
  ('jsonb_build_object', $$ jsonb_build_object(1, 2, true, false, 1.50, 2.50, date '2024-02-29', 'x') $$), ('jsonb_build_object', $$ jsonb_build_object(NULL, 1) $$),
  ('jsonb_build_object', $$ jsonb_build_object('a', 1, state ->> 'b', 2) $$), ('jsonb_build_object', $$ jsonb_build_object('a') $$), ('jsonb_build_object', $$ jsonb_build_object(state, 1) $$),
  ('jsonb_build_object', $$ jsonb_build_object('x', 1, ARRAY[1], 2) $$), ('jsonb_build_object', $$ jsonb_build_object(VARIADIC ARRAY['b', 'x', 'a', NULL, 'b', 'y']) $$),
  ('jsonb_build_object', $$ jsonb_build_object(coalesce(state ->> 'b', 'none'), 1, 'a', 2, coalesce(state ->> 'b', 'none'), 3) $$),
  ('jsonb_build_array', $$ jsonb_build_array() $$), ('jsonb_build_array', $$ jsonb_build_array(NULL, state, 'unknown', state ->> 'b') $$),
  ('jsonb_build_array', $$ jsonb_build_array(1::smallint, 1, 5000000000, 1.50, 'NaN'::numeric, 1e100::float8, '-Infinity'::float8, 0.1::real, true, NULL::int) $$),
  ('jsonb_build_array', $$ jsonb_build_array(timestamptz '2024-03-01 12:00+00', timestamp '2024-03-01 12:00', date 'infinity', time '12:00', interval '1 day') $$),
  ('jsonb_build_array', $$ jsonb_build_array(uuid '6ccd780c-baba-1026-9564-5b8c656024db', '\x00ff'::bytea, 'a'::char(5), 'v'::varchar, 'n'::name, '{"b": 1, "a": 1, "b": 2}'::json) $$),
  ('jsonb_build_array', $$ jsonb_build_array(ARRAY[1, NULL], ARRAY[[1, 2], [3, 4]], '{}'::int[], ARRAY[state, NULL], ROW(1, state), ROW('x', state)::t.pair, state::t.document_domain) $$),
  ('jsonb_build_array', $$ jsonb_build_array(VARIADIC ARRAY[state, state -> 'a']) $$), ('jsonb_build_array', $$ jsonb_build_array(jsonb_build_array(jsonb_build_array(state))) $$),
  ('jsonb_set', $$ jsonb_set(state, '{a}', '"new"') $$), ('jsonb_set', $$ jsonb_set(state, '{zz}', '"new"') $$), ('jsonb_set', $$ jsonb_set(state, '{zz}', '"new"', false) $$),
  ('jsonb_set', $$ jsonb_set(state, '{o,a,b,1,c}', state) $$), ('jsonb_set', $$ jsonb_set(state, '{l,-1}', '{}') $$), ('jsonb_set', $$ jsonb_set(state, '{l,100}', '{}') $$), ('jsonb_set', $$ jsonb_set(state, '{0}', '1') $$),
  ('jsonb_set', $$ jsonb_set(state, '{-100}', '1', false) $$), ('jsonb_set', $$ jsonb_set(state, '{-100}', '1') $$), ('jsonb_set', $$ jsonb_set(state, '{x}', '1') $$), ('jsonb_set', $$ jsonb_set(state, '{}', '1') $$),
  ('jsonb_set', $$ jsonb_set(state, '{a,b,c}', '1') $$), ('jsonb_set', $$ jsonb_set(state, ARRAY['a', NULL], '1') $$), ('jsonb_set', $$ jsonb_set(state, '{a}', state -> 'zz') $$), ('jsonb_set', $$ jsonb_set(state, '{l,x}', '1') $$),
  ('jsonb_set', $$ jsonb_set(jsonb_set(state, '{o}', '{"a": 1}'), '{o,b}', '2') $$), ('jsonb_set', $$ jsonb_set_lax(state, '{a}', NULL, true, 'delete_key') $$),
  ('jsonb_insert', $$ jsonb_insert(state, '{zz}', '1') $$), ('jsonb_insert', $$ jsonb_insert(state, '{a}', '1') $$), ('jsonb_insert', $$ jsonb_insert(state, '{l,0}', state) $$), ('jsonb_insert', $$ jsonb_insert(state, '{l,0}', '1', true) $$),
  ('jsonb_insert', $$ jsonb_insert(state, '{l,-1}', '1') $$), ('jsonb_insert', $$ jsonb_insert(state, '{l,-1}', '1', true) $$), ('jsonb_insert', $$ jsonb_insert(state, '{1000}', '1') $$), ('jsonb_insert', $$ jsonb_insert(state, '{-1000}', '1') $$),
  ('jsonb_insert', $$ jsonb_insert(state, '{o,a,x}', '1') $$), ('jsonb_insert', $$ jsonb_insert(state, '{}', '1') $$), ('jsonb_insert', $$ jsonb_insert(state, '{1,0}', '1') $$),
  ('jsonb_strip_nulls', $$ jsonb_strip_nulls(state) $$), ('jsonb_strip_nulls', $$ jsonb_strip_nulls(jsonb_build_object('a', NULL, 'state', state, 'l', jsonb_build_array(NULL, state))) $$),
  ('jsonb_typeof', $$ jsonb_typeof(state) $$), ('jsonb_typeof', $$ jsonb_typeof(state -> 'a') $$), ('jsonb_typeof', $$ jsonb_typeof(jsonb_build_array(state) -> 0) $$), ('jsonb_typeof', $$ jsonb_typeof(NULL::jsonb) $$),
  ('jsonb_array_length', $$ jsonb_array_length(state) $$), ('jsonb_array_length', $$ jsonb_array_length(state -> 'l') $$), ('jsonb_array_length', $$ jsonb_array_length(jsonb_build_array(1, state)) $$),
  ('to_jsonb', $$ to_jsonb(state) $$), ('to_jsonb', $$ to_jsonb(state ->> 'a') $$), ('to_jsonb', $$ to_jsonb(1.50) $$), ('to_jsonb', $$ to_jsonb(ARRAY[state]) $$), ('to_jsonb', $$ to_jsonb(ROW(state, 1)) $$), ('to_jsonb', $$ to_jsonb(NULL::text) $$),
  ('to_jsonb', $$ to_jsonb('infinity'::float8) $$), ('to_jsonb', $$ to_jsonb((state ->> 'a') = '1') $$), ('to_jsonb', $$ to_jsonb(state ->> 'b') -> 0 $$),
  ('casts', $$ state::boolean $$), ('casts', $$ (state -> 'd')::boolean $$), ('casts', $$ state::int $$), ('casts', $$ (state -> 'a')::int $$), ('casts', $$ (state -> 'n')::int $$), ('casts', $$ (state -> 'k')::int $$),
  ('casts', $$ (state -> 'o')::smallint $$), ('casts', $$ (state -> 'l')::bigint $$), ('casts', $$ (state -> 'm')::bigint $$), ('casts', $$ (state -> 'f')::numeric $$), ('casts', $$ (state -> 'b')::numeric $$),
  ('casts', $$ (state -> 'p')::float8 $$), ('casts', $$ (state -> 'g')::real $$), ('casts', $$ (state -> 'e')::float8 $$), ('casts', $$ (state -> 'e')::numeric $$), ('casts', $$ (state -> 'f')::numeric(10, 2) $$), ('casts', $$ state::text $$),
  ('casts', $$ (state -> 'a')::text $$), ('casts', $$ state::varchar(5) $$), ('casts', $$ state::json $$), ('casts', $$ state::text::jsonb $$), ('casts', $$ (state -> 'a')::numeric + (state -> 'b')::numeric $$),
  ('mako_required', $$ mako_required(state, 'a') $$), ('mako_required', $$ mako_required(state, 'o', 'a', 'b') $$), ('mako_required', $$ mako_required(state, VARIADIC ARRAY['l', '-1']) $$),
  ('mako_required', $$ mako_required(state, 'c') $$), ('mako_required', $$ mako_required(state -> 'zz', 'a', NULL) $$), ('mako_required', $$ jsonb_build_object('a', mako_required(state, 'zz'), 'b', mako_required(state, 'yy')) $$),
  ('mako_required', $$ coalesce(mako_required(state, 'a'), '1') $$),
  ('mako_reject', $$ mako_reject('no') $$), ('mako_reject', $$ CASE WHEN state ? 'a' THEN mako_reject('has ' || (state ->> 'a')) ELSE state END $$), ('mako_reject', $$ coalesce(mako_reject('first'), mako_reject('second')) $$),
  ('mako_reject', $$ jsonb_build_object('a', mako_reject('first'), 'b', 1 / (jsonb_typeof(state) = 'zz')::int) $$), ('mako_reject', $$ jsonb_build_array(1 / (jsonb_typeof(state) = 'zz')::int, mako_reject('second')) $$),
  ('mako_reject', $$ CASE WHEN mako_reject('condition') IS NULL THEN '1'::jsonb END $$), ('mako_reject', $$ mako_reject(state ->> 'a') $$), ('mako_reject', $$ mako_reject(NULL) $$),
  ('CASE', $$ CASE WHEN state ? 'a' THEN state -> 'a' WHEN jsonb_typeof(state) = 'array' THEN state -> 0 ELSE state END $$), ('CASE', $$ CASE state -> 'a' WHEN '1' THEN state WHEN 'null' THEN state -> 'o' ELSE state -> 'b' END $$),
  ('CASE', $$ CASE state ->> 'b' WHEN 'x' THEN '1'::jsonb WHEN 'x' THEN '2' WHEN '' THEN '3' ELSE CASE state ->> 'b' WHEN 'x' THEN '4' WHEN '1' THEN '5'::jsonb ELSE state END END $$),
  ('CASE', $$ CASE state ->> 'a' WHEN '1' THEN 'null'::jsonb WHEN '3' THEN to_jsonb((state ->> 'b')::int) WHEN 'x' THEN state END $$),
  ('CASE', $$ CASE state ->> 'd' WHEN 'true' THEN state -> 'o' WHEN NULL THEN '1' WHEN '{}' THEN '2' WHEN '-0' THEN '3' ELSE CASE WHEN state ->> 'd' IS NULL THEN '4'::jsonb END END $$),
  ('CASE', $$ CASE WHEN state ->> 'a' IN ('1', NULL, '1.0') THEN '1'::jsonb WHEN state ->> 'a' = '1.0' THEN '2' WHEN 'x' = state ->> 'a' THEN '3' ELSE CASE state ->> 'a' WHEN '1' THEN '4'::jsonb ELSE '5' END END $$),
  ('CASE', $$ CASE WHEN state ->> 'b' <> 'x' THEN '1'::jsonb WHEN state ->> 'b' = 'x' AND state ? 'c' THEN '2' WHEN state ->> 'b' = 'x' THEN '3' WHEN state ->> 'b' IN ('y', 'x') THEN '4' END $$),
  ('CASE', $$ CASE state ->> 'a' WHEN CASE state ->> 'b' WHEN 'x' THEN '1' WHEN '1.00' THEN '1.0' ELSE '2' END THEN '1'::jsonb WHEN state ->> 'b' THEN '2' ELSE '3' END $$),
  ('CASE', $$ CASE upper(state ->> 'b') WHEN 'X' THEN (CASE state ->> 'b' WHEN 'x' THEN state END)::t.document_domain::jsonb ELSE '1' END $$),
  ('text =', $$ jsonb_build_array(state ->> 'a' = '1', state ->> 'a' <> '1', '1.0' = state ->> 'a', state ->> 'c' = 'null', state ->> 'o' = '{}', state ->> 'd' <> 'true', state ->> 'zz' = '', state ->> '' = '') $$),
  ('text =', $$ jsonb_build_array(state ->> 'a' IN ('1', '2'), state ->> 'a' IN ('2', NULL), state ->> 'a' NOT IN ('1', '1.0'), state ->> 'a' NOT IN ('1', NULL), state ->> 'a' = ALL ('{1,1}'), state ->> 'a' <> ANY ('{1,2}'),
                                  state ->> 'a' = ANY ('{}'::text[]), state ->> 'a' <> ALL ('{}'::text[]), state ->> 'a' = ANY (NULL::text[]), state ->> 'a' = ANY ('{NULL}'), state ->> 'a' <> ALL ('{NULL}'), state ->> 'a' = '1' COLLATE "C") $$),
  ('CASE', $$ CASE jsonb_typeof(state) WHEN 'object' THEN state || '{"x": 1}' WHEN 'array' THEN state || '1' END $$), ('CASE', $$ CASE WHEN true THEN jsonb_build_array(state) END $$),
  ('COALESCE', $$ coalesce(state -> 'zz', state -> 'a', state) $$), ('COALESCE', $$ coalesce(state ->> 'c', 'none') $$), ('COALESCE', $$ coalesce(NULL, jsonb_build_object('a', state)) $$),
  ('NULLIF', $$ nullif(state, '{}') $$), ('NULLIF', $$ nullif(state -> 'a', '1') $$), ('NULLIF', $$ nullif(jsonb_build_array(state), '[null]') $$), ('NULLIF', $$ nullif(state ->> 'b', 'x') $$),
  ('GREATEST', $$ greatest(state, jsonb_build_object('a', state)) $$), ('GREATEST', $$ least(state -> 'a', state -> 'b', jsonb_build_array()) $$), ('GREATEST', $$ (state || '{}') < jsonb_build_object('a', 1) $$),
  ('PL/pgSQL', $$ t.echo(jsonb_build_object('a', state)) $$), ('PL/pgSQL', $$ t.echo(state -> 'a') $$), ('PL/pgSQL', $$ t.variable(jsonb_build_array(state)) $$), ('PL/pgSQL', $$ t.grown(jsonb_build_object('a', state)) $$),
  ('PL/pgSQL', $$ t.caught(jsonb_build_object('a', state), 'b') $$), ('PL/pgSQL', $$ t.caught(state, 'a') || jsonb_build_array(state) $$), ('PL/pgSQL', $$ t.called(jsonb_build_object('a', state)) -> 'a' $$),
  ('records', $$ (CASE WHEN state ? 'a' THEN ROW('x', jsonb_build_object('a', state))::t.pair ELSE ROW('y', state)::t.pair END).value $$), ('records', $$ (t.made_pair('x', jsonb_build_array(state))).value -> 0 $$),
  ('records', $$ (jsonb_populate_record(NULL::t.pair, jsonb_build_object('name', 'x', 'value', state))).value $$), ('records', $$ to_jsonb(t.made_pair('x', state -> 'a')) $$),
  ('arrays', $$ (ARRAY[state -> 'a', jsonb_build_object('a', state)])[2] $$), ('arrays', $$ t.last(ARRAY[state, jsonb_build_array(state)]) $$), ('arrays', $$ array_append(ARRAY[state || '{}'], state -> 'a') $$),
  ('arrays', $$ jsonb_build_object('a', state) = ANY (ARRAY[state, jsonb_build_object('a', state)]) $$), ('arrays', $$ array_length(ARRAY[state, NULL], 1) $$),
  ('domains', $$ (state || '{}')::t.document_domain $$), ('domains', $$ t.domain_function(jsonb_build_object('a', state)) $$), ('domains', $$ (state -> 'b')::t.document_domain $$), ('domains', $$ (state -> 'a')::t.document_domain::jsonb -> 0 $$),
  ('other functions', $$ jsonb_pretty(jsonb_build_object('a', state)) $$), ('other functions', $$ jsonb_path_query_first(jsonb_build_object('a', state), '$.a.a') $$), ('other functions', $$ jsonb_path_exists(state || '{}', '$.**.c') $$),
  ('other functions', $$ md5((state || '[]')::text) $$), ('other functions', $$ format('%s/%s', state -> 'a', state ->> 'b') $$), ('other functions', $$ pg_column_size(jsonb_build_array(state)) $$),
  ('other functions', $$ jsonb_hash(jsonb_build_array(state)) $$), ('other functions', $$ jsonb_cmp(jsonb_build_array(state), jsonb_build_array('a')) $$);

-- Subscripts are as old as PostgreSQL 14.
INSERT INTO t.expression (topic, sql)
SELECT 'subscripts', sql
FROM (VALUES ($$ state['a'] $$), ($$ state['o']['a']['b'][1]['c'] $$), ($$ state['l'][-1] $$), ($$ state[0] $$), ($$ state['zz']['a'] $$), ($$ (jsonb_build_object('a', state))['a']['b'] $$),
             ($$ state[state ->> 'b'] $$), ($$ state['l'][(state -> 'a')::text] $$), ($$ state[NULL] $$)) AS s (sql)
WHERE current_setting('server_version_num')::int >= 140000;

----------------------------------------------------------------------------------------------------
-- Comparison
----------------------------------------------------------------------------------------------------

SELECT mako_register_workflow('native@FV2024-10-01');
SELECT mako_register_workflow('native@FV2025-10-01');

-- What a query gives for a document, or its error.
CREATE FUNCTION t.outcome(query text, document jsonb, OUT result jsonb, OUT error text) LANGUAGE plpgsql AS $$
DECLARE
  state text; message text; detail text; hint text;
BEGIN
  EXECUTE query USING document INTO result;
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
  error := concat_ws('|', state, message, detail, hint);
END $$;

-- Compares what a migrate function with this body makes of every document with what the server makes of it in a query: the text, the bytes,
-- or the error. A null is an error of the migration.
CREATE FUNCTION t.differences(body text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('CREATE OR REPLACE FUNCTION t.migrate(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS %L', 'SELECT ' || body);
  PERFORM mako_register_migration('native@FV2024-10-01', 'native@FV2025-10-01', migrate => 't.migrate', replace => true);
  RETURN QUERY
    SELECT format('%s: %s gives %s %s instead of %s %s', body, name, left(native.result::text, 200), native.error, left(plain.result::text, 200), plain.error)
    FROM t.document,
         t.outcome('SELECT mako_migrate_state(''native@FV2024-10-01'', ''native@FV2025-10-01'', $1)', value) AS native,
         t.outcome(format('SELECT %s FROM (SELECT $1 AS state OFFSET 0) AS s', body), value) AS plain
    WHERE NOT record_image_eq(ROW(native.result), ROW(plain.result))
       OR native.result::text IS DISTINCT FROM plain.result::text
       OR native.error IS DISTINCT FROM CASE WHEN plain.result IS NULL AND plain.error IS NULL
            THEN 'MK001|function t.migrate(pg_catalog.jsonb) returned null||Handle every state, or refuse it with mako_reject().' ELSE plain.error END
    ORDER BY name COLLATE "C";
END $$;

-- The expression as a value of an array, with the word on its being null, and by itself where it is jsonb.
CREATE FUNCTION t.differences_of(topic text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
  expression record;
  is_jsonb boolean;
BEGIN
  FOR expression IN SELECT e.sql FROM t.expression e WHERE e.topic = differences_of.topic ORDER BY e.number LOOP
    RETURN QUERY SELECT t.differences(format('jsonb_build_array(%s, (%s) IS NULL)', expression.sql, expression.sql));
    EXECUTE format('SELECT pg_typeof((SELECT %s FROM t.document WHERE false)) = ''jsonb''::regtype', replace(expression.sql, 'state', 'value')) INTO is_jsonb;
    IF is_jsonb THEN
      RETURN QUERY SELECT t.differences(expression.sql);
    END IF;
  END LOOP;
END $$;

SELECT is_empty(format('SELECT t.differences_of(%L)', topic), format('%s: %s expressions as the server evaluates them', topic, count(*)))
FROM t.expression GROUP BY topic ORDER BY topic COLLATE "C";
SELECT skip('subscripts: not before PostgreSQL 14') WHERE NOT EXISTS (SELECT FROM t.expression WHERE topic = 'subscripts');

----------------------------------------------------------------------------------------------------
-- Several events
----------------------------------------------------------------------------------------------------

-- What folding gives, natively or not.
CREATE FUNCTION t.folded(native boolean, events jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('mako_migration.native_evaluation', native::text, true);
  RETURN mako_fold('fold@FV2024-10-01', events);
END $$;

-- A state that goes on pointing into the payloads of all events so far, and into itself.
CREATE FUNCTION t.apply(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE event_type
    WHEN 'kept' THEN state || jsonb_build_object('last', payload, 'all', COALESCE(state->'all', '[]') || jsonb_build_array(payload->'value'))
    WHEN 'counted' THEN jsonb_set(state, '{counts}', COALESCE(state->'counts', '{}') || jsonb_build_object(payload->>'key', COALESCE((state->'counts'->>(payload->>'key'))::int, 0) + 1))
    WHEN 'doubled' THEN jsonb_build_object('left', state, 'right', state)
    WHEN 'cleared' THEN jsonb_strip_nulls(state - 'all')
    ELSE mako_reject('unknown event type ' || event_type)
  END
$$;
SELECT mako_register_workflow('fold@FV2024-10-01', apply => 't.apply', initial_state => '{"first": null}');

CREATE TABLE t.history (name text PRIMARY KEY, events jsonb NOT NULL);
INSERT INTO t.history
SELECT 'documents', jsonb_agg(jsonb_build_object('event_type', 'kept', 'payload', jsonb_build_object('value', value)) ORDER BY name COLLATE "C") FROM t.document
UNION ALL
SELECT 'counts', jsonb_agg(jsonb_build_object('event_type', 'counted', 'payload', jsonb_build_object('key', md5((i % 150)::text)))) FROM generate_series(1, 400) i
UNION ALL
SELECT 'doubles', jsonb_agg(jsonb_build_object('event_type', CASE WHEN i % 4 = 0 THEN 'doubled' ELSE 'counted' END, 'payload', jsonb_build_object('key', i))) FROM generate_series(1, 40) i
UNION ALL
SELECT 'more than fits at once', jsonb_agg(jsonb_build_object('event_type', CASE WHEN i % 10 = 0 THEN 'cleared' ELSE 'kept' END,
                                                              'payload', jsonb_build_object('value', repeat(md5(i::text), 5000)))) FROM generate_series(1, 60) i;

SELECT ok(record_image_eq(ROW(native), ROW(plain)), format('history "%s": a state of %s bytes', name, octet_length(native::text)))
FROM t.history, t.folded(true, events) AS native, t.folded(false, events) AS plain ORDER BY name COLLATE "C";
SELECT is(pg_temp.error($$ SELECT t.folded(true, '[{"event_type": "kept", "payload": 1}, {"event_type": "lost", "payload": 1}]') $$),
          pg_temp.error($$ SELECT t.folded(false, '[{"event_type": "kept", "payload": 1}, {"event_type": "lost", "payload": 1}]') $$),
          'a refusal in the middle is the same');

-- A fold that was left by an error is as good as new.
SELECT is(t.folded(true, '[{"event_type": "kept", "payload": {"value": 1}}]'), '{"first": null, "last": {"value": 1}, "all": [1]}', 'and leaves nothing behind');

SELECT * FROM finish();
