-- Importing histories: events that were loaded with the trigger event_inserted disabled, and mako_adopt_events(), which proves the
-- invariants of all of them and sets the heads.
-- Runs in an empty database.

CREATE EXTENSION pgtap;
CREATE EXTENSION mako_migration;

SELECT plan(70);

SELECT mako_create_store();

\ir include/helpers.sql

-- A state is the list of what its events said; each version says it in a way of its own, and each migration leaves a mark.
CREATE SCHEMA i;
CREATE FUNCTION i.apply_2024(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT state || (payload->'word') $$;
CREATE FUNCTION i.apply_2025(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT state || to_jsonb(upper(payload->>'word')) $$;
CREATE FUNCTION i.apply_2026(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT state || to_jsonb(repeat(payload->>'word', 2)) $$;
CREATE FUNCTION i.migrate_2025(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT state || '"|"'::jsonb $$;
CREATE FUNCTION i.migrate_2026(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT state || '"#"'::jsonb $$;
SELECT mako_register_workflow('i@FV2024-10-01', 'i.apply_2024', initial_state => '[]');
SELECT mako_register_workflow('i@FV2025-10-01', 'i.apply_2025', initial_state => '[]', state_schema_version => 2);
SELECT mako_register_workflow('i@FV2026-10-01', 'i.apply_2026', initial_state => '[]', state_schema_version => 3);
SELECT mako_register_migration('i@FV2024-10-01', 'i@FV2025-10-01', 'i.migrate_2025'), mako_register_migration('i@FV2025-10-01', 'i@FV2026-10-01', 'i.migrate_2026');

-- Heads without events, of these ids, under i@FV<year>-10-01.
CREATE FUNCTION pg_temp.heads(year int, VARIADIC ids text[]) RETURNS void LANGUAGE sql AS $$
  INSERT INTO mako.stream (stream_id, workflow_id) SELECT id, format('i@FV%s-10-01', year) FROM unnest(ids) AS id $$;
-- An event for each of these numbers of a stream, written under i@FV<year>-10-01; its word is the number's letter.
CREATE FUNCTION pg_temp.events(id text, year int, VARIADIC numbers int[]) RETURNS void LANGUAGE sql AS $$
  INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
  SELECT coalesce((SELECT stream_no FROM mako.stream WHERE stream_id = id), 4711), n, format('i@FV%s-10-01', year), 'Said', jsonb_build_object('word', chr(96 + n))
  FROM unnest(numbers) AS n $$;
-- Loads past the trigger: the statement that does it.
CREATE FUNCTION pg_temp.load(statement text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  ALTER TABLE mako.event DISABLE TRIGGER event_inserted;
  EXECUTE statement;
  ALTER TABLE mako.event ENABLE TRIGGER event_inserted;
END
$$;
-- Everything that an adoption could change, as rows.
CREATE FUNCTION pg_temp.rows_now() RETURNS TABLE (part text, row_text text) LANGUAGE plpgsql AS $$
BEGIN
  FOREACH part IN ARRAY '{stream,event,snapshot,repointed,reverted,registry,format_version,migration_run}'::text[] LOOP
    RETURN QUERY EXECUTE format('SELECT %L, concat(t.ctid, t.xmin, t) FROM mako.%I t', part, part);
  END LOOP;
  RETURN QUERY SELECT 'sequence', pg_sequence_last_value(pg_get_serial_sequence('mako.stream', 'stream_no'))::text;
END
$$;

SELECT is(pg_temp.rows('SELECT * FROM mako_adopt_events()'), '0|0|0', 'an empty store has nothing to adopt');
SELECT is(pg_temp.rows('SELECT count(*) FROM mako.stream'), '0', 'and stays so');
INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('first', 'i@FV2024-10-01');
SELECT is(pg_temp.rows('SELECT stream_no FROM mako.stream'), '1', 'the first number is still the first');
SELECT is(pg_temp.rows('SELECT * FROM mako_adopt_events()'), '0|0|0', 'nor has one without events');

----------------------------------------------------------------------------------------------------
-- Histories of one workflow
----------------------------------------------------------------------------------------------------

SELECT pg_temp.heads(2024, 'one', 'three', 'none', 'long'), pg_temp.heads(2025, 'later'), pg_temp.heads(2024, 'mistaken');
-- In any order, and all streams mixed.
SELECT pg_temp.load($$ SELECT pg_temp.events('three', 2024, 3, 1), pg_temp.events('later', 2025, 2), pg_temp.events('one', 2024, 1), pg_temp.events('three', 2024, 2),
                              pg_temp.events('later', 2025, 1), pg_temp.events('mistaken', 2025, 1, 2) $$);
SELECT pg_temp.load($$ INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
                       SELECT stream_no, n, workflow_id, 'Said', '{"word": "x"}' FROM mako.stream, generate_series(3000, 1, -1) AS n WHERE stream_id = 'long' $$);
SELECT is(pg_temp.rows($$ SELECT stream_id, version FROM mako.stream WHERE version > 0 $$), NULL, 'loaded past the trigger, the heads know nothing');
SELECT is(pg_temp.rows('SELECT * FROM mako_adopt_events()'), '5|3008|0', 'adopting counts streams and events');
SELECT is(pg_temp.rows('SELECT stream_id, workflow_id, version FROM mako.stream ORDER BY stream_no'),
$$first|i@FV2024-10-01|0
one|i@FV2024-10-01|1
three|i@FV2024-10-01|3
none|i@FV2024-10-01|0
long|i@FV2024-10-01|3000
later|i@FV2025-10-01|2
mistaken|i@FV2025-10-01|2$$, 'the heads are where their events end, under the workflow of the last one');
SELECT is(pg_temp.rows($$ SELECT stream_id, x.state, x.sequence_number, x.workflow_id, x.state_schema_version FROM unnest('{one,three,later,mistaken}'::text[]) AS stream_id, mako_state(stream_id) AS x $$),
$$one|["a"]|1|i@FV2024-10-01|1
three|["a", "b", "c"]|3|i@FV2024-10-01|1
later|["A", "B"]|2|i@FV2025-10-01|2
mistaken|["A", "B"]|2|i@FV2025-10-01|2$$, 'their states are what the events say');
SELECT is(jsonb_array_length(state), 3000, 'of a long history, too') FROM mako_state('long');

-- Twice.
CREATE TEMPORARY TABLE adopted AS SELECT * FROM pg_temp.rows_now();
SELECT is(pg_temp.rows('SELECT * FROM mako_adopt_events()'), '0|0|0', 'adopting again finds nothing');
SELECT set_eq('SELECT * FROM pg_temp.rows_now()', 'SELECT * FROM adopted', 'and touches no row');

-- The everyday goes on.
SELECT is(mako_append('three', 'i@FV2024-10-01', 'Said', '{"word": "d"}', 3), 4::bigint, 'an adopted stream takes events');
SELECT is(pg_temp.error($$ SELECT mako_append('three', 'i@FV2024-10-01', 'Said', '{"word": "d"}', 3) $$) LIKE '40001|%', true, 'by the same rules');
SELECT is(pg_temp.error($$ SELECT pg_temp.events('three', 2024, 6) $$), 'XX001|events of stream "three" do not continue it|Expected sequence number 5, found 6.|'
          'Sequence numbers are 1, 2, 3 ... in every stream, without gap.', 'and the trigger is back');

-- More of a history that is there.
SELECT pg_temp.load($$ SELECT pg_temp.events('three', 2024, 6, 5), pg_temp.events('none', 2024, 1) $$);
SELECT is(pg_temp.rows('SELECT * FROM mako_adopt_events()'), '2|3|0', 'what came since is adopted, and only that is counted');
SELECT is(pg_temp.rows($$ SELECT state, sequence_number FROM mako_state('three') $$), '["a", "b", "c", "d", "e", "f"]|6', 'the history has grown');

----------------------------------------------------------------------------------------------------
-- Histories that span workflows
----------------------------------------------------------------------------------------------------

-- There is no migration snapshot between: that the state is computed through the registered steps is said in a warning.
SET client_min_messages = error;

SELECT pg_temp.heads(2024, 'two', 'all', 'jump'), pg_temp.heads(2026, 'all by its last');
SELECT pg_temp.load($$ SELECT pg_temp.events('two', 2024, 1, 2, 3), pg_temp.events('two', 2025, 4, 5), pg_temp.events('all', 2024, 1), pg_temp.events('all', 2025, 2),
                              pg_temp.events('all', 2026, 3), pg_temp.events('jump', 2024, 1), pg_temp.events('jump', 2026, 2),
                              pg_temp.events('all by its last', 2024, 1), pg_temp.events('all by its last', 2025, 2), pg_temp.events('all by its last', 2026, 3) $$);
SELECT is(pg_temp.rows('SELECT * FROM mako_adopt_events()'), '4|13|4', 'histories that span workflows are counted');
SELECT is(pg_temp.rows($$ SELECT stream_id, workflow_id, version FROM mako.stream WHERE stream_id IN ('two', 'all', 'jump', 'all by its last') ORDER BY stream_no $$),
          E'two|i@FV2025-10-01|5\nall|i@FV2026-10-01|3\njump|i@FV2026-10-01|2\nall by its last|i@FV2026-10-01|3', 'they run under the workflow of their last event');
SELECT is((mako_state('two')).state,
          (SELECT i.apply_2025(i.apply_2025(mako_migrate_state('i@FV2024-10-01', 'i@FV2025-10-01',
                    mako_fold('i@FV2024-10-01', jsonb_agg(jsonb_build_object('event_type', event_type, 'payload', payload) ORDER BY sequence_number))),
                    'Said', '{"word": "d"}'), 'Said', '{"word": "e"}')
           FROM mako_load('two') WHERE sequence_number <= 3), 'the state is folded, migrated and folded on');
SELECT is(pg_temp.rows($$ SELECT stream_id, x.state, x.sequence_number, x.workflow_id, x.state_schema_version
                          FROM unnest('{two,all,jump,"all by its last"}'::text[]) AS stream_id, mako_state(stream_id) AS x $$),
$$two|["a", "b", "c", "|", "D", "E"]|5|i@FV2025-10-01|2
all|["a", "|", "B", "#", "cc"]|3|i@FV2026-10-01|3
jump|["a", "|", "#", "bb"]|2|i@FV2026-10-01|3
all by its last|["a", "|", "B", "#", "cc"]|3|i@FV2026-10-01|3$$, 'through as many steps as there are');
SELECT is(pg_temp.rows($$ SELECT sequence_number, event_type, workflow_id, run_id, state FROM mako_trace('all') $$),
$$1|Said|i@FV2024-10-01||["a"]
1||i@FV2025-10-01||["a", "|"]
2|Said|i@FV2025-10-01||["a", "|", "B"]
2||i@FV2026-10-01||["a", "|", "B", "#"]
3|Said|i@FV2026-10-01||["a", "|", "B", "#", "cc"]$$, 'the trace has the moves, of no run');
SELECT is(pg_temp.rows($$ SELECT sequence_number, workflow_id, state, event_type FROM mako_resume('two') $$), '5|i@FV2025-10-01|["a", "b", "c", "|", "D", "E"]|', 'an engine resumes from the state at the head');
SELECT is(mako_append('two', 'i@FV2025-10-01', 'Said', '{"word": "f"}', 5), 6::bigint, 'they go on');
SELECT is(pg_temp.rows($$ SELECT state FROM mako_state('two') $$), '["a", "b", "c", "|", "D", "E", "F"]', 'from there');
SELECT is(mako_take_snapshot('two'), 6::bigint, 'a snapshot of it can be taken');
SELECT is(pg_temp.rows($$ SELECT state FROM mako_state('two') $$), '["a", "b", "c", "|", "D", "E", "F"]', 'and is as good');

-- Under the workflow in the middle, everything moves on to the third version.
SELECT is(pg_temp.rows($$ SELECT migrated, failed FROM mako_migrate('i@FV2025-10-01', 'i@FV2026-10-01') $$), '3|0', 'a migration to a third version takes them');
SELECT is(pg_temp.rows($$ SELECT stream_id, n.sequence_number, n.state, n.state_schema_version FROM mako.snapshot n JOIN mako.stream USING (stream_no) WHERE run_id > 0 ORDER BY stream_no $$),
$$later|2|["A", "B", "#"]|3
mistaken|2|["A", "B", "#"]|3
two|6|["a", "b", "c", "|", "D", "E", "F", "#"]|3$$, 'with the states that they have');
SELECT is(pg_temp.rows($$ SELECT sequence_number, event_type, workflow_id, run_id IS NOT NULL AS run, state FROM mako_trace('two') OFFSET 6 $$),
$$6|Said|i@FV2025-10-01|false|["a", "b", "c", "|", "D", "E", "F"]
6||i@FV2026-10-01|true|["a", "b", "c", "|", "D", "E", "F", "#"]$$, 'the trace tells the run from the move before it');
-- From the first version in two steps.
SELECT is(pg_temp.rows($$ SELECT migrated, failed FROM mako_migrate('i@FV2024-10-01', 'i@FV2026-10-01') $$), '4|0', 'those of the first version, too');
SELECT is(pg_temp.rows($$ SELECT state FROM mako_state('three') $$), '["a", "b", "c", "d", "e", "f", "|", "#"]', 'in two steps');
-- Behind a migration snapshot, an import goes on under the new workflow.
SELECT pg_temp.load($$ SELECT pg_temp.events('three', 2026, 7) $$);
SELECT is(pg_temp.rows('SELECT * FROM mako_adopt_events()'), '1|1|1', 'more of a stream that has moved is adopted');
SELECT is(pg_temp.rows($$ SELECT state FROM mako_state('three') $$), '["a", "b", "c", "d", "e", "f", "|", "#", "gg"]', 'and folded on from its snapshot');

-- Where no step leads from one workflow to the other, the history is adopted, but nobody can tell its state.
BEGIN;
SELECT mako_register_workflow('j@FV2024-10-01', 'i.apply_2024', initial_state => '[]'), mako_register_workflow('j@FV2025-10-01', 'i.apply_2025', initial_state => '[]');
INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('stranded', 'j@FV2024-10-01');
SELECT pg_temp.load($$ INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
                       SELECT stream_no, n, format('j@FV202%s-10-01', 3 + n), 'Said', '{"word": "x"}' FROM mako.stream, generate_series(1, 2) AS n WHERE stream_id = 'stranded' $$);
SELECT is(pg_temp.rows('SELECT * FROM mako_adopt_events()'), '1|2|1', 'a history without a step between its workflows is adopted');
SELECT matches(pg_temp.error($$ SELECT mako_state('stranded') $$), '^42704\|.*j@FV2024-10-01.*j@FV2025-10-01', 'its state is an error that names the step');
SELECT is(pg_temp.rows($$ SELECT count(*) FROM mako_load('stranded') $$), '2', 'its events can be read');
SELECT mako_register_migrations('FV2024-10-01', 'FV2025-10-01', '{j}');
SELECT is(pg_temp.rows($$ SELECT state FROM mako_state('stranded') $$), '["x", "X"]', 'and with the step its state');
ROLLBACK;

----------------------------------------------------------------------------------------------------
-- Refusals
----------------------------------------------------------------------------------------------------

-- Loads, then tries to adopt. Gives the error, and whether the attempt has changed anything; the load is undone.
CREATE FUNCTION pg_temp.refused(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  result text;
BEGIN
  PERFORM pg_temp.load(statement);
  CREATE TEMPORARY TABLE rows_before ON COMMIT DROP AS SELECT * FROM pg_temp.rows_now();
  result := pg_temp.error('SELECT mako_adopt_events()');
  IF EXISTS (SELECT * FROM pg_temp.rows_now() EXCEPT SELECT * FROM rows_before) OR EXISTS (SELECT * FROM rows_before EXCEPT SELECT * FROM pg_temp.rows_now()) THEN
    result := 'something has changed: ' || result;
  END IF;
  RAISE EXCEPTION USING ERRCODE = 'MKTST', MESSAGE = coalesce(result, 'adopted');
EXCEPTION WHEN SQLSTATE 'MKTST' THEN
  RETURN SQLERRM;
END
$$;

SELECT pg_temp.heads(2024, 'x', 'y');
SELECT is(pg_temp.refused($$ SELECT pg_temp.events('x', 2024, 1, 2) $$), 'adopted', 'a good history is not refused');

SELECT is(pg_temp.refused($$ SELECT pg_temp.events('nobody', 2024, 1), pg_temp.events('x', 2024, 1) $$),
          '42704|there are events of streams that do not exist|1 streams, among them: stream number 4711.|Insert the streams'' heads into mako.stream first.', 'events without a head');
SELECT is(pg_temp.refused($$ SELECT pg_temp.events('x', 2024, 1, 3), pg_temp.events('y', 2024, 1) $$),
          'XX001|there are streams whose events are not numbered 1, 2, 3 ...|1 streams, among them: "x" has 2 events, numbered 1 to 3.|Number the events of every stream without gap.', 'a gap');
SELECT is(pg_temp.refused($$ SELECT pg_temp.events('x', 2024, 2, 3) $$),
          'XX001|there are streams whose events are not numbered 1, 2, 3 ...|1 streams, among them: "x" has 2 events, numbered 2 to 3.|Number the events of every stream without gap.', 'a start that is not 1');
SELECT is(pg_temp.refused($$ SELECT pg_temp.events('x', 2024, 7), pg_temp.events('y', 2024, 1, 2, 4) $$),
          'XX001|there are streams whose events are not numbered 1, 2, 3 ...|2 streams, among them: "x" has 1 events, numbered 7 to 7, "y" has 3 events, numbered 1 to 4.|'
          'Number the events of every stream without gap.', 'both');
SELECT is(pg_temp.refused($$ SELECT pg_temp.events('two', 2026, 8) $$),
          'XX001|there are streams whose events are not numbered 1, 2, 3 ...|1 streams, among them: "two" has 7 events, numbered 1 to 8.|Number the events of every stream without gap.', 'a gap behind a head');
SELECT is(pg_temp.error($$ SELECT pg_temp.load('SELECT pg_temp.events(''one'', 2024, 1)') $$) LIKE '23505|%', true, 'a number that is there is refused by the table itself');
SELECT is(pg_temp.error($$ SELECT pg_temp.load('SELECT pg_temp.events(''x'', 2024, 0, 1)') $$) LIKE '23514|%', true, 'and so is one below 1');
SELECT is(pg_temp.refused($$ ALTER TABLE mako.event DISABLE TRIGGER event_guard;
                             DELETE FROM mako.event e USING mako.stream s WHERE s.stream_no = e.stream_no AND stream_id = 'two' AND sequence_number > 4;
                             ALTER TABLE mako.event ENABLE TRIGGER event_guard $$),
          'XX001|there are streams whose last events are missing|1 streams, among them: "two" is at version 6 and has events up to 4.|Load every event of a stream.', 'a head beyond the events');
SELECT is(pg_temp.refused($$ ALTER TABLE mako.event DISABLE TRIGGER event_guard;
                             DELETE FROM mako.event e USING mako.stream s WHERE s.stream_no = e.stream_no AND stream_id = 'two';
                             ALTER TABLE mako.event ENABLE TRIGGER event_guard $$) LIKE 'XX001|there are streams whose last events are missing|%', true, 'of which none is left');
SELECT is(pg_temp.refused($$ ALTER TABLE mako.event DISABLE TRIGGER event_guard;
                             DELETE FROM mako.event e USING mako.stream s WHERE s.stream_no = e.stream_no AND stream_id = 'two' AND sequence_number = 2;
                             ALTER TABLE mako.event ENABLE TRIGGER event_guard $$),
          'XX001|there are streams whose events are not numbered 1, 2, 3 ...|1 streams, among them: "two" has 5 events, numbered 1 to 6.|Number the events of every stream without gap.',
          'an event that has gone from a stream that nothing was loaded for');
SELECT is(pg_temp.refused($$ SELECT pg_temp.events('one', 2024, 2) $$),
          'MK005|there are streams with new events of a workflow that they do not run under|1 streams, among them: "one" runs under "i@FV2026-10-01".|'
          'Only a stream without events can be given a history of another workflow.', 'new events of the workflow that a stream has left');
SELECT is(pg_temp.refused($$ SELECT pg_temp.events('one', 2026, 2), pg_temp.events('one', 2024, 3), pg_temp.events('one', 2026, 4) $$) LIKE 'MK005|%"one" runs under "i@FV2026-10-01".|%', true, 'even between others');
SELECT is(pg_temp.refused($$ SELECT pg_temp.events('one', 2027, 2) $$) LIKE 'MK005|%"one" runs under "i@FV2026-10-01".|%', true, 'or of one that it has not reached');
SELECT is(split_part(pg_temp.refused($$ SELECT pg_temp.events('x', 20240, 1), pg_temp.events('x', 2024, 2) $$), '|', 1), '22P02', 'a malformed workflow id, even if another event is the last');
SELECT matches(pg_temp.refused($$ INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload) SELECT stream_no, 1, 'i', 'Said', '{}' FROM mako.stream WHERE stream_id = 'x' $$),
               '^22P02\|.*"i"', 'which is named');

-- Ten of many are named, in the order of their numbers.
SELECT matches(pg_temp.refused($$ SELECT pg_temp.heads(2024, VARIADIC array_agg('many/' || k)) FROM generate_series(1, 25) AS k;
                                  INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
                                  SELECT stream_no, 2, workflow_id, 'Said', '{}' FROM mako.stream WHERE stream_id LIKE 'many/%' $$),
               '^XX001\|[^|]*\|25 streams, among them: "many/1" has 1 events, numbered 2 to 2, .*"many/10" has 1 events, numbered 2 to 2\.\|', 'of many streams, ten are named');

-- A retired version takes no history, but may be in the past of one; a draining one takes it.
BEGIN;
SELECT mako_drain('FV2024-10-01');
SELECT is(pg_temp.refused($$ SELECT pg_temp.events('x', 2024, 1, 2) $$), 'adopted', 'a draining version takes a history');
SELECT count(mako_exempt(workflow_id, 'only a test')) FROM mako_coverage('FV2024-10-01');
SELECT mako_retire('FV2024-10-01');
SELECT is(pg_temp.refused($$ SELECT pg_temp.events('x', 2024, 1, 2) $$),
          '55000|format version "FV2024-10-01" is retired|Nothing can be written under workflow "i@FV2024-10-01" any more.|Use a format version that is not retired.', 'a retired one does not');
SELECT is(pg_temp.refused($$ SELECT pg_temp.events('x', 2024, 1), pg_temp.events('y', 2025, 1) $$) LIKE '55000|format version "FV2024-10-01" is retired|%', true, 'and refuses the whole import');
SELECT is(pg_temp.refused($$ SELECT pg_temp.events('x', 2024, 1), pg_temp.events('x', 2025, 2) $$), 'adopted', 'a history that has left it is welcome');
ROLLBACK;

SELECT is(pg_temp.error($$ SELECT pg_temp.load('SELECT mako_adopt_events()') $$) LIKE '55000|the store is damaged|trigger event_inserted on mako.event is disabled.|%', true,
          'with the trigger still disabled, nothing is adopted');
BEGIN READ ONLY;
SELECT is(pg_temp.error('SELECT mako_adopt_events()') LIKE '25006|%', true, 'nor in a transaction that only reads');
ROLLBACK;
BEGIN;
CREATE ROLE mako_test_anybody;
SELECT is(pg_temp.error('SET LOCAL ROLE mako_test_anybody; SELECT mako_adopt_events()'), '42501|permission denied for function mako_adopt_events', 'nor by anybody');
ROLLBACK;
SELECT is(pg_temp.rows('SELECT * FROM mako_adopt_events()'), '0|0|0', 'after all that, there is nothing to adopt');

----------------------------------------------------------------------------------------------------
-- Numbers that the import has chosen
----------------------------------------------------------------------------------------------------

CREATE FUNCTION pg_temp.next_number() RETURNS bigint LANGUAGE sql AS $$
  INSERT INTO mako.stream (stream_id, workflow_id) VALUES (gen_random_uuid()::text, 'i@FV2026-10-01') RETURNING stream_no $$;

SELECT max(stream_no) AS last FROM mako.stream \gset
INSERT INTO mako.stream (stream_no, stream_id, workflow_id) OVERRIDING SYSTEM VALUE VALUES (1000000, 'chosen', 'i@FV2024-10-01'), (999999, 'below', 'i@FV2024-10-01');
SELECT pg_temp.load($$ SELECT pg_temp.events('chosen', 2025, 1), pg_temp.events('below', 2025, 1) $$);
SELECT is(pg_temp.next_number(), 1000001::bigint, 'the sequence goes on after numbers that were chosen by hand');
SELECT is(pg_temp.rows('SELECT * FROM mako_adopt_events()'), '2|2|0', 'their histories are adopted');
ALTER TABLE mako.stream DISABLE TRIGGER stream_inserted;
INSERT INTO mako.stream (stream_no, stream_id, workflow_id) OVERRIDING SYSTEM VALUE VALUES (1000010, 'chosen past the trigger', 'i@FV2024-10-01');
ALTER TABLE mako.stream ENABLE TRIGGER stream_inserted;
SELECT is(pg_temp.rows('SELECT * FROM mako_adopt_events()'), '0|0|0', 'adopting again, when some were chosen past the trigger');
SELECT is(pg_temp.next_number(), 1000011::bigint, 'lets the sequence go on after them');
SELECT is(pg_temp.rows('SELECT * FROM mako_adopt_events()'), '0|0|0', 'adopting again');
SELECT is(pg_temp.next_number(), 1000012::bigint, 'does not set it back');
INSERT INTO mako.stream (stream_no, stream_id, workflow_id) OVERRIDING SYSTEM VALUE VALUES (2000000, 'chosen without events', 'i@FV2024-10-01');
SELECT mako_adopt_events();
SELECT is(pg_temp.next_number(), 2000001::bigint, 'heads without events count as well');
SELECT is(pg_temp.rows($$ SELECT workflow_id, version FROM mako.stream WHERE stream_id LIKE 'chosen%' ORDER BY stream_no $$), E'i@FV2025-10-01|1\ni@FV2024-10-01|0\ni@FV2024-10-01|0', 'and stay as they are');

SELECT * FROM finish();
