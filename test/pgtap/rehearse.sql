-- Before a migration: mako_plan(), mako_dry_run() and its summary, and the JSON merge patch. What a dry run says is compared, row by row,
-- with the migration after it, for the golden and for generated streams, good ones, bad ones and broken ones.
-- Runs in an empty database, from the root of the project.

\set streams `echo "${MAKO_STREAMS:-1500}"`

CREATE EXTENSION pgtap;

SELECT plan(113);

-- The oracle's streams are chosen before the extension is there.
\o /dev/null
\ir ../examples/generator/choose.sql
\ir ../examples/generator/expected.sql
SELECT generator.choose(seed, :streams, poison_rate => 0.09) FROM unnest('{a,broken}'::text[]) AS seed;

CREATE EXTENSION mako_migration;
\ir include/helpers.sql
\ir ../examples/register.sql
\ir ../examples/generator/load.sql
\ir ../examples/generator/break.sql
\o

\set fv1 gpke-supplier-change@FV2024-10-01
\set fv2 gpke-supplier-change@FV2025-10-01
\set fv3 gpke-supplier-change@FV2026-10-01

----------------------------------------------------------------------------------------------------
-- The merge patch
----------------------------------------------------------------------------------------------------

-- RFC 7396, section 2, as it is written there.
CREATE FUNCTION pg_temp.apply_patch(target jsonb, patch jsonb) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  name text; value jsonb;
BEGIN
  IF jsonb_typeof(patch) <> 'object' THEN
    RETURN patch;
  END IF;
  IF jsonb_typeof(target) IS DISTINCT FROM 'object' THEN
    target := '{}';
  END IF;
  FOR name, value IN SELECT * FROM jsonb_each(patch) LOOP
    target := CASE WHEN value = 'null' THEN target - name
                   ELSE target || jsonb_build_object(name, pg_temp.apply_patch(target->name, value)) END;
  END LOOP;
  RETURN target;
END
$$;

SELECT is(mako_merge_patch(source, target), patch, format('%s to %s', source, target))
FROM (VALUES
  (1, '{"a": "b"}'::jsonb, '{"a": "c"}'::jsonb, '{"a": "c"}'::jsonb),
  (2, '{"a": "b"}', '{"a": "b", "b": "c"}', '{"b": "c"}'),
  (3, '{"a": "b"}', '{}', '{"a": null}'),
  (4, '{"a": "b", "b": "c"}', '{"b": "c"}', '{"a": null}'),
  (5, '{"a": ["b"]}', '{"a": "c"}', '{"a": "c"}'),
  (6, '{"a": {"b": "c"}}', '{"a": {"b": "d"}}', '{"a": {"b": "d"}}'),
  (7, '{"a": {"b": "c", "d": 1}}', '{"a": {"d": 1}}', '{"a": {"b": null}}'),
  (8, '{"a": [{"b": "c"}]}', '{"a": [1]}', '{"a": [1]}'),
  (9, '["a", "b"]', '["c", "d"]', '["c", "d"]'),
  (10, '{"a": "b"}', '["c"]', '["c"]'),
  (11, '{"a": "foo"}', 'null', 'null'),
  (12, '{"a": "foo"}', '"bar"', '"bar"'),
  (13, '[1, 2]', '{"a": "b"}', '{"a": "b"}'),
  (14, '{}', '{"a": {"bb": {}}}', '{"a": {"bb": {}}}'),
  (15, '{"a": {"b": 1}}', '{"a": {}}', '{"a": {"b": null}}'),
  (16, '{"a": 1}', '{"a": {}}', '{"a": {}}'),
  (17, '{"a": 1, "b": "1"}', '{"a": 1.0, "b": 1}', '{"b": 1}'),
  (18, '{"a": null}', '{"a": null}', '{}'),
  (19, '{"long": 1, "b": true, "a": [1, {"x": null}]}', '{"long": 1, "b": false, "a": [1, {"x": null}]}', '{"b": false}'),
  -- what a merge patch cannot express
  (20, '{"a": 1}', '{"a": null}', '{"a": null}'),
  (21, '{}', '{"a": null}', '{"a": null}'),
  (22, '{"a": {"b": 1}}', '{"a": {"b": null, "c": 2}}', '{"a": {"b": null, "c": 2}}')
) AS v (n, source, target, patch) ORDER BY n;
SELECT is(mako_merge_patch(NULL, '{}'), NULL, 'null in, null out');
SELECT is(mako_merge_patch((repeat('{"a":', 1000) || '1' || repeat('}', 1000))::jsonb, (repeat('{"a":', 1000) || '2' || repeat('}', 1000))::jsonb),
          (repeat('{"a":', 1000) || '2' || repeat('}', 1000))::jsonb, 'a thousand levels');

