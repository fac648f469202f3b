/*
 * door.c
 *	  The door of the store (gate.h): whose its tables are, and whether they are what they should
 *	  be.
 *
 * mako_create_store() makes the tables from the list of mako_store_object(). What the C code reads
 * of them is here: columns, with type and null. The functions that look at a store,
 * mako_store_problem() among them, ask here, too.
 */
#include "gate/gate.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "parser/scansup.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/syscache.h"

/* ---- what the tables are -------------------------------------------------------------------- */

typedef struct Column
{
	const char *table;			/* NULL: the same as that of the one before */
	const char *name;
	Oid			type;
	bool		not_null;
} Column;

static const Column columns[] = {
	{"stream", "stream_no", INT8OID, true},
	{NULL, "stream_id", TEXTOID, true},
	{NULL, "tenant_id", UUIDOID, false},
	{NULL, "process_id", UUIDOID, false},
	{NULL, "workflow_id", TEXTOID, true},
	{NULL, "version", INT8OID, true},
	{NULL, "created_at", TIMESTAMPTZOID, true},
	{"event", "stream_no", INT8OID, true},
	{NULL, "sequence_number", INT8OID, true},
	{NULL, "event_id", UUIDOID, true},
	{NULL, "recorded_at", TIMESTAMPTZOID, true},
	{NULL, "workflow_id", TEXTOID, true},
	{NULL, "event_type", TEXTOID, true},
	{NULL, "schema_version", INT4OID, true},
	{NULL, "payload", JSONBOID, true},
	{NULL, "correlation_id", UUIDOID, false},
	{NULL, "causation_id", UUIDOID, false},
	{NULL, "conversation_id", UUIDOID, false},
	{"snapshot", "stream_no", INT8OID, true},
	{NULL, "sequence_number", INT8OID, true},
	{NULL, "run_id", INT8OID, true},
	{NULL, "workflow_id", TEXTOID, true},
	{NULL, "state_schema_version", INT4OID, true},
	{NULL, "state", JSONBOID, true},
	{NULL, "taken_at", TIMESTAMPTZOID, true},
	{"repointed", "run_id", INT8OID, true},
	{NULL, "stream_no", INT8OID, true},
	{NULL, "sequence_number", INT8OID, true},
	{"reverted", "stream_no", INT8OID, true},
	{NULL, "run_id", INT8OID, true},
	{NULL, "reverted_by", INT8OID, true},
	{"attached", "query", TEXTOID, true},
	{NULL, "search_path", TEXTARRAYOID, true},
	{NULL, "initial", TEXTOID, true},
	{NULL, "appended_to", REGCLASSOID, true},
	{NULL, "wait", BOOLOID, true},
	{NULL, "attached_by", TEXTOID, true},
	{NULL, "attached_at", TIMESTAMPTZOID, true},
	{"registry", "tenant_id", UUIDOID, true},
	{NULL, "key", TEXTOID, true},
	{NULL, "stream_no", INT8OID, true},
	{NULL, "expires_at", TIMESTAMPTZOID, false},
	{"correlation", "tenant_id", UUIDOID, true},
	{NULL, "tag", TEXTOID, true},
	{NULL, "stream_no", INT8OID, true},
	{"format_version", "format_version", TEXTOID, true},
	{NULL, "status", TEXTOID, true},
	{NULL, "messages_until", TIMESTAMPTZOID, false},
	{NULL, "changed_by", TEXTOID, true},
	{NULL, "changed_at", TIMESTAMPTZOID, true},
	{NULL, "reason", TEXTOID, false},
	{"dependent", "relation", TEXTOID, true},
	{NULL, "relation_identity", TEXTOID, true},
	{NULL, "process_column", TEXTOID, true},
	{NULL, "workflow_column", TEXTOID, true},
	{NULL, "tenant_column", TEXTOID, false},
	{NULL, "owner", TEXTOID, true},
	{NULL, "owner_identity", TEXTOID, true},
	{NULL, "process_type", TEXTOID, true},
	{"migration_run", "run_id", INT8OID, true},
	{NULL, "kind", TEXTOID, true},
	{NULL, "source_wf", TEXTOID, true},
	{NULL, "target_wf", TEXTOID, true},
	{NULL, "path", TEXTARRAYOID, true},
	{NULL, "tenant_id", UUIDOID, false},
	{NULL, "update_registry", BOOLOID, true},
	{NULL, "in_flight_only", BOOLOID, true},
	{NULL, "max_errors", INT8OID, false},
	{NULL, "batch_size", INT4OID, false},
	{NULL, "through_stream_no", INT8OID, false},
	{NULL, "reverts", INT8OID, false},
	{NULL, "closed_by", INT8OID, false},
	{NULL, "reason", TEXTOID, false},
	{NULL, "fingerprint", TEXTOID, true},
	{NULL, "definitions", TEXTARRAYOID, true},
	{NULL, "session_role", TEXTOID, true},
	{NULL, "effective_role", TEXTOID, true},
	{NULL, "application_name", TEXTOID, true},
	{NULL, "client_address", INETOID, false},
	{NULL, "server_version", TEXTOID, true},
	{NULL, "extension_version", TEXTOID, true},
	{NULL, "started_at", TIMESTAMPTZOID, true},
	{NULL, "finished_at", TIMESTAMPTZOID, false},
	{NULL, "migrated", INT8OID, false},
	{NULL, "skipped", INT8OID, false},
	{NULL, "failed", INT8OID, false},
	{NULL, "sinks", INT4ARRAYOID, true},
	{"migration_error", "run_id", INT8OID, true},
	{NULL, "error_no", INT8OID, true},
	{NULL, "stream_no", INT8OID, true},
	{NULL, "stream_id", TEXTOID, true},
	{NULL, "phase", TEXTOID, true},
	{NULL, "sequence_number", INT8OID, false},
	{NULL, "sqlstate", TEXTOID, true},
	{NULL, "message", TEXTOID, true},
	{NULL, "detail", TEXTOID, false},
	{NULL, "hint", TEXTOID, false},
	{NULL, "context", TEXTOID, false},
	{"migration_batch", "run_id", INT8OID, true},
	{NULL, "batch_no", INT8OID, true},
	{NULL, "last_stream_no", INT8OID, false},
	{NULL, "migrated", INT8OID, true},
	{NULL, "failed", INT8OID, true},
	{NULL, "busy", INT8OID, true},
	{NULL, "session_role", TEXTOID, true},
	{NULL, "effective_role", TEXTOID, true},
	{NULL, "started_at", TIMESTAMPTZOID, true},
	{NULL, "finished_at", TIMESTAMPTZOID, true},
};

