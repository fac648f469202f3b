-- What the result of a registered function depends on is part of its definition: a change is an error at the next use, and a finding of
-- mako_check(); what changes no result is none. Runs in an empty database.

CREATE EXTENSION pgtap;
CREATE EXTENSION mako_migration;

SELECT no_plan();

\ir include/helpers.sql
SELECT current_setting('server_version_num')::int >= 140000 AS has_atomic, current_setting('server_version_num')::int >= 180000 AS has_virtual \gset
SET client_min_messages = warning;
SELECT mako_create_store();
CREATE ROLE fp_other;

----------------------------------------------------------------------------------------------------
-- Changes, one at a time
----------------------------------------------------------------------------------------------------

-- A type with an order of its own.
SELECT $x$ CREATE TYPE fp.t AS (a int);
  CREATE FUNCTION fp.cmp(fp.t, fp.t) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT $1.a - $2.a $$;
  CREATE FUNCTION fp.eq(fp.t, fp.t) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$ SELECT $1.a = $2.a $$;
  CREATE FUNCTION fp.ne(fp.t, fp.t) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$ SELECT $1.a <> $2.a $$;
  CREATE FUNCTION fp.lt(fp.t, fp.t) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$ SELECT $1.a < $2.a $$;
  CREATE FUNCTION fp.le(fp.t, fp.t) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$ SELECT $1.a <= $2.a $$;
  CREATE FUNCTION fp.gt(fp.t, fp.t) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$ SELECT $1.a > $2.a $$;
  CREATE FUNCTION fp.ge(fp.t, fp.t) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$ SELECT $1.a >= $2.a $$;
  CREATE OPERATOR fp.= (FUNCTION = fp.eq, LEFTARG = fp.t, RIGHTARG = fp.t, COMMUTATOR = OPERATOR(fp.=), NEGATOR = OPERATOR(fp.<>));
  CREATE OPERATOR fp.<> (FUNCTION = fp.ne, LEFTARG = fp.t, RIGHTARG = fp.t, COMMUTATOR = OPERATOR(fp.<>), NEGATOR = OPERATOR(fp.=));
  CREATE OPERATOR fp.< (FUNCTION = fp.lt, LEFTARG = fp.t, RIGHTARG = fp.t);
  CREATE OPERATOR fp.<= (FUNCTION = fp.le, LEFTARG = fp.t, RIGHTARG = fp.t);
  CREATE OPERATOR fp.> (FUNCTION = fp.gt, LEFTARG = fp.t, RIGHTARG = fp.t);
  CREATE OPERATOR fp.>= (FUNCTION = fp.ge, LEFTARG = fp.t, RIGHTARG = fp.t);
  CREATE OPERATOR CLASS fp.t_ops DEFAULT FOR TYPE fp.t USING btree AS OPERATOR 1 fp.<, OPERATOR 2 fp.<=, OPERATOR 3 fp.=, OPERATOR 4 fp.>=,
    OPERATOR 5 fp.>, FUNCTION 1 fp.cmp(fp.t, fp.t) $x$ AS pair,
  'CREATE OR REPLACE FUNCTION fp.cmp(fp.t, fp.t) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT $2.a - $1.a $$' AS other_order \gset

SELECT replace(replace(:'pair', 'CREATE TYPE fp.t AS (a int);', ''), '.a', '::text') AS json_pair, replace(:'other_order', '.a', '::text') AS other_json_order \gset
SELECT replace(replace(replace(:'json_pair', 'fp.t_ops', 'fp.json_ops'), 'fp.t', 'json'), 'SELECT $1::text - $2::text', 'SELECT length($1::text) - length($2::text)') AS json_pair,
       replace(replace(:'other_json_order', 'fp.t', 'json'), '$2::text - $1::text', 'length($2::text) - length($1::text)') AS other_json_order \gset