-- Random documents with few keys, so that members meet; nulls as members only where they are wanted.
CREATE FUNCTION pg_temp.document(depth int, nulls boolean, member boolean DEFAULT false) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
  choice int := floor(random() * CASE WHEN depth > 0 THEN 12 ELSE 6 END);
BEGIN
  RETURN CASE choice
    WHEN 0 THEN CASE WHEN nulls OR NOT member THEN 'null'::jsonb ELSE 'true' END
    WHEN 1 THEN to_jsonb(random() < 0.5)
    WHEN 2 THEN to_jsonb(floor(random() * 3))
    WHEN 3 THEN to_jsonb(round((random() * 2)::numeric, 1))
    WHEN 4 THEN to_jsonb(left('abc', (random() * 3)::int))
    WHEN 5 THEN '{}'
    WHEN 6 THEN (SELECT coalesce(jsonb_agg(pg_temp.document(depth - 1, nulls)), '[]') FROM generate_series(1, (random() * 3)::int))
    ELSE (SELECT coalesce(jsonb_object_agg(key, pg_temp.document(depth - 1, nulls, true)), '{}')
          FROM unnest('{a,b,c,aa,bb,longer key,"",é}'::text[]) AS key WHERE random() < 0.5)
  END;
END
$$;
SELECT setseed(0.7396) IS NOT NULL AS ignored \gset
CREATE TEMPORARY TABLE pairs AS
SELECT nulls, pg_temp.document(4, nulls) AS source, pg_temp.document(4, nulls) AS target FROM generate_series(1, 3000) AS i, (VALUES (false), (true)) AS n (nulls);
SELECT cmp_ok((SELECT count(*) FROM pairs WHERE jsonb_typeof(source) = 'object' AND jsonb_typeof(target) = 'object'), '>', 1000::bigint, 'random documents, many of them objects');
SELECT is_empty($$ SELECT source, target, mako_merge_patch(source, target) FROM pairs
                   WHERE NOT nulls AND pg_temp.apply_patch(source, mako_merge_patch(source, target)) <> target $$,
                'a patch applied to the old document gives the new one');
SELECT is_empty($$ SELECT source, target, mako_merge_patch(source, target) FROM pairs
                   WHERE jsonb_strip_nulls(pg_temp.apply_patch(source, mako_merge_patch(source, target))) <> jsonb_strip_nulls(target) $$,
                'apart from members that are set to null');
SELECT is_empty($$ SELECT source FROM pairs WHERE jsonb_typeof(source) = 'object' AND mako_merge_patch(source, source) <> '{}' $$,
                'nothing leads from a document to itself');
SELECT is_empty($$ SELECT source, target, key FROM pairs, jsonb_object_keys(mako_merge_patch(source, target)) AS key
                   WHERE jsonb_typeof(source) = 'object' AND jsonb_typeof(target) = 'object' AND source->key = target->key $$,
                'no member of a patch is one that has not changed');

----------------------------------------------------------------------------------------------------
-- A dry run and the migration after it
----------------------------------------------------------------------------------------------------

CREATE TEMPORARY TABLE pair (source_wf, target_wf) AS VALUES (:'fv1', :'fv2');
CREATE TEMPORARY VIEW rehearsal AS
SELECT p.source_wf, p.target_wf, d.*
FROM pair p, mako_dry_run(p.source_wf, p.target_wf) WITH ORDINALITY AS d (stream_id, sequence_number, old_state, new_state, changes, error, n);

\o /dev/null
SELECT mako_create_store();
\ir ../golden/load.sql
ANALYZE;
CREATE TABLE dry AS TABLE rehearsal;
CREATE TEMPORARY TABLE old_heads AS SELECT stream_no, stream_id, workflow_id FROM mako.stream;
CREATE TEMPORARY TABLE old_states AS
SELECT stream_id, s.state FROM dry, mako_state(stream_id) s WHERE new_state IS NOT NULL;
CREATE TEMPORARY TABLE summary AS SELECT * FROM mako_dry_run_summary(:'fv1', :'fv2');
\o
SELECT is(pg_temp.rows($$ SELECT count(new_state), count(*) FILTER (WHERE NOT error IS NULL), count(*) FROM dry $$), '1657|59|1716', 'the golden streams, rehearsed');
SELECT is_empty($$ SELECT dry.* FROM dry JOIN old_states USING (stream_id) WHERE old_state IS DISTINCT FROM state $$,
                'the old state is that of mako_state()');
SELECT is_empty($$ SELECT * FROM dry WHERE pg_temp.apply_patch(old_state, changes) <> new_state $$, 'the changes lead from the old state to the new one');
SELECT is_empty($$ SELECT * FROM (SELECT n, row_number() OVER (ORDER BY stream_no) AS place FROM dry JOIN old_heads USING (stream_id)) x WHERE n <> place $$,
                'the rows come in the order of the streams, errors among them');
