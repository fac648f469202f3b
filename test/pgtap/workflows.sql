-- What the example workflows do with every event in every state, against tables written down from the domain, and what
-- their steps make of every state. Runs in an empty database, from the root of the project. gpke-supplier-change is in
-- golden.sql.
--
-- In a table, an event is named as its payload's type, with + or - for yes or no; a state as its status. Pairs that are
-- not listed leave the state as it is, and * stands for every state. R is Rejected, with the reason behind it; its data
-- are gone, all other states keep theirs.

CREATE EXTENSION pgtap;
CREATE EXTENSION mako_migration;

SELECT plan(15);

\o /dev/null
\ir ../examples/register.sql
\o

CREATE TEMPORARY TABLE event (workflow_id text, name text, event_type text, payload jsonb);
CREATE TEMPORARY TABLE state (workflow_id text, name text, state jsonb);
CREATE TEMPORARY TABLE transition (workflow_id text, event text, state text, result text);

----------------------------------------------------------------------------------------------------
-- gpke-lf-anmeldung: both versions have the same table
----------------------------------------------------------------------------------------------------

CREATE TEMPORARY TABLE lf (version, data) AS VALUES
  ('FV2025-10-01', '{"pruefidentifikator": 55001, "location_id": "51238696012", "sender": "a", "receiver": "b", "process_date": ""}'::jsonb),
  ('FV2026-10-01', '{"pruefidentifikator": 55001, "location": {"type": "malo", "id": "51238696012"}, "sender": "a", "receiver": "b", "process_date": ""}');

INSERT INTO state
SELECT 'gpke-lf-anmeldung@' || version, name,
       CASE name WHEN 'New' THEN '"New"' WHEN 'Rejected' THEN '{"Rejected": {"reason": "old"}}'
         ELSE jsonb_build_object(name, data) END
FROM lf, unnest('{New,Pending,Active,Rejected}'::text[]) AS name;

INSERT INTO event
SELECT 'gpke-lf-anmeldung@' || version, name, 'LfAnmeldung' || rtrim(name, '+-0'),
       jsonb_build_object('type', rtrim(name, '+-0')) || payload
FROM lf, (VALUES
  ('Initiated', '{"data": {"pruefidentifikator": 55001, "location_id": "51238696012", "sender": "a", "receiver": "b", "process_date": "", "unknown": 1}}'::jsonb),
  ('AntwortReceived+', '{"data": {"response_pid": 55002, "accepted": true, "response_ref": "r"}}'),
  ('AntwortReceived-', '{"data": {"response_pid": 55003, "accepted": false, "response_ref": "r", "reason": "no"}}'),
  ('AntwortReceived-0', '{"data": {"response_pid": 55003, "accepted": false, "response_ref": "r", "reason": null}}'),
  ('Activated', '{"data": null}'),
  ('DeadlineExpired', '{"data": {"deadline_id": "d", "label": "l"}}')) AS e (name, payload);

INSERT INTO transition
SELECT 'gpke-lf-anmeldung@' || version, event, state, result
FROM lf, (VALUES
  ('Initiated', '*', 'Pending'),
  ('AntwortReceived+', 'Pending', 'Active'),
  ('AntwortReceived-', '*', 'R no'),
  ('AntwortReceived-0', '*', 'R Ablehnung'),
  ('DeadlineExpired', 'New', 'R deadline expired: l'),
  ('DeadlineExpired', 'Pending', 'R deadline expired: l')) AS t (event, state, result);

----------------------------------------------------------------------------------------------------
-- geli-gas-supplier-change
----------------------------------------------------------------------------------------------------

CREATE TEMPORARY TABLE geli (version, data, request) AS VALUES
  ('FV2025-10-01',
   '{"malo_id": "m", "new_supplier": "a", "gas_operator": "b", "document_date": "d", "pruefidentifikator": 44001, "message_ref": null}'::jsonb,
   '{"malo_id": "m", "new_supplier": "a", "gas_operator": "b", "document_date": "d", "pruefidentifikator": 44001, "unknown": 1}'::jsonb),
  ('FV2026-10-01',
   '{"variant": "LieferbeginnGas", "malo_id": "m", "sender": "a", "receiver": "b", "document_date": "d", "process_date": "", "pruefidentifikator": 44001, "message_ref": "r"}',
   '{"variant": "LieferbeginnGas", "malo_id": "m", "sender": "a", "receiver": "b", "document_date": "d", "pruefidentifikator": 44001, "message_ref": "r", "unknown": 1}');

