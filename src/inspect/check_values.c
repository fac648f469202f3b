/*
 * check_values.c
 *	  Whether apply and migrate take everything that they may meet: tried with generated instances,
 *	  and with a sample of the store.
 *
 * A workflow's states are those that its events reach from the initial state, and those that are
 * generated from its state type definition. An event type that none of them accepts is a finding,
 * and so is a state that a step refuses or takes to something that the target's definition does
 * not allow. Everything of a workflow lives in a context of its own, what one attempt needs in one
 * below it.
 */
#include "inspect/inspect.h"

#include <ctype.h>

#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

/* Some events of a type that a workflow of any version has met. */
static MakoStatement select_payloads = {
	"SELECT schema_version, payload FROM mako.event"
	" WHERE event_type = $1 AND split_part(workflow_id, '@', 1) = split_part($2, '@', 1) LIMIT 20",
	2, {TEXTOID, TEXTOID}
};

/* How far to look; every attempt that raises is a subtransaction. */
#define REACHED_STATES 100		/* from the initial state */
#define FIRST_PAYLOADS 8		/* of a variant, in every state that is reached */
#define MOST_PAYLOADS 30		/* as long as none was accepted */
#define LAST_PAYLOADS 5			/* in the generated states, for what nothing has accepted yet */

/* Bytes of an example. */
#define EXAMPLE_LENGTH 200

/* What goes wrong with some states or streams in the same way. */
typedef struct Cause
{
	MakoSeverity severity;
	const char *code;
	List	   *variants;		/* of the states */
	const char *message;		/* of the first one; the others' have other digits at most */
	const char *hint;			/* or NULL */
	const char *example;
	int64		count;
} Cause;

/* A type of events. */
typedef struct Variant
{
	const char *name;
	text	   *event_type;
	List	   *payloads;		/* of Jsonb */
	bool		accepted;
	const char *message;		/* of the first refusal */
} Variant;

/* The current workflow. */
typedef struct Probe
{
	MakoCheck  *check;
	const char *source_wf;
	const char *target_wf;		/* the workflow itself, or where the current step leads */
	MakoFold   *fold;			/* from source to target */
	List	   *reached;		/* of MakoInstance: states that events lead to */
	List	   *generated;		/* the same, from the state type definition */
	List	   *variants;		/* types of events */
	MakoProgram *upcast;		/* of the workflow, which generated payloads do not need */
	MemoryContext context;
	MemoryContext attempt_context;
} Probe;

/* One call of apply or of a step, and how it ended. */
typedef struct Attempt
{
	MakoFold   *fold;
	Datum		state;
	const MakoEvent *event;		/* NULL: migrates */
	bool		accepted;
	int			sqlerrcode;
	const char *message;
	const char *hint;
} Attempt;

/* ---- causes --------------------------------------------------------------------------------- */

/* Returns true if two messages are the same but for digits. */
static bool
is_same_message(const char *a, const char *b)
{
	for (;;)
	{
		if (isdigit((unsigned char) *a) && isdigit((unsigned char) *b))
		{
			while (isdigit((unsigned char) *a))
				a++;
			while (isdigit((unsigned char) *b))
				b++;
		}
		if (*a != *b)
			return false;
		if (*a == '\0')
			return true;
		a++;
		b++;
	}
}

/* Notes a variant, or NULL, in a list. */
static List *
add_variant(List *variants, const char *variant)
{
	ListCell   *cell;

	foreach(cell, variants)
		if (variant == NULL || strcmp(lfirst(cell), variant) == 0)
			return variants;
	return variant == NULL ? NIL : lappend(variants, pstrdup(variant));
}

/* Counts a case of a cause, in a list in the current context. */
static List *
count_cause(List *causes, const Cause *found, const char *variant)
{
	Cause	   *cause;
	ListCell   *cell;

	foreach(cell, causes)
	{
		cause = lfirst(cell);
		if (strcmp(cause->code, found->code) == 0 &&
			is_same_message(cause->message, found->message))
		{
			cause->count++;
			cause->variants = add_variant(cause->variants, variant);
			return causes;
		}
	}
	cause = palloc(sizeof(Cause));
	*cause = *found;
	cause->variants = add_variant(NIL, variant);
	cause->message = pstrdup(found->message);
	cause->hint = found->hint == NULL ? NULL : pstrdup(found->hint);
	cause->example = pstrdup(found->example);
	cause->count = 1;
	return lappend(causes, cause);
}

