/*
 * run.c
 *	  The runs of a call, in one pass: plan, lock, fold, write, report.
 *
 * The heads of all runs come from one cursor, a batch at a time, in stream_no order. Their events
 * are read in one of two orders. In key order, a batch's events are looked up with a snapshot
 * taken after its heads were locked, so that nothing is missed that others committed while we
 * waited. In heap order, heap_order.c reads all events once, with a snapshot of its start, and
 * asks for heads on its way; whatever is not complete or without order then is looked up, too. So
 * the result is the same. What fails alone, batch.c isolates. The results of all runs wait in one
 * writer, which writes them together. What it writes may fire triggers, and one of them may append
 * to a stream whose head comes later: the cursor leaves that out, so it is looked for in the end.
 *
 * A batched run is a pass for every one of its transactions: over heads that batched.c chooses, in
 * key order; or over streams that ahead.c folds and writes. What lasts from one to the next is in
 * its row, and in a MakoBatchedRun.
 *
 * The pass lives in the caller's context; a batch, in one below it that is reset for the next.
 */
#include "migrate/pass.h"

#include "access/xact.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

/* ---- one batch ------------------------------------------------------------------------------ */

/* Migrates a stream; see MakoBatch. */
static bool
migrate_stream(void *argument, const MakoStream *stream, MakoReader *reader)
{
	const MakoPass *pass = argument;
	const MakoRun *run = &pass->runs[stream->source];
	MakoMove	move;

	if (!mako_mover_take(&run->mover, pass->folds[stream->source], pass->replays[stream->source],
						 stream, reader, &move))
		return false;
	if (move.moves)
		mako_writer_add(pass->writer, stream, move.sequence_number, move.new_state, move.counts);
	/* What is kept is done with when it is written. */
	if (pass->ahead == NULL || !move.moves)
		mako_progress_advance(pass->tally.failed);
	return true;
}

/* Returns true if the results so far must be written first. */
static bool
wants_to_write(void *argument, bool accepted)
{
	const MakoPass *pass = argument;

	return mako_writer_is_full(pass->writer);
}

/* Writes what waits, when it is time to. */
void
mako_pass_write(const MakoPass *pass)
{
	if (mako_writer_is_full(pass->writer))
		mako_writer_flush(pass->writer);
}

/* The same; see MakoBatch. */
static void
write_results(void *argument)
{
	mako_pass_write(argument);
}

/* Reports a stream that failed. */
static void
record_failure(void *argument, const MakoStream *stream, MakoPhase phase, int64 sequence_number,
			   const ErrorData *error)
{
	MakoPass   *pass = argument;

	if (pass->heap_order != NULL)
		mako_heap_order_forget(pass->heap_order, stream->stream_no);
	if (pass->ahead != NULL)
	{
		mako_ahead_fail(pass->ahead, stream->stream_no);
		return;
	}
	mako_report_error(pass->runs[stream->source].report, stream->stream_no,
					  mako_stream_id(stream->stream_no), phase, sequence_number, error);
	mako_progress_advance(pass->tally.failed);
}

/* Migrates some streams, with a snapshot of now for events and whatever the functions read. */
void
mako_pass_take_batch(MakoPass *pass, MakoStream *streams, int count, bool gathered)
{
	MakoBatch	batch = {
		.streams = streams,.count = count,.gathered = gathered,.folds = pass->folds,
		.replays = pass->replays,.sources = pass->count,
		.take = migrate_stream,.wants_pause = pass->ahead == NULL ? wants_to_write : NULL,
		.pause = pass->ahead == NULL ? write_results : NULL,
		.fail = record_failure,.argument = pass
	};

	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	mako_batch_run(&batch);
	PopActiveSnapshot();
}

/* Finds the states that the current batch starts from, with a snapshot of after the locks. */
void
mako_pass_load_states(MakoPass *pass)
{
	for (int i = 0; i < pass->stream_count; i++)
		pass->streams[i].periodic_too = pass->runs[pass->streams[i].source].mover.periodic_too;
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	mako_stream_load_states(pass->streams, pass->stream_count);
	PopActiveSnapshot();
}

