# Nobody's rights but his own, where an event store is attached: what the query names, and what is made of its tables, views and
# triggers, runs as the owner of the store, restricted, or not at all, whoever calls or writes.
#
# evil owns the store and the table of events. author has no rights of evil's: what is his and is named by the query is refused, or
# runs as author. friend is a superuser, plain is none; evil has granted his role to both. postgres is a superuser, who acts as such
# and after SET ROLE evil, as hints say.
#
# EVIL is a pattern of the kinds to play, while one of them is worked on: EVIL='^author: .*domain'.
use strict;
use warnings;

use FindBin;
use sigtrap qw(die HUP INT TERM);
use lib $FindBin::RealBin;
use Evil;
use MakoTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($old, $new) = ('order@FV2024-10-01', 'order@FV2025-10-01');

# ---- two processes with a server each, which take the kinds in turns; the first process repeats what they say

my $workers = 2;
my $worker = share_out($workers, "$PostgreSQL::Test::Utils::tmp_check/evil_attached");

# ---- the server, and a database to copy

my $node = new_server("evil_attached_$worker");
$node->append_conf('postgresql.conf', "restart_after_crash = on\nautovacuum = off\njit = off\n");
$node->restart;

# Every kind has a copy of a database.
my $tablespace = tablespace_in_memory($node);

$node->safe_psql('postgres', <<"SQL");
CREATE ROLE evil LOGIN;
CREATE ROLE author LOGIN;
CREATE ROLE writer LOGIN;
CREATE ROLE friend LOGIN SUPERUSER IN ROLE evil;
CREATE ROLE plain LOGIN IN ROLE evil;
CREATE DATABASE base TABLESPACE $tablespace;
SQL

# Those of author are the same, in schema lib, and say whose they are.
my $author_trap = $trap =~ s/\bevil\.(?!armed|flag)/lib./gr =~ s/'evil'/'author'/gr =~ s/TRAP as/TRAP of author as/gr;

