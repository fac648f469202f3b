# The public cases of RFC 8927: what is valid, where the errors are, and which definitions are malformed.
#
# The project carries no copy of them. They are looked for in MAKO_JTD, then in ../shared/jtd beside the project.
use strict;
use warnings;

use Cwd ();
use FindBin;
use lib $FindBin::RealBin;
use JSON::PP;
use MakoTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = $ENV{MAKO_ROOT} || Cwd::abs_path("$FindBin::RealBin/../..");
my $folder = $ENV{MAKO_JTD} || "$root/../shared/jtd";

foreach my $file (qw(validation invalid_schemas))
{
	plan skip_all => "no readable $file.json of the public cases of RFC 8927: set MAKO_JTD to their folder"
	  unless -r "$folder/$file.json";
}

# What the functions say of each case: is it valid, and its errors; or the SQLSTATE of each.
my $node = new_server('type_definition');
$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION mako_migration;
CREATE FUNCTION is_valid(definition jsonb, instance jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
  RETURN to_jsonb(mako_is_valid(definition, instance));
EXCEPTION WHEN OTHERS THEN
  RETURN to_jsonb(SQLSTATE);
END $$;
CREATE FUNCTION errors(definition jsonb, instance jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
  RETURN (SELECT coalesce(jsonb_agg(jsonb_build_array(instance_path, schema_path)), '[]') FROM mako_validate(definition, instance));
EXCEPTION WHEN OTHERS THEN
  RETURN to_jsonb(SQLSTATE);
END $$;
SQL

# Both answers for each case of a file, which the server reads as it stands, numbers and all.
sub answers
{
	my ($cases, $definition, $instance) = @_;

	return decode_json($node->safe_psql('postgres', <<SQL));
SELECT jsonb_object_agg(key, jsonb_build_array(is_valid($definition, $instance), errors($definition, $instance)))
FROM jsonb_each(\$cases\$$cases\$cases\$)
SQL
}

# A list of tokens as a JSON pointer.
sub pointer
{
	my ($tokens) = @_;

	return join '', map { my $token = $_; $token =~ s/~/~0/g; $token =~ s,/,~1,g; "/$token" } @$tokens;
}

# Errors as sorted lines, of which none may stand there twice.
sub lines
{
	my ($errors) = @_;

	return $errors unless ref $errors;
	return join "\n", sort map { "at \"$_->[0]\" against \"$_->[1]\"" } @$errors;
}

my $text = slurp_file("$folder/validation.json");
my $cases = decode_json($text);
my $answers = answers($text, "value->'schema'", "value->'instance'");
cmp_ok(scalar keys %$cases, '>', 100, 'there are cases');
foreach my $name (sort keys %$cases)
{
	my @expected = map { [ pointer($_->{instancePath}), pointer($_->{schemaPath}) ] } @{ $cases->{$name}{errors} };
	my ($is_valid, $errors) = @{ $answers->{$name} };

	is(lines($errors), lines(\@expected), "$name: errors");
	is($is_valid, @expected ? JSON::PP::false : JSON::PP::true, "$name: mako_is_valid() agrees");
}

$text = slurp_file("$folder/invalid_schemas.json");
$cases = decode_json($text);
$answers = answers($text, 'value', q{'null'});
cmp_ok(scalar keys %$cases, '>', 20, 'there are malformed definitions');
is(join(' ', @{ $answers->{$_} }), '22032 22032', "malformed: $_") foreach sort keys %$cases;

$node->stop;
done_testing();
