# A run can be prepared and decided later, by somebody else: it is the same run. One that is taken back leaves no trace.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MakoTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('prepared');
create_store($node, 'store');
add_sink($node, 'store');
generate($node, 'store', 'generate(2000)');
# One stream fails, so that the audit trail takes part.
$node->safe_psql('store', <<SQL);
INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('empty', '$source'), ('broken', '$source');
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
SELECT stream_no, 1, workflow_id, 'SupplierChangeNever', '{"type":"Never"}' FROM mako.stream WHERE stream_id = 'broken';
SQL
$node->safe_psql('postgres', 'CREATE DATABASE plain TEMPLATE store');
my $before = contents($node, 'store');
my $expected_counts = $node->safe_psql('plain', $migrate);
my $expected_outcome = outcome($node, 'plain');
like($expected_counts, qr/^1\d\d\d\|\d+\|1$/, "the plain run: $expected_counts");

# Taken back, either way.
is($node->safe_psql('store', "BEGIN; $migrate; ROLLBACK"), $expected_counts, 'a run in a transaction that is rolled back');
is(contents($node, 'store'), $before, '... leaves no trace');
is($node->safe_psql('store', "BEGIN; SAVEPOINT s; $migrate; ROLLBACK TO s; COMMIT"), $expected_counts, 'a run that is rolled back to a savepoint');
is(contents($node, 'store'), $before, '... leaves no trace');
is($node->safe_psql('store', "BEGIN; $migrate; PREPARE TRANSACTION 'back'"), $expected_counts, 'a run that is prepared');
is(contents($node, 'store'), $before, '... is not yet seen by anybody');
$node->safe_psql('store', "ROLLBACK PREPARED 'back'");
is(contents($node, 'store'), $before, '... and leaves no trace when it is rolled back');

# Decided by another session, after the server has died and come back.
is($node->safe_psql('store', "BEGIN; $migrate; PREPARE TRANSACTION 'forward'"), $expected_counts, 'another run that is prepared');
$node->stop('immediate');
$node->start;
is($node->safe_psql('store', 'SELECT gid FROM pg_prepared_xacts'), 'forward', '... outlives a crash');
is(contents($node, 'store'), $before, '... unseen');
like(error_of($node, 'store', $migrate), qr/^55P03: another migration/, '... and keeps another migration of the source out');
$node->safe_psql('store', "COMMIT PREPARED 'forward'");
is(outcome($node, 'store'), $expected_outcome, '... and is the plain run once it is committed');

my $streams = $node->safe_psql('store', 'SELECT count(*) FROM mako.stream');
is($node->safe_psql('store', $migrate), '0|' . ($streams - 1) . '|1', 'all that is left is the stream that failed');

# Undoing it is no different.
my $heads = "SELECT md5(string_agg(s::text, ' ' ORDER BY stream_no)) FROM mako.stream s";
my $heads_before = $node->safe_psql('postgres', 'CREATE DATABASE undone TEMPLATE store') . $node->safe_psql('store', $heads);
my $revert = 'SELECT r.migrated, r.failed FROM (SELECT run_id FROM mako.migration_run WHERE migrated > 0) m, LATERAL mako_revert(m.run_id) r';
my ($migrated) = $expected_counts =~ /^(\d+)/;
is($node->safe_psql('undone', $revert), "$migrated|0", 'the run is undone');
is($node->safe_psql('store', "BEGIN; $revert; PREPARE TRANSACTION 'undo'"), "$migrated|0", 'undoing it is prepared');
$node->stop('immediate');
$node->start;
is($node->safe_psql('store', $heads), $heads_before, '... outlives a crash, unseen');
like(error_of($node, 'store', $revert), qr/^55P03: another migration/, '... and keeps another one out');
$node->safe_psql('store', "COMMIT PREPARED 'undo'");
isnt($node->safe_psql('store', $heads), $heads_before, '... takes the streams back');
is($node->safe_psql('store', $heads), $node->safe_psql('undone', $heads), '... as the plain one does once it is committed');

# Two runs in one transaction, the second one over what the first one moved.
my $next = 'gpke-supplier-change@FV2026-10-01';
$node->safe_psql('postgres', 'CREATE DATABASE twice TEMPLATE plain');
my $migrate_next = "SELECT migrated, failed FROM mako_migrate('$target', '$next')";
my $twice = $node->safe_psql('twice', $migrate_next);
is($node->safe_psql('plain', "BEGIN; $migrate_next; PREPARE TRANSACTION 'next'"), $twice, 'the next step, prepared');
$node->safe_psql('plain', "COMMIT PREPARED 'next'");
is(outcome($node, 'plain'), outcome($node, 'twice'), '... and committed, equals a plain one');

$node->stop;
done_testing();
