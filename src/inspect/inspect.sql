-- -------------------------------------------------------------------------------------------------
-- Before the migration

CREATE FUNCTION mako_plan(
  source_wf mako_workflow_id, target_wf mako_workflow_id, tenant_id uuid DEFAULT NULL,
  in_flight_only boolean DEFAULT false)
RETURNS TABLE (
  step integer, kind text, source_wf text, target_wf text, function text, evaluation text,
  streams bigint, in_flight bigint, events bigint, scan_order text, workers text,
  blockers text[], fingerprint text)
LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_plan(mako_workflow_id, mako_workflow_id, uuid, boolean) IS
'what mako_migrate() would use: functions and steps; '
'the last row has streams, events, blockers and the fingerprint to expect';

CREATE FUNCTION mako_dry_run(
  source_wf mako_workflow_id, target_wf mako_workflow_id, tenant_id uuid DEFAULT NULL,
  in_flight_only boolean DEFAULT false, sample bigint DEFAULT NULL, seed bigint DEFAULT 0)
RETURNS TABLE (
  stream_id text, sequence_number bigint, old_state jsonb, new_state jsonb, changes jsonb,
  error mako_migration_error)
LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_dry_run(
  mako_workflow_id, mako_workflow_id, uuid, boolean, bigint, bigint) IS
'what mako_migrate() would do, one row a stream, with old and new state; writes and locks nothing; '
'the same seed gives the same sample';

-- The rows come in the order of stream_no, so the lowest number of a row tells which stream is the
-- first one.
CREATE FUNCTION mako_dry_run_summary(
  source_wf mako_workflow_id, target_wf mako_workflow_id, tenant_id uuid DEFAULT NULL,
  in_flight_only boolean DEFAULT false, sample bigint DEFAULT NULL, seed bigint DEFAULT 0)
RETURNS TABLE (
  outcome text, phase text, sqlstate text, message text, streams bigint, example text)
LANGUAGE sql STABLE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS
$$
SELECT g.outcome, g.phase, g.sqlstate, g.message, g.streams, substr(g.first, 20)
FROM (SELECT r.outcome, r.phase, r.sqlstate, r.message, count(*) AS streams,
             min(lpad(r.n::text, 19, '0') || r.stream_id COLLATE "C") AS first
      FROM (SELECT d.n, d.stream_id, (d.error).phase, (d.error).sqlstate, (d.error).message,
                   CASE WHEN (d.error).phase IS NOT NULL THEN 'fail'
                        WHEN d.new_state IS NULL THEN 'repoint'
                        ELSE 'migrate' END AS outcome
            FROM @extschema@.mako_dry_run(source_wf, target_wf, tenant_id, in_flight_only,
                                          sample, seed) WITH ORDINALITY
                 AS d (stream_id, sequence_number, old_state, new_state, changes, error, n)) AS r
      GROUP BY r.outcome, r.phase, r.sqlstate, r.message) AS g
ORDER BY g.streams DESC, g.first
$$;
COMMENT ON FUNCTION mako_dry_run_summary(
  mako_workflow_id, mako_workflow_id, uuid, boolean, bigint, bigint) IS
'the rows of mako_dry_run(), counted by outcome (migrate, repoint, fail) and cause, '
'the most frequent first, with the first stream of each';

-- -------------------------------------------------------------------------------------------------
-- Proofs and pictures: what is stored against what the events say

CREATE FUNCTION mako_verify(run_id bigint)
RETURNS TABLE (
  stream_id text, sequence_number bigint, problem text, stored jsonb, computed jsonb,
  differs_from bigint)
LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_verify(bigint) IS
'computes every snapshot of a run again from the events, through every recorded move; '
'a row for each thing that differs';

CREATE FUNCTION mako_verify_snapshots(workflow_id mako_workflow_id)
RETURNS TABLE (
  stream_id text, sequence_number bigint, problem text, stored jsonb, computed jsonb,
  differs_from bigint)
LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_verify_snapshots(mako_workflow_id) IS
'folds to every periodic snapshot under a workflow and compares, '
'which shows if the registered apply is the application''s; a row for each thing that differs';

