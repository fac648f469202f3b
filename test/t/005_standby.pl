# A hot standby and a READ ONLY transaction refuse what writes and answer what reads.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MakoTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = new_server('primary', allows_streaming => 1);
create_store($primary, 'store');
add_sink($primary, 'store');
generate($primary, 'store', 'generate(300)');
$primary->safe_psql('store', "SELECT mako_migrate('$source', '$target')");

$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->start;
$primary->wait_for_catchup($standby);
is($standby->safe_psql('store', 'SELECT pg_is_in_recovery()'), 't', 'the standby is one');

my $back = "SELECT migrated FROM mako_migrate('$target', '$source')";
my %writes = (
	'mako_migrate()' => $back,
	'mako_register_workflow()' => "SELECT mako_register_workflow('new\@FV2024-10-01')",
	'mako_unregister_migration()' => "SELECT mako_unregister_migration('$target', '$source')",
	'mako_add_dependent()' => "SELECT mako_add_dependent('mako.stream', 'stream_no', 'workflow_id')",
	'mako_migrate_version()' => "SELECT * FROM mako_migrate_version('FV2025-10-01', 'FV2024-10-01')",
	'mako_spawn()' => "SELECT mako_spawn('$target', 'aaaaaaaa-0000-4000-8000-000000000001')",
	'mako_append()' => "SELECT mako_append('one', '$target', 'Any', '{}')",
	'mako_append_batch()' => "SELECT mako_append_batch('one', '$target', '{}')",
	'mako_take_snapshot()' => "SELECT mako_take_snapshot('one')",
	'mako_save_snapshot()' => "SELECT mako_save_snapshot('one', 1, '$target', 1, '{}')",
	'mako_drain()' => "SELECT mako_drain('FV2024-10-01')",
	'mako_retire()' => "SELECT mako_retire('FV2024-10-01')",
	'mako_reactivate()' => "SELECT mako_reactivate('FV2024-10-01')",
	'mako_exempt()' => "SELECT mako_exempt('$target', 'why not')",
	'mako_adopt_events()' => 'SELECT mako_adopt_events()',
	'a new stream' => "INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('new', '$source')",
);
for my $what (sort keys %writes)
{
	like(error_of($standby, 'store', $writes{$what}), qr/^25006/, "$what on a standby");
	like(error_of($primary, 'store', "BEGIN READ ONLY; $writes{$what}"), qr/^25006/, "$what in a READ ONLY transaction");
}
like(error_of($standby, 'store', $back), qr/^25006: cannot execute mako_migrate\(\) during recovery/, 'the message names the function');
like(error_of($primary, 'store', "BEGIN READ ONLY; $back"), qr/^25006: cannot execute mako_migrate\(\) in a read-only transaction/,
	'... here, too');

