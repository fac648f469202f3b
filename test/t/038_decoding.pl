# What is written without a statement is seen by everything that looks at writes: a logical slot
# sees every head, snapshot and event as it is in the tables, statistics count them, and each has
# the time of its commit.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MakoTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('decoding', allows_streaming => 'logical');
$node->append_conf('postgresql.conf', 'track_commit_timestamp = on');
$node->restart;
create_two_workflows($node, 'store', 400);
$node->safe_psql('store', <<'SQL');
CREATE TABLE head_before AS SELECT stream_no, workflow_id, version FROM mako.stream;
SELECT pg_create_logical_replication_slot('slot', 'test_decoding');
SELECT pg_stat_reset();
SQL

# Direct and batched, with appends by function and by statement, periodic snapshots, a revert.
my $insert = <<'SQL';
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
SQL
$node->safe_psql('store', $_) for (
	"SELECT mako_migrate('native\@FV2024-10-01', 'native\@FV2025-10-01')",
	"SELECT count(mako_append(stream_id, workflow_id, 'Noted', '{}'))
	 FROM mako.stream WHERE stream_no % 7 = 0",
	"$insert SELECT stream_no, version + 1, workflow_id, 'Noted', '{}'
	 FROM mako.stream WHERE stream_no % 5 = 0",
	'SELECT count(mako_take_snapshot(stream_id)) FROM mako.stream WHERE stream_no % 3 = 0',
	"CALL mako_migrate_batched('plain\@FV2024-10-01', 'plain\@FV2025-10-01', batch_size => 30)",
	'SELECT mako_revert(1)');

$node->safe_psql('store', <<'SQL');
CREATE FUNCTION value_of(name text, data text) RETURNS text LANGUAGE sql AS $$
  SELECT trim(BOTH '''' FROM substring(data FROM '\m' || name || '\[[^]]*\]:(''[^'']*''|\S*)'))
$$;
CREATE TABLE change AS
SELECT n, split_part(m[1], '.', 2) AS relation, m[2] AS command,
       value_of('stream_no', data)::bigint AS stream_no,
       value_of('workflow_id', data) AS workflow_id,
       value_of('version', data)::bigint AS version, value_of('run_id', data)::bigint AS run_id,
       value_of('sequence_number', data)::bigint AS sequence_number,
       value_of('event_id', data)::uuid AS event_id
FROM pg_logical_slot_get_changes('slot', NULL, NULL, 'skip-empty-xacts', '1')
       WITH ORDINALITY AS c (lsn, xid, data, n),
     LATERAL regexp_match(data, '^table (mako\.\w+): (INSERT|UPDATE|DELETE):') AS m
WHERE m IS NOT NULL;
SQL
cmp_ok($node->safe_psql('store', 'SELECT count(*) FROM change'), '>', 1000, 'changes were seen');
is($node->safe_psql('store', <<'SQL'), '', 'the last change of every head is what it is');
SELECT stream_no, workflow_id, version FROM mako.stream
EXCEPT
(SELECT DISTINCT ON (stream_no) stream_no, workflow_id, version
 FROM (SELECT n, stream_no, workflow_id, version FROM change WHERE relation = 'stream'
       UNION ALL SELECT 0, stream_no, workflow_id, version FROM head_before) AS c
 ORDER BY stream_no, n DESC) LIMIT 3
SQL
is($node->safe_psql('store', <<'SQL'), '', 'every snapshot was seen');
SELECT stream_no, sequence_number, run_id, workflow_id FROM mako.snapshot
EXCEPT ALL
SELECT stream_no, sequence_number, run_id, workflow_id FROM change
WHERE relation = 'snapshot' AND command = 'INSERT' LIMIT 3
SQL
is($node->safe_psql('store', <<'SQL'), '', 'every event was seen, once');
(SELECT event_id FROM mako.event WHERE sequence_number > 4
 EXCEPT ALL SELECT event_id FROM change WHERE relation = 'event')
UNION ALL
(SELECT event_id FROM change WHERE relation = 'event'
 EXCEPT ALL SELECT event_id FROM mako.event WHERE sequence_number > 4) LIMIT 3
SQL
for my $counter (
	[ 'stream', 'UPDATE', 'n_tup_upd' ], [ 'snapshot', 'INSERT', 'n_tup_ins' ],
	[ 'reverted', 'INSERT', 'n_tup_ins' ], [ 'event', 'INSERT', 'n_tup_ins' ],
	[ 'migration_batch', 'INSERT', 'n_tup_ins' ])
{
	my ($relation, $command, $column) = @$counter;
	my ($seen, $counted) = split /\|/, $node->safe_psql('store', <<SQL);
SELECT (SELECT count(*) FROM change WHERE relation = '$relation' AND command = '$command'),
       (SELECT $column FROM pg_stat_user_tables WHERE relid = 'mako.$relation'::regclass)
SQL

	cmp_ok($seen, '>', 0, "$seen rows of $command in mako.$relation were seen");
	is($counted, $seen, '... as many as statistics count');
}
is($node->safe_psql('store', <<'SQL'), '0', 'every row has the time of its commit');
SELECT (SELECT count(*) FROM mako.snapshot WHERE pg_xact_commit_timestamp(xmin) IS NULL) +
       (SELECT count(*) FROM mako.stream WHERE pg_xact_commit_timestamp(xmin) IS NULL)
SQL
is(disorder($node, 'store'), '', 'the store is in order');
$node->safe_psql('store', "SELECT pg_drop_replication_slot('slot')");

$node->stop;
done_testing();
