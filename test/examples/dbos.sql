-- Pending workflows of DBOS go on under version 2, which has one more step after the first, fraudCheck: see doc/attach.md.
-- Needs a store without events, and schema shop of that page. The tables are those of DBOS, reduced, with one workflow.

CREATE SCHEMA dbos;
CREATE TABLE dbos.workflow_status (workflow_uuid text PRIMARY KEY, status text, name text, application_version text);
CREATE TABLE dbos.operation_outputs (workflow_uuid text, function_id int, output text, error text, function_name text,
                                     PRIMARY KEY (workflow_uuid, function_id));
INSERT INTO dbos.workflow_status VALUES ('w-1', 'PENDING', 'checkout', 'FV2024-10-01');
INSERT INTO dbos.operation_outputs
VALUES ('w-1', 0, '{"json":12}', NULL, 'reserve'), ('w-1', 1, '{"json":"ok"}', NULL, 'charge'), ('w-1', 3, NULL, NULL, 'DBOS.recv');
CREATE FUNCTION shop.add_step(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE
AS $$ SELECT jsonb_build_object('steps', state->'steps' || payload) $$;
CREATE FUNCTION shop.insert_fraud_check(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT jsonb_build_object('steps', '[{"function_id": 1, "function_name": "fraudCheck", "output": "{\"json\":true}"}]' ||
    (SELECT jsonb_agg(CASE WHEN (step->>'function_id')::int < 1 THEN step
       ELSE jsonb_set(step, '{function_id}', to_jsonb((step->>'function_id')::int + 1)) END)
     FROM jsonb_array_elements(state->'steps') AS step)) $$;

SELECT mako_register_workflow('checkout@' || v, 'shop.add_step', initial_state => '{"steps": []}')
FROM unnest('{FV2024-10-01,FV2025-10-01}'::text[]) AS v;
SELECT mako_register_migration('checkout@FV2024-10-01', 'checkout@FV2025-10-01', 'shop.insert_fraud_check');

-- The log is written anew, in the order in which sinks are added.
SELECT mako_add_sink($$ DELETE FROM dbos.operation_outputs o USING moved m WHERE o.workflow_uuid = m.stream_id $$);
SELECT mako_add_sink($$
  WITH version AS (
    UPDATE dbos.workflow_status w SET application_version = mako_workflow_version(m.target_wf)
    FROM moved m WHERE w.workflow_uuid = m.stream_id)
  INSERT INTO dbos.operation_outputs SELECT stream_id, step.*
  FROM moved, jsonb_to_recordset(state->'steps')
    AS step (function_id int, output text, error text, function_name text) $$);

-- Step ids may have gaps, as where a step waits; events are numbered without one.
BEGIN;
LOCK TABLE dbos.workflow_status, dbos.operation_outputs IN SHARE ROW EXCLUSIVE MODE;
INSERT INTO mako.stream (stream_id, workflow_id)
SELECT workflow_uuid, name || '@' || application_version FROM dbos.workflow_status WHERE status = 'PENDING';
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
SELECT s.stream_no, row_number() OVER (PARTITION BY s.stream_no ORDER BY o.function_id), s.workflow_id, o.function_name,
       to_jsonb(o) - 'workflow_uuid'
FROM mako.stream s JOIN dbos.operation_outputs o ON o.workflow_uuid = s.stream_id;
SELECT migrated, failed FROM mako_migrate('checkout@FV2024-10-01', 'checkout@FV2025-10-01', max_errors => 0);
COMMIT;

SELECT * FROM dbos.operation_outputs ORDER BY workflow_uuid, function_id;
