-- Ways around the fence: a writer who has every privilege on the store's tables but TRIGGER changes
-- nothing that only a migration may change. Where triggers are off, the same statements do it, so
-- that each of them is worth refusing. Runs in an empty database.

CREATE EXTENSION pgtap;
CREATE EXTENSION mako_migration;

\ir include/helpers.sql
SET client_min_messages = warning;

SELECT mako_create_store();
CREATE SCHEMA lib;
CREATE FUNCTION lib.apply(state jsonb, event_type text, payload jsonb) RETURNS jsonb
LANGUAGE sql STABLE AS $$ SELECT state || payload $$;
SELECT mako_register_workflow('w@FV2024-10-01', 'lib.apply', initial_state => '{}'),
       mako_register_workflow('w@FV2025-10-01', 'lib.apply', initial_state => '{}');
SELECT mako_register_migration('w@FV2024-10-01', 'w@FV2025-10-01');

-- "moved" has an event, a snapshot of the migration and one of its own; "empty" was repointed only.
-- Their old version is retired.
INSERT INTO mako.stream (stream_id, workflow_id)
VALUES ('moved', 'w@FV2024-10-01'), ('empty', 'w@FV2024-10-01');
SELECT mako_append('moved', 'w@FV2024-10-01', 'Said', '{"word": 1}');
SELECT migrated FROM mako_migrate('w@FV2024-10-01', 'w@FV2025-10-01');
SELECT mako_retire('FV2024-10-01');
SELECT mako_append('moved', 'w@FV2025-10-01', 'Said', '{"word": 2}');
SELECT mako_take_snapshot('moved');

CREATE ROLE "fence: Writer";
GRANT pg_execute_server_program TO "fence: Writer"; -- for COPY
GRANT USAGE ON SCHEMA mako TO "fence: Writer";
GRANT ALL ON ALL TABLES IN SCHEMA mako TO "fence: Writer";
GRANT ALL ON ALL SEQUENCES IN SCHEMA mako TO "fence: Writer";
REVOKE TRIGGER ON ALL TABLES IN SCHEMA mako FROM "fence: Writer";

-- What may not change: everything but periodic snapshots.
CREATE FUNCTION pg_temp.rows_now() RETURNS TABLE (part name, line text) LANGUAGE plpgsql AS $$
BEGIN
  FOR part IN
    SELECT relname FROM pg_class WHERE relnamespace = 'mako'::regnamespace AND relkind = 'r'
  LOOP
    RETURN QUERY EXECUTE format('SELECT %L::name, t::text FROM mako.%I t %s', part, part,
                                CASE part WHEN 'snapshot' THEN 'WHERE run_id <> 0' END);
  END LOOP;
END
$$;

-- Where "alone" is given, the statement fails without triggers as well, with that SQLSTATE.
CREATE TEMPORARY TABLE attempt (n int GENERATED ALWAYS AS IDENTITY,
                                what text, refusal text, alone text, statement text);
