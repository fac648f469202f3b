CREATE TABLE mako.event (
  stream_no        bigint NOT NULL,
  sequence_number  bigint NOT NULL,
  event_id         uuid NOT NULL DEFAULT gen_random_uuid(),
  recorded_at      timestamptz NOT NULL DEFAULT now(),
  workflow_id      text COLLATE "C" NOT NULL,
  event_type       text COLLATE "C" NOT NULL,
  schema_version   integer NOT NULL DEFAULT 1,
  payload          jsonb NOT NULL,
  correlation_id   uuid,
  causation_id     uuid,
  conversation_id  uuid
);
COMMENT ON TABLE mako.event IS 'events, append-only; numbered 1, 2, 3 ... per stream without gap';
COMMENT ON COLUMN mako.event.workflow_id IS 'the workflow that the event was written under';

ALTER TABLE mako.event ADD CONSTRAINT event_pkey
  PRIMARY KEY (stream_no, sequence_number);
ALTER TABLE mako.event ADD CONSTRAINT event_stream_no_event_id_key
  UNIQUE (stream_no, event_id);
ALTER TABLE mako.event ADD CONSTRAINT event_sequence_number_check
  CHECK ((sequence_number >= 1));
ALTER TABLE mako.event ADD CONSTRAINT event_schema_version_check
  CHECK ((schema_version >= 1));

CREATE TRIGGER event_inserted
AFTER INSERT ON mako.event REFERENCING NEW TABLE AS inserted
FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.mako_event_inserted();

CREATE TRIGGER event_guard
BEFORE DELETE OR UPDATE OR TRUNCATE ON mako.event
FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.mako_guard(
  'Events are append-only.',
  'To archive events, the owner can disable the trigger "event_guard".');
