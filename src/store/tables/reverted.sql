CREATE TABLE mako.reverted (
  stream_no    bigint NOT NULL,
  run_id       bigint NOT NULL,
  reverted_by  bigint NOT NULL
);
COMMENT ON TABLE mako.reverted IS
'streams that were taken back from where a run had moved them: '
'what the run has written of them is kept, but does not count any more';
COMMENT ON COLUMN mako.reverted.run_id IS 'the run that had moved the stream';
COMMENT ON COLUMN mako.reverted.reverted_by IS 'the run that took it back';

ALTER TABLE mako.reverted ADD CONSTRAINT reverted_pkey
  PRIMARY KEY (stream_no, run_id);

CREATE TRIGGER reverted_guard
BEFORE INSERT OR DELETE OR UPDATE OR TRUNCATE ON mako.reverted
FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.mako_guard(
  'The audit trail is written by migrations only.');
