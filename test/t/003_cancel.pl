# Cancel ends a run within a second wherever it is, changes nothing, and the next run completes. So do timeouts and a shutdown.
#
# MAKO_SOAK=1 cancels more often. MAKO_SEED repeats the choices of an earlier run, if not its timing.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MakoTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes;

my $random_points = $ENV{MAKO_SOAK} ? 30 : 3;
my $seed = srand($ENV{MAKO_SEED} || time ^ $$);
my $node = new_server('cancel');
my $before;

sub stays_open { return "BEGIN; $_[0]; SELECT pg_sleep(3600)" }

# How long an interruption may take: a second, or on a busy machine five times as long as for a session that only sleeps.
sub limit
{
	my ($elapsed, $with) = @_;
	my $limit = 1;

	for (1 .. $elapsed < $limit ? 0 : 3)
	{
		my $sleeper = start_sql($node, 'postgres', 'sleeper', 'SELECT pg_sleep(3600)');
		my $pid = pid_of($node, 'sleeper');

		wait_for($node, 'postgres', "SELECT 'active' FROM pg_stat_activity WHERE pid = $pid AND wait_event = 'PgSleep'");
		my $since = Time::HiRes::time();
		$node->safe_psql('postgres', "SELECT $with($pid)");
		finish_sql($sleeper);
		my $reference = 5 * (Time::HiRes::time() - $since);
		$limit = $reference if $limit < $reference;
	}
	return $limit;
}

# Starts a run, interrupts it as soon as the query has an answer, and checks what is left of it. The transaction stays open after
# the run: on a machine where the run is over before the interruption comes, that still has something to undo.
sub interrupted
{
	my ($what, $db, $statement, $wait_query, %options) = @_;
	my $run = start_sql($node, $db, 'victim', stays_open($statement));
	my $pid = pid_of($node, 'victim');

	$wait_query =~ s/\bPID\b/$pid/g;
	wait_for($node, $db, $wait_query);
	Time::HiRes::sleep($options{later}) if $options{later};
	is($node->safe_psql('postgres', "SELECT state FROM pg_stat_activity WHERE pid = $pid"), 'active', "$what: the run is under way");

	my $with = $options{with} || 'pg_cancel_backend';
	my $since = Time::HiRes::time();
	$node->safe_psql('postgres', "SELECT $with($pid)");
	finish_sql($run);
	my $elapsed = Time::HiRes::time() - $since;

	like($run->{err}, $options{error} || qr/ERROR:  57014: canceling statement due to user request/, "$what: it ends with the right error");
	cmp_ok($elapsed, '<', limit($elapsed, $with), sprintf '%s: ... within a second (%.3f s)', $what, $elapsed);
	is(contents($node, $db), $before, "$what: ... and has changed nothing");
}

my $active = "SELECT 'active' FROM pg_stat_activity WHERE pid = PID AND state = 'active'";
my $blocked = "$active AND wait_event_type = 'Lock'";

# ---- a store of the usual kind

create_store($node, 'store');
generate($node, 'store', "generate(20000)");
$before = contents($node, 'store');
$node->safe_psql('postgres', 'CREATE DATABASE twin TEMPLATE store');
my $since = Time::HiRes::time();
my $expected = $node->safe_psql('twin', $migrate);
my $duration = Time::HiRes::time() - $since;
note(sprintf '%.1f s undisturbed: %s', $duration, $expected);

my $holder = start_sql($node, 'store', 'holder', 'BEGIN',
	"SELECT stream_no FROM mako.stream WHERE workflow_id = '$source' ORDER BY stream_no OFFSET 5000 LIMIT 1 FOR UPDATE",
	'SELECT pg_sleep(3600)');