#define MOST_TABLES 16

/* A table, and what is known of it. */
typedef struct Table
{
	const char *name;
	int			first_column;	/* in columns */
	int			column_count;
	Oid			oid;			/* InvalidOid until it is known; like the next one */
	Oid			owner;
} Table;

static Table tables[MOST_TABLES];
static int	table_count = 0;

/*
 * Another number when a table, role or schema has changed, or something that the store is made of.
 */
static uint64 generation = 1;

/*
 * A table has children, or a view others below it, whose changes the server does not tell of as its
 * own.
 */
static bool has_children = false;

/* Forgets what is known. */
static void
forget_findings(void)
{
	generation++;
	for (int i = 0; i < table_count; i++)
		tables[i].oid = InvalidOid;
}

/* A relation has changed, or all of them. */
static void
forget_relation(Datum argument, Oid relation)
{
	bool		concerns = !OidIsValid(relation) || has_children;

	for (int i = 0; i < table_count && !concerns; i++)
		concerns = tables[i].oid == relation;
	if (concerns)
		forget_findings();
}

/* A role, a membership, a schema or a function has changed. */
static void
forget_object(Datum argument, int cacheid, uint32 hash)
{
	forget_findings();
}

/* A type has changed, which a view below the events may name. */
static void
forget_type(Datum argument, int cacheid, uint32 hash)
{
	if (has_children)
		forget_findings();
}

