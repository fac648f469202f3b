/*
 * replay.c
 *	  The state of a stream: from what it starts from, over its events, to its head.
 *
 * A stream starts from its boundary or from the initial state, and its events from there on were
 * written under the workflow that it runs under. There are two exceptions. A stream that moved
 * without a snapshot (mako.repointed) has older events of its former workflow, which belong to the
 * same state. And where a migration snapshot is missing, because a history was imported or a
 * trigger was disabled, the history is replayed from the first event: under each workflow in turn,
 * and through the registered steps in between. So every state can be computed again, and no
 * snapshot's loss goes unnoticed.
 *
 * An event of another workflow in the middle of a stream that neither left its workflow nor came
 * back is just mislabelled, by a write that got past the triggers: what a stream runs under, its
 * head decides.
 */
#include "fold/fold.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

/* The recorded moves of a stream with a snapshot, in order. */
static MakoStatement select_moves = {
	"SELECT n.sequence_number, n.run_id, r.source_wf, r.target_wf, n.state, n.state_schema_version"
	" FROM mako.snapshot n JOIN mako.migration_run r ON r.run_id OPERATOR(pg_catalog.=) n.run_id AND r.update_registry"
	" WHERE n.stream_no OPERATOR(pg_catalog.=) $1 AND n.run_id OPERATOR(pg_catalog.>) 0 AND n.reverted_by IS NULL"
	" ORDER BY n.sequence_number, n.run_id",
	1, {INT8OID}
};

/* Whether runs have taken streams from one workflow to another and back. */
static MakoStatement select_return = {
	"SELECT pg_catalog.count(DISTINCT r.source_wf) OPERATOR(pg_catalog.=) 2 FROM mako.migration_run r"
	" WHERE r.update_registry AND r.migrated OPERATOR(pg_catalog.>) 0 AND r.kind OPERATOR(pg_catalog.<>) 'revert'"
	" AND (r.source_wf OPERATOR(pg_catalog.=) $1 AND r.target_wf OPERATOR(pg_catalog.=) $2"
	"  OR r.source_wf OPERATOR(pg_catalog.=) $2 AND r.target_wf OPERATOR(pg_catalog.=) $1)",
	2, {TEXTOID, TEXTOID}
};

/* One recorded move of a stream, with its snapshot. */
typedef struct Move
{
	int64		sequence_number;
	int64		run_id;
	char	   *source_wf;
	char	   *target_wf;
	Datum		state;
	int			state_schema_version;
} Move;

typedef struct Moves
{
	int			count;
	Move	   *moves;
} Moves;

/* A replay without folds, in the current memory context. */
MakoReplay *
mako_replay_create(void)
{
	MakoReplay *replay = palloc0(sizeof(MakoReplay));

	replay->context = CurrentMemoryContext;
	return replay;
}

/* The fold for a pair of workflows, or for one with itself; compiled when it is met first. */
MakoFold *
mako_replay_fold(MakoReplay *replay, const char *source_wf, const char *target_wf)
{
	MemoryContext context;
	MemoryContext old;
	ListCell   *cell;
	MakoFold   *fold;

	foreach(cell, replay->folds)
	{
		fold = lfirst(cell);
		if (strcmp(fold->workflow->workflow_id, source_wf) == 0 &&
			strcmp(fold->plan->workflows[fold->plan->steps]->workflow_id, target_wf) == 0)
			return fold;
	}

	/*
	 * Until it is complete, it belongs to the subtransaction: many streams may fail here, each
	 * with half a fold.
	 */
	context = AllocSetContextCreate(CurTransactionContext, "mako replayed fold", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(context);
	fold = mako_fold_create(mako_plan_create(source_wf, target_wf));
	MemoryContextSetParent(context, replay->context);
	MemoryContextSwitchTo(replay->context);
	replay->folds = lappend(replay->folds, fold);
	MemoryContextSwitchTo(old);
	return fold;
}

/* Makes the folds usable again after an error. */
void
mako_replay_recover(MakoReplay *replay)
{
	ListCell   *cell;

	foreach(cell, replay->folds)
		mako_fold_recover(lfirst(cell));
}

/*
 * Warns when migration snapshots were missing: of this stream, or of many when stream_id is NULL.
 */
void
mako_replay_warn(const MakoReplay *replay, const char *stream_id)
{
	if (replay->rebuilt > 0)
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 stream_id != NULL ? errmsg("a migration snapshot of stream \"%s\" is missing", stream_id) :
				 errmsg_plural("a migration snapshot of %ld stream is missing", "migration snapshots of %ld streams are missing",
							   (long) replay->rebuilt, (long) replay->rebuilt),
				 errdetail("The state was computed again from the events, through the registered state migrations."),
				 errhint("An imported history has none; mako_take_snapshot() keeps the state.")));
}

