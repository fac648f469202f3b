# A dump restores completely; so does its data alone; and the rows survive the extension. Definitions are what they were, in this cluster and in
# another one.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MakoTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $next = 'gpke-supplier-change@FV2026-10-01';
my $add_sink = "SELECT mako_add_sink('SELECT count(*) FROM moved', 'SELECT count(*) FROM moved', 'SELECT 1')";
my $migrate_next = "SELECT migrated, failed FROM mako_migrate('$target', '$next')";

my $node = new_server('dump');
my $dump = "$PostgreSQL::Test::Utils::tmp_check/store.sql";
create_store($node, 'origin');
generate($node, 'origin', 'generate(500)');

# A finished run with errors and without, a version that is draining, a periodic snapshot, a head without events, definitions, a sink.
$node->safe_psql('origin', <<SQL);
$add_sink;
INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('a stream of its own', '$source'), ('broken', '$source');
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
SELECT stream_no, 1, workflow_id, 'SupplierChangeNever', '{"type":"Never"}' FROM mako.stream WHERE stream_id = 'broken';
SELECT mako_migrate('$source', '$target', reason => 'cutover');
SELECT mako_drain('FV2024-10-01', 'cutover'), mako_exempt('$source', 'only a test');
INSERT INTO mako.snapshot (stream_no, sequence_number, workflow_id, state_schema_version, state)
SELECT stream_no, version, workflow_id, 2, '{}' FROM mako.stream WHERE version > 0 ORDER BY stream_no LIMIT 1;
SQL
my $contents = contents($node, 'origin');
my $runs = $node->safe_psql('origin', 'SELECT migrated > 400, failed FROM mako.migration_run');
is($runs, 't|1', 'the store to be dumped has migrated streams and one that failed');

# What the origin makes of the next step is what every copy must make of it.
$node->safe_psql('postgres', 'CREATE DATABASE twin TEMPLATE origin');
my $expected_counts = $node->safe_psql('twin', $migrate_next);
my $expected_outcome = outcome($node, 'twin');

sub check_copy
{
	my ($db, $what) = @_;

	is($node->safe_psql($db, $migrate_next), $expected_counts, "$what: the next migration takes as many streams along");
	is(outcome($node, $db), $expected_outcome, "$what: ... with the same outcome");
	is($node->safe_psql($db, 'SELECT count(DISTINCT run_id) FROM mako.migration_run'), '2', "$what: ... under a number of its own");
	like(error_of($node, $db, 'DELETE FROM mako.event'), qr/^0A000/, "$what: events are append-only");
	like(
		error_of($node, $db, "INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)"
			  . " SELECT stream_no, version + 2, workflow_id, 'Gap', '{}' FROM mako.stream WHERE workflow_id = '$next' LIMIT 1"),
		qr/^XX001/, "$what: ... and without gap");
	is($node->safe_psql($db, 'SELECT count(*) FROM mako_store_problem()'), '0', "$what: the store lacks nothing");
}

# A whole database.
$node->command_ok([ 'pg_dump', '-d', $node->connstr('origin'), '-f', $dump ], 'pg_dump');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->command_checks_all(
	[ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('restored'), '-f', $dump ],
	0, [], [qr/^$/], 'the dump restores without a word');
is(contents($node, 'restored'), $contents, 'every row is back');
check_copy('restored', 'restored');

# The custom format, in the order that pg_restore chooses.
$node->command_ok([ 'pg_dump', '-Fc', '-d', $node->connstr('origin'), '-f', "$dump.custom" ], 'pg_dump -Fc');
$node->safe_psql('postgres', 'CREATE DATABASE restored_custom');
$node->command_ok([ 'pg_restore', '-e', '-j', '2', '-d', $node->connstr('restored_custom'), "$dump.custom" ], 'pg_restore -j 2');
is(contents($node, 'restored_custom'), $contents, 'every row is back, restored in parallel');

