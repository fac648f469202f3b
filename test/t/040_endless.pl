# Bodies, type definitions and values that are made to take for ever: each call ends, is refused, or
# can be cancelled. MAKO_SOAK=1 gives them five seconds instead of a half.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MakoTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes;

my $timeout = $ENV{MAKO_SOAK} ? 5000 : 500;
my $node = new_server('endless');

# Functions of which each calls the one before twice; values and definitions that are deep or wide.
$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION mako_migration;
CREATE SCHEMA lib;
CREATE FUNCTION lib.f0(j jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT j || '{"a": 1}' $$;
DO $$
BEGIN
  FOR i IN 1 .. 26 LOOP
    EXECUTE format('CREATE FUNCTION lib.f%s(j jsonb) RETURNS jsonb LANGUAGE sql STABLE AS %L', i,
                   format('SELECT lib.f%s(j) || lib.f%1$s(j->''x'')', i - 1));
  END LOOP;
END $$;
CREATE FUNCTION lib.apply(state jsonb, event_type text, payload jsonb) RETURNS jsonb
LANGUAGE sql STABLE AS $$ SELECT lib.f26(state) $$;
SELECT mako_register_workflow('deep@FV2024-10-01', 'lib.apply', initial_state => '{}');
SELECT mako_register_workflow('deep@FV2025-10-01', 'lib.apply', initial_state => '{}');
SELECT mako_register_migration('deep@FV2024-10-01', 'deep@FV2025-10-01');

CREATE TABLE thing (name text PRIMARY KEY, value jsonb);
INSERT INTO thing
SELECT 'each refers to the one before eight times',
       jsonb_build_object('ref', 'd40', 'definitions', jsonb_object_agg('d' || i,
         CASE i WHEN 0 THEN '{"type": "int8"}'
           ELSE jsonb_build_object('properties',
                  (SELECT jsonb_object_agg('p' || k, jsonb_build_object('ref', 'd' || i - 1))
                   FROM generate_series(1, 8) k)) END))
FROM generate_series(0, 40) i
UNION ALL
SELECT 'many properties', jsonb_build_object('optionalProperties',
         jsonb_object_agg('p' || i, '{"enum": ["a", "b"]}'::jsonb))
FROM generate_series(1, 20000) i
UNION ALL
SELECT 'many values', jsonb_build_object('enum', jsonb_agg('e' || i))
FROM generate_series(1, 100000) i
UNION ALL
SELECT 'many variants', jsonb_build_object('discriminator', 't', 'mapping',
         jsonb_object_agg('v' || i,
         '{"properties": {"a": {"type": "string"}, "b": {"type": "timestamp"}}}'::jsonb))
FROM generate_series(1, 20000) i
UNION ALL VALUES
  ('may go on in three ways', '{"ref": "a", "definitions": {"a": {"optionalProperties":
     {"x": {"ref": "a"}, "y": {"ref": "a"}, "z": {"elements": {"ref": "a"}}}}}}'),
  ('must go on', '{"ref": "a", "definitions": {"a": {"properties": {"x": {"ref": "a"}}}}}'),
  ('lists of lists', (repeat('{"elements": ', 6000) || '{}' || repeat('}', 6000))::jsonb),
  ('deep list', (repeat('[', 6000) || repeat(']', 6000))::jsonb),
  ('deep object', (repeat('{"x": ', 6000) || '1' || repeat('}', 6000))::jsonb),
  ('another deep object', (repeat('{"x": ', 6000) || '2' || repeat('}', 6000))::jsonb),
  ('deep error', (repeat('{"x": ', 3000) || '1' || repeat('}', 3000))::jsonb)
UNION ALL SELECT 'many numbers', jsonb_agg(i) FROM generate_series(1, 300000) i
UNION ALL SELECT 'wide object', jsonb_object_agg('p' || i, i) FROM generate_series(1, 200000) i
UNION ALL SELECT 'another wide object', jsonb_object_agg('p' || i, i + i % 2)
          FROM generate_series(1, 200000) i;
CREATE FUNCTION thing(wanted text) RETURNS jsonb LANGUAGE sql STABLE AS
  $$ SELECT value FROM thing WHERE name = wanted $$;
SQL

my @calls = (
	(map { "count(*) FROM mako_explain_function('lib.f$_(jsonb)')" } 8, 14, 20, 26),
	"mako_fold('deep\@FV2024-10-01', '[{\"event_type\": \"X\", \"payload\": {}}]')",
	"mako_fingerprint('deep\@FV2024-10-01', 'deep\@FV2025-10-01')",
	'count(*) FROM mako_check()',
	(map { "count(*) FROM mako_instances(thing('$_'))" }
		  'each refers to the one before eight times', 'many properties', 'many values',
		'many variants', 'may go on in three ways', 'must go on', 'lists of lists'),
	"mako_is_valid(thing('may go on in three ways'), thing('deep object'))",
	"mako_is_valid(thing('lists of lists'), thing('deep list'))",
	"mako_is_valid(thing('many properties'), thing('wide object'))",
	"mako_is_valid('{\"type\": \"int8\"}', '1e100000')",
	"mako_is_valid('{\"type\": \"float64\"}', '1e130000')",
	"count(*) FROM mako_validate('{\"elements\": {\"type\": \"string\"}}', thing('many numbers'))",
	"count(*) FROM mako_validate(thing('may go on in three ways'), thing('deep error'))",
	"length(mako_merge_patch(thing('deep object'), thing('another deep object'))::text)",
	"length(mako_merge_patch(thing('wide object'), thing('another wide object'))::text)");
my $session = open_session($node, 'postgres');
my $pid = ask($session, 'SELECT pg_backend_pid()');
ask($session, "SET statement_timeout = $timeout");
for my $call (@calls)
{
	my $since = Time::HiRes::time();
	my $answer = ask($session, "SELECT $call");
	my $elapsed = Time::HiRes::time() - $since;

	# 57014 is the cancel, 54001 a stack that is too deep, 54000 a value that is too large.
	like($answer, qr/^(?!ERROR)|^ERROR:  (57014|54001|54000)$/,
		substr($call, 0, 90) . ': ' . substr($answer, 0, 40));
	cmp_ok($elapsed, '<', $timeout / 1000 + 5, sprintf '... after %.1f s', $elapsed);
}
is(ask($session, 'RESET statement_timeout; SELECT pg_backend_pid()'), $pid, 'the session goes on');
close_session($session);

$node->stop;
done_testing();
