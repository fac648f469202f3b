-- What the extension is made of: signatures, types, tables, privileges, comments, and that any schema will do.
-- Runs in an empty database.

CREATE EXTENSION pgtap;
CREATE EXTENSION mako_migration;

SELECT plan(154);

-- Everything that is a member of the extension.
-- Some minor releases list the types that come with tables and types as members too, which says nothing more.
CREATE TEMPORARY VIEW member AS
SELECT d.classid, d.objid
FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'mako_migration'
  AND NOT EXISTS (SELECT FROM pg_depend i
                  WHERE d.classid = 'pg_type'::regclass AND i.classid = d.classid AND i.objid = d.objid AND i.deptype = 'i'
                    AND (i.refclassid = d.classid OR (SELECT relkind FROM pg_class WHERE oid = i.refobjid) IN ('r', 'v')));

CREATE TEMPORARY VIEW member_function AS
SELECT p.* FROM pg_proc p JOIN member m ON m.objid = p.oid AND m.classid = 'pg_proc'::regclass;

-- 14 marks the arguments of procedures.
CREATE FUNCTION pg_temp.arguments(function oid) RETURNS text LANGUAGE sql AS $$ SELECT replace(pg_get_function_arguments(function), 'IN ', '') $$;

CREATE TEMPORARY VIEW member_table AS
SELECT c.* FROM pg_class c JOIN member m ON m.objid = c.oid AND m.classid = 'pg_class'::regclass;

CREATE TEMPORARY VIEW member_column AS
SELECT c.relname, c.relkind, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull,
       pg_get_expr(d.adbin, d.adrelid) COLLATE "default" AS default_value
FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.oid IN (SELECT oid FROM member_table)
   OR c.reltype IN (SELECT objid FROM member WHERE classid = 'pg_type'::regclass);

----------------------------------------------------------------------------------------------------
-- Functions
----------------------------------------------------------------------------------------------------

