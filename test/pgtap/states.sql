-- The state of a stream, from every side: mako_state(), mako_resume() and mako_trace() against the golden streams, whose states
-- after the migration an independent engine computed, and against folding by hand; with snapshots spoilt and lost, after moves back
-- and forth, and where streams moved without a snapshot.
-- Runs in an empty database, from the root of the project.

CREATE EXTENSION pgtap;
CREATE EXTENSION mako_migration;

SELECT plan(121);

SELECT mako_create_store();
\ir ../examples/gpke/supplier_change.sql
\ir ../examples/gpke/register.sql
\ir ../golden/load.sql

\ir include/helpers.sql

\set fv1 gpke-supplier-change@FV2024-10-01
\set fv2 gpke-supplier-change@FV2025-10-01
\set fv3 gpke-supplier-change@FV2026-10-01

-- What a call gives, as jsonb: its row or value, several rows as an array. One bad stream must not end the comparison of all, so
-- an error is a value, too: SQLSTATE, message, detail and hint, and where the fold was.
CREATE FUNCTION pg_temp.attempt(call text, several boolean DEFAULT false) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
  result jsonb; state text; message text; detail text; hint text; context text;
BEGIN
  EXECUTE format(CASE WHEN several THEN 'SELECT jsonb_agg(x) FROM %s x' ELSE 'SELECT to_jsonb(x) FROM %s x' END, call) INTO result;
  RETURN result;
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT,
    context = PG_EXCEPTION_CONTEXT;
  RETURN jsonb_build_object('error', concat_ws('|', state, message, nullif(detail, ''), nullif(hint, '')),
                            'where', split_part(context, E'\n', 1));
END
$$;
CREATE FUNCTION pg_temp.state(stream_id text) RETURNS jsonb LANGUAGE sql AS $$ SELECT pg_temp.attempt(format('mako_state(%L)', stream_id)) $$;
CREATE FUNCTION pg_temp.resume(stream_id text) RETURNS jsonb LANGUAGE sql AS $$
  SELECT pg_temp.attempt(format('(SELECT sequence_number, workflow_id, state, state_schema_version, event_type, payload FROM mako_resume(%L))', stream_id), true) $$;
CREATE FUNCTION pg_temp.trace(stream_id text) RETURNS jsonb LANGUAGE sql AS $$ SELECT pg_temp.attempt(format('mako_trace(%L)', stream_id), true) $$;
CREATE FUNCTION pg_temp.migrate_state(source text, target text, state jsonb) RETURNS jsonb LANGUAGE sql AS $$
  SELECT pg_temp.attempt(format('mako_migrate_state(%L, %L, %L)', source, target, state)) $$;

-- Folds the first events of a stream by hand, all of them by default.
CREATE FUNCTION pg_temp.fold(workflow text, stream bigint, until bigint DEFAULT NULL) RETURNS jsonb LANGUAGE sql AS $$
  SELECT pg_temp.attempt(format('mako_fold(%L, %L)', workflow,
    (SELECT coalesce(jsonb_agg(jsonb_build_object('event_type', event_type, 'schema_version', schema_version, 'payload', payload)
                               ORDER BY sequence_number), '[]')
     FROM mako.event WHERE stream_no = stream AND sequence_number <= coalesce(until, sequence_number)))) $$;

-- How mako_state() must look: a state and whose it is.
CREATE FUNCTION pg_temp.state_of(state jsonb, sequence_number bigint, workflow_id text, state_schema_version int) RETURNS jsonb LANGUAGE sql AS $$
  SELECT jsonb_build_object('state', state, 'sequence_number', sequence_number, 'workflow_id', workflow_id,
                            'state_schema_version', state_schema_version) $$;

CREATE TEMPORARY TABLE golden_expected (line jsonb NOT NULL);
\copy golden_expected (line) from program 'gzip -dc test/golden/supplier-change-expected.jsonl.gz' with (format csv, quote e'\x01', delimiter e'\x02')

-- What becomes of each stream of the first version: its golden snapshot, or how it fails.
CREATE TEMPORARY TABLE golden AS
SELECT stream_no, stream_id, version, line->>'kind' AS kind, line->'state' AS state, line->>'phase' AS phase, line->>'message' AS message
FROM mako.stream LEFT JOIN golden_expected ON line->>'stream_id' = stream_id AND line->>'kind' IN ('snapshot', 'error')
WHERE workflow_id = :'fv1';
ALTER TABLE golden ADD PRIMARY KEY (stream_no);
ANALYZE golden;

----------------------------------------------------------------------------------------------------
-- Before the migration
----------------------------------------------------------------------------------------------------

CREATE TEMPORARY TABLE before AS
SELECT stream_no, pg_temp.state(stream_id) AS state, pg_temp.fold(:'fv1', stream_no) AS folded FROM golden;
ALTER TABLE before ADD PRIMARY KEY (stream_no), ADD migrated jsonb;
UPDATE before SET migrated = pg_temp.migrate_state(:'fv1', :'fv2', state->'state') WHERE NOT state ? 'error';

SELECT is(pg_temp.rows($$ SELECT kind, phase, count(*) FROM golden GROUP BY kind, phase ORDER BY kind COLLATE "C", phase COLLATE "C" $$),
          E'error|fold|36\nerror|migrate|23\nsnapshot||1657', 'the golden data tell for every stream what becomes of it');
SELECT is_empty(
  format($$ SELECT stream_id, before.state, folded FROM before JOIN golden USING (stream_no)
            WHERE NOT folded ? 'error' AND before.state <> pg_temp.state_of(folded, version, %L, 1) $$, :'fv1'),
  'mako_state() equals folding the events by hand');
SELECT is_empty($$ SELECT before.* FROM before WHERE folded ? 'error' AND state IS DISTINCT FROM folded $$,
                'where that is an error, it is the same one at the same event');
SELECT is_empty($$ SELECT stream_id, migrated, golden.state FROM before JOIN golden USING (stream_no)
                   WHERE kind = 'snapshot' AND migrated IS DISTINCT FROM golden.state $$,
                'mako_migrate_state() of it equals the golden snapshot');
SELECT is_empty($$ SELECT * FROM before JOIN golden USING (stream_no) WHERE (phase IS NOT DISTINCT FROM 'fold') <> (before.state ? 'error') $$,
                'exactly those that cannot be folded have no state');
SELECT is_empty($$ SELECT * FROM before JOIN golden USING (stream_no)
                   WHERE phase = 'migrate' AND migrated IS DISTINCT FROM jsonb_build_object('error', 'MK002|' || message, 'where', 'phase migrate') $$,
                'those that cannot be migrated are refused for the golden reason');
SELECT is_empty(
  format($$ SELECT * FROM golden, pg_temp.resume(stream_id) AS actual
            WHERE stream_no %% 5 = 0 AND actual IS DISTINCT FROM
              (SELECT jsonb_build_array(jsonb_build_object('sequence_number', 0, 'workflow_id', %1$L, 'state', '{"status": "New"}'::jsonb,
                                                           'state_schema_version', 1, 'event_type', null, 'payload', null))
                 || jsonb_agg(jsonb_build_object('sequence_number', sequence_number, 'workflow_id', %1$L, 'state', null,
                                                 'state_schema_version', null, 'event_type', event_type, 'payload', payload)
                              ORDER BY sequence_number)
               FROM mako.event e WHERE e.stream_no = golden.stream_no) $$, :'fv1'),
  'an engine that folds itself gets the initial state and all events');
