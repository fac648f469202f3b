# Instances of random type definitions, and of the public cases of RFC 8927, match the definitions they were made of.
use strict;
use warnings;

use Cwd ();
use FindBin;
use lib $FindBin::RealBin, "$FindBin::RealBin/../fuzz";
use JSON::PP ();
use MakoTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes;
use TypeDefinition;

my $seed = $ENV{MAKO_SEED} || 20251001;
my $count = $ENV{MAKO_DEFINITIONS} || 500;

srand $seed;
diag "seed $seed";

my $node = new_server('instances');
$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION mako_migration;
CREATE TABLE definition (number int GENERATED ALWAYS AS IDENTITY, definition jsonb NOT NULL);
CREATE VIEW instance AS SELECT d.*, i.* FROM definition d, mako_instances(d.definition) i;
SQL

# Random ones.
$node->safe_psql('postgres', join '', map {
	my $text = json(definition());

	utf8::encode($text) if utf8::is_utf8($text);
	"INSERT INTO definition (definition) VALUES (\$json\$$text\$json\$);\n"
} 1 .. $count);

# Those of the standard, where they are.
my $folder = $ENV{MAKO_JTD} || ($ENV{MAKO_ROOT} || Cwd::abs_path("$FindBin::RealBin/../..")) . "/../shared/jtd";
if (-r "$folder/validation.json")
{
	my $cases = PostgreSQL::Test::Utils::slurp_file("$folder/validation.json");

	$node->safe_psql('postgres', "INSERT INTO definition (definition) SELECT value->'schema' FROM jsonb_each(\$cases\$$cases\$cases\$)");
}

is($node->safe_psql('postgres', 'SELECT number, definition, instance FROM instance WHERE NOT mako_is_valid(definition, instance) LIMIT 3'),
	'', 'every instance is valid');
cmp_ok($node->safe_psql('postgres', 'SELECT count(*) FROM instance'), '>', 5 * $count, 'there are some of each');
is($node->safe_psql('postgres', <<'SQL'), '', 'no instance but of what has no end');
SELECT number, definition FROM definition d
WHERE NOT EXISTS (SELECT FROM instance i WHERE i.number = d.number)
  AND NOT (definition ? 'definitions' OR definition->'mapping' = '{}') LIMIT 3
SQL
is($node->safe_psql('postgres', <<'SQL'), '', 'every variant and every value of an enum is there, unless nothing is allowed for it');
SELECT d.number, v.variant
FROM definition d, LATERAL (SELECT jsonb_object_keys(d.definition->'mapping') WHERE d.definition ? 'mapping'
                            UNION ALL SELECT jsonb_array_elements_text(d.definition->'enum') WHERE d.definition ? 'enum') AS v (variant)
WHERE NOT (d.definition ? 'definitions') AND ((d.definition->'mapping'->v.variant)::text LIKE '%"mapping": {}%') IS NOT TRUE
  AND NOT EXISTS (SELECT FROM instance i WHERE i.number = d.number AND i.variant = v.variant)
LIMIT 3
SQL
is($node->safe_psql('postgres', <<'SQL'), '', 'null is there where it is allowed');
SELECT number, definition FROM definition d
WHERE definition->'nullable' = 'true' AND NOT EXISTS (SELECT FROM instance i WHERE i.number = d.number AND i.instance = 'null') LIMIT 3
SQL
is($node->safe_psql('postgres', <<'SQL'), '', 'each optional property is there and missing, unless nothing is allowed for it');
SELECT d.number, p.name
FROM definition d, LATERAL (SELECT jsonb_object_keys(d.definition->'optionalProperties') WHERE d.definition ? 'optionalProperties') AS p (name)
WHERE NOT (d.definition ? 'definitions') AND d.definition::text NOT LIKE '%"mapping": {}%'
  AND (SELECT count(DISTINCT i.instance ? p.name) FROM instance i WHERE i.number = d.number AND i.instance <> 'null') <> 2
LIMIT 3
SQL

# Large and deep ones: what cannot be built is left out, and nothing takes long.
my $wide = '{"definitions":{"d0":{"type":"int8"},' . join(',', map { my $below = $_ - 1; qq("d$_":{"properties":{"a":{"ref":"d$below"},"b":{"ref":"d$below"}}}) } 1 .. 40)
  . '},"ref":"d40"}';