# Data alone, into a store that is there.
create_store($node, 'refilled');
$node->safe_psql('refilled', 'DELETE FROM mako_state_migration; DELETE FROM mako_workflow;
	SELECT mako_remove_dependent(relation, process_column, workflow_column) FROM mako.dependent');
$node->command_ok([ 'pg_dump', '--data-only', '--disable-triggers', '-d', $node->connstr('origin'), '-f', "$dump.data" ],
	'pg_dump --data-only --disable-triggers');
is(restore_data('refilled'), '', 'a dump of data alone restores into a new store');
is(contents($node, 'refilled'), $contents, 'every row is back, data alone');
check_copy('refilled', 'data alone');

sub restore_data
{
	my ($db) = @_;
	my $stderr = '';

	IPC::Run::run([ 'psql', '-XqAt1', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($db), '-o', '/dev/null', '-f', "$dump.data" ],
		'2>', \$stderr);
	return $stderr;
}

# Contents without those of the definition tables, which belong to the extension.
sub store_rows
{
	my ($contents) = @_;

	return join "\n", grep { !/^mako_/ } split /\n/, $contents;
}

# The extension goes, the rows stay.
my $rows = $node->safe_psql('origin', 'SELECT count(*) FROM mako.event');
$node->safe_psql('origin', 'SET client_min_messages = error; DROP EXTENSION mako_migration CASCADE');
is($node->safe_psql('origin', 'SELECT count(*) FROM mako.event'), $rows, 'the events outlive the extension');
$contents = store_rows($contents);
is(store_rows(contents($node, 'origin')), $contents, 'so does every other row');
$node->safe_psql('origin', 'CREATE EXTENSION mako_migration');
like(error_of($node, 'origin', "SELECT mako_migrate('$target', '$next')"), qr/^55000: the store is damaged/, 'a store without triggers is refused');
$node->safe_psql('origin', 'SELECT mako_create_store()');
$node->safe_psql('origin', slurp_file('test/examples/gpke/register.sql'));
is(store_rows(contents($node, 'origin')), $contents, 'repairing the store changes no row');
is($node->safe_psql('origin', $add_sink), '2', 'a sink that is added again has another number: runs remember the first one');
check_copy('origin', 'extension created again');

# A definition that depends on objects of many kinds, most of which are dumped as deparsed text.
sub check_definitions
{
	my ($where, $db, $what) = @_;

	is($where->safe_psql($db, "SELECT code, subject, message FROM mako_check() WHERE severity = 'error'"), '', "$what: the definitions are those that were registered");
	is($where->safe_psql($db, q{SELECT mako_fold('kinds@FV2024-10-01', '[{"event_type": "E", "payload": {"n": 2}}]')}),
		'{"n": 2, "order": [2, 1], "total": 6, "viewed": 1}', "$what: and they are used");
	is($where->safe_psql($db, "SELECT mako_register_workflow('kinds\@FV2024-10-01', 'kinds.apply', initial_state => '{}')"), '',
		"$what: the same registration is the same");
}

$node->safe_psql('postgres', 'CREATE DATABASE kinds');
$node->safe_psql('kinds', 'CREATE EXTENSION mako_migration');
$node->safe_psql('kinds', slurp_file('test/t/every_kind.sql'));
check_definitions($node, 'kinds', 'as registered');
$node->command_ok([ 'pg_dump', '-d', $node->connstr('kinds'), '-f', "$dump.kinds" ], 'pg_dump of definitions');

# In another cluster, the roles have other identities.
my $other = new_server('other');
$other->safe_psql('postgres', 'CREATE ROLE somebody_else; CREATE ROLE dump_author');
for ([ $node, 'this cluster' ], [ $other, 'another cluster' ])
{
	my ($where, $what) = @$_;

	$where->safe_psql('postgres', 'CREATE DATABASE restored_kinds');
	$where->command_checks_all(
		[ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $where->connstr('restored_kinds'), '-f', "$dump.kinds" ],
		0, [], [qr/^$/], "$what: the dump restores");
	check_definitions($where, 'restored_kinds', $what);
}

$other->stop;
$node->stop;
done_testing();
