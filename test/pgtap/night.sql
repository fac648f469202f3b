-- A whole night, rehearsed on generated streams: test/examples/night.sql. MAKO_STREAMS in the environment is their number.
-- Runs in an empty database, from the root of the project.
\ir ../examples/night.sql
