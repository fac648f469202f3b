/*
 * fingerprint.c
 *	  What a definition is, as text and as sha256.
 *
 * The text of a function has its signature, owner, properties, settings and source, and the same for every helper that can be seen:
 * each function and domain that the parse tree of an SQL function or of a domain's check names and that does not come with the server.
 * What cannot be seen is said when a function is registered: compiled code, and what a function in another language calls.
 *
 * Workflows share functions, most of all with their own next version, and a run describes each again before it returns. So a description
 * is kept until the transaction ends, or until something changes that it may be made of, which syscache invalidations tell: those of
 * other sessions, too.
 */
#include "gate.h"
#include "inline.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/transam.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "commands/proclang.h"
#include "executor/functions.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "parser/analyze.h"
#include "parser/parse_node.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"
#include "utils/syscache.h"

/* The description of a registered function. */
typedef struct Described
{
	Oid			function;
	char	   *text;
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

/* One description under way. */
typedef struct Description
{
	StringInfo	out;
	List	   *functions;		/* described or about to be, in the order in which they were found */
	List	   *domains;		/* the same */
	bool		tell_unseen;
} Description;

/* Notes a function that does not come with the server. */
static bool
note_function(Oid oid, void *context)
{
	Description *description = context;

	if (oid >= FirstNormalObjectId)
		description->functions = list_append_unique_oid(description->functions, oid);
	return false;
}

/* Notes a type if it is a domain that does not come with the server. */
static void
note_type(Description *description, Oid type)
{
	if (type >= FirstNormalObjectId && get_typtype(type) == TYPTYPE_DOMAIN)
		description->domains = list_append_unique_oid(description->domains, type);
}

/* Notes the functions and domains that a parse tree names. */
static bool
note_tree(Node *node, void *context)
{
	if (node == NULL)
		return false;
	(void) check_functions_in_node(node, note_function, context);
	if (IsA(node, CoerceToDomain))
		note_type(context, ((CoerceToDomain *) node)->resulttype);
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, note_tree, context, 0);
	return expression_tree_walker(node, note_tree, context);
}

/* Adds a domain with its checks, and notes what they name and the domain below it. */
static void
add_domain(Description *description, Oid type)
{
	StringInfo	out = description->out;
	HeapTuple	type_tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
	Form_pg_type form;
	Relation	relation = table_open(ConstraintRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	if (!HeapTupleIsValid(type_tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("type with OID %u does not exist", type)));
	form = (Form_pg_type) GETSTRUCT(type_tuple);
	appendStringInfo(out, "domain %s%s\n", format_type_be_qualified(type), form->typnotnull ? " not null" : "");
	ScanKeyInit(&key, Anum_pg_constraint_contypid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(type));
	scan = systable_beginscan(relation, ConstraintTypidIndexId, true, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Oid			oid = ((Form_pg_constraint) GETSTRUCT(tuple))->oid;
		bool		isnull;
		Datum		check = heap_getattr(tuple, Anum_pg_constraint_conbin, RelationGetDescr(relation), &isnull);

		appendStringInfo(out, "check %s\n",
						 TextDatumGetCString(DirectFunctionCall1(pg_get_constraintdef, ObjectIdGetDatum(oid))));
		if (!isnull)
			(void) note_tree(stringToNode(TextDatumGetCString(check)), description);
	}
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
	note_type(description, form->typbasetype);
	ReleaseSysCache(type_tuple);
}

/* A text attribute of a function's row; empty for null. */
static char *
text_attribute(HeapTuple tuple, int attribute)
{
	bool		isnull;
	Datum		value = SysCacheGetAttr(PROCOID, tuple, attribute, &isnull);

	return isnull ? pstrdup("") : TextDatumGetCString(value);
}

/* Can a function's body be parsed by itself? */
static bool
is_visible(HeapTuple tuple)
{
	return ((Form_pg_proc) GETSTRUCT(tuple))->prolang == SQLlanguageId && !mako_sql_body_is_polymorphic(tuple);
}

/*
 * The parse trees of the body of a function that is visible, parsed as its owner: it may have changed
 * since its caller relied on it.
 */
static List *
body_of(HeapTuple tuple)
{
	MakoGate	gate = mako_gate_enter(((Form_pg_proc) GETSTRUCT(tuple))->proowner);
	List	   *body = mako_gate_parse_body(tuple, NULL, false);

	mako_gate_leave(&gate);
	return body;
}

/* The parse trees of a function's body; false where it cannot be seen. Raises where a name in it is not found. */
bool
mako_fingerprint_body(Oid function, List **trees)
{
	HeapTuple	tuple = mako_function_tuple(function);
	bool		visible = is_visible(tuple);

	if (visible)
		*trees = body_of(tuple);
	ReleaseSysCache(tuple);
	return visible;
}

/* Adds one function, and notes its helpers where they can be seen. */
static void
add_function(Description *description, Oid oid)
{
	StringInfo	out = description->out;
	HeapTuple	tuple = mako_function_tuple(oid);
	Form_pg_proc form = (Form_pg_proc) GETSTRUCT(tuple);
	char	   *signature = format_procedure_qualified(oid);
	char	   *source = text_attribute(tuple, Anum_pg_proc_prosrc);
	bool		isnull;
	Datum		config = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_proconfig, &isnull);

	appendStringInfo(out, "function %s returns %s owner %s language %s volatility %c parallel %c%s%s%s\n",
					 signature, format_type_be_qualified(form->prorettype), GetUserNameFromId(form->proowner, false),
					 get_language_name(form->prolang, false), form->provolatile, form->proparallel,
					 form->proisstrict ? " strict" : "", form->prosecdef ? " security definer" : "",
					 form->proleakproof ? " leakproof" : "");
	if (!isnull)
		appendStringInfo(out, "settings %s\n", OidOutputFunctionCall(F_ARRAY_OUT, config));
	appendStringInfo(out, "source %s %s\n", text_attribute(tuple, Anum_pg_proc_probin), source);
	for (int i = 0; i < form->pronargs; i++)
		note_type(description, form->proargtypes.values[i]);
	note_type(description, form->prorettype);

	if (is_visible(tuple))
	{
#ifdef MAKO_SQL_BODY
		(void) SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_prosqlbody, &isnull);
		if (!isnull)
			appendStringInfo(out, "body %s\n",
							 TextDatumGetCString(DirectFunctionCall1(pg_get_function_sqlbody, ObjectIdGetDatum(oid))));
#endif
		(void) note_tree((Node *) body_of(tuple), description);
	}
	else if (description->tell_unseen && getExtensionOfObject(ProcedureRelationId, oid) != get_extension_oid("mako_migration", false))
		ereport(NOTICE,
				(errmsg("the fingerprint of function %s does not cover what it calls", signature),
				 form->prolang == SQLlanguageId ?
				 errdetail("Its argument types are polymorphic, so its body cannot be parsed by itself.") :
				 errdetail("It is written in %s; only the bodies of SQL functions can be seen through.",
						   get_language_name(form->prolang, false))));
	ReleaseSysCache(tuple);
}

