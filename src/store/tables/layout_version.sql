-- A function, not a row: a dump of data alone must find empty tables.
CREATE FUNCTION mako.layout_version() RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT 1';
COMMENT ON FUNCTION mako.layout_version() IS
'the layout version of this store; mako_create_store() upgrades an older one';
