/*
 * transitions.c
 *	  The state machine that the streams of a workflow have gone through, as rows. The install
 *	  script makes a Mermaid diagram of them.
 *
 * streams.c reads the streams, replay.c tells of every event that it folds. What a state is called
 * is found where it lies, expanded or not. A stream counts when all of it is folded, so one that
 * cannot be folded leaves nothing behind. The counts live in the current memory context.
 */
#include "inspect/inspect.h"

#include "common/hashfn.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"


/* From one state to another by an event. */
typedef struct Transition
{
	const char *key;			/* the hash's: from, event type and to in one */
	const char *from;			/* NULL: a state without a name, like to */
	const char *event_type;
	const char *to;
	int64		count;
	bool		rests;			/* some stream is there now and in flight, says the predicate */
} Transition;

/* The counts of a workflow, and the current stream. */
typedef struct Machine
{
	MakoFold   *fold;
	MakoReplay *replay;
	const char *tag;			/* the key that names a state; NULL: it is its name, or has one
								 * key only */
	HTAB	   *transitions;
	MemoryContext context;		/* of the transitions */
	int64		failed;			/* streams */
	List	   *path;			/* of the current stream */
	char	   *at;				/* its state; NULL without a name */
	int64		sequence_number;	/* of its last event */
	MemoryContext stream_context;	/* of these; reset for each stream */
} Machine;

/* ---- names ---------------------------------------------------------------------------------- */

/* A string of so many bytes, in the current memory context; NULL for NULL. */
static char *
copy_bytes(const MakoJsonValue *value)
{
	return pnstrdup(value->at.string, value->length);
}

/* What a value of a state object is as text, as the operator ->> gives it; NULL for null. */
static char *
text_of(const MakoJsonValue *value)
{
	Jsonb	   *flat;

	if (value->kind == MAKO_JSON_NULL)
		return NULL;
	if (value->kind == MAKO_JSON_STRING)
		return copy_bytes(value);
	if (value->kind == MAKO_JSON_TRUE || value->kind == MAKO_JSON_FALSE)
		return pstrdup(value->kind == MAKO_JSON_TRUE ? "true" : "false");
	flat = mako_json_flatten(value);
	return JsonbToCString(NULL, &flat->root, VARSIZE(flat));
}

/* What a state is called, in the current memory context; NULL when it has no name. */
static char *
name_of(const char *tag, Datum state)
{
	MakoJsonValue value = mako_json_read(state);
	MakoJsonValue field;

	if (tag != NULL)
		return mako_json_is_object(&value) && mako_json_field(&value, tag, (uint32) strlen(tag),
															  &field) ? text_of(&field) : NULL;
	if (value.kind == MAKO_JSON_STRING)
		return copy_bytes(&value);
	if (mako_json_is_object(&value) && mako_json_count(&value) == 1)
	{
		const MakoJsonMember *member = mako_json_members(&value).members;

		return pnstrdup(member->key, member->key_length);
	}
	return NULL;
}

/* The order of names: none first, then by bytes. */
static int
compare_names(const char *a, const char *b)
{
	if (a == NULL || b == NULL)
		return (a != NULL) - (b != NULL);
	return strcmp(a, b);
}

/* ---- counting ------------------------------------------------------------------------------- */

/* The hash of a transition's key. */
static uint32
hash_key(const void *key, Size size)
{
	const char *string = *(const char *const *) key;

	return hash_bytes((const unsigned char *) string, (int) strlen(string));
}

/* Compares the keys of two transitions. */
static int
match_keys(const void *a, const void *b, Size size)
{
	return strcmp(*(const char *const *) a, *(const char *const *) b);
}

/* Adds a name to a key, so that no two lists of names make the same one. */
static void
append_name(StringInfo key, const char *name)
{
	if (name == NULL)
		appendStringInfoString(key, "-;");
	else
		appendStringInfo(key, "%d:%s", (int) strlen(name), name);
}

