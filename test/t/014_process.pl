# Engines at work while their processes are migrated back and forth: they spawn, look up, read, append, append again what they have
# appended before, and take snapshots. No acknowledged event is lost, a writer that remembers too old a workflow is refused, and every
# state is what a fold by hand gives, which uses no function of the extension.
#
# MAKO_SOAK=1 goes on for two minutes.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MakoTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $soak = $ENV{MAKO_SOAK} ? 1 : 0;
my $seconds = $soak ? 120 : 8;
# A run waits for up to so long before the next one of its direction; then the engines remember for long what is true no more.
my $pause = $soak ? 1 : 0.3;
my $node = new_server('process');

$node->safe_psql('postgres', 'CREATE EXTENSION mako_migration; SELECT mako_create_store()');
$node->safe_psql('postgres', <<'SQL');
CREATE SCHEMA live;
-- A state of live-a has the numbers of its events in order, negative where the new version applied them, and counts the migrations. The
-- versions call the numbers by different names, and refuse each other's states.
CREATE FUNCTION live.a_2024(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT jsonb_build_object('n', mako_required(state, 'n') || (payload->'number'), 'migrated', state->'migrated') $$;
CREATE FUNCTION live.a_2025(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT jsonb_build_object('numbers', mako_required(state, 'numbers') || to_jsonb(-(payload->>'number')::bigint),
                            'migrated', state->'migrated') $$;
CREATE FUNCTION live.a_forward(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT jsonb_build_object('numbers', mako_required(state, 'n'), 'migrated', (state->>'migrated')::int + 1) $$;
CREATE FUNCTION live.a_back(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT jsonb_build_object('n', mako_required(state, 'numbers'), 'migrated', (state->>'migrated')::int + 1) $$;
SELECT mako_register_workflow('live-a@FV2024-10-01', apply => 'live.a_2024', initial_state => '{"n": [], "migrated": 0}',
  state_type_definition => '{"properties": {"n": {"elements": {"type": "int32"}}, "migrated": {"type": "uint32"}}}');
SELECT mako_register_workflow('live-a@FV2025-10-01', apply => 'live.a_2025', initial_state => '{"numbers": [], "migrated": 0}',
  state_schema_version => 2, state_type_definition => '{"properties": {"numbers": {"elements": {"type": "int32"}}, "migrated": {"type": "uint32"}}}');

-- One of live-b has them as text, with a mark where it was migrated: > forward, < back. The new version has its length, too. A state of
-- the wrong version gives null.
CREATE FUNCTION live.b_2024(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN state ? 'log' THEN jsonb_build_object('log', concat(state->>'log', ' ', payload->>'number')) END $$;
CREATE FUNCTION live.b_2025_of(words text) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT jsonb_build_object('text', words, 'length', length(words)) $$;
CREATE FUNCTION live.b_2025(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN state ? 'text' THEN live.b_2025_of(concat(state->>'text', ' -', payload->>'number')) END $$;
CREATE FUNCTION live.b_forward(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN state ? 'log' THEN live.b_2025_of(concat(state->>'log', '>')) END $$;
CREATE FUNCTION live.b_back(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN state ? 'text' THEN jsonb_build_object('log', concat(state->>'text', '<')) END $$;
SELECT mako_register_workflow('live-b@FV2024-10-01', apply => 'live.b_2024', initial_state => '{"log": ""}');
SELECT mako_register_workflow('live-b@FV2025-10-01', apply => 'live.b_2025', initial_state => '{"text": "", "length": 0}',
  state_schema_version => 2);

SELECT mako_register_migration(format('live-%s@FV2024-10-01', w), format('live-%s@FV2025-10-01', w),
                               migrate => format('live.%s_forward', w)),
       mako_register_migration(format('live-%s@FV2025-10-01', w), format('live-%s@FV2024-10-01', w),
                               migrate => format('live.%s_back', w))
FROM unnest('{a,b}'::text[]) AS w;
SQL

# What the engines write down, and what they all do.
$node->safe_psql('postgres', <<'SQL');
-- Every process and the workflow under which it was started
CREATE TABLE live.process (no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  stream_id text, tenant_id uuid, process_id uuid, workflow_id text);
-- Every event whose number a writer was told: in the transaction that appended it, and in a later one. With again, it may have been there.
CREATE TABLE live.acked (no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  stream_id text, event_id uuid, sequence_number bigint, workflow_id text, number bigint, again boolean);
CREATE TABLE live.acked_later (LIKE live.acked INCLUDING ALL);
-- Whatever was refused: to whom, and which workflow he believed in
CREATE TABLE live.refusal (kind text, sqlstate text, message text, detail text, stream_id text, workflow_id text);
-- What a session remembers of the processes that it has met
CREATE TABLE live.memory (pid int, stream_id text, workflow_id text, PRIMARY KEY (pid, stream_id));
-- What readers saw that must not be
CREATE TABLE live.mismatch (what text, seen text);
CREATE SEQUENCE live.number;
CREATE SEQUENCE live.pair;

-- Old processes are more in demand than young ones, so that writers meet.
CREATE FUNCTION live.pick() RETURNS live.process LANGUAGE plpgsql AS $$
DECLARE
  least bigint := (SELECT ceil(random() ^ 2 * max(no)) FROM live.process);
  picked live.process;
BEGIN
  SELECT * INTO STRICT picked FROM live.process WHERE no >= least ORDER BY no LIMIT 1;
  RETURN picked;
END $$;

CREATE FUNCTION live.event(number bigint, event_id uuid) RETURNS mako_new_event LANGUAGE sql AS
  $$ SELECT ROW('Counted', jsonb_build_object('number', number), 1, event_id, NULL, NULL, NULL)::mako_new_event $$;
-- Some new events, in the order of their numbers
CREATE FUNCTION live.events(count int) RETURNS mako_new_event[] LANGUAGE sql AS
  $$ SELECT array_agg(live.event(nextval('live.number'), gen_random_uuid())) FROM generate_series(1, count) $$;

-- The rows that acknowledge some events
CREATE FUNCTION live.ack(stream_id text, workflow_id text, events mako_new_event[], last bigint, again boolean)
RETURNS SETOF live.acked LANGUAGE sql AS $$
  SELECT NULL::bigint, stream_id, e.event_id, last - cardinality(events) + e.ordinality, workflow_id, (e.payload->>'number')::bigint, again
  FROM unnest(events) WITH ORDINALITY AS e
$$;

-- Appends, and acknowledges it at once unless later; last is the number of the last event, or null, and then refusal says why.
CREATE FUNCTION live.attempt(kind text, stream text, workflow text, events mako_new_event[], expected bigint,
  OUT last bigint, OUT refusal text, IN later boolean DEFAULT false, IN again boolean DEFAULT false) LANGUAGE plpgsql AS $$
DECLARE
  detail text;
BEGIN
  IF cardinality(events) = 1 THEN
    last := mako_append(stream, workflow, events[1].event_type, events[1].payload, expected, event_id => events[1].event_id);
  ELSE
    last := mako_append_batch(stream, workflow, events, expected);
  END IF;
  IF NOT later THEN
    INSERT INTO live.acked (stream_id, event_id, sequence_number, workflow_id, number, again)
    SELECT a.stream_id, a.event_id, a.sequence_number, a.workflow_id, a.number, a.again
    FROM live.ack(stream, workflow, events, last, attempt.again) AS a;
  END IF;
  IF NOT again AND last <> expected + cardinality(events) THEN
    INSERT INTO live.mismatch
    VALUES ('not behind what was expected: ' || stream, format('%s, not %s', last, expected + cardinality(events)));
  END IF;
  IF NOT again AND random() < 0.2 THEN
    INSERT INTO live.mismatch
    SELECT 'own event: ' || stream, s::text FROM mako_state(stream) AS s
    WHERE (s.sequence_number = last AND s.workflow_id = workflow
           AND s.state::text ~ ('\y' || (events[cardinality(events)].payload->>'number') || '(\]|")')) IS NOT TRUE;
  END IF;
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS refusal = RETURNED_SQLSTATE, detail = PG_EXCEPTION_DETAIL;
  last := NULL;
  INSERT INTO live.refusal VALUES (attempt.kind, refusal, SQLERRM, detail, stream, workflow);
END $$;

-- Where a process is: by its id or with its state
CREATE FUNCTION live.load(process live.process, OUT workflow_id text, OUT version bigint) LANGUAGE plpgsql AS $$
BEGIN
  IF random() < 0.5 THEN
    SELECT s.workflow_id, s.sequence_number INTO STRICT workflow_id, version FROM mako_state(process.stream_id) AS s;
  ELSE
    SELECT l.workflow_id, l.version INTO STRICT workflow_id, version
    FROM mako_lookup(process.tenant_id, process.process_id::text, 'FV2025-10-01') AS l WHERE l.stream_id = process.stream_id;
  END IF;
END $$;

-- The last tenant is small: a run of his processes under REPEATABLE READ has a chance.
CREATE FUNCTION live.tenant(number int) RETURNS uuid LANGUAGE sql IMMUTABLE AS
  $$ SELECT format('aaaaaaaa-0000-4000-8000-00000000000%s', number)::uuid $$;
CREATE FUNCTION live.spawn() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  process live.process;
BEGIN
  process.tenant_id := live.tenant(CASE WHEN random() < 0.05 THEN 4 ELSE 1 + floor(random() * 3)::int END);
  process.process_id := gen_random_uuid();
  process.workflow_id := format('live-%s@FV%s-10-01', (ARRAY['a', 'b'])[1 + floor(random() * 2)::int],
                                (ARRAY[2024, 2025])[1 + floor(random() * 2)::int]);
  process.stream_id := mako_spawn(process.workflow_id, process.tenant_id, process.process_id);
  INSERT INTO live.process (stream_id, tenant_id, process_id, workflow_id)
  VALUES (process.stream_id, process.tenant_id, process.process_id, process.workflow_id);
  -- The others have no event yet when they are migrated first.
  IF random() < 0.5 THEN
    PERFORM live.attempt('spawn', process.stream_id, process.workflow_id, live.events(1), 0);
  END IF;
END $$;
SELECT live.spawn() FROM generate_series(1, 150);
SQL

# The engines.
$node->safe_psql('postgres', <<'SQL');
-- Loads, decides, appends. 40001 is retried, MK005 lets it load again once. Now and then the answer gets lost, and it sends the same again.
CREATE PROCEDURE live.engine(later boolean) LANGUAGE plpgsql AS $$
DECLARE
  process live.process := live.pick();
  events mako_new_event[] := live.events(CASE WHEN random() < 0.3 THEN 3 ELSE 1 END);
  head record;
  answer record;
  moved int := 0;
BEGIN
  FOR try IN 1 .. 50 LOOP
    head := live.load(process);
    PERFORM pg_sleep(0.005 * random());
    answer := live.attempt('engine', process.stream_id, head.workflow_id, events, head.version, later => later);
    COMMIT;
    moved := moved + COALESCE((answer.refusal = 'MK005')::int, 0);
    EXIT WHEN answer.refusal IS NULL OR answer.refusal NOT IN ('40001', 'MK005') OR moved > 1;
  END LOOP;
  IF answer.refusal IS NOT NULL THEN
    INSERT INTO live.refusal VALUES ('gave up', answer.refusal);
    RETURN;
  END IF;
  IF later THEN
    INSERT INTO live.acked_later (stream_id, event_id, sequence_number, workflow_id, number, again)
    SELECT a.stream_id, a.event_id, a.sequence_number, a.workflow_id, a.number, a.again
    FROM live.ack(process.stream_id, head.workflow_id, events, answer.last, false) AS a;
    COMMIT;
  END IF;
  IF random() < 0.1 THEN
    PERFORM live.attempt('again', process.stream_id, head.workflow_id, events, head.version, again => true);
  END IF;
END $$;

-- Remembers for long under which workflow a process runs, and even when it was told better it does not always believe it.
CREATE PROCEDURE live.stale() LANGUAGE plpgsql AS $$
DECLARE
  process live.process;
  remembered live.memory;
BEGIN
  IF random() < 0.1 OR (SELECT count(*) < 10 FROM live.memory WHERE pid = pg_backend_pid()) THEN
    process := live.pick();
    INSERT INTO live.memory SELECT pg_backend_pid(), process.stream_id, l.workflow_id FROM live.load(process) AS l ON CONFLICT DO NOTHING;
    COMMIT;
  END IF;
  SELECT * INTO STRICT remembered FROM live.memory WHERE pid = pg_backend_pid() ORDER BY random() LIMIT 1;
  IF (live.attempt('stale', remembered.stream_id, remembered.workflow_id, live.events(1 + (random() < 0.2)::int), NULL)).refusal = 'MK005'
     AND random() < 0.5 THEN
    UPDATE live.memory m SET workflow_id = s.workflow_id FROM mako_state(remembered.stream_id) AS s
    WHERE m.pid = pg_backend_pid() AND m.stream_id = remembered.stream_id;
  END IF;
END $$;

-- Two sessions send the same event, often at the same time.
CREATE PROCEDURE live.twice() LANGUAGE plpgsql AS $$
DECLARE
  pair bigint := nextval('live.pair') / 2;
  process live.process;
  workflow text;
BEGIN
  FOR try IN 1 .. 2 LOOP
    SELECT * INTO STRICT process FROM live.process WHERE no = 1 + pair % 50;
    workflow := (live.load(process)).workflow_id;
    EXIT WHEN (live.attempt('twice', process.stream_id, workflow, ARRAY[live.event(1000000000 + pair, md5('pair ' || pair)::uuid)], NULL,
                            again => true)).refusal IS NULL;
    COMMIT;
  END LOOP;
END $$;

-- Sends any old event again, the way it was sent, whatever has happened to the process since.
CREATE PROCEDURE live.again() LANGUAGE plpgsql AS $$
DECLARE
  least bigint := (SELECT ceil(random() * max(no)) FROM live.acked);
  old live.acked;
BEGIN
  SELECT * INTO old FROM live.acked WHERE no >= least ORDER BY no LIMIT 1;
  IF FOUND THEN
    PERFORM live.attempt('again', old.stream_id, old.workflow_id, ARRAY[live.event(old.number, old.event_id)],
                         old.sequence_number - 1, again => true);
  END IF;
END $$;

-- Loads and appends on one old snapshot; nothing is retried.
CREATE FUNCTION live.strict() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  process live.process := live.pick();
  head record := live.load(process);
BEGIN
  PERFORM pg_sleep(0.005 * random());
  PERFORM live.attempt('strict', process.stream_id, head.workflow_id, live.events(1), CASE WHEN random() < 0.5 THEN head.version END);
END $$;

-- The state of an engine that folds itself
CREATE FUNCTION live.resumed(stream_id text) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
DECLARE
  at record;
  workflow text;
  state jsonb;
BEGIN
  FOR at IN SELECT * FROM mako_resume(stream_id) AS r LOOP
    state := CASE
      WHEN at.event_type IS NULL THEN at.state
      WHEN at.workflow_id <> workflow THEN '"an event of another workflow"'
      WHEN workflow = 'live-a@FV2024-10-01' THEN live.a_2024(state, at.event_type, at.payload)
      WHEN workflow = 'live-a@FV2025-10-01' THEN live.a_2025(state, at.event_type, at.payload)
      WHEN workflow = 'live-b@FV2024-10-01' THEN live.b_2024(state, at.event_type, at.payload)
      WHEN workflow = 'live-b@FV2025-10-01' THEN live.b_2025(state, at.event_type, at.payload)
    END;
    workflow := at.workflow_id;
  END LOOP;
  RETURN state;
END $$;

-- Head, state, events and what an engine resumes from are of one moment. Some readers save what they have folded, when it may be too old.
CREATE PROCEDURE live.read() LANGUAGE plpgsql AS $$
DECLARE
  process live.process := live.pick();
  seen record;
  message text;
BEGIN
  SELECT s.*, h.version, h.workflow_id AS head, live.resumed(h.stream_id) AS resumed,
         (SELECT count(*) FROM mako.event e WHERE e.stream_no = h.stream_no) AS events
  INTO STRICT seen
  FROM mako.stream h CROSS JOIN LATERAL mako_state(h.stream_id) AS s WHERE h.stream_id = process.stream_id;
  IF (seen.sequence_number, seen.sequence_number, seen.workflow_id, seen.state)
     IS DISTINCT FROM (seen.version, seen.events, seen.head, seen.resumed) THEN
    INSERT INTO live.mismatch VALUES ('read: ' || process.stream_id, seen::text);
  END IF;
  IF seen.version > 0 AND random() < 0.2 THEN
    PERFORM pg_sleep(0.01 * random());
    BEGIN
      PERFORM mako_save_snapshot(process.stream_id, seen.sequence_number, seen.workflow_id, seen.state_schema_version, seen.resumed);
    EXCEPTION WHEN OTHERS THEN
      INSERT INTO live.refusal VALUES ('save', SQLSTATE, SQLERRM, NULL, process.stream_id, seen.workflow_id);
    END;
  END IF;
END $$;

CREATE PROCEDURE live.snapshot() LANGUAGE plpgsql AS $$
DECLARE
  process live.process := live.pick();
BEGIN
  IF (SELECT version > 0 FROM mako.stream WHERE stream_id = process.stream_id) THEN
    PERFORM mako_take_snapshot(process.stream_id);
  END IF;
END $$;

-- Runs in one direction, in turn: of one workflow, of both in one transaction, of a whole version, of one under REPEATABLE READ, and three
-- that are taken back.
CREATE PROCEDURE live.migrate(source text, target text, seconds float8, pause float8) LANGUAGE plpgsql AS $$
DECLARE
  until timestamptz := clock_timestamp() + make_interval(secs => seconds);
  ways text[] := '{one,repeatable read,version,one undone,both,repeatable read,version rolled back,one,'
                'repeatable read,version,one rolled back}';
  way text;
  workflow text;
  taken_back text;
BEGIN
  FOR turn IN 0 .. 1000000 LOOP
    EXIT WHEN clock_timestamp() > until;
    way := ways[1 + turn % cardinality(ways)];
    PERFORM set_config('default_transaction_isolation', CASE way WHEN 'repeatable read' THEN way ELSE 'read committed' END, false);
    COMMIT;
    taken_back := NULL;
    BEGIN
      IF way LIKE 'version%' THEN
        PERFORM count(*) FROM mako_migrate_version(source, target, reason => way);
      ELSE
        FOREACH workflow IN ARRAY CASE WHEN way = 'both' THEN ARRAY['live-b', 'live-a']
          WHEN random() < 0.5 THEN ARRAY['live-a'] ELSE ARRAY['live-b'] END LOOP
          PERFORM mako_migrate(workflow || '@' || source, workflow || '@' || target, reason => way,
                               tenant_id => CASE WHEN way = 'repeatable read' AND random() < 0.8 THEN live.tenant(4) END);
        END LOOP;
      END IF;
      IF way LIKE '%undone' THEN
        RAISE EXCEPTION USING ERRCODE = 'P0099', MESSAGE = 'taken back';
      END IF;
    EXCEPTION WHEN serialization_failure OR SQLSTATE 'P0099' THEN
      taken_back := SQLSTATE;
    END;
    IF way LIKE '%rolled back' THEN
      ROLLBACK;
      taken_back := 'P0099';
    END IF;
    IF taken_back IS NOT NULL THEN
      INSERT INTO live.refusal VALUES ('run: ' || way, taken_back);
    END IF;
    COMMIT;
    PERFORM pg_sleep(pause * random());
  END LOOP;
END $$;

-- Who may append, but neither own nor lock a head
CREATE ROLE writer;
GRANT USAGE ON SCHEMA mako, live TO writer;
GRANT SELECT ON ALL TABLES IN SCHEMA mako TO writer;
GRANT INSERT ON mako.event TO writer;
GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA live TO writer;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA live TO writer;
GRANT EXECUTE ON FUNCTION mako_append, mako_append_batch TO writer;
SQL

my @migrations;
for my $pair ([ '2024', '2025' ], [ '2025', '2024' ])
{
	my ($from, $to) = map { "FV$_-10-01" } @$pair;

	# A batch size that puts borders between streams
	push @migrations,
	  start_sql($node, 'postgres', "from_$pair->[0]", 'SET mako_migration.batch_size = 7',
		"CALL live.migrate('$from', '$to', $seconds, $pause)");
}
$node->pgbench(
	"--no-vacuum --client=8 --time=$seconds",
	0, [qr/processed/], [qr/^$/], 'engines are at work all the time',
	{
		'014_engine@8' => 'CALL live.engine(false)',
		'014_writer@4' => "SET ROLE writer;\nCALL live.engine(true);\nRESET ROLE;",
		'014_stale@8' => 'CALL live.stale()',
		'014_twice@2' => 'CALL live.twice()',
		'014_again@2' => 'CALL live.again()',
		'014_strict@1' => "BEGIN ISOLATION LEVEL REPEATABLE READ;\nSELECT live.strict();\nCOMMIT;",
		'014_read@6' => 'CALL live.read()',
		'014_snapshot@3' => 'CALL live.snapshot()',
		'014_spawn@1' => 'SELECT live.spawn()'
	});
for (@migrations)
{
	ok(finish_sql($_), 'migrations go on all the time') or diag($_->{err});
	is($_->{err}, '', '... without a warning');
}
# Asked before the checks: what follows is theirs.
my @complaints = grep { /\b(WARNING|ERROR|FATAL|PANIC): / } split /\n/, slurp_file($node->logfile);
is(join("\n", @complaints), '', "the server's log has nothing but what was expected");

# What the extension says now, before and after all that is only a cache is gone.
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE live.state AS SELECT h.stream_no, s.* FROM mako.stream h CROSS JOIN LATERAL mako_state(h.stream_id) AS s;
CREATE TABLE live.trace AS
SELECT h.stream_no, t.* FROM mako.stream h CROSS JOIN LATERAL mako_trace(h.stream_id) WITH ORDINALITY AS t
WHERE h.stream_no <= 10 OR h.stream_no % 7 = 0;
CREATE TABLE live.periodic AS SELECT * FROM mako.snapshot WHERE run_id = 0;
DELETE FROM mako.snapshot WHERE run_id = 0;
CREATE TABLE live.state_without AS SELECT h.stream_no, s.* FROM mako.stream h CROSS JOIN LATERAL mako_state(h.stream_id) AS s;
SQL

# The fold by hand: a stream is spawned (run -1), then there are its events (run 0), and behind an event the moves to other workflows, in
# the order of the runs. A stream without events moves without a state, and starts anew.
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE live.move AS
SELECT m.*, r.source_wf, r.target_wf, row_number() OVER (PARTITION BY m.stream_no ORDER BY m.sequence_number, m.run_id) AS nth
FROM (SELECT stream_no, sequence_number, run_id, workflow_id, state_schema_version, state FROM mako.snapshot WHERE run_id > 0
      UNION ALL SELECT stream_no, sequence_number, run_id, NULL, NULL, NULL FROM mako.repointed) AS m
JOIN mako.migration_run r USING (run_id);
CREATE INDEX ON live.move (stream_no, nth);

CREATE TABLE live.point AS
WITH happened AS (
  SELECT stream_no, 0::bigint AS sequence_number, -1::bigint AS run_id, NULL::bigint AS number FROM mako.stream
  UNION ALL SELECT stream_no, sequence_number, 0, (payload->>'number')::bigint FROM mako.event
  UNION ALL SELECT stream_no, sequence_number, run_id, NULL FROM live.move),
in_order AS (
  SELECT *, row_number() OVER w AS nth, count(*) FILTER (WHERE run_id > 0) OVER w AS moves
  FROM happened WINDOW w AS (PARTITION BY stream_no ORDER BY sequence_number, run_id)),
in_versions AS (
  SELECT i.*, COALESCE(m.target_wf, p.workflow_id) AS workflow_id
  FROM in_order i JOIN mako.stream s USING (stream_no) LEFT JOIN live.process p USING (stream_id)
  LEFT JOIN live.move m ON m.stream_no = i.stream_no AND m.nth = i.moves),
folded AS (
  SELECT *,
    COALESCE(jsonb_agg(CASE WHEN workflow_id LIKE '%@FV2025%' THEN -number ELSE number END)
             FILTER (WHERE run_id = 0) OVER w, '[]') AS numbers,
    count(*) FILTER (WHERE run_id > 0 AND sequence_number > 0) OVER w AS migrated,
    COALESCE(string_agg(CASE WHEN run_id = 0 AND workflow_id LIKE '%@FV2025%' THEN ' -' || number WHEN run_id = 0 THEN ' ' || number
                             WHEN workflow_id LIKE '%@FV2025%' THEN '>' ELSE '<' END, '')
             FILTER (WHERE sequence_number > 0) OVER w, '') AS words
  FROM in_versions WINDOW w AS (PARTITION BY stream_no ORDER BY nth))
SELECT stream_no, nth, sequence_number, run_id, workflow_id,
  CASE workflow_id
    WHEN 'live-a@FV2024-10-01' THEN jsonb_build_object('n', numbers, 'migrated', migrated)
    WHEN 'live-a@FV2025-10-01' THEN jsonb_build_object('numbers', numbers, 'migrated', migrated)
    WHEN 'live-b@FV2024-10-01' THEN jsonb_build_object('log', words)
    WHEN 'live-b@FV2025-10-01' THEN jsonb_build_object('text', words, 'length', length(words))
  END AS state,
  CASE WHEN workflow_id LIKE '%@FV2025%' THEN 2 ELSE 1 END AS state_schema_version
FROM folded;
CREATE INDEX ON live.point (stream_no, sequence_number, run_id);
CREATE TABLE live.last_point AS SELECT DISTINCT ON (stream_no) * FROM live.point ORDER BY stream_no, nth DESC;
ANALYZE;
SQL

sub count_of
{
	return $node->safe_psql('postgres', "SELECT count(*) FROM $_[0]");
}

# A query finds nothing.
sub none
{
	my ($query, $name) = @_;

	return is($node->safe_psql('postgres', "$query LIMIT 5"), '', $name);
}

note(join ', ', map { count_of("live.$_") . " $_" } qw(process acked acked_later refusal move point periodic trace));
note($node->safe_psql('postgres', 'SELECT kind, sqlstate, count(*), min(message) FROM live.refusal GROUP BY 1, 2 ORDER BY 1, 2'));
note($node->safe_psql('postgres',
	'SELECT reason, source_wf, count(*), sum(migrated), sum(failed) FROM mako.migration_run GROUP BY 1, 2 ORDER BY 1, 2'));

# That there was something to see.
my $moving = 'mako.migration_run WHERE migrated > 0 AND';
cmp_ok(count_of("$moving true"), '>=', $soak ? 20 : 3, 'there were runs that moved streams');
cmp_ok(count_of("$moving reason = 'version'"), '>=', 1, '... of whole versions');
cmp_ok(count_of("$moving reason IN ('one', 'both')"), '>=', 1, '... and of single workflows');
cmp_ok(count_of("$moving reason = 'repeatable read'"), '>=', 1, '... and under REPEATABLE READ') if $soak;
cmp_ok(count_of("live.refusal WHERE sqlstate = 'P0099'"), '>=', $soak ? 3 : 1, 'some were taken back');
is(count_of("mako.migration_run WHERE reason LIKE '%undone' OR reason LIKE '%rolled back'"), '0', '... and left no trace');
cmp_ok(count_of("live.refusal WHERE kind = 'stale' AND sqlstate = 'MK005'"), '>=', $soak ? 100 : 5,
	'there were writers that remembered too old a workflow');
cmp_ok(count_of("live.refusal WHERE kind = 'engine' AND sqlstate = '40001'"), '>=', 1, 'there were writers that another one overtook');
cmp_ok(count_of('(SELECT FROM live.acked WHERE again GROUP BY event_id HAVING count(*) > 1) AS e'), '>=', $soak ? 100 : 5,
	'there were events that were sent more than once');
cmp_ok(count_of('live.acked_later'), '>=', $soak ? 1000 : 50, 'there were writers that took note in a later transaction');

# Who was refused, and why.
none(<<'SQL', 'writers are refused for known reasons only: moved, overtaken');
SELECT kind, sqlstate, message, detail FROM live.refusal
WHERE kind NOT LIKE 'run: %'
  AND (kind, sqlstate) NOT IN (('engine', '40001'), ('engine', 'MK005'), ('gave up', 'MK005'), ('stale', 'MK005'),
                               ('twice', 'MK005'), ('strict', '40001'), ('save', 'MK005'), ('save', '22023'))
SQL
none("SELECT * FROM live.refusal WHERE kind LIKE 'run: %' AND sqlstate <> 'P0099'
	  AND (kind, sqlstate) <> ('run: repeatable read', '40001')",
	'runs are refused under REPEATABLE READ only');
none(<<'SQL', 'who is told that a stream has moved believed in another workflow, and is told the run that moved it');
SELECT r.* FROM live.refusal r JOIN mako.stream s USING (stream_id)
WHERE r.sqlstate = 'MK005' AND r.kind <> 'save'
  AND (r.message NOT LIKE format('stream "%s" runs under workflow "%%"', r.stream_id)
    OR r.message LIKE format('%% runs under workflow "%s"', r.workflow_id)
    OR NOT EXISTS (SELECT FROM live.move m WHERE m.stream_no = s.stream_no
                   AND r.detail LIKE format('%% Migration run %s moved the stream.', m.run_id)
                   AND r.message LIKE format('%% runs under workflow "%s"', m.target_wf)))
SQL
none('SELECT * FROM mako.migration_error', 'no stream failed');
none('SELECT * FROM live.mismatch',
	'whoever read saw head, state and events of one moment, and whoever wrote his own event, where he expected it');

# Events: numbers and ids.
my $all_acked = '(SELECT * FROM live.acked UNION ALL SELECT * FROM live.acked_later)';
none(<<SQL, 'no acknowledged event is missing or has another number, content or workflow');
SELECT a.*, e.sequence_number, e.workflow_id, e.payload
FROM $all_acked AS a
LEFT JOIN mako.stream s USING (stream_id)
LEFT JOIN mako.event e ON e.stream_no = s.stream_no AND e.event_id = a.event_id
WHERE (e.sequence_number, (e.payload->>'number')::bigint) IS DISTINCT FROM (a.sequence_number, a.number)
  OR NOT a.again AND e.workflow_id IS DISTINCT FROM a.workflow_id
SQL
none(<<SQL, 'there is no other event');
SELECT e.* FROM mako.event e JOIN mako.stream s USING (stream_no)
LEFT JOIN $all_acked AS a ON a.stream_id = s.stream_id AND a.event_id = e.event_id
WHERE a.event_id IS NULL
SQL
none('SELECT payload, count(*) FROM mako.event GROUP BY 1 HAVING count(*) > 1', 'no event was appended twice');
none('SELECT stream_no, event_id, count(*) FROM mako.event GROUP BY 1, 2 HAVING count(*) > 1', 'no stream has an event id twice');
none(<<'SQL', 'no stream has a gap, and heads are where their events are');
SELECT s.*, e.* FROM mako.stream s
CROSS JOIN LATERAL (
  SELECT count(*), min(sequence_number), COALESCE(max(sequence_number), 0) AS max FROM mako.event e WHERE e.stream_no = s.stream_no) AS e
WHERE s.version <> e.count OR s.version <> e.max OR e.min <> 1
SQL
none('SELECT stream_id FROM mako.stream s FULL JOIN live.process p USING (stream_id) WHERE s.stream_no IS NULL OR p.no IS NULL',
	'the streams are those that were spawned');

# Workflows.
none(<<'SQL', 'every event was written under the workflow that its stream ran under at that point');
SELECT e.*, p.workflow_id FROM mako.event e
LEFT JOIN live.point p ON p.stream_no = e.stream_no AND p.sequence_number = e.sequence_number AND p.run_id = 0
WHERE e.workflow_id IS DISTINCT FROM p.workflow_id
SQL
none(<<'SQL', 'every run took a stream from where the one before had brought it');
SELECT m.*, b.workflow_id FROM live.move m
JOIN live.point p USING (stream_no, sequence_number, run_id) JOIN live.point b ON b.stream_no = p.stream_no AND b.nth = p.nth - 1
WHERE m.source_wf <> b.workflow_id
SQL
none(<<'SQL', 'every head is where its last migration has brought it');
SELECT s.*, p.workflow_id FROM mako.stream s LEFT JOIN live.last_point p USING (stream_no)
WHERE (s.workflow_id, s.version) IS DISTINCT FROM (p.workflow_id, p.sequence_number)
SQL

# States.
none(<<'SQL', 'every state is a fold by hand');
SELECT s.*, p.* FROM live.state s FULL JOIN live.last_point p USING (stream_no)
WHERE (s.state, s.sequence_number, s.workflow_id, s.state_schema_version)
  IS DISTINCT FROM (p.state, p.sequence_number, p.workflow_id, p.state_schema_version)
SQL
none(<<'SQL', 'every migration snapshot is one, and the only moves without are those of streams without events');
SELECT m.*, p.* FROM live.move m LEFT JOIN live.point p USING (stream_no, sequence_number, run_id)
WHERE CASE WHEN m.sequence_number > 0
  THEN (m.state, m.workflow_id, m.target_wf, m.state_schema_version)
    IS DISTINCT FROM (p.state, p.workflow_id, p.workflow_id, p.state_schema_version)
  ELSE m.state IS NOT NULL END
SQL
cmp_ok(count_of('live.periodic'), '>=', $soak ? 100 : 5, 'there were periodic snapshots');
none(<<'SQL', 'every periodic snapshot is a state that its stream has had');
SELECT n.* FROM live.periodic n
WHERE NOT EXISTS (SELECT FROM live.point p WHERE p.stream_no = n.stream_no AND p.sequence_number = n.sequence_number
                  AND (p.workflow_id, p.state_schema_version, p.state) = (n.workflow_id, n.state_schema_version, n.state))
SQL
none(<<'SQL', 'without the periodic snapshots every state is the same');
SELECT a.*, b.* FROM live.state a FULL JOIN live.state_without b USING (stream_no) WHERE a.* IS DISTINCT FROM b.*
SQL
none(<<'SQL', 'mako_trace tells every event and every migration of a sample, with the states of a fold by hand');
SELECT t.*, p.*
FROM live.trace t
FULL JOIN (
  SELECT p.*, e.event_type, row_number() OVER (PARTITION BY p.stream_no ORDER BY p.nth) AS ordinality
  FROM live.point p LEFT JOIN mako.event e ON e.stream_no = p.stream_no AND e.sequence_number = p.sequence_number AND p.run_id = 0
  WHERE p.sequence_number > 0 AND (p.stream_no <= 10 OR p.stream_no % 7 = 0)) AS p USING (stream_no, ordinality)
WHERE (t.sequence_number, t.run_id, t.event_type, t.workflow_id, t.state)
  IS DISTINCT FROM (p.sequence_number, NULLIF(p.run_id, 0), p.event_type, p.workflow_id, p.state)
SQL

$node->stop;
done_testing();
