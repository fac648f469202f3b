# A batched run that is cancelled or dies again and again, and is called again each time, ends like one that nobody disturbed. Streams that
# others have locked, and processes that start meanwhile.
#
# MAKO_SOAK=1 cancels 50 times and crashes more often. MAKO_SEED repeats the choices of an earlier run, if not its timing.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin, "$FindBin::RealBin/../bench";
use Bench ();
use MakoTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes;

my $cancels = $ENV{MAKO_SOAK} ? 50 : 5;
my $crashes = $ENV{MAKO_SOAK} ? 10 : 2;
my $seed = srand($ENV{MAKO_SEED} || time ^ $$);
note("seed $seed");

my $node = new_server('batched');
my $call = "CALL mako_migrate_batched('$source', '$target', 50, pause => '5 ms')";

# What is left when all is done. How it was divided into calls shows in the batches, sessions and times of the audit trail only.
sub final_state
{
	my ($db) = @_;

	return join "\n", grep({ !/^mako\.migration_(run|batch)/ } split /\n/, outcome($node, $db)),
	  $node->safe_psql($db, <<'SQL');
SELECT kind, batch_size, through_stream_no, migrated, skipped, failed, finished_at IS NOT NULL FROM mako.migration_run ORDER BY run_id
SQL
}

# What must hold between two calls: one run, whose row, batches, snapshots and errors say the same.
sub is_consistent
{
	my ($db, $what) = @_;

	is($node->safe_psql($db, <<'SQL'), '1|t|t|t|t|0', $what);
SELECT count(*), bool_and(finished_at IS NULL),
       max(migrated) = (SELECT count(*) FROM mako.snapshot WHERE run_id > 0),
       max(migrated) = (SELECT sum(migrated) FROM mako.migration_batch),
       max(failed) = (SELECT count(*) FROM mako.migration_error) AND max(failed) = (SELECT sum(failed) FROM mako.migration_batch),
       (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')
FROM mako.migration_run
SQL
}

create_store($node, 'store');
add_sink($node, 'store');
generate($node, 'store', "generate(20000, 'seed $seed')");
$node->safe_psql('postgres', "CREATE DATABASE $_ TEMPLATE store") for qw(single undisturbed crashed);

my $since = Time::HiRes::time();
$node->safe_psql('undisturbed', $call);
my $duration = Time::HiRes::time() - $since;
my $expected = final_state('undisturbed');
note(sprintf '%.1f s undisturbed: %s', $duration, $node->safe_psql('undisturbed', 'SELECT migrated, skipped, failed FROM mako.migration_run'));

is( $node->safe_psql('undisturbed', 'SELECT migrated, skipped, failed FROM mako.migration_run'),
	$node->safe_psql('single', $migrate),
	'a batched run counts what a single one counts');
my @but_audit = map { [ grep { !/^mako\.migration_(run|batch|error)/ } split /\n/, outcome($node, $_) ] } qw(single undisturbed);
is_deeply($but_audit[1], $but_audit[0], '... and leaves the same');

# ---- folded ahead, with little memory

# Reading goes on in transaction after transaction, from where the one before stopped: in one table, and in partitions side by side.
for my $prepare ('', Bench::partition_events())
{
	my $what = $prepare eq '' ? 'one table' : 'partitions';
	my $messages;

	$node->safe_psql('postgres', 'CREATE DATABASE ahead TEMPLATE store');
	$node->safe_psql('ahead', $prepare);
	$node->psql('ahead', <<SQL, stderr => \$messages);
SET client_min_messages = debug1;
SET mako_migration.scan_order = heap;
SET mako_migration.max_memory = '2MB';
SET mako_migration.batch_size = 100;
CALL mako_migrate_batched('$source', '$target', 500)
SQL
	my $windows = () = $messages =~ /folded \d+ streams ahead/g;

	cmp_ok($windows, '>', 10, "$what: states are kept $windows times");
	is_deeply([ grep { !/^mako\.(migration_(run|batch|error)|event)/ } split /\n/, outcome($node, 'ahead') ],
		[ grep { !/^mako\.event/ } @{ $but_audit[0] } ], '... and are those of a single run');
	is($node->safe_psql('ahead', 'SELECT count(*) FROM mako_verify(1)'), '0', '... as is proven');
	is($node->safe_psql('ahead', "SELECT code, subject, message FROM mako_check(0) WHERE severity = 'error' AND code <> 'state_outside_type'"), '', '... in a store that is in order');
	$node->safe_psql('postgres', 'DROP DATABASE ahead');
}

# What happens to the table of events between two transactions: it is written anew, or the caller may not read it any more.
for my $case ([ 'VACUUM FULL mako.event', '' ], [ 'ALTER TABLE mako.event ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON mako.event USING (stream_no % 2 = 0)', qr/42501|row-level security/ ])
{
	my ($change, $error) = @$case;

	$node->safe_psql('postgres', 'CREATE DATABASE ahead TEMPLATE store');
	$node->safe_psql('ahead', <<SQL);
CREATE ROLE mover LOGIN;
GRANT USAGE ON SCHEMA mako, gpke TO mover;
GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA mako, gpke, public TO mover;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA public, gpke TO mover;
SQL
	my $run = start_sql($node, 'ahead', 'mover', 'SET SESSION AUTHORIZATION mover', "SET mako_migration.scan_order = heap",
		"SET mako_migration.max_memory = '2MB'", "CALL mako_migrate_batched('$source', '$target', 100, pause => '3 ms')");
	wait_for($node, 'ahead', "SELECT 'begun' FROM mako.migration_batch HAVING count(*) > 2");
	$node->safe_psql('ahead', $change);
	my $ended = finish_sql($run);
	if ($error eq '')
	{
		ok($ended, "$change: a run goes on") or diag($run->{err});
		is_deeply([ grep { !/^mako\.(migration_(run|batch|error)|event)/ } split /\n/, outcome($node, 'ahead') ],
			[ grep { !/^mako\.event/ } @{ $but_audit[0] } ], '... to the same states');
	}
	else
	{
		like($run->{err}, $error, 'a policy that comes meanwhile: a run ends');
		is($node->safe_psql('ahead', 'SELECT sum(migrated) = (SELECT count(*) FROM mako.snapshot WHERE run_id > 0) FROM mako.migration_batch'), 't', '... and with what is committed');
	}
	$node->safe_psql('ahead', 'DROP OWNED BY mover');
	$node->safe_psql('postgres', 'DROP DATABASE ahead; DROP ROLE mover');
}

# ---- cancelled

# How far a call comes before it is cancelled depends on the machine: when a run has ended, another begins, in a new copy.
my ($cancelled, $copies) = (0, 0);
while ($cancelled < $cancels)
{
	my $db = 'cancelled' . ++$copies;
	my $ended;

	$node->safe_psql('postgres', "CREATE DATABASE $db TEMPLATE store");
	until ($ended)
	{
		my $run = start_sql($node, $db, 'victim', $call);
		my $pid = pid_of($node, 'victim');
		my $batches = $node->safe_psql($db, 'SELECT count(*) FROM mako.migration_batch');

		if ($cancelled < $cancels)
		{
			# Some of them before it has done anything; the others not, or the test would have no end.
			wait_for($node, $db, "SELECT 'more' FROM mako.migration_batch HAVING count(*) > $batches OR NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $pid)")
			  if $cancelled % 3 < 2;
			Time::HiRes::sleep(rand($duration) / $cancels);
			$node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
		}
		$ended = finish_sql($run) || $node->safe_psql($db, 'SELECT finished_at FROM mako.migration_run');
		next if $ended;
		$cancelled++;
		like($run->{err}, qr/ERROR:  57014: canceling statement due to user request/, "cancel $cancelled of seed $seed: it ends");
		is_consistent($db, '... between two batches') if $node->safe_psql($db, 'SELECT count(*) FROM mako.migration_batch') > 0;
	}
	is(final_state($db), $expected, 'after all, it has done what a run that nobody disturbs does');
}

# ---- crashed

for my $crash (1 .. $crashes)
{
	my $run = start_sql($node, 'crashed', 'victim', $call);
	my $batches = $node->safe_psql('crashed', 'SELECT count(*) FROM mako.migration_batch');

	wait_for($node, 'crashed', "SELECT 'more' FROM mako.migration_batch HAVING count(*) > $batches");
	Time::HiRes::sleep(rand($duration) / 2 / $crashes);
	$node->stop('immediate');
	finish_sql($run);
	$node->start;
	is_consistent('crashed', "crash $crash: what is committed is there, and nothing else");
}
is($node->safe_psql('crashed', "SELECT done > 0, done < total, pid FROM mako_progress"), 't|t|', 'mako_progress shows the run, at which nobody is');
$node->safe_psql('crashed', $call);
is(final_state('crashed'), $expected, 'called again, it ends as if nothing had happened');
$node->safe_psql('crashed', $call);
is($node->safe_psql('crashed', 'SELECT migrated > 0 FROM mako.migration_run ORDER BY run_id'), "t\nf", 'another call is another run');

# ---- busy streams, and processes that start meanwhile

my @busy = split /\n/,
  $node->safe_psql('store', "SELECT stream_no FROM mako.stream WHERE workflow_id = '$source' AND version > 3 ORDER BY stream_no OFFSET 100 LIMIT 2");
my $holder = start_sql($node, 'store', 'holder', 'BEGIN',
	'SELECT FROM mako.stream WHERE stream_no IN (' . join(', ', @busy) . ') FOR UPDATE', 'SELECT pg_sleep(3600)');

wait_for($node, 'store', "SELECT 'sleeps' FROM pg_stat_activity WHERE application_name = 'holder' AND wait_event = 'PgSleep'");
my $run = start_sql($node, 'store', 'victim', "CALL mako_migrate_batched('$source', '$target', 50, pause => '5 ms', lock_timeout => '10 ms')");
wait_for($node, 'store', "SELECT 'begun' FROM mako.migration_batch HAVING count(*) > 1");
$node->safe_psql('store', "SELECT mako_spawn('$source', gen_random_uuid(), '00000000-0000-4000-8000-00000000000$_')") for 1 .. 3;
ok(finish_sql($run), 'a run that meets locked streams comes to its end');
is($node->safe_psql('store', 'SELECT finished_at IS NOT NULL FROM mako.migration_run'), 't', '... although processes are started meanwhile');
is( $node->safe_psql('store', "SELECT e.stream_no, e.phase, e.sequence_number, e.message, e.detail FROM mako.migration_error e WHERE e.sqlstate = '55P03' ORDER BY 1"),
	join("\n", map { "$_|load||the stream is locked by another transaction|It was waited for for 10 ms." } @busy),
	'... and reports those that stayed locked');
is($node->safe_psql('store', 'SELECT sum(busy) FROM mako.migration_batch'), '4', '... having tried each again');
is( $node->safe_psql('store', "SELECT count(*) FROM mako.stream WHERE workflow_id = '$source' AND process_id::text LIKE '00000000-0000-4000-8000-%'"),
	'3', 'the new processes run under the old workflow still');
$node->safe_psql('postgres', "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = 'holder'");
finish_sql($holder);
$node->safe_psql('store', $call);
is( $node->safe_psql('store', "SELECT count(*) FILTER (WHERE workflow_id = '$target'), count(*) FROM mako.stream WHERE stream_no IN ("
		. join(', ', @busy) . ") OR process_id::text LIKE '00000000-0000-4000-8000-%'"),
	'5|5', 'called again, it migrates those, too');

$node->stop;
done_testing();