SELECT is_empty($$ SELECT stream_id FROM golden WHERE stream_no % 5 = 0
                   AND (SELECT jsonb_agg(l ORDER BY l.sequence_number) FROM mako_load(stream_id) l) IS DISTINCT FROM
                       (SELECT jsonb_agg(to_jsonb(e) - 'stream_no' ORDER BY sequence_number) FROM mako.event e WHERE e.stream_no = golden.stream_no) $$,
                'mako_load() gives the events as they are stored');

-- The state before the move is in the trace, event by event.
SELECT is_empty(
  format($$ SELECT stream_id, k, row FROM golden, jsonb_array_elements(pg_temp.trace(stream_id)) WITH ORDINALITY AS t (row, k)
            WHERE kind = 'snapshot'
              AND row <> (SELECT jsonb_build_object('sequence_number', k, 'event_type', event_type, 'workflow_id', %1$L, 'run_id', null,
                                                    'state', pg_temp.fold(%1$L, golden.stream_no, k))
                          FROM mako.event e WHERE e.stream_no = golden.stream_no AND sequence_number = k) $$, :'fv1'),
  'every row of mako_trace() equals folding the events so far');
SELECT is_empty($$ SELECT stream_id, jsonb_array_length(pg_temp.trace(stream_id)) FROM golden
                   WHERE kind = 'snapshot' AND jsonb_array_length(pg_temp.trace(stream_id)) <> version $$,
                'and there are as many rows as events');
SELECT is_empty($$ SELECT stream_id, pg_temp.trace(stream_id), folded FROM golden JOIN before USING (stream_no)
                   WHERE phase = 'fold' AND pg_temp.trace(stream_id) IS DISTINCT FROM folded $$,
                'the trace of a stream that cannot be folded is the error of its fold');

----------------------------------------------------------------------------------------------------
-- After the migration
----------------------------------------------------------------------------------------------------

SELECT run_id AS run, migrated, failed FROM mako_migrate(:'fv1', :'fv2') \gset
SELECT is(:'migrated' || ' ' || :'failed', '1657 59', 'the golden streams migrate');
CREATE TEMPORARY TABLE after AS SELECT stream_no, pg_temp.state(stream_id) AS state FROM golden;

SELECT is_empty(
  format($$ SELECT stream_id, after.state, golden.state FROM after JOIN golden USING (stream_no)
            WHERE kind = 'snapshot' AND after.state <> pg_temp.state_of(golden.state, version, %L, 2) $$, :'fv2'),
  'mako_state() of what has moved is the golden state');
SELECT is_empty($$ SELECT * FROM after JOIN before USING (stream_no) JOIN golden USING (stream_no)
                   WHERE kind = 'error' AND after.state IS DISTINCT FROM before.state $$,
                'mako_state() of what failed is what it was');
SELECT is_empty(
  format($$ SELECT * FROM mako.migration_error e JOIN before USING (stream_no)
            WHERE run_id = %s AND concat_ws('|', sqlstate, message, detail, hint) IS DISTINCT FROM coalesce(state->>'error', migrated->>'error') $$, :run),
  'the report has the errors that mako_state() and mako_migrate_state() raise');
SELECT is_empty(
  format($$ SELECT e.phase, e.sequence_number, state->>'where' FROM mako.migration_error e JOIN before USING (stream_no)
            WHERE run_id = %s AND state->>'where' <> format('event %%s, phase %%s', sequence_number, phase) $$, :run),
  'and for a fold names the event and the phase that their context names');
SELECT is_empty(
  format($$ SELECT stream_id FROM golden
            WHERE kind = 'snapshot' AND stream_no %% 5 = 0 AND pg_temp.resume(stream_id) IS DISTINCT FROM jsonb_build_array(
              pg_temp.state_of(state, version, %L, 2) || '{"event_type": null, "payload": null}') $$, :'fv2'),
  'an engine that folds itself goes on from the golden state');

----------------------------------------------------------------------------------------------------
-- One more event
----------------------------------------------------------------------------------------------------

-- Whatever fits the state; where nothing changes a final state, the report of a meter operator that is only noted.
CREATE TEMPORARY TABLE next_event AS
SELECT stream_no, 'SupplierChange' || type AS event_type,
       jsonb_strip_nulls(jsonb_build_object('type', type, 'data', data)) AS payload
FROM golden
JOIN (VALUES
  ('New', 'Initiated', '{"location_id": "51238696781", "new_supplier": "9900357000003", "grid_operator": "9907317000007",
                         "document_date": "20251001", "message_ref": "UTILMD-1", "pruefidentifikator": 55001}'::jsonb),
  ('Initiated', 'ValidationPassed', '{"message_ref": "UTILMD-1"}'),
  ('ValidationPassed', 'AntwortGesendet', '{"response_pid": 55002, "accepted": true}'),
  ('AntwortGesendet', 'Activated', NULL),
  ('Active', 'VollzugsmeldungReceived', '{"pid": 55001, "sender": "9900357000003", "receiver": "9907317000007", "message_ref": "UTILMD-2"}'),
  ('DeadlineExpired', 'Rejected', '{"reason": "too late"}'),
  ('Rejected', 'DeadlineExpired', '{"deadline_id": "00000000-0000-4000-8000-000000000001", "label": "nb-response-window"}')
) AS e (status, type, data) ON status = state->>'status'
WHERE kind = 'snapshot';

SELECT is_empty(
  format($$ SELECT stream_id FROM golden JOIN next_event USING (stream_no)
            WHERE mako_append(stream_id, %L, event_type, payload, version) <> version + 1 $$, :'fv2'),
  'every stream that has moved goes on');

-- The states from here on.
CREATE TEMPORARY TABLE current AS
SELECT stream_no, stream_id, version + 1 AS version, golden.state AS boundary,
       gpke.supplier_change_apply_2025(golden.state, event_type, gpke.supplier_change_upcast(event_type, 1, payload)) AS state
FROM golden JOIN next_event USING (stream_no);
ALTER TABLE current ADD PRIMARY KEY (stream_no);
ANALYZE current;

-- Streams whose state is not the current one. The sample keeps every modulus-th.
CREATE FUNCTION pg_temp.wrong_states(modulus int DEFAULT 1) RETURNS TABLE (stream_id text, actual jsonb, expected jsonb) LANGUAGE sql AS $$
  SELECT stream_id, actual, expected
  FROM pg_temp.current, pg_temp.state(stream_id) AS actual,
       pg_temp.state_of(state, version, 'gpke-supplier-change@FV2025-10-01', 2) AS expected
  WHERE stream_no % modulus = 0 AND actual IS DISTINCT FROM expected $$;
