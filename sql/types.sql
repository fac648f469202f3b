-- Type definitions: validation, malformed ones, and what a mismatch looks like in a report. Needs ids.sql.
\pset format unaligned
\pset null '(null)'
\pset footer off

SET client_min_messages = warning;
CREATE SCHEMA types;
SELECT mako_create_store();
RESET client_min_messages;

-- Every form, valid and not
SELECT mako_is_valid(definition::jsonb, instance::jsonb) AS valid,
       (SELECT string_agg(format('%s against %s', COALESCE(NULLIF(instance_path, ''), '(root)'), COALESCE(NULLIF(schema_path, ''), '(root)')),
                          ', ' ORDER BY instance_path COLLATE "C", schema_path COLLATE "C")
        FROM mako_validate(definition::jsonb, instance::jsonb)) AS errors
FROM (VALUES
  (1, '{}', '[1, null, {"a": "b"}]'),
  (2, '{"type": "uint8"}', '255'),
  (3, '{"type": "uint8"}', '256'),
  (4, '{"type": "uint8"}', '7.0'),
  (5, '{"type": "int32"}', '1e30'),
  (6, '{"type": "timestamp"}', '"2025-10-01T00:00:00.5+02:00"'),
  (7, '{"type": "timestamp"}', '"2025-02-29T00:00:00Z"'),
  (8, '{"type": "timestamp"}', '"2016-12-31T23:59:60Z"'),
  (9, '{"type": "timestamp"}', '"2016-12-31T22:59:60Z"'),
  (10, '{"enum": ["a", "b"]}', '"c"'),
  (11, '{"elements": {"type": "string"}}', '["a", 1, "b", 2]'),
  (12, '{"properties": {"a": {"type": "string"}}, "optionalProperties": {"b": {"type": "boolean", "nullable": true}}}', '{"b": null, "c/d~e": 1}'),
  (13, '{"values": {"type": "float64"}}', '{"x": 1, "y": "1"}'),
  (14, '{"discriminator": "t", "mapping": {"A": {"properties": {"n": {"type": "int8"}}}}}', '{"t": "A", "n": 1}'),
  (15, '{"discriminator": "t", "mapping": {"A": {"properties": {"n": {"type": "int8"}}}}}', '{"t": "B", "n": 1}'),
  (16, '{"definitions": {"list": {"elements": {"ref": "list"}}}, "ref": "list"}', '[[], [[1]]]')
) AS t (ordinal, definition, instance)
ORDER BY ordinal;

-- Malformed definitions name the place
SELECT test.failure(format('SELECT mako_is_valid(%L, ''1'')', definition))
FROM (VALUES
  (1, '[]'), (2, '{"typ": "string"}'), (3, '{"properties": {"a": {"type": "text"}}}'), (4, '{"ref": "nowhere"}'),
  (5, '{"elements": {"definitions": {}}}'), (6, '{"properties": {"a": {}}, "optionalProperties": {"a": {}}}'),
  (7, '{"discriminator": "t", "mapping": {"A": {"properties": {"t": {}}}}}'), (8, '{"enum": ["a", "a"]}'),
  (9, '{"definitions": {"a": {"ref": "b"}, "b": {"ref": "a"}}, "ref": "a"}'), (10, '{"type": "string", "enum": ["a"]}'),
  (11, '{"metadata": 1}')
) AS t (ordinal, definition)
ORDER BY ordinal;