CREATE FUNCTION mako_transitions(workflow_id mako_workflow_id, tag text DEFAULT 'status')
RETURNS TABLE (from_state text, event_type text, to_state text, count bigint)
LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_transitions(mako_workflow_id, text) IS
'the state machine that the streams of a workflow went through; tag is the key that names a state; '
'null stands for its only key, or the string that it is';

-- A first row without from_state and event_type leads to the initial state. rests says that a
-- stream which came this way is still in to_state, and in flight.
CREATE FUNCTION mako_transition_rows(workflow_id mako_workflow_id, tag text)
RETURNS TABLE (from_state text, event_type text, to_state text, count bigint, rests boolean)
LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_transition_rows(mako_workflow_id, text) IS
'what mako_state_diagram() draws; for its own use';

CREATE FUNCTION mako_state_diagram(workflow_id mako_workflow_id, tag text DEFAULT 'status')
RETURNS text
LANGUAGE sql STABLE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS
$$
  WITH
  -- A state is an array of its name, so that two without a name are equal.
  transition AS MATERIALIZED (
    SELECT t.n, t.event_type, t.count, t.rests,
           ARRAY[t.from_state] AS source, ARRAY[t.to_state] AS target
    FROM @extschema@.mako_transition_rows(workflow_id, tag) WITH ORDINALITY
         AS t (from_state, event_type, to_state, count, rests, n)),
  -- The states in the order in which they are met. Mermaid takes a plain name as it is, unless it
  -- is a word of its own.
  state AS MATERIALIZED (
    SELECT s.state, s.state[1] AS name, min(s.place) AS place,
           bool_or(s.is_reached) AND NOT bool_or(s.leads_on OR s.rests) AS is_final,
           s.state[1] IS NOT NULL AND s.state[1] ~ '^[A-Za-z][A-Za-z0-9_]*$'
           AND lower(s.state[1] COLLATE "C") <> ALL (ARRAY[
             'state', 'note', 'end', 'direction', 'class', 'classdef', 'style', 'as', 'default',
             'click', 'href', 'statediagram', 'hide', 'scale']) AS is_plain
    FROM (SELECT t.source AS state, 2 * t.n AS place, false AS is_reached,
                 t.source <> t.target AS leads_on, false AS rests
          FROM transition t WHERE t.event_type IS NOT NULL
          UNION ALL
          SELECT t.target, 2 * t.n + 1, t.event_type IS NOT NULL, false, t.rests
          FROM transition t) AS s
    GROUP BY s.state),
  -- Names with numbers for the others: those that no state is called.
  free AS (
    SELECT f.id, row_number() OVER (ORDER BY f.i) AS number
    FROM (SELECT i, 's' || i AS id FROM generate_series(1, (SELECT count(*) FROM state)) AS i) AS f
    WHERE NOT EXISTS (SELECT FROM state s WHERE s.name = f.id)),
  node AS MATERIALIZED (
    SELECT s.state, s.name, s.place, s.is_final, s.is_plain, coalesce(f.id, s.name) AS id
    FROM (SELECT s.*, row_number() OVER (PARTITION BY s.is_plain ORDER BY s.place) AS number
          FROM state s) AS s
    LEFT JOIN free f ON f.number = s.number AND NOT s.is_plain),
  -- The lines. What is in the middle may mean something to Mermaid.
  line (part, number, head, middle, tail) AS (
    SELECT 1, 0, 'stateDiagram-v2', '', ''
    UNION ALL
    SELECT 2, n.place, '    state "', coalesce(n.name, '(none)'), '" as ' || n.id
    FROM node n WHERE NOT n.is_plain
    UNION ALL
    SELECT 3, 0, '    [*] --> ' || n.id, '', ''
    FROM transition t JOIN node n ON n.state = t.target WHERE t.event_type IS NULL
    UNION ALL
    SELECT 4, t.n, '    ' || a.id || ' --> ' || b.id || ': ', t.event_type, ' (' || t.count || ')'
    FROM transition t JOIN node a ON a.state = t.source JOIN node b ON b.state = t.target
    WHERE t.event_type IS NOT NULL
    UNION ALL
    SELECT 5, n.place, '    ' || n.id || ' --> [*]', '', '' FROM node n WHERE n.is_final)
  SELECT string_agg(concat(l.head, m.escaped, l.tail, chr(10)), '' ORDER BY l.part, l.number)
  FROM line l
  CROSS JOIN LATERAL (
    SELECT string_agg(CASE WHEN c.sign < ' ' COLLATE "C" OR strpos('"#;:<>&', c.sign) > 0
                           THEN '#' || ascii(c.sign) || ';' ELSE c.sign END, '' ORDER BY c.i)
           AS escaped
    FROM unnest(string_to_array(l.middle, NULL)) WITH ORDINALITY AS c (sign, i)) AS m
