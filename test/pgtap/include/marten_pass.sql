-- The life of an attached event store of Marten's, from its tables to the moment that it is detached: 81 assertions.
-- Expects what marten.sql has set up, and the variables pass, the name of a schema, and stamps, whether events say their version.

-- ---- Marten's tables ---------------------------------------------------------------------------------------------------------------------------

\o /dev/null
CREATE SCHEMA :pass;
SET search_path = :pass, public;
SET client.stamps = :stamps;
CREATE TABLE mt_streams (
  id uuid NOT NULL, type varchar, version bigint, timestamp timestamptz NOT NULL DEFAULT now(), snapshot jsonb, snapshot_version integer,
  created timestamptz NOT NULL DEFAULT now(), tenant_id varchar DEFAULT '*DEFAULT*', is_archived boolean DEFAULT false,
  CONSTRAINT pkey_mt_streams_id PRIMARY KEY (id));
CREATE TABLE mt_events (
  seq_id bigint NOT NULL, id uuid NOT NULL, stream_id uuid, version bigint NOT NULL, data jsonb NOT NULL, type varchar(500) NOT NULL,
  timestamp timestamptz NOT NULL DEFAULT now(), tenant_id varchar DEFAULT '*DEFAULT*', mt_dotnet_type varchar, headers jsonb, is_archived boolean DEFAULT false,
  CONSTRAINT pkey_mt_events_seq_id PRIMARY KEY (seq_id));
ALTER TABLE mt_events ADD CONSTRAINT fkey_mt_events_stream_id FOREIGN KEY (stream_id) REFERENCES mt_streams (id) ON DELETE CASCADE;
CREATE UNIQUE INDEX pk_mt_events_stream_and_version ON mt_events (stream_id, version);
CREATE UNIQUE INDEX pk_mt_events_id_unique ON mt_events (id);
CREATE SEQUENCE mt_events_sequence OWNED BY mt_events.seq_id;
CREATE TABLE mt_doc_order (
  id uuid NOT NULL, data jsonb NOT NULL, mt_last_modified timestamptz DEFAULT transaction_timestamp(), mt_version bigint NOT NULL DEFAULT 0, mt_dotnet_type varchar,
  CONSTRAINT pkey_mt_doc_order_id PRIMARY KEY (id));
CREATE TABLE mt_doc_order_2 (
  id uuid NOT NULL, data jsonb NOT NULL, mt_last_modified timestamptz DEFAULT transaction_timestamp(), mt_version bigint NOT NULL DEFAULT 0, mt_dotnet_type varchar,
  CONSTRAINT pkey_mt_doc_order_2_id PRIMARY KEY (id));
GRANT USAGE ON SCHEMA :pass TO marten_app;
GRANT ALL ON ALL TABLES IN SCHEMA :pass TO marten_app;
GRANT ALL ON ALL SEQUENCES IN SCHEMA :pass TO marten_app;

-- The oracle: what version 2 must make of an order, from all of its events, whichever version wrote them. It calls nothing of ours.
CREATE VIEW oracle AS
SELECT e.stream_id AS id, max(e.version) AS version,
       jsonb_build_object(
         'CustomerId', min(e.data->>'customer'),
         'Status', (array_agg(CASE e.type WHEN 'order_placed' THEN 'Placed' WHEN 'order_paid' THEN 'Paid' WHEN 'order_shipped' THEN 'Shipped' END ORDER BY e.version DESC)
                    FILTER (WHERE e.type <> 'item_added'))[1],
         'Lines', count(*) FILTER (WHERE e.type IN ('order_placed', 'item_added')),
         'TotalCents', sum(x.cents) FILTER (WHERE e.type IN ('order_placed', 'item_added')),
         'OpenCents', sum(CASE e.type WHEN 'order_paid' THEN -x.cents ELSE x.cents END)) AS state
FROM mt_events e, LATERAL (SELECT coalesce((e.data->>'cents')::numeric, (e.data->>'price')::numeric * 100)) AS x (cents)
WHERE NOT e.is_archived
GROUP BY e.stream_id;

-- What version 2 sees: its document, and the events behind it, which it wrote itself; without a document, all events.
CREATE VIEW seen AS
SELECT s.id, s.version,
       jsonb_build_object(
         'CustomerId', coalesce(d.data->>'CustomerId', l.customer),
         'Status', coalesce(l.status, d.data->>'Status'),
         'Lines', coalesce((d.data->>'Lines')::bigint, 0) + l.lines,
         'TotalCents', coalesce((d.data->>'TotalCents')::bigint, 0) + l.total,
         'OpenCents', coalesce((d.data->>'OpenCents')::bigint, 0) + l.total - l.paid) AS state
