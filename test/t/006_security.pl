# Whose rights: the caller's for everything a run does, the owner's for every function it evaluates, the table owner's for the store's
# triggers; and row security raises instead of hiding.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MakoTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('security');

# keeper owns the store, author the functions, operator migrates, writer appends, outsider has nothing.
$node->safe_psql('postgres', "CREATE ROLE $_ LOGIN") for qw(keeper author operator writer outsider);
$node->safe_psql('postgres', 'CREATE DATABASE store');
$node->safe_psql('store', <<'SQL');
CREATE EXTENSION mako_migration;
GRANT CREATE ON DATABASE store TO keeper, author;
GRANT EXECUTE ON FUNCTION mako_create_store() TO keeper;
CREATE TABLE public.secret (word text);
INSERT INTO public.secret VALUES ('xyzzy');
CREATE TABLE public.diary (line text);
SQL
as_role('keeper', 'SELECT mako_create_store()');
as_role('author', <<'SQL');
CREATE SCHEMA lib;
GRANT USAGE ON SCHEMA lib TO PUBLIC;
CREATE TABLE lib.diary (line text);
CREATE FUNCTION lib.me() RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT current_user::text $$;
CREATE DOMAIN lib.author_state AS jsonb CHECK (current_user = 'author');
-- Who evaluates: upcast, apply (inlined and not), in_flight, migrate and the domain of the target's state.
CREATE FUNCTION lib.upcast(event_type text, schema_version int, payload jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE AS
  $$ BEGIN RETURN payload || jsonb_build_object('upcast', current_user); END $$;
CREATE FUNCTION lib.apply(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS
  $$ SELECT payload || jsonb_build_object('apply', current_user, 'planned', lib.me(), 'session', session_user) $$;
CREATE FUNCTION lib.in_flight(state jsonb) RETURNS boolean LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN current_user = 'author'; END $$;
CREATE FUNCTION lib.migrate(state jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE AS
  $$ BEGIN RETURN state || jsonb_build_object('migrate', current_user); END $$;
CREATE FUNCTION lib.apply_new(state lib.author_state, event_type text, payload jsonb) RETURNS lib.author_state LANGUAGE sql STABLE AS
  $$ SELECT state $$;
-- Does what the event says.
CREATE FUNCTION lib.obey(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE AS
  $$ BEGIN EXECUTE payload->>'do'; RETURN '{}'; END $$;
-- A function may lie about its volatility; then it can write what its owner can write.
CREATE FUNCTION lib.run(statement text) RETURNS void LANGUAGE plpgsql VOLATILE AS $$ BEGIN EXECUTE statement; END $$;
SQL

sub as_role
{
	my ($role, $sql) = @_;

	return $node->safe_psql('store', $sql, extra_params => [ '-U', $role ]);
}

sub error_as
{
	my ($role, $sql) = @_;

	return error_of($node, 'store', $sql, '-U', $role);
}

# ---- a superuser migrates what others have written

$node->safe_psql('store', <<'SQL');
SELECT mako_register_workflow('who@FV2024-10-01', apply => 'lib.apply', upcast => 'lib.upcast', in_flight => 'lib.in_flight', initial_state => '{}');
SELECT mako_register_workflow('who@FV2025-10-01', apply => 'lib.apply_new', initial_state => '{}');
SELECT mako_register_migration('who@FV2024-10-01', 'who@FV2025-10-01', migrate => 'lib.migrate');
INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('who', 'who@FV2024-10-01');
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
SELECT stream_no, 1, workflow_id, 'Asked', '{}' FROM mako.stream;
SQL
my $migrate_who = "SELECT migrated, failed FROM mako_migrate('who\@FV2024-10-01', 'who\@FV2025-10-01', in_flight_only => true)";
like(error_of($node, 'store', $migrate_who), qr/the store belongs to role "keeper"/, 'the tables of a stranger are not for a superuser');
$node->safe_psql('store', 'GRANT keeper TO postgres; ALTER ROLE operator NOINHERIT; GRANT keeper TO operator');
is($node->safe_psql('store', $migrate_who), '1|0', 'after the grant, he migrates a stream of functions that author owns');
is( $node->safe_psql('store', q{SELECT jsonb_object_agg(key, value) - 'session' FROM mako.snapshot, jsonb_each_text(state)}),
	'{"apply": "author", "upcast": "author", "migrate": "author", "planned": "author"}',
	'upcast, apply, migrate, and what the planner evaluates, run as author');

# Every stream tries something else; each is an error of its stream, or is done with the rights of author alone.
my @attempts = (
	[ q{INSERT INTO public.diary VALUES ('was here')}, '0A000', 'a plain write' ],
	[ q{UPDATE mako.stream SET version = 99}, '42501', 'a plain write to the store' ],
	[ q{CREATE TEMP TABLE t ()}, '0A000', 'a temporary table' ],
	[ q{SET ROLE postgres}, '0A000', 'SET ROLE' ],
	[ q{RESET ROLE}, '0A000', 'RESET ROLE' ],
	[ q{SELECT set_config('role', 'postgres', false)}, '42501', 'set_config of role' ],
	[ q{SELECT set_config('session_authorization', 'postgres', false)}, '42501', 'set_config of session_authorization' ],
	[ q{SELECT word FROM public.secret}, '42501', 'a read of what author may not read' ],
	[ q{SELECT rolpassword FROM pg_authid}, '42501', 'a read of passwords' ],
	[ q{COMMIT}, '0A000', 'COMMIT' ],
	[ q{SELECT lib.run($$INSERT INTO public.diary VALUES ('was here')$$)}, '25006', 'a write by a helper, where author may not' ],
	[ q{SELECT lib.run($$UPDATE mako.stream SET version = 99$$)}, '42501', 'a write to the store by a helper' ],
	[ q{SELECT lib.run($$INSERT INTO mako_workflow SELECT * FROM mako_workflow$$)}, '25006', 'a write to the definitions by a helper' ],
	[ q{SELECT lib.run($$SET ROLE postgres$$)}, '42501', 'SET ROLE by a helper' ],
	[ q{SELECT lib.run($$SET SESSION AUTHORIZATION postgres$$)}, '42501', 'SET SESSION AUTHORIZATION by a helper' ],
	[ q{SELECT lib.run($$CREATE TEMP TABLE t ()$$)}, '25006', 'a temporary table by a helper' ],
	[ q{SELECT lib.run($$LISTEN news$$)}, '42501', 'LISTEN by a helper' ],
	[ q{SELECT lib.run($$DECLARE c CURSOR WITH HOLD FOR SELECT 1$$)}, '42501', 'a cursor that outlives the transaction by a helper' ],
	[ q{SELECT lib.run($$SELECT mako_migrate('who@FV2024-10-01', 'who@FV2025-10-01')$$)}, '42501', 'mako_migrate() by a helper' ],
);
$node->safe_psql('store', <<'SQL');
SELECT mako_register_workflow('obey@FV2024-10-01', apply => 'lib.obey', initial_state => '{}');
SELECT mako_register_workflow('obey@FV2025-10-01');
SELECT mako_register_migration('obey@FV2024-10-01', 'obey@FV2025-10-01');
SQL
add_stream("attempt $_", $attempts[$_][0]) for 0 .. $#attempts;
my $migrate_obey = "SELECT migrated, failed FROM mako_migrate('obey\@FV2024-10-01', 'obey\@FV2025-10-01')";
my $heads = $node->safe_psql('store', 'SELECT md5(string_agg(s::text, chr(10) ORDER BY stream_no)) FROM mako.stream s');
is($node->safe_psql('store', $migrate_obey), '0|' . @attempts, 'a superuser migrates streams that try to break out');
for my $attempt (0 .. $#attempts)
{
	my ($statement, $sqlstate, $what) = @{ $attempts[$attempt] };

	is($node->safe_psql('store', "SELECT phase, sqlstate FROM mako.migration_error WHERE stream_id = 'attempt $attempt'"),
		"apply|$sqlstate", "$what fails");
}
is($node->safe_psql('store', 'SELECT md5(string_agg(s::text, chr(10) ORDER BY stream_no)) FROM mako.stream s'), $heads, '... and has changed no head');
is($node->safe_psql('store', 'SELECT count(*) FROM public.diary'), '0', '... and no table of others');

# Adds a stream whose event is a statement.
sub add_stream
{
	my ($id, $statement) = @_;

	$node->safe_psql('store', <<SQL);
INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('$id', 'obey\@FV2024-10-01');
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
SELECT stream_no, 1, workflow_id, 'Told', jsonb_build_object('do', \$say\$$statement\$say\$) FROM mako.stream WHERE stream_id = '$id';
SQL
}

# Settings that a function changes do not outlive it: neither for the next function nor for the caller.
add_stream('settings', q{SELECT set_config('search_path', 'lib', false), set_config('row_security', 'on', false)});
is( $node->safe_psql('store', "$migrate_obey; SHOW search_path; SHOW row_security"),
	'1|' . @attempts . qq{\n"\$user", public\non},
	'settings that apply() changes are as before after the run');

# The same for functions that nobody calls by name: a cast that to_jsonb() looks for.
as_role('author', <<'SQL');
CREATE TYPE lib.mood AS ENUM ('good', 'bad');
CREATE FUNCTION lib.to_json(mood lib.mood) RETURNS json LANGUAGE plpgsql STABLE AS
  $$ BEGIN RETURN to_json(set_config('search_path', 'lib', false)); END $$;
CREATE CAST (lib.mood AS json) WITH FUNCTION lib.to_json(lib.mood);
CREATE FUNCTION lib.apply_cast(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS
  $$ SELECT jsonb_build_object('mood', event_type::lib.mood) $$;
SQL
$node->safe_psql('store', "SELECT mako_register_workflow('cast\@FV2024-10-01', apply => 'lib.apply_cast', initial_state => '{}')");
is( $node->safe_psql('store', q{SELECT mako_fold('cast@FV2024-10-01', '[{"event_type": "good", "payload": {}}]'); SHOW search_path}),
	qq[{"mood": "lib"}\n"\$user", public],
	'settings that a cast changes are as before after mako_fold()');

# The planner evaluates immutable functions before the first event, as author, too.
as_role('author', <<'SQL');
CREATE FUNCTION lib.planned() RETURNS text LANGUAGE plpgsql IMMUTABLE AS
  $$ BEGIN RETURN set_config('search_path', 'lib', false); END $$;
CREATE FUNCTION lib.apply_planned(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS
  $$ SELECT jsonb_build_object('path', lib.planned()) $$;
SQL
$node->safe_psql('store', <<'SQL');
SELECT mako_register_workflow('planned@FV2024-10-01', apply => 'lib.apply_planned', initial_state => '{}');
SELECT mako_register_workflow('planned@FV2025-10-01');
SELECT mako_register_migration('planned@FV2024-10-01', 'planned@FV2025-10-01');
SQL
{
	is( $node->safe_psql('store', "SELECT failed FROM mako_migrate('planned\@FV2024-10-01', 'planned\@FV2025-10-01'); SHOW search_path"),
		qq{0\n"\$user", public},
		'settings that a function changes while it is planned are as before after the run');
	is( $node->safe_psql('store', "SELECT mako_fold('planned\@FV2024-10-01', '[]'); SHOW search_path"),
		qq{{}\n"\$user", public},
		'... and after mako_fold()');
}

# ---- registration

$node->safe_psql('store', <<'SQL');
GRANT EXECUTE ON FUNCTION mako_register_workflow(mako_workflow_id, text, text, text, jsonb, integer, jsonb, jsonb, boolean),
  mako_register_migration(mako_workflow_id, mako_workflow_id, text, boolean) TO author, operator;
SQL
my $register = "SELECT mako_register_workflow('new\@FV2024-10-01', apply => 'lib.apply', initial_state => '{}')";
like(error_as('outsider', $register), qr/^42501: permission denied for function mako_register_workflow/, 'registering is for those to whom it is granted');
like(error_as('operator', $register), qr/^42501: permission denied for function lib\.apply/, '... and needs the privileges of the function\'s owner');
is(error_as('author', $register), '', '... whom the owner himself has');
$node->safe_psql('postgres', 'ALTER ROLE operator INHERIT; GRANT author TO operator');
is(error_as('operator', $register =~ s/new/newer/r), '', '... and members of his role');
$node->safe_psql('postgres', 'REVOKE author FROM operator; ALTER ROLE operator NOINHERIT');
like(
	error_as('operator', "SELECT mako_register_migration('new\@FV2024-10-01', 'newer\@FV2024-10-01', migrate => 'lib.migrate')"),
	qr/^(42501|22023)/, 'the same for a step');
for my $role (qw(operator keeper outsider))
{
	like(error_as($role, "INSERT INTO mako_workflow SELECT * FROM mako_workflow"), qr/^42501/, "$role cannot write mako_workflow");
	like(error_as($role, "UPDATE mako_workflow SET apply = 'lib.obey'"), qr/^42501/, '... nor change it');
	like(error_as($role, "DELETE FROM mako_state_migration"), qr/^42501/, '... nor forget a step');
}

# Another owner at use would mean other rights than those that were reviewed.
$node->safe_psql('store', 'ALTER FUNCTION lib.obey(jsonb, text, jsonb) OWNER TO postgres');
like(error_of($node, 'store', $migrate_obey), qr/^42501: function lib\.obey.* has another owner/, 'a function that has changed hands is refused');
$node->safe_psql('store', 'ALTER FUNCTION lib.obey(jsonb, text, jsonb) OWNER TO author');
is($node->safe_psql('store', $migrate_obey), '0|' . @attempts, '... and accepted again when it has come back');

# ---- the caller's rights

like(error_as('outsider', $migrate_who), qr/^42501: permission denied for function mako_migrate/, 'migrating is for those to whom it is granted');
like(error_as('outsider', 'SELECT mako_create_store()'), qr/^42501/, '... and so is mako_create_store()');
like(error_of($node, 'store', 'SELECT mako_create_store()'), qr/^42501: schema "mako" belongs to role "keeper"/, 'a store is repaired by its owner');
$node->safe_psql('store', <<'SQL');
GRANT EXECUTE ON FUNCTION mako_migrate(mako_workflow_id, mako_workflow_id, uuid, boolean, boolean, bigint, text, text) TO operator, keeper;
INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('mine', 'who@FV2024-10-01');
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
SELECT stream_no, 1, workflow_id, 'Asked', '{}' FROM mako.stream WHERE stream_id = 'mine';
SQL
my @grants = (
	'USAGE ON SCHEMA mako',
	'SELECT, UPDATE ON mako.stream',
	'SELECT ON mako.event',
	'SELECT ON mako.snapshot',
	'INSERT ON mako.snapshot',
	'SELECT, INSERT ON mako.repointed',
	'SELECT ON mako.reverted',
	'SELECT, INSERT, UPDATE ON mako.migration_run',
	'SELECT, INSERT ON mako.migration_error',
	'SELECT ON mako.format_version, mako.dependent');
like(error_as('operator', $migrate_who), qr/^42501/, 'mako_migrate() lends operator no privileges on the store');
as_role('keeper', "GRANT $_ TO operator") for @grants;

# What the heads and the states are; a failed run may be on record.
sub store_rows
{
	return $node->safe_psql('store', join ';', map { "SELECT '$_', t::text FROM mako.$_ t ORDER BY 2" } qw(stream event snapshot repointed));
}
my $before = store_rows();

# Each of them is needed, and refused before a stream is touched.
for my $grant (@grants)
{
	next if $grant =~ /migration_error/;    # needed when there is an error to write
	as_role('keeper', "REVOKE $grant FROM operator");
	like(error_as('operator', $migrate_who), qr/^42501/, "without $grant the run is refused");
	is(store_rows(), $before, '... and changes nothing');
	as_role('keeper', "GRANT $grant TO operator");
}

# ---- row security

for my $table (qw(stream event snapshot))
{
	my $refused = qr/^42501: query would be affected by row-level security policy for table "$table"/;

	as_role('keeper', "ALTER TABLE mako.$table ENABLE ROW LEVEL SECURITY; CREATE POLICY few ON mako.$table USING (stream_no < 0)");
	like(error_as('operator', $migrate_who), $refused, "a policy on mako.$table raises instead of hiding");
	like(error_as('operator', "SET row_security = on; $migrate_who"), $refused, '... whatever row_security says');
	as_role('keeper', "ALTER TABLE mako.$table FORCE ROW LEVEL SECURITY");
	like(error_as('keeper', $migrate_who), $refused, '... for the owner, too, where it is forced');
	as_role('keeper', "ALTER TABLE mako.$table NO FORCE ROW LEVEL SECURITY; ALTER TABLE mako.$table DISABLE ROW LEVEL SECURITY");
	is(store_rows(), $before, '... and nothing has moved');
}

# ---- a writer of events, while a policy hides all heads even from their owner

as_role('keeper', 'ALTER TABLE mako.stream ENABLE ROW LEVEL SECURITY; ALTER TABLE mako.stream FORCE ROW LEVEL SECURITY');
as_role('keeper', 'GRANT USAGE ON SCHEMA mako TO writer; GRANT INSERT ON mako.event TO writer');
my $mine = $node->safe_psql('store', "SELECT stream_no FROM mako.stream WHERE stream_id = 'mine'");
my $append = "INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload) VALUES ($mine, %d, '%s', 'Asked', '{}')";
is(error_as('writer', sprintf($append, 2, 'who@FV2024-10-01')), '', 'INSERT on mako.event is all that a writer needs');
is($node->safe_psql('store', "SELECT version FROM mako.stream WHERE stream_no = $mine"), '2', '... for the head to advance');
like(error_as('writer', sprintf($append, 4, 'who@FV2024-10-01')), qr/^XX001/, '... and he is told of a gap');
like(error_as('writer', sprintf($append, 3, 'who@FV2025-10-01')), qr/^MK005/, '... and of the wrong workflow');
like(error_as('writer', "UPDATE mako.stream SET version = 3 WHERE stream_no = $mine"), qr/^42501/, '... but he cannot advance it himself');
like(error_as('writer', 'SELECT * FROM mako.event'), qr/^42501/, '... nor read');
like(error_as('writer', "INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('his', 'who\@FV2024-10-01')"), qr/^42501/, '... nor make a stream');
like(error_as('keeper', "UPDATE mako.stream SET version = 3 WHERE stream_no = $mine"), qr/^(0A000|42501)/, 'not even the owner advances a head');
as_role('keeper', 'ALTER TABLE mako.stream NO FORCE ROW LEVEL SECURITY; ALTER TABLE mako.stream DISABLE ROW LEVEL SECURITY');

is(as_role('operator', $migrate_who), '1|0', 'with these privileges and no policy, operator migrates');
is( $node->safe_psql('store', "SELECT effective_role, session_role FROM mako.migration_run ORDER BY run_id DESC LIMIT 1"),
	'operator|operator', '... under his name');

# ---- a hostile search_path

# Every built-in function and operator that can have a double has one, which counts that it was called.
$node->safe_psql('postgres', 'CREATE DATABASE hostile');
$node->safe_psql('hostile', <<'SQL');
SET client_min_messages = error;
CREATE SCHEMA evil;
CREATE SEQUENCE evil.calls;
SET check_function_bodies = off;
DO $$
DECLARE
  double record;
BEGIN
  FOR double IN
    SELECT p.proname AS name, p.oid AS number, p.pronargs AS arguments,
           (SELECT string_agg(format_type(t, NULL), ', ' ORDER BY n) FROM unnest(p.proargtypes) WITH ORDINALITY AS a (t, n)) AS types,
           format_type(p.prorettype, NULL) AS result, p.proretset AS is_set
    FROM pg_proc p
    WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f' AND p.provariadic = 0
  LOOP
    BEGIN
      EXECUTE format('CREATE FUNCTION evil.%I(%s) RETURNS %s %s LANGUAGE plpgsql AS %L', double.name, double.types,
                     CASE WHEN double.is_set THEN 'SETOF' END, double.result,
                     $body$ BEGIN PERFORM pg_catalog.nextval('evil.calls'); RAISE EXCEPTION 'hostile'; END $body$);
    EXCEPTION WHEN OTHERS THEN
      NULL; -- types that plpgsql does not take
    END;
  END LOOP;
  FOR double IN
    SELECT o.oprname AS name, o.oid AS number, o.oprleft::regtype AS leftarg, o.oprright::regtype AS rightarg, o.oprresult::regtype AS result
    FROM pg_operator o
    WHERE o.oprnamespace = 'pg_catalog'::regnamespace AND o.oprleft <> 0
  LOOP
    BEGIN
      EXECUTE format('CREATE FUNCTION evil.operator_%s(%s, %s) RETURNS %s LANGUAGE plpgsql AS %L', double.number,
                     double.leftarg, double.rightarg, double.result,
                     $body$ BEGIN PERFORM pg_catalog.nextval('evil.calls'); RAISE EXCEPTION 'hostile'; END $body$);
      EXECUTE format('CREATE OPERATOR evil.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = evil.operator_%s)', double.name,
                     double.leftarg, double.rightarg, double.number);
    EXCEPTION WHEN OTHERS THEN
      NULL;
    END;
  END LOOP;
END $$;
CREATE TABLE evil.stream (stream_no int);
CREATE TABLE evil.mako_workflow (workflow_id int);
SQL
cmp_ok($node->safe_psql('hostile', "SELECT count(*) FROM pg_proc WHERE pronamespace = 'evil'::regnamespace"), '>', 2500, 'doubles of functions');
cmp_ok($node->safe_psql('hostile', "SELECT count(*) FROM pg_operator WHERE oprnamespace = 'evil'::regnamespace"), '>', 500, 'doubles of operators');
my $hostile = 'SET search_path = evil, pg_catalog, public;';
like(error_of($node, 'hostile', "$hostile SELECT 1 + 1"), qr/hostile/, 'they come first');
$node->safe_psql('hostile', "SELECT setval('evil.calls', 1, false)");

# The same steps on an honest path and on a hostile one. What the steps themselves need is qualified.
my @steps = (
	q{SELECT public.mako_create_store()},
	q{SELECT public.mako_add_dependent('public.deadline', 'stream_no', 'workflow_id')},
	q{SELECT public.mako_register_workflow('count@FV2024-10-01', apply => 'public.apply', initial_state => '[]')},
	q{SELECT public.mako_register_workflow('count@FV2025-10-01')},
	q{SELECT public.mako_register_migration('count@FV2024-10-01', 'count@FV2025-10-01')},
	q{INSERT INTO mako.stream (stream_id, tenant_id, process_id, workflow_id) VALUES ('one', NULL, NULL, 'count@FV2024-10-01'),
	  ('two', NULL, NULL, 'count@FV2024-10-01'), ('broken', NULL, NULL, 'count@FV2024-10-01'), ('empty', NULL, NULL, 'count@FV2024-10-01')},
	q{INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload) VALUES
	  (1, 1, 'count@FV2024-10-01', 'A', '1'), (1, 2, 'count@FV2024-10-01', 'B', '2'), (2, 1, 'count@FV2024-10-01', 'C', '3'),
	  (3, 1, 'count@FV2024-10-01', 'D', '"refuse"')},
	q{INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload) VALUES (2, 2, 'count@FV2024-10-01', 'D', '4')},
	q{INSERT INTO public.deadline VALUES (1, 'count@FV2024-10-01')},
	q{SELECT migrated, skipped, failed, public.mako_is_ok(r), (r.errors)[1].message
	  FROM public.mako_migrate('count@FV2024-10-01', 'count@FV2025-10-01') r},
	q{SELECT public.mako_fold('count@FV2024-10-01', '[{"event_type": "A", "payload": 7}]')},
	q{SELECT public.mako_migrate_state('count@FV2024-10-01', 'count@FV2025-10-01', '[]')},
	q{SELECT public.mako_fingerprint('count@FV2024-10-01', 'count@FV2025-10-01')},
	q{SELECT public.mako_assert_ok(public.mako_merge(r, r)) FROM public.mako_migrate('count@FV2024-10-01', 'count@FV2025-10-01') r},
	q{SELECT stream_id, run_id FROM mako.migrated_stream},
	q{SELECT * FROM mako.process_identity},
	q{SELECT * FROM public.mako_store_problem()},
	q{SELECT public.mako_create_store()},
	q{SELECT public.mako_remove_dependent('public.deadline', 'stream_no', 'workflow_id')},
	q{SELECT public.mako_unregister_workflow('count@FV2024-10-01')});
my $setup = <<'SQL';
CREATE EXTENSION mako_migration SCHEMA public;
CREATE TABLE public.deadline (stream_no bigint, workflow_id text);
CREATE FUNCTION public.apply(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS
  $$ SELECT CASE WHEN payload = '"refuse"' THEN mako_reject('refused') ELSE state || payload END $$;
SQL
$node->safe_psql('postgres', 'CREATE DATABASE honest');
$node->safe_psql($_, $setup) for qw(honest hostile);
for my $step (@steps)
{
	my %answer;

	for my $db (qw(honest hostile))
	{
		my ($out, $err) = ('', '');

		$node->psql($db, ($db eq 'hostile' ? $hostile : '') . $step, stdout => \$out, stderr => \$err);
		($err) = $err =~ /(ERROR.*)/;
		$err //= '';
		$answer{$db} = ($out =~ s/\b\d\d:\d\d:[\d.]+|\d{4}-\d\d-\d\d [\d:.+]+//gr) . "\n" . ($err =~ s/[\d.]+ s\b//gr);
	}
	my ($name) = $step =~ /(public\.mako_\w+|mako\.\w+|public\.\w+)/;
	is($answer{hostile}, $answer{honest}, "$name on a hostile path");
}
is($node->safe_psql('hostile', 'SELECT is_called FROM evil.calls'), 'f', 'no double was called');
my $stores = join ';', map { "SELECT $_ ORDER BY 1, 2" } (
	'stream_id, workflow_id, version FROM mako.stream',
	'stream_no, sequence_number, workflow_id, state FROM mako.snapshot',
	'stream_no, sequence_number FROM mako.repointed',
	'stream_id, error_no, message FROM mako.migration_error',
	'* FROM public.deadline');
is($node->safe_psql('hostile', $stores), $node->safe_psql('honest', $stores), 'the stores are the same');

$node->stop;
done_testing();