CREATE TEMPORARY TABLE expected_function (name, arguments, result, kind, volatility, strict, parallel) AS VALUES
  -- ids
  ('mako_assert_format_version', 'value text', 'boolean', 'f', 'i', true, 's'),
  ('mako_assert_workflow_id', 'value text', 'boolean', 'f', 'i', true, 's'),
  ('mako_workflow_name', 'workflow_id mako_workflow_id', 'text', 'f', 'i', true, 's'),
  ('mako_workflow_version', 'workflow_id mako_workflow_id', 'mako_format_version', 'f', 'i', true, 's'),
  -- definitions
  ('mako_register_workflow',
   'workflow_id mako_workflow_id, apply text DEFAULT NULL::text, upcast text DEFAULT NULL::text, '
   'in_flight text DEFAULT NULL::text, initial_state jsonb DEFAULT NULL::jsonb, '
   'state_schema_version integer DEFAULT 1, event_type_definition jsonb DEFAULT NULL::jsonb, '
   'state_type_definition jsonb DEFAULT NULL::jsonb, replace boolean DEFAULT false',
   'void', 'f', 'v', false, 'u'),
  ('mako_unregister_workflow', 'workflow_id mako_workflow_id', 'void', 'f', 'v', false, 'u'),
  ('mako_register_migration',
   'source_wf mako_workflow_id, target_wf mako_workflow_id, migrate text DEFAULT NULL::text, replace boolean DEFAULT false',
   'void', 'f', 'v', false, 'u'),
  ('mako_unregister_migration', 'source_wf mako_workflow_id, target_wf mako_workflow_id', 'void', 'f', 'v', false, 'u'),
  ('mako_fingerprint', 'source_wf mako_workflow_id, target_wf mako_workflow_id', 'text', 'f', 's', true, 's'),
  -- report
  ('mako_is_ok', 'report mako_migration_report', 'boolean', 'f', 'i', false, 's'),
  ('mako_assert_ok', 'report mako_migration_report', 'mako_migration_report', 'f', 's', false, 's'),
  ('mako_format', 'report mako_migration_report', 'text', 'f', 's', true, 's'),
  ('mako_merge', 'a mako_migration_report, b mako_migration_report', 'mako_migration_report', 'f', 'i', true, 's'),
  ('mako_merge', 'mako_migration_report', 'mako_migration_report', 'a', 'i', false, 's'),
  -- migration
  ('mako_migrate',
   'source_wf mako_workflow_id, target_wf mako_workflow_id, tenant_id uuid DEFAULT NULL::uuid, '
   'update_registry boolean DEFAULT true, in_flight_only boolean DEFAULT false, max_errors bigint DEFAULT NULL::bigint, '
   'expect text DEFAULT NULL::text, reason text DEFAULT NULL::text',
   'mako_migration_report', 'f', 'v', false, 'u'),
  -- before a migration
  ('mako_plan',
   'source_wf mako_workflow_id, target_wf mako_workflow_id, tenant_id uuid DEFAULT NULL::uuid, in_flight_only boolean DEFAULT false',
   'TABLE(step integer, kind text, source_wf text, target_wf text, function text, evaluation text, streams bigint, in_flight bigint, '
   'events bigint, scan_order text, workers text, blockers text[], fingerprint text)', 'f', 's', false, 'u'),
  ('mako_dry_run',
   'source_wf mako_workflow_id, target_wf mako_workflow_id, tenant_id uuid DEFAULT NULL::uuid, in_flight_only boolean DEFAULT false, '
   'sample bigint DEFAULT NULL::bigint, seed bigint DEFAULT 0',
   'TABLE(stream_id text, sequence_number bigint, old_state jsonb, new_state jsonb, changes jsonb, error mako_migration_error)',
   'f', 's', false, 'u'),
  ('mako_dry_run_summary',
   'source_wf mako_workflow_id, target_wf mako_workflow_id, tenant_id uuid DEFAULT NULL::uuid, in_flight_only boolean DEFAULT false, '
   'sample bigint DEFAULT NULL::bigint, seed bigint DEFAULT 0',
   'TABLE(outcome text, phase text, sqlstate text, message text, streams bigint, example text)', 'f', 's', false, 'u'),
  ('mako_merge_patch', 'source jsonb, target jsonb', 'jsonb', 'f', 'i', true, 's'),
  -- proofs and pictures
  ('mako_verify', 'run_id bigint',
   'TABLE(stream_id text, sequence_number bigint, problem text, stored jsonb, computed jsonb, differs_from bigint)', 'f', 's', false, 'u'),
  ('mako_verify_snapshots', 'workflow_id mako_workflow_id',
   'TABLE(stream_id text, sequence_number bigint, problem text, stored jsonb, computed jsonb, differs_from bigint)', 'f', 's', false, 'u'),
  ('mako_transitions', 'workflow_id mako_workflow_id, tag text DEFAULT ''status''::text',
   'TABLE(from_state text, event_type text, to_state text, count bigint)', 'f', 's', false, 'u'),
  ('mako_transition_rows', 'workflow_id mako_workflow_id, tag text',
   'TABLE(from_state text, event_type text, to_state text, count bigint, rests boolean)', 'f', 's', false, 'u'),
  ('mako_state_diagram', 'workflow_id mako_workflow_id, tag text DEFAULT ''status''::text', 'text', 'f', 's', false, 'u'),
  ('mako_revert', 'run_id bigint, reason text DEFAULT NULL::text', 'mako_migration_report', 'f', 'v', false, 'u'),
  ('mako_history', 'stream_id text',
   'TABLE(at timestamp with time zone, kind text, sequence_number bigint, workflow_id text, event_type text, run_id bigint, '
   'role text, reason text)', 'f', 's', false, 'r'),
  ('mako_history_rows', 'stream_id text',
   'TABLE(at timestamp with time zone, kind text, sequence_number bigint, workflow_id text, event_type text, run_id bigint, '
   'role text, reason text)', 'f', 's', false, 's'),
  -- for authors
  ('mako_reject', 'reason text', 'jsonb', 'f', 's', false, 's'),
  ('mako_required', 'value jsonb, VARIADIC path text[]', 'jsonb', 'f', 's', false, 's'),
  ('mako_fold', 'workflow_id mako_workflow_id, events jsonb', 'jsonb', 'f', 's', true, 's'),
  ('mako_migrate_state', 'source_wf mako_workflow_id, target_wf mako_workflow_id, state jsonb', 'jsonb', 'f', 's', true, 's'),
  ('mako_explain_function', 'function regprocedure',
   'TABLE(call text, evaluation text, calls integer, reason text, hint text)', 'f', 's', true, 'u'),
  ('mako_is_valid', 'type_definition jsonb, instance jsonb', 'boolean', 'f', 'i', true, 's'),
  ('mako_validate', 'type_definition jsonb, instance jsonb', 'TABLE(instance_path text, schema_path text)', 'f', 'i', true, 's'),
  ('mako_instances', 'type_definition jsonb', 'TABLE(variant text, instance jsonb)', 'f', 'i', true, 's'),
  -- diagnostics
  ('mako_step_finding', 'retired text[]',
   'TABLE(severity text, code text, subject text, message text, hint text)', 'f', 's', false, 's'),
  ('mako_store_finding', '', 'TABLE(severity text, code text, subject text, message text, hint text)', 'f', 's', false, 'u'),
  ('mako_store_finding_rows', '', 'TABLE(severity text, code text, subject text, message text, hint text)', 'f', 's', false, 's'),
  ('mako_check', 'sample integer DEFAULT 100',
   'TABLE(severity text, code text, subject text, message text, hint text)', 'f', 's', false, 'u'),
  -- processes, routing, format versions, import
  ('mako_register_migrations',
   'source_fv mako_format_version, target_fv mako_format_version, workflow_names text[]',
   'bigint', 'f', 'v', true, 'u'),
  ('mako_version_fingerprint', 'source_fv mako_format_version, target_fv mako_format_version', 'text', 'f', 's', true, 's'),
  ('mako_exempt', 'workflow_id mako_workflow_id, reason text', 'void', 'f', 'v', false, 'u'),
  ('mako_unexempt', 'workflow_id mako_workflow_id', 'void', 'f', 'v', false, 'u'),
  ('mako_set_dispatch',
   'workflow_id mako_workflow_id, policy text, format_versions mako_format_version[] DEFAULT '
   'NULL::mako_format_version[]',
   'void', 'f', 'v', false, 'u'),
  ('mako_migrate_version',
   'source_fv mako_format_version, target_fv mako_format_version, tenant_id uuid DEFAULT NULL::uuid, '
   'update_registry boolean DEFAULT true, in_flight_only boolean DEFAULT false, max_errors bigint DEFAULT '
   'NULL::bigint, expect text DEFAULT NULL::text, reason text DEFAULT NULL::text',
   'SETOF mako_migration_report', 'f', 'v', false, 'u'),
  ('mako_migrate_batched',
   'source_wf mako_workflow_id, target_wf mako_workflow_id, batch_size integer DEFAULT 1000, tenant_id uuid DEFAULT NULL::uuid, '
   'in_flight_only boolean DEFAULT false, max_errors bigint DEFAULT NULL::bigint, pause interval DEFAULT ''00:00:00''::interval, '
   'lock_timeout interval DEFAULT ''00:00:01''::interval, expect text DEFAULT NULL::text, reason text DEFAULT NULL::text, '
   'INOUT report mako_migration_report DEFAULT NULL::mako_migration_report',
   NULL, 'p', 'v', false, 'u'),
  ('mako_migrate_version_batched',
   'source_fv mako_format_version, target_fv mako_format_version, batch_size integer DEFAULT 1000, tenant_id uuid DEFAULT NULL::uuid, '
   'in_flight_only boolean DEFAULT false, max_errors bigint DEFAULT NULL::bigint, pause interval DEFAULT ''00:00:00''::interval, '
   'lock_timeout interval DEFAULT ''00:00:01''::interval, expect text DEFAULT NULL::text, reason text DEFAULT NULL::text, '
   'INOUT reports mako_migration_report[] DEFAULT NULL::mako_migration_report[]',
   NULL, 'p', 'v', false, 'u'),
  ('mako_source_lock', 'workflow_id text', 'bigint', 'f', 'i', true, 's'),
  ('mako_current_progress', '',
   'TABLE(run_id bigint, kind text, source_wf text, target_wf text, done bigint, total bigint, failed bigint, '
   'rate double precision, started_at timestamp with time zone, estimated_end timestamp with time zone, pid integer)',
   'f', 's', false, 'r'),
  ('mako_coverage',
   'format_version mako_format_version',
   'TABLE(workflow_id text, streams bigint, in_flight bigint, decision text, targets text[], reason text)', 'f', 's', true, 'u'),
  ('mako_drain', 'format_version mako_format_version, reason text DEFAULT NULL::text', 'void', 'f', 'v', false, 'u'),
  ('mako_retire',
   'format_version mako_format_version, reason text DEFAULT NULL::text, messages_until timestamp with time zone '
   'DEFAULT NULL::timestamp with time zone',
   'void', 'f', 'v', false, 'u'),
  ('mako_reactivate', 'format_version mako_format_version, reason text DEFAULT NULL::text', 'void', 'f', 'v', false, 'u'),
  ('mako_spawn',
   'workflow_id mako_workflow_id, tenant_id uuid, process_id uuid DEFAULT gen_random_uuid()',
   'text', 'f', 'v', false, 'u'),
  ('mako_append',
   'stream_id text, workflow_id mako_workflow_id, event_type text, payload jsonb, expected_version bigint DEFAULT '
   'NULL::bigint, schema_version integer DEFAULT 1, event_id uuid DEFAULT NULL::uuid, correlation_id uuid DEFAULT '
   'NULL::uuid, causation_id uuid DEFAULT NULL::uuid, conversation_id uuid DEFAULT NULL::uuid',
   'bigint', 'f', 'v', false, 'u'),
  ('mako_append_batch',
   'stream_id text, workflow_id mako_workflow_id, events mako_new_event[], expected_version bigint DEFAULT '
   'NULL::bigint',
   'bigint', 'f', 'v', false, 'u'),
  ('mako_state',
   'stream_id text, OUT state jsonb, OUT sequence_number bigint, OUT workflow_id text, OUT state_schema_version '
   'integer',
   'record', 'f', 's', false, 'u'),
  ('mako_resume',
   'stream_id text',
   'TABLE(sequence_number bigint, workflow_id text, state jsonb, state_schema_version integer, event_id uuid, '
   'recorded_at timestamp with time zone, event_type text, schema_version integer, payload jsonb, correlation_id '
   'uuid, causation_id uuid, conversation_id uuid)', 'f', 's', false, 'u'),
  ('mako_load',
   'stream_id text, after bigint DEFAULT 0',
   'TABLE(sequence_number bigint, event_id uuid, recorded_at timestamp with time zone, workflow_id text, '
   'event_type text, schema_version integer, payload jsonb, correlation_id uuid, causation_id uuid, '
   'conversation_id uuid)', 'f', 's', false, 'r'),
  ('mako_trace',
   'stream_id text',
   'TABLE(sequence_number bigint, event_type text, workflow_id text, run_id bigint, state jsonb)', 'f', 's', false, 'r'),
  ('mako_take_snapshot', 'stream_id text', 'bigint', 'f', 'v', false, 'u'),
  ('mako_save_snapshot',
   'stream_id text, sequence_number bigint, workflow_id mako_workflow_id, state_schema_version integer, state '
   'jsonb',
   'void', 'f', 'v', false, 'u'),
  ('mako_prune_snapshots', 'keep integer', 'bigint', 'f', 'v', true, 'u'),
  ('mako_lookup',
   'tenant_id uuid, key text, format_version mako_format_version DEFAULT NULL::text',
   'TABLE(stream_id text, process_id uuid, workflow_id text, version bigint)', 'f', 's', false, 'u'),
  ('mako_register_key',
   'tenant_id uuid, key text, stream_id text, expires_at timestamp with time zone DEFAULT NULL::timestamp with '
   'time zone',
   'void', 'f', 'v', false, 'u'),
  ('mako_unregister_key', 'tenant_id uuid, key text', 'boolean', 'f', 'v', true, 'u'),
  ('mako_expire_keys', '', 'bigint', 'f', 'v', false, 'u'),
  ('mako_add_tag', 'tenant_id uuid, tag text, stream_id text', 'boolean', 'f', 'v', false, 'u'),
  ('mako_find_tag',
   'tenant_id uuid, tag text',
   'TABLE(stream_id text, process_id uuid, workflow_id text, version bigint)', 'f', 's', true, 'r'),
  ('mako_remove_tag', 'tenant_id uuid, tag text, stream_id text', 'boolean', 'f', 'v', true, 'u'),
  ('mako_stream_of', 'tenant_id uuid, stream_id text', 'bigint', 'f', 's', false, 'r'),
  ('mako_adopt_events', 'OUT streams bigint, OUT events bigint, OUT spanning bigint', 'record', 'f', 'v', false, 'u'),
  -- store
  ('mako_stream_inserted', '', 'trigger', 'f', 'v', false, 'u'),
  ('mako_event_inserted', '', 'trigger', 'f', 'v', false, 'u'),
  ('mako_snapshot_saved', '', 'trigger', 'f', 'v', false, 'u'),
  ('mako_guard', '', 'trigger', 'f', 'v', false, 'u'),
  ('mako_attached_inserted', '', 'trigger', 'f', 'v', false, 'u'),
  ('mako_attached_changed', '', 'trigger', 'f', 'v', false, 'u'),
  ('mako_is_attached', '', 'boolean', 'f', 's', false, 's'),
  ('mako_attach_store',
   'query text, initial mako_workflow_id, appended_to regclass DEFAULT NULL::regclass, wait boolean DEFAULT true',
   'TABLE(streams bigint, events bigint, damaged bigint)', 'f', 'v', false, 'u'),
  ('mako_detach_store', '', 'void', 'f', 'v', false, 'u'),
  ('mako_attach_again', '', 'void', 'f', 'v', false, 'u'),
  ('mako_attach_rows', 'query text, initial text, appended_to regclass, wait boolean, path text[]',
   'TABLE(target regclass, streams bigint, events bigint, damaged bigint)', 'f', 'v', false, 'u'),
  ('mako_detach_rows', 'target regclass', 'void', 'f', 'v', false, 'u'),
  ('mako_attach_heads', 'initial text, OUT streams bigint, OUT events bigint, OUT damaged bigint, OUT gone bigint', 'record', 'f', 'v', false, 'u'),
  ('mako_attached_table', 'appended_to regclass', 'regclass', 'f', 's', false, 's'),
  ('mako_attached_plan', '', 'jsonb', 'f', 'v', false, 'u'),
  ('mako_attached_problem', '', 'TABLE(object text, problem text, repairable boolean)', 'f', 's', false, 's'),
  ('mako_replace_event', 'definition text', 'void', 'f', 'v', false, 'u'),
  ('mako_store_object', '',
   'TABLE(ordinal integer, kind text, relation text, name text, definition text)', 'f', 's', false, 's'),
  ('mako_sequence_problem', '', 'TABLE(object text, problem text, repairable boolean)', 'f', 's', false, 's'),
  ('mako_advance_sequences', '', 'void', 'f', 'v', false, 'u'),
  ('mako_store_problem', '', 'TABLE(object text, problem text, repairable boolean)', 'f', 's', false, 's'),
  ('mako_store_column', '',
   'TABLE(relation text, name text, type regtype, not_null boolean, problem text, relation_problem text)', 'f', 's', false, 's'),
  ('mako_store_layout', '', 'integer', 'f', 's', false, 's'),
  ('mako_open_schema', '', 'text', 'f', 's', false, 's'),
  ('mako_grant_triggers', '', 'void', 'f', 'v', false, 'u'),
  ('mako_assert_delegated', '', 'void', 'f', 's', false, 'r'),
  ('mako_remembered_relation', 'relation text, relation_identity text', 'oid', 'f', 's', true, 's'),
  ('mako_dependent_problem',
   'relation oid, process_column text, workflow_column text, tenant_column text, OUT sqlstate text, OUT problem text, '
   'OUT hint text, OUT process_type oid', 'record', 'f', 's', false, 's'),
  ('mako_assert_store', '', 'void', 'f', 's', false, 's'),
  ('mako_create_store', '', 'void', 'f', 'v', false, 'u'),
  ('mako_create_rows', '', 'void', 'f', 'v', false, 'u'),
  ('mako_add_dependent',
   'relation regclass, process_column name, workflow_column name, tenant_column name DEFAULT NULL::name',
   'void', 'f', 'v', false, 'u'),
  ('mako_remove_dependent', 'relation text, process_column name, workflow_column name', 'boolean', 'f', 'v', true, 'u'),
  -- sinks
  ('mako_add_sink', 'statement text, undo text DEFAULT NULL::text, lock text DEFAULT NULL::text', 'integer', 'f', 'v', false, 'u'),
  ('mako_remove_sink', 'sink_no integer', 'boolean', 'f', 'v', true, 'u');

