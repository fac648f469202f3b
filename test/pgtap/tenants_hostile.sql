-- A tenant under the policies of doc/engine.md who has more privileges than he needs, and tries what
-- tenants.sql does not: calls that are about a whole workflow, heads of his own making, statements
-- about everything. Nothing of another tenant is told or changed. Runs in an empty database.

CREATE EXTENSION pgtap;
\set streams 6
\ir include/two_workflows.sql
\ir include/helpers.sql
SET client_min_messages = error;

-- The policies of doc/engine.md.
ALTER TABLE mako.stream ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON mako.stream USING (tenant_id = current_setting('app.tenant')::uuid);
ALTER TABLE mako.registry ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON mako.registry USING (tenant_id = current_setting('app.tenant')::uuid);
ALTER TABLE mako.correlation ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON mako.correlation USING (tenant_id = current_setting('app.tenant')::uuid);
ALTER TABLE mako.event ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON mako.event
  USING (EXISTS (SELECT FROM mako.stream s WHERE s.stream_no = event.stream_no));
ALTER TABLE mako.snapshot ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON mako.snapshot
  USING (EXISTS (SELECT FROM mako.stream s WHERE s.stream_no = snapshot.stream_no));
ALTER TABLE mako.repointed ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON mako.repointed
  USING (EXISTS (SELECT FROM mako.stream s WHERE s.stream_no = repointed.stream_no));
ALTER TABLE mako.reverted ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON mako.reverted
  USING (EXISTS (SELECT FROM mako.stream s WHERE s.stream_no = reverted.stream_no));

-- The other tenant has processes with and without periodic snapshots, keys that have expired, tags.
SELECT count(mako_take_snapshot(stream_id)) FROM mako.stream WHERE stream_no < 4;
SELECT count(mako_register_key(tenant_id, 'expired ' || stream_no, stream_id, '2020-01-01')),
       count(mako_add_tag(tenant_id, 'place', stream_id)) FROM mako.stream;
\set other aaaaaaaa-0000-4000-8000-000000000001
\set me aaaaaaaa-0000-4000-8000-000000000002
SELECT mako_spawn('plain@FV2024-10-01', :'me', '22222222-0000-4000-8000-000000000001') AS mine \gset

CREATE ROLE "tenants: Hostile";
GRANT USAGE ON SCHEMA mako, lib TO "tenants: Hostile";
GRANT SELECT, INSERT, UPDATE, DELETE ON mako.registry, mako.correlation, mako.snapshot
  TO "tenants: Hostile";
GRANT SELECT, INSERT ON mako.stream, mako.event TO "tenants: Hostile";
GRANT SELECT ON mako.repointed, mako.reverted, mako.format_version, mako.migration_run, mako.migration_error,
  mako.dependent, mako.process_identity, mako.migrated_stream TO "tenants: Hostile";
SELECT format('GRANT EXECUTE ON ROUTINE %s TO "tenants: Hostile"', p.oid::regprocedure)
FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid
JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'mako_migration'
WHERE d.deptype = 'e' AND p.prorettype <> 'trigger'::regtype \gexec

-- What the other tenant has.
CREATE FUNCTION pg_temp.others() RETURNS TABLE (line text) LANGUAGE sql AS $$
  SELECT 'head ' || s::text FROM mako.stream s WHERE tenant_id::text ~ '1$'
  UNION ALL SELECT 'event ' || e::text FROM mako.event e JOIN mako.stream s USING (stream_no)
            WHERE tenant_id::text ~ '1$'
  UNION ALL SELECT 'snapshot ' || n::text FROM mako.snapshot n JOIN mako.stream s USING (stream_no)
            WHERE tenant_id::text ~ '1$'
  UNION ALL SELECT 'key ' || r::text FROM mako.registry r WHERE tenant_id::text ~ '1$'
  UNION ALL SELECT 'tag ' || c::text FROM mako.correlation c WHERE tenant_id::text ~ '1$'
$$;
CREATE TEMPORARY TABLE others_before AS SELECT * FROM pg_temp.others();

