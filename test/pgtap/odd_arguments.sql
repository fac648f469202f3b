-- Odd arguments: every function and procedure of the extension is called with null, with nothing,
-- with too much and with nonsense in each of its arguments. It answers, or says what is wrong with
-- an SQLSTATE of its own. Runs in an empty database.

CREATE EXTENSION pgtap;
\set streams 6
\ir include/two_workflows.sql
\ir include/helpers.sql
SET client_min_messages = error;
CREATE TABLE lib.taken (stream_id text);
SELECT mako_add_sink('INSERT INTO lib.taken SELECT stream_id FROM moved');
SELECT migrated FROM mako_migrate('native@FV2024-10-01', 'native@FV2025-10-01');

-- An argument that makes sense, by its name or else its type.
CREATE TEMPORARY TABLE usual (name text, type text, value text);
INSERT INTO usual (name, type, value) VALUES
  (NULL, 'mako_workflow_id', $$'plain@FV2024-10-01'$$),
  ('target_wf', 'mako_workflow_id', $$'plain@FV2025-10-01'$$),
  (NULL, 'mako_format_version', $$'FV2024-10-01'$$),
  ('target_fv', 'mako_format_version', $$'FV2025-10-01'$$),
  (NULL, 'mako_format_version[]', $$'{FV2024-10-01}'$$),
  (NULL, 'mako_migration_report', $$ROW(1, 'plain@FV2024-10-01', 'plain@FV2025-10-01', 1, 1, 1,
                                        '{}', now(), '1 s')$$),
  (NULL, 'mako_new_event[]', $$ARRAY[ROW('Noted', '{"note": 1}', 1, NULL, NULL, NULL, NULL)]$$),
  (NULL, 'text', $$'usual'$$),
  ('workflow_id', 'text', $$'plain@FV2024-10-01'$$),
  ('value', 'text', $$'plain@FV2024-10-01'$$),
  ('apply', 'text', $$'lib.apply_plain'$$),
  ('upcast', 'text', 'NULL'),
  ('in_flight', 'text', 'NULL'),
  ('migrate', 'text', $$'lib.forth'$$),
  ('expect', 'text', 'NULL'),
  ('policy', 'text', $$'explicit'$$),
  ('relation', 'text', $$'lib.deadline'$$),
  ('statement', 'text', $$'INSERT INTO lib.taken SELECT stream_id FROM moved'$$),
  ('undo', 'text', $$'DELETE FROM lib.taken t USING moved m WHERE t.stream_id = m.stream_id'$$),
  ('lock', 'text', $$'LOCK TABLE lib.taken IN SHARE ROW EXCLUSIVE MODE'$$),
  (NULL, 'regclass', $$'lib.deadline'$$),
  (NULL, 'mako_migration_report[]', $$'{}'$$),
  ('stream_id', 'text', $$'process/aaaaaaaa-0000-4000-8000-000000000001/' ||
                          'bbbbbbbb-0000-4000-8000-000000000003'$$),
  ('key', 'text', $$'bbbbbbbb-0000-4000-8000-000000000003'$$),
  (NULL, 'text[]', $$'{native,plain}'$$),
  ('path', 'text[]', $$'{by}'$$),
  (NULL, 'name', $$'stream_no'$$),
  ('workflow_column', 'name', $$'workflow_id'$$),
  ('tenant_column', 'name', 'NULL'),
  (NULL, 'jsonb', $$'{"by": 1, "count": 1}'$$),
  ('events', 'jsonb', $$'[{"event_type": "Noted", "payload": {"note": 1}}]'$$),
  ('type_definition', 'jsonb', $$'{"optionalProperties": {"by": {"type": "int8"}}}'$$),
  ('event_type_definition', 'jsonb', 'NULL'),
  ('state_type_definition', 'jsonb', 'NULL'),
  (NULL, 'uuid', $$'aaaaaaaa-0000-4000-8000-000000000001'$$),
  ('process_id', 'uuid', 'gen_random_uuid()'),
  ('event_id', 'uuid', 'gen_random_uuid()'),
  (NULL, 'integer', '1'),
  (NULL, 'bigint', '1'),
  ('expected_version', 'bigint', 'NULL'),
  ('sequence_number', 'bigint', '4'),
  ('max_errors', 'bigint', 'NULL'),
  (NULL, 'boolean', 'true'),
  (NULL, 'timestamp with time zone', $$now() + interval '1 day'$$),
  (NULL, 'interval', $$'1 ms'$$),
  (NULL, 'oid', $$'lib.deadline'::regclass$$),
  (NULL, 'regprocedure', $$'lib.forth(jsonb)'$$);

