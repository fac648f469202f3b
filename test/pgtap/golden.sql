-- Migrates the golden streams and compares the outcome with that of the reference engine.
-- Runs in an empty database, from the root of the project.

CREATE EXTENSION pgtap;
CREATE EXTENSION mako_migration;

SELECT plan(7);

SELECT mako_create_store();

\ir ../examples/gpke/supplier_change.sql
\ir ../examples/gpke/register.sql
\ir ../golden/load.sql

CREATE TEMPORARY TABLE golden_report AS
SELECT * FROM mako_migrate('gpke-supplier-change@FV2024-10-01', 'gpke-supplier-change@FV2025-10-01');

\ir ../golden/compare.sql

SELECT * FROM finish();