SELECT set_eq(
  $$ SELECT proname::text, pg_temp.arguments(oid) FROM member_function $$,
  $$ SELECT name, arguments FROM expected_function $$,
  'the functions are these, with these arguments and defaults');

-- One assertion a function, so that a failure names it.
SELECT results_eq(
  format($$ SELECT pg_get_function_result(oid), prokind::text, provolatile::text, proisstrict, proparallel::text
            FROM member_function WHERE proname = %L AND pg_temp.arguments(oid) = %L $$, name, arguments),
  format($$ VALUES (%L::text, %L::text, %L::text, %L::boolean, %L::text) $$, result, kind, volatility, strict, parallel),
  format('%s(%s): result, kind, volatility, strictness, parallel safety', name, left(arguments, 40)))
FROM expected_function
ORDER BY name COLLATE "C", kind COLLATE "C";

SELECT is_empty(
  $$ SELECT oid::regprocedure FROM member_function WHERE prosecdef $$,
  'nothing runs with other rights than the caller''s');

SELECT set_eq(
  $$ SELECT proname::text FROM member_function WHERE NOT has_function_privilege('public', oid, 'EXECUTE') $$,
  ARRAY['mako_register_workflow', 'mako_unregister_workflow', 'mako_register_migration', 'mako_unregister_migration',
        'mako_migrate', 'mako_create_store', 'mako_add_dependent', 'mako_remove_dependent', 'mako_add_sink', 'mako_remove_sink',
        'mako_register_migrations', 'mako_exempt', 'mako_unexempt', 'mako_set_dispatch', 'mako_migrate_version', 'mako_drain',
        'mako_retire', 'mako_reactivate', 'mako_spawn', 'mako_append', 'mako_append_batch', 'mako_take_snapshot',
        'mako_save_snapshot', 'mako_prune_snapshots', 'mako_register_key', 'mako_unregister_key', 'mako_expire_keys',
        'mako_add_tag', 'mako_remove_tag', 'mako_adopt_events', 'mako_migrate_batched', 'mako_migrate_version_batched', 'mako_revert',
        'mako_stream_inserted', 'mako_event_inserted', 'mako_snapshot_saved', 'mako_guard',
        'mako_attached_inserted', 'mako_attached_changed', 'mako_attach_store', 'mako_detach_store'],
  'what changes data or definitions is revoked from PUBLIC, and nothing else');

