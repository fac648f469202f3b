-- The tables of event stores that doc/attach.md attaches, reduced to the columns that count, with an order in each.
-- Needs schema shop of that page.

-- Takes the store away, with its sinks, heads and runs, and begins with a new one. The example before has migrated something.
CREATE PROCEDURE shop.begin_anew() LANGUAGE plpgsql SET client_min_messages = warning AS $$
BEGIN
  ASSERT (SELECT max(migrated) > 0 FROM mako.migration_run WHERE kind <> 'revert');
  IF mako_is_attached() THEN PERFORM mako_detach_store(); END IF;
  PERFORM mako_remove_sink(sink_no) FROM mako_sink WHERE removed_at IS NULL;
  DROP SCHEMA mako CASCADE;
  PERFORM mako_create_store();
END $$;

-- Message DB
CREATE SCHEMA message_store;
CREATE TABLE message_store.messages (
  global_position bigserial, position bigint, time timestamp DEFAULT (now() AT TIME ZONE 'utc'), stream_name text, type text,
  data jsonb, metadata jsonb, id uuid DEFAULT gen_random_uuid(), UNIQUE (stream_name, position));
CREATE FUNCTION message_store.category(stream_name varchar) RETURNS varchar LANGUAGE sql IMMUTABLE
AS $$ SELECT split_part(stream_name, '-', 1) $$;
INSERT INTO message_store.messages (stream_name, position, type, data)
VALUES ('order-1', 0, 'OrderPlaced', '{"total": 20}'), ('order-1', 1, 'ItemAdded', '{"price": 5}');

-- Emmett
CREATE TABLE emt_messages (
  stream_id text, stream_position bigint, partition text DEFAULT 'emt:default', is_archived boolean DEFAULT false,
  created timestamptz DEFAULT now(), message_kind char(1) DEFAULT 'E', message_schema_version text DEFAULT '1',
  message_type text, message_data jsonb, message_metadata jsonb DEFAULT '{}',
  PRIMARY KEY (stream_id, stream_position, partition, is_archived)) PARTITION BY LIST (partition);
CREATE TABLE emt_messages_default PARTITION OF emt_messages DEFAULT;
INSERT INTO emt_messages (stream_id, stream_position, message_type, message_data)
VALUES ('order-1', 1, 'OrderPlaced', '{"total": 20}'), ('order-1', 2, 'ItemAdded', '{"price": 5}');

-- Marten
CREATE TABLE mt_events (
  seq_id bigserial PRIMARY KEY, id uuid DEFAULT gen_random_uuid(), stream_id uuid, version bigint, data jsonb,
  type varchar(500), timestamp timestamptz DEFAULT now(), is_archived boolean DEFAULT false, UNIQUE (stream_id, version));
CREATE TABLE mt_doc_order_2 (id uuid PRIMARY KEY, data jsonb, mt_dotnet_type varchar, mt_version integer);
INSERT INTO mt_events (stream_id, version, type, data)
VALUES ('aaaaaaaa-0000-4000-8000-000000000001', 1, 'order_placed', '{"total": 20}'),
       ('aaaaaaaa-0000-4000-8000-000000000001', 2, 'item_added', '{"price": 5}');

-- Axon
CREATE TABLE domain_event_entry (
  global_index bigserial PRIMARY KEY, payload bytea, payload_type varchar, time_stamp varchar, aggregate_identifier varchar,
  sequence_number bigint, type varchar, UNIQUE (aggregate_identifier, sequence_number));
CREATE TABLE snapshot_event_entry (
  aggregate_identifier varchar, sequence_number bigint, type varchar, event_identifier varchar UNIQUE, payload bytea,
  payload_type varchar, payload_revision varchar, time_stamp varchar, PRIMARY KEY (aggregate_identifier, sequence_number, type));
INSERT INTO domain_event_entry (aggregate_identifier, sequence_number, type, payload_type, payload, time_stamp)
VALUES ('1', 0, 'Order', 'shop.OrderPlaced', '{"total": 20}', '2025-09-01T10:00:00Z'),
       ('1', 1, 'Order', 'shop.ItemAdded', '{"price": 5}', '2025-09-01T10:01:00Z');

-- Spatie
CREATE TABLE stored_events (
  id bigserial PRIMARY KEY, aggregate_uuid uuid, aggregate_version bigint, event_version smallint DEFAULT 1,
  event_class varchar, event_properties jsonb, created_at timestamp DEFAULT now(), UNIQUE (aggregate_uuid, aggregate_version));
CREATE TABLE snapshots (id bigserial, aggregate_uuid uuid, aggregate_version bigint, state jsonb, created_at timestamp(0));
INSERT INTO stored_events (aggregate_uuid, aggregate_version, event_class, event_properties)
VALUES ('aaaaaaaa-0000-4000-8000-000000000001', 1, 'App\Events\OrderPlaced', '{"total": 20}'),
       ('aaaaaaaa-0000-4000-8000-000000000001', 2, 'App\Events\ItemAdded', '{"price": 5}');
