# An application keeps its orders in an event store of others, Emmett or Message DB, and goes on using that store's own client, while its
# orders are migrated: version 1 before, between and too late, version 2 afterwards, and a consumer of both. What an order is then, the
# programs of t/clients say by themselves, from what they have written.
#
# Emmett and Message DB come from their registry into a temporary folder.
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

my @packages = qw(@event-driven-io/emmett@0.42.0 @event-driven-io/emmett-postgresql@0.42.0 @eventide/message-db@1.3.1);
my $folder = PostgreSQL::Test::Utils::tempdir();
my $old = 'order@FV2024-10-01';
my $new = 'order@FV2025-10-01';

# Runs a program; true when it succeeds.
sub succeeds
{
	my ($seconds, @command) = @_;
	my $out = '';

	return eval { IPC::Run::run(\@command, '<', \'', '>', \$out, '2>&1', IPC::Run::timeout($seconds)) };
}

plan skip_all => 'no node' unless succeeds(60, 'node', '--version');
plan skip_all => 'no npm' unless succeeds(60, 'npm', '--version');
plan skip_all => 'npm could not install Emmett and Message DB'
  unless succeeds(180, qw(npm install --no-save --no-audit --no-fund --ignore-scripts --silent --fetch-retries=1 --prefix), $folder, @packages)
  && -e "$folder/node_modules/\@eventide/message-db/database/install.sh";
# Where its imports are found
copy($_, $folder) or die "$_: $!" foreach glob "$FindBin::RealBin/clients/*.mjs";

my $node = new_server('clients');
my $user = $node->safe_psql('postgres', 'CREATE ROLE shop LOGIN; SELECT current_user');

# How the tables of a store are made, the query that tells its events, and the sink that writes states where version 2 reads them.
my %stores = (
	emmett => {
		name => 'Emmett',
		install => sub { },
		attach => <<'SQL',
SELECT * FROM mako_attach_store($$
  SELECT stream_id, stream_position AS sequence_number, message_type AS event_type, message_data AS payload, created AS recorded_at,
         message_schema_version AS schema_version
         , 'order@' || (message_metadata->>'formatVersion') AS workflow_id
  FROM emt_messages
  WHERE stream_id LIKE 'order-%' AND message_kind = 'E' AND partition = 'emt:default' AND NOT is_archived$$,
  initial => 'order@FV2024-10-01')
SQL
		sink => <<'SQL',
SELECT mako_add_sink($$
  INSERT INTO order_snapshot SELECT stream_id, sequence_number, state FROM moved
  ON CONFLICT (stream_id) DO UPDATE SET position = EXCLUDED.position, state = EXCLUDED.state$$,
undo => $$
  DELETE FROM order_snapshot o USING moved WHERE o.stream_id = moved.stream_id$$)
SQL
		table => 'emt_messages',
		snapshots => "SELECT substr(stream_id, 7)::int AS number FROM order_snapshot",
	},
	message_db => {
		name => 'Message DB',
		install => sub {
			local %ENV = (%ENV, PGHOST => $node->host, PGPORT => $node->port, DATABASE_NAME => $_[0], CREATE_DATABASE => 'off');
			return system_or_bail('bash', "$folder/node_modules/\@eventide/message-db/database/install.sh");
		},
		attach => <<'SQL',
SELECT * FROM mako_attach_store($$
  SELECT stream_name AS stream_id, position + 1 AS sequence_number, type AS event_type, data AS payload, id AS event_id,
         time AT TIME ZONE 'utc' AS recorded_at
         , 'order@' || (metadata->>'formatVersion') AS workflow_id
  FROM message_store.messages
  WHERE message_store.category(stream_name) = 'order'$$,
  initial => 'order@FV2024-10-01', wait => false)
SQL
		# Eventide finds the state by itself.
		sink => <<'SQL',
SELECT mako_add_sink($$
  INSERT INTO message_store.messages (stream_name, position, type, data)
  SELECT name, coalesce((SELECT max(p.position) + 1 FROM message_store.messages p WHERE p.stream_name = name), 0), 'Recorded',
         jsonb_build_object('entity_data', state, 'entity_version', sequence_number - 1, 'time', now())
  FROM moved, LATERAL (SELECT 'order:snapshot-' || substr(stream_id, 7)) x (name)$$,
undo => $$
  DELETE FROM message_store.messages m USING moved
  WHERE m.stream_name = 'order:snapshot-' || substr(stream_id, 7) AND m.data->'entity_data' = state$$)
SQL
		table => 'message_store.messages',
		snapshots => "SELECT substr(stream_name, 16)::int AS number FROM message_store.messages WHERE stream_name LIKE 'order:snapshot-%'",
	},
);

