-- The workflow wim-device-change in two versions: another company takes over the metering of a location.
--
--   FV2025-10-01   an APERAK is the answer, so AperakSent means "answered"
--   FV2026-10-01   the business answer is a message of its own: AperakSent means "answer still owed", and AntwortGesendet
--                  "answered"; an order is followed up until the location is assigned; message numbers have 16 bits
--
-- The step is one that happened, and its point is a change of meaning: folding the old events with the new apply would say
-- of an answered order that its answer is still owed. What the old version did not keep is null, or the date of the
-- document where that is what the process was about. The refusal of a document without a date, and the 16 bits, are
-- invented.

CREATE SCHEMA wim;

----------------------------------------------------------------------------------------------------
-- Types (RFC 8927)
----------------------------------------------------------------------------------------------------

-- Describes a payload after the upcast, of which unknown keys are allowed.
CREATE FUNCTION wim.device_change_event_type_2025() RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT '{
    "definitions": {
      "pid": {"type": "uint32"}
    },
    "discriminator": "type",
    "mapping": {
      "Initiated": {
        "metadata": {"event_type": "WimDeviceChangeInitiated"},
        "properties": {"data": {
          "properties": {
            "melo_id": {"type": "string"},
            "incoming_msb": {"type": "string"},
            "grid_operator": {"type": "string"},
            "device_id": {"type": "string"},
            "document_date": {"type": "string"},
            "message_ref": {"type": "string"},
            "pruefidentifikator": {"ref": "pid"}
          },
          "additionalProperties": true
        }},
        "additionalProperties": true
      },
      "ValidationPassed": {
        "metadata": {"event_type": "WimDeviceChangeValidationPassed"},
        "properties": {"data": {
          "properties": {
            "message_ref": {"type": "string"}
          },
          "additionalProperties": true
        }},
        "additionalProperties": true
      },
      "AperakDispatched": {
        "metadata": {"event_type": "WimDeviceChangeAperakDispatched"},
        "properties": {"data": {
          "properties": {
            "positive": {"type": "boolean"},
            "reason": {"type": "string", "nullable": true}
          },
          "additionalProperties": true
        }},
        "additionalProperties": true
      },
      "Completed": {
        "metadata": {"event_type": "WimDeviceChangeCompleted"},
        "properties": {"data": {
          "properties": {
            "device_id": {"type": "string"}
          },
          "additionalProperties": true
        }},
        "additionalProperties": true
      },
      "Rejected": {
        "metadata": {"event_type": "WimDeviceChangeRejected"},
        "properties": {"data": {
          "properties": {
            "reason": {"type": "string"}
          },
          "additionalProperties": true
        }},
        "additionalProperties": true
      },
      "DeadlineExpired": {
        "metadata": {"event_type": "WimDeviceChangeDeadlineExpired"},
        "properties": {"data": {
          "properties": {
            "deadline_id": {"type": "string"},
            "label": {"type": "string"}
          },
          "additionalProperties": true
        }},
        "additionalProperties": true
      },
      "IftstaStatusReceived": {
        "metadata": {"event_type": "WimDeviceChangeIftstaStatusReceived"},
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
      },
      "AuftragGesendet": {
        "metadata": {"event_type": "WimDeviceChangeAuftragGesendet"},
        "properties": {"data": {
          "properties": {
            "melo_id": {"type": "string"},
            "sender": {"type": "string"},
            "receiver": {"type": "string"},
            "process_date": {"type": "string"},
            "message_ref": {"type": "string"},
            "pruefidentifikator": {"ref": "pid"}
          },
          "additionalProperties": true
        }},
        "additionalProperties": true
      },
      "AntwortEmpfangen": {
        "metadata": {"event_type": "WimDeviceChangeAntwortEmpfangen"},
        "properties": {"data": {
          "properties": {
            "pruefidentifikator": {"ref": "pid"},
            "sender": {"type": "string"},
            "message_ref": {"type": "string"},
            "is_confirmed": {"type": "boolean"},
            "reason": {"type": "string", "nullable": true}
          },
          "additionalProperties": true
        }},
        "additionalProperties": true
      }
    }
  }'::jsonb
$$;

