/*
 * json_read.c
 *	  Drop-ins for the jsonb functions that read: looking into values, comparing and casting them,
 *	  and comparing texts found there. What is found is not copied.
 */
#include "json/drop_in.h"

#include "catalog/pg_collation.h"
#include "miscadmin.h"
#include "utils/builtins.h"

/* ---- values as text ------------------------------------------------------------------------- */

/* A value as text; NULL for a JSON null. */
text *
mako_json_to_text(const MakoJsonValue *value)
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
			{
				Datum		number = NumericGetDatum(value->at.number);

				return cstring_to_text(DatumGetCString(DirectFunctionCall1(numeric_out, number)));
			}
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
	text	   *result = mako_json_to_text(value);

	if (result == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(result);
}

/* ---- looking into values -------------------------------------------------------------------- */

/* The field of an object argument that the next argument names. */
static bool
argument_field(FunctionCallInfo fcinfo, MakoJsonValue *field)
{
	MakoJsonValue value = ARGUMENT_JSON(0);
	uint32		length;
	const char *key = mako_json_argument_text(fcinfo, 1, &length);

	return mako_json_is_object(&value) && mako_json_field(&value, key, length, field);
}

/* jsonb -> text */
Datum
native_jsonb_object_field(PG_FUNCTION_ARGS)
{
	MakoJsonValue field;

	if (!argument_field(fcinfo, &field))
		PG_RETURN_NULL();
	RETURN_JSON(&field);
}

/* jsonb ->> text */
Datum
native_jsonb_object_field_text(PG_FUNCTION_ARGS)
{
	MakoJsonValue field;

	if (!argument_field(fcinfo, &field))
		PG_RETURN_NULL();
	return return_text(fcinfo, &field);
}

/*
 * The element of an array argument that the next argument numbers. To the server, a scalar is an
 * array of one here.
 */
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
	index = mako_json_element_number(number, mako_json_count(&value));
	if (index >= 0)
		mako_json_element(&value, index, element);
	return index >= 0;
}

/* jsonb -> integer */
Datum
native_jsonb_array_element(PG_FUNCTION_ARGS)
{
	MakoJsonValue element;

	if (!argument_element(fcinfo, &element))
		PG_RETURN_NULL();
	RETURN_JSON(&element);
}

/* jsonb ->> integer */
Datum
native_jsonb_array_element_text(PG_FUNCTION_ARGS)
{
	MakoJsonValue element;

	if (!argument_element(fcinfo, &element))
		PG_RETURN_NULL();
	return return_text(fcinfo, &element);
}

