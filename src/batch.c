/*
 * batch.c
 *	  Some streams, one after the other, in as few subtransactions as possible.
 *
 * One subtransaction holds many streams. When one of them fails, those before it are done (nothing is written here), its error is
 * handed over, and the next subtransaction starts behind it: what isolation costs grows with the number of failures only. A stream that
 * a function refuses costs not even that.
 */
#include "mako_migration.h"

#include "miscadmin.h"

/* Hands over the refusal of the stream at hand. */
static void
fail_refused(MakoBatch *batch)
{
	ErrorData  *error = mako_refusal_to_error(&batch->fold->refusal);

	batch->fail(batch->argument, &batch->streams[batch->next], error);
	FreeErrorData(error);
}

/* Takes the streams from next to end, or until the taker wants a pause; leaves next at the stream that failed. */
static void
take_streams(void *argument)
{
	MakoBatch  *batch = argument;
	MakoReader *reader = NULL;
	bool		go_on = true;

	batch->fold->phase = MAKO_PHASE_LOAD;
	batch->fold->sequence_number = 0;
	if (batch->fold->plan->workflows[0]->apply != NULL)
		reader = mako_stream_open_events(&batch->streams[batch->next], batch->end - batch->next);
	while (go_on && batch->next < batch->end)
	{
		CHECK_FOR_INTERRUPTS();
		batch->fold->phase = MAKO_PHASE_LOAD;
		batch->fold->sequence_number = 0;
		batch->fold->refusal.sqlerrcode = 0;
		go_on = batch->take(batch->argument, &batch->streams[batch->next], reader);
		if (batch->fold->refusal.sqlerrcode != 0)
			fail_refused(batch);
		batch->next++;
	}
	if (reader != NULL)
		mako_stream_close_events(reader);
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

		batch->end = alone ? batch->next + 1 : batch->count;
		batch->fold->takes_refusals = true;
		error = mako_isolation_run(take_streams, batch);
		batch->fold->takes_refusals = false;
		if (error == NULL)
		{
			alone = false;
			if (batch->pause != NULL)
				batch->pause(batch->argument);
			continue;
		}

		/*
		 * The reader fetches some events ahead, so an error in loading may belong to a later stream: only alone does the stream at
		 * hand fail.
		 */
		mako_fold_recover(batch->fold);
		mako_replay_recover(batch->replay);
		if (batch->fold->refusal.sqlerrcode != 0)
		{
			/* What a program raises after it has refused does not count. */
			fail_refused(batch);
			batch->next++;
			FreeErrorData(error);
			continue;
		}
		alone = !alone && batch->fold->phase == MAKO_PHASE_LOAD && batch->end - batch->next > 1;
		if (!alone)
		{
			batch->fail(batch->argument, &batch->streams[batch->next], error);
			batch->next++;
		}
		FreeErrorData(error);
	}
}
