-- What test/quickstart shows, in an empty database: psql -X -q -v ON_ERROR_STOP=1 -v count=20000 -f test/quickstart.sql
\set old gpke-supplier-change@FV2024-10-01
\set new gpke-supplier-change@FV2025-10-01

\echo
\echo '== 1. The extension in a schema of its own, its store, two versions of a workflow and the step between them'
\o /dev/null
CREATE SCHEMA mako_migration;
CREATE EXTENSION mako_migration SCHEMA mako_migration;
SELECT format('ALTER DATABASE %I SET search_path = %s, mako_migration', current_database(), current_setting('search_path')) \gexec
\connect
SELECT mako_create_store();
\ir examples/gpke/supplier_change.sql
\ir examples/gpke/register.sql
\ir examples/gpke/generate.sql
\o
SELECT workflow_id, state_schema_version FROM mako_workflow ORDER BY workflow_id COLLATE "C";

\echo '==' 2. :count processes, and a table of deadlines that follows them
\o /dev/null
SELECT gpke.generate(:count);
SELECT mako_add_dependent('gpke.deadline', 'process_id', 'workflow_id', tenant_column => 'tenant_id');
ANALYZE;
\o
SELECT workflow_id, count(*) AS streams, sum(version) AS events
  FROM mako.stream GROUP BY workflow_id ORDER BY workflow_id COLLATE "C";

-- One of them, to be followed: of those that are reached by a conversation key, one that has got furthest.
SELECT stream_no, stream_id, tenant_id, process_id
  FROM mako.stream s
 WHERE workflow_id = :'old'
   AND EXISTS (SELECT FROM mako.registry r WHERE r.stream_no = s.stream_no AND r.key LIKE '%:%')
 ORDER BY version DESC, stream_no LIMIT 1 \gset

\echo '==' 3. One process before: :stream_id
SELECT workflow_id, version FROM mako.stream WHERE stream_no = :stream_no;
\echo 'Its routing keys, the process id and a conversation with a partner:'
SELECT key, workflow_id FROM mako.process_identity
 WHERE tenant_id = :'tenant_id' AND stream_id = :'stream_id' ORDER BY key COLLATE "C";
\echo 'Its state, folded from its events:'
\pset format unaligned
\pset tuples_only on
SELECT jsonb_pretty(mako_fold(:'old', jsonb_agg(jsonb_build_object('event_type', event_type, 'schema_version', schema_version,
                                                                   'payload', payload) ORDER BY sequence_number)))
  FROM mako.event WHERE stream_no = :stream_no;
\pset tuples_only off
\pset format aligned

\echo
\echo '== 4. The migration, one statement, one transaction'
\timing on
\x on
SELECT run_id, source_wf, target_wf, migrated, skipped, failed, started_at, duration
  FROM mako_migrate(:'old', :'new', reason => 'quickstart');
\x off
\timing off
\echo

\echo '== 5. After'
SELECT workflow_id, count(*) AS streams, sum(version) AS events
  FROM mako.stream GROUP BY workflow_id ORDER BY workflow_id COLLATE "C";
SELECT workflow_id, count(*) AS deadlines FROM gpke.deadline GROUP BY workflow_id ORDER BY workflow_id COLLATE "C";

\echo '==' 6. The same process after: :stream_id
SELECT workflow_id, version FROM mako.stream WHERE stream_no = :stream_no;
\echo 'Its routing keys lead to the new version:'
SELECT key, workflow_id FROM mako.process_identity
 WHERE tenant_id = :'tenant_id' AND stream_id = :'stream_id' ORDER BY key COLLATE "C";
\echo 'Its state, stored as the snapshot from which it goes on:'
\pset format unaligned
\pset tuples_only on
SELECT jsonb_pretty(state)
  FROM mako.snapshot WHERE stream_no = :stream_no ORDER BY sequence_number DESC, run_id DESC LIMIT 1;
