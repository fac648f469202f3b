/*
 * json_functions.c
 *	  How drop-ins for the server's jsonb functions get into an expression, and how they read their arguments.
 *
 * An expression keeps naming the server's functions: only the address that is called changes, once it has been prepared for evaluation.
 * Subscripts, which are no function, become one before.
 */
#include "json/json_functions.h"
#include "gate/gate.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/dependency.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "executor/execExpr.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/syscache.h"

/* ---- arguments -------------------------------------------------------------------------------------------------------------- */

/* The arguments of the call in the expression. */
List *
mako_json_call_arguments(FunctionCallInfo fcinfo)
{
	List	   *arguments = NIL;

	if (fcinfo->flinfo->fn_expr != NULL)
		(void) mako_json_call(fcinfo->flinfo->fn_expr, &arguments);
	return arguments;
}

/* Is an argument the same in every call? */
static bool
is_constant(FunctionCallInfo fcinfo, int argument)
{
	List	   *arguments = mako_json_call_arguments(fcinfo);

	return argument < list_length(arguments) && IsA(list_nth(arguments, argument), Const);
}

/* A text argument as bytes, which live as long as the stream. */
const char *
mako_json_argument_text(FunctionCallInfo fcinfo, int argument, uint32 *length)
{
	text	   *value = PG_GETARG_TEXT_PP(argument);

	*length = VARSIZE_ANY_EXHDR(value);
	return VARDATA_ANY(value);
}

/* ---- paths ------------------------------------------------------------------------------------------------------------------ */

/* Is a step a plain whole number? Odd ones ("+1", " 1", ten digits and more) are the server's. */
static bool
read_number(const Step *step, int *number)
{
	uint32		sign = step->length > 0 && step->key[0] == '-' ? 1 : 0;
	int			value = 0;

	if (step->length == sign || step->length > sign + 9)
		return false;
	for (uint32 i = sign; i < step->length; i++)
	{
		if (step->key[i] < '0' || step->key[i] > '9')
			return false;
		value = value * 10 + (step->key[i] - '0');
	}
	*number = sign == 1 ? -value : value;
	return true;
}

/* Reads a path from a text array. */
static Path
read_path(Datum array)
{
	ArrayType  *keys = DatumGetArrayTypeP(array);
	Path		path = {ARR_NDIM(keys) <= 1 && !ARR_HASNULL(keys)};
	Datum	   *elements;

	if (!path.valid)
		return path;
	deconstruct_array(keys, TEXTOID, -1, false, TYPALIGN_INT, &elements, NULL, &path.count);
	path.steps = palloc(sizeof(Step) * (path.count + 1));
	for (int i = 0; i < path.count; i++)
	{
		Step	   *step = &path.steps[i];
		text	   *key = DatumGetTextPP(elements[i]);

		step->key = VARDATA_ANY(key);
		step->length = VARSIZE_ANY_EXHDR(key);
		step->is_number = read_number(step, &step->number);
	}
	return path;
}

/* The path in an argument, which is read only once where it is a constant. */
const Path *
mako_json_argument_path(FunctionCallInfo fcinfo, int argument)
{
	FmgrInfo   *function = fcinfo->flinfo;
	MemoryContext old;
	Path	   *path;

	if (function->fn_extra != NULL)
		return function->fn_extra;
	if (!is_constant(fcinfo, argument))
	{
		path = palloc(sizeof(Path));
		*path = read_path(PG_GETARG_DATUM(argument));
		return path;
	}
	old = MemoryContextSwitchTo(function->fn_mcxt);
	path = palloc(sizeof(Path));
	*path = read_path(PG_GETARG_DATUM(argument));
	MemoryContextSwitchTo(old);
	function->fn_extra = path;
	return path;
}

/* One step into a value. */
Found
mako_json_take_step(const MakoJsonValue *value, const Step *step, MakoJsonValue *next)
{
	int64		index;

	if (mako_json_is_object(value))
		return mako_json_field(value, step->key, step->length, next) ? FOUND : NOTHING;
	if (!mako_json_is_array(value))
		return NOTHING;
	if (!step->is_number)
		return ASK_SERVER;
	index = mako_json_element_number(step->number, mako_json_count(value));
	if (index < 0)
		return NOTHING;
	mako_json_element(value, index, next);
	return FOUND;
}

/* Follows a path from a value to a value. */
Found
mako_json_follow_path(MakoJsonValue *value, const Path *path)
{
	if (!path->valid)
		return ASK_SERVER;
	for (int i = 0; i < path->count; i++)
	{
		Found		found = mako_json_take_step(value, &path->steps[i], value);

		if (found != FOUND)
			return found;
	}
	return FOUND;
}

