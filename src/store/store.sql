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

CREATE FUNCTION mako_attached_inserted() RETURNS trigger LANGUAGE c VOLATILE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_attached_inserted() IS
'new events of an attached event store continue their streams, and advance the heads; '
'the arguments are initial, and wait or nowait';

CREATE FUNCTION mako_attached_changed() RETURNS trigger LANGUAGE c VOLATILE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_attached_changed() IS
'streams of an attached event store without an event any more are forgotten, '
'and those that come back get a head; the argument is initial';

CREATE FUNCTION mako_guard() RETURNS trigger LANGUAGE c VOLATILE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_guard() IS
'refuses a change that only this extension may make, and with a third argument every change; '
'the first two are detail and hint of the error';

-- -------------------------------------------------------------------------------------------------
-- What makes up a store, and what is wrong with it

CREATE FUNCTION mako_is_attached() RETURNS boolean
LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_is_attached() IS
'whether the events of the store are those of an attached event store';

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
  -- Events of an attached event store are a view, and the triggers those of another table.
  WHERE o.relation OPERATOR(pg_catalog.<>) 'event' OR NOT @extschema@.mako_is_attached()
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

CREATE FUNCTION mako_attached_problem()
RETURNS TABLE (object text, problem text, repairable boolean)
LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_attached_problem() IS
'what an attached event store lacks; mako_store_problem() has it, too';

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
    UNION ALL
    SELECT NULL, a.object, a.problem, a.repairable FROM @extschema@.mako_attached_problem() a
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

-- -------------------------------------------------------------------------------------------------
-- Event stores that are there already

CREATE FUNCTION mako_attached_table(appended_to regclass) RETURNS regclass
LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_attached_table(regclass) IS
'the table that the events of the view mako.attached_event are appended to; '
'raises where new rows of it do not tell new events';

CREATE FUNCTION mako_attach_heads(
  initial text, OUT streams bigint, OUT events bigint, OUT damaged bigint, OUT gone bigint)
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_attach_heads(text) IS
'sets the heads of an attached event store; a part of mako_attach_store(), for its owner';

CREATE FUNCTION mako_attached_plan() RETURNS jsonb
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_attached_plan() IS
'how the server would look up the events of one stream of an attached event store, '
'with an index wherever there is one; for its own use';

