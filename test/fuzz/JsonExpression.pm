# Random programs in the style of apply functions, and random documents that they find something in.
#
# A program is an apply function, at times also upcast and migrate, and the helper functions that they call, each of them a tree of
# expressions. Documents and expressions share a small vocabulary, in which most keys have a kind of value of their own. What can fail
# is guarded most of the time: half of all evaluations and more give a value.
#
# A node of a tree is a hash:
#   type        of its value; a node can take the place of another one of the same type
#   op          which operation it stands for, for statistics
#   sql         its text, in which {1}, {2} ... are its children; for a leaf just its text
#   kids        its children
#   lazy_sql    another text for it, without the function or subselect in it
#   value       of a leaf of type jsonb: a reference to the document
# and instead of sql, in the places where values have names:
#   param       the number of an argument of the helper around it
#   bound       the name of a value that a node "let" around it binds
#   let         list of [name, node]: values in FROM-less subselects, of which the only child is an expression
#   helper      the name of a helper that it calls with its children
#
# A program can be written out in two ways: with its helpers called, and with the bodies of those in SQL in the place of the calls.
# Whoever calls srand() gets the same ones again: nothing depends on the order of Perl's hashes.
package JsonExpression;

use strict;
use warnings;
use utf8;

use Exporter 'import';
use TypeDefinition qw(json pick chance);

our @EXPORT = qw(event program statements operations program_size shrunk_program shrunk_document quoted);

# ---- the vocabulary

