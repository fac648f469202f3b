-- Dependents: what can never follow is refused, what becomes so later is told before a run and refuses it; what their owners wrote runs
-- as these owners; names are taken as they are; constraints fail a stream, not the COMMIT. And a stream that gets an event while it moves.
-- Runs in an empty database, from the root of the project.

CREATE EXTENSION pgtap;
CREATE EXTENSION mako_migration;

SELECT plan(85);

SELECT mako_create_store();
\ir include/helpers.sql

CREATE ROLE dependents_owner;
CREATE ROLE dependents_other;
CREATE SCHEMA dep AUTHORIZATION dependents_owner;
GRANT USAGE ON SCHEMA dep TO PUBLIC;
SELECT mako_register_workflow('w@FV2024-10-01'), mako_register_workflow('w@FV2025-10-01');
SELECT mako_register_migration('w@FV2024-10-01', 'w@FV2025-10-01');
INSERT INTO mako.stream (stream_id, tenant_id, process_id, workflow_id)
SELECT format('process/%s/%s', t, p), t, p, 'w@FV2024-10-01'
FROM (SELECT 'aaaaaaaa-0000-4000-8000-000000000001'::uuid AS t, md5(i::text)::uuid AS p FROM generate_series(1, 30) AS i) AS x;
SELECT mako_append(stream_id, workflow_id, 'E', '{}') FROM mako.stream ORDER BY stream_no;
CREATE FUNCTION pg_temp.run() RETURNS text LANGUAGE sql AS
  $$ SELECT format('%s %s', migrated, failed) FROM mako_migrate('w@FV2024-10-01', 'w@FV2025-10-01') $$;
CREATE FUNCTION pg_temp.blockers() RETURNS text LANGUAGE sql AS
  $$ SELECT array_to_string(blockers, E'\n') FROM mako_plan('w@FV2024-10-01', 'w@FV2025-10-01') WHERE blockers IS NOT NULL $$;
CREATE FUNCTION pg_temp.findings() RETURNS text LANGUAGE sql AS
  $$ SELECT string_agg(format('%s %s %s', severity, code, subject), E'\n') FROM mako_check() WHERE code LIKE 'dependent%' AND severity = 'error' $$;

-- What can never follow is refused.
SET ROLE dependents_owner;
CREATE DOMAIN dep.wf AS text;
CREATE TYPE dep.pair AS (p uuid, w text);
CREATE TABLE dep.deadline (stream_no bigint, workflow_id text, due timestamptz);
CREATE TABLE dep.generated (p uuid, base text, w text GENERATED ALWAYS AS (base) STORED);
CREATE TABLE dep.composite (p dep.pair, w text);
CREATE TABLE dep.composite_wf (p uuid, w dep.pair);
CREATE TABLE dep.array (p uuid[], w text);
CREATE TABLE dep.name (p uuid, w name);
CREATE DOMAIN dep.short AS varchar(13);
CREATE DOMAIN dep.shorter AS dep.short;
CREATE TABLE dep.narrow (p uuid, w varchar(13), s dep.shorter, ok varchar(14), x text);
CREATE VIEW dep.counted AS SELECT stream_no, min(workflow_id) AS workflow_id FROM dep.deadline GROUP BY 1;
CREATE VIEW dep.computed AS SELECT stream_no, workflow_id || '' AS workflow_id FROM dep.deadline;
CREATE MATERIALIZED VIEW dep.stored AS SELECT stream_no, workflow_id FROM dep.deadline;
CREATE VIEW dep.plain AS SELECT stream_no, workflow_id FROM dep.deadline;
CREATE SEQUENCE dep.numbers;
RESET ROLE;
CREATE TEMPORARY TABLE here (p uuid, w text);
CREATE FUNCTION pg_temp.refusal(relation text, process_column name, workflow_column name) RETURNS text LANGUAGE sql AS
  $$ SELECT split_part(pg_temp.error(format('SELECT mako_add_dependent(%L, %L, %L)', relation, process_column, workflow_column)), '|', n)
     FROM (VALUES (1)) AS x (n) $$;
