-- The store: what mako_create_store() makes and repairs, and the invariants that the tables keep whoever writes to them.
-- Runs in an empty database.

CREATE EXTENSION pgtap;
CREATE EXTENSION mako_migration;

SELECT plan(364);

\ir include/helpers.sql

----------------------------------------------------------------------------------------------------
-- mako_create_store()
----------------------------------------------------------------------------------------------------

SELECT is(pg_temp.error($$ SELECT * FROM mako_migrate('w@FV2024-10-01', 'w@FV2025-10-01') $$),
          '42704|there is no store in this database|Use SELECT mako_create_store().', 'without a store there is no migration');
CREATE TABLE public.early (process_id uuid, workflow_id text);
SELECT matches(pg_temp.error($$ SELECT mako_add_dependent('public.early', 'process_id', 'workflow_id') $$),
               '^42704\|there is no store in this database', 'nor a dependent');

CREATE ROLE mako_test_owner;
-- Beside the extension, others could make what captures calls of its functions.
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
SELECT is_empty($$ SELECT subject FROM mako_check() WHERE code = 'schema_open' $$, 'the schema of the extension is for its owner only');
GRANT CREATE ON SCHEMA public TO mako_test_owner;
SELECT matches(pg_temp.error('SELECT mako_create_store()'), '^55000\|the schema of the extension is open to others\|.*mako_test_owner',
               'no store is made where another role may create beside the extension');
REVOKE CREATE ON SCHEMA public FROM mako_test_owner;
GRANT CREATE ON SCHEMA public TO PUBLIC;
SELECT is(pg_temp.error('SELECT mako_create_store()'),
          '55000|the schema of the extension is open to others|Schema public: all roles may create in it.|'
          'REVOKE CREATE on it, or create the extension in a schema of its own.', 'nor where everybody may');
SELECT is(pg_temp.rows($$ SELECT severity, subject FROM mako_check() WHERE code = 'schema_open' $$), 'error|public', 'of which the check tells');
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
SELECT hasnt_schema('mako', 'and nothing is there');

CREATE SCHEMA mako AUTHORIZATION mako_test_owner;
SELECT matches(pg_temp.error('SELECT mako_create_store()'), '^42501\|schema "mako" belongs to role "mako_test_owner"',
               'a schema of another role''s is refused, even to a superuser');
DROP SCHEMA mako;
DROP ROLE mako_test_owner;

CREATE SCHEMA mako;
CREATE TABLE mako.my_table ();
SELECT is(pg_temp.error('SELECT mako_create_store()'),
          '42710|schema "mako" already exists and is not a store|It holds 1 relations, but no function "layout_version".|'
          'Rename that schema: the store needs its name.',
          'a schema that is no store is refused');
SELECT is(pg_temp.rows($$ SELECT relname FROM pg_class WHERE relnamespace = 'mako'::regnamespace $$), 'my_table', 'and left alone');
DROP TABLE mako.my_table;
SELECT lives_ok('SELECT mako_create_store()', 'an empty schema of the caller''s is taken');
SELECT is_empty('SELECT * FROM mako_store_problem()', 'a new store is complete');

SELECT is(pg_temp.rows($$ SELECT relname, relkind FROM pg_class
                          WHERE relnamespace = 'mako'::regnamespace AND relkind NOT IN ('i', 'S') ORDER BY relname COLLATE "C" $$),
$$attached|r
correlation|r
dependent|r
event|r
format_version|r
migrated_stream|v
migration_batch|r
migration_error|r
migration_run|r
process_identity|v
registry|r
repointed|r
reverted|r
snapshot|r
stream|r$$, 'the store has these tables and views');

SELECT is(pg_temp.rows('SELECT mako.layout_version()'), '1', 'its layout version is known');

-- Columns: name, type, collation, not null, default or identity.
CREATE FUNCTION pg_temp.columns(relation text) RETURNS text LANGUAGE sql AS $$
  SELECT string_agg(concat_ws(' ', a.attname, format_type(a.atttypid, a.atttypmod),
                              (SELECT 'collate ' || collname FROM pg_collation c WHERE c.oid = a.attcollation AND collname <> 'default'),
                              CASE WHEN a.attnotnull THEN 'not null' END,
                              CASE a.attidentity WHEN 'a' THEN 'identity' END,
                              'default ' || pg_get_expr(d.adbin, d.adrelid)), E'\n' ORDER BY a.attnum)
  FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
  WHERE a.attrelid = ('mako.' || relation)::regclass AND a.attnum > 0 AND NOT a.attisdropped
$$;

SELECT is(pg_temp.columns('stream'),
$$stream_no bigint not null identity
stream_id text collate C not null
tenant_id uuid
process_id uuid
workflow_id text collate C not null
version bigint not null default 0
created_at timestamp with time zone not null default now()$$, 'columns of mako.stream');

SELECT is(pg_temp.columns('event'),
$$stream_no bigint not null
sequence_number bigint not null
event_id uuid not null default gen_random_uuid()
recorded_at timestamp with time zone not null default now()
workflow_id text collate C not null
event_type text collate C not null
schema_version integer not null default 1
payload jsonb not null
correlation_id uuid
causation_id uuid
conversation_id uuid$$, 'columns of mako.event');

SELECT is(pg_temp.columns('snapshot'),
$$stream_no bigint not null
sequence_number bigint not null
run_id bigint not null default 0
workflow_id text collate C not null
state_schema_version integer not null
state jsonb not null
taken_at timestamp with time zone not null default now()$$, 'columns of mako.snapshot');

SELECT is(pg_temp.columns('repointed'),
$$run_id bigint not null
stream_no bigint not null
sequence_number bigint not null$$, 'columns of mako.repointed');

SELECT is(pg_temp.columns('reverted'),
$$stream_no bigint not null
run_id bigint not null
reverted_by bigint not null$$, 'columns of mako.reverted');

SELECT is(pg_temp.columns('registry'),
$$tenant_id uuid not null
key text collate C not null
stream_no bigint not null
expires_at timestamp with time zone$$, 'columns of mako.registry');

SELECT is(pg_temp.columns('correlation'),
$$tenant_id uuid not null
tag text collate C not null
stream_no bigint not null$$, 'columns of mako.correlation');

SELECT is(pg_temp.columns('format_version'),
$$format_version text collate C not null
status text not null
messages_until timestamp with time zone
changed_by text not null default CURRENT_USER
changed_at timestamp with time zone not null default now()
reason text$$, 'columns of mako.format_version');

SELECT is(pg_temp.columns('dependent'),
$$relation text not null
relation_identity text not null
process_column text not null
workflow_column text not null
tenant_column text
owner text not null
owner_identity text not null
process_type text not null$$, 'columns of mako.dependent');

SELECT is(pg_temp.columns('migration_run'),
$$run_id bigint not null identity
kind text not null default 'single'::text
source_wf text collate C not null
target_wf text collate C not null
path text[] collate C not null
tenant_id uuid
update_registry boolean not null
in_flight_only boolean not null
max_errors bigint
batch_size integer
through_stream_no bigint
reverts bigint
closed_by bigint
reason text
fingerprint text not null
definitions text[] not null
session_role text not null default SESSION_USER
effective_role text not null default CURRENT_USER
application_name text not null default current_setting('application_name'::text)
client_address inet default inet_client_addr()
server_version text not null default current_setting('server_version'::text)
extension_version text not null
started_at timestamp with time zone not null
finished_at timestamp with time zone
migrated bigint
skipped bigint
failed bigint
sinks integer[] not null default '{}'::integer[]$$, 'columns of mako.migration_run');

SELECT is(pg_temp.columns('migration_error'),
$$run_id bigint not null
error_no bigint not null
stream_no bigint not null
stream_id text collate C not null
phase text not null
sequence_number bigint
sqlstate text not null
message text not null
detail text
hint text
context text$$, 'columns of mako.migration_error');

