# An attached event store outlives dump and restore, in this cluster and in another one, and the loss of the extension: its triggers come back
# with mako_create_store(), which brings heads up to date. Detached, its table is as psql showed it before.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MakoTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($old, $new) = ('order@FV2024-10-01', 'order@FV2025-10-01');
my $node = new_server('attached');
my $other = new_server('other');
my $dump = "$PostgreSQL::Test::Utils::tmp_check/attached";
my $definitions = <<SQL;
SELECT mako_register_workflow('$old', 'shop.apply', initial_state => '{}'),
       mako_register_workflow('$new', 'shop.apply', initial_state => '{}', state_schema_version => 2);
SELECT mako_register_migration('$old', '$new', 'shop.step');
SQL

# ---- an attached store with a past: migrated streams that have gone on, one that failed, one that was given a state ----

$node->safe_psql('postgres', 'CREATE DATABASE origin');
$node->safe_psql('origin', <<SQL);
CREATE EXTENSION mako_migration;
SELECT mako_create_store();
CREATE SCHEMA shop;
CREATE TABLE shop.message (
  global_position bigserial PRIMARY KEY, stream_name varchar NOT NULL, "position" bigint NOT NULL, type varchar, data jsonb NOT NULL DEFAULT '{}',
  UNIQUE (stream_name, "position"));
