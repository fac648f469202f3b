# What the TAP tests share: servers, stores full of generated processes, and what a database holds, as text to compare.
#
# The tests run from the root of the project, as test/check runs them.
package MakoTest;

use strict;
use warnings;

use Exporter 'import';
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Time::HiRes;

our @EXPORT = qw($source $target $migrate new_server create_store create_two_workflows add_sink generate
  contents outcome error_of disorder damage
  start_sql finish_sql start_loop pid_of wait_for open_session ask say_to answer_of close_session);

our $source = 'gpke-supplier-change@FV2024-10-01';
our $target = 'gpke-supplier-change@FV2025-10-01';

# Prints "migrated skipped failed".
our $migrate = "SELECT migrated, skipped, failed FROM mako_migrate('$source', '$target')";

# A running server with room for a few prepared transactions; autovacuum would only blur what the tests look at.
sub new_server
{
	my ($name, %init) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(%init, extra => [ '--encoding=UTF8', '--locale=C' ]);
	$node->append_conf('postgresql.conf', <<'CONF');
shared_buffers = 64MB
max_connections = 30
max_prepared_transactions = 10
max_wal_size = 1GB
autovacuum = off
log_statement = none
CONF
	# test/check forces an order upon some of the tests
	$node->append_conf('postgresql.conf', "mako_migration.scan_order = $ENV{MAKO_SCAN_ORDER}") if $ENV{MAKO_SCAN_ORDER};
	$node->start;
	return $node;
}

# A new database with extension, store and the registered example workflow.
sub create_store
{
	my ($node, $db) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->safe_psql($db, 'CREATE EXTENSION mako_migration; SELECT mako_create_store()');
	$node->safe_psql($db, slurp_file("test/examples/gpke/$_.sql")) for qw(supplier_change generate register);
	$node->safe_psql($db, "SELECT mako_add_dependent('gpke.deadline', 'process_id', 'workflow_id', 'tenant_id')");
}

# A new database with the two workflows of test/pgtap/include, and so many streams.
sub create_two_workflows
{
	my ($node, $db, $streams) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->safe_psql($db, slurp_file('test/pgtap/include/two_workflows.sql'),
		extra_params => [ '-v', "streams=$streams" ]);
}