-- Streams whose state, folded on from what mako_resume() gives, is not the current one.
CREATE FUNCTION pg_temp.wrong_resumes(modulus int DEFAULT 1) RETURNS TABLE (stream_id text, actual jsonb, expected jsonb) LANGUAGE sql AS $$
  SELECT stream_id, rows, state
  FROM pg_temp.current, pg_temp.resume(stream_id) AS rows
  WHERE stream_no % modulus = 0
    AND state IS DISTINCT FROM CASE
      WHEN jsonb_typeof(rows) = 'object' THEN rows
      WHEN jsonb_array_length(rows) = 1 THEN rows->0->'state'
      WHEN jsonb_array_length(rows) = 2 THEN gpke.supplier_change_apply_2025(rows->0->'state', rows->1->>'event_type',
                                               gpke.supplier_change_upcast(rows->1->>'event_type', 1, rows->1->'payload'))
    END $$;

SELECT is_empty('SELECT * FROM pg_temp.wrong_states()', 'mako_state() equals the new version''s apply, called on the golden state');
SELECT is_empty('SELECT * FROM pg_temp.wrong_resumes(5)', 'and so does what an engine makes of mako_resume()');
SELECT is(pg_temp.rows($$ SELECT boundary->>'status', state->>'status', count(*) FROM current GROUP BY 1, 2 ORDER BY (boundary->>'status') COLLATE "C" $$),
          $$Active|Active|741
AntwortGesendet|Active|175
DeadlineExpired|Rejected|128
Initiated|ValidationPassed|47
New|Initiated|8
Rejected|Rejected|296
ValidationPassed|AntwortGesendet|262$$, 'these events have done something');

----------------------------------------------------------------------------------------------------
-- Traces after the migration
----------------------------------------------------------------------------------------------------

CREATE TEMPORARY TABLE traces AS SELECT stream_no, pg_temp.trace(stream_id) AS trace FROM current;
ALTER TABLE traces ADD PRIMARY KEY (stream_no);

SELECT is_empty($$ SELECT stream_id, trace FROM current JOIN traces USING (stream_no) WHERE trace->-1->'state' IS DISTINCT FROM state $$,
                'the last row of a trace is the state');
SELECT is_empty($$ SELECT stream_id, trace FROM current JOIN traces USING (stream_no) WHERE jsonb_array_length(trace) <> version + 1 $$,
                'there is a row for every event and for the move');
SELECT is_empty(
  format($$ SELECT stream_id, trace FROM current JOIN traces USING (stream_no)
            WHERE trace->-2 IS DISTINCT FROM jsonb_build_object('sequence_number', version - 1, 'event_type', null, 'workflow_id', %L,
                                                                'run_id', %s, 'state', boundary) $$, :'fv2', :run),
  'the row of the move is the migration snapshot');
SELECT is_empty(
  format($$ SELECT stream_id, trace FROM current JOIN traces USING (stream_no) JOIN before USING (stream_no)
            WHERE trace->-3 IS DISTINCT FROM (SELECT jsonb_build_object('sequence_number', version - 1, 'event_type', event_type, 'workflow_id', %L,
                                                                        'run_id', null, 'state', before.state->'state')
                                              FROM mako.event e WHERE e.stream_no = current.stream_no AND sequence_number = version - 1) $$, :'fv1'),
  'the row before is the state before');
SELECT is_empty(
  format($$ SELECT stream_id, trace FROM current JOIN traces USING (stream_no) JOIN next_event USING (stream_no)
            WHERE (trace->-1) - 'state' IS DISTINCT FROM jsonb_build_object('sequence_number', version, 'event_type', event_type, 'workflow_id', %L, 'run_id', null) $$,
         :'fv2'),
  'the row behind is the new event, of the new version');

----------------------------------------------------------------------------------------------------
-- Periodic snapshots are only a cache
----------------------------------------------------------------------------------------------------

BEGIN;
SELECT is_empty('SELECT stream_id FROM current WHERE mako_take_snapshot(stream_id) <> version', 'a snapshot of every stream');
SELECT is_empty(
  format($$ SELECT stream_id FROM current LEFT JOIN mako.snapshot n ON n.stream_no = current.stream_no AND run_id = 0
            WHERE (n.sequence_number, n.workflow_id, n.state_schema_version, n.state) IS DISTINCT FROM (current.version, %L, 2, current.state) $$, :'fv2'),
  'holds the state at the head');
SELECT is_empty('SELECT * FROM pg_temp.wrong_states(3)', 'the states are what they were');
SELECT is_empty($$ SELECT stream_id FROM current WHERE stream_no % 5 = 0 AND jsonb_array_length(pg_temp.resume(stream_id)) <> 1 $$,
                'an engine gets no event that is in the snapshot');
SELECT is_empty('SELECT * FROM pg_temp.wrong_resumes(5)', 'and goes on from the same state');
SELECT is_empty($$ SELECT stream_id FROM current JOIN traces USING (stream_no) WHERE stream_no % 5 = 0 AND pg_temp.trace(stream_id) <> trace $$,
                'no trace has changed');

DELETE FROM mako.snapshot WHERE run_id = 0;
SELECT is_empty('SELECT * FROM pg_temp.wrong_states(3)', 'without the snapshots, the states are what they were');
SELECT is_empty('SELECT * FROM pg_temp.wrong_resumes(5)', 'and so is what an engine makes of mako_resume()');

-- Spoilt ones, with a state that would be noticed. At the head each stream has one of these faults, and all have some at places
-- where nothing counts: beyond the head, and at and before the boundary.
CREATE TEMPORARY TABLE spoilt AS
SELECT stream_no, fault, version,
       CASE fault WHEN 0 THEN 'gpke-supplier-change@FV2024-10-01' WHEN 1 THEN 'gpke-stornierung@FV2025-10-01' ELSE 'gpke-supplier-change@FV2025-10-01' END AS workflow_id,
       CASE fault WHEN 2 THEN 1 WHEN 3 THEN 3 ELSE 2 END AS state_schema_version,
       CASE fault WHEN 4 THEN '{"status": "Lost"}' WHEN 5 THEN 'null' WHEN 6 THEN '{"status": "Rejected", "data": {"reason": 4711}}'
                  ELSE '{"status": "Rejected", "data": {"reason": "a lie"}}' END::jsonb AS state
FROM (SELECT stream_no, version, (row_number() OVER (ORDER BY stream_no) - 1) % 7 AS fault FROM current) AS c;
INSERT INTO mako.snapshot (stream_no, sequence_number, workflow_id, state_schema_version, state)
SELECT stream_no, version, workflow_id, state_schema_version, state FROM spoilt
UNION ALL
SELECT stream_no, sequence_number, 'gpke-supplier-change@FV2025-10-01', 2, '{"status": "Rejected", "data": {"reason": "a lie"}}'
FROM spoilt, LATERAL (VALUES (version + 1), (version + 1000), (version - 1), (version - 2)) AS n (sequence_number)
WHERE sequence_number > 0;
SELECT is_empty('SELECT * FROM pg_temp.wrong_states()', 'with spoilt ones, the states are what they were');
SELECT is_empty('SELECT * FROM pg_temp.wrong_resumes(5)', 'and so is what an engine makes of mako_resume()');
SELECT is_empty($$ SELECT stream_id FROM current JOIN traces USING (stream_no) WHERE stream_no % 5 = 0 AND pg_temp.trace(stream_id) <> trace $$,
                'no trace has changed');

