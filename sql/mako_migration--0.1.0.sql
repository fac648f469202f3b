-- Made by make, with sql/assemble, from src/*/*.sql and src/store/tables/*.sql. Edit those.
\echo Use "CREATE EXTENSION mako_migration" to load this file. \quit

-- The SQL interface of mako_migration, a part for each room of src/README.md. Everything is created
-- in the schema of the extension. Bodies that run later name that schema: a session may have any
-- search_path.

-- =================================================================================================
-- src/util/util.sql

-- -------------------------------------------------------------------------------------------------
-- Ids: domains over text, so that every driver, dump and replica treats them as text. The checks
-- raise instead of returning false, because "violates check constraint" does not say what is wrong.

CREATE FUNCTION mako_assert_format_version(value text) RETURNS boolean
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_assert_format_version(text) IS
'true for a well-formed format version such as FV2025-10-01, else error 22P02, '
'which says what is wrong';

CREATE FUNCTION mako_assert_workflow_id(value text) RETURNS boolean
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_assert_workflow_id(text) IS
'true for a well-formed workflow id such as gpke-supplier-change@FV2025-10-01, else error 22P02, '
'which says what is wrong';

CREATE DOMAIN mako_format_version AS text COLLATE "C"
  CONSTRAINT mako_format_version_check CHECK (mako_assert_format_version(VALUE));
COMMENT ON DOMAIN mako_format_version IS
'the release date of a rule set, FV<YYYY>-<MM>-<DD>; byte order is time order';

CREATE DOMAIN mako_workflow_id AS text COLLATE "C"
  CONSTRAINT mako_workflow_id_check CHECK (mako_assert_workflow_id(VALUE));
COMMENT ON DOMAIN mako_workflow_id IS 'workflow name and format version, <name>@FV<YYYY>-<MM>-<DD>';

CREATE FUNCTION mako_workflow_name(workflow_id mako_workflow_id) RETURNS text
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_workflow_name(mako_workflow_id) IS
'the name of a workflow id: what stands before the @';

CREATE FUNCTION mako_workflow_version(workflow_id mako_workflow_id) RETURNS mako_format_version
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_workflow_version(mako_workflow_id) IS
'the format version of a workflow id: what stands behind the @';

-- -------------------------------------------------------------------------------------------------
-- Refusals, for the authors of apply, upcast and migrate. STABLE, because the planner evaluates
-- immutable calls while planning.

CREATE FUNCTION mako_reject(reason text) RETURNS jsonb
LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_reject(text) IS
'raises MK002 with this reason, which the report shows for the stream';

CREATE FUNCTION mako_required(value jsonb, VARIADIC path text[]) RETURNS jsonb
LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_required(jsonb, text[]) IS
'the value at a path, as #> gives it, or error MK003, which names the path, when there is none; '
'a JSON null is a value';

-- =================================================================================================
-- src/json/json.sql

CREATE FUNCTION mako_merge_patch(source jsonb, target jsonb) RETURNS jsonb
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_merge_patch(jsonb, jsonb) IS
'the JSON merge patch (RFC 7396) from one document to another; '
'null in it is a member that is removed, or one set to null, which RFC 7396 cannot express';

-- =================================================================================================
-- src/gate/gate.sql

CREATE FUNCTION mako_assert_delegated() RETURNS void
LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_assert_delegated() IS
'raises 55000 unless a statement of the extension calls the function that calls this one; '
'for functions that read the store for it';

CREATE FUNCTION mako_store_column()
RETURNS TABLE (
  relation text, name text, type regtype, not_null boolean, problem text, relation_problem text)
LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_store_column() IS
'the columns that the tables of a store must have, and what is wrong with them or with their '
'tables; null where nothing is wrong or no table is there';

-- =================================================================================================
-- src/types/types.sql

CREATE FUNCTION mako_is_valid(type_definition jsonb, instance jsonb) RETURNS boolean
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_is_valid(jsonb, jsonb) IS
'true when a value matches a JSON Type Definition (RFC 8927); '
'a malformed definition is error 22032';

CREATE FUNCTION mako_validate(type_definition jsonb, instance jsonb)
RETURNS TABLE (instance_path text, schema_path text)
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_validate(jsonb, jsonb) IS
'every error of a value against a JSON Type Definition (RFC 8927), '
'as JSON pointers into value and definition; no row for a valid one';

CREATE FUNCTION mako_instances(type_definition jsonb) RETURNS TABLE (variant text, instance jsonb)
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_instances(jsonb) IS
'up to 1,000 values that a JSON Type Definition (RFC 8927) allows, with every variant, enum value, '
'missing property, null and boundary that there is room for';

-- =================================================================================================
-- src/evaluate/evaluate.sql

CREATE FUNCTION mako_explain_function(function regprocedure)
RETURNS TABLE (call text, evaluation text, calls integer, reason text, hint text)
LANGUAGE c STABLE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_explain_function(regprocedure) IS
'how a function and each call in it will run: inlined, bound (inlined, '
'with values that are evaluated once), native, server or called; and what to change';

-- =================================================================================================
-- src/define/define.sql

-- -------------------------------------------------------------------------------------------------
-- Definitions: what is registered. Functions are kept as text, not as regprocedure, which would
-- block pg_upgrade. A write is granted to no role: the registration functions check the caller and
-- then write these rows as the tables' owner.

CREATE TABLE mako_workflow (
  workflow_id             mako_workflow_id PRIMARY KEY,
  apply                   text,
  upcast                  text,
  in_flight               text,
  initial_state           jsonb,
  event_type_definition   jsonb,
  state_type_definition   jsonb,
  state_schema_version    integer NOT NULL
    CONSTRAINT mako_workflow_state_schema_version_check CHECK (state_schema_version >= 1),
  function_owner          text[] NOT NULL,
  function_owner_identity text[] NOT NULL,
  fingerprint             text NOT NULL,
  registered_by           text NOT NULL,
  registered_by_identity  text NOT NULL,
  registered_at           timestamptz NOT NULL DEFAULT now(),
  dispatch                text NOT NULL DEFAULT 'any'
    CONSTRAINT mako_workflow_dispatch_check
    CHECK (dispatch IN ('any', 'forward_compatible', 'pinned', 'explicit')),
  dispatch_versions       text[] COLLATE "C",
  CONSTRAINT mako_workflow_apply_check CHECK (apply IS NULL OR initial_state IS NOT NULL),
  CONSTRAINT mako_workflow_dispatch_versions_check
    CHECK ((dispatch = 'explicit') = (dispatch_versions IS NOT NULL))
);
COMMENT ON TABLE mako_workflow IS
'registered workflows; written by mako_register_workflow() and mako_unregister_workflow() only';
COMMENT ON COLUMN mako_workflow.event_type_definition IS
'JSON Type Definition (RFC 8927) of the payloads after upcast';
COMMENT ON COLUMN mako_workflow.state_type_definition IS
'JSON Type Definition (RFC 8927) of the states';
COMMENT ON COLUMN mako_workflow.function_owner IS
'owners of apply, upcast and in_flight at registration, in that order; '
'then those of helpers that run as another role';
COMMENT ON COLUMN mako_workflow.function_owner_identity IS
'<oid>@<system identifier> of each owner: '
'in the same cluster this decides, so that a role may be renamed; in another the name decides';
COMMENT ON COLUMN mako_workflow.registered_by IS
'the role that may replace it, beside the owners of its functions';
COMMENT ON COLUMN mako_workflow.registered_by_identity IS
'<oid>@<system identifier> of registered_by';
COMMENT ON COLUMN mako_workflow.fingerprint IS
'sha256 over all that was registered; a different one when it is used is an error';
COMMENT ON COLUMN mako_workflow.dispatch IS
'the messages that reach the workflow''s processes; see mako_set_dispatch()';
COMMENT ON COLUMN mako_workflow.dispatch_versions IS
'the format versions that the policy explicit accepts';

-- No foreign keys: a parallel restore loads the tables of an extension in any order. The
-- registration functions keep the references.
CREATE TABLE mako_state_migration (
  source_wf               mako_workflow_id,
  target_wf               mako_workflow_id,
  migrate                 text,
  function_owner          text[] NOT NULL,
  function_owner_identity text[] NOT NULL,
  fingerprint             text NOT NULL,
  registered_by           text NOT NULL,
  registered_by_identity  text NOT NULL,
  registered_at           timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (source_wf, target_wf),
  CONSTRAINT mako_state_migration_target_wf_check CHECK (source_wf <> target_wf)
);
COMMENT ON TABLE mako_state_migration IS
'registered steps; written by mako_register_migration() and mako_unregister_migration() only';
COMMENT ON COLUMN mako_state_migration.migrate IS
'the function that maps the state; null for an identity migration';

GRANT SELECT ON mako_workflow, mako_state_migration TO PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('mako_workflow', '');
SELECT pg_catalog.pg_extension_config_dump('mako_state_migration', '');

CREATE FUNCTION mako_register_workflow(
  workflow_id mako_workflow_id, apply text DEFAULT NULL, upcast text DEFAULT NULL,
  in_flight text DEFAULT NULL, initial_state jsonb DEFAULT NULL,
  state_schema_version integer DEFAULT 1, event_type_definition jsonb DEFAULT NULL,
  state_type_definition jsonb DEFAULT NULL, replace boolean DEFAULT false)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_register_workflow(
  mako_workflow_id, text, text, text, jsonb, integer, jsonb, jsonb, boolean) IS
'registers a workflow version with its functions; '
'the same registration twice is a no-op, a different one needs replace => true';

CREATE FUNCTION mako_unregister_workflow(workflow_id mako_workflow_id)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_unregister_workflow(mako_workflow_id) IS
'forgets a workflow that no state migration, stream or migration run refers to';

CREATE FUNCTION mako_register_migration(
  source_wf mako_workflow_id, target_wf mako_workflow_id, migrate text DEFAULT NULL,
  replace boolean DEFAULT false)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_register_migration(mako_workflow_id, mako_workflow_id, text, boolean) IS
'registers one step from a workflow version to another; '
'without a function it is an identity migration';

CREATE FUNCTION mako_register_migrations(
  source_fv mako_format_version, target_fv mako_format_version, workflow_names text[])
RETURNS bigint
LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  missing text;
BEGIN
  SELECT string_agg(format('"%s"', w.id), ', ' ORDER BY w.id COLLATE "C") INTO missing
  FROM unnest(workflow_names) AS n (name)
  CROSS JOIN LATERAL (VALUES (n.name || '@' || source_fv), (n.name || '@' || target_fv)) AS w (id)
  WHERE NOT EXISTS (SELECT FROM @extschema@.mako_workflow r WHERE r.workflow_id::text = w.id);
  IF array_position(workflow_names, NULL) IS NOT NULL THEN
    RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed',
      MESSAGE = 'workflow_names must not contain null';
  ELSIF missing IS NOT NULL THEN
    RAISE EXCEPTION USING ERRCODE = 'undefined_object',
      MESSAGE = 'some of the workflows are not registered',
      DETAIL = format('Not registered: %s.', missing),
      HINT = 'The table mako_workflow shows what is registered; '
        'mako_register_workflow() adds to it.';
  END IF;
  PERFORM @extschema@.mako_register_migration(
    (n.name || '@' || source_fv)::@extschema@.mako_workflow_id,
    (n.name || '@' || target_fv)::@extschema@.mako_workflow_id, NULL::text, false)
  FROM (SELECT DISTINCT u.name FROM unnest(workflow_names) AS u (name) ORDER BY u.name) AS n;
  RETURN (SELECT count(DISTINCT u.name) FROM unnest(workflow_names) AS u (name));
END
$$;
COMMENT ON FUNCTION mako_register_migrations(mako_format_version, mako_format_version, text[]) IS
'registers identity migrations between two format versions for many workflows; returns how many';

CREATE FUNCTION mako_unregister_migration(source_wf mako_workflow_id, target_wf mako_workflow_id)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_unregister_migration(mako_workflow_id, mako_workflow_id) IS
'forgets a state migration that no migration run went through';

CREATE FUNCTION mako_set_dispatch(
  workflow_id mako_workflow_id, policy text, format_versions mako_format_version[] DEFAULT NULL)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_set_dispatch(mako_workflow_id, text, mako_format_version[]) IS
'sets the messages that reach the workflow''s processes: any, '
'forward_compatible (their version or later), pinned (their version) or explicit (listed versions)';

CREATE FUNCTION mako_fingerprint(source_wf mako_workflow_id, target_wf mako_workflow_id)
RETURNS text LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_fingerprint(mako_workflow_id, mako_workflow_id) IS
'sha256 over all definitions that a migration of this pair would use; '
'mako_migrate() compares its argument expect with it';

-- -------------------------------------------------------------------------------------------------
-- What changes data or definitions is for the roles to which it is granted.

REVOKE EXECUTE ON FUNCTION
  mako_register_workflow(mako_workflow_id, text, text, text, jsonb, integer, jsonb, jsonb, boolean),
  mako_unregister_workflow(mako_workflow_id),
  mako_register_migration(mako_workflow_id, mako_workflow_id, text, boolean),
  mako_register_migrations(mako_format_version, mako_format_version, text[]),
  mako_unregister_migration(mako_workflow_id, mako_workflow_id),
  mako_set_dispatch(mako_workflow_id, text, mako_format_version[])
FROM PUBLIC;

-- =================================================================================================
-- src/store/store.sql

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
    (1, 'function', 'layout_version', 'layout_version', $$
CREATE FUNCTION mako.layout_version() RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT 1';
COMMENT ON FUNCTION mako.layout_version() IS
'the layout version of this store; mako_create_store() upgrades an older one' $$),
    (2, 'table', 'stream', 'stream', $$
CREATE TABLE mako.stream (
  stream_no    bigint GENERATED ALWAYS AS IDENTITY,
  stream_id    text COLLATE "C" NOT NULL,
  tenant_id    uuid,
  process_id   uuid,
  workflow_id  text COLLATE "C" NOT NULL,
  version      bigint NOT NULL DEFAULT 0,
  created_at   timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);
COMMENT ON TABLE mako.stream IS
'stream heads: the workflow that a stream runs under now, and its last sequence number';
COMMENT ON COLUMN mako.stream.stream_id IS
'process/<tenant uuid>/<process uuid>, or any other text for a stream that is no process';
COMMENT ON COLUMN mako.stream.process_id IS 'null for a stream that is no process';
COMMENT ON COLUMN mako.stream.workflow_id IS
'the workflow that the stream runs under now; without an index, so that repointing is a HOT update';
COMMENT ON COLUMN mako.stream.version IS
'the last sequence number, 0 for a stream without events' $$),
    (3, 'table', 'event', 'event', $$
CREATE TABLE mako.event (
  stream_no        bigint NOT NULL,
  sequence_number  bigint NOT NULL,
  event_id         uuid NOT NULL DEFAULT gen_random_uuid(),
  recorded_at      timestamptz NOT NULL DEFAULT now(),
  workflow_id      text COLLATE "C" NOT NULL,
  event_type       text COLLATE "C" NOT NULL,
  schema_version   integer NOT NULL DEFAULT 1,
  payload          jsonb NOT NULL,
  correlation_id   uuid,
  causation_id     uuid,
  conversation_id  uuid
);
COMMENT ON TABLE mako.event IS 'events, append-only; numbered 1, 2, 3 ... per stream without gap';
COMMENT ON COLUMN mako.event.workflow_id IS 'the workflow that the event was written under' $$),
    (4, 'table', 'snapshot', 'snapshot', $$
CREATE TABLE mako.snapshot (
  stream_no             bigint NOT NULL,
  sequence_number       bigint NOT NULL,
  run_id                bigint NOT NULL DEFAULT 0,
  workflow_id           text COLLATE "C" NOT NULL,
  state_schema_version  integer NOT NULL,
  state                 jsonb NOT NULL,
  taken_at              timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE mako.snapshot IS
'states at a sequence number; those of a migration run are final, periodic ones are only a cache';
COMMENT ON COLUMN mako.snapshot.run_id IS
'the migration run that wrote it; 0 for a periodic snapshot' $$),
    (5, 'table', 'repointed', 'repointed', $$
CREATE TABLE mako.repointed (
  run_id           bigint NOT NULL,
  stream_no        bigint NOT NULL,
  sequence_number  bigint NOT NULL
);
COMMENT ON TABLE mako.repointed IS
'streams that a run moved without a snapshot of their last event: '
'those without events, and identity migrations without apply' $$),
    (6, 'table', 'reverted', 'reverted', $$
CREATE TABLE mako.reverted (
  stream_no    bigint NOT NULL,
  run_id       bigint NOT NULL,
  reverted_by  bigint NOT NULL
);
COMMENT ON TABLE mako.reverted IS
'streams that were taken back from where a run had moved them: '
'what the run has written of them is kept, but does not count any more';
COMMENT ON COLUMN mako.reverted.run_id IS 'the run that had moved the stream';
COMMENT ON COLUMN mako.reverted.reverted_by IS 'the run that took it back' $$),
    (7, 'table', 'attached', 'attached', $$
CREATE TABLE mako.attached (
  query        text NOT NULL,
  search_path  text[] NOT NULL,
  initial      text COLLATE "C" NOT NULL,
  appended_to  regclass NOT NULL,
  wait         boolean NOT NULL,
  attached_by  text NOT NULL,
  attached_at  timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE mako.attached IS
'the attached event store, one row, or none where the store has events of its own; '
'see mako_attach_store()';
COMMENT ON COLUMN mako.attached.query IS
'the query that tells events, which is the view mako.attached_event';
COMMENT ON COLUMN mako.attached.search_path IS
'the schemas on the path of the session that attached it, on which names in query are looked up';
COMMENT ON COLUMN mako.attached.initial IS
'the workflow that a stream runs under whose events say none';
COMMENT ON COLUMN mako.attached.appended_to IS 'the table that its application appends events to';
COMMENT ON COLUMN mako.attached.wait IS
'a writer waits for a run that has locked the stream; otherwise it gets error 55P03' $$),
    (8, 'table', 'registry', 'registry', $$
CREATE TABLE mako.registry (
  tenant_id   uuid NOT NULL,
  key         text COLLATE "C" NOT NULL,
  stream_no   bigint NOT NULL,
  expires_at  timestamptz
);
COMMENT ON TABLE mako.registry IS
'routing keys: process id, <partner code>:<conversation id>, correlation id or any other text, '
'per tenant' $$),
    (9, 'table', 'correlation', 'correlation', $$
CREATE TABLE mako.correlation (
  tenant_id  uuid NOT NULL,
  tag        text COLLATE "C" NOT NULL,
  stream_no  bigint NOT NULL
);
COMMENT ON TABLE mako.correlation IS
'tags of streams, per tenant, such as a metering location that several processes share' $$),
    (10, 'table', 'format_version', 'format_version', $$
CREATE TABLE mako.format_version (
  format_version  text COLLATE "C" NOT NULL,
  status          text NOT NULL,
  messages_until  timestamptz,
  changed_by      text NOT NULL DEFAULT current_user,
  changed_at      timestamptz NOT NULL DEFAULT now(),
  reason          text
);
COMMENT ON TABLE mako.format_version IS
'format versions that were drained, retired or reactivated: the last change of each; '
'one without a row is active' $$),
    (11, 'table', 'dependent', 'dependent', $$
CREATE TABLE mako.dependent (
  relation          text NOT NULL,
  relation_identity text NOT NULL,
  process_column    text NOT NULL,
  workflow_column   text NOT NULL,
  tenant_column     text,
  owner             text NOT NULL,
  owner_identity    text NOT NULL,
  process_type      text NOT NULL
);
COMMENT ON TABLE mako.dependent IS
'other tables whose workflow column follows a migrated process; see mako_add_dependent()';
COMMENT ON COLUMN mako.dependent.relation IS
'the name of the relation when it was added; a relation that has this name now is the dependent';
COMMENT ON COLUMN mako.dependent.relation_identity IS
'<oid>@<system identifier> of the relation, which finds it under a new name when no relation has '
'the old one';
COMMENT ON COLUMN mako.dependent.owner IS
'the owner of the relation when it was added; updates run as this role';
COMMENT ON COLUMN mako.dependent.owner_identity IS
'<oid>@<system identifier> of owner, by which a renamed role is known';
COMMENT ON COLUMN mako.dependent.process_type IS
'the type of the process column when it was added, which decides what it is compared with' $$),
    (12, 'table', 'migration_run', 'migration_run', $$
CREATE TABLE mako.migration_run (
  run_id             bigint GENERATED ALWAYS AS IDENTITY,
  kind               text NOT NULL DEFAULT 'single',
  source_wf          text COLLATE "C" NOT NULL,
  target_wf          text COLLATE "C" NOT NULL,
  path               text[] COLLATE "C" NOT NULL,
  tenant_id          uuid,
  update_registry    boolean NOT NULL,
  in_flight_only     boolean NOT NULL,
  max_errors         bigint,
  batch_size         integer,
  through_stream_no  bigint,
  reverts            bigint,
  closed_by          bigint,
  reason             text,
  fingerprint        text NOT NULL,
  definitions        text[] NOT NULL,
  session_role       text NOT NULL DEFAULT session_user,
  effective_role     text NOT NULL DEFAULT current_user,
  application_name   text NOT NULL DEFAULT current_setting('application_name'),
  client_address     inet DEFAULT inet_client_addr(),
  server_version     text NOT NULL DEFAULT current_setting('server_version'),
  extension_version  text NOT NULL,
  started_at         timestamptz NOT NULL,
  finished_at        timestamptz,
  migrated           bigint,
  skipped            bigint,
  failed             bigint,
  sinks              integer[] NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE mako.migration_run IS
'audit trail: one row a run, with its role, times, reason and result; final once finished';
COMMENT ON COLUMN mako.migration_run.kind IS
'single: one transaction; batched: one a batch; revert: undoes another run; '
'attach: no migration, but states that streams of an attached event store start from';
COMMENT ON COLUMN mako.migration_run.path IS 'the workflow ids from source to target';
COMMENT ON COLUMN mako.migration_run.batch_size IS 'of a batched run, as is through_stream_no';
COMMENT ON COLUMN mako.migration_run.through_stream_no IS
'the last stream when the run began; the run leaves later ones alone';
COMMENT ON COLUMN mako.migration_run.reverts IS 'the run that this one undoes';
COMMENT ON COLUMN mako.migration_run.closed_by IS
'the run that replaced or undid a batched run before it had come to its end';
COMMENT ON COLUMN mako.migration_run.fingerprint IS
'sha256 over the sha256 of each definition, one a line';
COMMENT ON COLUMN mako.migration_run.definitions IS
'the definitions that ran: workflow, step, workflow ... '
'on the path, with the source text of functions and helpers';
COMMENT ON COLUMN mako.migration_run.skipped IS 'counted at the end; null until then';
COMMENT ON COLUMN mako.migration_run.sinks IS
'the sinks that the run wrote to, by their numbers in mako_sink' $$),
    (13, 'table', 'migration_error', 'migration_error', $$
CREATE TABLE mako.migration_error (
  run_id           bigint NOT NULL,
  error_no         bigint NOT NULL,
  stream_no        bigint NOT NULL,
  stream_id        text COLLATE "C" NOT NULL,
  phase            text NOT NULL,
  sequence_number  bigint,
  sqlstate         text NOT NULL,
  message          text NOT NULL,
  detail           text,
  hint             text,
  context          text
);
COMMENT ON TABLE mako.migration_error IS
'audit trail: every stream that a run could not migrate, in full';
COMMENT ON COLUMN mako.migration_error.error_no IS
'numbers the errors of a run in the order in which they were saved' $$),
    (14, 'table', 'migration_batch', 'migration_batch', $$
CREATE TABLE mako.migration_batch (
  run_id          bigint NOT NULL,
  batch_no        bigint NOT NULL,
  last_stream_no  bigint,
  migrated        bigint NOT NULL,
  failed          bigint NOT NULL,
  busy            bigint NOT NULL,
  session_role    text NOT NULL DEFAULT session_user,
  effective_role  text NOT NULL DEFAULT current_user,
  started_at      timestamptz NOT NULL,
  finished_at     timestamptz NOT NULL
);
COMMENT ON TABLE mako.migration_batch IS
'audit trail: the batches of batched runs, each of which was a transaction';
COMMENT ON COLUMN mako.migration_batch.last_stream_no IS
'the last stream that the run has come to; null when it tries again those that were busy, '
'and when streams are folded ahead, so that they do not come in the order of their numbers';
COMMENT ON COLUMN mako.migration_batch.busy IS
'streams that were passed over: another transaction had locked them, or appended to them meanwhile';
COMMENT ON COLUMN mako.migration_batch.session_role IS
'the role that called the run, which need not be the one that began it; '
'the same holds for effective_role' $$),
    (15, 'view', 'process_identity', 'process_identity', pg_catalog.format($$
CREATE VIEW mako.process_identity %1$s AS
SELECT r.tenant_id, r.key, s.process_id, s.stream_id, s.workflow_id
FROM mako.registry r JOIN mako.stream s ON s.stream_no = r.stream_no
WHERE r.expires_at IS NULL OR r.expires_at > now();
COMMENT ON VIEW mako.process_identity IS
'the stream that a routing key leads to, and the workflow that it runs under now' $$, v.invoker)),
    (16, 'view', 'migrated_stream', 'migrated_stream', pg_catalog.format($$
CREATE VIEW mako.migrated_stream %1$s AS
SELECT m.run_id, s.stream_id, r.source_wf, r.target_wf, m.sequence_number
FROM (SELECT n.run_id, n.stream_no, n.sequence_number FROM mako.snapshot n
      WHERE n.run_id > 0
        AND NOT EXISTS (SELECT FROM mako.repointed p
                        WHERE p.stream_no = n.stream_no AND p.run_id = n.run_id)
      UNION ALL
      SELECT run_id, stream_no, sequence_number FROM mako.repointed) m
JOIN mako.migration_run r ON r.run_id = m.run_id AND r.update_registry
JOIN mako.stream s ON s.stream_no = m.stream_no
WHERE NOT EXISTS (SELECT FROM mako.reverted v
                  WHERE v.stream_no = m.stream_no AND v.run_id = m.run_id);
COMMENT ON VIEW mako.migrated_stream IS
'the streams that each run moved, for caches and projections that must follow' $$, v.invoker)),
    (17, 'constraint', 'stream', 'stream_pkey',
     $$ ALTER TABLE mako.stream ADD CONSTRAINT stream_pkey PRIMARY KEY (stream_no) $$),
    (18, 'constraint', 'event', 'event_pkey',
     $$ ALTER TABLE mako.event ADD CONSTRAINT event_pkey
          PRIMARY KEY (stream_no, sequence_number) $$),
    (19, 'constraint', 'snapshot', 'snapshot_pkey',
     $$ ALTER TABLE mako.snapshot ADD CONSTRAINT snapshot_pkey
          PRIMARY KEY (stream_no, sequence_number, run_id) $$),
    (20, 'constraint', 'repointed', 'repointed_pkey',
     $$ ALTER TABLE mako.repointed ADD CONSTRAINT repointed_pkey
          PRIMARY KEY (stream_no, run_id) $$),
    (21, 'constraint', 'reverted', 'reverted_pkey',
     $$ ALTER TABLE mako.reverted ADD CONSTRAINT reverted_pkey
          PRIMARY KEY (stream_no, run_id) $$),
    (22, 'constraint', 'registry', 'registry_pkey',
     $$ ALTER TABLE mako.registry ADD CONSTRAINT registry_pkey PRIMARY KEY (tenant_id, key) $$),
    (23, 'constraint', 'correlation', 'correlation_pkey',
     $$ ALTER TABLE mako.correlation ADD CONSTRAINT correlation_pkey
          PRIMARY KEY (tenant_id, tag, stream_no) $$),
    (24, 'constraint', 'format_version', 'format_version_pkey',
     $$ ALTER TABLE mako.format_version ADD CONSTRAINT format_version_pkey
          PRIMARY KEY (format_version) $$),
    (25, 'constraint', 'dependent', 'dependent_pkey',
     $$ ALTER TABLE mako.dependent ADD CONSTRAINT dependent_pkey
          PRIMARY KEY (relation, process_column, workflow_column) $$),
    (26, 'constraint', 'migration_run', 'migration_run_pkey',
     $$ ALTER TABLE mako.migration_run ADD CONSTRAINT migration_run_pkey PRIMARY KEY (run_id) $$),
    (27, 'constraint', 'migration_error', 'migration_error_pkey',
     $$ ALTER TABLE mako.migration_error ADD CONSTRAINT migration_error_pkey
          PRIMARY KEY (run_id, error_no) $$),
    (28, 'constraint', 'migration_batch', 'migration_batch_pkey',
     $$ ALTER TABLE mako.migration_batch ADD CONSTRAINT migration_batch_pkey
          PRIMARY KEY (run_id, batch_no) $$),
    (29, 'constraint', 'stream', 'stream_stream_id_key',
     $$ ALTER TABLE mako.stream ADD CONSTRAINT stream_stream_id_key UNIQUE (stream_id) $$),
    (30, 'constraint', 'stream', 'stream_tenant_id_stream_no_key',
     $$ ALTER TABLE mako.stream ADD CONSTRAINT stream_tenant_id_stream_no_key
          UNIQUE (tenant_id, stream_no) $$),
    (31, 'constraint', 'event', 'event_stream_no_event_id_key',
     $$ ALTER TABLE mako.event ADD CONSTRAINT event_stream_no_event_id_key
          UNIQUE (stream_no, event_id) $$),
    (32, 'constraint', 'migration_error', 'migration_error_stream_no_run_id_key',
     $$ ALTER TABLE mako.migration_error ADD CONSTRAINT migration_error_stream_no_run_id_key
          UNIQUE (stream_no, run_id) $$),
    (33, 'constraint', 'stream', 'stream_stream_id_check',
     $$ ALTER TABLE mako.stream ADD CONSTRAINT stream_stream_id_check
          CHECK ((stream_id <> ''::text)) $$),
    (34, 'constraint', 'stream', 'stream_process_id_check',
     $$ ALTER TABLE mako.stream ADD CONSTRAINT stream_process_id_check
          CHECK (((process_id IS NULL)
                  OR ((tenant_id IS NOT NULL)
                      AND (stream_id = ((('process/'::text || (tenant_id)::text) || '/'::text)
                                        || (process_id)::text))))) $$),
    (35, 'constraint', 'stream', 'stream_tenant_id_check',
     $$ ALTER TABLE mako.stream ADD CONSTRAINT stream_tenant_id_check
          CHECK (((tenant_id IS NULL)
                  OR (stream_id !~~ 'process/%'::text)
                  OR (lower(split_part(stream_id, '/'::text, 2)) = (tenant_id)::text))) $$),
    (36, 'constraint', 'stream', 'stream_version_check',
     $$ ALTER TABLE mako.stream ADD CONSTRAINT stream_version_check CHECK ((version >= 0)) $$),
    (37, 'constraint', 'stream', 'stream_stream_no_check',
     $$ ALTER TABLE mako.stream ADD CONSTRAINT stream_stream_no_check CHECK ((stream_no >= 1)) $$),
    (38, 'constraint', 'event', 'event_sequence_number_check',
     $$ ALTER TABLE mako.event ADD CONSTRAINT event_sequence_number_check
          CHECK ((sequence_number >= 1)) $$),
    (39, 'constraint', 'event', 'event_schema_version_check',
     $$ ALTER TABLE mako.event ADD CONSTRAINT event_schema_version_check
          CHECK ((schema_version >= 1)) $$),
    (40, 'constraint', 'snapshot', 'snapshot_sequence_number_check',
     $$ ALTER TABLE mako.snapshot ADD CONSTRAINT snapshot_sequence_number_check
          CHECK ((sequence_number >= 1)) $$),
    (41, 'constraint', 'snapshot', 'snapshot_state_schema_version_check',
     $$ ALTER TABLE mako.snapshot ADD CONSTRAINT snapshot_state_schema_version_check
          CHECK ((state_schema_version >= 1)) $$),
    (42, 'constraint', 'registry', 'registry_key_check',
     $$ ALTER TABLE mako.registry ADD CONSTRAINT registry_key_check
          CHECK (((octet_length(key) >= 1) AND (octet_length(key) <= 256))) $$),
    (43, 'constraint', 'correlation', 'correlation_tag_check',
     $$ ALTER TABLE mako.correlation ADD CONSTRAINT correlation_tag_check
          CHECK (((octet_length(tag) >= 1) AND (octet_length(tag) <= 256))) $$),
    (44, 'constraint', 'format_version', 'format_version_status_check',
     $$ ALTER TABLE mako.format_version ADD CONSTRAINT format_version_status_check
          CHECK ((status = ANY (ARRAY['active'::text, 'draining'::text, 'retired'::text]))) $$),
    (45, 'constraint', 'migration_run', 'migration_run_kind_check',
     $$ ALTER TABLE mako.migration_run ADD CONSTRAINT migration_run_kind_check
          CHECK ((kind = ANY (
            ARRAY['single'::text, 'batched'::text, 'revert'::text, 'attach'::text]))) $$),
    (46, 'constraint', 'migration_run', 'migration_run_run_id_check',
     $$ ALTER TABLE mako.migration_run ADD CONSTRAINT migration_run_run_id_check
          CHECK ((run_id >= 1)) $$),
    (47, 'constraint', 'registry', 'registry_tenant_id_stream_no_fkey',
     $$ ALTER TABLE mako.registry ADD CONSTRAINT registry_tenant_id_stream_no_fkey
          FOREIGN KEY (tenant_id, stream_no) REFERENCES mako.stream(tenant_id, stream_no) $$),
    (48, 'constraint', 'correlation', 'correlation_tenant_id_stream_no_fkey',
     $$ ALTER TABLE mako.correlation ADD CONSTRAINT correlation_tenant_id_stream_no_fkey
          FOREIGN KEY (tenant_id, stream_no) REFERENCES mako.stream(tenant_id, stream_no) $$),
    (49, 'constraint', 'stream', 'stream_workflow_id_check',
     $$ ALTER TABLE mako.stream ADD CONSTRAINT stream_workflow_id_check
          CHECK (@extschema@.mako_assert_workflow_id(workflow_id)) $$),
    (50, 'constraint', 'attached', 'attached_initial_check',
     $$ ALTER TABLE mako.attached ADD CONSTRAINT attached_initial_check
          CHECK (@extschema@.mako_assert_workflow_id(initial)) $$),
    (51, 'constraint', 'format_version', 'format_version_format_version_check',
     $$ ALTER TABLE mako.format_version ADD CONSTRAINT format_version_format_version_check
          CHECK (@extschema@.mako_assert_format_version(format_version)) $$),
    (52, 'trigger', 'stream', 'stream_inserted', $$
CREATE TRIGGER stream_inserted
AFTER INSERT ON mako.stream REFERENCING NEW TABLE AS inserted
FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.mako_stream_inserted() $$),
    (53, 'trigger', 'stream', 'stream_guard', $$
CREATE TRIGGER stream_guard
BEFORE DELETE OR UPDATE OR TRUNCATE ON mako.stream
FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.mako_guard(
  'Stream heads advance with their events, and move to another workflow with a migration only.',
  'To move streams, use mako_migrate().') $$),
    (54, 'trigger', 'event', 'event_inserted', $$
CREATE TRIGGER event_inserted
AFTER INSERT ON mako.event REFERENCING NEW TABLE AS inserted
FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.mako_event_inserted() $$),
    (55, 'trigger', 'event', 'event_guard', $$
CREATE TRIGGER event_guard
BEFORE DELETE OR UPDATE OR TRUNCATE ON mako.event
FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.mako_guard(
  'Events are append-only.',
  'To archive events, the owner can disable the trigger "event_guard".') $$),
    (56, 'trigger', 'snapshot', 'snapshot_insert_guard', $$
CREATE TRIGGER snapshot_insert_guard
BEFORE INSERT ON mako.snapshot
FOR EACH ROW WHEN ((new.run_id <> 0)) EXECUTE FUNCTION @extschema@.mako_guard(
  'Migration snapshots are written by migrations only.',
  'Periodic snapshots have run_id 0.') $$),
    (57, 'trigger', 'snapshot', 'snapshot_update_guard', $$
CREATE TRIGGER snapshot_update_guard
BEFORE UPDATE ON mako.snapshot
FOR EACH ROW WHEN (((old.run_id <> 0) OR (new.run_id <> 0)))
EXECUTE FUNCTION @extschema@.mako_guard(
  'The state of a migrated stream starts at its migration snapshot: without it the state is lost.',
  'Periodic snapshots have run_id 0.') $$),
    (58, 'trigger', 'snapshot', 'snapshot_delete_guard', $$
CREATE TRIGGER snapshot_delete_guard
BEFORE DELETE ON mako.snapshot
FOR EACH ROW WHEN ((old.run_id <> 0)) EXECUTE FUNCTION @extschema@.mako_guard(
  'The state of a migrated stream starts at its migration snapshot: without it the state is lost.',
  'Periodic snapshots have run_id 0.') $$),
    (59, 'trigger', 'snapshot', 'snapshot_truncate_guard', $$
CREATE TRIGGER snapshot_truncate_guard
BEFORE TRUNCATE ON mako.snapshot
FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.mako_guard(
  'The state of a migrated stream starts at its migration snapshot: without it the state is lost.',
  'To drop periodic snapshots, delete those with run_id 0.') $$),
    (60, 'trigger', 'snapshot', 'snapshot_saved', $$
CREATE TRIGGER snapshot_saved
BEFORE INSERT OR UPDATE ON mako.snapshot
FOR EACH ROW WHEN ((new.run_id = 0)) EXECUTE FUNCTION @extschema@.mako_snapshot_saved() $$),
    (61, 'trigger', 'repointed', 'repointed_guard', $$
CREATE TRIGGER repointed_guard
BEFORE INSERT OR DELETE OR UPDATE OR TRUNCATE ON mako.repointed
FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.mako_guard(
  'The audit trail is written by migrations only.') $$),
    (62, 'trigger', 'reverted', 'reverted_guard', $$
CREATE TRIGGER reverted_guard
BEFORE INSERT OR DELETE OR UPDATE OR TRUNCATE ON mako.reverted
FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.mako_guard(
  'The audit trail is written by migrations only.') $$),
    (63, 'trigger', 'attached', 'attached_guard', $$
CREATE TRIGGER attached_guard
BEFORE INSERT OR DELETE OR UPDATE OR TRUNCATE ON mako.attached
FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.mako_guard(
  'The query is evaluated as the owner of the store.',
  'Use mako_attach_store() and mako_detach_store().') $$),
    (64, 'trigger', 'format_version', 'format_version_guard', $$
CREATE TRIGGER format_version_guard
BEFORE INSERT OR DELETE OR UPDATE OR TRUNCATE ON mako.format_version
FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.mako_guard(
  'A version must not change its status while a transaction writes under it.',
  'Use mako_drain(), mako_retire() or mako_reactivate().') $$),
    (65, 'trigger', 'dependent', 'dependent_guard', $$
CREATE TRIGGER dependent_guard
BEFORE INSERT OR DELETE OR UPDATE OR TRUNCATE ON mako.dependent
FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.mako_guard(
  'A dependent is updated as its owner, whose privileges adding it needs.',
  'Use mako_add_dependent() and mako_remove_dependent().') $$),
    (66, 'trigger', 'migration_run', 'migration_run_guard', $$
CREATE TRIGGER migration_run_guard
BEFORE INSERT OR DELETE OR UPDATE OR TRUNCATE ON mako.migration_run
FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.mako_guard(
  'The audit trail is written by migrations only.') $$),
    (67, 'trigger', 'migration_run', 'migration_run_final', $$
CREATE TRIGGER migration_run_final
BEFORE DELETE OR UPDATE ON mako.migration_run
FOR EACH ROW WHEN ((old.finished_at IS NOT NULL)) EXECUTE FUNCTION @extschema@.mako_guard(
  'A run is final once it is finished.', 'To undo a run, use mako_revert().', 'always') $$),
    (68, 'trigger', 'migration_error', 'migration_error_guard', $$
CREATE TRIGGER migration_error_guard
BEFORE INSERT OR DELETE OR UPDATE OR TRUNCATE ON mako.migration_error
FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.mako_guard(
  'The audit trail is written by migrations only.') $$),
    (69, 'trigger', 'migration_batch', 'migration_batch_guard', $$
CREATE TRIGGER migration_batch_guard
BEFORE INSERT OR DELETE OR UPDATE OR TRUNCATE ON mako.migration_batch
FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.mako_guard(
  'The audit trail is written by migrations only.') $$)
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

-- =================================================================================================
-- src/fold/fold.sql

-- -------------------------------------------------------------------------------------------------
-- Folding without a store, for the authors of apply, upcast and migrate. STABLE, because the
-- planner evaluates immutable calls while planning.

CREATE FUNCTION mako_fold(workflow_id mako_workflow_id, events jsonb) RETURNS jsonb
LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_fold(mako_workflow_id, jsonb) IS
'the state after folding an array of {"event_type", "schema_version" (default 1), '
'"payload"} objects; needs no store';

CREATE FUNCTION mako_migrate_state(
  source_wf mako_workflow_id, target_wf mako_workflow_id, state jsonb)
RETURNS jsonb LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_migrate_state(mako_workflow_id, mako_workflow_id, jsonb) IS
'a state taken through the registered steps from one workflow version to another; needs no store';

-- =================================================================================================
-- src/migrate/migrate.sql

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

-- =================================================================================================
-- src/process/process.sql

-- -------------------------------------------------------------------------------------------------
-- Processes: what an engine calls every day

CREATE FUNCTION mako_spawn(
  workflow_id mako_workflow_id, tenant_id uuid, process_id uuid DEFAULT gen_random_uuid())
RETURNS text LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_spawn(mako_workflow_id, uuid, uuid) IS
'starts a process, which is found by its process id from now on; returns the id of its stream';

CREATE TYPE mako_new_event AS (
  event_type       text,
  payload          jsonb,
  schema_version   integer,
  event_id         uuid,
  correlation_id   uuid,
  causation_id     uuid,
  conversation_id  uuid
);
COMMENT ON TYPE mako_new_event IS
'an event to append; schema_version is 1 and event_id a new one where they are null';

CREATE FUNCTION mako_append(
  stream_id text, workflow_id mako_workflow_id, event_type text, payload jsonb,
  expected_version bigint DEFAULT NULL, schema_version integer DEFAULT 1,
  event_id uuid DEFAULT NULL, correlation_id uuid DEFAULT NULL, causation_id uuid DEFAULT NULL,
  conversation_id uuid DEFAULT NULL)
RETURNS bigint LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_append(
  text, mako_workflow_id, text, jsonb, bigint, integer, uuid, uuid, uuid, uuid) IS
'appends an event under the workflow whose rules the writer used; returns its sequence number; '
'40001: retry; MK005: the stream runs under another workflow';

CREATE FUNCTION mako_append_batch(
  stream_id text, workflow_id mako_workflow_id, events mako_new_event[],
  expected_version bigint DEFAULT NULL)
RETURNS bigint LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_append_batch(text, mako_workflow_id, mako_new_event[], bigint) IS
'appends events to one stream, all or none; returns the last sequence number';

CREATE FUNCTION mako_state(
  stream_id text, OUT state jsonb, OUT sequence_number bigint, OUT workflow_id text,
  OUT state_schema_version integer)
LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_state(text) IS
'the authoritative state of a stream, at one moment, from its newest valid snapshot and the events '
'behind it';

CREATE FUNCTION mako_resume(stream_id text)
RETURNS TABLE (
  sequence_number bigint, workflow_id text, state jsonb, state_schema_version integer,
  event_id uuid, recorded_at timestamptz, event_type text, schema_version integer, payload jsonb,
  correlation_id uuid, causation_id uuid, conversation_id uuid)
LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_resume(text) IS
'for an engine that folds by itself: a row with the state to start from and the workflow to go on '
'under, then the events behind it';

CREATE FUNCTION mako_load(stream_id text, after bigint DEFAULT 0)
RETURNS TABLE (
  sequence_number bigint, event_id uuid, recorded_at timestamptz, workflow_id text,
  event_type text, schema_version integer, payload jsonb, correlation_id uuid, causation_id uuid,
  conversation_id uuid)
LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_load(text, bigint) IS
'the events of a stream behind a sequence number, in order';

CREATE FUNCTION mako_trace(stream_id text)
RETURNS TABLE (
  sequence_number bigint, event_type text, workflow_id text, run_id bigint, state jsonb)
LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_trace(text) IS
'the state after every event, and after every migration (event_type is null); '
'a state is null where a workflow has no apply';

CREATE FUNCTION mako_history_rows(stream_id text)
RETURNS TABLE (
  at timestamptz, kind text, sequence_number bigint, workflow_id text, event_type text,
  run_id bigint, role text, reason text)
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS
$$
#variable_conflict use_column
DECLARE
  head record;
BEGIN
  PERFORM @extschema@.mako_assert_delegated();
  SELECT s.* INTO head FROM mako.stream s WHERE s.stream_id = mako_history_rows.stream_id;
  IF head.stream_no IS NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = CASE WHEN mako_history_rows.stream_id IS NULL THEN 'null_value_not_allowed'
                ELSE 'undefined_object' END,
      MESSAGE = CASE WHEN mako_history_rows.stream_id IS NULL THEN 'stream_id must not be null'
                ELSE format('stream "%s" does not exist', mako_history_rows.stream_id) END,
      HINT = CASE WHEN mako_history_rows.stream_id IS NULL THEN ''
             ELSE 'The stream of a process is process/<tenant id>/<process id>; '
                  'mako_spawn() starts one.' END;
  END IF;
  RETURN QUERY
  WITH moved AS (
    SELECT m.run_id, max(m.sequence_number) AS sequence_number, min(m.taken_at) AS taken_at
    FROM (SELECT n.run_id, n.sequence_number, n.taken_at
          FROM mako.snapshot n
          WHERE n.stream_no = head.stream_no AND n.run_id > 0
          UNION ALL
          SELECT p.run_id, p.sequence_number, NULL
          FROM mako.repointed p WHERE p.stream_no = head.stream_no) AS m
    GROUP BY m.run_id
  ), run AS (
    SELECT m.sequence_number AS place, coalesce(m.taken_at, r.started_at) AS at,
           CASE r.kind WHEN 'attach' THEN 'given' ELSE 'migrated' END AS kind, m.sequence_number,
           r.target_wf AS workflow_id, r.run_id,
           r.session_role, r.reason, r.source_wf
    FROM moved m JOIN mako.migration_run r ON r.run_id = m.run_id
    WHERE r.update_registry
    UNION ALL
    SELECT m.sequence_number, v.started_at, 'reverted', m.sequence_number, v.target_wf, v.run_id,
           v.session_role, v.reason, v.source_wf
    FROM moved m
    JOIN mako.reverted u ON u.stream_no = head.stream_no AND u.run_id = m.run_id
    JOIN mako.migration_run v ON v.run_id = u.reverted_by
    WHERE v.update_registry
  ), failed AS (
    -- No row tells where the stream was when a run failed. The times of the events tell it, and
    -- the runs before and after it.
    SELECT least((SELECT min(l.sequence_number) FROM run l WHERE l.run_id > f.run_id),
                 greatest((SELECT max(v.sequence_number) FROM mako.event v
                           WHERE v.stream_no = head.stream_no AND v.recorded_at <= f.at),
                          (SELECT max(l.sequence_number) FROM run l WHERE l.run_id < f.run_id),
                          f.sequence_number, 0)) AS place, f.*
    FROM (SELECT coalesce((SELECT b.started_at
                           FROM (SELECT b.batch_no, b.started_at,
                                        sum(b.failed) OVER (ORDER BY b.batch_no) AS failed
                                 FROM mako.migration_batch b WHERE b.run_id = e.run_id) b
                           WHERE b.failed >= e.error_no ORDER BY b.batch_no LIMIT 1),
                          r.started_at) AS at,
                 e.sequence_number, r.source_wf AS workflow_id, r.run_id, r.session_role, e.message
          FROM mako.migration_error e JOIN mako.migration_run r ON r.run_id = e.run_id
          WHERE e.stream_no = head.stream_no) AS f
  ), story AS (
    SELECT 0::bigint AS place, 0 AS part, 0::bigint AS run, head.created_at AS at,
           'spawned' AS kind, NULL::bigint AS sequence_number,
           coalesce((SELECT l.source_wf FROM run l WHERE l.place = 0 ORDER BY l.run_id LIMIT 1),
                    (SELECT v.workflow_id FROM mako.event v
                     WHERE v.stream_no = head.stream_no AND v.sequence_number = 1),
                    (SELECT l.source_wf FROM run l ORDER BY l.run_id LIMIT 1),
                    head.workflow_id) AS workflow_id,
           NULL AS event_type, NULL::bigint AS run_id, NULL AS role, NULL AS reason
    UNION ALL
    SELECT v.sequence_number, 1, 0, v.recorded_at, 'event', v.sequence_number, v.workflow_id,
           v.event_type, NULL, NULL, NULL
    FROM mako.event v WHERE v.stream_no = head.stream_no
    UNION ALL
    SELECT l.place, 2, l.run_id, l.at, l.kind, l.sequence_number, l.workflow_id,
           NULL, l.run_id, l.session_role, l.reason
    FROM run l
    UNION ALL
    SELECT f.place, 2, f.run_id, f.at, 'failed', f.sequence_number, f.workflow_id,
           NULL, f.run_id, f.session_role, f.message
    FROM failed f
  )
  SELECT s.at, s.kind, s.sequence_number, s.workflow_id, s.event_type, s.run_id, s.role, s.reason
  FROM story s ORDER BY s.place, s.part, s.run;
END
$$;
COMMENT ON FUNCTION mako_history_rows(text) IS 'what mako_history() returns; for its own use';

CREATE FUNCTION mako_history(stream_id text)
RETURNS TABLE (
  at timestamptz, kind text, sequence_number bigint, workflow_id text, event_type text,
  run_id bigint, role text, reason text)
LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_history(text) IS
'the history of a stream in order: spawned, given, event, migrated, reverted, failed; '
'with the run, the role that started it, and the reason or the error';

CREATE FUNCTION mako_take_snapshot(stream_id text) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_take_snapshot(text) IS
'stores the state of a stream as a periodic snapshot; returns its sequence number';

CREATE FUNCTION mako_save_snapshot(
  stream_id text, sequence_number bigint, workflow_id mako_workflow_id,
  state_schema_version integer, state jsonb)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_save_snapshot(text, bigint, mako_workflow_id, integer, jsonb) IS
'stores a state that the application has computed as a periodic snapshot; of an attached '
'event store, one from before the first event is where the stream starts';

CREATE FUNCTION mako_prune_snapshots(keep integer) RETURNS bigint
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_prune_snapshots(integer) IS
'deletes periodic snapshots except the newest ones of every stream, and returns how many; '
'migration snapshots and the only state of a stream stay';

-- -------------------------------------------------------------------------------------------------
-- Routing: keys lead to one stream, tags to many; both belong to a tenant

CREATE FUNCTION mako_lookup(
  tenant_id uuid, key text, format_version mako_format_version DEFAULT NULL)
RETURNS TABLE (stream_id text, process_id uuid, workflow_id text, version bigint)
LANGUAGE c STABLE ROWS 1 PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_lookup(uuid, text, mako_format_version) IS
'the stream that a key leads to, no row for an unknown key; '
'given the format version of a message, raises 55000 unless the policy accepts it';

CREATE FUNCTION mako_register_key(
  tenant_id uuid, key text, stream_id text, expires_at timestamptz DEFAULT NULL)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_register_key(uuid, text, text, timestamptz) IS
'lets a key lead to a stream of the tenant, until expires_at if given; '
'the same call renews it, another stream is error 42710';

CREATE FUNCTION mako_unregister_key(tenant_id uuid, key text) RETURNS boolean
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_unregister_key(uuid, text) IS 'forgets a key; false when it was not there';

CREATE FUNCTION mako_expire_keys() RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_expire_keys() IS
'deletes the keys that have expired, which lead nowhere already; returns how many';

CREATE FUNCTION mako_add_tag(tenant_id uuid, tag text, stream_id text) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_add_tag(uuid, text, text) IS
'tags a stream of the tenant; false when it has the tag already';

CREATE FUNCTION mako_find_tag(tenant_id uuid, tag text)
RETURNS TABLE (stream_id text, process_id uuid, workflow_id text, version bigint)
LANGUAGE c STABLE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_find_tag(uuid, text) IS
'the streams of the tenant that have a tag, oldest first';

CREATE FUNCTION mako_remove_tag(tenant_id uuid, tag text, stream_id text) RETURNS boolean
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_remove_tag(uuid, text, text) IS
'takes a tag from a stream of the tenant; false when it did not have it';

CREATE FUNCTION mako_stream_of(tenant_id uuid, stream_id text) RETURNS bigint
LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_stream_of(uuid, text) IS
'the number of a stream of the tenant, or error 42704';

-- -------------------------------------------------------------------------------------------------
-- What changes data or definitions is for the roles to which it is granted.

REVOKE EXECUTE ON FUNCTION
  mako_spawn(mako_workflow_id, uuid, uuid),
  mako_append(text, mako_workflow_id, text, jsonb, bigint, integer, uuid, uuid, uuid, uuid),
  mako_append_batch(text, mako_workflow_id, mako_new_event[], bigint),
  mako_take_snapshot(text),
  mako_save_snapshot(text, bigint, mako_workflow_id, integer, jsonb),
  mako_prune_snapshots(integer),
  mako_register_key(uuid, text, text, timestamptz),
  mako_unregister_key(uuid, text),
  mako_expire_keys(),
  mako_add_tag(uuid, text, text),
  mako_remove_tag(uuid, text, text)
FROM PUBLIC;

-- =================================================================================================
-- src/inspect/inspect.sql

-- -------------------------------------------------------------------------------------------------
-- Before the migration

CREATE FUNCTION mako_plan(
  source_wf mako_workflow_id, target_wf mako_workflow_id, tenant_id uuid DEFAULT NULL,
  in_flight_only boolean DEFAULT false)
RETURNS TABLE (
  step integer, kind text, source_wf text, target_wf text, function text, evaluation text,
  streams bigint, in_flight bigint, events bigint, scan_order text, workers text,
  blockers text[], fingerprint text)
LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_plan(mako_workflow_id, mako_workflow_id, uuid, boolean) IS
'what mako_migrate() would use: functions and steps; '
'the last row has streams, events, blockers and the fingerprint to expect';

CREATE FUNCTION mako_dry_run(
  source_wf mako_workflow_id, target_wf mako_workflow_id, tenant_id uuid DEFAULT NULL,
  in_flight_only boolean DEFAULT false, sample bigint DEFAULT NULL, seed bigint DEFAULT 0)
RETURNS TABLE (
  stream_id text, sequence_number bigint, old_state jsonb, new_state jsonb, changes jsonb,
  error mako_migration_error)
LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_dry_run(
  mako_workflow_id, mako_workflow_id, uuid, boolean, bigint, bigint) IS
'what mako_migrate() would do, one row a stream, with old and new state; writes and locks nothing; '
'the same seed gives the same sample';

-- The rows come in the order of stream_no, so the lowest number of a row tells which stream is the
-- first one.
CREATE FUNCTION mako_dry_run_summary(
  source_wf mako_workflow_id, target_wf mako_workflow_id, tenant_id uuid DEFAULT NULL,
  in_flight_only boolean DEFAULT false, sample bigint DEFAULT NULL, seed bigint DEFAULT 0)
RETURNS TABLE (
  outcome text, phase text, sqlstate text, message text, streams bigint, example text)
LANGUAGE sql STABLE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS
$$
SELECT g.outcome, g.phase, g.sqlstate, g.message, g.streams, substr(g.first, 20)
FROM (SELECT r.outcome, r.phase, r.sqlstate, r.message, count(*) AS streams,
             min(lpad(r.n::text, 19, '0') || r.stream_id COLLATE "C") AS first
      FROM (SELECT d.n, d.stream_id, (d.error).phase, (d.error).sqlstate, (d.error).message,
                   CASE WHEN (d.error).phase IS NOT NULL THEN 'fail'
                        WHEN d.new_state IS NULL THEN 'repoint'
                        ELSE 'migrate' END AS outcome
            FROM @extschema@.mako_dry_run(source_wf, target_wf, tenant_id, in_flight_only,
                                          sample, seed) WITH ORDINALITY
                 AS d (stream_id, sequence_number, old_state, new_state, changes, error, n)) AS r
      GROUP BY r.outcome, r.phase, r.sqlstate, r.message) AS g
ORDER BY g.streams DESC, g.first
$$;
COMMENT ON FUNCTION mako_dry_run_summary(
  mako_workflow_id, mako_workflow_id, uuid, boolean, bigint, bigint) IS
'the rows of mako_dry_run(), counted by outcome (migrate, repoint, fail) and cause, '
'the most frequent first, with the first stream of each';

-- -------------------------------------------------------------------------------------------------
-- Proofs and pictures: what is stored against what the events say

CREATE FUNCTION mako_verify(run_id bigint)
RETURNS TABLE (
  stream_id text, sequence_number bigint, problem text, stored jsonb, computed jsonb,
  differs_from bigint)
LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_verify(bigint) IS
'computes every snapshot of a run again from the events, through every recorded move; '
'a row for each thing that differs';

CREATE FUNCTION mako_verify_snapshots(workflow_id mako_workflow_id)
RETURNS TABLE (
  stream_id text, sequence_number bigint, problem text, stored jsonb, computed jsonb,
  differs_from bigint)
LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_verify_snapshots(mako_workflow_id) IS
'folds to every periodic snapshot under a workflow and compares, '
'which shows if the registered apply is the application''s; a row for each thing that differs';

CREATE FUNCTION mako_transitions(workflow_id mako_workflow_id, tag text DEFAULT 'status')
RETURNS TABLE (from_state text, event_type text, to_state text, count bigint)
LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_transitions(mako_workflow_id, text) IS
'the state machine that the streams of a workflow went through; tag is the key that names a state; '
'null stands for its only key, or the string that it is';

-- A first row without from_state and event_type leads to the initial state. rests says that a
-- stream which came this way is still in to_state, and in flight.
CREATE FUNCTION mako_transition_rows(workflow_id mako_workflow_id, tag text)
RETURNS TABLE (from_state text, event_type text, to_state text, count bigint, rests boolean)
LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_transition_rows(mako_workflow_id, text) IS
'what mako_state_diagram() draws; for its own use';

CREATE FUNCTION mako_state_diagram(workflow_id mako_workflow_id, tag text DEFAULT 'status')
RETURNS text
LANGUAGE sql STABLE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS
$$
  WITH
  -- A state is an array of its name, so that two without a name are equal.
  transition AS MATERIALIZED (
    SELECT t.n, t.event_type, t.count, t.rests,
           ARRAY[t.from_state] AS source, ARRAY[t.to_state] AS target
    FROM @extschema@.mako_transition_rows(workflow_id, tag) WITH ORDINALITY
         AS t (from_state, event_type, to_state, count, rests, n)),
  -- The states in the order in which they are met. Mermaid takes a plain name as it is, unless it
  -- is a word of its own.
  state AS MATERIALIZED (
    SELECT s.state, s.state[1] AS name, min(s.place) AS place,
           bool_or(s.is_reached) AND NOT bool_or(s.leads_on OR s.rests) AS is_final,
           s.state[1] IS NOT NULL AND s.state[1] ~ '^[A-Za-z][A-Za-z0-9_]*$'
           AND lower(s.state[1] COLLATE "C") <> ALL (ARRAY[
             'state', 'note', 'end', 'direction', 'class', 'classdef', 'style', 'as', 'default',
             'click', 'href', 'statediagram', 'hide', 'scale']) AS is_plain
    FROM (SELECT t.source AS state, 2 * t.n AS place, false AS is_reached,
                 t.source <> t.target AS leads_on, false AS rests
          FROM transition t WHERE t.event_type IS NOT NULL
          UNION ALL
          SELECT t.target, 2 * t.n + 1, t.event_type IS NOT NULL, false, t.rests
          FROM transition t) AS s
    GROUP BY s.state),
  -- Names with numbers for the others: those that no state is called.
  free AS (
    SELECT f.id, row_number() OVER (ORDER BY f.i) AS number
    FROM (SELECT i, 's' || i AS id FROM generate_series(1, (SELECT count(*) FROM state)) AS i) AS f
    WHERE NOT EXISTS (SELECT FROM state s WHERE s.name = f.id)),
  node AS MATERIALIZED (
    SELECT s.state, s.name, s.place, s.is_final, s.is_plain, coalesce(f.id, s.name) AS id
    FROM (SELECT s.*, row_number() OVER (PARTITION BY s.is_plain ORDER BY s.place) AS number
          FROM state s) AS s
    LEFT JOIN free f ON f.number = s.number AND NOT s.is_plain),
  -- The lines. What is in the middle may mean something to Mermaid.
  line (part, number, head, middle, tail) AS (
    SELECT 1, 0, 'stateDiagram-v2', '', ''
    UNION ALL
    SELECT 2, n.place, '    state "', coalesce(n.name, '(none)'), '" as ' || n.id
    FROM node n WHERE NOT n.is_plain
    UNION ALL
    SELECT 3, 0, '    [*] --> ' || n.id, '', ''
    FROM transition t JOIN node n ON n.state = t.target WHERE t.event_type IS NULL
    UNION ALL
    SELECT 4, t.n, '    ' || a.id || ' --> ' || b.id || ': ', t.event_type, ' (' || t.count || ')'
    FROM transition t JOIN node a ON a.state = t.source JOIN node b ON b.state = t.target
    WHERE t.event_type IS NOT NULL
    UNION ALL
    SELECT 5, n.place, '    ' || n.id || ' --> [*]', '', '' FROM node n WHERE n.is_final)
  SELECT string_agg(concat(l.head, m.escaped, l.tail, chr(10)), '' ORDER BY l.part, l.number)
  FROM line l
  CROSS JOIN LATERAL (
    SELECT string_agg(CASE WHEN c.sign < ' ' COLLATE "C" OR strpos('"#;:<>&', c.sign) > 0
                           THEN '#' || ascii(c.sign) || ';' ELSE c.sign END, '' ORDER BY c.i)
           AS escaped
    FROM unnest(string_to_array(l.middle, NULL)) WITH ORDINALITY AS c (sign, i)) AS m
$$;
COMMENT ON FUNCTION mako_state_diagram(mako_workflow_id, text) IS
'what mako_transitions() gives, as a Mermaid diagram';

-- -------------------------------------------------------------------------------------------------
-- Diagnostics

CREATE FUNCTION mako_step_finding(retired text[])
RETURNS TABLE (severity text, code text, subject text, message text, hint text)
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS
$$
  WITH RECURSIVE
  workflow AS (
    SELECT w.workflow_id::text AS id, split_part(w.workflow_id::text, '@', 1) AS name,
           split_part(w.workflow_id::text, '@', 2) AS version, w.state_schema_version
    FROM @extschema@.mako_workflow w),
  step AS (
    SELECT m.source_wf::text AS source, m.target_wf::text AS target
    FROM @extschema@.mako_state_migration m),
  reach AS (
    SELECT s.source, s.target FROM step s
    UNION
    SELECT r.source, s.target FROM reach r JOIN step s ON s.source = r.target)
  -- A cycle is one row, at the first of its workflows.
  SELECT 'info', 'cycle', c.first,
         format('steps lead from it back to it: %s',
                string_agg(c.member, ', ' ORDER BY c.member COLLATE "C")),
         'That is fine for a way back; nothing is migrated in circles by itself.'
  FROM (SELECT a.source AS member, min(b.source COLLATE "C") AS first
        FROM reach a JOIN reach b ON b.source = a.target AND b.target = a.source
        WHERE EXISTS (SELECT FROM reach o WHERE o.source = a.source AND o.target = a.source)
        GROUP BY a.source) AS c
  GROUP BY c.first
  UNION ALL
  SELECT 'warning', 'no_way_out', w.id,
         format('no step leads out of it, but version %s is registered',
                max(n.version COLLATE "C")),
         'Register a step with mako_register_migration(), '
         'or exempt the workflow with mako_exempt().'
  FROM workflow w
  JOIN workflow n ON n.name = w.name AND n.version > w.version COLLATE "C"
  WHERE NOT EXISTS (SELECT FROM step s WHERE s.source = w.id)
    AND NOT EXISTS (SELECT FROM @extschema@.mako_exemption x WHERE x.workflow_id::text = w.id)
    AND w.version <> ALL (retired)
  GROUP BY w.id
  UNION ALL
  SELECT 'error', 'target_retired', format('%s -> %s', s.source, s.target),
         format('it leads to version %s, which is retired', t.version),
         format('If no stream is left under version %s, retire it, too. '
                'Otherwise, register a step to a version that is not retired.', w.version)
  FROM step s JOIN workflow w ON w.id = s.source JOIN workflow t ON t.id = s.target
  WHERE t.version = ANY (retired) AND w.version <> ALL (retired)
  UNION ALL
  SELECT 'info', 'schema_version_back', format('%s -> %s', s.source, s.target),
         format('state schema version %s becomes %s',
                w.state_schema_version, t.state_schema_version),
         'That is fine for a way back.'
  FROM step s JOIN workflow w ON w.id = s.source JOIN workflow t ON t.id = s.target
  WHERE t.state_schema_version < w.state_schema_version
$$;
COMMENT ON FUNCTION mako_step_finding(text[]) IS
'what mako_check() finds in the registered steps; '
'takes the retired format versions, because there may be no store';

CREATE FUNCTION mako_store_finding_rows()
RETURNS TABLE (severity text, code text, subject text, message text, hint text)
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
SET work_mem = '64MB' AS
$$
#variable_conflict use_column
BEGIN
  PERFORM @extschema@.mako_assert_delegated();
  IF @extschema@.mako_is_attached() THEN
    RETURN QUERY
    SELECT 'error', 'events_without_head', CASE WHEN o.number <= 20 THEN o.stream_id ELSE '*' END,
           CASE WHEN o.number <= 20 THEN format('it has %s events, but no head', o.events)
                ELSE format('%s more like those', o.found - 20) END,
           'Events were written past the triggers: detach the event store, and attach it again.'
    FROM (SELECT a.stream_id, count(*) AS events, count(*) OVER () AS found,
                 row_number() OVER (ORDER BY a.stream_id) AS number
          FROM mako.attached_event a
          WHERE a.sequence_number IS NOT NULL AND a.stream_id IS NOT NULL
            AND NOT EXISTS (SELECT FROM mako.stream s WHERE s.stream_id = a.stream_id)
          GROUP BY a.stream_id) AS o
    WHERE o.number <= 21 ORDER BY o.number;
  END IF;
  RETURN QUERY
  WITH RECURSIVE
  relations AS (
    SELECT c.oid, quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS name
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace),
  step AS (
    SELECT m.source_wf::text AS source, m.target_wf::text AS target
    FROM @extschema@.mako_state_migration m),
  reach AS (
    SELECT s.source, s.target FROM step s
    UNION
    SELECT r.source, s.target FROM reach r JOIN step s ON s.source = r.target),
  -- The events of a stream. This is the only pass over the events, unless some do not fit.
  history AS (
    SELECT e.stream_no, count(*) AS events,
           min(e.sequence_number) AS first, max(e.sequence_number) AS last,
           min(e.workflow_id) AS lowest, max(e.workflow_id) AS highest
    FROM mako.event e GROUP BY e.stream_no),
  -- What applications and runs have left with a stream. It moves where a run repointed it, or else
  -- at the run's snapshot.
  mark AS NOT MATERIALIZED (
    SELECT m.stream_no, m.sequence_number, m.run_id, m.is_snapshot,
           v.run_id IS NULL AS stands, r.run_id IS NOT NULL AS is_known,
           m.may_move AND v.run_id IS NULL AND m.run_id > 0 AND r.update_registry
             AND r.kind <> 'revert' AS moves
    FROM (SELECT n.stream_no, n.sequence_number, n.run_id, true AS is_snapshot,
                 p.run_id IS NULL AS may_move
          FROM mako.snapshot n
          LEFT JOIN mako.repointed p ON p.stream_no = n.stream_no AND p.run_id = n.run_id
          UNION ALL
          SELECT p.stream_no, p.sequence_number, p.run_id, false, true FROM mako.repointed p) AS m
    LEFT JOIN mako.migration_run r ON r.run_id = m.run_id
    LEFT JOIN mako.reverted v ON v.stream_no = m.stream_no AND v.run_id = m.run_id),
  marked AS (
    SELECT m.stream_no,
           max(m.sequence_number) FILTER (WHERE m.is_snapshot AND m.stands) AS saved,
           max(m.sequence_number) FILTER (WHERE m.is_snapshot) AS furthest,
           bool_or(m.is_snapshot AND m.run_id <> 0 AND NOT m.is_known) AS of_unknown_run,
           count(*) FILTER (WHERE m.moves) AS moves, max(m.run_id) FILTER (WHERE m.moves) AS run_id,
           max(m.sequence_number) FILTER (WHERE m.moves) AS moved_at
    FROM mark m GROUP BY m.stream_no),
  -- Everything that has a number, with what is known of it: its head, unless stream_id is null;
  -- its events, unless last is null; its snapshots, unless furthest is null; its moves, unless
  -- run_id is null, which is that of the last one. Left out is what all fits at first sight: the
  -- events are complete, and of one workflow, that of the head or on one side of its only move.
  known AS MATERIALIZED (
    SELECT stream_no, s.stream_id, s.version, s.workflow_id,
           h.events, h.first, h.last, h.lowest, h.highest,
           a.saved, a.furthest, a.of_unknown_run, a.moves, a.run_id, a.moved_at,
           r.source_wf, r.target_wf
    FROM mako.stream s FULL JOIN history h USING (stream_no) FULL JOIN marked a USING (stream_no)
    LEFT JOIN mako.migration_run r ON r.run_id = a.run_id
    WHERE (s.version = COALESCE(h.last, 0)
           AND (h.last IS NULL OR h.first = 1 AND h.events = h.last AND h.lowest = h.highest)
           AND COALESCE(a.furthest <= s.version, true) AND a.of_unknown_run IS NOT TRUE
           AND CASE WHEN a.run_id IS NULL THEN COALESCE(h.lowest, s.workflow_id) = s.workflow_id
                    ELSE a.moves = 1 AND s.workflow_id = r.target_wf
                         AND (h.last IS NULL
                              OR h.lowest = r.source_wf AND h.last <= a.moved_at
                              OR h.lowest = r.target_wf AND h.first > a.moved_at) END) IS NOT TRUE),
  -- Of these, the events by workflow.
  part AS MATERIALIZED (
    SELECT e.stream_no, e.workflow_id, count(*) AS events,
           min(e.sequence_number) AS first, max(e.sequence_number) AS last
    FROM known k JOIN mako.event e ON e.stream_no = k.stream_no
    GROUP BY e.stream_no, e.workflow_id),
  -- The workflow of the last event, where there is more than one and no move tells it.
  latest AS (
    SELECT DISTINCT ON (p.stream_no) p.stream_no, p.workflow_id
    FROM known k JOIN part p ON p.stream_no = k.stream_no
    WHERE k.lowest <> k.highest AND k.run_id IS NULL
    ORDER BY p.stream_no, p.last DESC),
  -- Where each stream must be now: where its last move led, or where its last event was written.
  place AS MATERIALIZED (
    SELECT k.stream_no, k.stream_id, k.workflow_id, k.run_id, k.moves, k.moved_at,
           k.source_wf, k.target_wf,
           COALESCE(k.target_wf, l.workflow_id, k.lowest, k.workflow_id) AS expected
    FROM known k
    LEFT JOIN latest l ON l.stream_no = k.stream_no
    WHERE k.stream_id IS NOT NULL AND k.of_unknown_run IS NOT TRUE),
  -- Streams some of whose events may not fit: what has moved once at most is told at once.
  doubted AS MATERIALIZED (
    SELECT DISTINCT p.stream_no
    FROM part p JOIN place l ON l.stream_no = p.stream_no AND l.workflow_id = l.expected
    WHERE CASE WHEN l.run_id IS NULL THEN p.workflow_id <> l.workflow_id
               WHEN l.moves > 1 THEN true
               ELSE NOT (p.workflow_id = l.source_wf AND p.last <= l.moved_at
                         OR p.workflow_id = l.target_wf AND p.first > l.moved_at) END),
  -- The recorded moves of these in order.
  move AS MATERIALIZED (
    SELECT m.stream_no, m.sequence_number, m.run_id, r.source_wf, r.target_wf,
           m.is_snapshot AS has_snapshot,
           row_number() OVER w AS number, lead(m.sequence_number) OVER w AS next
    FROM mark m
    JOIN doubted d ON d.stream_no = m.stream_no
    JOIN mako.migration_run r ON r.run_id = m.run_id
    WHERE m.moves AND (SELECT count(*) > 0 FROM doubted)
    WINDOW w AS (PARTITION BY m.stream_no ORDER BY m.run_id)),
  -- The workflow that such a stream ran under, from one sequence number (exclusive) to another.
  term AS MATERIALIZED (
    SELECT m.stream_no, m.sequence_number AS after,
           COALESCE(m.next, 9223372036854775807) AS through, m.target_wf AS workflow_id,
           false AS is_first
    FROM move m
    UNION ALL
    SELECT m.stream_no, 0, m.sequence_number, m.source_wf, true FROM move m WHERE m.number = 1
    UNION ALL
    SELECT p.stream_no, 0, 9223372036854775807, p.workflow_id, true
    FROM place p JOIN doubted d ON d.stream_no = p.stream_no WHERE p.run_id IS NULL),
  -- Those of which some do not fit at first sight. An imported history may have begun under
  -- workflows that lead to the first.
  suspect AS MATERIALIZED (
    SELECT DISTINCT p.stream_no
    FROM part p
    JOIN doubted d ON d.stream_no = p.stream_no
    WHERE NOT EXISTS (SELECT FROM term t
                      WHERE t.stream_no = p.stream_no AND t.workflow_id = p.workflow_id
                        AND t.after < p.first AND t.through >= p.last)),
  misfit AS (
    SELECT e.stream_no, min(e.sequence_number) AS sequence_number
    FROM suspect x
    JOIN mako.event e ON e.stream_no = x.stream_no
    JOIN term t ON t.stream_no = e.stream_no
                   AND t.after < e.sequence_number AND t.through >= e.sequence_number
    LEFT JOIN part p ON p.stream_no = t.stream_no AND p.workflow_id = t.workflow_id
    WHERE e.workflow_id <> t.workflow_id
      AND NOT (t.is_first AND (p.first IS NULL OR e.sequence_number < p.first)
               AND EXISTS (SELECT FROM reach r
                           WHERE r.source = e.workflow_id AND r.target = t.workflow_id))
    GROUP BY e.stream_no),
  -- An event of the workflow that a stream has left, behind the move; or of the one that it goes
  -- to, before it.
  misplaced AS (
    SELECT f.stream_no, f.sequence_number, e.workflow_id,
           (SELECT m.run_id FROM move m
            WHERE m.stream_no = f.stream_no AND m.has_snapshot
              AND (m.source_wf = e.workflow_id AND m.sequence_number < f.sequence_number
                   OR m.target_wf = e.workflow_id AND m.sequence_number >= f.sequence_number)
            ORDER BY abs(m.sequence_number - f.sequence_number), m.run_id LIMIT 1) AS run_id
    FROM misfit f
    JOIN mako.event e ON e.stream_no = f.stream_no AND e.sequence_number = f.sequence_number),
  -- What is wrong with single streams.
  broken (severity, code, subject, message, hint) AS (
    SELECT 'error', 'head_behind', k.stream_id,
           format('its head is at version %s, but its last event is %s', k.version, k.last),
           CASE WHEN @extschema@.mako_is_attached()
                THEN 'Events were written past the triggers: '
                     'detach the event store, and attach it again.'
                ELSE 'Appending fails until the head is right. '
                     'mako_adopt_events() sets the heads of histories that were loaded.' END
    FROM known k WHERE k.last > k.version
    UNION ALL
    SELECT 'error', 'head_ahead', k.stream_id,
           format('its head is at version %s, but its last event is %s',
                  k.version, COALESCE(k.last, 0)),
           'Events are lost: restore them from a backup; '
           'unless they are in an event store that is detached.'
    FROM known k
    WHERE COALESCE(k.last, 0) < k.version
      AND (k.last IS NOT NULL OR COALESCE(k.saved, 0) < k.version)
    UNION ALL
    SELECT 'error', 'events_without_head', k.stream_no::text,
           format('stream number %s has %s events, but no head', k.stream_no, k.events),
           'Restore the head from a backup.'
    FROM known k WHERE k.stream_id IS NULL AND k.last IS NOT NULL
    UNION ALL
    SELECT 'error', 'event_gap', k.stream_id,
           CASE WHEN k.last - k.first + 1 = k.events THEN format('its first event is %s', k.first)
                ELSE format('%s events are missing between %s and %s',
                            k.last - k.first + 1 - k.events, k.first, k.last) END,
           'Events are lost: restore them from a backup.'
    FROM known k
    WHERE k.stream_id IS NOT NULL
      AND (k.last - k.first + 1 <> k.events
           OR (k.first > 1 AND COALESCE(k.saved, 0) < k.first - 1))
    UNION ALL
    SELECT 'error', 'snapshot_beyond_head', k.stream_id,
           format('its snapshot at %s (run %s) is beyond the head, which is at version %s',
                  n.sequence_number, n.run_id, k.version),
           CASE WHEN n.run_id = 0 THEN 'Delete the snapshot: it is only a cache.'
                ELSE 'Restore snapshot or events from a backup; '
                     'mako.migration_run tells which run it was.' END
    FROM known k
    JOIN mako.snapshot n ON n.stream_no = k.stream_no AND n.sequence_number > k.version
    WHERE k.furthest > k.version
    UNION ALL
    SELECT 'error', 'snapshot_without_head', k.stream_no::text,
           format('stream number %s has snapshots, but no head', k.stream_no),
           'Restore the head from a backup.'
    FROM known k WHERE k.stream_id IS NULL AND k.furthest IS NOT NULL
    UNION ALL
    SELECT 'error', 'snapshot_of_unknown_run', k.stream_id,
           format('its snapshot at %s is of run %s, which is not recorded',
                  n.sequence_number, n.run_id),
           'Restore the row of mako.migration_run from a backup.'
    FROM known k JOIN mako.snapshot n ON n.stream_no = k.stream_no
    WHERE k.stream_id IS NOT NULL AND k.of_unknown_run AND n.run_id <> 0
      AND NOT EXISTS (SELECT FROM mako.migration_run r WHERE r.run_id = n.run_id)
    UNION ALL
    SELECT 'error', 'snapshot_of_unknown_run', s.stream_id,
           format('run %s is marked as undone by run %s, which did not undo it',
                  v.run_id, v.reverted_by),
           'It was changed past the triggers: restore it from a backup.'
    FROM mako.reverted v JOIN mako.stream s ON s.stream_no = v.stream_no
    WHERE NOT EXISTS (SELECT FROM mako.migration_run r
                      WHERE r.run_id = v.reverted_by AND r.reverts = v.run_id)
    UNION ALL
    SELECT 'error', 'head_moved', p.stream_id,
           CASE WHEN p.run_id IS NULL
                THEN format('it runs under "%s", but its last event is of "%s" '
                            'and no move is recorded', p.workflow_id, p.expected)
                ELSE format('it runs under "%s", but run %s moved it to "%s"',
                            p.workflow_id, p.run_id, p.expected) END,
           'The head was changed past the triggers: '
           'set it back, or restore the snapshot of the move.'
    FROM place p WHERE p.workflow_id <> p.expected
    UNION ALL
    SELECT 'error',
           CASE WHEN m.run_id IS NULL THEN 'event_outside_history' ELSE 'snapshot_misplaced' END,
           s.stream_id,
           CASE WHEN m.run_id IS NULL
                THEN format('event %s is of "%s", under which the stream did not run then',
                            m.sequence_number, m.workflow_id)
                ELSE format('event %s is of "%s", '
                            'which does not fit the number of the snapshot of run %s',
                            m.sequence_number, m.workflow_id, m.run_id) END,
           'It was changed past the triggers: restore it from a backup.'
    FROM misplaced m JOIN mako.stream s ON s.stream_no = m.stream_no),
  ranked AS (
    SELECT b.*, row_number() OVER w AS number, count(*) OVER (PARTITION BY b.code) AS found
    FROM broken b WINDOW w AS (PARTITION BY b.code ORDER BY b.subject COLLATE "C"))
  SELECT r.severity, r.code, r.subject, r.message, r.hint FROM ranked r WHERE r.number <= 20
  UNION ALL
  SELECT r.severity, r.code, '*', format('%s more like those', r.found - 20), r.hint
  FROM ranked r WHERE r.number = 21
  UNION ALL
  SELECT 'warning', 'store_layout', 'mako',
         format('the store has layout version %s', @extschema@.mako_store_layout()),
         'Upgrade it with SELECT mako_create_store(), or update the extension.'
  FROM @extschema@.mako_store_object() o
  WHERE o.name = 'layout_version'
    AND substring(o.definition FROM 'SELECT ([0-9]+)')::integer <> @extschema@.mako_store_layout()
  UNION ALL
  SELECT 'info', 'events_archived', '*',
         format('the first events of %s streams are archived; their snapshots tell the states',
                count(*)),
         'mako_trace() and mako_verify() cannot look behind them.'
  FROM known k
  WHERE k.stream_id IS NOT NULL
    AND CASE WHEN k.first IS NULL THEN k.version > 0 AND k.saved = k.version
             ELSE k.first > 1 AND k.saved >= k.first - 1 AND k.last - k.first + 1 = k.events END
  HAVING count(*) > 0
  UNION ALL
  SELECT 'error', 'workflow_not_registered', s.workflow_id,
         format('%s streams run under it, but it is not registered', count(*)),
         'Use mako_register_workflow().'
  FROM mako.stream s
  WHERE NOT EXISTS (SELECT FROM @extschema@.mako_workflow w
                    WHERE w.workflow_id::text = s.workflow_id)
  GROUP BY s.workflow_id
  UNION ALL
  SELECT 'info', 'exemption_unused', x.workflow_id::text,
         'it is exempt, but no stream runs under it',
         'mako_unexempt() takes the exemption back.'
  FROM @extschema@.mako_exemption x
  WHERE NOT EXISTS (SELECT FROM mako.stream s WHERE s.workflow_id = x.workflow_id::text)
  UNION ALL
  SELECT 'warning', 'run_unfinished', format('%s -> %s', r.source_wf, r.target_wf),
         format('batched run %s has not finished', r.run_id),
         'It is running, or was stopped: '
         'call it again, and it goes on, or give it up with mako_revert().'
  FROM mako.migration_run r WHERE r.kind = 'batched' AND r.finished_at IS NULL
  UNION ALL
  SELECT 'info', 'dependent_unindexed', c.name,
         format('column "%s" of %s is not indexed, '
                'so that the whole table is read for every batch of streams',
                d.process_column, c.name),
         format('CREATE INDEX ON %s (%s)', c.name,
                concat_ws(', ', quote_ident(d.tenant_column), quote_ident(d.process_column)))
  FROM mako.dependent d
  JOIN relations AS c
    ON c.oid = @extschema@.mako_remembered_relation(d.relation, d.relation_identity)
  JOIN pg_attribute p
    ON p.attrelid = c.oid AND p.attname = d.process_column AND NOT p.attisdropped
  LEFT JOIN pg_attribute t
    ON t.attrelid = p.attrelid AND t.attname = d.tenant_column AND NOT t.attisdropped
  WHERE NOT EXISTS (SELECT FROM pg_index i
                    WHERE i.indrelid = p.attrelid AND i.indisvalid AND i.indpred IS NULL
                      AND (i.indkey[0] = p.attnum
                           OR (i.indkey[0] = t.attnum AND i.indkey[1] = p.attnum)))
  UNION ALL
  -- Owners of schemas and roles that may create in them; the role of a sink does no harm to itself.
  SELECT 'warning', 'sink_path_open', format('sink %s', k.sink_no),
         format('role "%s" may create in schema "%s", which is on its path',
                coalesce(min(r.rolname COLLATE "C"), 'public'), n.nspname),
         'REVOKE CREATE on it, or add the sink again with that schema off the path: '
         'a better match for what the sink calls would run as its role.'
  FROM @extschema@.mako_sink k
  CROSS JOIN LATERAL unnest(k.search_path) AS p (name)
  JOIN pg_namespace n ON n.nspname = p.name AND n.nspname <> 'pg_catalog'
  CROSS JOIN LATERAL (
    SELECT n.nspowner UNION ALL
    SELECT a.grantee FROM aclexplode(n.nspacl) a WHERE a.privilege_type = 'CREATE') AS c (creator)
  LEFT JOIN pg_roles r
    ON r.oid = (SELECT coalesce(d.datdba, c.creator) FROM (VALUES (1)) AS one (row)
                LEFT JOIN pg_database d ON d.datname = current_database()
                                           AND c.creator::regrole::text = 'pg_database_owner')
  WHERE k.removed_at IS NULL
    AND (r.oid IS NULL
         OR NOT (r.rolsuper OR r.rolname = k.owner
                 OR r.oid::text = split_part(k.owner_identity, '@', 1)))
  GROUP BY k.sink_no, n.nspname;
END
$$;
COMMENT ON FUNCTION mako_store_finding_rows() IS
'what mako_store_finding() returns; for its own use';

CREATE FUNCTION mako_store_finding()
RETURNS TABLE (severity text, code text, subject text, message text, hint text)
LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_store_finding() IS
'what mako_check() finds in the tables of the store; twenty streams at most for each fault';

CREATE FUNCTION mako_check(sample integer DEFAULT 100)
RETURNS TABLE (severity text, code text, subject text, message text, hint text)
LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_check(integer) IS
'what is wrong with store, definitions and steps, one cause a row: error, warning or info; '
'tries sample streams of each workflow';