$node->safe_psql('base', <<'SQL');
CREATE SCHEMA mako_migration;
CREATE EXTENSION mako_migration SCHEMA mako_migration;
GRANT CREATE ON DATABASE base TO evil;
GRANT USAGE ON SCHEMA mako_migration TO PUBLIC;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA mako_migration TO evil;
CREATE SCHEMA evil AUTHORIZATION evil;
CREATE SCHEMA lib AUTHORIZATION author;
GRANT USAGE ON SCHEMA evil, lib TO PUBLIC;
SQL
run_as('base', 'evil', $trap);
run_as('base', 'author', $author_trap);
run_as('base', 'evil', <<"SQL");
SELECT mako_create_store();
CREATE TABLE evil.message (stream text, position bigint, type text, data jsonb, n integer DEFAULT 1, PRIMARY KEY (stream, position));
INSERT INTO evil.message VALUES ('order-1', 0, 'A', '{"n": 1}'), ('order-1', 1, 'A', '{"n": 2}'), ('order-2', 0, 'A', '{"n": 3}');
GRANT INSERT ON evil.message TO writer;
CREATE FUNCTION evil.apply(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS \$\$ SELECT state || payload \$\$;
CREATE FUNCTION evil.migrate(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS \$\$ SELECT state || '{"moved": 1}' \$\$;
-- What others look at before the store has events of theirs.
GRANT USAGE ON SCHEMA mako TO author;
SQL
$node->safe_psql('base', <<"SQL");
SET search_path = mako_migration;
SELECT mako_register_workflow('$old', 'evil.apply', initial_state => '{}'),
  mako_register_workflow('$new', 'evil.apply', initial_state => '{}'), mako_register_migration('$old', '$new', 'evil.migrate');
SQL

# Statements of a role, every one of which must succeed.
sub run_as
{
	my ($db, $role, $sql) = @_;

	return $node->safe_psql($db, "SET search_path = mako_migration;\n$sql", extra_params => [ '-U', $role ]);
}

# ---- what everybody calls

my $select = 'SELECT stream AS stream_id, position + 1 AS sequence_number, type AS event_type, data AS payload FROM evil.message e';

# The query of a kind, as a literal.
sub attach
{
	my ($query) = @_;

	return "SELECT mako_attach_store(\$query\$$query\$query\$, '$old', 'evil.message');";
}

my $insert = q{INSERT INTO evil.message VALUES ('order-1', 2, 'A', '{}'), ('order-9', 0, 'A', '{}')};
my @reads = (
	q{SELECT * FROM mako_state('order-1')},
	q{SELECT * FROM mako_trace('order-1')},
	q{SELECT * FROM mako_history('order-1')},
	q{SELECT * FROM mako_resume('order-1')},
	'SELECT * FROM mako_check()',
	"SELECT * FROM mako_plan('$old', '$new')",
	"SELECT * FROM mako_dry_run('$old', '$new')",
	'SELECT * FROM mako_store_problem()',
	'SELECT * FROM mako_attached_problem()',
	'SELECT mako_attached_table(NULL)',
	q{SELECT mako_attached_table('evil.message')},
	'SELECT mako_attached_plan()');
my @writes = (
	$insert,
	"SET LOCAL mako.writer = 'FV2024-10-01'; $insert",
	"INSERT INTO evil.message SELECT 'order-7', n, 'A', '{}' FROM generate_series(0, 2) AS n",
	q{UPDATE evil.message SET stream = 'order-8' WHERE stream = 'order-2'},
	q{DELETE FROM evil.message WHERE stream = 'order-2'},
	'TRUNCATE evil.message',
	"SELECT * FROM mako_migrate('$old', '$new'); SELECT * FROM mako_verify(1); SELECT * FROM mako_revert(1)",
	q{SELECT mako_take_snapshot('order-1')},
	qq{SELECT mako_save_snapshot('order-1', 2, '$old', 1, '{"n": 2}')},
	qq{SELECT mako_append('order-1', '$old', 'A', '{}')},
	'SELECT mako_adopt_events()',
	'SELECT mako_create_store()',
	'DROP TRIGGER IF EXISTS mako_inserted ON evil.message; SELECT mako_create_store()',
	"SELECT mako_attach_heads('$old')",
	'SELECT mako_attach_again()',
	'SELECT mako_replace_event(NULL)',
	'SELECT mako_detach_store()');

# The statements of a session that makes these calls, in a transaction each.
sub script
{
	my ($become, $query, @calls) = @_;
	my $script = "\\set VERBOSITY verbose\n\\o /dev/null\n"
	  . "SET search_path = mako_migration;\nSELECT mako_source_lock('');\n";
	my $number = 0;

	push @calls, "SELECT mako_detach_store(); " . attach($query) if defined $query;
	for (@calls)
	{
		$script .= "\\warn CALL $_\nBEGIN;\n$become\n$_;\nSET CONSTRAINTS ALL IMMEDIATE;\n";
		$script .= "ROLLBACK;\nRESET ROLE;\nDEALLOCATE ALL;\n";
	}
	return $script;
}

# Lets a role make calls; adds what is seen to %$seen.
sub provoke
{
	my ($seen, $role, @scripts) = @_;
	my ($stdout, $stderr, $call) = ('', '', '');
	local $ENV{PGOPTIONS} = '-c evil.armed=on -c evil.flag=off -c client_min_messages=warning';

	$node->psql('played', join('', @scripts), stdout => \$stdout, stderr => \$stderr, on_error_stop => 0,
		extra_params => [ '-U', $role ]);
	for (split /\n/, $stderr)
	{
		if (/^CALL (.{1,70})/) { $call = $1 }
		elsif (/TRAP as evil$/ || /TRAP of author as author$/) { $seen->{fired}++ }
		elsif (/(TRAP (?:of author )?as .*)/) { $seen->{rights}{"$role: $call: $1"}++ }
		elsif (/(?:ERROR|FATAL): +(XX000|XX00[^1]|58\w\w\w): (.*)/) { $seen->{broken}{"$role: $call: $1 $2"}++ }
		elsif (/ERROR: +(\w{5})/) { $seen->{refused}{$1}++ }
	}
	if ($stderr =~ /server closed the connection|connection to server was lost/)
	{
		$seen->{broken}{"$role: $call: crashes the server"}++;
		$node->poll_query_until('postgres', 'SELECT true');
	}
}

# The first of what is seen.
sub list
{
	my @seen = sort keys %{ $_[0] // {} };

	return join "\n", @seen > 15 ? (@seen[ 0 .. 14 ], '...') : @seen;
}

my $turn = 0;

# Plays a kind: it is made in schema evil or lib, the store is attached with its condition, and more is made.
#
#   first   what evil makes before; author, what author makes before
#   where   the end of the query
#   then    what evil makes afterwards; given, what a superuser does then; at_last, what author does then
#   refused whether attaching must be refused
#   quiet   nothing need fire nor be refused
#   silent  what inserts runs the code of the kind without the extension, as the role that writes, so nobody does
sub play
{
	my (%kind) = @_;
	my ($stdout, $stderr, %seen) = ('', '');
	my $query = "$select " . ($kind{where} // '');
	my @callers = $kind{silent} ? grep { !/INSERT|UPDATE|DELETE|TRUNCATE/ } @reads, @writes : (@reads, @writes);

	return if $turn++ % $workers != $worker || $kind{kind} !~ ($ENV{EVIL} || '.');
	$node->safe_psql('postgres', <<'SQL');
SET client_min_messages = warning;
DROP DATABASE IF EXISTS played;
CREATE DATABASE played TEMPLATE base;
SQL
	run_as('played', 'author', $kind{author}) if $kind{author};
	run_as('played', 'evil', $kind{first}) if $kind{first};
	$node->psql('played', "SET search_path = mako_migration;\n" . attach($query), stdout => \$stdout, stderr => \$stderr,
		on_error_stop => 0, extra_params => [ '-U', 'evil' ]);
	if ($kind{refused})
	{
		like($stderr, qr/ERROR/, "$kind{kind} is refused");
		return if $stderr =~ /ERROR/;
	}
	else { unlike($stderr, qr/ERROR/, "$kind{kind} is attached") }
	run_as('played', 'evil', $kind{then}) if $kind{then};
	$node->safe_psql('played', $kind{given}) if $kind{given};
	run_as('played', 'author', $kind{at_last}) if $kind{at_last};

	provoke(\%seen, 'postgres', script('', undef, @callers),
		script('SET ROLE evil;', $query, grep { !/INTO|UPDATE|DELETE FROM|TRUNCATE/ } @callers));
	provoke(\%seen, 'friend', script('', undef, @callers));
	provoke(\%seen, 'plain', script('', undef, grep { !/mako_(plan|check|dry)|UPDATE|DELETE FROM|TRUNCATE/ } @callers));
	provoke(\%seen, 'writer', script('', undef, grep { /^INSERT/ } @callers));
	is(list($seen{rights}), '', '... and runs as its owner or not at all');
	is(list($seen{broken}), '', '... and breaks nothing');
	ok($seen{fired} || $kind{quiet}, '... but runs') unless $kind{refused} || $kind{given} || $kind{at_last};
	return;
}

# ---- what evil's query names is evil's

play(kind => 'evil: nothing', quiet => 1);
play(kind => "evil: $_->[0]", where => "WHERE $_->[1]", first => $_->[2])
  for [ 'function', 'evil.stable(e.n) IS NOT NULL' ],
  [ 'function of a constant', 'evil.yes(1)' ],
  [ 'operator', '(e.n OPERATOR(evil.===) 1) IS NOT NULL' ],
  [ 'operator of a constant', '1 OPERATOR(evil.===) 1 OR e.n = 1' ],
  [ 'domain', 'e.n::evil.trapped IS NOT NULL' ],
  [ 'row with a domain', q{('(' || e.n || ',b)')::evil.pair IS NOT NULL} ],
  [ 'literal of a row', q{'(1,b)'::evil.pair IS NOT NULL} ],
  [ 'jsonb_populate_record', q{jsonb_populate_record(NULL::evil.pair, '{"a": 1}') IS NOT NULL} ],
  [ 'sublink over a view', 'EXISTS (SELECT FROM evil.watched w WHERE w.trap)' ],
  [
	'sublink over a table with an index',
	'EXISTS (SELECT FROM evil.kept WHERE a = e.n)',
	'CREATE TABLE evil.kept AS SELECT 1 AS a; CREATE INDEX ON evil.kept (evil.constant(a), evil.constant(1));
	  CREATE INDEX ON evil.kept (a) WHERE evil.yes(1)'
  ],
  [
	'cast to json',
	q{to_jsonb('good'::evil.mood) IS NOT NULL},
	'CREATE FUNCTION evil.to_json(evil.mood) RETURNS json LANGUAGE plpgsql STABLE AS
	  $$ BEGIN PERFORM evil.trap(); RETURN 1; END $$; CREATE CAST (evil.mood AS json) WITH FUNCTION evil.to_json(evil.mood)'
  ],
  [
	'SQL function with BEGIN ATOMIC',
	'evil.help(e.n) IS NOT NULL',
	'CREATE FUNCTION evil.help(integer) RETURNS integer LANGUAGE sql STABLE BEGIN ATOMIC SELECT evil.constant(1); END'
  ];

# What says that it only reads, and writes.
play(
	kind => 'evil: function that writes', quiet => 1, where => 'WHERE evil.lie(e.n)',
	first => q{CREATE TABLE evil.written (a integer);
	  CREATE FUNCTION evil.write() RETURNS void LANGUAGE plpgsql AS $$
	  BEGIN INSERT INTO evil.written VALUES (1); RAISE WARNING 'TRAP as one who writes'; EXCEPTION WHEN read_only_sql_transaction THEN NULL; END $$;
	  CREATE FUNCTION evil.lie(integer) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
	  BEGIN IF current_setting('evil.armed', true) = 'on' THEN PERFORM evil.write(); END IF; RETURN true; END $$});

# ---- what evil makes of a store that is attached

my $away = 'DROP TABLE mako.attached';
my $redefine = <<'SQL';
SELECT 'CREATE OR REPLACE VIEW mako.%V% AS ' || rtrim(pg_get_viewdef('mako.%V%'), ';') || ' %MORE%' AS statement
\gset
:statement;
SQL

sub redefined
{
	my ($view, $more) = @_;

	return $redefine =~ s/%V%/$view/gr =~ s/%MORE%/$more/r;
}

play(kind => "attached: $_->[0]", then => $_->[1], where => $_->[2], quiet => $_->[3], first => $_->[4])
  for [
	'function that was replaced since',
	'CREATE OR REPLACE FUNCTION evil.help(integer) RETURNS boolean LANGUAGE plpgsql STABLE AS
	  $$ BEGIN RETURN evil.trap(); END $$',
	'WHERE evil.help(e.n)', undef,
	'CREATE FUNCTION evil.help(integer) RETURNS boolean LANGUAGE sql STABLE AS $$ SELECT true $$'
  ],
  [
	'policy on a table that is joined',
	'ALTER TABLE evil.kept ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; CREATE POLICY p ON evil.kept USING (evil.trap())',
	'WHERE EXISTS (SELECT FROM evil.kept)', 1, 'CREATE TABLE evil.kept AS SELECT 1 AS a'
  ],
  [ 'condition in mako.attached_event', redefined('attached_event', 'WHERE evil.trap()') ],
  [ 'condition in mako.event', redefined('event', 'WHERE evil.trap()') ],
  [ 'constant condition in mako.event', redefined('event', 'WHERE evil.yes(1)') ],
  [
	'union in mako.attached_event',
	redefined('attached_event', "UNION SELECT * FROM mako.attached_event WHERE false") =~ s/SELECT \* FROM mako.attached_event/SELECT * FROM evil.copy/r
	  =~ s/^/CREATE TABLE evil.copy AS SELECT * FROM mako.attached_event;\n/r, undef, 1
  ],
  [ 'order in mako.attached_event', redefined('attached_event', 'ORDER BY 3, 1'), undef, 1 ],
  [ 'distinct in mako.attached_event', redefined('attached_event', 'GROUP BY e.stream_id, e.payload, e.event_type, e.sequence_number'),
	undef, 1 ],
  [
	'trigger with other arguments',
	"DROP TRIGGER mako_inserted ON evil.message;
	CREATE TRIGGER mako_inserted AFTER INSERT ON evil.message REFERENCING NEW TABLE AS appended FOR EACH STATEMENT
	  EXECUTE FUNCTION mako_attached_inserted('order', 'wait')", undef, 1
  ],
  [
	'policy on the table of events',
	'ALTER TABLE evil.message ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
	CREATE POLICY i ON evil.message FOR INSERT WITH CHECK (true); CREATE POLICY p ON evil.message FOR SELECT USING (true)',
	'WHERE evil.stable(e.n) IS NOT NULL'
  ],
  [
	'policy on heads',
	'ALTER TABLE mako.stream ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; CREATE POLICY p ON mako.stream USING (true)',
	'WHERE evil.stable(e.n) IS NOT NULL'
  ],
  [ 'trigger on mako.attached', 'CREATE TRIGGER aaa BEFORE INSERT OR DELETE ON mako.attached FOR EACH ROW EXECUTE FUNCTION evil.fire()' ],
  [
	'trigger after on mako.attached',
	'CREATE TRIGGER aaa AFTER INSERT OR DELETE ON mako.attached FOR EACH STATEMENT EXECUTE FUNCTION evil.fire()'
  ],
  [
	'deferred trigger on mako.attached',
	'CREATE CONSTRAINT TRIGGER aaa AFTER INSERT OR DELETE ON mako.attached DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
	  EXECUTE FUNCTION evil.fire()'
  ],
  [ 'rule on mako.attached', 'CREATE RULE r AS ON DELETE TO mako.attached DO ALSO SELECT evil.trap()' ],
  [ 'default of mako.attached', 'ALTER TABLE mako.attached ADD evil boolean DEFAULT evil.trap()' ],
  [
	'policy on mako.attached',
	'ALTER TABLE mako.attached ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
	CREATE POLICY p ON mako.attached USING (evil.trap())', undef, 1
  ],
  [
	'view in the place of mako.attached',
	"$away; CREATE VIEW mako.attached AS SELECT '$select'::text AS query, '{evil}'::text[] AS search_path, '$old'::text AS initial,
	  'evil.message'::regclass AS appended_to, true AS wait, ''::text AS attached_by, now() AS attached_at WHERE evil.trap()", undef, 1
  ],
  [
	'statements in mako.attached',
	"ALTER TABLE mako.attached DISABLE TRIGGER attached_guard; UPDATE mako.attached SET query = '$select) AS e; DO ''BEGIN PERFORM evil.trap(); END''; SELECT * FROM (SELECT 1'", undef, 1
  ],
  [
	'literal of a row in mako.attached',
	qq{ALTER TABLE mako.attached DISABLE TRIGGER attached_guard; UPDATE mako.attached SET query = query || ' WHERE ''(1,b)''::evil.pair IS NOT NULL'}, undef, 1
  ];

# ---- what is author's

play(kind => "author: $_->[0]", where => $_->[1], author => $_->[2], first => $_->[3], refused => 1)
  for [ 'function', 'WHERE lib.stable(e.n) IS NOT NULL' ],
  [ 'function of a constant', 'WHERE lib.yes(1)' ],
  [ 'operator', 'WHERE e.n OPERATOR(lib.===) 1' ],
  [ 'domain', 'WHERE e.n::lib.trapped IS NOT NULL' ],
  [ 'domain below one of evil\'s', 'WHERE e.n::evil.mine IS NOT NULL', undef, 'CREATE DOMAIN evil.mine AS lib.trapped' ],
  [ 'array of a domain', 'WHERE ARRAY[e.n]::lib.trapped[] IS NOT NULL' ],
  [ 'array of a domain from text', q{WHERE ('{' || e.n || '}')::lib.trapped[] IS NOT NULL} ],
  [ 'row with a domain from text', q{WHERE ('(' || e.n || ',b)')::lib.pair IS NOT NULL} ],
  [
	'domain in a row of evil\'s', q{WHERE ('(' || e.n || ')')::evil.holder IS NOT NULL},
	undef, 'CREATE TYPE evil.holder AS (a lib.trapped)'
  ],
  [ 'range of a domain from text', q{WHERE ('[' || e.n || ',9)')::lib.span IS NOT NULL} ],
  [ 'jsonb_populate_record', q{WHERE jsonb_populate_record(NULL::lib.pair, e.data) IS NOT NULL} ],
  [ 'jsonb_to_record', ', LATERAL jsonb_to_record(e.data) AS x (n lib.trapped)' ],
  [ 'ROWS FROM', ', LATERAL ROWS FROM (jsonb_to_record(e.data) AS (n lib.trapped), unnest(ARRAY[1])) AS x' ],
  [ 'xmltable', q{, LATERAL XMLTABLE('/r' PASSING xmlparse(CONTENT '<r>1</r>') COLUMNS a lib.trapped PATH '.') AS x} ],
  [
	'cast to json', 'WHERE to_jsonb(e.mood) IS NOT NULL',
	'CREATE FUNCTION lib.to_json(lib.mood) RETURNS json LANGUAGE plpgsql STABLE AS
	  $$ BEGIN PERFORM lib.trap(); RETURN 1; END $$; CREATE CAST (lib.mood AS json) WITH FUNCTION lib.to_json(lib.mood)',
	q{ALTER TABLE evil.message ADD mood lib.mood DEFAULT 'good'}
  ],
  [ 'function in FROM', ', LATERAL lib.stable(e.n) AS x' ],
  [
	'aggregate', 'WHERE (SELECT lib.gather(v) FROM (VALUES (e.n)) AS v (v)) IS NOT NULL',
	'CREATE AGGREGATE lib.gather(integer) (SFUNC = lib.add, STYPE = integer)'
  ],
  [ 'view', 'WHERE EXISTS (SELECT FROM lib.watched w WHERE w.trap)', 'GRANT SELECT ON lib.watched TO evil' ],
  [
	'function in a view of evil\'s', 'WHERE EXISTS (SELECT FROM evil.over)', undef,
	'CREATE VIEW evil.over AS SELECT 1 AS a WHERE lib.trap()'
  ],
  [
	'domain in a view of evil\'s', 'WHERE EXISTS (SELECT FROM evil.over)', undef,
	q{CREATE VIEW evil.over AS SELECT 1 AS a WHERE ('(' || pg_backend_pid() || ',b)')::lib.pair IS NOT NULL}
  ],
  [
	'table with a policy', 'WHERE EXISTS (SELECT FROM lib.kept)',
	'CREATE TABLE lib.kept AS SELECT 1 AS a; ALTER TABLE lib.kept ENABLE ROW LEVEL SECURITY;
	  CREATE POLICY p ON lib.kept USING (lib.trap()); GRANT SELECT ON lib.kept TO evil'
  ];

# What author has when evil's query names it: given away before or since, and changed since.
my $expressions = 'CREATE INDEX ON evil.part (lib.constant(a), lib.constant(1)); ALTER TABLE evil.part ADD CHECK (lib.yes(1) OR a > 1000)';
my $own = 'GRANT CREATE, USAGE ON SCHEMA evil TO author; ALTER';

play(%$_) for map { { %$_, kind => "author: $_->{kind}" } } (
	{
		kind => 'partition of a table that is joined', quiet => 1,
		first => 'CREATE TABLE evil.parted (a integer) PARTITION BY RANGE (a); CREATE TABLE evil.part PARTITION OF evil.parted DEFAULT;
		  CREATE TABLE evil.other PARTITION OF evil.parted FOR VALUES FROM (100) TO (200); INSERT INTO evil.parted VALUES (1)',
		where => 'WHERE EXISTS (SELECT FROM evil.parted p WHERE p.a = e.n)',
		given => "$own TABLE evil.part OWNER TO author", at_last => $expressions
	},
	{
		kind => 'child of a table that is joined', quiet => 1,
		first => 'CREATE TABLE evil.parent (a integer); CREATE TABLE evil.part () INHERITS (evil.parent); INSERT INTO evil.part VALUES (1)',
		where => 'WHERE EXISTS (SELECT FROM evil.parent p WHERE p.a = e.n)',
		given => "$own TABLE evil.part OWNER TO author", at_last => $expressions
	},
	{
		kind => 'table of events that was given away', silent => 1, quiet => 1,
		given => "$own TABLE evil.message OWNER TO author",
		at_last => 'CREATE INDEX ON evil.message (lib.constant(n), lib.constant(1));
		  ALTER TABLE evil.message ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON evil.message USING (lib.trap());
		  GRANT ALL ON evil.message TO evil'
	},
	{
		kind => 'function that was given away', quiet => 1,
		first => 'CREATE FUNCTION evil.help(integer) RETURNS boolean LANGUAGE sql STABLE AS $$ SELECT true $$',
		where => 'WHERE evil.help(e.n)', given => "$own FUNCTION evil.help(integer) OWNER TO author",
		at_last => 'CREATE OR REPLACE FUNCTION evil.help(integer) RETURNS boolean LANGUAGE plpgsql STABLE AS
		  $$ BEGIN RETURN lib.trap(); END $$'
	},
	{
		kind => 'domain that was given away', quiet => 1,
		first => 'CREATE DOMAIN evil.number AS integer', where => 'WHERE e.n::evil.number = 1',
		given => "$own DOMAIN evil.number OWNER TO author", at_last => 'ALTER DOMAIN evil.number ADD CHECK (lib.yes(VALUE))'
	},
	{
		kind => 'view that was given away', quiet => 1,
		first => 'CREATE VIEW evil.over AS SELECT 1 AS a', where => 'WHERE EXISTS (SELECT FROM evil.over)',
		given => "$own VIEW evil.over OWNER TO author",
		at_last => 'CREATE OR REPLACE VIEW evil.over AS SELECT 1 AS a WHERE lib.trap(); GRANT SELECT ON evil.over TO evil'
	},
	{
		kind => 'type that was given away', quiet => 1,
		first => 'CREATE TYPE evil.box AS (a integer)', where => q{WHERE ('(' || e.n || ')')::evil.box IS NOT NULL},
		given => "$own TYPE evil.box OWNER TO author",
		# The latest minor versions refuse it, because the view casts to the type.
		at_last => 'DO $$ BEGIN ALTER TYPE evil.box ALTER ATTRIBUTE a TYPE lib.trapped;
		  EXCEPTION WHEN feature_not_supported THEN NULL; END $$'
	},
	{
		kind => 'row of mako.attached', quiet => 1,
		given => 'GRANT ALL ON mako.attached TO author',
		at_last => "DO \$\$ BEGIN UPDATE mako.attached SET query = '$select) AS e; DO ''BEGIN PERFORM lib.trap(); END''; SELECT * FROM (SELECT 1';
		  EXCEPTION WHEN feature_not_supported THEN NULL; END \$\$"
	});

is($node->safe_psql('postgres', q{SELECT rolname FROM pg_roles WHERE rolsuper AND rolname !~ '^(postgres|friend)$'}),
	'', 'nobody has become a superuser');
done_testing();
