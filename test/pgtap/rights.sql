-- Whose rights what others made runs with, where it does not stand in a function or on a table of the store: temporary objects of the
-- session, policies read through a cursor, triggers and children of others on tables of the store, errors that show rows.
-- Runs in an empty database.

CREATE EXTENSION pgtap;
CREATE EXTENSION mako_migration;

SELECT plan(56);

\ir include/helpers.sql
SET client_min_messages = error;

CREATE ROLE rights_keeper;
CREATE ROLE rights_reader NOINHERIT IN ROLE rights_keeper;
CREATE ROLE rights_outsider;
CREATE ROLE rights_landlord;
CREATE ROLE rights_operator;
SELECT format('GRANT TEMPORARY ON DATABASE %I TO rights_outsider', current_database()) \gexec
SELECT format('GRANT EXECUTE ON FUNCTION %s TO rights_keeper, rights_outsider, rights_operator', oid::regprocedure)
FROM pg_proc WHERE proname IN ('mako_create_store', 'mako_migrate', 'mako_append') \gexec
CREATE SCHEMA app;
GRANT USAGE ON SCHEMA app TO PUBLIC;

-- Whom the trap has caught.
CREATE TABLE app.caught (who name DEFAULT current_user);
GRANT INSERT ON app.caught TO PUBLIC;
CREATE FUNCTION app.trap() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN INSERT INTO app.caught DEFAULT VALUES; RETURN true; END $$;

----------------------------------------------------------------------------------------------------
-- Temporary objects of the session
----------------------------------------------------------------------------------------------------

-- Functions of a superuser that name a type or table without its schema; nobody else has registered anything.
CREATE DOMAIN app.code AS integer;
CREATE TABLE app.codes (n integer);
CREATE FUNCTION app.literal(state jsonb) RETURNS jsonb LANGUAGE sql STABLE SET search_path = app
  AS $$ SELECT CASE WHEN '{1}'::code[] IS NULL THEN state ELSE '{}' END $$;
