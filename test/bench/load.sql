-- Loads one data set of the benchmark into an empty database, with psql from the root of the project:
--
--   :streams, :events   how many streams, and how many events each of them has
--   :workflow           which workflow id stream i runs under, as an expression over i
--   :family             gpke for gpke-supplier-change, wim for wim-device-change
--   :attachment         characters that the first three events of a stream carry besides
--
-- Streams start evenly over 365 days and live about 10, so they interleave in the table as they did in time. All of them end in a state
-- that migrates. There is no randomness: the same data everywhere.
\set ON_ERROR_STOP on
\set QUIET on
SET client_min_messages = warning;
SET jit = off;
SET max_parallel_workers_per_gather = 0;
SET work_mem = '512MB';
SET timezone = 'UTC';

CREATE SCHEMA mako_migration;
CREATE EXTENSION mako_migration SCHEMA mako_migration;
SELECT mako_create_store();
\ir ../examples/gpke/supplier_change.sql
\ir ../examples/wim/device_change.sql
CREATE SCHEMA bench;
\ir functions.sql

-- A number that looks random, 0 to n - 1.
CREATE FUNCTION bench.pick(i bigint, n int) RETURNS int LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT ((i * 2654435761 % 4294967296) / 65536 % n)::int
$$;

-- The code of a market partner.
CREATE FUNCTION bench.partner(n bigint) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT '99' || lpad((n * 7919 + 370000)::text, 11, '0')
$$;

-- What a stream goes through; the last digits of its number decide. After the last event it starts again from the first.
CREATE FUNCTION bench.life(family text, i bigint) RETURNS text[] LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE
    WHEN family = 'wim' AND bench.pick(i, 10) < 7 THEN
      '{Initiated,ValidationPassed,IftstaStatusReceived,AperakDispatched,IftstaStatusReceived,Completed}'::text[]
    WHEN family = 'wim' THEN
      '{Initiated,ValidationPassed,IftstaStatusReceived,AperakDispatched,IftstaStatusReceived,IftstaStatusReceived}'
    WHEN bench.pick(i, 10) < 7 THEN
      '{Initiated,ValidationPassed,AntwortGesendet,Activated,VollzugsmeldungReceived,VollzugsmeldungReceived}'
    WHEN bench.pick(i, 10) < 9 THEN
      '{Initiated,ValidationPassed,AntwortGesendet,VollzugsmeldungReceived,VollzugsmeldungReceived,VollzugsmeldungReceived}'
    ELSE
      '{Initiated,ValidationPassed,Rejected,VollzugsmeldungReceived,VollzugsmeldungReceived,VollzugsmeldungReceived}'
  END
$$;

-- What an event says that apply looks at. The last two digits of the location's id are those of the stream's number.
CREATE FUNCTION bench.message(family text, type text, i bigint, recorded_at timestamptz) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE
    WHEN type = 'Initiated' AND family = 'gpke' THEN jsonb_build_object(
      'location_id', '5' || lpad(i::text, 10, '0'),
      'new_supplier', bench.partner(bench.pick(i, 40)),
      'grid_operator', bench.partner(100 + i % 8),
      'document_date', to_char(recorded_at, 'YYYYMMDD'),
      'process_date', to_char(recorded_at + interval '14 days', 'YYYYMMDD'),
      'transaktionsgrund', CASE WHEN i % 3 > 0 THEN 'E03' END,
      'pruefidentifikator', CASE WHEN i % 2 > 0 THEN 55001 ELSE 55077 END)
    WHEN type = 'Initiated' THEN jsonb_build_object(
      'melo_id', 'DE000' || lpad(i::text, 28, '0'),
      'incoming_msb', bench.partner(bench.pick(i, 40)),
      'grid_operator', bench.partner(100 + i % 8),
      'device_id', 'TX-' || i,
      'document_date', to_char(recorded_at, 'YYYYMMDD'),
      'pruefidentifikator', 55042)
    WHEN type = 'AntwortGesendet' THEN jsonb_build_object('response_pid', 55002, 'accepted', true, 'reason', NULL)
    WHEN type = 'Rejected' THEN jsonb_build_object('reason', 'Lieferant nicht zugeordnet: 5' || lpad(i::text, 10, '0'))
    WHEN type IN ('VollzugsmeldungReceived', 'IftstaStatusReceived') THEN jsonb_build_object(
      'pid', 21024 + i % 5,
      'sender', bench.partner(bench.pick(i, 40)),
      'receiver', bench.partner(100 + i % 8))
    WHEN type = 'AperakDispatched' THEN jsonb_build_object('positive', true, 'reason', NULL)
    WHEN type = 'Completed' THEN jsonb_build_object('device_id', 'TX-' || i + 1)
    ELSE '{}'
  END
