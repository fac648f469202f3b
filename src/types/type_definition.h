/*
 * type_definition.h
 *	  A compiled JSON Type Definition, and how both of its files walk a jsonb value.
 */
#ifndef MAKO_TYPE_DEFINITION_H
#define MAKO_TYPE_DEFINITION_H

#include "types/types.h"

#include "utils/numeric.h"

/* The eight forms of a schema. */
typedef enum MakoTypeForm
{
	FORM_EMPTY,
	FORM_REF,
	FORM_TYPE,
	FORM_ENUM,
	FORM_ELEMENTS,
	FORM_PROPERTIES,
	FORM_VALUES,
	FORM_DISCRIMINATOR,
} MakoTypeForm;

typedef enum MakoScalarKind
{
	SCALAR_BOOLEAN,
	SCALAR_STRING,
	SCALAR_TIMESTAMP,
	SCALAR_FLOAT,
	SCALAR_INTEGER,
} MakoScalarKind;

/* What the type form allows. */
typedef struct MakoScalarType
{
	const char *name;
	MakoScalarKind kind;
	int64		minimum;		/* of integers */
	int64		maximum;
} MakoScalarType;

typedef struct Schema Schema;

/* A property, a value of an enum, a variant of a mapping or a shared definition. */
typedef struct MakoTypeMember
{
	const char *name;
	int			length;
	bool		required;		/* a property that must be there */
	Schema	   *schema;			/* NULL for a value of an enum */
} MakoTypeMember;

struct Schema
{
	MakoTypeForm form;
	bool		nullable;
	const MakoScalarType *type; /* FORM_TYPE */
	Numeric		minimum;		/* of SCALAR_INTEGER */
	Numeric		maximum;
	Schema	   *child;			/* elements, values, or what a ref refers to */
	MakoTypeMember *members;	/* properties, enum or mapping; in the order of jsonb keys */
	int			count;
	bool		additional;		/* FORM_PROPERTIES: other keys are allowed */
	bool		has_required;	/* FORM_PROPERTIES: keyword "properties" is there */
	MakoTypeMember name;		/* what a ref refers to; the tag of a discriminator */
	text	   *event_type;		/* metadata.event_type of a variant, or NULL */
	int			visit;			/* while compiling: the last walk along refs that came by */
};

struct MakoTypeDefinition
{
	Schema	   *root;
};

/* ---- walking jsonb, whose keys are sorted by length and then by bytes ----------------------- */

/* A walk over consecutive children of a container. */
typedef struct MakoTypeChildren
{
	JsonbContainer *container;
	char	   *base;			/* of their data */
	int			next;
	int			end;
	uint32		offset;
} MakoTypeChildren;

/* The keys of an object, or the elements of an array. */
static inline MakoTypeChildren
first_children(JsonbContainer *container)
{
	int			count = JsonContainerSize(container);
	int			entries = JsonContainerIsObject(container) ? 2 * count : count;
	MakoTypeChildren children = {container, (char *) &container->children[entries], 0, count, 0};

	return children;
}

/* The values of an object. */
static inline MakoTypeChildren
object_values(JsonbContainer *container)
{
	MakoTypeChildren children = first_children(container);

	children.next = children.end;
	children.end *= 2;
	children.offset = getJsonbOffset(container, children.next);
	return children;
}

/* A key of an object. */
typedef struct MakoTypeKey
{
	const char *text;
	int			length;
} MakoTypeKey;

/* The next key, or false at the end. */
static inline bool
next_key(MakoTypeChildren *keys, MakoTypeKey *key)
{
	uint32		start = keys->offset;

	key->text = keys->base + start;
	key->length = 0;
	if (keys->next == keys->end)
		return false;
	JBE_ADVANCE_OFFSET(keys->offset, keys->container->children[keys->next]);
	keys->next++;
	key->length = keys->offset - start;
	return true;
}

/* The next child, or false at the end. A container becomes jbvBinary. */
static inline bool
next_child(MakoTypeChildren *children, JsonbValue *value)
{
	JEntry		entry;
	uint32		start = children->offset;
	uint32		end = start;

	if (children->next == children->end)
		return false;
	entry = children->container->children[children->next++];
	JBE_ADVANCE_OFFSET(end, entry);
	children->offset = end;
	if (JBE_ISSTRING(entry))
	{
		value->type = jbvString;
		value->val.string.val = children->base + start;
		value->val.string.len = end - start;
	}
	else if (JBE_ISNUMERIC(entry))
	{
		value->type = jbvNumeric;
		value->val.numeric = (Numeric) (children->base + INTALIGN(start));
	}
	else if (JBE_ISBOOL(entry))
	{
		value->type = jbvBool;
		value->val.boolean = JBE_ISBOOL_TRUE(entry);
	}
	else if (JBE_ISNULL(entry))
		value->type = jbvNull;
	else
	{
		value->type = jbvBinary;
		value->val.binary.data = (JsonbContainer *) (children->base + INTALIGN(start));
		value->val.binary.len = end - INTALIGN(start);
	}
	return true;
}

/* A whole document as a value. */
static inline JsonbValue
root_value(const Jsonb *document)
{
	JsonbContainer *root = unconstify(JsonbContainer *, &document->root);
	JsonbValue	value;

	if (JsonContainerIsScalar(root))
	{
		MakoTypeChildren children = first_children(root);

		(void) next_child(&children, &value);
	}
	else
	{
		value.type = jbvBinary;
		value.val.binary.data = root;
		value.val.binary.len = VARSIZE(document) - VARHDRSZ;
	}
	return value;
}

static inline bool
is_object(const JsonbValue *value)
{
	return value->type == jbvBinary && JsonContainerIsObject(value->val.binary.data);
}

static inline bool
is_array(const JsonbValue *value)
{
	return value->type == jbvBinary && JsonContainerIsArray(value->val.binary.data);
}

/* The order of jsonb keys: by length, then by bytes. */
static inline int
compare_by_length(const char *a, int a_length, const char *b, int b_length)
{
	if (a_length != b_length)
		return a_length < b_length ? -1 : 1;
	return memcmp(a, b, a_length);
}

/* Finds a member by name in a sorted array. */
static inline const MakoTypeMember *
find_member(const MakoTypeMember *members, int count, const char *name, int length)
{
	int			low = 0;

	while (low < count)
	{
		int			middle = low + (count - low) / 2;
		int			order = compare_by_length(members[middle].name, members[middle].length,
											  name, length);

		if (order == 0)
			return &members[middle];
		if (order < 0)
			low = middle + 1;
		else
			count = middle;
	}
	return NULL;
}

#endif							/* MAKO_TYPE_DEFINITION_H */
