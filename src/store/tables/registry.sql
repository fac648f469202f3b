CREATE TABLE mako.registry (
  tenant_id   uuid NOT NULL,
  key         text COLLATE "C" NOT NULL,
  stream_no   bigint NOT NULL,
  expires_at  timestamptz
);
COMMENT ON TABLE mako.registry IS
'routing keys: process id, <partner code>:<conversation id>, correlation id or any other text, '
'per tenant';

ALTER TABLE mako.registry ADD CONSTRAINT registry_pkey PRIMARY KEY (tenant_id, key);
ALTER TABLE mako.registry ADD CONSTRAINT registry_key_check
  CHECK (((octet_length(key) >= 1) AND (octet_length(key) <= 256)));
ALTER TABLE mako.registry ADD CONSTRAINT registry_tenant_id_stream_no_fkey
  FOREIGN KEY (tenant_id, stream_no) REFERENCES mako.stream(tenant_id, stream_no);
