# Prints calls of fuzz.check(), one a line: arbitrary bytes, arbitrary JSON, malformed definitions, deep and large ones.
#
#   perl -Itest/fuzz test/fuzz/type_definition.pl SEED COUNT
#
# After test/fuzz/type_definition.sql; each call that ends otherwise than it may is a warning with "fuzz:", and counts in fuzz.outcome.
use strict;
use warnings;

use TypeDefinition;

my ($seed, $count) = @ARGV;
srand $seed;

my @keywords = qw(ref type enum elements properties optionalProperties additionalProperties values discriminator mapping definitions
  nullable metadata event_type);
my @tokens = (split(//, '{}[]:,'), map({ "\"$_\"" } @keywords), qw("" "a" "\u0000" "\ud800" null true false 0 -1 1e400 1e200000 0.5));

# JSON as bytes.
sub bytes
{
	my ($text) = @_;

	utf8::encode($text);
	return $text;
}

# A value in which some part is replaced: by another part of it, by anything, or by a keyword's name.
sub mutated
{
	my ($value, $whole) = @_;

	return pick($whole, anything(2), {}, [], '', undef, pick(@keywords)) if chance(0.15) || !ref $value || ref $value eq 'SCALAR' || ref $value eq 'ARRAY' && !@$value;
	if (ref $value eq 'ARRAY')
	{
		my @changed = @$value;
		my $i = rand @changed;

		$changed[$i] = mutated($changed[$i], $whole);
		return \@changed;
	}

	my %changed = %$value;
	my $key = pick(sort keys %changed);

	return { pick(@keywords) => anything(1) } unless defined $key;
	if (chance(0.2)) { $changed{ pick(@keywords) } = delete $changed{$key} }
	elsif (chance(0.2)) { $changed{ pick(@keywords) } = pick(anything(1), $whole) }
	else { $changed{$key} = mutated($changed{$key}, $whole) }
	return \%changed;
}

# A text with some bytes changed, removed or doubled.
sub damaged
{
	my ($text) = @_;

	foreach (1 .. 1 + rand 3)
	{
		my $at = int rand(1 + length $text);

		substr $text, $at, $at < length $text && chance(0.7) ? 1 : 0, pick('', chr rand 256, pick(@tokens));
	}
	return $text;
}

# Something nested this deep.
sub deep
{
	my ($depth) = @_;

	return pick(
		[ '{"elements":' x $depth . '{}' . '}' x $depth, '[' x $depth . ']' x $depth ],
		[ '{"values":' x $depth . '{"type":"string"}' . '}' x $depth, '{"a":' x $depth . '1' . '}' x $depth ],
		[ '{"properties":{"a":' x $depth . '{}' . '}}' x $depth, '{"a":' x $depth . '1' . '}' x $depth ],
		[ '{"discriminator":"t","mapping":{"v":{"properties":{"a":' x $depth . '{}' . '}}}}' x $depth, '{"t":"v","a":' x $depth . '1' . '}' x $depth ],
		[ '{"definitions":{"r":{"elements":{"ref":"r"}}},"ref":"r"}', '[' x $depth . ']' x $depth ],
		[ '{"definitions":{"r":{"values":{"ref":"r"}}},"ref":"r"}', '{"a/~":' x $depth . '1' . '}' x $depth ],
		[ '{"definitions":{' . join('', map { "\"$_\":{\"ref\":\"" . ($_ + 1) . '"},' } 1 .. $depth) . '"' . ($depth + 1) . '":{"type":"int8"}},"ref":"1"}', '128' ]);
}

# Something with this many parts.
sub large
{
	my ($size) = @_;
	my @names = map { $_ . 'k' x rand 5 } 1 .. $size;

	return pick(
		[ json({ enum => \@names }), json(pick(@names)) ],
		[ json({ properties => { map { $_ => {} } @names } }), json({ map { $_ => undef } @names[ 0 .. rand @names ] }) ],
		[ json({ optionalProperties => { map { $_ => { type => 'int8' } } @names } }), json({ map { $_ => \int rand 200 } @names }) ],
		[ json({ elements => { type => 'uint8' } }), json([ map { \int rand 300 } @names ]) ],
		[ json({ values => { nullable => \'true', type => 'timestamp' } }), json({ map { $_ => undef } @names }) ],
		[ json({ discriminator => 't', mapping => { map { $_ => { properties => {} } } @names } }), json({ t => pick(@names), u => undef }) ],
		[ json({ definitions => { map { $_ => {} } @names }, ref => pick(@names) }), '1' ]);
}

# One pair, of a kind that its number chooses.
sub pair
{
	my ($number) = @_;
	my $kind = $number % 10;
	my $definition = definition();
	my $instance = instance($definition, $definition, pick(0, 0.1, 0.3), 3);

	return @{ deep(pick(5, 500, 4500, 8000, 12000)) } if $number % 200 == 7;
	return @{ large(chance(0.1) ? 20000 : 500) } if $number % 200 == 107;
	return (join('', map { chr rand 256 } 1 .. rand 40), bytes(json(anything(1)))) if $kind == 0;
	return (join('', map { pick(@tokens) } 1 .. rand 12), bytes(json(anything(1)))) if $kind == 1;
	return (damaged(bytes(json($definition))), bytes(json($instance))) if $kind == 2;
	return (bytes(json(anything(4))), bytes(json(anything(4)))) if $kind == 3;
	return (bytes(json($definition)), damaged(bytes(json($instance)))) if $kind == 4;
	return (bytes(json($definition)), bytes(json(mutated($instance, $instance)))) if $kind <= 6;
	return (bytes(json(mutated($definition, $definition))), bytes(json($instance)));
}

foreach my $number (1 .. $count)
{
	my ($definition, $instance) = pair($number);

	printf "SELECT fuzz.check('\\x%s', '\\x%s');\n", unpack('H*', $definition), unpack('H*', $instance);
}
