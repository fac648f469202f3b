/*
 * run.c
 *	  The runs of a call, in one pass: plan, lock, fold, write, report.
 *
 * The heads of all runs come from one cursor, a batch at a time, in stream_no order. Their events are read in one of two orders. In key
 * order, a batch's events are looked up with a snapshot taken after its heads were locked, so that nothing is missed that others
 * committed while we waited. In heap order, gather.c reads all events once, with a snapshot of its start, and asks for heads on its
 * way; whatever is not complete or without order then is looked up, too. So the result is the same. What fails alone, batch.c
 * isolates. The results of all runs wait in one writer, which writes them together.
 *
 * The pass lives in the caller's context; a batch, in one below it that is reset for the next.
 */
#include "mako_migration.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

static MakoStatement insert_run = {
	"INSERT INTO mako.migration_run (source_wf, target_wf, path, tenant_id, update_registry, in_flight_only, max_errors, reason,"
	" fingerprint, definitions, extension_version, started_at)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) RETURNING run_id",
	12, {TEXTOID, TEXTOID, TEXTARRAYOID, UUIDOID, BOOLOID, BOOLOID, INT8OID, TEXTOID, TEXTOID, TEXTARRAYOID, TEXTOID, TIMESTAMPTZOID}
};

static MakoStatement finish_run = {
	"UPDATE mako.migration_run SET finished_at = $2, migrated = $3, skipped = $4, failed = $5"
	" WHERE run_id OPERATOR(pg_catalog.=) $1",
	5, {INT8OID, TIMESTAMPTZOID, INT8OID, INT8OID, INT8OID}
};

/* From which share of all streams on reading every event costs less than looking up those that match. */
#define HEAP_ORDER_SHARE 0.18

/* One run of a pass. */
typedef struct Run
{
	const MakoRequest *request;
	const MakoPlan *plan;
	MakoReport *report;
	MakoMover	mover;
} Run;

/* The runs of a call; lives in the context that was current when it began. */
typedef struct Pass
{
	Run		   *runs;			/* in the order of the names of their sources, like the next four */
	const char **sources;
	MakoFold  **folds;
	MakoReplay **replays;
	MakoDestination *destinations;
	int			count;
	MakoWriter *writer;			/* of all runs */
	MakoTally	tally;
	const pg_uuid_t *tenant_id;
	MakoCensus *census;			/* of the heads when it began */
	MakoCursor *heads;
	bool		heads_ended;
	MemoryContext batch_context;	/* heads and boundaries */
	MakoStream *streams;		/* the batch at hand, there */
	int			stream_count;
	MakoGather *gather;			/* or NULL */
} Pass;

/* ---- one batch -------------------------------------------------------------------------------------------------------------- */

/* Migrates a stream; false when the results so far must be written first. */
static bool
take_stream(void *argument, const MakoStream *stream, MakoReader *reader)
{
	const Pass *pass = argument;
	const Run  *run = &pass->runs[stream->source];
	MakoMove	move;

	if (mako_mover_take(&run->mover, pass->folds[stream->source], pass->replays[stream->source], stream, reader, &move))
		mako_writer_add(pass->writer, stream, move.sequence_number, move.new_state, move.counts);
	return !mako_writer_is_full(pass->writer);
}

/* Writes what waits, when it is time to. */
static void
write_results(void *argument)
{
	const Pass *pass = argument;

	if (mako_writer_is_full(pass->writer))
		mako_writer_flush(pass->writer);
}

/* Reports a stream that failed. */
static void
fail_stream(void *argument, const MakoStream *stream, MakoPhase phase, int64 sequence_number, const ErrorData *error)
{
	Pass	   *pass = argument;

	if (pass->gather != NULL)
		mako_gather_forget(pass->gather, stream->stream_no);
	mako_report_error(pass->runs[stream->source].report, stream->stream_no, mako_stream_id(stream->stream_no), phase, sequence_number, error);
}

/* Migrates some streams, with a snapshot of now for events and whatever the functions read. */
static void
take_batch(Pass *pass, MakoStream *streams, int count, bool gathered)
{
	MakoBatch	batch = {
		.streams = streams,.count = count,.gathered = gathered,.folds = pass->folds,.replays = pass->replays,.sources = pass->count,
		.take = take_stream,.pause = write_results,.fail = fail_stream,.argument = pass
	};

	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	mako_batch_run(&batch);
	PopActiveSnapshot();
}