-- Arguments that make none, by type.
CREATE TEMPORARY TABLE odd (type text, value text);
INSERT INTO odd
SELECT type, value
FROM (VALUES
  ('mako_workflow_id', ARRAY[$$'none@FV2024-10-01'$$, $$'plain@FV9999-12-31'$$,
     $$'x@FV2024-02-30'$$, $$''$$, $$'@'$$, $$repeat('x', 200) || '@FV2024-10-01'$$,
     $$repeat('x', 201) || '@FV2024-10-01'$$, $$repeat('x', 1000000)$$]),
  ('mako_format_version', ARRAY[$$'FV9999-12-31'$$, $$'FV2024-02-30'$$, $$''$$,
     $$repeat('F', 1000000)$$]),
  ('mako_format_version[]', ARRAY[$$'{}'$$, $$'{NULL}'$$, $$'{FV9999-12-31}'$$,
     $$'[5:6]={FV2024-10-01,FV2024-10-01}'$$, $$'{{FV2024-10-01},{FV2025-10-01}}'$$]),
  ('mako_migration_report', ARRAY[
     'ROW(NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)',
     'ROW(1, NULL, NULL, 9223372036854775807, 1, 1, NULL, NULL, NULL)',
     $$ROW(-1, 'plain@FV2024-10-01', 'plain@FV2025-10-01', -1, -1, -1,
           ARRAY[NULL]::mako_migration_error[], '-infinity', '-178000000 years')$$]),
  ('mako_migration_report[]', ARRAY[$$'{NULL}'$$]),
  ('mako_new_event[]', ARRAY[$$'{}'$$, $$'{NULL}'$$,
     $$ARRAY[[ROW('Noted', '{}', 1, NULL, NULL, NULL, NULL)],
             [ROW(NULL, NULL, NULL, NULL, NULL, NULL, NULL)]]$$,
     $$ARRAY[ROW('', 'null', -2147483648, NULL, NULL, NULL, NULL)]$$,
     $$(SELECT array_agg(ROW('Noted', '{"note": 1}', 1, NULL, NULL, NULL, NULL)::mako_new_event)
        FROM generate_series(1, 5000))$$]),
  ('text', ARRAY[$$''$$, $$' '$$, $$'%s%n'$$, $$E'\x01'$$, $$'"; --'$$, $$repeat('x', 1000000)$$,
     $$'pg_catalog.now()'$$, $$'nothing.at_all'$$, $$'pg_catalog.pg_class'$$]),
  ('text[]', ARRAY[$$'{}'$$, $$'{NULL}'$$, $$'{{a,b},{c,d}}'$$, $$'[5:6]={a,b}'$$,
     $$array_fill('a'::text, ARRAY[10000])$$]),
  ('name', ARRAY[$$''$$, $$'ctid'$$, $$'"; --'$$, $$'nothing'$$]),
  ('jsonb', ARRAY[$$'null'$$, $$'1'$$, $$'""'$$, $$'[]'$$, $$'{}'$$, $$'[[]]'$$, $$'[null]'$$,
     $$'{"": {"": ""}}'$$, $$'1e10000'$$, $$'[{"event_type": "", "payload": null}]'$$,
     $$'[{"event_type": "Noted", "payload": {}, "schema_version": 99999999999999999999}]'$$,
     $$(repeat('[', 3000) || repeat(']', 3000))::jsonb$$,
     $$(repeat('{"elements":', 3000) || '{}' || repeat('}', 3000))::jsonb$$]),
  ('uuid', ARRAY[$$'00000000-0000-0000-0000-000000000000'$$]),
  ('integer', ARRAY['0', '-1', '2147483647', '-2147483648']),
  ('bigint', ARRAY['0', '-1', '9223372036854775807', '-9223372036854775808']),
  ('boolean', ARRAY['false']),
  ('timestamp with time zone', ARRAY[$$'-infinity'$$, $$'infinity'$$, $$'4713-01-01 BC'$$]),
  ('interval', ARRAY[$$'0'$$, $$'-1 s'$$, $$'178000000 years'$$, $$'-178000000 years'$$]),
  ('oid', ARRAY['0', '4294967295']),
  ('regclass', ARRAY['0', '4294967295', $$'pg_catalog.pg_class'$$, $$'mako.process_identity'$$]),
  ('regprocedure', ARRAY['0', '4294967295', $$'pg_catalog.count()'$$])) AS v (type, list),
  unnest(array_append(list, 'NULL')) AS value;