/* Fetches and locks the next heads; false when there are none. */
static bool
fetch_batch(MakoPass *pass)
{
	MemoryContext old;

	MemoryContextReset(pass->batch_context);
	pass->stream_count = 0;
	if (!pass->heads_ended)
	{
		old = MemoryContextSwitchTo(pass->batch_context);
		pass->streams = palloc(sizeof(MakoStream) * mako_batch_size);
		pass->stream_count = mako_stream_fetch_heads(pass->heads, pass->sources, pass->count,
													 pass->streams, mako_batch_size);
		pass->heads_ended = pass->stream_count < mako_batch_size;
		MemoryContextSwitchTo(old);
		for (int i = 0; i < pass->stream_count; i++)
			mako_seen_add(pass->seen, pass->streams[i].stream_no);
	}
	return pass->stream_count > 0;
}

/* ---- key order ------------------------------------------------------------------------------ */

/* Migrates the current batch, whose heads are locked. */
static void
migrate_batch(MakoPass *pass)
{
	MemoryContext old = MemoryContextSwitchTo(pass->batch_context);

	mako_pass_load_states(pass);
	mako_pass_take_batch(pass, pass->streams, pass->stream_count, false);
	MemoryContextSwitchTo(old);
}

/* Migrates the current batch and every one after it. */
static void
migrate_in_key_order(MakoPass *pass)
{
	while (pass->stream_count > 0)
	{
		migrate_batch(pass);
		(void) fetch_batch(pass);
	}
}

/* Migrates streams whose heads are locked already, by their numbers. */
void
mako_pass_take_left(MakoPass *pass, const int64 *stream_nos, int count)
{
	for (int first = 0; first < count; first += mako_batch_size)
	{
		int			some = Min(count - first, mako_batch_size);
		MemoryContext old;

		MemoryContextReset(pass->batch_context);
		old = MemoryContextSwitchTo(pass->batch_context);
		CommandCounterIncrement();
		PushActiveSnapshot(GetTransactionSnapshot());
		pass->streams = palloc(sizeof(MakoStream) * some);
		pass->stream_count = mako_stream_fetch_heads_again(&stream_nos[first], some, pass->sources,
														   pass->count, pass->streams);
		PopActiveSnapshot();
		MemoryContextSwitchTo(old);
		if (pass->stream_count > 0)
			migrate_batch(pass);
	}
}

/* ---- what the cursor left out --------------------------------------------------------------- */

/* Opens the cursor over the heads of a pass: those that are known to match, or all that do. */
static void
open_heads(MakoPass *pass, const int64 *found, int found_count)
{
	pass->heads = mako_stream_open_locking(pass->sources, pass->count, pass->tenant_id, found,
										   found_count,
										   mako_writer_names_streams(pass->writer));
	pass->heads_ended = false;
}

/*
 * Opens it for the first time, and remembers what it is about to go through. The snapshot is taken
 * after the cursor's, so that it knows every head that the cursor does.
 */
static void
begin_heads(MakoPass *pass, const int64 *found, int found_count)
{
	pass->found = found;
	pass->found_count = found == NULL ? 0 : found_count;
	pass->advances = mako_store_advances();
	pass->seen = mako_seen_create();
	open_heads(pass, found, found_count);
	if (found != NULL)
		return;
	PushCopiedSnapshot(GetTransactionSnapshot());
	pass->snapshot = RegisterSnapshot(GetActiveSnapshot());
	PopActiveSnapshot();
}

/* How many streams match. */
static int64
count_matching(const MakoPass *pass)
{
	int64		matching = 0;

	for (int i = 0; i < pass->count; i++)
		matching += mako_matches_under(pass->matches, pass->sources[i]);
	return matching;
}

/*
 * Returns true if the cursor may have left out heads. It skips a row that this transaction has
 * changed since the cursor was opened, as a trigger does that appends an event to another stream.
 * Heads that others have brought meanwhile must not make up for it.
 */
