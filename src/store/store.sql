-- -------------------------------------------------------------------------------------------------
-- The triggers of the store's tables: triggers.c

CREATE FUNCTION mako_stream_inserted() RETURNS trigger LANGUAGE c VOLATILE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_stream_inserted() IS 'new heads start at version 0, under a version that still takes new processes';

CREATE FUNCTION mako_event_inserted() RETURNS trigger LANGUAGE c VOLATILE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_event_inserted() IS 'new events continue their streams under the workflow of the head, and advance the heads';

CREATE FUNCTION mako_snapshot_saved() RETURNS trigger LANGUAGE c VOLATILE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_snapshot_saved() IS 'periodic snapshots are not written under a retired version';

CREATE FUNCTION mako_guard() RETURNS trigger LANGUAGE c VOLATILE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_guard() IS
'refuses a change that only this extension may make; the trigger''s arguments are detail and hint of the error. With a third one, always';

-- -------------------------------------------------------------------------------------------------
-- What makes up a store, and what is wrong with it

CREATE FUNCTION mako_store_object()
RETURNS TABLE (ordinal integer, kind text, relation text, name text, definition text)
LANGUAGE sql STABLE PARALLEL SAFE AS
$store$
  SELECT o.*
  -- A view with this option holds the row security of its tables for the role that asks. It came with 15.
  FROM (SELECT CASE WHEN pg_catalog.current_setting('server_version_num')::pg_catalog.int4 OPERATOR(pg_catalog.>=) 150000
                    THEN 'WITH (security_invoker = true)' ELSE '' END AS invoker) AS v
  CROSS JOIN LATERAL (VALUES
    -- A function, not a row: a dump of data alone must find empty tables.
    (1, 'function', 'layout_version', 'layout_version', $$
CREATE FUNCTION mako.layout_version() RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT 1';
COMMENT ON FUNCTION mako.layout_version() IS 'the layout version of this store; mako_create_store() upgrades an older one' $$),

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
COMMENT ON TABLE mako.stream IS 'stream heads: which workflow a stream runs under now, and its last sequence number';
COMMENT ON COLUMN mako.stream.stream_id IS 'process/<tenant uuid>/<process uuid>, or any other text for a stream that is no process';
COMMENT ON COLUMN mako.stream.process_id IS 'null for a stream that is no process';
COMMENT ON COLUMN mako.stream.workflow_id IS 'what the stream runs under now; no index, so that repointing is a HOT update';
COMMENT ON COLUMN mako.stream.version IS 'the last sequence number, 0 for a stream without events' $$),

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
COMMENT ON COLUMN mako.event.workflow_id IS 'the workflow the event was written under' $$),

    (4, 'table', 'snapshot', 'snapshot', $$
CREATE TABLE mako.snapshot (
  stream_no             bigint NOT NULL,
  sequence_number       bigint NOT NULL,
  run_id                bigint NOT NULL DEFAULT 0,
  workflow_id           text COLLATE "C" NOT NULL,
  state_schema_version  integer NOT NULL,
  state                 jsonb NOT NULL,
  taken_at              timestamptz NOT NULL DEFAULT now(),
  reverted_by           bigint
);
COMMENT ON TABLE mako.snapshot IS 'states at a sequence number; those of a migration run are final, periodic ones are only a cache';
COMMENT ON COLUMN mako.snapshot.run_id IS 'the migration run that wrote it; 0 for a periodic snapshot';
COMMENT ON COLUMN mako.snapshot.reverted_by IS 'the run that undid the migration' $$),

    (5, 'table', 'repointed', 'repointed', $$
CREATE TABLE mako.repointed (
  run_id           bigint NOT NULL,
  stream_no        bigint NOT NULL,
  sequence_number  bigint NOT NULL,
  reverted_by      bigint
);
COMMENT ON TABLE mako.repointed IS
'streams that a run moved without a snapshot of their last event: those without events, and identity migrations without apply';
COMMENT ON COLUMN mako.repointed.reverted_by IS 'the run that undid the migration' $$),

    (6, 'table', 'registry', 'registry', $$
CREATE TABLE mako.registry (
  tenant_id   uuid NOT NULL,
  key         text COLLATE "C" NOT NULL,
  stream_no   bigint NOT NULL,
  expires_at  timestamptz
);
COMMENT ON TABLE mako.registry IS 'routing keys: process id, <partner code>:<conversation id>, correlation id or any other text, per tenant' $$),

    (7, 'table', 'correlation', 'correlation', $$
CREATE TABLE mako.correlation (
  tenant_id  uuid NOT NULL,
  tag        text COLLATE "C" NOT NULL,
  stream_no  bigint NOT NULL
);
COMMENT ON TABLE mako.correlation IS 'tags, such as a metering location, that several processes may share, per tenant' $$),

    (8, 'table', 'format_version', 'format_version', $$
CREATE TABLE mako.format_version (
  format_version  text COLLATE "C" NOT NULL,
  status          text NOT NULL,
  messages_until  timestamptz,
  changed_by      text NOT NULL DEFAULT current_user,
  changed_at      timestamptz NOT NULL DEFAULT now(),
  reason          text
);
COMMENT ON TABLE mako.format_version IS 'format versions that were drained, retired or reactivated: the last change of each; one without a row is active' $$),

    (9, 'table', 'dependent', 'dependent', $$
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
COMMENT ON TABLE mako.dependent IS 'other tables whose workflow column follows a migrated process; see mako_add_dependent()';
COMMENT ON COLUMN mako.dependent.relation IS 'its name when it was added; a relation that has it now is meant';
COMMENT ON COLUMN mako.dependent.relation_identity IS
'OID of it and system identifier of the cluster, by which it is known when it was renamed and no relation has its old name';
COMMENT ON COLUMN mako.dependent.owner IS 'whose relation it was when it was added: it is updated as this role';
COMMENT ON COLUMN mako.dependent.owner_identity IS 'OID of that role and system identifier of the cluster, by which a renamed role is known';
COMMENT ON COLUMN mako.dependent.process_type IS 'type of the process column when it was added: it decides what the column is compared with' $$),

    (10, 'table', 'migration_run', 'migration_run', $$
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
  failed             bigint
);
COMMENT ON TABLE mako.migration_run IS 'audit trail: who migrated what, when, why and how it ended; final once finished';
COMMENT ON COLUMN mako.migration_run.kind IS 'single: one transaction; batched: one a batch; revert: undoes another run';
COMMENT ON COLUMN mako.migration_run.path IS 'the workflow ids from source to target';
COMMENT ON COLUMN mako.migration_run.batch_size IS 'of a batched run, as is the next column';
COMMENT ON COLUMN mako.migration_run.through_stream_no IS 'the last stream that there was when the run began: later ones are none of its business';
COMMENT ON COLUMN mako.migration_run.reverts IS 'the run that this one undoes';
COMMENT ON COLUMN mako.migration_run.closed_by IS
'of a batched run that was closed before it had come to its end: the run that took its place or undid it';
COMMENT ON COLUMN mako.migration_run.fingerprint IS 'sha256 over the lines that are the sha256 of each definition';
COMMENT ON COLUMN mako.migration_run.definitions IS
'what ran: workflow, step, workflow ... on the path, with the source text of their functions and helpers';
COMMENT ON COLUMN mako.migration_run.skipped IS 'counted at the end: null for a run that has not come to it' $$),

    (11, 'table', 'migration_error', 'migration_error', $$
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
COMMENT ON TABLE mako.migration_error IS 'audit trail: every stream that a run could not migrate, in full';
COMMENT ON COLUMN mako.migration_error.error_no IS 'in the order in which they were saved' $$),

    (12, 'table', 'migration_batch', 'migration_batch', $$
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
COMMENT ON TABLE mako.migration_batch IS 'audit trail: the batches of batched runs, each of which was a transaction';
COMMENT ON COLUMN mako.migration_batch.last_stream_no IS 'the run has come as far as this stream; null once it tries those again that were busy';
COMMENT ON COLUMN mako.migration_batch.busy IS 'streams that somebody else had locked';
COMMENT ON COLUMN mako.migration_batch.session_role IS 'who called the run, which need not be who began it, as is the next column' $$),

    -- The routers' and the caches' views.
    (20, 'view', 'process_identity', 'process_identity', pg_catalog.format($$
CREATE VIEW mako.process_identity %1$s AS
SELECT r.tenant_id, r.key, s.process_id, s.stream_id, s.workflow_id
FROM mako.registry r JOIN mako.stream s ON s.stream_no = r.stream_no
WHERE r.expires_at IS NULL OR r.expires_at > now();
COMMENT ON VIEW mako.process_identity IS 'where a routing key leads: the stream and the workflow it runs under now' $$, v.invoker)),

    (21, 'view', 'migrated_stream', 'migrated_stream', pg_catalog.format($$
CREATE VIEW mako.migrated_stream %1$s AS
SELECT m.run_id, s.stream_id, r.source_wf, r.target_wf, m.sequence_number
FROM (SELECT n.run_id, n.stream_no, n.sequence_number FROM mako.snapshot n
      WHERE n.run_id > 0 AND n.reverted_by IS NULL
        AND NOT EXISTS (SELECT FROM mako.repointed p WHERE p.stream_no = n.stream_no AND p.run_id = n.run_id)
      UNION ALL
      SELECT run_id, stream_no, sequence_number FROM mako.repointed WHERE reverted_by IS NULL) m
JOIN mako.migration_run r ON r.run_id = m.run_id AND r.update_registry
JOIN mako.stream s ON s.stream_no = m.stream_no;
COMMENT ON VIEW mako.migrated_stream IS 'which streams a run moved, for caches and projections that must follow' $$, v.invoker)),

    -- Constraints, one by one, so that each can be missed and made again; written as pg_get_constraintdef() writes them, white
    -- space apart, so that they can be compared.
    (30, 'constraint', 'stream', 'stream_pkey',
     $$ ALTER TABLE mako.stream ADD CONSTRAINT stream_pkey PRIMARY KEY (stream_no) $$),
    (31, 'constraint', 'event', 'event_pkey',
     $$ ALTER TABLE mako.event ADD CONSTRAINT event_pkey PRIMARY KEY (stream_no, sequence_number) $$),
    (32, 'constraint', 'snapshot', 'snapshot_pkey',
     $$ ALTER TABLE mako.snapshot ADD CONSTRAINT snapshot_pkey PRIMARY KEY (stream_no, sequence_number, run_id) $$),
    (33, 'constraint', 'repointed', 'repointed_pkey',
     $$ ALTER TABLE mako.repointed ADD CONSTRAINT repointed_pkey PRIMARY KEY (stream_no, run_id) $$),
    (34, 'constraint', 'registry', 'registry_pkey',
     $$ ALTER TABLE mako.registry ADD CONSTRAINT registry_pkey PRIMARY KEY (tenant_id, key) $$),
    (35, 'constraint', 'correlation', 'correlation_pkey',
     $$ ALTER TABLE mako.correlation ADD CONSTRAINT correlation_pkey PRIMARY KEY (tenant_id, tag, stream_no) $$),
    (36, 'constraint', 'format_version', 'format_version_pkey',
     $$ ALTER TABLE mako.format_version ADD CONSTRAINT format_version_pkey PRIMARY KEY (format_version) $$),
    (37, 'constraint', 'dependent', 'dependent_pkey',
     $$ ALTER TABLE mako.dependent ADD CONSTRAINT dependent_pkey PRIMARY KEY (relation, process_column, workflow_column) $$),
    (38, 'constraint', 'migration_run', 'migration_run_pkey',
     $$ ALTER TABLE mako.migration_run ADD CONSTRAINT migration_run_pkey PRIMARY KEY (run_id) $$),
    (39, 'constraint', 'migration_error', 'migration_error_pkey',
     $$ ALTER TABLE mako.migration_error ADD CONSTRAINT migration_error_pkey PRIMARY KEY (run_id, error_no) $$),
    (40, 'constraint', 'stream', 'stream_stream_id_key',
     $$ ALTER TABLE mako.stream ADD CONSTRAINT stream_stream_id_key UNIQUE (stream_id) $$),
    (41, 'constraint', 'event', 'event_stream_no_event_id_key',
     $$ ALTER TABLE mako.event ADD CONSTRAINT event_stream_no_event_id_key UNIQUE (stream_no, event_id) $$),
    (42, 'constraint', 'stream', 'stream_tenant_id_stream_no_key',
     $$ ALTER TABLE mako.stream ADD CONSTRAINT stream_tenant_id_stream_no_key UNIQUE (tenant_id, stream_no) $$),
    (43, 'constraint', 'stream', 'stream_stream_id_check',
     $$ ALTER TABLE mako.stream ADD CONSTRAINT stream_stream_id_check CHECK ((stream_id <> ''::text)) $$),
    (44, 'constraint', 'stream', 'stream_process_id_check',
     $$ ALTER TABLE mako.stream ADD CONSTRAINT stream_process_id_check
          CHECK (((process_id IS NULL) OR ((tenant_id IS NOT NULL) AND (stream_id = ((('process/'::text || (tenant_id)::text)
          || '/'::text) || (process_id)::text))))) $$),
    (45, 'constraint', 'stream', 'stream_tenant_id_check',
     $$ ALTER TABLE mako.stream ADD CONSTRAINT stream_tenant_id_check
          CHECK (((tenant_id IS NULL) OR (stream_id !~~ 'process/%'::text) OR (lower(split_part(stream_id, '/'::text, 2)) =
          (tenant_id)::text))) $$),
    (46, 'constraint', 'stream', 'stream_version_check',
     $$ ALTER TABLE mako.stream ADD CONSTRAINT stream_version_check CHECK ((version >= 0)) $$),
    (47, 'constraint', 'event', 'event_sequence_number_check',
     $$ ALTER TABLE mako.event ADD CONSTRAINT event_sequence_number_check CHECK ((sequence_number >= 1)) $$),
    (48, 'constraint', 'event', 'event_schema_version_check',
     $$ ALTER TABLE mako.event ADD CONSTRAINT event_schema_version_check CHECK ((schema_version >= 1)) $$),
    (49, 'constraint', 'snapshot', 'snapshot_sequence_number_check',
     $$ ALTER TABLE mako.snapshot ADD CONSTRAINT snapshot_sequence_number_check CHECK ((sequence_number >= 1)) $$),
    (50, 'constraint', 'snapshot', 'snapshot_state_schema_version_check',
     $$ ALTER TABLE mako.snapshot ADD CONSTRAINT snapshot_state_schema_version_check CHECK ((state_schema_version >= 1)) $$),
    (51, 'constraint', 'registry', 'registry_key_check',
     $$ ALTER TABLE mako.registry ADD CONSTRAINT registry_key_check
          CHECK (((octet_length(key) >= 1) AND (octet_length(key) <= 256))) $$),
    (52, 'constraint', 'correlation', 'correlation_tag_check',
     $$ ALTER TABLE mako.correlation ADD CONSTRAINT correlation_tag_check
          CHECK (((octet_length(tag) >= 1) AND (octet_length(tag) <= 256))) $$),
    (53, 'constraint', 'format_version', 'format_version_status_check',
     $$ ALTER TABLE mako.format_version ADD CONSTRAINT format_version_status_check
          CHECK ((status = ANY (ARRAY['active'::text, 'draining'::text, 'retired'::text]))) $$),
    (54, 'constraint', 'registry', 'registry_tenant_id_stream_no_fkey',
     $$ ALTER TABLE mako.registry ADD CONSTRAINT registry_tenant_id_stream_no_fkey
          FOREIGN KEY (tenant_id, stream_no) REFERENCES mako.stream(tenant_id, stream_no) $$),
    (55, 'constraint', 'correlation', 'correlation_tenant_id_stream_no_fkey',
     $$ ALTER TABLE mako.correlation ADD CONSTRAINT correlation_tenant_id_stream_no_fkey
          FOREIGN KEY (tenant_id, stream_no) REFERENCES mako.stream(tenant_id, stream_no) $$),
    (56, 'constraint', 'migration_batch', 'migration_batch_pkey',
     $$ ALTER TABLE mako.migration_batch ADD CONSTRAINT migration_batch_pkey PRIMARY KEY (run_id, batch_no) $$),
    (57, 'constraint', 'migration_run', 'migration_run_kind_check',
     $$ ALTER TABLE mako.migration_run ADD CONSTRAINT migration_run_kind_check
          CHECK ((kind = ANY (ARRAY['single'::text, 'batched'::text, 'revert'::text]))) $$),
    -- A run tries a stream once: its second time around looks for what has failed, and a story for when.
    (58, 'constraint', 'migration_error', 'migration_error_stream_no_run_id_key',
     $$ ALTER TABLE mako.migration_error ADD CONSTRAINT migration_error_stream_no_run_id_key UNIQUE (stream_no, run_id) $$),
    -- A batched run begins after number 0.
    (59, 'constraint', 'stream', 'stream_stream_no_check',
     $$ ALTER TABLE mako.stream ADD CONSTRAINT stream_stream_no_check CHECK ((stream_no >= 1)) $$),
    -- 0 is that of periodic snapshots.
    (60, 'constraint', 'migration_run', 'migration_run_run_id_check',
     $$ ALTER TABLE mako.migration_run ADD CONSTRAINT migration_run_run_id_check CHECK ((run_id >= 1)) $$),

    -- What ties the store to the extension, and goes with it: checks that call its functions, and the triggers.
    (80, 'constraint', 'stream', 'stream_workflow_id_check',
     $$ ALTER TABLE mako.stream ADD CONSTRAINT stream_workflow_id_check
          CHECK (@extschema@.mako_assert_workflow_id(workflow_id)) $$),
    (81, 'constraint', 'format_version', 'format_version_format_version_check',
     $$ ALTER TABLE mako.format_version ADD CONSTRAINT format_version_format_version_check
          CHECK (@extschema@.mako_assert_format_version(format_version)) $$),

    -- Written as pg_get_triggerdef() writes them, white space apart, so that they can be compared.
    (90, 'trigger', 'stream', 'stream_inserted', $$
CREATE TRIGGER stream_inserted AFTER INSERT ON mako.stream REFERENCING NEW TABLE AS inserted
FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.mako_stream_inserted() $$),
    (91, 'trigger', 'stream', 'stream_guard', $$
CREATE TRIGGER stream_guard BEFORE DELETE OR UPDATE OR TRUNCATE ON mako.stream FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.mako_guard(
  'Stream heads advance with their events, and move to another workflow with a migration only.',
  'To move streams, use mako_migrate().') $$),
    (92, 'trigger', 'event', 'event_inserted', $$
CREATE TRIGGER event_inserted AFTER INSERT ON mako.event REFERENCING NEW TABLE AS inserted
FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.mako_event_inserted() $$),
    (93, 'trigger', 'event', 'event_guard', $$
CREATE TRIGGER event_guard BEFORE DELETE OR UPDATE OR TRUNCATE ON mako.event FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.mako_guard(
  'Events are append-only.',
  'To archive events, the owner can disable the trigger "event_guard".') $$),
    (94, 'trigger', 'snapshot', 'snapshot_insert_guard', $$
CREATE TRIGGER snapshot_insert_guard BEFORE INSERT ON mako.snapshot FOR EACH ROW WHEN ((new.run_id <> 0)) EXECUTE FUNCTION @extschema@.mako_guard(
  'Migration snapshots are written by migrations only.',
  'Periodic snapshots have run_id 0.') $$),
    (95, 'trigger', 'snapshot', 'snapshot_update_guard', $$
CREATE TRIGGER snapshot_update_guard BEFORE UPDATE ON mako.snapshot FOR EACH ROW WHEN (((old.run_id <> 0) OR (new.run_id <> 0))) EXECUTE FUNCTION @extschema@.mako_guard(
  'The state of a migrated stream starts at its migration snapshot: without it the state is lost.',
  'Periodic snapshots have run_id 0.') $$),
    (96, 'trigger', 'snapshot', 'snapshot_delete_guard', $$
CREATE TRIGGER snapshot_delete_guard BEFORE DELETE ON mako.snapshot FOR EACH ROW WHEN ((old.run_id <> 0)) EXECUTE FUNCTION @extschema@.mako_guard(
  'The state of a migrated stream starts at its migration snapshot: without it the state is lost.',
  'Periodic snapshots have run_id 0.') $$),
    (97, 'trigger', 'snapshot', 'snapshot_truncate_guard', $$
CREATE TRIGGER snapshot_truncate_guard BEFORE TRUNCATE ON mako.snapshot FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.mako_guard(
  'The state of a migrated stream starts at its migration snapshot: without it the state is lost.',
  'To drop periodic snapshots, delete those with run_id 0.') $$),
    (98, 'trigger', 'repointed', 'repointed_guard', $$
CREATE TRIGGER repointed_guard BEFORE INSERT OR DELETE OR UPDATE OR TRUNCATE ON mako.repointed FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.mako_guard(
  'The audit trail is written by migrations only.') $$),
    (99, 'trigger', 'migration_run', 'migration_run_guard', $$
CREATE TRIGGER migration_run_guard BEFORE INSERT OR DELETE OR UPDATE OR TRUNCATE ON mako.migration_run FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.mako_guard(
  'The audit trail is written by migrations only.') $$),
    (100, 'trigger', 'migration_error', 'migration_error_guard', $$
CREATE TRIGGER migration_error_guard BEFORE INSERT OR DELETE OR UPDATE OR TRUNCATE ON mako.migration_error FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.mako_guard(
  'The audit trail is written by migrations only.') $$),
    (101, 'trigger', 'snapshot', 'snapshot_saved', $$
CREATE TRIGGER snapshot_saved BEFORE INSERT OR UPDATE ON mako.snapshot FOR EACH ROW WHEN ((new.run_id = 0)) EXECUTE FUNCTION @extschema@.mako_snapshot_saved() $$),
    (102, 'trigger', 'format_version', 'format_version_guard', $$
CREATE TRIGGER format_version_guard BEFORE INSERT OR DELETE OR UPDATE OR TRUNCATE ON mako.format_version FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.mako_guard(
  'A version must not change its status while somebody writes under it.',
  'Use mako_drain(), mako_retire() or mako_reactivate().') $$),
    (103, 'trigger', 'migration_batch', 'migration_batch_guard', $$
CREATE TRIGGER migration_batch_guard BEFORE INSERT OR DELETE OR UPDATE OR TRUNCATE ON mako.migration_batch FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.mako_guard(
  'The audit trail is written by migrations only.') $$),
    (105, 'trigger', 'dependent', 'dependent_guard', $$
CREATE TRIGGER dependent_guard BEFORE INSERT OR DELETE OR UPDATE OR TRUNCATE ON mako.dependent FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.mako_guard(
  'A dependent is updated as its owner, whose privileges adding it needs.',
  'Use mako_add_dependent() and mako_remove_dependent().') $$),
    -- Holds for the extension's own statements, too, and so for whatever triggers of somebody else's do inside of them.
    (104, 'trigger', 'migration_run', 'migration_run_final', $$
CREATE TRIGGER migration_run_final BEFORE DELETE OR UPDATE ON mako.migration_run FOR EACH ROW WHEN ((old.finished_at IS NOT NULL)) EXECUTE FUNCTION @extschema@.mako_guard(
  'A run is final once it is finished.', 'To undo a run, use mako_revert().', 'always') $$)
  ) AS o (ordinal, kind, relation, name, definition)
