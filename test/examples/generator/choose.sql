-- Generates streams of the four example workflows, good ones and bad ones: makes every random choice. Needs neither the
-- extension nor the workflows' functions.
--
--   SELECT generator.choose('seed', 100000);                            -- every choice, into generator.stream
--   SELECT * FROM generator.expected WHERE seed = 'seed';               -- expected.sql: what a migration must make of them
--   SELECT generator.load('seed');                                      -- load.sql: into the store
--
-- All randomness is md5 over the seed, the number of the stream and a fixed word, so that the same parameters give the
-- same streams on every machine and every version of PostgreSQL, and a new choice never shifts the others. The only
-- functions of floating point are + - * / sqrt and floor, which have the same result everywhere.
--
-- Words. A *life* is what happens in a process, as a list of payload types. *Poison* is what is wrong with a stream, and
-- poison_at the event that it is in. The *old layout* of events is the one before FV2026-10-01.

CREATE SCHEMA generator;

----------------------------------------------------------------------------------------------------
-- What can happen
----------------------------------------------------------------------------------------------------

-- Shares within a workflow: of the format versions that streams run under.
CREATE TABLE generator.version_share (workflow, format_version, new_layout, share_from, share_to, since, until) AS
SELECT workflow, format_version, format_version = 'FV2026-10-01',
       lag(share_to, 1, 0.0::float8) OVER (PARTITION BY workflow ORDER BY share_to), share_to,
       substr(format_version, 3)::date,
       CASE format_version
         WHEN 'FV2024-10-01' THEN date '2025-06-06'
         WHEN 'FV2025-06-06' THEN date '2025-10-01'
         ELSE date '2026-09-28'
       END
FROM (VALUES
  ('gpke-supplier-change', 'FV2024-10-01', 0.04::float8),
  ('gpke-supplier-change', 'FV2025-06-06', 0.12),
  ('gpke-supplier-change', 'FV2025-10-01', 0.95),
  ('gpke-supplier-change', 'FV2026-10-01', 1.00),
  ('gpke-lf-anmeldung', 'FV2024-10-01', 0.02),
  ('gpke-lf-anmeldung', 'FV2025-06-06', 0.07),
  ('gpke-lf-anmeldung', 'FV2025-10-01', 0.95),
  ('gpke-lf-anmeldung', 'FV2026-10-01', 1.00),
  ('wim-device-change', 'FV2024-10-01', 0.03),
  ('wim-device-change', 'FV2025-06-06', 0.10),
  ('wim-device-change', 'FV2025-10-01', 0.95),
  ('wim-device-change', 'FV2026-10-01', 1.00),
  ('geli-gas-supplier-change', 'FV2025-06-06', 0.05),
  ('geli-gas-supplier-change', 'FV2025-10-01', 0.90),
  ('geli-gas-supplier-change', 'FV2026-10-01', 1.00)) AS v (workflow, format_version, share_to);

-- Shares within a workflow and a layout: of lives. tail is a type of which some more may follow; is_open tells
-- whether the process still waits for something. Lives of one name differ between workflows.
CREATE TABLE generator.lifecycle (workflow, new_layout, life, is_open, types, tail, share_from, share_to) AS
SELECT l.workflow, layout.new_layout, l.life, l.is_open, l.types::text[], l.tail,
       lag(l.share_to, 1, 0.0::float8) OVER (PARTITION BY l.workflow, layout.new_layout ORDER BY l.share_to), l.share_to
