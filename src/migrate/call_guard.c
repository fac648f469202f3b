/*
 * call_guard.c
 *	  What keeps a call from running twice in one statement, or inside another one: for everything
 *	  that moves streams.
 */
#include "migrate/migrate.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"

/* A call that has succeeded in this transaction; lives in TopTransactionContext. */
typedef struct Call
{
	CommandId	command;		/* of the statement's snapshot */
	char	   *function;
	char	   *subject;
} Call;

static List *calls = NIL;		/* of this transaction */
static bool running = false;	/* a call is under way in this session */

/* Forgets the calls of a transaction at its end. */
static void
forget_calls(XactEvent event, void *argument)
{
	calls = NIL;
}

/* Called when the library is loaded. */
void
mako_call_init(void)
{
	RegisterXactCallback(forget_calls, NULL);
}

/* Raises unless a call can begin now. */
void
mako_call_check(const char *function)
{
	const char *name = psprintf("%s()", function);

	mako_gate_require_change(name);
	if (running)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s cannot be called while a migration is under way in this session", name),
				 errhint("Look for a call of it in a function that the migration runs, "
						 "or in a trigger on a table that it writes.")));
}

/*
 * Raises when this subject was dealt with in this very statement: SELECT (mako_migrate(...)).*
 * calls once per column. Every call writes, so a later statement of the transaction sees a later
 * command. The kind is what the message calls the subject.
 */
void
mako_call_check_once(CommandId command, const char *function, const char *kind, const char *subject)
{
	ListCell   *cell;

	foreach(cell, calls)
	{
		const Call *call = lfirst(cell);

		if (call->command == command && strcmp(call->function, function) == 0 &&
			strcmp(call->subject, subject) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("%s() was called twice for the same %s in one statement",
							function, kind),
					 errdetail("SELECT (%s(...)).* calls it once for every column.", function),
					 errhint("Use SELECT * FROM %s(...).", function)));
	}
}

/* Remembers a call that has succeeded. */
void
mako_call_remember(CommandId command, const char *function, const char *subject)
{
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);
	Call	   *call = palloc(sizeof(Call));

	call->command = command;
	call->function = pstrdup(function);
	call->subject = pstrdup(subject);
	calls = lappend(calls, call);
	MemoryContextSwitchTo(old);
}

/*
 * Marks that a call is under way, inside of which there can be no other one; mako_call_leave() is
 * to follow, after an error too.
 */
void
mako_call_enter(void)
{
	running = true;
}

/* Marks that it is over. */
void
mako_call_leave(void)
{
	running = false;
	mako_progress_end();
}

/* Does the work of a call. */
void
mako_call_run(void (*work) (void *argument), void *argument)
{
	mako_call_enter();
	PG_TRY();
	{
		work(argument);
	}
	PG_CATCH();
	{
		mako_call_leave();
		PG_RE_THROW();
	}
	PG_END_TRY();
	mako_call_leave();
}
