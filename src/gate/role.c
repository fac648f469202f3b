/*
 * role.c
 *	  Roles that are remembered in tables: by name, for people, and by identity.
 *
 * In the cluster in which it was written down, the identity says which role is meant: one that was
 * renamed is the same, one that was made again under the old name is not. After a dump and restore
 * into another cluster, only the name can say.
 */
#include "gate/gate.h"

#include "access/xlog.h"
#include "utils/acl.h"
#include "utils/syscache.h"

/* The identity of a role or relation: its OID and the cluster's system identifier. */
char *
mako_identity(Oid object)
{
	return psprintf("%u@" UINT64_FORMAT, object, GetSystemIdentifier());
}

/* The role that is remembered; InvalidOid when there is none any more. */
Oid
mako_role_find(const char *name, const char *identity)
{
	unsigned int oid;
	unsigned long long cluster;

	if (sscanf(identity, "%u@%llu", &oid, &cluster) != 2 ||
		(uint64) cluster != GetSystemIdentifier())
		return get_role_oid(name, true);
	return SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(oid)) ? oid : InvalidOid;
}

/* Returns true if a role is the one that is remembered. */
bool
mako_role_is(Oid now, const char *name, const char *identity)
{
	return OidIsValid(now) && mako_role_find(name, identity) == now;
}
