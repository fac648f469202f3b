-- The workflow gpke-supplier-change in three versions: how its events are decoded, what they do to the
-- state, and how a state moves from one version to the next.
--
--   FV2024-10-01   the old layout
--   FV2025-10-01   document_date becomes document_date_utc, sparte is new, and an expired deadline has a
--                  state of its own instead of a telling rejection reason
--   FV2026-10-01   sparte becomes commodity
--
-- Every body is one expression over its parameters, so that a fold can evaluate it without calling
-- anything. Each version states only what differs from the one before it. The functions are STABLE, not
-- IMMUTABLE, because jsonb_build_object and mako_reject are.
--
-- "data" is the master data of a supplier change, which most states carry along. Names outside
-- pg_catalog and the extension's schema are qualified: that is the path the functions run on.

CREATE SCHEMA gpke;

----------------------------------------------------------------------------------------------------
-- Decoding: payload as stored -> payload in full, or a refusal
----------------------------------------------------------------------------------------------------

-- Tells whether a JSON value has a type: the name of a JSON type, "uint32" or "uuid".
-- jsonb sorts numbers apart from every other type, so the range check of uint32 is a type check as well;
-- a number written with a fraction, even .0, is no integer to the engine that wrote the events.
CREATE FUNCTION gpke.has_type(value jsonb, type_name text) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE type_name
    WHEN 'uint32' THEN value BETWEEN '0' AND '4294967295' AND value::text NOT LIKE '%.%'
    WHEN 'uuid' THEN value::text ~* '^"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"$'
    ELSE jsonb_typeof(value) = type_name
  END
$$;

-- Reads a mandatory field of a payload's data: missing and ill-typed ones are refused.
CREATE FUNCTION gpke.field(payload jsonb, field_name text, type_name text) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE
    WHEN gpke.has_type(payload->'data'->field_name, type_name) THEN payload->'data'->field_name
    ELSE mako_reject(format('field "%s" is no %s: %s', field_name, type_name,
                            mako_required(payload, 'data', field_name)))
  END
$$;

-- Reads an optional field of a payload's data: a missing one counts as null.
CREATE FUNCTION gpke.optional_field(payload jsonb, field_name text, type_name text) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE coalesce(payload->'data'->field_name, 'null')
    WHEN 'null' THEN 'null'
    ELSE gpke.field(payload, field_name, type_name)
  END
$$;