INSERT INTO attempt (what, refusal, alone, statement) VALUES
  -- events
  ('an event under the retired version', 'MK005', NULL,
   $$EVENT VALUES (1, 3, 'w@FV2024-10-01', 'Said', '{}')$$),
  ('an event that leaves a gap', 'XX001', NULL,
   $$EVENT VALUES (1, 4, 'w@FV2025-10-01', 'Said', '{}')$$),
  ('an event before the first', '23514', '23514',
   $$EVENT VALUES (1, -7, 'w@FV2025-10-01', 'Said', '{}')$$),
  ('an event of no stream', '42704', NULL,
   $$EVENT VALUES (7, 1, 'w@FV2025-10-01', 'Said', '{}')$$),
  ('events of a query', 'MK005', NULL,
   $$EVENT SELECT stream_no, sequence_number + 10, workflow_id, event_type, '{}' FROM mako.event$$),
  ('events of COPY', 'MK005', NULL,
   $$COPY mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
     FROM PROGRAM 'echo 1,3,w@FV2024-10-01,Said,1' (FORMAT csv)$$),
  ('ON CONFLICT, which changes an event', '0A000', NULL,
   $$EVENT VALUES (1, 1, 'w@FV2025-10-01', 'Said', '{}')
     ON CONFLICT (stream_no, sequence_number) DO UPDATE SET payload = '{"word": 9}'$$),
  ('ON CONFLICT, which might', '0A000', NULL,
   $$EVENT VALUES (1, 1, 'w@FV2025-10-01', 'Said', '{}')
     ON CONFLICT (stream_no, sequence_number) DO UPDATE SET payload = '{}' WHERE false$$),
  ('UPDATE of events', '0A000', NULL,
   $$UPDATE mako.event SET payload = '{"word": 9}'$$),
  ('UPDATE ONLY of none', '0A000', NULL,
   $$UPDATE ONLY mako.event SET payload = '{"word": 9}' WHERE false$$),
  ('UPDATE by a join', '0A000', NULL,
   $$UPDATE mako.event e SET payload = '{}' FROM mako.stream s WHERE s.stream_no = e.stream_no$$),
  ('UPDATE at a cursor', '0A000', NULL,
   $$DO $do$
     DECLARE
       c CURSOR FOR SELECT * FROM mako.event FOR UPDATE;
     BEGIN
       OPEN c;
       MOVE c;
       UPDATE mako.event SET payload = '{"word": 9}' WHERE CURRENT OF c;
     END $do$ $$),
  ('DELETE of events', '0A000', NULL, $$DELETE FROM mako.event$$),
  ('DELETE in a WITH', '0A000', NULL,
   $$WITH gone AS (DELETE FROM mako.event RETURNING *) SELECT * FROM gone$$),
  ('TRUNCATE of events', '0A000', NULL, $$TRUNCATE mako.event$$),
  ('TRUNCATE of heads, and what depends on them', '0A000', NULL, $$TRUNCATE mako.stream CASCADE$$),
  ('TRUNCATE of all', '0A000', NULL,
   $$TRUNCATE mako.event, mako.snapshot, mako.format_version, mako.migration_run,
     mako.migration_error, mako.repointed, mako.migration_batch$$),

  -- what guards them
  ('a disabled trigger', '42501', NULL, $$ALTER TABLE mako.event DISABLE TRIGGER ALL$$),
  ('a dropped trigger', '42501', NULL, $$DROP TRIGGER event_guard ON mako.event$$),
  ('a renamed trigger', '42501', NULL, $$ALTER TRIGGER event_guard ON mako.event RENAME TO guard$$),
  ('a session that replicates', '42501', NULL, $$SET session_replication_role = replica$$),
  ('a replaced trigger function', '42501', NULL,
   $$CREATE OR REPLACE FUNCTION mako_guard() RETURNS trigger LANGUAGE plpgsql
     AS 'BEGIN RETURN NEW; END'$$),
  ('a trigger of one''s own', '42501', NULL,
   $$CREATE TRIGGER own AFTER INSERT ON mako.event FOR EACH ROW EXECUTE FUNCTION mako_guard()$$),
  ('a rule', '42501', NULL, $$CREATE RULE own AS ON UPDATE TO mako.event DO INSTEAD NOTHING$$),
  ('a table that inherits another one', '42501', '42804',
   $$ALTER TABLE mako.event INHERIT mako.stream$$),
  ('a table of the same name with the same trigger', '.....', NULL,
   $$DO $do$
     BEGIN
       CREATE TEMPORARY TABLE event (LIKE mako.event);
       CREATE TRIGGER own AFTER INSERT ON event REFERENCING NEW TABLE AS inserted
         FOR EACH STATEMENT EXECUTE FUNCTION mako_event_inserted();
       INSERT INTO event SELECT * FROM mako.event;
     END $do$ $$),

  -- heads
  ('a head that goes back', '0A000', NULL,
   $$UPDATE mako.stream SET workflow_id = 'w@FV2024-10-01'$$),
  ('ON CONFLICT, which moves a head', '0A000', NULL,
   $$INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('moved', 'w@FV2025-10-01')
     ON CONFLICT (stream_id) DO UPDATE SET workflow_id = 'w@FV2024-10-01'$$),
  ('a new stream under the retired version', '55000', NULL,
   $$INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('new', 'w@FV2024-10-01')$$),
  ('a new stream that has events already', '.....', NULL,
   $$INSERT INTO mako.stream (stream_id, workflow_id, version)
     VALUES ('new', 'w@FV2025-10-01', 4)$$),
  ('another version of a head', '0A000', NULL,
   $$UPDATE mako.stream SET version = 9 WHERE stream_no = 1$$),
  ('another id of a head', '0A000', NULL,
   $$UPDATE mako.stream SET stream_id = 'another' WHERE stream_no = 1$$),
  ('a head less', '0A000', NULL, $$DELETE FROM mako.stream$$),

  -- snapshots of migrations
  ('a forged state', '0A000', NULL,
   $$UPDATE mako.snapshot SET state = '{"word": 9}' WHERE run_id <> 0$$),
  ('a snapshot that counts as reverted', '0A000', NULL,
   $$INSERT INTO mako.reverted SELECT stream_no, run_id, 2 FROM mako.snapshot WHERE run_id <> 0$$),
  ('a snapshot that becomes a periodic one', '0A000', NULL,
   $$UPDATE mako.snapshot SET run_id = 0 WHERE run_id <> 0$$),
  ('a periodic one that becomes a migration''s', '0A000', NULL,
   $$UPDATE mako.snapshot SET run_id = 1, sequence_number = 2 WHERE run_id = 0$$),
  ('a snapshot more', '0A000', NULL,
   $$SNAPSHOT VALUES (1, 2, 1, 'w@FV2025-10-01', 1, '{"word": 9}')$$),
  ('a snapshot of a run before the first', '0A000', NULL,
   $$SNAPSHOT VALUES (1, 2, -1, 'w@FV2025-10-01', 1, '{"word": 9}')$$),
  ('ON CONFLICT, which forges a state', '0A000', NULL,
   $$SNAPSHOT VALUES (1, 1, 1, 'w@FV2025-10-01', 1, '{}')
     ON CONFLICT (stream_no, sequence_number, run_id) DO UPDATE SET state = '{"word": 9}'$$),
  ('a snapshot less', '0A000', NULL, $$DELETE FROM mako.snapshot WHERE run_id <> 0$$),
  ('no snapshots', '0A000', NULL, $$TRUNCATE mako.snapshot$$),

  -- the audit trail, and versions
  ('a stream that counts as repointed', '0A000', NULL,
   $$INSERT INTO mako.repointed VALUES (1, 1, 2)$$),
  ('one that counts as reverted', '0A000', NULL, $$INSERT INTO mako.reverted VALUES (2, 1, 2)$$),
  ('another reason', '0A000', NULL, $$UPDATE mako.migration_run SET reason = 'another'$$),
  ('a run less', '0A000', NULL, $$DELETE FROM mako.migration_run$$),
  ('a run more', '0A000', NULL,
   $$INSERT INTO mako.migration_run OVERRIDING SYSTEM VALUE
     SELECT (json_populate_record(r, '{"run_id": 2}')).* FROM mako.migration_run r$$),
  ('an error more', '0A000', NULL,
   $$INSERT INTO mako.migration_error
       (run_id, error_no, stream_no, stream_id, phase, sqlstate, message)
     VALUES (1, 1, 1, 'moved', 'load', 'XX000', 'none')$$),
  ('a batch more', '0A000', NULL,
   $$INSERT INTO mako.migration_batch
       (run_id, batch_no, migrated, failed, busy, started_at, finished_at)
     VALUES (1, 1, 0, 0, 0, now(), now())$$),
  ('a version that is active again', '0A000', NULL,
   $$INSERT INTO mako.format_version (format_version, status) VALUES ('FV2024-10-01', 'active')
     ON CONFLICT (format_version) DO UPDATE SET status = 'active'$$),
  ('the same by UPDATE', '0A000', NULL, $$UPDATE mako.format_version SET status = 'active'$$),
  ('a version that is forgotten', '0A000', NULL, $$DELETE FROM mako.format_version$$);