/* Adds causes as findings; what was tried is states or streams. */
static void
add_causes(MakoCheck *check, const char *subject, List *causes, int64 tried, const char *what)
{
	ListCell   *cell;

	foreach(cell, causes)
	{
		const Cause *cause = lfirst(cell);
		StringInfoData text;
		ListCell   *variant;

		initStringInfo(&text);
		foreach(variant, cause->variants)
			appendStringInfo(&text, "%s%s",
							 text.len > 0 ? ", " : "", (const char *) lfirst(variant));
		if (text.len > 0)
			appendStringInfoString(&text, ": ");
		appendStringInfo(&text, "%s (" INT64_FORMAT " of " INT64_FORMAT " %s, such as %s)",
						 cause->message, cause->count, tried, what, cause->example);
		mako_check_add(check, cause->severity, cause->code, subject, text.data, cause->hint);
	}
}

/* A state as an example. */
static char *
example_of(const Jsonb *value)
{
	char	   *text = JsonbToCString(NULL, unconstify(JsonbContainer *, &value->root),
									  VARSIZE(value));
	int			length = strlen(text);

	if (length <= EXAMPLE_LENGTH)
		return text;
	return psprintf("%.*s...", pg_mbcliplen(text, length, EXAMPLE_LENGTH), text);
}

/* ---- attempts ------------------------------------------------------------------------------- */

/* Folds an event, or migrates. */
static void
run_attempt(void *argument)
{
	Attempt    *attempt = argument;
	MakoFold   *fold = attempt->fold;

	mako_fold_begin(fold, attempt->state, 0);
	attempt->accepted = attempt->event != NULL ? mako_fold_event(fold, attempt->event) :
		mako_fold_migrate(fold);
	if (attempt->accepted)
		return;
	attempt->sqlerrcode = fold->refusal.sqlerrcode;
	attempt->message = pstrdup(fold->refusal.message);
	attempt->hint = fold->refusal.hint == NULL ? NULL : pstrdup(fold->refusal.hint);
}

/* Makes an attempt; what it says is in the attempt's context. */
static void
try(Probe *probe, Attempt *attempt)
{
	MemoryContext old;
	ErrorData  *error;

	CHECK_FOR_INTERRUPTS();
	MemoryContextReset(probe->attempt_context);
	old = MemoryContextSwitchTo(probe->attempt_context);
	attempt->fold = probe->fold;
	error = mako_subtransaction_run(run_attempt, attempt);
	if (error != NULL)
	{
		attempt->accepted = false;
		attempt->sqlerrcode = error->sqlerrcode;
		attempt->message = mako_check_text(error);
		attempt->hint = error->hint;
		mako_fold_recover(probe->fold);
	}
	MemoryContextSwitchTo(old);
}

/* Compiles what leads from source to target; a callback of mako_subtransaction_run(). */
static void
compile_fold(void *argument)
{
	Probe	   *probe = argument;

	probe->fold = mako_fold_create(mako_plan_create(probe->source_wf, probe->target_wf));
	probe->fold->takes_refusals = true;
}

/* ---- events --------------------------------------------------------------------------------- */

/* The event types of a workflow with payloads. */
static List *
variants_of(const MakoWorkflow *workflow)
{
	List	   *variants = NIL;
	Variant    *variant = NULL;
	ListCell   *cell;

	if (workflow->event_type == NULL)
		return NIL;
	foreach(cell, mako_instances_generate(workflow->event_type, MAKO_INSTANCES))
	{
		const MakoInstance *instance = lfirst(cell);

		if (instance->event_type == NULL)
			continue;
		if (variant == NULL || strcmp(variant->name, instance->variant) != 0)
		{
			variant = palloc0(sizeof(Variant));
			variant->name = instance->variant;
			variant->event_type = instance->event_type;
			variants = lappend(variants, variant);
		}
		variant->payloads = lappend(variant->payloads, instance->value);
	}
	return variants;
}

/* Returns true if a state is among these. */
static bool
is_known(const List *states, Jsonb *state)
{
	ListCell   *cell;

	foreach(cell, states)
		if (compareJsonbContainers(&((MakoInstance *) lfirst(cell))->value->root,
								   &state->root) == 0)
			return true;
	return false;
}

