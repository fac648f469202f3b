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
