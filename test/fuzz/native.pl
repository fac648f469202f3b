#!/usr/bin/perl
# Native and plain evaluation say the same, of random programs and documents; prints TAP.
#
#   test/with-cluster perl -Itest/fuzz test/fuzz/native.pl [--pairs N] [--seconds N] [--streams N]
#
# Each program (JsonExpression.pm) becomes the functions of a workflow, whose streams have random events. The workflow is migrated
# twice, natively and plainly, without repointing; snapshots and errors must be the same, to the byte. An event and a program are a pair.
# A difference is shrunk as far as it goes and printed as a script for psql. The native migration runs with random sizes of batches and
# orders of the scan, which must not make a difference either.
#
#   --pairs N     how many pairs, 100,000 by default
#   --seconds N   stop after this time, however many pairs there are; differences on purpose, which come first, do not count
#   --streams N   per round, 40 by default; a round has 40 programs
#
# Needs a server in the environment (PGHOST ...), and makes a database of its own there. MAKO_SEED repeats an earlier run.
use strict;
use warnings;
use utf8;

use Encode ();
use FindBin;
use lib $FindBin::RealBin;
use Getopt::Long;
use IPC::Open2;
use JSON::PP;
use JsonExpression;
use Test::More;
use Time::HiRes qw(sleep time);
use TypeDefinition qw(chance json pick);

my %options = (pairs => 100_000, seconds => 0, streams => 40);
GetOptions(\%options, 'pairs=i', 'seconds=i', 'streams=i') && !@ARGV or die "usage: native.pl [--pairs N] [--seconds N] [--streams N]\n";

my $programs_per_round = 40;
my $database = "mako_fuzz_$$";
my $json = JSON::PP->new->utf8(0)->allow_nonref;
my $start = time;
my $seed = srand($ENV{MAKO_SEED} || time ^ $$);

my $fixture = do { local (@ARGV, $/) = "$FindBin::RealBin/native.sql"; Encode::decode('UTF-8', <>) };

binmode $_, ':encoding(UTF-8)' foreach Test::More->builder->output, Test::More->builder->failure_output, Test::More->builder->todo_output;

# ---- a session

my ($psql, $to_psql, $from_psql);

# Starts psql; waits for a server that recovers from a crash.
sub connect_to
{
	my ($name) = @_;
	my @command = (qw(psql -XqAt -v VERBOSITY=verbose -d), $name, '-f', '-');

	foreach (1 .. 300)
	{
		$psql = open2($from_psql, $to_psql, "exec @command 2>&1");
		binmode $_, ':encoding(UTF-8)' foreach $from_psql, $to_psql;
		# Five calls of a PL/pgSQL function are planned for the values of their arguments, and where one is null, nothing may be left to fail.
		return if defined query("SET client_min_messages = error; SET statement_timeout = '10min'; SET plan_cache_mode = force_generic_plan");
		sleep 0.2;
	}
	die "cannot connect to database $name\n";
}

sub disconnect { close $to_psql; close $from_psql; waitpid $psql, 0 }

# What psql prints for some statements; undef when the session has ended.
sub query
{
	my ($sql) = @_;
	my $output = '';

	local $SIG{PIPE} = 'IGNORE';
	print $to_psql "$sql;\nSELECT 'end of output';\n";
	$to_psql->flush;
	while (defined(my $line = <$from_psql>))
	{
		return $output if $line eq "end of output\n";
		$output .= $line;
	}
	disconnect();
	return undef;
}

# What must succeed.
sub run_sql
{
	my ($sql) = @_;
	my $output = query($sql) // die "the session has ended after: $sql\n";

	die "$output\nafter: $sql\n" if $output =~ /^(?:psql:.*?: )?(?:ERROR|FATAL): /m;
	return $output;
}

# ---- programs on the server

my $version;

# A program as fuzz.prepare() takes it.
sub description
{
	my ($program, $workflow) = @_;

	return $json->canonical->encode({
		workflow => $workflow, upcast => $program->{upcast} ? \1 : \0, migrate => $program->{migrate} ? \1 : \0,
		initial_state => json($program->{initial_state}) });
}

# Events as mako_fold() takes them.
sub events_json
{
	my ($events) = @_;
	my @events = map { sprintf '{"event_type":%s,"schema_version":%d,"payload":%s}', json($_->[0]), $_->[1], json($_->[2]) } @$events;

	return '[' . join(',', @events) . ']';
}

