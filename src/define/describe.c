/*
 * describe.c
 *	  The objects of a description: each once, and as text in an order that does not depend on how
 *	  they were found.
 *
 * The text of an object is its kind and name, then a line for each property, indented by one tab.
 * What users write may have lines of its own: those are indented by two tabs, so that no source
 * can be taken for a property or for another object.
 *
 * A tree is part of the text twice. Deparsed, or as the source, it says what was written. The
 * functions, operators and casts that it names say what the parser made of that: another overload,
 * cast or operator is another definition.
 */
#include "define/describe.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/transam.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_cast.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "commands/proclang.h"
#include "parser/parse_coerce.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"

/* Raises that an object is gone which another one still names. */
static void
raise_dropped(Oid catalog, Oid object)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("an object that the definition depends on does not exist"),
			 errdetail("It has no row %u in %s.", object, get_rel_name(catalog)),
			 errhint("If it was dropped at this moment, try again. "
					 "Otherwise replace what refers to it.")));
}

/* Kind and qualified name of an object, as pg_identify_object() says them. */
static char *
label_of(Oid catalog, Oid object)
{
	ObjectAddress address = {catalog, object, 0};
	char	   *identity = MakoObjectIdentity(&address);

	if (identity == NULL)
		raise_dropped(catalog, object);
	return psprintf("%s %s", MakoObjectKind(&address), identity);
}

/* The qualified name of an object, also of one of the server's; "-" for none. */
char *
mako_describe_name(Oid catalog, Oid object)
{
	ObjectAddress address = {catalog, object, 0};
	char	   *identity = OidIsValid(object) ? MakoObjectIdentity(&address) : pstrdup("-");

	if (identity == NULL)
		raise_dropped(catalog, object);
	return identity;
}

/* Returns true if an object is in a schema of temporary objects. */
static bool
is_temporary(Oid catalog, Oid object)
{
	AttrNumber	column = get_object_attnum_namespace(catalog);
	int			cache = get_object_catcache_oid(catalog);
	HeapTuple	tuple;
	bool		isnull;
	bool		temporary;

	/* All kinds of objects that are in a schema have such a cache. */
	if (column == InvalidAttrNumber || cache < 0)
		return false;
	tuple = SearchSysCache1(cache, ObjectIdGetDatum(object));
	if (!HeapTupleIsValid(tuple))
		return false;
	temporary = isAnyTempNamespace(DatumGetObjectId(SysCacheGetAttr(cache, tuple,
																	column, &isnull)));
	ReleaseSysCache(tuple);
	return temporary;
}

/* Raises that something temporary would be part of a definition. */
static void
raise_temporary(const char *label)
{
	ereport(ERROR,
			(errcode(ERRCODE_WRONG_OBJECT_TYPE),
			 errmsg("%s cannot be part of a definition", label),
			 errdetail("It is temporary."),
			 errhint("Sessions of others cannot see it.")));
}

/* Appends a text of the users', whose lines are indented. */
static void
append_indented(StringInfo out, const char *text)
{
	for (const char *end; (end = strchr(text, '\n')) != NULL; text = end + 1)
	{
		appendBinaryStringInfo(out, text, end + 1 - text);
		appendStringInfoString(out, "\t\t");
	}
	appendStringInfoString(out, text);
}

/* Adds a property. */
void
mako_describe_add(MakoItem *item, const char *property, const char *text)
{
	appendStringInfo(&item->text, "\t%s ", property);
	append_indented(&item->text, text);
	appendStringInfoChar(&item->text, '\n');
}

/* Compares two texts of a list by bytes. */
static int
compare_texts(const ListCell *a, const ListCell *b)
{
	return strcmp(lfirst(a), lfirst(b));
}

/* Adds properties that have no order of their own. */
void
mako_describe_add_lines(MakoItem *item, List *lines)
{
	ListCell   *cell;

	list_sort(lines, compare_texts);
	foreach(cell, lines)
	{
		appendStringInfoChar(&item->text, '\t');
		append_indented(&item->text, lfirst(cell));
		appendStringInfoChar(&item->text, '\n');
	}
}

