/*
 * instances.c
 *	  Instances of a type definition: values that it allows, so many and so different that whoever handles them has seen all forms.
 *
 * Among them are every variant of a discriminator, every value of an enum, each optional property there and missing, null where it is
 * allowed, numbers at the ends of their ranges, arrays and maps with one element and with none. Properties vary one at a time, so that the
 * number of instances is the sum of what varies, not its product. The same definition gives the same instances in the same order.
 *
 * A definition may refer to itself. Where it does, the smallest value stands in for what would begin again; a schema without a finite
 * value has no instance. Values are trees that share their parts; everything lives in the current memory context.
 */
#include "type_definition.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/hsearch.h"

/* JSON values in one instance. */
#define SIZE_LIMIT 10000
#define NO_VALUE (SIZE_LIMIT + 1)

/* Keys of all objects together, after which only what must be there is made. */
#define KEY_BUDGET 1000000

/* A value of a schema. */
typedef struct Sample
{
	JsonbValue	value;
	int			size;			/* JSON values in it */
} Sample;

/* What is known about a schema; an entry of a hash table. */
typedef struct Known
{
	const Schema *schema;		/* the key */
	int			size;			/* of its smallest value; NO_VALUE: it has none, or none is known yet */
	bool		begun;			/* samples are being made */
	bool		done;
	List	   *samples;		/* the first one is as ordinary as can be */
} Known;

typedef struct Generator
{
	HTAB	   *known;
	List	   *order;			/* of Known: what a schema is made of comes before it, but for recursion */
	int			limit;			/* samples of a schema */
	int64		keys;			/* left of the budget */
} Generator;

/* What is known about a schema that was noted. */
static Known *
known_about(Generator *generator, const Schema *schema)
{
	return hash_search(generator->known, &schema, HASH_FIND, NULL);
}

/* Notes a schema and what it is made of. */
static void
note_schema(Generator *generator, const Schema *schema)
{
	bool		found;
	Known	   *known = hash_search(generator->known, &schema, HASH_ENTER, &found);

	check_stack_depth();
	if (found)
		return;
	known->size = NO_VALUE;
	known->begun = known->done = false;
	known->samples = NIL;
	if (schema->child != NULL)
		note_schema(generator, schema->child);
	for (int i = 0; i < schema->count; i++)
		if (schema->members[i].schema != NULL)
			note_schema(generator, schema->members[i].schema);
	generator->order = lappend(generator->order, known);
}

/* ---- the smallest value ----------------------------------------------------------------------------------------------------- */

/* The variant with the smallest value; NULL where none has one. */
static const Member *
smallest_variant(Generator *generator, const Schema *schema)
{
	const Member *smallest = NULL;
	int			size = NO_VALUE;

	for (int i = 0; i < schema->count; i++)
	{
		const Member *variant = &schema->members[i];

		if (known_about(generator, variant->schema)->size < size)
		{
			smallest = variant;
			size = known_about(generator, variant->schema)->size;
		}
	}
	return smallest;
}

/* The size of a schema's smallest value, from what is known of its parts. */
static int
smallest_size(Generator *generator, const Schema *schema)
{
	int			size = 1;

	if (schema->nullable)
		return 1;
	switch (schema->form)
	{
		case FORM_REF:
			return known_about(generator, schema->child)->size;
		case FORM_PROPERTIES:
			for (int i = 0; i < schema->count; i++)
				if (schema->members[i].required)
					size = Min(size + known_about(generator, schema->members[i].schema)->size, NO_VALUE);
			return size;
		case FORM_DISCRIMINATOR:
			{
				const Member *variant = smallest_variant(generator, schema);

				return variant == NULL ? NO_VALUE : Min(known_about(generator, variant->schema)->size + 1, NO_VALUE);
			}
		default:
			return 1;
	}
}

/* Finds the sizes of all smallest values: they only become smaller, until nothing changes. */
static void
find_smallest(Generator *generator)
{
	bool		changed = true;

	while (changed)
	{
		ListCell   *cell;

		CHECK_FOR_INTERRUPTS();
		changed = false;
		foreach(cell, generator->order)
		{
			Known	   *known = lfirst(cell);
			int			size = smallest_size(generator, known->schema);

			changed = changed || size < known->size;
			known->size = Min(size, known->size);
		}
	}
}