/* Raises that the events of a stream are not what its head says. */
static void
raise_gap(const MakoStream *stream, int64 expected, int64 found)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("the events of the stream do not run to its head without a gap"),
			 found == 0 ?
			 errdetail("The head is at version " INT64_FORMAT ". Expected sequence number " INT64_FORMAT ", found none.",
					   stream->version, expected) :
			 expected > stream->version ?
			 errdetail("The head is at version " INT64_FORMAT ", but there is an event " INT64_FORMAT ".",
					   stream->version, found) :
			 errdetail("The head is at version " INT64_FORMAT ". Expected sequence number " INT64_FORMAT ", found " INT64_FORMAT ".",
					   stream->version, expected, found)));
}

/* Raises unless this is the event that is expected next. */
void
mako_replay_check_next(const MakoStream *stream, int64 expected, const MakoEvent *event)
{
	if (event->sequence_number != expected || expected > stream->version)
		raise_gap(stream, expected, event->sequence_number);
}

/* Raises unless this was the last event that is expected. */
void
mako_replay_check_end(const MakoStream *stream, int64 expected)
{
	if (expected <= stream->version)
		raise_gap(stream, expected, 0);
}

/* Raises when a stream starts where it has not come yet. */
static void
check_start(const MakoStream *stream)
{
	if (stream->start > stream->version)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("the boundary of the stream is beyond its head"),
				 errdetail("The head is at version " INT64_FORMAT ", the migration snapshot at sequence number " INT64_FORMAT ".",
						   stream->version, stream->start)));
}

/*
 * Raises unless a stored state was written under the state schema version that its workflow has
 * now.
 */
void
mako_replay_check_schema_version(const MakoWorkflow *workflow, const MakoStream *stream)
{
	if (stream->start_schema_version != workflow->state_schema_version)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the snapshot at sequence number " INT64_FORMAT " has state schema version %d",
						stream->start, stream->start_schema_version),
				 errdetail("Workflow \"%s\" is registered with state schema version %d.",
						   workflow->workflow_id, workflow->state_schema_version)));
}

/* Returns true if an event was written under this workflow. */
bool
mako_replay_written_under(const MakoEvent *event, const char *workflow_id)
{
	const text *actual = DatumGetTextPP(event->workflow_id);
	size_t		length = strlen(workflow_id);

	return VARSIZE_ANY_EXHDR(actual) == length && memcmp(VARDATA_ANY(actual), workflow_id, length) == 0;
}

/* Returns true if a stream can have left a workflow for another one and come back. */
bool
mako_replay_may_have_returned(const char *workflow_id, const char *other)
{
	Datum		values[] = {CStringGetTextDatum(workflow_id), CStringGetTextDatum(other)};
	MakoRows	rows = mako_sql_query_snapshot(&select_return, values, NULL);
	bool		returned = mako_row_boolean(&rows, 0, 1);

	mako_rows_free(&rows);
	return returned;
}

/*
 * Returns true if an event after the start of a stream tells that a migration snapshot is missing:
 * another workflow folds it than the one that the stream runs under.
 */
