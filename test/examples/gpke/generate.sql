-- Generates supplier-change streams: many, valid, and the same ones for the same seed on every machine and
-- every version of PostgreSQL. They carry what a grid operator's store carries: tenants of very different size,
-- processes that were finished long ago and some that are open at the cutover, routing keys, deadlines.
--
--   SELECT * FROM gpke.generate(100000);                       -- realistic lifecycles
--   SELECT * FROM gpke.generate(5000, 'more');                 -- another seed adds other streams, the same one clashes
--   SELECT * FROM gpke.generate_uniform(1, 10000, 'long');     -- streams of equal length
--
-- All randomness is md5 over the seed, a number and a fixed word, so that a new choice never shifts the others.
-- Nothing here needs a logarithm or a power: their last digits differ between platforms.

-- What a process waits for. The workflow id is meant to follow a migrated process.
CREATE TABLE gpke.deadline (
  deadline_id uuid PRIMARY KEY,
  tenant_id uuid NOT NULL,
  process_id uuid NOT NULL,
  workflow_id text COLLATE "C" NOT NULL,
  label text NOT NULL,
  due_at timestamptz NOT NULL
);

----------------------------------------------------------------------------------------------------
-- Random values and valid identifiers
----------------------------------------------------------------------------------------------------

-- Cuts one of four independent numbers in [0, 1) out of an md5 hash.
CREATE FUNCTION gpke.random_unit(hash text, slice int) RETURNS float8
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT ('x' || substr(hash, 1 + 8 * slice, 8))::bit(32)::bigint::float8 / 4294967296
$$;

-- Makes a version 4 uuid of an md5 hash.
CREATE FUNCTION gpke.random_uuid(hash text) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT overlay(overlay(hash PLACING '4' FROM 13) PLACING '8' FROM 17)::uuid
$$;

-- Computes the check digit of ten digits: those at odd places count once, those at even places twice, and
-- the check digit fills up to the next multiple of ten.
CREATE FUNCTION gpke.check_digit(digits bigint) RETURNS int
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT ((10 - (  digits / 1000000000 % 10 + digits / 10000000 % 10 + digits / 100000 % 10
                 + digits / 1000 % 10 + digits / 10 % 10
                 + 2 * (  digits / 100000000 % 10 + digits / 1000000 % 10 + digits / 10000 % 10
                        + digits / 100 % 10 + digits % 10)) % 10) % 10)::int
$$;

-- Makes the id of a market location: ten digits that start with 4 to 9, and their check digit.
CREATE FUNCTION gpke.market_location(digits bigint) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT digits::text || gpke.check_digit(digits)
$$;

-- Makes the code of a market partner: 99, ten digits, and a check digit to which the 99 adds 9 + 2 * 9.
CREATE FUNCTION gpke.market_partner(digits bigint) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT '99' || lpad(digits::text, 10, '0') || (gpke.check_digit(digits) + 3) % 10
$$;

