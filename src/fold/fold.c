/*
 * fold.c
 *	  Upcast, apply, migrate and check: one stream at a time.
 *
 * The fold owns two memory contexts for the current stream. States and payloads pile up in one of
 * them; when it has grown, the state moves to the other one and the first is emptied, so that a
 * stream of any length folds in little memory. Nothing here knows of SQL or transactions: what
 * goes wrong is raised, or taken down if it is a refusal and the caller wants it so, and the
 * caller reads the phase and the event from the fold.
 */
#include "fold/fold.h"

#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/builtins.h"
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
	fold->workflow = source;
	fold->native = mako_native_evaluation;
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
	fold->program_context = AllocSetContextCreate(CurrentMemoryContext, "mako programs",
												  ALLOCSET_DEFAULT_SIZES);
	fold->stream_context = AllocSetContextCreate(CurrentMemoryContext, "mako stream",
												 ALLOCSET_DEFAULT_SIZES);
	fold->spare_context = AllocSetContextCreate(CurrentMemoryContext, "mako stream (spare)",
												ALLOCSET_DEFAULT_SIZES);
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
				 errmsg("workflow \"%s\" has no apply function", fold->workflow->workflow_id)));
}

/*
 * Says why a worker cannot evaluate the functions of a fold, as a part of a sentence; NULL where
 * it can.
 */
const char *
mako_fold_unsafe_function(const MakoFold *fold)
{
	const MakoPlan *plan = fold->plan;
	const MakoWorkflow *source = fold->workflow;
	const char *why = mako_program_unsafe(source->apply);

	if (why == NULL)
		why = mako_program_unsafe(source->upcast);
	if (why == NULL)
		why = mako_program_unsafe(source->in_flight);
	for (int i = 0; i < plan->steps && why == NULL; i++)
	{
		why = mako_program_unsafe(plan->migrations[i]->migrate);
		if (why == NULL)
			why = mako_program_unsafe_check(plan->workflows[i + 1]->apply);
	}
	return why;
}

/* Where a fold is, for the context of an error; an ErrorContextCallback. */
void
mako_fold_context(void *argument)
{
	const MakoFold *fold = argument;

	if (fold->sequence_number > 0)
		errcontext("event " INT64_FORMAT ", phase %s",
				   fold->sequence_number, mako_phase_name[fold->phase]);
	else
		errcontext("phase %s", mako_phase_name[fold->phase]);
}

/*
 * Makes the evaluation state of all programs anew: at first, and after an error left one of them
 * in the middle.
 */
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

/*
 * Copies a state (jsonb, possibly toasted or expanded) to the spare context, which takes over from
 * the stream's. It is copied before anything is freed: it may lie in the memory of this very fold.
 */
static void
take_over(MakoFold *fold, Datum state)
{
	MemoryContext full = fold->stream_context;
	MemoryContext old = MemoryContextSwitchTo(fold->spare_context);

	set_state(fold, JsonbPGetDatum(DatumGetJsonbPCopy(state)));
	MemoryContextSwitchTo(old);
	MemoryContextReset(full);
	fold->stream_context = fold->spare_context;
	fold->spare_context = full;
}

/*
 * Starts a stream from a stored or initial state (jsonb, possibly toasted), which may be the
 * fold's own.
 */
void
mako_fold_begin(MakoFold *fold, Datum state, int64 sequence_number)
{
	fold->phase = MAKO_PHASE_LOAD;
	fold->sequence_number = sequence_number;
	fold->refusal.sqlerrcode = 0;
	/* A value that could not be copied may have left something there. */
	MemoryContextReset(fold->spare_context);
	take_over(fold, state);
	ResetExprContext(fold->expression_context);
}

/*
 * Evaluates a function's program in a phase; false when it refuses. Null is a refusal: that is how
 * an unhandled case looks.
 */
static bool
call(MakoFold *fold, MakoPhase phase, MakoProgram *program, const MakoFunction *function,
	 const char *null_hint, Datum *result)
{
	MakoRefusal *refusal = fold->takes_refusals ? &fold->refusal : NULL;
	bool		isnull;

	fold->phase = phase;
	*result = mako_program_evaluate(program, refusal, &isnull);
	if (isnull)
		mako_refuse(refusal, MAKO_ERRCODE_NULL_RESULT,
					psprintf("function %s returned null", function->signature),
					unconstify(char *, null_hint));
	return fold->refusal.sqlerrcode == 0;
}

/*
 * A value of an event as the state may come to point into it: detoasted, and a copy where the
 * reader's memory is gone by the next event. A short header is as good as a long one for texts,
 * but not for jsonb, which must be aligned.
 */
static Datum
lasting(const MakoEvent *event, Datum value, bool is_text)
{
	struct varlena *bytes = (struct varlena *) DatumGetPointer(value);

	return event->lasts && (!VARATT_IS_EXTENDED(bytes) ||
							(is_text && VARATT_IS_SHORT(bytes))) ? value :
		PointerGetDatum(PG_DETOAST_DATUM_COPY(value));
}