SELECT is(pg_temp.columns('migration_batch'),
$$run_id bigint not null
batch_no bigint not null
last_stream_no bigint
migrated bigint not null
failed bigint not null
busy bigint not null
session_role text not null default SESSION_USER
effective_role text not null default CURRENT_USER
started_at timestamp with time zone not null
finished_at timestamp with time zone not null$$, 'columns of mako.migration_batch');

SELECT is(pg_temp.columns('process_identity'),
$$tenant_id uuid
key text collate C
process_id uuid
stream_id text collate C
workflow_id text collate C$$, 'columns of mako.process_identity');

SELECT is(pg_temp.columns('migrated_stream'),
$$run_id bigint
stream_id text collate C
source_wf text collate C
target_wf text collate C
sequence_number bigint$$, 'columns of mako.migrated_stream');

SELECT is(pg_temp.rows($$ SELECT conrelid::regclass, pg_get_constraintdef(oid) FROM pg_constraint
                          WHERE connamespace = 'mako'::regnamespace AND contype = 'p' ORDER BY conrelid::regclass::text COLLATE "C" $$),
$$mako.correlation|PRIMARY KEY (tenant_id, tag, stream_no)
mako.dependent|PRIMARY KEY (relation, process_column, workflow_column)
mako.event|PRIMARY KEY (stream_no, sequence_number)
mako.format_version|PRIMARY KEY (format_version)
mako.migration_batch|PRIMARY KEY (run_id, batch_no)
mako.migration_error|PRIMARY KEY (run_id, error_no)
mako.migration_run|PRIMARY KEY (run_id)
mako.registry|PRIMARY KEY (tenant_id, key)
mako.repointed|PRIMARY KEY (stream_no, run_id)
mako.reverted|PRIMARY KEY (stream_no, run_id)
mako.snapshot|PRIMARY KEY (stream_no, sequence_number, run_id)
mako.stream|PRIMARY KEY (stream_no)$$, 'primary keys');

SELECT is(pg_temp.rows($$ SELECT conname FROM pg_constraint
                          WHERE connamespace = 'mako'::regnamespace AND contype IN ('c', 'u', 'f') ORDER BY conname COLLATE "C" $$),
$$attached_initial_check
correlation_tag_check
correlation_tenant_id_stream_no_fkey
event_schema_version_check
event_sequence_number_check
event_stream_no_event_id_key
format_version_format_version_check
format_version_status_check
migration_error_stream_no_run_id_key
migration_run_kind_check
migration_run_run_id_check
registry_key_check
registry_tenant_id_stream_no_fkey
snapshot_sequence_number_check
snapshot_state_schema_version_check
stream_process_id_check
stream_stream_id_check
stream_stream_id_key
stream_stream_no_check
stream_tenant_id_check
stream_tenant_id_stream_no_key
stream_version_check
stream_workflow_id_check$$, 'other constraints');

-- The rule <table>_<columns>_check|key|fkey: what stands in the middle is columns of the constraint.
SELECT is_empty(
  $$ SELECT c.conname
     FROM pg_constraint c JOIN pg_class r ON r.oid = c.conrelid
     WHERE c.connamespace = 'mako'::regnamespace AND c.contype IN ('c', 'u', 'f', 'p')
       AND c.conname <> r.relname || CASE c.contype
         WHEN 'p' THEN '_pkey'
         ELSE '_' || (SELECT string_agg(a.attname, '_' ORDER BY k.ordinality)
                      FROM unnest(c.conkey) WITH ORDINALITY k (attnum, ordinality)
                      JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.attnum
                      WHERE c.contype IN ('u', 'f') OR c.conname = r.relname || '_' || a.attname || '_check')
              || CASE c.contype WHEN 'c' THEN '_check' WHEN 'u' THEN '_key' ELSE '_fkey' END
       END $$,
  'constraint names say table and columns');

SELECT is(pg_temp.rows($$ SELECT tgrelid::regclass, tgname, tgenabled FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
                          WHERE c.relnamespace = 'mako'::regnamespace AND NOT tgisinternal
                          ORDER BY tgrelid::regclass::text COLLATE "C", tgname $$),
$$mako.attached|attached_guard|O
mako.dependent|dependent_guard|O
mako.event|event_guard|O
mako.event|event_inserted|O
mako.format_version|format_version_guard|O
mako.migration_batch|migration_batch_guard|O
mako.migration_error|migration_error_guard|O
mako.migration_run|migration_run_final|O
mako.migration_run|migration_run_guard|O
mako.repointed|repointed_guard|O
mako.reverted|reverted_guard|O
mako.snapshot|snapshot_delete_guard|O
mako.snapshot|snapshot_insert_guard|O
mako.snapshot|snapshot_saved|O
mako.snapshot|snapshot_truncate_guard|O
mako.snapshot|snapshot_update_guard|O
mako.stream|stream_guard|O
mako.stream|stream_inserted|O$$, 'triggers, all of them enabled');

SELECT is(pg_temp.rows($$ SELECT reloptions FROM pg_class WHERE oid = 'mako.stream'::regclass $$), '["fillfactor=50"]',
          'heads have room for a HOT update');
SELECT is_empty($$ SELECT indexrelid::regclass FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
                   WHERE i.indrelid = 'mako.stream'::regclass AND a.attname IN ('workflow_id', 'version') $$,
                'and no index in the way');
SELECT is_empty($$ SELECT conname FROM pg_constraint WHERE contype = 'f' AND confrelid = 'mako.stream'::regclass
                   AND conrelid IN ('mako.event'::regclass, 'mako.snapshot'::regclass) $$,
                'no foreign key from event or snapshot: the trigger proves it set-based');
SELECT is(pg_temp.rows($$ SELECT DISTINCT pg_get_userbyid(relowner) = current_user FROM pg_class WHERE relnamespace = 'mako'::regnamespace $$),
          'true', 'everything belongs to the caller');
SELECT is(pg_temp.rows($$ SELECT relname FROM pg_class WHERE relnamespace = 'mako'::regnamespace AND relkind = 'v'
                          AND 'security_invoker=true' = ANY (reloptions) ORDER BY relname $$),
          CASE WHEN current_setting('server_version_num')::int >= 150000 THEN E'migrated_stream\nprocess_identity' END,
          'views show what the caller may see, where the server can do that');

----------------------------------------------------------------------------------------------------
-- A second call, and repair
----------------------------------------------------------------------------------------------------

INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('before', 'w@FV2024-10-01');
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
SELECT stream_no, 1, workflow_id, 'E', '{}' FROM mako.stream;

-- Catalog rows of the store with the transactions that wrote them.
CREATE FUNCTION pg_temp.catalog() RETURNS text LANGUAGE sql AS $$
  SELECT md5(string_agg(x, ',' ORDER BY x COLLATE "C")) FROM (
    SELECT concat('c', oid, xmin) FROM pg_class WHERE relnamespace = 'mako'::regnamespace AND relkind <> 'S'
    UNION ALL SELECT concat('t', t.oid, t.xmin) FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid WHERE c.relnamespace = 'mako'::regnamespace
    UNION ALL SELECT concat('k', oid, xmin) FROM pg_constraint WHERE connamespace = 'mako'::regnamespace
    UNION ALL SELECT concat('r', ev_class, xmin) FROM pg_rewrite WHERE ev_class IN (SELECT oid FROM pg_class WHERE relnamespace = 'mako'::regnamespace)
  ) AS o (x)
$$;
SELECT pg_temp.catalog() AS catalog_before \gset
SELECT lives_ok('SELECT mako_create_store()', 'a second call is allowed');
SELECT is(pg_temp.catalog(), :'catalog_before', 'and changes nothing');
SELECT is(pg_temp.rows('SELECT s.stream_id, s.version, e.payload FROM mako.stream s JOIN mako.event e USING (stream_no)'), 'before|1|{}',
          'no row either');