$$;
COMMENT ON FUNCTION mako_state_diagram(mako_workflow_id, text) IS
'what mako_transitions() gives, as a Mermaid diagram';

-- -------------------------------------------------------------------------------------------------
-- Diagnostics

CREATE FUNCTION mako_step_finding(retired text[])
RETURNS TABLE (severity text, code text, subject text, message text, hint text)
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS
$$
  WITH RECURSIVE
  workflow AS (
    SELECT w.workflow_id::text AS id, split_part(w.workflow_id::text, '@', 1) AS name,
           split_part(w.workflow_id::text, '@', 2) AS version, w.state_schema_version
    FROM @extschema@.mako_workflow w),
  step AS (
    SELECT m.source_wf::text AS source, m.target_wf::text AS target
    FROM @extschema@.mako_state_migration m),
  reach AS (
    SELECT s.source, s.target FROM step s
    UNION
    SELECT r.source, s.target FROM reach r JOIN step s ON s.source = r.target)
  -- A cycle is one row, at the first of its workflows.
  SELECT 'info', 'cycle', c.first,
         format('steps lead from it back to it: %s',
                string_agg(c.member, ', ' ORDER BY c.member COLLATE "C")),
         'That is fine for a way back; nothing is migrated in circles by itself.'
  FROM (SELECT a.source AS member, min(b.source COLLATE "C") AS first
        FROM reach a JOIN reach b ON b.source = a.target AND b.target = a.source
        WHERE EXISTS (SELECT FROM reach o WHERE o.source = a.source AND o.target = a.source)
        GROUP BY a.source) AS c
  GROUP BY c.first
  UNION ALL
  SELECT 'warning', 'no_way_out', w.id,
         format('no step leads out of it, but version %s is registered',
                max(n.version COLLATE "C")),
         'Register a step with mako_register_migration(), '
         'or exempt the workflow with mako_exempt().'
  FROM workflow w
  JOIN workflow n ON n.name = w.name AND n.version > w.version COLLATE "C"
  WHERE NOT EXISTS (SELECT FROM step s WHERE s.source = w.id)
    AND NOT EXISTS (SELECT FROM @extschema@.mako_exemption x WHERE x.workflow_id::text = w.id)
    AND w.version <> ALL (retired)
  GROUP BY w.id
  UNION ALL
  SELECT 'error', 'target_retired', format('%s -> %s', s.source, s.target),
         format('it leads to version %s, which is retired', t.version),
         format('If no stream is left under version %s, retire it, too. '
                'Otherwise, register a step to a version that is not retired.', w.version)
  FROM step s JOIN workflow w ON w.id = s.source JOIN workflow t ON t.id = s.target
  WHERE t.version = ANY (retired) AND w.version <> ALL (retired)
  UNION ALL
  SELECT 'info', 'schema_version_back', format('%s -> %s', s.source, s.target),
         format('state schema version %s becomes %s',
                w.state_schema_version, t.state_schema_version),
         'That is fine for a way back.'
  FROM step s JOIN workflow w ON w.id = s.source JOIN workflow t ON t.id = s.target
  WHERE t.state_schema_version < w.state_schema_version
$$;
COMMENT ON FUNCTION mako_step_finding(text[]) IS
'what mako_check() finds in the registered steps; '
'takes the retired format versions, because there may be no store';

