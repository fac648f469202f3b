# A batched migration of a whole version that is cancelled, or dies with the server, at random points: given up half-way it is undone, and
# everything is as before; called again to its end it is proven and undone. What was taken back can be migrated in one go. Among the
# generated streams of four workflows are bad ones, and some that others have locked.
#
# MAKO_SOAK=1 interrupts 60 times. MAKO_SEED repeats the choices of an earlier run, if not its timing.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MakoTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $rounds = $ENV{MAKO_SOAK} ? 60 : 6;
my $streams = 1500;
my $seed = srand($ENV{MAKO_SEED} || time ^ $$);
my ($old, $new) = ('FV2025-10-01', 'FV2026-10-01');
note("seed $seed");

my $node = new_server('given_up');

# What a store holds, a line each, apart from the audit trail and from snapshots that are marked reverted.
sub content
{
	my ($db) = @_;

	return [
		grep({ !/^(mako\.(migration_|snapshot|repointed|reverted)|taken)/ } split /\n/, contents($node, $db)),
		split(/\n/, $node->safe_psql($db, <<'SQL')) ];
SELECT 'snapshots', count(*), md5(string_agg((stream_no, sequence_number, workflow_id, state_schema_version, state)::text, ',' ORDER BY stream_no, sequence_number, run_id))
FROM mako.snapshot WHERE (stream_no, run_id) NOT IN (SELECT stream_no, run_id FROM mako.reverted);
SELECT 'moves without one', count(*), md5(string_agg((stream_no, sequence_number)::text, ',' ORDER BY stream_no, sequence_number, run_id))
FROM mako.repointed WHERE (stream_no, run_id) NOT IN (SELECT stream_no, run_id FROM mako.reverted);
SELECT 'taken by a sink', count(*), md5(string_agg((stream_id, sequence_number, state)::text, ',' ORDER BY stream_id, run_id))
FROM public.taken;
SQL
}

# What mako_check() has against the store.
sub faults
{
	my ($db) = @_;

	return $node->safe_psql($db, "SELECT code, subject, message FROM mako_check(0) WHERE severity = 'error'");
}

# Undoes all runs that are not undone yet, the last one first; returns the sums of their reports, and of what the runs had counted.
sub revert_all
{
	my ($db) = @_;

	return $node->safe_psql($db, <<'SQL');
SET client_min_messages = warning;
SELECT sum(v.migrated) = sum(r.migrated), sum(v.failed)
FROM (SELECT run_id, migrated FROM mako.migration_run WHERE kind <> 'revert' ORDER BY run_id DESC) AS r
CROSS JOIN LATERAL mako_revert(r.run_id, 'given up') AS v;
SQL
}

# Counts rows.
sub count_of
{
	my ($db, $from) = @_;

	return $node->safe_psql($db, "SELECT count(*) FROM $from");
}

my $unfinished = 'mako.migration_run WHERE finished_at IS NULL';
my $proof = 'mako.migration_run r CROSS JOIN LATERAL mako_verify(r.run_id) WHERE r.kind <> \'revert\'';

# ---- the store, and what a migration in one transaction makes of it

$node->safe_psql('postgres', 'CREATE DATABASE store');
$node->safe_psql('store', slurp_file('test/examples/generator/choose.sql'));
$node->safe_psql('store', "SELECT generator.choose('seed $seed', $streams, poison_rate => 0.05)");
$node->safe_psql('store', 'CREATE EXTENSION mako_migration; SELECT mako_create_store()');
add_sink($node, 'store');
$node->safe_psql('store', "\\i test/examples/$_.sql") for qw(register generator/load);
$node->safe_psql('store', <<SQL);
SELECT mako_add_dependent('generator.deadline', 'process_id', 'workflow_id', tenant_column => 'tenant_id');
SELECT * FROM generator.load('seed $seed');
VACUUM ANALYZE;
SQL
my $before = content('store');
my $faults = faults('store');

$node->safe_psql('postgres', 'CREATE DATABASE single TEMPLATE store');
my $single = "SELECT source_wf, migrated, skipped, failed FROM mako_migrate_version('$old', '$new') ORDER BY 1";
my $counts = $node->safe_psql('single', $single);
my $after = content('single');
my $batches = $node->safe_psql('single', 'SELECT sum(migrated + failed) / 10 FROM mako.migration_run');
isnt("@$after", "@$before", 'a migration changes something');
note($counts);

# ---- interrupted, in either way; then given up, or called again

my ($given_up, $interrupted) = (0, 0);
for my $round (1 .. $rounds)
{
	my $db = "round$round";
	my $crash = $round % 2;
	my $give_up = $round % 3 > 0;
	my $what = "seed $seed, round $round";
	my $wanted = 1 + int(rand($batches));

	$node->safe_psql('postgres', "CREATE DATABASE $db TEMPLATE store");
	my @busy = split /\n/, $node->safe_psql($db,
		"SELECT stream_no FROM mako.stream WHERE workflow_id LIKE '%\@$old' AND version > 1 ORDER BY md5(stream_no::text || '$round') LIMIT 3");
	my $holder = start_sql($node, $db, 'holder', 'BEGIN',
		'SELECT FROM mako.stream WHERE stream_no IN (' . join(', ', @busy) . ') FOR UPDATE', 'SELECT pg_sleep(3600)');
	wait_for($node, $db, "SELECT 'sleeps' FROM pg_stat_activity WHERE application_name = 'holder' AND wait_event = 'PgSleep'");

	my $run = start_sql($node, $db, 'victim', "CALL mako_migrate_version_batched('$old', '$new', 10, pause => '2 ms', lock_timeout => '1 ms')");
	my $pid = pid_of($node, 'victim');
	wait_for($node, $db, "SELECT 'enough' FROM mako.migration_batch HAVING count(*) >= $wanted OR NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $pid)");
	$crash ? $node->stop('immediate') : $node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
	my $ended = finish_sql($run);
	$node->start if $crash;
	$node->safe_psql('postgres', "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = 'holder'");
	finish_sql($holder);
	$interrupted++ unless $ended;

	if ($give_up && count_of($db, $unfinished) > 0)
	{
		$given_up++;
		like(error_of($node, $db, "SELECT * FROM mako_verify((SELECT min(run_id) FROM $unfinished))"),
			qr/^55000: migration run \d+ is not finished/, "$what: a run that is not finished is not proven");
		is(revert_all($db), 't|0', "$what: given up, all of it goes back");
		is(count_of($db, $unfinished), '0', '... and the runs are over');
		is(count_of($db, 'mako_progress'), '0', '... also for who watches');
	}
	else
	{
		$node->safe_psql($db, "CALL mako_migrate_version_batched('$old', '$new', 100)") if !$ended;
		is(count_of($db, $unfinished), '0', "$what: called again, it comes to its end");
		is(count_of($db, $proof), '0', '... and is proven');
		is(revert_all($db), 't|0', '... all of it goes back');
		is(count_of($db, $proof), '0', '... which leaves nothing to prove');
	}
	is_deeply(content($db), $before, '... and everything is as before');
	is(faults($db), $faults, '... without a fault that was not there');
	is($node->safe_psql($db, $single), $counts, '... so that it can be migrated in one go');
	is_deeply(content($db), $after, '... which does what it would have done at first');
	$node->safe_psql('postgres', "DROP DATABASE $db");
}
cmp_ok($interrupted, '>=', $rounds / 2, "it was interrupted $interrupted times");
cmp_ok($given_up, '>=', $rounds / 3, "and given up $given_up times");

$node->stop;
done_testing();
