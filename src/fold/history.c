/*
 * history.c
 *	  The states of a stream, computed again: from its first event, and through its recorded moves.
 *
 * A history of a run tells a second time what a migration did, and does not trust what the first
 * time left behind: at a recorded move it folds the state under the source and takes it along the
 * registered path. A history that trusts moves takes the state that a move has stored. The current
 * history of a stream (is_current) is such a one. It ends where the stream is now, it takes a
 * missing snapshot for a move through the registered steps, and it raises where nothing tells a
 * state.
 *
 * Which workflow folds an event, and what becomes of a move that was never recorded, is as in
 * replay.c. A history belongs to one stream; its state is in the memory of the current fold.
 */
#include "fold/fold.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"

/* A stored state of a stream: the application's own, or that of a run. */
static MakoStatement select_stored = {
	"SELECT n.state FROM mako.snapshot n WHERE n.stream_no OPERATOR(pg_catalog.=) $1"
	" AND n.sequence_number OPERATOR(pg_catalog.=) $2 AND n.run_id OPERATOR(pg_catalog.=) $3"
	" AND n.workflow_id OPERATOR(pg_catalog.=) $4",
	4, {INT8OID, INT8OID, INT8OID, TEXTOID}
};

/* Returns true if the stream moved here, as far as this history is concerned. */
static bool
is_move(const MakoHistory *history, const MakoRecordedMove *mark)
{
	return mark->run != NULL && mark->run->update_registry && mark->run_id < history->before_run &&
		(history->is_current || !mark->is_copy);
}

/*
 * The workflow that an event of this one is folded under: where the stream went from there without
 * a snapshot.
 */
static const char *
folding_workflow(const MakoHistory *history, const char *workflow_id, int64 sequence_number)
{
	for (int i = 0; i < history->mark_count; i++)
	{
		const MakoRecordedMove *mark = &history->marks[i];

		if (mark->repoints && is_move(history, mark) && mark->sequence_number >= sequence_number &&
			strcmp(mark->run->source_wf, workflow_id) == 0)
			workflow_id = mark->run->target_wf;
	}
	return workflow_id;
}

/* The workflow that the stream ran under when it moved with a snapshot next, or in the end. */
static const char *
workflow_to_come(const MakoHistory *history, int64 sequence_number)
{
	for (int i = 0; i < history->mark_count; i++)
		if (!history->marks[i].repoints && is_move(history, &history->marks[i]) &&
			history->marks[i].sequence_number >= sequence_number)
			return history->marks[i].run->source_wf;
	return history->final_wf;
}

/* The fold for the events of a workflow. */
static MakoFold *
fold_of(const MakoHistory *history, const char *workflow_id)
{
	if (history->main != NULL && strcmp(history->main->workflow->workflow_id, workflow_id) == 0)
		return history->main;
	return mako_replay_fold(history->replay, workflow_id, workflow_id);
}

/*
 * Goes on under a workflow, from a state or from an unknown one: (Datum) 0. In the history of a
 * run, a workflow whose states are unknown need not be registered.
 */
static void
enter(MakoHistory *history, const char *workflow_id, Datum state)
{
	history->workflow_id = workflow_id;
	history->known = state != (Datum) 0;
	history->fold = history->known || history->is_current ? fold_of(history, workflow_id) : NULL;
	if (history->known)
		mako_fold_begin(history->fold, state, history->sequence_number);
}

/* Tells what the stream looks like now, after an event or a move. */
static void
tell(const MakoHistory *history, Datum event_type, int64 run_id)
{
	MakoMoment	moment = {
		history->sequence_number, event_type, run_id, history->workflow_id,
		history->known ? history->fold->state : (Datum) 0
	};

	if (history->visit != NULL && history->workflow_id != NULL)
		history->visit(history->argument, &moment);
}

/* Raises that nothing tells a state. */
static void
raise_unknown(const MakoHistory *history)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("workflow \"%s\" has no apply function, and its application's snapshot "
					"at sequence number " INT64_FORMAT " is not there",
					history->workflow_id, history->sequence_number)));
}

/* Takes the state along the registered path to another workflow; false when it is refused. */
static bool
migrate(MakoHistory *history, const char *target_wf, MakoRunRow *run)
{
	MakoFold   *steps = mako_replay_fold(history->replay, history->workflow_id, target_wf);

	if (run != NULL)
		mako_archive_warn(history->replay->archive, run, steps->plan);
	if (steps != history->fold)
	{
		mako_fold_begin(steps, history->fold->state, history->sequence_number);
		history->fold = steps;
	}
	return mako_fold_migrate(steps);
}