-- One damage at a time: what is reported, and that a second call repairs it.
CREATE TEMPORARY TABLE damage (no int, statement text, problems text);
INSERT INTO damage
SELECT row_number() OVER (ORDER BY ordinal, variant), format(statement, relation, name),
       format('%s %s on mako.%s|%s|true', kind, name, relation, problem)
FROM mako_store_object(),
LATERAL (VALUES (1, 'trigger', 'DROP TRIGGER %2$I ON mako.%1$I', 'is missing'),
                (2, 'trigger', 'ALTER TABLE mako.%1$I DISABLE TRIGGER %2$I', 'is disabled'),
                (3, 'constraint', 'ALTER TABLE mako.%1$I DROP CONSTRAINT %2$I', 'is missing')) AS d (variant, of_kind, statement, problem)
-- the foreign keys of registry and correlation depend on this one
WHERE kind = of_kind AND name <> 'stream_tenant_id_stream_no_key';
INSERT INTO damage VALUES
  (100, 'ALTER TABLE mako.event ENABLE REPLICA TRIGGER event_inserted', 'trigger event_inserted on mako.event|is disabled|true'),
  (101, 'DROP VIEW mako.process_identity', 'view mako.process_identity|is missing|true'),
  (102, 'DROP VIEW mako.migrated_stream', 'view mako.migrated_stream|is missing|true'),
  (103, 'DROP TABLE mako.correlation',
        E'table mako.correlation|is missing|true\nconstraint correlation_pkey on mako.correlation|is missing|true\n'
        'constraint correlation_tag_check on mako.correlation|is missing|true\n'
        'constraint correlation_tenant_id_stream_no_fkey on mako.correlation|is missing|true'),
  (104, 'DROP TRIGGER event_guard ON mako.event; DROP TRIGGER stream_guard ON mako.stream',
        E'trigger stream_guard on mako.stream|is missing|true\ntrigger event_guard on mako.event|is missing|true'),
  (105, 'ALTER TABLE mako.stream DROP CONSTRAINT stream_tenant_id_stream_no_key CASCADE',
        E'constraint stream_tenant_id_stream_no_key on mako.stream|is missing|true\n'
        'constraint registry_tenant_id_stream_no_fkey on mako.registry|is missing|true\n'
        'constraint correlation_tenant_id_stream_no_fkey on mako.correlation|is missing|true');

CREATE FUNCTION pg_temp.objects() RETURNS text LANGUAGE sql AS $$
  SELECT string_agg(x, E'\n' ORDER BY x COLLATE "C") FROM (
    SELECT concat_ws(' ', relkind, relname, obj_description(oid, 'pg_class')) FROM pg_class WHERE relnamespace = 'mako'::regnamespace
    UNION ALL SELECT concat(pg_get_triggerdef(t.oid), tgenabled) FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid
              WHERE c.relnamespace = 'mako'::regnamespace AND NOT tgisinternal
    UNION ALL SELECT concat_ws(' ', conrelid::regclass, conname, pg_get_constraintdef(oid)) FROM pg_constraint WHERE connamespace = 'mako'::regnamespace
  ) AS o (x)
$$;
CREATE FUNCTION pg_temp.damage_and_repair(statement text, problems text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
  found text;
  whole CONSTANT text := pg_temp.objects();
  repaired text;
BEGIN
  BEGIN
    EXECUTE statement;
    found := pg_temp.rows('SELECT * FROM mako_store_problem()');
    PERFORM mako_create_store();
    repaired := pg_temp.objects();
    RAISE EXCEPTION USING ERRCODE = 'MKTST';
  EXCEPTION WHEN SQLSTATE 'MKTST' THEN NULL;
  END;
  RETURN NEXT is(found, problems, statement || ': is seen');
  RETURN NEXT ok(repaired = whole, statement || ': is repaired');
END
$$;
SELECT t FROM (SELECT * FROM damage ORDER BY no) d, pg_temp.damage_and_repair(statement, problems) t;

-- Repaired is not only what the catalog says.
DROP TRIGGER event_inserted ON mako.event;
SELECT matches(pg_temp.error($$ SELECT * FROM mako_migrate('w@FV2024-10-01', 'w@FV2025-10-01') $$),
               '^55000\|the store is damaged\|trigger event_inserted on mako\.event is missing\.\|Repair it with SELECT mako_create_store\(\)',
               'a damaged store is not migrated, and the error names the damage');
SELECT mako_create_store();
SELECT throws_ok($$ INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload) VALUES (1, 3, 'w@FV2024-10-01', 'E', '{}') $$,
                 'XX001', NULL, 'a repaired trigger works');

ALTER TABLE mako.event ENABLE ALWAYS TRIGGER event_inserted;
SELECT is_empty('SELECT * FROM mako_store_problem()', 'a trigger that fires always is no problem');
SELECT mako_create_store();
SELECT is(pg_temp.rows($$ SELECT tgenabled FROM pg_trigger WHERE tgname = 'event_inserted' $$), 'A', 'and stays as its owner set it');
ALTER TABLE mako.event ENABLE TRIGGER event_inserted;

BEGIN;
ALTER TABLE mako.event DROP COLUMN causation_id;
SELECT is(pg_temp.rows('SELECT * FROM mako_store_problem()'), 'column mako.event.causation_id|is missing|false', 'a dropped column is seen');
SELECT is(pg_temp.error('SELECT mako_create_store()'),
          '55000|the store is damaged beyond repair|column mako.event.causation_id is missing.|Restore the store from a backup.',
          'it is beyond repair');
ROLLBACK;
SELECT is_empty('SELECT * FROM mako_store_problem()', 'the store is complete again');

-- A role's name is its name, whatever it looks like.
CREATE ROLE "Mako Test: Owner";
GRANT CREATE ON DATABASE :DBNAME TO "Mako Test: Owner";
GRANT EXECUTE ON FUNCTION mako_create_store() TO "Mako Test: Owner";
BEGIN;
SET LOCAL client_min_messages = warning;
DROP SCHEMA mako CASCADE;
SET LOCAL ROLE "Mako Test: Owner";
SELECT lives_ok('SELECT mako_create_store()', 'a role with an odd name creates a store');
SELECT is(pg_temp.error('SELECT mako_create_store()'), NULL, 'and may call again');
ROLLBACK;
DROP OWNED BY "Mako Test: Owner";
DROP ROLE "Mako Test: Owner";

----------------------------------------------------------------------------------------------------
-- New streams
----------------------------------------------------------------------------------------------------

SELECT matches(pg_temp.error($$ INSERT INTO mako.stream (stream_id, workflow_id, version) VALUES ('x', 'w@FV2024-10-01', 0), ('y', 'w@FV2024-10-01', 2) $$),
               '^23514\|a new stream must have version 0\|The version of stream number \d+ is 2\.\|The version advances with the stream''s events\.$',
               'a new stream starts at version 0');
SELECT throws_ok($$ INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('x', 'w') $$, '22P02', NULL, 'under a well-formed workflow id');
SELECT throws_ok($$ INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('x', '') $$, '22P02', NULL, 'not under an empty one');
SELECT throws_ok($$ INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('', 'w@FV2024-10-01') $$, '23514', NULL, 'with an id');
SELECT throws_ok($$ INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('before', 'w@FV2024-10-01') $$, '23505', NULL, 'of its own');
SELECT throws_ok($$ INSERT INTO mako.stream (stream_id, tenant_id, process_id, workflow_id)
                    VALUES ('x', '00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-0000000000aa', 'w@FV2024-10-01') $$,
                 '23514', NULL, 'a process has the id of a process');
SELECT lives_ok($$ INSERT INTO mako.stream (stream_id, tenant_id, process_id, workflow_id)
                   VALUES ('process/00000000-0000-4000-8000-000000000001/00000000-0000-4000-8000-0000000000aa',
                           '00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-0000000000aa', 'w@FV2024-10-01') $$,
                'which is process/<tenant>/<process>');
