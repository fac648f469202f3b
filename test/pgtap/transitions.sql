-- The observed state machine: mako_transitions() against the states that mako_trace() tells, on the golden set before and after its
-- migration; names of states, what fails, what has left and come back; and the diagram.
-- Runs in an empty database, from the root of the project.

CREATE EXTENSION pgtap;
CREATE EXTENSION mako_migration;

SET client_min_messages = error;  -- what cannot be folded is a notice, here as in the golden set
SELECT plan(33);

SELECT mako_create_store();
\ir ../examples/gpke/supplier_change.sql
\ir ../examples/gpke/register.sql
\ir ../golden/load.sql
\ir include/helpers.sql

\set fv1 gpke-supplier-change@FV2024-10-01
\set fv2 gpke-supplier-change@FV2025-10-01

-- The same by another way: state after state of every trace. Streams that cannot be folded to the end are left out.
CREATE FUNCTION pg_temp.traced(workflow text) RETURNS TABLE (from_state text, event_type text, to_state text, count bigint) LANGUAGE plpgsql AS $$
DECLARE
  s record;
BEGIN
  CREATE TEMPORARY TABLE step (workflow_id text, event_type text, before jsonb, after jsonb);
  FOR s IN SELECT stream_id FROM mako.stream WHERE workflow_id = workflow LOOP
    BEGIN
      INSERT INTO step
      SELECT t.workflow_id, t.event_type, coalesce(lag(t.state) OVER w, '{"status": "New"}'), t.state
      FROM mako_trace(s.stream_id) WITH ORDINALITY AS t WINDOW w AS (ORDER BY t.ordinality);
    EXCEPTION WHEN OTHERS THEN NULL;
    END;
  END LOOP;
  RETURN QUERY SELECT before->>'status', step.event_type, after->>'status', count(*) FROM step
    WHERE workflow_id = workflow AND step.event_type IS NOT NULL GROUP BY 1, 2, 3;
  DROP TABLE step;
END
$$;

SELECT results_eq(
  format('SELECT * FROM mako_transitions(%L)', :'fv1'),
  format('SELECT * FROM pg_temp.traced(%L) ORDER BY count DESC, from_state COLLATE "C" NULLS FIRST, event_type COLLATE "C", to_state COLLATE "C" NULLS FIRST', :'fv1'),
  'the transitions are those of the traces, in order');
SELECT results_eq(
  format('SELECT * FROM mako_transitions(%L)', :'fv2'),
  format('SELECT * FROM pg_temp.traced(%L) ORDER BY count DESC, from_state COLLATE "C" NULLS FIRST, event_type COLLATE "C", to_state COLLATE "C" NULLS FIRST', :'fv2'),
  'so are those of the next version, whose streams began under it');
SELECT cmp_ok((SELECT sum(count) FROM mako_transitions(:'fv1')), '>', 5000::numeric, 'there are thousands');
CREATE TEMPORARY TABLE before AS SELECT * FROM mako_transitions(:'fv2');
SELECT mako_migrate(:'fv1', :'fv2');
SELECT set_eq(format('SELECT * FROM mako_transitions(%L)', :'fv2'), 'TABLE before', 'what happened before a migration is not of the target');
SELECT set_eq(format('SELECT * FROM mako_transitions(%L)', :'fv1'), format('SELECT * FROM pg_temp.traced(%L)', :'fv1'), 'what was refused is still of the source');
SELECT cmp_ok((SELECT sum(count) FROM mako_transitions(:'fv1')), '<', 500::numeric, '... and little else');

----------------------------------------------------------------------------------------------------
-- A machine of our own
----------------------------------------------------------------------------------------------------

