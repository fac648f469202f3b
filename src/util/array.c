/*
 * array.c
 *	  Arrays of one dimension, as statements and results take them; and copies of stored values.
 */
#include "util/util.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

/* An array of these values of a type. */
NullableDatum
mako_array(const NullableDatum *values, int count, Oid type)
{
	Datum	   *elements = palloc(sizeof(Datum) * (count + 1));
	bool	   *nulls = palloc(sizeof(bool) * (count + 1));
	int			lower_bound = 1;
	int16		length;
	bool		by_value;
	char		align;

	if (count == 0)
		return mako_datum(PointerGetDatum(construct_empty_array(type)));
	for (int i = 0; i < count; i++)
	{
		elements[i] = values[i].value;
		nulls[i] = values[i].isnull;
	}
	get_typlenbyvalalign(type, &length, &by_value, &align);
	return mako_datum(PointerGetDatum(construct_md_array(elements, nulls, 1, &count, &lower_bound,
														 type, length, by_value, align)));
}

/* A bigint[] of these numbers. */
NullableDatum
mako_bigint_array(const int64 *numbers, int count)
{
	NullableDatum *values = palloc(sizeof(NullableDatum) * (count + 1));

	for (int i = 0; i < count; i++)
		values[i] = mako_bigint(numbers[i]);
	return mako_array(values, count, INT8OID);
}

/* A text[] of these strings. */
NullableDatum
mako_text_array(const char *const *strings, int count)
{
	NullableDatum *values = palloc(sizeof(NullableDatum) * (count + 1));

	for (int i = 0; i < count; i++)
		values[i] = mako_text(strings[i]);
	return mako_array(values, count, TEXTOID);
}

/*
 * A copy of a value as it is stored. It is not detoasted here: a damaged one must fail its own
 * stream, when it is read.
 */
Datum
mako_copy_stored(Datum value)
{
	const struct varlena *bytes = (const struct varlena *) DatumGetPointer(value);

	return PointerGetDatum(memcpy(palloc(VARSIZE_ANY(bytes)), bytes, VARSIZE_ANY(bytes)));
}