/* Goes to another workflow where the current history lacks a snapshot: through the steps. */
static void
rebuild(MakoHistory *history, const char *workflow_id)
{
	if (!history->known)
		mako_fold_require_apply(history->fold);
	/* Its folds raise refusals: none is of a batch. */
	(void) migrate(history, workflow_id, NULL);
	enter(history, workflow_id, history->fold->state);
	history->rebuilt = true;
	tell(history, (Datum) 0, 0);
}

/*
 * Goes to a workflow without a move of its own: by repointings, where the state is the same, or
 * through the registered steps; false when one of those refuses the state.
 */
static bool
go_to(MakoHistory *history, const char *workflow_id)
{
	if (history->workflow_id != NULL && strcmp(history->workflow_id, workflow_id) == 0)
		return true;
	if (history->workflow_id == NULL)
	{
		const MakoFold *fold = fold_of(history, workflow_id);

		enter(history, workflow_id,
			  fold->apply == NULL ? (Datum) 0 : JsonbPGetDatum(fold->workflow->initial_state));
	}
	else if (history->is_current)
		rebuild(history, workflow_id);
	else if (!history->known)
		enter(history, workflow_id, (Datum) 0);
	else
	{
		if (strcmp(folding_workflow(history, history->workflow_id, 0), workflow_id) != 0 &&
			!migrate(history, workflow_id, NULL))
			return false;
		enter(history, workflow_id, history->fold->state);
	}
	return true;
}

/*
 * A stored state under a workflow at this point: the application's, or that of a run; (Datum) 0
 * without one.
 */
static Datum
read_stored(const MakoHistory *history, const char *workflow_id, int64 run_id)
{
	NullableDatum values[] = {
		mako_bigint(history->stream->stream_no), mako_bigint(history->sequence_number),
		mako_bigint(run_id), mako_text(workflow_id)
	};
	MakoRows	rows = mako_sql_query_snapshot(&select_stored, values);
	Datum		state = (Datum) 0;

	if (rows.count > 0)
		state = JsonbPGetDatum(DatumGetJsonbPCopy(mako_row_datum(&rows, 0, 1, JSONBOID)));
	mako_rows_free(&rows);
	return state;
}

/* Follows one recorded move with a snapshot; false when the state is refused. */
static bool
follow(MakoHistory *history, const MakoRecordedMove *mark)
{
	MakoRunRow *run = mark->run;

	if (history->trusts_moves)
	{
		/* The states that are wanted are known. */
		enter(history, run->target_wf, mark->state);
		if (history->is_current)
			mako_expect_schema_version(history->fold->workflow, mark->sequence_number,
									   mark->state_schema_version);
		return true;
	}
	if (!go_to(history, run->source_wf))
		return false;
	if (!history->known)
		enter(history, run->source_wf, read_stored(history, run->source_wf, 0));
	if (history->known)
	{
		if (!migrate(history, run->target_wf, run))
			return false;
		enter(history, run->target_wf, history->fold->state);
		return true;
	}

	/*
	 * Nothing but the application could compute the state, and its own is gone: what the run made
	 * of it is all that there is.
	 */
	enter(history, run->target_wf, read_stored(history, run->target_wf, run->run_id));
	return true;
}

/* Begins with a stream from its first event, or after a stored state; see MakoHistory. */
void
mako_history_begin(MakoHistory *history, const MakoRecordedMove *from)
{
	history->sequence_number = from == NULL ? 0 : from->sequence_number;
	history->next_mark = from == NULL ? 0 : (int) (from - history->marks) + 1;
	history->workflow_id = NULL;
	history->fold = NULL;
	history->known = false;
	if (from != NULL)
		enter(history, from->workflow_id, from->state);
}

/* Notes the event that an error would be about; with a main fold, its batch asks that one. */
static void
note_event(const MakoHistory *history, int64 sequence_number)
{
	MakoFold   *fold = history->main != NULL ? history->main : history->fold;

	if (fold != NULL)
		fold->sequence_number = sequence_number;
}