SELECT is(pg_temp.refusal(relation, p, w), sqlstate, relation)
FROM (VALUES ('here', 'p', 'w', '42809'), ('dep.generated', 'p', 'w', '42P17'), ('dep.composite', 'p', 'w', '42804'),
             ('dep.composite_wf', 'p', 'w', '42804'), ('dep.array', 'p', 'w', '42804'), ('dep.name', 'p', 'w', '42804'),
             ('dep.counted', 'stream_no', 'workflow_id', '42809'), ('dep.computed', 'stream_no', 'workflow_id', '42809'),
             ('dep.stored', 'stream_no', 'workflow_id', '42809'), ('dep.numbers', 'last_value', 'log_cnt', '42809'),
             ('mako.stream', 'stream_no', 'workflow_id', '42809'), ('mako.process_identity', 'stream_id', 'workflow_id', '42809'),
             ('mako_workflow', 'workflow_id', 'apply', '42809'), ('pg_class', 'oid', 'relname', '42809'),
             ('dep.narrow', 'p', 'w', '42804'), ('dep.narrow', 'p', 's', '42804'), ('dep.narrow', 'x', 'x', '42701'),
             ('dep.deadline', 'stream_no', 'tableoid', '42703'), ('dep.deadline', 'due', 'workflow_id', '42804'))
     AS x (relation, p, w, sqlstate);
SELECT throws_ok($$ SELECT mako_add_dependent('dep.narrow', 'p', 'x', 'p') $$, '42701', NULL, 'the tenant column is not the process column');
SELECT throws_ok($$ SELECT mako_add_dependent('dep.narrow', 'p', 'x', 'x') $$, '42804', NULL, 'nor the workflow column');
SELECT is((SELECT count(*)::int FROM mako.dependent), 0, 'none of them was added');
SELECT lives_ok($$ SELECT mako_add_dependent('dep.narrow', 'p', 'ok') $$, 'a column with room for the shortest workflow id');
SELECT mako_remove_dependent('dep.narrow', 'p', 'ok');

-- Adding one needs its owner's privileges; and nothing but the two functions changes the table.
GRANT EXECUTE ON FUNCTION mako_add_dependent, mako_remove_dependent TO dependents_other;
GRANT USAGE ON SCHEMA mako TO dependents_other;
GRANT SELECT, INSERT, UPDATE, DELETE ON mako.dependent TO dependents_other;
SET ROLE dependents_other;
SELECT throws_ok($$ SELECT mako_add_dependent('dep.deadline', 'stream_no', 'workflow_id') $$, '42501',
                 'permission denied for relation dep.deadline', 'the privileges of the owner are needed');
SELECT throws_ok($$ INSERT INTO mako.dependent VALUES ('dep.deadline', 'stream_no', 'workflow_id', NULL, 'postgres', '10@1') $$, '0A000', NULL,
                 'and cannot be claimed');
RESET ROLE;
SELECT lives_ok($$ SELECT mako_add_dependent('dep.plain', 'stream_no', 'workflow_id') $$, 'a view that can be updated is a dependent');
SELECT is((SELECT owner FROM mako.dependent), 'dependents_owner', 'its owner is recorded');