# What reads is the same on both.
my %reads = (
	process_identity => 'SELECT count(*), count(DISTINCT workflow_id) FROM mako.process_identity',
	migrated_stream => 'SELECT count(*), min(target_wf) FROM mako.migrated_stream',
	'mako_store_problem()' => 'SELECT count(*) FROM mako_store_problem()',
	'mako_fingerprint()' => "SELECT mako_fingerprint('$source', '$target')",
	'mako_state()' => 'SELECT count(*), sum(hashtextextended(x::text, 0)) FROM mako.stream s, mako_state(s.stream_id) x',
	'mako_resume()' => 'SELECT count(*), sum(hashtextextended(x::text, 0)) FROM mako.stream s, mako_resume(s.stream_id) x',
	'mako_load()' => 'SELECT count(*), sum(hashtextextended(x::text, 0)) FROM mako.stream s, mako_load(s.stream_id) x',
	'mako_trace()' => 'SELECT count(*), sum(hashtextextended(x::text, 0)) FROM mako.stream s, mako_trace(s.stream_id) x',
	'mako_coverage()' => "SELECT * FROM mako_coverage('FV2024-10-01') UNION ALL SELECT * FROM mako_coverage('FV2025-10-01')",
	'mako_verify()' => 'SELECT count(*) FROM mako_verify(1)',
	'mako_verify_snapshots()' => "SELECT count(*) FROM mako_verify_snapshots('$source')",
	'mako_transitions()' => "SELECT count(*), sum(count) FROM mako_transitions('$source')",
	'mako_state_diagram()' => "SELECT md5(mako_state_diagram('$source'))",
	'mako_check()' => 'SELECT count(*), sum(hashtextextended(x::text, 0)) FROM mako_check() x',
	'mako_lookup()' => q{SELECT count(*), count(DISTINCT x.workflow_id) FROM mako.registry r, mako_lookup(r.tenant_id, r.key, 'FV2025-10-01') x},
	'mako_plan()' => "SELECT * FROM mako_plan('$target', '$source')",
	'mako_dry_run()' => "SELECT count(*), sum(hashtextextended(x::text, 0)) FROM mako_dry_run('$source', '$target') x",
	'mako_dry_run(), back' => "SELECT count(new_state), sum(hashtextextended(x::text, 0)) FROM mako_dry_run('$target', '$source') x",
	'mako_dry_run(), a sample' => "SELECT count(*), sum(hashtextextended(x::text, 0)) FROM mako_dry_run('$target', '$source', sample => 20, seed => 7) x",
	'mako_dry_run_summary()' => "SELECT * FROM mako_dry_run_summary('$target', '$source')",
	'mako_version_fingerprint()' => "SELECT mako_version_fingerprint('FV2024-10-01', 'FV2025-10-01')",
	'mako_fold()' => "SELECT mako_fold('$source', '[{\"event_type\": \"SupplierChangeActivated\", \"payload\": {\"type\": \"Activated\"}}]')",
	'mako_migrate_state()' => "SELECT mako_migrate_state('$source', '$target', '{\"status\": \"New\"}')",
);
for my $what (sort keys %reads)
{
	my $answer = $primary->safe_psql('store', $reads{$what});

	isnt($answer, '', "$what answers: $answer");
	is($standby->safe_psql('store', $reads{$what}), $answer, '... on a standby, too');
	is($primary->safe_psql('store', "BEGIN READ ONLY; $reads{$what}"), $answer, '... and in a READ ONLY transaction');
}

# A plan tells that somebody else migrates the source, and does not wait for him.
my $blockers = "SELECT blockers FROM mako_plan('$target', '$source') WHERE step IS NULL";
is($primary->safe_psql('store', $blockers), '{}', 'nothing stands against a migration');
$primary->safe_psql('store', "BEGIN; $back; PREPARE TRANSACTION 'running'");
is($primary->safe_psql('store', $blockers), "{\"Another migration of \\\"$target\\\" is running.\"}", '... but one that is under way');
cmp_ok($primary->safe_psql('store', "SELECT count(new_state) FROM mako_dry_run('$target', '$source')"), '>', 200, '... which no dry run waits for');
$primary->safe_psql('store', "ROLLBACK PREPARED 'running'");

# What a dry run on the standby says, the primary does.
my $rehearsed = $standby->safe_psql('store',
	"SELECT stream_id, sequence_number, new_state FROM mako_dry_run('$target', '$source') WHERE new_state IS NOT NULL ORDER BY 1");
is($primary->safe_psql('store', <<SQL), $rehearsed, 'the primary migrates as the standby has rehearsed');
BEGIN;
CREATE TEMPORARY TABLE report AS SELECT * FROM mako_migrate('$target', '$source');
SELECT s.stream_id, n.sequence_number, n.state FROM report JOIN mako.snapshot n USING (run_id) JOIN mako.stream s USING (stream_no) ORDER BY 1;
ROLLBACK;
SQL

# What the primary migrates from now on, the standby shows; promoted, it migrates itself.
$primary->safe_psql('store', $back);
$primary->wait_for_catchup($standby);
is(contents($standby, 'store'), contents($primary, 'store'), 'a run is replicated as a whole');
$primary->stop;
$standby->promote;
cmp_ok($standby->safe_psql('store', "SELECT migrated FROM mako_migrate('$source', '$target')"), '>', 200, 'a promoted standby migrates');

$standby->stop;
done_testing();
