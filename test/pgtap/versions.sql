-- A whole format version: mako_migrate_version() against single migrations, what stops it, and how the version ends: coverage,
-- exemptions, retirement.
-- Runs in an empty database. The environment variable MAKO_STREAMS says how many streams, at least 2,000.

CREATE EXTENSION pgtap;
CREATE EXTENSION mako_migration;

SELECT plan(107);

\set streams `echo ${MAKO_STREAMS:-5000}`
\set fv1 FV2024-10-01
\set fv2 FV2025-10-01

SELECT mako_create_store();
-- Runs that are rolled back look like empty tables to an autovacuum that comes at the wrong moment.
SELECT format('ALTER TABLE %s SET (autovacuum_enabled = off)', oid::regclass) FROM pg_class WHERE relnamespace = 'mako'::regnamespace AND relkind = 'r' \gexec

\ir include/helpers.sql

----------------------------------------------------------------------------------------------------
-- Seventy workflows
----------------------------------------------------------------------------------------------------

-- A state is a status and a number. Two things go wrong: apply refuses a bad event, and migrate the number 7.
CREATE SCHEMA v;
CREATE FUNCTION v.apply(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE event_type
    WHEN 'Opened' THEN jsonb_build_object('status', 'Open', 'n', payload->'n')
    WHEN 'Moved' THEN state || jsonb_build_object('n', payload->'n')
    WHEN 'Closed' THEN state || '{"status": "Closed"}'
    WHEN 'Bad' THEN mako_reject('bad event')
  END $$;
CREATE FUNCTION v.migrate(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE state->'n' WHEN '7' THEN mako_reject('seven') ELSE state || '{"v": 2}' END $$;
CREATE FUNCTION v.in_flight(state jsonb) RETURNS boolean LANGUAGE sql STABLE AS $$ SELECT state->>'status' <> 'Closed' $$;

-- w10, w20 ... have apply and a step with a function, w05, w15 ... apply and an identity step, all others neither. w20, w40 ...
-- and w25, w45 ... know what is in flight. w68 goes by way of a version in between.
CREATE TEMPORARY TABLE wf AS
SELECT n, 'w' || lpad(n::text, 2, '0') AS name, n % 5 = 0 AS has_apply, n % 10 = 0 AS has_function,
       n % 20 IN (0, 5) AS has_predicate, n IN (3, 33) AS exempt
FROM generate_series(1, 70) AS n;

SELECT count(mako_register_workflow(name || '@' || version, CASE WHEN has_apply THEN 'v.apply' END, in_flight => CASE WHEN has_predicate THEN 'v.in_flight' END,
         initial_state => CASE WHEN has_apply THEN '{"status": "Open"}'::jsonb END, state_schema_version => CASE version WHEN :'fv1' THEN 1 ELSE 2 END))
FROM wf, unnest(ARRAY[:'fv1', :'fv2']) AS version;
SELECT mako_register_workflow('w68@FV2025-04-01');

SELECT is(mako_register_migrations(:'fv1', :'fv2', array_agg(name)), 61::bigint, 'identity migrations of many workflows')
FROM wf WHERE NOT has_function AND n NOT IN (3, 68);
SELECT is(pg_temp.rows('SELECT count(*), count(migrate), count(DISTINCT source_wf) FROM mako_state_migration'), '61|0|61', 'are registered, each without a function');
SELECT is(mako_register_migrations(:'fv1', :'fv2', '{w01,w02,w01,w02}'), 2::bigint, 'names count once, and the same again is no error');
SELECT is(mako_register_migrations(:'fv1', :'fv2', '{}'), 0::bigint, 'no name is no work');
SELECT count(mako_register_migration(name || '@' || :'fv1', name || '@' || :'fv2', 'v.migrate')) FROM wf WHERE has_function;
SELECT mako_register_migrations(:'fv1', 'FV2025-04-01', '{w68}'), mako_register_migrations('FV2025-04-01', :'fv2', '{w68}');

SELECT is(pg_temp.error($$ SELECT mako_register_migrations('FV2024-10-01', 'FV2025-10-01', '{w03,nobody,w01,wo1}') $$),
          '42704|some of the workflows are not registered|Not registered: "nobody@FV2024-10-01", "nobody@FV2025-10-01", "wo1@FV2024-10-01", "wo1@FV2025-10-01".'
          '|The table mako_workflow shows what is registered; mako_register_workflow() adds to it.', 'names that are not registered are refused, all in one message');
SELECT is(pg_temp.error($$ SELECT mako_register_migrations('FV2024-10-01', 'FV2025-04-01', '{w68,w67}') $$),
          '42704|some of the workflows are not registered|Not registered: "w67@FV2025-04-01".|The table mako_workflow shows what is registered; mako_register_workflow() adds to it.', 'with the version that is not');
SELECT matches(pg_temp.error($$ SELECT mako_register_migrations('FV2024-10-01', 'FV2025-10-01', '{w01,NULL}') $$), '^22004\|', 'null is no name');
SELECT matches(pg_temp.error($$ SELECT mako_register_migrations('FV2024-10-01', 'FV2024-10-01', '{w01}') $$), '^22023\|', 'no workflow leads to itself');
SELECT matches(pg_temp.error($$ SELECT mako_register_migrations('FV2024-10-01', 'FV2025-10-01', '{w03,w10}') $$), '^42710\|',
               'a step that has a function does not become an identity');
SELECT is_empty($$ SELECT * FROM mako_state_migration WHERE source_wf = 'w03@FV2024-10-01' $$, 'and nothing of a refused call stays');

----------------------------------------------------------------------------------------------------
-- Streams
----------------------------------------------------------------------------------------------------

\set tenant1 aaaaaaaa-0000-4000-8000-000000000001
\set tenant2 aaaaaaaa-0000-4000-8000-000000000002

-- All workflows but w69 have streams, of two tenants and of none; some streams have no events, some are under the new version already.
CREATE TEMPORARY TABLE s AS
SELECT i, CASE WHEN i % 69 = 68 THEN 70 ELSE i % 69 + 1 END AS n,
       CASE WHEN i % 41 = 0 THEN 0 ELSE 1 + i % 4 END AS events, i % 97 = 0 AS bad,
       CASE WHEN i % 13 > 0 THEN CASE WHEN i % 3 = 0 THEN :'tenant2' ELSE :'tenant1' END::uuid END AS tenant_id,
       CASE WHEN i % 13 > 0 THEN md5('process ' || i)::uuid END AS process_id
FROM generate_series(1, :streams) AS i;

INSERT INTO mako.stream (stream_id, tenant_id, process_id, workflow_id)
SELECT coalesce('process/' || tenant_id || '/' || process_id, 'free/' || i), tenant_id, process_id,
       format('w%s@%s', lpad(n::text, 2, '0'), CASE WHEN i % 53 = 0 THEN :'fv2' ELSE :'fv1' END)
FROM s ORDER BY i;
-- stream_no is i
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
SELECT i, k, workflow_id, CASE WHEN k = 1 THEN 'Opened' WHEN k = 3 AND bad THEN 'Bad' WHEN k = 4 THEN 'Closed' ELSE 'Moved' END,
       jsonb_build_object('n', (i / 4 + k) % 20)
FROM s JOIN mako.stream ON stream_no = i, generate_series(1, events) AS k;
INSERT INTO mako.registry (tenant_id, key, stream_no)
SELECT tenant_id, key, stream_no FROM mako.stream, LATERAL (VALUES (process_id::text), ('conversation ' || stream_no)) AS k (key) WHERE process_id IS NOT NULL;
INSERT INTO mako.correlation (tenant_id, tag, stream_no)
SELECT tenant_id, 'place ' || stream_no % 100, stream_no FROM mako.stream WHERE process_id IS NOT NULL;
-- Periodic snapshots, which nobody needs here.
INSERT INTO mako.snapshot (stream_no, sequence_number, workflow_id, state_schema_version, state)
SELECT stream_no, version, workflow_id, 1, '{"status": "Open", "n": 3}' FROM mako.stream WHERE stream_no % 31 = 0 AND version > 0;

CREATE TABLE v.deadline (tenant_id uuid NOT NULL, process_id uuid NOT NULL, workflow_id text NOT NULL, label text);
CREATE TABLE v.outbox (stream_id text NOT NULL, workflow_id text NOT NULL);
INSERT INTO v.deadline SELECT tenant_id, process_id, workflow_id, 'd' || stream_no FROM mako.stream WHERE process_id IS NOT NULL AND stream_no % 3 > 0;
INSERT INTO v.outbox SELECT stream_id, workflow_id FROM mako.stream WHERE stream_no % 4 = 0;
-- of a process of the other tenant with the same id, which nothing may touch
INSERT INTO v.deadline SELECT :'tenant2', process_id, workflow_id, 'foreign' FROM mako.stream WHERE tenant_id = :'tenant1' AND stream_no % 50 = 1;
SELECT mako_add_dependent('v.deadline', 'process_id', 'workflow_id', 'tenant_id');
SELECT mako_add_dependent('v.outbox', 'stream_id', 'workflow_id');
ANALYZE;

SELECT mako_exempt('w03@FV2024-10-01', 'ends in March'), mako_exempt('w33@FV2024-10-01', 'of a subsidiary');

-- What must become of each workflow: streams that migrate, and that fail. A stream under w10 whose last number is 7 is refused.
CREATE TEMPORARY TABLE wanted AS
SELECT name, s.*, wf.has_apply AND bad AND events >= 3 AS refused_by_apply, has_function AND events > 0 AND (i / 4 + least(events, 3)) % 20 = 7 AS refused_by_migrate,
       has_predicate AND events = 4 AND NOT bad AS closed
FROM s JOIN wf USING (n) WHERE i % 53 > 0 AND n NOT IN (3, 33);
ANALYZE wf, s, wanted;

-- Everything that a call leaves behind, a line each table; runs go by their sources, because their numbers and times differ. What
-- a single migration calls skipped is more than what the version calls so, and what was on the stack above a call is not compared.
CREATE FUNCTION pg_temp.capture() RETURNS text LANGUAGE plpgsql SET enable_nestloop = off AS $$
DECLARE
  part record;
  sum text;
  sums text := '';
BEGIN
  FOR part IN
    SELECT * FROM (VALUES
      ('stream', 'mako.stream'),
      ('event', '(SELECT stream_no, sequence_number, event_id, workflow_id, event_type, payload FROM mako.event)'),
      ('snapshot', '(SELECT stream_no, sequence_number, r.source_wf, n.workflow_id, state_schema_version, state, reverted_by
                     FROM mako.snapshot n LEFT JOIN mako.migration_run r USING (run_id) LEFT JOIN mako.reverted USING (stream_no, run_id))'),
      ('repointed', '(SELECT stream_no, source_wf, sequence_number FROM mako.repointed JOIN mako.migration_run USING (run_id))'),
      ('registry', 'mako.registry'),
      ('correlation', 'mako.correlation'),
      ('identity', 'mako.process_identity'),
      ('moved', '(SELECT stream_id, source_wf, target_wf, sequence_number FROM mako.migrated_stream)'),
      ('deadline', 'v.deadline'),
      ('outbox', 'v.outbox'),
      ('format_version', 'mako.format_version'),
      ('run', '(SELECT source_wf, target_wf, path, tenant_id, update_registry, in_flight_only, max_errors, reason, fingerprint, session_role,
                       effective_role, extension_version, finished_at IS NOT NULL, migrated, failed FROM mako.migration_run)'),
      ('error', '(SELECT source_wf, error_no, stream_no, stream_id, phase, sequence_number, sqlstate, message, detail, hint,
                         concat(split_part(context, ''SQL statement'', 1))
                  FROM mako.migration_error JOIN mako.migration_run USING (run_id))')
    ) AS p (name, source)
  LOOP
    EXECUTE format('SELECT count(*) || '' '' || coalesce(md5(string_agg(t::text, E''\n'' ORDER BY t::text COLLATE "C")), '''') FROM %s t', part.source) INTO sum;
    sums := sums || format(E'%s %s\n', part.name, sum);
  END LOOP;
  RETURN sums;
END
$$;
-- The same as a table, so that a failed test shows which table differs.
CREATE FUNCTION pg_temp.capture_differs(captured text) RETURNS TABLE (expected text, actual text) LANGUAGE sql AS $$
  SELECT e, a FROM regexp_split_to_table(captured, E'\n') WITH ORDINALITY AS x (e, k)
  FULL JOIN regexp_split_to_table(pg_temp.capture(), E'\n') WITH ORDINALITY AS y (a, k) USING (k) WHERE e IS DISTINCT FROM a $$;

-- One migration after the other.
CREATE FUNCTION pg_temp.migrate_singly(arguments text DEFAULT '') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  workflow record;
BEGIN
  FOR workflow IN SELECT * FROM pg_temp.wf WHERE NOT exempt ORDER BY n LOOP
    EXECUTE format('SELECT * FROM mako_migrate(%L, %L %s)', workflow.name || '@FV2024-10-01', workflow.name || '@FV2025-10-01', arguments);
  END LOOP;
  RETURN pg_temp.capture();
END
$$;

----------------------------------------------------------------------------------------------------
-- Undecided workflows
----------------------------------------------------------------------------------------------------

SELECT pg_temp.capture() AS untouched \gset

-- Five more: one that is registered, but no way leads on, one that leads elsewhere, one that nobody has registered, one whose
-- processes are all finished, and one that cannot be folded, so that nobody knows whether it is.
BEGIN;
SELECT mako_register_workflow(name || '@' || :'fv1', 'v.apply', in_flight => 'v.in_flight', initial_state => '{"status": "Open"}') FROM unnest('{open,done,broken}'::text[]) AS name;
SELECT mako_register_workflow('aside@FV2024-10-01'), mako_register_workflow('aside@FV2026-10-01'), mako_register_workflow('open@FV2025-10-01');
SELECT mako_register_migrations('FV2024-10-01', 'FV2026-10-01', '{aside}');
INSERT INTO mako.stream (stream_id, workflow_id)
SELECT format('%s/%s', name, k), name || '@FV2024-10-01' FROM (VALUES ('open', 3), ('aside', 2), ('wild', 4), ('done', 2), ('broken', 1)) AS x (name, streams), generate_series(1, streams) AS k;
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
SELECT stream_no, k, workflow_id, CASE WHEN k = 1 THEN 'Opened' WHEN stream_id ~ '^(open/1|done)' THEN 'Closed' WHEN stream_id ~ '^broken' THEN 'Bad' ELSE 'Moved' END, '{"n": 1}'
FROM mako.stream, generate_series(1, 2) AS k WHERE stream_id ~ '^(open|aside|wild|done|broken)/';
SELECT pg_temp.capture() AS undecided \gset
SELECT is(pg_temp.error($$ SELECT * FROM mako_migrate_version('FV2024-10-01', 'FV2025-10-01') $$),
$$55000|workflows of format version "FV2024-10-01" in flight are undecided|aside@FV2024-10-01: 2 of 2 streams in flight, undecided
broken@FV2024-10-01: 1 of 1 streams in flight, undecided
open@FV2024-10-01: 2 of 3 streams in flight, undecided
wild@FV2024-10-01: 4 of 4 streams in flight, undecided|Register a way to "FV2025-10-01" with mako_register_migration(), or exempt them with mako_exempt().$$,
          'what is in flight and undecided stops a cutover, with counts');
SELECT is_empty(format('SELECT * FROM pg_temp.capture_differs(%L)', :'undecided'), 'before anything is written');
SELECT is(pg_temp.rows($$ SELECT workflow_id, streams, in_flight, decision, targets, reason FROM mako_coverage('FV2024-10-01') WHERE workflow_id !~ '^w[0-9]' $$),
$$aside@FV2024-10-01|2|2|identity|["aside@FV2026-10-01"]|
broken@FV2024-10-01|1|1|undecided|[]|
done@FV2024-10-01|2|0|undecided|[]|
open@FV2024-10-01|3|2|undecided|[]|
wild@FV2024-10-01|4|4|undecided|[]|$$, 'the coverage shows them, with any way that leads out');
SELECT is(pg_temp.error($$ SELECT * FROM mako_migrate_version('FV2024-10-01', 'FV2025-10-01', tenant_id => 'aaaaaaaa-0000-4000-8000-000000000001') $$) LIKE '55000|%', true,
          'one tenant alone cannot move before all is decided');
SELECT is(pg_temp.rows($$ SELECT mako_exempt('wild@FV2024-10-01', 'nobody knows it'), mako_exempt('broken@FV2024-10-01', 'closed by hand'), mako_exempt('open@FV2024-10-01', 'ends') $$), '||',
          'they can be exempted, registered or not');
SELECT mako_register_workflow('aside@FV2025-10-01');
SELECT mako_register_migration('aside@FV2026-10-01', 'aside@FV2025-10-01');
SELECT is(pg_temp.rows($$ SELECT source_wf, target_wf, migrated, skipped, failed FROM mako_migrate_version('FV2024-10-01', 'FV2025-10-01') WHERE source_wf NOT LIKE 'w%' $$),
          'aside@FV2024-10-01|aside@FV2025-10-01|2|0|0', 'a way may be any chain of steps; what is exempt or finished does not stop it');
SELECT is(pg_temp.rows($$ SELECT path FROM mako.migration_run WHERE source_wf = 'aside@FV2024-10-01' $$), '["aside@FV2024-10-01","aside@FV2026-10-01","aside@FV2025-10-01"]',
          'and is recorded');
SELECT is(pg_temp.rows($$ SELECT split_part(workflow_id, '@', 2), count(*) FROM mako.stream WHERE stream_id ~ '^(open|wild|done|broken)/' GROUP BY 1 $$),
          'FV2024-10-01|10', 'these have stayed');
ROLLBACK;
SELECT is_empty(format('SELECT * FROM pg_temp.capture_differs(%L)', :'untouched'), 'all is as before');

----------------------------------------------------------------------------------------------------
-- The same as one migration after the other
----------------------------------------------------------------------------------------------------

SELECT mako_version_fingerprint(:'fv1', :'fv2') AS fingerprint \gset

-- For each way of calling it.
CREATE FUNCTION pg_temp.differs_from_single(arguments text) RETURNS TABLE (expected text, actual text) LANGUAGE plpgsql AS $$
DECLARE
  captured text;
BEGIN
  BEGIN
    captured := pg_temp.migrate_singly(arguments);
    RAISE EXCEPTION USING ERRCODE = 'MKTST';
  EXCEPTION WHEN SQLSTATE 'MKTST' THEN
    NULL;
  END;
  EXECUTE format('SELECT * FROM mako_migrate_version(''FV2024-10-01'', ''FV2025-10-01'' %s)', arguments);
  RETURN QUERY SELECT * FROM pg_temp.capture_differs(captured);
END
$$;

BEGIN;
SELECT is_empty($$ SELECT * FROM pg_temp.differs_from_single(', tenant_id => ''aaaaaaaa-0000-4000-8000-000000000001'', reason => ''half''') $$, 'of one tenant');
SELECT is(pg_temp.rows($$ SELECT count(*) > 1000, count(DISTINCT tenant_id), max(tenant_id::text), count(*) FILTER (WHERE tenant_id IS NULL) FROM mako.migrated_stream JOIN mako.stream USING (stream_id) $$),
          'true|1|aaaaaaaa-0000-4000-8000-000000000001|0', 'only his streams have moved');
SELECT is_empty($$ SELECT m.source_wf, m.migrated, m.skipped, m.failed FROM mako.migration_run m
                   WHERE m.migrated + m.skipped + m.failed <> (SELECT count(*) FROM mako.stream s WHERE split_part(s.workflow_id, '@', 1) = split_part(m.source_wf, '@', 1)
                                                               AND s.tenant_id = 'aaaaaaaa-0000-4000-8000-000000000001') $$, 'only his streams count');
-- The other one follows, then those of nobody.
SELECT count(*) FROM mako_migrate_version(:'fv1', :'fv2', :'tenant2');
SELECT is_empty($$ SELECT * FROM pg_temp.differs_from_single('') $$, 'of everybody who is left');
SELECT pg_temp.capture() AS in_three_parts \gset
ROLLBACK;

BEGIN;
SELECT is_empty($$ SELECT * FROM pg_temp.differs_from_single(', in_flight_only => true') $$, 'only what is in flight');
SELECT is_empty($$ SELECT stream_no, stream.workflow_id, closed FROM wanted JOIN mako.stream ON stream_no = i
                   WHERE (stream.workflow_id LIKE '%@FV2024-10-01') <> (refused_by_apply OR closed OR refused_by_migrate) $$,
                'what has failed or is finished has stayed, nothing else');
ROLLBACK;

BEGIN;
SELECT is_empty($$ SELECT * FROM pg_temp.differs_from_single(', update_registry => false') $$, 'snapshots only');
SELECT is(pg_temp.rows($$ SELECT count(*) FROM mako.repointed $$), '0', 'nothing is repointed');
SELECT is_empty($$ SELECT i FROM wanted JOIN mako.stream ON stream_no = i WHERE stream.workflow_id NOT LIKE '%@FV2024-10-01' $$, 'no head has moved');
ROLLBACK;

BEGIN;
SET LOCAL mako_migration.batch_size = 3;
SET LOCAL mako_migration.max_memory = '1MB';
SELECT is_empty($$ SELECT * FROM pg_temp.differs_from_single(', tenant_id => ''aaaaaaaa-0000-4000-8000-000000000002'', in_flight_only => true, reason => ''all at once''') $$, 'several of these, in small batches');
ROLLBACK;
SELECT is_empty(format('SELECT * FROM pg_temp.capture_differs(%L)', :'untouched'), 'all is as before');

-- Streams that cannot be written, of two workflows in the middle: an index refuses some of w20, the outbox one of w25.
CREATE FUNCTION v.pick(stream_no bigint) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
  IF stream_no % 690 = 19 THEN
    RAISE EXCEPTION USING MESSAGE = format('stream %s has no place here', stream_no), ERRCODE = 'MKX01';
  END IF;
  RETURN 1;
END $$;
CREATE TEMPORARY TABLE unwritten AS
SELECT 'w20@FV2024-10-01' COLLATE "C" AS source_wf, i::bigint AS stream_no, 'snapshot' COLLATE "C" AS phase, 'MKX01' COLLATE "C" AS sqlstate
FROM wanted WHERE name = 'w20' AND i % 690 = 19 AND events > 0 AND NOT refused_by_apply AND NOT refused_by_migrate
UNION ALL VALUES ('w25@FV2024-10-01', 24, 'registry', '23514');
SELECT cmp_ok(count(*), '>', 2::bigint, 'some streams cannot be written') FROM unwritten;
BEGIN;
CREATE INDEX ON mako.snapshot (v.pick(stream_no)) WHERE run_id > 0;
SELECT format('ALTER TABLE v.outbox ADD CHECK (stream_id <> %L OR workflow_id NOT LIKE ''%%@FV2025-10-01'')', stream_id) FROM mako.stream WHERE stream_no = 24 \gexec
SAVEPOINT direct;
SELECT is_empty($$ SELECT * FROM pg_temp.differs_from_single('') $$, 'all others are, and everything else is as after single migrations');
SELECT results_eq('SELECT source_wf COLLATE "C", stream_no, phase COLLATE "C", sqlstate COLLATE "C" FROM mako.migration_error JOIN mako.migration_run USING (run_id)
                     WHERE phase IN (''snapshot'', ''registry'') ORDER BY 1, 2',
                  'SELECT * FROM unwritten ORDER BY 1, 2', 'the audit trail has them under the runs of their workflows');
SELECT is(pg_temp.rows($$ SELECT count(*), count(*) FILTER (WHERE s.workflow_id <> u.source_wf), count(n.run_id), count(o.stream_id)
                          FROM unwritten u JOIN mako.stream s USING (stream_no) LEFT JOIN mako.snapshot n ON n.stream_no = u.stream_no AND n.run_id > 0
                          LEFT JOIN v.outbox o ON o.stream_id = s.stream_id AND o.workflow_id <> u.source_wf $$),
          (SELECT count(*) || '|0|0|0' FROM unwritten), 'they are where they were, without a snapshot');
ROLLBACK TO direct;
-- the same by statements
ALTER TABLE mako.snapshot ADD CHECK (run_id >= 0);
CREATE INDEX ON mako.stream (workflow_id);
SELECT is_empty($$ SELECT * FROM pg_temp.differs_from_single('') $$, 'by statements, too');
SELECT results_eq('SELECT source_wf COLLATE "C", stream_no, phase COLLATE "C", sqlstate COLLATE "C" FROM mako.migration_error JOIN mako.migration_run USING (run_id)
                     WHERE phase IN (''snapshot'', ''registry'') ORDER BY 1, 2',
                  'SELECT * FROM unwritten ORDER BY 1, 2', 'with the same errors');
ROLLBACK TO direct;
SELECT results_eq($$ SELECT r.source_wf::text COLLATE "C", r.failed, count(u.stream_no) FROM mako_migrate_version('FV2024-10-01', 'FV2025-10-01') r, unnest(r.errors) e
                     JOIN mako.stream s ON s.stream_id = e.stream_id COLLATE "C" LEFT JOIN unwritten u USING (stream_no)
                     GROUP BY 1, 2 HAVING count(u.stream_no) > 0 ORDER BY 1 $$,
                  $$ SELECT u.source_wf, count(*) + (SELECT count(*) FROM wanted w WHERE w.name || '@FV2024-10-01' = u.source_wf AND (w.refused_by_apply OR w.refused_by_migrate)), count(*)
                     FROM unwritten u GROUP BY 1 ORDER BY 1 $$, 'each is in the report of its workflow, which counts it');
SELECT is(count(*), 0::bigint, 'nothing is left to move') FROM mako_migrate_version('FV2024-10-01', 'FV2025-10-01') WHERE migrated > 0;
ROLLBACK;
SELECT is_empty(format('SELECT * FROM pg_temp.capture_differs(%L)', :'untouched'), 'all is as before');

-- And last without any argument, which stays.
BEGIN;
SELECT pg_temp.migrate_singly($$, reason => 'cutover'$$) AS singly \gset
SELECT sum(failed) AS failures FROM mako.migration_run \gset
ROLLBACK;

-- A set is made once, even in the form in which mako_migrate() would be called for every column.
BEGIN;
SELECT is(count(DISTINCT run_id), 68::bigint, 'called as one expression, it runs once') FROM (SELECT (mako_migrate_version('FV2024-10-01', 'FV2025-10-01')).*) AS x;
SELECT is(count(*), 68::bigint, 'and leaves one run a workflow') FROM mako.migration_run;
ROLLBACK;
SELECT is(pg_temp.error(format($$ SELECT * FROM mako_migrate_version('FV2024-10-01', 'FV2025-10-01', max_errors => %s) $$, :failures - 1))
            LIKE format('MK006|more than %s streams could not be migrated|{"migrated": %%, "failed": %s, "errors": [%%', :failures - 1, :failures), true,
          'one error too many of all workflows ends the whole, and they are counted together');
SELECT is_empty(format('SELECT * FROM pg_temp.capture_differs(%L)', :'untouched'), 'and nothing stays');
SELECT is(pg_temp.error(format($$ SELECT * FROM mako_migrate_version('FV2024-10-01', 'FV2025-10-01', max_errors => %s) $$, :failures)), NULL, 'as many as allowed do not');
SELECT is(pg_temp.error($$ SELECT * FROM mako_migrate_version('FV2024-10-01', 'FV2025-10-01', expect => 'deadbeef') $$),
          format('55000|the definitions are not those that were expected|Expected fingerprint deadbeef, found %s.|'
                 'Review the definitions again; mako_fingerprint() and mako_version_fingerprint() show the fingerprints.', :'fingerprint'), 'other definitions are refused');
SELECT is_empty(format('SELECT * FROM pg_temp.capture_differs(%L)', :'untouched'), 'and nothing stays');
SELECT matches(pg_temp.error($$ SELECT * FROM mako_migrate_version('FV2024-10-01', 'FV2024-10-01') $$), '^22023\|source and target must differ', 'a version does not move to itself');
SELECT matches(pg_temp.error($$ SELECT * FROM mako_migrate_version('FV2024-10-01', '2025-10-01') $$), '^22P02\|', 'a malformed version is refused');
SELECT matches(pg_temp.error($$ SELECT * FROM mako_migrate_version(NULL, 'FV2025-10-01') $$), '^22004\|', 'and so is none');
SELECT matches(pg_temp.error($$ SELECT * FROM mako_migrate_version('FV2030-10-01', 'FV2025-10-01') $$), '^42704\|format version "FV2030-10-01" is not known', 'a mistyped version does not look like an empty one');

CREATE TEMPORARY TABLE report AS
SELECT row_number() OVER () AS line, r.*
FROM mako_migrate_version(:'fv1', :'fv2', max_errors => NULL, expect => :'fingerprint', reason => 'cutover') AS r;

SELECT is_empty(format('SELECT * FROM pg_temp.capture_differs(%L)', :'singly'), 'the version leaves behind what 68 migrations leave behind');
SELECT results_eq('SELECT source_wf::text COLLATE "default", target_wf::text COLLATE "default" FROM report ORDER BY line',
                  $$ SELECT name || '@FV2024-10-01', name || '@FV2025-10-01' FROM wf WHERE NOT exempt ORDER BY n $$, 'one report a workflow, in the order of their names');
SELECT results_eq(
  'SELECT source_wf::text COLLATE "default", migrated, failed FROM report ORDER BY line',
  $$ SELECT name || '@FV2024-10-01', count(i) FILTER (WHERE events > 0 AND NOT refused), count(i) FILTER (WHERE refused)
     FROM wf LEFT JOIN (SELECT *, refused_by_apply OR refused_by_migrate AS refused FROM wanted) w USING (name) WHERE NOT exempt GROUP BY name ORDER BY name COLLATE "C" $$,
  'with the counts that the data have');
SELECT results_eq('SELECT source_wf::text COLLATE "default", migrated + failed + skipped FROM report ORDER BY line',
                  $$ SELECT name || '@FV2024-10-01', count(i) FROM wf LEFT JOIN s USING (n) WHERE NOT exempt GROUP BY name ORDER BY name COLLATE "C" $$,
                  'skipped counts the other streams of that workflow''s name');
SELECT results_eq('SELECT run_id, source_wf::text, target_wf::text, migrated, skipped, failed FROM report ORDER BY run_id',
                  'SELECT run_id, source_wf, target_wf, migrated, skipped, failed FROM mako.migration_run ORDER BY run_id', 'the audit trail has a run each, with the same counts');
SELECT is(sum(failed)::text, :'failures', 'all failures are reported') FROM report;
SELECT cmp_ok(:failures, '>', 10, 'and there are some');
SELECT is(pg_temp.rows($$ SELECT phase, sqlstate, message, count(*) > 0 FROM mako.migration_error GROUP BY 1, 2, 3 ORDER BY message $$),
          E'apply|MK002|bad event|true\nmigrate|MK002|seven|true', 'for the known reasons');
SELECT results_eq('SELECT line, e.stream_id COLLATE "C", e.phase, e.sequence_number FROM report, unnest(errors) AS e ORDER BY line, e.stream_id COLLATE "C"',
                  'SELECT line, e.stream_id, e.phase, e.sequence_number FROM report JOIN mako.migration_error e USING (run_id) ORDER BY line, e.stream_id',
                  'and each is in the report of its workflow');
SELECT is((mako_merge(r)).migrated, (SELECT count(*) FROM mako.migrated_stream m JOIN mako.stream USING (stream_id) WHERE version > 0), 'the reports can be added up')
FROM (SELECT (run_id, source_wf, target_wf, migrated, skipped, failed, errors, started_at, duration)::mako_migration_report AS r FROM report) AS x;
SELECT is(pg_temp.rows($$ SELECT path FROM mako.migration_run WHERE source_wf = 'w68@FV2024-10-01' $$), '["w68@FV2024-10-01","w68@FV2025-04-01","w68@FV2025-10-01"]',
          'a workflow may take several steps');
SELECT is_empty($$ SELECT i FROM s JOIN mako.stream ON stream_no = i WHERE n IN (3, 33) AND i % 53 > 0 AND workflow_id NOT LIKE '%@FV2024-10-01' $$, 'exempt workflows stay, with a way and without');
SELECT is_empty($$ SELECT d.* FROM v.deadline d JOIN mako.stream s USING (tenant_id, process_id) WHERE d.workflow_id <> s.workflow_id
                   UNION ALL SELECT NULL, NULL, o.workflow_id, o.stream_id FROM v.outbox o JOIN mako.stream s USING (stream_id) WHERE o.workflow_id <> s.workflow_id $$,
                'deadlines and outbox have followed');
SELECT is(pg_temp.rows($$ SELECT count(*) > 0, count(*) FILTER (WHERE workflow_id NOT LIKE '%@FV2024-10-01') FROM v.deadline
                          WHERE label = 'foreign' AND process_id NOT IN (SELECT process_id FROM mako.stream WHERE stream_no % 53 = 0 AND process_id IS NOT NULL) $$),
          'true|0', 'those of a foreign process have not');

-- Once more: what failed fails again.
BEGIN;
SELECT results_eq($$ SELECT sum(migrated), sum(failed) FROM mako_migrate_version('FV2024-10-01', 'FV2025-10-01') $$, format('VALUES (0::numeric, %s::numeric)', :failures), 'a second call migrates nothing');
ROLLBACK;
SELECT is_empty(format('SELECT * FROM pg_temp.capture_differs(%L)', :'singly'), 'and is undone');
-- In three parts it is the same, but for their runs and for the errors, which each part reports again.
SELECT is_empty(format($$ SELECT e, a FROM regexp_split_to_table(%L, E'\n') WITH ORDINALITY AS x (e, k) JOIN regexp_split_to_table(pg_temp.capture(), E'\n') WITH ORDINALITY AS y (a, k) USING (k)
                          WHERE e <> a AND e !~ '^(run|error) ' $$, :'in_three_parts'), 'tenant by tenant leads to the same store');

----------------------------------------------------------------------------------------------------
-- The fingerprint of a version
----------------------------------------------------------------------------------------------------

SELECT is(mako_version_fingerprint(:'fv1', :'fv2'), :'fingerprint', 'a migration does not change the fingerprint');
SELECT matches(pg_temp.error($$ SELECT mako_version_fingerprint('FV2024-10-01', 'FV2031-10-01') $$), '^42704\|no workflow has a way from format version "FV2024-10-01" to "FV2031-10-01"', 'nothing has no fingerprint');
BEGIN;
SELECT mako_register_workflow('stranger@FV2024-10-01'), mako_register_workflow('stranger@FV2025-10-01');
SELECT is(mako_version_fingerprint(:'fv1', :'fv2'), :'fingerprint', 'a workflow without a way does not belong to it');
SELECT mako_register_migrations(:'fv1', :'fv2', '{stranger}');
SELECT isnt(mako_version_fingerprint(:'fv1', :'fv2'), :'fingerprint', 'one with a way does');
SELECT mako_exempt('stranger@FV2024-10-01', 'stays');
SELECT is(mako_version_fingerprint(:'fv1', :'fv2'), :'fingerprint', 'unless it is exempt');
ROLLBACK;
BEGIN;
CREATE FUNCTION v.migrate_better(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT state || '{"v": 2}' $$;
SET LOCAL client_min_messages = error;
SELECT mako_register_migration('w70@FV2024-10-01', 'w70@FV2025-10-01', 'v.migrate_better', replace => true);
SELECT isnt(mako_version_fingerprint(:'fv1', :'fv2'), :'fingerprint', 'another function changes it');
SELECT matches(pg_temp.error(format($$ SELECT * FROM mako_migrate_version('FV2024-10-01', 'FV2025-10-01', expect => %L) $$, :'fingerprint')), '^55000\|', 'and is refused where the old one is expected');
ROLLBACK;

----------------------------------------------------------------------------------------------------
-- What is left
----------------------------------------------------------------------------------------------------

-- What failed is left, in flight or not; a stream that cannot be folded counts as in flight.
CREATE TEMPORARY TABLE left_behind AS
SELECT name || '@FV2024-10-01' AS workflow_id, count(*) AS streams, count(*) FILTER (WHERE NOT closed OR refused_by_apply) AS in_flight,
       CASE WHEN bool_or(has_function) THEN 'migration' ELSE 'identity' END AS decision, ARRAY[name || '@FV2025-10-01'] AS targets, NULL AS reason
FROM wanted JOIN wf USING (name) WHERE refused_by_apply OR refused_by_migrate GROUP BY name
UNION ALL
SELECT name || '@FV2024-10-01', count(*), count(*), 'exempt', CASE n WHEN 33 THEN '{w33@FV2025-10-01}'::text[] ELSE '{}' END, CASE n WHEN 3 THEN 'ends in March' ELSE 'of a subsidiary' END
FROM s JOIN wf USING (n) WHERE exempt AND i % 53 > 0 GROUP BY name, n;
SELECT results_eq($$ SELECT * FROM mako_coverage('FV2024-10-01') $$, 'SELECT * FROM left_behind ORDER BY workflow_id COLLATE "C"', 'the coverage shows what failed and what is exempt');
SELECT cmp_ok(sum(streams), '>', sum(in_flight), 'some of it is not in flight') FROM left_behind;
SELECT results_eq($$ SELECT workflow_id, streams, in_flight, decision, cardinality(targets) FROM mako_coverage('FV2025-10-01') $$,
                  $$ SELECT workflow_id COLLATE "default", count(*), count(*) FILTER (WHERE NOT (has_predicate AND version = 4 AND NOT (has_apply AND bad))), 'undecided', 0
                     FROM mako.stream JOIN s ON stream_no = i JOIN wf USING (n) WHERE workflow_id LIKE '%@FV2025-10-01' GROUP BY workflow_id ORDER BY workflow_id COLLATE "C" $$,
                  'under the new version nothing is decided yet');
SELECT is_empty($$ SELECT * FROM mako_coverage('FV2019-10-01') $$, 'nothing is left under a version that nobody used');
SELECT is_empty('SELECT * FROM mako_coverage(NULL)', 'nor under none');

----------------------------------------------------------------------------------------------------
-- Exempting
----------------------------------------------------------------------------------------------------

SELECT is(pg_temp.error($$ SELECT mako_exempt('w99@FV2024-10-01', 'misspelt') $$),
          '42704|workflow "w99@FV2024-10-01" is neither registered nor in the store|mako_coverage() shows which workflows streams run under.', 'nobody exempts what is not there');
SELECT matches(pg_temp.error($$ SELECT mako_exempt('w01@FV2024-10-01', NULL) $$), '^22004\|reason must not be null', 'an exemption has a reason');
SELECT matches(pg_temp.error($$ SELECT mako_exempt('w01@FV2024-10-01', ' ') $$), '^22023\|', 'that says something');
SELECT matches(pg_temp.error($$ SELECT mako_exempt('w01', 'x') $$), '^22P02\|', 'and a workflow');
SELECT matches(pg_temp.error($$ SELECT mako_exempt(NULL, 'x') $$), '^22004\|workflow_id must not be null', 'any at all');
SELECT matches(pg_temp.error($$ SELECT mako_unexempt('w01@FV2024-10-01') $$), '^42704\|workflow "w01@FV2024-10-01" is not exempt', 'what is not exempt stays so');
SELECT mako_exempt('w03@FV2024-10-01', 'ends in April');
SELECT is(pg_temp.rows($$ SELECT workflow_id, reason, exempted_by = current_user FROM mako_exemption ORDER BY workflow_id $$),
          E'w03@FV2024-10-01|ends in April|true\nw33@FV2024-10-01|of a subsidiary|true', 'exempting again replaces the reason');
SELECT lives_ok($$ SELECT mako_unexempt('w33@FV2024-10-01') $$, 'an exemption is taken back');
SELECT is(pg_temp.rows($$ SELECT decision, reason FROM mako_coverage('FV2024-10-01') WHERE workflow_id = 'w33@FV2024-10-01' $$), 'identity|', 'and the workflow is decided as before');

----------------------------------------------------------------------------------------------------
-- Retiring
----------------------------------------------------------------------------------------------------

SELECT string_agg(format('%s: %s of %s streams in flight, %s', workflow_id, in_flight, streams, decision), E'\n' ORDER BY workflow_id COLLATE "C") AS obstacles
FROM mako_coverage(:'fv1') WHERE in_flight > 0 AND reason IS NULL \gset
SELECT is(pg_temp.error($$ SELECT mako_retire('FV2024-10-01', 'cutover') $$),
          format('55000|format version "FV2024-10-01" cannot be retired|%s|Migrate what is in flight, or exempt it with mako_exempt(). mako.migration_error tells what could not be migrated.', :'obstacles'),
          'a version with something in flight is not retired, and told by workflow');
SELECT is_empty('SELECT * FROM mako.format_version', 'it stays active');
SELECT is(pg_temp.error($$ SELECT mako_reactivate('FV2024-10-01') $$), '55000|format version "FV2024-10-01" is active|It was never drained or retired.', 'as it is, so it is not reactivated');
SELECT (mako_is_ok(r)) FROM mako_migrate('w33@FV2024-10-01', 'w33@FV2025-10-01') AS r;
SELECT count(mako_exempt(workflow_id, 'cannot be migrated')) > 0 FROM mako_coverage(:'fv1') WHERE in_flight > 0;
SELECT lives_ok($$ SELECT mako_retire('FV2024-10-01', 'cutover', '2099-01-01') $$, 'what is exempt or finished does not stand in the way');
SELECT is(pg_temp.rows($$ SELECT format_version, status, messages_until = '2099-01-01', reason, changed_by = current_user FROM mako.format_version $$),
          'FV2024-10-01|retired|true|cutover|true', 'who retired what, until when and why is known');
SELECT is(pg_temp.error($$ SELECT mako_unexempt('w03@FV2024-10-01') $$),
          '55000|the exemption of "w03@FV2024-10-01" cannot be taken back|Its format version is retired, which the exemption may have allowed.|Use mako_reactivate() first.',
          'an exemption is not taken back while the version is retired');
SELECT is(pg_temp.error($$ SELECT mako_drain('FV2024-10-01') $$),
          '55000|format version "FV2024-10-01" is retired|A retired version takes no process and no event.|To take the retirement back, use mako_reactivate().', 'a retired version does not drain');
SELECT is(pg_temp.error($$ SELECT mako_append((SELECT stream_id FROM mako.stream WHERE workflow_id = 'w03@FV2024-10-01' ORDER BY stream_no LIMIT 1), 'w03@FV2024-10-01', 'Moved', '{}') $$),
          '55000|format version "FV2024-10-01" is retired|Nothing can be written under workflow "w03@FV2024-10-01" any more.|Use a format version that is not retired.', 'it takes no event');
SELECT is(pg_temp.error($$ SELECT mako_spawn('w01@FV2024-10-01', 'aaaaaaaa-0000-4000-8000-000000000001') $$),
          '55000|format version "FV2024-10-01" is retired|Nothing can be written under workflow "w01@FV2024-10-01" any more.|Use a format version that is not retired.', 'and no process');
SELECT mako_register_migration('w01@FV2025-10-01', 'w01@FV2024-10-01');
SELECT is(pg_temp.error($$ SELECT * FROM mako_migrate_version('FV2025-10-01', 'FV2024-10-01') $$) ~ '^55000\|workflows of format version "FV2025-10-01" in flight are undecided', true,
          'and nothing that comes back: first because most of it has no way');
SELECT is(pg_temp.error($$ SELECT mako_exempt(workflow_id, 'stays') FROM mako_coverage('FV2025-10-01') WHERE decision = 'undecided';
                           SELECT * FROM mako_migrate_version('FV2025-10-01', 'FV2024-10-01') $$),
          '55000|format version "FV2024-10-01" is retired|Nothing can be written under workflow "w01@FV2024-10-01" any more.|Use a format version that is not retired.', 'then because of the fence');
SELECT results_eq($$ SELECT count(*) FROM mako_coverage('FV2024-10-01') $$, $$ SELECT count(*) - 1 FROM left_behind $$, 'the coverage of a retired version shows what stayed');
SELECT lives_ok($$ SELECT mako_retire('FV2024-10-01', 'longer', 'infinity') $$, 'it is retired again with another date');
SELECT is(pg_temp.rows('SELECT status, messages_until, reason FROM mako.format_version'), 'retired|infinity|longer', 'which holds from now on');
SELECT lives_ok($$ SELECT mako_reactivate('FV2024-10-01', 'too early') $$, 'a retirement is taken back');
SELECT is(pg_temp.rows('SELECT status, messages_until, reason FROM mako.format_version'), 'active||too early', 'with the date');
SELECT lives_ok($$ SELECT mako_unexempt('w03@FV2024-10-01') $$, 'and then the exemption');
SELECT matches(pg_temp.error($$ SELECT mako_retire(NULL) $$), '^22004\|format_version must not be null', 'no version is not retired');
SELECT matches(pg_temp.error($$ SELECT mako_retire('FV2024') $$), '^22P02\|', 'nor a malformed one');

SELECT * FROM finish();
