/*
 * generation.c
 *	  When something may have changed that definitions are made of: in this session or, by
 *	  invalidation messages, in another one.
 */
#include "define/describe.h"

#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

static uint64 generation = 0;
static List *watched = NIL;		/* relations (OIDs) that definitions name; in TopMemoryContext */

/* Something that a definition may be made of has changed. */
static void
invalidate(Datum argument, int cacheid, uint32 hash)
{
	generation++;
}

/* The same, where it concerns a relation that definitions name; an invalid one stands for all. */
static void
invalidate_relation(Datum argument, Oid relation)
{
	if (!OidIsValid(relation) || list_member_oid(watched, relation))
		generation++;
}

/* Called when the library is loaded. */
void
mako_generation_init(void)
{
	/*
	 * One of each catalog; what is made together with a row of another one, such as an aggregate,
	 * needs none of its own.
	 */
	static const int caches[] = {
		PROCOID, TYPEOID, ENUMOID, CONSTROID, AUTHOID, AUTHMEMMEMROLE, NAMESPACEOID, OPEROID,
		AMOPOPID, AMPROCNUM, CLAOID, CASTSOURCETARGET, COLLOID, LANGOID, ATTNUM, TRFOID,
		TSCONFIGMAP, TSDICTOID
	};

	for (size_t i = 0; i < lengthof(caches); i++)
		CacheRegisterSyscacheCallback(caches[i], invalidate, (Datum) 0);
	CacheRegisterRelcacheCallback(invalidate_relation, (Datum) 0);
}

/* A change of this relation is a change of a definition from now on. */
void
mako_generation_watch(Oid relation)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

	watched = list_append_unique_oid(watched, relation);
	MemoryContextSwitchTo(old);
}

/*
 * Another number when something has changed that definitions, and what is compiled from them, may
 * be made of.
 */
uint64
mako_generation(void)
{
	return generation;
}