SELECT bag_eq(
  $$ SELECT outcome, phase, sqlstate, message, streams, example FROM summary $$,
  $$ SELECT CASE WHEN error IS NULL THEN 'migrate' ELSE 'fail' END, (error).phase, (error).sqlstate, (error).message, count(*),
            (array_agg(stream_id ORDER BY stream_no))[1]
     FROM dry JOIN old_heads USING (stream_id) GROUP BY 1, 2, 3, 4 $$,
  'the summary counts the rows by cause, and names the first stream of each');
SELECT is((SELECT array_agg(streams) FROM summary), (SELECT array_agg(streams ORDER BY streams DESC) FROM summary), 'biggest first');

-- Whatever the settings.
CREATE FUNCTION pg_temp.same_as_before() RETURNS boolean LANGUAGE sql AS $$
  SELECT NOT EXISTS (SELECT FROM dry FULL JOIN rehearsal r USING (n)
                     WHERE (dry.stream_id, dry.sequence_number, dry.old_state, dry.new_state, dry.changes, to_jsonb(dry.error) - 'context')
                       IS DISTINCT FROM (r.stream_id, r.sequence_number, r.old_state, r.new_state, r.changes, to_jsonb(r.error) - 'context')) $$;
SELECT ok(pg_temp.same_as_before(), 'again, the same rows');
SET mako_migration.batch_size = 3;
SELECT ok(pg_temp.same_as_before(), 'in batches of three, too');
RESET mako_migration.batch_size;
SET mako_migration.native_evaluation = off;
SELECT ok(pg_temp.same_as_before(), 'without native evaluation, too');
RESET mako_migration.native_evaluation;
SET work_mem = '64kB';
SELECT ok(pg_temp.same_as_before(), 'with little memory, too');
RESET work_mem;

-- Samples.
CREATE FUNCTION pg_temp.sample(size bigint, seed bigint) RETURNS text[] LANGUAGE sql AS $$
  SELECT array_agg(stream_id) FROM mako_dry_run('gpke-supplier-change@FV2024-10-01', 'gpke-supplier-change@FV2025-10-01', sample => size, seed => seed) $$;
SELECT is(cardinality(pg_temp.sample(100, 1)), 100, 'a sample has the size that was asked for');
SELECT is(pg_temp.sample(100, 1), pg_temp.sample(100, 1), 'the same seed, the same sample');
SELECT isnt(pg_temp.sample(100, 1), pg_temp.sample(100, 2), 'another seed, another one');
SELECT ok(pg_temp.sample(10, 1) <@ pg_temp.sample(100, 1), 'a smaller sample is part of a larger one');
SELECT is(pg_temp.sample(5000, 1), (SELECT array_agg(stream_id ORDER BY n) FROM dry), 'more than there are is all');
SELECT bag_eq($$ SELECT stream_id, sequence_number, old_state, new_state, changes, to_jsonb(error) - 'context'
                 FROM mako_dry_run('gpke-supplier-change@FV2024-10-01', 'gpke-supplier-change@FV2025-10-01', sample => 200, seed => 4) $$,
              $$ SELECT stream_id, sequence_number, old_state, new_state, changes, to_jsonb(error) - 'context' FROM dry WHERE stream_id = ANY (pg_temp.sample(200, 4)) $$,
              'what becomes of a stream does not depend on the sample');
SELECT is((SELECT sum(streams) FROM mako_dry_run_summary(:'fv1', :'fv2', sample => 40, seed => 2)), 40::numeric, 'a summary of a sample');

-- The plan counts the same, and names the fingerprint that the run expects.
SELECT is(pg_temp.rows(format('SELECT step, kind, source_wf, target_wf, function, evaluation, streams, scan_order, blockers, fingerprint FROM mako_plan(%L, %L) WHERE step IS NOT NULL', :'fv1', :'fv3')),
  format(E'0|apply|%1$s||gpke.supplier_change_apply_2024(pg_catalog.jsonb,pg_catalog.text,pg_catalog.jsonb)|native||||\n'
         '0|upcast|%1$s||gpke.supplier_change_upcast(pg_catalog.text,integer,pg_catalog.jsonb)|native||||\n'
         '0|in_flight|%1$s||gpke.supplier_change_in_flight(pg_catalog.jsonb)|native||||\n'
         '1|migrate|%1$s|%2$s|gpke.supplier_change_migrate_2024_2025(pg_catalog.jsonb)|native||||\n'
         '2|migrate|%2$s|%3$s|gpke.supplier_change_migrate_2025_2026(pg_catalog.jsonb)|native||||', :'fv1', :'fv2', :'fv3'),
  'a plan has the functions and the steps');
