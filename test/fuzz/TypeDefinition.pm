# Random type definitions (RFC 8927), and random values that match them, nearly match them, or do not.
#
# Values are Perl's: hashes, arrays, strings, undef for null, and a reference to a text for what JSON writes without quotes.
# Whoever calls srand() gets the same ones again: nothing depends on the order of Perl's hashes.
package TypeDefinition;

use strict;
use warnings;
use utf8;

use Exporter 'import';
use List::Util qw(min shuffle);

our @EXPORT = qw(json definition instance anything forms pick chance);

# No names that JavaScript objects inherit, such as "constructor" or "__proto__": ajv takes them for present properties.
my @names = ('a', 'b', 'c', 'x', 'id', 'pid', 'type', 'data', 'ref', 'enum', 'Type', 'label', 'status', '', ' ', '0', 'a/b', 'm~n', '~1',
	'"', '\\', "tab\there", 'ä', 'näme', '日本', '😀', 'e' . "\x{301}", 'process_date', 'pruefidentifikator', 'z' x 40);
my @strings = ('', 'a', 'A', 'abc', 'E01', 'Z33', 'null', 'true', '12', '1.0', '20251001', 'ß', '日本語', '😀😀', "line\nbreak", "\x{1}", 'x' x 300);

my %ranges = (
	int8 => [ -128, 127 ], uint8 => [ 0, 255 ],
	int16 => [ -32768, 32767 ], uint16 => [ 0, 65535 ],
	int32 => [ -2147483648, 2147483647 ], uint32 => [ 0, 4294967295 ]);
my @types = (sort(keys %ranges), qw(boolean string string timestamp timestamp timestamp float32 float64));

sub pick { return $_[ rand @_ ] }
sub chance { return rand() < $_[0] }
sub some { my ($least, $most, @from) = @_; my $n = $least + int rand($most - $least + 1); return (shuffle @from)[ 0 .. min($n, scalar @from) - 1 ] }

# ---- JSON

my %escapes = ('"' => '\\"', '\\' => '\\\\', "\n" => '\\n', "\t" => '\\t');

