-- The workflow gpke-lf-anmeldung in two versions: a supplier's own request to supply a location.
--
--   FV2025-10-01   a location is a string
--   FV2026-10-01   a location says what kind it is: {"type": "malo", "id": "51238696012"}; numbers of messages have
--                  16 bits
--
-- The step is invented. It refuses locations of which nobody can tell the kind.
--
-- States have no tag, "New" and {"Pending": {...}}, which a type definition cannot express. So the functions declare a
-- domain: what they return is checked against it, and so is a migrated state. Events need no upcast, so that only schema
-- version 1 is known.
--
-- The schema is that of supplier_change.sql.

----------------------------------------------------------------------------------------------------
-- Types
----------------------------------------------------------------------------------------------------

CREATE FUNCTION gpke.lf_anmeldung_event_type() RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT '{
    "definitions": {
      "pid": {"type": "uint32"},
      "nothing": {"nullable": true, "discriminator": "nothing", "mapping": {}}
    },
    "discriminator": "type",
    "mapping": {
      "Initiated": {
        "metadata": {"event_type": "LfAnmeldungInitiated"},
        "properties": {"data": {
          "properties": {
            "pruefidentifikator": {"ref": "pid"},
            "location_id": {"type": "string"},
            "sender": {"type": "string"},
            "receiver": {"type": "string"},
            "process_date": {"type": "string"}
          },
          "additionalProperties": true
        }},
        "additionalProperties": true
      },
      "AntwortReceived": {
        "metadata": {"event_type": "LfAnmeldungAntwortReceived"},
        "properties": {"data": {
          "properties": {
            "response_pid": {"ref": "pid"},
            "accepted": {"type": "boolean"},
            "response_ref": {"type": "string"}
          },
          "optionalProperties": {"reason": {"type": "string", "nullable": true}},
          "additionalProperties": true
        }},
        "additionalProperties": true
      },
      "Activated": {
        "metadata": {"event_type": "LfAnmeldungActivated"},
        "optionalProperties": {"data": {"ref": "nothing"}},
        "additionalProperties": true
      },
      "DeadlineExpired": {
        "metadata": {"event_type": "LfAnmeldungDeadlineExpired"},
        "properties": {"data": {
          "properties": {"deadline_id": {"type": "string"}, "label": {"type": "string"}},
          "additionalProperties": true
        }},
        "additionalProperties": true
      }
    }
  }'::jsonb
$$;

-- A state is "New", or has one key, whose value is the data of that status.
CREATE DOMAIN gpke.lf_anmeldung_state_2025 AS jsonb
  CONSTRAINT lf_anmeldung_state_2025_check CHECK (VALUE = '"New"'
    OR mako_is_valid('{"properties": {"Rejected": {"properties": {"reason": {"type": "string"}}}}}', VALUE)
    OR (VALUE ?| '{Pending,Active}' AND mako_is_valid('{
         "values": {"properties": {
           "pruefidentifikator": {"type": "uint32"},
           "location_id": {"type": "string"},
           "sender": {"type": "string"},
           "receiver": {"type": "string"},
           "process_date": {"type": "string"}}}}', VALUE)
      AND NOT VALUE ?& '{Pending,Active}'
      AND VALUE - '{Pending,Active}'::text[] = '{}'));

CREATE DOMAIN gpke.lf_anmeldung_state_2026 AS jsonb
  CONSTRAINT lf_anmeldung_state_2026_check CHECK (VALUE = '"New"'
    OR mako_is_valid('{"properties": {"Rejected": {"properties": {"reason": {"type": "string"}}}}}', VALUE)
    OR (VALUE ?| '{Pending,Active}' AND mako_is_valid('{
         "values": {"properties": {
           "pruefidentifikator": {"type": "uint16"},
           "location": {"properties": {"type": {"enum": ["malo", "nelo"]}, "id": {"type": "string"}}},
           "sender": {"type": "string"},
           "receiver": {"type": "string"},
           "process_date": {"type": "string"}}}}', VALUE)
      AND NOT VALUE ?& '{Pending,Active}'
      AND VALUE - '{Pending,Active}'::text[] = '{}'));

