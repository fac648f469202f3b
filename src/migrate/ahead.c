/*
 * ahead.c
 *	  A batched run whose events are read once, for all of its batches.
 *
 * Streams are read and folded in heap order, without locks, until as many states wait as may; these
 * are then written batch by batch, each in a transaction of its own, in the order of the streams.
 * Then it is read on from where the last transaction stopped. Nothing is lost by that: events do
 * not change, and a head tells how many of them there are. So what was folded in one transaction
 * is right in another one, if the head, locked then, is at the version that it was folded for, and
 * there are no events beyond it.
 *
 * Whatever is out of the ordinary is taken in key order, with its head locked: at once a stream
 * that fails, because a call may end when too many do; in the end one that is busy or has got
 * another event, and one that was not complete. So results and errors are those of batches in key
 * order.
 *
 * What lasts from one transaction to the next is in a context below that of the call. The pass of
 * a transaction, with its programs, does not last: before anything of it is used again, it is made
 * again, and the definitions are compared.
 */
#include "migrate/pass.h"

#include "utils/memutils.h"
#include "utils/snapmgr.h"

/*
 * So long, in milliseconds, folding goes on at most before a batch is written: slow functions shall
 * neither hide how far a run has come, nor have much to do again when it is cancelled.
 */
#define FOLD_AT_MOST 1000

/* So many heads are asked for together: nobody waits for them, and the question is a large one. */
#define HEADS_AT_ONCE (4 * mako_batch_size)

struct MakoAhead
{
	MakoBatchedRun *run;
	MemoryContext context;		/* of everything here */
	MakoHeapOrder *heap_order;	/* NULL before the first transaction */
	int64		covered;		/* heads up to this number are known */
	bool		heads_ended;
	bool		ended;			/* are the events */
	MemoryContext results_context;
	MakoResult *results;		/* that wait, in the order of the streams */
	int			result_count;
	int			written;		/* of these */
	MakoNumbers failed;			/* of what was folded last */
	MakoNumbers left;
};

/*
 * Begins to fold ahead for a batched run, in a context that lasts as long as the call; NULL where
 * key order is better.
 */
MakoAhead *
mako_ahead_begin(MakoBatchedRun *run, MemoryContext parent)
{
	const MakoRequest *request = &run->request;
	MakoPass   *pass = mako_pass_open_batch(run, 0, false);
	MakoMatches *matches = mako_matches_take(pass->sources, 1, request->tenant_id);
	bool		has_apply = pass->runs[0].plan->workflows[0]->apply != NULL;
	const char *why = "the events are those of an attached event store";
	bool		heap;
	MemoryContext context;
	MakoAhead  *ahead;

	heap = !mako_door_is_attached() &&
		mako_run_choose_heap_order(matches, pass->sources, has_apply ? 1 : 0, NULL, &why);
	ereport(DEBUG1,
			(errmsg_internal("reading events in %s order: %s", heap ? "heap" : "key", why)));
	if (!heap)
		return NULL;
	context = AllocSetContextCreate(parent, "mako ahead", ALLOCSET_DEFAULT_SIZES);
	ahead = MemoryContextAllocZero(context, sizeof(MakoAhead));
	ahead->run = run;
	ahead->context = context;
	ahead->covered = PG_INT64_MIN;
	return ahead;
}

/* ---- what is taken in key order ------------------------------------------------------------- */

/* Brings a list in order, and empties it. */
static const int64 *
take_numbers(MakoNumbers *list, int *count)
{
	mako_numbers_sort(list);
	*count = list->count;
	list->count = 0;
	return list->numbers;
}

/* Notes a stream that failed when it was folded. */
void
mako_ahead_fail(MakoAhead *ahead, int64 stream_no)
{
	mako_numbers_add(&ahead->failed, ahead->context, stream_no);
}

/* The streams that failed when they were folded last, in the order of their numbers. */
const int64 *
mako_ahead_failed(MakoAhead *ahead, int *count)
{
	return take_numbers(&ahead->failed, count);
}

/*
 * Ends folding ahead. Returns the numbers of the streams that are left, in their order. Where the
 * events have ended early, *after is the number behind which no stream was met at all; otherwise
 * it is that of the last stream of the run.
 */
const int64 *
mako_ahead_end(MakoAhead *ahead, int *count, int64 *after)
{
	int			incomplete_count;
	const int64 *incomplete = mako_heap_order_close(ahead->heap_order, &incomplete_count);

	for (int i = 0; i < incomplete_count; i++)
		mako_numbers_add(&ahead->left, ahead->context, incomplete[i]);
	*after = ahead->heads_ended ? ahead->run->through_stream_no : ahead->covered;
	return take_numbers(&ahead->left, count);
}

/* ---- folding -------------------------------------------------------------------------------- */

/* Starts to read events, or goes on. */
static void
resume(MakoAhead *ahead, MakoPass *pass)
{
	if (ahead->heap_order == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(ahead->context);

		ahead->heap_order = mako_heap_order_open(Min(ahead->run->request.batch_size,
													 mako_heap_order_at_once(1)), NULL);
		MemoryContextSwitchTo(old);
	}
	else
		mako_heap_order_resume(ahead->heap_order);
	pass->heap_order = ahead->heap_order;
	pass->ahead = ahead;
}