wait_for($node, 'store', "SELECT 'sleeps' FROM pg_stat_activity WHERE application_name = 'holder' AND wait_event = 'PgSleep'");
interrupted('waiting for a head', 'store', $migrate, $blocked);
like(error_of($node, 'store', "SET lock_timeout = '200ms'; $migrate"), qr/^55P03/, 'lock_timeout ends a run that waits for a head');
is(contents($node, 'store'), $before, '... and nothing has changed');
$node->safe_psql('postgres', "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = 'holder'");
finish_sql($holder);

interrupted('folding', 'store', $migrate, $active, later => $duration * 0.2);
interrupted("at random point $_ of seed $seed", 'store', $migrate, $active, later => rand($duration))
  for 1 .. $random_points;

my $writing = "SELECT DISTINCT 'writing' FROM pg_locks WHERE pid = PID AND relation = 'mako.snapshot'::regclass AND mode = 'RowExclusiveLock'";
interrupted('writing', 'store', $migrate, $writing);
interrupted('writing in small portions', 'store', "SET mako_migration.max_memory = '1MB'; $migrate", $writing, later => $duration * 0.2);
interrupted('writing, by a shutdown of the session', 'store', $migrate, $writing,
	with => 'pg_terminate_backend', error => qr/FATAL:  57P01/);

$holder = start_sql($node, 'store', 'holder', 'BEGIN',
	"SELECT 1 FROM gpke.deadline WHERE workflow_id = '$source' FOR UPDATE", 'SELECT pg_sleep(3600)');
wait_for($node, 'store', "SELECT 'sleeps' FROM pg_stat_activity WHERE application_name = 'holder' AND wait_event = 'PgSleep'");
interrupted('waiting for a dependent', 'store', $migrate, $blocked);
$node->safe_psql('postgres', "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = 'holder'");
finish_sql($holder);

# Again and again, because each of them is read as a whole before its first row.
interrupted('rehearsing', 'store', "SELECT count(*) FROM generate_series(1, 1000) i, mako_dry_run('$source', '$target', seed => i)", $active,
	later => $duration * 0.2);
interrupted('planning', 'store', "SELECT count(*) FROM generate_series(1, 1000) i, mako_plan('$source', '$target', in_flight_only => i < 0)", $active,
	later => $duration * 0.2);

for my $share (0.2, 0.5)
{
	my $timeout = int(1000 * $share * $duration);

	like(error_of($node, 'store', "SET statement_timeout = $timeout; " . stays_open($migrate)),
		qr/^57014: canceling statement due to statement timeout/, "statement_timeout ends a run after $timeout ms");
	is(contents($node, 'store'), $before, '... and nothing has changed');
}

is($node->safe_psql('store', $migrate), $expected, 'the run after all this completes');
is(outcome($node, 'store'), outcome($node, 'twin'), '... with the outcome of a run that nobody disturbed');

# ---- functions that take their time