/* ---- values ----------------------------------------------------------------------------------------------------------------- */

static JsonbValue
string_value(const char *text, int length)
{
	JsonbValue	value = {.type = jbvString};

	value.val.string.val = unconstify(char *, text);
	value.val.string.len = length;
	return value;
}

static JsonbValue
number_value(const char *digits)
{
	JsonbValue	value = {.type = jbvNumeric};

	value.val.numeric = DatumGetNumeric(DirectFunctionCall3(numeric_in, CStringGetDatum(digits), ObjectIdGetDatum(InvalidOid),
															Int32GetDatum(-1)));
	return value;
}

static JsonbValue
integer_value(Numeric number)
{
	JsonbValue	value = {.type = jbvNumeric};

	value.val.numeric = number;
	return value;
}

static JsonbValue
boolean_value(bool boolean)
{
	JsonbValue	value = {.type = jbvBool};

	value.val.boolean = boolean;
	return value;
}

static JsonbValue
null_value(void)
{
	JsonbValue	value = {.type = jbvNull};

	return value;
}

/* An array of one element, or of none. */
static JsonbValue
array_value(const JsonbValue *element)
{
	JsonbValue	value = {.type = jbvArray};

	value.val.array.rawScalar = false;
	value.val.array.nElems = element != NULL;
	value.val.array.elems = palloc(sizeof(JsonbValue));
	if (element != NULL)
		value.val.array.elems[0] = *element;
	return value;
}

/* An object without keys, but with room for some. */
static JsonbValue
object_value(int capacity)
{
	JsonbValue	value = {.type = jbvObject};

	value.val.object.nPairs = 0;
	value.val.object.pairs = palloc(sizeof(JsonbPair) * (capacity + 1));
	return value;
}

/* Adds a key to an object that has room for it and does not have the key, in the order of jsonb. */
static void
add_key(JsonbValue *object, const char *name, int length, const JsonbValue *value)
{
	int			at = object->val.object.nPairs++;
	JsonbPair  *pairs = object->val.object.pairs;

	for (; at > 0 && compare_names(pairs[at - 1].key.val.string.val, pairs[at - 1].key.val.string.len, name, length) > 0; at--)
		pairs[at] = pairs[at - 1];
	pairs[at].key = string_value(name, length);
	pairs[at].value = *value;
	pairs[at].order = 0;
}

/* The smallest value of a schema that has one. */
static JsonbValue
smallest_value(Generator *generator, const Schema *schema)
{
	JsonbValue	value;

	check_stack_depth();
	if (schema->nullable)
		return null_value();
	switch (schema->form)
	{
		case FORM_EMPTY:
			return null_value();
		case FORM_REF:
			return smallest_value(generator, schema->child);
		case FORM_TYPE:
			switch (schema->type->kind)
			{
				case SCALAR_BOOLEAN:
					return boolean_value(true);
				case SCALAR_STRING:
					return string_value("", 0);
				case SCALAR_TIMESTAMP:
					return string_value("2025-10-01T00:00:00Z", strlen("2025-10-01T00:00:00Z"));
				default:
					return number_value("0");
			}
		case FORM_ENUM:
			return string_value(schema->members[0].name, schema->members[0].length);
		case FORM_ELEMENTS:
			return array_value(NULL);
		case FORM_VALUES:
			return object_value(0);
		case FORM_PROPERTIES:
			value = object_value(schema->count + 1);	/* room for a tag */
			for (int i = 0; i < schema->count; i++)
				if (schema->members[i].required)
				{
					JsonbValue	member = smallest_value(generator, schema->members[i].schema);

					add_key(&value, schema->members[i].name, schema->members[i].length, &member);
				}
			return value;
		case FORM_DISCRIMINATOR:
			{
				const Member *variant = smallest_variant(generator, schema);
				JsonbValue	tag = string_value(variant->name, variant->length);

				value = smallest_value(generator, variant->schema);
				add_key(&value, schema->name.name, schema->name.length, &tag);
				return value;
			}
	}
	return null_value();		/* cannot happen */
}

