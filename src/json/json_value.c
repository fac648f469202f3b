/*
 * json_value.c
 *	  The expanded JSON value: reading one from a jsonb, looking into it, building trees, and
 *	  making a jsonb of it again.
 *
 * Pure: nothing here knows of expressions or functions. Whatever is made lives in the current
 * memory context, which for a fold is that of the stream; a box may live longer than the value in
 * it. Nothing is built lazily but the flat size, which is a number: so a consumer that flattens a
 * value, in whichever memory context, leaves nothing behind in it.
 */
#include "json/json.h"

#include "miscadmin.h"

/* From this many members on, a binary search beats a walk over the keys. */
#define MANY_MEMBERS 24

static Size flat_size(ExpandedObjectHeader *header);
static void flatten_into(ExpandedObjectHeader *header, void *result, Size size);

const ExpandedObjectMethods mako_json_methods = {flat_size, flatten_into};

/* ---- from the format of jsonb --------------------------------------------------------------- */

/* Where the data of a container begin: after its entries. */
static inline const char *
data_of(const JsonbContainer *container)
{
	uint32		entries = JsonContainerSize(container);

	return (const char *) &container->children[JsonContainerIsObject(container) ?
											   2 * entries : entries];
}

/* Where the data of the entry after an entry begin, which itself begins at an offset. */
static inline uint32
entry_end(JEntry entry, uint32 offset)
{
	return JBE_HAS_OFF(entry) ? JBE_OFFLENFLD(entry) : offset + JBE_OFFLENFLD(entry);
}

/* Where the data of an entry begin. */
static uint32
entry_offset(const JsonbContainer *container, uint32 index)
{
	uint32		offset = 0;

	while (index > 0)
	{
		JEntry		entry = container->children[--index];

		offset += JBE_OFFLENFLD(entry);
		if (JBE_HAS_OFF(entry))
			break;
	}
	return offset;
}

#define BOTH(bits) ((uint64) (bits) << 32 | (bits))

/*
 * Adds up the lengths of some entries, two at a time. Returns false where one of them has its end
 * offset in the place of a length, which of the first 32 entries only the very first one does,
 * whose end is its length.
 */
static inline bool
add_lengths(const JEntry *entries, uint32 from, uint32 to, uint32 *sum)
{
	uint64		lengths = 0;
	uint64		seen = 0;
	uint32		i = from;

	if (i == 0 && i < to)
		*sum += JBE_OFFLENFLD(entries[i++]);
	for (; i + 1 < to; i += 2)
	{
		uint64		two;

		memcpy(&two, &entries[i], sizeof(two));
		lengths += two & BOTH(JENTRY_OFFLENMASK);
		seen |= two;
	}
	if (i < to)
	{
		lengths += JBE_OFFLENFLD(entries[i]);
		seen |= entries[i];
	}
	*sum += (uint32) lengths + (uint32) (lengths >> 32);
	return (seen & BOTH(JENTRY_HAS_OFF)) == 0;
}

/* Sets a value to a string. */
void
mako_json_set_string(MakoJsonValue *value, const char *string, uint32 length)
{
	value->kind = MAKO_JSON_STRING;
	value->length = length;
	value->at.string = string;
}

/* Sets a value to the one of an entry, whose data lie between two offsets. */
static inline void
set_from_entry(MakoJsonValue *value, JEntry entry, const char *data, uint32 offset, uint32 end)
{
	switch (entry & JENTRY_TYPEMASK)
	{
		case JENTRY_ISSTRING:
			mako_json_set_string(value, data + offset, end - offset);
			break;
		case JENTRY_ISNUMERIC:
			value->kind = MAKO_JSON_NUMBER;
			value->at.number = (Numeric) (data + INTALIGN(offset));
			break;
		case JENTRY_ISBOOL_FALSE:
			value->kind = MAKO_JSON_FALSE;
			break;
		case JENTRY_ISBOOL_TRUE:
			value->kind = MAKO_JSON_TRUE;
			break;
		case JENTRY_ISNULL:
			value->kind = MAKO_JSON_NULL;
			break;
		default:
			value->kind = MAKO_JSON_STORED;
			value->length = end - INTALIGN(offset);
			value->at.stored = (JsonbContainer *) (data + INTALIGN(offset));
			break;
	}
}