# Keys by the kind of value that they have most of the time.
my %keys = (
	string => [qw(status type name s)],
	number => [qw(n count amount)],
	boolean => [qw(flag ok)],
	object => [qw(data meta o)],
	array => [qw(list items)],
	any => [ 'a', 'b', 'aa', 'ab', 'ba', 'A', '', ' ', '0', '1', '-1', 'ä', "a\x{308}", '日本', '😀', '"', '\\', "tab\t",
		q{'}, 'k' x 40, 'long' x 75 ]);
my @kinds = sort keys %keys;

my @strings = ('', 'a', 'b', 'abc', 'New', 'NEW', 'Active', 'Closed', 'true', 'null', '12', '-7', '1.50', '1e3', 'ß', '日本語', '😀😀',
	"line\nbreak", "\x{1}", q{it's}, 'back\\slash', '"quoted"', '{"a": 1}', '[1, 2]', 'x' x 130, '2024-02-29');
my @numbers = ('0', '1', '2', '3', '-1', '7', '42', '1.0', '1.00', '1.50', '-2.5', '0.1', '1e5', '-0', '-0.0', '1E-7', '1e-20', '12345',
	'2147483648', '9007199254740993', '123456789012345678901234567890', '0.00', '100.000', '1e30', '3.141592653589793238462643383279');
my @event_types = qw(Opened Changed Noted Closed Failed);
my @typeofs = qw(object array string number boolean null);

# Types of SQL values that are no JSON, each with constants.
my %constants = (
	int => [ '0', '1', '2', '3', '(-1)', '(-2)', '10', '100000' ],
	bigint => [ '1::bigint', '5000000000', '(-9223372036854775807)' ],
	numeric => [ '1.0', '1.00', '0.5', '(-2.50)', '12345678901234567890.123', '1e-20', '100::numeric' ],
	float8 => [ '1.5::float8', '1e100::float8', '0.1::float8', "'-0'::float8" ],
	smallint => [ '1::smallint', '(-2)::smallint' ],
	real => [ '1.5::real', '1e10::real', '0.1::real' ],
	boolean => [qw(true false)],
	timestamptz => [ "timestamptz '2024-03-01 12:00:00+01'", "timestamptz '1999-12-31 23:59:59.123456+00'", "timestamptz 'infinity'" ],
	timestamp => [ "timestamp '2024-03-01 12:00:00'", "timestamp '0044-03-15 12:00:00 BC'" ],
	date => [ "date '2024-02-29'", "date 'infinity'" ],
	time => ["time '12:30:45.5'"],
	uuid => ["uuid '6ccd780c-baba-1026-9564-5b8c656024db'"],
	'int[]' => [ 'ARRAY[1, 2, NULL]', "'{}'::int[]", 'ARRAY[[1, 2], [3, 4]]' ],
	'text[]' => [ "ARRAY['a', NULL, 'b c', '\"']", "'{}'::text[]" ],
	json => [ q('{"b":1, "a" : [1.0,  2] , "b":2}'::json), q('"\\u00e4"'::json), "'null'::json" ],
	record => [ "ROW(1, 'a'::text, NULL::text)", 'ROW(1.50, true)' ],
	bytea => [q('\\x00ff'::bytea)],
	special => [ "'NaN'::numeric", "'Infinity'::float8", "'NaN'::float8" ]);

# What a number must not exceed to be of a type.
my %limits = (bigint => '1e18', float8 => '1e300', numeric => '1e1000', smallint => '3e4', real => '1e30');

sub some { my ($least, $most, $make) = @_; return map { $make->() } 1 .. $least + int rand($most - $least + 1) }

# A text as an SQL literal.
sub quoted
{
	my ($text) = @_;

	$text =~ s/'/''/g;
	return "'$text'";
}

# ---- documents

# A scalar of a kind.
sub scalar_of
{
	my ($kind) = @_;

	return \pick(@numbers) if $kind eq 'number';
	return \pick('true', 'false') if $kind eq 'boolean';
	return pick(@strings) if $kind eq 'string' && chance(0.98);
	# Short headers end at 126 bytes; from 2 kB on a row is compressed, and what cannot be goes out of line.
	return chance(0.5) ? 'z' x pick(127, 1000, 4000) : join('', map { sprintf '%08x', rand 2**32 } 1 .. 20 + rand 500) if $kind eq 'string';
	return pick(undef, \pick(@numbers), \pick('true', 'false'), pick(@strings));
}

# A value of a kind, except that now and then it is of another one.
sub value_of
{
	my ($kind, $depth) = @_;

	$kind = pick(@kinds) if $kind eq 'any' || chance(0.07);
	return undef if chance(0.05);
	return object_of($depth) if $kind eq 'object';
	return [ map { value_of(pick('any', 'number', 'string'), $depth - 1) } 1 .. rand 5 ] if $kind eq 'array';
	return scalar_of($kind);
}

# An object that has most of the keys that have a kind, and few of the others.
sub object_of
{
	my ($depth) = @_;
	my %object;

	return {} if chance(0.08);
	foreach my $kind (@kinds)
	{
		next if $depth <= 0 && $kind eq 'object';
		foreach my $key (@{ $keys{$kind} })
		{
			$object{$key} = value_of($kind, $depth - 1) if chance($kind eq 'any' ? 0.12 : $depth > 1 ? 0.75 : 0.5);
		}
	}
	if (chance(0.03))
	{
		my $width = pick(2, 3, 7);

		$object{ sprintf "k%0${width}d", $_ } = scalar_of('any') foreach 1 .. pick(30, 70, 99, 150);
	}
	return \%object;
}

# A document: an object most of the time.
sub document
{
	my ($depth) = @_;

	return chance(0.94) ? object_of($depth) : value_of(pick(@kinds), $depth);
}

# The type, schema version and payload of an event.
sub event { return [ chance(0.03) ? 'Unheard' : pick(@event_types), chance(0.98) ? 1 : 2, document(3) ] }

# ---- nodes

sub node { my ($type, $op, $sql, @kids) = @_; return { type => $type, op => $op, sql => $sql, kids => \@kids } }
sub leaf { my ($type, $sql) = @_; return node($type, 'constant', $sql) }
sub text_leaf { return leaf('text', quoted(pick(@strings[ 0 .. $#strings - 1 ])) . '::text') }
sub jsonb_leaf { my ($value) = @_; return { %{ leaf('jsonb', quoted(json($value)) . '::jsonb') }, value => \$value } }

# A key of a kind, as a literal.
sub key_of { my ($kind) = @_; return pick(@{ $keys{ chance(0.9) ? $kind : pick(@kinds) } }) }
sub key_leaf { my ($kind) = @_; return leaf('key', quoted(key_of($kind))) }

# The name of a value that can be read, of a type; or undef. A payload has more to find than most states.
sub variable
{
	my ($g, $type) = @_;
	my @found = map { $_->{op} eq 'payload' ? ($_, $_) : $_ } grep { $_->{type} eq $type } @{ $g->{variables} };

	return @found ? pick(@found) : undef;
}

# An expression of a type that may fail, guarded by a condition most of the time. Both may use {1}; it is written twice.
sub guarded
{
	my ($g, $type, $op, $condition, $sql, @kids) = @_;

	return node($type, $op, chance($g->{careful}) ? "(CASE WHEN $condition THEN $sql END)" : $sql, @kids);
}

# An expression that gives an object most of the time.
sub object_source
{
	my ($g, $depth) = @_;

	return node('jsonb', '->', '({1} -> {2})', object_source($g, $depth - 1), key_leaf('object')) if $depth > 0 && chance(0.25);
	return variable($g, 'jsonb') // jsonb_leaf(object_of(1));
}

# A path to a value of a kind, as an array of text.
sub path_of
{
	my ($g, $kind) = @_;
	my @steps = ((map { key_of('object') } 1 .. rand 2), key_of($kind));

	push @steps, pick('0', '1', '-1', '5') if $kind eq 'array' && chance(0.5);
	push @steps, pick('zz', '0', '') if chance(0.03);
	return leaf('text[]', "'{}'::text[]") if chance(0.02);
	return leaf('text[]', 'ARRAY[' . join(', ', map { quoted($_) } @steps) . ']') if chance(0.8);
	return node('text[]', 'path', 'ARRAY[' . join(', ', map { "{$_}" } 1 .. @steps) . ']',
		map { chance(0.3) ? text($g, 1) : leaf('text', quoted($_) . '::text') } @steps);
}

# The value of a kind at a path, in one of the many ways to read one.
sub at
{
	my ($g, $kind) = @_;
	my $source = object_source($g, 2);
	my $way = rand;

	return node('jsonb', '->', '({1} -> {2})', $source, key_leaf($kind)) if $way < 0.45;
	return node('jsonb', '#>', '({1} #> {2})', $source, path_of($g, $kind)) if $way < 0.6;
	return node('jsonb', 'subscript', '({1})[{2}]', $source, key_leaf($kind)) if $way < 0.68 && $g->{version} >= 14;
	return node('jsonb', 'subscript', '({1})[{2}][{3}]', $source, key_leaf('array'), leaf('int', pick('0', '1', '(-1)')))
	  if $way < 0.72 && $g->{version} >= 14;
	return node('jsonb', '-> index', '({1} -> {2} -> {3})', $source, key_leaf('array'), int_value($g, 0)) if $way < 0.8;
	return node('jsonb', 'jsonb_extract_path', 'jsonb_extract_path({1}, {2})', $source, key_leaf($kind)) if $way < 0.84;
	return node('jsonb', 'jsonb_extract_path', 'jsonb_extract_path({1}, VARIADIC {2})', $source, path_of($g, $kind)) if $way < 0.88;
	return node('jsonb', '->', '({1} -> {2})', $source, text($g, 1)) if $way < 0.92;
	return node('jsonb', '->', 'jsonb_object_field({1}, {2})', $source, key_leaf($kind)) if $way < 0.94;
	return guarded($g, 'jsonb', 'mako_required', '{1} ? {2}', 'mako_required({1}, {2})', $source, key_leaf($kind)) if $way < 0.97;
	return guarded($g, 'jsonb', 'mako_required', '({1} #> {2}) IS NOT NULL', 'mako_required({1}, VARIADIC {2})', $source, path_of($g, $kind));
}

# The same as text.
sub at_text
{
	my ($g, $kind) = @_;
	my $source = object_source($g, 2);
	my $way = rand;

	return node('text', '->>', '({1} ->> {2})', $source, key_leaf($kind)) if $way < 0.55;
	return node('text', '#>>', '({1} #>> {2})', $source, path_of($g, $kind)) if $way < 0.75;
	return node('text', '#>>', "({1} #>> '{}')", at($g, $kind)) if $way < 0.8;
	return node('text', '->> index', '({1} -> {2} ->> {3})', $source, key_leaf('array'), int_value($g, 0)) if $way < 0.87;
	return node('text', 'jsonb_extract_path_text', 'jsonb_extract_path_text({1}, {2}, {3})', $source, key_leaf('object'), key_leaf($kind))
	  if $way < 0.92;
	return node('text', 'jsonb_extract_path_text', 'jsonb_extract_path_text({1}, VARIADIC {2})', $source, path_of($g, $kind)) if $way < 0.96;
	return node('text', '->>', '({1} ->> {2})', $source, text($g, 1));
}

# CASE, COALESCE and the like over a type, as they are for every type; undef when it is none of them.
sub choice
{
	my ($g, $type, $depth) = @_;
	my $make = sub { expression($g, $type, $depth - 1) };
	my $way = chance(0.4) ? 1 : rand;

	if ($way == 1)
	{
		my $call = call($g, $type, $depth);

		return $call if $call;
		$way = rand;
	}

	return text_case($g, $type, $depth) if chance(0.25);
	return node($type, 'CASE WHEN', '(CASE WHEN {1} THEN {2} ELSE {3} END)', boolean($g, $depth - 1), $make->(), $make->()) if $way < 0.2;
	return node($type, 'CASE WHEN', '(CASE WHEN {1} THEN {2} WHEN {3} THEN {4} END)',
		boolean($g, $depth - 1), $make->(), boolean($g, $depth - 1), $make->()) if $way < 0.25;
	return node($type, 'CASE x', '(CASE {1} WHEN {2} THEN {3} WHEN {4} THEN {5} ELSE {6} END)',
		at_text($g, 'string'), text_leaf(), $make->(), text($g, 1), $make->(), $make->()) if $way < 0.33;
	return node($type, 'CASE x', '(CASE {1} WHEN {2} THEN {3} ELSE {4} END)', at($g, 'any'), jsonb_leaf(scalar_of('any')), $make->(),
		$make->())
	  if $way < 0.38;
	return node($type, 'COALESCE', '(COALESCE({1}, {2}))', $make->(), $make->()) if $way < 0.65;
	return node($type, 'COALESCE', '(COALESCE({1}, {2}, {3}))', $make->(), $make->(), $make->()) if $way < 0.7;
	return node($type, 'NULLIF', '(NULLIF({1}, {2}))', $make->(), $make->()) if $way < 0.78;
	return node($type, 'GREATEST', '(GREATEST({1}, {2}))', $make->(), $make->()) if $way < 0.82 && ($type ne 'jsonb' || $g->{exotic});
	return node($type, 'LEAST', '(LEAST({1}, {2}, {3}))', $make->(), $make->(), $make->())
	  if $way < 0.84 && ($type ne 'jsonb' || $g->{exotic});
	return let($g, $type, $depth) if $way < 0.9;
	return { %{ node($type, '(SELECT x)', '(SELECT {1})', $make->()) }, lazy_sql => '({1})' } if $way < 0.93;
	return { %{ node($type, 'polymorphic', 'fuzz.otherwise({1}, {2})', $make->(), $make->()) },
		lazy_sql => '(CASE WHEN {1} IS NULL THEN {2} ELSE {1} END)' }
	  if $way < 0.96;
	return undef;
}

# A text to test, and what makes constants that it may be equal to: the number, truth or text of a field, the event type, or whatever else.
sub tested
{
	my ($g) = @_;
	my $kind = pick('string', 'string', 'string', 'number', 'boolean', 'object', 'array', 'any');
	my $variable = chance(0.4) ? variable($g, 'text') : undef;
	my @likely = $variable ? @event_types : $kind eq 'number' ? @numbers : $kind eq 'boolean' ? ('true', 'false') :
	  $kind =~ /object|array/ ? ('{}', '[]', '[1, 2]') : @strings[ 0 .. 7 ];

	return ($variable // (chance(0.85) ? at_text($g, $kind) : text($g, 1)),
		sub { return chance(0.9) ? leaf('text', quoted(pick(@likely)) . '::text') : text_leaf() });
}

# The comparison of the text {1} with constants, whose numbers follow. Returns SQL and the constants.
sub comparison
{
	my ($number, $constant) = @_;
	my $way = rand;
	my @constants = map { $constant->() } 1 .. ($way < 0.5 ? 1 : rand 5);
	my $list;

	push @constants, leaf('text', 'NULL::text') if $way >= 0.5 && (!@constants || chance(0.15));
	$list = join ', ', map { '{' . ($number + $_) . '}' } 1 .. @constants;
	return ("{1} = $list", @constants) if $way < 0.35;
	return ("$list = {1}", @constants) if $way < 0.4;
	return ("{1} <> $list", @constants) if $way < 0.5;
	return ("{1} IN ($list)", @constants) if $way < 0.75;
	return ("{1} NOT IN ($list)", @constants) if $way < 0.85;
	return ('{1} ' . pick('= ANY', '<> ALL', '<> ANY', '= ALL') . " (ARRAY[$list])", @constants);
}

# A CASE that asks again and again what one text is, in its own ELSE, too; constants are repeated.
sub text_case
{
	my ($g, $type, $depth) = @_;
	my ($test, $constant) = tested($g);
	my @kids = ($test);
	my $add = sub { push @kids, @_; return '{' . @kids . '}' };
	my $result = sub { return $add->(chance(0.7) ? expression($g, $type, 0) : expression($g, $type, $depth - 1)) };
	my $make;

	$make = sub {
		my ($levels) = @_;
		my $simple = chance(0.5);
		my $sql = $simple ? 'CASE {1}' : 'CASE';

		foreach (1 .. 1 + rand($simple ? 5 : 3))
		{
			my ($condition, @constants) = $simple ? ('{' . (@kids + 1) . '}', $constant->()) : comparison(scalar @kids, $constant);

			if (chance(0.06)) { ($condition, @constants) = ('{' . (@kids + 1) . '}', $simple ? text($g, 0) : boolean($g, 0)) }
			push @kids, @constants;
			$sql .= " WHEN $condition THEN " . ($levels > 0 && chance(0.15) ? $make->($levels - 1) : $result->());
		}
		$sql .= ' ELSE ' . ($levels > 0 && chance(0.5) ? $make->($levels - 1) : $result->()) if chance(0.85);
		return "($sql END)";
	};
	my $sql = $make->(2);

	return node($type, 'CASE text', $sql, @kids);
}

# A call of a helper that returns a type, or undef when there is none.
sub call
{
	my ($g, $type, $depth) = @_;
	my @found = grep { $_->{returns} eq $type } @{ $g->{helpers} };
	return @found ? call_of($g, pick(@found), $depth) : undef;
}

# A call of a helper.
sub call_of
{
	my ($g, $helper, $depth) = @_;

	return {
		type => $helper->{returns}, op => "helper $helper->{form}", helper => $helper->{name},
		kids => [ map { $_ eq 'jsonb' && chance(0.5) ? object_source($g, 1) : expression($g, $_, $depth - 1) } @{ $helper->{arguments} } ] };
}

# Values with names in FROM-less subselects, each of which may use those before it, and an expression over them.
sub let
{
	my ($g, $type, $depth) = @_;
	my $inner = { %$g, variables => [ @{ $g->{variables} } ] };
	my @values;

	foreach my $of (some(1, 3, sub { pick('jsonb', 'jsonb', 'text', 'int') }))
	{
		my $name = 'v' . ++$g->{names}[0];

		push @values, [ $name, $of eq 'jsonb' && chance(0.7) ? at($inner, pick('object', 'array', 'any')) : expression($inner, $of, $depth - 1) ];
		# Several times, so that they are used more often than what is outside.
		push @{ $inner->{variables} }, map { { type => $of, op => 'bound', bound => $name, kids => [] } } 1 .. 2;
	}
	return { type => $type, op => 'let', let => \@values, style => pick('lateral', 'nested', 'values'),
		kids => [ expression($inner, $type, $depth - 1) ] };
}

# ---- expressions by type

# An expression of a type.
sub expression
{
	my ($g, $type, $depth) = @_;

	return jsonb($g, $depth, 'any') if $type eq 'jsonb';
	return text($g, $depth) if $type eq 'text';
	return boolean($g, $depth) if $type eq 'boolean';
	return int_value($g, $depth) if $type eq 'int';
	return number($g, $type, $depth) if $limits{$type};
	return leaf($type, pick(@{ $constants{$type} }));
}

# A value of any type, as an argument of what takes all of them, even literals whose type is unknown unless it must be typed.
sub value
{
	my ($g, $depth, $typed) = @_;
	my $way = rand;

	return jsonb($g, $depth, 'any') if $way < 0.42;
	return text($g, $depth) if $way < 0.54;
	return boolean($g, $depth) if $way < 0.68;
	return expression($g, pick(qw(int int bigint bigint numeric float8 float8 smallint smallint real real)), $depth) if $way < 0.85;
	return leaf('literal', pick('NULL::text', 'NULL::jsonb', 'NULL::int', 'NULL::json', $typed ? () : ("'abc'", 'NULL', "''"))) if $way < 0.88;
	return node('array', 'array', 'ARRAY[{1}, {2}]', jsonb($g, $depth - 1, 'any'), jsonb($g, 0, 'any')) if $way < 0.89 && $depth > 0;
	return node('row', 'ROW', 'ROW({1}, {2}, {3})', jsonb($g, $depth - 1, 'any'), int_value($g, 0), text($g, 0)) if $way < 0.91 && $depth > 0;
	return node('pair', 'ROW', 'ROW({1}, {2})::fuzz.pair', text($g, 0), jsonb($g, 0, 'any')) if $way < 0.92;
	return expression($g, pick(grep { !$limits{$_} && !/^(int|boolean)$/ } sort keys %constants), 0);
}

# A jsonb expression of a kind; the kind is what it is most of the time.
sub jsonb
{
	my ($g, $depth, $kind) = @_;
	my $way = rand;

	if ($depth <= 0)
	{
		return jsonb_leaf(value_of($kind, 1)) if $way < 0.15;
		return object_source($g, 0) if $way < 0.3 && ($kind eq 'any' || $kind eq 'object');
		return at($g, $kind);
	}
	if ($way < 0.22)
	{
		my $chosen = choice($g, 'jsonb', $depth);

		return $chosen if $chosen;
	}
	return exotic_jsonb($g, $depth) if $g->{exotic} && $way > 0.8;
	return at($g, $kind) if $way < 0.35;
	return build_object($g, $depth) if $way < 0.47 && $kind ne 'array';
	return build_array($g, $depth) if $way < 0.55 && $kind ne 'object';
	return changed($g, $depth) if $way < 0.85;
	return node('jsonb', 'to_jsonb', 'to_jsonb({1})', value($g, $depth - 1, 'typed')) if $way < 0.93;
	return node('jsonb', 'mako_reject', 'mako_reject({1})', text($g, 1)) if $way > 0.995;
	return node('jsonb', 'mako_reject', "(CASE WHEN {1} THEN mako_reject({2}) ELSE {3} END)",
		node('boolean', '=', '({1} = {2})', at_text($g, 'string'), text_leaf()), text_leaf(), jsonb($g, $depth - 1, 'any')) if $way < 0.95;
	return jsonb_leaf(value_of($kind, 2)) if $way < 0.98;
	return object_source($g, 1);
}

# An object of values of any type.
sub build_object
{
	my ($g, $depth) = @_;
	my @kids = map { key_argument($g), value($g, $depth - 1) } 1 .. (chance(0.08) ? 0 : 1 + rand 4);

	return node('jsonb', 'jsonb_build_object', 'jsonb_build_object(VARIADIC {1})', leaf('text[]', "ARRAY['a', 'x', 'b', NULL, 'a', 'z']"))
	  if chance(0.02);
	pop @kids if @kids && chance(0.003);
	return node('jsonb', 'jsonb_build_object', 'jsonb_build_object(' . join(', ', map { "{$_}" } 1 .. @kids) . ')', @kids);
}

# A key of jsonb_build_object(): of any type, and rarely one that is refused.
sub key_argument
{
	my ($g) = @_;

	return key_leaf(pick(@kinds)) if chance(0.85);
	return node('text', 'COALESCE', "(COALESCE({1}, 'none'))", text($g, 1)) if chance(0.6);
	return leaf('literal', pick('1', '1.50', 'true', "date '2024-02-29'", "uuid '6ccd780c-baba-1026-9564-5b8c656024db'", '(-0.5)::float8'))
	  if chance(0.9);
	return text($g, 0) if chance(0.7);
	return leaf('literal', pick('NULL', "'{}'::json", 'ARRAY[1]', "'{}'::jsonb", "'1'::jsonb", 'NULL::text'));
}

sub build_array
{
	my ($g, $depth) = @_;
	my @kids = map { value($g, $depth - 1) } 1 .. (chance(0.2) ? 0 : 1 + rand 4);

	return node('jsonb', 'jsonb_build_array', 'jsonb_build_array(VARIADIC {1})', leaf('int[]', 'ARRAY[3, NULL, 1]')) if chance(0.03);
	return node('jsonb', 'jsonb_build_array', 'jsonb_build_array(VARIADIC {1})',
		node('jsonb[]', 'array', 'ARRAY[{1}, {2}]', at($g, 'any'), object_source($g, 0)))
	  if chance(0.03);
	return node('jsonb', 'jsonb_build_array', 'jsonb_build_array(' . join(', ', map { "{$_}" } 1 .. @kids) . ')', @kids);
}

# A value made from another one.
sub changed
{
	my ($g, $depth) = @_;
	my $object = chance(0.6) ? object_source($g, 1) : jsonb($g, $depth - 1, 'object');
	my ($is_object, $is_array) = map { "jsonb_typeof({1}) = '$_'" } 'object', 'array';
	my $way = rand;

	return node('jsonb', '||', '({1} || {2})', $object, chance(0.6) ? build_object($g, $depth - 1) : jsonb($g, $depth - 1, 'object'))
	  if $way < 0.2;
	return node('jsonb', '||', '({1} || {2})', at($g, 'array'), jsonb($g, $depth - 1, 'any')) if $way < 0.25;
	return guarded($g, 'jsonb', '- key', $is_object, '({1} - {2})', $object, chance(0.8) ? key_leaf(pick(@kinds)) : text($g, 0))
	  if $way < 0.31;
	return guarded($g, 'jsonb', '- key', $is_array, '({1} - {2})', at($g, 'array'), text_leaf()) if $way < 0.33;
	return guarded($g, 'jsonb', '- index', $is_array, '({1} - {2})', at($g, 'array'), int_value($g, 0)) if $way < 0.44;
	return guarded($g, 'jsonb', '- array', $is_object, '({1} - {2})', $object, keys_of($g)) if $way < 0.49;
	return guarded($g, 'jsonb', '#-', $is_object, '({1} #- {2})', $object, path_of($g, pick(@kinds, 'array'))) if $way < 0.55;
	return guarded($g, 'jsonb', '#-', $is_array, '({1} #- {2})', at($g, 'array'), leaf('text[]', index_path())) if $way < 0.57;
	return guarded($g, 'jsonb', 'jsonb_set', $is_object, 'jsonb_set({1}, {2}, {3})', $object, path_of($g, pick(@kinds)),
		jsonb($g, $depth - 1, 'any')) if $way < 0.66;
	return guarded($g, 'jsonb', 'jsonb_set', $is_object, 'jsonb_set({1}, {2}, {3}, {4})', $object, path_of($g, pick(@kinds)),
		jsonb($g, $depth - 1, 'any'),
		boolean($g, 0)) if $way < 0.72;
	return guarded($g, 'jsonb', 'jsonb_set', $is_array, 'jsonb_set({1}, {2}, {3}, {4})', at($g, 'array'), leaf('text[]', index_path()),
		jsonb($g, $depth - 1, 'any'), leaf('boolean', pick('true', 'false'))) if $way < 0.76;
	return guarded($g, 'jsonb', 'jsonb_insert', "$is_object AND ({1} #> {2}) IS NULL", 'jsonb_insert({1}, {2}, {3})', $object,
		path_of($g, pick(@kinds)),
		jsonb($g, $depth - 1, 'any')) if $way < 0.83;
	return guarded($g, 'jsonb', 'jsonb_insert', $is_array, 'jsonb_insert({1}, {2}, {3}, {4})', at($g, 'array'), leaf('text[]', index_path()),
		jsonb($g, $depth - 1, 'any'), leaf('boolean', pick('true', 'false'))) if $way < 0.89;
	return node('jsonb', 'jsonb_strip_nulls', 'jsonb_strip_nulls({1})', $object) if $way < 0.96;
	return node('jsonb', '||', '({1} || {2})', jsonb($g, $depth - 1, 'any'), jsonb($g, $depth - 1, 'any'));
}

# A path into an array.
sub index_path { return quoted(pick(('{0}', '{-1}', '{1}') x 3, '{7}', '{-7}', '{1,a}', '{0,0}', '{x}')) . '::text[]' }

# Keys as an array of text.
sub keys_of
{
	my ($g) = @_;
	my @names = some(0, 4, sub { key_of(pick(@kinds)) });

	return node('text[]', 'path', 'ARRAY[{1}, {2}]', text($g, 0), text_leaf()) if chance(0.2);
	return leaf('text[]', 'ARRAY[' . join(', ', (map { quoted($_) } @names), chance(0.1) ? 'NULL' : ()) . ']::text[]');
}

# What the server evaluates with functions of its own that know no expanded value, and where values leave and come back.
sub exotic_jsonb
{
	my ($g, $depth) = @_;
	my $inner = jsonb($g, $depth - 1, 'any');
	my $way = int rand 16;

	return node('jsonb', 'jsonpath', 'jsonb_path_query_first({1}, ' . pick(q('$.data.*'), q('$.list[last]'), q('$.a'),
		q('$.n ? (@ > 1)')) . ')', $inner)
	  if $way == 0;
	return node('jsonb', '::text::jsonb', '{1}::text::jsonb', $inner) if $way == 1;
	return node('jsonb', 'jsonb_pretty', 'jsonb_pretty({1})::jsonb', $inner) if $way == 2;
	return node('jsonb', '::json', '{1}::json::jsonb', $inner) if $way == 3;
	return node('jsonb', 'record', '((CASE WHEN {1} THEN ROW({2}, {3})::fuzz.pair ELSE ROW({2}, {4})::fuzz.pair END).value)',
		boolean($g, 0), text($g, 0), $inner, jsonb($g, 0, 'any')) if $way == 4;
	return node('jsonb', 'array', '((ARRAY[{1}, {2}])[{3}])', $inner, jsonb($g, 0, 'any'), leaf('int', pick(1, 2))) if $way == 5;
	return node('jsonb', 'domain', '(CASE WHEN jsonb_typeof({1}) <> \'string\' THEN {1} END)::fuzz.document::jsonb', at($g, 'any'))
	  if $way == 6;
	return node('jsonb', 'domain', '{1}::fuzz.document::jsonb', object_source($g, 1)) if $way == 7;
	return node('jsonb', 'PL/pgSQL', 'fuzz.pl_echo({1})', $inner) if $way == 8;
	return node('jsonb', 'PL/pgSQL', '(fuzz.pl_pair({1}, {2})).value', text($g, 0), $inner) if $way == 9;
	return node('jsonb', 'PL/pgSQL', 'fuzz.pl_merge({1}, {2})', $inner, jsonb($g, 0, 'object')) if $way == 10;
	return node('jsonb', 'PL/pgSQL', 'fuzz.pl_caught({1}, {2})', $inner, key_leaf('any')) if $way == 11;
	return node('jsonb', 'PL/pgSQL', 'fuzz.pl_array(ARRAY[{1}, {2}])', $inner, jsonb($g, 0, 'any')) if $way == 12;
	return node('jsonb', 'jsonb_set_lax', "jsonb_set_lax({1}, {2}, {3}, true, 'delete_key')", object_source($g, 0), path_of($g, 'string'),
		$inner)
	  if $way == 13;
	return node('jsonb', 'populate', '((jsonb_populate_record(NULL::fuzz.pair, {1})).value)', build_object($g, 1)) if $way == 14;
	return node('jsonb', 'GREATEST', '(GREATEST({1}, {2}))', $inner, jsonb($g, 0, 'any'));
}

sub text
{
	my ($g, $depth) = @_;
	my $way = rand;

	if ($depth <= 0)
	{
		my $variable = $way < 0.3 ? variable($g, 'text') : undef;

		return $variable // ($way < 0.5 ? text_leaf() : at_text($g, pick('string', 'string', 'string', 'any')));
	}
	if ($way < 0.15)
	{
		my $chosen = choice($g, 'text', $depth);

		return $chosen if $chosen;
	}
	return at_text($g, pick('string', 'string', @kinds)) if $way < 0.5;
	return node('text', 'jsonb_typeof', 'jsonb_typeof({1})', jsonb($g, $depth - 1, pick(@kinds))) if $way < 0.58;
	return node('text', 'upper', pick('upper', 'lower', 'md5', 'reverse') . '({1})', text($g, $depth - 1)) if $way < 0.65;
	return node('text', 'substr', 'substr({1}, {2}, 3)', text($g, $depth - 1), leaf('int', pick('1', '2', '0', '(-1)'))) if $way < 0.7;
	return node('text', '|| text', '({1} || {2})', text($g, $depth - 1), text($g, 0)) if $way < 0.76;
	return node('text', 'format', "format('%s-%s', {1}, {2})", text($g, $depth - 1), int_value($g, 0)) if $way < 0.81;
	return node('text', '::text', '({1})::text', expression($g, pick(qw(int numeric boolean)), $depth - 1)) if $way < 0.85;
	return node('text', 'jsonb::text', '{1}::text', jsonb($g, $depth - 1, 'any')) if $way < 0.95;
	return text_leaf() if $way < 0.97 || !$g->{exotic};
	return node('text', 'jsonb_pretty', 'jsonb_pretty({1})', jsonb($g, $depth - 1, 'any'));
}

sub boolean
{
	my ($g, $depth) = @_;
	my $way = rand;

	if ($depth <= 0 || $way < 0.25)
	{
		$way = rand;
		return node('boolean', '@>', '({1} @> {2})', object_source($g, 1), contained($g, 0)) if chance(0.12);
		return node('boolean', '<@', '({1} <@ {2})', contained($g, 0), object_source($g, 1)) if chance(0.08);
		return node('boolean', 'jsonb =', '({1} ' . pick('=', '<>', '<>') . ' {2})', at($g, 'any'), at($g, 'any')) if chance(0.12);
		return node('boolean', 'jsonb =', '({1} ' . pick('=', '<>', '<>') . ' {2})', same_twice($g)) if chance(0.12);
		return node('boolean', '=', '({1} ' . pick('=', '<>', '<>') . ' {2})', at_text($g, 'string'), at_text($g, 'string')) if chance(0.06);
		return node('boolean', '?', '({1} ? {2})', at($g, 'array'), text_leaf()) if chance(0.05);
		if (chance(0.15))
		{
			my ($test, $constant) = tested($g);
			my ($sql, @constants) = comparison(1, $constant);

			return node('boolean', 'text comparison', "($sql)", $test, @constants);
		}
		return leaf('boolean', pick('true', 'false', 'true', 'NULL::boolean')) if $way < 0.1;
		return node('boolean', '?', '({1} ? {2})', object_source($g, 1), key_leaf(pick(@kinds))) if $way < 0.25;
		return node('boolean', '=', '({1} ' . pick('=', '<>') . ' {2})', at_text($g, 'string'), text_leaf()) if $way < 0.34;
		return node('boolean', 'COLLATE', '({1} ' . pick('=', '<>') . ' {2} COLLATE fuzz.any_case)', at_text($g, 'string'), text_leaf())
		  if $way < 0.36;
		return node('boolean', '?|', '({1} ?' . pick('|', '&') . ' {2})', object_source($g, 1), keys_of($g)) if $way < 0.53;
		return node('boolean', 'IS NULL', '({1} IS ' . pick('', 'NOT ') . 'NULL)', at($g, 'any')) if $way < 0.6;
		return node('boolean', 'IN', '({1} IN ({2}, {3}, {4}))', at_text($g, 'string'), text_leaf(), text_leaf(), text_leaf()) if $way < 0.65;
		return guarded($g, 'boolean', '::boolean', "jsonb_typeof({1}) = 'boolean'", '({1})::boolean', at($g, 'boolean'));
	}
	if ($way < 0.35)
	{
		my $chosen = choice($g, 'boolean', $depth);

		return $chosen if $chosen;
	}
	$way = rand;
	return node('boolean', 'AND', '({1} ' . pick('AND', 'OR') . ' {2})', boolean($g, $depth - 1), boolean($g, $depth - 1)) if $way < 0.12;
	return node('boolean', 'NOT', '(NOT {1})', boolean($g, $depth - 1)) if $way < 0.16;
	return node('boolean', 'IS TRUE', '({1} IS ' . pick('TRUE', 'NOT FALSE', 'UNKNOWN') . ')', boolean($g, $depth - 1)) if $way < 0.2;
	return node('boolean', '@>', '({1} @> {2})', jsonb($g, $depth - 1, 'object'), contained($g, $depth)) if $way < 0.3;
	return node('boolean', '<@', '({1} <@ {2})', contained($g, $depth), jsonb($g, $depth - 1, 'object')) if $way < 0.36;
	return node('boolean', 'jsonb =', '({1} ' . pick('=', '<>', '<>') . ' {2})', jsonb($g, $depth - 1, 'any'), jsonb($g, $depth - 1, 'any'))
	  if $way < 0.48;
	return node('boolean', 'jsonb =', '({1} ' . pick('=', '<>') . ' {2})', at($g, 'number'), jsonb_leaf(scalar_of('number'))) if $way < 0.53;
	return node('boolean', 'jsonb IN', '({1} IN ({2}, {3}))', at($g, 'any'), jsonb_leaf(scalar_of('any')), jsonb_leaf(scalar_of('any')))
	  if $way < 0.58;
	return node('boolean', 'IS DISTINCT FROM', '({1} IS DISTINCT FROM {2})', jsonb($g, $depth - 1, 'any'), jsonb($g, 0, 'any')) if $way < 0.66;
	return node('boolean', 'jsonb_typeof', '(jsonb_typeof({1}) = {2})', jsonb($g, $depth - 1, 'any'),
		leaf('text', quoted(pick(@typeofs)) . '::text'))
	  if $way < 0.74;
	return node('boolean', 'compare', '({1} ' . pick('<', '>', '<=', '>=', '=', '<>') . ' {2})', int_value($g, $depth - 1), int_value($g, 0))
	  if $way < 0.82;
	return node('boolean', 'compare', '({1} ' . pick('<', '>', '=') . ' {2})', number($g, 'numeric', $depth - 1), number($g, 'numeric', 0))
	  if $way < 0.88;
	return node('boolean', 'jsonb <', '({1} ' . pick('<', '>', '<=', '>=') . ' {2})', jsonb($g, $depth - 1, 'any'), at($g, 'any'))
	  if $way < 0.92 && $g->{exotic};
	return node('boolean', 'jsonpath', "({1} " . pick(q(@? '$.data.n'), q(@@ '$.n > 1')) . ')', jsonb($g, $depth - 1, 'object'))
	  if $way < 0.95 && $g->{exotic};
	return node('boolean', 'compare', '({1} ' . pick('=', '<', 'LIKE') . ' {2})', text($g, $depth - 1), text($g, 0));
}

# Two values that are equal at times: the same one made in two ways.
sub same_twice
{
	my ($g) = @_;
	my $kind = pick('number', 'string', 'object', 'array');
	my $value = at($g, $kind);
	my $way = rand;

	return map { node('jsonb', 'jsonb_build_array', "jsonb_build_array({1}, $_)", $value) } '1', '1.0' if $way < 0.3;
	return (node('jsonb', 'jsonb_build_object', "jsonb_build_object('a', {1}, 'b', 1.0)", $value),
		node('jsonb', '||', "(jsonb_build_object('b', 1) || jsonb_build_object('a', {1}))", $value)) if $way < 0.6;
	return ($value, node('jsonb', 'to_jsonb', 'to_jsonb({1} #>> \'{}\')', $value)) if $kind eq 'string';
	return ($value, node('jsonb', '||', "({1} || '{}')", $value)) if $kind eq 'object';
	return ($value, node('jsonb', '-> index', '(jsonb_build_array({1}) -> 0)', $value));
}

# What an object contains at times.
sub contained
{
	my ($g, $depth) = @_;

	return jsonb_leaf(pick({}, {}, [], { status => pick(@strings) }, { n => \pick(@numbers) }, { data => {} }, { flag => \'true' },
		{ list => [] }, scalar_of('any')))
	  if chance(0.7);
	return jsonb($g, $depth - 1, 'object');
}

sub int_value
{
	my ($g, $depth) = @_;
	my $way = rand;

	if ($depth <= 0)
	{
		my $variable = $way < 0.3 ? variable($g, 'int') : undef;

		return $variable if $variable;
		return leaf('int', pick(@{ $constants{int} }[ 0 .. 6 ])) if $way < 0.6;
		return guarded($g, 'int', '::int', "jsonb_typeof({1}) = 'number' AND abs(({1})::numeric) < 1e5", '({1})::int',
			node('jsonb', '->', '({1} -> {2})', object_source($g, 0), key_leaf('number'))) if $way < 0.85;
		return guarded($g, 'int', 'jsonb_array_length', "jsonb_typeof({1}) = 'array'", 'jsonb_array_length({1})',
			node('jsonb', '->', '({1} -> {2})', object_source($g, 0), key_leaf('array')));
	}
	if ($way < 0.12)
	{
		my $chosen = choice($g, 'int', $depth);

		return $chosen if $chosen;
	}
	return node('int', 'length', pick('length', 'octet_length') . '({1})', text($g, $depth - 1)) if $way < 0.3;
	return guarded($g, 'int', 'jsonb_array_length', "jsonb_typeof({1}) = 'array'", 'jsonb_array_length({1})', at($g, 'array')) if $way < 0.45;
	return guarded($g, 'int', '::int', "jsonb_typeof({1}) = 'number' AND abs(({1})::numeric) < 1e5", '({1})::int', at($g, 'number'))
	  if $way < 0.6;
	return guarded($g, 'int', 'text::int', "{1} ~ '^-?[0-9]{1,6}\$'", '({1})::int', at_text($g, 'number')) if $way < 0.7;
	return node('int', '+', '({1} ' . pick('+', '-') . ' {2})', int_value($g, $depth - 1), int_value($g, 0)) if $way < 0.8;
	return guarded($g, 'int', '/', '{2} <> 0', '({1} ' . pick('/', '%') . ' {2})', int_value($g, $depth - 1), int_value($g, 0)) if $way < 0.88;
	return leaf('int', pick(@{ $constants{int} }));
}

# A number of another type.
sub number
{
	my ($g, $type, $depth) = @_;
	my $way = rand;

	return leaf($type, pick(@{ $constants{$type} })) if $depth <= 0 && $way < 0.3;
	return guarded($g, $type, "::$type", "jsonb_typeof({1}) = 'number' AND abs(({1})::numeric) < $limits{$type}", "({1})::$type",
		at($g, 'number'))
	  if $depth <= 0 || $way < 0.65;
	return guarded($g, $type, "text::$type", "{1} ~ '^-?[0-9]{1,4}\$'", "({1})::$type", at_text($g, 'number')) if $way < 0.72;
	return node($type, '+', '({1} ' . pick('+', '-') . ' {2})', number($g, $type, $depth - 1),
		leaf($type, pick(@{ $constants{$type} }[ 0, 0, 1 ])))
	  if $way < 0.82;
	return guarded($g, $type, '/', '{2} <> 0', '({1} / {2})', number($g, $type, $depth - 1), number($g, $type, 0)) if $way < 0.86;
	return node($type, "int::$type", "({1})::$type", int_value($g, $depth - 1)) if $way < 0.93;
	return choice($g, $type, $depth) // leaf($type, pick(@{ $constants{$type} }));
}

# ---- programs

# The next state, in the style of an apply function.
sub next_state
{
	my ($g) = @_;
	my $object = sub { chance(0.5) ? build_object($g, 2) : jsonb($g, 3, 'object') };
	my ($state) = grep { $_->{type} eq 'jsonb' } @{ $g->{variables} };
	my $way = rand;
	my $result;

	if ($way < 0.15) { $result = text_case($g, 'jsonb', 3) }
	elsif ($way < 0.35)
	{
		my @cases = map { [ $_, $object->() ] } @event_types[ 0 .. 1 + rand 4 ];
		my $sql = '(CASE {1}' . join('', map { " WHEN {" . (2 * $_) . "} THEN {" . (2 * $_ + 1) . "}" } 1 .. @cases);
		my $else = chance(0.95);
		my @kids = (variable($g, 'text') // at_text($g, 'string'), map { (leaf('text', quoted($_->[0]) . '::text'), $_->[1]) } @cases);

		$result = node('jsonb', 'CASE x', $sql . ($else ? ' ELSE {' . (@kids + 1) . '} END)' : ' END)'), @kids, $else ? $state : ());
	}
	elsif ($way < 0.52) { $result = node('jsonb', '||', '({1} || {2})', $state, build_object($g, 3)) }
	elsif ($way < 0.65) { $result = build_object($g, 3) }
	elsif ($way < 0.75) { $result = changed($g, 4) }
	elsif ($way < 0.8) { $result = let($g, 'jsonb', 4) }
	else { $result = jsonb($g, 4, 'object') }
	$result = node('jsonb', '||', '({1} || jsonb_build_object({2}, {3}))', $result, key_leaf(pick(@kinds)),
		call_of($g, pick(@{ $g->{helpers} }), 3))
	  if @{ $g->{helpers} } && chance(0.6);
	return chance(0.85) ? node('jsonb', 'COALESCE', '(COALESCE({1}, {2}))', $result, $state) : $result;
}

# A helper function: how it is written decides who can inline it.
sub helper
{
	my ($g, $number) = @_;
	my @arguments = some(1, 3, sub { pick('jsonb', 'jsonb', 'jsonb', 'text', 'int') });
	my $returns = pick('jsonb', 'jsonb', 'jsonb', 'text', 'boolean', 'int');
	my $form = pick('plain', 'plain', 'let', 'let', 'strict', 'strict let', $g->{version} >= 14 ? ('atomic', 'atomic let') : (),
		$g->{exotic} ? 'PL/pgSQL' : 'plain');
	my $inner = {
		%$g, variables => [ map { { type => $arguments[ $_ - 1 ], op => 'argument', param => $_, kids => [] } } 1 .. @arguments ] };

	return {
		name => "fuzz.h$number", arguments => \@arguments, returns => $returns, form => $form, volatility => chance(0.2) ? 'IMMUTABLE' : 'STABLE',
		named => chance(0.5), # arguments
		body => $form =~ /let|PL/ ? let($inner, $returns, 3) : expression($inner, $returns, chance(0.3) ? 1 : 3) };
}

# A program for a server of this major version.
sub program
{
	my ($version) = @_;
	my $g = { version => $version, exotic => chance(0.15), careful => pick(0.5, 0.7, 0.9), helpers => [], names => [0] };
	my $variables = sub {
		my %types = @_;
		return [ map { { type => $types{$_}, op => $_, sql => $_, kids => [] } } sort { $b cmp $a } keys %types ];
	};
	my $program = { initial_state => document(2) };

	push @{ $g->{helpers} }, helper($g, $_) foreach 1 .. (chance(0.5) ? 1 + rand 3 : 0);
	$program->{helpers} = $g->{helpers};
	$program->{apply} = next_state({ %$g, variables => $variables->(state => 'jsonb', event_type => 'text', payload => 'jsonb') });
	$program->{upcast} = next_state({ %$g, variables => $variables->(payload => 'jsonb', event_type => 'text', schema_version => 'int') })
	  if chance(0.15);
	$program->{migrate} = next_state({ %$g, variables => $variables->(state => 'jsonb') }) if chance(0.3);
	return $program;
}

my %signatures = (
	apply => 'state jsonb, event_type text, payload jsonb',
	upcast => 'event_type text, schema_version int, payload jsonb',
	migrate => 'state jsonb');

# ---- as text

# A node as SQL. $how has: helpers by name; inline, when the bodies of helpers are written out;
# and, of where we are, arguments and bound values as texts, as far as they are written out.
sub sql
{
	my ($node, $how) = @_;
	my @kids;

	return $how->{arguments}[ $node->{param} - 1 ] if defined $node->{param} && $how->{arguments};
	return ($how->{named} ? 'p' : '$') . $node->{param} if defined $node->{param};
	return $how->{bound}{ $node->{bound} } // $node->{bound} if defined $node->{bound};
	if ($node->{let})
	{
		if ($how->{inline})
		{
			my $inner = { %$how, bound => { %{ $how->{bound} } } };

			$inner->{bound}{ $_->[0] } = '(' . sql($_->[1], $inner) . ')' foreach @{ $node->{let} };
			return sql($node->{kids}[0], $inner);
		}
		return '(' . select_let($node, $how) . ')';
	}

	@kids = map { sql($_, $how) } @{ $node->{kids} };
	if (defined $node->{helper})
	{
		my $helper = $how->{helpers}{ $node->{helper} };

		# While shrinking, a helper may be gone.
		return "$node->{helper}(" . join(', ', @kids) . ')' unless $how->{inline} && $helper && $helper->{form} ne 'PL/pgSQL';
		my $body = sql($helper->{body}, { %$how, arguments => [ map { "($_)" } @kids ], bound => {} });
		$body = 'CASE WHEN ' . join(' OR ', map { "($_) IS NULL" } @kids) . " THEN NULL ELSE $body END" if $helper->{form} =~ /strict/;
		return "($body)::$helper->{returns}";
	}
	my $text = $how->{inline} && $node->{lazy_sql} || $node->{sql};
	$text =~ s/\{(\d+)\}/$kids[$1 - 1]/g if @kids;
	return $text;
}

# A SELECT whose FROM binds the values of a "let".
sub select_let
{
	my ($node, $how) = @_;
	my @values = map { [ $_->[0], sql($_->[1], $how) ] } @{ $node->{let} };
	my $body = sql($node->{kids}[0], $how);

	# One in the other, the first one innermost; the outer ones pass on what the inner ones bind.
	if ($node->{style} eq 'nested')
	{
		my $from = '';

		$from = ' FROM (SELECT ' . ($from ? '*, ' : '') . "$_->[1] AS $_->[0]$from) AS s$_->[0]" foreach @values;
		return "SELECT $body$from";
	}
	return "SELECT $body FROM " . join(' CROSS JOIN LATERAL ',
		map { $node->{style} eq 'values' ? "(VALUES ($_->[1])) AS s$_->[0] ($_->[0])" : "(SELECT $_->[1] AS $_->[0]) AS s$_->[0]" } @values);
}

# The statements that create a program's functions, or replace them; inline as for sql().
sub statements
{
	my ($program, %options) = @_;
	my $how = { %options, helpers => { map { $_->{name} => $_ } @{ $program->{helpers} } } };
	my @statements;

	foreach my $helper (@{ $program->{helpers} })
	{
		my @arguments = map { ($helper->{named} ? 'p' . ($_ + 1) . ' ' : '') . $helper->{arguments}[$_] } 0 .. $#{ $helper->{arguments} };
		my $head = "CREATE OR REPLACE FUNCTION $helper->{name}(" . join(', ', @arguments) . ") RETURNS $helper->{returns}";
		my $body = $helper->{body};
		my $inside = { %$how, inline => 0, bound => {}, named => $helper->{named} };

		if ($helper->{form} eq 'PL/pgSQL')
		{
			my @values = $body->{let} ? @{ $body->{let} } : ();

			push @statements, "$head LANGUAGE plpgsql STABLE AS \$fuzz\$ DECLARE " .
			  join('', map { "$_->[0] $_->[1]{type} := " . sql($_->[1], $inside) . '; ' } @values) .
			  'BEGIN RETURN ' . sql($body->{let} ? $body->{kids}[0] : $body, $inside) . '; END $fuzz$';
		}
		else
		{
			my $select = $body->{let} ? select_let($body, $inside) : 'SELECT ' . sql($body, $inside);

			push @statements, "$head LANGUAGE sql $helper->{volatility}" . ($helper->{form} =~ /strict/ ? ' STRICT' : '') .
			  ($helper->{form} =~ /atomic/ ? " BEGIN ATOMIC $select; END" : " AS \$fuzz\$ $select \$fuzz\$");
		}
	}
	foreach my $role (grep { $program->{$_} } sort keys %signatures)
	{
		my $body = $program->{$role};
		my $inside = { %$how, bound => {} };

		push @statements, "CREATE OR REPLACE FUNCTION fuzz.$role($signatures{$role}) RETURNS jsonb LANGUAGE sql STABLE AS \$fuzz\$ " .
		  ($body->{let} && !$how->{inline} ? select_let($body, $inside) : 'SELECT ' . sql($body, $inside)) . ' $fuzz$';
	}
	return @statements;
}

# ---- shrinking and statistics

# Calls a function for every node of a tree.
sub walk
{
	my ($node, $visit) = @_;

	$visit->($node);
	walk($_, $visit) foreach @{ $node->{kids} };
	walk($_->[1], $visit) foreach @{ $node->{let} || [] };
}

# The trees that a program consists of.
sub trees
{
	my ($program) = @_;

	return (map({ $_->{body} } @{ $program->{helpers} }), map { $program->{$_} // () } qw(apply upcast migrate));
}

# Which operations a program has, as the keys of a hash.
sub operations
{
	my ($program) = @_;
	my %found;

	foreach my $tree (trees($program))
	{
		walk($tree, sub { $found{ $_[0]{op} } = 1 });
	}
	return \%found;
}

# How many nodes a program has.
sub program_size
{
	my ($program) = @_;
	my $size = 0;

	foreach my $tree (trees($program))
	{
		walk($tree, sub { $size++ });
	}
	return $size;
}

# The nodes under a node, the smallest trees first.
sub below
{
	my ($node) = @_;
	my (@found, %size);

	walk($node, sub { push @found, $_[0] });
	shift @found;
	foreach my $found (@found)
	{
		walk($found, sub { $size{$found}++ });
	}
	return sort { $size{$a} <=> $size{$b} } @found;
}

my %simplest = (jsonb => [ "'{}'::jsonb", "'1'::jsonb" ], text => ["'a'::text"], int => ['1'], boolean => [ 'true', 'false' ],
	numeric => ['1.0']);

# What is left of a tree when parts of it are replaced by less, as long as $try->(tree) likes it. $deep looks for less at any depth.
sub shrunk_tree
{
	my ($node, $try, $deep) = @_;
	my @less = $deep ? below($node) : (@{ $node->{kids} }, map { $_->[1] } @{ $node->{let} || [] });
	my $is_leaf = !@{ $node->{kids} } && !$node->{let};

	foreach my $sql (@{ $simplest{ $node->{type} } || [] }, "NULL::$node->{type}")
	{
		last if $is_leaf && (!defined $node->{sql} || length $node->{sql} <= length $sql);
		return leaf($node->{type}, $sql) if $try->(leaf($node->{type}, $sql));
	}
	return jsonb_leaf(shrunk_document(${ $node->{value} }, sub { $try->(jsonb_leaf($_[0])) })) if $node->{value};
	foreach my $kid (grep { $_->{type} eq $node->{type} } @less)
	{
		return shrunk_tree($kid, $try) if $try->($kid);
	}
	# Arguments of what takes any number of them.
	if (defined $node->{sql} && $node->{sql} =~ /^jsonb_build_(object|array)\(\{/)
	{
		my $step = $1 eq 'object' ? 2 : 1;

		for (my $i = @{ $node->{kids} } - $step; $i >= 0; $i -= $step)
		{
			my @kids = @{ $node->{kids} };
			my $fewer = { %$node };

			splice @kids, $i, $step;
			@$fewer{qw(kids sql)} = (\@kids, ($node->{sql} =~ s/\(.*//r) . '(' . join(', ', map { "{$_}" } 1 .. @kids) . ')');
			$node = $fewer if $try->($fewer);
		}
	}
	for (my $i = 0; $node->{let} && @{ $node->{let} } > 1 && $i < @{ $node->{let} }; $i++)
	{
		my @others = @{ $node->{let} };

		splice @others, $i, 1;
		($node, $i) = ({ %$node, let => \@others }, $i - 1) if $try->({ %$node, let => \@others });
	}
	foreach my $i (0 .. $#{ $node->{kids} })
	{
		my $set = sub { my @kids = @{ $node->{kids} }; $kids[$i] = $_[0]; return { %$node, kids => \@kids } };

		$node = $set->(shrunk_tree($node->{kids}[$i], sub { $try->($set->($_[0])) }));
	}
	foreach my $i (0 .. $#{ $node->{let} || [] })
	{
		my $set = sub { my @values = @{ $node->{let} }; $values[$i] = [ $values[$i][0], $_[0] ]; return { %$node, let => \@values } };

		$node = $set->(shrunk_tree($node->{let}[$i][1], sub { $try->($set->($_[0])) }));
	}
	return $node;
}

# What is left of a program when parts of it are taken away, as long as $try->(program) likes it. Some that are tried are no SQL any
# more, because they use what has gone.
sub shrunk_program
{
	my ($program, $try) = @_;
	my $take = sub { my ($smaller) = @_; $program = $smaller if $try->($smaller) };

	$take->({ %$program, $_ => undef }) foreach grep { $program->{$_} } qw(upcast migrate);
	foreach my $role (grep { $program->{$_} } qw(apply upcast migrate))
	{
		$program = { %$program, $role => shrunk_tree($program->{$role}, sub { $try->({ %$program, $role => $_[0] }) }, 1) };
	}
	foreach my $name (map { $_->{name} } @{ $program->{helpers} })
	{
		my $set = sub {
			my ($body) = @_;
			return { %$program, helpers => [ map { $_->{name} ne $name ? $_ : $body ? { %$_, body => $body } : () } @{ $program->{helpers} } ] };
		};
		my ($helper) = grep { $_->{name} eq $name } @{ $program->{helpers} };

		$take->($set->(undef));
		$program = $set->(shrunk_tree($helper->{body}, sub { $try->($set->($_[0])) })) if grep { $_->{name} eq $name } @{ $program->{helpers} };
	}
	$program = { %$program, initial_state => shrunk_document($program->{initial_state},
		sub { $try->({ %$program, initial_state => $_[0] }) }) };
	return $program;
}

# The same for a document.
sub shrunk_document
{
	my ($value, $try) = @_;

	foreach my $less (ref $value eq 'HASH' && %$value ? {} : (), ref $value eq 'ARRAY' && @$value ? [] : (),
		defined $value && !ref $value && length $value > 3 ? '' : ())
	{
		return $less if $try->($less);
	}
	if (ref $value eq 'HASH')
	{
		foreach my $key (sort keys %$value)
		{
			my %others = %$value;

			delete $others{$key};
			$value = \%others if $try->(\%others);
		}
		foreach my $key (sort keys %$value)
		{
			$value = { %$value, $key => shrunk_document($value->{$key}, sub { $try->({ %$value, $key => $_[0] }) }) };
		}
	}
	elsif (ref $value eq 'ARRAY')
	{
		for (my $i = $#$value; $i >= 0; $i--)
		{
			my @others = @$value;

			splice @others, $i, 1;
			$value = \@others if $try->(\@others);
		}
		foreach my $i (0 .. $#$value)
		{
			my $set = sub { my @values = @$value; $values[$i] = $_[0]; return \@values };

			$value = $set->(shrunk_document($value->[$i], sub { $try->($set->($_[0])) }));
		}
	}
	return $value;
}

1;
