-- Proofs: mako_verify() and mako_verify_snapshots() find nothing in what was migrated, and name exactly the stream that was tampered
-- with: in the golden set, through several runs, without apply, without a snapshot, and where definitions are others by now.
-- Runs in an empty database, from the root of the project.

CREATE EXTENSION pgtap;
CREATE EXTENSION mako_migration;

SET client_min_messages = error;  -- what has changed, and what cannot be seen through, is said
SELECT plan(84);

SELECT mako_create_store();
\ir ../examples/gpke/supplier_change.sql
\ir ../examples/gpke/register.sql
\ir ../golden/load.sql
\ir include/helpers.sql

\set fv1 gpke-supplier-change@FV2024-10-01
\set fv2 gpke-supplier-change@FV2025-10-01
\set fv3 gpke-supplier-change@FV2026-10-01

-- What a proof finds after a change that the triggers would have refused; the change is undone.
CREATE FUNCTION pg_temp.after(change text, query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  result text; changed bigint;
BEGIN
  SET LOCAL session_replication_role = replica;
  EXECUTE change;
  GET DIAGNOSTICS changed = ROW_COUNT;
  IF changed = 0 THEN RAISE 'nothing was changed'; END IF;
  SET LOCAL session_replication_role = origin;
  SET LOCAL mako_migration.scan_order = 'key';
  result := pg_temp.rows(query);
  SET LOCAL mako_migration.scan_order = 'heap';
  IF pg_temp.rows(query) IS DISTINCT FROM result THEN RAISE 'in heap order: %', pg_temp.rows(query); END IF;
  RAISE EXCEPTION USING ERRCODE = 'MKTST', MESSAGE = coalesce(result, '');
EXCEPTION WHEN SQLSTATE 'MKTST' THEN
  RETURN SQLERRM;
END
$$;
CREATE FUNCTION pg_temp.verify(run_id bigint) RETURNS text LANGUAGE sql AS $$
  SELECT format($q$ SELECT s.stream_no, sequence_number, problem, stored, computed, differs_from FROM mako_verify(%s) v
                    LEFT JOIN mako.stream s ON s.stream_id = v.stream_id ORDER BY s.stream_no NULLS LAST, problem COLLATE "C" $q$, run_id) $$;

-- The saved states of applications: after every second event, computed by folding by hand.
INSERT INTO mako.snapshot (stream_no, sequence_number, workflow_id, state_schema_version, state)
SELECT t.stream_no, t.sequence_number, t.workflow_id, 1, t.state
FROM (SELECT s.stream_no, t.* FROM mako.stream s, mako_trace(s.stream_id) t
      WHERE s.workflow_id = :'fv1' AND s.stream_no % 3 = 0
        AND pg_temp.error(format('SELECT count(*) FROM mako_trace(%L)', s.stream_id)) IS NULL) t
WHERE t.sequence_number % 2 = 0;

SELECT is_empty(format('SELECT * FROM mako_verify_snapshots(%L)', :'fv1'), 'saved states are proven before a migration');
SELECT cmp_ok((SELECT count(*) FROM mako.snapshot), '>', 300::bigint, 'of many streams');

CREATE TEMPORARY TABLE run AS SELECT * FROM mako_migrate(:'fv1', :'fv2');
SELECT is((SELECT run_id FROM run), 1::bigint, 'the run has number 1');
SELECT is_empty('SELECT * FROM mako_verify(1)', 'nothing differs in the golden set');
SELECT is_empty(format('SELECT * FROM mako_verify_snapshots(%L)', :'fv1'), 'nor in the saved states of streams that run under another workflow now');
SELECT is_empty(format('SELECT * FROM mako_verify_snapshots(%L)', :'fv2'), 'where nothing is saved, nothing differs');

----------------------------------------------------------------------------------------------------
-- Tampering
----------------------------------------------------------------------------------------------------

-- A stream with saved states and at least four events.
SELECT n.stream_no AS victim, n.sequence_number AS last FROM mako.snapshot n
WHERE run_id = 1 AND sequence_number = 4 AND EXISTS (SELECT FROM mako.snapshot p WHERE p.stream_no = n.stream_no AND p.run_id = 0 AND p.sequence_number = 4)
ORDER BY stream_no LIMIT 1 \gset
SELECT state AS good FROM mako.snapshot WHERE stream_no = :victim AND run_id = 1 \gset

SELECT is(pg_temp.after(format($$ UPDATE mako.snapshot SET state = '{"status": "Tampered"}' WHERE stream_no = %s AND run_id = 1 $$, :victim), pg_temp.verify(1)),
          format('%s|4|state differs|{"status": "Tampered"}|%s|4', :victim, :'good'), 'a snapshot''s state');
SELECT is(pg_temp.after(format($$ UPDATE mako.snapshot SET state = jsonb_set(state, '{status}', '"x"') WHERE stream_no = %s AND sequence_number = 2 $$, :victim),
                        pg_temp.verify(1)), '', 'a saved state is not the run''s business');
SELECT is(pg_temp.after(format($$ UPDATE mako.snapshot SET state = jsonb_set(state, '{status}', '"x"') WHERE stream_no = %s $$, :victim),
                        format($$ SELECT s.stream_no, sequence_number, problem, differs_from FROM mako_verify(1) JOIN mako.stream s USING (stream_id) $$)),
          format('%s|4|state differs|2', :victim), 'but it tells where stored and computed states part');
SELECT is(pg_temp.after(format($$ UPDATE mako.snapshot SET sequence_number = 3 WHERE stream_no = %s AND run_id = 1 $$, :victim),
                        format($$ SELECT DISTINCT s.stream_no, sequence_number, problem FROM mako_verify(1) JOIN mako.stream s USING (stream_id)
                                  WHERE problem = 'not where the workflow changed' $$)),
          format('%s|3|not where the workflow changed', :victim), 'a snapshot''s number, too low');
SELECT is(pg_temp.after(format($$ UPDATE mako.snapshot SET sequence_number = 3 WHERE stream_no = %s AND run_id = 1 $$, :victim),
                        'SELECT DISTINCT s.stream_no FROM mako_verify(1) JOIN mako.stream s USING (stream_id)'), :'victim', '... of that stream only');
SELECT is(pg_temp.after(format($$ UPDATE mako.snapshot SET sequence_number = 5 WHERE stream_no = %s AND run_id = 1 $$, :victim), pg_temp.verify(1)),
          format('%s|5|beyond the head|5|4|', :victim), 'too high');
SELECT is(pg_temp.after(format($$ UPDATE mako.snapshot SET state_schema_version = 9 WHERE stream_no = %s AND run_id = 1 $$, :victim), pg_temp.verify(1)),
          format('%s|4|state schema version differs|9|2|', :victim), 'its schema version');
SELECT is(pg_temp.after(format($$ UPDATE mako.snapshot SET workflow_id = %2$L WHERE stream_no = %1$s AND run_id = 1 $$, :victim, :'fv3'), pg_temp.verify(1)),
          format('%s|4|workflow differs|%s|%s|', :victim, :'fv3', :'fv2'), 'its workflow');
SELECT is(pg_temp.after(format($$ UPDATE mako.snapshot SET run_id = 1 WHERE stream_no = %s AND run_id = 0 AND sequence_number = 2 $$, :victim), pg_temp.verify(1)),
          format('%s|2|not where the workflow changed|||', :victim), 'its run: no stream moves twice in one');
SELECT is(pg_temp.after(format($$ DELETE FROM mako.snapshot WHERE stream_no = %s AND run_id = 1 $$, :victim), pg_temp.verify(1)),
          '||count of migrated streams differs|1657|1656|', 'a snapshot that is gone is missed by the count');
SELECT is(pg_temp.after(format($$ UPDATE mako.event SET payload = '{"type": "x"}' WHERE stream_no = %s AND sequence_number = 1 $$, :victim),
                        'SELECT s.stream_no, sequence_number, split_part(problem, '':'', 1), differs_from FROM mako_verify(1) JOIN mako.stream s USING (stream_id)'),
          format('%s|4|cannot be recomputed|1', :victim), 'an event''s payload');
SELECT is(pg_temp.after(format($$ DELETE FROM mako.event WHERE stream_no = %s AND sequence_number = 2 $$, :victim), pg_temp.verify(1)),
          format('%s|4|events missing or damaged: the events of the stream do not run to its head without a gap|||3', :victim), 'an event that is gone');
SELECT is(pg_temp.after(format($$ DELETE FROM mako.event WHERE stream_no = %s AND sequence_number = 1 $$, :victim), pg_temp.verify(1)),
          format('%s|4|events missing or damaged: the events of the stream do not run to its head without a gap|||2', :victim), 'the first one');
SELECT is(pg_temp.after(format($$ DELETE FROM mako.event WHERE stream_no = %s AND sequence_number = 4 $$, :victim), pg_temp.verify(1)),
          format('%s|4|events missing or damaged: the events of the stream do not run to its head without a gap|||3', :victim), 'the last one');
SELECT is(pg_temp.after(format($$ UPDATE mako.event SET workflow_id = %2$L WHERE stream_no = %1$s AND sequence_number = 4 $$, :victim, :'fv2'),
                        'SELECT s.stream_no, sequence_number, problem FROM mako_verify(1) JOIN mako.stream s USING (stream_id)'),
          format('%s|4|not where the workflow changed', :victim), 'an event of the other side');
SELECT is(pg_temp.after(format($$ UPDATE mako.stream SET workflow_id = %2$L WHERE stream_no = %1$s $$, :victim, :'fv1'), pg_temp.verify(1)),
          format('%s|4|the head is under another workflow|%s|%s|', :victim, :'fv1', :'fv2'), 'a head''s workflow');
SELECT is(pg_temp.after(format($$ UPDATE mako.stream SET version = 3 WHERE stream_no = %s $$, :victim), pg_temp.verify(1)),
          format('%s|4|beyond the head|4|3|', :victim), 'a head''s version, too low');
SELECT is(pg_temp.after(format($$ UPDATE mako.stream SET version = 5 WHERE stream_no = %s $$, :victim), pg_temp.verify(1)),
          format('%s|4|events missing or damaged: the events of the stream do not run to its head without a gap|||4', :victim), 'too high');
SELECT is(pg_temp.after(format($$ DELETE FROM mako.stream WHERE stream_no = %s $$, :victim), pg_temp.verify(1)),
          format('||there is no head: stream number %s|||', :victim), 'a head that is gone');
SELECT is(pg_temp.after(format($$ UPDATE mako.event SET payload = payload || '{"x": 1}' WHERE stream_no = %s AND sequence_number = 1 $$, :victim),
                        'SELECT count(*) FROM mako_verify(1)'), '0', 'a payload that changes no state is nothing to find');
SELECT isnt(pg_temp.after('UPDATE mako.snapshot SET state = jsonb_build_object(''was'', state) WHERE run_id = 1 AND stream_no % 3 = 1',
                          'SELECT v.stream_id FROM mako_verify(1) WITH ORDINALITY AS v (stream_id, a, b, c, d, e, n) ORDER BY n'), '',
            'what is found of many comes in the same order, whichever the events are read in');
SELECT is(pg_temp.after('UPDATE mako.migration_run SET migrated = 7', pg_temp.verify(1)), '||count of migrated streams differs|7|1657|', 'the recorded count');

-- Saved states.
CREATE FUNCTION pg_temp.verify_saved(workflow text) RETURNS text LANGUAGE sql AS $$
  SELECT format($q$ SELECT s.stream_no, sequence_number, problem, stored, differs_from FROM mako_verify_snapshots(%L) v
                    LEFT JOIN mako.stream s ON s.stream_id = v.stream_id ORDER BY s.stream_no NULLS LAST, sequence_number, problem COLLATE "C" $q$, workflow) $$;
SELECT is(pg_temp.after(format($$ UPDATE mako.snapshot SET state = '{"status": "x"}' WHERE stream_no = %s AND run_id = 0 $$, :victim), pg_temp.verify_saved(:'fv1')),
          format(E'%1$s|2|state differs|{"status": "x"}|2\n%1$s|4|state differs|{"status": "x"}|2', :victim), 'saved states that differ, and where they begin to');
SELECT is(pg_temp.after(format($$ UPDATE mako.snapshot SET state = '{"status": "x"}' WHERE stream_no = %s AND run_id = 0 AND sequence_number = 4 $$, :victim),
                        pg_temp.verify_saved(:'fv1')),
          format('%1$s|4|state differs|{"status": "x"}|4', :victim), 'the second one only');
SELECT is(pg_temp.after(format($$ UPDATE mako.snapshot SET state_schema_version = 5 WHERE stream_no = %s AND run_id = 0 AND sequence_number = 2 $$, :victim),
                        pg_temp.verify_saved(:'fv1')), format('%1$s|2|state schema version differs|5|', :victim), 'another schema version');
SELECT is(pg_temp.after(format($$ UPDATE mako.snapshot SET sequence_number = 44 WHERE stream_no = %s AND run_id = 0 AND sequence_number = 4 $$, :victim),
                        pg_temp.verify_saved(:'fv1')), format('%1$s|44|beyond the head|44|', :victim), 'beyond the head');
SELECT is(pg_temp.after(format($$ DELETE FROM mako.event WHERE stream_no = %s AND sequence_number = 3 $$, :victim), pg_temp.verify_saved(:'fv1')),
          format('%1$s|4|events missing or damaged: the events of the stream do not run to its head without a gap||4', :victim),
          'a gap: the state before it is proven, the one behind it cannot be');
SELECT is(pg_temp.after(format($$ DELETE FROM mako.stream WHERE stream_no = %s $$, :victim), pg_temp.verify_saved(:'fv1')),
          format('||there is no head: stream number %s||', :victim), 'no head');

-- Numbers that are written differently are the same number.
CREATE FUNCTION pg_temp.same_number() RETURNS text LANGUAGE sql AS $$
  SELECT pg_temp.after(format('UPDATE mako.snapshot SET state = replace(state::text, %L, %L)::jsonb WHERE workflow_id LIKE %L AND run_id = 0', '"count": 1', '"count": 1.00', 'count@%'),
                       'SELECT count(*) FROM mako_verify_snapshots(''count@FV2024-10-01'')') $$;

----------------------------------------------------------------------------------------------------
-- Several runs, definitions that change
----------------------------------------------------------------------------------------------------

CREATE SCHEMA t;
CREATE FUNCTION t.apply(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS
  $$ SELECT jsonb_set(state, '{count}', to_jsonb((state->>'count')::int + (payload->>'n')::int)) $$;
CREATE FUNCTION t.double(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS
  $$ SELECT CASE WHEN (state->>'count')::int > 1000 THEN mako_reject('too much') ELSE jsonb_build_object('count', 2 * (state->>'count')::int) END $$;
SELECT mako_register_workflow(w, apply => 't.apply', initial_state => '{"count": 0}', state_schema_version => v)
FROM (VALUES ('count@FV2024-10-01', 1), ('count@FV2025-10-01', 2), ('count@FV2026-10-01', 3)) AS w (w, v);
SELECT mako_register_migration('count@FV2024-10-01', 'count@FV2025-10-01', 't.double');
SELECT mako_register_migration('count@FV2025-10-01', 'count@FV2026-10-01');
SELECT mako_register_migration('count@FV2025-10-01', 'count@FV2024-10-01');
SELECT setval(pg_get_serial_sequence('mako.stream', 'stream_no'), 10000);
SELECT mako_spawn('count@FV2024-10-01', 'aaaaaaaa-0000-4000-8000-000000000001', format('bbbbbbbb-0000-4000-8000-00000000000%s', i)::uuid) FROM generate_series(1, 3) AS i;
CREATE TEMPORARY VIEW counter AS SELECT stream_no, stream_id, workflow_id FROM mako.stream WHERE workflow_id LIKE 'count@%';
CREATE FUNCTION pg_temp.append(n int) RETURNS void LANGUAGE sql AS $$
  SELECT mako_append(stream_id, workflow_id, 'Added', jsonb_build_object('n', n)) FROM counter WHERE stream_no <> 10003 $$;

SELECT pg_temp.append(1);
SELECT mako_take_snapshot(stream_id) FROM counter WHERE stream_no = 10001;
SELECT is(pg_temp.same_number(), '0', '1.00 is 1');
SELECT pg_temp.append(10);
SELECT mako_migrate('count@FV2024-10-01', 'count@FV2025-10-01');  -- run 2: 22
SELECT pg_temp.append(5);
SELECT mako_take_snapshot(stream_id) FROM counter WHERE stream_no = 10001;
SELECT mako_migrate('count@FV2025-10-01', 'count@FV2024-10-01');  -- run 3, back: 27
SELECT mako_migrate('count@FV2024-10-01', 'count@FV2025-10-01');  -- run 4, at the same event: 54
SELECT pg_temp.append(6);
SELECT mako_migrate('count@FV2025-10-01', 'count@FV2026-10-01', update_registry => false);  -- run 5 moves nothing
SELECT mako_migrate('count@FV2025-10-01', 'count@FV2026-10-01');  -- run 6: 60
SELECT pg_temp.append(7);
SELECT mako_take_snapshot(stream_id) FROM counter WHERE stream_no = 10001;

SELECT is((SELECT string_agg(state->>'count', ',' ORDER BY run_id) FROM mako.snapshot WHERE stream_no = 10001 AND run_id > 0), '22,27,54,60,60', 'the states are as foreseen');
SELECT is_empty(format('SELECT * FROM mako_verify(%s)', run_id), format('run %s is proven', run_id)) FROM generate_series(2, 6) AS run_id;
SELECT is_empty(format('SELECT * FROM mako_verify_snapshots(%L)', w), format('what was saved under %s is proven', w))
FROM unnest('{count@FV2024-10-01,count@FV2025-10-01,count@FV2026-10-01}'::text[]) AS w;

-- The stored state of one run is nothing that a later one is computed from.
SELECT is(pg_temp.after('UPDATE mako.snapshot SET state = ''{"count": 1}'' WHERE stream_no = 10002 AND run_id = 2', pg_temp.verify(2)),
          '10002|2|state differs|{"count": 1}|{"count": 22}|2', 'a spoilt snapshot of an earlier run');
SELECT is(pg_temp.after('UPDATE mako.snapshot SET state = ''{"count": 1}'' WHERE stream_no = 10002 AND run_id = 2', pg_temp.verify(6)), '',
          'does not spoil a later one, whose state is computed from the first event on');
SELECT is(pg_temp.after('UPDATE mako.snapshot SET state = ''{"count": 1}'' WHERE stream_no = 10002 AND run_id IN (2, 6)', pg_temp.verify(6)),
          '10002|4|state differs|{"count": 1}|{"count": 60}|2', 'but tells where it began');
SELECT is(pg_temp.after('DELETE FROM mako.snapshot WHERE stream_no = 10002 AND run_id = 2', pg_temp.verify(6)), '',
          'where an earlier move left no trace, the registered steps lead on');
SELECT is(pg_temp.after('UPDATE mako.event SET payload = ''{"n": 2000}'' WHERE stream_no = 10002 AND sequence_number = 2', pg_temp.verify(4)),
          '10002|3|cannot be recomputed: too much|||2', 'a refusal of today');
SELECT is(pg_temp.after('UPDATE mako.event SET payload = ''{"n": 11}'' WHERE stream_no = 10002 AND sequence_number = 2', pg_temp.verify(2)),
          '10002|2|state differs|{"count": 22}|{"count": 24}|2', 'an event''s payload');
SELECT is(pg_temp.after('UPDATE mako.snapshot SET state = ''{"count": 28}'' WHERE stream_no = 10001 AND run_id = 0 AND sequence_number = 3', pg_temp.verify_saved('count@FV2025-10-01')),
          '10001|3|state differs|{"count": 28}|3', 'a saved state behind a move');
SELECT is(pg_temp.after('UPDATE mako.snapshot SET sequence_number = 2 WHERE stream_no = 10001 AND run_id = 0 AND sequence_number = 5', pg_temp.verify_saved('count@FV2026-10-01')),
          '10001|2|the stream was not under the workflow there||', 'a saved state from before the move');
SELECT is(pg_temp.after('UPDATE mako.repointed SET sequence_number = 1 WHERE stream_no = 10003 AND run_id = 2', pg_temp.verify(2)),
          E'10003|1|beyond the head|1|0|\n||count of migrated streams differs|2|3|', 'a stream that moved without an event');

-- A small batch, and the events from a statement, find the same.
SET mako_migration.batch_size = 1;
SELECT is(pg_temp.after('UPDATE mako.snapshot SET state = ''{"count": 1}'' WHERE stream_no = 10002 AND run_id IN (2, 6)', pg_temp.verify(6)),
          '10002|4|state differs|{"count": 1}|{"count": 60}|2', 'in batches of one');
RESET mako_migration.batch_size;

-- Works where nothing can be written.
SET default_transaction_read_only = on;
SELECT is_empty('SELECT * FROM mako_verify(6)', 'in a read-only transaction');
SELECT is_empty(format('SELECT * FROM mako_verify_snapshots(%L)', :'fv1'), '... and the saved states');
RESET default_transaction_read_only;

-- A function that is another one now.
CREATE OR REPLACE FUNCTION t.double(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS
  $$ SELECT jsonb_build_object('count', 3 * (state->>'count')::int) $$;
SELECT matches(pg_temp.error('SELECT * FROM mako_verify(2)'), '^55000\|', 'a function that was changed without being registered ends the proof');

SELECT mako_register_migration('count@FV2024-10-01', 'count@FV2025-10-01', 't.double', replace => true);
SELECT is(pg_temp.rows(pg_temp.verify(2)), E'10001|2|state differs|{"count": 22}|{"count": 33}|2\n10002|2|state differs|{"count": 22}|{"count": 33}|2',
          'registered, it proves something else');

-- What was undone is not looked at, though it counts.
SELECT is(pg_temp.after('INSERT INTO mako.reverted VALUES (10001, 2, 98)', pg_temp.verify(2)),
          '10002|2|state differs|{"count": 22}|{"count": 33}|2', 'a reverted migration');

-- A history that spans two workflows and has no migration snapshot.
CREATE FUNCTION pg_temp.import() RETURNS void LANGUAGE sql AS $$
  INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('imported', 'count@FV2025-10-01');
  INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
  SELECT s.stream_no, n, CASE WHEN n < 3 THEN 'count@FV2024-10-01' ELSE 'count@FV2025-10-01' END, 'Added', '{"n": 1}'
  FROM mako.stream s, generate_series(1, 4) AS n WHERE s.stream_id = 'imported' $$;
SET session_replication_role = replica;
SELECT pg_temp.import();
RESET session_replication_role;

SELECT mako_adopt_events();
SELECT mako_migrate('count@FV2025-10-01', 'count@FV2026-10-01');  -- run 7: 3 * 2 + 2
SELECT is((SELECT state FROM mako.snapshot WHERE run_id = 7), '{"count": 8}', 'an imported history is migrated through the registered steps');
SELECT is_empty('SELECT * FROM mako_verify(7)', 'and proven through them');
SELECT is(pg_temp.after('UPDATE mako.event SET payload = ''{"n": 2}'' WHERE sequence_number = 1 AND workflow_id LIKE ''count@%'' AND stream_no NOT IN (10001, 10002)',
                        'SELECT stream_id, sequence_number, problem, stored, computed, differs_from FROM mako_verify(7)'),
          'imported|4|state differs|{"count": 8}|{"count": 11}|4', '... from its first event on');

-- The caller's rights: what he may not read, he is not told; where he may read columns only, a statement reads the events.
CREATE ROLE verifier;
GRANT USAGE ON SCHEMA mako, t, gpke TO verifier;
GRANT SELECT ON mako.stream, mako.snapshot, mako.repointed, mako.reverted, mako.migration_run TO verifier;
CREATE FUNCTION pg_temp.as_verifier(query text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  SET LOCAL ROLE verifier;
  EXECUTE query;
  RESET ROLE;
  RETURN NULL;
EXCEPTION WHEN OTHERS THEN
  RETURN SQLSTATE || '|' || SQLERRM;
END
$$;

SELECT alike(pg_temp.as_verifier('SELECT * FROM mako_verify(7)'), '42501|permission denied for table event%', 'without the events there is no proof');
GRANT SELECT (stream_no, sequence_number, workflow_id, event_type, schema_version, payload) ON mako.event TO verifier;
SELECT is(pg_temp.as_verifier('DO $x$ BEGIN ASSERT (SELECT count(*) FROM mako_verify(1)) = 0 AND (SELECT count(*) FROM mako_verify(2)) = 2; END $x$'), NULL,
          'with the columns that it needs there is');
ALTER TABLE mako.stream ENABLE ROW LEVEL SECURITY;
CREATE POLICY few ON mako.stream TO verifier USING (stream_no = 10001);
SELECT alike(pg_temp.as_verifier('SELECT * FROM mako_verify(7)'), '42501|query would be affected by row-level security policy for table "stream"%',
             'a proof of some rows would be none');
SELECT alike(pg_temp.as_verifier('SELECT * FROM mako_verify_snapshots(''count@FV2025-10-01'')'), '42501|query would be affected%', 'of saved states neither');
ALTER TABLE mako.stream DISABLE ROW LEVEL SECURITY;
DROP POLICY few ON mako.stream;

DROP OWNED BY verifier;
DROP ROLE verifier;

-- It can be stopped.
CREATE FUNCTION t.slow(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
  PERFORM pg_sleep(CASE WHEN current_setting('t.slow', true) = 'on' THEN 60 ELSE 0 END);
  RETURN payload;
END
$$;
SELECT mako_register_workflow(w, apply => 't.slow', initial_state => '{}') FROM unnest('{slow@FV2024-10-01,slow@FV2025-10-01}'::text[]) AS w;
SELECT mako_register_migrations('FV2024-10-01', 'FV2025-10-01', '{slow}');
SELECT mako_append(mako_spawn('slow@FV2024-10-01', 'aaaaaaaa-0000-4000-8000-000000000001'), 'slow@FV2024-10-01', 'E', '{}');
SELECT mako_migrate('slow@FV2024-10-01', 'slow@FV2025-10-01');  -- run 8
SELECT is_empty('SELECT * FROM mako_verify(8)', 'in time, nothing differs');
SET t.slow = on;
SET statement_timeout = 200;
\set ON_ERROR_STOP off
SELECT * FROM mako_verify(8);
\set stopped :SQLSTATE
\set ON_ERROR_STOP on
RESET statement_timeout;
SELECT is(:'stopped'::text, '57014', 'a proof is stopped where it is');
RESET t.slow;

-- Without apply.
SELECT mako_register_workflow('plain@FV2024-10-01');
SELECT mako_register_workflow('plain@FV2025-10-01', state_schema_version => 2);
SELECT mako_register_workflow('plain@FV2026-10-01', apply => 't.apply', initial_state => '{"count": 0}');
SELECT mako_register_migration('plain@FV2024-10-01', 'plain@FV2025-10-01', 't.double');
SELECT mako_register_migration('plain@FV2025-10-01', 'plain@FV2026-10-01');
SELECT setval(pg_get_serial_sequence('mako.stream', 'stream_no'), 20000);
SELECT mako_spawn('plain@FV2024-10-01', 'aaaaaaaa-0000-4000-8000-000000000001', format('cccccccc-0000-4000-8000-00000000000%s', i)::uuid) FROM generate_series(1, 2) AS i;
SELECT mako_append(stream_id, workflow_id, 'Added', '{"n": 4}') FROM mako.stream WHERE workflow_id LIKE 'plain@%';
SELECT mako_save_snapshot(stream_id, 1, workflow_id, 1, '{"count": 4}') FROM mako.stream WHERE workflow_id LIKE 'plain@%';
SELECT mako_migrate('plain@FV2024-10-01', 'plain@FV2025-10-01');  -- run 9, from what was saved: 12
SELECT mako_append(stream_id, workflow_id, 'Added', '{"n": 9}') FROM mako.stream WHERE workflow_id LIKE 'plain@%';
SELECT mako_migrate('plain@FV2025-10-01', 'plain@FV2026-10-01');  -- run 10 takes the boundary along
SELECT is((SELECT string_agg(run_id || ':' || sequence_number, ' ' ORDER BY run_id) FROM (SELECT run_id, sequence_number, stream_no FROM mako.snapshot UNION ALL
           SELECT run_id, sequence_number, stream_no FROM mako.repointed) x WHERE stream_no = 20001), '0:1 9:1 10:1 10:2', 'run 10 repointed, with a copy of the boundary');
SELECT is_empty(format('SELECT * FROM mako_verify(%s)', run_id), format('run %s is proven', run_id)) FROM generate_series(9, 10) AS run_id;
SELECT is(pg_temp.after('DELETE FROM mako.snapshot WHERE stream_no = 20001 AND run_id = 0', pg_temp.verify(9)),
          '20001|1|cannot be recomputed: workflow "plain@FV2024-10-01" has no apply function, and its application''s snapshot at sequence number 1 is not there|||1',
          'what the application saved is needed');
SELECT is(pg_temp.after('DELETE FROM mako.snapshot WHERE stream_no = 20001 AND run_id = 0', pg_temp.verify(10)), '', 'later, what the run made of it will do');
SELECT is(pg_temp.after('UPDATE mako.repointed SET sequence_number = 1 WHERE stream_no = 20001 AND run_id = 10', pg_temp.verify(10)),
          '20001|1|not where the workflow changed|||', 'a repointing''s number');
SELECT matches(pg_temp.error('SELECT * FROM mako_verify_snapshots(''plain@FV2024-10-01'')'), '^55000\|workflow "plain@FV2024-10-01" has no apply function', 'nothing to fold with');

-- What was saved after a migration that was undone is what the migration gave. It is nothing that the next one is measured by.
SELECT mako_register_workflow(w, apply => 't.apply', initial_state => '{"count": 0}') FROM unnest('{undone@FV2024-10-01,undone@FV2025-10-01}'::text[]) AS w;
SELECT mako_register_migration('undone@FV2024-10-01', 'undone@FV2025-10-01', 't.double');
SELECT mako_spawn('undone@FV2024-10-01', 'aaaaaaaa-0000-4000-8000-000000000001') AS undone \gset
SELECT mako_append(:'undone', 'undone@FV2024-10-01', 'Added', '{"n": 4}');
SELECT run_id AS wrong FROM mako_migrate('undone@FV2024-10-01', 'undone@FV2025-10-01') \gset
SELECT mako_take_snapshot(:'undone');
SELECT stream_no AS undone_no FROM mako.stream WHERE stream_id = :'undone' \gset
SELECT mako_revert(:wrong, 'not 12');
SELECT is(pg_temp.rows(pg_temp.verify_saved('undone@FV2025-10-01')), NULL, 'a state that was saved after a migration and outlives it');
SELECT is(pg_temp.after(format('UPDATE mako.snapshot SET state = ''{"count": 13}'' WHERE stream_no = %s AND run_id = 0', :undone_no), pg_temp.verify_saved('undone@FV2025-10-01')),
          format('%s|1|the stream was not under the workflow there||', :undone_no), 'which no other state is');
CREATE OR REPLACE FUNCTION t.double(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS
  $$ SELECT jsonb_build_object('count', 2 * (state->>'count')::int) $$;
SELECT mako_register_migration('undone@FV2024-10-01', 'undone@FV2025-10-01', 't.double', replace => true);
SELECT run_id AS right FROM mako_migrate('undone@FV2024-10-01', 'undone@FV2025-10-01') \gset
SELECT mako_append(:'undone', 'undone@FV2025-10-01', 'Added', '{"n": 1}');
SELECT mako_take_snapshot(:'undone');
SELECT is((mako_state(:'undone')).state, '{"count": 9}', 'migrated again, and gone on');
SELECT is_empty(format('SELECT * FROM mako_verify(%s)', :right), 'it is proven');
SELECT is(pg_temp.rows(pg_temp.verify_saved('undone@FV2025-10-01')), NULL, '... and so is what was saved before and after');

-- Runs that are none.
SELECT is(pg_temp.error('SELECT * FROM mako_verify(99)'), '42704|migration run 99 does not exist|The table mako.migration_run has all runs.', 'a run that does not exist');
SELECT is(pg_temp.error('SELECT * FROM mako_verify(NULL)'), '22004|run_id must not be null', 'no run');
SET session_replication_role = replica;
INSERT INTO mako.migration_run (kind, source_wf, target_wf, path, update_registry, in_flight_only, fingerprint, definitions, extension_version, started_at, finished_at, migrated)
VALUES ('batched', 'a', 'b', '{}', true, false, '', '{}', '', now(), NULL, 0), ('revert', 'a', 'b', '{}', true, false, '', '{}', '', now(), now(), 0);
RESET session_replication_role;
SELECT matches(pg_temp.error('SELECT * FROM mako_verify(14)'), '^55000\|migration run 14 is not finished', 'one that is not finished');
SELECT matches(pg_temp.error('SELECT * FROM mako_verify(15)'), '^55000\|run 15 undid another one', 'one that undid another one');

SELECT * FROM finish();
