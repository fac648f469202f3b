CREATE FUNCTION mako_merge_patch(source jsonb, target jsonb) RETURNS jsonb
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_merge_patch(jsonb, jsonb) IS
'the JSON merge patch (RFC 7396) from one document to another; '
'null in it is a member that is removed, or one set to null, which RFC 7396 cannot express';
