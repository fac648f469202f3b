-- The night of a cutover, from the plan to the retired version, with generated streams of which 1 % are bad, and with everything that can
-- come in between: a function that is wrong, a migration that is taken back, and one that is cancelled half-way. Each step asserts its
-- numbers against an oracle that knows nothing of the extension. Run it with psql from the root of the project, in an empty database.
--
-- MAKO_STREAMS in the environment is the number of streams; 100,000 take about a minute.

\set streams `echo "${MAKO_STREAMS:-5000}"`
\set old '''FV2025-10-01'''
\set new '''FV2026-10-01'''
SET client_min_messages = warning;

CREATE EXTENSION pgtap;
SELECT plan(21);

\o /dev/null
\ir generator/choose.sql
\ir generator/expected.sql
SELECT generator.choose('night', :streams, poison_rate => 0.01);
CREATE TABLE oracle AS SELECT * FROM generator.expected WHERE seed = 'night';
CREATE SCHEMA mako_migration;
CREATE EXTENSION mako_migration SCHEMA mako_migration;
SET search_path = public, mako_migration;
\ir register.sql
\ir generator/load.sql
SELECT mako_create_store();
SELECT mako_add_dependent('generator.deadline', 'process_id', 'workflow_id', tenant_column => 'tenant_id');
SELECT * FROM generator.load('night');
ANALYZE;
-- What leaves the old version, and what is to become of it.
CREATE VIEW expected AS
SELECT workflow_id, count(*) AS streams, count(*) FILTER (WHERE outcome = 'migrated') AS migrated,
       count(*) FILTER (WHERE outcome = 'failed') AS failed, count(*) FILTER (WHERE outcome = 'skipped') AS empty
FROM oracle WHERE workflow_id LIKE '%@FV2025-10-01' GROUP BY 1;
-- What a store holds, apart from the audit trail and from snapshots that are marked reverted.
CREATE FUNCTION content() RETURNS text LANGUAGE sql STABLE AS $$
  SELECT md5(concat((SELECT md5(string_agg(s::text, E'\n' ORDER BY stream_no)) FROM mako.stream s),
                    (SELECT md5(string_agg(r::text, E'\n' ORDER BY tenant_id, key)) FROM mako.registry r),
                    (SELECT md5(string_agg(c::text, E'\n' ORDER BY tenant_id, tag, stream_no)) FROM mako.correlation c),
                    (SELECT md5(string_agg(d::text, E'\n' ORDER BY deadline_id)) FROM generator.deadline d),
                    (SELECT md5(string_agg(n::text, E'\n' ORDER BY stream_no, sequence_number, run_id)) FROM mako.snapshot n WHERE (stream_no, run_id) NOT IN (SELECT stream_no, run_id FROM mako.reverted)),
                    (SELECT md5(string_agg(p::text, E'\n' ORDER BY stream_no, run_id)) FROM mako.repointed p WHERE (stream_no, run_id) NOT IN (SELECT stream_no, run_id FROM mako.reverted))))
$$;
\o

----------------------------------------------------------------------------------------------------
-- Plan and check
----------------------------------------------------------------------------------------------------

SELECT results_eq(
  $$ SELECT e.workflow_id, p.streams, p.blockers FROM expected e,
          LATERAL mako_plan(e.workflow_id, split_part(e.workflow_id, '@', 1) || '@FV2026-10-01') p
     WHERE p.kind = 'total' ORDER BY e.workflow_id COLLATE "C" $$,
  $$ SELECT workflow_id, streams, '{}'::text[] FROM expected ORDER BY workflow_id COLLATE "C" $$,
  'the plan: so many streams match, and nothing stands against it');
-- Some streams run under older versions that nobody has registered, some have a periodic snapshot from beyond their heads, and the type
-- definitions of states allow more than ever happens.
SELECT is_empty($$ SELECT code, subject, message FROM mako_check() WHERE severity = 'error' AND code NOT IN
       ('workflow_not_registered', 'state_outside_type', 'snapshot_beyond_head') $$,
                'the checks find what is known');

