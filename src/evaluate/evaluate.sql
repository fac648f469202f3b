CREATE FUNCTION mako_explain_function(function regprocedure)
RETURNS TABLE (call text, evaluation text, calls integer, reason text, hint text)
LANGUAGE c STABLE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION mako_explain_function(regprocedure) IS
'how a function and each call in it will run: inlined, bound (inlined, '
'with values that are evaluated once), native, server or called; and what to change';
