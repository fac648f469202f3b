/*
 * rights.c
 *	  Acting as somebody else for a moment: the owner of one of our tables, as referential integrity does. And what the caller may do with
 *	  a table as it is.
 */
#include "mako_migration.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/syscache.h"

/* Acts as the owner of a table until mako_become(); after an error the (sub)transaction ends it. */
MakoUser
mako_become_owner(Oid relation)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relation));
	MakoUser	before;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relation);	/* cannot happen */
	GetUserIdAndSecContext(&before.user, &before.security);
	SetUserIdAndSecContext(((Form_pg_class) GETSTRUCT(tuple))->relowner,
						   before.security | SECURITY_LOCAL_USERID_CHANGE | SECURITY_NOFORCE_RLS);
	ReleaseSysCache(tuple);
	return before;
}

/* Acts as this role again. */
void
mako_become(const MakoUser *user)
{
	SetUserIdAndSecContext(user->user, user->security);
}

/* The schema of the store; an error when there is none. */
Oid
mako_store_schema(void)
{
	Oid			schema = get_namespace_oid("mako", true);

	if (!OidIsValid(schema))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("there is no store in this database"),
				 errhint("Use SELECT mako_create_store().")));
	return schema;
}

/* A table of the store; an error when it is missing. */
Oid
mako_store_table(const char *name)
{
	Oid			relation = get_relname_relid(name, mako_store_schema());

	if (!OidIsValid(relation))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"mako.%s\" is missing", name),
				 errhint("Restore it from a backup; SELECT mako_create_store() would make an empty one.")));
	return relation;
}

/* Is a relation a plain table, of which the caller may read everything? Then it can be read without a statement. */
bool
mako_may_read_plainly(Relation relation)
{
	Oid			oid = RelationGetRelid(relation);

	return relation->rd_rel->relkind == RELKIND_RELATION && relation->rd_rel->relam == HEAP_TABLE_AM_OID &&
		!relation->rd_rel->relhassubclass && pg_class_aclcheck(oid, GetUserId(), ACL_SELECT) == ACLCHECK_OK &&
		check_enable_rls(oid, InvalidOid, true) != RLS_ENABLED;
}

/* The number of a column of this type; InvalidAttrNumber where there is none that is stored. */
AttrNumber
mako_find_column(Relation relation, const char *name, Oid type)
{
	TupleDesc	tupdesc = RelationGetDescr(relation);

	for (int i = 0; i < tupdesc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(tupdesc, i);

		if (!attribute->attisdropped && strcmp(NameStr(attribute->attname), name) == 0)
			return attribute->atttypid == type && !MakoIsVirtual(attribute) ? attribute->attnum : InvalidAttrNumber;
	}
	return InvalidAttrNumber;
}
