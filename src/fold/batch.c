/*
 * batch.c
 *	  Some streams, one after the other, in as few subtransactions as possible.
 *
 * One subtransaction holds many streams. When one of them fails, those before it are done (nothing
 * is written here), and the next subtransaction starts after it: what isolation costs grows with
 * the number of failures only. A stream that a function refuses costs not even that. Errors are
 * handed over outside the subtransactions, in the order of the streams. Where the events come
 * from, a cursor or memory, makes no difference.
 */
#include "fold/fold.h"

#include "miscadmin.h"

/* A stream that a function has refused, until the current subtransaction has ended. */
typedef struct Refused
{
	MakoStream *stream;
	MakoPhase	phase;
	int64		sequence_number;
	ErrorData  *error;
} Refused;

/* The fold of the current stream. */
static MakoFold *
fold_at_hand(const MakoBatch *batch)
{
	return batch->folds[batch->streams[batch->next].source];
}

/* The fold of the current stream, which has not met an event yet. */
static MakoFold *
begin_stream(const MakoBatch *batch)
{
	MakoFold   *fold = fold_at_hand(batch);

	fold->phase = MAKO_PHASE_LOAD;
	fold->sequence_number = 0;
	fold->refusal.sqlerrcode = 0;
	return fold;
}

/*
 * Opens a reader of the streams from next to end; NULL when none of their workflows has an apply.
 */
static MakoReader *
open_reader(const MakoBatch *batch)
{
	const MakoStream *streams = &batch->streams[batch->next];
	int			count = batch->end - batch->next;
	bool	   *has_apply = palloc(sizeof(bool) * batch->sources);
	bool		wanted = false;

	for (int source = 0; source < batch->sources; source++)
		has_apply[source] = batch->folds[source]->workflow->apply != NULL;
	for (int i = 0; i < count && !wanted; i++)
		wanted = has_apply[streams[i].source];
	if (!wanted)
		return NULL;
	return batch->gathered ? mako_stream_open_gathered(streams, count) :
		mako_stream_open_events(streams, count, has_apply);
}

/* Notes that the current stream was refused, in the batch's memory. */
static void
note_refused(MakoBatch *batch, const MakoFold *fold)
{
	Refused    *refused = palloc(sizeof(Refused));

	refused->stream = &batch->streams[batch->next];
	refused->phase = fold->phase;
	refused->sequence_number = fold->sequence_number;
	refused->error = mako_refusal_to_error(&fold->refusal);
	batch->refused = lappend(batch->refused, refused);
}

/* Hands over the streams that were refused. */
static void
fail_refused(MakoBatch *batch)
{
	ListCell   *cell;

	foreach(cell, batch->refused)
	{
		Refused    *refused = lfirst(cell);

		batch->fail(batch->argument, refused->stream, refused->phase, refused->sequence_number,
					refused->error);
		FreeErrorData(refused->error);
	}
	list_free_deep(batch->refused);
	batch->refused = NIL;
}

/*
 * Takes the streams from next to end, or until the taker wants a pause; leaves next at the stream
 * that failed.
 */
static void
take_streams(void *argument)
{
	MakoBatch  *batch = argument;
	MakoReader *reader;
	bool		go_on = true;

	(void) begin_stream(batch);
	reader = open_reader(batch);
	while (go_on && batch->next < batch->end)
	{
		MakoFold   *fold = begin_stream(batch);
		bool		has_apply = fold->workflow->apply != NULL;
		bool		accepted;

		CHECK_FOR_INTERRUPTS();
		accepted = batch->take(batch->argument, &batch->streams[batch->next],
							   has_apply ? reader : NULL);
		if (!accepted)
			note_refused(batch, fold);
		go_on = batch->wants_pause == NULL || !batch->wants_pause(batch->argument, accepted);
		batch->next++;
	}
	if (reader != NULL)
		mako_stream_close_events(reader);
}

/* Makes the folds usable again that may have been used since the subtransaction began. */
static void
recover_folds(const MakoBatch *batch)
{
	bool	   *recovered = palloc0(sizeof(bool) * batch->sources);

	for (int i = batch->begin; i <= batch->next; i++)
	{
		int			source = batch->streams[i].source;

		if (recovered[source])
			continue;
		mako_fold_recover(batch->folds[source]);
		mako_replay_recover(batch->replays[source]);
		recovered[source] = true;
	}
	pfree(recovered);
}

/* Lets every fold take refusals down, or raise them again. */
static void
set_refusals(const MakoBatch *batch, bool taken)
{
	for (int i = 0; i < batch->sources; i++)
		batch->folds[i]->takes_refusals = taken;
}

/*
 * Wants a pause after a stream that is refused, for those whose rows come in the order of the
 * streams.
 */
bool
mako_batch_tells_refusal(void *argument, bool accepted)
{
	return !accepted;
}

/* Takes every stream of a batch, with the active snapshot. */
void
mako_batch_run(MakoBatch *batch)
{
	bool		alone = false;

	batch->next = 0;
	set_refusals(batch, true);
	while (batch->next < batch->count)
	{
		ErrorData  *error;
		const MakoFold *fold;

		batch->begin = batch->next;
		batch->end = alone ? batch->next + 1 : batch->count;
		error = mako_subtransaction_run(take_streams, batch);
		if (error == NULL)
		{
			alone = false;
			fail_refused(batch);
			if (batch->pause != NULL)
				batch->pause(batch->argument);
			continue;
		}

		/* What went wrong when every stream was done is no stream's. */
		if (batch->next == batch->end)
			ReThrowError(error);

		/*
		 * A reader with a cursor fetches some events ahead, so an error in loading may belong to
		 * a later stream: only alone does the current stream fail. What a program raises after it
		 * has refused does not count.
		 */
		fold = fold_at_hand(batch);
		recover_folds(batch);
		alone = !alone && fold->phase == MAKO_PHASE_LOAD && batch->end - batch->next > 1;
		if (fold->refusal.sqlerrcode != 0)
			note_refused(batch, fold);
		fail_refused(batch);
		if (!alone)
		{
			if (fold->refusal.sqlerrcode == 0)
				batch->fail(batch->argument, &batch->streams[batch->next], fold->phase,
							fold->sequence_number, error);
			batch->next++;
		}
		FreeErrorData(error);
	}
	set_refusals(batch, false);
}