static bool
may_have_left_some(const MakoPass *pass)
{
	if (pass->found != NULL)
		return mako_seen_count(pass->seen) < pass->found_count;
	return mako_seen_count(pass->seen) < count_matching(pass) ||
		mako_store_advances() != pass->advances;
}

/*
 * The numbers of the streams that matched when the cursor was opened, and that it has not brought.
 */
static int64 *
find_left(MakoPass *pass, int *count)
{
	int			capacity = Max(pass->found_count, mako_batch_size);
	int64	   *left = palloc(sizeof(int64) * capacity);
	MakoCursor *matching;
	MakoStream *streams;
	int			fetched;

	*count = 0;
	for (int i = 0; i < pass->found_count; i++)
		if (!mako_seen_has(pass->seen, pass->found[i]))
			left[(*count)++] = pass->found[i];
	if (pass->found != NULL)
		return left;

	PushActiveSnapshot(pass->snapshot);
	matching = mako_stream_open_heads(pass->sources, pass->count, pass->tenant_id, false,
									  NULL);
	PopActiveSnapshot();
	do
	{
		MemoryContext old;

		CHECK_FOR_INTERRUPTS();
		MemoryContextReset(pass->batch_context);
		old = MemoryContextSwitchTo(pass->batch_context);
		streams = palloc(sizeof(MakoStream) * mako_batch_size);
		fetched = mako_stream_fetch_heads(matching, pass->sources, pass->count, streams,
										  mako_batch_size);
		MemoryContextSwitchTo(old);
		if (*count + fetched > capacity)
		{
			capacity = 2 * capacity + fetched;
			left = repalloc_huge(left, sizeof(int64) * capacity);
		}
		for (int i = 0; i < fetched; i++)
			if (!mako_seen_has(pass->seen, streams[i].stream_no))
				left[(*count)++] = streams[i].stream_no;
	} while (fetched > 0);
	mako_cursor_close(matching);
	return left;
}

/*
 * Migrates what the cursor has left out and still matches. A batch is locked and fetched at once,
 * with a snapshot of its own, so nothing is left out again; and the streams are those of the
 * beginning, so whatever triggers do, there is an end.
 */
static void
migrate_left_out(MakoPass *pass)
{
	int			count;
	int64	   *left = find_left(pass, &count);

	for (int first = 0; first < count; first += mako_batch_size)
	{
		open_heads(pass, &left[first], Min(count - first, mako_batch_size));
		if (fetch_batch(pass))
			migrate_batch(pass);
		mako_cursor_close(pass->heads);
	}
	pfree(left);
}

/* ---- heap order ----------------------------------------------------------------------------- */

/* Gives the current batch to the scan, whose next events may be of its streams. */
static void
expect_batch(MakoPass *pass)
{
	MemoryContext old = MemoryContextSwitchTo(pass->batch_context);

	if (pass->stream_count > 0)
		mako_pass_load_states(pass);
	mako_heap_order_expect(pass->heap_order, pass->streams, pass->stream_count, pass->has_apply);
	MemoryContextSwitchTo(old);
}

/* Migrates the streams that are complete. */
static void
take_complete(MakoPass *pass)
{
	MemoryContext old = MemoryContextSwitchTo(pass->batch_context);
	int			count;
	MakoStream *streams = mako_heap_order_take(pass->heap_order, &count);

	mako_pass_take_batch(pass, streams, count, true);
	mako_heap_order_release(pass->heap_order);
	MemoryContextSwitchTo(old);
	MemoryContextReset(pass->batch_context);
	pass->stream_count = 0;
}

/*
 * Takes back what was made of streams of which one more event came, so that they are read again.
 * What has failed in the meantime has failed.
 */
static void
withdraw_doubtful(MakoPass *pass)
{
	int			count;
	const int64 *stream_nos;

	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	stream_nos = mako_heap_order_doubtful(pass->heap_order, &count);
	PopActiveSnapshot();
	for (int i = 0; i < count; i++)
		if (mako_writer_withdraw(pass->writer, stream_nos[i]) ||
			!mako_report_has(&pass->tally, stream_nos[i]))
			mako_heap_order_leave(pass->heap_order, stream_nos[i]);
}

