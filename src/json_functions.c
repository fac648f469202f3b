/*
 * json_functions.c
 *	  Drop-ins for the server's jsonb functions, which work on expanded values, and how they get into an expression.
 *
 * A drop-in native_f() does what the server's f() does, but copies nothing and serializes nothing: it looks into the value where it
 * is, and answers with one that points there. Whatever is rare, and every error, it leaves to f() itself, which takes expanded values
 * like all functions do, by detoasting them. So results and errors are the server's, by construction or because both are compared in
 * the tests. An expression keeps naming f(): only the address that is called changes, once it has been prepared for evaluation.
 *
 * What is made lives in the current memory context; what is cached for a place in an expression, in that of its evaluation state.
 */
#include "expanded_json.h"

#include "catalog/pg_type.h"
#include "executor/execExpr.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"

/* ---- arguments and results -------------------------------------------------------------------------------------------------- */

#define ARGUMENT_JSON(n) mako_json_read(PG_GETARG_DATUM(n))
#define RETURN_JSON(value) PG_RETURN_DATUM(mako_json_datum(value))

/* The arguments of the call in the expression. */
static List *
call_arguments(FunctionCallInfo fcinfo)
{
	Node	   *call = fcinfo->flinfo->fn_expr;

	if (call != NULL && IsA(call, FuncExpr))
		return ((FuncExpr *) call)->args;
	if (call != NULL && IsA(call, OpExpr))
		return ((OpExpr *) call)->args;
	return NIL;
}

/* Is an argument the same in every call? */
static bool
is_constant(FunctionCallInfo fcinfo, int argument)
{
	List	   *arguments = call_arguments(fcinfo);

	return argument < list_length(arguments) && IsA(list_nth(arguments, argument), Const);
}

/* A text argument as bytes, which live as long as the stream. */
static inline const char *
argument_text(FunctionCallInfo fcinfo, int argument, uint32 *length)
{
	text	   *value = PG_GETARG_TEXT_PP(argument);

	*length = VARSIZE_ANY_EXHDR(value);
	return VARDATA_ANY(value);
}

/* A value as text; NULL for a JSON null. */
static text *
json_to_text(const MakoJsonValue *value)
{
	switch (value->kind)
	{
		case MAKO_JSON_NULL:
			return NULL;
		case MAKO_JSON_FALSE:
			return cstring_to_text("false");
		case MAKO_JSON_TRUE:
			return cstring_to_text("true");
		case MAKO_JSON_NUMBER:
			return cstring_to_text(DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(value->at.number))));
		case MAKO_JSON_STRING:
			return cstring_to_text_with_len(value->at.string, value->length);
		case MAKO_JSON_STORED:
			return cstring_to_text(JsonbToCString(NULL, value->at.stored, value->length));
		default:
			{
				Jsonb	   *flat = mako_json_flatten(value);

				return cstring_to_text(JsonbToCString(NULL, &flat->root, VARSIZE(flat)));
			}
	}
}

