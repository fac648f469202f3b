-- Migrates generated streams of four workflows, good ones and bad ones, and compares every outcome with an oracle that
-- knows nothing of the extension. Runs in an empty database, from the root of the project.
--
-- MAKO_STREAMS in the environment is the number of streams of each seed.

\set streams `echo "${MAKO_STREAMS:-5000}"`

CREATE EXTENSION pgtap;

SELECT plan(48);

-- The oracle speaks before the extension is there.
\o /dev/null
\ir ../examples/generator/choose.sql
\ir ../examples/generator/expected.sql

-- 1 % of the streams have each kind of poison.
SELECT generator.choose(seed, :streams, poison_rate => 0.09) FROM unnest('{a,b,c,broken}'::text[]) AS seed;
CREATE TABLE oracle AS SELECT * FROM generator.expected;
\o

-- The same parameters give the same streams everywhere.
SELECT generator.choose('fixed', 1000, 5, 0.2) AS fixed \gset
SELECT is(
  (SELECT md5(string_agg(stream_id || sequence_number || event_type || schema_version || payload || extract(epoch FROM recorded_at)::bigint,
                         E'\n' ORDER BY i, sequence_number))
   FROM generator.event('fixed')),
  '49a9c6601ae8a3e78ef2d3e51b17ecbd',
  'a thousand streams are the ones that they have always been');
SELECT is(
  (SELECT md5(string_agg(e::text, E'\n' ORDER BY stream_id COLLATE "C")) FROM generator.expected AS e WHERE seed = 'fixed'),
  '56399176925292ae29e1fdbb178ce866',
  'so is what is expected of them');

SELECT is_empty(
  $$ SELECT workflow, poison FROM generator.poison
     EXCEPT
     SELECT split_part(workflow_id, '@', 1), poison FROM oracle WHERE outcome <> 'skipped' $$,
  'every kind of poison is there, in every workflow');
SELECT is_empty(
  $$ SELECT workflow, new_layout, life FROM generator.lifecycle
     EXCEPT
     SELECT workflow, s.new_layout, life FROM generator.stream AS s JOIN oracle USING (seed, stream_id)
     WHERE outcome = 'migrated' OR s.new_layout $$,
  'so is every life');

\o /dev/null
CREATE EXTENSION mako_migration;
\ir ../examples/register.sql
\ir ../examples/generator/load.sql
\ir ../examples/generator/break.sql
\o

\set break_rate 0
\set seed a
\ir ../examples/generator/check.sql
\set seed b
\ir ../examples/generator/check.sql
\set seed c
\ir ../examples/generator/check.sql

-- A store that somebody has broken while the triggers were off.
\set break_rate 0.05
\set seed broken
\ir ../examples/generator/check.sql

SELECT * FROM finish();
