-- What one check against a compiled type definition costs: psql -X -q -f test/bench/type_check.sql
--
-- A million calls of mako_is_valid() with payloads of the event Initiated of gpke-supplier-change, less the same loop without the call,
-- the best of five. The filter of an aggregate runs for each row that the join makes. A call compares the definition with the one that it
-- compiled last, so this is a little more than what a migration pays.
\set QUIET on
\set ON_ERROR_STOP on
\pset pager off
SET client_min_messages = warning;
CREATE SCHEMA IF NOT EXISTS mako_migration;
CREATE EXTENSION IF NOT EXISTS mako_migration SCHEMA mako_migration;
SET jit = off;
SET max_parallel_workers_per_gather = 0;
SET work_mem = '64MB';
SET search_path = pg_temp, mako_migration, public;

CREATE TEMP TABLE payload AS
SELECT jsonb_build_object('type', 'Initiated', 'data', jsonb_build_object(
         'location_id', lpad((n * 7919)::text, 11, '5'),
         'new_supplier', '99' || lpad(n::text, 11, '0'),
         'grid_operator', '98' || lpad(n::text, 11, '0'),
         'document_date', to_char(date '2024-10-01' + n % 365, 'YYYYMMDD'),
         'process_date', to_char(date '2024-10-15' + n % 365, 'YYYYMMDD'),
         'transaktionsgrund', CASE WHEN n % 3 > 0 THEN 'E03' END,
         'message_ref', md5(n::text),
         'pruefidentifikator', 55001 + n % 20)) AS payload
FROM generate_series(1, 1000) AS n;
CREATE TEMP TABLE repetition AS SELECT n FROM generate_series(1, 1000) AS n;
ANALYZE payload, repetition;

-- Milliseconds that counting takes.
CREATE FUNCTION pg_temp.duration(condition text, expected bigint) RETURNS double precision LANGUAGE plpgsql AS $$
DECLARE
  started timestamptz;
  best double precision := 'infinity';
  counted bigint;
BEGIN
  FOR i IN 1 .. 5 LOOP
    started := clock_timestamp();
    EXECUTE format('SELECT count(*) FILTER (WHERE %s) FROM repetition CROSS JOIN payload', condition) INTO counted;
    best := least(best, 1000 * extract(epoch FROM clock_timestamp() - started));
    ASSERT counted = expected, format('%s were counted', counted);
  END LOOP;
  RETURN best;
END $$;

CREATE TEMP TABLE result AS
SELECT pg_temp.duration('payload IS NOT NULL', 1000000) AS empty_loop,
       pg_temp.duration(format('mako_is_valid(%L, payload)', $definition$
{"discriminator": "type",
 "mapping": {
   "Initiated": {"metadata": {"event_type": "SupplierChangeInitiated"}, "properties": {"data": {
     "properties": {"location_id": {"type": "string"}, "new_supplier": {"type": "string"}, "grid_operator": {"type": "string"},
                    "document_date": {"type": "string"}, "message_ref": {"type": "string"}, "pruefidentifikator": {"type": "uint32"}},
     "optionalProperties": {"process_date": {"type": "string"}, "transaktionsgrund": {"type": "string", "nullable": true}}}}},
   "ValidationPassed": {"properties": {"data": {"properties": {"message_ref": {"type": "string"}}}}},
   "AntwortGesendet": {"properties": {"data": {
     "properties": {"accepted": {"type": "boolean"}},
     "optionalProperties": {"response_pid": {"type": "uint32", "nullable": true}, "reason": {"type": "string", "nullable": true}}}}},
   "Activated": {"properties": {}},
   "AperakFehlerDispatched": {"properties": {"data": {
     "properties": {"aperak_pid": {"type": "uint32"}, "reason": {"type": "string"}, "outbound_ref": {"type": "string"}}}}},
   "Rejected": {"properties": {"data": {"properties": {"reason": {"type": "string"}}}}},
   "DeadlineExpired": {"properties": {"data": {"properties": {"deadline_id": {"type": "string"}, "label": {"type": "string"}}}}},
   "VollzugsmeldungReceived": {"properties": {"data": {
     "properties": {"pid": {"type": "uint32"}, "sender": {"type": "string"}, "receiver": {"type": "string"}, "message_ref": {"type": "string"}}}}}}}
$definition$), 1000000) AS with_check;

SELECT round((with_check - empty_loop)::numeric) AS "ns per check",
       round(empty_loop::numeric) AS "ms for a million rows",
       round(with_check::numeric) AS "ms with checks"
FROM result;
