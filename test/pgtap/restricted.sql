-- What a registered function that lies about its volatility tries to do with the rights, or in the
-- session, of the superuser who calls it: each is refused, or is done as the function's owner, and
-- nothing of it is left in the session. Runs in an empty database.

CREATE EXTENSION pgtap;
CREATE EXTENSION mako_migration;
SET client_min_messages = warning;

CREATE ROLE "restricted: Author";
SELECT format('GRANT CREATE ON DATABASE %I TO "restricted: Author"', current_database()) \gexec
CREATE SCHEMA lib AUTHORIZATION "restricted: Author";

SET ROLE "restricted: Author";
CREATE TABLE lib.diary (line text, who name DEFAULT current_user);
CREATE TABLE lib.watched (i int);
CREATE FUNCTION lib.note() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO lib.diary VALUES (TG_NAME); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER at_the_end AFTER INSERT ON lib.watched DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION lib.note();
CREATE FUNCTION lib.attempt(statement text) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  EXECUTE statement;
  RETURN 'done by ' || current_user;
EXCEPTION WHEN OTHERS THEN
  RETURN SQLSTATE;
END
$$;
CREATE FUNCTION lib.apply(state jsonb, event_type text, payload jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE AS
  $$ BEGIN RETURN state || jsonb_build_object('result', lib.attempt(event_type)); END $$;
RESET ROLE;
SELECT mako_register_workflow('try@FV2024-10-01', 'lib.apply', initial_state => '{}');

-- What a session could remember.
CREATE FUNCTION pg_temp.session_now() RETURNS SETOF text LANGUAGE sql AS $$
  SELECT 'setting ' || name || ' = ' || setting FROM pg_settings
  UNION ALL SELECT 'statement ' || name FROM pg_prepared_statements
  UNION ALL SELECT 'cursor ' || name FROM pg_cursors WHERE is_holdable
  UNION ALL SELECT 'channel ' || c FROM pg_listening_channels() c
  UNION ALL SELECT 'lock ' || l.classid || ' ' || l.objid FROM pg_locks l
            WHERE l.locktype = 'advisory' AND l.pid = pg_backend_pid()
  UNION ALL SELECT 'role ' || current_user || ' ' || session_user
  UNION ALL SELECT 'own setting ' || coalesce(current_setting('try.own', true), '')
  UNION ALL SELECT 'temporary table ' || relname FROM pg_class
            WHERE relnamespace = pg_my_temp_schema()
$$;

-- Each with what becomes of it; an advisory lock is everybody's to take.
CREATE TEMPORARY TABLE attempt (n int GENERATED ALWAYS AS IDENTITY, statement text, result text);
INSERT INTO attempt (statement, result) VALUES
  ('PREPARE kept AS SELECT 1', '42501'),
  ('DECLARE kept CURSOR WITH HOLD FOR SELECT 1', '42501'),
  ('LISTEN kept', '42501'),
  ('DISCARD ALL', '(25001|42501)'),
  ('DISCARD TEMP', '42501'),
  ('CREATE TEMPORARY TABLE kept ()', '25006'),
  ('CREATE TEMPORARY VIEW kept AS SELECT 1', '25006'),
  ('SET ROLE postgres', '42501'),
  ('SET SESSION AUTHORIZATION postgres', '42501'),
  ('RESET ROLE', '42501'),
  ('SELECT set_config(''session_authorization'', ''postgres'', false)', '42501'),
  ('SET session_replication_role = replica', '42501'),
  ('SET try.own = ''kept''', 'done by restricted: Author'),
  ('SET LOCAL search_path = lib', 'done by restricted: Author'),
  ('SET row_security = off', 'done by restricted: Author'),
  ('SET statement_timeout = 1', 'done by restricted: Author'),
  ('SELECT set_config(''work_mem'', ''1GB'', false)', 'done by restricted: Author'),
  ('COMMIT', '0A000'),
  ('DO $do$ BEGIN COMMIT; END $do$', '2D000'),
  ('LOAD ''auto_explain''', '42501'),
  ('COPY lib.diary TO PROGRAM ''true''', '42501'),
  ('COPY lib.diary FROM ''/etc/passwd''', '42501'),
  ('SELECT pg_read_file(''/etc/passwd'')', '42501'),
  ('SELECT lo_import(''/etc/passwd'')', '42501'),
  ('CREATE EXTENSION pageinspect', '25006'),
  ('CREATE FUNCTION public.mine() RETURNS int LANGUAGE c AS ''mine''', '25006'),
  ('ALTER ROLE "restricted: Author" SUPERUSER', '25006'),
  ('GRANT pg_read_all_data TO "restricted: Author"', '.....'),
  ('SELECT mako_register_workflow(''other@FV2024-10-01'')', '.....'),
  ('INSERT INTO mako_workflow SELECT * FROM mako_workflow', '25006'),
  ('INSERT INTO lib.diary VALUES (''was here'')', '25006'),
  ('INSERT INTO lib.watched VALUES (1)', '25006');

SELECT plan((SELECT count(*)::int + 4 FROM attempt));
CREATE TEMPORARY TABLE result (n int, result text);
CREATE TEMPORARY TABLE session_before AS SELECT * FROM pg_temp.session_now() AS line;
INSERT INTO result
SELECT n, mako_fold('try@FV2024-10-01', jsonb_build_array(jsonb_build_object(
            'event_type', statement, 'payload', '{}'::jsonb)))->>'result'
FROM attempt;

SELECT matches(r.result, '^' || a.result || '$', a.statement)
FROM attempt a JOIN result r USING (n) ORDER BY n;
SELECT is_empty('SELECT * FROM lib.diary', 'nothing is written');
SELECT is_empty('SELECT * FROM lib.watched', '... nor anything that would run at the end');
SELECT is_empty('TABLE session_before EXCEPT SELECT * FROM pg_temp.session_now()',
                'the session has lost nothing');
SELECT is_empty('SELECT * FROM pg_temp.session_now() EXCEPT TABLE session_before',
                '... and kept nothing');

SELECT * FROM finish();
DROP OWNED BY "restricted: Author" CASCADE;
DROP ROLE "restricted: Author";
