-- Makes the functions of the four example workflows, the workflows, and the ways between their versions known. They share one cutover,
-- FV2025-10-01 -> FV2026-10-01; gpke-supplier-change has an older version besides, that of test/golden.

\ir gpke/supplier_change.sql
\ir gpke/lf_anmeldung.sql
\ir geli/supplier_change.sql
\ir wim/device_change.sql

\ir gpke/register.sql

SELECT mako_register_workflow('gpke-lf-anmeldung@FV2025-10-01',
         apply => 'gpke.lf_anmeldung_apply_2025',
         in_flight => 'gpke.lf_anmeldung_in_flight',
         initial_state => '"New"',
         event_type_definition => gpke.lf_anmeldung_event_type());

SELECT mako_register_workflow('gpke-lf-anmeldung@FV2026-10-01',
         apply => 'gpke.lf_anmeldung_apply_2026',
         in_flight => 'gpke.lf_anmeldung_in_flight',
         initial_state => '"New"',
         event_type_definition => jsonb_set(gpke.lf_anmeldung_event_type(), '{definitions,pid,type}', '"uint16"'),
         state_schema_version => 2);

SELECT mako_register_migration('gpke-lf-anmeldung@FV2025-10-01', 'gpke-lf-anmeldung@FV2026-10-01',
         migrate => 'gpke.lf_anmeldung_migrate_2025_2026');

SELECT mako_register_workflow('geli-gas-supplier-change@FV2025-10-01',
         apply => 'geli.supplier_change_apply_2025',
         upcast => 'geli.supplier_change_upcast_2025',
         in_flight => 'geli.supplier_change_in_flight',
         initial_state => '{"status":"New"}',
         event_type_definition => geli.supplier_change_event_type_2025(),
         state_type_definition => geli.supplier_change_state_type_2025());

SELECT mako_register_workflow('geli-gas-supplier-change@FV2026-10-01',
         apply => 'geli.supplier_change_apply_2026',
         upcast => 'geli.supplier_change_upcast_2026',
         in_flight => 'geli.supplier_change_in_flight',
         initial_state => '{"status":"New"}',
         event_type_definition => geli.supplier_change_event_type_2026(),
         state_type_definition => geli.supplier_change_state_type_2026(),
         state_schema_version => 2);

SELECT mako_register_migration('geli-gas-supplier-change@FV2025-10-01', 'geli-gas-supplier-change@FV2026-10-01',
         migrate => 'geli.supplier_change_migrate_2025_2026');

SELECT mako_register_workflow('wim-device-change@FV2025-10-01',
         apply => 'wim.device_change_apply_2025',
         upcast => 'wim.device_change_upcast',
         in_flight => 'wim.device_change_in_flight',
         initial_state => '{"status":"New"}',
         event_type_definition => wim.device_change_event_type_2025(),
         state_type_definition => wim.device_change_state_type_2025());

SELECT mako_register_workflow('wim-device-change@FV2026-10-01',
         apply => 'wim.device_change_apply_2026',
         upcast => 'wim.device_change_upcast',
         in_flight => 'wim.device_change_in_flight',
         initial_state => '{"status":"New"}',
         event_type_definition => wim.device_change_event_type_2026(),
         state_type_definition => wim.device_change_state_type_2026(),
         state_schema_version => 2);

SELECT mako_register_migration('wim-device-change@FV2025-10-01', 'wim-device-change@FV2026-10-01',
         migrate => 'wim.device_change_migrate_2025_2026');
