-- mako_migrate() from end to end, its report, and every way in which a call or a stream can fail.

\pset format unaligned
\pset null '(null)'
\pset footer off

SELECT mako_create_store();
CREATE SCHEMA mig;

-- An event, in short.
CREATE PROCEDURE mig.append(stream text, workflow text, event_type text, payload jsonb DEFAULT '{}', schema_version int DEFAULT 1)
LANGUAGE sql AS $$
  INSERT INTO mako.stream (stream_id, workflow_id) VALUES (stream, workflow) ON CONFLICT (stream_id) DO NOTHING;
  INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload, schema_version)
  SELECT s.stream_no, s.version + 1, workflow, append.event_type, append.payload, append.schema_version FROM mako.stream s
    WHERE s.stream_id = stream;
$$;

--
-- A supplier change, from its old layout to a new one
--

CREATE DOMAIN mig.state AS jsonb CONSTRAINT has_status CHECK (VALUE ? 'status');
CREATE FUNCTION mig.apply_2024(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE event_type
    WHEN 'Initiated' THEN jsonb_build_object('status', 'Initiated', 'malo', mako_required(payload, 'malo'))
    WHEN 'Activated' THEN state || '{"status": "Active"}'
    WHEN 'Rejected' THEN jsonb_build_object('status', 'Rejected', 'reason', payload->'reason')
  END $$;
CREATE FUNCTION mig.apply_2025(state mig.state, event_type text, payload jsonb) RETURNS mig.state LANGUAGE sql STABLE AS $$
  SELECT state || CASE event_type WHEN 'Activated' THEN jsonb '{"status": "Active"}' ELSE '{}' END $$;
CREATE FUNCTION mig.migrate_2024_2025(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE state->>'status'
    WHEN 'Rejected' THEN mako_reject('a rejected process stays where it is')
    ELSE state || '{"commodity": "power"}'
  END $$;
CREATE FUNCTION mig.in_flight(state jsonb) RETURNS boolean LANGUAGE sql STABLE AS $$ SELECT state->>'status' <> 'Active' $$;

SELECT mako_register_workflow('change@FV2024-10-01', 'mig.apply_2024', in_flight => 'mig.in_flight',
  initial_state => '{"status": "New"}');
SELECT mako_register_workflow('change@FV2025-10-01', 'mig.apply_2025', initial_state => '{"status": "New"}',
  state_schema_version => 2);
SELECT mako_register_workflow('change@FV2026-10-01', 'mig.apply_2025', initial_state => '{"status": "New"}',
  state_schema_version => 2);
SELECT mako_register_migration('change@FV2024-10-01', 'change@FV2025-10-01', 'mig.migrate_2024_2025');
SELECT mako_register_migration('change@FV2025-10-01', 'change@FV2026-10-01');

CALL mig.append('initiated', 'change@FV2024-10-01', 'Initiated', '{"malo": "51238696012"}');
CALL mig.append('active', 'change@FV2024-10-01', 'Initiated', '{"malo": "10001234558"}');
CALL mig.append('active', 'change@FV2024-10-01', 'Activated');
CALL mig.append('rejected', 'change@FV2024-10-01', 'Rejected', '{"reason": "unknown"}');
CALL mig.append('another', 'other@FV2024-10-01', 'Something');
INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('empty', 'change@FV2024-10-01');
INSERT INTO mako.stream (stream_id, tenant_id, process_id, workflow_id)
SELECT 'process/' || t || '/' || t, t, t, 'change@FV2024-10-01'
  FROM (VALUES ('00000000-0000-0000-0000-000000000001'::uuid)) AS v (t);
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
SELECT stream_no, 1, workflow_id, 'Initiated', '{"malo": "41373559241"}' FROM mako.stream WHERE process_id IS NOT NULL;
INSERT INTO mako.registry (tenant_id, key, stream_no) SELECT tenant_id, 'order 1', stream_no FROM mako.stream
  WHERE process_id IS NOT NULL;
CREATE TABLE mig.deadline (process_id uuid, workflow_id text, label text);
INSERT INTO mig.deadline VALUES ('00000000-0000-0000-0000-000000000001', 'change@FV2024-10-01', 'followed'),
  ('00000000-0000-0000-0000-000000000001', 'other@FV2024-10-01', 'of another workflow'), ('00000000-0000-0000-0000-000000000002',
    'change@FV2024-10-01', 'of another process');
SELECT mako_add_dependent('mig.deadline', 'process_id', 'workflow_id');

-- One tenant, then those in flight, then all
SELECT run_id, source_wf, target_wf, migrated, skipped, failed, errors, started_at >= now() AND duration >= '0' AS timed
FROM mako_migrate('change@FV2024-10-01', 'change@FV2025-10-01', tenant_id => '00000000-0000-0000-0000-000000000001',
  reason => 'pilot');
SELECT migrated, skipped, failed FROM mako_migrate('change@FV2024-10-01', 'change@FV2025-10-01', in_flight_only => true);
SELECT run_id, migrated, skipped, failed, errors FROM mako_migrate('change@FV2024-10-01', 'change@FV2025-10-01');
SELECT run_id, error_no, stream_id, phase, sequence_number, sqlstate, message, detail, hint FROM mako.migration_error
  ORDER BY run_id, error_no;
SELECT stream_id, workflow_id, version FROM mako.stream ORDER BY stream_no;
SELECT run_id, stream_no, sequence_number, workflow_id, state_schema_version, state FROM mako.snapshot
  ORDER BY stream_no, sequence_number, run_id;
SELECT run_id, stream_no, sequence_number FROM mako.repointed ORDER BY run_id, stream_no;
SELECT run_id, source_wf, target_wf, path, tenant_id, update_registry, in_flight_only, max_errors, reason, migrated,
  skipped, failed,
  finished_at >= started_at AS finished, length(fingerprint) FROM mako.migration_run ORDER BY run_id;
SELECT * FROM mako.process_identity ORDER BY key;
SELECT * FROM mako.migrated_stream ORDER BY run_id, stream_id;
SELECT * FROM mig.deadline ORDER BY label COLLATE "C";

-- Again, nothing is left to do; the process goes on under the new version, and on to the next one
SELECT migrated, skipped, failed, errors[1].message FROM mako_migrate('change@FV2024-10-01', 'change@FV2025-10-01');
CALL mig.append('initiated', 'change@FV2025-10-01', 'Activated');
SELECT migrated, skipped, failed FROM mako_migrate('change@FV2025-10-01', 'change@FV2026-10-01', update_registry => false);
SELECT migrated, skipped, failed FROM mako_migrate('change@FV2025-10-01', 'change@FV2026-10-01');
SELECT run_id, stream_no, sequence_number, state FROM mako.snapshot WHERE workflow_id = 'change@FV2026-10-01'
  ORDER BY stream_no, sequence_number, run_id;

-- Two steps at once, and a source that nothing runs under
CALL mig.append('late', 'change@FV2024-10-01', 'Initiated', '{"malo": "51238696781"}');
SELECT migrated, skipped, failed FROM mako_migrate('change@FV2024-10-01', 'change@FV2026-10-01');
SELECT path FROM mako.migration_run ORDER BY run_id DESC LIMIT 1;
SELECT state FROM mako.snapshot ORDER BY stream_no DESC LIMIT 1;
SELECT migrated, skipped, failed FROM mako_migrate('change@FV2025-10-01', 'change@FV2026-10-01',
  tenant_id => '00000000-0000-0000-0000-000000000009');

--
-- Reports
--

SELECT mako_is_ok(r), regexp_replace(mako_format(r), 'in [0-9.]+ s', 'in ... s')
  FROM mako_migrate('change@FV2025-10-01', 'change@FV2026-10-01') AS r;
SELECT (mako_assert_ok(r)).failed FROM mako_migrate('change@FV2025-10-01', 'change@FV2026-10-01') AS r;
SELECT regexp_replace(test.failure($$ SELECT mako_assert_ok(r)
  FROM mako_migrate('change@FV2024-10-01', 'change@FV2025-10-01') AS r $$), 'in [0-9.]+ s', 'in ... s');
CREATE TABLE mig.report AS SELECT r FROM (VALUES
  (ROW(1, 'a@FV2024-10-01', 'a@FV2025-10-01', 10, 1, 1, ARRAY[ROW('s1', 'load', NULL, 'XX001', 'm1', NULL, NULL,
    NULL)]::mako_migration_error[], '2025-10-01 00:00+00', '1 s')::mako_migration_report),
  (ROW(2, 'a@FV2024-10-01', 'a@FV2025-10-01', 20, 2, 0, '{}', '2025-10-01 00:01+00', '2.5 s')::mako_migration_report),
  (ROW(3, 'b@FV2024-10-01', 'b@FV2025-10-01', 30, 3, 1, ARRAY[ROW('s2', 'apply', 2, 'MK001', 'm2', NULL, NULL,
    NULL)]::mako_migration_error[], '2025-09-30 00:00+00', '1 min')::mako_migration_report)) AS v (r);
SET timezone = 'UTC';
SELECT (mako_merge(a.r, b.r)).* FROM mig.report a, mig.report b WHERE (a.r).run_id = 1 AND (b.r).run_id = 2;
SELECT (m).*, mako_is_ok(m), mako_format(m) FROM (SELECT mako_merge(r ORDER BY (r).run_id) AS m FROM mig.report) AS v;
SELECT mako_merge(r) IS NULL AS merged_none, mako_is_ok(NULL) FROM mig.report WHERE false;
SELECT mako_merge(NULL, r) FROM mig.report WHERE (r).run_id = 1;
RESET timezone;

--
-- Calls that are refused
--

\pset tuples_only on
SELECT test.failure($$ SELECT mako_migrate(NULL, 'change@FV2025-10-01') $$);
SELECT test.failure($$ SELECT mako_migrate('change@FV2024-10-01', NULL) $$);
SELECT test.failure($$ SELECT mako_migrate('change@FV2024-10-01', 'change@FV2025-10-01', update_registry => NULL) $$);
SELECT test.failure($$ SELECT mako_migrate('change@FV2024-10-01', 'change@FV2025-10-01', in_flight_only => NULL) $$);
SELECT test.failure($$ SELECT mako_migrate('change@FV2024-10-01', 'change@FV2025-10-01', max_errors => -1) $$);
CALL mako_migrate_batched('change@FV2024-10-01', 'change@FV2025-10-01', 0);
CALL mako_migrate_batched('change@FV2024-10-01', 'change@FV2025-10-01', pause => '-1 s');
SELECT test.failure($$ SELECT mako_migrate('change@FV2024-10-01', 'change@FV2024-10-01') $$);
SELECT test.failure($$ SELECT mako_migrate('change', 'change@FV2025-10-01') $$);
SELECT test.failure($$ SELECT mako_migrate('change@FV2024-10-01', 'change@FV2025-02-29') $$);

-- Paths
SELECT test.failure($$ SELECT mako_migrate('change@FV2023-10-01', 'change@FV2025-10-01') $$);
SELECT test.failure($$ SELECT mako_migrate('change@FV2024-10-01', 'change@FV2027-10-01') $$);
SELECT test.failure($$ SELECT mako_migrate('change@FV2026-10-01', 'change@FV2024-10-01') $$);
SELECT mako_register_workflow(('change@FV2027-' || month || '-01')::mako_workflow_id) FROM (VALUES ('04'), ('10')) AS v (month);
SELECT test.failure($$ SELECT mako_migrate('change@FV2024-10-01', 'change@FV2027-10-01') $$);
SELECT mako_register_migration('change@FV2024-10-01', 'change@FV2027-04-01');
SELECT mako_register_migration('change@FV2025-10-01', 'change@FV2027-10-01');
SELECT mako_register_migration('change@FV2027-04-01', 'change@FV2027-10-01');
SELECT test.failure($$ SELECT mako_migrate('change@FV2024-10-01', 'change@FV2027-10-01') $$);
SELECT test.failure($$ SELECT mako_migrate('change@FV2026-10-01', 'change@FV2027-10-01') $$);

-- Another plan than the one that was reviewed; afterwards the same transaction may try again
SELECT regexp_replace(test.failure($$ SELECT mako_migrate('change@FV2024-10-01', 'change@FV2025-10-01', expect => 'deadbeef') $$),
  '[0-9a-f]{64}', '<sha256>');
SELECT migrated, failed FROM mako_migrate('change@FV2025-10-01', 'change@FV2026-10-01',
  expect => mako_fingerprint('change@FV2025-10-01', 'change@FV2026-10-01'));
DO $$
BEGIN
  RAISE INFO '%', split_part(test.failure('SELECT mako_migrate(''change@FV2025-10-01'', ''change@FV2026-10-01'', expect => ''x'')'), E'\n', 1);
  PERFORM mako_migrate('change@FV2025-10-01', 'change@FV2026-10-01');
END
$$;

-- Twice in one statement, inside a read-only transaction, without its store's dependent
SELECT test.failure($$ SELECT (mako_migrate('change@FV2025-10-01', 'change@FV2026-10-01')).* $$);
BEGIN TRANSACTION READ ONLY;
SELECT test.failure($$ SELECT mako_migrate('change@FV2025-10-01', 'change@FV2026-10-01') $$);
ROLLBACK;
BEGIN;
DROP TABLE mig.deadline;
SELECT test.failure($$ SELECT mako_migrate('change@FV2025-10-01', 'change@FV2026-10-01') $$);
ROLLBACK;
BEGIN;
ALTER TABLE mig.deadline DROP COLUMN process_id;
SELECT test.failure($$ SELECT mako_migrate('change@FV2025-10-01', 'change@FV2026-10-01') $$);
ROLLBACK;

--
-- Streams that fail, in every phase
--

CREATE FUNCTION mig.upcast(event_type text, schema_version int, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE schema_version
    WHEN 1 THEN payload
    WHEN 2 THEN mako_reject(format('event type %s has no schema version 2', event_type))
  END $$;
CREATE FUNCTION mig.endless(state jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE AS
  $$ BEGIN RETURN mig.endless(state || '{}'); END $$;
CREATE FUNCTION mig.calls_migrate(state jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
  RETURN to_jsonb(r) FROM mako_migrate('change@FV2025-10-01', 'change@FV2026-10-01') AS r;
END
$$;
CREATE TABLE mig.written (state jsonb);
CREATE FUNCTION mig.writes(state jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE AS
  $$ BEGIN INSERT INTO mig.written VALUES (state); RETURN state; END $$;
CREATE FUNCTION mig.raises(state jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
  RAISE EXCEPTION 'custom %', state->>'x' USING ERRCODE = 'ZZ123', DETAIL = 'A detail.', HINT = 'A hint.';
END
$$;
CREATE FUNCTION mig.apply(state mig.state, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE event_type
    WHEN 'Set' THEN state || payload
    WHEN 'Replace' THEN payload
    WHEN 'Divide' THEN state || jsonb_build_object('quotient', 1 / (payload->>'by')::int)
    WHEN 'Require' THEN state || mako_required(payload, 'data', 'x')
    WHEN 'Reject' THEN mako_reject(payload->>'reason')
    WHEN 'Recurse' THEN mig.endless(state)
    WHEN 'Call' THEN mig.calls_migrate(state)
    WHEN 'Write' THEN mig.writes(state)
    WHEN 'Raise' THEN mig.raises(payload)
  END $$;
CREATE FUNCTION mig.migrate(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE state->>'migrate'
    WHEN 'reject' THEN mako_reject('no way')
    WHEN 'null' THEN NULL
    WHEN 'lose' THEN state - 'status'
    ELSE state
  END $$;
CREATE FUNCTION mig.is_open(state jsonb) RETURNS boolean LANGUAGE sql STABLE AS $$ SELECT (state->>'open')::boolean $$;
CREATE FUNCTION mig.no_snapshot() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.state ? 'no snapshot' THEN
    RAISE EXCEPTION 'no snapshot of this' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END
$$;
CREATE TRIGGER no_snapshot BEFORE INSERT ON mako.snapshot FOR EACH ROW EXECUTE FUNCTION mig.no_snapshot();
CREATE TABLE mig.outbox (stream_id text, workflow_id text,
  CONSTRAINT outbox_workflow_id_check CHECK (workflow_id <> 'err@FV2025-10-01'));
INSERT INTO mig.outbox VALUES ('registry: dependent', 'err@FV2024-10-01');
SELECT mako_add_dependent('mig.outbox', 'stream_id', 'workflow_id');

-- these would tell what their fingerprints do not cover
SET client_min_messages = warning;
SELECT mako_register_workflow('err@FV2024-10-01', 'mig.apply', 'mig.upcast', 'mig.is_open', '{"status": "New", "open": true}');
SELECT mako_register_workflow('err@FV2025-10-01', 'mig.apply', initial_state => '{"status": "New"}');
SELECT mako_register_migration('err@FV2024-10-01', 'err@FV2025-10-01', 'mig.migrate');
SELECT mako_register_workflow('big@FV2024-10-01', 'mig.apply', initial_state => '{"status": "New"}');
SELECT mako_register_workflow('big@FV2025-10-01', 'mig.apply', initial_state => '{"status": "New"}');
SELECT mako_register_migration('big@FV2024-10-01', 'big@FV2025-10-01', 'mig.migrate');
RESET client_min_messages;

CALL mig.append('good: first', 'err@FV2024-10-01', 'Set', '{"a": 1}');
CALL mig.append('load: gap', 'err@FV2024-10-01', 'Set');
CALL mig.append('load: gap', 'err@FV2024-10-01', 'Set');
CALL mig.append('load: gap', 'err@FV2024-10-01', 'Set');
CALL mig.append('load: no end', 'err@FV2024-10-01', 'Set');
CALL mig.append('load: no end', 'err@FV2024-10-01', 'Set');
CALL mig.append('load: more events than the head says', 'err@FV2024-10-01', 'Set');
CALL mig.append('load: more events than the head says', 'err@FV2024-10-01', 'Set');
INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('load: an event behind an empty head', 'err@FV2024-10-01');
CALL mig.append('load: a boundary beyond the head', 'err@FV2024-10-01', 'Set');
CALL mig.append('upcast: reject', 'err@FV2024-10-01', 'Set', '{}', 2);
CALL mig.append('upcast: null', 'err@FV2024-10-01', 'Set', '{}', 3);
CALL mig.append('apply: null', 'err@FV2024-10-01', 'Set');
CALL mig.append('apply: null', 'err@FV2024-10-01', 'Unknown');
CALL mig.append('apply: null', 'err@FV2024-10-01', 'Set');
CALL mig.append('apply: division by zero', 'err@FV2024-10-01', 'Divide', '{"by": 0}');
CALL mig.append('apply: no number', 'err@FV2024-10-01', 'Divide', '{"by": "x"}');
CALL mig.append('apply: required', 'err@FV2024-10-01', 'Require', '{"data": {}}');
CALL mig.append('apply: reject', 'err@FV2024-10-01', 'Reject', '{"reason": "refused: 100 %"}');
CALL mig.append('apply: domain', 'err@FV2024-10-01', 'Replace', '{"status": "x"}');
CALL mig.append('apply: domain', 'err@FV2024-10-01', 'Replace', '{}');
CALL mig.append('apply: domain', 'err@FV2024-10-01', 'Set', '{}');
CALL mig.append('apply: recursion', 'err@FV2024-10-01', 'Recurse');
CALL mig.append('apply: calls mako_migrate', 'err@FV2024-10-01', 'Call');
CALL mig.append('apply: writes', 'err@FV2024-10-01', 'Write');
CALL mig.append('apply: raises', 'err@FV2024-10-01', 'Raise', '{"x": "error"}');
CALL mig.append('migrate: reject', 'err@FV2024-10-01', 'Set', '{"migrate": "reject"}');
CALL mig.append('migrate: null', 'err@FV2024-10-01', 'Set', '{"migrate": "null"}');
CALL mig.append('state: domain', 'err@FV2024-10-01', 'Set', '{"migrate": "lose"}');
CALL mig.append('state: in flight?', 'err@FV2024-10-01', 'Set', '{"open": null}');
CALL mig.append('snapshot: trigger', 'err@FV2024-10-01', 'Set', '{"no snapshot": true}');
CALL mig.append('registry: dependent', 'err@FV2024-10-01', 'Set');
CALL mig.append('good: last', 'err@FV2024-10-01', 'Set', '{"z": 1}');

-- What the store itself does not let happen: its owner switches its triggers off
BEGIN;
ALTER TABLE mako.event DISABLE TRIGGER USER;
ALTER TABLE mako.stream DISABLE TRIGGER USER;
DELETE FROM mako.event USING mako.stream s
  WHERE event.stream_no = s.stream_no AND s.stream_id = 'load: gap' AND sequence_number = 2;
DELETE FROM mako.event USING mako.stream s
  WHERE event.stream_no = s.stream_no AND s.stream_id = 'load: no end' AND sequence_number = 2;
UPDATE mako.stream SET version = 1 WHERE stream_id = 'load: more events than the head says';
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
SELECT stream_no, 1, workflow_id, 'Set', '{}' FROM mako.stream WHERE stream_id = 'load: an event behind an empty head';
ALTER TABLE mako.snapshot DISABLE TRIGGER USER;
INSERT INTO mako.snapshot (stream_no, sequence_number, run_id, workflow_id, state_schema_version, state)
SELECT stream_no, 2, 1, workflow_id, 1, '{}' FROM mako.stream WHERE stream_id = 'load: a boundary beyond the head';
ALTER TABLE mako.snapshot ENABLE TRIGGER USER;
ALTER TABLE mako.event ENABLE TRIGGER USER;
ALTER TABLE mako.stream ENABLE TRIGGER USER;
COMMIT;

-- More failures than are allowed: nothing happens; the detail is JSON, and names the stream that came first
SET mako_migration.scan_order = key;
SELECT test.failure($$ SELECT mako_migrate('err@FV2024-10-01', 'err@FV2025-10-01', max_errors => 0) $$);
SELECT jsonb_array_length((regexp_match(test.failure($$ SELECT mako_migrate('err@FV2024-10-01', 'err@FV2025-10-01',
  max_errors => 20) $$), 'detail: ([^\n]*)'))[1]::jsonb -> 'errors');
RESET mako_migration.scan_order;
SELECT count(*) FROM mako.stream WHERE workflow_id = 'err@FV2025-10-01';

-- A bad stream never stops the others
\pset tuples_only off
SELECT migrated, skipped, failed, array_length(errors, 1)
  FROM mako_migrate('err@FV2024-10-01', 'err@FV2025-10-01', in_flight_only => true);
SELECT e.stream_id, e.phase, e.sequence_number, e.sqlstate, e.message, e.detail,
  CASE WHEN e.sqlstate <> '54001' THEN e.hint END AS hint
FROM mako.migration_error e WHERE e.run_id = (SELECT max(run_id) FROM mako.migration_run) ORDER BY e.error_no;
SELECT stream_id FROM mako.stream WHERE workflow_id = 'err@FV2025-10-01' ORDER BY stream_no;
SELECT count(*) FROM mig.written;
SELECT * FROM mig.outbox;
-- the array of the report has the same, and the next run as well
CREATE TABLE mig.again AS SELECT r FROM mako_migrate('err@FV2024-10-01', 'err@FV2025-10-01', in_flight_only => true) AS r;
SELECT (r).failed, count(*) FROM mig.again, unnest((r).errors) WITH ORDINALITY AS a
JOIN mako.migration_error e ON e.error_no = a.ordinality AND (e.stream_id, e.phase, e.sqlstate, e.message)
  = (a.stream_id, a.phase, a.sqlstate, a.message)
WHERE e.run_id = (r).run_id GROUP BY 1;
\pset tuples_only on
DROP TRIGGER no_snapshot ON mako.snapshot;
SELECT mako_remove_dependent('mig.outbox', 'stream_id', 'workflow_id');

--
-- Large and deep
--

CALL mig.append('10 MB', 'big@FV2024-10-01', 'Set', jsonb_build_object('note', repeat('x', 10 * 1024 * 1024)));
CALL mig.append('10 MB', 'big@FV2024-10-01', 'Set', '{"after": true}');
CALL mig.append('10 MB of reasons', 'big@FV2024-10-01', 'Reject', jsonb_build_object('reason', repeat(U&'\00E4', 5 * 1024 * 1024)));
CALL mig.append('3000 levels', 'big@FV2024-10-01', 'Set', (repeat('{"a":', 3000) || '[]' || repeat('}', 3000))::jsonb);
CALL mig.append('3000 levels', 'big@FV2024-10-01', 'Set', '{"after": true}');
CALL mig.append('schema version', 'big@FV2024-10-01', 'Set', '{}', 2);
SELECT migrated, failed, octet_length(errors[1].message), errors[2].message
  FROM mako_migrate('big@FV2024-10-01', 'big@FV2025-10-01');
SELECT stream_id, phase, octet_length(message) FROM mako.migration_error WHERE stream_id LIKE '10 MB%';
SELECT s.stream_id, length(n.state->>'note'), n.state->'after', length(n.state->>'a')
  FROM mako.snapshot n JOIN mako.stream s USING (stream_no)
WHERE n.workflow_id LIKE 'big@%' ORDER BY s.stream_no;

--
-- Stored states
--

-- Without apply, the application saves the state before the migration
SELECT mako_register_workflow('saved@FV2024-10-01');
SELECT mako_register_workflow('saved@FV2025-10-01');
SELECT mako_register_migration('saved@FV2024-10-01', 'saved@FV2025-10-01', 'mig.migrate');
CALL mig.append('saved: never', 'saved@FV2024-10-01', 'E');
CALL mig.append('saved: before the last event', 'saved@FV2024-10-01', 'E');
CALL mig.append('saved: before the last event', 'saved@FV2024-10-01', 'E');
CALL mig.append('saved: by an old binary', 'saved@FV2024-10-01', 'E');
CALL mig.append('saved: as it should be', 'saved@FV2024-10-01', 'E');
INSERT INTO mako.snapshot (stream_no, sequence_number, workflow_id, state_schema_version, state)
SELECT stream_no, 1, workflow_id, CASE stream_id WHEN 'saved: by an old binary' THEN 7 ELSE 1 END, '{"saved": true}'
  FROM mako.stream
WHERE stream_id LIKE 'saved: %' AND stream_id <> 'saved: never';
SELECT migrated, failed FROM mako_migrate('saved@FV2024-10-01', 'saved@FV2025-10-01');
SELECT stream_id, phase, sequence_number, sqlstate, message, detail, hint
FROM mako.migration_error WHERE stream_id LIKE 'saved: %' ORDER BY error_no;

--
-- Definitions that change while they are used
--

CREATE FUNCTION mig.changes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE TG_ARGV[0];
  RETURN NULL;
END
$$;
INSERT INTO mig.deadline VALUES ('00000000-0000-0000-0000-000000000001', 'change@FV2026-10-01', 'trigger');
SELECT mako_register_migration('change@FV2026-10-01', 'change@FV2025-10-01');
BEGIN;
CREATE TRIGGER changes AFTER UPDATE ON mig.deadline FOR EACH STATEMENT EXECUTE FUNCTION mig.changes(
  'SELECT public.mako_migrate(''change@FV2025-10-01'', ''change@FV2026-10-01'')');
SELECT migrated, errors[1].phase, errors[1].sqlstate, errors[1].message
  FROM mako_migrate('change@FV2026-10-01', 'change@FV2025-10-01');
ROLLBACK;
BEGIN;
CREATE TRIGGER changes AFTER UPDATE ON mig.deadline FOR EACH STATEMENT EXECUTE FUNCTION mig.changes(
  'ALTER FUNCTION mig.apply_2025 IMMUTABLE');
SELECT test.failure($$ SELECT mako_migrate('change@FV2026-10-01', 'change@FV2025-10-01') $$);
ROLLBACK;
BEGIN;
CREATE TRIGGER changes AFTER UPDATE ON mig.deadline FOR EACH STATEMENT EXECUTE FUNCTION mig.changes(
  'SELECT public.mako_register_migration(''change@FV2026-10-01'', ''change@FV2025-10-01'', ''mig.migrate_2024_2025'', replace => true)');
SELECT regexp_replace(test.failure($$ SELECT mako_migrate('change@FV2026-10-01', 'change@FV2025-10-01') $$), '[0-9a-f]{64}',
  '<sha256>', 'g');
ROLLBACK;

--
-- Another session: the second migration of a source does not wait, and an older snapshot misses nothing
--

SELECT setting AS bindir FROM pg_config WHERE name = 'BINDIR' \gset
\setenv PSQL :bindir/psql
\setenv PGHOST :HOST
\setenv PGPORT :PORT
\setenv PGUSER :USER
\setenv PGDATABASE :DBNAME
BEGIN;
SELECT migrated FROM mako_migrate('change@FV2026-10-01', 'change@FV2025-10-01');
\set failure `"$PSQL" -XqAt -c "SELECT test.failure('SELECT mako_migrate(''change@FV2026-10-01'', ''change@FV2024-10-01'')')" 2>&1`
\echo :failure
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT version FROM mako.stream WHERE stream_id = 'initiated';
\set output `"$PSQL" -Xq -c "CALL mig.append('initiated', 'change@FV2026-10-01', 'Activated')" 2>&1`
SELECT test.failure($$ SELECT mako_migrate('change@FV2026-10-01', 'change@FV2025-10-01') $$);
ROLLBACK;
SELECT version FROM mako.stream WHERE stream_id = 'initiated';
SELECT migrated, failed FROM mako_migrate('change@FV2026-10-01', 'change@FV2025-10-01');

-- Where there is no report, and where there is no store
SELECT test.failure('SELECT mako_assert_ok(mako_merge(r)) FROM (SELECT NULL::mako_migration_report WHERE false) AS t (r)');
SELECT mako_format(NULL) IS NULL AS nothing;
SET client_min_messages = warning;
DROP SCHEMA mako CASCADE;
SELECT test.failure('SELECT mako_assert_store()');
SELECT test.failure($$ SELECT mako_add_dependent('pg_class', 'relname', 'relname') $$);
SELECT test.failure($$ SELECT mako_remove_dependent('pg_class', 'relname', 'relname') $$);
DROP SCHEMA mig CASCADE;
DO $$
BEGIN
  PERFORM mako_unregister_migration(source_wf, target_wf) FROM mako_state_migration;
  PERFORM mako_unregister_workflow(workflow_id) FROM mako_workflow;
END
$$;
