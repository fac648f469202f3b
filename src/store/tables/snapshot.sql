CREATE TABLE mako.snapshot (
  stream_no             bigint NOT NULL,
  sequence_number       bigint NOT NULL,
  run_id                bigint NOT NULL DEFAULT 0,
  workflow_id           text COLLATE "C" NOT NULL,
  state_schema_version  integer NOT NULL,
  state                 jsonb NOT NULL,
  taken_at              timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE mako.snapshot IS
'states at a sequence number; those of a migration run are final, periodic ones are only a cache';
COMMENT ON COLUMN mako.snapshot.run_id IS
'the migration run that wrote it; 0 for a periodic snapshot';

ALTER TABLE mako.snapshot ADD CONSTRAINT snapshot_pkey
  PRIMARY KEY (stream_no, sequence_number, run_id);
ALTER TABLE mako.snapshot ADD CONSTRAINT snapshot_sequence_number_check
  CHECK ((sequence_number >= 1));
ALTER TABLE mako.snapshot ADD CONSTRAINT snapshot_state_schema_version_check
  CHECK ((state_schema_version >= 1));

CREATE TRIGGER snapshot_insert_guard
BEFORE INSERT ON mako.snapshot
FOR EACH ROW WHEN ((new.run_id <> 0)) EXECUTE FUNCTION @extschema@.mako_guard(
  'Migration snapshots are written by migrations only.',
  'Periodic snapshots have run_id 0.');

CREATE TRIGGER snapshot_update_guard
BEFORE UPDATE ON mako.snapshot
FOR EACH ROW WHEN (((old.run_id <> 0) OR (new.run_id <> 0)))
EXECUTE FUNCTION @extschema@.mako_guard(
  'The state of a migrated stream starts at its migration snapshot: without it the state is lost.',
  'Periodic snapshots have run_id 0.');

CREATE TRIGGER snapshot_delete_guard
BEFORE DELETE ON mako.snapshot
FOR EACH ROW WHEN ((old.run_id <> 0)) EXECUTE FUNCTION @extschema@.mako_guard(
  'The state of a migrated stream starts at its migration snapshot: without it the state is lost.',
  'Periodic snapshots have run_id 0.');

CREATE TRIGGER snapshot_truncate_guard
BEFORE TRUNCATE ON mako.snapshot
FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.mako_guard(
  'The state of a migrated stream starts at its migration snapshot: without it the state is lost.',
  'To drop periodic snapshots, delete those with run_id 0.');

CREATE TRIGGER snapshot_saved
BEFORE INSERT OR UPDATE ON mako.snapshot
FOR EACH ROW WHEN ((new.run_id = 0)) EXECUTE FUNCTION @extschema@.mako_snapshot_saved();