-- Makes up why a request was refused. Some reasons are long, a few so long that they are stored out of line.
CREATE FUNCTION gpke.random_reason(hash text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT repeat(
    (ARRAY['Marktlokation unbekannt; ',
           'Prozessdatum liegt zurück: Frist "1 WT" überschritten; ',
           'Lieferant nicht zugeordnet (\ZUORD\); ',
           'Größe „Jahresverbrauch“ > 100000 kWh ⚡; '])[1 + floor(gpke.random_unit(hash, 2) * 4)::int],
    CASE
      WHEN gpke.random_unit(hash, 3) < 0.002 THEN 2500
      WHEN gpke.random_unit(hash, 3) < 0.022 THEN 50
      ELSE 1
    END)
$$;

----------------------------------------------------------------------------------------------------
-- Streams
----------------------------------------------------------------------------------------------------

-- Writes streams with all that belongs to them. Without events_per_stream they have the lifecycles, versions and
-- lengths of real ones; with it all of them run under FV2024-10-01 and have that many events.
--
-- The time zone is set because dates and intervals of days depend on the caller's one otherwise; the statements are
-- long and run once, which is what just-in-time compilation is bad at.
CREATE FUNCTION gpke.generate_streams(n_streams bigint, seed text, events_per_stream int)
RETURNS TABLE (streams bigint, events bigint)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET timezone = 'Europe/Berlin'
SET work_mem = '256MB'
SET jit = off
AS $$
DECLARE
  stream_sequence CONSTANT regclass := pg_get_serial_sequence('mako.stream', 'stream_no');
BEGIN
  -- MATERIALIZED keeps a hash from being computed again for every slice of it. Numbers are drawn after the final
  -- sort, so that they are in order of time.
  CREATE TEMPORARY TABLE generated_stream AS
  WITH number AS MATERIALIZED (
    SELECT i,
           seed || ':' || i || ':' AS stem,
           -- Streams of equal length all draw zero, which stands for the commonest life.
           CASE
             WHEN events_per_stream IS NULL THEN md5(seed || ':' || i || ':life')
             ELSE repeat('0', 32)
           END AS life
    FROM generate_series(1, n_streams) AS i
  ),
  hash AS MATERIALIZED (
    SELECT i,
           stem,
           gpke.random_unit(life, 0) AS lifecycle_draw,
           gpke.random_unit(life, 1) AS notices_draw,
           gpke.random_unit(life, 2) AS version_draw,
           -- 6 % of the market locations see a second process
           md5(seed || ':' || i - (gpke.random_unit(life, 3) > 0.94)::int || ':place') AS place,
           md5(stem || 'process') AS process,
           md5(stem || 'conversation') AS conversation,
           md5(stem || 'request') AS request,
           md5(stem || 'answer') AS answer,
           md5(stem || 'start') AS start,
           md5(stem || 'pace') AS pace,
           md5(stem || 'routing') AS routing
    FROM number
  ),
  lifecycle (share_from, share_to, accepted, event_types) AS (
    VALUES
      (0.00, 0.55, true, '{Initiated,ValidationPassed,AntwortGesendet,Activated}'::text[]),
      (0.55, 0.70, true, '{Initiated,ValidationPassed}'),
      (0.70, 0.82, true, '{Initiated,ValidationPassed,AntwortGesendet}'),
      (0.82, 0.90, false, '{Initiated,ValidationPassed,AntwortGesendet}'),
      (0.90, 0.94, false, '{Initiated,Rejected}'),
      (0.94, 0.97, false, '{Initiated,ValidationPassed,DeadlineExpired}'),
      (0.97, 0.99, false, '{Initiated,ValidationPassed,AperakFehlerDispatched}'),
      (0.99, 1.00, true, '{Initiated}')
  ),
  version (share_from, share_to, workflow_id, names_reason, since, until) AS (
    VALUES
      (0.0, 0.9, 'gpke-supplier-change@FV2024-10-01', false, timestamptz '2024-10-01', timestamptz '2025-10-01'),
      (0.9, 1.0, 'gpke-supplier-change@FV2025-10-01', true, timestamptz '2025-10-01', timestamptz '2026-09-28')
  ),
  -- the messages of a request: start of supply, end of supply, start of supply by the default supplier
  message (kind, request_pid, accepted_pid, refused_pid) AS (
    VALUES (0, 55001, 55002, 55003), (1, 55004, 55005, 55006), (2, 55077, 55078, 55080)
  ),
  -- rank 0 is a tenant's own code, 1 to 40 are those of the suppliers it deals with
  partner AS MATERIALIZED (
    SELECT tenant, rank,
           gpke.market_partner((gpke.random_unit(md5(seed || ':' || tenant || ':' || rank || ':partner'), 0)
                                * 9999999999)::bigint) AS code
    FROM generate_series(0, 7) AS tenant, generate_series(0, 40) AS rank
  ),
  choice AS MATERIALIZED (
    SELECT hash.*,
           workflow_id, names_reason, since, until,
           accepted,
           accepted AND NOT 'Activated' = ANY (event_types) AS is_open,
           (event_types || array_fill('VollzugsmeldungReceived'::text, ARRAY[
              greatest(events_per_stream - 4,
                       CASE
                         WHEN 'Activated' = ANY (event_types)
                           THEN width_bucket(notices_draw, '{0.60,0.85,0.95}'::float8[])
                         ELSE 0
                       END)]))[1:coalesce(events_per_stream, 7)] AS event_types,
           -- the first of eight tenants has 43 % of the streams, the last 3.5 % (weight 1 / rank^1.2)
           width_bucket(gpke.random_unit(place, 0),
                        '{0.429,0.615,0.730,0.811,0.873,0.923,0.965}'::float8[]) AS tenant,
           4000000000 + (gpke.random_unit(place, 1) * 5999999999)::bigint AS location,
           -- cubed, so that a few suppliers send most requests
           1 + floor(gpke.random_unit(request, 1) * gpke.random_unit(request, 1)
                     * gpke.random_unit(request, 1) * 40)::int AS supplier,
           floor(gpke.random_unit(request, 0) * 3)::int AS kind
    FROM hash
    JOIN lifecycle ON lifecycle_draw >= lifecycle.share_from AND lifecycle_draw < lifecycle.share_to
    JOIN version ON version_draw >= version.share_from AND version_draw < version.share_to
  ),
  started AS MATERIALIZED (
    SELECT choice.*,
           CASE
             WHEN is_open AND gpke.random_unit(start, 0) < 0.9 THEN
               until - interval '10 days' * gpke.random_unit(start, 1)
             WHEN is_open THEN
               until - interval '60 days' * gpke.random_unit(start, 1)
             ELSE
               since + (until - since) * (gpke.random_unit(start, 1) * gpke.random_unit(start, 1))
           END AS created_at
    FROM choice
  )
  SELECT nextval(stream_sequence) AS stream_no,
         stem,
         gpke.random_uuid(md5(seed || ':' || started.tenant || ':tenant')) AS tenant_id,
         gpke.random_uuid(process) AS process_id,
         gpke.random_uuid(conversation) AS conversation_id,
         workflow_id,
         event_types,
         is_open,
         until,
         created_at,
         -- the quotient of two such numbers lies around 1, half or twice as much being equally likely
         created_at + interval '18 hours' * ((0.5 + gpke.random_unit(start, 2)) / (0.5 + gpke.random_unit(start, 3)))
           AS answered_at,
         created_at::date + 1 + floor(gpke.random_unit(pace, 0) * 60)::int AS process_day,
         interval '10 days' / coalesce(events_per_stream, 4 + 10 * gpke.random_unit(pace, 1)) AS notice_gap,
         gpke.market_location(location) AS location_id,
         sender.code AS supplier,
         receiver.code AS grid_operator,
         request_pid,
         accepted,
         CASE WHEN accepted THEN accepted_pid ELSE refused_pid END AS response_pid,
         CASE
           WHEN names_reason THEN jsonb_build_object('transaktionsgrund',
             ('{NULL,E01,E03,Z33}'::text[])[
               1 + width_bucket(gpke.random_unit(request, 2), '{0.20,0.50,0.95}'::float8[])])
           ELSE '{}'
         END AS transaction_reason,
         request,
         answer,
         routing
  FROM started
  JOIN message USING (kind)
  JOIN partner AS sender ON sender.tenant = started.tenant AND sender.rank = started.supplier
  JOIN partner AS receiver ON receiver.tenant = started.tenant AND receiver.rank = 0
  ORDER BY created_at, i;

  INSERT INTO mako.stream (stream_no, stream_id, tenant_id, process_id, workflow_id, created_at)
  OVERRIDING SYSTEM VALUE
  SELECT stream_no, 'process/' || tenant_id || '/' || process_id, tenant_id, process_id, workflow_id, created_at
  FROM generated_stream
  ORDER BY stream_no;
  GET DIAGNOSTICS streams = ROW_COUNT;

  -- Streams interleave over time, and so they do in the table. Payloads are built after the sort, which stays small.
  INSERT INTO mako.event (stream_no, sequence_number, event_id, recorded_at, workflow_id, event_type, payload,
                          conversation_id)
  SELECT stream_no, sequence_number, gpke.random_uuid(hash), recorded_at, workflow_id,
         'SupplierChange' || type,
         CASE type
           WHEN 'Activated' THEN jsonb_build_object('type', type)
           ELSE jsonb_build_object('type', type, 'data',
             CASE type
               WHEN 'Initiated' THEN
                 jsonb_build_object(
                   'location_id', location_id,
                   'new_supplier', supplier,
                   'grid_operator', grid_operator,
                   'document_date', to_char(created_at, 'YYYYMMDD'),
                   'process_date', CASE WHEN gpke.random_unit(request, 3) < 0.97
                                     THEN to_char(process_day, 'YYYYMMDD')
                                     ELSE ''
                                   END,
                   'message_ref', message_ref,
                   'pruefidentifikator', request_pid)
                 || transaction_reason
               WHEN 'ValidationPassed' THEN
                 jsonb_build_object('message_ref', message_ref)
               WHEN 'AntwortGesendet' THEN
                 jsonb_build_object(
                   'response_pid', response_pid,
                   'accepted', accepted,
                   'reason', CASE WHEN NOT accepted THEN gpke.random_reason(answer) END)
               WHEN 'AperakFehlerDispatched' THEN
                 jsonb_build_object(
                   'aperak_pid', 29001,
                   'reason', gpke.random_reason(answer),
                   'outbound_ref', message_ref)
               WHEN 'Rejected' THEN
                 jsonb_build_object('reason', gpke.random_reason(answer))
               WHEN 'DeadlineExpired' THEN
                 jsonb_build_object(
                   'deadline_id', gpke.random_uuid(answer),
                   'label', 'gpke-response-24h-window')
               WHEN 'VollzugsmeldungReceived' THEN
                 jsonb_build_object(
                   'pid', 21024 + sequence_number % 5,
                   'sender', supplier,
                   'receiver', grid_operator,
                   'message_ref', message_ref)
             END)
         END,
         conversation_id
  FROM (SELECT stream.*, type, sequence_number,
               hash,
               CASE type
                 WHEN 'AperakFehlerDispatched' THEN 'APERAK-'
                 WHEN 'VollzugsmeldungReceived' THEN 'IFTSTA-'
                 ELSE 'UTILMD-'
               END || upper(left(hash, 8)) AS message_ref,
               CASE type
                 WHEN 'AntwortGesendet' THEN answered_at
                 WHEN 'Activated' THEN activated_at
                 WHEN 'VollzugsmeldungReceived' THEN activated_at + (sequence_number - 4) * notice_gap
                 WHEN 'AperakFehlerDispatched' THEN created_at + interval '45 minutes'
                 WHEN 'DeadlineExpired' THEN created_at + interval '1 day'
                 ELSE created_at
               END AS recorded_at
        FROM generated_stream AS stream
        CROSS JOIN LATERAL unnest(event_types) WITH ORDINALITY AS step (type, sequence_number)
        -- OFFSET 0 for the same reason as MATERIALIZED above
        CROSS JOIN LATERAL (SELECT md5(stem || 'event:' || sequence_number) AS hash OFFSET 0) AS random
        CROSS JOIN LATERAL (SELECT greatest(process_day::timestamptz, answered_at + interval '1 hour')
                                     AS activated_at) AS supply
        ORDER BY recorded_at, stream_no, sequence_number) AS event;
  GET DIAGNOSTICS events = ROW_COUNT;

  -- Partners answer with their conversation id, but few of them and only while there is something to answer.
  INSERT INTO mako.registry (tenant_id, key, stream_no)
  SELECT tenant_id, process_id::text, stream_no
  FROM generated_stream
  WHERE gpke.random_unit(routing, 0) < 0.98
  UNION ALL
  SELECT tenant_id, supplier || ':' || conversation_id, stream_no
  FROM generated_stream
  WHERE is_open AND gpke.random_unit(routing, 1) < 0.35;

  INSERT INTO mako.correlation (tenant_id, tag, stream_no)
  SELECT tenant_id, location_id, stream_no
  FROM generated_stream
  WHERE gpke.random_unit(routing, 2) < 0.95;

  -- At the end of a version's time 5 % of the deadlines are overdue.
  INSERT INTO gpke.deadline (deadline_id, tenant_id, process_id, workflow_id, label, due_at)
  SELECT gpke.random_uuid(md5(stem || label)), tenant_id, process_id, workflow_id, label,
         until + interval '2 days' * (gpke.random_unit(routing, 3) - 0.05)
  FROM generated_stream
  JOIN (VALUES ('gpke-response-24h-window', 3), ('aperak-strom-45min-window', 2)) AS clock (label, longest)
    ON cardinality(event_types) <= longest
  WHERE is_open;

  DROP TABLE generated_stream;
  RETURN NEXT;
END
$$;

-- Writes streams with the lifecycles of real ones, a tenth of them under FV2025-10-01.
CREATE FUNCTION gpke.generate(n_streams bigint, seed text DEFAULT 'mako')
RETURNS TABLE (streams bigint, events bigint)
LANGUAGE sql VOLATILE PARALLEL UNSAFE AS $$
  SELECT * FROM gpke.generate_streams(n_streams, seed, NULL)
$$;

-- Writes streams of equal length under FV2024-10-01: a supply begins, and from the fifth event on come notices of it.
CREATE FUNCTION gpke.generate_uniform(n_streams bigint, events_per_stream int, seed text DEFAULT 'mako')
RETURNS TABLE (streams bigint, events bigint)
LANGUAGE sql VOLATILE PARALLEL UNSAFE AS $$
  SELECT * FROM gpke.generate_streams(n_streams, seed, events_per_stream)
$$;
