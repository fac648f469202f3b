CREATE TABLE mako.correlation (
  tenant_id  uuid NOT NULL,
  tag        text COLLATE "C" NOT NULL,
  stream_no  bigint NOT NULL
);
COMMENT ON TABLE mako.correlation IS
'tags of streams, per tenant, such as a metering location that several processes share';

ALTER TABLE mako.correlation ADD CONSTRAINT correlation_pkey
  PRIMARY KEY (tenant_id, tag, stream_no);
ALTER TABLE mako.correlation ADD CONSTRAINT correlation_tag_check
  CHECK (((octet_length(tag) >= 1) AND (octet_length(tag) <= 256)));
ALTER TABLE mako.correlation ADD CONSTRAINT correlation_tenant_id_stream_no_fkey
  FOREIGN KEY (tenant_id, stream_no) REFERENCES mako.stream(tenant_id, stream_no);