# Lets a sink take what moves, and give it back; what it has is among the contents of a store.
sub add_sink
{
	my ($node, $db) = @_;

	$node->safe_psql($db, <<'SQL');
CREATE TABLE public.taken (run_id bigint, stream_id text, sequence_number bigint, state jsonb, PRIMARY KEY (run_id, stream_id));
SELECT mako_add_sink('INSERT INTO public.taken SELECT run_id, stream_id, sequence_number, state FROM moved',
  'DELETE FROM public.taken t USING moved m WHERE t.run_id = m.run_id AND t.stream_id = m.stream_id
   AND t.sequence_number = m.sequence_number AND t.state IS NOT DISTINCT FROM m.state');
SQL
}

# Fills a store; $call is a call of one of the generator's functions.
sub generate
{
	my ($node, $db, $call) = @_;

	$node->safe_psql($db, "SELECT gpke.$call; VACUUM ANALYZE");
}

# A database's rows, one line a table: all of the store, the definitions and the dependents. Another order of rows is no change.
sub contents
{
	my ($node, $db) = @_;

	return fingerprint($node, $db, 't::text');
}

# The same without what differs between two runs that do the same: times and numbers of runs.
sub outcome
{
	my ($node, $db) = @_;

	return fingerprint($node, $db, q{(to_jsonb(t) - '{run_id,taken_at,started_at,finished_at,registered_at,added_at,sink_no,sinks}'::text[])::text});
}

sub fingerprint
{
	my ($node, $db, $row) = @_;
	my $tables = $node->safe_psql($db, <<'SQL');
SELECT c.oid::regclass
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND (n.nspname = 'mako' OR c.relname IN ('deadline', 'taken', 'mako_workflow', 'mako_state_migration', 'mako_sink'))
SQL
	my $query = join ' UNION ALL ',
	  map { "SELECT '$_', count(*), sum(hashtextextended($row, 0)::numeric) FROM $_ t" } split /\n/, $tables;

	return $node->safe_psql($db, "SET jit = off; $query ORDER BY 1");
}

# The first error of a statement, "SQLSTATE: message", or '' when there is none.
sub error_of
{
	my ($node, $db, $sql, @params) = @_;
	my $stderr;

	$node->psql($db, $sql, stderr => \$stderr, extra_params => [ '-v', 'VERBOSITY=verbose', @params ]);
	return $stderr =~ /(?:ERROR|FATAL): +(.*)/ ? $1 : '';
}

# What does not hold of a store: each head counts its events, each dependent follows its head, the
# check finds no error, and no lock is left.
sub disorder
{
	my ($node, $db) = @_;

	return $node->safe_psql($db, <<'SQL');
SET client_min_messages = error;
SELECT 'head', s.*, e.*
FROM mako.stream s, LATERAL (SELECT count(*), coalesce(max(sequence_number), 0) FROM mako.event e
                             WHERE e.stream_no = s.stream_no) AS e (events, last)
WHERE (s.version, s.version) <> (e.events, e.last) LIMIT 5;
SELECT 'dependent', d.*, s.workflow_id
FROM lib.deadline d JOIN mako.stream s USING (stream_no)
WHERE d.workflow_id <> s.workflow_id LIMIT 5;
SELECT 'check', code, subject, message FROM mako_check(0) WHERE severity = 'error';
SELECT 'lock', pid, objid FROM pg_locks WHERE locktype = 'advisory' LIMIT 5;
SQL
}

# Index entries of a store that are missing or out of place, and rows that are damaged.
sub damage
{
	my ($node, $db) = @_;
	my ($stdout, $stderr) = ('', '');

	$node->psql($db, <<'SQL', stdout => \$stdout, stderr => \$stderr);
SET client_min_messages = error;
CREATE EXTENSION IF NOT EXISTS amcheck;
SELECT bt_index_parent_check(c.oid, true, true)
FROM pg_class c JOIN pg_am a ON a.oid = c.relam
WHERE c.relnamespace = 'mako'::regnamespace AND c.relkind = 'i' AND a.amname = 'btree' \g /dev/null
SELECT c.relname, v.* FROM pg_class c, verify_heapam(c.oid, check_toast => true) v
WHERE c.relnamespace = 'mako'::regnamespace AND c.relkind = 'r';
SQL
	return $stdout . $stderr;
}

# Starts statements in a session of their own, which pid_of() finds by its name.
sub start_sql
{
	my ($node, $db, $name, @statements) = @_;
	my $session = { in => '', out => '', err => '' };

	$session->{run} = IPC::Run::start(
		[
			'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-v', 'VERBOSITY=verbose',
			'-d', $node->connstr($db) . " application_name=$name", map { ('-c', $_) } @statements
		],
		'<', \$session->{in}, '>', \$session->{out}, '2>', \$session->{err},
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return $session;
}

# Waits for the end of such a session; true when all its statements succeeded.
sub finish_sql
{
	my ($session) = @_;

	return $session->{run}->finish;
}

# Repeats statements until a time, in a session of that name, and in another one when it dies. What
# random() gives depends on our seed. To be waited for by finish_sql().
sub start_loop
{
	my ($node, $db, $name, $end, $sql) = @_;
	my $loop = { out => '', err => '' };
	my $file = $node->basedir . "/$name.sql";
	my $round = "SELECT extract(epoch FROM clock_timestamp()) >= $end AS over \\gset\n"
	  . "\\if :over\n\\q\n\\endif\n$sql\n";

	unlink $file;
	append_to_file($file, 'SELECT setseed(' . rand() . ") \\g /dev/null\n" . $round x 200);
	$loop->{run} = IPC::Run::start(
		[ 'sh', '-c', <<'SH', 'sh', $end, $node->connstr($db) . " application_name=$name", $file ],
while [ $(date +%s) -lt "$1" ]; do
  psql -XAtq -v VERBOSITY=verbose -d "$2" -f "$3" || sleep 0.1
done
SH
		'<', \undef, '>', \$loop->{out}, '2>', \$loop->{err});
	return $loop;
}

# Opens a session that answers statement after statement; @params are further ones of psql.
sub open_session
{
	my ($node, $db, @params) = @_;
	my $session = { in => '', out => '', asked => 0 };

	$session->{run} = IPC::Run::start(
		[ 'psql', '-XAtq', '-v', 'VERBOSITY=sqlstate', '-d', $node->connstr($db), @params ],
		'<', \$session->{in}, '>', \$session->{out}, '2>&1',
		$session->{timer} = IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return $session;
}

# Sends statements, without waiting for their answer.
sub say_to
{
	my ($session, $sql) = @_;

	$session->{in} .= "$sql\n;\n\\echo answer " . ++$session->{asked} . "\n";
	$session->{run}->pump_nb;
}

# Waits for the answer to what was sent last: rows, errors as "ERROR:  SQLSTATE", "gone" when the
# session has ended.
sub answer_of
{
	my ($session) = @_;
	my $end = qr/^answer $session->{asked}\n/m;

	$session->{timer}->start($PostgreSQL::Test::Utils::timeout_default);
	$session->{run}->pump while $session->{run}->pumpable && $session->{out} !~ $end;
	my $answer = $session->{out};
	$answer =~ s/$end// or $answer .= 'gone';
	$session->{out} = '';
	chomp $answer;
	return $answer;
}

# Sends statements and waits for the answer.
sub ask
{
	my ($session, $sql) = @_;

	say_to($session, $sql);
	return answer_of($session);
}

# Ends a session.
sub close_session
{
	my ($session) = @_;

	$session->{in} .= "\\q\n";
	$session->{run}->finish;
}

# The process of a session, once it has connected.
sub pid_of
{
	my ($node, $name) = @_;

	return wait_for($node, 'postgres', "SELECT pid FROM pg_stat_activity WHERE application_name = '$name'");
}

# Asks until there is an answer that is not empty, and returns it. The server waits, so that we do not start a psql each time.
sub wait_for
{
	my ($node, $db, $query) = @_;
	my $seconds = $PostgreSQL::Test::Utils::timeout_default;

	return $node->safe_psql($db, <<SQL);
DO \$wait\$
DECLARE
  answer text;
BEGIN
  FOR i IN 1 .. $seconds * 500 LOOP
    PERFORM pg_stat_clear_snapshot();
    answer := ($query);
    EXIT WHEN answer <> '';
    PERFORM pg_sleep(0.002);
  END LOOP;
  IF COALESCE(answer, '') = '' THEN
    RAISE EXCEPTION 'waited in vain';
  END IF;
  PERFORM set_config('mako_test.answer', answer, false);
END
\$wait\$;
SELECT current_setting('mako_test.answer');
SQL
}

1;
