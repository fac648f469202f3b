# An attached event store in traffic: migrations of it that are prepared and decided later, and attaching, migrating and detaching while
# its application writes. What two sessions do at known points is in specs/attached.spec; isolationtester does not know that a session
# waits for a prepared transaction.
#
# MAKO_SOAK=1 goes on for longer.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MakoTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('attached_live');

# A store of events that knows nothing of us. A state is the numbers of its events in order, so that one that is missing, doubled or
# misplaced shows.
sub create_shop
{
	my ($db, $streams) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->safe_psql($db, <<SQL);
CREATE EXTENSION mako_migration;
SELECT mako_create_store();
CREATE SCHEMA shop;
CREATE FUNCTION shop.apply(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS
  \$\$ SELECT state || payload \$\$;
CREATE FUNCTION shop.migrate(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS \$\$ SELECT state \$\$;
SELECT mako_register_workflow('shop\@FV2024-10-01', apply => 'shop.apply', initial_state => '[]'),
       mako_register_workflow('shop\@FV2025-10-01', apply => 'shop.apply', initial_state => '[]'),
       mako_register_migration('shop\@FV2024-10-01', 'shop\@FV2025-10-01', migrate => 'shop.migrate'),
       mako_register_migration('shop\@FV2025-10-01', 'shop\@FV2024-10-01', migrate => 'shop.migrate');
CREATE TABLE shop.message (stream_name text, position bigint, type text DEFAULT 'Counted', data jsonb, metadata jsonb,
                           UNIQUE (stream_name, position));
INSERT INTO shop.message (stream_name, position, data) SELECT 's' || n, 0, '0' FROM generate_series(1, $streams) AS n;
CREATE FUNCTION shop.attach(wait boolean DEFAULT true) RETURNS TABLE (streams bigint, events bigint, damaged bigint) LANGUAGE sql AS \$\$
  SELECT * FROM mako_attach_store(
    'SELECT stream_name AS stream_id, position + 1 AS sequence_number, type AS event_type, data AS payload,
            ''shop\@'' || (metadata->>''version'') AS workflow_id
     FROM shop.message', initial => 'shop\@FV2024-10-01', wait => wait) \$\$;
SQL
}

my $run = "SELECT migrated, failed FROM mako_migrate('shop\@FV2024-10-01', 'shop\@FV2025-10-01')";
my $back = "SELECT migrated, failed FROM mako_migrate('shop\@FV2025-10-01', 'shop\@FV2024-10-01')";

sub append { return "INSERT INTO shop.message (stream_name, position, data) VALUES ('$_[0]', $_[1], '$_[1]')"; }

# Waits until a session waits for a transaction or a lock.
sub wait_until_blocked
{
	my ($name) = @_;

	return wait_for($node, 'postgres', "SELECT 'waits' FROM pg_stat_activity WHERE application_name = '$name' AND wait_event_type = 'Lock'");
}

my $heads = 'SELECT stream_id, right(workflow_id, 10), version FROM mako.stream ORDER BY stream_no';

#
# Prepared migrations.
#
create_shop('prepared', 2);
is($node->safe_psql('prepared', 'SELECT * FROM shop.attach()'), '2|2|0', 'a store is attached');

is($node->safe_psql('prepared', "BEGIN; $run; PREPARE TRANSACTION 'run'"), '2|0', 'a migration of it is prepared');
my $late = start_sql($node, 'prepared', 'late', append('s1', 1));
is(wait_until_blocked('late'), 'waits', '... and a late writer waits for it');
is(error_of($node, 'prepared', append('s3', 0)), '', '... but not one of a new stream');
$node->safe_psql('prepared', "ROLLBACK PREPARED 'run'");
ok(finish_sql($late), '... which goes on when it is rolled back') or diag($late->{err});
is($node->safe_psql('prepared', $heads), "s1|2024-10-01|2\ns2|2024-10-01|1\ns3|2024-10-01|1", '... as if it had not been');

is($node->safe_psql('prepared', "BEGIN; $run; PREPARE TRANSACTION 'run'"), '3|0', 'another one');
$late = start_sql($node, 'prepared', 'late', append('s1', 2));
wait_until_blocked('late');
$node->safe_psql('prepared', "COMMIT PREPARED 'run'");
ok(!finish_sql($late), '... stops the late writer when it is committed');
like($late->{err}, qr/MK005: stream "s1" runs under workflow "shop\@FV2025-10-01"/, '... who learns that his stream has moved');
is($node->safe_psql('prepared', $heads), "s1|2025-10-01|2\ns2|2025-10-01|1\ns3|2025-10-01|1", '... and his event is not there');

is($node->safe_psql('prepared', "BEGIN; $back; PREPARE TRANSACTION 'back'"), '3|0', 'a way back, prepared');
$node->stop('immediate');
$node->start;
$late = start_sql($node, 'prepared', 'late', 'SET mako.writer = \'FV2025-10-01\'', append('s1', 2));
is(wait_until_blocked('late'), 'waits', '... is waited for after a crash, too');
$node->safe_psql('prepared', "COMMIT PREPARED 'back'");
ok(!finish_sql($late), '... and stops a writer of the version that is left');
like($late->{err}, qr/MK005/, '... as before');

# An append that is prepared: the run waits for it, and takes it along.
$node->safe_psql('prepared', 'BEGIN; ' . append('s2', 1) . "; PREPARE TRANSACTION 'append'");
my $waiting = start_sql($node, 'prepared', 'waiting', $run);
is(wait_until_blocked('waiting'), 'waits', 'a migration waits for an append that is prepared');
$node->safe_psql('prepared', "COMMIT PREPARED 'append'");
ok(finish_sql($waiting), '... and goes on when it is committed') or diag($waiting->{err});
is( $node->safe_psql('prepared', "SELECT n.sequence_number, n.state FROM mako.snapshot n JOIN mako.stream s USING (stream_no) WHERE s.stream_id = 's2' ORDER BY n.run_id DESC LIMIT 1"),
	'2|[0, 1]', '... with its event');

# Who does not wait does not wait for these either.
$node->safe_psql('prepared', 'SELECT mako_detach_store(); SELECT * FROM shop.attach(false)');
is($node->safe_psql('prepared', "BEGIN; $back; PREPARE TRANSACTION 'back'"), '3|0', 'a store whose writers do not wait');
like(error_of($node, 'prepared', "SET mako.writer = 'FV2025-10-01'; " . append('s1', 2)), qr/^55P03/, '... nor for what is prepared');
$node->safe_psql('prepared', "ROLLBACK PREPARED 'back'");
is(error_of($node, 'prepared', "SET mako.writer = 'FV2025-10-01'; " . append('s1', 2)), '', '... and succeed later');

# Attaching and detaching, prepared.
is(error_of($node, 'prepared', "BEGIN; SELECT mako_detach_store(); PREPARE TRANSACTION 'detach'"), '', 'detaching is prepared');
$late = start_sql($node, 'prepared', 'late', append('s1', 3));
is(wait_until_blocked('late'), 'waits', '... and a writer waits for it');
$node->safe_psql('prepared', "COMMIT PREPARED 'detach'");
ok(finish_sql($late), '... who is free then') or diag($late->{err});
is($node->safe_psql('prepared', "BEGIN; SELECT events, damaged FROM shop.attach(); PREPARE TRANSACTION 'attach'"), '7|0', 'attaching is prepared');
$late = start_sql($node, 'prepared', 'late', append('s1', 4));
is(wait_until_blocked('late'), 'waits', '... and a writer waits for it');
$node->safe_psql('prepared', "COMMIT PREPARED 'attach'");
ok(!finish_sql($late), '... who is then held back');
like($late->{err}, qr/MK005/, '... because his stream has moved before');

#
# Traffic. Writers of both versions read where a stream ends, and append there; the old one says nothing of its version, the new one does.
# They begin while nothing is attached.
#
my $seconds = $ENV{MAKO_SOAK} ? 60 : 6;
create_shop('live', 60);
$node->safe_psql('live', <<'SQL');
CREATE TABLE shop.refusal (sqlstate text, message text, hint text);
CREATE SEQUENCE shop.started START 1000;
CREATE FUNCTION shop.write(version text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  stream text := CASE WHEN random() < 0.1 THEN 's' || nextval('shop.started') ELSE 's' || ceil(random() * 60) END;
  next   bigint := (SELECT coalesce(max(position) + 1, 0) FROM shop.message WHERE stream_name = stream);
  said   text;
BEGIN
  PERFORM set_config('mako.writer', version, true);
  INSERT INTO shop.message (stream_name, position, data, metadata)
  SELECT stream, next + n, to_jsonb(next + n), jsonb_build_object('by', coalesce(nullif(version, ''), 'FV2024-10-01'))
  FROM generate_series(0, floor(random() * 3)::int) AS n;
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS said = PG_EXCEPTION_HINT;
  INSERT INTO shop.refusal VALUES (SQLSTATE, SQLERRM, said);
END $$;
SQL
srand($ENV{MAKO_SEED} // 1);
my $end = time + $seconds + 4;
my @writers = map { start_loop($node, 'live', "writer_$_", $end, "SELECT shop.write('" . ($_ % 2 ? '' : 'FV2025-10-01') . "') \\g /dev/null") } 1 .. 4;
wait_for($node, 'live', "SELECT 'begun' FROM shop.message WHERE position > 2 LIMIT 1");

# What holds whenever the store is attached: heads are where their events are.
my $holds = <<'SQL';
SELECT coalesce(s.stream_id, e.stream_name), s.version, e.count, e.max
FROM mako.stream s
FULL JOIN (SELECT stream_name, count(*), max(position) + 1 AS max FROM shop.message GROUP BY stream_name) AS e ON e.stream_name = s.stream_id
WHERE s.version IS DISTINCT FROM e.count OR s.version IS DISTINCT FROM e.max
SQL
my $runs = 0;
my @disorder;
while (time < $end - 2)
{
	my $damaged = $node->safe_psql('live', 'SELECT damaged FROM shop.attach()');

	push @disorder, "attached with $damaged damaged" if $damaged ne '0';
	for ([ '2024', '2025' ], [ '2025', '2024' ])
	{
		my ($from, $to) = map { "shop\@FV$_-10-01" } @$_;

		$node->safe_psql('live', $runs % 2 ? "SELECT mako_migrate('$from', '$to')" : "CALL mako_migrate_batched('$from', '$to', 7)");
		push @disorder, $node->safe_psql('live', $holds);
		$runs++;
	}
	$node->safe_psql('live', 'SELECT mako_detach_store()');
}
$node->safe_psql('live', 'SELECT * FROM shop.attach()');
finish_sql($_) for @writers;
is(join('', map { $_->{err} } @writers), '', 'writers write all the time');
is(join("\n", grep { $_ ne '' } @disorder), '', 'heads are where their events are, after attaching and after each run');
is($node->safe_psql('live', $holds), '', '... and at the end');
cmp_ok($runs, '>', 3, "there were $runs runs");
note($node->safe_psql('live', 'SELECT count(*), sum(migrated), sum(failed) FROM mako.migration_run'));
note($node->safe_psql('live', 'SELECT sqlstate, count(*), min(message), min(hint) FROM shop.refusal GROUP BY 1 ORDER BY 1'));
is($node->safe_psql('live', 'SELECT * FROM mako.migration_error LIMIT 3'), '', 'no stream failed');
cmp_ok($node->safe_psql('live', "SELECT count(*) FROM shop.refusal WHERE sqlstate = 'MK005'"), '>', 0, 'there were writers that came too late');
is( $node->safe_psql('live', "SELECT DISTINCT sqlstate, message FROM shop.refusal WHERE sqlstate NOT IN ('MK005', '23505', 'XX001')"),
	'', 'writers are refused for known reasons only: moved, overtaken by another writer');
is($node->safe_psql('live', "SELECT DISTINCT message FROM shop.refusal WHERE sqlstate = 'XX001'"), '', 'and the table itself knows who was overtaken');
# The last runs tell what all before have led to. An index serves its own collation only.
my $last = "run_id > (SELECT max(run_id) - 50 FROM mako.migration_run)";
is( $node->safe_psql('live', <<SQL), '', 'every state that was stored last is a fold by hand of the events up to it');
ANALYZE;
SELECT s.stream_id, n.run_id, n.sequence_number, n.state FROM mako.snapshot n JOIN mako.stream s USING (stream_no)
WHERE n.$last AND n.state IS DISTINCT FROM
  (SELECT jsonb_agg(m.data ORDER BY m.position) FROM shop.message m WHERE m.stream_name = s.stream_id COLLATE "default" AND m.position < n.sequence_number)
LIMIT 3
SQL
is($node->safe_psql('live', "SELECT code, subject FROM mako_check(0) WHERE severity = 'error'"), '', 'the check finds no error');
is($node->safe_psql('live', "SELECT r.run_id, v.* FROM mako.migration_run r, mako_verify(r.run_id) v WHERE r.$last LIMIT 3"), '', 'nor does it find a state that is wrong');
is($node->safe_psql('live', "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"), '0', 'no lock is left');

$node->stop;
done_testing();