CREATE FUNCTION wim.device_change_event_type_2026() RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT jsonb_set(jsonb_set(jsonb_set(jsonb_set(jsonb_set(wim.device_change_event_type_2025(),
           '{definitions,pid,type}', '"uint16"'),
           '{mapping}', (wim.device_change_event_type_2025()->'mapping') || '{
      "AntwortGesendet": {
        "metadata": {"event_type": "WimDeviceChangeAntwortGesendet"},
        "properties": {"data": {
          "properties": {
            "pruefidentifikator": {"ref": "pid"},
            "bestaetigt": {"type": "boolean"},
            "antwort_code": {"type": "string"},
            "antwort_ebd": {"type": "string"},
            "bemerkung": {"type": "string", "nullable": true},
            "abweichender_termin": {"type": "string", "nullable": true}
          },
          "additionalProperties": true
        }},
        "additionalProperties": true
      },
      "GesamtvorgangGemeldet": {
        "metadata": {"event_type": "WimDeviceChangeGesamtvorgangGemeldet"},
        "properties": {"data": {
          "properties": {
            "erfolgreich": {"type": "boolean"},
            "zuordnungsbeginn": {"type": "string", "nullable": true},
            "outbound": {"type": "boolean"},
            "message_ref": {"type": "string"}
          },
          "additionalProperties": true
        }},
        "additionalProperties": true
      },
      "ZuordnungEntschieden": {
        "metadata": {"event_type": "WimDeviceChangeZuordnungEntschieden"},
        "properties": {"data": {
          "properties": {
            "pruefidentifikator": {"ref": "pid"},
            "zugeordnet": {"type": "boolean"},
            "zuordnungsbeginn": {"type": "string", "nullable": true},
            "outbound": {"type": "boolean"}
          },
          "additionalProperties": true
        }},
        "additionalProperties": true
      }
           }'),
           '{mapping,Initiated,properties,data,properties,vorgangsnummer}', '{"type": "string", "nullable": true}'),
           '{mapping,Initiated,properties,data,properties,process_date}', '{"type": "string", "nullable": true}'),
           '{mapping,AntwortEmpfangen,properties,data,properties,bestaetigter_termin}',
           '{"type": "string", "nullable": true}')
$$;

CREATE FUNCTION wim.device_change_state_type_2025() RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT '{
    "definitions": {
      "data": {"properties": {
        "melo_id": {"type": "string"},
        "incoming_msb": {"type": "string"},
        "grid_operator": {"type": "string"},
        "device_id": {"type": "string"},
        "document_date": {"type": "string"},
        "pruefidentifikator": {"type": "uint32"},
        "message_ref": {"type": "string", "nullable": true}
      }}
    },
    "discriminator": "status",
    "mapping": {
      "New": {"properties": {}},
      "AuftragGesendet": {"properties": {"data": {"ref": "data"}}},
      "AuftragBestaetigt": {"properties": {"data": {"ref": "data"}}},
      "Initiated": {"properties": {"data": {"ref": "data"}}},
      "ValidationPassed": {"properties": {"data": {"ref": "data"}}},
      "AperakSent": {"properties": {"data": {"ref": "data"}}},
      "Completed": {"properties": {"data": {"ref": "data"}}},
      "Rejected": {"properties": {"data": {"properties": {"reason": {"type": "string"}}}}}
    }
  }'::jsonb
$$;

CREATE FUNCTION wim.device_change_state_type_2026() RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT '{
    "definitions": {
      "data": {"properties": {
        "melo_id": {"type": "string"},
        "incoming_msb": {"type": "string"},
        "grid_operator": {"type": "string"},
        "device_id": {"type": "string"},
        "document_date": {"type": "string"},
        "pruefidentifikator": {"type": "uint16"},
        "message_ref": {"type": "string", "nullable": true},
        "vorgangsnummer": {"type": "string", "nullable": true},
        "process_date": {"type": "string", "nullable": true},
        "bestaetigter_zuordnungsbeginn": {"type": "string", "nullable": true}
      }}
    },
    "discriminator": "status",
    "mapping": {
      "New": {"properties": {}},
      "AuftragGesendet": {"properties": {"data": {"ref": "data"}}},
      "AuftragBestaetigt": {"properties": {"data": {"ref": "data"}}},
      "Initiated": {"properties": {"data": {"ref": "data"}}},
      "ValidationPassed": {"properties": {"data": {"ref": "data"}}},
      "AperakSent": {"properties": {"data": {"ref": "data"}}},
      "AntwortGesendet": {"properties": {"data": {"ref": "data"}}},
      "GesamtvorgangGemeldet": {"properties": {"data": {"ref": "data"}}},
      "Completed": {"properties": {"data": {"ref": "data"}}},
      "Rejected": {"properties": {"data": {"properties": {"reason": {"type": "string"}}}}}
    }
  }'::jsonb