/*
 * Takes an event's payload to its present schema version and checks it; false when upcast refuses.
 */
static bool
read_payload(MakoFold *fold, const MakoEvent *event)
{
	const MakoWorkflow *source = fold->workflow;
	Datum		payload;

	mako_program_bind(fold->parameters, MAKO_PARAMETER_EVENT_TYPE,
					  lasting(event, event->event_type, true));
	mako_program_bind(fold->parameters, MAKO_PARAMETER_SCHEMA_VERSION,
					  Int32GetDatum(event->schema_version));
	payload = lasting(event, event->payload, false);
	mako_program_bind(fold->parameters, MAKO_PARAMETER_PAYLOAD, payload);

	fold->phase = MAKO_PHASE_UPCAST;
	if (fold->upcast != NULL)
	{
		if (!call(fold, MAKO_PHASE_UPCAST, fold->upcast, source->upcast,
				  "Handle every event type and schema version, or refuse it with mako_reject().",
				  &payload))
			return false;
		mako_program_bind(fold->parameters, MAKO_PARAMETER_PAYLOAD, payload);
	}
	else if (event->schema_version != 1)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("schema version %d of event type \"%s\" is not known",
						event->schema_version, TextDatumGetCString(event->event_type)),
				 errdetail("Workflow \"%s\" has no upcast function, "
						   "so it knows schema version 1 only.", source->workflow_id),
				 errhint("Register an upcast function.")));

	fold->phase = MAKO_PHASE_EVENT;
	if (source->event_type != NULL)
		mako_type_definition_require_event(source->event_type, DatumGetTextPP(event->event_type),
										   DatumGetJsonbP(payload));
	return true;
}

/*
 * Moves the state to the spare context when the stream's context has grown, so that payloads do
 * not pile up.
 */
static void
limit_memory(MakoFold *fold)
{
	if (MemoryContextMemAllocated(fold->stream_context, false) > STREAM_CONTEXT_LIMIT)
		take_over(fold, fold->state);
}

/* Folds one event into the state; false when the stream is refused. */
bool
mako_fold_event(MakoFold *fold, const MakoEvent *event)
{
	MemoryContext old = MemoryContextSwitchTo(fold->stream_context);
	Datum		state;
	bool		accepted;

	CHECK_FOR_INTERRUPTS();
	fold->phase = MAKO_PHASE_LOAD;
	fold->sequence_number = event->sequence_number;
	accepted = read_payload(fold, event) &&
		call(fold, MAKO_PHASE_APPLY, fold->apply, fold->workflow->apply,
			 "A CASE without ELSE is null for an event type that it does not handle.", &state);
	MemoryContextSwitchTo(old);
	if (accepted)
	{
		set_state(fold, state);
		limit_memory(fold);
	}
	return accepted;
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

/*
 * Asks the predicate of the workflow whether the process is in flight; without one, it is. Returns
 * false if the predicate refuses the state.
 */
bool
mako_fold_is_in_flight(MakoFold *fold, bool *in_flight)
{
	MemoryContext old;
	Datum		result = BoolGetDatum(true);
	bool		accepted = true;

	if (fold->in_flight != NULL)
	{
		old = MemoryContextSwitchTo(fold->stream_context);
		accepted = call(fold, MAKO_PHASE_STATE, fold->in_flight, fold->workflow->in_flight,
						"The predicate must be true or false for every state.", &result);
		MemoryContextSwitchTo(old);
	}
	*in_flight = accepted && DatumGetBool(result);
	return accepted;
}

/* Takes the state through one step of the plan, and checks it; false when it is refused. */
static bool
migrate_step(MakoFold *fold, int step)
{
	const MakoWorkflow *target = fold->plan->workflows[step + 1];
	bool		isnull;

	CHECK_FOR_INTERRUPTS();
	if (fold->migrate[step] != NULL)
	{
		Datum		state;

		if (!call(fold, MAKO_PHASE_MIGRATE, fold->migrate[step],
				  fold->plan->migrations[step]->migrate,
				  "Handle every state, or refuse it with mako_reject().", &state))
			return false;
		set_state(fold, state);
	}
	fold->phase = MAKO_PHASE_STATE;
	if (target->state_type != NULL)
	{
		Jsonb	   *state = DatumGetJsonbP(fold->state);

		/* Flat now, and it will be needed so. */
		set_state(fold, JsonbPGetDatum(state));
		mako_type_definition_require_state(target->state_type, target->workflow_id, state);
	}
	if (fold->check[step] != NULL)
		(void) mako_program_evaluate(fold->check[step], NULL, &isnull);
	return true;
}

/*
 * Takes the state through every step of the plan, and checks it after each; false when it is
 * refused.
 */
bool
mako_fold_migrate(MakoFold *fold)
{
	MemoryContext old = MemoryContextSwitchTo(fold->stream_context);
	bool		accepted = true;

	for (int i = 0; i < fold->plan->steps && accepted; i++)
		accepted = migrate_step(fold, i);
	MemoryContextSwitchTo(old);
	return accepted;
}