/* Called when the library is loaded. */
void
mako_door_init(void)
{
	for (size_t i = 0; i < lengthof(columns); i++)
	{
		if (columns[i].table != NULL)
		{
			tables[table_count].name = columns[i].table;
			tables[table_count].first_column = (int) i;
			table_count++;
		}
		tables[table_count - 1].column_count++;
	}
	CacheRegisterRelcacheCallback(forget_relation, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHOID, forget_object, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, forget_object, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, forget_object, (Datum) 0);
	CacheRegisterSyscacheCallback(PROCOID, forget_object, (Datum) 0);
	CacheRegisterSyscacheCallback(TYPEOID, forget_type, (Datum) 0);
	CacheRegisterSyscacheCallback(DATABASEOID, forget_object, (Datum) 0);	/* whose owner is a role
																			 * that all can be
																			 * granted */
}

/* What was found out before belongs to this number. */
uint64
mako_door_generation(void)
{
	return generation;
}

/* ---- whose they are ------------------------------------------------------------------------- */

/* Returns true if the current role need not fear what an owner has written on his tables. */
static bool
owner_is_trusted(Oid owner)
{
	Oid			user = GetUserId();

	return owner == user || superuser_arg(owner) || owner == mako_extension_owner() ||
		is_member_of_role_nosuper(user, owner);
}

/* Raises unless the current role trusts an owner. */
static void
require_trusted(const char *table, Oid owner)
{
	const char *name;

	if (owner_is_trusted(owner))
		return;
	name = GetUserNameFromId(owner, true);
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("the store belongs to role \"%s\"", name),
			 errdetail("Table \"mako.%s\" does what that role wants, "
					   "and role \"%s\" is not a member of it by grant.",
					   table, GetUserNameFromId(GetUserId(), false)),
			 errhint("Use SET ROLE %s.", quote_identifier(name))));
}

/* The schema of the store; an error when there is none. */
Oid
mako_door_schema(void)
{
	Oid			schema = get_namespace_oid("mako", true);

	if (!OidIsValid(schema))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("there is no store in this database"),
				 errhint("Use SELECT mako_create_store().")));
	if (MakoSchemaAclCheck(schema, GetUserId()) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_SCHEMA, "mako");
	return schema;
}

/*
 * The owner of the schema or of a table of the store whom the current role does not trust;
 * InvalidOid if it trusts all.
 */
static Oid
find_untrusted(const char **table)
{
	Oid			schema = mako_door_schema();
	HeapTuple	tuple = SearchSysCache1(NAMESPACEOID, ObjectIdGetDatum(schema));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for schema \"mako\""); /* cannot happen */
	owner = ((Form_pg_namespace) GETSTRUCT(tuple))->nspowner;
	ReleaseSysCache(tuple);
	*table = tables[0].name;
	if (!owner_is_trusted(owner))
		return owner;
	for (int i = 0; i < table_count; i++)
	{
		tuple = SearchSysCache1(RELOID,
								ObjectIdGetDatum(get_relname_relid(tables[i].name, schema)));
		if (!HeapTupleIsValid(tuple))
			continue;
		owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
		ReleaseSysCache(tuple);
		*table = tables[i].name;
		if (!owner_is_trusted(owner))
			return owner;
	}
	return InvalidOid;
}

/* The name of such an owner; NULL if the current role trusts all. */
const char *
mako_door_untrusted_owner(void)
{
	const char *table;
	Oid			owner = find_untrusted(&table);

	return OidIsValid(owner) ? GetUserNameFromId(owner, true) : NULL;
}

/* Raises unless the current role trusts the owner of the store and of each of its tables. */
void
mako_door_require_trusted(void)
{
	const char *table;
	Oid			owner = find_untrusted(&table);

	if (OidIsValid(owner))
		require_trusted(table, owner);
}

/* ---- what they are -------------------------------------------------------------------------- */

