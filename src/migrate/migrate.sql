-- -------------------------------------------------------------------------------------------------
-- Report

CREATE TYPE mako_migration_error AS (
  stream_id        text,
  phase            text,
  sequence_number  bigint,
  sqlstate         text,
  message          text,
  detail           text,
  hint             text,
  context          text
);
COMMENT ON TYPE mako_migration_error IS
'one stream that could not be migrated: phase is load, upcast, event, apply, migrate, state, '
'snapshot or registry';

CREATE TYPE mako_migration_report AS (
  run_id      bigint,
  source_wf   mako_workflow_id,
  target_wf   mako_workflow_id,
  migrated    bigint,
  skipped     bigint,
  failed      bigint,
  errors      mako_migration_error[],
  started_at  timestamptz,
  duration    interval
);
COMMENT ON TYPE mako_migration_report IS
'what a run did: counts of streams, the first 1,000 errors (all of them are in '
'mako.migration_error), start and duration';

CREATE FUNCTION mako_is_ok(report mako_migration_report) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT (report).failed OPERATOR(pg_catalog.=) 0 $$;
COMMENT ON FUNCTION mako_is_ok(mako_migration_report) IS 'true when no stream failed';

CREATE FUNCTION mako_format(report mako_migration_report) RETURNS text
LANGUAGE sql STABLE STRICT PARALLEL SAFE AS
$$ SELECT pg_catalog.format('%s -> %s: %s migrated, %s skipped, %s failed in %s s (run %s)',
     COALESCE((report).source_wf::pg_catalog.text, '*'),
     COALESCE((report).target_wf::pg_catalog.text, '*'),
     (report).migrated, (report).skipped, (report).failed,
     pg_catalog.round(EXTRACT(epoch FROM (report).duration)::pg_catalog.numeric, 3),
     COALESCE((report).run_id::pg_catalog.text, '*')) $$;
COMMENT ON FUNCTION mako_format(mako_migration_report) IS
'one line of text about a report, with * where merged reports differ';

CREATE FUNCTION mako_assert_ok(report mako_migration_report) RETURNS mako_migration_report
LANGUAGE plpgsql STABLE PARALLEL SAFE AS
$$
DECLARE
  first @extschema@.mako_migration_error;
BEGIN
  IF (report).failed IS NULL THEN
    RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'there is no report';
  END IF;
  IF (report).failed OPERATOR(pg_catalog.=) 0 THEN
    RETURN report;
  END IF;
  first := (report).errors[1];
  RAISE EXCEPTION USING
    ERRCODE = 'MK006',
    MESSAGE = pg_catalog.format('%s of %s streams could not be migrated', (report).failed,
                                (report).failed OPERATOR(pg_catalog.+) (report).migrated),
    DETAIL = pg_catalog.format('%s. First error: stream "%s", phase %s: %s',
                               @extschema@.mako_format(report),
                               (first).stream_id, (first).phase, (first).message),
    HINT = 'The errors are in the report. If this error rolls the run back, '
           'mako.migration_error has none of them: a dry run finds them again.';
END
$$;
COMMENT ON FUNCTION mako_assert_ok(mako_migration_report) IS
'returns the report when no stream failed, else raises MK006; '
'for deploy scripts, where an error must roll back';

CREATE FUNCTION mako_merge(a mako_migration_report, b mako_migration_report)
RETURNS mako_migration_report LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS
$$ SELECT ROW(
     CASE WHEN (a).run_id OPERATOR(pg_catalog.=) (b).run_id THEN (a).run_id END,
     CASE WHEN (a).source_wf::pg_catalog.text OPERATOR(pg_catalog.=) (b).source_wf::pg_catalog.text
          THEN (a).source_wf END,
     CASE WHEN (a).target_wf::pg_catalog.text OPERATOR(pg_catalog.=) (b).target_wf::pg_catalog.text
          THEN (a).target_wf END,
     (a).migrated OPERATOR(pg_catalog.+) (b).migrated,
     (a).skipped OPERATOR(pg_catalog.+) (b).skipped,
     (a).failed OPERATOR(pg_catalog.+) (b).failed,
     (pg_catalog.array_cat((a).errors, (b).errors))[1:1000],
     LEAST((a).started_at, (b).started_at),
     (a).duration OPERATOR(pg_catalog.+) (b).duration
   )::@extschema@.mako_migration_report $$;
