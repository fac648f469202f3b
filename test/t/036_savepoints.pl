# Locks, heads and fences across savepoints, roles and DISCARD: nothing is believed that a rolled
# back subtransaction knew, and nothing is kept that another role had seen.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MakoTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('savepoints');
create_two_workflows($node, 'store', 40);
my ($x, $y) = map { open_session($node, 'store') } 1 .. 2;
my ($first, $second) =
  map { ask($x, "SELECT stream_id FROM mako.stream WHERE stream_no = $_") } 2, 4;
my $workflows = "FROM unnest('{native\@FV2024-10-01,plain\@FV2024-10-01}'::text[]) w";
my $other = "SELECT migrated FROM mako_migrate('native\@FV2024-10-01', 'native\@FV2025-10-01',
  tenant_id => gen_random_uuid())";
my $step = "'native\@FV2024-10-01', 'native\@FV2025-10-01'";
my $back = "'native\@FV2025-10-01', 'native\@FV2024-10-01'";
ask($_, 'SET client_min_messages = error') for $x, $y;

# Asks a session and compares the answer.
sub answers
{
	my ($session, $sql, $expected, $name) = @_;

	is(ask($session, $sql), $expected, $name);
}

# An append, with the version that is expected.
sub append
{
	my ($stream, $version) = @_;

	return "SELECT mako_append('$stream', 'native\@FV2024-10-01', 'Noted', '{\"note\": 1}', "
	  . 'expected_version => ' . ($version // 'NULL') . ')';
}

# ---- heads

answers($x, 'BEGIN; ' . append($first, 4), '5', 'an append');
answers($x, 'SAVEPOINT s; ' . append($first, 5), '6', '... and one in a savepoint');
answers($x, 'ROLLBACK TO s; ' . append($first, 5), '6', '... which is rolled back, and made again');
answers($x, 'SAVEPOINT t; ' . append($first, 5),
	'ERROR:  40001', 'what was expected is no longer so');
answers($x, 'ROLLBACK TO t; ' . append($first, 6), '7', '... and the next one is');
answers($x, 'COMMIT; SELECT version FROM mako.stream WHERE stream_no = 2',
	'7', 'the head counts what is there');

# ---- the lock that keeps a version from being retired goes with its savepoint

answers($x, "SELECT count(mako_exempt(w, 'a test')) $workflows",
	'2', 'a version that may be retired');
answers($x, 'BEGIN; ' . append($second), '5', 'an append');
ask($y, "SET lock_timeout = '100ms'");
answers($y, "SELECT mako_retire('FV2024-10-01')",
	'ERROR:  55P03', '... keeps its version from being retired');
answers($x, 'ROLLBACK; BEGIN; SAVEPOINT s; ' . append($second), '5', 'an append in a savepoint');
answers($y, "SELECT mako_retire('FV2024-10-01')", 'ERROR:  55P03', '... does, too');
answers($x, 'ROLLBACK TO s', '', '... until it is rolled back');
answers($y, "SELECT mako_retire('FV2024-10-01')", '', '... when it is retired');
answers($x, append($second), 'ERROR:  55000', 'the next append is refused');
answers($y, "SELECT mako_reactivate('FV2024-10-01')", '', 'the version is active again');
ask($x, 'ROLLBACK; BEGIN ISOLATION LEVEL REPEATABLE READ');
answers($x, 'SELECT count(*) FROM mako.format_version', '1', 'a snapshot of that');
answers($y, "SELECT mako_retire('FV2024-10-01')", '', '... which is too old');
answers($x, append($second), 'ERROR:  55000', '... does not help');
ask($x, 'ROLLBACK');
answers($y, "SELECT mako_reactivate('FV2024-10-01'); SELECT mako_unexempt(w) $workflows",
	"\n\n", 'the version is active again');

# ---- a migration in a savepoint

my $count = "SELECT count(*) FROM mako.stream WHERE workflow_id = 'native\@FV2025-10-01'";
answers($x, "BEGIN; SAVEPOINT s; SELECT migrated FROM mako_migrate($step)",
	'20', 'a migration in a savepoint');
answers($y, $other, 'ERROR:  55P03', '... locks its source');
answers($x, 'ROLLBACK TO s', '', '... until it is rolled back');
answers($y, $other, '0', '... when the source is free');
answers($y, 'BEGIN; SELECT count(*) FROM (SELECT FROM mako.stream FOR UPDATE NOWAIT) s; ROLLBACK',
	'40', '... as are the heads');
answers($x, "SELECT migrated FROM mako_migrate($step)", '20', 'once more, in the same transaction');
answers($x, 'SAVEPOINT t; ' . append($first),
	'ERROR:  MK005', 'an append under the old workflow is refused');
answers($x, "ROLLBACK TO t; $count", '20', '... which takes nothing back');
answers($x, <<"SQL", '20', 'nor do migrations whose error is caught');
DO \$\$
BEGIN
  FOR i IN 1 .. 3 LOOP
    BEGIN
      PERFORM mako_migrate($back);
      RAISE EXCEPTION 'caught';
    EXCEPTION WHEN OTHERS THEN
    END;
  END LOOP;
END \$\$;
$count
SQL
answers($x, "SAVEPOINT t; SELECT (mako_migrate($back)).*",
	'ERROR:  55000', 'several migrations in one statement are refused');
answers($x, "ROLLBACK; $count", '0', 'all of it is rolled back');

# ---- roles, and what a session knows

$node->safe_psql('store', <<'SQL');
CREATE ROLE reader;
GRANT USAGE ON SCHEMA mako, lib TO reader;
GRANT SELECT ON mako.stream, mako.event, mako.snapshot, mako.repointed, mako.reverted, mako.format_version,
  mako.migration_run TO reader;
SQL
my $state = "SELECT sequence_number FROM mako_state('$first')";
answers($x, $state, '7', 'a state, seen by a superuser');
answers($x, "SET ROLE reader; $state", '7', '... and by a reader');
ask($y, 'REVOKE SELECT ON mako.event FROM reader');
answers($x, $state, 'ERROR:  42501', '... who may not see events any more');
answers($x, append($first), 'ERROR:  42501', '... nor append');
ask($y, 'GRANT SELECT ON mako.event TO reader; ALTER TABLE mako.stream ENABLE ROW LEVEL SECURITY');
answers($x, $state, 'ERROR:  42704', 'a stream that a policy hides is not there');
answers($x, "RESET ROLE; $state", '7', '... but for a superuser');
answers($x, "DISCARD ALL; $state", '7', '... after DISCARD ALL, too');
answers($x, "DISCARD PLANS; $state", '7', '... and DISCARD PLANS');
ask($y, 'ALTER TABLE mako.stream DISABLE ROW LEVEL SECURITY');
ask($y, 'DROP OWNED BY reader; DROP ROLE reader');

# ---- a cursor that is held, while its streams move

answers($x, <<'SQL', "2|1\n2|2", 'a cursor');
BEGIN;
DECLARE c CURSOR WITH HOLD FOR
  SELECT s.stream_no, t.sequence_number FROM mako.stream s, mako_trace(s.stream_id) t
  WHERE s.workflow_id ~ '^native' ORDER BY 1, 2;
FETCH 2 FROM c;
COMMIT;
SQL
answers($y, "SELECT migrated FROM mako_migrate($step)", '20', '... while a migration comes');
answers($x, 'FETCH 2 FROM c', "2|3\n2|4", '... goes on as it was');
answers($x, 'CLOSE ALL; SELECT count(*) FROM pg_cursors', '0', '... to its end');
close_session($_) for $x, $y;
is(disorder($node, 'store'), '', 'the store is in order');

$node->stop;
done_testing();
