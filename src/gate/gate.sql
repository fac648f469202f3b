CREATE FUNCTION mako_assert_delegated() RETURNS void
LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_assert_delegated() IS
'raises 55000 unless a statement of the extension calls the function that calls this one; '
'for functions that read the store for it';

CREATE FUNCTION mako_store_column()
RETURNS TABLE (
  relation text, name text, type regtype, not_null boolean, problem text, relation_problem text)
LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_store_column() IS
'the columns that the tables of a store must have, and what is wrong with them or with their '
'tables; null where nothing is wrong or no table is there';
