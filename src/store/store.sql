-- -------------------------------------------------------------------------------------------------
-- The triggers of the store's tables: triggers.c

CREATE FUNCTION mako_stream_inserted() RETURNS trigger LANGUAGE c VOLATILE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_stream_inserted() IS
'new heads start at version 0, under a version that still takes new processes';

CREATE FUNCTION mako_event_inserted() RETURNS trigger LANGUAGE c VOLATILE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_event_inserted() IS
'new events continue their streams under the workflow of the head, and advance the heads';

CREATE FUNCTION mako_snapshot_saved() RETURNS trigger LANGUAGE c VOLATILE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_snapshot_saved() IS
'periodic snapshots are not written under a retired version';

CREATE FUNCTION mako_guard() RETURNS trigger LANGUAGE c VOLATILE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_guard() IS
'refuses a change that only this extension may make, and with a third argument every change; '
'the first two are detail and hint of the error';

-- -------------------------------------------------------------------------------------------------
-- What makes up a store, and what is wrong with it

-- The rows are made from the DDL in src/store/tables, in this order: tables, views, keys, checks,
-- foreign keys, then what ties the store to the extension and goes with it, which are checks that
-- call its functions, and the triggers. Constraints stand one by one, so that each can be missed
-- and made again. Constraints and triggers are written as pg_get_constraintdef() and
-- pg_get_triggerdef() write them, white space apart, so that they can be compared.
CREATE FUNCTION mako_store_object()
RETURNS TABLE (ordinal integer, kind text, relation text, name text, definition text)
LANGUAGE sql STABLE PARALLEL SAFE AS
$store$
  SELECT o.*
  -- A view with this option applies the row security of its tables to the role that asks. It came
  -- with version 15.
  FROM (SELECT CASE WHEN pg_catalog.current_setting('server_version_num')::pg_catalog.int4
                         OPERATOR(pg_catalog.>=) 150000
                    THEN 'WITH (security_invoker = true)' ELSE '' END AS invoker) AS v
  CROSS JOIN LATERAL (VALUES
    -- src/store/tables
  ) AS o (ordinal, kind, relation, name, definition)
$store$;
COMMENT ON FUNCTION mako_store_object() IS
'the objects that make up a store, in the order of their creation, '
'with the statements that create them';

-- Read, not called: the owner of schema mako decides what a function in it does.
CREATE FUNCTION mako_store_layout() RETURNS integer
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS
$$
  SELECT substring(p.prosrc FROM '^SELECT ([0-9]{1,6})$')::integer
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace AND n.nspname = 'mako'
  WHERE p.proname = 'layout_version' AND p.pronargs = 0
$$;
COMMENT ON FUNCTION mako_store_layout() IS
'the layout version of the store, as mako.layout_version() has it; '
'null when that function does something else';

CREATE FUNCTION mako_sequence_problem()
RETURNS TABLE (object text, problem text, repairable boolean)
LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_sequence_problem() IS
'columns that number streams and runs and get no new numbers, '
'as when a sequence is behind after a switch to a replica; mako_store_problem() has them, too';

CREATE FUNCTION mako_advance_sequences() RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_advance_sequences() IS
'lets sequences that are behind their tables continue after the highest number; '
'a part of mako_create_store(), for the owner of the tables';

