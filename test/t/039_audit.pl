# Where an extension audits what is read and written, by the hook of the executor's permission
# checks, it is told of all that our functions read and write. Needs pgaudit, which --tools of
# test/with-cluster installs where apt has it.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MakoTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('audit');
my $available = $node->safe_psql('postgres', 'SELECT name FROM pg_available_extensions');
plan skip_all => 'no pgaudit' unless $available =~ /^pgaudit$/m;
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'pgaudit'");
$node->restart;
create_two_workflows($node, 'store', 20);
$node->safe_psql('store', <<'SQL');
CREATE EXTENSION pgaudit;
CREATE ROLE audited;
GRANT USAGE ON SCHEMA mako TO audited;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA mako TO audited;
SQL

# What the audit is told that a statement does to the store: "SELECT event", "INSERT snapshot" and
# so on. What is only planned does not count.
sub audited
{
	my ($sql) = @_;
	my $start = -s $node->logfile;

	$node->safe_psql('store', "SET pgaudit.role = 'audited'; $sql");
	my $log = substr(slurp_file($node->logfile), $start);
	my %told;
	while ($log =~ /AUDIT: OBJECT,\d+,\d+,\w+,(\w+),TABLE,mako\.(\w+),"?(\w+)/g)
	{
		$told{"$1 $2"} = 1 if $3 ne 'EXPLAIN';
	}
	return \%told;
}

my $stream = '(SELECT stream_id FROM mako.stream WHERE stream_no = 2)';
my @runs = map { "'$_\@FV2024-10-01', '$_\@FV2025-10-01'" } qw(native plain);
for my $case (
	[ 'SELECT count(*) FROM mako.event', 'SELECT event' ],
	[ "SELECT mako_state($stream)", 'SELECT stream', 'SELECT event' ],
	[ "SELECT count(*) FROM mako_resume($stream)", 'SELECT stream', 'SELECT event' ],
	[ "SELECT count(*) FROM mako_trace($stream)", 'SELECT stream', 'SELECT event' ],
	[ "SELECT count(*) FROM mako_load($stream)", 'SELECT event' ],
	[ "SELECT mako_append($stream, 'native\@FV2024-10-01', 'Noted', '{}')", 'INSERT event' ],
	[ "SELECT mako_take_snapshot($stream)", 'SELECT event', 'INSERT snapshot' ],
	[ "SELECT count(*) FROM mako_dry_run($runs[0])", 'SELECT stream', 'SELECT event' ],
	[ "SELECT mako_migrate($runs[0])", 'SELECT event', 'INSERT snapshot', 'UPDATE stream' ],
	[ "CALL mako_migrate_batched($runs[1])", 'SELECT event', 'INSERT snapshot', 'UPDATE stream' ],
	[ 'SELECT mako_revert(1)', 'INSERT reverted', 'UPDATE stream' ])
{
	my ($sql, @expected) = @$case;
	my $told = audited($sql);

	is(join(', ', grep { !$told->{$_} } @expected), '',
		"$sql: the audit is told of " . join(', ', @expected));
}

$node->stop;
done_testing();
