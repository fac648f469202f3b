-- mako_migrate_batched() and mako_migrate_version_batched(): the same as mako_migrate() and mako_migrate_version(), batch by batch; going on
-- after an error; what is refused; and what mako_progress shows of runs that nobody is at.
-- Runs in an empty database.

CREATE EXTENSION pgtap;
CREATE EXTENSION mako_migration;

SELECT plan(71);

SELECT mako_create_store();
\ir include/helpers.sql

-- A call cannot be made inside a function, which would catch its error: its outcome is what psql remembers.
\set ON_ERROR_STOP 0
\set fv1 'FV2024-10-01'
\set fv2 'FV2025-10-01'

CREATE SCHEMA b;
CREATE FUNCTION b.apply(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE event_type WHEN 'Bad' THEN mako_reject('bad event') ELSE state || payload END $$;
CREATE FUNCTION b.migrate(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE state->'n' WHEN '9' THEN mako_reject('nine') ELSE state || '{"v": 2}' END $$;
CREATE FUNCTION b.in_flight(state jsonb) RETURNS boolean LANGUAGE sql STABLE AS $$ SELECT NOT state ? 'closed' $$;

-- Three workflows: x with everything, y with an identity step and no apply, z is exempt.
SELECT mako_register_workflow('x@' || v, 'b.apply', in_flight => 'b.in_flight', initial_state => '{}') FROM unnest(ARRAY[:'fv1', :'fv2']) AS v;
SELECT mako_register_workflow(n || '@' || v) FROM unnest(ARRAY['y', 'z']) AS n, unnest(ARRAY[:'fv1', :'fv2']) AS v;
SELECT mako_register_migration('x@FV2024-10-01', 'x@FV2025-10-01', 'b.migrate');
SELECT mako_register_migration('y@FV2024-10-01', 'y@FV2025-10-01');
SELECT mako_exempt('z@FV2024-10-01', 'ends');

-- 200 streams of two tenants and of none, some without events, some that fail in apply or in migrate, some that are closed.
\set tenant1 aaaaaaaa-0000-4000-8000-000000000001
CREATE FUNCTION b.fill(first int, last int) RETURNS void LANGUAGE sql AS $$
  INSERT INTO mako.stream (stream_id, tenant_id, workflow_id)
  SELECT 's' || i, CASE WHEN i % 3 > 0 THEN ('aaaaaaaa-0000-4000-8000-00000000000' || i % 3)::uuid END,
         (ARRAY['x', 'x', 'y', 'z'])[1 + i % 4] || '@FV2024-10-01'
  FROM generate_series(first, last) AS i;
  INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
  SELECT stream_no, e, workflow_id, CASE WHEN substr(stream_id, 2)::int % 20 = 4 AND e = 2 THEN 'Bad' ELSE 'Good' END,
         jsonb_build_object('n', substr(stream_id, 2)::int % 24) || CASE substr(stream_id, 2)::int % 16 WHEN 12 THEN '{"closed": true}' ELSE '{}' END::jsonb
  FROM mako.stream, generate_series(1, substr(stream_id, 2)::int % 5) AS e WHERE substr(stream_id, 2)::int BETWEEN first AND last;
$$;
SELECT b.fill(1, 200);

-- What is left: heads, and snapshots without the numbers of runs.
CREATE VIEW b.outcome AS
SELECT s.stream_no, s.stream_id, s.workflow_id, s.version, n.sequence_number, n.state
FROM mako.stream s LEFT JOIN mako.snapshot n ON n.stream_no = s.stream_no;

-- The outcome of single runs, which are undone: what batched ones are compared with.
BEGIN;
CREATE TEMPORARY TABLE single AS SELECT * FROM mako_migrate_version(:'fv1', :'fv2');
CREATE TEMPORARY TABLE single_outcome AS SELECT * FROM b.outcome;
CREATE TEMPORARY TABLE single_repointed AS SELECT stream_no, sequence_number FROM mako.repointed;
SELECT string_agg(format('%s|%s|%s|%s', migrated, skipped, failed, errors), ' ' ORDER BY source_wf COLLATE "C") AS single_reports FROM single \gset
SELECT md5(string_agg(o::text, ' ' ORDER BY stream_no)) AS single_outcome FROM single_outcome o \gset
SELECT md5(string_agg(o::text, ' ' ORDER BY stream_no)) AS single_repointed FROM single_repointed o \gset
-- Their numbers are gone for good: the first batched run is the third.
ROLLBACK;

----------------------------------------------------------------------------------------------------
-- What is refused
----------------------------------------------------------------------------------------------------

BEGIN;
CALL mako_migrate_batched('x@FV2024-10-01', 'x@FV2025-10-01');
ROLLBACK;
SELECT is(:'LAST_ERROR_SQLSTATE' || ' ' || :'LAST_ERROR_MESSAGE', '2D000 mako_migrate_batched() cannot run inside a transaction block', 'not inside a transaction block');
SELECT is(pg_temp.error($$ CALL mako_migrate_batched('x@FV2024-10-01', 'x@FV2025-10-01') $$),
          '2D000|mako_migrate_batched() cannot run inside a transaction block|It commits after every batch.'
          '|Use CALL outside of BEGIN and COMMIT, and of functions and blocks with EXCEPTION.', 'nor in a function');
DO $$ DECLARE r mako_migration_report[]; BEGIN BEGIN CALL mako_migrate_version_batched('FV2024-10-01', 'FV2025-10-01', reports => r); EXCEPTION WHEN division_by_zero THEN NULL; END; END $$;
SELECT is(:'LAST_ERROR_SQLSTATE' || ' ' || :'LAST_ERROR_MESSAGE', '2D000 mako_migrate_version_batched() cannot run inside a transaction block', 'nor in a block with EXCEPTION');

CALL mako_migrate_batched('x@FV2024-10-01', 'x@FV2024-10-01');
SELECT is(:'LAST_ERROR_SQLSTATE' || ' ' || :'LAST_ERROR_MESSAGE', '22023 source and target must differ', 'source and target must differ');
CALL mako_migrate_batched(NULL, 'x@FV2025-10-01');
SELECT is(:'LAST_ERROR_SQLSTATE' || ' ' || :'LAST_ERROR_MESSAGE', '22004 source_wf must not be null', 'a source is needed');
CALL mako_migrate_version_batched('FV2024-10-01', NULL);
SELECT is(:'LAST_ERROR_SQLSTATE' || ' ' || :'LAST_ERROR_MESSAGE', '22004 target_fv must not be null', 'a target is needed');
CALL mako_migrate_batched('x@FV2024-10-01', 'x@FV2025-10-01', 0);
SELECT is(:'LAST_ERROR_SQLSTATE' || ' ' || :'LAST_ERROR_MESSAGE', '22023 batch_size must be between 1 and 1000000', 'a batch has a stream');
CALL mako_migrate_batched('x@FV2024-10-01', 'x@FV2025-10-01', NULL);
SELECT is(:'LAST_ERROR_SQLSTATE' || ' ' || :'LAST_ERROR_MESSAGE', '22004 batch_size must not be null', 'and a size');
CALL mako_migrate_batched('x@FV2024-10-01', 'x@FV2025-10-01', max_errors => -1);
SELECT is(:'LAST_ERROR_SQLSTATE' || ' ' || :'LAST_ERROR_MESSAGE', '22023 max_errors must not be negative', 'max_errors is a number of streams');
CALL mako_migrate_batched('x@FV2024-10-01', 'x@FV2025-10-01', pause => '-1 s');
SELECT is(:'LAST_ERROR_SQLSTATE' || ' ' || :'LAST_ERROR_MESSAGE', '22023 pause must not be negative, or longer than 24 days', 'a pause lasts');
CALL mako_migrate_batched('x@FV2024-10-01', 'x@FV2025-10-01', lock_timeout => '1 month');
SELECT is(:'LAST_ERROR_SQLSTATE' || ' ' || :'LAST_ERROR_MESSAGE', '22023 lock_timeout must not be negative, or longer than 24 days', 'but not for ever');
CALL mako_migrate_batched('x@FV2024-10-01', 'nobody@FV2025-10-01');
SELECT is(:'LAST_ERROR_SQLSTATE'::text, '42704', 'a target that is not registered is refused');
CALL mako_migrate_batched('x@FV2024-10-01', 'x@FV2025-10-01', expect => 'another');
SELECT is(:'LAST_ERROR_SQLSTATE' || ' ' || :'LAST_ERROR_MESSAGE', '55000 the definitions are not those that were expected', 'so are other definitions than expected');
CALL mako_migrate_version_batched('FV2024-10-01', 'FV2025-10-01', expect => 'another');
SELECT is(:'LAST_ERROR_SQLSTATE' || ' ' || :'LAST_ERROR_MESSAGE', '55000 the definitions are not those that were expected', 'of a version, too');
CALL mako_migrate_version_batched('FV2024-10-01', 'FV2030-10-01');
SELECT is(:'LAST_ERROR_SQLSTATE'::text, '42704', 'and a version that nothing is registered with');
BEGIN;
SET TRANSACTION READ ONLY;
CALL mako_migrate_batched('x@FV2024-10-01', 'x@FV2025-10-01');
ROLLBACK;
SELECT is(:'LAST_ERROR_SQLSTATE'::text, '25006', 'and a read-only transaction');
SELECT mako_unexempt('z@FV2024-10-01');
CALL mako_migrate_version_batched('FV2024-10-01', 'FV2025-10-01');
SELECT is(:'LAST_ERROR_SQLSTATE' || ' ' || :'LAST_ERROR_MESSAGE', '55000 workflows of format version "FV2024-10-01" in flight are undecided', 'and undecided workflows');
SELECT mako_exempt('z@FV2024-10-01', 'ends');

CREATE ROLE mako_batched_nobody;
GRANT USAGE ON SCHEMA public TO mako_batched_nobody;
SET ROLE mako_batched_nobody;
CALL mako_migrate_batched('x@FV2024-10-01', 'x@FV2025-10-01');
\set state :LAST_ERROR_SQLSTATE
SELECT count(*) AS shown FROM mako_progress \gset
RESET ROLE;
SELECT is(:'state'::text, '42501', 'nobody calls it who is not granted it');
SELECT is(:'shown'::text, '0', 'though everybody may ask for progress');
GRANT EXECUTE ON PROCEDURE mako_migrate_batched TO mako_batched_nobody;
GRANT USAGE ON SCHEMA mako, b TO mako_batched_nobody;
GRANT SELECT ON ALL TABLES IN SCHEMA mako TO mako_batched_nobody;
GRANT INSERT, UPDATE ON mako.migration_run, mako.migration_batch TO mako_batched_nobody;
SET ROLE mako_batched_nobody;
CALL mako_migrate_batched('x@FV2024-10-01', 'x@FV2025-10-01');
\set state :LAST_ERROR_SQLSTATE
RESET ROLE;
SELECT is(:'state'::text, '42501', 'nor who cannot write what it writes');
SELECT is_empty('SELECT * FROM mako.migration_run', 'nothing of all this is in the audit trail');
SELECT is_empty($$ SELECT * FROM pg_locks WHERE locktype = 'advisory' $$, 'and no lock is left');
DROP OWNED BY mako_batched_nobody;
DROP ROLE mako_batched_nobody;

----------------------------------------------------------------------------------------------------
-- A whole version, interrupted by errors
----------------------------------------------------------------------------------------------------

SET mako_migration.scan_order = key;
CALL mako_migrate_version_batched(:'fv1', :'fv2', 7, max_errors => 5, reason => 'cutover');
RESET mako_migration.scan_order;
SELECT is(:'LAST_ERROR_SQLSTATE' || ' ' || :'LAST_ERROR_MESSAGE', 'MK006 more than 5 streams could not be migrated', 'too many errors end it');
SELECT is(pg_temp.rows($$ SELECT kind, source_wf, batch_size, through_stream_no > 190, finished_at IS NULL, migrated > 0, failed BETWEEN 3 AND 5
                          FROM mako.migration_run WHERE source_wf ~ 'x' $$), 'batched|x@FV2024-10-01|7|true|true|true|true', 'what the batches before have done stays');
SELECT is((SELECT count(*) FROM mako.snapshot), (SELECT migrated FROM mako.migration_run WHERE source_wf ~ 'x'), 'as many as the run counts');
SELECT is((SELECT count(*) FROM mako.migration_error), (SELECT failed FROM mako.migration_run WHERE source_wf ~ 'x'), 'and as many errors');
SELECT is(pg_temp.rows($$ SELECT kind, source_wf, done = total, rate, estimated_end, pid FROM mako_progress ORDER BY run_id $$),
          E'batched|x@FV2024-10-01|false|||\nbatched|y@FV2024-10-01|false|||', 'mako_progress shows both runs, at which nobody is');
SELECT is_empty($$ SELECT * FROM pg_locks WHERE locktype = 'advisory' $$, 'no lock is left by an error');
SELECT is((SELECT query FROM pg_stat_activity WHERE pid = pg_backend_pid()) ~ '^SELECT is', true, 'the session shows its statements again');

-- The same again, with more errors allowed.
CALL mako_migrate_version_batched(:'fv1', :'fv2', 11, reason => NULL) \gset
SELECT is((SELECT string_agg(format('%s|%s|%s|%s', migrated, skipped, failed, errors), ' ' ORDER BY source_wf COLLATE "C")
           FROM unnest(:'reports'::mako_migration_report[])), :'single_reports', 'called again it goes on, and reports what one single run would');
SELECT is((SELECT md5(string_agg(o::text, ' ' ORDER BY stream_no)) FROM b.outcome o), :'single_outcome', 'with the same heads and snapshots');
SELECT is((SELECT md5(string_agg((stream_no, sequence_number)::text, ' ' ORDER BY stream_no)) FROM mako.repointed), :'single_repointed', 'and the same moves without snapshots');
SELECT is(pg_temp.rows('SELECT source_wf, reason, batch_size, max_errors, finished_at IS NOT NULL FROM mako.migration_run ORDER BY run_id'),
          E'x@FV2024-10-01|cutover|11||true\ny@FV2024-10-01|cutover|11||true', 'by the same runs, which keep their reason');
SELECT is_empty($$ SELECT r.run_id FROM mako.migration_run r JOIN mako.migration_batch b USING (run_id)
                   GROUP BY r.run_id HAVING sum(b.migrated) <> r.migrated OR sum(b.failed) <> r.failed OR max(b.batch_no) <> count(*) $$, 'whose batches add up');
SELECT is_empty('SELECT * FROM mako_progress', 'nothing is under way');
SELECT is(pg_temp.rows('SELECT count(*), count(DISTINCT (run_id, error_no)), count(DISTINCT stream_no) FROM mako.migration_error'),
          (SELECT format('%s|%s|%s', f, f, f) FROM (SELECT sum(failed) AS f FROM mako.migration_run) r), 'no stream was tried twice');

-- And once more: another run, which finds what had failed.
CALL mako_migrate_batched('x@FV2024-10-01', 'x@FV2025-10-01') \gset
SELECT is((SELECT format('%s|%s', (r).run_id, (r).migrated) FROM (SELECT :'report'::mako_migration_report AS r) q), '5|0', 'a finished run is not taken up again');
SELECT is((SELECT failed FROM mako.migration_run WHERE run_id = 5), (SELECT failed FROM mako.migration_run WHERE run_id = 3), 'another one meets the same errors');

----------------------------------------------------------------------------------------------------
-- Options and definitions
----------------------------------------------------------------------------------------------------

SELECT b.fill(201, 400);
CALL mako_migrate_batched('x@FV2024-10-01', 'x@FV2025-10-01', 5, tenant_id => :'tenant1', max_errors => 3);
SELECT is(:'LAST_ERROR_SQLSTATE'::text, 'MK006', 'a tenant''s streams, until there are too many errors');
SELECT is_empty($$ SELECT * FROM mako.snapshot n JOIN mako.stream s USING (stream_no) WHERE n.run_id = 6 AND s.tenant_id IS DISTINCT FROM 'aaaaaaaa-0000-4000-8000-000000000001' $$,
                'nobody else''s are touched');
CALL mako_migrate_batched('x@FV2024-10-01', 'x@FV2025-10-01', 5, in_flight_only => true) \gset
SELECT is((SELECT finished_at IS NOT NULL FROM mako.migration_run WHERE run_id = 6), true, 'with other options the unfinished run is closed');
SELECT is((:'report'::mako_migration_report).run_id, 7::bigint, 'and another one begins');
SELECT is(pg_temp.rows('SELECT run_id, closed_by, skipped IS NULL FROM mako.migration_run WHERE run_id IN (5, 6, 7) ORDER BY run_id'), E'5||false\n6|7|true\n7||false',
          'the audit trail tells which one took its place, and does not count what it skipped');
SELECT is((SELECT count(*) FROM mako.stream s JOIN mako.event v USING (stream_no) WHERE s.workflow_id = 'x@FV2024-10-01' AND v.sequence_number = s.version
             AND NOT EXISTS (SELECT FROM mako.migration_error e WHERE e.run_id = 7 AND e.stream_no = s.stream_no) AND NOT v.payload ? 'closed'), 0::bigint,
          'which leaves nothing but what has failed and what is closed');
SELECT is_empty($$ SELECT * FROM mako.migration_error e JOIN mako.snapshot n USING (stream_no) $$, 'no stream has both failed and been migrated');

SELECT b.fill(401, 500);
CALL mako_migrate_batched('x@FV2024-10-01', 'x@FV2025-10-01', 5, max_errors => 0);
CREATE OR REPLACE FUNCTION b.migrate(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT state || '{"v": 3}' $$;
CALL mako_migrate_batched('x@FV2024-10-01', 'x@FV2025-10-01', 5);
SELECT is(:'LAST_ERROR_SQLSTATE'::text, '55000', 'a function that was replaced is refused as ever');
SELECT mako_register_migration('x@FV2024-10-01', 'x@FV2025-10-01', 'b.migrate', replace => true);
CALL mako_migrate_batched('x@FV2024-10-01', 'x@FV2025-10-01', 5) \gset
SELECT is((SELECT finished_at IS NOT NULL FROM mako.migration_run WHERE run_id = 8), true, 'when it is registered, the unfinished run is closed');
SELECT is((SELECT count(*) FROM mako.snapshot WHERE run_id = 9 AND state->'v' = '3') > 0, true, 'and the new function is used');

----------------------------------------------------------------------------------------------------
-- Other runs while one is unfinished
----------------------------------------------------------------------------------------------------

-- Streams of two versions by turns, the fifth of which stops the run; the fold keeps the version, so that each step shows.
CREATE FUNCTION b.step(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN state ? 'poison' THEN mako_reject('poison') ELSE jsonb_set(state, '{v}', to_jsonb((state->>'v')::int + 1)) END $$;
SELECT mako_register_workflow('o@FV202' || v || '-10-01', 'b.apply', initial_state => jsonb_build_object('v', v)) FROM generate_series(3, 5) AS v;
SELECT mako_register_migration('o@FV202' || v || '-10-01', 'o@FV202' || v + 1 || '-10-01', 'b.step') FROM generate_series(3, 4) AS v;
INSERT INTO mako.stream (stream_id, workflow_id) SELECT 'o' || i, 'o@FV202' || CASE WHEN i IN (2, 6) THEN 3 ELSE 4 END || '-10-01' FROM generate_series(1, 7) AS i;
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
SELECT stream_no, e, workflow_id, 'Good', CASE stream_id WHEN 'o5' THEN '{"poison": 1}' ELSE '{}' END::jsonb
FROM mako.stream, generate_series(1, 2) AS e WHERE stream_id ~ '^o';

CREATE FUNCTION pg_temp.findings() RETURNS SETOF text LANGUAGE sql AS $$
  SELECT format('run %s: %s', r.run_id, v) FROM mako.migration_run r, mako_verify(r.run_id) AS v WHERE r.source_wf ~ '^o@' AND r.kind <> 'revert'
  UNION ALL SELECT f::text FROM mako_store_finding() AS f WHERE f.severity = 'error' $$;
CREATE FUNCTION pg_temp.story(stream_id text) RETURNS text LANGUAGE sql AS $$
  SELECT string_agg(format('%s by %s to %s', kind, run_id, substr(workflow_id, 1, 8)), ', ' ORDER BY n)
  FROM mako_history(stream_id) WITH ORDINALITY AS h (at, kind, sequence_number, workflow_id, event_type, run_id, role, reason, n) WHERE run_id > 0 $$;

-- Brought to the source in between.
CALL mako_migrate_batched('o@FV2024-10-01', 'o@FV2025-10-01', 1, max_errors => 0);
SELECT is(:'LAST_ERROR_SQLSTATE'::text, 'MK006', 'a run stops in the middle');
SELECT max(run_id) AS stopped FROM mako.migration_run \gset
SELECT is(pg_temp.rows(format('SELECT skipped, closed_by FROM mako.migration_run WHERE run_id = %s', :stopped)), '|', 'what it skips is counted at its end');
SELECT is((SELECT migrated FROM mako_migrate('o@FV2023-10-01', 'o@FV2024-10-01')), 2::bigint, 'another one brings streams to its source');
CALL mako_migrate_batched('o@FV2024-10-01', 'o@FV2025-10-01', 1) \gset
SELECT is((SELECT format('%s %s', (r).run_id - :stopped, (r).migrated) FROM (SELECT :'report'::mako_migration_report AS r) q), '2 3',
          'called again, a new run migrates those, too');
SELECT is(pg_temp.rows($$ SELECT stream_id, s.state->'v' FROM mako.stream, mako_state(stream_id) AS s WHERE stream_id IN ('o1', 'o2', 'o7') ORDER BY stream_no $$),
          E'o1|5\no2|5\no7|5', 'their states are the last ones');
SELECT is_empty('SELECT pg_temp.findings()', 'and what is recorded can be computed again');
SELECT is(pg_temp.story('o2'), format('migrated by %s to o@FV2024, migrated by %s to o@FV2025', :stopped + 1, :stopped + 2), 'their stories are in order');
SELECT is(pg_temp.rows(format('SELECT migrated, failed, errors[1].hint FROM mako_revert(%s)', :stopped + 1)),
          format('0|2|Revert run %s first.', :stopped + 2), 'they go back in order only');
SELECT is(pg_temp.rows(format('SELECT migrated, skipped, failed FROM mako_revert(%s)', run_id)), counts, 'the last run first')
FROM (VALUES (:stopped + 2, '3|0|0'), (:stopped + 1, '2|0|0'), (:stopped, '3|0|0')) AS r (run_id, counts);
SELECT is(pg_temp.rows($$ SELECT stream_id, s.state->'v' FROM mako.stream, mako_state(stream_id) AS s WHERE stream_id IN ('o1', 'o2', 'o7') ORDER BY stream_no $$),
          E'o1|4\no2|3\no7|4', 'and are where they were');

-- Brought back to it, and left where they are with a snapshot.
CALL mako_migrate_batched('o@FV2024-10-01', 'o@FV2025-10-01', 1, max_errors => 0);
SELECT max(run_id) AS stopped FROM mako.migration_run \gset
SELECT migrated AS copied FROM mako_migrate('o@FV2024-10-01', 'o@FV2025-10-01', update_registry => false) \gset
CALL mako_migrate_batched('o@FV2024-10-01', 'o@FV2025-10-01', 1) \gset
SELECT is((SELECT format('%s %s %s', :copied, (r).run_id - :stopped, (r).migrated) FROM (SELECT :'report'::mako_migration_report AS r) q), '1 2 1',
          'neither does it go on behind a run that has left the heads alone');
SELECT is_empty('SELECT pg_temp.findings()', 'all of which can be computed again');

----------------------------------------------------------------------------------------------------
-- When
----------------------------------------------------------------------------------------------------

INSERT INTO mako.stream (stream_id, workflow_id) SELECT 'o' || i, 'o@FV2024-10-01' FROM generate_series(8, 11) AS i;
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
SELECT stream_no, 1, workflow_id, 'Good', CASE stream_id WHEN 'o11' THEN '{"poison": 1}' ELSE '{}' END::jsonb
FROM mako.stream WHERE stream_id ~ '^o' AND version = 0;
CALL mako_migrate_batched('o@FV2024-10-01', 'o@FV2025-10-01', 1, pause => '0.2 s');
SELECT max(run_id) AS paused FROM mako.migration_run \gset
SELECT is(pg_temp.rows(format($$ SELECT count(*), bool_and(n.taken_at >= p.finished_at + interval '0.2 s' AND n.taken_at <= b.started_at)
                                 FROM mako.migration_batch p
                                 JOIN mako.migration_batch b ON b.run_id = p.run_id AND b.batch_no = p.batch_no + 1
                                 JOIN mako.snapshot n ON n.run_id = b.run_id AND n.stream_no = b.last_stream_no
                                 WHERE p.run_id = %s $$, :paused)), '3|true', 'a snapshot is as old as its batch, not as the pause before');
SELECT is((SELECT at FROM mako_history('o11') WHERE kind = 'failed'), (SELECT max(started_at) FROM mako.migration_batch WHERE run_id = :paused),
          'a stream fails when its batch does, not when the run began');

-- A single run from the same source is not at the one that is unfinished.
CALL mako_migrate_batched('o@FV2024-10-01', 'o@FV2025-10-01', 1, max_errors => 0);
BEGIN;
SELECT FROM mako_migrate('o@FV2024-10-01', 'o@FV2025-10-01');
SELECT pg_temp.rows('SELECT source_wf, kind, pid FROM mako_progress') AS shown \gset
ROLLBACK;
SELECT is(:'shown'::text, 'o@FV2024-10-01|batched|', 'nobody is at a run while a single one from the same source is under way');

-- Somebody else goes on with it.
CREATE ROLE mako_batched_other SUPERUSER;
SET SESSION AUTHORIZATION mako_batched_other;
CALL mako_migrate_batched('o@FV2024-10-01', 'o@FV2025-10-01', 1);
RESET SESSION AUTHORIZATION;
DROP ROLE mako_batched_other;
SELECT is(pg_temp.rows('SELECT DISTINCT r.session_role = session_user, b.session_role, b.effective_role
                        FROM mako.migration_run r JOIN mako.migration_batch b USING (run_id) WHERE r.run_id = (SELECT max(run_id) FROM mako.migration_run)'),
          'true|mako_batched_other|mako_batched_other', 'the run tells who began it, its batches who went on with it');

-- Folded ahead, streams that fail come before the others, so that a run that too many end has written nothing.
SELECT mako_register_workflow('p@FV202' || v || '-10-01', 'b.apply', initial_state => jsonb_build_object('v', v)) FROM generate_series(4, 5) AS v;
SELECT mako_register_migration('p@FV2024-10-01', 'p@FV2025-10-01', 'b.step');
INSERT INTO mako.stream (stream_id, workflow_id) SELECT 'p' || i, 'p@FV2024-10-01' FROM generate_series(1, 40) AS i;
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
SELECT stream_no, 1, workflow_id, 'Good', CASE WHEN stream_id ~ '[05]$' THEN '{"poison": 1}' ELSE '{}' END::jsonb FROM mako.stream WHERE stream_id ~ '^p';
SET mako_migration.scan_order = heap;
CALL mako_migrate_batched('p@FV2024-10-01', 'p@FV2025-10-01', 3, max_errors => 5);
SELECT is(:'LAST_ERROR_SQLSTATE'::text, 'MK006', 'too many errors end a run that folds ahead');
SELECT is(pg_temp.rows($$ SELECT migrated, failed FROM mako.migration_run WHERE source_wf ~ '^p' $$), '0|3', '... with what its batches before had found, and nothing written');
CALL mako_migrate_batched('p@FV2024-10-01', 'p@FV2025-10-01', 3, max_errors => 8) \gset
SELECT is(pg_temp.rows($$ SELECT migrated, failed FROM mako.migration_run WHERE source_wf ~ '^p' $$), '32|8', '... and goes on when more are allowed');
SELECT is(pg_temp.rows($$ SELECT count(*), count(DISTINCT stream_id) FROM mako.migration_error e JOIN mako.migration_run r USING (run_id) WHERE r.source_wf ~ '^p' $$), '8|8',
          '... without trying those again that have failed');
SELECT is_empty('SELECT pg_temp.findings()', '... to states that can be computed again');
RESET mako_migration.scan_order;

SELECT * FROM finish();
