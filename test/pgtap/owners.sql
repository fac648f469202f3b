-- Definitions have owners: who registered them, and the owners of their functions. Nobody else changes them, and nobody lets functions work
-- on values of his own that he may not execute. Roles are remembered by identity. Runs in an empty database.

CREATE EXTENSION pgtap;
CREATE EXTENSION mako_migration;

SELECT plan(110);

\ir include/helpers.sql
SET client_min_messages = error;
SELECT mako_create_store();

-- Authors, one of a team, the owner of a library of functions, and another author.
CREATE ROLE owners_author;
CREATE ROLE owners_member IN ROLE owners_author;
CREATE ROLE owners_lib;
CREATE ROLE owners_librarian IN ROLE owners_lib;
CREATE ROLE owners_other;
SELECT format('GRANT EXECUTE ON FUNCTION %s TO owners_author, owners_member, owners_lib, owners_librarian, owners_other', p.oid::regprocedure)
FROM pg_proc p
WHERE p.proname IN ('mako_register_workflow', 'mako_unregister_workflow', 'mako_register_migration', 'mako_register_migrations',
                    'mako_unregister_migration', 'mako_exempt', 'mako_unexempt', 'mako_set_dispatch') \gexec
GRANT USAGE ON SCHEMA mako TO owners_author, owners_member, owners_lib, owners_librarian, owners_other;
GRANT SELECT ON ALL TABLES IN SCHEMA mako TO owners_author, owners_member, owners_lib, owners_librarian, owners_other;
CREATE SCHEMA lib;
GRANT USAGE, CREATE ON SCHEMA lib TO PUBLIC;

