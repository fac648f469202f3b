-- Names, ids, types and reasons that would do harm as a piece of SQL, a format or a pattern: they
-- are what they are everywhere, and nothing in them is executed. Runs in an empty database.

CREATE EXTENSION pgtap;
CREATE EXTENSION mako_migration;

\ir include/helpers.sql
SET client_min_messages = error;

SELECT mako_create_store();
-- What the names try to drop.
CREATE TABLE public.victim (i int);

\set attack '; DROP TABLE public.victim; --'
SELECT 'we"ird' || :'attack' AS schema, 'ta"b''le' || :'attack' AS relation,
       'pro"cess' || :'attack' AS process_column, 'work''flow" = '''' OR true' AS workflow_column,
       'te""nant' AS tenant_column, 'ap"ply''' || :'attack' AS function,
       $$x';DROP/**/TABLE/**/public.victim;--"%s%n%1$s\@FV2024-10-01$$ AS source,
       $$x';DROP/**/TABLE/**/public.victim;--"%s%n%1$s\@FV2025-10-01$$ AS target,
       $$s'; DROP TABLE public.victim; --%s%n%d\_%$$ AS stream,
       $$e'; DROP TABLE public.victim; --%s%n$$ AS event_type,
       $$r'; DROP TABLE public.victim; --%s%n$$ AS reason \gset

CREATE SCHEMA :"schema";
CREATE TABLE :"schema".:"relation"
  (:"process_column" text PRIMARY KEY, :"workflow_column" text, :"tenant_column" uuid);
CREATE FUNCTION :"schema".:"function"(state jsonb, event_type text, payload jsonb) RETURNS jsonb
LANGUAGE sql STABLE AS $$ SELECT state || payload $$;
SELECT quote_ident(:'schema') || '.' || quote_ident(:'relation') AS qualified_relation,
       quote_ident(:'schema') || '.' || quote_ident(:'function') AS qualified_function \gset

SELECT plan(27);

-- Definitions
SELECT lives_ok(format('SELECT mako_add_dependent(%L, %L, %L, %L)', :'qualified_relation',
                       :'process_column', :'workflow_column', :'tenant_column'),
                'a dependent is added');
SELECT is((SELECT to_regclass(relation)::text FROM mako.dependent), :'qualified_relation',
          'by its name');
SELECT lives_ok(format('SELECT mako_register_workflow(%L, %L, initial_state => ''{}''),
                               mako_register_workflow(%L, %L, initial_state => ''{}'')',
                       :'source', :'qualified_function', :'target', :'qualified_function'),
                'workflows are registered');
SELECT lives_ok(format('SELECT mako_register_migration(%L, %L)', :'source', :'target'),
                'and a step between them');
SELECT matches(pg_temp.error(format('SELECT mako_register_migration(%L, %L)',
                                    :'source', 'none' || :'target')), '^22023\|',
               'a step to another workflow is reported');
SELECT lives_ok(format('SELECT mako_exempt(%L, %L), mako_unexempt(%L)', :'source', :'reason',
                       :'source'), 'exemptions');
SELECT isnt(mako_fingerprint(:'source', :'target'), NULL, 'fingerprints');
SELECT cmp_ok((SELECT count(*) FROM mako_explain_function(
                 (:'qualified_function' || '(jsonb,text,jsonb)')::regprocedure)), '>', 0::bigint,
              'explanations');

-- Processes
\set tenant aaaaaaaa-0000-4000-8000-000000000001
INSERT INTO mako.stream (stream_id, tenant_id, workflow_id)
VALUES (:'stream', :'tenant', :'source');
INSERT INTO :"schema".:"relation" VALUES (:'stream', :'source', :'tenant');
SELECT is(mako_append(:'stream', :'source', :'event_type', '{"%s%n": "%s%n"}'), 1::bigint,
          'an event is appended');
SELECT is(pg_temp.error(format('SELECT mako_append(%L, %L, %L, ''{}'', expected_version => 0)',
                               :'stream', :'source', :'event_type')),
          format('40001|stream "%s" has another version than expected|%s|%s', :'stream',
                 'Expected version 0, found 1.', 'Load the process again and retry.'),
          'an error names the stream as it is');
SELECT is((SELECT state FROM mako_state(:'stream')), '{"%s%n": "%s%n"}', 'a state');
SELECT is((SELECT event_type FROM mako_trace(:'stream') WHERE sequence_number = 1), :'event_type',
          'a trace');
SELECT is((SELECT event_type FROM mako_load(:'stream')), :'event_type', 'events are loaded');
SELECT matches(mako_state_diagram(:'source', '%s'), '^stateDiagram', 'a diagram');

-- A migration
SELECT is(pg_temp.rows(format('SELECT migrated, failed FROM mako_migrate(%L, %L, reason => %L)',
                              :'source', :'target', :'reason')), '1|0', 'the stream is migrated');
SELECT is(pg_temp.rows(format('TABLE %s', :'qualified_relation')),
          concat_ws('|', :'stream', :'target', :'tenant'), 'the dependent follows');
SELECT is((SELECT reason FROM mako.migration_run), :'reason', 'the reason is kept');
SELECT is((SELECT string_agg(coalesce(event_type, reason), ' ' ORDER BY at)
           FROM mako_history(:'stream') WHERE kind <> 'spawned'),
          :'event_type' || ' ' || :'reason', 'the history tells both');
SELECT matches(pg_temp.error(format('SELECT mako_append(%L, %L, %L, ''{}'')', :'stream', :'source',
                                    :'event_type')), '^MK005\|', 'whoever comes late is told');
SELECT is(pg_temp.rows('SELECT migrated, failed FROM mako_revert(1)'), '1|0', 'and back');
SELECT is_empty($$SELECT code, subject, message FROM mako_check() WHERE severity = 'error'$$,
                'the check finds no error');
SELECT ok(mako_remove_dependent(relation, process_column, workflow_column),
          'the dependent is removed by its name') FROM mako.dependent;

-- A row that is no name, past the function: it is refused, or nothing is migrated.
SELECT isnt(pg_temp.error(format(
              'INSERT INTO mako.dependent (relation, process_column, workflow_column)
               VALUES (%L, ''a'', ''b''); SELECT mako_migrate(%L, %L)',
              relation, :'source', :'target')), NULL, 'a dependent named ' || relation)
FROM unnest(ARRAY['not a name (at all', 'public.victim' || :'attack', 'victim"', '']) AS relation;

SELECT has_table('public', 'victim', 'nothing of it was executed');

SELECT * FROM finish();
