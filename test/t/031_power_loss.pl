# A primary that stops at once, again and again, in the middle of runs of every kind and of appends,
# with checksums, WAL that is checked page by page, and a standby. No invariant is broken, no page
# and no index is damaged, and the standby has the same rows.
#
# MAKO_SOAK=1 stops it 16 times and in a larger store. MAKO_SEED repeats the choices of an earlier
# run, if not its timing.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MakoTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes;

my ($rounds, $streams) = $ENV{MAKO_SOAK} ? (16, 6000) : (3, 600);
my $seed = srand($ENV{MAKO_SEED} || time ^ $$);
note("seed $seed");

my $primary = new_server('primary', allows_streaming => 1);
$primary->stop;
command_ok([ 'pg_checksums', '--enable', '-D', $primary->data_dir ], 'checksums are on');
$primary->append_conf('postgresql.conf', <<'CONF');
fsync = on
wal_consistency_checking = 'all'
wal_keep_size = 1GB
checkpoint_timeout = 30s
CONF
$primary->start;
create_two_workflows($primary, 'store', $streams);
$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->start;

# What runs while the primary stops, in turn.
my @work = (
	"CALL mako_migrate_version_batched('FV2024-10-01', 'FV2025-10-01', batch_size => 100)",
	"SELECT mako_format(mako_revert(run_id)) FROM mako.migration_run
	 WHERE kind <> 'revert' AND migrated > 0 ORDER BY run_id DESC LIMIT 1",
	"SELECT mako_format(r) FROM mako_migrate_version('FV2024-10-01', 'FV2025-10-01') r;
	 SELECT mako_format(r) FROM mako_migrate_version('FV2025-10-01', 'FV2024-10-01') r",
	"CALL mako_migrate_version_batched('FV2025-10-01', 'FV2024-10-01', batch_size => 77)");
my $append = <<SQL;
SELECT mako_append(stream_id, workflow_id, 'Noted', '{"note": 1}') FROM mako.stream
WHERE stream_no = (SELECT 1 + floor(random() * $streams));
SQL
for my $round (1 .. $rounds)
{
	my $end = time + 3600;
	my $runs = start_loop($primary, 'store', 'runs', $end, $work[ ($round - 1) % @work ] . ';');
	my $appends = start_loop($primary, 'store', 'appends', $end, $append);

	wait_for($primary, 'postgres', <<'SQL');
SELECT 'both' FROM pg_stat_activity
WHERE application_name IN ('runs', 'appends') HAVING count(*) = 2
SQL
	Time::HiRes::sleep(rand(1));
	my $running = $primary->safe_psql('postgres', <<'SQL');
SELECT string_agg(DISTINCT substring(query, '^[^(]*'), ', ') FROM pg_stat_activity
WHERE application_name IN ('runs', 'appends') AND state = 'active'
SQL
	note("stopped: $running");
	$primary->stop('immediate');
	$_->{run}->kill_kill for $runs, $appends;
	$primary->start;
	is(disorder($primary, 'store'), '', "stop $round of seed $seed: the store is in order");
}

# At last, nobody disturbs.
$primary->safe_psql('store', 'CHECKPOINT');
is($primary->safe_psql('store', <<'SQL'), '0', 'runs that are verified hold');
SET client_min_messages = error;
SELECT count(*) FROM mako.migration_run r, LATERAL mako_verify(r.run_id) v
WHERE r.kind <> 'revert' AND finished_at IS NOT NULL AND closed_by IS NULL
SQL
# Batched runs that were stopped half-way, in both directions maybe, are called again first.
my @versions = (split(/\n/, $primary->safe_psql('store', <<'SQL')), "FV2024-10-01', 'FV2025-10-01");
SELECT DISTINCT format($$%s', '%s$$, substring(source_wf, 'FV.*'), substring(target_wf, 'FV.*'))
FROM mako.migration_run WHERE finished_at IS NULL
SQL
for my $versions (@versions)
{
	is(error_of($primary, 'store', "CALL mako_migrate_version_batched('$versions')"), '',
		"everything is migrated: '$versions'");
}
is($primary->safe_psql('store', "SELECT count(*) FROM mako.stream WHERE workflow_id ~ '2024'"),
	'0', '... every stream');
is(disorder($primary, 'store'), '', '... and the store is in order');
is(damage($primary, 'store'), '', 'indexes and tables are whole');

$primary->wait_for_catchup($standby);
is(contents($standby, 'store'), contents($primary, 'store'), 'the standby has the same rows');
$standby->stop;
$primary->stop;
for my $node ($primary, $standby)
{
	my $log = slurp_file($node->logfile);

	unlike($log, qr/inconsistent page|PANIC|TRAP|invalid page/,
		$node->name . ' has found nothing wrong in its pages');
	command_ok([ 'pg_checksums', '--check', '-D', $node->data_dir ], '... nor has pg_checksums');
}
done_testing();
