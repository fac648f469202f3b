CREATE TABLE mako.migration_error (
  run_id           bigint NOT NULL,
  error_no         bigint NOT NULL,
  stream_no        bigint NOT NULL,
  stream_id        text COLLATE "C" NOT NULL,
  phase            text NOT NULL,
  sequence_number  bigint,
  sqlstate         text NOT NULL,
  message          text NOT NULL,
  detail           text,
  hint             text,
  context          text
);
COMMENT ON TABLE mako.migration_error IS
'audit trail: every stream that a run could not migrate, in full';
COMMENT ON COLUMN mako.migration_error.error_no IS
'numbers the errors of a run in the order in which they were saved';

ALTER TABLE mako.migration_error ADD CONSTRAINT migration_error_pkey
  PRIMARY KEY (run_id, error_no);

-- A run tries a stream once. The second pass of a run finds by this key what has failed, and
-- mako_history() when.
ALTER TABLE mako.migration_error ADD CONSTRAINT migration_error_stream_no_run_id_key
  UNIQUE (stream_no, run_id);

CREATE TRIGGER migration_error_guard
BEFORE INSERT OR DELETE OR UPDATE OR TRUNCATE ON mako.migration_error
FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.mako_guard(
  'The audit trail is written by migrations only.');
