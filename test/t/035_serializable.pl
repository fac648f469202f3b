# SERIALIZABLE: what our functions read and write without a statement takes part in the server's
# detection of conflicts. Of two transactions of which each reads what the other one writes, one
# fails with 40001, whichever ways they read and write. And many writers who retry, beside
# migrations, lose nothing.
#
# MAKO_SOAK=1 lets them write for half a minute.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MakoTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $seconds = $ENV{MAKO_SOAK} ? 30 : 4;
my $node = new_server('serializable');
create_two_workflows($node, 'skew', 800);

# ---- write skew

my ($x, $y) = map { open_session($node, 'skew') } 1 .. 2;
# As far apart as a page of the index reaches; the last two are never written.
my ($first, $second, @others) = map { { number => $_, version => 4 } } 100, 300, 500, 700;
$_->{id} = ask($x, "SELECT stream_id FROM mako.stream WHERE stream_no = $_->{number}")
  for $first, $second, @others;

my %reads = (
	statement => 'SELECT count(*) FROM mako.event WHERE stream_no = {number}',
	head => 'SELECT version FROM mako.stream WHERE stream_no = {number}',
	mako_state => "SELECT sequence_number FROM mako_state('{id}')",
	mako_resume => "SELECT count(*) FROM mako_resume('{id}')",
	mako_trace => "SELECT count(*) FROM mako_trace('{id}')",
	mako_load => "SELECT count(*) FROM mako_load('{id}')");
my $step = "'native\@FV2024-10-01', 'native\@FV2025-10-01'";
my %reads_all = (
	mako_dry_run => "SELECT count(*) FROM mako_dry_run($step)",
	mako_plan => "SELECT max(events) FROM mako_plan($step)");
my %writes = (
	statement => "INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
	  VALUES ({number}, {next}, 'native\@FV2024-10-01', 'Noted', '{}')",
	mako_append => "SELECT mako_append('{id}', 'native\@FV2024-10-01', 'Noted', '{}')",
	mako_append_batch => "SELECT mako_append_batch('{id}', 'native\@FV2024-10-01',
	  ARRAY[('Noted', '{}', 1, NULL, NULL, NULL, NULL)]::mako_new_event[])");

# A statement about a stream.
sub about
{
	my ($statement, $stream) = @_;
	my %place = (%$stream, next => $stream->{version} + 1);

	return $statement =~ s/\{(\w+)\}/$place{$1}/gr;
}

# Two transactions: each reads, then each writes, then both commit. The SQLSTATEs of their errors.
sub errors_of
{
	my (@statements) = @_;
	my @answers;

	ask($_, 'BEGIN ISOLATION LEVEL SERIALIZABLE; SET LOCAL enable_seqscan = off') for $x, $y;
	push @answers, ask($x, shift @statements), ask($y, shift @statements) while @statements;
	push @answers, map { ask($_, 'COMMIT') } $x, $y;
	return join ' ', map { /ERROR: +(\w+)/g } @answers;
}

# The same for two streams, one of which may get an event.
sub skew
{
	my ($read, $write, $read_by_x, $read_by_y) = @_;
	my $errors = errors_of(about($read, $read_by_x), about($read, $read_by_y),
		about($write, $second), about($write, $first));

	$_->{version} = ask($x, about($reads{head}, $_)) for $first, $second;
	return $errors;
}

for my $write (sort keys %writes)
{
	for my $read (sort keys %reads)
	{
		next if $write eq 'mako_append_batch' && $read ne 'mako_state';
		like(skew($reads{$read}, $writes{$write}, $first, $second), qr/^40001/,
			"read by $read, written by $write: a conflict");
		is(skew($reads{$read}, $writes{$write}, @others), '', '... and none with other streams');
	}
	for my $read ($write eq 'mako_append' ? sort keys %reads_all : ())
	{
		like(skew($reads_all{$read}, $writes{$write}, $first, $second), qr/^40001/,
			"read by $read, written by $write: a conflict");
	}
}

# A migration writes heads, of which the other one has counted those with the source.
my $key = "mako.registry WHERE key = 'note'";
like( errors_of("SELECT count(*) FROM mako.stream WHERE workflow_id = 'native\@FV2024-10-01'",
		"SELECT count(*) FROM $key",
		'INSERT INTO mako.registry SELECT tenant_id, $$note$$, stream_no FROM mako.stream LIMIT 1',
		"SELECT migrated FROM mako_migrate($step)"),
	qr/^40001/, 'heads that are counted and migrated: a conflict');
close_session($_) for $x, $y;
is(disorder($node, 'skew'), '', 'the store is in order');

# ---- many writers

my $streams = 60;
create_two_workflows($node, 'crowd', $streams);
my $script = $node->basedir . '/append.sql';
append_to_file($script, <<SQL);
\\set one random(1, $streams)
\\set other random(1, $streams)
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT count(*) FROM mako_resume((SELECT stream_id FROM mako.stream WHERE stream_no = :other));
SELECT mako_append(stream_id, workflow_id, 'Noted', '{"note": 1}') FROM mako.stream
WHERE stream_no = :one;
COMMIT;
SQL
my $migrations = start_loop($node, 'crowd', 'migrations', time + $seconds, <<'SQL');
SELECT 'migrated', migrated FROM mako_migrate('native@FV2024-10-01', 'native@FV2025-10-01');
SELECT 'migrated', migrated FROM mako_migrate('native@FV2025-10-01', 'native@FV2024-10-01');
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT 'migrated', migrated FROM mako_migrate('plain@FV2024-10-01', 'plain@FV2025-10-01');
COMMIT;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT 'migrated', migrated FROM mako_migrate('plain@FV2025-10-01', 'plain@FV2024-10-01');
COMMIT;
SQL
my ($out, $err) = run_command(
	[ 'pgbench', '-n', '-c', '6', '-j', '2', '-T', $seconds, '--max-tries=1000',
		'--random-seed=' . ($ENV{MAKO_SEED} || 'time'), '-f', $script, $node->connstr('crowd') ]);
finish_sql($migrations);
my ($processed) = $out =~ /number of transactions actually processed: (\d+)/;
note($out, $err);
unlike($err, qr/aborted/, 'writers retry, and meet no other error');
cmp_ok($processed, '>', 10, "$processed events are appended");
is($node->safe_psql('crowd', 'SELECT count(*) FROM mako.event'), 4 * $streams + $processed,
	'... and none is lost');
my @migrated = $migrations->{out} =~ /^migrated\|[1-9]/mg;
cmp_ok(scalar(@migrated), '>', 1, @migrated . ' migrations meanwhile');
my %error;
$error{$1}++ while $migrations->{err} =~ /ERROR: +(\w+)/g;
is(join(' ', grep { !/^(40001|25P02)$/ } keys %error), '', '... and no other error than conflicts');
is(disorder($node, 'crowd'), '', 'the store is in order');

$node->stop;
done_testing();
