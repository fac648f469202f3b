/*
 * role.c
 *	  A role as it is remembered: by its name, for people, and by its identity.
 *
 * A renamed role is the same role, and another one may have its name. So the OID tells who it was, where
 * the cluster is the one in which it was remembered. A dump takes names into another cluster, and there
 * the name tells.
 */
#include "mako_migration.h"

#include "access/xlog.h"
#include "miscadmin.h"

/* The identity of a role: its OID and the system identifier of the cluster. */
char *
mako_role_identity(Oid role)
{
	return psprintf("%u@" UINT64_FORMAT, role, GetSystemIdentifier());
}

/* Returns true if a role is the one that was remembered with this name and identity. */
bool
mako_role_is(Oid role, const char *name, const char *identity)
{
	const char *cluster = identity == NULL ? NULL : strchr(identity, '@');
	const char *now;

	if (cluster != NULL && strcmp(cluster, strchr(mako_role_identity(role), '@')) == 0)
		return strcmp(identity, mako_role_identity(role)) == 0;
	now = GetUserNameFromId(role, true);
	return now != NULL && strcmp(now, name) == 0;
}
