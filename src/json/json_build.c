/*
 * json_build.c
 *	  Drop-ins for the jsonb functions that build values from others: jsonb_build_object(),
 *	  jsonb_build_array(), to_jsonb().
 *
 * What a call is to do with each argument is planned once for its place in an expression: the keys
 * of most objects are constants, and sorted then.
 */
#include "json/drop_in.h"

#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"

/* How an argument becomes a value. */
typedef enum Conversion
{
	FROM_JSONB,
	FROM_TEXT,
	FROM_LITERAL,				/* a string constant without a type, as a C string */
	FROM_BOOL,
	FROM_INT2,
	FROM_INT4,
	FROM_INT8,
	FROM_NUMERIC,
	BY_SERVER,					/* to_jsonb() */
} Conversion;

/* Where an object gets a key or value from. */
typedef struct Slot
{
	const char *key;			/* NULL where it is no constant */
	uint32		key_length;
	int			argument;		/* of the value; its key is the one before */
	Conversion	conversion;
} Slot;

/* How a call of jsonb_build_object() or jsonb_build_array() is done; cached in the call's place. */
typedef struct BuildPlan
{
	bool		by_server;		/* keys of other types, a variadic array */
	bool		is_sorted;		/* the slots are in the order of their keys, each there once */
	int			count;
	Slot	   *slots;
	FmgrInfo   *to_jsonb;		/* by argument; NULL unless needed */
} BuildPlan;

/* How an argument of a type becomes a value. */
static Conversion
conversion_of(Oid type, bool constant)
{
	switch (type)
	{
		case JSONBOID:
			return FROM_JSONB;
		case TEXTOID:
		case VARCHAROID:
			return FROM_TEXT;
		case UNKNOWNOID:
			return constant ? FROM_LITERAL : BY_SERVER;
		case BOOLOID:
			return FROM_BOOL;
		case INT2OID:
			return FROM_INT2;
		case INT4OID:
			return FROM_INT4;
		case INT8OID:
			return FROM_INT8;
		case NUMERICOID:
			return FROM_NUMERIC;
		default:
			return BY_SERVER;
	}
}

/*
 * Makes a value of an argument that is not null and no jsonb; function is for those that only the
 * server can convert.
 */
static void
convert_other(Datum datum, Conversion conversion, FmgrInfo *function, MakoJsonValue *value)
{
	switch (conversion)
	{
		case FROM_JSONB:
			pg_unreachable();
		case FROM_TEXT:
			{
				text	   *string = DatumGetTextPP(datum);

				mako_json_set_string(value, VARDATA_ANY(string), VARSIZE_ANY_EXHDR(string));
				return;
			}
		case FROM_LITERAL:
			mako_json_set_string(value, DatumGetCString(datum), strlen(DatumGetCString(datum)));
			return;
		case FROM_BOOL:
			value->kind = DatumGetBool(datum) ? MAKO_JSON_TRUE : MAKO_JSON_FALSE;
			return;
		case FROM_INT2:
			datum = DirectFunctionCall1(int2_numeric, datum);
			break;
		case FROM_INT4:
			datum = DirectFunctionCall1(int4_numeric, datum);
			break;
		case FROM_INT8:
			datum = DirectFunctionCall1(int8_numeric, datum);
			break;
		case FROM_NUMERIC:
			if (numeric_is_nan(DatumGetNumeric(datum)) ||
				MakoNumericIsInfinite(DatumGetNumeric(datum)))
			{
				/* JSON has no such number, but strings. */
				const char *name = DatumGetCString(DirectFunctionCall1(numeric_out, datum));

				mako_json_set_string(value, name, strlen(name));
				return;
			}
			break;
		case BY_SERVER:
			*value = mako_json_read(FunctionCall1(function, datum));
			return;
	}
	value->kind = MAKO_JSON_NUMBER;
	value->at.number = DatumGetNumeric(datum);
}

/* Makes a value of an argument. */
static inline void
convert(Datum datum, bool isnull, Conversion conversion, FmgrInfo *function, MakoJsonValue *value)
{
	if (isnull)
		value->kind = MAKO_JSON_NULL;
	else if (conversion == FROM_JSONB)
		*value = mako_json_read(datum);
	else
		convert_other(datum, conversion, function, value);
}

/* Prepares to_jsonb() for an argument. */
static void
prepare_to_jsonb(FmgrInfo *function, Node *argument, MemoryContext context)
{
	fmgr_info_cxt(F_TO_JSONB, function, context);
	fmgr_info_set_expr((Node *) makeFuncExpr(F_TO_JSONB, JSONBOID, list_make1(argument), InvalidOid,
											 InvalidOid, COERCE_EXPLICIT_CALL),
					   function);
}

/* Sorts slots by their keys; later arguments come first among equals. */
static int
compare_slots(const void *a, const void *b)
{
	const Slot *x = a;
	const Slot *y = b;
	int			order = mako_json_compare_keys(x->key, x->key_length, y->key, y->key_length);

	return order != 0 ? order : y->argument - x->argument;
}

/* Sorts the slots of constant keys, and keeps the last of each. */
static void
sort_slots(BuildPlan *plan)
{
	int			kept = 0;

	for (int i = 0; i < plan->count; i++)
		if (plan->slots[i].key == NULL)
			return;
	qsort(plan->slots, plan->count, sizeof(Slot), compare_slots);
	for (int i = 0; i < plan->count; i++)
	{
		const Slot *slot = &plan->slots[i];
		const Slot *last = kept == 0 ? NULL : &plan->slots[kept - 1];

		if (last == NULL ||
			mako_json_compare_keys(last->key, last->key_length, slot->key, slot->key_length) != 0)
			plan->slots[kept++] = *slot;
	}
	plan->count = kept;
	plan->is_sorted = true;
}