/* Says what is wrong with a column; NULL for nothing. */
static const char *
column_problem(Relation relation, const Column *column)
{
	AttrNumber	number = get_attnum(RelationGetRelid(relation), column->name);
	Form_pg_attribute attribute;

	if (number <= 0)
		return "is missing";
	attribute = TupleDescAttr(RelationGetDescr(relation), number - 1);
	if (attribute->atttypid != column->type)
		return "has another type";
	if (relation->rd_rel->relkind == RELKIND_VIEW)
		return NULL;
	if (attribute->attgenerated != '\0')
		return "is generated";
	return column->not_null && !attribute->attnotnull ? "can be null" : NULL;
}

/* Returns true if a role can do all that an owner can do, whose code it may be then. */
bool
mako_door_acts_for(Oid role, Oid owner)
{
	return role == owner || role == mako_extension_owner() || has_privs_of_role(role, owner);
}

/*
 * Returns true if a trigger of a relation calls a function of a role that cannot act for the owner
 * of the table.
 */
static bool
has_foreign_trigger(Relation relation, Oid owner)
{
	const TriggerDesc *triggers = relation->trigdesc;

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		HeapTuple	tuple;
		Oid			role;

		if (triggers->triggers[i].tgisinternal)
			continue;
		tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(triggers->triggers[i].tgfoid));
		if (!HeapTupleIsValid(tuple))
			continue;
		role = ((Form_pg_proc) GETSTRUCT(tuple))->proowner;
		ReleaseSysCache(tuple);
		if (!mako_door_acts_for(role, owner))
			return true;
	}
	return false;
}

/*
 * Says what of a table or of its children is the work of a role that cannot act for its owner, as
 * whom all of it would run; NULL for nothing. The privilege TRIGGER is enough to add a trigger,
 * and children can be given away.
 */
static const char *
foreign_part(Relation table)
{
	Oid			owner = table->rd_rel->relowner;
	ListCell   *cell;

	if (!table->rd_rel->relhassubclass)
		return has_foreign_trigger(table, owner) ?
			"has a trigger whose function belongs to another role" : NULL;
	has_children = true;
	foreach(cell, find_all_inheritors(RelationGetRelid(table), AccessShareLock, NULL))
	{
		Relation	relation = relation_open(lfirst_oid(cell), NoLock);
		bool		is_foreign = !mako_door_acts_for(relation->rd_rel->relowner, owner);
		bool		is_triggered = has_foreign_trigger(relation, owner);

		relation_close(relation, NoLock);
		if (is_foreign)
			return "has a child that belongs to another role";
		if (is_triggered)
			return "has a trigger whose function belongs to another role";
	}
	return NULL;
}

/*
 * Says what is wrong with a relation as a whole; NULL for nothing. The events may be a view: those
 * of an attached event store.
 */
static const char *
relation_problem(const char *table, Relation relation)
{
	char		kind = relation->rd_rel->relkind;

	if (kind == RELKIND_VIEW && strcmp(table, "event") == 0 &&
		list_member_oid(mako_view_relations(relation), mako_door_attached_view()) &&
		get_attnum(RelationGetRelid(relation), "stamp") > 0)
	{
		has_children = true;
		return mako_view_foreign_part(relation, relation->rd_rel->relowner);
	}
	if (kind != RELKIND_RELATION && kind != RELKIND_PARTITIONED_TABLE)
		return "is not a table";
	if (relation->rd_rel->relispartition || has_superclass(RelationGetRelid(relation)))
		return "has a parent";
	return foreign_part(relation);
}

/* Returns true if a relation has no problem as a whole, nor with one of its columns. */
static bool
is_good_table(const Table *table, Relation relation)
{
	bool		good = relation_problem(table->name, relation) == NULL;

	for (int i = 0; i < table->column_count && good; i++)
		good = column_problem(relation, &columns[table->first_column + i]) == NULL;
	return good;
}