static bool
is_foreign(const MakoEvent *event, const MakoStream *stream, MakoReader *reader)
{
	const char *workflow_id;

	if (mako_replay_written_under(event, stream->workflow_id))
		return false;
	workflow_id = mako_stream_folding_workflow(reader);
	return strcmp(workflow_id, stream->workflow_id) != 0 &&
		(event->sequence_number == stream->start + 1 || mako_replay_may_have_returned(stream->workflow_id, workflow_id));
}

/*
 * Returns true if the state of a stream does not follow from where it starts and the events after
 * that, because a migration snapshot is missing. Raises if the events do not run to the head.
 */
bool
mako_replay_is_needed(const MakoStream *stream)
{
	MakoReader *reader = mako_stream_open_events(stream, 1, NULL);
	const MakoEvent *event;
	int64		expected = stream->start + 1;
	bool		needed = stream->boundary_missing;

	check_start(stream);
	while (!needed && (event = mako_stream_next_event(reader, stream->stream_no)) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		mako_replay_check_next(stream, expected, event);
		needed = is_foreign(event, stream, reader);
		expected++;
	}
	mako_stream_close_events(reader);
	if (!needed)
		mako_replay_check_end(stream, expected);
	return needed;
}

/* Takes the state that the application stored for a workflow without apply. */
void
mako_replay_stored(MakoFold *fold, const MakoStream *stream)
{
	const MakoWorkflow *workflow = fold->workflow;

	if (stream->start != stream->version || stream->boundary_missing)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("there is no snapshot at the stream's version " INT64_FORMAT, stream->version),
				 stream->start > 0 ? errdetail("The newest one is at sequence number " INT64_FORMAT ".", stream->start) : 0,
				 errhint("Workflow \"%s\" has no apply function, so its application must save the state with mako_save_snapshot().",
						 workflow->workflow_id)));
	mako_replay_check_schema_version(workflow, stream);
	mako_fold_begin(fold, stream->start_state, stream->start);
}

/* Raises when a stream whose head knows of no event has one. */
void
mako_replay_empty(MakoFold *fold, const MakoStream *stream, MakoReader *reader)
{
	const MakoEvent *event = mako_stream_next_event(reader, stream->stream_no);

	if (event != NULL)
	{
		fold->sequence_number = event->sequence_number;
		mako_replay_check_next(stream, 1, event);
	}
}

/* Replays a stream whose boundary is missing, and passes over its events in the reader. */
static void
replay_missing(MakoReplay *replay, MakoFold *fold, const MakoStream *stream, MakoReader *reader)
{
	mako_fold_begin(fold, mako_replay_history(replay, stream, replay->tell, replay->argument), stream->version);
	while (mako_stream_next_event(reader, stream->stream_no) != NULL)
		CHECK_FOR_INTERRUPTS();
}

/* Tells of the state of a stream that is folded under the workflow that it runs under. */
static void
tell_fold(const MakoReplay *replay, const MakoFold *fold, Datum event_type)
{
	MakoMoment	moment = {fold->sequence_number, event_type, 0, fold->workflow->workflow_id, fold->state};

	replay->tell(replay->argument, &moment);
}

/*
 * Folds a stream's events to its head, from where it starts: stream->start, or the initial state.
 * The fold's source is the workflow that the stream runs under, and the reader is at the stream's
 * first event after the start. False when the stream is refused.
 */
