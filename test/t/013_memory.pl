# A migration needs little memory however many streams match, however large their payloads are and however long a stream is.
#
# MAKO_SOAK=1 does it with a million streams and a stream of 100,000 events, under the default setting.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MakoTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes;

plan skip_all => 'memory is read from /proc' unless -r '/proc/self/status';

my ($streams, $events, $setting, $limit) = $ENV{MAKO_SOAK} ? (1_000_000, 100_000, '64MB', 200) : (20_000, 10_000, '4MB', 70);
my $node = new_server('memory');
create_store($node, 'store');
$node->safe_psql('store', "SELECT gpke.generate_uniform($streams, 3, 'many'); SELECT gpke.generate_uniform(1, $events, 'long')");

# 2 % of the payloads have 64 kB, which the states keep.
$node->safe_psql('store', <<'SQL');
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
SELECT stream_no, version + 1, workflow_id, 'SupplierChangeRejected',
       jsonb_build_object('type', 'Rejected', 'data', jsonb_build_object('reason', repeat(md5(stream_no::text), 2000)))
FROM mako.stream WHERE version = 3 AND stream_no % 16 = 0;
SQL

# Runs a statement in a session of its own; its output, and by how many MB of anonymous memory the session has grown at most.
sub measured
{
	my ($what, $statement) = @_;
	my $run = start_sql($node, 'store', 'measured', "SET mako_migration.max_memory = '$setting'", 'SELECT pg_sleep(1)', $statement);
	my $pid = pid_of($node, 'measured');
	my ($first, $peak) = (undef, 0);

	while (defined(my $status = eval { slurp_file("/proc/$pid/status") }))
	{
		last unless $status =~ /^RssAnon:\s+(\d+) kB/m;
		$first //= $1;
		$peak = $1 if $1 > $peak;
		$run->{run}->pump_nb;
		Time::HiRes::sleep(0.02);
	}
	ok(finish_sql($run), "$what ends well") or diag($run->{err});
	note($run->{out});
	return ($run->{out}, ($peak - $first) / 1024);
}

# What it returns, twice 64 kB for many a stream, goes to a file.
my ($out, $growth) = measured('a dry run', "SELECT 'counts', count(new_state), sum(length(old_state::text)) FROM mako_dry_run('$source', '$target')");
like($out, qr/^counts\|@{[ $streams + 1 ]}\|/m, 'every stream is rehearsed');
cmp_ok($growth, '<', $limit, sprintf('to rehearse %d streams needs %.0f MB of anonymous memory', $streams + 1, $growth));

($out, $growth) = measured('the run', "SELECT 'counts', migrated, failed, duration FROM mako_migrate('$source', '$target')");
like($out, qr/^counts\|@{[ $streams + 1 ]}\|0\|/m, 'every stream is migrated');
cmp_ok($growth, '<', $limit, sprintf('%d streams need %.0f MB of anonymous memory', $streams + 1, $growth));

# Streams of another workflow, from which no way leads on: each of them fails while its history is looked for.
create_store($node, 'lost');
generate($node, 'lost', 'generate_uniform(1500, 1)');
$node->safe_psql('lost', <<'SQL');
SELECT mako_register_workflow('lost@' || version, apply => 'gpke.supplier_change_apply_2024', initial_state => '{"status":"New"}')
FROM unnest('{FV2024-10-01,FV2025-10-01}'::text[]) AS version;
SELECT mako_register_migrations('FV2024-10-01', 'FV2025-10-01', '{lost}');
ALTER TABLE mako.stream DISABLE TRIGGER USER;
UPDATE mako.stream SET workflow_id = 'lost@FV2024-10-01';
ALTER TABLE mako.stream ENABLE TRIGGER USER;
SQL
my ($failed, $peak_of_failures) = split /\|/, $node->safe_psql('lost', <<'SQL');
SELECT failed, substring(pg_read_file('/proc/self/status') FROM 'VmHWM:\s+(\d+)')::int / 1024
FROM (SELECT failed FROM mako_migrate('lost@FV2024-10-01', 'lost@FV2025-10-01') OFFSET 0) AS report;
SQL
is($failed, 1500, 'streams that come from nowhere fail');
cmp_ok($peak_of_failures, '<', 300, "... and leave little behind: the session needed $peak_of_failures MB at most, 64 of them shared");

$node->stop;
done_testing();
