/*
 * author.c
 *	  What the authors of apply, upcast and migrate test with: folding and migrating without a
 *	  store.
 */
#include "fold/fold.h"

#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"

MAKO_FUNCTION(mako_fold);
MAKO_FUNCTION(mako_migrate_state);

/* Raises that an element of the array of events is not an event. */
static void
raise_no_event(int64 number, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("element " INT64_FORMAT " of the events is not an event", number),
			 errdetail_internal("%s", detail),
			 errhint("An event is {\"event_type\": ..., "
					 "\"schema_version\": ..., \"payload\": ...}.")));
}

/* One element of the array of events. */
static MakoEvent
read_new_event(const JsonbValue *element, int64 number)
{
	MakoEvent	event = {.sequence_number = number,.schema_version = 1};
	JsonbContainer *object = element->val.binary.data;
	JsonbValue *field;

	if (element->type != jbvBinary || !JsonContainerIsObject(object))
		raise_no_event(number, "It is not a JSON object.");
	field = getKeyJsonValueFromContainer(object, "event_type", strlen("event_type"), NULL);
	if (field == NULL || field->type != jbvString)
		raise_no_event(number, "It has no event_type that is a string.");
	event.event_type = PointerGetDatum(cstring_to_text_with_len(field->val.string.val,
																field->val.string.len));
	field = getKeyJsonValueFromContainer(object, "schema_version", strlen("schema_version"), NULL);
	if (field != NULL)
	{
		const char *digits = field->type != jbvNumeric ? "" :
			DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(field->val.numeric)));

		/* An integer column's range, without its rounding. */
		if (*digits == '\0' || strlen(digits) > 9 ||
			strspn(digits, "0123456789") != strlen(digits) || atoi(digits) < 1)
			raise_no_event(number, "Its schema_version is not a whole number of 1 or more.");
		event.schema_version = atoi(digits);
	}
	field = getKeyJsonValueFromContainer(object, "payload", strlen("payload"), NULL);
	if (field == NULL)
		raise_no_event(number, "It has no payload.");
	event.payload = JsonbPGetDatum(JsonbValueToJsonb(field));
	return event;
}

/*
 * Raises unless a role may execute a function itself: what he lets it work on is his own, and it
 * works with its owner's rights. Does nothing for none.
 */
static void
require_execute(const MakoFunction *function, Oid caller)
{
	if (function != NULL && MakoFunctionAclCheck(function->oid, caller) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FUNCTION, get_func_name(function->oid));
}

/* The state after folding an array of events. */
Datum
mako_fold(PG_FUNCTION_ARGS)
{
	Oid			caller = GetUserId();
	char	   *workflow_id = TextDatumGetCString(PG_GETARG_DATUM(0));
	Jsonb	   *events = PG_GETARG_JSONB_P(1);
	MakoConnection connection;
	MakoPlan   *plan;
	MakoFold   *fold;
	ErrorContextCallback context = {error_context_stack, mako_fold_context};
	Jsonb	   *state;

	if (!JB_ROOT_IS_ARRAY(events) || JB_ROOT_IS_SCALAR(events))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("events must be a JSON array")));
	connection = mako_sql_connect();
	plan = mako_plan_create(workflow_id, workflow_id);
	require_execute(plan->workflows[0]->upcast, caller);
	require_execute(plan->workflows[0]->apply, caller);
	fold = mako_fold_create(plan);
	mako_fold_require_apply(fold);
	context.arg = fold;
	error_context_stack = &context;
	mako_fold_begin(fold, JsonbPGetDatum(plan->workflows[0]->initial_state), 0);
	for (uint32 i = 0; i < JB_ROOT_COUNT(events); i++)
	{
		MakoEvent	event;

		fold->phase = MAKO_PHASE_LOAD;
		fold->sequence_number = i + 1;
		event = read_new_event(getIthJsonbValueFromContainer(&events->root, i), i + 1);
		(void) mako_fold_event(fold, &event);
	}
	state = DatumGetJsonbPCopy(fold->state);
	error_context_stack = context.previous;
	mako_sql_disconnect(connection);
	PG_RETURN_JSONB_P(state);
}

/* A state taken through the registered steps. */
Datum
mako_migrate_state(PG_FUNCTION_ARGS)
{
	char	   *source_wf = TextDatumGetCString(PG_GETARG_DATUM(0));
	char	   *target_wf = TextDatumGetCString(PG_GETARG_DATUM(1));
	Oid			caller = GetUserId();
	MakoConnection connection = mako_sql_connect();
	MakoPlan   *plan = mako_plan_create(source_wf, target_wf);
	MakoFold   *fold;
	ErrorContextCallback context = {error_context_stack, mako_fold_context};
	Jsonb	   *state;

	for (int i = 0; i < plan->steps; i++)
		require_execute(plan->migrations[i]->migrate, caller);
	fold = mako_fold_create(plan);
	context.arg = fold;
	error_context_stack = &context;
	mako_fold_begin(fold, PG_GETARG_DATUM(2), 0);
	(void) mako_fold_migrate(fold);
	state = DatumGetJsonbPCopy(fold->state);
	error_context_stack = context.previous;
	mako_sql_disconnect(connection);
	PG_RETURN_JSONB_P(state);
}
