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

SELECT plan(17);

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

SELECT * FROM finish();