# How a program is run: natively, plainly, and with no function called. $change makes the plain functions say something else, to
# see that it is noticed.
sub variants
{
	my ($program, $change) = @_;
	my @statements = statements($program);
	my @written_out = statements($program, inline => 1);
	my $native = { native_evaluation => 'on', batch_size => pick(1, 2, 7, 1000), scan_order => pick('auto', 'heap', 'key') };
	my $plain = { native_evaluation => 'off', batch_size => 1000, scan_order => 'auto' };
	my @variants = ({ statements => \@statements, settings => $native });

	push @variants, { statements => $change ? [ map { $change->($_) } @statements ] : [], settings => $plain };
	push @variants, { statements => \@written_out, settings => $plain } if !$change && "@written_out" ne "@statements";
	return \@variants;
}

# A program that can be written out: helpers that call helpers make it grow.
sub some_program
{
	my $program;

	do { $program = program($version) } until length join('', statements($program, inline => 1)) < 200_000;
	return $program;
}

# Compares the two ways, over the streams of a workflow or for a list of events. What cannot be compared has an error.
sub compare
{
	my ($program, $workflow, $change, $events) = @_;
	my @arguments = (description($program, $workflow), $json->canonical->encode(variants($program, $change)));
	my $function = 'compare';
	my $output;

	if ($events)
	{
		$function = 'compare_fold';
		push @arguments, events_json($events);
	}
	$output = query("SELECT fuzz.$function(" . join(', ', map { quoted($_) } @arguments) . ')');
	if (!defined $output)
	{
		connect_to($database);
		return { differences => [ [ undef, 'the server has crashed', 'the server has crashed' ] ], crashed => 1 };
	}
	return eval { $json->decode($output) } // { error => $output };
}

