# A server or one of its processes dies at a random point of a run: nothing of the run is left, and the next one completes.
#
# MAKO_SOAK=1 kills more often and in a larger store. MAKO_SEED repeats the choices of an earlier run, if not its timing.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MakoTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes;

my $soak = $ENV{MAKO_SOAK} ? 1 : 0;
my $streams = $soak ? 100_000 : 20_000;
my $kills = $soak ? 24 : 4;
my $seed = srand($ENV{MAKO_SEED} || time ^ $$);
note("seed $seed");

my $node = new_server('crash');
# Ready to lose everything that is not on disk, and to start again by itself when a process of it is killed.
$node->append_conf('postgresql.conf', "fsync = on\nrestart_after_crash = on\nmako_migration.max_memory = '4MB'\n");
$node->restart;
create_store($node, 'store');
add_sink($node, 'store');
generate($node, 'store', "generate($streams, 'seed $seed')");
my $before = contents($node, 'store');

# What a run that nobody disturbs does, and how long it takes.
$node->safe_psql('postgres', 'CREATE DATABASE undisturbed TEMPLATE store');
my $started = Time::HiRes::time();
my $expected_counts = $node->safe_psql('undisturbed', $migrate);
my $duration = Time::HiRes::time() - $started;
my $expected_outcome = outcome($node, 'undisturbed');
$node->safe_psql('postgres', 'DROP DATABASE undisturbed');
note(sprintf '%d streams, %.1f s undisturbed: %s', $streams, $duration, $expected_counts);
my ($migrated) = split /\|/, $expected_counts;
cmp_ok($migrated, '>', $streams / 2, 'most of the streams are to be migrated');

# The run's transaction stays open at its end, so that a late kill is one before COMMIT.
my $pages = "pg_relation_size('mako.snapshot') / current_setting('block_size')::int";
my $while_writing = 0;
for my $kill (1 .. $kills)
{
	my $whole_server = $kill % 2;
	# Two of three wait until snapshots are on their way, seen from another session.
	my $wait_for_writing = $kill % 3 != 0;

	$node->safe_psql('store', 'VACUUM mako.snapshot, mako.stream');
	my $pages_before = $node->safe_psql('store', "SELECT $pages");
	my $run = start_sql($node, 'store', 'victim', 'BEGIN', $migrate, 'SELECT pg_sleep(3600)');
	my $pid = pid_of($node, 'victim');
	wait_for($node, 'store', "SELECT 'growing' WHERE $pages > $pages_before + 1") if $wait_for_writing;
	Time::HiRes::sleep(rand($duration) * ($wait_for_writing ? 0.5 : 1.1));
	my ($pages_now, @pids) =
	  split /\n/, $node->safe_psql('store', "SELECT $pages; SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()");
	if ($whole_server)
	{
		kill9_all($node, @pids);
		finish_sql($run);
		$node->start;
	}
	else
	{
		my $log_end = -s $node->logfile;

		kill 'KILL', $pid;
		finish_sql($run);
		# Told by the log: asking before, a psql without a server leaves our question unread, which would end the test.
		$node->wait_for_log(qr/all server processes terminated; reinitializing/, $log_end);
		$node->wait_for_log(qr/database system is ready to accept connections/, $log_end);
	}
	my $was_writing = $pages_now > $pages_before;
	$while_writing++ if $was_writing;
	is(
		contents($node, 'store'),
		$before,
		sprintf('kill %d of seed %d: %s, %s',
			$kill,
			$seed,
			$whole_server ? 'the whole server' : 'its backend',
			$run->{out} ? 'before COMMIT' : $was_writing ? 'while writing, ' . ($pages_now - $pages_before) . ' pages' : 'before writing'));
}
cmp_ok($while_writing, '>=', $soak ? 10 : 1, "$while_writing of $kills kills after writing had begun");

# At last a run that may finish.
is($node->safe_psql('store', $migrate), $expected_counts, 'the run after the crashes migrates as many streams');
is(outcome($node, 'store'), $expected_outcome, '... with the outcome of a run that nobody disturbed');
my $after = contents($node, 'store');
is($node->safe_psql('store', $migrate), '0|' . $node->safe_psql('store', 'SELECT count(*) FROM mako.stream') . '|0', 'nothing is left to migrate');

# What is committed is there, even if the server dies at once.
$node->safe_psql('store', 'DELETE FROM mako.correlation');
my $committed = contents($node, 'store');
kill9_all($node, split /\n/, $node->safe_psql('store', 'SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()'));
$node->start;
is(contents($node, 'store'), $committed, 'a committed run survives the crash after it');

$node->stop;
done_testing();

# Kills the postmaster and all the processes that it has started, and waits until they are gone: they hold the shared memory.
sub kill9_all
{
	my ($server, @pids) = @_;
	my ($postmaster) = slurp_file($server->data_dir . '/postmaster.pid') =~ /^(\d+)/;

	$server->kill9;
	kill 'KILL', @pids;
	for (1 .. 1000)
	{
		last unless grep { is_alive($_) } $postmaster, @pids;
		Time::HiRes::sleep(0.01);
	}
	BAIL_OUT('a killed process lives on') if grep { is_alive($_) } $postmaster, @pids;
	# A dead process that its parent has not waited for yet would count as another server.
	unlink $server->data_dir . '/postmaster.pid', $server->host . '/.s.PGSQL.' . $server->port . '.lock';
}

sub is_alive
{
	my ($pid) = @_;

	return 0 unless kill(0, $pid);
	return 1 unless -d '/proc/self';
	my $stat = eval { slurp_file("/proc/$pid/stat") };    # it may go away meanwhile

	return defined $stat && $stat !~ /\) Z /;
}
