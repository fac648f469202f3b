-- A registered function whose results depend on objects of many kinds, for tests of dump and restore: deparsing a tree, parsing the text
-- and deparsing it again must give the same text.
CREATE ROLE dump_author;
CREATE SCHEMA kinds AUTHORIZATION dump_author;
CREATE FUNCTION kinds.is_small(n int, most int DEFAULT 10 + 90) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT n < most';
CREATE DOMAIN kinds.small AS int DEFAULT 3 + 4 NOT NULL CONSTRAINT z_small CHECK (kinds.is_small(VALUE)) CONSTRAINT a_positive CHECK (VALUE > 0);
CREATE TYPE kinds.color AS ENUM ('red', 'green');
ALTER TYPE kinds.color ADD VALUE 'blue' BEFORE 'red';
CREATE COLLATION kinds.bytes (LOCALE = 'C');
CREATE TYPE kinds.pair AS (n kinds.small, name text COLLATE kinds.bytes, dropped int, colors kinds.color[]);
ALTER TYPE kinds.pair DROP ATTRIBUTE dropped;
CREATE FUNCTION kinds.lt(kinds.pair, kinds.pair) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT ($1).n > ($2).n';
CREATE FUNCTION kinds.le(kinds.pair, kinds.pair) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT ($1).n >= ($2).n';
CREATE FUNCTION kinds.eq(kinds.pair, kinds.pair) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT ($1).n = ($2).n';
CREATE FUNCTION kinds.ge(kinds.pair, kinds.pair) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT ($1).n <= ($2).n';
CREATE FUNCTION kinds.gt(kinds.pair, kinds.pair) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT ($1).n < ($2).n';
CREATE FUNCTION kinds.compare(kinds.pair, kinds.pair) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT (($2).n - ($1).n)::int';
CREATE OPERATOR kinds.< (FUNCTION = kinds.lt, LEFTARG = kinds.pair, RIGHTARG = kinds.pair, COMMUTATOR = OPERATOR(kinds.>));
CREATE OPERATOR kinds.<= (FUNCTION = kinds.le, LEFTARG = kinds.pair, RIGHTARG = kinds.pair, COMMUTATOR = OPERATOR(kinds.>=));
CREATE OPERATOR kinds.= (FUNCTION = kinds.eq, LEFTARG = kinds.pair, RIGHTARG = kinds.pair, COMMUTATOR = OPERATOR(kinds.=));
CREATE OPERATOR kinds.>= (FUNCTION = kinds.ge, LEFTARG = kinds.pair, RIGHTARG = kinds.pair);
CREATE OPERATOR kinds.> (FUNCTION = kinds.gt, LEFTARG = kinds.pair, RIGHTARG = kinds.pair);
CREATE OPERATOR CLASS kinds.pair_ops DEFAULT FOR TYPE kinds.pair USING btree AS OPERATOR 1 kinds.<, OPERATOR 2 kinds.<=, OPERATOR 3 kinds.=,
  OPERATOR 4 kinds.>=, OPERATOR 5 kinds.>, FUNCTION 1 kinds.compare(kinds.pair, kinds.pair);
CREATE TYPE kinds.span AS RANGE (SUBTYPE = kinds.pair);
CREATE FUNCTION kinds.add(s anycompatible, n anycompatible) RETURNS anycompatible LANGUAGE sql IMMUTABLE AS 'SELECT s + n';
CREATE AGGREGATE kinds.total(numeric) (SFUNC = kinds.add, STYPE = numeric, INITCOND = '0');
CREATE CAST (kinds.color AS json) WITH INOUT;
CREATE TEXT SEARCH DICTIONARY kinds.words (TEMPLATE = simple, STOPWORDS = english);
CREATE TEXT SEARCH CONFIGURATION kinds.english (COPY = simple);
ALTER TEXT SEARCH CONFIGURATION kinds.english ALTER MAPPING FOR asciiword WITH kinds.words;
CREATE TABLE kinds.tariff (id int PRIMARY KEY, at timestamptz, price numeric(10, 3), color kinds.color);
INSERT INTO kinds.tariff VALUES (1, '2024-10-01 00:00+02', 0.42, 'red');
CREATE VIEW kinds.current WITH (security_barrier) AS
  SELECT t.id, t.price * 1.19 AS gross, t.color FROM kinds.tariff t WHERE t.at > timestamptz '2000-01-01 00:00+00' AND t.color IN ('red', 'green')
  UNION ALL SELECT 7, 0.1 + 0.30000000000000004::float8::numeric, 'blue' WHERE false;
CREATE FUNCTION kinds.apply(state jsonb, event_type text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE
BEGIN ATOMIC
  SELECT state || jsonb_build_object(
    'n', (payload->>'n')::kinds.small,
    'order', (SELECT jsonb_agg((x).n ORDER BY x) FROM unnest(ARRAY[ROW(1, 'a', NULL), ROW(2, 'b', '{red}')]::kinds.pair[]) AS x),
    'total', (SELECT kinds.total(DISTINCT i) FILTER (WHERE i IS NOT NULL) FROM generate_series(1, 3) AS i
              WHERE to_tsvector('kinds.english'::regconfig, event_type) IS NOT NULL AND kinds.is_small(n => i, most => 50)
                AND kinds.span(ROW(9, 'a', NULL)::kinds.pair, NULL) IS NOT NULL),
    'viewed', (SELECT c.id FROM kinds.current AS c WHERE to_jsonb(c.color) IS NOT NULL ORDER BY c.gross::text COLLATE kinds.bytes DESC LIMIT 1));
END;
ALTER FUNCTION kinds.apply OWNER TO dump_author;
GRANT USAGE ON SCHEMA kinds TO dump_author;
GRANT SELECT ON kinds.current, kinds.tariff TO dump_author;
SELECT mako_register_workflow('kinds@FV2024-10-01', 'kinds.apply', initial_state => '{}');
