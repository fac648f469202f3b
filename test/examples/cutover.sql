-- A cutover from FV2025-10-01 to FV2026-10-01, from the day on which both versions are live to the day on which the old one is retired.
-- Run it with psql from the root of the project, in a database with the extension on its search_path and without a store.
--
-- Two engines are running, the old binary (it knows the rules of FV2025-10-01) and the new one. Whoever writes says under which rules,
-- so neither can spoil a process of the other.

\set ECHO none
SET client_min_messages = warning;
SET timezone = 'Europe/Berlin';
SET datestyle = iso;
\pset format aligned
\pset tuples_only off
\pset null ''
\set VERBOSITY default
\o /dev/null
SELECT mako_create_store();
\ir register.sql
\o
\set ECHO queries

-- Two more workflows that are in no example: one whose rules stay as they are, and one that ends with the old version.
SELECT mako_register_workflow(name || '@' || version)
FROM (VALUES ('gpke-messwerte'), ('gabi-gas-nominierung')) AS n (name), (VALUES ('FV2025-10-01'), ('FV2026-10-01')) AS v (version);
SELECT mako_register_migrations('FV2025-10-01', 'FV2026-10-01', '{gpke-messwerte}');

-- The deadlines of the processes are a table of the application's. Their workflow follows.
CREATE SCHEMA office;
CREATE TABLE office.deadline (process_id uuid NOT NULL, workflow_id text NOT NULL, label text NOT NULL, due_at timestamptz NOT NULL);
SELECT mako_add_dependent('office.deadline', process_column => 'process_id', workflow_column => 'workflow_id');

--
-- Before: both versions are live
--

\set grid_operator '''99073170-0000-4000-8000-000000000007'''

-- Four processes start under the old version, and one under the new.
SELECT mako_spawn('gpke-supplier-change@FV2025-10-01', :grid_operator, '00000000-0000-4000-8000-000000000001') AS switch \gset
SELECT mako_spawn('gpke-lf-anmeldung@FV2025-10-01', :grid_operator, '00000000-0000-4000-8000-000000000002') AS registration \gset
SELECT mako_spawn('geli-gas-supplier-change@FV2025-10-01', :grid_operator, '00000000-0000-4000-8000-000000000003') AS gas \gset
SELECT mako_spawn('wim-device-change@FV2025-10-01', :grid_operator, '00000000-0000-4000-8000-000000000004') AS device \gset
SELECT mako_spawn('gpke-supplier-change@FV2026-10-01', :grid_operator, '00000000-0000-4000-8000-000000000005') AS early \gset
SELECT mako_spawn('gabi-gas-nominierung@FV2025-10-01', :grid_operator, '00000000-0000-4000-8000-000000000006') AS nomination \gset
SELECT mako_spawn('gpke-messwerte@FV2025-10-01', :grid_operator, '00000000-0000-4000-8000-000000000007') AS meter \gset

SELECT mako_append_batch(:'switch', 'gpke-supplier-change@FV2025-10-01', ARRAY[
  ('SupplierChangeInitiated', '{"type": "Initiated", "data": {"location_id": "51238696781", "new_supplier": "9900357000003",
    "grid_operator": "9907317000007", "document_date": "20260925", "process_date": "20261015", "transaktionsgrund": "E03",
    "message_ref": "REF-1", "pruefidentifikator": 55001}}', NULL, NULL, NULL, NULL, NULL),
  ('SupplierChangeValidationPassed', '{"type": "ValidationPassed", "data": {"message_ref": "REF-1"}}', NULL, NULL, NULL, NULL, NULL)
]::mako_new_event[], expected_version => 0);
SELECT mako_append(:'registration', 'gpke-lf-anmeldung@FV2025-10-01', 'LfAnmeldungInitiated',
  '{"type": "Initiated", "data": {"pruefidentifikator": 55001, "location_id": "41373559241", "sender": "9907317000007",
    "receiver": "9979999000002", "process_date": "20261101"}}', 0);