FROM mt_streams s LEFT JOIN mt_doc_order_2 d USING (id), LATERAL (
  SELECT min(e.data->>'customer') AS customer,
         (array_agg(initcap(substr(e.type, 7)) ORDER BY e.version DESC) FILTER (WHERE e.type <> 'item_added'))[1] AS status,
         count(*) FILTER (WHERE e.type IN ('order_placed', 'item_added')) AS lines,
         coalesce(sum((e.data->>'cents')::bigint) FILTER (WHERE e.type IN ('order_placed', 'item_added')), 0) AS total,
         coalesce(sum((e.data->>'cents')::bigint) FILTER (WHERE e.type = 'order_paid'), 0) AS paid
  FROM mt_events e WHERE e.stream_id = s.id AND e.version > coalesce(d.mt_version, 0)) AS l
WHERE NOT s.is_archived;

-- What moved and what did not, in version 1's documents: nothing may.
CREATE VIEW fingerprint AS SELECT count(*), sum(hashtextextended(d::text, 0)::numeric) FROM mt_doc_order d;
\o

-- ---- version 1 runs alone, and the store is attached -----------------------------------------------------------------------------------------------

SELECT is(pg_temp.try(1, pg_temp.orders(1, 200), 1), '200 ok', :'pass' || ': version 1 starts orders');
\o /dev/null
SELECT pg_temp.try(1, array_agg(i), 1 + (i % 4)) FROM generate_series(1, 200) AS i GROUP BY i % 4;
CREATE TEMPORARY TABLE described AS SELECT pg_temp.description('mt_events') AS events, pg_temp.description('mt_streams') AS streams;
SELECT $$
  SELECT stream_id, version AS sequence_number, replace(initcap(replace(type, '_', ' ')), ' ', '') AS event_type, data AS payload,
         id AS event_id, timestamp AS recorded_at$$ AS query \gset
\if :stamps
SELECT :'query' || $$, 'order@' || (headers->>'formatVersion') AS workflow_id$$ AS query \gset
\endif
SELECT :'query' || ' FROM mt_events WHERE NOT is_archived' AS query \gset
\o
SELECT is(format('%s %s %s', streams, events, damaged), (SELECT format('%s %s 0', count(DISTINCT stream_id), count(*)) FROM mt_events), '... which are attached')
FROM mako_attach_store(:'query', initial => 'order@FV2024-10-01');
SELECT is((SELECT format('%s %s', min(version), max(version)) FROM mt_streams), '2 5', '... with 2 to 5 events');
SELECT is(pg_temp.heads(), 'order@FV2024-10-01 200', '... under version 1');
SELECT is(pg_temp.wrong_heads(), 0::bigint, '... and heads as far as the streams');
SELECT is((SELECT count(*) FROM (TABLE mt_events EXCEPT ALL SELECT m.* FROM mako.event e JOIN mako.stream s USING (stream_no) JOIN mt_events m ON m.stream_id::text = s.stream_id
             AND m.version = e.sequence_number AND m.id = e.event_id AND m.data = e.payload AND m.timestamp = e.recorded_at) AS x), 0::bigint, '... every event is there');
SELECT is((SELECT string_agg(DISTINCT e.event_type || ' ' || e.workflow_id, ', ' ORDER BY e.event_type || ' ' || e.workflow_id) FROM mako.event e),
          'ItemAdded order@FV2024-10-01, OrderPaid order@FV2024-10-01, OrderPlaced order@FV2024-10-01, OrderShipped order@FV2024-10-01', '... of the classes'' types');

SELECT isnt(pg_temp.description('mt_events'), events, '... the table has our triggers') FROM described;

-- Version 1 notices nothing, though it has no privilege in schema mako.
SELECT is(pg_temp.error_as('marten_app', 'SELECT FROM mako.stream'), '42501|permission denied for schema mako', 'the application has no privileges on our tables');
SELECT is(pg_temp.try(1, pg_temp.orders(1, 40), 2), '40 ok', 'version 1 goes on');
SELECT is(pg_temp.try(1, pg_temp.orders(201, 220), 3), '20 ok', '... and starts orders');
SELECT is(pg_temp.error_as('marten_app', $$ SELECT client.append(client.id(1), 3, '{item_added}', '{Shop.ItemAdded}', '{"{\"price\": 1}"}', NULL) $$) LIKE '23505|%pk_mt_events_stream_and_version%', true,
          'a writer who comes second gets Marten''s own error');