# The state of "long" is the list of all payloads, that of "stuck" never comes.
create_store($node, 'slow');
$node->safe_psql('slow', <<'SQL');
CREATE SCHEMA lib;
CREATE FUNCTION lib.list(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS
  $$ SELECT state || payload $$;
CREATE FUNCTION lib.plpgsql_loop(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE AS
  $$ BEGIN LOOP NULL; END LOOP; END $$;
CREATE FUNCTION lib.plpgsql_catch(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE AS
  $$ BEGIN LOOP BEGIN PERFORM pg_sleep(1000); EXCEPTION WHEN OTHERS THEN NULL; END; END LOOP; END $$;
CREATE FUNCTION lib.sql_loop(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS
  $$ WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT 1 FROM r) SELECT to_jsonb(count(*)) FROM r WHERE n > state::int $$;
SELECT mako_register_workflow('long@FV2024-10-01', apply => 'lib.list', initial_state => '[]');
SELECT mako_register_workflow('long@FV2025-10-01');
SELECT mako_register_migration('long@FV2024-10-01', 'long@FV2025-10-01');
SELECT mako_register_workflow('stuck@FV2024-10-01', apply => 'lib.list', initial_state => '[]');
SELECT mako_register_workflow('stuck@FV2025-10-01');
SELECT mako_register_migration('stuck@FV2024-10-01', 'stuck@FV2025-10-01');
INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('long', 'long@FV2024-10-01'), ('stuck', 'stuck@FV2024-10-01');
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
SELECT stream_no, n, workflow_id, 'Noted', jsonb_build_object('note', repeat(md5(n::text), 3))
FROM mako.stream CROSS JOIN LATERAL generate_series(1, CASE stream_id WHEN 'long' THEN 10000 ELSE 1 END) AS n;
VACUUM ANALYZE;
SQL
$before = contents($node, 'slow');

my $migrate_long = "SELECT migrated FROM mako_migrate('long\@FV2024-10-01', 'long\@FV2025-10-01')";
interrupted('inside a stream of 10,000 events', 'slow', $migrate_long, $active, later => 0.3);

my $migrate_stuck = "SELECT migrated, failed FROM mako_migrate('stuck\@FV2024-10-01', 'stuck\@FV2025-10-01')";
for my $function (qw(plpgsql_loop plpgsql_catch sql_loop))
{
	$node->safe_psql('slow',
		"SELECT mako_register_workflow('stuck\@FV2024-10-01', apply => 'lib.$function', initial_state => '0', replace => true)");
	$before = contents($node, 'slow');
	interrupted("inside lib.$function(), which never ends", 'slow', $migrate_stuck, $active, later => 0.1);
}
like(error_of($node, 'slow', "SET statement_timeout = 200; $migrate_stuck"), qr/^57014/, 'statement_timeout ends it, too');
is(contents($node, 'slow'), $before, '... and nothing has changed');

$node->safe_psql('slow',
	"SELECT mako_register_workflow('stuck\@FV2024-10-01', apply => 'lib.list', initial_state => '[]', replace => true)");
is($node->safe_psql('slow', $migrate_stuck), '1|0', 'with another function the run completes');
is($node->safe_psql('slow', $migrate_long), '1', 'so does that of the long stream');
is($node->safe_psql('slow', "SELECT jsonb_array_length(state) FROM mako.snapshot WHERE workflow_id ~ 'long'"), '10000', '... with all its events');

# ---- heads without number

$node->safe_psql('slow', <<'SQL');
SELECT mako_register_workflow('plain@FV2024-10-01');
SELECT mako_register_workflow('plain@FV2025-10-01');
SELECT mako_register_migration('plain@FV2024-10-01', 'plain@FV2025-10-01');
INSERT INTO mako.stream (stream_id, workflow_id) SELECT 'plain ' || n, 'plain@FV2024-10-01' FROM generate_series(1, 300000) AS n;
SQL
$before = contents($node, 'slow');
my $migrate_plain = "SELECT migrated, skipped FROM mako_migrate('plain\@FV2024-10-01', 'plain\@FV2025-10-01')";
interrupted('scanning heads', 'slow', $migrate_plain, $active, later => 0.05);
interrupted('scanning heads one by one', 'slow', "SET mako_migration.batch_size = 1; $migrate_plain", $active, later => 0.5);
is($node->safe_psql('slow', $migrate_plain), '0|300002', 'the run after that completes');

# ---- a diagram of as many states as streams

$node->safe_psql('slow', <<'SQL');
CREATE FUNCTION lib.replace(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS 'SELECT payload';
SELECT mako_register_workflow('many@FV2024-10-01', apply => 'lib.replace', initial_state => '{}');
INSERT INTO mako.stream (stream_id, workflow_id) SELECT 'many ' || n, 'many@FV2024-10-01' FROM generate_series(1, 100000) AS n;
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
SELECT stream_no, 1, workflow_id, 'Named', jsonb_build_object('status', stream_id) FROM mako.stream WHERE workflow_id ~ 'many';
SQL
$before = contents($node, 'slow');
interrupted('drawing', 'slow', "SELECT mako_state_diagram('many\@FV2024-10-01')", $active, later => 1);

$node->stop;
done_testing();