-- What becomes so later is told, and refuses the run. Renamed, the owner is the same role.
CREATE FUNCTION pg_temp.after(change text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  result text;
BEGIN
  EXECUTE change;
  result := concat_ws(E'\n', pg_temp.findings(), pg_temp.blockers(), split_part(pg_temp.error('SELECT pg_temp.run()'), '|', 1));
  RAISE EXCEPTION USING ERRCODE = 'ZZ999', MESSAGE = result;
EXCEPTION WHEN SQLSTATE 'ZZ999' THEN
  RETURN SQLERRM;
END
$$;
SELECT is(pg_temp.after('ALTER ROLE dependents_owner RENAME TO dependents_renamed'), '', 'a renamed owner is the same role');
SELECT is(pg_temp.after('ALTER VIEW dep.plain OWNER TO dependents_other'),
          E'error dependent_unusable dep.plain\nDependent dep.plain cannot follow. It belongs to role "dependents_other"; when it was added, it belonged to "dependents_owner".\n55000',
          'another owner');
SELECT is(pg_temp.after('DROP VIEW dep.plain; CREATE VIEW dep.plain AS SELECT DISTINCT stream_no, workflow_id FROM dep.deadline; ALTER VIEW dep.plain OWNER TO dependents_owner'),
          E'error dependent_unusable dep.plain\nDependent dep.plain cannot follow. Its rows cannot be updated.\n55000', 'a view that cannot be updated any more');
SELECT is(pg_temp.after('DROP VIEW dep.plain; CREATE TABLE dep.plain (stream_no uuid, workflow_id int); ALTER TABLE dep.plain OWNER TO dependents_owner'),
          E'error dependent_unusable dep.plain\nDependent dep.plain cannot follow. Column "workflow_id" has type integer; expected is one of: text, character varying.\n55000',
          'another type');
SELECT is(pg_temp.after('DROP VIEW dep.plain; CREATE TABLE dep.plain (stream_no text, workflow_id text); ALTER TABLE dep.plain OWNER TO dependents_owner'),
          E'error dependent_unusable dep.plain\nDependent dep.plain cannot follow. Column "stream_no" has type text; when it was added, it had type bigint.\n55000',
          'a process column that means something else');
SELECT is(pg_temp.after('DROP VIEW dep.plain'),
          E'error dependent_missing dep.plain\nDependent dep.plain cannot follow. The relation does not exist.\n42704', 'one that is gone');
SELECT is(mako_remove_dependent('dep.plain', 'stream_no', 'workflow_id'), true, 'removed');

-- A relation that was renamed, or its schema, is the same one; a relation that took its name over stands for it.
SET ROLE dependents_owner;
CREATE TABLE dep."old name" (stream_no bigint, workflow_id text);
RESET ROLE;
INSERT INTO dep."old name" SELECT stream_no, workflow_id FROM mako.stream;
CREATE FUNCTION pg_temp.followed(relation text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  result bigint;
BEGIN
  EXECUTE format('SELECT count(*) FROM %s WHERE workflow_id = %L', relation, 'w@FV2025-10-01') INTO result;
  RETURN result;
END
$$;
SELECT mako_add_dependent('dep."old name"', 'stream_no', 'workflow_id');
BEGIN;
ALTER TABLE dep."old name" RENAME TO "new name";
ALTER SCHEMA dep RENAME TO "new dep";
SELECT is((SELECT subject FROM mako_check() WHERE code = 'dependent_unindexed'), '"new dep"."new name"', 'a relation is named as it is called now');
SELECT is(concat_ws(E'\n', pg_temp.findings(), pg_temp.run(), pg_temp.followed('"new dep"."new name"')), E'30 0\n30',
          'renamed, with its schema, it follows');
ROLLBACK;
BEGIN;
ALTER TABLE dep."old name" RENAME TO "new name";
SELECT mako_add_dependent('dep."new name"', 'stream_no', 'workflow_id');
SELECT is((SELECT string_agg(relation, ' ') FROM mako.dependent), 'dep."new name"', 'added again, it is there once');
SELECT is(mako_remove_dependent('dep."old name"', 'stream_no', 'workflow_id'), false, '... under its new name');
ROLLBACK;
BEGIN;
ALTER TABLE dep."old name" RENAME TO "new name";
SELECT is(mako_remove_dependent('new name', 'stream_no', 'workflow_id'), false, 'what is no name of it removes nothing');
SELECT is(mako_remove_dependent('dep."new name"', 'stream_no', 'workflow_id'), true, 'it is removed by the name that it has');
ROLLBACK;
BEGIN;
ALTER TABLE dep."old name" RENAME TO "new name";
SELECT is(mako_remove_dependent('dep."old name"', 'stream_no', 'workflow_id'), true, 'or by the one that it had');
ROLLBACK;
BEGIN;
ALTER TABLE dep."old name" RENAME TO replaced;
CREATE TABLE dep."old name" AS TABLE dep.replaced;
ALTER TABLE dep."old name" OWNER TO dependents_owner;
SELECT is(concat_ws(E'\n', pg_temp.findings(), pg_temp.run(), pg_temp.followed('dep.replaced'), pg_temp.followed('dep."old name"')), E'30 0\n0\n30',
          'a table that took its name over follows in its place');
ROLLBACK;
SELECT mako_remove_dependent('dep."old name"', 'stream_no', 'workflow_id');

-- What its owner wrote runs as him, restricted, after the caller's privileges were checked.
SELECT mako_add_dependent('dep.deadline', 'stream_no', 'workflow_id');
INSERT INTO dep.deadline SELECT stream_no, workflow_id, now() FROM mako.stream;
SET ROLE dependents_owner;
CREATE TABLE dep.seen (what text, who text, path text);
CREATE FUNCTION dep.see(what text) RETURNS boolean LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO dep.seen VALUES (what, current_user, current_setting('search_path')); RETURN true; END $$;
CREATE FUNCTION dep.trap() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN PERFORM dep.see(TG_NAME), set_config('search_path', 'dep', false); RETURN NEW; END $$;
CREATE TRIGGER before BEFORE UPDATE ON dep.deadline FOR EACH ROW EXECUTE FUNCTION dep.trap();
CREATE TRIGGER after AFTER UPDATE ON dep.deadline FOR EACH STATEMENT EXECUTE FUNCTION dep.trap();
CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON dep.deadline DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION dep.trap();
ALTER TABLE dep.deadline ADD CONSTRAINT checked CHECK (dep.see('check')) NOT VALID;
CREATE RULE also AS ON UPDATE TO dep.deadline DO ALSO SELECT dep.see('rule');
RESET ROLE;
SHOW search_path \gset
SELECT is(pg_temp.run(), '30 0', 'all move');
SELECT is((SELECT string_agg(DISTINCT format('%s %s', what, who), E'\n' ORDER BY format('%s %s', what, who)) FROM dep.seen),
          E'after dependents_owner\nbefore dependents_owner\ncheck dependents_owner\nlate dependents_owner\nrule dependents_owner',
          'every one of them ran as its owner');
SELECT is((SELECT path FROM dep.seen LIMIT 1), 'pg_catalog, pg_temp', 'on a path that is not the caller''s');
SELECT is(current_setting('search_path'), :'search_path', 'and left no setting changed');
SELECT is((SELECT count(*)::int FROM dep.deadline WHERE workflow_id = 'w@FV2025-10-01'), 30, 'their rows have followed');
SET ROLE dependents_owner;
CREATE FUNCTION dep.escape() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN SET ROLE postgres; RETURN NEW; END $$;
CREATE TRIGGER escape BEFORE UPDATE ON dep.deadline FOR EACH ROW EXECUTE FUNCTION dep.escape();
RESET ROLE;
SELECT is((SELECT format('%s %s %s', migrated, failed, errors[1].sqlstate) FROM mako_revert((SELECT max(run_id) FROM mako.migration_run WHERE kind = 'single'))), '0 30 42501', 'nor could any take another role');
DROP TRIGGER escape ON dep.deadline;
SELECT is((SELECT format('%s %s', migrated, failed) FROM mako_revert((SELECT max(run_id) FROM mako.migration_run WHERE kind = 'single'))), '30 0', 'back');
SELECT mako_remove_dependent('dep.deadline', 'stream_no', 'workflow_id');

-- The caller's own privileges are needed, the owner's do not stand in for them.
CREATE TABLE dep.refused (stream_no bigint, workflow_id text);
SELECT mako_add_dependent('dep.refused', 'stream_no', 'workflow_id');
GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA mako TO dependents_other;
GRANT EXECUTE ON FUNCTION mako_migrate TO dependents_other;
SET ROLE dependents_other;
SELECT throws_ok($$ SELECT mako_migrate('w@FV2024-10-01', 'w@FV2025-10-01') $$, '42501', 'permission denied for table refused',
                 'who may not update a dependent may not let it follow');
RESET ROLE;
GRANT SELECT, UPDATE ON dep.refused TO dependents_other;
ALTER TABLE dep.refused ENABLE ROW LEVEL SECURITY;
SET ROLE dependents_other;
SELECT throws_ok($$ SELECT mako_migrate('w@FV2024-10-01', 'w@FV2025-10-01') $$, '42501', NULL, 'a policy that hides rows raises');
RESET ROLE;
SELECT mako_remove_dependent('dep.refused', 'stream_no', 'workflow_id');

-- Names are taken as they are.
CREATE SCHEMA "d%s.mako.stream";
CREATE TABLE "d%s.mako.stream"."De%sp %1$s" ("p%s" uuid, "w%s" text);
INSERT INTO "d%s.mako.stream"."De%sp %1$s" SELECT process_id, workflow_id FROM mako.stream LIMIT 1;
SELECT mako_add_dependent('"d%s.mako.stream"."De%sp %1$s"', 'p%s', 'w%s');
SELECT is(pg_temp.run(), '30 0', 'a dependent with a percent sign in its names');
SELECT is((SELECT "w%s" FROM "d%s.mako.stream"."De%sp %1$s"), 'w@FV2025-10-01', 'follows');
SELECT is((SELECT format('%s %s', migrated, failed) FROM mako_revert((SELECT max(run_id) FROM mako.migration_run))), '30 0', 'and back');
SELECT mako_remove_dependent('"d%s.mako.stream"."De%sp %1$s"', 'p%s', 'w%s');

-- Deferred constraints are checked within the run.
CREATE TABLE dep.ref (w text PRIMARY KEY);
INSERT INTO dep.ref VALUES ('w@FV2024-10-01');
CREATE TABLE dep.dl (p uuid, w text REFERENCES dep.ref DEFERRABLE INITIALLY DEFERRED);
INSERT INTO dep.dl SELECT process_id, workflow_id FROM mako.stream ORDER BY stream_no OFFSET 25 LIMIT 1;
SELECT mako_add_dependent('dep.dl', 'p', 'w');
SELECT is(pg_temp.run(), '29 1', 'one stream fails');
SELECT is((SELECT format('%s %s', phase, sqlstate) FROM mako.migration_error ORDER BY run_id DESC LIMIT 1), 'registry 23503', 'with the code of the constraint');
CALL mako_migrate_batched('w@FV2024-10-01', 'w@FV2025-10-01', batch_size => 1);
SELECT is((SELECT format('%s %s %s', kind, failed, finished_at IS NOT NULL) FROM mako.migration_run ORDER BY run_id DESC LIMIT 1), 'batched 1 t', 'in batches, too');
INSERT INTO dep.ref VALUES ('w@FV2025-10-01');
SELECT is(pg_temp.run(), '1 0', 'and moves when it may');
DROP TABLE dep.dl, dep.ref;
SELECT mako_remove_dependent('dep.dl', 'p', 'w');

-- A process id of two tenants.
SELECT mako_register_migration('w@FV2025-10-01', 'w@FV2024-10-01');
INSERT INTO mako.stream (stream_id, tenant_id, process_id, workflow_id)
SELECT format('process/%s/%s', t, process_id), t, process_id, workflow_id
FROM mako.stream, (VALUES ('bbbbbbbb-0000-4000-8000-000000000002'::uuid)) AS x (t) WHERE stream_no = 1;
CREATE TABLE dep.due (tenant uuid, p uuid, w text);
INSERT INTO dep.due SELECT tenant_id, process_id, workflow_id FROM mako.stream;
SELECT mako_add_dependent('dep.due', 'p', 'w');
SELECT is(pg_temp.findings(), 'error dependent_ambiguous mako.dependent', 'is told, where a dependent knows processes by their ids alone');
SELECT throws_ok($$ SELECT mako_migrate('w@FV2025-10-01', 'w@FV2024-10-01', tenant_id => 'aaaaaaaa-0000-4000-8000-000000000001') $$, '55000',
                 'rows of a dependent do not tell whose process they follow', 'and refuses a run');
SELECT mako_add_dependent('dep.due', 'p', 'w', 'tenant');
SELECT is((SELECT format('%s %s', migrated, failed) FROM mako_migrate('w@FV2025-10-01', 'w@FV2024-10-01', tenant_id => 'aaaaaaaa-0000-4000-8000-000000000001')),
          '30 0', 'with a tenant column it runs');
SELECT is((SELECT count(*)::int FROM dep.due WHERE (w = 'w@FV2024-10-01') <> (tenant = 'aaaaaaaa-0000-4000-8000-000000000001')), 0, 'and changes rows of that tenant only');
DROP TABLE dep.due;
SELECT mako_remove_dependent('dep.due', 'p', 'w');

-- An event that a trigger appends to the stream that is being moved.
CREATE FUNCTION dep.note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM public.mako_append(s.stream_id, s.workflow_id, 'Note', '{}') FROM mako.stream s WHERE s.stream_no = NEW.stream_no AND s.stream_no <= 2;
  RETURN NULL;
END
$$;
CREATE FUNCTION dep.apply(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT state || payload $$;
SET client_min_messages = error;
SELECT mako_register_workflow('w@FV2024-10-01', apply => 'dep.apply', initial_state => '{}', replace => true);
RESET client_min_messages;
CREATE TRIGGER note AFTER INSERT ON mako.snapshot FOR EACH ROW WHEN (NEW.run_id <> 0) EXECUTE FUNCTION dep.note();
SELECT is(pg_temp.run(), '28 2', 'those streams fail');
SELECT is((SELECT string_agg(DISTINCT message, ',') FROM mako.migration_error WHERE run_id = (SELECT max(run_id) FROM mako.migration_run)),
          'an event was appended to the stream while it was moved', 'and say why');
SELECT is((SELECT string_agg(format('%s %s', version, workflow_id), ',') FROM mako.stream WHERE stream_no <= 2), '1 w@FV2024-10-01,1 w@FV2024-10-01', 'they are where they were');
SELECT is((SELECT count(*)::int FROM mako_verify((SELECT max(run_id) FROM mako.migration_run))), 0, 'what moved is right');

-- What follows is tried on these streams, each time anew: 1 to 5 of workflow v.
DROP TRIGGER note ON mako.snapshot;
SELECT mako_register_workflow('v@FV2024-10-01'), mako_register_workflow('v@FV2025-10-01');
SELECT mako_register_migration('v@FV2024-10-01', 'v@FV2025-10-01');
INSERT INTO mako.stream (stream_id, workflow_id) SELECT 'v' || i, 'v@FV2024-10-01' FROM generate_series(1, 5) AS i;
SELECT mako_append(stream_id, workflow_id, 'E', '{}') FROM mako.stream WHERE workflow_id LIKE 'v@%' ORDER BY stream_no;
CREATE TABLE dep.a (s text PRIMARY KEY, w text, UNIQUE (s, w));
CREATE TABLE dep.b (s text PRIMARY KEY, w text, UNIQUE (s, w));
INSERT INTO dep.a SELECT stream_id, workflow_id FROM mako.stream WHERE workflow_id LIKE 'v@%';
INSERT INTO dep.b SELECT * FROM dep.a;
CREATE TABLE dep.ref (s text PRIMARY KEY);
INSERT INTO dep.ref VALUES ('v1'), ('v2'), ('v4'), ('v5');
CREATE TABLE dep.log (s text REFERENCES dep.ref DEFERRABLE INITIALLY DEFERRED);
CREATE FUNCTION dep.write_log() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO dep.log VALUES (NEW.s); RETURN NEW; END $$;
CREATE FUNCTION dep.log_repointed() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO dep.log SELECT stream_id FROM mako.stream s WHERE s.stream_no = NEW.stream_no; RETURN NULL; END $$;
CREATE FUNCTION dep.see_trigger() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN IF current_user <> 'dependents_owner' THEN RAISE '%', current_user; END IF; RETURN NULL; END $$;
CREATE FUNCTION dep.refuse_v3() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN IF NEW.s = 'v3' THEN RAISE 'not v3' USING ERRCODE = '23514'; END IF; RETURN NULL; END $$;
CREATE FUNCTION dep.swallow_v3() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN CASE WHEN NEW.s = 'v3' THEN NULL ELSE NEW END; END $$;
SELECT mako_add_dependent('dep.a', 's', 'w'), mako_add_dependent('dep.b', 's', 'w');
CREATE FUNCTION pg_temp.told(run mako_migration_report) RETURNS text LANGUAGE sql AS
  $$ SELECT concat_ws(' ', run.migrated, run.failed, run.errors[1].stream_id, run.errors[1].sqlstate, run.errors[1].message) $$;
-- What a run says after a change; and what another statement says then.
CREATE FUNCTION pg_temp.moves(change text, afterwards text DEFAULT 'SET CONSTRAINTS ALL IMMEDIATE') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  result text;
BEGIN
  EXECUTE change;
  result := pg_temp.told(r) FROM mako_migrate('v@FV2024-10-01', 'v@FV2025-10-01') r;
  EXECUTE afterwards;
  RAISE EXCEPTION USING ERRCODE = 'ZZ999', MESSAGE = result;
EXCEPTION WHEN SQLSTATE 'ZZ999' THEN
  RETURN SQLERRM;
WHEN OTHERS THEN
  RETURN concat_ws(' ', SQLSTATE, result);
END
$$;
CREATE FUNCTION pg_temp.goes_back(change text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  result text;
BEGIN
  PERFORM mako_migrate('v@FV2024-10-01', 'v@FV2025-10-01');
  EXECUTE change;
  result := pg_temp.told(r) FROM mako_revert((SELECT max(run_id) FROM mako.migration_run)) r;
  RAISE EXCEPTION USING ERRCODE = 'ZZ999', MESSAGE = result;
EXCEPTION WHEN SQLSTATE 'ZZ999' THEN
  RETURN SQLERRM;
END
$$;
SELECT is(pg_temp.moves(''), '5 0', 'two dependents');

-- Constraints of other tables, and between dependents.
SELECT is(pg_temp.moves('CREATE TABLE dep.of_store (stream_no bigint REFERENCES mako.stream DEFERRABLE INITIALLY DEFERRED)'), '5 0',
          'a deferred foreign key from another schema');
SELECT is(pg_temp.moves(format('ALTER TABLE dep.%s ADD CONSTRAINT same FOREIGN KEY (s, w) REFERENCES dep.%s (s, w) %s', child, parent, kind)), '5 0',
          format('a foreign key from dependent %s to %s, %s', child, parent, kind))
FROM (VALUES ('a', 'b'), ('b', 'a')) AS x (child, parent), (VALUES ('DEFERRABLE INITIALLY DEFERRED'), ('NOT DEFERRABLE')) AS y (kind)
ORDER BY child, kind;
SELECT is(pg_temp.moves('ALTER TABLE dep.a ADD CONSTRAINT same FOREIGN KEY (s, w) REFERENCES dep.b (s, w) DEFERRABLE INITIALLY DEFERRED;
                         ALTER TABLE dep.a OWNER TO dependents_owner; GRANT ALL ON dep.b TO dependents_owner;
                         SELECT mako_add_dependent(''dep.a'', ''s'', ''w'');
                         CREATE CONSTRAINT TRIGGER escape AFTER UPDATE ON dep.a FOR EACH ROW EXECUTE FUNCTION dep.see_trigger()'), '5 0',
          'between tables of two owners');
SELECT is(pg_temp.goes_back('ALTER TABLE dep.a ADD CONSTRAINT same FOREIGN KEY (s, w) REFERENCES dep.b (s, w) DEFERRABLE INITIALLY DEFERRED'), '5 0', 'and back');
SELECT is(pg_temp.moves('ALTER TABLE dep.a ADD CONSTRAINT same FOREIGN KEY (s, w) REFERENCES dep.b (s, w) DEFERRABLE INITIALLY DEFERRED;
                         SELECT mako_remove_dependent(''dep.b'', ''s'', ''w'')') COLLATE "C",
          '0 5 v1 23503 insert or update on table "a" violates foreign key constraint "same"', 'one that is not met fails its streams');
SELECT is(pg_temp.moves('CREATE TRIGGER log AFTER UPDATE ON dep.a FOR EACH ROW EXECUTE FUNCTION dep.write_log()'),
          '4 1 v3 23503 insert or update on table "log" violates foreign key constraint "log_s_fkey"', 'what a trigger writes is checked, and fails one stream');
SELECT is(pg_temp.moves('CREATE TRIGGER log AFTER INSERT ON mako.repointed FOR EACH ROW EXECUTE FUNCTION dep.log_repointed()'),
          '4 1 v3 23503 insert or update on table "log" violates foreign key constraint "log_s_fkey"', 'of a trigger on the store, too');
SELECT is(pg_temp.moves('CREATE TABLE dep.child (s text, w text, FOREIGN KEY (s, w) REFERENCES dep.b (s, w) ON UPDATE CASCADE); INSERT INTO dep.child SELECT * FROM dep.b;
                         CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON dep.child DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION dep.refuse_v3()'),
          '4 1 v3 23514 not v3', 'and what a foreign key carries on');

-- The caller's own transaction: what is deferred there stays so, what was is checked.
SELECT is(pg_temp.moves('', 'INSERT INTO dep.log VALUES (''new''); INSERT INTO dep.ref VALUES (''new''); SET CONSTRAINTS ALL IMMEDIATE'), '5 0',
          'a constraint is deferred again after a run');
SELECT is(pg_temp.moves('INSERT INTO dep.log VALUES (''new'')'), '23503', 'what was not met when the run began is told then');

-- Rows that are swallowed.
SELECT is(pg_temp.moves('CREATE TRIGGER swallow BEFORE UPDATE ON dep.b FOR EACH ROW EXECUTE FUNCTION dep.swallow_v3()'),
          '4 1 v3 09000 dependent dep.b did not take every row', 'by a trigger');
SELECT is(pg_temp.moves('CREATE RULE swallow AS ON UPDATE TO dep.b WHERE OLD.s = ''v3'' DO INSTEAD NOTHING'),
          '4 1 v3 09000 dependent dep.b did not take every row', 'by a rule');
SELECT is(pg_temp.moves('CREATE TRIGGER swallow BEFORE UPDATE ON dep.b FOR EACH ROW EXECUTE FUNCTION dep.swallow_v3(); CREATE VIEW dep.bv AS SELECT * FROM dep.b;
                         SELECT mako_remove_dependent(''dep.b'', ''s'', ''w''), mako_add_dependent(''dep.bv'', ''s'', ''w'')'),
          '4 1 v3 09000 dependent dep.bv did not take every row', 'by a trigger of what a view shows');
SELECT is(pg_temp.moves('CREATE TRIGGER log BEFORE UPDATE ON dep.b FOR EACH ROW EXECUTE FUNCTION dep.write_log(); INSERT INTO dep.ref VALUES (''v3'')'),
          '5 0', 'a trigger that swallows nothing');
SELECT is(pg_temp.goes_back('CREATE TRIGGER swallow BEFORE UPDATE ON dep.b FOR EACH ROW EXECUTE FUNCTION dep.swallow_v3()'),
          '4 1 v3 09000 dependent dep.b did not take every row', 'by a trigger, when a run is undone');

SELECT * FROM finish();
DROP OWNED BY dependents_owner, dependents_other CASCADE;
DROP ROLE dependents_owner, dependents_other;
