/*
 * row.c
 *	  The values of the rows that statements give (sql.c), with the types that are expected.
 */
#include "gate/gate.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"

/* A bigint of a row, which must have one; the next ones are the same for other types. */
int64
mako_row_bigint(const MakoRows *rows, uint64 row, int column)
{
	return DatumGetInt64(mako_row_datum(rows, row, column, INT8OID));
}

int32
mako_row_integer(const MakoRows *rows, uint64 row, int column)
{
	return DatumGetInt32(mako_row_datum(rows, row, column, INT4OID));
}

bool
mako_row_boolean(const MakoRows *rows, uint64 row, int column)
{
	return DatumGetBool(mako_row_datum(rows, row, column, BOOLOID));
}

Oid
mako_row_oid(const MakoRows *rows, uint64 row, int column)
{
	return DatumGetObjectId(mako_row_datum(rows, row, column, OIDOID));
}

/* The same of a type that is an oid with another name. */
Oid
mako_row_oid_of(const MakoRows *rows, uint64 row, int column, Oid type)
{
	return DatumGetObjectId(mako_row_datum(rows, row, column, type));
}

TimestampTz
mako_row_timestamptz(const MakoRows *rows, uint64 row, int column)
{
	return DatumGetTimestampTz(mako_row_datum(rows, row, column, TIMESTAMPTZOID));
}

/* A bigint of a row; the other value for null. */
int64
mako_row_bigint_or(const MakoRows *rows, uint64 row, int column, int64 other)
{
	NullableDatum value = mako_row_value(rows, row, column, INT8OID);

	return value.isnull ? other : DatumGetInt64(value.value);
}

/* A text of a row, copied; NULL for null. */
char *
mako_row_text(const MakoRows *rows, uint64 row, int column)
{
	NullableDatum value = mako_row_value(rows, row, column, TEXTOID);

	return value.isnull ? NULL : TextDatumGetCString(value.value);
}

/* A uuid of a row, copied; NULL for null. */
pg_uuid_t *
mako_row_uuid(const MakoRows *rows, uint64 row, int column)
{
	NullableDatum value = mako_row_value(rows, row, column, UUIDOID);

	return value.isnull ? NULL :
		memcpy(palloc(sizeof(pg_uuid_t)), DatumGetUUIDP(value.value), sizeof(pg_uuid_t));
}

/* Adds the rows of a statement, whose columns have the types of these, and frees them. */
void
mako_rowset_add_rows(MakoRowSet *rows, MakoRows added)
{
	TupleDesc	type = mako_rowset_type(rows);
	int			width = type->natts;
	NullableDatum *values = palloc(sizeof(NullableDatum) * width);

	for (uint64 row = 0; row < added.count; row++)
	{
		CHECK_FOR_INTERRUPTS();
		for (int i = 0; i < width; i++)
			values[i] = mako_row_value(&added, row, i + 1, TupleDescAttr(type, i)->atttypid);
		mako_rowset_add(rows, values);
	}
	mako_rows_free(&added);
}
