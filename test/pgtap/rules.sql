-- The rules of a migration, with the gpke example, the golden streams and a toy workflow whose events say what goes wrong.
-- Runs in an empty database, from the root of the project.

CREATE EXTENSION pgtap;
CREATE EXTENSION mako_migration;

SELECT plan(172);

SELECT mako_create_store();
\ir ../examples/gpke/supplier_change.sql
\ir ../examples/gpke/register.sql
\ir ../examples/gpke/generate.sql

\ir include/helpers.sql

-- Migrates, and tells migrated, skipped and failed, and the errors. Other arguments as text.
CREATE FUNCTION pg_temp.run(source text, target text, arguments text DEFAULT '') RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  IF to_regclass('pg_temp.report') IS NOT NULL THEN
    DROP TABLE pg_temp.report;
  END IF;
  EXECUTE format('CREATE TEMPORARY TABLE report AS SELECT * FROM mako_migrate(%L, %L %s)', source, target,
                 CASE WHEN arguments = '' THEN '' ELSE ', ' || arguments END);
  RETURN concat_ws(E'\n', (SELECT format('%s %s %s', migrated, skipped, failed) FROM pg_temp.report),
                   (SELECT string_agg(concat_ws(' ', e.stream_id, e.phase, e.sequence_number, e.sqlstate, e.message), E'\n' ORDER BY ordinality)
                    FROM pg_temp.report, unnest(errors) WITH ORDINALITY e));
END
$$;
-- The toy workflow's first step, which most runs take.
CREATE FUNCTION pg_temp.run(arguments text DEFAULT '') RETURNS text LANGUAGE sql AS $$
  SELECT pg_temp.run('t@FV2024-10-01', 't@FV2025-10-01', arguments)
$$;

-- Every row of the store and of the dependents, down to its place and the transaction that wrote it, but the audit trail.
CREATE FUNCTION pg_temp.rows_as_they_are() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  t text;
  sum text;
  all_sums text := '';
BEGIN
  FOREACH t IN ARRAY '{mako.stream,mako.event,mako.snapshot,mako.repointed,mako.reverted,mako.registry,mako.correlation,mako.format_version,mako.dependent,gpke.deadline}'::text[] LOOP
    EXECUTE format('SELECT md5(string_agg(concat(t.ctid, t.xmin, t), '','' ORDER BY t.ctid)) FROM %s t', t) INTO sum;
    all_sums := concat(all_sums, t, ' ', sum, E'\n');
  END LOOP;
  RETURN all_sums;
END
$$;

-- What a run leaves behind, without its number and its time: heads, its snapshots, its errors, routing, dependents.
CREATE FUNCTION pg_temp.outcome() RETURNS text LANGUAGE sql AS $$
  WITH run AS (SELECT max(run_id) AS run_id FROM mako.migration_run)
  SELECT concat_ws(E'\n',
    (SELECT md5(string_agg(concat_ws(',', stream_id, workflow_id, version), ';' ORDER BY stream_id)) FROM mako.stream),
    (SELECT md5(string_agg(concat_ws(',', s.stream_id, sequence_number, n.workflow_id, state_schema_version, state), ';' ORDER BY s.stream_id))
     FROM mako.snapshot n JOIN mako.stream s USING (stream_no) JOIN run USING (run_id)),
    (SELECT md5(string_agg(concat_ws(',', stream_id, phase, sequence_number, sqlstate, message, detail, hint), ';' ORDER BY error_no))
     FROM mako.migration_error JOIN run USING (run_id)),
    (SELECT md5(string_agg(p::text, ';' ORDER BY p::text COLLATE "C")) FROM mako.process_identity p),
    (SELECT md5(string_agg(d::text, ';' ORDER BY d::text COLLATE "C")) FROM gpke.deadline d),
    (SELECT concat_ws(' ', migrated, skipped, failed) FROM mako.migration_run JOIN run USING (run_id)))
$$;

\set fv1 gpke-supplier-change@FV2024-10-01
\set fv2 gpke-supplier-change@FV2025-10-01
\set fv3 gpke-supplier-change@FV2026-10-01

----------------------------------------------------------------------------------------------------
-- The golden streams: borders between batches change nothing
----------------------------------------------------------------------------------------------------

BEGIN;
\ir ../golden/load.sql

SAVEPOINT loaded;
SELECT split_part(pg_temp.run(:'fv1', :'fv2'), E'\n', 1) AS golden_counts, pg_temp.outcome() AS golden_outcome \gset
SELECT is(:'golden_counts'::text, '1657 284 59', 'the counts of the golden streams');
SELECT results_eq($$ SELECT cardinality(errors)::bigint, failed FROM report $$, $$ VALUES (59::bigint, 59::bigint) $$, 'all errors are in the report');
ROLLBACK TO loaded;

SET LOCAL mako_migration.batch_size = 1;
SELECT is(split_part(pg_temp.run(:'fv1', :'fv2'), E'\n', 1), :'golden_counts', 'batches of 1: the same counts');
SELECT is(pg_temp.outcome(), :'golden_outcome', 'and the same outcome');
ROLLBACK TO loaded;

SET LOCAL mako_migration.batch_size = 7;
SET LOCAL mako_migration.max_memory = '1MB';
SELECT is(split_part(pg_temp.run(:'fv1', :'fv2'), E'\n', 1), :'golden_counts', 'batches of 7 in 1 MB: the same counts');
SELECT is(pg_temp.outcome(), :'golden_outcome', 'and the same outcome');
ROLLBACK TO loaded;

SET LOCAL mako_migration.batch_size = 1999;
SET LOCAL mako_migration.max_memory = '1MB';
SELECT is(split_part(pg_temp.run(:'fv1', :'fv2'), E'\n', 1), :'golden_counts', 'batches of 1999 in 1 MB: the same counts');
SELECT is(pg_temp.outcome(), :'golden_outcome', 'and the same outcome');

-- Once more: what failed fails again, nothing else happens.
SELECT pg_temp.rows_as_they_are() AS before \gset
SELECT is(split_part(pg_temp.run(:'fv1', :'fv2'), E'\n', 1), '0 1941 59', 'a second identical run migrates nothing');
SELECT is(pg_temp.rows_as_they_are(), :'before', 'and changes no row');
SELECT results_eq('SELECT count(*) FROM mako.migration_run', 'VALUES (2::bigint)', 'but its entry in the audit trail');
ROLLBACK;

----------------------------------------------------------------------------------------------------
-- One version after the other
----------------------------------------------------------------------------------------------------

SELECT streams AS generated FROM gpke.generate(300) \gset
SELECT mako_add_dependent('gpke.deadline', 'process_id', 'workflow_id', tenant_column => 'tenant_id');

-- Folding by hand: apply is what an aggregate wants. A first pseudo event carries the state to go on from.
CREATE AGGREGATE pg_temp.fold_2024(text, jsonb) (SFUNC = gpke.supplier_change_apply_2024, STYPE = jsonb, INITCOND = '{"status":"New"}');
CREATE FUNCTION pg_temp.apply_2025(state jsonb, type text, payload jsonb) RETURNS jsonb LANGUAGE sql AS $$
  SELECT CASE type WHEN 'state' THEN payload ELSE gpke.supplier_change_apply_2025(state, type, payload) END $$;
CREATE AGGREGATE pg_temp.fold_2025(text, jsonb) (SFUNC = pg_temp.apply_2025, STYPE = jsonb, INITCOND = '{"status":"New"}');

BEGIN;
SELECT count(*) AS n1, sum(version) AS events FROM mako.stream WHERE workflow_id = :'fv1' \gset
SELECT is(pg_temp.run(:'fv1', :'fv2'), format('%s %s 0', :'n1', 300 - :n1), 'FV1 -> FV2');

SELECT set_eq(
  format($$ SELECT n.stream_no, n.sequence_number, n.state_schema_version, n.state FROM mako.snapshot n WHERE workflow_id = %L $$, :'fv2'),
  format($$ SELECT stream_no, max(sequence_number), 2,
                   gpke.supplier_change_migrate_2024_2025(pg_temp.fold_2024(event_type, gpke.supplier_change_upcast(event_type, schema_version, payload)
                                                                            ORDER BY sequence_number))
            FROM mako.event WHERE workflow_id = %L GROUP BY stream_no $$, :'fv1'),
  'every snapshot equals folding and migrating by hand');
SELECT is_empty($$ SELECT * FROM gpke.deadline d JOIN mako.stream s USING (tenant_id, process_id) WHERE d.workflow_id <> s.workflow_id $$,
                'every deadline has followed its process');
SELECT set_eq('SELECT run_id, stream_id, source_wf COLLATE "default", target_wf COLLATE "default", sequence_number FROM mako.migrated_stream',
              format($$ SELECT r.run_id, s.stream_id, %L::text AS source_wf, %L::text AS target_wf, s.version FROM report r, mako.stream s
                        WHERE EXISTS (SELECT FROM mako.snapshot n WHERE n.stream_no = s.stream_no) $$, :'fv1', :'fv2'),
              'mako.migrated_stream shows who has moved');