/* Adds a function and its helpers. */
static void
describe(StringInfo out, Oid function, bool tell_unseen)
{
	Description description = {out, list_make1_oid(function), NIL, tell_unseen};
	int			functions = 0;
	int			domains = 0;

	/* The lists grow while they are read. */
	while (functions < list_length(description.functions) || domains < list_length(description.domains))
	{
		if (functions < list_length(description.functions))
			add_function(&description, list_nth_oid(description.functions, functions++));
		else
			add_domain(&description, list_nth_oid(description.domains, domains++));
	}
}

/* ---- descriptions that are kept --------------------------------------------------------------------------------------------- */

/* Something that a definition may be made of has changed. */
static void
invalidate(Datum argument, int cacheid, uint32 hash)
{
	generation++;
}

/* Called when the library is loaded. */
void
mako_fingerprint_init(void)
{
	static const int caches[] = {
		PROCOID, TYPEOID, CONSTROID, AUTHOID, NAMESPACEOID, OPEROID, AMOPOPID, CASTSOURCETARGET, COLLOID, LANGOID, ATTNUM
	};

	for (size_t i = 0; i < lengthof(caches); i++)
		CacheRegisterSyscacheCallback(caches[i], invalidate, (Datum) 0);
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
static const char *
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
			return described->text;
	}
	return NULL;
}

/* Keeps a description that was begun at this generation. */
static void
keep(Oid function, const char *text, uint64 begun)
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
		kept.context = context;
		kept.generation = begun;
		kept.user = GetUserId();
	}
	old = MemoryContextSwitchTo(kept.context);
	described = palloc(sizeof(Described));
	described->function = function;
	described->text = pstrdup(text);
	kept.list = lappend(kept.list, described);
	MemoryContextSwitchTo(old);
}

/* Adds a registered function and its helpers to a definition's text, and may say what cannot be seen. */
void
mako_fingerprint_add(StringInfo out, const MakoFunction *function, bool tell_unseen)
{
	const char *text = tell_unseen ? NULL : recall(function->oid);

	if (text == NULL)
	{
		uint64		begun = generation;
		StringInfoData description;

		initStringInfo(&description);
		describe(&description, function->oid, tell_unseen);
		text = description.data;
		if (!tell_unseen)
			keep(function->oid, text, begun);
	}
	appendStringInfoString(out, text);
}

/* sha256 of a description, in hexadecimal. */
char *
mako_fingerprint_digest(const char *description)
{
	Datum		digest = DirectFunctionCall1(sha256_bytea, CStringGetTextDatum(description));

	return TextDatumGetCString(DirectFunctionCall2(binary_encode, digest, CStringGetTextDatum("hex")));
}
