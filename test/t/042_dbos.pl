# Workflows of DBOS, whose steps are a log, go on under version 2 of their application: the log is imported, a migration inserts the step that
# version 2 has and version 1 had not, and a sink writes the log back, all in one transaction.
#
# DBOS takes the log of another order of steps for an error. It comes from its registry into a temporary folder.
use strict;
use warnings;

use File::Copy;
use FindBin;
use lib $FindBin::RealBin;
use IPC::Run;
use JSON::PP;
use MakoTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $folder = PostgreSQL::Test::Utils::tempdir();
my $log = "$folder/executed";

# Runs a program; undef unless it succeeds, otherwise what it printed.
sub output_of
{
	my ($seconds, @command) = @_;
	my ($out, $err) = ('', '');

	my $run = eval { IPC::Run::start(\@command, '<', \'', '>', \$out, '2>', \$err, IPC::Run::timeout($seconds)) } or return undef;
	my $done = eval { $run->finish };
	return $out if $done;
	note("@command[0, 1]: $err" . $@);
	$run->kill_kill unless defined $done;
	return undef;
}

plan skip_all => 'no node' unless output_of(60, 'node', '--version');
plan skip_all => 'no npm' unless output_of(60, 'npm', '--version');
plan skip_all => 'npm could not install DBOS'
  unless defined output_of(180, qw(npm install --no-save --no-audit --no-fund --ignore-scripts --silent --fetch-retries=1 --prefix),
	$folder, '@dbos-inc/dbos-sdk@5.3.0')
  && -e "$folder/node_modules/\@dbos-inc/dbos-sdk/dist/src/index.js";
# Where its imports are found
copy("$FindBin::RealBin/clients/dbos_orders.mjs", $folder) or die "dbos_orders.mjs: $!";

my $node = new_server('dbos');
my $user = $node->safe_psql('postgres', 'SELECT current_user');
my $url = sprintf 'postgresql://%s@localhost:%d/shop?host=%s', $user, $node->port, $node->host;

$node->safe_psql('postgres', 'CREATE DATABASE shop');

sub application
{
	my ($version, @arguments) = @_;

	return ('node', "$folder/dbos_orders.mjs", $version, $url, $log, @arguments);
}

# What each order is for DBOS, and the steps that its log has.
sub orders
{
	return $node->safe_psql('shop', <<'SQL');
SELECT w.workflow_uuid, w.status, w.application_version, string_agg(o.function_id || ' ' || o.function_name, ', ' ORDER BY o.function_id)
FROM dbos.workflow_status w LEFT JOIN dbos.operation_outputs o USING (workflow_uuid)
GROUP BY w.workflow_uuid ORDER BY w.workflow_uuid COLLATE "C"
SQL
}

# The steps that were executed since the last time.
sub executed
{
	my @lines = -e $log ? sort split /\n/, slurp_file($log) : ();

	unlink $log;
	return \@lines;
}

# All that DBOS has of workflows and their steps.
sub log_of_dbos
{
	return $node->safe_psql('shop', 'SELECT o FROM dbos.operation_outputs o ORDER BY o::text; SELECT w.workflow_uuid, w.application_version, w.status FROM dbos.workflow_status w ORDER BY w.workflow_uuid');
}

# ---- version 1 dies -------------------------------------------------------------------------------------------------------