SELECT is_empty(
  $$ SELECT oid::regprocedure, a.grantee FROM member_function, aclexplode(proacl) a
     WHERE a.grantee NOT IN (0, proowner) $$,
  'nobody but the owner and PUBLIC is granted a function');

----------------------------------------------------------------------------------------------------
-- Domains and types
----------------------------------------------------------------------------------------------------

SELECT results_eq(
  $$ SELECT t.typname::text COLLATE "default", format_type(t.typbasetype, -1), c.collname::text COLLATE "default", t.typnotnull,
            k.conname::text COLLATE "default"
     FROM pg_type t JOIN member m ON m.objid = t.oid AND m.classid = 'pg_type'::regclass
     JOIN pg_collation c ON c.oid = t.typcollation
     LEFT JOIN pg_constraint k ON k.contypid = t.oid
     WHERE t.typtype = 'd' ORDER BY t.typname COLLATE "C" $$,
  $$ VALUES ('mako_format_version', 'text', 'C', false, 'mako_format_version_check'),
            ('mako_workflow_id', 'text', 'C', false, 'mako_workflow_id_check') $$,
  'ids are domains over text in byte order, with one check');

SELECT lives_ok($$ SELECT 'FV2024-02-29'::mako_format_version, 'ü:1/x@FV2000-01-01'::mako_workflow_id $$, 'good ids are taken');
SELECT throws_ok($$ SELECT 'FV2025-02-29'::mako_format_version $$, '22P02', 'invalid format version: "FV2025-02-29"',
                 'a date that is none is refused by name');