SELECT fingerprint AS expected, streams, events, in_flight FROM mako_plan(:'fv1', :'fv2') WHERE step IS NULL \gset
SELECT is(:'expected', mako_fingerprint(:'fv1', :'fv2'), 'the fingerprint');
SELECT is(:streams::bigint, (SELECT count(*) FROM mako.stream WHERE workflow_id = :'fv1'), 'the streams that match');
SELECT is(:events::bigint, (SELECT count(*) FROM mako.event e JOIN mako.stream s USING (stream_no) WHERE s.workflow_id = :'fv1'), 'the events of them');
SELECT is(:in_flight::bigint, (SELECT in_flight FROM mako_coverage('FV2024-10-01') WHERE workflow_id = :'fv1'), 'in flight, as mako_coverage() counts them');
SELECT is((SELECT kind || ' ' || source_wf || ' ' || target_wf || ' ' || blockers::text FROM mako_plan(:'fv1', :'fv2') WHERE step IS NULL),
          format('total %s %s {}', :'fv1', :'fv2'), 'and nothing stands against it');

-- What is in flight only, and of one tenant only.
SELECT tenant_id AS tenant FROM mako.stream WHERE workflow_id = :'fv1' GROUP BY tenant_id ORDER BY count(*) DESC LIMIT 1 \gset
CREATE TABLE dry_in_flight AS SELECT * FROM mako_dry_run(:'fv1', :'fv2', tenant_id => :'tenant', in_flight_only => true);
CREATE TEMPORARY VIEW outcome AS
SELECT run_id, stream_id, sequence_number, state, NULL::text AS phase, NULL::text AS sqlstate, NULL::text AS message, NULL::text AS detail, NULL::text AS hint, NULL::text AS context
FROM mako.snapshot n JOIN mako.stream USING (stream_no) WHERE run_id > 0
UNION ALL
SELECT run_id, stream_id, sequence_number, NULL, phase, sqlstate, message, detail, hint, context FROM mako.migration_error;
CREATE TEMPORARY VIEW predicted AS
SELECT 'dry' AS kind, stream_id, coalesce((error).sequence_number, sequence_number) AS sequence_number, new_state,
       (error).phase, (error).sqlstate, (error).message, (error).detail, (error).hint, (error).context
FROM dry WHERE new_state IS NOT NULL OR NOT error IS NULL
UNION ALL
SELECT 'in flight', stream_id, coalesce((error).sequence_number, sequence_number), new_state,
       (error).phase, (error).sqlstate, (error).message, (error).detail, (error).hint, (error).context
FROM dry_in_flight;
BEGIN;
SELECT run_id AS run FROM mako_migrate(:'fv1', :'fv2', tenant_id => :'tenant', in_flight_only => true) \gset
SELECT cmp_ok((SELECT count(*) FROM dry_in_flight), '>', 50::bigint, 'some of a tenant are in flight');
SELECT bag_eq($$ SELECT stream_id, sequence_number, new_state, phase, sqlstate, message, detail, hint, context FROM predicted WHERE kind = 'in flight' $$,
              format($$ SELECT stream_id, sequence_number, state, phase, sqlstate, message, detail, hint, context FROM outcome WHERE run_id = %s $$, :run),
              'in_flight_only and tenant_id: the migration does what the dry run said');
ROLLBACK;

SELECT run_id AS run, migrated, failed FROM mako_migrate(:'fv1', :'fv2', expect => :'expected') \gset
SELECT bag_eq($$ SELECT stream_id, sequence_number, new_state, phase, sqlstate, message, detail, hint, context FROM predicted WHERE kind = 'dry' $$,
              format($$ SELECT stream_id, sequence_number, state, phase, sqlstate, message, detail, hint, context FROM outcome WHERE run_id = %s $$, :run),
              'golden streams: the migration does what the dry run said, row by row');
SELECT is_empty('SELECT * FROM rehearsal WHERE error IS NULL', 'then nothing is left to be migrated');
SELECT is_empty($$ SELECT * FROM (SELECT * FROM dry WHERE NOT error IS NULL) d FULL JOIN rehearsal r USING (stream_id) WHERE to_jsonb(d.error) - 'context' IS DISTINCT FROM to_jsonb(r.error) - 'context' $$,
                'and what failed would fail again');

-- From a boundary, an event behind it.
\o /dev/null
SELECT mako_append(stream_id, :'fv2', 'SupplierChangeVollzugsmeldungReceived',
  '{"type": "VollzugsmeldungReceived", "data": {"pid": 55001, "sender": "9900357000003", "receiver": "9907317000007", "message_ref": "UTILMD-2"}}')
