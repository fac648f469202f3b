# Snapshots and heads are written without statements where nobody has given their tables more to do, and by statements otherwise. Both
# leave the same rows, refuse the same streams, and keep the indexes whole.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MakoTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('write');
$node->append_conf('postgresql.conf', "wal_level = logical\nmax_wal_senders = 4\nmax_replication_slots = 4");
$node->restart;
create_store($node, 'base');
generate($node, 'base', 'generate(1500)');
my $serial = 0;

# A new database like "base", changed by these statements.
sub variant
{
	my ($changes) = @_;
	my $db = 'variant_' . ++$serial;

	$node->safe_psql('postgres', "CREATE DATABASE $db TEMPLATE base");
	$node->safe_psql($db, $changes) if $changes;
	return $db;
}

# Migrates; returns "migrated|skipped|failed", and how snapshots and heads were written.
sub migrate
{
	my ($db, $sql, @params) = @_;
	my $stderr;

	$node->psql($db, 'SET client_min_messages = debug1; ' . ($sql // $migrate), stdout => \my $stdout, stderr => \$stderr,
		on_error_stop => 0, extra_params => \@params);
	my %how = $stderr =~ /DEBUG: +(snapshots|heads) are written by (\w+)/g;
	diag($stderr) if $stderr =~ /ERROR/;
	return ($stdout, join ' ', map { "$_:" . ($how{$_} // '') } qw(snapshots heads));
}

# What a run leaves behind, to the byte.
sub written
{
	my ($db) = @_;

	return $node->safe_psql($db, <<'SQL');
SELECT count(*), count(DISTINCT taken_at), md5(string_agg(format('%s %s %s %s %s %s', stream_no, sequence_number, workflow_id,
         state_schema_version, encode(jsonb_send(state), 'hex'), taken_at IS NULL), E'\n' ORDER BY stream_no, sequence_number))
FROM mako.snapshot;
SELECT count(*), md5(string_agg(format('%s %s %s %s %s %s %s', stream_no, stream_id, tenant_id, process_id, workflow_id, version, created_at),
         E'\n' ORDER BY stream_no)) FROM mako.stream;
SELECT count(*), md5(string_agg(t::text, E'\n' ORDER BY t::text)) FROM gpke.deadline t;
SELECT stream_no, phase, sequence_number, sqlstate, message, detail FROM mako.migration_error ORDER BY 1;
SQL
}

# Every index entry is there and in its place, and no row is damaged.
sub indexes_are_whole
{
	my ($db, $name) = @_;

	is( $node->safe_psql($db, <<'SQL'), '', $name);
SET client_min_messages = error;
CREATE EXTENSION IF NOT EXISTS amcheck;
SELECT bt_index_parent_check(i.indexrelid, true, true)
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam JOIN pg_class t ON t.oid = i.indrelid
WHERE t.relnamespace = 'mako'::regnamespace AND a.amname = 'btree' \g /dev/null
SELECT t.relname, v.* FROM pg_class t CROSS JOIN LATERAL verify_heapam(t.oid, check_toast => true) v
WHERE t.relnamespace = 'mako'::regnamespace AND t.relkind = 'r';
SQL
}

# ---- both ways leave the same

my $direct = 'snapshots:bulk heads:row';
my $plain = variant('CREATE INDEX ON mako.stream (created_at)');
my ($result, $how) = migrate($plain);
my $rows = written($plain);
is($how, $direct, 'a store to which nobody has added what concerns us is written without statements');
like($result, qr/^\d{3,}\|\d+\|0$/m, '... every stream of it');
indexes_are_whole($plain, '... and its indexes are whole');

my $count = 'CREATE TABLE seen (what text); CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO public.seen VALUES (tg_table_name); RETURN coalesce(new, old); END $$;';

# What was added, who then writes, and a query that must give "t".
my @variants = (
	[ "$count CREATE TRIGGER see AFTER INSERT ON mako.snapshot FOR EACH ROW EXECUTE FUNCTION see()", 'snapshots:statements heads:row',
		"SELECT count(*) = (SELECT count(*) FROM mako.snapshot) FROM seen WHERE what = 'snapshot'" ],
	[ "$count CREATE TRIGGER see BEFORE INSERT ON mako.snapshot FOR EACH STATEMENT EXECUTE FUNCTION see()", 'snapshots:statements heads:row',
		"SELECT count(*) > 0 FROM seen WHERE what = 'snapshot'" ],
	[ "$count CREATE TRIGGER see AFTER UPDATE OF workflow_id ON mako.stream FOR EACH ROW EXECUTE FUNCTION see()", 'snapshots:bulk heads:statements',
		"SELECT count(*) >= (SELECT count(*) FROM mako.snapshot) FROM seen WHERE what = 'stream'" ],
	[ "$count CREATE TRIGGER see AFTER DELETE ON mako.snapshot FOR EACH ROW EXECUTE FUNCTION see()", $direct, 'SELECT count(*) = 0 FROM seen' ],
	[ "$count CREATE RULE see AS ON INSERT TO mako.snapshot DO ALSO INSERT INTO seen VALUES ('snapshot')", 'snapshots:statements heads:row',
		"SELECT count(*) > 0 FROM seen WHERE what = 'snapshot'" ],
	[ "$count CREATE RULE see AS ON UPDATE TO mako.stream DO ALSO INSERT INTO seen VALUES ('stream')", 'snapshots:bulk heads:statements',
		"SELECT count(*) > 0 FROM seen WHERE what = 'stream'" ],
	[ "ALTER TABLE mako.snapshot ADD CHECK (state_schema_version < 100)", 'snapshots:statements heads:row' ],
	[ "ALTER TABLE mako.stream ADD CHECK (workflow_id <> '')", 'snapshots:bulk heads:statements' ],
	[ 'CREATE TABLE archive () INHERITS (mako.snapshot)', 'snapshots:statements heads:row' ],
	[ 'CREATE TABLE archive () INHERITS (mako.stream)', 'snapshots:bulk heads:statements' ],
	[ 'ALTER TABLE mako.snapshot ADD FOREIGN KEY (stream_no) REFERENCES mako.stream', 'snapshots:statements heads:row' ],
	[ 'ALTER TABLE mako.snapshot ADD UNIQUE (stream_no, run_id) DEFERRABLE INITIALLY DEFERRED', 'snapshots:statements heads:row' ],
	[ 'ALTER TABLE mako.snapshot ADD EXCLUDE USING btree (stream_no WITH =, run_id WITH =)', 'snapshots:statements heads:row' ],
	[ 'CREATE TABLE known (workflow_id text COLLATE "C" PRIMARY KEY); INSERT INTO known SELECT workflow_id FROM mako_workflow;
	   ALTER TABLE mako.stream ADD FOREIGN KEY (workflow_id) REFERENCES known', 'snapshots:bulk heads:statements' ],
	[ 'CREATE INDEX ON mako.stream (workflow_id)', 'snapshots:bulk heads:statements' ],
	[ 'CREATE INDEX ON mako.stream USING brin (workflow_id)', 'snapshots:bulk heads:statements' ],
	[ 'CREATE UNIQUE INDEX ON mako.stream (stream_no, workflow_id); CREATE TABLE follower (stream_no bigint, workflow_id text COLLATE "C",
	   FOREIGN KEY (stream_no, workflow_id) REFERENCES mako.stream (stream_no, workflow_id) ON UPDATE CASCADE);
	   INSERT INTO follower SELECT stream_no, workflow_id FROM mako.stream', 'snapshots:bulk heads:statements',
		'SELECT count(*) = 0 FROM follower JOIN mako.stream s USING (stream_no) WHERE follower.workflow_id <> s.workflow_id' ],
	[ 'ALTER TABLE mako.snapshot ADD size int GENERATED ALWAYS AS (octet_length(workflow_id)) STORED', 'snapshots:statements heads:row',
		'SELECT bool_and(size > 0) FROM mako.snapshot' ],
	[ 'ALTER TABLE mako.stream ADD short text GENERATED ALWAYS AS (left(workflow_id, 4)) STORED', 'snapshots:bulk heads:statements' ],

	# More columns: an INSERT fills them.
	[ q{ALTER TABLE mako.snapshot ADD gone int, ADD note text DEFAULT 'by ' || current_user, ADD at timestamptz DEFAULT now(), ADD none int;
		ALTER TABLE mako.snapshot DROP gone; ALTER TABLE mako.stream ADD gone int; ALTER TABLE mako.stream DROP gone}, 'snapshots:statements heads:row',
		"SELECT bool_and(note = 'by ' || current_user AND at = taken_at AND none IS NULL) FROM mako.snapshot" ],
	[ 'ALTER TABLE mako.snapshot ADD id uuid NOT NULL DEFAULT gen_random_uuid()', 'snapshots:statements heads:row',
		'SELECT count(DISTINCT id) = count(*) FROM mako.snapshot' ],
	[ 'ALTER TABLE mako.snapshot ADD number bigserial', 'snapshots:statements heads:row', 'SELECT count(DISTINCT number) = count(*) FROM mako.snapshot' ],

	# More indexes: they get their entries.
	[ q{CREATE INDEX by_status ON mako.snapshot ((state->>'status')) WHERE run_id > 0; CREATE INDEX by_state ON mako.snapshot USING gin (state);
		CREATE INDEX by_time ON mako.snapshot USING brin (taken_at); CREATE INDEX by_process ON mako.stream (process_id) WHERE version > 2},
		'snapshots:statements heads:statements', q{SET enable_seqscan = off; SELECT sum(found) = (SELECT count(*) FROM mako.snapshot) AND count(*) > 2
		FROM (SELECT DISTINCT state->>'status' AS status FROM mako.snapshot) s
		CROSS JOIN LATERAL (SELECT count(*) AS found FROM mako.snapshot n WHERE n.state @> jsonb_build_object('status', s.status)) f} ],

	# The owner's policies are not about a superuser.
	[ 'ALTER TABLE mako.snapshot ENABLE ROW LEVEL SECURITY; CREATE POLICY none ON mako.snapshot USING (false)', $direct ],
);
for my $variant (@variants)
{
	my ($changes, $expected, $check) = @$variant;
	my $name = substr($changes =~ s/^\Q$count\E //r, 0, 90);
	my $db = variant($changes);
	my ($out, $by) = migrate($db);

	is($by, $expected, "$name: $expected");
	is($out, $result, '... the same report');
	is(written($db), $rows, '... and the same rows');
	is($node->safe_psql($db, $check), 't', '... and what was added has its due') if $check;
	indexes_are_whole($db, '... and the indexes are whole');
	$node->safe_psql('postgres', "DROP DATABASE $db");
}

# ---- whoever may write the columns

my $granted = variant(<<'SQL');
CREATE ROLE mover LOGIN;
GRANT USAGE ON SCHEMA mako, gpke TO mover;
GRANT SELECT ON mako.event, mako.repointed, mako.reverted, mako.migration_run, mako.format_version, mako.dependent, gpke.deadline TO mover;
GRANT INSERT, SELECT ON mako.migration_error TO mover;
GRANT INSERT ON mako.repointed TO mover;
GRANT INSERT, UPDATE ON mako.migration_run TO mover;
GRANT UPDATE (workflow_id) ON gpke.deadline TO mover;
GRANT SELECT ON mako.snapshot TO mover;
GRANT INSERT (stream_no, sequence_number, run_id, workflow_id, state_schema_version, state, taken_at) ON mako.snapshot TO mover;
GRANT UPDATE (workflow_id) ON mako.stream TO mover;
GRANT SELECT (stream_no, stream_id, tenant_id, process_id, version, workflow_id) ON mako.stream TO mover;
GRANT EXECUTE ON FUNCTION mako_migrate(mako_workflow_id, mako_workflow_id, uuid, boolean, boolean, bigint, text, text) TO mover;
SQL
for my $privilege ('INSERT (state) ON mako.snapshot', 'UPDATE (workflow_id) ON mako.stream')
{
	$node->safe_psql($granted, "REVOKE $privilege FROM mover");
	like(error_of($node, $granted, $migrate, '-U', 'mover'), qr/^42501: permission denied/, "without $privilege nothing is written");
	$node->safe_psql($granted, "GRANT $privilege TO mover");
}
($result, $how) = migrate($granted, undef, '-U', 'mover');
is($how, $direct, 'privileges on the columns are enough');
is(written($granted), $rows, '... for the same rows');

# ---- what cannot be written fails alone

my $break = <<'SQL';
SET client_min_messages = error;
ALTER TABLE mako.snapshot DISABLE TRIGGER ALL;
CREATE TEMPORARY TABLE chosen AS
SELECT stream_no, version, row_number() OVER (ORDER BY stream_no) AS n FROM mako.stream WHERE workflow_id LIKE '%@FV2024-10-01';
-- the run to come has number 1
INSERT INTO mako.snapshot (stream_no, sequence_number, run_id, workflow_id, state_schema_version, state)
SELECT stream_no, version, 1, 'gpke-supplier-change@FV2025-10-01', 2, '{}' FROM chosen WHERE n IN (1, 500, 501, (SELECT max(n) FROM chosen));
ALTER TABLE mako.snapshot ENABLE TRIGGER ALL;
ALTER TABLE mako.reverted DISABLE TRIGGER ALL;
INSERT INTO mako.reverted SELECT stream_no, 1, 1 FROM mako.snapshot;
ALTER TABLE mako.reverted ENABLE TRIGGER ALL;
-- streams whose state an index cannot take
CREATE FUNCTION pick(stream_no bigint) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
  IF stream_no % 211 = 7 THEN RAISE EXCEPTION USING MESSAGE = 'stream ' || stream_no || ' has no place here', ERRCODE = 'MKX01'; END IF;
  RETURN 1;
END $$;
CREATE INDEX picky ON mako.snapshot (pick(stream_no)) WHERE run_id > 0 AND state <> '{}';
SQL
my $broken = variant($break);
my $broken_statements = variant("$break ALTER TABLE mako.snapshot ADD CHECK (run_id >= 0)");
($result, $how) = migrate($broken);
is($how, 'snapshots:statements heads:row', 'streams fail in an index that computes');
my ($expected_result, $expected_how) = migrate($broken_statements);
is($expected_how, 'snapshots:statements heads:row', '... and by statements');
is($result, $expected_result, '... as many of them');
is(written($broken), written($broken_statements), '... the same ones, with the same errors, and the others are written');
is( $node->safe_psql($broken, "SELECT string_agg(DISTINCT phase || ' ' || sqlstate, ',' ORDER BY phase || ' ' || sqlstate) FROM mako.migration_error"),
	'snapshot 23505,snapshot MKX01', '... both kinds of them');
is( $node->safe_psql($broken, "SELECT count(*) FROM mako.migration_error e JOIN mako.stream s USING (stream_no, stream_id)
	 WHERE s.workflow_id = '$source'"), $node->safe_psql($broken, 'SELECT count(*) FROM mako.migration_error'),
	'... named by their ids, and where they were');
indexes_are_whole($broken, '... and the indexes are whole');

# ---- heads that are not where they were

# While a run writes its first results, a trigger appends to streams whose heads it holds: they have new versions when their turn comes.
my $append = <<'SQL';
CREATE FUNCTION gpke.append() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  stream record;
BEGIN
  IF current_setting('test.appended', true) = 'yes' THEN
    RETURN NULL;
  END IF;
  PERFORM set_config('test.appended', 'yes', false);
  FOR stream IN SELECT s.* FROM mako.stream s WHERE workflow_id LIKE '%@FV2024-10-01' ORDER BY stream_no DESC LIMIT 20 LOOP
    PERFORM mako_append(stream.stream_id, stream.workflow_id, 'SupplierChangeVollzugsmeldungReceived', '{"type": "VollzugsmeldungReceived"}');
  END LOOP;
  RETURN NULL;
END $$;
CREATE TRIGGER append AFTER UPDATE ON gpke.deadline FOR EACH STATEMENT EXECUTE FUNCTION gpke.append();
SQL
my $small_steps = "SET mako_migration.max_memory = '1MB'; SET mako_migration.batch_size = 100000; $migrate";
my $moving = variant($append);
my $moving_statements = variant("$append CREATE INDEX ON mako.stream (workflow_id)");
($result, $how) = migrate($moving, $small_steps);
is($how, $direct, 'heads move on during the run');
($expected_result, $expected_how) = migrate($moving_statements, $small_steps);
is($expected_how, 'snapshots:bulk heads:statements', '... and where statements write them');
is($result, $expected_result, '... as many streams are migrated');
is(written($moving), written($moving_statements), '... and every head is where it should be');
is( $node->safe_psql($moving, "SELECT count(*) FROM mako.snapshot n JOIN mako.stream s USING (stream_no)
	 WHERE s.version = n.sequence_number + 1 AND s.workflow_id = '$target'"), '0', '... but not where an event came that its state lacks');
indexes_are_whole($moving, '... and the indexes are whole');

# Back and forth until the pages are full, so that heads move to other pages.
my $back = $migrate =~ s/'\Q$source\E', '\Q$target\E'/'$target', '$source'/r;
for my $statement (($back, $migrate) x 2)
{
	($result, $how) = migrate($plain, $statement);
	is($how, $direct, 'heads move to other pages');
	like($result, qr/^\d{3,}\|\d+\|0$/m, '... all of them');
}
indexes_are_whole($plain, '... and the indexes are whole');
is( $node->safe_psql($plain, "SET enable_seqscan = off; SELECT count(*) FROM generate_series(1, 3000) AS n JOIN mako.stream s ON s.stream_no = n"),
	$node->safe_psql($plain, 'SELECT count(*) FROM mako.stream'), '... where every head is found');

# ---- replication

my $replicated = variant('ALTER TABLE mako.stream REPLICA IDENTITY NOTHING; CREATE PUBLICATION heads FOR TABLE mako.stream, mako.snapshot');
migrate($replicated);
is($node->safe_psql($replicated, 'SELECT count(*) FROM mako.snapshot WHERE run_id > 0'), '0', 'without a replica identity, published heads stay');
$node->safe_psql($replicated, 'ALTER TABLE mako.stream REPLICA IDENTITY FULL');
$node->safe_psql($replicated, "SELECT pg_create_logical_replication_slot('slot', 'test_decoding')");
($result, $how) = migrate($replicated);
is($how, $direct, 'a published store is written without statements');
is( $node->safe_psql($replicated, <<'SQL'), '0|0|0', '... and subscribers see every row');
CREATE TEMPORARY TABLE change AS SELECT data FROM pg_logical_slot_get_changes('slot', NULL, NULL);
WITH inserted AS (
  SELECT substring(data FROM 'stream_no\[bigint\]:(\d+)')::bigint AS stream_no,
         replace(substring(data FROM 'state\[jsonb\]:''(.*)'' taken_at'), '''''', '''') AS state
  FROM change WHERE data LIKE 'table mako.snapshot: INSERT:%')
SELECT (SELECT count(*) FROM inserted) - (SELECT count(*) FROM mako.snapshot),
       (SELECT count(*) FROM (SELECT stream_no, state::text FROM mako.snapshot EXCEPT SELECT stream_no, state FROM inserted) m),
       (SELECT count(*) FROM change WHERE data LIKE 'table mako.stream: UPDATE: old-key:%FV2024-10-01%new-tuple:%FV2025-10-01%')
         - (SELECT count(*) FROM mako.stream s JOIN mako.snapshot USING (stream_no));
SQL
$node->safe_psql($replicated, "SELECT pg_drop_replication_slot('slot')");
$node->stop;
done_testing();
