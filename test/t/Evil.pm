# What those can make who are no superusers and wish to be, and who plays it: for 021_evil.pl and
# 044_evil_attached.pl.
#
# Everything that can run code of its maker is here once, as a kind. All of them end in evil.trap(),
# which tells as whom it runs and tries to
# get and to leave behind what it can. A kind that only a superuser can make (operator class, event
# trigger, text search template,
# conversion, support function, base type with functions) is none of these.
package Evil;

use strict;
use warnings;

use Exporter 'import';
use File::Path qw(rmtree);
use File::Temp qw(tempdir);
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw($trap functions_with @author_kinds @table_kinds @store_kinds @early_kinds
  @dependent_kinds @neighbour_kinds share_out tablespace_in_memory);

# Becomes a number of processes, each of which goes on with its own number. The one that was there
# repeats what they say, and ends.
sub share_out
{
	my ($workers, $file) = @_;
	my %number;

	for my $number (0 .. $workers - 1)
	{
		my $process = fork // die "cannot fork: $!";

		$number{$process} = $number;
		next if $process;
		open my $said, '>', "$file.$number" or die "$file.$number: $!";
		Test::More->builder->$_($said) for qw(output failure_output todo_output);
		srand($$);
		return $number;
	}
	waitpid $_, 0 for keys %number;
	repeat(split /\n/, slurp_file("$file.$_")) for 0 .. $workers - 1;
	done_testing();
	exit;
}