/*
 * Migrates the current batch and every one after it while all events pass by once; then what that
 * has left.
 */
static void
migrate_in_heap_order(MakoPass *pass)
{
	MakoHeapOrderNeed need;
	int64	   *left;
	int			count;

	pass->heap_order = mako_heap_order_open(mako_heap_order_at_once(pass->count), NULL);
	expect_batch(pass);
	while ((need = mako_heap_order_advance(pass->heap_order)) != MAKO_HEAP_ORDER_END)
	{
		if (need == MAKO_HEAP_ORDER_TAKE)
			take_complete(pass);
		else
		{
			(void) fetch_batch(pass);
			expect_batch(pass);
		}
	}
	withdraw_doubtful(pass);
	left = mako_heap_order_close(pass->heap_order, &count);
	pass->heap_order = NULL;
	mako_pass_take_left(pass, left, count);
	(void) fetch_batch(pass);
	migrate_in_key_order(pass);
}

/*
 * Returns true if it is better to read all events in heap order, for the sources that have an
 * apply. Says why. In heap order, what is written may have to be taken back.
 */
bool
mako_run_choose_heap_order(const MakoMatches *matches, const char *const *folded, int count,
						   const MakoSinks *sinks, const char **why)
{
	int64		matching = 0;

	*why = "without an apply function, no event is read";
	for (int i = 0; i < count; i++)
		matching += mako_matches_under(matches, folded[i]);
	return count > 0 && mako_heap_order_is_better(matches, matching, why) &&
		mako_sinks_can_undo(sinks, why);
}

/* Returns true if it is better to read all events of a pass in heap order. */
static bool
choose_heap_order(const MakoPass *pass)
{
	const char **folded = palloc(sizeof(char *) * pass->count);
	int			count = 0;
	const char *why;
	bool		heap;

	for (int i = 0; i < pass->count; i++)
		if (pass->has_apply[i])
			folded[count++] = pass->sources[i];
	heap = mako_run_choose_heap_order(pass->matches, folded, count, pass->writer->sinks, &why);
	ereport(DEBUG1,
			(errmsg_internal("reading events in %s order: %s", heap ? "heap" : "key", why)));
	return heap;
}

/*
 * Finds out how many workers fold a pass in heap order, at most as many as are wanted; 0: it is
 * done here.
 */
static int
choose_workers(const MakoPass *pass, int wanted, const char *why_not)
{
	int			workers = mako_parallel_workers(wanted, count_matching(pass), pass->folds,
												pass->count, &why_not);

	if (workers == 0)
		ereport(DEBUG1, (errmsg_internal("folding without workers: %s", why_not)));
	return workers;
}

/* Migrates the streams that the cursor brings, with workers; false where none can be had. */
static bool
migrate_in_parallel(MakoPass *pass)
{
	MakoWorkers *workers = pass->workers == 0 ? NULL : mako_parallel_start(pass);
	double		matching = (double) count_matching(pass);

	if (workers == NULL)
		return false;
	do
	{
		CHECK_FOR_INTERRUPTS();
		mako_parallel_expect(workers, pass->streams[pass->stream_count - 1].stream_no,
							 mako_seen_count(pass->seen) / matching);
	} while (fetch_batch(pass));
	mako_parallel_migrate(pass, workers);
	return true;
}

/* Migrates every matching stream. Without matches, they are few enough to be looked up. */
static void
migrate_all(MakoPass *pass)
{
	if (fetch_batch(pass))
	{
		if (pass->matches == NULL || !choose_heap_order(pass))
			migrate_in_key_order(pass);
		else if (!migrate_in_parallel(pass))
			migrate_in_heap_order(pass);
	}
	mako_cursor_close(pass->heads);
	if (may_have_left_some(pass))
		migrate_left_out(pass);
	mako_writer_flush(pass->writer);
	for (int i = 0; i < pass->count; i++)
		mako_report_save_errors(pass->runs[i].report);
	if (pass->snapshot != NULL)
		UnregisterSnapshot(pass->snapshot);
}