FROM mako.stream WHERE workflow_id = :'fv2' AND stream_no % 3 = 0;
UPDATE pair SET source_wf = :'fv2', target_wf = :'fv3';
DROP VIEW predicted;
DROP TABLE dry, old_heads;
\o
SELECT is((SELECT events FROM mako_plan(:'fv2', :'fv3') WHERE step IS NULL),
          (SELECT count(*) FROM mako.event e JOIN mako.stream s USING (stream_no) LEFT JOIN mako.snapshot n USING (stream_no)
           WHERE s.workflow_id = :'fv2' AND e.sequence_number > coalesce(n.sequence_number, 0)),
          'what is read are the events behind the boundaries');
\o /dev/null
SET client_min_messages = warning;
DROP SCHEMA mako CASCADE;
RESET client_min_messages;
\o

-- Generated streams of four workflows.
TRUNCATE pair;
INSERT INTO pair VALUES
  ('gpke-supplier-change@FV2025-10-01', 'gpke-supplier-change@FV2026-10-01'),
  ('gpke-supplier-change@FV2024-10-01', 'gpke-supplier-change@FV2026-10-01'),
  ('gpke-lf-anmeldung@FV2025-10-01', 'gpke-lf-anmeldung@FV2026-10-01'),
  ('geli-gas-supplier-change@FV2025-10-01', 'geli-gas-supplier-change@FV2026-10-01'),
  ('wim-device-change@FV2025-10-01', 'wim-device-change@FV2026-10-01');

\set seed a
\set break_rate 0
\ir include/rehearse_generated.sql
\set seed broken
\set break_rate 0.1
\ir include/rehearse_generated.sql

----------------------------------------------------------------------------------------------------
-- Without apply, without events, out of order, and what stands against a migration
----------------------------------------------------------------------------------------------------

