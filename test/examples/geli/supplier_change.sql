-- The workflow geli-gas-supplier-change in two versions: the change of supplier for gas.
--
--   FV2025-10-01   the old layout: one kind of process, which is answered with an APERAK
--   FV2026-10-01   new_supplier and gas_operator become sender and receiver; a mandatory variant says which process it
--                  is; AperakSent becomes AntwortGesendet; processes of the grid operator and finished ones have states
--                  of their own, GnbPending and Completed
--
-- The step is one that happened, though at an earlier date. The variant follows from the number of the starting message; the old version also took
-- answers for starting messages, and these are refused.

CREATE SCHEMA geli;

----------------------------------------------------------------------------------------------------
-- Types (RFC 8927)
----------------------------------------------------------------------------------------------------

-- Describes a payload after the upcast, of which unknown keys are allowed.
CREATE FUNCTION geli.supplier_change_event_type_2025() RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT '{
    "definitions": {
      "nothing": {"nullable": true, "discriminator": "nothing", "mapping": {}}
    },
    "discriminator": "type",
    "mapping": {
      "Initiated": {
        "metadata": {"event_type": "GasSupplierChangeInitiated"},
        "properties": {"data": {
          "properties": {
            "malo_id": {"type": "string"},
            "new_supplier": {"type": "string"},
            "gas_operator": {"type": "string"},
            "document_date": {"type": "string"},
            "pruefidentifikator": {"type": "uint32"},
            "message_ref": {"type": "string", "nullable": true}
          },
          "additionalProperties": true
        }},
        "additionalProperties": true
      },
      "ValidationPassed": {
        "metadata": {"event_type": "GasSupplierChangeValidationPassed"},
        "properties": {"data": {"properties": {"message_ref": {"type": "string"}}, "additionalProperties": true}},
        "additionalProperties": true
      },
      "AperakDispatched": {
        "metadata": {"event_type": "GasSupplierChangeAperakDispatched"},
        "properties": {"data": {
          "properties": {"positive": {"type": "boolean"}, "reason": {"type": "string", "nullable": true}},
          "additionalProperties": true
        }},
        "additionalProperties": true
      },
      "Activated": {
        "metadata": {"event_type": "GasSupplierChangeActivated"},
        "optionalProperties": {"data": {"ref": "nothing"}},
        "additionalProperties": true
      },
      "Rejected": {
        "metadata": {"event_type": "GasSupplierChangeRejected"},
        "properties": {"data": {"properties": {"reason": {"type": "string"}}, "additionalProperties": true}},
        "additionalProperties": true
      },
      "DeadlineExpired": {
        "metadata": {"event_type": "GasSupplierChangeDeadlineExpired"},
        "properties": {"data": {
          "properties": {"deadline_id": {"type": "string"}, "label": {"type": "string"}},
          "additionalProperties": true
        }},
        "additionalProperties": true
      }
    }
  }'::jsonb
$$;

CREATE FUNCTION geli.supplier_change_event_type_2026() RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT jsonb_set(geli.supplier_change_event_type_2025(), '{mapping}',
    (geli.supplier_change_event_type_2025()->'mapping') - 'AperakDispatched' || '{
      "Initiated": {
        "metadata": {"event_type": "GasSupplierChangeInitiated"},
        "properties": {"data": {"ref": "request"}},
        "additionalProperties": true
      },
      "GnbProcessInitiated": {
        "metadata": {"event_type": "GasSupplierChangeGnbProcessInitiated"},
        "properties": {"data": {"ref": "request"}},
        "additionalProperties": true
      },
      "AntwortGesendet": {
        "metadata": {"event_type": "GasSupplierChangeAntwortGesendet"},
        "properties": {"data": {
          "properties": {
            "response_pid": {"type": "uint32", "nullable": true},
            "accepted": {"type": "boolean"},
            "reason": {"type": "string", "nullable": true}
          },
          "additionalProperties": true
        }},
        "additionalProperties": true
      },
      "GnbAntwortErhalten": {
        "metadata": {"event_type": "GasSupplierChangeGnbAntwortErhalten"},
        "properties": {"data": {
          "properties": {
            "response_pid": {"type": "uint32"},
            "accepted": {"type": "boolean"},
            "reason": {"type": "string", "nullable": true}
          },
          "additionalProperties": true
        }},
        "additionalProperties": true
      }
    }')
    || '{
      "definitions": {
        "nothing": {"nullable": true, "discriminator": "nothing", "mapping": {}},
        "variant": {"enum": ["LieferbeginnGas", "LieferendeGas", "AbmeldungNn", "Abmeldungsanfrage", "EogAnmeldung",
                             "KuendigungLfa", "Bestandsliste", "Aenderungsmeldung"]},
        "request": {
          "properties": {
            "variant": {"ref": "variant"},
            "sender": {"type": "string"},
            "receiver": {"type": "string"},
            "malo_id": {"type": "string"},
            "document_date": {"type": "string"},
            "process_date": {"type": "string"},
            "message_ref": {"type": "string"},
            "pruefidentifikator": {"type": "uint32"}
          },
          "additionalProperties": true
        }
      }
    }'
