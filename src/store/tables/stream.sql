CREATE TABLE mako.stream (
  stream_no    bigint GENERATED ALWAYS AS IDENTITY,
  stream_id    text COLLATE "C" NOT NULL,
  tenant_id    uuid,
  process_id   uuid,
  workflow_id  text COLLATE "C" NOT NULL,
  version      bigint NOT NULL DEFAULT 0,
  created_at   timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);
COMMENT ON TABLE mako.stream IS
'stream heads: the workflow that a stream runs under now, and its last sequence number';
COMMENT ON COLUMN mako.stream.stream_id IS
'process/<tenant uuid>/<process uuid>, or any other text for a stream that is no process';
COMMENT ON COLUMN mako.stream.process_id IS 'null for a stream that is no process';
COMMENT ON COLUMN mako.stream.workflow_id IS
'the workflow that the stream runs under now; without an index, so that repointing is a HOT update';
COMMENT ON COLUMN mako.stream.version IS
'the last sequence number, 0 for a stream without events';

ALTER TABLE mako.stream ADD CONSTRAINT stream_pkey PRIMARY KEY (stream_no);
ALTER TABLE mako.stream ADD CONSTRAINT stream_stream_id_key UNIQUE (stream_id);
ALTER TABLE mako.stream ADD CONSTRAINT stream_tenant_id_stream_no_key
  UNIQUE (tenant_id, stream_no);
ALTER TABLE mako.stream ADD CONSTRAINT stream_stream_id_check
  CHECK ((stream_id <> ''::text));
ALTER TABLE mako.stream ADD CONSTRAINT stream_process_id_check
  CHECK (((process_id IS NULL)
          OR ((tenant_id IS NOT NULL)
              AND (stream_id = ((('process/'::text || (tenant_id)::text) || '/'::text)
                                || (process_id)::text)))));
ALTER TABLE mako.stream ADD CONSTRAINT stream_tenant_id_check
  CHECK (((tenant_id IS NULL)
          OR (stream_id !~~ 'process/%'::text)
          OR (lower(split_part(stream_id, '/'::text, 2)) = (tenant_id)::text)));
ALTER TABLE mako.stream ADD CONSTRAINT stream_version_check CHECK ((version >= 0));

-- A batched run begins after number 0.
ALTER TABLE mako.stream ADD CONSTRAINT stream_stream_no_check CHECK ((stream_no >= 1));
ALTER TABLE mako.stream ADD CONSTRAINT stream_workflow_id_check
  CHECK (@extschema@.mako_assert_workflow_id(workflow_id));

CREATE TRIGGER stream_inserted
AFTER INSERT ON mako.stream REFERENCING NEW TABLE AS inserted
FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.mako_stream_inserted();

CREATE TRIGGER stream_guard
BEFORE DELETE OR UPDATE OR TRUNCATE ON mako.stream
FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.mako_guard(
  'Stream heads advance with their events, and move to another workflow with a migration only.',
  'To move streams, use mako_migrate().');
