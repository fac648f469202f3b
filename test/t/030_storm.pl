# Appends, states, migrations, batched runs, reverts and checks, while functions, types, indexes,
# columns, rights and statistics change all the time, and sessions are cancelled and killed. Nothing
# crashes, keeps a lock, or leaves the store in disorder, and every error can be explained.
#
# MAKO_SOAK=1 does it for two minutes. MAKO_SEED repeats the choices of an earlier run, if not its
# timing.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MakoTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($seconds, $streams) = $ENV{MAKO_SOAK} ? (120, 4000) : (6, 600);
my $seed = srand($ENV{MAKO_SEED} || time ^ $$);
note("seed $seed");

my $node = new_server('storm');
$node->append_conf('postgresql.conf', <<'CONF');
autovacuum = on
autovacuum_naptime = 1
CONF
$node->restart;
create_two_workflows($node, 'store', $streams);
$node->safe_psql('store', <<'SQL');
CREATE TABLE taken (run_id bigint, stream_id text);
CREATE INDEX ON taken (stream_id);
SELECT mako_add_sink('INSERT INTO taken SELECT run_id, stream_id FROM moved',
  'DELETE FROM taken t USING moved m WHERE t.stream_id = m.stream_id AND t.run_id = m.run_id');
SQL
my $end = time + $seconds;
my %client;

# A client that repeats statements until the end.
sub start_client
{
	my ($name, $sql) = @_;

	$client{$name} = start_loop($node, 'store', $name, $end, $sql);
}

# One stream of all.
my $choose = <<SQL;
SELECT stream_id AS stream, workflow_id AS workflow FROM mako.stream
WHERE stream_no = (SELECT 1 + floor(random() * $streams)) \\gset
SQL
for my $writer (1 .. 2)
{
	start_client("append_$writer", <<SQL);
$choose
SELECT 'appended', mako_append(:'stream', :'workflow', 'Noted', '{"note": $writer}');
SQL
}
start_client('state', <<SQL);
$choose
SELECT sequence_number FROM mako_state(:'stream');
SELECT count(*) FROM mako_trace(:'stream');
SELECT count(*) FROM mako_resume(:'stream');
SELECT count(*) FROM mako_history(:'stream');
SQL
start_client('migrate', <<'SQL');
SELECT 'migrated', mako_format(r) FROM mako_migrate('native@FV2024-10-01', 'native@FV2025-10-01') r;
SELECT 'migrated', mako_format(r) FROM mako_migrate('native@FV2025-10-01', 'native@FV2024-10-01') r;
SELECT 'reverted', mako_format(mako_revert(max(run_id))) FROM mako.migration_run
WHERE kind = 'single' AND migrated > 0;
SQL
start_client('batched', <<'SQL');
CALL mako_migrate_batched('plain@FV2024-10-01', 'plain@FV2025-10-01', batch_size => 100);
SELECT 'batched', count(*) FROM mako.migration_run;
CALL mako_migrate_batched('plain@FV2025-10-01', 'plain@FV2024-10-01', batch_size => 77);
SQL
start_client('check', <<'SQL');
SELECT pg_sleep(0.5);
SELECT code FROM mako_check(10) WHERE severity = 'error';
SELECT count(*) FROM mako_verify((SELECT max(run_id) FROM mako.migration_run
  WHERE kind <> 'revert' AND finished_at IS NOT NULL AND closed_by IS NULL));
SQL
# The same texts again: what a fingerprint describes does not change.
start_client('functions', <<'SQL');
SELECT pg_get_functiondef(('lib.' || name)::regproc)
FROM unnest('{wrap,apply_native,apply_plain,forth,back}'::text[]) AS name \gexec
SQL
start_client('types', <<'SQL');
CREATE TYPE lib.pair AS (a int, b int); DROP TYPE lib.pair;
CREATE DOMAIN lib.positive AS int CHECK (VALUE > 0); DROP DOMAIN lib.positive;
CREATE ROLE storm_role; GRANT EXECUTE ON FUNCTION lib.wrap TO storm_role;
REVOKE EXECUTE ON FUNCTION lib.wrap FROM storm_role; DROP ROLE storm_role;
SQL
start_client('indexes', <<'SQL');
SET lock_timeout = '300ms';
CREATE INDEX storm ON mako.stream (workflow_id); DROP INDEX mako.storm;
CREATE INDEX storm ON mako.snapshot ((state->>'count')) WHERE run_id > 0; DROP INDEX mako.storm;
SELECT pg_sleep(0.3);
SQL
start_client('columns', <<'SQL');
SET lock_timeout = '300ms';
ALTER TABLE mako.event ADD extra int DEFAULT 7; ALTER TABLE mako.event DROP extra;
ALTER TABLE mako.snapshot ADD extra text DEFAULT 'x'; ALTER TABLE mako.snapshot DROP extra;
ALTER TABLE mako.stream ADD extra int; ALTER TABLE mako.stream DROP extra;
SELECT pg_sleep(1);
SQL
start_client('vacuum', <<'SQL');
VACUUM ANALYZE mako.stream; VACUUM mako.event; VACUUM mako.snapshot; ANALYZE; SELECT pg_sleep(0.2);
SQL
start_client('rewrite', <<'SQL');
SET lock_timeout = '300ms';
VACUUM FULL mako.snapshot; CLUSTER mako.event USING event_pkey; VACUUM FULL mako.stream;
SELECT pg_sleep(2);
SQL
start_client('repair', <<'SQL');
SET lock_timeout = '300ms'; SELECT mako_create_store(); SELECT pg_sleep(0.5);
SQL
start_client('kill', <<'SQL');
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE application_name IN ('migrate', 'batched') AND random() < 0.1;
SELECT pg_cancel_backend(pid) FROM pg_stat_activity
WHERE application_name <> 'kill' AND datname = 'store' AND random() < 0.1;
SELECT pg_sleep(0.5);
SQL
finish_sql($_) for values %client;

