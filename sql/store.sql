-- The store: making and repairing it, and what its tables refuse.

\pset format unaligned
\pset tuples_only on
\pset null '(null)'

SELECT mako_register_workflow('w@FV2024-10-01');
SELECT mako_register_workflow('w@FV2025-10-01');
SELECT mako_register_migration('w@FV2024-10-01', 'w@FV2025-10-01');

--
-- No store, somebody else's schema, a store
--

SELECT test.failure($$ SELECT mako_migrate('w@FV2024-10-01', 'w@FV2025-10-01') $$);

CREATE ROLE regress_mako_owner;
CREATE ROLE regress_mako_writer;
BEGIN;
CREATE SCHEMA mako AUTHORIZATION regress_mako_owner;
GRANT EXECUTE ON FUNCTION mako_create_store TO regress_mako_writer;
SET LOCAL ROLE regress_mako_writer;
SELECT test.failure('SELECT mako_create_store()');
ROLLBACK;
BEGIN;
CREATE SCHEMA mako;
CREATE TABLE mako.stream (id int);
CREATE VIEW mako.something AS SELECT 1 AS one;
SELECT test.failure('SELECT mako_create_store()');
ROLLBACK;
SET ROLE regress_mako_writer;
SELECT test.failure('SELECT mako_create_store()');
RESET ROLE;

SELECT mako_create_store();
SELECT mako_create_store();
SELECT * FROM mako_store_problem();
SELECT c.relname, c.relkind FROM pg_class c WHERE c.relnamespace = 'mako'::regnamespace AND c.relkind IN ('r', 'v')
  ORDER BY c.relname COLLATE "C";
SELECT tgrelid::regclass, tgname FROM pg_trigger WHERE tgrelid::regclass::text ~ '^mako\.' AND NOT tgisinternal
  ORDER BY tgrelid::regclass::text COLLATE "C", tgname::text COLLATE "C";

--
-- Damage: what is repaired, and what is not
--

BEGIN;
DROP VIEW mako.process_identity;
DROP VIEW mako.migrated_stream;
DROP TABLE mako.repointed;
ALTER TABLE mako.event DISABLE TRIGGER event_guard;
ALTER TABLE mako.event ENABLE REPLICA TRIGGER event_inserted;
DROP TRIGGER stream_guard ON mako.stream;
ALTER TABLE mako.stream DROP CONSTRAINT stream_workflow_id_check;
SELECT object, problem, repairable FROM mako_store_problem();
SELECT regexp_replace(test.failure($$ SELECT mako_migrate('w@FV2024-10-01', 'w@FV2025-10-01') $$), 'owner ".*"', 'owner "..."');
SELECT mako_create_store();
SELECT count(*) FROM mako_store_problem();
ROLLBACK;
BEGIN;
ALTER TABLE mako.stream DROP COLUMN created_at;
SELECT object, problem, repairable FROM mako_store_problem();
SELECT test.failure('SELECT mako_create_store()');
ROLLBACK;

--
-- New streams
--

INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('one', 'w@FV2024-10-01'), ('two', 'w@FV2024-10-01');
INSERT INTO mako.stream (stream_id, tenant_id, process_id, workflow_id)
VALUES ('process/00000000-0000-0000-0000-000000000001/00000000-0000-0000-0000-000000000002',
  '00000000-0000-0000-0000-000000000001', '00000000-0000-0000-0000-000000000002', 'other@FV2024-10-01');
SELECT stream_no, stream_id, workflow_id, version FROM mako.stream ORDER BY stream_no;
SELECT test.failure($$ INSERT INTO mako.stream (stream_id, workflow_id, version) VALUES ('n', 'w@FV2024-10-01', 1) $$);
SELECT test.failure($$ INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('n', 'w') $$);
SELECT test.failure($$ INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('n', '') $$);
SELECT test.failure($$ INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('one', 'w@FV2024-10-01') $$);
SELECT split_part(test.failure($$ INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('', 'w@FV2024-10-01') $$), E'\n', 1);
SELECT split_part(test.failure($$ INSERT INTO mako.stream (stream_id, tenant_id, process_id, workflow_id)
  VALUES ('n', '00000000-0000-0000-0000-000000000001', '00000000-0000-0000-0000-000000000002', 'w@FV2024-10-01') $$), E'\n', 1);

--
-- New events: every stream goes on where it was
--

CREATE PROCEDURE test.append(stream_no bigint, VARIADIC numbers bigint[]) LANGUAGE sql AS $$
  INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
  SELECT append.stream_no, n, 'w@FV2024-10-01', 'E', '{}' FROM unnest(numbers) AS n;