/*
 * Sets the key of a slot, if the argument is a constant that can be one; false where keys are the
 * server's business.
 */
static bool
plan_key(Slot *slot, Node *argument)
{
	Conversion	conversion = conversion_of(exprType(argument), IsA(argument, Const));
	MakoJsonValue key;

	if (conversion != FROM_TEXT && conversion != FROM_LITERAL)
		return false;
	if (!IsA(argument, Const))
		return true;
	if (((Const *) argument)->constisnull)
		return false;
	convert(((Const *) argument)->constvalue, false, conversion, NULL, &key);
	slot->key = key.at.string;
	slot->key_length = key.length;
	return true;
}

/* Plans a call; an object has a key before every value. */
static BuildPlan *
make_plan(FunctionCallInfo fcinfo, bool has_keys)
{
	FmgrInfo   *function = fcinfo->flinfo;
	List	   *arguments = mako_json_call_arguments(fcinfo);
	int			nargs = list_length(arguments);
	BuildPlan  *plan;
	MemoryContext old;

	old = MemoryContextSwitchTo(function->fn_mcxt);
	plan = palloc0(sizeof(BuildPlan));
	plan->by_server = nargs != PG_NARGS() || get_fn_expr_variadic(function) ||
		(has_keys && nargs % 2 != 0);
	plan->slots = palloc0(sizeof(Slot) * (nargs + 1));
	plan->to_jsonb = palloc0(sizeof(FmgrInfo) * (nargs + 1));
	for (int i = has_keys ? 1 : 0; i < nargs && !plan->by_server; i += has_keys ? 2 : 1)
	{
		Slot	   *slot = &plan->slots[plan->count++];
		Node	   *argument = list_nth(arguments, i);

		slot->argument = i;
		slot->conversion = conversion_of(exprType(argument), IsA(argument, Const));
		if (slot->conversion == BY_SERVER)
			prepare_to_jsonb(&plan->to_jsonb[i], argument, function->fn_mcxt);
		if (exprType(argument) == UNKNOWNOID && slot->conversion == BY_SERVER)
			plan->by_server = true;
		if (has_keys && !plan_key(slot, list_nth(arguments, i - 1)))
			plan->by_server = true;
	}
	if (has_keys && !plan->by_server)
		sort_slots(plan);
	MemoryContextSwitchTo(old);
	function->fn_extra = plan;
	return plan;
}

/* The plan of a call, which is made once for its place in an expression. */
static inline BuildPlan *
build_plan(FunctionCallInfo fcinfo, bool has_keys)
{
	return fcinfo->flinfo->fn_extra != NULL ? fcinfo->flinfo->fn_extra :
		make_plan(fcinfo, has_keys);
}

/* jsonb_build_object() */
Datum
native_jsonb_build_object(PG_FUNCTION_ARGS)
{
	BuildPlan  *plan = build_plan(fcinfo, true);
	MakoJson   *object;

	/* A null key is an error. */
	for (int i = 0; !plan->by_server && !plan->is_sorted && i < plan->count; i++)
		if (PG_ARGISNULL(plan->slots[i].argument - 1))
			return jsonb_build_object(fcinfo);
	if (plan->by_server)
		return jsonb_build_object(fcinfo);

	object = mako_json_new(MAKO_JSON_OBJECT, plan->count);
	for (int i = 0; i < plan->count; i++)
	{
		const Slot *slot = &plan->slots[i];
		int			argument = slot->argument;
		MakoJsonMember other;
		MakoJsonMember *member = plan->is_sorted ? &object->members[object->count++] : &other;

		member->key = slot->key;
		member->key_length = slot->key_length;
		convert(fcinfo->args[argument].value, fcinfo->args[argument].isnull, slot->conversion,
				&plan->to_jsonb[argument], &member->value);
		if (!plan->is_sorted)
		{
			if (member->key == NULL)
				member->key = mako_json_argument_text(fcinfo, argument - 1, &member->key_length);
			mako_json_put(object, member);
		}
	}
	RETURN_JSON(&object->value);
}

/* jsonb_build_array() */
Datum
native_jsonb_build_array(PG_FUNCTION_ARGS)
{
	BuildPlan  *plan = build_plan(fcinfo, false);
	MakoJson   *array;

	if (plan->by_server)
		return jsonb_build_array(fcinfo);
	array = mako_json_new(MAKO_JSON_ARRAY, plan->count);
	for (int i = 0; i < plan->count; i++)
		convert(fcinfo->args[i].value, fcinfo->args[i].isnull, plan->slots[i].conversion,
				&plan->to_jsonb[i], &array->members[array->count++].value);
	RETURN_JSON(&array->value);
}

/* jsonb_build_object() without arguments */
Datum
native_jsonb_build_object_noargs(PG_FUNCTION_ARGS)
{
	RETURN_JSON(&mako_json_new(MAKO_JSON_OBJECT, 0)->value);
}

/* jsonb_build_array() without arguments */
Datum
native_jsonb_build_array_noargs(PG_FUNCTION_ARGS)
{
	RETURN_JSON(&mako_json_new(MAKO_JSON_ARRAY, 0)->value);
}

/* to_jsonb() */
Datum
native_to_jsonb(PG_FUNCTION_ARGS)
{
	Conversion	conversion = conversion_of(get_fn_expr_argtype(fcinfo->flinfo, 0), false);
	MakoJsonValue value;

	if (conversion == BY_SERVER)
		return to_jsonb(fcinfo);
	convert(PG_GETARG_DATUM(0), false, conversion, NULL, &value);
	RETURN_JSON(&value);
}
