/*
 * instances.c
 *	  Instances of a type definition: values that it allows, so many and so different that code
 *	  that handles them has seen all forms.
 *
 * Among them are every variant of a discriminator, every value of an enum, each optional property
 * there and missing, null where it is allowed, numbers at the ends of their ranges, arrays and
 * maps with one element and with none. Properties vary one at a time, so that the number of
 * instances is the sum of what varies, not its product. The same definition gives the same
 * instances in the same order.
 *
 * A definition may refer to itself. Where it does, the smallest value stands in for what would
 * begin again; a schema without a finite value has no instance. Values are trees that share their
 * parts; everything lives in the current memory context.
 *
 * However large a definition is, time and memory are bounded: a schema makes its next sample when
 * one of its users asks for it, and there are limits to the number of instances, to the size of
 * each and of all, and to what is made on the way.
 */
#include "types/type_definition.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/hsearch.h"

/*
 * The size of one instance, and of all: JSON values in it, where so many bytes of a text or key
 * are another one.
 */
#define SIZE_LIMIT 10000
#define SIZE_LIMIT_OF_ALL 1000000
#define BYTES_PER_VALUE 100
#define NO_VALUE (SIZE_LIMIT + 1)

/*
 * Samples of all schemas and keys of their objects, after which a schema makes one sample at most.
 */
#define WORK_LIMIT 500000

/*
 * Passes over the schemas to find their smallest values; more than one only because of recursion.
 */
#define MOST_PASSES 100

/* A value of a schema. */
typedef struct Sample
{
	JsonbValue	value;
	int			size;
} Sample;

/* What an object's next sample is. */
typedef enum Stage
{
	STAGE_ALL,					/* everything that can be there */
	STAGE_REQUIRED,				/* what must be there */
	STAGE_MISSING,				/* all but one optional property */
	STAGE_ADDITIONAL,			/* another key */
	STAGE_OTHER,				/* another sample of one property */
} Stage;

/* What is known about a schema; an entry of a hash table. */
typedef struct Known
{
	const Schema *schema;		/* the key */
	int			size;			/* of its smallest value; NO_VALUE: it has none, or none is known
								 * yet */
	Sample	   *smallest;		/* NULL until they are asked for for it */
	List	   *samples;		/* so far; the first one is as ordinary as can be */
	bool		growing;		/* one is being made */
	bool		done;			/* there are no more */
	Stage		stage;			/* the next sample: of an object, */
	int			at;				/* for which member or sample of a part, */
	int			turn;			/* and with which sample of the member */
	bool		more;			/* a member had one in this turn */
	Sample	  **ordinary;		/* one for each property of an object; NULL: it is missing */
} Known;

typedef struct Generator
{
	HTAB	   *known;
	List	   *order;			/* of Known: what a schema is made of comes before it, but for
								 * recursion */
	int			limit;			/* samples of a schema */
	int64		work;			/* left of the limit */
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
	memset(known, 0, sizeof(Known));
	known->schema = schema;
	known->size = NO_VALUE;
	if (schema->child != NULL)
		note_schema(generator, schema->child);
	for (int i = 0; i < schema->count; i++)
		if (schema->members[i].schema != NULL)
			note_schema(generator, schema->members[i].schema);
	generator->order = lappend(generator->order, known);
}

/* The size of a text as a value. */
static int
text_size(int length)
{
	return Min(1 + length / BYTES_PER_VALUE, NO_VALUE);
}

/* What a key adds to the size of its object. */
static int
key_size(const MakoTypeMember *member)
{
	return text_size(member->length) - 1;
}

/* ---- the smallest value --------------------------------------------------------------------- */

/* The variant with the smallest value; NULL where none has one. */
static const MakoTypeMember *
smallest_variant(Generator *generator, const Schema *schema)
{
	const MakoTypeMember *smallest = NULL;
	int			size = NO_VALUE;

	for (int i = 0; i < schema->count; i++)
	{
		const MakoTypeMember *variant = &schema->members[i];

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
		case FORM_ENUM:
			return text_size(schema->members[0].length);
		case FORM_PROPERTIES:
			for (int i = 0; i < schema->count; i++)
				if (schema->members[i].required)
					size = Min(size + key_size(&schema->members[i]) +
							   known_about(generator, schema->members[i].schema)->size, NO_VALUE);
			return size;
		case FORM_DISCRIMINATOR:
			{
				const MakoTypeMember *variant = smallest_variant(generator, schema);

				return variant == NULL ? NO_VALUE :
					Min(known_about(generator, variant->schema)->size + key_size(&schema->name) +
						text_size(variant->length), NO_VALUE);
			}
		default:
			return 1;
	}
}

/*
 * Finds the sizes of all smallest values: they only become smaller, until nothing changes or it
 * takes too long.
 */
