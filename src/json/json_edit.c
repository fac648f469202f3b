/*
 * json_edit.c
 *	  Drop-ins for the jsonb functions that change values: ||, -, #-, jsonb_set(), jsonb_insert(),
 *	  jsonb_strip_nulls().
 *
 * A value that was handed out never changes: what is edited is a copy of the container, and of
 * those around it, which share whatever stays as it is.
 */
#include "json/drop_in.h"

#include "miscadmin.h"

/* A copy of a container's tree with room for some more members. */
static MakoJson *
copy_tree(const MakoJsonValue *value, uint32 more)
{
	MakoJsonMembers members = mako_json_members(value);
	MakoJson   *tree = mako_json_new(mako_json_is_object(value) ? MAKO_JSON_OBJECT :
									 MAKO_JSON_ARRAY, members.count + more);

	memcpy(tree->members, members.members, sizeof(MakoJsonMember) * members.count);
	tree->count = members.count;
	return tree;
}

/* Removes a member of a tree that no other code has seen. */
static void
remove_member(MakoJson *tree, uint32 index)
{
	tree->count--;
	memmove(&tree->members[index], &tree->members[index + 1],
			sizeof(MakoJsonMember) * (tree->count - index));
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
Datum
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

/* A copy of an object without one of its members. */
static MakoJson *
copy_without(const MakoJsonValue *object, uint32 index)
{
	MakoJsonMembers members = mako_json_members(object);
	MakoJson   *tree = mako_json_new(MAKO_JSON_OBJECT, members.count - 1);

	memcpy(tree->members, members.members, sizeof(MakoJsonMember) * index);
	memcpy(&tree->members[index], &members.members[index + 1],
		   sizeof(MakoJsonMember) * (members.count - 1 - index));
	tree->count = members.count - 1;
	return tree;
}

/*
 * Removes the members of these keys, or the strings that are elements of an array; false where
 * that cannot be.
 */
static bool
remove_keys(MakoJsonValue *value, const MakoJsonStep *keys, int count)
{
	MakoJson   *tree = NULL;

	if (mako_json_is_object(value))
	{
		for (int i = 0; i < count; i++)
		{
			int64		index = mako_json_member(value, keys[i].key, keys[i].length);

			if (index < 0)
				continue;
			if (tree == NULL)
				tree = copy_without(value, index);
			else
				remove_member(tree, index);
			*value = tree->value;
		}
		return true;
	}
	if (!mako_json_is_array(value))
		return false;
	for (int i = 0; i < count; i++)
	{
		/* Nothing is copied unless something is to go. */
		if (!mako_json_has_key(tree == NULL ? value : &tree->value, keys[i].key, keys[i].length))
			continue;
		if (tree == NULL)
			tree = copy_tree(value, 0);
		for (uint32 j = tree->count; j-- > 0;)
		{
			const MakoJsonValue *element = &tree->members[j].value;

			if (element->kind == MAKO_JSON_STRING &&
				mako_json_compare_keys(element->at.string, element->length, keys[i].key,
									   keys[i].length) == 0)
				remove_member(tree, j);
		}
	}
	if (tree != NULL)
		*value = tree->value;
	return true;
}

/* jsonb - text */
Datum
native_jsonb_delete(PG_FUNCTION_ARGS)
{
	MakoJsonValue value = ARGUMENT_JSON(0);
	MakoJsonStep key = {NULL};

	key.key = mako_json_argument_text(fcinfo, 1, &key.length);
	if (!remove_keys(&value, &key, 1))
		return jsonb_delete(fcinfo);
	RETURN_JSON(&value);
}

/* jsonb - text[] */
Datum
native_jsonb_delete_array(PG_FUNCTION_ARGS)
{
	MakoJsonValue value = ARGUMENT_JSON(0);
	const MakoJsonPath *keys = mako_json_argument_path(fcinfo, 1);

	if (!keys->valid || !remove_keys(&value, keys->steps, keys->count))
		return jsonb_delete_array(fcinfo);
	RETURN_JSON(&value);
}

/* jsonb - integer */
Datum
native_jsonb_delete_idx(PG_FUNCTION_ARGS)
{
	MakoJsonValue value = ARGUMENT_JSON(0);
	int64		index;
	MakoJson   *array;

	if (!mako_json_is_array(&value))
		return jsonb_delete_idx(fcinfo);
	index = mako_json_element_number(PG_GETARG_INT32(1), mako_json_count(&value));
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

/*
 * Does an edit at the end of a path, in a copy of the object; false where the server is to see to
 * it.
 */
static bool
edit_object(MakoJsonValue *value, const MakoJsonStep *step, Edit edit,
			const MakoJsonValue *new_value)
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
	mako_json_put(object, &member);
	*value = object->value;
	return true;
}

/* The same in a copy of the array, for an element that is there. */
static bool
edit_array(MakoJsonValue *value, const MakoJsonStep *step, Edit edit,
		   const MakoJsonValue *new_value)
{
	int64		index = step->is_number ?
		mako_json_element_number(step->number, mako_json_count(value)) : -1;
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
			memmove(&array->members[index + 1], &array->members[index],
					sizeof(MakoJsonMember) * (array->count - index));
			array->count++;
			/* FALLTHROUGH */
		default:
			array->members[index].value = *new_value;
	}
	*value = array->value;
	return true;
}