/* Finds the states that the batch at hand starts from, with a snapshot of after the locks. */
static void
load_states(Pass *pass)
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
fetch_batch(Pass *pass)
{
	MemoryContext old;

	MemoryContextReset(pass->batch_context);
	pass->stream_count = 0;
	if (!pass->heads_ended)
	{
		old = MemoryContextSwitchTo(pass->batch_context);
		pass->streams = palloc(sizeof(MakoStream) * mako_batch_size);
		pass->stream_count = mako_stream_fetch_heads(pass->heads, pass->sources, pass->count, pass->streams, mako_batch_size);
		pass->heads_ended = pass->stream_count < mako_batch_size;
		MemoryContextSwitchTo(old);
	}
	return pass->stream_count > 0;
}

/* ---- key order -------------------------------------------------------------------------------------------------------------- */

/* Migrates the batch at hand, whose heads are locked. */
static void
migrate_batch(Pass *pass)
{
	MemoryContext old = MemoryContextSwitchTo(pass->batch_context);

	load_states(pass);
	take_batch(pass, pass->streams, pass->stream_count, false);
	MemoryContextSwitchTo(old);
}

/* Migrates the batch at hand and every one behind it. */
static void
migrate_in_key_order(Pass *pass)
{
	while (pass->stream_count > 0)
	{
		migrate_batch(pass);
		(void) fetch_batch(pass);
	}
}

/* Migrates streams whose heads are locked already, by their numbers. */
static void
migrate_left(Pass *pass, const int64 *stream_nos, int count)
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
		pass->stream_count = mako_stream_fetch_heads_again(&stream_nos[first], some, pass->sources, pass->count, pass->streams);
		PopActiveSnapshot();
		MemoryContextSwitchTo(old);
		if (pass->stream_count > 0)
			migrate_batch(pass);
	}
}

/* ---- heap order ------------------------------------------------------------------------------------------------------------- */

/* Gives the batch at hand to the scan, whose next events may be of its streams. */
static void
expect_batch(Pass *pass)
{
	MemoryContext old = MemoryContextSwitchTo(pass->batch_context);

	if (pass->stream_count > 0)
		load_states(pass);
	mako_gather_expect(pass->gather, pass->streams, pass->stream_count, pass->folds);
	MemoryContextSwitchTo(old);
}

/* Migrates the streams that are complete. */
static void
take_complete(Pass *pass)
{
	MemoryContext old = MemoryContextSwitchTo(pass->batch_context);
	int			count;
	MakoStream *streams = mako_gather_take(pass->gather, &count);

	take_batch(pass, streams, count, true);
	mako_gather_release(pass->gather);
	MemoryContextSwitchTo(old);
	MemoryContextReset(pass->batch_context);
	pass->stream_count = 0;
}

/*
 * Takes back what was made of streams of which one more event came, so that they are read again. What has failed in the meantime has
 * failed.
 */
static void
withdraw_doubtful(Pass *pass)
{
	int			count;
	const int64 *stream_nos;

	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	stream_nos = mako_gather_doubtful(pass->gather, &count);
	PopActiveSnapshot();
	for (int i = 0; i < count; i++)
		if (mako_writer_withdraw(pass->writer, stream_nos[i]) || !mako_report_has(&pass->tally, stream_nos[i]))
			mako_gather_leave(pass->gather, stream_nos[i]);
}

/* Migrates the batch at hand and every one behind it while all events pass by once; then what that has left. */
static void
migrate_in_heap_order(Pass *pass)
{
	MakoGatherNeed need;
	int64	   *left;
	int			count;

	pass->gather = mako_gather_open(pass->count);
	expect_batch(pass);
	while ((need = mako_gather_advance(pass->gather)) != MAKO_GATHER_END)
	{
		if (need == MAKO_GATHER_TAKE)
			take_complete(pass);
		else
		{
			(void) fetch_batch(pass);
			expect_batch(pass);
		}
	}
	withdraw_doubtful(pass);
	left = mako_gather_close(pass->gather, &count);
	pass->gather = NULL;
	migrate_left(pass, left, count);
	(void) fetch_batch(pass);
	migrate_in_key_order(pass);
}

