-- What stands where a table of the store should be: another relation, a column of another type, a
-- null, a parent, another trigger or check of the same name. Whatever reads or writes that table
-- raises an error with a code, and mako_store_problem() or mako_check() names it.
-- Runs in an empty database.

CREATE EXTENSION pgtap;
CREATE EXTENSION mako_migration;
SET client_min_messages = error;

SELECT no_plan();

\o /dev/null
CREATE SCHEMA lib;
CREATE FUNCTION lib.apply(state jsonb, event_type text, payload jsonb) RETURNS jsonb
  LANGUAGE sql STABLE AS $$ SELECT state || payload $$;
CREATE FUNCTION lib.migrate(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT state || '{"moved": 1}' $$;
CREATE TABLE lib.deadline (stream_no bigint, workflow_id text);
CREATE TABLE lib.taken (stream_id text);
\set old 'w@FV2024-10-01'
\set new 'w@FV2025-10-01'
\set tenant 'aaaaaaaa-0000-4000-8000-000000000001'
\set process 'bbbbbbbb-0000-4000-8000-000000000001'
SELECT mako_create_store();
SELECT mako_register_workflow(w::mako_workflow_id, apply => 'lib.apply', initial_state => '{}')
FROM unnest(ARRAY[:'old', :'new', 'lone@FV2024-10-01', 'spare@FV2023-10-01', 'spare@FV2024-10-01'])
  AS w;
SELECT mako_register_migration('spare@FV2023-10-01', 'spare@FV2024-10-01');
SELECT mako_register_migration(:'old', :'new', migrate => 'lib.migrate');
SELECT mako_add_sink('INSERT INTO lib.taken SELECT stream_id FROM moved',
  'DELETE FROM lib.taken t USING moved m WHERE t.stream_id = m.stream_id',
  'LOCK TABLE lib.taken IN SHARE ROW EXCLUSIVE MODE');
INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('old', :'old');
SELECT mako_append('old', :'old', 'X', '{"n": 1}');
SELECT mako_migrate(:'old', :'new');
SELECT mako_append('old', :'new', 'X', '{"n": 2}');
INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('new', :'old');
SELECT mako_append('new', :'old', 'X', '{"n": 1}');
SELECT mako_take_snapshot('new');
SELECT mako_append(mako_spawn(:'old', :'tenant', :'process'), :'old', 'X', '{"n": 1}');
SELECT mako_add_dependent('lib.deadline', 'stream_no', 'workflow_id');
INSERT INTO lib.deadline SELECT stream_no, workflow_id FROM mako.stream;
SELECT mako_drain('FV2023-10-01');

-- The calls: a name of the extension each, and a query whose result is always the same.
CREATE TABLE call (name text, query text);
INSERT INTO call
SELECT name,
       replace(replace(replace(replace(query,
         'OLD', quote_literal(:'old')),
         'NEW', quote_literal(:'new')),
         'PROCESS', quote_literal('process/' || :'tenant' || '/' || :'process')),
         'TENANT', quote_literal(:'tenant'))
FROM (VALUES
  ('mako_add_dependent', $$ SELECT mako_add_dependent('lib.deadline', 'stream_no',
    'workflow_id')::text $$),
  ('mako_add_sink', $$ SELECT mako_add_sink('SELECT stream_id FROM moved') $$),
  ('mako_add_tag', $$ SELECT mako_add_tag(TENANT, 'tag', PROCESS) $$),
  ('mako_adopt_events', $$ SELECT * FROM mako_adopt_events() $$),
  ('mako_append', $$ SELECT mako_append('new', OLD, 'X', '{}') $$),
  ('mako_append_batch', $$ SELECT mako_append_batch('new', OLD, ARRAY[('X', '{}', 1, NULL, NULL,
    NULL, NULL)::mako_new_event]) $$),
  ('mako_assert_store', $$ SELECT mako_assert_store()::text $$),
  ('mako_coverage', $$ SELECT * FROM mako_coverage('FV2024-10-01') $$),
  ('mako_current_progress', $$ SELECT * FROM mako_current_progress() $$),
  ('mako_drain', $$ SELECT mako_drain('FV2024-10-01')::text $$),
  ('mako_dry_run', $$ SELECT * FROM mako_dry_run(OLD, NEW) $$),
  ('mako_dry_run_summary', $$ SELECT * FROM mako_dry_run_summary(OLD, NEW) $$),
  ('mako_event_inserted', $$ INSERT INTO mako.event (stream_no, sequence_number, workflow_id,
    event_type, payload) VALUES (2, 2, OLD, 'X', '{}') $$),
  ('mako_expire_keys', $$ SELECT mako_expire_keys() $$),
  ('mako_find_tag', $$ SELECT * FROM mako_find_tag(TENANT, 'tag') $$),
  ('mako_guard', $$ UPDATE mako.stream SET version = 7 $$),
  ('mako_history', $$ SELECT kind, sequence_number, workflow_id, event_type, run_id, role
    FROM mako_history('old') $$),
  ('mako_load', $$ SELECT sequence_number, workflow_id, event_type, payload
    FROM mako_load('old') $$),
  ('mako_lookup', $$ SELECT * FROM mako_lookup(TENANT, 'bbbbbbbb-0000-4000-8000-000000000001',
    'FV2024-10-01') $$),
  ('mako_migrate', $$ SELECT migrated, skipped, failed FROM mako_migrate(OLD, NEW) $$),
  ('mako_migrate_version', $$ SELECT migrated, skipped, failed
    FROM mako_migrate_version('FV2024-10-01', 'FV2025-10-01') $$),
  ('mako_plan', $$ SELECT step, kind, function, streams, in_flight, events, fingerprint
    FROM mako_plan(OLD, NEW) $$),
  ('mako_prune_snapshots', $$ SELECT mako_prune_snapshots(0) $$),
  ('mako_reactivate', $$ SELECT mako_reactivate('FV2023-10-01')::text $$),
  ('mako_register_key', $$ SELECT mako_register_key(TENANT, 'key', PROCESS)::text $$),
  ('mako_remove_dependent', $$ SELECT mako_remove_dependent('lib.deadline', 'stream_no',
    'workflow_id') $$),
  ('mako_remove_sink', $$ SELECT mako_remove_sink(1) $$),
  ('mako_remove_tag', $$ SELECT mako_remove_tag(TENANT, 'tag', PROCESS) $$),
  ('mako_resume', $$ SELECT sequence_number, workflow_id, state, event_type, payload
    FROM mako_resume('old') $$),
  ('mako_retire', $$ SELECT mako_retire('FV2023-10-01')::text $$),
  ('mako_revert', $$ SELECT migrated, skipped, failed, errors FROM mako_revert(1) $$),
  ('mako_save_snapshot', $$ SELECT mako_save_snapshot('new', 1, OLD, 1, '{"n": 1}')::text $$),
  ('mako_snapshot_saved', $$ INSERT INTO mako.snapshot (stream_no, sequence_number, workflow_id,
    state_schema_version, state) VALUES (3, 1, OLD, 1, '{}') $$),
  ('mako_spawn', $$ SELECT mako_spawn(OLD, TENANT, 'bbbbbbbb-0000-4000-8000-000000000002') $$),
  ('mako_state', $$ SELECT * FROM mako_state('old') $$),
  ('mako_state_diagram', $$ SELECT mako_state_diagram(OLD, 'n') $$),
  ('mako_store_finding', $$ SELECT * FROM mako_store_finding() $$),
  ('mako_stream_inserted', $$ INSERT INTO mako.stream (stream_id, workflow_id) 
    VALUES ('inserted', OLD) $$),
  ('mako_stream_of', $$ SELECT mako_stream_of(TENANT, PROCESS) $$),
  ('mako_take_snapshot', $$ SELECT mako_take_snapshot('old') $$),
  ('mako_trace', $$ SELECT * FROM mako_trace('old') $$),
  ('mako_transition_rows', $$ SELECT * FROM mako_transition_rows(OLD, 'n') $$),
  ('mako_transitions', $$ SELECT * FROM mako_transitions(OLD, 'n') $$),
  ('mako_unregister_key', $$ SELECT mako_unregister_key(TENANT,
    'bbbbbbbb-0000-4000-8000-000000000001') $$),
  ('mako_unregister_migration', $$ SELECT mako_unregister_migration('spare@FV2023-10-01',
    'spare@FV2024-10-01')::text $$),
  ('mako_unregister_workflow', $$ SELECT mako_unregister_workflow('lone@FV2024-10-01')::text $$),
  ('mako_verify', $$ SELECT * FROM mako_verify(1) $$),
  ('mako_verify_snapshots', $$ SELECT * FROM mako_verify_snapshots(OLD) $$)
) AS v (name, query);
\o

-- A new function cannot be forgotten: what is not called here needs no store, commits, makes the
-- store, or tells of it.
SELECT set_eq($$
  SELECT p.proname::text
  FROM pg_proc p
  JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
  JOIN pg_extension x ON x.oid = d.refobjid AND x.extname = 'mako_migration' $$, $$
  SELECT name FROM call UNION
  SELECT unnest('{
    mako_assert_format_version,mako_assert_workflow_id,mako_workflow_name,
    mako_workflow_version,mako_register_workflow,mako_register_migration,
    mako_register_migrations,mako_fingerprint,mako_version_fingerprint,mako_exempt,
    mako_unexempt,mako_set_dispatch,mako_is_ok,mako_format,mako_assert_ok,mako_merge,
    mako_source_lock,mako_merge_patch,mako_reject,mako_required,mako_fold,
    mako_migrate_state,mako_explain_function,mako_is_valid,mako_validate,mako_instances,
    mako_step_finding,mako_migrate_batched,mako_migrate_version_batched,mako_create_store,
    mako_store_object,mako_store_problem,mako_check,mako_assert_delegated,
    mako_dependent_problem,mako_grant_triggers,mako_history_rows,mako_open_schema,
    mako_store_column,mako_store_finding_rows,mako_store_layout,mako_advance_sequences,
    mako_sequence_problem,mako_remembered_relation,mako_is_attached,mako_attach_store,
    mako_detach_store,mako_attach_again,mako_create_rows,mako_attach_rows,mako_detach_rows,mako_attach_heads,
    mako_attached_table,mako_attached_plan,mako_attached_problem,mako_replace_event,
    mako_attached_inserted,mako_attached_changed}'::text[]) $$,
  'every function of the extension is called here, or is one of those that are not');

-- What a query gives, as text, or the SQLSTATE that it raises; what it did is undone.
CREATE FUNCTION pg_temp.outcome(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  result text;
BEGIN
  IF query ~ '^ *SELECT' THEN
    EXECUTE format('SELECT string_agg(q::text, E''\n'') FROM (%s) AS q', query) INTO result;
  ELSE
    EXECUTE query;
  END IF;
  RAISE EXCEPTION USING ERRCODE = 'MKTST';
EXCEPTION WHEN SQLSTATE 'MKTST' THEN
  RETURN coalesce(result, 'nothing');
WHEN OTHERS THEN
  RETURN 'error ' || SQLSTATE || ': ' || SQLERRM;
END
$$;

-- Which calls cannot do without a table.
CREATE TABLE needed (relation text, name text);

-- What the calls that need a table give once a statement has changed something, which is undone;
-- "changing" when the statement itself is refused. All calls, where none is known to need it.
CREATE FUNCTION pg_temp.outcomes(change text, changed text DEFAULT '')
RETURNS TABLE (name text, outcome text) LANGUAGE plpgsql AS $$
DECLARE
  names text[]; results text[];
BEGIN
  EXECUTE change;
  SELECT array_agg(c.name), array_agg(pg_temp.outcome(c.query)) INTO names, results
  FROM (TABLE call
        UNION ALL VALUES ('mako_store_problem', 'SELECT object FROM mako_store_problem()'),
                         ('mako_check', $q$ SELECT subject, message FROM mako_check()
                           WHERE severity = 'error' $q$)) AS c (name, query)
  WHERE c.name IN ('mako_store_problem', 'mako_check', 'mako_assert_store', 'mako_migrate')
    OR c.name IN (SELECT n.name FROM needed n WHERE n.relation = changed)
    OR NOT EXISTS (SELECT FROM needed n WHERE n.relation = changed);
  RAISE EXCEPTION USING ERRCODE = 'MKTST';
EXCEPTION WHEN SQLSTATE 'MKTST' THEN
  RETURN QUERY SELECT * FROM unnest(names, results);
WHEN OTHERS THEN
  RETURN QUERY VALUES ('changing', 'error ' || SQLSTATE || ': ' || SQLERRM);
END
$$;

CREATE TABLE whole AS SELECT * FROM pg_temp.outcomes('SELECT');
SELECT results_eq('SELECT * FROM whole WHERE outcome LIKE ''error%'' ORDER BY name',
                  $$ VALUES ('mako_guard', 'error 0A000: cannot update table "mako.stream"') $$,
                  'in a store that is whole, they succeed');
SELECT bag_eq($$ SELECT * FROM pg_temp.outcomes('SELECT') $$, 'TABLE whole',
  'always with the same results');

-- The tables with their columns.
CREATE TABLE part AS
SELECT o.relation, 'mako.' || o.relation AS name, a.attname AS "column",
       format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull AS is_not_null,
       row_number() OVER (PARTITION BY o.relation ORDER BY a.attnum) AS number
FROM mako_store_object() o
JOIN pg_attribute a ON a.attrelid = ('mako.' || o.relation)::regclass AND a.attnum > 0
  AND NOT a.attisdropped
-- What is attached stands in the way of every call: t/044 has that table.
WHERE o.kind = 'table' AND o.relation <> 'attached';
INSERT INTO needed
SELECT p.relation, o.name
FROM part p, pg_temp.outcomes(format('ALTER TABLE %s RENAME TO gone', p.name)) o
JOIN whole w USING (name)
WHERE p.number = 1 AND o.outcome LIKE 'error%' AND w.outcome NOT LIKE 'error%';
SELECT is(count(DISTINCT relation), (SELECT count(DISTINCT relation) FROM part),
  'every table is needed by some') FROM needed;

-- The changes; the tests below say what is expected of a kind.
CREATE TABLE change (kind text, relation text, what text, statement text, number serial);

INSERT INTO change (kind, relation, what, statement)
SELECT v.kind, p.relation, p.name, format(v.statement, p.name, p.column, p.relation)
FROM part p, (VALUES
  ('view', 'ALTER TABLE %1$s RENAME TO gone; CREATE VIEW %1$s AS SELECT * FROM mako.gone'),
  ('materialized view', 'ALTER TABLE %1$s RENAME TO gone; CREATE MATERIALIZED VIEW %1$s AS
    SELECT * FROM mako.gone'),
  ('sequence', 'ALTER TABLE %1$s RENAME TO gone; CREATE SEQUENCE %1$s'),
  ('composite type', 'ALTER TABLE %1$s RENAME TO gone; CREATE TYPE %1$s AS (stream_no bigint)'),
  ('parent', 'CREATE TABLE public.parent (LIKE %1$s); ALTER TABLE %1$s INHERIT public.parent'),
  ('partition', 'CREATE TABLE public.parent (LIKE %1$s) PARTITION BY RANGE (%2$I);
    ALTER TABLE public.parent ATTACH PARTITION %1$s DEFAULT')
) AS v (kind, statement)
WHERE p.number = 1;

-- Triggers: the same name does something else.
CREATE FUNCTION public.mako_nothing() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN RETURN NEW; END $$;
CREATE SCHEMA other;
CREATE FUNCTION other.mako_guard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
INSERT INTO change (kind, relation, what, statement)
SELECT v.kind, o.relation, format('trigger %s on mako.%s', o.name, o.relation),
       format('DROP TRIGGER %I ON mako.%I; %s', o.name, o.relation,
              regexp_replace(o.definition, v.pattern, format(v.replacement, p.column)))
FROM mako_store_object() o
JOIN part p ON p.relation = o.relation AND p.number = 1
CROSS JOIN (VALUES
  ('trigger with another function', '(EXECUTE FUNCTION) \w+\.\w+', '\1 public.mako_nothing'),
  ('trigger with a function of the same name', '(EXECUTE FUNCTION) \w+\.(mako_guard)',
   '\1 other.\2'),
  ('trigger for other events', '(BEFORE|AFTER)( \w+ OR)* \w+ ON (?!.*REFERENCING)',
   '\1 UPDATE OF %s ON '),
  ('trigger with another condition', '(FOR EACH \w+)( WHEN \(.*\))? EXECUTE',
   '\1 WHEN (false) EXECUTE'),
  ('trigger with other arguments', '(EXECUTE FUNCTION \w+\.\w+)\(.*\)', '\1(''nothing'')')
) AS v (kind, pattern, replacement)
WHERE o.kind = 'trigger' AND o.definition ~ v.pattern;

-- Checks and keys: the same name says something else.
INSERT INTO change (kind, relation, what, statement)
SELECT v.kind, k.relation, format('constraint %s on %s', k.name, k.table),
       format('ALTER TABLE %s DROP CONSTRAINT %I CASCADE, ADD CONSTRAINT %2$I %3$s',
              k.table, k.name, v.definition)
FROM (SELECT c.relname AS relation, k.conrelid::regclass AS table, k.conname AS name,
             k.contype AS type, pg_get_constraintdef(k.oid) AS definition,
             (SELECT string_agg(quote_ident(p.column), ', ') FROM part p
              WHERE p.relation = c.relname AND p.is_not_null) AS columns
      FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
      WHERE c.relnamespace = 'mako'::regnamespace) AS k
CROSS JOIN LATERAL (VALUES
  ('check of the same name', 'cpuf', 'CHECK (true)'),
  ('check of the same name', 'c', 'CHECK (current_setting(''test.off'', true) IS NULL)'),
  ('check that is not valid', 'cf', k.definition || ' NOT VALID'),
  ('key over something else', 'pu', regexp_replace(k.definition, '\(.*', '(' || k.columns || ')')),
  ('key that is deferrable', 'puf', k.definition || ' DEFERRABLE INITIALLY DEFERRED')
) AS v (kind, types, definition)
WHERE position(k.type IN v.types) > 0 AND v.definition <> k.definition;

-- The layout version: it is read, not run.
CREATE SEQUENCE public.ran;
INSERT INTO change (kind, relation, what, statement)
SELECT 'layout version', 'layout_version', 'mako.layout_version',
       format('DROP FUNCTION mako.layout_version();
               CREATE FUNCTION mako.layout_version() RETURNS %s AS %L', v.how, v.body)
FROM (VALUES
  ('integer LANGUAGE plpgsql', $$ BEGIN PERFORM nextval('public.ran'); RETURN 1; END $$),
  ('integer LANGUAGE sql', $$ SELECT nextval('public.ran'); SELECT 1 $$),
  ('integer LANGUAGE plpgsql IMMUTABLE', $$ BEGIN PERFORM nextval('public.ran'); RETURN 2; END $$),
  ('text LANGUAGE plpgsql', $$ BEGIN PERFORM nextval('public.ran'); RETURN '1'; END $$),
  ('SETOF integer LANGUAGE plpgsql', $$ BEGIN PERFORM nextval('public.ran'); RETURN NEXT 1; END $$)
) AS v (how, body);

-- Another column has the name, and a value of its type in every row.
INSERT INTO change (kind, relation, what, statement)
SELECT 'column of another type', p.relation, format('%s.%I', p.name, p.column),
       format('ALTER TABLE %s RENAME %2$I TO gone;
               ALTER TABLE %1$s ADD %2$I %3$s NOT NULL DEFAULT %4$L',
              p.name, p.column, v.type, v.value)
FROM part p
JOIN (VALUES ('text', 'hello'), ('bigint', '7')) AS v (type, value)
  ON v.type <> p.type AND (v.type = 'text') = (p.type <> 'text');
INSERT INTO change (kind, relation, what, statement)
SELECT 'column of a domain', p.relation, format('%s.%I', p.name, p.column),
       format('CREATE DOMAIN public.other AS %3$s; ALTER TABLE %1$s RENAME %2$I TO gone;
               ALTER TABLE %1$s ADD %2$I public.other', p.name, p.column, p.type)
FROM part p WHERE p.type IN ('jsonb', 'integer', 'text[]');

-- A column that may be null is null in every row; keys that are in the way are dropped.
INSERT INTO change (kind, relation, what, statement)
SELECT 'null', p.relation, format('%s.%I', p.name, p.column),
       concat_ws('; ', 'SET LOCAL session_replication_role = replica',
         (SELECT format('ALTER TABLE %s DROP CONSTRAINT %I CASCADE', p.name, k.conname)
          FROM pg_constraint k
          WHERE k.conrelid = p.name::regclass AND k.contype = 'p' AND a.attnum = ANY (k.conkey)),
         CASE WHEN a.attidentity <> '' THEN
           format('ALTER TABLE %s ALTER %I DROP IDENTITY', p.name, p.column) END,
         format('ALTER TABLE %s ALTER %I DROP NOT NULL', p.name, p.column),
         format('UPDATE %s SET %I = NULL', p.name, p.column),
         'SET LOCAL session_replication_role = origin')
FROM part p JOIN pg_attribute a ON a.attrelid = p.name::regclass AND a.attname = p.column
WHERE p.is_not_null;

-- ---- what the calls give, and what is expected of it

CREATE TABLE result (kind text, relation text, what text, statement text, name text, outcome text);
CREATE VIEW refused AS
SELECT kind, what, name, left(outcome, 80) AS outcome FROM result WHERE outcome LIKE 'error%';
CREATE VIEW given AS
SELECT * FROM result WHERE outcome NOT LIKE 'error%';

-- The faults, as views, with what is said of each.
-- A table with an identity column cannot become a partition since 17.
CREATE VIEW not_made AS
SELECT * FROM refused WHERE name = 'changing' AND outcome !~ 'identity column';
CREATE VIEW without_code AS
SELECT * FROM refused WHERE outcome LIKE 'error XX000%';
CREATE VIEW wrong AS
SELECT g.kind, g.what, g.name, left(g.outcome, 80)
FROM given g JOIN whole w USING (name)
WHERE g.outcome <> w.outcome
  AND g.name NOT IN ('mako_check', 'mako_store_problem', 'mako_store_finding');
-- What ties the tables to the extension matters to those who write, and what tells of a fault may
-- do so in its rows.
CREATE VIEW without_table AS
SELECT g.kind, g.what, g.name
FROM given g JOIN needed n USING (relation, name)
WHERE g.kind !~ '^(trigger|check|key|layout)' AND g.name NOT IN ('mako_plan', 'mako_store_finding');
CREATE VIEW content AS
SELECT kind, what, name FROM given WHERE name IN ('mako_assert_store', 'mako_migrate');
CREATE VIEW not_named AS
SELECT kind, what, string_agg(outcome, E'\n') AS named
FROM result
WHERE name IN ('mako_check', 'mako_store_problem')
GROUP BY kind, what, relation, statement
HAVING NOT bool_or(position(relation IN outcome) > 0);
CREATE TABLE expectation (number serial, view text, text text);
INSERT INTO expectation (view, text) VALUES
  ('not_made', 'it can be made'),
  ('without_code', 'every error has a code of its own'),
  ('wrong', 'no result is another than that of a whole store'),
  ('without_table', 'all that needs the table raises an error'),
  ('content', 'neither mako_assert_store() nor mako_migrate() is content'),
  ('not_named', 'mako_store_problem() or mako_check() names it');

-- Kind by kind, because a crash would end the session.
SELECT format('INSERT INTO result
               SELECT c.kind, c.relation, c.what, c.statement, o.*
               FROM change c, pg_temp.outcomes(c.statement, c.relation) o WHERE c.kind = %L', kind),
       format($q$ SELECT is_empty(format('SELECT * FROM %%I WHERE kind = %%L', view, %L),
                                  %1$L || ': ' || text) FROM expectation ORDER BY number $q$, kind)
FROM (SELECT kind, max(number) AS number FROM change GROUP BY kind) AS k ORDER BY number \gexec

SELECT is(is_called, false, 'the layout version is not run') FROM public.ran;

SELECT * FROM finish();
