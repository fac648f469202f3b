-- Few of many streams match: their heads are found by a census and looked up, their events by index. What is left alone, stays as it is.
-- Runs in an empty database.

CREATE EXTENSION pgtap;
CREATE EXTENSION mako_migration;

SELECT plan(9);

SELECT mako_create_store();

CREATE SCHEMA f;
CREATE FUNCTION f.apply(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT jsonb_set(state, '{list}', state->'list' || (payload->'n')) $$;
SELECT count(mako_register_workflow(name || '@' || version, 'f.apply', initial_state => '{"list": []}'))
FROM unnest('{rare,common,common-too}'::text[]) AS name, unnest('{FV2024-10-01,FV2025-10-01}'::text[]) AS version;
SELECT mako_register_migrations('FV2024-10-01', 'FV2025-10-01', '{rare,common,common-too}');

-- One in fifty is rare; the events of a stream lie far apart.
INSERT INTO mako.stream (stream_id, tenant_id, workflow_id)
SELECT 'stream ' || i, CASE WHEN i % 3 = 0 THEN '00000000-0000-0000-0000-000000000003'::uuid END,
       CASE WHEN i % 50 = 0 THEN 'rare' WHEN i % 2 = 0 THEN 'common' ELSE 'common-too' END || '@FV2024-10-01'
FROM generate_series(1, 1000) AS i;
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
SELECT s.stream_no, n, s.workflow_id, 'Counted', jsonb_build_object('n', n)
FROM generate_series(1, 5) AS n, mako.stream s ORDER BY n, s.stream_no;

SELECT results_eq(
  $$ SELECT migrated, skipped, failed
     FROM mako_migrate('rare@FV2024-10-01', 'rare@FV2025-10-01', tenant_id => '00000000-0000-0000-0000-000000000003') $$,
  'VALUES (6::bigint, 327::bigint, 0::bigint)', 'few streams of one tenant');
SELECT results_eq(
  $$ SELECT migrated, skipped, failed FROM mako_migrate('rare@FV2024-10-01', 'rare@FV2025-10-01') $$,
  'VALUES (14::bigint, 986::bigint, 0::bigint)', 'the few that are left');
SELECT results_eq(
  $$ SELECT migrated, skipped, failed FROM mako_migrate('rare@FV2024-10-01', 'rare@FV2025-10-01') $$,
  'VALUES (0::bigint, 1000::bigint, 0::bigint)', 'none');
SELECT is((SELECT string_agg(DISTINCT n.workflow_id || ' ' || n.state, ', ') FROM mako.snapshot n),
  'rare@FV2025-10-01 {"list": [1, 2, 3, 4, 5]}', 'all events, in their order');
SELECT is((SELECT count(*) FROM mako.stream WHERE workflow_id LIKE 'rare@%' AND stream_no % 50 = 0), 20::bigint, 'of the right streams');
SELECT is((SELECT count(*) FROM mako.stream WHERE workflow_id LIKE '%@FV2024-10-01'), 980::bigint, 'and of no other');

-- A name that begins like another is another.
SELECT is((SELECT string_agg(format('%s %s %s %s', source_wf, migrated, skipped, failed), ', ' ORDER BY source_wf::text COLLATE "C")
           FROM mako_migrate_version('FV2024-10-01', 'FV2025-10-01')),
  'common-too@FV2024-10-01 500 0 0, common@FV2024-10-01 480 0 0, rare@FV2024-10-01 0 20 0',
  'skipped of a version are streams of the workflow''s name');

-- Whoever may read some columns only has statements do the same.
CREATE ROLE few_reader;
GRANT few_reader TO CURRENT_USER;
GRANT USAGE ON SCHEMA mako, f TO few_reader;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public, f, mako TO few_reader;
GRANT SELECT ON mako_workflow, mako_state_migration, mako.dependent, mako.format_version, mako.migration_run, mako.snapshot, mako.reverted TO few_reader;
GRANT SELECT (stream_no, sequence_number, workflow_id, event_type, schema_version, payload) ON mako.event TO few_reader;
GRANT SELECT (stream_no, stream_id, tenant_id, process_id, workflow_id, version) ON mako.stream TO few_reader;
GRANT SELECT, INSERT, UPDATE ON mako.snapshot, mako.migration_run, mako.repointed, mako.migration_error TO few_reader;
GRANT UPDATE ON mako.stream TO few_reader;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA mako TO few_reader;
SELECT mako_register_workflow('rare@FV2026-10-01', 'f.apply', initial_state => '{"list": []}');
SELECT mako_register_migrations('FV2025-10-01', 'FV2026-10-01', '{rare}');
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
SELECT s.stream_no, 6, s.workflow_id, 'Counted', jsonb_build_object('n', 6) FROM mako.stream s WHERE workflow_id = 'rare@FV2025-10-01';
SET ROLE few_reader;
SET client_min_messages = error;
SELECT results_eq(
  $$ SELECT migrated, skipped, failed FROM mako_migrate('rare@FV2025-10-01', 'rare@FV2026-10-01') $$,
  'VALUES (20::bigint, 980::bigint, 0::bigint)', 'with privileges on columns');
RESET client_min_messages;
RESET ROLE;
SELECT results_eq(
  $$ SELECT DISTINCT n.state FROM mako.stream s JOIN mako.snapshot n USING (stream_no) WHERE n.workflow_id = 'rare@FV2026-10-01' $$,
  $$ VALUES ('{"list": [1, 2, 3, 4, 5, 6]}'::jsonb) $$, '… the same states');

SELECT * FROM finish();