/* ---- the runs ------------------------------------------------------------------------------- */

/* Raises unless the definitions are those that were reviewed. */
void
mako_run_check_fingerprint(const char *fingerprint, const char *expected, const char *message)
{
	if (expected != NULL && strcmp(fingerprint, expected) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg_internal("%s", message),
				 errdetail("Expected fingerprint %s, found %s.", expected, fingerprint),
				 errhint("Review the definitions again; mako_fingerprint() "
						 "and mako_version_fingerprint() show the fingerprints.")));
}

/*
 * Counts what was skipped: everything in scope that was neither migrated nor failed, whichever the
 * reason; streams that have come meanwhile, too.
 */
static void
count_skipped(const MakoPass *pass)
{
	bool		by_name = pass->runs[0].request->one_of_version;
	const MakoMatches *matches = mako_matches_repeat(pass->tenant_id, by_name);

	for (int i = 0; i < pass->count; i++)
	{
		MakoReport *report = pass->runs[i].report;

		/* An attached event store may have lost streams since. */
		report->skipped = Max(mako_matches_scope(matches, by_name ? report->source_wf : NULL) -
							  report->migrated - report->failed, 0);
	}
}

/* Locks the source of a run, verifies its definitions and passes the fences. */
static void
prepare_run(MakoPass *pass, int i, const MakoRequest *request)
{
	MakoRun    *run = &pass->runs[i];

	run->request = request;
	run->report = mako_report_create(request->source_wf, request->target_wf, &pass->tally);
	mako_fence_lock_source(request->source_wf);
	run->plan = mako_plan_create(request->source_wf, request->target_wf);
	mako_run_check_fingerprint(run->plan->fingerprint, request->expect,
							   MAKO_UNEXPECTED_DEFINITIONS);
	mako_fence_lock(request->source_wf);
	mako_fence_pass(request->target_wf, MAKO_FENCE_ENTER);

	run->mover = mako_mover(run->plan, request->in_flight_only);
	pass->destinations[i] = mako_writer_destination(run->report,
													run->plan->workflows[run->plan->steps]);
	pass->sources[i] = request->source_wf;
}

/* Compiles the functions of all runs. */
void
mako_pass_compile(MakoPass *pass)
{
	for (int i = 0; i < pass->count; i++)
	{
		pass->folds[i] = mako_fold_create(pass->runs[i].plan);
		pass->has_apply[i] = pass->folds[i]->workflow->apply != NULL;
		pass->replays[i] = mako_replay_create();
	}
	pass->batch_context = AllocSetContextCreate(CurrentMemoryContext, "mako batch",
												ALLOCSET_DEFAULT_SIZES);
}

/* What is refused to the caller ends the call here, instead of failing every stream. */
void
mako_pass_rehearse(const MakoPass *pass)
{
	for (int i = 0; i < pass->count; i++)
	{
		if (!pass->has_apply[i])
			continue;
		mako_stream_rehearse();
		break;
	}
	mako_writer_rehearse(pass->writer);
}

/*
 * A pass for some runs, with their locks, definitions and fences, but without heads. The locks of
 * sinks come first: other transactions may take them before any of ours.
 */
static MakoPass *
open_pass(const MakoRequest *requests, int count, MakoSinks *sinks, bool lock_sinks)
{
	MakoPass   *pass = palloc0(sizeof(MakoPass));

	if (lock_sinks)
		mako_sinks_lock(sinks);
	pass->runs = palloc0(sizeof(MakoRun) * count);
	pass->sources = palloc(sizeof(char *) * count);
	pass->folds = palloc(sizeof(MakoFold *) * count);
	pass->has_apply = palloc(sizeof(bool) * count);
	pass->replays = palloc(sizeof(MakoReplay *) * count);
	pass->destinations = palloc(sizeof(MakoDestination) * count);
	pass->count = count;
	pass->tally.max_errors = requests[0].max_errors;
	pass->tenant_id = requests[0].tenant_id;
	for (int i = 0; i < count; i++)
		prepare_run(pass, i, &requests[i]);
	pass->writer = mako_writer_create(pass->destinations, count, requests[0].update_registry,
									  sinks);
	return pass;
}