/* Raises unless a relation is the table that it should be. */
static void
require_shape(const Table *table, Relation relation)
{
	const char *problem = relation_problem(table->name, relation);

	if (problem != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("relation \"mako.%s\" %s", table->name, problem),
				 errdetail("The store's tables are ordinary or partitioned tables without "
						   "a parent, and events may be a view. Their children, the functions of "
						   "their triggers, and what a view names run as their owner, so they "
						   "belong to a role with the owner's privileges."),
				 errhint("mako_store_problem() tells what is wrong with the store.")));
	for (int i = 0; i < table->column_count; i++)
	{
		const Column *column = &columns[table->first_column + i];

		problem = column_problem(relation, column);
		if (problem != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("column \"%s\" of table \"mako.%s\" %s",
							column->name, table->name, problem),
					 errdetail("Expected is a column of type %s%s.", format_type_be(column->type),
							   column->not_null ? " that cannot be null" : ""),
					 errhint("mako_store_problem() tells what is wrong with the store.")));
	}
}

/*
 * Locks the relation of a name until the transaction ends; InvalidOid for none. Another session may
 * have put another one in its place, for which this one has waited.
 */
static Oid
lock_by_name(const char *name, Oid schema)
{
	Oid			oid;

	while (OidIsValid(oid = get_relname_relid(name, schema)))
	{
		LockRelationOid(oid, AccessShareLock);
		if (get_relname_relid(name, schema) == oid)
			break;
		UnlockRelationOid(oid, AccessShareLock);
	}
	return oid;
}

/* Opens a table, which stays as it is until the transaction ends. */
static void
open_table(Table *table)
{
	Oid			oid = lock_by_name(table->name, mako_door_schema());
	Relation	relation;

	if (!OidIsValid(oid))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"mako.%s\" is missing", table->name),
				 errhint("Restore it from a backup; "
						 "SELECT mako_create_store() would make an empty one.")));
	if (table->oid == oid)
	{
		require_trusted(table->name, table->owner);
		return;
	}
	relation = relation_open(oid, NoLock);
	require_trusted(table->name, relation->rd_rel->relowner);
	require_shape(table, relation);
	table->owner = relation->rd_rel->relowner;
	relation_close(relation, NoLock);
	/* Opening it may have let invalidations in, but none of this table, which is locked. */
	table->oid = oid;
}

/* The number of a table; -1 where there is none of this name. */
static int
find_table(const char *name, size_t length)
{
	for (int i = 0; i < table_count; i++)
		if (strlen(tables[i].name) == length && strncmp(tables[i].name, name, length) == 0)
			return i;
	return -1;
}

/* A table of the store. */
Oid
mako_door_table(const char *name)
{
	Table	   *table = &tables[find_table(name, strlen(name))];

	open_table(table);
	return table->oid;
}

/*
 * Returns true if a relation is this table of the store, with the columns that it should have. Its
 * owner made the trigger, so he is trusted here by those who write to his table.
 */
bool
mako_door_is_table(Relation relation, const char *table)
{
	MakoGate	gate;
	bool		is_table;

	if (RelationGetRelid(relation) != get_relname_relid(table, get_namespace_oid("mako", true)))
		return false;
	gate = mako_gate_enter(relation->rd_rel->relowner);
	is_table = mako_door_table(table) == RelationGetRelid(relation);
	mako_gate_leave(&gate);
	return is_table;
}

/*
 * A relation of schema mako, whatever it is, locked; InvalidOid for none. For what is only looked
 * at.
 */
Oid
mako_door_relation(const char *name)
{
	return lock_by_name(name, mako_door_schema());
}

/* Returns true if the relation of this name is what the table should be. */
bool
mako_door_is_good(const char *table, Relation relation)
{
	return is_good_table(&tables[find_table(table, strlen(table))], relation);
}

/* Returns true if a table can be opened; says nothing where it cannot. */
bool
mako_door_would_open(const char *name)
{
	const Table *table = &tables[find_table(name, strlen(name))];
	Oid			schema = get_namespace_oid("mako", true);
	Oid			oid = OidIsValid(schema) && mako_door_may_use() ? lock_by_name(name, schema) :
		InvalidOid;
	Relation	relation;
	bool		good;

	if (!OidIsValid(oid))
		return false;
	relation = relation_open(oid, NoLock);
	good = owner_is_trusted(relation->rd_rel->relowner) && is_good_table(table, relation);
	relation_close(relation, NoLock);
	return good;
}