SET ROLE owners_author;
CREATE FUNCTION lib.apply(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS 'SELECT state || payload';
CREATE FUNCTION lib.upcast(event_type text, schema_version int, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS 'SELECT payload';
CREATE FUNCTION lib.migrate(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS 'SELECT state';
SELECT mako_register_workflow('a@FV2024-10-01', 'lib.apply', 'lib.upcast', initial_state => '{}'), mako_register_workflow('a@FV2025-10-01'), mako_register_workflow('a@FV2026-10-01');
SELECT mako_register_migration('a@FV2024-10-01', 'a@FV2025-10-01', 'lib.migrate'), mako_register_migration('a@FV2025-10-01', 'a@FV2026-10-01');
SELECT mako_exempt('a@FV2026-10-01', 'kept');
SET ROLE owners_other;
CREATE FUNCTION lib.forged(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT '{"forged": true}'::jsonb $$;
CREATE FUNCTION lib.forge(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT '{"forged": true}'::jsonb $$;
SELECT mako_register_workflow('o@FV2024-10-01'), mako_register_workflow('o@FV2025-10-01');
RESET ROLE;

----------------------------------------------------------------------------------------------------
-- Who may change a definition
----------------------------------------------------------------------------------------------------

CREATE TEMPORARY TABLE change (n int GENERATED ALWAYS AS IDENTITY, what text, subject text, statement text);
INSERT INTO change (what, subject, statement) VALUES
  ('replacing a workflow', 'workflow "a@FV2024-10-01"', $$SELECT mako_register_workflow('a@FV2024-10-01', replace => true)$$),
  ('unregistering a workflow', 'workflow "a@FV2026-10-01"', $$SELECT mako_unregister_migration('a@FV2025-10-01', 'a@FV2026-10-01'), mako_unregister_workflow('a@FV2026-10-01')$$),
  ('its dispatch', 'workflow "a@FV2024-10-01"', $$SELECT mako_set_dispatch('a@FV2024-10-01', 'pinned')$$),
  ('an exemption', 'workflow "a@FV2024-10-01"', $$SELECT mako_exempt('a@FV2024-10-01', 'because I can')$$),
  ('taking an exemption back', 'workflow "a@FV2026-10-01"', $$SELECT mako_unexempt('a@FV2026-10-01')$$),
  ('a step from a workflow', 'workflow "a@FV2024-10-01"', $$SELECT mako_register_migration('a@FV2024-10-01', 'a@FV2026-10-01')$$),
  ('steps of many', 'workflow "a@FV2026-10-01"', $$SELECT mako_register_migrations('FV2026-10-01', 'FV2024-10-01', '{a}')$$),
  ('replacing a step', 'state migration "a@FV2024-10-01 -> a@FV2025-10-01"', $$SELECT mako_register_migration('a@FV2024-10-01', 'a@FV2025-10-01', replace => true)$$),
  ('unregistering a step', 'state migration "a@FV2024-10-01 -> a@FV2025-10-01"', $$SELECT mako_unregister_migration('a@FV2024-10-01', 'a@FV2025-10-01')$$);

SELECT matches(pg_temp.error_as('owners_other', statement), '^42501\|permission denied for ' ||
               CASE what WHEN 'unregistering a workflow' THEN 'state migration "a@FV2025-10-01 -> a@FV2026-10-01"' ELSE subject END ||
               '\|It was registered by role "owners_author"\.\|It takes the privileges of that role, of all owners of its functions, or of the extension''s owner\. Use SET ROLE if you have them\.$',
               'another author: ' || what)
FROM change ORDER BY n;
SELECT is(pg_temp.error_as(role, statement), NULL, role || ': ' || what)
FROM change, (VALUES ('owners_author'), ('owners_member')) r (role) ORDER BY r.role, n;
SELECT is(pg_temp.error(statement), NULL, 'superuser: ' || what) FROM change ORDER BY n;
SELECT matches(pg_temp.error_as('owners_other', $$SELECT mako_unregister_workflow('a@FV2026-10-01')$$), '^42501\|permission denied for workflow', 'nor a workflow by itself');
SELECT is(pg_temp.error_as('owners_other', $$SELECT mako_register_workflow('a@FV2024-10-01', 'lib.forged', initial_state => '{}')$$),
          '42710|workflow "a@FV2024-10-01" is already registered with another definition|Register it with replace => true to replace it.', 'first, it is there already');
SELECT is(pg_temp.error_as('owners_other', $$SELECT mako_register_workflow('a@FV2025-10-01')$$), NULL, 'the same again is nothing');
SELECT is(registered_by, 'owners_author', 'nor a change of owner') FROM mako_workflow WHERE workflow_id = 'a@FV2025-10-01';
SELECT is(pg_temp.error_as('owners_other', $$SELECT mako_register_workflow('a@FV2027-10-01')$$), NULL, 'a new version is no change');

-- A step decides about two workflows.
SELECT mako_register_workflow('o@FV2026-10-01');
SELECT is(pg_temp.error_as('owners_other', $$SELECT mako_register_migration('o@FV2024-10-01', 'o@FV2025-10-01', 'lib.forge')$$), NULL, 'a step between two of one''s own');
SELECT matches(pg_temp.error_as('owners_other', format('SELECT mako_register_migration(%L, %L, ''lib.forge'')', source, target)), '^42501\|permission denied for workflow "o@FV2026-10-01"\|It was registered by role "' || current_user || '"', what)
FROM (VALUES ('o@FV2026-10-01', 'o@FV2024-10-01', 'not from another one''s'), ('o@FV2024-10-01', 'o@FV2026-10-01', 'nor to one')) x (source, target, what);

-- The owners of its functions, all of them.
SET ROLE owners_lib;
CREATE FUNCTION lib.apply_lib(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS 'SELECT state || payload';
RESET ROLE;
SELECT mako_register_workflow('l@FV2024-10-01', 'lib.apply_lib', initial_state => '{}'), mako_register_workflow('l@FV2025-10-01', 'lib.apply_lib', 'lib.upcast', initial_state => '{}');
SELECT is(pg_temp.error_as('owners_librarian', $$SELECT mako_set_dispatch('l@FV2024-10-01', 'pinned')$$), NULL, 'who could change the functions anyway may change the definition');
SELECT matches(pg_temp.error_as('owners_librarian', $$SELECT mako_set_dispatch('l@FV2025-10-01', 'pinned')$$), '^42501\|', 'not if another function is another one''s');
SELECT matches(pg_temp.error_as('owners_librarian', $$SELECT mako_set_dispatch('o@FV2026-10-01', 'pinned')$$), '^42501\|', 'nor without functions');

-- The extension's owner.
UPDATE pg_extension SET extowner = 'owners_author'::regrole WHERE extname = 'mako_migration';
ALTER TABLE mako_workflow OWNER TO owners_author;
ALTER TABLE mako_exemption OWNER TO owners_author;
SELECT is(pg_temp.error_as('owners_member', $$SELECT mako_exempt('o@FV2024-10-01', 'no longer used')$$), NULL, 'the extension''s owner may change all definitions');
SELECT is(pg_temp.error_as('owners_other', $$SELECT mako_exempt('o@FV2024-10-01', 'no longer used')$$), NULL, 'beside the one who registered');
UPDATE pg_extension SET extowner = current_user::regrole WHERE extname = 'mako_migration';
ALTER TABLE mako_workflow OWNER TO CURRENT_USER;
ALTER TABLE mako_exemption OWNER TO CURRENT_USER;

-- Exemptions of what is not registered.
INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('s', 'x@FV2024-10-01');
SET ROLE owners_other;
SELECT mako_exempt('x@FV2024-10-01', 'not of ours');
RESET ROLE;
SELECT is(exempted_by, 'owners_other', 'everybody may exempt what is not registered') FROM mako_exemption WHERE workflow_id = 'x@FV2024-10-01';
SELECT is(pg_temp.error_as('owners_author', $$SELECT mako_unexempt('x@FV2024-10-01')$$),
          '42501|permission denied for the exemption of "x@FV2024-10-01"|It was made by role "owners_other".|It takes the privileges of that role, of all owners of its functions, or of the extension''s owner. Use SET ROLE if you have them.',
          'which is his then');
SELECT matches(pg_temp.error_as('owners_author', $$SELECT mako_exempt('x@FV2024-10-01', 'mine')$$), '^42501\|', 'nor can it be replaced');
SELECT is(pg_temp.error_as('owners_other', $$SELECT mako_unexempt('x@FV2024-10-01')$$), NULL, 'except by himself');

----------------------------------------------------------------------------------------------------
-- A role is an identity, not a name
----------------------------------------------------------------------------------------------------

ALTER ROLE owners_author RENAME TO owners_renamed;
SELECT is(mako_fold('a@FV2024-10-01', '[{"event_type": "E", "payload": {"a": 1}}]'), '{"a": 1}', 'a renamed owner of functions is the same role');
SELECT is_empty($$ SELECT * FROM mako_check() WHERE severity = 'error' AND code <> 'workflow_not_registered' $$, 'which mako_check() knows');
SELECT is(pg_temp.error_as('owners_renamed', $$SELECT mako_set_dispatch('a@FV2025-10-01', 'pinned')$$), NULL, 'and so is who registered');
SELECT matches(pg_temp.error_as('owners_other', $$SELECT mako_set_dispatch('a@FV2025-10-01', 'pinned')$$), '\|It was registered by role "owners_renamed"\.\|', 'whose name is that of today');
SELECT is(pg_temp.error_as('owners_renamed', $$SELECT mako_register_workflow('a@FV2024-10-01', 'lib.apply', 'lib.upcast', initial_state => '{}')$$), NULL, 'the same registration is the same');
CREATE ROLE owners_author;
GRANT USAGE ON SCHEMA mako TO owners_author;
SELECT is(pg_temp.error_as('owners_author', $$SELECT mako_set_dispatch('a@FV2025-10-01', 'pinned')$$) IS NULL, false, 'another role of the old name is another role');
ALTER FUNCTION lib.apply OWNER TO owners_author;
SELECT is(pg_temp.error($$SELECT mako_fold('a@FV2024-10-01', '[]')$$),
          '42501|function lib.apply(pg_catalog.jsonb,pg_catalog.text,pg_catalog.jsonb) has another owner than when it was registered|It would run with the rights of "owners_author"; registered was "owners_author".|Register it again with replace => true.',
          'also as the owner of functions');
SELECT is((SELECT string_agg(code || ' ' || subject, ', ') FROM mako_check() WHERE severity = 'error' AND code <> 'workflow_not_registered'), 'owner_changed a@FV2024-10-01', 'which mako_check() knows, too');
SELECT is(pg_temp.error($$SELECT mako_register_workflow('a@FV2024-10-01', 'lib.apply', 'lib.upcast', initial_state => '{}')$$),
          '42710|workflow "a@FV2024-10-01" is already registered with another definition|Register it with replace => true to replace it.', 'the same function of another owner is another definition');
SELECT lives_ok($$ SELECT mako_register_workflow('a@FV2024-10-01', 'lib.apply', 'lib.upcast', initial_state => '{}', replace => true) $$, 'that can be registered');
SELECT is(mako_fold('a@FV2024-10-01', '[{"event_type": "E", "payload": {"a": 1}}]'), '{"a": 1}', 'and is used then');
ALTER FUNCTION lib.apply OWNER TO owners_renamed;
SELECT mako_register_workflow('a@FV2024-10-01', 'lib.apply', 'lib.upcast', initial_state => '{}', replace => true);

-- In another cluster, the name decides: what was dumped is restored there.
BEGIN;
DROP OWNED BY owners_author;
DROP ROLE owners_author;
ALTER ROLE owners_renamed RENAME TO owners_author;
UPDATE mako_workflow SET function_owner = array_replace(function_owner, 'owners_renamed', 'owners_author'),
  function_owner_identity = ARRAY(SELECT '1@1' FROM unnest(function_owner)), registered_by_identity = '1@1';
SELECT is(mako_fold('a@FV2024-10-01', '[{"event_type": "E", "payload": {"a": 1}}]'), '{"a": 1}', 'in another cluster, a role of this name');
SELECT is(pg_temp.error_as('owners_member', $$SELECT mako_set_dispatch('a@FV2025-10-01', 'pinned')$$), NULL, 'is who registered there, too');
ROLLBACK;

-- A helper that runs as another role. Its owner is remembered behind those of the functions.
SET ROLE owners_lib;
CREATE FUNCTION lib.helper(state jsonb) RETURNS jsonb LANGUAGE sql STABLE SECURITY DEFINER AS 'SELECT state';
SET ROLE owners_other;
CREATE FUNCTION lib.apply_helped(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS 'SELECT lib.helper(state || payload)';
CREATE FUNCTION lib.in_flight_helped(state jsonb) RETURNS boolean LANGUAGE sql STABLE AS 'SELECT lib.helper(state) IS NOT NULL';
CREATE FUNCTION lib.migrate_helped(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS 'SELECT lib.helper(state)';
RESET ROLE;
-- Registered by a superuser, so that only the owners of functions have rights besides.
CREATE TEMPORARY TABLE helped (n int GENERATED ALWAYS AS IDENTITY, kind text, name text, used text, registered text, unregistered text, function_owner text);
INSERT INTO helped (kind, name, used, registered, unregistered, function_owner) VALUES
  ('workflow', 'h@FV2024-10-01', $$SELECT mako_fold('h@FV2024-10-01', '[{"event_type": "E", "payload": {"a": 1}}]')$$,
   $$SELECT mako_register_workflow('h@FV2024-10-01', 'lib.apply_helped', in_flight => 'lib.in_flight_helped', initial_state => '{}'%s)$$,
   $$SELECT mako_unregister_workflow('h@FV2024-10-01')$$, '{owners_other,owners_other,owners_lib,owners_lib}'),
  ('workflow', 'h@FV2025-10-01', $$SELECT mako_fold('h@FV2025-10-01', '[]')$$,
   $$SELECT mako_register_workflow('h@FV2025-10-01', 'lib.apply_helped', initial_state => '{}'%s)$$,
   $$SELECT mako_unregister_workflow('h@FV2025-10-01')$$, '{owners_other,owners_lib}'),
  ('state migration', 'h@FV2024-10-01 -> h@FV2025-10-01', $$SELECT mako_migrate_state('h@FV2024-10-01', 'h@FV2025-10-01', '{}')$$,
   $$SELECT mako_register_migration('h@FV2024-10-01', 'h@FV2025-10-01', 'lib.migrate_helped'%s)$$,
   $$SELECT mako_unregister_migration('h@FV2024-10-01', 'h@FV2025-10-01')$$, '{owners_other,owners_lib}');
SELECT format(registered, '') FROM helped ORDER BY n \gexec
CREATE FUNCTION pg_temp.helped_owners(name text) RETURNS text LANGUAGE sql AS
$$ SELECT w.function_owner::text FROM mako_workflow w WHERE w.workflow_id::text = name
   UNION ALL SELECT m.function_owner::text FROM mako_state_migration m WHERE m.source_wf || ' -> ' || m.target_wf = name $$;
CREATE FUNCTION pg_temp.helped_findings() RETURNS text LANGUAGE sql AS
$$ SELECT string_agg(code || ' ' || subject, ', ') FROM mako_check() WHERE severity = 'error' AND subject ~ '^h@' $$;

SELECT is(pg_temp.helped_owners(name), function_owner, name || ': whose its helpers are is kept') FROM helped ORDER BY n;
ALTER ROLE owners_lib RENAME TO owners_lib_renamed;
SELECT is(pg_temp.error(used), NULL, name || ': the renamed owner of a helper is the same role') FROM helped ORDER BY n;
SELECT is(pg_temp.helped_findings(), NULL, 'which mako_check() knows');
SELECT is(pg_temp.error(format(registered, '')), NULL, name || ': and so is the same registration') FROM helped ORDER BY n;
SELECT format(registered, ', replace => true') FROM helped ORDER BY n \gexec
SELECT is(pg_temp.helped_owners(name), function_owner, name || ': which writes nothing') FROM helped ORDER BY n;

-- The helper's owner has no rights over the definition. The owner of the functions has them without his.
SELECT matches(pg_temp.error_as('owners_lib_renamed', statement), '^42501\|permission denied for ' || kind || ' "' || name || '"\|', name || ': the owner of a helper may not ' || what)
FROM helped, LATERAL (VALUES ('unregister it', unregistered),
                             ('replace it', CASE kind WHEN 'workflow' THEN format('SELECT mako_register_workflow(%L, replace => true)', name)
                                            ELSE $$SELECT mako_register_migration('h@FV2024-10-01', 'h@FV2025-10-01', replace => true)$$ END)) x (what, statement)
ORDER BY n, what;
SELECT matches(pg_temp.error_as('owners_lib_renamed', $$SELECT mako_set_dispatch('h@FV2025-10-01', 'pinned')$$), '^42501\|', 'nor set its dispatch');
SELECT is(pg_temp.error_as('owners_other', $$SELECT mako_set_dispatch('h@FV2025-10-01', 'pinned')$$), NULL, 'the owner of the functions may');
SELECT is(pg_temp.error_as('owners_other', unregistered), NULL, 'and unregister a step') FROM helped WHERE kind = 'state migration';

-- In another cluster, the name decides here, too.
BEGIN;
UPDATE mako_workflow SET function_owner_identity = ARRAY(SELECT '1@1' FROM unnest(function_owner)), registered_by_identity = '1@1';
SELECT matches(pg_temp.error($$SELECT mako_fold('h@FV2025-10-01', '[]')$$), '^42501\|function lib\.helper\(pg_catalog\.jsonb\) has another owner', 'in another cluster, a role of another name is not the owner of a helper');
ALTER ROLE owners_lib_renamed RENAME TO owners_lib;
SELECT is(pg_temp.error($$SELECT mako_fold('h@FV2025-10-01', '[]')$$), NULL, 'the one of this name is');
ROLLBACK;
ALTER ROLE owners_lib_renamed RENAME TO owners_lib;

-- Another owner is another definition.
ALTER FUNCTION lib.helper OWNER TO owners_author;
SELECT is(pg_temp.error(used),
          '42501|function lib.helper(pg_catalog.jsonb) has another owner than when it was registered|It would run with the rights of "owners_author"; registered was "owners_lib".|Register it again with replace => true.',
          name || ': a helper of another owner is refused') FROM helped ORDER BY n;
SELECT is(pg_temp.helped_findings(), 'owner_changed h@FV2024-10-01, owner_changed h@FV2024-10-01 -> h@FV2025-10-01, owner_changed h@FV2025-10-01', 'which mako_check() knows');
SELECT matches(pg_temp.error(format(registered, '')), '^42710\|' || kind || ' "' || name || '" is already registered with another definition', name || ': it is another definition')
FROM helped WHERE kind = 'workflow' ORDER BY n;
SELECT format(registered, ', replace => true') FROM helped ORDER BY n \gexec
SELECT is(pg_temp.error(used), NULL, name || ': that can be registered, and is used then') FROM helped ORDER BY n;
SELECT is(pg_temp.helped_findings(), NULL, 'without a finding');

-- One that is gone.
SET ROLE owners_other;
SELECT mako_register_workflow('g@FV2024-10-01');
RESET ROLE;
BEGIN;
DROP OWNED BY owners_other;
DROP ROLE owners_other;
SELECT matches(pg_temp.error_as('owners_lib', $$SELECT mako_set_dispatch('g@FV2024-10-01', 'pinned')$$), '^42501\|permission denied for workflow "g@FV2024-10-01"\|It was registered by role "owners_other", which does not exist any more\.\|', 'nobody is a role that is gone');
SELECT is(pg_temp.error($$SELECT mako_set_dispatch('g@FV2024-10-01', 'pinned')$$), NULL, 'then the extension''s owner decides');
ROLLBACK;

----------------------------------------------------------------------------------------------------
-- Functions work on the caller's values only if he may execute them
----------------------------------------------------------------------------------------------------

\set fold 'SELECT mako_fold(''a@FV2024-10-01'', ''[]'')'
\set migrate 'SELECT mako_migrate_state(''a@FV2024-10-01'', ''a@FV2026-10-01'', ''{}'')'
INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('a', 'a@FV2024-10-01');
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload) SELECT stream_no, 1, workflow_id, 'E', '{"a": 1}' FROM mako.stream WHERE stream_id = 'a';
SELECT is(pg_temp.error_as('owners_other', :'fold'), NULL, 'everybody may execute what PUBLIC may');
REVOKE EXECUTE ON FUNCTION lib.apply, lib.migrate FROM PUBLIC;
SELECT is(pg_temp.error_as('owners_other', :'fold'), '42501|permission denied for function apply', 'mako_fold() executes apply');
SELECT is(pg_temp.error_as('owners_other', :'migrate'), '42501|permission denied for function migrate', 'mako_migrate_state() executes migrate, of every step');
SELECT is(pg_temp.error_as('owners_other', $$SELECT mako_migrate_state('a@FV2025-10-01', 'a@FV2026-10-01', '{}')$$), NULL, 'and nothing else');
SELECT is(pg_temp.error_as('owners_other', $$SELECT mako_state('a')$$), NULL, 'states of stored events are for those who may read these');
SELECT is(pg_temp.error_as('owners_member', :'fold'), NULL, 'who has the owner''s rights may');
GRANT EXECUTE ON FUNCTION lib.apply, lib.migrate TO owners_other;
REVOKE EXECUTE ON FUNCTION lib.upcast FROM PUBLIC;
SELECT is(pg_temp.error_as('owners_other', :'fold'), '42501|permission denied for function upcast', 'and upcast');
SELECT is(pg_temp.error_as('owners_other', :'migrate'), NULL, 'which migrating a state does not');

SELECT * FROM finish();
DROP OWNED BY owners_author, owners_renamed, owners_member, owners_lib, owners_librarian, owners_other CASCADE;
DROP ROLE owners_author, owners_renamed, owners_member, owners_lib, owners_librarian, owners_other;
