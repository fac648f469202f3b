-- What a cutover to FV2026-10-01 must make of the generated streams, one row each. This is the oracle: it follows from
-- the choices in generator.stream alone, by stating for each life how it ends. It knows nothing of apply, upcast and
-- migrate, and needs no extension.
--
--   outcome   migrated, skipped (another version, or a head without events, which moves all the same) or failed
--   phase, sequence_number, sqlstate   of the failure
--   state     in the new layout: what is in the snapshot of a migrated stream, and what a stream that was started in
--             the new layout folds to; null where there is none
--   workflow_id, workflow_id_after   what the head says before and after

-- Which streams a migration leaves from, and what becomes of them.
CREATE VIEW generator.outcome AS
SELECT s.*,
       s.workflow || '@' || s.format_version AS workflow_id,
       is_source,
       CASE
         WHEN NOT is_source OR types = '{}' THEN 'skipped'
         WHEN poison IS NULL OR poison = 'foreign_snapshot' THEN 'migrated'
         ELSE 'failed'
       END AS outcome,
       'REF-' || upper(left(md5(stream_id || ':1'), 8)) AS first_reference
FROM generator.stream AS s
CROSS JOIN LATERAL (SELECT format_version = 'FV2025-10-01'
                           OR workflow = 'gpke-supplier-change' AND format_version = 'FV2024-10-01' AS is_source) AS source;

