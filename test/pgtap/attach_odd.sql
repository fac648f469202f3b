-- Odd things to attach, and odd ways to write to what is attached: each is refused, or right. No event is lost, counted twice, or
-- written past the fence; nobody sees more than before.
-- Runs in an empty database, from the root of the project.

CREATE EXTENSION pgtap;
CREATE EXTENSION mako_migration;

SELECT plan(36);
SELECT current_setting('server_version_num')::int >= 180000 AS has_virtual \gset
SET client_min_messages = error;

CREATE ROLE odd_writer;
CREATE ROLE odd_tenant;
CREATE SCHEMA shop;
GRANT USAGE ON SCHEMA shop TO odd_writer;
SELECT mako_create_store();
CREATE FUNCTION shop.apply(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$ SELECT state || payload $$;
CREATE FUNCTION shop.step(state jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$ SELECT state $$;
SELECT mako_register_workflow('w@FV2024-10-01', 'shop.apply', initial_state => '{}'),
       mako_register_workflow('w@FV2025-10-01', 'shop.apply', initial_state => '{}'), mako_register_migration('w@FV2024-10-01', 'w@FV2025-10-01', 'shop.step');

CREATE COLLATION shop.anycase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE shop.other (id bigint PRIMARY KEY, name text);
CREATE TABLE shop.message (
  st text, c char(10), v varchar, u uuid, b bigint, n numeric, ts timestamptz, iv interval, j jsonb, x xml, nc text COLLATE shop.anycase,
  other bigint REFERENCES shop.other, pos bigint, typ text, data jsonb DEFAULT '{}', gone boolean DEFAULT false);
INSERT INTO shop.other VALUES (1, 'hidden');

-- Attaches by a column, writes, and tells what there is then; all of it is undone. A refusal is its SQLSTATE; one of attaching 'refused'.
CREATE FUNCTION pg_temp.try(query text, writes text[] DEFAULT '{}', result text DEFAULT 'SELECT NULL', appended_to regclass DEFAULT NULL)
RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  answer   text;
  attached boolean := false;
  write    text;
BEGIN
  BEGIN
    PERFORM mako_attach_store(query, 'w@FV2024-10-01', appended_to);
    attached := true;
    FOREACH write IN ARRAY writes LOOP
      EXECUTE write;
    END LOOP;
    EXECUTE result INTO answer;
    RAISE EXCEPTION SQLSTATE 'ZZ000' USING MESSAGE = COALESCE(answer, 'attached');
  EXCEPTION
    WHEN SQLSTATE 'ZZ000' THEN answer := SQLERRM;
    WHEN OTHERS THEN answer := CASE WHEN attached THEN SQLSTATE || ' ' || SQLERRM
                                    WHEN SQLSTATE LIKE 'XX%' THEN SQLSTATE ELSE 'refused' END;
  END;
  RETURN answer;
END $$;
CREATE FUNCTION pg_temp.query(id text, rest text DEFAULT '') RETURNS text LANGUAGE sql AS
  $$ SELECT format('SELECT %s AS stream_id, pos AS sequence_number, typ AS event_type, data AS payload FROM shop.message %s', id, rest) $$;

-- ---- the type of the key: as many events as rows, each once; or none is attached

CREATE FUNCTION pg_temp.key(key_column text, a text, b text) RETURNS text LANGUAGE sql AS $$
  SELECT pg_temp.try(pg_temp.query(key_column),
                     ARRAY[format('INSERT INTO shop.message (%s, pos, typ) VALUES (%L, 1, ''A''), (%L, 2, ''A'')', key_column, a, a),
                           format('INSERT INTO shop.message (%s, pos, typ) VALUES (%L, 1, ''A'')', key_column, b)],
                     'SELECT count(*) FROM mako.event')
$$;
SELECT is(pg_temp.key('st', 'a', 'b'), '3', 'text');
SELECT is(pg_temp.key('v', 'a', 'A'), '3', 'varchar');
SELECT is(pg_temp.key('u', '00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-000000000002'), '3', 'uuid');
SELECT is(pg_temp.key('b', '1', '2'), '3', 'bigint');
SELECT ok(pg_temp.key('c', 'a1', 'a2') IN ('3', 'refused'), 'char(n): no event is lost');
SELECT ok(pg_temp.key('nc', 'a', 'A') IN ('3', 'refused'), 'a collation that takes a for A: no event is in two streams');
SELECT ok(pg_temp.key('n', '1.0', '1.00') IN ('3', 'refused'), 'numeric');
SELECT ok(pg_temp.key('j', '1.0', '1.00') IN ('3', 'refused'), 'jsonb');
SELECT ok(pg_temp.key('iv', '1 day', '24:00') IN ('3', 'refused'), 'interval');
SELECT is(pg_temp.key('x', '<a/>', '<b/>'), 'refused', 'xml, which has no equality');
SELECT is(pg_temp.try(pg_temp.query('ts'), ARRAY['INSERT INTO shop.message (ts, pos, typ) VALUES (''2024-01-01 00:00+00'', 1, ''A'')',
                                                'SET LOCAL "TimeZone" = ''Asia/Tokyo''',
                                                'INSERT INTO shop.message (ts, pos, typ) VALUES (''2024-01-01 00:00+00'', 2, ''A'')'],
                      'SELECT count(*) FROM mako.stream'),
          'refused', 'timestamptz, whose text depends on the session');

-- ---- which table, and how often

CREATE TABLE shop.parted (st text, pos bigint, typ text, data jsonb) PARTITION BY LIST (st);
CREATE TABLE shop.leaf PARTITION OF shop.parted DEFAULT;
CREATE TABLE shop.parent (st text, pos bigint, typ text, data jsonb);
CREATE TABLE shop.child () INHERITS (shop.parent);
SELECT is(pg_temp.try('SELECT st AS stream_id, pos AS sequence_number, typ AS event_type, data AS payload FROM shop.leaf',
                      '{"INSERT INTO shop.parted VALUES (''a'', 1, ''A'', ''{}'')"}', 'SELECT count(*) FROM mako.stream'),
          'refused', 'a partition: its triggers do not see what is inserted into its parent');
SELECT is(pg_temp.try('SELECT st AS stream_id, pos AS sequence_number, typ AS event_type, data AS payload FROM shop.child',
                      '{"INSERT INTO shop.child VALUES (''a'', 1, ''A'', ''{}'')", "DELETE FROM shop.parent"}',
                      'SELECT count(*) FROM mako.stream'),
          'refused', 'a child: its triggers do not see what is deleted from its parent');
SELECT is(pg_temp.try('SELECT st AS stream_id, pos AS sequence_number, typ AS event_type, data AS payload FROM shop.parent',
                      '{"INSERT INTO shop.child VALUES (''a'', 1, ''A'', ''{}'')"}', 'SELECT count(*) FROM mako.stream'),
          'refused', 'a parent by inheritance: its triggers do not see what is inserted into its children');
SELECT is(pg_temp.try('SELECT st AS stream_id, pos AS sequence_number, typ AS event_type, data AS payload FROM ONLY shop.parent',
                      '{"INSERT INTO shop.child VALUES (''a'', 1, ''A'', ''{}'')"}',
                      'SELECT count(*) FROM mako.stream'), 'refused', '... also without them, because its triggers see their rows');
SELECT is(pg_temp.try('SELECT stream_id, version AS sequence_number, workflow_id AS event_type, ''{}''::jsonb AS payload FROM mako.stream'),
          'refused', 'a table of the store');
SELECT is(pg_temp.try(pg_temp.query('st', 'TABLESAMPLE BERNOULLI (50)')), 'refused', 'a sample');
SELECT is(pg_temp.try('WITH e AS (SELECT * FROM shop.message) SELECT e.st AS stream_id, e.pos AS sequence_number, e.typ AS event_type,
                       e.data AS payload FROM e JOIN e f USING (st)'), 'refused', 'a part of the query that is read twice');
SELECT is(pg_temp.try(pg_temp.query('st'), appended_to => 4294967295::oid), 'refused', 'a table that does not exist');
SELECT is(pg_temp.try('SELECT 1'), 'refused', 'no columns');

-- ---- texts

SELECT is(pg_temp.try(pg_temp.query('st', ') AS e; CREATE TABLE IF NOT EXISTS shop.injected (); SELECT * FROM (SELECT 1')), 'refused', 'several statements');
SELECT is(pg_temp.try(pg_temp.query('st', 'WHERE typ <> ''%s%I%1$s'' -- %L')), 'attached', 'what format() takes for its own, and a comment at the end');
SELECT is(pg_temp.try(pg_temp.query('st', 'WHERE typ <> $a$ '' ; $a$ ; ')), 'attached', 'quotes, and a semicolon');

-- ---- numbers

SELECT alike(pg_temp.try(pg_temp.query('st'), ARRAY['INSERT INTO shop.message (st, pos, typ) VALUES (''a'', -9223372036854775808, ''A'')']), 'XX001 %',
             'the least bigint is no number of an event');
SELECT alike(pg_temp.try(pg_temp.query('st'), ARRAY['INSERT INTO shop.message (st, pos, typ) VALUES (''a'', 9223372036854775807, ''A'')',
                                                    'INSERT INTO shop.message (st, pos, typ) VALUES (''a'', -9223372036854775808, ''A'')']),
             'XX001 %', 'nor does it come after the greatest one');

-- ---- the fence, past which nothing comes: UPDATE

CREATE FUNCTION pg_temp.moved(VARIADIC writes text[]) RETURNS text LANGUAGE sql AS $$
  SELECT pg_temp.try(pg_temp.query('st', 'WHERE NOT gone'),
                     ARRAY['INSERT INTO shop.message (st, pos, typ) VALUES (''a'', 1, ''A''), (''b'', 1, ''A'')',
                           'SELECT mako_migrate(''w@FV2024-10-01'', ''w@FV2025-10-01'')'] || writes,
                     'SELECT string_agg(s.stream_id || s.version || (SELECT count(*) FROM mako.event e WHERE e.stream_no = s.stream_no), '' ''
                                        ORDER BY s.stream_id) FROM mako.stream s')
$$;
SELECT alike(pg_temp.moved('INSERT INTO shop.message (st, pos, typ) VALUES (''a'', 2, ''A'')'), 'MK005 %', 'a late writer is refused');
SELECT alike(pg_temp.moved('INSERT INTO shop.message (st, pos, typ, gone) VALUES (''a'', 2, ''A'', true)', 'UPDATE shop.message SET gone = false'),
             'MK005 %', 'and one who makes an event of a row that was none');
SELECT alike(pg_temp.moved('INSERT INTO shop.message (st, pos, typ) VALUES (''c'', 1, ''A''), (''c'', 2, ''A'')',
                           'UPDATE shop.message SET st = ''a'' WHERE st = ''c'' AND pos = 2'), 'MK005 %', 'and one who moves an event to another stream');
SELECT unalike(pg_temp.moved('UPDATE shop.message SET pos = 7 WHERE st = ''a'''), 'a11 %', 'nor is a head behind after an event is numbered anew');
SELECT is(pg_temp.moved('UPDATE shop.message SET data = ''{"n": 1}'''), 'a11 b11', 'payloads can be changed');

-- ---- what others see

CREATE FUNCTION pg_temp.as_writer(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  detail text;
BEGIN
  SET LOCAL ROLE odd_writer;
  EXECUTE statement;
  RETURN 'written';
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
  RETURN concat_ws(' ', SQLSTATE, SQLERRM, detail);
END $$;
GRANT INSERT ON shop.message TO odd_writer;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO odd_writer;
SELECT unalike(pg_temp.try('SELECT o.name AS stream_id, pos AS sequence_number, typ AS event_type, data AS payload FROM shop.message m
                              JOIN shop.other o ON o.id = m.other', '{}',
                           'SELECT pg_temp.as_writer(''INSERT INTO shop.message (other, pos, typ) VALUES (1, 1, ''''A''''), (1, 3, ''''A'''')'')', 'shop.message'),
               '%hidden%', 'a writer does not learn from errors what is joined');
SELECT unalike(pg_temp.try(pg_temp.query('st'), '{}', 'SELECT pg_temp.as_writer(''INSERT INTO shop.message (st, pos, typ) VALUES ('''''''', 1, ''''A'''')'')'),
               '%Failing row%', 'nor a row of mako.stream');
GRANT USAGE ON SCHEMA mako TO odd_tenant;
GRANT SELECT ON mako.event, mako.stream TO odd_tenant;
GRANT INSERT ON mako.event TO odd_writer;
SELECT is(pg_temp.try(pg_temp.query('st'), '{"SELECT mako_detach_store()"}', 'SELECT has_table_privilege(''odd_writer'', ''mako.event'', ''INSERT'')'),
          'true', 'who may write to the table of events may do so again, when the store is detached');
ALTER TABLE mako.event ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON mako.event TO odd_tenant USING (stream_no = 1);
SELECT is(pg_temp.try(pg_temp.query('st')), 'refused', 'a table of events with policies is not replaced by a view without');
ALTER TABLE mako.event DISABLE ROW LEVEL SECURITY;
DROP POLICY p ON mako.event;
SELECT unalike(pg_temp.try(pg_temp.query('u'), '{"INSERT INTO shop.message (u, pos, typ) VALUES (gen_random_uuid(), 1, ''A'')",
                                                 "INSERT INTO mako.stream (stream_id, workflow_id) VALUES (''no uuid'', ''w@FV2024-10-01'')"}',
                           'SELECT count(*) FROM mako.event'), '22P02 %', 'a head with another kind of id does not keep others from reading');
-- 18 has columns that are computed when they are read, with nobody's rights but the reader's.
\if :has_virtual
  CREATE TABLE shop.computed (st text, pos bigint, typ text GENERATED ALWAYS AS ('A') VIRTUAL);
\else
  CREATE VIEW shop.computed AS SELECT '' AS st, 1::bigint AS pos, 'A' AS typ;
\endif
SELECT is(pg_temp.try('SELECT st AS stream_id, pos AS sequence_number, typ AS event_type, ''{}''::jsonb AS payload FROM shop.computed'),
          'refused', 'a table with a column that is computed when it is read, and a view without a table');

SELECT * FROM finish();
