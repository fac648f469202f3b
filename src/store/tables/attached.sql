CREATE TABLE mako.attached (
  query        text NOT NULL,
  search_path  text[] NOT NULL,
  initial      text COLLATE "C" NOT NULL,
  appended_to  regclass NOT NULL,
  wait         boolean NOT NULL,
  attached_by  text NOT NULL,
  attached_at  timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE mako.attached IS
'the attached event store, one row, or none where the store has events of its own; '
'see mako_attach_store()';
COMMENT ON COLUMN mako.attached.query IS
'the query that tells events, which is the view mako.attached_event';
COMMENT ON COLUMN mako.attached.search_path IS
'the schemas on the path of the session that attached it, on which names in query are looked up';
COMMENT ON COLUMN mako.attached.initial IS
'the workflow that a stream runs under whose events say none';
COMMENT ON COLUMN mako.attached.appended_to IS 'the table that its application appends events to';
COMMENT ON COLUMN mako.attached.wait IS
'a writer waits for a run that has locked the stream; otherwise it gets error 55P03';

ALTER TABLE mako.attached ADD CONSTRAINT attached_initial_check
  CHECK (@extschema@.mako_assert_workflow_id(initial));

CREATE TRIGGER attached_guard
BEFORE INSERT OR DELETE OR UPDATE OR TRUNCATE ON mako.attached
FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.mako_guard(
  'The query is evaluated as the owner of the store.',
  'Use mako_attach_store() and mako_detach_store().');
