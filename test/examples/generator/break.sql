-- Breaks a store: brings about what its triggers refuse. The trigger functions must not run meanwhile
-- (ALTER TABLE mako.event DISABLE TRIGGER USER, and the same for mako.stream).
--
--   gap            an event in the middle is lost
--   late_start     the first event is lost
--   shifted        events are numbered from 2
--   lost_end       the last event is lost
--   lost_all       every event is lost
--   short_head     the head knows one event less than there is
--   later_version  all events but the first were written under the next version; the head decides, so that is migrated
--   early_version  the head and the first event are under the next version, so that all is done
--
-- The order of events cannot be ambiguous: their primary key keeps duplicates out, and a check constraint number 0.

CREATE TABLE generator.broken (
  seed text NOT NULL,
  stream_id text COLLATE "C" NOT NULL,
  stream_no bigint NOT NULL,
  version bigint NOT NULL,
  breakage text NOT NULL,
  break_at bigint NOT NULL,
  PRIMARY KEY (seed, stream_id)
);

-- What must become of the broken streams, in the words of generator.expected; the phase of every failure is load.
CREATE VIEW generator.expected_broken AS
SELECT seed, stream_id,
       CASE breakage WHEN 'later_version' THEN 'migrated' WHEN 'early_version' THEN 'skipped' ELSE 'failed' END AS outcome,
       -- the first event that is not the expected one, or else the last one that there is
       CASE breakage
         WHEN 'gap' THEN break_at + 1
         WHEN 'late_start' THEN 2
         WHEN 'shifted' THEN 2
         WHEN 'lost_end' THEN version - 1
         WHEN 'short_head' THEN version
       END AS sequence_number,
       CASE breakage WHEN 'early_version' THEN workflow || '@FV2026-10-01' ELSE workflow || '@' || format_version END
         AS workflow_id,
       CASE
         WHEN breakage IN ('early_version', 'later_version') THEN workflow || '@FV2026-10-01'
         ELSE workflow || '@' || format_version
       END AS workflow_id_after,
       version + CASE breakage WHEN 'shifted' THEN 1 WHEN 'short_head' THEN -1 ELSE 0 END AS version
FROM generator.broken
JOIN generator.stream USING (seed, stream_id);

-- Breaks some of the streams of a seed that would otherwise be migrated; returns their number.
CREATE FUNCTION generator.break_store(seed text, rate float8 DEFAULT 0.05) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
  streams bigint;
BEGIN
  INSERT INTO generator.broken
  SELECT e.seed, e.stream_id, h.stream_no, e.version, d.breakage, 2
  FROM generator.expected AS e
  JOIN mako.stream AS h ON h.stream_id = e.stream_id
  CROSS JOIN LATERAL (SELECT md5(e.stream_id || 'break') AS hash OFFSET 0) AS r
  CROSS JOIN LATERAL (SELECT (ARRAY['gap', 'late_start', 'shifted', 'lost_end', 'lost_all', 'short_head',
                                    'later_version', 'early_version'])[1 + floor(generator.unit(r.hash, 1) * 8)::int]
                             AS breakage) AS d
  WHERE e.seed = break_store.seed AND e.outcome = 'migrated' AND generator.unit(r.hash, 0) < rate
    AND (d.breakage IN ('lost_all', 'shifted') OR e.version >= CASE d.breakage WHEN 'gap' THEN 3 ELSE 2 END);
  GET DIAGNOSTICS streams = ROW_COUNT;

  DELETE FROM mako.event AS e
  USING generator.broken AS b
  WHERE b.seed = break_store.seed AND e.stream_no = b.stream_no
    AND e.sequence_number BETWEEN CASE breakage WHEN 'gap' THEN break_at WHEN 'lost_end' THEN b.version ELSE 1 END
                              AND CASE breakage WHEN 'gap' THEN break_at WHEN 'late_start' THEN 1 ELSE b.version END
    AND breakage IN ('gap', 'late_start', 'lost_end', 'lost_all');

  -- in two steps, because the numbers must be unique all the time
  UPDATE mako.event AS e SET sequence_number = e.sequence_number + 1000
  FROM generator.broken AS b
  WHERE b.seed = break_store.seed AND e.stream_no = b.stream_no AND breakage = 'shifted';
  UPDATE mako.event AS e SET sequence_number = e.sequence_number - 999
  FROM generator.broken AS b
  WHERE b.seed = break_store.seed AND e.stream_no = b.stream_no AND breakage = 'shifted';

  UPDATE mako.event AS e SET workflow_id = split_part(e.workflow_id, '@', 1) || '@FV2026-10-01'
  FROM generator.broken AS b
  WHERE b.seed = break_store.seed AND e.stream_no = b.stream_no
    AND (breakage = 'later_version' AND e.sequence_number > 1 OR breakage = 'early_version' AND e.sequence_number = 1);

  UPDATE mako.stream AS h
  SET version = h.version + CASE breakage WHEN 'shifted' THEN 1 WHEN 'short_head' THEN -1 ELSE 0 END,
      workflow_id = CASE breakage
                      WHEN 'early_version' THEN split_part(h.workflow_id, '@', 1) || '@FV2026-10-01'
                      ELSE h.workflow_id
                    END
  FROM generator.broken AS b
  WHERE b.seed = break_store.seed AND h.stream_no = b.stream_no
    AND breakage IN ('shifted', 'short_head', 'early_version');

  RETURN streams;
END
$$;