/* ---- into an expression ----------------------------------------------------------------------------------------------------- */

#define DROP_IN(function) {function, native_##function}

static const struct
{
	PGFunction	server;
	PGFunction	native;
}			drop_ins[] = {
	DROP_IN(jsonb_object_field),
	DROP_IN(jsonb_object_field_text),
	DROP_IN(jsonb_array_element),
	DROP_IN(jsonb_array_element_text),
	DROP_IN(jsonb_extract_path),
	DROP_IN(jsonb_extract_path_text),
	DROP_IN(jsonb_typeof),
	DROP_IN(jsonb_array_length),
	DROP_IN(jsonb_exists),
	DROP_IN(jsonb_exists_any),
	DROP_IN(jsonb_exists_all),
	DROP_IN(jsonb_eq),
	DROP_IN(jsonb_ne),
	DROP_IN(jsonb_contains),
	DROP_IN(jsonb_contained),
	DROP_IN(jsonb_build_object),
	DROP_IN(jsonb_build_object_noargs),
	DROP_IN(jsonb_build_array),
	DROP_IN(jsonb_build_array_noargs),
	DROP_IN(to_jsonb),
	DROP_IN(jsonb_concat),
	DROP_IN(jsonb_delete),
	DROP_IN(jsonb_delete_array),
	DROP_IN(jsonb_delete_idx),
	DROP_IN(jsonb_delete_path),
	DROP_IN(jsonb_set),
	DROP_IN(jsonb_insert),
	DROP_IN(jsonb_strip_nulls),
	DROP_IN(jsonb_bool),
	DROP_IN(jsonb_int2),
	DROP_IN(jsonb_int4),
	DROP_IN(jsonb_int8),
	DROP_IN(jsonb_float4),
	DROP_IN(jsonb_float8),
	DROP_IN(jsonb_numeric),
	DROP_IN(jsonb_out),
	DROP_IN(mako_required),
	{mako_reject, mako_reject_in_program},
	DROP_IN(texteq),
	DROP_IN(textne),
};

/* The drop-in for a function, or the function itself. */
static PGFunction
replacement(PGFunction function)
{
	for (size_t i = 0; i < lengthof(drop_ins); i++)
		if (drop_ins[i].server == function)
			return drop_ins[i].native;
	return function;
}

/* Returns true if a function is the server's own or the extension's: only of these the address is asked for, which may load a library. */
static bool
is_known_function(Oid function)
{
	HeapTuple	tuple;
	bool		is_compiled;

	if (function < FirstNormalObjectId)
		return true;
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	if (!HeapTupleIsValid(tuple))
		return false;
	is_compiled = ((Form_pg_proc) GETSTRUCT(tuple))->prolang == ClanguageId;
	ReleaseSysCache(tuple);
	return is_compiled &&
		getExtensionOfObject(ProcedureRelationId, function) == get_extension_oid("mako_migration", true);
}

/* The address of a function; NULL for one that cannot have a drop-in. */
static PGFunction
address_of(Oid function)
{
	FmgrInfo	info;

	if (!is_known_function(function))
		return NULL;
	fmgr_info(function, &info);
	return info.fn_addr;
}

/* Has a function a drop-in? */
bool
mako_json_function_is_native(Oid function)
{
	PGFunction	address = address_of(function);

	return replacement(address) != address;
}

/* The function that a node calls, and its arguments; InvalidOid for whatever is no call. */
Oid
mako_json_call(const Node *node, List **arguments)
{
	if (IsA(node, OpExpr))
	{
		*arguments = ((const OpExpr *) node)->args;
		return ((const OpExpr *) node)->opfuncid;
	}
	if (IsA(node, FuncExpr))
	{
		*arguments = ((const FuncExpr *) node)->args;
		return ((const FuncExpr *) node)->funcid;
	}
	return InvalidOid;
}

/* Does a function just look into a value, whatever it is, so that it may as well do that once? */
bool
mako_json_function_is_lookup(Oid function)
{
	static const PGFunction lookups[] = {
		jsonb_object_field, jsonb_object_field_text, jsonb_array_element, jsonb_array_element_text,
		jsonb_extract_path, jsonb_extract_path_text, jsonb_typeof,
	};
	PGFunction	address = address_of(function);

	for (size_t i = 0; i < lengthof(lookups); i++)
		if (address == lookups[i])
			return true;
	return false;
}