SELECT throws_ok($$ SELECT 'a b@FV2025-10-01'::mako_workflow_id $$, '22P02', 'invalid workflow id: "a b@FV2025-10-01"',
                 'white space in a name is refused');
SELECT throws_ok($$ SELECT ''::mako_workflow_id $$, '22P02', NULL, 'an empty id is refused');
SELECT throws_ok($$ SELECT mako_workflow_version('@FV2025-10-01') $$, '22P02', NULL, 'functions over ids check them too');
SELECT is(mako_workflow_name('gpke-supplier-change@FV2025-10-01'), 'gpke-supplier-change', 'the name of a workflow id');
SELECT is(mako_workflow_version('gpke-supplier-change@FV2025-10-01')::text, 'FV2025-10-01', 'the version of a workflow id');

SELECT results_eq(
  $$ SELECT attname::text COLLATE "default", type FROM member_column WHERE relname = 'mako_migration_report' ORDER BY attnum $$,
  $$ VALUES ('run_id', 'bigint'), ('source_wf', 'mako_workflow_id'), ('target_wf', 'mako_workflow_id'),
            ('migrated', 'bigint'), ('skipped', 'bigint'), ('failed', 'bigint'), ('errors', 'mako_migration_error[]'),
            ('started_at', 'timestamp with time zone'), ('duration', 'interval') $$,
  'mako_migration_report has these attributes in this order');

