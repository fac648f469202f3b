# Migrations back and forth while writers append and spawn: no event is lost, none is written under the wrong workflow, and every state
# that any of the runs stored is what a fold by hand gives.
#
# MAKO_SOAK=1 goes on for longer.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MakoTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $seconds = $ENV{MAKO_SOAK} ? 60 : 4;
my $node = new_server('live');

$node->safe_psql('postgres', 'CREATE EXTENSION mako_migration; SELECT mako_create_store()');
$node->safe_psql('postgres', <<'SQL');
CREATE SCHEMA live;
-- A state is the numbers of its events in order, so that a missing, doubled or misplaced one shows.
CREATE FUNCTION live.apply(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS
  $$ SELECT state || payload $$;
CREATE FUNCTION live.migrate(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT state $$;
SELECT mako_register_workflow('live@FV2024-10-01', apply => 'live.apply', initial_state => '[]');
SELECT mako_register_workflow('live@FV2025-10-01', apply => 'live.apply', initial_state => '[]');
SELECT mako_register_migration('live@FV2024-10-01', 'live@FV2025-10-01', migrate => 'live.migrate');
SELECT mako_register_migration('live@FV2025-10-01', 'live@FV2024-10-01', migrate => 'live.migrate');

CREATE TABLE live.refusal (sqlstate text, message text);
CREATE SEQUENCE live.spawned;
-- An engine that does not load the process again before it writes: its version and its workflow may be out of date.
CREATE FUNCTION live.append(older boolean) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  head mako.stream;
BEGIN
  SELECT * INTO head FROM mako.stream WHERE stream_no = (SELECT ceil(random() * max(stream_no)) FROM mako.stream);
  IF older THEN
    PERFORM pg_sleep(0.002);
  END IF;
  INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
  SELECT head.stream_no, head.version + n, head.workflow_id, 'Counted', to_jsonb(head.version + n) FROM generate_series(1, 1 + ceil(random() * 2)::int) AS n
  WHERE head.stream_no IS NOT NULL;
EXCEPTION WHEN OTHERS THEN
  INSERT INTO live.refusal VALUES (SQLSTATE, SQLERRM);
END $$;
CREATE FUNCTION live.spawn() RETURNS void LANGUAGE sql AS $$
  WITH head AS (
    INSERT INTO mako.stream (stream_id, workflow_id)
    VALUES ('live ' || nextval('live.spawned'), CASE WHEN random() < 0.5 THEN 'live@FV2024-10-01' ELSE 'live@FV2025-10-01' END)
    RETURNING stream_no, workflow_id)
  SELECT NULL FROM head;
  INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
  SELECT stream_no, 1, workflow_id, 'Counted', '1' FROM mako.stream WHERE stream_id = 'live ' || currval('live.spawned');
$$;
SELECT live.spawn() FROM generate_series(1, 200);
SQL

# Back and forth, a batch size that puts borders between streams, now and then under a stricter isolation level or taken back.
my @migrations;
for my $pair ([ '2024', '2025' ], [ '2025', '2024' ])
{
	my ($from, $to) = map { "live\@FV$_-10-01" } @$pair;

	push @migrations, start_sql($node, 'postgres', "from_$pair->[0]", 'SET mako_migration.batch_size = 7', <<SQL);
DO \$\$
BEGIN
  WHILE clock_timestamp() < statement_timestamp() + interval '$seconds seconds' LOOP
    BEGIN
      PERFORM mako_migrate('$from', '$to');
      IF random() < 0.2 THEN
        RAISE EXCEPTION USING ERRCODE = 'P0099', MESSAGE = 'taken back';
      END IF;
    EXCEPTION WHEN serialization_failure OR SQLSTATE 'P0099' THEN
      INSERT INTO live.refusal VALUES ('run ' || SQLSTATE, SQLERRM);
    END;
    PERFORM set_config('default_transaction_isolation', CASE WHEN random() < 0.2 THEN 'repeatable read' ELSE 'read committed' END, false);
    COMMIT;
  END LOOP;
END \$\$
SQL
}
$node->pgbench(
	"--no-vacuum --client=6 --time=$seconds",
	0, [qr/processed/], [qr/^$/], 'writers append and spawn all the time',
	{
		'007_append@8' => 'SELECT live.append(false)',
		'007_append_late@4' => 'SELECT live.append(true)',
		'007_spawn@1' => 'SELECT live.spawn()'
	});
ok(finish_sql($_), 'migrations go on all the time') or diag($_->{err}) for @migrations;

note($node->safe_psql('postgres', "SELECT count(*), sum(migrated), sum(failed) FROM mako.migration_run"));
note($node->safe_psql('postgres', 'SELECT sqlstate, count(*), min(message) FROM live.refusal GROUP BY 1 ORDER BY 1'));
cmp_ok($node->safe_psql('postgres', 'SELECT count(*) FROM mako.migration_run WHERE migrated > 0'), '>', 5, 'there were runs that moved streams');
cmp_ok($node->safe_psql('postgres', "SELECT count(*) FROM live.refusal WHERE sqlstate = 'MK005'"), '>', 0, 'there were writers that came too late');
is($node->safe_psql('postgres', 'SELECT count(*) FROM mako.migration_error'), '0', 'no stream failed');
is( $node->safe_psql('postgres', "SELECT DISTINCT sqlstate, message FROM live.refusal WHERE sqlstate NOT IN ('MK005', 'XX001', '23505', 'run 40001', 'run P0099')"),
	'', 'writers are refused for known reasons only: moved, overtaken by another writer');

is( $node->safe_psql('postgres', <<'SQL'), '', 'heads are where their events are');
SELECT s.* FROM mako.stream s
CROSS JOIN LATERAL (SELECT count(*), max(sequence_number) FROM mako.event e WHERE e.stream_no = s.stream_no) AS e
WHERE s.version IS DISTINCT FROM e.count OR s.version IS DISTINCT FROM e.max
SQL
is( $node->safe_psql('postgres', <<'SQL'), '', 'every stored state is a fold by hand of all events up to it');
SELECT n.* FROM mako.snapshot n
WHERE n.state IS DISTINCT FROM
  (SELECT jsonb_agg(e.payload ORDER BY e.sequence_number) FROM mako.event e
   WHERE e.stream_no = n.stream_no AND e.sequence_number <= n.sequence_number)
SQL
# Each migration turns a stream from one workflow to the other, so counting them tells where it was.
$node->safe_psql('postgres', <<'SQL');
CREATE FUNCTION live.workflow_at(stream bigint, sequence bigint) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN (e.workflow_id = 'live@FV2024-10-01') = (count(n) % 2 = 0) THEN 'live@FV2024-10-01' ELSE 'live@FV2025-10-01' END
  FROM mako.event e LEFT JOIN mako.snapshot n ON n.stream_no = e.stream_no AND n.sequence_number < sequence
  WHERE e.stream_no = stream AND e.sequence_number = 1
  GROUP BY e.workflow_id
$$;
SQL
is( $node->safe_psql('postgres', 'SELECT * FROM mako.event WHERE workflow_id <> live.workflow_at(stream_no, sequence_number)'),
	'', 'every event was written under the workflow that its stream ran under at that point');
is( $node->safe_psql('postgres', 'SELECT * FROM mako.stream WHERE workflow_id <> live.workflow_at(stream_no, version + 1)'),
	'', 'every head runs under the workflow of its last migration');

# The newest snapshot is the one with the highest sequence number and, of those, the highest number of a run. So a run must take its
# number when it already knows which heads it will see: here it is stopped in between, while another run brings it one more.
$node->safe_psql('postgres', <<'SQL');
SELECT mako_migrate('live@FV2024-10-01', 'live@FV2025-10-01');
CREATE FUNCTION live.wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NULL; END $$;
CREATE TRIGGER wait AFTER INSERT ON mako.migration_run FOR EACH ROW WHEN (NEW.source_wf = 'live@FV2024-10-01')
  EXECUTE FUNCTION live.wait();
SQL
my $holder = start_sql($node, 'postgres', 'holder', 'SELECT pg_advisory_lock(1)', 'SELECT pg_sleep(3600)');
wait_for($node, 'postgres', "SELECT 'sleeps' FROM pg_stat_activity WHERE application_name = 'holder' AND wait_event = 'PgSleep'");
my $stopped = start_sql($node, 'postgres', 'stopped', "SELECT mako_migrate('live\@FV2024-10-01', 'live\@FV2025-10-01')");
wait_for($node, 'postgres', "SELECT 'waits' FROM pg_stat_activity WHERE application_name = 'stopped' AND wait_event_type = 'Lock'");
$node->safe_psql('postgres', "SELECT mako_migrate('live\@FV2025-10-01', 'live\@FV2024-10-01')");
$node->safe_psql('postgres', "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = 'holder'");
finish_sql($holder);
ok(finish_sql($stopped), 'a run that is stopped after it has its number goes on') or diag($stopped->{err});
{
	is( $node->safe_psql('postgres', <<'SQL'), '0', 'numbers of runs are in the order of what they did to a stream');
SELECT count(*) FROM mako.stream s
CROSS JOIN LATERAL (
  SELECT n.workflow_id FROM mako.snapshot n WHERE n.stream_no = s.stream_no ORDER BY n.sequence_number DESC, n.run_id DESC LIMIT 1) AS newest
WHERE newest.workflow_id <> s.workflow_id
SQL
}

$node->stop;
done_testing();
