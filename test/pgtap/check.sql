-- mako_check(): everything that it finds, provoked once and undone, in a database where it finds nothing. So each case is two tests: the
-- code is there when its cause is, and nothing else is; and it is not there otherwise.
-- Runs in an empty database.

CREATE EXTENSION pgtap;
CREATE EXTENSION mako_migration;

SELECT plan(92);

\ir include/helpers.sql

-- What is found, a line each, without the texts.
CREATE FUNCTION pg_temp.found() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  RETURN (SELECT string_agg(severity || '|' || code || '|' || subject, E'\n' ORDER BY ordinality) FROM mako_check() WITH ORDINALITY);
END
$$;

-- What is found after some statements, which are undone.
CREATE FUNCTION pg_temp.after(statements text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  result text;
BEGIN
  EXECUTE statements;
  result := pg_temp.found();
  RAISE EXCEPTION USING ERRCODE = 'MKTST';
EXCEPTION WHEN SQLSTATE 'MKTST' THEN
  RETURN result;
END
$$;

-- The same with the triggers off.
CREATE FUNCTION pg_temp.tampered(statements text) RETURNS text LANGUAGE sql AS $$
  SELECT pg_temp.after('SET LOCAL session_replication_role = replica; ' || statements) $$;

-- What it says, after some statements.
CREATE FUNCTION pg_temp.said(statements text, wanted text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  result text;
BEGIN
  EXECUTE statements;
  result := (SELECT string_agg(message, E'\n' ORDER BY ordinality) FROM mako_check() WITH ORDINALITY WHERE code = wanted);
  RAISE EXCEPTION USING ERRCODE = 'MKTST';
EXCEPTION WHEN SQLSTATE 'MKTST' THEN
  RETURN result;
END
$$;

----------------------------------------------------------------------------------------------------
-- A sound database: three versions, the oldest retired, streams before and after a migration
----------------------------------------------------------------------------------------------------

SELECT is(pg_temp.found(), 'info|store_missing|mako', 'without a store, that is all there is to say');

SET client_min_messages = error;
CREATE ROLE mako_check_other;
CREATE ROLE mako_check_caller;
CREATE SCHEMA t;
GRANT USAGE ON SCHEMA t TO mako_check_other, mako_check_caller;
CREATE TYPE t.color AS ENUM ('red', 'green');
CREATE TABLE t.setting (value jsonb);

CREATE FUNCTION t.apply(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE event_type
    WHEN 'Opened' THEN jsonb_build_object('status', 'Open', 'n', payload->'n')
    WHEN 'Counted' THEN CASE WHEN state->>'status' = 'Open' THEN state || jsonb_build_object('n', payload->'n') END
    WHEN 'Closed' THEN jsonb_build_object('status', 'Closed') END $$;
CREATE FUNCTION t.apply_2025(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE event_type
    WHEN 'Opened' THEN jsonb_build_object('status', 'Open', 'count', payload->'n')
    WHEN 'Counted' THEN CASE WHEN state->>'status' = 'Open' THEN state || jsonb_build_object('count', payload->'n') END
    WHEN 'Closed' THEN jsonb_build_object('status', 'Closed') END $$;
CREATE FUNCTION t.in_flight(state jsonb) RETURNS boolean LANGUAGE sql STABLE AS $$ SELECT state->>'status' <> 'Closed' $$;
CREATE FUNCTION t.helper(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT state $$;
CREATE FUNCTION t.migrate_2023(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN 'red'::t.color = 'green'::t.color THEN NULL ELSE t.helper(state) END $$;
CREATE FUNCTION t.migrate_2024(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE state->>'status' WHEN 'Open' THEN jsonb_build_object('status', 'Open', 'count', state->'n') ELSE state END $$;
CREATE FUNCTION t.event_type() RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$ SELECT '{"discriminator": "type", "mapping": {
  "Opened": {"properties": {"n": {"type": "uint8"}}, "metadata": {"event_type": "Opened"}},
  "Counting": {"properties": {"n": {"type": "uint8"}}, "metadata": {"event_type": "Counted"}},
  "Closed": {"properties": {}}}}'::jsonb $$;
CREATE FUNCTION t.state_type(name text, type text) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$ SELECT format('{"discriminator": "status",
  "mapping": {"New": {"properties": {}}, "Open": {"properties": {"%s": {"type": "%s"}}}, "Closed": {"properties": {}}}}',
  name, type)::jsonb $$;

-- Registers the oldest version, or its step to the next, in another way.
CREATE FUNCTION t.register(apply text DEFAULT 't.apply', event_type jsonb DEFAULT t.event_type(), schema_version int DEFAULT 1) RETURNS void
LANGUAGE sql AS $$
  SELECT mako_register_workflow('w@FV2023-10-01', apply, in_flight => 't.in_flight', initial_state => '{"status": "New"}',
                                state_schema_version => schema_version, event_type_definition => event_type,
                                state_type_definition => t.state_type('n', 'uint8'), replace => true) $$;
CREATE FUNCTION t.step(body text, language text DEFAULT 'sql') RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('CREATE FUNCTION t.other(state jsonb) RETURNS jsonb LANGUAGE %s STABLE AS %L', language, body);
  PERFORM mako_register_migration('w@FV2023-10-01', 'w@FV2024-10-01', 't.other', replace => true);
END
$$;

SELECT mako_create_store();
SELECT t.register();
SELECT mako_register_workflow('w@FV2024-10-01', 't.apply', in_flight => 't.in_flight', initial_state => '{"status": "New"}',
                              event_type_definition => t.event_type(), state_type_definition => t.state_type('n', 'uint8'));
SELECT mako_register_workflow('w@FV2025-10-01', 't.apply_2025', in_flight => 't.in_flight', initial_state => '{"status": "New"}',
                              state_schema_version => 2,
                              event_type_definition => t.event_type(), state_type_definition => t.state_type('count', 'uint16'));
SELECT mako_register_migration('w@FV2023-10-01', 'w@FV2024-10-01', 't.migrate_2023');
SELECT mako_register_migration('w@FV2024-10-01', 'w@FV2025-10-01', 't.migrate_2024');
-- One that ends with its version, and one that has nothing but a name.
SELECT mako_register_workflow('x@' || version) FROM unnest('{FV2023-10-01,FV2024-10-01}'::text[]) AS version;
SELECT mako_exempt('x@FV2023-10-01', 'it ends');
CREATE TABLE t.follower (stream_id text, workflow_id text, tenant uuid);
CREATE INDEX follower_key ON t.follower (stream_id);
SELECT mako_add_dependent('t.follower', 'stream_id', 'workflow_id');

CREATE FUNCTION t.spawn(stream_id text, workflow text, event_types text[]) RETURNS void LANGUAGE sql AS $$
  INSERT INTO mako.stream (stream_id, workflow_id) VALUES (stream_id, workflow);
  SELECT mako_append(stream_id, workflow, e, CASE e WHEN 'Closed' THEN '{}' ELSE '{"n": 5}' END::jsonb)
  FROM unnest(event_types) WITH ORDINALITY AS e (e, ordinal) ORDER BY ordinal $$;
SELECT t.spawn('old', 'w@FV2023-10-01', '{Opened,Closed}');
SELECT t.spawn('ends', 'x@FV2023-10-01', '{}');
SELECT mako_retire('FV2023-10-01');
SELECT t.spawn('migrated ' || i, 'w@FV2024-10-01', '{Opened,Counted,Counted}') FROM generate_series(1, 3) AS i;
SELECT t.spawn('migrated empty', 'w@FV2024-10-01', '{}');
SELECT migrated FROM mako_migrate('w@FV2024-10-01', 'w@FV2025-10-01');
SELECT mako_append('migrated 1', 'w@FV2025-10-01', 'Counted', '{"n": 6}');
SELECT mako_append('migrated empty', 'w@FV2025-10-01', 'Opened', '{"n": 6}');
SELECT t.spawn('here ' || i, 'w@FV2024-10-01', '{Opened,Counted,Counted}') FROM generate_series(1, 3) AS i;
SELECT t.spawn('here empty', 'w@FV2024-10-01', '{}');
SELECT mako_take_snapshot('here 1');
GRANT USAGE ON SCHEMA mako TO mako_check_caller;
GRANT SELECT ON ALL TABLES IN SCHEMA mako TO mako_check_caller;

SELECT is_empty($$ SELECT * FROM mako_check() $$, 'nothing is wrong, and nothing needs saying');
SELECT is(pg_temp.after('SET LOCAL ROLE mako_check_caller'), NULL, 'for a role that can only read, either');

-- Numbers of streams and of the run.
SELECT stream_no AS migrated_2 FROM mako.stream WHERE stream_id = 'migrated 2' \gset
SELECT stream_no AS here_2 FROM mako.stream WHERE stream_id = 'here 2' \gset
SELECT set_config('t.migrated_1', stream_no::text, false) FROM mako.stream WHERE stream_id = 'migrated 1';
SELECT set_config('t.migrated_2', :'migrated_2', false), set_config('t.here_2', :'here_2', false);
CREATE FUNCTION t.no(name text) RETURNS bigint LANGUAGE sql STABLE AS $$ SELECT current_setting('t.' || name)::bigint $$;

----------------------------------------------------------------------------------------------------
-- The store
----------------------------------------------------------------------------------------------------

SELECT is(pg_temp.after('ALTER TABLE mako.event DISABLE TRIGGER event_guard'), 'error|store_damaged|trigger event_guard on mako.event',
          'a trigger that is off');
SELECT matches(pg_temp.after('DROP TABLE mako.migration_batch'), 'error\|store_damaged\|table mako.migration_batch\n',
               'a table that is gone does not end the check');
SELECT is(pg_temp.after($$ CREATE OR REPLACE FUNCTION mako.layout_version() RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 0' $$),
          'warning|store_layout|mako', 'another layout');
SELECT is(pg_temp.after('ALTER SCHEMA mako OWNER TO mako_check_other; SET LOCAL ROLE mako_check_caller'), 'error|store_owner|mako',
          'an owner whom the caller does not know');
SELECT is(pg_temp.after('ALTER SCHEMA mako OWNER TO mako_check_other'), 'error|store_owner|mako', 'a superuser trusts nobody by being one');

----------------------------------------------------------------------------------------------------
-- Definitions
----------------------------------------------------------------------------------------------------

\set step 'w@FV2023-10-01 -> w@FV2024-10-01'

SELECT is(pg_temp.after('DROP FUNCTION t.migrate_2023(jsonb)'), 'error|function_missing|' || :'step', 'a function that is gone');
SELECT is(pg_temp.after('DROP FUNCTION t.migrate_2023(jsonb); CREATE FUNCTION t.migrate_2023(state jsonb) RETURNS text LANGUAGE sql STABLE AS $$ SELECT state::text $$'),
          'error|function_unusable|' || :'step', 'one that is of no use any more');
SELECT is(pg_temp.after('ALTER FUNCTION t.migrate_2023(jsonb) VOLATILE'), 'error|function_volatile|' || :'step', 'one that has become volatile');
SELECT is(pg_temp.after('ALTER FUNCTION t.migrate_2023(jsonb) OWNER TO mako_check_other'), 'error|owner_changed|' || :'step',
          'one that belongs to somebody else now');
SELECT is(pg_temp.after('CREATE OR REPLACE FUNCTION t.migrate_2023(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT state $$'),
          'error|definition_changed|' || :'step', 'one that was changed after its registration');
SELECT is(pg_temp.after('CREATE OR REPLACE FUNCTION t.helper(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT state || ''{}'' $$'),
          'error|definition_changed|' || :'step', 'so was its helper');
SELECT is(pg_temp.after('DROP FUNCTION t.helper(jsonb)'), 'error|name_not_found|' || :'step', 'a name that its body does not find');
SELECT is(pg_temp.after('ALTER TYPE t.color RENAME VALUE ''red'' TO ''rouge'''), 'error|definition_broken|' || :'step',
          'a body that means nothing any more');

SELECT is(pg_temp.after($$ SELECT t.step('BEGIN RETURN state; END', 'plpgsql') $$),
          E'info|body_unseen|t.other(pg_catalog.jsonb)\ninfo|not_inlined|t.other(pg_catalog.jsonb)', 'a function in another language');
SELECT is(pg_temp.after($$ CREATE FUNCTION t.same(value anyelement) RETURNS anyelement LANGUAGE sql STABLE AS 'SELECT value';
                           SELECT t.step('SELECT t.same(state)') $$),
          'info|body_unseen|t.same(pg_catalog.anyelement)', 'a helper whose body cannot be seen');
SELECT is(pg_temp.after($$ SELECT t.step('SELECT coalesce((SELECT value FROM t.setting), state)') $$),
          E'warning|reads_table|t.other(pg_catalog.jsonb)\ninfo|not_inlined|t.other(pg_catalog.jsonb)', 'a function that reads a table');
SELECT is(pg_temp.after($$ CREATE VIEW t.look AS SELECT 1; SELECT t.step('SELECT CASE WHEN EXISTS (SELECT FROM t.look) THEN state ELSE state END') $$),
          E'warning|reads_table|t.other(pg_catalog.jsonb)\ninfo|not_inlined|t.other(pg_catalog.jsonb)', 'or a view');
SELECT is(pg_temp.after($$ SELECT t.step('SELECT CASE WHEN now() IS NULL THEN state ELSE state END') $$),
          'warning|not_repeatable|t.other(pg_catalog.jsonb)', 'one that asks the clock');
SELECT is(pg_temp.after($$ SELECT t.step('SELECT CASE WHEN current_date IS NULL THEN state ELSE state END') $$),
          'warning|not_repeatable|t.other(pg_catalog.jsonb)', 'or for the day');
SELECT is(pg_temp.after($$ SELECT t.step('SELECT CASE WHEN current_setting(''TimeZone'') = '''' THEN state ELSE state END') $$),
          'warning|not_repeatable|t.other(pg_catalog.jsonb)', 'or for a setting');
SELECT is(pg_temp.after($$ SELECT t.step('SELECT CASE WHEN random() < 0 THEN state ELSE state END') $$),
          E'warning|not_repeatable|t.other(pg_catalog.jsonb)\ninfo|not_inlined|t.other(pg_catalog.jsonb)', 'one that throws dice');
SELECT is(pg_temp.after($$ SELECT t.step('SELECT CASE WHEN (state->>''day'')::date = ''2025-10-01''::date THEN state ELSE state END') $$),
          NULL, 'but not one that reads dates, whose style the session does not decide');
SELECT is(pg_temp.after($$ CREATE FUNCTION t.any(state jsonb) RETURNS jsonb LANGUAGE sql VOLATILE AS 'SELECT state';
                           SELECT t.step('SELECT t.any(state)') $$),
          E'warning|calls_volatile|t.other(pg_catalog.jsonb)\ninfo|not_inlined|t.other(pg_catalog.jsonb)', 'one that calls a volatile one');
SELECT is(pg_temp.after($$ REVOKE EXECUTE ON FUNCTION t.helper(jsonb) FROM PUBLIC; ALTER FUNCTION t.migrate_2023(jsonb) OWNER TO mako_check_other;
                           SELECT mako_register_migration('w@FV2023-10-01', 'w@FV2024-10-01', 't.migrate_2023', replace => true) $$),
          E'error|not_executable|t.migrate_2023(pg_catalog.jsonb)\nerror|not_usable|' || :'step' || E'\ninfo|not_inlined|t.migrate_2023(pg_catalog.jsonb)', 'one whose owner may not call its helper');
SELECT is(pg_temp.after($$ CREATE FUNCTION t.folding(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS
                             'SELECT state || jsonb_build_object(''n'', 1 / 0)';
                           SELECT t.register(apply => 't.folding') $$),
          'error|not_usable|w@FV2023-10-01', 'one that cannot even be planned');

----------------------------------------------------------------------------------------------------
-- Steps
----------------------------------------------------------------------------------------------------

SELECT is(pg_temp.after($$ CREATE FUNCTION t.back(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS
                             'SELECT CASE state->>''status'' WHEN ''Open'' THEN jsonb_build_object(''status'', ''Open'', ''n'', 1) ELSE state END';
                           SELECT mako_register_migration('w@FV2025-10-01', 'w@FV2024-10-01', 't.back') $$),
          E'info|cycle|w@FV2024-10-01\ninfo|schema_version_back|w@FV2025-10-01 -> w@FV2024-10-01', 'a way back');
SELECT is(pg_temp.after($$ SELECT t.register(schema_version => 2) $$), 'info|schema_version_back|' || :'step', 'states of an older layout');
SELECT is(pg_temp.after($$ SELECT mako_register_workflow('x@FV2025-10-01') $$), 'warning|no_way_out|x@FV2024-10-01', 'a version without a way out');
SELECT is(pg_temp.after($$ SELECT mako_register_workflow('d@FV202' || i || '-10-01') FROM generate_series(4, 7) AS i;
                           SELECT mako_register_migration('d@FV202' || source || '-10-01', 'd@FV202' || target || '-10-01')
                           FROM (VALUES (4, 5), (4, 6), (5, 7), (6, 7)) AS s (source, target) $$),
          'warning|ambiguous_path|d@FV2024-10-01 -> d@FV2027-10-01', 'two ways to the same place');
SELECT is(pg_temp.after($$ SELECT mako_register_workflow('x@FV2022-10-01'); SELECT mako_register_migration('x@FV2022-10-01', 'x@FV2023-10-01') $$),
          'error|target_retired|x@FV2022-10-01 -> x@FV2023-10-01', 'a way to a retired version');

----------------------------------------------------------------------------------------------------
-- The store's contents
----------------------------------------------------------------------------------------------------

SELECT is(pg_temp.tampered($$ INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('lost', 'z@FV2024-10-01') $$),
          'error|workflow_not_registered|z@FV2024-10-01', 'streams of a workflow that nobody knows');
SELECT is(pg_temp.tampered($$ INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('late', 'w@FV2023-10-01') $$),
          'error|in_flight_on_retired|w@FV2023-10-01', 'a stream in flight on a retired version');
SELECT is(pg_temp.tampered($$ SELECT mako_register_workflow('y@FV2023-10-01');
                              INSERT INTO mako.stream (stream_id, workflow_id) SELECT 'late ' || i, 'y@FV2023-10-01' FROM generate_series(1, 2) AS i $$),
          'error|in_flight_on_retired|y@FV2023-10-01', 'where no predicate says what is finished, everything is in flight');
SELECT is(pg_temp.said($$ SELECT mako_register_workflow('y@FV2023-10-01'); SET LOCAL session_replication_role = replica;
                          INSERT INTO mako.stream (stream_id, workflow_id) SELECT 'late ' || i, 'y@FV2023-10-01' FROM generate_series(1, 2) AS i $$,
                       'in_flight_on_retired'), '2 streams are in flight on a retired version', 'all of it');
SELECT is(pg_temp.after($$ SELECT mako_register_workflow('y@FV2023-10-01') $$), NULL, 'but nothing is, where there is nothing');
SELECT is(pg_temp.tampered($$ INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('late', 'x@FV2023-10-01') $$), NULL,
          'unless the workflow is exempt');
SELECT is(pg_temp.after($$ SELECT mako_exempt('x@FV2024-10-01', 'nobody uses it') $$), 'info|exemption_unused|x@FV2024-10-01',
          'an exemption for nothing');
SELECT is(pg_temp.tampered($$ INSERT INTO mako.migration_run (kind, source_wf, target_wf, path, update_registry, in_flight_only, fingerprint,
                                definitions, extension_version, started_at)
                              VALUES ('batched', 'w@FV2024-10-01', 'w@FV2025-10-01', '{}', true, false, '', '{}', '', now()) $$),
          'warning|run_unfinished|w@FV2024-10-01 -> w@FV2025-10-01', 'a batched run that has not finished');
SELECT is(pg_temp.tampered($$ UPDATE mako.stream SET version = 2 WHERE stream_id = 'here 2' $$), 'error|head_behind|here 2', 'a head that is behind');
SELECT is(pg_temp.tampered($$ UPDATE mako.stream SET version = 4 WHERE stream_id = 'here 2' $$), 'error|head_ahead|here 2', 'a head that is ahead');
SELECT is(pg_temp.tampered($$ DELETE FROM mako.event WHERE stream_no = t.no('here_2') AND sequence_number = 3 $$), 'error|head_ahead|here 2',
          'so it is when the last event is gone');
SELECT is(pg_temp.tampered($$ DELETE FROM mako.event WHERE stream_no = t.no('here_2') $$), 'error|head_ahead|here 2', 'or all of them');
SELECT is(pg_temp.tampered($$ DELETE FROM mako.event WHERE stream_no = t.no('here_2') AND sequence_number = 2 $$), 'error|event_gap|here 2',
          'an event that is missing');
SELECT is(pg_temp.tampered($$ DELETE FROM mako.event WHERE stream_no = t.no('here_2') AND sequence_number = 1 $$), 'error|event_gap|here 2',
          'the first one, too');
SELECT is(pg_temp.tampered($$ DELETE FROM mako.event WHERE stream_no = t.no('migrated_2') AND sequence_number < 3 $$), 'info|events_archived|*',
          'but not when a snapshot tells the state');
SELECT is(pg_temp.tampered($$ DELETE FROM mako.event WHERE stream_no = t.no('migrated_2') $$), 'info|events_archived|*', 'however many there were');
SELECT is(pg_temp.tampered($$ DELETE FROM mako.stream WHERE stream_id = 'here 2' $$), 'error|events_without_head|' || :'here_2', 'a head that is gone');
SELECT is(pg_temp.tampered($$ DELETE FROM mako.stream WHERE stream_id = 'migrated 2' $$),
          format(E'error|events_without_head|%1$s\nerror|snapshot_without_head|%1$s', :'migrated_2'), 'and leaves a snapshot behind');
SELECT is(pg_temp.tampered($$ UPDATE mako.snapshot SET sequence_number = 9 WHERE run_id = 0 $$), 'error|snapshot_beyond_head|here 1',
          'a snapshot beyond the head');
SELECT is(pg_temp.tampered($$ UPDATE mako.snapshot SET sequence_number = 9 WHERE stream_no = t.no('migrated_2') $$),
          'error|snapshot_beyond_head|migrated 2', 'of a migration, too');
SELECT is(pg_temp.tampered($$ UPDATE mako.snapshot SET sequence_number = 2 WHERE stream_no = t.no('migrated_2') $$),
          'error|snapshot_misplaced|migrated 2', 'one whose number is too low');
SELECT is(pg_temp.tampered($$ UPDATE mako.snapshot SET sequence_number = 4 WHERE stream_no = t.no('migrated_1') $$),
          'error|snapshot_misplaced|migrated 1', 'one whose number is too high');
SELECT is(pg_temp.tampered($$ UPDATE mako.snapshot SET run_id = 999 WHERE stream_no = t.no('migrated_2') $$),
          'error|snapshot_of_unknown_run|migrated 2', 'one of a run that is not recorded');
SELECT is(pg_temp.tampered($$ INSERT INTO mako.reverted SELECT stream_no, run_id, 1 FROM mako.snapshot WHERE stream_no = t.no('migrated_1') AND run_id > 0 $$),
          'error|snapshot_of_unknown_run|migrated 1', 'one that is said to be undone');
SELECT is(pg_temp.after($$ SELECT t.spawn('back', 'w@FV2024-10-01', '{Opened}'); SELECT mako_revert(run_id) FROM mako_migrate('w@FV2024-10-01', 'w@FV2025-10-01') $$),
          NULL, 'or is indeed');
SELECT is(pg_temp.tampered($$ UPDATE mako.stream SET workflow_id = 'w@FV2025-10-01' WHERE stream_id = 'here 2' $$), 'error|head_moved|here 2',
          'a head that was moved');
SELECT is(pg_temp.tampered($$ UPDATE mako.stream SET workflow_id = 'w@FV2024-10-01' WHERE stream_id = 'migrated 2' $$), 'error|head_moved|migrated 2',
          'or moved back');
SELECT is(pg_temp.tampered($$ UPDATE mako.event SET workflow_id = 'x@FV2024-10-01' WHERE stream_no = t.no('here_2') AND sequence_number = 2 $$),
          'error|event_outside_history|here 2', 'an event of another workflow');
SELECT is(pg_temp.tampered($$ INSERT INTO mako.stream (stream_id, workflow_id, version) VALUES ('imported', 'w@FV2024-10-01', 2);
                              INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
                              SELECT stream_no, v.* FROM mako.stream, (VALUES (1, 'w@FV2023-10-01', 'Opened', '{"n": 1}'::jsonb),
                                                                             (2, 'w@FV2024-10-01', 'Counted', '{"n": 1}')) AS v
                              WHERE stream_id = 'imported' $$), NULL, 'but a history that was imported may have begun under an older one');
SELECT is(pg_temp.tampered($$ UPDATE mako.event SET workflow_id = 'w@FV2023-10-01' WHERE stream_no = t.no('here_2') AND sequence_number = 2 $$),
          'error|event_outside_history|here 2', 'which does not fall back to the older one in the middle');
SELECT is(pg_temp.tampered($$ UPDATE mako.event SET workflow_id = 'w@FV2023-10-01' WHERE stream_no = t.no('migrated_2') AND sequence_number = 3 $$),
          'error|event_outside_history|migrated 2', 'nor at its end, before a move');
SELECT is(pg_temp.tampered($$ UPDATE mako.stream SET version = 99; DELETE FROM mako.snapshot;
                              INSERT INTO mako.stream (stream_id, workflow_id, version) SELECT 'more ' || i, 'w@FV2024-10-01', 9 FROM generate_series(1, 30) AS i $$)
          LIKE E'error|head_ahead|*\nerror|head_ahead|ends\n%', true, 'twenty of a kind are enough');
SELECT is(pg_temp.after('DROP TABLE t.follower'), 'error|dependent_missing|t.follower', 'a dependent that is gone');
SELECT is(pg_temp.after('ALTER TABLE t.follower DROP COLUMN workflow_id'), 'error|dependent_missing|t.follower', 'or its column');
SELECT is(pg_temp.after('DROP INDEX t.follower_key; CREATE INDEX ON t.follower (workflow_id, stream_id); CREATE INDEX ON t.follower (stream_id) WHERE tenant IS NULL'),
          'info|dependent_unindexed|t.follower', 'or where each of its processes has to be looked for');
SELECT is(pg_temp.after($$ DROP INDEX t.follower_key; CREATE INDEX ON t.follower (tenant, stream_id); SELECT mako_add_dependent('t.follower', 'stream_id', 'workflow_id', 'tenant') $$), NULL,
          'which an index that begins with its tenant does, too');

----------------------------------------------------------------------------------------------------
-- What apply and migrate take
----------------------------------------------------------------------------------------------------

SELECT is(pg_temp.after($$ SELECT t.register(event_type => jsonb_set(t.event_type(), '{mapping,Lost}', '{"properties": {}}')) $$),
          'warning|event_not_accepted|w@FV2023-10-01', 'an event that is never accepted');
SELECT is(pg_temp.said($$ SELECT t.register(event_type => jsonb_set(t.event_type(), '{mapping,Lost}', '{"properties": {}, "metadata": {"event_type": "Mislaid"}}')) $$,
                       'event_not_accepted'),
          'apply accepts event type "Mislaid" in none of 5 states: function t.apply(pg_catalog.jsonb,pg_catalog.text,pg_catalog.jsonb) returned null', 'is named as the log names it');
SELECT is(pg_temp.after($$ SELECT t.step('SELECT CASE state->>''status'' WHEN ''Closed'' THEN mako_reject(''done'') ELSE state END') $$),
          format(E'warning|state_not_migrated|%1$s\nwarning|stream_not_migrated|%1$s', :'step'), 'a state that is refused, here and in the store');
SELECT is(pg_temp.after($$ SELECT t.step('SELECT CASE state->>''status'' WHEN ''Open'' THEN jsonb_build_object(''status'', ''Open'', ''n'', 1 / (state->''n'')::int) ELSE state END') $$),
          'warning|state_not_migrated|' || :'step', 'one with which the function fails');
SELECT is(pg_temp.said($$ SELECT t.step('SELECT CASE state->>''status'' WHEN ''Open'' THEN jsonb_build_object(''status'', ''Open'', ''n'', 1 / (state->''n'')::int) ELSE state END') $$,
                       'state_not_migrated'),
          'Open: division by zero (1 of 5 states, such as {"n": 0, "status": "Open"})', 'which is shown');
SELECT is(pg_temp.after($$ SELECT t.step('SELECT CASE state->>''status'' WHEN ''Open'' THEN state WHEN ''Closed'' THEN state END') $$),
          'warning|state_null|' || :'step', 'one that was forgotten');
SELECT is(pg_temp.after($$ SELECT t.step('SELECT CASE state->>''status'' WHEN ''Open'' THEN state || ''{"more": 1}'' ELSE state END') $$), 'error|state_outside_type|' || :'step',
          'one that comes out as the target does not allow it');

-- The type of states may be a domain, here of a workflow of its own.
CREATE FUNCTION t.domain_step(migrate text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  CREATE DOMAIN t.few AS jsonb CHECK ((VALUE->>'n')::int < 100);
  PERFORM mako_register_workflow('d@FV2024-10-01', state_type_definition => '{"properties": {"n": {"type": "uint8"}}}');
  CREATE FUNCTION t.apply_few(state t.few, event_type text, payload jsonb) RETURNS t.few LANGUAGE sql STABLE AS 'SELECT state';
  PERFORM mako_register_workflow('d@FV2025-10-01', 't.apply_few', initial_state => '{"n": 0}');
  EXECUTE format('CREATE FUNCTION t.few_of(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS %L', migrate);
  PERFORM mako_register_migration('d@FV2024-10-01', 'd@FV2025-10-01', 't.few_of');
END
$$;
SELECT is(pg_temp.after($$ SELECT t.domain_step('SELECT state') $$), 'error|state_outside_type|d@FV2024-10-01 -> d@FV2025-10-01',
          'a state that the target''s domain does not allow');
SELECT matches(pg_temp.said($$ SELECT t.domain_step('SELECT state') $$, 'state_outside_type'), 'such as \{"n": 255\}\)$', 'which is shown');
SELECT is(pg_temp.after($$ SELECT t.domain_step('SELECT jsonb_build_object(''n'', (state->>''n'')::int % 100)') $$), NULL, 'unlike one that it allows');

-- What only the store knows.
SELECT is(pg_temp.after($$ SELECT t.spawn('bad', 'w@FV2024-10-01', '{Opened,Other}') $$), 'warning|stream_not_folded|w@FV2024-10-01',
          'a stream that cannot be folded');
CREATE FUNCTION t.picky(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN state->'n' = '5' THEN mako_reject('five') ELSE t.migrate_2024(state) END $$;
SELECT is(pg_temp.after($$ SELECT mako_register_migration('w@FV2024-10-01', 'w@FV2025-10-01', 't.picky', replace => true) $$),
          'warning|stream_not_migrated|w@FV2024-10-01 -> w@FV2025-10-01', 'a stream that cannot be migrated, as no generated state showed');

----------------------------------------------------------------------------------------------------
-- The call
----------------------------------------------------------------------------------------------------

SELECT is(pg_temp.error('SELECT * FROM mako_check(NULL)'), '22004|sample must not be null', 'sample is needed');
SELECT is(pg_temp.error('SELECT * FROM mako_check(-1)'), '22023|sample must not be negative|It is -1.', 'and not negative');
BEGIN;
INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('bad', 'w@FV2024-10-01');
SELECT mako_append('bad', 'w@FV2024-10-01', 'Other', '{}');
SELECT is((SELECT count(*) FROM mako_check(0)), 0::bigint, 'without a sample, no stream is folded');
ROLLBACK;
BEGIN READ ONLY;
SELECT count(*) AS seen FROM mako_check() \gset
SELECT count(*) AS locks FROM pg_locks
WHERE pid = pg_backend_pid() AND locktype = 'relation' AND relation = 'mako.stream'::regclass AND mode <> 'AccessShareLock' \gset
ROLLBACK;
SELECT is(:seen, 0, 'it works where nothing may be written');
SELECT is(:locks, 0, 'and locks nothing but for reading');

-- Instances of type definitions are what they say.
SELECT is_empty($$
  SELECT d.definition, i.instance
  FROM (VALUES ('{}'::jsonb), (t.event_type()), (t.state_type('n', 'int8')), ('{"type": "timestamp", "nullable": true}'),
               ('{"definitions": {"tree": {"properties": {"left": {"ref": "tree", "nullable": true}}, "optionalProperties": {"right": {"ref": "tree"}}}},
                  "ref": "tree"}'),
               ('{"values": {"elements": {"type": "float32"}}}'),
               ('{"optionalProperties": {"a": {"enum": ["x", "y"]}, "b": {"type": "uint32"}}, "additionalProperties": true}')) AS d (definition),
       mako_instances(d.definition) AS i
  WHERE NOT mako_is_valid(d.definition, i.instance) $$, 'instances are valid');
SELECT is(pg_temp.rows($$ SELECT instance FROM mako_instances('{"properties": {"a": {"type": "int8"}}, "optionalProperties": {"b": {"enum": ["x", "y"]}}}') $$),
          E'{"a": 1, "b": "x"}\n{"a": 1}\n{"a": 0, "b": "x"}\n{"a": 1, "b": "y"}\n{"a": -128, "b": "x"}\n{"a": 127, "b": "x"}',
          'properties vary one at a time');
SELECT is(pg_temp.rows($$ SELECT variant, count(*) FROM mako_instances(t.event_type()) GROUP BY variant ORDER BY variant COLLATE "C" $$),
          E'Closed|1\nCounting|3\nOpened|3', 'every variant is there');
SELECT is_empty($$ SELECT * FROM mako_instances('{"definitions": {"a": {"properties": {"b": {"ref": "a"}}}}, "ref": "a"}') $$,
                'what has no end has no instance');

-- A stranger owns one table of the store.
BEGIN;
CREATE ROLE mako_test_stranger;
ALTER TABLE mako.snapshot OWNER TO mako_test_stranger;
SELECT is((SELECT string_agg(code, ',') FROM mako_check() WHERE severity = 'error' AND code LIKE 'store%'), 'store_owner', 'one table of a stranger is enough');
SELECT throws_like('SELECT mako_assert_store()', 'the store belongs to role "mako_test_stranger"', 'of which mako_assert_store() tells, too');
ROLLBACK;

SELECT * FROM finish();