/* The transition between two states; made when it is met first. */
static Transition *
find_transition(Machine *machine, const char *from, const char *event_type, const char *to)
{
	StringInfoData key;
	Transition *transition;
	bool		found;

	initStringInfo(&key);
	append_name(&key, from);
	append_name(&key, event_type);
	append_name(&key, to);
	transition = hash_search(machine->transitions, &key.data, HASH_ENTER, &found);
	if (!found)
	{
		MemoryContext old = MemoryContextSwitchTo(machine->context);

		transition->key = pstrdup(key.data);
		transition->from = from == NULL ? NULL : pstrdup(from);
		transition->event_type = pstrdup(event_type);
		transition->to = to == NULL ? NULL : pstrdup(to);
		transition->count = 0;
		transition->rests = false;
		MemoryContextSwitchTo(old);
	}
	return transition;
}

/* What a stream of this workflow is called before its first event. */
static char *
initial_name(const Machine *machine)
{
	return name_of(machine->tag, JsonbPGetDatum(machine->fold->workflow->initial_state));
}

/* Begins the path of a stream anew. */
static void
begin_path(Machine *machine)
{
	MemoryContextReset(machine->stream_context);
	machine->path = NIL;
	machine->at = NULL;
	machine->sequence_number = 0;
}

/*
 * Follows a stream; a MakoMomentCallback. What it does under another workflow is not of this one.
 */
static void
follow_moment(void *argument, const MakoMoment *moment)
{
	Machine    *machine = argument;
	MemoryContext old;
	char	   *to;

	/* A history is told from its first event, although some of it may have been told already. */
	if (moment->event_type != (Datum) 0 && moment->sequence_number <= machine->sequence_number)
		begin_path(machine);
	old = MemoryContextSwitchTo(machine->stream_context);
	if (strcmp(moment->workflow_id, machine->fold->workflow->workflow_id) != 0)
	{
		machine->path = NIL;
		machine->at = NULL;
	}
	else
	{
		if (moment->event_type != (Datum) 0 && moment->sequence_number == 1)
			machine->at = initial_name(machine);
		to = moment->state == (Datum) 0 ? NULL : name_of(machine->tag, moment->state);
		if (moment->event_type != (Datum) 0)
			machine->path = lappend(machine->path,
									find_transition(machine, machine->at,
													TextDatumGetCString(moment->event_type), to));
		machine->at = to;
	}
	machine->sequence_number = moment->sequence_number;
	MemoryContextSwitchTo(old);
}

/* Counts what a stream has gone through; see MakoStreamsWalk. */
static bool
count_stream(void *argument, const MakoStream *stream, MakoReader *reader)
{
	Machine    *machine = argument;
	ListCell   *cell;
	bool		in_flight;

	begin_path(machine);
	if (stream->version == 0)
	{
		mako_replay_empty(machine->fold, stream, reader);
		return true;
	}
	if (!mako_replay_stream(machine->replay, machine->fold, stream, reader) ||
		!mako_fold_is_in_flight(machine->fold, &in_flight))
		return false;
	foreach(cell, machine->path)
		((Transition *) lfirst(cell))->count++;
	/* Without a predicate it is not known what is in flight. */
	if (in_flight && machine->fold->in_flight != NULL && machine->path != NIL)
		((Transition *) llast(machine->path))->rests = true;
	return true;
}

/* Counts a stream whose states cannot be told; see MakoStreamsWalk. */
static void
count_failure(void *argument, const MakoStream *stream, MakoPhase phase, int64 sequence_number,
			  const ErrorData *error)
{
	((Machine *) argument)->failed++;
}

/* Most frequent first. */
static int
compare_transitions(const void *a, const void *b)
{
	const Transition *x = *(const Transition *const *) a;
	const Transition *y = *(const Transition *const *) b;
	int			order = (x->count < y->count) - (x->count > y->count);

	if (order == 0)
		order = compare_names(x->from, y->from);
	if (order == 0)
		order = compare_names(x->event_type, y->event_type);
	return order != 0 ? order : compare_names(x->to, y->to);
}

