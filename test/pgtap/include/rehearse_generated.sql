-- Loads the streams of a seed into a new store, rehearses and then runs the migrations of the table pair, and compares: 6 assertions.
-- Expects what rehearse.sql has set up, and the variables seed and break_rate (see ../../examples/generator/check.sql).

\o /dev/null
SELECT mako_create_store();
SELECT * FROM generator.load(:'seed');
ALTER TABLE mako.stream DISABLE TRIGGER USER;
ALTER TABLE mako.event DISABLE TRIGGER USER;
SELECT generator.break_store(:'seed', :break_rate);
ALTER TABLE mako.stream ENABLE TRIGGER USER;
ALTER TABLE mako.event ENABLE TRIGGER USER;
ANALYZE;
SET client_min_messages = error;
CREATE TEMPORARY TABLE generated_dry AS TABLE rehearsal;
CREATE TEMPORARY TABLE generated_summary AS
SELECT p.source_wf, p.target_wf, s.* FROM pair p, mako_dry_run_summary(p.source_wf, p.target_wf) s;
CREATE TEMPORARY TABLE generated_heads AS SELECT stream_no, stream_id, workflow_id FROM mako.stream;
CREATE TEMPORARY TABLE generated_report AS SELECT r.* FROM pair p, mako_migrate(p.source_wf, p.target_wf) r;
RESET client_min_messages;
\o

SELECT bag_eq(
  $$ SELECT source_wf, stream_id, sequence_number, new_state FROM generated_dry WHERE new_state IS NOT NULL $$,
  $$ SELECT r.source_wf::text, stream_id, sequence_number, state
     FROM generated_report r JOIN mako.snapshot n USING (run_id) JOIN mako.stream s USING (stream_no) $$,
  format('seed %s: every snapshot is what the dry run said', :'seed'));
SELECT bag_eq(
  $$ SELECT source_wf, stream_id, (error).phase, (error).sequence_number, (error).sqlstate, (error).message, (error).detail, (error).hint,
            (error).context
     FROM generated_dry WHERE NOT error IS NULL $$,
  $$ SELECT r.source_wf::text, stream_id, phase, sequence_number, sqlstate, message, detail, hint, context
     FROM generated_report r JOIN mako.migration_error e USING (run_id) $$,
  format('seed %s: every error is what the dry run said', :'seed'));
SELECT bag_eq(
  $$ SELECT stream_id FROM generated_dry WHERE new_state IS NULL AND error IS NULL $$,
  $$ SELECT s.stream_id FROM mako.stream s JOIN generated_heads h USING (stream_no)
     WHERE s.workflow_id <> h.workflow_id AND NOT EXISTS (SELECT FROM mako.snapshot n WHERE n.stream_no = s.stream_no AND n.run_id > 0) $$,
  format('seed %s: the others are repointed', :'seed'));
SELECT is_empty(
  $$ SELECT * FROM (SELECT n, row_number() OVER (PARTITION BY d.source_wf ORDER BY stream_no) AS place
                    FROM generated_dry d JOIN generated_heads USING (stream_id)) x WHERE n <> place $$,
  format('seed %s: in the order of the streams', :'seed'));
SELECT is_empty(
  $$ SELECT * FROM generated_dry
     WHERE jsonb_strip_nulls(pg_temp.apply_patch(old_state, changes)) <> jsonb_strip_nulls(new_state) $$,
  format('seed %s: the changes lead from the old state to the new one', :'seed'));
SELECT bag_eq(
  $$ SELECT source_wf, sum(streams) FILTER (WHERE outcome = 'migrate') AS migrated, sum(streams) FILTER (WHERE outcome = 'fail') AS failed FROM generated_summary GROUP BY 1 $$,
  $$ SELECT source_wf::text, nullif(migrated, 0)::numeric AS migrated, nullif(failed, 0)::numeric AS failed FROM generated_report $$,
  format('seed %s: the summaries have the counts of the reports', :'seed'));

\o /dev/null
SET client_min_messages = warning;
DROP TABLE generated_dry, generated_summary, generated_heads, generated_report;
DROP SCHEMA mako CASCADE;
TRUNCATE generator.deadline;
RESET client_min_messages;
\o
