-- The same states, fingerprints and reports, whatever the settings of the session are.
--
-- Each setting gets a session of its own. There, what the extension says about the examples, golden streams and functions that depend
-- on settings on purpose is taken down: under the setting, then under the defaults again, and under the setting once more, because
-- plans and definitions are kept. All of it must be, byte for byte, what a session with defaults says.
--
-- Runs in an empty database, from the root of the project.

\set ECHO none
SET client_min_messages = warning;
CREATE SCHEMA mako_migration;
CREATE EXTENSION mako_migration SCHEMA mako_migration;
CREATE EXTENSION pgtap;
SET search_path = public, mako_migration;

----------------------------------------------------------------------------------------------------
-- The settings
----------------------------------------------------------------------------------------------------

CREATE SCHEMA s;
LOAD 'plpgsql';

-- prepare is what the session does before, items which of the things below are taken down: here all of them. The first setting is none.
CREATE TABLE s.setting (n integer GENERATED ALWAYS AS IDENTITY (START WITH 0 MINVALUE 0), name text NOT NULL, value text NOT NULL, prepare text,
                        items text NOT NULL DEFAULT '');
INSERT INTO s.setting (name, value, prepare) VALUES
  ('application_name', 'settings', NULL),
  -- What dates, times and intervals look like, and mean.
  ('TimeZone', 'UTC', NULL),
  ('TimeZone', 'Europe/Berlin', NULL),
  ('TimeZone', 'Asia/Kathmandu', NULL),
  ('TimeZone', '<-03>3', NULL),
  ('timezone_abbreviations', 'India', NULL),
  ('timezone_abbreviations', 'Australia', NULL),
  ('DateStyle', 'ISO, DMY', NULL),
  ('DateStyle', 'ISO, YMD', NULL),
  ('DateStyle', 'SQL, DMY', NULL),
  ('DateStyle', 'SQL, MDY', NULL),
  ('DateStyle', 'German', NULL),
  ('DateStyle', 'Postgres, MDY', NULL),
  ('IntervalStyle', 'postgres', NULL),
  ('IntervalStyle', 'postgres_verbose', NULL),
  ('IntervalStyle', 'sql_standard', NULL),
  ('IntervalStyle', 'iso_8601', NULL),
  -- What other values look like.
  ('extra_float_digits', '-15', NULL),
  ('extra_float_digits', '0', NULL),
  ('extra_float_digits', '3', NULL),
  ('bytea_output', 'escape', NULL),
  ('xmlbinary', 'hex', NULL),
  ('xmloption', 'document', NULL),
  ('array_nulls', 'off', NULL),
  ('lc_messages', 'de_DE.UTF-8', NULL),
  ('lc_monetary', 'C.UTF-8', NULL),
  ('lc_monetary', 'de_DE.UTF-8', NULL),
  ('lc_numeric', 'C.UTF-8', NULL),
  ('lc_numeric', 'de_DE.UTF-8', NULL),
  ('lc_time', 'C.UTF-8', NULL),
  ('lc_time', 'de_DE.UTF-8', NULL),
  ('client_encoding', 'LATIN1', NULL),
  ('default_text_search_config', 'pg_catalog.simple', NULL),
  ('default_text_search_config', 'pg_catalog.german', NULL),
  -- How statements are read, and what they mean.
  ('standard_conforming_strings', 'off', NULL),
  ('backslash_quote', 'on', NULL),
  ('backslash_quote', 'off', NULL),
  ('escape_string_warning', 'off', NULL),
  ('quote_all_identifiers', 'on', NULL),
  ('transform_null_equals', 'on', NULL),
  ('operator_precedence_warning', 'on', NULL),
  ('check_function_bodies', 'off', NULL),
  ('search_path', '', NULL),
  ('search_path', 'public', NULL),
  ('search_path', 'mako_migration, pg_catalog, pg_temp', NULL),
  ('search_path', 'pg_catalog, mako_migration, pg_temp', NULL),
  ('search_path', 'evil, public, pg_catalog', NULL),
  ('search_path', 'evil, pg_catalog, mako_migration', NULL),
  ('search_path', 'pg_temp, evil, pg_catalog, mako_migration',
   'CREATE DOMAIN pg_temp.text AS pg_catalog.text CHECK (false); CREATE DOMAIN pg_temp.jsonb AS pg_catalog.jsonb CHECK (false); '
   'CREATE TEMPORARY TABLE pg_class (); CREATE TEMPORARY TABLE stream (); CREATE TEMPORARY TABLE mako_workflow ()'),
  ('restrict_nonsystem_relation_kind', 'view, foreign-table', NULL),
  ('row_security', 'off', NULL),
  ('plpgsql.check_asserts', 'off', 'LOAD ''plpgsql'''),
  ('plpgsql.extra_errors', 'all', 'LOAD ''plpgsql'''),
  ('plpgsql.print_strict_params', 'on', 'LOAD ''plpgsql'''),
  ('plpgsql.variable_conflict', 'use_column', 'LOAD ''plpgsql'''),
  ('plpgsql.variable_conflict', 'use_variable', 'LOAD ''plpgsql'''),
  -- What new tables are like.
  ('default_table_access_method', 'another_heap', NULL),
  ('default_tablespace', 'pg_default', NULL),
  ('default_toast_compression', 'lz4', NULL),
  -- Transactions.
  ('default_transaction_isolation', 'serializable', NULL),
  ('default_transaction_isolation', 'repeatable read', NULL),
  ('default_transaction_deferrable', 'on', NULL),
  ('synchronous_commit', 'off', NULL),
  ('session_replication_role', 'local', NULL),
  ('event_triggers', 'off', NULL);