CREATE FUNCTION mako_store_problem()
RETURNS TABLE (object text, problem text, repairable boolean)
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET DateStyle = 'ISO, YMD' AS
$$
  WITH object AS (
    SELECT o.*, c.oid,
           regexp_replace(btrim(regexp_replace(o.definition, '[[:space:]]+', ' ', 'g')),
                          '[(] ', '(', 'g') AS expected
    FROM @extschema@.mako_store_object() o
    LEFT JOIN pg_namespace n ON n.nspname = 'mako'
    LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = o.relation)
  SELECT p.object, p.problem, p.repairable
  FROM (
    SELECT o.ordinal, o.kind || ' mako.' || o.relation AS object, 'is missing' AS problem,
           true AS repairable
    FROM object o WHERE o.kind IN ('table', 'view') AND o.oid IS NULL
    UNION ALL
    SELECT o.ordinal, 'function mako.layout_version',
           CASE WHEN EXISTS (SELECT FROM pg_proc p
                             JOIN pg_namespace n ON n.oid = p.pronamespace AND n.nspname = 'mako'
                             WHERE p.proname = 'layout_version' AND p.pronargs = 0)
                THEN 'does something else' ELSE 'is missing' END,
           true
    FROM object o WHERE o.kind = 'function' AND @extschema@.mako_store_layout() IS NULL
    UNION ALL
    SELECT DISTINCT 0, 'relation mako.' || c.relation, c.relation_problem, false
    FROM @extschema@.mako_store_column() c WHERE c.relation_problem IS NOT NULL
    UNION ALL
    SELECT 0, 'column mako.' || c.relation || '.' || c.name, c.problem, false
    FROM @extschema@.mako_store_column() c WHERE c.problem IS NOT NULL
    UNION ALL
    SELECT o.ordinal, 'constraint ' || o.name || ' on mako.' || o.relation,
           CASE WHEN c.oid IS NULL THEN 'is missing' ELSE 'does something else' END,
           c.oid IS NULL OR c.contype IN ('c', 'f')
    FROM object o LEFT JOIN pg_constraint c ON c.conrelid = o.oid AND c.conname = o.name
    WHERE o.kind = 'constraint'
      AND (c.oid IS NULL
           OR 'ALTER TABLE mako.' || o.relation || ' ADD CONSTRAINT ' || o.name || ' '
              || pg_get_constraintdef(c.oid) <> o.expected)
    UNION ALL
    SELECT o.ordinal, 'trigger ' || o.name || ' on mako.' || o.relation,
           CASE WHEN t.oid IS NULL THEN 'is missing'
                WHEN t.tgenabled NOT IN ('O', 'A') THEN 'is disabled'
                ELSE 'does something else' END,
           true
    FROM object o LEFT JOIN pg_trigger t ON t.tgrelid = o.oid AND t.tgname = o.name
    WHERE o.kind = 'trigger'
      AND (t.oid IS NULL OR t.tgenabled NOT IN ('O', 'A')
           OR pg_get_triggerdef(t.oid) <> o.expected)
    UNION ALL
    SELECT NULL, s.object, s.problem, s.repairable FROM @extschema@.mako_sequence_problem() s
  ) AS p (ordinal, object, problem, repairable)
  ORDER BY p.ordinal, p.object COLLATE "C"
$$;
COMMENT ON FUNCTION mako_store_problem() IS
'what is missing or wrong in the store, one row each; '
'mako_create_store() repairs what is repairable';

CREATE FUNCTION mako_open_schema() RETURNS text
LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_open_schema() IS
'why other roles may create objects in the schema of the extension, '
'which could capture calls of its functions; null when they may not';

CREATE FUNCTION mako_grant_triggers() RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_grant_triggers() IS
'lets a role that may execute mako_create_store() use the trigger functions of a store';

CREATE FUNCTION mako_create_store() RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
SET client_min_messages = warning SET quote_all_identifiers = off AS
$$
DECLARE
  open_schema  text := @extschema@.mako_open_schema();
  store_owner  oid := (SELECT nspowner FROM pg_namespace WHERE nspname = 'mako');
  known_layout constant integer := 1;
  object       record;
  damaged      text;