/* All states of the current workflow. */
static List *
all_states(const Probe *probe)
{
	List	   *states = list_copy(probe->generated);
	ListCell   *cell;

	foreach(cell, probe->reached)
		if (!is_known(probe->generated, ((MakoInstance *) lfirst(cell))->value))
			states = lappend(states, lfirst(cell));
	return states;
}

/* Notes the state that the fold has come to, unless there are enough. */
static void
note_reached(Probe *probe)
{
	Jsonb	   *state = DatumGetJsonbP(probe->fold->state);
	MakoInstance *instance;

	if (list_length(probe->reached) >= REACHED_STATES || is_known(probe->reached, state))
		return;
	instance = palloc0(sizeof(MakoInstance));
	instance->value = DatumGetJsonbPCopy(JsonbPGetDatum(state));
	probe->reached = lappend(probe->reached, instance);
}

/* Applies payloads of a type of events to a state. */
static void
try_events(Probe *probe, Variant *variant, Jsonb *state, int payloads)
{
	ListCell   *cell;
	int			tried = 0;

	foreach(cell, variant->payloads)
	{
		MakoEvent	event = {
			.sequence_number = 1,.event_type = PointerGetDatum(variant->event_type),
			.schema_version = 1,.payload = JsonbPGetDatum((Jsonb *) lfirst(cell))
		};
		Attempt		attempt = {.state = JsonbPGetDatum(state),.event = &event};

		if (tried++ == (variant->accepted ? Min(payloads, FIRST_PAYLOADS) : payloads))
			break;
		try(probe, &attempt);
		variant->accepted = variant->accepted || attempt.accepted;
		if (attempt.accepted)
			note_reached(probe);
		else if (variant->message == NULL)
			variant->message = pstrdup(attempt.message);
	}
}

/*
 * Applies payloads of the store to a state, as long as none is accepted: a rule may want more than
 * its type definition says.
 */
static void
try_stored_events(Probe *probe, Variant *variant, const MakoRows *rows, Jsonb *state)
{
	for (uint64 row = 0; row < rows->count && !variant->accepted; row++)
	{
		MakoEvent	event = {
			.sequence_number = 1,.event_type = PointerGetDatum(variant->event_type),
			.schema_version = mako_row_integer(rows, row, 1),
			.payload = mako_row_datum(rows, row, 2, JSONBOID)
		};
		Attempt		attempt = {.state = JsonbPGetDatum(state),.event = &event};

		try(probe, &attempt);
		variant->accepted = attempt.accepted;
	}
}

/*
 * Returns true if a type of events is accepted in one of the generated states, or as it is in the
 * store.
 */
static bool
is_accepted_after_all(Probe *probe, Variant *variant)
{
	NullableDatum values[] = {
		mako_datum(PointerGetDatum(variant->event_type)), mako_text(probe->source_wf)
	};
	MakoRows	rows;
	ListCell   *cell;

	foreach(cell, probe->generated)
		if (!variant->accepted)
			try_events(probe, variant, ((MakoInstance *) lfirst(cell))->value, LAST_PAYLOADS);
	if (variant->accepted || !probe->check->has_store)
		return variant->accepted;
	rows = mako_sql_query_snapshot(&select_payloads, values);
	probe->fold->upcast = probe->upcast;

	/*
	 * While the fold was without it, errors may have made every program's evaluation state anew
	 * but this one's.
	 */
	mako_fold_recover(probe->fold);
	foreach(cell, probe->reached)
		try_stored_events(probe, variant, &rows, ((MakoInstance *) lfirst(cell))->value);
	foreach(cell, probe->generated)
		try_stored_events(probe, variant, &rows, ((MakoInstance *) lfirst(cell))->value);
	probe->fold->upcast = NULL;
	mako_rows_free(&rows);
	return variant->accepted;
}

/* Finds the event types that no state accepts. */
static void
probe_events(Probe *probe)
{
	ListCell   *cell;

	/* The list of states grows while it is read. */
	for (int i = 0; i < list_length(probe->reached); i++)
		foreach(cell, probe->variants)
			try_events(probe, lfirst(cell), ((MakoInstance *) list_nth(probe->reached, i))->value,
					   MOST_PAYLOADS);
	foreach(cell, probe->variants)
	{
		Variant    *variant = lfirst(cell);

		if (!is_accepted_after_all(probe, variant))
			mako_check_add(probe->check, MAKO_WARNING, "event_not_accepted", probe->source_wf,
						   psprintf("apply accepts event type \"%s\" in none of %d states: %s",
									text_to_cstring(variant->event_type),
									list_length(all_states(probe)), variant->message),
						   "Handle it, or take it out of the event type definition."
						   " Where it needs particular values, only real events show it.");
	}
}