INSERT INTO state
SELECT 'geli-gas-supplier-change@' || version, name,
       CASE split_part(name, ' ', 1)
         WHEN 'New' THEN '{"status": "New"}'
         WHEN 'Rejected' THEN '{"status": "Rejected", "data": {"reason": "old"}}'
         WHEN 'AntwortGesendet' THEN jsonb_build_object('status', name, 'data', jsonb_build_object('data', data, 'response_pid', 44002))
         ELSE jsonb_build_object('status', name, 'data', data)
       END
FROM geli, unnest(CASE version
                    WHEN 'FV2025-10-01' THEN '{New,Initiated,ValidationPassed,AperakSent,Active,Rejected}'::text[]
                    ELSE '{New,Initiated,ValidationPassed,AntwortGesendet,GnbPending,Active,Completed,Rejected}'
                  END) AS name;

INSERT INTO event
SELECT 'geli-gas-supplier-change@' || version, name, 'GasSupplierChange' || rtrim(name, '+-0'),
       jsonb_build_object('type', rtrim(name, '+-0'))
       || CASE WHEN name IN ('Initiated', 'GnbProcessInitiated') THEN jsonb_build_object('data', request) ELSE payload END
FROM geli, (VALUES
  ('Initiated', '*', NULL::jsonb),
  ('ValidationPassed', '*', '{"data": {"message_ref": "r"}}'),
  ('AperakDispatched+', 'FV2025-10-01', '{"data": {"positive": true}}'),
  ('AperakDispatched-', 'FV2025-10-01', '{"data": {"positive": false, "reason": "no"}}'),
  ('AntwortGesendet+', 'FV2026-10-01', '{"data": {"response_pid": 44002, "accepted": true}}'),
  ('AntwortGesendet-', 'FV2026-10-01', '{"data": {"response_pid": 44003, "accepted": false, "reason": "no"}}'),
  ('AntwortGesendet-0', 'FV2026-10-01', '{"data": {"accepted": false}}'),
  ('GnbProcessInitiated', 'FV2026-10-01', NULL),
  ('GnbAntwortErhalten+', 'FV2026-10-01', '{"data": {"response_pid": 44002, "accepted": true}}'),
  ('GnbAntwortErhalten-', 'FV2026-10-01', '{"data": {"response_pid": 44003, "accepted": false, "reason": "no"}}'),
  ('GnbAntwortErhalten-0', 'FV2026-10-01', '{"data": {"response_pid": 44003, "accepted": false}}'),
  ('Activated', '*', '{}'),
  ('Rejected', '*', '{"data": {"reason": "no"}}'),
  ('DeadlineExpired', '*', '{"data": {"deadline_id": "d", "label": "l"}}')) AS e (name, in_version, payload)
WHERE in_version IN ('*', version);

INSERT INTO transition
SELECT 'geli-gas-supplier-change@' || version, event, state, result
FROM (VALUES
  ('FV2025-10-01', 'Initiated', '*', 'Initiated'),
  ('FV2025-10-01', 'ValidationPassed', 'Initiated', 'ValidationPassed'),
  ('FV2025-10-01', 'AperakDispatched+', 'ValidationPassed', 'AperakSent'),
  ('FV2025-10-01', 'AperakDispatched-', 'ValidationPassed', 'R negative APERAK'),
  ('FV2025-10-01', 'Activated', 'AperakSent', 'Active'),
  ('FV2025-10-01', 'Rejected', '*', 'R no'),
  ('FV2025-10-01', 'DeadlineExpired', 'New', 'R deadline expired: l'),
  ('FV2025-10-01', 'DeadlineExpired', 'Initiated', 'R deadline expired: l'),
  ('FV2025-10-01', 'DeadlineExpired', 'ValidationPassed', 'R deadline expired: l'),
  ('FV2025-10-01', 'DeadlineExpired', 'AperakSent', 'R deadline expired: l'),
  ('FV2026-10-01', 'Initiated', '*', 'Initiated'),
  ('FV2026-10-01', 'ValidationPassed', 'Initiated', 'ValidationPassed'),
  ('FV2026-10-01', 'AntwortGesendet+', 'ValidationPassed', 'AntwortGesendet'),
  ('FV2026-10-01', 'AntwortGesendet-', 'ValidationPassed', 'R no'),
  ('FV2026-10-01', 'AntwortGesendet-0', 'ValidationPassed', 'R negative Antwort'),
  ('FV2026-10-01', 'GnbProcessInitiated', '*', 'GnbPending'),
  ('FV2026-10-01', 'GnbAntwortErhalten+', 'GnbPending', 'Completed'),
  ('FV2026-10-01', 'GnbAntwortErhalten-', 'GnbPending', 'R no'),
  ('FV2026-10-01', 'GnbAntwortErhalten-0', 'GnbPending', 'R negative Antwort'),
  ('FV2026-10-01', 'Activated', 'AntwortGesendet', 'Active'),
  ('FV2026-10-01', 'Rejected', '*', 'R no'),
  ('FV2026-10-01', 'DeadlineExpired', 'New', 'R deadline expired: l'),
  ('FV2026-10-01', 'DeadlineExpired', 'Initiated', 'R deadline expired: l'),
  ('FV2026-10-01', 'DeadlineExpired', 'ValidationPassed', 'R deadline expired: l'),
  ('FV2026-10-01', 'DeadlineExpired', 'AntwortGesendet', 'R deadline expired: l'),
  ('FV2026-10-01', 'DeadlineExpired', 'GnbPending', 'R deadline expired: l')) AS t (version, event, state, result);

