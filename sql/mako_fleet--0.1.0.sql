\echo Use "CREATE EXTENSION mako_fleet" to load this file. \quit

-- The fleet: mako_migration in many databases, the shards, driven from one, the coordinator. The
-- shards are the options p0, p1 ... of the foreign server mako_fleet.
--
-- PL/Proxy asks the shards for rows, and leads a process to the shard of its tenant. dblink runs
-- what changes all shards, side by side, because an error of one shard ends a PL/Proxy function
-- while others go on; and it prepares transactions.
--
-- Everything runs with the caller's rights here, and with those of the caller's user mapping on a
-- shard. Bodies name all schemas: @mako@ stands for the one of mako_migration, here and on every
-- shard, and @dblink@ for the one of dblink. The end of this script puts the names in.

-- Whose schema it is can create better matches of what is called in it.
DO $$
BEGIN
  IF (SELECT n.nspowner FROM pg_catalog.pg_namespace n
      WHERE n.nspname OPERATOR(pg_catalog.=) 'mako_fleet')
     OPERATOR(pg_catalog.<>)
     (SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname OPERATOR(pg_catalog.=) current_user)
  THEN
    RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
      MESSAGE = 'schema "mako_fleet" belongs to another role',
      HINT = 'Drop the schema, or rename it: CREATE EXTENSION creates its own.';
  END IF;
END
$$;

-- -------------------------------------------------------------------------------------------------
-- Connections

CREATE TYPE shard_answer AS (
  shard     text,
  answer    text,
  sqlstate  text,
  message   text,
  detail    text,
  hint      text
);
COMMENT ON TYPE shard_answer IS
'what a shard answered: the value of the last row of one column or the tag of a command, '
'or the error';

CREATE FUNCTION shard_connection()
RETURNS TABLE (connection text, shard text, conninfo text)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS
$$
#variable_conflict use_column
DECLARE
  server record;
  mapping record;
  login text;