/* The transitions that streams have made, in order. */
static Transition **
sort_transitions(const Machine *machine, int *count)
{
	Transition **sorted =
	palloc(sizeof(Transition *) * (hash_get_num_entries(machine->transitions) + 1));
	HASH_SEQ_STATUS scan;
	Transition *transition;

	*count = 0;
	hash_seq_init(&scan, machine->transitions);
	while ((transition = hash_seq_search(&scan)) != NULL)
		if (transition->count > 0)
			sorted[(*count)++] = transition;
	qsort(sorted, *count, sizeof(Transition *), compare_transitions);
	return sorted;
}

/* Surveys the streams of a workflow, in the current memory context, with the active snapshot. */
static Machine
walk(const char *workflow_id, const char *tag)
{
	MakoReplay *replay = mako_replay_create();
	Machine		machine = {
		mako_fold_create(mako_plan_create(workflow_id, workflow_id)), replay, tag
	};
	MakoStreamsWalk walk = {
		.fold = machine.fold,.replay = replay,.sample = -1,.take = count_stream,
		.fail = count_failure,.argument = &machine
	};
	HASHCTL		control = {
		.keysize = sizeof(char *),.entrysize = sizeof(Transition),.hash = hash_key,
		.match = match_keys
	};

	mako_fold_require_apply(machine.fold);
	machine.context = control.hcxt = CurrentMemoryContext;
	machine.stream_context = AllocSetContextCreate(CurrentMemoryContext, "mako path",
												   ALLOCSET_DEFAULT_SIZES);
	machine.transitions = hash_create("mako transitions", 64, &control,
									  HASH_ELEM | HASH_FUNCTION | HASH_COMPARE | HASH_CONTEXT);
	replay->tell = follow_moment;
	replay->argument = &machine;
	mako_streams_walk(&walk);
	replay->tell = NULL;
	if (machine.failed > 0)
		ereport(NOTICE,
				(errmsg_plural("%ld stream of \"%s\" cannot be folded and is left out",
							   "%ld streams of \"%s\" cannot be folded and are left out",
							   (long) machine.failed, (long) machine.failed, workflow_id),
				 errhint("mako_state() tells why.")));
	mako_replay_warn(replay, NULL);
	return machine;
}

/* ---- the calls ------------------------------------------------------------------------------ */

MAKO_FUNCTION(mako_transitions);
MAKO_FUNCTION(mako_transition_rows);

/* Adds a transition to the rows. The column with `rests` is the last one, for the diagram only. */
static void
add_transition(MakoRowSet *rows, const Transition *transition)
{
	NullableDatum values[] = {
		mako_text(transition->from), mako_text(transition->event_type), mako_text(transition->to),
		mako_bigint(transition->count), mako_boolean(transition->rests)
	};

	mako_rowset_add(rows, values);
}

/*
 * Returns the transitions of a workflow's streams as rows. For the diagram, a first one without
 * from and event type leads to the initial state.
 */
static Datum
return_transitions(FunctionCallInfo fcinfo, bool for_diagram)
{
	MakoRowSet *rows = mako_rowset_begin(fcinfo);
	const char *workflow_id = mako_argument_text(fcinfo, 0, "workflow_id");
	const char *tag = PG_ARGISNULL(1) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(1));
	MakoConnection connection = mako_sql_connect();
	Machine		machine = walk(workflow_id, tag);
	Transition	first = {.to = initial_name(&machine)};
	int			count;
	Transition **transitions = sort_transitions(&machine, &count);

	if (for_diagram)
		add_transition(rows, &first);
	for (int i = 0; i < count; i++)
		add_transition(rows, transitions[i]);
	mako_sql_disconnect(connection);
	PG_RETURN_NULL();
}

/* Returns the transitions of a workflow's streams. */
Datum
mako_transitions(PG_FUNCTION_ARGS)
{
	return return_transitions(fcinfo, false);
}

/* Returns the same with what mako_state_diagram() needs besides. */
Datum
mako_transition_rows(PG_FUNCTION_ARGS)
{
	return return_transitions(fcinfo, true);
}