-- Life goes on under FV2, for every stream that is there.
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
SELECT stream_no, version + n, workflow_id, 'SupplierChange' || type, jsonb_build_object('type', type, 'data', data)
FROM mako.stream, (VALUES
  (1, 'ValidationPassed', '{"message_ref": "UTILMD-1"}'::jsonb),
  (2, 'AntwortGesendet', '{"response_pid": 55002, "accepted": true, "reason": null}'),
  (3, 'DeadlineExpired', '{"deadline_id": "00000000-0000-4000-8000-000000000001", "label": "x"}')) e (n, type, data)
WHERE workflow_id = :'fv2' AND stream_no % 3 <= 3 - n;

SELECT is(pg_temp.run(:'fv2', :'fv3'), '300 0 0', 'FV2 -> FV3, with new events');
SELECT set_eq(
  format($$ SELECT stream_no, sequence_number, state FROM mako.snapshot WHERE workflow_id = %L $$, :'fv3'),
  format($$ WITH boundary AS (SELECT * FROM mako.snapshot WHERE workflow_id = %L),
                 step AS (SELECT stream_no, sequence_number, 'state' AS event_type, state AS payload FROM boundary
                          UNION ALL
                          SELECT e.stream_no, e.sequence_number, e.event_type,
                                 gpke.supplier_change_upcast(event_type, schema_version, payload)
                          FROM mako.event e LEFT JOIN boundary b USING (stream_no)
                          WHERE e.sequence_number > coalesce(b.sequence_number, 0))
            SELECT stream_no, max(sequence_number),
                   gpke.supplier_change_migrate_2025_2026(pg_temp.fold_2025(event_type, payload ORDER BY sequence_number, event_type = 'state' DESC))
            FROM step GROUP BY stream_no $$, :'fv2'),
  'which equals folding the tail from the boundary by hand');
SELECT is_empty(format('SELECT FROM mako.stream WHERE workflow_id <> %L', :'fv3'), 'nobody is left behind');
ROLLBACK;

-- A path of two steps.
BEGIN;
DO $$ BEGIN
  PERFORM mako_migrate('gpke-supplier-change@FV2024-10-01', 'gpke-supplier-change@FV2025-10-01');
  PERFORM mako_migrate('gpke-supplier-change@FV2025-10-01', 'gpke-supplier-change@FV2026-10-01');
END $$;
SELECT md5(string_agg(concat(stream_no, sequence_number, n.workflow_id, state_schema_version, state), ';' ORDER BY stream_no)) AS two_runs
FROM mako.snapshot n JOIN mako.stream s USING (stream_no)
WHERE n.workflow_id = :'fv3' AND EXISTS (SELECT FROM mako.event e WHERE e.stream_no = s.stream_no AND e.workflow_id = :'fv1') \gset
ROLLBACK;
BEGIN;
SELECT is(pg_temp.run(:'fv1', :'fv3'), format('%s %s 0', :'n1', 300 - :n1), 'FV1 -> FV3 in one call');
SELECT is(md5(string_agg(concat(stream_no, sequence_number, workflow_id, state_schema_version, state), ';' ORDER BY stream_no)), :'two_runs',
          'equals two runs') FROM mako.snapshot;
SELECT is(pg_temp.rows('SELECT path FROM mako.migration_run'), format('["%s","%s","%s"]', :'fv1', :'fv2', :'fv3'), 'the path is recorded');
SELECT results_eq('SELECT count(DISTINCT run_id), count(*) FROM mako.snapshot', format('VALUES (1::bigint, %s::bigint)', :n1),
                  'one snapshot a stream, for the target');
ROLLBACK;

-- There, back and there again, without events between.
BEGIN;
CREATE FUNCTION pg_temp.newest() RETURNS text LANGUAGE sql AS $$
  SELECT md5(string_agg(x, ';' ORDER BY x COLLATE "C")) FROM (
    SELECT DISTINCT ON (n.stream_no) concat_ws(',', n.stream_no, n.sequence_number, n.workflow_id, n.state) AS x
    FROM mako.snapshot n JOIN mako.stream s ON s.stream_no = n.stream_no AND s.workflow_id = n.workflow_id
    ORDER BY n.stream_no, n.sequence_number DESC, n.run_id DESC) y
$$;
SELECT is(pg_temp.run(:'fv1', :'fv2'), format('%s %s 0', :'n1', 300 - :n1), 'FV1 -> FV2');
SELECT pg_temp.newest() AS first_time \gset
SELECT is(pg_temp.run(:'fv2', :'fv1'), '300 0 0', '-> FV1, with those that were under FV2 before');
SELECT is(pg_temp.run(:'fv1', :'fv2'), '300 0 0', '-> FV2');
SELECT is(md5(string_agg(x, ';' ORDER BY x COLLATE "C")), :'first_time', 'is where the first step led')
FROM (SELECT concat_ws(',', n.stream_no, n.sequence_number, n.workflow_id, n.state) AS x FROM mako.snapshot n
      WHERE run_id = (SELECT max(run_id) FROM mako.snapshot)
        AND EXISTS (SELECT FROM mako.event e WHERE e.stream_no = n.stream_no AND e.workflow_id = :'fv1')) y;
SELECT results_eq('SELECT count(*) FROM mako.snapshot', format('VALUES (%s::bigint)', 600 + :n1), 'every run leaves its snapshots');
ROLLBACK;

-- update_registry => false first.
BEGIN;
SELECT pg_temp.run(:'fv1', :'fv2') AS x, pg_temp.outcome() AS full_run \gset
ROLLBACK;
BEGIN;
SELECT pg_temp.rows($$ SELECT md5(string_agg(concat(ctid, xmin, s), '')) FROM mako.stream s $$) AS heads,
       pg_temp.rows($$ SELECT md5(string_agg(concat(ctid, xmin, s), '')) FROM gpke.deadline s $$) AS deadlines \gset
SELECT is(pg_temp.run(:'fv1', :'fv2', 'update_registry => false'), format('%s %s 0', :'n1', 300 - :n1), 'update_registry => false migrates');
SELECT is(pg_temp.rows($$ SELECT md5(string_agg(concat(ctid, xmin, s), '')) FROM mako.stream s $$), :'heads', 'but no head moves');
SELECT is(pg_temp.rows($$ SELECT md5(string_agg(concat(ctid, xmin, s), '')) FROM gpke.deadline s $$), :'deadlines', 'nor a dependent');
SELECT results_eq('SELECT count(*) FROM mako.snapshot', format('VALUES (%s::bigint)', :n1), 'snapshots are there');
SELECT is_empty('SELECT * FROM mako.migrated_stream', 'nobody has moved');
SELECT is(pg_temp.run(:'fv1', :'fv2'), format('%s %s 0', :'n1', 300 - :n1), 'a full run afterwards');
SELECT is(pg_temp.outcome(), :'full_run', 'equals a full run alone');
SELECT results_eq('SELECT count(*) FROM mako.migrated_stream', format('VALUES (%s::bigint)', :n1), 'now they have moved, once');
ROLLBACK;

-- in_flight_only and tenant_id.
BEGIN;
SELECT tenant_id AS tenant FROM mako.stream GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 1 \gset
-- In two steps: in HAVING the planner would evaluate mako_reject('...') to estimate how many groups there will be.
SELECT count(*) FILTER (WHERE gpke.supplier_change_in_flight(state)) AS open
FROM (SELECT pg_temp.fold_2024(event_type, gpke.supplier_change_upcast(event_type, schema_version, payload) ORDER BY sequence_number) AS state
      FROM mako.event WHERE workflow_id = :'fv1' GROUP BY stream_no) x \gset
SELECT cmp_ok(:open, '<', :n1::int, '(some are in flight, some are not)');
SAVEPOINT s;
SELECT is(pg_temp.run(:'fv1', :'fv2', 'in_flight_only => true'), format('%s %s 0', :open, 300 - :open), 'in_flight_only');
SELECT is_empty($$ SELECT FROM mako.snapshot WHERE NOT gpke.supplier_change_in_flight(state) $$, 'takes those in flight');
SELECT is(pg_temp.run(:'fv1', :'fv2'), format('%s %s 0', :n1 - :open, 300 - :n1 + :open), 'and leaves the others where they are');
ROLLBACK TO s;
SELECT is(pg_temp.run(:'fv1', :'fv2', format('tenant_id => %L', :'tenant')), counts, 'tenant_id: matches and skipped are that tenant''s')
FROM (SELECT format('%s %s 0', count(*) FILTER (WHERE workflow_id = :'fv1'), count(*) FILTER (WHERE workflow_id <> :'fv1')) AS counts
      FROM mako.stream WHERE tenant_id = :'tenant' OFFSET 0) y;
