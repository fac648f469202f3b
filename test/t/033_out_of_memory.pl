# Out of memory at one allocation after the other: the address space of a backend ends a little
# above what it has. The call fails as a whole, nothing has changed, no lock is left, and the next
# call in the same session is fine.
#
# MAKO_SOAK=1 tries more limits. MAKO_SEED repeats the choices of an earlier run.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MakoTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

plan skip_all => 'no prlimit' if system('prlimit --pid $$ >/dev/null 2>&1') != 0;
plan skip_all => 'memory is read from /proc' unless -r '/proc/self/status';

my ($streams, $limits) = $ENV{MAKO_SOAK} ? (1500, 150) : (600, 8);
my $seed = srand($ENV{MAKO_SEED} || time ^ $$);
note("seed $seed");

my $node = new_server('out_of_memory');
create_two_workflows($node, 'store', $streams);
my $before = contents($node, 'store');

my @calls = (
	"SELECT migrated, failed FROM mako_migrate('native\@FV2024-10-01', 'native\@FV2025-10-01')",
	"SELECT migrated, failed FROM mako_migrate('plain\@FV2024-10-01', 'plain\@FV2025-10-01')",
	"SELECT count(*) FROM mako_dry_run('native\@FV2024-10-01', 'native\@FV2025-10-01')",
	"SELECT count(mako_append(stream_id, workflow_id, 'Noted', '{}')) FROM mako.stream",
	"SELECT count(t) FROM mako.stream s, mako_trace(s.stream_id) t",
	'SELECT count(*) FROM mako_check(20)');

# Lets a process have so many kB of address space, or as many as it likes.
sub limit
{
	my ($pid, $kb) = @_;

	system_or_bail('prlimit', '--pid', $pid, '--as=' . (defined $kb ? $kb * 1024 : 'unlimited') . ':');
}

my ($session, $pid, %answer);
my $left = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()";
my $locks = 0;
for my $n (1 .. $limits)
{
	for my $call (@calls)
	{
		# A new session now and then: its caches are cold.
		if (!$session || $n % 4 == 0)
		{
			close_session($session) if $session;
			$session = open_session($node, 'store');
			$pid = ask($session, 'SELECT pg_backend_pid()');
		}
		my ($size) = slurp_file("/proc/$pid/status") =~ /^VmSize:\s+(\d+) kB/m;
		limit($pid, $size + ($ENV{MAKO_SOAK} ? 40 * $n : int(rand(1500))));
		my $answer = ask($session, "BEGIN; $call");
		$answer{ $answer =~ /(ERROR: +\w+|FATAL.*|gone)/ ? $1 : 'done' }++;
		if ($answer =~ /gone/)
		{
			close_session($session);
			undef $session;
			next;
		}
		limit($pid);
		ask($session, 'ROLLBACK');
		$locks += ask($session, $left);
	}
}
limit($pid) if $session;
note("$answer{$_} times $_") for sort keys %answer;
my $times = $answer{'ERROR:  53200'} // 0;
cmp_ok($times, '>', $limits, "memory was out $times times");
# The server has other codes for it, too: 58P01, a library could not be mapped; 22023, a time zone could not be read;
# 2201B, a regular expression could not be compiled.
my @other = grep { !/^(done|ERROR:  (53200|58P01|22023|2201B))$/ } keys %answer;
is("@other", '', '... and nothing else was wrong');
is($locks, 0, 'no lock was left');
is(contents($node, 'store'), $before, 'nothing has changed');
$session //= open_session($node, 'store');
for my $call (@calls[ 0, 1 ])
{
	is(ask($session, $call), $streams / 2 . '|0', 'the next call in the session succeeds');
}
close_session($session);
is(disorder($node, 'store'), '', '... and leaves the store in order');
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal/, 'nothing has crashed');

$node->stop;
done_testing();
