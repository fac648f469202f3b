-- What authors of apply, upcast and migrate use: unit tests without a store, refusals, strict access; and what becomes of their
-- functions in other languages and forms, and when they change after registration. Runs in an empty database.

CREATE EXTENSION pgtap;
CREATE EXTENSION mako_migration;

SELECT plan(120);

\ir include/helpers.sql

-- The context of the error that a statement raises, as far as the extension is concerned.
CREATE FUNCTION pg_temp.context(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  context text;
BEGIN
  EXECUTE statement;
  RETURN NULL;
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS context = PG_EXCEPTION_CONTEXT;
  RETURN (SELECT string_agg(line, E'\n' ORDER BY no) FROM regexp_split_to_table(context, E'\n') WITH ORDINALITY l (line, no)
          WHERE line ~ '^((event \d+, )?phase |definition of )');
END
$$;

----------------------------------------------------------------------------------------------------
-- mako_fold and mako_migrate_state, in the way of a test of the gpke example
----------------------------------------------------------------------------------------------------

\ir ../examples/gpke/supplier_change.sql
\ir ../examples/gpke/register.sql

\set initiated '{"event_type": "SupplierChangeInitiated", "payload": {"type": "Initiated", "data": {"location_id": "51238696781", "new_supplier": "9900000000001", "grid_operator": "9900000000002", "document_date": "20250101", "process_date": "20250201", "message_ref": "UTILMD-1", "pruefidentifikator": 55001}}}'
\set validated '{"event_type": "SupplierChangeValidationPassed", "schema_version": 1, "payload": {"type": "ValidationPassed", "data": {"message_ref": "UTILMD-1"}}}'

SELECT is(to_regnamespace('mako'), NULL, '(there is no store)');
SELECT is(mako_fold('gpke-supplier-change@FV2024-10-01', '[]'), '{"status": "New"}', 'no event: the initial state');
SELECT is(mako_fold('gpke-supplier-change@FV2024-10-01', jsonb_build_array(:'initiated'::jsonb))->>'status', 'Initiated', 'one event');
SELECT is(mako_fold('gpke-supplier-change@FV2024-10-01', jsonb_build_array(:'initiated'::jsonb, :'validated'::jsonb)),
          '{"status": "ValidationPassed", "data": {"location_id": "51238696781", "new_supplier": "9900000000001", "grid_operator": "9900000000002",
            "document_date": "20250101", "process_date": "20250201", "transaktionsgrund": null, "pruefidentifikator": 55001}}', 'two events');
SELECT is(mako_migrate_state('gpke-supplier-change@FV2024-10-01', 'gpke-supplier-change@FV2025-10-01',
                             mako_fold('gpke-supplier-change@FV2024-10-01', jsonb_build_array(:'initiated'::jsonb))),
          mako_fold('gpke-supplier-change@FV2025-10-01', jsonb_build_array(:'initiated'::jsonb)), 'migrating what was folded is folding under the new version');
SELECT is(mako_migrate_state('gpke-supplier-change@FV2024-10-01', 'gpke-supplier-change@FV2026-10-01',
                             mako_fold('gpke-supplier-change@FV2024-10-01', jsonb_build_array(:'initiated'::jsonb))),
          '{"status": "Initiated", "data": {"location_id": "51238696781", "new_supplier": "9900000000001", "grid_operator": "9900000000002", "commodity": "STROM",
            "document_date_utc": "20250101", "process_date": "20250201", "transaktionsgrund": null, "pruefidentifikator": 55001}}', 'through two steps');
SELECT is(pg_temp.error($$ SELECT mako_migrate_state('gpke-supplier-change@FV2024-10-01', 'gpke-supplier-change@FV2025-10-01', '{"status": "Rejected", "data": {"reason": ""}}') $$),
          'MK002|Rejected state with empty reason cannot be migrated', 'a refusal of migrate');
SELECT is(pg_temp.context($$ SELECT mako_migrate_state('gpke-supplier-change@FV2024-10-01', 'gpke-supplier-change@FV2025-10-01', '{"status": "Rejected", "data": {"reason": ""}}') $$),
          'phase migrate', 'says where');
