/*
 * type_definition.c
 *	  JSON Type Definition (RFC 8927): compile a definition, check a value, report every error. Pure: no SQL, no transactions.
 *
 * A definition is compiled once into a tree whose property names are sorted as the keys of a jsonb object are, by length and then by
 * bytes. Checking an object is then one walk over both, side by side, without a lookup. Paths are linked frames on the C stack,
 * which cost nothing until an error needs them.
 */
#include "mako_migration.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"

/* The eight forms of a schema. */
typedef enum Form
{
	FORM_EMPTY,
	FORM_REF,
	FORM_TYPE,
	FORM_ENUM,
	FORM_ELEMENTS,
	FORM_PROPERTIES,
	FORM_VALUES,
	FORM_DISCRIMINATOR,
} Form;

typedef enum ScalarKind
{
	SCALAR_BOOLEAN,
	SCALAR_STRING,
	SCALAR_TIMESTAMP,
	SCALAR_FLOAT,
	SCALAR_INTEGER,
} ScalarKind;

/* What the type form allows. */
typedef struct ScalarType
{
	const char *name;
	ScalarKind	kind;
	int64		minimum;		/* of integers */
	int64		maximum;
} ScalarType;

static const ScalarType scalar_types[] = {
	{"boolean", SCALAR_BOOLEAN},
	{"string", SCALAR_STRING},
	{"timestamp", SCALAR_TIMESTAMP},
	{"float32", SCALAR_FLOAT},
	{"float64", SCALAR_FLOAT},
	{"int8", SCALAR_INTEGER, PG_INT8_MIN, PG_INT8_MAX},
	{"uint8", SCALAR_INTEGER, 0, PG_UINT8_MAX},
	{"int16", SCALAR_INTEGER, PG_INT16_MIN, PG_INT16_MAX},
	{"uint16", SCALAR_INTEGER, 0, PG_UINT16_MAX},
	{"int32", SCALAR_INTEGER, PG_INT32_MIN, PG_INT32_MAX},
	{"uint32", SCALAR_INTEGER, 0, PG_UINT32_MAX},
};

typedef struct Schema Schema;

/* A property, a value of an enum, a variant of a mapping or a shared definition. */
typedef struct Member
{
	const char *name;
	int			length;
	bool		required;		/* a property that must be there */
	Schema	   *schema;			/* NULL for a value of an enum */
} Member;

struct Schema
{
	Form		form;
	bool		nullable;
	const ScalarType *type;		/* FORM_TYPE */
	Numeric		minimum;		/* of SCALAR_INTEGER */
	Numeric		maximum;
	Schema	   *child;			/* elements, values, or what a ref refers to */
	Member	   *members;		/* properties, enum or mapping; in the order of jsonb keys */
	int			count;
	bool		additional;		/* FORM_PROPERTIES: other keys are allowed */
	bool		has_required;	/* FORM_PROPERTIES: keyword "properties" is there */
	Member		name;			/* what a ref refers to; the tag of a discriminator */
	text	   *event_type;		/* metadata.event_type of a variant, or NULL */
};

struct MakoTypeDefinition
{
	Schema	   *root;
};

/* ---- walking jsonb ---------------------------------------------------------------------------------------------------------- */

/* A walk over consecutive children of a container. */
typedef struct Children
{
	JsonbContainer *container;
	char	   *base;			/* of their data */
	int			next;
	int			end;
	uint32		offset;
} Children;

/* The keys of an object, or the elements of an array. */
static Children
first_children(JsonbContainer *container)
{
	int			count = JsonContainerSize(container);
	int			entries = JsonContainerIsObject(container) ? 2 * count : count;
	Children	children = {container, (char *) &container->children[entries], 0, count, 0};

	return children;
}

/* The values of an object. */
static Children
object_values(JsonbContainer *container)
{
	Children	children = first_children(container);

	children.next = children.end;
	children.end *= 2;
	children.offset = getJsonbOffset(container, children.next);
	return children;
}

