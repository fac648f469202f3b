-- The same states, fingerprints and reports, whatever the settings of the session are.
--
-- Each setting gets a session of its own. There, what the extension says about the examples, golden
-- streams and functions that depend on settings on purpose is taken down: under the setting, then,
-- for functions whose plans PL/pgSQL keeps, under the defaults again. All of it must be, byte for
-- byte, what a session with defaults says.
--
-- MAKO_SOAK=1 takes more of the settings that only the planner and the executor look at.
--
-- Runs in an empty database, from the root of the project.

\set ECHO none
SET client_min_messages = warning;
CREATE SCHEMA m;
CREATE EXTENSION mako_migration SCHEMA m;
CREATE EXTENSION pgtap;
SET search_path = public, m;
LOAD 'plpgsql';
CREATE SCHEMA s;

----------------------------------------------------------------------------------------------------
-- The settings
----------------------------------------------------------------------------------------------------

-- What a session does first, and which of the items below are taken down then.
CREATE TABLE s.setting (n integer NOT NULL, command text NOT NULL, items text NOT NULL);
CREATE FUNCTION s.add(items text, commands text) RETURNS void LANGUAGE sql AS $$
  INSERT INTO s.setting
  SELECT (SELECT count(*) FROM s.setting) + row_number() OVER (ORDER BY ordinality) - 1, line, items
  FROM regexp_split_to_table(commands, '\s*\n\s*') WITH ORDINALITY AS l (line) WHERE line <> ''
$$;

-- What a value looks like, what a text or a statement means, and what a transaction is. The first
-- session has no setting of its own: it says what is wanted.
SELECT s.add('', $$
  SET application_name = 'settings'
  SET TimeZone = 'UTC'
  SET TimeZone = 'Europe/Berlin'
  SET TimeZone = 'Asia/Kathmandu'
  SET TimeZone = '<-03>3'
  SET timezone_abbreviations = 'India'
  SET timezone_abbreviations = 'Australia'
  SET DateStyle = ISO, DMY
  SET DateStyle = ISO, YMD
  SET DateStyle = SQL, DMY
  SET DateStyle = SQL, MDY
  SET DateStyle = German
  SET DateStyle = Postgres, MDY
  SET IntervalStyle = postgres
  SET IntervalStyle = postgres_verbose
  SET IntervalStyle = sql_standard
  SET IntervalStyle = iso_8601
  SET extra_float_digits = -15
  SET extra_float_digits = 0
  SET extra_float_digits = 3
  SET bytea_output = escape
  SET xmlbinary = hex
  SET xmloption = document
  SET array_nulls = off
  SET lc_messages = 'C.UTF-8'
  SET lc_messages = 'de_DE.UTF-8'
  SET lc_monetary = 'C.UTF-8'
  SET lc_monetary = 'de_DE.UTF-8'
  SET lc_numeric = 'C.UTF-8'
  SET lc_numeric = 'de_DE.UTF-8'
  SET lc_time = 'C.UTF-8'
  SET lc_time = 'de_DE.UTF-8'
  SET client_encoding = 'LATIN1'
  SET default_text_search_config = 'pg_catalog.simple'
  SET default_text_search_config = 'pg_catalog.german'
  SET standard_conforming_strings = off
  SET backslash_quote = on
  SET backslash_quote = off
  SET escape_string_warning = off
  SET quote_all_identifiers = on
  SET transform_null_equals = on
  SET operator_precedence_warning = on
  SET check_function_bodies = off
  SET search_path = ''
  SET search_path = public
  SET search_path = m, pg_catalog, pg_temp
  SET search_path = pg_catalog, m, pg_temp
  SET search_path = evil, public, pg_catalog
  SET search_path = evil, pg_catalog, m
  SELECT s.shadow(); SET search_path = pg_temp, evil, pg_catalog, m
  SET row_security = off
  SET plpgsql.check_asserts = off
  SET plpgsql.extra_errors = 'all'
  SET plpgsql.extra_errors = 'too_many_rows'
  SET plpgsql.print_strict_params = on
  SET plpgsql.variable_conflict = use_column
  SET plpgsql.variable_conflict = use_variable
  SET default_table_access_method = another_heap
  SET default_tablespace = pg_default
  SET default_toast_compression = lz4
  SET default_transaction_deferrable = on
  SET synchronous_commit = off
  SET session_replication_role = local
  SET event_triggers = off
$$);
-- How statements are planned and executed, which is nothing to the functions.
\set planned '^(?!fold (sql|plpgsql|atomic)_|explain|check of functions|values)'
-- With these, no event store can be attached.
SELECT s.add('^(?!attached)', $$
  SET restrict_nonsystem_relation_kind = 'view, foreign-table'
  SET default_transaction_isolation = 'serializable'
  SET default_transaction_isolation = 'repeatable read'
$$);
SELECT s.add(:'planned', $$
  SET constraint_exclusion = on
  SET cpu_tuple_cost = 1000
  SET enable_bitmapscan = off
  SET enable_hashagg = off
  SET enable_hashjoin = off
  SET enable_indexonlyscan = off
  SET enable_indexscan = off
  SET enable_material = off
  SET enable_mergejoin = off
  SET enable_nestloop = off
  SET enable_seqscan = off
  SET enable_sort = off
  SET from_collapse_limit = 1
  SET join_collapse_limit = 1
  SET geqo_threshold = 2
  SET work_mem = '64kB'
  SET work_mem = '1GB'
  SET plan_cache_mode = force_custom_plan
  SET plan_cache_mode = force_generic_plan
  SET random_page_cost = 1000
  SET seq_page_cost = 1000
  SET synchronize_seqscans = off
  SET jit = off
  SET jit = on; SET jit_optimize_above_cost = -1; SET jit_above_cost = 10000
  SET force_parallel_mode = regress
  SET debug_parallel_query = regress
  SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0
  SET max_parallel_workers_per_gather = 0
  SET track_functions = 'all'
  SET compute_query_id = on
  SET statement_timeout = '1h'
  SET application_name = '%s '' "x" \'
$$);
\set soak `echo "${MAKO_SOAK-}"`
SELECT s.add(:'planned', $$
  SET constraint_exclusion = off
  SET cpu_operator_cost = 1000
  SET cursor_tuple_fraction = 1
  SET default_statistics_target = 1
  SET effective_cache_size = '8kB'
  SET enable_distinct_reordering = off
  SET enable_gathermerge = off
  SET enable_group_by_reordering = off
  SET enable_incremental_sort = off
  SET enable_memoize = off
  SET enable_parallel_append = off
  SET enable_parallel_hash = off
  SET enable_partition_pruning = off
  SET enable_partitionwise_aggregate = on
  SET enable_partitionwise_join = on
  SET enable_presorted_aggregate = off
  SET enable_self_join_elimination = off
  SET enable_tidscan = off
  SET geqo = off
  SET geqo_threshold = 2; SET geqo_seed = 0.5
  SET hash_mem_multiplier = 1
  SET recursive_worktable_factor = 1000
  SET parallel_leader_participation = off
  SET stats_fetch_consistency = snapshot
  SET track_activities = off
  SET log_error_verbosity = verbose
  SET lock_timeout = '1h'
  SET transaction_timeout = '1h'
  SET idle_in_transaction_session_timeout = '1h'
  SET client_connection_check_interval = '1s'
  SET client_min_messages = error
$$)
WHERE :'soak' <> '';
-- A plan that looks dear would be compiled, which takes longer than everything else here.
UPDATE s.setting SET command = concat('SET jit = off; ', command)
WHERE items = :'planned' AND command !~ 'jit';
-- Triggers that do not fire. A migration needs none; appending does, see the end.
SELECT s.add('^(fold mixed|store|created again|check|state|verify|plan|dry run|rep|run|rev)', $$
  SET session_replication_role = replica
$$);
-- Many at once.
SELECT s.add('', format('%s; SET standard_conforming_strings = off; SET search_path = evil',
  (SELECT string_agg(command, '; ' ORDER BY n) FROM s.setting
   WHERE command ~ 'Kath|German|sql_standard|-15|escape$|array|document|null_eq|quote_all|India')));

