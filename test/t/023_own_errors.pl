# Errors of the classes that end a run do so where the server has raised them, and not where a function chose the code.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MakoTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes;

my $node = new_server('own_errors');
$node->append_conf('postgresql.conf', 'client_min_messages = warning');
$node->reload;
my @codes = qw(40001 40P01 53200 53400 57014 57P01 58030 58P01);

$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION mako_migration;
CREATE EXTENSION dblink;
CREATE EXTENSION postgres_fdw;
SELECT mako_create_store();
CREATE SCHEMA lib;
CREATE FUNCTION lib.raise(code text) RETURNS boolean LANGUAGE plpgsql STABLE PARALLEL SAFE AS
  $$ BEGIN RAISE EXCEPTION 'a function says %', code USING ERRCODE = code; END $$;
CREATE TABLE lib.one AS SELECT 1 AS one;
CREATE VIEW lib.raising AS SELECT lib.raise('57014') AS answer;
CREATE SERVER self FOREIGN DATA WRAPPER postgres_fdw;
CREATE USER MAPPING FOR CURRENT_USER SERVER self;
CREATE FOREIGN TABLE lib.far (answer boolean) SERVER self OPTIONS (schema_name 'lib', table_name 'raising');
-- What an event's type says, with what its payload says.
CREATE FUNCTION lib.apply(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
  CASE event_type
    WHEN 'Fine' THEN RETURN payload;
    WHEN 'Raise' THEN PERFORM lib.raise(payload->>0);
    WHEN 'RaiseInWorker' THEN PERFORM lib.raise(payload->>0) FROM lib.one;
    WHEN 'RaiseOverDblink' THEN PERFORM dblink('dbname=postgres', format('SELECT lib.raise(%L)::text', payload->>0));
    WHEN 'RaiseOverForeignTable' THEN PERFORM answer FROM lib.far;
    WHEN 'CatchAndFail' THEN
      BEGIN
        PERFORM pg_read_file('no such file');
      EXCEPTION WHEN undefined_file THEN
        RAISE EXCEPTION 'something else' USING ERRCODE = '58P01';
      END;
    WHEN 'Sort' THEN PERFORM i FROM generate_series(1, 200000) AS i ORDER BY -i;
    WHEN 'Read' THEN PERFORM pg_read_file('no such file');
    WHEN 'Sleep' THEN PERFORM pg_sleep(60);
    WHEN 'SleepAndQuote' THEN
      BEGIN
        PERFORM pg_sleep(60);
      EXCEPTION WHEN query_canceled THEN
        RAISE EXCEPTION 'a function was told: %', SQLERRM;
      END;
    WHEN 'SleepAndRaise' THEN
      BEGIN
        PERFORM pg_sleep(60);
      EXCEPTION WHEN query_canceled THEN
        RAISE;
      END;
  END CASE;
  RETURN state;
END $$;
CREATE FUNCTION lib.migrate(state jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE AS
  $$ BEGIN IF state ? 'migrate' THEN PERFORM lib.raise(state->>'migrate'); END IF; RETURN state; END $$;
CREATE TABLE lib.follower (stream_id text, workflow_id text, code text);
CREATE FUNCTION lib.follow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM lib.raise(new.code);
  RETURN new;
END $$;
CREATE TRIGGER follow BEFORE UPDATE ON lib.follower FOR EACH ROW WHEN (new.code IS NOT NULL) EXECUTE FUNCTION lib.follow();
SELECT mako_add_dependent('lib.follower', 'stream_id', 'workflow_id');
SQL

# A workflow with a good stream, and with one for each of these events, which are in SQL: type, payload. Its source and target.
sub workflow
{
	my ($name, @events) = @_;
	my ($old, $new) = map { "$name\@$_" } qw(FV2024-10-01 FV2025-10-01);
	my $number = 0;

	$node->safe_psql('postgres', join ';', "SELECT mako_register_workflow('$_', apply => 'lib.apply', initial_state => '{}')") for $old, $new;
	$node->safe_psql('postgres', "SELECT mako_register_migration('$old', '$new', migrate => 'lib.migrate')");
	$node->safe_psql('postgres', join ';', map { $number++; "INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('$name $number', '$old');"
		. "SELECT mako_append('$name $number', '$old', $_)" } "'Fine', '{}'", @events);
	return "'$old', '$new'";
}

sub failures
{
	my ($name) = @_;

	return $node->safe_psql('postgres', "SELECT string_agg(phase || ' ' || sqlstate, ',' ORDER BY error_no) FROM mako.migration_error WHERE stream_id LIKE '$name %'");
}

# ---- chosen by a function: the streams fail

my $all = join ',', @codes;
my $count = @codes;
my $pair = workflow('raise', map { "'Raise', '[\"$_\"]'" } @codes);

is($node->safe_psql('postgres', "SELECT count(*), count(new_state) FROM mako_dry_run($pair)"), (1 + $count) . '|1', 'a dry run goes on');
is($node->safe_psql('postgres', "SELECT count(*) > 0 FROM mako_check()"), 't', '... as does a check');
is($node->safe_psql('postgres', "SELECT migrated, failed FROM mako_migrate($pair)"), "1|$count", '... and a run');
is(failures('raise'), join(',', map { "apply $_" } @codes), '... which tells the codes');
like($node->safe_psql('postgres', "SELECT count(problem) FROM mako_verify(1)"), qr/^\d+$/, '... and its proof');

$pair = workflow('batched', map { "'Raise', '[\"$_\"]'" } @codes);
$node->safe_psql('postgres', "CALL mako_migrate_batched($pair, batch_size => 2)");
is(failures('batched'), join(',', map { "apply $_" } @codes), 'a batched run goes on');

$pair = workflow('step', map { "'Fine', '{\"migrate\": \"$_\"}'" } @codes);
is($node->safe_psql('postgres', "SELECT migrated, failed FROM mako_migrate($pair)"), "1|$count", 'codes of migrate');
is(failures('step'), join(',', map { "migrate $_" } @codes), '... are told');

$pair = workflow('far', map { "'RaiseOverDblink', '[\"$_\"]'" } @codes);
is($node->safe_psql('postgres', "SELECT migrated, failed FROM mako_migrate($pair)"), "1|$count", 'codes that another server sends');
is(failures('far'), join(',', map { "apply $_" } @codes), '... are told');

$pair = workflow('foreign', "'RaiseOverForeignTable', '{}'");
is($node->safe_psql('postgres', "SELECT migrated, failed FROM mako_migrate($pair)"), '1|1', '... also for a foreign table');
is(failures('foreign'), 'apply 57014', '... are told');

$pair = workflow('worker', "'RaiseInWorker', '[\"57014\"]'");
my $parallel = $node->pg_version >= 16 ? 'debug_parallel_query' : 'force_parallel_mode';
is($node->safe_psql('postgres', "SET $parallel = on; SELECT migrated, failed FROM mako_migrate($pair)"), '1|1', '... and from a parallel worker');
like($node->safe_psql('postgres', "SELECT context FROM mako.migration_error WHERE stream_id LIKE 'worker %'"), qr/parallel worker/, '... where it was raised');

$pair = workflow('trigger', map { "'Fine', '{}'" } @codes);
$node->safe_psql('postgres', "INSERT INTO lib.follower SELECT 'trigger ' || n + 1, split_part(\$\$$pair\$\$, '''', 2), code FROM unnest('{$all}'::text[]) WITH ORDINALITY AS c (code, n)");
is($node->safe_psql('postgres', "SELECT migrated, failed FROM mako_migrate($pair)"), "1|$count", 'codes of a trigger on a dependent');
is(failures('trigger'), join(',', map { "registry $_" } @codes), '... are told');

$pair = workflow('other', "'CatchAndFail', '{}'");
is($node->safe_psql('postgres', "SELECT migrated, failed FROM mako_migrate($pair)"), '1|1', 'an error that was caught does not count');

# ---- raised by the server: the run ends

$pair = workflow('sort', "'Sort', '{}'");
like(error_of($node, 'postgres', "SET temp_file_limit = '1MB'; SET work_mem = '64kB'; SELECT mako_migrate($pair)"), qr/^53400/, 'no room for temporary files');
$pair = workflow('read', "'Read', '{}'");
like(error_of($node, 'postgres', "SELECT mako_migrate($pair)"), qr/^58P01/, 'a file that cannot be read');

# Functions in some languages raise what a statement of theirs says as their own error.
sub cancelled
{
	my ($what, $pair) = @_;
	my $since = Time::HiRes::time();

	like(error_of($node, 'postgres', "SET statement_timeout = 300; SELECT mako_migrate($pair)"), qr/^57014: .*canceling statement due to statement timeout/,
		"a timeout $what");
	cmp_ok(Time::HiRes::time() - $since, '<', 10, '... at once');
}
cancelled('inside of a function', workflow('sleep', "'Sleep', '{}'"));
cancelled('that a function raises again', workflow('again', "'SleepAndRaise', '{}'"));
cancelled('that a function quotes', workflow('quoted', "'SleepAndQuote', '{}'"));

my %languages = (
	plperlu => q{spi_exec_query('SELECT pg_sleep(60)')},
	plpython3u => q{plpy.execute('SELECT pg_sleep(60)')},
	pltclu => q{spi_exec {SELECT pg_sleep(60)}},
);
foreach my $language (sort keys %languages)
{
  SKIP:
	{
		skip "no $language", 2 unless $node->safe_psql('postgres', "SELECT count(*) FROM pg_available_extensions WHERE name = '$language'");
		$node->safe_psql('postgres', "CREATE EXTENSION $language; CREATE FUNCTION lib.$language(state jsonb) RETURNS jsonb LANGUAGE $language STABLE AS \$\$ $languages{$language} \$\$");
		my $pair = workflow($language);

		$node->safe_psql('postgres', "SELECT mako_register_migration($pair, migrate => 'lib.$language', replace => true)");
		cancelled("inside of a function in $language", $pair);
	}
}

$node->stop;
done_testing();