/* The smallest value as a sample; NULL where there is none. */
static Sample *
smallest_sample(Generator *generator, const Schema *schema)
{
	int			size = known_about(generator, schema)->size;
	Sample	   *sample;

	if (size == NO_VALUE)
		return NULL;
	sample = palloc(sizeof(Sample));
	sample->value = smallest_value(generator, schema);
	sample->size = size;
	return sample;
}

/* ---- samples ---------------------------------------------------------------------------------------------------------------- */

static List *samples_of(Generator *generator, const Schema *schema);

/* Adds a sample, unless it is too large. */
static List *
add_sample(List *samples, JsonbValue value, int size)
{
	Sample	   *sample;

	if (size > SIZE_LIMIT)
		return samples;
	sample = palloc(sizeof(Sample));
	sample->value = value;
	sample->size = size;
	return lappend(samples, sample);
}

/* Adds texts. */
static List *
add_strings(List *samples, const char *const *texts, int count)
{
	for (int i = 0; i < count; i++)
		samples = add_sample(samples, string_value(texts[i], strlen(texts[i])), 1);
	return samples;
}

/* Samples of a type: an ordinary one, then the ends of its range. */
static List *
scalar_samples(const Schema *schema)
{
	static const char *const texts[] = {"text", ""};
	static const char *const timestamps[] = {
		"2025-10-01T00:00:00Z", "2025-03-30T02:30:00.5+01:00", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"
	};
	List	   *samples = NIL;

	switch (schema->type->kind)
	{
		case SCALAR_BOOLEAN:
			samples = add_sample(samples, boolean_value(true), 1);
			return add_sample(samples, boolean_value(false), 1);
		case SCALAR_STRING:
			return add_strings(samples, texts, lengthof(texts));
		case SCALAR_TIMESTAMP:
			return add_strings(samples, timestamps, lengthof(timestamps));
		case SCALAR_FLOAT:
			samples = add_sample(samples, number_value("1.5"), 1);
			samples = add_sample(samples, number_value("0"), 1);
			samples = add_sample(samples, number_value("-1e30"), 1);
			return add_sample(samples, number_value("1e30"), 1);
		case SCALAR_INTEGER:
			samples = add_sample(samples, number_value("1"), 1);
			samples = add_sample(samples, number_value("0"), 1);
			if (schema->type->minimum != 0)
				samples = add_sample(samples, integer_value(schema->minimum), 1);
			return add_sample(samples, integer_value(schema->maximum), 1);
	}
	return samples;				/* cannot happen */
}

/* Samples of what may be anything. */
static List *
any_samples(void)
{
	List	   *samples = add_sample(NIL, object_value(0), 1);

	samples = add_sample(samples, null_value(), 1);
	samples = add_sample(samples, boolean_value(true), 1);
	samples = add_sample(samples, number_value("1"), 1);
	samples = add_sample(samples, string_value("text", 4), 1);
	return add_sample(samples, array_value(NULL), 1);
}

/* Samples of arrays or maps: with one element of every kind, and empty. */
static List *
container_samples(Generator *generator, const Schema *schema)
{
	bool		is_map = schema->form == FORM_VALUES;
	List	   *samples = NIL;
	ListCell   *cell;

	foreach(cell, samples_of(generator, schema->child))
	{
		const Sample *child = lfirst(cell);
		JsonbValue	value = is_map ? object_value(1) : array_value(&child->value);

		if (is_map)
			add_key(&value, "key", 3, &child->value);
		samples = add_sample(samples, value, child->size + 1);
		if (list_length(samples) == 1)
			samples = add_sample(samples, is_map ? object_value(0) : array_value(NULL), 1);
	}
	return samples != NIL ? samples : add_sample(NIL, is_map ? object_value(0) : array_value(NULL), 1);
}

/* An object from one sample for each property, NULL for a property that is missing. */
static List *
add_object(Generator *generator, List *samples, const Schema *schema, Sample *const *properties, const char *additional)
{
	JsonbValue	value = object_value(schema->count + 2);	/* room for a tag */
	int64		size = 1;

	for (int i = 0; i < schema->count; i++)
		if (properties[i] != NULL)
		{
			add_key(&value, schema->members[i].name, schema->members[i].length, &properties[i]->value);
			size += properties[i]->size;
		}
	if (additional != NULL)
	{
		JsonbValue	null = null_value();

		add_key(&value, additional, strlen(additional), &null);
		size++;
	}
	generator->keys -= schema->count;
	return add_sample(samples, value, (int) Min(size, NO_VALUE));
}