-- Behind spoilt ones a good one is found, and it is what is used: its state is a lie, but nobody can see that.
SELECT stream_no AS sample, stream_id AS sample_id, version AS sample_version FROM current WHERE state->>'status' = 'ValidationPassed' ORDER BY stream_no LIMIT 1 \gset
SELECT mako_append_batch(:'sample_id', :'fv2', array_agg(('SupplierChangeVollzugsmeldungReceived', payload, 1, NULL, NULL, NULL, NULL)::mako_new_event))
FROM (SELECT payload FROM next_event WHERE event_type = 'SupplierChangeVollzugsmeldungReceived' LIMIT 1) AS e, generate_series(1, 3);
DELETE FROM mako.snapshot WHERE stream_no = :sample AND run_id = 0;
INSERT INTO mako.snapshot (stream_no, sequence_number, workflow_id, state_schema_version, state)
SELECT :sample, :sample_version + n, :'fv2', CASE n WHEN 2 THEN 7 ELSE 2 END,
       CASE n WHEN 3 THEN '{}' ELSE '{"status": "Rejected", "data": {"reason": "a good lie"}}' END::jsonb
FROM generate_series(1, 3) AS n;
SELECT is(pg_temp.state(:'sample_id'), pg_temp.state_of('{"status": "Rejected", "data": {"reason": "a good lie"}}', :sample_version + 3, :'fv2', 2),
          'a good snapshot is found behind bad ones, and used');
SELECT is(pg_temp.rows(format('SELECT sequence_number, state IS NULL FROM mako_resume(%L)', :'sample_id')),
          format(E'%s|false\n%s|true\n%s|true', :sample_version + 1, :sample_version + 2, :sample_version + 3), 'by mako_resume() as well');
-- A migration is never based on a cache: it folds from the boundary.
SELECT mako_migrate(:'fv2', :'fv3', tenant_id => (SELECT tenant_id FROM mako.stream WHERE stream_no = :sample)) IS NOT NULL;
SELECT is(pg_temp.state(:'sample_id')->'state'->>'status', 'ValidationPassed', 'a migration does not believe it');
ROLLBACK;

-- The type of a state can also be the domain that apply takes.
BEGIN;
CREATE SCHEMA dom;
CREATE DOMAIN dom.state AS jsonb CHECK (VALUE ? 'n');
CREATE FUNCTION dom.apply(state dom.state, event_type text, payload jsonb) RETURNS dom.state LANGUAGE sql STABLE AS
  $$ SELECT jsonb_build_object('n', (state->>'n')::int + 1) $$;
SELECT mako_register_workflow('dom@FV2024-10-01', 'dom.apply', initial_state => '{"n": 0}');
INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('dom', 'dom@FV2024-10-01');
SELECT mako_append('dom', 'dom@FV2024-10-01', 'Counted', '{}'), mako_append('dom', 'dom@FV2024-10-01', 'Counted', '{}');
INSERT INTO mako.snapshot (stream_no, sequence_number, workflow_id, state_schema_version, state)
SELECT stream_no, 2, workflow_id, 1, '{"m": 0}' FROM mako.stream WHERE stream_id = 'dom';
SELECT is(pg_temp.state('dom')->'state', '{"n": 2}', 'a snapshot outside the domain of apply is not used');
SELECT throws_ok($$ SELECT mako_register_workflow('other_dom@FV2024-10-01', apply => 'dom.apply', initial_state => '{"m": 0}') $$,
                 '23514', NULL, 'nor is an initial state outside of it registered');
SELECT mako_append('dom', 'dom@FV2024-10-01', 'Counted', '{}');
SELECT is(pg_temp.state('dom')->'state', '{"n": 3}', 'nor is it folded on from');
SELECT is(pg_temp.rows($$ SELECT sequence_number, state FROM mako_resume('dom') LIMIT 1 $$), '0|{"n": 0}', 'nor resumed from');
ROLLBACK;

----------------------------------------------------------------------------------------------------
-- Lost migration snapshots
----------------------------------------------------------------------------------------------------

-- That something is missing is said in a warning each time.
SET client_min_messages = error;

-- What the next migration must make of the current states.
CREATE TEMPORARY TABLE next_states AS SELECT stream_no, pg_temp.migrate_state(:'fv2', :'fv3', state) AS migrated FROM current;
-- What it does make of them: snapshots and errors.
CREATE FUNCTION pg_temp.wrong_migrations() RETURNS TABLE (stream_no bigint, expected jsonb, actual jsonb) LANGUAGE sql AS $$
  SELECT e.stream_no, e.migrated, coalesce(n.state, f.error)
  FROM pg_temp.next_states e
  LEFT JOIN (SELECT s.stream_no, s.state FROM mako.snapshot s WHERE s.workflow_id = 'gpke-supplier-change@FV2026-10-01' AND s.run_id > 0) n USING (stream_no)
  LEFT JOIN (SELECT m.stream_no, jsonb_build_object('error', concat_ws('|', sqlstate, message, detail, hint), 'where', 'phase ' || phase) AS error
             FROM mako.migration_error m JOIN mako.migration_run USING (run_id) WHERE target_wf = 'gpke-supplier-change@FV2026-10-01') f USING (stream_no)
  WHERE e.migrated IS DISTINCT FROM coalesce(n.state, f.error) $$;

BEGIN;
SELECT format('%s %s', migrated, failed) AS intact FROM mako_migrate(:'fv2', :'fv3') \gset
SELECT is_empty('SELECT * FROM pg_temp.wrong_migrations()', 'the next migration, from intact snapshots, makes what mako_migrate_state() makes');
SELECT isnt(split_part(:'intact', ' ', 2), '0', 'and refuses some');
ROLLBACK;

-- Of every other stream.
BEGIN;
ALTER TABLE mako.snapshot DISABLE TRIGGER snapshot_delete_guard;
DELETE FROM mako.snapshot WHERE run_id > 0 AND stream_no % 2 = 0;
ALTER TABLE mako.snapshot ENABLE TRIGGER snapshot_delete_guard;
SELECT cmp_ok((SELECT count(*) FROM current WHERE NOT EXISTS (SELECT FROM mako.snapshot n WHERE n.stream_no = current.stream_no)), '>', 800::bigint,
              'migration snapshots are lost');
SELECT is_empty('SELECT * FROM pg_temp.wrong_states(4)', 'the states are what they were');
SELECT is_empty('SELECT * FROM pg_temp.wrong_resumes(8)', 'and so is what an engine makes of mako_resume()');
-- Nobody knows the run any more; the rest of the history is known.
SELECT is_empty(
  $$ SELECT stream_no, trace, actual FROM current JOIN traces USING (stream_no), pg_temp.trace(stream_id) AS actual
     WHERE stream_no % 4 IN (0, 1)
       AND actual IS DISTINCT FROM CASE stream_no % 2 WHEN 0 THEN jsonb_set(trace, '{-2,run_id}', 'null') ELSE trace END $$,
  'a trace only lacks the number of the run');

