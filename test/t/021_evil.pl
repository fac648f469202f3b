# Nobody's rights but his own: every function of the extension, called by a superuser, where others
# have made whatever they can make (Evil.pm): an author of functions, an owner of the store, an
# owner of a dependent, an owner of a sink, and one who may create in the extension's schema.
#
# After every call: what others made has run as its owner or not at all, and could not become any
# other role; no setting, temporary object, prepared statement, cursor or channel is left; the
# server is still the same. Every kind of object is seen to be able to fire.
#
# EVIL is a pattern of the kinds to play, while one of them is worked on: EVIL='^dependent: rule'.
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

my ($old, $new) = ('FV2024-10-01', 'FV2025-10-01');
my $tenant = 'aaaaaaaa-0000-4000-8000-000000000001';
# What commits has a tenant for each way to call it.
my %tenants = (
	'superuser' => $tenant =~ s/1$/2/r,
	'member' => $tenant =~ s/1$/3/r,
	'SET ROLE' => $tenant =~ s/1$/4/r);
my $process = 'bbbbbbbb-0000-4000-8000-000000000001';

# ---- the calls: arguments by name, and for each function those that differ

my %value = (
	a => "(1,w\@$old,w\@$new,1,0,0,{},2024-01-01,1 s)",
	after => 0,
	appended_to => 'lib.other',
	apply => 'lib.apply',
	b => "(1,w\@$old,w\@$new,1,0,0,{},2024-01-01,1 s)",
	event_type => 'X',
	events => '[{"event_type": "X", "payload": {"n": 1}}]',
	format_version => $old,
	initial => "w\@$old",
	instance => '1',
	keep => 0,
	key => 'key',
	migrate => 'lib.migrate',
	path => '{lib}',
	payload => '{"n": 2}',
	policy => 'pinned',
	process_column => 'stream_no',
	query => "SELECT process_id AS stream_id, stream_no AS sequence_number, workflow_id AS event_type,
	  to_jsonb(stream_no) AS payload FROM lib.other",
	reason => 'because',
	relation => 'lib.other',
	report => "(1,w\@$old,w\@$new,1,0,0,{},2024-01-01,1 s)",
	retired => '{}',
	run_id => 1,
	sequence_number => 2,
	sink_no => 1,
	source => '{"a": 1}',
	source_fv => $old,
	source_wf => "w\@$old",
	state => '{"n": 1}',
	state_schema_version => 1,
	statement => 'SELECT stream_id FROM moved',
	stream_id => 'new',
	tag => 'n',
	target => '{"a": 2}',
	target_fv => $new,
	target_wf => "w\@$new",
	tenant_id => $tenant,
	type_definition => '{"type": "int8"}',
	value => '{"n": 1}',
	wait => 'true',
	workflow_column => 'workflow_id',
	workflow_id => "w\@$old",
	workflow_names => '{same}',
);

