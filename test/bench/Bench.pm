# What the programs of test/bench share: the server, the data sets, and sessions whose cost is measured.
#
# The server is the throw-away one of test/with-cluster, which tells where it is by the environment; it is settled for measuring and
# restarted. A data set is a database of its own that is never changed: whatever runs, runs in a copy.
package Bench;

use strict;
use warnings;

use Cwd;
use Exporter 'import';
use IPC::Open2;
use Time::HiRes qw(time);

our @EXPORT = qw($source $target settle_server build installed load_set drop_set copy_set warm sql register floor_statements
  version_statement migrate_statement unequal open_session run_in close_session measure_in partition_events attach_events add_sink
  add_dependent);

# Notices would stand among the answers. A copy of a database has none of its settings, so the path is that of the sessions.
$ENV{PGOPTIONS} = '-c client_min_messages=warning -c search_path=public,mako_migration';

our $source = 'FV2025-10-01';
our $target = 'FV2026-10-01';

# A workflow of each family, and the functions that it has in the examples.
my %family = (
	gpke => {
		name => 'gpke-supplier-change', apply => 'gpke.supplier_change_apply_2025', upcast => 'gpke.supplier_change_upcast',
		migrate => 'gpke.supplier_change_migrate_2025_2026', event_type => 'gpke.supplier_change_event_type_2024()',
		state_type => 'gpke.supplier_change_state_type'
	},
	wim => {
		name => 'wim-device-change', apply => 'wim.device_change_apply_2025', upcast => 'wim.device_change_upcast',
		migrate => 'wim.device_change_migrate_2025_2026', event_type => 'wim.device_change_event_type_2025()',
		state_type => 'wim.device_change_state_type'
	});

# The data sets. The workflow is an expression over a stream's number i.
my %set = (
	supply => { family => 'gpke', workflow => "'gpke-supplier-change\@$source'" },
	few => {
		family => 'gpke',
		workflow => "'gpke-supplier-change\@' || CASE bench.pick(i, 100) WHEN 0 THEN '$source' ELSE 'FV2024-10-01' END"
	},
	many => {
		family => 'gpke', workflow => "'gpke-supplier-change-' || i % 70 || '\@$source'",
		workflows => [ map { "gpke-supplier-change-$_" } 0 .. 69 ]
	},
	four => {
		family => 'gpke', workflow => "'gpke-supplier-change-' || i % 4 || '\@$source'",
		workflows => [ map { "gpke-supplier-change-$_" } 0 .. 3 ]
	},
	long => { family => 'gpke', workflow => "'gpke-supplier-change\@$source'" },
	large => {
		family => 'gpke', workflow => "'gpke-supplier-change\@$source'", attachment => 65536, touch => "octet_length(payload->>'type')"
	},
	wim => { family => 'wim', workflow => "'wim-device-change\@$source'" });