----------------------------------------------------------------------------------------------------
-- States and their parts
----------------------------------------------------------------------------------------------------

CREATE FUNCTION gpke.lf_anmeldung_rejected(reason text) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT jsonb_build_object('Rejected', jsonb_build_object('reason', reason))
$$;

-- Tells whether a process is still under way, in any version.
CREATE FUNCTION gpke.lf_anmeldung_in_flight(state jsonb) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT NOT state ?| '{Active,Rejected}'
$$;

CREATE FUNCTION gpke.lf_anmeldung_data_2025(data jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT jsonb_build_object(
    'pruefidentifikator', data->'pruefidentifikator',
    'location_id', data->'location_id',
    'sender', data->'sender',
    'receiver', data->'receiver',
    'process_date', data->'process_date')
$$;

-- Market locations start with 4 to 9, grid locations with E.
CREATE FUNCTION gpke.lf_anmeldung_location(location_id text) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE
    WHEN left(location_id, 1) BETWEEN '4' AND '9' THEN jsonb_build_object('type', 'malo', 'id', location_id)
    WHEN left(location_id, 1) = 'E' THEN jsonb_build_object('type', 'nelo', 'id', location_id)
    ELSE mako_reject(format('location_id "%s" has no known prefix', location_id))
  END
$$;

CREATE FUNCTION gpke.lf_anmeldung_data_2025_2026(data jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT (data - 'location_id')
         || jsonb_build_object('location', gpke.lf_anmeldung_location(data->>'location_id'))
$$;

----------------------------------------------------------------------------------------------------
-- Apply: state and event -> state
----------------------------------------------------------------------------------------------------

-- What every event but Initiated does, which is the same in both versions: nothing else looks inside the data. A refused
-- answer acts in every state.
CREATE FUNCTION gpke.lf_anmeldung_continue(state jsonb, payload jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE payload->>'type'
    WHEN 'AntwortReceived' THEN
      CASE
        WHEN payload->'data'->>'accepted' = 'false' THEN
          gpke.lf_anmeldung_rejected(coalesce(payload->'data'->>'reason', 'Ablehnung'))
        WHEN state ? 'Pending' THEN jsonb_build_object('Active', state->'Pending')
        ELSE state
      END
    WHEN 'Activated' THEN
      state
    WHEN 'DeadlineExpired' THEN
      CASE
        WHEN gpke.lf_anmeldung_in_flight(state) THEN
          gpke.lf_anmeldung_rejected('deadline expired: ' || (payload->'data'->>'label'))
        ELSE state
      END
  END
$$;

CREATE FUNCTION gpke.lf_anmeldung_apply_2025(state gpke.lf_anmeldung_state_2025, event_type text, payload jsonb)
RETURNS gpke.lf_anmeldung_state_2025
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE payload->>'type'
    WHEN 'Initiated' THEN
      jsonb_build_object('Pending', gpke.lf_anmeldung_data_2025(payload->'data'))
    ELSE gpke.lf_anmeldung_continue(state, payload)
  END
$$;

CREATE FUNCTION gpke.lf_anmeldung_apply_2026(state gpke.lf_anmeldung_state_2026, event_type text, payload jsonb)
RETURNS gpke.lf_anmeldung_state_2026
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE payload->>'type'
    WHEN 'Initiated' THEN
      jsonb_build_object('Pending', gpke.lf_anmeldung_data_2025_2026(gpke.lf_anmeldung_data_2025(payload->'data')))
    ELSE gpke.lf_anmeldung_continue(state, payload)
  END
$$;

----------------------------------------------------------------------------------------------------
-- Migrate: state of one version -> state of another, or a refusal
----------------------------------------------------------------------------------------------------

-- No ELSE: an unknown status must not pass unnoticed.
CREATE FUNCTION gpke.lf_anmeldung_migrate_2025_2026(state jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE
    WHEN state ? 'Pending' THEN
      jsonb_build_object('Pending', gpke.lf_anmeldung_data_2025_2026(state->'Pending'))
    WHEN state ? 'Active' THEN
      jsonb_build_object('Active', gpke.lf_anmeldung_data_2025_2026(state->'Active'))
    WHEN state ? 'New' OR state ? 'Rejected' THEN
      state
  END
$$;