$$;

CREATE FUNCTION geli.supplier_change_state_type_2025() RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT '{
    "definitions": {
      "data": {"properties": {
        "malo_id": {"type": "string"},
        "new_supplier": {"type": "string"},
        "gas_operator": {"type": "string"},
        "document_date": {"type": "string"},
        "pruefidentifikator": {"type": "uint32"},
        "message_ref": {"type": "string", "nullable": true}
      }}
    },
    "discriminator": "status",
    "mapping": {
      "New": {"properties": {}},
      "Initiated": {"properties": {"data": {"ref": "data"}}},
      "ValidationPassed": {"properties": {"data": {"ref": "data"}}},
      "AperakSent": {"properties": {"data": {"ref": "data"}}},
      "Active": {"properties": {"data": {"ref": "data"}}},
      "Rejected": {"properties": {"data": {"properties": {"reason": {"type": "string"}}}}}
    }
  }'::jsonb
$$;

CREATE FUNCTION geli.supplier_change_state_type_2026() RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT '{
    "definitions": {
      "data": {"properties": {
        "variant": {"enum": ["LieferbeginnGas", "LieferendeGas", "AbmeldungNn", "Abmeldungsanfrage", "EogAnmeldung",
                             "KuendigungLfa", "Bestandsliste", "Aenderungsmeldung"]},
        "malo_id": {"type": "string"},
        "sender": {"type": "string"},
        "receiver": {"type": "string"},
        "document_date": {"type": "string"},
        "process_date": {"type": "string"},
        "pruefidentifikator": {"type": "uint32"},
        "message_ref": {"type": "string", "nullable": true}
      }}
    },
    "discriminator": "status",
    "mapping": {
      "New": {"properties": {}},
      "Initiated": {"properties": {"data": {"ref": "data"}}},
      "ValidationPassed": {"properties": {"data": {"ref": "data"}}},
      "AntwortGesendet": {"properties": {"data": {
        "properties": {"data": {"ref": "data"}, "response_pid": {"type": "uint32", "nullable": true}}
      }}},
      "GnbPending": {"properties": {"data": {"ref": "data"}}},
      "Active": {"properties": {"data": {"ref": "data"}}},
      "Completed": {"properties": {"data": {"ref": "data"}}},
      "Rejected": {"properties": {"data": {"properties": {"reason": {"type": "string"}}}}}
    }
  }'::jsonb
$$;

----------------------------------------------------------------------------------------------------
-- Upcast: payload as stored -> payload in full
----------------------------------------------------------------------------------------------------

