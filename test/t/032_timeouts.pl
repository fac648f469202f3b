# statement_timeout ends calls of every kind anywhere between their first millisecond and their
# last: nothing has changed, no lock and no memory is kept, and the session goes on. A batched run
# that is called again and again with too little time comes to its end.
#
# MAKO_SOAK=1 tries more of them, in a larger store. MAKO_SEED repeats the choices of an earlier
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

my ($streams, $timeouts) = $ENV{MAKO_SOAK} ? (3000, 100) : (600, 10);
my $seed = srand($ENV{MAKO_SEED} || time ^ $$);
note("seed $seed");

my $node = new_server('timeouts');
create_two_workflows($node, 'store', $streams);
my $before = contents($node, 'store');

my @calls = (
	"SELECT migrated FROM mako_migrate('native\@FV2024-10-01', 'native\@FV2025-10-01')",
	"SELECT migrated FROM mako_migrate_version('FV2024-10-01', 'FV2025-10-01')",
	"SELECT count(*) FROM mako_dry_run('plain\@FV2024-10-01', 'plain\@FV2025-10-01')",
	"SELECT count(*) FROM mako_plan('native\@FV2024-10-01', 'native\@FV2025-10-01')",
	"SELECT count(mako_append(stream_id, workflow_id, 'Noted', '{}')) FROM mako.stream",
	"SELECT count(t) FROM mako.stream s, mako_trace(s.stream_id) t",
	'SELECT count(*) FROM mako_check(50)');

# One session for all, which would meet what the calls before have left.
my $session = open_session($node, 'store');
my $pid = ask($session, 'SELECT pg_backend_pid()');
my $left = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()";
my (%duration, %answer);
for my $call (@calls, @calls)    # the second time counts
{
	my $since = Time::HiRes::time();

	ask($session, "BEGIN; $call; ROLLBACK");
	$duration{$call} = 1000 * (Time::HiRes::time() - $since);
}
my ($locks, @memory) = (0);
for my $n (1 .. $timeouts)
{
	for my $call (@calls)
	{
		my $ms = 1 + int(rand($duration{$call}));
		my $answer = ask($session, "BEGIN; SET LOCAL statement_timeout = $ms; $call");

		# The first one may be cancelled, too; that takes the timeout back.
		ask($session, 'ROLLBACK; ROLLBACK');

		$answer{ $call =~ /(mako_\w+)/ ? $1 : '' }{ $answer =~ /ERROR/ ? $answer : 'done' }++;
		$locks += ask($session, $left);
	}
	my ($kb) =
	  slurp_file("/proc/$pid/status") =~ /^RssAnon:\s+(\d+) kB/m if -r "/proc/$pid/status";
	push @memory, $kb // 0;
}
my $cancelled = 0;
for my $function (sort keys %answer)
{
	my @other = grep { !/^(done|ERROR:  57014)$/ } keys %{ $answer{$function} };

	is("@other", '', "$function() ends in time or is cancelled: "
		  . join(', ', map { "$answer{$function}{$_} x $_" } sort keys %{ $answer{$function} }));
	$cancelled += $answer{$function}{'ERROR:  57014'} // 0;
}
cmp_ok($cancelled, '>', $timeouts, "$cancelled calls were cancelled");
is($locks, 0, 'no lock was left');
is(ask($session, 'SELECT pg_backend_pid()'), $pid, 'the session goes on');
my @kb = @memory[ 0, @memory / 2, -1 ];
cmp_ok($kb[2] - $kb[1], '<', 8192, "... and does not grow: @kb kB");
is(contents($node, 'store'), $before, 'nothing has changed');

# Sessions whose caches are cold: what was found out by half is not taken for known afterwards.
$cancelled = 0;
for my $call ($calls[0], "SELECT mako_fold('native\@FV2024-10-01', '[]')")
{
	my (%wrong, $whole);

	for my $ms (1 .. 40)
	{
		my $cold = open_session($node, 'store');

		$cancelled++ if ask($cold, "SET statement_timeout = $ms; BEGIN; $call; ROLLBACK") =~ /57014/;
		my $answer = ask($cold, "ROLLBACK; RESET statement_timeout; BEGIN; $call; ROLLBACK");
		$whole //= ask($session, "BEGIN; $call; ROLLBACK");
		$answer =~ s/^WARNING.*\n//;
		$wrong{"$answer after $ms ms"}++ if $answer ne $whole;
		close_session($cold);
	}
	is(join(', ', sort keys %wrong), '', 'a call after one that was cancelled gives the same');
}
cmp_ok($cancelled, '>', 10, "$cancelled were cancelled");
is(contents($node, 'store'), $before, '... and nothing has changed');

# A batched run keeps what it has committed.
my $call = <<'SQL';
CALL mako_migrate_batched('native@FV2024-10-01', 'native@FV2025-10-01', batch_size => 20)
SQL
my $answer = '';
$cancelled = 0;
for my $n (1 .. 1000)
{
	ask($session, 'SET statement_timeout = ' . (2 + int(rand(20)) + $n));
	$answer = ask($session, $call);
	last unless $answer =~ /ERROR/;
	$cancelled++;
	is($answer, 'ERROR:  57014', "a batched run is cancelled") if $answer !~ /57014/;
	$locks += ask($session, "RESET statement_timeout; $left");
}
ok($answer !~ /ERROR/, "a batched run that was cancelled $cancelled times has ended");
cmp_ok($cancelled, '>', 1, '... after more than one call');
is($locks, 0, '... none of which has left a lock');
ask($session, 'RESET statement_timeout');
is(ask($session, <<'SQL'), '1|' . $streams / 2 . '|t', '... as one run, which has migrated all');
SELECT count(*), sum(migrated), bool_and(finished_at IS NOT NULL) FROM mako.migration_run
SQL
is(ask($session, 'SELECT count(v) FROM mako.migration_run r, mako_verify(r.run_id) v'), '0',
	'... as it should');
is(disorder($node, 'store'), '', '... and left the store in order');
is(ask($session, $calls[0]), '0', 'the next run finds nothing to do');
close_session($session);

$node->stop;
done_testing();
