-- The three roles of test/examples/roles.sql: each can do what it is for, and is refused (42501) everything else.
-- Runs in an empty database, from the root of the project.

CREATE EXTENSION pgtap;
CREATE SCHEMA "The Extension";
CREATE EXTENSION mako_migration SCHEMA "The Extension";
SET search_path = public, "The Extension";

\ir include/helpers.sql
SET client_min_messages = warning;
SELECT mako_create_store();

-- The author's functions and the application's tables, each in a schema of its own.
CREATE ROLE "roles: Author";
CREATE SCHEMA lib AUTHORIZATION "roles: Author";
CREATE SCHEMA app;
CREATE TABLE app.deadline (stream text, workflow text, tenant uuid, secret text);
SELECT mako_add_dependent('app.deadline', 'stream', 'workflow', 'tenant');
SET ROLE "roles: Author";
CREATE FUNCTION lib.apply(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT state || payload $$;
CREATE FUNCTION lib.migrate(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT state || '{"new": true}' $$;
CREATE FUNCTION lib.in_flight(state jsonb) RETURNS boolean LANGUAGE sql STABLE AS $$ SELECT NOT state ? 'end' $$;
RESET ROLE;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO PUBLIC;

\set author 'roles: Author'
\set operator 'roles: Operator'
\set auditor 'roles: Auditor'
\ir ../examples/roles.sql

-- Executes a statement in another role, whatever becomes of it; the first value of its first row.
CREATE FUNCTION pg_temp.as_role(role text, statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  result text;
BEGIN
  PERFORM set_config('role', role, true);
  EXECUTE statement INTO result;
  PERFORM set_config('role', 'none', true);
  RETURN result;
END
$$;
-- Its SQLSTATE, null when it succeeds, which is undone.
CREATE FUNCTION pg_temp.sqlstate_as(role text, statement text) RETURNS text LANGUAGE sql AS
  $$ SELECT split_part(pg_temp.error(format('SELECT pg_temp.as_role(%L, %L)', role, statement)), '|', 1) $$;

SELECT plan(228);

-- The roles' own work, one after the other, as in a cutover
SELECT pg_temp.as_role(:'author', format('SELECT mako_register_workflow(%L, ''lib.apply'', in_flight => ''lib.in_flight'', initial_state => ''{}'')', 'w@' || v))
FROM unnest('{FV2024-10-01,FV2025-10-01}'::text[]) v;
SELECT pg_temp.as_role(:'author', $$ SELECT mako_register_migration('w@FV2024-10-01', 'w@FV2025-10-01', 'lib.migrate') $$);
INSERT INTO mako.stream (stream_id, workflow_id) SELECT 's' || n, 'w@FV2024-10-01' FROM generate_series(1, 3) n;
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
SELECT stream_no, 1, workflow_id, 'E', '{"a": 1}' FROM mako.stream WHERE stream_id <> 's3';
INSERT INTO app.deadline SELECT stream_id, workflow_id, NULL, 'secret' FROM mako.stream;

-- Again: the schema of the registered functions and another dependent are new.
CREATE TABLE app.note (stream text, workflow text);
INSERT INTO app.note SELECT stream_id, workflow_id FROM mako.stream;
SELECT mako_add_dependent('app.note', 'stream', 'workflow');
\ir ../examples/roles.sql

SELECT is(pg_temp.as_role(:'operator', $$ SELECT migrated FROM mako_migrate('w@FV2024-10-01', 'w@FV2025-10-01') $$), '2', 'the operator migrates');
SELECT is((SELECT count(*) FROM app.deadline WHERE workflow = 'w@FV2025-10-01'), 0::bigint, 'a dependent without tenant stays, because its streams have none');
SELECT is((SELECT count(*) FROM app.note WHERE workflow = 'w@FV2025-10-01'), 3::bigint, 'the other one follows');
SELECT is(pg_temp.as_role(:'operator', $$ SELECT migrated FROM mako_revert(1) $$), '2', 'and reverts');
SELECT is((SELECT count(*) FROM app.note WHERE workflow = 'w@FV2024-10-01'), 3::bigint, 'which it follows, too');
SELECT is(pg_temp.as_role(:'auditor', $$ SELECT string_agg(kind, ' ') FROM mako_history('s1') $$), 'spawned event migrated reverted', 'which the auditor sees');
SELECT is(pg_temp.as_role(:'auditor', $$ SELECT session_role || ' ' || effective_role FROM mako.migration_run WHERE run_id = 2 $$),
          session_user || ' roles: Operator', 'with the role that did it');

-- Who may what: every statement in every role
CREATE TEMPORARY TABLE matrix (n int GENERATED ALWAYS AS IDENTITY, statement text, author boolean, operator boolean, auditor boolean);
INSERT INTO matrix (statement, author, operator, auditor) VALUES
  -- definitions
  ($$SELECT mako_register_workflow('v@FV2024-10-01')$$, true, false, false),
  ($$SELECT mako_register_workflow('v@FV2024-10-01', 'lib.apply', initial_state => '{}')$$, true, false, false),
  ($$SELECT mako_register_workflow('w@FV2024-10-01', replace => true)$$, true, false, false),
  ($$SELECT mako_unregister_workflow('none@FV2024-10-01')$$, NULL, false, false),
  ($$SELECT mako_register_migration('w@FV2025-10-01', 'w@FV2024-10-01', 'lib.migrate')$$, true, false, false),
  ($$SELECT mako_register_migrations('FV2025-10-01', 'FV2024-10-01', '{w}')$$, true, false, false),
  ($$SELECT mako_unregister_migration('none@FV2024-10-01', 'none@FV2025-10-01')$$, NULL, false, false),
  ($$SELECT mako_exempt('w@FV2024-10-01', 'tried')$$, true, false, false),
  ($$SELECT mako_unexempt('w@FV2024-10-01')$$, NULL, false, false),
  ($$SELECT mako_set_dispatch('w@FV2024-10-01', 'pinned')$$, true, false, false),
  ($$SELECT mako_fingerprint('w@FV2024-10-01', 'w@FV2025-10-01')$$, true, true, true),
  ($$SELECT mako_version_fingerprint('FV2024-10-01', 'FV2025-10-01')$$, true, true, true),
  ($$SELECT mako_explain_function('lib.apply'::regproc)$$, true, true, true),
  ($$SELECT mako_fold('w@FV2024-10-01', '[]')$$, true, true, true),
  ($$SELECT mako_migrate_state('w@FV2024-10-01', 'w@FV2025-10-01', '{}')$$, true, true, true),
  ($$SELECT count(*) FROM mako_workflow$$, true, true, true),
  ($$DELETE FROM mako_workflow$$, false, false, false),
  ($$UPDATE mako_state_migration SET migrate = NULL$$, false, false, false),
  ($$SELECT count(*) FROM mako_sink$$, true, true, true),
  ($$DELETE FROM mako_sink$$, false, false, false),
  -- the cutover
  ($$SELECT count(*) FROM mako_check()$$, true, true, true),
  ($$SELECT * FROM mako_migrate('w@FV2024-10-01', 'w@FV2025-10-01')$$, false, true, false),
  ($$SELECT * FROM mako_migrate('w@FV2024-10-01', 'w@FV2025-10-01', in_flight_only => true, update_registry => false)$$, false, true, false),
  ($$SELECT * FROM mako_migrate_version('FV2024-10-01', 'FV2025-10-01')$$, false, true, false),
  ($$SELECT * FROM mako_revert(1)$$, false, true, false),
  ($$SELECT mako_drain('FV2024-10-01')$$, false, true, false),
  ($$SELECT mako_retire('FV2025-10-01')$$, false, true, false),
  ($$SELECT mako_drain('FV2024-10-01'), mako_reactivate('FV2024-10-01')$$, false, true, false),
  -- looking
  ($$SELECT count(*) FROM mako_coverage('FV2024-10-01')$$, true, true, true),
  ($$SELECT count(*) FROM mako_history('s1')$$, true, true, true),
  ($$SELECT count(*) FROM mako_trace('s1')$$, true, true, true),
  ($$SELECT state FROM mako_state('s1')$$, true, true, true),
  ($$SELECT count(*) FROM mako_resume('s1')$$, true, true, true),
  ($$SELECT count(*) FROM mako_load('s1')$$, true, true, true),
  ($$SELECT count(*) FROM mako.migrated_stream$$, true, true, true),
  ($$SELECT count(*) FROM mako.migration_run, mako.migration_error, mako.migration_batch$$, true, true, true),
  ($$SELECT mako_assert_store()$$, true, true, true),
  ($$SELECT count(*) FROM mako_store_problem()$$, true, true, true),
  ($$SELECT count(*) FROM mako_sequence_problem()$$, true, true, true),
  -- nobody's business: customers' keys, the engine's work, the store itself
  ($$SELECT count(*) FROM mako.registry$$, false, false, false),
  ($$SELECT count(*) FROM mako.correlation$$, false, false, false),
  ($$SELECT secret FROM app.deadline$$, false, false, false),
  ($$UPDATE app.deadline SET secret = 'known'$$, false, false, false),
  ($$SELECT mako_spawn('w@FV2024-10-01', gen_random_uuid())$$, false, false, false),
  ($$SELECT mako_append('s1', 'w@FV2024-10-01', 'E', '{}')$$, false, false, false),
  ($$SELECT mako_append_batch('s1', 'w@FV2024-10-01', '{}')$$, false, false, false),
  ($$INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('x', 'w@FV2024-10-01')$$, false, false, false),
  ($$INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload) VALUES (1, 2, 'w@FV2024-10-01', 'E', '{}')$$, false, false, false),
  ($$DELETE FROM mako.event$$, false, false, false),
  ($$DELETE FROM mako.snapshot$$, false, false, false),
  ($$DELETE FROM mako.migration_run$$, false, false, false),
  ($$UPDATE mako.migration_error SET message = ''$$, false, false, false),
  ($$SELECT mako_take_snapshot('s1')$$, false, false, false),
  ($$SELECT mako_save_snapshot('s1', 1, 'w@FV2024-10-01', 1, '{}')$$, false, false, false),
  ($$SELECT mako_prune_snapshots(0)$$, false, false, false),
  ($$SELECT mako_register_key(gen_random_uuid(), 'k', 's1')$$, false, false, false),
  ($$SELECT mako_unregister_key(gen_random_uuid(), 'k')$$, false, false, false),
  ($$SELECT mako_expire_keys()$$, false, false, false),
  ($$SELECT mako_add_tag(gen_random_uuid(), 'k', 's1')$$, false, false, false),
  ($$SELECT mako_remove_tag(gen_random_uuid(), 'k', 's1')$$, false, false, false),
  ($$SELECT mako_adopt_events()$$, false, false, false),
  ($$SELECT mako_create_store()$$, false, false, false),
  ($$SELECT mako_attach_store('SELECT 1', 'w@FV2024-10-01')$$, false, false, false),
  ($$SELECT mako_detach_store()$$, false, false, false),
  ($$SELECT mako_add_dependent('app.deadline', 'stream', 'secret')$$, false, false, false),
  ($$SELECT mako_remove_dependent('app.deadline', 'stream', 'workflow')$$, false, false, false),
  ($$SELECT mako_add_sink('SELECT stream_id FROM moved')$$, true, false, false),
  ($$SELECT mako_remove_sink(1)$$, true, false, false),
  ($$ALTER TABLE mako.stream DISABLE TRIGGER USER$$, false, false, false),
  ($$DROP TABLE mako.migration_run$$, false, false, false),
  ($$CREATE TABLE mako.mine (i int)$$, false, false, false);

-- Null: there is nothing to do, which is an error of its own, but not one of privileges.
SELECT is(coalesce(pg_temp.sqlstate_as(r.role, statement), 'done'),
          CASE r.may WHEN true THEN 'done' WHEN false THEN '42501' ELSE '42704' END, r.role || ': ' || statement)
FROM matrix, LATERAL (VALUES (:'author', author), (:'operator', operator), (:'auditor', auditor)) AS r (role, may)
ORDER BY n, r.role;

-- What is missing ends the whole call, instead of failing every stream.
BEGIN;
REVOKE INSERT ON mako.reverted FROM "roles: Operator";
SELECT is(pg_temp.sqlstate_as(:'operator', 'SELECT mako_revert(1)'), '42501', 'without INSERT on mako.reverted, nothing is reverted');
GRANT INSERT ON mako.reverted TO "roles: Operator";
REVOKE UPDATE ON mako.stream FROM "roles: Operator";
SELECT is(pg_temp.sqlstate_as(:'operator', 'SELECT mako_revert(1)'), '42501', 'nor without UPDATE on the heads');
ROLLBACK;

-- Row security: a revert that would not see every stream is an error; a history shows what the caller may see.
BEGIN;
CREATE POLICY some_streams ON mako.stream USING (stream_id <> 's1');
CREATE POLICY some_events ON mako.event USING (stream_no <> (SELECT stream_no FROM mako.stream WHERE stream_id = 's2'));
ALTER TABLE mako.stream ENABLE ROW LEVEL SECURITY;
SELECT is(pg_temp.sqlstate_as(:'operator', 'SELECT mako_revert(1)'), '42501', 'row security does not hide streams from a revert');
SELECT is(pg_temp.sqlstate_as(:'auditor', $$ SELECT * FROM mako_history('s1') $$), '42704', 'it hides the story of a stream');
ALTER TABLE mako.event ENABLE ROW LEVEL SECURITY;
SELECT is(pg_temp.as_role(:'auditor', $$ SELECT string_agg(kind, ' ') FROM mako_history('s2') $$), 'spawned migrated reverted', 'and parts of it');
ROLLBACK;

-- Whatever changes data or definitions is in the list above.
SELECT is_empty($$ SELECT p.proname FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
                   JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'mako_migration'
                   WHERE NOT has_function_privilege('public', p.oid, 'EXECUTE') AND p.prokind <> 'p' AND p.prorettype <> 'trigger'::regtype
                     AND NOT EXISTS (SELECT FROM matrix m WHERE m.statement ~ ('\m' || p.proname || '\(')) $$,
                'every function that is not for everybody was tried');

-- Procedures commit, so they cannot be tried in here.
SELECT is_empty(format($$ SELECT p.proname FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
                          JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'mako_migration'
                          WHERE p.prokind = 'p' AND (NOT has_function_privilege(%L, p.oid, 'EXECUTE') OR has_function_privilege(%L, p.oid, 'EXECUTE')
                                                     OR has_function_privilege(%L, p.oid, 'EXECUTE')) $$, :'operator', :'author', :'auditor'),
                'every procedure is the operator''s alone');
SELECT is(pg_temp.rows($$ SELECT column_name, privilege_type FROM information_schema.column_privileges
                          WHERE grantee = 'roles: Operator' AND table_name = 'deadline' ORDER BY 1, 2 $$),
          E'stream|SELECT\ntenant|SELECT\nworkflow|SELECT\nworkflow|UPDATE', 'of a dependent, the operator has the columns that it takes');

SELECT * FROM finish();
DROP OWNED BY "roles: Author", "roles: Operator", "roles: Auditor" CASCADE;
DROP ROLE "roles: Author", "roles: Operator", "roles: Auditor";
