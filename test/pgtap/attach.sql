-- An event store that is there already: what can be attached, what its heads become, whose version an event has, what is refused and what
-- reads; repairs, detaching, and the same states however the events are read.
-- Runs in an empty database, from the root of the project.

CREATE EXTENSION pgtap;
CREATE EXTENSION mako_migration;

SELECT plan(123);
SET client_min_messages = error;

\ir include/helpers.sql

CREATE ROLE attach_owner;
CREATE ROLE attach_other;
CREATE ROLE attach_writer;
CREATE ROLE attach_reader;
CREATE SCHEMA shop;
GRANT USAGE ON SCHEMA shop TO attach_owner, attach_other, attach_writer, attach_reader;
SET search_path = shop, public;
SET check_function_bodies = off;

CREATE TABLE message (
  global_position bigserial PRIMARY KEY, stream_name varchar NOT NULL, position bigint NOT NULL, gone int, type varchar NOT NULL, data text, metadata jsonb,
  id uuid DEFAULT gen_random_uuid(), time timestamptz DEFAULT now(), UNIQUE (stream_name, position));
ALTER TABLE message DROP COLUMN gone;
GRANT INSERT, SELECT ON message TO attach_writer;
GRANT USAGE ON SEQUENCE message_global_position_seq TO attach_writer;
CREATE FUNCTION say(stream text, VARIADIC positions int[]) RETURNS text LANGUAGE plpgsql AS $$
  BEGIN
    INSERT INTO shop.message (stream_name, position, type, data) SELECT stream, p, 'Said', format('{"word": "%s"}', p) FROM unnest(positions) AS p;
    RETURN 'written';
  EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE || ' ' || SQLERRM;
  END $$;
