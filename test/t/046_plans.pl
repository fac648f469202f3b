# No plan depends on luck: whatever statistics say, and whatever planner settings a session has, no call of a cutover looks at more rows
# than a few times what its tables have. What is counted is what the executor has touched, as auto_explain tells it, so that no time is
# measured: a join that looks through one table for each row of another, or a scan of a table for each batch, is many times over.
use strict;
use warnings;

use FindBin;
use JSON::PP;
use lib $FindBin::RealBin;
use MakoTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# Of a table's rows, so many times as many may be touched by one call. A call has 60 batches.
my $most = 16;
my ($streams, $batch) = (3000, 50);

chomp(my $libraries = `"$ENV{PG_CONFIG}" --pkglibdir`);
plan skip_all => 'this PostgreSQL has no auto_explain' unless -e "$libraries/auto_explain.so";

my $node = new_server('plans');
$node->append_conf('postgresql.conf', <<'CONF');
shared_preload_libraries = auto_explain
auto_explain.log_min_duration = 0
auto_explain.log_nested_statements = on
auto_explain.log_analyze = on
auto_explain.log_timing = off
auto_explain.log_format = json
log_min_duration_statement = -1
CONF
$node->restart;

# ---- what plans have touched

# Adds up the rows that a plan's nodes have touched: of tables by their names, and of what joins have looked at in vain.
sub add_plan
{
	my ($plan, $touched) = @_;
	my $rows = $plan->{'Actual Rows'} + ($plan->{'Rows Removed by Filter'} // 0) + ($plan->{'Rows Removed by Index Recheck'} // 0);
	my $loops = $plan->{'Actual Loops'};

	$touched->{ $plan->{'Relation Name'} } += $rows * $loops if ($plan->{'Relation Name'} // 'pg_') !~ /^pg_/;
	$touched->{joins} += $plan->{'Rows Removed by Join Filter'} * $loops if $plan->{'Rows Removed by Join Filter'};
	$touched->{functions} += $rows * $loops if $plan->{'Node Type'} eq 'Function Scan';
	$touched->{compiled}++ if $plan->{JIT};
	add_plan($_, $touched) for @{ $plan->{Plans} // [] };
}

# What a statement touches, its own and those that it leads to.
sub touched_by
{
	my ($db, $settings, $statement) = @_;
	my $begin = -s $node->logfile;
	my %touched;

	$node->safe_psql($db, "$settings $statement", extra_params => [ '-v', 'ON_ERROR_STOP=1' ]);
	my $log = slurp_file($node->logfile, $begin);
	while ($log =~ /plan:\n((?:\t.*\n)+)/g)
	{
		my $json = $1 =~ s/^\t//gmr;
		my $explained = decode_json($json);

		next if index($explained->{'Query Text'}, $statement) >= 0 || $explained->{'Query Text'} !~ /mako\./;
		$touched{compiled}++ if $explained->{JIT};
		add_plan($explained->{Plan}, \%touched);
	}
	return \%touched;
}

# ---- a store whose statistics are those of when it was empty

my ($definitions, $rows) = split /(?=^INSERT INTO mako\.stream)/m, slurp_file('test/pgtap/include/two_workflows.sql') =~ s/^ANALYZE;\n//mr;
my @size = (extra_params => [ '-v', "streams=$streams" ]);

$node->safe_psql('postgres', "CREATE DATABASE store");
$node->safe_psql('store', $definitions, @size);
$node->safe_psql('store', 'ANALYZE');
$node->safe_psql('store', $rows, @size);
$node->safe_psql('postgres', "CREATE DATABASE known TEMPLATE store");
$node->safe_psql('known', 'VACUUM ANALYZE');

my %count = map { split /\|/ } split /\n/, $node->safe_psql('store', <<'SQL');
SELECT 'stream', count(*) FROM mako.stream UNION ALL SELECT 'event', count(*) FROM mako.event
SQL

# ---- the calls of a cutover, one after the other

my @night = (
	'a plan' => "SELECT * FROM mako_plan('native\@FV2024-10-01', 'native\@FV2025-10-01')",
	'a run' => "SELECT * FROM mako_migrate('native\@FV2024-10-01', 'native\@FV2025-10-01')",
	'a proof' => 'SELECT * FROM mako_verify(1)',
	'a revert' => 'SELECT * FROM mako_revert(1)',
	'what is left of it' => 'SELECT * FROM mako_revert(1)',
	'a version' => "SELECT * FROM mako_migrate_version('FV2024-10-01', 'FV2025-10-01')",
	'its way back' => "SELECT * FROM mako_migrate_version('FV2025-10-01', 'FV2024-10-01')",
	'batches' => "CALL mako_migrate_version_batched('FV2024-10-01', 'FV2025-10-01', batch_size => $batch)",
	'a proof of batches' => 'SELECT v.* FROM (SELECT max(run_id) AS run_id FROM mako.migration_run) r, mako_verify(r.run_id) v',
	'a revert of batches' => 'SELECT v.* FROM (SELECT max(run_id) AS run_id FROM mako.migration_run) r, mako_revert(r.run_id) v',
	'batches again' => "CALL mako_migrate_version_batched('FV2024-10-01', 'FV2025-10-01', batch_size => $batch)",
	'a check' => 'SELECT * FROM mako_check()',
	'draining' => "SELECT mako_drain('FV2024-10-01')",
	'retiring' => "SELECT * FROM mako_retire('FV2024-10-01')");

my %hostile = (
	'by default' => '',
	'without nested loops and index scans' => 'SET enable_nestloop = off; SET enable_indexscan = off; SET enable_bitmapscan = off;
	  SET enable_indexonlyscan = off;',
	'with nested loops only, and compiled' => 'SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_hashagg = off;
	  SET enable_sort = off; SET enable_material = off; SET jit_above_cost = 0; SET jit = on;',
	'with generic plans, little memory and dear pages' => q{SET plan_cache_mode = force_generic_plan; SET work_mem = '64kB';
	  SET random_page_cost = 1000; SET cpu_index_tuple_cost = 10; SET from_collapse_limit = 1; SET join_collapse_limit = 1;});

for my $settings (sort keys %hostile)
{
	# Where statistics know, plans are no riddle: with all settings only where there is time (MAKO_SOAK).
	for my $db ('store', $ENV{MAKO_SOAK} || $hostile{$settings} eq '' ? 'known' : ())
	{
		$node->safe_psql('postgres', "CREATE DATABASE played TEMPLATE $db");
		for (my $i = 0; $i < @night; $i += 2)
		{
			my $touched = touched_by('played', $hostile{$settings}, $night[$i + 1]);
			my @many = map { "$_ $touched->{$_}" } grep { $touched->{$_} > $most * ($count{$_} // $streams) } sort keys %$touched;

			is("@many", '', "$night[$i] $settings" . ($db eq 'store' ? ', with statistics of an empty store' : ''));
			ok(!$touched->{compiled}, '... and nothing is compiled');
		}
		$node->safe_psql('postgres', 'DROP DATABASE played');
	}
}

$node->stop;
done_testing();