static void
find_smallest(Generator *generator)
{
	bool		changed = true;

	for (int pass = 0; changed && pass < MOST_PASSES; pass++)
	{
		ListCell   *cell;

		changed = false;
		foreach(cell, generator->order)
		{
			Known	   *known = lfirst(cell);
			int			size = smallest_size(generator, known->schema);

			CHECK_FOR_INTERRUPTS();
			changed = changed || size < known->size;
			known->size = Min(size, known->size);
		}
	}
}

/* ---- values --------------------------------------------------------------------------------- */

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

	value.val.numeric = DatumGetNumeric(DirectFunctionCall3(numeric_in, CStringGetDatum(digits),
															ObjectIdGetDatum(InvalidOid),
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

	for (; at > 0 && compare_by_length(pairs[at - 1].key.val.string.val,
									   pairs[at - 1].key.val.string.len, name, length) > 0; at--)
		pairs[at] = pairs[at - 1];
	pairs[at].key = string_value(name, length);
	pairs[at].value = *value;
	pairs[at].order = 0;
}

static Sample *smallest_sample(Generator *generator, const Schema *schema);

/* Makes the smallest value of a schema that has one. */
static JsonbValue
smallest_value(Generator *generator, const Schema *schema)
{
	JsonbValue	value;

	if (schema->nullable)
		return null_value();
	switch (schema->form)
	{
		case FORM_EMPTY:
			return null_value();
		case FORM_REF:
			return smallest_sample(generator, schema->child)->value;
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
					add_key(&value, schema->members[i].name, schema->members[i].length,
							&smallest_sample(generator, schema->members[i].schema)->value);
			return value;
		case FORM_DISCRIMINATOR:
			{
				const MakoTypeMember *variant = smallest_variant(generator, schema);
				JsonbValue	tag = string_value(variant->name, variant->length);

				/* A variant has properties of its own, or none, and room for the tag. */
				value = smallest_value(generator, variant->schema);
				add_key(&value, schema->name.name, schema->name.length, &tag);
				return value;
			}
	}
	return null_value();		/* cannot happen */
}

/* The smallest value as a sample, made once; NULL where there is none. */
static Sample *
smallest_sample(Generator *generator, const Schema *schema)
{
	Known	   *known = known_about(generator, schema);

	check_stack_depth();
	CHECK_FOR_INTERRUPTS();
	if (known->smallest == NULL && known->size < NO_VALUE)
	{
		Sample	   *sample = palloc(sizeof(Sample));

		sample->value = smallest_value(generator, schema);
		sample->size = known->size;
		known->smallest = sample;
	}
	return known->smallest;
}

/* ---- samples -------------------------------------------------------------------------------- */

static Sample *sample_at(Generator *generator, const Schema *schema, int number);

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
		samples = add_sample(samples, string_value(texts[i], strlen(texts[i])),
							 text_size(strlen(texts[i])));
	return samples;
}