-- MERGE is new in 15.
INSERT INTO attempt (what, refusal, statement)
SELECT v.*
FROM (VALUES
  ('MERGE, which changes an event', '0A000',
   $$MERGE INTO mako.event e USING (VALUES (1)) AS v (n) ON e.stream_no = v.n
     WHEN MATCHED THEN UPDATE SET payload = '{"word": 9}'$$),
  ('MERGE, which deletes an event', '0A000',
   $$MERGE INTO mako.event e USING (VALUES (1)) AS v (n) ON e.stream_no = v.n
     WHEN MATCHED THEN DELETE$$),
  ('MERGE, which inserts an event', 'MK005',
   $$MERGE INTO mako.event e USING (VALUES (1)) AS v (n)
     ON e.stream_no = v.n AND e.sequence_number = 3
     WHEN NOT MATCHED THEN INSERT (stream_no, sequence_number, workflow_id, event_type, payload)
       VALUES (1, 3, 'w@FV2024-10-01', 'Said', '{}')$$),
  ('MERGE, which moves a head', '0A000',
   $$MERGE INTO mako.stream s USING (VALUES (1)) AS v (n) ON s.stream_no = v.n
     WHEN MATCHED THEN UPDATE SET version = 9$$)) AS v
WHERE current_setting('server_version_num')::int >= 150000;
UPDATE attempt
SET statement = replace(replace(statement,
  'EVENT', 'INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)'),
  'SNAPSHOT', 'INSERT INTO mako.snapshot
     (stream_no, sequence_number, run_id, workflow_id, state_schema_version, state)');
GRANT SELECT ON attempt TO "fence: Writer";

-- Executes a statement in a role.
CREATE FUNCTION pg_temp.as_role(role text, statement text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('role', role, true);
  EXECUTE statement;
  PERFORM set_config('role', 'none', true);
END
$$;
-- Executes a statement without triggers.
CREATE FUNCTION pg_temp.without_triggers(statement text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('session_replication_role', 'replica', true);
  EXECUTE statement;
END
$$;

SELECT plan((SELECT count(*)::int * 2 + 3 FROM attempt));
CREATE TEMPORARY TABLE rows_before AS SELECT * FROM pg_temp.rows_now();
SELECT is((SELECT string_agg(DISTINCT part, ' ' ORDER BY part) FROM rows_before),
          'event format_version migration_run repointed snapshot stream',
          'there is something to change');

SELECT matches(coalesce(pg_temp.error(format('SELECT pg_temp.as_role(%L, %L)',
                                             'fence: Writer', statement)), 'done'),
               '^' || refusal, 'refused: ' || what)
FROM attempt ORDER BY n;
SELECT is(split_part(pg_temp.error(format('SELECT pg_temp.without_triggers(%L)', statement)),
                     '|', 1),
          alone, CASE WHEN alone IS NULL THEN 'done without triggers: '
                      ELSE 'refused without triggers, too: ' END || what)
FROM attempt ORDER BY n;

-- Now nothing is undone.
SET ROLE "fence: Writer";
DO $$
DECLARE
  statement text;
BEGIN
  FOR statement IN SELECT a.statement FROM pg_temp.attempt a ORDER BY n LOOP
    BEGIN
      EXECUTE statement;
    EXCEPTION WHEN OTHERS THEN
    END;
  END LOOP;
END
$$;
RESET ROLE;
SELECT is_empty('(TABLE rows_before EXCEPT ALL SELECT * FROM pg_temp.rows_now())
                 UNION ALL (SELECT * FROM pg_temp.rows_now() EXCEPT ALL TABLE rows_before)',
                'all of them together have changed nothing');
SELECT is_empty('SELECT object, problem FROM mako_store_problem()', 'and left the store whole');

SELECT * FROM finish();
DROP OWNED BY "fence: Writer";
DROP ROLE "fence: Writer";
