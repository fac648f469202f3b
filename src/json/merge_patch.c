/*
 * merge_patch.c
 *	  What has changed from one JSON document to another, as a JSON merge patch (RFC 7396). Pure:
 *	  knows of jsonb only.
 *
 * Members that are gone are null in the patch, members that are new or different have their new
 * value, objects on both sides are compared member by member, and everything else, arrays too, is
 * replaced as a whole. Since null means gone, RFC 7396 cannot express a member that is set to
 * null. Such a member stands in the patch as null, like one that is gone: a reader sees that it
 * has changed, and a program that applies the patch gets the new document without that member.
 *
 * The patch is made in the current memory context.
 */
#include "json/json.h"

#include "miscadmin.h"
#include "utils/fmgrprotos.h"

/* The members of an object, one after the other in jsonb's order of keys. */
typedef struct Members
{
	JsonbIterator *iterator;
	JsonbValue	key;
	JsonbValue	value;
	bool		at_end;
} Members;

/* Takes the next member. */
static void
next_member(Members *members)
{
	members->at_end = JsonbIteratorNext(&members->iterator, &members->key, true) != WJB_KEY;
	if (!members->at_end)
		(void) JsonbIteratorNext(&members->iterator, &members->value, true);
}

/* The first member of an object. */
static Members
first_member(JsonbContainer *object)
{
	Members		members = {JsonbIteratorInit(object)};

	(void) JsonbIteratorNext(&members.iterator, &members.key, true);	/* WJB_BEGIN_OBJECT */
	next_member(&members);
	return members;
}

/* Compares keys in the order in which they stand in a jsonb: by length, then by bytes. */
static int
compare_keys(const JsonbValue *a, const JsonbValue *b)
{
	if (a->val.string.len != b->val.string.len)
		return a->val.string.len < b->val.string.len ? -1 : 1;
	return memcmp(a->val.string.val, b->val.string.val, a->val.string.len);
}

/*
 * Which members stand at the same place: less than 0, the first one has no counterpart; more than
 * 0, the second one has none.
 */
static int
compare_patch_members(const Members *a, const Members *b)
{
	if (a->at_end || b->at_end)
		return (int) a->at_end - (int) b->at_end;
	return compare_keys(&a->key, &b->key);
}

/* Returns true if a value is an object. */
static bool
is_object(const JsonbValue *value)
{
	return value->type == jbvBinary && JsonContainerIsObject(value->val.binary.data);
}

/* Returns true if two values are equal, as jsonb compares them. */
static bool
values_equal(JsonbValue *a, JsonbValue *b)
{
	if (a->type != b->type)
		return false;
	switch (a->type)
	{
		case jbvNull:
			return true;
		case jbvBool:
			return a->val.boolean == b->val.boolean;
		case jbvString:
			return compare_keys(a, b) == 0;
		case jbvNumeric:
			return DatumGetBool(DirectFunctionCall2(numeric_eq, NumericGetDatum(a->val.numeric),
													NumericGetDatum(b->val.numeric)));
		default:
			return compareJsonbContainers(a->val.binary.data, b->val.binary.data) == 0;
	}
}

/* Adds what leads from one object to another. */
static JsonbValue *
push_changes(JsonbParseState **state, JsonbContainer *source, JsonbContainer *target)
{
	JsonbValue	null_value = {.type = jbvNull};
	Members		before = first_member(source);
	Members		after = first_member(target);

	check_stack_depth();
	(void) pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	while (!before.at_end || !after.at_end)
	{
		int			order = compare_patch_members(&before, &after);

		CHECK_FOR_INTERRUPTS();
		if (order < 0)
		{
			(void) pushJsonbValue(state, WJB_KEY, &before.key);
			(void) pushJsonbValue(state, WJB_VALUE, &null_value);
		}
		else if (order > 0 || !values_equal(&before.value, &after.value))
		{
			(void) pushJsonbValue(state, WJB_KEY, &after.key);
			if (order == 0 && is_object(&before.value) && is_object(&after.value))
				(void) push_changes(state, before.value.val.binary.data,
									after.value.val.binary.data);
			else
				(void) pushJsonbValue(state, WJB_VALUE, &after.value);
		}
		if (order <= 0)
			next_member(&before);
		if (order >= 0)
			next_member(&after);
	}
	return pushJsonbValue(state, WJB_END_OBJECT, NULL);
}

/*
 * The patch that leads from one document to another; the other one itself where they are not both
 * objects.
 */
Jsonb *
mako_merge_patch_between(Jsonb *source, Jsonb *target)
{
	JsonbParseState *state = NULL;

	if (!JB_ROOT_IS_OBJECT(source) || !JB_ROOT_IS_OBJECT(target))
		return target;
	return JsonbValueToJsonb(push_changes(&state, &source->root, &target->root));
}

MAKO_FUNCTION(mako_merge_patch);

/* The JSON merge patch that leads from one document to another. */
Datum
mako_merge_patch(PG_FUNCTION_ARGS)
{
	PG_RETURN_JSONB_P(mako_merge_patch_between(PG_GETARG_JSONB_P(0), PG_GETARG_JSONB_P(1)));
}