/* A column of a row as text; NULL for null. */
char *
mako_describe_column(const MakoRow *row, int column)
{
	Oid			output;
	bool		is_varlena;
	bool		isnull;
	Datum		value = heap_getattr(row->tuple, column, row->tupdesc, &isnull);

	if (isnull)
		return NULL;
	getTypeOutputInfo(TupleDescAttr(row->tupdesc, column - 1)->atttypid, &output, &is_varlena);
	return mako_gate_output(output, value);
}

/* ---- what has been found -------------------------------------------------------------------- */

/* The item of an object in a call, which is new unless it was found before. */
static MakoItem *
find_item(MakoDescription *description, Oid catalog, Oid object, List *arguments, List *columns)
{
	MakoItem   *item;
	ListCell   *cell;

	foreach(cell, description->items)
	{
		item = lfirst(cell);
		if (item->catalog == catalog && item->object == object &&
			equal(item->arguments, arguments) && equal(item->columns, columns))
			return item;
	}
	item = palloc0(sizeof(MakoItem));
	item->catalog = catalog;
	item->object = object;
	item->arguments = arguments;
	item->columns = columns;
	item->label = label_of(catalog, object);
	if (is_temporary(catalog, object))
		raise_temporary(item->label);
	description->items = lappend(description->items, item);
	return item;
}

/* Notes an object, even one of the server's. */
MakoItem *
mako_describe_item(MakoDescription *description, Oid catalog, Oid object)
{
	MakoItem   *item = find_item(description, catalog, object, NIL, NIL);

	item->is_called |= !description->is_quiet;
	return item;
}

/*
 * Notes what users have made for the comparison of values of one of the server's types, or of its
 * elements.
 */
static void
note_server_type(MakoDescription *description, Oid type)
{
	for (; OidIsValid(type) && !list_member_oid(description->server_types, type);
		 type = get_element_type(type))
	{
		description->server_types = lappend_oid(description->server_types, type);
		mako_describe_note_comparison(description, type);
	}
}

/* Notes an object; NULL for one of the server's, or of a kind that is left out. */
MakoItem *
mako_describe_note(MakoDescription *description, Oid catalog, Oid object)
{
	if (catalog == TypeRelationId && object < FirstNormalObjectId)
		note_server_type(description, object);
	if (object < FirstNormalObjectId || !mako_describe_has_kind(catalog))
		return NULL;
	return mako_describe_item(description, catalog, object);
}

/* Notes a type. */
void
mako_describe_note_type(MakoDescription *description, Oid type)
{
	(void) mako_describe_note(description, TypeRelationId, type);
}

/*
 * Returns true if the body of a function depends on the call: on the types of its arguments, or on
 * what the call takes a record for.
 */
static bool
depends_on_call(Oid function, const List *columns)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	bool		depends;

	if (!HeapTupleIsValid(tuple))
		raise_dropped(ProcedureRelationId, function);
	depends = ((Form_pg_proc) GETSTRUCT(tuple))->prolang == SQLlanguageId &&
		(columns != NIL || mako_sql_body_is_polymorphic(tuple));
	ReleaseSysCache(tuple);
	return depends;
}

/* Returns true if these are the types of all arguments of a function, and each is definite. */
static bool
is_complete(Oid function, const List *arguments)
{
	ListCell   *cell;

	if (list_length(arguments) != get_func_nargs(function))
		return false;
	foreach(cell, arguments)
		if (!OidIsValid(lfirst_oid(cell)) || IsPolymorphicType(lfirst_oid(cell)))
			return false;
	return true;
}

/*
 * Notes the body of a function that depends on the call, as it is in one with arguments of these
 * types, and columns like these.
 */
