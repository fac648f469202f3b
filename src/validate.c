/*
 * validate.c
 *	  Type definitions for everybody: mako_is_valid() and mako_validate().
 */
#include "mako_migration.h"

#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"

/* The definition that a call site compiled last; lives as long as the call site. */
typedef struct Compiled
{
	MemoryContext context;
	Jsonb	   *source;
	MakoTypeDefinition *definition;
} Compiled;

/* Compiles a definition, unless it is the one that this call site had last. */
static MakoTypeDefinition *
compile(FunctionCallInfo fcinfo, Jsonb *source)
{
	Compiled   *compiled = fcinfo->flinfo->fn_extra;
	MemoryContext old;

	if (compiled != NULL && compiled->definition != NULL && VARSIZE(source) == VARSIZE(compiled->source) &&
		memcmp(source, compiled->source, VARSIZE(source)) == 0)
		return compiled->definition;

	if (compiled == NULL)
	{
		compiled = MemoryContextAllocZero(fcinfo->flinfo->fn_mcxt, sizeof(Compiled));
		compiled->context = AllocSetContextCreate(fcinfo->flinfo->fn_mcxt, "mako type definition", ALLOCSET_SMALL_SIZES);
		fcinfo->flinfo->fn_extra = compiled;
	}
	MemoryContextReset(compiled->context);
	compiled->definition = NULL;
	old = MemoryContextSwitchTo(compiled->context);
	compiled->source = memcpy(palloc(VARSIZE(source)), source, VARSIZE(source));
	compiled->definition = mako_type_definition_compile(source);
	MemoryContextSwitchTo(old);
	return compiled->definition;
}

MAKO_FUNCTION(mako_is_valid);
MAKO_FUNCTION(mako_validate);

/* Does an instance match a type definition? */
Datum
mako_is_valid(PG_FUNCTION_ARGS)
{
	MakoTypeDefinition *definition = compile(fcinfo, PG_GETARG_JSONB_P(0));

	PG_RETURN_BOOL(mako_type_definition_check(definition, PG_GETARG_JSONB_P(1), NULL, NULL));
}

/* Where the rows of mako_validate() go. */
typedef struct Rows
{
	Tuplestorestate *store;
	TupleDesc	tupdesc;
	MemoryContext row_context;	/* reset per row */
} Rows;

/* Adds an error as a row. */
static void
add_row(void *argument, const MakoPath *instance_path, const MakoPath *schema_path)
{
	Rows	   *rows = argument;
	MemoryContext old;
	Datum		values[2];
	bool		nulls[] = {false, false};

	MemoryContextReset(rows->row_context);
	old = MemoryContextSwitchTo(rows->row_context);
	values[0] = CStringGetTextDatum(mako_path_to_text(instance_path));
	values[1] = CStringGetTextDatum(mako_path_to_text(schema_path));
	tuplestore_putvalues(rows->store, rows->tupdesc, values, nulls);
	MemoryContextSwitchTo(old);
}

/* Every error of an instance, a row each. */
Datum
mako_validate(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Rows		rows;
	MemoryContext old;

	if (result == NULL || !IsA(result, ReturnSetInfo) || (result->allowedModes & SFRM_Materialize) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("mako_validate() was called where no rows can be returned"),
				 errhint("Use SELECT * FROM mako_validate(...).")));

	old = MemoryContextSwitchTo(result->econtext->ecxt_per_query_memory);
	if (get_call_result_type(fcinfo, NULL, &rows.tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");	/* cannot happen */
	rows.store = tuplestore_begin_heap((result->allowedModes & SFRM_Materialize_Random) != 0, false, work_mem);
	MemoryContextSwitchTo(old);
	rows.row_context = AllocSetContextCreate(CurrentMemoryContext, "mako row", ALLOCSET_SMALL_SIZES);
	(void) mako_type_definition_check(compile(fcinfo, PG_GETARG_JSONB_P(0)), PG_GETARG_JSONB_P(1), add_row, &rows);
	result->returnMode = SFRM_Materialize;
	result->setResult = rows.store;
	result->setDesc = rows.tupdesc;
	PG_RETURN_NULL();
}
