/*
 * fold_cache.c
 *	  Compiled folds of single workflows, kept for the session: reading one process must not cost a
 *	  planner run.
 *
 * A cached fold is borrowed and given back. While it is borrowed it hangs below the borrower's
 * memory context, so that an error frees it; nothing has to be caught. What it was compiled from
 * may change at any time: a changed function, type, role or schema empties the cache
 * (fingerprint.c tells), and the registered fingerprint is compared at every use. What is
 * evaluated is made anew at every use, because functions keep state that ends with a transaction.
 */
#include "fold/fold.h"

#include "utils/memutils.h"

/* Folds that are kept at once. */
#define MOST_FOLDS 200

static List *cache = NIL;		/* of MakoFold, each in a context below CacheMemoryContext */

/* Takes a fold out of the cache, if it is there and still good; forgets what is out of date. */
static MakoFold *
take(const char *workflow_id)
{
	MakoFold   *found = NULL;
	const char *fingerprint = NULL;

	for (int i = list_length(cache) - 1; i >= 0; i--)
	{
		MakoFold   *fold = list_nth(cache, i);
		bool		old = fold->generation != mako_generation() || fold->native != mako_native_evaluation;

		if (!old && strcmp(fold->workflow->workflow_id, workflow_id) != 0)
			continue;
		cache = list_delete_nth_cell(cache, i);
		if (old || found != NULL)
			MemoryContextDelete(fold->context);
		else
			found = fold;
	}

	if (found != NULL)
	{
		MemoryContextSetParent(found->context, CurrentMemoryContext);
		fingerprint = mako_definition_fingerprint(workflow_id);
	}
	/* Asking for the fingerprint may have let invalidations in. */
	return fingerprint != NULL && found->generation == mako_generation() &&
		strcmp(fingerprint, found->workflow->fingerprint) == 0 ? found : NULL;
}

/* The fold of one workflow, to be given back. */
MakoFold *
mako_fold_borrow(const char *workflow_id)
{
	MakoFold   *fold = take(workflow_id);
	MemoryContext context;
	MemoryContext old;
	uint64		started = mako_generation();

	if (fold != NULL)
	{
		mako_fold_recover(fold);
		return fold;
	}
	context = AllocSetContextCreate(CurrentMemoryContext, "mako fold", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(context);
	fold = mako_fold_create(mako_plan_create(workflow_id, workflow_id));
	MemoryContextSwitchTo(old);
	fold->context = context;
	fold->generation = started;
	return fold;
}

/* Gives a fold back; its state is gone with it. */
void
mako_fold_return(MakoFold *fold)
{
	MemoryContext old;

	if (fold->generation != mako_generation())
	{
		MemoryContextDelete(fold->context);
		return;
	}
	if (list_length(cache) >= MOST_FOLDS)
	{
		MakoFold   *oldest = linitial(cache);

		cache = list_delete_first(cache);
		MemoryContextDelete(oldest->context);
	}
	mako_fold_release(fold);
	MemoryContextSetParent(fold->context, CacheMemoryContext);
	old = MemoryContextSwitchTo(CacheMemoryContext);
	cache = lappend(cache, fold);
	MemoryContextSwitchTo(old);
}
