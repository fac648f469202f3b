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