/* The next child, or false at the end. A container becomes jbvBinary. */
static bool
next_child(Children *children, JsonbValue *value)
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
static JsonbValue
root_value(const Jsonb *document)
{
	JsonbContainer *root = unconstify(JsonbContainer *, &document->root);
	JsonbValue	value;

	if (JsonContainerIsScalar(root))
	{
		Children	children = first_children(root);

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
compare_names(const char *a, int a_length, const char *b, int b_length)
{
	if (a_length != b_length)
		return a_length < b_length ? -1 : 1;
	return memcmp(a, b, a_length);
}

/* Finds a member by name in a sorted array. */
static const Member *
find_member(const Member *members, int count, const char *name, int length)
{
	int			low = 0;

	while (low < count)
	{
		int			middle = low + (count - low) / 2;
		int			order = compare_names(members[middle].name, members[middle].length, name, length);

		if (order == 0)
			return &members[middle];
		if (order < 0)
			low = middle + 1;
		else
			count = middle;
	}
	return NULL;
}

/* ---- compiling -------------------------------------------------------------------------------------------------------------- */

/* A definition being compiled. */
typedef struct Compiler
{
	Member	   *definitions;	/* sorted */
	int			count;
} Compiler;

/* Raises that a definition is malformed, and where. */
static void
raise_malformed(const MakoPath *path, const char *keyword, const char *detail)
{
	MakoPath	at = {path, keyword, keyword == NULL ? 0 : strlen(keyword)};

	ereport(ERROR,
			(errcode(ERRCODE_INVALID_JSON_TEXT),
			 errmsg("malformed type definition"),
			 errdetail("At \"%s\": %s", mako_path_to_text(keyword == NULL ? path : &at), detail),
			 errhint("A type definition is a JSON Type Definition (RFC 8927).")));
}

static Schema *compile_schema(Compiler *compiler, const JsonbValue *source, const MakoPath *path);

/* Orders members as jsonb orders keys. */
static int
compare_members(const void *a, const void *b)
{
	const Member *x = a;
	const Member *y = b;

	return compare_names(x->name, x->length, y->name, y->length);
}

/* Copies a name, which must outlive the source. */
static Member
copy_name(const JsonbValue *name)
{
	Member		member = {pnstrdup(name->val.string.val, name->val.string.len), name->val.string.len};

	return member;
}

/* Compiles an object of schemas, such as properties or mapping, and adds its members to an array with room for them. */
static int
compile_members(Compiler *compiler, const JsonbValue *source, const char *keyword, const MakoPath *path, bool required,
				Member **members, int count)
{
	MakoPath	at = {path, keyword, strlen(keyword)};
	Children	names;
	Children	schemas;
	JsonbValue	name;
	JsonbValue	schema;

	if (!is_object(source))
		raise_malformed(&at, NULL, "It is not an object.");
	names = first_children(source->val.binary.data);
	schemas = object_values(source->val.binary.data);
	*members = *members == NULL ? palloc(sizeof(Member) * (names.end + 1)) :
		repalloc(*members, sizeof(Member) * (count + names.end + 1));
	while (next_child(&names, &name) && next_child(&schemas, &schema))
	{
		MakoPath	member_path = {&at, name.val.string.val, name.val.string.len};
		Member	   *member = &(*members)[count++];

		*member = copy_name(&name);
		member->required = required;
		member->schema = compile_schema(compiler, &schema, &member_path);
	}
	return count;
}

/* Compiles the keyword "enum". */
static void
compile_enum(Schema *schema, const JsonbValue *source, const MakoPath *path)
{
	Children	values;
	JsonbValue	value;

	if (!is_array(source) || JsonContainerSize(source->val.binary.data) == 0)
		raise_malformed(path, "enum", "It is not an array with at least one string.");
	values = first_children(source->val.binary.data);
	schema->members = palloc(sizeof(Member) * values.end);
	while (next_child(&values, &value))
	{
		if (value.type != jbvString)
			raise_malformed(path, "enum", "It is not an array of strings.");
		schema->members[schema->count++] = copy_name(&value);
	}
	qsort(schema->members, schema->count, sizeof(Member), compare_members);
	for (int i = 1; i < schema->count; i++)
		if (compare_members(&schema->members[i - 1], &schema->members[i]) == 0)
			raise_malformed(path, "enum", "It has the same string twice.");
}

/* Compiles the keyword "type". */
static void
compile_type(Schema *schema, const JsonbValue *source, const MakoPath *path)
{
	for (size_t i = 0; source->type == jbvString && i < lengthof(scalar_types); i++)
		if (compare_names(scalar_types[i].name, strlen(scalar_types[i].name),
						  source->val.string.val, source->val.string.len) == 0)
			schema->type = &scalar_types[i];
	if (schema->type == NULL)
		raise_malformed(path, "type", "It is not one of the types that the standard knows.");
	schema->minimum = DatumGetNumeric(DirectFunctionCall1(int8_numeric, Int64GetDatum(schema->type->minimum)));
	schema->maximum = DatumGetNumeric(DirectFunctionCall1(int8_numeric, Int64GetDatum(schema->type->maximum)));
}

/* Sorts the properties, and refuses one that is both required and optional. */
static void
finish_properties(Schema *schema, const MakoPath *path)
{
	qsort(schema->members, schema->count, sizeof(Member), compare_members);
	for (int i = 1; i < schema->count; i++)
		if (compare_members(&schema->members[i - 1], &schema->members[i]) == 0)
			raise_malformed(path, "optionalProperties", "A property stands in \"properties\" too.");
}

/* Checks what the standard asks of the variants of a discriminator. */
static void
finish_mapping(Schema *schema, const MakoPath *path)
{
	MakoPath	mapping = {path, "mapping", strlen("mapping")};

	for (int i = 0; i < schema->count; i++)
	{
		const Member *variant = &schema->members[i];
		MakoPath	at = {&mapping, variant->name, variant->length};

		if (variant->schema->form != FORM_PROPERTIES)
			raise_malformed(&at, NULL, "It is not of the properties form.");
		if (variant->schema->nullable)
			raise_malformed(&at, "nullable", "A variant cannot be nullable.");
		if (find_member(variant->schema->members, variant->schema->count, schema->name.name, schema->name.length) != NULL)
			raise_malformed(&at, NULL, "It has the discriminator as a property.");
	}
}

/* Which keywords go together: those that a form needs, and those that it allows besides. */
enum
{
	KEYWORD_REF = 1 << 0,
	KEYWORD_TYPE = 1 << 1,
	KEYWORD_ENUM = 1 << 2,
	KEYWORD_ELEMENTS = 1 << 3,
	KEYWORD_PROPERTIES = 1 << 4,
	KEYWORD_OPTIONAL_PROPERTIES = 1 << 5,
	KEYWORD_ADDITIONAL_PROPERTIES = 1 << 6,
	KEYWORD_VALUES = 1 << 7,
	KEYWORD_DISCRIMINATOR = 1 << 8,
	KEYWORD_MAPPING = 1 << 9,
	KEYWORD_DEFINITIONS = 1 << 10,
	KEYWORD_NULLABLE = 1 << 11,
	KEYWORD_METADATA = 1 << 12,
};

static const struct
{
	const char *name;
	int			bit;
}			keywords[] = {
	{"ref", KEYWORD_REF}, {"type", KEYWORD_TYPE}, {"enum", KEYWORD_ENUM}, {"elements", KEYWORD_ELEMENTS},
	{"properties", KEYWORD_PROPERTIES}, {"optionalProperties", KEYWORD_OPTIONAL_PROPERTIES},
	{"additionalProperties", KEYWORD_ADDITIONAL_PROPERTIES}, {"values", KEYWORD_VALUES},
	{"discriminator", KEYWORD_DISCRIMINATOR}, {"mapping", KEYWORD_MAPPING}, {"definitions", KEYWORD_DEFINITIONS},
	{"nullable", KEYWORD_NULLABLE}, {"metadata", KEYWORD_METADATA},
};

/* The form that a set of keywords makes, or -1. */
static int
form_of(int set)
{
	switch (set & ~(KEYWORD_DEFINITIONS | KEYWORD_NULLABLE | KEYWORD_METADATA))
	{
		case 0:
			return FORM_EMPTY;
		case KEYWORD_REF:
			return FORM_REF;
		case KEYWORD_TYPE:
			return FORM_TYPE;
		case KEYWORD_ENUM:
			return FORM_ENUM;
		case KEYWORD_ELEMENTS:
			return FORM_ELEMENTS;
		case KEYWORD_VALUES:
			return FORM_VALUES;
		case KEYWORD_DISCRIMINATOR | KEYWORD_MAPPING:
			return FORM_DISCRIMINATOR;
		case KEYWORD_PROPERTIES:
		case KEYWORD_OPTIONAL_PROPERTIES:
		case KEYWORD_PROPERTIES | KEYWORD_OPTIONAL_PROPERTIES:
		case KEYWORD_PROPERTIES | KEYWORD_ADDITIONAL_PROPERTIES:
		case KEYWORD_OPTIONAL_PROPERTIES | KEYWORD_ADDITIONAL_PROPERTIES:
		case KEYWORD_PROPERTIES | KEYWORD_OPTIONAL_PROPERTIES | KEYWORD_ADDITIONAL_PROPERTIES:
			return FORM_PROPERTIES;
		default:
			return -1;
	}
}

/* The boolean value of a keyword. */
static bool
compile_boolean(const JsonbValue *source, const char *keyword, const MakoPath *path)
{
	if (source->type != jbvBool)
		raise_malformed(path, keyword, "It is not true or false.");
	return source->val.boolean;
}

/* Reads metadata, of which only event_type means something to us. */
static void
compile_metadata(Schema *schema, const JsonbValue *source, const MakoPath *path)
{
	JsonbValue	value;

	if (!is_object(source))
		raise_malformed(path, "metadata", "It is not an object.");
	if (getKeyJsonValueFromContainer(source->val.binary.data, "event_type", strlen("event_type"), &value) == NULL)
		return;
	if (value.type != jbvString)
		raise_malformed(path, "metadata", "Its event_type is not a string.");
	schema->event_type = cstring_to_text_with_len(value.val.string.val, value.val.string.len);
}

/* Compiles one keyword of a schema. */
static void
compile_keyword(Compiler *compiler, Schema *schema, int keyword, const char *name, const JsonbValue *value,
				const MakoPath *path)
{
	MakoPath	at = {path, name, strlen(name)};

	switch (keyword)
	{
		case KEYWORD_REF:
			{
				const Member *definition = value->type != jbvString ? NULL :
					find_member(compiler->definitions, compiler->count, value->val.string.val, value->val.string.len);

				if (definition == NULL)
					raise_malformed(path, name, "It does not name one of the definitions.");
				schema->name = *definition;
				schema->child = definition->schema;
				break;
			}
		case KEYWORD_TYPE:
			compile_type(schema, value, path);
			break;
		case KEYWORD_ENUM:
			compile_enum(schema, value, path);
			break;
		case KEYWORD_ELEMENTS:
		case KEYWORD_VALUES:
			schema->child = compile_schema(compiler, value, &at);
			break;
		case KEYWORD_PROPERTIES:
		case KEYWORD_OPTIONAL_PROPERTIES:
			schema->has_required |= keyword == KEYWORD_PROPERTIES;
			schema->count = compile_members(compiler, value, name, path, keyword == KEYWORD_PROPERTIES,
											&schema->members, schema->count);
			break;
		case KEYWORD_ADDITIONAL_PROPERTIES:
			schema->additional = compile_boolean(value, name, path);
			break;
		case KEYWORD_DISCRIMINATOR:
			if (value->type != jbvString)
				raise_malformed(path, name, "It is not a string.");
			schema->name = copy_name(value);
			break;
		case KEYWORD_MAPPING:
			schema->count = compile_members(compiler, value, name, path, false, &schema->members, 0);
			break;
		case KEYWORD_NULLABLE:
			schema->nullable = compile_boolean(value, name, path);
			break;
		case KEYWORD_METADATA:
			compile_metadata(schema, value, path);
			break;
	}
}

/* Compiles an object into a schema that is there already, so that definitions can refer to each other. */
static void
compile_into(Compiler *compiler, Schema *schema, const JsonbValue *source, const MakoPath *path)
{
	int			set = 0;
	int			form;
	Children	names;
	Children	values;
	JsonbValue	name;
	JsonbValue	value;

	check_stack_depth();
	if (!is_object(source))
		raise_malformed(path, NULL, "It is not an object.");
	names = first_children(source->val.binary.data);
	values = object_values(source->val.binary.data);
	while (next_child(&names, &name) && next_child(&values, &value))
	{
		int			keyword = 0;
		const char *keyword_name = NULL;

		for (size_t i = 0; i < lengthof(keywords); i++)
			if (compare_names(keywords[i].name, strlen(keywords[i].name), name.val.string.val, name.val.string.len) == 0)
			{
				keyword = keywords[i].bit;
				keyword_name = keywords[i].name;
			}
		if (keyword == 0)
		{
			MakoPath	at = {path, name.val.string.val, name.val.string.len};

			raise_malformed(&at, NULL, "The standard does not know this keyword.");
		}
		if (keyword == KEYWORD_DEFINITIONS && path != NULL)
			raise_malformed(path, keyword_name, "Only the root can have definitions.");
		set |= keyword;
		compile_keyword(compiler, schema, keyword, keyword_name, &value, path);
	}
	form = form_of(set);
	if (form < 0)
		raise_malformed(path, NULL, "Its keywords do not make one of the forms of the standard.");
	schema->form = (Form) form;
	if (form == FORM_PROPERTIES)
		finish_properties(schema, path);
	if (form == FORM_DISCRIMINATOR)
		finish_mapping(schema, path);
}

/* Compiles one schema. */
static Schema *
compile_schema(Compiler *compiler, const JsonbValue *source, const MakoPath *path)
{
	Schema	   *schema = palloc0(sizeof(Schema));

	compile_into(compiler, schema, source, path);
	return schema;
}

/* Compiles the shared definitions; first their names, because they may refer to each other. */
static void
compile_definitions(Compiler *compiler, const JsonbValue *source)
{
	MakoPath	path = {NULL, "definitions", strlen("definitions")};
	Children	names;
	Children	schemas;
	JsonbValue	name;
	JsonbValue	schema;

	if (!is_object(source))
		raise_malformed(&path, NULL, "It is not an object.");
	names = first_children(source->val.binary.data);
	schemas = object_values(source->val.binary.data);
	compiler->definitions = palloc(sizeof(Member) * (names.end + 1));
	for (; next_child(&names, &name); compiler->count++)
	{
		compiler->definitions[compiler->count] = copy_name(&name);
		compiler->definitions[compiler->count].schema = palloc0(sizeof(Schema));
	}
	for (int i = 0; next_child(&schemas, &schema); i++)
	{
		MakoPath	at = {&path, compiler->definitions[i].name, compiler->definitions[i].length};

		compile_into(compiler, compiler->definitions[i].schema, &schema, &at);
	}

	/* A ref that leads back to itself without a value in between describes nothing. */
	for (int i = 0; i < compiler->count; i++)
	{
		const Schema *target = compiler->definitions[i].schema;

		for (int steps = 0; target->form == FORM_REF; target = target->child, steps++)
			if (steps == compiler->count)
			{
				MakoPath	at = {&path, compiler->definitions[i].name, compiler->definitions[i].length};

				raise_malformed(&at, "ref", "It leads back to itself.");
			}
	}
}

/* Compiles a definition, in the current memory context; error 22032 with the path of what is wrong. */
MakoTypeDefinition *
mako_type_definition_compile(const Jsonb *source)
{
	MakoTypeDefinition *definition = palloc(sizeof(MakoTypeDefinition));
	Compiler	compiler = {0};
	JsonbValue	root = root_value(source);
	JsonbValue	definitions;

	if (is_object(&root) &&
		getKeyJsonValueFromContainer(root.val.binary.data, "definitions", strlen("definitions"), &definitions) != NULL)
		compile_definitions(&compiler, &definitions);
	definition->root = compile_schema(&compiler, &root, NULL);
	return definition;
}

/* ---- checking --------------------------------------------------------------------------------------------------------------- */

/* Where the errors of a check go. */
typedef struct Check
{
	MakoTypeErrorCallback report;	/* NULL: the first error is enough */
	void	   *argument;
	bool		valid;
} Check;

/* Reports an error at a keyword of the schema (NULL: the schema itself); false when nobody wants to know more. */
static bool
report_error(Check *check, const MakoPath *instance_path, const MakoPath *schema_path, const char *keyword)
{
	MakoPath	at = {schema_path, keyword, keyword == NULL ? 0 : strlen(keyword)};

	check->valid = false;
	if (check->report == NULL)
		return false;
	check->report(check->argument, instance_path, keyword == NULL ? schema_path : &at);
	return true;
}

/* Is a number whole and within the range of the schema's type? */
static bool
integer_fits(const Schema *schema, Numeric number)
{
	Datum		value = NumericGetDatum(number);

	if (DatumGetInt32(DirectFunctionCall1(numeric_scale, value)) > 0 &&
		!DatumGetBool(DirectFunctionCall2(numeric_eq, value,
										  DirectFunctionCall2(numeric_trunc, value, Int32GetDatum(0)))))
		return false;
	return DatumGetBool(DirectFunctionCall2(numeric_ge, value, NumericGetDatum(schema->minimum))) &&
		DatumGetBool(DirectFunctionCall2(numeric_le, value, NumericGetDatum(schema->maximum)));
}

/* Reads a number of exactly this many digits; -1 when there is none. */
static int
read_digits(const char **text, const char *end, int digits)
{
	int			value = 0;

	for (; digits > 0; digits--, (*text)++)
	{
		if (*text == end || **text < '0' || **text > '9')
			return -1;
		value = value * 10 + (**text - '0');
	}
	return value;
}

/* Passes one of two characters. */
static bool
pass(const char **text, const char *end, char a, char b)
{
	if (*text == end || (**text != a && **text != b))
		return false;
	(*text)++;
	return true;
}

/* Is a text a timestamp by RFC 3339? A leap second is one only in the last minute of a day in UTC. */
static bool
is_timestamp(const char *text, int length)
{
	const char *end = text + length;
	int			year = read_digits(&text, end, 4);
	int			month = pass(&text, end, '-', '-') ? read_digits(&text, end, 2) : -1;
	int			day = pass(&text, end, '-', '-') ? read_digits(&text, end, 2) : -1;
	int			hour = pass(&text, end, 'T', 't') ? read_digits(&text, end, 2) : -1;
	int			minute = pass(&text, end, ':', ':') ? read_digits(&text, end, 2) : -1;
	int			second = pass(&text, end, ':', ':') ? read_digits(&text, end, 2) : -1;
	int			offset = 0;

	if (year < 0 || month < 1 || month > MONTHS_PER_YEAR || day < 1 || day > day_tab[isleap(year)][month - 1] ||
		hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 60)
		return false;
	if (pass(&text, end, '.', '.'))
	{
		if (read_digits(&text, end, 1) < 0)
			return false;
		while (text < end && *text >= '0' && *text <= '9')
			text++;
	}
	if (!pass(&text, end, 'Z', 'z'))
	{
		int			sign = text < end && *text == '-' ? -1 : 1;
		int			offset_hour = pass(&text, end, '+', '-') ? read_digits(&text, end, 2) : -1;
		int			offset_minute = pass(&text, end, ':', ':') ? read_digits(&text, end, 2) : -1;

		if (offset_hour < 0 || offset_hour > 23 || offset_minute < 0 || offset_minute > 59)
			return false;
		offset = sign * (offset_hour * 60 + offset_minute);
	}
	if (text != end)
		return false;
	return second < 60 || (hour * 60 + minute - offset + 2 * 24 * 60) % (24 * 60) == 24 * 60 - 1;
}

/* Does a value have the schema's type? */
static bool
scalar_fits(const Schema *schema, const JsonbValue *value)
{
	switch (schema->type->kind)
	{
		case SCALAR_BOOLEAN:
			return value->type == jbvBool;
		case SCALAR_STRING:
			return value->type == jbvString;
		case SCALAR_TIMESTAMP:
			return value->type == jbvString && is_timestamp(value->val.string.val, value->val.string.len);
		case SCALAR_FLOAT:
			return value->type == jbvNumeric;
		case SCALAR_INTEGER:
			return value->type == jbvNumeric && integer_fits(schema, value->val.numeric);
	}
	return false;
}

static bool check_value(Check *check, const Schema *schema, const JsonbValue *value, const MakoPath *instance_path,
						const MakoPath *schema_path);

/* Checks an object against the properties form; a tag is a key that belongs to the discriminator above. */
static bool
check_properties(Check *check, const Schema *schema, JsonbContainer *object, const Member *tag,
				 const MakoPath *instance_path, const MakoPath *schema_path)
{
	Children	names = first_children(object);
	Children	values = object_values(object);
	const Member *member = schema->members;
	const Member *end = schema->members + schema->count;
	JsonbValue	name;
	JsonbValue	value;
	bool		more = next_child(&names, &name);

	/* Keys and members are in the same order. */
	while (more || member < end)
	{
		int			order = !more ? 1 : member == end ? -1 :
			compare_names(name.val.string.val, name.val.string.len, member->name, member->length);

		if (order > 0)
		{
			MakoPath	at = {schema_path, "properties", strlen("properties")};

			if (member->required && !report_error(check, instance_path, &at, member->name))
				return false;
			member++;
			continue;
		}
		(void) next_child(&values, &value);
		if (order == 0)
		{
			const char *keyword = member->required ? "properties" : "optionalProperties";
			MakoPath	instance_at = {instance_path, name.val.string.val, name.val.string.len};
			MakoPath	keyword_at = {schema_path, keyword, strlen(keyword)};
			MakoPath	schema_at = {&keyword_at, member->name, member->length};

			if (!check_value(check, member->schema, &value, &instance_at, &schema_at))
				return false;
			member++;
		}
		else if (!schema->additional &&
				 (tag == NULL || compare_names(name.val.string.val, name.val.string.len, tag->name, tag->length) != 0))
		{
			MakoPath	instance_at = {instance_path, name.val.string.val, name.val.string.len};

			if (!report_error(check, &instance_at, schema_path, NULL))
				return false;
		}
		more = next_child(&names, &name);
	}
	return true;
}

/* Checks an object against the variant that its tag names. */
static bool
check_discriminator(Check *check, const Schema *schema, const JsonbValue *value, const MakoPath *instance_path,
					const MakoPath *schema_path)
{
	const Member *tag = &schema->name;
	const Member *variant;
	MakoPath	instance_at = {instance_path, tag->name, tag->length};
	MakoPath	mapping_at = {schema_path, "mapping", strlen("mapping")};
	JsonbValue	name;

	if (!is_object(value) ||
		getKeyJsonValueFromContainer(value->val.binary.data, tag->name, tag->length, &name) == NULL)
		return report_error(check, instance_path, schema_path, "discriminator");
	if (name.type != jbvString)
		return report_error(check, &instance_at, schema_path, "discriminator");
	variant = find_member(schema->members, schema->count, name.val.string.val, name.val.string.len);
	if (variant == NULL)
		return report_error(check, &instance_at, schema_path, "mapping");
	{
		MakoPath	schema_at = {&mapping_at, variant->name, variant->length};

		return check_properties(check, variant->schema, value->val.binary.data, tag, instance_path, &schema_at);
	}
}

/* Checks each child of an array or object. */
static bool
check_children(Check *check, const Schema *schema, JsonbContainer *container, const MakoPath *instance_path,
			   const MakoPath *schema_path)
{
	bool		object = JsonContainerIsObject(container);
	Children	names = first_children(container);
	Children	values = object ? object_values(container) : first_children(container);
	JsonbValue	name;
	JsonbValue	value;

	for (int i = 0; next_child(&values, &value); i++)
	{
		MakoPath	at = {instance_path, NULL, i};

		if (object)
		{
			(void) next_child(&names, &name);
			at.name = name.val.string.val;
			at.length = name.val.string.len;
		}
		if (!check_value(check, schema, &value, &at, schema_path))
			return false;
	}
	return true;
}

/* Checks a value against a schema; false when checking is to stop. */
static bool
check_value(Check *check, const Schema *schema, const JsonbValue *value, const MakoPath *instance_path,
			const MakoPath *schema_path)
{
	if (schema->nullable && value->type == jbvNull)
		return true;
	switch (schema->form)
	{
		case FORM_EMPTY:
			return true;
		case FORM_REF:
			{
				MakoPath	definitions = {NULL, "definitions", strlen("definitions")};
				MakoPath	at = {&definitions, schema->name.name, schema->name.length};

				check_stack_depth();
				return check_value(check, schema->child, value, instance_path, &at);
			}
		case FORM_TYPE:
			return scalar_fits(schema, value) || report_error(check, instance_path, schema_path, "type");
		case FORM_ENUM:
			return (value->type == jbvString &&
					find_member(schema->members, schema->count, value->val.string.val, value->val.string.len) != NULL) ||
				report_error(check, instance_path, schema_path, "enum");
		case FORM_PROPERTIES:
			check_stack_depth();
			if (!is_object(value))
				return report_error(check, instance_path, schema_path,
									schema->has_required ? "properties" : "optionalProperties");
			return check_properties(check, schema, value->val.binary.data, NULL, instance_path, schema_path);
		case FORM_DISCRIMINATOR:
			check_stack_depth();
			return check_discriminator(check, schema, value, instance_path, schema_path);
		case FORM_ELEMENTS:
		case FORM_VALUES:
			{
				const char *keyword = schema->form == FORM_ELEMENTS ? "elements" : "values";
				MakoPath	at = {schema_path, keyword, strlen(keyword)};

				check_stack_depth();
				if (schema->form == FORM_ELEMENTS ? !is_array(value) : !is_object(value))
					return report_error(check, instance_path, &at, NULL);
				return check_children(check, schema->child, value->val.binary.data, instance_path, &at);
			}
	}
	return true;
}

/* Checks a value; with a callback, which is told every error, otherwise only until the first one. */
bool
mako_type_definition_check(const MakoTypeDefinition *definition, const Jsonb *document, MakoTypeErrorCallback report,
						   void *argument)
{
	Check		check = {report, argument, true};
	JsonbValue	value = root_value(document);

	(void) check_value(&check, definition->root, &value, NULL, NULL);
	return check.valid;
}

/* A path as a JSON pointer (RFC 6901). */
char *
mako_path_to_text(const MakoPath *path)
{
	List	   *steps = NIL;
	ListCell   *cell;
	StringInfoData buffer;

	for (; path != NULL; path = path->up)
		steps = lcons(unconstify(MakoPath *, path), steps);
	initStringInfo(&buffer);
	foreach(cell, steps)
	{
		const MakoPath *step = lfirst(cell);

		appendStringInfoChar(&buffer, '/');
		if (step->name == NULL)
			appendStringInfo(&buffer, "%d", step->length);
		for (int i = 0; step->name != NULL && i < step->length; i++)
		{
			if (step->name[i] == '~')
				appendStringInfoString(&buffer, "~0");
			else if (step->name[i] == '/')
				appendStringInfoString(&buffer, "~1");
			else
				appendStringInfoChar(&buffer, step->name[i]);
		}
	}
	return buffer.data;
}