----------------------------------------------------------------------------------------------------
-- wim-device-change: events that say nothing new, so that data are as they were, but for the device
----------------------------------------------------------------------------------------------------

CREATE TEMPORARY TABLE wim (version, data) AS VALUES
  ('FV2025-10-01',
   '{"melo_id": "m", "incoming_msb": "a", "grid_operator": "b", "device_id": "", "document_date": "d", "pruefidentifikator": 55042, "message_ref": "r"}'::jsonb),
  ('FV2026-10-01',
   '{"melo_id": "m", "incoming_msb": "a", "grid_operator": "b", "device_id": "", "document_date": "d", "pruefidentifikator": 55042, "message_ref": "r", "vorgangsnummer": null, "process_date": "d", "bestaetigter_zuordnungsbeginn": null}');

INSERT INTO state
SELECT 'wim-device-change@' || version, name,
       CASE name
         WHEN 'New' THEN '{"status": "New"}'
         WHEN 'Rejected' THEN '{"status": "Rejected", "data": {"reason": "old"}}'
         ELSE jsonb_build_object('status', name, 'data', data)
       END
FROM wim, unnest('{New,AuftragGesendet,AuftragBestaetigt,Initiated,ValidationPassed,AperakSent,Completed,Rejected}'::text[]
                 || CASE version WHEN 'FV2026-10-01' THEN '{AntwortGesendet,GesamtvorgangGemeldet}'::text[] ELSE '{}' END) AS name;

INSERT INTO event
SELECT 'wim-device-change@' || version, name, 'WimDeviceChange' || rtrim(name, '+-0'),
       jsonb_build_object('type', rtrim(name, '+-0'), 'data', data)
FROM (SELECT version FROM wim) AS v, (VALUES
  ('Initiated', '*', '{"melo_id": "m", "incoming_msb": "a", "grid_operator": "b", "device_id": "", "document_date": "d", "message_ref": "r", "pruefidentifikator": 55042, "process_date": "d"}'::jsonb),
  ('ValidationPassed', '*', '{"message_ref": "r"}'),
  ('AperakDispatched+', '*', '{"positive": true}'),
  ('AperakDispatched-', '*', '{"positive": false, "reason": "no"}'),
  ('Completed', '*', '{"device_id": ""}'),
  ('Rejected', '*', '{"reason": "no"}'),
  ('DeadlineExpired', '*', '{"deadline_id": "d", "label": "l"}'),
  ('IftstaStatusReceived', '*', '{"pid": 21009, "sender": "a", "receiver": "b", "message_ref": "r"}'),
  ('AuftragGesendet', '*', '{"melo_id": "m", "sender": "a", "receiver": "b", "process_date": "d", "message_ref": "r", "pruefidentifikator": 55042}'),
  ('AntwortEmpfangen+', '*', '{"pruefidentifikator": 55043, "sender": "b", "message_ref": "r", "is_confirmed": true}'),
  ('AntwortEmpfangen-', '*', '{"pruefidentifikator": 55044, "sender": "b", "message_ref": "r", "is_confirmed": false, "reason": "no"}'),
  ('AntwortEmpfangen-0', '*', '{"pruefidentifikator": 55044, "sender": "b", "message_ref": "r", "is_confirmed": false}'),
  ('AntwortGesendet+', 'FV2026-10-01', '{"pruefidentifikator": 55043, "bestaetigt": true, "antwort_code": "A01", "antwort_ebd": "E_0200"}'),
  ('AntwortGesendet-', 'FV2026-10-01', '{"pruefidentifikator": 55044, "bestaetigt": false, "antwort_code": "A02", "antwort_ebd": "E_0200"}'),
  ('GesamtvorgangGemeldet+', 'FV2026-10-01', '{"erfolgreich": true, "outbound": true, "message_ref": "r"}'),
  ('GesamtvorgangGemeldet-', 'FV2026-10-01', '{"erfolgreich": false, "outbound": true, "message_ref": "r"}'),
  ('ZuordnungEntschieden+', 'FV2026-10-01', '{"pruefidentifikator": 21011, "zugeordnet": true, "outbound": false}'),
  ('ZuordnungEntschieden-', 'FV2026-10-01', '{"pruefidentifikator": 21012, "zugeordnet": false, "outbound": false}')) AS e (name, in_version, data)