FROM (VALUES
  ('gpke-supplier-change', NULL, 'active', false, '{Initiated,ValidationPassed,AntwortGesendet,Activated}',
   'VollzugsmeldungReceived', 0.53::float8),
  ('gpke-supplier-change', NULL, 'validated', true, '{Initiated,ValidationPassed}', NULL, 0.68),
  ('gpke-supplier-change', NULL, 'answered', true, '{Initiated,ValidationPassed,AntwortGesendet}', NULL, 0.80),
  ('gpke-supplier-change', NULL, 'refused', false, '{Initiated,ValidationPassed,AntwortGesendet}', NULL, 0.88),
  ('gpke-supplier-change', NULL, 'invalid', false, '{Initiated,Rejected}', NULL, 0.92),
  ('gpke-supplier-change', NULL, 'deadline', false, '{Initiated,ValidationPassed,DeadlineExpired}', NULL, 0.95),
  ('gpke-supplier-change', NULL, 'aperak', false, '{Initiated,ValidationPassed,AperakFehlerDispatched}', NULL, 0.97),
  ('gpke-supplier-change', NULL, 'initiated', true, '{Initiated}', NULL, 0.98),
  -- an event that comes too late to matter, one that overrules all others, and a second beginning
  ('gpke-supplier-change', NULL, 'late', false,
   '{Initiated,ValidationPassed,AntwortGesendet,Activated,DeadlineExpired}', NULL, 0.99),
  ('gpke-supplier-change', NULL, 'overruled', false,
   '{Initiated,ValidationPassed,AntwortGesendet,Activated,AntwortGesendet}', NULL, 0.995),
  ('gpke-supplier-change', NULL, 'restarted', true,
   '{Initiated,Rejected,Activated,Initiated,ValidationPassed}', NULL, 1.00),

  ('gpke-lf-anmeldung', NULL, 'active', false, '{Initiated,AntwortReceived}', NULL, 0.30),
  ('gpke-lf-anmeldung', NULL, 'activated', false, '{Initiated,AntwortReceived,Activated}', NULL, 0.60),
  ('gpke-lf-anmeldung', NULL, 'pending', true, '{Initiated}', NULL, 0.82),
  ('gpke-lf-anmeldung', NULL, 'refused', false, '{Initiated,AntwortReceived}', NULL, 0.97),
  ('gpke-lf-anmeldung', NULL, 'deadline', false, '{Initiated,DeadlineExpired}', NULL, 1.00),

  ('geli-gas-supplier-change', false, 'active', false, '{Initiated,ValidationPassed,AperakDispatched,Activated}', NULL, 0.45),
  ('geli-gas-supplier-change', false, 'answered', true, '{Initiated,ValidationPassed,AperakDispatched}', NULL, 0.70),
  ('geli-gas-supplier-change', false, 'validated', true, '{Initiated,ValidationPassed}', NULL, 0.88),
  ('geli-gas-supplier-change', false, 'initiated', true, '{Initiated}', NULL, 0.90),
  ('geli-gas-supplier-change', false, 'refused', false, '{Initiated,ValidationPassed,AperakDispatched}', NULL, 0.94),
  ('geli-gas-supplier-change', false, 'invalid', false, '{Initiated,Rejected}', NULL, 0.98),
  ('geli-gas-supplier-change', false, 'deadline', false, '{Initiated,ValidationPassed,DeadlineExpired}', NULL, 1.00),

  ('geli-gas-supplier-change', true, 'active', false, '{Initiated,ValidationPassed,AntwortGesendet,Activated}', NULL, 0.40),
  ('geli-gas-supplier-change', true, 'completed', false, '{GnbProcessInitiated,GnbAntwortErhalten}', NULL, 0.55),
  ('geli-gas-supplier-change', true, 'validated', true, '{Initiated,ValidationPassed}', NULL, 0.70),
  ('geli-gas-supplier-change', true, 'answered', true, '{Initiated,ValidationPassed,AntwortGesendet}', NULL, 0.82),
  ('geli-gas-supplier-change', true, 'gnb_pending', true, '{GnbProcessInitiated}', NULL, 0.90),
  ('geli-gas-supplier-change', true, 'refused', false, '{Initiated,ValidationPassed,AntwortGesendet}', NULL, 1.00),

  ('wim-device-change', false, 'initiated', true, '{Initiated}', NULL, 0.05),
  ('wim-device-change', false, 'validated', true, '{Initiated,ValidationPassed}', NULL, 0.20),
  ('wim-device-change', false, 'answered', true, '{Initiated,ValidationPassed,AperakDispatched}', NULL, 0.45),
  ('wim-device-change', false, 'refused', false, '{Initiated,ValidationPassed,AperakDispatched}', NULL, 0.51),
  ('wim-device-change', false, 'completed', false, '{Initiated,ValidationPassed,AperakDispatched,Completed}',
   'IftstaStatusReceived', 0.71),
  ('wim-device-change', false, 'ordered', true, '{AuftragGesendet}', NULL, 0.79),
  ('wim-device-change', false, 'confirmed', true, '{AuftragGesendet,AntwortEmpfangen}', NULL, 0.87),
  ('wim-device-change', false, 'declined', false, '{AuftragGesendet,AntwortEmpfangen}', NULL, 0.90),
  ('wim-device-change', false, 'delivered', false, '{AuftragGesendet,AntwortEmpfangen,Completed}', NULL, 0.95),
  ('wim-device-change', false, 'deadline', false, '{Initiated,ValidationPassed,DeadlineExpired}', NULL, 0.97),
  ('wim-device-change', false, 'invalid', false, '{Initiated,Rejected}', NULL, 1.00),

  ('wim-device-change', true, 'completed', false,
   '{Initiated,ValidationPassed,AperakDispatched,AntwortGesendet,GesamtvorgangGemeldet,ZuordnungEntschieden}',
   'IftstaStatusReceived', 0.24),
  ('wim-device-change', true, 'answered', true, '{Initiated,ValidationPassed,AperakDispatched,AntwortGesendet}', NULL, 0.44),
  ('wim-device-change', true, 'owed', true, '{Initiated,ValidationPassed,AperakDispatched}', NULL, 0.60),
  ('wim-device-change', true, 'reported', true,
   '{Initiated,ValidationPassed,AperakDispatched,AntwortGesendet,GesamtvorgangGemeldet}', NULL, 0.70),
  ('wim-device-change', true, 'assigned', false,
   '{AuftragGesendet,AntwortEmpfangen,GesamtvorgangGemeldet,ZuordnungEntschieden}', NULL, 0.80),
  ('wim-device-change', true, 'declined', false, '{AuftragGesendet,AntwortEmpfangen}', NULL, 0.90),
  ('wim-device-change', true, 'failed', false,
   '{Initiated,ValidationPassed,AperakDispatched,AntwortGesendet,GesamtvorgangGemeldet}', NULL, 1.00)
) AS l (workflow, new_layout, life, is_open, types, tail, share_to)
JOIN (VALUES (false), (true)) AS layout (new_layout) ON l.new_layout IS NULL OR l.new_layout = layout.new_layout;

