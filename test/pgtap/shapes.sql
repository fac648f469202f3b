-- The store's tables in other shapes: with columns, indexes, constraints, storage, triggers that
-- their owner has chosen. The same migrations, appends and reverts give the same states, heads,
-- errors and reports in all of them, whichever order events are read in, and no index is damaged.
-- Runs in an empty database, as a superuser.

CREATE EXTENSION pgtap;
CREATE EXTENSION amcheck;
CREATE EXTENSION btree_gist;
\set streams 160
\ir include/two_workflows.sql
\ir include/helpers.sql
SET client_min_messages = error;

-- Values that are stored apart, and streams that are refused.
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
SELECT stream_no, 5, workflow_id, CASE WHEN stream_no % 25 = 0 THEN 'Refused' ELSE 'Noted' END,
       jsonb_build_object('note', repeat(md5(stream_no::text),
                                         CASE WHEN stream_no % 40 = 1 THEN 400 ELSE 1 END))
FROM mako.stream;
ANALYZE;

-- What is in the store, apart from times.
CREATE FUNCTION pg_temp.rows_now() RETURNS text LANGUAGE sql AS $$
  SELECT count(*) || ' rows ' || md5(string_agg(line, E'\n' ORDER BY line COLLATE "C"))
  FROM (SELECT concat_ws(' ', 'head', stream_no, stream_id, workflow_id, version) FROM mako.stream
        UNION ALL
        SELECT concat_ws(' ', 'snapshot', stream_no, sequence_number, run_id, workflow_id,
                         state_schema_version, state) FROM mako.snapshot
        UNION ALL
        SELECT concat_ws(' ', 'reverted', stream_no, run_id, reverted_by) FROM mako.reverted
        UNION ALL
        SELECT concat_ws(' ', 'error', run_id, stream_id, phase, sequence_number, sqlstate, message)
        FROM mako.migration_error
        UNION ALL
        SELECT concat_ws(' ', 'deadline', stream_no, workflow_id) FROM lib.deadline) AS t (line)
$$;

-- Indexes that disagree with their tables, and damaged rows.
CREATE FUNCTION pg_temp.damage() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  PERFORM bt_index_parent_check(c.oid, true, true)
  FROM pg_class c JOIN pg_am a ON a.oid = c.relam
  WHERE c.relnamespace = 'mako'::regnamespace AND c.relkind = 'i' AND a.amname = 'btree';
  RETURN (SELECT string_agg(concat_ws(' ', c.relname, v.blkno, v.offnum, v.msg), ', ')
          FROM pg_class c, verify_heapam(c.oid, check_toast => true) v
          WHERE c.relnamespace = 'mako'::regnamespace AND c.relkind = 'r');
END
$$;

