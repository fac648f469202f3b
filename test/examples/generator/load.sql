-- Writes what was chosen into the store: streams, events, routing keys, tags, deadlines and periodic snapshots.

-- What a process waits for. The workflow id is meant to follow a migrated process.
CREATE TABLE generator.deadline (
  deadline_id uuid PRIMARY KEY,
  tenant_id uuid NOT NULL,
  process_id uuid NOT NULL,
  workflow_id text COLLATE "C" NOT NULL,
  label text NOT NULL,
  due_at timestamptz NOT NULL
);
CREATE INDEX ON generator.deadline (tenant_id, process_id);

-- Two clocks of an open process, the second of which has run down once there is an answer; a tenth of the finished
-- processes have left theirs behind.
CREATE VIEW generator.expected_deadline AS
SELECT seed,
       generator.uuid(md5(stream_id || ':' || clock)) AS deadline_id,
       tenant_id, process_id,
       workflow || '@' || format_version AS workflow_id,
       CASE clock
         WHEN 1 THEN label
         ELSE CASE workflow WHEN 'geli-gas-supplier-change' THEN 'aperak-gas-window' ELSE 'aperak-strom-45min-window' END
       END AS label,
       due_at
FROM generator.stream
CROSS JOIN (VALUES (1), (2)) AS clocks (clock)
WHERE process_id IS NOT NULL
  AND CASE
        WHEN NOT is_open THEN clock = 1 AND generator.unit(routing, 3) < 0.1
        ELSE clock = 1 OR cardinality(types) <= 2
      END;

-- Loads the streams of a seed, through the same tables and with the same triggers as any writer. Streams are numbered
-- and events are written in order of time, so that they interleave as they do in a store that has grown.
CREATE FUNCTION generator.load(seed text) RETURNS TABLE (streams bigint, events bigint)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET work_mem = '256MB'
SET jit = off
AS $$
#variable_conflict use_column
BEGIN
  INSERT INTO mako.stream (stream_id, tenant_id, process_id, workflow_id, created_at)
  SELECT s.stream_id, s.tenant_id, s.process_id, s.workflow || '@' || s.format_version, s.created_at
  FROM generator.stream AS s
  WHERE s.seed = load.seed
  ORDER BY s.created_at, s.i;
  GET DIAGNOSTICS streams = ROW_COUNT;

  INSERT INTO mako.event (stream_no, sequence_number, event_id, recorded_at, workflow_id, event_type, schema_version,
                          payload, conversation_id)
  SELECT h.stream_no, e.sequence_number, e.event_id, e.recorded_at, e.workflow_id, e.event_type, e.schema_version,
         e.payload, e.conversation_id
  FROM generator.event(load.seed) AS e
  JOIN mako.stream AS h ON h.stream_id = e.stream_id
  ORDER BY e.recorded_at, h.stream_no, e.sequence_number;
  GET DIAGNOSTICS events = ROW_COUNT;

  -- Nearly every process is found by its id, open ones by conversations and correlations as well.
  INSERT INTO mako.registry (tenant_id, key, stream_no)
  SELECT s.tenant_id, k.key, h.stream_no
  FROM generator.stream AS s
  JOIN mako.stream AS h ON h.stream_id = s.stream_id
  CROSS JOIN LATERAL (VALUES
    (s.process_id::text, generator.unit(s.routing, 0) < 0.98),
    (s.partner || ':' || s.conversation_id, s.is_open AND generator.unit(s.routing, 1) < 0.35),
    (generator.uuid(md5(s.stream_id || 'correlation'))::text, s.is_open AND generator.unit(s.routing, 1) < 0.2)
  ) AS k (key, is_used)
  WHERE s.seed = load.seed AND k.is_used AND k.key IS NOT NULL;

  INSERT INTO mako.correlation (tenant_id, tag, stream_no)
  SELECT s.tenant_id, s.location_id, h.stream_no
  FROM generator.stream AS s
  JOIN mako.stream AS h ON h.stream_id = s.stream_id
  WHERE s.seed = load.seed AND s.location_id <> '' AND generator.unit(s.routing, 2) < 0.95;

  INSERT INTO generator.deadline
  SELECT d.deadline_id, d.tenant_id, d.process_id, d.workflow_id, d.label, d.due_at
  FROM generator.expected_deadline AS d
  WHERE d.seed = load.seed;

  -- A cache that somebody else has spoilt, for half of the streams beyond their end.
  INSERT INTO mako.snapshot (stream_no, sequence_number, workflow_id, state_schema_version, state)
  SELECT h.stream_no, CASE WHEN s.poison_kind < 2 THEN s.poison_at ELSE 1000 END, s.workflow || '@' || s.format_version,
         1 + s.poison_kind, '{"status": "Frobnicated", "data": []}'
  FROM generator.stream AS s
  JOIN mako.stream AS h ON h.stream_id = s.stream_id
  WHERE s.seed = load.seed AND s.poison = 'foreign_snapshot';

  RETURN NEXT;
END
$$;
