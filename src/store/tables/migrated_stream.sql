CREATE VIEW mako.migrated_stream WITH (security_invoker = true) AS
SELECT m.run_id, s.stream_id, r.source_wf, r.target_wf, m.sequence_number
FROM (SELECT n.run_id, n.stream_no, n.sequence_number FROM mako.snapshot n
      WHERE n.run_id > 0
        AND NOT EXISTS (SELECT FROM mako.repointed p
                        WHERE p.stream_no = n.stream_no AND p.run_id = n.run_id)
      UNION ALL
      SELECT run_id, stream_no, sequence_number FROM mako.repointed) m
JOIN mako.migration_run r ON r.run_id = m.run_id AND r.update_registry
JOIN mako.stream s ON s.stream_no = m.stream_no
WHERE NOT EXISTS (SELECT FROM mako.reverted v
                  WHERE v.stream_no = m.stream_no AND v.run_id = m.run_id);
COMMENT ON VIEW mako.migrated_stream IS
'the streams that each run moved, for caches and projections that must follow';
