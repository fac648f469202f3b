/*
 * subtransaction.c
 *	  What may fail alone: a callback in a subtransaction, whose error is a value unless it
 *	  concerns the whole run.
 *
 * Which errors concern the whole run is told by their class, where the server has raised them: a
 * function of a user may raise any class, and so may a trigger or another server, but what they
 * say is about the stream.
 */
#include "util/util.h"

#include "access/xact.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

/* What has been raised while a callback runs. */
typedef struct Watch
{
	MemoryContext context;		/* the caller's, in which the next one lives */
	ErrorData  *raised;			/* by the server: the last error that concerns the whole run; or
								 * NULL */
} Watch;

/*
 * Returns true for the classes of errors that concern the whole run, rather than the current
 * stream.
 */
static bool
is_about_run(int sqlerrcode)
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

/*
 * Returns true if the server itself has raised an error, and not a function that chose its code.
 * Procedural languages have text domains of their own, as this extension has. The domain is lost
 * on the way from a parallel worker, and libraries that pass on the errors of another server have
 * none: those are known by the function in C.
 */
static bool
is_of_server(const ErrorData *error)
{
	static const char *const others[] = {
		"exec_stmt_raise", "PLy_elog_impl", "pgfdw_report", "dblink_res_error"
	};

	if (error->domain == NULL || strcmp(error->domain, PG_TEXTDOMAIN("postgres")) != 0)
		return false;
	for (size_t i = 0; i < lengthof(others); i++)
		if (error->funcname != NULL && strncmp(error->funcname, others[i], strlen(others[i])) == 0)
			return false;
	return true;
}

/*
 * Returns true if the error that is being raised is the server's own; for callbacks that give an
 * error its context, with memory to use.
 */
bool
mako_subtransaction_is_servers_error(MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	ErrorData  *error = CopyErrorData();
	bool		is_servers = error->elevel >= ERROR && is_of_server(error);

	FreeErrorData(error);
	MemoryContextSwitchTo(old);
	return is_servers;
}

/*
 * Notes what the server raises, before a language can wrap it. Called for every message, as those
 * are that give an error its context.
 */
static void
note_error(void *argument)
{
	Watch	   *watch = argument;
	MemoryContext old;
	ErrorData  *error;

	if (!is_about_run(geterrcode()))
		return;
	old = MemoryContextSwitchTo(watch->context);
	error = CopyErrorData();
	if (error->elevel >= ERROR && error->message != NULL && is_of_server(error))
		watch->raised = error;
	MemoryContextSwitchTo(old);
}

/*
 * Returns the code of an error that concerns the whole run, 0 for any other. PL/Perl, PL/Python
 * and PL/Tcl raise an error of a statement inside of a function again as their own, which quotes
 * it.
 */
static int
fatal_code(const ErrorData *error, const Watch *watch)
{
	if (is_of_server(error))
		return is_about_run(error->sqlerrcode) ? error->sqlerrcode : 0;
	if (watch->raised != NULL && error->message != NULL &&
		strstr(error->message, watch->raised->message) != NULL)
		return watch->raised->sqlerrcode;
	return 0;
}

/* See mako_migration.h. */
ErrorData *
mako_subtransaction_run(void (*callback) (void *argument), void *argument)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;
	Watch		watch = {.context = context};
	ErrorContextCallback noting = {.callback = note_error,.arg = &watch};

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		noting.previous = error_context_stack;
		error_context_stack = &noting;
		callback(argument);
		error_context_stack = noting.previous;
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
	}
	PG_CATCH();
	{
		int			code;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		code = fatal_code(error, &watch);
		if (code != 0)
		{
			error->sqlerrcode = code;
			ReThrowError(error);
		}
	}
	PG_END_TRY();
	return error;
}