-- What can be wrong with a stream, and the life that it takes, where not every life does. No state of
-- geli-gas-supplier-change falls out of its type: whatever could is refused before.
--
--   unknown_type        the payload names a type that nobody knows
--   foreign_event_type  the event type belongs to another payload type
--   missing_field       a mandatory field is not there
--   wrong_json_type     a field, or all of the data, has another JSON type, or a number does not fit
--   no_object           the payload is null, a number, a string or an array
--   schema_version      a schema version that nobody knows
--   refused             the migration of the state is refused
--   state_type          the migrated state is outside its type
--   foreign_snapshot    a periodic snapshot of another layout, which must not count for anything
CREATE TABLE generator.poison (workflow, ordinal, poison, life) AS
SELECT workflow, row_number() OVER (PARTITION BY workflow ORDER BY ordinal), poison, life
FROM (VALUES
  ('gpke-supplier-change', 'answered', 'initiated'),
  ('gpke-lf-anmeldung', 'pending', 'activated'),
  ('geli-gas-supplier-change', 'active', NULL),
  ('wim-device-change', 'answered', 'validated')) AS w (workflow, refused_life, state_type_life)
CROSS JOIN LATERAL (VALUES
  (1, 'unknown_type', NULL),
  (2, 'foreign_event_type', NULL),
  (3, 'missing_field', NULL),
  (4, 'wrong_json_type', NULL),
  (5, 'no_object', NULL),
  (6, 'schema_version', NULL),
  (7, 'refused', refused_life),
  (8, 'foreign_snapshot', NULL),
  (9, 'state_type', state_type_life)) AS p (ordinal, poison, life)
WHERE p.poison <> 'state_type' OR state_type_life IS NOT NULL;

-- The messages that start a process, with the accepting and the refusing answer. Those of the gas grid operator, which
-- have states of their own in the new layout, come last.
CREATE TABLE generator.message (workflow, share_from, share_to, pid, accepted_pid, refused_pid, variant) AS
SELECT workflow, lag(share_to, 1, 0.0::float8) OVER (PARTITION BY workflow ORDER BY share_to), share_to,
       pid, accepted_pid, refused_pid, variant
FROM (VALUES
  ('gpke-supplier-change', 0.40::float8, 55001::bigint, 55002, 55003, NULL),
  ('gpke-supplier-change', 0.80, 55004, 55005, 55006, NULL),
  ('gpke-supplier-change', 1.00, 55077, 55078, 55080, NULL),
  ('gpke-lf-anmeldung', 0.40, 55001, 55002, 55003, NULL),
  ('gpke-lf-anmeldung', 0.70, 55004, 55005, 55006, NULL),
  ('gpke-lf-anmeldung', 0.80, 55016, 55017, 55018, NULL),
  ('gpke-lf-anmeldung', 1.00, 55077, 55078, 55080, NULL),
  ('geli-gas-supplier-change', 0.50, 44001, 44002, 44003, 'LieferbeginnGas'),
  ('geli-gas-supplier-change', 0.65, 44004, 44005, 44006, 'LieferendeGas'),
  ('geli-gas-supplier-change', 0.73, 44016, 44017, 44018, 'KuendigungLfa'),
  ('geli-gas-supplier-change', 0.78, 44020, 44021, NULL, 'Aenderungsmeldung'),
  ('geli-gas-supplier-change', 0.84, 44007, 44008, 44009, 'AbmeldungNn'),
  ('geli-gas-supplier-change', 0.89, 44010, 44011, 44012, 'Abmeldungsanfrage'),
  ('geli-gas-supplier-change', 0.94, 44013, 44014, 44015, 'EogAnmeldung'),
  ('geli-gas-supplier-change', 1.00, 44019, NULL, NULL, 'Bestandsliste'),
  ('wim-device-change', 0.40, 55039, 55040, 55041, NULL),
  ('wim-device-change', 0.75, 55042, 55043, 55044, NULL),
  ('wim-device-change', 0.90, 55051, 55052, 55053, NULL),
  ('wim-device-change', 1.00, 55168, 55169, 55170, NULL)
) AS m (workflow, share_to, pid, accepted_pid, refused_pid, variant);

----------------------------------------------------------------------------------------------------
-- Random values and valid identifiers
----------------------------------------------------------------------------------------------------

-- Cuts one of four independent numbers in [0, 1) out of an md5 hash.
CREATE FUNCTION generator.unit(hash text, slice int) RETURNS float8
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT ('x' || substr(hash, 1 + 8 * slice, 8))::bit(32)::bigint::float8 / 4294967296
$$;

-- Makes a version 4 uuid of an md5 hash.
CREATE FUNCTION generator.uuid(hash text) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT overlay(overlay(hash PLACING '4' FROM 13) PLACING '8' FROM 17)::uuid
$$;

-- Computes the check digit of ten digits: those at odd places count once, those at even places twice, and
-- the check digit fills up to the next multiple of ten.
CREATE FUNCTION generator.check_digit(digits bigint) RETURNS int
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT ((10 - (  digits / 1000000000 % 10 + digits / 10000000 % 10 + digits / 100000 % 10
                 + digits / 1000 % 10 + digits / 10 % 10
                 + 2 * (  digits / 100000000 % 10 + digits / 1000000 % 10 + digits / 10000 % 10
                        + digits / 100 % 10 + digits % 10)) % 10) % 10)::int
