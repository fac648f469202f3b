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
		bool		old = fold->generation != mako_generation() ||
			fold->native != mako_native_evaluation;

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

/* ---- the folds of a replay ------------------------------------------------------------------- */

/* A replay without folds, in the current memory context. */
MakoReplay *
mako_replay_create(void)
{
	MakoReplay *replay = palloc0(sizeof(MakoReplay));

	replay->context = CurrentMemoryContext;
	replay->archive = mako_archive_create();
	return replay;
}

/* The fold for a pair of workflows, or for one with itself; compiled when it is met first. */
MakoFold *
mako_replay_fold(MakoReplay *replay, const char *source_wf, const char *target_wf)
{
	MemoryContext context;
	MemoryContext old;
	ListCell   *cell;
	MakoFold   *fold;

	foreach(cell, replay->folds)
	{
		fold = lfirst(cell);
		if (strcmp(fold->workflow->workflow_id, source_wf) == 0 &&
			strcmp(fold->plan->workflows[fold->plan->steps]->workflow_id, target_wf) == 0)
			return fold;
	}

	/*
	 * Until it is complete, it belongs to the subtransaction: many streams may fail here, each
	 * with half a fold.
	 */
	context = AllocSetContextCreate(CurTransactionContext, "mako replayed fold",
									ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(context);
	fold = mako_fold_create(mako_plan_create(source_wf, target_wf));
	/* Nobody knew beforehand that this one would be needed. */
	if (mako_worker_is_one() && mako_fold_unsafe_function(fold) != NULL)
		mako_worker_give_up("a function of an earlier move is not PARALLEL SAFE");
	MemoryContextSetParent(context, replay->context);
	MemoryContextSwitchTo(replay->context);
	replay->folds = lappend(replay->folds, fold);
	MemoryContextSwitchTo(old);
	return fold;
}

/* Makes the folds usable again after an error. */
void
mako_replay_recover(MakoReplay *replay)
{
	ListCell   *cell;

	foreach(cell, replay->folds)
		mako_fold_recover(lfirst(cell));
}
