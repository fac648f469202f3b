-- Events in heap order and in key order: the same outcome, byte for byte, wherever the events lie, whatever is wrong with them, and
-- however little memory there is.
-- Runs in an empty database. The environment variable MAKO_STREAMS says how many streams, MAKO_SEED how they are shuffled.

CREATE EXTENSION pgtap;
CREATE EXTENSION mako_migration;

SELECT plan(50);

\set streams `echo ${MAKO_STREAMS:-3000}`
\set seed `echo ${MAKO_SEED:-$$}`
\echo # seed :seed

SELECT mako_create_store();
SELECT format('ALTER TABLE %s SET (autovacuum_enabled = off)', oid::regclass) FROM pg_class WHERE relnamespace = 'mako'::regnamespace AND relkind = 'r' \gexec

\ir include/helpers.sql

----------------------------------------------------------------------------------------------------
-- Streams
----------------------------------------------------------------------------------------------------

-- A state is the list of what came, so that a missing, doubled or misplaced event shows.
CREATE SCHEMA o;
CREATE FUNCTION o.apply(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE event_type WHEN 'Bad' THEN mako_reject('bad') ELSE jsonb_set(state, '{list}', state->'list' || (payload->'n')) || jsonb_build_object('note', payload->'note') END $$;
CREATE FUNCTION o.migrate(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT jsonb_build_object('list', state->'list', 'note', state->'note', 'steps', coalesce((state->>'steps')::int, 0) + 1) $$;
CREATE FUNCTION o.in_flight(state jsonb) RETURNS boolean LANGUAGE sql STABLE AS $$ SELECT (state->'list'->>-1)::int % 3 > 0 $$;

-- a moves with a function, b by identity with apply, c by identity without, d is not migrated.
SELECT count(mako_register_workflow(name || '@' || version, CASE WHEN name <> 'c' THEN 'o.apply' END, in_flight => CASE name WHEN 'a' THEN 'o.in_flight' END,
         initial_state => CASE WHEN name <> 'c' THEN '{"list": []}'::jsonb END))
FROM unnest('{a,b,c,d}'::text[]) AS name, unnest('{FV2024-10-01,FV2025-10-01,FV2026-10-01}'::text[]) AS version;
SELECT mako_register_migration('a@' || s, 'a@' || t, 'o.migrate') FROM (VALUES ('FV2024-10-01', 'FV2025-10-01'), ('FV2025-10-01', 'FV2026-10-01')) AS step (s, t);
SELECT mako_register_migrations(s, t, '{b,c}') FROM (VALUES ('FV2024-10-01', 'FV2025-10-01'), ('FV2025-10-01', 'FV2026-10-01')) AS step (s, t);
SELECT mako_exempt('d@FV2024-10-01', 'stays'), mako_exempt('d@FV2025-10-01', 'stays');

CREATE TABLE o.follower (stream_id text NOT NULL, workflow_id text NOT NULL);
SELECT mako_add_dependent('o.follower', 'stream_id', 'workflow_id');

-- Some streams have no events, some many, some large payloads that are stored out of line, some a bad event.
INSERT INTO mako.stream (stream_id, workflow_id)
SELECT 's' || i, CASE WHEN i % 11 = 0 THEN 'd' WHEN i % 7 = 0 THEN 'c' WHEN i % 5 = 0 THEN 'b' ELSE 'a' END || '@FV2024-10-01' FROM generate_series(1, :streams) AS i;
CREATE FUNCTION o.append(first int, choose int, rest int, bad int) RETURNS bigint LANGUAGE sql AS $$
  WITH e AS (
    INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
    SELECT stream_no, version + k, workflow_id, CASE WHEN stream_no % 50 = bad AND k = 2 THEN 'Bad' ELSE 'Came' END,
           jsonb_build_object('n', version + k, 'note', CASE WHEN stream_no % 97 = 3
             THEN (SELECT string_agg(md5(stream_no || ' ' || k || ' ' || x), '') FROM generate_series(1, 300) AS x) ELSE repeat('x', ((stream_no * 7 + k * 13) % 300)::int) END)
    FROM mako.stream, LATERAL generate_series(1, CASE WHEN stream_no % 500 = 1 THEN 400 ELSE first + stream_no % 6 END) AS k
    WHERE stream_no % 23 > 0 AND stream_no % choose = rest RETURNING 1)
  SELECT count(*) FROM e $$;
SELECT o.append(1, 1, 0, 17) > 0 AS appended;
INSERT INTO o.follower SELECT stream_id, workflow_id FROM mako.stream WHERE stream_no % 3 = 0;

-- Writes all events anew, in some order.
CREATE FUNCTION o.lay(way text, seed text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  CREATE TEMPORARY TABLE kept ON COMMIT DROP AS SELECT * FROM mako.event;
  ALTER TABLE mako.event DISABLE TRIGGER USER;
  TRUNCATE mako.event;
  EXECUTE 'INSERT INTO mako.event SELECT * FROM kept ORDER BY ' || CASE way
    WHEN 'stream by stream' THEN 'stream_no, sequence_number'
    WHEN 'backwards' THEN 'stream_no DESC, sequence_number DESC'
    WHEN 'later events first' THEN 'sequence_number DESC, stream_no'
    WHEN 'interleaved' THEN 'stream_no + sequence_number * 40, stream_no'
    WHEN 'neighbours shuffled' THEN format('(stream_no + sequence_number * 40) / 100, md5(%L || stream_no || sequence_number)', seed)
    WHEN 'shuffled' THEN format('md5(%L || stream_no || '' '' || sequence_number)', seed)
  END;
  ALTER TABLE mako.event ENABLE TRIGGER USER;
  DROP TABLE kept;
END $$;

-- What a call leaves behind, and what it says, a line each table; runs go by their sources. How often all events were read comes first.
CREATE FUNCTION o.outcome(call text, scan_order text) RETURNS TABLE (name text, sum text) LANGUAGE plpgsql AS $$
DECLARE
  scans bigint;
  report text;
  source text;
BEGIN
  PERFORM set_config('mako_migration.scan_order', scan_order, true);
  SELECT s.seq_scan INTO scans FROM pg_stat_xact_user_tables s WHERE relid = 'mako.event'::regclass;
  EXECUTE format('SELECT string_agg(concat_ws('' '', source_wf, target_wf, migrated, skipped, failed, errors), E''\n'' ORDER BY source_wf COLLATE "C") FROM %s', call) INTO report;
  SELECT s.seq_scan - coalesce(scans, 0) INTO scans FROM pg_stat_xact_user_tables s WHERE relid = 'mako.event'::regclass;
  IF coalesce(scans, 0) <> (scan_order = 'heap')::int THEN
    report := 'all events were read ' || coalesce(scans, 0) || ' times';
  END IF;
  RETURN QUERY SELECT 'report', report;
  FOR name, source IN
    SELECT * FROM (VALUES
      ('stream', 'mako.stream'),
      ('snapshot', '(SELECT stream_no, sequence_number, r.source_wf, n.workflow_id, state_schema_version, state, reverted_by
                     FROM mako.snapshot n LEFT JOIN mako.migration_run r USING (run_id) LEFT JOIN mako.reverted USING (stream_no, run_id))'),
      ('repointed', '(SELECT stream_no, source_wf, sequence_number FROM mako.repointed JOIN mako.migration_run USING (run_id))'),
      ('follower', 'o.follower'),
      ('run', '(SELECT source_wf, target_wf, finished_at IS NOT NULL, migrated, skipped, failed FROM mako.migration_run)'),
      -- Their numbers tell when they were saved, and more of them than memory holds are saved before all are found.
      ('error', '(SELECT source_wf, stream_no, stream_id, phase, sequence_number, sqlstate, message, detail, hint
                  FROM mako.migration_error JOIN mako.migration_run USING (run_id))')
    ) AS p (name, source)
  LOOP
    EXECUTE format('SELECT count(*) || '' '' || coalesce(md5(string_agg(t::text, E''\n'' ORDER BY t::text COLLATE "C")), '''') FROM %s t', source) INTO sum;
    RETURN NEXT;
  END LOOP;
END $$;

-- The tables in which the two orders differ; the call is undone. What has been seen is told, so that a test can see that it was something.
CREATE TABLE o.seen (call text, failed bigint, migrated bigint);
CREATE FUNCTION o.differences(call text) RETURNS TABLE (name text, by_key text, by_heap text) LANGUAGE plpgsql AS $$
DECLARE
  outcomes text[];
  one text;
  counts text;
BEGIN
  FOR i IN 1 .. 2 LOOP
    BEGIN
      one := (SELECT jsonb_object_agg(r.name, r.sum) FROM o.outcome(call, (ARRAY['key', 'heap'])[i]) AS r);
      counts := (SELECT concat(sum(failed), ' ', sum(migrated)) FROM mako.migration_run WHERE run_id > (SELECT max(run_id) - 3 FROM mako.migration_run));
      RAISE EXCEPTION USING ERRCODE = 'MKTST', DETAIL = one, HINT = counts;
    EXCEPTION WHEN SQLSTATE 'MKTST' THEN
      GET STACKED DIAGNOSTICS one = PG_EXCEPTION_DETAIL, counts = PG_EXCEPTION_HINT;
    END;
    outcomes[i] := one;
  END LOOP;
  INSERT INTO o.seen SELECT call, split_part(counts, ' ', 1)::bigint, split_part(counts, ' ', 2)::bigint;
  RETURN QUERY SELECT k.key, k.value, h.value FROM jsonb_each_text(outcomes[1]::jsonb) AS k JOIN jsonb_each_text(outcomes[2]::jsonb) AS h USING (key)
    WHERE k.value IS DISTINCT FROM h.value;
END $$;

----------------------------------------------------------------------------------------------------
-- From the first event
----------------------------------------------------------------------------------------------------

SELECT is_empty($$ SELECT * FROM o.differences('mako_migrate(''a@FV2024-10-01'', ''a@FV2025-10-01'')') $$, 'as they were written');

\set version 'mako_migrate_version(''FV2024-10-01'', ''FV2025-10-01'')'
CREATE TEMPORARY TABLE way AS SELECT * FROM unnest(ARRAY['stream by stream', 'backwards', 'later events first', 'interleaved', 'neighbours shuffled', 'shuffled']) WITH ORDINALITY AS w (way, n);
CREATE FUNCTION pg_temp.all_ways(call text, seed text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
  way text;
BEGIN
  FOR way IN SELECT w.way FROM way w ORDER BY n LOOP
    PERFORM o.lay(way, seed);
    RETURN NEXT is_empty(format('SELECT * FROM o.differences(%L)', call), format('%s: %s', call, way));
  END LOOP;
END $$;
SELECT pg_temp.all_ways(:'version', :'seed');

BEGIN;
SET LOCAL mako_migration.batch_size = 1;
SELECT is_empty(format('SELECT * FROM o.differences(%L)', :'version'), 'shuffled, heads one by one');
ROLLBACK;
BEGIN;
SET LOCAL mako_migration.batch_size = 7;
SET LOCAL mako_migration.max_memory = '1MB';
SELECT is_empty(format('SELECT * FROM o.differences(%L)', :'version'), 'shuffled, in small batches and little memory');
SELECT o.lay('interleaved', :'seed');
SELECT is_empty(format('SELECT * FROM o.differences(%L)', :'version'), 'interleaved, in small batches and little memory');
ROLLBACK;
BEGIN;
SET LOCAL mako_migration.max_memory = '1MB';
SELECT o.lay('neighbours shuffled', :'seed');
SELECT pg_temp.all_ways(:'version', :'seed');
ROLLBACK;
SELECT is_empty($$ SELECT * FROM o.differences('mako_migrate(''a@FV2024-10-01'', ''a@FV2025-10-01'', update_registry => false)') $$, 'snapshots only');
SELECT is_empty($$ SELECT * FROM o.differences('mako_migrate(''a@FV2024-10-01'', ''a@FV2025-10-01'', in_flight_only => true)') $$, 'in flight only');
SELECT is_empty($$ SELECT * FROM o.differences('mako_migrate(''b@FV2024-10-01'', ''b@FV2025-10-01'')') $$, 'identity');

----------------------------------------------------------------------------------------------------
-- From boundaries
----------------------------------------------------------------------------------------------------

SET mako_migration.scan_order = heap;
SELECT count(*) FROM mako_migrate_version('FV2024-10-01', 'FV2025-10-01');
RESET mako_migration.scan_order;
SELECT o.append(0, 3, 1, 18) > 0 AS appended;
\set version 'mako_migrate_version(''FV2025-10-01'', ''FV2026-10-01'')'
SELECT pg_temp.all_ways(:'version', :'seed');
BEGIN;
SET LOCAL mako_migration.batch_size = 7;
SET LOCAL mako_migration.max_memory = '1MB';
SELECT pg_temp.all_ways(:'version', :'seed');
ROLLBACK;

-- Archived: of what lies below a boundary, some is gone.
BEGIN;
ALTER TABLE mako.event DISABLE TRIGGER USER;
DELETE FROM mako.event v USING mako.snapshot n WHERE n.stream_no = v.stream_no AND n.run_id > 0 AND v.sequence_number <= n.sequence_number AND v.stream_no % 2 = 0;
ALTER TABLE mako.event ENABLE TRIGGER USER;
SELECT pg_temp.all_ways(:'version', :'seed');
ROLLBACK;

----------------------------------------------------------------------------------------------------
-- Events that should not be
----------------------------------------------------------------------------------------------------

-- Behind everything else there come events beyond the head, some of streams that are empty; others are missing. Some streams have been
-- written by then, if there is little memory.
CREATE FUNCTION o.spoil() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  ALTER TABLE mako.event DISABLE TRIGGER USER;
  DELETE FROM mako.event WHERE stream_no % 41 = 5 AND sequence_number = 1 + stream_no % 3;
  INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
  SELECT stream_no, version + CASE stream_no % 3 WHEN 0 THEN 1 ELSE 7 END, workflow_id, 'Came', '{"n": 0}'
  FROM mako.stream WHERE stream_no % 37 = 4 OR stream_no % 46 = 0;
  ALTER TABLE mako.event ENABLE TRIGGER USER;
END $$;
BEGIN;
SELECT o.lay('interleaved', :'seed');
SELECT o.spoil();
SELECT is_empty(format('SELECT * FROM o.differences(%L)', :'version'), 'spoilt behind the rest');
SELECT cmp_ok(failed, '>', :streams / 100::bigint, 'many fail') FROM o.seen ORDER BY ctid DESC LIMIT 1;
SET LOCAL mako_migration.max_memory = '1MB';
SELECT is_empty(format('SELECT * FROM o.differences(%L)', :'version'), 'spoilt when most is written already');
SELECT is_empty($$ SELECT * FROM o.differences('mako_migrate(''a@FV2025-10-01'', ''a@FV2026-10-01'', update_registry => false)') $$, 'with snapshots only');
SELECT is_empty($$ SELECT * FROM o.differences('mako_migrate(''a@FV2025-10-01'', ''a@FV2026-10-01'', in_flight_only => true)') $$, 'with those in flight only');
SELECT o.lay('shuffled', :'seed');
SELECT is_empty(format('SELECT * FROM o.differences(%L)', :'version'), 'spoilt and shuffled');
ROLLBACK;

-- A caller who may insert snapshots, but not delete them.
BEGIN;
CREATE ROLE o_migrator;
GRANT USAGE ON SCHEMA mako, o TO o_migrator;
GRANT SELECT ON ALL TABLES IN SCHEMA mako TO o_migrator;
GRANT INSERT ON mako.snapshot, mako.repointed, mako.migration_run, mako.migration_error TO o_migrator;
GRANT UPDATE ON mako.stream, mako.migration_run, o.follower TO o_migrator;
GRANT SELECT ON o.follower TO o_migrator;
GRANT ALL ON o.seen TO o_migrator;
GRANT EXECUTE ON FUNCTION mako_migrate TO o_migrator;
GRANT o_migrator TO CURRENT_USER;
SELECT o.lay('interleaved', :'seed');
SELECT o.spoil();
SET LOCAL mako_migration.max_memory = '1MB';
SET LOCAL ROLE o_migrator;
SELECT is_empty($$ SELECT * FROM o.differences('mako_migrate(''a@FV2025-10-01'', ''a@FV2026-10-01'')') $$, 'he need not be allowed to');
RESET ROLE;
ROLLBACK;

----------------------------------------------------------------------------------------------------
-- Where heap order is not possible
----------------------------------------------------------------------------------------------------

-- How often all events are read, with heap order wherever it is possible.
CREATE FUNCTION o.scans() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  before bigint; after bigint;
BEGIN
  PERFORM set_config('mako_migration.scan_order', 'heap', true);
  SELECT seq_scan INTO before FROM pg_stat_xact_user_tables WHERE relid = 'mako.event'::regclass;
  PERFORM mako_migrate('b@FV2025-10-01', 'b@FV2026-10-01');
  SELECT seq_scan INTO after FROM pg_stat_xact_user_tables WHERE relid = 'mako.event'::regclass;
  RETURN coalesce(after, 0) - coalesce(before, 0);
END $$;
BEGIN;
SELECT is(o.scans(), 1::bigint, 'once where nothing is in the way');
ROLLBACK;
BEGIN;
CREATE TABLE o.child () INHERITS (mako.event);
SELECT is(o.scans(), 0::bigint, 'not with a child');
ROLLBACK;

-- Statistics decide: all of one workflow, and one of many.
CREATE FUNCTION o.scans_by_choice(source text, target text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  before bigint; after bigint;
BEGIN
  SELECT seq_scan INTO before FROM pg_stat_xact_user_tables WHERE relid = 'mako.event'::regclass;
  PERFORM mako_migrate(source, target);
  SELECT seq_scan INTO after FROM pg_stat_xact_user_tables WHERE relid = 'mako.event'::regclass;
  RETURN coalesce(after, 0) - coalesce(before, 0);
END $$;
SET mako_migration.scan_order = auto;
ANALYZE mako.stream;
BEGIN;
SELECT is(o.scans_by_choice('a@FV2025-10-01', 'a@FV2026-10-01'), 1::bigint, 'many matches are read in heap order');
ROLLBACK;
BEGIN;
SELECT is(o.scans_by_choice('b@FV2025-10-01', 'b@FV2026-10-01'), 0::bigint, 'few in key order');
ROLLBACK;
DELETE FROM pg_statistic WHERE starelid = 'mako.stream'::regclass;
BEGIN;
SELECT is(o.scans_by_choice('a@FV2025-10-01', 'a@FV2026-10-01'), 1::bigint, 'many are many without statistics too');
ROLLBACK;

SELECT cmp_ok(count(*), '>=', 12::bigint, 'much was compared') FROM o.seen WHERE migrated > 0 AND failed > 0;
SELECT * FROM finish();
