-- Tenants: with row-level security on the store's tables, no call of the process interface resolves, reads, changes or reveals a process
-- of another tenant; without it, keys and tags still lead to streams of their own tenant only. And which privileges each call needs.
-- Runs in an empty database.

CREATE EXTENSION pgtap;
CREATE EXTENSION mako_migration;

SELECT plan(121);

SELECT mako_create_store();
-- Stream numbers that are like no other number.
ALTER TABLE mako.stream ALTER stream_no RESTART WITH 700001;

\ir include/helpers.sql

\set a aaaaaaaa-0000-4000-8000-000000000001
\set b aaaaaaaa-0000-4000-8000-000000000002

-- A state is the words said so far.
CREATE SCHEMA t;
CREATE FUNCTION t.apply(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT jsonb_build_object('words', concat(state->>'words', payload->>'word')) $$;
REVOKE EXECUTE ON FUNCTION t.apply FROM PUBLIC;
CREATE FUNCTION t.migrate(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT jsonb_build_object('words', upper(state->>'words')) $$;
SELECT mako_register_workflow('t@FV2024-10-01', 't.apply', initial_state => '{}'), mako_register_workflow('t@FV2025-10-01', 't.apply', initial_state => '{}');
SELECT mako_register_migration('t@FV2024-10-01', 't@FV2025-10-01', 't.migrate');
SELECT mako_register_workflow('own@FV2024-10-01'), mako_register_workflow('own@FV2025-10-01');
SELECT mako_register_migrations('FV2024-10-01', 'FV2025-10-01', '{own}');

-- Both tenants have the same: a process that has moved, one that has not, one that moved without a snapshot, and a stream that is no
-- process. Only the tenant's number tells them apart, so that what one gets of the other would be noticed.
CREATE FUNCTION pg_temp.process(number int) RETURNS uuid LANGUAGE sql AS $$ SELECT format('bbbbbbbb-0000-4000-8000-%s', lpad(number::text, 12, '0'))::uuid $$;
CREATE FUNCTION pg_temp.stream(tenant uuid, number int) RETURNS text LANGUAGE sql AS $$ SELECT format('process/%s/%s', tenant, pg_temp.process(number)) $$;
CREATE FUNCTION pg_temp.event(tenant uuid, number int) RETURNS uuid LANGUAGE sql AS $$ SELECT overlay(tenant::text PLACING 'eeeee' || number FROM 1 FOR 6)::uuid $$;
CREATE TEMPORARY TABLE tenant AS SELECT tenant::uuid, right(tenant, 1) AS mark FROM unnest(ARRAY[:'a', :'b']) AS tenant;

SELECT count(mako_spawn('t@FV2024-10-01', tenant, pg_temp.process(1))), count(mako_spawn('own@FV2024-10-01', tenant, pg_temp.process(3))) FROM tenant;
SELECT count(mako_append(pg_temp.stream(tenant, 1), 't@FV2024-10-01', 'Said', jsonb_build_object('word', 'a' || mark), event_id => pg_temp.event(tenant, 1))),
       count(mako_append(pg_temp.stream(tenant, 3), 'own@FV2024-10-01', 'Said', '{}')) FROM tenant;
SELECT count(*) FROM mako_migrate_version('FV2024-10-01', 'FV2025-10-01');
SELECT count(mako_append(pg_temp.stream(tenant, 1), 't@FV2025-10-01', 'Said', jsonb_build_object('word', 'b' || mark))),
       count(mako_spawn('t@FV2024-10-01', tenant, pg_temp.process(2))) FROM tenant;
SELECT count(mako_append(pg_temp.stream(tenant, 2), 't@FV2024-10-01', 'Said', jsonb_build_object('word', 'c' || mark))),
       count(mako_take_snapshot(pg_temp.stream(tenant, 1))) FROM tenant;
SELECT mako_take_snapshot(pg_temp.stream(tenant, 2)) FROM tenant;
INSERT INTO mako.stream (stream_id, tenant_id, workflow_id) SELECT 'letters/' || mark, tenant, 't@FV2024-10-01' FROM tenant;
SELECT count(mako_append('letters/' || mark, 't@FV2024-10-01', 'Said', jsonb_build_object('word', 'd' || mark))) FROM tenant;
SELECT count(mako_register_key(tenant, 'conversation', pg_temp.stream(tenant, 1))), count(mako_register_key(tenant, 'only ' || mark, pg_temp.stream(tenant, 2))),
       count(mako_register_key(tenant, 'expired', pg_temp.stream(tenant, 2), '2020-01-01')), count(mako_add_tag(tenant, 'place', pg_temp.stream(tenant, 1))),
       count(mako_add_tag(tenant, 'place ' || mark, pg_temp.stream(tenant, 2))) FROM tenant;

-- Everything in the store, to see that nothing has changed; as a table, to see what has.
CREATE FUNCTION pg_temp.rows_now() RETURNS TABLE (part text, row_text text) LANGUAGE plpgsql AS $$
BEGIN
  FOREACH part IN ARRAY '{stream,event,snapshot,repointed,reverted,registry,correlation}'::text[] LOOP
    RETURN QUERY EXECUTE format('SELECT %L, t::text FROM mako.%I t', part, part);
  END LOOP;
END
$$;

----------------------------------------------------------------------------------------------------
-- Without row-level security: keys and tags lead to streams of their own tenant
----------------------------------------------------------------------------------------------------

SELECT is(pg_temp.rows(format('SELECT stream_id, workflow_id FROM mako_lookup(%L, %L)', :'a', pg_temp.process(1))), pg_temp.stream(:'a', 1) || '|t@FV2025-10-01', 'a process id leads to the tenant''s process');
SELECT is(pg_temp.rows(format('SELECT stream_id FROM mako_lookup(%L, %L)', :'b', pg_temp.process(1))), pg_temp.stream(:'b', 1), 'the same id of another tenant to his');
SELECT is(pg_temp.rows(format('SELECT stream_id FROM mako_lookup(%L, %L)', :'b', 'conversation')), pg_temp.stream(:'b', 1), 'and so does any key');
SELECT is_empty(format('SELECT * FROM mako_lookup(%L, %L)', :'a', 'only 2'), 'a key that only the other one has leads nowhere');
SELECT is_empty(format('SELECT * FROM mako_lookup(%L, %L, %L)', :'a', 'only 2', 'FV2024-10-01'), 'with a format version, too');
SELECT is_empty(format('SELECT * FROM mako_lookup(%L, %L)', 'aaaaaaaa-0000-4000-8000-000000000003', 'conversation'), 'and so does any key of a tenant without processes');
SELECT is(pg_temp.rows(format('SELECT stream_id FROM mako_find_tag(%L, %L)', :'a', 'place')), pg_temp.stream(:'a', 1), 'a tag finds the tenant''s processes only');
SELECT is_empty(format('SELECT * FROM mako_find_tag(%L, %L)', :'a', 'place 2'), 'and not those of another one');
CREATE TEMPORARY TABLE rows_before AS SELECT * FROM pg_temp.rows_now();
SELECT is(pg_temp.error(format('SELECT mako_register_key(%L, %L, %L)', :'a', 'mine', pg_temp.stream(:'b', 1))),
          format('42704|tenant %s has no stream "%s"|Keys and tags lead to streams of their own tenant only.', :'a', pg_temp.stream(:'b', 1)), 'no key is registered for another tenant''s process');
SELECT is(pg_temp.error(format('SELECT mako_register_key(%L, %L, %L)', :'a', 'mine', 'letters/2')),
          format('42704|tenant %s has no stream "letters/2"|Keys and tags lead to streams of their own tenant only.', :'a'), 'nor for his stream that is no process');
SELECT is(pg_temp.error(format('SELECT mako_register_key(%L, %L, %L)', :'a', 'mine', 'letters/9')),
          format('42704|tenant %s has no stream "letters/9"|Keys and tags lead to streams of their own tenant only.', :'a'), 'which is told as if it were not there');
SELECT is(pg_temp.error(format('SELECT mako_add_tag(%L, %L, %L)', :'a', 'mine', pg_temp.stream(:'b', 1))),
          format('42704|tenant %s has no stream "%s"|Keys and tags lead to streams of their own tenant only.', :'a', pg_temp.stream(:'b', 1)), 'nor a tag added');
SELECT is(pg_temp.rows(format('SELECT mako_remove_tag(%L, %L, %L), mako_remove_tag(%L, %L, %L)', :'a', 'place', pg_temp.stream(:'b', 1), :'a', 'place 2', pg_temp.stream(:'b', 2))), 'false|false',
          'nor one removed');
SELECT is(pg_temp.rows(format('SELECT mako_unregister_key(%L, %L)', :'a', 'only 2')), 'false', 'nor a key forgotten');
SELECT set_eq('SELECT * FROM pg_temp.rows_now()', 'SELECT * FROM rows_before', 'nothing has changed');
SELECT is(pg_temp.error(format('INSERT INTO mako.registry (tenant_id, key, stream_no) SELECT %L, ''mine'', stream_no FROM mako.stream WHERE stream_id = %L', :'a', pg_temp.stream(:'b', 1))) LIKE '23503|%', true,
          'not even past the functions');
SELECT is(pg_temp.error(format('INSERT INTO mako.correlation (tenant_id, tag, stream_no) SELECT %L, ''mine'', stream_no FROM mako.stream WHERE stream_id = %L', :'a', pg_temp.stream(:'b', 1))) LIKE '23503|%', true,
          'nor for a tag');
SELECT is(pg_temp.error(format('SELECT mako_register_key(%L, %L, %L)', :'a', 'conversation', pg_temp.stream(:'a', 2))),
          format('42710|routing key "conversation" leads to another stream|It leads to "%s".|Unregister it first.', pg_temp.stream(:'a', 1)), 'a key that leads elsewhere is told by the tenant''s own stream');

----------------------------------------------------------------------------------------------------
-- The policies
----------------------------------------------------------------------------------------------------

-- From here on in one transaction, because roles belong to the whole server.
BEGIN;

ALTER TABLE mako.stream ENABLE ROW LEVEL SECURITY;
ALTER TABLE mako.registry ENABLE ROW LEVEL SECURITY;
ALTER TABLE mako.correlation ENABLE ROW LEVEL SECURITY;
ALTER TABLE mako.event ENABLE ROW LEVEL SECURITY;
ALTER TABLE mako.snapshot ENABLE ROW LEVEL SECURITY;
ALTER TABLE mako.repointed ENABLE ROW LEVEL SECURITY;
ALTER TABLE mako.reverted ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON mako.stream USING (tenant_id = current_setting('app.tenant')::uuid);
CREATE POLICY tenant ON mako.registry USING (tenant_id = current_setting('app.tenant')::uuid);
CREATE POLICY tenant ON mako.correlation USING (tenant_id = current_setting('app.tenant')::uuid);
-- These have no tenant: whose they are, the head says, which has a policy itself.
CREATE POLICY tenant ON mako.event USING (EXISTS (SELECT FROM mako.stream s WHERE s.stream_no = event.stream_no));
CREATE POLICY tenant ON mako.snapshot USING (EXISTS (SELECT FROM mako.stream s WHERE s.stream_no = snapshot.stream_no));
CREATE POLICY tenant ON mako.repointed USING (EXISTS (SELECT FROM mako.stream s WHERE s.stream_no = repointed.stream_no));
CREATE POLICY tenant ON mako.reverted USING (EXISTS (SELECT FROM mako.stream s WHERE s.stream_no = reverted.stream_no));

-- Runs a statement as a role for a tenant. Gives its rows, a line each, or its error.
CREATE FUNCTION pg_temp.run_as(role text, tenant uuid, statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  result text; state text; message text; detail text; hint text;
BEGIN
  PERFORM set_config('app.tenant', tenant::text, true);
  EXECUTE format('SET LOCAL ROLE %I', role);
  IF statement ~* '^(INSERT|UPDATE|DELETE)' THEN
    EXECUTE statement;
  ELSE
    EXECUTE format('SELECT string_agg(q::text, E''\n'') FROM (%s) q', statement) INTO result;
  END IF;
  RESET ROLE;
  RETURN result;
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
  RETURN concat_ws('|', state, message, nullif(detail, ''), nullif(hint, ''));
END
$$;

----------------------------------------------------------------------------------------------------
-- The privileges that each call needs, with these policies
----------------------------------------------------------------------------------------------------

-- A statement about the processes of a tenant: what stands between braces is his. Of tenant 9 nothing is there.
CREATE FUNCTION pg_temp.about(statement text, mark text, me text DEFAULT '1') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  owner uuid := 'aaaaaaaa-0000-4000-8000-00000000000' || mark;
  number bigint := (SELECT stream_no FROM mako.stream WHERE stream_id = pg_temp.stream(owner, 1));
  place record;
BEGIN
  FOR place IN
    SELECT * FROM (VALUES ('moved', pg_temp.stream(owner, 1)), ('stayed', pg_temp.stream(owner, 2)), ('repointed', pg_temp.stream(owner, 3)),
      ('letters', 'letters/' || mark), ('process', pg_temp.process(1)::text), ('tenant', owner::text), ('me', 'aaaaaaaa-0000-4000-8000-00000000000' || me), ('key', 'only ' || mark), ('tag', 'place ' || mark),
      ('event', pg_temp.event(owner, 1)::text), ('said', format('{"word": "a%s"}', mark)), ('number', coalesce(number, 799999)::text)) AS p (name, value)
  LOOP
    statement := replace(statement, '{' || place.name || '}', quote_literal(place.value));
  END LOOP;
  RETURN statement;
END
$$;

-- What is missing in a list of privileges, and what is in it needlessly: the call must succeed with all of them, and be refused
-- without any one. Nothing of it stays.
CREATE FUNCTION pg_temp.wrong_privileges(tenant uuid, call text, privileges text[]) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
  privilege text;
  result text;
BEGIN
  FOREACH privilege IN ARRAY privileges || '{none}'::text[] LOOP
    BEGIN
      PERFORM set_config('app.tenant', tenant::text, true);
      CREATE ROLE mako_test_minimal;
      EXECUTE (SELECT string_agg(format('GRANT %s TO mako_test_minimal', p), ';') FROM unnest(privileges) AS p WHERE p <> privilege);
      EXECUTE 'SET LOCAL ROLE mako_test_minimal';
      EXECUTE call;
      RAISE EXCEPTION USING ERRCODE = 'MKTST';
    EXCEPTION WHEN SQLSTATE 'MKTST' THEN
      IF privilege <> 'none' THEN
        RETURN NEXT 'needless: ' || privilege;
      END IF;
    WHEN insufficient_privilege THEN
      IF privilege = 'none' THEN
        RETURN NEXT 'missing: ' || SQLERRM;
      END IF;
    WHEN OTHERS THEN
      RETURN NEXT concat('other: without ', privilege, ': ', SQLSTATE, ' ', SQLERRM);
    END;
  END LOOP;
END
$$;

-- Which each call needs beside USAGE on schema mako. Whoever may not execute a function is not listed again below.
CREATE TEMPORARY TABLE need (n int GENERATED ALWAYS AS IDENTITY, call text, execute text, privileges text[]);
INSERT INTO need (call, execute, privileges) VALUES
  -- Starting a process writes its head, whose number is read back, and its key.
  ('mako_spawn(''t@FV2024-10-01'', {tenant})', 'mako_spawn', '{SELECT ON mako.stream,INSERT ON mako.stream,INSERT ON mako.registry}'),
  -- Appending reads the head and writes events. The head is locked and advanced as its owner; so is a repeated event looked for.
  ('mako_append({moved}, ''t@FV2025-10-01'', ''Said'', ''{}'')', 'mako_append', '{SELECT ON mako.stream,INSERT ON mako.event}'),
  ('mako_append({moved}, ''t@FV2024-10-01'', ''Said'', {said}, event_id => {event})', 'mako_append', '{SELECT ON mako.stream,INSERT ON mako.event}'),
  ('mako_append_batch({moved}, ''t@FV2025-10-01'', ARRAY[(''Said'', ''{}'', 1, NULL, NULL, NULL, NULL)]::mako_new_event[])', 'mako_append_batch',
   '{SELECT ON mako.stream,INSERT ON mako.event}'),
  -- Reading. Of the runs, only what the history of a stream needs: no reasons and no roles. Of the workflow's functions, that they
  -- can be found: they run as their owner.
  ('mako_load({moved})', NULL, '{SELECT ON mako.stream,SELECT ON mako.event}'),
  ('mako_state({moved})', NULL, '{USAGE ON SCHEMA t,SELECT ON mako.stream,SELECT ON mako.event,SELECT ON mako.snapshot,SELECT ON mako.reverted,"SELECT (run_id, update_registry) ON mako.migration_run"}'),
  ('mako_resume({moved})', NULL, '{USAGE ON SCHEMA t,SELECT ON mako.stream,SELECT ON mako.event,SELECT ON mako.snapshot,SELECT ON mako.reverted,"SELECT (run_id, update_registry) ON mako.migration_run"}'),
  -- Events of another workflow behind the start: was the stream moved without a snapshot, or is one missing?
  ('mako_resume({repointed})', NULL, '{SELECT ON mako.stream,SELECT ON mako.event,SELECT ON mako.snapshot,SELECT ON mako.repointed,SELECT ON mako.reverted,"SELECT (run_id, source_wf, target_wf, update_registry) ON mako.migration_run"}'),
  ('mako_trace({moved})', NULL, '{USAGE ON SCHEMA t,SELECT ON mako.stream,SELECT ON mako.event,SELECT ON mako.snapshot,SELECT ON mako.repointed,SELECT ON mako.reverted,"SELECT (run_id, source_wf, target_wf, update_registry, migrated) ON mako.migration_run"}'),
  -- Periodic snapshots replace each other.
  ('mako_take_snapshot({moved})', 'mako_take_snapshot', '{USAGE ON SCHEMA t,SELECT ON mako.stream,SELECT ON mako.event,SELECT ON mako.snapshot,INSERT ON mako.snapshot,UPDATE ON mako.snapshot,SELECT ON mako.reverted,"SELECT (run_id, update_registry) ON mako.migration_run"}'),
  ('mako_save_snapshot({moved}, 2, ''t@FV2025-10-01'', 1, ''{}'')', 'mako_save_snapshot', '{USAGE ON SCHEMA t,SELECT ON mako.stream,SELECT ON mako.snapshot,INSERT ON mako.snapshot,UPDATE ON mako.snapshot,SELECT ON mako.reverted,"SELECT (run_id, update_registry) ON mako.migration_run"}'),
  ('mako_prune_snapshots(0)', 'mako_prune_snapshots', '{SELECT ON mako.stream,SELECT ON mako.snapshot,DELETE ON mako.snapshot}'),
  -- Routing.
  ('mako_lookup({tenant}, ''conversation'')', NULL, '{SELECT ON mako.stream,SELECT ON mako.registry}'),
  ('mako_lookup({tenant}, ''conversation'', ''FV2025-10-01'')', NULL, '{SELECT ON mako.stream,SELECT ON mako.registry,SELECT ON mako.format_version}'),
  ('mako_register_key({tenant}, ''new'', {moved})', 'mako_register_key', '{SELECT ON mako.stream,SELECT ON mako.registry,INSERT ON mako.registry,UPDATE ON mako.registry}'),
  ('mako_unregister_key({tenant}, ''conversation'')', 'mako_unregister_key', '{SELECT ON mako.registry,DELETE ON mako.registry}'),
  ('mako_expire_keys()', 'mako_expire_keys', '{SELECT ON mako.registry,DELETE ON mako.registry}'),
  ('mako_add_tag({tenant}, ''new'', {moved})', 'mako_add_tag', '{SELECT ON mako.stream,SELECT ON mako.correlation,INSERT ON mako.correlation}'),
  ('mako_find_tag({tenant}, ''place'')', NULL, '{SELECT ON mako.stream,SELECT ON mako.correlation}'),
  ('mako_remove_tag({tenant}, ''place'', {moved})', 'mako_remove_tag', '{SELECT ON mako.stream,SELECT ON mako.correlation,DELETE ON mako.correlation}');

SELECT is(array_to_string(ARRAY(SELECT pg_temp.wrong_privileges(:'a', 'SELECT * FROM ' || pg_temp.about(call, '1'),
            array_remove(('EXECUTE ON FUNCTION ' || execute) || privileges || '{USAGE ON SCHEMA mako}'::text[], NULL))), E'\n'), '', 'privileges for ' || call)
FROM need ORDER BY n;

----------------------------------------------------------------------------------------------------
-- A tenant and his own processes
----------------------------------------------------------------------------------------------------

-- An engine that may all of that.
CREATE ROLE mako_test_app;
GRANT USAGE ON SCHEMA mako, t TO mako_test_app;
GRANT SELECT, INSERT ON mako.stream, mako.event TO mako_test_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON mako.snapshot, mako.registry, mako.correlation TO mako_test_app;
GRANT SELECT ON mako.repointed, mako.reverted, mako.format_version, mako.process_identity, mako.migrated_stream TO mako_test_app;
GRANT SELECT (run_id, source_wf, target_wf, update_registry, migrated) ON mako.migration_run TO mako_test_app;
GRANT EXECUTE ON FUNCTION mako_spawn, mako_append, mako_append_batch, mako_take_snapshot, mako_save_snapshot, mako_prune_snapshots, mako_register_key, mako_unregister_key,
  mako_expire_keys, mako_add_tag, mako_remove_tag TO mako_test_app;

CREATE FUNCTION pg_temp.as_a(statement text) RETURNS text LANGUAGE sql AS $$ SELECT pg_temp.run_as('mako_test_app', 'aaaaaaaa-0000-4000-8000-000000000001', statement) $$;
CREATE FUNCTION pg_temp.as_b(statement text) RETURNS text LANGUAGE sql AS $$ SELECT pg_temp.run_as('mako_test_app', 'aaaaaaaa-0000-4000-8000-000000000002', statement) $$;

-- The calls, with what they are about between braces: a process of the tenant's, of another one's, or one that is not there. Before
-- version 15 of the server, views have their owner's rights: there, the base tables take their place.
SELECT CASE WHEN current_setting('server_version_num')::int >= 150000 THEN 'mako.process_identity'
            ELSE '(SELECT r.*, s.stream_id FROM mako.registry r JOIN mako.stream s USING (tenant_id, stream_no))' END AS identity,
       CASE WHEN current_setting('server_version_num')::int >= 150000 THEN 'mako.migrated_stream'
            ELSE '(SELECT n.*, s.stream_id FROM mako.snapshot n JOIN mako.stream s USING (stream_no))' END AS migrated \gset
CREATE TEMPORARY TABLE call (n int GENERATED ALWAYS AS IDENTITY, statement text);
INSERT INTO call (statement) VALUES
  ('SELECT * FROM mako_state({moved})'),
  ('SELECT * FROM mako_state({stayed})'),
  ('SELECT * FROM mako_state({letters})'),
  ('SELECT sequence_number, state, payload FROM mako_resume({moved})'),
  ('SELECT sequence_number, state, payload FROM mako_resume({repointed})'),
  ('SELECT sequence_number, payload FROM mako_load({moved})'),
  ('SELECT sequence_number, payload FROM mako_load({letters}, 1)'),
  ('SELECT sequence_number, state FROM mako_trace({moved})'),
  ('SELECT sequence_number, state FROM mako_trace({repointed})'),
  ('SELECT mako_take_snapshot({moved})'),
  ('SELECT mako_take_snapshot({letters})'),
  ('SELECT mako_save_snapshot({moved}, 2, ''t@FV2025-10-01'', 1, ''{"words": "saved"}'')'),
  ('SELECT mako_save_snapshot({moved}, 9, ''t@FV2025-10-01'', 1, ''{"words": "saved"}'')'),
  ('SELECT mako_save_snapshot({moved}, 2, ''t@FV2024-10-01'', 1, ''{"words": "saved"}'')'),
  ('SELECT mako_append({moved}, ''t@FV2025-10-01'', ''Said'', ''{"word": "x"}'')'),
  ('SELECT mako_append({moved}, ''t@FV2025-10-01'', ''Said'', ''{"word": "x"}'', 0)'),
  ('SELECT mako_append({moved}, ''t@FV2024-10-01'', ''Said'', ''{"word": "x"}'')'),
  ('SELECT mako_append({moved}, ''t@FV2024-10-01'', ''Said'', ''{"word": "x"}'', event_id => {event})'),
  ('SELECT mako_append({letters}, ''t@FV2024-10-01'', ''Said'', ''{"word": "x"}'', 1)'),
  ('SELECT mako_append_batch({stayed}, ''t@FV2024-10-01'', ARRAY[(''Said'', ''{"word": "y"}'', 1, NULL, NULL, NULL, NULL)]::mako_new_event[])'),
  ('SELECT mako_append_batch({stayed}, ''t@FV2024-10-01'', ARRAY[]::mako_new_event[], 7)'),
  ('SELECT mako_spawn(''t@FV2024-10-01'', {tenant}, {process})'),
  ('SELECT * FROM mako_lookup({tenant}, {process})'),
  ('SELECT * FROM mako_lookup({tenant}, {process}, ''FV2024-10-01'')'),
  ('SELECT * FROM mako_lookup({tenant}, {key})'),
  ('SELECT mako_register_key({tenant}, ''new'', {moved})'),
  ('SELECT mako_register_key({tenant}, {key}, {moved})'),
  ('SELECT mako_unregister_key({tenant}, {key})'),
  ('SELECT mako_add_tag({tenant}, ''new'', {moved})'),
  ('SELECT mako_add_tag({tenant}, {tag}, {stayed})'),
  ('SELECT * FROM mako_find_tag({tenant}, {tag})'),
  ('SELECT mako_remove_tag({tenant}, {tag}, {stayed})'),
  ('SELECT mako_stream_of({tenant}, {moved})'),
  ('SELECT * FROM mako_lookup({me}, {key})'),
  ('SELECT mako_register_key({me}, ''mine'', {moved})'),
  ('SELECT mako_register_key({me}, ''conversation'', {moved})'),
  ('SELECT mako_unregister_key({me}, {key})'),
  ('SELECT mako_add_tag({me}, ''mine'', {moved})'),
  ('SELECT * FROM mako_find_tag({me}, {tag})'),
  ('SELECT mako_remove_tag({me}, ''place'', {moved})'),
  ('INSERT INTO mako.registry (tenant_id, key, stream_no) VALUES ({me}, ''mine'', {number})'),
  ('INSERT INTO mako.correlation (tenant_id, tag, stream_no) VALUES ({me}, ''mine'', {number})'),
  ('SELECT * FROM ' || :'identity' || ' AS view WHERE stream_id = {moved}'),
  ('SELECT * FROM ' || :'migrated' || ' AS view WHERE stream_id = {moved}'),
  ('INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload) VALUES ({number}, 3, ''t@FV2025-10-01'', ''Said'', ''{}'')'),
  ('INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload) VALUES ({number}, 9, ''t@FV2024-10-01'', ''Said'', ''{}'')'),
  ('INSERT INTO mako.snapshot (stream_no, sequence_number, workflow_id, state_schema_version, state) VALUES ({number}, 2, ''t@FV2025-10-01'', 1, ''{}'')'),
  ('INSERT INTO mako.registry (tenant_id, key, stream_no) VALUES ({tenant}, ''new'', {number})'),
  ('INSERT INTO mako.correlation (tenant_id, tag, stream_no) VALUES ({tenant}, ''new'', {number})');

-- What a call says, without what tells the tenants apart.
CREATE FUNCTION pg_temp.anonymous(result text, mark text) RETURNS text LANGUAGE sql AS $$
  SELECT regexp_replace(replace(result, 'aaaaaaaa-0000-4000-8000-00000000000' || mark, 'OWNER'),
                        format('\m(letters/|only |place |eeeee1aa-0000-4000-8000-00000000000|[abcdA])%1$s|(?<=[abcdA])%1$s\M|\m7\d{5}\M', mark), '\1#', 'g') $$;

-- First that they do something: of the tenant's own processes, most succeed. Each call is undone.
CREATE FUNCTION pg_temp.tried(role text, mark text, statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  result text;
BEGIN
  result := pg_temp.run_as(role, ('aaaaaaaa-0000-4000-8000-00000000000' || mark)::uuid, statement);
  RAISE EXCEPTION USING ERRCODE = 'MKTST', MESSAGE = coalesce(result, '');
EXCEPTION WHEN SQLSTATE 'MKTST' THEN
  RETURN SQLERRM;
END
$$;
CREATE TEMPORARY TABLE own_result AS SELECT n, statement, pg_temp.tried('mako_test_app', '1', pg_temp.about(statement, '1')) AS result FROM call;
SELECT is(pg_temp.rows($$ SELECT statement, split_part(result, '|', 1) AS sqlstate FROM own_result WHERE result ~ '^[0-9A-Z]{5}\|' ORDER BY n $$),
$$SELECT mako_save_snapshot({moved}, 9, 't@FV2025-10-01', 1, '{"words": "saved"}')|22023
SELECT mako_save_snapshot({moved}, 2, 't@FV2024-10-01', 1, '{"words": "saved"}')|MK005
SELECT mako_append({moved}, 't@FV2025-10-01', 'Said', '{"word": "x"}', 0)|40001
SELECT mako_append({moved}, 't@FV2024-10-01', 'Said', '{"word": "x"}')|MK005
SELECT mako_append({moved}, 't@FV2024-10-01', 'Said', '{"word": "x"}', event_id => {event})|42710
SELECT mako_append_batch({stayed}, 't@FV2024-10-01', ARRAY[]::mako_new_event[], 7)|40001
SELECT mako_spawn('t@FV2024-10-01', {tenant}, {process})|MK007
SELECT mako_register_key({tenant}, {key}, {moved})|42710
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload) VALUES ({number}, 9, 't@FV2024-10-01', 'Said', '{}')|MK005
INSERT INTO mako.snapshot (stream_no, sequence_number, workflow_id, state_schema_version, state) VALUES ({number}, 2, 't@FV2025-10-01', 1, '{}')|23505$$,
          'of a tenant''s own processes, these are refused, and nothing else');
SELECT is(pg_temp.rows($$ SELECT statement, result FROM own_result WHERE statement ~ '(state|resume|load|trace)\(' ORDER BY n $$),
$$SELECT * FROM mako_state({moved})|("{""words"": ""A1b1""}",2,t@FV2025-10-01,1)
SELECT * FROM mako_state({stayed})|("{""words"": ""c1""}",1,t@FV2024-10-01,1)
SELECT * FROM mako_state({letters})|("{""words"": ""d1""}",1,t@FV2024-10-01,1)
SELECT sequence_number, state, payload FROM mako_resume({moved})|(2,"{""words"": ""A1b1""}",)
SELECT sequence_number, state, payload FROM mako_resume({repointed})|(0,,)
(1,,{})
SELECT sequence_number, payload FROM mako_load({moved})|(1,"{""word"": ""a1""}")
(2,"{""word"": ""b1""}")
SELECT sequence_number, payload FROM mako_load({letters}, 1)|
SELECT sequence_number, state FROM mako_trace({moved})|(1,"{""words"": ""a1""}")
(1,"{""words"": ""A1""}")
(2,"{""words"": ""A1b1""}")
SELECT sequence_number, state FROM mako_trace({repointed})|(1,)$$, 'he reads what is his');
SELECT isnt_empty($$ SELECT * FROM own_result WHERE statement ~ ' AS view ' AND result <> '' $$, 'views, too');

-- The other one gets the same of his, in the same session: nothing is kept that belongs to one of them.
SELECT is_empty($$ SELECT statement, own, result FROM own_result, pg_temp.tried('mako_test_app', '2', pg_temp.about(statement, '2', '2')) AS own
                   WHERE pg_temp.anonymous(own, '2') IS DISTINCT FROM pg_temp.anonymous(result, '1') $$, 'the other tenant gets the same of his');
SELECT is_empty($$ SELECT statement, again, result FROM own_result, pg_temp.tried('mako_test_app', '1', pg_temp.about(statement, '1')) AS again WHERE again <> result $$, 'and the first one still his');

----------------------------------------------------------------------------------------------------
-- A tenant and the processes of another one
----------------------------------------------------------------------------------------------------

SELECT set_eq('SELECT * FROM pg_temp.rows_now()', 'SELECT * FROM rows_before', 'so far nothing has changed');

-- Not undone.
CREATE TEMPORARY TABLE foreign_result AS
SELECT n, statement, pg_temp.as_a(pg_temp.about(statement, '2')) AS of_other, pg_temp.as_a(pg_temp.about(statement, '9')) AS of_nothing FROM call;

-- One test each.
SELECT is(pg_temp.anonymous(of_other, '2'), pg_temp.anonymous(of_nothing, '9'), 'as if it were not there: ' || statement) FROM foreign_result ORDER BY n;
SELECT is(pg_temp.rows($$ SELECT result, count(*)
                          FROM (SELECT regexp_replace(regexp_replace(coalesce(nullif(of_other, ''), 'no row'), 'tenant [-0-9a-f]{36}', 'tenant'),
                                                      '"(process|letters)/[^"]*"', '...') AS result FROM foreign_result) AS r
                          GROUP BY result ORDER BY result COLLATE "C" $$),
$$(f)|4
23503|insert or update on table "correlation" violates foreign key constraint "correlation_tenant_id_stream_no_fkey"|Key is not present in table "stream".|1
23503|insert or update on table "registry" violates foreign key constraint "registry_tenant_id_stream_no_fkey"|Key is not present in table "stream".|1
42501|new row violates row-level security policy for table "correlation"|1
42501|new row violates row-level security policy for table "event"|2
42501|new row violates row-level security policy for table "registry"|1
42501|new row violates row-level security policy for table "snapshot"|1
42501|new row violates row-level security policy for table "stream"|1
42704|stream ... does not exist|The stream of a process is process/<tenant id>/<process id>; mako_spawn() starts one.|21
42704|tenant has no stream ...|Keys and tags lead to streams of their own tenant only.|8
no row|8$$, 'that is all he gets');
SELECT set_eq('SELECT * FROM pg_temp.rows_now()', 'SELECT * FROM rows_before', 'and nothing has changed');
SELECT is(pg_temp.rows($$ SELECT count(*) > 0, count(*) FILTER (WHERE of_other LIKE '%stream "%" does not exist%') > 15 FROM foreign_result $$), 'true|true', 'most of it does not exist');

-- Whole tables.
SELECT is(pg_temp.as_a(format('SELECT count(*) > 0, count(*) FILTER (WHERE tenant_id <> %L) FROM %s AS r', :'a', relation)), '(t,0)', 'he sees nothing else of ' || relation)
FROM unnest(ARRAY['mako.stream', 'mako.registry', 'mako.correlation', :'identity']) AS relation;
SELECT is(pg_temp.as_a(format('SELECT count(*) FROM mako.%I', relation)), count, 'nor of mako.' || relation)
FROM (SELECT 'event' AS relation, format('(%s)', count(*)) AS count FROM mako.event JOIN mako.stream USING (stream_no) WHERE tenant_id = :'a'
      UNION ALL SELECT 'snapshot', format('(%s)', count(*)) FROM mako.snapshot JOIN mako.stream USING (stream_no) WHERE tenant_id = :'a'
      UNION ALL SELECT 'repointed', format('(%s)', count(*)) FROM mako.repointed JOIN mako.stream USING (stream_no) WHERE tenant_id = :'a') AS x;

-- What counts or migrates the streams of a version must see them all.
SELECT is(pg_temp.as_a($$ SELECT * FROM mako_coverage('FV2024-10-01') $$) LIKE '42501|query would be affected by row-level security policy%', true, 'the coverage of a version is not for a tenant');
GRANT EXECUTE ON FUNCTION mako_migrate, mako_migrate_version, mako_retire, mako_adopt_events TO mako_test_app;
GRANT SELECT, UPDATE ON mako.stream TO mako_test_app;
GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA mako TO mako_test_app;
SELECT is(pg_temp.as_a(statement) LIKE '42501|%row-level security policy%', true, 'nor is ' || statement)
FROM unnest(ARRAY['SELECT mako_migrate(''t@FV2024-10-01'', ''t@FV2025-10-01'')', 'SELECT mako_migrate(''t@FV2024-10-01'', ''t@FV2025-10-01'', ''aaaaaaaa-0000-4000-8000-000000000001'')',
                  'SELECT mako_migrate_version(''FV2024-10-01'', ''FV2025-10-01'')', 'SELECT mako_retire(''FV2024-10-01'')']) AS statement;
SELECT set_eq('SELECT * FROM pg_temp.rows_now()', 'SELECT * FROM rows_before', 'nothing has changed');
-- With these privileges on the heads he could lock them himself, if he saw them.
SELECT is_empty($$ SELECT statement, again, of_other FROM foreign_result, pg_temp.tried('mako_test_app', '1', pg_temp.about(statement, '2')) AS again
                   WHERE statement ~ 'append|spawn' AND again IS DISTINCT FROM of_other $$, 'with more privileges, he still sees no more');

-- Ids and keys are a tenant's own: nobody learns that another one has the same.
SELECT is(pg_temp.as_a(format('SELECT mako_spawn(%L, %L, %L)', 't@FV2024-10-01', :'a', pg_temp.process(7))), format('(%s)', pg_temp.stream(:'a', 7)), 'a process with an id');
SELECT is(pg_temp.as_b(format('SELECT mako_spawn(%L, %L, %L)', 't@FV2024-10-01', :'b', pg_temp.process(7))), format('(%s)', pg_temp.stream(:'b', 7)), 'that another tenant uses as well');
SELECT is(pg_temp.as_a(format('SELECT mako_append(%L, ''t@FV2024-10-01'', ''Said'', ''{"word": "x"}'', event_id => %L)', pg_temp.stream(:'a', 7), pg_temp.event(:'b', 1))), '(1)', 'an event with the id of a foreign one');
SELECT is(pg_temp.as_a(format('SELECT mako_register_key(%L, ''only 2'', %L)', :'a', pg_temp.stream(:'a', 7))), '("")', 'a key that another tenant has');
SELECT is(pg_temp.as_a(format('SELECT stream_id FROM mako_lookup(%L, ''only 2'')', :'a')), format('(%s)', pg_temp.stream(:'a', 7)), 'leads the one');
SELECT is(pg_temp.as_b(format('SELECT stream_id FROM mako_lookup(%L, ''only 2'')', :'b')), format('(%s)', pg_temp.stream(:'b', 2)), 'and the other to his');

-- What goes over whole tables goes over his own part.
SELECT is(pg_temp.as_a('SELECT mako_expire_keys()'), '(1)', 'his expired keys go');
SELECT is(pg_temp.rows(format($$ SELECT tenant_id, count(*) FROM mako.registry WHERE key = 'expired' GROUP BY tenant_id $$)), :'b' || '|1', 'no others');
SELECT is(pg_temp.as_a('SELECT mako_prune_snapshots(0)'), '(2)', 'his periodic snapshots go');
SELECT is(pg_temp.rows(format($$ SELECT tenant_id, count(*) FROM mako.snapshot JOIN mako.stream USING (stream_no) WHERE run_id = 0 GROUP BY tenant_id $$)), :'b' || '|2', 'no others');
SELECT is(pg_temp.as_a(format('SELECT state FROM mako_state(%L)', pg_temp.stream(:'a', 1))), '("{""words"": ""A1b1""}")', 'and his states are what they were');

SELECT * FROM finish();
ROLLBACK;
