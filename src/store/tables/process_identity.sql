CREATE VIEW mako.process_identity WITH (security_invoker = true) AS
SELECT r.tenant_id, r.key, s.process_id, s.stream_id, s.workflow_id
FROM mako.registry r JOIN mako.stream s ON s.stream_no = r.stream_no
WHERE r.expires_at IS NULL OR r.expires_at > now();
COMMENT ON VIEW mako.process_identity IS
'the stream that a routing key leads to, and the workflow that it runs under now';