BEGIN
  IF open_schema IS NOT NULL THEN
    RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
      MESSAGE = 'the schema of the extension is open to others',
      DETAIL = format('Schema %s: %s.', '@extschema@', open_schema),
      HINT = 'REVOKE CREATE on it, or create the extension in a schema of its own.';
  END IF;
  IF store_owner IS NULL THEN
    CREATE SCHEMA mako;
    COMMENT ON SCHEMA mako IS
    'store of mako_migration: event streams, snapshots, registry and audit trail';
  ELSIF pg_get_userbyid(store_owner) <> current_user THEN
    RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
      MESSAGE = format('schema "mako" belongs to role "%s"', pg_get_userbyid(store_owner)),
      DETAIL = format('The current role is "%s".', current_user),
      HINT = format('A store is created and repaired by the role that owns it: use SET ROLE %I.',
                    pg_get_userbyid(store_owner));
  ELSIF NOT EXISTS (SELECT FROM pg_proc
                    WHERE pronamespace = 'mako'::regnamespace
                      AND proname = 'layout_version' AND pronargs = 0)
    AND EXISTS (SELECT FROM pg_class WHERE relnamespace = 'mako'::regnamespace) THEN
    RAISE EXCEPTION USING ERRCODE = 'duplicate_object',
      MESSAGE = 'schema "mako" already exists and is not a store',
      DETAIL = format('It holds %s relations, but no function "layout_version".',
                      (SELECT count(*) FROM pg_class WHERE relnamespace = 'mako'::regnamespace)),
      HINT = 'Rename that schema: the store needs its name.';
  END IF;

  -- A repair evaluates what the owner of a table has put into its indexes and checks. A superuser
  -- could do the same without owning a table.
  SELECT c.relname, r.rolname AS owner INTO object
  FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner
  WHERE c.relnamespace = 'mako'::regnamespace
    AND r.rolname <> current_user AND NOT r.rolsuper
    AND c.relname IN (SELECT o.relation FROM @extschema@.mako_store_object() o)
  ORDER BY c.relname LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
      MESSAGE = format('table "mako.%s" belongs to role "%s"', object.relname, object.owner),
      DETAIL = format('Schema "mako" belongs to role "%s".', pg_get_userbyid(store_owner)),
      HINT = format('Give the table to that role: ALTER TABLE mako.%I OWNER TO %I.',
                    object.relname, pg_get_userbyid(store_owner));
  END IF;

  SELECT string_agg(p.object || ' ' || p.problem, ', ') INTO damaged
  FROM @extschema@.mako_store_problem() p
  WHERE NOT p.repairable;
  IF damaged IS NOT NULL THEN
    RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
      MESSAGE = 'the store is damaged beyond repair', DETAIL = damaged || '.',
      HINT = 'Restore the store from a backup.';
  END IF;

  PERFORM @extschema@.mako_grant_triggers();
  FOR object IN
    SELECT o.kind, o.relation, o.name, o.definition, p.problem
    FROM @extschema@.mako_store_object() o
    JOIN @extschema@.mako_store_problem() p
      ON p.object IN (o.kind || ' mako.' || o.relation,
                      o.kind || ' ' || o.name || ' on mako.' || o.relation)
    ORDER BY o.ordinal
  LOOP
    CASE object.problem
      WHEN 'is disabled' THEN
        EXECUTE format('ALTER TABLE mako.%I ENABLE TRIGGER %I', object.relation, object.name);
      WHEN 'does something else' THEN
        EXECUTE CASE object.kind
          WHEN 'trigger'
            THEN format('DROP TRIGGER %I ON mako.%I', object.name, object.relation)
          WHEN 'constraint'
            THEN format('ALTER TABLE mako.%I DROP CONSTRAINT %I', object.relation, object.name)
          ELSE 'DROP FUNCTION mako.layout_version()'
        END;
        EXECUTE object.definition;
      ELSE
        EXECUTE object.definition;
    END CASE;
  END LOOP;

  PERFORM @extschema@.mako_advance_sequences();

  IF @extschema@.mako_store_layout() <> known_layout THEN
    RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
      MESSAGE = format('the store has layout version %s', @extschema@.mako_store_layout()),
      DETAIL = format('This version of the extension knows layout version %s.', known_layout),
      HINT = 'Update the extension, or restore the store from a backup.';
  END IF;
END
$$;
COMMENT ON FUNCTION mako_create_store() IS
'creates the store in schema mako, owned by the caller; '
'called again, it repairs and upgrades what is there';

CREATE FUNCTION mako_assert_store() RETURNS void
LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_assert_store() IS
'raises 42704 when there is no store, 55000 when something of it is missing, disabled or behind';

-- -------------------------------------------------------------------------------------------------
-- Histories that were loaded, and locks

CREATE FUNCTION mako_adopt_events(OUT streams bigint, OUT events bigint, OUT spanning bigint)
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_adopt_events() IS
'checks the invariants of histories that were loaded with event_inserted disabled, '
'and sets their heads; counts what it adopted';

CREATE FUNCTION mako_source_lock(workflow_id text) RETURNS bigint
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_source_lock(text) IS
'classid and objid, as one number, of the advisory lock of a batched run from this workflow; '
'objsubid is 3';

-- -------------------------------------------------------------------------------------------------
-- What changes data or definitions is for the roles to which it is granted.

REVOKE EXECUTE ON FUNCTION
  mako_stream_inserted(),
  mako_event_inserted(),
  mako_snapshot_saved(),
  mako_guard(),
  mako_create_store(),
  mako_adopt_events()
FROM PUBLIC;