/* Sets a value to the one of the entry of this number. */
static inline void
set_from_index(MakoJsonValue *value, const JsonbContainer *container,
			   const char *data, uint32 index)
{
	JEntry		entry = container->children[index];
	uint32		offset = entry_offset(container, index);

	set_from_entry(value, entry, data, offset, entry_end(entry, offset));
}

/*
 * The value of a jsonb datum that takes more than a look: toasted, a scalar, or expanded by other
 * code.
 */
void
mako_json_read_any(Datum datum, MakoJsonValue *value)
{
	Jsonb	   *jsonb = VARATT_IS_EXTENDED(DatumGetPointer(datum)) ? DatumGetJsonbP(datum) :
		(Jsonb *) DatumGetPointer(datum);

	if (JB_ROOT_IS_SCALAR(jsonb))
		set_from_index(value, &jsonb->root, data_of(&jsonb->root), 0);
	else
	{
		value->kind = MAKO_JSON_STORED;
		value->length = VARSIZE(jsonb) - VARHDRSZ;
		value->at.stored = &jsonb->root;
	}
}

/* ---- looking into containers ---------------------------------------------------------------- */

/* How many members or elements a container has. */
uint32
mako_json_count(const MakoJsonValue *value)
{
	return value->kind == MAKO_JSON_STORED ? JsonContainerSize(value->at.stored) :
		value->at.tree->count;
}

/* Finds the number of a key in a stored object of few members. */
static bool
find_in_few(const JsonbContainer *container, const char *data, const char *key, uint32 length,
			uint32 *index)
{
	uint32		count = JsonContainerSize(container);
	const JEntry *entries = container->children;
	uint32		offset = 0;

	/*
	 * Keys have lengths in all entries: the first one's end is its length, and the next end would
	 * come after the last key.
	 */
	for (uint32 i = 0; i < count; i++)
	{
		uint32		key_length = JBE_OFFLENFLD(entries[i]);

		if (key_length > length)
			return false;
		if (key_length == length && mako_json_same_bytes(data + offset, key, length))
		{
			*index = i;
			return true;
		}
		offset += key_length;
	}
	return false;
}

