-- Sinks: statements of users that take what a run has moved, and take it back. What they see, as whom and on which path they run, what
-- they may not do; a row that one refuses; runs, batched runs, reverts; what stands in their way is told before.
-- Runs in an empty database, from the root of the project.

CREATE EXTENSION pgtap;
CREATE EXTENSION mako_migration;

SELECT plan(116);

SELECT mako_create_store();
\ir include/helpers.sql

CREATE ROLE sinks_owner;
CREATE ROLE sinks_operator;
CREATE ROLE sinks_other;
CREATE SCHEMA app AUTHORIZATION sinks_owner;
GRANT EXECUTE ON FUNCTION mako_add_sink, mako_remove_sink TO sinks_owner, sinks_other;
GRANT USAGE ON SCHEMA mako TO sinks_owner, sinks_other, sinks_operator;
GRANT SELECT ON mako.stream, mako.snapshot TO sinks_owner;
GRANT EXECUTE ON FUNCTION mako_migrate, mako_revert TO sinks_operator;
GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA mako TO sinks_operator;

CREATE FUNCTION public.apply(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$ SELECT state || payload $$;
CREATE FUNCTION public.step(state jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$ SELECT state || '{"version": 2}' $$;
SELECT mako_register_workflow('w@FV2024-10-01', 'public.apply(jsonb,text,jsonb)', initial_state => '{}'),
       mako_register_workflow('w@FV2025-10-01', 'public.apply(jsonb,text,jsonb)', initial_state => '{}', state_schema_version => 7),
       mako_register_workflow('plain@FV2024-10-01'), mako_register_workflow('plain@FV2025-10-01');
SELECT mako_register_migration('w@FV2024-10-01', 'w@FV2025-10-01', 'public.step(jsonb)'), mako_register_migration('plain@FV2024-10-01', 'plain@FV2025-10-01');
INSERT INTO mako.stream (stream_id, tenant_id, process_id, workflow_id)
SELECT 'p' || i, NULL::uuid, NULL::uuid, 'w@FV2024-10-01'
FROM generate_series(1, 1000) AS i;
SELECT count(mako_append(stream_id, workflow_id, 'E', jsonb_build_object('i', stream_no))) FROM mako.stream WHERE stream_id <> 'p1000';
INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('plain', 'plain@FV2024-10-01');
INSERT INTO mako.stream (stream_id, tenant_id, process_id, workflow_id)
VALUES ('process/00000000-0000-4000-8000-000000000001/00000000-0000-4000-8000-000000000002', '00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-000000000002',
        'plain@FV2024-10-01');

CREATE FUNCTION pg_temp.run() RETURNS text LANGUAGE sql AS
  $$ SELECT format('%s %s', migrated, failed) FROM mako_migrate('w@FV2024-10-01', 'w@FV2025-10-01') $$;
CREATE FUNCTION pg_temp.last_run() RETURNS bigint LANGUAGE sql AS $$ SELECT max(run_id) FROM mako.migration_run WHERE kind <> 'revert' $$;
CREATE FUNCTION pg_temp.undo() RETURNS text LANGUAGE sql AS
  $$ SELECT format('%s %s', migrated, failed) FROM mako_revert(pg_temp.last_run()) $$;
CREATE FUNCTION pg_temp.blockers() RETURNS text LANGUAGE sql AS
  $$ SELECT array_to_string(blockers, E'\n') FROM mako_plan('w@FV2024-10-01', 'w@FV2025-10-01') WHERE blockers IS NOT NULL $$;
CREATE FUNCTION pg_temp.findings() RETURNS text LANGUAGE sql AS
  $$ SELECT string_agg(format('%s %s %s: %s', severity, code, subject, message), E'\n') FROM mako_check() WHERE code LIKE 'sink%' $$;

-- ---- what can be added ------------------------------------------------------------------------------------------------------------------

SELECT is(pg_temp.error($$ SELECT mako_add_sink(NULL) $$), '22004|statement must not be null', 'a sink has a statement');
SELECT is(split_part(pg_temp.error(format('SELECT mako_add_sink(%L)', statement)), '|', 1), state, statement)
FROM (VALUES ('', '42601'), (' -- nothing', '42601'), ('SELECT 1; SELECT 2', '42601'), ('SELEC 1', '42601'), ('SELECT $1', '42P02'),
             ('SELECT * FROM nowhere', '42P01'), ('SELECT nothing FROM moved', '42703'), ('INSERT INTO moved SELECT 1', '0A000'),
             ('CREATE TABLE app.x ()', '0A000'), ('CREATE TABLE x AS SELECT * FROM moved', '0A000'), ('SELECT * INTO x FROM moved', '0A000'), ('COMMIT', '0A000'),
             ('SET ROLE sinks_owner', '0A000'), ('DO $x$ BEGIN END $x$', '0A000'), ('COPY mako.stream TO STDOUT', '0A000'),
             ('LOCK TABLE mako.stream', '0A000'), ('EXPLAIN SELECT 1', '0A000'), ('LISTEN x', '0A000')) AS x (statement, state);
SELECT is(pg_temp.error($$ SELECT mako_add_sink('TRUNCATE mako.stream') $$),
          '0A000|TRUNCATE TABLE cannot be used here|Allowed are SELECT, INSERT, UPDATE, DELETE and MERGE.', 'what is allowed is told');
SELECT is(pg_temp.error($$ SELECT mako_add_sink('SELECT 1', undo => 'VACUUM') $$),
          '0A000|VACUUM cannot be used here|Allowed are SELECT, INSERT, UPDATE, DELETE and MERGE.', '... of undo, too');
SELECT is(pg_temp.error($$ SELECT mako_add_sink('SELECT 1', lock => 'VACUUM') $$),
          '0A000|VACUUM cannot be used here|Allowed are SELECT, INSERT, UPDATE, DELETE, MERGE and LOCK.', '... and of lock');
SELECT is((SELECT count(*)::int FROM mako_sink), 0, 'none of them was added');
CREATE TABLE public.ruled (x int);
CREATE RULE nothing AS ON INSERT TO public.ruled DO INSTEAD NOTHING;
SELECT is(pg_temp.error($$ SELECT mako_add_sink('INSERT INTO public.ruled SELECT 1 FROM moved') $$), NULL, 'a rule may leave nothing of a statement');
CREATE RULE tell AS ON DELETE TO public.ruled DO ALSO NOTIFY told;
SELECT is(pg_temp.error($$ SELECT mako_add_sink('DELETE FROM public.ruled') $$),
          '0A000|NOTIFY cannot be used here|Allowed are SELECT, INSERT, UPDATE, DELETE and MERGE.', '... or add one that is not allowed');
DROP TABLE public.ruled;
SELECT is(pg_temp.error($$ SELECT mako_add_sink('SELECT 1', lock => 'LOCK TABLE mako.stream IN SHARE UPDATE EXCLUSIVE MODE') $$), NULL, 'lock may lock a table');

-- Whose it is. All states are seen, so the role must be allowed to see them.
SELECT is(pg_temp.error_as('sinks_operator', $$ SELECT mako_add_sink('SELECT 1') $$), '42501|permission denied for function mako_add_sink', 'adding is granted');
SELECT is(pg_temp.error_as('sinks_other', $$ SELECT mako_add_sink('SELECT 1') $$), '42501|permission denied for table stream', 'the role may select streams');
SELECT is(pg_temp.error($$ ALTER TABLE mako.snapshot ENABLE ROW LEVEL SECURITY; SET ROLE sinks_owner; SELECT mako_add_sink('SELECT 1') $$),
          '42501|query would be affected by row-level security policy for table "snapshot"', '... and no policy hides some from it');
SELECT is(pg_temp.error_as('sinks_owner', format('%s mako_sink %s', verb, rest)), '42501|permission denied for table mako_sink', verb)
FROM (VALUES ('INSERT INTO', 'DEFAULT VALUES'), ('UPDATE', 'SET owner = ''postgres'''), ('DELETE FROM', ''), ('TRUNCATE', '')) AS x (verb, rest);

SET ROLE sinks_owner;
CREATE TABLE app.copy (run_id bigint, stream_id text, tenant_id uuid, process_id uuid, source_wf text, target_wf text, sequence_number bigint,
  state_schema_version int, state jsonb, role name DEFAULT current_user, session name DEFAULT session_user);
CREATE TABLE app.log (what text, streams bigint, at serial);
SET search_path = app;
SELECT public.mako_add_sink($$ INSERT INTO copy SELECT * FROM moved $$, $$ DELETE FROM copy USING moved WHERE copy.stream_id = moved.stream_id AND copy.* IS NOT NULL IS NOT NULL
  AND to_jsonb(moved) = to_jsonb(copy) - 'role' - 'session' $$) AS copy \gset
SELECT public.mako_add_sink($$ INSERT INTO log (what, streams) SELECT 'second', count(*) FROM moved $$, undo => $$ INSERT INTO log (what, streams) SELECT 'undone', count(*) FROM moved $$,
  lock => $$ INSERT INTO log (what, streams) SELECT 'lock', count(*) FROM moved $$) AS log \gset
SELECT public.mako_add_sink($$ INSERT INTO copy SELECT * FROM moved $$, $$ DELETE FROM copy USING moved WHERE copy.stream_id = moved.stream_id AND copy.* IS NOT NULL IS NOT NULL
  AND to_jsonb(moved) = to_jsonb(copy) - 'role' - 'session' $$) AS again \gset
RESET search_path;
SELECT public.mako_add_sink($$ INSERT INTO app.copy SELECT * FROM moved $$) AS path \gset
SELECT is(mako_remove_sink(:path), true, 'removed');
SELECT is(mako_remove_sink(:path), false, 'it is not there any more');
SELECT is(mako_remove_sink(99), false, 'nor is one that never was');
RESET ROLE;
SELECT is(array[:again, :log, :path], array[:copy, :copy + 1, :copy + 2], 'the same one, added again, has the number that it has');
SELECT is(pg_temp.rows('SELECT sink_no, search_path, owner, removed_at IS NOT NULL AS removed FROM mako_sink ORDER BY 1'),
          format(E'%s|["app"]|sinks_owner|false\n%s|["app"]|sinks_owner|false\n%s|["public"]|sinks_owner|true', :copy, :log, :path), 'what is kept');
SELECT is(pg_temp.error_as('sinks_other', format('SELECT mako_remove_sink(%s)', :copy)),
          format('42501|permission denied for sink "%s"|It was added by role "sinks_owner".|It takes the privileges of that role, of all owners of its functions, or of the extension''s owner. Use SET ROLE if you have them.', :copy),
          'another role does not remove it');

-- ---- runs ---------------------------------------------------------------------------------------------------------------------------------

-- The operator has no rights on schema app.
SET ROLE sinks_operator;
SELECT is(format('%s %s', migrated, failed), '999 0', 'an operator without rights on the tables of the sinks') FROM mako_migrate('w@FV2024-10-01', 'w@FV2025-10-01');
RESET ROLE;
SELECT is((SELECT count(*) FROM app.copy), 1000::bigint, 'every stream that has moved is a row');
SELECT is(pg_temp.rows($$ SELECT c.* FROM app.copy c WHERE stream_id IN ('p1', 'p1000') ORDER BY stream_id $$),
          format(E'%1$s|p1|||w@FV2024-10-01|w@FV2025-10-01|1|7|{"i": 1, "version": 2}|sinks_owner|%2$s\n%1$s|p1000|||w@FV2024-10-01|w@FV2025-10-01|0|||sinks_owner|%2$s',
                 pg_temp.last_run(), session_user), 'with what is known of it; a stream without events has no state');
SELECT is((SELECT count(*) FROM app.copy c JOIN mako.stream s USING (stream_id) JOIN mako.snapshot n USING (stream_no, run_id, state)), 999::bigint, 'states are those of the snapshots');
SELECT is((SELECT string_agg(what || ' ' || streams, ', ' ORDER BY at) FROM app.log), 'lock 0, second 1000', 'the lock comes first');
SELECT is((SELECT sinks FROM mako.migration_run WHERE run_id = pg_temp.last_run()), array[:copy, :log], 'the run tells to which it has written');
SELECT is(pg_temp.error($$ SELECT mako_remove_sink(NULL) $$), NULL, 'null is no sink');

-- Removed, they take back what they took; one that was added since has nothing to do with the run.
SELECT mako_remove_sink(:copy), mako_remove_sink(:log);
SELECT mako_add_sink('SELECT 1 / 0', 'SELECT 1 / 0') AS wrong \gset
SELECT is(format('%s %s', migrated, failed), '999 0', 'undone') FROM mako_revert(pg_temp.last_run());
SELECT is((SELECT count(*) FROM app.copy), 0::bigint, 'each row was recognized');
SELECT is((SELECT string_agg(what || ' ' || streams, ', ' ORDER BY at) FROM app.log), 'lock 0, second 1000, lock 0, undone 1000', 'so with the lock, and the other one');
SELECT is(split_part(pg_temp.error('SELECT pg_temp.run()'), '|', 1), NULL, 'a sink whose every row fails') FROM mako_remove_sink(:wrong);
TRUNCATE app.log, app.copy;

-- A workflow without functions: there is no state. Snapshots alone move nothing.
SELECT mako_add_sink($$ INSERT INTO app.copy SELECT * FROM moved $$, $$ DELETE FROM app.copy c USING moved m WHERE c.stream_id = m.stream_id AND c.run_id = m.run_id $$) AS copy \gset
SELECT is(format('%s %s', migrated, failed), '0 0', 'repointed') FROM mako_migrate('plain@FV2024-10-01', 'plain@FV2025-10-01');
SELECT is(pg_temp.rows('SELECT stream_id, tenant_id, process_id, sequence_number, state_schema_version, state FROM app.copy ORDER BY stream_id'),
          E'plain|||0||\nprocess/00000000-0000-4000-8000-000000000001/00000000-0000-4000-8000-000000000002|00000000-0000-4000-8000-000000000001|00000000-0000-4000-8000-000000000002|0||',
          '... it is a row without a state');
SELECT is(format('%s %s', migrated, failed), '0 0', 'undone') FROM mako_revert(pg_temp.last_run());
SELECT is((SELECT count(*) FROM app.copy), 0::bigint, '... and gone');
SELECT is(format('%s %s', migrated, failed), '999 0', 'snapshots only') FROM mako_migrate('w@FV2024-10-01', 'w@FV2025-10-01', update_registry => false);
SELECT is((SELECT count(*) FROM app.copy), 0::bigint, '... move nothing');
SELECT is((SELECT sinks FROM mako.migration_run WHERE run_id = pg_temp.last_run()), '{}', '... and have no sinks');
SELECT is(format('%s %s', migrated, failed), '999 0', 'taken back') FROM mako_revert(pg_temp.last_run());

-- A whole version: one statement may see several runs.
SELECT is((SELECT string_agg(format('%s %s', migrated, failed), ', ' ORDER BY source_wf::text) FROM mako_migrate_version('FV2024-10-01', 'FV2025-10-01')), '0 0, 999 0', 'a version');
SELECT is((SELECT string_agg(format('%s %s %s', r.source_wf, count, r.sinks), ', ' ORDER BY r.source_wf)
           FROM (SELECT run_id, source_wf, count(*) FROM app.copy GROUP BY 1, 2) AS c JOIN mako.migration_run r USING (run_id, source_wf)),
          format('plain@FV2024-10-01 2 {%1$s}, w@FV2024-10-01 1000 {%1$s}', :copy), '... each run has its rows');
SELECT is(string_agg(format('%s', (mako_revert(run_id)).failed), ' '), '0 0', '... and is undone alone') FROM (SELECT DISTINCT run_id FROM app.copy) AS x;
SELECT is((SELECT count(*) FROM app.copy), 0::bigint, '... with its rows');

-- ---- a row that is refused ------------------------------------------------------------------------------------------------------------------

CREATE TABLE app.deadline (stream_no bigint, workflow_id text);
INSERT INTO app.deadline SELECT stream_no, workflow_id FROM mako.stream WHERE stream_id IN ('p7', 'p8');
SELECT mako_add_dependent('app.deadline', 'stream_no', 'workflow_id');
GRANT USAGE ON SCHEMA app TO sinks_operator;
GRANT SELECT, UPDATE ON app.deadline TO sinks_operator;
CREATE TABLE app.picky (i int CHECK (i % 250 <> 7), secret text DEFAULT 'hidden');
SELECT mako_add_sink($$ INSERT INTO app.picky SELECT (state->>'i')::int FROM moved $$, $$ DELETE FROM app.picky p USING moved m WHERE p.i = (m.state->>'i')::int $$) AS picky \gset
SELECT is(pg_temp.run(), '995 4', 'a row that a sink refuses fails its stream');
SELECT is((SELECT string_agg(stream_id, ' ' ORDER BY stream_no) FROM mako.stream WHERE workflow_id = 'w@FV2024-10-01'), 'p7 p257 p507 p757', '... which stays');
SELECT is((SELECT string_agg(workflow_id, ' ' ORDER BY stream_no) FROM app.deadline), 'w@FV2024-10-01 w@FV2025-10-01', '... with its dependents');
SELECT is(array[(SELECT count(*) FROM app.copy), (SELECT count(*) FROM app.picky)], array[996, 996]::bigint[], '... and what other sinks took of it');
SELECT is((SELECT count(*) FROM mako.snapshot WHERE run_id = pg_temp.last_run()), 995::bigint, '... and its snapshot');
SELECT is((SELECT format('%s|%s|%s|%s', phase, sqlstate, message, substring(context FROM '\nsink [0-9]+')) FROM mako.migration_error
           WHERE run_id = pg_temp.last_run() AND stream_id = 'p7'),
          format(E'registry|23514|new row for relation "picky" violates check constraint "picky_i_check"|\nsink %s', :picky), 'the error says which sink it was');
SELECT is(pg_temp.undo(), '995 0', 'what has moved is undone');
SELECT is(array[(SELECT count(*) FROM app.copy), (SELECT count(*) FROM app.picky WHERE i IS NOT NULL)], array[0, 0]::bigint[], '... in both');
SET ROLE sinks_operator;
SELECT is((SELECT e.detail FROM mako_migrate('w@FV2024-10-01', 'w@FV2025-10-01') AS r, unnest(r.errors) AS e LIMIT 1),
          'The row is shown to roles that may select all columns of the table.', 'rows that the caller may not select are not shown to him');
RESET ROLE;
SELECT is(pg_temp.undo(), '995 0', 'undone again');
SELECT mako_remove_sink(:picky), mako_remove_sink(:copy);

-- An undo that refuses fails its stream, too.
CREATE TABLE app.keep (i int);
CREATE FUNCTION app.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF OLD.i = 5 THEN RAISE 'five stays'; END IF; RETURN OLD; END $$;
CREATE TRIGGER refuse BEFORE DELETE ON app.keep FOR EACH ROW EXECUTE FUNCTION app.refuse();
SELECT mako_add_sink($$ INSERT INTO app.keep SELECT (state->>'i')::int FROM moved $$, $$ DELETE FROM app.keep k USING moved m WHERE k.i = (m.state->>'i')::int $$) AS keep \gset
SELECT is(pg_temp.run(), '999 0', 'taken');
SELECT is(pg_temp.undo(), '998 1', 'one row is not given back');
SELECT is((SELECT string_agg(stream_id, ' ') FROM mako.stream WHERE workflow_id = 'w@FV2025-10-01'), 'p5', '... so its stream stays');
DROP TRIGGER refuse ON app.keep;
SELECT is(pg_temp.undo(), '1 0', '... until it is');
SELECT mako_remove_sink(:keep);

-- ---- whose rights ---------------------------------------------------------------------------------------------------------------------------

-- Nothing of the session is found, nothing of it stays, and heads are only the extension's to write.
SET ROLE sinks_owner;
CREATE FUNCTION app.act(what text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN EXECUTE what; RETURN what; END $$;
RESET ROLE;
CREATE FUNCTION pg_temp.acts(what text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  result text;
BEGIN
  SET LOCAL ROLE sinks_owner;
  PERFORM mako_add_sink(format('SELECT app.act(%L) FROM moved WHERE stream_id = ''p1''', what), 'SELECT 1');
  RESET ROLE;
  SELECT format('%s %s|%s|%s', migrated, failed, (errors[1]).sqlstate, (errors[1]).message) INTO result FROM mako_migrate('w@FV2024-10-01', 'w@FV2025-10-01');
  RAISE EXCEPTION USING ERRCODE = 'MKTST', MESSAGE = result;
EXCEPTION WHEN SQLSTATE 'MKTST' THEN
  RETURN SQLERRM;
END
$$;
SELECT is(pg_temp.acts(what), result, what)
FROM (VALUES ('SELECT 1', '999 0||'),
             ('SET ROLE NONE', '998 1|42501|cannot set parameter "role" within security-restricted operation'),
             ('SET SESSION AUTHORIZATION DEFAULT', '998 1|42501|cannot set parameter "session_authorization" within security-restricted operation'),
             ('CREATE TEMPORARY TABLE x ()', '998 1|42501|cannot create temporary table within security-restricted operation'),
             ('UPDATE mako.stream SET version = 9', '998 1|42501|permission denied for table stream'),
             ('SELECT mako_migrate(''plain@FV2024-10-01'', ''plain@FV2025-10-01'')', '998 1|42501|permission denied for function mako_migrate')) AS x (what, result);
CREATE TABLE app.secret (x int);
SELECT is(pg_temp.acts('SELECT * FROM app.secret'), '998 1|42501|permission denied for table secret', 'no rights of the caller''s');
SELECT is(pg_temp.acts($$ SET TimeZone = 'Asia/Tokyo'; SET search_path = mako $$), '999 0||', 'settings');
SELECT is(concat(current_setting('TimeZone'), current_setting('search_path')), (SELECT concat(a.reset_val, b.reset_val) FROM pg_settings a, pg_settings b WHERE a.name = 'TimeZone' AND b.name = 'search_path'),
          '... end with the statement');

-- What is written is taken back when one more event of a stream comes, in a store that was tampered with.
CREATE TABLE app.given (stream_id text, undone int);
SELECT mako_add_sink($$ INSERT INTO app.given SELECT stream_id, 0 FROM moved $$, $$ UPDATE app.given g SET undone = undone + 1 FROM moved m WHERE m.stream_id = g.stream_id AND m.state = '{"i": 1, "version": 2}' $$) AS given \gset
BEGIN;
ALTER TABLE mako.event DISABLE TRIGGER USER;
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload) SELECT stream_no, 2, workflow_id, 'E', '{}' FROM mako.stream WHERE stream_id = 'p1';
ALTER TABLE mako.event ENABLE TRIGGER USER;
SET LOCAL mako_migration.scan_order = heap;
SET LOCAL mako_migration.max_memory = '1MB';
SELECT is((SELECT format('%s %s %s %s', migrated, failed, (errors[1]).stream_id, (errors[1]).phase) FROM mako_migrate('w@FV2024-10-01', 'w@FV2025-10-01')), '998 1 p1 load', 'one more event');
SELECT is(pg_temp.rows('SELECT undone, count(*) FROM app.given GROUP BY 1 ORDER BY 1'), E'0|999\n1|1', '... what was taken of its stream is taken back');
SELECT is((SELECT workflow_id FROM mako.stream WHERE stream_id = 'p1'), 'w@FV2024-10-01', '... with its head');
ROLLBACK;
SELECT mako_remove_sink(:given);

-- "moved" is a relation like any other, and goes before tables of that name.
CREATE TABLE public.moved (x int);
SELECT mako_add_sink($$ WITH early AS (SELECT * FROM moved WHERE run_id > 0), counted AS (SELECT count(*) AS n FROM early)
                        INSERT INTO app.log (what, streams) SELECT row_to_json(m)->>'stream_id' || (SELECT max(stream_id) FROM early), n FROM moved AS m, counted WHERE m.stream_id = 'p1' $$,
                     'SELECT 1') AS shadow \gset
TRUNCATE app.log;
SELECT is(pg_temp.run(), '999 0', 'a statement that names it twice, with a WITH of its own');
SELECT is((SELECT format('%s %s', what, streams) FROM app.log), 'p1p999 1000', '... sees what has moved');
SELECT is(pg_temp.undo(), '999 0', '... and is undone');
SELECT mako_remove_sink(:shadow);
DROP TABLE public.moved;

-- An undo looks its states up by their key, whatever the statistics of before the run say: not each of them among all.
SELECT mako_add_sink('SELECT 1 FROM moved', 'SELECT 1 FROM moved') AS nothing \gset
BEGIN;
UPDATE pg_class SET reltuples = 0, relpages = 0 WHERE oid = 'mako.snapshot'::regclass;
DELETE FROM pg_statistic WHERE starelid = 'mako.snapshot'::regclass;
SELECT pg_temp.run() AS moved \gset
SELECT coalesce(idx_scan, 0) AS before FROM pg_stat_xact_user_tables WHERE relid = 'mako.snapshot'::regclass \gset
SELECT pg_temp.undo() AS undone \gset
SELECT cmp_ok(idx_scan - :before, '>=', 999::bigint, 'an undo looks up the states by their key') FROM pg_stat_xact_user_tables WHERE relid = 'mako.snapshot'::regclass;
ROLLBACK;
SELECT mako_remove_sink(:nothing);

-- ---- what stands in the way -------------------------------------------------------------------------------------------------------------------

SET ROLE sinks_owner;
SELECT mako_add_sink($$ INSERT INTO app.log (what) SELECT stream_id FROM moved $$) AS log \gset
RESET ROLE;
SELECT is(concat_ws(E'\n', pg_temp.findings(), pg_temp.blockers()), '', 'nothing does');
SELECT is((SELECT scan_order FROM mako_plan('w@FV2024-10-01', 'w@FV2025-10-01') WHERE kind = 'total'), format('key: sink %s has no undo', :log),
          'without undo, events are read in key order: nothing that is written has to be taken back');
CREATE FUNCTION pg_temp.after(change text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  result text;
BEGIN
  EXECUTE change;
  result := concat_ws(E'\n', pg_temp.findings(), pg_temp.blockers(), pg_temp.error('SELECT pg_temp.run()'));
  RAISE EXCEPTION USING ERRCODE = 'ZZ999', MESSAGE = result;
EXCEPTION WHEN SQLSTATE 'ZZ999' THEN
  RETURN SQLERRM;
END
$$;
SELECT is(pg_temp.after('DROP TABLE app.log'),
          format(E'error sink_unusable sink %1$s: it cannot be used: relation "app.log" does not exist\nSink %1$s cannot be used: relation "app.log" does not exist.\n42P01|relation "app.log" does not exist', :log),
          'a table is gone');
SELECT is(pg_temp.after('ALTER TABLE app.log OWNER TO sinks_other'),
          format(E'error sink_unusable sink %1$s: it cannot be used: permission denied for table log\nSink %1$s cannot be used: permission denied for table log.\n42501|permission denied for table log', :log),
          'a privilege is gone');
SELECT is(pg_temp.after('REVOKE SELECT ON mako.snapshot FROM sinks_owner'),
          format(E'error sink_unusable sink %1$s: it cannot be used: permission denied for table snapshot\nSink %1$s cannot be used: permission denied for table snapshot.\n42501|permission denied for table snapshot', :log),
          'states are not for the role any more');
SELECT is(pg_temp.after('ALTER ROLE sinks_owner RENAME TO sinks_renamed'), '', 'a role that was renamed is the same');
SELECT is(split_part(pg_temp.after('REASSIGN OWNED BY sinks_owner TO sinks_other; DROP OWNED BY sinks_owner; DROP ROLE sinks_owner'), E'\n', 3),
          format('42704|role "sinks_owner" of sink %1$s does not exist any more|Use mako_remove_sink(%1$s), and add it again as a role that exists.', :log), 'the role is gone');

-- A schema of others on the path: not the role of the sink, nor a superuser.
CREATE SCHEMA theirs AUTHORIZATION sinks_other;
CREATE SCHEMA mine AUTHORIZATION sinks_owner;
GRANT USAGE ON SCHEMA theirs TO sinks_owner;
GRANT CREATE ON SCHEMA mine TO sinks_owner, sinks_operator;
SET ROLE sinks_owner;
SET search_path = theirs, mine, app, pg_catalog, pg_temp;
SELECT public.mako_add_sink($$ SELECT 1 $$) AS open \gset
RESET search_path;
RESET ROLE;
SELECT is((SELECT search_path FROM mako_sink WHERE sink_no = :open), '{theirs,mine,app,pg_catalog}', 'the temporary schema is no part of a path');
SELECT is(pg_temp.findings(),
          format(E'warning sink_path_open sink %1$s: role "sinks_operator" may create in schema "mine", which is on its path\n'
                 || 'warning sink_path_open sink %1$s: role "sinks_other" may create in schema "theirs", which is on its path', :open), 'a path on which others may create');
GRANT CREATE ON SCHEMA public TO PUBLIC;
SELECT matches(pg_temp.findings(), 'sink_path_open sink [0-9]+: role "public" may create in schema "public"', '... all roles');
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
SELECT mako_remove_sink(:open);

-- In batches: a run goes on with the sinks with which it began, or not at all.
SELECT mako_remove_sink(:log);
SELECT mako_add_sink($$ INSERT INTO app.copy SELECT * FROM moved $$, $$ DELETE FROM app.copy c USING moved m WHERE c.stream_id = m.stream_id AND c.run_id = m.run_id $$) AS copy \gset
CREATE TABLE app.stop (at text);
CREATE FUNCTION app.stop() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF EXISTS (SELECT FROM app.stop WHERE at = NEW.stream_id) THEN RAISE 'stop' USING ERRCODE = '57014'; END IF; RETURN NEW; END $$;
CREATE TRIGGER stop BEFORE INSERT ON app.copy FOR EACH ROW EXECUTE FUNCTION app.stop();
CALL mako_migrate_batched('w@FV2024-10-01', 'w@FV2025-10-01', batch_size => 100);
SELECT is((SELECT count(*) FROM app.copy WHERE run_id = pg_temp.last_run()), 1000::bigint, 'in batches');
SELECT is(pg_temp.undo(), '999 0', '... undone');
SELECT is((SELECT count(*) FROM app.copy), 0::bigint, '... with its rows');
INSERT INTO app.stop VALUES ('p500');
\set ON_ERROR_STOP 0
CALL mako_migrate_batched('w@FV2024-10-01', 'w@FV2025-10-01', batch_size => 100, max_errors => 0);
\set ON_ERROR_STOP 1
SELECT pg_temp.last_run() AS half \gset
TRUNCATE app.stop;
SELECT is((SELECT count(*) FROM app.copy WHERE run_id = :half), 400::bigint, 'half-way');
SELECT mako_add_sink($$ INSERT INTO app.log (what) SELECT stream_id FROM moved $$, $$ DELETE FROM app.log l USING moved m WHERE l.what = m.stream_id $$) AS more \gset
TRUNCATE app.log;
CALL mako_migrate_batched('w@FV2024-10-01', 'w@FV2025-10-01', batch_size => 100);
SELECT is((SELECT closed_by FROM mako.migration_run WHERE run_id = :half), pg_temp.last_run(), 'with another sink, another run goes on');
SELECT is(array[(SELECT count(*) FROM app.copy), (SELECT count(*) FROM app.log)], array[1000, 600]::bigint[], '... and each has what its run moved');
SELECT is(pg_temp.undo(), '599 0', 'the later one is undone');
SELECT is(format('%s %s', migrated, failed), '400 0', 'and the half one') FROM mako_revert(:half);
SELECT is(array[(SELECT count(*) FROM app.copy), (SELECT count(*) FROM app.log)], array[0, 0]::bigint[], '... and nothing is left');

-- An event in the stream itself.
SELECT mako_remove_sink(:copy), mako_remove_sink(:more);
SELECT mako_add_sink($$ SELECT public.mako_append(stream_id, target_wf, 'Migrated', jsonb_build_object('from', source_wf)) FROM moved WHERE state IS NOT NULL $$) AS event \gset
SELECT is(pg_temp.run(), '999 0', 'a sink may append to the streams');
SELECT is((SELECT format('%s %s', count(*), count(DISTINCT s.version)) FROM mako.event e JOIN mako.stream s USING (stream_no) WHERE e.event_type = 'Migrated' AND e.sequence_number = 2 AND s.version = 2),
          '999 1', '... an event each');
SELECT is((SELECT state FROM mako_state('p3')), '{"i": 3, "from": "w@FV2024-10-01", "version": 2}'::jsonb, '... which goes on from the migrated state');
SELECT is(pg_temp.undo(), '0 999', '... so that nothing can be undone');
SELECT mako_remove_sink(:event);

-- A number is given once, even after the extension was gone.
SELECT max(sink_no) AS highest FROM mako_sink \gset
DROP EXTENSION mako_migration CASCADE;
CREATE EXTENSION mako_migration;
SELECT mako_create_store();
SELECT is(mako_add_sink('SELECT 1'), (SELECT max(n) + 1 FROM mako.migration_run r, unnest(r.sinks) AS n), 'a number is given once');

SELECT * FROM finish();
