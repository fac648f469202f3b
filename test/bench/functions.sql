-- What the benchmark runs beside the examples' own functions: the same rules in PL/pgSQL, migrations that fail, and what a user would
-- write who has no mako_migration.

----------------------------------------------------------------------------------------------------
-- gpke-supplier-change in PL/pgSQL
----------------------------------------------------------------------------------------------------

CREATE FUNCTION bench.apply_plpgsql(state jsonb, event_type text, payload jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
  data CONSTANT jsonb := payload->'data';
  status CONSTANT text := state->>'status';
BEGIN
  CASE payload->>'type'
    WHEN 'Initiated' THEN
      RETURN jsonb_build_object('status', 'Initiated', 'data', jsonb_build_object(
        'location_id', data->'location_id',
        'new_supplier', data->'new_supplier',
        'grid_operator', data->'grid_operator',
        'document_date_utc', data->'document_date',
        'process_date', data->'process_date',
        'transaktionsgrund', data->'transaktionsgrund',
        'pruefidentifikator', data->'pruefidentifikator',
        'sparte', 'STROM'));
    WHEN 'ValidationPassed' THEN
      IF status = 'Initiated' THEN
        RETURN jsonb_build_object('status', 'ValidationPassed', 'data', state->'data');
      END IF;
    WHEN 'AntwortGesendet' THEN
      IF data->>'accepted' = 'false' THEN
        RETURN jsonb_build_object('status', 'Rejected', 'data', jsonb_build_object('reason', 'Anfrage abgelehnt'));
      ELSIF status = 'ValidationPassed' THEN
        RETURN jsonb_build_object('status', 'AntwortGesendet', 'data', jsonb_build_object(
          'data', state->'data', 'response_pid', data->'response_pid'));
      END IF;
    WHEN 'Activated' THEN
      IF status = 'AntwortGesendet' THEN
        RETURN jsonb_build_object('status', 'Active', 'data', state->'data'->'data');
      END IF;
    WHEN 'AperakFehlerDispatched' THEN
      RETURN jsonb_build_object('status', 'Rejected', 'data', jsonb_build_object('reason', 'APERAK 29001: ' || (data->>'reason')));
    WHEN 'Rejected' THEN
      RETURN jsonb_build_object('status', 'Rejected', 'data', jsonb_build_object('reason', data->>'reason'));
    WHEN 'DeadlineExpired' THEN
      IF status NOT IN ('Active', 'Rejected', 'DeadlineExpired') THEN
        RETURN jsonb_build_object('status', 'DeadlineExpired', 'data', jsonb_build_object('label', data->>'label'));
      END IF;
    WHEN 'VollzugsmeldungReceived' THEN
      NULL;
  END CASE;
  RETURN state;
END
$$;

CREATE FUNCTION bench.migrate_plpgsql(state jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
  status text := state->>'status';
  data CONSTANT jsonb := state->'data';
BEGIN
  CASE status
    WHEN 'New', 'Rejected', 'DeadlineExpired' THEN
      RETURN state;
    WHEN 'AntwortGesendet' THEN
      IF data->'response_pid' = 'null' THEN
        RAISE EXCEPTION 'AntwortGesendet without response_pid cannot be migrated';
      END IF;
      RETURN jsonb_set(state, '{data,data}',
        (data->'data') - 'sparte' || jsonb_build_object('commodity', data->'data'->'sparte'));
    WHEN 'Active' THEN
      status := CASE data->>'pruefidentifikator' WHEN '55077' THEN 'ActiveErzeugend' ELSE 'ActiveVerbrauchend' END;
    WHEN 'Initiated', 'ValidationPassed' THEN
      NULL;
  END CASE;
  RETURN jsonb_build_object('status', status, 'data', data - 'sparte' || jsonb_build_object('commodity', data->'sparte'));
END
$$;

----------------------------------------------------------------------------------------------------
-- Other migrations and folds of gpke-supplier-change
----------------------------------------------------------------------------------------------------

-- An apply that does nothing: what a migration costs besides apply.
CREATE FUNCTION bench.apply_nothing(state jsonb, event_type text, payload jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT state
$$;

-- The last two digits of a stream's number, in any state that it ends in.
CREATE FUNCTION bench.digits(state jsonb) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT right(CASE state->>'status'
    WHEN 'Rejected' THEN state->'data'->>'reason'
    WHEN 'AntwortGesendet' THEN state->'data'->'data'->>'location_id'
    ELSE state->'data'->>'location_id'
  END, 2)
$$;

-- Migrations that fail for so many in a hundred streams: refuse_N by a refusal, break_N by a cast of what is no number. All of them look.
CREATE FUNCTION bench.define_failing(percent int) RETURNS void
LANGUAGE plpgsql VOLATILE AS $define$
BEGIN
  EXECUTE format($$
    CREATE FUNCTION bench.refuse_%1$s(state jsonb) RETURNS jsonb LANGUAGE sql STABLE PARALLEL SAFE AS $body$
      SELECT CASE WHEN bench.digits(state) < %2$L THEN mako_reject('refused')
                  ELSE gpke.supplier_change_migrate_2025_2026(state) END
    $body$;
    CREATE FUNCTION bench.break_%1$s(state jsonb) RETURNS jsonb LANGUAGE sql STABLE PARALLEL SAFE AS $body$
      SELECT CASE WHEN bench.digits(state) < %2$L THEN to_jsonb((state->>'status')::int)
                  ELSE gpke.supplier_change_migrate_2025_2026(state) END
    $body$ $$, percent, to_char(percent, 'FM00'));
END
$define$;
SELECT bench.define_failing(percent) FROM unnest('{0,1,50}'::int[]) AS percent;

----------------------------------------------------------------------------------------------------
-- What a user would write: into plain tables, without guards
----------------------------------------------------------------------------------------------------

-- Stream by stream; a stream that fails is written down and does not stop the others.
CREATE FUNCTION bench.loop_sql(source text, target text, last_stream bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  head record;
  event record;
  current_state jsonb;
  migrated bigint := 0;
BEGIN
  FOR head IN
    SELECT stream_no, version FROM bench.stream WHERE workflow_id = source AND stream_no <= last_stream ORDER BY stream_no FOR UPDATE
  LOOP
    BEGIN
      current_state := '{"status":"New"}';
      FOR event IN
        SELECT e.event_type, e.payload FROM mako.event e WHERE e.stream_no = head.stream_no ORDER BY e.sequence_number
      LOOP
        current_state := gpke.supplier_change_apply_2025(current_state, event.event_type, event.payload);
      END LOOP;
      current_state := gpke.supplier_change_migrate_2025_2026(current_state);
      INSERT INTO bench.snapshot (stream_no, sequence_number, run_id, workflow_id, state_schema_version, state, taken_at)
      VALUES (head.stream_no, head.version, 1, target, 3, current_state, now());
      UPDATE bench.stream s SET workflow_id = target WHERE s.stream_no = head.stream_no;
      migrated := migrated + 1;
    EXCEPTION WHEN OTHERS THEN
      INSERT INTO bench.failure VALUES (head.stream_no, SQLERRM);
    END;
  END LOOP;
  RETURN migrated;
END
$$;

-- The same loop with the functions in PL/pgSQL.
SELECT replace(replace(replace(pg_get_functiondef('bench.loop_sql(text,text,bigint)'::regprocedure),
         'bench.loop_sql(', 'bench.loop_plpgsql('),
         'gpke.supplier_change_apply_2025(', 'bench.apply_plpgsql('),
         'gpke.supplier_change_migrate_2025_2026(', 'bench.migrate_plpgsql(') \gexec

CREATE AGGREGATE bench.fold_sql(event_type text, payload jsonb) (
  SFUNC = gpke.supplier_change_apply_2025, STYPE = jsonb, INITCOND = '{"status":"New"}'
);
CREATE AGGREGATE bench.fold_plpgsql(event_type text, payload jsonb) (
  SFUNC = bench.apply_plpgsql, STYPE = jsonb, INITCOND = '{"status":"New"}'
);