/* Is it better to read all events in heap order? */
static bool
choose_heap_order(const Pass *pass)
{
	double		all = mako_census_all(pass->census);
	int64		matching = 0;
	const char *why_not;
	bool		has_apply = false;
	bool		heap;

	for (int i = 0; i < pass->count; i++)
	{
		if (pass->folds[i]->plan->workflows[0]->apply == NULL)
			continue;
		has_apply = true;
		matching += mako_census_under(pass->census, pass->sources[i]);
	}
	if (!has_apply || mako_scan_order == MAKO_SCAN_KEY)
		return false;
	if (!mako_gather_is_possible(&why_not))
	{
		ereport(DEBUG1, (errmsg_internal("reading events in key order: %s", why_not)));
		return false;
	}
	if (mako_scan_order == MAKO_SCAN_HEAP)
	{
		ereport(DEBUG1, (errmsg_internal("reading events in heap order: mako_migration.scan_order says so")));
		return true;
	}
	heap = matching >= all * HEAP_ORDER_SHARE;
	ereport(DEBUG1,
			(errmsg_internal("reading events in %s order: " INT64_FORMAT " of %.0f streams match, from %.0f on all events are read",
							 heap ? "heap" : "key", matching, all, all * HEAP_ORDER_SHARE)));
	return heap;
}

/* Migrates every matching stream. */
static void
migrate_all(Pass *pass)
{
	if (fetch_batch(pass))
	{
		if (choose_heap_order(pass))
			migrate_in_heap_order(pass);
		else
			migrate_in_key_order(pass);
	}
	mako_writer_flush(pass->writer);
	for (int i = 0; i < pass->count; i++)
		mako_report_save_errors(pass->runs[i].report);
	mako_cursor_close(pass->heads);
}

/* ---- the runs --------------------------------------------------------------------------------------------------------------- */

/* Raises unless the definitions are those that were reviewed. */
void
mako_run_check_fingerprint(const char *fingerprint, const char *expected, const char *message)
{
	if (expected != NULL && strcmp(fingerprint, expected) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg_internal("%s", message),
				 errdetail("Expected fingerprint %s, found %s.", expected, fingerprint),
				 errhint("Review the definitions again; mako_fingerprint() and mako_version_fingerprint() show the fingerprints.")));
}

/* Opens the run in the audit trail. */
static int64
start_run(const MakoRequest *request, const MakoPlan *plan, TimestampTz started_at)
{
	Datum		values[] = {
		CStringGetTextDatum(request->source_wf), CStringGetTextDatum(request->target_wf), mako_plan_path(plan),
		UUIDPGetDatum(request->tenant_id), BoolGetDatum(request->update_registry), BoolGetDatum(request->in_flight_only),
		Int64GetDatum(request->max_errors), PointerGetDatum(request->reason), CStringGetTextDatum(plan->fingerprint),
		mako_plan_definitions(plan), CStringGetTextDatum(mako_sql_extension_version()), TimestampTzGetDatum(started_at)
	};
	char		nulls[] = "            ";
	MakoRows	rows;
	bool		isnull;
	int64		run_id;

	if (request->tenant_id == NULL)
		nulls[3] = 'n';
	if (request->max_errors < 0)
		nulls[6] = 'n';
	if (request->reason == NULL)
		nulls[7] = 'n';
	rows = mako_invariants_query(&insert_run, values, nulls);
	run_id = DatumGetInt64(mako_rows_get(&rows, 0, 1, &isnull));
	mako_rows_free(&rows);
	return run_id;
}

/*
 * Counts what was skipped: everything in scope that was neither migrated nor failed, whichever the reason; streams that have come
 * meanwhile, too.
 */
static void
count_skipped(const Pass *pass)
{
	bool		by_name = pass->runs[0].request->one_of_version;
	const MakoCensus *census = mako_census_repeat(pass->tenant_id, by_name);

	for (int i = 0; i < pass->count; i++)
	{
		MakoReport *report = pass->runs[i].report;

		report->skipped = mako_census_scope(census, by_name ? report->source_wf : NULL) - report->migrated - report->failed;
	}
}

