/*
 * rowset.c
 *	  What functions have in common at their borders: arguments that must not be null, and rows as
 *	  a result.
 */
#include "util/util.h"

#include "access/htup_details.h"
#include "executor/tuptable.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/tuplestore.h"

/* Raises unless an argument has a value. */
void
mako_require_value(bool has_value, const char *name)
{
	if (!has_value)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", name)));
}

/* The text of an argument that must not be null. */
char *
mako_argument_text(FunctionCallInfo fcinfo, int argument, const char *name)
{
	mako_require_value(!PG_ARGISNULL(argument), name);
	return TextDatumGetCString(PG_GETARG_DATUM(argument));
}

/* The row type of what the current call returns. */
TupleDesc
mako_result_type(FunctionCallInfo fcinfo)
{
	TupleDesc	type;

	if (get_call_result_type(fcinfo, NULL, &type) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");	/* cannot happen */
	return BlessTupleDesc(type);
}

/* A row of a blessed type, as a value. */
Datum
mako_result_row(TupleDesc type, const NullableDatum *values)
{
	Datum	   *plain = palloc(sizeof(Datum) * type->natts);
	bool	   *nulls = palloc(sizeof(bool) * type->natts);

	for (int i = 0; i < type->natts; i++)
	{
		plain[i] = values[i].value;
		nulls[i] = values[i].isnull;
	}
	return HeapTupleGetDatum(heap_form_tuple(type, plain, nulls));
}

/* Where the rows of a call go; lives in the context in which it was begun. */
struct MakoRowSet
{
	Tuplestorestate *store;		/* NULL: they are sent */
	MakoRowSender send;
	void	   *argument;		/* of that */
	int64		stream_no;		/* that the rows are about; for the same */
	TupleTableSlot *slot;		/* for rows that are complete */
	TupleDesc	tupdesc;
	Datum	   *values;			/* of the current row */
	bool	   *nulls;
};

/* Begins the rows of the current call, which must be one that can return rows. */
MakoRowSet *
mako_rowset_begin(FunctionCallInfo fcinfo)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	MakoRowSet *rows = palloc0(sizeof(MakoRowSet));
	MemoryContext old;

	if (result == NULL || !IsA(result, ReturnSetInfo) ||
		(result->allowedModes & SFRM_Materialize) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s() was called where no rows can be returned",
						get_func_name(fcinfo->flinfo->fn_oid)),
				 errhint("Call it in FROM.")));

	old = MemoryContextSwitchTo(result->econtext->ecxt_per_query_memory);
	rows->tupdesc = mako_result_type(fcinfo);
	rows->values = palloc(sizeof(Datum) * rows->tupdesc->natts);
	rows->nulls = palloc(sizeof(bool) * rows->tupdesc->natts);
	rows->store = tuplestore_begin_heap((result->allowedModes & SFRM_Materialize_Random) != 0,
										false, work_mem);
	MemoryContextSwitchTo(old);
	result->returnMode = SFRM_Materialize;
	result->setResult = rows->store;
	result->setDesc = rows->tupdesc;
	return rows;
}

/* Begins rows of a function that are sent to the process in which it was called. */
MakoRowSet *
mako_rowset_begin_sending(Oid function, MakoRowSender send, void *argument)
{
	MakoRowSet *rows = palloc0(sizeof(MakoRowSet));
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "function %u is missing", function);	/* cannot happen */
	rows->tupdesc = build_function_result_tupdesc_t(tuple);
	ReleaseSysCache(tuple);
	rows->values = palloc(sizeof(Datum) * rows->tupdesc->natts);
	rows->nulls = palloc(sizeof(bool) * rows->tupdesc->natts);
	rows->send = send;
	rows->argument = argument;
	return rows;
}

/* The rows that are added from now on are about this stream. */
void
mako_rowset_at(MakoRowSet *rows, int64 stream_no)
{
	rows->stream_no = stream_no;
}

/* The row type, for values that depend on it. */
TupleDesc
mako_rowset_type(const MakoRowSet *rows)
{
	return rows->tupdesc;
}

/* Adds a row. */
void
mako_rowset_add(MakoRowSet *rows, const NullableDatum *values)
{
	for (int i = 0; i < rows->tupdesc->natts; i++)
	{
		rows->values[i] = values[i].value;
		rows->nulls[i] = values[i].isnull;
	}
	if (rows->store != NULL)
		tuplestore_putvalues(rows->store, rows->tupdesc, rows->values, rows->nulls);
	else
	{
		MinimalTuple row = MakoFormMinimalTuple(rows->tupdesc, rows->values, rows->nulls);

		rows->send(rows->argument, rows->stream_no, row);
		pfree(row);
	}
}

/* Adds a row that is complete. */
void
mako_rowset_add_tuple(MakoRowSet *rows, MinimalTuple row)
{
	if (rows->slot == NULL)
		rows->slot = MakeSingleTupleTableSlot(rows->tupdesc, &TTSOpsMinimalTuple);
	ExecForceStoreMinimalTuple(row, rows->slot, false);
	tuplestore_puttupleslot(rows->store, rows->slot);
	ExecClearTuple(rows->slot);
}

/* Takes all rows back. */
void
mako_rowset_clear(MakoRowSet *rows)
{
	tuplestore_clear(rows->store);
}