/* Raises when a definition is not what it was when the pass was opened. */
void
mako_pass_check_definitions(const MakoPass *pass)
{
	for (int i = 0; i < pass->count; i++)
	{
		const MakoRun *run = &pass->runs[i];

		mako_run_check_fingerprint(mako_plan_create(run->request->source_wf,
													run->request->target_wf)->fingerprint,
								   run->plan->fingerprint, MAKO_CHANGED_DEFINITIONS);
	}
}

/* ---- one transaction ------------------------------------------------------------------------ */

/*
 * Carries out the runs of a call, which are in the order of the names of their sources and have
 * everything but source and target in common. Returns their reports (MakoReport). The current
 * memory context is that of the call.
 */
List *
mako_run(const MakoRequest *requests, int count)
{
	MakoSinks  *sinks = requests[0].update_registry ? mako_sinks_current() : NULL;
	const char *why_not;
	int			wanted = mako_workers_wanted(&why_not);
	MakoPass   *pass = open_pass(requests, count, sinks, true);
	const int64 *found;
	int			found_count;

	if (requests[0].update_registry)
		mako_dependent_check_scope();

	/*
	 * In this order: then the runs that have moved a stream to one of our sources before all have
	 * smaller numbers than ours.
	 */
	pass->matches = mako_matches_take(pass->sources, count, pass->tenant_id);
	found = mako_matches_found(pass->matches, &found_count);
	begin_heads(pass, found, found_count);
	for (int i = 0; i < count; i++)
		pass->runs[i].report->run_id = mako_audit_begin(pass->runs[i].request, pass->runs[i].plan,
														sinks, pass->runs[i].report->started_at,
														0);
	mako_pass_compile(pass);
	mako_pass_rehearse(pass);
	pass->workers = choose_workers(pass, wanted, why_not);
	mako_progress_begin(&requests[0], pass->runs[0].report->run_id, 0, count_matching(pass), 0,
						pass->runs[0].report->started_at);
	migrate_all(pass);

	count_skipped(pass);
	mako_pass_check_definitions(pass);
	for (int i = 0; i < count; i++)
	{
		mako_audit_end(pass->runs[i].report);
		mako_replay_warn(pass->replays[i], NULL);
	}
	return pass->tally.reports;
}

/* ---- one transaction a batch ---------------------------------------------------------------- */

/*
 * Opens batched runs, which are in the order of the names of their sources; what is refused to the
 * caller is refused here.
 */
void
mako_run_begin_batched(MakoBatchedRun *runs, int count)
{
	MakoRequest *requests = palloc(sizeof(MakoRequest) * count);
	MakoSinks  *sinks = mako_sinks_current();
	MakoPass   *pass;

	for (int i = 0; i < count; i++)
		requests[i] = runs[i].request;
	pass = open_pass(requests, count, sinks, true);
	mako_dependent_check_scope();
	mako_pass_compile(pass);
	mako_pass_rehearse(pass);
	for (int i = 0; i < count; i++)
		mako_audit_begin_batched(&runs[i], pass->runs[i].plan, sinks);
}

/*
 * Opens the pass of one transaction of a batched run, whose report has the counts of those before.
 * Sinks are locked where the transaction writes.
 */
MakoPass *
mako_pass_open_batch(const MakoBatchedRun *run, int64 failed_in_all, bool lock_sinks)
{
	MakoPass   *pass = open_pass(&run->request, 1, mako_sinks_of_run(run->run_id), lock_sinks);
	MakoReport *report = pass->runs[0].report;

	mako_run_check_fingerprint(pass->runs[0].plan->fingerprint, run->fingerprint,
							   MAKO_CHANGED_DEFINITIONS);
	report->run_id = run->run_id;
	report->started_at = run->started_at;
	report->migrated = run->migrated;
	report->failed = report->saved = run->failed;
	pass->tally.failed = failed_in_all;
	pass->tally.in_batches = true;
	pass->tally.committed_migrated = run->migrated;
	pass->tally.committed_failed = run->failed;
	return pass;
}

