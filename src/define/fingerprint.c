/*
 * fingerprint.c
 *	  What a definition is, as text and as sha256.
 *
 * The text of a function is made by describe.c: it, and everything of the users' that its results
 * depend on. What cannot be seen is said when it is registered: compiled code, and what a function
 * in another language calls. Who owns it, and who the helpers that run as another role, is not
 * part of the text, but verified by definition.c.
 *
 * Workflows share functions, most of all with their own next version, a run describes each again
 * before it returns, and one in batches does so in every transaction. So a description is kept
 * until something changes that it may be made of, which syscache invalidations tell: those of other
 * sessions, too.
 */
#include "define/describe.h"

#include "catalog/pg_proc.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

/* The description of a registered function. */
typedef struct Described
{
	Oid			function;
	char	   *text;
	List	   *helpers;		/* (OIDs) that run as another role */
} Described;

/* Those that have been made, in a context of their own. */
static struct
{
	MemoryContext context;		/* NULL when there are none */
	List	   *list;			/* of Described */
	uint64		generation;		/* of what they are made of */
	Oid			user;			/* who may look into the schemas */
} kept;

/* Forgets what was kept. */
static void
forget_descriptions(void)
{
	MemoryContext context = kept.context;

	kept.context = NULL;
	kept.list = NIL;
	MemoryContextDelete(context);
}

/* The description of a function that was kept; NULL when there is none that is still good. */
static const Described *
recall(Oid function)
{
	ListCell   *cell;

	AcceptInvalidationMessages();
	if (kept.context != NULL && (kept.generation != mako_generation() || kept.user != GetUserId()))
		forget_descriptions();
	foreach(cell, kept.list)
	{
		const Described *described = lfirst(cell);

		if (described->function == function)
			return described;
	}
	return NULL;
}

/* Keeps a description that was begun at this generation. */
static void
keep(Oid function, const char *text, const List *helpers, uint64 begun)
{
	MemoryContext old;
	Described  *described;

	if (begun != mako_generation())
		return;
	if (kept.context == NULL)
	{
		kept.context = AllocSetContextCreate(TopMemoryContext, "mako descriptions",
											 ALLOCSET_DEFAULT_SIZES);
		kept.generation = begun;
		kept.user = GetUserId();
	}
	old = MemoryContextSwitchTo(kept.context);
	described = palloc(sizeof(Described));
	described->function = function;
	described->text = pstrdup(text);
	described->helpers = list_copy(helpers);
	kept.list = lappend(kept.list, described);
	MemoryContextSwitchTo(old);
}

/*
 * Adds a registered function and its helpers to a definition's text, and may say what cannot be
 * seen. Returns the helpers (OIDs) that run as another role, in the order of the text.
 */
List *
mako_fingerprint_add(StringInfo out, const MakoFunction *function, bool tell_unseen)
{
	const Described *known = tell_unseen ? NULL : recall(function->oid);
	uint64		begun = mako_generation();
	StringInfoData description;
	MakoGate	gate;
	List	   *helpers;

	if (known != NULL)
	{
		appendStringInfoString(out, known->text);
		return list_copy(known->helpers);
	}
	gate = mako_gate_enter(function->owner);
	initStringInfo(&description);
	helpers = mako_describe(&description, function->oid, function->owner, tell_unseen);
	mako_gate_leave(&gate);
	if (!tell_unseen)
		keep(function->oid, description.data, helpers, begun);
	appendStringInfoString(out, description.data);
	return helpers;
}

/* sha256 of a description, in hexadecimal. */
char *
mako_fingerprint_digest(const char *description)
{
	Datum		digest = DirectFunctionCall1(sha256_bytea, CStringGetTextDatum(description));

	return TextDatumGetCString(DirectFunctionCall2(binary_encode, digest,
												   CStringGetTextDatum("hex")));
}