SELECT is_empty(format($$ SELECT FROM mako.snapshot JOIN mako.stream USING (stream_no) WHERE tenant_id <> %L $$, :'tenant'), 'no other tenant is touched');
SELECT is(pg_temp.run(:'fv1', :'fv2', $$tenant_id => '00000000-0000-4000-8000-000000000000'$$), '0 0 0', 'a tenant without streams');
ROLLBACK;

----------------------------------------------------------------------------------------------------
-- The toy workflow. "Add:5" is an event Add with payload {"n": 5}; others go wrong as they say.
----------------------------------------------------------------------------------------------------

CREATE SCHEMA toy;
CREATE DOMAIN toy.state AS jsonb CONSTRAINT small CHECK ((VALUE->>'n')::numeric < 1000);

CREATE FUNCTION toy.upcast(event_type text, schema_version int, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN event_type = 'NoUpcast' THEN mako_reject('not to be upcast') ELSE payload END $$;
CREATE FUNCTION toy.apply(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE event_type
    WHEN 'Add' THEN jsonb_build_object('n', (state->'n')::int + (payload->'n')::int)
    WHEN 'Divide' THEN jsonb_build_object('n', (state->'n')::int / (payload->'n')::int)
    WHEN 'Text' THEN jsonb_build_object('n', event_type::int)
    WHEN 'NoUpcast' THEN state
  END $$;
CREATE FUNCTION toy.in_flight(state jsonb) RETURNS boolean LANGUAGE sql STABLE AS $$ SELECT (state->'n')::int < 100 $$;
CREATE FUNCTION toy.migrate(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN (state->'n')::int = 666 THEN mako_reject('the beast stays') ELSE state || '{"v": 2}' END $$;
CREATE FUNCTION toy.apply_2025(state toy.state, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE event_type WHEN 'New' THEN state || jsonb_build_object('new', payload->'n') END $$;
CREATE FUNCTION toy.migrate_2026(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT state || '{"v": 3}' $$;

CREATE FUNCTION toy.put(stream_id text, VARIADIC events text[]) RETURNS void LANGUAGE sql AS $$
  INSERT INTO mako.stream (stream_id, workflow_id) VALUES (stream_id, 't@FV2024-10-01') ON CONFLICT DO NOTHING;
  INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
  SELECT s.stream_no, s.version + ordinality, s.workflow_id, split_part(e, ':', 1),
         CASE WHEN e LIKE '%:%' THEN jsonb_build_object('n', split_part(e, ':', 2)::int) ELSE '{}' END
  FROM mako.stream s, unnest(events) WITH ORDINALITY AS e (e, ordinality)
  WHERE s.stream_id = put.stream_id
$$;

-- Streams of the toy as they are: id, workflow, and their snapshots.
CREATE FUNCTION pg_temp.toys() RETURNS text LANGUAGE sql AS $$
  SELECT string_agg(concat_ws(' ', s.stream_id, split_part(s.workflow_id, '@FV', 2), s.version,
                              (SELECT string_agg(concat_ws(' ', sequence_number, split_part(n.workflow_id, '@FV', 2), state_schema_version, state), ', ' ORDER BY run_id)
                               FROM mako.snapshot n WHERE n.stream_no = s.stream_no)), E'\n' ORDER BY s.stream_id)
  FROM mako.stream s WHERE s.workflow_id LIKE 't@%'
$$;

SELECT mako_register_workflow('t@FV2024-10-01', 'toy.apply', 'toy.upcast', 'toy.in_flight', '{"n": 0}');
SELECT mako_register_workflow('t@FV2025-10-01', 'toy.apply_2025', initial_state => '{"n": 0}', state_schema_version => 2);
SELECT mako_register_workflow('t@FV2026-10-01', 'toy.apply_2025', initial_state => '{"n": 0}', state_schema_version => 2);
SELECT mako_register_migration('t@FV2024-10-01', 't@FV2025-10-01', 'toy.migrate');
SELECT mako_register_migration('t@FV2025-10-01', 't@FV2026-10-01', 'toy.migrate_2026');

-- Only the toy's streams from here on.
BEGIN;
ALTER TABLE mako.stream DISABLE TRIGGER stream_guard;
ALTER TABLE mako.event DISABLE TRIGGER event_guard;
DELETE FROM mako.registry; DELETE FROM mako.correlation; DELETE FROM mako.event; DELETE FROM mako.stream;
SELECT mako_create_store();
COMMIT;
SELECT mako_remove_dependent('gpke.deadline', 'process_id', 'workflow_id');

-- Zero matches.
BEGIN;
SELECT is(pg_temp.run(), '0 0 0', 'zero matches is a report of zeros');
SELECT is(pg_temp.rows('SELECT source_wf, target_wf, migrated, skipped, failed, errors, started_at BETWEEN now() AND clock_timestamp() AS s, duration < interval ''1 minute'' AS d FROM report'),
          't@FV2024-10-01|t@FV2025-10-01|0|0|0|[]|true|true', 'with all its columns');
SELECT is(pg_temp.rows('SELECT migrated, skipped, failed FROM mako.migration_run'), '0|0|0', 'and an entry in the audit trail');
ROLLBACK;

-- Everything that can go wrong with one stream, and nothing of it with its neighbours.
BEGIN;
SELECT toy.put('a good', 'Add:1', 'Add:2'), toy.put('b upcast', 'Add:1', 'NoUpcast'), toy.put('c apply', 'Add:1', 'Add:1', 'Divide:0'),
       toy.put('d null', 'Unheard'), toy.put('e migrate', 'Add:666'), toy.put('f state', 'Add:1000'), toy.put('g snapshot', 'Add:77'),
       toy.put('h registry', 'Add:78'), toy.put('i cast', 'Text'), toy.put('j gap', 'Add:1', 'Add:2', 'Add:3'), toy.put('k good', 'Add:4');
INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('l empty', 't@FV2024-10-01');
ALTER TABLE mako.event DISABLE TRIGGER USER;
DELETE FROM mako.event USING mako.stream s WHERE s.stream_no = event.stream_no AND s.stream_id = 'j gap' AND sequence_number = 2;
ALTER TABLE mako.event ENABLE TRIGGER USER;
ALTER TABLE mako.snapshot ADD CONSTRAINT toy_not_77 CHECK (state->>'n' <> '77');
CREATE TABLE toy.box (stream_id text, wf text CONSTRAINT not_h CHECK (NOT (stream_id = 'h registry' AND wf = 't@FV2025-10-01')));
INSERT INTO toy.box SELECT stream_id, workflow_id FROM mako.stream;
SELECT mako_add_dependent('toy.box', 'stream_id', 'wf');

SELECT is(pg_temp.run(),
$$2 1 9
b upcast upcast 2 MK002 not to be upcast
c apply apply 3 22012 division by zero
d null apply 1 MK001 function toy.apply(pg_catalog.jsonb,pg_catalog.text,pg_catalog.jsonb) returned null
e migrate migrate 1 MK002 the beast stays
f state state 1 23514 value for domain toy.state violates check constraint "small"
i cast apply 1 22P02 invalid input syntax for type integer: "Text"
j gap load 3 XX001 the events of the stream do not run to its head without a gap
g snapshot snapshot 1 23514 new row for relation "snapshot" violates check constraint "toy_not_77"
h registry registry 1 23514 new row for relation "box" violates check constraint "not_h"$$,
  'a bad stream never stops the others');
SELECT is(pg_temp.toys(),
$$a good 2025-10-01 2 2 2025-10-01 2 {"n": 3, "v": 2}
b upcast 2024-10-01 2
c apply 2024-10-01 3
d null 2024-10-01 1
e migrate 2024-10-01 1
f state 2024-10-01 1
g snapshot 2024-10-01 1
h registry 2024-10-01 1
i cast 2024-10-01 1
j gap 2024-10-01 3
k good 2025-10-01 1 1 2025-10-01 2 {"n": 4, "v": 2}
l empty 2025-10-01 0$$, 'and leaves no trace; a head without events moves without a snapshot');
SELECT is(pg_temp.rows('SELECT stream_id, wf FROM toy.box WHERE wf <> ''t@FV2024-10-01'' ORDER BY stream_id'),
          E'a good|t@FV2025-10-01\nk good|t@FV2025-10-01\nl empty|t@FV2025-10-01', 'the dependents of those that moved have followed');
SELECT is(pg_temp.rows('SELECT stream_id, phase, sequence_number, sqlstate, message, detail, hint, context FROM mako.migration_error ORDER BY error_no'),
          pg_temp.rows('SELECT e.* FROM report, unnest(errors) e'), 'the table has the errors of the report');
SELECT is(pg_temp.rows($$ SELECT error_no, s.stream_id FROM mako.migration_error e JOIN mako.stream s USING (stream_no) WHERE e.stream_id <> s.stream_id $$), NULL,
          'under the right stream');
SELECT is(pg_temp.rows($$ SELECT detail FROM mako.migration_error WHERE phase = 'load' $$), 'The head is at version 3. Expected sequence number 2, found 3.', 'a gap says where');
SELECT is(pg_temp.rows($$ SELECT DISTINCT hint FROM mako.migration_error WHERE sqlstate = 'MK001' $$), 'A CASE without ELSE is null for an event type that it does not handle.', 'null says how it comes about');
SELECT is(pg_temp.rows('SELECT s.stream_id, r.sequence_number FROM mako.repointed r JOIN mako.stream s USING (stream_no)'), 'l empty|0', 'the empty one is in mako.repointed');
SELECT is(pg_temp.rows('SELECT stream_id, sequence_number FROM mako.migrated_stream ORDER BY stream_id'), E'a good|2\nk good|1\nl empty|0', 'mako.migrated_stream has all who moved');

-- The report's functions.
CREATE TEMPORARY TABLE report_of_errors AS SELECT ROW(r.*)::mako_migration_report AS r FROM report r;
SELECT is(mako_is_ok(r), false, 'mako_is_ok: false with errors') FROM report_of_errors;
SELECT matches(mako_format(r), '^t@FV2024-10-01 -> t@FV2025-10-01: 2 migrated, 1 skipped, 9 failed in [0-9]+\.[0-9]{3} s \(run [0-9]+\)$', 'mako_format') FROM report_of_errors;
SELECT matches(pg_temp.error('SELECT mako_assert_ok(r) FROM report_of_errors'),
               '^MK006\|9 of 11 streams could not be migrated\|t@FV2024-10-01 -> t@FV2025-10-01: 2 migrated, 1 skipped, 9 failed in [0-9.]+ s \(run \d+\)\. First error: stream "b upcast", phase upcast: not to be upcast\|The errors are in the report',
               'mako_assert_ok raises');
ALTER TABLE mako.snapshot DROP CONSTRAINT toy_not_77;
ALTER TABLE toy.box DROP CONSTRAINT not_h;
SELECT is(split_part(pg_temp.run(), E'\n', 1), '2 3 7', 'what can be written is migrated by the next run');
SELECT is(split_part(pg_temp.run('t@FV2025-10-01', 't@FV2026-10-01'), E'\n', 1), '4 8 0', 'and goes on');
INSERT INTO report_of_errors SELECT ROW(r.*)::mako_migration_report FROM report r;
SELECT is(mako_is_ok(r), true, 'mako_is_ok: true without') FROM report_of_errors WHERE (r).failed = 0;
SELECT is(mako_assert_ok(r), r, 'mako_assert_ok is the report then') FROM report_of_errors WHERE (r).failed = 0;
SELECT is(pg_temp.rows($$ SELECT (m).run_id, (m).source_wf, (m).target_wf, (m).migrated, (m).skipped, (m).failed, cardinality((m).errors),
                                 (m).started_at = (SELECT min((r).started_at) FROM report_of_errors) AS s, (m).duration = (SELECT sum((r).duration) FROM report_of_errors) AS d
                          FROM (SELECT mako_merge(r) AS m FROM report_of_errors OFFSET 0) x $$),
          '|||6|9|9|9|true|true', 'mako_merge adds up');
SELECT is(pg_temp.rows('SELECT mako_merge(r, r) = (SELECT mako_merge(x) FROM (SELECT r UNION ALL SELECT r) x (x)) AS same, (mako_merge(r, r)).source_wf FROM report_of_errors WHERE (r).failed > 0'),
          'true|t@FV2024-10-01', 'function and aggregate agree, equal ids stay');
SELECT is((SELECT mako_merge(r) FROM report_of_errors WHERE false), NULL, 'no report is none');
SELECT is((SELECT mako_merge(r) FROM (SELECT r FROM report_of_errors WHERE (r).failed = 0 UNION ALL SELECT NULL) x), r, 'null is no report')
FROM report_of_errors WHERE (r).failed = 0;
SELECT matches((SELECT mako_format(mako_merge(r)) FROM report_of_errors), '^\* -> \*: 6 migrated, 9 skipped, 9 failed in [0-9.]+ s \(run \*\)$', 'mako_format of a merged one');
ROLLBACK;

-- Gaps in different places, alone and among many, whatever the batch.
CREATE FUNCTION pg_temp.gaps() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  PERFORM toy.put(format('g%s', lpad(n::text, 3, '0')), 'Add:1', 'Add:1', 'Add:1', 'Add:1') FROM generate_series(1, 200) AS n;
  ALTER TABLE mako.event DISABLE TRIGGER USER;
  DELETE FROM mako.event USING mako.stream s WHERE s.stream_no = event.stream_no
    AND (stream_id, sequence_number) IN (('g001', 1), ('g064', 2), ('g065', 4), ('g100', 1), ('g100', 2), ('g100', 3), ('g100', 4), ('g200', 3));
  INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
  SELECT stream_no, version + 1, workflow_id, 'Add', '{"n": 1}' FROM mako.stream WHERE stream_id = 'g101';
  ALTER TABLE mako.event ENABLE TRIGGER USER;
  RETURN pg_temp.run();
END
$$;
\set gap 'XX001 the events of the stream do not run to its head without a gap'
SELECT format(E'194 0 6\ng001 load 2 %1$s\ng064 load 3 %1$s\ng065 load 3 %1$s\ng100 load %1$s\ng101 load 5 %1$s\ng200 load 4 %1$s', :'gap') AS gaps \gset
BEGIN;
SELECT is(pg_temp.gaps(), :'gaps', 'gaps are errors of their streams alone');
SELECT results_eq($$ SELECT count(*) FROM mako.snapshot WHERE sequence_number = 4 AND state = '{"n": 4, "v": 2}' $$, 'VALUES (194::bigint)', 'their neighbours are folded in full');
SELECT is(pg_temp.rows($$ SELECT detail FROM mako.migration_error WHERE stream_id IN ('g065', 'g101') ORDER BY stream_id $$),
          E'The head is at version 4. Expected sequence number 4, found none.\nThe head is at version 4, but there is an event 5.',
          'the detail tells a missing event from one too many');
ROLLBACK;
BEGIN;
SET LOCAL mako_migration.batch_size = 1;
SELECT is(pg_temp.gaps(), :'gaps', 'with batches of 1 too');
ROLLBACK;
BEGIN;
SET LOCAL mako_migration.batch_size = 64;
SELECT is(pg_temp.gaps(), :'gaps', 'with batches of 64 too');
ROLLBACK;

BEGIN;
INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('g', 't@FV2024-10-01');
ALTER TABLE mako.event DISABLE TRIGGER USER;
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload) SELECT stream_no, 1, workflow_id, 'Add', '{"n": 1}' FROM mako.stream;
ALTER TABLE mako.event ENABLE TRIGGER USER;
SELECT is(pg_temp.run(), format(E'0 0 1\ng load 1 %s', :'gap'), 'an event of a stream at version 0 is an error, too');
ROLLBACK;

-- What cannot be written is bisected.
BEGIN;
SELECT toy.put(format('w%s', lpad(n::text, 3, '0')), 'Add:' || n) FROM generate_series(1, 100) AS n;
CREATE FUNCTION toy.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.state->>'n' IN ('17', '64') THEN
    RAISE EXCEPTION 'state % is refused', NEW.state->>'n' USING ERRCODE = 'TOY01', DETAIL = 'A trigger of the owner''s.', HINT = 'None.';
  END IF;
  RETURN NEW;
END
$$;
CREATE TRIGGER refuse AFTER INSERT ON mako.snapshot FOR EACH ROW EXECUTE FUNCTION toy.refuse();
SELECT is(pg_temp.run(), E'98 0 2\nw017 snapshot 1 TOY01 state 17 is refused\nw064 snapshot 1 TOY01 state 64 is refused', 'a trigger on snapshots: exactly those fail');
SELECT is(pg_temp.rows($$ SELECT detail, hint, context ~ 'toy\.refuse\(\) line 4 at RAISE' AS context FROM mako.migration_error $$),
          E'A trigger of the owner''s.|None.|true\nA trigger of the owner''s.|None.|true', 'with detail, hint and context');
SELECT is(pg_temp.rows($$ SELECT stream_id, version, (SELECT count(*) FROM mako.snapshot n WHERE n.stream_no = s.stream_no) FROM mako.stream s WHERE workflow_id = 't@FV2024-10-01' ORDER BY 1 $$),
          E'w017|1|0\nw064|1|0', 'and nothing of them is left');
SELECT results_eq('SELECT count(*), count(DISTINCT stream_no) FROM mako.snapshot', 'VALUES (98::bigint, 98::bigint)', 'the others are written once');
ROLLBACK;

BEGIN;
SELECT toy.put(format('w%s', lpad(n::text, 3, '0')), 'Add:' || n) FROM generate_series(1, 20) AS n;
CREATE FUNCTION toy.swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN CASE WHEN NEW.state->>'n' <> '17' THEN NEW END; END $$;
CREATE TRIGGER swallow BEFORE INSERT ON mako.snapshot FOR EACH ROW EXECUTE FUNCTION toy.swallow();
SELECT matches(pg_temp.run(), E'^19 0 1\nw017 snapshot 1 ', 'a snapshot that a trigger swallows has not been written');
SELECT is(pg_temp.rows($$ SELECT workflow_id FROM mako.stream WHERE stream_id = 'w017' $$), 't@FV2024-10-01', 'so that its stream must not move');
ROLLBACK;

-- A trigger on the audit trail ends the run, whichever of its rows it swallows.
BEGIN;
SELECT toy.put('good', 'Add:1');
SELECT toy.put('bad', 'Bad:1');
CREATE FUNCTION toy.forget() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER forget BEFORE INSERT ON mako.migration_error FOR EACH ROW EXECUTE FUNCTION toy.forget();
SELECT throws_ok($$ SELECT * FROM mako_migrate('t@FV2024-10-01', 't@FV2025-10-01') $$, '09000', 'table "mako.migration_error" did not take every row', 'a swallowed error');
DROP TRIGGER forget ON mako.migration_error;
CREATE TRIGGER forget BEFORE INSERT ON mako.migration_run FOR EACH ROW EXECUTE FUNCTION toy.forget();
SELECT throws_ok($$ SELECT * FROM mako_migrate('t@FV2024-10-01', 't@FV2025-10-01') $$, '09000', 'table "mako.migration_run" did not take every row', 'a swallowed run');
DROP TRIGGER forget ON mako.migration_run;
CREATE TRIGGER forget BEFORE UPDATE ON mako.migration_run FOR EACH ROW EXECUTE FUNCTION toy.forget();
SELECT throws_ok($$ SELECT * FROM mako_migrate('t@FV2024-10-01', 't@FV2025-10-01') $$, '09000', 'table "mako.migration_run" did not take every row', 'or its end');
ROLLBACK;

-- Dependents of all kinds.
BEGIN;
INSERT INTO mako.stream (stream_id, tenant_id, process_id, workflow_id)
SELECT format('process/%s/%s', t, p), t, p, 't@FV2024-10-01'
FROM (VALUES ('00000000-0000-4000-8000-00000000000a'::uuid), ('00000000-0000-4000-8000-00000000000b')) x (t),
     (VALUES ('00000000-0000-4000-8000-000000000001'::uuid)) y (p);
SELECT toy.put(stream_id, 'Add:' || CASE WHEN stream_id LIKE '%00a/%' THEN 1 ELSE 666 END) FROM mako.stream;
CREATE DOMAIN toy.process AS uuid;
CREATE TABLE toy.by_uuid (label text, process_id toy.process, tenant_id uuid, "Workflow Id" varchar(40));
CREATE TABLE toy.by_uuid_no_tenant (label text, process_id uuid, workflow_id mako_workflow_id);
CREATE TABLE toy."By Text" (label text, stream text, wf text);
CREATE TABLE toy.by_number (label text, stream_no bigint, wf text);
INSERT INTO toy.by_uuid SELECT right(tenant_id::text, 1) || w, process_id, tenant_id, w FROM mako.stream, unnest('{t@FV2024-10-01,t@FV2023-10-01,other@FV2024-10-01}'::text[]) w;
INSERT INTO toy.by_uuid_no_tenant SELECT right(tenant_id::text, 1), process_id, workflow_id FROM mako.stream;
INSERT INTO toy."By Text" SELECT right(tenant_id::text, 1), stream_id, workflow_id FROM mako.stream UNION ALL SELECT 'none', 'process/none', 't@FV2024-10-01';
INSERT INTO toy.by_number SELECT right(tenant_id::text, 1), stream_no, workflow_id FROM mako.stream UNION ALL SELECT 'null', NULL, 't@FV2024-10-01';
SELECT lives_ok($$ SELECT mako_add_dependent('toy.by_uuid', 'process_id', 'Workflow Id', 'tenant_id'), mako_add_dependent('toy.by_uuid_no_tenant', 'process_id', 'workflow_id'),
                          mako_add_dependent('toy."By Text"', 'stream', 'wf'), mako_add_dependent('toy.by_number', 'stream_no', 'wf') $$, 'dependents with uuid, text and bigint');
SELECT is(pg_temp.rows('SELECT relation, process_column, workflow_column, tenant_column FROM mako.dependent ORDER BY relation COLLATE "C"'),
          E'toy."By Text"|stream|wf|\ntoy.by_number|stream_no|wf|\ntoy.by_uuid|process_id|Workflow Id|tenant_id\ntoy.by_uuid_no_tenant|process_id|workflow_id|', 'as mako.dependent shows them');
SELECT is(pg_temp.error('SELECT pg_temp.run()'), '55000|rows of a dependent do not tell whose process they follow|Dependent toy.by_uuid_no_tenant has no tenant column, but process id 00000000-0000-4000-8000-000000000001 belongs to several tenants.|Add the dependent again with its tenant column, or with a column of stream ids or stream numbers.', 'where two tenants have a process id, a dependent without a tenant column cannot follow');
SELECT ok(mako_remove_dependent('toy.by_uuid_no_tenant', 'process_id', 'workflow_id'), 'without it');
SELECT is(pg_temp.run(), E'1 0 1\nprocess/00000000-0000-4000-8000-00000000000b/00000000-0000-4000-8000-000000000001 migrate 1 MK002 the beast stays', 'one moves');
SELECT is(pg_temp.rows('SELECT label, "Workflow Id" FROM toy.by_uuid ORDER BY label COLLATE "C"'),
$$aother@FV2024-10-01|other@FV2024-10-01
at@FV2023-10-01|t@FV2023-10-01
at@FV2024-10-01|t@FV2025-10-01
bother@FV2024-10-01|other@FV2024-10-01
bt@FV2023-10-01|t@FV2023-10-01
bt@FV2024-10-01|t@FV2024-10-01$$, 'its rows under the source follow; other workflows and tenants stay');
SELECT is(pg_temp.rows('SELECT label, workflow_id FROM toy.by_uuid_no_tenant ORDER BY label'), E'a|t@FV2024-10-01\nb|t@FV2024-10-01', 'nothing follows that is no dependent');
SELECT is(pg_temp.rows('SELECT label, wf FROM toy."By Text" ORDER BY label'), E'a|t@FV2025-10-01\nb|t@FV2024-10-01\nnone|t@FV2024-10-01', 'by stream id');
SELECT is(pg_temp.rows('SELECT label, wf FROM toy.by_number ORDER BY label'), E'a|t@FV2025-10-01\nb|t@FV2024-10-01\nnull|t@FV2024-10-01', 'by stream number');
SELECT is(mako_remove_dependent('toy.by_number', 'stream_no', 'wf'), true, 'mako_remove_dependent');
SELECT is(mako_remove_dependent('toy.by_number', 'stream_no', 'wf'), false, 'is false for what is not there');
DROP TABLE toy.by_uuid;
SELECT is(pg_temp.error('SELECT pg_temp.run()'), '42704|dependent toy.by_uuid of the store cannot be followed|The relation does not exist.|Restore it, or use mako_remove_dependent().', 'a dropped dependent is a clear error');
SELECT is(pg_temp.run('update_registry => false'), E'0 1 1\nprocess/00000000-0000-4000-8000-00000000000b/00000000-0000-4000-8000-000000000001 migrate 1 MK002 the beast stays', 'not where none is followed');
SELECT is(mako_remove_dependent('toy.by_uuid', 'process_id', 'Workflow Id'), true, 'it can be removed');
ALTER TABLE toy."By Text" RENAME wf TO workflow;
SELECT matches(pg_temp.error('SELECT pg_temp.run()'), '^42704\|dependent toy\."By Text" of the store cannot be followed\|Column "wf" does not exist', 'so is a dropped workflow column');
SELECT throws_ok($$ SELECT mako_add_dependent('toy.by_number', 'nothing', 'wf') $$, '42703', 'relation toy.by_number cannot be a dependent', 'an unknown column');
SELECT throws_ok($$ SELECT mako_add_dependent('toy.by_number', 'stream_no', 'stream_no') $$, '42804', NULL, 'a column of another type');
SELECT throws_ok($$ SELECT mako_add_dependent('toy.by_number', NULL, 'wf') $$, '22004', NULL, 'null');
ROLLBACK;

-- The boundary.
BEGIN;
SELECT toy.put('a', 'Add:1', 'Add:2'), toy.put('b', 'Add:5');
SELECT is(pg_temp.run(), '2 0 0', 'to FV2');
SELECT throws_ok($$ INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload) SELECT stream_no, 3, 't@FV2024-10-01', 'Add', '{"n": 1}' FROM mako.stream WHERE stream_id = 'a' $$,
                 'MK005', NULL, 'an old binary cannot append any more');
SELECT toy.put('a', 'New:9');
-- Periodic snapshots, all wrong: they are a cache for others, no truth for a migration.
INSERT INTO mako.snapshot (stream_no, sequence_number, workflow_id, state_schema_version, state)
SELECT stream_no, n, CASE WHEN n < 5 THEN 't@FV2025-10-01' ELSE 't@FV2024-10-01' END, 2, '{"poison": true}' FROM mako.stream, generate_series(1, 8) AS n;
SELECT is(pg_temp.run('t@FV2025-10-01', 't@FV2026-10-01'), '2 0 0', 'to FV3');
SELECT is(pg_temp.rows($$ SELECT s.stream_id, sequence_number, state FROM mako.snapshot n JOIN mako.stream s USING (stream_no) WHERE n.workflow_id = 't@FV2026-10-01' ORDER BY 1 $$),
          E'a|3|{"n": 3, "v": 3, "new": 9}\nb|1|{"n": 5, "v": 3}', 'folds from the boundary only, and ignores poisoned periodic snapshots');
ROLLBACK;
BEGIN;
SELECT toy.put('a', 'Add:1');
SELECT is(pg_temp.run(), '1 0 0', 'a boundary');
SET LOCAL client_min_messages = error;
SELECT mako_register_workflow('t@FV2025-10-01', 'toy.apply_2025', initial_state => '{"n": 0}', state_schema_version => 3, replace => true);
RESET client_min_messages;
SELECT is(pg_temp.run('t@FV2025-10-01', 't@FV2026-10-01'), E'0 0 1\na load 55000 the snapshot at sequence number 1 has state schema version 2', 'under another state schema version is no state');
ROLLBACK;
BEGIN;
SELECT toy.put('a', 'Add:1');
SELECT is(pg_temp.run('update_registry => false'), '1 0 0', 'a snapshot without the head');
SELECT toy.put('a', 'Add:2');
SELECT is(pg_temp.run(), '1 0 0', 'is no boundary: a full run folds again');
SELECT is(pg_temp.toys(), 'a 2025-10-01 2 1 2025-10-01 2 {"n": 1, "v": 2}, 2 2025-10-01 2 {"n": 3, "v": 2}', 'and supersedes it');
SELECT is(pg_temp.rows('SELECT stream_id, sequence_number FROM mako.migrated_stream'), 'a|2', 'the stream has moved once');
ROLLBACK;

-- Identity, with and without apply.
CREATE FUNCTION toy.sum(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE event_type WHEN 'Add' THEN jsonb_build_object('n', (state->'n')::int + (payload->'n')::int) ELSE mako_reject('not an event of today') END $$;
CREATE FUNCTION pg_temp.put(stream_id text, workflow_id text, VARIADIC events text[]) RETURNS void LANGUAGE sql AS $$
  INSERT INTO mako.stream (stream_id, workflow_id) VALUES (stream_id, workflow_id);
  SELECT toy.put(stream_id, VARIADIC events);
$$;
BEGIN;
SELECT mako_register_workflow('i@' || v, 'toy.sum', initial_state => '{"n": 0}') FROM unnest('{FV2024-10-01,FV2025-10-01}'::text[]) AS v;
SELECT mako_register_migration('i@FV2024-10-01', 'i@FV2025-10-01');
SELECT pg_temp.put('i1', 'i@FV2024-10-01', 'Add:1', 'Add:2'), pg_temp.put('i2', 'i@FV2024-10-01', 'Other');
SELECT is(pg_temp.run('i@FV2024-10-01', 'i@FV2025-10-01'), E'1 0 1\ni2 apply 1 MK002 not an event of today', 'identity with apply folds');
SELECT is(pg_temp.rows('SELECT sequence_number, workflow_id, state FROM mako.snapshot'), '2|i@FV2025-10-01|{"n": 3}', 'and stores the state as it is');
ROLLBACK;

BEGIN;
SELECT mako_register_workflow('i@' || v, initial_state => '{}', state_schema_version => 1 + (v = 'FV2026-10-01')::int) FROM unnest('{FV2024-10-01,FV2025-10-01,FV2026-10-01}'::text[]) AS v;
SELECT mako_register_workflow('i@FV2027-10-01', 'toy.sum', initial_state => '{"n": 100}', state_schema_version => 2);
SELECT mako_register_workflow('i@FV2028-10-01', 'toy.sum', initial_state => '{"n": 100}', state_schema_version => 2);
SELECT mako_register_migration('i@FV2024-10-01', 'i@FV2025-10-01');
SELECT mako_register_migration('i@FV2025-10-01', 'i@FV2026-10-01', 'toy.migrate');
SELECT mako_register_migration('i@FV2026-10-01', 'i@FV2027-10-01');
SELECT mako_register_migration('i@FV2027-10-01', 'i@FV2028-10-01');
SELECT pg_temp.put('i1', 'i@FV2024-10-01', 'Secret', 'Secret'), pg_temp.put('i2', 'i@FV2024-10-01', 'Secret');
INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('i3', 'i@FV2024-10-01');
SELECT is(pg_temp.run('i@FV2024-10-01', 'i@FV2025-10-01'), '2 1 0', 'identity without apply repoints');
SELECT is_empty('SELECT * FROM mako.snapshot', 'without a state');
SELECT is(pg_temp.rows('SELECT stream_id, sequence_number FROM mako.migrated_stream ORDER BY stream_id'), E'i1|2\ni2|1\ni3|0', 'which is recorded');

-- A step with a function takes the application's own snapshot.
SELECT is(pg_temp.run('i@FV2025-10-01', 'i@FV2026-10-01'),
          E'0 1 2\ni1 load 55000 there is no snapshot at the stream''s version 2\ni2 load 55000 there is no snapshot at the stream''s version 1',
          'a function without apply needs a snapshot of the application''s');
SELECT is(pg_temp.rows($$ SELECT detail, hint FROM mako.migration_error ORDER BY error_no LIMIT 1 $$),
          '|Workflow "i@FV2025-10-01" has no apply function, so its application must save the state with mako_save_snapshot().', 'and says so');
SELECT is(pg_temp.rows($$ SELECT workflow_id FROM mako.stream WHERE stream_id = 'i3' $$), 'i@FV2026-10-01', 'a stream without events needs none');
INSERT INTO mako.snapshot (stream_no, sequence_number, workflow_id, state_schema_version, state)
SELECT stream_no, 1, 'i@FV2025-10-01', 1, '{"n": 7}' FROM mako.stream WHERE stream_id IN ('i1', 'i2');
SELECT is(pg_temp.run('i@FV2025-10-01', 'i@FV2026-10-01'), E'1 1 1\ni1 load 55000 there is no snapshot at the stream''s version 2', 'at the version of the head');
SELECT is(pg_temp.rows($$ SELECT detail FROM mako.migration_error ORDER BY run_id DESC LIMIT 1 $$), 'The newest one is at sequence number 1.', 'a stale one does not count');
INSERT INTO mako.snapshot (stream_no, sequence_number, workflow_id, state_schema_version, state)
SELECT stream_no, n, 'i@FV2025-10-01', v, s::jsonb FROM mako.stream, (VALUES (2, 1, '{"n": 8}'), (5, 1, '{"n": 9}')) x (n, v, s) WHERE stream_id = 'i1';
SELECT is(pg_temp.run('i@FV2025-10-01', 'i@FV2026-10-01'), '1 2 0', 'nor does one from beyond the head');
SELECT is(pg_temp.rows($$ SELECT s.stream_id, n.sequence_number, n.state_schema_version, n.state FROM mako.snapshot n JOIN mako.stream s USING (stream_no) WHERE run_id > 0 ORDER BY 1 $$),
          E'i1|2|2|{"n": 8, "v": 2}\ni2|1|2|{"n": 7, "v": 2}', 'its state is migrated');

-- From here on i2 stands for both.
SELECT toy.put('i2', 'Add:1', 'Add:2');
SELECT matches(pg_temp.run('i@FV2026-10-01', 'i@FV2027-10-01'), '^\d \d 0', 'identity without apply, behind a boundary');
SELECT is(pg_temp.rows($$ SELECT n.sequence_number, n.state_schema_version, n.state FROM mako.snapshot n JOIN mako.stream s USING (stream_no)
                          WHERE s.stream_id = 'i2' AND n.workflow_id = 'i@FV2027-10-01' $$), '1|2|{"n": 7, "v": 2}', 'carries the boundary over');
SELECT matches(pg_temp.run('i@FV2027-10-01', 'i@FV2028-10-01'), '^\d \d 0', 'so that a workflow with apply goes on from it');
SELECT is(pg_temp.rows($$ SELECT n.sequence_number, n.state FROM mako.snapshot n JOIN mako.stream s USING (stream_no)
                          WHERE s.stream_id = 'i2' AND n.workflow_id = 'i@FV2028-10-01' $$), '3|{"n": 10}', 'and folds what came since');
ROLLBACK;

-- A run that moved no head leaves no boundary, whatever happens to the definitions before the full run.
BEGIN;
SELECT mako_register_workflow('i@' || v, initial_state => '{}') FROM unnest('{FV2024-10-01,FV2025-10-01,FV2026-10-01}'::text[]) AS v;
SELECT mako_register_migration('i@FV2024-10-01', 'i@FV2025-10-01', 'toy.migrate');
SELECT mako_register_migration('i@FV2025-10-01', 'i@FV2026-10-01');
SELECT pg_temp.put('i1', 'i@FV2024-10-01', 'Secret');
INSERT INTO mako.snapshot (stream_no, sequence_number, workflow_id, state_schema_version, state) SELECT stream_no, 1, workflow_id, 1, '{"n": 7}' FROM mako.stream;
SELECT is(pg_temp.run('i@FV2024-10-01', 'i@FV2025-10-01', 'update_registry => false'), '1 0 0', 'a rehearsal');
SET LOCAL client_min_messages = error;
SELECT mako_register_migration('i@FV2024-10-01', 'i@FV2025-10-01', replace => true);
RESET client_min_messages;
SELECT is(pg_temp.run('i@FV2024-10-01', 'i@FV2025-10-01'), '1 0 0', 'then the full run, with another definition');
SELECT is(pg_temp.run('i@FV2025-10-01', 'i@FV2026-10-01'), '1 0 0', 'and the next version');
SELECT is_empty($$ SELECT state FROM mako.snapshot WHERE workflow_id = 'i@FV2026-10-01' AND state ? 'v' $$, 'which must not start from the rehearsal''s state');
ROLLBACK;

-- max_errors.
CREATE FUNCTION pg_temp.max_errors_detail(n bigint) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
  detail text; state text;
BEGIN
  PERFORM mako_migrate('t@FV2024-10-01', 't@FV2025-10-01', max_errors => n);
  RETURN NULL;
EXCEPTION WHEN SQLSTATE 'MK006' THEN
  GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
  RETURN detail;
END
$$;
BEGIN;
CREATE FUNCTION toy.odd(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN event_type = 'Odd' THEN mako_reject(E'a "quoted" \\ back\tslashed\nreason ü') ELSE state END $$;
SET LOCAL client_min_messages = error;
SELECT mako_register_workflow('t@FV2024-10-01', 'toy.odd', initial_state => '{"n": 0}', replace => true);
RESET client_min_messages;
SELECT toy.put(format('m "%s"', lpad(n::text, 3, '0')), CASE WHEN n % 2 = 0 THEN 'Odd' ELSE 'Even' END) FROM generate_series(1, 60) AS n;
SELECT pg_temp.rows_as_they_are() AS before \gset
SELECT matches(pg_temp.error('SELECT pg_temp.run(''max_errors => 29'')'), '^MK006\|more than 29 streams could not be migrated\|\{.*\}\|Nothing was changed\.', 'one error too many ends the run');
SELECT is(pg_temp.rows_as_they_are(), :'before', 'nothing was changed');
SELECT is_empty('SELECT * FROM mako.migration_run', 'not even the audit trail');
SELECT is(pg_temp.rows($$ SELECT d->'failed' AS f, d ? 'migrated' AS m, jsonb_array_length(d->'errors') AS n, d->'errors'->0 AS first FROM pg_temp.max_errors_detail(29) d $$),
          '30|true|20|{"phase": "apply", "message": "a \"quoted\" \\ back\tslashed\nreason ü", "sqlstate": "MK002", "stream_id": "m \"002\"", "sequence_number": 1}',
          'the detail is JSON with counts and the first 20 errors');
SELECT is(pg_temp.max_errors_detail(0)->'failed', '1', 'max_errors => 0: the first one ends it');
SELECT is(split_part(pg_temp.run('max_errors => 30'), E'\n', 1), '30 0 30', 'as many as allowed do not');
SELECT throws_ok($$ SELECT mako_migrate('t@FV2024-10-01', 't@FV2025-10-01', max_errors => -1) $$, '22023', 'max_errors must not be negative', 'fewer than none are nonsense');
ROLLBACK;

-- What a function refuses counts, although it has called other programs, which ended in an error.
BEGIN;
CREATE FUNCTION toy.flies(state jsonb) RETURNS boolean LANGUAGE sql STABLE AS $$ SELECT 1 / (state->>'n')::int = 1 $$;
CREATE FUNCTION toy.looks_elsewhere() RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
  PERFORM public.mako_coverage('FV2023-10-01');
  RETURN NULL;
END
$$;
CREATE FUNCTION toy.refuses(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT coalesce(toy.looks_elsewhere(), mako_reject('refused'), state) $$;
SET LOCAL client_min_messages = error;
SELECT mako_register_workflow('elsewhere@FV2023-10-01', 'toy.refuses', initial_state => '{"n": 0}', in_flight => 'toy.flies');
SELECT mako_register_workflow('t@FV2024-10-01', 'toy.refuses', initial_state => '{"n": 0}', replace => true);
RESET client_min_messages;
INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('elsewhere', 'elsewhere@FV2023-10-01');
SELECT toy.put('a', 'Add:1');
SELECT is(pg_temp.run(), E'0 1 1\na apply 1 MK002 refused', 'a refusal behind an error of another program is not lost');
ROLLBACK;

-- Many errors, long ones.
BEGIN;
CREATE FUNCTION toy.long(state jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = 'TOY02', MESSAGE = 'x' || repeat('ü', 1500), DETAIL = repeat('d', 1024), HINT = repeat('ß', 600);
END
$$;
SET LOCAL client_min_messages = error;
SELECT mako_register_migration('t@FV2024-10-01', 't@FV2025-10-01', 'toy.long', replace => true);
RESET client_min_messages;
WITH s AS (INSERT INTO mako.stream (stream_id, workflow_id) SELECT 'l' || n, 't@FV2024-10-01' FROM generate_series(1, 1100) AS n RETURNING stream_no)
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload) SELECT stream_no, 1, 't@FV2024-10-01', 'Add', '{"n": 1}' FROM s;
SELECT matches(pg_temp.run(), '^0 0 1100\n', '1,100 errors');
SELECT is(pg_temp.rows($$ SELECT count(*), min(octet_length(e.message)), max(octet_length(e.message)), max(octet_length(e.detail)), max(octet_length(e.hint)),
                                 bool_and(e.message ~ '^xü+$') AS whole FROM report, unnest(errors) e $$),
          '1000|1023|1023|1024|1024|true', 'the report has the first 1,000, cut at 1 kB between characters');
SELECT is(pg_temp.rows($$ SELECT count(*), min(octet_length(message)), max(octet_length(detail)), max(octet_length(hint)), min(error_no), max(error_no) FROM mako.migration_error $$),
          '1100|3001|1024|1200|1|1100', 'the audit trail has all of them in full');
SELECT is(pg_temp.rows($$ SELECT cardinality((mako_merge(r, r)).errors), (mako_merge(r, r)).failed FROM (SELECT ROW(x.*)::mako_migration_report AS r FROM report x OFFSET 0) y $$),
          '1000|2200', 'a merged report has 1,000 at most, too');
ROLLBACK;

-- expect, reason, and the audit trail.
CREATE ROLE mako_test_operator SUPERUSER;
BEGIN;
SELECT toy.put('a', 'Add:1'), toy.put('b', 'Add:666');
SET LOCAL application_name = 'deploy 7';
SET LOCAL ROLE mako_test_operator;
SELECT is(pg_temp.run($$max_errors => 5, in_flight_only => true, expect => mako_fingerprint('t@FV2024-10-01', 't@FV2025-10-01'), reason => 'format change'$$), '1 1 0', 'the expected definitions');
RESET ROLE;
SELECT is(pg_temp.rows($$ SELECT source_wf, target_wf, path, tenant_id, update_registry, in_flight_only, max_errors, reason,
                                 fingerprint = mako_fingerprint('t@FV2024-10-01', 't@FV2025-10-01') AS f, session_role = session_user AS s, effective_role, application_name,
                                 client_address IS NOT DISTINCT FROM inet_client_addr() AS a, server_version = current_setting('server_version') AS v,
                                 extension_version = (SELECT extversion FROM pg_extension WHERE extname = 'mako_migration') AS e, started_at <= finished_at AS t,
                                 migrated, skipped, failed FROM mako.migration_run $$),
          't@FV2024-10-01|t@FV2025-10-01|["t@FV2024-10-01","t@FV2025-10-01"]||true|true|5|format change|true|true|mako_test_operator|deploy 7|true|true|true|true|1|1|0',
          'who, when, why and what are recorded');
SELECT is(pg_temp.rows('SELECT m.run_id = r.run_id AND m.started_at = r.started_at AND m.finished_at - m.started_at = r.duration AS same FROM mako.migration_run m, report r'), 'true', 'as the report says');
SELECT is(pg_temp.rows($$ SELECT kind, cardinality(definitions), split_part(definitions[1], E'\n', 1), split_part(definitions[2], E'\n', 1), split_part(definitions[3], E'\n', 1),
                                 fingerprint = encode(sha256(convert_to((SELECT string_agg(encode(sha256(convert_to(d, 'UTF8')), 'hex'), E'\n' ORDER BY n) || E'\n'
                                   FROM unnest(definitions) WITH ORDINALITY AS u (d, n)), 'UTF8')), 'hex') AS proven,
                                 position((SELECT replace(prosrc, E'\n', E'\n\t\t') FROM pg_proc WHERE oid = 'toy.migrate'::regproc) IN definitions[2]) > 0 AS source
                          FROM mako.migration_run $$),
          'single|3|workflow t@FV2024-10-01|state migration t@FV2024-10-01 -> t@FV2025-10-01|workflow t@FV2025-10-01|true|true',
          'what ran is kept as text, functions with their source, and the fingerprint proves it');
SELECT is(pg_temp.run($$tenant_id => '00000000-0000-4000-8000-000000000000', update_registry => false$$), '0 0 0', 'another run');
SELECT is(pg_temp.rows('SELECT tenant_id, update_registry, in_flight_only, max_errors, reason FROM mako.migration_run ORDER BY run_id DESC LIMIT 1'),
          '00000000-0000-4000-8000-000000000000|false|false||', 'is recorded with what it was asked for');
SELECT matches(pg_temp.error($$ SELECT * FROM mako_migrate('t@FV2024-10-01', 't@FV2025-10-01', expect => 'abc') $$),
               '^55000\|the definitions are not those that were expected\|Expected fingerprint abc, found [0-9a-f]{64}\.', 'other definitions than expected are refused');
ROLLBACK;
DROP ROLE mako_test_operator;

-- Arguments.
SELECT is(pg_temp.error(format('SELECT * FROM mako_migrate(%s)', arguments)), error, format('mako_migrate(%s)', arguments))
FROM (VALUES
  ($$NULL, 't@FV2025-10-01'$$, '22004|source_wf must not be null'),
  ($$'t@FV2024-10-01', 't@FV2025-10-01', update_registry => NULL$$, '22004|update_registry must not be null'),
  ($$'t@FV2024-10-01', 't@FV2024-10-01'$$, '22023|source and target must differ|Both are "t@FV2024-10-01".'),
  ($$'t@FV2024-10-01', 't@FV2030-10-01'$$, '42704|workflow "t@FV2030-10-01" is not registered|The table mako_workflow shows what is registered; mako_register_workflow() adds to it.'),
  ($$'t@FV2030-10-01', 't@FV2024-10-01'$$, '42704|workflow "t@FV2030-10-01" is not registered|The table mako_workflow shows what is registered; mako_register_workflow() adds to it.'),
  ($$'t@FV2026-10-01', 't@FV2024-10-01'$$, '42704|no state migration leads from "t@FV2026-10-01" to "t@FV2024-10-01"|No step is registered from it.|Use mako_register_migration().'),
  ($$'t@FV2025-10-01', 't@FV2024-10-01'$$, '42704|no state migration leads from "t@FV2025-10-01" to "t@FV2024-10-01"|Registered steps from it lead to "t@FV2026-10-01".|Use mako_register_migration().')
) x (arguments, error);
BEGIN;
SELECT mako_register_workflow('t@FV2025-04-01', 'toy.apply_2025', initial_state => '{"n": 0}');
SELECT mako_register_migration('t@FV2024-10-01', 't@FV2025-04-01'), mako_register_migration('t@FV2025-04-01', 't@FV2026-10-01');
SELECT is(pg_temp.error($$ SELECT * FROM mako_migrate('t@FV2024-10-01', 't@FV2026-10-01') $$),
          '22023|more than one shortest path leads from "t@FV2024-10-01" to "t@FV2026-10-01"|Each has 2 steps.|Migrate step by step.', 'two ways of equal length are refused');
SELECT mako_drain('FV2025-04-01'), mako_retire('FV2025-10-01');
SELECT is(pg_temp.error('SELECT pg_temp.run()'), '55000|format version "FV2025-10-01" is retired|Nothing can be written under workflow "t@FV2025-10-01" any more.|Use a format version that is not retired.', 'nothing moves to a retired version');
SELECT is(pg_temp.error($$ SELECT pg_temp.run('t@FV2024-10-01', 't@FV2025-04-01') $$), NULL, 'but to a draining one');
SELECT is(pg_temp.error($$ SELECT pg_temp.run('t@FV2025-10-01', 't@FV2026-10-01') $$), NULL, 'and away from a retired one');
SET TRANSACTION READ ONLY;
SELECT matches(pg_temp.error($$ SELECT mako_migrate('t@FV2024-10-01', 't@FV2025-10-01') $$), '^25006', 'nothing in a read-only transaction');
ROLLBACK;

----------------------------------------------------------------------------------------------------
-- Once per statement
----------------------------------------------------------------------------------------------------

BEGIN;
SELECT toy.put('a', 'Add:1');
SELECT is(pg_temp.error($$ SELECT (mako_migrate('t@FV2024-10-01', 't@FV2025-10-01')).* $$),
          '55000|mako_migrate() was called twice for the same pair in one statement|SELECT (mako_migrate(...)).* calls it once for every column.|Use SELECT * FROM mako_migrate(...).',
          'a call per column is refused');
SELECT is(pg_temp.toys(), 'a 2024-10-01 1', 'and has done nothing');
SELECT lives_ok($$ DO $x$ BEGIN
  PERFORM mako_migrate('t@FV2024-10-01', 't@FV2025-10-01');
  PERFORM mako_migrate('t@FV2024-10-01', 't@FV2025-10-01');
END $x$ $$, 'two statements of a DO block');
SELECT lives_ok($$ SELECT * FROM mako_migrate('t@FV2024-10-01', 't@FV2025-10-01') $$, 'a third statement of the transaction');
SELECT lives_ok($$ SELECT (SELECT migrated FROM mako_migrate('t@FV2024-10-01', 't@FV2025-10-01')), (SELECT migrated FROM mako_migrate('t@FV2025-10-01', 't@FV2026-10-01')) $$,
                'two pairs in one statement');
PREPARE again AS SELECT migrated FROM mako_migrate('t@FV2024-10-01', 't@FV2025-10-01');
EXECUTE again \g /dev/null
SELECT lives_ok('EXECUTE again', 'a prepared statement twice');
ROLLBACK;
SELECT lives_ok($$ DO $x$ BEGIN
  BEGIN
    PERFORM mako_migrate('t@FV2024-10-01', 't@FV2025-10-01', expect => 'wrong');
  EXCEPTION WHEN object_not_in_prerequisite_state THEN NULL;
  END;
  PERFORM mako_migrate('t@FV2024-10-01', 't@FV2025-10-01');
END $x$ $$, 'a call that failed does not count');
BEGIN;
SAVEPOINT s;
SELECT toy.put('a', 'Add:666');
SELECT matches(pg_temp.error('SELECT pg_temp.run(''max_errors => 0'')'), '^MK006', 'a run that max_errors ended');
ROLLBACK TO s;
SELECT is(pg_temp.run(), '0 0 0', 'can be started again in the same transaction');
ROLLBACK;

----------------------------------------------------------------------------------------------------
-- Transaction ids
----------------------------------------------------------------------------------------------------

INSERT INTO mako.stream (stream_id, workflow_id) SELECT 'x' || n, 't@FV2024-10-01' FROM generate_series(1, 5000) AS n;
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload) SELECT stream_no, 1, workflow_id, 'Add', '{"n": 1}' FROM mako.stream;
SELECT pg_current_xact_id() AS xid_before \gset
SELECT migrated FROM mako_migrate('t@FV2024-10-01', 't@FV2025-10-01') \gset
SELECT pg_current_xact_id() AS xid_after \gset
SELECT is(:migrated, 5000, '5,000 streams without errors');
SELECT cmp_ok(:'xid_after'::bigint - :'xid_before'::bigint, '<=', 6::bigint, 'use a few transaction ids')
WHERE NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND backend_xid IS NOT NULL)
UNION ALL
SELECT skip('others use transaction ids too', 1)
WHERE EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND backend_xid IS NOT NULL);

----------------------------------------------------------------------------------------------------
-- Last, because it once ended the server: without apply there is no initial state either
----------------------------------------------------------------------------------------------------

SELECT mako_register_workflow('j@FV2024-10-01'), mako_register_workflow('j@FV2025-10-01');
SELECT mako_register_migration('j@FV2024-10-01', 'j@FV2025-10-01', 'toy.migrate');
SELECT pg_temp.put('j1', 'j@FV2024-10-01', 'Secret');
INSERT INTO mako.snapshot (stream_no, sequence_number, workflow_id, state_schema_version, state)
SELECT stream_no, 1, workflow_id, 1, '{"n": 7}' FROM mako.stream WHERE stream_id = 'j1';
SELECT is(pg_temp.run('j@FV2024-10-01', 'j@FV2025-10-01'), '1 5000 0', 'a workflow without apply and initial state is migrated from its snapshots');

SELECT * FROM finish();
