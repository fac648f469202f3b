/*
 * isolation.c
 *	  What may fail alone: a callback in a subtransaction, whose error is a value unless it concerns the whole run.
 */
#include "mako_migration.h"

#include "access/xact.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

/* Does this error concern the whole run, rather than the stream at hand? */
static bool
is_fatal(int sqlerrcode)
{
	switch (ERRCODE_TO_CATEGORY(sqlerrcode))
	{
		case ERRCODE_OPERATOR_INTERVENTION: /* cancel, shutdown */
		case ERRCODE_INSUFFICIENT_RESOURCES:	/* out of memory, disk full */
		case ERRCODE_TRANSACTION_ROLLBACK:	/* serialization failure, deadlock */
		case ERRCODE_SYSTEM_ERROR:	/* I/O */
			return true;
		default:
			return false;
	}
}

/* See mako_migration.h. */
ErrorData *
mako_isolation_run(void (*callback) (void *argument), void *argument)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		callback(argument);
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		if (is_fatal(error->sqlerrcode))
			ReThrowError(error);
	}
	PG_END_TRY();
	return error;
}
