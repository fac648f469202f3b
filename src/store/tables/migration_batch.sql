CREATE TABLE mako.migration_batch (
  run_id          bigint NOT NULL,
  batch_no        bigint NOT NULL,
  last_stream_no  bigint,
  migrated        bigint NOT NULL,
  failed          bigint NOT NULL,
  busy            bigint NOT NULL,
  session_role    text NOT NULL DEFAULT session_user,
  effective_role  text NOT NULL DEFAULT current_user,
  started_at      timestamptz NOT NULL,
  finished_at     timestamptz NOT NULL
);
COMMENT ON TABLE mako.migration_batch IS
'audit trail: the batches of batched runs, each of which was a transaction';
COMMENT ON COLUMN mako.migration_batch.last_stream_no IS
'the last stream that the run has come to; null when it tries again those that were busy, '
'and when streams are folded ahead, so that they do not come in the order of their numbers';
COMMENT ON COLUMN mako.migration_batch.busy IS
'streams that were passed over: another transaction had locked them, or appended to them meanwhile';
COMMENT ON COLUMN mako.migration_batch.session_role IS
'the role that called the run, which need not be the one that began it; '
'the same holds for effective_role';

ALTER TABLE mako.migration_batch ADD CONSTRAINT migration_batch_pkey
  PRIMARY KEY (run_id, batch_no);

CREATE TRIGGER migration_batch_guard
BEFORE INSERT OR DELETE OR UPDATE OR TRUNCATE ON mako.migration_batch
FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.mako_guard(
  'The audit trail is written by migrations only.');