# Of an argument that has a default, only what is given here. A text is a statement: % is the
# extension's schema.
my %calls = (
	mako_add_dependent => [ {}, { relation => 'evil.deadline', process_column => 'process_id' } ],
	mako_add_sink => [ {}, { lock => 'LOCK TABLE lib.other', undo => 'DELETE FROM lib.other' } ],
	mako_add_tag => [ { tag => 'another', stream_id => "process/$tenant/$process" } ],
	mako_adopt_events => [ {} ],
	mako_advance_sequences => [ {} ],
	mako_append => [ {}, { stream_id => "process/$tenant/$process", expected_version => 1 } ],
	mako_append_batch => [ { events => '{"(X,\"{\"\"n\"\": 1}\",1,,,,)"}' } ],
	mako_assert_delegated => [ {} ],
	mako_assert_format_version => [ { value => $old } ],
	mako_assert_ok => [ {} ],
	mako_assert_store => [ {} ],
	mako_assert_workflow_id => [ { value => "w\@$old" } ],
	mako_attach_again => [ {} ],
	mako_attach_heads => [ {} ],
	mako_attach_rows => [ {} ],
	mako_attach_store => [ {} ],
	mako_attached_changed => ["CREATE TRIGGER t AFTER DELETE ON lib.other REFERENCING OLD TABLE AS o
	  FOR EACH STATEMENT EXECUTE FUNCTION %.mako_attached_changed('w\@$old'); DELETE FROM lib.other"],
	mako_attached_inserted => ["CREATE TRIGGER t AFTER INSERT ON lib.other REFERENCING NEW TABLE AS n
	  FOR EACH STATEMENT EXECUTE FUNCTION %.mako_attached_inserted('w\@$old', 'wait');
	  INSERT INTO lib.other VALUES (1)"],
	mako_attached_plan => [ {} ],
	mako_attached_problem => [ {} ],
	mako_attached_table => [ {} ],
	mako_check => [ {} ],
	mako_coverage => [ {} ],
	mako_create_rows => [ {} ],
	mako_create_store => [ {} ],
	mako_current_progress => [ {}, 'SELECT * FROM %.mako_progress' ],
	mako_dependent_problem => [
		"SELECT * FROM %.mako_dependent_problem('evil.deadline'::pg_catalog.regclass, 'stream_no',
		  'workflow_id', NULL)"
	],
	mako_detach_rows => [ {} ],
	mako_detach_store => [ {} ],
	mako_drain => [ {} ],
	mako_dry_run => [ {}, { in_flight_only => 'true', sample => 1 } ],
	mako_dry_run_summary => [ {} ],
	mako_event_inserted => ["INSERT INTO mako.event (stream_no, sequence_number, workflow_id,
	  event_type, payload) VALUES (2, 3, 'w\@$old', 'X', '{}')"],
	mako_exempt => [ { workflow_id => "spare\@$old" } ],
	mako_expire_keys => [ {} ],
	mako_explain_function => ["SELECT pg_catalog.format('SELECT *
	  FROM %1\$s.mako_explain_function(%2\$L)', '%', p.oid::pg_catalog.regprocedure)
	  FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
	    WHERE n.nspname IN ('lib', 'evil') ORDER BY p.oid \\gexec"],
	mako_find_tag => [ { tag => 'tag' } ],
	mako_fingerprint => [ {} ],
	mako_fold => [ {}, { workflow_id => "require\@$old" } ],
	mako_format => [ {} ],
	mako_grant_triggers => [ {} ],
	mako_guard => [ 'UPDATE mako.stream SET version = 9', 'DELETE FROM mako.event' ],
	mako_history => [ { stream_id => 'old' } ],
	mako_history_rows => [ { stream_id => 'old' } ],
	mako_instances => [ {} ],
	mako_is_attached => [ {} ],
	mako_is_ok => [ {} ],
	mako_is_valid => [ {} ],
	mako_load => [ {} ],
	mako_lookup => [ {}, { format_version => $new } ],
	mako_merge => [ {}, "SELECT %.mako_merge(r) FROM (VALUES (NULL::%.mako_migration_report))
	  AS v (r)" ],
	mako_merge_patch => [ {} ],
	mako_migrate => [ {}, { in_flight_only => 'true', update_registry => 'false' } ],
	mako_migrate_batched => [ { batch_size => 1, tenant_id => 'TENANT' } ],
	mako_migrate_state => [ {} ],
	mako_migrate_version => [ {} ],
	mako_migrate_version_batched => [ { batch_size => 1, tenant_id => 'TENANT' } ],
	mako_open_schema => [ {} ],
	mako_plan => [ { in_flight_only => 'true' } ],
	mako_prune_snapshots => [ {} ],
	mako_reactivate => [ {} ],
	mako_register_key => [ { key => 'another', stream_id => "process/$tenant/$process" }, {} ],
	mako_register_migration => [ { source_wf => "spare\@$old", target_wf => "spare\@$new",
	  migrate => 'lib.migrate', replace => 'true' } ],
	mako_register_migrations => [ {} ],
	mako_register_workflow => [
		{ workflow_id => "more\@$old", apply => 'lib.apply', upcast => 'lib.upcast',
		  in_flight => 'lib.in_flight', initial_state => '{}' },
		{ workflow_id => "spare\@$old", apply => 'lib.apply', initial_state => '{}', replace => 'true',
		  state_schema_version => 2 }
	],
	mako_reject => [ {} ],
	mako_remembered_relation => [ { relation => 'evil.deadline', relation_identity => '0@1' } ],
	mako_remove_dependent => [ { relation => 'evil.deadline' } ],
	mako_remove_sink => [ {} ],
	mako_remove_tag => [ { tag => 'tag', stream_id => "process/$tenant/$process" } ],
	mako_replace_event => ['SELECT %.mako_replace_event(NULL)'],
	mako_required => [q[SELECT %.mako_required(value => '{"n": 1}'::jsonb,
	  VARIADIC path => '{n}'::text[])]],
	mako_resume => [ { stream_id => 'old' } ],
	mako_retire => [ {}, { format_version => 'FV2023-10-01' } ],
	mako_revert => [
		{}, "SELECT v.* FROM %.mako_migrate(source_wf => 'w\@$old'::%.mako_workflow_id,
		  target_wf => 'w\@$new'::%.mako_workflow_id) m,
		  LATERAL %.mako_revert(run_id => m.run_id, reason => ''::pg_catalog.text) v"
	],
	mako_save_snapshot => [ {} ],
	mako_sequence_problem => [ {} ],
	mako_set_dispatch => [ { workflow_id => "spare\@$old" } ],
	mako_snapshot_saved =>
	  ["INSERT INTO mako.snapshot (stream_no, sequence_number, workflow_id, state_schema_version,
	    state) VALUES (2, 1, 'w\@$old', 1, '{}')"],
	mako_source_lock => [ {} ],
	mako_spawn => [ {} ],
	mako_state => [ {}, { stream_id => 'old' } ],
	mako_state_diagram => [ {} ],
	mako_step_finding => [ {} ],
	mako_store_column => [ {} ],
	mako_store_finding => [ {} ],
	mako_store_finding_rows => [ {} ],
	mako_store_layout => [ {} ],
	mako_store_object => [ {} ],
	mako_store_problem => [ {} ],
	mako_stream_inserted => ["INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('inserted',
	  'w\@$old')"],
	mako_stream_of => [ { stream_id => "process/$tenant/$process" } ],
	mako_take_snapshot => [ {} ],
	mako_trace => [ { stream_id => 'old' } ],
	mako_transition_rows => [ {} ],
	mako_transitions => [ {} ],
	mako_unexempt => [ { workflow_id => "spare\@$new" } ],
	mako_unregister_key => [ {} ],
	mako_unregister_migration => [ { source_wf => "spare\@$old", target_wf => "spare\@$new" } ],
	mako_unregister_workflow => [ { workflow_id => "lone\@$old" } ],
	mako_validate => [ {} ],
	mako_verify => [ {} ],
	mako_verify_snapshots => [ {} ],
	mako_version_fingerprint => [ {} ],
	mako_workflow_name => [ {} ],
	mako_workflow_version => [ {} ],
);

# What reads and writes no table of the store.
my %without_store = map { $_ => 1 } qw(
  mako_assert_format_version mako_assert_workflow_id mako_workflow_name mako_workflow_version
  mako_is_ok mako_format mako_assert_ok mako_merge mako_merge_patch mako_source_lock mako_reject
  mako_required mako_is_valid mako_validate mako_instances mako_store_object mako_step_finding
  mako_is_attached mako_fold mako_migrate_state mako_fingerprint mako_explain_function mako_register_workflow
  mako_register_migration mako_register_migrations mako_set_dispatch mako_version_fingerprint
  mako_remove_sink);

# ---- two processes with a server each, which take the kinds in turns; the first process repeats
# what they say

my $workers = 2;
my $worker = share_out($workers, "$PostgreSQL::Test::Utils::tmp_check/evil");
my $turn = 0;

# ---- the server, and databases to copy

my $node = new_server("evil_$worker");
$node->append_conf('postgresql.conf',
  "restart_after_crash = on\nmax_connections = 20\nautovacuum = off\njit = off\n");
$node->restart;
my ($major) = $node->safe_psql('postgres', 'SHOW server_version_num') =~ /^(\d+)\d{4}$/;
my $started = $node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()');

# Every kind has a copy of a database.
my $tablespace = tablespace_in_memory($node);

# friend is a superuser to whom the owner of the store has granted his role.
$node->safe_psql('postgres', <<'SQL');
CREATE ROLE evil LOGIN;
CREATE ROLE author LOGIN;
CREATE ROLE friend LOGIN SUPERUSER IN ROLE evil;
SQL

# Which databases are copied, and where the extension is in them.
our ($prefix, $schema) = ('', 'mako_migration');

# A database with the extension and nothing else; evil has all privileges on it but those of an
# owner.
sub make_base
{
	my ($db, $schema) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $db TABLESPACE $tablespace");
	$node->safe_psql($db, <<SQL);
CREATE SCHEMA IF NOT EXISTS $schema;
CREATE EXTENSION mako_migration SCHEMA $schema;
GRANT USAGE ON SCHEMA $schema TO PUBLIC;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA $schema TO evil;
GRANT CREATE ON DATABASE $db TO evil;
ALTER DATABASE $db SET search_path = "\$user", public, $schema;
CREATE SCHEMA evil AUTHORIZATION evil;
GRANT USAGE ON SCHEMA evil TO PUBLIC;
CREATE SCHEMA lib AUTHORIZATION author;
GRANT USAGE ON SCHEMA lib TO PUBLIC;
CREATE TABLE lib.other (stream_no bigint, process_id uuid, workflow_id text);

-- What a session must leave as it was. All is qualified: others have doubles of it.
CREATE SCHEMA test;
CREATE TABLE test.setting (name text, value text);
CREATE FUNCTION test.begin() RETURNS void LANGUAGE plpgsql AS \$\$
BEGIN
  TRUNCATE test.setting;
  INSERT INTO test.setting
  SELECT s.name, pg_catalog.current_setting(s.name)
  FROM (SELECT p.name FROM pg_catalog.pg_settings p
        UNION ALL VALUES ('evil.flag'), ('role'), ('session_authorization')) AS s;
END \$\$;
CREATE FUNCTION test.left_behind() RETURNS SETOF text LANGUAGE plpgsql AS \$\$
BEGIN
  RETURN QUERY
  SELECT pg_catalog.concat_ws(' = '::pg_catalog.text, s.name, s.now)
  FROM (SELECT t.name, t.value, pg_catalog.current_setting(t.name) AS now FROM test.setting t) AS s
  WHERE pg_catalog.textne(s.now, s.value);
  RETURN QUERY
  SELECT 'temporary table'::pg_catalog.text FROM pg_catalog.pg_class c
  WHERE pg_catalog.oideq(c.relnamespace, pg_catalog.pg_my_temp_schema())
  UNION ALL SELECT 'prepared statement' FROM pg_catalog.pg_prepared_statements p
    WHERE pg_catalog.texteq(p.name, 'left_behind')
  UNION ALL SELECT 'cursor' FROM pg_catalog.pg_cursors u
    WHERE pg_catalog.texteq(u.name, 'left_behind')
  UNION ALL SELECT 'channel' FROM pg_catalog.pg_listening_channels()
  UNION ALL SELECT 'evil is a superuser' FROM pg_catalog.pg_roles r
    WHERE pg_catalog.nameeq(r.rolname, 'evil') AND r.rolsuper;
END \$\$;
GRANT USAGE ON SCHEMA test TO PUBLIC;
SQL
	run($db, 'evil', $trap);
	run($db, 'author', functions_with(q{%DOC%->'n'}) =~ s/evil\./lib./gr);
	run($db, 'author', <<'SQL');
CREATE FUNCTION lib.require(state jsonb, event_type text, payload jsonb) RETURNS jsonb
  LANGUAGE sql STABLE AS $$ SELECT state || mako_required(payload, 'n') $$;
SQL
}

# Two streams of a workflow, one of which was migrated by run 1; the definitions are there.
my $data = <<SQL;
INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('old', 'w\@$old');
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
VALUES (1, 1, 'w\@$old', 'X', '{"n": 1}'), (1, 2, 'w\@$old', 'X', '{"n": 2}');
SELECT mako_migrate('w\@$old', 'w\@$new');
SELECT mako_append('old', 'w\@$new', 'X', '{"n": 3}');
INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('new', 'w\@$old');
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
VALUES (2, 1, 'w\@$old', 'X', '{"n": 1}'), (2, 2, 'w\@$old', 'Y', '{"n": 2}');
SELECT mako_take_snapshot('new');
SELECT mako_append(mako_spawn('w\@$old', '$tenant', '$process'), 'w\@$old', 'X', '{"n": 1}');
SELECT mako_append(mako_spawn(w::mako_workflow_id, t::uuid), w::mako_workflow_id, 'X', '{"n": 1}')
FROM unnest('{w\@$old,spare\@$old}'::text[]) AS w,
  unnest('{$tenants{superuser},$tenants{member},$tenants{'SET ROLE'}}'::text[]) AS t;
SELECT mako_register_key('$tenant', 'key', 'process/$tenant/$process');
SELECT mako_add_tag('$tenant', 'tag', 'process/$tenant/$process');
SQL

# The definitions, of functions of a schema.
sub definitions
{
	my ($schema) = @_;
	my $functions = "apply => '$schema.apply', upcast => '$schema.upcast',
	  in_flight => '$schema.in_flight', initial_state => '{}'";
	my @workflows = ("w\@$old", "w\@$new", "spare\@$old", "spare\@$new", "lone\@$old");
	my $require =
	  "SELECT mako_register_workflow('require\@$old', 'lib.require', initial_state => '{}');\n";

	return join '', $schema eq 'lib' ? $require : '',
	  (map { "SELECT mako_register_workflow('$_', $functions);\n" } @workflows),
	  (map { "SELECT mako_register_migration('$_\@$old', '$_\@$new', '$schema.migrate');\n" }
		  qw(w spare)),
	  (map { "SELECT mako_register_workflow('same\@$_');\n" } $old, $new),
	  "SELECT mako_exempt('spare\@$new', 'for a test');\n";
}

# Statements of a role, every one of which must succeed.
sub run
{
	my ($db, $role, $sql) = @_;

	return $node->safe_psql($db, $sql, extra_params => [ '-U', $role ]);
}

# Makes a database from another one, in place of the last of its name.
sub copy_of
{
	my ($template, $db) = (@_, 'played');

	$node->safe_psql('postgres', <<SQL);
SET client_min_messages = warning;
DROP DATABASE IF EXISTS $db;
CREATE DATABASE $db TEMPLATE $prefix$template;
ALTER DATABASE $db SET search_path = "\$user", public, mako_migration;
GRANT CREATE ON DATABASE $db TO evil;
SQL
}

# bare has no store, empty no streams, stored the DBA's store, owned that of evil.
make_bases('mako_migration');
{
	# The same with the extension in public, where everybody may create since the store was made.
	local $prefix = 'public_';

	make_bases('public');
	$node->safe_psql("$prefix$_", 'GRANT CREATE ON SCHEMA public TO PUBLIC')
	  for qw(bare empty stored owned);
}

sub make_bases
{
	my ($schema) = @_;

	make_base("${prefix}bare", $schema);
	copy_of('bare', "$prefix$_") for qw(empty stored owned);
	run("$prefix$_", 'postgres', <<'SQL') for qw(empty stored);
SELECT mako_create_store();
GRANT USAGE ON SCHEMA mako TO evil;
GRANT SELECT ON ALL TABLES IN SCHEMA mako TO evil;
SQL
	run("${prefix}stored", 'postgres', definitions('lib') . $data);
	run("${prefix}owned", 'evil', 'SELECT mako_create_store()');
	run("${prefix}owned", 'friend', definitions('lib'));
	run("${prefix}owned", 'evil', $data);
}

# ---- the functions, as the catalog knows them, and their calls

my @functions = map {
	my ($name, $kind, $required, @arguments) = split /\|/;
	my %type = map { split /=/, $_, 2 } @arguments;
	{ name => $name, kind => $kind, required => [ split / /, $required ], type => \%type }
} split /\n/, $node->safe_psql('bare', <<'SQL');
SELECT concat_ws('|', p.proname, p.prokind, COALESCE(a.required, ''), a.types)
FROM pg_proc p
JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
JOIN pg_extension x ON x.oid = d.refobjid AND x.extname = 'mako_migration'
CROSS JOIN LATERAL (
  SELECT string_agg(i.name, ' ' ORDER BY i.place)
           FILTER (WHERE i.place <= p.pronargs - p.pronargdefaults) AS required,
         string_agg(format('%s=%s', i.name, format_type(p.proargtypes[i.place - 1], NULL)), '|'
                    ORDER BY i.place) AS types
  FROM (SELECT u.name, row_number() OVER (ORDER BY u.n) AS place
        FROM ROWS FROM (unnest(p.proargnames), unnest(p.proargmodes))
             WITH ORDINALITY AS u (name, mode, n)
        WHERE COALESCE(u.mode, 'i') IN ('i', 'b', 'v')) AS i) AS a
ORDER BY p.proname COLLATE "C", p.prokind DESC
SQL

cmp_ok(scalar @functions, '>', 70, 'the catalog knows the functions of the extension');
is(join(' ', grep { !$calls{$_} } map { $_->{name} } @functions), '',
  'all of them are called here');
is( join(' ', grep { my $name = $_; !grep { $_->{name} eq $name } @functions } sort keys %calls),
	'', 'and no others');

# A call as a statement; % stands for the extension's schema. Types are named, so that no other
# function fits better.
sub call
{
	my ($function, $given) = @_;

	return $given unless ref $given;
	my %arguments = ((map { $_ => $value{$_} } @{ $function->{required} }), %$given);
	my @unknown = grep { !defined $arguments{$_} || !$function->{type}{$_} } sort keys %arguments;
	fail("$function->{name}(): no value for an argument, or no such argument: @unknown") if @unknown;
	my $list = join ', ', map {
		my $type = $function->{type}{$_} =~ s/^mako_/%.mako_/r;
		"$_ => '" . ($arguments{$_} // '') . "'::$type"
	} sort keys %arguments;
	return ($function->{kind} eq 'p' ? 'CALL ' : 'SELECT * FROM ') . "%.$function->{name}($list)";
}

# Procedures last: they commit.
my @all_calls = sort { $a->{commits} <=> $b->{commits} } map {
	my $function = $_;
	my $commits = $function->{kind} eq 'p' ? 1 : 0;
	map {
		my $writes = !ref($_) && /^(INSERT|UPDATE|DELETE)/ ? 1 : 0;
		{ name => $function->{name}, commits => $commits, writes => $writes,
			statement => call($function, $_) }
	} @{ $calls{ $function->{name} } }
} grep { $_->{kind} ne 'a' } @functions;

# ---- calling, and what comes of it

my $armed = '-c evil.armed=on -c evil.flag=off -c client_min_messages=warning';

# Makes the calls as a superuser: as such, as a member of role evil, or after SET ROLE evil. Returns
# what is seen, by kind of fault, and what has fired and was refused, by function.
sub provoke
{
	my ($how, $writes) = @_;
	local $ENV{PGOPTIONS} = $armed;
	my @waiting = grep {
		($writes || !$_->{writes}) && ($how eq 'superuser' || !$without_store{ $_->{name} })
	} @all_calls;
	my %seen = ((map { $_ => {} } qw(rights left broken fired refused errors hinted)),
		calls => scalar @waiting);

	while (@waiting)
	{
		my ($stdout, $stderr, $current) = ('', '', 0);

		$node->psql('played', script($how, @waiting), stdout => \$stdout,
			stderr => \$stderr, on_error_stop => 0,
			extra_params => [ '-U', $how eq 'member' ? 'friend' : 'postgres' ]);
		for (split /\n/, $stdout)
		{
			$current = $1 if /^CALL (\d+)/;
			$seen{left}{"$waiting[$current]{name}: $1"}++ if /^LEFT\|(.*)/;
		}
		$current = 0;
		for (split /\n/, $stderr)
		{
			my $name = $waiting[$current]{name};

			if (/^CALL (\d+)/) { $current = $1 }
			elsif (/TRAP as evil$/) { $seen{fired}{$name}++ }
			elsif (/TRAP (as .*)/) { $seen{rights}{"$name $1"}++ }
			elsif (/(?:ERROR|FATAL): +(XX000|XX00[^1]|58\w\w\w): (.*)/) { $seen{broken}{"$name $1 $2"}++ }
			elsif (/(?:ERROR|FATAL): +25P02/) { }
			elsif (/(?:ERROR|FATAL): +(\w{5}): (.*)/) { $seen{refused}{$name}{$1} = $seen{errors}{$1} = 1 }
			elsif (/HINT: .*SET ROLE/) { $seen{hinted}{$name} = 1 }
		}
		last unless $stderr =~ /server closed the connection|connection to server was lost/;
		$seen{broken}{"$waiting[$current]{name} crashes the server"}++;
		splice @waiting, 0, $current + 1;
		$node->poll_query_until('postgres', 'SELECT true');
	}
	return \%seen;
}

# The statements of a session that makes these calls.
sub script
{
	my ($how, @calls) = @_;
	# Settings of libraries are there once these are loaded.
	my $script = "\\set QUIET on\n\\set VERBOSITY verbose\nDO 'BEGIN END';\n\\o /dev/null\n"
	  . "SELECT $schema.mako_source_lock('');\nSELECT test.begin();\n\\o\n";
	my ($become, $be) = $how eq 'SET ROLE' ? ("SET ROLE evil;\n", "RESET ROLE;\n") : ('', '');
	my $look = "SELECT 'LEFT', * FROM test.left_behind();\n";

	for my $number (0 .. $#calls)
	{
		my $statement =
		  $calls[$number]{statement} =~ s/%(?=\.|')/$schema/gr =~ s/TENANT/$tenants{$how}/r;
		my $loose = $calls[$number]{commits} || $statement =~ /\\gexec/;

		$statement .= ";" unless $statement =~ /\\gexec/;
		$script .= "\\echo CALL $number\n\\warn CALL $number\n" . ($loose ? '' : "BEGIN;\n") . $become;
		$script .= "\\o /dev/null\n$statement\n";
		$script .= "SET CONSTRAINTS ALL IMMEDIATE;\n" unless $loose;
		$script .= "\\o\n$be$look";
		$script .= "ROLLBACK;\nDEALLOCATE ALL;\n" unless $loose;
		$script .= "DISCARD ALL;\nALTER ROLE evil NOSUPERUSER;\n" if $loose;
	}
	return $script;
}

# Does the trap fire when its maker runs these statements himself?
sub fires
{
	my ($statements) = @_;
	my ($stdout, $stderr);

	local $ENV{PGOPTIONS} = $armed;
	$node->psql('played', $statements, stdout => \$stdout, stderr => \$stderr, on_error_stop => 0,
	  extra_params => [ '-U', 'evil' ]);
	return $stderr =~ /TRAP as evil/ ? 1 : do { diag($stderr); 0 };
}

my @table;    # what fired where, to print
my %usual;    # what is refused where nothing of evil's is

# Plays a kind: how it is made, who calls how, and with which statements its maker shows that it can
# fire.
sub play
{
	my ($who, $kind, $direct, $make, %more) = @_;
	my $name = "$who: $kind->{kind}" . ($kind->{open} ? ', in an open schema' : '');
	local $prefix = $kind->{open} ? 'public_' : '';
	local $schema = $kind->{open} ? 'public' : 'mako_migration';

	$make->();
	for my $how (@{ $more{how} // ['superuser'] })
	{
		my $seen = provoke($how, $more{writes});
		my $fired = keys %{ $seen->{fired} };
		my $refused = grep { !$usual{$_} } keys %{ $seen->{refused} };
		my $unreached = $kind->{harmless} || $who =~ ($kind->{unreached} // 'nobody');

		is(list($seen->{rights}), '', "$name ($how) runs as its owner or not at all");
		is(list($seen->{left}), '', '... and leaves nothing behind');
		is(list($seen->{broken}), '', '... and breaks nothing');
		if ($more{silent}) { is(list($seen->{fired}), '', '... and is not called') }
		else { ok($fired || $refused || $unreached, '... but runs, or is refused') }
		push @table, sprintf '%-75s fired in %2d, refused in %2d of %2d calls: %s', "$name ($how)",
		  $fired, $refused, $seen->{calls},
		  join(' ', sort keys %{ $seen->{errors} });
		$more{then}->($how, $seen) if $more{then};
		$node->safe_psql('postgres', 'ALTER ROLE evil NOSUPERUSER');
	}
	ok(fires($direct), '... and can fire') unless $kind->{harmless};
}

sub list { return join "\n", sort keys %{ $_[0] } }

# The kinds to play, of which every worker has a share; some of them in an open schema, too.
sub kinds
{
	my ($who, @kinds) = @_;

	@kinds = grep { $major >= ($_->{since} // 0) } @kinds;
	push @kinds, map { { %{ $kinds[$_] }, open => 1 } }
	  grep { $_ % 8 == 0 && !$kinds[$_]{open} } 0 .. $#kinds;
	return grep { $turn++ % $workers == $worker }
	  grep { "$who: $_->{kind}" =~ ($ENV{EVIL} || '.') } @kinds;
}

# The statements that make a kind on a table.
sub on_table
{
	my ($statements, $table, $column) = @_;
	my ($name) = $table =~ /(\w+)$/;

	return ($statements // '') =~ s/%T%/$table/gr =~ s/%C%/$column/gr =~ s/%N%/$name/gr;
}

copy_of('stored');
%usual = %{ provoke('superuser', 1)->{refused} };
is( join(' ', sort keys %usual),
	'mako_assert_delegated mako_attach_heads mako_attach_rows mako_attach_store'
	  . ' mako_attached_changed mako_attached_inserted mako_attached_plan mako_attached_table'
	  . ' mako_create_rows mako_detach_rows mako_detach_store'
	  . ' mako_guard mako_history_rows mako_reactivate mako_register_key'
	  . ' mako_reject mako_replace_event mako_retire mako_store_finding_rows',
	'what is refused where nothing of evil\'s is');

# ---- an author

for my $kind (kinds('author', @author_kinds))
{
	my ($refusal, $ignored);

	play(
		'author', $kind,
		q{SELECT evil.apply('{}', 'X', '{"n": 1}'); SELECT evil.migrate('{"n": 1}')},
		sub {
			copy_of('empty');
			run('played', 'evil',
			  ($kind->{ddl} // '') . ';' . ($kind->{functions} // functions_with($kind->{is})));
			$node->psql('played', definitions('evil'), stderr => \$refusal, on_error_stop => 0,
			  extra_params => [ '-U', 'evil' ]);
			$node->psql('played', $data, stderr => \$ignored, on_error_stop => 0);
			run('played', 'evil', $kind->{afterwards}) if $kind->{afterwards};
		},
		writes => 1);
	push @table, '    not registered: ' . ($refusal =~ /ERROR: +(.*)/)[0] if $refusal =~ /ERROR/;
}

# ---- an owner of the store

my %column = (
	(map { $_ => 'stream_no' } qw(stream event snapshot repointed reverted registry correlation)),
	(map { $_ => 'run_id' } qw(migration_run migration_error migration_batch)),
	attached => 'query',
	format_version => 'format_version',
	dependent => 'relation');

# What writes and reads the tables as far as their guards let the owner.
my $use_store = join ";\n",
  "INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('direct', 'w\@$old')",
  'UPDATE mako.registry SET expires_at = NULL',
  'BEGIN; DELETE FROM mako.registry; SET CONSTRAINTS ALL IMMEDIATE; ROLLBACK',
  (map { "SELECT * FROM mako.$_; ANALYZE mako.$_" } sort keys %column);

sub on_store
{
	my ($statements, @tables) = @_;

	@tables = sort keys %column unless @tables;
	return join ";\n", map { on_table($statements, "mako.$_", $column{$_}) } @tables;
}

for my $kind (kinds('store', { kind => 'nothing', harmless => 1 }, @table_kinds, @store_kinds))
{
	play(
		'store', $kind,
		$kind->{direct} ? on_table($kind->{direct}, 'mako.stream', 'stream_no') : $use_store,
		sub {
			copy_of('owned');
			run('played', 'evil', ($kind->{once} // '') . ";\n" . on_store($kind->{ddl},
			  @{ $kind->{only} // [] }));
		},
		how => [ 'superuser', 'member', 'SET ROLE' ],
		then => $kind->{kind} eq 'nothing' ? \&check_door : undef);
}

# Which functions a superuser may call on a store of another role's.
sub check_door
{
	my ($how, $seen) = @_;
	my %by_other_means = map { $_ => 1 } qw(mako_check mako_current_progress mako_create_store
	  mako_grant_triggers mako_assert_delegated mako_history_rows mako_store_finding_rows
	  mako_store_problem mako_store_column mako_store_layout mako_open_schema mako_dependent_problem
	  mako_remembered_relation mako_sequence_problem mako_advance_sequences
	  mako_attach_again mako_attach_heads mako_attach_rows mako_attach_store mako_attached_changed
	  mako_attached_inserted mako_attached_plan mako_attached_problem mako_attached_table
	  mako_create_rows mako_detach_rows mako_detach_store mako_replace_event);
	my %names = map { $_ => 1 } grep { !$without_store{$_} && !$by_other_means{$_} } map { $_->{name} }
	  grep { !$_->{writes} } @all_calls;
	my $is_refused = sub { $seen->{refused}{ $_[0] }{42501} };

	if ($how eq 'superuser')
	{
		is(join(' ', grep { !$is_refused->($_) } sort keys %names), '',
		  '... because no superuser comes through the door as such');
		is(join(' ', grep { !$seen->{hinted}{$_} } sort keys %names), '', '... who is told to SET ROLE');
		my ($rows, $error) = ('', '');
		$node->psql('played', "SELECT * FROM mako_check() WHERE severity = 'error'", stdout => \$rows,
		  stderr => \$error);
		like("$rows\n$error", qr/"?evil"?|SET ROLE/, '... and mako_check() says so');
	}
	elsif ($how eq 'member')
	{
		is(join(' ', grep { $is_refused->($_) } sort keys %names), '',
		  '... and one to whom the owner has granted his role does');
	}
}

for my $kind (kinds('early', @early_kinds))
{
	play(
		'early', $kind,
		$kind->{direct} // $use_store,
		sub {
			copy_of('bare');
			run('played', 'evil', $kind->{ddl});
		},
		how => [ 'superuser', 'member' ]);
}

# Tables of evil's in a store that is none of his.
for my $kind (kinds('tables in the store of another', @table_kinds[ 0, 1 ], $store_kinds[1]))
{
	play(
		'tables in the store of another', $kind, $use_store,
		sub {
			copy_of('stored');
			$node->safe_psql('played', join ';', 'GRANT ALL ON SCHEMA mako TO evil',
			  on_store('ALTER TABLE %T% OWNER TO evil'));
			run('played', 'evil', on_store($kind->{ddl}));
		},
		how => [ 'superuser', 'member' ]);
}
for my $name (qw(correlation dependent format_version migration_batch migration_error registry))
{
	my $ddl = 'CREATE VIEW %T% AS SELECT NULL::text AS %C% WHERE evil.trap()';

	for my $kind (kinds("in the place of $name", { kind => 'view', ddl => $ddl }))
	{
		play(
			"in the place of $name",
			$kind,
			"SELECT * FROM mako.$name",
			sub {
				copy_of('stored');
				run('played', 'postgres', "GRANT ALL ON SCHEMA mako TO evil; DROP TABLE mako.$name CASCADE");
				run('played', 'evil', on_table($kind->{ddl}, "mako.$name", $column{$name}));
			});
	}
}

# ---- an owner of a dependent

my $use_deadline = "BEGIN; INSERT INTO evil.deadline (stream_no, workflow_id) VALUES (9, 'w\@$old');
  UPDATE evil.deadline SET workflow_id = 'w\@$new' WHERE stream_no = 9;
    DELETE FROM evil.deadline WHERE stream_no = 9;
  SET CONSTRAINTS ALL IMMEDIATE; ROLLBACK; SELECT * FROM evil.deadline; ANALYZE evil.deadline";

for my $kind (kinds('dependent', @table_kinds, @dependent_kinds))
{
	play(
		'dependent', $kind,
		on_table($kind->{direct} // $use_deadline, 'evil.deadline', 'workflow_id'),
		sub {
			copy_of('stored');
			run('played', 'evil',
				'INSERT INTO evil.deadline SELECT stream_no, process_id, workflow_id FROM mako.stream');
			run('played', 'postgres',
				"SELECT mako_add_dependent('evil.deadline', 'stream_no', 'workflow_id')");
			run('played', 'evil',
				($kind->{once} // '') . ";\n" . on_table($kind->{ddl}, 'evil.deadline', 'workflow_id'));
		},
		writes => 1);
}

# Whose a dependent is when it is added, and afterwards.
sub check_owner_of_dependent
{
	my $add_other = "SELECT mako_add_dependent('lib.other', 'stream_no', 'workflow_id')";

	copy_of('owned');
	like(error_of($node, 'played', $add_other, '-U', 'evil'),
		qr/^42501/, 'a dependent is added by those who have the privileges of its owner');
	copy_of('stored');
	run('played', 'postgres', <<SQL);
$add_other;
INSERT INTO lib.other SELECT stream_no, process_id, workflow_id FROM mako.stream;
SQL
	is( run('played', 'postgres', <<SQL), '0', 'a dependent of another role\'s follows');
BEGIN;
DO \$\$ BEGIN PERFORM mako_migrate('w\@$old', 'w\@$new'); END \$\$;
SELECT count(*) FROM lib.other WHERE workflow_id = 'w\@$old';
ROLLBACK;
SQL
	run('played', 'postgres', 'GRANT ALL ON SCHEMA lib TO evil; ALTER TABLE lib.other OWNER TO evil');
	run('played', 'evil',
		'CREATE TRIGGER aaa BEFORE UPDATE ON lib.other FOR EACH ROW EXECUTE FUNCTION evil.fire()');
	{
		local $ENV{PGOPTIONS} = $armed;
		my ($migrated, $stderr) = ('', '');

		$node->psql('played', "SELECT migrated FROM mako_migrate('w\@$old', 'w\@$new')",
			stdout => \$migrated, stderr => \$stderr);
		unlike($stderr, qr/TRAP/, 'what a new owner has made of a dependent is not run');
		like("$migrated$stderr", qr/^0|ERROR/, '... and no stream is moved past it');
	}
	$node->safe_psql('postgres', 'ALTER ROLE evil NOSUPERUSER');
}

check_owner_of_dependent() if $worker == 0;

# A repair evaluates what the owner has put into his indexes, whoever calls it.
sub check_repair
{
	my $stderr = '';

	copy_of('owned');
	run('played', 'evil', <<'SQL');
CREATE INDEX ON mako.registry ((1)) WHERE evil.yes(1);
CREATE INDEX ON mako.stream ((1)) WHERE evil.yes(1);
ALTER TABLE mako.registry DROP CONSTRAINT registry_tenant_id_stream_no_fkey;
SQL
	{
		local $ENV{PGOPTIONS} = $armed;

		$node->psql('played', 'SET ROLE evil; SELECT mako_create_store()',
			stderr => \$stderr, on_error_stop => 0, extra_params => [ '-U', 'friend' ]);
	}
	like($stderr, qr/TRAP as evil$/m, 'what the owner has put into indexes runs when a friend repairs the store');
	unlike($stderr, qr/TRAP as (?!evil$)/m, '... as its owner only');
	is($node->safe_psql('postgres', "SELECT rolsuper FROM pg_roles WHERE rolname = 'evil'"),
		'f', '... who becomes nothing else');
	is($node->safe_psql('played', 'SELECT count(*) FROM mako_store_problem()'),
		'0', '... and the store is whole');
	$node->safe_psql('postgres', 'ALTER ROLE evil NOSUPERUSER');
}

check_repair() if $worker == 1;

# ---- an owner of a sink

# What an author's function may evaluate, in the statement and in undo: all of it with MAKO_SOAK,
# otherwise every fourth; and what an owner's table does when a sink writes to it.
my @expressions = grep { $_->{is} && !$_->{harmless} } @author_kinds;
@expressions = @expressions[ grep { $_ % 4 == 0 } 0 .. $#expressions ] unless $ENV{MAKO_SOAK};

for my $kind (kinds('sink', @expressions))
{
	my $is = $kind->{is} =~ s/%DOC%/state/gr;
	my $direct = $kind->{is} =~ s/%DOC%/'{"n": 1}'::jsonb/gr;

	play(
		'sink', $kind,
		"SELECT $direct",
		sub {
			my $ignored;

			copy_of('stored');
			run('played', 'evil', $kind->{ddl} // '');
			$node->psql('played', <<SQL, stderr => \$ignored, on_error_stop => 0, extra_params => [ '-U', 'evil' ]);
SELECT mako_add_sink(\$s\$SELECT $is FROM moved\$s\$, \$s\$SELECT $is FROM moved\$s\$, \$s\$SELECT evil.trap()\$s\$)
SQL
			run('played', 'evil', $kind->{afterwards}) if $kind->{afterwards};
		},
		writes => 1);
}

for my $kind (kinds('written by a sink', @table_kinds, @dependent_kinds))
{
	play(
		'written by a sink', $kind,
		on_table($kind->{direct} // $use_deadline, 'evil.deadline', 'workflow_id'),
		sub {
			copy_of('stored');
			run('played', 'evil', <<'SQL');
INSERT INTO evil.deadline SELECT stream_no, process_id, workflow_id FROM mako.stream;
SELECT mako_add_sink(
  'WITH i AS (INSERT INTO evil.deadline (stream_no, workflow_id) SELECT run_id, target_wf FROM moved)
   UPDATE evil.deadline d SET workflow_id = m.target_wf FROM moved m WHERE d.workflow_id = m.source_wf',
  'DELETE FROM evil.deadline d USING moved m WHERE d.workflow_id = m.target_wf')
SQL
			run('played', 'evil',
				($kind->{once} // '') . ";\n" . on_table($kind->{ddl}, 'evil.deadline', 'workflow_id'));
		},
		writes => 1);
}

# ---- one who may create in the extension's schema

for my $kind (kinds('neighbour', map { { %$_, open => 1 } } @neighbour_kinds))
{
	my $direct = "SET search_path = public, pg_catalog; $kind->{direct}";
	my %how = (writes => 1, silent => 1);
	my $make = sub {
		copy_of($kind->{early} ? 'bare' : 'stored');
		run('played', 'evil', $kind->{ddl});
	};
	# The DBA may make a store once nobody else may create in the schema.
	my $make_store = sub {
		$node->psql('played', <<SQL, on_error_stop => 0);
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
SELECT mako_create_store();
@{[ definitions('lib') ]}
$data
GRANT CREATE ON SCHEMA public TO PUBLIC;
SQL
	};

	play('neighbour' . ($kind->{early} ? ' without a store' : ''), $kind, $direct, $make, %how);
	play('neighbour', $kind, $direct, $make_store, %how) if $kind->{early};
}

# ---- the server

is($node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()'), $started,
  'the server has not been started again');
unlike(slurp_file($node->logfile), qr/terminated by signal|TRAP: /,
  '... and no process of it has crashed');
note($_) for @table;
$node->stop;
done_testing();
