-- Loads the golden event streams and their routing entries into an empty store, through the same tables and
-- with the same triggers as any writer. Run from the root of the project.
--
-- The variable golden_streams is how many streams are loaded, those that begin first; all of them by default.

\if :{?golden_streams} \else \set golden_streams 1000000 \endif

CREATE TEMPORARY TABLE golden_event (line_no bigint GENERATED ALWAYS AS IDENTITY, line jsonb NOT NULL);
CREATE TEMPORARY TABLE golden_registry (line jsonb NOT NULL);

-- JSON has no raw control characters, so they can stand in for quote and delimiter: lines arrive as they are.
\copy golden_event (line) from program 'gzip -dc test/golden/supplier-change-events.jsonl.gz' with (format csv, quote e'\x01', delimiter e'\x02')
\copy golden_registry (line) from program 'gzip -dc test/golden/supplier-change-registry.jsonl.gz' with (format csv, quote e'\x01', delimiter e'\x02')

DELETE FROM golden_event WHERE line->>'stream_id' NOT IN
  (SELECT line->>'stream_id' FROM golden_event GROUP BY 1 ORDER BY min(line_no) LIMIT :golden_streams);

-- A stream with an id of another form ("partner/...", upper-case uuids) is no process.
INSERT INTO mako.stream (stream_id, tenant_id, process_id, workflow_id)
SELECT stream_id, tenant_id,
       CASE WHEN stream_id = 'process/' || tenant_id || '/' || process_id THEN process_id END,
       workflow_id
FROM (SELECT DISTINCT ON (line->>'stream_id')
             line_no,
             line->>'stream_id' AS stream_id,
             (line->>'tenant_id')::uuid AS tenant_id,
             (line->>'process_id')::uuid AS process_id,
             (line->>'workflow_name') || '@' || (line->>'format_version') AS workflow_id
      FROM golden_event
      ORDER BY line->>'stream_id', line_no) AS first_event
ORDER BY line_no;

INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, schema_version, payload)
SELECT stream.stream_no,
       row_number() OVER (PARTITION BY stream.stream_no ORDER BY golden_event.line_no),
       (line->>'workflow_name') || '@' || (line->>'format_version'),
       line->>'event_type',
       (line->>'schema_version')::int,
       line->'payload'
FROM golden_event
JOIN mako.stream ON stream.stream_id = golden_event.line->>'stream_id'
ORDER BY golden_event.line_no;

-- The join leaves dangling entries out. The key of most entries is the process id itself.
INSERT INTO mako.registry (tenant_id, key, stream_no)
SELECT stream.tenant_id, coalesce(line->>'key', line->>'process_id'), stream.stream_no
FROM golden_registry
JOIN mako.stream
  ON stream.stream_id = 'process/' || (line->>'tenant_id') || '/' || (line->>'process_id');