my %started = (
	'answer' => { amount => 100 },
	'large' => { amount => 5000 },
	'naive' => { amount => 200 },
	'sleep' => { amount => 300, patience => 6000 },
);
my ($out, $err) = ('', '');
my $first = IPC::Run::start([ application('FV2024-10-01', 'start', encode_json(\%started)) ], '<', \undef, '>', \$out, '2>', \$err,
	IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
$first->pump while $first->pumpable && $out !~ /waiting/;
like($out, qr/waiting/, 'version 1 starts orders, which wait') or diag($err);
$first->signal('KILL');
eval { $first->finish };

my $left = <<'TEXT';
answer|PENDING|FV2024-10-01|0 reserveStock, 1 price, 3 DBOS.sleep
large|PENDING|FV2024-10-01|0 reserveStock, 1 price, 3 DBOS.sleep
naive|PENDING|FV2024-10-01|0 reserveStock, 1 price, 3 DBOS.sleep
sleep|PENDING|FV2024-10-01|0 reserveStock, 1 price, 2 DBOS.sleep
TEXT
chomp $left;
is(orders(), $left, 'it dies, and leaves a log with gaps');
is_deeply(executed(), [ map { ("FV2024-10-01 $_ price", "FV2024-10-01 $_ reserveStock") } sort keys %started ], '... of what it has executed');

# ---- without a migration --------------------------------------------------------------------------------------------------

is(output_of(60, application('FV2025-10-01', 'recover')), "{}\n", 'version 2 starts');
is(orders(), $left, '... and leaves the orders of version 1 where they are');
is_deeply(executed(), [], '... without executing anything');

$node->safe_psql('shop', "UPDATE dbos.workflow_status SET application_version = 'FV2025-10-01' WHERE workflow_uuid = 'naive'");
my $naive = output_of(60, application('FV2025-10-01', 'recover', '["naive"]')) // '';
like($naive, qr/fraudCheck/, 'an order that is only given another version ends with an error');
like(orders(), qr/^naive\|ERROR\|/m, '... for ever');
executed();

# ---- imported and migrated ------------------------------------------------------------------------------------------------

$node->safe_psql('shop', <<'SQL');
CREATE EXTENSION mako_migration;
SELECT mako_create_store();
CREATE SCHEMA shop;

-- The state of an order is its log; an event is a row of it.
CREATE FUNCTION shop.apply(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT jsonb_set(state, '{steps}', state->'steps' || payload) $$;

-- Version 2 looks for fraud second, and all steps behind get the next number. Times and the like of that step are those of the first one. Large orders wait for a person.
CREATE FUNCTION shop.migrate(state jsonb) RETURNS jsonb LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN price > 1000 THEN mako_reject(format('an order of %s needs a person', price))
    ELSE jsonb_build_object('steps', moved || ((moved->0) - 'was' || jsonb_build_object(
      'function_id', 1, 'function_name', 'fraudCheck', 'output', '{"json":{"by":"migration"},"__dbos_serializer":"superjson"}'))) END
  FROM (SELECT max((s->>'output')::jsonb->'json'->>'price') FILTER (WHERE s->>'function_name' = 'price')::numeric AS price,
               jsonb_agg(s || jsonb_build_object('was', n, 'function_id', n + CASE WHEN n < 1 THEN 0 ELSE 1 END) ORDER BY n) AS moved
        FROM jsonb_array_elements(state->'steps') AS s, LATERAL (SELECT (s->>'function_id')::int) AS x (n)) AS x $$;
SELECT mako_register_workflow('order@FV2024-10-01', 'shop.apply', initial_state => '{"steps": []}'),
       mako_register_workflow('order@FV2025-10-01', 'shop.apply', initial_state => '{"steps": []}', state_schema_version => 2);
SELECT mako_register_migration('order@FV2024-10-01', 'order@FV2025-10-01', 'shop.migrate');

-- The log of an order becomes that of its state. The old rows have to be gone before rows of the same numbers come.
SELECT mako_add_sink($$
  WITH gone AS (
    DELETE FROM dbos.operation_outputs o USING moved m WHERE o.workflow_uuid = m.stream_id RETURNING 1),
  version AS (
    UPDATE dbos.workflow_status w SET application_version = split_part(m.target_wf, '@', 2) FROM moved m WHERE w.workflow_uuid = m.stream_id)
  INSERT INTO dbos.operation_outputs
  SELECT r.* FROM (SELECT count(*) FROM gone) AS g, moved m, jsonb_array_elements(m.state->'steps') AS s,
    jsonb_populate_record(NULL::dbos.operation_outputs, s || jsonb_build_object('workflow_uuid', m.stream_id)) AS r$$,
undo => $$
  WITH gone AS (
    DELETE FROM dbos.operation_outputs o USING moved m WHERE o.workflow_uuid = m.stream_id RETURNING 1),
  version AS (
    UPDATE dbos.workflow_status w SET application_version = split_part(m.source_wf, '@', 2) FROM moved m WHERE w.workflow_uuid = m.stream_id)
  INSERT INTO dbos.operation_outputs
  SELECT r.* FROM (SELECT count(*) FROM gone) AS g, moved m, jsonb_array_elements(m.state->'steps') AS s,
    jsonb_populate_record(NULL::dbos.operation_outputs, s || jsonb_build_object('workflow_uuid', m.stream_id, 'function_id', s->'was')) AS r
  WHERE s ? 'was'$$);
SQL

# The numbers of steps have gaps, those of events must not.
my $import = <<'SQL';
ALTER TABLE mako.event DISABLE TRIGGER event_inserted;
INSERT INTO mako.stream (stream_id, workflow_id)
SELECT workflow_uuid, name || '@' || application_version FROM dbos.workflow_status
WHERE status = 'PENDING' AND application_version = 'FV2024-10-01' ORDER BY created_at, workflow_uuid;
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
SELECT s.stream_no, row_number() OVER (PARTITION BY s.stream_no ORDER BY o.function_id), s.workflow_id, o.function_name, to_jsonb(o) - 'workflow_uuid'
FROM dbos.operation_outputs o JOIN mako.stream s ON s.stream_id = o.workflow_uuid;
ALTER TABLE mako.event ENABLE TRIGGER event_inserted;
SELECT streams, events, spanning FROM mako_adopt_events();
SQL
my $run = '(SELECT max(run_id) FROM mako.migration_run WHERE kind <> \'revert\')';
my $migrate_orders = "SELECT migrated, skipped, failed FROM mako_migrate('order\@FV2024-10-01', 'order\@FV2025-10-01')";
my $log_of_version_1 = log_of_dbos();

is($node->safe_psql('shop', "BEGIN;\n$import$migrate_orders;\nROLLBACK"), "3|9|0\n2|0|1", 'imported and migrated in one transaction');
is(log_of_dbos(), $log_of_version_1, '... of which nothing is left when it is rolled back');
is($node->safe_psql('shop', 'SELECT count(*) FROM mako.stream'), 0, '... here, either');
is($node->safe_psql('shop', "BEGIN;\n$import$migrate_orders;\nCOMMIT"), "3|9|0\n2|0|1", 'imported and migrated in one transaction');
is($node->safe_psql('shop', "SELECT stream_id, phase, sqlstate, message FROM mako.migration_error WHERE run_id = $run"),
	'large|migrate|MK002|an order of 5950 needs a person', '... but the order that is refused');
is($node->safe_psql('shop', "SELECT * FROM mako_verify($run)"), '', '... and verified');

my $after = <<'TEXT';
answer|PENDING|FV2025-10-01|0 reserveStock, 1 fraudCheck, 2 price, 4 DBOS.sleep
large|PENDING|FV2024-10-01|0 reserveStock, 1 price, 3 DBOS.sleep
naive|ERROR|FV2025-10-01|0 reserveStock, 1 price, 3 DBOS.sleep
sleep|PENDING|FV2025-10-01|0 reserveStock, 1 fraudCheck, 2 price, 3 DBOS.sleep
TEXT
chomp $after;
is(orders(), $after, 'the log is that of version 2');
is($node->safe_psql('shop', "SELECT migrated, failed FROM mako_revert($run)"), '2|0', 'taken back');
is(log_of_dbos(), $log_of_version_1, '... the log is what version 1 left, to the byte');
is($node->safe_psql('shop', $migrate_orders), '2|0|1', 'migrated again');
is(orders(), $after, '... the log is that of version 2');

# ---- version 2 goes on ----------------------------------------------------------------------------------------------------

is_deeply(decode_json(output_of(60, application('FV2025-10-01', 'recover', '["answer", "sleep"]')) // '{}'),
	{
		answer => { shelf => 'S-2', fraud => 'migration', year => 2024, answer => 'yes', charged => 119, parcel => 100 },
		sleep => { shelf => 'S-6', fraud => 'migration', year => 2024, charged => 357, parcel => 300 },
	},
	'version 2 takes the orders to their ends');
is_deeply(executed(), [ map { ("FV2025-10-01 $_ charge", "FV2025-10-01 $_ ship") } qw(answer sleep) ], '... and executes what was not executed before');
is(orders(), <<'TEXT' =~ s/\n\z//r, '... so that its log has all steps, while the refused order waits under version 1');
answer|SUCCESS|FV2025-10-01|0 reserveStock, 1 fraudCheck, 2 price, 3 DBOS.recv, 4 DBOS.sleep, 5 charge, 6 ship
large|PENDING|FV2024-10-01|0 reserveStock, 1 price, 3 DBOS.sleep
naive|ERROR|FV2025-10-01|0 reserveStock, 1 price, 3 DBOS.sleep
sleep|SUCCESS|FV2025-10-01|0 reserveStock, 1 fraudCheck, 2 price, 3 DBOS.sleep, 4 charge, 5 ship
TEXT
is_deeply(decode_json(output_of(60, application('FV2024-10-01', 'recover', '["large"]')) // '{}'),
	{ large => { shelf => 'S-2', year => 2024, answer => 'yes', charged => 5950, parcel => 5000 } }, '... where version 1 can end it');
is_deeply(executed(), [ map { "FV2024-10-01 large $_" } qw(charge ship) ], '... executing what was left');

$node->stop;
done_testing();
