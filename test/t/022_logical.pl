# A switch to a logical replica: the rows are there, the sequences are not. That is found, and mended, before a number collides.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MakoTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $publisher = new_server('publisher', allows_streaming => 'logical');
my $replica = new_server('replica');

create_store($publisher, 'store');
generate($publisher, 'store', 'generate_uniform(100, 3)');
$publisher->safe_psql('store', $migrate);
create_store($replica, 'store');
$replica->safe_psql('store', 'SELECT mako_remove_dependent(relation, process_column, workflow_column) FROM mako.dependent'); # which comes from the publisher
$publisher->safe_psql('store', 'CREATE PUBLICATION everything FOR TABLES IN SCHEMA mako');
my $connection = $publisher->connstr . ' dbname=store';
$replica->safe_psql('store', "CREATE SUBSCRIPTION everything CONNECTION '$connection' PUBLICATION everything");
$replica->wait_for_subscription_sync($publisher, 'everything', 'store');
$publisher->safe_psql('store', 'INSERT INTO mako.stream (stream_id, workflow_id) VALUES (\'late\', \'gpke-supplier-change@FV2025-10-01\')');
$publisher->wait_for_catchup('everything');

# Before the switch, one may look.
my $run = "mako_migrate('$target', '$source')";
like($replica->safe_psql('store', "SELECT count(*) FROM mako_dry_run('$target', '$source')"), qr/^[1-9]/, 'a replica can rehearse');
is($replica->safe_psql('store', 'SELECT object, repairable FROM mako_store_problem() ORDER BY object'),
	"sequence mako.migration_run_run_id_seq|t\nsequence mako.stream_stream_no_seq|t", 'its sequences lag');

# The switch.
$replica->safe_psql('store', 'DROP SUBSCRIPTION everything');
my $spawn = "SELECT mako_spawn('$target', 'aaaaaaaa-0000-4000-8000-000000000001', 'cccccccc-0000-4000-8000-000000000001')";
like(error_of($replica, 'store', $spawn), qr/^23505: duplicate key value violates unique constraint "stream_pkey"/, 'a process does not start');
like(error_of($replica, 'store', "SELECT $run"), qr/^55000: the store is damaged/, 'nor does a run');
$replica->safe_psql('store', 'SELECT mako_create_store()');
is($replica->safe_psql('store', 'SELECT * FROM mako_store_problem()'), '', 'they are mended');
like($replica->safe_psql('store', $spawn), qr/^process/, 'a process starts');
like(error_of($replica, 'store', $spawn), qr/^MK007/, 'but not twice');
is($replica->safe_psql('store', "SELECT run_id FROM $run"), '2', 'and the next run has the next number');

$publisher->stop;
$replica->stop;
done_testing();
