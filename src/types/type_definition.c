/*
 * type_definition.c
 *	  JSON Type Definition (RFC 8927): from a JSON document to a tree that type_check.c checks
 *	  values against. Pure.
 *
 * The members of a schema are sorted as the keys of a jsonb object are, by length and then by
 * bytes, so that checking an object is one walk over both, side by side, without a lookup. The
 * tree shares nothing with the document and lives in the current memory context.
 */
#include "types/type_definition.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

static const MakoScalarType scalar_types[] = {
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

/* A definition being compiled. */
typedef struct Compiler
{
	MakoTypeMember *definitions;	/* sorted */
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
			 errdetail("At %s: %s", mako_path_describe(keyword == NULL ? path : &at), detail),
			 errhint("A type definition is a JSON Type Definition (RFC 8927).")));
}

static Schema *compile_schema(Compiler *compiler, const JsonbValue *source, const MakoPath *path);

/* Orders members as jsonb orders keys. */
static int
compare_members(const void *a, const void *b)
{
	const MakoTypeMember *x = a;
	const MakoTypeMember *y = b;

	return compare_by_length(x->name, x->length, y->name, y->length);
}

/* A member of this name, copied, because it must outlive the source. */
static MakoTypeMember
make_member(const char *name, int length)
{
	MakoTypeMember member = {pnstrdup(name, length), length};

	return member;
}

/*
 * Compiles an object of schemas, such as properties or mapping, and adds its members to an array
 * with room for them.
 */
static int
compile_members(Compiler *compiler, const JsonbValue *source, const char *keyword,
				const MakoPath *path, bool required, MakoTypeMember **members, int count)
{
	MakoPath	at = {path, keyword, strlen(keyword)};
	MakoTypeChildren keys;
	MakoTypeChildren schemas;
	MakoTypeKey key;
	JsonbValue	schema;

	if (!is_object(source))
		raise_malformed(&at, NULL, "It is not an object.");
	keys = first_children(source->val.binary.data);
	schemas = object_values(source->val.binary.data);
	*members = *members == NULL ? palloc(sizeof(MakoTypeMember) * (keys.end + 1)) :
		repalloc(*members, sizeof(MakoTypeMember) * (count + keys.end + 1));
	while (next_key(&keys, &key) && next_child(&schemas, &schema))
	{
		MakoPath	member_path = {&at, key.text, key.length};
		MakoTypeMember *member = &(*members)[count++];

		*member = make_member(key.text, key.length);
		member->required = required;
		member->schema = compile_schema(compiler, &schema, &member_path);
	}
	return count;
}

/* Compiles the keyword "enum". */
static void
compile_enum(Schema *schema, const JsonbValue *source, const MakoPath *path)
{
	MakoTypeChildren values;
	JsonbValue	value;

	if (!is_array(source) || JsonContainerSize(source->val.binary.data) == 0)
		raise_malformed(path, "enum", "It is not an array with at least one string.");
	values = first_children(source->val.binary.data);
	schema->members = palloc(sizeof(MakoTypeMember) * values.end);
	while (next_child(&values, &value))
	{
		if (value.type != jbvString)
			raise_malformed(path, "enum", "It is not an array of strings.");
		schema->members[schema->count++] = make_member(value.val.string.val, value.val.string.len);
	}
	qsort(schema->members, schema->count, sizeof(MakoTypeMember), compare_members);
	for (int i = 1; i < schema->count; i++)
		if (compare_members(&schema->members[i - 1], &schema->members[i]) == 0)
			raise_malformed(path, "enum", "It has the same string twice.");
}

/* Compiles the keyword "type". */
static void
compile_type(Schema *schema, const JsonbValue *source, const MakoPath *path)
{
	for (size_t i = 0; source->type == jbvString && i < lengthof(scalar_types); i++)
		if (compare_by_length(scalar_types[i].name, strlen(scalar_types[i].name),
							  source->val.string.val, source->val.string.len) == 0)
			schema->type = &scalar_types[i];
	if (schema->type == NULL)
		raise_malformed(path, "type", "It is not one of the types that the standard knows.");
	schema->minimum = DatumGetNumeric(DirectFunctionCall1(int8_numeric,
														  Int64GetDatum(schema->type->minimum)));
	schema->maximum = DatumGetNumeric(DirectFunctionCall1(int8_numeric,
														  Int64GetDatum(schema->type->maximum)));
}

/* Sorts the properties, and refuses one that is both required and optional. */
static void
finish_properties(Schema *schema, const MakoPath *path)
{
	qsort(schema->members, schema->count, sizeof(MakoTypeMember), compare_members);
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
		const MakoTypeMember *variant = &schema->members[i];
		MakoPath	at = {&mapping, variant->name, variant->length};

		if (variant->schema->form != FORM_PROPERTIES)
			raise_malformed(&at, NULL, "It is not of the properties form.");
		if (variant->schema->nullable)
			raise_malformed(&at, "nullable", "A variant cannot be nullable.");
		if (find_member(variant->schema->members, variant->schema->count, schema->name.name,
						schema->name.length) != NULL)
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
	{"ref", KEYWORD_REF}, {"type", KEYWORD_TYPE}, {"enum", KEYWORD_ENUM},
	{"elements", KEYWORD_ELEMENTS}, {"properties", KEYWORD_PROPERTIES},
	{"optionalProperties", KEYWORD_OPTIONAL_PROPERTIES},
	{"additionalProperties", KEYWORD_ADDITIONAL_PROPERTIES}, {"values", KEYWORD_VALUES},
	{"discriminator", KEYWORD_DISCRIMINATOR}, {"mapping", KEYWORD_MAPPING},
	{"definitions", KEYWORD_DEFINITIONS}, {"nullable", KEYWORD_NULLABLE},
	{"metadata", KEYWORD_METADATA},
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
	if (getKeyJsonValueFromContainer(source->val.binary.data, "event_type", strlen("event_type"),
									 &value) == NULL)
		return;

	/*
	 * What metadata holds is for its author to say: another event_type than a string is not ours.
	 */
	if (value.type == jbvString)
		schema->event_type = cstring_to_text_with_len(value.val.string.val, value.val.string.len);
}

