/*
 * batch.c
 *	  Some streams, one after the other, in as few subtransactions as possible.
 *
 * One subtransaction holds many streams. When one of them fails, those before it are done (nothing is written here), its error is
 * handed over, and the next subtransaction starts behind it: what isolation costs grows with the number of failures only. Where the
 * events come from, a cursor or memory, makes no difference.
 */
#include "mako_migration.h"

#include "miscadmin.h"

/* The fold of the stream at hand, which has not met an event yet. */
static MakoFold *
fold_at_hand(const MakoBatch *batch)
{
	MakoFold   *fold = batch->folds[batch->streams[batch->next].source];

	fold->phase = MAKO_PHASE_LOAD;
	fold->sequence_number = 0;
	return fold;
}

/* Opens a reader of the streams from next to end; NULL when none of their workflows has an apply. */
static MakoReader *
open_reader(const MakoBatch *batch)
{
	const MakoStream *streams = &batch->streams[batch->next];
	int			count = batch->end - batch->next;
	bool		wanted = false;

	for (int i = 0; i < count && !wanted; i++)
		wanted = batch->folds[streams[i].source]->plan->workflows[0]->apply != NULL;
	if (!wanted)
		return NULL;
	return batch->gathered ? mako_stream_open_gathered(streams, count) : mako_stream_open_events(streams, count, batch->folds);
}

/* Takes the streams from next to end, or until the taker wants a pause; leaves next at the stream that failed. */
static void
take_streams(void *argument)
{
	MakoBatch  *batch = argument;
	MakoReader *reader;
	bool		go_on = true;

	(void) fold_at_hand(batch);
	reader = open_reader(batch);
	while (go_on && batch->next < batch->end)
	{
		bool		has_apply = fold_at_hand(batch)->plan->workflows[0]->apply != NULL;

		CHECK_FOR_INTERRUPTS();
		go_on = batch->take(batch->argument, &batch->streams[batch->next], has_apply ? reader : NULL);
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

/* Takes every stream of a batch, with the active snapshot. */
void
mako_batch_run(MakoBatch *batch)
{
	bool		alone = false;

	batch->next = 0;
	while (batch->next < batch->count)
	{
		ErrorData  *error;

		batch->begin = batch->next;
		batch->end = alone ? batch->next + 1 : batch->count;
		error = mako_isolation_run(take_streams, batch);
		if (error == NULL)
		{
			alone = false;
			if (batch->pause != NULL)
				batch->pause(batch->argument);
			continue;
		}

		/*
		 * A reader with a cursor fetches some events ahead, so an error in loading may belong to a later stream: only alone does the
		 * stream at hand fail.
		 */
		recover_folds(batch);
		alone = !alone && batch->folds[batch->streams[batch->next].source]->phase == MAKO_PHASE_LOAD && batch->end - batch->next > 1;
		if (!alone)
		{
			batch->fail(batch->argument, &batch->streams[batch->next], error);
			batch->next++;
		}
		FreeErrorData(error);
	}
}