-- Executes a statement as the tenant: its rows as text, or its error.
CREATE FUNCTION pg_temp.as_me(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  answer text;
BEGIN
  PERFORM set_config('app.tenant', 'aaaaaaaa-0000-4000-8000-000000000002', true),
          set_config('role', 'tenants: Hostile', true);
  IF statement ~ '^SELECT' THEN
    EXECUTE format('SELECT string_agg(t::text, '' '') FROM (%s) AS t', statement) INTO answer;
  ELSE
    EXECUTE statement;
    answer := 'done';
  END IF;
  PERFORM set_config('role', 'none', true);
  RETURN answer;
EXCEPTION WHEN OTHERS THEN
  RETURN SQLSTATE || ' ' || SQLERRM;
END
$$;

-- Statements with what they answer: rows of his own, "done", or an SQLSTATE.
CREATE TEMPORARY TABLE attempt (n int GENERATED ALWAYS AS IDENTITY, answer text, statement text);
INSERT INTO attempt (answer, statement) VALUES
  -- about everything
  ('MINE', 'SELECT stream_id FROM mako.stream'),
  ('nothing', 'SELECT * FROM mako.event'),
  ('nothing', 'SELECT * FROM mako.snapshot'),
  ('(22222222-0000-4000-8000-000000000001)', 'SELECT key FROM mako.registry'),
  ('nothing', 'SELECT * FROM mako.correlation'),
  ('42501', 'SELECT * FROM mako_history(STREAM)'),
  ('42501', $$SELECT * FROM mako_dry_run('plain@FV2024-10-01', 'plain@FV2025-10-01')$$),
  ('42501', $$SELECT * FROM mako_dry_run_summary('plain@FV2024-10-01', 'plain@FV2025-10-01')$$),
  ('42501', $$SELECT * FROM mako_plan('plain@FV2024-10-01', 'plain@FV2025-10-01')$$),
  ('42501', $$SELECT * FROM mako_coverage('FV2024-10-01')$$),
  ('42501', $$SELECT * FROM mako_transitions('plain@FV2024-10-01')$$),
  ('42501', $$SELECT mako_state_diagram('plain@FV2024-10-01')$$),
  ('42501', $$SELECT * FROM mako_verify_snapshots('plain@FV2024-10-01')$$),
  ('42501', 'SELECT * FROM mako_check()'),
  ('42501', $$SELECT * FROM mako_migrate('plain@FV2024-10-01', 'plain@FV2025-10-01')$$),
  ('42501', $$SELECT * FROM mako_migrate('plain@FV2024-10-01', 'plain@FV2025-10-01', OTHER)$$),
  ('42501', $$SELECT * FROM mako_migrate_version('FV2024-10-01', 'FV2025-10-01')$$),
  ('42501', $$SELECT mako_drain('FV2024-10-01')$$),
  ('42501', $$SELECT mako_retire('FV2024-10-01')$$),
  ('42501', 'SELECT mako_adopt_events()'),
  ('42501', 'SELECT mako_create_store()'),
  -- heads that would hide or take the other tenant's
  ('42501', $$HEAD VALUES ('nobody''s', NULL, NULL, 'plain@FV2024-10-01')$$),
  ('42501', $$HEAD VALUES ('his', OTHER, NULL, 'plain@FV2024-10-01')$$),
  ('23514', $$HEAD VALUES (STREAM, ME, NULL, 'plain@FV2024-10-01')$$),
  ('23514', $$HEAD VALUES (STREAM, ME, PROCESS, 'plain@FV2024-10-01')$$),
  ('done', $$HEAD VALUES (upper(STREAM), ME, NULL, 'plain@FV2024-10-01')$$),
  ('42501', $$SELECT mako_spawn('plain@FV2024-10-01', OTHER)$$),
  ('(process/aaaaaaaa-0000-4000-8000-000000000002/bbbbbbbb-0000-4000-8000-000000000001)',
   $$SELECT mako_spawn('plain@FV2024-10-01', ME, PROCESS)$$),
  -- writes to everything
  ('done', $$UPDATE mako.snapshot SET state = '{}'$$),
  ('done', 'DELETE FROM mako.snapshot'),
  ('42501', 'TRUNCATE mako.snapshot'),
  ('(0)', 'SELECT mako_prune_snapshots(0)'),
  ('(0)', 'SELECT mako_expire_keys()'),
  ('done', 'UPDATE mako.registry SET expires_at = now()'),
  ('done', 'DELETE FROM mako.registry'),
  ('42501', 'TRUNCATE mako.registry'),
  ('done', 'UPDATE mako.correlation SET tenant_id = ME'),
  ('done', 'DELETE FROM mako.correlation'),
  ('done', 'INSERT INTO mako.registry SELECT ME, key, stream_no FROM mako.registry'),
  ('23503', $$INSERT INTO mako.registry VALUES (ME, 'mine', 1)$$),
  ('42501', $$EVENT VALUES (1, 1, 'plain@FV2024-10-01', 'Noted', '{}') ON CONFLICT DO NOTHING$$),
  ('42501', $$EVENT SELECT stream_no, 5, 'plain@FV2024-10-01', 'Noted', '{}'
              FROM generate_series(1, 9) AS stream_no$$);
UPDATE attempt SET answer = replace(answer, 'MINE', format('(%s)', :'mine'));
DO $$
DECLARE
  place record;
BEGIN
  FOR place IN SELECT * FROM (VALUES
    ('HEAD', 'INSERT INTO mako.stream (stream_id, tenant_id, process_id, workflow_id)'),
    ('EVENT', 'INSERT INTO mako.event (stream_no, sequence_number, workflow_id, '
              'event_type, payload)'),
    ('STREAM', quote_literal((SELECT stream_id FROM mako.stream WHERE stream_no = 1))),
    ('PROCESS', $q$'bbbbbbbb-0000-4000-8000-000000000001'$q$),
    ('OTHER', $q$'aaaaaaaa-0000-4000-8000-000000000001'$q$),
    ('ME', $q$'aaaaaaaa-0000-4000-8000-000000000002'$q$)) AS v (name, value)
  LOOP
    UPDATE attempt
    SET statement = regexp_replace(statement, '\m' || place.name || '\M', place.value, 'g');
  END LOOP;
END
$$;

SELECT plan((SELECT count(*)::int + 2 FROM attempt));
SELECT is(regexp_replace(coalesce(pg_temp.as_me(statement), 'nothing'), '^([0-9A-Z]{5}) .*', '\1'),
          answer, regexp_replace(statement, '\s+', ' ', 'g')) FROM attempt ORDER BY n;
SELECT cmp_ok((SELECT count(*) FROM others_before), '>', 30::bigint, 'the other tenant has much');
SELECT is_empty('(TABLE others_before EXCEPT ALL SELECT * FROM pg_temp.others()) UNION ALL
                 (SELECT * FROM pg_temp.others() EXCEPT ALL TABLE others_before)',
                'and keeps it as it was');

SELECT * FROM finish();
DROP OWNED BY "tenants: Hostile";
DROP ROLE "tenants: Hostile";
