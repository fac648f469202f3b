CREATE FUNCTION mako_is_valid(type_definition jsonb, instance jsonb) RETURNS boolean
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_is_valid(jsonb, jsonb) IS
'does a value match a JSON Type Definition (RFC 8927)? A malformed definition is error 22032';

CREATE FUNCTION mako_validate(type_definition jsonb, instance jsonb)
RETURNS TABLE (instance_path text, schema_path text)
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_validate(jsonb, jsonb) IS
'every error of a value against a JSON Type Definition (RFC 8927), '
'as JSON pointers into value and definition; no row for a valid one';

CREATE FUNCTION mako_instances(type_definition jsonb) RETURNS TABLE (variant text, instance jsonb)
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_instances(jsonb) IS
'values that a JSON Type Definition (RFC 8927) allows, 1,000 at most: '
'every variant, enum value, missing property, null and boundary, as far as there is room';
