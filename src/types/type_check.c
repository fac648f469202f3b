/*
 * type_check.c
 *	  JSON Type Definition (RFC 8927): checks a value, and reports every error with its path in
 *	  value and definition. Pure.
 *
 * Paths are linked frames on the C stack: they cost nothing until an error needs them.
 */
#include "types/type_definition.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"

/* Where the errors of a check go. */
typedef struct Check
{
	MakoTypeErrorCallback report;	/* NULL: the first error is enough */
	void	   *argument;
	bool		valid;
} Check;

/*
 * Reports an error at a keyword of the schema (NULL: the schema itself); false when no more is
 * wanted.
 */
static bool
report_error(Check *check, const MakoPath *instance_path, const MakoPath *schema_path,
			 const char *keyword)
{
	MakoPath	at = {schema_path, keyword, keyword == NULL ? 0 : strlen(keyword)};

	check->valid = false;
	if (check->report == NULL)
		return false;
	check->report(check->argument, instance_path, keyword == NULL ? schema_path : &at);
	return true;
}

/* Returns true if a number is whole. */
static bool
is_whole(Datum number)
{
	Datum		truncated;
	bool		whole;

	if (DatumGetInt32(DirectFunctionCall1(numeric_scale, number)) == 0)
		return true;
	truncated = DirectFunctionCall2(numeric_trunc, number, Int32GetDatum(0));
	whole = DatumGetBool(DirectFunctionCall2(numeric_eq, number, truncated));
	pfree(DatumGetPointer(truncated));
	return whole;
}

/* Returns true if a number is whole and within the range of the schema's type. */
static bool
integer_fits(const Schema *schema, Numeric number)
{
	Datum		value = NumericGetDatum(number);

	return is_whole(value) &&
		DatumGetBool(DirectFunctionCall2(numeric_ge, value, NumericGetDatum(schema->minimum))) &&
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

/*
 * Returns true if a text is a timestamp by RFC 3339. A leap second is one only in the last minute
 * of a day in UTC.
 */
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

	if (year < 0 || month < 1 || month > MONTHS_PER_YEAR || day < 1 ||
		day > day_tab[isleap(year)][month - 1] || hour < 0 || hour > 23 || minute < 0 ||
		minute > 59 || second < 0 || second > 60)
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

/* Returns true if a value has the schema's type. */
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
			return value->type == jbvString &&
				is_timestamp(value->val.string.val, value->val.string.len);
		case SCALAR_FLOAT:
			return value->type == jbvNumeric;
		case SCALAR_INTEGER:
			return value->type == jbvNumeric && integer_fits(schema, value->val.numeric);
	}
	return false;
}

static bool check_value(Check *check, const Schema *schema, const JsonbValue *value,
						const MakoPath *instance_path, const MakoPath *schema_path);

/*
 * Checks an object against the properties form; a tag is a key that belongs to the discriminator
 * above.
 */
static bool
check_properties(Check *check, const Schema *schema, JsonbContainer *object,
				 const MakoTypeMember *tag, const MakoPath *instance_path,
				 const MakoPath *schema_path)
{
	MakoTypeChildren keys = first_children(object);
	MakoTypeChildren values = object_values(object);
	const MakoTypeMember *member = schema->members;
	const MakoTypeMember *end = schema->members + schema->count;
	MakoTypeKey key;
	JsonbValue	value;
	bool		more = next_key(&keys, &key);

	/* Keys and members are in the same order. */
	while (more || member < end)
	{
		int			order = !more ? 1 : member == end ? -1 :
			compare_by_length(key.text, key.length, member->name, member->length);

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
			MakoPath	instance_at = {instance_path, key.text, key.length};
			MakoPath	keyword_at = {schema_path, keyword, strlen(keyword)};
			MakoPath	schema_at = {&keyword_at, member->name, member->length};

			if (!check_value(check, member->schema, &value, &instance_at, &schema_at))
				return false;
			member++;
		}
		else if (!schema->additional &&
				 (tag == NULL ||
				  compare_by_length(key.text, key.length, tag->name, tag->length) != 0))
		{
			MakoPath	instance_at = {instance_path, key.text, key.length};

			if (!report_error(check, &instance_at, schema_path, NULL))
				return false;
		}
		more = next_key(&keys, &key);
	}
	return true;
}

/* Checks an object against a variant of a discriminator. */
static bool
check_variant(Check *check, const Schema *schema, const MakoTypeMember *variant,
			  JsonbContainer *object, const MakoPath *instance_path, const MakoPath *schema_path)
{
	MakoPath	mapping_at = {schema_path, "mapping", strlen("mapping")};
	MakoPath	schema_at = {&mapping_at, variant->name, variant->length};

	return check_properties(check, variant->schema, object, &schema->name,
							instance_path, &schema_at);
}