# Says again what a worker has said.
sub repeat
{
	my ($passed, $ended) = (1, 0);

	for (@_)
	{
		if (/^(not )?ok \d+(?: - (.*))?/) { $passed = ok(!$1, $2) }
		elsif (/^1\.\.\d/) { $ended = 1 }
		elsif (/^# Looks like/) { next }
		elsif (/^# ?(.*)/) { $passed ? note($1) : diag($1) }
	}
	ok($ended, 'the worker has come to its end');
}

# What is in memory, and the server that uses it.
my ($memory, $server) = ('');

# The tablespace for databases that are copied hundreds of times, which takes a third of the time on
# a disk: in memory where there is room. It goes whatever happens.
sub tablespace_in_memory
{
	my ($free) = qx(df -Pk /dev/shm 2>/dev/null) =~ /(\d+) +\d+% +\S+$/;

	($server) = @_;
	return 'pg_default' if ($free // 0) <= 500_000;
	$memory = tempdir('mako_evil_XXXXXX', DIR => '/dev/shm');
	$server->safe_psql('postgres', "CREATE TABLESPACE memory LOCATION '$memory'");
	return 'memory';
}

END
{
	my $status = $?;

	if ($memory)
	{
		$server->stop('immediate', fail_ok => 1);
		rmtree($memory);
	}
	$? = $status;
}

# The schema "evil", made by role evil in it. What is armed by the setting evil.armed fires; before,
# it is a store and functions like others.
our $trap = <<'SQL';
CREATE FUNCTION evil.trap() RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  me  pg_catalog.name := current_user;
  try pg_catalog.text;
BEGIN
  IF pg_catalog.current_setting('evil.armed', true) OPERATOR(pg_catalog.=) 'on' THEN
    RAISE WARNING 'TRAP as %', me;
    FOREACH try IN ARRAY ARRAY['RESET ROLE', 'SET SESSION AUTHORIZATION DEFAULT',
        'SET ROLE postgres', 'SET SESSION AUTHORIZATION postgres', 'ALTER ROLE evil SUPERUSER',
        'SET session_replication_role = replica', 'CREATE TEMPORARY TABLE left_behind ()',
        'PREPARE left_behind AS SELECT 1', 'LISTEN left_behind',
        'DECLARE left_behind CURSOR WITH HOLD FOR SELECT 1'] LOOP
      BEGIN
        EXECUTE try;
        IF current_user OPERATOR(pg_catalog.<>) me THEN
          RAISE WARNING 'TRAP as % by %', current_user, try;
          me := current_user;
        END IF;
      EXCEPTION WHEN OTHERS THEN
        -- All the others are refused there, too.
        EXIT WHEN pg_catalog.strpos(SQLERRM, 'within security-restricted operation')
                  OPERATOR(pg_catalog.>) 0 AND me OPERATOR(pg_catalog.=) 'evil';
      END;
    END LOOP;
    PERFORM pg_catalog.set_config(s.name, s.value, false)
    FROM (VALUES ('search_path', 'pg_catalog, evil'), ('TimeZone', 'Asia/Tokyo'),
                 ('DateStyle', 'German'), ('row_security', 'off'), ('statement_timeout', '1h'),
                 ('mako_migration.native_evaluation', 'off'), ('evil.flag', 'on'))
         AS s (name, value);
  END IF;
  RETURN true;
END $$;
-- The same where only other volatilities are called: it lies.
CREATE FUNCTION evil.constant(anyelement) RETURNS anyelement LANGUAGE plpgsql IMMUTABLE AS $$
  BEGIN PERFORM evil.trap(); RETURN $1; END $$;
CREATE FUNCTION evil.stable(anyelement) RETURNS anyelement LANGUAGE plpgsql STABLE AS $$
  BEGIN PERFORM evil.trap(); RETURN $1; END $$;
CREATE FUNCTION evil.yes(anyelement) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
  BEGIN RETURN evil.trap(); END $$;
CREATE FUNCTION evil.fire() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.trap();
  RETURN COALESCE(NEW, OLD); END $$;

CREATE DOMAIN evil.trapped AS integer CHECK (evil.yes(VALUE));
CREATE DOMAIN evil.trapped_twice AS evil.trapped;
CREATE DOMAIN evil.trapped_list AS integer[] CHECK (evil.yes(VALUE));
CREATE DOMAIN evil.defaulted AS boolean DEFAULT evil.trap();
CREATE TYPE evil.pair AS (a evil.trapped, b text);
CREATE TYPE evil.nested AS (p evil.pair);
CREATE TYPE evil.plain AS (a integer, b text);
CREATE DOMAIN evil.trapped_pair AS evil.plain CHECK (evil.yes(VALUE));
CREATE FUNCTION evil.distance(integer, integer) RETURNS double precision LANGUAGE plpgsql
  IMMUTABLE AS
  $$ BEGIN PERFORM evil.trap(); RETURN $1 - $2; END $$;
CREATE TYPE evil.measured AS RANGE (SUBTYPE = integer, SUBTYPE_DIFF = evil.distance);
CREATE TYPE evil.span AS RANGE (SUBTYPE = evil.trapped);
CREATE TYPE evil.mood AS ENUM ('good', 'bad');
CREATE DOMAIN evil.trapped_mood AS evil.mood CHECK (evil.yes(VALUE));
CREATE FUNCTION evil.same(integer, integer) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
  BEGIN RETURN evil.trap() AND $1 = $2; END $$;
CREATE OPERATOR evil.=== (LEFTARG = integer, RIGHTARG = integer, FUNCTION = evil.same,
  COMMUTATOR = OPERATOR(evil.===), RESTRICT = eqsel, JOIN = eqjoinsel);
CREATE FUNCTION evil.sure(integer) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
  BEGIN RETURN evil.trap(); END $$;
CREATE OPERATOR evil.@@@ (RIGHTARG = integer, FUNCTION = evil.sure);
CREATE FUNCTION evil.add(integer, integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS $$
  BEGIN PERFORM evil.trap(); RETURN $2; END $$;
CREATE TABLE evil.deadline (stream_no bigint, process_id uuid, workflow_id text);
CREATE INDEX ON evil.deadline (stream_no);
CREATE VIEW evil.watched AS SELECT evil.trap() AS trap;
SQL

# The functions of a workflow, of which each evaluates an expression; %DOC% in it is a jsonb value.
sub functions_with
{
	my ($expression) = @_;
	my $state = $expression =~ s/%DOC%/state/gr;
	my $payload = $expression =~ s/%DOC%/payload/gr;

	return <<"SQL";
CREATE FUNCTION evil.apply(state jsonb, event_type text, payload jsonb) RETURNS jsonb
  LANGUAGE sql STABLE AS
  \$f\$ SELECT CASE WHEN ($payload) IS NULL THEN state ELSE state || payload END \$f\$;
CREATE FUNCTION evil.upcast(event_type text, schema_version integer, payload jsonb)
  RETURNS jsonb LANGUAGE sql STABLE AS
  \$f\$ SELECT CASE WHEN ($payload) IS NULL THEN payload ELSE payload || '{"up": 1}' END \$f\$;
CREATE FUNCTION evil.in_flight(state jsonb) RETURNS boolean LANGUAGE sql STABLE AS
  \$f\$ SELECT CASE WHEN ($state) IS NULL THEN true ELSE state IS NOT NULL END \$f\$;
CREATE FUNCTION evil.migrate(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS
  \$f\$ SELECT CASE WHEN ($state) IS NULL THEN state ELSE state || '{"moved": 1}' END \$f\$;
SQL
}

# ---- what an author can put into his functions: an expression, and what it needs; or functions of
# another form

our @author_kinds = (
	# functions
	{ kind => 'helper', is => 'evil.stable(1)' },
	{ kind => 'volatile helper', is => 'evil.trap()' },
	{ kind => 'immutable helper of a constant', is => 'evil.constant(1)' },
	{
		kind => 'SQL helper',
		ddl => 'CREATE FUNCTION evil.help(integer) RETURNS integer LANGUAGE sql IMMUTABLE AS $$
		  SELECT evil.constant($1) $$',
		is => 'evil.help(1)'
	},
	{
		kind => 'SQL helper with BEGIN ATOMIC',
		ddl => 'CREATE FUNCTION evil.help(integer) RETURNS integer LANGUAGE sql STABLE BEGIN ATOMIC
		  SELECT evil.constant(1); END',
		is => 'evil.help(1)'
	},
	{
		kind => 'default of an argument',
		ddl => 'CREATE FUNCTION evil.help(a integer DEFAULT evil.constant(1)) RETURNS integer
		  LANGUAGE sql IMMUTABLE AS $$ SELECT a $$',
		is => 'evil.help()'
	},
	{
		kind => 'polymorphic helper',
		ddl => q{CREATE FUNCTION evil.help(anyelement) RETURNS anyelement LANGUAGE sql STABLE AS
		  $$ SELECT CASE WHEN '{1}'::evil.trapped[] IS NULL THEN $1 ELSE $1 END $$},
		is => 'evil.help(1)'
	},
	{
		kind => 'variadic helper',
		ddl => 'CREATE FUNCTION evil.help(VARIADIC integer[]) RETURNS boolean LANGUAGE plpgsql
		  STABLE AS $$ BEGIN RETURN evil.trap(); END $$',
		is => 'evil.help(1, 2)'
	},
	{
		kind => 'set-returning helper',
		ddl => 'CREATE FUNCTION evil.help() RETURNS SETOF boolean LANGUAGE sql STABLE AS $$
		  SELECT evil.stable(true) $$',
		is => '(SELECT count(h) FROM evil.help() AS h)'
	},
	{
		kind => 'helper with settings',
		ddl => 'CREATE FUNCTION evil.help() RETURNS boolean LANGUAGE sql STABLE SET search_path = evil
		  SET work_mem = "1MB" AS $$ SELECT 1 === 1 $$',
		is => 'evil.help()'
	},
	{
		kind => 'helper that is SECURITY DEFINER',
		ddl => 'CREATE FUNCTION evil.help() RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER
		  AS $$ SELECT evil.stable(true) $$',
		is => 'evil.help()'
	},
	{
		kind => 'helper that returns a domain',
		ddl => 'CREATE FUNCTION evil.help() RETURNS evil.trapped LANGUAGE sql STABLE AS $$ SELECT 1 $$',
		is => 'evil.help()'
	},
	{
		kind => 'helper that takes a domain',
		ddl => 'CREATE FUNCTION evil.help(evil.trapped) RETURNS integer LANGUAGE sql STABLE AS $$
		  SELECT $1::integer $$',
		is => q{evil.help('1')}
	},
	{
		kind => 'helper that writes',
		ddl => q{CREATE TABLE evil.written (a integer);
		  CREATE TRIGGER fire BEFORE INSERT ON evil.written FOR EACH ROW EXECUTE FUNCTION evil.fire();
		  CREATE FUNCTION evil.help() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
		    INSERT INTO evil.written VALUES (1); END $$},
		is => 'evil.help()'
	},
	{
		kind => 'procedure',
		ddl => q{CREATE PROCEDURE evil.proceed() LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.trap(); END $$;
		  CREATE FUNCTION evil.help() RETURNS void LANGUAGE plpgsql AS $$ BEGIN CALL evil.proceed();
		    END $$},
		is => 'evil.help()'
	},
	{
		kind => 'dynamic SQL',
		ddl => q{CREATE FUNCTION evil.help() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
		  EXECUTE 'DO $d$ BEGIN PERFORM evil.trap(); END $d$'; END $$},
		is => 'evil.help()'
	},
	{
		kind => 'window',
		ddl => 'CREATE AGGREGATE evil.gather(integer) (SFUNC = evil.add, STYPE = integer,
		  MSFUNC = evil.add, MINVFUNC = evil.add, MSTYPE = integer)',
		is => '(SELECT sum(g) FROM (SELECT evil.gather(n) OVER (ORDER BY n ROWS BETWEEN 1 PRECEDING
		  AND CURRENT ROW) FROM generate_series(1, 3) AS n) AS s (g))'
	},

	# literals and values of types
	{ kind => 'literal of a domain', is => q{evil.trapped '1'} },
	{ kind => 'literal of an array', is => q{'{1}'::evil.trapped[]} },
	{ kind => 'literal of a row', is => q{'(1,b)'::evil.pair} },
	{ kind => 'literal of a row in a row', is => q{'("(1,b)")'::evil.nested} },
	{ kind => 'literal of an array of rows', is => q{'{"(1,b)"}'::evil.pair[]} },
	{ kind => 'literal of a range', is => q{'[1,2)'::evil.span} },
	{ kind => 'literal of a multirange', is => q{'{[1,2)}'::evil.span_multirange} },
	{ kind => 'literal of a domain over an array', is => q{'{1}'::evil.trapped_list} },
	{ kind => 'literal of a domain over a row', is => q{'(1,b)'::evil.trapped_pair} },
	{ kind => 'literal of a domain over a domain', is => q{'1'::evil.trapped_twice} },
	{ kind => 'literal of a domain over an enum', is => q{'good'::evil.trapped_mood} },
	{ kind => 'value as a domain', is => q{(%DOC%->>'n')::integer::evil.trapped} },
	{ kind => 'text as a domain', is => q{(%DOC%->>'n')::evil.trapped} },
	{
		kind => 'row as a composite type',
		is => q{ROW((%DOC%->>'n')::integer, %DOC%->>'b')::evil.pair}
	},
	{ kind => 'array as another', is => q{ARRAY[(%DOC%->>'n')::integer]::evil.trapped[]} },

	# functions of the server that run what others wrote
	{ kind => 'jsonb_populate_record', is => q{jsonb_populate_record(NULL::evil.pair, '{"a": 1}')} },
	{
		kind => 'jsonb_populate_recordset',
		is => q{(SELECT count(a) FROM jsonb_populate_recordset(NULL::evil.pair, '[{"a": 1}]'))}
	},
	{
		kind => 'jsonb_to_record',
		is => q{(SELECT a FROM jsonb_to_record('{"a": 1}') AS r (a evil.trapped))}
	},
	{ kind => 'record_in', is => q{record_in('(1,b)', 'evil.pair'::regtype::oid, -1)} },
	{ kind => 'array_in', is => q{array_in('{1}', 'evil.trapped'::regtype::oid, -1)} },
	{ kind => 'domain_in', is => q{domain_in('1', 'evil.trapped'::regtype::oid, -1)} },
	{ kind => 'range_in', is => q{range_in('[1,2)', 'evil.span'::regtype::oid, -1)} },
	{ kind => 'pg_input_is_valid', is => q{pg_input_is_valid('1', 'evil.trapped')}, since => 16 },
	{
		kind => 'pg_input_error_info',
		is => q{(SELECT count(*) FROM pg_input_error_info('1', 'evil.trapped'))},
		since => 16
	},
	{ kind => 'table_to_xml', is => q{table_to_xml('evil.watched', true, false, '')} },
	{ kind => 'query_to_xml', is => q{query_to_xml('SELECT evil.trap()', true, false, '')} },
	{ kind => 'schema_to_xml', is => q{schema_to_xml('evil', true, false, '')} },
	{
		kind => 'xmltable',
		is => q{(SELECT a FROM XMLTABLE('/r' PASSING '<r>1</r>' COLUMNS a evil.trapped PATH '.'))}
	},
	{
		kind => 'ts_stat',
		is => q{(SELECT count(*) FROM ts_stat('SELECT CASE WHEN evil.trap() THEN ''a''::tsvector END'))}
	},
	{
		kind => 'ts_rewrite',
		is => q{ts_rewrite('a'::tsquery, 'SELECT ''a''::tsquery, ''b''::tsquery WHERE evil.trap()')}
	},
	{ kind => 'JSON_VALUE', is => q{JSON_VALUE(jsonb '1', '$' RETURNING evil.trapped)}, since => 17 },
	{
		kind => 'JSON_TABLE',
		is => q{(SELECT a FROM JSON_TABLE(jsonb '[1]', '$[*]' COLUMNS (a evil.trapped PATH '$')))},
		since => 17
	},

	# casts
	(
		map {
			{
				kind => $_->[0],
				ddl => 'CREATE FUNCTION evil.to_json(evil.mood) RETURNS json LANGUAGE plpgsql STABLE AS $$
				  BEGIN PERFORM evil.trap(); RETURN 1; END $$;
		  CREATE CAST (evil.mood AS json) WITH FUNCTION evil.to_json(evil.mood)',
				is => $_->[1],
				since => $_->[2]
			}
		}[ 'cast to json by to_jsonb', q{to_jsonb('good'::evil.mood)} ],
		[ 'cast to json by jsonb_build_array', q{jsonb_build_array('good'::evil.mood)} ],
		[ 'cast to json by to_json of an array', q{to_json(ARRAY['good'::evil.mood])} ],
		[ 'cast to json by row_to_json', q{row_to_json(ROW('good'::evil.mood))} ],
		[ 'cast to json by jsonb_agg', q{(SELECT jsonb_agg('good'::evil.mood))} ],
		[ 'cast to json by JSON_OBJECT', q{JSON_OBJECT('a': 'good'::evil.mood)}, 16 ]
	),
	{
		kind => 'implicit cast to text',
		ddl => q{CREATE FUNCTION evil.to_text(evil.mood) RETURNS text LANGUAGE plpgsql STABLE AS $$
		  BEGIN PERFORM evil.trap(); RETURN 'x'; END $$;
		  CREATE CAST (evil.mood AS text) WITH FUNCTION evil.to_text(evil.mood) AS IMPLICIT},
		is => q{upper('good'::evil.mood)}
	},
	{
		kind => 'cast of jsonb',
		ddl => q{CREATE FUNCTION evil.to_plain(jsonb) RETURNS evil.plain LANGUAGE plpgsql
		  STABLE AS $$ BEGIN PERFORM evil.trap(); RETURN (1, 'b'); END $$;
		  CREATE CAST (jsonb AS evil.plain) WITH FUNCTION evil.to_plain(jsonb)},
		is => q{%DOC%::evil.plain}
	},
	{
		kind => 'cast by input and output',
		ddl => 'CREATE CAST (evil.plain AS evil.pair) WITH INOUT',
		is => q{ROW(1, %DOC%->>'n')::evil.plain::evil.pair}
	},

	# operators and aggregates
	{ kind => 'operator', is => q{(%DOC%->>'n')::integer OPERATOR(evil.===) 1} },
	{ kind => 'prefix operator', is => 'OPERATOR(evil.@@@) 1' },
	{
		kind => 'operator while selectivity is estimated',
		ddl => 'CREATE TABLE evil.numbers AS SELECT 7 AS n FROM generate_series(1, 50);
		  ANALYZE evil.numbers',
		is => '(SELECT count(*) FROM (SELECT FROM evil.numbers WHERE n OPERATOR(evil.===) 7 LIMIT 0)
		  AS none)'
	},
	{
		kind => 'distance of a range while selectivity is estimated',
		ddl => q{CREATE TABLE evil.ranges AS SELECT evil.measured(n, n + 9) AS r FROM generate_series(1,
		  50) AS n; ANALYZE evil.ranges},
		is => q{(SELECT count(*) FROM evil.ranges WHERE r && '[7,9)' AND r @> 8)}
	},
	{
		kind => 'aggregate',
		ddl => 'CREATE AGGREGATE evil.gather(integer) (SFUNC = evil.add, STYPE = integer)',
		is => '(SELECT evil.gather(n) FROM generate_series(1, 2) AS n)'
	},
	{
		kind => 'initial value of an aggregate',
		ddl => q{CREATE FUNCTION evil.keep(evil.pair, integer) RETURNS evil.pair LANGUAGE sql
		  IMMUTABLE AS $$ SELECT $1 $$;
		  CREATE AGGREGATE evil.gather(integer) (SFUNC = evil.keep, STYPE = evil.pair,
		    INITCOND = '(1,b)')},
		is => '(SELECT evil.gather(n) FROM generate_series(1, 2) AS n)'
	},
	{
		kind => 'end of an aggregate',
		ddl => 'CREATE AGGREGATE evil.gather(integer) (SFUNC = int4pl, STYPE = integer,
		  FINALFUNC = evil.constant)',
		is => '(SELECT evil.gather(n) FROM generate_series(1, 2) AS n)'
	},

	# relations
	{ kind => 'view', is => '(SELECT count(*) FROM evil.watched WHERE trap)' },
	{
		kind => 'view with a barrier',
		ddl => 'CREATE VIEW evil.barred WITH (security_barrier) AS SELECT evil.constant(1) AS one
		  WHERE evil.trap()',
		is => '(SELECT one FROM evil.barred)'
	},
	{
		kind => 'table with a policy',
		unreached => '^sink',
		ddl => q{CREATE TABLE evil.kept AS SELECT 1 AS a; ALTER TABLE evil.kept ENABLE ROW LEVEL SECURITY,
		  FORCE ROW LEVEL SECURITY;
		  CREATE POLICY p ON evil.kept USING (evil.trap())},
		is => '(SELECT count(*) FROM evil.kept)'
	},
	{
		kind => 'table with an index over an expression',
		ddl => 'CREATE TABLE evil.kept AS SELECT 1 AS a; CREATE INDEX ON evil.kept (evil.constant(a),
		  evil.constant(1))',
		is => '(SELECT count(*) FROM evil.kept)'
	},
	{
		kind => 'table with a partial index',
		ddl => 'CREATE TABLE evil.kept AS SELECT 1 AS a; CREATE INDEX ON evil.kept (a) WHERE evil.yes(1)',
		is => '(SELECT count(*) FROM evil.kept)'
	},
	{
		kind => 'table with statistics of an expression',
		ddl => 'CREATE TABLE evil.kept AS SELECT 1 AS a; CREATE STATISTICS evil.s ON (evil.constant(a)),
		  (evil.yes(1)) FROM evil.kept; ANALYZE evil.kept',
		is => '(SELECT count(*) FROM evil.kept WHERE evil.constant(a) = 1)'
	},
	{
		kind => 'table partitioned by an expression',
		ddl => 'CREATE TABLE evil.kept (a integer)
		  PARTITION BY LIST ((evil.constant(a) + evil.constant(1))); CREATE TABLE evil.part
		  PARTITION OF evil.kept DEFAULT',
		is => '(SELECT count(*) FROM evil.kept WHERE a = 1)'
	},

	# what has no code of its maker: there is nothing to fire, and nothing that may break
	{ kind => 'enum', is => q{'good'::evil.mood}, harmless => 1 },
	{
		kind => 'collation',
		ddl => 'CREATE COLLATION evil.c FROM "C"',
		is => q{%DOC%->>'n' < 'b' COLLATE evil.c},
		harmless => 1
	},
	{
		kind => 'text search',
		ddl => 'CREATE TEXT SEARCH DICTIONARY evil.d (TEMPLATE = simple);
		  CREATE TEXT SEARCH CONFIGURATION evil.c (COPY = simple);
		  ALTER TEXT SEARCH CONFIGURATION evil.c ALTER MAPPING FOR word WITH evil.d',
		is => q{to_tsvector('evil.c', %DOC%->>'n')},
		harmless => 1
	},

	# functions of another form
	{ kind => 'PL/pgSQL', functions => plpgsql('evil.trap()', '') },
	{
		kind => 'PL/pgSQL with a variable of a domain',
		functions => plpgsql('true', 'd evil.trapped := 1;')
	},
	{
		kind => 'functions that are SECURITY DEFINER',
		functions => functions_with('evil.stable(1)') =~ s/STABLE/STABLE SECURITY DEFINER/gr
	},
	{
		kind => 'functions that claim to be IMMUTABLE',
		functions => functions_with('evil.stable(1)') =~ s/STABLE/IMMUTABLE STRICT/gr
	},
	{
		kind => 'functions with settings',
		functions => functions_with('1 === 1') =~ s/STABLE/STABLE SET search_path = pg_catalog, evil
		  SET "TimeZone" = 'Asia\/Tokyo'/gr
	},
	{
		kind => 'functions with BEGIN ATOMIC',
		functions => functions_with('evil.constant(1)') =~ s/STABLE AS\n\s+\$f\$(.*)\$f\$/STABLE
		  BEGIN ATOMIC $1; END/gr
	},
	{
		kind => 'state as a domain',
		ddl => 'CREATE DOMAIN evil.state AS jsonb NOT NULL CHECK (evil.yes(VALUE))',
		functions => functions_with('1') =~ s/state jsonb/state evil.state/gr
		  =~ s/(evil\.apply.*|evil\.migrate.*)RETURNS jsonb/$1RETURNS evil.state/gr
	},
	{
		kind => 'domains as arguments and results',
		ddl => 'CREATE DOMAIN evil.kind AS text CHECK (evil.yes(VALUE));
		  CREATE DOMAIN evil.load AS jsonb CHECK (evil.yes(VALUE));
		  CREATE DOMAIN evil.flag AS boolean CHECK (evil.yes(VALUE));
		    CREATE DOMAIN evil.number AS integer CHECK (evil.yes(VALUE))',
		functions => functions_with('1') =~ s/event_type text/event_type evil.kind/gr
		  =~ s/payload jsonb/payload evil.load/gr
		  =~ s/schema_version integer/schema_version evil.number/gr
		  =~ s/RETURNS boolean/RETURNS evil.flag/gr
	},
	{
		kind => 'argument with a default',
		functions => functions_with('1') =~ s/(payload|state) jsonb\)/$1 jsonb, extra integer
		  DEFAULT evil.constant(1))/gr
	},
	# What is registered is not what is there afterwards.
	{
		kind => 'functions that were replaced since',
		functions => functions_with('1'),
		afterwards => functions_with(q{'{1}'::evil.trapped[]}) =~ s/CREATE/CREATE OR REPLACE/gr
	},
	{
		kind => 'helper that was replaced since',
		ddl => 'CREATE FUNCTION evil.help(integer) RETURNS integer LANGUAGE sql IMMUTABLE AS $$
		  SELECT $1 $$',
		is => 'evil.help(1)',
		afterwards => q{CREATE OR REPLACE FUNCTION evil.help(integer) RETURNS integer
		  LANGUAGE sql IMMUTABLE AS
		  $$ SELECT CASE WHEN '{1}'::evil.trapped[] IS NULL THEN 0 ELSE evil.constant(1) END $$;}
	},
	{
		kind => 'check that was replaced since',
		ddl => 'CREATE DOMAIN evil.number AS integer',
		is => q{'1'::evil.number},
		afterwards => 'ALTER DOMAIN evil.number ADD CHECK (evil.yes(VALUE));'
	},
);