$$;
CALL test.append(1, 3, 1, 2);
CALL test.append(1, 4);
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
SELECT s, n, 'w@FV2024-10-01', 'E', '{}' FROM (VALUES (2, 2), (1, 6), (2, 1), (1, 5)) AS v (s, n);
SELECT stream_no, version FROM mako.stream ORDER BY stream_no;

-- gap, duplicate, a start in the middle, below one
SELECT test.failure('CALL test.append(1, 8)');
SELECT test.failure('CALL test.append(1, 7, 9)');
SELECT split_part(test.failure('CALL test.append(1, 6)'), E'\n', 1);
SELECT split_part(test.failure('CALL test.append(1, 7, 7)'), E'\n', 1);
SELECT test.failure('CALL test.append(2, 1000000)');
SELECT split_part(test.failure('CALL test.append(2, 0)'), E'\n', 1);
-- one bad stream refuses the statement
SELECT test.failure($$ INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
  SELECT s, n, 'w@FV2024-10-01', 'E', '{}' FROM (VALUES (1, 7), (2, 4)) AS v (s, n) $$);
-- unknown streams
SELECT test.failure('CALL test.append(99, 1)');
SELECT test.failure($$ INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
  SELECT s, 7, 'w@FV2024-10-01', 'E', '{}' FROM (VALUES (1), (98)) AS v (s) $$);
-- another workflow than the head's; the sequence number does not matter then
SELECT test.failure($$ INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
  VALUES (1, 7, 'w@FV2025-10-01', 'E', '{}') $$);
SELECT test.failure($$ INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
  VALUES (1, 9, 'w@FV2025-10-01', 'E', '{}') $$);
SELECT test.failure($$ INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
  VALUES (1, 7, 'w', 'E', '{}') $$);
-- COPY is a statement, too
COPY mako.event (stream_no, sequence_number, workflow_id, event_type, payload) FROM STDIN;
2	3	w@FV2024-10-01	E	{}
2	4	w@FV2024-10-01	E	{}
\.
COPY mako.event (stream_no, sequence_number, workflow_id, event_type, payload) FROM STDIN;
2	5	w@FV2024-10-01	E	{}
2	7	w@FV2024-10-01	E	{}
\.
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
SELECT 1, 7, 'w@FV2024-10-01', 'E', '{}' WHERE false;
SELECT s.stream_no, s.version, (SELECT count(*) FROM mako.event e WHERE e.stream_no = s.stream_no) FROM mako.stream s
  ORDER BY stream_no;

--
-- What only this extension may change
--

SELECT test.failure('UPDATE mako.event SET payload = ''1''');
SELECT test.failure('DELETE FROM mako.event');
SELECT test.failure('TRUNCATE mako.event');
SELECT test.failure($$ INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
  VALUES (1, 6, 'w@FV2024-10-01', 'E', '{}')
  ON CONFLICT (stream_no, sequence_number) DO UPDATE SET payload = '2' $$);
SELECT test.failure('UPDATE mako.stream SET workflow_id = ''w@FV2025-10-01''');
SELECT test.failure('DELETE FROM mako.stream');
SET client_min_messages = warning;
SELECT test.failure('TRUNCATE mako.stream CASCADE');
RESET client_min_messages;

INSERT INTO mako.snapshot (stream_no, sequence_number, workflow_id, state_schema_version, state)
  VALUES (1, 3, 'w@FV2024-10-01', 1, '{}');
UPDATE mako.snapshot SET state = '{"periodic": true}';
SELECT test.failure($$ INSERT INTO mako.snapshot (stream_no, sequence_number, run_id, workflow_id, state_schema_version,
  state) VALUES (1, 3, 7, 'w@FV2024-10-01', 1, '{}') $$);
SELECT test.failure('TRUNCATE mako.snapshot');
DELETE FROM mako.snapshot;

SELECT test.failure('INSERT INTO mako.repointed VALUES (1, 1, 1)');
SELECT test.failure('UPDATE mako.migration_run SET reason = ''none''');
SELECT test.failure('DELETE FROM mako.migration_error');
SELECT test.failure('TRUNCATE mako.migration_run');