is($node->safe_psql('postgres', "SELECT count(*) FROM mako_instances('$wide')"), '0', 'a definition whose smallest value is too large has no instance');
$wide =~ s/properties/optionalProperties/g;
cmp_ok($node->safe_psql('postgres', "SELECT count(*) FROM mako_instances('$wide') AS i WHERE mako_is_valid('$wide', i.instance)"), '>', 0,
	'one whose largest is too large has smaller ones');
# Large in every way: no more than 1,000 instances, of bounded size together, in bounded time.
my %large = (
	'a large enum' => q{jsonb_build_object('enum', (SELECT jsonb_agg('v' || i) FROM generate_series(1, 20000) AS i))},
	'nullable' => q{jsonb_build_object('nullable', true, 'enum', (SELECT jsonb_agg('v' || i) FROM generate_series(1, 2000) AS i))},
	'many variants' => q{jsonb_build_object('discriminator', 't', 'mapping', (SELECT jsonb_object_agg('v' || i, '{"properties": {"a": {"type": "int8"}}}'::jsonb) FROM generate_series(1, 2000) AS i))},
	'many optional properties' => q{jsonb_build_object('optionalProperties', (SELECT jsonb_object_agg('p' || i, '{"type": "int8"}'::jsonb) FROM generate_series(1, 5000) AS i))},
	'objects in objects' => q{(repeat('{"optionalProperties": {"a":', 1000) || '{}' || repeat('}}', 1000))::jsonb},
	'arrays in arrays' => q{(repeat('{"elements":', 1500) || '{}' || repeat('}', 1500))::jsonb},
	'long texts that must be there' => q{jsonb_build_object('definitions', jsonb_build_object('e', jsonb_build_object('enum', jsonb_build_array(repeat('x', 1000000)))),
		'properties', (SELECT jsonb_object_agg('p' || i, '{"ref": "e"}'::jsonb) FROM generate_series(1, 50) AS i))},
	'long texts that may be there' => q{jsonb_build_object('definitions', jsonb_build_object('e', jsonb_build_object('enum', jsonb_build_array(repeat('x', 10000), 'y'))),
		'optionalProperties', (SELECT jsonb_object_agg('p' || i, '{"ref": "e"}'::jsonb) FROM generate_series(1, 300) AS i))},
	'long keys' => q{jsonb_build_object('optionalProperties', (SELECT jsonb_object_agg(repeat('k', 10000) || i, '{"type": "boolean"}'::jsonb) FROM generate_series(1, 300) AS i))},
);
foreach my $what (sort keys %large)
{
	my $since = Time::HiRes::time();
	my ($instances, $bytes, $valid) = split /\|/, $node->safe_psql('postgres',
		"SELECT count(*), sum(length(instance::text)), bool_and(mako_is_valid(d, instance)) FROM (SELECT $large{$what} OFFSET 0) AS d (d), mako_instances(d)");

	cmp_ok($instances, '<=', 1000, "$what: at most 1,000 instances");
	cmp_ok($bytes || 0, '<', 100_000_000, '... of no more than 100 MB');
	isnt($valid, 'f', '... which are valid');
	cmp_ok(Time::HiRes::time() - $since, '<', 20, '... and do not take long');
}
is($node->safe_psql('postgres', "SELECT count(*) FILTER (WHERE instance = 'null') FROM mako_instances($large{nullable})"), '1', 'null is among them');
like(error_of($node, 'postgres', "SET statement_timeout = 500; SELECT count(*) FROM generate_series(1, 100000) AS i,"
		. " mako_instances(CASE WHEN i > 0 THEN $large{'objects in objects'} END)"),
	qr/^57014/, 'making them can be cancelled');

my ($code, $out, $error) = $node->psql('postgres', "SELECT count(*) FROM mako_instances((repeat('{\"elements\":', 100000) || '{}' || repeat('}', 100000))::jsonb)");
isnt($code, 0, 'a definition that is too deep is refused');
like($error, qr/stack depth limit exceeded/, 'and does not end the server');

done_testing();
