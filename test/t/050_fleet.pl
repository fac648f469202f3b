# mako_fleet: four shards and a coordinator say and do what one database with all of their processes does. What runs on all
# shards or on none does so whoever dies, and whenever. The page doc/fleet.md runs as it is written.
# MAKO_SOAK=1 does it in a large store, and goes on for longer. MAKO_SEED repeats the choices of an earlier run, if not its timing.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MakoTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes;

my $version = 'FV2024-10-01';
my $next = 'FV2025-10-01';
my ($migrated, $counted);
my $tenants = "SELECT DISTINCT tenant_id FROM mako.stream";

my $coord = new_server('coordinator', allows_streaming => 1);
my $available = $coord->safe_psql('postgres', 'SELECT name FROM pg_available_extensions');
for my $extension (qw(plproxy dblink))
{
	plan skip_all => "no $extension" unless $available =~ /^$extension$/m;
}
my @nodes = map { new_server("shard$_", allows_streaming => 1) } 0 .. 3;
# One test kills a process of it.
$nodes[2]->append_conf('postgresql.conf', 'restart_after_crash = on');
$nodes[2]->reload;
my @shards = map { "s$_" } 0 .. 3;

# ---- what the tests share

# The option of a shard.
sub conninfo
{
	my ($i, $db) = @_;
	my $host = $nodes[$i]->host;
	my $port = $nodes[$i]->port;

	return "host=$host port=$port dbname=$db connect_timeout=5";
}

# What does not count errors, which stay when a run is taken back.
sub but_errors { return join ' ', grep { !/^2/ } split /\n/, $_[0]; }

# A coordinator over these shards.
sub create_coordinator
{
	my ($db, @conninfos) = @_;
	my $options = join ', ', map { "p$_ '$conninfos[$_]'" } 0 .. $#conninfos;

	$coord->safe_psql('postgres', "CREATE DATABASE $db");
	$coord->safe_psql($db, <<SQL);
CREATE EXTENSION mako_fleet CASCADE;
CREATE SERVER mako_fleet FOREIGN DATA WRAPPER plproxy OPTIONS (modular_mapping '1', $options);
CREATE USER MAPPING FOR postgres SERVER mako_fleet OPTIONS (user 'postgres');
SQL
}

sub fleet { return $coord->safe_psql('fleet', @_); }
sub fleet_error { return error_of($coord, 'fleet', @_); }
sub on_shard { my ($i, $sql) = @_; return $nodes[$i]->safe_psql($shards[$i], $sql); }
sub on_each { my ($sql) = @_; return join ' ', map { on_shard($_, $sql) } 0 .. 3; }

sub prepared { return on_each('SELECT count(*) FROM pg_prepared_xacts'); }

# Sessions of the coordinator that still are on the shards, but for PL/Proxy's, which it keeps.
sub busy
{
	return on_each("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'");
}

sub wait_for_none_busy
{
	wait_for($nodes[$_], $shards[$_],
		"SELECT 'none' WHERE NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle')")
	  for 0 .. 3;
}

# Heads, states, errors and dependents, whatever the numbers of streams and runs: count and sum of hashes of each.
my @rows = (
	'SELECT stream_id, tenant_id, workflow_id, version FROM mako.stream',
	'SELECT s.stream_id, n.sequence_number, n.workflow_id, n.state_schema_version, n.state FROM mako.snapshot n JOIN mako.stream s USING (stream_no) WHERE NOT EXISTS (SELECT FROM mako.reverted v WHERE (v.stream_no, v.run_id) = (n.stream_no, n.run_id))',
	'SELECT s.stream_id, e.phase, e.sequence_number, e.sqlstate, e.message, e.detail FROM mako.migration_error e JOIN mako.stream s USING (stream_no)',
	'SELECT deadline_id, workflow_id FROM gpke.deadline');
my $sums = join ' UNION ALL ',
  map { "SELECT $_, count(*), coalesce(sum(hashtextextended(t::text, 0)::numeric), 0) FROM ($rows[$_]) t" } 0 .. $#rows;

sub whole_contents { return $coord->safe_psql('whole', "$sums ORDER BY 1"); }

sub fleet_contents
{
	my %total;
	for my $i (0 .. 3)
	{
		for (split /\n/, on_shard($i, $sums))
		{
			my ($kind, $count, $sum) = split /\|/;
			push @{ $total{$kind} }, "($count, $sum)";
		}
	}
	return join "\n", map { "$_|" . $coord->safe_psql('postgres', 'SELECT sum(c), sum(s) FROM (VALUES ' . join(', ', @{ $total{$_} }) . ') AS v (c, s)') }
	  sort keys %total;
}

# ---- one database with everything, and four with a part each