COMMENT ON FUNCTION mako_merge(mako_migration_report, mako_migration_report) IS
'adds up two reports: counts, durations and errors (at most 1,000); ids that differ become null';

CREATE AGGREGATE mako_merge(mako_migration_report) (
  SFUNC = mako_merge, STYPE = mako_migration_report, COMBINEFUNC = mako_merge, PARALLEL = SAFE
);
COMMENT ON AGGREGATE mako_merge(mako_migration_report) IS 'adds up reports; null for no report';

-- -------------------------------------------------------------------------------------------------
-- The migration

CREATE FUNCTION mako_version_fingerprint(
  source_fv mako_format_version, target_fv mako_format_version)
RETURNS text LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_version_fingerprint(mako_format_version, mako_format_version) IS
'sha256 over all definitions that mako_migrate_version() would use, '
'which compares its argument expect with it';

CREATE FUNCTION mako_migrate(
  source_wf mako_workflow_id, target_wf mako_workflow_id, tenant_id uuid DEFAULT NULL,
  update_registry boolean DEFAULT true, in_flight_only boolean DEFAULT false,
  max_errors bigint DEFAULT NULL, expect text DEFAULT NULL, reason text DEFAULT NULL)
RETURNS mako_migration_report LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_migrate(
  mako_workflow_id, mako_workflow_id, uuid, boolean, boolean, bigint, text, text) IS
'migrates every stream that runs under the source workflow to the target workflow and reports; '
'call it as SELECT * FROM mako_migrate(...)';

CREATE FUNCTION mako_migrate_version(
  source_fv mako_format_version, target_fv mako_format_version, tenant_id uuid DEFAULT NULL,
  update_registry boolean DEFAULT true, in_flight_only boolean DEFAULT false,
  max_errors bigint DEFAULT NULL, expect text DEFAULT NULL, reason text DEFAULT NULL)
RETURNS SETOF mako_migration_report LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_migrate_version(
  mako_format_version, mako_format_version, uuid, boolean, boolean, bigint, text, text) IS
'migrates every workflow of a format version for which a way to the target is registered, '
'one report a workflow; refused while anything in flight is undecided';

-- The procedures commit after every batch, which a SET clause would forbid. They pin the search
-- path inside.
CREATE PROCEDURE mako_migrate_batched(
  source_wf mako_workflow_id, target_wf mako_workflow_id, batch_size integer DEFAULT 1000,
  tenant_id uuid DEFAULT NULL, in_flight_only boolean DEFAULT false, max_errors bigint DEFAULT NULL,
  pause interval DEFAULT '0', lock_timeout interval DEFAULT '1 s', expect text DEFAULT NULL,
  reason text DEFAULT NULL, INOUT report mako_migration_report DEFAULT NULL)
LANGUAGE c AS 'MODULE_PATHNAME';
COMMENT ON PROCEDURE mako_migrate_batched(
  mako_workflow_id, mako_workflow_id, integer, uuid, boolean, bigint, interval, interval, text,
  text, mako_migration_report) IS
'does what mako_migrate() does, batch by batch, and commits after each; '
'called again after an error or a cancel, it goes on where it was';

CREATE PROCEDURE mako_migrate_version_batched(
  source_fv mako_format_version, target_fv mako_format_version, batch_size integer DEFAULT 1000,
  tenant_id uuid DEFAULT NULL, in_flight_only boolean DEFAULT false, max_errors bigint DEFAULT NULL,
  pause interval DEFAULT '0', lock_timeout interval DEFAULT '1 s', expect text DEFAULT NULL,
  reason text DEFAULT NULL, INOUT reports mako_migration_report[] DEFAULT NULL)
LANGUAGE c AS 'MODULE_PATHNAME';
COMMENT ON PROCEDURE mako_migrate_version_batched(
  mako_format_version, mako_format_version, integer, uuid, boolean, bigint, interval, interval,
  text, text, mako_migration_report[]) IS