CREATE FUNCTION app.apply(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE SET search_path = app AS $$
BEGIN
  RETURN state || jsonb_build_object('codes', (SELECT count(*) FROM codes));
END
$$;
SELECT mako_create_store();
SELECT mako_register_workflow('a@FV2024-10-01', 'app.apply', initial_state => '{}'), mako_register_workflow('a@FV2025-10-01');
SELECT mako_register_migration('a@FV2024-10-01', 'a@FV2025-10-01', 'app.literal');
GRANT USAGE ON SCHEMA mako TO PUBLIC;
GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA mako TO rights_outsider;
INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('s', 'a@FV2024-10-01');
SELECT mako_append('s', 'a@FV2024-10-01', 'E', '{}');

CREATE TABLE app.object (what text, kind text, definition text);
INSERT INTO app.object VALUES
  ('a domain', 'type "code"', 'CREATE DOMAIN pg_temp.code AS integer CHECK (app.trap())'),
  ('a row type', 'type "code"', 'CREATE TYPE pg_temp.code AS (d pg_temp.trapped)'),
  ('a view', 'relation "codes"', 'CREATE VIEW pg_temp.codes AS SELECT app.trap()'),
  ('a rule', 'relation "codes"', 'CREATE TEMPORARY TABLE codes (n integer); CREATE RULE r AS ON INSERT TO codes DO ALSO SELECT app.trap()'),
  ('a trigger', 'relation "codes"', 'CREATE TEMPORARY TABLE codes (n integer);
    CREATE TRIGGER t BEFORE UPDATE ON codes FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()'),
  ('a policy', 'relation "codes"', 'CREATE TEMPORARY TABLE codes (n integer); ALTER TABLE codes ENABLE ROW LEVEL SECURITY'),
  ('a default', 'relation "codes"', 'CREATE TEMPORARY TABLE codes (n integer, t boolean DEFAULT app.trap())'),
  ('a check', 'relation "codes"', 'CREATE TEMPORARY TABLE codes (n integer CHECK (app.trap()))'),
  ('a query in a check', 'relation "codes"', 'CREATE TEMPORARY TABLE codes (n integer, x xml DEFAULT query_to_xml(''SELECT app.trap()'', true, true, ''''))'),
  ('an argument of a default', 'relation "codes"', 'CREATE TEMPORARY TABLE codes (n bigint DEFAULT nextval(CASE WHEN app.trap() THEN ''mako.stream_stream_no_seq''::regclass END))'),
  ('an index', 'relation "codes"', 'CREATE TEMPORARY TABLE codes (n integer); CREATE INDEX ON codes ((n + 1))'),
  ('a column', 'relation "codes"', 'CREATE TEMPORARY TABLE codes (n app.others)');
SET ROLE rights_outsider;
CREATE FUNCTION pg_temp.anything() RETURNS integer LANGUAGE sql AS 'SELECT 1';	-- a temporary schema
RESET ROLE;
CREATE DOMAIN app.others AS integer CHECK (app.trap());
ALTER DOMAIN app.others OWNER TO rights_outsider;

-- The objects, each with what a superuser's functions are then run for.
CREATE FUNCTION pg_temp.with_object(definition text, statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  error text;
BEGIN
  PERFORM set_config('role', 'rights_outsider', true);
  BEGIN
    IF definition ~ 'trapped' THEN
      EXECUTE 'CREATE DOMAIN pg_temp.trapped AS integer';
    END IF;
    EXECUTE definition;
    error := pg_temp.error(statement);
    RAISE EXCEPTION USING ERRCODE = 'MKTST';
  EXCEPTION WHEN SQLSTATE 'MKTST' THEN
    NULL;
  END;
  PERFORM set_config('role', 'none', true);
  RETURN error;
END
$$;

SELECT matches(pg_temp.with_object(definition, $$ SELECT mako_fold('a@FV2024-10-01', '[{"event_type": "E", "payload": {}}]') $$),
               '^55000\|a temporary object of this session could run code as role "' || current_user || '"\|The (type|relation) ".*" belongs to role "rights_outsider"',
               what || ' is not run as the owner of a function')
FROM app.object;
SELECT matches(pg_temp.with_object(o.definition, s.statement), '^55000\|a temporary object of this session could run code as role ', s.statement)
FROM app.object o, unnest(ARRAY[
  'SELECT * FROM mako_explain_function(''app.literal(jsonb)'')',
  'SELECT mako_migrate_state(''a@FV2024-10-01'', ''a@FV2025-10-01'', ''{}'')',
  'SELECT mako_fingerprint(''a@FV2024-10-01'', ''a@FV2025-10-01'')',
  'SELECT mako_state(''s'')',
  'SELECT mako_append(''s'', ''a@FV2024-10-01'', ''E'', ''{}'')',
  'SELECT mako_migrate(''a@FV2024-10-01'', ''a@FV2025-10-01'')',
  'SELECT count(*) FROM mako_check()']) AS s (statement)
WHERE o.what = 'a domain';
SELECT is_empty('TABLE app.caught', 'nothing of it has run');

SELECT is(pg_temp.with_object(definition, $$ SELECT mako_state('s') $$), NULL, what || ' of one''s own does no harm')
FROM (VALUES
  ('a table', 'CREATE TEMPORARY TABLE codes (n integer)'),
  ('a table with defaults of the server', 'CREATE TEMPORARY TABLE codes (n serial, b bigserial, i integer GENERATED ALWAYS AS IDENTITY, at timestamptz DEFAULT now(), c timestamptz DEFAULT clock_timestamp(), s timestamptz DEFAULT CURRENT_TIMESTAMP, u uuid DEFAULT gen_random_uuid(),
    a integer CHECK (a > 0), d integer GENERATED ALWAYS AS (a + 1) STORED)'),
  ('a key', 'CREATE TEMPORARY TABLE codes (n integer PRIMARY KEY)'),
  ('a table of the extension''s types', 'CREATE TEMPORARY TABLE codes (w mako_workflow_id, r mako_migration_report)'),
  ('an enum', 'CREATE TYPE pg_temp.code AS ENUM (''a'')'),
  ('a function', 'CREATE FUNCTION pg_temp.trap() RETURNS boolean LANGUAGE sql AS ''SELECT app.trap()'''),
  ('nothing', 'SELECT 1')) AS v (what, definition);
CREATE VIEW pg_temp.codes AS SELECT 1 AS n;
SELECT is(pg_temp.error('SELECT mako_state(''s'')'), NULL, 'nor do objects of a role that has the owner''s rights');
DROP VIEW pg_temp.codes;

----------------------------------------------------------------------------------------------------
-- What a function writes
----------------------------------------------------------------------------------------------------

-- It says that it is stable, and has another one write.
GRANT CREATE ON SCHEMA app TO rights_keeper;
GRANT USAGE ON SCHEMA mako TO rights_keeper;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA mako TO rights_keeper;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA mako TO rights_keeper;
SET ROLE rights_keeper;
CREATE FUNCTION app.do_it(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN EXECUTE statement; RETURN 'done'; EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE; END $$;
CREATE FUNCTION app.apply_writing(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE
  AS $$ SELECT to_jsonb(app.do_it(event_type)) $$;
CREATE FUNCTION app.constant() RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN app.do_it('INSERT INTO app.caught DEFAULT VALUES'); END $$;
CREATE DOMAIN app.checked AS jsonb CHECK (app.do_it('INSERT INTO app.caught DEFAULT VALUES') = '25006');
CREATE FUNCTION app.apply_planned(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE
  AS $$ SELECT to_jsonb(app.constant()) $$;
CREATE FUNCTION app.apply_checked(state app.checked, event_type text, payload jsonb) RETURNS app.checked LANGUAGE sql STABLE
  AS $$ SELECT '"checked"'::app.checked $$;
RESET ROLE;
SELECT mako_register_workflow('p@FV2024-10-01', 'app.apply_planned', initial_state => '{}'), mako_register_workflow('c@FV2024-10-01', 'app.apply_checked', initial_state => '{}');
SELECT is(mako_fold('p@FV2024-10-01', '[{"event_type": "E", "payload": {}}]'), '"25006"', 'nor while a function is planned');
SELECT is(mako_fold('c@FV2024-10-01', '[{"event_type": "E", "payload": {}}]'), '"checked"', 'nor where a domain is checked');
SELECT is_empty('TABLE app.caught', 'nothing was written');
SELECT mako_register_workflow('w@FV2024-10-01', 'app.apply_writing', initial_state => '{}');
SELECT is(mako_fold('w@FV2024-10-01', jsonb_build_array(jsonb_build_object('event_type', statement, 'payload', '{}'::jsonb))), '"25006"', statement)
FROM unnest(ARRAY[
  'UPDATE mako.registry SET key = key', 'DELETE FROM mako.correlation', 'DELETE FROM mako.snapshot', 'INSERT INTO mako.stream (stream_id, workflow_id) VALUES (''t'', ''w@FV2024-10-01'')',
  'SELECT nextval(''mako.stream_stream_no_seq'')', 'CREATE TABLE app.written ()']) AS statement;
SELECT lives_ok($$ INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('t', 'w@FV2024-10-01') $$, 'afterwards, the session writes');
BEGIN;
SELECT throws_ok($$ SELECT mako_fold('w@FV2024-10-01', '[{"event_type": null, "payload": {}}]') $$, NULL, NULL, 'a function that fails');
SELECT lives_ok($$ INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('u', 'w@FV2024-10-01') $$, '... lets the transaction write');
COMMIT;

----------------------------------------------------------------------------------------------------
-- What others have made of tables of the store
----------------------------------------------------------------------------------------------------

BEGIN;
GRANT TRIGGER ON mako.stream TO rights_keeper;
SET LOCAL ROLE rights_keeper;
CREATE FUNCTION app.triggered() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM app.trap(); RETURN NEW; END $$;
CREATE TRIGGER others BEFORE UPDATE ON mako.stream FOR EACH ROW EXECUTE FUNCTION app.triggered();
RESET ROLE;
SELECT matches(pg_temp.error($$ SELECT mako_append('s', 'a@FV2024-10-01', 'E', '{}') $$),
               '^55000\|relation "mako.stream" has a trigger whose function belongs to another role\|', 'the function of a trigger belongs to the owner of the table');
SELECT is(pg_temp.rows('SELECT * FROM mako_store_problem()'), 'relation mako.stream|has a trigger whose function belongs to another role|false', 'which is told');
ALTER FUNCTION app.triggered() OWNER TO SESSION_USER;
SELECT is(pg_temp.error($$ SELECT mako_append('s', 'a@FV2024-10-01', 'E', '{}') $$), NULL, 'his own does no harm');
ROLLBACK;

BEGIN;
CREATE TABLE mako.event_old () INHERITS (mako.event);
SELECT is(pg_temp.error($$ SELECT mako_state('s') $$), NULL, 'a child of the owner of the table does no harm');
ALTER TABLE mako.event_old OWNER TO rights_keeper;
SELECT matches(pg_temp.error($$ SELECT count(*) FROM mako_load('s') $$), '^55000\|relation "mako.event" has a child that belongs to another role\|', 'one of another role does');
ROLLBACK;

BEGIN;
ALTER TABLE mako.registry OWNER TO rights_keeper;
ALTER TABLE mako.registry DROP CONSTRAINT registry_tenant_id_stream_no_fkey;
SELECT matches(pg_temp.error('SELECT mako_create_store()'), '^42501\|table "mako.registry" belongs to role "rights_keeper"\|.*\|Give the table to that role: ALTER TABLE mako.registry OWNER TO ',
               'a table of another role is not repaired');
ROLLBACK;

-- A dependent whose columns may be updated, but not all be seen.
CREATE TABLE app.salary (stream_no bigint, workflow_id text, secret text, CHECK (workflow_id <> 'a@FV2025-10-01' OR secret IS NULL));
INSERT INTO app.salary SELECT stream_no, 'a@FV2024-10-01', 'seven' FROM mako.stream WHERE stream_id = 's';
SELECT mako_add_dependent('app.salary', 'stream_no', 'workflow_id');
GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA mako TO rights_operator;
GRANT SELECT (stream_no, workflow_id), UPDATE (workflow_id) ON app.salary TO rights_operator;
SET ROLE rights_operator;
SELECT is(pg_temp.rows($$ SELECT e.sqlstate, e.detail FROM mako_migrate('a@FV2024-10-01', 'a@FV2025-10-01') m, unnest(m.errors) e $$),
          '23514|The row is shown to roles that may select all columns of the table.', 'an error does not show what its reader may not see');
RESET ROLE;
SELECT matches(pg_temp.rows($$ SELECT e.detail FROM mako_migrate('a@FV2024-10-01', 'a@FV2025-10-01') m, unnest(m.errors) e $$), 'seven', 'but the rest');
SELECT mako_remove_dependent('app.salary', 'stream_no', 'workflow_id');

-- The database's owner is a member of a role without a row in pg_auth_members.
GRANT SELECT ON ALL TABLES IN SCHEMA mako TO pg_database_owner;
SELECT format('ALTER DATABASE %I OWNER TO rights_landlord', current_database()) \gexec
SET ROLE rights_landlord;
SELECT is((SELECT count(*) FROM mako_load('s')), 1::bigint, 'the owner of the database reads');
RESET ROLE;
SELECT format('ALTER DATABASE %I OWNER TO %I', current_database(), current_user) \gexec
SELECT is(pg_temp.error_as('rights_landlord', 'SELECT count(*) FROM mako_load(''s'')'), '42501|permission denied for table stream', 'as long as he owns it');
REVOKE ALL ON ALL TABLES IN SCHEMA mako FROM pg_database_owner;

----------------------------------------------------------------------------------------------------
-- Policies that a cursor evaluates for a caller after SET ROLE
----------------------------------------------------------------------------------------------------

CREATE FUNCTION app.back(setting text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE 'RESET ' || setting;
  INSERT INTO app.caught DEFAULT VALUES;
  RETURN true;
EXCEPTION WHEN insufficient_privilege THEN
  RETURN true;
END
$$;
GRANT SELECT ON ALL TABLES IN SCHEMA mako TO rights_reader;
TRUNCATE app.caught;
CREATE POLICY read ON mako.event TO rights_reader USING (app.back('ROLE') AND app.back('SESSION AUTHORIZATION'));
CREATE POLICY read ON mako.stream TO rights_reader USING (app.back('ROLE') AND app.back('SESSION AUTHORIZATION'));
ALTER TABLE mako.event ENABLE ROW LEVEL SECURITY;
ALTER TABLE mako.stream ENABLE ROW LEVEL SECURITY;
SET ROLE rights_reader;
SELECT is((SELECT count(*) FROM mako_load('s')), 1::bigint, 'the policies let the row through');
SELECT is((SELECT count(*) FROM mako_state('s')), 1::bigint, 'also where a state is read');
SELECT is(current_user::text, 'rights_reader', 'the role is as before');
RESET ROLE;
SET SESSION AUTHORIZATION rights_reader;
SELECT is((SELECT count(*) FROM mako_load('s')), 1::bigint, 'the same after SET SESSION AUTHORIZATION');
SELECT is(session_user::text, 'rights_reader', 'the session''s role is as before');
RESET SESSION AUTHORIZATION;
SELECT is_empty('SELECT * FROM app.caught WHERE who <> ''rights_reader''', 'and no policy has become another role');

SELECT * FROM finish();
DROP OWNED BY rights_keeper, rights_reader, rights_outsider, rights_operator, rights_landlord CASCADE;
DROP ROLE rights_keeper, rights_reader, rights_outsider, rights_operator, rights_landlord;
