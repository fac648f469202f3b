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
'the sinks that the run wrote to, by their numbers in mako_sink';

ALTER TABLE mako.migration_run ADD CONSTRAINT migration_run_pkey PRIMARY KEY (run_id);
ALTER TABLE mako.migration_run ADD CONSTRAINT migration_run_kind_check
  CHECK ((kind = ANY (
    ARRAY['single'::text, 'batched'::text, 'revert'::text, 'attach'::text])));

-- Number 0 is that of periodic snapshots.
ALTER TABLE mako.migration_run ADD CONSTRAINT migration_run_run_id_check
  CHECK ((run_id >= 1));

CREATE TRIGGER migration_run_guard
BEFORE INSERT OR DELETE OR UPDATE OR TRUNCATE ON mako.migration_run
FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.mako_guard(
  'The audit trail is written by migrations only.');

-- Holds for the extension's own statements, too, and so for triggers of others that run inside
-- them.
CREATE TRIGGER migration_run_final
BEFORE DELETE OR UPDATE ON mako.migration_run
FOR EACH ROW WHEN ((old.finished_at IS NOT NULL)) EXECUTE FUNCTION @extschema@.mako_guard(
  'A run is final once it is finished.', 'To undo a run, use mako_revert().', 'always');