$$;

----------------------------------------------------------------------------------------------------
-- Upcast: payload as stored -> payload in full
----------------------------------------------------------------------------------------------------

-- Fills in what may be missing, in either version, and leaves the rest to the type definition.
CREATE FUNCTION wim.device_change_upcast(event_type text, schema_version int, payload jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE
    WHEN schema_version <> 1 THEN mako_reject(format('unknown schema version %s', schema_version))
    WHEN jsonb_typeof(payload->'data') = 'object' THEN
      jsonb_set(payload, '{data}', (payload->'data')
        || CASE payload->>'type'
             WHEN 'Initiated' THEN jsonb_build_object(
               'vorgangsnummer', payload->'data'->'vorgangsnummer',
               'process_date', payload->'data'->'process_date')
             WHEN 'AperakDispatched' THEN jsonb_build_object(
               'reason', payload->'data'->'reason')
             WHEN 'AntwortEmpfangen' THEN jsonb_build_object(
               'reason', payload->'data'->'reason',
               'bestaetigter_termin', payload->'data'->'bestaetigter_termin')
             WHEN 'AntwortGesendet' THEN jsonb_build_object(
               'bemerkung', payload->'data'->'bemerkung',
               'abweichender_termin', payload->'data'->'abweichender_termin')
             WHEN 'GesamtvorgangGemeldet' THEN jsonb_build_object(
               'zuordnungsbeginn', payload->'data'->'zuordnungsbeginn')
             WHEN 'ZuordnungEntschieden' THEN jsonb_build_object(
               'zuordnungsbeginn', payload->'data'->'zuordnungsbeginn')
             ELSE '{}'
           END)
    ELSE payload
  END
$$;

----------------------------------------------------------------------------------------------------
-- States and their parts
----------------------------------------------------------------------------------------------------

CREATE FUNCTION wim.device_change_state(status text, data jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT jsonb_build_object('status', status, 'data', data)
$$;

CREATE FUNCTION wim.device_change_rejected(reason text) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT wim.device_change_state('Rejected', jsonb_build_object('reason', reason))
$$;

-- Tells whether a process is still under way, in any version.
CREATE FUNCTION wim.device_change_in_flight(state jsonb) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT state->>'status' NOT IN ('Completed', 'Rejected')
$$;

-- Makes master data from an Initiated payload.
CREATE FUNCTION wim.device_change_received_2025(data jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT jsonb_build_object(
    'melo_id', data->'melo_id',
    'incoming_msb', data->'incoming_msb',
    'grid_operator', data->'grid_operator',
    'device_id', data->'device_id',
    'document_date', data->'document_date',
    'pruefidentifikator', data->'pruefidentifikator',
    'message_ref', data->'message_ref')
$$;

-- Makes master data from an AuftragGesendet payload: the order is our own, and there is no device yet.
CREATE FUNCTION wim.device_change_sent_2025(data jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT jsonb_build_object(
    'melo_id', data->'melo_id',
    'incoming_msb', data->'sender',
    'grid_operator', data->'receiver',
    'device_id', '',
    'document_date', data->'process_date',
    'pruefidentifikator', data->'pruefidentifikator',
    'message_ref', data->'message_ref')
$$;

-- Adds to the old master data what the new one has besides.
CREATE FUNCTION wim.device_change_data_2025_2026(data jsonb, vorgangsnummer jsonb, process_date jsonb, beginn jsonb)
RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT data || jsonb_build_object(
    'vorgangsnummer', vorgangsnummer,
    'process_date', process_date,
    'bestaetigter_zuordnungsbeginn', beginn)
$$;

-- Reads the date of a document. Orders that came in through the REST interface have their category behind it.
CREATE FUNCTION wim.device_change_document_date(data jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE
    WHEN split_part(data->>'document_date', '|', 1) = '' THEN
      mako_reject(format('document_date "%s" is no date', data->>'document_date'))
    ELSE to_jsonb(split_part(data->>'document_date', '|', 1))
  END
$$;

-- Sets when the new company begins, unless that is null.
CREATE FUNCTION wim.device_change_beginning(data jsonb, beginn jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE beginn
    WHEN 'null' THEN data
    ELSE data || jsonb_build_object('bestaetigter_zuordnungsbeginn', beginn)
  END
$$;

-- The first of two values that is not null.
CREATE FUNCTION wim.device_change_first(a jsonb, b jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE a WHEN 'null' THEN b ELSE a END
$$;

----------------------------------------------------------------------------------------------------
-- Apply: state and event -> state
----------------------------------------------------------------------------------------------------

CREATE FUNCTION wim.device_change_apply_2025(state jsonb, event_type text, payload jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE payload->>'type'
    WHEN 'AuftragGesendet' THEN
      wim.device_change_state('AuftragGesendet', wim.device_change_sent_2025(payload->'data'))
    WHEN 'AntwortEmpfangen' THEN
      CASE
        WHEN state->>'status' <> 'AuftragGesendet' THEN state
        WHEN payload->'data'->>'is_confirmed' = 'true' THEN
          wim.device_change_state('AuftragBestaetigt', state->'data')
        ELSE wim.device_change_rejected(
          coalesce(payload->'data'->>'reason', 'Auftrag vom Marktpartner abgelehnt'))
      END
    WHEN 'Initiated' THEN
      wim.device_change_state('Initiated', wim.device_change_received_2025(payload->'data'))
    WHEN 'ValidationPassed' THEN
      CASE state->>'status'
        WHEN 'Initiated' THEN wim.device_change_state('ValidationPassed', state->'data')
        ELSE state
      END
    WHEN 'AperakDispatched' THEN
      CASE
        WHEN state->>'status' <> 'ValidationPassed' THEN state
        WHEN payload->'data'->>'positive' = 'true' THEN wim.device_change_state('AperakSent', state->'data')
        ELSE wim.device_change_rejected('negative APERAK')
      END
    WHEN 'Completed' THEN
      CASE
        WHEN state->>'status' IN ('AperakSent', 'AuftragBestaetigt') THEN
          wim.device_change_state('Completed', jsonb_set(state->'data', '{device_id}', payload->'data'->'device_id'))
        ELSE state
      END
    WHEN 'Rejected' THEN
      wim.device_change_rejected(payload->'data'->>'reason')
    WHEN 'DeadlineExpired' THEN
      CASE
        WHEN wim.device_change_in_flight(state) THEN
          wim.device_change_rejected('deadline expired: ' || (payload->'data'->>'label'))
        ELSE state
      END
    WHEN 'IftstaStatusReceived' THEN
      state
  END
$$;

CREATE FUNCTION wim.device_change_apply_2026(state jsonb, event_type text, payload jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE payload->>'type'
    WHEN 'AuftragGesendet' THEN
      wim.device_change_state('AuftragGesendet', wim.device_change_data_2025_2026(
        wim.device_change_sent_2025(payload->'data'), 'null', payload->'data'->'process_date', 'null'))
    WHEN 'AntwortEmpfangen' THEN
      CASE
        WHEN state->>'status' <> 'AuftragGesendet' THEN state
        WHEN payload->'data'->>'is_confirmed' = 'true' THEN
          wim.device_change_state('AuftragBestaetigt', (state->'data') || jsonb_build_object(
            'bestaetigter_zuordnungsbeginn',
            wim.device_change_first(payload->'data'->'bestaetigter_termin', state->'data'->'process_date')))
        ELSE wim.device_change_rejected(
          coalesce(payload->'data'->>'reason', 'Auftrag vom Marktpartner abgelehnt'))
      END
    WHEN 'Initiated' THEN
      wim.device_change_state('Initiated', wim.device_change_data_2025_2026(
        wim.device_change_received_2025(payload->'data'),
        payload->'data'->'vorgangsnummer', payload->'data'->'process_date', 'null'))
    WHEN 'ValidationPassed' THEN
      CASE state->>'status'
        WHEN 'Initiated' THEN wim.device_change_state('ValidationPassed', state->'data')
        ELSE state
      END
    WHEN 'AperakDispatched' THEN
      CASE
        WHEN state->>'status' <> 'ValidationPassed' THEN state
        WHEN payload->'data'->>'positive' = 'true' THEN wim.device_change_state('AperakSent', state->'data')
        ELSE wim.device_change_rejected('negative APERAK')
      END
    WHEN 'AntwortGesendet' THEN
      CASE
        WHEN state->>'status' NOT IN ('ValidationPassed', 'AperakSent') THEN state
        WHEN payload->'data'->>'bestaetigt' = 'true' THEN
          wim.device_change_state('AntwortGesendet', (state->'data') || jsonb_build_object(
            'bestaetigter_zuordnungsbeginn',
            wim.device_change_first(payload->'data'->'abweichender_termin', state->'data'->'process_date')))
        ELSE wim.device_change_rejected('Ablehnung versendet')
      END
    WHEN 'GesamtvorgangGemeldet' THEN
      CASE
        WHEN state->>'status' NOT IN ('AntwortGesendet', 'AuftragBestaetigt') THEN state
        WHEN payload->'data'->>'erfolgreich' = 'true' THEN
          wim.device_change_state('GesamtvorgangGemeldet',
            wim.device_change_beginning(state->'data', payload->'data'->'zuordnungsbeginn'))
        ELSE wim.device_change_rejected('Gesamtvorgang gescheitert — der MSBA bleibt zugeordnet')
      END
    WHEN 'ZuordnungEntschieden' THEN
      CASE
        WHEN state->>'status' <> 'GesamtvorgangGemeldet' THEN state
        WHEN payload->'data'->>'zugeordnet' = 'true' THEN
          wim.device_change_state('Completed',
            wim.device_change_beginning(state->'data', payload->'data'->'zuordnungsbeginn'))
        ELSE wim.device_change_rejected('Zuordnung nicht erfolgt — der MSBA bleibt zugeordnet')
      END
    WHEN 'Completed' THEN
      CASE
        WHEN state->>'status' IN ('AperakSent', 'AntwortGesendet', 'GesamtvorgangGemeldet', 'AuftragBestaetigt') THEN
          wim.device_change_state('Completed', jsonb_set(state->'data', '{device_id}', payload->'data'->'device_id'))
        ELSE state
      END
    WHEN 'Rejected' THEN
      wim.device_change_rejected(payload->'data'->>'reason')
    WHEN 'DeadlineExpired' THEN
      CASE
        WHEN wim.device_change_in_flight(state) THEN
          wim.device_change_rejected('deadline expired: ' || (payload->'data'->>'label'))
        ELSE state
      END
    WHEN 'IftstaStatusReceived' THEN
      state
  END
$$;

----------------------------------------------------------------------------------------------------
-- Migrate: state of one version -> state of another, or a refusal
----------------------------------------------------------------------------------------------------

-- An order of our own was about its document date, and once confirmed that is when we begin; who had sent an APERAK had
-- answered. No ELSE: an unknown status must not pass unnoticed.
CREATE FUNCTION wim.device_change_migrate_2025_2026(state jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE
    WHEN state->>'status' IN ('New', 'Rejected') THEN
      state
    WHEN state->>'status' IN ('Initiated', 'ValidationPassed', 'Completed') THEN
      wim.device_change_state(state->>'status',
        wim.device_change_data_2025_2026(state->'data', 'null', 'null', 'null'))
    WHEN state->>'status' = 'AuftragGesendet' THEN
      wim.device_change_state('AuftragGesendet', wim.device_change_data_2025_2026(
        state->'data', 'null', state->'data'->'document_date', 'null'))
    WHEN state->>'status' = 'AuftragBestaetigt' THEN
      wim.device_change_state('AuftragBestaetigt', wim.device_change_data_2025_2026(
        state->'data', 'null', state->'data'->'document_date', state->'data'->'document_date'))
    WHEN state->>'status' = 'AperakSent' THEN
      wim.device_change_state('AntwortGesendet', wim.device_change_data_2025_2026(
        state->'data', 'null', wim.device_change_document_date(state->'data'), 'null'))
  END
$$;
