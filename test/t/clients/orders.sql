-- The same as orders.mjs, as functions of the database.
CREATE SCHEMA orders;

CREATE FUNCTION orders.apply_2024(state jsonb, event_type text, payload jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE event_type
    WHEN 'OrderPlaced' THEN jsonb_build_object('status', 'Placed', 'customer', mako_required(payload, 'customer'),
      'country', payload->'country', 'items', '[]'::jsonb, 'total', 0)
    WHEN 'ItemAdded' THEN state || jsonb_build_object('items', state->'items' || jsonb_build_array(payload),
      'total', (state->>'total')::numeric + (payload->>'quantity')::numeric * (mako_required(payload, 'price') #>> '{}')::numeric)
    WHEN 'OrderPaid' THEN state || '{"status": "Paid"}'
  END $$;

CREATE FUNCTION orders.apply_2025(state jsonb, event_type text, payload jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE event_type
    WHEN 'OrderPlaced' THEN jsonb_build_object('status', 'Placed', 'buyer', mako_required(payload, 'buyer'), 'lines', '[]'::jsonb, 'cents', 0)
    WHEN 'ItemAdded' THEN state || jsonb_build_object('lines', mako_required(state, 'lines') || jsonb_build_array(payload),
      'cents', (state->>'cents')::numeric + (payload->>'quantity')::numeric * (mako_required(payload, 'cents') #>> '{}')::numeric)
    WHEN 'OrderPaid' THEN state || '{"status": "Paid"}'
  END $$;

CREATE FUNCTION orders.migrate(state jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN state->'country' = 'null' THEN mako_reject('no country')
  ELSE jsonb_build_object('status', state->'status',
    'buyer', jsonb_build_object('name', state->'customer', 'country', state->'country'),
    'lines', (SELECT COALESCE(jsonb_agg(i.item - 'price' || jsonb_build_object('cents', 100 * (i.item->>'price')::numeric) ORDER BY i.place), '[]')
              FROM jsonb_array_elements(state->'items') WITH ORDINALITY AS i (item, place)),
    'cents', 100 * (state->>'total')::numeric)
  END $$;

SELECT mako_register_workflow('order@FV2024-10-01', apply => 'orders.apply_2024', initial_state => '{"status": "New"}');
SELECT mako_register_workflow('order@FV2025-10-01', apply => 'orders.apply_2025', initial_state => '{"status": "New"}', state_schema_version => 2);
SELECT mako_register_migration('order@FV2024-10-01', 'order@FV2025-10-01', migrate => 'orders.migrate');
