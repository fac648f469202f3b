-- mako_revert() and mako_history(): the golden streams and generated ones go back to what they were, byte for byte; what stands against
-- a stream; and what is told of it afterwards.
-- Runs in an empty database, from the root of the project.

CREATE EXTENSION pgtap;
CREATE EXTENSION mako_migration;

SELECT plan(97);

SELECT mako_create_store();
\ir ../examples/generator/choose.sql
\ir ../examples/register.sql
\ir ../examples/generator/load.sql
\ir ../golden/load.sql
\ir include/helpers.sql

\set fv1 gpke-supplier-change@FV2024-10-01
\set fv2 gpke-supplier-change@FV2025-10-01
\set fv3 gpke-supplier-change@FV2026-10-01

-- Every row of the store but audit and what is marked as reverted, as the server writes it.
CREATE VIEW pg_temp.content AS
SELECT 'stream' AS relation, t::text AS content FROM mako.stream t
UNION ALL SELECT 'event', t::text FROM mako.event t
UNION ALL SELECT 'snapshot', t::text FROM mako.snapshot t WHERE (stream_no, run_id) NOT IN (SELECT stream_no, run_id FROM mako.reverted)
UNION ALL SELECT 'repointed', t::text FROM mako.repointed t WHERE (stream_no, run_id) NOT IN (SELECT stream_no, run_id FROM mako.reverted)
UNION ALL SELECT 'registry', t::text FROM mako.registry t
UNION ALL SELECT 'correlation', t::text FROM mako.correlation t
UNION ALL SELECT 'format_version', t::text FROM mako.format_version t
UNION ALL SELECT 'dependent', t::text FROM mako.dependent t
UNION ALL SELECT 'deadline', t::text FROM generator.deadline t;
CREATE FUNCTION pg_temp.difference(before regclass) RETURNS text LANGUAGE sql AS
  $$ SELECT pg_temp.rows(format('(SELECT * FROM pg_temp.content EXCEPT ALL SELECT * FROM %1$s)
                                 UNION ALL (SELECT * FROM %1$s EXCEPT ALL SELECT * FROM pg_temp.content)', before)) $$;
CREATE FUNCTION pg_temp.count(relation text) RETURNS text LANGUAGE sql AS
  $$ SELECT pg_temp.rows(format('SELECT migrated, skipped, failed FROM %s', relation)) $$;
-- The refusals of a run, by cause.
CREATE FUNCTION pg_temp.refusals(run bigint) RETURNS text LANGUAGE sql AS
  $$ SELECT pg_temp.rows(format('SELECT stream_id, phase, sequence_number, sqlstate, message, detail, hint FROM mako.migration_error
                                 WHERE run_id = %s ORDER BY error_no', run)) $$;

----------------------------------------------------------------------------------------------------
-- Golden streams
----------------------------------------------------------------------------------------------------

-- The routers know the workflow through the view, deadlines as dependents.
INSERT INTO generator.deadline
SELECT gen_random_uuid(), tenant_id, process_id, workflow_id, 'golden', now() FROM mako.stream WHERE process_id IS NOT NULL;
SELECT mako_add_dependent('generator.deadline', 'process_id', 'workflow_id', tenant_column => 'tenant_id');

CREATE TEMPORARY TABLE golden_before AS SELECT * FROM pg_temp.content;
CREATE TEMPORARY TABLE golden_states AS
SELECT s.stream_id, pg_temp.rows(format('SELECT * FROM mako_state(%L)', s.stream_id)) AS state,
       pg_temp.rows(format('SELECT * FROM mako_resume(%L)', s.stream_id)) AS resume,
       pg_temp.rows(format('SELECT * FROM mako_trace(%L)', s.stream_id)) AS trace
FROM mako.migrated_stream m RIGHT JOIN mako.stream s USING (stream_id)
WHERE s.workflow_id = :'fv1' AND s.stream_no % 10 = 0
  AND pg_temp.error(format('SELECT mako_state(%L)', s.stream_id)) IS NULL;

SELECT is(pg_temp.count(format('mako_migrate(%L, %L, reason => ''golden'')', :'fv1', :'fv2')), '1657|284|59', 'golden: migrated');
SELECT isnt(pg_temp.difference('golden_before'), NULL, 'golden: which can be seen');
SELECT is((SELECT count(*) FROM generator.deadline WHERE workflow_id = :'fv2') > 1000, true, 'golden: dependents followed');
CREATE TEMPORARY TABLE golden_migrated AS SELECT * FROM pg_temp.content;
CREATE TEMPORARY TABLE golden_run AS SELECT * FROM mako.migration_run WHERE run_id = 1;

SET mako_migration.batch_size = 7;
CREATE TEMPORARY TABLE golden_report AS SELECT * FROM mako_revert(1, 'wrong rules');
RESET mako_migration.batch_size;
SELECT is(pg_temp.rows('SELECT run_id, source_wf, target_wf, migrated, skipped, failed, errors, started_at IS NULL AS s, duration < ''0'' AS d FROM golden_report'),
          format('2|%s|%s|1657|0|0|[]|false|false', :'fv2', :'fv1'), 'golden: every stream that was migrated is taken back');
SELECT is(pg_temp.difference('golden_before'), NULL, 'golden: every table is as it was before');
SELECT is((SELECT count(*) FROM mako.snapshot JOIN mako.reverted USING (stream_no, run_id) WHERE run_id = 1 AND reverted_by = 2), 1657::bigint, 'golden: the snapshots are kept, marked');
SELECT is((SELECT count(*) FROM mako.migrated_stream), 0::bigint, 'golden: caches are told nothing of it any more');
SELECT results_eq('SELECT * FROM golden_run', 'SELECT * FROM mako.migration_run WHERE run_id = 1', 'golden: the run itself stays as it was recorded');
SELECT is(pg_temp.rows('SELECT run_id, kind, source_wf, target_wf, path, tenant_id, update_registry, in_flight_only, reverts, reason, definitions,
                               migrated, skipped, failed, session_role = session_user AS mine, finished_at >= started_at AS finished,
                               fingerprint = (SELECT fingerprint FROM golden_run) AS same
                        FROM mako.migration_run WHERE run_id = 2'),
          format('2|revert|%1$s|%2$s|["%1$s","%2$s"]||true|false|1|wrong rules|[]|1657|0|0|true|true|true', :'fv2', :'fv1'),
          'golden: undoing is recorded as a run of its own');
SELECT is_empty($$ SELECT stream_id FROM golden_states
                   WHERE state IS DISTINCT FROM pg_temp.rows(format('SELECT * FROM mako_state(%L)', stream_id))
                      OR resume IS DISTINCT FROM pg_temp.rows(format('SELECT * FROM mako_resume(%L)', stream_id))
                      OR trace IS DISTINCT FROM pg_temp.rows(format('SELECT * FROM mako_trace(%L)', stream_id)) $$,
                'golden: states, what an engine resumes from, and traces are those of before');
SELECT cmp_ok((SELECT count(*) FROM golden_states), '>', 100::bigint, 'golden: (there are enough of them)');

SELECT is(pg_temp.count('mako_revert(1)'), '0|1657|0', 'golden: again, there is nothing left to undo');
SELECT is(pg_temp.difference('golden_before'), NULL, 'golden: and nothing changes');

SELECT is(pg_temp.count(format('mako_migrate(%L, %L)', :'fv1', :'fv2')), '1657|284|59', 'golden: what was taken back can be migrated again');
SELECT is_empty($$ (SELECT relation, regexp_replace(content, ',[14],gpke.*@', ',run,') FROM pg_temp.content WHERE relation IN ('stream', 'deadline')
                    EXCEPT SELECT relation, regexp_replace(content, ',[14],gpke.*@', ',run,') FROM golden_migrated) $$,
                'golden: with the same result');
SELECT is((SELECT count(*) FROM mako.snapshot a JOIN mako.snapshot b USING (stream_no, sequence_number, workflow_id, state, state_schema_version)
           WHERE a.run_id = 1 AND b.run_id = 4 AND (b.stream_no, b.run_id) NOT IN (SELECT stream_no, run_id FROM mako.reverted)), 1657::bigint, 'golden: and the same states, in snapshots of its own');

-- A cut-off back and forth: a tenth goes on under the new rules, the rest goes back.
SELECT is((SELECT count(mako_append(stream_id, workflow_id, 'SupplierChangeActivated', '{"type": "Activated"}'))
           FROM mako.stream WHERE workflow_id = :'fv2' AND stream_no % 10 = 3
             AND EXISTS (SELECT FROM mako.snapshot n WHERE n.stream_no = stream.stream_no AND n.run_id = 4)),
          (SELECT count(*) FROM mako.snapshot WHERE run_id = 4 AND stream_no % 10 = 3), 'golden: a tenth goes on under the new rules');
CREATE TEMPORARY TABLE golden_partly AS SELECT * FROM mako_revert(4);
SELECT is((SELECT failed FROM golden_partly), (SELECT count(*) FROM mako.snapshot WHERE run_id = 4 AND stream_no % 10 = 3), 'golden: which is refused, and nothing else');
SELECT is((SELECT migrated + failed FROM golden_partly), 1657::bigint, 'golden: the rest goes back');
SELECT is_empty($$ SELECT FROM mako.migration_error e LEFT JOIN mako.snapshot n ON n.stream_no = e.stream_no AND n.run_id = 4
                   WHERE e.run_id = (SELECT run_id FROM golden_partly)
                     AND (e.phase, e.sqlstate, e.message, e.detail) IS DISTINCT FROM ('registry', '55000', 'an event came after the migration',
                       format('Run 4 migrated the stream at sequence number %s; it is at %s now.', n.sequence_number, n.sequence_number + 1)) $$,
                'golden: each for its event, with the numbers');
SELECT is(pg_temp.count('mako_revert(4)'), format('0|%s|%s', (SELECT migrated FROM golden_partly), (SELECT failed FROM golden_partly)),
          'golden: again, only what was refused is tried');

----------------------------------------------------------------------------------------------------
-- Generated streams: four workflows, poison, deadlines, tags and keys
----------------------------------------------------------------------------------------------------

SELECT generator.choose('back', 2000, poison_rate => 0.09) AS chosen \gset
SELECT * FROM generator.load('back') \gset
CREATE TEMPORARY TABLE generated_before AS SELECT * FROM pg_temp.content;
CREATE TEMPORARY TABLE generated_reports AS SELECT * FROM mako_migrate_version('FV2025-10-01', 'FV2026-10-01');
SELECT cmp_ok((SELECT min(migrated) FROM generated_reports), '>', 100::bigint, 'generated: four workflows, migrated in one call');
SELECT cmp_ok((SELECT sum(failed) FROM generated_reports), '>', 50::numeric, 'generated: with streams that fail');
CREATE TEMPORARY TABLE generated_undone AS
SELECT g.run_id AS undone, g.migrated AS were, r.* FROM generated_reports g, LATERAL mako_revert(g.run_id) r ORDER BY g.run_id DESC;
SELECT is_empty('SELECT * FROM generated_undone WHERE migrated <> were OR failed <> 0', 'generated: each run is undone, whole');
SELECT is(pg_temp.difference('generated_before'), NULL, 'generated: every table is as it was before');
SELECT is_empty($$ SELECT * FROM mako.snapshot WHERE run_id IN (SELECT undone FROM generated_undone) AND (stream_no, run_id) NOT IN (SELECT stream_no, run_id FROM mako.reverted) $$,
                'generated: every snapshot is marked');

----------------------------------------------------------------------------------------------------
-- One by one
----------------------------------------------------------------------------------------------------

CREATE SCHEMA app;
CREATE FUNCTION app.apply(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS
  $$ SELECT jsonb_build_object('letters', (state->>'letters') || (payload->>'letter')) $$;
CREATE FUNCTION app.upper(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS
  $$ SELECT jsonb_build_object('letters', upper(state->>'letters')) $$;
SELECT mako_register_workflow('w@' || v, 'app.apply', initial_state => '{"letters": ""}')
FROM unnest('{FV2021-10-01,FV2022-10-01,FV2023-10-01}'::text[]) v;
SELECT mako_register_migration('w@FV2021-10-01', 'w@FV2022-10-01', 'app.upper');
SELECT mako_register_migration('w@FV2022-10-01', 'w@FV2023-10-01', 'app.upper');
SELECT mako_register_migration('w@FV2023-10-01', 'w@FV2022-10-01');
CREATE PROCEDURE app.spell(stream text, workflow text, letters text) LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO mako.stream (stream_id, workflow_id) VALUES (stream, workflow) ON CONFLICT DO NOTHING;
  PERFORM mako_append(stream, workflow, 'Spelt', jsonb_build_object('letter', l)) FROM unnest(string_to_array(letters, NULL)) l;
END $$;
CREATE TABLE app.note (stream text, workflow text);
SELECT mako_add_dependent('app.note', 'stream', 'workflow');
CALL app.spell('one', 'w@FV2021-10-01', 'ab');
CALL app.spell('two', 'w@FV2021-10-01', 'xyz');
CALL app.spell('empty', 'w@FV2021-10-01', '');
INSERT INTO app.note SELECT stream_id, workflow_id FROM mako.stream WHERE workflow_id = 'w@FV2021-10-01';
-- The runs of this part, counted from here.
CREATE TEMPORARY TABLE until AS SELECT max(run_id) AS run_id FROM mako.migration_run;
CREATE FUNCTION pg_temp.run(n bigint) RETURNS bigint LANGUAGE sql AS $$ SELECT run_id + n FROM until $$;
CREATE FUNCTION pg_temp.heads() RETURNS text LANGUAGE sql AS
  $$ SELECT pg_temp.rows('SELECT stream_id, right(workflow_id, 12) AS w, n.workflow = s.workflow_id AS followed FROM mako.stream s
                          LEFT JOIN app.note n ON n.stream = s.stream_id WHERE workflow_id LIKE ''w@%'' ORDER BY stream_no') $$;

-- Two steps, undone from the last to the first
CREATE TEMPORARY TABLE step0 AS SELECT * FROM pg_temp.content;
SELECT is(pg_temp.rows('SELECT run_id, migrated, failed FROM mako_migrate(''w@FV2021-10-01'', ''w@FV2022-10-01'')'),
          pg_temp.run(1) || '|2|0', 'steps: the first');
CREATE TEMPORARY TABLE step1 AS SELECT * FROM pg_temp.content;
SELECT is(pg_temp.rows('SELECT run_id, migrated, failed FROM mako_migrate(''w@FV2022-10-01'', ''w@FV2023-10-01'')'),
          pg_temp.run(2) || '|2|0', 'steps: the second');
SELECT is(pg_temp.rows(format('SELECT run_id, migrated, skipped, failed FROM mako_revert(%s)', pg_temp.run(1))), pg_temp.run(3) || '|0|0|3',
          'steps: the first cannot be undone before the second');
SELECT is(pg_temp.refusals(pg_temp.run(3)),
  (SELECT string_agg(format('%s|registry|%s|55000|the stream has been migrated again since|Run %s came after run %s; the stream runs under '
                            '"w@FV2023-10-01" now.|Revert run %s first.', s, n, pg_temp.run(2), pg_temp.run(1), pg_temp.run(2)), E'\n' ORDER BY i)
   FROM (VALUES (1, 'one', '2'), (2, 'two', '3'), (3, 'empty', '')) AS v (i, s, n)), 'steps: which says what to do');
SELECT is((SELECT errors[1].message FROM mako_revert(pg_temp.run(1))), 'the stream has been migrated again since', 'steps: the report says so, too');
SELECT is(pg_temp.rows(format('SELECT migrated, skipped, failed FROM mako_revert(%s)', pg_temp.run(2))), '2|1|0',
          'steps: the second can; a stream without events goes back, too, and counts as skipped');
SELECT is(pg_temp.difference('step1'), NULL, 'steps: all is as it was between them');
SELECT is(pg_temp.rows(format('SELECT migrated, skipped, failed FROM mako_revert(%s)', pg_temp.run(1))), '2|1|0', 'steps: then the first');
SELECT is(pg_temp.difference('step0'), NULL, 'steps: all is as it was before');
SELECT is(pg_temp.heads(), E'one|FV2021-10-01|true\ntwo|FV2021-10-01|true\nempty|FV2021-10-01|true', 'steps: dependents too');

-- Right after it: who may write, and what is read
SELECT is(pg_temp.rows($$ SELECT * FROM mako_state('one') $$), '{"letters": "ab"}|2|w@FV2021-10-01|1', 'after: the state is the old one');
SELECT is(split_part(pg_temp.error($$ SELECT mako_append('one', 'w@FV2022-10-01', 'Spelt', '{"letter": "c"}') $$), '|', 1), 'MK005', 'after: the new binary is refused');
SELECT matches(pg_temp.error($$ SELECT mako_append('one', 'w@FV2022-10-01', 'Spelt', '{"letter": "c"}') $$),
               format('Migration run %s moved the stream', pg_temp.run(6)), 'after: and told which run it was');
SELECT is(mako_append('one', 'w@FV2021-10-01', 'Spelt', '{"letter": "c"}'), 3::bigint, 'after: the old one goes on');
SELECT is(pg_temp.rows($$ SELECT sequence_number, workflow_id, state, event_type FROM mako_resume('one') $$),
          E'0|w@FV2021-10-01|{"letters": ""}|\n1|w@FV2021-10-01||Spelt\n2|w@FV2021-10-01||Spelt\n3|w@FV2021-10-01||Spelt', 'after: an engine resumes under the old one');
SELECT is(pg_temp.rows($$ SELECT sequence_number, event_type, workflow_id, run_id, state FROM mako_trace('one') $$),
          E'1|Spelt|w@FV2021-10-01||{"letters": "a"}\n2|Spelt|w@FV2021-10-01||{"letters": "ab"}\n3|Spelt|w@FV2021-10-01||{"letters": "abc"}',
          'after: the trace knows nothing of it');
SELECT is(pg_temp.count($$ mako_migrate('w@FV2021-10-01', 'w@FV2022-10-01') $$), (SELECT format('2|%s|0', count(*) - 2) FROM mako.stream),
          'after: all of them can be migrated again');
SELECT is((SELECT state FROM mako_state('one')), '{"letters": "ABC"}', 'after: with what came in between');

-- The story of one process
SELECT is(pg_temp.rows($$ SELECT kind, sequence_number, workflow_id, event_type, run_id, role = session_user AS mine, reason FROM mako_history('one') $$),
  format(E'spawned||w@FV2021-10-01||||\nevent|1|w@FV2021-10-01|Spelt|||\nevent|2|w@FV2021-10-01|Spelt|||\n'
         'migrated|2|w@FV2022-10-01||%s|true|\nmigrated|2|w@FV2023-10-01||%s|true|\n'
         'failed|2|w@FV2022-10-01||%s|true|the stream has been migrated again since\n'
         'failed|2|w@FV2022-10-01||%s|true|the stream has been migrated again since\n'
         'reverted|2|w@FV2022-10-01||%s|true|\nreverted|2|w@FV2021-10-01||%s|true|\n'
         'event|3|w@FV2021-10-01|Spelt|||\nmigrated|3|w@FV2022-10-01||%s|true|',
         pg_temp.run(1), pg_temp.run(2), pg_temp.run(3), pg_temp.run(4), pg_temp.run(5), pg_temp.run(6), pg_temp.run(7)),
  'history: what happened, in order');
SELECT is(pg_temp.rows($$ SELECT kind, sequence_number, right(workflow_id, 12) AS w FROM mako_history('empty') WHERE kind <> 'failed' $$),
  E'spawned||FV2021-10-01\nmigrated|0|FV2022-10-01\nmigrated|0|FV2023-10-01\nreverted|0|FV2022-10-01\nreverted|0|FV2021-10-01\nmigrated|0|FV2022-10-01',
  'history: of a stream without events');
SELECT is_empty($$ SELECT * FROM mako.stream s WHERE stream_no % 25 = 0 AND s.version <> (SELECT count(*) FROM mako_history(s.stream_id) WHERE kind = 'event') $$,
                'history: has every event of every stream');
SELECT is_empty($$ SELECT s.stream_id FROM mako.stream s JOIN mako.migration_error e USING (stream_no, stream_id) WHERE e.run_id = 1
                   EXCEPT SELECT stream_id FROM mako.stream s, mako_history(stream_id) h WHERE h.kind = 'failed' AND h.run_id = 1 $$,
                'history: has every failure');
SELECT is(pg_temp.error($$ SELECT mako_history('nobody') $$), '42704|stream "nobody" does not exist|The stream of a process is process/<tenant id>/<process id>; mako_spawn() starts one.', 'history: an unknown stream');
SELECT is(pg_temp.error($$ SELECT mako_history(NULL) $$), '22004|stream_id must not be null', 'history: null');

-- A round trip does not hide that it was migrated since
SELECT is(pg_temp.rows('SELECT run_id, migrated FROM mako_migrate(''w@FV2022-10-01'', ''w@FV2023-10-01'')'), pg_temp.run(8) || '|2', 'round trip: away');
SELECT is(pg_temp.rows('SELECT run_id, migrated FROM mako_migrate(''w@FV2023-10-01'', ''w@FV2022-10-01'')'), pg_temp.run(9) || '|2', 'round trip: and back');
SELECT is((SELECT errors[1].hint FROM mako_revert(pg_temp.run(7))), format('Revert run %s first.', pg_temp.run(9)), 'round trip: the last one comes first');
SELECT is(pg_temp.count('mako_revert(pg_temp.run(9))'), '2|1|0', 'round trip: undone');
SELECT is(pg_temp.count('mako_revert(pg_temp.run(8))'), '2|1|0', 'round trip: both ways');

-- Retired versions, and definitions that are gone
SELECT mako_retire('FV2021-10-01');
SELECT is((SELECT failed FROM mako_revert(pg_temp.run(7))), 3::bigint, 'retired: nothing goes back to a retired version');
SELECT is((SELECT DISTINCT concat_ws('|', sqlstate, message, detail, hint) FROM mako.migration_error WHERE run_id = (SELECT max(run_id) FROM mako.migration_run)),
  format('55000|the format version that the stream would go back to is retired|Run %s led from "w@FV2021-10-01", and "FV2021-10-01" is retired.|'
         'Use mako_reactivate(), and revert again.', pg_temp.run(7)), 'retired: and says why');
SELECT mako_reactivate('FV2021-10-01');
SELECT mako_drain('FV2021-10-01');
BEGIN;
SELECT is(pg_temp.count('mako_revert(pg_temp.run(7))'), '2|1|0', 'draining: a process may go back to a version that only takes no new ones');
ROLLBACK;
SELECT mako_reactivate('FV2021-10-01');
BEGIN;
DELETE FROM mako_workflow WHERE workflow_id = 'w@FV2021-10-01';
SELECT is((SELECT concat_ws('|', failed, errors[3].sqlstate, errors[3].message, errors[3].detail, errors[3].hint) FROM mako_revert(pg_temp.run(7))),
  format('3|55000|a workflow of the run is not registered any more|Workflow "w@FV2021-10-01" is missing; run %s led from "w@FV2021-10-01" to '
         '"w@FV2022-10-01".|Register it again with mako_register_workflow(), and revert again.', pg_temp.run(7)), 'unregistered: the source');
ROLLBACK;
BEGIN;
DELETE FROM mako_workflow WHERE workflow_id = 'w@FV2022-10-01';
SELECT matches((SELECT errors[1].detail FROM mako_revert(pg_temp.run(7))), '^Workflow "w@FV2022-10-01" is missing', 'unregistered: the target');
ROLLBACK;
-- A head that somebody moved behind the triggers' back
BEGIN;
ALTER TABLE mako.stream DISABLE TRIGGER USER;
UPDATE mako.stream SET workflow_id = 'w@FV2023-10-01' WHERE stream_id = 'two';
ALTER TABLE mako.stream ENABLE TRIGGER USER;
SELECT is((SELECT concat_ws('|', migrated, failed, errors[1].stream_id, errors[1].message, errors[1].detail) FROM mako_revert(pg_temp.run(7))),
  format('1|1|two|the stream does not run under the target of the run|Run %s led to "w@FV2022-10-01"; the stream runs under "w@FV2023-10-01" now.', pg_temp.run(7)),
  'moved by hand: left alone');
ROLLBACK;

-- What cannot be written fails alone
BEGIN;
ALTER TABLE app.note ADD CHECK (stream <> 'two' OR workflow <> 'w@FV2021-10-01');
SELECT is((SELECT concat_ws('|', migrated, failed, errors[1].stream_id, errors[1].phase, errors[1].sqlstate) FROM mako_revert(pg_temp.run(7))),
          '1|1|two|registry|23514', 'unwritable: a dependent that refuses');
SELECT is(pg_temp.heads(), E'one|FV2021-10-01|true\ntwo|FV2022-10-01|true\nempty|FV2021-10-01|true', 'unwritable: stays, the others go back');
SELECT is((SELECT count(*) FROM mako.snapshot n JOIN mako.stream s USING (stream_no) WHERE s.stream_id = 'two' AND n.run_id = pg_temp.run(7) AND (n.stream_no, n.run_id) NOT IN (SELECT stream_no, run_id FROM mako.reverted)),
          1::bigint, 'unwritable: with its snapshot');
ROLLBACK;

----------------------------------------------------------------------------------------------------
-- Snapshots only
----------------------------------------------------------------------------------------------------

CALL app.spell('shadow', 'w@FV2021-10-01', 'pq');
CREATE TEMPORARY TABLE shadow_before AS SELECT * FROM pg_temp.content;
SELECT run_id AS shadow FROM mako_migrate('w@FV2021-10-01', 'w@FV2022-10-01', update_registry => false) \gset
CALL app.spell('shadow', 'w@FV2021-10-01', 'r');
SELECT is(pg_temp.rows(format('SELECT migrated, skipped, failed FROM mako_revert(%s)', :shadow)), '1|0|0', 'snapshots only: are taken back although the stream went on');
SELECT is(pg_temp.rows(format('SELECT update_registry, reverts FROM mako.migration_run WHERE run_id = %s + 1', :shadow)), format('false|%s', :shadow), 'snapshots only: recorded so');
SELECT is((SELECT reverted_by FROM mako.reverted WHERE run_id = :shadow), :shadow + 1::bigint, 'snapshots only: the snapshot is marked');
SELECT is(pg_temp.rows($$ SELECT kind FROM mako_history('shadow') $$), E'spawned\nevent\nevent\nevent', 'snapshots only: no part of the story');
SELECT is((SELECT count(*) FROM pg_temp.content WHERE relation = 'snapshot'), (SELECT count(*) FROM shadow_before WHERE relation = 'snapshot'), 'snapshots only: there are as many as before');

----------------------------------------------------------------------------------------------------
-- Workflows without apply
----------------------------------------------------------------------------------------------------

SELECT mako_register_workflow('s@' || v) FROM unnest('{FV2021-10-01,FV2022-10-01,FV2023-10-01}'::text[]) v;
SELECT mako_register_migration('s@FV2021-10-01', 's@FV2022-10-01', 'app.upper');
SELECT mako_register_migration('s@FV2022-10-01', 's@FV2023-10-01');
CALL app.spell('saved', 's@FV2021-10-01', 'ab');
CALL app.spell('overwritten', 's@FV2021-10-01', 'ab');
CALL app.spell('unsaved', 's@FV2021-10-01', 'ab');
SELECT mako_save_snapshot(s, 2, 's@FV2021-10-01', 1, '{"letters": "ab"}') FROM unnest('{saved,overwritten}'::text[]) s;
CREATE TEMPORARY TABLE saved_before AS SELECT * FROM pg_temp.content;
SELECT run_id AS first, migrated, failed FROM mako_migrate('s@FV2021-10-01', 's@FV2022-10-01') \gset
SELECT is(pg_temp.count(format('mako_revert(%s)', :first)), '2|0|0', 'without apply: taken back');
SELECT is(pg_temp.difference('saved_before'), NULL, 'without apply: as it was before');
SELECT is((SELECT state FROM mako_state('saved')), '{"letters": "ab"}', 'without apply: the state is the application''s');
SELECT run_id AS second FROM mako_migrate('s@FV2021-10-01', 's@FV2022-10-01') \gset
SELECT mako_save_snapshot('overwritten', 2, 's@FV2022-10-01', 1, '{"letters": "AB!"}');
-- Moves on without a snapshot of its own, and back
SELECT run_id AS third, migrated AS moved FROM mako_migrate('s@FV2022-10-01', 's@FV2023-10-01') \gset
SELECT is(:moved, 2, 'without apply: repointed');
SELECT is(pg_temp.count(format('mako_revert(%s)', :third)), '2|0|0', 'without apply: and back');
SELECT is(pg_temp.rows(format('SELECT migrated, skipped, failed FROM mako_revert(%s)', :second)), '1|0|1', 'without apply: a state that was overwritten');
SELECT is((SELECT concat_ws('|', stream_id, phase, sequence_number, sqlstate, message, detail, hint) FROM mako.migration_error ORDER BY run_id DESC LIMIT 1),
  'overwritten|registry|2|55000|the state to go back to is lost|Workflow "s@FV2021-10-01" has no apply, and its snapshot at sequence number 2 is not there any more.|'
  'Let the application write it to mako.snapshot again, with run_id 0, and revert again.', 'without apply: would be lost');
SELECT is((SELECT workflow_id FROM mako_state('overwritten')), 's@FV2022-10-01', 'without apply: so the stream stays');
UPDATE mako.snapshot SET workflow_id = 's@FV2021-10-01', state = '{"letters": "ab"}'
FROM mako.stream s WHERE s.stream_no = snapshot.stream_no AND s.stream_id = 'overwritten' AND run_id = 0;
SELECT is(pg_temp.rows(format('SELECT migrated, skipped, failed FROM mako_revert(%s)', :second)), '1|1|0', 'without apply: once it is there again, it goes back');
SELECT is((SELECT state FROM mako_state('overwritten')), '{"letters": "ab"}', 'without apply: to that state');

-- Identity steps of a stream without a snapshot
CALL app.spell('plain', 's@FV2022-10-01', 'ab');
CREATE TEMPORARY TABLE plain_before AS SELECT * FROM pg_temp.content;
SELECT run_id AS plain FROM mako_migrate('s@FV2022-10-01', 's@FV2023-10-01') \gset
SELECT is((SELECT sequence_number FROM mako.repointed WHERE run_id = :plain AND stream_no = (SELECT stream_no FROM mako.stream WHERE stream_id = 'plain')), 2::bigint, 'repointed: without a snapshot');
SELECT is(pg_temp.count(format('mako_revert(%s)', :plain)), '1|0|0', 'repointed: and back');
SELECT is(pg_temp.difference('plain_before'), NULL, 'repointed: as it was before');
SELECT is((SELECT reverted_by FROM mako.reverted WHERE run_id = :plain), :plain + 1::bigint, 'repointed: marked');

-- An identity step to a workflow with apply: what is stored under it must not cost the only state of before.
SELECT mako_register_workflow('s@FV2024-10-01', 'app.apply', initial_state => '{"letters": ""}');
SELECT mako_register_migration('s@FV2023-10-01', 's@FV2024-10-01');
CALL app.spell('taken', 's@FV2023-10-01', 'ab');
CALL app.spell('replaced', 's@FV2023-10-01', 'ab');
SELECT mako_save_snapshot(s, 2, 's@FV2023-10-01', 1, '{"letters": "AB"}') FROM unnest('{taken,replaced}'::text[]) s;
SELECT run_id AS folded FROM mako_migrate('s@FV2023-10-01', 's@FV2024-10-01') \gset
SELECT is(mako_take_snapshot('taken'), 2::bigint, 'a cache is taken');
SELECT mako_save_snapshot('replaced', 2, 's@FV2024-10-01', 1, '{"letters": "other"}');
SELECT is(pg_temp.count(format('mako_revert(%s)', :folded)), '1|0|1', 'repointed: a state that was replaced since is lost');
SELECT is((SELECT concat_ws('|', stream_id, message) FROM mako.migration_error ORDER BY run_id DESC LIMIT 1),
          'replaced|the state to go back to is lost', 'repointed: and says so');
SELECT is((SELECT state FROM mako_state('taken')), '{"letters": "AB"}', 'repointed: the state that was there before a cache was taken is still there');

----------------------------------------------------------------------------------------------------
-- The call
----------------------------------------------------------------------------------------------------

SELECT is(pg_temp.error('SELECT mako_revert(NULL)'), '22004|run_id must not be null', 'call: null');
SELECT is(pg_temp.error('SELECT mako_revert(999999)'), '42704|migration run 999999 does not exist|The table mako.migration_run has all runs.', 'call: an unknown run');
SELECT is(pg_temp.error('SELECT mako_revert(2)'), format('55000|migration run 2 cannot be reverted|It has itself taken streams back from "%s" to "%s".|'
          'Migrate them again with mako_migrate().', :'fv2', :'fv1'), 'call: a run that undid another one');
SELECT is(split_part(pg_temp.error('SELECT (mako_revert(1)).*'), '|', 2), 'mako_revert() was called twice for the same run in one statement', 'call: twice in one statement');
SELECT is(pg_temp.rows('SELECT (mako_revert(r)).migrated FROM unnest(ARRAY[1, 4]) r'), E'0\n0', 'call: two runs in one statement');
BEGIN TRANSACTION READ ONLY;
SELECT is(split_part(pg_temp.error('SELECT mako_revert(1)'), '|', 1), '25006', 'call: not in a read-only transaction');
ROLLBACK;
BEGIN;
DROP TRIGGER snapshot_update_guard ON mako.snapshot;
SELECT is(split_part(pg_temp.error('SELECT mako_revert(4)'), '|', 1), '55000', 'call: a damaged store');
ROLLBACK;

----------------------------------------------------------------------------------------------------
-- The audit trail is final, for the extension's own statements, too
----------------------------------------------------------------------------------------------------

SELECT is(pg_temp.error('UPDATE mako.migration_run SET reason = ''forged'' WHERE run_id = 1'),
          '0A000|cannot update table "mako.migration_run"|The audit trail is written by migrations only.', 'audit: the owner cannot change a run');
CREATE FUNCTION app.forge() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN UPDATE mako.migration_run SET reason = 'forged' WHERE run_id = 1; RETURN NULL; END $$;
CREATE TRIGGER forge AFTER INSERT ON mako.snapshot FOR EACH STATEMENT EXECUTE FUNCTION app.forge();
SELECT is((SELECT concat_ws('|', failed, errors[1].phase, errors[1].sqlstate, errors[1].message, errors[1].detail, errors[1].hint)
           FROM mako_migrate('w@FV2021-10-01', 'w@FV2022-10-01')),
          '1|snapshot|0A000|cannot update table "mako.migration_run"|A run is final once it is finished.|To undo a run, use mako_revert().', 'audit: nor can a trigger of his inside a migration');
SELECT is((SELECT reason FROM mako.migration_run WHERE run_id = 1), 'golden', 'audit: the run is as it was');
DROP TRIGGER forge ON mako.snapshot;

SELECT * FROM finish();