/* jsonb #> text[], and jsonb_extract_path() */
Datum
native_jsonb_extract_path(PG_FUNCTION_ARGS)
{
	MakoJsonValue value = ARGUMENT_JSON(0);

	switch (mako_json_follow_path(&value, mako_json_argument_path(fcinfo, 1)))
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
Datum
native_jsonb_extract_path_text(PG_FUNCTION_ARGS)
{
	MakoJsonValue value = ARGUMENT_JSON(0);

	switch (mako_json_follow_path(&value, mako_json_argument_path(fcinfo, 1)))
	{
		case FOUND:
			return return_text(fcinfo, &value);
		case NOTHING:
			PG_RETURN_NULL();
		default:
			return jsonb_extract_path_text(fcinfo);
	}
}

/* jsonb_typeof(): the answers are texts that need not be allocated. */
Datum
native_jsonb_typeof(PG_FUNCTION_ARGS)
{
	static struct
	{
		int32		header;
		char		name[8];
	}			types[] = {
		[MAKO_JSON_NULL] = {0, "null"},[MAKO_JSON_FALSE] = {0, "boolean"},
		[MAKO_JSON_TRUE] = {0, "boolean"},[MAKO_JSON_NUMBER] = {0, "number"},
		[MAKO_JSON_STRING] = {0, "string"},[MAKO_JSON_OBJECT] = {0, "object"},
		[MAKO_JSON_ARRAY] = {0, "array"},
	};
	MakoJsonValue value = ARGUMENT_JSON(0);
	MakoJsonKind kind = value.kind != MAKO_JSON_STORED ? value.kind :
		mako_json_is_object(&value) ? MAKO_JSON_OBJECT : MAKO_JSON_ARRAY;

	if (types[kind].header == 0)
		SET_VARSIZE(&types[kind], VARHDRSZ + strlen(types[kind].name));
	PG_RETURN_POINTER(&types[kind]);
}

/* jsonb_array_length() */
Datum
native_jsonb_array_length(PG_FUNCTION_ARGS)
{
	MakoJsonValue value = ARGUMENT_JSON(0);

	if (!mako_json_is_array(&value))
		return jsonb_array_length(fcinfo);
	PG_RETURN_INT32(mako_json_count(&value));
}

/*
 * Returns true if a value has this key, or this string as an element. A string is an array of
 * itself here.
 */
bool
mako_json_has_key(const MakoJsonValue *value, const char *key, uint32 length)
{
	MakoJsonValue field;

	if (mako_json_is_object(value))
		return mako_json_field(value, key, length, &field);
	if (!mako_json_is_array(value))
		return value->kind == MAKO_JSON_STRING &&
			mako_json_compare_keys(value->at.string, value->length, key, length) == 0;
	for (uint32 i = 0; i < mako_json_count(value); i++)
	{
		mako_json_element(value, i, &field);
		if (field.kind == MAKO_JSON_STRING &&
			mako_json_compare_keys(field.at.string, field.length, key, length) == 0)
			return true;
	}
	return false;
}

/* jsonb_exists(). */
Datum
native_jsonb_exists(PG_FUNCTION_ARGS)
{
	MakoJsonValue value = ARGUMENT_JSON(0);
	uint32		length;
	const char *key = mako_json_argument_text(fcinfo, 1, &length);

	PG_RETURN_BOOL(mako_json_has_key(&value, key, length));
}

/* jsonb_exists_any(). */
Datum
native_jsonb_exists_any(PG_FUNCTION_ARGS)
{
	MakoJsonValue value = ARGUMENT_JSON(0);
	const MakoJsonPath *keys = mako_json_argument_path(fcinfo, 1);

	if (!keys->valid)
		return jsonb_exists_any(fcinfo);
	for (int i = 0; i < keys->count; i++)
		if (mako_json_has_key(&value, keys->steps[i].key, keys->steps[i].length))
			PG_RETURN_BOOL(true);
	PG_RETURN_BOOL(false);
}

/* jsonb_exists_all(). */
Datum
native_jsonb_exists_all(PG_FUNCTION_ARGS)
{
	MakoJsonValue value = ARGUMENT_JSON(0);
	const MakoJsonPath *keys = mako_json_argument_path(fcinfo, 1);

	if (!keys->valid)
		return jsonb_exists_all(fcinfo);
	for (int i = 0; i < keys->count; i++)
		if (!mako_json_has_key(&value, keys->steps[i].key, keys->steps[i].length))
			PG_RETURN_BOOL(false);
	PG_RETURN_BOOL(true);
}

/* mako_required() */
Datum
native_mako_required(PG_FUNCTION_ARGS)
{
	if (!PG_ARGISNULL(0) && !PG_ARGISNULL(1))
	{
		MakoJsonValue value = ARGUMENT_JSON(0);

		if (mako_json_follow_path(&value, mako_json_argument_path(fcinfo, 1)) == FOUND)
			RETURN_JSON(&value);
	}
	return mako_required_in_program(fcinfo);
}

/* ---- comparing ------------------------------------------------------------------------------ */

/* A value as a container that the server's functions can walk. */
static JsonbContainer *
container_of(const MakoJsonValue *value)
{
	return value->kind == MAKO_JSON_STORED ? value->at.stored : &mako_json_flatten(value)->root;
}

/* Returns true if two values are equal. */
static bool
equals(const MakoJsonValue *a, const MakoJsonValue *b)
{
	if (mako_json_is_object(a) || mako_json_is_array(a))
	{
		MakoJsonMembers left;
		MakoJsonMembers right;

		if (mako_json_is_object(a) != mako_json_is_object(b) ||
			mako_json_is_array(a) != mako_json_is_array(b) ||
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

			if ((mako_json_is_object(a) &&
				 mako_json_compare_keys(x->key, x->key_length, y->key, y->key_length) != 0) ||
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
			return DatumGetBool(DirectFunctionCall2(numeric_eq, NumericGetDatum(a->at.number),
													NumericGetDatum(b->at.number)));
		default:
			return true;
	}
}

/* jsonb = jsonb */
Datum
native_jsonb_eq(PG_FUNCTION_ARGS)
{
	MakoJsonValue a = ARGUMENT_JSON(0);
	MakoJsonValue b = ARGUMENT_JSON(1);

	PG_RETURN_BOOL(equals(&a, &b));
}

/* jsonb <> jsonb */
Datum
native_jsonb_ne(PG_FUNCTION_ARGS)
{
	MakoJsonValue a = ARGUMENT_JSON(0);
	MakoJsonValue b = ARGUMENT_JSON(1);

	PG_RETURN_BOOL(!equals(&a, &b));
}

/*
 * Returns true if two texts are compared byte by byte, and lie in memory. So do those of most
 * comparisons: with what ->> has made, or with a constant. The server cannot know, and asks
 * collations and compression each time.
 */
static bool
are_plain_texts(FunctionCallInfo fcinfo)
{
	if (PG_GET_COLLATION() != DEFAULT_COLLATION_OID && PG_GET_COLLATION() != C_COLLATION_OID)
		return false;
	for (int i = 0; i < 2; i++)
	{
		struct varlena *text = (struct varlena *) DatumGetPointer(PG_GETARG_DATUM(i));

		if (VARATT_IS_EXTERNAL(text) || VARATT_IS_COMPRESSED(text))
			return false;
	}
	return true;
}

/* Returns true if two such texts are equal. */
static bool
texts_are_equal(FunctionCallInfo fcinfo)
{
	struct varlena *a = (struct varlena *) DatumGetPointer(PG_GETARG_DATUM(0));
	struct varlena *b = (struct varlena *) DatumGetPointer(PG_GETARG_DATUM(1));

	return mako_json_compare_keys(VARDATA_ANY(a), VARSIZE_ANY_EXHDR(a), VARDATA_ANY(b),
								  VARSIZE_ANY_EXHDR(b)) == 0;
}

/* text = text */
Datum
native_texteq(PG_FUNCTION_ARGS)
{
	if (!are_plain_texts(fcinfo))
		return texteq(fcinfo);
	PG_RETURN_BOOL(texts_are_equal(fcinfo));
}

/* text <> text */
Datum
native_textne(PG_FUNCTION_ARGS)
{
	if (!are_plain_texts(fcinfo))
		return textne(fcinfo);
	PG_RETURN_BOOL(!texts_are_equal(fcinfo));
}

/* Returns true if a value contains another. */
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
Datum
native_jsonb_contains(PG_FUNCTION_ARGS)
{
	MakoJsonValue value = ARGUMENT_JSON(0);
	MakoJsonValue part = ARGUMENT_JSON(1);

	PG_RETURN_BOOL(contains(&value, &part));
}

/* jsonb <@ jsonb */
Datum
native_jsonb_contained(PG_FUNCTION_ARGS)
{
	MakoJsonValue part = ARGUMENT_JSON(0);
	MakoJsonValue value = ARGUMENT_JSON(1);

	PG_RETURN_BOOL(contains(&value, &part));
}

/* ---- casts ---------------------------------------------------------------------------------- */

/* A cast from number: anything else is the server's, error or null. */
#define NATIVE_CAST(server_function, numeric_function) \
Datum \
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
Datum
native_jsonb_numeric(PG_FUNCTION_ARGS)
{
	MakoJsonValue value = ARGUMENT_JSON(0);

	if (value.kind != MAKO_JSON_NUMBER)
		return jsonb_numeric(fcinfo);
	PG_RETURN_NUMERIC(value.at.number);
}

/* jsonb::boolean */
Datum
native_jsonb_bool(PG_FUNCTION_ARGS)
{
	MakoJsonValue value = ARGUMENT_JSON(0);

	if (value.kind != MAKO_JSON_TRUE && value.kind != MAKO_JSON_FALSE)
		return jsonb_bool(fcinfo);
	PG_RETURN_BOOL(value.kind == MAKO_JSON_TRUE);
}

/* jsonb::text, which is done by the type's output function */
Datum
native_jsonb_out(PG_FUNCTION_ARGS)
{
	MakoJsonValue value = ARGUMENT_JSON(0);

	PG_RETURN_CSTRING(JsonbToCString(NULL, container_of(&value), 0));
}