BEGIN
  SELECT s.oid, s.srvowner, s.srvoptions INTO server
  FROM pg_foreign_server s JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw
  WHERE s.srvname = 'mako_fleet' AND w.fdwname = 'plproxy';
  IF NOT FOUND THEN
    RAISE EXCEPTION USING ERRCODE = 'undefined_object',
      MESSAGE = 'foreign server "mako_fleet" of PL/Proxy does not exist',
      HINT = 'CREATE SERVER mako_fleet FOREIGN DATA WRAPPER plproxy OPTIONS (p0 ..., p1 ...) '
             'names the shards.';
  END IF;
  IF NOT has_server_privilege(server.oid, 'USAGE') THEN
    RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
      MESSAGE = 'permission denied for foreign server mako_fleet';
  END IF;
  SELECT m.umuser, m.umoptions INTO mapping
  FROM pg_user_mappings m
  WHERE m.srvid = server.oid
    AND m.umuser IN (0, (SELECT r.oid FROM pg_roles r WHERE r.rolname = current_user))
  ORDER BY m.umuser DESC LIMIT 1;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING ERRCODE = 'undefined_object',
      MESSAGE = format('role "%s" has no user mapping for server "mako_fleet"', current_user);
  END IF;
  -- The view hides the options of PUBLIC's mapping from them. Without a user, libpq would take the
  -- one that the server runs as.
  IF mapping.umuser = 0 AND NOT pg_has_role(server.srvowner, 'USAGE') THEN
    RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
      MESSAGE = format('role "%s" may not read the user mapping of PUBLIC for server "mako_fleet"',
                       current_user),
      HINT = 'CREATE USER MAPPING FOR the role, with a user and a password.';
  END IF;
  -- A backslash escapes in a connection string.
  SELECT string_agg(format(' %s=''%s''', o.name,
                           replace(replace(o.value, chr(92), chr(92) || chr(92)),
                                   '''', chr(92) || '''')), '')
  INTO login
  FROM (SELECT 'user' AS name, current_user::text AS value
        WHERE NOT EXISTS (SELECT FROM pg_options_to_table(mapping.umoptions)
                          WHERE option_name = 'user')
        UNION ALL
        SELECT option_name, option_value FROM pg_options_to_table(mapping.umoptions)) AS o;
  RETURN QUERY
  SELECT 'mako_fleet ' || p.number, p.shard,
         -- As PL/Proxy does it.
         p.conninfo || CASE WHEN strpos(p.conninfo, 'user=') > 0 THEN '' ELSE login END
  FROM (SELECT substring(option_name FROM '[0-9]+')::integer AS number, option_value AS conninfo,
               substring(option_value FROM 'dbname *= *''?([^'' ]+)') AS shard
        FROM pg_options_to_table(server.srvoptions)
        WHERE option_name ~ '^(p|partition_)[0-9]+$') AS p
  ORDER BY p.number;
END
$$;
COMMENT ON FUNCTION shard_connection() IS
'the shards in the order of their numbers: the name of the connection to each, its own name, '
'which is that of its database, and how the caller connects to it';

CREATE FUNCTION disconnect() RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  connection text;
BEGIN
  FOR connection IN
    SELECT c FROM unnest(@dblink@.dblink_get_connections()) AS c
    WHERE starts_with(c, 'mako_fleet ')
  LOOP
    IF @dblink@.dblink_is_busy(connection) = 1 THEN
      PERFORM @dblink@.dblink_cancel_query(connection);
    END IF;
    PERFORM @dblink@.dblink_disconnect(connection);
  END LOOP;
END
$$;
COMMENT ON FUNCTION disconnect() IS
'closes the connections of this session to the shards; what runs there is cancelled, and '
'transactions that are not prepared are rolled back';

CREATE FUNCTION connect(shards text[]) RETURNS SETOF shard_answer
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  s record;
  problem mako_fleet.shard_answer;
BEGIN
  -- An error may have left connections, with open transactions.
  PERFORM mako_fleet.disconnect();
  SELECT count(*) AS count, count(DISTINCT c.shard) AS names INTO s
  FROM mako_fleet.shard_connection() c;
  IF s.names < s.count THEN
    RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'the shards are not told apart by their names',
      DETAIL = 'The name of a shard is the dbname of its option of server "mako_fleet".',
      HINT = 'Let every option have a dbname of its own.';
  END IF;
  FOR s IN
    SELECT * FROM mako_fleet.shard_connection() c WHERE shards IS NULL OR c.shard = ANY (shards)
  LOOP
    BEGIN
      PERFORM @dblink@.dblink_connect(s.connection, s.conninfo);
      -- Reports come as text, and must mean the same here.
      PERFORM @dblink@.dblink_exec(
        s.connection, 'SET datestyle = ISO; SET intervalstyle = iso_8601');
    EXCEPTION WHEN OTHERS THEN
      problem := ROW(s.shard, NULL, SQLSTATE, SQLERRM, NULL, NULL);
      GET STACKED DIAGNOSTICS problem.detail = PG_EXCEPTION_DETAIL,
        problem.hint = PG_EXCEPTION_HINT;
      RETURN NEXT problem;
    END;
  END LOOP;
END
$$;
COMMENT ON FUNCTION connect(text[]) IS
'opens a connection to each of these shards, or to all; a row for each that cannot be reached';

CREATE FUNCTION ask(statement text, shards text[] DEFAULT NULL, gid text DEFAULT NULL)
RETURNS SETOF shard_answer
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  s record;
  a mako_fleet.shard_answer;
  line text;
  context text;
  pause double precision;
  unsent text[] := '{}';
  asked text[] := ARRAY(
    SELECT c.connection FROM mako_fleet.shard_connection() c
    WHERE c.connection = ANY (@dblink@.dblink_get_connections())
      AND (shards IS NULL OR c.shard = ANY (shards)));
BEGIN
  FOR s IN SELECT * FROM mako_fleet.shard_connection() c WHERE c.connection = ANY (asked) LOOP
    -- Shards may be on one server, where a gid has to be the only one.
    IF @dblink@.dblink_send_query(
         s.connection, statement || coalesce(quote_literal(gid || ' ' || s.shard), '')) <> 1 THEN
      unsent := unsent || s.connection;
    END IF;
  END LOOP;
  FOR s IN SELECT * FROM mako_fleet.shard_connection() c WHERE c.connection = ANY (asked) LOOP
    a := ROW(s.shard, NULL, NULL, NULL, NULL, NULL);
    IF s.connection = ANY (unsent) THEN
      a.sqlstate := '08006';
      a.message := @dblink@.dblink_error_message(s.connection);
      RETURN NEXT a;
      CONTINUE;
    END IF;
    BEGIN
      LOOP
        -- dblink_get_result() cannot be cancelled while it waits. A lost connection stays busy, but
        -- has a message.
        pause := 0.0002;
        WHILE @dblink@.dblink_is_busy(s.connection) = 1
              AND @dblink@.dblink_error_message(s.connection) = 'OK' LOOP
          PERFORM pg_sleep(pause);
          pause := least(2 * pause, 0.05);
        END LOOP;
        SELECT r.x INTO line FROM @dblink@.dblink_get_result(s.connection) AS r (x text);
        EXIT WHEN NOT FOUND;
        a.answer := line;
      END LOOP;
    EXCEPTION WHEN query_canceled OR assert_failure OR OTHERS THEN
      GET STACKED DIAGNOSTICS a.detail = PG_EXCEPTION_DETAIL, a.hint = PG_EXCEPTION_HINT,
        context = PG_EXCEPTION_CONTEXT;
      -- dblink names its connection in the context of the shard's errors.
      IF strpos(context, '"' || s.connection || '"') = 0 THEN
        RAISE;
      END IF;
      a.answer := NULL;
      a.sqlstate := SQLSTATE;
      a.message := SQLERRM;
    END;
    RETURN NEXT a;
  END LOOP;
END
$$;
COMMENT ON FUNCTION ask(text, text[], text) IS
'sends a statement of one column, or a command, to these shards or to all, as far as connected, '
'and waits for all answers; appends a literal of gid and shard to it if there is a gid';

CREATE FUNCTION on_shards(statement text, shards text[] DEFAULT NULL) RETURNS SETOF shard_answer
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
  RETURN QUERY SELECT * FROM mako_fleet.connect(shards);
  RETURN QUERY SELECT * FROM mako_fleet.ask(statement, shards);
  PERFORM mako_fleet.disconnect();
EXCEPTION WHEN query_canceled OR assert_failure OR OTHERS THEN
  PERFORM mako_fleet.disconnect();
  RAISE;
END
$$;
COMMENT ON FUNCTION on_shards(text, text[]) IS
'runs a statement on these shards or on all, side by side, each in a transaction of its own; '
'a row a shard, with its error if it has one';

-- -------------------------------------------------------------------------------------------------
-- Rows of all shards

CREATE FUNCTION runs(reason text DEFAULT NULL)
RETURNS TABLE (
  shard text, run_id bigint, kind text, source_wf text, target_wf text, reason text,
  started_at timestamptz, finished_at timestamptz, migrated bigint, skipped bigint, failed bigint)
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS
$$
  CLUSTER 'mako_fleet';
  RUN ON ALL;
  SELECT pg_catalog.current_database()::pg_catalog.text AS shard, r.run_id, r.kind, r.source_wf,
         r.target_wf, r.reason, r.started_at, r.finished_at, r.migrated, r.skipped, r.failed
  FROM mako.migration_run r
  WHERE $1::pg_catalog.text IS NULL OR r.reason OPERATOR(pg_catalog.=) $1;
$$;
COMMENT ON FUNCTION runs(text) IS
'the runs of this reason on every shard, or all runs: a run of the fleet is its reason, because '
'run_id is a shard''s own number';

CREATE FUNCTION plan(
  source_wf text, target_wf text, tenant_id uuid DEFAULT NULL,
  in_flight_only boolean DEFAULT false)
RETURNS TABLE (
  shard text, step integer, kind text, source_wf text, target_wf text, function text,
  evaluation text, streams bigint, in_flight bigint, events bigint, scan_order text,
  workers text, blockers text[], fingerprint text)
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS
$$
  CLUSTER 'mako_fleet';
  RUN ON ALL;
  SELECT pg_catalog.current_database()::pg_catalog.text AS shard, p.*
  FROM @mako@.mako_plan($1, $2, $3, $4) AS p;
$$;
COMMENT ON FUNCTION plan(text, text, uuid, boolean) IS 'what mako_plan() says on every shard';

CREATE FUNCTION dry_run_summary(
  source_wf text, target_wf text, tenant_id uuid DEFAULT NULL,
  in_flight_only boolean DEFAULT false, sample bigint DEFAULT NULL, seed bigint DEFAULT 0)
RETURNS TABLE (
  shard text, outcome text, phase text, sqlstate text, message text, streams bigint, example text)
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS
$$
  CLUSTER 'mako_fleet';
  RUN ON ALL;
  SELECT pg_catalog.current_database()::pg_catalog.text AS shard, d.*
  FROM @mako@.mako_dry_run_summary($1, $2, $3, $4, $5, $6) AS d;
$$;
COMMENT ON FUNCTION dry_run_summary(text, text, uuid, boolean, bigint, bigint) IS
'what mako_dry_run_summary() says on every shard';

CREATE FUNCTION coverage(format_version text)
RETURNS TABLE (
  shard text, workflow_id text, streams bigint, in_flight bigint, decision text, targets text[],
  reason text)
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS
$$
  CLUSTER 'mako_fleet';
  RUN ON ALL;
  SELECT pg_catalog.current_database()::pg_catalog.text AS shard, c.*
  FROM @mako@.mako_coverage($1) AS c;
$$;
COMMENT ON FUNCTION coverage(text) IS 'what mako_coverage() says on every shard';

CREATE FUNCTION progress()
RETURNS TABLE (
  shard text, run_id bigint, kind text, source_wf text, target_wf text, done bigint, total bigint,
  failed bigint, rate double precision, started_at timestamptz, estimated_end timestamptz,
  pid integer)
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS
$$
  CLUSTER 'mako_fleet';
  RUN ON ALL;
  SELECT pg_catalog.current_database()::pg_catalog.text AS shard, p.*
  FROM @mako@.mako_progress AS p;
$$;
COMMENT ON FUNCTION progress() IS 'what mako_progress shows on every shard';

CREATE FUNCTION verify(reason text)
RETURNS TABLE (
  shard text, run_id bigint, stream_id text, sequence_number bigint, problem text, stored jsonb,
  computed jsonb, differs_from bigint)
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS
$$
  CLUSTER 'mako_fleet';
  RUN ON ALL;
  SELECT pg_catalog.current_database()::pg_catalog.text AS shard, r.run_id, v.*
  FROM mako.migration_run AS r, @mako@.mako_verify(r.run_id) AS v
  WHERE r.reason OPERATOR(pg_catalog.=) $1 AND r.kind OPERATOR(pg_catalog.<>) 'revert';
$$;
COMMENT ON FUNCTION verify(text) IS
'computes what the runs of this reason have stored again, on every shard; '
'a row for each thing that differs';

CREATE FUNCTION fingerprints(source text, target text)
RETURNS TABLE (shard text, fingerprint text)
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS
$$
  CLUSTER 'mako_fleet';
  RUN ON ALL;
  SELECT pg_catalog.current_database()::pg_catalog.text AS shard,
         CASE WHEN pg_catalog.strpos($1::pg_catalog.text, '@') OPERATOR(pg_catalog.>) 0
              THEN @mako@.mako_fingerprint($1::pg_catalog.text, $2::pg_catalog.text)
              ELSE @mako@.mako_version_fingerprint($1::pg_catalog.text, $2::pg_catalog.text)
         END AS fingerprint;
$$;
COMMENT ON FUNCTION fingerprints(text, text) IS
'the fingerprint of a migration on every shard, of a workflow or of a format version';

CREATE FUNCTION fingerprint(source text, target text) RETURNS text
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  f record;
BEGIN
  SELECT count(DISTINCT s.fingerprint) AS count, min(s.fingerprint) AS fingerprint,
         string_agg(format('%s: %s', s.shard, s.fingerprint), ', ' ORDER BY s.shard) AS list
  INTO f
  FROM mako_fleet.fingerprints(source, target) s;
  IF f.count <> 1 THEN
    RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
      MESSAGE = format('the shards have different definitions of %s -> %s', source, target),
      DETAIL = f.list,
      HINT = 'Register the same functions on every shard, with mako_fleet.run_atomically().';
  END IF;
  RETURN f.fingerprint;
END
$$;
COMMENT ON FUNCTION fingerprint(text, text) IS
'the fingerprint of a migration that all shards have in common, or error 55000; '
'argument expect of a migration takes it';

-- -------------------------------------------------------------------------------------------------
-- What changes all shards, side by side, each in transactions of its own

CREATE FUNCTION claim_reason(reason text, source text DEFAULT NULL, target text DEFAULT NULL)
RETURNS text[]
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  used record;
  to_go text[];
BEGIN
  IF claim_reason.reason IS NULL THEN
    RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed',
      MESSAGE = 'reason must not be null',
      HINT = 'The reason is the name of a run on all shards.';
  END IF;
  -- Until the end of the transaction, so that one of two calls at a time finds it used.
  PERFORM pg_advisory_xact_lock(hashtextextended('mako_fleet ' || claim_reason.reason, 0));
  SELECT count(*) AS count, min(r.shard) AS shard,
         bool_or(r.kind <> 'batched' OR source IS NULL
                 OR source NOT IN (r.source_wf, split_part(r.source_wf, '@', 2))
                 OR target NOT IN (r.target_wf, split_part(r.target_wf, '@', 2))) AS is_other
  INTO used
  FROM mako_fleet.runs(claim_reason.reason) r;
  -- A shard without a run of this reason has not begun. One with several is at it while one of
  -- them is.
  to_go := ARRAY(
    SELECT c.shard FROM mako_fleet.shard_connection() c
    LEFT JOIN mako_fleet.runs(claim_reason.reason) r ON r.shard = c.shard
    GROUP BY c.shard HAVING count(*) > count(r.finished_at));
  IF used.is_other OR to_go = '{}' THEN
    RAISE EXCEPTION USING ERRCODE = 'duplicate_object',
      MESSAGE = format('the reason "%s" has been used on shard "%s"', claim_reason.reason,
                       used.shard),
      DETAIL = 'A run on all shards is told by its reason.',
      HINT = 'Take another one. SELECT * FROM mako_fleet.runs(reason) shows what it was used for.';
  END IF;
  RETURN to_go;
END
$$;
COMMENT ON FUNCTION claim_reason(text, text, text) IS
'the shards on which a run of this reason may begin or, if it is batched, go on; '
'error 42710 when the reason was used for anything else';

CREATE FUNCTION migrate(
  source_wf text, target_wf text, reason text, tenant_id uuid DEFAULT NULL,
  update_registry boolean DEFAULT true, in_flight_only boolean DEFAULT false,
  max_errors bigint DEFAULT NULL, expect text DEFAULT NULL)
RETURNS TABLE (
  shard text, report mako_migration_report, sqlstate text, message text, detail text)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
  PERFORM mako_fleet.claim_reason(reason);
  RETURN QUERY
  SELECT a.shard, a.answer::@mako@.mako_migration_report, a.sqlstate, a.message, a.detail
  FROM mako_fleet.on_shards(format(
    'SELECT r FROM @mako@.mako_migrate(%L, %L, tenant_id => %L, update_registry => %L, '
    'in_flight_only => %L, max_errors => %L, expect => %L, reason => %L) AS r',
    source_wf, target_wf, tenant_id, update_registry, in_flight_only, max_errors, expect,
    reason)) a;
END
$$;
COMMENT ON FUNCTION migrate(text, text, text, uuid, boolean, boolean, bigint, text) IS
'runs mako_migrate() on all shards, side by side: a report or an error of each; '
'a shard that fails stops no other, and a ROLLBACK here undoes none';

CREATE FUNCTION migrate_version(
  source_fv text, target_fv text, reason text, tenant_id uuid DEFAULT NULL,
  update_registry boolean DEFAULT true, in_flight_only boolean DEFAULT false,
  max_errors bigint DEFAULT NULL, expect text DEFAULT NULL)
RETURNS TABLE (
  shard text, report mako_migration_report, sqlstate text, message text, detail text)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
  PERFORM mako_fleet.claim_reason(reason);
  RETURN QUERY
  SELECT a.shard, r::@mako@.mako_migration_report, a.sqlstate, a.message, a.detail
  FROM mako_fleet.on_shards(format(
    'SELECT pg_catalog.array_agg(r) FROM @mako@.mako_migrate_version(%L, %L, tenant_id => %L, '
    'update_registry => %L, in_flight_only => %L, max_errors => %L, expect => %L, '
    'reason => %L) AS r',
    source_fv, target_fv, tenant_id, update_registry, in_flight_only, max_errors, expect,
    reason)) a
  LEFT JOIN LATERAL unnest(a.answer::@mako@.mako_migration_report[]) AS r ON true;
END
$$;
COMMENT ON FUNCTION migrate_version(text, text, text, uuid, boolean, boolean, bigint, text) IS
'runs mako_migrate_version() on all shards, side by side: a report a workflow, or an error, of '
'each; a shard that fails stops no other, and a ROLLBACK here undoes none';

CREATE FUNCTION migrate_batched(
  source_wf text, target_wf text, reason text, batch_size integer DEFAULT 1000,
  tenant_id uuid DEFAULT NULL, in_flight_only boolean DEFAULT false, max_errors bigint DEFAULT NULL,
  pause interval DEFAULT '0', lock_timeout interval DEFAULT '1 s', expect text DEFAULT NULL)
RETURNS TABLE (
  shard text, report mako_migration_report, sqlstate text, message text, detail text)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
  RETURN QUERY
  SELECT a.shard, a.answer::@mako@.mako_migration_report, a.sqlstate, a.message, a.detail
  FROM mako_fleet.on_shards(
    format(
      'CALL @mako@.mako_migrate_batched(%L, %L, batch_size => %L, tenant_id => %L, '
      'in_flight_only => %L, max_errors => %L, pause => %L, lock_timeout => %L, expect => %L, '
      'reason => %L)',
      source_wf, target_wf, batch_size, tenant_id, in_flight_only, max_errors, pause,
      lock_timeout, expect, reason),
    mako_fleet.claim_reason(reason, source_wf, target_wf)) a;
END
$$;
COMMENT ON FUNCTION migrate_batched(
  text, text, text, integer, uuid, boolean, bigint, interval, interval, text) IS
'runs mako_migrate_batched() on all shards, side by side; called again with the same reason, '
'it goes on where shards have not come to the end';

CREATE FUNCTION migrate_version_batched(
  source_fv text, target_fv text, reason text, batch_size integer DEFAULT 1000,
  tenant_id uuid DEFAULT NULL, in_flight_only boolean DEFAULT false, max_errors bigint DEFAULT NULL,
  pause interval DEFAULT '0', lock_timeout interval DEFAULT '1 s', expect text DEFAULT NULL)
RETURNS TABLE (
  shard text, report mako_migration_report, sqlstate text, message text, detail text)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
  RETURN QUERY
  SELECT a.shard, r::@mako@.mako_migration_report, a.sqlstate, a.message, a.detail
  FROM mako_fleet.on_shards(
    format(
      'CALL @mako@.mako_migrate_version_batched(%L, %L, batch_size => %L, tenant_id => %L, '
      'in_flight_only => %L, max_errors => %L, pause => %L, lock_timeout => %L, expect => %L, '
      'reason => %L)',
      source_fv, target_fv, batch_size, tenant_id, in_flight_only, max_errors, pause,
      lock_timeout, expect, reason),
    mako_fleet.claim_reason(reason, source_fv, target_fv)) a
  LEFT JOIN LATERAL unnest(a.answer::@mako@.mako_migration_report[]) AS r ON true;
END
$$;
COMMENT ON FUNCTION migrate_version_batched(
  text, text, text, integer, uuid, boolean, bigint, interval, interval, text) IS
'runs mako_migrate_version_batched() on all shards, side by side; called again with the same '
'reason, it goes on where shards have not come to the end';

CREATE FUNCTION revert(reverted text, reason text)
RETURNS TABLE (
  shard text, report mako_migration_report, sqlstate text, message text, detail text)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
  PERFORM mako_fleet.claim_reason(reason);
  RETURN QUERY
  SELECT a.shard, r::@mako@.mako_migration_report, a.sqlstate, a.message, a.detail
  FROM mako_fleet.on_shards(format(
    'SELECT pg_catalog.array_agg(v) '
    'FROM (SELECT m.run_id FROM mako.migration_run AS m '
    '      WHERE m.reason OPERATOR(pg_catalog.=) %L AND m.kind OPERATOR(pg_catalog.<>) ''revert'' '
    '      ORDER BY m.run_id DESC OFFSET 0) AS m, '
    'LATERAL @mako@.mako_revert(m.run_id, %L) AS v', reverted, reason)) a
  LEFT JOIN LATERAL unnest(a.answer::@mako@.mako_migration_report[]) AS r ON true;
END
$$;
COMMENT ON FUNCTION revert(text, text) IS
'undoes the runs of a reason on all shards, side by side, the newest first; '
'the undoing has a reason of its own';

CREATE FUNCTION drain(format_version text, reason text DEFAULT NULL)
RETURNS TABLE (shard text, sqlstate text, message text, detail text)
LANGUAGE sql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS
$$
  SELECT a.shard, a.sqlstate, a.message, a.detail
  FROM mako_fleet.on_shards(format(
    'SELECT NULL::pg_catalog.text FROM @mako@.mako_drain(%L, %L)', format_version, reason)) AS a
$$;
COMMENT ON FUNCTION drain(text, text) IS
'runs mako_drain() on all shards: no process starts under this format version where sqlstate '
'is null';

CREATE FUNCTION retire(
  format_version text, reason text DEFAULT NULL, messages_until timestamptz DEFAULT NULL)
RETURNS TABLE (shard text, sqlstate text, message text, detail text)
LANGUAGE sql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO' AS
$$
  SELECT a.shard, a.sqlstate, a.message, a.detail
  FROM mako_fleet.on_shards(format(
    'SELECT NULL::pg_catalog.text FROM @mako@.mako_retire(%L, %L, %L)',
    format_version, reason, messages_until)) AS a
$$;
COMMENT ON FUNCTION retire(text, text, timestamptz) IS
'runs mako_retire() on all shards: nothing is written under this format version where sqlstate '
'is null';

-- -------------------------------------------------------------------------------------------------
-- Processes: each on the shard of its tenant

CREATE FUNCTION tenant_hash(tenant_id uuid) RETURNS integer
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  h bytea;
BEGIN
  IF tenant_id IS NULL THEN
    RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed',
      MESSAGE = 'tenant_id must not be null';
  END IF;
  h := sha256(convert_to(tenant_id::text, 'UTF8'));
  RETURN ((get_byte(h, 0) & 127) << 24) | (get_byte(h, 1) << 16) | (get_byte(h, 2) << 8)
         | get_byte(h, 3);
END
$$;
COMMENT ON FUNCTION tenant_hash(uuid) IS
'the first four bytes of sha256 over the tenant id, without the sign bit; modulo the number of '
'shards, it is the number of the tenant''s shard, on every server and in every program';

CREATE FUNCTION stream_hash(stream_id text) RETURNS integer
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
  IF stream_id IS NULL THEN
    RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed',
      MESSAGE = 'stream_id must not be null';
  END IF;
  IF stream_id !~* '^process/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/.' THEN
    RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
      MESSAGE = format('stream "%s" does not name its tenant', stream_id),
      DETAIL = 'A stream of the fleet lies on the shard of its tenant.',
      HINT = 'The stream of a process is process/<tenant id>/<process id>.';
  END IF;
  RETURN mako_fleet.tenant_hash(split_part(stream_id, '/', 2)::uuid);
END
$$;
COMMENT ON FUNCTION stream_hash(text) IS
'tenant_hash() of the tenant in the id of a stream; error 22023 for a stream that names none';

CREATE FUNCTION shard_of(tenant_id uuid) RETURNS text
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS
$$
  CLUSTER 'mako_fleet';
  RUN ON mako_fleet.tenant_hash(tenant_id);
  SELECT pg_catalog.current_database()::pg_catalog.text;
$$;
COMMENT ON FUNCTION shard_of(uuid) IS 'the shard of a tenant';

CREATE FUNCTION spawn(
  workflow_id text, tenant_id uuid, process_id uuid DEFAULT pg_catalog.gen_random_uuid())
RETURNS text
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS
$$
  CLUSTER 'mako_fleet';
  RUN ON mako_fleet.tenant_hash(tenant_id);
  SELECT @mako@.mako_spawn($1, $2, $3);
$$;
COMMENT ON FUNCTION spawn(text, uuid, uuid) IS 'calls mako_spawn() on the shard of the tenant';

CREATE FUNCTION append(
  stream_id text, workflow_id text, event_type text, payload jsonb,
  expected_version bigint DEFAULT NULL, schema_version integer DEFAULT 1,
  event_id uuid DEFAULT NULL, correlation_id uuid DEFAULT NULL, causation_id uuid DEFAULT NULL,
  conversation_id uuid DEFAULT NULL)
RETURNS bigint
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS
$$
  CLUSTER 'mako_fleet';
  RUN ON mako_fleet.stream_hash(stream_id);
  SELECT @mako@.mako_append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10);
$$;
COMMENT ON FUNCTION append(
  text, text, text, jsonb, bigint, integer, uuid, uuid, uuid, uuid) IS
'calls mako_append() on the shard of the tenant, whose commit it is: '
'a ROLLBACK here does not take the event back';

CREATE FUNCTION state(
  stream_id text, OUT state jsonb, OUT sequence_number bigint, OUT workflow_id text,
  OUT state_schema_version integer)
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS
$$
  CLUSTER 'mako_fleet';
  RUN ON mako_fleet.stream_hash(stream_id);
  SELECT s.* FROM @mako@.mako_state($1) AS s;
$$;
COMMENT ON FUNCTION state(text) IS 'calls mako_state() on the shard of the tenant';

CREATE FUNCTION lookup(tenant_id uuid, key text, format_version text DEFAULT NULL)
RETURNS TABLE (stream_id text, process_id uuid, workflow_id text, version bigint)
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS
$$
  CLUSTER 'mako_fleet';
  RUN ON mako_fleet.tenant_hash(tenant_id);
  SELECT l.* FROM @mako@.mako_lookup($1, $2, $3) AS l;
$$;
COMMENT ON FUNCTION lookup(uuid, text, text) IS 'calls mako_lookup() on the shard of the tenant';

-- -------------------------------------------------------------------------------------------------
-- All shards or none: two-phase commit with presumed abort
--
-- A transaction is prepared on every shard under one gid. It is decided by the commit of its row of
-- decision: what is prepared without a row was not committed. From before the first PREPARE until
-- that commit, the coordinator's transaction holds an advisory lock of the gid, which ends with it
-- whatever happens. So resolve() takes the lock before it looks for the row. If it gets the lock,
-- the row is there for all to see, or will never be.

CREATE TABLE decision (
  gid         text PRIMARY KEY,
  statement   text NOT NULL,
  shards      text[] NOT NULL,
  decided_by  text NOT NULL DEFAULT session_user,
  decided_at  timestamptz NOT NULL DEFAULT now(),
  done_at     timestamptz
);
COMMENT ON TABLE decision IS
'the transactions that were committed on all shards; one that is not here was not';
COMMENT ON COLUMN decision.gid IS
'followed by its own name, what every shard has prepared it as';
COMMENT ON COLUMN decision.done_at IS
'when every shard had committed; null: one may still have it prepared, which resolve() ends';
SELECT pg_catalog.pg_extension_config_dump('decision', '');

CREATE FUNCTION gid_prefix() RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS
$$
  SELECT format('mako_fleet %s %s ', c.system_identifier, d.oid)
  FROM pg_control_system() c, pg_database d WHERE d.datname = current_database()
$$;
COMMENT ON FUNCTION gid_prefix() IS
'how the gids of this coordinator begin: another one, or a copy of this one by CREATE DATABASE or '
'pg_dump, leaves them alone';

CREATE FUNCTION gid_lock(gid text) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS
$$ SELECT hashtextextended(gid, 0) $$;
COMMENT ON FUNCTION gid_lock(text) IS
'the advisory lock that says that a coordinator has not decided about a gid yet';

CREATE FUNCTION assert_done(answers shard_answer[], shards text[], tag text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  a record;
  others text;
BEGIN
  SELECT * INTO a FROM unnest(answers) AS u WHERE u.sqlstate IS NOT NULL LIMIT 1;
  IF FOUND THEN
    SELECT string_agg(format('shard "%s": %s', u.shard, u.message), '; ') INTO others
    FROM unnest(answers) AS u WHERE u.sqlstate IS NOT NULL AND u.shard <> a.shard;
    RAISE EXCEPTION USING
      ERRCODE = a.sqlstate,
      MESSAGE = format('shard "%s": %s', a.shard, a.message),
      DETAIL = concat_ws(' ', nullif(a.detail, ''), 'Nothing is done on any shard.',
                         'Others fail, too: ' || others || '.'),
      HINT = coalesce(a.hint, '');
  END IF;
  SELECT s AS shard INTO a
  FROM unnest(shards) AS s
  WHERE NOT EXISTS (SELECT FROM unnest(answers) AS u WHERE u.shard = s AND u.answer = tag) LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = 'object_not_in_prerequisite_state',
      MESSAGE = format('shard "%s" has not done %s', a.shard, tag),
      DETAIL = 'The options of server "mako_fleet" have changed meanwhile. '
               'Nothing is done on any shard.';
  END IF;
END
$$;
COMMENT ON FUNCTION assert_done(shard_answer[], text[], text) IS
'raises the first error of these answers, with the name of its shard; '
'error 55000 unless all of these shards have answered with the tag of a command';

CREATE FUNCTION prepare(gid text, statement text, lock_timeout interval) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  shards text[] := ARRAY(SELECT c.shard FROM mako_fleet.shard_connection() c);
  is_preparing boolean := false;
BEGIN
  -- Not inside the block below, whose failure would release it too early.
  PERFORM pg_advisory_xact_lock(mako_fleet.gid_lock(gid));
  BEGIN
    -- First of all, so that what forbids it does so while nothing is prepared.
    INSERT INTO mako_fleet.decision (gid, statement, shards)
    VALUES (prepare.gid, prepare.statement, shards);
    PERFORM mako_fleet.assert_done(ARRAY(SELECT c FROM mako_fleet.connect(NULL) c), '{}', '');
    -- Two statements may wait for each other on two shards, which no server notices. A statement
    -- inside DO cannot end the transaction.
    PERFORM mako_fleet.assert_done(ARRAY(SELECT a FROM mako_fleet.ask(format(
      'BEGIN; SET LOCAL lock_timeout = %s; DO LANGUAGE plpgsql %L',
      ceil(extract(epoch FROM lock_timeout) * 1000)::bigint,
      format('BEGIN EXECUTE %L; END', statement))) a), shards, 'DO');
    is_preparing := true;
    PERFORM mako_fleet.assert_done(ARRAY(
      SELECT a FROM mako_fleet.ask('PREPARE TRANSACTION ', NULL, gid) a),
      shards, 'PREPARE TRANSACTION');
  EXCEPTION WHEN query_canceled OR assert_failure OR OTHERS THEN
    PERFORM mako_fleet.disconnect();
    IF is_preparing THEN
      -- What this does not reach is in doubt until resolve() rolls it back.
      PERFORM mako_fleet.connect(NULL);
      PERFORM mako_fleet.ask('ROLLBACK PREPARED ', NULL, gid);
      PERFORM mako_fleet.disconnect();
    END IF;
    RAISE;
  END;
END
$$;
COMMENT ON FUNCTION prepare(text, text, interval) IS
'executes a statement on all shards and prepares it there under a gid, and writes the decision '
'that the caller''s commit makes; an error leaves nothing';

CREATE FUNCTION confirm(gid text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  missing text[] := '{}';
BEGIN
  BEGIN
    -- 42704: resolve() was faster.
    missing := ARRAY(
      SELECT format('shard "%s": %s', s, coalesce(a.message, 'not asked'))
      FROM mako_fleet.decision d CROSS JOIN unnest(d.shards) AS s
      LEFT JOIN mako_fleet.ask('COMMIT PREPARED ', NULL, confirm.gid) a ON a.shard = s
      WHERE d.gid = confirm.gid AND a.answer IS DISTINCT FROM 'COMMIT PREPARED'
        AND a.sqlstate IS DISTINCT FROM '42704');
    PERFORM mako_fleet.disconnect();
    IF missing = '{}' THEN
      UPDATE mako_fleet.decision d SET done_at = clock_timestamp() WHERE d.gid = confirm.gid;
    END IF;
  EXCEPTION WHEN query_canceled OR assert_failure OR OTHERS THEN
    -- An error would say that nothing was done.
    missing := ARRAY[SQLERRM];
    PERFORM mako_fleet.disconnect();
  END;
  IF missing <> '{}' THEN
    RAISE WARNING USING
      MESSAGE = 'the statement is committed, but not on every shard yet',
      DETAIL = array_to_string(missing, '; ') || '.',
      HINT = 'SELECT * FROM mako_fleet.resolve() commits it there.';
  END IF;
END
$$;
COMMENT ON FUNCTION confirm(text) IS
'commits on all shards what was decided, on the connections that prepared it; '
'a warning where that fails';

-- A SET clause would forbid the commit, so names and operators are qualified.
CREATE PROCEDURE run_atomically(
  statement text, lock_timeout interval DEFAULT '10 s', INOUT gid text DEFAULT NULL)
LANGUAGE plpgsql AS
$$
BEGIN
  IF statement IS NULL OR lock_timeout IS NULL THEN
    RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed',
      MESSAGE = 'statement and lock_timeout must not be null';
  END IF;
  -- In a transaction block this is error 2D000: the block could take the decision back.
  COMMIT;
  SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
  IF pg_catalog.current_setting('synchronous_commit') OPERATOR(pg_catalog.<>) 'remote_apply' THEN
    PERFORM pg_catalog.set_config('synchronous_commit', 'on', true);
  END IF;
  gid := pg_catalog.concat(mako_fleet.gid_prefix(), pg_catalog.gen_random_uuid());
  PERFORM mako_fleet.prepare(gid, statement, lock_timeout);
  COMMIT;
  SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
  PERFORM mako_fleet.confirm(gid);
END
$$;
COMMENT ON PROCEDURE run_atomically(text, interval, text) IS
'executes a statement on all shards, or on none; returns the gid of its row of decision';

CREATE FUNCTION resolve()
RETURNS TABLE (shard text, gid text, outcome text, sqlstate text, message text)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp SET row_security = off AS
$$
#variable_conflict use_column
DECLARE
  undone text[];
  reached text[] := '{}';
  held text[] := '{}';
  prepared jsonb := '[]';
  is_decided boolean;
  p record;
  a record;
BEGIN
  -- A standby sees neither the locks nor the latest decisions of its primary, an old snapshot no
  -- decision after it.
  IF current_setting('transaction_read_only')::boolean THEN
    RAISE EXCEPTION USING ERRCODE = 'read_only_sql_transaction',
      MESSAGE = 'cannot resolve transactions on a standby or in a read-only transaction';
  END IF;
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
      MESSAGE = 'cannot resolve transactions in a transaction that is not READ COMMITTED',
      DETAIL = 'It may not see the latest decisions.';
  END IF;
  -- Before the shards are asked: what is decided later may be prepared after they have answered.
  undone := ARRAY(SELECT d.gid FROM mako_fleet.decision d WHERE d.done_at IS NULL);
  FOR a IN SELECT c.* FROM mako_fleet.connect(NULL) c LOOP
    RETURN QUERY SELECT a.shard, NULL, 'unreachable', a.sqlstate, a.message;
  END LOOP;
  FOR a IN
    SELECT q.* FROM mako_fleet.ask(format(
      'SELECT pg_catalog.array_agg(p.gid)::pg_catalog.text FROM pg_catalog.pg_prepared_xacts AS p '
      'WHERE p.database OPERATOR(pg_catalog.=) pg_catalog.current_database() '
      'AND pg_catalog.starts_with(p.gid, %L)', mako_fleet.gid_prefix())) q
  LOOP
    IF a.sqlstate IS NOT NULL THEN
      RETURN QUERY SELECT a.shard, NULL, 'unreachable', a.sqlstate, a.message;
    ELSE
      reached := reached || a.shard;
      prepared := prepared
        || coalesce((SELECT jsonb_agg(jsonb_build_array(a.shard, u.gid) ORDER BY u.gid)
                     FROM unnest(a.answer::text[]) AS u (gid)), '[]');
    END IF;
  END LOOP;
  FOR p IN
    -- What was prepared as, and under which gid: without the name of the shard.
    SELECT e->>0 AS shard, e->>1 AS name,
           array_to_string((string_to_array(e->>1, ' '))[1:4], ' ') AS gid
    FROM jsonb_array_elements(prepared) AS e
  LOOP
    IF NOT pg_try_advisory_xact_lock(mako_fleet.gid_lock(p.gid)) THEN
      held := held || p.gid;
      RETURN QUERY SELECT p.shard, p.gid, 'running', NULL, NULL;
      CONTINUE;
    END IF;
    -- A statement of its own, so that its snapshot is taken under the lock.
    is_decided := EXISTS (SELECT FROM mako_fleet.decision d WHERE d.gid = p.gid);
    FOR a IN
      SELECT q.* FROM mako_fleet.ask(
        format('%s PREPARED %L', CASE WHEN is_decided THEN 'COMMIT' ELSE 'ROLLBACK' END, p.name),
        ARRAY[p.shard]) q
    LOOP
      IF a.sqlstate IS NULL THEN
        RETURN QUERY SELECT p.shard, p.gid,
          CASE WHEN is_decided THEN 'committed' ELSE 'rolled back' END, NULL, NULL;
      ELSIF a.sqlstate <> '42704' THEN  -- else another session has just ended it
        held := held || p.gid;
        RETURN QUERY SELECT p.shard, p.gid, 'in doubt', a.sqlstate, a.message;
      END IF;
    END LOOP;
  END LOOP;
  PERFORM mako_fleet.disconnect();
  UPDATE mako_fleet.decision d SET done_at = clock_timestamp()
  WHERE d.gid = ANY (undone) AND d.done_at IS NULL AND d.shards <@ reached AND d.gid <> ALL (held);
  RETURN QUERY
  SELECT s, d.gid, 'in doubt', NULL, 'it is to be committed, but the shard is not reached'
  FROM mako_fleet.decision d, unnest(d.shards) AS s
  WHERE d.gid = ANY (undone) AND d.done_at IS NULL AND s <> ALL (reached)
  ORDER BY d.gid, s;
EXCEPTION WHEN query_canceled OR assert_failure OR OTHERS THEN
  PERFORM mako_fleet.disconnect();
  RAISE;
END
$$;
COMMENT ON FUNCTION resolve() IS
'ends what this coordinator has left prepared on shards: committed where that was decided, else '
'rolled back; outcome is committed, rolled back, running, in doubt or unreachable';

-- -------------------------------------------------------------------------------------------------
-- What changes something, or takes a statement, is for the roles to which it is granted.

REVOKE EXECUTE ON FUNCTION
  shard_connection(),
  disconnect(),
  connect(text[]),
  ask(text, text[], text),
  on_shards(text, text[]),
  claim_reason(text, text, text),
  migrate(text, text, text, uuid, boolean, boolean, bigint, text),
  migrate_version(text, text, text, uuid, boolean, boolean, bigint, text),
  migrate_batched(text, text, text, integer, uuid, boolean, bigint, interval, interval, text),
  migrate_version_batched(
    text, text, text, integer, uuid, boolean, bigint, interval, interval, text),
  revert(text, text),
  drain(text, text),
  retire(text, text, timestamptz),
  spawn(text, uuid, uuid),
  append(text, text, text, jsonb, bigint, integer, uuid, uuid, uuid, uuid),
  prepare(text, text, interval),
  confirm(text),
  resolve()
FROM PUBLIC;
REVOKE EXECUTE ON PROCEDURE run_atomically(text, interval, text) FROM PUBLIC;

-- -------------------------------------------------------------------------------------------------
-- The schemas of the other extensions

DO $$
DECLARE
  mako text := (SELECT extnamespace::regnamespace FROM pg_catalog.pg_extension
                WHERE extname = 'mako_migration');
  dblink text := (SELECT extnamespace::regnamespace FROM pg_catalog.pg_extension
                  WHERE extname = 'dblink');
  f oid;
BEGIN
  -- They stand in strings, too.
  IF mako || dblink ~ '[$''%]' THEN
    RAISE EXCEPTION USING ERRCODE = 'invalid_name',
      MESSAGE = format('the name of schema %s or %s has a dollar, quote or percent sign',
                       mako, dblink);
  END IF;
  FOR f IN
    SELECT p.oid FROM pg_catalog.pg_proc p
    WHERE p.pronamespace = 'mako_fleet'::regnamespace AND p.prosrc ~ '@(mako|dblink)@'
  LOOP
    EXECUTE replace(replace(pg_catalog.pg_get_functiondef(f), '@mako@', mako), '@dblink@', dblink);
  END LOOP;
END
$$;