SELECT results_eq(
  $$ SELECT attname::text COLLATE "default", type FROM member_column WHERE relname = 'mako_migration_error' ORDER BY attnum $$,
  $$ VALUES ('stream_id', 'text'), ('phase', 'text'), ('sequence_number', 'bigint'), ('sqlstate', 'text'),
            ('message', 'text'), ('detail', 'text'), ('hint', 'text'), ('context', 'text') $$,
  'mako_migration_error has these attributes in this order');

SELECT set_eq(
  $$ SELECT t.typname::text, t.typtype::text FROM pg_type t JOIN member m ON m.objid = t.oid AND m.classid = 'pg_type'::regclass $$,
  $$ VALUES ('mako_format_version', 'd'), ('mako_workflow_id', 'd'), ('mako_migration_error', 'c'), ('mako_migration_report', 'c'),
            ('mako_new_event', 'c') $$,
  'there are no other types: base types would bind drivers, dumps and replicas to the library');

----------------------------------------------------------------------------------------------------
-- Definition tables
----------------------------------------------------------------------------------------------------

SELECT set_eq($$ SELECT relname::text, relkind::text FROM member_table $$,
              $$ VALUES ('mako_workflow', 'r'), ('mako_state_migration', 'r'), ('mako_exemption', 'r'), ('mako_sink', 'r'),
                        ('mako_progress', 'v') $$,
              'the definition tables and a view are the only relations of the extension: no sequences');

