-- Compares what the migration FV2024-10-01 -> FV2025-10-01 left behind with what the reference made of the same
-- streams: 7 assertions. Expects the report in the temporary table golden_report. Run from the root of the project.
--
-- Each side is brought into the form of a golden line, so that everything is compared as jsonb.

CREATE TEMPORARY TABLE golden_expected (line jsonb NOT NULL);

\copy golden_expected (line) from program 'gzip -dc test/golden/supplier-change-expected.jsonl.gz' with (format csv, quote e'\x01', delimiter e'\x02')

SELECT bag_eq(
  $$ SELECT jsonb_build_object('kind', 'report', 'migrated', migrated, 'skipped', skipped, 'failed', failed)
     FROM golden_report $$,
  $$ SELECT line FROM golden_expected WHERE line->>'kind' = 'report' $$,
  'the report has the counts of the reference');

-- The reference knows two phases only, and states its reason only where migrate refused.
SELECT bag_eq(
  $$ SELECT jsonb_strip_nulls(jsonb_build_object(
              'kind', 'error',
              'stream_id', stream_id,
              'phase', CASE
                         WHEN phase IN ('upcast', 'event', 'apply') THEN 'fold'
                         WHEN phase IN ('migrate', 'state') THEN 'migrate'
                         ELSE phase
                       END,
              'message', CASE WHEN phase = 'migrate' THEN message END))
     FROM mako.migration_error
     WHERE run_id = (SELECT run_id FROM golden_report) $$,
  $$ SELECT line FROM golden_expected WHERE line->>'kind' = 'error' $$,
  'the same streams fail in the same phase, refusals for the same reason');

SELECT is_empty(
  $$ SELECT stream_id, phase, sqlstate, message
     FROM mako.migration_error
     WHERE run_id = (SELECT run_id FROM golden_report)
       AND (phase, sqlstate) NOT IN (('event', 'MK004'), ('migrate', 'MK002')) $$,
  'every failure is a payload outside its type or a refusal, none an accident');

SELECT bag_eq(
  $$ SELECT jsonb_build_array(stream_id, phase, sequence_number, sqlstate, message)
     FROM golden_report, unnest(errors) $$,
  $$ SELECT jsonb_build_array(stream_id, phase, sequence_number, sqlstate, message)
     FROM mako.migration_error
     WHERE run_id = (SELECT run_id FROM golden_report) $$,
  'the report lists the errors that the audit trail has');

SELECT bag_eq(
  $$ SELECT jsonb_build_object(
              'kind', 'snapshot',
              'stream_id', stream.stream_id,
              'sequence_number', snapshot.sequence_number,
              'state_schema_version', snapshot.state_schema_version,
              'state', snapshot.state)
     FROM mako.snapshot JOIN mako.stream USING (stream_no) $$,
  $$ SELECT line FROM golden_expected WHERE line->>'kind' = 'snapshot' $$,
  'every snapshot equals the one of the reference');

-- Who has a snapshot has moved; everybody else stays where the first event put him.
SELECT bag_eq(
  $$ SELECT jsonb_build_array(stream_id, workflow_id) FROM mako.stream $$,
  $$ SELECT DISTINCT jsonb_build_array(
              line->>'stream_id',
              CASE
                WHEN EXISTS (SELECT FROM golden_expected
                             WHERE golden_expected.line->>'kind' = 'snapshot'
                               AND golden_expected.line->>'stream_id' = golden_event.line->>'stream_id')
                THEN 'gpke-supplier-change@FV2025-10-01'
                ELSE (line->>'workflow_name') || '@' || (line->>'format_version')
              END)
     FROM golden_event $$,
  'the heads of migrated streams have moved, all others have stayed');

SELECT bag_eq(
  $$ SELECT jsonb_build_object(
              'kind', 'registry',
              'tenant_id', tenant_id,
              'key', key,
              'process_id', process_id,
              'stream_id', stream_id,
              'workflow_name', split_part(workflow_id, '@', 1),
              'format_version', split_part(workflow_id, '@', 2))
     FROM mako.process_identity
     WHERE key = process_id::text $$,
  $$ SELECT line FROM golden_expected
     WHERE line->>'kind' = 'registry'
       AND EXISTS (SELECT FROM mako.stream WHERE stream.stream_id = golden_expected.line->>'stream_id') $$,
  'every process is found under the version of the reference');