WHERE in_version IN ('*', version);

INSERT INTO transition
SELECT 'wim-device-change@' || version, event, state, result
FROM (SELECT version FROM wim) AS v, (VALUES
  ('*', 'AuftragGesendet', '{*}'::text[], 'AuftragGesendet'),
  ('*', 'AntwortEmpfangen+', '{AuftragGesendet}', 'AuftragBestaetigt'),
  ('*', 'AntwortEmpfangen-', '{AuftragGesendet}', 'R no'),
  ('*', 'AntwortEmpfangen-0', '{AuftragGesendet}', 'R Auftrag vom Marktpartner abgelehnt'),
  ('*', 'Initiated', '{*}', 'Initiated'),
  ('*', 'ValidationPassed', '{Initiated}', 'ValidationPassed'),
  ('*', 'AperakDispatched+', '{ValidationPassed}', 'AperakSent'),
  ('*', 'AperakDispatched-', '{ValidationPassed}', 'R negative APERAK'),
  ('FV2026-10-01', 'AntwortGesendet+', '{ValidationPassed,AperakSent}', 'AntwortGesendet'),
  ('FV2026-10-01', 'AntwortGesendet-', '{ValidationPassed,AperakSent}', 'R Ablehnung versendet'),
  ('FV2026-10-01', 'GesamtvorgangGemeldet+', '{AntwortGesendet,AuftragBestaetigt}', 'GesamtvorgangGemeldet'),
  ('FV2026-10-01', 'GesamtvorgangGemeldet-', '{AntwortGesendet,AuftragBestaetigt}', 'R Gesamtvorgang gescheitert — der MSBA bleibt zugeordnet'),
  ('FV2026-10-01', 'ZuordnungEntschieden+', '{GesamtvorgangGemeldet}', 'Completed'),
  ('FV2026-10-01', 'ZuordnungEntschieden-', '{GesamtvorgangGemeldet}', 'R Zuordnung nicht erfolgt — der MSBA bleibt zugeordnet'),
  ('FV2025-10-01', 'Completed', '{AperakSent,AuftragBestaetigt}', 'Completed'),
  ('FV2026-10-01', 'Completed', '{AperakSent,AntwortGesendet,GesamtvorgangGemeldet,AuftragBestaetigt}', 'Completed'),
  ('*', 'Rejected', '{*}', 'R no'),
  ('*', 'DeadlineExpired', '{New,AuftragGesendet,AuftragBestaetigt,Initiated,ValidationPassed,AperakSent}', 'R deadline expired: l'),
  ('FV2026-10-01', 'DeadlineExpired', '{AntwortGesendet,GesamtvorgangGemeldet}', 'R deadline expired: l')
) AS t (in_version, event, states, result), unnest(states) AS state
WHERE in_version IN ('*', version);

----------------------------------------------------------------------------------------------------
-- Every event in every state
----------------------------------------------------------------------------------------------------

-- Applies an event by mako_fold, with the upcast and all checks. Its initial state is the registered one, so another state
-- is brought in by a workflow of the same functions that starts in it.
CREATE FUNCTION pg_temp.after(workflow_id text, state jsonb, event_type text, payload jsonb) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
  result jsonb;