/* Returns true if there is a schema of the store's name. */
bool
mako_door_exists(void)
{
	return OidIsValid(get_namespace_oid("mako", true));
}

/* Returns true if there is a store with a relation of this name. */
bool
mako_door_has_table(const char *name)
{
	Oid			schema = get_namespace_oid("mako", true);

	return OidIsValid(schema) && OidIsValid(get_relname_relid(name, schema));
}

/* Returns true if the current role may use the schema of the store. */
bool
mako_door_may_use(void)
{
	return MakoSchemaAclCheck(get_namespace_oid("mako", false), GetUserId()) == ACLCHECK_OK;
}

/*
 * Returns true if the events are those of an attached event store: a view stands for them.
 */
bool
mako_door_is_attached(void)
{
	Oid			schema = get_namespace_oid("mako", true);

	return OidIsValid(schema) &&
		get_rel_relkind(get_relname_relid("event", schema)) == RELKIND_VIEW;
}

/* The view of the events of an attached event store, locked; InvalidOid for none. */
Oid
mako_door_attached_view(void)
{
	Oid			schema = get_namespace_oid("mako", true);
	Oid			view = OidIsValid(schema) ? lock_by_name("attached_event", schema) : InvalidOid;

	return OidIsValid(view) && get_rel_relkind(view) == RELKIND_VIEW ? view : InvalidOid;
}

/* The tables that a statement of the extension names, as a set. */
uint32
mako_door_tables_in(const char *text)
{
	static const char prefix[] = "mako.";
	uint32		set = 0;

	for (const char *found = strstr(text, prefix); found != NULL; found = strstr(found, prefix))
	{
		size_t		length;
		int			number;

		found += strlen(prefix);
		length = strspn(found, "abcdefghijklmnopqrstuvwxyz_");
		number = find_table(found, length);
		if (number >= 0)
			set |= (uint32) 1 << number;
	}
	return set;
}

/* Opens a set of tables; returns the owner of the first one, InvalidOid for an empty set. */
Oid
mako_door_open_tables(uint32 set)
{
	Oid			owner = InvalidOid;

	for (int i = 0; i < table_count; i++)
	{
		if ((set & ((uint32) 1 << i)) == 0)
			continue;
		open_table(&tables[i]);
		if (!OidIsValid(owner))
			owner = tables[i].owner;
		else if (tables[i].owner != owner)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("the tables of the store belong to several roles"),
					 errdetail("Table \"mako.%s\" belongs to \"%s\", others to \"%s\".",
							   tables[i].name, GetUserNameFromId(tables[i].owner, true),
							   GetUserNameFromId(owner, true)),
					 errhint("Give all of them to one role with ALTER TABLE ... OWNER TO.")));
	}
	return owner;
}

/*
 * Raises unless the current role may select from these tables, whose names stand in a text.
 * Returns true if a policy of one of them concerns the role.
 */
bool
mako_door_require_select(const char *text)
{
	uint32		set = mako_door_tables_in(text);
	bool		has_policy = false;

	(void) mako_door_open_tables(set);
	for (int i = 0; i < table_count; i++)
	{
		Oid			oid;

		if ((set & ((uint32) 1 << i)) == 0)
			continue;
		/* Opening the next one may hear of a change, and forget this one. */
		open_table(&tables[i]);
		oid = tables[i].oid;
		if (pg_class_aclcheck(oid, GetUserId(), ACL_SELECT) != ACLCHECK_OK)
			aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, tables[i].name);
		has_policy = has_policy || check_enable_rls(oid, InvalidOid, false) == RLS_ENABLED;
	}
	return has_policy;
}

/* Returns true if a table is one whose pages can be read. */
static bool
is_plain(Relation relation)
{
	return relation->rd_rel->relkind == RELKIND_RELATION &&
		relation->rd_rel->relam == HEAP_TABLE_AM_OID;
}

