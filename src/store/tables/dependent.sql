CREATE TABLE mako.dependent (
  relation          text NOT NULL,
  relation_identity text NOT NULL,
  process_column    text NOT NULL,
  workflow_column   text NOT NULL,
  tenant_column     text,
  owner             text NOT NULL,
  owner_identity    text NOT NULL,
  process_type      text NOT NULL
);
COMMENT ON TABLE mako.dependent IS
'other tables whose workflow column follows a migrated process; see mako_add_dependent()';
COMMENT ON COLUMN mako.dependent.relation IS
'its name when it was added; a relation that has it now is meant';
COMMENT ON COLUMN mako.dependent.relation_identity IS
'OID of it and system identifier of the cluster, by which it is known when it was renamed and no '
'relation has its old name';
COMMENT ON COLUMN mako.dependent.owner IS
'whose relation it was when it was added: it is updated as this role';
COMMENT ON COLUMN mako.dependent.owner_identity IS
'OID of that role and system identifier of the cluster, by which a renamed role is known';
COMMENT ON COLUMN mako.dependent.process_type IS
'type of the process column when it was added: it decides what the column is compared with';

ALTER TABLE mako.dependent ADD CONSTRAINT dependent_pkey
  PRIMARY KEY (relation, process_column, workflow_column);

CREATE TRIGGER dependent_guard
BEFORE INSERT OR DELETE OR UPDATE OR TRUNCATE ON mako.dependent
FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.mako_guard(
  'A dependent is updated as its owner, whose privileges adding it needs.',
  'Use mako_add_dependent() and mako_remove_dependent().');
