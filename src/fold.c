/*
 * fold.c
 *	  Upcast, apply, migrate and check: one stream at a time.
 *
 * The fold owns two memory contexts for the stream at hand. States and payloads pile up in one of them; when it has grown, the state
 * moves to the other one and the first is emptied, so that a stream of any length folds in little memory. Nothing here knows of SQL
 * or transactions: what goes wrong is raised, and the caller reads the phase and the event from the fold.
 */
#include "mako_migration.h"

#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/memutils.h"

/* What a stream's context may grow to before the state moves on. */
#define STREAM_CONTEXT_LIMIT (1024 * 1024)

const char *const mako_phase_name[] = {
	[MAKO_PHASE_LOAD] = "load",
	[MAKO_PHASE_UPCAST] = "upcast",
	[MAKO_PHASE_EVENT] = "event",
	[MAKO_PHASE_APPLY] = "apply",
	[MAKO_PHASE_MIGRATE] = "migrate",
	[MAKO_PHASE_STATE] = "state",
	[MAKO_PHASE_SNAPSHOT] = "snapshot",
	[MAKO_PHASE_REGISTRY] = "registry",
};

/* Compiles everything that the plan needs; the fold lives in the current memory context. */
MakoFold *
mako_fold_create(const MakoPlan *plan)
{
	MakoFold   *fold = palloc0(sizeof(MakoFold));
	const MakoWorkflow *source = plan->workflows[0];

	fold->plan = plan;
	fold->parameters = mako_program_parameters();
	fold->upcast = mako_program_compile(source->upcast);
	fold->apply = mako_program_compile(source->apply);
	fold->in_flight = mako_program_compile(source->in_flight);
	fold->state_check = mako_program_compile_check(source->apply);
	fold->migrate = palloc(sizeof(MakoProgram *) * (plan->steps + 1));
	fold->check = palloc(sizeof(MakoProgram *) * (plan->steps + 1));
	for (int i = 0; i < plan->steps; i++)
	{
		fold->migrate[i] = mako_program_compile(plan->migrations[i]->migrate);
		fold->check[i] = mako_program_compile_check(plan->workflows[i + 1]->apply);
	}
	fold->program_context = AllocSetContextCreate(CurrentMemoryContext, "mako programs", ALLOCSET_DEFAULT_SIZES);
	fold->stream_context = AllocSetContextCreate(CurrentMemoryContext, "mako stream", ALLOCSET_DEFAULT_SIZES);
	fold->spare_context = AllocSetContextCreate(CurrentMemoryContext, "mako stream (spare)", ALLOCSET_DEFAULT_SIZES);
	mako_fold_recover(fold);
	return fold;
}

/* Frees what belongs to the stream folded last. */
void
mako_fold_release(MakoFold *fold)
{
	MemoryContextReset(fold->program_context);
	MemoryContextReset(fold->stream_context);
	MemoryContextReset(fold->spare_context);
}

/* Raises unless there is a function to fold with. */
void
mako_fold_require_apply(const MakoFold *fold)
{
	if (fold->apply == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("workflow \"%s\" has no apply function", fold->plan->workflows[0]->workflow_id)));
}

/* Where a fold is, for the context of an error; an ErrorContextCallback. */
void
mako_fold_context(void *argument)
{
	const MakoFold *fold = argument;

	if (fold->sequence_number > 0)
		errcontext("event " INT64_FORMAT ", phase %s", fold->sequence_number, mako_phase_name[fold->phase]);
	else
		errcontext("phase %s", mako_phase_name[fold->phase]);
}

/* Makes the evaluation state of all programs anew: at first, and after an error left one of them in the middle. */
void
mako_fold_recover(MakoFold *fold)
{
	MemoryContext old;

	MemoryContextReset(fold->program_context);
	old = MemoryContextSwitchTo(fold->program_context);
	fold->expression_context = mako_program_context(fold->parameters);
	mako_program_prepare(fold->upcast, fold->expression_context);
	mako_program_prepare(fold->apply, fold->expression_context);
	mako_program_prepare(fold->in_flight, fold->expression_context);
	mako_program_prepare(fold->state_check, fold->expression_context);
	for (int i = 0; i < fold->plan->steps; i++)
	{
		mako_program_prepare(fold->migrate[i], fold->expression_context);
		mako_program_prepare(fold->check[i], fold->expression_context);
	}
	MemoryContextSwitchTo(old);
}

/* Takes a value as the state, which must be in stream_context or live longer. */
static void
set_state(MakoFold *fold, Datum state)
{
	fold->state = state;
	mako_program_bind(fold->parameters, MAKO_PARAMETER_STATE, state);
}

/* Starts a stream from a stored or initial state (jsonb, possibly toasted). */
void
mako_fold_begin(MakoFold *fold, Datum state, int64 sequence_number)
{
	MemoryContext old;

	MemoryContextReset(fold->stream_context);
	ResetExprContext(fold->expression_context);
	fold->phase = MAKO_PHASE_LOAD;
	fold->sequence_number = sequence_number;
	old = MemoryContextSwitchTo(fold->stream_context);
	set_state(fold, JsonbPGetDatum(DatumGetJsonbPCopy(state)));
	MemoryContextSwitchTo(old);
}