CREATE VIEW generator.expected AS
SELECT seed,
       stream_id,
       workflow_id,
       outcome,
       CASE
         WHEN outcome <> 'failed' THEN NULL
         WHEN poison = 'schema_version' THEN 'upcast'
         WHEN poison = 'refused' THEN 'migrate'
         WHEN poison = 'state_type' THEN 'state'
         ELSE 'event'
       END AS phase,
       -- who fails after the last event fails at the last event
       CASE WHEN outcome = 'failed' THEN coalesce(poison_at, cardinality(types)) END AS sequence_number,
       CASE
         WHEN outcome <> 'failed' THEN NULL
         -- that workflow has no upcast, and a domain where the others have a type definition
         WHEN poison = 'schema_version' AND workflow = 'gpke-lf-anmeldung' THEN '0A000'
         WHEN poison = 'state_type' AND workflow = 'gpke-lf-anmeldung' THEN '23514'
         WHEN poison IN ('schema_version', 'refused') THEN 'MK002'
         ELSE 'MK004'
       END AS sqlstate,
       CASE
         WHEN outcome <> 'migrated' AND NOT (new_layout AND types <> '{}') THEN NULL
         ELSE
           CASE workflow
             WHEN 'gpke-supplier-change' THEN
               CASE life
                 WHEN 'refused' THEN jsonb_build_object('status', 'Rejected', 'data', '{"reason": "Anfrage abgelehnt"}'::jsonb)
                 WHEN 'overruled' THEN jsonb_build_object('status', 'Rejected', 'data', '{"reason": "Anfrage abgelehnt"}'::jsonb)
                 WHEN 'invalid' THEN jsonb_build_object('status', 'Rejected', 'data', jsonb_build_object('reason', reason))
                 WHEN 'aperak' THEN
                   jsonb_build_object('status', 'Rejected', 'data', jsonb_build_object('reason', 'APERAK 29001: ' || reason))
                 WHEN 'deadline' THEN
                   jsonb_build_object('status', 'DeadlineExpired', 'data', jsonb_build_object('label', label))
                 WHEN 'answered' THEN
                   jsonb_build_object('status', 'AntwortGesendet', 'data',
                     jsonb_build_object('data', power_data, 'response_pid', accepted_pid))
                 WHEN 'initiated' THEN jsonb_build_object('status', 'Initiated', 'data', power_data)
                 WHEN 'validated' THEN jsonb_build_object('status', 'ValidationPassed', 'data', power_data)
                 WHEN 'restarted' THEN jsonb_build_object('status', 'ValidationPassed', 'data', power_data)
                 -- active, late
                 ELSE jsonb_build_object('data', power_data,
                        'status', CASE pid WHEN 55077 THEN 'ActiveErzeugend' ELSE 'ActiveVerbrauchend' END)
               END
             WHEN 'gpke-lf-anmeldung' THEN
               CASE life
                 WHEN 'pending' THEN jsonb_build_object('Pending', order_data)
                 WHEN 'refused' THEN
                   jsonb_build_object('Rejected', jsonb_build_object('reason', coalesce(reason, 'Ablehnung')))
                 WHEN 'deadline' THEN '{"Rejected": {"reason": "deadline expired: nb-response-window"}}'
                 ELSE jsonb_build_object('Active', order_data)
               END
             WHEN 'geli-gas-supplier-change' THEN
               CASE
                 WHEN life = 'invalid' THEN
                   jsonb_build_object('status', 'Rejected', 'data', jsonb_build_object('reason', reason))
                 WHEN life = 'deadline' THEN
                   jsonb_build_object('status', 'Rejected', 'data', jsonb_build_object('reason', 'deadline expired: ' || label))
                 WHEN life = 'refused' AND new_layout THEN
                   jsonb_build_object('status', 'Rejected', 'data',
                     jsonb_build_object('reason', coalesce(reason, 'negative Antwort')))
                 WHEN life = 'refused' THEN '{"status": "Rejected", "data": {"reason": "negative APERAK"}}'
                 WHEN life = 'initiated' THEN jsonb_build_object('status', 'Initiated', 'data', gas_data)
                 WHEN life = 'gnb_pending' THEN jsonb_build_object('status', 'GnbPending', 'data', gas_data)
                 -- a list of customers is over once it is valid, and nothing but a beginning supply is Active
                 WHEN life = 'completed' OR variant = 'Bestandsliste'
                      OR life = 'active' AND NOT new_layout AND variant <> 'LieferbeginnGas' THEN
                   jsonb_build_object('status', 'Completed', 'data', gas_data)
                 WHEN life = 'validated' THEN jsonb_build_object('status', 'ValidationPassed', 'data', gas_data)
                 WHEN life = 'answered' THEN
                   jsonb_build_object('status', 'AntwortGesendet', 'data',
                     jsonb_build_object('data', gas_data, 'response_pid', accepted_pid))
                 ELSE jsonb_build_object('status', 'Active', 'data', gas_data)
               END
             ELSE
               CASE life
                 WHEN 'invalid' THEN jsonb_build_object('status', 'Rejected', 'data', jsonb_build_object('reason', reason))
                 WHEN 'deadline' THEN
                   jsonb_build_object('status', 'Rejected', 'data', jsonb_build_object('reason', 'deadline expired: ' || label))
                 WHEN 'refused' THEN '{"status": "Rejected", "data": {"reason": "negative APERAK"}}'
                 WHEN 'declined' THEN
                   jsonb_build_object('status', 'Rejected', 'data',
                     jsonb_build_object('reason', coalesce(reason, 'Auftrag vom Marktpartner abgelehnt')))
                 WHEN 'failed' THEN
                   jsonb_build_object('status', 'Rejected', 'data',
                     jsonb_build_object('reason', 'Gesamtvorgang gescheitert — der MSBA bleibt zugeordnet'))
                 ELSE
                   jsonb_build_object(
                     'status',
                     CASE life
                       WHEN 'initiated' THEN 'Initiated'
                       WHEN 'validated' THEN 'ValidationPassed'
                       WHEN 'answered' THEN 'AntwortGesendet'
                       WHEN 'ordered' THEN 'AuftragGesendet'
                       WHEN 'confirmed' THEN 'AuftragBestaetigt'
                       WHEN 'owed' THEN 'AperakSent'
                       WHEN 'reported' THEN 'GesamtvorgangGemeldet'
                       -- completed, delivered, assigned
                       ELSE 'Completed'
                     END,
                     'data',
                     jsonb_build_object(
                       'melo_id', location_id,
                       'incoming_msb', CASE WHEN is_own_order THEN operator ELSE partner END,
                       'grid_operator', CASE WHEN is_own_order THEN partner ELSE operator END,
                       'device_id', CASE WHEN is_own_order AND life <> 'delivered' THEN '' ELSE device_id END,
                       'document_date', CASE WHEN is_own_order THEN process_date ELSE document_date END,
                       'pruefidentifikator', pid,
                       'message_ref', first_reference,
                       'vorgangsnummer',
                       CASE WHEN new_layout AND NOT is_own_order AND process_date IS NOT NULL THEN device_id END,
                       'process_date',
                       CASE
                         WHEN new_layout OR life IN ('ordered', 'confirmed') THEN process_date
                         WHEN life = 'answered' THEN split_part(document_date, '|', 1)
                       END,
                       'bestaetigter_zuordnungsbeginn',
                       CASE
                         WHEN life = 'confirmed' THEN process_date
                         WHEN life IN ('completed', 'assigned') AND new_layout AND writes_null THEN '20991231'
                         WHEN new_layout AND life <> 'owed' THEN coalesce(later_date, process_date)
                       END))
               END
           END
       END AS state,
       CASE
         WHEN outcome = 'migrated' OR is_source AND types = '{}' THEN workflow || '@FV2026-10-01'
         ELSE workflow_id
       END AS workflow_id_after,
       cardinality(types) AS version,
       poison,
       process_id,
       new_layout
FROM generator.outcome
CROSS JOIN LATERAL (
  SELECT
    jsonb_build_object(
      'location_id', location_id, 'new_supplier', partner, 'grid_operator', operator, 'document_date_utc', document_date,
      'process_date', coalesce(process_date, ''), 'transaktionsgrund', transaktionsgrund, 'pruefidentifikator', pid,
      'commodity', 'STROM') AS power_data,
    jsonb_build_object(
      'location', jsonb_build_object('type', CASE WHEN location_id LIKE 'E%' THEN 'nelo' ELSE 'malo' END, 'id', location_id),
      'sender', operator, 'receiver', partner, 'process_date', process_date, 'pruefidentifikator', pid) AS order_data,
    jsonb_build_object(
      'variant', variant, 'malo_id', location_id, 'sender', partner, 'receiver', operator, 'document_date', document_date,
      'process_date', CASE WHEN new_layout THEN coalesce(process_date, '') ELSE '' END, 'pruefidentifikator', pid,
      'message_ref', CASE WHEN new_layout OR NOT writes_null THEN first_reference END) AS gas_data,
    types[1] = 'AuftragGesendet' AS is_own_order) AS data;