CREATE FUNCTION shop.own_trigger() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER own AFTER INSERT ON shop.message FOR EACH STATEMENT EXECUTE FUNCTION shop.own_trigger();
CREATE FUNCTION shop.apply(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS \$\$
  SELECT CASE event_type WHEN 'Refused' THEN mako_reject('refused') ELSE state || jsonb_build_object('events', coalesce((state->>'events')::int, 0) + 1) END \$\$;
CREATE FUNCTION shop.step(state jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS \$\$ SELECT state || '{"migrated": true}' \$\$;
$definitions
INSERT INTO shop.message (stream_name, "position", type)
SELECT 'order-' || s, p, CASE WHEN s = 7 THEN 'Refused' ELSE 'Placed' END FROM generate_series(1, 100) AS s, generate_series(0, 2) AS p;
INSERT INTO shop.message (stream_name, "position", type) VALUES ('order-late', 9, 'Placed'), ('other-1', 0, 'Placed');
SQL

# The table as psql shows it.
sub description
{
	my ($db) = @_;
	my ($stdout) = run_command([ 'psql', '-X', '-d', $node->connstr($db), '-c', '\d+ shop.message' ]);

	return $stdout;
}

my $before = description('origin');
my $attach = <<SQL;
SELECT * FROM mako_attach_store('SELECT stream_name AS stream_id, position + 1 AS sequence_number, type AS event_type, data AS payload
  FROM shop.message WHERE stream_name LIKE ''order-%''', initial => '$old')
SQL
is($node->safe_psql('origin', $attach), '101|301|1', 'attached');
isnt(description('origin'), $before, 'its table has triggers');
$node->safe_psql('origin', <<SQL);
SELECT mako_save_snapshot('order-late', 9, '$old', 1, '{"events": 9}');
SELECT mako_migrate('$old', '$new');
SET mako.writer = 'FV2025-10-01';
INSERT INTO shop.message (stream_name, "position", type) VALUES ('order-1', 3, 'Paid'), ('order-new', 0, 'Placed');
SQL

# What there is, in an order of its own.
sub contents_of
{
	my ($server, $db) = @_;

	return $server->safe_psql($db, <<SQL);
SELECT stream_no, stream_id, workflow_id, version FROM mako.stream ORDER BY 1;
SELECT stream_no, sequence_number, workflow_id, event_type, payload FROM mako.event ORDER BY 1, 2;
SELECT stream_no, sequence_number, run_id, workflow_id, state FROM mako.snapshot ORDER BY 1, 2, 3;
SELECT query, search_path, initial, appended_to, wait FROM mako.attached;
SELECT s.stream_id, (mako_state(s.stream_id)).state FROM mako.stream s WHERE s.stream_id <> 'order-7' ORDER BY 1;
SQL
}

my $contents = contents_of($node, 'origin');

# What every copy must do.
sub check_copy
{
	my ($server, $db, $what) = @_;
	my $writer = "SET mako.writer = 'FV2025-10-01';";

	is(contents_of($server, $db), $contents, "$what: everything is there");
	is($server->safe_psql($db, 'SELECT * FROM mako_store_problem()'), '', "$what: the store is whole");
	is($server->safe_psql($db, 'SELECT count(*) FROM mako_verify(2)'), '0', "$what: the run is proven");
	is($server->safe_psql($db, "SELECT code, subject FROM mako_check() WHERE severity = 'error'"), '', "$what: a check finds nothing");
	my $append = 'INSERT INTO shop.message (stream_name, "position", type) VALUES';
	like(error_of($server, $db, "$append ('order-2', 3, 'Paid')"), qr/^MK005/, "$what: the old program is refused");
	is(error_of($server, $db, "$append ('order-7', 3, 'Paid')"), '', "$what: ... where the stream has moved");
	is(error_of($server, $db, "$writer $append ('order-2', 3, 'Paid')"), '', "$what: the new one goes on");
	like(error_of($server, $db, "$writer $append ('order-3', 4, 'Paid')"), qr/^XX001/, "$what: a gap is refused");
	is($server->safe_psql($db, 'SELECT migrated, failed FROM mako_revert(2)'), '98|2', "$what: the run is undone where it can be");
	is($server->safe_psql($db, "SELECT migrated, failed FROM mako_migrate('$old', '$new')"), '98|1', "$what: ... and streams migrate again");
	is($server->safe_psql($db, "SELECT state FROM mako_state('order-late')"), '{"events": 10, "migrated": true}', "$what: the given state is where one starts");
}

# ---- copies ----

sub copy_whole
{
	my ($server, $db) = @_;

	$node->command_ok([ 'pg_dump', '-d', $node->connstr('origin'), '-f', "$dump.sql" ], "pg_dump for $db");
	$server->safe_psql('postgres', "CREATE DATABASE $db");
	$server->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $server->connstr($db), '-f', "$dump.sql", '-o', "$dump.out" ], "... restored");
}

copy_whole($node, 'restored');
check_copy($node, 'restored', 'restored');
copy_whole($other, 'elsewhere');
check_copy($other, 'elsewhere', 'in another cluster');

$node->command_ok([ 'pg_dump', '-Fc', '-d', $node->connstr('origin'), '-f', "$dump.custom" ], 'pg_dump -Fc');
$node->safe_psql('postgres', 'CREATE DATABASE parallel');
$node->command_ok([ 'pg_restore', '-e', '-j', '2', '-d', $node->connstr('parallel'), "$dump.custom" ], 'pg_restore -j 2');
check_copy($node, 'parallel', 'in the order that pg_restore chooses');

# The schema first, and the data into it, as an upgrade does: the triggers are there already.
$node->safe_psql('postgres', 'CREATE DATABASE reloaded');
$node->command_ok([ 'pg_restore', '-e', '--schema-only', '-d', $node->connstr('reloaded'), "$dump.custom" ], 'the schema alone');
$node->command_ok([ 'pg_restore', '-e', '--data-only', '--disable-triggers', '-d', $node->connstr('reloaded'), "$dump.custom" ], '... and the data');
check_copy($node, 'reloaded', 'reloaded');

# ---- the extension goes, its application goes on, and it comes back ----

$node->safe_psql('postgres', 'CREATE DATABASE dropped TEMPLATE origin');
$node->safe_psql('dropped', 'SET client_min_messages = warning; DROP EXTENSION mako_migration CASCADE');
is(description('dropped'), $before, 'without the extension, the table is as it was before');
$node->safe_psql('dropped', q{INSERT INTO shop.message (stream_name, "position", type) VALUES ('order-4', 3, 'Paid'), ('order-meanwhile', 0, 'Placed')});
$node->safe_psql('dropped', "CREATE EXTENSION mako_migration; $definitions");
like($node->safe_psql('dropped', 'SELECT object FROM mako_store_problem()'), qr/^trigger mako_inserted$/m, 'the triggers are missing');
like(error_of($node, 'dropped', "SELECT mako_migrate('$old', '$new')"), qr/^55000/, 'a run is refused meanwhile');
$node->safe_psql('dropped', 'SELECT mako_create_store()');
is($node->safe_psql('dropped', 'SELECT * FROM mako_store_problem()'), '', 'repaired, nothing is missing');
is($node->safe_psql('dropped', "SELECT stream_id, version, workflow_id FROM mako.stream WHERE stream_id IN ('order-4', 'order-meanwhile') ORDER BY 1"),
	"order-4|4|$new\norder-meanwhile|1|$old", 'heads have caught up with what was written meanwhile');
like(error_of($node, 'dropped', q{INSERT INTO shop.message (stream_name, "position", type) VALUES ('order-4', 4, 'Paid')}), qr/^MK005/, 'the old program is refused again');

# ---- detached ----

$node->safe_psql('origin', 'SELECT mako_detach_store()');
is(description('origin'), $before, 'detached, the table is as it was before');
is($node->safe_psql('origin', q{INSERT INTO shop.message (stream_name, "position", type) VALUES ('order-5', 3, 'Paid') RETURNING "position"}), '3', '... and refuses nothing');
is($node->safe_psql('origin', $attach), '102|304|1', 'attached again');
is($node->safe_psql('origin', "SELECT version, workflow_id FROM mako.stream WHERE stream_id = 'order-5'"), "4|$new", '... heads go on where they were');

done_testing();
