# The benchmark runs, and every case of it leaves the states that it should. Only with MAKO_SOAK: no time is tested here.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MakoTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

plan skip_all => 'the benchmark: only with MAKO_SOAK' unless $ENV{MAKO_SOAK};
plan skip_all => 'CPU time is read from /proc' unless -r '/proc/self/schedstat';

my $node = new_server('bench');
local $ENV{PGHOST} = $node->host;
local $ENV{PGPORT} = $node->port;

my %cases = map { /^(\w+)/ ? ($1 => 1) : () } split /\n/, `test/bench/run --list`;
my ($out, $err);
IPC::Run::run([ 'test/bench/run', '--smoke', '--inside' ], '<', \undef, '>', \$out, '2>', \$err);
is($?, 0, 'the benchmark runs') or diag($err);
delete $cases{$_} foreach $out =~ /^\| (\w+) (?:\|[^|\n]*){11}\|$/mg;
is(join(' ', sort keys %cases), '', 'every case is in its table');
like($out, qr/^\| mako_migrate : floor \| \d/m, 'it prints ratios');

$node->safe_psql('postgres', 'CREATE DATABASE night');
local $ENV{PGDATABASE} = 'night';
IPC::Run::run([ 'test/bench/night', '--inside', 2000 ], '<', \undef, '>', \$out, '2>', \$err);
is($?, 0, 'the steps of a night are timed') or diag($err);
is(scalar(() = $out =~ /^\| .* \| \d+\.\d \|$/mg), 13, 'each of them');

$node->stop;
done_testing();