/* Gives the next heads to the scan, as they are now, without locking them. */
static void
expect_heads(MakoAhead *ahead, MakoPass *pass)
{
	const MakoBatchedRun *run = ahead->run;
	MemoryContext old;

	MemoryContextReset(pass->batch_context);
	old = MemoryContextSwitchTo(pass->batch_context);
	pass->streams = palloc(sizeof(MakoStream) * HEADS_AT_ONCE);
	pass->stream_count = ahead->heads_ended ? 0 :
		mako_stream_next_heads(pass->sources, run->request.tenant_id, ahead->covered,
							   run->through_stream_no, run->run_id, run->failed > 0,
							   mako_writer_names_streams(pass->writer), pass->streams,
							   HEADS_AT_ONCE);
	ahead->heads_ended = pass->stream_count < HEADS_AT_ONCE;
	if (pass->stream_count > 0)
	{
		ahead->covered = pass->streams[pass->stream_count - 1].stream_no;
		mako_pass_load_states(pass);
	}
	mako_heap_order_expect(ahead->heap_order, pass->streams, pass->stream_count, pass->has_apply);
	MemoryContextSwitchTo(old);
}

/* Folds the streams that are complete. */
static void
fold_complete(const MakoAhead *ahead, MakoPass *pass)
{
	MemoryContext old = MemoryContextSwitchTo(pass->batch_context);
	int			count;
	MakoStream *streams = mako_heap_order_take(ahead->heap_order, &count);

	mako_pass_take_batch(pass, streams, count, true);
	mako_heap_order_release(ahead->heap_order);
	MemoryContextSwitchTo(old);
	MemoryContextReset(pass->batch_context);
}

/* Returns true if it is time to write what was folded since a time. */
static bool
is_enough(const MakoPass *pass, TimestampTz since)
{
	return mako_writer_is_full(pass->writer) ||
		(pass->writer->count >= pass->runs[0].request->batch_size &&
		 TimestampDifferenceExceeds(since, GetCurrentTimestamp(), FOLD_AT_MOST));
}

/*
 * Reads on and folds, in the current transaction, until as many states wait as may, or for long
 * enough; false when there are no more events.
 */
bool
mako_ahead_fold(MakoAhead *ahead, int64 failed_in_all)
{
	TimestampTz since = GetCurrentTimestamp();
	MakoPass   *pass = mako_pass_open_batch(ahead->run, failed_in_all, false);

	if (ahead->results_context != NULL)
		MemoryContextDelete(ahead->results_context);
	mako_pass_compile(pass);
	mako_pass_rehearse(pass);
	resume(ahead, pass);
	while (!ahead->ended && !is_enough(pass, since))
	{
		switch (mako_heap_order_advance(ahead->heap_order))
		{
			case MAKO_HEAP_ORDER_HEADS:
				expect_heads(ahead, pass);
				break;
			case MAKO_HEAP_ORDER_TAKE:
				fold_complete(ahead, pass);
				break;
			case MAKO_HEAP_ORDER_END:
				ahead->ended = true;
				break;
		}
	}
	mako_heap_order_suspend(ahead->heap_order);
	mako_pass_check_definitions(pass);
	mako_replay_warn(pass->replays[0], NULL);
	ahead->results_context = mako_writer_hand_over(pass->writer, &ahead->results,
												   &ahead->result_count);
	MemoryContextSetParent(ahead->results_context, ahead->context);
	ereport(DEBUG1,
			(errmsg_internal("folded %d streams ahead, %d have failed",
							 ahead->result_count, ahead->failed.count)));
	ahead->written = 0;
	return !ahead->ended;
}

/* ---- writing -------------------------------------------------------------------------------- */

/*
 * Adds those of some results to what is written whose heads, locked now, are at the version that
 * they were folded for, without events beyond; the others are left. Returns how many those are.
 */
static int
add_unchanged(MakoAhead *ahead, MakoPass *pass, const MakoResult *results, int count)
{
	int64	   *numbers = palloc(sizeof(int64) * count);
	MakoStream *locked = palloc(sizeof(MakoStream) * count);
	int			locked_count;
	const int64 *beyond;
	int			beyond_count;
	int			left = 0;

	for (int i = 0; i < count; i++)
		numbers[i] = results[i].stream_no;
	locked_count = mako_stream_lock_free(numbers, count, pass->sources, locked);
	beyond = mako_stream_beyond(locked, locked_count, &beyond_count);
	for (int i = 0, next = 0, more = 0; i < count; i++)
	{
		MakoResult	result = results[i];
		bool		is_locked = next < locked_count &&
			locked[next].stream_no == result.stream_no;
		bool		has_more = more < beyond_count && beyond[more] == result.stream_no;

		more += has_more;
		if (is_locked && !has_more && locked[next].version == result.version)
		{
			result.tid = locked[next].tid;
			mako_writer_add_result(pass->writer, &result);
			mako_progress_advance(pass->tally.failed);
		}
		else
		{
			mako_numbers_add(&ahead->left, ahead->context, result.stream_no);
			left++;
		}
		next += is_locked;
	}
	return left;
}

/* Returns true if something waits to be written. */
bool
mako_ahead_waits(const MakoAhead *ahead)
{
	return ahead->written < ahead->result_count;
}

/* Writes the next batch of what waits, in the current transaction. */
void
mako_ahead_write(MakoAhead *ahead, int64 failed_in_all)
{
	MakoBatchedRun *run = ahead->run;
	TimestampTz started_at = GetCurrentTimestamp();
	int			count = Min(run->request.batch_size, ahead->result_count - ahead->written);
	MakoPass   *pass = mako_pass_open_batch(run, failed_in_all, true);
	int			left;

	mako_writer_rehearse(pass->writer);
	left = add_unchanged(ahead, pass, &ahead->results[ahead->written], count);
	mako_writer_flush(pass->writer);
	mako_report_save_errors(pass->runs[0].report);
	mako_audit_record_batch(run, pass->runs[0].report, 0, left, started_at);
	ahead->written += count;
}