/* The same for many members. */
static bool
find_in_many(const JsonbContainer *container, const char *data, const char *key,
			 uint32 length, uint32 *index)
{
	uint32		count = JsonContainerSize(container);
	uint32		low = 0;
	uint32		high = count;

	while (low < high)
	{
		uint32		middle = low + (high - low) / 2;
		uint32		offset = entry_offset(container, middle);
		int			order = mako_json_compare_keys(data + offset,
												   entry_end(container->children[middle], offset) -
												   offset, key, length);

		if (order == 0)
		{
			*index = middle;
			return true;
		}
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return false;
}

/* The number of a key in a tree, or -1. */
static int
find_member(const MakoJson *tree, const char *key, uint32 length)
{
	int			low = 0;
	int			high = (int) tree->count;

	if (high < MANY_MEMBERS)
	{
		for (int i = 0; i < high; i++)
		{
			const MakoJsonMember *member = &tree->members[i];

			if (member->key_length > length)
				return -1;
			if (member->key_length == length && mako_json_same_bytes(member->key, key, length))
				return i;
		}
		return -1;
	}
	while (low < high)
	{
		int			middle = low + (high - low) / 2;
		int			order = mako_json_compare_keys(tree->members[middle].key,
												   tree->members[middle].key_length, key, length);

		if (order == 0)
			return middle;
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return -1;
}

/* The number of a key in a stored object, or -1. */
static int64
find_stored(const JsonbContainer *container, const char *data, const char *key, uint32 length)
{
	uint32		index;

	return (JsonContainerSize(container) < MANY_MEMBERS ? find_in_few :
			find_in_many) (container, data, key, length, &index) ?
		(int64) index : -1;
}

/* The number of the member of an object that has a key, or -1. */
int64
mako_json_member(const MakoJsonValue *object, const char *key, uint32 length)
{
	return object->kind == MAKO_JSON_STORED ?
		find_stored(object->at.stored, data_of(object->at.stored), key, length) :
		find_member(object->at.tree, key, length);
}

/* The value of a key of an object; false when it has none. */
bool
mako_json_field(const MakoJsonValue *object, const char *key, uint32 length, MakoJsonValue *field)
{
	uint32		number = UINT32_MAX;

	return mako_json_field_near(object, key, length, field, &number);
}

/*
 * Finds a field by the number of its member in a stored object; false when it is another one, or
 * too far away.
 */
static inline bool
guess_field(const JsonbContainer *container, const char *data, const char *key, uint32 length,
			MakoJsonValue *field, uint32 number)
{
	uint32		count = JsonContainerSize(container);
	const JEntry *entries = container->children;
	uint32		offset = 0;

	if (number >= count || number > JB_OFFSET_STRIDE || !add_lengths(entries, 0, number, &offset) ||
		entry_end(entries[number], offset) != offset + length ||
		!mako_json_same_bytes(data + offset, key, length))
		return false;
	if (count + number <= JB_OFFSET_STRIDE && add_lengths(entries, number, count + number, &offset))
		set_from_entry(field, entries[count + number], data, offset,
					   entry_end(entries[count + number], offset));
	else
		set_from_index(field, container, data, count + number);
	return true;
}

/* Finds a field where no guess helps; leaves the number of its member behind. */
static pg_noinline bool
find_field(const MakoJsonValue *object, const char *key, uint32 length, MakoJsonValue *field,
		   uint32 *number)
{
	const JsonbContainer *container = object->at.stored;
	int64		index = mako_json_member(object, key, length);

	if (index < 0)
		return false;
	if (object->kind == MAKO_JSON_STORED)
		set_from_index(field, container, data_of(container),
					   JsonContainerSize(container) + (uint32) index);
	else
		*field = object->at.tree->members[index].value;
	*number = (uint32) index;
	return true;
}

/*
 * The value of a key of an object; false when it has none. The number of the member is tried
 * first, and left behind for the next object, in which it is often the same.
 */
bool
mako_json_field_near(const MakoJsonValue *object, const char *key, uint32 length,
					 MakoJsonValue *field, uint32 *number)
{
	if (object->kind == MAKO_JSON_STORED)
	{
		if (guess_field(object->at.stored, data_of(object->at.stored), key, length, field, *number))
			return true;
	}
	else if (*number < object->at.tree->count)
	{
		const MakoJsonMember *member = &object->at.tree->members[*number];

		if (member->key_length == length && mako_json_same_bytes(member->key, key, length))
		{
			*field = member->value;
			return true;
		}
	}
	return find_field(object, key, length, field, number);
}

/* An element of an array, which must have it. */
void
mako_json_element(const MakoJsonValue *array, uint32 index, MakoJsonValue *element)
{
	Assert(index < mako_json_count(array));
	if (array->kind == MAKO_JSON_STORED)
		set_from_index(element, array->at.stored, data_of(array->at.stored), index);
	else
		*element = array->at.tree->members[index].value;
}

/* All members of an object, or elements of an array, in order. */
MakoJsonMembers
mako_json_members(const MakoJsonValue *container)
{
	MakoJsonMembers result;
	MakoJsonMember *members;
	const JsonbContainer *stored;
	const char *data;
	const JEntry *entries;
	uint32		offset = 0;

	if (container->kind != MAKO_JSON_STORED)
	{
		result.members = container->at.tree->members;
		result.count = container->at.tree->count;
		return result;
	}
	stored = container->at.stored;
	data = data_of(stored);
	entries = stored->children;
	result.count = JsonContainerSize(stored);
	result.members = members = palloc(sizeof(MakoJsonMember) * result.count);
	if (JsonContainerIsObject(stored))
	{
		for (uint32 i = 0; i < result.count; i++)
		{
			uint32		end = entry_end(entries[i], offset);

			members[i].key = data + offset;
			members[i].key_length = end - offset;
			offset = end;
		}
		entries += result.count;
	}
	for (uint32 i = 0; i < result.count; i++)
	{
		uint32		end = entry_end(entries[i], offset);

		set_from_entry(&members[i].value, entries[i], data, offset, end);
		offset = end;
	}
	return result;
}

/* ---- making values -------------------------------------------------------------------------- */

/* A value as a datum, without room for members. */
static MakoJson *
new_header(uint32 capacity)
{
	MakoJson   *json = palloc(offsetof(MakoJson, members) + sizeof(MakoJsonMember) * capacity);

	EOH_init_header(&json->header, &mako_json_methods, CurrentMemoryContext);
	json->count = 0;
	json->flat_size = 0;
	return json;
}

/*
 * A new, empty object or array with room for so many members; it must not change any more once it
 * was handed out.
 */
MakoJson *
mako_json_new(MakoJsonKind kind, uint32 capacity)
{
	MakoJson   *tree = new_header(capacity);

	tree->value.kind = kind;
	tree->value.at.tree = tree;
	return tree;
}

/*
 * Puts a member in its place in an object, which must have room; in the place of one of the same
 * key if there is one.
 */
void
mako_json_put(MakoJson *object, const MakoJsonMember *member)
{
	uint32		place = object->count;

	while (place > 0)
	{
		const MakoJsonMember *before = &object->members[place - 1];
		int			order = mako_json_compare_keys(before->key, before->key_length, member->key,
												   member->key_length);

		if (order == 0)
		{
			object->members[place - 1].value = member->value;
			return;
		}
		if (order < 0)
			break;
		place--;
	}
	memmove(&object->members[place + 1], &object->members[place],
			sizeof(MakoJsonMember) * (object->count - place));
	object->members[place] = *member;
	object->count++;
}

/* A value as a jsonb datum. */
Datum
mako_json_datum(const MakoJsonValue *value)
{
	return value->kind == MAKO_JSON_OBJECT || value->kind == MAKO_JSON_ARRAY ?
		EOHPGetRODatum(&value->at.tree->header) : mako_json_put_into(mako_json_box(), value);
}

/* A box for any value but a tree, which is a datum itself. */
MakoJson *
mako_json_box(void)
{
	return new_header(0);
}

/*
 * A value as a jsonb datum in a box, which the owner of the box uses again when the datum is not
 * needed any more.
 */
Datum
mako_json_put_into(MakoJson *box, const MakoJsonValue *value)
{
	if (value->kind == MAKO_JSON_OBJECT || value->kind == MAKO_JSON_ARRAY)
		return EOHPGetRODatum(&value->at.tree->header);
	box->flat_size = 0;
	box->value = *value;
	return EOHPGetRODatum(&box->header);
}

/* ---- to the format of jsonb ----------------------------------------------------------------- */

/*
 * One function measures and writes: offsets count from the start of the jsonb, and nothing is
 * written where base is NULL. The bytes are those that the server's own serialization makes:
 * padding before numbers and containers, and every JB_OFFSET_STRIDEth entry with its end offset in
 * the place of its length.
 */
static Size put_tree(char *base, Size offset, const MakoJson *tree);

/* Pads up to the alignment of numbers and containers. */
static inline Size
put_padding(char *base, Size offset)
{
	Size		aligned = INTALIGN(offset);

	if (base != NULL && aligned > offset)
		memset(base + offset, 0, aligned - offset);
	return aligned;
}

/* Puts bytes. */
static inline Size
put_bytes(char *base, Size offset, const void *bytes, Size length)
{
	if (base != NULL)
		memcpy(base + offset, bytes, length);
	return offset + length;
}

/* Puts a value's data; returns their end, and what kind of entry they need. */
static Size
put_value(char *base, Size offset, const MakoJsonValue *value, uint32 *entry_type)
{
	switch (value->kind)
	{
		case MAKO_JSON_NULL:
			*entry_type = JENTRY_ISNULL;
			break;
		case MAKO_JSON_FALSE:
			*entry_type = JENTRY_ISBOOL_FALSE;
			break;
		case MAKO_JSON_TRUE:
			*entry_type = JENTRY_ISBOOL_TRUE;
			break;
		case MAKO_JSON_NUMBER:
			*entry_type = JENTRY_ISNUMERIC;
			offset = put_padding(base, offset);
			offset = put_bytes(base, offset, value->at.number, VARSIZE_ANY(value->at.number));
			break;
		case MAKO_JSON_STRING:
			*entry_type = JENTRY_ISSTRING;
			offset = put_bytes(base, offset, value->at.string, value->length);
			break;
		case MAKO_JSON_STORED:
			*entry_type = JENTRY_ISCONTAINER;
			offset = put_padding(base, offset);
			offset = put_bytes(base, offset, value->at.stored, value->length);
			break;
		case MAKO_JSON_OBJECT:
		case MAKO_JSON_ARRAY:
			*entry_type = JENTRY_ISCONTAINER;
			offset = put_padding(base, offset);
			offset = put_tree(base, offset, value->at.tree);
			break;
	}
	return offset;
}

/* Puts the entry of this number, whose data lie between two offsets after the start of all data. */
static inline void
put_entry(char *base, JEntry *entries, uint32 index, uint32 type, Size start, Size end)
{
	if (end > JENTRY_OFFLENMASK)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("total size of jsonb object elements exceeds the maximum of %d bytes",
						JENTRY_OFFLENMASK)));
	if (base != NULL)
		entries[index] = type | (index % JB_OFFSET_STRIDE == 0 ? end | JENTRY_HAS_OFF :
								 end - start);
}

