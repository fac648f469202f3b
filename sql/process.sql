-- What an engine calls every day, how a format version ends, and every way in which these calls can fail.

\pset format unaligned
\pset tuples_only on
\pset null '(null)'

-- Without a store
SELECT test.failure($$ SELECT mako_spawn('talk@FV2024-10-01', 'aaaaaaaa-0000-4000-8000-000000000001') $$);
SELECT test.failure($$ SELECT mako_append('one', 'talk@FV2024-10-01', 'Said', '{}') $$);
SELECT test.failure($$ SELECT mako_state('one') $$);
SELECT test.failure($$ SELECT mako_load('one') $$);
SELECT test.failure($$ SELECT mako_lookup('aaaaaaaa-0000-4000-8000-000000000001', 'key') $$);
SELECT test.failure($$ SELECT mako_drain('FV2024-10-01') $$);
SELECT test.failure($$ SELECT mako_coverage('FV2024-10-01') $$);
SELECT test.failure($$ SELECT mako_migrate_version('FV2024-10-01', 'FV2025-10-01') $$);
SELECT test.failure($$ SELECT mako_adopt_events() $$);
SELECT test.failure($$ SELECT mako_exempt('talk@FV2024-10-01', 'no store, and not registered') $$);

SELECT mako_create_store();
CREATE SCHEMA proc;
-- A state is a status and the words said so far; the new version calls them by another name.
CREATE FUNCTION proc.apply_2024(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE event_type
    WHEN 'Said' THEN jsonb_build_object('status', 'Talking', 'words', COALESCE(state->>'words', '') || (payload->>'word'))
    WHEN 'Left' THEN state || '{"status": "Gone"}'
    WHEN 'Refused' THEN mako_reject('not in this house')
  END $$;
CREATE FUNCTION proc.apply_2025(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE event_type
    WHEN 'Said' THEN jsonb_build_object('status', 'Talking', 'text', COALESCE(state->>'text', '') || (payload->>'word'))
    WHEN 'Left' THEN state || '{"status": "Gone"}'
  END $$;
CREATE FUNCTION proc.migrate(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS
  $$ SELECT state - 'words' || jsonb_build_object('text', upper(state->>'words')) $$;
CREATE FUNCTION proc.in_flight(state jsonb) RETURNS boolean LANGUAGE sql STABLE AS $$ SELECT state->>'status' <> 'Gone' $$;
SELECT mako_register_workflow('talk@FV2024-10-01', 'proc.apply_2024', in_flight => 'proc.in_flight', initial_state => '{"status": "New"}');
SELECT mako_register_workflow('talk@FV2025-10-01', 'proc.apply_2025', in_flight => 'proc.in_flight', initial_state => '{"status": "New"}',
  state_schema_version => 2, state_type_definition => '{"properties": {"status": {"type": "string"}}, "optionalProperties": {"text": {"type": "string"}}}');
SELECT mako_register_migration('talk@FV2024-10-01', 'talk@FV2025-10-01', 'proc.migrate');
-- A workflow whose application keeps its apply to itself, and one that nobody has registered
SELECT mako_register_workflow('own@FV2024-10-01');

\set tenant '''aaaaaaaa-0000-4000-8000-000000000001'''
\set other '''aaaaaaaa-0000-4000-8000-000000000002'''

--
-- Starting a process
--

SELECT mako_spawn('talk@FV2024-10-01', :tenant, 'bbbbbbbb-0000-4000-8000-000000000001') AS talk \gset
SELECT :'talk', s.workflow_id, s.version FROM mako.stream s WHERE stream_id = :'talk';
SELECT mako_spawn('own@FV2024-10-01', :tenant, 'bbbbbbbb-0000-4000-8000-000000000002') AS own \gset
INSERT INTO mako.stream (stream_id, tenant_id, process_id, workflow_id)
VALUES ('process/aaaaaaaa-0000-4000-8000-000000000001/bbbbbbbb-0000-4000-8000-000000000003', :tenant, 'bbbbbbbb-0000-4000-8000-000000000003', 'wild@FV2024-10-01')
RETURNING stream_id AS wild \gset
SELECT mako_spawn('talk@FV2024-10-01', :other, 'bbbbbbbb-0000-4000-8000-000000000001') AS foreign_talk \gset
SELECT mako_spawn('talk@FV2024-10-01', :tenant) ~ '^process/aaaaaaaa-0000-4000-8000-000000000001/[0-9a-f-]{36}$';
SELECT test.failure($$ SELECT mako_spawn('talk@FV2024-10-01', 'aaaaaaaa-0000-4000-8000-000000000001', 'bbbbbbbb-0000-4000-8000-000000000001') $$);
SELECT test.failure($$ SELECT mako_spawn('wild@FV2024-10-01', 'aaaaaaaa-0000-4000-8000-000000000001') $$);
SELECT test.failure($$ SELECT mako_spawn('talk', 'aaaaaaaa-0000-4000-8000-000000000001') $$);
SELECT test.failure($$ SELECT mako_spawn('talk@FV2024-10-01', NULL) $$);

--
-- Appending: numbers, expected versions, event ids
--

SELECT mako_append(:'talk', 'talk@FV2024-10-01', 'Said', '{"word": "a"}', 0);
SELECT mako_append(:'talk', 'talk@FV2024-10-01', 'Said', '{"word": "b"}');
SELECT mako_append(:'talk', 'talk@FV2024-10-01', 'Said', '{"word": "c"}', 2, event_id => 'cccccccc-0000-4000-8000-000000000003',
  correlation_id => 'dddddddd-0000-4000-8000-000000000001', causation_id => 'dddddddd-0000-4000-8000-000000000002',
  conversation_id => 'dddddddd-0000-4000-8000-000000000003');
-- the same again: the answer got lost, and whatever has happened since does not matter
SELECT mako_append(:'talk', 'talk@FV2024-10-01', 'Said', '{"word": "c"}', 2, event_id => 'cccccccc-0000-4000-8000-000000000003');
SELECT mako_append_batch(:'talk', 'talk@FV2024-10-01', ARRAY[
  ('Said', '{"word": "d"}', NULL, 'cccccccc-0000-4000-8000-000000000004', NULL, NULL, NULL),
  ('Said', '{"word": "e"}', 1, 'cccccccc-0000-4000-8000-000000000005', NULL, NULL, NULL)]::mako_new_event[], 3);
SELECT mako_append_batch(:'talk', 'talk@FV2024-10-01', ARRAY[
  ('Said', '{"word": "d"}', NULL, 'cccccccc-0000-4000-8000-000000000004', NULL, NULL, NULL),
  ('Said', '{"word": "e"}', 1, 'cccccccc-0000-4000-8000-000000000005', NULL, NULL, NULL)]::mako_new_event[], 3);
SELECT mako_append_batch(:'talk', 'talk@FV2024-10-01', ARRAY[]::mako_new_event[], 5);
SELECT sequence_number, workflow_id, event_type, schema_version, payload, correlation_id, causation_id, conversation_id FROM mako_load(:'talk');
SELECT sequence_number, payload FROM mako_load(:'talk', 3);

CREATE FUNCTION proc.stream(tenant int, process int) RETURNS text LANGUAGE sql IMMUTABLE AS
  $$ SELECT 'process/aaaaaaaa-0000-4000-8000-00000000000' || tenant || '/bbbbbbbb-0000-4000-8000-00000000000' || process $$;
SELECT test.failure($$ SELECT mako_append(proc.stream(1, 1), 'talk@FV2024-10-01', 'Said', '{"word": "x"}', 4) $$);
SELECT test.failure($$ SELECT mako_append(proc.stream(1, 1), 'talk@FV2024-10-01', 'Said', '{"word": "x"}', 0) $$);
SELECT test.failure($$ SELECT mako_append(proc.stream(1, 1), 'talk@FV2024-10-01', 'Said', '{"word": "x"}', -1) $$);
SELECT test.failure($$ SELECT mako_append(proc.stream(1, 1), 'talk@FV2025-10-01', 'Said', '{"word": "x"}') $$);
SELECT test.failure($$ SELECT mako_append(proc.stream(1, 1), 'talk@FV2024-10-01', 'Said', '{"word": "x"}', event_id => 'cccccccc-0000-4000-8000-000000000003') $$);
SELECT test.failure($$ SELECT mako_append(proc.stream(1, 9), 'talk@FV2024-10-01', 'Said', '{"word": "x"}') $$);
SELECT test.failure($$ SELECT mako_append(NULL, 'talk@FV2024-10-01', 'Said', '{"word": "x"}') $$);
SELECT test.failure($$ SELECT mako_append(proc.stream(1, 1), NULL, 'Said', '{"word": "x"}') $$);
SELECT test.failure($$ SELECT mako_append(proc.stream(1, 1), 'talk@FV2024-10-01', NULL, '{"word": "x"}') $$);
SELECT test.failure($$ SELECT mako_append(proc.stream(1, 1), 'talk@FV2024-10-01', 'Said', NULL) $$);
SELECT split_part(test.failure($$ SELECT mako_append(proc.stream(1, 1), 'talk@FV2024-10-01', 'Said', '{}', schema_version => 0) $$), E'\n', 1);
SELECT test.failure($$ SELECT mako_append(proc.stream(1, 1), 'talk@FV2024-13-01', 'Said', '{}') $$);
SELECT test.failure($$ SELECT mako_append_batch(proc.stream(1, 1), 'talk@FV2024-10-01', ARRAY[
  ('Said', '{"word": "e"}', 1, 'cccccccc-0000-4000-8000-000000000005', NULL, NULL, NULL),
  ('Said', '{"word": "f"}', 1, 'cccccccc-0000-4000-8000-000000000006', NULL, NULL, NULL)]::mako_new_event[]) $$);
SELECT test.failure($$ SELECT mako_append_batch(proc.stream(1, 1), 'talk@FV2024-10-01', ARRAY[
  ('Said', '{}', 1, 'cccccccc-0000-4000-8000-000000000007', NULL, NULL, NULL),
  ('Said', '{}', 1, 'cccccccc-0000-4000-8000-000000000007', NULL, NULL, NULL)]::mako_new_event[]) $$);
SELECT test.failure($$ SELECT mako_append_batch(proc.stream(1, 1), 'talk@FV2024-10-01', NULL) $$);
SELECT test.failure($$ SELECT mako_append_batch(proc.stream(1, 1), 'talk@FV2024-10-01', ARRAY[NULL]::mako_new_event[]) $$);
SELECT test.failure($$ SELECT mako_append_batch(proc.stream(1, 1), 'talk@FV2024-10-01', ARRAY[('Said', NULL, 1, NULL, NULL, NULL, NULL)]::mako_new_event[]) $$);
SELECT test.failure($$ SELECT mako_append_batch(proc.stream(1, 1), 'talk@FV2024-10-01', ARRAY[(NULL, '{}', 1, NULL, NULL, NULL, NULL)]::mako_new_event[]) $$);
BEGIN READ ONLY;
SELECT test.failure($$ SELECT mako_append(proc.stream(1, 1), 'talk@FV2024-10-01', 'Said', '{"word": "x"}') $$);
SELECT test.failure($$ SELECT mako_take_snapshot(proc.stream(1, 1)) $$);
SELECT test.failure($$ SELECT mako_drain('FV2024-10-01') $$);
SELECT state FROM mako_state(:'talk');
ROLLBACK;
-- a trigger of somebody else's that swallows the row
BEGIN;
CREATE FUNCTION proc.swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER swallow BEFORE INSERT ON mako.event FOR EACH ROW EXECUTE FUNCTION proc.swallow();
CREATE TRIGGER swallow BEFORE INSERT ON mako.snapshot FOR EACH ROW EXECUTE FUNCTION proc.swallow();
SELECT test.failure($$ SELECT mako_append(proc.stream(1, 1), 'talk@FV2024-10-01', 'Said', '{"word": "x"}') $$);
SELECT test.failure($$ SELECT mako_take_snapshot(proc.stream(1, 1)) $$);
ROLLBACK;
-- one that appends something else to the same stream, in between
BEGIN;
CREATE FUNCTION proc.meddle() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN
    IF NEW.event_type = 'Said' THEN
      INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
      VALUES (NEW.stream_no, NEW.sequence_number, NEW.workflow_id, 'Left', '{}');
    END IF;
    RETURN NEW;
  END $$;
CREATE TRIGGER meddle BEFORE INSERT ON mako.event FOR EACH ROW EXECUTE FUNCTION proc.meddle();
SELECT split_part(test.failure($$ SELECT mako_append(proc.stream(1, 1), 'talk@FV2024-10-01', 'Said', '{"word": "x"}') $$), E'\n', 1);
SELECT s.version, (SELECT count(*) FROM mako.event e WHERE e.stream_no = s.stream_no) FROM mako.stream s WHERE s.stream_id = :'talk';
ROLLBACK;

-- The head is found through every index, wherever its new versions found room: one transaction fills many pages with them.
BEGIN;
CREATE INDEX by_version ON mako.stream (version);
CREATE INDEX by_parity ON mako.stream ((version % 2)) WHERE version > 100;
CREATE INDEX by_block ON mako.stream USING brin (version);
SELECT max(mako_append(:'talk', 'talk@FV2024-10-01', 'Said', to_jsonb(i))) FROM generate_series(6, 505) AS i;
SET LOCAL enable_seqscan = off;
SELECT version FROM mako.stream WHERE stream_id = :'talk';
SELECT version FROM mako.stream WHERE stream_no = 1;
SELECT stream_no FROM mako.stream WHERE version = 505;
SELECT stream_no FROM mako.stream WHERE version % 2 = 1 AND version > 100;
SELECT count(*) FROM mako.stream WHERE version BETWEEN 6 AND 504;
DROP INDEX mako.by_version, mako.by_parity;
SELECT stream_no FROM mako.stream WHERE version = 505;
SELECT mako_append(:'talk', 'talk@FV2024-10-01', 'Said', '{}');
SELECT stream_no FROM mako.stream WHERE version = 506;
ROLLBACK;
-- A foreign key of the heads that is checked at the end sees them, too.
BEGIN;
CREATE TABLE proc.tenant (tenant_id uuid PRIMARY KEY);
ALTER TABLE mako.stream ADD CONSTRAINT tenant FOREIGN KEY (tenant_id) REFERENCES proc.tenant DEFERRABLE INITIALLY DEFERRED NOT VALID;
SELECT mako_append(mako_spawn('talk@FV2024-10-01', :tenant, 'bbbbbbbb-0000-4000-8000-00000000000a'), 'talk@FV2024-10-01', 'Said', '{}');
SELECT split_part(test.failure('SET CONSTRAINTS ALL IMMEDIATE'), E'\n', 1);
ROLLBACK;
-- A check of the owner's holds.
BEGIN;
ALTER TABLE mako.stream ADD CONSTRAINT not_too_long CHECK (version < 6);
SELECT split_part(test.failure($$ SELECT mako_append(proc.stream(1, 1), 'talk@FV2024-10-01', 'Said', '{}') $$), E'\n', 1);
ROLLBACK;
-- Without the trigger nothing is appended.
BEGIN;
ALTER TABLE mako.event DISABLE TRIGGER event_inserted;
SELECT test.failure($$ SELECT mako_append(proc.stream(1, 1), 'talk@FV2024-10-01', 'Said', '{}') $$);
ROLLBACK;
BEGIN;
ALTER TYPE mako_new_event ADD ATTRIBUTE something_else text;
SELECT test.failure($$ SELECT mako_append_batch(proc.stream(1, 1), 'talk@FV2024-10-01', ARRAY[('Said', '{}', 1, NULL, NULL, NULL, NULL, '')]::mako_new_event[]) $$);
ROLLBACK;
-- What somebody hangs on the heads sees them advance.
BEGIN;
CREATE TABLE proc.seen (stream_no bigint, before bigint, after bigint);
CREATE FUNCTION proc.see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO proc.seen VALUES (NEW.stream_no, OLD.version, NEW.version); RETURN NEW; END $$;
CREATE TRIGGER see AFTER UPDATE ON mako.stream FOR EACH ROW EXECUTE FUNCTION proc.see();
SELECT mako_append(:'talk', 'talk@FV2024-10-01', 'Said', '{}');
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload) VALUES (1, 7, 'talk@FV2024-10-01', 'Said', '{}');
SELECT * FROM proc.seen;
ROLLBACK;

--
-- Reading
--

SELECT * FROM mako_state(:'talk');
SELECT sequence_number, workflow_id, state, state_schema_version, event_type, schema_version, payload FROM mako_resume(:'talk');
SELECT * FROM mako_trace(:'talk');
SELECT * FROM mako_state(:'foreign_talk');
SELECT * FROM mako_trace(:'foreign_talk');
SELECT test.failure('SELECT mako_state(''nowhere'')');
SELECT test.failure('SELECT mako_resume(''nowhere'')');
SELECT test.failure('SELECT mako_load(''nowhere'')');
SELECT test.failure('SELECT * FROM mako_trace(''nowhere'')');
SELECT test.failure('SELECT mako_state(NULL)');
SELECT test.failure('SELECT mako_resume(NULL)');
SELECT test.failure('SELECT mako_load(NULL)');
SELECT test.failure('SELECT mako_load(''one'', NULL)');
SELECT test.failure('SELECT mako_trace(NULL)');
SELECT test.failure('SELECT mako_take_snapshot(NULL)');

-- Without apply, the application's own snapshot is the state.
SELECT * FROM mako_state(:'own');
SELECT mako_append(:'own', 'own@FV2024-10-01', 'Any', '{}');
SELECT test.failure('SELECT mako_state(proc.stream(1, 2))');
SELECT sequence_number, workflow_id, state, state_schema_version, event_type FROM mako_resume(:'own');
SELECT mako_save_snapshot(:'own', 1, 'own@FV2024-10-01', 1, '{"kept": "by the application"}');
SELECT * FROM mako_state(:'own');
SELECT mako_append(:'own', 'own@FV2024-10-01', 'Any', '{}');
SELECT test.failure('SELECT mako_state(proc.stream(1, 2))');
SELECT sequence_number, workflow_id, state, state_schema_version, event_type FROM mako_resume(:'own');
SELECT * FROM mako_trace(:'own');
SELECT test.failure('SELECT mako_take_snapshot(proc.stream(1, 2))');
-- Not registered: there is nothing to fold with, but everything to read.
SELECT mako_append(:'wild', 'wild@FV2024-10-01', 'Any', '{}');
SELECT test.failure('SELECT mako_state(proc.stream(1, 3))');
SELECT mako_save_snapshot(:'wild', 1, 'wild@FV2024-10-01', 7, '{"kept": "by the application"}');
SELECT sequence_number, workflow_id, state, state_schema_version, event_type FROM mako_resume(:'wild');

-- An event that apply refuses or does not know
SELECT mako_append(:'foreign_talk', 'talk@FV2024-10-01', 'Refused', '{}');
SELECT mako_state(:'foreign_talk');
SELECT mako_trace(:'foreign_talk');

--
-- Periodic snapshots
--

SELECT mako_take_snapshot(:'talk');
SELECT sequence_number, run_id, workflow_id, state_schema_version, state FROM mako.snapshot WHERE state ? 'words';
SELECT mako_save_snapshot(:'talk', 2, 'talk@FV2024-10-01', 1, '{"status": "Talking", "words": "ab"}');
SELECT test.failure($$ SELECT mako_save_snapshot(proc.stream(1, 1), 6, 'talk@FV2024-10-01', 1, '{}') $$);
SELECT test.failure($$ SELECT mako_save_snapshot(proc.stream(1, 1), 0, 'talk@FV2024-10-01', 1, '{}') $$);
SELECT test.failure($$ SELECT mako_save_snapshot(proc.stream(1, 1), 2, 'talk@FV2025-10-01', 1, '{}') $$);
SELECT test.failure($$ SELECT mako_save_snapshot(proc.stream(1, 1), 2, 'talk@FV2024-10-01', 2, '{}') $$);
SELECT test.failure($$ SELECT mako_save_snapshot(proc.stream(1, 1), 2, 'talk@FV2024-10-01', 1, NULL) $$);
SELECT test.failure($$ SELECT mako_take_snapshot('nowhere') $$);
SELECT mako_spawn('talk@FV2024-10-01', :tenant, 'bbbbbbbb-0000-4000-8000-000000000004') AS silent \gset
SELECT test.failure('SELECT mako_take_snapshot(proc.stream(1, 4))');
SELECT test.failure('SELECT mako_prune_snapshots(-1)');
SELECT mako_prune_snapshots(1);
SELECT s.stream_id, n.sequence_number FROM mako.snapshot n JOIN mako.stream s USING (stream_no) ORDER BY s.stream_no, n.sequence_number;
SELECT split_part(test.failure($$ INSERT INTO mako.snapshot (stream_no, sequence_number, workflow_id, state_schema_version, state)
  VALUES (1, 1, NULL, 1, '{}') $$), E'\n', 1);
-- the only state of a stream without apply stays
SELECT mako_prune_snapshots(0);
SELECT s.stream_id, n.sequence_number FROM mako.snapshot n JOIN mako.stream s USING (stream_no) ORDER BY s.stream_no, n.sequence_number;

-- Events that are missing, because somebody got past the triggers
BEGIN;
ALTER TABLE mako.event DISABLE TRIGGER event_guard;
DELETE FROM mako.event WHERE stream_no = 1 AND sequence_number = 3;
SELECT test.failure('SELECT mako_state(proc.stream(1, 1))');
SELECT test.failure('SELECT mako_resume(proc.stream(1, 1))');
SELECT test.failure('SELECT mako_trace(proc.stream(1, 1))');
DELETE FROM mako.event WHERE stream_no = 1 AND sequence_number >= 3;
SELECT test.failure('SELECT mako_state(proc.stream(1, 1))');
SELECT test.failure('SELECT mako_resume(proc.stream(1, 1))');
ALTER TABLE mako.event RENAME TO gone;
SELECT test.failure($$ SELECT mako_append(proc.stream(1, 1), 'talk@FV2024-10-01', 'Said', '{}') $$);
ROLLBACK;

--
-- Routing
--

SELECT mako_register_key(:tenant, '9900357000003:conversation', :'talk');
SELECT mako_register_key(:tenant, '9900357000003:conversation', :'talk', 'infinity');
SELECT mako_register_key(:tenant, 'gone', :'talk', now() - interval '1 second');
SELECT key, stream_no, expires_at > now() FROM mako.registry WHERE key ~ '^(g|9900)' AND length(key) <> 36 ORDER BY key COLLATE "C";
SELECT * FROM mako_lookup(:tenant, '9900357000003:conversation');
SELECT * FROM mako_lookup(:tenant, 'bbbbbbbb-0000-4000-8000-000000000001');
SELECT * FROM mako_lookup(:other, 'bbbbbbbb-0000-4000-8000-000000000001');
SELECT * FROM mako_lookup(:other, '9900357000003:conversation');
SELECT * FROM mako_lookup(:tenant, 'gone');
SELECT * FROM mako_lookup(:tenant, 'never there');
SELECT test.failure($$ SELECT mako_lookup(NULL, 'key') $$);
SELECT test.failure($$ SELECT * FROM mako_lookup('aaaaaaaa-0000-4000-8000-000000000001', NULL) $$);
-- a key that leads elsewhere is not taken over, unless it has expired
SELECT test.failure($$ SELECT mako_register_key('aaaaaaaa-0000-4000-8000-000000000001', '9900357000003:conversation', proc.stream(1, 2)) $$);
SELECT mako_register_key(:tenant, 'gone', :'own', now() - interval '1 second');
SELECT mako_expire_keys(), mako_expire_keys();
SELECT mako_unregister_key(:other, '9900357000003:conversation'), mako_unregister_key(:tenant, '9900357000003:conversation'),
  mako_unregister_key(:tenant, '9900357000003:conversation');
-- no key leads to another tenant's stream
SELECT test.failure($$ SELECT mako_register_key('aaaaaaaa-0000-4000-8000-000000000002', 'k', proc.stream(1, 1)) $$);
SELECT test.failure($$ SELECT mako_register_key(NULL, 'k', proc.stream(1, 1)) $$);
SELECT test.failure($$ SELECT mako_register_key('aaaaaaaa-0000-4000-8000-000000000001', '', proc.stream(1, 1)) $$);
SELECT test.failure($$ SELECT mako_register_key('aaaaaaaa-0000-4000-8000-000000000001', NULL, proc.stream(1, 1)) $$);
SELECT test.failure($$ SELECT mako_register_key('aaaaaaaa-0000-4000-8000-000000000001', repeat('k', 257), proc.stream(1, 1)) $$);

SELECT mako_add_tag(:tenant, '51238696781', :'talk'), mako_add_tag(:tenant, '51238696781', :'own'), mako_add_tag(:tenant, '51238696781', :'own'),
  mako_add_tag(:other, '51238696781', :'foreign_talk');
SELECT * FROM mako_find_tag(:tenant, '51238696781');
SELECT * FROM mako_find_tag(:other, '51238696781');
SELECT mako_remove_tag(:other, '51238696781', :'own'), mako_remove_tag(:tenant, '51238696781', :'own'), mako_remove_tag(:tenant, '51238696781', :'own');
SELECT test.failure($$ SELECT mako_add_tag('aaaaaaaa-0000-4000-8000-000000000002', 't', proc.stream(1, 1)) $$);
SELECT test.failure($$ SELECT mako_add_tag('aaaaaaaa-0000-4000-8000-000000000001', '', proc.stream(1, 1)) $$);
SELECT test.failure($$ SELECT mako_add_tag('aaaaaaaa-0000-4000-8000-000000000001', NULL, proc.stream(1, 1)) $$);

--
-- After a migration
--

SELECT migrated, skipped, failed FROM mako_migrate('talk@FV2024-10-01', 'talk@FV2025-10-01');
SELECT * FROM mako_state(:'talk');
SELECT sequence_number, workflow_id, state, state_schema_version, event_type FROM mako_resume(:'talk');
-- an old binary, by whichever door
SELECT test.failure($$ SELECT mako_append(proc.stream(1, 1), 'talk@FV2024-10-01', 'Said', '{"word": "x"}', 5) $$);
SELECT test.failure($$ INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
  SELECT stream_no, 6, 'talk@FV2024-10-01', 'Said', '{}' FROM mako.stream WHERE stream_id = proc.stream(1, 1) $$);
SELECT test.failure($$ SELECT mako_save_snapshot(proc.stream(1, 1), 5, 'talk@FV2024-10-01', 1, '{}') $$);
SELECT test.failure($$ SELECT mako_save_snapshot(proc.stream(1, 1), 4, 'talk@FV2025-10-01', 2, '{}') $$);
SELECT test.failure($$ SELECT mako_save_snapshot(proc.stream(1, 1), 5, 'talk@FV2025-10-01', 2, '{"words": "old layout"}') $$);
-- what it sent before, it may send again
SELECT mako_append(:'talk', 'talk@FV2024-10-01', 'Said', '{"word": "c"}', 2, event_id => 'cccccccc-0000-4000-8000-000000000003');
SELECT mako_append(:'talk', 'talk@FV2025-10-01', 'Said', '{"word": "f"}', 5);
SELECT * FROM mako_state(:'talk');
SELECT * FROM mako_trace(:'talk');
SELECT * FROM mako_lookup(:tenant, 'bbbbbbbb-0000-4000-8000-000000000001');

-- A boundary whose layout is not the registered one is an error, never ignored.
BEGIN;
SET LOCAL client_min_messages = error;
SELECT mako_register_workflow('talk@FV2025-10-01', 'proc.apply_2025', initial_state => '{"status": "New"}', state_schema_version => 3, replace => true);
SELECT test.failure('SELECT mako_state(proc.stream(1, 1))');
SELECT test.failure('SELECT mako_resume(proc.stream(1, 1))');
SELECT test.failure('SELECT mako_trace(proc.stream(1, 1))');
ROLLBACK;
-- Nor is a lost one: the state is computed again, and that is said.
BEGIN;
ALTER TABLE mako.snapshot DISABLE TRIGGER snapshot_delete_guard;
DELETE FROM mako.snapshot WHERE run_id > 0;
SELECT * FROM mako_state(:'talk');
SELECT sequence_number, workflow_id, state, state_schema_version, event_type FROM mako_resume(:'talk');
SELECT * FROM mako_trace(:'talk');
ROLLBACK;

-- What was compiled for reading is used until it is no longer what is registered, and not a moment longer.
CREATE FUNCTION proc.shout(word text) RETURNS text LANGUAGE sql STABLE AS $$ SELECT upper(word) $$;
BEGIN;
CREATE OR REPLACE FUNCTION proc.apply_2025(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE event_type
    WHEN 'Said' THEN jsonb_build_object('status', 'Talking', 'text', (state->>'text') || proc.shout(payload->>'word'))
  END $$;
SELECT test.failure('SELECT mako_state(proc.stream(1, 1))');
SET LOCAL client_min_messages = error;
SELECT mako_register_workflow('talk@FV2025-10-01', 'proc.apply_2025', in_flight => 'proc.in_flight', initial_state => '{"status": "New"}',
  state_schema_version => 2, replace => true);
SELECT state FROM mako_state(:'talk');
CREATE OR REPLACE FUNCTION proc.shout(word text) RETURNS text LANGUAGE sql STABLE AS $$ SELECT word || '!' $$;
SELECT test.failure('SELECT mako_state(proc.stream(1, 1))');
ROLLBACK;
SELECT state FROM mako_state(:'talk');
BEGIN;
ALTER FUNCTION proc.apply_2025 RENAME TO apply_2026;
SELECT test.failure('SELECT mako_state(proc.stream(1, 1))');
ROLLBACK;
SELECT state FROM mako_state(:'talk');
-- An error in the middle leaves nothing behind.
SELECT test.failure('SELECT mako_state(proc.stream(2, 1))');
SELECT test.failure('SELECT mako_state(proc.stream(2, 1))');
SELECT state FROM mako_state(:'talk');

--
-- Which messages reach a process
--

CREATE FUNCTION proc.dispatch(version text) RETURNS text LANGUAGE sql AS
  $$ SELECT 'SELECT mako_lookup(''aaaaaaaa-0000-4000-8000-000000000001'', ''bbbbbbbb-0000-4000-8000-000000000001'', ' || quote_literal(version) || ')' $$;
CREATE VIEW proc.policy AS SELECT v AS message, test.failure(proc.dispatch(v)) AS result
  FROM unnest('{FV2024-10-01,FV2025-10-01,FV2026-10-01}'::text[]) AS v;
SELECT * FROM proc.policy;
SELECT mako_set_dispatch('talk@FV2025-10-01', 'forward_compatible');
SELECT * FROM proc.policy;
SELECT mako_set_dispatch('talk@FV2025-10-01', 'pinned');
SELECT * FROM proc.policy;
SELECT mako_set_dispatch('talk@FV2025-10-01', 'explicit', '{FV2024-10-01,FV2026-10-01}');
SELECT * FROM proc.policy;
SELECT dispatch_versions = ARRAY['FV2024-10-01', 'FV2026-10-01'] FROM mako_workflow WHERE dispatch = 'explicit';
SELECT test.failure($$ SELECT mako_lookup('aaaaaaaa-0000-4000-8000-000000000001', 'bbbbbbbb-0000-4000-8000-000000000001', 'FV2025') $$);
SELECT test.failure($$ SELECT mako_set_dispatch('talk@FV2025-10-01', 'whatever') $$);
SELECT test.failure($$ SELECT mako_set_dispatch('talk@FV2025-10-01', 'explicit') $$);
SELECT test.failure($$ SELECT mako_set_dispatch('talk@FV2025-10-01', 'any', '{FV2025-10-01}') $$);
SELECT test.failure($$ SELECT mako_set_dispatch('walk@FV2025-10-01', 'any') $$);
SELECT test.failure($$ SELECT mako_set_dispatch('talk@FV2025-10-01', NULL) $$);
SELECT mako_set_dispatch('talk@FV2025-10-01', 'any');

--
-- How a version ends
--

SELECT * FROM mako_coverage('FV2024-10-01');
SELECT * FROM mako_coverage('FV2025-10-01');
SELECT * FROM mako_coverage('FV2030-10-01');
SELECT mako_drain('FV2024-10-01', 'cutover');
SELECT test.failure($$ SELECT mako_spawn('talk@FV2024-10-01', 'aaaaaaaa-0000-4000-8000-000000000001') $$);
SELECT test.failure($$ SELECT mako_retire('FV2024-10-01') $$);
SELECT test.failure($$ SELECT mako_drain('FV2020-10-01') $$);
SELECT test.failure($$ SELECT mako_migrate_version('FV2020-10-01', 'FV2025-10-01') $$);
SELECT test.failure($$ SELECT mako_migrate_version('FV2024-10-01', 'FV2020-10-01') $$);
SELECT test.failure($$ SELECT mako_migrate_version('FV2024-10-01', 'FV2025-10-01') $$);
SELECT test.failure($$ SELECT mako_exempt('own@FV2024-10-01', ' ') $$);
SELECT test.failure($$ SELECT mako_exempt('own@FV2024-10-01', NULL) $$);
SELECT test.failure($$ SELECT mako_exempt('owm@FV2024-10-01', 'misspelt') $$);
SELECT mako_exempt('own@FV2024-10-01', 'ends in March'), mako_exempt('wild@FV2024-10-01', 'of a subsidiary');
SELECT workflow_id, reason FROM mako_exemption ORDER BY workflow_id;
SELECT source_wf, target_wf, migrated, skipped, failed FROM mako_migrate_version('FV2024-10-01', 'FV2025-10-01');
SELECT * FROM mako_coverage('FV2024-10-01');
-- the one that apply refuses is in flight, because nobody can say that it is finished
SELECT test.failure($$ SELECT mako_retire('FV2024-10-01') $$);
-- nor which transitions it has made
SELECT * FROM mako_transitions('talk@FV2024-10-01');
BEGIN;
ALTER TABLE mako.stream DISABLE TRIGGER USER;
ALTER TABLE mako.event DISABLE TRIGGER USER;
INSERT INTO mako.stream (stream_id, workflow_id, version) SELECT 'bad ' || i, 'talk@FV2024-10-01', 1 FROM generate_series(1, 2) AS i;
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
SELECT stream_no, 1, workflow_id, 'Refused', '{}' FROM mako.stream WHERE stream_id LIKE 'bad _';
SELECT * FROM mako_transitions('talk@FV2024-10-01');
ROLLBACK;
SELECT mako_exempt('talk@FV2024-10-01', 'one broken process, closed by hand');
SELECT mako_retire('FV2024-10-01', 'cutover', '2000-01-01');
SELECT status, messages_until IS NOT NULL, reason, changed_by = current_user FROM mako.format_version;
SELECT test.failure($$ SELECT mako_drain('FV2024-10-01') $$);
SELECT test.failure($$ SELECT mako_spawn('talk@FV2024-10-01', 'aaaaaaaa-0000-4000-8000-000000000001') $$);
SELECT test.failure($$ INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('n', 'new@FV2024-10-01') $$);
SELECT test.failure($$ SELECT mako_append(proc.stream(1, 2), 'own@FV2024-10-01', 'Any', '{}') $$);
SELECT test.failure($$ INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
  SELECT stream_no, 3, 'own@FV2024-10-01', 'Any', '{}' FROM mako.stream WHERE stream_id = proc.stream(1, 2) $$);
-- nor can the application's own state be changed, by whichever door
SELECT test.failure($$ SELECT mako_save_snapshot(proc.stream(1, 2), 2, 'own@FV2024-10-01', 1, '{}') $$);
SELECT test.failure($$ SELECT mako_take_snapshot(proc.stream(1, 2)) $$);
SELECT test.failure($$ INSERT INTO mako.snapshot (stream_no, sequence_number, workflow_id, state_schema_version, state)
  SELECT stream_no, 2, 'own@FV2024-10-01', 1, '{}' FROM mako.stream WHERE stream_id = proc.stream(1, 2) $$);
SELECT test.failure($$ UPDATE mako.snapshot SET state = '{}' WHERE run_id = 0 AND workflow_id = 'own@FV2024-10-01' $$);
-- a writer whose stream has moved hears that instead
SELECT test.failure($$ SELECT mako_append(proc.stream(1, 1), 'talk@FV2024-10-01', 'Said', '{}') $$);
SELECT test.failure($$ INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
  SELECT stream_no, 7, 'talk@FV2024-10-01', 'Said', '{}' FROM mako.stream WHERE stream_id = proc.stream(1, 1) $$);
SELECT mako_register_migration('talk@FV2025-10-01', 'talk@FV2024-10-01');
SELECT test.failure($$ SELECT mako_migrate('talk@FV2025-10-01', 'talk@FV2024-10-01') $$);
SELECT test.failure($$ SELECT mako_migrate_version('FV2025-10-01', 'FV2024-10-01') $$);
SELECT test.failure(proc.dispatch('FV2024-10-01'));
SELECT test.failure($$ SELECT mako_lookup('aaaaaaaa-0000-4000-8000-000000000001', 'bbbbbbbb-0000-4000-8000-000000000002', 'FV2025-10-01') $$);
SELECT * FROM mako_lookup(:tenant, 'bbbbbbbb-0000-4000-8000-000000000002');
SELECT * FROM mako_state(:'foreign_talk');
SELECT count(*) FROM mako_load(:'own');
SELECT test.failure($$ SELECT mako_unexempt('own@FV2024-10-01') $$);
-- retired again with another date, because messages may still arrive
SELECT mako_retire('FV2024-10-01', 'the same time');
SELECT test.failure(proc.dispatch('FV2024-10-01')) LIKE '55000%';
SELECT mako_retire('FV2024-10-01', 'more time', 'infinity');
SELECT * FROM mako_lookup(:tenant, 'bbbbbbbb-0000-4000-8000-000000000001', 'FV2024-10-01');
SELECT mako_reactivate('FV2024-10-01', 'too early');
SELECT mako_unexempt('own@FV2024-10-01');
SELECT test.failure($$ SELECT mako_unexempt('own@FV2024-10-01') $$);
SELECT test.failure($$ SELECT mako_reactivate('FV2030-10-01') $$);
SELECT test.failure($$ SELECT mako_reactivate('FV2025-10-01') $$);
SELECT test.failure($$ SELECT mako_drain(NULL) $$);
SELECT test.failure($$ SELECT mako_drain('FV2024-1-1') $$);
SELECT status, messages_until, reason FROM mako.format_version;
SELECT mako_append(:'own', 'own@FV2024-10-01', 'Any', '{}');

--
-- Whole versions
--

SELECT test.failure($$ SELECT mako_register_migrations('FV2024-10-01', 'FV2025-10-01', '{own,nobody}') $$);
SELECT test.failure($$ SELECT mako_register_migrations('FV2024-10-01', 'FV2025-10-01', '{NULL}') $$);
SELECT mako_register_workflow('own@FV2025-10-01');
SELECT mako_register_migrations('FV2024-10-01', 'FV2025-10-01', '{own,own}');
SELECT test.failure($$ SELECT mako_migrate_version('FV2024-10-01', 'FV2024-10-01') $$);
SELECT test.failure($$ SELECT mako_migrate_version('FV2024-10-01', NULL) $$);
SELECT test.failure($$ SELECT mako_migrate_version('FV2024-10-01', 'FV2025-10-01', max_errors => -1) $$);
SELECT regexp_replace(test.failure($$ SELECT mako_migrate_version('FV2024-10-01', 'FV2025-10-01', expect => 'deadbeef') $$), '[0-9a-f]{64}', '<sha256>');
SELECT source_wf, target_wf, migrated, skipped, failed
FROM mako_migrate_version('FV2024-10-01', 'FV2025-10-01', expect => mako_version_fingerprint('FV2024-10-01', 'FV2025-10-01'));

--
-- Import
--

ALTER TABLE mako.event DISABLE TRIGGER event_inserted;
SELECT test.failure('SELECT mako_adopt_events()') ~ '^55000: the store is damaged';
ALTER TABLE mako.event ENABLE TRIGGER event_inserted;
SELECT * FROM mako_adopt_events();
-- One history of a single workflow, one that spans two.
BEGIN;
ALTER TABLE mako.event DISABLE TRIGGER event_inserted;
INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('imported', 'talk@FV2025-10-01'), ('spanning', 'talk@FV2024-10-01');
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
SELECT s.stream_no, n, CASE WHEN s.stream_id = 'spanning' AND n < 3 THEN 'talk@FV2024-10-01' ELSE 'talk@FV2025-10-01' END, 'Said',
       jsonb_build_object('word', chr(96 + n))
FROM mako.stream s, generate_series(1, 3) AS n WHERE s.stream_id IN ('imported', 'spanning');
ALTER TABLE mako.event ENABLE TRIGGER event_inserted;
SELECT * FROM mako_adopt_events();
SELECT stream_id, workflow_id, version FROM mako.stream WHERE stream_id IN ('imported', 'spanning') ORDER BY stream_no;
SELECT * FROM mako_state('imported');
SELECT * FROM mako_state('spanning');
SELECT * FROM mako_trace('spanning');
ROLLBACK;
-- What the trigger would have refused is refused here.
CREATE PROCEDURE proc.import(stream text, workflow text, VARIADIC numbers bigint[]) LANGUAGE sql AS $$
  INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
  SELECT COALESCE((SELECT s.stream_no FROM mako.stream s WHERE s.stream_id = stream), 4711), n, workflow, 'Said', '{}' FROM unnest(numbers) AS n;
$$;
CREATE FUNCTION proc.adopt(load text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  ALTER TABLE mako.event DISABLE TRIGGER event_inserted;
  EXECUTE load;
  ALTER TABLE mako.event ENABLE TRIGGER event_inserted;
  RETURN mako_adopt_events();
END $$;
INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('import', 'talk@FV2025-10-01');
SELECT test.failure($$ SELECT proc.adopt('CALL proc.import(''nobody'', ''talk@FV2025-10-01'', 1)') $$);
SELECT test.failure($$ SELECT proc.adopt('CALL proc.import(''import'', ''talk@FV2025-10-01'', 1, 3)') $$);
SELECT test.failure($$ SELECT proc.adopt('CALL proc.import(''import'', ''talk@FV2025-10-01'', 2, 3)') $$);
SELECT test.failure($$ SELECT proc.adopt('CALL proc.import(''import'', ''talk'', 1)') $$);
SELECT test.failure($$ SELECT proc.adopt(format('CALL proc.import(%L, ''talk@FV2024-10-01'', 7)', proc.stream(1, 1))) $$);
BEGIN;
ALTER TABLE mako.event DISABLE TRIGGER USER;
DELETE FROM mako.event WHERE sequence_number > 5;
ALTER TABLE mako.event ENABLE TRIGGER USER;
SELECT test.failure('SELECT mako_adopt_events()');
ROLLBACK;
-- forgotten, they are noticed
BEGIN;
ALTER TABLE mako.event DISABLE TRIGGER event_inserted;
CALL proc.import('import', 'talk@FV2025-10-01', 1);
SELECT test.failure('SELECT mako_state(''import'')');
SELECT test.failure('SELECT mako_resume(''import'')');
ROLLBACK;
BEGIN;
SELECT mako_exempt('talk@FV2024-10-01', 'only a test');
SELECT mako_retire('FV2024-10-01');
SELECT test.failure($$ SELECT proc.adopt('CALL proc.import(''import'', ''talk@FV2024-10-01'', 1)') $$);
ROLLBACK;
SELECT proc.adopt('CALL proc.import(''import'', ''talk@FV2025-10-01'', 1, 2)');

SET client_min_messages = warning;
DROP SCHEMA mako, proc CASCADE;
DELETE FROM mako_exemption;
SELECT mako_unregister_migration('talk@FV2024-10-01', 'talk@FV2025-10-01'), mako_unregister_migration('talk@FV2025-10-01', 'talk@FV2024-10-01'),
  mako_unregister_migration('own@FV2024-10-01', 'own@FV2025-10-01');
SELECT mako_unregister_workflow(w) FROM unnest('{talk@FV2024-10-01,talk@FV2025-10-01,own@FV2024-10-01,own@FV2025-10-01}'::text[]) AS w;
DROP SCHEMA test CASCADE;