CREATE FUNCTION mako_replace_event(definition text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off AS
$$
DECLARE
  privilege  text;
  privileges constant text[] := ARRAY(
    SELECT format('GRANT %s ON mako.event TO %s%s', a.privilege_type,
                  CASE a.grantee WHEN 0 THEN 'PUBLIC'
                  ELSE quote_ident(pg_get_userbyid(a.grantee)) END,
                  CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
    FROM pg_class c, aclexplode(c.relacl) AS a
    WHERE c.oid = to_regclass('mako.event') AND a.grantee <> c.relowner);
BEGIN
  PERFORM @extschema@.mako_assert_delegated();
  IF definition IS NULL THEN
    IF @extschema@.mako_is_attached() THEN
      DROP VIEW mako.event;
    END IF;
    DROP VIEW IF EXISTS mako.attached_event;
    PERFORM @extschema@.mako_create_rows();
  ELSE
    DROP TABLE mako.event;
    EXECUTE definition;
  END IF;
  FOREACH privilege IN ARRAY privileges LOOP
    EXECUTE privilege;
  END LOOP;
END
$$;
COMMENT ON FUNCTION mako_replace_event(text) IS
'replaces mako.event by a view, or by the table of a store with events of its own, '
'with the same privileges; for its own use';

CREATE FUNCTION mako_attach_rows(
  query text, initial text, appended_to regclass, wait boolean, path text[])
RETURNS TABLE (target regclass, streams bigint, events bigint, damaged bigint)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
SET client_min_messages = warning SET quote_all_identifiers = off AS
$$
#variable_conflict use_variable
DECLARE
  -- The columns of an event with their types; that of stream_id is the one of the table.
  expected constant jsonb := '{
    "stream_id": "", "sequence_number": "int8", "event_type": "text", "payload": "jsonb",
    "workflow_id": "text", "schema_version": "int4", "event_id": "uuid",
    "recorded_at": "timestamptz", "tenant_id": "uuid", "correlation_id": "uuid",
    "causation_id": "uuid", "conversation_id": "uuid"}';
  needed       constant text[] := '{stream_id, sequence_number, event_type, payload}';
  own_path     constant text := current_setting('search_path');
  their_path   constant text := coalesce((
    SELECT string_agg(quote_ident(p.name) || ', ', '' ORDER BY p.place)
    FROM unnest(path) WITH ORDINALITY AS p (name, place)), '');
  bare         constant text := rtrim(query, '; ' || chr(9) || chr(10) || chr(13));
  definition   text;
  wrong        record;
  id           record;
  part         record;
BEGIN
  PERFORM @extschema@.mako_assert_delegated();
  LOCK TABLE mako.event IN ACCESS EXCLUSIVE MODE;
  IF EXISTS (SELECT FROM mako.event) THEN
    RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
      MESSAGE = 'the store has events of its own',
      HINT = 'A store has events of its own, or those of an attached event store, not both.';
  ELSIF (SELECT c.relrowsecurity OR c.relforcerowsecurity
         FROM pg_class c WHERE c.oid = 'mako.event'::regclass)
    OR EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = 'mako.event'::regclass) THEN
    RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
      MESSAGE = 'table mako.event has row security',
      DETAIL = 'A view, which it becomes, has none: all who may select events would see all.',
      HINT = 'Drop its policies, and disable row security, if that is meant.';
  END IF;

  -- Which columns the query has. Its names are looked up on the path of the session.
  -- While that is the path, no other name is.
  definition := format('CREATE VIEW mako.attached_event AS SELECT e.* FROM (%s%s) AS e', bare,
                       chr(10));
  PERFORM set_config('search_path', their_path || 'pg_temp', true);
  EXECUTE definition;
  PERFORM pg_catalog.set_config('search_path', own_path, true);
  SELECT a.attname AS name, format_type(a.atttypid, NULL) AS type, x.key AS expected INTO wrong
  FROM jsonb_each_text(expected) AS x
  FULL JOIN (SELECT c.* FROM pg_attribute c
             WHERE c.attrelid = 'mako.attached_event'::regclass AND c.attnum > 0) AS a
    ON a.attname = x.key
  WHERE x.key IS NULL OR (a.attname IS NULL AND x.key = ANY (needed))
     OR (x.value = 'uuid' AND a.atttypid <> 'uuid'::regtype)
     OR (x.value = '' AND a.atttypid <> ALL (
           '{text, varchar, uuid, int2, int4, int8}'::regtype[]::oid[]))
     OR EXISTS (SELECT FROM pg_collation c
                WHERE x.value = '' AND c.oid = a.attcollation AND NOT c.collisdeterministic)
  ORDER BY x.key IS NULL, x.key LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION USING ERRCODE = 'datatype_mismatch',
      MESSAGE = CASE
        WHEN wrong.name IS NULL THEN format('the query has no column "%s"', wrong.expected)
        WHEN wrong.expected IS NULL
          THEN format('column "%s" of the query is none of an event', wrong.name)
        ELSE format('column "%s" of the query has type %s', wrong.name, wrong.type) END,
      DETAIL = 'An event has stream_id, sequence_number, event_type and payload; and as far as '
               'there are any workflow_id, schema_version, event_id, recorded_at, tenant_id, '
               'correlation_id, causation_id and conversation_id.',
      HINT = CASE
        WHEN wrong.name IS NULL OR wrong.expected IS NULL
          THEN 'Give the columns of your table these names with AS.'
        WHEN wrong.name = 'stream_id'
          THEN 'Cast it to text, uuid or bigint, with a deterministic collation.'
        ELSE 'Cast it to uuid, or leave it out where that may fail.' END;
  END IF;
  target := @extschema@.mako_attached_table(appended_to);
  EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', target);

  -- The key keeps its type and collation, so that the index of the table finds it.
  SELECT format_type(a.atttypid, NULL) AS type,
         CASE WHEN c.oid IS NULL THEN ''
         ELSE format(' COLLATE %I.%I', n.nspname, c.collname) END AS collation INTO id
  FROM pg_attribute a LEFT JOIN pg_collation c ON c.oid = a.attcollation
  LEFT JOIN pg_namespace n ON n.oid = c.collnamespace
  WHERE a.attrelid = 'mako.attached_event'::regclass AND a.attname = 'stream_id';
  SELECT string_agg(
           format(CASE WHEN x.key = 'schema_version' THEN 'COALESCE(%s, 1) AS %I'
                  WHEN x.value = 'text' THEN '%s COLLATE pg_catalog."C" AS %I'
                  ELSE '%s AS %I' END,
                  format('CAST(%s AS pg_catalog.%I)',
                         CASE WHEN a.attname IS NULL THEN 'NULL' ELSE format('e.%I', x.key) END,
                         x.value),
                  x.key), ', ') AS list INTO part
  FROM jsonb_each_text(expected) AS x
  LEFT JOIN pg_attribute a
    ON a.attrelid = 'mako.attached_event'::regclass AND a.attname = x.key AND a.attnum > 0
  WHERE x.value <> '';
  DROP VIEW mako.attached_event;
  definition := format(
    'CREATE VIEW mako.attached_event AS SELECT CAST(e.stream_id AS pg_catalog.text) '
    'COLLATE pg_catalog."C" AS stream_id, e.stream_id AS stream_key, %s FROM (%s%s) AS e',
    part.list, bare, chr(10));
  PERFORM set_config('search_path', their_path || 'pg_temp', true);
  EXECUTE definition;
  PERFORM pg_catalog.set_config('search_path', own_path, true);
  COMMENT ON VIEW mako.attached_event IS
  'the events of the attached event store, with the columns of mako.event';

  -- An event that says no workflow was written under the one that its stream ran under then: from
  -- which the first move behind it led away, or which its head says.
  PERFORM @extschema@.mako_replace_event(format(
    'CREATE VIEW mako.event WITH (security_barrier) AS '
    'SELECT s.stream_no, e.sequence_number, e.event_id, e.recorded_at, '
    'COALESCE(e.workflow_id, (SELECT r.source_wf COLLATE "C" FROM mako.migration_run r JOIN ('
      'SELECT n.run_id FROM mako.snapshot n WHERE n.stream_no = s.stream_no AND n.run_id > 0 '
      'AND n.sequence_number >= e.sequence_number '
      'UNION ALL SELECT p.run_id FROM mako.repointed p WHERE p.stream_no = s.stream_no '
      'AND p.sequence_number >= e.sequence_number) m USING (run_id) '
    'WHERE r.update_registry AND NOT EXISTS (SELECT FROM mako.reverted v '
      'WHERE v.stream_no = s.stream_no AND v.run_id = r.run_id) ORDER BY r.run_id LIMIT 1), '
    's.workflow_id) AS workflow_id, '
    'e.event_type, e.schema_version, e.payload, '
    'e.correlation_id, e.causation_id, e.conversation_id, e.workflow_id AS stamp '
    'FROM mako.attached_event e JOIN mako.stream s '
    'ON e.stream_key = CAST(s.stream_id AS %s)%s', id.type, id.collation));
  COMMENT ON VIEW mako.event IS
  'the events of the attached event store by their streams; see mako_attach_store()';

  EXECUTE format('CREATE TRIGGER mako_inserted AFTER INSERT ON %s '
                 'REFERENCING NEW TABLE AS appended FOR EACH STATEMENT '
                 'EXECUTE FUNCTION @extschema@.mako_attached_inserted(%L, %L)',
                 target, initial, CASE WHEN wait THEN 'wait' ELSE 'nowait' END);
  EXECUTE format('CREATE TRIGGER mako_updated AFTER UPDATE ON %s '
                 'REFERENCING OLD TABLE AS before NEW TABLE AS after FOR EACH STATEMENT '
                 'EXECUTE FUNCTION @extschema@.mako_attached_changed(%L)', target, initial);
  EXECUTE format('CREATE TRIGGER mako_deleted AFTER DELETE ON %s '
                 'REFERENCING OLD TABLE AS before FOR EACH STATEMENT '
                 'EXECUTE FUNCTION @extschema@.mako_attached_changed(%L)', target, initial);
  EXECUTE format('CREATE TRIGGER mako_truncated AFTER TRUNCATE ON %s FOR EACH STATEMENT '
                 'EXECUTE FUNCTION @extschema@.mako_attached_changed(%L)', target, initial);
  SELECT h.* INTO part FROM @extschema@.mako_attach_heads(initial) AS h;
  IF part.streams > 0 THEN
    ANALYZE mako.stream;
  END IF;
  -- Without statistics, a condition of the query may look like the better way to a stream.
  IF NOT EXISTS (
    SELECT FROM pg_stats p
    JOIN pg_class c ON c.relname = p.tablename JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = p.schemaname AND c.oid = target) THEN
    EXECUTE format('ANALYZE %s', target);
  END IF;
  IF EXISTS (
    SELECT FROM jsonb_path_query(@extschema@.mako_attached_plan(),
                                 '$.** ? (exists(@."Relation Name"))') AS node
    WHERE coalesce(node->>'Index Cond', node->>'Recheck Cond', '') !~ 's[.]stream_id'
      AND node->>'Relation Name' IN (
        SELECT c.relname FROM pg_class c
        WHERE c.oid = target OR c.oid IN (SELECT t.relid FROM pg_partition_tree(target) AS t))) THEN
    RAISE WARNING USING
      MESSAGE = format('no index finds the events of one stream in table %s', target),
      DETAIL = 'Every stream that is looked up takes a scan of the whole table.',
      HINT = 'Create an index on what the query has as stream_id and sequence_number.';
  END IF;
  IF part.gone > 0 THEN
    RAISE WARNING USING
      MESSAGE = format('%s streams have a head, but no event any more', part.gone),
      DETAIL = 'Their heads and states stay as they are: a query that leaves events out looks the '
               'same.',
      HINT = 'mako_check() lists them as head_ahead.';
  END IF;
  RETURN QUERY SELECT target, part.streams, part.events, part.damaged;
