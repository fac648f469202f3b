-- Registered functions that call the extension again: themselves without end, the states of other
-- streams, the migration that is under way, an append to the stream that is being read. Each gives
-- a state or an error of its stream, and heads, events and snapshots stay in order.
-- Runs in an empty database.

CREATE EXTENSION pgtap;
\set streams 6
\ir include/two_workflows.sql
\ir include/helpers.sql
SET client_min_messages = warning;

-- Hides from the extension what it is asked to do.
CREATE FUNCTION lib.ask(statement text) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  answer text;
BEGIN
  EXECUTE statement INTO answer;
  RETURN answer;
END
$$;
CREATE FUNCTION lib.endless(state jsonb, event_type text, payload jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
BEGIN
  RETURN mako_fold('endless@FV2024-10-01', '[{"event_type": "Said", "payload": {}}]');
END
$$;
CREATE FUNCTION lib.others(state jsonb, event_type text, payload jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
BEGIN
  RETURN (SELECT jsonb_agg(t.state ORDER BY s.stream_no)
          FROM mako.stream s, mako_state(s.stream_id) t WHERE s.workflow_id ~ '^native');
END
$$;
CREATE FUNCTION lib.folds(state jsonb, event_type text, payload jsonb) RETURNS jsonb
LANGUAGE sql STABLE AS $$
  SELECT jsonb_build_object(
    'folded', mako_fold('native@FV2024-10-01', '[{"event_type": "Opened", "payload": {"by": 1}}]'),
    'migrated', mako_migrate_state('native@FV2024-10-01', 'native@FV2025-10-01', '{"by": 2}'))
$$;
CREATE FUNCTION lib.migrates(state jsonb, event_type text, payload jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
BEGIN
  RETURN to_jsonb(lib.ask($q$SELECT migrated FROM mako_migrate('native@FV2024-10-01',
                                                               'native@FV2025-10-01')$q$));
END
$$;
CREATE FUNCTION lib.appends(state jsonb, event_type text, payload jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
BEGIN
  RETURN to_jsonb(lib.ask($q$SELECT mako_append('appends', 'appends@FV2024-10-01',
                                                'Said', '{}')$q$));
END
$$;

CREATE TEMPORARY TABLE kind AS
SELECT unnest('{endless,others,folds,migrates,appends}'::text[]) AS name;
SELECT count(mako_register_workflow(name || v, 'lib.' || name, initial_state => '{}'))
FROM kind, unnest('{@FV2024-10-01,@FV2025-10-01}'::text[]) AS v;
SELECT count(mako_register_migration(name || '@FV2024-10-01', name || '@FV2025-10-01')) FROM kind;
INSERT INTO mako.stream (stream_id, workflow_id) SELECT name, name || '@FV2024-10-01' FROM kind;
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
SELECT stream_no, 1, workflow_id, 'Said', '{}' FROM mako.stream JOIN kind ON name = stream_id;

-- What does not hold of a stream: its head counts its events.
CREATE VIEW lib.disorder AS
SELECT s.stream_id, s.version, e.events, e.last
FROM mako.stream s,
     LATERAL (SELECT count(*) AS events, max(sequence_number) AS last FROM mako.event e
              WHERE e.stream_no = s.stream_no) AS e
WHERE (s.version, s.version) IS DISTINCT FROM (e.events, e.last);

SELECT plan(32);

SELECT is(split_part(pg_temp.error($$SELECT mako_fold('endless@FV2024-10-01',
                                    '[{"event_type": "Said", "payload": {}}]')$$), '|', 1),
          '54001', 'a fold that calls itself without end');
SELECT is(split_part(pg_temp.error($$SELECT mako_state('endless')$$), '|', 1),
          '54001', 'a state that does');
SELECT is((SELECT jsonb_array_length(state) FROM mako_state('others')), 3,
          'a state of other states');
SELECT is((SELECT state FROM mako_state('folds')),
          '{"folded": {"by": 1, "count": 0}, "migrated": {"by": 2, "layout": 2}}',
          'a state of a fold and a step');

-- In a state, a writing function is refused, or does what it does alone.
DO $$
BEGIN
  PERFORM mako_state('migrates'), mako_state('appends');
EXCEPTION WHEN OTHERS THEN
END
$$;
SELECT is_empty('TABLE lib.disorder', 'states of functions that write leave heads in order');

CREATE TEMPORARY TABLE report AS
SELECT name, r.migrated, r.failed, (r.errors)[1].sqlstate AS sqlstate
FROM kind, mako_migrate(name || '@FV2024-10-01', name || '@FV2025-10-01') AS r;
SELECT is(pg_temp.rows($$SELECT migrated, failed, sqlstate FROM report WHERE name = 'endless'$$),
          '0|1|54001', 'the stream without end fails');
SELECT is(pg_temp.rows($$SELECT migrated, failed FROM report WHERE name = 'others'$$), '1|0',
          'the stream of others is migrated');
SELECT is(pg_temp.rows($$SELECT migrated, failed FROM report WHERE name = 'folds'$$), '1|0',
          'so is that of folds');
SELECT is(pg_temp.rows($$SELECT migrated, failed FROM report WHERE name = 'migrates'$$), '0|1',
          'a migration within a migration fails');
SELECT isnt((SELECT sqlstate FROM report WHERE name = 'migrates'), 'XX000',
            '... with an error of its own');
SELECT is((SELECT migrated + failed FROM report WHERE name = 'appends'), 1::bigint,
          'an append is decided, either way');
SELECT is_empty('TABLE lib.disorder', 'and leaves heads in order');
SELECT is(pg_temp.rows('SELECT name, workflow_id = name || ''@FV2025-10-01'' AS moved
                        FROM report JOIN mako.stream ON name = stream_id
                        WHERE (migrated = 1) <> (workflow_id = name || ''@FV2025-10-01'')'),
          NULL, 'streams are where the reports say');
SELECT is((SELECT count(*) FROM mako.snapshot n JOIN mako.stream s USING (stream_no)
           WHERE s.stream_id IN ('others', 'folds') AND n.run_id > 0), 2::bigint,
          'with their snapshots');
SELECT is_empty($$SELECT code, message FROM mako_check(0)
                  WHERE severity = 'error' AND subject NOT LIKE '%appends%'$$,
                'the store is in order');
SELECT is_empty($$SELECT * FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()$$,
                'no lock is left');
SELECT is_empty($$SELECT code, subject, message FROM mako_check(0) WHERE severity = 'error'$$,
                'the store is whole');

-- A trigger appends to a stream whose head a run has yet to fetch: the stream moves, with that event,
-- or fails; it is not passed over.
CREATE TABLE lib.due (process uuid, workflow_id text);
SELECT count(mako_register_workflow(name || v, 'lib.apply_plain', initial_state => '{}'))
FROM unnest('{left,right}'::text[]) AS name, unnest('{@FV2026-10-01,@FV2027-10-01}'::text[]) AS v;
SELECT count(mako_register_migration(name || '@FV2026-10-01', name || '@FV2027-10-01', 'lib.forth'))
FROM unnest('{left,right}'::text[]) AS name;
INSERT INTO mako.stream (stream_id, tenant_id, process_id, workflow_id)
SELECT format('process/%s/%s', tenant, process), tenant, process, name || '@FV2026-10-01'
FROM (SELECT name, n, 'aaaaaaaa-0000-4000-8000-000000000009'::uuid AS tenant, md5(name || n)::uuid AS process
      FROM unnest('{left,right}'::text[]) AS name, generate_series(1, 600) AS n) AS ids
ORDER BY name, n;
CREATE TABLE lib.streams AS
SELECT row_number() OVER (PARTITION BY workflow_id ORDER BY stream_no) AS n,
       split_part(workflow_id, '@', 1) AS name, stream_no, process_id, workflow_id
FROM mako.stream WHERE workflow_id ~ '@FV2026';
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
SELECT stream_no, 1, workflow_id, 'Said', jsonb_build_object('note', repeat('x', 1000)) FROM lib.streams;
INSERT INTO lib.due SELECT process_id, workflow_id FROM lib.streams WHERE n = 1;
CREATE FUNCTION lib.tells() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM public.mako_append(s.stream_id, s.workflow_id, 'Told', '{}')
  FROM mako.stream s JOIN lib.streams l USING (stream_no)
  WHERE l.name = TG_ARGV[0] AND l.n >= TG_ARGV[1]::int;
  RETURN NULL;
END
$$;
-- Counts and codes of the reports of a call, and how many streams are at the target then.
CREATE FUNCTION lib.report(call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  answer text;
BEGIN
  EXECUTE $q$SELECT string_agg(format('%s/%s/%s ', migrated, skipped, failed), '' ORDER BY source_wf)
                    || coalesce(string_agg(DISTINCT (errors)[1].sqlstate, ','), '-') FROM $q$ || call INTO answer;
  RETURN format('%s, %s there', answer, (SELECT count(*) FROM mako.stream WHERE workflow_id ~ '@FV2027'));
END
$$;
\set left '$$mako_migrate(''left@FV2026-10-01'', ''left@FV2027-10-01'')$$'
SET mako_migration.batch_size = 10;
SET mako_migration.max_memory = '2MB';
SET mako_migration.scan_order = 'key';

BEGIN;
CREATE TRIGGER tells AFTER INSERT ON mako.migration_run FOR EACH ROW EXECUTE FUNCTION lib.tells('left', 590);
SELECT is(lib.report(:left), '600/611/0 -, 600 there', 'streams that a trigger on the runs appends to');
SELECT is((SELECT version FROM mako.stream JOIN lib.streams l USING (stream_no) WHERE name = 'left' AND n = 600),
          2::bigint, '... with the events');
SELECT is_empty('TABLE lib.disorder', '... and heads in order');
ROLLBACK;
BEGIN;
CREATE TRIGGER tells AFTER INSERT ON mako.migration_run FOR EACH ROW EXECUTE FUNCTION lib.tells('left', 1);
SELECT is(lib.report(:left), '600/611/0 -, 600 there', '... or all of them');
ROLLBACK;
BEGIN;
CREATE TRIGGER tells AFTER INSERT ON mako.migration_run FOR EACH ROW EXECUTE FUNCTION lib.tells('left', 590);
SET LOCAL mako_migration.scan_order = 'heap';
SELECT is(lib.report(:left), '600/611/0 -, 600 there', '... in heap order');
ROLLBACK;
BEGIN;
CREATE TRIGGER tells AFTER INSERT ON mako.migration_run FOR EACH ROW EXECUTE FUNCTION lib.tells('left', 590);
SELECT is(lib.report($$mako_migrate('left@FV2026-10-01', 'left@FV2027-10-01', update_registry => false)$$),
          '600/611/0 -, 0 there', '... while heads are left alone');
ROLLBACK;
BEGIN;
CREATE TRIGGER tells AFTER INSERT ON mako.migration_run FOR EACH ROW EXECUTE FUNCTION lib.tells('left', 590);
SELECT is(lib.report($$mako_migrate('left@FV2026-10-01', 'left@FV2027-10-01', 'aaaaaaaa-0000-4000-8000-000000000009')$$),
          '600/600/0 -, 600 there', '... of a tenant');
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
CREATE TRIGGER tells AFTER INSERT ON mako.migration_run FOR EACH ROW EXECUTE FUNCTION lib.tells('left', 590);
SELECT is(lib.report(:left), '600/611/0 -, 600 there', '... with a snapshot that lasts');
ROLLBACK;

-- Between two batches: a stream that is far behind those that are written.
BEGIN;
CREATE TRIGGER tells AFTER INSERT ON mako.snapshot FOR EACH ROW WHEN (NEW.stream_no % 100 = 0)
EXECUTE FUNCTION lib.tells('left', 600);
SELECT is(lib.report(:left), '600/611/0 -, 600 there', 'a stream that a trigger on the snapshots appends to');
SELECT is_empty('TABLE lib.disorder', '... has its head in order');
ROLLBACK;
BEGIN;
CREATE TRIGGER tells AFTER INSERT ON mako.snapshot FOR EACH ROW EXECUTE FUNCTION lib.tells('left', 600);
SELECT is(lib.report(:left), '599/611/1 55000, 599 there',
               'one that appends whatever is written comes to an end');
ROLLBACK;
BEGIN;
SELECT mako_add_dependent('lib.due', 'process', 'workflow_id');
CREATE TRIGGER tells AFTER UPDATE ON lib.due FOR EACH ROW EXECUTE FUNCTION lib.tells('right', 600);
SELECT is(lib.report($$mako_migrate_version('FV2026-10-01', 'FV2027-10-01')$$), '600/0/0 600/0/0 -, 1200 there',
          'a stream of another workflow that a trigger on a dependent appends to');
ROLLBACK;

-- A batch of more streams than are fetched at once.
CREATE TRIGGER tells AFTER INSERT ON mako.snapshot FOR EACH ROW WHEN (NEW.stream_no % 100 = 0)
EXECUTE FUNCTION lib.tells('left', 600);
CALL mako_migrate_batched('left@FV2026-10-01', 'left@FV2027-10-01', 1000, report => NULL);
SELECT is(lib.report($$(SELECT source_wf, migrated, skipped, failed, NULL::mako_migration_error[] AS errors
                        FROM mako.migration_run ORDER BY run_id DESC LIMIT 1) AS r$$),
          '600/611/0 -, 600 there', 'a batch of many');
DROP TRIGGER tells ON mako.snapshot;

-- What a trigger appends to on the way back stays, and fails.
SELECT max(run_id) AS last_run FROM mako.migration_run \gset
BEGIN;
CREATE TRIGGER tells AFTER INSERT ON mako.reverted FOR EACH ROW WHEN (NEW.stream_no % 100 = 0)
EXECUTE FUNCTION lib.tells('left', 600);
SELECT is(lib.report(format('mako_revert(%s)', :last_run)), '599/0/1 55000, 1 there', 'a revert');
ROLLBACK;
SELECT is_empty('TABLE lib.disorder', 'all heads are in order');

SELECT * FROM finish();
