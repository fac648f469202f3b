-- A store of two workflows that do the same: "native", whose functions the extension evaluates
-- itself, and "plain", in PL/pgSQL and over a domain. Each has a later version, and steps there and
-- back. There are :streams processes of four events, every other one of each workflow. Every third
-- one has a deadline, which follows it.

SET client_min_messages = warning;
CREATE EXTENSION mako_migration;
SELECT mako_create_store();

CREATE SCHEMA lib;
CREATE FUNCTION lib.wrap(value jsonb) RETURNS jsonb LANGUAGE sql STABLE PARALLEL SAFE AS
  $$ SELECT jsonb_build_object('of', value) $$;
CREATE DOMAIN lib.state AS jsonb CONSTRAINT an_object CHECK (jsonb_typeof(VALUE) = 'object');
CREATE FUNCTION lib.apply_native(state jsonb, event_type text, payload jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE event_type
    WHEN 'Opened' THEN jsonb_build_object('by', payload->'by', 'count', 0)
    WHEN 'Noted' THEN state || jsonb_build_object('count', (state->>'count')::int + 1,
                                                  'last', lib.wrap(payload->'note'))
    WHEN 'Refused' THEN mako_reject('refused')
  END
$$;
CREATE FUNCTION lib.apply_plain(state lib.state, event_type text, payload jsonb) RETURNS lib.state
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
BEGIN
  IF event_type = 'Refused' THEN
    RETURN mako_reject('refused');
  END IF;
  RETURN state || jsonb_build_object('seen', coalesce((state->>'seen')::int, 0) + 1,
                                     'last', lib.wrap(payload->'note'));
END
$$;
CREATE FUNCTION lib.forth(state jsonb) RETURNS jsonb LANGUAGE sql STABLE PARALLEL SAFE AS
  $$ SELECT state || '{"layout": 2}' $$;
CREATE FUNCTION lib.back(state jsonb) RETURNS jsonb LANGUAGE sql STABLE PARALLEL SAFE AS
  $$ SELECT (state - 'layout') || '{"count": 0}' $$;

SELECT mako_register_workflow(name || '@FV2024-10-01', 'lib.apply_' || name,
                              initial_state => '{}'),
       mako_register_workflow(name || '@FV2025-10-01', 'lib.apply_plain',
                              initial_state => '{}', state_schema_version => 2)
FROM unnest(ARRAY['native', 'plain']) AS name;
SELECT mako_register_migration(name || '@FV2024-10-01', name || '@FV2025-10-01', 'lib.forth'),
       mako_register_migration(name || '@FV2025-10-01', name || '@FV2024-10-01', 'lib.back')
FROM unnest(ARRAY['native', 'plain']) AS name;

INSERT INTO mako.stream (stream_id, tenant_id, process_id, workflow_id)
SELECT format('process/%s/%s', tenant, process), tenant, process,
       CASE n % 2 WHEN 0 THEN 'native' ELSE 'plain' END || '@FV2024-10-01'
FROM (SELECT n, 'aaaaaaaa-0000-4000-8000-000000000001'::uuid AS tenant,
             ('bbbbbbbb-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid AS process
      FROM generate_series(1, :streams) AS n) AS ids
ORDER BY n;
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
SELECT stream_no, n, workflow_id, CASE n WHEN 1 THEN 'Opened' ELSE 'Noted' END,
       jsonb_build_object('by', stream_no, 'note', repeat(chr(96 + n), n * 10))
FROM mako.stream, generate_series(1, 4) AS n
ORDER BY stream_no, n;
INSERT INTO mako.registry (tenant_id, key, stream_no)
SELECT tenant_id, process_id::text, stream_no FROM mako.stream;

CREATE TABLE lib.deadline (stream_no bigint PRIMARY KEY, workflow_id text NOT NULL);
INSERT INTO lib.deadline SELECT stream_no, workflow_id FROM mako.stream WHERE stream_no % 3 = 0;
SELECT mako_add_dependent('lib.deadline', 'stream_no', 'workflow_id');
ANALYZE;