----------------------------------------------------------------------------------------------------
-- Rehearse: a function is wrong
----------------------------------------------------------------------------------------------------

SELECT pg_get_functiondef('gpke.supplier_change_migrate_2025_2026'::regproc) AS right_one \gset
SELECT replace(:'right_one', 'SELECT CASE', $$SELECT CASE WHEN state->>'status' = 'Initiated' THEN mako_reject('nobody thought of this status')$$) AS wrong_one \gset
\o /dev/null
:wrong_one;
SELECT mako_register_migration('gpke-supplier-change@FV2025-10-01', 'gpke-supplier-change@FV2026-10-01',
                               'gpke.supplier_change_migrate_2025_2026', replace => true);
SELECT content() AS before \gset
\o
SELECT results_eq(
  $$ SELECT streams FROM mako_dry_run_summary('gpke-supplier-change@FV2025-10-01', 'gpke-supplier-change@FV2026-10-01')
     WHERE message = 'nobody thought of this status' $$,
  $$ SELECT count(*) FROM mako.stream s JOIN oracle o USING (stream_id) CROSS JOIN LATERAL mako_state(s.stream_id) x
     WHERE s.workflow_id = 'gpke-supplier-change@FV2025-10-01' AND (o.outcome = 'migrated' OR o.phase IN ('migrate', 'state')) AND x.state->>'status' = 'Initiated' $$,
  'the rehearsal finds what a function does wrong');
\o /dev/null
:right_one;
SELECT mako_register_migration('gpke-supplier-change@FV2025-10-01', 'gpke-supplier-change@FV2026-10-01',
                               'gpke.supplier_change_migrate_2025_2026', replace => true);
CREATE TABLE rehearsal AS
SELECT e.workflow_id, d.* FROM expected e, LATERAL mako_dry_run(e.workflow_id, split_part(e.workflow_id, '@', 1) || '@FV2026-10-01') d;
\o
SELECT results_eq(
  $$ SELECT workflow_id, count(*), count(*) FILTER (WHERE new_state IS NOT NULL), count(*) FILTER (WHERE (error).phase IS NOT NULL)
     FROM rehearsal GROUP BY workflow_id ORDER BY workflow_id COLLATE "C" $$,
  $$ SELECT workflow_id, streams, migrated, failed FROM expected ORDER BY workflow_id COLLATE "C" $$,
  'once it is right, it says what the oracle says');
SELECT is(content(), :'before', 'and has changed nothing');

----------------------------------------------------------------------------------------------------
-- Drain and migrate, with the fingerprint that was reviewed
----------------------------------------------------------------------------------------------------

SELECT mako_version_fingerprint(:old, :new) AS reviewed \gset
\o /dev/null
SELECT mako_drain(:old, 'the night');
\o
SELECT throws_ok(format('SELECT * FROM mako_migrate_version(%L, %L, expect => %L)', :old, :new, md5('something else')),
                 '55000', 'the definitions are not those that were expected', 'other definitions are refused');
CREATE TABLE report AS SELECT * FROM mako_migrate_version(:old, :new, expect => :'reviewed', reason => 'the night');
SELECT results_eq(
  $$ SELECT source_wf::text COLLATE "C", migrated, failed FROM report ORDER BY source_wf::text COLLATE "C" $$,
  $$ SELECT workflow_id COLLATE "C", migrated, failed FROM expected ORDER BY workflow_id COLLATE "C" $$,
  'the migration does what the oracle says');
SELECT is_empty(
  $$ SELECT r.stream_id FROM rehearsal r JOIN mako.stream s USING (stream_id)
     JOIN report ON source_wf = r.workflow_id LEFT JOIN mako.snapshot n ON n.stream_no = s.stream_no AND n.run_id = report.run_id
     LEFT JOIN mako.migration_error e ON e.stream_no = s.stream_no AND e.run_id = report.run_id
     WHERE n.state IS DISTINCT FROM r.new_state OR (r.error).message IS DISTINCT FROM e.message OR (r.error).phase IS DISTINCT FROM e.phase $$,
  'and stream by stream what was rehearsed');

