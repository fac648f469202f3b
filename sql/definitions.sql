-- Registering workflows and state migrations, what is refused, and what the fingerprint sees.

\pset format unaligned
\pset tuples_only on
\pset null '(null)'

CREATE SCHEMA def;
CREATE FUNCTION def.apply(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS
  $$ SELECT state || payload $$;
CREATE FUNCTION def.upcast(event_type text, schema_version int, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS
  $$ SELECT payload $$;
CREATE FUNCTION def.migrate(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT state || '{"migrated": true}' $$;
CREATE FUNCTION def.in_flight(state jsonb) RETURNS boolean LANGUAGE sql STABLE AS $$ SELECT NOT state ? 'done' $$;

--
-- Workflows
--

SELECT mako_register_workflow('w@FV2024-10-01', 'def.apply', 'def.upcast', 'def.in_flight', '{}');
SELECT mako_register_workflow('w@FV2025-10-01', apply => 'def.apply(jsonb, text, jsonb)', initial_state => '{"status": "New"}',
  state_schema_version => 2);
SELECT mako_register_workflow('w@FV2026-10-01');
SELECT workflow_id, apply, upcast, in_flight, initial_state, state_schema_version, length(fingerprint) FROM mako_workflow
  ORDER BY workflow_id;

-- The same again is a no-op, something else needs replace
SELECT mako_register_workflow('w@FV2026-10-01');
SELECT test.failure($$ SELECT mako_register_workflow('w@FV2026-10-01', state_schema_version => 2) $$);
SELECT test.failure($$ SELECT mako_register_workflow('w@FV2026-10-01', 'def.apply', initial_state => '{}') $$);
SELECT mako_register_workflow('w@FV2026-10-01', 'def.apply', initial_state => '{}', replace => true);
SELECT apply FROM mako_workflow WHERE workflow_id = 'w@FV2026-10-01';
SELECT mako_register_workflow('w@FV2026-10-01', replace => true);
SELECT apply FROM mako_workflow WHERE workflow_id = 'w@FV2026-10-01';

-- Arguments that do not fit together
SELECT test.failure($$ SELECT mako_register_workflow('w') $$);
SELECT test.failure($$ SELECT mako_register_workflow(NULL) $$);
SELECT test.failure($$ SELECT mako_register_workflow('n@FV2024-10-01', 'def.apply') $$);
SELECT test.failure($$ SELECT mako_register_workflow('n@FV2024-10-01', upcast => 'def.upcast') $$);
SELECT test.failure($$ SELECT mako_register_workflow('n@FV2024-10-01', state_schema_version => 0) $$);

-- Functions that are not there, or more than once
SELECT test.failure($$ SELECT mako_register_workflow('n@FV2024-10-01', 'apply', initial_state => '{}') $$);
SELECT test.failure($$ SELECT mako_register_workflow('n@FV2024-10-01', 'def.nothing', initial_state => '{}') $$);
SELECT test.failure($$ SELECT mako_register_workflow('n@FV2024-10-01', 'nowhere.apply', initial_state => '{}') $$);
SELECT test.failure($$ SELECT mako_register_workflow('n@FV2024-10-01', 'def.apply(jsonb)', initial_state => '{}') $$);
CREATE DOMAIN def.state AS jsonb;
CREATE FUNCTION def.apply(state def.state, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS
  $$ SELECT state::jsonb || payload $$;
SELECT test.failure($$ SELECT mako_register_workflow('n@FV2024-10-01', 'def.apply', initial_state => '{}') $$);
SELECT mako_register_workflow('n@FV2024-10-01', 'def.apply(def.state, text, jsonb)', initial_state => '{}');
SELECT apply FROM mako_workflow WHERE workflow_id = 'n@FV2024-10-01';
SELECT mako_unregister_workflow('n@FV2024-10-01');
DROP FUNCTION def.apply(def.state, text, jsonb);

-- Wrong signatures, one for every role and way
SELECT test.failure($$ SELECT mako_register_workflow('n@FV2024-10-01', 'def.upcast', initial_state => '{}') $$);
SELECT test.failure($$ SELECT mako_register_workflow('n@FV2024-10-01', 'def.apply', 'def.apply', initial_state => '{}') $$);
SELECT test.failure($$ SELECT mako_register_workflow('n@FV2024-10-01', in_flight => 'def.migrate') $$);
SELECT test.failure($$ SELECT mako_register_migration('w@FV2024-10-01', 'w@FV2025-10-01', 'def.in_flight') $$);
CREATE FUNCTION def.set(state jsonb, event_type text, payload jsonb) RETURNS SETOF jsonb LANGUAGE sql STABLE AS
  $$ SELECT payload $$;
SELECT test.failure($$ SELECT mako_register_workflow('n@FV2024-10-01', 'def.set', initial_state => '{}') $$);
CREATE PROCEDURE def.procedure(state jsonb) LANGUAGE sql AS $$ SELECT 1 $$;
SELECT test.failure($$ SELECT mako_register_migration('w@FV2024-10-01', 'w@FV2025-10-01', 'def.procedure(jsonb)') $$);
SELECT test.failure($$ SELECT mako_register_migration('w@FV2024-10-01', 'w@FV2025-10-01', 'jsonb_agg') $$);
CREATE FUNCTION def.volatile(state jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT state $$;
SELECT test.failure($$ SELECT mako_register_migration('w@FV2024-10-01', 'w@FV2025-10-01', 'def.volatile') $$);

-- A body that needs a path of its own cannot be read
CREATE FUNCTION def.unqualified_helper(value jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT value $$;
SET search_path = public, def;
CREATE FUNCTION def.unqualified(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT unqualified_helper(state) $$;
RESET search_path;
SELECT test.failure($$ SELECT mako_register_migration('w@FV2024-10-01', 'w@FV2025-10-01', 'def.unqualified') $$);
ALTER FUNCTION def.unqualified SET search_path = def;
SELECT mako_register_migration('w@FV2024-10-01', 'w@FV2025-10-01', 'def.unqualified');
SELECT mako_unregister_migration('w@FV2024-10-01', 'w@FV2025-10-01');

--
-- State migrations
--

SELECT mako_register_migration('w@FV2024-10-01', 'w@FV2025-10-01', 'def.migrate');
SELECT mako_register_migration('w@FV2025-10-01', 'w@FV2026-10-01');
SELECT source_wf, target_wf, migrate, length(fingerprint) FROM mako_state_migration ORDER BY source_wf, target_wf;
SELECT mako_register_migration('w@FV2024-10-01', 'w@FV2025-10-01', 'def.migrate');
SELECT test.failure($$ SELECT mako_register_migration('w@FV2024-10-01', 'w@FV2025-10-01') $$);
SELECT mako_register_migration('w@FV2024-10-01', 'w@FV2025-10-01', replace => true);
SELECT mako_register_migration('w@FV2024-10-01', 'w@FV2025-10-01', 'def.migrate', replace => true);

SELECT test.failure($$ SELECT mako_register_migration(NULL, 'w@FV2025-10-01') $$);
SELECT test.failure($$ SELECT mako_register_migration('w@FV2024-10-01', NULL) $$);
SELECT test.failure($$ SELECT mako_register_migration('w@FV2024-10-01', 'w@FV2024-10-01') $$);
SELECT test.failure($$ SELECT mako_register_migration('w@FV2024-10-01', 'v@FV2025-10-01') $$);
SELECT test.failure($$ SELECT mako_register_migration('w@FV2023-10-01', 'w@FV2025-10-01') $$);
SELECT test.failure($$ SELECT mako_register_migration('w@FV2024-10-01', 'w@FV2027-10-01') $$);
SELECT test.failure($$ SELECT mako_register_migration('w@FV2024-10-01', 'w@FV2026-10-01', 'def.nothing') $$);

-- Forgetting what is referred to, and what is not
SELECT test.failure($$ SELECT mako_unregister_workflow('w@FV2025-10-01') $$);
SELECT mako_register_workflow('n@FV2024-10-01');
SELECT mako_unregister_workflow('n@FV2024-10-01');
SELECT test.failure($$ SELECT mako_unregister_workflow('n@FV2024-10-01') $$);
SELECT test.failure($$ SELECT mako_unregister_workflow(NULL) $$);
SELECT mako_unregister_migration('w@FV2025-10-01', 'w@FV2026-10-01');
SELECT test.failure($$ SELECT mako_unregister_migration('w@FV2025-10-01', 'w@FV2026-10-01') $$);
SELECT test.failure($$ SELECT mako_unregister_migration(NULL, 'w@FV2026-10-01') $$);
SELECT test.failure($$ SELECT mako_unregister_migration('w@FV2025-10-01', NULL) $$);
SELECT mako_unregister_workflow('w@FV2026-10-01');
SELECT workflow_id FROM mako_workflow ORDER BY workflow_id;

--
-- Privileges
--

CREATE ROLE regress_mako_author;
CREATE ROLE regress_mako_operator;
CREATE FUNCTION def.authored(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT state $$;
ALTER FUNCTION def.authored OWNER TO regress_mako_author;
GRANT USAGE ON SCHEMA def TO regress_mako_author, regress_mako_operator;
SET ROLE regress_mako_operator;
SELECT test.failure($$ SELECT mako_register_workflow('p@FV2024-10-01') $$);
SELECT test.failure($$ INSERT INTO mako_workflow (workflow_id) VALUES ('p@FV2024-10-01') $$);
SELECT test.failure($$ UPDATE mako_state_migration SET migrate = NULL $$);
SELECT count(*) FROM mako_workflow;
RESET ROLE;
GRANT EXECUTE ON FUNCTION mako_register_workflow, mako_register_migration, mako_unregister_workflow,
  mako_unregister_migration TO regress_mako_operator;
SET ROLE regress_mako_operator;
SELECT mako_register_workflow('p@FV2024-10-01');
SELECT mako_register_workflow('p@FV2025-10-01');
SELECT test.failure($$ SELECT mako_register_migration('p@FV2024-10-01', 'p@FV2025-10-01', 'def.authored') $$);
RESET ROLE;
GRANT regress_mako_author TO regress_mako_operator;
SET ROLE regress_mako_operator;
SELECT mako_register_migration('p@FV2024-10-01', 'p@FV2025-10-01', 'def.authored');
RESET ROLE;
SELECT source_wf, migrate, function_owner, registered_by FROM mako_state_migration WHERE source_wf = 'p@FV2024-10-01';

--
-- The fingerprint: of a pair, and what it covers. What it is depends on roles, so only its changes are shown.
--

SELECT mako_fingerprint('w@FV2024-10-01', 'w@FV2025-10-01') ~ '^[0-9a-f]{64}$',
  mako_fingerprint('w@FV2024-10-01', 'w@FV2024-10-01') ~ '^[0-9a-f]{64}$';
SELECT mako_fingerprint(NULL, 'w@FV2025-10-01');
SELECT test.failure($$ SELECT mako_fingerprint('w@FV2025-10-01', 'w@FV2024-10-01') $$);
SELECT test.failure($$ SELECT mako_fingerprint('w@FV2024-10-01', 'w@FV2023-10-01') $$);

-- Helpers of helpers, a domain, another language
CREATE FUNCTION def.helper_of_helper(value jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT value $$;
CREATE FUNCTION def.helper(value jsonb) RETURNS jsonb LANGUAGE sql STABLE AS
  $$ SELECT CASE WHEN value IS NOT NULL THEN def.helper_of_helper(value) END $$;
ALTER DOMAIN def.state ADD CONSTRAINT object CHECK (jsonb_typeof(VALUE) = 'object');
CREATE FUNCTION def.apply_with_helpers(state def.state, event_type text, payload jsonb) RETURNS def.state
LANGUAGE sql STABLE AS $$ SELECT def.helper(payload) $$;
SELECT mako_register_workflow('f@FV2024-10-01', 'def.apply_with_helpers', initial_state => '{}');
SELECT mako_fold('f@FV2024-10-01', '[{"event_type": "E", "payload": {"a": 1}}]');

CREATE FUNCTION def.unseen(state jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN state; END $$;
ALTER FUNCTION def.unseen OWNER TO regress_mako_author;
SELECT mako_register_workflow('f@FV2025-10-01');
SELECT mako_register_migration('f@FV2024-10-01', 'f@FV2025-10-01', 'def.unseen');

-- A polymorphic helper is seen through in one call, not in another
CREATE FUNCTION def.polymorphic(a anyarray, b int DEFAULT 0) RETURNS int LANGUAGE sql STABLE AS $$ SELECT cardinality(a) + b $$;
CREATE FUNCTION def.seen(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT state || to_jsonb(def.polymorphic(ARRAY[1])) $$;
CREATE FUNCTION def.half_seen(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS
  $$ SELECT to_jsonb(def.polymorphic(ARRAY[1]) + def.polymorphic(most_common_vals, b => 1)) FROM pg_stats $$;
SELECT mako_register_migration('f@FV2024-10-01', 'f@FV2025-10-01', 'def.seen', replace => true);
SELECT mako_register_migration('f@FV2024-10-01', 'f@FV2025-10-01', 'def.half_seen', replace => true);
SELECT mako_register_migration('f@FV2024-10-01', 'f@FV2025-10-01', 'def.unseen', replace => true);

-- Every way in which a registered definition can have changed, each undone before the next
CREATE PROCEDURE test.changed(what text, change text, back text) LANGUAGE plpgsql AS $$
DECLARE
  before text := mako_fingerprint('f@FV2024-10-01', 'f@FV2025-10-01');
BEGIN
  EXECUTE change;
  RAISE INFO '% changed -> %', what, test.failure('SELECT mako_fingerprint(''f@FV2024-10-01'', ''f@FV2025-10-01'')');
  EXECUTE back;
  RAISE INFO '% restored -> % fingerprint', what,
    CASE WHEN mako_fingerprint('f@FV2024-10-01', 'f@FV2025-10-01') = before THEN 'the same' ELSE 'another' END;
END
$$;

CALL test.changed('a helper of a helper',
  $$ CREATE OR REPLACE FUNCTION def.helper_of_helper(value jsonb) RETURNS jsonb LANGUAGE sql STABLE AS 'SELECT value || ''{}''' $$,
  $$ CREATE OR REPLACE FUNCTION def.helper_of_helper(value jsonb) RETURNS jsonb LANGUAGE sql STABLE AS ' SELECT value ' $$);
CALL test.changed('a dropped helper',
  'DROP FUNCTION def.helper_of_helper',
  $$ CREATE FUNCTION def.helper_of_helper(value jsonb) RETURNS jsonb LANGUAGE sql STABLE AS ' SELECT value ' $$);
CALL test.changed('the volatility of a helper', 'ALTER FUNCTION def.helper IMMUTABLE', 'ALTER FUNCTION def.helper STABLE');
CALL test.changed('the strictness of a helper', 'ALTER FUNCTION def.helper STRICT',
  'ALTER FUNCTION def.helper CALLED ON NULL INPUT');
CALL test.changed('the owner of a helper',
  'ALTER FUNCTION def.helper OWNER TO regress_mako_author', format('ALTER FUNCTION def.helper OWNER TO %I', current_user));
CALL test.changed('the check of a domain',
  'ALTER DOMAIN def.state DROP CONSTRAINT object; ALTER DOMAIN def.state ADD CONSTRAINT object CHECK (VALUE IS NOT NULL)',
  'ALTER DOMAIN def.state DROP CONSTRAINT object; ALTER DOMAIN def.state ADD CONSTRAINT object CHECK (jsonb_typeof(VALUE) = ''object'')');
CALL test.changed('a domain that takes no null', 'ALTER DOMAIN def.state SET NOT NULL', 'ALTER DOMAIN def.state DROP NOT NULL');
CALL test.changed('a setting',
  'ALTER FUNCTION def.apply_with_helpers SET work_mem = ''4MB''', 'ALTER FUNCTION def.apply_with_helpers RESET work_mem');
CALL test.changed('the body of the function in another language',
  $$ CREATE OR REPLACE FUNCTION def.unseen(state jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE AS 'BEGIN RETURN NULL; END' $$,
  $$ CREATE OR REPLACE FUNCTION def.unseen(state jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE AS ' BEGIN RETURN state; END ' $$);
CALL test.changed('the owner of a registered function',
  'ALTER FUNCTION def.unseen OWNER TO regress_mako_operator', 'ALTER FUNCTION def.unseen OWNER TO regress_mako_author');
CALL test.changed('the name of a registered function',
  'ALTER FUNCTION def.unseen RENAME TO renamed', 'ALTER FUNCTION def.renamed RENAME TO unseen');
CALL test.changed('the volatility of a registered function', 'ALTER FUNCTION def.unseen VOLATILE',
  'ALTER FUNCTION def.unseen STABLE');
CALL test.changed('the result of a registered function',
  $$ DROP FUNCTION def.unseen; CREATE FUNCTION def.unseen(state jsonb) RETURNS text
    LANGUAGE plpgsql STABLE AS ' BEGIN RETURN state; END ' $$,
  $$ DROP FUNCTION def.unseen; CREATE FUNCTION def.unseen(state jsonb) RETURNS jsonb
    LANGUAGE plpgsql STABLE AS ' BEGIN RETURN state; END '; ALTER FUNCTION def.unseen OWNER TO regress_mako_author $$);
CALL test.changed('a dropped function',
  'DROP FUNCTION def.apply_with_helpers',
  $$ CREATE FUNCTION def.apply_with_helpers(state def.state, event_type text, payload jsonb) RETURNS def.state
    LANGUAGE sql STABLE AS ' SELECT def.helper(payload) ' $$);

-- After a change the registration says what is now, and the definition is good again
ALTER FUNCTION def.helper IMMUTABLE;
SELECT test.failure($$ SELECT mako_register_workflow('f@FV2024-10-01', 'def.apply_with_helpers', initial_state => '{}') $$);
SELECT test.failure($$ SELECT mako_register_migration('f@FV2024-10-01', 'f@FV2025-10-01', replace => true) $$);
SELECT mako_register_workflow('f@FV2024-10-01', 'def.apply_with_helpers', initial_state => '{}', replace => true);
SELECT mako_fold('f@FV2024-10-01', '[{"event_type": "E", "payload": {"a": 2}}]');

--
-- Unit tests of functions, without a store
--

SELECT mako_fold('w@FV2024-10-01', '[]'), mako_fold('w@FV2024-10-01',
  '[{"event_type": "A", "payload": {"a": 1}}, {"event_type": "B", "schema_version": 3, "payload": {"b": null}}]');
SELECT mako_migrate_state('w@FV2024-10-01', 'w@FV2025-10-01', '{"a": 1}'),
  mako_migrate_state('w@FV2024-10-01', 'w@FV2024-10-01', '"same"');
SELECT mako_fold(NULL, '[]'), mako_fold('w@FV2024-10-01', NULL), mako_migrate_state('w@FV2024-10-01', 'w@FV2025-10-01', NULL);
SELECT test.failure($$ SELECT mako_fold('w@FV2023-10-01', '[]') $$);
SELECT test.failure($$ SELECT mako_fold('p@FV2024-10-01', '[]') $$);
SELECT test.failure($$ SELECT mako_fold('w@FV2024-10-01', '{}') $$);
SELECT test.failure($$ SELECT mako_fold('w@FV2024-10-01', '1') $$);
SELECT test.failure($$ SELECT mako_fold('w@FV2024-10-01', '[1]') $$);
SELECT test.failure($$ SELECT mako_fold('w@FV2024-10-01', '[{}]') $$);
SELECT test.failure($$ SELECT mako_fold('w@FV2024-10-01', '[{"event_type": 1, "payload": {}}]') $$);
SELECT test.failure($$ SELECT mako_fold('w@FV2024-10-01', '[{"event_type": "A", "payload": {}}, {"event_type": "A"}]') $$);
SELECT test.failure($$ SELECT mako_fold('w@FV2024-10-01', '[{"event_type": "A", "schema_version": "1", "payload": {}}]') $$);
SELECT test.failure($$ SELECT mako_fold('w@FV2025-10-01', '[{"event_type": "A", "schema_version": 2, "payload": {}}]') $$);
SELECT test.failure($$ SELECT mako_migrate_state('w@FV2025-10-01', 'w@FV2024-10-01', '{}') $$);

-- Where the error is, and what the helpers for authors raise
CREATE FUNCTION def.strict_apply(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE event_type
    WHEN 'Require' THEN mako_required(payload, 'data', 'id')
    WHEN 'Reject' THEN mako_reject('not today')
  END $$;
SELECT mako_register_workflow('s@FV2024-10-01', 'def.strict_apply', initial_state => '{}');
SELECT mako_fold('s@FV2024-10-01', '[{"event_type": "Require", "payload": {"data": {"id": null}}}]');
SELECT mako_fold('s@FV2024-10-01',
  '[{"event_type": "Require", "payload": {"data": {"id": 1}}}, {"event_type": "Require", "payload": {"data": {}}}]');
SELECT mako_fold('s@FV2024-10-01', '[{"event_type": "Reject", "payload": {}}]');
SELECT mako_fold('s@FV2024-10-01', '[{"event_type": "Unknown", "payload": {}}]');
SELECT test.failure($$ SELECT mako_reject('100 % "no"') $$);
SELECT test.failure($$ SELECT mako_reject(NULL) $$);
SELECT test.failure($$ SELECT mako_required('{"a": [1]}', 'a', '1') $$);
SELECT test.failure($$ SELECT mako_required(NULL, 'a') $$);
SELECT test.failure($$ SELECT mako_required('{}', VARIADIC NULL::text[]) $$);
SELECT test.failure($$ SELECT mako_required('{}', 'a', NULL) $$);
SELECT mako_required('{"a": [1]}', 'a', '0');

--
-- Without the extension its functions say so
--

BEGIN;
SET LOCAL client_min_messages = warning;
DROP EXTENSION mako_migration CASCADE;
CREATE FUNCTION test.orphan(text, text) RETURNS text LANGUAGE c AS '$libdir/mako_migration', 'mako_fingerprint';
SELECT test.failure($$ SELECT test.orphan('w@FV2024-10-01', 'w@FV2025-10-01') $$);
ROLLBACK;

-- A domain over a domain is covered too, and what a function in the extension's own schema calls is not
BEGIN;
CREATE DOMAIN def.inner_state AS jsonb CONSTRAINT inner_check CHECK (VALUE IS NOT NULL);
CREATE DOMAIN def.outer_state AS def.inner_state;
CREATE FUNCTION def.apply_outer(state def.outer_state, event_type text, payload jsonb) RETURNS jsonb
LANGUAGE sql STABLE AS 'SELECT state::jsonb';
SELECT mako_register_workflow('nested@FV2024-10-01', 'def.apply_outer', initial_state => '{}');
ALTER DOMAIN def.inner_state DROP CONSTRAINT inner_check;
SELECT test.failure($$ SELECT mako_fold('nested@FV2024-10-01', '[]') $$);
CREATE FUNCTION public.mine(state jsonb, event_type text, payload jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE AS 'BEGIN RETURN state; END';
SELECT mako_register_workflow('mine@FV2024-10-01', 'public.mine', initial_state => '{}');
SELECT mako_register_workflow('mine@FV2024-10-01', 'public.mine', initial_state => '{}');
SELECT test.failure($$ SELECT mako_fold('mine@FV2024-10-01', '[{"event_type": "E", "schema_version": 1.4, "payload": 1}]') $$);
ROLLBACK;

SET client_min_messages = warning;
DO $$
BEGIN
  PERFORM mako_unregister_migration(source_wf, target_wf) FROM mako_state_migration;
  PERFORM mako_unregister_workflow(workflow_id) FROM mako_workflow;
END
$$;
DROP PROCEDURE test.changed;
DROP SCHEMA def CASCADE;
REVOKE EXECUTE ON FUNCTION mako_register_workflow, mako_register_migration, mako_unregister_workflow, mako_unregister_migration
FROM regress_mako_operator;
DROP ROLE regress_mako_author, regress_mako_operator;