$store$;
COMMENT ON FUNCTION mako_store_object() IS
'the objects that make up a store, in the order of their creation, with the statements that create them';

-- Read, not called: the owner of schema mako decides what a function in it does.
CREATE FUNCTION mako_store_layout() RETURNS integer
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS
$$
  SELECT substring(p.prosrc FROM '^SELECT ([0-9]{1,6})$')::integer
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace AND n.nspname = 'mako'
  WHERE p.proname = 'layout_version' AND p.pronargs = 0
$$;
COMMENT ON FUNCTION mako_store_layout() IS 'the layout version of the store, as mako.layout_version() tells it; null where that does something else';

CREATE FUNCTION mako_sequence_problem() RETURNS TABLE (object text, problem text, repairable boolean)
LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_sequence_problem() IS
'what numbers streams and runs and cannot go on, as a sequence behind its table after a switch to a replica; mako_store_problem() tells it, too';

CREATE FUNCTION mako_advance_sequences() RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_advance_sequences() IS 'lets sequences that are behind their tables go on after them, for the tables'' owner: a part of mako_create_store()';

CREATE FUNCTION mako_store_problem() RETURNS TABLE (object text, problem text, repairable boolean)
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp SET quote_all_identifiers = off SET DateStyle = 'ISO, YMD' AS
$$
  WITH object AS (
    SELECT o.*, c.oid, regexp_replace(btrim(regexp_replace(o.definition, '[[:space:]]+', ' ', 'g')), '[(] ', '(', 'g') AS expected
    FROM @extschema@.mako_store_object() o
    LEFT JOIN pg_namespace n ON n.nspname = 'mako'
    LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = o.relation)
  SELECT p.object, p.problem, p.repairable
  FROM (
    SELECT o.ordinal, o.kind || ' mako.' || o.relation AS object, 'is missing' AS problem, true AS repairable
    FROM object o WHERE o.kind IN ('table', 'view') AND o.oid IS NULL
    UNION ALL
    SELECT o.ordinal, 'function mako.layout_version',
           CASE WHEN EXISTS (SELECT FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace AND n.nspname = 'mako'
                             WHERE p.proname = 'layout_version' AND p.pronargs = 0) THEN 'does something else' ELSE 'is missing' END, true
    FROM object o WHERE o.kind = 'function' AND @extschema@.mako_store_layout() IS NULL
    UNION ALL
    SELECT DISTINCT 0, 'relation mako.' || c.relation, c.relation_problem, false
    FROM @extschema@.mako_store_column() c WHERE c.relation_problem IS NOT NULL
    UNION ALL
    SELECT 0, 'column mako.' || c.relation || '.' || c.name, c.problem, false
    FROM @extschema@.mako_store_column() c WHERE c.problem IS NOT NULL
    UNION ALL
    SELECT o.ordinal, 'constraint ' || o.name || ' on mako.' || o.relation,
           CASE WHEN c.oid IS NULL THEN 'is missing' ELSE 'does something else' END, c.oid IS NULL OR c.contype IN ('c', 'f')
    FROM object o LEFT JOIN pg_constraint c ON c.conrelid = o.oid AND c.conname = o.name
    WHERE o.kind = 'constraint'
      AND (c.oid IS NULL OR 'ALTER TABLE mako.' || o.relation || ' ADD CONSTRAINT ' || o.name || ' ' || pg_get_constraintdef(c.oid)
                            <> o.expected)
    UNION ALL
    SELECT o.ordinal, 'trigger ' || o.name || ' on mako.' || o.relation,
           CASE WHEN t.oid IS NULL THEN 'is missing'
                WHEN t.tgenabled NOT IN ('O', 'A') THEN 'is disabled'
                ELSE 'does something else' END,
           true
    FROM object o LEFT JOIN pg_trigger t ON t.tgrelid = o.oid AND t.tgname = o.name
    WHERE o.kind = 'trigger' AND (t.oid IS NULL OR t.tgenabled NOT IN ('O', 'A') OR pg_get_triggerdef(t.oid) <> o.expected)
    UNION ALL
    SELECT NULL, s.object, s.problem, s.repairable FROM @extschema@.mako_sequence_problem() s
  ) AS p (ordinal, object, problem, repairable)
  ORDER BY p.ordinal, p.object COLLATE "C"