SELECT mako_append_batch(:'gas', 'geli-gas-supplier-change@FV2025-10-01', ARRAY[
  ('GasSupplierChangeInitiated', '{"type": "Initiated", "data": {"malo_id": "41373559241", "new_supplier": "9800357000003",
    "gas_operator": "9870317000007", "document_date": "20260920", "pruefidentifikator": 44001}}', NULL, NULL, NULL, NULL, NULL),
  ('GasSupplierChangeValidationPassed', '{"type": "ValidationPassed", "data": {"message_ref": "REF-3"}}', NULL, NULL, NULL, NULL, NULL),
  ('GasSupplierChangeAperakDispatched', '{"type": "AperakDispatched", "data": {"positive": true}}', NULL, NULL, NULL, NULL, NULL)
]::mako_new_event[], 0);
SELECT mako_append(:'device', 'wim-device-change@FV2025-10-01', 'WimDeviceChangeInitiated',
  '{"type": "Initiated", "data": {"melo_id": "DE00012345678901234567890123456789", "incoming_msb": "9904387227637", "grid_operator": "9907317000007",
    "device_id": "TX-1", "document_date": "20260920", "message_ref": "REF-4", "pruefidentifikator": 55042}}', 0);
SELECT mako_append(:'early', 'gpke-supplier-change@FV2026-10-01', 'SupplierChangeInitiated',
  '{"type": "Initiated", "data": {"location_id": "51238696012", "new_supplier": "9900357000003", "grid_operator": "9907317000007",
    "document_date": "20260926", "message_ref": "REF-5", "pruefidentifikator": 55001}}', 0);
SELECT mako_append(:'nomination', 'gabi-gas-nominierung@FV2025-10-01', 'NominationReceived', '{}', 0);
SELECT mako_append(:'meter', 'gpke-messwerte@FV2025-10-01', 'MesswerteReceived', '{}', 0);

-- Replies will come by conversation, by correlation id, or by market location.
SELECT mako_register_key(:grid_operator, '9900357000003:0b2f8f44-7a51-4c58-9c3d-6a1f2a8b9c01', :'switch', expires_at => '2030-01-01');
SELECT mako_register_key(:grid_operator, '6f9619ff-8b86-4d01-b42d-00cf4fc964ff', :'gas');
SELECT mako_add_tag(:grid_operator, '41373559241', :'registration'), mako_add_tag(:grid_operator, '41373559241', :'gas');
INSERT INTO office.deadline VALUES
  ('00000000-0000-4000-8000-000000000001', 'gpke-supplier-change@FV2025-10-01', 'nb-response-window', '2026-10-01 11:00+02'),
  ('00000000-0000-4000-8000-000000000003', 'geli-gas-supplier-change@FV2025-10-01', 'aperak-gas-window', '2026-10-01 12:00+02');

-- What is left to decide? An identity migration decides, too; the nominations are nobody's yet.
SELECT workflow_id, streams, in_flight, decision, reason FROM mako_coverage('FV2025-10-01');

--
-- The evening: nothing new starts under the old version
--

SELECT mako_drain('FV2025-10-01', 'cutover 2026-10-01');
SELECT mako_spawn('gpke-supplier-change@FV2025-10-01', :grid_operator);
-- The old binary still appends to its processes.
SELECT mako_append(:'device', 'wim-device-change@FV2025-10-01', 'WimDeviceChangeValidationPassed',
  '{"type": "ValidationPassed", "data": {"message_ref": "REF-4"}}', 1);

--
-- The night
--

-- Everything that is in flight must be decided first.
SELECT source_wf FROM mako_migrate_version('FV2025-10-01', 'FV2026-10-01');
SELECT mako_exempt('gabi-gas-nominierung@FV2025-10-01', 'the market area ends with the gas year');

-- In earnest, expect is the fingerprint that was noted when the definitions were reviewed.
SELECT source_wf, target_wf, migrated, skipped, failed
FROM mako_migrate_version('FV2025-10-01', 'FV2026-10-01', reason => 'cutover 2026-10-01',
                          expect => mako_version_fingerprint('FV2025-10-01', 'FV2026-10-01'));

-- The states in their new layouts, and what follows the processes.
SELECT right(s.stream_id, 1) AS process, x.sequence_number, x.workflow_id, x.state_schema_version, jsonb_pretty(x.state) AS state
FROM mako.stream s CROSS JOIN LATERAL mako_state(s.stream_id) x
WHERE s.process_id <= '00000000-0000-4000-8000-000000000004' ORDER BY s.stream_no;
SELECT right(process_id::text, 1) AS process, workflow_id, label, due_at FROM office.deadline ORDER BY process_id;

