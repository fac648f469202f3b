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
