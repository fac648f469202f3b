-- An event store of Marten's is attached: its tables as its DDL makes them, and what its client does to them, in SQL, because the client is
-- a .NET library. Orders are written by version 1 and migrated into the documents of version 2, in two passes: events that say in their
-- headers which version wrote them, and events that do not, where version 2 says it once, as an option of its connection.
-- Runs in an empty database, from the root of the project.

CREATE EXTENSION pgtap;
CREATE EXTENSION mako_migration;

SELECT plan(162);

SELECT mako_create_store();
\ir include/helpers.sql

-- ---- versions 1 and 2 of an order -----------------------------------------------------------------------------------------------------------

-- Version 1 counts in euros, version 2 in cents.
CREATE SCHEMA shop;
CREATE FUNCTION shop.apply_2024(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE event_type
    WHEN 'OrderPlaced' THEN jsonb_build_object('customer', payload->'customer', 'status', 'placed', 'paid', 0,
                                               'items', jsonb_build_array(jsonb_build_object('price', mako_required(payload, 'price'))))
    WHEN 'ItemAdded' THEN jsonb_set(state, '{items}', state->'items' || jsonb_build_object('price', mako_required(payload, 'price')))
    WHEN 'OrderPaid' THEN state || jsonb_build_object('status', 'paid', 'paid', (state->>'paid')::numeric + mako_required(payload, 'price')::numeric)
    WHEN 'OrderShipped' THEN state || '{"status": "shipped"}'
  END $$;
CREATE FUNCTION shop.apply_2025(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE event_type
    WHEN 'OrderPlaced' THEN jsonb_build_object('CustomerId', payload->'customer', 'Status', 'Placed', 'Lines', 1, 'TotalCents', mako_required(payload, 'cents'),
                                               'OpenCents', payload->'cents')
    WHEN 'ItemAdded' THEN state || jsonb_build_object('Lines', (state->>'Lines')::int + 1, 'TotalCents', (state->>'TotalCents')::bigint + mako_required(payload, 'cents')::bigint,
                                                      'OpenCents', (state->>'OpenCents')::bigint + (payload->>'cents')::bigint)
    WHEN 'OrderPaid' THEN state || jsonb_build_object('Status', 'Paid', 'OpenCents', (state->>'OpenCents')::bigint - mako_required(payload, 'cents')::bigint)
    WHEN 'OrderShipped' THEN state || '{"Status": "Shipped"}'
  END $$;
CREATE FUNCTION shop.migrate(state jsonb) RETURNS jsonb LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN state->>'customer' = '' THEN mako_reject('an order of nobody')
    ELSE jsonb_build_object('CustomerId', state->'customer', 'Status', initcap(state->>'status'), 'Lines', jsonb_array_length(state->'items'),
                            'TotalCents', (total * 100)::bigint, 'OpenCents', ((total - (state->>'paid')::numeric) * 100)::bigint) END
  FROM (SELECT sum((item->>'price')::numeric) AS total FROM jsonb_array_elements(state->'items') AS item) AS x $$;
SELECT mako_register_workflow('order@FV2024-10-01', 'shop.apply_2024', initial_state => '{}'),
       mako_register_workflow('order@FV2025-10-01', 'shop.apply_2025', initial_state => '{}', state_schema_version => 2);
SELECT mako_register_migration('order@FV2024-10-01', 'order@FV2025-10-01', 'shop.migrate');

-- ---- the shop ---------------------------------------------------------------------------------------------------------------------------------

-- The application may use its own tables, and knows nothing of the extension.
CREATE ROLE marten_app;
CREATE SCHEMA client;
GRANT USAGE ON SCHEMA client TO marten_app;

CREATE FUNCTION client.id(i int) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$ SELECT md5('order ' || i)::uuid $$;

-- Events as an application makes them: type as Marten writes it, class, and data; version 1 knows prices in euros, version 2 in cents.
CREATE FUNCTION client.bodies(i int, first int, last int, in_cents boolean) RETURNS TABLE (type text, class text, data jsonb) LANGUAGE sql IMMUTABLE AS $$
  SELECT t, 'Shop.' || replace(initcap(replace(t, '_', ' ')), ' ', '') || ', Shop',
         CASE t WHEN 'order_placed' THEN jsonb_build_object('customer', CASE WHEN i % 97 = 0 THEN '' ELSE 'customer ' || i % 31 END) ELSE '{}' END
         || CASE WHEN t = 'order_shipped' THEN '{}' WHEN in_cents THEN jsonb_build_object('cents', (price * 100)::bigint) ELSE jsonb_build_object('price', price) END
  FROM generate_series(first, last) AS n,
       LATERAL (SELECT (array['order_placed', 'item_added', 'item_added', 'order_paid', 'order_shipped'])[least(n, 5)] AS t, i % 50 + n + (i % 4) / 4.0 AS price) AS x
  ORDER BY n $$;

-- Marten's append: an insert for each event, then the stream's version, where it is the expected one. Version 0 starts the stream.
CREATE FUNCTION client.append(stream uuid, expected bigint, types text[], classes text[], bodies jsonb[], headers jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF expected = 0 THEN
    INSERT INTO mt_streams (id, type, version, is_archived) VALUES (stream, 'order', 0, false);
  END IF;
  FOR n IN 1 .. cardinality(types) LOOP
    INSERT INTO mt_events (seq_id, id, stream_id, version, data, type, mt_dotnet_type, headers, is_archived)
    VALUES (nextval('mt_events_sequence'), gen_random_uuid(), stream, expected + n, bodies[n], types[n], classes[n], headers, false);
  END LOOP;
  UPDATE mt_streams SET version = expected + cardinality(types), timestamp = now() WHERE id = stream AND version = expected;
  IF NOT FOUND THEN
    RAISE 'unexpected starting version number for event stream %, expected %', stream, expected USING ERRCODE = 'MT999';
  END IF;
END $$;

-- Version 1 appends what an order has next, and writes its document in the same transaction.
CREATE FUNCTION client.version_1(i int, events int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  at bigint := coalesce((SELECT version FROM mt_streams WHERE id = client.id(i)), 0);
BEGIN
  PERFORM client.append(client.id(i), at, array_agg(b.type), array_agg(b.class), array_agg(b.data),
                        CASE WHEN current_setting('client.stamps')::boolean THEN '{"formatVersion": "FV2024-10-01"}'::jsonb END)
  FROM client.bodies(i, (at + 1)::int, (at + events)::int, false) AS b;
  INSERT INTO mt_doc_order (id, data, mt_version, mt_dotnet_type)
  SELECT client.id(i), jsonb_build_object('Id', client.id(i), 'Total', sum((data->>'price')::numeric) FILTER (WHERE type IN ('order_placed', 'item_added'))), max(version), 'Shop.Order'
  FROM mt_events WHERE stream_id = client.id(i)
  ON CONFLICT (id) DO UPDATE SET data = EXCLUDED.data, mt_version = EXCLUDED.mt_version;
END $$;

-- Version 2 does the same; its documents are written by Marten's daemon, later than this test.
CREATE FUNCTION client.version_2(i int, events int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  at bigint := coalesce((SELECT version FROM mt_streams WHERE id = client.id(i)), 0);
BEGIN
  PERFORM client.append(client.id(i), at, array_agg(b.type), array_agg(b.class), array_agg(b.data),
                        CASE WHEN current_setting('client.stamps')::boolean THEN '{"formatVersion": "FV2025-10-01"}'::jsonb END)
  FROM client.bodies(i, (at + 1)::int, (at + events)::int, true) AS b;
END $$;

-- What a version does for some orders, one subtransaction each, as the application: how often it went well, and how often with which error.
CREATE FUNCTION pg_temp.try(version int, orders int[], events int) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  outcomes text[] := '{}';
BEGIN
  PERFORM set_config('role', 'marten_app', true);
  PERFORM set_config('mako.writer', CASE WHEN version = 2 THEN 'FV2025-10-01' ELSE '' END, true);
  FOR n IN 1 .. cardinality(orders) LOOP
    BEGIN
      EXECUTE format('SELECT client.version_%s(%s, %s)', version, orders[n], events);
      outcomes := array_append(outcomes, 'ok');
    EXCEPTION WHEN OTHERS THEN
      outcomes := array_append(outcomes, SQLSTATE);
    END;
  END LOOP;
  PERFORM set_config('role', 'none', true);
  PERFORM set_config('mako.writer', '', true);
  RETURN (SELECT string_agg(format('%s %s', count, outcome), ', ' ORDER BY outcome COLLATE "C")
          FROM (SELECT outcome, count(*) FROM unnest(outcomes) AS outcome GROUP BY 1) AS x);
END $$;

CREATE FUNCTION pg_temp.orders(first int, last int) RETURNS int[] LANGUAGE sql AS $$ SELECT array_agg(i) FROM generate_series(first, last) AS i $$;
CREATE FUNCTION pg_temp.refused(last int) RETURNS int[] LANGUAGE sql AS $$ SELECT array_agg(i) FROM generate_series(97, last, 97) AS i $$;
CREATE FUNCTION pg_temp.accepted(first int, last int) RETURNS int[] LANGUAGE sql AS $$ SELECT array_agg(i) FROM generate_series(first, last) AS i WHERE i % 97 > 0 $$;
CREATE FUNCTION pg_temp.last_run() RETURNS bigint LANGUAGE sql AS $$ SELECT max(run_id) FROM mako.migration_run WHERE kind <> 'revert' $$;

-- Streams by the version of their heads.
CREATE FUNCTION pg_temp.heads() RETURNS text LANGUAGE sql AS $$
  SELECT string_agg(format('%s %s', workflow_id, count), ', ' ORDER BY workflow_id) FROM (SELECT workflow_id, count(*) FROM mako.stream GROUP BY 1) AS x $$;

-- Heads that are not what Marten's own are.
CREATE FUNCTION pg_temp.wrong_heads() RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
  RETURN count(*) FROM (SELECT stream_id, version FROM mako.stream) AS ours
  FULL JOIN (SELECT id::text, version FROM mt_streams WHERE NOT is_archived) AS theirs ON ours.stream_id = theirs.id
  WHERE ours.version IS DISTINCT FROM theirs.version;
END $$;

-- Archives an order as mt_archive_stream() does it, or takes it back; what its head says then, and by how much it is wrong.
CREATE FUNCTION pg_temp.archive(i int, archived boolean) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('role', 'marten_app', true);
  UPDATE mt_streams SET is_archived = archived WHERE id = client.id(i);
  UPDATE mt_events SET is_archived = archived WHERE stream_id = client.id(i);
  PERFORM set_config('role', 'none', true);
  RETURN coalesce((SELECT format('%s %s', workflow_id, version - (SELECT max(version) FROM mt_events WHERE stream_id = client.id(i))) FROM mako.stream WHERE stream_id = client.id(i)::text), 'forgotten');
END $$;

-- What the catalogs say of a table.
CREATE FUNCTION pg_temp.description(relation regclass) RETURNS text LANGUAGE sql AS $$
  SELECT string_agg(line, E'\n' ORDER BY line COLLATE "C")
  FROM (SELECT format('table %s', to_jsonb(c) - '{relpages,reltuples,relallvisible,relfrozenxid,relminmxid,relfilenode}'::text[]) FROM pg_class c WHERE c.oid = relation
        UNION ALL SELECT format('column %s', to_jsonb(a)) FROM pg_attribute a WHERE a.attrelid = relation
        UNION ALL SELECT format('default %s %s', d.adnum, pg_get_expr(d.adbin, d.adrelid)) FROM pg_attrdef d WHERE d.adrelid = relation
        UNION ALL SELECT format('index %s %s', pg_get_indexdef(i.indexrelid), to_jsonb(i)) FROM pg_index i WHERE i.indrelid = relation
        UNION ALL SELECT format('constraint %s %s', pg_get_constraintdef(c.oid), to_jsonb(c)) FROM pg_constraint c WHERE relation IN (c.conrelid, c.confrelid)
        UNION ALL SELECT format('trigger %s %s', pg_get_triggerdef(t.oid), to_jsonb(t)) FROM pg_trigger t WHERE t.tgrelid = relation
        UNION ALL SELECT format('rule %s', pg_get_ruledef(r.oid)) FROM pg_rewrite r WHERE r.ev_class = relation
        UNION ALL SELECT format('policy %s', to_jsonb(p)) FROM pg_policy p WHERE p.polrelid = relation
        UNION ALL SELECT format('depends %s %s %s', d.classid::regclass, d.objid, d.deptype) FROM pg_depend d
                  WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = relation AND d.classid <> 'pg_type'::regclass) AS x (line) $$;

-- ---- the two passes ----------------------------------------------------------------------------------------------------------------------------

\set pass stamped
\set stamps true
\ir include/marten_pass.sql

\set pass unstamped
\set stamps false
\ir include/marten_pass.sql

SELECT * FROM finish();