/*
 * Finds the variant that an object's tag names; reports an error and returns NULL when there is
 * none.
 */
static const MakoTypeMember *
find_variant(Check *check, const Schema *schema, const JsonbValue *value,
			 const MakoPath *instance_path, const MakoPath *schema_path)
{
	const MakoTypeMember *tag = &schema->name;
	const MakoTypeMember *variant = NULL;
	MakoPath	instance_at = {instance_path, tag->name, tag->length};
	JsonbValue	name;

	if (!is_object(value) ||
		getKeyJsonValueFromContainer(value->val.binary.data, tag->name, tag->length, &name) == NULL)
		(void) report_error(check, instance_path, schema_path, "discriminator");
	else if (name.type != jbvString)
		(void) report_error(check, &instance_at, schema_path, "discriminator");
	else
	{
		variant = find_member(schema->members, schema->count, name.val.string.val,
							  name.val.string.len);
		if (variant == NULL)
			(void) report_error(check, &instance_at, schema_path, "mapping");
	}
	return variant;
}

/* Checks an object against the variant that its tag names. */
static bool
check_discriminator(Check *check, const Schema *schema, const JsonbValue *value,
					const MakoPath *instance_path, const MakoPath *schema_path)
{
	const MakoTypeMember *variant = find_variant(check, schema, value, instance_path, schema_path);

	if (variant == NULL)
		return check->report != NULL;
	return check_variant(check, schema, variant, value->val.binary.data,
						 instance_path, schema_path);
}

/* Checks each child of an array or object. */
static bool
check_children(Check *check, const Schema *schema, JsonbContainer *container,
			   const MakoPath *instance_path, const MakoPath *schema_path)
{
	bool		object = JsonContainerIsObject(container);
	MakoTypeChildren keys = first_children(container);
	MakoTypeChildren values = object ? object_values(container) : first_children(container);
	MakoTypeKey key;
	JsonbValue	value;

	for (int i = 0; next_child(&values, &value); i++)
	{
		MakoPath	at = {instance_path, NULL, i};

		if (object)
		{
			(void) next_key(&keys, &key);
			at.name = key.text;
			at.length = key.length;
		}
		if (!check_value(check, schema, &value, &at, schema_path))
			return false;
	}
	return true;
}

/* Checks a value against a schema; false when checking is to stop. */
static bool
check_value(Check *check, const Schema *schema, const JsonbValue *value,
			const MakoPath *instance_path, const MakoPath *schema_path)
{
	CHECK_FOR_INTERRUPTS();
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
			return scalar_fits(schema, value) ||
				report_error(check, instance_path, schema_path, "type");
		case FORM_ENUM:
			return (value->type == jbvString &&
					find_member(schema->members, schema->count, value->val.string.val,
								value->val.string.len) != NULL) ||
				report_error(check, instance_path, schema_path, "enum");
		case FORM_PROPERTIES:
			check_stack_depth();
			if (!is_object(value))
				return report_error(check, instance_path, schema_path,
									schema->has_required ? "properties" : "optionalProperties");
			return check_properties(check, schema, value->val.binary.data, NULL,
									instance_path, schema_path);
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
				return check_children(check, schema->child, value->val.binary.data,
									  instance_path, &at);
			}
	}
	return true;
}

/*
 * Checks a value; with a callback, which is told every error, otherwise only until the first one.
 */
bool
mako_type_definition_check(const MakoTypeDefinition *definition, const Jsonb *document,
						   MakoTypeErrorCallback report, void *argument)
{
	Check		check = {report, argument, true};
	JsonbValue	value = root_value(document);

	(void) check_value(&check, definition->root, &value, NULL, NULL);
	return check.valid;
}

/*
 * Returns true if a variant belongs to an event type: by its metadata, or by its name where it has
 * none.
 */
static bool
variant_has_event_type(const MakoTypeMember *variant, const text *event_type)
{
	const text *own = variant->schema->event_type;

	if (own == NULL)
		return compare_by_length(variant->name, variant->length, VARDATA_ANY(event_type),
								 VARSIZE_ANY_EXHDR(event_type)) == 0;
	return compare_by_length(VARDATA_ANY(own), VARSIZE_ANY_EXHDR(own),
							 VARDATA_ANY(event_type), VARSIZE_ANY_EXHDR(event_type)) == 0;
}

