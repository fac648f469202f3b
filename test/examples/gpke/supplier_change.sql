-- The workflow gpke-supplier-change in three versions: what its events and states look like, what the events do
-- to the state, and how a state moves from one version to the next.
--
--   FV2024-10-01   the old layout
--   FV2025-10-01   document_date becomes document_date_utc, sparte is new, and an expired deadline has a
--                  state of its own instead of a telling rejection reason
--   FV2026-10-01   sparte becomes commodity, message numbers have 16 bits, every answer has one, and Active is split
--                  into supplies that take power and those that feed it in
--
-- FV2024-10-01 -> FV2025-10-01 is the pair of test/golden, FV2025-10-01 -> FV2026-10-01 the cutover that all example
-- workflows share. Migrations of FV2026-10-01, and what is refused there, are invented.
--
-- The type definitions keep out whatever is not of the known shape, so no function here checks anything. Every body is
-- one expression over its parameters, so that a fold can evaluate it without calling anything. Each version states only
-- what differs from the one before it. The functions are STABLE, not IMMUTABLE, because jsonb_build_object and
-- mako_reject are.
--
-- "data" is the master data of a supplier change, which most states carry along. Names outside
-- pg_catalog and the extension's schema are qualified: that is the path the functions run on.

CREATE SCHEMA gpke;

----------------------------------------------------------------------------------------------------
-- Types (RFC 8927)
----------------------------------------------------------------------------------------------------

-- Describes a payload after the upcast. Unknown keys are allowed, as in the engine that wrote these events. The data of
-- Activated are null or missing: a discriminator without a variant matches nothing else.
CREATE FUNCTION gpke.supplier_change_event_type_2024() RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT '{
    "definitions": {
      "pid": {"type": "uint32"},
      "nothing": {"nullable": true, "discriminator": "nothing", "mapping": {}}
    },
    "discriminator": "type",
    "mapping": {
      "Initiated": {
        "metadata": {"event_type": "SupplierChangeInitiated"},
        "properties": {"data": {
          "properties": {
            "location_id": {"type": "string"},
            "new_supplier": {"type": "string"},
            "grid_operator": {"type": "string"},
            "document_date": {"type": "string"},
            "process_date": {"type": "string"},
            "transaktionsgrund": {"type": "string", "nullable": true},
            "message_ref": {"type": "string"},
            "pruefidentifikator": {"ref": "pid"}
          },
          "additionalProperties": true
        }},
        "additionalProperties": true
      },
      "ValidationPassed": {
        "metadata": {"event_type": "SupplierChangeValidationPassed"},
        "properties": {"data": {"properties": {"message_ref": {"type": "string"}}, "additionalProperties": true}},
        "additionalProperties": true
      },
      "AntwortGesendet": {
        "metadata": {"event_type": "SupplierChangeAntwortGesendet"},
        "properties": {"data": {
          "properties": {
            "response_pid": {"ref": "pid", "nullable": true},
            "accepted": {"type": "boolean"},
            "reason": {"type": "string", "nullable": true}
          },
          "additionalProperties": true
        }},
        "additionalProperties": true
      },
      "Activated": {
        "metadata": {"event_type": "SupplierChangeActivated"},
        "optionalProperties": {"data": {"ref": "nothing"}},
        "additionalProperties": true
      },
      "AperakFehlerDispatched": {
        "metadata": {"event_type": "SupplierChangeAperakFehlerDispatched"},
        "properties": {"data": {
          "properties": {
            "aperak_pid": {"ref": "pid"},
            "reason": {"type": "string"},
            "outbound_ref": {"type": "string"}
          },
          "additionalProperties": true
        }},
        "additionalProperties": true
      },
      "Rejected": {
        "metadata": {"event_type": "SupplierChangeRejected"},
        "properties": {"data": {"properties": {"reason": {"type": "string"}}, "additionalProperties": true}},
        "additionalProperties": true
      },
      "DeadlineExpired": {
        "metadata": {"event_type": "SupplierChangeDeadlineExpired"},
        "properties": {"data": {
          "properties": {"deadline_id": {"type": "string"}, "label": {"type": "string"}},
          "additionalProperties": true
        }},
        "additionalProperties": true
      },
      "VollzugsmeldungReceived": {
        "metadata": {"event_type": "SupplierChangeVollzugsmeldungReceived"},
        "properties": {"data": {
          "properties": {
            "pid": {"ref": "pid"},
            "sender": {"type": "string"},
            "receiver": {"type": "string"},
            "message_ref": {"type": "string"}
          },
          "additionalProperties": true
        }},
        "additionalProperties": true
      }
    }
  }'::jsonb
$$;

CREATE FUNCTION gpke.supplier_change_event_type_2026() RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT jsonb_set(jsonb_set(gpke.supplier_change_event_type_2024(),
           '{definitions,pid,type}', '"uint16"'),
           '{mapping,AntwortGesendet,properties,data,properties,response_pid}', '{"ref": "pid"}')
$$;

