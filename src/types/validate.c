/*
 * validate.c
 *	  Type definitions for SQL: mako_is_valid() and mako_validate().
 */
#include "types/types.h"

#include "utils/builtins.h"
#include "utils/memutils.h"

/* The definition that a call site compiled last; lives as long as the call site. */
typedef struct Compiled
{
	MemoryContext context;
	Jsonb	   *source;
	MakoTypeDefinition *definition;
} Compiled;

/* Compiles a definition, unless it is the one that this call site had last. */
static MakoTypeDefinition *
compile_definition(FunctionCallInfo fcinfo, Jsonb *source)
{
	Compiled   *compiled = fcinfo->flinfo->fn_extra;
	MemoryContext old;

	if (compiled != NULL && compiled->definition != NULL &&
		VARSIZE(source) == VARSIZE(compiled->source) &&
		memcmp(source, compiled->source, VARSIZE(source)) == 0)
		return compiled->definition;

	if (compiled == NULL)
	{
		compiled = MemoryContextAllocZero(fcinfo->flinfo->fn_mcxt, sizeof(Compiled));
		compiled->context = AllocSetContextCreate(fcinfo->flinfo->fn_mcxt, "mako type definition",
												  ALLOCSET_SMALL_SIZES);
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

/* Returns true if an instance matches a type definition. */
Datum
mako_is_valid(PG_FUNCTION_ARGS)
{
	MakoTypeDefinition *definition = compile_definition(fcinfo, PG_GETARG_JSONB_P(0));

	PG_RETURN_BOOL(mako_type_definition_check(definition, PG_GETARG_JSONB_P(1), NULL, NULL));
}

/* Where the errors of a value go. */
typedef struct ErrorRows
{
	MakoRowSet *rows;
	MemoryContext context;		/* reset per row */
} ErrorRows;

/* Adds an error as a row. */
static void
add_error(void *argument, const MakoPath *instance_path, const MakoPath *schema_path)
{
	ErrorRows  *errors = argument;
	MemoryContext old;
	NullableDatum values[2];

	MemoryContextReset(errors->context);
	old = MemoryContextSwitchTo(errors->context);
	values[0] = mako_text(mako_path_to_text(instance_path));
	values[1] = mako_text(mako_path_to_text(schema_path));
	mako_rowset_add(errors->rows, values);
	MemoryContextSwitchTo(old);
}

/* Every error of an instance, a row each. */
Datum
mako_validate(PG_FUNCTION_ARGS)
{
	ErrorRows	errors = {mako_rowset_begin(fcinfo)};

	errors.context = AllocSetContextCreate(CurrentMemoryContext, "mako row", ALLOCSET_SMALL_SIZES);
	(void) mako_type_definition_check(compile_definition(fcinfo, PG_GETARG_JSONB_P(0)),
									  PG_GETARG_JSONB_P(1), add_error, &errors);
	PG_RETURN_NULL();
}
