# The extension, a function, a schema, a table or a type goes in the middle of a batched run, and
# comes back, the extension in another schema, too. The run ends with an error of its own, keeps no
# lock, and the same session goes on with what came back.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MakoTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('drop');
create_two_workflows($node, 'store', 200);
my ($x, $y) = map { open_session($node, 'store') } 1 .. 2;
ask($_, 'SET client_min_messages = error') for $x, $y;
my $pid = ask($x, 'SELECT pg_backend_pid()');
my ($source, $target) = ('native@FV2024-10-01', 'native@FV2025-10-01');

# Registers again what has gone with the extension.
sub create_extension
{
	my ($schema) = @_;

	return <<SQL;
CREATE EXTENSION mako_migration SCHEMA $schema;
SELECT $schema.mako_create_store() \\g /dev/null
SELECT $schema.mako_register_workflow(name || '\@FV2024-10-01', 'lib.apply_' || name,
         initial_state => '{}'),
       $schema.mako_register_workflow(name || '\@FV2025-10-01', 'lib.apply_plain',
         initial_state => '{}', state_schema_version => 2)
FROM unnest('{native,plain}'::text[]) AS name \\g /dev/null
SELECT $schema.mako_register_migration(source, target, 'lib.forth'),
       $schema.mako_register_migration(target, source, 'lib.back')
FROM unnest('{native,plain}'::text[]) AS name,
     LATERAL (SELECT name || '\@FV2024-10-01', name || '\@FV2025-10-01') AS s (source, target)
\\g /dev/null
SQL
}

my $drop = 'DROP EXTENSION mako_migration CASCADE';
my $wrap = $node->safe_psql('store', "SELECT pg_get_functiondef('lib.wrap'::regproc)");
my $in_other = 'SET search_path = public, other';
for my $case (
	[ 'the extension', $drop, create_extension('public') ],
	[ 'the extension, to come back elsewhere', $drop,
		"CREATE SCHEMA other; $in_other; " . create_extension('other') ],
	[ 'a function', 'DROP FUNCTION lib.wrap(jsonb)', $wrap ],
	[ 'a schema', 'ALTER SCHEMA lib RENAME TO gone', 'ALTER SCHEMA gone RENAME TO lib' ],
	[ 'a table', map { "ALTER TABLE mako.$_" } 'snapshot RENAME TO gone', 'gone RENAME TO snapshot' ],
	[ 'a type', 'DROP DOMAIN lib.state CASCADE' ])
{
	my ($what, $go, $come_back) = @$case;
	my $batches = ask($y, 'SELECT count(*) FROM mako.migration_batch');
	my $call = "CALL mako_migrate_batched('$source', '$target'";

	say_to($x, "$call, batch_size => 10, pause => '50 ms')");
	wait_for($node, 'store',
		"SELECT 'under way' FROM mako.migration_batch HAVING count(*) > $batches + 1");
	is(ask($y, $go), '', "$what goes in the middle of a run");
	my $answer = answer_of($x);
	like($answer, qr/^ERROR:  (?!XX)\w{5}$/, "... which says: $answer");
	is(ask($y, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"), '0', '... keeps no lock');
	last unless defined $come_back;

	is(ask($y, $come_back), '', '... and comes back');
	ask($x, $in_other) if $come_back =~ /other/;
	unlike(ask($x, "$call)"), qr/ERROR|gone/, '... when the run comes to its end');
	is(ask($x, "SELECT count(*) FROM mako.stream WHERE workflow_id = '$source'"), '0',
		'... with all its streams');
	like(ask($x, <<'SQL'), qr/^\d+$/, '... states are read');
SELECT sequence_number FROM mako_state((SELECT stream_id FROM mako.stream WHERE stream_no = 2))
SQL
	like(ask($x, <<'SQL'), qr/^\d+$/, '... and events appended');
SELECT mako_append(stream_id, workflow_id, 'Noted', '{}') FROM mako.stream WHERE stream_no = 2
SQL
	is(ask($x, 'SELECT pg_backend_pid()'), $pid, '... in the same session');
	($source, $target) = ($target, $source);
}
close_session($_) for $x, $y;
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal/, 'nothing has crashed');

$node->stop;
done_testing();