SELECT is(pg_temp.error(format('SELECT mako_fold(''gpke-supplier-change@FV2024-10-01'', %L)', jsonb_build_array(:'initiated'::jsonb, :'validated'::jsonb #- '{payload,data,message_ref}'))),
          'MK004|the payload of event type "SupplierChangeValidationPassed" does not match its type definition|At "/data", against "/mapping/ValidationPassed/properties/data/properties/message_ref" of the type definition.|mako_validate() lists every error.', 'a missing field of the second event');
SELECT is(pg_temp.context(format('SELECT mako_fold(''gpke-supplier-change@FV2024-10-01'', %L)', jsonb_build_array(:'initiated'::jsonb, :'validated'::jsonb #- '{payload,data,message_ref}'))),
          'event 2, phase event', 'says where');
SELECT is(pg_temp.error(format('SELECT mako_fold(''gpke-supplier-change@FV2024-10-01'', %L)', jsonb_build_array(:'initiated'::jsonb || '{"schema_version": 2}'))),
          'MK002|unknown schema version 2', 'the schema version reaches upcast');

-- In the middle of other queries.
SELECT is((SELECT count(*) FROM generate_series(1, 200) AS n WHERE mako_fold('gpke-supplier-change@FV2024-10-01', jsonb_build_array(:'initiated'::jsonb, :'validated'::jsonb))->>'status' = 'ValidationPassed' OR n < 0),
          200::bigint, 'once a row of a query');
SELECT is((SELECT string_agg(mako_fold(w, jsonb_build_array(:'initiated'::jsonb))->'data'->>'sparte', ',') FROM unnest('{gpke-supplier-change@FV2024-10-01,gpke-supplier-change@FV2025-10-01}'::text[]) AS w),
          'STROM', 'different workflows in one query');

SELECT is(mako_fold(NULL, '[]'), NULL, 'null workflow: null');
SELECT is(mako_fold('gpke-supplier-change@FV2024-10-01', NULL), NULL, 'null events: null');
SELECT is(mako_migrate_state('gpke-supplier-change@FV2024-10-01', 'gpke-supplier-change@FV2025-10-01', NULL), NULL, 'null state: null');

SELECT is(pg_temp.error(format('SELECT mako_fold(''gpke-supplier-change@FV2024-10-01'', %L)', events)),
          error || '|An event is {"event_type": ..., "schema_version": ..., "payload": ...}.', 'no events: ' || events)
FROM (VALUES
  ('[1]', '22023|element 1 of the events is not an event|It is not a JSON object.'),
  ('[null]', '22023|element 1 of the events is not an event|It is not a JSON object.'),
  ('[[]]', '22023|element 1 of the events is not an event|It is not a JSON object.'),
  ('["x"]', '22023|element 1 of the events is not an event|It is not a JSON object.'),
  ('[{}]', '22023|element 1 of the events is not an event|It has no event_type that is a string.'),
  ('[{"event_type": 1, "payload": {}}]', '22023|element 1 of the events is not an event|It has no event_type that is a string.'),
  ('[{"event_type": "x"}]', '22023|element 1 of the events is not an event|It has no payload.'),
  ('[{"event_type": "x", "payload": {}, "schema_version": "1"}]', '22023|element 1 of the events is not an event|Its schema_version is not a whole number of 1 or more.')) x (events, error);
SELECT is(pg_temp.error(format('SELECT mako_fold(''gpke-supplier-change@FV2024-10-01'', %L)', events)), '22023|events must be a JSON array', 'no array: ' || events)
FROM unnest(ARRAY['{}', '1', 'null', '"[]"']) AS events;
SELECT matches(pg_temp.error(format('SELECT mako_fold(''gpke-supplier-change@FV2024-10-01'', %L)', jsonb_build_array(:'initiated'::jsonb || '{"schema_version": 1.5}'))),
               '^22023\|element 1 of the events is not an event\|', 'a schema version is an integer, as in the store');
SELECT matches(pg_temp.error(format('SELECT mako_fold(''gpke-supplier-change@FV2024-10-01'', %L)', jsonb_build_array(:'initiated'::jsonb || '{"schema_version": 3e9}'))),
               '^(22003|22023)\|', 'of 32 bits');
SELECT isnt(pg_temp.context(format('SELECT mako_fold(''gpke-supplier-change@FV2024-10-01'', %L)', jsonb_build_array(:'initiated'::jsonb, 2))),
            'event 1, phase apply', 'an element that is no event is not blamed on the one before it');
SELECT is(pg_temp.error($$ SELECT mako_fold('nobody@FV2024-10-01', '[]') $$), '42704|workflow "nobody@FV2024-10-01" is not registered|The table mako_workflow shows what is registered; mako_register_workflow() adds to it.', 'an unknown workflow');
SELECT throws_ok($$ SELECT mako_fold('nobody', '[]') $$, '22P02', NULL, 'a malformed one');
SELECT is(pg_temp.error($$ SELECT mako_migrate_state('gpke-supplier-change@FV2026-10-01', 'gpke-supplier-change@FV2024-10-01', '{}') $$),
          '42704|no state migration leads from "gpke-supplier-change@FV2026-10-01" to "gpke-supplier-change@FV2024-10-01"|No step is registered from it.|Use mako_register_migration().',
          'no way from there');
SELECT mako_register_workflow('bare@FV2024-10-01');
SELECT is(pg_temp.error($$ SELECT mako_fold('bare@FV2024-10-01', '[]') $$), '55000|workflow "bare@FV2024-10-01" has no apply function', 'a workflow without apply');

----------------------------------------------------------------------------------------------------
-- mako_reject and mako_required
----------------------------------------------------------------------------------------------------

SELECT is(pg_temp.error($$ SELECT mako_reject('100 % "no"') $$), 'MK002|100 % "no"', 'mako_reject raises its reason as it is');
SELECT is(pg_temp.error($$ SELECT mako_reject(NULL) $$), '22004|reason must not be null', 'and wants one');
SELECT is(pg_temp.error($$ SELECT mako_reject('') $$), 'MK002|', 'be it empty');
SELECT lives_ok($$ SELECT CASE WHEN n > 0 THEN '{}' ELSE mako_reject('no') END FROM generate_series(1, 3) AS n $$, 'not evaluated while planning');

SELECT is(mako_required('{"a": {"b": [1, {"c": "x"}]}}', 'a', 'b', '1', 'c'), '"x"', 'mako_required follows a path');
SELECT is(mako_required('{"a": 1}', VARIADIC '{a}'), '1', 'or an array');
SELECT is(mako_required('{"a": null}', 'a'), 'null', 'a JSON null is something');
SELECT is(mako_required('{"a": false}', 'a'), 'false', 'so is false');
SELECT is(mako_required('[1, 2]', '-1'), '2', 'counts from the end like #>');
SELECT is(mako_required('5', VARIADIC '{}'), '5', 'no path is the value itself');
SELECT is(pg_temp.error(format('SELECT mako_required(%s)', arguments)), error, format('mako_required(%s)', arguments))
FROM (VALUES
  ($$'{"a": 1}', 'b'$$, 'MK003|required path "/b" is missing'),
  ($$'{"a": {"b": 1}}', 'a', 'c', 'd'$$, 'MK003|required path "/a/c/d" is missing'),
  ($$'{"a": 1}', 'a', 'b'$$, 'MK003|required path "/a/b" is missing'),
  ($$'[1]', '1'$$, 'MK003|required path "/1" is missing'),
  ($$'7', 'a'$$, 'MK003|required path "/a" is missing'),
  ($$NULL, 'a'$$, 'MK003|required path "/a" is missing'),
  ($$'{"a": 1}', NULL::text$$, 'MK003|required path "/null" is missing'),
  ($$'{"a": 1}', VARIADIC NULL$$, '22004|path must not be null')) x (arguments, error);

----------------------------------------------------------------------------------------------------
-- Functions of every kind
----------------------------------------------------------------------------------------------------

CREATE SCHEMA app;

-- Events do what their type says, in each language the same.
CREATE FUNCTION app.apply_sql(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE event_type
    WHEN 'Add' THEN jsonb_build_object('n', (state->'n')::int + (payload->'n')::int)
    WHEN 'Divide' THEN jsonb_build_object('n', (state->'n')::int / (payload->'n')::int)
    WHEN 'Refuse' THEN mako_reject('refused: ' || (payload->>'why'))
    WHEN 'Need' THEN mako_required(payload, 'a', 'b')
  END $$;

CREATE FUNCTION app.apply_from(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE event_type
    WHEN 'Add' THEN jsonb_build_object('n', x.old + x.new)
    WHEN 'Divide' THEN jsonb_build_object('n', x.old / x.new)
    WHEN 'Refuse' THEN mako_reject('refused: ' || (payload->>'why'))
    WHEN 'Need' THEN mako_required(payload, 'a', 'b')
  END
  FROM (SELECT (state->'n')::int AS old, (payload->'n')::int AS new) x $$;

SET check_function_bodies = off;
CREATE FUNCTION app.apply_plpgsql(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
  CASE event_type
    WHEN 'Add' THEN RETURN jsonb_build_object('n', (state->'n')::int + (payload->'n')::int);
    WHEN 'Divide' THEN RETURN jsonb_build_object('n', (state->'n')::int / (payload->'n')::int);
    WHEN 'Refuse' THEN RETURN mako_reject('refused: ' || (payload->>'why'));
    WHEN 'Need' THEN RETURN mako_required(payload, 'a', 'b');
    ELSE RETURN NULL;
  END CASE;
END
$$;
RESET check_function_bodies;

-- Catches and raises again, which needs subtransactions of its own.
CREATE FUNCTION app.apply_exception(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
DECLARE
  tried int := 0;
BEGIN
  BEGIN
    tried := 1 / 0;
  EXCEPTION WHEN division_by_zero THEN tried := 1;
  END;
  RETURN app.apply_sql(state, event_type, payload);
EXCEPTION WHEN SQLSTATE 'MK003' THEN
  RAISE EXCEPTION USING ERRCODE = SQLSTATE, MESSAGE = SQLERRM;
END
$$;

CREATE FUNCTION app.apply_strict(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE STRICT AS $$
  SELECT app.apply_sql(state, event_type, payload) $$;

CREATE FUNCTION app.apply_settings(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE SET search_path = app, public AS $$
  SELECT apply_sql(state, event_type, payload) $$;

SELECT current_setting('server_version_num')::int >= 140000 AS has_atomic \gset
\if :has_atomic
CREATE FUNCTION app.apply_atomic(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE BEGIN ATOMIC
  SELECT app.apply_sql(state, event_type, payload); END;
\else
CREATE FUNCTION app.apply_atomic(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT app.apply_sql(state, event_type, payload) $$;
\endif

CREATE FUNCTION pg_temp.event(event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql AS $$
  SELECT jsonb_build_object('event_type', event_type, 'payload', payload) $$;

SET client_min_messages = warning; -- what cannot be seen through is said in a NOTICE
CREATE TEMPORARY TABLE kind AS SELECT unnest('{sql,from,plpgsql,exception,strict,settings,atomic}'::text[]) AS kind;
SELECT lives_ok(format($$ SELECT mako_register_workflow('%1$s@FV2024-10-01', 'app.apply_%1$s', initial_state => '{"n": 0}') $$, kind), kind || ': is registered') FROM kind;
RESET client_min_messages;

CREATE FUNCTION pg_temp.fold_sql(kind text, VARIADIC events jsonb[]) RETURNS text LANGUAGE sql AS $$
  SELECT format('SELECT mako_fold(%L, %L)', kind || '@FV2024-10-01', to_jsonb(events)) $$;

SELECT is(mako_fold(kind || '@FV2024-10-01', jsonb_agg(pg_temp.event('Add', jsonb_build_object('n', n)))), '{"n": 5050}', kind || ': folds')
FROM kind, generate_series(1, 100) AS n GROUP BY kind ORDER BY kind;
SELECT is((SELECT string_agg(pg_temp.error(pg_temp.fold_sql(kind, pg_temp.event('Add', '{"n": 1}'), e)) || ' @ ' ||
                             pg_temp.context(pg_temp.fold_sql(kind, pg_temp.event('Add', '{"n": 1}'), e)), E'\n' ORDER BY no)
           FROM (VALUES (1, pg_temp.event('Divide', '{"n": 0}')), (2, pg_temp.event('Refuse', '{"why": "so"}')),
                        (3, pg_temp.event('Need', '{"a": {}}')), (4, pg_temp.event('Other', '{}'))) x (no, e)),
          format($$22012|division by zero @ event 2, phase apply
MK002|refused: so @ event 2, phase apply
MK003|required path "/a/b" is missing @ event 2, phase apply
MK001|function app.apply_%s(pg_catalog.jsonb,pg_catalog.text,pg_catalog.jsonb) returned null|A CASE without ELSE is null for an event type that it does not handle. @ event 2, phase apply$$, kind),
          kind || ': errors and where they are')
FROM kind ORDER BY kind;

-- A domain over jsonb is checked wherever a state or a payload is.
CREATE DOMAIN app.payload AS jsonb CONSTRAINT payload_object CHECK (jsonb_typeof(VALUE) = 'object');
CREATE DOMAIN app.state AS jsonb CONSTRAINT state_n CHECK (VALUE ? 'n');
CREATE DOMAIN app.small AS app.state CONSTRAINT small_n CHECK ((VALUE->>'n')::numeric < 100);
CREATE FUNCTION app.apply_domain(state app.small, event_type text, payload app.payload) RETURNS app.small LANGUAGE sql STABLE AS $$
  SELECT CASE event_type WHEN 'Add' THEN jsonb_build_object('n', (state->'n')::int + (payload->'n')::int) WHEN 'Forget' THEN '{}'::jsonb END::app.small $$;
CREATE FUNCTION app.migrate_any(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT state - 'drop' || coalesce(state->'put', '{}') $$;
SELECT mako_register_workflow('domain@FV2024-10-01', initial_state => '{"n": 0}', apply => 'app.apply_domain');
SELECT mako_register_workflow('domain@FV2023-10-01', initial_state => '{"n": 0}', apply => 'app.apply_sql');
SELECT mako_register_workflow('domain@FV2025-10-01', initial_state => '{"n": 0}', apply => 'app.apply_domain');
SELECT mako_register_migration('domain@FV2023-10-01', 'domain@FV2024-10-01', 'app.migrate_any');
SELECT mako_register_migration('domain@FV2024-10-01', 'domain@FV2025-10-01');
SELECT is(mako_fold('domain@FV2024-10-01', jsonb_build_array(pg_temp.event('Add', '{"n": 99}'))), '{"n": 99}', 'a state and a payload of the domains');
SELECT is(pg_temp.error(pg_temp.fold_sql('domain', pg_temp.event('Add', '{"n": 100}'))), '23514|value for domain app.small violates check constraint "small_n"', 'a state that is not');
SELECT is(pg_temp.error(pg_temp.fold_sql('domain', pg_temp.event('Forget', '{}'))), '23514|value for domain app.small violates check constraint "state_n"', 'of the domain below');
SELECT is(pg_temp.error(pg_temp.fold_sql('domain', pg_temp.event('Add', '7'))), '23514|value for domain app.payload violates check constraint "payload_object"', 'a payload that is not');
SELECT is(pg_temp.context(pg_temp.fold_sql('domain', pg_temp.event('Add', '7'))), 'event 1, phase apply', 'and where');
SELECT is(mako_migrate_state('domain@FV2023-10-01', 'domain@FV2024-10-01', '{"n": 5}'), '{"n": 5}', 'a migrated state of the target''s domain');
SELECT is(pg_temp.error($$ SELECT mako_migrate_state('domain@FV2023-10-01', 'domain@FV2024-10-01', '{"put": {"n": 100}}') $$),
          '23514|value for domain app.small violates check constraint "small_n"', 'one that is not');
SELECT is(pg_temp.context($$ SELECT mako_migrate_state('domain@FV2023-10-01', 'domain@FV2024-10-01', '{"put": {"n": 100}}') $$), 'phase state', 'and where');
SELECT is(pg_temp.error($$ SELECT mako_migrate_state('domain@FV2024-10-01', 'domain@FV2025-10-01', '{"n": 100}') $$),
          '23514|value for domain app.small violates check constraint "small_n"', 'identity checks as well');

-- Recursion without end ends its own stream.
CREATE FUNCTION app.forever(state jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN app.forever(state || '{"x": 1}'); END $$;
CREATE FUNCTION app.apply_forever(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE event_type WHEN 'Forever' THEN app.forever(state) ELSE app.apply_sql(state, event_type, payload) END $$;
CREATE FUNCTION app.sql_forever(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS 'SELECT state';
CREATE OR REPLACE FUNCTION app.sql_forever(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS 'SELECT app.sql_forever(state || ''{"x": 1}'')';
SET client_min_messages = warning;
SELECT mako_register_workflow('forever@FV2024-10-01', 'app.apply_forever', initial_state => '{"n": 0}');
SELECT mako_register_workflow('forever@FV2025-10-01', 'app.apply_sql', initial_state => '{"n": 0}');
SELECT mako_register_workflow('forever@FV2026-10-01', 'app.apply_sql', initial_state => '{"n": 0}');
SELECT mako_register_migration('forever@FV2024-10-01', 'forever@FV2025-10-01', 'app.migrate_any');
SELECT mako_register_migration('forever@FV2025-10-01', 'forever@FV2026-10-01', 'app.sql_forever');
RESET client_min_messages;
SELECT matches(pg_temp.error(pg_temp.fold_sql('forever', pg_temp.event('Forever', '{}'))), '^54001\|stack depth limit exceeded', 'recursion without end');
SELECT matches(pg_temp.error($$ SELECT mako_migrate_state('forever@FV2025-10-01', 'forever@FV2026-10-01', '{}') $$), '^54001\|stack depth limit exceeded', 'in SQL, too');

SELECT mako_create_store();
WITH s AS (INSERT INTO mako.stream (stream_id, workflow_id) SELECT 'f' || n, 'forever@FV2024-10-01' FROM generate_series(1, 5) AS n RETURNING stream_no, stream_id)
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
SELECT stream_no, n, 'forever@FV2024-10-01', CASE WHEN stream_id = 'f3' AND n = 2 THEN 'Forever' ELSE 'Add' END, '{"n": 1}' FROM s, generate_series(1, 3) AS n;
CREATE TEMPORARY TABLE forever AS SELECT * FROM mako_migrate('forever@FV2024-10-01', 'forever@FV2025-10-01');
SELECT results_eq('SELECT f.migrated, f.failed, e.stream_id, e.phase, e.sequence_number, e.sqlstate FROM forever f, unnest(errors) e',
                  $$ VALUES (4::bigint, 1::bigint, 'f3'::text, 'apply'::text, 2::bigint, '54001'::text) $$, 'is the error of that stream only');
SELECT results_eq('SELECT DISTINCT state FROM mako.snapshot', $$ VALUES ('{"n": 3}'::jsonb) $$, 'the others are what they should be');

----------------------------------------------------------------------------------------------------
-- What is refused at registration
----------------------------------------------------------------------------------------------------

CREATE FUNCTION app.clock(state jsonb) RETURNS jsonb LANGUAGE sql VOLATILE AS $$ SELECT state $$;
CREATE FUNCTION app.two(state jsonb, x int) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT state $$;
CREATE FUNCTION app.set(state jsonb) RETURNS SETOF jsonb LANGUAGE sql STABLE AS $$ SELECT state $$;
CREATE FUNCTION app.json(state json) RETURNS json LANGUAGE sql STABLE AS $$ SELECT state $$;
CREATE FUNCTION app.twice(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT state $$;
CREATE FUNCTION app.twice(state app.state) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT state $$;
CREATE PROCEDURE app.procedure(state jsonb) LANGUAGE sql AS $$ SELECT state $$;
SELECT matches(pg_temp.error(format($$ SELECT mako_register_migration('sql@FV2024-10-01', 'sql@FV2025-10-01', %L) $$, function)), error, 'registering ' || function)
FROM (VALUES
  ('app.clock', '^42P17\|function app\.clock\(pg_catalog\.jsonb\) is volatile\|.*\|Declare it STABLE\.$'),
  ('app.two', '^42804\|function app\.two\(.*\) cannot be used as migrate\|Expected is a function \(state jsonb\) RETURNS jsonb; domains over these types are allowed\.$'),
  ('app.set', '^42804\|'), ('app.json', '^42804\|'), ('app.procedure', '^42(804|883|P17)\|'),
  ('app.twice', '^42725\|function name "app\.twice" is not unique\|2 functions of this name can be used as migrate\.\|Add the argument types: schema\.name\(types\)\.$'),
  ('app.nobody', '^42883\|function "app\.nobody" does not exist\|Functions are named as schema\.name or schema\.name\(types\)\.$'),
  ('app.nobody(jsonb)', '^42883\|')) x (function, error);
SELECT lives_ok($$ SELECT mako_register_workflow('sql@FV2025-10-01', 'app.apply_sql', initial_state => '{"n": 0}') $$, '(the other workflow)');
SELECT lives_ok($$ SELECT mako_register_migration('sql@FV2024-10-01', 'sql@FV2025-10-01', 'app.twice(jsonb)') $$, 'argument types decide');
SELECT is(mako_migrate_state('sql@FV2024-10-01', 'sql@FV2025-10-01', '{"a": 1}'), '{"a": 1}', 'and it is that one which runs');

----------------------------------------------------------------------------------------------------
-- What changes after registration is an error at use that says what to do
----------------------------------------------------------------------------------------------------

CREATE FUNCTION app.helper(n int) RETURNS int LANGUAGE sql STABLE AS $$ SELECT n + 1 $$;
CREATE FUNCTION app.below(n int) RETURNS int LANGUAGE sql STABLE AS $$ SELECT app.helper(n) $$;
CREATE FUNCTION app.apply_helped(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT jsonb_build_object('n', app.below((state->'n')::int)) $$;
CREATE FUNCTION app.apply_cast(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT (state || payload)::app.state $$;
CREATE FUNCTION app.is_odd(j jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$ SELECT (j->'n')::int % 2 = 1 OR true $$;
CREATE DOMAIN app.odd AS jsonb CHECK (app.is_odd(VALUE));
CREATE FUNCTION app.apply_odd(state app.odd, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT state $$;
SELECT mako_register_workflow('helped@FV2024-10-01', 'app.apply_helped', initial_state => '{"n": 0}');
SELECT mako_register_workflow('cast@FV2024-10-01', 'app.apply_cast', initial_state => '{"n": 0}');
SELECT mako_register_workflow('odd@FV2024-10-01', 'app.apply_odd', initial_state => '{"n": 0}');
SELECT mako_register_workflow('helped@FV2025-10-01', 'app.apply_sql', initial_state => '{"n": 0}');
CREATE FUNCTION app.migrate_helped(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT state || '{"v": 2}' $$;
SELECT mako_register_migration('helped@FV2024-10-01', 'helped@FV2025-10-01', 'app.migrate_helped');
SELECT is(mako_fold('helped@FV2024-10-01', jsonb_build_array(pg_temp.event('Any', '{}'))), '{"n": 1}', '(a function with helpers)');

-- Tells what a change makes of a use, and what registering again makes of it.
CREATE FUNCTION pg_temp.after(change text, use text, repair text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  first text;
  then_ text;
BEGIN
  BEGIN
    PERFORM set_config('client_min_messages', 'error', true);
    EXECUTE change;
    first := pg_temp.error(use);
    EXECUTE repair;
    then_ := pg_temp.error(use);
    RAISE EXCEPTION USING ERRCODE = 'MKUND';
  EXCEPTION WHEN SQLSTATE 'MKUND' THEN NULL;
  END;
  RETURN concat_ws(E'\n', first, 'repaired: ' || coalesce(then_, 'yes'));
END
$$;
\set fold 'SELECT mako_fold(''helped@FV2024-10-01'', ''[{"event_type": "Any", "payload": {}}]'')'
\set again 'SELECT mako_register_workflow(''helped@FV2024-10-01'', ''app.apply_helped'', initial_state => ''{"n": 0}'', replace => true)'
\set changed '55000|the definition of workflow "helped@FV2024-10-01" has changed since it was registered|A function, or something that its results depend on, is not what was registered.|Review the change, then register it again with replace => true.'

SELECT is(pg_temp.after(change, :'fold', :'again'), :'changed' || E'\nrepaired: yes', what)
FROM (VALUES
  ('replaced', $$ CREATE OR REPLACE FUNCTION app.apply_helped(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS 'SELECT state' $$),
  ('made strict', 'ALTER FUNCTION app.apply_helped STRICT'),
  ('given settings', 'ALTER FUNCTION app.apply_helped SET datestyle = iso'),
  ('a helper replaced', $$ CREATE OR REPLACE FUNCTION app.below(n int) RETURNS int LANGUAGE sql STABLE AS 'SELECT n' $$),
  ('a helper''s helper replaced', $$ CREATE OR REPLACE FUNCTION app.helper(n int) RETURNS int LANGUAGE sql STABLE AS 'SELECT n' $$),
  ('a helper made volatile', 'ALTER FUNCTION app.helper VOLATILE')) x (what, change);
SELECT is(pg_temp.after('ALTER FUNCTION app.apply_helped VOLATILE', :'fold', 'ALTER FUNCTION app.apply_helped STABLE'),
          E'42P17|function app.apply_helped(pg_catalog.jsonb,pg_catalog.text,pg_catalog.jsonb) is volatile|The result of apply must depend on its arguments only.|Declare it STABLE.\nrepaired: yes',
          'made volatile');
SELECT is(pg_temp.after('DROP FUNCTION app.apply_helped', :'fold',
                        $$ SELECT mako_register_workflow('helped@FV2024-10-01', 'app.apply_sql', initial_state => '{"n": 0}', replace => true);
                           CREATE FUNCTION app.apply_helped(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE AS 'SELECT state';
                           SELECT mako_register_workflow('helped@FV2024-10-01', 'app.apply_helped', initial_state => '{"n": 0}', replace => true) $$),
          E'42883|function app.apply_helped(pg_catalog.jsonb,pg_catalog.text,pg_catalog.jsonb) does not exist|It is registered as apply of helped@FV2024-10-01.|Restore it, or register another one with replace => true.\nrepaired: yes',
          'dropped');
SELECT matches(pg_temp.after('DROP FUNCTION app.helper', :'fold', 'CREATE FUNCTION app.helper(n int) RETURNS int LANGUAGE sql STABLE AS $x$ SELECT n + 1 $x$'),
               E'^42883\\|function app.helper\\(integer\\) does not exist.*\nrepaired: yes$', 'a helper dropped');
BEGIN;
DROP FUNCTION app.helper;
SELECT matches(pg_temp.context(:'fold'), 'definition of "helped@FV2024-10-01"', 'and the error''s context names what is registered');
ROLLBACK;
SELECT is(pg_temp.after('CREATE ROLE mako_test_author; GRANT USAGE ON SCHEMA app TO mako_test_author; ALTER FUNCTION app.apply_helped OWNER TO mako_test_author', :'fold', :'again'),
          format(E'42501|function app.apply_helped(pg_catalog.jsonb,pg_catalog.text,pg_catalog.jsonb) has another owner than when it was registered|It would run with the rights of "mako_test_author"; registered was "%s".|Register it again with replace => true.\nrepaired: yes', current_user),
          'given to another owner');
SELECT is(pg_temp.after($$ CREATE OR REPLACE FUNCTION app.migrate_helped(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS 'SELECT state' $$,
                        $$ SELECT mako_migrate_state('helped@FV2024-10-01', 'helped@FV2025-10-01', '{}') $$,
                        $$ SELECT mako_register_migration('helped@FV2024-10-01', 'helped@FV2025-10-01', 'app.migrate_helped', replace => true) $$),
          replace(:'changed', 'workflow "helped@FV2024-10-01"', 'state migration "helped@FV2024-10-01 -> helped@FV2025-10-01"') || E'\nrepaired: yes', 'migrate replaced');
SELECT matches(pg_temp.after($$ CREATE OR REPLACE FUNCTION app.migrate_helped(state jsonb) RETURNS jsonb LANGUAGE sql STABLE AS 'SELECT state' $$,
                             $$ SELECT * FROM mako_migrate('helped@FV2024-10-01', 'helped@FV2025-10-01') $$,
                             $$ SELECT mako_register_migration('helped@FV2024-10-01', 'helped@FV2025-10-01', 'app.migrate_helped', replace => true) $$),
               E'^55000\\|the definition of state migration .* has changed since it was registered\\|.*\nrepaired: ', 'a run uses no changed definition either');

-- Domains belong to the definition: of arguments, of what lies below them, in a body, and the functions in their checks.
SELECT matches(pg_temp.after(change, format('SELECT mako_fold(%L, ''[]'')', workflow), 'SELECT 1'), '^55000\|the definition of workflow', what)
FROM (VALUES
  ('an argument''s domain changed', 'domain@FV2024-10-01', 'ALTER DOMAIN app.small DROP CONSTRAINT small_n'),
  ('the domain below it changed', 'domain@FV2024-10-01', 'ALTER DOMAIN app.state ADD CONSTRAINT more CHECK (VALUE ? ''more'') NOT VALID'),
  ('a domain in a body changed', 'cast@FV2024-10-01', 'ALTER DOMAIN app.state ADD CONSTRAINT more CHECK (VALUE ? ''more'') NOT VALID'),
  ('a function in a domain''s check replaced', 'odd@FV2024-10-01', 'CREATE OR REPLACE FUNCTION app.is_odd(j jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE AS $x$ SELECT false $x$')) x (what, workflow, change);

-- A definition that is there already.
SELECT lives_ok(replace(:'again', ', replace => true', ''), 'the same registration twice is a no-op');
SELECT is(pg_temp.error($$ SELECT mako_register_workflow('helped@FV2024-10-01', 'app.apply_sql', initial_state => '{"n": 0}') $$),
          '42710|workflow "helped@FV2024-10-01" is already registered with another definition|Register it with replace => true to replace it.', 'another one needs replace => true');

-- Parallel workers may test, too: the functions are PARALLEL SAFE.
SELECT set_config(CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'debug_parallel_query' ELSE 'force_parallel_mode' END, 'on', false) AS parallel_mode \gset
SELECT is(x.state, '{"n": 3}', 'mako_fold in a parallel worker')
FROM (SELECT mako_fold('sql@FV2024-10-01', '[{"event_type": "Add", "payload": {"n": 3}}]') AS state OFFSET 0) x;
SELECT is(x.state, '{"a": 1}', 'mako_migrate_state in a parallel worker')
FROM (SELECT mako_migrate_state('sql@FV2024-10-01', 'sql@FV2025-10-01', '{"a": 1}') AS state OFFSET 0) x;

SELECT * FROM finish();