-- What a shape is for, in both orders: migrations there and back with appends in between, a revert.
-- Returns reports and rows, or the error; changes nothing.
CREATE FUNCTION pg_temp.outcome(change text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  result text := '';
  report mako_migration_report;
BEGIN
  EXECUTE change;
  PERFORM setval('mako.migration_run_run_id_seq', 1, false); -- which nothing takes back
  FOR scan_order IN 1 .. 2 LOOP
    PERFORM set_config('mako_migration.scan_order', (ARRAY['heap', 'key'])[scan_order], true);
    FOREACH report IN ARRAY ARRAY[
      mako_migrate('native@FV2024-10-01', 'native@FV2025-10-01'),
      mako_migrate('plain@FV2024-10-01', 'plain@FV2025-10-01')]
    LOOP
      result := result || format('%s+%s-%s ', report.migrated, report.skipped, report.failed);
    END LOOP;
    PERFORM mako_append(stream_id, workflow_id, 'Noted', '{"note": 6}')
    FROM (SELECT * FROM mako.stream WHERE stream_no % 5 = 1 ORDER BY stream_no) AS s;
    result := result || (SELECT format('back %s-%s ', migrated, failed)
                         FROM mako_migrate('native@FV2025-10-01', 'native@FV2024-10-01'));
    result := result || (SELECT format('reverted %s-%s ', migrated, failed)
                         FROM mako_revert(report.run_id));
    result := result || pg_temp.rows_now() || E'\n';
  END LOOP;
  result := result || coalesce(pg_temp.damage(), 'whole') || E'\n' ||
            coalesce((SELECT string_agg(code, ' ') FROM mako_check(0) WHERE severity = 'error'),
                     'no error');
  RAISE EXCEPTION USING ERRCODE = 'MKTST', MESSAGE = result;
EXCEPTION
  WHEN SQLSTATE 'MKTST' THEN
    RETURN SQLERRM;
  WHEN OTHERS THEN
    RETURN SQLSTATE || ' ' || SQLERRM;
END
$$;

-- Makes mako.event anew, by a definition, with the rows that it has; statements that make partitions.
CREATE FUNCTION pg_temp.make_event(columns text, partitions text DEFAULT '') RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  CREATE TABLE lib.event_before AS SELECT * FROM mako.event;
  DROP TABLE mako.event CASCADE;
  EXECUTE format('CREATE TABLE mako.event (%s)', columns);
  EXECUTE partitions;
  ALTER TABLE mako.event DROP COLUMN IF EXISTS gone;
  PERFORM mako_create_store();
  ALTER TABLE mako.event DISABLE TRIGGER event_inserted;
  INSERT INTO mako.event (stream_no, sequence_number, event_id, recorded_at, workflow_id,
                          event_type, schema_version, payload)
  SELECT stream_no, sequence_number, event_id, recorded_at, workflow_id, event_type,
         schema_version, payload
  FROM lib.event_before ORDER BY stream_no, sequence_number;
  ALTER TABLE mako.event ENABLE TRIGGER event_inserted;
END
$$;

-- Fails where events cannot be read in heap order.
CREATE FUNCTION pg_temp.require_heap_order() RETURNS void LANGUAGE plpgsql
SET mako_migration.scan_order = heap AS $$
DECLARE
  found text := (SELECT scan_order FROM mako_plan('native@FV2024-10-01', 'native@FV2025-10-01')
                 WHERE kind = 'total');
BEGIN
  ASSERT found LIKE 'heap:%', found;
END
$$;
\set columns 'stream_no bigint NOT NULL, sequence_number bigint NOT NULL, event_id uuid NOT NULL DEFAULT gen_random_uuid(), recorded_at timestamptz NOT NULL DEFAULT now(), workflow_id text COLLATE "C" NOT NULL, event_type text COLLATE "C" NOT NULL, schema_version int NOT NULL DEFAULT 1, payload jsonb NOT NULL, correlation_id uuid, causation_id uuid, conversation_id uuid'
\set other_columns 'payload jsonb NOT NULL, gone int, causation_id uuid, correlation_id uuid, event_type text COLLATE "C" NOT NULL, schema_version int NOT NULL DEFAULT 1, stream_no bigint NOT NULL, workflow_id text COLLATE "C" NOT NULL, sequence_number bigint NOT NULL, event_id uuid NOT NULL DEFAULT gen_random_uuid(), recorded_at timestamptz NOT NULL DEFAULT now(), conversation_id uuid'

CREATE TEMPORARY TABLE shape (n int GENERATED ALWAYS AS IDENTITY, what text, change text);
INSERT INTO shape (what, change) VALUES
  ('other columns, and columns that are gone', $$
     ALTER TABLE mako.event ADD gone int DEFAULT 5, ADD more text;
     ALTER TABLE mako.event DROP gone, DROP correlation_id, ADD correlation_id uuid;
     ALTER TABLE mako.snapshot ADD gone int DEFAULT 7, ADD more text DEFAULT 'x',
       ADD at timestamptz DEFAULT now();
     ALTER TABLE mako.snapshot DROP gone;
     ALTER TABLE mako.stream ADD gone int, ADD more text DEFAULT 'q';
     ALTER TABLE mako.stream DROP gone$$),
  ('columns in another order', $$
     SELECT pg_temp.make_event('more text DEFAULT ''x'', payload jsonb NOT NULL,
       workflow_id text COLLATE "C" NOT NULL, gone int, sequence_number bigint NOT NULL,
       event_type text COLLATE "C" NOT NULL, stream_no bigint NOT NULL, conversation_id uuid,
       schema_version int NOT NULL DEFAULT 1, event_id uuid NOT NULL DEFAULT gen_random_uuid(),
       recorded_at timestamptz NOT NULL DEFAULT now(), correlation_id uuid, causation_id uuid')$$),
  ('unlogged tables', $$
     ALTER TABLE mako.event SET UNLOGGED; ALTER TABLE mako.snapshot SET UNLOGGED$$),
  ('values that are stored in other ways', $$
     ALTER TABLE mako.event ALTER payload SET STORAGE EXTERNAL;
     ALTER TABLE mako.snapshot ALTER state SET STORAGE EXTERNAL;
     ALTER TABLE mako.snapshot SET (toast_tuple_target = 128)$$),
  ('tables that were sorted', $$
     CLUSTER mako.event USING event_pkey; CLUSTER mako.stream USING stream_pkey$$),
  ('full pages', $$
     ALTER TABLE mako.stream SET (fillfactor = 100); CLUSTER mako.stream USING stream_pkey$$),
  ('more indexes on snapshots', $$
     CREATE INDEX ON mako.snapshot USING gin (state);
     CREATE INDEX ON mako.snapshot USING brin (taken_at);
     CREATE INDEX ON mako.snapshot USING hash (stream_no);
     CREATE INDEX ON mako.snapshot ((state->>'count')) WHERE run_id > 0;
     CREATE UNIQUE INDEX ON mako.snapshot (stream_no, sequence_number, run_id, workflow_id)
       INCLUDE (state_schema_version)$$),
  ('indexes on heads, of what changes', $$
     CREATE INDEX ON mako.stream (workflow_id); CREATE INDEX ON mako.stream (version);
     CREATE INDEX ON mako.stream USING brin (version);
     CREATE INDEX ON mako.stream (created_at) INCLUDE (version);
     CREATE INDEX ON mako.stream ((version + 1)) WHERE workflow_id LIKE 'native%'$$),
  ('a key that is checked later', $$
     ALTER TABLE mako.snapshot ADD UNIQUE (stream_no, run_id, sequence_number)
       DEFERRABLE INITIALLY DEFERRED$$),
  ('an exclusion constraint', $$
     ALTER TABLE mako.snapshot ADD EXCLUDE USING gist
       (stream_no WITH =, sequence_number WITH =, run_id WITH =)$$),
  ('policies, for the owner as well', $$
     ALTER TABLE mako.event ENABLE ROW LEVEL SECURITY;
     ALTER TABLE mako.event FORCE ROW LEVEL SECURITY;
     ALTER TABLE mako.stream ENABLE ROW LEVEL SECURITY;
     ALTER TABLE mako.stream FORCE ROW LEVEL SECURITY$$),
  ('tables that are published', $$
     ALTER TABLE mako.stream REPLICA IDENTITY FULL; ALTER TABLE mako.snapshot REPLICA IDENTITY FULL;
     CREATE PUBLICATION all_tables FOR ALL TABLES$$),
  ('triggers that change nothing', $$
     CREATE FUNCTION lib.pass() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
     CREATE TRIGGER pass BEFORE UPDATE ON mako.stream FOR EACH ROW EXECUTE FUNCTION lib.pass();
     CREATE TRIGGER pass BEFORE INSERT ON mako.event FOR EACH ROW EXECUTE FUNCTION lib.pass();
     CREATE TRIGGER pass AFTER INSERT ON mako.snapshot FOR EACH ROW EXECUTE FUNCTION lib.pass()$$),
  ('rules that change nothing', $$
     CREATE RULE pass AS ON UPDATE TO mako.stream DO ALSO NOTHING;
     CREATE RULE pass AS ON INSERT TO mako.snapshot DO ALSO NOTHING$$),
  ('statistics of another table', $$
     UPDATE pg_class SET reltuples = 1e9, relpages = 1e7 WHERE oid = 'mako.event'::regclass$$);
INSERT INTO shape (what, change) VALUES
  ('partitions by hash, one with columns in another order', format($$
     SELECT pg_temp.make_event(%L, %L); SELECT pg_temp.require_heap_order()$$,
     :'columns' || ') PARTITION BY HASH (stream_no', format($$
     CREATE TABLE mako.event_0 PARTITION OF mako.event FOR VALUES WITH (MODULUS 4, REMAINDER 0);
     CREATE TABLE mako.event_1 PARTITION OF mako.event FOR VALUES WITH (MODULUS 4, REMAINDER 1);
     CREATE TABLE mako.event_2 (%s); ALTER TABLE mako.event_2 DROP gone;
     ALTER TABLE mako.event ATTACH PARTITION mako.event_2 FOR VALUES WITH (MODULUS 4, REMAINDER 2);
     CREATE TABLE mako.event_3 PARTITION OF mako.event FOR VALUES WITH (MODULUS 4, REMAINDER 3)$$,
     :'other_columns'))),
  ('partitions by range, partitioned again, and empty ones', format($$
     SELECT pg_temp.make_event(%L, %L); SELECT pg_temp.require_heap_order()$$,
     :'columns' || ') PARTITION BY RANGE (stream_no', $$
     CREATE TABLE mako.event_a PARTITION OF mako.event FOR VALUES FROM (0) TO (50);
     CREATE TABLE mako.event_b PARTITION OF mako.event FOR VALUES FROM (50) TO (100)
       PARTITION BY HASH (stream_no);
     CREATE TABLE mako.event_b0 PARTITION OF mako.event_b FOR VALUES WITH (MODULUS 2, REMAINDER 0);
     CREATE TABLE mako.event_b1 PARTITION OF mako.event_b FOR VALUES WITH (MODULUS 2, REMAINDER 1);
     CREATE TABLE mako.event_c PARTITION OF mako.event FOR VALUES FROM (1000000) TO (2000000);
     CREATE TABLE mako.event_d PARTITION OF mako.event FOR VALUES FROM (2000000) TO (3000000)
       PARTITION BY HASH (stream_no);
     CREATE TABLE mako.event_e PARTITION OF mako.event DEFAULT$$)),
  ('one partition', format($$
     SELECT pg_temp.make_event(%L, %L); SELECT pg_temp.require_heap_order()$$,
     :'columns' || ') PARTITION BY HASH (stream_no', $$
     CREATE TABLE mako.event_0 PARTITION OF mako.event FOR VALUES WITH (MODULUS 1, REMAINDER 0)$$));
-- lz4 is new in 14, and not in every server.
INSERT INTO shape (what, change)
SELECT 'another compression', $$
     ALTER TABLE mako.event ALTER payload SET COMPRESSION lz4;
     ALTER TABLE mako.snapshot ALTER state SET COMPRESSION lz4$$
FROM pg_settings WHERE name = 'default_toast_compression' AND 'lz4' = ANY (enumvals);

SELECT plan((SELECT count(*)::int + 4 FROM shape));
SELECT pg_temp.outcome('') AS expected \gset
SELECT matches(:'expected'::text, '^77\+80-3 77\+80-3 back 77-0 reverted 61-16 ',
               'streams are migrated, and streams fail');
SELECT matches(:'expected'::text, E'\nwhole\nno error$', 'and nothing is damaged');
-- What was undone is in the way of the next one.
SELECT 'VACUUM mako.event, mako.snapshot, mako.stream',
       format('SELECT is(pg_temp.outcome(%L), %L, %L)', change, :'expected', what || ': the same')
FROM shape ORDER BY n \gexec
SELECT isnt(pg_temp.outcome('ALTER TABLE mako.stream DISABLE TRIGGER stream_inserted;
                             INSERT INTO mako.stream (stream_id, workflow_id)
                             VALUES (''new'', ''native@FV2024-10-01'')'),
            :'expected', 'a stream more is not the same');

-- This is not taken back, because the server would leave index entries of rows that were nowhere.
SET allow_in_place_tablespaces = on;
CREATE TABLESPACE mako_shapes LOCATION '';
ALTER TABLE mako.event SET TABLESPACE mako_shapes;
ALTER INDEX mako.event_pkey SET TABLESPACE mako_shapes;
ALTER TABLE mako.snapshot SET TABLESPACE mako_shapes;
ALTER TABLE mako.stream SET TABLESPACE mako_shapes;
SELECT is(pg_temp.outcome(''), :'expected', 'another tablespace: the same');

SELECT * FROM finish();
ALTER TABLE ALL IN TABLESPACE mako_shapes SET TABLESPACE pg_default;
ALTER INDEX ALL IN TABLESPACE mako_shapes SET TABLESPACE pg_default;
DROP TABLESPACE mako_shapes;