SAVEPOINT lost;
SELECT is(format('%s %s', migrated, failed), :'intact', 'the next migration moves as many') FROM mako_migrate(:'fv2', :'fv3');
SELECT is_empty('SELECT * FROM pg_temp.wrong_migrations()', 'to the same states, and refuses the others for the same reasons');
SELECT is_empty($$ SELECT stream_id, actual FROM current JOIN next_states USING (stream_no), pg_temp.state(stream_id) AS actual
                   WHERE stream_no % 4 = 0 AND actual->'state' IS DISTINCT FROM CASE WHEN migrated ? 'error' THEN state ELSE migrated END $$,
                'mako_state() says the same');
ROLLBACK TO lost;

-- A cache of states that were computed again is as good as any.
SELECT is_empty('SELECT stream_id FROM current WHERE stream_no % 16 = 0 AND mako_take_snapshot(stream_id) <> version', 'snapshots can be taken of them');
SELECT is_empty('SELECT * FROM pg_temp.wrong_states(16)', 'the states are what they were');
SELECT is(format('%s %s', migrated, failed), :'intact', 'and the next migration moves as many') FROM mako_migrate(:'fv2', :'fv3');
SELECT is_empty('SELECT * FROM pg_temp.wrong_migrations()', 'to the same states');
ROLLBACK;

-- All of them, before anything was appended behind: no event tells of the move any more, only the head does.
BEGIN;
ALTER TABLE mako.snapshot DISABLE TRIGGER snapshot_delete_guard;
ALTER TABLE mako.event DISABLE TRIGGER event_guard;
ALTER TABLE mako.stream DISABLE TRIGGER stream_guard;
DELETE FROM mako.snapshot WHERE run_id > 0;
DELETE FROM mako.event e USING current c WHERE e.stream_no = c.stream_no AND sequence_number = c.version;
UPDATE mako.stream s SET version = c.version - 1 FROM current c WHERE s.stream_no = c.stream_no;
SELECT is_empty(
  format($$ SELECT stream_id, actual FROM current, pg_temp.state(stream_id) AS actual
            WHERE stream_no %% 9 = 0 AND actual IS DISTINCT FROM pg_temp.state_of(boundary, version - 1, %L, 2) $$, :'fv2'),
  'with all of them lost and nothing behind, the states are the golden ones');
ROLLBACK;

-- Another layout than the registered one: nobody knows how to read that, so it is said, not guessed.
BEGIN;
ALTER TABLE mako.snapshot DISABLE TRIGGER snapshot_update_guard;
UPDATE mako.snapshot SET state_schema_version = 1 WHERE stream_no = :sample;
ALTER TABLE mako.snapshot ENABLE TRIGGER snapshot_update_guard;
SELECT format('55000|the snapshot at sequence number %s has state schema version 1|Workflow "%s" is registered with state schema version 2.',
              :sample_version - 1, :'fv2') AS layout_error \gset
SELECT is(pg_temp.state(:'sample_id')->>'error', :'layout_error', 'a boundary of another state schema version is an error of mako_state()');
SELECT is(pg_temp.resume(:'sample_id')->>'error', :'layout_error', 'of mako_resume()');
SELECT is(pg_temp.trace(:'sample_id')->>'error', :'layout_error', 'of mako_trace()');
SELECT is(pg_temp.attempt(format('mako_take_snapshot(%L)', :'sample_id'))->>'error', :'layout_error', 'of mako_take_snapshot()');
SELECT mako_migrate(:'fv2', :'fv3') IS NOT NULL;
SELECT is(pg_temp.rows(format('SELECT phase, sqlstate, message, detail FROM mako.migration_error WHERE stream_no = %s', :sample)),
          'load|' || :'layout_error', 'and of a migration');
-- The same for the whole workflow, as after a registration with another number.
SELECT mako_register_workflow(:'fv3', 'gpke.supplier_change_apply_2026', 'gpke.supplier_change_upcast', 'gpke.supplier_change_in_flight',
  initial_state => '{"status":"New"}', event_type_definition => gpke.supplier_change_event_type_2026(),
  state_type_definition => gpke.supplier_change_state_type_2026(), state_schema_version => 4, replace => true);
SELECT is(pg_temp.rows(format($$ SELECT count(*) FROM mako.stream s, pg_temp.state(stream_id) AS actual
                                 WHERE workflow_id = %L AND stream_no %% 9 = 0 AND actual->>'error' IS DISTINCT FROM
                                   format('55000|the snapshot at sequence number %%s has state schema version 3|Workflow "%%s" is registered with state schema version 4.',
                                          version, workflow_id) $$, :'fv3')), '0',
          'registered with another number, every boundary is an error');
ROLLBACK;

----------------------------------------------------------------------------------------------------
-- Back and forth
----------------------------------------------------------------------------------------------------

-- One tenant's streams are enough, with those that started under the second version.
BEGIN;
SELECT tenant_id AS tenant FROM mako.stream WHERE stream_no = :sample \gset
CREATE TEMPORARY TABLE returned AS
SELECT c.*, pg_temp.migrate_state(:'fv2', :'fv1', c.state) AS old_state FROM current c JOIN mako.stream USING (stream_no) WHERE tenant_id = :'tenant';
SELECT format('%s 0', count(*)) AS all_there FROM mako.stream WHERE workflow_id = :'fv2' AND tenant_id = :'tenant' \gset
SELECT is(format('%s %s', migrated, failed), :'all_there', 'a tenant goes back') FROM mako_migrate(:'fv2', :'fv1', :'tenant');
SELECT run_id AS run2 FROM mako.migration_run ORDER BY run_id DESC LIMIT 1 \gset
SELECT is_empty(
  format($$ SELECT stream_id, actual FROM returned, pg_temp.state(stream_id) AS actual WHERE actual IS DISTINCT FROM pg_temp.state_of(old_state, version, %L, 1) $$, :'fv1'),
  'the states are those of the way back');
SELECT is_empty($$ SELECT stream_id FROM returned WHERE (SELECT mako_append(stream_id, 'gpke-supplier-change@FV2024-10-01', 'SupplierChangeRejected',
                     '{"type": "Rejected", "data": {"reason": "deadline expired: never mind"}}', version)) <> version + 1 $$, 'and go on under the old rules');
SELECT run_id AS run3, format('%s 0', migrated) AS forth FROM mako_migrate(:'fv1', :'fv2', :'tenant') \gset
SELECT is(:'forth'::text, :'all_there', 'and forth again');
-- Rejected for an expired deadline is DeadlineExpired there.
SELECT is_empty(
  format($$ SELECT stream_id, actual FROM returned, pg_temp.state(stream_id) AS actual
            WHERE actual IS DISTINCT FROM pg_temp.state_of('{"status": "DeadlineExpired", "data": {"label": "never mind"}}', version + 1, %L, 2) $$, :'fv2'),
  'the states are those of the third run');