-- Describes a state. It knows all of its keys: an older version must not overlook what a newer one added.
CREATE FUNCTION gpke.supplier_change_state_type_2024() RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT '{
    "definitions": {
      "pid": {"type": "uint32"},
      "data": {"properties": {
        "location_id": {"type": "string"},
        "new_supplier": {"type": "string"},
        "grid_operator": {"type": "string"},
        "document_date": {"type": "string"},
        "process_date": {"type": "string"},
        "transaktionsgrund": {"type": "string", "nullable": true},
        "pruefidentifikator": {"ref": "pid"}
      }}
    },
    "discriminator": "status",
    "mapping": {
      "New": {"properties": {}},
      "Initiated": {"properties": {"data": {"ref": "data"}}},
      "ValidationPassed": {"properties": {"data": {"ref": "data"}}},
      "AntwortGesendet": {"properties": {"data": {
        "properties": {"data": {"ref": "data"}, "response_pid": {"ref": "pid", "nullable": true}}
      }}},
      "Active": {"properties": {"data": {"ref": "data"}}},
      "Rejected": {"properties": {"data": {"properties": {"reason": {"type": "string"}}}}}
    }
  }'::jsonb
$$;

CREATE FUNCTION gpke.supplier_change_state_type_2025() RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT jsonb_set(jsonb_set(jsonb_set(
           gpke.supplier_change_state_type_2024() #- '{definitions,data,properties,document_date}',
           '{definitions,data,properties,document_date_utc}', '{"type": "string"}'),
           '{definitions,data,properties,sparte}', '{"enum": ["STROM"]}'),
           '{mapping,DeadlineExpired}', '{"properties": {"data": {"properties": {"label": {"type": "string"}}}}}')
$$;

CREATE FUNCTION gpke.supplier_change_state_type_2026() RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT jsonb_set(jsonb_set(jsonb_set(jsonb_set(jsonb_set(
           gpke.supplier_change_state_type_2025() #- '{definitions,data,properties,sparte}' #- '{mapping,Active}',
           '{definitions,pid,type}', '"uint16"'),
           '{definitions,data,properties,commodity}', '{"enum": ["STROM"]}'),
           '{mapping,AntwortGesendet,properties,data,properties,response_pid}', '{"ref": "pid"}'),
           '{mapping,ActiveVerbrauchend}', '{"properties": {"data": {"ref": "data"}}}'),
           '{mapping,ActiveErzeugend}', '{"properties": {"data": {"ref": "data"}}}')
$$;

----------------------------------------------------------------------------------------------------
-- Upcast: payload as stored -> payload in full
----------------------------------------------------------------------------------------------------

-- Fills in what may be missing, and leaves the rest to the type definition.
CREATE FUNCTION gpke.supplier_change_upcast(event_type text, schema_version int, payload jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE
    WHEN schema_version <> 1 THEN mako_reject(format('unknown schema version %s', schema_version))
    WHEN jsonb_typeof(payload->'data') = 'object' THEN
      CASE payload->>'type'
        WHEN 'Initiated' THEN
          jsonb_set(payload, '{data}', '{"process_date": "", "transaktionsgrund": null}' || (payload->'data'))
        WHEN 'AntwortGesendet' THEN
          jsonb_set(payload, '{data}', '{"response_pid": null, "reason": null}' || (payload->'data'))
        ELSE payload
      END
    ELSE payload
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
  SELECT state->>'status' NOT IN ('Active', 'ActiveVerbrauchend', 'ActiveErzeugend', 'Rejected', 'DeadlineExpired')
$$;

-- Builds the state of a supply that has begun: message 55077 is about one that feeds in.
CREATE FUNCTION gpke.supplier_change_active_2026(data jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT gpke.supplier_change_state(
    CASE data->>'pruefidentifikator' WHEN '55077' THEN 'ActiveErzeugend' ELSE 'ActiveVerbrauchend' END, data)
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

-- Makes master data from an Initiated payload, which has the reference of its message besides, and may have more.
CREATE FUNCTION gpke.supplier_change_data_2024(payload jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT jsonb_build_object(
    'location_id', payload->'data'->'location_id',
    'new_supplier', payload->'data'->'new_supplier',
    'grid_operator', payload->'data'->'grid_operator',
    'document_date', payload->'data'->'document_date',
    'process_date', payload->'data'->'process_date',
    'transaktionsgrund', payload->'data'->'transaktionsgrund',
    'pruefidentifikator', payload->'data'->'pruefidentifikator')
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

-- Apply is total over payloads of the right type: an event that does not fit the state leaves it as it is. The payload
-- names its own type; the type definition proves that it is the one of the event type.
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
    WHEN 'Activated' THEN
      CASE state->>'status'
        WHEN 'AntwortGesendet' THEN gpke.supplier_change_active_2026(state->'data'->'data')
        ELSE state
      END
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
  SELECT CASE
    WHEN state->>'status' = 'AntwortGesendet' AND state->'data'->'response_pid' = 'null' THEN
      mako_reject('AntwortGesendet without response_pid cannot be migrated')
    WHEN state->>'status' = 'Active' THEN
      gpke.supplier_change_active_2026(gpke.supplier_change_data_2025_2026(state->'data'))
    ELSE
      gpke.supplier_change_with_data(state,
        gpke.supplier_change_data_2025_2026(gpke.supplier_change_data(state)))
  END
$$;