CREATE SCHEMA t;
CREATE FUNCTION t.apply(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS
  $$ SELECT CASE event_type WHEN 'Bad' THEN mako_reject('bad') WHEN 'Worse' THEN to_jsonb(1 / (payload->>'zero')::int)
            ELSE state || payload END $$;
CREATE FUNCTION t.open(state jsonb) RETURNS boolean LANGUAGE sql STABLE AS $$ SELECT state->>'status' <> 'Done' $$;
CREATE FUNCTION t.spawn(workflow text, VARIADIC payloads jsonb[]) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  id text := mako_spawn(workflow, 'aaaaaaaa-0000-4000-8000-000000000001');
BEGIN
  PERFORM mako_append(id, workflow, coalesce(p->>'event', 'Set'), p - 'event') FROM unnest(payloads) WITH ORDINALITY AS u (p, i) WHERE p IS NOT NULL ORDER BY i;
  RETURN id;
END
$$;
SELECT mako_register_workflow('w@FV2024-10-01', apply => 't.apply', initial_state => '{"status": "New"}');
SELECT mako_register_workflow('w@FV2025-10-01', apply => 't.apply', in_flight => 't.open', initial_state => '{"status": "New"}');
SELECT mako_register_migrations('FV2024-10-01', 'FV2025-10-01', '{w}');
SELECT mako_register_migrations('FV2025-10-01', 'FV2024-10-01', '{w}');
CREATE FUNCTION pg_temp.transitions(workflow text, tag text DEFAULT 'status') RETURNS text LANGUAGE sql AS
  $$ SELECT string_agg(concat_ws(' ', coalesce(from_state, '-'), event_type, coalesce(to_state, '-'), count), ', ' ORDER BY n)
     FROM mako_transitions(workflow, tag) WITH ORDINALITY AS x (from_state, event_type, to_state, count, n) $$;

SELECT is(pg_temp.transitions('w@FV2024-10-01'), NULL, 'without streams there is nothing');
SELECT is(mako_state_diagram('w@FV2024-10-01'), E'stateDiagram-v2\n    [*] --> New\n', 'but the initial state');
SELECT t.spawn('w@FV2024-10-01', NULL);
SELECT is(pg_temp.transitions('w@FV2024-10-01'), NULL, 'nor with a stream without events');
SELECT t.spawn('w@FV2024-10-01', '{"status": "Open"}', '{"status": "Open"}', '{"status": "Done"}') FROM generate_series(1, 2);
SELECT t.spawn('w@FV2024-10-01', '{"status": "Open"}', '{"status": "Failed"}');
SELECT is(pg_temp.transitions('w@FV2024-10-01'), 'New Set Open 3, Open Set Done 2, Open Set Open 2, Open Set Failed 1', 'they are counted, the most frequent first');
SELECT is(mako_state_diagram('w@FV2024-10-01'), $$stateDiagram-v2
    [*] --> New
    New --> Open: Set (3)
    Open --> Done: Set (2)
    Open --> Open: Set (2)
    Open --> Failed: Set (1)
    Done --> [*]
    Failed --> [*]
$$, 'the diagram; without a predicate, states that lead nowhere are final');

-- Tags.
SELECT is(pg_temp.transitions('w@FV2024-10-01', 'other'), '- Set - 8', 'a tag that is not there');
SELECT is(pg_temp.transitions('w@FV2024-10-01', NULL), 'status Set status 8', 'without a tag, the only key of the object');
SELECT is(mako_state_diagram('w@FV2024-10-01', 'other'), $$stateDiagram-v2
    state "(none)" as s1
    [*] --> s1
    s1 --> s1: Set (8)
    s1 --> [*]
$$, 'states without a name are one');
SELECT t.spawn('w@FV2024-10-01', '{"n": 1}', '{"n": true}', '{"n": null}', '{"n": {"b": [1, "x"]}}', '{"n": ""}', '{"n": "ä\"\\"}', '{"n": 1.50}');
SELECT is(pg_temp.transitions('w@FV2024-10-01', 'n'),
          $$- Set - 8, - Set 1 1, - Set {"b": [1, "x"]} 1,  Set ä"\ 1, 1 Set true 1, true Set - 1, {"b": [1, "x"]} Set  1, ä"\ Set 1.50 1$$,
          'values are as ->> gives them');
SELECT is(mako_state_diagram('w@FV2024-10-01', 'n'), $$stateDiagram-v2
    state "(none)" as s1
    state "1" as s2
    state "{#34;b#34;#58; [1, #34;x#34;]}" as s3
    state "" as s4
    state "ä#34;\" as s5
    state "1.50" as s6
    [*] --> s1
    s1 --> s1: Set (8)
    s1 --> s2: Set (1)
    s1 --> s3: Set (1)
    s4 --> s5: Set (1)
    s2 --> true: Set (1)
    true --> s1: Set (1)
    s3 --> s4: Set (1)
    s5 --> s6: Set (1)
    s6 --> [*]
$$, 'names that Mermaid cannot take are quoted');

-- Failures.
SELECT t.spawn('w@FV2024-10-01', '{"status": "Lost"}', '{"event": "Bad"}');
SELECT t.spawn('w@FV2024-10-01', '{"status": "Lost"}', '{"event": "Worse", "zero": 0}');
SELECT unalike(pg_temp.transitions('w@FV2024-10-01'), '%Lost%', 'a stream that cannot be folded leaves nothing behind');
SELECT is(pg_temp.transitions('w@FV2024-10-01'), 'New Set New 7, New Set Open 3, Open Set Done 2, Open Set Open 2, Open Set Failed 1', 'others count');

-- Migrated: from the boundary on. What left and came back goes on from there.
SELECT mako_migrate('w@FV2024-10-01', 'w@FV2025-10-01');
SELECT is(pg_temp.transitions('w@FV2025-10-01'), NULL, 'nothing has happened under the target yet');
SELECT is(mako_state_diagram('w@FV2025-10-01'), E'stateDiagram-v2\n    [*] --> New\n', 'nor is there anything to draw');
SELECT mako_append(s.stream_id, s.workflow_id, 'Closed', '{"status": "Done"}')
FROM mako.stream s JOIN mako.snapshot n USING (stream_no) WHERE s.workflow_id = 'w@FV2025-10-01' AND n.state->>'status' = 'Failed';
SELECT t.spawn('w@FV2025-10-01', '{"status": "Open"}');
SELECT is(pg_temp.transitions('w@FV2025-10-01'), 'Failed Closed Done 1, New Set Open 1', 'from the boundary on, or from the initial state');
SELECT is(mako_state_diagram('w@FV2025-10-01'), $$stateDiagram-v2
    [*] --> New
    Failed --> Done: Closed (1)
    New --> Open: Set (1)
    Done --> [*]
$$, 'a state in which a stream is in flight is not final');
SELECT mako_migrate('w@FV2025-10-01', 'w@FV2024-10-01');
SELECT mako_append(s.stream_id, s.workflow_id, 'Reopened', '{"status": "Open"}')
FROM mako.stream s JOIN mako.snapshot n USING (stream_no) WHERE s.workflow_id = 'w@FV2024-10-01' AND n.run_id = 3 AND n.state->>'status' = 'Done' AND s.version = 3
  AND EXISTS (SELECT FROM mako.event e WHERE e.stream_no = s.stream_no AND event_type = 'Closed');
SELECT is(pg_temp.transitions('w@FV2024-10-01'), 'Done Reopened Open 1', 'what came back begins at its newest boundary');

-- A history whose migration snapshot is missing is followed from its first event, and counts from where it came to the workflow.
SET session_replication_role = replica;
INSERT INTO mako.reverted SELECT DISTINCT stream_no, run_id, 99 FROM mako.snapshot WHERE run_id IN (2, 3);
RESET session_replication_role;
SELECT is(pg_temp.transitions('w@FV2024-10-01'), 'New Set New 7, New Set Open 2, Open Set Done 2, Open Set Open 2, Done Reopened Open 1', 'a lost boundary is no loss');

-- States that are strings, or objects with one key.
CREATE FUNCTION t.name(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT payload->'state' $$;
SELECT mako_register_workflow('s@FV2024-10-01', apply => 't.name', initial_state => '"New"');
SELECT t.spawn('s@FV2024-10-01', '{"state": {"Pending": {"a": 1}}}', '{"state": "Done"}', '{"state": [1]}', '{"state": {"a": 1, "b": 2}}', '{"state": "state"}', '{"state": "s1"}', '{"state": "end-state"}');
SELECT is(pg_temp.transitions('s@FV2024-10-01', NULL), '- Set - 1, - Set state 1, Done Set - 1, New Set Pending 1, Pending Set Done 1, s1 Set end-state 1, state Set s1 1',
          'a string is its own name, and an object with one key has that');
SELECT is(mako_state_diagram('s@FV2024-10-01', NULL), $$stateDiagram-v2
    state "(none)" as s2
    state "state" as s3
    state "end-state" as s4
    [*] --> New
    s2 --> s2: Set (1)
    s2 --> s3: Set (1)
    Done --> s2: Set (1)
    New --> Pending: Set (1)
    Pending --> Done: Set (1)
    s1 --> s4: Set (1)
    s3 --> s1: Set (1)
    s4 --> [*]
$$, 'a number that is a state''s name is not given twice');
SELECT mako_register_workflow('e@FV2024-10-01', apply => 't.name', initial_state => '"CLASSDEF"');
SELECT t.spawn('e@FV2024-10-01', '{"event": "a\t#1;", "state": "Ended"}', '{"event": "<&>:ä\\", "state": "end\n"}');
SELECT is(mako_state_diagram('e@FV2024-10-01', NULL), $$stateDiagram-v2
    state "CLASSDEF" as s1
    state "end#10;" as s2
    [*] --> s1
    s1 --> Ended: a#9;#35;1#59; (1)
    Ended --> s2: #60;#38;#62;#58;ä\ (1)
    s2 --> [*]
$$, 'what means something to Mermaid is escaped in events, too, and its own words in capitals are quoted');

-- Evaluated by the server, the same.
SELECT pg_temp.transitions('w@FV2024-10-01') AS native \gset
SET mako_migration.native_evaluation = off;
SELECT is(pg_temp.transitions('w@FV2024-10-01'), :'native', 'without native evaluation the same');
RESET mako_migration.native_evaluation;
SET default_transaction_read_only = on;
SELECT is(pg_temp.transitions('w@FV2024-10-01'), :'native', 'in a read-only transaction, too');
RESET default_transaction_read_only;

SELECT mako_register_workflow('plain@FV2024-10-01');
SELECT matches(pg_temp.error('SELECT * FROM mako_transitions(''plain@FV2024-10-01'')'), '^55000\|workflow "plain@FV2024-10-01" has no apply function', 'nothing to fold with');
SELECT matches(pg_temp.error('SELECT mako_state_diagram(''none@FV2024-10-01'')'), '^42704\|', 'a workflow that is not registered');
SELECT is(pg_temp.error('SELECT * FROM mako_transitions(NULL)'), '22004|workflow_id must not be null', 'no workflow');
SELECT is(pg_temp.error('SELECT mako_state_diagram(NULL)'), '22004|workflow_id must not be null', 'no workflow to draw');

SELECT * FROM finish();
