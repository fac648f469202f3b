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
'the name of the relation when it was added; a relation that has this name now is the dependent';
COMMENT ON COLUMN mako.dependent.relation_identity IS
'<oid>@<system identifier> of the relation, which finds it under a new name when no relation has '
'the old one';
COMMENT ON COLUMN mako.dependent.owner IS
'the owner of the relation when it was added; updates run as this role';
COMMENT ON COLUMN mako.dependent.owner_identity IS
'<oid>@<system identifier> of owner, by which a renamed role is known';
COMMENT ON COLUMN mako.dependent.process_type IS
'the type of the process column when it was added, which decides what it is compared with';

ALTER TABLE mako.dependent ADD CONSTRAINT dependent_pkey
  PRIMARY KEY (relation, process_column, workflow_column);

CREATE TRIGGER dependent_guard
BEFORE INSERT OR DELETE OR UPDATE OR TRUNCATE ON mako.dependent
FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.mako_guard(
  'A dependent is updated as its owner, whose privileges adding it needs.',
  'Use mako_add_dependent() and mako_remove_dependent().');
