-- States that are nested deeper than the server reads: native evaluation makes them as the server
-- does, and nothing crashes. Runs in an empty database.

CREATE EXTENSION pgtap;
CREATE EXTENSION mako_migration;
SET client_min_messages = warning;

CREATE SCHEMA lib;
CREATE FUNCTION lib.deeper(state jsonb, event_type text, payload jsonb) RETURNS jsonb
LANGUAGE sql STABLE AS $$
  SELECT CASE event_type
    WHEN 'Object' THEN jsonb_build_object('in', state)
    WHEN 'Array' THEN jsonb_build_array(state)
    WHEN 'Both' THEN jsonb_build_object('in', jsonb_build_array(state))
    WHEN 'Merged' THEN jsonb_build_object('in', '{}'::jsonb) || jsonb_build_object('in', state)
    WHEN 'Set' THEN jsonb_set('{"in": {}}', '{in}', state)
  END
$$;
SELECT mako_register_workflow('deep@FV2024-10-01', 'lib.deeper', initial_state => '{}');

-- What becomes of so many events: the length of the state as text and what reading it gives.
CREATE FUNCTION pg_temp.outcome(event_type text, events int, native boolean) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
  state jsonb;
  written text;
BEGIN
  PERFORM set_config('mako_migration.native_evaluation', native::text, true);
  state := mako_fold('deep@FV2024-10-01',
                     (SELECT jsonb_agg(jsonb_build_object('event_type', event_type, 'payload', 1))
                      FROM generate_series(1, events)));
  BEGIN
    written := state::text;
    RETURN format('%s bytes, %s', length(written),
                  CASE WHEN written::jsonb = state THEN 'read' END);
  EXCEPTION WHEN statement_too_complex THEN
    RETURN format('made, not %s', CASE WHEN written IS NULL THEN 'written' ELSE 'read' END);
  END;
EXCEPTION WHEN statement_too_complex THEN
  RETURN 'not made';
END
$$;

SELECT plan(17);

SELECT is(pg_temp.outcome(event_type, 300, true), pg_temp.outcome(event_type, 300, false),
          event_type || ', 300 deep: as the server does it')
FROM unnest(ARRAY['Object', 'Array', 'Both', 'Merged', 'Set']) AS event_type;

-- The server takes long for more. An object has 8 bytes more than what is in it, an array 2.
SELECT matches(pg_temp.outcome(event_type, events, true),
               format('^(%s bytes, read|made, not written|made, not read|not made)$',
                      bytes * events + 2), format('%s, %s deep', event_type, events))
FROM (VALUES ('Object', 8), ('Array', 2)) AS k (event_type, bytes),
     unnest(ARRAY[1000, 6000, 8000, 10000, 14000, 20000]) AS events;

SELECT * FROM finish();