SELECT is(pg_temp.error_as('marten_app', $$ SELECT client.append(client.id(1), 9, '{item_added}', '{Shop.ItemAdded}', '{"{\"price\": 1}"}', NULL) $$) LIKE 'XX001|%', true,
          'a gap is refused');
SELECT is(pg_temp.wrong_heads(), 0::bigint, 'heads follow');
SELECT is(pg_temp.heads(), 'order@FV2024-10-01 220', '... and there are new ones');
SELECT is((SELECT count(*) FROM mako_check() WHERE code LIKE 'head%' OR severity = 'error'), 0::bigint, 'the check finds nothing wrong with them');

-- ---- migrated, taken back, migrated ------------------------------------------------------------------------------------------------------------------

SELECT is(mako_add_sink($$
  INSERT INTO mt_doc_order_2 (id, data, mt_version, mt_dotnet_type)
  SELECT stream_id::uuid, state || jsonb_build_object('Id', stream_id), sequence_number, 'Shop.Order' FROM moved
  ON CONFLICT (id) DO UPDATE SET data = EXCLUDED.data, mt_version = EXCLUDED.mt_version$$,
  undo => $$ DELETE FROM mt_doc_order_2 d USING moved WHERE d.id = moved.stream_id::uuid AND d.mt_version = moved.sequence_number $$) > 0, true, 'a sink writes version 2''s documents');
SELECT count AS documents, sum AS sum_of_documents FROM fingerprint \gset
SELECT is(format('%s %s', migrated, failed), '218 2', 'migrated, but every 97th') FROM mako_migrate('order@FV2024-10-01', 'order@FV2025-10-01');
SELECT is((SELECT string_agg(format('%s %s %s %s', stream_id, phase, sqlstate, message), ', ' ORDER BY stream_id) FROM mako.migration_error WHERE run_id = pg_temp.last_run()),
          (SELECT string_agg(format('%s migrate MK002 an order of nobody', client.id(i)), ', ' ORDER BY client.id(i)) FROM unnest(pg_temp.refused(220)) AS i), '... which migrate refuses');
SELECT is(pg_temp.heads(), 'order@FV2024-10-01 2, order@FV2025-10-01 218', '... and which stay');
SELECT is_empty(format('SELECT * FROM mako_verify(%s)', pg_temp.last_run()), 'verified');
SELECT bag_eq('SELECT id, mt_version, data FROM mt_doc_order_2', $$ SELECT id, version, state || jsonb_build_object('Id', id) FROM oracle WHERE state->>'CustomerId' <> '' $$,
              'version 2''s documents are what the oracle says');
SELECT is((SELECT format('%s %s', count, sum) FROM fingerprint), :'documents' || ' ' || :'sum_of_documents', '... and version 1''s are as they were');

SELECT is(format('%s %s', migrated, failed), '218 0', 'taken back') FROM mako_revert(pg_temp.last_run());
SELECT is((SELECT count(*) FROM mt_doc_order_2), 0::bigint, '... with the documents');
SELECT is(pg_temp.heads(), 'order@FV2024-10-01 220', '... and the heads');
SELECT is((SELECT string_agg(DISTINCT workflow_id, ', ') FROM mako.event), 'order@FV2024-10-01', '... and events are version 1''s');
SELECT is(pg_temp.try(1, pg_temp.orders(31, 60), 1), '30 ok', 'version 1 goes on');
SELECT is(pg_temp.try(1, pg_temp.orders(221, 225), 2), '5 ok', '... and starts orders');
SELECT is((SELECT count(*) FROM mako_check() WHERE code LIKE 'head%' OR severity = 'error'), 0::bigint, '... and the check finds nothing');

-- In one transaction, or in batches.
\o /dev/null
\if :stamps
SELECT * FROM mako_migrate('order@FV2024-10-01', 'order@FV2025-10-01');
\else
CALL mako_migrate_batched('order@FV2024-10-01', 'order@FV2025-10-01', batch_size => 50);
\endif
\o
SELECT is((SELECT format('%s %s', migrated, failed) FROM mako.migration_run WHERE run_id = pg_temp.last_run()), '223 2', 'migrated again');
SELECT pg_temp.last_run() AS run \gset
SELECT is_empty(format('SELECT * FROM mako_verify(%s)', :run), '... and verified');
SELECT bag_eq('SELECT id, mt_version, data FROM mt_doc_order_2', $$ SELECT id, version, state || jsonb_build_object('Id', id) FROM oracle WHERE state->>'CustomerId' <> '' $$,
              '... with the documents of now');
