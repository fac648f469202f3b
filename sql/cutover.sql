-- The cutover of test/examples/cutover.sql, from both versions live to the old one retired.
\i test/examples/cutover.sql