SELECT lives_ok($$ INSERT INTO mako.stream (stream_id, workflow_id) SELECT 'none', 'w@FV2024-10-01' WHERE false $$, 'no stream at all is fine');
SELECT throws_ok($$ INSERT INTO mako.stream (stream_no, stream_id, workflow_id) VALUES (1000000, 'x', 'w@FV2024-10-01') $$, '428C9', NULL,
                 'numbers come from the sequence');

-- Numbers that are chosen all the same.
CREATE FUNCTION pg_temp.choose(number bigint) RETURNS text LANGUAGE sql AS $$
  INSERT INTO mako.stream (stream_no, stream_id, workflow_id) OVERRIDING SYSTEM VALUE VALUES (number, 'number ' || number, 'w@FV2024-10-01') RETURNING stream_id $$;
CREATE FUNCTION pg_temp.next_number() RETURNS bigint LANGUAGE sql AS $$
  INSERT INTO mako.stream (stream_id, workflow_id) VALUES (gen_random_uuid()::text, 'w@FV2024-10-01') RETURNING stream_no $$;
SELECT throws_ok(format('SELECT pg_temp.choose(%s)', n), '23514', NULL, format('number %s is below the first', n))
FROM unnest('{0,-1,-9223372036854775808}'::bigint[]) AS n;
-- Under replica no trigger looks, so a CHECK constraint does.
BEGIN;
SET LOCAL session_replication_role = replica;
SELECT throws_ok(format('SELECT pg_temp.choose(%s)', n), '23514', 'new row for relation "stream" violates check constraint "stream_stream_no_check"',
                 format('number %s is below the first even where no trigger looks', n))
FROM unnest('{0,-5}'::bigint[]) AS n;
ROLLBACK;
SELECT is(pg_temp.error('SELECT pg_temp.choose(9223372036854775807)'),
          '2200H|number 9223372036854775807 leaves no room for new ones|'
          'The numbers of sequence mako.stream_stream_no_seq end at 9223372036854775807.|Choose a smaller number, at least 1000000000 before that.',
          'the last number of all is refused, even to the owner');
SELECT pg_temp.next_number() AS last \gset
BEGIN;
ALTER TABLE mako.stream ALTER COLUMN stream_no RESTART WITH :last; -- what is set is set, unless the sequence is another one
SELECT pg_temp.choose(9223372036854775807 - 1000000000);
SELECT is(pg_temp.next_number(), 9223372035854775808, 'one with room after it is not');
ROLLBACK;
BEGIN;
SELECT pg_temp.next_number() AS last \gset
SELECT pg_temp.choose(:last + 10);
SELECT is(pg_temp.next_number(), :last + 11::bigint, 'the sequence goes on after a number that the owner has chosen');
SELECT pg_temp.choose(:last + 5);
SELECT is(pg_temp.next_number(), :last + 12::bigint, 'and not back to a smaller one');
SELECT is_empty('SELECT * FROM mako_store_problem()', 'so that nothing is wrong');
CREATE ROLE mako_test_keeper;
CREATE ROLE mako_test_helper IN ROLE mako_test_keeper;
CREATE ROLE mako_test_writer;
ALTER TABLE mako.stream OWNER TO mako_test_keeper;
GRANT USAGE ON SCHEMA mako TO mako_test_keeper, mako_test_writer;
GRANT SELECT, INSERT ON mako.stream TO mako_test_writer;
GRANT SELECT, INSERT ON mako.registry TO mako_test_writer;
GRANT SELECT ON mako.format_version TO mako_test_keeper;
GRANT EXECUTE ON FUNCTION mako_spawn TO mako_test_writer;
SELECT mako_register_workflow('w@FV2024-10-01');
SET LOCAL ROLE mako_test_writer;
SELECT is(pg_temp.error(format('SELECT pg_temp.choose(%s)', :last + 13)),
          format('42501|permission denied to choose the number of a stream|Number %s is beyond those that sequence mako.stream_stream_no_seq has given.|'
                 'Insert the head without a number, or as the owner of its table, "mako_test_keeper".', :last + 13), 'a writer may not go beyond the sequence');
SELECT is(pg_temp.error(format('INSERT INTO mako.stream (stream_no, stream_id, workflow_id) OVERRIDING SYSTEM VALUE SELECT n, ''x'' || n, ''w@FV2024-10-01'' FROM unnest(ARRAY[%s, %s]) AS n',
                               :last + 1, :last + 13)) LIKE '42501|%', true, 'nor by one of many rows');
SELECT is(pg_temp.error(format('SELECT pg_temp.choose(%s)', :last + 7)), NULL, 'a number that the sequence has left out harms nobody');
SELECT is(pg_temp.next_number(), :last + 13::bigint, 'and he takes those of the sequence');
SELECT is(pg_temp.error($$ SELECT mako_spawn('w@FV2024-10-01', gen_random_uuid()) $$) LIKE '42501|the store belongs to role "mako_test_keeper"|%', true,
          'mako_spawn() does not use the tables of a role that he is no member of');
SET LOCAL ROLE mako_test_helper;
SELECT is(pg_temp.error(format('SELECT pg_temp.choose(%s)', :last + 1000)), NULL, 'who has the rights of the owner may');
ROLLBACK;

----------------------------------------------------------------------------------------------------
-- Sequences that lag behind their tables
----------------------------------------------------------------------------------------------------

BEGIN;
SET LOCAL client_min_messages = warning;
ALTER TABLE mako.migration_run ALTER COLUMN run_id RESTART; -- so that the next tests find it where it was
SELECT mako_register_workflow('w@' || v) FROM unnest('{FV2024-10-01,FV2025-10-01}'::text[]) AS v;
SELECT mako_register_migration('w@FV2024-10-01', 'w@FV2025-10-01');
SELECT mako_spawn('w@FV2024-10-01', '00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-0000000000bb');
ALTER TABLE mako.migration_run ALTER COLUMN run_id SET MINVALUE 0 RESTART WITH 0;
SELECT matches(pg_temp.error($$ SELECT mako_migrate('w@FV2024-10-01', 'w@FV2025-10-01') $$), '^23514\|.*"migration_run_run_id_check"',
               'number 0 is that of periodic snapshots, not of a run');
ALTER TABLE mako.migration_run ALTER COLUMN run_id SET MINVALUE 1 RESTART;
SELECT run_id AS last_run FROM mako_migrate('w@FV2024-10-01', 'w@FV2025-10-01') \gset
SELECT max(stream_no) AS last FROM mako.stream \gset
ALTER SEQUENCE mako.stream_stream_no_seq RENAME TO numbers;
ALTER TABLE mako.migration_run ALTER COLUMN run_id RESTART;
SELECT is(pg_temp.rows('SELECT * FROM mako_store_problem()'), 'sequence mako.migration_run_run_id_seq|is behind column mako.migration_run.run_id|true', 'that of runs');
ALTER TABLE mako.stream ALTER COLUMN stream_no RESTART;
SELECT is(pg_temp.rows('SELECT * FROM mako_store_problem()'),
          E'sequence mako.migration_run_run_id_seq|is behind column mako.migration_run.run_id|true\n'
          'sequence mako.numbers|is behind column mako.stream.stream_no|true', 'that of streams, whatever its name is');
SELECT is(pg_temp.error($$ SELECT mako_migrate('w@FV2024-10-01', 'w@FV2025-10-01') $$) LIKE
          '55000|the store is damaged|sequence mako.numbers is behind column mako.stream.stream_no, '
          'sequence mako.migration_run_run_id_seq is behind column mako.migration_run.run_id.|Repair it with SELECT mako_create_store(), as its owner %', true,
          'a run refuses, before it takes a number that is there');