-- A typed workflow: each payload is checked before apply, each state after its step
CREATE FUNCTION types.apply(state jsonb, event_type text, payload jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$ SELECT state || (payload - 'type') $$;
CREATE FUNCTION types.migrate(state jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$ SELECT jsonb_build_object('total', state->'amount', 'unit', state->'unit') $$;

SELECT mako_register_workflow('meter@FV2024-10-01', apply => 'types.apply', initial_state => '{}', event_type_definition => '{
  "discriminator": "type",
  "mapping": {
    "Read":   {"properties": {"amount": {"type": "uint32"}}, "metadata": {"event_type": "MeterRead"}},
    "Labeled": {"properties": {"unit": {"enum": ["kWh", "m3"]}}, "metadata": {"event_type": "MeterLabeled"}}}}');
SELECT mako_register_workflow('meter@FV2025-10-01', apply => 'types.apply', initial_state => '{"total": 0, "unit": "kWh"}',
                              state_type_definition => '{"properties": {"total": {"type": "uint32"}, "unit": {"enum": ["kWh", "m3"]}}}');
SELECT mako_register_migration('meter@FV2024-10-01', 'meter@FV2025-10-01', migrate => 'types.migrate');

-- What is refused at registration
SELECT test.failure($$ SELECT mako_register_workflow('bad@FV2024-10-01', 'types.apply', initial_state => '{}',
                                                     event_type_definition => '{"elements": 1}') $$);
SELECT test.failure($$ SELECT mako_register_workflow('bad@FV2024-10-01', 'types.apply', initial_state => '{}',
                                                     state_type_definition => '{"properties": {"total": {}}}') $$);
SELECT test.failure($$ SELECT mako_register_workflow('bad@FV2024-10-01', event_type_definition => '{}') $$);
SELECT test.failure($$ SELECT mako_register_workflow('meter@FV2024-10-01', apply => 'types.apply', initial_state => '{}',
                                                     event_type_definition => '{}') $$);

-- Unit tests meet the same checks
SELECT mako_fold('meter@FV2024-10-01', '[{"event_type": "MeterRead", "payload": {"type": "Read", "amount": 5}},
                                         {"event_type": "MeterLabeled", "payload": {"unit": "kWh"}}]');
SELECT mako_fold('meter@FV2024-10-01', '[{"event_type": "MeterLabeled", "payload": {"type": "Read", "amount": 5}}]');
SELECT mako_migrate_state('meter@FV2024-10-01', 'meter@FV2025-10-01', '{"amount": 5}');

-- The report
INSERT INTO mako.stream (stream_id, workflow_id)
SELECT id, 'meter@FV2024-10-01'
FROM unnest('{good,"without tag","of another type","unknown variant",misses,"no object","state does not fit"}'::text[])
     WITH ORDINALITY AS t (id, ordinal)
ORDER BY ordinal;
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
SELECT s.stream_no, e.sequence_number, s.workflow_id, e.event_type, e.payload::jsonb
FROM (VALUES
  ('good', 1, 'MeterRead', '{"type": "Read", "amount": 5}'), ('good', 2, 'MeterLabeled', '{"type": "Labeled", "unit": "m3"}'),
  ('without tag', 1, 'MeterRead', '{"amount": 5}'), ('without tag', 2, 'MeterLabeled', '{"unit": "m3"}'),
  ('of another type', 1, 'MeterLabeled', '{"type": "Read", "amount": 5}'),
  ('unknown variant', 1, 'MeterRead', '{"type": "Read", "amount": 5}'), ('unknown variant', 2, 'MeterLost', '{"type": "Lost"}'),
  ('misses', 1, 'MeterRead', '{"type": "Read", "amount": "5", "more": 1}'),
  ('no object', 1, 'MeterRead', '"Read"'),
  ('state does not fit', 1, 'MeterRead', '{"type": "Read", "amount": 5}')
) AS e (stream_id, sequence_number, event_type, payload)
JOIN mako.stream s USING (stream_id);
SELECT migrated, skipped, failed FROM mako_migrate('meter@FV2024-10-01', 'meter@FV2025-10-01');
SELECT stream_id, phase, sequence_number, sqlstate, message, detail, hint FROM mako.migration_error ORDER BY error_no;
SELECT s.stream_id, n.state FROM mako.snapshot n JOIN mako.stream s USING (stream_no) ORDER BY s.stream_no;

SET client_min_messages = warning;
DROP SCHEMA mako CASCADE;
SELECT mako_unregister_migration('meter@FV2024-10-01', 'meter@FV2025-10-01');
SELECT mako_unregister_workflow('meter@FV2024-10-01');
SELECT mako_unregister_workflow('meter@FV2025-10-01');
DROP SCHEMA types CASCADE;
