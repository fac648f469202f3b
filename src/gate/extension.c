/*
 * extension.c
 *	  The extension itself: its schema, owner and version, and the paths on which code runs.
 *
 * The extension's schema is on the path of users' functions only if no role can put an object of
 * its own into it.
 */
#include "gate/gate.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "catalog/namespace.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_proc.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

/* Reads one column of the extension's row in pg_extension. */
static Datum
extension_attribute(int column, const char **version)
{
	Relation	relation = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	Datum		value;
	bool		isnull;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum("mako_migration"));
	scan = systable_beginscan(relation, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"%s\" is not installed in this database", "mako_migration"),
				 errhint("Use CREATE EXTENSION mako_migration.")));
	value = heap_getattr(tuple, column, RelationGetDescr(relation), &isnull);
	if (version != NULL)
		*version = TextDatumGetCString(value);
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
	return value;
}

/* The schema that CREATE EXTENSION chose. */
Oid
mako_extension_schema(void)
{
	return DatumGetObjectId(extension_attribute(Anum_pg_extension_extnamespace, NULL));
}

/* The owner of the extension. */
Oid
mako_extension_owner(void)
{
	return DatumGetObjectId(extension_attribute(Anum_pg_extension_extowner, NULL));
}

/* The installed version of the extension. */
const char *
mako_extension_version(void)
{
	const char *version;

	(void) extension_attribute(Anum_pg_extension_extversion, &version);
	return version;
}

/* ---- search paths --------------------------------------------------------------------------- */

/* What is known of the extension's schema, as long as nothing changes that it is known from. */
typedef struct ExtensionSchema
{
	uint64		generation;		/* when it was found out; 0 for never */
	Oid			schema;
	bool		may_create;		/* others may, or have created something */
	char		why_open[NAMEDATALEN * 3 + 100];	/* empty for a closed one */
	char		function_path[NAMEDATALEN * 2 + 40];
} ExtensionSchema;

static ExtensionSchema extension_schema;

/* Grows with every change. */
static uint64 schema_generation = 1;

/* Something has changed: a schema, role, function or operator. */
static void
forget_schema(Datum argument, int cacheid, uint32 hash)
{
	schema_generation++;
}

/* Called when the library is loaded. */
void
mako_extension_init(void)
{
	CacheRegisterSyscacheCallback(NAMESPACEOID, forget_schema, (Datum) 0);
	CacheRegisterSyscacheCallback(DATABASEOID, forget_schema, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHOID, forget_schema, (Datum) 0);
	CacheRegisterSyscacheCallback(PROCOID, forget_schema, (Datum) 0);
	CacheRegisterSyscacheCallback(OPEROID, forget_schema, (Datum) 0);
}

/* The owner of the database. */
static Oid
database_owner(void)
{
	HeapTuple	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(MyDatabaseId));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for database %u", MyDatabaseId);	/* cannot happen */
	owner = ((Form_pg_database) GETSTRUCT(tuple))->datdba;
	ReleaseSysCache(tuple);
	return owner;
}

/* Returns true if a role can do everything anyway, or is the extension's owner. */
static bool
role_is_trusted(Oid role, Oid extension_owner)
{
	if (role == MAKO_ROLE_DATABASE_OWNER)
		role = database_owner();
	return role == extension_owner || superuser_arg(role);
}

/*
 * Returns the role that may create in a schema and is not trusted; ACL_ID_PUBLIC for all; -1 for
 * none.
 */
static int64
untrusted_creator(Form_pg_namespace form, Datum acl_datum, bool has_acl, Oid extension_owner)
{
	int64		creator = -1;
	Acl		   *acl;
	const AclItem *items;

	if (!role_is_trusted(form->nspowner, extension_owner))
		return form->nspowner;
	if (!has_acl)
		return -1;
	acl = DatumGetAclPCopy(acl_datum);
	items = (const AclItem *) ((char *) acl +
							   ARR_OVERHEAD_NONULLS(ARR_NDIM(acl)));	/* no element is null */
	for (int i = 0; i < ACL_NUM(acl) && creator < 0; i++)
	{
		const AclItem *item = &items[i];

		if ((ACLITEM_GET_PRIVS(*item) & ACL_CREATE) != 0 &&
			(item->ai_grantee == ACL_ID_PUBLIC ||
			 !role_is_trusted(item->ai_grantee, extension_owner)))
			creator = item->ai_grantee;
	}
	pfree(acl);
	return creator;
}

/*
 * Describes a function or operator in a schema whose owner is not trusted, unless something is
 * described already.
 */
