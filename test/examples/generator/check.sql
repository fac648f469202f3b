-- Loads the streams of a seed into a new store, migrates all four workflows and compares what came of it with the oracle:
-- 11 assertions. Expects, in a database without a store, the example workflows, the generator and these variables:
--
--   seed         what generator.choose() was called with
--   break_rate   the share of streams that are broken behind the triggers' back, 0 for none

\o /dev/null
SELECT mako_create_store();
SELECT mako_add_dependent('generator.deadline', 'process_id', 'workflow_id', tenant_column => 'tenant_id');
SELECT * FROM generator.load(:'seed');

ALTER TABLE mako.stream DISABLE TRIGGER USER;
ALTER TABLE mako.event DISABLE TRIGGER USER;
SELECT generator.break_store(:'seed', :break_rate);
ALTER TABLE mako.stream ENABLE TRIGGER USER;
ALTER TABLE mako.event ENABLE TRIGGER USER;
ANALYZE;

CREATE TEMPORARY TABLE expectation AS
SELECT e.stream_id, e.process_id, e.new_layout, e.state, e.poison,
       coalesce(b.outcome, e.outcome) AS outcome,
       CASE WHEN b.outcome IS NULL THEN e.phase WHEN b.outcome = 'failed' THEN 'load' END AS phase,
       CASE WHEN b.outcome IS NULL THEN e.sequence_number ELSE b.sequence_number END AS sequence_number,
       CASE WHEN b.outcome IS NULL THEN e.sqlstate WHEN b.outcome = 'failed' THEN 'XX001' END AS sqlstate,
       coalesce(b.workflow_id, e.workflow_id) AS workflow_id,
       coalesce(b.workflow_id_after, e.workflow_id_after) AS workflow_id_after,
       -- a deadline does not know of a head that was moved behind its back
       CASE WHEN b.outcome IS NULL OR b.outcome = 'migrated' THEN e.workflow_id_after ELSE e.workflow_id END AS deadline_workflow_id,
       coalesce(b.version, e.version) AS version
FROM oracle AS e
LEFT JOIN generator.expected_broken AS b USING (seed, stream_id)
WHERE e.seed = :'seed';
ANALYZE expectation;

CREATE TEMPORARY TABLE pair (source_wf, target_wf, state_schema_version) AS VALUES
  ('gpke-supplier-change@FV2025-10-01', 'gpke-supplier-change@FV2026-10-01', 3),
  -- two steps
  ('gpke-supplier-change@FV2024-10-01', 'gpke-supplier-change@FV2026-10-01', 3),
  ('gpke-lf-anmeldung@FV2025-10-01', 'gpke-lf-anmeldung@FV2026-10-01', 2),
  ('geli-gas-supplier-change@FV2025-10-01', 'geli-gas-supplier-change@FV2026-10-01', 2),
  ('wim-device-change@FV2025-10-01', 'wim-device-change@FV2026-10-01', 2);

CREATE TEMPORARY TABLE report AS
SELECT r.* FROM pair, mako_migrate(pair.source_wf, pair.target_wf) AS r;
\o

SELECT bag_eq(
  $$ SELECT source_wf::text, migrated, skipped, failed FROM report $$,
  $$ SELECT pair.source_wf,
            count(*) FILTER (WHERE workflow_id = pair.source_wf AND outcome = 'migrated') AS migrated,
            count(*) FILTER (WHERE workflow_id <> pair.source_wf OR outcome = 'skipped') AS skipped,
            count(*) FILTER (WHERE workflow_id = pair.source_wf AND outcome = 'failed') AS failed
     FROM pair CROSS JOIN expectation
     GROUP BY pair.source_wf $$,
  format('seed %s: the reports count what the oracle counts', :'seed'));

SELECT bag_eq(
  $$ SELECT stream_id, phase, sequence_number, sqlstate FROM mako.migration_error $$,
  $$ SELECT stream_id, phase, sequence_number, sqlstate FROM expectation WHERE outcome = 'failed' $$,
  format('seed %s: the right streams fail, in the right phase, at the right event, for the right reason', :'seed'));