/* Puts an object or array. */
static Size
put_tree(char *base, Size offset, const MakoJson *tree)
{
	bool		is_object = tree->value.kind == MAKO_JSON_OBJECT;
	JEntry	   *entries = base == NULL ? NULL : (JEntry *) (base + offset + sizeof(uint32));
	uint32		index = 0;
	Size		data = offset + sizeof(uint32) + sizeof(JEntry) * tree->count * (is_object ? 2 : 1);
	Size		end = data;

	check_stack_depth();
	if (base != NULL)
		*(uint32 *) (base + offset) = tree->count | (is_object ? JB_FOBJECT : JB_FARRAY);
	for (uint32 i = 0; is_object && i < tree->count; i++)
	{
		Size		start = end;

		end = put_bytes(base, start, tree->members[i].key, tree->members[i].key_length);
		put_entry(base, entries, index++, JENTRY_ISSTRING, start - data, end - data);
	}
	for (uint32 i = 0; i < tree->count; i++)
	{
		Size		start = end;
		uint32		type;

		end = put_value(base, start, &tree->members[i].value, &type);
		put_entry(base, entries, index++, type, start - data, end - data);
	}
	return end;
}

/* Puts a whole jsonb; returns its size. */
static Size
put_jsonb(char *base, const MakoJsonValue *value)
{
	Size		size;

	switch (value->kind)
	{
		case MAKO_JSON_OBJECT:
		case MAKO_JSON_ARRAY:
			size = put_tree(base, VARHDRSZ, value->at.tree);
			break;
		case MAKO_JSON_STORED:
			size = put_bytes(base, VARHDRSZ, value->at.stored, value->length);
			break;
		default:
			{
				/* A scalar is the only element of an array that is none. */
				Size		data = VARHDRSZ + sizeof(uint32) + sizeof(JEntry);
				uint32		type;

				size = put_value(base, data, value, &type);
				if (base != NULL)
					*(uint32 *) (base + VARHDRSZ) = 1 | JB_FARRAY | JB_FSCALAR;
				put_entry(base, base == NULL ? NULL : (JEntry *) (base + VARHDRSZ + sizeof(uint32)),
						  0, type, 0, size - data);
			}
	}
	if (base != NULL)
		SET_VARSIZE(base, size);
	return size;
}

/* The size of the flat form; a method of expanded objects. */
static Size
flat_size(ExpandedObjectHeader *header)
{
	MakoJson   *json = (MakoJson *) header;

	if (json->flat_size == 0)
		json->flat_size = put_jsonb(NULL, &json->value);
	return json->flat_size;
}

/* Writes the flat form; a method of expanded objects. */
static void
flatten_into(ExpandedObjectHeader *header, void *result, Size size)
{
	(void) put_jsonb(result, &((MakoJson *) header)->value);
}

/* A value as a flat jsonb in the current memory context. */
Jsonb *
mako_json_flatten(const MakoJsonValue *value)
{
	char	   *jsonb = palloc(put_jsonb(NULL, value));

	(void) put_jsonb(jsonb, value);
	return (Jsonb *) jsonb;
}