-- Each case: what apply computes, from what; something that changes no result; and a change. An atomic body holds fast to what it names:
-- where that must go away, or where another overload could be taken, there is only the other form.
CREATE TEMPORARY TABLE changes (n int GENERATED ALWAYS AS IDENTITY, what text, is_atomic boolean, setup text, expression text, noop text, change text);
INSERT INTO changes (what, is_atomic, setup, expression, noop, change) VALUES
  -- functions
  ('a helper', true, 'CREATE FUNCTION fp.f(i int) RETURNS int LANGUAGE sql STABLE AS $$ SELECT i $$', 'fp.f(1)',
   'COMMENT ON FUNCTION fp.f IS ''none''; REVOKE EXECUTE ON FUNCTION fp.f FROM PUBLIC; ALTER FUNCTION fp.f COST 7; ALTER FUNCTION fp.f OWNER TO fp_other',
   'CREATE OR REPLACE FUNCTION fp.f(i int) RETURNS int LANGUAGE sql STABLE AS $$ SELECT i + 1 $$'),
  ('a default', true, 'CREATE FUNCTION fp.f(i int, j int DEFAULT 1) RETURNS int LANGUAGE sql STABLE AS $$ SELECT i + j $$', 'fp.f(1)', NULL,
   'CREATE OR REPLACE FUNCTION fp.f(i int, j int DEFAULT 2) RETURNS int LANGUAGE sql STABLE AS $$ SELECT i + j $$'),
  ('a default''s function', true, 'CREATE FUNCTION fp.d() RETURNS int LANGUAGE sql STABLE AS ''SELECT 1'';
    CREATE FUNCTION fp.f(i int, j int DEFAULT fp.d()) RETURNS int LANGUAGE sql STABLE AS $$ SELECT i + j $$', 'fp.f(1)', NULL,
   'CREATE OR REPLACE FUNCTION fp.d() RETURNS int LANGUAGE sql STABLE AS ''SELECT 2'''),
  ('names of arguments', false, 'CREATE FUNCTION fp.f(a int, b int) RETURNS int LANGUAGE sql STABLE AS $$ SELECT $1 - $2 $$', 'fp.f(a => 1, b => 2)', NULL,
   'DROP FUNCTION fp.f; CREATE FUNCTION fp.f(b int, a int) RETURNS int LANGUAGE sql STABLE AS $$ SELECT $1 - $2 $$'),
  ('names of results', false, 'CREATE FUNCTION fp.f(OUT a int, OUT b int) LANGUAGE sql STABLE AS $$ SELECT 1, 2 $$', 'to_jsonb(fp.f())', NULL,
   'DROP FUNCTION fp.f; CREATE FUNCTION fp.f(OUT b int, OUT a int) LANGUAGE sql STABLE AS $$ SELECT 1, 2 $$'),
  ('columns of TABLE', false, 'CREATE FUNCTION fp.f() RETURNS TABLE (a int) LANGUAGE sql STABLE AS $$ SELECT 1 $$', '(SELECT to_jsonb(x) FROM fp.f() x)', NULL,
   'DROP FUNCTION fp.f; CREATE FUNCTION fp.f() RETURNS TABLE (b int) LANGUAGE sql STABLE AS $$ SELECT 1 $$'),
  ('VARIADIC', false, 'CREATE FUNCTION fp.f(VARIADIC a int[]) RETURNS int LANGUAGE sql STABLE AS $$ SELECT a[1] $$', 'fp.f(VARIADIC ARRAY[1])', NULL,
   'DROP FUNCTION fp.f; CREATE FUNCTION fp.f(VARIADIC a int[] DEFAULT ''{}'') RETURNS int LANGUAGE sql STABLE AS $$ SELECT a[1] $$'),
  ('another overload', false, 'CREATE FUNCTION fp.f(VARIADIC a int[]) RETURNS int LANGUAGE sql STABLE AS $$ SELECT a[1] $$', 'fp.f(1, 2)', NULL,
   'CREATE FUNCTION fp.f(a int, b int) RETURNS int LANGUAGE sql STABLE AS $$ SELECT b $$'),
  ('an overload for the type instead of a polymorphic function', false, 'CREATE FUNCTION fp.f(a anyelement) RETURNS text LANGUAGE sql STABLE AS $$ SELECT $1::text $$',
   'fp.f(1)', NULL, 'CREATE FUNCTION fp.f(a int) RETURNS text LANGUAGE sql STABLE AS $$ SELECT ''1'' $$'),
  ('what a polymorphic function calls', true, 'CREATE FUNCTION fp.g(int) RETURNS int LANGUAGE sql STABLE AS ''SELECT $1'';
    CREATE FUNCTION fp.f(a anyelement) RETURNS anyelement LANGUAGE sql STABLE AS $$ SELECT fp.g(a) $$', 'fp.f(1)', NULL,
   'CREATE OR REPLACE FUNCTION fp.g(int) RETURNS int LANGUAGE sql STABLE AS ''SELECT $1 + 1'''),
  ('what a polymorphic function calls for one of its types', true, 'CREATE FUNCTION fp.g(int) RETURNS int LANGUAGE sql STABLE AS ''SELECT $1'';
    CREATE FUNCTION fp.g(text) RETURNS text LANGUAGE sql STABLE AS ''SELECT $1'';
    CREATE FUNCTION fp.f(a anyelement) RETURNS anyelement LANGUAGE sql STABLE AS $$ SELECT fp.g(a) $$', 'fp.f(1) || fp.f(''x''::text)', NULL,
   'CREATE OR REPLACE FUNCTION fp.g(text) RETURNS text LANGUAGE sql STABLE AS ''SELECT $1 || $1'''),
  ('what a polymorphic function calls that has a default', true, 'CREATE FUNCTION fp.g(int) RETURNS int LANGUAGE sql STABLE AS ''SELECT $1'';
    CREATE FUNCTION fp.f(a anyelement, b int DEFAULT 3) RETURNS anyelement LANGUAGE sql STABLE AS $$ SELECT fp.g(a) $$', 'fp.f(1)', NULL,
   'CREATE OR REPLACE FUNCTION fp.g(int) RETURNS int LANGUAGE sql STABLE AS ''SELECT $1 + 1'''),
  ('what a polymorphic function calls for a default', true, 'CREATE FUNCTION fp.g(int) RETURNS int LANGUAGE sql STABLE AS ''SELECT $1'';
    CREATE FUNCTION fp.f(a anyelement DEFAULT 3) RETURNS anyelement LANGUAGE sql STABLE AS $$ SELECT fp.g(a) $$', 'fp.f()', NULL,
   'CREATE OR REPLACE FUNCTION fp.g(int) RETURNS int LANGUAGE sql STABLE AS ''SELECT $1 + 1'''),
  ('an overload for the type of a named argument', false, 'CREATE FUNCTION fp.g(numeric) RETURNS int LANGUAGE sql STABLE AS ''SELECT 1'';
    CREATE FUNCTION fp.f(a anyelement, b anyarray, c int DEFAULT 0) RETURNS int LANGUAGE sql STABLE AS $$ SELECT fp.g(a) + c $$', 'fp.f(b => ARRAY[1], a => 1)', NULL,
   'CREATE FUNCTION fp.g(int) RETURNS int LANGUAGE sql STABLE AS ''SELECT $1 + 1'''),
  ('what a polymorphic operator calls', true, 'CREATE FUNCTION fp.g(int) RETURNS int LANGUAGE sql STABLE AS ''SELECT $1'';
    CREATE FUNCTION fp.f(anyelement, anyelement) RETURNS anyelement LANGUAGE sql STABLE AS $$ SELECT fp.g($1) $$;
    CREATE OPERATOR fp.## (FUNCTION = fp.f, LEFTARG = anyelement, RIGHTARG = anyelement)', '1 OPERATOR(fp.##) 2', NULL,
   'CREATE OR REPLACE FUNCTION fp.g(int) RETURNS int LANGUAGE sql STABLE AS ''SELECT $1 + 1'''),
  ('a setting', true, 'CREATE FUNCTION fp.f(i int) RETURNS int LANGUAGE sql STABLE AS $$ SELECT i $$', 'fp.f(1)', NULL, 'ALTER FUNCTION fp.f SET DateStyle = ''German'''),
  ('a support function', true, 'CREATE FUNCTION fp.f(i int) RETURNS int LANGUAGE sql STABLE AS $$ SELECT i $$', 'fp.f(1)', NULL,
   'ALTER FUNCTION fp.f SUPPORT pg_catalog.generate_series_int4_support'),
  ('a support function''s code', true, 'CREATE FUNCTION fp.s(internal) RETURNS internal LANGUAGE internal AS ''generate_series_int4_support'';
    CREATE FUNCTION fp.f(i int) RETURNS int LANGUAGE sql STABLE SUPPORT fp.s AS $$ SELECT i $$', 'fp.f(1)', NULL,
   'CREATE OR REPLACE FUNCTION fp.s(internal) RETURNS internal LANGUAGE internal AS ''generate_series_int8_support'''),
  ('whose rights a helper has', true, 'CREATE FUNCTION fp.f(i int) RETURNS int LANGUAGE sql STABLE SECURITY DEFINER AS $$ SELECT i $$', 'fp.f(1)',
   'ALTER ROLE fp_other RENAME TO fp_renamed', 'ALTER FUNCTION fp.f OWNER TO fp_renamed'),
  ('a helper in another language', true, 'CREATE FUNCTION fp.f(i int) RETURNS int LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN i; END $$', 'fp.f(1)', NULL,
   'CREATE OR REPLACE FUNCTION fp.f(i int) RETURNS int LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN i + 1; END $$'),
  ('compiled code', true, 'CREATE FUNCTION fp.f(int, int) RETURNS int LANGUAGE internal IMMUTABLE AS ''int4pl''', 'fp.f(1, 2)', NULL,
   'CREATE OR REPLACE FUNCTION fp.f(int, int) RETURNS int LANGUAGE internal IMMUTABLE AS ''int4mi'''),
  ('a language', true, 'CREATE FUNCTION fp.h() RETURNS language_handler LANGUAGE c AS ''$libdir/plpgsql'', ''plpgsql_call_handler'';
    CREATE LANGUAGE fp_language HANDLER fp.h; CREATE FUNCTION fp.f(i int) RETURNS int LANGUAGE fp_language STABLE AS ''BEGIN RETURN 1; END''', 'fp.f(1)', NULL,
   'CREATE OR REPLACE FUNCTION fp.h() RETURNS language_handler LANGUAGE c AS ''$libdir/plpgsql'', ''plpgsql_inline_handler'''),
  ('a transform', true, 'CREATE TYPE fp.t AS (i int); CREATE FUNCTION fp.h(internal) RETURNS internal LANGUAGE internal IMMUTABLE AS ''textlike_support'';
    CREATE TRANSFORM FOR fp.t LANGUAGE plpgsql (FROM SQL WITH FUNCTION fp.h(internal));
    CREATE FUNCTION fp.f(fp.t) RETURNS int TRANSFORM FOR TYPE fp.t LANGUAGE plpgsql STABLE AS ''BEGIN RETURN 1; END''', 'fp.f(ROW(1)::fp.t)', NULL,
   'CREATE OR REPLACE FUNCTION fp.h(internal) RETURNS internal LANGUAGE internal IMMUTABLE AS ''texticlike_support'''),
  -- aggregates and window functions
  ('a transition function', true, 'CREATE FUNCTION fp.s(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS ''SELECT $1 + $2'';
    CREATE AGGREGATE fp.a(int) (SFUNC = fp.s, STYPE = int, INITCOND = ''0'')', '(SELECT fp.a(x) FROM generate_series(1, 3) x)', 'COMMENT ON AGGREGATE fp.a(int) IS ''sum''',
   'CREATE OR REPLACE FUNCTION fp.s(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS ''SELECT $1 + 2 * $2'''),
  ('a final function', true, 'CREATE FUNCTION fp.e(int) RETURNS int LANGUAGE sql IMMUTABLE AS ''SELECT $1'';
    CREATE AGGREGATE fp.a(int) (SFUNC = int4pl, STYPE = int, FINALFUNC = fp.e)', '(SELECT fp.a(x) FROM generate_series(1, 3) x)', NULL,
   'CREATE OR REPLACE FUNCTION fp.e(int) RETURNS int LANGUAGE sql IMMUTABLE AS ''SELECT 2 * $1'''),
  ('a combine function', true, 'CREATE FUNCTION fp.c(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS ''SELECT $1 + $2'';
    CREATE AGGREGATE fp.a(int) (SFUNC = int4pl, STYPE = int, COMBINEFUNC = fp.c, PARALLEL = SAFE)', '(SELECT fp.a(x) FROM generate_series(1, 3) x)', NULL,
   'CREATE OR REPLACE FUNCTION fp.c(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS ''SELECT $1'''),
  ('a serialization function', true, 'CREATE FUNCTION fp.z(internal) RETURNS bytea LANGUAGE internal IMMUTABLE STRICT AS ''numeric_avg_serialize'';
    CREATE AGGREGATE fp.a(numeric) (SFUNC = numeric_avg_accum, STYPE = internal, FINALFUNC = numeric_avg, COMBINEFUNC = numeric_avg_combine,
                                    SERIALFUNC = fp.z, DESERIALFUNC = numeric_avg_deserialize)', '(SELECT fp.a(x) FROM generate_series(1, 3) x)', NULL,
   'CREATE OR REPLACE FUNCTION fp.z(internal) RETURNS bytea LANGUAGE internal IMMUTABLE STRICT AS ''numeric_serialize'''),
  ('a deserialization function', true, 'CREATE FUNCTION fp.z(bytea, internal) RETURNS internal LANGUAGE internal IMMUTABLE STRICT AS ''numeric_avg_deserialize'';
    CREATE AGGREGATE fp.a(numeric) (SFUNC = numeric_avg_accum, STYPE = internal, FINALFUNC = numeric_avg, COMBINEFUNC = numeric_avg_combine,
                                    SERIALFUNC = numeric_avg_serialize, DESERIALFUNC = fp.z)', '(SELECT fp.a(x) FROM generate_series(1, 3) x)', NULL,
   'CREATE OR REPLACE FUNCTION fp.z(bytea, internal) RETURNS internal LANGUAGE internal IMMUTABLE STRICT AS ''numeric_deserialize'''),
  ('functions of a moving window', true, 'CREATE FUNCTION fp.m(int, int) RETURNS int LANGUAGE sql IMMUTABLE STRICT AS ''SELECT $1 - $2'';
    CREATE AGGREGATE fp.a(int) (SFUNC = int4pl, STYPE = int, MSFUNC = int4pl, MSTYPE = int, MINVFUNC = fp.m)',
   '(SELECT jsonb_agg(y) FROM (SELECT fp.a(x) OVER (ORDER BY x ROWS 1 PRECEDING) AS y FROM generate_series(1, 3) x) z)', NULL,
   'CREATE OR REPLACE FUNCTION fp.m(int, int) RETURNS int LANGUAGE sql IMMUTABLE STRICT AS ''SELECT $1'''),
  ('an initial value', false, 'CREATE AGGREGATE fp.a(int) (SFUNC = int4pl, STYPE = int, INITCOND = ''0'')', '(SELECT fp.a(x) FROM generate_series(1, 3) x)', NULL,
   'DROP AGGREGATE fp.a(int); CREATE AGGREGATE fp.a(int) (SFUNC = int4pl, STYPE = int, INITCOND = ''1'')'),
  ('an initial value of a moving window', false, 'CREATE AGGREGATE fp.a(int) (SFUNC = int4pl, STYPE = int, MSFUNC = int4pl, MSTYPE = int, MINVFUNC = int4mi, MINITCOND = ''0'')',
   '(SELECT fp.a(x) FROM generate_series(1, 3) x)', NULL,
   'DROP AGGREGATE fp.a(int); CREATE AGGREGATE fp.a(int) (SFUNC = int4pl, STYPE = int, MSFUNC = int4pl, MSTYPE = int, MINVFUNC = int4mi, MINITCOND = ''1'')'),
  ('a sort operator', false, 'CREATE AGGREGATE fp.a(int) (SFUNC = int4larger, STYPE = int, SORTOP = >)', '(SELECT fp.a(x) FROM generate_series(1, 3) x)', NULL,
   'DROP AGGREGATE fp.a(int); CREATE AGGREGATE fp.a(int) (SFUNC = int4larger, STYPE = int, SORTOP = <)'),
  ('the state of an aggregate', false, 'CREATE AGGREGATE fp.a(int) (SFUNC = int4pl, STYPE = int)', '(SELECT fp.a(x) FROM generate_series(1, 3) x)', NULL,
   'DROP AGGREGATE fp.a(int); CREATE AGGREGATE fp.a(int) (SFUNC = int84pl, STYPE = bigint, INITCOND = ''0'')'),
  ('what a polymorphic aggregate calls', true, 'CREATE FUNCTION fp.g(int) RETURNS int LANGUAGE sql IMMUTABLE AS ''SELECT $1'';
    CREATE FUNCTION fp.s(anyelement, anyelement) RETURNS anyelement LANGUAGE sql IMMUTABLE AS ''SELECT fp.g($2)'';
    CREATE AGGREGATE fp.a(anyelement) (SFUNC = fp.s, STYPE = anyelement)', '(SELECT fp.a(x) FROM generate_series(1, 3) x)', NULL,
   'CREATE OR REPLACE FUNCTION fp.g(int) RETURNS int LANGUAGE sql IMMUTABLE AS ''SELECT $1 + 1'''),
  ('what a polymorphic aggregate calls in a window', true, 'CREATE FUNCTION fp.g(int) RETURNS int LANGUAGE sql IMMUTABLE AS ''SELECT $1'';
    CREATE FUNCTION fp.e(anyelement) RETURNS anyelement LANGUAGE sql IMMUTABLE AS ''SELECT fp.g($1)'';
    CREATE FUNCTION fp.s(anyelement, anyelement) RETURNS anyelement LANGUAGE sql IMMUTABLE AS ''SELECT $2'';
    CREATE AGGREGATE fp.a(anyelement) (SFUNC = fp.s, STYPE = anyelement, FINALFUNC = fp.e)', '(SELECT jsonb_agg(y) FROM (SELECT fp.a(x) OVER () AS y FROM generate_series(1, 3) x) z)', NULL,
   'CREATE OR REPLACE FUNCTION fp.g(int) RETURNS int LANGUAGE sql IMMUTABLE AS ''SELECT $1 + 1'''),
  ('an ordered-set aggregate', true, 'CREATE FUNCTION fp.e(anyarray, int) RETURNS anyelement LANGUAGE sql IMMUTABLE AS ''SELECT $1[$2]'';
    CREATE FUNCTION fp.s(anyarray, anyelement) RETURNS anyarray LANGUAGE sql IMMUTABLE AS ''SELECT $1 || $2'';
    CREATE AGGREGATE fp.a(int ORDER BY anyelement) (SFUNC = fp.s, STYPE = anyarray, INITCOND = ''{}'', FINALFUNC = fp.e)',
   '(SELECT fp.a(2) WITHIN GROUP (ORDER BY x DESC) FROM generate_series(1, 3) x)', NULL,
   'CREATE OR REPLACE FUNCTION fp.e(anyarray, int) RETURNS anyelement LANGUAGE sql IMMUTABLE AS ''SELECT $1[$2 - 1]'''),
  ('a window function', true, 'CREATE FUNCTION fp.w() RETURNS bigint LANGUAGE internal IMMUTABLE WINDOW AS ''window_row_number''',
   '(SELECT jsonb_agg(y) FROM (SELECT fp.w() OVER (ORDER BY x) AS y FROM generate_series(1, 3) x) z)', NULL,
   'CREATE OR REPLACE FUNCTION fp.w() RETURNS bigint LANGUAGE internal IMMUTABLE WINDOW AS ''window_rank'''),
  -- types
  ('an attribute more', true, 'CREATE TYPE fp.t AS (a int)', 'to_jsonb(NULL::fp.t)', 'COMMENT ON TYPE fp.t IS ''none''; ALTER TYPE fp.t OWNER TO fp_other',
   'ALTER TYPE fp.t ADD ATTRIBUTE b int'),
  ('an attribute renamed', true, 'CREATE TYPE fp.t AS (a int)', 'to_jsonb(jsonb_populate_record(NULL::fp.t, payload))', NULL, 'ALTER TYPE fp.t RENAME ATTRIBUTE a TO b'),
  ('an attribute of another type', false, 'CREATE TYPE fp.t AS (a int)', 'to_jsonb(jsonb_populate_record(NULL::fp.t, payload))', NULL, 'ALTER TYPE fp.t ALTER ATTRIBUTE a TYPE numeric(3, 1)'),
  ('attributes in another order', false, 'CREATE TYPE fp.t AS (a int, b int)', 'ROW(1, 2)::fp.t', NULL, 'DROP TYPE fp.t; CREATE TYPE fp.t AS (b int, a int)'),
  ('an attribute''s collation', false, 'CREATE TYPE fp.t AS (a text)', '(ROW(''a'')::fp.t).a < ''B''', NULL, 'DROP TYPE fp.t; CREATE TYPE fp.t AS (a text COLLATE "C")'),
  ('a domain in a composite type', false, 'CREATE DOMAIN fp.d AS int; CREATE TYPE fp.t AS (a fp.d); CREATE TYPE fp.u AS (t fp.t[])', 'to_jsonb(jsonb_populate_record(NULL::fp.u, payload))',
   'COMMENT ON DOMAIN fp.d IS ''none''', 'ALTER DOMAIN fp.d ADD CHECK (VALUE > 0)'),
  ('a label more', true, 'CREATE TYPE fp.t AS ENUM (''a'', ''b'')', 'enum_range(NULL::fp.t)', 'COMMENT ON TYPE fp.t IS ''none''', 'ALTER TYPE fp.t ADD VALUE ''c'' BEFORE ''a'''),
  ('a label renamed', true, 'CREATE TYPE fp.t AS ENUM (''a'', ''b'')', 'enum_range(NULL::fp.t)', NULL, 'ALTER TYPE fp.t RENAME VALUE ''a'' TO ''c'''),
  ('labels in another order', false, 'CREATE TYPE fp.t AS ENUM (''a'', ''b'')', '''a''::fp.t < ''b''::fp.t', NULL, 'DROP TYPE fp.t; CREATE TYPE fp.t AS ENUM (''b'', ''a'')'),
  ('an array''s elements', true, 'CREATE TYPE fp.t AS ENUM (''a'', ''b'')', '''{a,b}''::text[]::fp.t[]', NULL, 'ALTER TYPE fp.t ADD VALUE ''c'''),
  ('a domain', true, 'CREATE DOMAIN fp.d AS int; ALTER DOMAIN fp.d ADD CHECK (VALUE > 0) NOT VALID', '1::fp.d', 'ALTER DOMAIN fp.d OWNER TO fp_other; ALTER DOMAIN fp.d VALIDATE CONSTRAINT d_check',
   'ALTER DOMAIN fp.d DROP CONSTRAINT d_check; ALTER DOMAIN fp.d ADD CHECK (VALUE > 1)'),
  ('the name of a check', true, 'CREATE DOMAIN fp.d AS int CONSTRAINT a CHECK (VALUE > 0)', '1::fp.d', NULL, 'ALTER DOMAIN fp.d RENAME CONSTRAINT a TO b'),
  ('a domain below a domain', true, 'CREATE DOMAIN fp.e AS int; CREATE DOMAIN fp.d AS fp.e', '1::fp.d', NULL, 'ALTER DOMAIN fp.e SET NOT NULL'),
  ('a domain in an array in a domain', false, 'CREATE DOMAIN fp.e AS int; CREATE DOMAIN fp.d AS fp.e[]', '''{1}''::fp.d', NULL, 'ALTER DOMAIN fp.e ADD CHECK (VALUE > 0)'),
  ('a domain''s default', true, 'CREATE DOMAIN fp.d AS int', '1::fp.d', NULL, 'ALTER DOMAIN fp.d SET DEFAULT 7'),
  ('a function in a domain''s check', true, 'CREATE FUNCTION fp.f(int) RETURNS boolean LANGUAGE sql IMMUTABLE AS ''SELECT true''; CREATE DOMAIN fp.d AS int CHECK (fp.f(VALUE))', '1::fp.d', NULL,
   'CREATE OR REPLACE FUNCTION fp.f(int) RETURNS boolean LANGUAGE sql IMMUTABLE AS ''SELECT $1 > 0'''),
  ('a range''s difference', true, 'CREATE FUNCTION fp.f(int, int) RETURNS float8 LANGUAGE sql IMMUTABLE AS ''SELECT 1.0::float8''; CREATE TYPE fp.r AS RANGE (SUBTYPE = int, SUBTYPE_DIFF = fp.f)',
   'fp.r(1, 2)', 'COMMENT ON TYPE fp.r IS ''none''', 'CREATE OR REPLACE FUNCTION fp.f(int, int) RETURNS float8 LANGUAGE sql IMMUTABLE AS ''SELECT 2.0::float8'''),
  ('a domain in a range', true, 'CREATE DOMAIN fp.d AS int; CREATE TYPE fp.r AS RANGE (SUBTYPE = fp.d)', 'fp.r(1, 2)', NULL, 'ALTER DOMAIN fp.d ADD CHECK (VALUE > 0)'),
  ('a range''s collation', false, 'CREATE TYPE fp.r AS RANGE (SUBTYPE = text, COLLATION = "C")', 'fp.r(''a'', ''b'')', NULL,
   'DROP TYPE fp.r; CREATE TYPE fp.r AS RANGE (SUBTYPE = text, COLLATION = "POSIX")'),
  ('a collation', false, 'CREATE COLLATION fp.c (LOCALE = ''C'')', 'event_type COLLATE fp.c < ''B''', 'COMMENT ON COLLATION fp.c IS ''none''',
   'DROP COLLATION fp.c; CREATE COLLATION fp.c (LOCALE = ''POSIX'')'),
  ('the input of a base type', true, 'CREATE TYPE fp.t; CREATE FUNCTION fp.i(cstring) RETURNS fp.t LANGUAGE internal IMMUTABLE STRICT AS ''textin'';
    CREATE FUNCTION fp.o(fp.t) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS ''textout''; CREATE TYPE fp.t (INPUT = fp.i, OUTPUT = fp.o, LIKE = text)',
   'event_type::varchar::fp.t', 'COMMENT ON FUNCTION fp.i IS ''none''', 'CREATE OR REPLACE FUNCTION fp.i(cstring) RETURNS fp.t LANGUAGE internal IMMUTABLE STRICT AS ''byteain'''),
  ('the output of a base type', true, 'CREATE TYPE fp.t; CREATE FUNCTION fp.i(cstring) RETURNS fp.t LANGUAGE internal IMMUTABLE STRICT AS ''textin'';
    CREATE FUNCTION fp.o(fp.t) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS ''textout''; CREATE TYPE fp.t (INPUT = fp.i, OUTPUT = fp.o, LIKE = text);
    CREATE TYPE fp.u AS (a fp.t[])', 'jsonb_populate_record(NULL::fp.u, payload)::text', NULL, 'CREATE OR REPLACE FUNCTION fp.o(fp.t) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS ''byteaout'''),
  ('a type''s category', true, 'CREATE TYPE fp.t; CREATE FUNCTION fp.i(cstring) RETURNS fp.t LANGUAGE internal IMMUTABLE STRICT AS ''textin'';
    CREATE FUNCTION fp.o(fp.t) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS ''textout''; CREATE TYPE fp.t (INPUT = fp.i, OUTPUT = fp.o, LIKE = text)',
   '''x''::fp.t', NULL, 'UPDATE pg_type SET typispreferred = true WHERE oid = ''fp.t''::regtype'),
  -- casts and comparisons that no call shows
  ('a cast', true, 'CREATE TYPE fp.t AS ENUM (''a''); CREATE FUNCTION fp.f(fp.t) RETURNS int LANGUAGE sql IMMUTABLE AS ''SELECT 1''; CREATE CAST (fp.t AS int) WITH FUNCTION fp.f(fp.t)',
   '''a''::fp.t::int', 'COMMENT ON CAST (fp.t AS int) IS ''none''', 'CREATE OR REPLACE FUNCTION fp.f(fp.t) RETURNS int LANGUAGE sql IMMUTABLE AS ''SELECT 2'''),
  ('another way to cast', false, 'CREATE TYPE fp.t AS (a text); CREATE TYPE fp.u AS (a text); CREATE FUNCTION fp.f(fp.t) RETURNS fp.u LANGUAGE sql IMMUTABLE AS ''SELECT ROW(1)::fp.u'';
    CREATE CAST (fp.t AS fp.u) WITH FUNCTION fp.f(fp.t)', 'ROW(''a'')::fp.t::fp.u', NULL, 'DROP CAST (fp.t AS fp.u); CREATE CAST (fp.t AS fp.u) WITH INOUT'),
  ('a cast to json', true, 'CREATE TYPE fp.t AS ENUM (''a''); CREATE FUNCTION fp.f(fp.t) RETURNS json LANGUAGE sql IMMUTABLE AS ''SELECT json ''''1''''''; CREATE CAST (fp.t AS json) WITH FUNCTION fp.f(fp.t)',
   '''a''::fp.t', NULL, 'CREATE OR REPLACE FUNCTION fp.f(fp.t) RETURNS json LANGUAGE sql IMMUTABLE AS ''SELECT json ''''2'''''''),
  ('a cast to json of an element of a composite type''s array', true, 'CREATE TYPE fp.t AS ENUM (''a''); CREATE TYPE fp.u AS (t fp.t[]); CREATE FUNCTION fp.f(fp.t) RETURNS json LANGUAGE sql IMMUTABLE AS ''SELECT json ''''1''''''',
   'to_jsonb(ROW(''{a}'')::fp.u)', NULL, 'CREATE CAST (fp.t AS json) WITH FUNCTION fp.f(fp.t)'),
  ('a cast of a result', true, 'CREATE TYPE fp.t AS (a int); CREATE FUNCTION fp.c(int) RETURNS fp.t LANGUAGE sql IMMUTABLE AS ''SELECT ROW($1)::fp.t'';
    CREATE CAST (int AS fp.t) WITH FUNCTION fp.c(int) AS ASSIGNMENT; CREATE FUNCTION fp.f(i int) RETURNS fp.t LANGUAGE sql STABLE AS ''SELECT i''', 'to_jsonb(fp.f(1))',
   'COMMENT ON FUNCTION fp.c IS ''none''', 'CREATE OR REPLACE FUNCTION fp.c(int) RETURNS fp.t LANGUAGE sql IMMUTABLE AS ''SELECT ROW(2 * $1)::fp.t'''),
  ('a cast of a polymorphic function''s result', true, 'CREATE TYPE fp.t AS (a int); CREATE FUNCTION fp.c(int) RETURNS fp.t LANGUAGE sql IMMUTABLE AS ''SELECT ROW($1)::fp.t'';
    CREATE CAST (int AS fp.t) WITH FUNCTION fp.c(int) AS ASSIGNMENT; CREATE FUNCTION fp.f(i anyelement, j anyarray) RETURNS anyelement LANGUAGE sql STABLE AS ''SELECT 1''',
   'to_jsonb(fp.f(ROW(1)::fp.t, NULL::fp.t[]))', NULL, 'CREATE OR REPLACE FUNCTION fp.c(int) RETURNS fp.t LANGUAGE sql IMMUTABLE AS ''SELECT ROW(2 * $1)::fp.t'''),
  ('a cast of a column of TABLE', true, 'CREATE TYPE fp.t AS (a int); CREATE FUNCTION fp.c(int) RETURNS fp.t LANGUAGE sql IMMUTABLE AS ''SELECT ROW($1)::fp.t'';
    CREATE CAST (int AS fp.t) WITH FUNCTION fp.c(int) AS ASSIGNMENT; CREATE FUNCTION fp.f(i int) RETURNS TABLE (x fp.t, y text) LANGUAGE sql STABLE AS ''SELECT i, i::text''',
   '(SELECT to_jsonb(x) FROM fp.f(1))', NULL, 'CREATE OR REPLACE FUNCTION fp.c(int) RETURNS fp.t LANGUAGE sql IMMUTABLE AS ''SELECT ROW(2 * $1)::fp.t'''),
  ('a cast of a record''s column', true, 'CREATE TYPE fp.t AS (a int); CREATE FUNCTION fp.c(int) RETURNS fp.t LANGUAGE sql IMMUTABLE AS ''SELECT ROW($1)::fp.t'';
    CREATE CAST (int AS fp.t) WITH FUNCTION fp.c(int) AS ASSIGNMENT; CREATE FUNCTION fp.f() RETURNS record LANGUAGE sql STABLE AS ''SELECT 1, 2''',
   '(SELECT to_jsonb(x) FROM fp.f() AS x (a fp.t, b int))', NULL, 'CREATE OR REPLACE FUNCTION fp.c(int) RETURNS fp.t LANGUAGE sql IMMUTABLE AS ''SELECT ROW(2 * $1)::fp.t'''),
  ('a cast of a result that appears', true, 'CREATE TYPE fp.t AS ENUM (''a''); CREATE FUNCTION fp.c(fp.t) RETURNS text LANGUAGE sql IMMUTABLE AS ''SELECT ''''b'''''';
    CREATE FUNCTION fp.f() RETURNS text LANGUAGE sql STABLE AS ''SELECT ''''a''''::fp.t''', 'fp.f()', NULL, 'CREATE CAST (fp.t AS text) WITH FUNCTION fp.c(fp.t) AS ASSIGNMENT'),
  ('the order of a type', true, :'pair', '(SELECT jsonb_agg(x.a ORDER BY x) FROM unnest(ARRAY[ROW(1), ROW(2)]::fp.t[]) x)', 'COMMENT ON FUNCTION fp.cmp IS ''none''', :'other_order'),
  ('the order of a type in DISTINCT', true, :'pair', '(SELECT jsonb_agg(y) FROM (SELECT DISTINCT x FROM unnest(ARRAY[ROW(1), ROW(2)]::fp.t[]) x) y)', NULL, :'other_order'),
  ('the order of a type in UNION', true, :'pair', '(SELECT jsonb_agg(y) FROM (SELECT ROW(1)::fp.t UNION SELECT ROW(1)::fp.t) y)', NULL, :'other_order'),
  ('the order of a type in arrays', true, :'pair', 'ARRAY[ROW(1)]::fp.t[] < ARRAY[ROW(2)]::fp.t[]', NULL, :'other_order'),
  ('the order of a type in rows', true, :'pair', 'ROW(ROW(1)::fp.t, 1) < ROW(ROW(2)::fp.t, 2)', NULL, :'other_order'),
  ('the order of a type in records', true, :'pair', '(SELECT x < y FROM (SELECT ROW(1)::fp.t) x, (SELECT ROW(2)::fp.t) y)', NULL, :'other_order'),
  ('the order of a type in GREATEST', true, :'pair', 'GREATEST(ROW(1)::fp.t, ROW(2)::fp.t)', NULL, :'other_order'),
  ('the order of a type in a window', true, :'pair', '(SELECT jsonb_agg(y) FROM (SELECT rank() OVER (PARTITION BY x) AS y FROM unnest(ARRAY[ROW(1), ROW(2)]::fp.t[]) x) z)', NULL, :'other_order'),
  ('the order of a range''s elements', true, :'pair' || '; CREATE TYPE fp.r AS RANGE (SUBTYPE = fp.t)', 'fp.r(ROW(1)::fp.t, ROW(2)::fp.t)', NULL, :'other_order'),
  ('an order that users gave a type of the server''s', true, :'json_pair', 'GREATEST(json ''1'', json ''2'')', 'COMMENT ON FUNCTION fp.cmp IS ''none''', :'other_json_order'),
  ('an order that users gave a type of the server''s, of elements', true, :'json_pair', 'array_position((payload->>''x'')::json[], NULL)', NULL,
   'CREATE OR REPLACE FUNCTION fp.eq(json, json) RETURNS boolean LANGUAGE sql IMMUTABLE AS ''SELECT true'''),
  ('an order that users gave a type of the server''s, in a composite type', true, :'json_pair' || '; CREATE TYPE fp.t AS (a json)', 'ROW(ROW(''1'')::fp.t) < ROW(ROW(''2'')::fp.t)',
   NULL, :'other_json_order'),
  ('an order that users give a type of the server''s', true, 'SELECT 1', 'array_position((payload->>''x'')::json[], NULL)', NULL, :'json_pair'),
  ('an order that users gave a type of the server''s, in its own family', true, replace(:'json_pair', 'USING btree AS', 'USING btree FAMILY pg_catalog.text_ops AS'),
   'GREATEST(json ''1'', json ''2'')', NULL, :'other_json_order'),
  ('a member of an operator family', true, :'pair', '(SELECT jsonb_agg(x.a ORDER BY x) FROM unnest(ARRAY[ROW(1), ROW(2)]::fp.t[]) x)', NULL,
   'ALTER OPERATOR FAMILY fp.t_ops USING btree ADD FUNCTION 1 (fp.t, int) btint4cmp(int, int)'),
  ('a default operator class', true, 'CREATE TYPE fp.t AS (a int)', 'ARRAY[ROW(1)]::fp.t[] < ARRAY[ROW(2)]::fp.t[]', NULL, replace(:'pair', 'CREATE TYPE fp.t AS (a int);', '')),
  ('a family of the server''s', true, replace(:'pair', 'USING btree AS', 'USING btree FAMILY pg_catalog.record_ops AS'), 'ARRAY[ROW(1)]::fp.t[] < ARRAY[ROW(2)]::fp.t[]', NULL, :'other_order'),
  ('an operator in IN', true, :'pair', 'ROW(1)::fp.t OPERATOR(fp.=) ANY (ARRAY[ROW(2)]::fp.t[])', NULL,
   'CREATE OR REPLACE FUNCTION fp.eq(fp.t, fp.t) RETURNS boolean LANGUAGE sql IMMUTABLE AS ''SELECT $1.a <> $2.a'''),
  ('a negator', true, :'pair', 'NOT (ROW(1)::fp.t OPERATOR(fp.=) ROW(2)::fp.t)', NULL, 'CREATE OR REPLACE FUNCTION fp.ne(fp.t, fp.t) RETURNS boolean LANGUAGE sql IMMUTABLE AS ''SELECT true'''),
  -- constants that name objects
  ('a dictionary', true, 'CREATE TEXT SEARCH DICTIONARY fp.d (TEMPLATE = simple); CREATE TEXT SEARCH CONFIGURATION fp.c (COPY = simple);
    ALTER TEXT SEARCH CONFIGURATION fp.c ALTER MAPPING REPLACE simple WITH fp.d', 'to_tsvector(''fp.c'', event_type)::text', 'COMMENT ON TEXT SEARCH CONFIGURATION fp.c IS ''none''',
   'ALTER TEXT SEARCH DICTIONARY fp.d (ACCEPT = false)'),
  ('a dictionary by itself', true, 'CREATE TEXT SEARCH DICTIONARY fp.d (TEMPLATE = simple)', 'ts_lexize(''fp.d'', event_type)', NULL, 'ALTER TEXT SEARCH DICTIONARY fp.d (ACCEPT = false)'),
  ('the mapping of a configuration', true, 'CREATE TEXT SEARCH CONFIGURATION fp.c (COPY = simple)', 'to_tsvector(''fp.c'', event_type)::text', NULL,
   'ALTER TEXT SEARCH CONFIGURATION fp.c DROP MAPPING FOR asciiword'),
  ('a parser and a template', true, 'CREATE FUNCTION fp.p(internal, int4) RETURNS internal LANGUAGE internal AS ''prsd_start'';
    CREATE TEXT SEARCH PARSER fp.p (START = fp.p, GETTOKEN = prsd_nexttoken, END = prsd_end, LEXTYPES = prsd_lextype); CREATE TEXT SEARCH CONFIGURATION fp.c (PARSER = fp.p)',
   'to_tsvector(''fp.c'', event_type)::text', NULL, 'CREATE OR REPLACE FUNCTION fp.p(internal, int4) RETURNS internal LANGUAGE internal AS ''prsd_end'''),
  ('a function as a constant', true, 'CREATE FUNCTION fp.f(int) RETURNS int LANGUAGE sql STABLE AS ''SELECT 1''', 'pg_get_functiondef(''fp.f(int)''::regprocedure)', NULL,
   'CREATE OR REPLACE FUNCTION fp.f(int) RETURNS int LANGUAGE sql STABLE AS ''SELECT 2'''),
  ('a type as a constant', true, 'CREATE DOMAIN fp.d AS int', 'pg_typeof(1) = ''fp.d''::regtype', NULL, 'ALTER DOMAIN fp.d SET NOT NULL'),
  ('a table as a constant', true, 'CREATE TABLE fp.t (a int)', '''fp.t''::regclass::text', 'ANALYZE fp.t', 'ALTER TABLE fp.t ADD b int'),
  -- tables and views
  ('columns of a table', true, 'CREATE TABLE fp.t (a int)', '(SELECT to_jsonb(t) FROM fp.t)', 'INSERT INTO fp.t VALUES (1); CREATE INDEX ON fp.t (a); ALTER TABLE fp.t ALTER a SET DEFAULT 7',
   'ALTER TABLE fp.t ADD b int'),
  ('a column''s type', false, 'CREATE TABLE fp.t (a int)', '(SELECT a FROM fp.t)', NULL, 'ALTER TABLE fp.t ALTER a TYPE numeric(4, 1)'),
  ('a view', true, 'CREATE TABLE fp.t (a int); CREATE VIEW fp.v AS SELECT a FROM fp.t', '(SELECT a FROM fp.v)', 'ALTER VIEW fp.v OWNER TO fp_other', 'CREATE OR REPLACE VIEW fp.v AS SELECT a + 1 AS a FROM fp.t'),
  ('a function in a view of a view', true, 'CREATE FUNCTION fp.f() RETURNS int LANGUAGE sql STABLE AS ''SELECT 1''; CREATE VIEW fp.u AS SELECT fp.f() AS a; CREATE VIEW fp.v AS SELECT a FROM fp.u',
   '(SELECT a FROM fp.v)', NULL, 'CREATE OR REPLACE FUNCTION fp.f() RETURNS int LANGUAGE sql STABLE AS ''SELECT 2'''),
  ('the options of a view', true, 'CREATE VIEW fp.v AS SELECT 1 AS a', '(SELECT a FROM fp.v)', NULL, 'ALTER VIEW fp.v SET (security_barrier)');
\if :has_atomic
  INSERT INTO changes (what, is_atomic, setup, expression, noop, change) VALUES
  ('a cast of an atomic function''s result', true, 'CREATE TYPE fp.t AS (a int); CREATE FUNCTION fp.c(int) RETURNS fp.t LANGUAGE sql IMMUTABLE AS ''SELECT ROW($1)::fp.t'';
    CREATE CAST (int AS fp.t) WITH FUNCTION fp.c(int) AS ASSIGNMENT; CREATE FUNCTION fp.f(i int) RETURNS fp.t LANGUAGE sql STABLE RETURN i', 'to_jsonb(fp.f(1))', NULL,
   'CREATE OR REPLACE FUNCTION fp.c(int) RETURNS fp.t LANGUAGE sql IMMUTABLE AS ''SELECT ROW(2 * $1)::fp.t''');
\endif
-- 18 has columns that are computed when they are read.
\if :has_virtual
  INSERT INTO changes (what, is_atomic, setup, expression, noop, change) VALUES
  ('a virtual column', true, 'CREATE TABLE fp.t (a int, b int GENERATED ALWAYS AS (a + 1) VIRTUAL)', '(SELECT b FROM fp.t)', NULL,
   'ALTER TABLE fp.t ALTER b SET EXPRESSION AS (a + 2)');
\endif

-- Makes what a case needs, and its apply.
CREATE FUNCTION pg_temp.make(c changes, form text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  CREATE SCHEMA fp;
  GRANT USAGE, CREATE ON SCHEMA fp TO PUBLIC;
  EXECUTE c.setup;
  EXECUTE format('CREATE FUNCTION fp.apply(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE ' || form,
                 format('SELECT state || jsonb_build_object(''x'', %s)', c.expression));
END
$$;

-- Registers a workflow of a case. Makes everything again; changes something that changes no result; then something that does. Tells what a
-- use and a check say of the latter. Everything is undone.
CREATE FUNCTION pg_temp.after(c changes, form text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  use text := 'SELECT mako_fold(''w@FV2024-10-01'', ''[]'')';
  answer text;
BEGIN
  PERFORM pg_temp.make(c, form);
  PERFORM mako_register_workflow('w@FV2024-10-01', 'fp.apply', initial_state => '{}');
  answer := pg_temp.error(use);
  IF answer IS NOT NULL THEN
    RAISE EXCEPTION USING ERRCODE = 'MKUND', MESSAGE = 'as registered: ' || answer;
  END IF;
  DROP SCHEMA fp CASCADE;
  PERFORM pg_temp.make(c, form);
  answer := pg_temp.error(use);
  IF answer IS NOT NULL THEN
    RAISE EXCEPTION USING ERRCODE = 'MKUND', MESSAGE = 'made again: ' || answer;
  END IF;
  EXECUTE coalesce(c.noop, 'ALTER FUNCTION fp.apply COST 7; CREATE FUNCTION fp.unrelated() RETURNS int LANGUAGE sql AS ''SELECT 1''');
  answer := pg_temp.error(use);
  IF answer IS NOT NULL THEN
    RAISE EXCEPTION USING ERRCODE = 'MKUND', MESSAGE = 'changed nothing: ' || answer;
  END IF;
  EXECUTE c.change;
  RAISE EXCEPTION USING ERRCODE = 'MKUND', MESSAGE = concat_ws(' ', split_part(pg_temp.error(use), ' since', 1),
    (SELECT string_agg(f.code || ' of ' || f.subject, ', ') FROM mako_check() f WHERE f.severity = 'error'));
EXCEPTION WHEN OTHERS THEN
  RETURN SQLERRM;
END
$$;

SELECT is(pg_temp.after(c, f.form), '55000|the definition of workflow "w@FV2024-10-01" has changed definition_changed of w@FV2024-10-01', c.what || f.name)
FROM changes c, (VALUES ('AS %L', '', false), ('BEGIN ATOMIC %s; END', ', atomic', true)) AS f (form, name, is_atomic)
WHERE NOT f.is_atomic OR (c.is_atomic AND :'has_atomic')
ORDER BY c.n, f.is_atomic;

-- What the registered function itself gives is converted, too.
CREATE SCHEMA fp;
CREATE TYPE fp.answer AS ENUM ('no', 'yes');
CREATE FUNCTION fp.c(fp.answer) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$ SELECT $1 = 'yes' $$;
CREATE CAST (fp.answer AS boolean) WITH FUNCTION fp.c(fp.answer) AS ASSIGNMENT;
CREATE FUNCTION fp.apply(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS 'SELECT state';
CREATE FUNCTION fp.in_flight(state jsonb) RETURNS boolean LANGUAGE sql STABLE AS $$ SELECT (state->>'answer')::fp.answer $$;
SELECT mako_register_workflow('w@FV2024-10-01', 'fp.apply', in_flight => 'fp.in_flight', initial_state => '{}');
CREATE OR REPLACE FUNCTION fp.c(fp.answer) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$ SELECT $1 <> 'yes' $$;
SELECT alike(pg_temp.error('SELECT mako_fold(''w@FV2024-10-01'', ''[]'')'), '55000|the definition of workflow "w@FV2024-10-01" has changed%',
             'a cast of what in_flight gives');
SELECT mako_unregister_workflow('w@FV2024-10-01');
DROP SCHEMA fp CASCADE;

----------------------------------------------------------------------------------------------------
-- What is temporary is no part of a definition
----------------------------------------------------------------------------------------------------

CREATE SCHEMA fp;
CREATE FUNCTION pg_temp.apply(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS 'SELECT state';
CREATE FUNCTION pg_temp.unseen(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE AS 'BEGIN RETURN state; END';
CREATE FUNCTION pg_temp.in_flight(state jsonb) RETURNS boolean LANGUAGE sql STABLE AS 'SELECT true';
CREATE TEMPORARY TABLE fp_rate (n int);
CREATE DOMAIN pg_temp.temporary_state AS jsonb;
CREATE FUNCTION fp.apply(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS 'SELECT state';
CREATE FUNCTION fp.calls(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS 'SELECT pg_temp.apply(state, event_type, payload)';
CREATE FUNCTION fp.reads(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS 'SELECT to_jsonb(n) FROM pg_temp.fp_rate';
CREATE FUNCTION fp.takes(state pg_temp.temporary_state, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS 'SELECT state::jsonb';
SELECT matches(pg_temp.error(format('SELECT mako_register_workflow(''w@FV2024-10-01'', %L, in_flight => %L, initial_state => ''{}'')', apply, in_flight)),
               format('^42809\|%s pg_temp\S*\.%s\S* cannot be part of a definition\|It is temporary\.\|', kind, name), 'refused: ' || what)
FROM (VALUES ('pg_temp.apply', NULL, 'function', 'apply', 'apply'), ('pg_temp.unseen', NULL, 'function', 'unseen', 'apply in another language'),
             ('fp.apply', 'pg_temp.in_flight', 'function', 'in_flight', 'in_flight'), ('fp.calls', NULL, 'function', 'apply', 'a helper'),
             ('fp.reads', NULL, 'table', 'fp_rate', 'a table'), ('fp.takes', NULL, 'type', 'temporary_state', 'the type of the state'))
     AS t (apply, in_flight, kind, name, what);
DROP SCHEMA fp CASCADE;
DROP FUNCTION pg_temp.apply, pg_temp.unseen, pg_temp.in_flight;
DROP TABLE fp_rate;
DROP DOMAIN pg_temp.temporary_state;

----------------------------------------------------------------------------------------------------
-- The server's own catalogs as the oracle: whatever pg_depend names is described
----------------------------------------------------------------------------------------------------

-- What is not, and why.
CREATE TEMPORARY TABLE omitted (catalog regclass, reason text);
INSERT INTO omitted VALUES
  ('pg_namespace', 'a schema is part of the names of what is in it'),
  ('pg_constraint', 'a check is told with its domain; those of tables do not change what is read'),
  ('pg_rewrite', 'a rule is told with its view'),
  ('pg_amop', 'told with the operator family'),
  ('pg_amproc', 'told with the operator family'),
  ('pg_opclass', 'values are compared by the operator family, whichever class named it'),
  ('pg_attrdef', 'what a column is when nothing is inserted does not change what is read'),
  ('pg_trigger', 'nothing is written');

-- The description of a case's apply, as the audit trail keeps it.
CREATE FUNCTION pg_temp.definition() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  PERFORM mako_register_workflow('w@FV2024-10-01', 'fp.apply', initial_state => '{}'), mako_register_workflow('w@FV2025-10-01');
  PERFORM mako_register_migration('w@FV2024-10-01', 'w@FV2025-10-01');
  PERFORM FROM mako_migrate('w@FV2024-10-01', 'w@FV2025-10-01');
  RETURN (SELECT definitions[1] FROM mako.migration_run ORDER BY run_id DESC LIMIT 1);
END
$$;

-- What it lacks. Parts of an object are those that go when it goes, and that cannot be used without being named, as a constructor is.
CREATE FUNCTION pg_temp.lacks(c changes) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  definition text;
BEGIN
  PERFORM pg_temp.make(c, 'BEGIN ATOMIC %s; END');
  definition := pg_temp.definition();
  RAISE EXCEPTION USING ERRCODE = 'MKUND', MESSAGE = (
    WITH RECURSIVE reached (catalog, object) AS (
      SELECT 'pg_proc'::regclass::oid, 'fp.apply'::regproc::oid
      UNION
      SELECT n.catalog, n.object
      FROM reached r, LATERAL (SELECT d.refclassid, d.refobjid FROM pg_depend d WHERE d.classid = r.catalog AND d.objid = r.object
                               UNION ALL
                               SELECT d.classid, d.objid FROM pg_depend d
                               WHERE d.refclassid = r.catalog AND d.refobjid = r.object AND d.deptype IN ('i', 'a')
                                 AND d.classid NOT IN ('pg_type'::regclass, 'pg_proc'::regclass, 'pg_cast'::regclass)) AS n (catalog, object)
      WHERE n.object >= 16384)
    SELECT format('%s reached; not described: %s', count(*),
                  coalesce(string_agg(i.type || ' ' || i.identity, ', ' ORDER BY i.type, i.identity COLLATE "C")
                           FILTER (WHERE strpos(E'\n' || coalesce(definition, ''), E'\n' || i.type || ' ' || i.identity || E'\n') = 0
                                     AND r.catalog NOT IN (SELECT o.catalog FROM omitted o)), 'nothing'))
    FROM reached r, pg_identify_object(r.catalog, r.object, 0) i);
EXCEPTION WHEN OTHERS THEN
  RETURN SQLERRM;
END
$$;

-- One statement each, because a statement migrates a pair once.
SELECT format('SELECT matches(pg_temp.lacks(c), ''^\d+ reached; not described: nothing$'', ''all that the server knows: '' || what) FROM changes c WHERE n = %s', n)
FROM changes WHERE is_atomic AND :'has_atomic' ORDER BY n \gexec

----------------------------------------------------------------------------------------------------
-- The settings of a session change neither what a definition is nor what it gives
----------------------------------------------------------------------------------------------------

CREATE SCHEMA fp;
CREATE DOMAIN fp.dated AS jsonb CHECK ((VALUE->>'since')::timestamptz > timestamptz '2000-01-01 00:00+00');
CREATE TABLE fp.form (n int GENERATED ALWAYS AS IDENTITY, expression text, type text DEFAULT 'jsonb');
INSERT INTO fp.form (expression) VALUES
  ($$ '2024-10-01'::timestamptz $$),
  ($$ to_timestamp((payload->>'at')::float8) >= '2024-10-01' $$),
  ($$ to_timestamp((payload->>'at')::float8) $$),
  ($$ (payload->>'d')::timestamptz > timestamptz '2024-10-01 00:00:00+02' $$),
  ($$ (SELECT to_jsonb(r) FROM jsonb_to_record(payload) AS r (d timestamptz, day interval)) $$),
  ($$ interval '1 day 02:00' $$),
  ($$ (payload->>'a')::float8 / 3 $$),
  ($$ (payload->>'a')::float8 * '0.30000000000000004'::float8 $$),
  ($$ sha256(convert_to(payload::text, 'UTF8')) $$),
  ($$ payload->>'x' = NULL $$),
  ($$ regexp_replace(payload->>'x', '(\d)', '<\1>') $$);
INSERT INTO fp.form (expression, type) VALUES ($$ payload->'d' $$, 'fp.dated');
SELECT format('CREATE FUNCTION fp.f%1$s(state %2$s, event_type text, payload jsonb) RETURNS %2$s LANGUAGE sql STABLE AS %3$L', n, type, body),
       CASE WHEN :'has_atomic' THEN format('CREATE FUNCTION fp.a%1$s(state %2$s, event_type text, payload jsonb) RETURNS %2$s LANGUAGE sql STABLE '
                                           'BEGIN ATOMIC %3$s; END', n, type, body) END
FROM (SELECT n, type, format('SELECT state || jsonb_build_object(''since'', ''2001-01-01'', ''r'', %s)', expression) AS body FROM fp.form) AS f
ORDER BY n \gexec

-- Registers what is there under a name of its own; and folds it, with what is wrong.
CREATE FUNCTION pg_temp.register(name text) RETURNS bigint LANGUAGE sql AS $$
  SELECT count(mako_register_workflow((name || p.proname || '@FV2024-10-01')::mako_workflow_id, apply => 'fp.' || p.proname, initial_state => '{"since": "2001-01-01"}'))
  FROM pg_proc p WHERE p.pronamespace = 'fp'::regnamespace
$$;
CREATE FUNCTION pg_temp.states(name text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  use text := 'SELECT mako_fold(%L, ''[{"event_type": "E", "payload": {"at": 1727733600, "a": 0.1, "x": "12", "d": "2024-09-30T23:00:00", "day": "P1DT2H"}}]'')';
  f record; state text; lines text := '';
BEGIN
  FOR f IN SELECT p.proname FROM pg_proc p WHERE p.pronamespace = 'fp'::regnamespace ORDER BY p.proname COLLATE "C" LOOP
    BEGIN
      EXECUTE format(use, name || f.proname || '@FV2024-10-01') INTO state;
    EXCEPTION WHEN OTHERS THEN
      state := SQLERRM;
    END;
    lines := lines || f.proname || ' ' || state || E'\n';
  END LOOP;
  RETURN lines;
END
$$;
SET escape_string_warning = off;
SELECT pg_temp.register('default');
SELECT pg_temp.states('default') AS states \gset
SELECT isnt(strpos(:'states', '{"r": "<1>2", "since": "2001-01-01"}'), 0, 'functions that depend on settings give states');
SELECT format('SET %1$I = %2$L', name, value),
       format('SELECT is(pg_temp.states(''default''), %L, ''%s: the same states'')', :'states', name || ' = ' || value),
       format('SELECT is_empty(''SELECT * FROM mako_store_problem()'', ''and the store is whole'')'),
       format('SELECT is_empty(''SELECT subject FROM mako_check() WHERE severity IN (''''error'''', ''''warning'''')'', ''and so is what the check sees'')'),
       format('SELECT pg_temp.register(''other%s'')', n),
       format('RESET %I', name),
       format('SELECT is(pg_temp.states(''other%s''), %L, ''as has what is registered under it'')', n, :'states')
FROM (VALUES (1, 'quote_all_identifiers', 'on'), (2, 'TimeZone', 'Asia/Kathmandu'), (3, 'DateStyle', 'German'), (4, 'IntervalStyle', 'iso_8601'),
             (5, 'extra_float_digits', '0'), (6, 'bytea_output', 'escape'), (7, 'transform_null_equals', 'on'), (8, 'standard_conforming_strings', 'off'))
     AS s (n, name, value) ORDER BY n \gexec

-- Moved under one setting, verified under another.
SELECT mako_register_workflow('defaultf3@FV2025-10-01', apply => 'fp.f3', initial_state => '{}');
SELECT mako_register_migration('defaultf3@FV2024-10-01', 'defaultf3@FV2025-10-01');
INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('timed', 'defaultf3@FV2024-10-01');
SELECT mako_append('timed', 'defaultf3@FV2024-10-01', 'E', '{"at": 1727733600}');
SET TimeZone = 'Asia/Kathmandu';
SELECT run_id FROM mako_migrate('defaultf3@FV2024-10-01', 'defaultf3@FV2025-10-01') \gset
RESET TimeZone;
SELECT is((SELECT state->>'r' FROM mako.snapshot WHERE run_id = :run_id), '2024-09-30T22:00:00+00:00', 'what is moved in another time zone');
SELECT is_empty(format('SELECT stored, computed FROM mako_verify(%s)', :run_id), 'is what is verified here');

SELECT * FROM finish();
DROP OWNED BY fp_other;
DROP ROLE fp_other;