-- after a migration its snapshots and its audit trail stay
CREATE FUNCTION test.apply(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS
  $$ SELECT state || payload $$;
SELECT mako_register_workflow('w@FV2024-10-01', 'test.apply', initial_state => '{}', replace => true);
SELECT (r).migrated, (r).skipped, (r).failed FROM mako_migrate('w@FV2024-10-01', 'w@FV2025-10-01') AS r;
SELECT test.failure('UPDATE mako.snapshot SET state = ''{}''');
SELECT test.failure('INSERT INTO mako.reverted VALUES (1, 1, 2)');
SELECT test.failure('DELETE FROM mako.snapshot WHERE stream_no = 1');
SELECT test.failure('DELETE FROM mako.migration_run');
-- who still writes under the old version finds out
SELECT test.failure('CALL test.append(1, 7)');
SELECT test.failure('CALL test.append(1, 99)');

-- the definitions that the store depends on cannot be forgotten, and are replaced with a warning
SELECT test.failure($$ SELECT mako_unregister_migration('w@FV2024-10-01', 'w@FV2025-10-01') $$);
SELECT mako_register_workflow('unused@FV2024-10-01');
SELECT mako_unregister_workflow('unused@FV2024-10-01');
SELECT mako_register_workflow('other@FV2024-10-01');
SELECT test.failure($$ SELECT mako_unregister_workflow('other@FV2024-10-01') $$);
SELECT mako_register_workflow('w@FV2025-10-01', state_schema_version => 3, replace => true);
CREATE FUNCTION test.migrate(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT state $$;
SELECT mako_register_migration('w@FV2024-10-01', 'w@FV2025-10-01', 'test.migrate', replace => true);

-- a draining version takes no new streams, a retired one nothing
SELECT mako_drain('FV2025-10-01');
SELECT test.failure($$ INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('n', 'w@FV2025-10-01') $$);
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload) VALUES (1, 7, 'w@FV2025-10-01', 'E', '{}');
SELECT stream_no, workflow_id, version FROM mako.stream ORDER BY stream_no;
SELECT mako_exempt('w@FV2025-10-01', 'only a test');
SELECT mako_retire('FV2025-10-01');
SELECT test.failure($$ INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('n', 'w@FV2025-10-01') $$);
SELECT test.failure($$ INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
  VALUES (1, 8, 'w@FV2025-10-01', 'E', '{}') $$);
SELECT test.failure($$ SELECT mako_migrate('w@FV2024-10-01', 'w@FV2025-10-01') $$);
SELECT mako_reactivate('FV2025-10-01');
SELECT mako_unexempt('w@FV2025-10-01');
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload) VALUES (1, 8, 'w@FV2025-10-01', 'E', '{}');
SELECT test.failure($$ INSERT INTO mako.format_version (format_version, status) VALUES ('FV2025-10-01', 'draining') $$);
ALTER TABLE mako.format_version DISABLE TRIGGER format_version_guard;
SELECT test.failure($$ INSERT INTO mako.format_version (format_version, status) VALUES ('FV2025-10-32', 'draining') $$);
SELECT split_part(test.failure($$ INSERT INTO mako.format_version (format_version, status)
  VALUES ('FV2026-10-01', 'gone') $$), E'\n', 1);
DELETE FROM mako.format_version;
ALTER TABLE mako.format_version ENABLE TRIGGER format_version_guard;

--
-- The triggers' functions serve the store only
--

SELECT test.failure('SELECT mako_guard()');
SELECT test.failure('SELECT mako_stream_inserted()');
CREATE TABLE test.event (stream_no text);
CREATE TRIGGER event_inserted AFTER INSERT ON test.event FOR EACH ROW EXECUTE FUNCTION mako_event_inserted();
CREATE TRIGGER event_guard BEFORE DELETE ON test.event FOR EACH ROW EXECUTE FUNCTION mako_guard();
SELECT test.failure('INSERT INTO test.event VALUES (1)');
ALTER TABLE test.event DISABLE TRIGGER event_inserted;
INSERT INTO test.event VALUES (1);
SELECT test.failure('DELETE FROM test.event');
DROP TABLE test.event;
BEGIN;
ALTER TABLE mako.event RENAME COLUMN sequence_number TO number;
SELECT test.failure($$ INSERT INTO mako.event (stream_no, number, workflow_id, event_type, payload)
  VALUES (1, 9, 'w@FV2025-10-01', 'E', '{}') $$);
ROLLBACK;

--
-- Dependents
--

CREATE TABLE test.deadline (process uuid, workflow text, tenant uuid, due timestamptz);
SELECT mako_add_dependent('test.deadline', 'process', 'workflow', 'tenant');
SELECT mako_add_dependent('test.deadline', 'process', 'workflow');
SELECT relation, process_column, workflow_column, tenant_column, owner FROM mako.dependent ORDER BY relation COLLATE "C";
SELECT test.failure($$ SELECT mako_add_dependent(NULL, 'process', 'workflow') $$);
SELECT test.failure($$ SELECT mako_add_dependent('test.deadline', 'proces', 'workflow') $$);
SELECT test.failure($$ SELECT mako_add_dependent('test.deadline', 'process', 'workflow', 'tenants') $$);
SELECT test.failure($$ SELECT mako_add_dependent('test.deadline', 'due', 'workflow') $$);
SELECT test.failure($$ SELECT mako_add_dependent('test.nothing', 'process', 'workflow') $$);
SELECT mako_remove_dependent('test.deadline', 'process', 'workflow'), mako_remove_dependent('test.deadline', 'process', 'workflow');
SELECT mako_remove_dependent(NULL, 'process', 'workflow');
DROP TABLE test.deadline;

