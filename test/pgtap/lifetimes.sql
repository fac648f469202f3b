-- Values that live as long as they are used, and errors that are not lost on the way: what a build with assertions and valgrind
-- (test/assert-server) see, and whoever looks at the results.
-- Runs in an empty database.

CREATE EXTENSION pgtap;
CREATE EXTENSION mako_migration;

SET client_min_messages = error;
SELECT plan(18);

SELECT mako_create_store();
\ir include/helpers.sql

CREATE SCHEMA l;
-- Loads a history past the trigger, of these workflows and payloads.
CREATE FUNCTION l.import(id text, workflows text[], payloads jsonb[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  ALTER TABLE mako.event DISABLE TRIGGER event_inserted;
  INSERT INTO mako.stream (stream_id, workflow_id) VALUES (id, workflows[1]);
  INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
  SELECT stream_no, n, workflows[n], 'Said', payloads[n] FROM mako.stream, generate_series(1, cardinality(workflows)) AS n WHERE stream_id = id;
  ALTER TABLE mako.event ENABLE TRIGGER event_inserted;
  PERFORM mako_adopt_events();
END
$$;

----------------------------------------------------------------------------------------------------
-- A history without migration snapshots, in whatever folds a workflow's streams
----------------------------------------------------------------------------------------------------

CREATE FUNCTION l.apply(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN payload ? 'refused' THEN mako_reject('as it says') ELSE state || payload END $$;
CREATE FUNCTION l.migrate(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN state ? 'stuck' THEN mako_reject('stuck') ELSE state || '{"moved": true}' END $$;
CREATE FUNCTION l.in_flight(state jsonb) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT state->>'status' IS DISTINCT FROM 'done' OR coalesce(state->>'text', '') NOT IN ('', repeat('x', 24)) $$;
SELECT mako_register_workflow(id, 'l.apply', initial_state => '{}', in_flight => 'l.in_flight') FROM unnest('{l@FV2024-10-01,l@FV2025-10-01}'::text[]) AS id;
SELECT mako_register_migration('l@FV2024-10-01', 'l@FV2025-10-01', 'l.migrate');
-- The last event moves every byte of the state: what is read too late is not what was there.
SELECT l.import('finished', '{l@FV2024-10-01,l@FV2025-10-01,l@FV2025-10-01}',
                ARRAY['{"status": "new", "text": "xxxxxxxxxxxxxxxxxxxxxxxx"}', '{"status": "half"}', '{"a": "zzzzzzzzz", "status": "done"}']::jsonb[]);

SELECT is(pg_temp.rows('SELECT workflow_id, streams, in_flight FROM mako_coverage(''FV2025-10-01'')'), 'l@FV2025-10-01|1|0', 'a history that has ended is not in flight');
SELECT is(pg_temp.rows('SELECT from_state, event_type, to_state, count FROM mako_transitions(''l@FV2025-10-01'', ''status'')'),
          E'half|Said|done|1\nnew|Said|half|1', 'its transitions are those of its states');
SELECT is_empty('SELECT * FROM mako_check() WHERE code LIKE ''stream_%''', 'a sample of it can be folded');
SELECT is(pg_temp.rows('SELECT state FROM mako_state(''finished'')'),
          '{"a": "zzzzzzzzz", "text": "xxxxxxxxxxxxxxxxxxxxxxxx", "moved": true, "status": "done"}', 'it has the state that its events say');

-- What refuses it in the middle counts, although later events would be accepted.
SELECT l.import('refused', '{l@FV2024-10-01,l@FV2025-10-01,l@FV2025-10-01}', ARRAY['{"status": "done"}', '{"refused": true}', '{"status": "done"}']::jsonb[]);
SELECT l.import('stuck', '{l@FV2024-10-01,l@FV2025-10-01}', ARRAY['{"stuck": true}', '{"status": "done"}']::jsonb[]);
SELECT is(pg_temp.rows('SELECT workflow_id, streams, in_flight FROM mako_coverage(''FV2025-10-01'')'), 'l@FV2025-10-01|3|2', 'what cannot be folded is in flight');
SELECT is(pg_temp.error('SELECT mako_retire(''FV2025-10-01'')'),
          '55000|format version "FV2025-10-01" cannot be retired|l@FV2025-10-01: 2 of 3 streams in flight, undecided|'
          'Migrate what is in flight, or exempt it with mako_exempt(). mako.migration_error tells what could not be migrated.', 'so its version cannot be retired');
SELECT is(pg_temp.rows('SELECT sum(count) FROM mako_transitions(''l@FV2025-10-01'', ''status'')'), '2', 'it is no transition');
SELECT is(pg_temp.rows('SELECT code, message FROM mako_check() WHERE code LIKE ''stream_%'' ORDER BY 2'),
          E'stream_not_folded|as it says (1 of 3 streams of the sample, such as "refused")\n'
          'stream_not_folded|stuck (1 of 3 streams of the sample, such as "stuck")', 'the sample tells why');

----------------------------------------------------------------------------------------------------
-- A proof
----------------------------------------------------------------------------------------------------

-- Back and forth: the first move, which nobody has recorded, was possible then and is refused now.
CREATE FUNCTION l.migrate_back(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT state $$;
SELECT mako_register_workflow(id, 'l.apply', initial_state => '{}') FROM unnest('{b@FV2024-10-01,b@FV2025-10-01}'::text[]) AS id;
SELECT mako_register_migration('b@FV2024-10-01', 'b@FV2025-10-01', 'l.migrate'), mako_register_migration('b@FV2025-10-01', 'b@FV2024-10-01', 'l.migrate_back');
SELECT l.import('once', '{b@FV2024-10-01}', ARRAY['{}']::jsonb[]);
SELECT mako_migrate('b@FV2024-10-01', 'b@FV2025-10-01');
SELECT mako_migrate('b@FV2025-10-01', 'b@FV2024-10-01');
SELECT l.import('to and fro', '{b@FV2024-10-01,b@FV2025-10-01,b@FV2024-10-01}', ARRAY['{"first": 1}', '{"second": 2}', '{"third": 3}']::jsonb[]);
CREATE TEMPORARY TABLE forth AS SELECT * FROM mako_migrate('b@FV2024-10-01', 'b@FV2025-10-01');
SELECT is_empty('SELECT v.* FROM forth, mako_verify(run_id) v', 'what has gone to and fro is proven');
CREATE OR REPLACE FUNCTION l.migrate(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN state ? 'first' AND NOT state ? 'second' THEN mako_reject('too early') ELSE state || '{"moved": true}' END $$;
SELECT mako_register_migration('b@FV2024-10-01', 'b@FV2025-10-01', 'l.migrate', replace => true);
SELECT is(pg_temp.rows('SELECT stream_id, problem FROM forth, mako_verify(run_id)'), 'to and fro|cannot be recomputed: too early', 'what a step on the way refuses is not taken for another state');

-- A stream that took its boundary along, which stands beyond its head.
SELECT mako_register_workflow('k@FV2024-10-01', 'l.apply', initial_state => '{}'), mako_register_workflow('k@FV2025-10-01'), mako_register_workflow('k@FV2026-10-01');
SELECT mako_register_migration('k@FV2024-10-01', 'k@FV2025-10-01'), mako_register_migration('k@FV2025-10-01', 'k@FV2026-10-01');
INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('copied', 'k@FV2024-10-01');
SELECT mako_append('copied', 'k@FV2024-10-01', 'Said', '{}');
SELECT mako_migrate('k@FV2024-10-01', 'k@FV2025-10-01');
SELECT mako_append('copied', 'k@FV2025-10-01', 'Said', '{}');
CREATE TEMPORARY TABLE copy AS SELECT * FROM mako_migrate('k@FV2025-10-01', 'k@FV2026-10-01');
SELECT is_empty('SELECT v.* FROM copy, mako_verify(run_id) v', 'a copied boundary is proven');
BEGIN;
SET LOCAL session_replication_role = replica;
UPDATE mako.snapshot n SET sequence_number = 99 FROM copy WHERE n.run_id = copy.run_id;
SELECT is(pg_temp.rows('SELECT stream_id, sequence_number, problem, stored, computed FROM copy, mako_verify(run_id)'), 'copied|99|beyond the head|99|2', 'one beyond the head is named');
ROLLBACK;

----------------------------------------------------------------------------------------------------
-- The check
----------------------------------------------------------------------------------------------------

-- Generated payloads are errors of apply, after which programs are made anew; those of the store need upcast, and are accepted.
CREATE FUNCTION l.upcast(event_type text, schema_version int, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT payload || '{"amount": "5"}' $$;
CREATE FUNCTION l.apply_amount(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT jsonb_build_object('sum', (state->>'sum')::int + (payload->>'amount')::int) $$;
SELECT mako_register_workflow('u@FV2024-10-01', 'l.apply_amount', upcast => 'l.upcast', initial_state => '{"sum": 0}', event_type_definition =>
  '{"discriminator": "type", "mapping": {"Paid": {"properties": {"amount": {"type": "string"}}}}}');
INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('paid', 'u@FV2024-10-01');
SELECT mako_append('paid', 'u@FV2024-10-01', 'Paid', '{"type": "Paid"}');
SELECT is_empty('SELECT * FROM mako_check() WHERE subject LIKE ''u@%'' AND severity <> ''info''', 'events of the store are tried with the upcast that they need');

-- A function that is gone although something refers to it.
SELECT current_setting('server_version_num')::int >= 140000 AS has_bodies \gset
\if :has_bodies
CREATE FUNCTION l.plus(a jsonb, b jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT a || b $$;
CREATE OPERATOR l.+ (FUNCTION = l.plus, LEFTARG = jsonb, RIGHTARG = jsonb);
DO $do$ BEGIN EXECUTE 'CREATE FUNCTION l.apply_plus(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE BEGIN ATOMIC SELECT state OPERATOR(l.+) payload; END'; END $do$;
SELECT mako_register_workflow('g@FV2024-10-01', 'l.apply_plus', initial_state => '{}');
BEGIN;
SELECT 'l.plus'::regproc::oid AS plus \gset
DELETE FROM pg_proc WHERE oid = :plus;
SELECT is(pg_temp.error('SELECT mako_fold(''g@FV2024-10-01'', ''[]'')'), '42704|an object that the definition depends on does not exist|It has no row ' || :plus || ' in pg_proc.|'
          'If it was dropped at this moment, try again. Otherwise replace what refers to it.',
          'a function that is gone is an error');
SELECT ok(count(*) > 0, 'of which the check tells') FROM mako_check() WHERE subject = 'g@FV2024-10-01' AND severity = 'error';
ROLLBACK;
\else
SELECT skip('no stored bodies', 2);
\endif

----------------------------------------------------------------------------------------------------
-- What stays behind in a session
----------------------------------------------------------------------------------------------------

CREATE FUNCTION l.migrate_often(times int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  FOR i IN 1..times LOOP
    PERFORM mako_migrate('b@FV2024-10-01', 'b@FV2025-10-01');
  END LOOP;
END
$$;
\if :has_bodies
SELECT l.migrate_often(10);
CREATE FUNCTION l.session_memory() RETURNS bigint LANGUAGE sql AS $$ SELECT used_bytes FROM pg_backend_memory_contexts WHERE name = 'TopMemoryContext' $$;
CREATE TEMPORARY TABLE memory AS SELECT l.session_memory() AS before;
-- A statement of a thousand bytes, which is shown again at the end of each:
-- xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
SELECT l.migrate_often(100) /* xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx */;
SELECT cmp_ok(l.session_memory() - before, '<', 20000::bigint, 'a hundred migrations leave nothing behind in the session''s memory') FROM memory;
\else
SELECT skip('memory contexts cannot be seen', 1);
\endif
SELECT is(count(*), 0::bigint, 'nor anything under way') FROM mako_progress;
SELECT is(pg_temp.error('SELECT l.migrate_often(1)'), NULL, 'and they go on');

SELECT * FROM finish();