# ---- what was said

my %count;
my $done = join '', map { $_->{out} } values %client;
$count{$1}++ while $done =~ /^(appended|migrated|reverted|batched)\|/mg;
cmp_ok($count{$_} // 0, '>', 0, "$_: " . ($count{$_} // 0) . ' times')
  for qw(appended migrated reverted batched);

# Cancelled, killed, waited too long, deadlock, conflict, the stream has moved.
my $expected = qr/57014|57P01|55P03|40P01|40001|MK005/;
# What a statement leaves behind that was cancelled before its counterpart, or does not leave for
# the next one (psql then sends the name of the variable); the server's own race.
my %expected = (
	state => qr/42601: syntax error at or near/,
	columns => qr/42701|42703/,
	indexes => qr/42P07|42704/,
	types => qr/42710|42704|2BP01|XX000: tuple concurrently (updated|deleted)/,
	functions => qr/XX000: tuple concurrently (updated|deleted)/);
for my $name (sort keys %client)
{
	my %error;

	$error{ "$1: " . $2 =~ s/".*"/.../r }++
	  while $client{$name}{err} =~ /(?:ERROR|FATAL|PANIC): +(\w+): (.*)/g;
	note("$name: $error{$_} times $_") for sort keys %error;
	my @unexpected = grep { !/^$expected/ && !($expected{$name} && /^$expected{$name}/) } keys %error;
	# The name tells them: a report may keep no more of a test.
	ok(!@unexpected, join ' | ', "$name: no error that cannot be explained", @unexpected);
}
my $log = slurp_file($node->logfile);
my @crashes = $log =~ /^.*(?:PANIC|TRAP|terminated by signal).*$/mg;
is("@crashes", '', 'nothing has crashed');

# ---- what is left

is(disorder($node, 'store'), '', 'the store is in order');
is($node->safe_psql('store', <<'SQL'), '0', 'a sink has taken what has moved, and nothing else');
SELECT count(*) FROM taken FULL JOIN mako.migrated_stream m USING (run_id, stream_id)
WHERE m.run_id IS NULL OR taken.run_id IS NULL
SQL
is($node->safe_psql('store', <<'SQL'), '0', 'runs that are verified hold');
SET client_min_messages = error;
SELECT count(*)
FROM (SELECT run_id FROM mako.migration_run
      WHERE kind <> 'revert' AND finished_at IS NOT NULL AND closed_by IS NULL
      ORDER BY run_id DESC LIMIT 6) r, LATERAL mako_verify(r.run_id) v
SQL
my ($from, $to) = $node->safe_psql('store', <<'SQL') =~ /^(.*)\|(.*)$/;
SELECT source_wf, target_wf FROM mako.migration_run WHERE kind = 'batched' AND finished_at IS NULL
UNION ALL VALUES ('plain@FV2024-10-01', 'plain@FV2025-10-01') LIMIT 1
SQL
is(error_of($node, 'store', "CALL mako_migrate_batched('$from', '$to')"), '',
	'a batched run comes to its end');
is($node->safe_psql('store', <<'SQL'), "0\n0", 'so does one of the other workflow');
SELECT failed FROM mako_migrate('native@FV2024-10-01', 'native@FV2025-10-01');
SELECT count(*) FROM mako.stream WHERE workflow_id = 'native@FV2024-10-01';
SQL
is(disorder($node, 'store'), '', '... and leave the store in order');
is(damage($node, 'store'), '', 'indexes and tables are whole');

$node->stop;
done_testing();