$$;

-- What an engine keeps of every message besides: apply has to pass over it.
CREATE FUNCTION bench.envelope(i bigint, sequence_number bigint, recorded_at timestamptz) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT jsonb_build_object(
    'message_ref', 'REF-' || i || '-' || sequence_number,
    'interchange', jsonb_build_object(
      'sender', bench.partner(bench.pick(i, 40)),
      'receiver', bench.partner(100 + i % 8),
      'control_reference', 'IC' || lpad((i * 10 + sequence_number)::text, 12, '0'),
      'prepared_at', to_char(recorded_at, 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
      'association', 'S2.1'),
    'contact', jsonb_build_object('name', 'Marktkommunikation', 'mail', 'edi@' || bench.pick(i, 40) || '.example'))
$$;

-- Triggers would prove event by event what mako_adopt_events() proves of all of them.
ALTER TABLE mako.stream DISABLE TRIGGER USER;
ALTER TABLE mako.event DISABLE TRIGGER USER;

INSERT INTO mako.stream (stream_no, stream_id, tenant_id, process_id, workflow_id, version, created_at)
OVERRIDING SYSTEM VALUE
SELECT i, 'process/' || tenant_id || '/' || process_id, tenant_id, process_id, :workflow, :events,
       timestamptz '2025-10-01' + interval '365 days' * (i::float8 / :streams)
FROM generate_series(1::bigint, :streams) AS i,
     LATERAL (SELECT md5('tenant ' || i % 8)::uuid AS tenant_id, md5('process ' || i)::uuid AS process_id OFFSET 0) AS id;

-- Payloads are built after the sort, which stays small.
INSERT INTO mako.event (stream_no, sequence_number, event_id, recorded_at, workflow_id, event_type, payload)
SELECT i, k, md5(i || '/' || k)::uuid, recorded_at, :workflow,
       CASE :'family' WHEN 'wim' THEN 'WimDeviceChange' ELSE 'SupplierChange' END || type,
       CASE WHEN type = 'Activated' THEN jsonb_build_object('type', type) || bench.envelope(i, k, recorded_at)
            ELSE jsonb_build_object('type', type, 'data',
                   bench.message(:'family', type, i, recorded_at) || bench.envelope(i, k, recorded_at))
       END
       || CASE WHEN :attachment > 0 AND k <= 3
               THEN jsonb_build_object('attachment', (SELECT string_agg(md5(i || '/' || k || '/' || n), '')
                                                      FROM generate_series(1, :attachment / 32) AS n))
               ELSE '{}' END
FROM (SELECT i, k, (bench.life(:'family', i))[1 + (k - 1) % 6] AS type,
             timestamptz '2025-10-01' + interval '365 days' * (i::float8 / :streams)
             + interval '10 days' * ((k - 1 + bench.pick(7 * i + k, 1000) * 0.0009) / (:events - 0.5)) AS recorded_at
      FROM generate_series(1::bigint, :streams) AS i, generate_series(1::bigint, :events) AS k
      ORDER BY recorded_at, i, k) AS event;

-- The triggers again, and the proof.
SELECT mako_create_store();
SELECT mako_adopt_events();

-- The floor writes into plain tables: no triggers, no checks.
CREATE TABLE bench.stream (LIKE mako.stream INCLUDING INDEXES) WITH (fillfactor = 50);
INSERT INTO bench.stream SELECT * FROM mako.stream ORDER BY stream_no;
CREATE TABLE bench.snapshot (LIKE mako.snapshot INCLUDING INDEXES);
CREATE TABLE bench.finished (LIKE mako.snapshot);
CREATE TABLE bench.failure (stream_no bigint, message text);