SELECT bag_eq(
  $$ SELECT stream_id, sequence_number, snapshot.workflow_id, state_schema_version, state
     FROM mako.snapshot JOIN mako.stream USING (stream_no)
     WHERE run_id > 0 $$,
  $$ SELECT stream_id, version, workflow_id_after, state_schema_version, state
     FROM expectation JOIN pair ON source_wf = workflow_id
     WHERE outcome = 'migrated' $$,
  format('seed %s: every snapshot is what the oracle says', :'seed'));

SELECT bag_eq(
  $$ SELECT stream_id, workflow_id, version FROM mako.stream $$,
  $$ SELECT stream_id, workflow_id_after, version FROM expectation $$,
  format('seed %s: every head is where the oracle says', :'seed'));

SELECT bag_eq(
  $$ SELECT process_id, workflow_id FROM mako.process_identity WHERE key = process_id::text $$,
  $$ SELECT process_id, workflow_id_after
     FROM expectation JOIN generator.stream USING (stream_id, process_id)
     WHERE generator.unit(routing, 0) < 0.98 $$,
  format('seed %s: every process is found under its version', :'seed'));

SELECT bag_eq(
  $$ SELECT deadline_id, workflow_id, label, due_at FROM generator.deadline $$,
  $$ SELECT deadline_id, deadline_workflow_id, label, due_at
     FROM generator.expected_deadline JOIN expectation USING (process_id) $$,
  format('seed %s: every deadline has followed its process', :'seed'));

SELECT bag_eq(
  $$ SELECT stream_id FROM mako.snapshot JOIN mako.stream USING (stream_no)
     WHERE run_id = 0 AND state = '{"status": "Frobnicated", "data": []}' $$,
  $$ SELECT stream_id FROM expectation WHERE poison = 'foreign_snapshot' $$,
  format('seed %s: nobody has touched the periodic snapshots', :'seed'));

-- Nothing of the failed ones has been left behind, so that they fail again in the same way.
CREATE TEMPORARY TABLE second_report AS
SELECT r.* FROM pair, mako_migrate(pair.source_wf, pair.target_wf) AS r;

SELECT bag_eq(
  $$ SELECT source_wf::text, 0::bigint AS migrated, failed FROM report $$,
  $$ SELECT source_wf::text, migrated, failed FROM second_report $$,
  format('seed %s: a second run migrates nothing', :'seed'));

SELECT bag_eq(
  $$ SELECT stream_id, phase, sequence_number, sqlstate, message, detail FROM mako.migration_error
     WHERE run_id IN (SELECT run_id FROM report) $$,
  $$ SELECT stream_id, phase, sequence_number, sqlstate, message, detail FROM mako.migration_error
     WHERE run_id IN (SELECT run_id FROM second_report) $$,
  format('seed %s: a second run fails as the first one did', :'seed'));

-- What was migrated is proven, unless the workflow of its events changed elsewhere.
SELECT bag_eq(
  $$ SELECT stream_id, problem FROM report CROSS JOIN LATERAL mako_verify(report.run_id) $$,
  format($$ SELECT stream_id, 'not where the workflow changed' FROM generator.broken
            WHERE seed = %L AND breakage = 'later_version' AND version > 1 $$, :'seed'),
  format('seed %s: the proof finds what was broken, and nothing else', :'seed'));

-- What began in the new layout was not migrated; its state shows that the new version understands it.
SELECT bag_eq(
  $$ SELECT stream_id, mako_fold(min(e.workflow_id),
              jsonb_agg(jsonb_build_object('event_type', event_type, 'payload', payload) ORDER BY sequence_number))
     FROM mako.stream AS s JOIN mako.event AS e USING (stream_no)
     WHERE stream_id IN (SELECT stream_id FROM expectation WHERE new_layout)
     GROUP BY stream_id $$,
  $$ SELECT stream_id, state FROM expectation WHERE new_layout AND version > 0 $$,
  format('seed %s: streams of the new layout fold to what the oracle says', :'seed'));

\o /dev/null
SET client_min_messages = warning;
DROP TABLE expectation, pair, report, second_report;
DROP SCHEMA mako CASCADE;
TRUNCATE generator.deadline;
RESET client_min_messages;
\o