/* Says why the pages of a table, or of all leaves of a partitioned one, cannot be read. */
static const char *
shape_obstacle(Relation relation, bool leaves)
{
	const char *name = RelationGetRelationName(relation);
	ListCell   *cell;

	if (!leaves || relation->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
	{
		if (!is_plain(relation))
			return psprintf("mako.%s is not a plain table", name);
		return relation->rd_rel->relhassubclass ? psprintf("mako.%s has had children", name) : NULL;
	}
	foreach(cell, find_all_inheritors(RelationGetRelid(relation), AccessShareLock, NULL))
	{
		Relation	leaf = relation_open(lfirst_oid(cell), NoLock);
		bool		is_good = leaf->rd_rel->relkind == RELKIND_PARTITIONED_TABLE || is_plain(leaf);

		relation_close(leaf, NoLock);
		if (!is_good)
			return psprintf("a partition of mako.%s is not a plain table", name);
	}
	return NULL;
}

/*
 * Says why a table of the store cannot be read past statements; NULL if it can: it is a plain
 * table, or a partitioned one of plain leaves where those are asked for, the current role may read
 * everything in it, and no other extension wants to see who reads what. A statement reads more: it
 * needs privileges for its columns only, obeys policies, and finds the rows of partitions and of
 * other storage. What may be written past statements is another question, with privileges of its
 * own, which table_write.c answers.
 */
const char *
mako_door_read_obstacle(Relation relation, bool leaves)
{
	Oid			oid = RelationGetRelid(relation);
	const char *obstacle = shape_obstacle(relation, leaves);

	if (obstacle != NULL)
		return obstacle;
	if (ExecutorCheckPerms_hook != NULL)
		return "another extension watches who reads what";
	if (pg_class_aclcheck(oid, GetUserId(), ACL_SELECT) != ACLCHECK_OK)
		return psprintf("the privilege to read mako.%s covers columns only",
						RelationGetRelationName(relation));
	if (check_enable_rls(oid, InvalidOid, true) == RLS_ENABLED)
		return "row security applies";
	return NULL;
}

/* The number of a column of a table that is open. */
AttrNumber
mako_door_column(Relation relation, const char *name)
{
	AttrNumber	number = get_attnum(RelationGetRelid(relation), name);

	if (number <= 0)
		elog(ERROR, "column \"%s\" of an open table is missing", name); /* cannot happen */
	return number;
}

/* Finds the numbers of some columns of a table that is open. Returns the highest one. */
AttrNumber
mako_door_columns(Relation relation, const char *const *names, int count, AttrNumber *numbers)
{
	AttrNumber	last = 0;

	for (int i = 0; i < count; i++)
	{
		numbers[i] = mako_door_column(relation, names[i]);
		last = Max(last, numbers[i]);
	}
	return last;
}

MAKO_FUNCTION(mako_store_column);

/* The columns that the store must have, and what is wrong with them: see the install script. */
Datum
mako_store_column(PG_FUNCTION_ARGS)
{
	MakoRowSet *rows = mako_rowset_begin(fcinfo);
	Oid			schema = get_namespace_oid("mako", true);

	for (int i = 0; i < table_count && OidIsValid(schema); i++)
	{
		Oid			oid = lock_by_name(tables[i].name, schema);
		Relation	relation = OidIsValid(oid) ? relation_open(oid, NoLock) : NULL;
		const char *whole = relation == NULL ? NULL :
			relation_problem(tables[i].name, relation);

		for (int j = 0; j < tables[i].column_count; j++)
		{
			const Column *column = &columns[tables[i].first_column + j];
			const char *problem = relation == NULL || whole != NULL ? NULL :
				column_problem(relation, column);
			NullableDatum values[] = {
				mako_text(tables[i].name), mako_text(column->name), mako_oid(column->type),
				mako_boolean(column->not_null), mako_text(problem), mako_text(whole)
			};

			mako_rowset_add(rows, values);
		}
		if (relation != NULL)
			relation_close(relation, NoLock);
	}
	PG_RETURN_NULL();
}
