-- Functions that are PARALLEL SAFE, in parallel workers: the answers and errors of the leader
-- alone, and no setting that is left changed. Runs in an empty database.

CREATE EXTENSION pgtap;
\set streams 100
\ir include/two_workflows.sql
\ir include/helpers.sql

CREATE TABLE public.input AS
SELECT i, jsonb_build_array(
         jsonb_build_object('event_type', 'Opened', 'payload', jsonb_build_object('by', i)),
         jsonb_build_object('event_type', 'Noted', 'payload', jsonb_build_object('note', i)))
         AS events
FROM generate_series(1, 500) AS i;
ANALYZE public.input;
SELECT mako_add_tag(tenant_id, 'tag', stream_id) FROM mako.stream WHERE stream_no < 5;

-- Each gives texts, or is refused.
CREATE TEMPORARY TABLE question (n int GENERATED ALWAYS AS IDENTITY, what text, query text);
INSERT INTO question (what, query) VALUES
  ('ids', $$mako_workflow_name(chr(97 + i % 26) || '@FV2024-10-01') ||
            mako_workflow_version('a@FV2024-10-01') FROM public.input$$),
  ('a bad id', $$('a@FV2024-02-' || 25 + i)::mako_workflow_id FROM public.input$$),
  ('mako_fold()', $$mako_fold('native@FV2024-10-01', events) FROM public.input$$),
  ('mako_fold() of PL/pgSQL', $$mako_fold('plain@FV2024-10-01', events) FROM public.input$$),
  ('mako_fold(), which is refused', $$mako_fold('native@FV2024-10-01',
     jsonb_build_array(jsonb_build_object('event_type', 'Refused', 'payload', i)))
     FROM public.input$$),
  ('mako_fold() of PL/pgSQL, which is refused', $$mako_fold('plain@FV2024-10-01',
     jsonb_build_array(jsonb_build_object('event_type', 'Refused', 'payload', i)))
     FROM public.input$$),
  ('mako_migrate_state()', $$mako_migrate_state('native@FV2024-10-01', 'native@FV2025-10-01',
     jsonb_build_object('by', i, 'count', 1)) FROM public.input$$),
  ('mako_fingerprint()', $$mako_fingerprint('native@FV2024-10-01', 'native@FV2025-10-01')
     FROM public.input WHERE i < 20$$),
  ('mako_required()', $$mako_required(events, '1', 'payload', 'note') FROM public.input$$),
  ('mako_required(), which is missing', $$mako_required(events, 'none') FROM public.input$$),
  ('mako_merge_patch()', $$mako_merge_patch(events->0, events->1) FROM public.input$$),
  ('mako_is_valid()', $$mako_is_valid('{"enum": ["a"]}', to_jsonb(chr(97 + i % 2)))
     FROM public.input$$),
  ('mako_validate()', $$v FROM public.input, mako_validate('{"elements": {"type": "string"}}',
     events) v$$),
  ('mako_instances()', $$v FROM public.input, mako_instances(
     '{"optionalProperties": {"a": {"enum": ["b"]}}}') v$$),
  ('mako_stream_of()', $$mako_stream_of(tenant_id, stream_id) FROM mako.stream$$),
  ('mako_find_tag()', $$f FROM mako.stream s, mako_find_tag(s.tenant_id, 'tag') f$$),
  ('mako_format()', $$mako_format(ROW(i, 'a@FV2024-10-01', 'a@FV2025-10-01', 1, 2, 3, '{}', now(),
     '1 s')) FROM public.input$$);

-- What a query gives in workers, or in none; the settings end with it.
CREATE FUNCTION pg_temp.answer(query text, workers int) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  answer text;
BEGIN
  PERFORM set_config('parallel_setup_cost', '0', true),
          set_config('parallel_tuple_cost', '0', true),
          set_config('min_parallel_table_scan_size', '0', true),
          set_config('parallel_leader_participation', 'off', true),
          set_config('max_parallel_workers_per_gather', workers::text, true);
  EXECUTE format('SELECT count(*) || '' '' || md5(string_agg(t::text, E''\n'' ORDER BY t::text))
                  FROM (SELECT %s) AS q (t)', query) INTO answer;
  RETURN answer;
EXCEPTION WHEN OTHERS THEN
  RETURN SQLSTATE || ' ' || regexp_replace(SQLERRM, '\d+', 'N', 'g');
END
$$;
-- Whether a query is planned for workers.
CREATE FUNCTION pg_temp.is_parallel(query text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  plan json;
BEGIN
  PERFORM set_config('parallel_setup_cost', '0', true),
          set_config('parallel_tuple_cost', '0', true),
          set_config('min_parallel_table_scan_size', '0', true);
  EXECUTE 'EXPLAIN (FORMAT json) SELECT ' || query INTO plan;
  RETURN plan::text ~ '"Node Type": "Gather';
END
$$;

SELECT plan((SELECT count(*)::int * 2 + 2 FROM question));
CREATE TEMPORARY TABLE setting_before AS SELECT name, setting FROM pg_settings;
CREATE TEMPORARY TABLE answer AS
SELECT n, what, pg_temp.answer(query, 0) AS alone, pg_temp.answer(query, 2) AS in_workers,
       pg_temp.is_parallel(query) AS is_parallel
FROM question;
SELECT is(in_workers, alone, what || ' in workers') FROM answer ORDER BY n;
SELECT ok(is_parallel, what || ' is planned for them') FROM answer ORDER BY n;
SELECT results_eq($$SELECT what FROM answer WHERE alone ~ '^[0-9A-Z]{5} ' ORDER BY n$$,
                  ARRAY['a bad id', 'mako_fold(), which is refused',
                        'mako_fold() of PL/pgSQL, which is refused',
                        'mako_required(), which is missing'], 'only these are refused');
SELECT is_empty('SELECT name, setting FROM pg_settings EXCEPT TABLE setting_before',
                'no setting is left changed');

SELECT * FROM finish();
