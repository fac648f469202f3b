/*
 * role.c
 *	  Roles and relations that are remembered in tables: by name, for people, and by identity.
 *
 * In the cluster in which it was written down, the identity says which role is meant: one that was renamed is the same, one that was made
 * again under the old name is not. After a dump and restore into another cluster, only the name can say.
 *
 * A relation that was made again under the old name, or took it over, is meant: so are tables replaced. Where no relation has the name any
 * more, the one that had it, or its schema, was renamed.
 */
#include "mako_migration.h"

#include "access/xlog.h"
#include "catalog/namespace.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

/* The identity of a role or relation: its OID and the cluster's system identifier. */
char *
mako_identity(Oid object)
{
	return psprintf("%u@" UINT64_FORMAT, object, GetSystemIdentifier());
}

/* The OID in an identity; false when it is one of another cluster. */
static bool
is_of_this_cluster(const char *identity, unsigned int *oid)
{
	unsigned long long cluster;

	return sscanf(identity, "%u@%llu", oid, &cluster) == 2 && (uint64) cluster == GetSystemIdentifier();
}

/* The role that is remembered; InvalidOid when there is none any more. */
Oid
mako_role_find(const char *name, const char *identity)
{
	unsigned int oid;

	if (!is_of_this_cluster(identity, &oid))
		return get_role_oid(name, true);
	return SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(oid)) ? oid : InvalidOid;
}

/* Is a role the one that is remembered? */
bool
mako_role_is(Oid now, const char *name, const char *identity)
{
	return OidIsValid(now) && mako_role_find(name, identity) == now;
}

/* The relation that is remembered by its qualified name; InvalidOid when there is none any more. */
static Oid
find_relation(char *name, const char *identity)
{
	RangeVar   *named = makeRangeVarFromNameList(MakoQualifiedNameList(name));
	Oid			schema = named->schemaname == NULL ? InvalidOid : get_namespace_oid(named->schemaname, true);
	Oid			relation = OidIsValid(schema) ? get_relname_relid(named->relname, schema) : InvalidOid;
	unsigned int oid;

	if (!OidIsValid(relation) && is_of_this_cluster(identity, &oid) && SearchSysCacheExists1(RELOID, ObjectIdGetDatum(oid)))
		relation = oid;
	return relation;
}

MAKO_FUNCTION(mako_remembered_relation);

/* That, for statements; null for none. */
Datum
mako_remembered_relation(PG_FUNCTION_ARGS)
{
	Oid			relation = find_relation(text_to_cstring(PG_GETARG_TEXT_PP(0)), text_to_cstring(PG_GETARG_TEXT_PP(1)));

	if (!OidIsValid(relation))
		PG_RETURN_NULL();
	PG_RETURN_OID(relation);
}
