# Arbitrary bytes, JSON and type definitions end in an answer, in error 22032 or in a stack that is too deep, never in anything else.
#
# MAKO_SOAK=1 does it for five minutes more, under valgrind. MAKO_SEED repeats an earlier run.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MakoTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $fuzz = "$FindBin::RealBin/../fuzz";
my $folder = PostgreSQL::Test::Utils::tempdir();
my $seed = $ENV{MAKO_SEED} = int($ENV{MAKO_SEED} || time ^ $$);
my ($out, $warnings);

note("seed $seed");
my $node = new_server('fuzz');
$node->safe_psql('postgres', 'CREATE EXTENSION mako_migration');
$node->safe_psql('postgres', slurp_file("$fuzz/type_definition.sql"));
is(system("$^X -I$fuzz $fuzz/type_definition.pl $seed 6000 >$folder/calls.sql"), 0, 'the calls are made');
is($node->psql('postgres', "\\o /dev/null\n\\i $folder/calls.sql", stderr => \$warnings), 0, 'the server lives');
is(substr($warnings, 0, 3000), '', "nothing of seed $seed ends otherwise than it may");

my %outcomes = map { split /\|/ } split /\n/, $node->safe_psql('postgres', 'TABLE fuzz.outcome');
is(join(', ', sort keys %outcomes), '22032, 54001, false, no JSON, true', 'every kind of outcome occurs, and no other');
note("$_: $outcomes{$_}") foreach sort keys %outcomes;
$node->stop;

SKIP:
{
	skip 'five minutes under valgrind: only with MAKO_SOAK', 1 unless $ENV{MAKO_SOAK};
	$out = `$fuzz/run-valgrind type_definition 300`;
	skip 'no valgrind', 1 if $out =~ /^1\.\.0 # SKIP/m;
	is($?, 0, 'five minutes under valgrind');
	note($out);
	diag($out) if $?;
}

done_testing();
