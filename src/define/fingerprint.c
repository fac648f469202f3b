/*
 * fingerprint.c
 *	  What a definition is, as text and as sha256.
 *
 * The text of a function is made by describe.c: it, and everything of the users' that its results depend on. What cannot be seen is said
 * when it is registered: compiled code, and what a function in another language calls. Who owns it, and who the helpers that run as
 * another role, is not part of the text, but verified by definition.c.
 *
 * Workflows share functions, most of all with their own next version, and a run describes each again before it returns. So a description
 * is kept until the transaction ends, or until something changes that it may be made of, which syscache invalidations tell: those of
 * other sessions, too.
 */
#include "define/describe.h"

#include "access/htup_details.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/functions.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "parser/analyze.h"
#include "parser/parse_node.h"
#include "tcop/tcopprot.h"
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

/* Those that were made in this transaction; in a context below that of the transaction, NULL when there are none. */
static struct
{
	MemoryContext context;
	List	   *list;			/* of Described */
	uint64		generation;		/* of what they are made of */
	Oid			user;			/* who may look into the schemas */
} kept;

static uint64 generation = 0;
static List *watched = NIL;		/* relations (OIDs) that definitions name; in TopMemoryContext */

/* Can a function's body be parsed, as a call sees it or, without one, by itself? */
static bool
is_visible(HeapTuple tuple, const FuncExpr *call)
{
	if (((Form_pg_proc) GETSTRUCT(tuple))->prolang != SQLlanguageId)
		return false;
#ifdef MAKO_SQL_BODY
	if (!heap_attisnull(tuple, Anum_pg_proc_prosqlbody, NULL))
		return true;
#endif
	return call != NULL || !mako_sql_body_is_polymorphic(tuple);
}

/* Converts what a body gives into what its function returns, as the server does when it is called. */
static void
coerce_result(HeapTuple tuple, List *body, FuncExpr *call, List *columns)
{
	Form_pg_proc form = (Form_pg_proc) GETSTRUCT(tuple);
	TupleDesc	rowtype = NULL;
	Oid			type;

	/* Procedures are not called. */
	if (form->prokind != PROKIND_FUNCTION)
		return;
	if (call == NULL)
		(void) get_func_result_type(form->oid, &type, &rowtype);
	else
		(void) get_expr_result_type((Node *) call, &type, &rowtype);
	if (type == RECORDOID && columns != NIL)
		rowtype = ExecTypeFromExprList(columns);
	mako_gate_coerce_result(tuple, body, type, rowtype);
}

/*
 * The parse trees of the body of a function that is visible, parsed as its owner: it may have changed
 * since its caller relied on it.
 */
static List *
body_of(HeapTuple tuple, FuncExpr *call, List *columns)
{
	MakoGate	gate = mako_gate_enter(((Form_pg_proc) GETSTRUCT(tuple))->proowner);
	List	   *body = mako_gate_parse_body(tuple, call, false);

	coerce_result(tuple, body, call, columns);
	mako_gate_leave(&gate);
	return body;
}

/*
 * The parse trees of a function's body, as a call sees it or, without one, by itself; false where it cannot be seen. What it gives is
 * converted to what the function returns, for a record to what the call takes it for: columns like these expressions, NIL for none. Raises
 * where a name in it is not found.
 */
bool
mako_fingerprint_body(Oid function, FuncExpr *call, List *columns, List **trees)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	bool		visible = HeapTupleIsValid(tuple) && is_visible(tuple, call);

	if (visible)
		*trees = body_of(tuple, call, columns);
	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	return visible;
}

/* ---- descriptions that are kept --------------------------------------------------------------------------------------------- */

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
mako_fingerprint_init(void)
{
	/* One of each catalog; what is made together with a row of another one, such as an aggregate, needs none of its own. */
	static const int caches[] = {
		PROCOID, TYPEOID, ENUMOID, CONSTROID, AUTHOID, NAMESPACEOID, OPEROID, AMOPOPID, AMPROCNUM, CLAOID, CASTSOURCETARGET,
		COLLOID, LANGOID, ATTNUM, TRFOID, TSCONFIGMAP, TSDICTOID
	};

	for (size_t i = 0; i < lengthof(caches); i++)
		CacheRegisterSyscacheCallback(caches[i], invalidate, (Datum) 0);
	CacheRegisterRelcacheCallback(invalidate_relation, (Datum) 0);
}

/* A change of this relation is a change of a definition from now on. */
void
mako_fingerprint_watch(Oid relation)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

	watched = list_append_unique_oid(watched, relation);
	MemoryContextSwitchTo(old);
}

/* Another number when something has changed that definitions, and what is compiled from them, may be made of. */
uint64
mako_fingerprint_generation(void)
{
	return generation;
}

/* Forgets what was kept, with its context. */
static void
forget(void *argument)
{
	kept.context = NULL;
	kept.list = NIL;
}

/* The description of a function that was kept; NULL when there is none that is still good. */
static const Described *
recall(Oid function)
{
	ListCell   *cell;

	AcceptInvalidationMessages();
	if (kept.context != NULL && (kept.generation != generation || kept.user != GetUserId()))
		MemoryContextDelete(kept.context);
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

	if (begun != generation)
		return;
	if (kept.context == NULL)
	{
		MemoryContext context = AllocSetContextCreate(TopTransactionContext, "mako descriptions", ALLOCSET_DEFAULT_SIZES);
		MemoryContextCallback *callback = MemoryContextAllocZero(context, sizeof(MemoryContextCallback));

		callback->func = forget;
		MemoryContextRegisterResetCallback(context, callback);
		/* Not before: without the callback, what goes with the transaction would be taken for there when memory ends here. */
		kept.context = context;
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
 * Adds a registered function and its helpers to a definition's text, and may say what cannot be seen. Returns the helpers (OIDs) that run
 * as another role, in the order of the text.
 */
List *
mako_fingerprint_add(StringInfo out, const MakoFunction *function, bool tell_unseen)
{
	const Described *known = tell_unseen ? NULL : recall(function->oid);
	uint64		begun = generation;
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

	return TextDatumGetCString(DirectFunctionCall2(binary_encode, digest, CStringGetTextDatum("hex")));
}
