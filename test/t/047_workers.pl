# Runs whose streams are folded by workers: the same as without them, whatever the streams are; where there are none, and why; what
# happens when a worker, the leader or the server ends; whose rights and settings a worker has.
#
# MAKO_SOAK=1 takes three seeds of 100,000 streams, and ends processes more often. MAKO_SEED repeats the choices of an earlier run, if
# not its timing.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin, "$FindBin::RealBin/../bench";
use Bench ();
use MakoTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes;

my $streams = $ENV{MAKO_SOAK} ? 100_000 : 6_000;
my $seeds = $ENV{MAKO_SOAK} ? 3 : 1;
my $ends = $ENV{MAKO_SOAK} ? 20 : 2;
my $seed = srand($ENV{MAKO_SEED} || time ^ $$);
note("seed $seed");

my $node = new_server('workers');
$node->append_conf('postgresql.conf', <<'CONF');
mako_migration.scan_order = heap
log_min_messages = warning
restart_after_crash = on
CONF
$node->reload;

# Calls with so many workers in small batches, so that each of them gets streams; returns the answer and what was said of workers.
sub migrate_with
{
	my ($db, $workers, $call, %with) = @_;
	my $messages;
	my $answer = '';

	$node->psql($db, <<SQL, stdout => \$answer, stderr => \$messages);
SET client_min_messages = debug1;
SET mako_migration.max_workers = $workers;
SET mako_migration.batch_size = 500;
@{[ $with{before} // '' ]}
$call;
@{[ $with{after} // '' ]}
SQL
	my ($started) = $messages =~ /started (\d+) of/;
	my ($folded, $left) = $messages =~ /workers have folded (\d+) streams, (\d+) are left/;
	my ($why) = $messages =~ /folding without workers: (.*)/;
	my ($error) = $messages =~ /ERROR:  (.*)/;
	return {
		answer => $answer, started => $started // 0, folded => $folded, left => $left, why => $why, error => $error, messages => $messages
	};
}

# What a run leaves, but for the audit trail's times.
sub left_in { return outcome($node, $_[0]) . "\n" . $node->safe_psql($_[0], <<'SQL') }
SELECT count(*), md5(string_agg(format('%s %s %s %s %s %s %s', stream_no, phase, sequence_number, sqlstate, message, detail, hint), E'\n'
  ORDER BY run_id, stream_no)) FROM mako.migration_error;
SQL

sub copy
{
	my ($from, $to) = @_;

	$node->safe_psql('postgres', "DROP DATABASE IF EXISTS $to");
	$node->safe_psql('postgres', "CREATE DATABASE $to TEMPLATE $from");
}

# ---- the same as without

my $version = "SELECT string_agg(format('%s %s %s %s', source_wf, migrated, skipped, failed), ',') FROM mako_migrate_version('FV2024-10-01', 'FV2025-10-01')";
create_store($node, 'store');
for my $number (1 .. $seeds)
{
	copy('store', 'generated');
	generate($node, 'generated', "generate($streams, 'seed $seed $number')");
	# One in a hundred is bad.
	$node->safe_psql('generated', <<'SQL');
SET session_replication_role = replica;
UPDATE mako.event SET payload = '{"type": 7}' WHERE stream_no % 400 = 1 AND sequence_number = 2;
DELETE FROM mako.event WHERE stream_no % 400 = 101 AND sequence_number = 2;
UPDATE mako.stream SET version = version + 1 WHERE stream_no % 400 = 201;
INSERT INTO mako.event (stream_no, sequence_number, event_id, workflow_id, event_type, payload)
SELECT s.stream_no, s.version + 1, gen_random_uuid(), s.workflow_id, 'Late', '{}' FROM mako.stream s WHERE stream_no % 400 = 301;
SQL
	for my $case (
		[ 'one table', '', $migrate ],
		[ 'a version', '', $version ],
		[ 'with a sink', 'sink', $migrate ],
		[ 'in flight only', '', "SELECT migrated, skipped, failed FROM mako_migrate('$source', '$target', in_flight_only => true)" ],
		[ 'a tenant', '', "SELECT migrated, skipped, failed FROM mako_migrate('$source', '$target', tenant_id =>
		  (SELECT tenant_id FROM mako.stream WHERE tenant_id IS NOT NULL GROUP BY tenant_id ORDER BY count(*) DESC, 1 LIMIT 1))" ],
		[ 'heads stay', '', "SELECT migrated, skipped, failed FROM mako_migrate('$source', '$target', update_registry => false)" ],
		[ 'partitions', Bench::partition_events(), $migrate ])
	{
		my ($what, $prepare, $call) = @$case;

		copy('generated', 'plain');
		if ($prepare eq 'sink') { add_sink($node, 'plain') }
		elsif ($prepare ne '') { $node->safe_psql('plain', $prepare) }
		copy('plain', 'shared');
		my $without = migrate_with('plain', 0, $call);
		my $with = migrate_with('shared', 3, $call);
		is($with->{answer}, $without->{answer}, "$what: workers count what a run without them counts");
		is($with->{started}, 3, '... and there were three');
		cmp_ok($with->{left}, '<', ($with->{folded} // 0) / 10 + 100, "... which have folded nearly all streams: $with->{folded}, $with->{left} left");
		is(left_in('shared'), left_in('plain'), '... and left the same');
		is($node->safe_psql('shared', 'SELECT * FROM mako_verify(1)'), '', '... of which the proof is silent');
	}

	# A batched run leaves the same, too, but for how it was divided.
	copy('generated', 'plain');
	copy('generated', 'shared');
	migrate_with('shared', 3, $migrate);
	$node->safe_psql('plain', "SET client_min_messages = error; CALL mako_migrate_batched('$source', '$target', 700)");
	is_deeply(
		(map { my $left = $_; [ grep { !/^mako\.migration_(run|batch|error)/ } split /\n/, $left ] } map { left_in($_) } qw(plain shared)),
		'a batched run leaves what one with workers leaves');
	is($node->safe_psql('plain', 'SELECT * FROM mako_verify(1)'), '', '... of which the proof is silent');
}

# Events in any order.
copy('generated', 'plain');
$node->safe_psql('plain', <<'SQL');
SET session_replication_role = replica;
CREATE TEMP TABLE e AS SELECT * FROM mako.event;
TRUNCATE mako.event;
INSERT INTO mako.event SELECT * FROM e ORDER BY event_id;
SQL
copy('plain', 'shared');
is(migrate_with('shared', 2, $migrate)->{answer}, migrate_with('plain', 0, $migrate)->{answer}, 'in a table without any order');
is(left_in('shared'), left_in('plain'), '... the same is left');

# Dry runs and proofs: the same rows in the same order; of damaged snapshots, too.
copy('plain', 'shared');
for my $case (
	[ 'a dry run', 'generated', "SELECT md5(string_agg(d::text, E'\\n')), count(*), count(error) FROM mako_dry_run('$source', '$target') AS d" ],
	[ 'a summary', 'generated', "SELECT string_agg(s::text, E'\\n') FROM mako_dry_run_summary('$source', '$target') AS s" ],
	[ 'a dry run of what is in flight', 'generated',
		"SELECT md5(string_agg(d::text, E'\\n')), count(*) FROM mako_dry_run('$source', '$target', in_flight_only => true) AS d" ],
	[ 'a proof', 'shared', "SELECT md5(string_agg(v::text, E'\\n')), count(*) FROM mako_verify(1) AS v",
		"SET session_replication_role = replica; UPDATE mako.snapshot SET state = '{}' WHERE stream_no % 50 = 3;
		 UPDATE mako.snapshot SET sequence_number = sequence_number + 100 WHERE stream_no % 50 = 4 AND run_id > 0;
		 DELETE FROM mako.stream WHERE stream_no % 50 = 5" ])
{
	my ($what, $db, $query, $damage) = @$case;

	$node->safe_psql($db, $damage) if $damage;
	my ($without, $with) = map { migrate_with($db, $_, $query) } 0, 3;
	is($with->{answer}, $without->{answer}, "$what: workers make the same rows") or diag("$with->{messages}\n$without->{answer}");
	is("$without->{started} $with->{started}", '0 3', '... three of them');
}
my $read_only = migrate_with('generated', 2, "SELECT count(*) FROM mako_dry_run('$source', '$target')", before => 'BEGIN READ ONLY;');
is($read_only->{started}, 2, '... in a read-only transaction, too');

# Too many errors.
for my $workers (0, 2)
{
	copy('generated', 'shared');
	my $before = contents($node, 'shared');
	my $run = migrate_with('shared', $workers, "SELECT migrated FROM mako_migrate('$source', '$target', max_errors => 3)");
	like($run->{error}, qr/4 streams? (could not|failed)|too many|more than 3/i, "$workers workers: more errors than may be end the run");
	is(contents($node, 'shared'), $before, '... which changes nothing');
}

# ---- where there are none

copy('store', 'small');
generate($node, 'small', "generate(600, 'seed $seed')");
copy('small', 'shared');
my $plan = "SELECT workers FROM mako_plan('$source', '$target') WHERE step IS NULL";
for my $case (
	[ 'a transaction that has changed something', 'BEGIN; CREATE TABLE public.changed ()', qr/the transaction has changed something already/ ],
	[ 'a serializable transaction', 'BEGIN ISOLATION LEVEL SERIALIZABLE', qr/the transaction is serializable/ ],
	[ 'SET SESSION AUTHORIZATION', 'CREATE ROLE other SUPERUSER; SET SESSION AUTHORIZATION other', qr/SET SESSION AUTHORIZATION is in effect/ ],
	[ 'none wanted', 'SET mako_migration.max_workers = 0', qr/mako_migration.max_workers is 0/ ],
	[ 'none wanted by the server', 'SET mako_migration.max_workers = -1; SET max_parallel_workers_per_gather = 0', qr/max_parallel_workers_per_gather is 0/ ],
	[ 'few streams', 'SET mako_migration.scan_order = auto', qr/there are fewer than 5000 streams/ ],
	[ 'a function that is not safe', 'ALTER FUNCTION gpke.supplier_change_migrate_2024_2025(jsonb) PARALLEL RESTRICTED;
	  SELECT mako_register_migration(source_wf, target_wf, migrate, replace => true) FROM mako_state_migration WHERE source_wf = \'' . $source . "' \\g /dev/null\n",
		qr/function gpke.supplier_change_migrate_2024_2025\(pg_catalog.jsonb\) is not PARALLEL SAFE/ ])
{
	my ($what, $before, $why) = @$case;

	copy('small', 'shared');
	$node->safe_psql('postgres', 'DROP ROLE IF EXISTS other');
	my $run = migrate_with('shared', 2, "$plan; $migrate", before => "$before;", after => 'COMMIT;');
	like($run->{why}, $why, "$what: no workers");
	like($run->{answer}, qr/^0: $why/m, '... and the plan says why');
	is($run->{started}, 0, '... so there were none');
}
copy('small', 'shared');
is($node->safe_psql('shared', "SET mako_migration.max_workers = 3; $plan"), '3', 'the plan tells how many there would be');

# Other places are taken: those that are free are used, and the run goes on without any.
$node->append_conf('postgresql.conf', 'max_worker_processes = 2');
$node->restart;
copy('small', 'plain');
my $without = migrate_with('plain', 0, $migrate);
my $few = migrate_with('shared', 8, $migrate);
cmp_ok($few->{started}, '<=', 2, "places for two: $few->{started} of 8 workers");
is($few->{answer}, $without->{answer}, '... and the run does it with those');
is(left_in('shared'), left_in('plain'), '... the same');
$node->append_conf('postgresql.conf', 'max_worker_processes = 0');
$node->restart;
copy('small', 'shared');
my $none = migrate_with('shared', 2, $migrate);
is("$none->{started} $none->{answer}", "0 $without->{answer}", 'no place: no worker, and the same');
$node->append_conf('postgresql.conf', 'max_worker_processes = 8');
$node->restart;

# ---- rights and settings

# A function that tells who evaluates it and under which settings.
create_two_workflows($node, 'rights', 2000);
$node->safe_psql('rights', <<'SQL');
CREATE ROLE author; CREATE ROLE owner;
GRANT USAGE, CREATE ON SCHEMA lib TO author;
CREATE FUNCTION lib.told(state jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
BEGIN
  RETURN state || jsonb_build_object('told', format('%s %s %s %s %s %s', current_user, session_user, current_setting('app.day', true),
    current_setting('TimeZone'), current_setting('search_path'), current_setting('work_mem')));
END $$;
ALTER FUNCTION lib.told(jsonb) OWNER TO author;
SELECT mako_register_migration('native@FV2024-10-01', 'native@FV2025-10-01', 'lib.told', replace => true);
GRANT USAGE ON SCHEMA mako, lib TO owner;
GRANT ALL ON ALL TABLES IN SCHEMA mako, lib TO owner;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA public TO owner, author;
SQL
my $native = "SELECT migrated, skipped, failed FROM mako_migrate('native\@FV2024-10-01', 'native\@FV2025-10-01')";
for my $workers (0, 2)
{
	copy('rights', "rights_$workers");
	my $run = migrate_with("rights_$workers", $workers, $native,
		before => "SET work_mem = '5MB'; SET app.day = 'Monday'; SET TimeZone = 'Asia/Tokyo'; SET ROLE owner;");
	is("$run->{started} $run->{answer}", "$workers 1000|1000|0", "as a role of the caller, $workers workers") or diag($run->{messages});
}
my $told = "SELECT state->>'told', count(*) FROM mako.snapshot WHERE run_id = 1 GROUP BY 1";
like($node->safe_psql('rights_0', $told), qr/^author \w+ Monday UTC .*5MB\|1000$/, 'functions are told the role and the settings');
is($node->safe_psql('rights_2', $told), $node->safe_psql('rights_0', $told), '... the same ones in workers');

# Streams that are refused come among the others of a proof.
copy('rights_0', 'beyond');
$node->safe_psql('beyond', <<'SQL');
SET session_replication_role = replica;
UPDATE mako.event SET event_type = 'Unknown' WHERE stream_no % 10 = 2 AND sequence_number = 2;
UPDATE mako.snapshot SET state = state || '{"more": 1}' WHERE stream_no % 10 <> 2 AND run_id = 1;
SQL
for my $workers (0, 2)
{
	is( migrate_with('beyond', $workers, <<'SQL')->{answer}, 't|t|t', "a proof is in the order of the streams, $workers workers");
SELECT array_agg(s.stream_no ORDER BY v.n) = array_agg(s.stream_no ORDER BY s.stream_no), bool_or(v.problem LIKE 'cannot be recomputed%'), bool_or(v.problem = 'state differs')
FROM mako_verify(1) WITH ORDINALITY AS v (stream_id, sequence_number, problem, stored, computed, differs_from, n) JOIN mako.stream s USING (stream_id)
SQL
}

# Events behind a head that its boundary is beyond are noticed in every order, with workers and without.
copy('rights', 'beyond');
$node->safe_psql('beyond', <<'SQL');
SELECT mako_register_migration('native@FV2025-10-01', 'native@FV2024-10-01', replace => true);
SELECT mako_migrate('native@FV2024-10-01', 'native@FV2025-10-01');
SELECT mako_migrate('native@FV2025-10-01', 'native@FV2024-10-01');
SET session_replication_role = replica;
CREATE TEMP TABLE b AS SELECT stream_no FROM mako.stream WHERE workflow_id = 'native@FV2024-10-01' ORDER BY 1 LIMIT 2;
UPDATE mako.event e SET sequence_number = 102 FROM b WHERE e.stream_no = b.stream_no AND e.sequence_number = 2;
UPDATE mako.stream s SET version = 0 FROM b WHERE s.stream_no = b.stream_no;
SQL
for my $case ([ 'key', 0 ], [ 'heap', 0 ], [ 'heap', 2 ])
{
	my ($order, $workers) = @$case;
	my $run = migrate_with('beyond', $workers, $native =~ s/\)$/, max_errors => NULL)/r, before => "SET mako_migration.scan_order = $order; BEGIN;", after => 'ROLLBACK;');
	is($run->{answer}, '998|1000|2', "events beyond a head at 0, in $order order, $workers workers") or diag($run->{messages});
}

# What a function reports comes to the client, from workers too.
create_two_workflows($node, 'reports', 400);
$node->safe_psql('reports', <<'SQL');
CREATE FUNCTION lib.reports(state jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE PARALLEL SAFE AS
$$ BEGIN RAISE NOTICE 'seen %', state->'seen' USING HINT = 'as reported'; RETURN state; END $$;
SELECT mako_register_migration('plain@FV2024-10-01', 'plain@FV2025-10-01', 'lib.reports', replace => true);
SQL
copy('reports', 'shared');
my $plain = "SELECT migrated, skipped, failed FROM mako_migrate('plain\@FV2024-10-01', 'plain\@FV2025-10-01')";
for my $case ([ 'reports', 0 ], [ 'shared', 2 ])
{
	my $run = migrate_with($case->[0], $case->[1], "SET mako_migration.batch_size = 50; $plain");
	my @notices = $run->{messages} =~ /NOTICE:  seen 4\n.*?HINT:  as reported/sg;
	is("$run->{started} $run->{answer} " . @notices, "$case->[1] 200|200|0 200", "notices of functions, $case->[1] workers, over a domain");
}
is(left_in('shared'), left_in('reports'), '... and the same is left');

# The check of a domain is a function, too.
$node->safe_psql('reports', <<'SQL');
SELECT mako_revert(1);
CREATE FUNCTION lib.is_object(state jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$ SELECT jsonb_typeof(state) = 'object' $$;
ALTER DOMAIN lib.state ADD CONSTRAINT by_function CHECK (lib.is_object(VALUE));
SELECT mako_register_workflow(workflow_id, apply => apply, initial_state => initial_state, state_schema_version => state_schema_version,
  replace => true) FROM mako_workflow;
SQL
my $unsafe = migrate_with('reports', 2, $plain);
is($unsafe->{why}, 'function lib.is_object(jsonb), in a check of lib.state, is not PARALLEL SAFE', 'a check that is not safe: no workers');
is($unsafe->{answer}, '200|200|0', '... and the run');

# What is refused is refused in the same words.
for my $workers (0, 2)
{
	my $run = migrate_with('rights', $workers, $native, before => 'SET ROLE author;');
	like($run->{error}, qr/permission denied for (table|schema)/, "without a privilege, $workers workers");
	is($run->{started}, 0, '... none of which is started');
}

# What a function is told of the transaction, the server and the client is the same in a worker. It has no parallel workers of its own,
# which would be in two groups.
create_two_workflows($node, 'told', 2000);
$node->safe_psql('told', <<'SQL');
CREATE TABLE lib.big AS SELECT generate_series(1, 20000) AS n;
CREATE FUNCTION lib.pid() RETURNS int LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$ BEGIN RETURN pg_backend_pid(); END $$;
CREATE FUNCTION lib.told(state jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE me int := lib.pid(); others bigint := 0;
BEGIN
  IF (state->>'n')::int % 50 = 0 OR state->>'n' IS NULL THEN SELECT count(*) INTO others FROM lib.big WHERE n < 100 AND lib.pid() <> me; END IF;
  RAISE NOTICE '%', 'gr' || chr(233);
  RETURN state || jsonb_build_object('now', now(), 'others', others);
END $$;
SELECT mako_register_migration('native@FV2024-10-01', 'native@FV2025-10-01', 'lib.told', replace => true);
SQL
my $of_native = "FROM mako.snapshot WHERE run_id = 1 AND workflow_id = 'native\@FV2025-10-01'";
my $told_run = migrate_with('told', 2, $native,
	before => "SET parallel_setup_cost = 0; SET parallel_leader_participation = off; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0; SET client_encoding = 'LATIN1'; "
	  . 'BEGIN; SELECT pg_sleep(0.3) \\g /dev/null' . "\n",
	after => "SELECT count(*), sum((state->>'others')::int), bool_and((state->>'now')::timestamptz = now()) $of_native; COMMIT;");
is("$told_run->{started} $told_run->{answer}", "2 1000|1000|0\n1000|0|t", 'workers have the time of the transaction, and no parallel workers')
  or diag($told_run->{messages});
my @in_latin1 = $told_run->{messages} =~ /NOTICE:  gr\xe9\n/g;
cmp_ok(scalar @in_latin1, '>=', 1000, '... and what they report is converted once');

# A dry run reports all, too.
{
	my ($without, $with);
	$node->safe_psql('reports', "ALTER DOMAIN lib.state DROP CONSTRAINT by_function; SELECT mako_register_workflow(workflow_id, apply => apply, initial_state => initial_state, state_schema_version => state_schema_version, replace => true) FROM mako_workflow; SELECT mako_register_migration('plain\@FV2025-10-01', 'plain\@FV2024-10-01', 'lib.reports', replace => true)");
	($without, $with) = map { my $run = migrate_with('reports', $_, "SELECT count(*) FROM mako_dry_run('plain\@FV2025-10-01', 'plain\@FV2024-10-01')"); [ $run->{started}, scalar(() = $run->{messages} =~ /NOTICE:  seen/g) ] } 0, 2;
	is("@$without", '0 200', 'a dry run reports');
	is("@$with", '2 200', '... all that its workers say');
}

# A proof evaluates what is not safe where it was called, though it is of an earlier move.
{
	$node->safe_psql('told', <<'SQL');
SET client_min_messages = error;
CREATE FUNCTION lib.where_it_runs(state jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE AS
$$ BEGIN RAISE NOTICE 'in a %', (SELECT backend_type FROM pg_stat_activity WHERE pid = pg_backend_pid()); RETURN state; END $$;
SELECT mako_register_migration('plain@FV2024-10-01', 'plain@FV2025-10-01', 'lib.where_it_runs', replace => true);
SELECT mako_migrate('plain@FV2024-10-01', 'plain@FV2025-10-01');
SELECT mako_register_migration('plain@FV2025-10-01', 'plain@FV2024-10-01', replace => true);
SELECT mako_migrate('plain@FV2025-10-01', 'plain@FV2024-10-01');
SQL
	my $run = migrate_with('told', 2, 'SELECT count(*) FROM mako_verify((SELECT max(run_id) FROM mako.migration_run))');
	is("$run->{started} $run->{answer}", '2 0', 'a proof through a move by a function that is not safe');
	like($run->{messages}, qr/in a client backend/, '... which is evaluated');
	unlike($run->{messages}, qr/in a mako_migration worker/, '... in no worker');
}

# A role that may not connect any more has no workers, and its rows.
$node->safe_psql('reports', 'CREATE ROLE late SUPERUSER LOGIN');
my $late;
$node->psql('reports', "ALTER ROLE late NOLOGIN; SET mako_migration.max_workers = 2; SELECT count(*) FROM mako_dry_run('plain\@FV2025-10-01', 'plain\@FV2024-10-01')",
	stdout => \$late, extra_params => [ '-U', 'late' ]);
is($late, '200', 'where no worker can connect, the rows come without');

# A worker writes nothing.
copy('small', 'writes');
$node->safe_psql('writes', <<SQL);
CREATE TABLE public.written (n int);
CREATE FUNCTION gpke.writes(state jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE PARALLEL SAFE AS
\$\$ BEGIN EXECUTE 'INSERT INTO public.written VALUES (1)'; RETURN state; END \$\$;
SELECT mako_register_migration('$source', '$target', 'gpke.writes', replace => true);
SQL
copy('writes', 'shared');
is(migrate_with('shared', 2, $migrate)->{answer}, migrate_with('writes', 0, $migrate)->{answer}, 'a function that writes fails its streams');
is(left_in('shared'), left_in('writes'), '... with the same errors');

# ---- transactions

# In a transaction of its own kind, in a savepoint, and before a two-phase commit.
for my $case (
	[ 'repeatable read', 'BEGIN ISOLATION LEVEL REPEATABLE READ;', 'COMMIT;' ],
	[ 'after a savepoint', 'BEGIN; SAVEPOINT a;', 'RELEASE a; COMMIT;' ],
	[ 'rolled back to a savepoint, and once more', "BEGIN; SAVEPOINT a; $migrate \\g /dev/null\nROLLBACK TO a;", 'COMMIT;' ],
	[ 'prepared', 'BEGIN;', "PREPARE TRANSACTION 'p'; COMMIT PREPARED 'p';" ])
{
	my ($what, $before, $after) = @$case;

	copy('small', 'shared');
	my $run = migrate_with('shared', 2, $migrate, before => $before, after => $after);
	is($run->{answer}, $without->{answer}, "$what: it counts the same");
	is(left_in('shared'), left_in('plain'), '... and leaves the same');
}

# ---- what ends

# A slow function; the number of the stream is not known to it, so all of them take their time.
copy('small', 'slow');
my $dry = $node->safe_psql('slow', "SELECT count(*), count(error) FROM mako_dry_run('$source', '$target')");
$node->safe_psql('slow', <<SQL);
CREATE FUNCTION gpke.slowly(state jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE PARALLEL SAFE AS
\$\$ BEGIN PERFORM pg_sleep(0.01); RETURN gpke.supplier_change_migrate_2024_2025(state); END \$\$;
SELECT mako_register_migration('$source', '$target', 'gpke.slowly', replace => true);
SQL
my $settings = "SET mako_migration.max_workers = 2; SET mako_migration.batch_size = 100;";
my $working = "SELECT min(pid)::text FROM pg_stat_activity WHERE backend_type = 'mako_migration worker' HAVING count(xact_start) = 2";
copy('slow', 'plain');
finish_sql(start_sql($node, 'plain', 'leader', 'SET mako_migration.max_workers = 0', $migrate));
my $without_disturbance = left_in('plain');

for my $case (map { my $n = $_; map { [ $_, $n ] } qw(cancel terminate worker) } 1 .. $ends)
{
	my ($what, $n) = @$case;

	copy('slow', 'shared');
	my $before = contents($node, 'shared');
	my $run = start_sql($node, 'shared', 'leader', $settings, $migrate);
	my $leader = pid_of($node, 'leader');
	my $worker = wait_for($node, 'postgres', $working);
	Time::HiRes::sleep(rand 0.3);
	my $since = Time::HiRes::time();
	$node->safe_psql('postgres', $what eq 'cancel' ? "SELECT pg_cancel_backend($leader)" :
		  $what eq 'terminate' ? "SELECT pg_terminate_backend($leader)" : "SELECT pg_terminate_backend($worker)");
	my $succeeded = finish_sql($run);
	my $elapsed = Time::HiRes::time() - $since;
	is($node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'mako_migration worker'"), 0,
		"$what $n: no worker is left");
	if ($what eq 'worker')
	{
		ok($succeeded, '... the leader does without');
		is(left_in('shared'), $without_disturbance, '... and leaves the same');
	}
	else
	{
		cmp_ok($elapsed, '<', 5, sprintf '... it ends at once (%.2f s)', $elapsed);
		is(contents($node, 'shared'), $before, '... and has changed nothing');
		is($node->safe_psql('postgres', "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"), 0, '... and holds nothing');
	}
}

# A crash of a worker, of the leader, of all: the server recovers, and nothing has happened.
for my $what (qw(worker leader server))
{
	copy('slow', 'shared');
	my $before = contents($node, 'shared');
	my $run = start_sql($node, 'shared', 'leader', $settings, $migrate);
	my $leader = pid_of($node, 'leader');
	my $worker = wait_for($node, 'postgres', $working);

	if ($what eq 'server') { $node->stop('immediate') }
	else { kill 'KILL', $what eq 'worker' ? $worker : $leader }
	ok(!finish_sql($run), "a crash of the $what ends the run");
	$node->start if $what eq 'server';
	$node->poll_query_until('postgres', 'SELECT true') or die 'the server does not come back';
	is(contents($node, 'shared'), $before, '... which has changed nothing');
	finish_sql(start_sql($node, 'shared', 'leader', $settings, $migrate));
	is(left_in('shared'), $without_disturbance, '... and is carried out then');
	is(damage($node, 'shared'), '', '... without damage');
}

# A call that ends while its workers still wait for it ends nobody else.
copy('small', 'shared');
{
	my $holder = start_sql($node, 'shared', 'holder', 'BEGIN', 'SELECT 1 FROM mako.stream WHERE stream_no = (SELECT max(stream_no) FROM mako.stream WHERE workflow_id = \'' . $source . '\') FOR UPDATE',
		'SELECT pg_sleep(3)', 'COMMIT');
	wait_for($node, 'postgres', "SELECT 'holds' FROM pg_stat_activity WHERE application_name = 'holder' AND wait_event = 'PgSleep'");
	my $run = migrate_with('shared', 2, $migrate, before => "SET statement_timeout = '1s';");
	like($run->{error} // '', qr/statement timeout/, 'a call that ends before its workers may go');
	ok(finish_sql($holder), '... ends no other session');
}

# A dry run begins anew without workers when one of them ends.
{
	my $run = start_sql($node, 'slow', 'leader', $settings, "SELECT count(*), count(error) FROM mako_dry_run('$source', '$target')");
	my $worker = wait_for($node, 'postgres', $working);
	$node->safe_psql('postgres', "SELECT pg_terminate_backend($worker)");
	ok(finish_sql($run), 'a dry run one of whose workers ends comes to its end');
	like($run->{out}, qr/^@{[ quotemeta $dry ]}$/m, '... with the same rows');
	is($node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'mako_migration worker'"), 0, '... and none is left');
}

# Somebody waits for a lock that the leader's excludes: workers are not kept waiting behind.
copy('slow', 'shared');
{
	my $run = start_sql($node, 'shared', 'leader', $settings, $migrate);
	my $worker = wait_for($node, 'postgres', $working);
	my $waiting = start_sql($node, 'shared', 'waiting', 'BEGIN', 'LOCK TABLE mako.event, mako.stream, mako.snapshot IN ACCESS EXCLUSIVE MODE', 'COMMIT');
	wait_for($node, 'postgres', "SELECT 'waits' FROM pg_stat_activity WHERE application_name = 'waiting' AND wait_event_type = 'Lock'");
	ok(finish_sql($run), 'others that wait for the tables do not stop a run');
	finish_sql($waiting);
	is(left_in('shared'), $without_disturbance, '... which leaves the same');
}

$node->stop;
done_testing();