-- Not every version knows each of them, and not every machine has each locale.
DELETE FROM s.setting
WHERE EXISTS (SELECT FROM regexp_matches(command, 'SET (\S+) =', 'g') AS name
              WHERE name[1] NOT IN (SELECT p.name FROM pg_settings p));
DO $$
DECLARE
  setting record;
BEGIN
  FOR setting IN SELECT n, command FROM s.setting WHERE command ~ 'SET (lc_|default_toast)' LOOP
    BEGIN
      EXECUTE replace(setting.command, 'SET ', 'SET LOCAL ');
    EXCEPTION WHEN invalid_parameter_value THEN
      DELETE FROM s.setting d WHERE d.n = setting.n;
    END;
  END LOOP;
END
$$;

CREATE ACCESS METHOD another_heap TYPE TABLE HANDLER heap_tableam_handler;

-- A schema with a name for all of the server's that is not polymorphic, and for some of the
-- extension's.
CREATE SCHEMA evil;
CREATE TABLE evil.pg_class ();
DO $do$
DECLARE
  types constant regtype[] :=
    '{bool,int4,int8,float8,text,name,jsonb,uuid,timestamptz,interval,oid,regclass,text[],int8[]}';
  body constant text := $$ LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION $x$captured %s$x$; END' $$;
  command text;
BEGIN
  FOR command IN
    SELECT format('CREATE FUNCTION evil.%I(%s) RETURNS %s', proname, oidvectortypes(proargtypes),
                  prorettype::regtype) || format(body, proname)
    FROM pg_proc
    WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind = 'f' AND NOT proretset
      AND pronargs BETWEEN 1 AND 3 AND provariadic = 0
      AND prorettype::regtype = ANY (types) AND proargtypes::regtype[] <@ types
    UNION ALL
    SELECT format('CREATE FUNCTION evil.%I(jsonb) RETURNS jsonb', name) || format(body, name)
    FROM unnest('{mako_reject,mako_required,mako_fold}'::text[]) AS name
    UNION ALL
    SELECT format('CREATE FUNCTION evil.operator_%s(%s, %s) RETURNS %s', oid, oprleft::regtype,
                  oprright::regtype, oprresult::regtype)
      || format(body, replace(oprname, '%', '%%'))
      || format('; CREATE OPERATOR evil.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = %s)', oprname,
                oprleft::regtype, oprright::regtype, 'evil.operator_' || oid)
    FROM pg_operator
    WHERE ARRAY[oprleft, oprright, oprresult]::regtype[] <@ types
    UNION ALL
    SELECT format('CREATE DOMAIN evil.%I AS pg_catalog.%1$I CHECK (false)', name)
    FROM unnest('{text,jsonb,uuid,timestamptz,name,oid,regclass}'::text[]) AS name
  LOOP
    EXECUTE command;
  END LOOP;
END
$do$;
CREATE FUNCTION s.shadow() RETURNS void LANGUAGE sql AS $$
  CREATE TEMPORARY TABLE pg_class ();
  CREATE TEMPORARY TABLE stream ();
  CREATE TEMPORARY TABLE mako_workflow ();
  CREATE DOMAIN pg_temp.text AS pg_catalog.text CHECK (false);
  CREATE DOMAIN pg_temp.jsonb AS pg_catalog.jsonb CHECK (false);
$$;

----------------------------------------------------------------------------------------------------
-- Functions that depend on settings
----------------------------------------------------------------------------------------------------

-- The instant 1727733600 is midnight of October 1st, 2024 in Berlin, and 22 h of the day before in
-- UTC.
CREATE TABLE s.expression (name text PRIMARY KEY, expression text NOT NULL);
INSERT INTO s.expression VALUES
  ('cut', $$ '2024-10-01'::timestamptz $$),
  ('late', $$ to_timestamp((payload->>'at')::float8) >= '2024-10-01' $$),
  ('typed', $$ to_timestamp((payload->>'at')::float8) >= timestamptz '2024-10-01 00:00' $$),
  ('parsed', $$ (payload->>'d')::timestamptz $$),
  ('abbreviated', $$ extract(epoch FROM '2024-07-01 12:00 IST'::timestamptz) $$),
  ('instant', $$ to_timestamp((payload->>'at')::float8) $$),
  ('instant_text', $$ to_timestamp((payload->>'at')::float8)::text $$),
  ('record', $$ (SELECT to_jsonb(r) FROM jsonb_to_record(payload) AS r (d timestamptz)) $$),
  ('row', $$ row(to_timestamp((payload->>'at')::float8), 0.1::float8 * 3)::text $$),
  ('day', $$ to_timestamp((payload->>'at')::float8)::date $$),
  ('day_of', $$ date_trunc('day', to_timestamp((payload->>'at')::float8))
                 = to_timestamp(1727733600) $$),
  ('hour', $$ extract(hour FROM to_timestamp((payload->>'at')::float8)) $$),
  ('made', $$ extract(epoch FROM make_timestamptz(2024, 10, 1, 0, 0, 0)) $$),
  ('tomorrow', $$ extract(epoch FROM to_timestamp(1729980000) + interval '1 day') $$),
  ('days', $$ (SELECT jsonb_agg(extract(epoch FROM d) ORDER BY d)
               FROM generate_series(to_timestamp(1729893600), to_timestamp(1730152800),
                                    '1 day') AS d) $$),
  ('age', $$ age(to_timestamp(1730152800), to_timestamp((payload->>'at')::float8)) $$),
  ('clock', $$ '12:00'::timetz $$),
  ('path', $$ jsonb_path_exists_tz('"2024-09-30T23:00:00"',
                                   '$.datetime() ? (@ < "2024-09-30T22:30:00+00".datetime())') $$),
  ('local', $$ (payload->>'d')::timestamp AT TIME ZONE current_setting('TimeZone') $$),
  ('zone', $$ current_setting('TimeZone') $$),
  ('order_of', $$ '02/03/04'::date $$),
  ('order_of_parsed', $$ (payload->>'o')::date::text $$),
  ('stamp', $$ ('2024-10-01 12:00'::timestamp)::text $$),
  ('interval', $$ '1 year 2 mons -3 days 04:05:06.7'::interval::text $$),
  ('interval_of', $$ extract(epoch FROM '-1 2:03:04'::interval) $$),
  ('interval_json', $$ to_jsonb('-1 day 02:00'::interval) $$),
  ('month', $$ to_char(to_timestamp((payload->>'at')::float8), 'TMMonth TMDay HH24') $$),
  ('amount', $$ to_char(1234567.5, 'L9G999G999D99') $$),
  ('amount_of', $$ to_number('1.234', '9G999') $$),
  ('money', $$ '1,234.50'::money::text $$),
  ('third', $$ (payload->>'a')::float8 / 3 $$),
  ('third_text', $$ ((payload->>'a')::float8 / 3)::text $$),
  ('third_real', $$ to_jsonb((payload->>'a')::float4 / 3) $$),
  ('constant', $$ (payload->>'a')::float8 * '0.30000000000000004'::float8 $$),
  ('point', $$ point(0.1::float8 * 3, 1)::text $$),
  ('hash', $$ sha256(convert_to(payload::text, 'UTF8')) $$),
  ('bytes', $$ '\x00ff'::bytea::text $$),
  ('null', $$ payload->>'nothing' = NULL $$),
  ('nulls', $$ '{NULL,a,"b c"}'::text[] $$),
  ('array_text', $$ ARRAY['null', NULL, 'a"b']::text $$),
  ('pattern', $$ regexp_replace(payload->>'x', '(\d)', '<\1>') $$),
  ('like', $$ 'a\b' LIKE 'a\\b' $$),
  ('plain', $$ 'a\tb' || length('\\') $$),
  ('escape', $$ E'a\tb\x41' $$),
  ('escaped_quote', $$ E'it\'s' $$),
  ('code_point', $$ U&'d\0061ta' $$),
  ('identifier', $$ format('%I', payload->>'x') || quote_ident('name') $$),
  ('class', $$ 'pg_catalog.pg_class'::regclass::text || 'pg_catalog.now()'::regprocedure::text $$),
  ('words', $$ to_tsvector('the running dogs')::text || to_tsquery('dogs')::text $$),
  ('xml', $$ '<a/><b/>'::xml::text $$),
  ('xml_bytes', $$ xmlelement(NAME x, '\x00ff'::bytea)::text $$),
  ('language', $$ current_setting('lc_messages') $$),
  ('name', $$ upper(payload->>'s') $$),
  ('cast', $$ coalesce((payload->'s')::jsonb, '{"s": 1}') $$);

