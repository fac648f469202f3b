-- Three roles around a migration, so that nobody has to be the owner of the store or a superuser:
--
--   author     registers definitions, checks and explains them, and rehearses
--   operator   plans, drains, migrates, reverts, retires; registers nothing
--   auditor    reads the audit trail, histories, verifications and coverage; changes nothing
--
-- Run it with psql, as a superuser or as the owner of extension and store, in a database that has both. The store belongs to the
-- owner of the extension or to a superuser: the tables of another role are refused to roles that are not its members.
--
--   psql -v author=mako_author -v operator=mako_operator -v auditor=mako_auditor -f roles.sql
--
-- The names are the defaults. Roles that are missing are made, without login: grant them to people. Run it again after an update of the
-- extension, after mako_add_dependent(), and after functions of another schema are registered: it grants what has been added, and takes
-- nothing away. Registering a function takes its owner's privileges besides, so the author's functions belong to the author. What is
-- registered belongs to the role that did it: people who are authors use SET ROLE first, so that all of them may replace it.

\if :{?author} \else \set author mako_author \endif
\if :{?operator} \else \set operator mako_operator \endif
\if :{?auditor} \else \set auditor mako_auditor \endif

SELECT format('CREATE ROLE %I NOLOGIN', name) FROM unnest(ARRAY[:'author', :'operator', :'auditor']) AS name
WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = name) \gexec

-- Functions that change something, by name, as far as this version of the extension has them; what only reads, everybody may call, and
-- sees what he may select.
SELECT format('GRANT EXECUTE ON ROUTINE %s TO %I', p.oid::pg_catalog.regprocedure, g.role)
FROM (VALUES
  (:'author', 'mako_register_workflow'), (:'author', 'mako_unregister_workflow'),
  (:'author', 'mako_register_migration'), (:'author', 'mako_register_migrations'), (:'author', 'mako_unregister_migration'),
  (:'author', 'mako_exempt'), (:'author', 'mako_unexempt'), (:'author', 'mako_set_dispatch'), (:'author', 'mako_add_sink'), (:'author', 'mako_remove_sink'),
  (:'author', 'mako_check'), (:'author', 'mako_plan'), (:'author', 'mako_dry_run'), (:'author', 'mako_dry_run_summary'),
  (:'operator', 'mako_check'), (:'operator', 'mako_plan'), (:'operator', 'mako_dry_run'), (:'operator', 'mako_dry_run_summary'),
  (:'operator', 'mako_migrate'), (:'operator', 'mako_migrate_version'),
  (:'operator', 'mako_migrate_batched'), (:'operator', 'mako_migrate_version_batched'),
  (:'operator', 'mako_revert'), (:'operator', 'mako_verify'), (:'operator', 'mako_verify_snapshots'),
  (:'operator', 'mako_drain'), (:'operator', 'mako_retire'), (:'operator', 'mako_reactivate'),
  (:'auditor', 'mako_history'), (:'auditor', 'mako_verify'), (:'auditor', 'mako_verify_snapshots'), (:'auditor', 'mako_coverage')
) AS g (role, name)
JOIN pg_catalog.pg_proc p ON p.proname = g.name
JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid AND d.deptype = 'e'
JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid AND e.extname = 'mako_migration'
WHERE NOT has_function_privilege(g.role, p.oid, 'EXECUTE')
ORDER BY g.name COLLATE "C" \gexec

-- The store.
GRANT USAGE ON SCHEMA mako TO :"author", :"operator", :"auditor";
GRANT SELECT ON mako.stream, mako.event, mako.snapshot, mako.repointed, mako.reverted, mako.format_version, mako.dependent,
  mako.migration_run, mako.migration_error, mako.migration_batch, mako.migrated_stream TO :"author", :"operator", :"auditor";
GRANT UPDATE ON mako.stream TO :"operator";
GRANT INSERT, UPDATE ON mako.migration_run, mako.format_version TO :"operator";
GRANT INSERT ON mako.snapshot, mako.repointed, mako.reverted, mako.migration_error, mako.migration_batch TO :"operator";

-- The columns of dependents that follow.
SELECT format('GRANT SELECT (%s), UPDATE (%I) ON %s TO %I',
              concat_ws(', ', quote_ident(process_column), quote_ident(workflow_column), quote_ident(tenant_column)),
              workflow_column, relation, :'operator')
FROM mako.dependent ORDER BY relation, process_column, workflow_column \gexec

-- The schemas of dependents and of registered functions. The functions themselves run as their owners.
SELECT e.extnamespace::pg_catalog.regnamespace AS extension_schema FROM pg_catalog.pg_extension e WHERE e.extname = 'mako_migration' \gset
SELECT format('GRANT USAGE ON SCHEMA %s TO %I', n.oid::pg_catalog.regnamespace, r.role)
FROM pg_catalog.pg_namespace n, unnest(ARRAY[:'author', :'operator', :'auditor']) AS r (role)
WHERE NOT has_schema_privilege(r.role, n.oid, 'USAGE')
  AND (n.oid = :'extension_schema'::pg_catalog.regnamespace
       OR n.oid IN (SELECT p.pronamespace
                    FROM (SELECT unnest(ARRAY[apply, upcast, in_flight]) FROM :extension_schema.mako_workflow
                          UNION ALL SELECT migrate FROM :extension_schema.mako_state_migration) AS f (signature)
                    JOIN pg_catalog.pg_proc p ON p.oid = to_regprocedure(f.signature))
       OR (r.role = :'operator'
           AND n.oid IN (SELECT c.relnamespace FROM mako.dependent t JOIN pg_catalog.pg_class c ON c.oid = to_regclass(t.relation))))
ORDER BY n.nspname COLLATE "C", r.role \gexec