SELECT results_eq(
  $$ SELECT attname::text COLLATE "default", type, attnotnull, default_value FROM member_column WHERE relname = 'mako_workflow' ORDER BY attnum $$,
  $$ VALUES ('workflow_id', 'mako_workflow_id', true, NULL), ('apply', 'text', false, NULL), ('upcast', 'text', false, NULL),
            ('in_flight', 'text', false, NULL), ('initial_state', 'jsonb', false, NULL),
            ('event_type_definition', 'jsonb', false, NULL), ('state_type_definition', 'jsonb', false, NULL),
            ('state_schema_version', 'integer', true, NULL), ('function_owner', 'text[]', true, NULL),
            ('function_owner_identity', 'text[]', true, NULL), ('fingerprint', 'text', true, NULL), ('registered_by', 'text', true, NULL),
            ('registered_by_identity', 'text', true, NULL),
            ('registered_at', 'timestamp with time zone', true, 'now()'), ('dispatch', 'text', true, '''any''::text'),
            ('dispatch_versions', 'text[]', false, NULL) $$,
  'mako_workflow has these columns');

SELECT results_eq(
  $$ SELECT attname::text COLLATE "default", type, attnotnull, default_value FROM member_column WHERE relname = 'mako_state_migration' ORDER BY attnum $$,
  $$ VALUES ('source_wf', 'mako_workflow_id', true, NULL), ('target_wf', 'mako_workflow_id', true, NULL),
            ('migrate', 'text', false, NULL), ('function_owner', 'text[]', true, NULL),
            ('function_owner_identity', 'text[]', true, NULL), ('fingerprint', 'text', true, NULL), ('registered_by', 'text', true, NULL),
            ('registered_by_identity', 'text', true, NULL), ('registered_at', 'timestamp with time zone', true, 'now()') $$,
  'mako_state_migration has these columns');

SELECT results_eq(
  $$ SELECT attname::text COLLATE "default", type, attnotnull, default_value FROM member_column WHERE relname = 'mako_exemption' ORDER BY attnum $$,
  $$ VALUES ('workflow_id', 'mako_workflow_id', true, NULL), ('reason', 'text', true, NULL),
            ('exempted_by', 'text', true, NULL), ('exempted_by_identity', 'text', true, NULL),
            ('exempted_at', 'timestamp with time zone', true, 'now()') $$,
  'mako_exemption has these columns');

SELECT results_eq(
  $$ SELECT attname::text COLLATE "default", type, attnotnull, default_value FROM member_column WHERE relname = 'mako_sink' ORDER BY attnum $$,
  $$ VALUES ('sink_no', 'integer', true, NULL), ('statement', 'text', true, NULL), ('undo', 'text', false, NULL),
            ('lock', 'text', false, NULL), ('search_path', 'text[]', true, NULL), ('owner', 'text', true, NULL),
            ('owner_identity', 'text', true, NULL), ('added_at', 'timestamp with time zone', true, 'now()'),
            ('removed_at', 'timestamp with time zone', false, NULL) $$,
  'mako_sink has these columns');

SELECT results_eq(
  $$ SELECT attname::text COLLATE "default", type FROM member_column WHERE relname = 'mako_progress' ORDER BY attnum $$,
  $$ VALUES ('run_id', 'bigint'), ('kind', 'text'), ('source_wf', 'text'), ('target_wf', 'text'), ('done', 'bigint'), ('total', 'bigint'),
            ('failed', 'bigint'), ('rate', 'double precision'), ('started_at', 'timestamp with time zone'),
            ('estimated_end', 'timestamp with time zone'), ('pid', 'integer') $$,
  'mako_progress has these columns');

SELECT is_empty(
  $$ SELECT relname, type FROM member_column WHERE type ~ '^reg' $$,
  'no column of a reg* type, which would block pg_upgrade');

SELECT is_empty(
  $$ SELECT t.relname, a.privilege_type FROM member_table t, aclexplode(t.relacl) a
     WHERE a.grantee <> t.relowner AND NOT (a.grantee = 0 AND a.privilege_type = 'SELECT') $$,
  'nobody is granted more than SELECT on a definition table');
SELECT is_empty(
  $$ SELECT relname FROM member_table WHERE NOT has_table_privilege('public', oid, 'SELECT') $$,
  'everybody may read the definitions');

SELECT set_eq(
  $$ SELECT c.relname::text, x.condition
     FROM pg_extension e, unnest(e.extconfig, e.extcondition) AS x (oid, condition) JOIN pg_class c ON c.oid = x.oid
     WHERE e.extname = 'mako_migration' $$,
  $$ VALUES ('mako_workflow', ''), ('mako_state_migration', ''), ('mako_exemption', ''), ('mako_sink', '') $$,
  'the definitions are dumped, all of them');

----------------------------------------------------------------------------------------------------
-- Names and comments
----------------------------------------------------------------------------------------------------

SELECT is_empty(
  $$ SELECT i.type, i.identity FROM member m, pg_identify_object(m.classid, m.objid, 0) i
     WHERE i.type <> 'language' AND coalesce(i.name, i.identity) !~ '^([a-z_]+\.)?mako_' $$,
  'the name of every member begins with mako_');

SELECT is_empty(
  $$ SELECT pg_describe_object(m.classid, m.objid, 0) FROM member m
     WHERE coalesce(obj_description(m.objid, m.classid::regclass::name), '') = '' $$,
  'every function, aggregate, type, domain and table has a comment');

SELECT is_empty(
  $$ SELECT d.description FROM member m JOIN pg_description d ON d.objoid = m.objid AND d.classoid = m.classid AND d.objsubid = 0
     WHERE length(d.description) > 160 OR d.description ~ '\.$' $$,
  'a comment is a phrase that fits a line of \df+');

SELECT is((SELECT extrelocatable FROM pg_extension WHERE extname = 'mako_migration'), false, 'the extension cannot be moved');

SELECT mako_create_store();

SELECT is_empty(
  $$ SELECT c.relname FROM pg_class c
     WHERE c.relnamespace = 'mako'::regnamespace AND c.relkind IN ('r', 'v')
       AND coalesce(obj_description(c.oid, 'pg_class'), '') = '' $$,
  'every table and view of the store has a comment');
SELECT ok(obj_description('mako'::regnamespace, 'pg_namespace') <> '', 'so has the store itself');
SELECT is_empty(
  $$ SELECT pg_describe_object(d.classid, d.objid, 0) FROM pg_depend d
     JOIN member m ON m.classid = d.refclassid AND m.objid = d.refobjid
     JOIN pg_class c ON d.classid = 'pg_class'::regclass AND d.objid = c.oid
     WHERE c.relnamespace = 'mako'::regnamespace $$,
  'no table, column or view of the store hangs on the extension');

----------------------------------------------------------------------------------------------------
-- Any schema will do, and the store outlives the extension
----------------------------------------------------------------------------------------------------

INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('kept', 'w@FV2024-10-01');
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
SELECT stream_no, 1, workflow_id, 'Added', '{"n": 1}' FROM mako.stream;

SET client_min_messages = warning;
DROP EXTENSION mako_migration CASCADE;
RESET client_min_messages;

SELECT results_eq($$ SELECT s.stream_id COLLATE "default", e.payload FROM mako.stream s JOIN mako.event e USING (stream_no) $$,
                  $$ VALUES ('kept', '{"n": 1}'::jsonb) $$,
                  'DROP EXTENSION ... CASCADE takes no row of the store');

CREATE SCHEMA "My Schema";
CREATE EXTENSION mako_migration SCHEMA "My Schema";

SELECT is(current_setting('search_path') ~ 'My', false, '(the extension''s schema is not on the path)');

SELECT set_eq(
  $$ SELECT object, problem, repairable FROM "My Schema".mako_store_problem() $$,
  $$ SELECT format('%s %s on mako.%s', kind, name, relation), 'is missing' AS problem, true AS repairable
     FROM "My Schema".mako_store_object() WHERE kind IN ('trigger', 'constraint') AND definition LIKE '%"My Schema".%' $$,
  'what went with the old extension is missing, and nothing else');
SELECT lives_ok($$ SELECT "My Schema".mako_create_store() $$, 'the store is repaired from there');
SELECT is_empty($$ SELECT * FROM "My Schema".mako_store_problem() $$, 'and complete again');

CREATE SCHEMA "Odd ""App""";
CREATE FUNCTION "Odd ""App"""."Apply It"(state jsonb, event_type text, payload jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE event_type WHEN 'Added' THEN jsonb_build_object('sum', (state->>'sum')::int + (payload->>'n')::int)
                         ELSE "My Schema".mako_reject('no such event') END $$;
-- mako_ functions need no schema in a registered function: theirs is on its path.
SET check_function_bodies = off;
CREATE FUNCTION "Odd ""App""".migrate(state jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$ SELECT jsonb_build_object('total', mako_required(state, 'sum')) $$;
RESET check_function_bodies;

SELECT lives_ok(
  $$ SELECT "My Schema".mako_register_workflow('w@FV2024-10-01', apply => '"Odd ""App"""."Apply It"', initial_state => '{"sum": 0}'),
            "My Schema".mako_register_workflow('w@FV2025-10-01', apply => '"Odd ""App"""."Apply It"(jsonb, text, jsonb)', initial_state => '{"sum": 0}') $$,
  'workflows are registered, functions with odd names too');
SELECT lives_ok(
  $$ SELECT "My Schema".mako_register_migration('w@FV2024-10-01', 'w@FV2025-10-01', '"Odd ""App""".migrate') $$,
  'so is a state migration');
SELECT is("My Schema".mako_fold('w@FV2024-10-01', '[{"event_type": "Added", "payload": {"n": 2}}]'), '{"sum": 2}',
          'a unit test of apply');
SELECT is("My Schema".mako_migrate_state('w@FV2024-10-01', 'w@FV2025-10-01', '{"sum": 2}'), '{"total": 2}',
          'a unit test of migrate');
SELECT throws_ok($$ INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
                    SELECT stream_no, 3, workflow_id, 'Added', '{"n": 1}' FROM mako.stream $$,
                 'XX001', NULL, 'the triggers are those of the new extension');
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
SELECT stream_no, 2, workflow_id, 'Added', '{"n": 40}' FROM mako.stream;
CREATE TEMPORARY TABLE odd_report AS
SELECT r.* FROM "My Schema".mako_migrate('w@FV2024-10-01', 'w@FV2025-10-01',
                  expect => "My Schema".mako_fingerprint('w@FV2024-10-01', 'w@FV2025-10-01')) r;
SELECT results_eq($$ SELECT migrated, skipped, failed FROM odd_report $$, $$ VALUES (1::bigint, 0::bigint, 0::bigint) $$,
                  'the migration runs');
SELECT results_eq($$ SELECT sequence_number, workflow_id COLLATE "default", state FROM mako.snapshot $$,
                  $$ VALUES (2::bigint, 'w@FV2025-10-01', '{"total": 41}'::jsonb) $$,
                  'and leaves its snapshot');
SELECT is("My Schema".mako_is_ok(r), true, 'mako_is_ok')
FROM (SELECT ROW(o.*)::"My Schema".mako_migration_report AS r FROM odd_report o) x;
SELECT matches("My Schema".mako_format("My Schema".mako_assert_ok("My Schema".mako_merge(r, r))),
               '^w@FV2024-10-01 -> w@FV2025-10-01: 2 migrated, 0 skipped, 0 failed in [0-9.]+ s \(run 1\)$',
               'mako_assert_ok, mako_merge and mako_format')
FROM (SELECT ROW(o.*)::"My Schema".mako_migration_report AS r FROM odd_report o) x;
SELECT is((SELECT ("My Schema".mako_merge(r)).migrated
           FROM (SELECT ROW(o.*)::"My Schema".mako_migration_report AS r FROM odd_report o) x), 1::bigint,
          'the aggregate mako_merge');

SELECT * FROM finish();