/* Raises that a function returned null, which is how an unhandled case looks. */
static void
raise_null_result(const MakoFunction *function, const char *hint)
{
	ereport(ERROR,
			(errcode(MAKO_ERRCODE_NULL_RESULT),
			 errmsg("function %s returned null", function->signature),
			 errhint("%s", hint)));
}

/* Evaluates a function's program in a phase. */
static Datum
call(MakoFold *fold, MakoPhase phase, MakoProgram *program, const MakoFunction *function, const char *null_hint)
{
	bool		isnull;
	Datum		result;

	fold->phase = phase;
	result = mako_program_evaluate(program, NULL, &isnull);
	if (isnull)
		raise_null_result(function, null_hint);
	return result;
}

/* Folds one event into the state. */
void
mako_fold_event(MakoFold *fold, const MakoEvent *event)
{
	const MakoWorkflow *source = fold->plan->workflows[0];
	MemoryContext old = MemoryContextSwitchTo(fold->stream_context);
	Datum		payload;

	CHECK_FOR_INTERRUPTS();
	fold->phase = MAKO_PHASE_LOAD;
	fold->sequence_number = event->sequence_number;
	/* Copied, because the state may come to point into them, and the reader's memory is gone by the next event. */
	mako_program_bind(fold->parameters, MAKO_PARAMETER_EVENT_TYPE, PointerGetDatum(DatumGetTextPCopy(event->event_type)));
	mako_program_bind(fold->parameters, MAKO_PARAMETER_SCHEMA_VERSION, Int32GetDatum(event->schema_version));
	payload = JsonbPGetDatum(DatumGetJsonbPCopy(event->payload));
	mako_program_bind(fold->parameters, MAKO_PARAMETER_PAYLOAD, payload);

	fold->phase = MAKO_PHASE_UPCAST;
	if (fold->upcast != NULL)
	{
		payload = call(fold, MAKO_PHASE_UPCAST, fold->upcast, source->upcast,
					   "Handle every event type and schema version, or refuse it with mako_reject().");
		mako_program_bind(fold->parameters, MAKO_PARAMETER_PAYLOAD, payload);
	}
	else if (event->schema_version != 1)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("schema version %d of event type \"%s\" is not known",
						event->schema_version, TextDatumGetCString(event->event_type)),
				 errdetail("Workflow \"%s\" has no upcast function, so it knows schema version 1 only.", source->workflow_id),
				 errhint("Register an upcast function.")));

	fold->phase = MAKO_PHASE_EVENT;
	if (source->event_type != NULL)
		mako_type_definition_require_event(source->event_type, DatumGetTextPP(event->event_type), DatumGetJsonbP(payload));
	set_state(fold, call(fold, MAKO_PHASE_APPLY, fold->apply, source->apply,
						 "A CASE without ELSE is null for an event type that it does not handle."));
	MemoryContextSwitchTo(old);

	if (MemoryContextMemAllocated(fold->stream_context, false) > STREAM_CONTEXT_LIMIT)
	{
		MemoryContext full = fold->stream_context;

		old = MemoryContextSwitchTo(fold->spare_context);
		set_state(fold, datumCopy(fold->state, false, -1));
		MemoryContextSwitchTo(old);
		MemoryContextReset(full);
		fold->stream_context = fold->spare_context;
		fold->spare_context = full;
	}
}

/* Raises unless the state fits the domain that apply declares for it. */
void
mako_fold_check_domain(MakoFold *fold)
{
	bool		isnull;

	fold->phase = MAKO_PHASE_STATE;
	if (fold->state_check != NULL)
		(void) mako_program_evaluate(fold->state_check, NULL, &isnull);
}

/* Is the process in flight, as its workflow's own predicate says? Without a predicate every one is. */
bool
mako_fold_is_in_flight(MakoFold *fold)
{
	MemoryContext old;
	bool		in_flight;

	if (fold->in_flight == NULL)
		return true;
	old = MemoryContextSwitchTo(fold->stream_context);
	in_flight = DatumGetBool(call(fold, MAKO_PHASE_STATE, fold->in_flight, fold->plan->workflows[0]->in_flight,
								  "The predicate must be true or false for every state."));
	MemoryContextSwitchTo(old);
	return in_flight;
}

/* Takes the state through every step of the plan, and checks it after each. */
void
mako_fold_migrate(MakoFold *fold)
{
	MemoryContext old = MemoryContextSwitchTo(fold->stream_context);

	for (int i = 0; i < fold->plan->steps; i++)
	{
		const MakoWorkflow *target = fold->plan->workflows[i + 1];

		CHECK_FOR_INTERRUPTS();
		if (fold->migrate[i] != NULL)
			set_state(fold, call(fold, MAKO_PHASE_MIGRATE, fold->migrate[i], fold->plan->migrations[i]->migrate,
								 "Handle every state, or refuse it with mako_reject()."));
		fold->phase = MAKO_PHASE_STATE;
		if (target->state_type != NULL)
			mako_type_definition_require_state(target->state_type, target->workflow_id, DatumGetJsonbP(fold->state));
		if (fold->check[i] != NULL)
		{
			bool		isnull;

			(void) mako_program_evaluate(fold->check[i], NULL, &isnull);
		}
	}
	MemoryContextSwitchTo(old);
}