$$;

-- Makes the code of a market partner: 99, ten digits, and a check digit to which the 99 adds 9 + 2 * 9.
CREATE FUNCTION generator.market_partner(digits bigint) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT '99' || lpad(digits::text, 10, '0') || (generator.check_digit(digits) + 3) % 10
$$;

-- Makes up the reference of a message.
CREATE FUNCTION generator.message_ref(hash text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT 'REF-' || upper(left(hash, 8))
$$;

-- Makes up why something was refused, in 2 % of all cases at length.
CREATE FUNCTION generator.reason(hash text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT repeat(
    (ARRAY['Marktlokation unbekannt; ',
           'Prozessdatum liegt zurück: Frist "1 WT" überschritten; ',
           'Lieferant nicht zugeordnet (\ZUORD\); ',
           'Größe „Jahresverbrauch“ > 100000 kWh ⚡; '])[1 + floor(generator.unit(hash, 2) * 4)::int],
    CASE WHEN generator.unit(hash, 3) < 0.02 THEN 60 ELSE 1 END)
$$;

-- Makes up 64 to 256 kB that do not compress well, in pieces of 1 kB.
CREATE FUNCTION generator.errors(hash text) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT jsonb_agg(piece ORDER BY n)
  FROM (SELECT n, string_agg(md5(hash || n || ':' || m), '"ü\' ORDER BY m) AS piece
        FROM generate_series(1, 64 + floor(generator.unit(hash, 0) * 192)::int) AS n, generate_series(1, 28) AS m
        GROUP BY n) AS pieces
$$;

----------------------------------------------------------------------------------------------------
-- The choices
----------------------------------------------------------------------------------------------------

-- A stream and every value in it that is not a mere reference. Null is a field that is not there, or is null: which of
-- the two tells writes_null.
CREATE TABLE generator.stream (
  seed text NOT NULL,
  i bigint NOT NULL,
  stream_id text COLLATE "C" NOT NULL,
  tenant_id uuid NOT NULL,
  process_id uuid,
  conversation_id uuid NOT NULL,
  workflow text NOT NULL,
  format_version text NOT NULL,
  new_layout boolean NOT NULL,
  life text NOT NULL,
  is_open boolean NOT NULL,
  types text[] NOT NULL,
  poison text,
  poison_at bigint,
  poison_kind int NOT NULL,
  pid bigint NOT NULL,
  variant text,
  accepted_pid bigint,
  refused_pid bigint,
  location_id text NOT NULL,
  partner text NOT NULL,
  operator text NOT NULL,
  document_date text NOT NULL,
  process_date text,
  later_date text,
  transaktionsgrund text,
  device_id text NOT NULL,
  reason text,
  label text NOT NULL,
  writes_null boolean NOT NULL,
  is_huge boolean NOT NULL,
  created_at timestamptz NOT NULL,
  answered_at timestamptz NOT NULL,
  gap interval NOT NULL,
  due_at timestamptz NOT NULL,
  routing text NOT NULL,
  PRIMARY KEY (seed, i)
);

-- Makes the choices for a seed; returns the number of streams.
--
-- The time zone is set because dates depend on the caller's one otherwise; the statement is long and runs once, which is
-- what just-in-time compilation is bad at.
CREATE FUNCTION generator.choose(seed text, n_streams bigint, n_tenants int DEFAULT 8, poison_rate float8 DEFAULT 0.01)
RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET timezone = 'Europe/Berlin'
SET work_mem = '256MB'
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
  -- the tenant of rank k has a share of 1 / k^1.25
  shares CONSTANT float8[] := (
    SELECT array_agg(share_to ORDER BY k)
    FROM (SELECT k, sum(floor(1e9 / (k * sqrt(sqrt(k::float8)))))  OVER (ORDER BY k)
                    / sum(floor(1e9 / (k * sqrt(sqrt(k::float8))))) OVER () AS share_to
          FROM generate_series(1, n_tenants) AS k) AS weight);
  streams bigint;
BEGIN
  INSERT INTO generator.stream
  WITH hash AS MATERIALIZED (
    SELECT i,
           seed || ':' || i || ':' AS stem,
           md5(seed || ':' || i || ':life') AS life_hash,
           md5(seed || ':' || i || ':poison') AS poison_hash,
           md5(seed || ':' || i || ':request') AS request,
           md5(seed || ':' || i || ':answer') AS answer,
           md5(seed || ':' || i || ':start') AS start,
           md5(seed || ':' || i || ':detail') AS detail,
           md5(seed || ':' || i || ':oddity') AS oddity,
           md5(seed || ':' || i || ':routing') AS routing,
           md5(seed || ':' || i || ':process') AS process
    FROM generate_series(1, n_streams) AS i
  ),
  workflow AS MATERIALIZED (
    SELECT hash.*,
           -- 6 % of the locations see a second process
           md5(seed || ':' || i - (generator.unit(oddity, 0) > 0.94)::int || ':place') AS place,
           (ARRAY['gpke-supplier-change', 'gpke-lf-anmeldung', 'wim-device-change', 'geli-gas-supplier-change'])[
              1 + width_bucket(generator.unit(life_hash, 0), '{0.472,0.722,0.847}'::float8[])] AS workflow
    FROM hash
  ),
  version AS MATERIALIZED (
    SELECT workflow.*, v.format_version, v.new_layout, v.since, v.until,
           -- streams that are not migrated may be bad as well, but those of the new layout are folded
           CASE
             WHEN v.new_layout OR generator.unit(poison_hash, 0) >= poison_rate THEN 0
             ELSE 1 + floor(generator.unit(poison_hash, 1) * CASE workflow.workflow WHEN 'geli-gas-supplier-change' THEN 8 ELSE 9 END)
           END AS poison_ordinal
    FROM workflow
    JOIN generator.version_share AS v
      ON v.workflow = workflow.workflow
     AND generator.unit(life_hash, 1) >= v.share_from AND generator.unit(life_hash, 1) < v.share_to
  ),
  -- rank 0 is a tenant's own code, 1 to 40 are those of the partners it deals with
  partner AS MATERIALIZED (
    SELECT tenant, rank,
           generator.market_partner((generator.unit(md5(seed || ':' || tenant || ':' || rank || ':partner'), 0)
                                     * 9999999999)::bigint) AS code
    FROM generate_series(0, n_tenants - 1) AS tenant, generate_series(0, 40) AS rank
  ),
  chosen AS MATERIALIZED (
    SELECT version.*,
           p.poison AS poison_name,
           l.life AS life_name,
           l.is_open,
           CASE
             WHEN generator.unit(oddity, 1) < 0.003 AND p.poison IS NULL THEN '{}'::text[]
             ELSE l.types || array_fill(coalesce(l.tail, ''),
                    ARRAY[CASE WHEN l.tail IS NULL THEN 0
                               ELSE width_bucket(generator.unit(life_hash, 3), '{0.60,0.85,0.95}'::float8[]) END])
           END AS types,
           m.pid, m.accepted_pid, m.refused_pid, m.variant,
           least(width_bucket(generator.unit(place, 0), shares), n_tenants - 1) AS tenant,
           -- cubed, so that a few partners send most requests
           1 + floor(generator.unit(request, 1) * generator.unit(request, 1) * generator.unit(request, 1) * 40)::int
             AS supplier,
           4000000000 + (generator.unit(place, 1) * 5999999999)::bigint AS location
    FROM version
    LEFT JOIN generator.poison AS p ON p.workflow = version.workflow AND p.ordinal = poison_ordinal
    JOIN generator.lifecycle AS l
      ON l.workflow = version.workflow AND l.new_layout = version.new_layout
     AND CASE
           WHEN p.life IS NOT NULL THEN l.life = p.life
           ELSE generator.unit(life_hash, 2) >= l.share_from AND generator.unit(life_hash, 2) < l.share_to
         END
    CROSS JOIN LATERAL (
      -- in the new layout each life of a gas process has its own messages, and lists, which are not answered, have none
      SELECT CASE
               WHEN NOT version.new_layout OR version.workflow <> 'geli-gas-supplier-change' THEN generator.unit(request, 0)
               WHEN l.types[1] = 'GnbProcessInitiated' THEN 0.78 + generator.unit(request, 0) * 0.159
               ELSE generator.unit(request, 0) * 0.779
             END AS draw) AS message
    JOIN generator.message AS m
      ON m.workflow = version.workflow AND draw >= m.share_from AND draw < m.share_to
  ),
  dated AS MATERIALIZED (
    SELECT chosen.*,
           CASE
             WHEN is_open AND generator.unit(start, 0) < 0.9 THEN
               until::timestamptz - interval '1 second' * floor(10 * 86400 * generator.unit(start, 1))
             WHEN is_open THEN
               until::timestamptz - interval '1 second' * floor(60 * 86400 * generator.unit(start, 1))
             ELSE
               since::timestamptz + interval '1 second'
                 * floor((until - since) * 86400 * (generator.unit(start, 1) * generator.unit(start, 1)))
           END AS created_at,
           generator.uuid(md5(seed || ':' || tenant || ':tenant')) AS tenant_id,
           generator.uuid(process) AS process_id,
           generator.unit(oddity, 2) < 0.003 AS is_no_process,
           1 + floor(generator.unit(poison_hash, 2) * greatest(cardinality(types), 1))::int AS poison_draw,
           floor(generator.unit(poison_hash, 3) * 4)::int AS poison_kind
    FROM chosen
  )
  SELECT seed,
         i,
         CASE WHEN is_no_process THEN 'partner/' || process_id
              ELSE 'process/' || tenant_id || '/' || process_id END,
         tenant_id,
         CASE WHEN NOT is_no_process THEN process_id END,
         generator.uuid(md5(stem || 'conversation')),
         dated.workflow,
         format_version,
         new_layout,
         life_name,
         is_open,
         types,
         poison_name,
         -- Activated has no field that could be missing or wrong
         CASE
           WHEN poison_name IS NULL OR poison_name IN ('refused', 'state_type') THEN NULL
           WHEN poison_name IN ('missing_field', 'wrong_json_type') AND types[poison_draw] = 'Activated' THEN 1
           ELSE poison_draw
         END,
         poison_kind,
         CASE
           WHEN poison_name = 'refused' AND dated.workflow = 'geli-gas-supplier-change' THEN
             ('{44002,44003,44005,7}'::bigint[])[1 + poison_kind]
           WHEN poison_name = 'state_type' THEN
             ('{65536,70000,4294967295,100000}'::bigint[])[1 + poison_kind]
           ELSE pid
         END,
         variant,
         CASE WHEN poison_name IS DISTINCT FROM 'refused' OR dated.workflow <> 'gpke-supplier-change' THEN accepted_pid END,
         refused_pid,
         CASE
           WHEN dated.workflow = 'wim-device-change' THEN 'DE' || (location * 10 + 7) || upper(left(place, 20))
           WHEN dated.workflow = 'gpke-lf-anmeldung' AND poison_name = 'refused' THEN
             (ARRAY['D', '1', 'e', ''])[1 + poison_kind] || CASE WHEN poison_kind < 3 THEN location::text ELSE '' END
           WHEN dated.workflow = 'gpke-lf-anmeldung' AND generator.unit(detail, 3) < 0.05 THEN 'E' || location
           ELSE location::text || generator.check_digit(location)
         END,
         sender.code,
         -- orders from the REST interface have no grid operator
         CASE
           WHEN dated.workflow = 'wim-device-change' AND types[1] = 'Initiated' AND generator.unit(detail, 0) < 0.1 THEN ''
           ELSE receiver.code
         END,
         CASE
           WHEN dated.workflow = 'wim-device-change' AND poison_name = 'refused' THEN
             (ARRAY['', '|category=', '|', '|category=Z01'])[1 + poison_kind]
           WHEN dated.workflow = 'wim-device-change' AND types[1] = 'Initiated' AND generator.unit(detail, 0) < 0.1 THEN
             to_char(created_at, 'YYYYMMDD') || '|category=Z01'
           ELSE to_char(created_at, 'YYYYMMDD')
         END,
         -- a field that is there is empty in 3 % of all streams; it is missing only where there is a default
         CASE
           WHEN generator.unit(request, 3) < 0.03 THEN ''
           WHEN generator.unit(request, 3) < 0.10
                AND (dated.workflow = 'gpke-supplier-change' OR new_layout AND dated.workflow = 'geli-gas-supplier-change'
                     OR new_layout AND dated.workflow = 'wim-device-change' AND types[1] = 'Initiated')
             THEN NULL
           ELSE to_char(created_at::date + 1 + floor(generator.unit(detail, 1) * 60)::int, 'YYYYMMDD')
         END,
         CASE WHEN generator.unit(detail, 2) < 0.5 THEN to_char(created_at::date + 70, 'YYYYMMDD') END,
         ('{NULL,E01,E03,Z33}'::text[])[1 + width_bucket(generator.unit(request, 2), '{0.20,0.50,0.95}'::float8[])],
         'TX-' || upper(left(answer, 10)),
         CASE
           WHEN life_name IN ('refused', 'declined') AND generator.unit(answer, 1) < 0.3 THEN NULL
           ELSE generator.reason(answer)
         END,
         CASE dated.workflow
           WHEN 'gpke-supplier-change' THEN 'gpke-response-24h-window'
           WHEN 'gpke-lf-anmeldung' THEN 'nb-response-window'
           WHEN 'wim-device-change' THEN 'wim-device-change-antwort-frist'
           ELSE CASE WHEN new_layout THEN 'geli-gas-antwortfrist' ELSE 'geli-gas-aperak-10-werktage' END
         END,
         generator.unit(answer, 0) < 0.5,
         generator.unit(oddity, 3) < 0.002,
         created_at,
         -- the quotient of two such numbers lies around 1, half or twice as much being equally likely
         created_at + interval '1 second'
           * floor(3600 * CASE dated.workflow
                            WHEN 'wim-device-change' THEN 96
                            WHEN 'geli-gas-supplier-change' THEN 60
                            ELSE 18
                          END * ((0.5 + generator.unit(start, 2)) / (0.5 + generator.unit(start, 3)))),
         interval '1 second' * floor(10 * 86400 / (4 + 10 * generator.unit(detail, 1))),
         -- at the end of a version's time 5 % of the deadlines are overdue
         until::timestamptz + interval '1 second' * floor(2 * 86400 * (generator.unit(detail, 2) - 0.05)),
         routing
  FROM dated
  JOIN partner AS sender ON sender.tenant = dated.tenant AND sender.rank = dated.supplier
  JOIN partner AS receiver ON receiver.tenant = dated.tenant AND receiver.rank = 0;
  GET DIAGNOSTICS streams = ROW_COUNT;
  RETURN streams;
END
$$;

----------------------------------------------------------------------------------------------------
-- The events
----------------------------------------------------------------------------------------------------

-- Every event of a seed as it is stored, poison included. OFFSET 0 keeps a payload from being built again for every look
-- at it.
CREATE FUNCTION generator.event(seed text)
RETURNS TABLE (i bigint, stream_id text, sequence_number bigint, event_id uuid, recorded_at timestamptz, workflow_id text,
               event_type text, schema_version int, payload jsonb, conversation_id uuid)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
SELECT i, stream_id, sequence_number,
       generator.uuid(hash) AS event_id,
       recorded_at,
       workflow || '@' || format_version AS workflow_id,
       CASE workflow
         WHEN 'gpke-supplier-change' THEN 'SupplierChange'
         WHEN 'gpke-lf-anmeldung' THEN 'LfAnmeldung'
         WHEN 'geli-gas-supplier-change' THEN 'GasSupplierChange'
         ELSE 'WimDeviceChange'
       END
       || CASE
            WHEN is_poisoned AND poison = 'foreign_event_type' THEN
              CASE type WHEN 'DeadlineExpired' THEN 'Initiated' ELSE 'DeadlineExpired' END
            ELSE type
          END AS event_type,
       CASE
         WHEN is_poisoned AND poison = 'schema_version' THEN ('{2,7,2147483647,2}'::int[])[1 + poison_kind]
         ELSE 1
       END AS schema_version,
       CASE
         WHEN NOT is_poisoned THEN payload
         ELSE
           CASE poison
             WHEN 'unknown_type' THEN jsonb_set(payload, '{type}', '"Frobnicated"')
             WHEN 'missing_field' THEN payload #- mandatory
             WHEN 'wrong_json_type' THEN
               CASE
                 WHEN poison_kind = 0 THEN jsonb_set(payload, '{data}', '[]')
                 WHEN poison_kind = 1 AND sequence_number = 1 THEN
                   jsonb_set(payload, '{data,pruefidentifikator}', '4294967296')
                 WHEN poison_kind = 2 AND sequence_number = 1 THEN
                   jsonb_set(payload, '{data,pruefidentifikator}', '55001.5')
                 ELSE jsonb_set(payload, mandatory,
                        CASE jsonb_typeof(payload #> mandatory)
                          WHEN 'boolean' THEN '"true"'::jsonb
                          WHEN 'number' THEN '-1'
                          ELSE '42'
                        END)
               END
             WHEN 'no_object' THEN '[null, 42, "x", []]'::jsonb->poison_kind
             ELSE payload
           END
       END AS payload,
       conversation_id
FROM (
  SELECT s.*, type, sequence_number, hash,
         s.poison_at IS NOT DISTINCT FROM sequence_number AND s.poison IS NOT NULL AS is_poisoned,
         CASE WHEN sequence_number <= 2 THEN created_at ELSE answered_at + (sequence_number - 3) * gap END AS recorded_at,
         ARRAY['data',
           CASE type
             WHEN 'Initiated' THEN
               CASE workflow WHEN 'wim-device-change' THEN 'melo_id' WHEN 'geli-gas-supplier-change' THEN 'malo_id'
                 ELSE 'location_id' END
             WHEN 'AuftragGesendet' THEN 'melo_id'
             WHEN 'AntwortGesendet' THEN 'accepted'
             WHEN 'AntwortReceived' THEN 'accepted'
             WHEN 'AntwortEmpfangen' THEN 'is_confirmed'
             WHEN 'AperakDispatched' THEN 'positive'
             WHEN 'AperakFehlerDispatched' THEN 'aperak_pid'
             WHEN 'Rejected' THEN 'reason'
             WHEN 'DeadlineExpired' THEN 'label'
             WHEN 'Completed' THEN 'device_id'
             WHEN 'VollzugsmeldungReceived' THEN 'pid'
             WHEN 'IftstaStatusReceived' THEN 'pid'
             ELSE 'message_ref'
           END] AS mandatory,
         CASE type
           WHEN 'Activated' THEN jsonb_build_object('type', type)
           ELSE jsonb_build_object('type', type, 'data',
             CASE type
               WHEN 'ValidationPassed' THEN jsonb_build_object('message_ref', message_ref)
               WHEN 'Rejected' THEN jsonb_build_object('reason', reason)
               WHEN 'DeadlineExpired' THEN jsonb_build_object('deadline_id', generator.uuid(hash), 'label', label)
               WHEN 'AperakFehlerDispatched' THEN
                 jsonb_build_object('aperak_pid', 29001, 'reason', reason, 'outbound_ref', message_ref)
               WHEN 'AperakDispatched' THEN
                 CASE WHEN writes_null OR life = 'refused' THEN
                        jsonb_build_object('positive', life <> 'refused', 'reason', CASE WHEN life = 'refused' THEN reason END)
                      ELSE jsonb_build_object('positive', true) END
               WHEN 'VollzugsmeldungReceived' THEN
                 jsonb_build_object('pid', 21024 + sequence_number % 5, 'sender', partner, 'receiver', operator,
                                    'message_ref', message_ref)
               WHEN 'IftstaStatusReceived' THEN
                 jsonb_build_object('pid', 21009 + sequence_number % 5, 'sender', partner, 'receiver', operator,
                                    'message_ref', message_ref)
               WHEN 'Completed' THEN jsonb_build_object('device_id', device_id)
               WHEN 'AntwortReceived' THEN
                 jsonb_build_object('response_pid', CASE WHEN life = 'refused' THEN refused_pid ELSE accepted_pid END,
                                    'accepted', life <> 'refused', 'response_ref', message_ref)
                 || CASE WHEN life = 'refused' AND (reason IS NOT NULL OR writes_null)
                      THEN jsonb_build_object('reason', reason) ELSE '{}' END
               WHEN 'AntwortGesendet' THEN
                 CASE
                   WHEN workflow = 'wim-device-change' THEN
                     jsonb_build_object('pruefidentifikator', accepted_pid, 'bestaetigt', true, 'antwort_code', 'A01',
                                        'antwort_ebd', 'E_0200')
                     || CASE WHEN later_date IS NOT NULL OR writes_null
                          THEN jsonb_build_object('abweichender_termin', later_date) ELSE '{}' END
                   WHEN life = 'refused' OR life = 'overruled' AND sequence_number = 5 THEN
                     jsonb_build_object('response_pid', refused_pid, 'accepted', false)
                     || CASE WHEN reason IS NOT NULL OR writes_null
                          THEN jsonb_build_object('reason', reason) ELSE '{}' END
                   ELSE
                     jsonb_build_object('accepted', true)
                     || CASE WHEN accepted_pid IS NOT NULL OR writes_null
                          THEN jsonb_build_object('response_pid', accepted_pid) ELSE '{}' END
                 END
               WHEN 'GnbAntwortErhalten' THEN jsonb_build_object('response_pid', accepted_pid, 'accepted', true)
               WHEN 'AntwortEmpfangen' THEN
                 jsonb_build_object('pruefidentifikator',
                                    CASE WHEN life = 'declined' THEN refused_pid ELSE accepted_pid END,
                                    'sender', partner, 'message_ref', message_ref, 'is_confirmed', life <> 'declined')
                 || CASE WHEN life = 'declined' AND (reason IS NOT NULL OR writes_null)
                      THEN jsonb_build_object('reason', reason) ELSE '{}' END
                 || CASE WHEN new_layout AND later_date IS NOT NULL
                      THEN jsonb_build_object('bestaetigter_termin', later_date) ELSE '{}' END
               WHEN 'GesamtvorgangGemeldet' THEN
                 jsonb_build_object('erfolgreich', life <> 'failed', 'outbound', false, 'message_ref', message_ref)
               WHEN 'ZuordnungEntschieden' THEN
                 jsonb_build_object('pruefidentifikator', 21011, 'zugeordnet', true, 'outbound', false,
                                    'zuordnungsbeginn', CASE WHEN writes_null THEN '20991231' END)
               WHEN 'AuftragGesendet' THEN
                 jsonb_build_object('melo_id', location_id, 'sender', operator, 'receiver', partner,
                                    'process_date', process_date, 'message_ref', message_ref, 'pruefidentifikator', pid)
               -- a process begins
               ELSE
                 CASE workflow
                   WHEN 'gpke-supplier-change' THEN
                     jsonb_build_object('location_id', location_id, 'new_supplier', partner, 'grid_operator', operator,
                                        'document_date', document_date, 'message_ref', message_ref,
                                        'pruefidentifikator', pid)
                     || CASE WHEN process_date IS NOT NULL
                          THEN jsonb_build_object('process_date', process_date) ELSE '{}' END
                     || CASE WHEN transaktionsgrund IS NOT NULL OR writes_null
                          THEN jsonb_build_object('transaktionsgrund', transaktionsgrund) ELSE '{}' END
                   WHEN 'gpke-lf-anmeldung' THEN
                     jsonb_build_object('pruefidentifikator', pid, 'location_id', location_id, 'sender', operator,
                                        'receiver', partner, 'process_date', process_date)
                   WHEN 'geli-gas-supplier-change' THEN
                     CASE WHEN new_layout THEN
                       jsonb_build_object('variant', variant, 'malo_id', location_id, 'sender', partner,
                                          'receiver', operator, 'document_date', document_date,
                                          'message_ref', message_ref, 'pruefidentifikator', pid)
                       || CASE WHEN process_date IS NOT NULL
                            THEN jsonb_build_object('process_date', process_date) ELSE '{}' END
                     ELSE
                       jsonb_build_object('malo_id', location_id, 'new_supplier', partner, 'gas_operator', operator,
                                          'document_date', document_date, 'pruefidentifikator', pid)
                       || CASE WHEN writes_null THEN '{}' ELSE jsonb_build_object('message_ref', message_ref) END
                     END
                   ELSE
                     jsonb_build_object('melo_id', location_id, 'incoming_msb', partner, 'grid_operator', operator,
                                        'device_id', device_id, 'document_date', document_date,
                                        'message_ref', message_ref, 'pruefidentifikator', pid)
                     || CASE WHEN new_layout AND process_date IS NOT NULL
                          THEN jsonb_build_object('process_date', process_date, 'vorgangsnummer', device_id)
                          ELSE '{}' END
                 END
                 || CASE WHEN is_huge AND sequence_number = 1
                      THEN jsonb_build_object('errors', generator.errors(hash)) ELSE '{}' END
             END)
         END AS payload
  FROM generator.stream AS s
  CROSS JOIN LATERAL unnest(s.types) WITH ORDINALITY AS step (type, sequence_number)
  CROSS JOIN LATERAL (SELECT md5(s.stream_id || ':' || sequence_number) AS hash OFFSET 0) AS random
  CROSS JOIN LATERAL (SELECT generator.message_ref(hash) AS message_ref) AS reference
  WHERE s.seed = event.seed
  OFFSET 0) AS written
$$;