SELECT is(format('%s %s', migrated, failed), '0 2', 'and again: nothing moves twice') FROM mako_migrate('order@FV2024-10-01', 'order@FV2025-10-01');
SELECT is((SELECT string_agg(DISTINCT workflow_id, ', ') FROM mako.event), 'order@FV2024-10-01', 'events are those of the version that wrote them');

-- ---- the versions meet ---------------------------------------------------------------------------------------------------------------------------------

SELECT count(*) AS events FROM mt_events \gset
SELECT is(pg_temp.try(1, pg_temp.accepted(1, 225), 1), '223 MK005', 'version 1 comes late everywhere');
SELECT is((SELECT count(*) FROM mt_events), :events::bigint, '... and leaves nothing');
SELECT is(pg_temp.try(1, pg_temp.refused(225), 1), '2 ok', '... but on the orders that were refused');
SELECT is(split_part(pg_temp.error('SELECT client.version_1(1, 1)'), '|', 2), format('stream "%s" runs under workflow "order@FV2025-10-01"', client.id(1)), '... who may know is told where it went');
SELECT is(pg_temp.error_as('marten_app', 'SELECT client.version_1(1, 1)') LIKE '%FV2025-10-01%', false, '... the application is not');
SELECT is(pg_temp.try(2, pg_temp.refused(225), 1), '2 MK005', 'version 2 does not get those');
SELECT is(pg_temp.try(2, pg_temp.accepted(1, 225), 2), '223 ok', 'version 2 goes on with the others');
SELECT is(pg_temp.try(2, pg_temp.accepted(226, 245), 4), '20 ok', '... and starts orders');
SELECT is(pg_temp.heads(), 'order@FV2024-10-01 2, order@FV2025-10-01 243', '... which run under version 2');
SELECT is((SELECT string_agg(format('%s %s', workflow_id, count), ', ' ORDER BY workflow_id) FROM (SELECT workflow_id, count(*) FROM mako.event GROUP BY 1) AS x),
          (SELECT format('order@FV2024-10-01 %s, order@FV2025-10-01 %s', count(*) FILTER (WHERE NOT in_cents), count(*) FILTER (WHERE in_cents))
           FROM (SELECT CASE WHEN m.type = 'order_shipped' THEN m.version > coalesce(d.mt_version, CASE WHEN o.state->>'CustomerId' = '' THEN 100 END, 0) ELSE m.data ? 'cents' END AS in_cents
                 FROM mt_events m JOIN oracle o ON o.id = m.stream_id LEFT JOIN mt_doc_order_2 d ON d.id = m.stream_id) AS x), 'events are those of the version that wrote them');
SELECT bag_eq('SELECT * FROM seen WHERE state->>''CustomerId'' <> ''''', 'SELECT * FROM oracle WHERE state->>''CustomerId'' <> ''''', 'version 2 sees what the oracle says');
SELECT is((SELECT count(*) FROM seen WHERE state->>'CustomerId' <> ''), 243::bigint, '... of all of its orders');
SELECT bag_eq($$ SELECT s.stream_id::uuid, (mako_state(s.stream_id)).state FROM mako.stream s WHERE workflow_id = 'order@FV2025-10-01' $$,
              $$ SELECT id, state FROM oracle WHERE state->>'CustomerId' <> '' $$, '... and so does mako_state()');
SELECT is(pg_temp.wrong_heads(), 0::bigint, 'heads follow');
SELECT is((SELECT count(*) FROM mako_check() WHERE code LIKE 'head%' OR severity = 'error'), 0::bigint, '... and the check finds nothing');
SELECT is_empty(format('SELECT * FROM mako_verify(%s)', :run), 'the run verifies as before');
SELECT is(format('%s %s', migrated, failed), '0 223', 'it cannot be undone any more') FROM mako_revert(:run);
SELECT is((SELECT count(*) FROM mt_doc_order_2), 223::bigint, '... no document is gone');

-- ---- archived, erased --------------------------------------------------------------------------------------------------------------------------------------