bool
mako_replay_stream(MakoReplay *replay, MakoFold *fold, const MakoStream *stream, MakoReader *reader)
{
	const MakoWorkflow *workflow = fold->workflow;
	const MakoEvent *event;
	int64		expected = stream->start + 1;

	if (stream->boundary_missing)
	{
		replay_missing(replay, fold, stream, reader);
		return true;
	}
	check_start(stream);
	if (stream->start > 0)
	{
		mako_replay_check_schema_version(workflow, stream);
		mako_fold_begin(fold, stream->start_state, stream->start);
	}
	else
		mako_fold_begin(fold, JsonbPGetDatum(workflow->initial_state), 0);
	if (replay->tell != NULL)
		tell_fold(replay, fold, (Datum) 0);

	while ((event = mako_stream_next_event(reader, stream->stream_no)) != NULL)
	{
		fold->sequence_number = event->sequence_number;
		mako_replay_check_next(stream, expected, event);
		if (is_foreign(event, stream, reader))
		{
			replay_missing(replay, fold, stream, reader);
			return true;
		}
		if (!mako_fold_event(fold, event))
			return false;
		if (replay->tell != NULL)
			tell_fold(replay, fold, event->event_type);
		expected++;
		fold->phase = MAKO_PHASE_LOAD;
	}
	mako_replay_check_end(stream, expected);
	return true;
}

/* ---- the whole history ---------------------------------------------------------------------- */

/* Reads the recorded moves of a stream with the active snapshot. */
static Moves
read_moves(const MakoStream *stream)
{
	Datum		values[] = {Int64GetDatum(stream->stream_no)};
	MakoRows	rows = mako_sql_query_snapshot(&select_moves, values, NULL);
	Moves		moves = {(int) rows.count, palloc0(sizeof(Move) * (rows.count + 1))};

	for (int i = 0; i < moves.count; i++)
	{
		Move	   *move = &moves.moves[i];

		move->sequence_number = mako_row_bigint(&rows, i, 1);
		move->run_id = mako_row_bigint(&rows, i, 2);
		move->source_wf = mako_row_text(&rows, i, 3);
		move->target_wf = mako_row_text(&rows, i, 4);
		move->state = JsonbPGetDatum(DatumGetJsonbPCopy(mako_row_jsonb(&rows, i, 5)));
		move->state_schema_version = mako_row_integer(&rows, i, 6);
	}
	mako_rows_free(&rows);
	return moves;
}

/*
 * The workflow that a stream ran under when the next recorded snapshot was written, or that it
 * runs under now.
 */
static const char *
workflow_to_come(const Moves *moves, const MakoStream *stream, int64 sequence_number)
{
	for (int i = 0; i < moves->count; i++)
		if (moves->moves[i].sequence_number >= sequence_number)
			return moves->moves[i].source_wf;
	return stream->workflow_id;
}

/* A history on its way: under which workflow it is, and its fold. */
typedef struct Walk
{
	MakoReplay *replay;
	MakoFold   *fold;			/* NULL before the first event */
	const char *workflow_id;
	bool		known;			/* false: there was an event without an apply, and no snapshot
								 * since */
	bool		rebuilt;		/* some snapshot was missing */
	MakoMomentCallback callback;	/* or NULL */
	void	   *argument;
} Walk;

/* Tells what the stream looks like now. */
static void
tell(const Walk *walk, int64 sequence_number, Datum event_type, int64 run_id)
{
	MakoMoment	moment = {sequence_number, event_type, run_id, walk->workflow_id, walk->known ? walk->fold->state : (Datum) 0};

	if (walk->callback != NULL)
		walk->callback(walk->argument, &moment);
}

/* Goes on under a workflow from a state; (Datum) 0 is an unknown one. */
static void
enter(Walk *walk, const char *workflow_id, Datum state, int64 sequence_number)
{
	walk->workflow_id = workflow_id;
	walk->fold = mako_replay_fold(walk->replay, workflow_id, workflow_id);
	walk->known = state != (Datum) 0;

	/*
	 * A history does not stop at a refusal, so it must be raised: no fold of a batch can be among
	 * those of its replay.
	 */
	Assert(!walk->fold->takes_refusals);
	if (walk->known)
		mako_fold_begin(walk->fold, state, sequence_number);
}