-- What the planner chooses, and how it is executed: nothing of the functions themselves.
ALTER TABLE s.setting ALTER items SET DEFAULT '^(?!fold (sql|plpgsql|atomic)_|explain|check of functions|values)';
INSERT INTO s.setting (name, value, prepare) VALUES
  ('constraint_exclusion', 'on', NULL),
  ('constraint_exclusion', 'off', NULL),
  ('cpu_operator_cost', '1000', NULL),
  ('cpu_tuple_cost', '1000', NULL),
  ('cursor_tuple_fraction', '1', NULL),
  ('default_statistics_target', '1', NULL),
  ('effective_cache_size', '8kB', NULL),
  ('enable_bitmapscan', 'off', NULL),
  ('enable_distinct_reordering', 'off', NULL),
  ('enable_gathermerge', 'off', NULL),
  ('enable_group_by_reordering', 'off', NULL),
  ('enable_hashagg', 'off', NULL),
  ('enable_hashjoin', 'off', NULL),
  ('enable_incremental_sort', 'off', NULL),
  ('enable_indexonlyscan', 'off', NULL),
  ('enable_indexscan', 'off', NULL),
  ('enable_material', 'off', NULL),
  ('enable_memoize', 'off', NULL),
  ('enable_mergejoin', 'off', NULL),
  ('enable_nestloop', 'off', NULL),
  ('enable_parallel_append', 'off', NULL),
  ('enable_parallel_hash', 'off', NULL),
  ('enable_partition_pruning', 'off', NULL),
  ('enable_partitionwise_aggregate', 'on', NULL),
  ('enable_partitionwise_join', 'on', NULL),
  ('enable_presorted_aggregate', 'off', NULL),
  ('enable_self_join_elimination', 'off', NULL),
  ('enable_seqscan', 'off', NULL),
  ('enable_sort', 'off', NULL),
  ('enable_tidscan', 'off', NULL),
  ('from_collapse_limit', '1', NULL),
  ('join_collapse_limit', '1', NULL),
  ('geqo', 'off', NULL),
  ('geqo_threshold', '2', NULL),
  ('geqo_seed', '0.5', 'SET geqo_threshold = 2'),
  ('hash_mem_multiplier', '1', NULL),
  ('work_mem', '64kB', NULL),
  ('work_mem', '1GB', NULL),
  ('plan_cache_mode', 'force_custom_plan', NULL),
  ('plan_cache_mode', 'force_generic_plan', NULL),
  ('random_page_cost', '1000', NULL),
  ('seq_page_cost', '1000', NULL),
  ('recursive_worktable_factor', '1000', NULL),
  ('synchronize_seqscans', 'off', NULL),
  ('jit', 'off', NULL),
  ('jit_above_cost', '10000', 'SET jit = on; SET jit_optimize_above_cost = -1; SET jit_inline_above_cost = -1'),
  ('force_parallel_mode', 'regress', NULL),
  ('debug_parallel_query', 'regress', NULL),
  ('min_parallel_table_scan_size', '0', 'SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_index_scan_size = 0'),
  ('max_parallel_workers_per_gather', '0', NULL),
  ('parallel_leader_participation', 'off', 'SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0'),
  ('stats_fetch_consistency', 'snapshot', NULL),
  ('composite_type_mismatch', 'disabled', NULL),
  ('track_functions', 'all', NULL),
  ('track_activities', 'off', NULL),
  ('compute_query_id', 'on', NULL),
  ('log_error_verbosity', 'verbose', NULL),
  -- Times after which something ends, which is none of these.
  ('statement_timeout', '1h', NULL),
  ('lock_timeout', '1h', NULL),
  ('transaction_timeout', '1h', NULL),
  ('idle_in_transaction_session_timeout', '1h', NULL),
  ('client_connection_check_interval', '1s', NULL),
  ('client_min_messages', 'error', NULL),
  ('application_name', '%s '' "x" \', NULL);
-- Triggers that do not fire: a migration needs none. Appending does, see below.
ALTER TABLE s.setting ALTER items SET DEFAULT '^(fold mixed|store problem|created again|check|state|verify|plan|dry run|report|report of mixed|run|reverted)$';
INSERT INTO s.setting (name, value) VALUES ('session_replication_role', 'replica');
-- Many at once.
ALTER TABLE s.setting ALTER items SET DEFAULT '';
INSERT INTO s.setting (name, value, prepare) VALUES
  ('TimeZone', 'Pacific/Chatham',
   'SET DateStyle = German; SET IntervalStyle = sql_standard; SET extra_float_digits = -15; SET bytea_output = escape; SET xmloption = document; '
   'SET array_nulls = off; SET transform_null_equals = on; SET quote_all_identifiers = on; SET default_text_search_config = german; '
   'SET backslash_quote = off; SET timezone_abbreviations = India; SET standard_conforming_strings = off; SET search_path = evil');

-- Not every version knows each of them, and not every machine has each locale.
DELETE FROM s.setting WHERE name NOT IN (SELECT p.name FROM pg_settings p);
DO $$
DECLARE
  chosen s.setting;
BEGIN
  FOR chosen IN SELECT * FROM s.setting WHERE name LIKE 'lc%' OR name = 'default_toast_compression' LOOP
    BEGIN
      PERFORM set_config(chosen.name, chosen.value, true);
    EXCEPTION WHEN invalid_parameter_value THEN
      DELETE FROM s.setting c WHERE c.n = chosen.n;
    END;
  END LOOP;
END
$$;

CREATE ACCESS METHOD another_heap TYPE TABLE HANDLER heap_tableam_handler;

-- A schema with a name for everything of the server's that is not polymorphic, and for some of the extension's.
CREATE SCHEMA evil;
DO $$
DECLARE
  types constant regtype[] := '{bool,int4,int8,float8,text,name,jsonb,uuid,timestamptz,interval,oid,regclass,text[],int8[],name[]}';
  command text;
BEGIN
  FOR command IN
    SELECT format('CREATE FUNCTION evil.%I(%s) RETURNS %s LANGUAGE plpgsql AS ''BEGIN RAISE EXCEPTION $x$captured %1$s$x$; END''',
                  proname, oidvectortypes(proargtypes), prorettype::regtype)
    FROM pg_proc
    WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind = 'f' AND NOT proretset AND pronargs BETWEEN 1 AND 3 AND provariadic = 0
      AND prorettype::regtype = ANY (types) AND proargtypes::regtype[] <@ types
    UNION ALL
    SELECT format('CREATE FUNCTION evil.%I(jsonb) RETURNS jsonb LANGUAGE plpgsql AS ''BEGIN RAISE EXCEPTION $x$captured %1$s$x$; END''', name)
    FROM unnest('{mako_reject,mako_required,mako_fold}'::text[]) AS name
    UNION ALL
    SELECT format('CREATE FUNCTION evil.captured_%5$s(%1$s, %2$s) RETURNS %3$s LANGUAGE plpgsql AS ''BEGIN RAISE EXCEPTION $x$captured %4$s$x$; END''; '
                  'CREATE OPERATOR evil.%4$s (LEFTARG = %1$s, RIGHTARG = %2$s, FUNCTION = evil.captured_%5$s)',
                  oprleft::regtype, oprright::regtype, oprresult::regtype, replace(oprname, '%', '%%'), oid)
    FROM pg_operator
    WHERE oprleft::regtype = ANY (types) AND oprright::regtype = ANY (types) AND oprresult::regtype = ANY (types)
    UNION ALL
    SELECT format('CREATE DOMAIN evil.%I AS pg_catalog.%1$I CHECK (false)', name) FROM unnest('{text,jsonb,uuid,timestamptz,name,oid,regclass}'::text[]) AS name
  LOOP
    EXECUTE command;
  END LOOP;
END
$$;
CREATE TABLE evil.pg_class ();

----------------------------------------------------------------------------------------------------
-- Functions that depend on settings
----------------------------------------------------------------------------------------------------

-- The instant 1727733600 is midnight of October 1st, 2024 in Berlin, and September 30th, 22 h in UTC.
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
  ('day_of', $$ date_trunc('day', to_timestamp((payload->>'at')::float8)) = to_timestamp((payload->>'at')::float8) $$),
  ('hour', $$ extract(hour FROM to_timestamp((payload->>'at')::float8)) $$),
  ('made', $$ extract(epoch FROM make_timestamptz(2024, 10, 1, 0, 0, 0)) $$),
  ('tomorrow', $$ extract(epoch FROM to_timestamp(1729980000) + interval '1 day') $$),
  ('days', $$ (SELECT jsonb_agg(extract(epoch FROM d) ORDER BY d) FROM generate_series(to_timestamp(1729893600), to_timestamp(1730152800), '1 day') AS d) $$),
  ('age', $$ age(to_timestamp(1730152800), to_timestamp((payload->>'at')::float8)) $$),
  ('clock', $$ '12:00'::timetz $$),
  ('path', $$ jsonb_path_exists_tz('"2024-09-30T23:00:00"', '$.datetime() ? (@ < "2024-09-30T22:30:00+00".datetime())') $$),
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
  ('class', $$ 'pg_catalog.pg_class'::regclass::text || 'int4'::regtype::text || 'pg_catalog.now()'::regprocedure::text $$),
  ('words', $$ to_tsvector('the running dogs')::text || to_tsquery('dogs')::text $$),
  ('xml', $$ '<a/><b/>'::xml::text $$),
  ('xml_bytes', $$ xmlelement(NAME x, '\x00ff'::bytea)::text $$),
  ('name', $$ upper(payload->>'s') $$),
  ('cast', $$ coalesce((payload->'s')::jsonb, '{"s": 1}') $$);

-- Calls of all of them, in SQL, which is inlined, in PL/pgSQL, and read when the function is created.
CREATE TABLE s.function (name text PRIMARY KEY);
DO $$
DECLARE
  e s.expression;
  form record;
BEGIN
  FOR e IN SELECT * FROM s.expression LOOP
    FOR form IN
      SELECT * FROM (VALUES
        ('sql', $f$ LANGUAGE sql STABLE AS %2$L $f$, 'SELECT %s', 0),
        ('plpgsql', $f$ LANGUAGE plpgsql STABLE AS %2$L $f$, 'BEGIN RETURN %s; END', 0),
        ('atomic', $f$ LANGUAGE sql STABLE BEGIN ATOMIC %2$s; END $f$, 'SELECT %s', 140000)) AS f (name, clause, body, since)
      WHERE since <= current_setting('server_version_num')::int
    LOOP
      EXECUTE format('CREATE FUNCTION s.%1$I(state jsonb, event_type text, payload jsonb) RETURNS jsonb' || form.clause,
                     form.name || '_' || e.name, format(form.body, format('state || jsonb_build_object(''x'', %s)', e.expression)));
      INSERT INTO s.function VALUES (form.name || '_' || e.name);
    END LOOP;
  END LOOP;
END
$$;

-- What PL/pgSQL's own settings change.
CREATE FUNCTION s.plpgsql_assert(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
  ASSERT payload IS NULL;
  RETURN '{"passed": true}';
EXCEPTION WHEN assert_failure THEN
  RETURN '{"passed": false}';
END
$$;
CREATE FUNCTION s.plpgsql_strict(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
DECLARE
  one text; detail text;
BEGIN
  SELECT k INTO STRICT one FROM jsonb_object_keys(payload) AS k WHERE k = event_type;
EXCEPTION WHEN no_data_found THEN
  GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
  RETURN jsonb_build_object('detail', detail);
END
$$;
CREATE FUNCTION s.plpgsql_ambiguous(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
  RETURN (SELECT jsonb_build_object('event_type', event_type) FROM (VALUES ('column')) AS v (event_type));
EXCEPTION WHEN ambiguous_column THEN
  RETURN '{"event_type": null}';
END
$$;
INSERT INTO s.function VALUES ('plpgsql_assert'), ('plpgsql_strict'), ('plpgsql_ambiguous');

-- Domains whose checks hold constants.
CREATE DOMAIN s.dated AS jsonb CHECK ((VALUE->>'d')::timestamptz > timestamptz '2000-01-01 00:00+00');
CREATE DOMAIN s.measured AS s.dated CHECK ((VALUE->>'a')::float8 < '0.30000000000000004'::float8 AND VALUE->>'s' <> E'\\x41' AND interval '1 mon -1 day' > '0');
CREATE FUNCTION s.domains(state s.measured, event_type text, payload jsonb) RETURNS s.measured LANGUAGE sql STABLE AS $$ SELECT state || payload $$;
INSERT INTO s.function VALUES ('domains');

-- One that calls many of them, and a step that calls some.
CREATE FUNCTION s.mixed(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT jsonb_build_object('status', coalesce(state->>'status', 'open') || '+',
    'a', s.sql_cut('{}', event_type, payload), 'b', s.plpgsql_cut('{}', event_type, payload), 'c', s.sql_instant('{}', event_type, payload),
    'd', s.plpgsql_late('{}', event_type, payload), 'e', s.sql_interval('{}', event_type, payload), 'f', s.plpgsql_third('{}', event_type, payload),
    'g', s.sql_hash('{}', event_type, payload), 'h', s.sql_pattern('{}', event_type, payload), 'i', s.plpgsql_pattern('{}', event_type, payload),
    'j', s.sql_nulls('{}', event_type, payload), 'k', s.plpgsql_identifier('{}', event_type, payload)) $$;
CREATE FUNCTION s.step(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT s.sql_typed(state, '', '{"at": 1727733600}') || jsonb_build_object('y', s.plpgsql_days('{}', '', '{}'), 'z', (state#>>'{c,x}')::timestamptz) $$;
CREATE FUNCTION s.in_flight(state jsonb) RETURNS boolean LANGUAGE sql STABLE AS $$ SELECT (state#>>'{c,x}')::timestamptz > '2024-09-30 23:00' $$;
INSERT INTO s.function VALUES ('mixed');

----------------------------------------------------------------------------------------------------
-- Definitions and streams
----------------------------------------------------------------------------------------------------

\set initial_state '{"d": "2024-10-01", "a": 0.1}'
\set payload '{"at": 1727733600, "a": 0.1, "x": "12", "d": "2024-09-30T23:00:00", "o": "02/03/04", "s": "a\\\\b"}'

\set tenant aaaaaaaa-0000-4000-8000-000000000001
SELECT jsonb_build_array(jsonb_build_object('event_type', 'E', 'payload', :'payload'::jsonb)) AS events,
       md5('mixed 4')::uuid AS process, 'process/' || :'tenant' || '/' || md5('mixed 4')::uuid AS stream \gset

\o /dev/null
SELECT mako_create_store();
\ir ../examples/register.sql
\ir ../examples/generator/choose.sql
\ir ../examples/generator/load.sql
\set golden_streams 60
\ir ../golden/load.sql
SELECT generator.choose('settings', 60, poison_rate => 0.1);
SELECT generator.load('settings');

SELECT mako_register_workflow(name || '@FV2024-10-01', 's.' || name, initial_state => :'initial_state') FROM s.function;
SELECT mako_register_workflow('mixed@FV2024-10-01', 's.mixed', in_flight => 's.in_flight', initial_state => :'initial_state', replace => true);
SELECT mako_register_workflow('mixed@FV2025-10-01', 's.mixed', in_flight => 's.in_flight', initial_state => :'initial_state', state_schema_version => 2);
SELECT mako_register_migration('mixed@FV2024-10-01', 'mixed@FV2025-10-01', 's.step');

CREATE TABLE s."Follower, Table" ("Process" uuid, "Workflow, Id" text);
SELECT mako_add_dependent('s."Follower, Table"', 'Process', 'Workflow, Id');

-- Three streams that have moved, and three that are to move.
CREATE FUNCTION s.spawn(i integer) RETURNS text LANGUAGE sql AS $$
  SELECT mako_spawn('mixed@FV2024-10-01', 'aaaaaaaa-0000-4000-8000-000000000001', md5('mixed ' || i)::uuid) $$;
SELECT mako_append(s.spawn(i), 'mixed@FV2024-10-01', 'E', :'payload') FROM generate_series(1, 3) AS i;
SELECT mako_migrate('mixed@FV2024-10-01', 'mixed@FV2025-10-01');
SELECT mako_append(s.spawn(i), 'mixed@FV2024-10-01', 'E', :'payload') FROM generate_series(4, 6) AS i;
SELECT mako_take_snapshot(stream_id) FROM mako.stream WHERE workflow_id = 'mixed@FV2024-10-01';
SELECT mako_migrate('gpke-supplier-change@FV2024-10-01', 'gpke-supplier-change@FV2025-10-01');

-- One that fails, with an error of the server's.
CREATE FUNCTION s.fail(state jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN jsonb_build_object('x', 1 / (state->>'n')::int); END $$;
SELECT mako_register_workflow('failing@' || version, 's.sql_zone', initial_state => '{"n": 0}') FROM unnest('{FV2028-10-01,FV2029-10-01}'::text[]) AS version;
SELECT mako_register_migration('failing@FV2028-10-01', 'failing@FV2029-10-01', 's.fail');
SELECT mako_append(mako_spawn('failing@FV2028-10-01', :'tenant'), 'failing@FV2028-10-01', 'E', '{}');

-- Streams that the procedures are to move.
SELECT mako_register_workflow('moved@FV2030-10-01', 's.mixed', in_flight => 's.in_flight', initial_state => :'initial_state');
SELECT mako_register_workflow('moved@FV2031-10-01', 's.mixed', in_flight => 's.in_flight', initial_state => :'initial_state', state_schema_version => 2);
SELECT mako_register_migration('moved@FV2030-10-01', 'moved@FV2031-10-01', 's.step');
CREATE FUNCTION s.tenant(n integer) RETURNS uuid LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$ SELECT ('bbbbbbbb-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid $$;
CREATE FUNCTION s.start(n integer, i integer) RETURNS bigint LANGUAGE sql SET search_path = mako_migration, pg_temp AS $$
  SELECT mako_append(mako_spawn('moved@FV2030-10-01', s.tenant(n), s.tenant(i)), 'moved@FV2030-10-01', 'E',
                     '{"at": 1727733600, "a": 0.1, "x": "12", "d": "2024-09-30T23:00:00"}') $$;

INSERT INTO s."Follower, Table" SELECT process_id, workflow_id FROM mako.stream;
ANALYZE;
\o

----------------------------------------------------------------------------------------------------
-- What is taken down
----------------------------------------------------------------------------------------------------

-- The rows of a query, a line each, or its error. Every name is qualified, because the path is a setting, too.
CREATE FUNCTION s.lines(query varchar) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  result pg_catalog.text;
  state pg_catalog.text; message pg_catalog.text; detail pg_catalog.text;
BEGIN
  EXECUTE pg_catalog.concat(
    'SELECT pg_catalog.string_agg(l.line, pg_catalog.chr(10) ORDER BY l.line COLLATE "C") FROM (SELECT pg_catalog.to_jsonb(q)::pg_catalog.text FROM (',
    query, ') q) l (line)') INTO result;
  RETURN result;
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
  RETURN pg_catalog.concat_ws('|', state, message, detail);
END
$$;

-- The queries, and what is done before each of them. Above its call, the context of an error is the session's.
CREATE TABLE s.item (n integer GENERATED ALWAYS AS IDENTITY, what text NOT NULL, before text, query text NOT NULL);
INSERT INTO s.item (what, query)
SELECT 'fold ' || name, format('SELECT mako_migration.mako_fold(%L, %L)', name || '@FV2024-10-01', :'events') FROM s.function ORDER BY name;
INSERT INTO s.item (what, before, query) VALUES
  ('registered', NULL, 'SELECT w.workflow_id, w.apply, w.upcast, w.in_flight, w.initial_state, w.function_owner, w.fingerprint '
                       'FROM mako_migration.mako_workflow w'),
  ('registered again', $$ SELECT mako_migration.mako_register_workflow('mixed@FV2025-10-01', 's.mixed', in_flight => 's.in_flight',
                            initial_state => '{"d": "2024-10-01", "a": 0.1}', state_schema_version => 2);
                          SELECT mako_migration.mako_register_migration('mixed@FV2024-10-01', 'mixed@FV2025-10-01', 's.step') $$,
   'SELECT pg_catalog.count(*) FROM mako_migration.mako_workflow'),
  ('registered anew', $$ SELECT mako_migration.mako_register_workflow('new@FV2024-10-01', 's.mixed', in_flight => 's.in_flight', initial_state => '{}');
                         SELECT mako_migration.mako_register_workflow('new@FV2025-10-01', 's.domains', initial_state => '{"d": "2024-10-01", "a": 0.1}') $$,
   $$ SELECT w.workflow_id, w.apply, w.in_flight, w.initial_state, w.function_owner, w.fingerprint FROM mako_migration.mako_workflow w
      WHERE w.workflow_id::pg_catalog.text OPERATOR(pg_catalog.~) '^new' $$),
  ('fingerprint', NULL, $$ SELECT m.source_wf, m.target_wf, m.migrate, m.fingerprint AS kept, mako_migration.mako_fingerprint(m.source_wf, m.target_wf)
                           FROM mako_migration.mako_state_migration m $$),
  ('version fingerprint', NULL, $$ SELECT mako_migration.mako_version_fingerprint('FV2025-10-01', 'FV2026-10-01') $$),
  ('explain', NULL, $$ SELECT f.name, e.* FROM s.function f, LATERAL mako_migration.mako_explain_function(pg_catalog.concat('s.', f.name,
                         CASE WHEN f.name OPERATOR(pg_catalog.=) 'domains' THEN '(s.measured' ELSE '(pg_catalog.jsonb' END, ', pg_catalog.text, pg_catalog.jsonb)')::pg_catalog.regprocedure) e $$),
  ('store problem', NULL, 'SELECT p.* FROM mako_migration.mako_store_problem() p'),
  ('created again', 'SELECT mako_migration.mako_create_store()',
   $$ SELECT t.tgname, t.oid FROM pg_catalog.pg_trigger t WHERE t.tgrelid OPERATOR(pg_catalog.=) ANY
      ('{mako.stream,mako.event,mako.snapshot,mako.repointed,mako.migration_run,mako.migration_error,mako.migration_batch,mako.format_version}'::pg_catalog.regclass[]) $$),
  -- The larger examples take long, and the functions of the other forms say the same.
  ('check', $$ DELETE FROM mako_migration.mako_state_migration m WHERE m.source_wf::pg_catalog.text OPERATOR(pg_catalog.~) 'supplier|device';
               DELETE FROM mako_migration.mako_workflow w WHERE w.workflow_id::pg_catalog.text OPERATOR(pg_catalog.~) 'supplier|device|_' $$,
   'SELECT c.* FROM mako_migration.mako_check(5) WITH ORDINALITY c'),
  ('check of functions', $$ DELETE FROM mako_migration.mako_state_migration;
                            DELETE FROM mako_migration.mako_workflow w WHERE w.workflow_id::pg_catalog.text OPERATOR(pg_catalog.!~) '^atomic|^domains' $$,
   'SELECT c.* FROM mako_migration.mako_check(0) WITH ORDINALITY c'),
  ('state', NULL, $$ SELECT s.stream_id, s.lines(pg_catalog.format('SELECT x.* FROM mako_migration.mako_state(%L) x', s.stream_id)) FROM mako.stream s
                     WHERE s.stream_no OPERATOR(pg_catalog.%) 4 OPERATOR(pg_catalog.=) 0 $$),
  ('resume', NULL, $$ SELECT s.stream_id, x.sequence_number, x.workflow_id, x.state, x.state_schema_version, x.event_type, x.payload
                      FROM mako.stream s, LATERAL mako_migration.mako_resume(s.stream_id) x
                      WHERE s.workflow_id OPERATOR(pg_catalog.~) '^mixed' $$),
  ('trace', NULL, $$ SELECT s.stream_id, x.* FROM mako.stream s, LATERAL mako_migration.mako_trace(s.stream_id) WITH ORDINALITY x
                     WHERE s.workflow_id OPERATOR(pg_catalog.~) '^mixed' $$),
  ('history', NULL, $$ SELECT s.stream_id, x.kind, x.sequence_number, x.workflow_id, x.event_type, x.run_id, x.role, x.reason, x.ordinality
                       FROM mako.stream s, LATERAL mako_migration.mako_history(s.stream_id) WITH ORDINALITY x
                       WHERE s.workflow_id OPERATOR(pg_catalog.~) '^mixed' $$),
  ('verify', NULL, 'SELECT r.run_id, v.* FROM mako.migration_run r, LATERAL mako_migration.mako_verify(r.run_id) v'),
  ('verify snapshots', NULL, $$ SELECT v.* FROM mako_migration.mako_verify_snapshots('mixed@FV2024-10-01') v $$),
  ('plan', NULL, $$ SELECT p.step, p.kind, p.source_wf, p.target_wf, p.function, p.evaluation, p.streams, p.in_flight, p.events, p.blockers, p.fingerprint
                    FROM mako_migration.mako_state_migration m, LATERAL mako_migration.mako_plan(m.source_wf, m.target_wf) p
                    WHERE m.target_wf::pg_catalog.text OPERATOR(pg_catalog.~) 'mixed|supplier-change@FV2026' $$),
  ('coverage', NULL, $$ SELECT c.* FROM pg_catalog.unnest('{FV2024-10-01,FV2025-10-01,FV2026-10-01}'::mako_migration.mako_format_version[]) v,
                        LATERAL mako_migration.mako_coverage(v) WITH ORDINALITY c $$),
  ('transitions', NULL, $$ SELECT t.* FROM mako_migration.mako_transitions('mixed@FV2024-10-01') WITH ORDINALITY t $$),
  ('dry run', NULL, $$ SELECT m.source_wf, pg_catalog.to_jsonb(d) OPERATOR(pg_catalog.#-) '{error,context}'::pg_catalog.text[] FROM mako_migration.mako_state_migration m,
                       LATERAL mako_migration.mako_dry_run(m.source_wf, m.target_wf) WITH ORDINALITY d
                       WHERE m.target_wf::pg_catalog.text OPERATOR(pg_catalog.~) 'mixed|geli|wim' $$),
  ('dry run summary', NULL, $$ SELECT d.* FROM mako_migration.mako_dry_run_summary('geli-gas-supplier-change@FV2025-10-01',
                                                 'geli-gas-supplier-change@FV2026-10-01') WITH ORDINALITY d $$),
  ('migrate state', NULL, $$ SELECT s.stream_id, mako_migration.mako_migrate_state('mixed@FV2024-10-01', 'mixed@FV2025-10-01', x.state)
                             FROM mako.stream s, LATERAL mako_migration.mako_state(s.stream_id) x
                             WHERE s.workflow_id OPERATOR(pg_catalog.~) '^mixed.*2024' $$),
  ('report', NULL, $$ SELECT r.source_wf, r.target_wf, r.migrated, r.skipped, r.failed,
                             ARRAY(SELECT pg_catalog.to_jsonb(e) OPERATOR(pg_catalog.-) 'context'::pg_catalog.text FROM pg_catalog.unnest(r.errors) e) AS errors
                      FROM mako_migration.mako_migrate_version('FV2025-10-01', 'FV2026-10-01') WITH ORDINALITY r $$),
  ('report of mixed', NULL, $$ SELECT r.source_wf, r.target_wf, r.migrated, r.skipped, r.failed, r.errors,
                                      pg_catalog.split_part(mako_migration.mako_format(r), ' in ', 1) AS line
                               FROM mako_migration.mako_migrate('mixed@FV2024-10-01', 'mixed@FV2025-10-01') r $$),
  ('run', $$ SELECT mako_migration.mako_migrate_version('FV2025-10-01', 'FV2026-10-01');
             SELECT mako_migration.mako_migrate('mixed@FV2024-10-01', 'mixed@FV2025-10-01');
             SELECT mako_migration.mako_migrate('failing@FV2028-10-01', 'failing@FV2029-10-01') $$,
   $$ SELECT r.kind, r.source_wf, r.path, r.fingerprint, r.definitions, r.session_role, r.effective_role, r.migrated, r.skipped, r.failed,
             ARRAY(SELECT pg_catalog.to_jsonb(x) FROM (SELECT s.stream_id, n.sequence_number, n.workflow_id, n.state_schema_version, n.state
                     FROM mako.snapshot n JOIN mako.stream s ON s.stream_no OPERATOR(pg_catalog.=) n.stream_no
                     WHERE n.run_id OPERATOR(pg_catalog.=) r.run_id ORDER BY s.stream_no) x) AS snapshots,
             ARRAY(SELECT pg_catalog.to_jsonb(x) FROM (SELECT e.stream_id, e.phase, e.sequence_number, e.sqlstate, e.message, e.detail, e.hint,
                            pg_catalog.split_part(e.context, pg_catalog.chr(10), 1) AS context
                     FROM mako.migration_error e WHERE e.run_id OPERATOR(pg_catalog.=) r.run_id ORDER BY e.error_no) x) AS errors
      FROM mako.migration_run r $$),
  ('follower', $$ SELECT mako_migration.mako_migrate('mixed@FV2024-10-01', 'mixed@FV2025-10-01') $$, 'SELECT f.* FROM s."Follower, Table" f'),
  ('dependent', $$ SELECT mako_migration.mako_add_dependent('s.item', 'what', 'query');
                   SELECT mako_migration.mako_remove_dependent('s."Follower, Table"', 'Process', 'Workflow, Id') $$, 'SELECT d.* FROM mako.dependent d'),
  ('reverted', NULL, 'SELECT r.source_wf, r.target_wf, r.migrated, r.skipped, r.failed, r.errors FROM mako_migration.mako_revert(1) r'),
  ('appended', format($$ SELECT mako_migration.mako_append(mako_migration.mako_spawn('mixed@FV2024-10-01', 'aaaaaaaa-0000-4000-8000-000000000001',
                           'aaaaaaaa-0000-4000-8000-000000000002'), 'mixed@FV2024-10-01', 'E', %1$L);
                         SELECT mako_migration.mako_append_batch('process/aaaaaaaa-0000-4000-8000-000000000001/aaaaaaaa-0000-4000-8000-000000000002',
                           'mixed@FV2024-10-01', ARRAY[ROW('E', %1$L, 1, NULL, NULL, NULL, NULL)]::mako_migration.mako_new_event[], 1);
                         SELECT mako_migration.mako_take_snapshot('process/aaaaaaaa-0000-4000-8000-000000000001/aaaaaaaa-0000-4000-8000-000000000002');
                         SELECT mako_migration.mako_save_snapshot('process/aaaaaaaa-0000-4000-8000-000000000001/aaaaaaaa-0000-4000-8000-000000000002',
                           1, 'mixed@FV2024-10-01', 1, '{}') $$, :'payload'),
   $$ SELECT l.*, x.*, mako_migration.mako_prune_snapshots(0), (SELECT pg_catalog.count(*) FROM mako_migration.mako_load(l.stream_id)) AS events
      FROM mako_migration.mako_lookup('aaaaaaaa-0000-4000-8000-000000000001', 'aaaaaaaa-0000-4000-8000-000000000002') l,
      LATERAL mako_migration.mako_state(l.stream_id) x $$),
  ('routed', format($$ SELECT mako_migration.mako_set_dispatch('mixed@FV2024-10-01', 'explicit', '{FV2024-10-01,FV2020-10-01}');
                       SELECT mako_migration.mako_register_key(%1$L, 'a key', %2$L, '2100-01-01 00:00+00');
                       SELECT mako_migration.mako_register_key(%1$L, 'an old key', %2$L, '2000-01-01 00:00+00');
                       SELECT mako_migration.mako_add_tag(%1$L, 'a tag', %2$L), mako_migration.mako_add_tag(%1$L, 'another', %2$L);
                       SELECT mako_migration.mako_remove_tag(%1$L, 'another', %2$L), mako_migration.mako_unregister_key(%1$L, %3$L) $$,
                    :'tenant', :'stream', :'process'),
   format($$ SELECT l.*, t.stream_id AS tagged, mako_migration.mako_expire_keys() FROM mako_migration.mako_lookup(%1$L, 'a key', 'FV2020-10-01') l,
             mako_migration.mako_find_tag(%1$L, 'a tag') t $$, :'tenant')),
  ('decided', $$ SELECT mako_migration.mako_register_workflow('old@FV2020-10-01'), mako_migration.mako_register_workflow('old@FV2021-10-01'),
                        mako_migration.mako_register_workflow('old@FV2022-10-01');
                 SELECT mako_migration.mako_register_migrations('FV2020-10-01', 'FV2021-10-01', '{old}');
                 SELECT mako_migration.mako_unregister_migration('old@FV2020-10-01', 'old@FV2021-10-01');
                 SELECT mako_migration.mako_exempt('old@FV2020-10-01', 'a reason'), mako_migration.mako_exempt('old@FV2021-10-01', 'another');
                 SELECT mako_migration.mako_unexempt('old@FV2021-10-01'), mako_migration.mako_unregister_workflow('old@FV2022-10-01');
                 SELECT mako_migration.mako_retire('FV2020-10-01', 'a reason', '2100-01-01 00:00+00'), mako_migration.mako_drain('FV2026-10-01', 'another');
                 SELECT mako_migration.mako_retire('FV2021-10-01'); SELECT mako_migration.mako_reactivate('FV2021-10-01', 'too early') $$,
   $$ SELECT v.format_version, v.status, v.reason, v.messages_until OPERATOR(pg_catalog.=) pg_catalog.to_timestamp(4102444800) AS until,
             w.workflow_id, x.reason AS exempt
      FROM mako.format_version v LEFT JOIN mako_migration.mako_workflow w ON w.workflow_id::pg_catalog.text OPERATOR(pg_catalog.=) pg_catalog.concat('old@', v.format_version)
      LEFT JOIN mako_migration.mako_exemption x ON x.workflow_id OPERATOR(pg_catalog.=) w.workflow_id $$),
  ('adopted', $$ ALTER TABLE mako.event DISABLE TRIGGER event_inserted;
                 INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('imported', 'mixed@FV2024-10-01');
                 INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
                 SELECT s.stream_no, 1, 'mixed@FV2024-10-01', 'E', '{}' FROM mako.stream s WHERE s.stream_id OPERATOR(pg_catalog.=) 'imported';
                 ALTER TABLE mako.event ENABLE TRIGGER event_inserted $$, 'SELECT a.* FROM mako_migration.mako_adopt_events() a'),
  ('reports', NULL, $$ SELECT mako_migration.mako_is_ok(m.r), (mako_migration.mako_assert_ok(m.r)).migrated, pg_catalog.split_part(mako_migration.mako_format(m.r), ' in ', 1)
                       FROM (SELECT mako_migration.mako_merge(ROW(r.run_id, r.source_wf, r.target_wf, r.migrated, r.skipped, 0, '{}', NULL, NULL)::mako_migration.mako_migration_report)
                             FROM mako.migration_run r) m (r) $$),
  ('values', NULL, $$ SELECT i.*, mako_migration.mako_is_valid(w.event_type_definition, i.instance), w.workflow_id,
                             mako_migration.mako_workflow_name(w.workflow_id), mako_migration.mako_workflow_version(w.workflow_id),
                             mako_migration.mako_source_lock(w.workflow_id::pg_catalog.text), mako_migration.mako_merge_patch(w.initial_state, i.instance),
                             mako_migration.mako_assert_workflow_id(w.workflow_id::pg_catalog.text), mako_migration.mako_assert_format_version('FV2024-10-01'),
                             ARRAY(SELECT v.schema_path FROM mako_migration.mako_validate(w.event_type_definition, w.initial_state) v) AS wrong
                      FROM mako_migration.mako_workflow w, LATERAL mako_migration.mako_instances(w.event_type_definition) WITH ORDINALITY i
                      WHERE w.workflow_id::pg_catalog.text OPERATOR(pg_catalog.~) 'geli.*2025' $$),
  ('dates', NULL, $$ SELECT x.instance, mako_migration.mako_is_valid('{"type": "timestamp"}', x.instance)
                     FROM (VALUES ('"2024-10-01T00:00:00Z"'::pg_catalog.jsonb), ('"2024-02-03 00:00"'), ('"03/02/2024"'), ('"now"'), ('"2024-10-01T00:00:60+02:00"')) x (instance) $$),
  ('required', NULL, $$ SELECT mako_migration.mako_required('{"a": {"b": 1}}', 'a', 'b') $$),
  ('missing', NULL, $$ SELECT s.lines('SELECT mako_migration.mako_required(''{"a": {"b": 1}}'', ''a'', ''c c'')') AS missing, s.lines('SELECT mako_migration.mako_reject(''no'')') AS no $$),
  ('parts', NULL, $$ SELECT 'step', f.subject, f.message, f.hint FROM mako_migration.mako_step_finding('{FV2024-10-01}') f
                     UNION ALL SELECT 'store', f.subject, f.message, f.hint FROM mako_migration.mako_store_finding() f
                     UNION ALL SELECT o.kind, o.name, o.definition, mako_migration.mako_stream_of(NULL, NULL)::pg_catalog.text FROM mako_migration.mako_store_object() o WHERE false $$),
  ('diagram', 'SELECT mako_migration.mako_assert_store()', $$ SELECT mako_migration.mako_state_diagram('mixed@FV2024-10-01') $$),
  ('progress', $$ SET LOCAL session_replication_role = replica;
                  INSERT INTO mako.migration_run (kind, source_wf, target_wf, path, update_registry, in_flight_only, fingerprint, definitions,
                                                  extension_version, started_at, through_stream_no, migrated, failed)
                  VALUES ('batched', 'mixed@FV2024-10-01', 'mixed@FV2025-10-01', '{}', true, false, '', '{}', '', '2024-10-01 00:00+00', 1000, 1, 2) $$,
   'SELECT p.kind, p.source_wf, p.target_wf, p.done, p.total, p.failed FROM mako_migration.mako_current_progress() p');

-- Takes down the items that are called so; what they do is undone.
CREATE FUNCTION s.observe(pattern varchar) RETURNS TABLE (what text, result text) LANGUAGE plpgsql AS $$
DECLARE
  item s.item;
  state pg_catalog.text; message pg_catalog.text; detail pg_catalog.text;
BEGIN
  FOR item IN SELECT i.* FROM s.item i WHERE i.what OPERATOR(pg_catalog.~) pattern::pg_catalog.text ORDER BY i.n LOOP
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
      GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
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

-- A setting as a command. An error in it is one test that fails, not the end.
CREATE FUNCTION s.command(setting s.setting) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT format(E'\\connect\nSET client_min_messages = error;\n%s;\nSET %I = %s;\n', coalesce(setting.prepare, 'SET application_name = settings'), setting.name,
                CASE WHEN setting.name IN ('search_path', 'DateStyle') AND setting.value <> '' THEN setting.value
                     ELSE quote_literal(setting.value) END) $$;

\set script `mktemp`
\o :script
SELECT s.command(c) || format(E'INSERT INTO s.seen SELECT %s, o.* FROM s.observe(%L) o;\nRESET %I;\n'
                               'INSERT INTO s.seen SELECT %1$s, pg_catalog.concat(''afterwards '', o.what), o.result FROM s.observe(%4$L) o;',
              n, items, name, CASE WHEN items = '' THEN '^fold' ELSE '^fold (mixed|domains)' END)
FROM s.setting c ORDER BY n;
-- The procedures commit, so each session has streams of its own to move.
SELECT s.command(c) || format(E'SELECT s.start(%s, 1), s.start(%1$s, 2);\n'
                              'CALL mako_migration.mako_migrate_batched(''moved@FV2030-10-01'', ''moved@FV2031-10-01'', 1, tenant_id => %L);\n'
                              'SELECT s.start(%1$s, 3);\n'
                              'CALL mako_migration.mako_migrate_version_batched(''FV2030-10-01'', ''FV2031-10-01'', 1, tenant_id => %2$L);\n'
                              'INSERT INTO s.seen SELECT %1$s, ''batched'', s.lines(%3$L);', n, s.tenant(n),
              format('SELECT s.process_id, n.sequence_number, x.* FROM mako.stream s JOIN mako.snapshot n ON n.stream_no OPERATOR(pg_catalog.=) s.stream_no, '
                     'LATERAL mako_migration.mako_state(s.stream_id) x WHERE s.tenant_id OPERATOR(pg_catalog.=) %L AND n.run_id OPERATOR(pg_catalog.>) 0', s.tenant(n)))
FROM s.setting c WHERE items = '' ORDER BY n;
\o
\set ON_ERROR_STOP off
\o /dev/null
\i :script
\o
\set script `rm :script`
\set ON_ERROR_STOP on

----------------------------------------------------------------------------------------------------
-- What differs
----------------------------------------------------------------------------------------------------

\connect
SET search_path = public, mako_migration;
-- Where two texts part.
CREATE FUNCTION s.difference(a text, b text) RETURNS text LANGUAGE sql AS $$
  SELECT format('…%s… <> …%s…', substr(a, n, 120), substr(b, n, 120))
  FROM (SELECT greatest(min(i) - 40, 1) FROM generate_series(1, greatest(length(a), length(b))) AS i WHERE substr(a, i, 1) IS DISTINCT FROM substr(b, i, 1)) AS p (n) $$;
CREATE VIEW s.wanted AS SELECT what, result FROM s.seen WHERE n = 0;
SELECT plan(count(*)::int + 3) FROM s.setting;
SELECT results_eq($$ SELECT count(*), count(*) FILTER (WHERE result ~ '^[0-9A-Z]{5}[|]') FROM s.wanted $$,
                  $$ SELECT count(*) + count(*) FILTER (WHERE what ~ '^fold') + 1, 0::bigint FROM s.item $$, 'by default, nothing raises');
SELECT is_empty($$ SELECT p.proname FROM pg_depend d JOIN pg_proc p ON p.oid = d.objid
                   WHERE d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'mako_migration') AND d.classid = 'pg_proc'::regclass AND p.prorettype <> 'trigger'::regtype
                     AND p.prokind <> 'p' AND NOT EXISTS (SELECT FROM s.item WHERE concat(before, query) ~ ('\m' || proname || '\M')) $$,
                'every function is called');
SELECT cmp_ok(count(*), '>', 80::bigint, 'there are settings enough') FROM s.setting;
SELECT is_empty(format($$ SELECT w.what, s.difference(w.result, s.result)
                          FROM s.wanted w LEFT JOIN s.seen s ON s.what = w.what AND s.n = %s
                          WHERE (%L = '' OR (w.what ~ %2$L AND w.what !~ '^(afterwards|batched)')) AND s.result IS DISTINCT FROM w.result $$, n, items),
                format('%s = %s', name, value))
FROM s.setting WHERE n > 0 ORDER BY n;

-- Where triggers do not fire, nothing is appended that the head would not know of.
SET session_replication_role = replica;
SELECT is((SELECT result FROM s.observe('^appended$')), '55000|the trigger "event_inserted" of table "mako.event" did not fire|'
          'The head of stream "process/aaaaaaaa-0000-4000-8000-000000000001/aaaaaaaa-0000-4000-8000-000000000002" would not advance.',
          'session_replication_role = replica: appending is refused');
SELECT * FROM finish();