void
mako_describe_note_call(MakoDescription *description, Oid function, List *arguments, List *columns)
{
	if (function < FirstNormalObjectId)
		return;
	if (get_func_prokind(function) == PROKIND_AGGREGATE)
	{
		if (is_complete(function, arguments))
			mako_describe_note_parts(description, function, arguments);
	}
	else if (depends_on_call(function, columns))
	{
		if (is_complete(function, arguments))
			(void) find_item(description, ProcedureRelationId, function, arguments, columns);
		else
			mako_describe_item(description, ProcedureRelationId, function)->has_unseen_call = true;
	}
}

/* ---- what trees name ------------------------------------------------------------------------ */

/* A tree being looked through. */
typedef struct Trail
{
	MakoDescription *description;
	StringInfoData names;
} Trail;

/* Notes an object that a tree names; a callback of mako_names_find(). */
static void
note_name(void *context, Oid catalog, Oid object, Node *call)
{
	Trail	   *trail = context;
	MakoItem   *item = mako_describe_note(trail->description, catalog, object);

	if (item == NULL)
		return;
	/* Which types and collations values have follows from the rest. */
	if (catalog != TypeRelationId && catalog != CollationRelationId)
		appendStringInfo(&trail->names, "%s%s", trail->names.len > 0 ? ", " : "", item->label);
	if (call != NULL)
		mako_describe_note_call(trail->description, object, mako_names_arguments(call),
								mako_names_columns(call));
}

/* Notes what a tree names, and adds it to an item. */
void
mako_describe_tree(MakoDescription *description, MakoItem *item, Node *tree)
{
	Trail		trail = {description};

	initStringInfo(&trail.names);
	mako_names_find(tree, note_name, &trail);
	if (trail.names.len > 0)
		mako_describe_add(item, "names", trail.names.data);
}

/* ---- describing ----------------------------------------------------------------------------- */

/* The type that a function returns for arguments of these types. */
static Oid
result_of(Oid function, const List *arguments)
{
	Oid			actual[FUNC_MAX_ARGS];
	Oid		   *declared;
	int			count;
	Oid			result = get_func_signature(function, &declared, &count);

	for (int i = 0; i < count; i++)
		actual[i] = list_nth_oid(arguments, i);
	return enforce_generic_type_consistency(actual, declared, count, result, false);
}

/* A call with arguments of these types, to parse a function's body with. */
static FuncExpr *
make_call(Oid function, const List *arguments)
{
	FuncExpr   *call = makeNode(FuncExpr);
	ListCell   *cell;

	call->funcid = function;
	call->funcresulttype = result_of(function, arguments);
	call->inputcollid = DEFAULT_COLLATION_OID;
	foreach(cell, arguments)
	{
		Param	   *parameter = makeNode(Param);

		parameter->paramkind = PARAM_EXTERN;
		parameter->paramid = foreach_current_index(cell) + 1;
		parameter->paramtype = lfirst_oid(cell);
		parameter->paramtypmod = -1;
		parameter->paramcollid = get_typcollation(parameter->paramtype);
		call->args = lappend(call->args, parameter);
	}
	return call;
}

/* Describes the body of a function in a call. */
static void
describe_call(MakoDescription *description, MakoItem *item)
{
	ListCell   *cell;
	List	   *trees;

	foreach(cell, item->arguments)
	{
		mako_describe_add(item, "called with",
						  mako_describe_name(TypeRelationId, lfirst_oid(cell)));
		mako_describe_note_type(description, lfirst_oid(cell));
	}
	foreach(cell, item->columns)
	{
		const Param *column = lfirst(cell);

		mako_describe_add(item, "taken for",
						  psprintf("%s collation %s",
								   format_type_extended(column->paramtype, column->paramtypmod,
														FORMAT_TYPE_TYPEMOD_GIVEN |
														FORMAT_TYPE_FORCE_QUALIFY),
								   mako_describe_name(CollationRelationId, column->paramcollid)));
		mako_describe_note_type(description, column->paramtype);
	}
	if (mako_function_body(item->object, make_call(item->object, item->arguments),
						   item->columns, &trees))
		mako_describe_tree(description, item, (Node *) trees);
}

