-- Generated streams of four workflows, migrated, and then tampered with behind the triggers' back, one thing at a time: mako_verify() or
-- mako_check() names exactly that stream, and nobody else. The golden streams are tampered with in verify.sql.
-- Runs in an empty database, from the root of the project.

CREATE EXTENSION pgtap;
SELECT plan(10);

\o /dev/null
\ir ../examples/generator/choose.sql
SELECT generator.choose('tamper', 1500, poison_rate => 0.02);
SET client_min_messages = error;
CREATE EXTENSION mako_migration;
\ir ../examples/register.sql
\ir ../examples/generator/load.sql
SELECT mako_create_store();
SELECT * FROM generator.load('tamper');
CREATE TABLE report AS SELECT * FROM mako_migrate_version('FV2025-10-01', 'FV2026-10-01');
CREATE TABLE known AS SELECT * FROM mako_store_finding();
-- The first, the last and two other streams of every run, by what is to be done with them.
CREATE TABLE victim AS
SELECT n.stream_no, n.run_id, s.stream_id, s.version, r.source_wf::text
FROM (SELECT *, row_number() OVER w AS place, count(*) OVER (PARTITION BY run_id) AS places FROM mako.snapshot WHERE run_id > 0
      WINDOW w AS (PARTITION BY run_id ORDER BY stream_no)) AS n
JOIN mako.stream s USING (stream_no) JOIN report r USING (run_id)
WHERE place IN (1, places / 3, places * 2 / 3, places);
\o

-- What is named once something has been changed behind the triggers' back, which is undone: the streams that a proof of the run or the
-- diagnostics of the store name.
CREATE FUNCTION pg_temp.named(run_id bigint, change text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  result text; changed bigint;
BEGIN
  SET LOCAL session_replication_role = replica;
  EXECUTE change;
  GET DIAGNOSTICS changed = ROW_COUNT;
  IF changed <> 1 THEN RAISE '% rows were changed', changed; END IF;
  SET LOCAL session_replication_role = origin;
  SELECT string_agg(DISTINCT name, ' ') INTO result
  FROM (SELECT stream_id FROM mako_verify(run_id)
        UNION ALL SELECT subject FROM (SELECT * FROM mako_store_finding() EXCEPT TABLE known) AS f WHERE severity = 'error') AS x (name);
  RAISE EXCEPTION USING ERRCODE = 'MKTST', MESSAGE = coalesce(result, 'nobody');
EXCEPTION WHEN SQLSTATE 'MKTST' THEN
  RETURN SQLERRM;
END
$$;

SELECT is(count(*), 16::bigint, 'there are streams of every workflow') FROM victim;
SELECT is_empty('SELECT v.* FROM report, mako_verify(run_id) v', 'nothing differs before');

SELECT is_empty(format($$ SELECT source_wf, stream_id, named
                          FROM victim, format(%L, stream_no, run_id) AS change, pg_temp.named(run_id, change) AS named
                          WHERE named <> stream_id $$, change), what || ' is found, and nothing else')
FROM (VALUES
  ('the state of a snapshot', $$ UPDATE mako.snapshot SET state = jsonb_build_object('tampered', state) WHERE stream_no = %1$s AND run_id = %2$s $$),
  ('its number', $$ UPDATE mako.snapshot SET sequence_number = sequence_number + 1 WHERE stream_no = %1$s AND run_id = %2$s $$),
  ('an event', $$ UPDATE mako.event SET payload = '"tampered"' WHERE stream_no = %1$s AND sequence_number = 1 $$),
  ('a last event that is gone', $$ DELETE FROM mako.event WHERE stream_no = %1$s AND sequence_number = (SELECT version FROM mako.stream WHERE stream_no = %1$s) $$),
  ('the version of a head', $$ UPDATE mako.stream SET version = version + 1 WHERE stream_no = %1$s $$),
  ('its workflow', $$ UPDATE mako.stream SET workflow_id = (SELECT source_wf FROM mako.migration_run WHERE run_id = %2$s) WHERE stream_no = %1$s $$)
) AS v (what, change);

-- A registered function is another one.
SELECT replace(pg_get_functiondef('wim.device_change_migrate_2025_2026'::regproc), 'AS $function$', 'AS $function$ -- tampered') AS tampered \gset
:tampered;
SELECT results_eq($$ SELECT DISTINCT code, subject FROM mako_check(0) WHERE code = 'definition_changed' $$,
                  $$ VALUES ('definition_changed', 'wim-device-change@FV2025-10-01 -> wim-device-change@FV2026-10-01') $$, 'a registered function is found');
SELECT throws_ok(format('SELECT * FROM mako_verify(%s)', run_id), '55000', NULL, 'and nothing is proven with it')
FROM report WHERE source_wf = 'wim-device-change@FV2025-10-01';

SELECT * FROM finish();
