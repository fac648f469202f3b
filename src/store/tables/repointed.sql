CREATE TABLE mako.repointed (
  run_id           bigint NOT NULL,
  stream_no        bigint NOT NULL,
  sequence_number  bigint NOT NULL
);
COMMENT ON TABLE mako.repointed IS
'streams that a run moved without a snapshot of their last event: '
'those without events, and identity migrations without apply';

ALTER TABLE mako.repointed ADD CONSTRAINT repointed_pkey
  PRIMARY KEY (stream_no, run_id);

CREATE TRIGGER repointed_guard
BEFORE INSERT OR DELETE OR UPDATE OR TRUNCATE ON mako.repointed
FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.mako_guard(
  'The audit trail is written by migrations only.');