/*
 * Checks the payload of an event. Where the definition is a discriminator, the variant must belong
 * to the event type if its metadata says so; and where the payload has no tag, the event type
 * takes its place.
 */
static void
check_event(Check *check, const MakoTypeDefinition *definition, const text *event_type,
			const Jsonb *payload)
{
	JsonbValue	value = root_value(payload);
	JsonbValue	tag;
	const Schema *schema = definition->root;
	MakoPath	definitions = {NULL, "definitions", strlen("definitions")};
	MakoPath	definition_at = {&definitions, NULL, 0};
	const MakoPath *schema_path = NULL;
	const MakoTypeMember *variant = NULL;

	for (; schema->form == FORM_REF && !schema->nullable; schema = schema->child)
	{
		definition_at.name = schema->name.name;
		definition_at.length = schema->name.length;
		schema_path = &definition_at;
	}
	if (schema->form != FORM_DISCRIMINATOR || !is_object(&value))
	{
		(void) check_value(check, schema, &value, NULL, schema_path);
		return;
	}

	if (getKeyJsonValueFromContainer(value.val.binary.data, schema->name.name, schema->name.length,
									 &tag) == NULL)
	{
		for (int i = 0; i < schema->count && variant == NULL; i++)
			if (variant_has_event_type(&schema->members[i], event_type))
				variant = &schema->members[i];
		if (variant == NULL)
			(void) report_error(check, NULL, schema_path, "discriminator");
	}
	else
	{
		variant = find_variant(check, schema, &value, NULL, schema_path);
		if (variant != NULL && variant->schema->event_type != NULL &&
			!variant_has_event_type(variant, event_type))
		{
			MakoPath	instance_at = {NULL, schema->name.name, schema->name.length};
			MakoPath	mapping_at = {schema_path, "mapping", strlen("mapping")};
			MakoPath	variant_at = {&mapping_at, variant->name, variant->length};
			MakoPath	metadata_at = {&variant_at, "metadata", strlen("metadata")};

			if (!report_error(check, &instance_at, &metadata_at, "event_type"))
				return;
		}
	}
	if (variant != NULL)
		(void) check_variant(check, schema, variant, value.val.binary.data, NULL, schema_path);
}

/* What a check found. */
typedef struct Mismatch
{
	char	   *first;			/* where the first error is */
	int			count;
} Mismatch;

/* Notes an error of a check. */
static void
note_mismatch(void *argument, const MakoPath *instance_path, const MakoPath *schema_path)
{
	Mismatch   *mismatch = argument;

	if (mismatch->count++ == 0)
		mismatch->first = psprintf("At %s, against %s of the type definition.",
								   mako_path_describe(instance_path),
								   mako_path_describe(schema_path));
}

/* Raises what a check found; subject says what was checked. */
static void
raise_mismatch(const Mismatch *mismatch, const char *subject)
{
	ereport(ERROR,
			(errcode(MAKO_ERRCODE_TYPE_MISMATCH),
			 errmsg("%s does not match its type definition", subject),
			 mismatch->count == 1 ? errdetail_internal("%s", mismatch->first) :
			 errdetail("%s There are %d errors in all.", mismatch->first, mismatch->count),
			 errhint("mako_validate() lists every error.")));
}

/* Raises MK004 unless the payload of an event matches. */
void
mako_type_definition_require_event(const MakoTypeDefinition *definition, const text *event_type,
								   const Jsonb *payload)
{
	Mismatch	mismatch = {0};
	Check		quick = {NULL, NULL, true};
	Check		thorough = {note_mismatch, &mismatch, true};

	check_event(&quick, definition, event_type, payload);
	if (quick.valid)
		return;
	check_event(&thorough, definition, event_type, payload);
	raise_mismatch(&mismatch,
				   psprintf("the payload of event type \"%s\"", text_to_cstring(event_type)));
}

/* Raises MK004 unless the state of a workflow matches. */
void
mako_type_definition_require_state(const MakoTypeDefinition *definition, const char *workflow_id,
								   const Jsonb *state)
{
	Mismatch	mismatch = {0};

	if (mako_type_definition_check(definition, state, NULL, NULL))
		return;
	(void) mako_type_definition_check(definition, state, note_mismatch, &mismatch);
	raise_mismatch(&mismatch, psprintf("the state of workflow \"%s\"", workflow_id));
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

/* A path within a sentence. */
char *
mako_path_describe(const MakoPath *path)
{
	return path == NULL ? pstrdup("the root") : psprintf("\"%s\"", mako_path_to_text(path));
}