CREATE FUNCTION mako_store_finding_rows()
RETURNS TABLE (severity text, code text, subject text, message text, hint text)
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
SET work_mem = '64MB' AS
$$
#variable_conflict use_column
BEGIN
  PERFORM @extschema@.mako_assert_delegated();
  IF @extschema@.mako_is_attached() THEN
    RETURN QUERY
    SELECT 'error', 'events_without_head', CASE WHEN o.number <= 20 THEN o.stream_id ELSE '*' END,
           CASE WHEN o.number <= 20 THEN format('it has %s events, but no head', o.events)
                ELSE format('%s more like those', o.found - 20) END,
           'Events were written past the triggers: detach the event store, and attach it again.'
    FROM (SELECT a.stream_id, count(*) AS events, count(*) OVER () AS found,
                 row_number() OVER (ORDER BY a.stream_id) AS number
          FROM mako.attached_event a
          WHERE a.sequence_number IS NOT NULL AND a.stream_id IS NOT NULL
            AND NOT EXISTS (SELECT FROM mako.stream s WHERE s.stream_id = a.stream_id)
          GROUP BY a.stream_id) AS o
    WHERE o.number <= 21 ORDER BY o.number;
  END IF;
  RETURN QUERY
  WITH RECURSIVE
  relations AS (
    SELECT c.oid, quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS name
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace),
  step AS (
    SELECT m.source_wf::text AS source, m.target_wf::text AS target
    FROM @extschema@.mako_state_migration m),
  reach AS (
    SELECT s.source, s.target FROM step s
    UNION
    SELECT r.source, s.target FROM reach r JOIN step s ON s.source = r.target),
  -- The events of a stream. This is the only pass over the events, unless some do not fit.
  history AS (
    SELECT e.stream_no, count(*) AS events,
           min(e.sequence_number) AS first, max(e.sequence_number) AS last,
           min(e.workflow_id) AS lowest, max(e.workflow_id) AS highest
    FROM mako.event e GROUP BY e.stream_no),
  -- What applications and runs have left with a stream. It moves where a run repointed it, or else
  -- at the run's snapshot.
  mark AS NOT MATERIALIZED (
    SELECT m.stream_no, m.sequence_number, m.run_id, m.is_snapshot,
           v.run_id IS NULL AS stands, r.run_id IS NOT NULL AS is_known,
           m.may_move AND v.run_id IS NULL AND m.run_id > 0 AND r.update_registry
             AND r.kind <> 'revert' AS moves
    FROM (SELECT n.stream_no, n.sequence_number, n.run_id, true AS is_snapshot,
                 p.run_id IS NULL AS may_move
          FROM mako.snapshot n
          LEFT JOIN mako.repointed p ON p.stream_no = n.stream_no AND p.run_id = n.run_id
          UNION ALL
          SELECT p.stream_no, p.sequence_number, p.run_id, false, true FROM mako.repointed p) AS m
    LEFT JOIN mako.migration_run r ON r.run_id = m.run_id
    LEFT JOIN mako.reverted v ON v.stream_no = m.stream_no AND v.run_id = m.run_id),
  marked AS (
    SELECT m.stream_no,
           max(m.sequence_number) FILTER (WHERE m.is_snapshot AND m.stands) AS saved,
           max(m.sequence_number) FILTER (WHERE m.is_snapshot) AS furthest,
           bool_or(m.is_snapshot AND m.run_id <> 0 AND NOT m.is_known) AS of_unknown_run,
           count(*) FILTER (WHERE m.moves) AS moves, max(m.run_id) FILTER (WHERE m.moves) AS run_id,
           max(m.sequence_number) FILTER (WHERE m.moves) AS moved_at
    FROM mark m GROUP BY m.stream_no),
  -- Everything that has a number, with what is known of it: its head, unless stream_id is null;
  -- its events, unless last is null; its snapshots, unless furthest is null; its moves, unless
  -- run_id is null, which is that of the last one. Left out is what all fits at first sight: the
  -- events are complete, and of one workflow, that of the head or on one side of its only move.
  known AS MATERIALIZED (
    SELECT stream_no, s.stream_id, s.version, s.workflow_id,
           h.events, h.first, h.last, h.lowest, h.highest,
           a.saved, a.furthest, a.of_unknown_run, a.moves, a.run_id, a.moved_at,
           r.source_wf, r.target_wf
    FROM mako.stream s FULL JOIN history h USING (stream_no) FULL JOIN marked a USING (stream_no)
    LEFT JOIN mako.migration_run r ON r.run_id = a.run_id
    WHERE (s.version = COALESCE(h.last, 0)
           AND (h.last IS NULL OR h.first = 1 AND h.events = h.last AND h.lowest = h.highest)
           AND COALESCE(a.furthest <= s.version, true) AND a.of_unknown_run IS NOT TRUE
           AND CASE WHEN a.run_id IS NULL THEN COALESCE(h.lowest, s.workflow_id) = s.workflow_id
                    ELSE a.moves = 1 AND s.workflow_id = r.target_wf
                         AND (h.last IS NULL
                              OR h.lowest = r.source_wf AND h.last <= a.moved_at
                              OR h.lowest = r.target_wf AND h.first > a.moved_at) END) IS NOT TRUE),
  -- Of these, the events by workflow.
  part AS MATERIALIZED (
    SELECT e.stream_no, e.workflow_id, count(*) AS events,
           min(e.sequence_number) AS first, max(e.sequence_number) AS last
    FROM known k JOIN mako.event e ON e.stream_no = k.stream_no
    GROUP BY e.stream_no, e.workflow_id),
  -- The workflow of the last event, where there is more than one and no move tells it.
  latest AS (
    SELECT DISTINCT ON (p.stream_no) p.stream_no, p.workflow_id
    FROM known k JOIN part p ON p.stream_no = k.stream_no
    WHERE k.lowest <> k.highest AND k.run_id IS NULL
    ORDER BY p.stream_no, p.last DESC),
  -- Where each stream must be now: where its last move led, or where its last event was written.
  place AS MATERIALIZED (
    SELECT k.stream_no, k.stream_id, k.workflow_id, k.run_id, k.moves, k.moved_at,
           k.source_wf, k.target_wf,
           COALESCE(k.target_wf, l.workflow_id, k.lowest, k.workflow_id) AS expected
    FROM known k
    LEFT JOIN latest l ON l.stream_no = k.stream_no
    WHERE k.stream_id IS NOT NULL AND k.of_unknown_run IS NOT TRUE),
  -- Streams some of whose events may not fit: what has moved once at most is told at once.
  doubted AS MATERIALIZED (
    SELECT DISTINCT p.stream_no
    FROM part p JOIN place l ON l.stream_no = p.stream_no AND l.workflow_id = l.expected
    WHERE CASE WHEN l.run_id IS NULL THEN p.workflow_id <> l.workflow_id
               WHEN l.moves > 1 THEN true
               ELSE NOT (p.workflow_id = l.source_wf AND p.last <= l.moved_at
                         OR p.workflow_id = l.target_wf AND p.first > l.moved_at) END),
  -- The recorded moves of these in order.
  move AS MATERIALIZED (
    SELECT m.stream_no, m.sequence_number, m.run_id, r.source_wf, r.target_wf,
           m.is_snapshot AS has_snapshot,
           row_number() OVER w AS number, lead(m.sequence_number) OVER w AS next
    FROM mark m
    JOIN doubted d ON d.stream_no = m.stream_no
    JOIN mako.migration_run r ON r.run_id = m.run_id
    WHERE m.moves AND (SELECT count(*) > 0 FROM doubted)
    WINDOW w AS (PARTITION BY m.stream_no ORDER BY m.run_id)),
  -- The workflow that such a stream ran under, from one sequence number (exclusive) to another.
  term AS MATERIALIZED (
    SELECT m.stream_no, m.sequence_number AS after,
           COALESCE(m.next, 9223372036854775807) AS through, m.target_wf AS workflow_id,
           false AS is_first
    FROM move m
    UNION ALL
    SELECT m.stream_no, 0, m.sequence_number, m.source_wf, true FROM move m WHERE m.number = 1
    UNION ALL
    SELECT p.stream_no, 0, 9223372036854775807, p.workflow_id, true
    FROM place p JOIN doubted d ON d.stream_no = p.stream_no WHERE p.run_id IS NULL),
  -- Those of which some do not fit at first sight. An imported history may have begun under
  -- workflows that lead to the first.
  suspect AS MATERIALIZED (
    SELECT DISTINCT p.stream_no
    FROM part p
    JOIN doubted d ON d.stream_no = p.stream_no
    WHERE NOT EXISTS (SELECT FROM term t
                      WHERE t.stream_no = p.stream_no AND t.workflow_id = p.workflow_id
                        AND t.after < p.first AND t.through >= p.last)),
  misfit AS (
    SELECT e.stream_no, min(e.sequence_number) AS sequence_number
    FROM suspect x
    JOIN mako.event e ON e.stream_no = x.stream_no
    JOIN term t ON t.stream_no = e.stream_no
                   AND t.after < e.sequence_number AND t.through >= e.sequence_number
    LEFT JOIN part p ON p.stream_no = t.stream_no AND p.workflow_id = t.workflow_id
    WHERE e.workflow_id <> t.workflow_id
      AND NOT (t.is_first AND (p.first IS NULL OR e.sequence_number < p.first)
               AND EXISTS (SELECT FROM reach r
                           WHERE r.source = e.workflow_id AND r.target = t.workflow_id))
    GROUP BY e.stream_no),
  -- An event of the workflow that a stream has left, behind the move; or of the one that it goes
  -- to, before it.
  misplaced AS (
    SELECT f.stream_no, f.sequence_number, e.workflow_id,
           (SELECT m.run_id FROM move m
            WHERE m.stream_no = f.stream_no AND m.has_snapshot
              AND (m.source_wf = e.workflow_id AND m.sequence_number < f.sequence_number
                   OR m.target_wf = e.workflow_id AND m.sequence_number >= f.sequence_number)
            ORDER BY abs(m.sequence_number - f.sequence_number), m.run_id LIMIT 1) AS run_id
    FROM misfit f
    JOIN mako.event e ON e.stream_no = f.stream_no AND e.sequence_number = f.sequence_number),
  -- What is wrong with single streams.
  broken (severity, code, subject, message, hint) AS (
    SELECT 'error', 'head_behind', k.stream_id,
           format('its head is at version %s, but its last event is %s', k.version, k.last),
           CASE WHEN @extschema@.mako_is_attached()
                THEN 'Events were written past the triggers: '
                     'detach the event store, and attach it again.'
                ELSE 'Appending fails until the head is right. '
                     'mako_adopt_events() sets the heads of histories that were loaded.' END
    FROM known k WHERE k.last > k.version
    UNION ALL
    SELECT 'error', 'head_ahead', k.stream_id,
           format('its head is at version %s, but its last event is %s',
                  k.version, COALESCE(k.last, 0)),
           'Events are lost: restore them from a backup; '
           'unless they are in an event store that is detached.'
    FROM known k
    WHERE COALESCE(k.last, 0) < k.version
      AND (k.last IS NOT NULL OR COALESCE(k.saved, 0) < k.version)
    UNION ALL
    SELECT 'error', 'events_without_head', k.stream_no::text,
           format('stream number %s has %s events, but no head', k.stream_no, k.events),
           'Restore the head from a backup.'
    FROM known k WHERE k.stream_id IS NULL AND k.last IS NOT NULL
    UNION ALL
    SELECT 'error', 'event_gap', k.stream_id,
           CASE WHEN k.last - k.first + 1 = k.events THEN format('its first event is %s', k.first)
                ELSE format('%s events are missing between %s and %s',
                            k.last - k.first + 1 - k.events, k.first, k.last) END,
           'Events are lost: restore them from a backup.'
    FROM known k
    WHERE k.stream_id IS NOT NULL
      AND (k.last - k.first + 1 <> k.events
           OR (k.first > 1 AND COALESCE(k.saved, 0) < k.first - 1))
    UNION ALL
    SELECT 'error', 'snapshot_beyond_head', k.stream_id,
           format('its snapshot at %s (run %s) is beyond the head, which is at version %s',
                  n.sequence_number, n.run_id, k.version),
           CASE WHEN n.run_id = 0 THEN 'Delete the snapshot: it is only a cache.'
                ELSE 'Restore snapshot or events from a backup; '
                     'mako.migration_run tells which run it was.' END
    FROM known k
    JOIN mako.snapshot n ON n.stream_no = k.stream_no AND n.sequence_number > k.version
    WHERE k.furthest > k.version
    UNION ALL
    SELECT 'error', 'snapshot_without_head', k.stream_no::text,
           format('stream number %s has snapshots, but no head', k.stream_no),
           'Restore the head from a backup.'
    FROM known k WHERE k.stream_id IS NULL AND k.furthest IS NOT NULL
    UNION ALL
    SELECT 'error', 'snapshot_of_unknown_run', k.stream_id,
           format('its snapshot at %s is of run %s, which is not recorded',
                  n.sequence_number, n.run_id),
           'Restore the row of mako.migration_run from a backup.'
    FROM known k JOIN mako.snapshot n ON n.stream_no = k.stream_no
    WHERE k.stream_id IS NOT NULL AND k.of_unknown_run AND n.run_id <> 0
      AND NOT EXISTS (SELECT FROM mako.migration_run r WHERE r.run_id = n.run_id)
    UNION ALL
    SELECT 'error', 'snapshot_of_unknown_run', s.stream_id,
           format('run %s is marked as undone by run %s, which did not undo it',
                  v.run_id, v.reverted_by),
           'It was changed past the triggers: restore it from a backup.'
    FROM mako.reverted v JOIN mako.stream s ON s.stream_no = v.stream_no
    WHERE NOT EXISTS (SELECT FROM mako.migration_run r
                      WHERE r.run_id = v.reverted_by AND r.reverts = v.run_id)
    UNION ALL
    SELECT 'error', 'head_moved', p.stream_id,
           CASE WHEN p.run_id IS NULL
                THEN format('it runs under "%s", but its last event is of "%s" '
                            'and no move is recorded', p.workflow_id, p.expected)
                ELSE format('it runs under "%s", but run %s moved it to "%s"',
                            p.workflow_id, p.run_id, p.expected) END,
           'The head was changed past the triggers: '
           'set it back, or restore the snapshot of the move.'
    FROM place p WHERE p.workflow_id <> p.expected
    UNION ALL
    SELECT 'error',
           CASE WHEN m.run_id IS NULL THEN 'event_outside_history' ELSE 'snapshot_misplaced' END,
           s.stream_id,
           CASE WHEN m.run_id IS NULL
                THEN format('event %s is of "%s", under which the stream did not run then',
                            m.sequence_number, m.workflow_id)
                ELSE format('event %s is of "%s", '
                            'which does not fit the number of the snapshot of run %s',
                            m.sequence_number, m.workflow_id, m.run_id) END,
           'It was changed past the triggers: restore it from a backup.'
    FROM misplaced m JOIN mako.stream s ON s.stream_no = m.stream_no),
  ranked AS (
    SELECT b.*, row_number() OVER w AS number, count(*) OVER (PARTITION BY b.code) AS found
    FROM broken b WINDOW w AS (PARTITION BY b.code ORDER BY b.subject COLLATE "C"))
  SELECT r.severity, r.code, r.subject, r.message, r.hint FROM ranked r WHERE r.number <= 20
  UNION ALL
  SELECT r.severity, r.code, '*', format('%s more like those', r.found - 20), r.hint
  FROM ranked r WHERE r.number = 21
  UNION ALL
  SELECT 'warning', 'store_layout', 'mako',
         format('the store has layout version %s', @extschema@.mako_store_layout()),
         'Upgrade it with SELECT mako_create_store(), or update the extension.'
  FROM @extschema@.mako_store_object() o
  WHERE o.name = 'layout_version'
    AND substring(o.definition FROM 'SELECT ([0-9]+)')::integer <> @extschema@.mako_store_layout()
  UNION ALL
  SELECT 'info', 'events_archived', '*',
         format('the first events of %s streams are archived; their snapshots tell the states',
                count(*)),
         'mako_trace() and mako_verify() cannot look behind them.'
  FROM known k
  WHERE k.stream_id IS NOT NULL
    AND CASE WHEN k.first IS NULL THEN k.version > 0 AND k.saved = k.version
             ELSE k.first > 1 AND k.saved >= k.first - 1 AND k.last - k.first + 1 = k.events END
  HAVING count(*) > 0
  UNION ALL
  SELECT 'error', 'workflow_not_registered', s.workflow_id,
         format('%s streams run under it, but it is not registered', count(*)),
         'Use mako_register_workflow().'
  FROM mako.stream s
  WHERE NOT EXISTS (SELECT FROM @extschema@.mako_workflow w
                    WHERE w.workflow_id::text = s.workflow_id)
  GROUP BY s.workflow_id
  UNION ALL
  SELECT 'info', 'exemption_unused', x.workflow_id::text,
         'it is exempt, but no stream runs under it',
         'mako_unexempt() takes the exemption back.'
  FROM @extschema@.mako_exemption x
  WHERE NOT EXISTS (SELECT FROM mako.stream s WHERE s.workflow_id = x.workflow_id::text)
  UNION ALL
  SELECT 'warning', 'run_unfinished', format('%s -> %s', r.source_wf, r.target_wf),
         format('batched run %s has not finished', r.run_id),
         'It is running, or was stopped: '
         'call it again, and it goes on, or give it up with mako_revert().'
  FROM mako.migration_run r WHERE r.kind = 'batched' AND r.finished_at IS NULL
  UNION ALL
  SELECT 'info', 'dependent_unindexed', c.name,
         format('column "%s" of %s is not indexed, '
                'so that the whole table is read for every batch of streams',
                d.process_column, c.name),
         format('CREATE INDEX ON %s (%s)', c.name,
                concat_ws(', ', quote_ident(d.tenant_column), quote_ident(d.process_column)))
  FROM mako.dependent d
  JOIN relations AS c
    ON c.oid = @extschema@.mako_remembered_relation(d.relation, d.relation_identity)
  JOIN pg_attribute p
    ON p.attrelid = c.oid AND p.attname = d.process_column AND NOT p.attisdropped
  LEFT JOIN pg_attribute t
    ON t.attrelid = p.attrelid AND t.attname = d.tenant_column AND NOT t.attisdropped
  WHERE NOT EXISTS (SELECT FROM pg_index i
                    WHERE i.indrelid = p.attrelid AND i.indisvalid AND i.indpred IS NULL
                      AND (i.indkey[0] = p.attnum
                           OR (i.indkey[0] = t.attnum AND i.indkey[1] = p.attnum)))
  UNION ALL
  -- Owners of schemas and roles that may create in them; the role of a sink does no harm to itself.
  SELECT 'warning', 'sink_path_open', format('sink %s', k.sink_no),
         format('role "%s" may create in schema "%s", which is on its path',
                coalesce(min(r.rolname COLLATE "C"), 'public'), n.nspname),
         'REVOKE CREATE on it, or add the sink again with that schema off the path: '
         'a better match for what the sink calls would run as its role.'
  FROM @extschema@.mako_sink k
  CROSS JOIN LATERAL unnest(k.search_path) AS p (name)
  JOIN pg_namespace n ON n.nspname = p.name AND n.nspname <> 'pg_catalog'
  CROSS JOIN LATERAL (
    SELECT n.nspowner UNION ALL
    SELECT a.grantee FROM aclexplode(n.nspacl) a WHERE a.privilege_type = 'CREATE') AS c (creator)
  LEFT JOIN pg_roles r
    ON r.oid = (SELECT coalesce(d.datdba, c.creator) FROM (VALUES (1)) AS one (row)
                LEFT JOIN pg_database d ON d.datname = current_database()
                                           AND c.creator::regrole::text = 'pg_database_owner')
  WHERE k.removed_at IS NULL
    AND (r.oid IS NULL
         OR NOT (r.rolsuper OR r.rolname = k.owner
                 OR r.oid::text = split_part(k.owner_identity, '@', 1)))
  GROUP BY k.sink_no, n.nspname;
END
$$;
COMMENT ON FUNCTION mako_store_finding_rows() IS
'what mako_store_finding() returns; for its own use';

CREATE FUNCTION mako_store_finding()
RETURNS TABLE (severity text, code text, subject text, message text, hint text)
LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_store_finding() IS
'what mako_check() finds in the tables of the store; twenty streams at most for each fault';

CREATE FUNCTION mako_check(sample integer DEFAULT 100)
RETURNS TABLE (severity text, code text, subject text, message text, hint text)
LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_check(integer) IS
'what is wrong with store, definitions and steps, one cause a row: error, warning or info; '
'tries sample streams of each workflow';
