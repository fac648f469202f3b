-- Makes the three versions of gpke-supplier-change and the ways between them known.

SELECT mako_register_workflow('gpke-supplier-change@FV2024-10-01',
         apply => 'gpke.supplier_change_apply_2024',
         upcast => 'gpke.supplier_change_upcast',
         in_flight => 'gpke.supplier_change_in_flight',
         initial_state => '{"status":"New"}',
         event_type_definition => gpke.supplier_change_event_type_2024(),
         state_type_definition => gpke.supplier_change_state_type_2024());

SELECT mako_register_workflow('gpke-supplier-change@FV2025-10-01',
         apply => 'gpke.supplier_change_apply_2025',
         upcast => 'gpke.supplier_change_upcast',
         in_flight => 'gpke.supplier_change_in_flight',
         initial_state => '{"status":"New"}',
         event_type_definition => gpke.supplier_change_event_type_2024(),
         state_type_definition => gpke.supplier_change_state_type_2025(),
         state_schema_version => 2);

SELECT mako_register_workflow('gpke-supplier-change@FV2026-10-01',
         apply => 'gpke.supplier_change_apply_2026',
         upcast => 'gpke.supplier_change_upcast',
         in_flight => 'gpke.supplier_change_in_flight',
         initial_state => '{"status":"New"}',
         event_type_definition => gpke.supplier_change_event_type_2026(),
         state_type_definition => gpke.supplier_change_state_type_2026(),
         state_schema_version => 3);

SELECT mako_register_migration('gpke-supplier-change@FV2024-10-01', 'gpke-supplier-change@FV2025-10-01',
         migrate => 'gpke.supplier_change_migrate_2024_2025');

SELECT mako_register_migration('gpke-supplier-change@FV2025-10-01', 'gpke-supplier-change@FV2024-10-01',
         migrate => 'gpke.supplier_change_migrate_2025_2024');

SELECT mako_register_migration('gpke-supplier-change@FV2025-10-01', 'gpke-supplier-change@FV2026-10-01',
         migrate => 'gpke.supplier_change_migrate_2025_2026');