/* Returns a value as text. */
static Datum
return_text(FunctionCallInfo fcinfo, const MakoJsonValue *value)
{
	text	   *result = json_to_text(value);

	if (result == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(result);
}

/* A value as a container that the server's functions can walk. */
static JsonbContainer *
container_of(const MakoJsonValue *value)
{
	return value->kind == MAKO_JSON_STORED ? value->at.stored : &mako_json_flatten(value)->root;
}

/* ---- paths ------------------------------------------------------------------------------------------------------------------ */

/* One element of a path: a key, or the number of an element where the value is an array. */
typedef struct Step
{
	const char *key;
	uint32		length;
	bool		is_number;
	int			number;
} Step;

/* A path without nulls. */
typedef struct Path
{
	bool		valid;			/* false: the server is to see to it */
	int			count;
	Step	   *steps;
} Path;

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
static const Path *
argument_path(FunctionCallInfo fcinfo, int argument)
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

/* The number of the element that a whole number means in an array of this size, where negative ones count from the end; or -1. */
static inline int64
element_number(int number, uint32 count)
{
	int64		index = number < 0 ? (int64) count + number : number;

	return index >= 0 && index < (int64) count ? index : -1;
}

/* What following a path ends with. */
typedef enum Found
{
	FOUND,
	NOTHING,
	ASK_SERVER,					/* an unusual number */
} Found;

/* One step into a value. */
static Found
take_step(const MakoJsonValue *value, const Step *step, MakoJsonValue *next)
{
	int64		index;

	if (mako_json_is_object(value))
		return mako_json_field(value, step->key, step->length, next) ? FOUND : NOTHING;
	if (!mako_json_is_array(value))
		return NOTHING;
	if (!step->is_number)
		return ASK_SERVER;
	index = element_number(step->number, mako_json_count(value));
	if (index < 0)
		return NOTHING;
	mako_json_element(value, index, next);
	return FOUND;
}

/* Follows a path from a value to a value. */
static Found
follow_path(MakoJsonValue *value, const Path *path)
{
	if (!path->valid)
		return ASK_SERVER;
	for (int i = 0; i < path->count; i++)
	{
		Found		found = take_step(value, &path->steps[i], value);

		if (found != FOUND)
			return found;
	}
	return FOUND;
}

/* ---- reading ---------------------------------------------------------------------------------------------------------------- */

/* The field of an object argument that the next argument names. */
static bool
argument_field(FunctionCallInfo fcinfo, MakoJsonValue *field)
{
	MakoJsonValue value = ARGUMENT_JSON(0);
	uint32		length;
	const char *key = argument_text(fcinfo, 1, &length);

	return mako_json_is_object(&value) && mako_json_field(&value, key, length, field);
}

/* jsonb -> text */
static Datum
native_jsonb_object_field(PG_FUNCTION_ARGS)
{
	MakoJsonValue field;

	if (!argument_field(fcinfo, &field))
		PG_RETURN_NULL();
	RETURN_JSON(&field);
}

/* jsonb ->> text */
static Datum
native_jsonb_object_field_text(PG_FUNCTION_ARGS)
{
	MakoJsonValue field;

	if (!argument_field(fcinfo, &field))
		PG_RETURN_NULL();
	return return_text(fcinfo, &field);
}

/* The element of an array argument that the next argument numbers. To the server, a scalar is an array of one here. */
static bool
argument_element(FunctionCallInfo fcinfo, MakoJsonValue *element)
{
	MakoJsonValue value = ARGUMENT_JSON(0);
	int			number = PG_GETARG_INT32(1);
	int64		index;

	if (mako_json_is_object(&value))
		return false;
	if (!mako_json_is_array(&value))
	{
		*element = value;
		return number == 0 || number == -1;
	}
	index = element_number(number, mako_json_count(&value));
	if (index >= 0)
		mako_json_element(&value, index, element);
	return index >= 0;
}

/* jsonb -> integer */
static Datum
native_jsonb_array_element(PG_FUNCTION_ARGS)
{
	MakoJsonValue element;

	if (!argument_element(fcinfo, &element))
		PG_RETURN_NULL();
	RETURN_JSON(&element);
}

/* jsonb ->> integer */
static Datum
native_jsonb_array_element_text(PG_FUNCTION_ARGS)
{
	MakoJsonValue element;

	if (!argument_element(fcinfo, &element))
		PG_RETURN_NULL();
	return return_text(fcinfo, &element);
}

/* jsonb #> text[], and jsonb_extract_path() */
static Datum
native_jsonb_extract_path(PG_FUNCTION_ARGS)
{
	MakoJsonValue value = ARGUMENT_JSON(0);

	switch (follow_path(&value, argument_path(fcinfo, 1)))
	{
		case FOUND:
			RETURN_JSON(&value);
		case NOTHING:
			PG_RETURN_NULL();
		default:
			return jsonb_extract_path(fcinfo);
	}
}

/* jsonb #>> text[], and jsonb_extract_path_text() */
static Datum
native_jsonb_extract_path_text(PG_FUNCTION_ARGS)
{
	MakoJsonValue value = ARGUMENT_JSON(0);

	switch (follow_path(&value, argument_path(fcinfo, 1)))
	{
		case FOUND:
			return return_text(fcinfo, &value);
		case NOTHING:
			PG_RETURN_NULL();
		default:
			return jsonb_extract_path_text(fcinfo);
	}
}

/* jsonb_typeof(): the answers are texts that nobody has to allocate. */
static Datum
native_jsonb_typeof(PG_FUNCTION_ARGS)
{
	static struct
	{
		int32		header;
		char		name[8];
	}			types[] = {
		[MAKO_JSON_NULL] = {0, "null"},[MAKO_JSON_FALSE] = {0, "boolean"},[MAKO_JSON_TRUE] = {0, "boolean"},
		[MAKO_JSON_NUMBER] = {0, "number"},[MAKO_JSON_STRING] = {0, "string"},
		[MAKO_JSON_OBJECT] = {0, "object"},[MAKO_JSON_ARRAY] = {0, "array"},
	};
	MakoJsonValue value = ARGUMENT_JSON(0);
	MakoJsonKind kind = value.kind != MAKO_JSON_STORED ? value.kind :
		mako_json_is_object(&value) ? MAKO_JSON_OBJECT : MAKO_JSON_ARRAY;

	if (types[kind].header == 0)
		SET_VARSIZE(&types[kind], VARHDRSZ + strlen(types[kind].name));
	PG_RETURN_POINTER(&types[kind]);
}

/* jsonb_array_length() */
static Datum
native_jsonb_array_length(PG_FUNCTION_ARGS)
{
	MakoJsonValue value = ARGUMENT_JSON(0);

	if (!mako_json_is_array(&value))
		return jsonb_array_length(fcinfo);
	PG_RETURN_INT32(mako_json_count(&value));
}

/* Does a value have this key, or this string as an element? A string is an array of itself here. */
static bool
has_key(const MakoJsonValue *value, const char *key, uint32 length)
{
	MakoJsonValue field;

	if (mako_json_is_object(value))
		return mako_json_field(value, key, length, &field);
	if (!mako_json_is_array(value))
		return value->kind == MAKO_JSON_STRING && mako_json_compare_keys(value->at.string, value->length, key, length) == 0;
	for (uint32 i = 0; i < mako_json_count(value); i++)
	{
		mako_json_element(value, i, &field);
		if (field.kind == MAKO_JSON_STRING && mako_json_compare_keys(field.at.string, field.length, key, length) == 0)
			return true;
	}
	return false;
}

/* jsonb ? text */
static Datum
native_jsonb_exists(PG_FUNCTION_ARGS)
{
	MakoJsonValue value = ARGUMENT_JSON(0);
	uint32		length;
	const char *key = argument_text(fcinfo, 1, &length);

	PG_RETURN_BOOL(has_key(&value, key, length));
}

/* jsonb ?| text[] */
static Datum
native_jsonb_exists_any(PG_FUNCTION_ARGS)
{
	MakoJsonValue value = ARGUMENT_JSON(0);
	const Path *keys = argument_path(fcinfo, 1);

	if (!keys->valid)
		return jsonb_exists_any(fcinfo);
	for (int i = 0; i < keys->count; i++)
		if (has_key(&value, keys->steps[i].key, keys->steps[i].length))
			PG_RETURN_BOOL(true);
	PG_RETURN_BOOL(false);
}

/* jsonb ?& text[] */
static Datum
native_jsonb_exists_all(PG_FUNCTION_ARGS)
{
	MakoJsonValue value = ARGUMENT_JSON(0);
	const Path *keys = argument_path(fcinfo, 1);

	if (!keys->valid)
		return jsonb_exists_all(fcinfo);
	for (int i = 0; i < keys->count; i++)
		if (!has_key(&value, keys->steps[i].key, keys->steps[i].length))
			PG_RETURN_BOOL(false);
	PG_RETURN_BOOL(true);
}

/* ---- comparing -------------------------------------------------------------------------------------------------------------- */

/* Are two values equal? */
static bool
equals(const MakoJsonValue *a, const MakoJsonValue *b)
{
	if (mako_json_is_object(a) || mako_json_is_array(a))
	{
		MakoJsonMembers left;
		MakoJsonMembers right;

		if (mako_json_is_object(a) != mako_json_is_object(b) || mako_json_is_array(a) != mako_json_is_array(b) ||
			mako_json_count(a) != mako_json_count(b))
			return false;
		if (a->kind == MAKO_JSON_STORED && b->kind == MAKO_JSON_STORED)
			return compareJsonbContainers(a->at.stored, b->at.stored) == 0;
		check_stack_depth();
		left = mako_json_members(a);
		right = mako_json_members(b);
		for (uint32 i = 0; i < left.count; i++)
		{
			const MakoJsonMember *x = &left.members[i];
			const MakoJsonMember *y = &right.members[i];

			if ((mako_json_is_object(a) && mako_json_compare_keys(x->key, x->key_length, y->key, y->key_length) != 0) ||
				!equals(&x->value, &y->value))
				return false;
		}
		return true;
	}
	if (a->kind != b->kind)
		return false;
	switch (a->kind)
	{
		case MAKO_JSON_STRING:
			return mako_json_compare_keys(a->at.string, a->length, b->at.string, b->length) == 0;
		case MAKO_JSON_NUMBER:
			return DatumGetBool(DirectFunctionCall2(numeric_eq, NumericGetDatum(a->at.number), NumericGetDatum(b->at.number)));
		default:
			return true;
	}
}

/* jsonb = jsonb */
static Datum
native_jsonb_eq(PG_FUNCTION_ARGS)
{
	MakoJsonValue a = ARGUMENT_JSON(0);
	MakoJsonValue b = ARGUMENT_JSON(1);

	PG_RETURN_BOOL(equals(&a, &b));
}

/* jsonb <> jsonb */
static Datum
native_jsonb_ne(PG_FUNCTION_ARGS)
{
	MakoJsonValue a = ARGUMENT_JSON(0);
	MakoJsonValue b = ARGUMENT_JSON(1);

	PG_RETURN_BOOL(!equals(&a, &b));
}

/* Does a value contain another? */
static bool
contains(const MakoJsonValue *value, const MakoJsonValue *part)
{
	JsonbIterator *value_iterator;
	JsonbIterator *part_iterator;

	if (mako_json_is_object(value) != mako_json_is_object(part))
		return false;
	value_iterator = JsonbIteratorInit(container_of(value));
	part_iterator = JsonbIteratorInit(container_of(part));
	return JsonbDeepContains(&value_iterator, &part_iterator);
}

/* jsonb @> jsonb */
static Datum
native_jsonb_contains(PG_FUNCTION_ARGS)
{
	MakoJsonValue value = ARGUMENT_JSON(0);
	MakoJsonValue part = ARGUMENT_JSON(1);

	PG_RETURN_BOOL(contains(&value, &part));
}

/* jsonb <@ jsonb */
static Datum
native_jsonb_contained(PG_FUNCTION_ARGS)
{
	MakoJsonValue part = ARGUMENT_JSON(0);
	MakoJsonValue value = ARGUMENT_JSON(1);

	PG_RETURN_BOOL(contains(&value, &part));
}

/* ---- building --------------------------------------------------------------------------------------------------------------- */

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

/* Makes a value of an argument; function is for those that only the server can convert. */
static void
convert(Datum datum, bool isnull, Conversion conversion, FmgrInfo *function, MakoJsonValue *value)
{
	if (isnull)
	{
		value->kind = MAKO_JSON_NULL;
		return;
	}
	switch (conversion)
	{
		case FROM_JSONB:
			*value = mako_json_read(datum);
			return;
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
			if (numeric_is_nan(DatumGetNumeric(datum)) || MakoNumericIsInfinite(DatumGetNumeric(datum)))
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

/* Prepares to_jsonb() for an argument. */
static void
prepare_to_jsonb(FmgrInfo *function, Node *argument, MemoryContext context)
{
	fmgr_info_cxt(F_TO_JSONB, function, context);
	fmgr_info_set_expr((Node *) makeFuncExpr(F_TO_JSONB, JSONBOID, list_make1(argument), InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL),
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

		if (last == NULL || mako_json_compare_keys(last->key, last->key_length, slot->key, slot->key_length) != 0)
			plan->slots[kept++] = *slot;
	}
	plan->count = kept;
	plan->is_sorted = true;
}

/* Sets the key of a slot, if the argument is a constant that can be one; false where keys are the server's business. */
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

/* Plans a call, or finds its plan; an object has a key before every value. */
static const BuildPlan *
build_plan(FunctionCallInfo fcinfo, bool has_keys)
{
	FmgrInfo   *function = fcinfo->flinfo;
	List	   *arguments = call_arguments(fcinfo);
	int			nargs = list_length(arguments);
	BuildPlan  *plan;
	MemoryContext old;

	if (function->fn_extra != NULL)
		return function->fn_extra;
	old = MemoryContextSwitchTo(function->fn_mcxt);
	plan = palloc0(sizeof(BuildPlan));
	plan->by_server = nargs != PG_NARGS() || get_fn_expr_variadic(function) || (has_keys && nargs % 2 != 0);
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

/* Puts a member in its place in an object, in the place of one of the same key if there is one. */
static void
put_member(MakoJson *object, const MakoJsonMember *member)
{
	uint32		place = object->count;

	while (place > 0)
	{
		const MakoJsonMember *before = &object->members[place - 1];
		int			order = mako_json_compare_keys(before->key, before->key_length, member->key, member->key_length);

		if (order == 0)
		{
			object->members[place - 1].value = member->value;
			return;
		}
		if (order < 0)
			break;
		place--;
	}
	memmove(&object->members[place + 1], &object->members[place], sizeof(MakoJsonMember) * (object->count - place));
	object->members[place] = *member;
	object->count++;
}

/* jsonb_build_object() */
static Datum
native_jsonb_build_object(PG_FUNCTION_ARGS)
{
	BuildPlan  *plan = unconstify(BuildPlan *, build_plan(fcinfo, true));
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
		MakoJsonMember member = {slot->key, slot->key_length};

		convert(fcinfo->args[argument].value, fcinfo->args[argument].isnull, slot->conversion, &plan->to_jsonb[argument], &member.value);
		if (plan->is_sorted)
			object->members[object->count++] = member;
		else
		{
			if (member.key == NULL)
				member.key = argument_text(fcinfo, argument - 1, &member.key_length);
			put_member(object, &member);
		}
	}
	RETURN_JSON(&object->value);
}

/* jsonb_build_array() */
static Datum
native_jsonb_build_array(PG_FUNCTION_ARGS)
{
	BuildPlan  *plan = unconstify(BuildPlan *, build_plan(fcinfo, false));
	MakoJson   *array;

	if (plan->by_server)
		return jsonb_build_array(fcinfo);
	array = mako_json_new(MAKO_JSON_ARRAY, plan->count);
	for (int i = 0; i < plan->count; i++)
		convert(fcinfo->args[i].value, fcinfo->args[i].isnull, plan->slots[i].conversion, &plan->to_jsonb[i],
				&array->members[array->count++].value);
	RETURN_JSON(&array->value);
}

/* jsonb_build_object() without arguments */
static Datum
native_jsonb_build_object_noargs(PG_FUNCTION_ARGS)
{
	RETURN_JSON(&mako_json_new(MAKO_JSON_OBJECT, 0)->value);
}

/* jsonb_build_array() without arguments */
static Datum
native_jsonb_build_array_noargs(PG_FUNCTION_ARGS)
{
	RETURN_JSON(&mako_json_new(MAKO_JSON_ARRAY, 0)->value);
}

/* to_jsonb() */
static Datum
native_to_jsonb(PG_FUNCTION_ARGS)
{
	Conversion	conversion = conversion_of(get_fn_expr_argtype(fcinfo->flinfo, 0), false);
	MakoJsonValue value;

	if (conversion == BY_SERVER)
		return to_jsonb(fcinfo);
	convert(PG_GETARG_DATUM(0), false, conversion, NULL, &value);
	RETURN_JSON(&value);
}

/* ---- changing --------------------------------------------------------------------------------------------------------------- */

/* A copy of a container's tree with room for some more members. */
static MakoJson *
copy_tree(const MakoJsonValue *value, uint32 more)
{
	MakoJsonMembers members = mako_json_members(value);
	MakoJson   *tree = mako_json_new(mako_json_is_object(value) ? MAKO_JSON_OBJECT : MAKO_JSON_ARRAY, members.count + more);

	memcpy(tree->members, members.members, sizeof(MakoJsonMember) * members.count);
	tree->count = members.count;
	return tree;
}

/* Removes a member of a tree that nobody else has seen. */
static void
remove_member(MakoJson *tree, uint32 index)
{
	tree->count--;
	memmove(&tree->members[index], &tree->members[index + 1], sizeof(MakoJsonMember) * (tree->count - index));
}

/* Merges two objects; where both have a key, the second's value counts. */
static MakoJson *
merge(const MakoJsonValue *a, const MakoJsonValue *b)
{
	MakoJsonMembers left = mako_json_members(a);
	MakoJsonMembers right = mako_json_members(b);
	MakoJson   *object = mako_json_new(MAKO_JSON_OBJECT, left.count + right.count);
	uint32		i = 0;
	uint32		j = 0;

	while (i < left.count || j < right.count)
	{
		int			order;

		if (i == left.count)
			order = 1;
		else if (j == right.count)
			order = -1;
		else
			order = mako_json_compare_keys(left.members[i].key, left.members[i].key_length,
										   right.members[j].key, right.members[j].key_length);
		object->members[object->count++] = order < 0 ? left.members[i] : right.members[j];
		i += order <= 0;
		j += order >= 0;
	}
	return object;
}

/* jsonb || jsonb */
static Datum
native_jsonb_concat(PG_FUNCTION_ARGS)
{
	MakoJsonValue a = ARGUMENT_JSON(0);
	MakoJsonValue b = ARGUMENT_JSON(1);

	if (mako_json_is_object(&a) && mako_json_is_object(&b))
		RETURN_JSON(&merge(&a, &b)->value);
	if (mako_json_is_array(&a) && mako_json_is_array(&b))
	{
		MakoJsonMembers more = mako_json_members(&b);
		MakoJson   *array = copy_tree(&a, more.count);

		memcpy(&array->members[array->count], more.members, sizeof(MakoJsonMember) * more.count);
		array->count += more.count;
		RETURN_JSON(&array->value);
	}
	return jsonb_concat(fcinfo);
}

/* Removes the members of these keys, or the strings that are elements of an array; false where that cannot be. */
static bool
remove_keys(MakoJsonValue *value, const Step *keys, int count)
{
	MakoJson   *tree = NULL;
	bool		is_object = mako_json_is_object(value);

	if (!is_object && !mako_json_is_array(value))
		return false;
	for (int i = 0; i < count; i++)
	{
		/* Nothing is copied unless something is to go. */
		if (!has_key(tree == NULL ? value : &tree->value, keys[i].key, keys[i].length))
			continue;
		if (tree == NULL)
			tree = copy_tree(value, 0);
		for (uint32 j = tree->count; j-- > 0;)
		{
			const MakoJsonMember *member = &tree->members[j];

			if (is_object ? mako_json_compare_keys(member->key, member->key_length, keys[i].key, keys[i].length) == 0 :
				member->value.kind == MAKO_JSON_STRING &&
				mako_json_compare_keys(member->value.at.string, member->value.length, keys[i].key, keys[i].length) == 0)
				remove_member(tree, j);
		}
	}
	if (tree != NULL)
		*value = tree->value;
	return true;
}

/* jsonb - text */
static Datum
native_jsonb_delete(PG_FUNCTION_ARGS)
{
	MakoJsonValue value = ARGUMENT_JSON(0);
	Step		key = {NULL};

	key.key = argument_text(fcinfo, 1, &key.length);
	if (!remove_keys(&value, &key, 1))
		return jsonb_delete(fcinfo);
	RETURN_JSON(&value);
}

/* jsonb - text[] */
static Datum
native_jsonb_delete_array(PG_FUNCTION_ARGS)
{
	MakoJsonValue value = ARGUMENT_JSON(0);
	const Path *keys = argument_path(fcinfo, 1);

	if (!keys->valid || !remove_keys(&value, keys->steps, keys->count))
		return jsonb_delete_array(fcinfo);
	RETURN_JSON(&value);
}

/* jsonb - integer */
static Datum
native_jsonb_delete_idx(PG_FUNCTION_ARGS)
{
	MakoJsonValue value = ARGUMENT_JSON(0);
	int64		index;
	MakoJson   *array;

	if (!mako_json_is_array(&value))
		return jsonb_delete_idx(fcinfo);
	index = element_number(PG_GETARG_INT32(1), mako_json_count(&value));
	if (index < 0)
		return jsonb_delete_idx(fcinfo);
	array = copy_tree(&value, 0);
	remove_member(array, index);
	RETURN_JSON(&array->value);
}

/* What is to be done at the end of a path. */
typedef enum Edit
{
	EDIT_REPLACE,
	EDIT_REPLACE_OR_CREATE,
	EDIT_INSERT_BEFORE,
	EDIT_INSERT_AFTER,
	EDIT_DELETE,
} Edit;

/* Does an edit at the end of a path, in a copy of the object; false where the server is to see to it. */
static bool
edit_object(MakoJsonValue *value, const Step *step, Edit edit, const MakoJsonValue *new_value)
{
	MakoJsonValue field;
	bool		exists = mako_json_field(value, step->key, step->length, &field);
	MakoJsonMember member = {step->key, step->length};
	MakoJson   *object;

	if (exists && (edit == EDIT_INSERT_BEFORE || edit == EDIT_INSERT_AFTER))
		return false;			/* an error */
	if (!exists && (edit == EDIT_REPLACE || edit == EDIT_DELETE))
		return true;
	if (edit == EDIT_DELETE)
		return remove_keys(value, step, 1);
	member.value = *new_value;
	object = copy_tree(value, 1);
	put_member(object, &member);
	*value = object->value;
	return true;
}

/* The same in a copy of the array, for an element that is there. */
static bool
edit_array(MakoJsonValue *value, const Step *step, Edit edit, const MakoJsonValue *new_value)
{
	int64		index = step->is_number ? element_number(step->number, mako_json_count(value)) : -1;
	MakoJson   *array;

	if (index < 0)
		return false;
	array = copy_tree(value, 1);
	switch (edit)
	{
		case EDIT_DELETE:
			remove_member(array, index);
			break;
		case EDIT_INSERT_BEFORE:
		case EDIT_INSERT_AFTER:
			index += edit == EDIT_INSERT_AFTER;
			memmove(&array->members[index + 1], &array->members[index], sizeof(MakoJsonMember) * (array->count - index));
			array->count++;
			/* FALLTHROUGH */
		default:
			array->members[index].value = *new_value;
	}
	*value = array->value;
	return true;
}

/* Edits a value at a path, in copies of the containers along it; false where the server is to see to it. */
static bool
edit_path(MakoJsonValue *value, const Step *steps, int count, Edit edit, const MakoJsonValue *new_value)
{
	MakoJsonValue next;
	bool		is_object = mako_json_is_object(value);

	check_stack_depth();
	if (!is_object && !mako_json_is_array(value))
		return true;			/* no way into a scalar */
	if (count == 1)
		return is_object ? edit_object(value, steps, edit, new_value) : edit_array(value, steps, edit, new_value);
	switch (take_step(value, steps, &next))
	{
		case FOUND:
			return edit_path(&next, steps + 1, count - 1, edit, new_value) &&
				(is_object ? edit_object : edit_array) (value, steps, EDIT_REPLACE, &next);
		case NOTHING:
			return is_object;	/* arrays have many rules for elements that are not there */
		default:
			return false;
	}
}

/* Edits the first argument at the path in the second; false where the server is to see to it. */
static bool
edit_argument(FunctionCallInfo fcinfo, MakoJsonValue *value, Edit edit, const MakoJsonValue *new_value)
{
	const Path *path = argument_path(fcinfo, 1);

	*value = ARGUMENT_JSON(0);
	return path->valid && path->count > 0 && (mako_json_is_object(value) || mako_json_is_array(value)) &&
		edit_path(value, path->steps, path->count, edit, new_value);
}

/* jsonb #- text[] */
static Datum
native_jsonb_delete_path(PG_FUNCTION_ARGS)
{
	MakoJsonValue value;

	if (!edit_argument(fcinfo, &value, EDIT_DELETE, NULL))
		return jsonb_delete_path(fcinfo);
	RETURN_JSON(&value);
}

/* jsonb_set() */
static Datum
native_jsonb_set(PG_FUNCTION_ARGS)
{
	MakoJsonValue new_value = ARGUMENT_JSON(2);
	MakoJsonValue value;

	if (!edit_argument(fcinfo, &value, PG_GETARG_BOOL(3) ? EDIT_REPLACE_OR_CREATE : EDIT_REPLACE, &new_value))
		return jsonb_set(fcinfo);
	RETURN_JSON(&value);
}

/* jsonb_insert() */
static Datum
native_jsonb_insert(PG_FUNCTION_ARGS)
{
	MakoJsonValue new_value = ARGUMENT_JSON(2);
	MakoJsonValue value;

	if (!edit_argument(fcinfo, &value, PG_GETARG_BOOL(3) ? EDIT_INSERT_AFTER : EDIT_INSERT_BEFORE, &new_value))
		return jsonb_insert(fcinfo);
	RETURN_JSON(&value);
}

/* A value without the members of its objects that are null. */
static MakoJsonValue
strip_nulls(const MakoJsonValue *value)
{
	MakoJsonMembers members;
	MakoJson   *tree;
	bool		is_object = mako_json_is_object(value);

	if (!is_object && !mako_json_is_array(value))
		return *value;
	check_stack_depth();
	members = mako_json_members(value);
	tree = mako_json_new(is_object ? MAKO_JSON_OBJECT : MAKO_JSON_ARRAY, members.count);
	for (uint32 i = 0; i < members.count; i++)
	{
		if (is_object && members.members[i].value.kind == MAKO_JSON_NULL)
			continue;
		tree->members[tree->count] = members.members[i];
		tree->members[tree->count++].value = strip_nulls(&members.members[i].value);
	}
	return tree->value;
}

/* jsonb_strip_nulls() */
static Datum
native_jsonb_strip_nulls(PG_FUNCTION_ARGS)
{
	MakoJsonValue value = ARGUMENT_JSON(0);

	if (PG_NARGS() > 1 && PG_GETARG_BOOL(1))
		return jsonb_strip_nulls(fcinfo);	/* from arrays too */
	value = strip_nulls(&value);
	RETURN_JSON(&value);
}

/* ---- casts ------------------------------------------------------------------------------------------------------------------ */

/* A cast from number: anything else is the server's, error or null. */
#define NATIVE_CAST(server_function, numeric_function) \
static Datum \
native_##server_function(PG_FUNCTION_ARGS) \
{ \
	MakoJsonValue value = ARGUMENT_JSON(0); \
\
	if (value.kind != MAKO_JSON_NUMBER) \
		return server_function(fcinfo); \
	PG_RETURN_DATUM(DirectFunctionCall1(numeric_function, NumericGetDatum(value.at.number))); \
}

NATIVE_CAST(jsonb_int2, numeric_int2)
NATIVE_CAST(jsonb_int4, numeric_int4)
NATIVE_CAST(jsonb_int8, numeric_int8)
NATIVE_CAST(jsonb_float4, numeric_float4)
NATIVE_CAST(jsonb_float8, numeric_float8)

/* jsonb::numeric */
static Datum
native_jsonb_numeric(PG_FUNCTION_ARGS)
{
	MakoJsonValue value = ARGUMENT_JSON(0);

	if (value.kind != MAKO_JSON_NUMBER)
		return jsonb_numeric(fcinfo);
	PG_RETURN_NUMERIC(value.at.number);
}

/* jsonb::boolean */
static Datum
native_jsonb_bool(PG_FUNCTION_ARGS)
{
	MakoJsonValue value = ARGUMENT_JSON(0);

	if (value.kind != MAKO_JSON_TRUE && value.kind != MAKO_JSON_FALSE)
		return jsonb_bool(fcinfo);
	PG_RETURN_BOOL(value.kind == MAKO_JSON_TRUE);
}

/* jsonb::text, which is done by the type's output function */
static Datum
native_jsonb_out(PG_FUNCTION_ARGS)
{
	MakoJsonValue value = ARGUMENT_JSON(0);

	PG_RETURN_CSTRING(JsonbToCString(NULL, container_of(&value), 0));
}

/* ---- our own ---------------------------------------------------------------------------------------------------------------- */

/* mako_required() */
static Datum
native_mako_required(PG_FUNCTION_ARGS)
{
	if (!PG_ARGISNULL(0) && !PG_ARGISNULL(1))
	{
		MakoJsonValue value = ARGUMENT_JSON(0);

		if (follow_path(&value, argument_path(fcinfo, 1)) == FOUND)
			RETURN_JSON(&value);
	}
	return mako_required_in_program(fcinfo);
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

/* Has a function a drop-in? */
bool
mako_json_function_is_native(Oid function)
{
	FmgrInfo	info;

	fmgr_info(function, &info);
	return replacement(info.fn_addr) != info.fn_addr;
}

/* Lets a prepared expression call the drop-ins. */
void
mako_json_functions_replace(ExprState *state)
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
				break;
			case EEOP_IOCOERCE:
				step->d.iocoerce.finfo_out->fn_addr = replacement(step->d.iocoerce.finfo_out->fn_addr);
				break;
			default:
				break;
		}
	}
}