-- Decodes a payload strictly: whatever is not of the known shape is refused, unknown extra keys are dropped.
-- The payload names its own type. The event type of the envelope plays no part, as in the engine that
-- wrote these events.
CREATE FUNCTION gpke.supplier_change_upcast(event_type text, schema_version int, payload jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE
    WHEN schema_version IS DISTINCT FROM 1 THEN
      mako_reject(format('unknown schema version %s', schema_version))
    ELSE CASE payload->>'type'
      WHEN 'Initiated' THEN
        jsonb_build_object('type', 'Initiated', 'data', jsonb_build_object(
          'location_id', gpke.field(payload, 'location_id', 'string'),
          'new_supplier', gpke.field(payload, 'new_supplier', 'string'),
          'grid_operator', gpke.field(payload, 'grid_operator', 'string'),
          'document_date', gpke.field(payload, 'document_date', 'string'),
          'process_date', CASE WHEN payload->'data' ? 'process_date'
                            THEN gpke.field(payload, 'process_date', 'string')
                            ELSE '""'
                          END,
          'transaktionsgrund', gpke.optional_field(payload, 'transaktionsgrund', 'string'),
          'message_ref', gpke.field(payload, 'message_ref', 'string'),
          'pruefidentifikator', gpke.field(payload, 'pruefidentifikator', 'uint32')))
      WHEN 'ValidationPassed' THEN
        jsonb_build_object('type', 'ValidationPassed', 'data', jsonb_build_object(
          'message_ref', gpke.field(payload, 'message_ref', 'string')))
      WHEN 'AntwortGesendet' THEN
        jsonb_build_object('type', 'AntwortGesendet', 'data', jsonb_build_object(
          'response_pid', gpke.optional_field(payload, 'response_pid', 'uint32'),
          'accepted', gpke.field(payload, 'accepted', 'boolean'),
          'reason', gpke.optional_field(payload, 'reason', 'string')))
      WHEN 'Activated' THEN
        CASE coalesce(payload->'data', 'null')
          WHEN 'null' THEN jsonb_build_object('type', 'Activated')
          ELSE mako_reject('payload type "Activated" takes no data')
        END
      WHEN 'AperakFehlerDispatched' THEN
        jsonb_build_object('type', 'AperakFehlerDispatched', 'data', jsonb_build_object(
          'aperak_pid', gpke.field(payload, 'aperak_pid', 'uint32'),
          'reason', gpke.field(payload, 'reason', 'string'),
          'outbound_ref', gpke.field(payload, 'outbound_ref', 'string')))
      WHEN 'Rejected' THEN
        jsonb_build_object('type', 'Rejected', 'data', jsonb_build_object(
          'reason', gpke.field(payload, 'reason', 'string')))
      WHEN 'DeadlineExpired' THEN
        jsonb_build_object('type', 'DeadlineExpired', 'data', jsonb_build_object(
          'deadline_id', gpke.field(payload, 'deadline_id', 'uuid'),
          'label', gpke.field(payload, 'label', 'string')))
      WHEN 'VollzugsmeldungReceived' THEN
        jsonb_build_object('type', 'VollzugsmeldungReceived', 'data', jsonb_build_object(
          'pid', gpke.field(payload, 'pid', 'uint32'),
          'sender', gpke.field(payload, 'sender', 'string'),
          'receiver', gpke.field(payload, 'receiver', 'string'),
          'message_ref', gpke.field(payload, 'message_ref', 'string')))
      ELSE mako_reject(format('unknown payload type: %s', mako_required(payload, 'type')))
    END
  END
$$;

----------------------------------------------------------------------------------------------------
-- States and their parts
----------------------------------------------------------------------------------------------------

-- Builds a state.
CREATE FUNCTION gpke.supplier_change_state(status text, data jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT jsonb_build_object('status', status, 'data', data)
$$;

-- Builds the state Rejected.
CREATE FUNCTION gpke.supplier_change_rejected(reason text) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT gpke.supplier_change_state('Rejected', jsonb_build_object('reason', reason))
$$;

-- Builds the state that an expired deadline leads to while it has none of its own.
CREATE FUNCTION gpke.supplier_change_rejected_by_deadline(label text) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT gpke.supplier_change_rejected('deadline expired: ' || label)
$$;

-- Builds the state DeadlineExpired.
CREATE FUNCTION gpke.supplier_change_deadline_expired(label text) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT gpke.supplier_change_state('DeadlineExpired', jsonb_build_object('label', label))
$$;

-- Tells whether a process is still under way, in any version.
CREATE FUNCTION gpke.supplier_change_in_flight(state jsonb) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT state->>'status' NOT IN ('Active', 'Rejected', 'DeadlineExpired')
$$;

-- Reads the master data of a state that has any.
CREATE FUNCTION gpke.supplier_change_data(state jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE state->>'status'
    WHEN 'AntwortGesendet' THEN state->'data'->'data'
    ELSE state->'data'
  END
$$;

-- Replaces the master data of a state, if it has any. No ELSE: an unknown status must not pass unnoticed.
CREATE FUNCTION gpke.supplier_change_with_data(state jsonb, data jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE
    WHEN state->>'status' = 'AntwortGesendet' THEN jsonb_set(state, '{data,data}', data)
    WHEN state->>'status' IN ('Initiated', 'ValidationPassed', 'Active') THEN jsonb_set(state, '{data}', data)
    WHEN state->>'status' IN ('New', 'Rejected', 'DeadlineExpired') THEN state
  END
$$;

----------------------------------------------------------------------------------------------------
-- The layouts of the master data
----------------------------------------------------------------------------------------------------

-- Makes master data from an Initiated payload, which has the reference of its message besides.
CREATE FUNCTION gpke.supplier_change_data_2024(payload jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT (payload->'data') - 'message_ref'
$$;

CREATE FUNCTION gpke.supplier_change_data_2024_2025(data jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT (data - 'document_date')
         || jsonb_build_object('document_date_utc', data->'document_date', 'sparte', 'STROM')
$$;

CREATE FUNCTION gpke.supplier_change_data_2025_2024(data jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT (data - 'document_date_utc' - 'sparte')
         || jsonb_build_object('document_date', data->'document_date_utc')
$$;

CREATE FUNCTION gpke.supplier_change_data_2025_2026(data jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT (data - 'sparte') || jsonb_build_object('commodity', data->'sparte')
$$;

----------------------------------------------------------------------------------------------------
-- Apply: state and event -> state
----------------------------------------------------------------------------------------------------

-- Apply is total over decoded payloads: an event that does not fit the state leaves it as it is.
CREATE FUNCTION gpke.supplier_change_apply_2024(state jsonb, event_type text, payload jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE payload->>'type'
    WHEN 'Initiated' THEN
      gpke.supplier_change_state('Initiated', gpke.supplier_change_data_2024(payload))
    WHEN 'ValidationPassed' THEN
      CASE state->>'status'
        WHEN 'Initiated' THEN gpke.supplier_change_state('ValidationPassed', state->'data')
        ELSE state
      END
    WHEN 'AntwortGesendet' THEN
      CASE
        WHEN payload->'data'->>'accepted' = 'false' THEN
          -- the reason that was sent along is not kept
          gpke.supplier_change_rejected('Anfrage abgelehnt')
        WHEN state->>'status' = 'ValidationPassed' THEN
          gpke.supplier_change_state('AntwortGesendet', jsonb_build_object(
            'data', state->'data',
            'response_pid', payload->'data'->'response_pid'))
        ELSE state
      END
    WHEN 'Activated' THEN
      CASE state->>'status'
        WHEN 'AntwortGesendet' THEN gpke.supplier_change_state('Active', state->'data'->'data')
        ELSE state
      END
    WHEN 'AperakFehlerDispatched' THEN
      gpke.supplier_change_rejected('APERAK 29001: ' || (payload->'data'->>'reason'))
    WHEN 'Rejected' THEN
      gpke.supplier_change_rejected(payload->'data'->>'reason')
    WHEN 'DeadlineExpired' THEN
      CASE
        WHEN gpke.supplier_change_in_flight(state) THEN
          gpke.supplier_change_rejected_by_deadline(payload->'data'->>'label')
        ELSE state
      END
    WHEN 'VollzugsmeldungReceived' THEN
      state
  END
$$;

CREATE FUNCTION gpke.supplier_change_apply_2025(state jsonb, event_type text, payload jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE payload->>'type'
    WHEN 'Initiated' THEN
      gpke.supplier_change_state('Initiated', gpke.supplier_change_data_2024_2025(
        gpke.supplier_change_data_2024(payload)))
    WHEN 'DeadlineExpired' THEN
      CASE
        WHEN gpke.supplier_change_in_flight(state) THEN
          gpke.supplier_change_deadline_expired(payload->'data'->>'label')
        ELSE state
      END
    ELSE gpke.supplier_change_apply_2024(state, event_type, payload)
  END
$$;

CREATE FUNCTION gpke.supplier_change_apply_2026(state jsonb, event_type text, payload jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE payload->>'type'
    WHEN 'Initiated' THEN
      gpke.supplier_change_state('Initiated', gpke.supplier_change_data_2025_2026(
        gpke.supplier_change_data_2024_2025(gpke.supplier_change_data_2024(payload))))
    ELSE gpke.supplier_change_apply_2025(state, event_type, payload)
  END
$$;

----------------------------------------------------------------------------------------------------
-- Migrate: state of one version -> state of another, or a refusal
----------------------------------------------------------------------------------------------------

CREATE FUNCTION gpke.supplier_change_migrate_2024_2025(state jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE
    WHEN state->>'status' = 'Rejected' AND state->'data'->>'reason' = '' THEN
      mako_reject('Rejected state with empty reason cannot be migrated')
    WHEN state->>'status' = 'Rejected' AND starts_with(state->'data'->>'reason', 'deadline expired: ') THEN
      gpke.supplier_change_deadline_expired(
        substr(state->'data'->>'reason', length('deadline expired: ') + 1))
    ELSE
      gpke.supplier_change_with_data(state,
        gpke.supplier_change_data_2024_2025(gpke.supplier_change_data(state)))
  END
$$;

-- The way back. What went forward returns as it was.
CREATE FUNCTION gpke.supplier_change_migrate_2025_2024(state jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE state->>'status'
    WHEN 'DeadlineExpired' THEN
      gpke.supplier_change_rejected_by_deadline(state->'data'->>'label')
    ELSE
      gpke.supplier_change_with_data(state,
        gpke.supplier_change_data_2025_2024(gpke.supplier_change_data(state)))
  END
$$;

CREATE FUNCTION gpke.supplier_change_migrate_2025_2026(state jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT gpke.supplier_change_with_data(state,
           gpke.supplier_change_data_2025_2026(gpke.supplier_change_data(state)))
$$;