'does what mako_migrate_version() does, batch by batch, and commits after each; '
'called again, it goes on where it was';

-- A view reads with its owner's rights, a function with the caller's. It shows the sessions and
-- tables that the caller may see.
CREATE FUNCTION mako_current_progress()
RETURNS TABLE (
  run_id bigint, kind text, source_wf text, target_wf text, done bigint, total bigint,
  failed bigint, rate double precision, started_at timestamptz, estimated_end timestamptz,
  pid integer)
LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_current_progress() IS 'what the view mako_progress shows';

CREATE VIEW mako_progress AS SELECT * FROM mako_current_progress();
COMMENT ON VIEW mako_progress IS
'migrations under way, as far as the caller may see their sessions, '
'and batched ones that wait to be called again';
GRANT SELECT ON mako_progress TO PUBLIC;

CREATE FUNCTION mako_revert(run_id bigint, reason text DEFAULT NULL)
RETURNS mako_migration_report LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_revert(bigint, text) IS
'undoes a migration run, stream by stream, where nothing came after it, and reports; '
'call it as SELECT * FROM mako_revert(...)';

-- -------------------------------------------------------------------------------------------------
-- How a format version ends

CREATE TABLE mako_exemption (
  workflow_id          mako_workflow_id PRIMARY KEY,
  reason               text NOT NULL,
  exempted_by          text NOT NULL,
  exempted_by_identity text NOT NULL,
  exempted_at          timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE mako_exemption IS
'workflows whose streams need no migration; written by mako_exempt() and mako_unexempt() only';

GRANT SELECT ON mako_exemption TO PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('mako_exemption', '');

CREATE FUNCTION mako_exempt(workflow_id mako_workflow_id, reason text)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_exempt(mako_workflow_id, text) IS
'declares that a workflow needs no migration: '
'its streams stay readable, and do not block the retirement of its format version';

CREATE FUNCTION mako_unexempt(workflow_id mako_workflow_id)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_unexempt(mako_workflow_id) IS
'takes mako_exempt() back; refused while the format version is retired';

CREATE FUNCTION mako_coverage(format_version mako_format_version)
RETURNS TABLE (
  workflow_id text, streams bigint, in_flight bigint, decision text, targets text[], reason text)
LANGUAGE c STABLE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_coverage(mako_format_version) IS
'the workflows of a format version that streams still run under: '
'how many, how many in flight, and the decision: migration, identity, exempt or undecided';

CREATE FUNCTION mako_drain(format_version mako_format_version, reason text DEFAULT NULL)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_drain(mako_format_version, text) IS
'lets no process start under this format version from now on';

CREATE FUNCTION mako_retire(
  format_version mako_format_version, reason text DEFAULT NULL,
  messages_until timestamptz DEFAULT NULL)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_retire(mako_format_version, text, timestamptz) IS
'lets nothing be written under this format version from now on; '
'refused while anything is in flight; messages of the version are accepted until messages_until';

CREATE FUNCTION mako_reactivate(format_version mako_format_version, reason text DEFAULT NULL)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_reactivate(mako_format_version, text) IS
'takes mako_drain() or mako_retire() back';

-- -------------------------------------------------------------------------------------------------
-- Dependents: other tables whose workflow column follows a migrated process

CREATE FUNCTION mako_remembered_relation(relation text, relation_identity text) RETURNS oid
LANGUAGE sql STABLE PARALLEL SAFE STRICT SET search_path = pg_catalog, pg_temp AS
$$
  -- A relation that has the name now is meant, even if another one was added: tables are replaced
  -- under their names.
  SELECT coalesce(
    (SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = (parse_ident(relation))[1] AND c.relname = (parse_ident(relation))[2]),
    (SELECT c.oid FROM pg_class c, pg_control_system() s
     WHERE c.oid::text || '@' || s.system_identifier::text = relation_identity))
$$;
COMMENT ON FUNCTION mako_remembered_relation(text, text) IS
'the relation of this name or, when there is none, the one of this identity, '
'whatever its name is now; null for none';

CREATE FUNCTION mako_dependent_problem(
  relation oid, process_column text, workflow_column text, tenant_column text,
  OUT sqlstate text, OUT problem text, OUT hint text, OUT process_type oid)
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS
$$
  WITH RECURSIVE wanted (number, name, types, hint) AS (
    VALUES (1, process_column, '{uuid,text,bigint}'::regtype[],
            'It holds process ids (uuid), stream ids (text) or stream numbers (bigint).'),
           (2, workflow_column, '{text,varchar}', 'It holds workflow ids.'),
           (3, tenant_column, '{uuid}', 'It holds tenant ids.')),
  base (number, type, typmod) AS (
    SELECT w.number, a.atttypid, a.atttypmod
    FROM wanted w
    JOIN pg_attribute a ON a.attrelid = relation AND a.attname = w.name
                           AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT b.number, t.typbasetype, t.typtypmod
    FROM base b JOIN pg_type t ON t.oid = b.type AND t.typtype = 'd'),
  actual AS (
    SELECT b.number, b.type, b.typmod
    FROM base b JOIN pg_type t ON t.oid = b.type AND t.typtype <> 'd'),
  found (number, sqlstate, problem, hint) AS (
    SELECT 0, '42P01', 'The relation does not exist.', NULL
    WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = relation)
    UNION ALL
    SELECT 1, '42809', 'It is temporary.', 'Sessions of others cannot see it.'
    FROM pg_class c WHERE c.oid = relation AND c.relpersistence = 't'
    UNION ALL
    SELECT 2, '42809', 'It belongs to the store, to an extension or to the server.',
           'Name a table of your own.'
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = relation
      AND (n.nspname IN ('mako', 'pg_catalog', 'pg_toast', 'information_schema')
           OR EXISTS (SELECT FROM pg_depend d
                      WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                        AND d.deptype = 'e'))
    UNION ALL
    SELECT 3, '42809', 'Its rows cannot be updated.', 'Name a table, or a view that can be updated.'
    FROM pg_class c WHERE c.oid = relation AND pg_relation_is_updatable(c.oid, true) & 4 = 0
    UNION ALL
    SELECT 3 + w.number, '42703', format('Column "%s" does not exist.', w.name), NULL
    FROM wanted w
    WHERE w.name IS NOT NULL AND NOT EXISTS (SELECT FROM actual a WHERE a.number = w.number)
    UNION ALL
    SELECT 6 + w.number, '42804',
           format('Column "%s" has type %s; expected is one of: %s.',
                  w.name, format_type(a.type, NULL), array_to_string(w.types, ', ')),
           w.hint
    FROM wanted w JOIN actual a ON a.number = w.number AND a.type::regtype <> ALL (w.types)
    UNION ALL
    SELECT 10, '42P17', format('Column "%s" is generated.', workflow_column),
           'Let the column that it is generated from follow.'
    FROM pg_attribute a
    WHERE a.attrelid = relation AND a.attname = workflow_column AND a.attgenerated <> ''
    UNION ALL
    SELECT 11, '42809', format('Column "%s" cannot be updated.', workflow_column),
           'Name a table, or a view whose column can be updated.'
    FROM pg_attribute a
    WHERE a.attrelid = relation AND a.attname = workflow_column
      AND a.attnum > 0 AND NOT a.attisdropped
      AND NOT pg_column_is_updatable(relation, a.attnum, true)
    UNION ALL
    SELECT 12, '42701', format('Column "%s" is named twice.', w.name),
           'Process, workflow and tenant have a column each.'
    FROM wanted w WHERE w.name IS NOT NULL GROUP BY w.name HAVING count(*) > 1
    UNION ALL
    SELECT 13, '42804',
           format('Column "%s" has type %s; no workflow id has less than 14 characters.',
                  workflow_column, format_type(a.type, a.typmod)),
           'Let it be text, or varchar(213).'
    FROM actual a
    WHERE a.number = 2 AND a.type = 'varchar'::regtype AND a.typmod BETWEEN 0 AND 13 + 4)
  SELECT f.sqlstate, f.problem, f.hint, (SELECT a.type FROM actual a WHERE a.number = 1)
  FROM (VALUES (1)) AS one (row)
  LEFT JOIN (SELECT * FROM found ORDER BY number LIMIT 1) AS f ON true