/* Describes an object from its row. */
static void
describe_row(MakoDescription *description, MakoItem *item)
{
	Relation	catalog = table_open(item->catalog, AccessShareLock);
	MakoRow		row = {item->object};

	row.tuple = get_catalog_object_by_oid(catalog, get_object_attnum_oid(item->catalog),
										  item->object);
	if (!HeapTupleIsValid(row.tuple))
		raise_dropped(item->catalog, item->object);
	row.tupdesc = RelationGetDescr(catalog);
	mako_describe_kind(description, item, &row);
	table_close(catalog, AccessShareLock);
}

/* Describes an object. */
static void
describe_item(MakoDescription *description, MakoItem *item)
{
	initStringInfo(&item->text);
	append_indented(&item->text, item->label);
	appendStringInfoChar(&item->text, '\n');
	if (item->arguments != NIL || item->columns != NIL)
		describe_call(description, item);
	else
		describe_row(description, item);
}

/* Returns true if the body of a function is described with a call of it. */
static bool
has_call(const MakoDescription *description, Oid function)
{
	ListCell   *cell;

	foreach(cell, description->items)
	{
		const MakoItem *item = lfirst(cell);

		if (item->catalog == ProcedureRelationId && item->object == function &&
			item->arguments != NIL)
			return true;
	}
	return false;
}

/* Says which functions are called, but not seen through. */
static void
tell(const MakoDescription *description)
{
	Oid			extension = get_extension_oid("mako_migration", false);
	ListCell   *cell;

	foreach(cell, description->items)
	{
		const MakoItem *item = lfirst(cell);
		HeapTuple	tuple;
		Oid			language;

		if (!item->is_unseen || !item->is_called ||
			(has_call(description, item->object) && !item->has_unseen_call) ||
			getExtensionOfObject(ProcedureRelationId, item->object) == extension)
			continue;
		tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(item->object));
		if (!HeapTupleIsValid(tuple))
			raise_dropped(ProcedureRelationId, item->object);
		language = ((Form_pg_proc) GETSTRUCT(tuple))->prolang;
		ReleaseSysCache(tuple);
		ereport(NOTICE,
				(errmsg("the fingerprint of function %s does not cover what it calls",
						format_procedure_qualified(item->object)),
				 language == SQLlanguageId ?
				 errdetail("Its argument types are polymorphic, "
						   "so its body cannot be parsed by itself.") :
				 errdetail("It is written in %s; "
						   "only the bodies of SQL functions can be seen through.",
						   get_language_name(language, false))));
	}
}

/* Compares two items by their texts. */
static int
compare_items(const ListCell *a, const ListCell *b)
{
	return strcmp(((const MakoItem *) lfirst(a))->text.data,
				  ((const MakoItem *) lfirst(b))->text.data);
}

/* Appends the registered function, then all others in the order of their texts. */
static void
append_items(StringInfo out, List *items)
{
	const MakoItem *registered = linitial(items);
	ListCell   *cell;

	appendStringInfoString(out, registered->text.data);
	list_sort(items, compare_items);
	foreach(cell, items)
		if (lfirst(cell) != registered)
			appendStringInfoString(out, ((const MakoItem *) lfirst(cell))->text.data);
}

/*
 * Appends a registered function with everything that its results depend on; may say what cannot be
 * seen. Returns the helpers (OIDs) that run as another role, in the order of the text, which does
 * not say as whom.
 */
List *
mako_describe(StringInfo out, Oid function, Oid owner, bool tell_unseen)
{
	MakoDescription description = {.owner = owner};
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "mako description",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	List	   *others = NIL;
	ListCell   *cell;

	(void) mako_describe_item(&description, ProcedureRelationId, function);
	/* The list grows while it is read. */
	for (int i = 0; i < list_length(description.items); i++)
		describe_item(&description, list_nth(description.items, i));
	if (tell_unseen)
		tell(&description);
	append_items(out, description.items);
	MemoryContextSwitchTo(old);
	foreach(cell, description.items)
		if (((const MakoItem *) lfirst(cell))->is_other)
			others = lappend_oid(others, ((const MakoItem *) lfirst(cell))->object);
	MemoryContextDelete(context);
	return others;
}