# A value as JSON, in one line; keys in any order, characters as they are or escaped.
sub json
{
	my ($value) = @_;

	return 'null' unless defined $value;
	return $$value if ref $value eq 'SCALAR';
	return '[' . join(',', map { json($_) } @$value) . ']' if ref $value eq 'ARRAY';
	return '{' . join(',', map { json($_) . ':' . json($value->{$_}) } shuffle sort keys %$value) . '}' if ref $value;

	$value =~ s/(["\\\x00-\x1f])/$escapes{$1} || sprintf '\\u%04x', ord $1/ge;
	$value =~ s/([^\x00-\x7f])/join '', map { sprintf '\\u%04x', $_ } utf16(ord $1)/ge if chance(0.2);
	return "\"$value\"";
}

sub utf16
{
	my ($code) = @_;

	return $code if $code < 0x10000;
	return (0xd800 + (($code - 0x10000) >> 10), 0xdc00 + (($code - 0x10000) & 0x3ff));
}

# ---- definitions

# A definition; every ref in it comes to an end.
sub definition
{
	my @shared = some(0, 3, @names);
	my %definitions;
	my $schema;

	$definitions{ $shared[$_] } = schema(2, [ @shared[ $_ + 1 .. $#shared ] ], \@shared, 1) foreach 0 .. $#shared;
	$schema = schema(3, \@shared, \@shared, 1);
	$schema->{definitions} = \%definitions if @shared || chance(0.1);
	return $schema;
}

# A schema. It may refer to @$here itself, and to @$inside from within a container, where the value gets smaller.
sub schema
{
	my ($depth, $here, $inside, $bare) = @_;
	my @forms = qw(type type enum);
	my $form;
	my $schema = {};

	push @forms, qw(elements properties properties properties values discriminator discriminator) if $depth > 0;
	push @forms, qw(ref ref) if @$here;
	push @forms, 'empty' if chance(0.5);
	$form = pick(@forms);

	if ($form eq 'ref') { $schema->{ref} = pick(@$here) }
	elsif ($form eq 'type') { $schema->{type} = pick(@types) }
	elsif ($form eq 'enum') { $schema->{enum} = [ some(1, chance(0.05) ? 15 : 4, @strings) ] }
	elsif ($form eq 'elements') { $schema->{elements} = schema($depth - 1, $inside, $inside) }
	elsif ($form eq 'values') { $schema->{values} = schema($depth - 1, $inside, $inside, 1) }
	elsif ($form eq 'properties') { $schema = properties($depth, $inside) }
	elsif ($form eq 'discriminator')
	{
		my $tag = pick(@names);

		$schema->{discriminator} = $tag;
		$schema->{mapping} = { map { $_ => properties($depth, $inside, $tag) } some(chance(0.03) ? 0 : 1, 3, @names) };
	}

	$schema->{nullable} = \(chance(0.7) ? 'true' : 'false') if chance(0.25);
	$schema->{metadata} = metadata() if chance(0.15);
	# ajv overlooks an empty schema without any keyword: as the elements of what is no array, as a required property that is missing.
	$schema->{metadata} = metadata() if !%$schema && !$bare;
	return $schema;
}

# No keys that are keywords, in which ajv sees a schema.
sub metadata { return pick({}, { description => pick(@strings) }, { event_type => pick(@strings) }, { rust => { list => [ undef, {} ] } }) }

# A schema of the properties form, without a tag that belongs to a discriminator.
sub properties
{
	my ($depth, $inside, $tag) = @_;
	my @own = some(0, chance(0.1) ? 24 : 4, grep { !defined $tag || $_ ne $tag } @names);
	my @required = splice @own, 0, rand(@own + 1);
	my $schema = {};

	$schema->{properties} = { map { $_ => schema($depth - 1, $inside, $inside) } @required } if @required || chance(0.3);
	$schema->{optionalProperties} = { map { $_ => schema($depth - 1, $inside, $inside) } @own } if @own || !%$schema;
	$schema->{metadata} = { event_type => pick(@strings) } if defined $tag && chance(0.3);
	$schema->{nullable} = \'false' if defined $tag && chance(0.05);
	# Without any property, ajv takes additionalProperties for the empty form.
	$schema->{additionalProperties} = \(@required + @own && chance(0.6) ? 'true' : 'false') if chance(0.3);
	return $schema;
}

# Which forms and keywords a value can meet, from the root on, as the keys of a hash.
sub forms
{
	my ($schema) = @_;
	my (%found, %seen);
	my @todo = ($schema);

	$found{definitions} = 1 if $schema->{definitions};
	while (my $next = shift @todo)
	{
		my ($form) = grep { exists $next->{$_} } qw(ref type enum elements values discriminator properties optionalProperties);

		$form = !$form ? 'empty' : $form eq 'optionalProperties' ? 'properties' : $form;
		$found{$form} = 1;
		$found{nullable} = 1 if $next->{nullable} && ${ $next->{nullable} } eq 'true';
		$found{metadata} = 1 if $next->{metadata};
		$found{additionalProperties} = 1 if $next->{additionalProperties} && ${ $next->{additionalProperties} } eq 'true';
		if ($form eq 'ref' && !$seen{ $next->{ref} }++)
		{
			push @todo, $schema->{definitions}{ $next->{ref} };
			$found{recursion} = 1 if recursive($schema->{definitions}, $next->{ref});
		}
		push @todo, map { $next->{$_} // () } qw(elements values);
		push @todo, values %{ $next->{$_} || {} } foreach qw(properties optionalProperties mapping);
	}
	return \%found;
}

# Does a shared definition lead back to itself?
sub recursive
{
	my ($definitions, $name) = @_;
	my %seen;
	my @todo = refs($definitions->{$name});

	while (defined(my $ref = shift @todo))
	{
		return 1 if $ref eq $name;
		push @todo, refs($definitions->{$ref}) unless $seen{$ref}++;
	}
	return 0;
}

# The refs in a schema.
sub refs
{
	my ($schema) = @_;

	return (
		exists $schema->{ref} ? $schema->{ref} : (),
		map({ $schema->{$_} ? refs($schema->{$_}) : () } qw(elements values)),
		map({ map { refs($_) } values %{ $schema->{$_} || {} } } qw(properties optionalProperties mapping)));
}

# ---- values

# Anything, whatever the definition.
sub anything
{
	my ($depth) = @_;

	return pick(undef, \'true', \'false', \'0', \'1', \'-1', \'1.5', \'127.0', \'1e3', \'300', \'70000', \'1e20', pick(@strings), timestamp())
	  if $depth <= 0 || chance(0.5);
	return [ map { anything($depth - 1) } 1 .. rand(4) ] if chance(0.4);
	return { map { $_ => anything($depth - 1) } some(0, 3, @names) };
}

# A value of a schema, except that each part of it is wrong with this probability.
sub instance
{
	my ($definition, $schema, $wrong, $depth) = @_;

	return undef if $schema->{nullable} && ${ $schema->{nullable} } eq 'true' && chance(0.15);
	return wrong_instance($definition, $schema, $wrong, $depth) if chance($wrong);
	return instance($definition, $definition->{definitions}{ $schema->{ref} }, $wrong, $depth - 1) if exists $schema->{ref};
	return scalar_value($schema->{type}) if exists $schema->{type};
	return pick(@{ $schema->{enum} }) if exists $schema->{enum};
	return [ map { instance($definition, $schema->{elements}, $wrong, $depth - 1) } 1 .. ($depth > 0 ? rand(4) : 0) ] if exists $schema->{elements};
	return { map { $_ => instance($definition, $schema->{values}, $wrong, $depth - 1) } $depth > 0 ? some(0, 3, @names) : () }
	  if exists $schema->{values};
	if (exists $schema->{discriminator})
	{
		my $variant = pick(sort keys %{ $schema->{mapping} });

		return {} unless defined $variant;
		return { %{ object($definition, $schema->{mapping}{$variant}, $wrong, $depth, $schema->{discriminator}) }, $schema->{discriminator} => $variant };
	}
	return object($definition, $schema, $wrong, $depth) if $schema->{properties} || $schema->{optionalProperties};
	return anything(2);
}

# An object of the properties form.
sub object
{
	my ($definition, $schema, $wrong, $depth, $tag) = @_;
	my %members = (%{ $schema->{properties} || {} }, %{ $schema->{optionalProperties} || {} });
	my $object = {};

	# A required property of a recursive schema never ends.
	return {} if $depth < -3;
	foreach my $name (sort keys %members)
	{
		next if !exists(($schema->{properties} || {})->{$name}) && ($depth <= 0 || chance(0.5));
		$object->{$name} = instance($definition, $members{$name}, $wrong, $depth - 1);
	}
	if ($schema->{additionalProperties} && ${ $schema->{additionalProperties} } eq 'true')
	{
		foreach my $name (some(0, 2, @names))
		{
			$object->{$name} = anything(1) unless exists $members{$name};
		}
	}
	return $object;
}

# A value that a schema refuses, most of the time; often one that is nearly right.
sub wrong_instance
{
	my ($definition, $schema, $wrong, $depth) = @_;
	my $right;

	return anything(2) if chance(0.2) || $depth < -3;
	return undef if chance(0.1);
	return nearly($schema->{type}) if exists $schema->{type};
	$right = instance($definition, $schema, 0, $depth);
	return pick([$right], { pick(@names) => $right }) if chance(0.2);

	if (defined $right && !ref $right)
	{
		return pick(lc $right, uc $right, "$right ", substr($right, min(1, length $right)), $right . $right);
	}
	return { map { $_ => $right->[$_] } 0 .. $#$right } if ref $right eq 'ARRAY' && chance(0.3);
	push @$right, anything(1) if ref $right eq 'ARRAY';
	if (ref $right eq 'HASH')
	{
		my ($key) = exists $schema->{discriminator} && chance(0.5) ? $schema->{discriminator} : some(1, 1, sort keys %$right);

		return [ map { $right->{$_} } sort keys %$right ] if chance(0.1);
		if (!defined $key || chance(0.4)) { $right->{ pick(@names) } = anything(1) }
		elsif (chance(0.5)) { delete $right->{$key} }
		else { $right->{$key} = anything(1) }
	}
	return $right;
}

# A value of a type. Numbers are written in many ways, but so that a double holds them exactly enough, as JavaScript does.
sub scalar_value
{
	my ($type) = @_;

	return \pick('true', 'false') if $type eq 'boolean';
	return pick(@strings) if $type eq 'string';
	return timestamp() if $type eq 'timestamp';
	return \pick('0', '-0.0', '3', '-17.25', '0.1', '1e-5', '1.5E+10', '-1e300', '123456789012345678901234567890', sprintf '%.4f', rand(1000) - 500)
	  unless $ranges{$type};

	my ($minimum, $maximum) = @{ $ranges{$type} };
	my $number = pick($minimum, $maximum, 0, 1, 100, $minimum + int rand($maximum - $minimum));

	return \whole($number);
}

# A whole number, written somehow.
sub whole
{
	my ($number) = @_;

	return pick('-0', '0.0', '0e7', '-0.00') if $number == 0 && chance(0.3);
	return "$number.0" if chance(0.1);
	return $number . '0e-1' if chance(0.05) && $number != 0;
	return $1 . 'e' . length $2 if chance(0.1) && $number =~ /^(-?\d+?)(0+)$/ && $1 ne '-0' && $1 ne '0';
	return sprintf '%s.%se%d', $1, $2, length $2 if chance(0.05) && $number =~ /^(-?[1-9])(\d+)$/;
	return "$number";
}

# A value that a type nearly has.
sub nearly
{
	my ($type) = @_;

	return pick('true', \'0', \'1') if $type eq 'boolean';
	return pick(\'1', \'true', ['a']) if $type eq 'string';
	return bad_timestamp() if $type eq 'timestamp';
	return pick('1', '1.5', \'true') unless $ranges{$type};

	my ($minimum, $maximum) = @{ $ranges{$type} };
	return pick(\whole($minimum - 1), \whole($maximum + 1), \"$maximum.5", \"$minimum.25", \'0.5', \'-1.5', \'15e-1', \'1e10', \'-1e10', \'1e300',
		"$maximum", '0', \'true');
}

sub days
{
	my ($year, $month) = @_;

	return 28 + ($year % 4 == 0 && ($year % 100 != 0 || $year % 400 == 0)) if $month == 2;
	return (31, 0, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)[ $month - 1 ];
}

# A timestamp by RFC 3339.
sub timestamp
{
	my ($year, $month) = (pick(0, 1, 1900, 1999, 2000, 2023, 2024, 2100, 2400, 9999, int rand 10000), 1 + int rand 12);
	my $day = pick(1, days($year, $month), 1 + int rand days($year, $month));
	my ($hour, $minute, $second) = (pick(0, 23, int rand 24), pick(0, 59, int rand 60), pick(0, 59, int rand 60));
	my $offset = pick('Z', 'Z', 'z', sprintf '%s%02d:%02d', pick('+', '-'), pick(0, 23, int rand 24), pick(0, 30, 59));

	# A leap second. ajv looks for it in the local hour and minute less the offset's, which is right for these only.
	if (chance(0.05))
	{
		my $west = int rand 24;

		($hour, $minute, $second, $offset) = (23 - $west, 59, 60, $west || chance(0.5) ? sprintf('-%02d:00', $west) : 'Z');
	}
	return sprintf '%04d-%02d-%02d%s%02d:%02d:%02d%s%s', $year, $month, $day, pick('T', 'T', 'T', 't'), $hour, $minute, $second,
	  chance(0.4) ? '.' . join '', map { int rand 10 } 1 .. 1 + rand 12 : '', $offset;
}

# A text that is nearly a timestamp. Not among them is what ajv takes for one against the RFC: white space instead of T; offsets without
# colon or minutes, or beyond 23:59. Nor what only the RFC takes for one: leap seconds whose UTC is on another day or has another minute.
sub bad_timestamp
{
	my $right = '2024-02-29T12:30:45.5Z';

	return pick('2023-02-29T00:00:00Z', '1900-02-29T00:00:00Z', '2024-02-30T00:00:00Z', '2024-04-31T00:00:00Z', '2024-00-01T00:00:00Z',
		'2024-13-01T00:00:00Z', '2024-01-00T00:00:00Z', '2024-01-32T00:00:00Z', '2024-01-01T24:00:00Z', '2024-01-01T00:60:00Z',
		'2024-01-01T00:00:61Z', '2024-01-01T12:59:60Z', '2024-01-01T23:58:60Z', '2024-01-01T23:59:60+01:00', '2024-01-01T23:59:60-01:00',
		'2024-01-01T00:00:00', '2024-01-01', '00:00:00Z', '2024-01-01T00:00Z', '2024-01-01T00:00:00.Z', '2024-01-01T00:00:00,5Z',
		'2024-1-01T00:00:00Z', '2024-01-01_00:00:00Z', '12024-01-01T00:00:00Z', '-2024-01-01T00:00:00Z', '2024-01-01T00:00:00+1:00',
		'2024-01-01T00:00:00Z+01:00', '2024-01-01T00:00:00+01:000', '2024-01-01T00:00:00ZZ', ' 2024-01-01T00:00:00Z', "2024-01-01T00:00:00Z\n",
		'٢٠٢٤-01-01T00:00:00Z', '2024-01-01T00:00:00+', '2024/01/01T00:00:00Z', '20240101T000000Z', '', 'T', 'now', '1704067200',
		substr($right, 0, rand length $right), \'1704067200', \'true', [$right]);
}

1;