BEGIN
  PERFORM mako_register_workflow('probe@FV2000-01-01', w.apply, w.upcast, w.in_flight, initial_state => after.state,
            event_type_definition => w.event_type_definition, state_type_definition => w.state_type_definition,
            replace => true)
  FROM mako_workflow AS w WHERE w.workflow_id::text = after.workflow_id;
  result := mako_fold('probe@FV2000-01-01',
                      jsonb_build_array(jsonb_build_object('event_type', event_type, 'payload', payload)));
  RETURN result;
END
$$;

CREATE TEMPORARY TABLE probe AS
SELECT state.workflow_id, event.name AS event, state.name AS state,
       pg_temp.after(state.workflow_id, state.state, event_type, payload) AS result,
       CASE
         WHEN transition.result IS NULL THEN state.state
         WHEN transition.result LIKE 'R %' AND state.workflow_id LIKE '%lf%' THEN
           jsonb_build_object('Rejected', jsonb_build_object('reason', substr(transition.result, 3)))
         WHEN transition.result LIKE 'R %' THEN
           jsonb_build_object('status', 'Rejected', 'data', jsonb_build_object('reason', substr(transition.result, 3)))
         ELSE (SELECT target.state FROM state AS target
               WHERE target.workflow_id = state.workflow_id AND target.name = transition.result)
       END AS expected
FROM state
JOIN event USING (workflow_id)
LEFT JOIN transition
  ON transition.workflow_id = state.workflow_id AND transition.event = event.name AND transition.state IN ('*', state.name);

-- A confirmation without a date confirms the date of the process.
UPDATE probe SET expected = jsonb_set(expected, '{data,bestaetigter_zuordnungsbeginn}', '"d"')
FROM transition
WHERE transition.workflow_id = probe.workflow_id AND transition.event = probe.event AND transition.state = probe.state
  AND probe.workflow_id = 'wim-device-change@FV2026-10-01' AND probe.event IN ('AntwortEmpfangen+', 'AntwortGesendet+');

SELECT is_empty(
  format($$ SELECT event, state, result, expected FROM probe WHERE workflow_id = %L AND result IS DISTINCT FROM expected $$, id),
  format('%s: %s pairs of state and event', id, (SELECT count(*) FROM probe WHERE workflow_id = id)))
FROM unnest('{gpke-lf-anmeldung@FV2025-10-01,gpke-lf-anmeldung@FV2026-10-01,geli-gas-supplier-change@FV2025-10-01,
              geli-gas-supplier-change@FV2026-10-01,wim-device-change@FV2025-10-01,wim-device-change@FV2026-10-01}'::text[]) AS id;

SELECT is_empty(
  $$ SELECT workflow_id, event, state FROM transition
     WHERE NOT EXISTS (SELECT FROM probe WHERE probe.workflow_id = transition.workflow_id AND probe.event = transition.event
                         AND (transition.state = '*' OR transition.state = probe.state)) $$,
  'every line of the tables was tried');

SELECT is_empty(
  $$ SELECT state.workflow_id, name FROM state JOIN mako_workflow AS w ON w.workflow_id::text = state.workflow_id
     WHERE NOT mako_is_valid(w.state_type_definition, state.state) $$,
  'every state is of its type');

----------------------------------------------------------------------------------------------------
-- Steps
----------------------------------------------------------------------------------------------------

SELECT bag_eq(
  $$ SELECT name, mako_migrate_state('wim-device-change@FV2025-10-01', 'wim-device-change@FV2026-10-01', state) FROM state
     WHERE workflow_id = 'wim-device-change@FV2025-10-01' $$,
  $$ SELECT t.name, CASE WHEN t.name IN ('New', 'Rejected') THEN target.state
                    ELSE jsonb_set(target.state, '{data}', (target.state->'data') || jsonb_build_object(
                           'process_date', process_date, 'bestaetigter_zuordnungsbeginn', beginning)) END
     FROM (VALUES ('New', 'New', NULL, NULL), ('Rejected', 'Rejected', NULL, NULL), ('Initiated', 'Initiated', NULL, NULL),
                  ('ValidationPassed', 'ValidationPassed', NULL, NULL), ('Completed', 'Completed', NULL, NULL),
                  ('AuftragGesendet', 'AuftragGesendet', 'd', NULL), ('AuftragBestaetigt', 'AuftragBestaetigt', 'd', 'd'),
                  ('AperakSent', 'AntwortGesendet', 'd', NULL)) AS t (name, target, process_date, beginning)
     JOIN state AS target ON target.workflow_id = 'wim-device-change@FV2026-10-01' AND target.name = t.target $$,
  'wim-device-change: what was answered stays answered, under another name');