/*
 * Edits a value at a path, in copies of the containers along it; false where the server is to see
 * to it.
 */
static bool
edit_path(MakoJsonValue *value, const MakoJsonStep *steps, int count, Edit edit,
		  const MakoJsonValue *new_value)
{
	MakoJsonValue next;
	bool		is_object = mako_json_is_object(value);

	check_stack_depth();
	if (!is_object && !mako_json_is_array(value))
		return true;			/* no way into a scalar */
	if (count == 1)
		return is_object ? edit_object(value, steps, edit, new_value) :
			edit_array(value, steps, edit, new_value);
	switch (mako_json_take_step(value, steps, &next))
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
edit_argument(FunctionCallInfo fcinfo, MakoJsonValue *value, Edit edit,
			  const MakoJsonValue *new_value)
{
	const MakoJsonPath *path = mako_json_argument_path(fcinfo, 1);

	*value = ARGUMENT_JSON(0);
	return path->valid && path->count > 0 &&
		(mako_json_is_object(value) || mako_json_is_array(value)) &&
		edit_path(value, path->steps, path->count, edit, new_value);
}

/* jsonb #- text[] */
Datum
native_jsonb_delete_path(PG_FUNCTION_ARGS)
{
	MakoJsonValue value;

	if (!edit_argument(fcinfo, &value, EDIT_DELETE, NULL))
		return jsonb_delete_path(fcinfo);
	RETURN_JSON(&value);
}

/* jsonb_set() */
Datum
native_jsonb_set(PG_FUNCTION_ARGS)
{
	MakoJsonValue new_value = ARGUMENT_JSON(2);
	MakoJsonValue value;

	if (!edit_argument(fcinfo, &value, PG_GETARG_BOOL(3) ? EDIT_REPLACE_OR_CREATE : EDIT_REPLACE,
					   &new_value))
		return jsonb_set(fcinfo);
	RETURN_JSON(&value);
}

/* jsonb_insert() */
Datum
native_jsonb_insert(PG_FUNCTION_ARGS)
{
	MakoJsonValue new_value = ARGUMENT_JSON(2);
	MakoJsonValue value;

	if (!edit_argument(fcinfo, &value, PG_GETARG_BOOL(3) ? EDIT_INSERT_AFTER : EDIT_INSERT_BEFORE,
					   &new_value))
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
Datum
native_jsonb_strip_nulls(PG_FUNCTION_ARGS)
{
	MakoJsonValue value = ARGUMENT_JSON(0);

	if (PG_NARGS() > 1 && PG_GETARG_BOOL(1))
		return jsonb_strip_nulls(fcinfo);	/* from arrays too */
	value = strip_nulls(&value);
	RETURN_JSON(&value);
}