/* ---- steps ---------------------------------------------------------------------------------- */

/* What it means that a state was not migrated. */
static Cause
cause_of(const Attempt *attempt, const MakoInstance *state)
{
	Cause		cause = {
		MAKO_WARNING, "state_not_migrated", NIL, attempt->message, attempt->hint,
		example_of(state->value)
	};

	if (attempt->fold->phase == MAKO_PHASE_STATE)
	{
		cause.severity = MAKO_ERROR;
		cause.code = "state_outside_type";
	}
	else if (attempt->sqlerrcode == MAKO_ERRCODE_NULL_RESULT)
		cause.code = "state_null";
	return cause;
}

/* Takes every state through the current step. */
static void
probe_step(Probe *probe, const char *subject)
{
	List	   *states = all_states(probe);
	List	   *causes = NIL;
	ListCell   *cell;

	foreach(cell, states)
	{
		const MakoInstance *state = lfirst(cell);
		Attempt		attempt = {.state = JsonbPGetDatum(state->value)};

		try(probe, &attempt);
		if (!attempt.accepted)
		{
			Cause		cause = cause_of(&attempt, state);

			causes = count_cause(causes, &cause, state->variant);
		}
	}
	add_causes(probe->check, subject, causes, list_length(states), "states");
}

/* ---- the store ------------------------------------------------------------------------------ */

/* A sample of the streams of a workflow. */
typedef struct Sampling
{
	Probe	   *probe;
	MakoReplay *replay;
	MakoFold   *fold;
	MakoMover	mover;
	int64		streams;
	List	   *not_folded;		/* of Cause */
	List	   *not_migrated;
} Sampling;

/* Compiles what the sample is taken through. */
static void
compile_sampling(void *argument)
{
	Sampling   *sampling = argument;

	sampling->fold = mako_fold_create(mako_plan_create(sampling->probe->source_wf,
													   sampling->probe->target_wf));
	sampling->mover = mako_mover(sampling->fold->plan, false);
}

/* Takes a stream as a migration would. */
static bool
try_stream(void *argument, const MakoStream *stream, MakoReader *reader)
{
	Sampling   *sampling = argument;
	MakoMove	move;

	if (!mako_mover_take(&sampling->mover, sampling->fold, sampling->replay, stream, reader, &move))
		return false;
	/* One that fails is counted where that is noted: it may be taken twice before. */
	sampling->streams++;
	return true;
}

/* Notes why a stream cannot be folded or migrated. */
static void
note_failure(void *argument, const MakoStream *stream, MakoPhase phase, int64 sequence_number,
			 const ErrorData *error)
{
	Sampling   *sampling = argument;
	bool		migrates = phase == MAKO_PHASE_MIGRATE ||
		(phase == MAKO_PHASE_STATE && sampling->fold->plan->steps > 0);
	Cause		cause = {
		MAKO_WARNING, migrates ? "stream_not_migrated" : "stream_not_folded", NIL,
		mako_check_text(error), error->hint, psprintf("\"%s\"", stream->stream_id)
	};
	MemoryContext old;

	sampling->streams++;
	/* Events that are missing have findings of their own, and so do heads that were moved. */
	if (error->sqlerrcode == ERRCODE_DATA_CORRUPTED ||
		(stream->boundary_missing && phase == MAKO_PHASE_LOAD))
		return;
	old = MemoryContextSwitchTo(sampling->probe->context);
	if (migrates)
		sampling->not_migrated = count_cause(sampling->not_migrated, &cause, NULL);
	else
		sampling->not_folded = count_cause(sampling->not_folded, &cause, NULL);
	MemoryContextSwitchTo(old);
}

/*
 * Takes a sample of the workflow's streams to the current target; says what cannot be folded only
 * where it was not said before.
 */