-- Each of them in SQL, which is inlined, in PL/pgSQL, and read when the function is created.
CREATE TABLE s.function (name text PRIMARY KEY);
DO $$
DECLARE
  f record;
BEGIN
  FOR f IN
    SELECT form || '_' || name AS name, clause, body,
           format('state || jsonb_build_object(''x'', %s)', expression) AS expression
    FROM s.expression,
         (VALUES ('sql', 'LANGUAGE sql STABLE AS %L', 'SELECT %s', 0),
                 ('plpgsql', 'LANGUAGE plpgsql STABLE AS %L', 'BEGIN RETURN %s; END', 0),
                 ('atomic', 'LANGUAGE sql STABLE BEGIN ATOMIC %s; END', 'SELECT %s', 140000)
         ) AS v (form, clause, body, since)
    WHERE since <= current_setting('server_version_num')::int
  LOOP
    EXECUTE format('CREATE FUNCTION s.%I(state jsonb, event_type text, payload jsonb) '
                   'RETURNS jsonb ', f.name) || format(f.clause, format(f.body, f.expression));
    INSERT INTO s.function VALUES (f.name);
  END LOOP;
END
$$;

-- What PL/pgSQL's own settings change.
CREATE FUNCTION s.plpgsql_assert(state jsonb, event_type text, payload jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
BEGIN
  ASSERT payload IS NULL;
  RETURN '{"passed": true}';
EXCEPTION WHEN assert_failure THEN
  RETURN '{"passed": false}';
END
$$;
CREATE FUNCTION s.plpgsql_strict(state jsonb, event_type text, payload jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
DECLARE
  one text; detail text;
BEGIN
  SELECT k INTO STRICT one FROM jsonb_object_keys(payload) AS k WHERE k = event_type;
EXCEPTION WHEN no_data_found THEN
  GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
  RETURN jsonb_build_object('detail', detail);
END
$$;
CREATE FUNCTION s.plpgsql_ambiguous(state jsonb, event_type text, payload jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
BEGIN
  RETURN (SELECT jsonb_build_object('is', event_type) FROM (VALUES ('column')) AS v (event_type));
EXCEPTION WHEN ambiguous_column THEN
  RETURN '{"is": null}';
END
$$;

CREATE FUNCTION s.plpgsql_many(state jsonb, event_type text, payload jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
DECLARE
  one text;
BEGIN
  SELECT k INTO one FROM jsonb_object_keys(payload) AS k ORDER BY k COLLATE "C";
  RETURN jsonb_build_object('first', one);
EXCEPTION WHEN too_many_rows THEN
  RETURN '{"first": null}';
END
$$;
CREATE FUNCTION s.plpgsql_message(state jsonb, event_type text, payload jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
BEGIN
  RETURN jsonb_build_object('x', 1 / (payload->>'nothing')::int, 'y', 1 / (length(event_type) - 1));
EXCEPTION WHEN division_by_zero THEN
  RETURN jsonb_build_object('message', SQLERRM);
END
$$;

-- Domains whose checks hold constants.
CREATE DOMAIN s.dated AS jsonb
  CHECK ((VALUE->>'d')::timestamptz > timestamptz '2000-01-01 00:00+00');
CREATE DOMAIN s.measured AS s.dated
  CHECK ((VALUE->>'a')::float8 < '0.30000000000000004'::float8 AND VALUE->>'s' <> E'\\x41'
         AND interval '1 mon -1 day' > '0');
CREATE FUNCTION s.domains(state s.measured, event_type text, payload jsonb) RETURNS s.measured
LANGUAGE sql STABLE AS $$ SELECT state || payload $$;

-- One that calls many of them, and a step that calls some.
CREATE FUNCTION s.mixed(state jsonb, event_type text, payload jsonb) RETURNS jsonb
LANGUAGE sql STABLE AS $$
  SELECT jsonb_build_object(
    'status', coalesce(state->>'status', 'open') || '+',
    'a', s.sql_cut('{}', event_type, payload),
    'b', s.plpgsql_cut('{}', event_type, payload),
    'c', s.sql_instant('{}', event_type, payload),
    'd', s.plpgsql_late('{}', event_type, payload),
    'e', s.sql_interval('{}', event_type, payload),
    'f', s.plpgsql_third('{}', event_type, payload),
    'g', s.sql_hash('{}', event_type, payload),
    'h', s.sql_pattern('{}', event_type, payload),
    'i', s.plpgsql_pattern('{}', event_type, payload),
    'j', s.sql_nulls('{}', event_type, payload),
    'k', s.plpgsql_identifier('{}', event_type, payload)) $$;
CREATE FUNCTION s.step(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT s.sql_typed(state, '', '{"at": 1727733600}')
         || jsonb_build_object('y', s.plpgsql_days('{}', '', '{}'),
                               'z', (state#>>'{c,x}')::timestamptz) $$;
CREATE FUNCTION s.in_flight(state jsonb) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT (state#>>'{c,x}')::timestamptz > '2024-09-30 23:00' $$;
-- One that fails, with an error of the server's.
CREATE FUNCTION s.fail(state jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
  RETURN jsonb_build_object('x', 1 / (state->>'n')::int);
END
$$;
INSERT INTO s.function
VALUES ('plpgsql_assert'), ('plpgsql_strict'), ('plpgsql_ambiguous'), ('plpgsql_many'),
       ('plpgsql_message'), ('domains'), ('mixed');

----------------------------------------------------------------------------------------------------
-- Definitions and streams
----------------------------------------------------------------------------------------------------

\set initial_state '{"d": "2024-10-01", "a": 0.1}'
\set payload '{"at": 1727733600, "a": 0.1, "x": "12", "d": "2024-09-30T23:00:00", "o": "02/03/04", "s": "a\\\\b"}'
\set tenant aaaaaaaa-0000-4000-8000-000000000001
\set new aaaaaaaa-0000-4000-8000-000000000002
SELECT format('[{"event_type": "E", "payload": %s}]', :'payload') AS events,
       md5('mixed 4')::uuid AS process,
       'process/' || :'tenant' || '/' || md5('mixed 4')::uuid AS stream,
       'process/' || :'tenant' || '/' || :'new' AS new_stream \gset

\o /dev/null
SELECT mako_create_store();
\ir ../examples/register.sql
\ir ../examples/generator/choose.sql
\ir ../examples/generator/load.sql
\set golden_streams 60
\ir ../golden/load.sql
SELECT generator.choose('settings', 60, poison_rate => 0.1);
SELECT generator.load('settings');

SELECT mako_register_workflow(name || '@FV2024-10-01', 's.' || name,
                              initial_state => :'initial_state')
FROM s.function WHERE name <> 'mixed';
SELECT mako_register_workflow(id, 's.mixed', in_flight => 's.in_flight',
                              initial_state => :'initial_state', state_schema_version => version)
FROM (VALUES ('mixed@FV2024-10-01', 1), ('mixed@FV2025-10-01', 2),
             ('moved@FV2030-10-01', 1), ('moved@FV2031-10-01', 2)) AS w (id, version);
SELECT mako_register_migration('mixed@FV2024-10-01', 'mixed@FV2025-10-01', 's.step');
SELECT mako_register_migration('moved@FV2030-10-01', 'moved@FV2031-10-01', 's.step');
SELECT mako_register_workflow('failing@' || version, 's.sql_zone', initial_state => '{"n": 0}')
FROM unnest('{FV2028-10-01,FV2029-10-01}'::text[]) AS version;
SELECT mako_register_migration('failing@FV2028-10-01', 'failing@FV2029-10-01', 's.fail');

CREATE TABLE s."Follower, Table" ("Process" uuid, "Workflow, Id" text);
SELECT mako_add_dependent('s."Follower, Table"', 'Process', 'Workflow, Id');
CREATE TABLE s.taken (what text, stream_id text, source_wf text, target_wf text,
                      sequence_number bigint, state jsonb, texts text[]);

-- Three streams that have moved, three that are to move, and one that cannot.
CREATE FUNCTION s.spawn(i integer) RETURNS text LANGUAGE sql AS $$
  SELECT mako_spawn('mixed@FV2024-10-01', 'aaaaaaaa-0000-4000-8000-000000000001',
                    md5('mixed ' || i)::uuid) $$;
SELECT mako_append(s.spawn(i), 'mixed@FV2024-10-01', 'E', :'payload')
FROM generate_series(1, 3) AS i;
SELECT mako_migrate('mixed@FV2024-10-01', 'mixed@FV2025-10-01');
SELECT mako_append(s.spawn(i), 'mixed@FV2024-10-01', 'E', :'payload')
FROM generate_series(4, 6) AS i;
SELECT mako_take_snapshot(stream_id) FROM mako.stream WHERE workflow_id = 'mixed@FV2024-10-01';
SELECT mako_append(mako_spawn('failing@FV2028-10-01', :'tenant'), 'failing@FV2028-10-01', 'E',
                   '{}');
SELECT mako_migrate('gpke-supplier-change@FV2024-10-01', 'gpke-supplier-change@FV2025-10-01');
INSERT INTO s."Follower, Table" SELECT process_id, workflow_id FROM mako.stream;
ANALYZE;
\o

-- Starts a process for the procedures to move; each session has a tenant of its own.
CREATE FUNCTION s.tenant(n integer) RETURNS uuid
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT ('bbbbbbbb-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid $$;
CREATE FUNCTION s.start(n integer, i integer) RETURNS bigint
LANGUAGE sql SET search_path = m, pg_temp AS $$
  SELECT mako_append(mako_spawn('moved@FV2030-10-01', s.tenant(n),
                                overlay(s.tenant(n)::text PLACING i::text FROM 1 FOR 1)::uuid),
                     'moved@FV2030-10-01', 'E', '{"at": 1727733600, "a": 0.1, "x": "12"}') $$;

----------------------------------------------------------------------------------------------------
-- What is taken down
----------------------------------------------------------------------------------------------------

-- The rows of a query, a line each, or its error. Every name is qualified: the path is a setting,
-- too.
CREATE FUNCTION s.lines(query varchar) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  result pg_catalog.text;
  state pg_catalog.text; message pg_catalog.text; detail pg_catalog.text;
BEGIN
  EXECUTE pg_catalog.concat(
    'SELECT pg_catalog.string_agg(l.line, pg_catalog.chr(10) ORDER BY l.line COLLATE "C") '
    'FROM (SELECT pg_catalog.to_jsonb(q)::pg_catalog.text FROM (', query, ') q) l (line)')
  INTO result;
  RETURN result;
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS
    state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
  RETURN pg_catalog.concat_ws('|', state, message, detail);
END
$$;

-- The queries, and what is done before each of them. The context of an error ends with the
-- session's own statement, so only its first line is taken.
CREATE TABLE s.item (
  n integer GENERATED ALWAYS AS IDENTITY, what text NOT NULL, before text, query text NOT NULL);
INSERT INTO s.item (what, query)
SELECT 'fold ' || name,
       format('SELECT m.mako_fold(%L, %L)', name || '@FV2024-10-01', :'events')
FROM s.function ORDER BY name;
INSERT INTO s.item (what, before, query) VALUES
  ('registered', NULL,
   $$ SELECT w.workflow_id, w.apply, w.upcast, w.in_flight, w.initial_state, w.function_owner,
             w.fingerprint
      FROM m.mako_workflow w $$),
  ('registered again',
   $$ SELECT m.mako_register_workflow(
        'mixed@FV2025-10-01', 's.mixed', in_flight => 's.in_flight',
        initial_state => '{"d": "2024-10-01", "a": 0.1}', state_schema_version => 2);
      SELECT m.mako_register_migration('mixed@FV2024-10-01', 'mixed@FV2025-10-01', 's.step') $$,
   'SELECT pg_catalog.count(*) FROM m.mako_workflow'),
  ('registered anew',
   $$ SELECT m.mako_register_workflow(
        'new@FV2024-10-01', 's.mixed', in_flight => 's.in_flight', initial_state => '{}');
      SELECT m.mako_register_workflow(
        'new@FV2025-10-01', 's.domains', initial_state => '{"d": "2024-10-01", "a": 0.1}') $$,
   $$ SELECT w.workflow_id, w.apply, w.in_flight, w.initial_state, w.function_owner, w.fingerprint
      FROM m.mako_workflow w
      WHERE w.workflow_id::pg_catalog.text OPERATOR(pg_catalog.~) '^new' $$),
  ('fingerprint', NULL,
   $$ SELECT m.source_wf, m.target_wf, m.migrate, m.fingerprint AS kept,
             m.mako_fingerprint(m.source_wf, m.target_wf)
      FROM m.mako_state_migration m $$),
  ('version fingerprint', NULL,
   $$ SELECT m.mako_version_fingerprint('FV2025-10-01', 'FV2026-10-01') $$),
  ('explain', NULL,
   $$ SELECT f.name, e.*
      FROM s.function f,
           LATERAL m.mako_explain_function(pg_catalog.concat('s.', f.name, '(',
             CASE WHEN f.name OPERATOR(pg_catalog.=) 'domains' THEN 's.measured'
                  ELSE 'pg_catalog.jsonb' END,
             ', pg_catalog.text, pg_catalog.jsonb)')::pg_catalog.regprocedure) e $$),
  ('store problem', NULL, 'SELECT p.* FROM m.mako_store_problem() p'),
  ('created again', 'SELECT m.mako_create_store()',
   $$ SELECT t.tgname, t.oid FROM pg_catalog.pg_trigger t
      WHERE t.tgrelid OPERATOR(pg_catalog.=) ANY (
        '{mako.stream,mako.event,mako.snapshot,mako.repointed,mako.migration_run,
          mako.migration_error,mako.migration_batch,mako.format_version}'
        ::pg_catalog.regclass[]) $$),
  -- The larger examples take long, and the functions of the other forms say the same.
  ('check',
   $$ DELETE FROM m.mako_state_migration m
      WHERE m.source_wf::pg_catalog.text OPERATOR(pg_catalog.~) 'supplier|device';
      DELETE FROM m.mako_workflow w
      WHERE w.workflow_id::pg_catalog.text OPERATOR(pg_catalog.~) 'supplier|device|_' $$,
   'SELECT c.* FROM m.mako_check(5) WITH ORDINALITY c'),
  ('check of functions',
   $$ DELETE FROM m.mako_state_migration;
      DELETE FROM m.mako_workflow w
      WHERE w.workflow_id::pg_catalog.text OPERATOR(pg_catalog.!~) '^atomic|^domains' $$,
   'SELECT c.* FROM m.mako_check(0) WITH ORDINALITY c'),
  ('state', NULL,
   $$ SELECT s.stream_id,
             s.lines(pg_catalog.format('SELECT x.* FROM m.mako_state(%L) x', s.stream_id))
      FROM mako.stream s WHERE s.stream_no OPERATOR(pg_catalog.%) 4 OPERATOR(pg_catalog.=) 0 $$),
  ('resume', NULL,
   $$ SELECT s.stream_id, x.sequence_number, x.workflow_id, x.state, x.state_schema_version,
             x.event_type, x.payload
      FROM mako.stream s, LATERAL m.mako_resume(s.stream_id) x
      WHERE s.workflow_id OPERATOR(pg_catalog.~) '^mixed' $$),
  ('trace', NULL,
   $$ SELECT s.stream_id, x.*
      FROM mako.stream s, LATERAL m.mako_trace(s.stream_id) WITH ORDINALITY x
      WHERE s.workflow_id OPERATOR(pg_catalog.~) '^mixed' $$),
  ('history', NULL,
   $$ SELECT s.stream_id, x.kind, x.sequence_number, x.workflow_id, x.event_type, x.run_id,
             x.role, x.reason, x.ordinality
      FROM mako.stream s, LATERAL m.mako_history(s.stream_id) WITH ORDINALITY x
      WHERE s.workflow_id OPERATOR(pg_catalog.~) '^mixed' $$),
  ('verify', NULL,
   'SELECT r.run_id, v.* FROM mako.migration_run r, LATERAL m.mako_verify(r.run_id) v'),
  ('verify snapshots', NULL,
   $$ SELECT v.* FROM m.mako_verify_snapshots('mixed@FV2024-10-01') v $$),
  ('plan', NULL,
   $$ SELECT p.step, p.kind, p.source_wf, p.target_wf, p.function, p.evaluation, p.streams,
             p.in_flight, p.events, p.blockers, p.fingerprint
      FROM m.mako_state_migration m,
           LATERAL m.mako_plan(m.source_wf, m.target_wf) p
      WHERE m.target_wf::pg_catalog.text OPERATOR(pg_catalog.~) 'mixed|supplier-change@FV2026' $$),
  ('coverage', NULL,
   $$ SELECT c.*
      FROM pg_catalog.unnest(
             '{FV2024-10-01,FV2025-10-01,FV2026-10-01}'::m.mako_format_version[]) v,
           LATERAL m.mako_coverage(v) WITH ORDINALITY c $$),
  ('transitions', NULL,
   $$ SELECT t.* FROM m.mako_transitions('mixed@FV2024-10-01') WITH ORDINALITY t $$),
  ('transition rows', NULL,
   $$ SELECT t.*
      FROM m.mako_transition_rows('mixed@FV2024-10-01', 'status') WITH ORDINALITY t $$),
  ('diagram', 'SELECT m.mako_assert_store()',
   $$ SELECT m.mako_state_diagram('mixed@FV2024-10-01') $$),
  ('dry run', NULL,
   $$ SELECT m.source_wf,
             pg_catalog.to_jsonb(d)
               OPERATOR(pg_catalog.#-) '{error,context}'::pg_catalog.text[] AS row
      FROM m.mako_state_migration m,
           LATERAL m.mako_dry_run(m.source_wf, m.target_wf) WITH ORDINALITY d
      WHERE m.target_wf::pg_catalog.text OPERATOR(pg_catalog.~) 'mixed|failing|geli|wim' $$),
  ('dry run summary', NULL,
   $$ SELECT d.* FROM m.mako_dry_run_summary(
        'geli-gas-supplier-change@FV2025-10-01', 'geli-gas-supplier-change@FV2026-10-01')
        WITH ORDINALITY d $$),
  ('migrate state', NULL,
   $$ SELECT s.stream_id,
             m.mako_migrate_state('mixed@FV2024-10-01', 'mixed@FV2025-10-01', x.state)
      FROM mako.stream s, LATERAL m.mako_state(s.stream_id) x
      WHERE s.workflow_id OPERATOR(pg_catalog.~) '^mixed.*2024' $$),
  ('report', NULL,
   $$ SELECT r.source_wf, r.target_wf, r.migrated, r.skipped, r.failed,
             ARRAY(SELECT pg_catalog.to_jsonb(e) OPERATOR(pg_catalog.-) 'context'::pg_catalog.text
                   FROM pg_catalog.unnest(r.errors) e) AS errors
      FROM m.mako_migrate_version('FV2025-10-01', 'FV2026-10-01') WITH ORDINALITY r $$),
  ('report of mixed', NULL,
   $$ SELECT r.source_wf, r.target_wf, r.migrated, r.skipped, r.failed, r.errors,
             pg_catalog.split_part(m.mako_format(r), ' in ', 1) AS line
      FROM m.mako_migrate('mixed@FV2024-10-01', 'mixed@FV2025-10-01') r $$),
  ('run',
   $$ SELECT m.mako_migrate_version('FV2025-10-01', 'FV2026-10-01');
      SELECT m.mako_migrate('mixed@FV2024-10-01', 'mixed@FV2025-10-01');
      SELECT m.mako_migrate('failing@FV2028-10-01', 'failing@FV2029-10-01') $$,
   $$ SELECT r.kind, r.source_wf, r.path, r.fingerprint, r.definitions, r.session_role,
             r.effective_role, r.migrated, r.skipped, r.failed,
             ARRAY(SELECT pg_catalog.to_jsonb(x)
                   FROM (SELECT s.stream_id, n.sequence_number, n.workflow_id,
                                n.state_schema_version, n.state
                         FROM mako.snapshot n
                         JOIN mako.stream s ON s.stream_no OPERATOR(pg_catalog.=) n.stream_no
                         WHERE n.run_id OPERATOR(pg_catalog.=) r.run_id
                         ORDER BY s.stream_no) x) AS snapshots,
             ARRAY(SELECT pg_catalog.to_jsonb(x)
                   FROM (SELECT e.stream_id, e.phase, e.sequence_number, e.sqlstate, e.message,
                                e.detail, e.hint,
                                pg_catalog.split_part(e.context, pg_catalog.chr(10), 1) AS context
                         FROM mako.migration_error e
                         WHERE e.run_id OPERATOR(pg_catalog.=) r.run_id
                         ORDER BY e.error_no) x) AS errors
      FROM mako.migration_run r $$),
  ('follower', $$ SELECT m.mako_migrate('mixed@FV2024-10-01', 'mixed@FV2025-10-01') $$,
   'SELECT f.* FROM s."Follower, Table" f'),
  ('dependent',
   $$ SELECT m.mako_add_dependent('s.item', 'what', 'query');
      SELECT m.mako_remove_dependent('s."Follower, Table"', 'Process', 'Workflow, Id') $$,
   'SELECT d.* FROM mako.dependent d'),
  ('sink',
   $$ SELECT m.mako_add_sink('SELECT m.stream_id FROM moved m');
      SELECT m.mako_add_sink('SELECT m.state FROM moved m', 'SELECT 1',
                             'LOCK TABLE s.taken IN SHARE MODE');
      SELECT m.mako_add_sink('SELECT m.stream_id FROM moved m');
      SELECT m.mako_remove_sink(1) $$,
   $$ SELECT k.sink_no, k.statement, k.undo, k.lock, k.owner, k.owner_identity,
             k.removed_at IS NULL AS used
      FROM m.mako_sink k $$),
  -- A sink means the same under all settings, too; its own path is the session's.
  ('sink taking',
   format($$ SELECT m.mako_add_sink(pg_catalog.format(%1$L, 'taken'),
                                    pg_catalog.format(%1$L, 'taken back'),
                                    'LOCK TABLE s.taken IN SHARE ROW EXCLUSIVE MODE');
             SELECT m.mako_migrate('mixed@FV2024-10-01', 'mixed@FV2025-10-01');
             SELECT m.mako_revert(pg_catalog.max(r.run_id)) FROM mako.migration_run r $$,
          $$ INSERT INTO s.taken
             SELECT '%s', m.stream_id, m.source_wf, m.target_wf, m.sequence_number, m.state,
                    ARRAY['2024-10-01'::pg_catalog.timestamptz::pg_catalog.text,
                          '2024-02-03'::pg_catalog.date::pg_catalog.text,
                          '1 mon -1 day'::pg_catalog.interval::pg_catalog.text,
                          ('0.1'::pg_catalog.float8 OPERATOR(pg_catalog./) 3)::pg_catalog.text,
                          pg_catalog.to_char(1234.5, 'L9G999D9'), 'a\b',
                          pg_catalog.quote_ident('name'),
                          '{NULL}'::pg_catalog.text[]::pg_catalog.text]
             FROM moved m $$),
   'SELECT t.* FROM s.taken t'),
  ('reverted', NULL,
   $$ SELECT r.source_wf, r.target_wf, r.migrated, r.skipped, r.failed, r.errors
      FROM m.mako_revert(1) r $$),
  ('appended',
   format($$ SELECT m.mako_append(m.mako_spawn('mixed@FV2024-10-01', %1$L, %2$L),
                                               'mixed@FV2024-10-01', 'E', %4$L);
             SELECT m.mako_append_batch(%3$L, 'mixed@FV2024-10-01',
               ARRAY[ROW('E', %4$L, 1, NULL, NULL, NULL, NULL)]::m.mako_new_event[], 1);
             SELECT m.mako_take_snapshot(%3$L);
             SELECT m.mako_save_snapshot(%3$L, 1, 'mixed@FV2024-10-01', 1, '{}') $$,
          :'tenant', :'new', :'new_stream', :'payload'),
   format($$ SELECT l.*, x.*, m.mako_prune_snapshots(0),
                    (SELECT pg_catalog.count(*) FROM m.mako_load(l.stream_id)) AS events
             FROM m.mako_lookup(%L, %L) l, LATERAL m.mako_state(l.stream_id) x $$,
          :'tenant', :'new')),
  ('routed',
   format($$ SELECT m.mako_set_dispatch(
               'mixed@FV2024-10-01', 'explicit', '{FV2024-10-01,FV2020-10-01}');
             SELECT m.mako_register_key(%1$L, 'a key', %2$L, '2100-01-01 00:00+00');
             SELECT m.mako_register_key(%1$L, 'an old key', %2$L, '2000-01-01 00:00+00');
             SELECT m.mako_add_tag(%1$L, 'a tag', %2$L);
             SELECT m.mako_add_tag(%1$L, 'another', %2$L);
             SELECT m.mako_remove_tag(%1$L, 'another', %2$L);
             SELECT m.mako_unregister_key(%1$L, %3$L) $$, :'tenant', :'stream', :'process'),
   format($$ SELECT l.*, t.stream_id AS tagged, m.mako_expire_keys()
             FROM m.mako_lookup(%1$L, 'a key', 'FV2020-10-01') l,
                  m.mako_find_tag(%1$L, 'a tag') t $$, :'tenant')),
  ('decided',
   $$ SELECT m.mako_register_workflow('old@FV2020-10-01');
      SELECT m.mako_register_workflow('old@FV2021-10-01');
      SELECT m.mako_register_workflow('old@FV2022-10-01');
      SELECT m.mako_register_migrations('FV2020-10-01', 'FV2021-10-01', '{old}');
      SELECT m.mako_unregister_migration('old@FV2020-10-01', 'old@FV2021-10-01');
      SELECT m.mako_exempt('old@FV2020-10-01', 'a reason');
      SELECT m.mako_exempt('old@FV2021-10-01', 'another');
      SELECT m.mako_unexempt('old@FV2021-10-01');
      SELECT m.mako_unregister_workflow('old@FV2022-10-01');
      SELECT m.mako_retire('FV2020-10-01', 'a reason', '2100-01-01 00:00+00');
      SELECT m.mako_drain('FV2026-10-01', 'another');
      SELECT m.mako_retire('FV2021-10-01');
      SELECT m.mako_reactivate('FV2021-10-01', 'too early') $$,
   $$ SELECT v.format_version, v.status, v.reason, w.workflow_id, x.reason AS exempt,
             v.messages_until OPERATOR(pg_catalog.=) pg_catalog.to_timestamp(4102444800) AS until
      FROM mako.format_version v
      LEFT JOIN m.mako_workflow w ON w.workflow_id::pg_catalog.text
        OPERATOR(pg_catalog.=) pg_catalog.concat('old@', v.format_version)
      LEFT JOIN m.mako_exemption x ON x.workflow_id OPERATOR(pg_catalog.=) w.workflow_id $$),
  ('adopted',
   $$ ALTER TABLE mako.event DISABLE TRIGGER event_inserted;
      INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('imported', 'mixed@FV2024-10-01');
      INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
      SELECT s.stream_no, 1, 'mixed@FV2024-10-01', 'E', '{}'
      FROM mako.stream s WHERE s.stream_id OPERATOR(pg_catalog.=) 'imported';
      ALTER TABLE mako.event ENABLE TRIGGER event_inserted $$,
   'SELECT a.* FROM m.mako_adopt_events() a'),
  ('attached',
   $$ ALTER TABLE mako.event DISABLE TRIGGER event_guard;
      TRUNCATE mako.event;
      ALTER TABLE mako.event ENABLE TRIGGER event_guard;
      CREATE TABLE s.message (stream pg_catalog.text, place pg_catalog.int8, type pg_catalog.text, data pg_catalog.jsonb, PRIMARY KEY (stream, place));
      INSERT INTO s.message VALUES ('attached', 0, 'E', '{}');
      SELECT m.mako_attach_store('SELECT stream AS stream_id, place OPERATOR(pg_catalog.+) 1 AS sequence_number, type AS event_type,
        data AS payload FROM s.message', 'mixed@FV2024-10-01');
      INSERT INTO s.message VALUES ('attached', 1, 'E', '{}');
      SELECT m.mako_detach_store();
      INSERT INTO s.message VALUES ('attached', 2, 'E', '{}');
      SELECT m.mako_attach_store('SELECT stream AS stream_id, place OPERATOR(pg_catalog.+) 1 AS sequence_number, type AS event_type,
        data AS payload FROM s.message', 'mixed@FV2024-10-01', wait => false);
      UPDATE s.message SET type = 'F' WHERE place OPERATOR(pg_catalog.=) 0;
      DELETE FROM s.message WHERE place OPERATOR(pg_catalog.=) 2 $$,
   $$ SELECT m.mako_is_attached() AS is_attached, h.version, e.event_type, e.workflow_id
      FROM mako.stream h JOIN mako.event e ON e.stream_no OPERATOR(pg_catalog.=) h.stream_no
      WHERE h.stream_id OPERATOR(pg_catalog.=) 'attached' ORDER BY e.sequence_number $$),
  ('merged', NULL,
   $$ SELECT m.mako_is_ok(m.r), (m.mako_assert_ok(m.r)).migrated,
             pg_catalog.split_part(m.mako_format(m.r), ' in ', 1) AS line
      FROM (SELECT m.mako_merge(
                     ROW(r.run_id, r.source_wf, r.target_wf, r.migrated, r.skipped, 0, '{}', NULL,
                         NULL)
                     ::m.mako_migration_report)
            FROM mako.migration_run r) m (r) $$),
  ('values', NULL,
   $$ SELECT i.*, w.workflow_id, m.mako_is_valid(w.event_type_definition, i.instance),
             m.mako_workflow_name(w.workflow_id),
             m.mako_workflow_version(w.workflow_id),
             m.mako_assert_workflow_id(w.workflow_id::pg_catalog.text),
             m.mako_assert_format_version('FV2024-10-01'),
             m.mako_source_lock(w.workflow_id::pg_catalog.text),
             m.mako_merge_patch(w.initial_state, i.instance),
             ARRAY(SELECT v.schema_path
                   FROM m.mako_validate(w.event_type_definition, w.initial_state) v) AS wrong
      FROM m.mako_workflow w,
           LATERAL m.mako_instances(w.event_type_definition) WITH ORDINALITY i
      WHERE w.workflow_id::pg_catalog.text OPERATOR(pg_catalog.~) 'geli.*2025' $$),
  ('dates', NULL,
   $$ SELECT x.instance, m.mako_is_valid('{"type": "timestamp"}', x.instance)
      FROM (VALUES ('"2024-10-01T00:00:00Z"'::pg_catalog.jsonb), ('"2024-02-03 00:00"'),
                   ('"03/02/2024"'), ('"now"'), ('"2024-10-01T00:00:60+02:00"')) x (instance) $$),
  ('required', NULL, $$ SELECT m.mako_required('{"a": {"b": 1}}', 'a', 'b') $$),
  ('refused', NULL,
   $$ SELECT s.lines('SELECT m.mako_required(''{"a": {"b": 1}}'', ''a'', ''c c'')') AS missing,
             s.lines('SELECT m.mako_reject(''no'')') AS no,
             s.lines('SELECT m.mako_stream_of(NULL, ''a stream'')') AS nowhere,
             s.lines('SELECT m.mako_history_rows(''a stream'')') AS history_rows,
             s.lines('SELECT m.mako_store_finding_rows()') AS finding_rows,
             s.lines('SELECT m.mako_assert_delegated()') AS delegated $$),
  ('parts', NULL,
   $$ SELECT 'step', f.subject, f.message, f.hint
      FROM m.mako_step_finding('{FV2024-10-01}') f
      UNION ALL
      SELECT 'store', f.subject, f.message, f.hint FROM m.mako_store_finding() f
      UNION ALL
      SELECT o.kind, o.name, o.relation, o.definition FROM m.mako_store_object() o $$),
  ('trusted',
   'SELECT m.mako_advance_sequences(); SELECT m.mako_grant_triggers()',
   $$ SELECT c.relation, c.name, c.type::pg_catalog.oid, c.not_null, c.problem, c.relation_problem,
             m.mako_store_layout() AS layout, m.mako_open_schema() AS open,
             ARRAY(SELECT q.problem FROM m.mako_sequence_problem() q) AS sequences,
             d.sqlstate, d.problem AS dependent, d.hint, d.process_type
      FROM m.mako_store_column() c,
           m.mako_dependent_problem(m.mako_remembered_relation('s.item', ''), 'what', 'query', NULL) d $$),
  ('progress',
   $$ SET LOCAL session_replication_role = replica;
      INSERT INTO mako.migration_run (kind, source_wf, target_wf, path, update_registry,
        in_flight_only, fingerprint, definitions, extension_version, started_at,
        through_stream_no, migrated, failed)
      VALUES ('batched', 'mixed@FV2024-10-01', 'mixed@FV2025-10-01', '{}', true,
              false, '', '{}', '', '2024-10-01 00:00+00', 1000, 1, 2) $$,
   $$ SELECT p.kind, p.source_wf, p.target_wf, p.done, p.total, p.failed
      FROM m.mako_current_progress() p $$);

-- Takes down the items that are called so; what they do is undone.
CREATE FUNCTION s.observe(pattern varchar) RETURNS TABLE (what text, result text)
LANGUAGE plpgsql AS $$
DECLARE
  item s.item;
  state pg_catalog.text; message pg_catalog.text; detail pg_catalog.text;
BEGIN
  FOR item IN
    SELECT i.* FROM s.item i
    WHERE i.what OPERATOR(pg_catalog.~) pattern::pg_catalog.text ORDER BY i.n
  LOOP
    what := item.what;
    BEGIN
      IF item.before IS NOT NULL THEN
        EXECUTE item.before;
      END IF;
      result := s.lines(item.query);
      RAISE EXCEPTION USING ERRCODE = 'MKTST';
    EXCEPTION WHEN SQLSTATE 'MKTST' THEN
      NULL;
    WHEN OTHERS THEN
      GET STACKED DIAGNOSTICS
        state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
      result := pg_catalog.concat_ws('|', state, message, detail);
    END;
    RETURN NEXT;
  END LOOP;
END
$$;

----------------------------------------------------------------------------------------------------
-- A session for each setting
----------------------------------------------------------------------------------------------------

CREATE TABLE s.seen (n integer NOT NULL, what text NOT NULL, result text);
CREATE TABLE s.early (setting text NOT NULL, name text NOT NULL, result jsonb);
\set kept '^fold (plpgsql_|mixed|domains)'
\set script `mktemp`
\o :script
SELECT format($$
\connect
SET client_min_messages = error;
%s;
INSERT INTO s.seen SELECT %s, o.* FROM s.observe(%L) o;
RESET ALL;
SET client_min_messages = error;
INSERT INTO s.seen
SELECT %2$s, pg_catalog.concat('afterwards ', o.what), o.result FROM s.observe(%4$L) o;
$$, command, n, items, CASE items WHEN '' THEN :'kept' ELSE '^fold (mixed|domains)' END)
FROM s.setting ORDER BY n;
-- Where PL/pgSQL is not loaded yet, its settings are names without a meaning, until a function is
-- called.
SELECT format($$
\connect
SET client_min_messages = error;
%s;
INSERT INTO s.early SELECT %L, %L, m.mako_fold('%3$s@FV2024-10-01', %L);
INSERT INTO s.early SELECT %2$L, pg_catalog.unnest(ARRAY[
  pg_catalog.current_setting('plpgsql.check_asserts'),
  pg_catalog.current_setting('plpgsql.extra_errors'),
  pg_catalog.current_setting('plpgsql.print_strict_params'),
  pg_catalog.current_setting('plpgsql.variable_conflict')]), NULL;
$$, command, what, name, :'events')
FROM (VALUES
  ('default', 'RESET ALL'),
  ('set', 'SET plpgsql.check_asserts = off; SET plpgsql.extra_errors = ''too_many_rows'';
SET plpgsql.print_strict_params = on; SET plpgsql.variable_conflict = use_column')
) AS v (what, command), s.function
WHERE name IN ('plpgsql_assert', 'plpgsql_strict', 'plpgsql_ambiguous', 'plpgsql_many');
-- The procedures commit, so they come last.
SELECT format($$
\connect
SET client_min_messages = error;
%s;
SELECT s.start(%s, 1), s.start(%2$s, 2);
CALL m.mako_migrate_batched('moved@FV2030-10-01', 'moved@FV2031-10-01', 1, tenant_id => %3$L);
SELECT s.start(%2$s, 3);
CALL m.mako_migrate_version_batched('FV2030-10-01', 'FV2031-10-01', 1, tenant_id => %3$L);
INSERT INTO s.seen SELECT %2$s, 'batched', s.lines('
  SELECT pg_catalog.substr(s.process_id::pg_catalog.text, 1, 1) AS process, n.sequence_number, x.*
  FROM mako.stream s JOIN mako.snapshot n ON n.stream_no OPERATOR(pg_catalog.=) s.stream_no,
       LATERAL m.mako_state(s.stream_id) x
  WHERE s.tenant_id OPERATOR(pg_catalog.=) s.tenant(%2$s) AND n.run_id OPERATOR(pg_catalog.>) 0');
$$, command, n, s.tenant(n))
FROM s.setting WHERE items = '' ORDER BY n;
-- An error is a test that fails, not the end.
\set ON_ERROR_STOP off
\o /dev/null
\i :script
\o
\set ON_ERROR_STOP on
\set script `rm :script`

----------------------------------------------------------------------------------------------------
-- What differs
----------------------------------------------------------------------------------------------------

\connect
SET search_path = public, m;

-- Where two texts part.
CREATE FUNCTION s.difference(a text, b text) RETURNS text LANGUAGE sql AS $$
  SELECT format('…%s… <> …%s…', substr(a, n, 120), substr(b, n, 120))
  FROM (SELECT greatest(min(i) - 40, 1) FROM generate_series(1, greatest(length(a), length(b))) AS i
        WHERE substr(a, i, 1) IS DISTINCT FROM substr(b, i, 1)) AS p (n) $$;
CREATE VIEW s.wanted AS SELECT what, result FROM s.seen WHERE n = 0;

SELECT plan(count(*)::int + 5) FROM s.setting;
SELECT results_eq(
  $$ SELECT count(*), count(*) FILTER (WHERE result ~ '^[0-9A-Z]{5}[|]') FROM s.wanted $$,
  $$ SELECT count(*) + count(*) FILTER (WHERE what ~ '^fold (plpgsql_|mixed|domains)') + 1, 0::bigint
     FROM s.item $$,
  'by default, nothing raises');
SELECT is_empty(
  $$ SELECT p.proname
     FROM pg_depend d JOIN pg_proc p ON p.oid = d.objid
     WHERE d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'mako_migration')
       AND d.classid = 'pg_proc'::regclass AND p.prorettype <> 'trigger'::regtype
       AND p.prokind <> 'p'
       -- Steps of attaching cannot be called.
       AND p.proname !~ '^mako_create_rows$|^mako_attach_(rows|heads|again)$|^mako_attached_|^mako_detach_rows$|^mako_replace_event$'
       AND NOT EXISTS (SELECT FROM s.item
                       WHERE concat(before, query) ~ ('\m' || proname || '\M')) $$,
  'every function is called');
SELECT cmp_ok(count(*), '>', 80::bigint, 'there are settings enough') FROM s.setting;

SELECT is_empty(
  format($$ SELECT w.what, s.difference(w.result, s.result)
            FROM s.wanted w LEFT JOIN s.seen s ON s.what = w.what AND s.n = %s
            WHERE (%L = '' OR (w.what ~ %2$L AND w.what !~ '^(afterwards|batched)'))
              AND s.result IS DISTINCT FROM w.result $$, n, items),
  CASE WHEN length(command) < 100 THEN command ELSE 'many of them' END)
FROM s.setting WHERE n > 0 ORDER BY n;

SELECT set_eq(
  $$ SELECT name, result FROM s.early WHERE setting = 'set' AND result IS NOT NULL $$,
  $$ SELECT name, result FROM s.early WHERE setting = 'default' AND result IS NOT NULL $$,
  'settings of PL/pgSQL, before it is loaded');
SELECT set_eq(
  $$ SELECT setting, name FROM s.early WHERE result IS NULL $$,
  $$ VALUES ('default', 'on'), ('default', 'none'), ('default', 'off'), ('default', 'error'),
            ('set', 'off'), ('set', 'too_many_rows'), ('set', 'on'), ('set', 'use_column') $$,
  'they are put back');

-- Where triggers do not fire, nothing is appended that the head would not know of.
SET session_replication_role = replica;
SELECT is((SELECT result FROM s.observe('^appended$')),
          format('55000|the trigger "event_inserted" of table "mako.event" did not fire|'
                 'The head of stream "%s" would not advance.', :'new_stream'),
          'SET session_replication_role = replica: appending is refused');
SELECT * FROM finish();