/* Closes a run in the audit trail. */
void
mako_run_end(MakoReport *report)
{
	report->finished_at = GetCurrentTimestamp();
	{
		Datum		values[] = {
			Int64GetDatum(report->run_id), TimestampTzGetDatum(report->finished_at), Int64GetDatum(report->migrated),
			Int64GetDatum(report->skipped), Int64GetDatum(report->failed)
		};

		(void) mako_invariants_write(&finish_run, values, NULL);
	}
}

/* Locks the source of a run, verifies its definitions and passes the fences. */
static void
prepare_run(Pass *pass, int i, const MakoRequest *request)
{
	Run		   *run = &pass->runs[i];

	run->request = request;
	run->report = mako_report_create(request->source_wf, request->target_wf, &pass->tally);
	mako_fence_lock_source(request->source_wf);
	run->plan = mako_plan_create(request->source_wf, request->target_wf);
	mako_run_check_fingerprint(run->plan->fingerprint, request->expect, MAKO_UNEXPECTED_DEFINITIONS);
	mako_fence_lock(request->source_wf);
	mako_fence_pass(request->target_wf, MAKO_FENCE_ENTER);

	run->mover = mako_mover(run->plan, request->in_flight_only);
	pass->destinations[i] = mako_writer_destination(run->report, run->plan->workflows[run->plan->steps]);
	pass->sources[i] = request->source_wf;
}

/* Opens a run whose heads are found. */
static void
begin_run(Pass *pass, int i)
{
	Run		   *run = &pass->runs[i];

	run->report->run_id = start_run(run->request, run->plan, run->report->started_at);
	pass->folds[i] = mako_fold_create(run->plan);
	pass->replays[i] = mako_replay_create();
}

/* What is refused to the caller ends the call here, instead of failing every stream. */
static void
rehearse(const Pass *pass)
{
	for (int i = 0; i < pass->count; i++)
	{
		if (pass->folds[i]->plan->workflows[0]->apply == NULL)
			continue;
		mako_stream_rehearse();
		break;
	}
	mako_writer_rehearse(pass->writer);
}

/*
 * Carries out the runs of a call, which are in the order of the names of their sources and have everything but source and target in
 * common. Returns their reports (MakoReport). The current memory context is that of the call.
 */
List *
mako_run(const MakoRequest *requests, int count)
{
	Pass		pass = {
		.runs = palloc0(sizeof(Run) * count),.sources = palloc(sizeof(char *) * count),.folds = palloc(sizeof(MakoFold *) * count),
		.replays = palloc(sizeof(MakoReplay *) * count),.destinations = palloc(sizeof(MakoDestination) * count),.count = count,
		.tally.max_errors = requests[0].max_errors,.tenant_id = requests[0].tenant_id
	};

	for (int i = 0; i < count; i++)
		prepare_run(&pass, i, &requests[i]);
	pass.writer = mako_writer_create(pass.destinations, count, requests[0].update_registry);
	/* In this order: then the runs that have moved a stream to one of our sources before all have smaller numbers than ours. */
	pass.census = mako_census_take(pass.sources, count, pass.tenant_id);
	pass.heads = mako_stream_open_locking(pass.sources, count, pass.tenant_id, pass.census, pass.writer->dependents != NIL);
	for (int i = 0; i < count; i++)
		begin_run(&pass, i);
	pass.batch_context = AllocSetContextCreate(CurrentMemoryContext, "mako batch", ALLOCSET_DEFAULT_SIZES);
	rehearse(&pass);
	migrate_all(&pass);

	count_skipped(&pass);
	for (int i = 0; i < count; i++)
	{
		const Run  *run = &pass.runs[i];

		mako_run_check_fingerprint(mako_plan_create(run->request->source_wf, run->request->target_wf)->fingerprint,
								   run->plan->fingerprint, "the definitions have changed during the migration");
		mako_run_end(run->report);
		mako_replay_warn(pass.replays[i], NULL);
	}
	return pass.tally.reports;
}
