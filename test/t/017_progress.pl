# How far a migration has come, seen from other sessions while it is under way; and what is left of that when it is over.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MakoTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('progress');
$node->append_conf('postgresql.conf', "compute_query_id = on\n");
$node->restart;

# 60 streams that take 50 ms each, and the fifth of them fails.
$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION mako_migration;
SELECT mako_create_store();
CREATE SCHEMA lib;
CREATE FUNCTION lib.apply(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT payload $$;
CREATE FUNCTION lib.slow(state jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
  PERFORM pg_sleep(0.05);
  RETURN CASE state WHEN '5' THEN mako_reject('five') ELSE state END;
END $$;
SELECT mako_register_workflow(name || '@' || version, 'lib.apply', initial_state => '{}')
FROM unnest(ARRAY['slow', 'tardy']) AS name, unnest(ARRAY['FV2024-10-01', 'FV2025-10-01']) AS version;
SELECT mako_register_migration(name || '@FV2024-10-01', name || '@FV2025-10-01', 'lib.slow') FROM unnest(ARRAY['slow', 'tardy']) AS name;
INSERT INTO mako.stream (stream_id, workflow_id) SELECT 's' || i, 'slow@FV2024-10-01' FROM generate_series(1, 60) AS i;
INSERT INTO mako.stream (stream_id, workflow_id) SELECT 't' || i, 'tardy@FV2024-10-01' FROM generate_series(1, 10) AS i;
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
SELECT stream_no, 1, workflow_id, 'Counted', to_jsonb(stream_no) FROM mako.stream;
CREATE ROLE watcher IN ROLE pg_monitor;
CREATE ROLE ordinary;
CREATE ROLE auditor;
GRANT USAGE ON SCHEMA mako TO auditor;
GRANT SELECT ON ALL TABLES IN SCHEMA mako TO auditor;
SQL

my ($old, $new) = map { "slow\@$_" } qw(FV2024-10-01 FV2025-10-01);
my $single = "mako_migrate('$old', '$new')";

sub as_role
{
	my ($role, $query) = @_;

	return $node->safe_psql('postgres', "SET ROLE $role; $query");
}

# Ends a session that waits.
sub end_session
{
	my ($run, $pid) = @_;

	$node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
	finish_sql($run);
}

# What others see while a run is at it: done, total and failed, from whom; and that it goes on.
sub is_seen
{
	my ($what, $pid, $kind, $source_wf, $target_wf, $total) = @_;
	my $done = wait_for($node, 'postgres', "SELECT max(done)::text FROM mako_progress WHERE pid = $pid AND failed = 1");
	my $columns = "kind, source_wf, target_wf, total, failed, rate > 0, estimated_end > clock_timestamp(), started_at < clock_timestamp(), pid";
	my $seen = "$kind|$source_wf|$target_wf|$total|1|t|t|t|$pid";

	is($node->safe_psql('postgres', "SELECT $columns FROM mako_progress WHERE rate IS NOT NULL"), $seen, "$what: a superuser sees it");
	is(as_role('watcher', "SELECT $columns FROM mako_progress"), $seen, '... a monitoring role sees it');
	is(as_role('ordinary', 'SELECT * FROM mako_progress'), '', '... an ordinary one does not');
	ok(wait_for($node, 'postgres', "SELECT max(done)::text FROM mako_progress WHERE pid = $pid AND done > $done"), '... and it is going on');
	is($node->safe_psql('postgres', "SELECT count(*), count(query_id) FROM pg_stat_activity WHERE pid = $pid AND query LIKE 'mako_migrate%'"), '1|1',
		'... under the query id of its statement');
}

# ---- one transaction

my $statement = "SELECT migrated, pg_sleep(3600) FROM $single";
my $run = start_sql($node, 'postgres', 'victim', $statement);
my $pid = pid_of($node, 'victim');
is_seen('single', $pid, 'single', $old, $new, 60);
like($node->safe_psql('postgres', "SELECT query FROM pg_stat_activity WHERE pid = $pid"),
	qr/^mako_migrate \Q$old -> $new\E: run 1, \d+ of 60 streams, 1 failed, \d+\.\d a second, since \d{4}-\d\d-\d\d /, 'its text says the same');
wait_for($node, 'postgres', "SELECT 'over' FROM pg_stat_activity WHERE pid = $pid AND wait_event = 'PgSleep' AND query NOT LIKE 'mako_migrate%'");
is($node->safe_psql('postgres', "SELECT query, query_id IS NOT NULL FROM pg_stat_activity WHERE pid = $pid"), "$statement|t", 'afterwards its statement is back');
is($node->safe_psql('postgres', 'SELECT * FROM mako_progress'), '', '... and nothing is under way');
end_session($run, $pid);

$statement = "DO 'BEGIN PERFORM mako_migrate(''$old'', ''$new'', max_errors => 0); EXCEPTION WHEN SQLSTATE ''MK006'' THEN PERFORM pg_sleep(3600); END'";
$run = start_sql($node, 'postgres', 'victim', $statement);
$pid = pid_of($node, 'victim');
wait_for($node, 'postgres', "SELECT 'run' FROM mako_progress WHERE pid = $pid");
wait_for($node, 'postgres', "SELECT 'over' FROM pg_stat_activity WHERE pid = $pid AND wait_event = 'PgSleep' AND query NOT LIKE 'mako_migrate%'");
is($node->safe_psql('postgres', "SELECT query FROM pg_stat_activity WHERE pid = $pid"), $statement, '... after an error, too');
end_session($run, $pid);

# ---- all workflows of a version in one transaction: as one

$run = start_sql($node, 'postgres', 'victim', "SELECT migrated FROM mako_migrate_version('FV2024-10-01', 'FV2025-10-01')");
$pid = pid_of($node, 'victim');
is_seen('a version', $pid, 'single', 'FV2024-10-01', 'FV2025-10-01', 70);
end_session($run, $pid);

# ---- in batches

$statement = "DO 'DECLARE r mako_migration_report; BEGIN CALL mako_migrate_batched(''$old'', ''$new'', 8, report => r); PERFORM pg_sleep(3600); END'";
$run = start_sql($node, 'postgres', 'victim', $statement);
$pid = pid_of($node, 'victim');
is_seen('batched', $pid, 'batched', $old, $new, 60);
# An auditor may not see the session, but the run and who holds its lock.
is(as_role('auditor', "SELECT kind, source_wf, target_wf, done % 8, total, rate, pid FROM mako_progress"), "batched|$old|$new|0|60||$pid",
	'an auditor sees what is committed');
end_session($run, $pid);
is($node->safe_psql('postgres', "SELECT kind, done > 0, done % 8, total, failed, rate, estimated_end, pid FROM mako_progress"), 'batched|t|0|60|1|||',
	'cancelled, it waits to be taken up again');
$run = start_sql($node, 'postgres', 'victim', $statement);
$pid = pid_of($node, 'victim');
my $done = wait_for($node, 'postgres', "SELECT max(done)::text FROM mako_progress WHERE pid = $pid AND rate IS NOT NULL");
cmp_ok($done, '>=', 8, 'called again, it counts on');
wait_for($node, 'postgres', "SELECT 'over' FROM pg_stat_activity WHERE pid = $pid AND wait_event = 'PgSleep' AND query NOT LIKE 'mako_migrate%'"
	. " AND EXISTS (SELECT FROM mako.migration_run WHERE kind = 'batched' AND finished_at IS NOT NULL)");
is($node->safe_psql('postgres', "SELECT query FROM pg_stat_activity WHERE pid = $pid"), $statement, 'afterwards its statement is back');
is($node->safe_psql('postgres', 'SELECT * FROM mako_progress'), '', '... and nothing is under way');
end_session($run, $pid);

# ---- all workflows of a version in batches: one after the other, held by one session

$run = start_sql($node, 'postgres', 'victim', "CALL mako_migrate_version_batched('FV2024-10-01', 'FV2025-10-01', 2, pause => '200 ms')");
$pid = pid_of($node, 'victim');
wait_for($node, 'postgres', "SELECT 'second' FROM mako_progress WHERE source_wf ~ 'tardy' AND rate > 0");
is($node->safe_psql('postgres', "SELECT source_wf, pid FROM mako_progress ORDER BY source_wf"), "$old|$pid\ntardy\@FV2024-10-01|$pid",
	'of the workflows of a version, all are shown until the last is done');
ok(finish_sql($run), 'that comes to its end');

# ---- notices

$node->safe_psql('postgres', "INSERT INTO mako.stream (stream_id, workflow_id) SELECT 'u' || i, '$old' FROM generate_series(1, 30) AS i;"
	. "INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)"
	. " SELECT stream_no, 1, workflow_id, 'Counted', '7' FROM mako.stream WHERE stream_id LIKE 'u%'");
my ($stdout, $stderr);
$node->psql('postgres', "SET mako_migration.progress_interval = '200 ms'; BEGIN; SELECT FROM $single; ROLLBACK", stderr => \$stderr);
my @notices = $stderr =~ /^psql.*NOTICE:  mako_migrate \Q$old -> $new\E: run \d+, (\d+) of 31 streams, [01] failed, /mg;
cmp_ok(scalar @notices, '>=', 3, 'notices are given while it goes on');
cmp_ok(scalar @notices, '<=', 10, '... now and then');
is_deeply(\@notices, [ sort { $a <=> $b } @notices ], '... with ever more streams');
$node->psql('postgres', "BEGIN; SELECT FROM $single; ROLLBACK", stderr => \$stderr);
unlike($stderr, qr/NOTICE/, '... and none unless they are wanted');

# ---- memory: what a session keeps for its life does not grow with its calls

my $padding = 'x' x 900;
my %calls = (
	'calls that succeed' => "SELECT FROM mako_migrate('$new', '$old')",
	'... that fail' => "DO 'BEGIN PERFORM mako_migrate(''$old'', ''$new'', max_errors => 0); EXCEPTION WHEN SQLSTATE ''MK006'' THEN END'",
	'... in batches' => "CALL mako_migrate_batched('$new', '$old', tenant_id => gen_random_uuid())",
);
$node->safe_psql('postgres', "SELECT mako_register_migration('$new', '$old')");
foreach my $what (sort keys %calls)
{
	my $used = "SELECT used_bytes FROM pg_backend_memory_contexts WHERE name = 'TopMemoryContext';";
	my $some = "$calls{$what} /* $padding */;\n" x 60;
	my ($before, $after) = $node->safe_psql('postgres', "\\set QUIET on\n\\o /dev/null\n$some\\o\n$used\n\\o /dev/null\n$some\\o\n$used") =~ /^(\d+)$/mg;
	cmp_ok($after - $before, '<', 30 * 900, "$what leave nothing in the session");
}

$node->stop;
done_testing();