-- Order 97 is of version 1, 1 has moved, 226 is of version 2.
SELECT is(pg_temp.archive(i, true), 'forgotten', format('order %s is archived', i)) FROM unnest(array[97, 1, 226]) AS i;
SELECT is((SELECT count(*) FROM mako.event e JOIN mako.stream s USING (stream_no) WHERE s.stream_id::uuid IN (client.id(97), client.id(1), client.id(226))), 0::bigint, '... and has no events here');
SELECT is((SELECT count(*) FROM mako.snapshot n LEFT JOIN mako.stream s USING (stream_no) WHERE s.stream_no IS NULL), 0::bigint, '... nor a state');
SELECT is(pg_temp.wrong_heads(), 0::bigint, '... the others do');
SELECT is((SELECT count(*) FROM mako_check() WHERE code LIKE 'head%' OR severity = 'error'), 0::bigint, '... and the check finds nothing');
SELECT is(pg_temp.archive(97, false), 'order@FV2024-10-01 0', 'it comes back under version 1');
SELECT is(pg_temp.try(1, array[97], 1), '1 ok', '... where its application goes on');
\if :stamps
SELECT is(pg_temp.archive(i, false), 'order@FV2025-10-01 0', format('order %s comes back under the version that its last event says', i)) FROM unnest(array[1, 226]) AS i;
SELECT is(pg_temp.try(2, array[1, 226], 1), '2 ok', '... where its application goes on');
SET client_min_messages = error;  -- order 1 spans two versions without a migration's snapshot, of which there is a warning
SELECT is((mako_state(client.id(i)::text)).state, (SELECT state FROM oracle WHERE id = client.id(i)), format('order %s has its state', i)) FROM unnest(array[1, 226]) AS i;
RESET client_min_messages;
\else
-- Nothing says any more that these were version 2's: what a stream runs under is forgotten with its head.
SELECT is(pg_temp.archive(i, false), 'order@FV2024-10-01 0', format('order %s comes back under the version of attaching, like any that is not known', i)) FROM unnest(array[1, 226]) AS i;
SELECT is(pg_temp.try(2, array[1, 226], 1), '2 MK005', '... which is not that of version 2');
SELECT is(pg_temp.wrong_heads(), 0::bigint, '... heads are as far as the streams');
SELECT is((SELECT count(*) FROM mako_check() WHERE code LIKE 'head%'), 0::bigint, '... and the check finds nothing wrong with them');
\endif
SELECT is(pg_temp.archive(i, true), 'forgotten', format('order %s is archived again', i)) FROM unnest(array[1, 226]) AS i;

SET ROLE marten_app;
DELETE FROM mt_events WHERE stream_id = client.id(2);
DELETE FROM mt_streams WHERE id IN (client.id(3), client.id(4), client.id(97));
RESET ROLE;
SELECT is((SELECT count(*) FROM mako.stream WHERE stream_id IN (client.id(2)::text, client.id(3)::text, client.id(4)::text, client.id(97)::text)), 0::bigint, 'erased orders are forgotten, by cascade, too');
SELECT is(pg_temp.heads(), 'order@FV2024-10-01 1, order@FV2025-10-01 238', '... and no others');
DELETE FROM mt_streams WHERE id = client.id(2);
SELECT is(pg_temp.try(2, array[2], 4), '1 ok', 'an order of that id may start again');
SELECT is(pg_temp.wrong_heads(), 0::bigint, '... with a head of its own');

-- ---- detached, attached again, emptied -----------------------------------------------------------------------------------------------------------------------

SELECT mako_detach_store();
SELECT is(pg_temp.description('mt_events'), events, 'detached, the table of events is what it was') FROM described;
SELECT is(pg_temp.description('mt_streams'), streams, '... so is that of streams') FROM described;
SELECT is(pg_temp.try(2, pg_temp.orders(5, 9), 1), '5 ok', 'its application goes on');
SELECT is(format('%s %s %s', streams, events, damaged), (SELECT format('%s %s 0', count(DISTINCT stream_id), count(*)) FROM mt_events WHERE NOT is_archived), 'attached again')
FROM mako_attach_store(:'query', initial => 'order@FV2024-10-01');
SELECT is(pg_temp.heads() || ' ' || pg_temp.wrong_heads(), 'order@FV2024-10-01 1, order@FV2025-10-01 239 0', '... heads go on');
SELECT bag_eq('SELECT stream_id::uuid, (mako_state(stream_id)).state FROM mako.stream WHERE stream_id::uuid IN (SELECT client.id(i) FROM generate_series(5, 9) AS i)',
              'SELECT id, state FROM oracle WHERE id IN (SELECT client.id(i) FROM generate_series(5, 9) AS i)', '... from the migrated states');
TRUNCATE mt_events, mt_streams;
SELECT is(array[(SELECT count(*) FROM mako.stream), (SELECT count(*) FROM mako.snapshot)], array[0, 0]::bigint[], 'all is forgotten when all is truncated');
SELECT mako_detach_store();
SELECT is(pg_temp.description('mt_events'), events, 'detached again') FROM described;

\o /dev/null
SELECT mako_remove_sink(sink_no) FROM mako_sink WHERE removed_at IS NULL;
DROP TABLE described;
RESET search_path;
\o
