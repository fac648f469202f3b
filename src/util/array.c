/*
 * array.c
 *	  Arrays of one dimension, as statements and results take them.
 */
#include "util/util.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

/* An array of these values of a type; without nulls, none of them is null. */
Datum
mako_array(Datum *values, bool *nulls, int count, Oid type)
{
	int			lower_bound = 1;
	int16		length;
	bool		by_value;
	char		align;

	if (count == 0)
		return PointerGetDatum(construct_empty_array(type));
	get_typlenbyvalalign(type, &length, &by_value, &align);
	return PointerGetDatum(construct_md_array(values, nulls, 1, &count, &lower_bound, type, length,
											  by_value, align));
}

/* A bigint[] of these numbers. */
Datum
mako_bigint_array(const int64 *numbers, int count)
{
	Datum	   *values = palloc(sizeof(Datum) * (count + 1));
	Datum		array;

	for (int i = 0; i < count; i++)
		values[i] = Int64GetDatum(numbers[i]);
	array = mako_array(values, NULL, count, INT8OID);
	pfree(values);
	return array;
}

/* A text[] of these strings. */
Datum
mako_text_array(const char *const *strings, int count)
{
	Datum	   *values = palloc(sizeof(Datum) * (count + 1));

	for (int i = 0; i < count; i++)
		values[i] = CStringGetTextDatum(strings[i]);
	return mako_array(values, NULL, count, TEXTOID);
}