/* Samples of objects: with everything, with what must be there, and with one property at a time that is missing or another one. */
static List *
object_samples(Generator *generator, const Schema *schema)
{
	Sample	  **ordinary = palloc0(sizeof(Sample *) * (schema->count + 1));
	Sample	  **properties = palloc0(sizeof(Sample *) * (schema->count + 1));
	List	   *samples = NIL;
	int64		size = 1;
	int			optional = 0;
	bool		more = true;

	for (int i = 0; i < schema->count; i++)
	{
		List	   *found = samples_of(generator, schema->members[i].schema);

		if (found == NIL && schema->members[i].required)
			return NIL;
		ordinary[i] = found == NIL ? NULL : linitial(found);
		size += found == NIL ? 0 : ordinary[i]->size;
	}
	if (size > SIZE_LIMIT)
		for (int i = 0; i < schema->count; i++)
			ordinary[i] = schema->members[i].required ? smallest_sample(generator, schema->members[i].schema) : NULL;
	samples = add_object(generator, samples, schema, ordinary, NULL);

	/* What must be there; one property that is missing comes next. */
	for (int i = 0; i < schema->count; i++)
	{
		properties[i] = schema->members[i].required ? ordinary[i] : NULL;
		optional += properties[i] != ordinary[i];
	}
	if (optional > 1)
		samples = add_object(generator, samples, schema, properties, NULL);

	memcpy(properties, ordinary, sizeof(Sample *) * schema->count);
	for (int i = 0; i < schema->count && list_length(samples) < generator->limit && generator->keys > 0; i++)
		if (!schema->members[i].required && ordinary[i] != NULL)
		{
			properties[i] = NULL;
			samples = add_object(generator, samples, schema, properties, NULL);
			properties[i] = ordinary[i];
		}
	if (schema->additional && find_member(schema->members, schema->count, "additional", strlen("additional")) == NULL)
		samples = add_object(generator, samples, schema, properties, "additional");

	/* The second sample of every property, then the third: should not all have room, each has had its turn. */
	for (int turn = 1; more; turn++)
	{
		more = false;
		for (int i = 0; i < schema->count && list_length(samples) < generator->limit && generator->keys > 0; i++)
		{
			List	   *found = samples_of(generator, schema->members[i].schema);

			if (turn >= list_length(found))
				continue;
			more = true;
			properties[i] = list_nth(found, turn);
			samples = add_object(generator, samples, schema, properties, NULL);
			properties[i] = ordinary[i];
		}
	}
	return samples;
}

/* Samples of every variant, the same number of each at most. */
static List *
variant_samples(Generator *generator, const Schema *schema)
{
	int			share = Max(generator->limit / Max(schema->count, 1), 1);
	List	   *samples = NIL;

	for (int i = 0; i < schema->count; i++)
	{
		const Member *variant = &schema->members[i];
		JsonbValue	tag = string_value(variant->name, variant->length);
		ListCell   *cell;
		int			taken = 0;

		foreach(cell, samples_of(generator, variant->schema))
		{
			const Sample *fields = lfirst(cell);
			JsonbValue	value = object_value(fields->value.val.object.nPairs + 1);

			if (taken++ == share)
				break;
			value.val.object.nPairs = fields->value.val.object.nPairs;
			memcpy(value.val.object.pairs, fields->value.val.object.pairs, sizeof(JsonbPair) * value.val.object.nPairs);
			add_key(&value, schema->name.name, schema->name.length, &tag);
			samples = add_sample(samples, value, fields->size + 1);
		}
	}
	return samples;
}

