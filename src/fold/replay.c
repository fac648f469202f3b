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

#include "miscadmin.h"
#include "utils/builtins.h"

/*
 * Warns when migration snapshots were missing: of this stream, or of many when stream_id is NULL.
 */
void
mako_replay_warn(const MakoReplay *replay, const char *stream_id)
{
	if (replay->rebuilt > 0)
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 stream_id != NULL ?
				 errmsg("a migration snapshot of stream \"%s\" is missing", stream_id) :
				 errmsg_plural("a migration snapshot of %ld stream is missing",
							   "migration snapshots of %ld streams are missing",
							   (long) replay->rebuilt, (long) replay->rebuilt),
				 errdetail("The state was computed again from the events, "
						   "through the registered state migrations."),
				 errhint("An imported history has none; mako_take_snapshot() keeps the state.")));
}

/*
 * Returns true if an event after the start of a stream tells that a migration snapshot is missing:
 * another workflow folds it than the one that the stream runs under.
 */
static bool
is_foreign(const MakoEvent *event, const MakoStream *stream, MakoReader *reader)
{
	const char *workflow_id;

	if (mako_event_written_under(event, stream->workflow_id))
		return false;
	workflow_id = mako_stream_folding_workflow(reader);
	return strcmp(workflow_id, stream->workflow_id) != 0 &&
		(event->sequence_number == stream->start + 1 ||
		 mako_archive_may_have_returned(stream->workflow_id, workflow_id));
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

	mako_expect_start(stream);
	while (!needed && (event = mako_stream_next_event(reader, stream->stream_no)) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		mako_expect_next(stream, expected, event);
		needed = is_foreign(event, stream, reader);
		expected++;
	}
	mako_stream_close_events(reader);
	if (!needed)
		mako_expect_end(stream, expected);
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
				 errmsg("there is no snapshot at the stream's version " INT64_FORMAT,
						stream->version),
				 stream->start > 0 ? errdetail("The newest one is at sequence "
											   "number " INT64_FORMAT ".", stream->start) : 0,
				 errhint("Workflow \"%s\" has no apply function, so its application must save "
						 "the state with mako_save_snapshot().",
						 workflow->workflow_id)));
	mako_expect_schema_version(workflow, stream->start, stream->start_schema_version);
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
		mako_expect_next(stream, 1, event);
	}
}

/* Replays a stream whose boundary is missing, and passes over its events in the reader. */
static void
replay_missing(MakoReplay *replay, MakoFold *fold, const MakoStream *stream, MakoReader *reader)
{
	mako_fold_begin(fold, mako_history_replay(replay, stream, replay->tell, replay->argument),
					stream->version);
	while (mako_stream_next_event(reader, stream->stream_no) != NULL)
		CHECK_FOR_INTERRUPTS();
}

/* Tells of the state of a stream that is folded under the workflow that it runs under. */
static void
tell_fold(const MakoReplay *replay, const MakoFold *fold, Datum event_type)
{
	MakoMoment	moment = {
		fold->sequence_number, event_type, 0, fold->workflow->workflow_id, fold->state
	};

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
	mako_expect_start(stream);
	if (stream->start > 0)
	{
		mako_expect_schema_version(workflow, stream->start, stream->start_schema_version);
		mako_fold_begin(fold, stream->start_state, stream->start);
	}
	else
		mako_fold_begin(fold, JsonbPGetDatum(workflow->initial_state), 0);
	if (replay->tell != NULL)
		tell_fold(replay, fold, (Datum) 0);

	while ((event = mako_stream_next_event(reader, stream->stream_no)) != NULL)
	{
		fold->sequence_number = event->sequence_number;
		mako_expect_next(stream, expected, event);
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
	mako_expect_end(stream, expected);
	return true;
}
