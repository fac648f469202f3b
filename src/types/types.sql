CREATE FUNCTION mako_is_valid(type_definition jsonb, instance jsonb) RETURNS boolean
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_is_valid(jsonb, jsonb) IS
'true when a value matches a JSON Type Definition (RFC 8927); '
'a malformed definition is error 22032';

CREATE FUNCTION mako_validate(type_definition jsonb, instance jsonb)
RETURNS TABLE (instance_path text, schema_path text)
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_validate(jsonb, jsonb) IS
'every error of a value against a JSON Type Definition (RFC 8927), '
'as JSON pointers into value and definition; no row for a valid one';

CREATE FUNCTION mako_instances(type_definition jsonb) RETURNS TABLE (variant text, instance jsonb)
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_instances(jsonb) IS
'up to 1,000 values that a JSON Type Definition (RFC 8927) allows, with every variant, enum value, '
'missing property, null and boundary that there is room for';