--
-- The morning: replies arrive, and are handled by the new binary
--

-- by process id
SELECT stream_id = :'device' AS found, workflow_id, version FROM mako_lookup(:grid_operator, '00000000-0000-4000-8000-000000000004', 'FV2026-10-01');
SELECT mako_append(:'device', 'wim-device-change@FV2026-10-01', 'WimDeviceChangeAperakDispatched',
  '{"type": "AperakDispatched", "data": {"positive": true}}', 2);
-- by conversation, and still in the old format: legal for some days
SELECT stream_id = :'switch' AS found, workflow_id, version
FROM mako_lookup(:grid_operator, '9900357000003:0b2f8f44-7a51-4c58-9c3d-6a1f2a8b9c01', 'FV2025-10-01');
SELECT mako_append(:'switch', 'gpke-supplier-change@FV2026-10-01', 'SupplierChangeAntwortGesendet',
  '{"type": "AntwortGesendet", "data": {"response_pid": 55002, "accepted": true}}', 2);
-- by correlation id
SELECT stream_id = :'gas' AS found, workflow_id, version FROM mako_lookup(:grid_operator, '6f9619ff-8b86-4d01-b42d-00cf4fc964ff', 'FV2026-10-01');
SELECT mako_append(:'gas', 'geli-gas-supplier-change@FV2026-10-01', 'GasSupplierChangeActivated', '{"type": "Activated"}', 3);
-- by market location, which two processes share
SELECT right(stream_id, 1) AS process, workflow_id, version FROM mako_find_tag(:grid_operator, '41373559241');

-- Where they are now; the trace of one of them tells how it got there.
SELECT right(s.stream_id, 1) AS process, x.workflow_id, x.sequence_number, COALESCE(x.state->>'status', x.state::text) AS status
FROM mako.stream s CROSS JOIN LATERAL mako_state(s.stream_id) x
WHERE s.process_id <= '00000000-0000-4000-8000-000000000005' ORDER BY s.stream_no;
SELECT sequence_number, event_type, workflow_id, run_id, state->>'status' AS status FROM mako_trace(:'gas');

--
-- The old version is retired
--

SELECT workflow_id, streams, in_flight, decision, reason FROM mako_coverage('FV2025-10-01');
SELECT workflow_id FROM mako_coverage('FV2025-10-01') WHERE decision <> 'exempt';
SELECT mako_retire('FV2025-10-01', reason => 'cutover 2026-10-01', messages_until => '2099-10-08 00:00+02');
SELECT format_version, status, messages_until, reason FROM mako.format_version;

-- Late writers of the old binary are refused: in a process that has moved, in one that was exempt, and with a new one.
SELECT mako_append(:'switch', 'gpke-supplier-change@FV2025-10-01', 'SupplierChangeActivated', '{"type": "Activated"}', 3);
INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload)
SELECT stream_no, version + 1, 'wim-device-change@FV2025-10-01', 'WimDeviceChangeCompleted', '{"type": "Completed", "data": {"device_id": "TX-1"}}'
FROM mako.stream WHERE stream_id = :'device';
SELECT mako_append(:'nomination', 'gabi-gas-nominierung@FV2025-10-01', 'NominationReceived', '{}');
SELECT mako_spawn('gpke-messwerte@FV2025-10-01', :grid_operator);
INSERT INTO mako.stream (stream_id, workflow_id) VALUES ('a stream of its own', 'gpke-messwerte@FV2025-10-01');
SELECT mako_lookup(:grid_operator, '00000000-0000-4000-8000-000000000006', 'FV2025-10-01');

-- Replies in the old format still reach the processes that moved, until the grace ends.
SELECT workflow_id, version FROM mako_lookup(:grid_operator, '9900357000003:0b2f8f44-7a51-4c58-9c3d-6a1f2a8b9c01', 'FV2025-10-01');
SELECT mako_retire('FV2025-10-01', reason => 'the grace is over', messages_until => '2001-01-01 00:00+01');
SELECT workflow_id, version FROM mako_lookup(:grid_operator, '9900357000003:0b2f8f44-7a51-4c58-9c3d-6a1f2a8b9c01', 'FV2025-10-01');
