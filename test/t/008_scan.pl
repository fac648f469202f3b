# A damaged page of the event table ends a scan in heap order, but not the run: what does not need the page is migrated, in both orders.
# And whatever ends a scan, nothing leaks.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MakoTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('scan', no_data_checksums => 1);
create_store($node, 'store');
generate($node, 'store', 'generate_uniform(3000, 4)');
$node->safe_psql('postgres', 'CREATE DATABASE twin TEMPLATE store');

# Overwrites a page in the middle of the table; streams before it are complete by then.
my %path = map { $_ => $node->data_dir . '/' . $node->safe_psql($_, "SELECT pg_relation_filepath('mako.event')") } qw(store twin);
my $block = $node->safe_psql('store', "SELECT pg_relation_size('mako.event') / 8192 / 2");
my $streams = $node->safe_psql('store',
	"SELECT count(DISTINCT stream_no) FROM mako.event WHERE (ctid::text::point)[0] = $block");
$node->stop;
for my $path (values %path)
{
	open(my $file, '+<', $path) or die "$path: $!";
	binmode $file;
	seek $file, $block * 8192, 0;
	print $file "\xa5" x 8192;
	close $file;
}
$node->start;

# What a run says and leaves behind, without times and the table that is damaged.
sub run_in
{
	my ($db, $order) = @_;

	return $node->safe_psql($db, <<SQL);
SET mako_migration.scan_order = $order;
SELECT migrated, skipped, failed, errors FROM mako_migrate('$source', '$target');
SELECT count(*), sum(hashtextextended((to_jsonb(n) - '{run_id,taken_at}'::text[])::text, 0)::numeric) FROM mako.snapshot n;
SELECT workflow_id, count(*), sum(stream_no) FROM mako.stream GROUP BY 1 ORDER BY 1;
SELECT stream_id, phase, sequence_number, sqlstate, message, detail FROM mako.migration_error ORDER BY error_no;
SQL
}

my $by_key = run_in('store', 'key');
my $by_heap = run_in('twin', 'heap');
my ($failed) = $by_key =~ /^\d+\|\d+\|(\d+)\|/;
cmp_ok($failed, '>', 0, "$failed streams fail, of which $streams have events on the damaged page");
cmp_ok($failed, '<=', $streams, 'no other stream fails');
like($by_key, qr/\|XX001\|invalid page in block $block of relation/, 'the error tells the page');
# 18 quotes the name, and an array quotes that once more.
s/relation [\\"]*base\/\d+\/\d+[\\"]*/relation/g for $by_key, $by_heap;
is($by_heap, $by_key, 'in heap order the same happens as in key order');

# Errors that end a run in the middle of a scan.
create_store($node, 'ended');
generate($node, 'ended', 'generate_uniform(3000, 4)');
$node->safe_psql('ended', <<SQL);
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, schema_version, payload)
SELECT stream_no, version + 1, workflow_id, 'SupplierChangeRejected', 99, '{}' FROM mako.stream WHERE stream_no = 1500
SQL
my $settings = "SET mako_migration.scan_order = heap; SET mako_migration.batch_size = 100";
like(error_of($node, 'ended', "$settings; SET statement_timeout = 30; $migrate"), qr/^57014/, 'a timeout');
like(error_of($node, 'ended', "$settings; SELECT * FROM mako_migrate('$source', '$target', max_errors => 0)"), qr/^MK006/, 'max_errors');
is($node->safe_psql('ended', <<SQL), 'MK006', 'max_errors, caught');
$settings;
CREATE FUNCTION pg_temp.caught() RETURNS text LANGUAGE plpgsql AS \$\$
BEGIN
  PERFORM mako_migrate('$source', '$target', max_errors => 0);
EXCEPTION WHEN OTHERS THEN
  RETURN SQLSTATE;
END \$\$;
SELECT pg_temp.caught();
SQL
like($node->safe_psql('ended', "$settings; $migrate"), qr/^\d+\|\d+\|\d+$/, 'the run after this completes');

$node->stop;
unlike(slurp_file($node->logfile), qr/leak|still referenced|not closed/, 'nothing has leaked');
done_testing();