END
$$;
COMMENT ON FUNCTION mako_attach_rows(text, text, regclass, boolean, text[]) IS
'what mako_attach_store() does, on a path; for its own use';

CREATE FUNCTION mako_attach_store(
  query text, initial mako_workflow_id, appended_to regclass DEFAULT NULL,
  wait boolean DEFAULT true)
RETURNS TABLE (streams bigint, events bigint, damaged bigint)
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_attach_store(text, mako_workflow_id, regclass, boolean) IS
'lets the events of another event store, which a query tells, be those of the store; '
'counts streams, events, and streams that lack events';

CREATE FUNCTION mako_detach_rows(target regclass) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
SET client_min_messages = warning SET quote_all_identifiers = off AS
$$
DECLARE
  trigger name;
BEGIN
  PERFORM @extschema@.mako_assert_delegated();
  -- Writers lock the table before the view, and may have read the table before: a weaker lock at
  -- first would wait for each other with theirs.
  IF EXISTS (SELECT FROM pg_class c WHERE c.oid = target) THEN
    EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', target);
  END IF;
  PERFORM @extschema@.mako_replace_event(NULL);
  FOR trigger IN
    SELECT t.tgname FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
    JOIN pg_namespace n ON n.oid = p.pronamespace AND n.nspname = '@extschema@'
    WHERE t.tgrelid = target AND p.proname IN ('mako_attached_inserted', 'mako_attached_changed')
  LOOP
    EXECUTE format('DROP TRIGGER %I ON %s', trigger, target);
  END LOOP;
