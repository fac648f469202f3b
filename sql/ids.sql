-- Format versions and workflow ids: what is well-formed, and how what is not explains itself.
-- The database must be UTF-8.

-- What an earlier run may have left behind, if it failed
SET client_min_messages = warning;
DROP ROLE IF EXISTS regress_mako_author, regress_mako_operator, regress_mako_owner, regress_mako_writer;
RESET client_min_messages;

-- Before PostgreSQL 15, everybody may create there, and then there is no store
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
CREATE EXTENSION mako_migration;

-- For all tests: executes a command and shows how it failed, as one record.
CREATE SCHEMA test;
GRANT USAGE ON SCHEMA test TO PUBLIC;
CREATE FUNCTION test.failure(command text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  code text;
  primary_message text;
  detail text;
  hint text;
BEGIN
  BEGIN
    EXECUTE command;
  EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS
      code = RETURNED_SQLSTATE, primary_message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RETURN concat(code, ': ', primary_message, E'\n  detail: ' || NULLIF(detail, ''), E'\n  hint: ' || NULLIF(hint, ''));
  END;
  RETURN 'no failure';
END
$$;

\pset format unaligned
\pset tuples_only on
\pset null '(null)'

--
-- Format versions
--

SELECT v::mako_format_version FROM (VALUES ('FV2000-01-01'), ('FV2025-10-01'), ('FV2024-02-29'), ('FV2000-02-29'),
  ('FV9999-12-31')) AS t (v);
SELECT NULL::mako_format_version;

-- Without the prefix
SELECT test.failure('SELECT ''''::mako_format_version');
SELECT test.failure('SELECT ''F''::mako_format_version');
SELECT test.failure('SELECT ''2025-10-01''::mako_format_version');
SELECT test.failure('SELECT ''fv2025-10-01''::mako_format_version');
SELECT test.failure('SELECT '' FV2025-10-01''::mako_format_version');

-- Of another form
SELECT test.failure('SELECT ''FV''::mako_format_version');
SELECT test.failure('SELECT ''FV2025-10-1''::mako_format_version');
SELECT test.failure('SELECT ''FV2025-10-011''::mako_format_version');
SELECT test.failure('SELECT ''FV2025/10/01''::mako_format_version');
SELECT test.failure('SELECT ''FV2025-10-01 ''::mako_format_version');
SELECT test.failure('SELECT ''FV2025-1O-01''::mako_format_version');
SELECT test.failure('SELECT ''FV+025-10-01''::mako_format_version');
SELECT test.failure('SELECT ''FV20251001''::mako_format_version');
-- digits of another script are no digits
SELECT test.failure($$SELECT U&'FV202\0665-10-01'::mako_format_version$$);

-- No date
SELECT test.failure('SELECT ''FV1999-12-31''::mako_format_version');
SELECT test.failure('SELECT ''FV0000-00-00''::mako_format_version');
SELECT test.failure('SELECT ''FV2025-00-01''::mako_format_version');
SELECT test.failure('SELECT ''FV2025-13-01''::mako_format_version');
SELECT test.failure('SELECT ''FV2025-10-00''::mako_format_version');
SELECT test.failure('SELECT ''FV2025-04-31''::mako_format_version');
SELECT test.failure('SELECT ''FV2025-02-29''::mako_format_version');
SELECT test.failure('SELECT ''FV2024-02-30''::mako_format_version');
SELECT test.failure('SELECT ''FV2100-02-29''::mako_format_version');

-- Byte order is time order, whatever the database's collation
SELECT v FROM (VALUES ('FV2025-10-01'::mako_format_version), ('FV2024-10-01'), ('FV2025-06-06')) AS t (v) ORDER BY v;

--
-- Workflow ids
--

SELECT w::mako_workflow_id, mako_workflow_name(w), mako_workflow_version(w)
FROM (VALUES ('gpke-supplier-change@FV2025-10-01'), ('a@FV2000-01-01'), ('GPKE.Lieferantenwechsel/2:b#1@FV2024-02-29'),
             (U&'Z\00E4hlerwechsel\26A1@FV2025-10-01')) AS t (w);
SELECT NULL::mako_workflow_id, mako_workflow_name(NULL), mako_workflow_version(NULL);
SELECT pg_typeof(mako_workflow_name('a@FV2025-10-01')), pg_typeof(mako_workflow_version('a@FV2025-10-01'));

-- Without parts
SELECT test.failure('SELECT ''''::mako_workflow_id');
SELECT test.failure('SELECT ''gpke''::mako_workflow_id');
SELECT test.failure('SELECT ''FV2025-10-01''::mako_workflow_id');
SELECT test.failure('SELECT ''@''::mako_workflow_id');
SELECT test.failure('SELECT ''@FV2025-10-01''::mako_workflow_id');
SELECT test.failure('SELECT ''gpke@''::mako_workflow_id');
SELECT test.failure('SELECT ''a@b@FV2025-10-01''::mako_workflow_id');
SELECT test.failure('SELECT ''a@FV2025-10-01@''::mako_workflow_id');

-- With a malformed version
SELECT test.failure('SELECT ''a@2025-10-01''::mako_workflow_id');
SELECT test.failure('SELECT ''a@fv2025-10-01''::mako_workflow_id');
SELECT test.failure('SELECT ''a@FV2025-10''::mako_workflow_id');
SELECT test.failure('SELECT ''a@FV2025-10-01 ''::mako_workflow_id');
SELECT test.failure('SELECT ''a@FV1999-10-01''::mako_workflow_id');
SELECT test.failure('SELECT ''a@FV2025-02-29''::mako_workflow_id');

-- White space and control characters: ASCII and Unicode
SELECT test.failure('SELECT ''a b@FV2025-10-01''::mako_workflow_id');
SELECT test.failure('SELECT '' a@FV2025-10-01''::mako_workflow_id');
SELECT test.failure('SELECT ''a @FV2025-10-01''::mako_workflow_id');
SELECT to_hex(code), split_part(test.failure(format('SELECT %L::mako_workflow_id', 'a' || chr(code) || '@FV2025-10-01')), E'\n', 2)
FROM unnest(ARRAY[1, 9, 10, 13, 27, 127, 128, 133, 159, 160, 5760, 8192, 8202, 8232, 8233, 8239, 8287, 12288]) AS c (code)
ORDER BY c.code;

-- What only looks like it
SELECT to_hex(code) AS code, mako_assert_workflow_id('a' || chr(code) || '@FV2025-10-01') AS valid
FROM unnest(ARRAY[33, 126, 161, 223, 5761, 8212, 12289, 128512]) AS c (code) ORDER BY c.code;

-- 200 bytes, not characters
SELECT octet_length(mako_workflow_name(repeat('n', 200) || '@FV2025-10-01'));
SELECT octet_length(mako_workflow_name(repeat(U&'\00E4', 100) || '@FV2025-10-01'));
SELECT replace(test.failure(format('SELECT %L::mako_workflow_id', repeat('n', 201) || '@FV2025-10-01')), repeat('n', 201),
  '(201 bytes)');
SELECT replace(test.failure(format('SELECT %L::mako_workflow_id', repeat(U&'\00E4', 100) || 'n@FV2025-10-01')),
  repeat(U&'\00E4', 100) || 'n', '(201 bytes)');

--
-- The domains are what columns and parameters check with; everybody else sees text
--

CREATE TABLE test.id (workflow_id mako_workflow_id, format_version mako_format_version);
INSERT INTO test.id VALUES ('a@FV2025-10-01', 'FV2025-10-01'), (NULL, NULL);
SELECT test.failure('INSERT INTO test.id (workflow_id) VALUES (''a'')');
SELECT test.failure('UPDATE test.id SET format_version = ''FV2025-10-32''');
SELECT workflow_id || '', format_version || '' FROM test.id WHERE workflow_id = 'a@FV2025-10-01';
DROP TABLE test.id;

SELECT mako_assert_format_version(NULL), mako_assert_workflow_id(NULL);

-- The same errors as psql shows them
SELECT mako_workflow_name('nonsense');
SELECT 'FV2025-02-30'::mako_format_version;