$$;
COMMENT ON FUNCTION mako_dependent_problem(oid, text, text, text) IS
'why a relation cannot be a dependent with these columns: '
'code, sentence and hint, which are null when it can; and the base type of the process column';

CREATE FUNCTION mako_add_dependent(
  relation regclass, process_column name, workflow_column name, tenant_column name DEFAULT NULL)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_add_dependent(regclass, name, name, name) IS
'lets a column of another table, with workflow ids, follow its process; '
'the process column holds process ids, stream ids or stream numbers';

CREATE FUNCTION mako_remove_dependent(relation text, process_column name, workflow_column name)
RETURNS boolean LANGUAGE c VOLATILE PARALLEL UNSAFE STRICT AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_remove_dependent(text, name, name) IS
'undoes mako_add_dependent(); takes the name of the relation or, '
'so that a dropped one can be removed, the one in mako.dependent; false when it was not there';

-- -------------------------------------------------------------------------------------------------
-- Sinks: statements of users that take what a run has moved

CREATE TABLE mako_sink (
  sink_no         integer PRIMARY KEY,
  statement       text NOT NULL,
  undo            text,
  lock            text,
  search_path     text[] NOT NULL,
  owner           text NOT NULL,
  owner_identity  text NOT NULL,
  added_at        timestamptz NOT NULL DEFAULT now(),
  removed_at      timestamptz
);
COMMENT ON TABLE mako_sink IS
'statements that take what runs have moved; '
'written by mako_add_sink() and mako_remove_sink() only';
COMMENT ON COLUMN mako_sink.search_path IS
'the schemas on the path of the session that added it, on which its names are looked up';
COMMENT ON COLUMN mako_sink.owner IS 'the role that added it; it runs as this role';
COMMENT ON COLUMN mako_sink.owner_identity IS
'<oid>@<system identifier> of owner, by which a renamed role is known';
COMMENT ON COLUMN mako_sink.removed_at IS
'since when new runs do not write to it; runs that did can be undone still';

