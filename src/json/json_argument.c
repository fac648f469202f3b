/*
 * json_argument.c
 *	  How drop-ins read their arguments: constants, texts and paths.
 */
#include "json/drop_in.h"

#include "catalog/pg_type.h"
#include "nodes/nodeFuncs.h"
#include "utils/array.h"
#include "utils/builtins.h"

/* ---- calls and their arguments -------------------------------------------------------------- */

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

/* The arguments of the call in the expression. */
List *
mako_json_call_arguments(FunctionCallInfo fcinfo)
{
	List	   *arguments = NIL;

	if (fcinfo->flinfo->fn_expr != NULL)
		(void) mako_json_call(fcinfo->flinfo->fn_expr, &arguments);
	return arguments;
}

/* Returns true if an argument is the same in every call. */
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

/* ---- paths ---------------------------------------------------------------------------------- */

/*
 * Returns true if a step is a plain whole number. Odd ones ("+1", " 1", ten digits and more) are
 * the server's.
 */
static bool
read_number(const MakoJsonStep *step, int *number)
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
static MakoJsonPath
read_path(Datum array)
{
	ArrayType  *keys = DatumGetArrayTypeP(array);
	MakoJsonPath path = {ARR_NDIM(keys) <= 1 && !ARR_HASNULL(keys)};
	Datum	   *elements;

	if (!path.valid)
		return path;
	deconstruct_array(keys, TEXTOID, -1, false, TYPALIGN_INT, &elements, NULL, &path.count);
	path.steps = palloc(sizeof(MakoJsonStep) * (path.count + 1));
	for (int i = 0; i < path.count; i++)
	{
		MakoJsonStep *step = &path.steps[i];
		text	   *key = DatumGetTextPP(elements[i]);

		step->key = VARDATA_ANY(key);
		step->length = VARSIZE_ANY_EXHDR(key);
		step->is_number = read_number(step, &step->number);
	}
	return path;
}

/* The path in an argument, which is read only once where it is a constant. */
const MakoJsonPath *
mako_json_argument_path(FunctionCallInfo fcinfo, int argument)
{
	FmgrInfo   *function = fcinfo->flinfo;
	MemoryContext old;
	MakoJsonPath *path;

	if (function->fn_extra != NULL)
		return function->fn_extra;
	if (!is_constant(fcinfo, argument))
	{
		path = palloc(sizeof(MakoJsonPath));
		*path = read_path(PG_GETARG_DATUM(argument));
		return path;
	}
	old = MemoryContextSwitchTo(function->fn_mcxt);
	path = palloc(sizeof(MakoJsonPath));
	*path = read_path(PG_GETARG_DATUM(argument));
	MemoryContextSwitchTo(old);
	function->fn_extra = path;
	return path;
}

/* One step into a value. */
MakoJsonFound
mako_json_take_step(const MakoJsonValue *value, const MakoJsonStep *step, MakoJsonValue *next)
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
MakoJsonFound
mako_json_follow_path(MakoJsonValue *value, const MakoJsonPath *path)
{
	if (!path->valid)
		return ASK_SERVER;
	for (int i = 0; i < path->count; i++)
	{
		MakoJsonFound found = mako_json_take_step(value, &path->steps[i], value);

		if (found != FOUND)
			return found;
	}
	return FOUND;
}
