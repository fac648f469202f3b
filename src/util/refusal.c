/*
 * refusal.c
 *	  How a function refuses a stream: mako_reject(), mako_required() and null results.
 *
 * A refusal is an error like any other. Where a program runs natively, though, nothing needs to be
 * cleaned up after it: then the refusal is taken down, the program goes on with a null, and the
 * fold looks for a refusal when it is through. That spares a long jump and a subtransaction, which
 * cost as much as folding some streams. Only the first refusal of a program counts, and whatever
 * the program still raises does not count beside it. What is taken down lives in the memory
 * context of the evaluation, a stream's.
 */
#include "util/util.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

MAKO_FUNCTION(mako_reject);
MAKO_FUNCTION(mako_required);

/* Takes down a refusal in the current memory context; raises it where it is not wanted. */
void
mako_refuse(MakoRefusal *refusal, int sqlerrcode, char *message, char *hint)
{
	if (refusal == NULL)
		ereport(ERROR,
				(errcode(sqlerrcode),
				 errmsg_internal("%s", message),
				 hint != NULL ? errhint("%s", hint) : 0));
	if (refusal->sqlerrcode != 0)
		return;
	refusal->sqlerrcode = sqlerrcode;
	refusal->message = message;
	refusal->hint = hint;
}

/* A refusal as the error that it would have been, in the current memory context. */
ErrorData *
mako_refusal_to_error(const MakoRefusal *refusal)
{
	ErrorData  *error = palloc0(sizeof(ErrorData));

	error->elevel = ERROR;
	error->sqlerrcode = refusal->sqlerrcode;
	error->message = pstrdup(refusal->message);
	error->hint = refusal->hint == NULL ? NULL : pstrdup(refusal->hint);
	error->assoc_context = CurrentMemoryContext;
	return error;
}

/* Refuses, with a reason that the report shows. */
static void
reject(FunctionCallInfo fcinfo, MakoRefusal *refusal)
{
	mako_refuse(refusal, MAKO_ERRCODE_REJECTED, mako_argument_text(fcinfo, 0, "reason"), NULL);
}

/* See the install script. */
Datum
mako_reject(PG_FUNCTION_ARGS)
{
	reject(fcinfo, NULL);
	PG_RETURN_NULL();
}

/* Where the refusal of a call goes. */
static MakoRefusal *
sink_of(FunctionCallInfo fcinfo)
{
	return ((const MakoRefusals *) fcinfo->context)->refusal;
}

/* The same in a program, where the refusal may be taken down. */
Datum
mako_reject_in_program(PG_FUNCTION_ARGS)
{
	reject(fcinfo, sink_of(fcinfo));
	PG_RETURN_NULL();
}

/* A path as text, for an error. */
static char *
path_to_text(ArrayType *path)
{
	Datum	   *keys;
	bool	   *nulls;
	int			count;
	StringInfoData buffer;

	deconstruct_array(path, TEXTOID, -1, false, TYPALIGN_INT, &keys, &nulls, &count);
	initStringInfo(&buffer);
	for (int i = 0; i < count; i++)
		appendStringInfo(&buffer, "/%s", nulls[i] ? "null" : TextDatumGetCString(keys[i]));
	return buffer.data;
}

/* The value at a path, which must be there. */
static Datum
required(FunctionCallInfo fcinfo, MakoRefusal *refusal)
{
	mako_require_value(!PG_ARGISNULL(1), "path");
	if (!PG_ARGISNULL(0))
	{
		LOCAL_FCINFO(extract, 2);
		Datum		value;

		InitFunctionCallInfoData(*extract, fcinfo->flinfo, 2, PG_GET_COLLATION(), NULL, NULL);
		extract->args[0] = fcinfo->args[0];
		extract->args[1] = fcinfo->args[1];
		value = jsonb_extract_path(extract);
		if (!extract->isnull)
			PG_RETURN_DATUM(value);
	}
	mako_refuse(refusal, MAKO_ERRCODE_REQUIRED,
				psprintf("required path \"%s\" is missing", path_to_text(PG_GETARG_ARRAYTYPE_P(1))),
				NULL);
	PG_RETURN_NULL();
}

/* See the install script. */
Datum
mako_required(PG_FUNCTION_ARGS)
{
	return required(fcinfo, NULL);
}

/* The same in a program, where the refusal may be taken down. */
Datum
mako_required_in_program(PG_FUNCTION_ARGS)
{
	return required(fcinfo, sink_of(fcinfo));
}