-- The arguments of every function, with their usual values.
CREATE TEMPORARY TABLE argument AS
SELECT p.oid AS function, a.n, a.type, a.is_variadic,
       (SELECT value FROM usual u
        WHERE u.type = a.type AND (u.name IS NULL OR u.name = a.name)
        ORDER BY u.name LIMIT 1) AS value
FROM pg_proc p
JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'mako_migration'
CROSS JOIN LATERAL (
  SELECT row_number() OVER (ORDER BY k) AS n, format_type(type, NULL) AS type, name,
         mode IS NOT DISTINCT FROM 'v' AS is_variadic
  FROM unnest(coalesce(p.proallargtypes, p.proargtypes::oid[]), p.proargnames, p.proargmodes)
         WITH ORDINALITY AS l (type, name, mode, k)
  WHERE mode IS NULL OR mode IN ('i', 'b', 'v')) AS a;

-- Calls: with usual arguments (0), with one of them odd (its number), with all of them null (-1).
CREATE TEMPORARY TABLE call AS
SELECT function::regproc::text, odd, statement, pg_temp.error(statement) AS error
FROM (SELECT c.*, format('%s %s(%s)', CASE prokind WHEN 'p' THEN 'CALL' ELSE 'SELECT' END,
                         function::regproc, arguments) AS statement
      FROM (SELECT a.function, o.n AS odd,
                   string_agg(format('%sCAST(%s AS %s)', CASE WHEN is_variadic THEN 'VARIADIC ' END,
                                     CASE o.n WHEN -1 THEN 'NULL' WHEN a.n THEN o.value
                                       ELSE a.value END, a.type), ', ' ORDER BY a.n) AS arguments
            FROM argument a
            JOIN (SELECT function, n, odd.value FROM argument JOIN odd USING (type)
                  UNION ALL
                  SELECT DISTINCT function, v, NULL FROM argument, generate_series(-1, 0) AS v) AS o
              ON o.function = a.function
            GROUP BY a.function, o.n, o.value) AS c
      JOIN pg_proc p ON p.oid = c.function) AS s;

SELECT plan(8);
SELECT is_empty('SELECT DISTINCT type FROM argument WHERE value IS NULL',
                'every argument has a usual value');
SELECT is_empty('SELECT DISTINCT type FROM argument EXCEPT SELECT type FROM odd',
                '... and odd ones');
SELECT cmp_ok((SELECT count(*) FROM call), '>', 1000::bigint, 'there are many calls');
-- Procedures commit, which is what is wrong with calling them here; see batched.sql.
SELECT is_empty($$SELECT statement, error FROM call WHERE odd = 0 AND error IS NOT NULL
                  AND error !~ '^(2D000|MK002)' AND function NOT IN
                  -- nothing to undo, in flight, of another kind, there already, in use, not called directly
                  ('mako_unexempt', 'mako_reactivate', 'mako_retire', 'mako_assert_format_version',
                   'mako_assert_ok', 'mako_register_migrations', 'mako_unregister_workflow',
                   'mako_history_rows')
                  AND function !~ '^mako_(at|de)tach|^mako_replace_event$|^mako_create_rows$'$$,
                'usual calls succeed');
SELECT is_empty($$SELECT statement, error FROM call WHERE error ~ '^(XX|58|53)'$$,
                'no odd call is an internal error');
SELECT is_empty($$SELECT statement, error FROM call WHERE odd = -1 AND error IS NOT NULL
                  AND error !~ '^(22004|2D000)' AND function <> 'mako_history_rows'
                  AND function !~ '^mako_attach_rows$|^mako_attached_table$|^mako_detach_rows$|^mako_replace_event$'$$,
                'null is refused by its own SQLSTATE, or answered');
SELECT is_empty($$SELECT severity, code, subject, message FROM mako_check(0)
                  WHERE severity = 'error'$$, 'the store is in order');
SELECT is_empty($$SELECT * FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()$$,
                'no lock is left');

SELECT * FROM finish();