-- Fills in what may be missing, and leaves the rest to the type definition.
CREATE FUNCTION geli.supplier_change_upcast_2025(event_type text, schema_version int, payload jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE
    WHEN schema_version <> 1 THEN mako_reject(format('unknown schema version %s', schema_version))
    WHEN jsonb_typeof(payload->'data') = 'object' THEN
      CASE payload->>'type'
        WHEN 'Initiated' THEN jsonb_set(payload, '{data}', '{"message_ref": null}' || (payload->'data'))
        WHEN 'AperakDispatched' THEN jsonb_set(payload, '{data}', '{"reason": null}' || (payload->'data'))
        ELSE payload
      END
    ELSE payload
  END
$$;

CREATE FUNCTION geli.supplier_change_upcast_2026(event_type text, schema_version int, payload jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE
    WHEN schema_version <> 1 THEN mako_reject(format('unknown schema version %s', schema_version))
    WHEN jsonb_typeof(payload->'data') = 'object' THEN
      CASE
        WHEN payload->>'type' IN ('Initiated', 'GnbProcessInitiated') THEN
          jsonb_set(payload, '{data}', '{"process_date": ""}' || (payload->'data'))
        WHEN payload->>'type' = 'AntwortGesendet' THEN
          jsonb_set(payload, '{data}', '{"response_pid": null, "reason": null}' || (payload->'data'))
        WHEN payload->>'type' = 'GnbAntwortErhalten' THEN
          jsonb_set(payload, '{data}', '{"reason": null}' || (payload->'data'))
        ELSE payload
      END
    ELSE payload
  END
$$;

----------------------------------------------------------------------------------------------------
-- States and their parts
----------------------------------------------------------------------------------------------------

CREATE FUNCTION geli.supplier_change_state(status text, data jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT jsonb_build_object('status', status, 'data', data)
$$;

CREATE FUNCTION geli.supplier_change_rejected(reason text) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT geli.supplier_change_state('Rejected', jsonb_build_object('reason', reason))
$$;

-- Tells whether a process is still under way, in any version.
CREATE FUNCTION geli.supplier_change_in_flight(state jsonb) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT state->>'status' NOT IN ('Active', 'Completed', 'Rejected')
$$;

CREATE FUNCTION geli.supplier_change_data_2025(data jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT jsonb_build_object(
    'malo_id', data->'malo_id',
    'new_supplier', data->'new_supplier',
    'gas_operator', data->'gas_operator',
    'document_date', data->'document_date',
    'pruefidentifikator', data->'pruefidentifikator',
    'message_ref', data->'message_ref')
$$;

CREATE FUNCTION geli.supplier_change_data_2026(data jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT jsonb_build_object(
    'variant', data->'variant',
    'malo_id', data->'malo_id',
    'sender', data->'sender',
    'receiver', data->'receiver',
    'document_date', data->'document_date',
    'process_date', data->'process_date',
    'pruefidentifikator', data->'pruefidentifikator',
    'message_ref', data->'message_ref')
$$;

-- Tells which process a message starts.
CREATE FUNCTION geli.supplier_change_variant(pid text) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE pid
    WHEN '44001' THEN '"LieferbeginnGas"'
    WHEN '44004' THEN '"LieferendeGas"'
    WHEN '44007' THEN '"AbmeldungNn"'
    WHEN '44010' THEN '"Abmeldungsanfrage"'
    WHEN '44013' THEN '"EogAnmeldung"'
    WHEN '44016' THEN '"KuendigungLfa"'
    WHEN '44019' THEN '"Bestandsliste"'
    WHEN '44020' THEN '"Aenderungsmeldung"'
    ELSE mako_reject(format('PID %s starts no process, so there is no variant', pid))
  END
$$;

-- Renames by position: the sender was called new_supplier even where it was the grid operator. There was no
-- process_date.
CREATE FUNCTION geli.supplier_change_data_2025_2026(data jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT (data - 'new_supplier' - 'gas_operator')
         || jsonb_build_object(
              'variant', geli.supplier_change_variant(data->>'pruefidentifikator'),
              'sender', data->'new_supplier',
              'receiver', data->'gas_operator',
              'process_date', '')
$$;

----------------------------------------------------------------------------------------------------
-- Apply: state and event -> state
----------------------------------------------------------------------------------------------------

CREATE FUNCTION geli.supplier_change_apply_2025(state jsonb, event_type text, payload jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE payload->>'type'
    WHEN 'Initiated' THEN
      geli.supplier_change_state('Initiated', geli.supplier_change_data_2025(payload->'data'))
    WHEN 'ValidationPassed' THEN
      CASE state->>'status'
        WHEN 'Initiated' THEN geli.supplier_change_state('ValidationPassed', state->'data')
        ELSE state
      END
    WHEN 'AperakDispatched' THEN
      CASE
        WHEN state->>'status' <> 'ValidationPassed' THEN state
        WHEN payload->'data'->>'positive' = 'true' THEN geli.supplier_change_state('AperakSent', state->'data')
        ELSE geli.supplier_change_rejected('negative APERAK')
      END
    WHEN 'Activated' THEN
      CASE state->>'status'
        WHEN 'AperakSent' THEN geli.supplier_change_state('Active', state->'data')
        ELSE state
      END
    WHEN 'Rejected' THEN
      geli.supplier_change_rejected(payload->'data'->>'reason')
    WHEN 'DeadlineExpired' THEN
      CASE
        WHEN geli.supplier_change_in_flight(state) THEN
          geli.supplier_change_rejected('deadline expired: ' || (payload->'data'->>'label'))
        ELSE state
      END
  END
$$;

CREATE FUNCTION geli.supplier_change_apply_2026(state jsonb, event_type text, payload jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE payload->>'type'
    WHEN 'Initiated' THEN
      geli.supplier_change_state('Initiated', geli.supplier_change_data_2026(payload->'data'))
    WHEN 'ValidationPassed' THEN
      CASE
        WHEN state->>'status' <> 'Initiated' THEN state
        WHEN state->'data'->>'variant' = 'Bestandsliste' THEN geli.supplier_change_state('Completed', state->'data')
        ELSE geli.supplier_change_state('ValidationPassed', state->'data')
      END
    WHEN 'AntwortGesendet' THEN
      CASE
        WHEN state->>'status' <> 'ValidationPassed' THEN state
        WHEN payload->'data'->>'accepted' = 'true' THEN
          geli.supplier_change_state('AntwortGesendet', jsonb_build_object(
            'data', state->'data',
            'response_pid', payload->'data'->'response_pid'))
        ELSE geli.supplier_change_rejected(coalesce(payload->'data'->>'reason', 'negative Antwort'))
      END
    WHEN 'GnbProcessInitiated' THEN
      geli.supplier_change_state(
        CASE payload->'data'->>'variant' WHEN 'Bestandsliste' THEN 'Completed' ELSE 'GnbPending' END,
        geli.supplier_change_data_2026(payload->'data'))
    WHEN 'GnbAntwortErhalten' THEN
      CASE
        WHEN state->>'status' <> 'GnbPending' THEN state
        WHEN payload->'data'->>'accepted' = 'true' THEN geli.supplier_change_state('Completed', state->'data')
        ELSE geli.supplier_change_rejected(coalesce(payload->'data'->>'reason', 'negative Antwort'))
      END
    WHEN 'Activated' THEN
      CASE state->>'status'
        WHEN 'AntwortGesendet' THEN geli.supplier_change_state('Active', state->'data'->'data')
        ELSE state
      END
    WHEN 'Rejected' THEN
      geli.supplier_change_rejected(payload->'data'->>'reason')
    WHEN 'DeadlineExpired' THEN
      CASE
        WHEN geli.supplier_change_in_flight(state) THEN
          geli.supplier_change_rejected('deadline expired: ' || (payload->'data'->>'label'))
        ELSE state
      END
  END
$$;

----------------------------------------------------------------------------------------------------
-- Migrate: state of one version -> state of another, or a refusal
----------------------------------------------------------------------------------------------------

-- Nobody answers 44019, a list of customers: once it is valid it is done. A supply is Active only where one begins, every
-- other process that was Active is over. The accepting answer has the number that follows that of the request. No ELSE:
-- an unknown status must not pass unnoticed.
CREATE FUNCTION geli.supplier_change_migrate_2025_2026(state jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE
    WHEN state->>'status' IN ('New', 'Rejected') THEN
      state
    WHEN state->>'status' IN ('ValidationPassed', 'AperakSent')
         AND state->'data'->>'pruefidentifikator' = '44019' THEN
      geli.supplier_change_state('Completed', geli.supplier_change_data_2025_2026(state->'data'))
    WHEN state->>'status' IN ('Initiated', 'ValidationPassed') THEN
      geli.supplier_change_state(state->>'status', geli.supplier_change_data_2025_2026(state->'data'))
    WHEN state->>'status' = 'AperakSent' THEN
      geli.supplier_change_state('AntwortGesendet', jsonb_build_object(
        'data', geli.supplier_change_data_2025_2026(state->'data'),
        'response_pid', (state->'data'->>'pruefidentifikator')::bigint + 1))
    WHEN state->>'status' = 'Active' THEN
      geli.supplier_change_state(
        CASE state->'data'->>'pruefidentifikator' WHEN '44001' THEN 'Active' ELSE 'Completed' END,
        geli.supplier_change_data_2025_2026(state->'data'))
  END
$$;