/* Samples of a type: an ordinary one, then the ends of its range. */
static List *
scalar_samples(const Schema *schema)
{
	static const char *const texts[] = {"text", ""};
	static const char *const timestamps[] = {
		"2025-10-01T00:00:00Z", "2025-03-30T02:30:00.5+01:00", "0001-01-01T00:00:00Z",
		"9999-12-31T23:59:59Z"
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

/*
 * The next functions add the next sample of a schema, unless it is too large, and return false
 * where that was the last one.
 */

/* An array or a map: with an ordinary element, empty, then with elements of every other kind. */
static bool
grow_container(Generator *generator, Known *known)
{
	bool		is_map = known->schema->form == FORM_VALUES;
	JsonbValue	value = is_map ? object_value(1) : array_value(NULL);
	int			number = known->at++;
	const Sample *child = number == 1 ? NULL :
		sample_at(generator, known->schema->child, Max(number - 1, 0));
	int			size = 1;

	if (child == NULL && number > 1)
		return false;
	if (child != NULL)
	{
		size += child->size;
		if (is_map)
			add_key(&value, "key", 3, &child->value);
		else
			value = array_value(&child->value);
	}
	known->samples = add_sample(known->samples, value, size);
	return number > 0 || child != NULL;
}

/* Adds an object from one sample for each property, NULL for a property that is missing. */
static void
add_object(Generator *generator, Known *known, Sample *const *properties, const char *additional)
{
	const Schema *schema = known->schema;
	JsonbValue	value = object_value(schema->count + 2);	/* room for a tag */
	int64		size = 1;

	for (int i = 0; i < schema->count; i++)
		if (properties[i] != NULL)
		{
			add_key(&value, schema->members[i].name, schema->members[i].length,
					&properties[i]->value);
			size += key_size(&schema->members[i]) + properties[i]->size;
		}
	if (additional != NULL)
	{
		JsonbValue	null = null_value();

		add_key(&value, additional, strlen(additional), &null);
		size++;
	}
	generator->work -= schema->count;
	known->samples = add_sample(known->samples, value, (int) Min(size, NO_VALUE));
}

/* Adds an object that has another sample of one property, NULL for none. */
static void
add_variation(Generator *generator, Known *known, int property, Sample *sample)
{
	Sample	   *ordinary = known->ordinary[property];

	known->ordinary[property] = sample;
	add_object(generator, known, known->ordinary, NULL);
	known->ordinary[property] = ordinary;
}

/*
 * Chooses an ordinary sample for each property, or where they are too large together a small one
 * for those that must be there: then the ordinary ones have their turn one at a time. False where
 * a required one has none.
 */
static bool
choose_ordinary(Generator *generator, Known *known)
{
	const Schema *schema = known->schema;
	int64		size = 1;

	known->ordinary = palloc0(sizeof(Sample *) * (schema->count + 1));
	for (int i = 0; i < schema->count; i++)
	{
		known->ordinary[i] = sample_at(generator, schema->members[i].schema, 0);
		if (known->ordinary[i] == NULL && schema->members[i].required)
			return false;
		size += known->ordinary[i] == NULL ? 0 :
			key_size(&schema->members[i]) + known->ordinary[i]->size;
	}
	known->turn = size > SIZE_LIMIT ? 0 : 1;
	if (size > SIZE_LIMIT)
		for (int i = 0; i < schema->count; i++)
			known->ordinary[i] = schema->members[i].required ?
				smallest_sample(generator, schema->members[i].schema) : NULL;
	return true;
}

/*
 * Adds an object with what must be there only, unless that is the one with everything, or with one
 * property that is missing.
 */
static void
add_required(Generator *generator, Known *known)
{
	const Schema *schema = known->schema;
	Sample	  **properties = palloc0(sizeof(Sample *) * (schema->count + 1));
	int			optional = 0;

	for (int i = 0; i < schema->count; i++)
		if (schema->members[i].required)
			properties[i] = known->ordinary[i];
		else
			optional += known->ordinary[i] != NULL;
	if (optional > 1)
		add_object(generator, known, properties, NULL);
	pfree(properties);
}

/*
 * Adds an object with the next sample of some property: all their second ones, then the third.
 * False where there is none any more.
 */
static bool
add_other(Generator *generator, Known *known)
{
	const Schema *schema = known->schema;

	for (;;)
	{
		for (; known->at < schema->count; known->at++)
		{
			Sample	   *sample = sample_at(generator, schema->members[known->at].schema,
										   known->turn);

			if (sample == NULL)
				continue;
			known->more = true;
			add_variation(generator, known, known->at++, sample);
			return true;
		}
		if (!known->more)
			return false;
		known->more = false;
		known->at = 0;
		known->turn++;
	}
}

/*
 * An object: with everything, with what must be there, and with one property at a time that is
 * missing or another one.
 */
static bool
grow_object(Generator *generator, Known *known)
{
	const Schema *schema = known->schema;

	switch (known->stage)
	{
		case STAGE_ALL:
			known->stage = STAGE_REQUIRED;
			if (!choose_ordinary(generator, known))
				return false;
			add_object(generator, known, known->ordinary, NULL);
			return true;
		case STAGE_REQUIRED:
			known->stage = STAGE_MISSING;
			add_required(generator, known);
			return true;
		case STAGE_MISSING:
			for (; known->at < schema->count; known->at++)
				if (!schema->members[known->at].required && known->ordinary[known->at] != NULL)
				{
					add_variation(generator, known, known->at++, NULL);
					return true;
				}
			known->stage = STAGE_ADDITIONAL;
			return true;
		case STAGE_ADDITIONAL:
			known->stage = STAGE_OTHER;
			known->at = 0;
			if (schema->additional && find_member(schema->members, schema->count, "additional",
												  strlen("additional")) == NULL)
				add_object(generator, known, known->ordinary, "additional");
			return true;
		case STAGE_OTHER:
			return add_other(generator, known);
	}
	return false;				/* cannot happen */
}

/* An object with a tag: samples of every variant, the same number of each at most. */
static bool
grow_variants(Generator *generator, Known *known)
{
	const Schema *schema = known->schema;
	int			share = Max(generator->limit / Max(schema->count, 1), 1);
	const MakoTypeMember *variant;
	const Sample *fields;

	if (known->at == schema->count)
		return false;
	variant = &schema->members[known->at];
	fields = known->turn < share ? sample_at(generator, variant->schema, known->turn) : NULL;
	known->turn++;
	if (fields == NULL)
	{
		known->at++;
		known->turn = 0;
	}
	else
	{
		int			count = fields->value.val.object.nPairs;
		JsonbValue	tag = string_value(variant->name, variant->length);
		JsonbValue	value = object_value(count + 1);

		value.val.object.nPairs = count;
		memcpy(value.val.object.pairs, fields->value.val.object.pairs, sizeof(JsonbPair) * count);
		add_key(&value, schema->name.name, schema->name.length, &tag);
		generator->work -= count;
		known->samples = add_sample(known->samples, value,
									Min(fields->size + key_size(&schema->name) +
										text_size(variant->length), NO_VALUE));
	}
	return true;
}

/* Any schema, null apart. */
static bool
grow_candidates(Generator *generator, Known *known)
{
	const Schema *schema = known->schema;
	Sample	   *sample;

	switch (schema->form)
	{
		case FORM_EMPTY:
			known->samples = any_samples();
			return false;
		case FORM_REF:
			sample = sample_at(generator, schema->child, known->at++);
			if (sample != NULL)
				known->samples = lappend(known->samples, sample);
			return sample != NULL;
		case FORM_TYPE:
			known->samples = scalar_samples(schema);
			return false;
		case FORM_ENUM:
			if (known->at == schema->count)
				return false;
			known->samples = add_sample(known->samples,
										string_value(schema->members[known->at].name,
													 schema->members[known->at].length),
										text_size(schema->members[known->at].length));
			known->at++;
			return true;
		case FORM_ELEMENTS:
		case FORM_VALUES:
			return grow_container(generator, known);
		case FORM_PROPERTIES:
			return grow_object(generator, known);
		case FORM_DISCRIMINATOR:
			return grow_variants(generator, known);
	}
	return false;				/* cannot happen */
}

/*
 * Returns a sample of a schema by its number, NULL where there are not so many. While one is being
 * made, the smallest value stands in for the schema.
 */
static Sample *
sample_at(Generator *generator, const Schema *schema, int number)
{
	Known	   *known = known_about(generator, schema);

	check_stack_depth();
	CHECK_FOR_INTERRUPTS();
	if (known->growing)
		return number == 0 ? smallest_sample(generator, schema) : NULL;
	while (number >= list_length(known->samples) && !known->done)
	{
		known->growing = true;
		generator->work--;
		known->done = !grow_candidates(generator, known) ||
			list_length(known->samples) >= generator->limit - schema->nullable ||
			(generator->work <= 0 && known->samples != NIL);
		known->growing = false;
		if (known->done && schema->nullable)
			known->samples = add_sample(known->samples, null_value(), 1);
	}
	return number < list_length(known->samples) ? list_nth(known->samples, number) : NULL;
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

		if (compare_by_length(pair->key.val.string.val, pair->key.val.string.len, schema->name.name,
							  schema->name.length) == 0)
		{
			const MakoTypeMember *variant = find_member(schema->members, schema->count,
														pair->value.val.string.val,
														pair->value.val.string.len);

			instance->variant = pnstrdup(variant->name, variant->length);
			instance->event_type = variant->schema->event_type != NULL ?
				variant->schema->event_type :
				cstring_to_text_with_len(variant->name, variant->length);
		}
	}
}

/*
 * Instances of a definition, as a list of MakoInstance; so many at most, and fewer where they are
 * large. Those of a variant stand together. None where the definition allows no finite value.
 */
List *
mako_instances_generate(const MakoTypeDefinition *definition, int limit)
{
	HASHCTL		control = {
		.keysize = sizeof(const Schema *),.entrysize = sizeof(Known),.hcxt = CurrentMemoryContext
	};
	Generator	generator = {.limit = limit,.work = WORK_LIMIT};
	List	   *instances = NIL;
	Sample	   *sample;
	int			size = 0;

	generator.known = hash_create("mako schemas", 64, &control,
								  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	note_schema(&generator, definition->root);
	find_smallest(&generator);
	while (size < SIZE_LIMIT_OF_ALL &&
		   (sample = sample_at(&generator, definition->root, list_length(instances))) != NULL)
	{
		MakoInstance *instance = palloc0(sizeof(MakoInstance));

		name_variant(definition->root, &sample->value, instance);
		instance->value = JsonbValueToJsonb(&sample->value);
		instances = lappend(instances, instance);
		size += sample->size;
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

	foreach(cell, mako_instances_generate(mako_type_definition_compile(PG_GETARG_JSONB_P(0)),
										  MAKO_INSTANCES))
	{
		const MakoInstance *instance = lfirst(cell);
		NullableDatum values[] = {
			mako_text(instance->variant), mako_datum(JsonbPGetDatum(instance->value))
		};

		mako_rowset_add(rows, values);
	}
	PG_RETURN_NULL();
}