END
$$;
COMMENT ON FUNCTION mako_detach_rows(regclass) IS 'what mako_detach_store() does; for its own use';

CREATE FUNCTION mako_detach_store() RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_detach_store() IS
'leaves the table of the attached event store as it was before; heads, states and runs stay, '
'and go on when it is attached again';

CREATE FUNCTION mako_attach_again() RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_attach_again() IS
'detaches an event store that lacks something, and attaches it again; '
'a part of mako_create_store()';

CREATE FUNCTION mako_create_rows() RETURNS void
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
  PERFORM @extschema@.mako_assert_delegated();
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

  PERFORM @extschema@.mako_attach_again();
  PERFORM @extschema@.mako_advance_sequences();

  IF @extschema@.mako_store_layout() <> known_layout THEN
    RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
      MESSAGE = format('the store has layout version %s', @extschema@.mako_store_layout()),
      DETAIL = format('This version of the extension knows layout version %s.', known_layout),
      HINT = 'Update the extension, or restore the store from a backup.';
  END IF;
END
$$;
COMMENT ON FUNCTION mako_create_rows() IS 'what mako_create_store() does; for its own use';

CREATE FUNCTION mako_create_store() RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
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
  mako_attach_store(text, mako_workflow_id, regclass, boolean),
  mako_detach_store(),
  mako_attached_inserted(),
  mako_attached_changed(),
  mako_adopt_events()
FROM PUBLIC;
