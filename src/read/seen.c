/*
 * seen.c
 *	  Which streams a pass has met: their numbers, a bit or two for each where they are dense.
 *
 * A cursor that locks leaves out a row that the transaction itself has changed since it was
 * opened, without a word. So what a pass has met is kept, to tell what is left when there is
 * reason to ask. It lives in the memory context in which it was made.
 */
#include "read/read.h"

#include "lib/integerset.h"
#include "utils/memutils.h"

/* Numbers in the order in which they came: a new set begins wherever they do not ascend. */
struct MakoSeen
{
	MemoryContext context;
	List	   *sets;			/* of IntegerSet; the last one is being filled */
	int64		last;			/* number */
	int64		count;
};

/* A number as a set knows it: negative ones come first there, too. */
static uint64
member(int64 number)
{
	return (uint64) number ^ UINT64CONST(0x8000000000000000);
}

/* Nothing has been met yet. */
MakoSeen *
mako_seen_create(void)
{
	MakoSeen   *seen = palloc0(sizeof(MakoSeen));

	seen->context = CurrentMemoryContext;
	return seen;
}

/* Adds a number that is not there; cheap as long as they ascend. */
void
mako_seen_add(MakoSeen *seen, int64 number)
{
	if (seen->sets == NIL || number <= seen->last)
	{
		MemoryContext old = MemoryContextSwitchTo(seen->context);

		seen->sets = lappend(seen->sets, intset_create());
		MemoryContextSwitchTo(old);
	}
	intset_add_member(llast(seen->sets), member(number));
	seen->last = number;
	seen->count++;
}

/* Returns true if this number has been met. */
bool
mako_seen_has(const MakoSeen *seen, int64 number)
{
	ListCell   *cell;

	foreach(cell, seen->sets)
		if (intset_is_member(lfirst(cell), member(number)))
			return true;
	return false;
}

/* How many have been met. */
int64
mako_seen_count(const MakoSeen *seen)
{
	return seen->count;
}