SELECT is(pg_temp.error(statement) LIKE '55000|the store is damaged|sequence %', true, statement)
FROM unnest(ARRAY['SELECT mako_migrate_version(''FV2024-10-01'', ''FV2025-10-01'')', format('SELECT mako_revert(%s)', :last_run),
                  'SELECT mako_assert_store()']) AS statement;
SELECT is(pg_temp.rows($$ SELECT code, subject FROM mako_check() WHERE code LIKE 'store%' ORDER BY subject $$),
          E'store_damaged|sequence mako.migration_run_run_id_seq\nstore_damaged|sequence mako.numbers', 'a check finds them');
SELECT is(pg_temp.rows($$ SELECT blockers FROM mako_plan('w@FV2024-10-01', 'w@FV2025-10-01') $$) LIKE '%The store is damaged: sequence %', true, 'as does a plan');
SELECT is(pg_temp.error($$ SELECT mako_dry_run('w@FV2024-10-01', 'w@FV2025-10-01') $$), NULL, 'a rehearsal writes nothing');
SELECT is(pg_temp.error($$ SELECT mako_spawn('w@FV2024-10-01', '00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-0000000000cc') $$) LIKE
          '23505|duplicate key value violates unique constraint "stream_pkey"|%', true, 'a process that is not there collides');
SELECT is(pg_temp.error($$ SELECT mako_spawn('w@FV2024-10-01', '00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-0000000000bb') $$) LIKE
          'MK007|stream %', true, 'one that is there has a code of its own');
CREATE ROLE mako_test_anybody;
SET LOCAL ROLE mako_test_anybody;
SELECT is(pg_temp.error('SELECT mako_advance_sequences()') LIKE '42501|%', true, 'not anybody may set them');
RESET ROLE;
SELECT mako_create_store();
SELECT is_empty('SELECT * FROM mako_store_problem()', 'the store is repaired');
SELECT is(pg_temp.next_number(), :last + 1::bigint, 'streams go on');
SELECT is(pg_temp.error($$ SELECT mako_spawn('w@FV2024-10-01', '00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-0000000000bb') $$),
          'MK007|stream "process/00000000-0000-4000-8000-000000000001/00000000-0000-4000-8000-0000000000bb" already exists|'
          'Append to it, or start a process with an id of its own.', 'a process that is there is told as before');
SELECT is((SELECT run_id FROM mako_migrate('w@FV2024-10-01', 'w@FV2025-10-01')), :last_run + 1::bigint, 'and so do runs');
SELECT setval('mako.numbers', :last + 1000), mako_create_store();
SELECT is(pg_temp.next_number(), :last + 1001::bigint, 'a sequence that is ahead is left alone');
-- Past the triggers, as a replica or a restore writes.
SET LOCAL session_replication_role = replica;
SELECT pg_temp.choose(9223372036854775807);
SET LOCAL session_replication_role = origin;
SELECT is(pg_temp.rows('SELECT * FROM mako_store_problem()'),
          'sequence mako.numbers|is behind column mako.stream.stream_no, whose highest number leaves no room for new ones|false', 'no room for new numbers');
SELECT is(pg_temp.error('SELECT mako_create_store()') LIKE '55000|the store is damaged beyond repair|sequence mako.numbers is behind %', true, 'cannot be repaired');
SELECT is(pg_temp.error('SELECT mako_adopt_events()') LIKE '2200H|number 9223372036854775807 leaves no room for new ones|%', true, 'nor adopted');
SELECT is(pg_temp.next_number(), :last + 1002::bigint, 'and the sequence is where it was');
ROLLBACK;
-- A sequence that counts backwards, and one that is at its end.
BEGIN;
SELECT pg_temp.next_number();
ALTER TABLE mako.stream ALTER COLUMN stream_no SET INCREMENT BY -1;
SELECT is(pg_temp.rows('SELECT * FROM mako_store_problem()'),
          'sequence mako.stream_stream_no_seq|of column mako.stream.stream_no counts backwards|false', 'a sequence that counts backwards');
SELECT is(pg_temp.rows($$ SELECT code, subject FROM mako_check() WHERE code LIKE 'store%' $$),
          'store_damaged|sequence mako.stream_stream_no_seq', 'a check finds it');
SELECT is(pg_temp.error('SELECT mako_create_store()') LIKE '55000|%', true, 'for somebody else to mend');
ALTER TABLE mako.stream ALTER COLUMN stream_no SET INCREMENT BY 1;
SELECT is_empty('SELECT * FROM mako_store_problem()', 'who has done it');
SELECT setval('mako.migration_run_run_id_seq', 9223372036854775807);
SELECT is(pg_temp.rows('SELECT * FROM mako_store_problem()'),
          'sequence mako.migration_run_run_id_seq|of column mako.migration_run.run_id leaves no room for new numbers|false', 'a sequence at its end');
ROLLBACK;
ALTER TABLE mako.migration_run ALTER COLUMN run_id RESTART; -- no run yet, and a transaction does not take a sequence back
-- Without an identity, who numbers the streams is the owner's business, if anybody does.
BEGIN;
ALTER TABLE mako.migration_run ALTER COLUMN run_id DROP IDENTITY;
ALTER TABLE mako.stream ALTER COLUMN stream_no DROP IDENTITY;
SELECT is(pg_temp.rows('SELECT * FROM mako_store_problem()'),
          E'column mako.migration_run.run_id|has neither an identity nor a default: nothing numbers its rows|false\n'
          'column mako.stream.stream_no|has neither an identity nor a default: nothing numbers its rows|false', 'nobody does');
ALTER TABLE mako.migration_run ALTER COLUMN run_id SET DEFAULT 1;
ALTER TABLE mako.stream ALTER COLUMN stream_no SET DEFAULT 1000001;
SELECT is_empty('SELECT * FROM mako_store_problem()', 'another default than the sequence');
SELECT lives_ok($$ INSERT INTO mako.stream (stream_no, stream_id, workflow_id) VALUES (1000000, 'x', 'w@FV2024-10-01') $$, 'numbers the streams');
ROLLBACK;

-- A trigger of somebody's that swallows the head is not a process that is there.
BEGIN;
CREATE FUNCTION pg_temp.swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
SELECT mako_register_workflow('w@FV2024-10-01');
CREATE TRIGGER swallow BEFORE INSERT ON mako.registry FOR EACH ROW EXECUTE FUNCTION pg_temp.swallow();
SELECT matches(pg_temp.error($$ SELECT mako_spawn('w@FV2024-10-01', gen_random_uuid()) $$), '^09000\|table "mako.registry" did not take every row', 'a swallowed key');
CREATE TRIGGER swallow BEFORE INSERT ON mako.stream FOR EACH ROW EXECUTE FUNCTION pg_temp.swallow();
SELECT matches(pg_temp.error($$ SELECT mako_spawn('w@FV2024-10-01', gen_random_uuid()) $$), '^09000\|table "mako.stream" did not take every row', 'a swallowed head');
ROLLBACK;

----------------------------------------------------------------------------------------------------
-- New events
----------------------------------------------------------------------------------------------------

CREATE FUNCTION pg_temp.no(stream_id text) RETURNS bigint LANGUAGE sql AS $$ SELECT stream_no FROM mako.stream s WHERE s.stream_id = $1 $$;
CREATE FUNCTION pg_temp.version(stream_id text) RETURNS bigint LANGUAGE sql AS $$ SELECT version FROM mako.stream s WHERE s.stream_id = $1 $$;
-- Appends events with these numbers to a stream, in this order, in one statement.
CREATE FUNCTION pg_temp.append(stream_id text, VARIADIC numbers bigint[]) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
  SELECT s.stream_no, n, s.workflow_id, 'E', jsonb_build_object('n', n)
  FROM mako.stream s, unnest(numbers) AS n WHERE s.stream_id = $1;
  RETURN pg_temp.version($1);
END
$$;

INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('a', 'w@FV2024-10-01'), ('b', 'w@FV2024-10-01'), ('c', 'v@FV2025-10-01');
SELECT is(pg_temp.append('a', 1), 1::bigint, 'a single event');
SELECT is(pg_temp.append('a', 2), 2::bigint, 'the next one');
SELECT is(pg_temp.append('a', 3, 4, 5), 5::bigint, 'three in one statement');
SELECT is(pg_temp.append('a', 8, 6, 7), 8::bigint, 'in any order');
SELECT is(pg_temp.append('a', VARIADIC '{}'), 8::bigint, 'none at all');
SELECT is(pg_temp.version('b'), 0::bigint, 'another stream is not concerned');

SELECT is(pg_temp.error($$ SELECT pg_temp.append('a', 10) $$),
          'XX001|events of stream "a" do not continue it|Expected sequence number 9, found 10.|'
          'Sequence numbers are 1, 2, 3 ... in every stream, without gap.', 'a gap');
SELECT is(pg_temp.error($$ SELECT pg_temp.append('a', 11, 9, 12) $$),
          'XX001|events of stream "a" do not continue it|Expected sequence number 10, found 11.|'
          'Sequence numbers are 1, 2, 3 ... in every stream, without gap.', 'a gap within a statement');
SELECT is(pg_temp.error($$ SELECT pg_temp.append('b', 2) $$),
          'XX001|events of stream "b" do not continue it|Expected sequence number 1, found 2.|'
          'Sequence numbers are 1, 2, 3 ... in every stream, without gap.', 'a wrong first number');
SELECT matches(pg_temp.error($$ SELECT pg_temp.append('a', 8) $$), '^23505\|duplicate key value violates unique constraint "event_pkey"', 'a number that is there');
SELECT matches(pg_temp.error($$ SELECT pg_temp.append('a', 9, 9) $$), '^23505', 'a number twice in a statement');
SELECT throws_ok($$ SELECT pg_temp.append('b', 0) $$, '23514', NULL, 'number 0');
SELECT throws_ok($$ SELECT pg_temp.append('b', -1, 1) $$, '23514', NULL, 'a negative number');
-- Who may not read the heads hears what he has written, and not what they are.
BEGIN;
CREATE ROLE mako_test_inserter;
GRANT USAGE ON SCHEMA mako TO mako_test_inserter;
GRANT INSERT ON mako.event TO mako_test_inserter;
SELECT pg_temp.no('a') AS a \gset
CREATE FUNCTION pg_temp.insert(number int, workflow text) RETURNS text LANGUAGE sql AS $$
  SELECT pg_temp.error(format('INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload) VALUES (%s, %s, %L, ''E'', ''{}'')',
                              current_setting('test.a'), number, workflow)) $$;
SELECT set_config('test.a', :'a', true);
SET LOCAL ROLE mako_test_inserter;
SELECT is(pg_temp.insert(10, 'w@FV2024-10-01'),
          format('XX001|events of stream number %s do not continue it|Found sequence number 10.|Sequence numbers are 1, 2, 3 ... in every stream, without gap.', :a),
          'who may only insert does not hear where a stream is');
SELECT is(pg_temp.insert(9, 'v@FV2024-10-01'),
          format('MK005|stream number %s runs under another workflow|Event 9 was written under "v@FV2024-10-01".|'
                 'Load the process again and continue under the workflow that it runs under now.', :a), '... nor under which workflow');
SELECT is(pg_temp.insert(9, 'w@FV2024-10-01'), NULL, '... and inserts what is right');
RESET ROLE;
GRANT SELECT ON mako.stream TO mako_test_inserter;
SET LOCAL ROLE mako_test_inserter;
SELECT is(pg_temp.insert(10, 'w@FV2024-10-01') LIKE 'XX001|events of stream "a" do not continue it|Expected sequence number 9, found 10.|%', true,
          'who may read heads hears it');
RESET ROLE;
ALTER TABLE mako.stream ENABLE ROW LEVEL SECURITY;
SET LOCAL ROLE mako_test_inserter;
SELECT is(pg_temp.insert(10, 'w@FV2024-10-01') LIKE 'XX001|events of stream number % do not continue it|Found sequence number 10.|%', true,
          '... unless policies may hide them');
ROLLBACK;
SELECT is(pg_temp.error($$ INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload) VALUES (999999, 1, 'w@FV2024-10-01', 'E', '{}') $$),
          '42704|stream number 999999 does not exist|Insert the stream''s head into mako.stream first.', 'an unknown stream');
SELECT is(pg_temp.error($$ INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
                           SELECT n, v, 'w@FV2024-10-01', 'E', '{}'
                           FROM (VALUES (pg_temp.no('a'), 9), (999998, 1), (pg_temp.no('b'), 1)) x (n, v) $$),
          '42704|stream number 999998 does not exist|Insert the stream''s head into mako.stream first.', 'an unknown stream among known ones');
SELECT is(pg_temp.error($$ INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
                           VALUES (pg_temp.no('a'), 9, 'w@FV2025-10-01', 'E', '{}') $$),
          'MK005|stream "a" runs under workflow "w@FV2024-10-01"|Event 9 was written under "w@FV2025-10-01".|'
          'Load the process again and continue under the workflow that it runs under now.', 'another workflow than the head''s');
SELECT matches(pg_temp.error($$ INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
                                VALUES (pg_temp.no('a'), 99, 'w@FV2025-10-01', 'E', '{}') $$),
               '^MK005', 'which comes before a gap');
SELECT matches(pg_temp.error($$ INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
                                VALUES (pg_temp.no('a'), 9, 'w@FV2024-10-01', 'E', '{}'), (pg_temp.no('a'), 10, 'w@FV2025-10-01', 'E', '{}') $$),
               '^MK005\|.*\|Event 10 was written', 'every event of a statement is checked');
SELECT throws_ok($$ INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload) VALUES (pg_temp.no('a'), 9, 'w', 'E', '{}') $$,
                 '22P02', 'invalid workflow id: "w"', 'a malformed workflow id');
SELECT throws_ok($$ INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload) VALUES (pg_temp.no('a'), 9, NULL, 'E', '{}') $$,
                 '23502', NULL, 'no workflow id');
SELECT is(pg_temp.rows($$ SELECT stream_id, version, (SELECT count(*) FROM mako.event e WHERE e.stream_no = s.stream_no) FROM mako.stream s
                          WHERE stream_id IN ('a', 'b') ORDER BY stream_id $$), E'a|8|8\nb|0|0', 'what is refused leaves nothing');

-- Of many streams at once.
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload) VALUES
  (pg_temp.no('c'), 2, 'v@FV2025-10-01', 'E', '{}'), (pg_temp.no('b'), 1, 'w@FV2024-10-01', 'E', '{}'),
  (pg_temp.no('a'), 9, 'w@FV2024-10-01', 'E', '{}'), (pg_temp.no('c'), 1, 'v@FV2025-10-01', 'E', '{}'),
  (pg_temp.no('b'), 2, 'w@FV2024-10-01', 'E', '{}');
SELECT is(pg_temp.rows($$ SELECT stream_id, version FROM mako.stream WHERE stream_id IN ('a', 'b', 'c') ORDER BY stream_id $$),
          E'a|9\nb|2\nc|2', 'several streams of two workflows in one INSERT');

-- Stream and events in one statement.
WITH s AS (INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('d', 'w@FV2024-10-01') RETURNING stream_no)
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
SELECT stream_no, n, 'w@FV2024-10-01', 'E', '{}' FROM s, generate_series(1, 3) AS n;
SELECT is(pg_temp.version('d'), 3::bigint, 'a head and its events in one statement');

BEGIN;
SELECT is(pg_temp.append('d', 4), 4::bigint, 'two statements');
SELECT is(pg_temp.append('d', 5, 6), 6::bigint, 'in one transaction');
SAVEPOINT s;
SELECT is(pg_temp.append('d', 7), 7::bigint, 'one is rolled back');
ROLLBACK TO s;
SELECT is(pg_temp.append('d', 7, 8), 8::bigint, 'and its number is free again');
COMMIT;
SELECT is(pg_temp.version('d'), 8::bigint, 'the head has followed');