\o /dev/null
SELECT mako_create_store();
CREATE SCHEMA r;
CREATE FUNCTION r.apply(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE event_type WHEN 'Raised' THEN to_jsonb(1 / (payload->>'n')::int)
                         WHEN 'Rejected' THEN mako_reject('no ' || (payload->>'n'))
                         ELSE state || payload END $$;
CREATE FUNCTION r.migrate(state jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN state || '{"new": true}'; END $$;
CREATE FUNCTION r.in_flight(state jsonb) RETURNS boolean LANGUAGE sql STABLE AS $$ SELECT state->'closed' IS NULL $$;
SELECT mako_register_workflow('r@FV2024-10-01', 'r.apply', in_flight => 'r.in_flight', initial_state => '{}'),
       mako_register_workflow('r@FV2025-10-01', 'r.apply', initial_state => '{}'),
       mako_register_workflow('app@FV2024-10-01'), mako_register_workflow('app@FV2025-10-01'), mako_register_workflow('app@FV2026-10-01');
SET client_min_messages = warning;
SELECT mako_register_migration('r@FV2024-10-01', 'r@FV2025-10-01', 'r.migrate'), mako_register_migration('app@FV2024-10-01', 'app@FV2025-10-01'),
       mako_register_migration('app@FV2025-10-01', 'app@FV2026-10-01', 'r.migrate');
INSERT INTO mako.stream (stream_id, workflow_id) SELECT format('r%s', i), 'r@FV2024-10-01' FROM generate_series(1, 9) AS i;
INSERT INTO mako.stream (stream_id, workflow_id) SELECT format('app%s', i), 'app@FV2024-10-01' FROM generate_series(1, 4) AS i;
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
SELECT stream_no, 1, workflow_id, CASE right(stream_id, 1) WHEN '2' THEN 'Raised' WHEN '4' THEN 'Rejected' WHEN '5' THEN 'Raised' WHEN '6' THEN 'Rejected' ELSE 'Noted' END,
       CASE right(stream_id, 1) WHEN '7' THEN '{"closed": true}' ELSE '{"n": 0}' END::jsonb
FROM mako.stream WHERE stream_id NOT IN ('r9', 'app4') ORDER BY stream_no;
RESET client_min_messages;
SELECT mako_save_snapshot('app1', 1, 'app@FV2024-10-01', 1, '{"n": 1}');
ANALYZE;
\o

-- Raised, refused and good ones next to each other.
SELECT is(pg_temp.rows($$ SELECT stream_id, sequence_number, old_state, changes, (error).sqlstate, (error).message
                          FROM mako_dry_run('r@FV2024-10-01', 'r@FV2025-10-01') $$),
  E'r1|1|{"n": 0}|{"new": true}||\nr2||||22012|division by zero\nr3|1|{"n": 0}|{"new": true}||\nr4||||MK002|no 0\nr5||||22012|division by zero\n'
  'r6||||MK002|no 0\nr7|1|{"closed": true}|{"new": true}||\nr8|1|{"n": 0}|{"new": true}||\nr9|0||||',
  'every stream in its place, whether it is migrated, raised or refused, or has no events');
SELECT is(pg_temp.rows($$ SELECT * FROM mako_dry_run_summary('r@FV2024-10-01', 'r@FV2025-10-01') $$),
  E'migrate||||4|r1\nfail|apply|22012|division by zero|2|r2\nfail|apply|MK002|no 0|2|r4\nrepoint||||1|r9', 'the same, summed up');
SELECT is(pg_temp.rows($$ SELECT stream_id FROM mako_dry_run('r@FV2024-10-01', 'r@FV2025-10-01', in_flight_only => true) WHERE error IS NULL $$),
  E'r1\nr3\nr8\nr9', 'what is not in flight is not there with in_flight_only');
SELECT is(pg_temp.rows($$ SELECT * FROM mako_dry_run_summary('app@FV2024-10-01', 'app@FV2025-10-01') $$), 'repoint||||4|app1', 'identity without apply only repoints');
SELECT is(pg_temp.rows($$ SELECT stream_id, sequence_number, new_state, (error).phase, (error).message FROM mako_dry_run('app@FV2024-10-01', 'app@FV2026-10-01') $$),
  E'app1|1|{"n": 1, "new": true}||\napp2|||load|there is no snapshot at the stream''s version 1\n'
  'app3|||load|there is no snapshot at the stream''s version 1\napp4|0|||', 'with a function it needs the states that the application saved');
SELECT is_empty($$ SELECT * FROM mako_dry_run_summary('r@FV2024-10-01', 'r@FV2025-10-01', tenant_id => '00000000-0000-0000-0000-000000000001') $$, 'no stream, no row');

-- The last row of a plan.
CREATE FUNCTION pg_temp.total(source text, target text, columns text) RETURNS text LANGUAGE sql AS $$
  SELECT pg_temp.rows(format('SELECT %s FROM mako_plan(%L, %L) WHERE step IS NULL', columns, source, target)) $$;
CREATE FUNCTION pg_temp.blockers(source text DEFAULT 'r@FV2024-10-01', target text DEFAULT 'r@FV2025-10-01') RETURNS text LANGUAGE sql AS $$
  SELECT array_to_string(blockers, E'\n') FROM mako_plan(source, target) WHERE step IS NULL $$;
SELECT is(pg_temp.total('r@FV2024-10-01', 'r@FV2025-10-01', 'streams, in_flight, events'), '9|8|8', 'streams, in flight (also what cannot be folded), events');
SELECT is(pg_temp.total('app@FV2024-10-01', 'app@FV2025-10-01', 'streams, in_flight, events, scan_order, cardinality(blockers)'),
          '4|4|0|key: without an apply function, no event is read|0', 'of a workflow without apply');
SELECT is(pg_temp.rows($$ SELECT step, kind, function, evaluation FROM mako_plan('app@FV2024-10-01', 'app@FV2026-10-01') WHERE step IS NOT NULL $$),
          E'1|identity||\n2|migrate|r.migrate(pg_catalog.jsonb)|r.migrate(jsonb) is called: language plpgsql', 'its steps, and what is called and why');
SELECT is(pg_temp.blockers('app@FV2024-10-01', 'app@FV2026-10-01'),
          'The states of 2 streams are not known: workflow "app@FV2024-10-01" has no apply function, and there is no snapshot at their version.', 'blocked: no states');
-- What the plan says of the order of reading is what the run does.
SET mako_migration.scan_order = key;
SELECT is(pg_temp.total('r@FV2024-10-01', 'r@FV2025-10-01', 'scan_order'), 'key: mako_migration.scan_order says so', 'the order, by the setting');
SET mako_migration.scan_order = heap;
SELECT is(pg_temp.total('r@FV2024-10-01', 'r@FV2025-10-01', 'scan_order'), 'heap: mako_migration.scan_order says so', 'the other one');
SET mako_migration.scan_order = auto;
SELECT is(pg_temp.total('r@FV2024-10-01', 'r@FV2025-10-01', 'scan_order'), 'heap: 9 of 13 streams match, from 2 on all events are read', 'the order, by the numbers');
SELECT is(pg_temp.rows($$ SELECT scan_order FROM mako_plan('r@FV2024-10-01', 'r@FV2025-10-01', tenant_id => '00000000-0000-0000-0000-000000000001') WHERE step IS NULL $$),
          'key: 0 of 13 streams match, from 2 on all events are read', 'for a tenant without streams');
RESET mako_migration.scan_order;

-- Blockers, each provoked.
SELECT is(pg_temp.blockers(), '', 'nothing stands against it');
BEGIN;
SELECT mako_drain('FV2025-10-01') IS NOT NULL AS ignored \gset
SELECT is(pg_temp.blockers(), '', 'a draining target still takes what is migrated');
SELECT mako_retire('FV2025-10-01') IS NOT NULL AS ignored \gset
SELECT is(pg_temp.blockers(), 'Format version "FV2025-10-01" is retired. Nothing can be written under workflow "r@FV2025-10-01" any more.', 'blocked: a retired target');
SELECT is(pg_temp.error($$ SELECT mako_migrate('r@FV2024-10-01', 'r@FV2025-10-01') $$),
          '55000|format version "FV2025-10-01" is retired|Nothing can be written under workflow "r@FV2025-10-01" any more.|Use a format version that is not retired.',
          'which the migration says, too');
ROLLBACK;
BEGIN;
SET LOCAL client_min_messages = error;
SELECT mako_exempt('r@FV2024-10-01', 'ends anyway') IS NOT NULL AS ignored \gset
SELECT is(pg_temp.blockers(), 'Workflow "r@FV2024-10-01" is exempt (ends anyway), so mako_migrate_version() leaves it out.', 'blocked: exempt');
ROLLBACK;
BEGIN;
CREATE OR REPLACE FUNCTION r.migrate(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT state $$;
DROP FUNCTION r.in_flight(jsonb);
SELECT is(pg_temp.blockers(),
  E'Function r.in_flight(pg_catalog.jsonb) does not exist. It is registered as in_flight of r@FV2024-10-01.\n'
  'The definition of state migration "r@FV2024-10-01 -> r@FV2025-10-01" has changed since it was registered. A function, or something that its results depend on, is not what was registered.',
  'blocked: every definition that cannot be used');
SELECT is(pg_temp.total('r@FV2024-10-01', 'r@FV2025-10-01', 'streams, in_flight, events, fingerprint'), '9|||', 'then what depends on them is not known');
SELECT is(pg_temp.rows($$ SELECT kind, function, evaluation FROM mako_plan('r@FV2024-10-01', 'r@FV2025-10-01') WHERE step IS NOT NULL $$),
  E'apply|r.apply(pg_catalog.jsonb,pg_catalog.text,pg_catalog.jsonb)|native\nin_flight|r.in_flight(pg_catalog.jsonb)|\nmigrate|r.migrate(pg_catalog.jsonb)|native',
  'a function that is gone is not evaluated');
ROLLBACK;
BEGIN;
ALTER TABLE mako.event DISABLE TRIGGER event_guard;
SELECT is(pg_temp.blockers(), 'The store is damaged: ' || (SELECT string_agg(object || ' ' || problem, ', ') FROM mako_store_problem()) || '.', 'blocked: a damaged store');
SELECT is(pg_temp.error($$ SELECT * FROM mako_dry_run('r@FV2024-10-01', 'r@FV2025-10-01') $$), pg_temp.error($$ SELECT mako_migrate('r@FV2024-10-01', 'r@FV2025-10-01') $$),
          'which a dry run refuses as a migration does');
ROLLBACK;
SELECT is(pg_temp.error(format($$ DO $x$ BEGIN SET LOCAL client_min_messages = error; DROP TABLE mako.%s CASCADE; PERFORM mako_plan('r@FV2024-10-01', 'r@FV2025-10-01'); END $x$ $$, missing)),
          format('55000|table "mako.%s" is missing|Restore it from a backup; SELECT mako_create_store() would make an empty one.', missing), format('without %s there is no plan', missing))
FROM unnest('{migration_run,snapshot}'::text[]) AS missing;
BEGIN;
ALTER TABLE mako.migration_run DISABLE TRIGGER USER;
INSERT INTO mako.migration_run (kind, source_wf, target_wf, path, update_registry, in_flight_only, batch_size, fingerprint, definitions, extension_version, started_at)
VALUES ('batched', 'r@FV2024-10-01', 'r@FV2025-10-01', '{}', true, false, 10, '', '{}', '', now()) RETURNING run_id AS unfinished \gset
ALTER TABLE mako.migration_run ENABLE TRIGGER USER;
SELECT is(pg_temp.blockers(), format('Batched run %s, to "r@FV2025-10-01", is not finished.', :unfinished), 'blocked: a batched run that is not finished');
ROLLBACK;

-- What makes a plan impossible is the migration's error, for the dry run, too.
CREATE FUNCTION pg_temp.same_error(source text, target text) RETURNS boolean LANGUAGE sql AS $$
  SELECT count(DISTINCT e) = 1 AND count(e) = 4
  FROM unnest('{SELECT mako_migrate(%L\, %L),SELECT * FROM mako_plan(%L\, %L),SELECT * FROM mako_dry_run(%L\, %L),SELECT * FROM mako_dry_run_summary(%L\, %L)}'::text[]) AS c,
       pg_temp.error(format(c, source, target)) AS e $$;
SELECT ok(pg_temp.same_error('r@FV2024-10-01', 'r@FV2029-10-01'), 'a target that is not registered');
SELECT ok(pg_temp.same_error('r@FV2020-10-01', 'r@FV2025-10-01'), 'a source that is not registered');
SELECT ok(pg_temp.same_error('r@FV2025-10-01', 'r@FV2024-10-01'), 'no way');
SELECT ok(pg_temp.same_error('r@FV2025-10-01', 'r@FV2025-10-01'), 'the same workflow twice');
SELECT ok(pg_temp.same_error('r@FV2025-10-01', NULL), 'null');
SELECT is(pg_temp.error(format($$ SELECT * FROM mako_dry_run('r@FV2024-10-01', 'r@FV2025-10-01', sample => %s) $$, n)),
          format('22023|sample must be positive|It is %s.|Leave it out for all streams.', n), format('a sample of %s', n))
FROM (VALUES (0), (-1)) AS v (n);
SELECT is(pg_temp.error($$ SELECT * FROM mako_dry_run('r@FV2024-10-01', 'r@FV2025-10-01', seed => NULL) $$), '22004|seed must not be null', 'a seed of null');

-- Nothing is written, and no row is locked.
SELECT string_agg(xmax::text, ',' ORDER BY stream_no) AS before FROM mako.stream \gset
BEGIN READ ONLY;
SELECT count(*) AS dry FROM mako_dry_run('r@FV2024-10-01', 'r@FV2025-10-01') \gset
SELECT count(*) AS summed FROM mako_dry_run_summary('r@FV2024-10-01', 'r@FV2025-10-01') \gset
SELECT count(*) AS planned FROM mako_plan('r@FV2024-10-01', 'r@FV2025-10-01') \gset
SELECT pg_current_xact_id_if_assigned() IS NULL AND count(*) FILTER (WHERE mode <> 'AccessShareLock') = 0 AND count(*) > 0 AS nothing
FROM pg_locks WHERE pid = pg_backend_pid() AND locktype <> 'virtualxid'
  AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = relation AND c.relkind = 'S') \gset
SELECT string_agg(xmax::text, ',' ORDER BY stream_no) AS after FROM mako.stream \gset
COMMIT;
SELECT is(format('%s %s %s', :dry, :summed, :planned), '9 4 4', 'in a READ ONLY transaction');
SELECT ok(:'nothing', 'with no transaction id, and no lock but those of reading');
SELECT is(:'after'::text, :'before', 'no head is locked');
BEGIN;
SELECT stream_no AS ignored FROM mako.stream WHERE stream_id = 'r1' FOR UPDATE \gset
SELECT isnt((SELECT string_agg(xmax::text, ',' ORDER BY stream_no) FROM mako.stream), :'before', '(a lock would be seen)');
ROLLBACK;

-- Row security must not hide what a migration would meet, and privileges hold.
BEGIN;
CREATE ROLE rehearse_reader;
GRANT USAGE ON SCHEMA mako, r TO rehearse_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA mako TO rehearse_reader;
CREATE FUNCTION pg_temp.reader_error(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  SET LOCAL client_min_messages = error;
  SET LOCAL ROLE rehearse_reader;
  BEGIN
    EXECUTE statement;
  EXCEPTION WHEN OTHERS THEN
    RESET ROLE;
    RETURN SQLSTATE || ' ' || SQLERRM;
  END;
  RESET ROLE;
  RETURN NULL;
END $$;
CREATE TEMPORARY TABLE reading AS VALUES
  ($$ SELECT * FROM mako_plan('r@FV2024-10-01', 'r@FV2025-10-01') $$), ($$ SELECT * FROM mako_dry_run('r@FV2024-10-01', 'r@FV2025-10-01') $$),
  ($$ SELECT * FROM mako_dry_run_summary('r@FV2024-10-01', 'r@FV2025-10-01') $$);
SELECT is((SELECT count(pg_temp.reader_error(column1)) FROM reading), 0::bigint, 'who may read the store may plan and rehearse');
SAVEPOINT all_rows;
ALTER TABLE mako.stream ENABLE ROW LEVEL SECURITY;
CREATE POLICY few ON mako.stream USING (stream_no < 3);
SELECT is((SELECT string_agg(DISTINCT pg_temp.reader_error(column1), E'\n') FROM reading),
          '42501 query would be affected by row-level security policy for table "stream"', 'what a policy would hide is an error');
ROLLBACK TO all_rows;
REVOKE SELECT ON mako.event FROM rehearse_reader;
SELECT is(pg_temp.reader_error($$ SELECT * FROM mako_dry_run('r@FV2024-10-01', 'r@FV2025-10-01') $$), '42501 permission denied for table event',
          'who may not read events gets an error, not streams that fail');
ROLLBACK;
SELECT hasnt_role('rehearse_reader', '(and nothing of this is left)');

SELECT * FROM finish();
