-- What several tests ask: the rows of a query as text, and the error of a statement as text.

-- The rows of a query, a line each, columns separated by |, null as nothing.
CREATE FUNCTION pg_temp.rows(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  lines text;
BEGIN
  EXECUTE format('SELECT string_agg((SELECT string_agg(coalesce(value, ''''), ''|'') FROM json_each_text(to_json(q))), E''\n'')
                  FROM (%s) q', query) INTO lines;
  RETURN lines;
END
$$;

-- What a statement raises: SQLSTATE, message, detail and hint; null when it succeeds, which is undone.
CREATE FUNCTION pg_temp.error(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  state text; message text; detail text; hint text;
BEGIN
  EXECUTE statement;
  RAISE EXCEPTION USING ERRCODE = 'MKTST';
EXCEPTION WHEN SQLSTATE 'MKTST' THEN
  RETURN NULL;
WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
  RETURN concat_ws('|', state, message, nullif(detail, ''), nullif(hint, ''));
END
$$;

-- What a statement raises in a role; null when it succeeds, which is undone.
CREATE FUNCTION pg_temp.error_as(role text, statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  error text;
BEGIN
  PERFORM set_config('role', role, true);
  error := pg_temp.error(statement);
  PERFORM set_config('role', 'none', true);
  RETURN error;
END
$$;