/* Starts under the workflow of the first event. */
static void
enter_first(Walk *walk, const char *workflow_id)
{
	const MakoWorkflow *workflow = mako_replay_fold(walk->replay, workflow_id, workflow_id)->workflow;

	enter(walk, workflow_id, workflow->apply == NULL ? (Datum) 0 : JsonbPGetDatum(workflow->initial_state), 0);
}

/* Moves to another workflow where no snapshot tells the state: through the registered steps. */
static void
rebuild(Walk *walk, const char *workflow_id, int64 sequence_number)
{
	MakoFold   *steps = mako_replay_fold(walk->replay, walk->workflow_id, workflow_id);

	if (!walk->known)
		mako_fold_require_apply(walk->fold);
	mako_fold_begin(steps, walk->fold->state, sequence_number);
	(void) mako_fold_migrate(steps);
	enter(walk, workflow_id, steps->state, sequence_number);
	walk->rebuilt = true;
	tell(walk, sequence_number, (Datum) 0, 0);
}

/* Moves to another workflow by recorded snapshots. */
static void
take_moves(Walk *walk, const Moves *moves, int64 sequence_number)
{
	for (int i = 0; i < moves->count; i++)
	{
		const Move *move = &moves->moves[i];
		MakoStream	boundary = {.start = move->sequence_number,.start_schema_version = move->state_schema_version};

		if (move->sequence_number != sequence_number)
			continue;
		enter(walk, move->target_wf, move->state, sequence_number);
		mako_replay_check_schema_version(walk->fold->workflow, &boundary);
		tell(walk, sequence_number, (Datum) 0, move->run_id);
	}
}

/* Where a history is, for the context of an error. */
static void
add_context(void *argument)
{
	const Walk *walk = argument;

	if (walk->fold != NULL)
		mako_fold_context(walk->fold);
}

/*
 * Replays a stream from its first event, with the active snapshot: calls back after every event
 * and every move, and returns the state at its head, (Datum) 0 where nothing tells it. The state
 * is in the replay's memory and lasts until the next stream is replayed.
 */
Datum
mako_replay_history(MakoReplay *replay, const MakoStream *stream, MakoMomentCallback callback, void *argument)
{
	Walk		walk = {.replay = replay,.callback = callback,.argument = argument};
	Moves		moves = read_moves(stream);
	MakoStream	whole = *stream;
	MakoReader *reader;
	const MakoEvent *event;
	int64		expected = 1;
	ErrorContextCallback context = {error_context_stack, add_context, &walk};

	error_context_stack = &context;
	whole.start = 0;
	reader = mako_stream_open_events(&whole, 1, NULL);
	while ((event = mako_stream_next_event(reader, stream->stream_no)) != NULL)
	{
		const char *workflow_id = mako_stream_folding_workflow(reader);

		if (walk.fold == NULL)
			enter_first(&walk, workflow_id);
		else if (strcmp(walk.workflow_id, workflow_id) != 0 &&
				 (strcmp(walk.workflow_id, workflow_to_come(&moves, stream, event->sequence_number)) != 0 ||
				  mako_replay_may_have_returned(walk.workflow_id, workflow_id)))
			rebuild(&walk, workflow_id, expected - 1);
		walk.fold->sequence_number = event->sequence_number;
		mako_replay_check_next(stream, expected, event);
		walk.known = walk.known && walk.fold->apply != NULL;
		if (walk.known)
			(void) mako_fold_event(walk.fold, event);
		tell(&walk, event->sequence_number, event->event_type, 0);
		take_moves(&walk, &moves, event->sequence_number);
		expected++;
	}
	mako_stream_close_events(reader);
	mako_replay_check_end(stream, expected);
	if (walk.fold != NULL && strcmp(walk.workflow_id, stream->workflow_id) != 0)
		rebuild(&walk, stream->workflow_id, stream->version);
	error_context_stack = context.previous;
	replay->rebuilt += walk.rebuilt;
	return walk.known ? walk.fold->state : (Datum) 0;
}
