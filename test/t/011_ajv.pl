# Random type definitions and values: mako_is_valid() and ajv, which is another implementation of RFC 8927, say the same of them.
#
# Where ajv departs from the RFC the pairs avoid it; test/fuzz/TypeDefinition.pm names each such place. ajv comes from its registry into a
# temporary folder. MAKO_SEED repeats an earlier run, MAKO_PAIRS sets how many pairs.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin, "$FindBin::RealBin/../fuzz";
use IPC::Run;
use JSON::PP;
use MakoTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use TypeDefinition;

my $pairs = $ENV{MAKO_PAIRS} || 20000;
my $per_definition = 4;
my $per_batch = 5000;
my $folder = PostgreSQL::Test::Utils::tempdir();

# Runs a program; undef unless it succeeds, otherwise what it printed.
sub output_of
{
	my ($input, $seconds, @command) = @_;
	my ($out, $err) = ('', '');

	return eval {
		IPC::Run::run(\@command, '<', $input, '>', \$out, '2>', \$err, IPC::Run::timeout($seconds)) ? $out : undef;
	};
}

plan skip_all => 'no node' unless output_of(\'', 60, 'node', '--version');
plan skip_all => 'no npm' unless output_of(\'', 60, 'npm', '--version');
plan skip_all => 'npm could not install ajv'
  unless defined output_of(\'', 180, qw(npm install --no-save --no-audit --no-fund --ignore-scripts --silent --fetch-retries=1 --prefix),
	$folder, 'ajv@8')
  && -e "$folder/node_modules/ajv/dist/jtd.js";

my $seed = srand($ENV{MAKO_SEED} || time ^ $$);
note("seed $seed, $pairs pairs, ajv " . decode_json(slurp_file("$folder/node_modules/ajv/package.json"))->{version});

my $node = new_server('ajv');
$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION mako_migration;
CREATE TABLE pair (line text, number bigint GENERATED ALWAYS AS IDENTITY);

-- true or false, or the SQLSTATE of a definition that is refused.
CREATE FUNCTION answer(definition jsonb, instance jsonb) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  IF mako_is_valid(definition, instance) = EXISTS (SELECT FROM mako_validate(definition, instance)) THEN
    RETURN 'mako_validate() disagrees';
  END IF;
  RETURN mako_is_valid(definition, instance);
EXCEPTION WHEN OTHERS THEN
  RETURN SQLSTATE;
END $$;
SQL

# What both say of each pair of JSON texts: [ ours, theirs ].
sub answers
{
	my @lines = map { "[$_->[0],$_->[1]]\n" } @_;
	my $file = "$folder/pairs";
	my (@ours, @theirs);

	utf8::encode($_) foreach @lines;
	unlink $file;
	append_to_file($file, join '', @lines);
	# As text of one column, in which no character is special.
	@ours = split /\n/, $node->safe_psql('postgres', <<SQL);
TRUNCATE pair;
COPY pair (line) FROM '$file' (FORMAT csv, DELIMITER E'\\x02', QUOTE E'\\x03', ESCAPE E'\\x03', NULL E'\\x04');
SELECT answer(line::jsonb->0, line::jsonb->1) FROM pair ORDER BY number;
SQL
	@theirs = split /\n/, output_of($file, 600, 'node', "$FindBin::RealBin/../fuzz/ajv.js", $folder) // '';
	die 'not one answer for each pair: ' . @ours . ' and ' . @theirs unless @ours == @lines && @theirs == @lines;
	return map { [ $ours[$_], $theirs[$_] ] } 0 .. $#lines;
}

# Every value that has one part less than this one.
sub smaller
{
	my ($value) = @_;
	my @result;

	if (ref $value eq 'ARRAY')
	{
		foreach my $i (0 .. $#$value)
		{
			my @others = @$value;

			splice @others, $i, 1;
			push @result, \@others, $value->[$i];
			foreach my $part (smaller($value->[$i]))
			{
				my @changed = @$value;

				$changed[$i] = $part;
				push @result, \@changed;
			}
		}
	}
	elsif (ref $value eq 'HASH')
	{
		foreach my $key (sort keys %$value)
		{
			my %others = %$value;

			delete $others{$key};
			push @result, \%others, $value->{$key};
			push @result, map { { %$value, $key => $_ } } smaller($value->{$key});
		}
	}
	return @result;
}

# Takes parts away from a pair as long as both still give the same answers. No schema becomes empty
# by that: ajv has its own view of empty ones.
sub shrink
{
	my ($definition, $instance, $answer) = @_;

  ROUND: for (1 .. 30)
	{
		my $empty = () = json($definition) =~ /\{\}/g;
		my @definitions = grep { my $found = () = json($_) =~ /\{\}/g; $found <= $empty } smaller($definition);
		my @candidates = ((map { [ $_, $instance ] } @definitions), (map { [ $definition, $_ ] } smaller($instance)));
		my @found;

		splice @candidates, 3000;
		@found = answers(map { [ json($_->[0]), json($_->[1]) ] } @candidates) if @candidates;
		foreach my $i (sort { length json($candidates[$a]) <=> length json($candidates[$b]) } 0 .. $#found)
		{
			next unless "@{ $found[$i] }" eq "@$answer";
			($definition, $instance) = @{ $candidates[$i] };
			next ROUND;
		}
		last;
	}
	return ($definition, $instance);
}

my (%forms, $valid, $disagreements);
for (my $done = 0; $done < $pairs; $done += $per_batch)
{
	my (@batch, @answers);

	while (@batch < $per_batch && $done + @batch < $pairs)
	{
		my $definition = definition();
		my $text = json($definition);
		my $forms = forms($definition);

		# ajv takes its time with large ones.
		next if length $text > 2000 && chance(0.95);
		foreach (1 .. $per_definition)
		{
			my $instance = chance(0.05) ? anything(3) : instance($definition, $definition, pick(0, 0.1, 0.2, 0.4, 0.6), 3);

			push @batch, [ $text, json($instance), $definition, $instance ];
			$forms{$_}++ foreach keys %$forms;
		}
	}
	@answers = answers(@batch);
	foreach my $i (0 .. $#batch)
	{
		$valid++ if $answers[$i][0] eq 'true';
		next if $answers[$i][0] eq $answers[$i][1];
		next if ++$disagreements > 5;

		my ($definition, $instance) = shrink(@{ $batch[$i] }[ 2, 3 ], $answers[$i]);
		diag("we say $answers[$i][0], ajv says $answers[$i][1]:\n  definition " . json($definition) . "\n  instance " . json($instance) .
			  "\nwhich was\n  definition $batch[$i][0]\n  instance $batch[$i][1]");
	}
}

is($disagreements // 0, 0, "ajv agrees on $pairs pairs of seed $seed");
cmp_ok($valid, '>=', 0.3 * $pairs, sprintf 'enough pairs are valid: %.1f %%', 100 * $valid / $pairs);
cmp_ok($pairs - $valid, '>=', 0.3 * $pairs, '... and enough are not');
cmp_ok($forms{$_} // 0, '>=', $pairs / 40, "enough pairs with $_: " . ($forms{$_} // 0))
  foreach qw(empty ref type enum elements properties values discriminator nullable metadata additionalProperties definitions recursion);

$node->stop;
done_testing();