-- A trace: events of the first version, run 1, an event of the second, run 2, an event of the first, run 3.
CREATE TEMPORARY TABLE return_traces AS SELECT stream_no, pg_temp.trace(stream_id) AS trace FROM returned;
SELECT is_empty(
  format($$ SELECT stream_id, r.trace FROM returned JOIN return_traces r USING (stream_no) JOIN traces t USING (stream_no)
            WHERE r.trace IS DISTINCT FROM t.trace || jsonb_build_array(
              jsonb_build_object('sequence_number', version, 'event_type', null, 'workflow_id', %1$L, 'run_id', %3$s, 'state', old_state),
              jsonb_build_object('sequence_number', version + 1, 'event_type', 'SupplierChangeRejected', 'workflow_id', %1$L, 'run_id', null,
                                 'state', '{"status": "Rejected", "data": {"reason": "deadline expired: never mind"}}'::jsonb),
              jsonb_build_object('sequence_number', version + 1, 'event_type', null, 'workflow_id', %2$L, 'run_id', %4$s,
                                 'state', '{"status": "DeadlineExpired", "data": {"label": "never mind"}}'::jsonb)) $$,
         :'fv1', :'fv2', :run2, :run3),
  'the trace has all three runs, each at its place');

-- Each set of lost snapshots leaves the states alone; a trace only lacks the runs.
CREATE FUNCTION pg_temp.lose(VARIADIC runs bigint[]) RETURNS TABLE (stream_id text, state jsonb, trace jsonb) LANGUAGE plpgsql AS $$
BEGIN
  ALTER TABLE mako.snapshot DISABLE TRIGGER snapshot_delete_guard;
  DELETE FROM mako.snapshot n USING pg_temp.returned r WHERE n.stream_no = r.stream_no AND n.run_id = ANY (runs);
  RETURN QUERY
  SELECT r.stream_id, actual, actual_trace
  FROM pg_temp.returned r JOIN pg_temp.return_traces t USING (stream_no), pg_temp.state(r.stream_id) AS actual, pg_temp.trace(r.stream_id) AS actual_trace
  WHERE r.stream_no % 3 = 0 AND (
    actual IS DISTINCT FROM pg_temp.state_of('{"status": "DeadlineExpired", "data": {"label": "never mind"}}', r.version + 1, 'gpke-supplier-change@FV2025-10-01', 2)
    OR actual_trace IS DISTINCT FROM (
      SELECT jsonb_agg(CASE WHEN (row->>'run_id')::bigint = ANY (runs) THEN row || '{"run_id": null}' ELSE row END ORDER BY k)
      FROM jsonb_array_elements(t.trace) WITH ORDINALITY AS e (row, k)));
END
$$;
SAVEPOINT returned;
SELECT is_empty(format('SELECT * FROM pg_temp.lose(%s)', :run), 'with the snapshots of the first run lost, states and traces are what they were');
ROLLBACK TO returned;
SELECT is_empty(format('SELECT * FROM pg_temp.lose(%s)', :run2), 'with those of the second');
ROLLBACK TO returned;
SELECT is_empty(format('SELECT * FROM pg_temp.lose(%s)', :run3), 'with those of the third');
ROLLBACK TO returned;
SELECT is_empty(format('SELECT * FROM pg_temp.lose(%s, %s)', :run, :run2), 'with those of the first and the second');
ROLLBACK TO returned;
SELECT is_empty(format('SELECT * FROM pg_temp.lose(%s, %s)', :run, :run3), 'with those of the first and the third');
ROLLBACK TO returned;
SELECT is_empty(format('SELECT * FROM pg_temp.lose(%s, %s)', :run2, :run3), 'with those of the second and the third');
ROLLBACK TO returned;
SELECT is_empty(format('SELECT * FROM pg_temp.lose(%s, %s, %s)', :run, :run2, :run3), 'with all of them');
ROLLBACK;

-- There and back at once, with no event in between.
BEGIN;
INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('there and back', :'fv1');
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
SELECT s.stream_no, row_number() OVER (ORDER BY e.sequence_number), :'fv1', e.event_type, e.payload
FROM mako.stream s, mako.event e WHERE s.stream_id = 'there and back' AND e.stream_no = :sample AND e.workflow_id = :'fv1';
SELECT pg_temp.state('there and back') AS at_home \gset
SELECT mako_migrate(:'fv1', :'fv2') IS NOT NULL, mako_migrate(:'fv2', :'fv1') IS NOT NULL;
SELECT is(pg_temp.state('there and back'), :'at_home', 'there and back at once leads to the same state');
SELECT is(pg_temp.rows($$ SELECT sequence_number, event_type IS NULL, split_part(workflow_id, '@', 2), run_id IS NULL FROM mako_trace('there and back') WHERE event_type IS NULL $$),
          format(E'%1$s|true|FV2025-10-01|false\n%1$s|true|FV2024-10-01|false', :'at_home'::jsonb->>'sequence_number'), 'the trace has both runs');
ALTER TABLE mako.snapshot DISABLE TRIGGER snapshot_delete_guard;
SAVEPOINT there_and_back;
DELETE FROM mako.snapshot n USING mako.stream s WHERE n.stream_no = s.stream_no AND s.stream_id = 'there and back' AND n.workflow_id = :'fv1';
SELECT is(pg_temp.state('there and back'), :'at_home', 'without the second snapshot, too');
ROLLBACK TO there_and_back;
DELETE FROM mako.snapshot n USING mako.stream s WHERE n.stream_no = s.stream_no AND s.stream_id = 'there and back';
SELECT is(pg_temp.state('there and back'), :'at_home', 'without both, too');
ROLLBACK;

----------------------------------------------------------------------------------------------------
-- Moves without a snapshot
----------------------------------------------------------------------------------------------------

