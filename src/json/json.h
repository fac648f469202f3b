/*
 * json.h
 *	  Room json/: jsonb values without serializing. It knows neither functions of users nor tables.
 *
 *	  json_value.c      a value where it lies: flat, or expanded (MakoJson)
 *	  json_argument.c   how drop-ins read their arguments: texts, paths
 *	  json_read.c, json_build.c, json_edit.c
 *	                    drop-ins for the server's jsonb functions (drop_in.h)
 *	  drop_in_list.c    which functions have a drop-in
 *	  merge_patch.c     the difference of two values (RFC 7396)
 *
 * Nothing changes once it is made. A value points into what it was made of, so it lives as long as
 * that: all of them are in the memory of one stream. What a drop-in caches for a place in an
 * expression lives as long as the expression.
 */
#ifndef MAKO_JSON_H
#define MAKO_JSON_H

#include "util/util.h"

#include "utils/expandeddatum.h"
#include "utils/numeric.h"

/* ---- json_value.c --------------------------------------------------------------------------- */

/*
 * A value is two words: what it is, and where. Scalars and whole stored containers stay where they
 * are, in the bytes of a payload, a state or a constant; an object or array that a function has
 * made is a tree of such values. As a datum, a value travels in a MakoJson, which every function
 * of the server takes for a jsonb: it detoasts it, and gets the flat form.
 */

typedef enum MakoJsonKind
{
	MAKO_JSON_NULL,
	MAKO_JSON_FALSE,
	MAKO_JSON_TRUE,
	MAKO_JSON_NUMBER,
	MAKO_JSON_STRING,
	MAKO_JSON_STORED,			/* an object or array in the format of jsonb */
	MAKO_JSON_OBJECT,			/* a tree, like the next */
	MAKO_JSON_ARRAY,
} MakoJsonKind;

typedef struct MakoJson MakoJson;

/* Points to what must live as long as the value: it is never copied, and never written to. */
typedef struct MakoJsonValue
{
	MakoJsonKind kind;
	uint32		length;			/* bytes of a string or a stored container */
	union
	{
		const char *string;		/* not terminated */
		Numeric		number;
		JsonbContainer *stored;
		const MakoJson *tree;
	}			at;
} MakoJsonValue;

/* A member of an object, or an element of an array, which has no key. */
typedef struct MakoJsonMember
{
	const char *key;
	uint32		key_length;
	MakoJsonValue value;
} MakoJsonMember;

/*
 * Lives in the memory context in which it was made. Only read-only pointers to it are handed out,
 * and it changes no more, unless it is a box: that gets another value when the one before cannot
 * be needed any more (mako_json_put_into()).
 */
struct MakoJson
{
	ExpandedObjectHeader header;
	uint32		count;			/* of members */
	Size		flat_size;		/* 0: not yet known */
	MakoJsonValue value;		/* of a tree: the tree itself */
	MakoJsonMember members[FLEXIBLE_ARRAY_MEMBER];	/* of objects in the order of jsonb: by
													 * length, then bytes; each key once */
};

/* The members of a container, and how many. */
typedef struct MakoJsonMembers
{
	const MakoJsonMember *members;
	uint32		count;
} MakoJsonMembers;

/*
 * Returns true if so many bytes are the same. Keys are short: a call of memcmp() takes longer than
 * the comparison.
 */
static inline bool
mako_json_same_bytes(const char *a, const char *b, uint32 length)
{
	uint64		x,
				y;
	uint32		z,
				w;

	if (length < sizeof(z))
	{
		while (length > 0 && a[length - 1] == b[length - 1])
			length--;
		return length == 0;
	}
	/* The last ones may be some of those before again. */
	if (length < sizeof(x))
	{
		memcpy(&z, a, sizeof(z));
		memcpy(&w, b, sizeof(w));
		if (z != w)
			return false;
		memcpy(&z, a + length - sizeof(z), sizeof(z));
		memcpy(&w, b + length - sizeof(w), sizeof(w));
		return z == w;
	}
	for (uint32 i = 0; i < length - sizeof(uint64); i += sizeof(uint64))
	{
		memcpy(&x, a + i, sizeof(x));
		memcpy(&y, b + i, sizeof(y));
		if (x != y)
			return false;
	}
	memcpy(&x, a + length - sizeof(x), sizeof(x));
	memcpy(&y, b + length - sizeof(y), sizeof(y));
	return x == y;
}