GRANT SELECT ON mako_sink TO PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('mako_sink', '');

CREATE FUNCTION mako_add_sink(statement text, undo text DEFAULT NULL, lock text DEFAULT NULL)
RETURNS integer LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_add_sink(text, text, text) IS
'lets every run execute a statement about what it has moved, the relation moved; '
'undo takes back what that wrote, lock runs before streams are locked';

CREATE FUNCTION mako_remove_sink(sink_no integer) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE STRICT AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_remove_sink(integer) IS
'lets new runs leave a sink out; false when it was not there';

-- -------------------------------------------------------------------------------------------------
-- What changes data or definitions is for the roles to which it is granted.

REVOKE EXECUTE ON FUNCTION
  mako_migrate(mako_workflow_id, mako_workflow_id, uuid, boolean, boolean, bigint, text, text),
  mako_migrate_version(
    mako_format_version, mako_format_version, uuid, boolean, boolean, bigint, text, text),
  mako_revert(bigint, text),
  mako_exempt(mako_workflow_id, text),
  mako_unexempt(mako_workflow_id),
  mako_drain(mako_format_version, text),
  mako_retire(mako_format_version, text, timestamptz),
  mako_reactivate(mako_format_version, text),
  mako_add_dependent(regclass, name, name, name),
  mako_remove_dependent(text, name, name),
  mako_add_sink(text, text, text),
  mako_remove_sink(integer)
FROM PUBLIC;

REVOKE EXECUTE ON PROCEDURE
  mako_migrate_batched(
    mako_workflow_id, mako_workflow_id, integer, uuid, boolean, bigint, interval, interval, text,
    text, mako_migration_report),
  mako_migrate_version_batched(
    mako_format_version, mako_format_version, integer, uuid, boolean, bigint, interval, interval,
    text, text, mako_migration_report[])
FROM PUBLIC;