----------------------------------------------------------------------------------------------------
-- Prove, and take back
----------------------------------------------------------------------------------------------------

SELECT is_empty($$ SELECT v.* FROM report, LATERAL mako_verify(run_id) v $$, 'every snapshot follows from the events');
CREATE TABLE reverted AS SELECT v.* FROM report, LATERAL mako_revert(run_id, 'not today') v;
SELECT results_eq(
  $$ SELECT target_wf::text COLLATE "C", migrated, failed FROM reverted ORDER BY target_wf::text COLLATE "C" $$,
  $$ SELECT workflow_id COLLATE "C", migrated, 0::bigint FROM expected ORDER BY workflow_id COLLATE "C" $$,
  'all of it can be taken back');
SELECT is(content(), :'before', 'and everything is as before');

----------------------------------------------------------------------------------------------------
-- Once more, in batches: cancelled half-way, and called again
----------------------------------------------------------------------------------------------------

\o /dev/null
\set ON_ERROR_STOP off
SET statement_timeout = '1 s';
CALL mako_migrate_version_batched(:old, :new, batch_size => 200, pause => '100 ms', reason => 'the second night');
RESET statement_timeout;
\o
SELECT count(*) AS moved FROM mako.snapshot WHERE run_id > 0 AND (stream_no, run_id) NOT IN (SELECT stream_no, run_id FROM mako.reverted) \gset
SELECT cmp_ok(:moved, '>', 0, 'cancelled after a second, it has moved some');
SELECT cmp_ok(:moved, '<', (SELECT sum(migrated)::int FROM expected), 'but not all');
CALL mako_migrate_version_batched(:old, :new, batch_size => 2000, reason => 'the second night') \g /dev/null
SELECT results_eq(
  $$ SELECT source_wf COLLATE "C", migrated, failed, count(*) OVER () FROM mako.migration_run WHERE kind = 'batched' AND finished_at IS NOT NULL ORDER BY source_wf COLLATE "C" $$,
  $$ SELECT workflow_id COLLATE "C", migrated, failed, 4::bigint FROM expected ORDER BY workflow_id COLLATE "C" $$,
  'called again, the same runs go on to the end');
SELECT is_empty(
  $$ SELECT r.stream_id FROM rehearsal r JOIN mako.stream s USING (stream_id)
     LEFT JOIN mako.snapshot n ON n.stream_no = s.stream_no AND n.run_id > 0
       AND (n.stream_no, n.run_id) NOT IN (SELECT stream_no, run_id FROM mako.reverted)
     WHERE n.state IS DISTINCT FROM r.new_state $$,
  'stream by stream it is what was rehearsed');
SELECT is_empty($$ SELECT v.* FROM mako.migration_run r, LATERAL mako_verify(r.run_id) v WHERE r.kind = 'batched' $$, 'and follows from the events');

----------------------------------------------------------------------------------------------------
-- What is left, and the end of the version
----------------------------------------------------------------------------------------------------

SELECT results_eq(
  $$ SELECT workflow_id, streams FROM mako_coverage('FV2025-10-01') ORDER BY workflow_id COLLATE "C" $$,
  $$ SELECT workflow_id, failed FROM expected WHERE failed > 0 ORDER BY workflow_id COLLATE "C" $$,
  'what could not be migrated is left');
SELECT throws_ok(format('SELECT mako_retire(%L)', :old), '55000', NULL, 'so the version cannot be retired');
SELECT is(count(mako_exempt(workflow_id, 'settled by hand')), 4::bigint, 'until somebody takes care of it') FROM expected;
SELECT lives_ok(format('SELECT mako_retire(%L, %L)', :old, 'the night is over'), 'then it is');
SELECT results_eq('SELECT status FROM mako.format_version WHERE format_version = ' || quote_literal(:old), $$ VALUES ('retired') $$, 'for good');

SELECT * FROM finish();
