# A session that calls the same thing again and again, or is refused again and again, does not grow.
#
# MAKO_SOAK=1 calls it twenty times as often.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MakoTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $often = $ENV{MAKO_SOAK} ? 20 : 1;
my $node = new_server('leaks');
create_two_workflows($node, 'store', 60);
plan skip_all => 'this server does not tell of its memory'
  if $node->safe_psql('store', "SELECT to_regclass('pg_backend_memory_contexts') IS NULL") eq 't';
$node->safe_psql('store', <<'SQL');
SELECT mako_take_snapshot(stream_id) FROM mako.stream WHERE stream_no < 30;
SELECT mako_add_tag(tenant_id, 'tag', stream_id) FROM mako.stream;
-- Commits as an engine does, and goes on when a call is refused.
CREATE PROCEDURE call_often(what text, times int) LANGUAGE plpgsql AS $$
BEGIN
  FOR i IN 1 .. times LOOP
    BEGIN
      EXECUTE what;
    EXCEPTION WHEN OTHERS THEN
    END;
    IF i % 20 = 0 THEN
      COMMIT;
    END IF;
  END LOOP;
END
$$;
SQL

# What is called, and how often.
my $native = "'native\@FV2024-10-01', 'native\@FV2025-10-01'";
my $back = "'native\@FV2025-10-01', 'native\@FV2024-10-01'";
my $tenant = "'aaaaaaaa-0000-4000-8000-000000000001'";
my $key = "'bbbbbbbb-0000-4000-8000-000000000005'";
my $two = 'FROM mako.stream WHERE stream_no = 2';
my $few = 'FROM (SELECT * FROM mako.stream WHERE stream_no BETWEEN 3 AND 12) s';
my ($opened, $refused) = map { "\"event_type\": \"$_\", \"payload\": {}" } qw(Opened Refused);
my $insert = <<'SQL';
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
SQL
my @calls = (
	[ 50, "SELECT mako_append(stream_id, workflow_id, 'Noted', '{\"note\": 1}') $two" ],
	[ 50, "SELECT mako_append(stream_id, workflow_id, 'Noted', '{}', expected_version => 0) $two" ],
	[ 50, "SELECT mako_append(stream_id, 'none\@FV2024-10-01', 'Noted', '{}') $two" ],
	[ 50, "SELECT mako_append_batch(stream_id, workflow_id,
	        ARRAY[('Noted', '{}', 1, NULL, NULL, NULL, NULL)]::mako_new_event[]) $two" ],
	[ 50, "$insert SELECT stream_no, version + 1, workflow_id, 'Noted', '{}' $two" ],
	[ 50, "$insert SELECT stream_no, version + 7, workflow_id, 'Noted', '{}' $two" ],
	[ 30, "SELECT mako_state(stream_id) $few" ],
	[ 30, "SELECT count(*) $few, mako_resume(s.stream_id)" ],
	[ 30, "SELECT count(*) $few, mako_trace(s.stream_id)" ],
	[ 30, "SELECT count(*) $few, mako_load(s.stream_id)" ],
	[ 50, "SELECT mako_take_snapshot(stream_id) $few LIMIT 1" ],
	[ 50, "SELECT mako_save_snapshot(stream_id, version, workflow_id, 1, '{}') $few LIMIT 1" ],
	[ 50, "SELECT count(*) FROM mako_lookup($tenant, $key)" ],
	[ 50, "SELECT count(*) FROM mako_lookup($tenant, $key, 'FV2024-10-01')" ],
	[ 50, "SELECT mako_register_key($tenant, 'key', stream_id) $few LIMIT 1" ],
	[ 50, "SELECT mako_fold('native\@FV2024-10-01', '[{$opened}]')" ],
	[ 50, "SELECT mako_fold('native\@FV2024-10-01', '[{$refused}]')" ],
	[ 50, "SELECT mako_fold('plain\@FV2024-10-01', '[{$opened}]')" ],
	[ 50, "SELECT mako_fold('plain\@FV2024-10-01', '[{$refused}]')" ],
	[ 50, "SELECT mako_migrate_state($native, '{\"a\": 1}')" ],
	[ 50, "SELECT mako_is_valid('{\"type\": \"int8\"}', '1'), mako_is_valid('{\"tyqe\": 1}', '1')" ],
	[ 30, "SELECT count(*) FROM mako_explain_function('lib.apply_native(jsonb,text,jsonb)')" ],
	[ 20, "SELECT mako_migrate($native), mako_migrate($back)" ],
	[ 50, "SELECT mako_migrate($native, tenant_id => '$tenant')" =~ s/''/'/gr ],
	[ 20, "SELECT mako_migrate('none\@FV2024-10-01', 'none\@FV2025-10-01')" ],
	[ 30, "SELECT count(*) FROM mako_dry_run($native, sample => 5)" ],
	[ 30, "SELECT count(*) FROM mako_plan($native)" ],
	[ 30, "SELECT count(*) FROM mako_coverage('FV2024-10-01')" ],
	[ 30, 'SELECT count(*) FROM mako_progress' ],
	[ 5, 'SELECT count(*) FROM mako_check(5)' ]);

my $used = 'SELECT sum(used_bytes) / 1024 FROM pg_backend_memory_contexts';
for my $call (@calls)
{
	my ($times, $sql) = ($often * $call->[0], $call->[1]);
	my $session = open_session($node, 'store');
	my ($error, @kb) = ('');

	# Its caches are full after the first part, but for what another session's change empties later: a leak grows in every part.
	for my $part (0 .. 3)
	{
		$error .= ask($session, "CALL call_often(\$sql\$$sql\$sql\$, $times)");
		push @kb, ask($session, $used);
	}
	my ($growth) = sort { $a <=> $b } map { $kb[$_] - $kb[ $_ - 1 ] } 2, 3;
	is($error || ($growth < 4 ? 'none' : "$growth kB"), 'none',
		"growth in $times times " . $sql =~ s/\s+/ /gr);
	close_session($session);
}
$node->stop;
done_testing();