-- A toy whose state is the list of what its events said, so that one sees who folded what: the second version says it in upper
-- case, the third doubles it.
CREATE SCHEMA toy;
CREATE FUNCTION toy.apply_1(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT state || to_jsonb(event_type) $$;
CREATE FUNCTION toy.apply_2(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT state || to_jsonb(upper(event_type)) $$;
CREATE FUNCTION toy.apply_3(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT state || to_jsonb(repeat(event_type, 2)) $$;
CREATE FUNCTION toy.migrate(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT state || '"|"'::jsonb $$;

-- Starts a stream of a toy workflow, and lets it say something.
CREATE FUNCTION pg_temp.say(name text, workflow text, VARIADIC words text[]) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO mako.stream (stream_id, workflow_id) VALUES (name, workflow) ON CONFLICT DO NOTHING;
  RETURN mako_append_batch(name, workflow, array_agg((word, '{}', NULL, NULL, NULL, NULL, NULL)::mako_new_event ORDER BY k))
  FROM unnest(words) WITH ORDINALITY AS w (word, k);
END
$$;
CREATE FUNCTION pg_temp.trace_lines(name text) RETURNS text LANGUAGE sql AS $$
  SELECT pg_temp.rows(format('SELECT sequence_number, event_type, right(workflow_id, 10) AS version, run_id IS NOT NULL AS run, state FROM mako_trace(%L)', name)) $$;

-- No apply anywhere: the state is the application's, and there is nothing to tell in between.
BEGIN;
SELECT mako_register_workflow('own@FV2024-10-01'), mako_register_workflow('own@FV2025-10-01'), mako_register_workflow('own@FV2026-10-01');
SELECT mako_register_migrations('FV2024-10-01', 'FV2025-10-01', '{own}');
SELECT mako_register_migration('own@FV2025-10-01', 'own@FV2026-10-01', 'toy.migrate');
SELECT pg_temp.say('own', 'own@FV2024-10-01', 'a', 'b');
SELECT mako_save_snapshot('own', 2, 'own@FV2024-10-01', 1, '["a", "b"]');
SELECT is(pg_temp.state('own'), pg_temp.state_of('["a", "b"]', 2, 'own@FV2024-10-01', 1), 'without apply, the state is the application''s');
SELECT is((SELECT format('%s %s', migrated, failed) FROM mako_migrate('own@FV2024-10-01', 'own@FV2025-10-01')), '1 0', 'an identity migration moves the stream');
SELECT is(pg_temp.rows($$ SELECT r.sequence_number, (SELECT count(*) FROM mako.snapshot n WHERE n.stream_no = r.stream_no AND n.run_id > 0)
                          FROM mako.repointed r JOIN mako.stream USING (stream_no) WHERE stream_id = 'own' $$), '2|0', 'without a snapshot');
SELECT pg_temp.say('own', 'own@FV2025-10-01', 'c');
SELECT mako_save_snapshot('own', 3, 'own@FV2025-10-01', 1, '["a", "b", "c"]');
SELECT is(pg_temp.state('own'), pg_temp.state_of('["a", "b", "c"]', 3, 'own@FV2025-10-01', 1), 'the application goes on under the new version');
SELECT is(pg_temp.trace_lines('own'), E'1|a|2025-10-01|false|\n2|b|2025-10-01|false|\n3|c|2025-10-01|false|',
          'a trace without apply has the events, and knows no state');
SELECT is((SELECT format('%s %s', migrated, failed) FROM mako_migrate('own@FV2025-10-01', 'own@FV2026-10-01')), '1 0', 'a step with a function takes the application''s snapshot');
SELECT pg_temp.say('own', 'own@FV2026-10-01', 'd');
SELECT is(pg_temp.rows($$ SELECT sequence_number, workflow_id, state, event_type FROM mako_resume('own') $$),
          E'3|own@FV2026-10-01|["a", "b", "c", "|"]|\n4|own@FV2026-10-01||d', 'and the application resumes from what it made of it');
SELECT is(pg_temp.trace_lines('own'), E'1|a|2025-10-01|false|\n2|b|2025-10-01|false|\n3|c|2025-10-01|false|\n'
          '3||2026-10-01|true|["a", "b", "c", "|"]\n4|d|2026-10-01|false|', 'the trace knows that state');
ROLLBACK;

-- Moved without a snapshot to a version with apply: the old events belong to the same state, and are folded there.
BEGIN;
SELECT mako_register_workflow('late@FV2024-10-01'), mako_register_workflow('late@FV2025-10-01', 'toy.apply_2', initial_state => '[]'),
  mako_register_workflow('late@FV2026-10-01', 'toy.apply_3', initial_state => '[]');
SELECT mako_register_migrations('FV2024-10-01', 'FV2025-10-01', '{late}');
SELECT mako_register_migration('late@FV2025-10-01', 'late@FV2026-10-01', 'toy.migrate');
SELECT pg_temp.say('late', 'late@FV2024-10-01', 'a', 'b');
SELECT mako_migrate('late@FV2024-10-01', 'late@FV2025-10-01') IS NOT NULL;
SELECT is(pg_temp.state('late'), pg_temp.state_of('["A", "B"]', 2, 'late@FV2025-10-01', 1), 'events from before a move without a snapshot are folded by the new version');
SELECT pg_temp.say('late', 'late@FV2025-10-01', 'c');
SELECT is(pg_temp.state('late')->'state', '["A", "B", "C"]', 'together with those behind');
SELECT is(pg_temp.trace_lines('late'), E'1|a|2025-10-01|false|["A"]\n2|b|2025-10-01|false|["A", "B"]\n3|c|2025-10-01|false|["A", "B", "C"]', 'the trace says so');
SELECT is(pg_temp.rows($$ SELECT sequence_number, workflow_id, state, event_type FROM mako_resume('late') $$),
          E'0|late@FV2025-10-01|[]|\n1|late@FV2024-10-01||a\n2|late@FV2024-10-01||b\n3|late@FV2025-10-01||c', 'and so does mako_resume()');
SELECT mako_migrate('late@FV2025-10-01', 'late@FV2026-10-01') IS NOT NULL;
SELECT pg_temp.say('late', 'late@FV2026-10-01', 'd');
SELECT is(pg_temp.state('late')->'state', '["A", "B", "C", "|", "dd"]', 'the next migration starts from there');
SELECT is(pg_temp.trace_lines('late'), E'1|a|2025-10-01|false|["A"]\n2|b|2025-10-01|false|["A", "B"]\n3|c|2025-10-01|false|["A", "B", "C"]\n'
          '3||2026-10-01|true|["A", "B", "C", "|"]\n4|d|2026-10-01|false|["A", "B", "C", "|", "dd"]', 'the trace says so');
ALTER TABLE mako.snapshot DISABLE TRIGGER snapshot_delete_guard;
DELETE FROM mako.snapshot WHERE workflow_id = 'late@FV2026-10-01';
SELECT is(pg_temp.state('late')->'state', '["A", "B", "C", "|", "dd"]', 'and it can be computed again');
ROLLBACK;

-- A boundary that an identity migration without apply carries over, with events behind it.
BEGIN;
SELECT mako_register_workflow('carry@FV2024-10-01', 'toy.apply_1', initial_state => '[]'), mako_register_workflow('carry@FV2025-10-01'),
  mako_register_workflow('carry@FV2026-10-01', 'toy.apply_3', initial_state => '[]');
SELECT mako_register_migration('carry@FV2024-10-01', 'carry@FV2025-10-01', 'toy.migrate');
SELECT mako_register_migrations('FV2025-10-01', 'FV2026-10-01', '{carry}');
SELECT pg_temp.say('carry', 'carry@FV2024-10-01', 'a', 'b');
SELECT mako_migrate('carry@FV2024-10-01', 'carry@FV2025-10-01') IS NOT NULL;
SELECT pg_temp.say('carry', 'carry@FV2025-10-01', 'c', 'd');
SELECT is((SELECT format('%s %s', migrated, failed) FROM mako_migrate('carry@FV2025-10-01', 'carry@FV2026-10-01')), '1 0', 'a stream moves with its boundary');
SELECT is(pg_temp.rows($$ SELECT sequence_number, workflow_id, state, (SELECT p.sequence_number FROM mako.repointed p WHERE p.stream_no = n.stream_no AND p.run_id = n.run_id)
                          FROM mako.snapshot n JOIN mako.stream USING (stream_no, workflow_id) WHERE stream_id = 'carry' $$),
          '2|carry@FV2026-10-01|["a", "b", "|"]|4', 'which is a snapshot of the new version, older than the move');
SELECT pg_temp.say('carry', 'carry@FV2026-10-01', 'e');
SELECT is(pg_temp.state('carry'), pg_temp.state_of('["a", "b", "|", "cc", "dd", "ee"]', 5, 'carry@FV2026-10-01', 1), 'the events behind it are folded by the new version');
\set carry_trace '1|a|2024-10-01|false|["a"]\n2|b|2024-10-01|false|["a", "b"]\n2||2025-10-01|%1$s|["a", "b", "|"]\n2||2026-10-01|%2$s|["a", "b", "|"]\n3|c|2026-10-01|false|["a", "b", "|", "cc"]\n4|d|2026-10-01|false|["a", "b", "|", "cc", "dd"]\n5|e|2026-10-01|false|["a", "b", "|", "cc", "dd", "ee"]'
SELECT is(pg_temp.trace_lines('carry'), format(:'carry_trace', 'true', 'true'), 'the trace has both moves');
SELECT is(pg_temp.rows($$ SELECT sequence_number, workflow_id, state, event_type FROM mako_resume('carry') $$),
          E'2|carry@FV2026-10-01|["a", "b", "|"]|\n3|carry@FV2025-10-01||c\n4|carry@FV2025-10-01||d\n5|carry@FV2026-10-01||e', 'mako_resume() starts at the boundary');
-- Lost snapshots: that of the first run, of the second, of both.
ALTER TABLE mako.snapshot DISABLE TRIGGER snapshot_delete_guard;
SAVEPOINT carried;
DELETE FROM mako.snapshot WHERE workflow_id = 'carry@FV2025-10-01';
SELECT is(pg_temp.state('carry')->'state', '["a", "b", "|", "cc", "dd", "ee"]', 'without the first snapshot, the state is the same');
ROLLBACK TO carried;
DELETE FROM mako.snapshot WHERE workflow_id = 'carry@FV2026-10-01';
SELECT is(pg_temp.state('carry')->'state', '["a", "b", "|", "cc", "dd", "ee"]', 'without the second, too');
SELECT is(pg_temp.trace_lines('carry'), format(:'carry_trace', 'true', 'false'), 'and the trace only lacks the run');
ROLLBACK TO carried;
DELETE FROM mako.snapshot WHERE workflow_id LIKE 'carry@%';
-- Nobody knows of two moves any more, so the trace has one.
SELECT is(pg_temp.trace_lines('carry'), replace(format(:'carry_trace', 'false', 'false'), E'2||2025-10-01|false|["a", "b", "|"]\n', ''),
          'without both, the trace has the whole way as one move');
SELECT is(pg_temp.state('carry')->'state', '["a", "b", "|", "cc", "dd", "ee"]', 'and the state is the same');
ROLLBACK;

----------------------------------------------------------------------------------------------------
-- Definitions that change while the session goes on
----------------------------------------------------------------------------------------------------

-- Nothing that was compiled for an earlier call may outlive what it was compiled from.
SELECT mako_register_workflow('cache@FV2024-10-01', 'toy.apply_1', initial_state => '[]');
SELECT pg_temp.say('cache', 'cache@FV2024-10-01', 'a', 'b');
SELECT is(pg_temp.state('cache')->'state', '["a", "b"]', 'a state as registered');
BEGIN;
SELECT mako_register_workflow('cache@FV2024-10-01', 'toy.apply_2', initial_state => '[0]', replace => true);
SELECT is(pg_temp.state('cache')->'state', '[0, "A", "B"]', 'as registered again');
ROLLBACK;
SELECT is(pg_temp.state('cache')->'state', '["a", "b"]', 'and as it was, when that is rolled back');
BEGIN;
SELECT mako_register_workflow('cache@FV2024-10-01', 'toy.apply_1', initial_state => '[]', state_schema_version => 2,
  event_type_definition => '{"properties": {"who": {"type": "string"}}}', replace => true);
SELECT matches(pg_temp.state('cache')->>'error', '^MK004', 'with another type of events');
ROLLBACK;
BEGIN;
CREATE OR REPLACE FUNCTION toy.apply_1(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT '"changed"'::jsonb $$;
SELECT matches(pg_temp.state('cache')->>'error', '^55000', 'a changed function is an error');
SELECT mako_register_workflow('cache@FV2024-10-01', 'toy.apply_1', initial_state => '[]', replace => true);
SELECT is(pg_temp.state('cache')->'state', '"changed"', 'until it is registered again');
ROLLBACK;
SELECT is(pg_temp.state('cache')->'state', '["a", "b"]', 'and the old one, when that is rolled back');
BEGIN;
DROP FUNCTION toy.apply_1;
SELECT matches(pg_temp.state('cache')->>'error', '^42883', 'a dropped function is an error');
ROLLBACK;
BEGIN;
CREATE ROLE mako_test_owner;
ALTER FUNCTION toy.apply_1 OWNER TO mako_test_owner;
SELECT matches(pg_temp.state('cache')->>'error', '^42501', 'and so is another owner');
ROLLBACK;
BEGIN;
ALTER FUNCTION toy.apply_1 VOLATILE;
SELECT matches(pg_temp.state('cache')->>'error', '^(42P17|55000)', 'a volatile one');
ROLLBACK;
-- A helper that was inlined.
BEGIN;
CREATE FUNCTION toy.word(word text) RETURNS text LANGUAGE sql STABLE AS $$ SELECT word $$;
CREATE FUNCTION toy.apply_4(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT state || to_jsonb(toy.word(event_type)) $$;
SELECT mako_register_workflow('cache@FV2024-10-01', 'toy.apply_4', initial_state => '[]', replace => true);
SELECT is(pg_temp.state('cache')->'state', '["a", "b"]', 'with a helper');
CREATE OR REPLACE FUNCTION toy.word(word text) RETURNS text LANGUAGE sql STABLE AS $$ SELECT word || '!' $$;
SELECT matches(pg_temp.state('cache')->>'error', '^55000', 'a changed helper is an error');
ROLLBACK;
-- An error in the middle of a fold, and one in a subtransaction, leave nothing behind.
BEGIN;
CREATE FUNCTION toy.apply_5(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
  IF event_type = 'bad' THEN RAISE 'bad'; END IF;
  RETURN state || to_jsonb(event_type);
END $$;
SELECT mako_register_workflow('cache@FV2024-10-01', 'toy.apply_5', initial_state => '[]', replace => true);
SELECT pg_temp.say('cache2', 'cache@FV2024-10-01', 'x', 'bad', 'y');
SELECT is(pg_temp.rows($$ SELECT pg_temp.state(s)->'state' AS state, pg_temp.state(s)->>'error' AS error FROM unnest('{cache,cache2,cache,cache2,cache}'::text[]) AS s $$),
          E'["a", "b"]|\n|P0001|bad\n["a", "b"]|\n|P0001|bad\n["a", "b"]|', 'an error leaves nothing behind');
-- An apply that asks for the state of another stream of its own workflow, in the middle of a fold.
CREATE FUNCTION toy.apply_6(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT state || CASE event_type WHEN 'look' THEN jsonb_build_array((SELECT s.state FROM mako_state('cache') s)) ELSE to_jsonb(event_type) END $$;
SELECT mako_register_workflow('cache@FV2024-10-01', 'toy.apply_6', initial_state => '[]', replace => true);
SELECT pg_temp.say('cache3', 'cache@FV2024-10-01', 'x', 'look', 'y', 'look');
SELECT is(pg_temp.state('cache3')->'state', '["x", ["a", "b"], "y", ["a", "b"]]', 'folds within folds do not disturb each other');
SELECT is(pg_temp.state('cache3')->'state', '["x", ["a", "b"], "y", ["a", "b"]]', 'nor at the second time');
ROLLBACK;

SELECT * FROM finish();