extern const ExpandedObjectMethods mako_json_methods;
extern void mako_json_read_any(Datum datum, MakoJsonValue *value);
extern Datum mako_json_datum(const MakoJsonValue *value);
extern Jsonb *mako_json_flatten(const MakoJsonValue *value);
extern MakoJson *mako_json_box(void);
extern Datum mako_json_put_into(MakoJson *box, const MakoJsonValue *value);

extern uint32 mako_json_count(const MakoJsonValue *value);
extern int64 mako_json_member(const MakoJsonValue *object, const char *key, uint32 length);
extern bool mako_json_field(const MakoJsonValue *object, const char *key, uint32 length,
							MakoJsonValue *field);
extern bool mako_json_field_near(const MakoJsonValue *object, const char *key, uint32 length,
								 MakoJsonValue *field, uint32 *number);
extern void mako_json_element(const MakoJsonValue *array, uint32 index, MakoJsonValue *element);
extern MakoJsonMembers mako_json_members(const MakoJsonValue *container);

extern MakoJson *mako_json_new(MakoJsonKind kind, uint32 capacity);
extern void mako_json_put(MakoJson *object, const MakoJsonMember *member);
extern void mako_json_set_string(MakoJsonValue *value, const char *string, uint32 length);

/* The value of a jsonb datum: flat, toasted or expanded. */
static inline MakoJsonValue
mako_json_read(Datum datum)
{
	const void *pointer = DatumGetPointer(datum);
	MakoJsonValue value;

	if (VARATT_IS_EXTERNAL_EXPANDED(pointer))
	{
		varatt_expanded expanded;

		memcpy(&expanded, VARDATA_EXTERNAL(pointer), sizeof(expanded));
		if (expanded.eohptr->eoh_methods == &mako_json_methods)
			return ((const MakoJson *) expanded.eohptr)->value;
	}
	if (!VARATT_IS_EXTENDED(pointer) && !JB_ROOT_IS_SCALAR((Jsonb *) pointer))
	{
		value.kind = MAKO_JSON_STORED;
		value.length = VARSIZE(pointer) - VARHDRSZ;
		value.at.stored = &((Jsonb *) pointer)->root;
	}
	else
		mako_json_read_any(datum, &value);
	return value;
}

/* A jsonb datum that is not in a box of another value: the same one, unless it is in one. */
static inline Datum
mako_json_take_out(Datum datum)
{
	MakoJsonValue value;

	if (!VARATT_IS_EXTERNAL_EXPANDED(DatumGetPointer(datum)))
		return datum;
	value = mako_json_read(datum);
	return value.kind == MAKO_JSON_OBJECT || value.kind == MAKO_JSON_ARRAY ? datum :
		mako_json_datum(&value);
}

/* Returns true for an object. */
static inline bool
mako_json_is_object(const MakoJsonValue *value)
{
	return value->kind == MAKO_JSON_OBJECT ||
		(value->kind == MAKO_JSON_STORED && JsonContainerIsObject(value->at.stored));
}

/* Returns true for an array. */
static inline bool
mako_json_is_array(const MakoJsonValue *value)
{
	return value->kind == MAKO_JSON_ARRAY ||
		(value->kind == MAKO_JSON_STORED && JsonContainerIsArray(value->at.stored));
}

/* The order of keys in an object. */
static inline int
mako_json_compare_keys(const char *a, uint32 a_length, const char *b, uint32 b_length)
{
	if (a_length != b_length)
		return a_length < b_length ? -1 : 1;
	return memcmp(a, b, a_length);
}

/* ---- drop_in_list.c, json_argument.c -------------------------------------------------------- */

extern bool mako_json_function_is_native(Oid function);
extern Oid	mako_json_call(const Node *node, List **arguments);
extern bool mako_json_function_is_lookup(Oid function);
extern bool mako_json_function_compares_texts(Oid function, bool *is_negated);
extern bool mako_json_is_field(const Node *node, bool *is_text);
extern PGFunction mako_json_drop_in(PGFunction function);
extern bool mako_json_may_refuse(PGFunction drop_in);
extern text *mako_json_to_text(const MakoJsonValue *value);

/* ---- merge_patch.c -------------------------------------------------------------------------- */

extern Jsonb *mako_merge_patch_between(Jsonb *source, Jsonb *target);

#endif							/* MAKO_JSON_H */
