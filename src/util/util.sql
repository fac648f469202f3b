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