/* Is this a field of a parameter, jsonb -> 'key' or, as text, jsonb ->> 'key'? */
bool
mako_json_is_field(const Node *node, bool *is_text)
{
	List	   *arguments;
	Oid			function = mako_json_call(node, &arguments);
	PGFunction	address;

	if (!OidIsValid(function) || list_length(arguments) != 2 ||
		!IsA(linitial(arguments), Param) || linitial_node(Param, arguments)->paramkind != PARAM_EXTERN ||
		!IsA(lsecond(arguments), Const) || lsecond_node(Const, arguments)->constisnull)
		return false;
	address = address_of(function);
	*is_text = address == jsonb_object_field_text;
	return *is_text || address == jsonb_object_field;
}

/* Does a function compare texts? If it is negated, it says whether they differ. */
bool
mako_json_function_compares_texts(Oid function, bool *is_negated)
{
	PGFunction	address = address_of(function);

	*is_negated = address == textne;
	return *is_negated || address == texteq;
}

/* The text of a subscript: a key, or the number of an element. */
static Node *
subscript_to_text(Node *subscript)
{
	CoerceViaIO *text;

	if (exprType(subscript) == TEXTOID)
		return subscript;
	text = makeNode(CoerceViaIO);
	text->arg = (Expr *) subscript;
	text->resulttype = TEXTOID;
	text->resultcollid = DEFAULT_COLLATION_OID;
	text->coerceformat = COERCE_IMPLICIT_CAST;
	text->location = -1;
	return (Node *) text;
}

/* Puts jsonb_extract_path() in the place of subscripts, which nobody could replace in a prepared expression. */
static Node *
rewrite_subscripts(Node *node, void *context)
{
	SubscriptingRef *subscripting;
	ArrayExpr  *path;
	FuncExpr   *call;
	ListCell   *cell;

	if (node == NULL)
		return NULL;
	node = expression_tree_mutator(node, rewrite_subscripts, context);
	subscripting = (SubscriptingRef *) node;
	if (!IsA(node, SubscriptingRef) || subscripting->refcontainertype != JSONBOID || subscripting->refassgnexpr != NULL ||
		subscripting->reflowerindexpr != NIL)
		return node;

	path = makeNode(ArrayExpr);
	path->array_typeid = TEXTARRAYOID;
	path->array_collid = DEFAULT_COLLATION_OID;
	path->element_typeid = TEXTOID;
	foreach(cell, subscripting->refupperindexpr)
		path->elements = lappend(path->elements, subscript_to_text(lfirst(cell)));
	path->location = -1;
	call = makeFuncExpr(F_JSONB_EXTRACT_PATH, JSONBOID,
						list_make2(subscripting->refexpr, mako_gate_simplify((Node *) path)),
						InvalidOid, DEFAULT_COLLATION_OID, COERCE_EXPLICIT_CALL);
	call->funcvariadic = true;
	return (Node *) call;
}

/* A planned expression in which everything that has a drop-in is a call. */
Expr *
mako_json_functions_rewrite(Expr *expression)
{
	return (Expr *) rewrite_subscripts((Node *) expression, NULL);
}

/* Lets a prepared expression call the drop-ins; those that refuse find the sink in the context of their call. */
void
mako_json_functions_replace(ExprState *state, MakoRefusalSink *sink)
{
	for (int i = 0; i < state->steps_len; i++)
	{
		ExprEvalStep *step = &state->steps[i];

		switch (ExecEvalStepOp(state, step))
		{
			case EEOP_FUNCEXPR:
			case EEOP_FUNCEXPR_STRICT:
#ifdef MAKO_STRICT_STEPS
			case EEOP_FUNCEXPR_STRICT_1:
			case EEOP_FUNCEXPR_STRICT_2:
#endif
			case EEOP_FUNCEXPR_FUSAGE:
			case EEOP_FUNCEXPR_STRICT_FUSAGE:
			case EEOP_DISTINCT:
			case EEOP_NOT_DISTINCT:
			case EEOP_NULLIF:
				step->d.func.fn_addr = replacement(step->d.func.fn_addr);
				if (step->d.func.fn_addr == mako_reject_in_program || step->d.func.fn_addr == native_mako_required)
					step->d.func.fcinfo_data->context = (fmNodePtr) sink;
				break;
			case EEOP_SCALARARRAYOP:
				step->d.scalararrayop.fn_addr = replacement(step->d.scalararrayop.fn_addr);
				break;
			case EEOP_IOCOERCE:
				step->d.iocoerce.finfo_out->fn_addr = replacement(step->d.iocoerce.finfo_out->fn_addr);
				break;
			default:
				break;
		}
	}
}