/* The samples of a schema, null apart. */
static List *
make_samples(Generator *generator, const Schema *schema)
{
	List	   *samples = NIL;

	switch (schema->form)
	{
		case FORM_EMPTY:
			return any_samples();
		case FORM_REF:
			return list_copy(samples_of(generator, schema->child));
		case FORM_TYPE:
			return scalar_samples(schema);
		case FORM_ENUM:
			for (int i = 0; i < schema->count; i++)
				samples = add_sample(samples, string_value(schema->members[i].name, schema->members[i].length), 1);
			return samples;
		case FORM_ELEMENTS:
		case FORM_VALUES:
			return container_samples(generator, schema);
		case FORM_PROPERTIES:
			return object_samples(generator, schema);
		case FORM_DISCRIMINATOR:
			return variant_samples(generator, schema);
	}
	return samples;				/* cannot happen */
}

/* The samples of a schema, made once; where they are being made already, the smallest value stands in. */
static List *
samples_of(Generator *generator, const Schema *schema)
{
	Known	   *known = known_about(generator, schema);
	Sample	   *smallest;

	check_stack_depth();
	CHECK_FOR_INTERRUPTS();
	if (known->done)
		return known->samples;
	if (known->begun)
	{
		smallest = smallest_sample(generator, schema);
		return smallest == NULL ? NIL : list_make1(smallest);
	}
	known->begun = true;
	known->samples = make_samples(generator, schema);
	if (schema->nullable)
		known->samples = add_sample(known->samples, null_value(), 1);
	known->done = true;
	return known->samples;
}

/* Names what a value is one of: the variant of a discriminator or the value of an enum. */
static void
name_variant(const Schema *schema, const JsonbValue *value, MakoInstance *instance)
{
	for (; schema->form == FORM_REF; schema = schema->child)
		;
	if (value->type == jbvString && schema->form == FORM_ENUM)
		instance->variant = pnstrdup(value->val.string.val, value->val.string.len);
	if (value->type != jbvObject || schema->form != FORM_DISCRIMINATOR)
		return;
	for (int i = 0; i < value->val.object.nPairs; i++)
	{
		const JsonbPair *pair = &value->val.object.pairs[i];

		if (compare_names(pair->key.val.string.val, pair->key.val.string.len, schema->name.name, schema->name.length) == 0)
		{
			const Member *variant = find_member(schema->members, schema->count, pair->value.val.string.val,
												pair->value.val.string.len);

			instance->variant = pnstrdup(variant->name, variant->length);
			instance->event_type = variant->schema->event_type != NULL ? variant->schema->event_type :
				cstring_to_text_with_len(variant->name, variant->length);
		}
	}
}

/*
 * Instances of a definition, as a list of MakoInstance; about limit at most, but one of every variant in any case. Those of a variant
 * stand together. None where the definition allows no finite value.
 */
List *
mako_instances_generate(const MakoTypeDefinition *definition, int limit)
{
	HASHCTL		control = {.keysize = sizeof(const Schema *),.entrysize = sizeof(Known),.hcxt = CurrentMemoryContext};
	Generator	generator = {.limit = limit,.keys = KEY_BUDGET};
	List	   *instances = NIL;
	ListCell   *cell;

	generator.known = hash_create("mako schemas", 64, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	note_schema(&generator, definition->root);
	find_smallest(&generator);
	foreach(cell, samples_of(&generator, definition->root))
	{
		Sample	   *sample = lfirst(cell);
		MakoInstance *instance = palloc0(sizeof(MakoInstance));

		CHECK_FOR_INTERRUPTS();
		name_variant(definition->root, &sample->value, instance);
		instance->value = JsonbValueToJsonb(&sample->value);
		instances = lappend(instances, instance);
	}
	hash_destroy(generator.known);
	return instances;
}

MAKO_FUNCTION(mako_instances);

/* Instances of a type definition, one a row. */
Datum
mako_instances(PG_FUNCTION_ARGS)
{
	MakoRowSet *rows = mako_rowset_begin(fcinfo);
	ListCell   *cell;

	foreach(cell, mako_instances_generate(mako_type_definition_compile(PG_GETARG_JSONB_P(0)), MAKO_INSTANCES))
	{
		const MakoInstance *instance = lfirst(cell);
		Datum		values[] = {
			instance->variant == NULL ? (Datum) 0 : CStringGetTextDatum(instance->variant), JsonbPGetDatum(instance->value)
		};
		bool		nulls[] = {instance->variant == NULL, false};

		mako_rowset_add(rows, values, nulls);
	}
	PG_RETURN_NULL();
}