SELECT bag_eq(
  $$ SELECT status, pid, state->>'status' AS result, state #>> '{data,variant}' AS variant,
            coalesce(state #>> '{data,response_pid}', '') AS response_pid
     FROM unnest('{ValidationPassed,AperakSent,Active}'::text[]) AS status,
          unnest('{44001,44007,44019,44020}'::int[]) AS pid,
          mako_migrate_state('geli-gas-supplier-change@FV2025-10-01', 'geli-gas-supplier-change@FV2026-10-01',
            jsonb_build_object('status', status, 'data',
              (SELECT data FROM geli WHERE version = 'FV2025-10-01') || jsonb_build_object('pruefidentifikator', pid))) AS state $$,
  $$ VALUES ('ValidationPassed', 44001, 'ValidationPassed', 'LieferbeginnGas', ''),
            ('ValidationPassed', 44007, 'ValidationPassed', 'AbmeldungNn', ''),
            ('ValidationPassed', 44019, 'Completed', 'Bestandsliste', ''),
            ('ValidationPassed', 44020, 'ValidationPassed', 'Aenderungsmeldung', ''),
            ('AperakSent', 44001, 'AntwortGesendet', NULL, '44002'),
            ('AperakSent', 44007, 'AntwortGesendet', NULL, '44008'),
            ('AperakSent', 44019, 'Completed', 'Bestandsliste', ''),
            ('AperakSent', 44020, 'AntwortGesendet', NULL, '44021'),
            ('Active', 44001, 'Active', 'LieferbeginnGas', ''),
            ('Active', 44007, 'Completed', 'AbmeldungNn', ''),
            ('Active', 44019, 'Completed', 'Bestandsliste', ''),
            ('Active', 44020, 'Completed', 'Aenderungsmeldung', '') $$,
  'geli-gas-supplier-change: the state follows from the variant, the variant from the message');

SELECT throws_ok(
  $$ SELECT mako_migrate_state('geli-gas-supplier-change@FV2025-10-01', 'geli-gas-supplier-change@FV2026-10-01',
       jsonb_build_object('status', 'Initiated', 'data',
         (SELECT data FROM geli WHERE version = 'FV2025-10-01') || '{"pruefidentifikator": 44003}')) $$,
  'MK002', 'PID 44003 starts no process, so there is no variant', 'geli-gas-supplier-change: an answer starts nothing');

SELECT throws_ok(
  $$ SELECT mako_migrate_state('gpke-lf-anmeldung@FV2025-10-01', 'gpke-lf-anmeldung@FV2026-10-01',
       jsonb_build_object('Pending', (SELECT data FROM lf WHERE version = 'FV2025-10-01') || '{"location_id": "X1"}')) $$,
  'MK002', 'location_id "X1" has no known prefix', 'gpke-lf-anmeldung: a location of an unknown kind is refused');

SELECT throws_ok(
  $$ SELECT mako_migrate_state('gpke-lf-anmeldung@FV2025-10-01', 'gpke-lf-anmeldung@FV2026-10-01',
       jsonb_build_object('Pending', (SELECT data FROM lf WHERE version = 'FV2025-10-01') || '{"pruefidentifikator": 65536}')) $$,
  '23514', NULL, 'gpke-lf-anmeldung: a state outside its domain is no state');

SELECT throws_ok(
  $$ SELECT mako_migrate_state('gpke-supplier-change@FV2025-10-01', 'gpke-supplier-change@FV2026-10-01',
       '{"status": "AntwortGesendet", "data": {"response_pid": null, "data": {}}}') $$,
  'MK002', 'AntwortGesendet without response_pid cannot be migrated', 'gpke-supplier-change: an answer without a number is refused');

SELECT is(
  mako_migrate_state('gpke-supplier-change@FV2024-10-01', 'gpke-supplier-change@FV2026-10-01',
    '{"status": "Rejected", "data": {"reason": "deadline expired: l"}}'),
  '{"status": "DeadlineExpired", "data": {"label": "l"}}', 'gpke-supplier-change: two steps in one');

SELECT * FROM finish();