# A stream for each number, with its events, which the caller keeps.
sub load_streams
{
	my ($workflow, $count) = @_;
	my %streams;
	my @heads = map { "('$workflow-$_', '$workflow\@FV2024-10-01')" } 1 .. $count;
	my @rows;
	my @numbers;

	run_sql("CREATE OR REPLACE FUNCTION fuzz.apply(jsonb, text, jsonb) RETURNS jsonb LANGUAGE sql STABLE AS 'SELECT \$1';
		SELECT mako_register_workflow('$workflow\@FV2024-10-01', apply => 'fuzz.apply', initial_state => '{}')");
	@numbers = split /\n/, run_sql('INSERT INTO mako.stream (stream_id, workflow_id) VALUES ' . join(', ', @heads) . ' RETURNING stream_no');
	foreach my $number (@numbers)
	{
		my @events = map { event() } 1 .. 1 + rand 4;

		# Now and then more than a fold keeps at once, so that the state has to be made whole in the middle.
		if ($number == $numbers[-1] && chance(0.25))
		{
			@events = map { event() } 1 .. 6;
			$_->[2] = { %{ ref $_->[2] eq 'HASH' ? $_->[2] : {} }, s => 'h' x 300_000 } foreach @events;
		}
		$streams{$number} = \@events;
		push @rows, map { "($number, " . ($_ + 1) . ", '$workflow\@FV2024-10-01', " . quoted($events[$_][0]) . ", $events[$_][1], " .
			  quoted(json($events[$_][2])) . ')' } 0 .. $#events;
	}
	run_sql('INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, schema_version, payload) VALUES ' . join(",\n",
		@rows));
	return \%streams;
}

# ---- shrinking

# Of which kind a difference is: what comes out natively, and plainly, a value or an error with its code.
sub kind
{
	my ($difference) = @_;

	return join ', ', map { !defined $_ ? 'nothing' : /^error .*?\|([0-9A-Z]{5})\|/ ? $1 : 'a value' } @$difference[ 1, 2 ];
}

# Takes away from a program and its events as long as the two ways differ, and do so in the same way: there are differences that are
# allowed, and what is left could slip into one of them. Stops after some seconds. Returns program, events (undef when it takes the streams
# of the store to make it fail) and the difference.
sub shrink
{
	my ($program, $workflow, $change, $events, $seconds, $kind) = @_;
	my $until = time + $seconds;
	my $difference;
	my $fails = sub {
		my $found = time < $until ? compare($_[0], $workflow, $change, $_[1]) : { error => 'late' };
		my $is = !$found->{error} && $found->{differences}[0];

		return 0 if !$is || kind($is) ne $kind;
		$difference = $is;
		return 1;
	};
	my $size = -1;

	$events = undef unless $fails->($program, $events);
	return unless $events || $fails->($program);
	foreach (1 .. 5)
	{
		last if $size == program_size($program);
		$size = program_size($program);
		for (my $i = $events ? $#$events : -1; $i >= 0 && @$events > 1; $i--)
		{
			my @others = @$events;

			splice @others, $i, 1;
			$events = \@others if $fails->($program, \@others);
		}
		$program = shrunk_program($program, sub { $fails->($_[0], $events) });
		foreach my $i ($events ? 0 .. $#$events : ())
		{
			my $set = sub { my @others = @$events; $others[$i] = [ @{ $events->[$i] }[ 0, 1 ], $_[0] ]; return \@others };

			$events = $set->(shrunk_document($events->[$i][2], sub { $fails->($program, $set->($_[0])) }));
		}
	}
	return ($program, $events, $difference);
}

# A script for psql that shows a difference.
sub script
{
	my ($program, $change, $events) = @_;
	my ($native, $plain) = @{ variants($program, $change) };
	my ($source, $target) = ('fuzz@FV2024-10-01', 'fuzz@FV2025-10-01');
	my $register = "SELECT mako_register_workflow('$source', apply => 'fuzz.apply'" . ($program->{upcast} ? ", upcast => 'fuzz.upcast'" : '') .
	  ', initial_state => ' . quoted(json($program->{initial_state})) . ", replace => true);\n" .
	  "SELECT mako_register_workflow('$target', replace => true);\n" .
	  "SELECT mako_register_migration('$source', '$target'" . ($program->{migrate} ? ", 'fuzz.migrate'" : '') . ", replace => true);\n";
	my $fold = "SELECT mako_migrate_state('$source', '$target', mako_fold('$source', " .
	  quoted(events_json($events || [])) . "));\n";

	return "CREATE EXTENSION mako_migration;\n\\i test/fuzz/native.sql\n" . join(";\n", @{ $native->{statements} }) . ";\n$register" .
	  "SET mako_migration.native_evaluation = on;\n$fold" . join('', map { "$_;\n" } @{ $plain->{statements} }) . ($change ? $register : '') .
	  "SET mako_migration.native_evaluation = off;\n$fold";
}

# ---- the tests

END { if ($version) { local $?; disconnect(); system("dropdb --if-exists $database >/dev/null 2>&1") } }

note("seed $seed");
system("createdb $database") == 0 or die "cannot create a database\n";
connect_to($database);
$version = int(run_sql('SHOW server_version_num') / 10000);
run_sql('CREATE EXTENSION mako_migration; SELECT mako_create_store()');
run_sql($fixture);
# How each operation did: programs, pairs.
my (%programs_with, %pairs_with, %obstacles, %errors);
my ($programs, $native_programs, $evaluated, $good, $differences, $refused) = (0) x 6;

# Shrinks and prints a difference.
sub show_difference
{
	my ($program, $workflow, $events, $found) = @_;
	my ($small, $small_events, $difference) = shrink($program, $workflow, undef, $events, 60, kind($found));

	return diag('it cannot be reproduced') unless $small;
	diag("native: " . ($difference->[1] // 'nothing') . "\nplain:  " . ($difference->[2] // 'nothing'));
	diag('the texts are the same, but not the bytes') if ($difference->[1] // '') eq ($difference->[2] // '');
	diag('only with the streams of this round') unless $small_events;
	diag(script($small, undef, $small_events));
}

# Differences that are made on purpose are noticed, shrunk, and shown by the script; others of another kind are not on purpose. How long it
# takes to shrink one makes no difference to the next.
sub test_comparison
{
	my ($name, $kind, $change) = @_;
	my $workflow = "known-$name";
	my $streams;

	srand($seed);
	$streams = load_streams($workflow, 20);
	foreach my $try (1 .. 2000)
	{
		my $program = some_program();
		my $found;

		next if join('', statements($program)) eq join('', map { $change->($_) } statements($program));
		$found = compare($program, $workflow, $change);
		next unless @{ $found->{differences} || [] } && defined $found->{differences}[0][0] && kind($found->{differences}[0]) eq $kind;

		my ($small, $events, $difference) = shrink($program, $workflow, $change, $streams->{ $found->{differences}[0][0] }, 600, $kind);
		my $size = program_size($small);
		my $output;

		pass("a difference in $name is noticed, at try $try");
		cmp_ok($size, '<=', 20, "... and shrunk from " . program_size($program) . " parts to $size");
		cmp_ok(scalar @{ $events || [ 1 .. 9 ] }, '<=', 2, '... and to one event or two');
		$output = output_of_script(script($small, $change, $events));
		isnt($output->[-2], $output->[-1], '... and shown by a script') or diag(script($small, $change, $events));
		note("native: $difference->[1]\nplain:  $difference->[2]");
		return;
	}
	fail("a difference in $name is noticed");
}

# What psql prints for a script in a database of its own: the last lines.
sub output_of_script
{
	my ($script) = @_;
	my @lines;

	system("createdb $database-script") == 0 or die "cannot create a database\n";
	disconnect();
	connect_to("$database-script");
	$script =~ s/^CREATE EXTENSION.*\n\\i .*\n//;
	@lines = grep { !/^(?:LOCATION|CONTEXT|DETAIL|HINT)/ } split /\n/, query("CREATE EXTENSION mako_migration; $fixture; $script");
	s/^(?:psql:.*?: )?(?:ERROR: .*?: )?// foreach @lines;
	disconnect();
	system("dropdb $database-script");
	connect_to($database);
	return \@lines;
}

test_comparison('values', 'a value, a value', sub { $_[0] =~ s/jsonb_strip_nulls\(/(/gr });
test_comparison('digits', 'a value, a value', sub { $_[0] =~ s/\b1\.0\b/1.00/gr });
test_comparison('errors', 'MK002, MK002', sub { $_[0] =~ s/mako_reject\(/mako_reject('again: ' || /gr });

my $loop_start = time;
my $in_time = sub { return !$options{seconds} || time - $loop_start < $options{seconds} };

for (my $round = 1; $evaluated < $options{pairs} && $in_time->(); $round++)
{
	my $workflow = "round-$round";
	my $streams;

	srand($seed + $round);
	$streams = load_streams($workflow, $options{streams});
	foreach my $number (1 .. $programs_per_round)
	{
		my $program = some_program();
		my $found = compare($program, $workflow);
		my $native;

		last unless $in_time->();
		$programs++;
		if ($found->{error})
		{
			diag("program $number of round $round is none: $found->{error}\n" . join(";\n", statements($program))) if $refused++ < 3;
			next;
		}
		$errors{$_} += $found->{errors}{$_} foreach keys %{ $found->{errors} || {} };
		$evaluated += $found->{evaluated};
		$good += $found->{good};
		$native_programs++ if !@{ $found->{obstacles} || [] };
		$obstacles{$_}++ foreach @{ $found->{obstacles} || [] };
		foreach my $operation (keys %{ operations($program) })
		{
			$programs_with{$operation}++;
			$pairs_with{$operation} += $found->{evaluated};
		}
		next unless @{ $found->{differences} };
		next if ++$differences > 3;
		diag("program $number of round $round");
		show_difference($program, $workflow, $streams->{ $found->{differences}[0][0] // '' }, $found->{differences}[0]);
	}
	run_sql('VACUUM mako.snapshot, mako.migration_error, mako.migration_run, mako_workflow, mako_state_migration, pg_proc, pg_depend');
}

my $pairs = $evaluated || 1;

is($differences, 0, "$evaluated pairs of seed $seed: native and plain evaluation say the same");
is($refused, 0, "each of $programs programs can be run");
cmp_ok($good / $pairs, '>=', 0.5, sprintf 'at least half of the pairs give a value: %.1f %%', 100 * $good / $pairs);
cmp_ok($native_programs / ($programs || 1), '>=', 0.8,
	sprintf 'at least four fifths of the programs run natively: %.1f %%', 100 * $native_programs / ($programs || 1));
note(sprintf '%5d programs with %s', $obstacles{$_}, $_) foreach sort { $obstacles{$b} <=> $obstacles{$a} || $a cmp $b } keys %obstacles;
note(sprintf '%6d pairs, %5d programs with %s', $pairs_with{$_}, $programs_with{$_}, $_)
  foreach sort { $pairs_with{$b} <=> $pairs_with{$a} || $a cmp $b } keys %pairs_with;
note('streams by error: ' . join ', ', map { "$_ $errors{$_}" } sort { $errors{$b} <=> $errors{$a} || $a cmp $b } keys %errors);
note(sprintf '%d programs, %d pairs, %.0f s', $programs, $evaluated, time - $start);
done_testing();
