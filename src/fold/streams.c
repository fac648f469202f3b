/*
 * streams.c
 *	  The streams of a workflow in passing: read, folded by a caller and forgotten. No locks, no
 *	  writes, so it works in read-only transactions and on a standby.
 *
 * Heads come from one cursor with the active snapshot, in stream_no order, the events of a batch
 * from another one, in key order. A walk's memory is in a context of its own below the caller's;
 * a batch's is reset for the next.
 */
#include "fold/fold.h"

#include "utils/memutils.h"

/* Takes the streams of a workflow one after the other; what fails alone is handed over. */
void
mako_streams_walk(const MakoStreamsWalk *walk)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "mako survey",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	MemoryContext batch_context = AllocSetContextCreate(context, "mako batch",
														ALLOCSET_DEFAULT_SIZES);
	MakoFold   *fold = walk->fold;
	MakoReplay *replay = walk->replay;
	const char *workflow_id = fold->workflow->workflow_id;
	MakoBatch	batch = {
		.folds = &fold,.replays = &replay,.sources = 1,.take = walk->take,
		.wants_pause = walk->wants_pause,.fail = walk->fail,.argument = walk->argument
	};
	MakoCursor *heads = walk->sample < 0 ?
		mako_stream_open_heads(&workflow_id, 1, walk->tenant_id, walk->with_names,
							   walk->share) :
		mako_stream_open_sample(workflow_id, walk->tenant_id, walk->sample, walk->seed);

	do
	{
		MemoryContextReset(batch_context);
		MemoryContextSwitchTo(batch_context);
		batch.streams = palloc(sizeof(MakoStream) * mako_batch_size);
		batch.count = mako_stream_fetch_heads(heads, &workflow_id, 1, batch.streams,
											  mako_batch_size);
		if (batch.count > 0)
		{
			for (int i = 0; i < batch.count; i++)
				batch.streams[i].periodic_too = walk->periodic_too;
			mako_stream_load_states(batch.streams, batch.count);
			mako_batch_run(&batch);
		}
	} while (batch.count > 0);
	mako_cursor_close(heads);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}