/* Compiles one keyword of a schema. */
static void
compile_keyword(Compiler *compiler, Schema *schema, int keyword, const char *name,
				const JsonbValue *value, const MakoPath *path)
{
	MakoPath	at = {path, name, strlen(name)};

	switch (keyword)
	{
		case KEYWORD_REF:
			{
				const MakoTypeMember *definition = value->type != jbvString ? NULL :
					find_member(compiler->definitions, compiler->count, value->val.string.val,
								value->val.string.len);

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
			schema->count = compile_members(compiler, value, name, path,
											keyword == KEYWORD_PROPERTIES, &schema->members,
											schema->count);
			break;
		case KEYWORD_ADDITIONAL_PROPERTIES:
			schema->additional = compile_boolean(value, name, path);
			break;
		case KEYWORD_DISCRIMINATOR:
			if (value->type != jbvString)
				raise_malformed(path, name, "It is not a string.");
			schema->name = make_member(value->val.string.val, value->val.string.len);
			break;
		case KEYWORD_MAPPING:
			schema->count = compile_members(compiler, value, name, path, false,
											&schema->members, 0);
			break;
		case KEYWORD_NULLABLE:
			schema->nullable = compile_boolean(value, name, path);
			break;
		case KEYWORD_METADATA:
			compile_metadata(schema, value, path);
			break;
	}
}

/*
 * Compiles an object into a schema that is there already, so that definitions can refer to each
 * other.
 */
static void
compile_into(Compiler *compiler, Schema *schema, const JsonbValue *source, const MakoPath *path)
{
	int			set = 0;
	int			form;
	MakoTypeChildren keys;
	MakoTypeChildren values;
	MakoTypeKey key;
	JsonbValue	value;

	check_stack_depth();
	CHECK_FOR_INTERRUPTS();
	if (!is_object(source))
		raise_malformed(path, NULL, "It is not an object.");
	keys = first_children(source->val.binary.data);
	values = object_values(source->val.binary.data);
	while (next_key(&keys, &key) && next_child(&values, &value))
	{
		int			keyword = 0;
		const char *keyword_name = NULL;

		for (size_t i = 0; i < lengthof(keywords); i++)
			if (compare_by_length(keywords[i].name, strlen(keywords[i].name), key.text,
								  key.length) == 0)
			{
				keyword = keywords[i].bit;
				keyword_name = keywords[i].name;
			}
		if (keyword == 0)
		{
			MakoPath	at = {path, key.text, key.length};

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
	schema->form = (MakoTypeForm) form;
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
	MakoTypeChildren keys;
	MakoTypeChildren schemas;
	MakoTypeKey key;
	JsonbValue	schema;

	if (!is_object(source))
		raise_malformed(&path, NULL, "It is not an object.");
	keys = first_children(source->val.binary.data);
	schemas = object_values(source->val.binary.data);
	compiler->definitions = palloc(sizeof(MakoTypeMember) * (keys.end + 1));
	for (; next_key(&keys, &key); compiler->count++)
	{
		compiler->definitions[compiler->count] = make_member(key.text, key.length);
		compiler->definitions[compiler->count].schema = palloc0(sizeof(Schema));
	}
	for (int i = 0; next_child(&schemas, &schema); i++)
	{
		MakoPath	at = {&path, compiler->definitions[i].name, compiler->definitions[i].length};

		compile_into(compiler, compiler->definitions[i].schema, &schema, &at);
	}

	/*
	 * A ref that leads back to itself without a value in between describes nothing. No walk
	 * passes where an earlier one was.
	 */
	for (int i = 0; i < compiler->count; i++)
	{
		Schema	   *target = compiler->definitions[i].schema;

		CHECK_FOR_INTERRUPTS();
		for (; target->form == FORM_REF && target->visit == 0; target = target->child)
			target->visit = i + 1;
		if (target->form == FORM_REF && target->visit == i + 1)
		{
			MakoPath	at = {
				&path, compiler->definitions[i].name, compiler->definitions[i].length
			};

			raise_malformed(&at, "ref", "It leads back to itself.");
		}
	}
}

/*
 * Compiles a definition, in the current memory context; error 22032 with the path of what is
 * wrong.
 */
MakoTypeDefinition *
mako_type_definition_compile(const Jsonb *source)
{
	MakoTypeDefinition *definition = palloc(sizeof(MakoTypeDefinition));
	Compiler	compiler = {0};
	JsonbValue	root = root_value(source);
	JsonbValue	definitions;

	if (is_object(&root) &&
		getKeyJsonValueFromContainer(root.val.binary.data, "definitions", strlen("definitions"),
									 &definitions) != NULL)
		compile_definitions(&compiler, &definitions);
	definition->root = compile_schema(&compiler, &root, NULL);
	return definition;
}