# The functions of a workflow in PL/pgSQL.
sub plpgsql
{
	my ($value, $declare) = @_;

	return functions_with($value) =~ s/LANGUAGE sql/LANGUAGE plpgsql/gr
	  =~ s/\$f\$ SELECT (.*?) \$f\$/\$f\$ DECLARE $declare BEGIN RETURN $1; END \$f\$/gr;
}

# ---- what the owner of a table can give it to do; %T% is the table, %C% a column. No function
# of the extension reaches what is unreached: none inserts into a dependent, nor deletes from one.

our @table_kinds = (
	(
		map {
			my ($when, $each) = @$_;
			my $truncate = $each eq 'STATEMENT' ? ' OR TRUNCATE' : '';
			{
				kind => "trigger $when each $each",
				ddl => "CREATE TRIGGER aaa $when INSERT OR UPDATE OR DELETE$truncate ON %T%
				  FOR EACH $each EXECUTE FUNCTION evil.fire()"
			}
		}[ 'BEFORE', 'ROW' ],
		[ 'AFTER', 'ROW' ],
		[ 'BEFORE', 'STATEMENT' ],
		[ 'AFTER', 'STATEMENT' ]
	),
	{
		kind => 'trigger with transition tables',
		ddl => 'CREATE TRIGGER aaa AFTER INSERT ON %T% REFERENCING NEW TABLE AS n
		  FOR EACH STATEMENT EXECUTE FUNCTION evil.fire();
		  CREATE TRIGGER bbb AFTER UPDATE ON %T% REFERENCING NEW TABLE AS n OLD TABLE AS o
		    FOR EACH STATEMENT EXECUTE FUNCTION evil.fire()'
	},
	{
		kind => 'trigger that always fires',
		ddl => 'CREATE TRIGGER zzz BEFORE INSERT OR UPDATE OR DELETE ON %T% FOR EACH ROW
		  EXECUTE FUNCTION evil.fire();
		  ALTER TABLE %T% ENABLE ALWAYS TRIGGER zzz'
	},
	{
		kind => 'trigger with a condition',
		ddl => 'CREATE TRIGGER aaa BEFORE INSERT OR UPDATE ON %T% FOR EACH ROW WHEN (evil.yes(1)
		  AND evil.yes(NEW.%C%)) EXECUTE FUNCTION evil.fire()'
	},
	{
		kind => 'constraint trigger',
		ddl => 'CREATE CONSTRAINT TRIGGER aaa AFTER INSERT OR UPDATE OR DELETE ON %T% FOR EACH ROW
		  EXECUTE FUNCTION evil.fire()'
	},
	{
		kind => 'deferred constraint trigger',
		ddl => 'CREATE CONSTRAINT TRIGGER aaa AFTER INSERT OR UPDATE
		  OR DELETE ON %T% DEFERRABLE INITIALLY DEFERRED
		  FOR EACH ROW EXECUTE FUNCTION evil.fire()'
	},
	(
		map {
			{
				kind => "rule on $_",
				ddl => "CREATE RULE evil AS ON $_ TO %T% DO ALSO SELECT evil.trap()",
				unreached => $_ eq 'UPDATE' ? 'nobody' : 'dependent'
			}
		} qw(INSERT UPDATE DELETE)
	),
	{
		kind => 'rule with a condition',
		ddl => 'CREATE RULE i AS ON INSERT TO %T% WHERE NOT evil.trap() DO INSTEAD NOTHING;
		  CREATE RULE u AS ON UPDATE TO %T% WHERE NOT evil.trap() DO INSTEAD NOTHING'
	},
	{
		kind => 'default',
		unreached => 'dependent',
		ddl => 'ALTER TABLE %T% ADD COLUMN evil boolean DEFAULT evil.trap()'
	},
	{
		kind => 'default that is constant',
		unreached => 'dependent',
		ddl => 'ALTER TABLE %T% ADD COLUMN evil integer DEFAULT evil.constant(1)'
	},
	{
		kind => 'default of a domain',
		unreached => 'dependent',
		ddl => 'ALTER TABLE %T% ADD COLUMN evil evil.defaulted'
	},
	{
		kind => 'column of a domain',
		unreached => 'dependent',
		ddl => 'ALTER TABLE %T% ADD COLUMN evil evil.trapped DEFAULT 1, ADD COLUMN pair evil.pair
		  DEFAULT \'(1,b)\''
	},
	{
		kind => 'generated column',
		ddl => 'ALTER TABLE %T% ADD COLUMN evil boolean GENERATED ALWAYS AS (evil.yes(%C%)) STORED'
	},
	{ kind => 'CHECK', ddl => 'ALTER TABLE %T% ADD CONSTRAINT evil CHECK (evil.yes(%C%))' },
	{
		kind => 'CHECK of a constant',
		ddl => 'ALTER TABLE %T% ADD CONSTRAINT evil CHECK (evil.yes(1)) NOT VALID'
	},
	{ kind => 'index over an expression', ddl => 'CREATE INDEX ON %T% (evil.constant(%C%))' },
	{ kind => 'index over a constant', ddl => 'CREATE INDEX ON %T% (%C%, evil.constant(1))' },
	{ kind => 'partial index', ddl => 'CREATE INDEX ON %T% (%C%) WHERE evil.yes(%C%)' },
	{ kind => 'partial index of a constant', ddl => 'CREATE INDEX ON %T% (%C%) WHERE evil.yes(1)' },
	{
		kind => 'exclusion constraint',
		unreached => 'dependent',
		ddl => 'ALTER TABLE %T% ADD COLUMN evil integer GENERATED ALWAYS AS IDENTITY,
		  ADD EXCLUDE (evil.constant(evil) WITH =)'
	},
	{
		kind => 'foreign key with a cast',
		once => q{CREATE FUNCTION evil.to_number(evil.mood) RETURNS integer LANGUAGE plpgsql
		  IMMUTABLE AS $$ BEGIN PERFORM evil.trap(); RETURN 1; END $$;
		  CREATE CAST (evil.mood AS integer) WITH FUNCTION evil.to_number(evil.mood) AS IMPLICIT;
		  CREATE TABLE evil.moods (number integer PRIMARY KEY); INSERT INTO evil.moods VALUES (1)},
		ddl => q{ALTER TABLE %T% ADD COLUMN evil evil.mood DEFAULT 'good' REFERENCES evil.moods}
	},
	{
		kind => 'statistics of an expression',
		ddl => 'CREATE STATISTICS evil.of_%N% ON (evil.constant(%C%)), (evil.yes(1)) FROM %T%'
	},
	{
		kind => 'policy',
		unreached => 'dependent|store|written by a sink',
		ddl => 'ALTER TABLE %T% ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON %T% USING (evil.trap())
		  WITH CHECK (evil.trap())',
		direct => 'ALTER TABLE %T% FORCE ROW LEVEL SECURITY; SELECT * FROM %T%;
		  ALTER TABLE %T% NO FORCE ROW LEVEL SECURITY'
	},
	{
		kind => 'forced policy',
		unreached => 'dependent',
		ddl => 'ALTER TABLE %T% ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
		  CREATE POLICY p ON %T% USING (evil.trap()) WITH CHECK (evil.trap())'
	},
	{
		kind => 'child',
		once => 'CREATE SEQUENCE evil.children',
		ddl => q{DO $$ DECLARE child text := 'evil.child_' || nextval('evil.children'); BEGIN
		  EXECUTE format('CREATE TABLE %1$s (CHECK (evil.yes(1))) INHERITS (%T%);
		    INSERT INTO %1$s SELECT * FROM ONLY %T% LIMIT 3;
		    CREATE INDEX ON %1$s (evil.constant(%C%), evil.constant(1));
		    CREATE TRIGGER aaa BEFORE INSERT OR UPDATE OR DELETE ON %1$s FOR EACH ROW
		      EXECUTE FUNCTION evil.fire()', child); END $$}
	},
);

# What the owner of the store can do besides. Views are made of tables that have gone to schema
# "evil".
my $away = 'ALTER TABLE %T% SET SCHEMA evil;';

our @store_kinds = (
	{
		kind => 'layout version',
		once => 'CREATE OR REPLACE FUNCTION mako.layout_version() RETURNS integer LANGUAGE plpgsql
		  AS $$ BEGIN PERFORM evil.trap(); RETURN 1; END $$',
		direct => 'SELECT mako.layout_version()'
	},
	{
		kind => 'view in the place of a table',
		ddl => "$away CREATE VIEW %T% AS SELECT * FROM evil.%N% WHERE evil.trap()"
	},
	{
		kind => 'view with a barrier in the place of a table',
		ddl => "$away CREATE VIEW %T% WITH (security_barrier) AS SELECT * FROM evil.%N% WHERE evil.trap();
		  CREATE TRIGGER aaa INSTEAD OF INSERT OR UPDATE OR DELETE ON %T% FOR EACH ROW
		    EXECUTE FUNCTION evil.fire()"
	},
	{
		kind => 'view with rules in the place of a table',
		ddl => "$away CREATE VIEW %T% AS SELECT * FROM evil.%N%; CREATE RULE i AS ON INSERT TO %T%
		  DO INSTEAD SELECT evil.trap();
		  CREATE RULE u AS ON UPDATE TO %T% DO INSTEAD SELECT evil.trap();
		    CREATE RULE d AS ON DELETE TO %T% DO INSTEAD SELECT evil.trap()"
	},
	{
		kind => 'view with a default in the place of a table',
		ddl => "$away CREATE VIEW %T% AS SELECT *, true AS evil FROM evil.%N%;
		  ALTER VIEW %T% ALTER evil SET DEFAULT evil.trap();
		  CREATE RULE i AS ON INSERT TO %T% DO INSTEAD SELECT NEW.evil"
	},
	{
		kind => 'materialized view in the place of a table',
		ddl => "$away CREATE MATERIALIZED VIEW %T% AS SELECT * FROM evil.%N% WHERE evil.trap();
		  CREATE INDEX ON %T% (%C%) WHERE evil.yes(1)"
	},
	{
		kind => 'partitioned table',
		only => [qw(event snapshot)],
		ddl => q{CREATE TABLE evil.%N% (LIKE %T% INCLUDING ALL) PARTITION BY RANGE (%C%);
		  INSERT INTO pg_temp.trigger_of
		    SELECT '%T%', pg_get_triggerdef(t.oid) FROM pg_trigger t WHERE t.tgrelid = '%T%'::regclass
		      AND NOT t.tgisinternal;
		  ALTER TABLE %T% RENAME TO %N%_old; DO $$ DECLARE i record; BEGIN
		    FOR i IN SELECT indexrelid::regclass AS name FROM pg_index
		      WHERE indrelid = '%T%_old'::regclass LOOP
		      EXECUTE format('ALTER INDEX %s RENAME TO %I', i.name, split_part(i.name::text, '.',
		        2) || '_old'); END LOOP; END $$;
		  ALTER TABLE evil.%N% SET SCHEMA mako; CREATE TABLE evil.part_of_%N% PARTITION OF %T% DEFAULT;
		  INSERT INTO evil.part_of_%N% SELECT * FROM %T%_old;
		  DO $$ DECLARE t record; BEGIN FOR t IN SELECT definition FROM pg_temp.trigger_of
		    WHERE name = '%T%' LOOP
		    BEGIN EXECUTE t.definition; EXCEPTION WHEN OTHERS THEN NULL; END; END LOOP; END $$;
		  CREATE TRIGGER aaa BEFORE INSERT OR UPDATE OR DELETE ON evil.part_of_%N% FOR EACH ROW
		    EXECUTE FUNCTION evil.fire();
		  CREATE INDEX ON evil.part_of_%N% (evil.constant(%C%), evil.constant(1))},
		once => 'CREATE TEMPORARY TABLE trigger_of (name text, definition text)'
	},
	{
		kind => 'payload of a domain',
		once => 'CREATE DOMAIN evil.load AS jsonb CHECK (evil.yes(VALUE)); ALTER TABLE mako.event
		  ALTER payload TYPE evil.load;
		  ALTER TABLE mako.snapshot ALTER state TYPE evil.load',
		direct => q{SELECT evil.load '1'}
	},
	{
		kind => 'workflow id of a domain',
		once => 'DROP VIEW mako.process_identity, mako.migrated_stream;
		  CREATE DOMAIN evil.id AS text COLLATE "C" CHECK (evil.yes(VALUE));
		  ALTER TABLE mako.event ALTER workflow_id TYPE evil.id; ALTER TABLE mako.stream
		    ALTER workflow_id TYPE evil.id'
	},
	{
		kind => 'number of a stream by default',
		once => 'CREATE FUNCTION evil.number() RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN
		  PERFORM evil.trap(); RETURN 1000; END $$;
		  ALTER TABLE mako.stream ALTER stream_no DROP IDENTITY, ALTER stream_no SET
		    DEFAULT evil.number()'
	},
	{
		kind => 'view that others read',
		unreached => 'store',
		once => 'CREATE OR REPLACE VIEW mako.process_identity AS
		  SELECT r.tenant_id, r.key, s.process_id, s.stream_id, s.workflow_id FROM mako.registry r
		    JOIN mako.stream s ON s.stream_no = r.stream_no
		  WHERE evil.trap()',
		direct => 'SELECT * FROM mako.process_identity'
	},
);

# Schema mako, made before there is a store.
our @early_kinds = (
	{ kind => 'schema without a store', ddl => 'CREATE SCHEMA mako', harmless => 1 },
	{
		kind => 'layout version without a store',
		ddl => 'CREATE SCHEMA mako; CREATE FUNCTION mako.layout_version() RETURNS integer
		  LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.trap(); RETURN 1; END $$',
		direct => 'SELECT mako.layout_version()'
	},
	{
		kind => 'views without a store',
		ddl => q{CREATE SCHEMA mako; CREATE FUNCTION mako.layout_version() RETURNS integer
		  LANGUAGE sql IMMUTABLE AS 'SELECT 1';
		  SELECT format('CREATE VIEW mako.%I AS SELECT %s FROM generate_series(1, 2) WHERE evil.trap()',
		    relation, string_agg(format('NULL::text AS %I', name), ', '))
		  FROM mako_store_column() GROUP BY relation \gexec},
		direct => 'SELECT * FROM mako.stream'
	},
	{
		kind => 'copy of a store with triggers',
		ddl => q{CREATE SCHEMA mako; SELECT definition FROM mako_store_object()
		  ORDER BY ordinal \gexec
		  SELECT format('CREATE TRIGGER aaa BEFORE INSERT OR UPDATE OR DELETE ON mako.%I
		    FOR EACH ROW EXECUTE FUNCTION evil.fire()', relation)
		  FROM mako_store_object() WHERE kind = 'table' \gexec}
	},
);

# The owner of a dependent has views, too.
our @dependent_kinds = (
	{
		kind => 'view',
		ddl => 'ALTER TABLE %T% RENAME TO kept; CREATE VIEW %T% AS SELECT * FROM evil.kept
		  WHERE evil.trap()'
	},
	{
		kind => 'view with a barrier and a trigger',
		ddl => 'ALTER TABLE %T% RENAME TO kept; CREATE VIEW %T% WITH (security_barrier) AS SELECT *
		  FROM evil.kept WHERE evil.trap();
		  CREATE TRIGGER aaa INSTEAD OF INSERT OR UPDATE OR DELETE ON %T% FOR EACH ROW
		    EXECUTE FUNCTION evil.fire()'
	},
	{
		kind => 'view with a rule',
		ddl => 'ALTER TABLE %T% RENAME TO kept; CREATE VIEW %T% AS SELECT * FROM evil.kept;
		  CREATE RULE u AS ON UPDATE TO %T% DO INSTEAD SELECT evil.trap()'
	},
	{
		kind => 'process column of a domain',
		unreached => 'dependent',
		ddl => 'CREATE DOMAIN evil.number AS bigint CHECK (evil.yes(VALUE));
		  ALTER TABLE %T% ALTER stream_no TYPE evil.number'
	},
	{
		kind => 'workflow column of a domain',
		ddl => 'CREATE DOMAIN evil.id AS text CHECK (evil.yes(VALUE));
		  ALTER TABLE %T% ALTER workflow_id TYPE evil.id'
	},
	{
		kind => 'workflow column with a cast',
		ddl => q{CREATE TYPE evil.id AS ENUM ('w@FV2024-10-01', 'w@FV2025-10-01');
		  CREATE FUNCTION evil.to_id(text) RETURNS evil.id LANGUAGE plpgsql STABLE AS $$ BEGIN
		    PERFORM evil.trap(); RETURN enum_first(NULL::evil.id); END $$;
		  CREATE CAST (text AS evil.id) WITH FUNCTION evil.to_id(text) AS ASSIGNMENT;
		  ALTER TABLE %T% ALTER workflow_id TYPE evil.id USING workflow_id::evil.id},
		direct => q{SELECT 'w'::text::evil.id}
	},
	{
		kind => 'process column with a cast',
		ddl => q{CREATE TYPE evil.id AS ENUM ('1');
		  CREATE FUNCTION evil.to_number(evil.id) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
		    BEGIN PERFORM evil.trap(); RETURN 1; END $$;
		  CREATE CAST (evil.id AS bigint) WITH FUNCTION evil.to_number(evil.id) AS IMPLICIT;
		  ALTER TABLE %T% ALTER stream_no TYPE evil.id USING '1'::evil.id},
		direct => q{SELECT '1'::evil.id::bigint}
	},
	{
		kind => 'partitioned table',
		ddl => q{ALTER TABLE %T% RENAME TO kept; CREATE TABLE %T% (LIKE evil.kept
		  INCLUDING DEFAULTS) PARTITION BY LIST ((evil.constant(workflow_id)));
		  CREATE TABLE evil.part (LIKE %T%); CREATE TRIGGER aaa BEFORE INSERT OR UPDATE
		    OR DELETE ON evil.part FOR EACH ROW EXECUTE FUNCTION evil.fire();
		  ALTER TABLE %T% ATTACH PARTITION evil.part DEFAULT; INSERT INTO %T% SELECT * FROM evil.kept}
	},
);

# ---- what one can make in the extension's schema, where others may create in it: better matches
# for what the extension calls

# In what each calls as its body.
my $double = <<'SQL';
SET search_path = pg_catalog;
CREATE FUNCTION evil.double(name text, arguments text, result text, is_set boolean)
  RETURNS void LANGUAGE plpgsql AS $make$
BEGIN
  EXECUTE format('CREATE FUNCTION public.%I(%s) RETURNS %s %s LANGUAGE plpgsql AS %L', name,
    arguments, CASE WHEN is_set THEN 'SETOF' END, result,
                 CASE WHEN is_set THEN 'BEGIN PERFORM evil.trap(); RETURN;
                   END' ELSE 'BEGIN PERFORM evil.trap(); RETURN NULL; END' END);
EXCEPTION WHEN OTHERS THEN
  NULL; -- one that exists, or a type that PL/pgSQL does not take
END $make$;
SQL

# Functions that take any type, for some types; and those of text, for what is text in the
# extension.
my $functions = <<'SQL';
DO $$
BEGIN
  PERFORM evil.double(f.proname, string_agg(a.type, ', ' ORDER BY a.n), evil.as(f.prorettype,
    e.type), f.proretset)
  FROM pg_proc f
  CROSS JOIN unnest('{text,bigint,integer,uuid,jsonb,name,oid,boolean,timestamptz,
    public.mako_workflow_id,public.mako_format_version}'::text[]) AS e (type)
  CROSS JOIN LATERAL (SELECT n, evil.as(t, e.type) FROM unnest(f.proargtypes) WITH ORDINALITY
    AS u (t, n)
                      UNION ALL SELECT 100 + n, e.type FROM generate_series(2, CASE
                        WHEN f.provariadic = '"any"'::regtype THEN 4 ELSE 0 END) AS n) AS a (n,
                        type)
  WHERE f.pronamespace = 'pg_catalog'::regnamespace AND f.prokind = 'f'
    AND (EXISTS (SELECT FROM unnest(f.proargtypes) AS t WHERE t::regtype::text ~ '^("any"|any)')
         OR (e.type LIKE '%mako%' AND 'text'::regtype = ANY (f.proargtypes)))
  GROUP BY f.oid, f.proname, f.prorettype, f.proretset, e.type;
END $$;
SQL
my $as = <<'SQL';
CREATE FUNCTION evil.as(type oid, element text) RETURNS text LANGUAGE sql AS $$
  SELECT CASE WHEN type::regtype::text IN ('anyarray', 'anycompatiblearray') THEN element || '[]'
              WHEN type::regtype::text ~ '^("any"|any(element|nonarray|compatible(nonarray)?))$'
                OR (element LIKE '%mako%' AND type = 'text'::regtype) THEN element
              ELSE format_type(type, NULL) END $$;
SQL

# Operators between types that have none of their own.
my $operators = <<'SQL';
DO $$
DECLARE
  o record;
BEGIN
  FOR o IN
    SELECT name, l::regtype AS l, r::regtype AS r, row_number() OVER () AS n
    FROM unnest('{=,<>,<,||,@>,&&,->>}'::text[]) AS name,
         unnest('{text,name,"char",varchar,bigint,integer,smallint,oid,regclass,regtype,jsonb,
           json,uuid,timestamptz,public.mako_workflow_id,public.mako_format_version,text[],
           bigint[],uuid[],name[]}'::text[]) AS l,
         unnest('{text,name,"char",varchar,bigint,integer,smallint,oid,regclass,regtype,jsonb,
           json,uuid,timestamptz,public.mako_workflow_id,public.mako_format_version,text[],
           bigint[],uuid[],name[]}'::text[]) AS r
    WHERE NOT EXISTS (SELECT FROM pg_operator p WHERE p.oprname = name AND p.oprleft = l::regtype
      AND p.oprright = r::regtype)
  LOOP
    PERFORM evil.double(format('operator_%s', o.n), format('%s, %s', o.l, o.r), CASE o.name
      WHEN '||' THEN o.l::text WHEN '->>' THEN 'text' ELSE 'boolean' END, false);
    EXECUTE format('CREATE OPERATOR public.%s (LEFTARG = %s, RIGHTARG = %s,
      FUNCTION = public.operator_%s)', o.name, o.l, o.r, o.n);
  END LOOP;
END $$;
SQL

# The extension's own, with text for a domain, without the arguments that have a default, and with
# as many as are variadic.
my $overloads = <<'SQL';
DO $$
BEGIN
  PERFORM evil.double(f.proname, string_agg(CASE WHEN v.plain
    AND a.t::regtype::text ~ '^public.mako_(workflow_id|format_version)$' THEN 'text'
                                                 WHEN f.provariadic <> 0 AND a.n = f.pronargs
                                                   THEN v.last ELSE format_type(a.t, NULL) END, ',
                                                   ' ORDER BY a.n),
                      format_type(f.prorettype, NULL), f.proretset)
  FROM pg_proc f
  JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = f.oid AND d.deptype = 'e'
  JOIN pg_extension x ON x.oid = d.refobjid AND x.extname = 'mako_migration'
  CROSS JOIN LATERAL (SELECT plain, l AS last, n AS arguments
                      FROM unnest(ARRAY[false, true]) AS plain, unnest(ARRAY['text', 'text, text',
                        'text, text, text']) AS l,
                           generate_series((f.pronargs - f.pronargdefaults)::integer,
                             f.pronargs::integer) AS n) AS v
  JOIN LATERAL unnest(f.proargtypes) WITH ORDINALITY AS a (t, n) ON a.n <= v.arguments
  GROUP BY f.oid, f.proname, f.prorettype, f.proretset, v.plain, v.last, v.arguments;
END $$;
SQL

my $relations = <<'SQL';
DO $$
DECLARE
  name text;
BEGIN
  FOR name IN SELECT DISTINCT relation FROM public.mako_store_object()
              UNION SELECT unnest('{w,m,d,s,n,r,p,workflow,known,text,jsonb}'::text[]) LOOP
    EXECUTE format('CREATE VIEW public.%I AS SELECT evil.trap() AS evil', name);
  END LOOP;
END $$;
SQL

our @neighbour_kinds = (
	{
		kind => 'functions',
		ddl => $functions,
		direct => q{SELECT array_to_string('{a}'::text[], ','), cardinality('{a}'::text[])}
	},
	{ kind => 'operators', ddl => $operators, direct => q{SELECT '{a}'::text[] @> '{b}'::text[]} },
	{
		kind => 'functions named as the extension\'s',
		ddl => $overloads,
		direct => q{SELECT mako_required('{}'::jsonb, 'a')}
	},
	{ kind => 'relations', ddl => $relations, direct => 'SELECT * FROM public.stream' },
	{
		kind => 'all of it, before the store is made',
		ddl => "$functions $operators $overloads $relations",
		direct => q{SELECT public.cardinality('{a}'::pg_catalog.text[])},
		early => 1
	},
);
$_->{ddl} = "$double $as $_->{ddl}" for @neighbour_kinds;

1;