CREATE FUNCTION apply_2024(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS
  $$ SELECT jsonb_build_object('words', (state->'words') || (payload->'word')) $$;
CREATE FUNCTION apply_2025(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS
  $$ SELECT jsonb_build_object('text', concat(state->>'text', payload->>'word')) $$;
CREATE FUNCTION step(state jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS
  $$ SELECT jsonb_build_object('text', (SELECT string_agg(w, '' ORDER BY n) FROM jsonb_array_elements_text(state->'words') WITH ORDINALITY AS x (w, n))) $$;
SELECT mako_register_workflow('talk@FV2024-10-01', 'shop.apply_2024', initial_state => '{"words": []}'),
       mako_register_workflow('talk@FV2025-10-01', 'shop.apply_2025', initial_state => '{"text": ""}', state_schema_version => 2);
SELECT mako_register_migration('talk@FV2024-10-01', 'talk@FV2025-10-01', 'shop.step');

CREATE FUNCTION attach(query text, appended_to regclass DEFAULT NULL) RETURNS text LANGUAGE sql AS
  $$ SELECT format('%s %s %s', streams, events, damaged) FROM mako_attach_store(query, 'talk@FV2024-10-01', appended_to) $$;
-- What a statement raises: SQLSTATE and message; what attaching a query raises, and the detail of that.
CREATE FUNCTION error(statement text) RETURNS text LANGUAGE sql AS
  $$ SELECT split_part(pg_temp.error(statement), '|', 1) || ' ' || split_part(pg_temp.error(statement), '|', 2) $$;
CREATE FUNCTION refusal(query text, appended_to text DEFAULT 'NULL') RETURNS text LANGUAGE sql AS
  $$ SELECT shop.error(format('SELECT mako_attach_store(%L, %L, %s)', query, 'talk@FV2024-10-01', appended_to)) $$;
CREATE FUNCTION why_not(query text, appended_to text DEFAULT 'NULL') RETURNS text LANGUAGE sql AS
  $$ SELECT split_part(pg_temp.error(format('SELECT mako_attach_store(%L, %L, %s)', query, 'talk@FV2024-10-01', appended_to)), '|', 3) $$;
CREATE FUNCTION heads() RETURNS text LANGUAGE sql AS
  $$ SELECT string_agg(format('%s %s %s', stream_id, version, right(workflow_id, 10)), ', ' ORDER BY stream_no) FROM mako.stream $$;
CREATE FUNCTION run() RETURNS text LANGUAGE sql AS
  $$ SELECT format('%s %s', migrated, failed) FROM mako_migrate('talk@FV2024-10-01', 'talk@FV2025-10-01') $$;
CREATE FUNCTION last_run() RETURNS bigint LANGUAGE sql AS $$ SELECT max(run_id) FROM mako.migration_run WHERE kind IN ('single', 'batched') $$;
CREATE FUNCTION findings() RETURNS text LANGUAGE sql AS
  $$ SELECT string_agg(format('%s %s %s', severity, code, subject), ', ' ORDER BY code, subject) FROM mako_check() WHERE severity <> 'info' $$;

-- ---- without a store, and what cannot be attached -----------------------------------------------------------------------------------------

\set columns 'stream_name AS stream_id, position + 1 AS sequence_number, type AS event_type, data::jsonb AS payload'
\set query 'SELECT ' :columns ' FROM shop.message'

SELECT is(refusal(:'query'), '42704 there is no store in this database', 'without a store');
SELECT is(error('SELECT mako_detach_store()'), '42704 there is no store in this database', '... nothing can be detached either');
SELECT mako_create_store();
SELECT is(error('SELECT mako_detach_store()'), '55000 no event store is attached', 'nothing is attached yet');
SELECT is(mako_is_attached(), false, '... and says so');
SELECT is(error($$ SELECT mako_attach_store(NULL, 'talk@FV2024-10-01') $$), '22004 query must not be null', 'a query is needed');
SELECT is(split_part(pg_temp.error($$ SELECT mako_attach_store('SELECT 1', 'talk') $$), '|', 1), '22P02', 'initial is a workflow id');
SELECT is(refusal('SELECT stream_name AS stream_id FROM shop.message'), '42804 the query has no column "event_type"', 'a column is missing');
SELECT is(refusal('SELECT ' || :'columns' || ', id FROM shop.message'), '42804 column "id" of the query is none of an event', 'a column too many');
SELECT is(refusal('SELECT ' || :'columns' || ', 1 AS event_id FROM shop.message'), '42804 column "event_id" of the query has type integer', 'an id that is no uuid');
SELECT is(left(refusal('SELEC 1'), 5), '42601', 'no SQL');
SELECT is(left(refusal('SELECT 1) AS x; DROP TABLE shop.message; SELECT (SELECT 1'), 5), '42601', 'more than a query');
SELECT is(left(refusal('SELECT * FROM nowhere'), 5), '42P01', 'no table');
SELECT is(why_not(query), 'It ' || why || '.', why || ': ' || query)
FROM (VALUES ('SELECT ' || :'columns' || ' FROM shop.message ORDER BY 1', 'orders or limits rows'),
             ('SELECT ' || :'columns' || ' FROM shop.message LIMIT 10', 'orders or limits rows'),
             ('SELECT DISTINCT ' || :'columns' || ' FROM shop.message', 'removes or unites rows'),
             ('SELECT ' || :'columns' || ' FROM shop.message UNION ALL SELECT ' || :'columns' || ' FROM shop.message', 'removes or unites rows'),
             ('SELECT stream_name AS stream_id, count(*) AS sequence_number, ''x'' AS event_type, ''{}''::jsonb AS payload FROM shop.message GROUP BY 1', 'has aggregates'),
             ('SELECT stream_name AS stream_id, row_number() OVER () AS sequence_number, type AS event_type, data::jsonb AS payload FROM shop.message', 'has window functions'),
             ('SELECT stream_name AS stream_id, generate_series(1, 2) AS sequence_number, type AS event_type, data::jsonb AS payload FROM shop.message', 'makes several rows of one'),
             ('SELECT ' || :'columns' || ', gen_random_uuid() AS event_id FROM shop.message', 'calls a volatile function'),
             ('SELECT * FROM (SELECT ' || :'columns' || ' FROM shop.message WHERE xmin IS NOT NULL) AS x', 'reads a system column'),
             ('WITH x AS (SELECT ' || :'columns' || ' FROM shop.message LIMIT 1) SELECT * FROM x', 'orders or limits rows'),
             ('SELECT ''a'' AS stream_id, 1 AS sequence_number, ''x'' AS event_type, ''{}''::jsonb AS payload', 'reads no table'),
             ('SELECT m.stream_name AS stream_id, m.position AS sequence_number, m.type AS event_type, m.data::jsonb AS payload FROM shop.message m JOIN shop.message n USING (id)',
              'names the table "message" 2 times')) AS x (query, why);
CREATE TABLE kind (name varchar PRIMARY KEY);
SELECT is(why_not('SELECT ' || :'columns' || ' FROM shop.message JOIN shop.kind ON name = type'), 'It reads several tables.', 'two tables');
SELECT is(why_not(:'query', '''shop.kind'''), 'It does not read the table of appended_to.', 'appended_to is none of the tables');
CREATE VIEW over AS SELECT * FROM message;
SELECT is(refusal('SELECT ' || :'columns' || ' FROM shop.over'), NULL, 'a view over the table is as good as the table');
DROP VIEW over;
SELECT is(to_regclass('mako.attached_event'), NULL, 'nothing is left of what was refused');

-- ---- whose it is --------------------------------------------------------------------------------------------------------------------------

GRANT EXECUTE ON FUNCTION mako_attach_store, mako_detach_store TO attach_other;
GRANT USAGE ON SCHEMA mako TO attach_other;
SET ROLE attach_other;
SELECT is(left(refusal(:'query'), 5), '42501', 'another role than the owner of the store cannot attach');
SELECT is(split_part(pg_temp.error('SELECT mako_detach_store()'), '|', 1), '42501', '... nor detach');
RESET ROLE;
CREATE TABLE foreign_message (LIKE message);
ALTER TABLE foreign_message OWNER TO attach_other;
SELECT is(refusal('SELECT ' || :'columns' || ' FROM shop.foreign_message'),
          '42501 the query reads "shop.foreign_message" of another role',
          'a table of another role cannot be attached');
DROP TABLE foreign_message;
CREATE FUNCTION foreign_function(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1';
ALTER FUNCTION foreign_function OWNER TO attach_other;
SELECT is(refusal('SELECT shop.foreign_function(stream_name) AS stream_id, position + 1 AS sequence_number, type AS event_type, data::jsonb AS payload FROM shop.message'), '42501 the query calls function shop.foreign_function(pg_catalog.text) of another role', '... nor a function');
DROP FUNCTION foreign_function;

-- ---- attaching ----------------------------------------------------------------------------------------------------------------------------

SELECT say('b', 0, 1), say('a', 0), say('gap', 0, 2), say('b', 2), say('late', 4, 5), say('zero', 0);
UPDATE message SET metadata = '{"version": "FV2025-10-01"}' WHERE stream_name = 'zero';
CREATE TEMP TABLE before AS SELECT pg_get_triggerdef(oid) AS definition FROM pg_trigger WHERE tgrelid = 'message'::regclass;
GRANT SELECT ON mako.event TO attach_reader;
INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('own', 'talk@FV2024-10-01');
SELECT mako_append('own', 'talk@FV2024-10-01', 'Said', '{}');
SELECT is(refusal(:'query'), '55000 the store has events of its own', 'not beside events of its own');
DROP SCHEMA mako CASCADE;
SELECT mako_create_store();
GRANT SELECT ON mako.event TO attach_reader;
SELECT is(refusal('SELECT stream_name AS stream_id, position AS sequence_number, type AS event_type, data::jsonb AS payload FROM shop.message'), 'XX001 there are events with a number below 1', 'numbers begin with 1');
SELECT is(refusal('SELECT ' || :'columns' || ', ''talk'' AS workflow_id FROM shop.message'), '22P02 invalid workflow id: "talk"',
          'a stamp is a workflow id');

\set query 'SELECT ' :columns ', id AS event_id, time AS recorded_at, ''talk@'' || (metadata->>''version'') AS workflow_id FROM message WHERE type <> ''Noise'' -- all; '
SELECT is(attach(:'query'), '5 9 2', 'streams, events and damaged ones are counted');
SELECT is(heads(), 'b 3 2024-10-01, a 1 2024-10-01, gap 3 2024-10-01, late 6 2024-10-01, zero 1 2025-10-01',
          'heads are in the order of the first events; a stamp says what a stream runs under, or else initial');
SELECT is(mako_is_attached(), true, 'the store says that one is attached');
SELECT is((SELECT format('%s %s %s %s', search_path, initial, appended_to, wait) FROM mako.attached), '{shop,public} talk@FV2024-10-01 message t', '... and which');
SELECT is(mako_store_problem()::text, NULL, 'the store is whole') FROM (SELECT) AS x;
SELECT is(has_table_privilege('attach_reader', 'mako.event', 'SELECT'), true, 'who could select events still can');
SELECT is(findings(), 'error event_gap gap, error event_gap late', 'a check tells which ones are damaged');
SELECT is(refusal(:'query'), '55000 an event store is attached already', 'once');
SELECT is(string_agg(DISTINCT error(call), ' '), '55000 the events are those of an attached event store', 'only its application appends')
FROM (VALUES ($$ SELECT mako_append('a', 'talk@FV2024-10-01', 'Said', '{}') $$), ($$ SELECT mako_append_batch('a', 'talk@FV2024-10-01', '{}') $$),
             ($$ SELECT mako_spawn('talk@FV2024-10-01', gen_random_uuid()) $$), ('SELECT mako_adopt_events()')) AS x (call);

-- ---- its application goes on ---------------------------------------------------------------------------------------------------------------

SET ROLE attach_writer;
SELECT is(say('a', 1, 2), 'written', 'a writer without rights on the store goes on');
SELECT is(say('a', 4), 'XX001 events of stream "a" do not continue it', 'a gap is refused');
SELECT is(say('a', 2), '23505 duplicate key value violates unique constraint "message_stream_name_position_key"', 'its own conflicts are its own');
SELECT is(say('new', 0, 1), 'written', 'a new stream');
SELECT is(say('gap', 3), 'written', 'a damaged one goes on');
INSERT INTO message (stream_name, position, type, data) VALUES ('noise', 0, 'Noise', 'no JSON'), ('more', 0, 'Said', '{"word": 0}'), ('a', 3, 'Said', '{"word": 3}'), ('noise', 7, 'Noise', '');
COPY message (stream_name, position, type, data) FROM STDIN;
more	1	Said	{"word": 1}
new	2	Said	{"word": 2}
\.
INSERT INTO message (stream_name, position, type, data) SELECT 'n' || i % 10, i / 10, 'Said', '{"word": 1}' FROM generate_series(0, 29) AS i;
RESET ROLE;
SELECT is(heads(), 'b 3 2024-10-01, a 4 2024-10-01, gap 4 2024-10-01, late 6 2024-10-01, zero 1 2025-10-01, new 3 2024-10-01, more 2 2024-10-01, '
          || (SELECT string_agg(format('n%s 3 2024-10-01', i), ', ') FROM generate_series(0, 9) AS i), 'heads follow, whatever the statement');
SELECT is(findings(), 'error event_gap gap, error event_gap late', '... as a check finds, too');
SET mako.writer = 'FV2025-10-01';
SELECT is(say('a', 4), 'MK005 stream "a" runs under workflow "talk@FV2024-10-01"', 'a writer of another version is refused');
SELECT is(say('young', 0), 'written', '... but may begin streams');
SELECT is((SELECT workflow_id FROM mako.stream WHERE stream_id = 'young'), 'talk@FV2025-10-01', '... under its version');
SELECT is(split_part(pg_temp.error($$ SET mako.writer = 'FV2025' $$), '|', 1), '22023', 'a writer has a format version');
RESET mako.writer;
SET ROLE attach_writer;
SELECT is(say('zero', 1), 'MK005 stream "zero" runs under another workflow', 'a writer who may not see heads is told no more than he must know');
RESET ROLE;
INSERT INTO message (stream_name, position, type, data, metadata) VALUES ('zero', 1, 'Said', '{"word": 1}', '{"version": "FV2025-10-01"}');
SELECT is((SELECT version FROM mako.stream WHERE stream_id = 'zero'), 2::bigint, 'a stamp goes before the setting');

-- ---- what reads ----------------------------------------------------------------------------------------------------------------------------

SELECT is((SELECT state FROM mako_state('a')), '{"words": ["0", "1", "2", 3]}', 'a state');
SELECT is((SELECT count(*) FROM mako_resume('a')), 5::bigint, 'resume');
SELECT is((SELECT string_agg(format('%s %s', sequence_number, right(workflow_id, 10)), ', ') FROM mako_load('zero')), '1 2025-10-01, 2 2025-10-01', 'load');
SELECT is((SELECT count(*) FROM mako_trace('b')), 3::bigint, 'trace');
SELECT is((SELECT string_agg(kind, ' ') FROM mako_history('b')), 'spawned event event event', 'history');
SELECT is((SELECT format('%s %s', streams, scan_order) FROM mako_plan('talk@FV2024-10-01', 'talk@FV2025-10-01') WHERE kind = 'total'),
          '16 heap: 16 of 18 streams match, from 3 on all events are read', 'plan');
SELECT is((SELECT string_agg(format('%s %s', workflow_id, streams), ', ') FROM mako_coverage('FV2024-10-01')), 'talk@FV2024-10-01 16', 'coverage');
SELECT is((SELECT format('%s %s', count(*) FILTER (WHERE (error).sqlstate IS NULL), count((error).sqlstate)) FROM mako_dry_run('talk@FV2024-10-01', 'talk@FV2025-10-01')),
          '14 2', 'dry run');
SELECT is((SELECT count(*) FROM mako_transitions('talk@FV2024-10-01')) > 0, true, 'transitions');
SELECT is(mako_take_snapshot('b'), 3::bigint, 'a periodic snapshot');
SELECT is((SELECT count(*) FROM mako_verify_snapshots('talk@FV2024-10-01')), 0::bigint, '... is right');

-- ---- migrating, by rows as they lie and by statement ------------------------------------------------------------------------------------------

CREATE FUNCTION states() RETURNS text LANGUAGE sql AS
  $$ SELECT md5(string_agg(stream_no || ' ' || sequence_number || ' ' || state, ',' ORDER BY stream_no)) FROM mako.snapshot WHERE run_id > 0 AND (stream_no, run_id) NOT IN (SELECT stream_no, run_id FROM mako.reverted) $$;
SELECT is(run(), '14 2', 'a run');
SELECT is((SELECT string_agg(format('%s %s %s', stream_id, phase, sqlstate), ', ' ORDER BY stream_id) FROM mako.migration_error), 'gap load XX001, late load XX001', '... reports damaged streams');
SELECT is((SELECT count(*) FROM mako_verify(last_run())), 0::bigint, '... is proven');
SELECT states() AS states \gset
SELECT is((SELECT state FROM mako_state('a')), '{"text": "0123"}', 'the state is the new version''s');
SELECT is((SELECT string_agg(right(workflow_id, 10), ' ') FROM mako_load('a')), '2024-10-01 2024-10-01 2024-10-01 2024-10-01', 'events that say nothing were written under what it was then');
SELECT is((SELECT string_agg(kind, ' ') FROM mako_history('b')), 'spawned event event event migrated', 'history knows of the move');
SELECT is(findings(), 'error event_gap gap, error event_gap late', 'a check finds nothing new');
SELECT is(say('a', 4), 'MK005 stream "a" runs under workflow "talk@FV2025-10-01"', 'the old program is refused');
SELECT is(say('gap', 4), 'written', '... where the stream has moved');
SET mako.writer = 'FV2025-10-01';
SELECT is(say('a', 4), 'written', 'the new one goes on');
RESET mako.writer;
SELECT is((SELECT state FROM mako_state('a')), '{"text": "01234"}', '... from the migrated state');
SELECT is((SELECT string_agg(right(workflow_id, 10), ' ') FROM mako_load('a')), '2024-10-01 2024-10-01 2024-10-01 2024-10-01 2025-10-01', '... and its event is its own');
SELECT is((SELECT count(*) FROM mako_verify(last_run())), 0::bigint, 'the run is proven still');
SELECT is((SELECT format('%s %s', migrated, failed) FROM mako_revert(last_run())), '13 1', 'a revert leaves what has gone on');
DELETE FROM message WHERE stream_name = 'a';
SELECT is((SELECT count(*) FROM mako.stream WHERE stream_id = 'a') + (SELECT count(*) FROM mako.snapshot n WHERE NOT EXISTS (SELECT FROM mako.stream s WHERE s.stream_no = n.stream_no)),
          0::bigint, 'a stream without events is forgotten');
SET mako_migration.scan_order = key;
SELECT is(run(), '13 2', 'by statement');
SELECT string_agg(stream_no || ' ' || sequence_number || ' ' || state, ',' ORDER BY stream_no) AS by_key FROM mako.snapshot WHERE run_id = last_run() \gset
SELECT mako_revert(last_run());
SET mako_migration.scan_order = heap;
SELECT is(run(), '13 2', 'as they lie');
SELECT is((SELECT string_agg(stream_no || ' ' || sequence_number || ' ' || state, ',' ORDER BY stream_no) FROM mako.snapshot WHERE run_id = last_run()), :'by_key', '... with the same states');
SELECT mako_revert(last_run());
RESET mako_migration.scan_order;

-- ---- one bad row ------------------------------------------------------------------------------------------------------------------------------

SELECT say('bad', 0);
UPDATE message SET data = 'no JSON' WHERE stream_name = 'bad';
SET mako_migration.scan_order = heap;
SELECT is(run(), '13 3', 'a payload that is no JSON fails its stream only, as they lie');
SELECT is((SELECT format('%s %s', phase, sqlstate) FROM mako.migration_error WHERE run_id = last_run() AND stream_id = 'bad'), 'load 22P02', '... with what is wrong with it');
SELECT mako_revert(last_run());
SET mako_migration.scan_order = key;
SELECT is(run(), '13 3', '... and by statement');
SELECT mako_revert(last_run());
RESET mako_migration.scan_order;
DELETE FROM message WHERE stream_name = 'bad';

-- ---- a stream that begins late -----------------------------------------------------------------------------------------------------------------

SELECT is(pg_temp.error($$ SELECT mako_save_snapshot('late', 4, 'talk@FV2025-10-01', 2, '{"text": "0123"}') $$) LIKE 'MK005|%', true, 'a given state is of the workflow that the stream runs under');
SELECT mako_save_snapshot('late', 4, 'talk@FV2024-10-01', 1, '{"words": [0, 1, 2, 3]}');
SELECT is((SELECT state FROM mako_state('late')), '{"words": [0, 1, 2, 3, "4", "5"]}', 'it starts from the state that is given');
SELECT is(findings(), 'error event_gap gap', '... and is damaged no more');
SELECT is((SELECT string_agg(format('%s %s', kind, sequence_number), ', ') FROM mako_history('late') WHERE kind NOT IN ('failed', 'reverted', 'migrated')), 'spawned , given 4, event 5, event 6', 'history tells of it');
SELECT is(run(), '14 1', 'a run takes it along');
SELECT is((SELECT count(*) FROM mako_verify(last_run())), 0::bigint, '... is proven');
SELECT is((SELECT max(state::text) FROM mako_trace('late')), '{"words": [0, 1, 2, 3]}', '... and traced');
SELECT is(split_part(pg_temp.error(format('SELECT %s(%s)', f, (SELECT run_id FROM mako.migration_run WHERE kind = 'attach'))), '|', 1), '55000', f || ' of the given states')
FROM (VALUES ('mako_verify'), ('mako_revert')) AS x (f);
SELECT mako_revert(last_run());

-- ---- versions that end ---------------------------------------------------------------------------------------------------------------------------

SELECT mako_drain('FV2024-10-01');
SELECT is(say('too late', 0), '55000 format version "FV2024-10-01" is draining', 'a draining version takes no new stream');
SELECT is(say('b', 3), 'written', '... but events');
SELECT mako_exempt('talk@FV2024-10-01', 'only a test');
SELECT mako_retire('FV2024-10-01');
SELECT is(say('b', 4), '55000 format version "FV2024-10-01" is retired', 'a retired one takes nothing');
SELECT mako_reactivate('FV2024-10-01');

-- ---- repair, and detaching -----------------------------------------------------------------------------------------------------------------------

ALTER TABLE message DISABLE TRIGGER mako_inserted;
SELECT is((SELECT object || ' ' || problem FROM mako_store_problem()), 'trigger mako_inserted is missing or disabled', 'a disabled trigger is noticed');
SELECT is(say('b', 4, 5), 'written', 'meanwhile, nothing is refused');
SELECT say('headless', 0);
SELECT is(findings(), 'error event_gap gap, error events_without_head headless, error head_behind b, error store_damaged trigger mako_inserted', '... and a check tells what is behind');
SELECT is(split_part(pg_temp.error('SELECT shop.run()'), '|', 2), 'the store is damaged', '... and nothing migrated');
SELECT mako_create_store();
SELECT is((SELECT version FROM mako.stream WHERE stream_id = 'b'), 6::bigint, 'a repair brings heads up to date');
SELECT is(mako_store_problem()::text, NULL, 'the store is whole again') FROM (SELECT) AS x;
CREATE TEMP TABLE kept AS SELECT * FROM mako.stream;
SELECT mako_detach_store();
SELECT is((SELECT count(*) FROM pg_trigger WHERE tgrelid = 'message'::regclass), (SELECT count(*) FROM before), 'detached, the table has its own triggers only');
SELECT is(mako_is_attached(), false, '... and the store events of its own');
SELECT is((SELECT relkind FROM pg_class WHERE oid = 'mako.event'::regclass), 'r', '... of which there are none');
SELECT is(has_table_privilege('attach_reader', 'mako.event', 'SELECT'), true, '... for the same readers');
SELECT is((SELECT count(*) FROM mako.stream), (SELECT count(*) FROM kept), 'heads stay');
SELECT say('b', 6), say('another', 0);
SELECT attach(replace(:'query', '-- all; ', E';\n'));
SELECT is((SELECT version FROM mako.stream WHERE stream_id = 'b'), 7::bigint, 'attached again, heads go on');
SELECT is((SELECT count(*) FROM mako.stream WHERE stream_id = 'another'), 1::bigint, '... with new ones');
SELECT mako_detach_store();

-- ---- other shapes: a join, partitions, keys of another type ----------------------------------------------------------------------------------------

CREATE TABLE stream (id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE event (stream int NOT NULL REFERENCES stream, number int, type text, data json, archived boolean NOT NULL DEFAULT false, PRIMARY KEY (stream, number, archived))
  PARTITION BY LIST (archived);
CREATE TABLE event_live PARTITION OF event FOR VALUES IN (false);
CREATE TABLE event_old PARTITION OF event FOR VALUES IN (true);
INSERT INTO stream SELECT i, 's' || i FROM generate_series(1, 20) AS i;
INSERT INTO event SELECT s, n, 'Said', format('{"word": %s}', n)::json FROM generate_series(1, 20) AS s, generate_series(1, 3) AS n ORDER BY n, s;
DROP SCHEMA mako CASCADE;
SELECT mako_create_store();
SELECT is(attach('SELECT stream AS stream_id, number AS sequence_number, type AS event_type, data AS payload FROM event WHERE NOT archived'), '20 60 0', 'partitions, and integer ids');
INSERT INTO event VALUES (1, 4, 'Said', '{"word": 4}'), (2, 4, 'Said', '{"word": 4}');
UPDATE event SET archived = true WHERE stream = 3;
SELECT is((SELECT format('%s %s', count(*), sum(version)) FROM mako.stream), '19 59', 'rows that go to another partition are archived');
SET mako_migration.scan_order = heap;
SELECT is((SELECT scan_order FROM mako_plan('talk@FV2024-10-01', 'talk@FV2025-10-01') WHERE kind = 'total'), 'heap: mako_migration.scan_order says so', 'partitions are read as they lie');
SELECT is(run(), '19 0', '... and migrated');
SELECT is((SELECT count(*) FROM mako_verify(last_run())), 0::bigint, '... as is proven');
RESET mako_migration.scan_order;
SELECT mako_revert(last_run());
SELECT mako_detach_store();
DROP SCHEMA mako CASCADE;
SELECT mako_create_store();
SELECT is(attach('SELECT s.name AS stream_id, e.number AS sequence_number, e.type AS event_type, e.data AS payload FROM event e JOIN stream s ON s.id = e.stream', 'event'), '20 62 0', 'a join');
INSERT INTO stream VALUES (30, 's30');
INSERT INTO event VALUES (30, 1, 'Said', '{"word": 1}');
SELECT is((SELECT version FROM mako.stream WHERE stream_id = 's30'), 1::bigint, 'new events are joined, too');
SELECT is((SELECT scan_order FROM mako_plan('talk@FV2024-10-01', 'talk@FV2025-10-01') WHERE kind = 'total'), 'key: the events are not the rows of one table', 'a join is read by statement');
SELECT is(run(), '21 0', '... and migrated');
SELECT is((SELECT count(*) FROM mako_verify(last_run())), 0::bigint, '... as is proven');
TRUNCATE event;
SELECT is((SELECT count(*) FROM mako.stream), 0::bigint, 'without events, there is no stream');

SELECT * FROM finish();