-- COPY: psql reads the rows from here.
SELECT setval(pg_get_serial_sequence('mako.stream', 'stream_no'), 5000);
INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('copy 1', 'w@FV2024-10-01'), ('copy 2', 'w@FV2024-10-01'), ('copy 3', 'v@FV2025-10-01');
\copy mako.event (stream_no, sequence_number, workflow_id, event_type, payload) FROM STDIN
5002	1	w@FV2024-10-01	E	{"n": 1}
5001	2	w@FV2024-10-01	E	{"n": 2}
5003	1	v@FV2025-10-01	E	{"n": 3}
5001	1	w@FV2024-10-01	E	{"n": 4}
5001	3	w@FV2024-10-01	E	{"n": 5}
\.
SELECT is(pg_temp.rows($$ SELECT stream_no, version FROM mako.stream WHERE stream_id LIKE 'copy %' ORDER BY stream_no $$),
          E'5001|3\n5002|1\n5003|1', 'COPY of several streams');
\set ON_ERROR_STOP off
\copy mako.event (stream_no, sequence_number, workflow_id, event_type, payload) FROM STDIN
5002	2	w@FV2024-10-01	E	{"n": 1}
5001	5	w@FV2024-10-01	E	{"n": 2}
\.
\set ON_ERROR_STOP on
SELECT is(pg_temp.rows($$ SELECT stream_no, version FROM mako.stream WHERE stream_id LIKE 'copy %' ORDER BY stream_no $$),
          E'5001|3\n5002|1\n5003|1', 'COPY with a gap is refused, all of it');

-- More streams than one statement of the trigger's takes, around the border.
CREATE FUNCTION pg_temp.many(prefix text, streams int, events int) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO mako.stream (stream_id, workflow_id) SELECT format('%s %s', prefix, n), 'w@FV2024-10-01' FROM generate_series(1, streams) AS n;
  INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
  SELECT s.stream_no, n, s.workflow_id, 'E', '{}' FROM mako.stream s, generate_series(1, events) AS n
  WHERE starts_with(s.stream_id, prefix || ' ') ORDER BY md5(s.stream_no || ':' || n);
  RETURN pg_temp.rows(format('SELECT count(*), min(version), max(version) FROM mako.stream WHERE starts_with(stream_id, %L)', prefix || ' '));
END
$$;
SELECT is(pg_temp.many('n' || n, n, 2), format('%s|2|2', n), format('%s streams in one statement', n))
FROM unnest(ARRAY[999, 1000, 1001, 2500]) AS n;
SELECT is(pg_temp.rows($$ SELECT count(*) FROM mako.stream s WHERE version <> (SELECT count(*) FROM mako.event e WHERE e.stream_no = s.stream_no) $$),
          '0', 'every head is at its last event');
SELECT throws_ok($$ INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
                    SELECT stream_no, CASE WHEN stream_id = 'n2500 2500' THEN 4 ELSE 3 END, workflow_id, 'E', '{}'
                    FROM mako.stream WHERE starts_with(stream_id, 'n2500 ') $$,
                 'XX001', 'events of stream "n2500 2500" do not continue it', 'the last of 2,500 streams is checked too');
SELECT is(pg_temp.rows($$ SELECT max(version) FROM mako.stream WHERE starts_with(stream_id, 'n2500 ') $$), '2', 'and the others are not advanced then');

-- A writer needs INSERT on mako.event only.
CREATE ROLE mako_test_writer;
GRANT USAGE ON SCHEMA mako TO mako_test_writer;
GRANT INSERT ON mako.event TO mako_test_writer;
SET ROLE mako_test_writer;
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload) VALUES (5001, 4, 'w@FV2024-10-01', 'E', '{}');
SELECT current_user AS writer \gset
RESET ROLE;
SELECT is(pg_temp.version('copy 1'), 4::bigint, 'a writer needs INSERT on mako.event only');
SELECT is(:'writer'::text, 'mako_test_writer', 'and is himself again afterwards');
DROP OWNED BY mako_test_writer;
DROP ROLE mako_test_writer;

----------------------------------------------------------------------------------------------------
-- What is refused
----------------------------------------------------------------------------------------------------

SELECT is(pg_temp.error(statement || ' mako.event' || rest),
          format('0A000|cannot %s table "mako.event"|Events are append-only.|To archive events, the owner can disable the trigger "event_guard".', lower(statement)),
          statement || ' of events')
FROM (VALUES ('UPDATE', ' SET payload = payload'), ('DELETE FROM', ''), ('TRUNCATE', '')) x (statement, rest);
SELECT throws_ok($$ DELETE FROM mako.event WHERE false $$, '0A000', NULL, 'even of none');
SELECT throws_ok($$ INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload) VALUES (5001, 1, 'w@FV2024-10-01', 'E', '{}')
                    ON CONFLICT ON CONSTRAINT event_pkey DO UPDATE SET payload = '{"changed": true}' $$, '0A000', NULL, 'and in disguise');
SELECT lives_ok($$ INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
                   VALUES (5001, 1, 'w@FV2024-10-01', 'E', '{}'), (5001, 5, 'w@FV2024-10-01', 'E', '{}') ON CONFLICT DO NOTHING $$,
                'ON CONFLICT DO NOTHING is no change');
SELECT is(pg_temp.version('copy 1'), 5::bigint, 'and counts what was new');
BEGIN;
ALTER TABLE mako.event DISABLE TRIGGER event_guard;
SELECT lives_ok($$ DELETE FROM mako.event WHERE stream_no = 5001 AND sequence_number = 1 $$, 'the owner can disable the trigger to archive');
ROLLBACK;