static void
probe_streams(Probe *probe, const char *subject, int64 sample, bool tell_not_folded)
{
	Sampling	sampling = {.probe = probe,.replay = mako_replay_create()};
	MakoStreamsWalk walk = {
		.replay = sampling.replay,.sample = sample,.with_names = true,.take = try_stream,
		.fail = note_failure,.argument = &sampling
	};

	/* What cannot be compiled was found elsewhere. */
	if (mako_subtransaction_run(compile_sampling, &sampling) != NULL)
		return;
	walk.fold = sampling.fold;
	walk.periodic_too = sampling.mover.periodic_too;
	mako_streams_walk(&walk);
	if (tell_not_folded)
		add_causes(probe->check, probe->source_wf, sampling.not_folded, sampling.streams,
				   "streams of the sample");
	add_causes(probe->check, subject, sampling.not_migrated, sampling.streams,
			   "streams of the sample");
}

/* ---- a workflow ----------------------------------------------------------------------------- */

/* Compiles a workflow, and makes states and events; a callback of mako_subtransaction_run(). */
static void
begin_workflow(void *argument)
{
	Probe	   *probe = argument;
	const MakoWorkflow *workflow;

	compile_fold(probe);
	workflow = probe->fold->workflow;
	if (workflow->initial_state != NULL)
	{
		MakoInstance *initial = palloc0(sizeof(MakoInstance));

		initial->value = workflow->initial_state;
		probe->reached = list_make1(initial);
	}
	if (workflow->state_type != NULL)
		probe->generated = mako_instances_generate(workflow->state_type, MAKO_INSTANCES);
	probe->variants = variants_of(workflow);
	/* Generated payloads are what upcast would give. */
	probe->upcast = probe->fold->upcast;
	probe->fold->upcast = NULL;
}

/* Returns true if a workflow is what was registered. */
static bool
is_usable(const List *definitions, const char *workflow_id)
{
	ListCell   *cell;

	foreach(cell, definitions)
	{
		const MakoDefinition *definition = lfirst(cell);

		if (definition->target_wf == NULL && strcmp(definition->source_wf, workflow_id) == 0)
			return definition->usable;
	}
	return false;
}

/* Begins with a definition, or says why it cannot be tried. */
static bool
begin_subject(Probe *probe, const char *name, void (*callback) (void *argument))
{
	ErrorData  *error = mako_subtransaction_run(callback, probe);

	if (error != NULL)
		mako_check_add(probe->check, MAKO_ERROR, "not_usable", name, mako_check_text(error),
					   error->hint);
	return error == NULL;
}

/* Tries a workflow, then every step that leads out of it. */
static void
probe_workflow(Probe *probe, const MakoDefinition *workflow, const List *definitions, int64 sample)
{
	bool		sampled = false;
	ListCell   *cell;

	probe->source_wf = probe->target_wf = workflow->source_wf;
	if (!begin_subject(probe, workflow->name, begin_workflow))
		return;
	if (workflow->has_apply)
		probe_events(probe);

	foreach(cell, definitions)
	{
		const MakoDefinition *step = lfirst(cell);

		if (step->target_wf == NULL || !step->usable ||
			strcmp(step->source_wf, workflow->source_wf) != 0)
			continue;
		probe->target_wf = step->target_wf;
		/* A target that is not what was registered has a finding of its own. */
		if (!is_usable(definitions, step->target_wf) ||
			!begin_subject(probe, step->name, compile_fold))
			continue;
		probe_step(probe, step->name);
		if (probe->check->has_store && sample > 0)
			probe_streams(probe, step->name, sample, !sampled);
		sampled = true;
	}
	probe->target_wf = workflow->source_wf;
	if (!sampled && workflow->has_apply && probe->check->has_store && sample > 0)
		probe_streams(probe, workflow->name, sample, true);
}

/* Tries all workflows and steps that are what was registered. */
void
mako_check_values(MakoCheck *check, const List *definitions, int64 sample)
{
	ListCell   *cell;

	foreach(cell, definitions)
	{
		const MakoDefinition *definition = lfirst(cell);
		MemoryContext context;
		MemoryContext old;
		Probe		probe = {.check = check};

		if (definition->target_wf != NULL || !definition->usable)
			continue;
		context = AllocSetContextCreate(CurrentMemoryContext, "mako probe", ALLOCSET_DEFAULT_SIZES);
		old = MemoryContextSwitchTo(context);
		probe.context = context;
		probe.attempt_context = AllocSetContextCreate(context, "mako attempt",
													  ALLOCSET_DEFAULT_SIZES);
		probe_workflow(&probe, definition, definitions, sample);
		MemoryContextSwitchTo(old);
		MemoryContextDelete(context);
	}
}