/* Folds the next event; false when it is refused. */
static bool
take_event(MakoHistory *history, const MakoEvent *event)
{
	const char *written_under = NULL;
	const char *workflow_id;

	/* Before the stream goes anywhere: the state is none after a gap. */
	mako_expect_next(history->stream, history->sequence_number + 1, event);
	/* Nearly always it is the current workflow, which no text has to be made for. */
	if (history->workflow_id == NULL || !mako_event_written_under(event, history->workflow_id))
		written_under = TextDatumGetCString(event->workflow_id);
	workflow_id = folding_workflow(history, written_under != NULL ? written_under :
								   history->workflow_id, event->sequence_number);
	if ((history->workflow_id == NULL ||
		 (workflow_id != history->workflow_id && strcmp(workflow_id, history->workflow_id) != 0 &&
		  (strcmp(history->workflow_id, workflow_to_come(history, event->sequence_number)) != 0 ||
		   mako_archive_may_have_returned(history->workflow_id, workflow_id)))) &&
		!go_to(history, workflow_id))
		return false;

	history->known = history->known && history->fold->apply != NULL;
	if (history->known && !mako_fold_event(history->fold, event))
		return false;
	if (history->main != NULL)
		history->main->phase = MAKO_PHASE_LOAD;
	history->sequence_number = event->sequence_number;
	return true;
}

/*
 * Goes on to a sequence number, and through the moves there; false when something on the way is
 * refused, which the main fold knows then. The reader is at the event after the one folded last.
 * Calls back after every event and every move, and at the beginning.
 */
bool
mako_history_until(MakoHistory *history, MakoReader *reader, int64 sequence_number)
{
	Datum		event_type = (Datum) 0;

	for (;;)
	{
		const MakoEvent *event;

		tell(history, event_type, 0);
		while (history->next_mark < history->mark_count &&
			   history->marks[history->next_mark].sequence_number <= history->sequence_number)
		{
			const MakoRecordedMove *mark = &history->marks[history->next_mark++];

			if (mark->repoints || !is_move(history, mark))
				continue;
			if (!follow(history, mark))
				return false;
			tell(history, (Datum) 0, mark->run_id);
		}
		if (history->sequence_number >= sequence_number)
			return true;

		CHECK_FOR_INTERRUPTS();
		event = mako_stream_next_event(reader, history->stream->stream_no);
		if (event == NULL)
			mako_expect_end(history->stream, history->sequence_number + 1);
		note_event(history, event->sequence_number);
		history->is_source = mako_event_written_under(event, history->final_wf);
		if (!take_event(history, event))
			return false;
		event_type = event->event_type;
	}
}

/*
 * Goes to the workflow where the stream was in the end, with its state; where only the application
 * knows that, with its snapshot. False when a step on the way refuses the state.
 */
bool
mako_history_finish(MakoHistory *history)
{
	if (!go_to(history, history->final_wf))
		return false;
	if (!history->known)
		enter(history, history->final_wf, read_stored(history, history->final_wf, 0));
	if (!history->known)
		raise_unknown(history);
	return true;
}

/* Takes the state to the target of the main fold; false when it is refused. */
bool
mako_history_migrate(MakoHistory *history)
{
	if (history->fold != history->main)
		enter(history, history->final_wf, history->fold->state);
	return mako_fold_migrate(history->main);
}

/* Where a history is, for the context of an error. */
static void
add_history_context(void *argument)
{
	const MakoHistory *history = argument;

	if (history->fold != NULL)
		mako_fold_context(history->fold);
}

/*
 * Replays a stream from its first event to its head, with the active snapshot: calls back after
 * every event and every move, and returns the state at its head, (Datum) 0 where nothing tells it.
 * The state is in the replay's memory and lasts until the next stream is replayed.
 */
Datum
mako_history_replay(MakoReplay *replay, const MakoStream *stream, MakoMomentCallback visit,
					void *argument)
{
	MakoRecordedMoves moves = mako_archive_moves(replay->archive, stream, 1, MAKO_ALL_RUNS, NULL);
	MakoHistory history = {
		.replay = replay,.stream = stream,.marks = moves.marks,.mark_count = moves.first[1],
		.before_run = PG_INT64_MAX,.final_wf = stream->workflow_id,.trusts_moves = true,
		.is_current = true,.visit = visit,.argument = argument
	};
	MakoStream	whole = *stream;
	const MakoRecordedMove *given = mako_archive_given(history.marks, history.mark_count);
	MakoReader *reader;
	const MakoEvent *beyond;
	ErrorContextCallback context = {error_context_stack, add_history_context, &history};

	error_context_stack = &context;
	whole.start = given == NULL ? 0 : given->sequence_number;
	reader = mako_stream_open_events(&whole, 1, NULL);
	mako_history_begin(&history, given);
	(void) mako_history_until(&history, reader, stream->version);
	beyond = mako_stream_next_event(reader, stream->stream_no);
	if (beyond != NULL)
		mako_expect_next(stream, stream->version + 1, beyond);
	mako_stream_close_events(reader);
	if (history.workflow_id != NULL)
		(void) go_to(&history, history.final_wf);
	error_context_stack = context.previous;
	replay->rebuilt += history.rebuilt;
	return history.known ? history.fold->state : (Datum) 0;
}