SET client_min_messages = warning; -- TRUNCATE tells what it cascades to
SELECT matches(pg_temp.error(statement), '^0A000\|cannot [a-z ]+ table "mako\.stream"\|Stream heads advance with their events', statement)
FROM (VALUES ('UPDATE mako.stream SET version = 99'), ('UPDATE mako.stream SET workflow_id = ''w@FV2025-10-01'' WHERE stream_no = 5001'),
             ('UPDATE mako.stream SET stream_id = stream_id'), ('DELETE FROM mako.stream WHERE stream_id = ''before'''),
             ('TRUNCATE mako.stream CASCADE'),
             ('INSERT INTO mako.stream (stream_id, workflow_id) VALUES (''before'', ''w@FV2024-10-01'')
               ON CONFLICT (stream_id) DO UPDATE SET version = 7')) x (statement);

RESET client_min_messages;

-- Snapshots: a migration writes one, then everybody tries.
CREATE FUNCTION public.store_migrate(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT state $$;
CREATE FUNCTION public.store_apply(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT state || payload $$;
DO $$
BEGIN
  PERFORM mako_register_workflow('v@FV2025-10-01', 'public.store_apply', initial_state => '{}');
  PERFORM mako_register_workflow('v@FV2026-10-01', 'public.store_apply', initial_state => '{}');
  PERFORM mako_register_migration('v@FV2025-10-01', 'v@FV2026-10-01', 'public.store_migrate');
  PERFORM mako_migrate('v@FV2025-10-01', 'v@FV2026-10-01');
END
$$;
SELECT is(pg_temp.rows('SELECT stream_no, sequence_number, run_id, workflow_id, state FROM mako.snapshot WHERE stream_no = 5003'),
          '5003|1|1|v@FV2026-10-01|{"n": 3}', '(a migration snapshot)');

SELECT lives_ok($$ INSERT INTO mako.snapshot (stream_no, sequence_number, workflow_id, state_schema_version, state)
                   VALUES (5003, 1, 'v@FV2026-10-01', 1, '{"n": 0}'), (5001, 2, 'w@FV2024-10-01', 1, '{}') $$, 'periodic snapshots can be inserted');
SELECT lives_ok($$ UPDATE mako.snapshot SET state = '{"n": 3}' WHERE run_id = 0 $$, 'changed');
SELECT lives_ok($$ DELETE FROM mako.snapshot WHERE run_id = 0 AND stream_no = 5001 $$, 'and deleted');
SELECT matches(pg_temp.error(statement), '^0A000\|cannot [a-z ]+ table "mako\.snapshot"\|', regexp_replace(statement, '\s+', ' ', 'g'))
FROM (VALUES ($$INSERT INTO mako.snapshot (stream_no, sequence_number, run_id, workflow_id, state_schema_version, state) VALUES (5001, 2, 1, 'w@FV2024-10-01', 1, '{}')$$),
             ($$INSERT INTO mako.snapshot (stream_no, sequence_number, run_id, workflow_id, state_schema_version, state) VALUES (5001, 2, -1, 'w@FV2024-10-01', 1, '{}')$$),
             ($$UPDATE mako.snapshot SET state = '{"n": 4}' WHERE run_id = 1$$),
             ($$UPDATE mako.snapshot SET run_id = 0, sequence_number = 2 WHERE run_id = 1$$),
             ($$UPDATE mako.snapshot SET run_id = 99 WHERE run_id = 0$$),
             ($$DELETE FROM mako.snapshot$$),
             ($$TRUNCATE mako.snapshot$$),
             ($$INSERT INTO mako.snapshot AS s (stream_no, sequence_number, workflow_id, state_schema_version, state) VALUES (5003, 1, 'v@FV2026-10-01', 1, '{}')
                ON CONFLICT ON CONSTRAINT snapshot_pkey DO UPDATE SET run_id = 98$$)) x (statement);

SELECT is(pg_temp.error(format(statement, t)), format('0A000|cannot %s table "mako.%s"|The audit trail is written by migrations only.', action, t), format(statement, t))
FROM unnest(ARRAY['migration_run', 'migration_error', 'migration_batch', 'repointed', 'reverted']) AS t,
     (VALUES ('INSERT INTO mako.%s SELECT', 'insert into'), ('UPDATE mako.%s SET run_id = 7', 'update'),
             ('DELETE FROM mako.%s', 'delete from'), ('TRUNCATE mako.%s', 'truncate')) s (statement, action)
WHERE t <> 'migration_run' OR action <> 'update';
SELECT throws_ok($$ UPDATE mako.migration_run SET migrated = 7 $$, '0A000', 'cannot update table "mako.migration_run"', 'UPDATE mako.migration_run');
----------------------------------------------------------------------------------------------------
-- Versions that are draining or retired
----------------------------------------------------------------------------------------------------

INSERT INTO mako.stream (stream_id, workflow_id) VALUES
  ('old 1', 'o@FV2023-10-01'), ('older 1', 'o@FV2022-10-01'), ('on', 'o@FV2021-10-01');
SELECT mako_exempt('o@FV2022-10-01', 'only a test');
SELECT mako_retire('FV2022-10-01'), mako_drain('FV2023-10-01'), mako_drain('FV2021-10-01'), mako_reactivate('FV2021-10-01');
SELECT is(pg_temp.error($$ INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('x', 'w@FV2024-10-01'), ('old 2', 'o@FV2023-10-01') $$),
          '55000|format version "FV2023-10-01" is draining|No new process can start under workflow "o@FV2023-10-01".|Start the process under a newer format version.', 'a draining version takes no stream');
SELECT lives_ok($$ SELECT pg_temp.append('old 1', 1) $$, 'but events');
SELECT is(pg_temp.error($$ INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('older 2', 'o@FV2022-10-01') $$),
          '55000|format version "FV2022-10-01" is retired|Nothing can be written under workflow "o@FV2022-10-01" any more.|Use a format version that is not retired.', 'a retired version takes no stream');
SELECT is(pg_temp.error($$ SELECT pg_temp.append('older 1', 1) $$),
          '55000|format version "FV2022-10-01" is retired|Nothing can be written under workflow "o@FV2022-10-01" any more.|Use a format version that is not retired.', 'nor events');
SELECT throws_ok($$ INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
                    VALUES (pg_temp.no('on'), 1, 'o@FV2021-10-01', 'E', '{}'), (pg_temp.no('older 1'), 1, 'o@FV2022-10-01', 'E', '{}') $$,
                 '55000', NULL, 'nor events among others');
SELECT lives_ok($$ SELECT pg_temp.append('on', 1) $$, 'an active one takes both');
ALTER TABLE mako.format_version DISABLE TRIGGER format_version_guard;
SELECT throws_ok($$ INSERT INTO mako.format_version (format_version, status) VALUES ('FV2030-02-30', 'retired') $$, '22P02', NULL, 'versions are checked');
SELECT throws_ok($$ INSERT INTO mako.format_version (format_version, status) VALUES ('FV2030-02-03', 'gone') $$, '23514', NULL, 'statuses too');
ALTER TABLE mako.format_version ENABLE TRIGGER format_version_guard;

----------------------------------------------------------------------------------------------------
-- Routing
----------------------------------------------------------------------------------------------------

SELECT lives_ok($$ INSERT INTO mako.registry (tenant_id, key, stream_no, expires_at)
                   SELECT tenant_id, k, stream_no, e FROM mako.stream, LATERAL
                          (VALUES (process_id::text, NULL::timestamptz), ('9900000000001:conversation', NULL), ('expired', '2000-01-01'), ('later', 'infinity')) x (k, e)
                   WHERE process_id IS NOT NULL $$, 'keys of the own tenant''s stream');
SELECT is(pg_temp.rows('SELECT key, process_id, workflow_id FROM mako.process_identity ORDER BY key COLLATE "C"'),
$$00000000-0000-4000-8000-0000000000aa|00000000-0000-4000-8000-0000000000aa|w@FV2024-10-01
9900000000001:conversation|00000000-0000-4000-8000-0000000000aa|w@FV2024-10-01
later|00000000-0000-4000-8000-0000000000aa|w@FV2024-10-01$$, 'lead there, until they expire');
SELECT throws_ok($$ INSERT INTO mako.registry (tenant_id, key, stream_no)
                    SELECT '00000000-0000-4000-8000-000000000002', 'k', stream_no FROM mako.stream WHERE process_id IS NOT NULL $$,
                 '23503', NULL, 'a key that points to another tenant''s stream is refused');
SELECT throws_ok($$ INSERT INTO mako.registry (tenant_id, key, stream_no) VALUES ('00000000-0000-4000-8000-000000000001', 'k', 5001) $$,
                 '23503', NULL, 'or to a stream without tenant');
SELECT throws_ok($$ INSERT INTO mako.correlation (tenant_id, tag, stream_no)
                    SELECT '00000000-0000-4000-8000-000000000002', 't', stream_no FROM mako.stream WHERE process_id IS NOT NULL $$,
                 '23503', NULL, 'so is such a tag');
SELECT throws_ok($$ INSERT INTO mako.registry (tenant_id, key, stream_no)
                    SELECT tenant_id, repeat('ü', 129), stream_no FROM mako.stream WHERE process_id IS NOT NULL $$,
                 '23514', NULL, 'a key of 258 bytes is too long');
SELECT throws_ok($$ INSERT INTO mako.registry (tenant_id, key, stream_no)
                    SELECT tenant_id, '', stream_no FROM mako.stream WHERE process_id IS NOT NULL $$, '23514', NULL, 'an empty one too short');

----------------------------------------------------------------------------------------------------
-- Last, because it once ended the server: there is no @ to look for in an empty workflow id
----------------------------------------------------------------------------------------------------

SELECT throws_ok($$ INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload) VALUES (5001, 6, '', 'E', '{}') $$,
                 '22P02', 'invalid workflow id: ""', 'an event under an empty workflow id is refused');

SELECT * FROM finish();