# Runs statements in a session of their own, and returns what they print.
sub sql
{
	my ($db, $sql) = @_;
	my $pid = open2(my $out, my $in, 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d', $db);

	print $in $sql;
	close $in;
	my $answer = do { local $/; <$out> } // '';
	waitpid $pid, 0;
	die "failed in database $db: $sql\n" if $?;
	chomp $answer;
	return $answer;
}

# Gives the server settings under which it does the same each time, and restarts it.
#
# Without full-page images and with recycled log segments a case writes what is its own, and does not pay for what the server did before.
# One process does the work, as jit and parallel workers would only blur whose work it is.
sub settle_server
{
	my ($shared_buffers) = @_;
	my %setting = (
		shared_buffers => $shared_buffers, max_wal_size => '64GB', min_wal_size => '2GB', checkpoint_timeout => '1d',
		full_page_writes => 'off', autovacuum => 'off', jit => 'off', synchronous_commit => 'on', max_parallel_workers_per_gather => 0,
		synchronize_seqscans => 'off', bgwriter_lru_maxpages => 0, log_min_messages => 'error');

	sql('postgres', join '', map { "ALTER SYSTEM SET $_ = '$setting{$_}';\n" } sort keys %setting);
	my $folder = sql('postgres', 'SHOW data_directory');
	system('pg_ctl', '-D', $folder, '-l', "$folder/../bench.log", '-s', '-w', '-m', 'fast', 'restart') == 0
	  or die "could not restart the server\n";
}

# Builds what is in C; dies when it cannot.
sub build
{
	system('make', '-s', '-C', 'test/bench', 'with_llvm=no', "PG_CONFIG=$ENV{PG_CONFIG}") == 0 or die "could not build test/bench\n";
}

# What tells one installed library from another: an installation meanwhile would be measured instead of what was meant.
sub installed
{
	chomp(my $folder = `"$ENV{PG_CONFIG}" --pkglibdir`);
	my @stat = stat "$folder/mako_migration.so" or die "no library in $folder\n";

	return "@stat[1, 7, 9]";
}

# SQL that registers a workflow of a set in both versions, and the migration. Of the example's functions it takes apply and migrate, unless
# told: upcast => 1, types => 1, and apply, migrate => another function, or none where that is undef.
sub register
{
	my ($set, %with) = @_;
	my $family = $family{ $set{$set}{family} };
	my %given = (apply => $family->{apply}, migrate => $family->{migrate}, %with);
	my $text = '';

	foreach my $name (@{ $set{$set}{workflows} // [ $family->{name} ] })
	{
		foreach my $version ($source, $target)
		{
			my @with = ("'$name\@$version'", "replace => true");

			push @with, "apply => '$given{apply}'", "initial_state => '{\"status\":\"New\"}'" if defined $given{apply};
			push @with, "upcast => '$family->{upcast}'" if $given{upcast};
			my $state_type = "$family->{state_type}_" . substr($version, 2, 4) . '()';
			push @with, "event_type_definition => $family->{event_type}", "state_type_definition => $state_type" if $given{types};
			push @with, 'state_schema_version => ' . ($version eq $source ? 2 : 3);
			$text .= "SELECT mako_register_workflow(" . join(', ', @with) . ");\n";
		}
		$text .= "SELECT mako_register_migration('$name\@$source', '$name\@$target', replace => true"
		  . (defined $given{migrate} ? ", migrate => '$given{migrate}'" : '') . ");\n";
	}
	return "\\o /dev/null\n$text\\o\n";
}

# A set's workflow in both versions, as SQL literals.
sub workflow_pair
{
	my ($set) = @_;

	return map { "'$family{ $set{$set}{family} }{name}\@$_'" } $source, $target;
}

# What any migration has to do: read the events, write the states, move the heads. One statement each.
sub floor_statements
{
	my ($set) = @_;
	my ($from, $to) = workflow_pair($set);
	my $touch = $set{$set}{touch} // 'pg_column_size(payload)';

	return (
		scan => "SELECT sum($touch) IS NULL FROM mako.event WHERE workflow_id = $from;",
		insert => 'INSERT INTO bench.snapshot SELECT * FROM bench.finished;',
		update => "UPDATE bench.stream SET workflow_id = $to WHERE workflow_id = $from;");
}

# Lets the events lie in eight partitions, each in the order in which they lie in the table.
sub partition_events
{
	my $partitions = join "\n", map {
		"CREATE TABLE mako.event_$_ PARTITION OF mako.event FOR VALUES WITH (MODULUS 8, REMAINDER $_);"
	} 0 .. 7;

	return <<SQL;
BEGIN;
ALTER TABLE mako.event RENAME TO event_before;
ALTER TABLE mako.event_before DROP CONSTRAINT event_pkey, DROP CONSTRAINT event_stream_no_event_id_key;
CREATE TABLE mako.event (LIKE mako.event_before INCLUDING DEFAULTS INCLUDING STORAGE)
PARTITION BY HASH (stream_no);
$partitions
SELECT mako_create_store();
ALTER TABLE mako.event DISABLE TRIGGER event_inserted;
INSERT INTO mako.event SELECT * FROM mako.event_before;
ALTER TABLE mako.event ENABLE TRIGGER event_inserted;
DROP TABLE mako.event_before;
COMMIT;
VACUUM ANALYZE mako.event;
SQL
}

# Lets the events lie in the table of an attached event store, in the order in which they lay in ours, stamped.
sub attach_events
{
	return <<SQL;
BEGIN;
CREATE TABLE bench.message AS
SELECT row_number() OVER () AS global_position, x.* FROM (
  SELECT s.stream_id::varchar AS stream_name, e.sequence_number - 1 AS position, e.event_type::varchar AS type, e.payload AS data,
         jsonb_build_object('schemaVersion', e.schema_version, 'workflow', e.workflow_id) AS metadata,
         e.event_id AS id, e.recorded_at::timestamp AS time
  FROM mako.event e JOIN mako.stream s USING (stream_no) ORDER BY e.ctid) AS x;
ALTER TABLE bench.message ADD PRIMARY KEY (global_position), ADD UNIQUE (stream_name, position);
ALTER TABLE mako.event DISABLE TRIGGER event_guard;
TRUNCATE mako.event;
ALTER TABLE mako.event ENABLE TRIGGER event_guard;
SELECT count(*) FROM mako_attach_store('SELECT stream_name AS stream_id, position + 1 AS sequence_number, type AS event_type,
  data AS payload, metadata->>''schemaVersion'' AS schema_version, metadata->>''workflow'' AS workflow_id FROM bench.message',
  initial => 'gpke-supplier-change\@$source');
COMMIT;
VACUUM ANALYZE bench.message;
SQL
}

# Lets a sink keep the states where an application would read them.
sub add_sink
{
	return <<'SQL';
CREATE TABLE bench.taken (stream_id text PRIMARY KEY, sequence_number bigint, state jsonb);
SELECT mako_add_sink(
  'INSERT INTO bench.taken SELECT stream_id, sequence_number, state FROM moved
   ON CONFLICT (stream_id) DO UPDATE SET sequence_number = EXCLUDED.sequence_number, state = EXCLUDED.state',
  'DELETE FROM bench.taken t USING moved m WHERE t.stream_id = m.stream_id');
SQL
}

# SQL that lets a table of the application follow every stream.
sub add_dependent
{
	return <<'SQL';
CREATE TABLE bench.follower AS SELECT stream_id, workflow_id FROM mako.stream ORDER BY stream_no;
CREATE INDEX ON bench.follower (stream_id);
VACUUM (FREEZE, ANALYZE) bench.follower;
SELECT mako_add_dependent('bench.follower', 'stream_id', 'workflow_id');
SQL
}

# Migrates all workflows, with further arguments if there are any; prints "migrated|failed".
sub version_statement
{
	my (@arguments) = @_;

	return 'SELECT sum(migrated), sum(failed) FROM mako_migrate_version(' . join(', ', "'$source'", "'$target'", @arguments) . ');';
}

# Migrates the streams of a set, with further arguments if there are any; prints "migrated|failed".
sub migrate_statement
{
	my ($set, @arguments) = @_;

	return version_statement(@arguments) if $set{$set}{workflows};
	return 'SELECT migrated, failed FROM mako_migrate(' . join(', ', workflow_pair($set), @arguments) . ');';
}

# Loads a set of so many streams as a database, and returns how many of the streams match, and how large payloads and states are on average.
# Leaves in bench.finished what a migration with the example's functions writes.
sub load_set
{
	my ($db, $set, $streams, $events) = @_;
	my %set = %{ $set{$set} };
	my $attachment = $set{attachment} // 0;

	sql('postgres', "CREATE DATABASE $db");
	system('psql', '-Xq', '-v', "streams=$streams", '-v', "events=$events", '-v', "workflow=$set{workflow}", '-v', "family=$set{family}",
		'-v', "attachment=$attachment", '-d', $db, '-o', '/dev/null', '-f', 'test/bench/load.sql') == 0
	  or die "could not load $set\n";
	sql($db, <<SQL);
CREATE FUNCTION bench.apply_c(state jsonb, event_type text, payload jsonb) RETURNS jsonb
LANGUAGE c STABLE STRICT PARALLEL SAFE AS '@{[ getcwd ]}/test/bench/functions', 'bench_apply';
CREATE FUNCTION bench.migrate_c(state jsonb) RETURNS jsonb
LANGUAGE c STABLE STRICT PARALLEL SAFE AS '@{[ getcwd ]}/test/bench/functions', 'bench_migrate';
VACUUM (FREEZE, ANALYZE);
SQL
	copy_set($db, 'finished');
	sql('finished', register($set));
	my $matching = sql('finished', migrate_statement($set)) =~ /^(\d+)\|0$/ ? $1 : die "not all streams of $set migrate\n";
	my $columns = 'stream_no, sequence_number, run_id, workflow_id, state_schema_version, state, taken_at';
	system("psql -Xq -d finished -c '\\copy (SELECT $columns FROM mako.snapshot ORDER BY stream_no) TO STDOUT' | "
		  . "psql -Xq -d $db -c '\\copy bench.finished FROM STDIN'") == 0
	  or die "could not copy the snapshots of $set\n";
	drop_set('finished');
	sql($db, 'VACUUM (FREEZE, ANALYZE) bench.finished');
	my $payload = sql($db, 'SELECT round(avg(pg_column_size(payload))) FROM mako.event');
	my $state = sql($db, 'SELECT round(avg(pg_column_size(state))) FROM bench.finished');
	return { matching => $matching, payload => $payload, state => $state };
}

sub drop_set
{
	my ($db) = @_;

	sql('postgres', "DROP DATABASE $db");
}

# Copies a set, file by file, reads it into the buffers, and has everything written: so each case starts alike.
sub copy_set
{
	my ($db, $copy) = @_;
	my $strategy = sql('postgres', 'SHOW server_version_num') >= 150000 ? 'STRATEGY FILE_COPY' : '';

	sql('postgres', "CREATE DATABASE $copy TEMPLATE $db $strategy");
	warm($copy);
	sql($copy, 'CHECKPOINT');
}

# Reads the tables of a set and their indexes.
sub warm
{
	my ($db) = @_;

	sql($db, <<'SQL');
\o /dev/null
SELECT count(payload->>'type') FROM mako.event;
SELECT count(*) FROM mako.stream;
SELECT count(*) FROM bench.stream;
SELECT count(*) FROM bench.finished;
SET enable_seqscan = off;
SET enable_bitmapscan = off;
SELECT count(stream_no) FROM (SELECT stream_no FROM mako.event ORDER BY stream_no, sequence_number OFFSET 0) e;
SELECT count(stream_no) FROM (SELECT stream_no FROM mako.stream ORDER BY stream_no OFFSET 0) s;
SELECT count(stream_no) FROM (SELECT stream_no FROM bench.stream ORDER BY stream_no OFFSET 0) s;
SQL
}

# SQL that counts the streams up to a number whose snapshot in a table differs from the finished one, is missing, or is none.
sub unequal
{
	my ($table, $last) = @_;

	return <<SQL;
SELECT count(*)
FROM (SELECT * FROM bench.finished WHERE stream_no <= $last) f
FULL JOIN $table n USING (stream_no, sequence_number)
WHERE (n.state, n.workflow_id, n.state_schema_version) IS DISTINCT FROM (f.state, f.workflow_id, f.state_schema_version)
SQL
}

# A program on a new connection: psql, or one that prints its server process and then does one thing a line.
sub open_session
{
	my ($db, @program) = @_;
	my $session = { psql => !@program };

	@program = ('psql', '-XqAt', '-v', 'ON_ERROR_STOP=1') unless @program;
	local $ENV{PGDATABASE} = $db;
	$session->{client} = open2($session->{out}, $session->{in}, 'sh', '-c', 'exec "$0" "$@" 2>&1', @program);
	$session->{in}->autoflush(1);
	$session->{server} = $session->{psql} ? run_in($session, 'SELECT pg_backend_pid();') : readline $session->{out};
	die "no session in $db: $session->{server}\n" unless $session->{server} =~ /^(\d+)$/;
	$session->{server} = $1;
	return $session;
}

# Runs statements in a session and returns what they print; calls $meanwhile every few milliseconds.
sub run_in
{
	my ($session, $statements, $meanwhile) = @_;
	my $answer = '';

	print { $session->{in} } $session->{psql} ? "$statements\n\\warn --\n" : "$statements\n";
	until ($answer =~ ($session->{psql} ? qr/^--\n\z/m : qr/\n\z/))
	{
		my $ready = '';

		vec($ready, fileno $session->{out}, 1) = 1;
		if ($meanwhile) { $meanwhile->() until select(my $set = $ready, undef, undef, 0.005) }
		sysread($session->{out}, $answer, 65536, length $answer) or die "the session ended: $answer\n";
	}
	$answer =~ s/^--\n\z//m;
	chomp $answer;
	return $answer;
}

sub close_session
{
	my ($session) = @_;

	close $session->{in};
	close $session->{out};
	waitpid $session->{client}, 0;
}

# Seconds that a process was on a CPU, user and system together.
sub cpu_of
{
	my ($pid) = @_;

	open my $file, '<', "/proc/$pid/schedstat" or die "no process $pid\n";
	my ($nanoseconds) = split ' ', <$file>;
	return $nanoseconds / 1e9;
}

# Seconds that the ended children of a process's parent were on a CPU, in hundredths: its workers are among them.
sub cpu_of_ended
{
	my ($pid) = @_;
	my $parent = slurp_stat(slurp_stat($pid)->[1]);

	return ($parent->[13] + $parent->[14]) / 100;
}

# What /proc tells of a process, from its state on.
sub slurp_stat
{
	my ($pid) = @_;

	open my $file, '<', "/proc/$pid/stat" or die "no process $pid\n";
	return [ split ' ', <$file> =~ s/^.*\) //r ];
}

# Bytes of a process's memory that are its own: all but shared buffers, libraries and programs.
sub memory_of
{
	my ($pid) = @_;

	open my $file, '<', "/proc/$pid/status" or die "no process $pid\n";
	local $/;
	return <$file> =~ /^RssAnon:\s+(\d+) kB/m ? 1024 * $1 : die "no RssAnon of $pid\n";
}

# Runs statements and tells what they cost: cpu and wall in seconds, memory in bytes by which the server process grew at most, and answer.
sub measure_in
{
	my ($session, $statements) = @_;
	my @processes = $session->{psql} ? $session->{server} : @$session{qw(server client)};
	my $memory = memory_of($session->{server});
	my $peak = $memory;
	my $look = sub { my $now = memory_of($session->{server}); $peak = $now if $now > $peak };
	my $cpu = 0;

	$cpu -= cpu_of($_) foreach @processes;
	$cpu -= cpu_of_ended($session->{server});
	my $wall = -time;
	my $answer = run_in($session, $statements, $look);
	$wall += time;
	$cpu += cpu_of($_) foreach @processes;
	$cpu += cpu_of_ended($session->{server});
	$look->();
	return { cpu => $cpu, wall => $wall, memory => $peak - $memory, answer => $answer };
}

1;