# Starts the programs of an application, which make their tables first.
sub start_clients
{
	my ($store, $db, $stamped) = @_;
	my $clients = { in => '', out => '', err => '' };

	$clients->{run} = IPC::Run::start(
		[ 'node', "$folder/$store.mjs", $node->host, $node->port, $user, $db, $stamped ],
		'<', \$clients->{in}, '>', \$clients->{out}, '2>', \$clients->{err},
		$clients->{timer} = IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return $clients;
}

# Tells them to take a step, without waiting for the answer.
sub begin_step
{
	my ($clients, @step) = @_;

	$clients->{in} .= encode_json(\@step) . "\n";
	$clients->{run}->pump_nb;
}

# What they answer.
sub end_step
{
	my ($clients) = @_;

	$clients->{timer}->start($PostgreSQL::Test::Utils::timeout_default);
	$clients->{run}->pump while $clients->{run}->pumpable && $clients->{out} !~ /\n/;
	die "the client is gone: $clients->{err}" unless $clients->{out} =~ s/^(.*)\n//;
	my $answer = decode_json($1);
	diag($answer->{error}) if $answer->{error};
	return $answer;
}

# Lets them take a step; what they answer.
sub take
{
	my ($clients, @step) = @_;

	begin_step($clients, @step);
	return end_step($clients);
}

# Runs a migration, single or batched; its number and "migrated failed".
sub migrate
{
	my ($db, $how) = @_;
	my %call = (single => "SELECT migrated FROM mako_migrate('$old', '$new')", batched => "CALL mako_migrate_batched('$old', '$new', 50)");

	$node->safe_psql($db, $call{$how});
	return split /\|/, $node->safe_psql($db, <<'SQL');
SELECT run_id, format('%s %s', migrated, failed) FROM mako.migration_run
WHERE finished_at IS NOT NULL AND kind <> 'revert' ORDER BY run_id DESC LIMIT 1
SQL
}

# The errors of a run by their streams.
sub errors_of
{
	my ($db, $run) = @_;

	return $node->safe_psql($db, <<SQL);
SELECT s.stream_id, e.phase, e.sqlstate FROM mako.migration_error e JOIN mako.stream s USING (stream_no)
WHERE e.run_id = $run ORDER BY substr(s.stream_id, 7)::int
SQL
}

# Everything of the store and of its snapshots, as text.
sub everything
{
	my ($db, $store) = @_;

	return contents($node, $db)
	  . $node->safe_psql($db, "SELECT count(*), sum(hashtextextended(m::text, 0)::numeric) FROM $store->{table} m; $store->{snapshots} ORDER BY 1");
}

# How many streams run under which workflow.
sub heads
{
	my ($db) = @_;

	return $node->safe_psql($db, 'SELECT workflow_id, count(*) FROM mako.stream GROUP BY 1 ORDER BY 1');
}

# What mako_check() says of the store, but for how functions are evaluated.
sub findings
{
	my ($db) = @_;

	return $node->safe_psql($db, "SELECT severity, code, subject, message FROM mako_check(0) WHERE severity <> 'info'");
}

# Plays it in a new database; the first migration is single or batched, the second the other.
sub play
{
	my ($key, $stamped, $first, $second) = @_;
	my $store = $stores{$key};
	my $case = "$store->{name}, $stamped";
	my $db = "${key}_$stamped";
	my $attach = $store->{attach};
	my ($stdout, $stderr);

	note("$case: $first, then $second");
	$attach =~ s/^.* AS workflow_id\n//m if $stamped eq 'unstamped';
	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->safe_psql($db, 'CREATE EXTENSION mako_migration; SELECT mako_create_store()');
	$node->safe_psql($db, slurp_file("$FindBin::RealBin/clients/orders.sql"));
	$store->{install}->($db);
	my $clients = start_clients($key, $db, $stamped);

	# Version 1 alone
	is_deeply(take($clients, 'start', 1, 1, 360), { written => 360 }, "$case: version 1 begins orders");
	my $count = take($clients, 'count');
	$node->psql($db, $attach, stdout => \$stdout, stderr => \$stderr);
	is("$stdout$stderr", "360|$count->{events}|0", "$case: attaching counts streams, events and none that is damaged");
	is_deeply(take($clients, 'start', 1, 361, 380), { written => 20 }, '... version 1 begins more');
	is_deeply(take($clients, 'goOn', 1, 'all', 5), { written => 76 }, '... and goes on with some');
	is(findings($db), '', '... the check finds nothing');
	$count = take($clients, 'count');
	is($node->safe_psql($db, 'SELECT count(*), sum(version) FROM mako.stream'), "380|$count->{events}", '... and the heads have counted');
	my $consumed = take($clients, 'consume');
	is_deeply($consumed, { taken => $count->{events}, again => 0, total => $count->{events}, begun => 380, missed => 0 },
		'... a consumer takes everything, and stops');

	# There and back
	$node->safe_psql($db, $store->{sink});
	my ($run, $done) = migrate($db, $first);
	is($done, '377 3', "$case: a $first run migrates what nothing refuses");
	is(errors_of($db, $run), "order-97|migrate|MK002\norder-194|apply|MK003\norder-291|migrate|MK002", '... and tells what is refused');
	is($node->safe_psql($db, "SELECT count(*) FROM ($store->{snapshots}) AS s"), 377, '... the sink has a state of each');
	is($node->safe_psql($db, "SELECT * FROM mako_verify($run)"), '', '... verified');
	is($node->safe_psql($db, "SELECT migrated, skipped, failed FROM mako_revert($run)"), '377|0|0', '... it is undone');
	is($node->safe_psql($db, "SELECT count(*) FROM ($store->{snapshots}) AS s"), 0, '... the sink has none');
	is(heads($db), "$old|380", '... all is as before');
	is_deeply(take($clients, 'start', 1, 381, 400), { written => 20 }, '... version 1 begins more');
	is_deeply(take($clients, 'goOn', 1, 'all', 7), { written => 57 }, '... and goes on with some');

	# A migration that is given up
	if ($key eq 'emmett')
	{
		my $session = open_session($node, $db);

		ask($session, "BEGIN; SELECT migrated FROM mako_migrate('$old', '$new')");
		begin_step($clients, 'goOn', 1, 'movable', 50);
		wait_for($node, $db, "SELECT pid FROM pg_stat_activity WHERE application_name = 'version 1' AND wait_event_type = 'Lock'");
		ask($session, 'ROLLBACK');
		is_deeply(end_step($clients), { written => 8 }, "$case: version 1 waits for a migration, and writes when that is rolled back");
		close_session($session);
	}
	else
	{
		my $before = everything($db, $store);

		$node->safe_psql($db, "BEGIN; SELECT migrated FROM mako_migrate('$old', '$new'); PREPARE TRANSACTION 'orders'");
		is_deeply(take($clients, 'goOn', 1, 'movable', 50), { '55P03' => 8 }, "$case: a prepared migration, for which no writer waits");
		$node->safe_psql($db, "ROLLBACK PREPARED 'orders'");
		is(everything($db, $store), $before, '... leaves nothing when it is rolled back');
	}

	($run, $done) = migrate($db, $second);
	is($done, '396 4', "$case: a $second run migrates again");
	is(errors_of($db, $run), "order-97|migrate|MK002\norder-194|apply|MK003\norder-291|migrate|MK002\norder-388|apply|MK003",
		'... what is refused');
	is($node->safe_psql($db, "SELECT count(*), count(DISTINCT number) FROM ($store->{snapshots}) AS s"), '396|396', '... the sink');
	is($node->safe_psql($db, "SELECT * FROM mako_verify($run)"), '', '... verified');
	my ($third, $nothing) = migrate($db, $first);
	cmp_ok($third, '>', $run, '... a third run');
	is($nothing, '0 4', '... migrates nothing');
	is($node->safe_psql($db, "SELECT count(*) FROM ($store->{snapshots}) AS s"), '396', '... nor does the sink get anything');

	# Version 1 knows the place of each order, but not that it has moved.
	is_deeply(take($clients, 'goOn', 1, 'movable'), { MK005 => 396 }, "$case: version 1 is too late for what has moved");
	is_deeply(take($clients, 'goOn', 1, 'refused'), { written => 4 }, '... but not for the rest');

	# Version 2
	is_deeply(take($clients, 'load', 'movable', JSON::PP::true), { loaded => 396, different => [] }, "$case: version 2 loads what has moved");
	is_deeply(take($clients, 'goOn', 2, 'refused'), { MK005 => 4 }, '... is too early for the rest');
	is_deeply(take($clients, 'goOn', 2, 'movable', 10, JSON::PP::false), { written => 356 }, '... goes on, but for every tenth');
	is_deeply(take($clients, 'load', 'movable', JSON::PP::true), { loaded => 396, different => [] }, '... and loads again');
	is_deeply(take($clients, 'start', 2, 1001, 1030), { written => 30 }, '... begins others');
	is_deeply(take($clients, 'load', 'new', JSON::PP::false), { loaded => 30, different => [] }, '... and loads them');
	is(heads($db), "$old|4\n$new|426", '... which run under its workflow');
	is_deeply(take($clients, 'fold'), { folded => 426, different => [] }, '... and the extension computes the same states');

	# Undone too late
	is($node->safe_psql($db, "SELECT migrated, skipped, failed FROM mako_revert($run)"), '40|0|356',
		"$case: a revert is refused where version 2 went on");
	is($node->safe_psql($db, "SELECT count(*), sum((number % 10 = 0)::int) FROM ($store->{snapshots}) AS s"), '356|0', '... the sink');
	is($node->safe_psql($db, <<'SQL'), 'registry|55000|an event came after the migration|356', '... it says why');
SELECT phase, sqlstate, message, count(*) FROM mako.migration_error
WHERE run_id = (SELECT max(run_id) FROM mako.migration_run) GROUP BY 1, 2, 3
SQL
	is_deeply(take($clients, 'goOn', 1, 'untaken'), { written => 40 }, '... version 1 goes on with the others');
	is_deeply([ (migrate($db, $second))[1] ], ['40 4'], '... which move again');
	is_deeply(take($clients, 'load', 'movable', JSON::PP::true), { loaded => 396, different => [] }, '... and are loaded by version 2');
	is_deeply(take($clients, 'goOn', 2, 'untaken'), { written => 40 }, '... which goes on with them, too');
	is_deeply(take($clients, 'fold'), { folded => 426, different => [] }, '... as the extension knows');

	# The consumer
	$count = take($clients, 'count');
	is_deeply(
		take($clients, 'consume'),
		{ taken => $count->{events} - $consumed->{total}, again => 0, total => $count->{events}, begun => 430, missed => 0 },
		"$case: the consumer misses nothing and takes nothing twice");
	is($node->safe_psql($db, 'SELECT workflow_id, count(*) FROM mako.event GROUP BY 1 ORDER BY 1'),
		"$old|$count->{by}{1}\n$new|$count->{by}{2}", '... every event counts for the version that wrote it');
	is($node->safe_psql($db, "SELECT * FROM mako_verify_snapshots('$new')"), '', '... all states verified');
	is(findings($db), '', '... the check finds nothing');

	# Without the extension, and with it again
	my $triggers = "SELECT count(*) FROM pg_trigger WHERE tgrelid = '$store->{table}'::regclass AND NOT tgisinternal";
	is($node->safe_psql($db, $triggers), 4, "$case: the table has triggers");
	$node->safe_psql($db, 'SELECT mako_detach_store()');
	is($node->safe_psql($db, $triggers), 0, '... and detached none');
	is_deeply(take($clients, 'goOn', 2, 'movable', 100), { written => 4 }, '... version 2 still writes');
	is_deeply(take($clients, 'start', 2, 1031, 1035), { written => 5 }, '... and begins');
	$count = take($clients, 'count');
	$node->psql($db, $attach, stdout => \$stdout, stderr => \$stderr);
	is("$stdout$stderr", "435|$count->{events}|0", '... attached again, all is there');
	# Of an event that says nothing, nobody was there to ask its writer.
	is(heads($db), $stamped eq 'stamped' ? "$old|4\n$new|431" : "$old|9\n$new|426", '... and under its workflow');
	is_deeply(take($clients, 'goOn', 1, 'taken', 40), { MK005 => 10 }, '... version 1 is still too late');
	is_deeply(take($clients, 'goOn', 2, 'taken', 40), { written => 10 }, '... version 2 goes on');
	is_deeply(take($clients, 'load', 'movable', JSON::PP::true), { loaded => 396, different => [] }, '... and loads');
	is(findings($db), '', '... the check finds nothing');

	$clients->{run}->finish or diag("the client ended: $clients->{err}");
}

play('emmett', 'stamped', 'single', 'batched');
play('emmett', 'unstamped', 'batched', 'single');
play('message_db', 'stamped', 'batched', 'single');
play('message_db', 'unstamped', 'single', 'batched');

$node->stop;
done_testing();