create_store($coord, 'whole');
my $seed = srand($ENV{MAKO_SEED} || time ^ $$);
note("seed $seed");
my ($streams, $words) = $ENV{MAKO_SOAK} ? (($ENV{MAKO_STREAMS} // 100_000) / 4, "$seed ") : (300, '');
generate($coord, 'whole', "generate($streams, '$words$_')") for 1 .. 4;  # eight tenants each
# Some streams fail.
$coord->safe_psql('whole', <<SQL);
INSERT INTO mako.stream (stream_id, tenant_id, process_id, workflow_id)
SELECT format('process/%s/%s', t, t), t, t, '$source' FROM ($tenants ORDER BY 1 LIMIT 6) AS x (t);
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
SELECT stream_no, 1, workflow_id, 'SupplierChangeNever', '{"type":"Never"}' FROM mako.stream WHERE process_id = tenant_id;
SQL

create_store($nodes[$_], $shards[$_]) for 0 .. 3;
create_coordinator('fleet', map { conninfo($_, "s$_") } 0 .. 3);
create_coordinator('three', map { conninfo($_, "s$_") } 0 .. 2);
my $dir = PostgreSQL::Test::Utils::tempdir();
for my $i (0 .. 3)
{
	my %copied = (
		stream => 'SELECT stream_id, tenant_id, process_id, workflow_id, created_at FROM mako.stream x WHERE true',
		event => 'SELECT s.stream_id, e.sequence_number, e.event_id, e.recorded_at, e.workflow_id, e.event_type, e.schema_version, e.payload, e.conversation_id FROM mako.event e JOIN mako.stream s USING (stream_no) WHERE true',
		registry => 'SELECT s.stream_id, r.tenant_id, r.key FROM mako.registry r JOIN mako.stream s USING (stream_no) WHERE true',
		deadline => 'SELECT d.* FROM gpke.deadline d WHERE true');
	my $mine = $coord->safe_psql('fleet', <<SQL);
SELECT string_agg(quote_literal(t), ',')
FROM unnest('{@{[ join ',', split /\n/, $coord->safe_psql('whole', $tenants) ]}}'::uuid[]) AS t
WHERE mako_fleet.shard_of(t) = '$shards[$i]'
SQL
	isnt($mine, '', "$shards[$i] has tenants");
	for (sort keys %copied)
	{
		my $alias = { stream => 'x', event => 's', registry => 's', deadline => 'd' }->{$_};
		$coord->safe_psql('whole', "\\copy ($copied{$_} AND $alias.tenant_id IN ($mine)) to '$dir/$_'");
	}
	on_shard($i, <<SQL);
CREATE TEMP TABLE e AS SELECT s.stream_id, e.sequence_number, e.event_id, e.recorded_at, e.workflow_id, e.event_type, e.schema_version, e.payload, e.conversation_id FROM mako.event e JOIN mako.stream s USING (stream_no);
CREATE TEMP TABLE r AS SELECT s.stream_id, r.tenant_id, r.key FROM mako.registry r JOIN mako.stream s USING (stream_no);
\\copy mako.stream (stream_id, tenant_id, process_id, workflow_id, created_at) from '$dir/stream'
\\copy e from '$dir/event'
\\copy r from '$dir/registry'
\\copy gpke.deadline from '$dir/deadline'
INSERT INTO mako.event (stream_no, sequence_number, event_id, recorded_at, workflow_id, event_type, schema_version, payload, conversation_id)
SELECT stream_no, e.sequence_number, e.event_id, e.recorded_at, e.workflow_id, e.event_type, e.schema_version, e.payload, e.conversation_id FROM e JOIN mako.stream USING (stream_id) ORDER BY stream_no, sequence_number;
INSERT INTO mako.registry (tenant_id, key, stream_no) SELECT r.tenant_id, r.key, stream_no FROM r JOIN mako.stream USING (stream_id);
ANALYZE;
SQL
}
my $before = whole_contents();
is(fleet_contents(), $before, 'the shards have together what one database has');

# ---- where a tenant is

is( fleet("SELECT bool_and(mako_fleet.shard_of(t) = 's' || mako_fleet.tenant_hash(t) % 4) FROM (SELECT gen_random_uuid() AS t FROM generate_series(1, 100)) x"),
	't', 'a tenant is on the shard that its hash says');
is( $coord->safe_psql('three', "SELECT bool_and(mako_fleet.shard_of(t) = 's' || mako_fleet.tenant_hash(t) % 3), count(DISTINCT mako_fleet.shard_of(t)) FROM (SELECT gen_random_uuid() AS t FROM generate_series(1, 100)) x"),
	't|3', '... of three shards, too');
is(fleet("SELECT mako_fleet.tenant_hash('aaaaaaaa-0000-4000-8000-000000000001'), mako_fleet.tenant_hash('AAAAAAAA-0000-4000-8000-000000000001')"),
	'77420107|77420107', 'the hash is the same on every machine');

# ---- rows of all shards

my $plan = 'sum(streams), sum(in_flight), sum(events)';
is( fleet("SELECT count(DISTINCT shard), $plan FROM mako_fleet.plan('$source', '$target') WHERE streams IS NOT NULL"),
	'4|' . $coord->safe_psql('whole', "SELECT $plan FROM mako_plan('$source', '$target')"),
	'plan');
my $summary = 'outcome, phase, sqlstate, message, sum(streams)';
my $by = 'GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4';
is( fleet("SELECT $summary FROM mako_fleet.dry_run_summary('$source', '$target') $by"),
	$coord->safe_psql('whole', "SELECT $summary FROM mako_dry_run_summary('$source', '$target') $by"),
	'dry_run_summary');
my $coverage = 'workflow_id, decision, targets, sum(streams), sum(in_flight)';
is( fleet("SELECT $coverage FROM mako_fleet.coverage('$version') GROUP BY 1, 2, 3"),
	$coord->safe_psql('whole', "SELECT $coverage FROM mako_coverage('$version') GROUP BY 1, 2, 3"),
	'coverage');
like(fleet_error("SELECT mako_fleet.coverage('x')"), qr/^22P02: .*\[s[0-3]\]/, 'an error of a shard keeps its SQLSTATE and names the shard');

my $fingerprint = $coord->safe_psql('whole', "SELECT mako_fingerprint('$source', '$target'), mako_version_fingerprint('$version', '$next')");
is(fleet("SELECT mako_fleet.fingerprint('$source', '$target'), mako_fleet.fingerprint('$version', '$next')"), $fingerprint, 'one fingerprint everywhere');
on_shard(2, "SELECT mako_register_workflow('$target', apply => 'gpke.supplier_change_apply_2025', upcast => 'gpke.supplier_change_upcast', initial_state => '{}', state_schema_version => 2, replace => true)");
like(fleet_error("SELECT mako_fleet.fingerprint('$source', '$target')"), qr/^55000: the shards have different definitions/, '... or an error');
is(fleet("SELECT count(*), count(DISTINCT fingerprint) FROM mako_fleet.fingerprints('$source', '$target')"), '4|2', '... and the rows show where');
my ($expect) = split /\|/, $fingerprint;
is( fleet("SELECT shard, (report).migrated > 0, sqlstate FROM mako_fleet.migrate('$source', '$target', 'drift', expect => '$expect', tenant_id => gen_random_uuid())"),
	"s0|f|\ns1|f|\ns2||55000\ns3|f|", '... as does a migration that expects it');
on_shard(2, "SELECT mako_register_workflow('$target', apply => 'gpke.supplier_change_apply_2025', upcast => 'gpke.supplier_change_upcast', in_flight => 'gpke.supplier_change_in_flight', initial_state => '{\"status\":\"New\"}', event_type_definition => gpke.supplier_change_event_type_2024(), state_type_definition => gpke.supplier_change_state_type_2025(), state_schema_version => 2, replace => true)");
is(fleet("SELECT mako_fleet.fingerprint('$source', '$target')"), $expect, 'the definition is the same again');

# ---- migrate, verify, revert

$coord->safe_psql('postgres', "CREATE DATABASE undone TEMPLATE whole");
my $merged = '(m).migrated, (m).skipped, (m).failed';
my $expected_counts = $coord->safe_psql('whole', "SELECT migrated, skipped, failed FROM mako_migrate('$source', '$target')");
like(fleet_error("SELECT mako_fleet.migrate('$source', '$target', NULL)"), qr/^22004: reason must not be null/, 'a migration has a reason');
is( fleet("SET datestyle = 'SQL, DMY'; SET intervalstyle = 'sql_standard'; SELECT $merged FROM (SELECT mako_merge(report) AS m FROM mako_fleet.migrate('$source', '$target', 'first')) r"),
	$expected_counts, 'migrate, whatever dates look like');
my $after = whole_contents();
isnt($after, $before, '... moves');
is(fleet_contents(), $after, '... and leaves what a migration of one database does: heads, states, errors, dependents');
is(fleet("SELECT count(DISTINCT shard), sum(migrated), sum(failed), bool_and(finished_at IS NOT NULL) FROM mako_fleet.runs('first')"),
	join('|', 4, (split /\|/, $expected_counts)[ 0, 2 ], 't'), 'runs');
is(fleet("SELECT count(*) FROM mako_fleet.verify('first')"), 0, 'verify');
like(fleet_error("SELECT mako_fleet.migrate('$target', '$source', 'first')"), qr/^42710: the reason "first" has been used on shard "s0"/, 'a reason is used once');
on_shard(3, "SELECT mako_migrate('$source', '$target', reason => 'one only')");
like(fleet_error("SELECT mako_fleet.migrate('$target', '$source', 'one only')"), qr/^42710: .* shard "s3"/, '... on any shard');
is(fleet("SELECT $merged FROM (SELECT mako_merge(report) AS m FROM mako_fleet.revert('first', 'back')) r"),
	$coord->safe_psql('whole', "SELECT migrated, skipped, failed FROM mako_revert((SELECT max(run_id) FROM mako.migration_run WHERE migrated > 0))"), 'revert');
is(but_errors(fleet_contents()), but_errors($before), '... brings heads, states and dependents back');

my $holder = open_session($coord, 'fleet');
ask($holder, "BEGIN; SELECT count(*) FROM mako_fleet.migrate('$source', '$target', 'same')");
my $second = open_session($coord, 'fleet');
say_to($second, "SELECT count(*) FROM mako_fleet.migrate('$source', '$target', 'same')");
wait_for($coord, 'fleet', "SELECT 'waits' FROM pg_locks WHERE locktype = 'advisory' AND NOT granted");
ask($holder, 'ROLLBACK');
is(answer_of($second), 'ERROR:  42710', 'one of two calls at a time has the reason, even if it is rolled back here');
close_session($_) for $holder, $second;
fleet("SELECT FROM mako_fleet.revert('same', 'same back')");

# ---- batched, side by side, with errors as rows

$holder = open_session($nodes[2], 's2');
ask($holder, "BEGIN; SELECT migrated > 0 FROM mako_migrate('$source', '$target')");
my $batched = "mako_fleet.migrate_version_batched('$version', '$next', 'batched', batch_size => 50)";
is(fleet("SELECT shard, (report).migrated > 0, sqlstate FROM $batched"), "s0|t|\ns1|t|\ns2||55P03\ns3|t|", 'a shard that is busy stops no other');
ask($holder, 'ROLLBACK');
close_session($holder);
is(fleet("SELECT shard, (report).migrated > 0, sqlstate FROM $batched"), 's2|t|', 'called again, it goes on where it has not been');
like(fleet_error("SELECT FROM $batched"), qr/^42710/, '... until it is at the end everywhere');
is(fleet("SELECT count(*), string_agg(DISTINCT kind, '') FROM mako_fleet.runs('batched')"), '4|batched', 'each shard has one run');
is(but_errors(fleet_contents()), but_errors($after), '... and has what a single run leaves');
fleet("SELECT FROM mako_fleet.revert('batched', 'batched back')");

$batched = "mako_fleet.migrate_batched('$source', '$target', 'slow', batch_size => 5, pause => '200 ms')";
my $run = start_sql($coord, 'fleet', 'victim', "SELECT * FROM $batched");
wait_for($coord, 'fleet', "SELECT 'begun' FROM mako_fleet.progress() WHERE done > 0 HAVING count(*) = 4");
$coord->safe_psql('postgres', "SELECT pg_cancel_backend(" . pid_of($coord, 'victim') . ")");
ok(!finish_sql($run), 'a batched run is cancelled');
like($run->{err}, qr/ERROR:  57014/, '... at once');
wait_for_none_busy();
is(fleet("SELECT count(*), bool_and(done < total), count(pid) FROM mako_fleet.progress()"), '4|t|0', '... on the shards, too, and progress tells');
$batched =~ s/200 ms/0/;
is(fleet("SELECT count(*), bool_and((report).migrated > 0) FROM $batched"), '4|t', 'called again, it ends');
is(fleet("SELECT count(*) FROM mako_fleet.runs('slow')"), 4, '... as the same runs');
fleet("SELECT FROM mako_fleet.revert('slow', 'slow back')");

# ---- processes

$before = fleet_contents();
my $tenant = fleet("SELECT t FROM (SELECT ('aaaaaaaa-0000-4000-8000-' || lpad(i::text, 12, '0'))::uuid AS t FROM generate_series(1, 100) i) x WHERE mako_fleet.shard_of(t) = 's1' LIMIT 1");
my $stream = fleet("SELECT mako_fleet.spawn('$source', '$tenant', 'bbbbbbbb-0000-4000-8000-000000000001')");
is($stream, "process/$tenant/bbbbbbbb-0000-4000-8000-000000000001", 'spawn');
is(on_each("SELECT count(*) FROM mako.stream WHERE stream_id = '$stream'"), '0 1 0 0', '... on the shard of the tenant');
is(fleet("SELECT stream_id, workflow_id, version FROM mako_fleet.lookup('$tenant', 'bbbbbbbb-0000-4000-8000-000000000001', '$version')"), "$stream|$source|0", 'lookup');
is(fleet("SELECT count(*) FROM mako_fleet.lookup('$tenant', 'unknown')"), 0, '... of an unknown key');
my $example = $coord->safe_psql('whole', "SELECT quote_literal(payload) FROM mako.event WHERE event_type = 'SupplierChangeInitiated' LIMIT 1");
is(fleet("SELECT mako_fleet.append('$stream', '$source', 'SupplierChangeInitiated', $example, 0)"), 1, 'append');
$coord->safe_psql('undone', "SELECT mako_spawn('$source', '$tenant', 'bbbbbbbb-0000-4000-8000-000000000001'), mako_append('$stream', '$source', 'SupplierChangeInitiated', $example)");
is(fleet("SELECT * FROM mako_fleet.state('$stream')"), $coord->safe_psql('undone', "SELECT * FROM mako_state('$stream')"), 'state');
for (
	[ "append('$stream', '$target', 'X', '{}')", 'MK005', 's1' ],
	[ "append('$stream', '$source', 'X', '{}', 7)", '40001', 's1' ],
	[ "spawn('$source', '$tenant', 'bbbbbbbb-0000-4000-8000-000000000001')", 'MK007', 's1' ],
	[ "state('process/$tenant/$tenant')", '42704', 's1' ],
	[ "state('other')", '22023' ], [ 'state(NULL)', '22004' ], [ "lookup(NULL, 'x')", '22004' ])
{
	my ($call, $sqlstate, $shard) = @$_;
	my $error = fleet_error("SELECT mako_fleet.$call");
	like($error, $shard ? qr/^$sqlstate: .*\[$shard\]/ : qr/^$sqlstate: /, "$call is $sqlstate");
}
fleet("BEGIN; SELECT mako_fleet.append('$stream', '$source', 'SupplierChangeActivated', '{\"type\":\"Activated\"}'); ROLLBACK");
is(on_shard(1, "SELECT version FROM mako.stream WHERE stream_id = '$stream'"), 2, 'PL/Proxy is not atomic: a ROLLBACK takes back no event that a shard has committed');

# ---- the end of a version

like(fleet("SELECT string_agg(sqlstate, ' ') FROM mako_fleet.retire('$version', 'too early')"), qr/^55000( 55000)*$/, 'retire tells what each shard says');
is(fleet("SELECT count(*), count(sqlstate) FROM mako_fleet.drain('$version', 'end')"), '4|0', 'drain');
like(fleet_error("SELECT mako_fleet.spawn('$source', '$tenant')"), qr/^55000: .*\[s1\]/, '... lets no process start');
on_each("SELECT mako_reactivate('$version')");
on_each("SELECT mako_register_workflow('old\@FV2020-01-01')");
is(fleet("SELECT count(*), count(sqlstate) FROM mako_fleet.retire('FV2020-01-01', 'nobody', '2031-02-03 04:05 UTC')"), '4|0', 'retire');
is(on_each("SELECT messages_until = '2031-02-03 04:05 UTC' FROM mako.format_version WHERE format_version = 'FV2020-01-01'"), 't t t t', '... with its date');

# ---- all or none


# A call that migrates, for this reason. Statements that the tests hold up take a lock of key 1 on shard s2; where they are
# held up, a trigger does, which is deferred to PREPARE.
sub atomic
{
	my ($reason, $statement, @arguments) = @_;

	$statement //= "SELECT FROM mako_migrate('$source', '$target', reason => '$reason')";
	return 'CALL mako_fleet.run_atomically(' . join(', ', "\$s\$$statement\$s\$", @arguments) . ')';
}

sub decisions { return fleet('SELECT count(*), count(done_at) FROM mako_fleet.decision'); }
sub resolved { return join ' ', sort split /\n/, fleet("SELECT concat_ws(' ', shard, outcome) FROM mako_fleet.resolve()"); }

# Nothing is left of a statement: neither rows, nor prepared transactions, nor locks, nor sessions that are at it.
sub nothing_is_done
{
	my ($what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	wait_for_none_busy();
	is(join("\n", prepared(), fleet_contents(), on_each("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND objid <> 1")),
		join("\n", '0 0 0 0', $before, '0 0 0 0'), $what);
}

sub all_is_done
{
	my ($what, $reason) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(join(' ', prepared(), fleet("SELECT count(*), sum(migrated) FROM mako_fleet.runs('$reason')"), but_errors(fleet_contents())),
		join(' ', '0 0 0 0', "4|$migrated", but_errors($after)), $what);
}

# Takes back what was done, for the next test.
sub take_back
{
	my ($reason) = @_;

	fleet("SELECT FROM mako_fleet.revert('$reason', '$reason back')");
	$before = fleet_contents();
}

$_->safe_psql($_->name =~ /(\d)/ ? "s$1" : 'fleet', <<'SQL') for @nodes;
CREATE TABLE public.counter (n int);
CREATE TABLE public.once (i int UNIQUE DEFERRABLE INITIALLY DEFERRED);
INSERT INTO public.counter VALUES (0);
CREATE FUNCTION public.hold() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF current_database() = 's2' THEN PERFORM pg_advisory_xact_lock(1); END IF;
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER hold AFTER UPDATE ON public.counter DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION public.hold();
SQL
my $count = 'UPDATE public.counter SET n = n + 1';
sub counters { return on_each('SELECT n FROM public.counter'); }

$migrated = (split /\|/, $expected_counts)[0] + 1; # and the process above
$before = fleet_contents();
like(fleet(atomic('atomic')), qr/^mako_fleet \d+ \d+ [0-9a-f-]{36}$/, 'a migration on all shards or none returns its gid');
$after = fleet_contents();
isnt($after, $before, '... moves');
all_is_done('... everywhere', 'atomic');
is(decisions(), '1|1', '... and is recorded as done');
is(fleet('SELECT shards, decided_by, statement ~ $$mako_migrate$$ FROM mako_fleet.decision'), '{s0,s1,s2,s3}|postgres|t', '... with its statement');
take_back('atomic');

fleet(atomic('', q{CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS $$ SELECT 1 $$; COMMENT ON FUNCTION public.f() IS 'E''\\'; SELECT public.f()}));
is(on_each("SELECT obj_description('public.f'::regproc)"), q{E'\\ E'\\ E'\\ E'\\}, 'several statements, with quotes and backslashes');

for (
	[ 'a shard refuses', "SELECT 1 / CASE current_database() WHEN 's2' THEN 0 ELSE 1 END FROM mako_migrate('$source', '$target')", qr/^22012: shard "s2": division by zero/ ],
	[ 'two do', "DO \$\$ BEGIN ASSERT current_database() < 's2', 'no'; END \$\$", qr/^P0004: shard "s2": no/ ],
	[ 'a shard cancels', 'SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(60)', qr/^57014: shard "s0": canceling statement/ ],
	[ 'a constraint is violated at the end', "$count; INSERT INTO public.once SELECT 1 FROM generate_series(1, CASE current_database() WHEN 's1' THEN 2 ELSE 1 END)", qr/^23505: shard "s1": / ],
	[ 'a transaction that cannot be prepared', 'CREATE TEMP TABLE t (i int)', qr/^0A000: shard "s0": cannot PREPARE/ ],
	[ 'a statement that commits', "$count; COMMIT", qr/^0A000: shard "s0": / ],
	[ 'one that prepares', "$count; PREPARE TRANSACTION 'x'", qr/^0A000: shard "s0": / ],
	[ 'a syntax error', 'SELEC', qr/^42601: shard "s0": / ])
{
	my ($what, $statement, $error) = @$_;
	my $session = open_session($coord, 'fleet', '-v', 'VERBOSITY=verbose');
	my $answer = ask($session, atomic('', $statement));
	$answer =~ s/^ERROR: +//;
	like($answer, $error, $what);
	is(ask($session, "SELECT count(c) FROM unnest(dblink_get_connections()) c"), 0, '... and no connection is left');
	close_session($session);
	nothing_is_done('... nor anything done');
	is(counters(), '0 0 0 0', '... anywhere');
}
like(fleet_error('BEGIN; ' . atomic('x', $count)), qr/^2D000/, 'no call in a transaction block');
like(fleet_error(atomic('x', $count, 'NULL')), qr/^22004/, 'no null argument');
like(fleet_error("SET default_transaction_read_only = on; " . atomic('x', $count)), qr/^25006/, 'nor in a read-only transaction');
is(counters(), '0 0 0 0', '... has done anything');
is(decisions(), '2|2', '... nor is it recorded');
fleet("SET default_transaction_isolation = serializable; SET synchronous_commit = off; SET search_path = public; " . atomic('x', $count));
is(counters(), '1 1 1 1', 'the settings of a session are no obstacle');

# Two shards on one server.
$nodes[3]->safe_psql('postgres', "CREATE DATABASE $_") for qw(one two);
$nodes[3]->safe_psql($_, 'CREATE TABLE public.counter AS SELECT 0 AS n') for qw(one two);
create_coordinator('together', map { conninfo(3, $_) } qw(one two));
$coord->safe_psql('together', atomic('', $count));
is(join(' ', map { $nodes[3]->safe_psql($_, 'SELECT n FROM public.counter') } qw(one two)), '1 1', 'two shards are on one server');
like(error_of($coord, 'together', atomic('', "$count; NOTIFY x")), qr/^0A000: shard "one"/, '... and refuse');
is(join(' ', map { $nodes[3]->safe_psql($_, 'SELECT n FROM public.counter') } qw(one two)), '1 1', '... together');
is(prepared(), '0 0 0 0', '... and leave nothing');

# ---- side by side

# Each has the lock of a row on one shard, and waits for it on another.
my @loops = map
{
	my $last = $_;
	start_sql($coord, 'fleet', "loop$_", map { atomic('', "SELECT pg_sleep(CASE WHEN current_database() = 's$last' THEN 0.3 ELSE 0 END); $count", "'500 ms'") } 1 .. 3)
} 0 .. 1;
my $done = grep { finish_sql($_) } @loops;
cmp_ok($done, '<', 2, 'two statements wait for each other on two shards: one gives up');
like(join('', map { $_->{err} } @loops), qr/ERROR:  55P03: shard "s\d": canceling statement due to lock timeout/, '... and says why');
like(counters(), qr/^(\d+) \1 \1 \1$/, '... and all shards have the same');
is(prepared(), '0 0 0 0', '... with nothing left');
is(decisions() =~ /^(\d+)\|\1$/, 1, '... in doubt');

# ---- the coordinator dies

# Holds up the commit of a decision: when all shards have prepared.
fleet(<<'SQL');
CREATE FUNCTION public.hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER hold AFTER INSERT ON mako_fleet.decision DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.hold();
SQL

# Runs a call until it waits there; $there is a server and a database.
sub hold_up
{
	my ($node, $db, $call) = @_;
	my $holder = open_session($node, $db);

	ask($holder, 'SELECT pg_advisory_lock(1)');
	my $run = start_sql($coord, 'fleet', 'victim', $call);
	wait_for($node, $db, "SELECT 'waits' FROM pg_locks WHERE locktype = 'advisory' AND NOT granted");
	return ($holder, $run);
}

sub let_go { my ($holder) = @_; ask($holder, 'SELECT pg_advisory_unlock(1)'); close_session($holder); }

$before = fleet_contents();
($holder, $run) = hold_up($coord, 'fleet', atomic('before'));
is(prepared(), '1 1 1 1', 'the decision is not made yet: all shards have prepared');
is(resolved(), 's0 running s1 running s2 running s3 running', '... and resolve() leaves them alone');
is($coord->safe_psql('three', 'SELECT count(*) FROM mako_fleet.resolve()'), 0, '... as does another coordinator');
is(prepared(), '1 1 1 1', '... indeed');
$coord->stop('immediate');
finish_sql($run);
close_session($holder);
$coord->start;
is(prepared(), '1 1 1 1', 'the coordinator dies before the decision: what is prepared stays');
is(resolved(), 's0 rolled back s1 rolled back s2 rolled back s3 rolled back', '... until resolve() rolls it back');
nothing_is_done('... everywhere');
is(resolved(), '', '... once');

($holder, $run) = hold_up($coord, 'fleet', atomic('cancelled'));
$coord->safe_psql('postgres', "SELECT pg_cancel_backend(" . pid_of($coord, 'victim') . ")");
ok(!finish_sql($run), 'a cancel at the decision');
let_go($holder);
is(resolved(), 's0 rolled back s1 rolled back s2 rolled back s3 rolled back', '... leaves what resolve() rolls back');
nothing_is_done('... everywhere');

# The decision is the local commit, before the client and the shards hear of it.
$coord->append_conf('postgresql.conf', "synchronous_standby_names = 'nobody'");
fleet('ALTER TABLE mako_fleet.decision DISABLE TRIGGER hold');
$coord->reload;
$run = start_sql($coord, 'fleet', 'victim', 'SET synchronous_commit = off', atomic('after'));
wait_for($coord, 'postgres', "SELECT 'waits' FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND application_name = 'victim' AND datname = 'fleet'");
is(prepared(), '1 1 1 1', 'the decision is made, and no shard knows it');
is(resolved(), 's0 running s1 running s2 running s3 running', '... nor does resolve()');
$coord->stop('immediate');
finish_sql($run);
$coord->append_conf('postgresql.conf', "synchronous_standby_names = ''");
$coord->start;
is(prepared(), '1 1 1 1', 'the coordinator dies after the decision');
is(decisions() =~ /^(\d+)\|(\d+)$/ && $1 - $2, 1, '... which is not done');
is(resolved(), 's0 committed s1 committed s2 committed s3 committed', '... until resolve() commits it');
all_is_done('... everywhere', 'after');
is(decisions() =~ /^(\d+)\|\1$/, 1, '... and that is recorded');
take_back('after');

# ---- a shard dies

fleet('ALTER TABLE mako_fleet.decision ENABLE TRIGGER hold');
($holder, $run) = hold_up($coord, 'fleet', atomic('one dies'));
$nodes[2]->stop('immediate');
let_go($holder);
ok(finish_sql($run), 'a shard dies between PREPARE and COMMIT: the statement is committed');
like($run->{err}, qr/WARNING:  01000: the statement is committed, but not on every shard yet\nDETAIL:  shard "s2": /, '... with a warning');
is(resolved(), 's2 in doubt s2 unreachable', '... and resolve() tells what is left');
like(fleet_error("SELECT mako_fleet.coverage('$version')"), qr/^XX000: .*\[s2\]|^08\d\d\d/, '... PL/Proxy cannot reach it');
is(decisions() =~ /^(\d+)\|(\d+)$/ && $1 - $2, 1, '... nor is it done');
like(fleet_error(atomic('', $count)), qr/^08001: shard "s2": /, '... nor a statement on all or none');
is(fleet("SELECT shard, sqlstate FROM mako_fleet.retire('FV2020-01-01') WHERE sqlstate IS NOT NULL"), 's2|08001', '... and others have it as a row');
$nodes[2]->start;
is(prepared(), '0 0 1 0', '... what it has prepared outlives the crash');
is(resolved(), 's2 committed', '... and is committed by the next resolve()');
all_is_done('... everywhere', 'one dies');
take_back('one dies');

fleet('ALTER TABLE mako_fleet.decision DISABLE TRIGGER hold');
($holder, $run) = hold_up($nodes[2], 's2', atomic('', "SELECT FROM mako_migrate('$source', '$target'); SELECT CASE current_database() WHEN 's2' THEN pg_advisory_xact_lock(1) END", "'1 min'"));
$nodes[2]->stop('immediate');
ok(!finish_sql($run), 'a shard dies before PREPARE: the statement fails');
like($run->{err}, qr/ERROR:  \w{5}: shard "s2": /, '... and says where');
close_session($holder);
$nodes[2]->start;
nothing_is_done('... and nothing is done anywhere');

# Shards that come and go meanwhile.
for (
	[ "OPTIONS (DROP p3)", "OPTIONS (ADD p3 '" . conninfo(3, 's3') . "')" ],
	[ "OPTIONS (ADD p4 '" . conninfo(3, 'one') . "')", "OPTIONS (DROP p4)" ])
{
	my ($change, $back) = @$_;
	my ($holder, $run) = hold_up($nodes[2], 's2', atomic('', "SELECT CASE current_database() WHEN 's2' THEN pg_advisory_xact_lock(1) END; $count", "'1 min'"));
	fleet("ALTER SERVER mako_fleet $change");
	let_go($holder);
	my $ok = finish_sql($run);
	fleet("ALTER SERVER mako_fleet $back");
	my ($error) = $ok ? '' : $run->{err} =~ /ERROR:  (.*)/;
	is($error, $change =~ /DROP/ ? '55000: shard "s3" has not done PREPARE TRANSACTION' : '', "$change while a statement runs");
	is(prepared(), '0 0 0 0', '... leaves nothing prepared');
	like(counters(), qr/^(\d+) \1 \1 \1$/, '... and is the same for all shards of the statement');
}

# A process that is killed says nothing: the connection is lost.
($holder, $run) = hold_up($nodes[2], 's2', atomic('', "$count; SELECT CASE current_database() WHEN 's2' THEN pg_advisory_xact_lock(1) END", "'1 min'"));
$counted = counters();
my $pid = on_shard(2, "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted");
kill 'KILL', $pid;
ok(!finish_sql($run), 'a connection is lost: the statement fails');
like($run->{err}, qr/ERROR:  08006: shard "s2": /, '... and says where');
eval { close_session($holder) };
$nodes[2]->poll_query_until('postgres', 'SELECT true');
nothing_is_done('... and nothing is done anywhere');
is(counters(), $counted, '... indeed');

# ---- PREPARE comes late, or never

($holder, $run) = hold_up($nodes[2], 's2', atomic('', $count, "'1 min'"));
is(prepared(), '1 1 0 1', 'a shard is still preparing');
$coord->stop('immediate');
finish_sql($run);
$coord->start;
is(resolved(), 's0 rolled back s1 rolled back s3 rolled back', '... when its coordinator dies: the others are rolled back');
let_go($holder);
wait_for($nodes[2], 's2', "SELECT 'there' FROM pg_prepared_xacts");
is(resolved(), 's2 rolled back', '... and the late one, by the next call');
is(counters(), $counted, '... and nothing is done');

for my $end ('cancel', 'timeout', 'terminate')
{
	my $call = atomic('', $count, "'1 min'");
	my $holder = open_session($nodes[2], 's2');
	ask($holder, 'SELECT pg_advisory_lock(1)');
	my $session = open_session($coord, 'fleet');
	ask($session, "SET application_name = 'victim'; SET statement_timeout = '" . ($end eq 'timeout' ? '2 s' : 0) . "'");
	say_to($session, $call);
	wait_for($nodes[2], 's2', "SELECT 'waits' FROM pg_locks WHERE locktype = 'advisory' AND NOT granted");
	is(prepared(), '1 1 0 1', "$end while a shard prepares");
	$coord->safe_psql('postgres', "SELECT pg_${end}_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim'") if $end ne 'timeout';
	like(answer_of($session), $end eq 'terminate' ? qr/57P01|gone/ : qr/^ERROR:  57014$/, '... ends the call');
	is(ask($session, 'SELECT count(c) FROM unnest(dblink_get_connections()) c'), 0, '... without connections') if $end ne 'terminate';
	let_go($holder);
	eval { close_session($session) };
	wait_for_none_busy();
	fleet('SELECT FROM mako_fleet.resolve()');
	is(prepared() . ' ' . counters(), "0 0 0 0 $counted", '... and nothing is done');
}

# ---- a cancel that comes too late

fleet('ALTER TABLE mako_fleet.decision ENABLE TRIGGER hold');
($holder, $run) = hold_up($coord, 'fleet', atomic('', $count));
$nodes[2]->append_conf('postgresql.conf', "synchronous_standby_names = 'nobody'");
$nodes[2]->reload;
$nodes[2]->poll_query_until('postgres', "SELECT current_setting('synchronous_standby_names') = 'nobody'");
let_go($holder);
wait_for($nodes[2], 'postgres', "SELECT 'waits' FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
$coord->safe_psql('postgres', "SELECT pg_cancel_backend(" . pid_of($coord, 'victim') . ")");
ok(finish_sql($run), 'a cancel after the decision takes nothing back');
like($run->{err}, qr/WARNING:  01000: the statement is committed, but not on every shard yet/, '... but the call waits no longer');
$nodes[2]->append_conf('postgresql.conf', "synchronous_standby_names = ''");
$nodes[2]->reload;
wait_for_none_busy();
resolved();
is(counters(), join(' ', map { $_ + 1 } split / /, $counted), '... and all shards have it');
is(decisions() =~ /^(\d+)\|\1$/, 1, '... which is recorded');
fleet('DROP TRIGGER hold ON mako_fleet.decision');

# ---- all of it at once

# Three sessions count on all shards or none, and one resolves, while sessions here and there are ended, and first a shard crashes,
# then the coordinator.
my $seconds = $ENV{MAKO_SOAK} ? 120 : 6;
fleet("ALTER TABLE mako_fleet.decision DISABLE TRIGGER USER");
on_each('ALTER TABLE public.counter DISABLE TRIGGER hold');
my $counts = "SELECT count(*) FROM mako_fleet.decision WHERE statement = '$count'";
my $until = time + $seconds;
my $made = fleet($counts) - (split / /, counters())[0];
my $rounds = fleet($counts);
@loops = ((map { start_loop($coord, 'fleet', "counts$_", $until, atomic('', $count, "'2 s'") . ';') } 1 .. 3),
	start_loop($coord, 'fleet', 'resolves', $until, 'SELECT FROM mako_fleet.resolve();'));
my %crash = ($until - int($seconds * 2 / 3) => $nodes[1], $until - int($seconds / 3) => $coord);
while (time < $until)
{
	my ($node, $db, $which) = rand() < 0.5 ? ($coord, 'fleet', "application_name ~ '^counts'") : do { my $i = int rand 4; ($nodes[$i], "s$i", 'true') };

	Time::HiRes::sleep(rand 0.2);
	$node->safe_psql($db, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '$db' AND $which AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1");
	for (grep { time >= $_ } keys %crash)
	{
		$crash{$_}->stop('immediate');
		delete($crash{$_})->start;
	}
}
finish_sql($_) for @loops;
is(join('', map { $_->{err} } @loops) =~ /ERROR:  XX000: (?!PL)(.*)/ ? $1 : '', '', 'no error without a code of its own');
wait_for_none_busy();
fleet('SELECT FROM mako_fleet.resolve()');
is(prepared(), '0 0 0 0', 'after all, nothing is left prepared');
my $sum = fleet($counts) - $made;
is(counters(), "$sum $sum $sum $sum", '... and every shard has counted what was decided, and nothing else');
cmp_ok(fleet($counts), '>', $rounds, '... which is something');
note(fleet($counts) - $rounds . ' decisions, ' . (() = join('', map { $_->{err} } @loops) =~ /ERROR|FATAL/g) . ' errors');
is(decisions() =~ /^(\d+)\|\1$/, 1, '... and all are done');
on_each('ALTER TABLE public.counter ENABLE TRIGGER hold');

# ---- what resolve() refuses

like(fleet_error("BEGIN ISOLATION LEVEL $_; SELECT mako_fleet.resolve()"), qr/^55000: cannot resolve/, "resolve() under $_") for 'REPEATABLE READ', 'SERIALIZABLE';
like(fleet_error('BEGIN READ ONLY; SELECT mako_fleet.resolve()'), qr/^25006: cannot resolve/, '... and read-only, as on a standby');

# ---- whose rights

is(fleet(<<'SQL'), 'assert_done coverage dry_run_summary fingerprint fingerprints gid_lock gid_prefix lookup plan progress runs shard_of state stream_hash tenant_hash verify', 'what PUBLIC may execute only reads');
SELECT string_agg(p.proname, ' ' ORDER BY p.proname COLLATE "C") FROM pg_proc p
WHERE p.pronamespace = 'mako_fleet'::regnamespace
  AND EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a WHERE a.grantee = 0)
SQL
is(fleet(<<'SQL'), '', 'functions pin their path, and none runs as its owner');
SELECT p.proname FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
WHERE p.pronamespace = 'mako_fleet'::regnamespace
  AND (p.prosecdef OR l.lanname <> 'plproxy' AND p.prokind = 'f' AND NOT coalesce(p.proconfig, '{}') @> '{"search_path=pg_catalog, pg_temp"}')
SQL
is(fleet(<<'SQL'), '', 'every object has a comment');
SELECT p.oid::regprocedure::text FROM pg_proc p WHERE p.pronamespace = 'mako_fleet'::regnamespace AND obj_description(p.oid, 'pg_proc') IS NULL
UNION ALL
SELECT c.relname::text FROM pg_class c WHERE c.relnamespace = 'mako_fleet'::regnamespace AND c.relkind = 'r' AND obj_description(c.oid, 'pg_class') IS NULL
SQL

fleet('CREATE ROLE operator LOGIN');
sub operator_error { return fleet_error($_[0], '-U', 'operator'); }
sub operator { return fleet($_[0], extra_params => [ '-U', 'operator' ]); }
for my $i (0 .. 3)
{
	on_shard($i, <<'SQL');
CREATE ROLE remote LOGIN PASSWORD 'it''s \secret';
GRANT USAGE ON SCHEMA mako TO remote;
GRANT SELECT ON ALL TABLES IN SCHEMA mako TO remote;
SQL
	my $hba = $nodes[$i]->data_dir . '/pg_hba.conf';
	my $rest = slurp_file($hba);
	unlink $hba;
	append_to_file($hba, "local all remote scram-sha-256\n$rest");
	$nodes[$i]->reload;
}
my $runs = 'SELECT count(*) > 0 FROM mako_fleet.runs()';
my $resolve = 'SELECT count(*) FROM mako_fleet.resolve()';
my $call = atomic('', 'SELECT');
like(operator_error($runs), qr/^42501: permission denied for schema mako_fleet/, 'a role without rights sees nothing');
fleet('GRANT USAGE ON SCHEMA mako_fleet TO operator');
like(operator_error($_), qr/^42501: permission denied for (function|procedure)/, 'what changes something is not for all') for $resolve, $call;
like(operator_error($runs), qr/user mapping|permission denied for foreign server/, 'the shards are for those who have a mapping');
fleet('GRANT EXECUTE ON ALL ROUTINES IN SCHEMA mako_fleet TO operator; GRANT SELECT, INSERT, UPDATE ON mako_fleet.decision TO operator');
like(operator_error($_), qr/^42501: permission denied for foreign server/, '... and may use the server') for $resolve, $call;
fleet('GRANT USAGE ON FOREIGN SERVER mako_fleet TO operator');
like(operator_error($_), qr/^42704: role "operator" has no user mapping/, '... indeed') for $resolve, $call;
fleet(q{CREATE USER MAPPING FOR PUBLIC SERVER mako_fleet OPTIONS (user 'remote', password 'it''s \secret')});
like(operator_error($_), qr/^42501: role "operator" may not read the user mapping of PUBLIC/, 'the mapping of PUBLIC is not lent') for $resolve, $call;
is(operator("SELECT count(umoptions) FROM pg_user_mappings"), 0, '... nor shown');
fleet("CREATE USER MAPPING FOR operator SERVER mako_fleet OPTIONS (user 'postgres')");
like(operator_error($call), qr/^2F003: shard "s0": password/, 'a role that is no superuser needs a password');
fleet(q{DROP USER MAPPING FOR operator SERVER mako_fleet; CREATE USER MAPPING FOR operator SERVER mako_fleet OPTIONS (user 'remote', password 'it''s \secret')});
is(operator($resolve), 0, 'with one of its own, it resolves');
on_each('CREATE TABLE public.who (who text, session text); GRANT INSERT ON public.who TO remote');
operator(atomic('', 'INSERT INTO public.who VALUES (current_user, session_user)'));
is(on_each('SELECT * FROM public.who'), join(' ', ('remote|remote') x 4), '... and runs statements, as the user of its mapping');
is(operator($runs), 't', '... and reads, through PL/Proxy');
like(operator_error("SELECT FROM mako_fleet.migrate('$source', '$target', 'x')"), qr/^$/, '... and is told');
is(operator("SELECT DISTINCT sqlstate FROM mako_fleet.migrate('$source', '$target', 'y')"), 42501, '... what it may not do');

# What another role has prepared is not for everybody to end.
my $name = fleet('SELECT mako_fleet.gid_prefix() || gen_random_uuid()');
on_shard(1, "BEGIN; $count; PREPARE TRANSACTION '$name s1'");
is(operator('SELECT shard, outcome, sqlstate FROM mako_fleet.resolve()'), 's1|in doubt|42501', 'a transaction of another role stays in doubt');
is(resolved(), 's1 rolled back', '... until that role resolves it');

# Names and operators of a hostile path.
my $evil = <<'SQL';
CREATE SCHEMA evil;
GRANT USAGE ON SCHEMA evil TO PUBLIC;
CREATE FUNCTION evil.f() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'evil'; END $$;
CREATE FUNCTION evil.current_database() RETURNS name LANGUAGE sql AS 'SELECT evil.f()::name';
CREATE FUNCTION evil.current_setting(text) RETURNS text LANGUAGE sql AS 'SELECT evil.f()';
CREATE FUNCTION evil.set_config(text, text, boolean) RETURNS text LANGUAGE sql AS 'SELECT evil.f()';
CREATE FUNCTION evil.concat(text, uuid) RETURNS text LANGUAGE sql AS 'SELECT evil.f()';
CREATE FUNCTION evil.gen_random_uuid() RETURNS uuid LANGUAGE sql AS 'SELECT evil.f()::uuid';
CREATE FUNCTION evil.starts_with(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT evil.f()::boolean';
CREATE FUNCTION evil.strpos(text, text) RETURNS int LANGUAGE sql AS 'SELECT evil.f()::int';
CREATE FUNCTION evil.dblink_connect(text, text) RETURNS text LANGUAGE sql AS 'SELECT evil.f()';
CREATE FUNCTION evil.eq(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT evil.f()::boolean';
CREATE FUNCTION evil.eq(name, name) RETURNS boolean LANGUAGE sql AS 'SELECT evil.f()::boolean';
CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.eq);
CREATE OPERATOR evil.<> (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.eq);
CREATE OPERATOR evil.= (LEFTARG = name, RIGHTARG = name, FUNCTION = evil.eq);
SQL
fleet($evil);
on_each($evil . 'ALTER ROLE postgres SET search_path = evil, pg_catalog, public');
$counted = counters();
is(fleet_error("SELECT 'x'::text = 'y'") . fleet_error("SET search_path = evil, pg_catalog; SELECT current_database()"), 'P0001: evil', 'a path is hostile');
is(fleet_error("SET search_path = evil, pg_catalog; $_"), '', "... in vain: $_")
  for atomic('', $count), 'SELECT FROM mako_fleet.resolve()', 'SELECT FROM mako_fleet.runs()', "SELECT FROM mako_fleet.fingerprints('$source', '$target')",
  "SELECT FROM mako_fleet.plan('$source', '$target')", "SELECT FROM mako_fleet.verify('atomic')", "SELECT FROM mako_fleet.coverage('$version')",
  "SELECT FROM mako_fleet.progress()", "SELECT FROM mako_fleet.dry_run_summary('$source', '$target')", "SELECT mako_fleet.state('$stream')",
  "SELECT FROM mako_fleet.lookup('$tenant', 'x')", "SELECT FROM mako_fleet.drain('$next')";
for my $call ("migrate('$source', '$target', 'evil 1')", "migrate_version('$version', '$next', 'evil 2')", "migrate_batched('$source', '$target', 'evil 3')",
	"migrate_version_batched('$version', '$next', 'evil 4')", "revert('evil 1', 'evil 5')", "retire('FV2020-01-01')")
{
	is($coord->safe_psql('fleet', "SET search_path = evil, pg_catalog; SELECT count(sqlstate) FROM mako_fleet.$call"), 0, "... nor in $call");
}
isnt(counters(), $counted, '... and that is done');
on_each('ALTER ROLE postgres RESET search_path');

# ---- servers that are no fleet

$coord->safe_psql('postgres', 'CREATE DATABASE odd');
$coord->safe_psql('odd', 'CREATE ROLE squatter; CREATE SCHEMA mako_fleet AUTHORIZATION squatter');
like(error_of($coord, 'odd', 'CREATE EXTENSION mako_fleet CASCADE'), qr/^42501: schema "mako_fleet" belongs to another role/, 'a schema that was there before');
$coord->safe_psql('odd', 'DROP SCHEMA mako_fleet');
$coord->safe_psql('odd', 'CREATE EXTENSION mako_fleet CASCADE');
like(error_of($coord, 'odd', $resolve), qr/^42704: foreign server "mako_fleet" of PL\/Proxy does not exist/, 'no server');
my $same = conninfo(0, 's0');
$coord->safe_psql('odd', "CREATE SERVER mako_fleet FOREIGN DATA WRAPPER plproxy OPTIONS (modular_mapping '1', p0 '$same', p1 '$same'); CREATE USER MAPPING FOR postgres SERVER mako_fleet");
like(error_of($coord, 'odd', $resolve), qr/^22023: the shards are not told apart by their names/, 'two shards of one name');

# ---- a dump of the coordinator

my $dump = "$dir/dump.sql";
$coord->command_ok([ 'pg_dump', '-f', $dump, $coord->connstr('fleet') ], 'the coordinator is dumped');
$coord->safe_psql('postgres', 'CREATE DATABASE copy');
$coord->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-o', $dir . '/restored', '-f', $dump, $coord->connstr('copy') ], '... and restored');
my $all = 'SELECT md5(string_agg(d::text, chr(10) ORDER BY gid)) FROM mako_fleet.decision d';
is($coord->safe_psql('copy', $all), fleet($all), '... with its decisions');
isnt($coord->safe_psql('copy', 'SELECT mako_fleet.gid_prefix()'), fleet('SELECT mako_fleet.gid_prefix()'), '... but does not take over what the first one has prepared');

# ---- the page

# Runs its blocks one after the other, and compares what a block prints with the block of text below it.
my @pages = ([ $coord, 'page' ], map { [ $nodes[$_], (qw(north east south west))[$_] ] } 0 .. 3);
$_->[0]->safe_psql('postgres', "CREATE DATABASE $_->[1]") for @pages;
my ($said, $blocks) = ('', 0);
my $page = slurp_file('doc/fleet.md');
while ($page =~ /^```(sql|text)\n(.*?)^```$/gms)
{
	my ($kind, $block) = ($1, $2);

	$blocks++;
	if ($kind eq 'text')
	{
		s/ +$//mg, s/\s*\z/\n/ for $said, $block;
		is($said, $block, "block $blocks of the page: what it prints");
		next;
	}
	for my $i (1 .. 4)
	{
		my ($node, $db) = @{ $pages[$i] };
		my ($host, $port) = ($node->host, $node->port);
		$block =~ s/host=$db\.example/host=$host port=$port/;
	}
	for my $at ($block =~ /^-- on every shard$/m ? @pages[ 1 .. 4 ] : $pages[0])
	{
		my ($node, $db) = @$at;
		my $ok = IPC::Run::run([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($db) ], '<', \$block, '>', \$said, '2>&1');
		ok($ok, "block $blocks of the page runs in $db") or diag($said);
	}
}
cmp_ok($blocks, '>', 10, 'the page has blocks');

done_testing();