static void
find_foreign_object(ExtensionSchema *found, Oid catalog, AttrNumber schema_column,
					AttrNumber owner_column, AttrNumber name_column, const char *kind,
					Oid extension_owner)
{
	Relation	relation = table_open(catalog, AccessShareLock);
	SysScanDesc scan = systable_beginscan(relation, InvalidOid, false, NULL, 0, NULL);
	HeapTuple	tuple;

	while (found->why_open[0] == '\0' && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		TupleDesc	tupdesc = RelationGetDescr(relation);
		bool		isnull;
		Oid			owner;

		if (DatumGetObjectId(heap_getattr(tuple, schema_column, tupdesc, &isnull)) != found->schema)
			continue;
		owner = DatumGetObjectId(heap_getattr(tuple, owner_column, tupdesc, &isnull));
		if (!role_is_trusted(owner, extension_owner))
			snprintf(found->why_open, sizeof(found->why_open),
					 "role \"%s\" has created %s \"%s\" in it",
					 GetUserNameFromId(owner, true), kind,
					 NameStr(*DatumGetName(heap_getattr(tuple, name_column, tupdesc, &isnull))));
	}
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
}

/*
 * Finds out whether others can capture calls of the extension's functions. Nothing is known before
 * all is: it may be cancelled, or memory may end, anywhere.
 */
static void
know_schema(Oid schema)
{
	/*
	 * Of the time before it is looked through, so that a change meanwhile makes it unknown again.
	 */
	ExtensionSchema found = {.generation = schema_generation,.schema = schema};
	HeapTuple	tuple = SearchSysCache1(NAMESPACEOID, ObjectIdGetDatum(schema));
	Oid			extension_owner = mako_extension_owner();
	bool		no_acl;
	Datum		acl;
	int64		creator;
	const char *name;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for schema %u", schema);	/* cannot happen */
	acl = SysCacheGetAttr(NAMESPACEOID, tuple, Anum_pg_namespace_nspacl, &no_acl);
	creator = untrusted_creator((Form_pg_namespace) GETSTRUCT(tuple), acl, !no_acl,
								extension_owner);
	ReleaseSysCache(tuple);

	if (creator == ACL_ID_PUBLIC)
		snprintf(found.why_open, sizeof(found.why_open), "all roles may create in it");
	else if (creator > 0)
		snprintf(found.why_open, sizeof(found.why_open), "role \"%s\" may create in it",
				 GetUserNameFromId((Oid) creator, true));
	found.may_create = creator >= 0;
	find_foreign_object(&found, ProcedureRelationId, Anum_pg_proc_pronamespace,
						Anum_pg_proc_proowner, Anum_pg_proc_proname, "function", extension_owner);
	find_foreign_object(&found, OperatorRelationId, Anum_pg_operator_oprnamespace,
						Anum_pg_operator_oprowner, Anum_pg_operator_oprname, "operator",
						extension_owner);

	name = quote_identifier(get_namespace_name(schema));
	if (found.why_open[0] == '\0')
		snprintf(found.function_path, sizeof(found.function_path), "pg_catalog, %s, pg_temp", name);
	else
		snprintf(found.function_path, sizeof(found.function_path), "%s", mako_extension_own_path());
	extension_schema = found;
}

/* Sees to it that the extension's schema is known. */
static void
require_schema(void)
{
	Oid			schema = mako_extension_schema();

	if (extension_schema.generation != schema_generation || extension_schema.schema != schema)
		know_schema(schema);
}

/* The path of the extension's own statements, which name everything else with its schema. */
const char *
mako_extension_own_path(void)
{
	return "pg_catalog, pg_temp";
}

/*
 * The path of users' functions. The extension's schema is on it, for mako_reject() and the like,
 * unless others could put a better match there.
 */
const char *
mako_extension_function_path(void)
{
	require_schema();
	return extension_schema.function_path;
}

/*
 * The names of the schemas on the session's path (char *), without temporary ones: for a statement
 * that will run on the path of the session in which it was written.
 */
List *
mako_extension_current_path(void)
{
	List	   *names = NIL;
	ListCell   *cell;

	foreach(cell, fetch_search_path(false))
		if (!isAnyTempNamespace(lfirst_oid(cell)))
			names = lappend(names, get_namespace_name(lfirst_oid(cell)));
	return names;
}

/* The same as text[]. */
NullableDatum
mako_extension_current_schemas(void)
{
	List	   *path = mako_extension_current_path();
	const char **names = palloc(sizeof(char *) * (list_length(path) + 1));
	int			count = 0;
	ListCell   *cell;

	foreach(cell, path)
		names[count++] = lfirst(cell);
	return mako_text_array(names, count);
}

/* The path of such an array, with the session's temporary schema last. */
char *
mako_extension_path_of(Datum schemas)
{
	StringInfoData path;
	Datum	   *names;
	int			count;

	initStringInfo(&path);
	deconstruct_array(DatumGetArrayTypeP(schemas), TEXTOID, -1, false, TYPALIGN_INT, &names, NULL,
					  &count);
	for (int i = 0; i < count; i++)
		appendStringInfo(&path, "%s, ", quote_identifier(TextDatumGetCString(names[i])));
	appendStringInfoString(&path, "pg_temp");
	return path.data;
}

/*
 * Says why the extension's schema is left out of that path, and whether others may still create in
 * it; NULL if it is not.
 */
const char *
mako_extension_schema_is_open(bool *may_create)
{
	require_schema();
	*may_create = extension_schema.may_create;
	return extension_schema.why_open[0] == '\0' ? NULL : extension_schema.why_open;
}