$$;
COMMENT ON FUNCTION mako_store_problem() IS
'what the store lacks, and sequences that cannot go on, one row each; mako_create_store() repairs what is repairable';

CREATE FUNCTION mako_open_schema() RETURNS text
LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_open_schema() IS
'why others may create in the schema of the extension, where they could capture calls of its functions; null where they may not';

CREATE FUNCTION mako_grant_triggers() RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_grant_triggers() IS
'lets a role that may execute mako_create_store() use the functions of the triggers that a store has';

CREATE FUNCTION mako_create_store() RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET client_min_messages = warning SET quote_all_identifiers = off AS
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
    COMMENT ON SCHEMA mako IS 'store of mako_migration: event streams, snapshots, registry and audit trail';
  ELSIF pg_get_userbyid(store_owner) <> current_user THEN
    RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
      MESSAGE = format('schema "mako" belongs to role "%s"', pg_get_userbyid(store_owner)),
      DETAIL = format('The current role is "%s".', current_user),
      HINT = format('A store is created and repaired by the role that owns it: use SET ROLE %I.', pg_get_userbyid(store_owner));
  ELSIF NOT EXISTS (SELECT FROM pg_proc WHERE pronamespace = 'mako'::regnamespace AND proname = 'layout_version' AND pronargs = 0)
    AND EXISTS (SELECT FROM pg_class WHERE relnamespace = 'mako'::regnamespace) THEN
    RAISE EXCEPTION USING ERRCODE = 'duplicate_object',
      MESSAGE = 'schema "mako" already exists and is not a store',
      DETAIL = format('It holds %s relations, but no function "layout_version".',
                      (SELECT count(*) FROM pg_class WHERE relnamespace = 'mako'::regnamespace)),
      HINT = 'Rename that schema: the store needs its name.';
  END IF;

  -- A repair evaluates what the owner of a table has put into its indexes and checks; a superuser needs nobody for that.
  SELECT c.relname, r.rolname AS owner INTO object
  FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner
  WHERE c.relnamespace = 'mako'::regnamespace AND r.rolname <> current_user AND NOT r.rolsuper
    AND c.relname IN (SELECT o.relation FROM @extschema@.mako_store_object() o)
  ORDER BY c.relname LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
      MESSAGE = format('table "mako.%s" belongs to role "%s"', object.relname, object.owner),
      DETAIL = format('Schema "mako" belongs to role "%s".', pg_get_userbyid(store_owner)),
      HINT = format('Give the table to that role: ALTER TABLE mako.%I OWNER TO %I.', object.relname, pg_get_userbyid(store_owner));
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
      ON p.object IN (o.kind || ' mako.' || o.relation, o.kind || ' ' || o.name || ' on mako.' || o.relation)
    ORDER BY o.ordinal
  LOOP
    CASE object.problem
      WHEN 'is disabled' THEN
        EXECUTE format('ALTER TABLE mako.%I ENABLE TRIGGER %I', object.relation, object.name);
      WHEN 'does something else' THEN
        EXECUTE CASE object.kind WHEN 'trigger' THEN format('DROP TRIGGER %I ON mako.%I', object.name, object.relation)
                                 WHEN 'constraint' THEN format('ALTER TABLE mako.%I DROP CONSTRAINT %I', object.relation, object.name)
                                 ELSE 'DROP FUNCTION mako.layout_version()' END;
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
'creates the store in schema mako, owned by the caller; called again, it repairs and upgrades what is there';

CREATE FUNCTION mako_assert_store() RETURNS void
LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_assert_store() IS 'error 42704 when there is no store, 55000 when something of it is missing, disabled or behind';

-- -------------------------------------------------------------------------------------------------
-- Histories that were loaded, and locks

CREATE FUNCTION mako_adopt_events(OUT streams bigint, OUT events bigint, OUT spanning bigint)
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_adopt_events() IS
'proves the invariants of histories that were loaded with event_inserted disabled, and sets their heads; counts what it adopted';

CREATE FUNCTION mako_source_lock(workflow_id text) RETURNS bigint
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_source_lock(text) IS
'classid and objid, in one number, of the advisory lock that a batched run from this workflow holds; objsubid is 3';

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
