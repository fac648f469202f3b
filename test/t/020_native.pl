# Native and plain evaluation say the same, of random programs and documents, for twenty seconds.
#
# MAKO_SOAK=1 does it with 100,000 pairs, counts the calls of every drop-in function, and goes on for ten minutes under valgrind.
# MAKO_SEED repeats an earlier run.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MakoTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $fuzz = "$FindBin::RealBin/../fuzz";
$ENV{MAKO_SEED} = int($ENV{MAKO_SEED} || time ^ $$);

# Runs a program that prints TAP, and shows what it says as comments.
sub run_tap
{
	my ($name, $command) = @_;
	my $out = `$command 2>&1`;

  SKIP:
	{
		skip $1, 1 if $out =~ /^1\.\.0 # SKIP (.*)/m;
		is($?, 0, $name);
		$out =~ s/^/| /mg;
		note($out);
		diag($out) if $?;
	}
}

my $node = new_server('native');
{
	local @ENV{qw(PGHOST PGPORT PGDATABASE)} = ($node->host, $node->port, 'postgres');
	run_tap('native and plain evaluation say the same', "$^X -I$fuzz $fuzz/native.pl " . ($ENV{MAKO_SOAK} ? '' : '--seconds 20'));
}
$node->stop;

SKIP:
{
	skip 'every drop-in function is called 1,000 times: only with MAKO_SOAK', 1 unless $ENV{MAKO_SOAK};
	run_tap('every drop-in function is called 1,000 times', "$fuzz/run-coverage");
}
SKIP:
{
	skip 'ten minutes under valgrind: only with MAKO_SOAK', 1 unless $ENV{MAKO_SOAK};
	run_tap('ten minutes under valgrind', "$fuzz/run-valgrind native 600");
}

done_testing();