/* What waits for one head. */
typedef struct Wait
{
	int64		stream_no;
	const char *source_wf;
	int			milliseconds;
	int			locked;			/* 1, or 0 when the stream has gone elsewhere */
} Wait;

/* Locks a head that another transaction has. */
static void
wait_for_head(void *argument)
{
	Wait	   *wait = argument;

	(void) mako_stream_lock_some(&wait->stream_no, 1, wait->source_wf, wait->milliseconds,
								 &wait->locked);
}

/*
 * Waits for a head; what is busy then is an error of its stream. False when there is nothing to
 * migrate.
 */
static bool
lock_busy(MakoPass *pass, int64 stream_no, int milliseconds)
{
	Wait		wait = {stream_no, pass->sources[0], milliseconds};
	ErrorData  *error = mako_subtransaction_run(wait_for_head, &wait);

	if (error == NULL)
		return wait.locked > 0;
	if (error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
		ReThrowError(error);
	error->message = psprintf("the stream is locked by another transaction");
	error->detail = psprintf("It was waited for for %d ms.", milliseconds);
	error->hint = pstrdup("Call the procedure again when that transaction has ended.");
	record_failure(pass, &(MakoStream) {.stream_no = stream_no}, MAKO_PHASE_LOAD, 0, error);
	return false;
}

/*
 * Migrates some streams of a batched run, in the order of their numbers, in the current
 * transaction, which the caller commits. Those that another transaction has locked are left out
 * and returned in busy, which has room for all; or, where wait says how many milliseconds (it is
 * not negative), waited for, in which case there is only one stream: no head is held while another
 * one is waited for, so that no two can wait for us the other way round. The counts of the run are
 * right once the transaction is committed; an error ends the call.
 */
void
mako_run_batch(MakoBatchedRun *run, int64 failed_in_all, const int64 *stream_nos, int count,
			   int64 last_stream_no, int wait, int64 *busy, int *busy_count)
{
	TimestampTz started_at = GetCurrentTimestamp();
	MakoPass   *pass = mako_pass_open_batch(run, failed_in_all, true);
	int			locked_count = 0;
	const int64 *locked = stream_nos;

	*busy_count = 0;
	if (wait >= 0)
		locked_count = lock_busy(pass, stream_nos[0], wait) ? 1 : 0;
	else
	{
		locked = mako_stream_lock_some(stream_nos, count, pass->sources[0], -1, &locked_count);
		for (int i = 0, j = 0; i < count; i++)
		{
			if (j < locked_count && locked[j] == stream_nos[i])
				j++;
			else
				busy[(*busy_count)++] = stream_nos[i];
		}
	}
	begin_heads(pass, locked, locked_count);
	mako_pass_compile(pass);
	mako_pass_rehearse(pass);
	migrate_all(pass);
	mako_pass_check_definitions(pass);
	mako_audit_record_batch(run, pass->runs[0].report, last_stream_no, *busy_count, started_at);
	mako_replay_warn(pass->replays[0], NULL);
}

/* Closes batched runs; returns their reports (MakoReport). */
List *
mako_run_end_batched(MakoBatchedRun *runs, int count)
{
	MakoPass   *pass = palloc0(sizeof(MakoPass));

	pass->runs = palloc0(sizeof(MakoRun) * count);
	pass->count = count;
	pass->tenant_id = runs[0].request.tenant_id;
	for (int i = 0; i < count; i++)
	{
		const MakoBatchedRun *run = &runs[i];
		MakoReport *report = mako_report_create(run->request.source_wf, run->request.target_wf,
												&pass->tally);

		pass->runs[i].request = &run->request;
		pass->runs[i].report = report;
		report->run_id = run->run_id;
		report->started_at = run->started_at;
		report->migrated = run->migrated;
		report->failed = run->failed;
		mako_report_load_errors(report);
	}
	count_skipped(pass);
	for (int i = 0; i < count; i++)
		mako_audit_end(pass->runs[i].report);
	return pass->tally.reports;
}
