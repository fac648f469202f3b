CREATE TABLE mako.format_version (
  format_version  text COLLATE "C" NOT NULL,
  status          text NOT NULL,
  messages_until  timestamptz,
  changed_by      text NOT NULL DEFAULT current_user,
  changed_at      timestamptz NOT NULL DEFAULT now(),
  reason          text
);
COMMENT ON TABLE mako.format_version IS
'format versions that were drained, retired or reactivated: the last change of each; '
'one without a row is active';

ALTER TABLE mako.format_version ADD CONSTRAINT format_version_pkey
  PRIMARY KEY (format_version);
ALTER TABLE mako.format_version ADD CONSTRAINT format_version_status_check
  CHECK ((status = ANY (ARRAY['active'::text, 'draining'::text, 'retired'::text])));
ALTER TABLE mako.format_version ADD CONSTRAINT format_version_format_version_check
  CHECK (@extschema@.mako_assert_format_version(format_version));

CREATE TRIGGER format_version_guard
BEFORE INSERT OR DELETE OR UPDATE OR TRUNCATE ON mako.format_version
FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.mako_guard(
  'A version must not change its status while a transaction writes under it.',
  'Use mako_drain(), mako_retire() or mako_reactivate().');