--
-- Privileges: a writer needs INSERT on events only, a migration refuses a store of a role that the caller is not a member of
--

GRANT USAGE ON SCHEMA mako TO regress_mako_writer;
GRANT INSERT ON mako.event TO regress_mako_writer;
GRANT EXECUTE ON FUNCTION mako_migrate TO regress_mako_writer;
SET ROLE regress_mako_writer;
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload) VALUES (2, 5, 'w@FV2025-10-01', 'E', '{}');
SELECT test.failure($$ UPDATE mako.event SET payload = '{}' $$);
SELECT test.failure($$ SELECT mako_migrate('w@FV2024-10-01', 'w@FV2025-10-01') $$);
RESET ROLE;
REVOKE EXECUTE ON FUNCTION mako_migrate FROM regress_mako_writer;
SET ROLE regress_mako_writer;
SELECT test.failure($$ SELECT mako_migrate('w@FV2024-10-01', 'w@FV2025-10-01') $$);
RESET ROLE;
GRANT EXECUTE ON FUNCTION mako_migrate TO regress_mako_writer;

BEGIN;
ALTER SCHEMA mako OWNER TO regress_mako_owner;
GRANT ALL ON ALL TABLES IN SCHEMA mako TO regress_mako_writer;
GRANT ALL ON ALL SEQUENCES IN SCHEMA mako TO regress_mako_writer;
GRANT ALL ON SCHEMA mako, test TO regress_mako_writer;
SET LOCAL ROLE regress_mako_writer;
SELECT test.failure($$ SELECT mako_migrate('w@FV2024-10-01', 'w@FV2025-10-01') $$);
RESET ROLE;
GRANT regress_mako_owner TO regress_mako_writer;
SET LOCAL ROLE regress_mako_writer;
SELECT (r).migrated, (r).skipped, (r).failed FROM mako_migrate('w@FV2024-10-01', 'w@FV2025-10-01') AS r;
-- row security raises instead of hiding streams
RESET ROLE;
CREATE POLICY own ON mako.stream USING (tenant_id IS NULL);
ALTER TABLE mako.stream ENABLE ROW LEVEL SECURITY;
SET LOCAL ROLE regress_mako_writer;
SELECT test.failure($$ SELECT mako_migrate('w@FV2024-10-01', 'w@FV2025-10-01') $$);
ROLLBACK;

-- What once slipped through: an event without a workflow id, a periodic snapshot that becomes a migration's, a trigger function on a
-- trigger that it is not made for, a trigger that does something else, a store of a newer extension
SELECT test.failure($$ INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
                       VALUES (1, 99, '', 'E', '{}') $$);
BEGIN;
INSERT INTO mako.snapshot (stream_no, sequence_number, workflow_id, state_schema_version, state)
VALUES (1, 1, 'w@FV2024-10-01', 1, '{}');
SELECT test.failure('UPDATE mako.snapshot SET run_id = 77 WHERE run_id = 0');
CREATE TRIGGER by_row AFTER INSERT ON mako.event FOR EACH ROW EXECUTE FUNCTION mako_event_inserted();
SELECT test.failure($$ INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
                       VALUES (1, 99, 'w@FV2024-10-01', 'E', '{}') $$);
DROP TRIGGER by_row ON mako.event;
DROP TRIGGER event_inserted ON mako.event;
CREATE TRIGGER event_inserted BEFORE DELETE ON mako.event FOR EACH STATEMENT EXECUTE FUNCTION mako_guard('Other.');
SELECT * FROM mako_store_problem();
SELECT mako_create_store();
SELECT * FROM mako_store_problem();
CREATE OR REPLACE FUNCTION mako.layout_version() RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 99';
SELECT test.failure('SELECT mako_create_store()');
ROLLBACK;

-- A role whose name needs quotes
BEGIN;
CREATE ROLE "Regress Mako";
ALTER SCHEMA mako OWNER TO "Regress Mako";
GRANT ALL ON ALL TABLES IN SCHEMA mako TO "Regress Mako";
GRANT EXECUTE ON FUNCTION mako_create_store TO "Regress Mako";
SET LOCAL ROLE "Regress Mako";
SELECT mako_create_store();
ROLLBACK;

SET client_min_messages = warning;
DROP SCHEMA mako CASCADE;
DO $$
BEGIN
  PERFORM mako_unregister_migration(source_wf, target_wf) FROM mako_state_migration;
  PERFORM mako_unregister_workflow(workflow_id) FROM mako_workflow;
END
$$;
DROP FUNCTION test.apply, test.migrate;
DROP PROCEDURE test.append;
REVOKE EXECUTE ON FUNCTION mako_migrate FROM regress_mako_writer;
DROP ROLE regress_mako_owner, regress_mako_writer;
