/*
 * batched.c
 *	  The call of mako_migrate_batched() and mako_migrate_version_batched(): procedures that commit
 *	  after every batch.
 *
 * One transaction begins the runs, one ends them, and one in between takes each batch: its streams
 * are chosen here, by number, and run.c migrates them; or, where many match, they are folded ahead
 * for many batches (ahead.c). A run goes through its streams twice: first passing over what others
 * have locked, then through what is left, where each stream that is busy still is waited for in a
 * transaction of its own. What is committed is all that a later call needs to go on: the heads, the
 * run's row and its batches.
 *
 * Every transaction is READ COMMITTED, whatever the session's default is: a batch has nothing to
 * see of the one before, and an event appended in between must not end a run of hours. All sources
 * are held by the session from beginning to end. Memory is in a context below the caller's, which
 * outlives the transactions; a batch's, in one below that.
 */
#include "migrate/batched.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

/* The most streams of a batch. */
#define MOST_AT_ONCE 1000000

/* A call; lives in its context. */
typedef struct Call
{
	MakoBatchedRun *runs;		/* in the order of the names of their sources */
	int			count;
	int64		pause;			/* ms between two batches */
	int			lock_timeout;	/* ms */
	MemoryContext context;
	MemoryContext batch_context;
	MakoConnection connection;	/* of the current transaction */
} Call;

/* ---- transactions --------------------------------------------------------------------------- */

/* Begins to work in the current transaction, in the context of a batch. */
static void
begin_transaction(Call *call)
{
	MemoryContextReset(call->batch_context);
	MemoryContextSwitchTo(call->batch_context);
	PushActiveSnapshot(GetTransactionSnapshot());
	mako_constraints_check_deferred();
	call->connection = mako_sql_connect();
}

/* Commits it. */
static void
commit(Call *call)
{
	mako_sql_disconnect(call->connection);
	PopActiveSnapshot();
	MemoryContextSwitchTo(call->context);
	mako_sql_commit();
}

/* Waits between two batches. */
static void
pause_batches(const Call *call)
{
	TimestampTz end = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), call->pause);

	for (;;)
	{
		long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), end);

		CHECK_FOR_INTERRUPTS();
		if (left <= 0)
			break;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, left,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
	if (call->pause > 0)
		mako_sql_commit();		/* the current transaction is as old as the pause, and now() is
								 * what its rows tell */
}

/* ---- the batches ---------------------------------------------------------------------------- */

/* How many streams have failed in all runs of a call: max_errors is about them together. */
static int64
failed_in_all(const Call *call)
{
	int64		failed = 0;

	for (int i = 0; i < call->count; i++)
		failed += call->runs[i].failed;
	return failed;
}

/* Waits for each of these streams, and migrates it, in a transaction of its own. */
static void
migrate_busy(Call *call, MakoBatchedRun *run, const int64 *busy, int count)
{
	for (int i = 0; i < count; i++)
	{
		int			busy_count;

		pause_batches(call);
		begin_transaction(call);
		mako_run_batch(run, failed_in_all(call), &busy[i], 1, 0, call->lock_timeout,
					   NULL, &busy_count);
		commit(call);
	}
}

/*
 * Goes through the streams of a run in the order of their numbers; the second time around, through
 * those that are left, after position.
 */
static void
migrate_in_batches(Call *call, MakoBatchedRun *run, bool again, int64 position)
{
	const MakoRequest *request = &run->request;
	int64	   *busy = MemoryContextAllocHuge(call->context, sizeof(int64) * request->batch_size);
	int			count;

	do
	{
		const int64 *stream_nos;
		int			busy_count = 0;

		begin_transaction(call);
		count = request->batch_size;
		stream_nos = mako_stream_next(request->source_wf, request->tenant_id, position,
									  run->through_stream_no, run->run_id, again, &count);
		if (count > 0)
		{
			position = stream_nos[count - 1];
			mako_run_batch(run, failed_in_all(call), stream_nos, count, again ? 0 : position, -1,
						   busy, &busy_count);
		}
		commit(call);
		if (again)
			migrate_busy(call, run, busy, busy_count);
		if (count == request->batch_size)
			pause_batches(call);
	} while (count == request->batch_size);
	pfree(busy);
}

/* Migrates some streams batch by batch, by their numbers; waits for those that are busy. */
static void
migrate_some(Call *call, MakoBatchedRun *run, const int64 *stream_nos, int count)
{
	int			size = run->request.batch_size;
	int64	   *busy = MemoryContextAllocHuge(call->context, sizeof(int64) * size);

	for (int first = 0; first < count; first += size)
	{
		int			busy_count;

		begin_transaction(call);
		mako_run_batch(run, failed_in_all(call), &stream_nos[first], Min(size, count - first), 0,
					   -1, busy, &busy_count);
		commit(call);
		migrate_busy(call, run, busy, busy_count);
		pause_batches(call);
	}
	pfree(busy);
}

/* Goes through a run whose streams are folded ahead; false where that is not the better way. */
static bool
migrate_ahead(Call *call, MakoBatchedRun *run)
{
	MakoAhead  *ahead;
	const int64 *numbers;
	int			count;
	bool		more;

	begin_transaction(call);
	ahead = mako_ahead_begin(run, call->context);
	commit(call);
	if (ahead == NULL)
		return false;
	do
	{
		begin_transaction(call);
		more = mako_ahead_fold(ahead, failed_in_all(call));
		commit(call);
		numbers = mako_ahead_failed(ahead, &count);
		migrate_some(call, run, numbers, count);
		while (mako_ahead_waits(ahead))
		{
			begin_transaction(call);
			mako_ahead_write(ahead, failed_in_all(call));
			commit(call);
			pause_batches(call);
		}
	} while (more);
	numbers = mako_ahead_end(ahead, &count);
	migrate_some(call, run, numbers, count);
	return true;
}

/* Goes through one run to its end. */
static void
migrate_run(Call *call, MakoBatchedRun *run)
{
	mako_progress_begin(&run->request, run->run_id, run->done, run->total, failed_in_all(call),
						run->started_at);
	if (migrate_ahead(call, run))
		return;
	migrate_in_batches(call, run, false, run->last_stream_no);
	if (run->busy > 0)
		migrate_in_batches(call, run, true, 0);
}

/* ---- the call ------------------------------------------------------------------------------- */

/* The milliseconds of an interval that must not be negative. */
static int64
read_milliseconds(const Interval *interval, const char *name)
{
	double		milliseconds = interval->time / 1000.0 +
		((double) interval->month * DAYS_PER_MONTH + interval->day) * SECS_PER_DAY * 1000.0;

	if (milliseconds < 0 || milliseconds > INT_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be negative, or longer than 24 days", name),
				 errdetail("It is %s.",
						   DatumGetCString(DirectFunctionCall1(interval_out,
															   IntervalPGetDatum(interval)))),
				 errhint("Give it as an interval, such as '500 ms' or '2 s'.")));
	return (int64) milliseconds;
}

/* Raises unless a procedure may commit here. */
static void
check_may_commit(FunctionCallInfo fcinfo, const char *procedure)
{
	const CallContext *context = (const CallContext *) fcinfo->context;

	if (context == NULL || !IsA(context, CallContext) || context->atomic || IsSubTransaction())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
				 errmsg("%s() cannot run inside a transaction block", procedure),
				 errdetail("It commits after every batch."),
				 errhint("Use CALL outside of BEGIN and COMMIT, "
						 "and of functions and blocks with EXCEPTION.")));
}

/*
 * Reads and checks the arguments, which both procedures have in the same places, in the current
 * memory context.
 */
static MakoRequest
read_batched_request(FunctionCallInfo fcinfo, Call *call, const char *source_name,
					 const char *target_name)
{
	MakoRequest request = {0};

	request.source_wf = mako_argument_text(fcinfo, 0, source_name);
	request.target_wf = mako_argument_text(fcinfo, 1, target_name);
	mako_require_value(!PG_ARGISNULL(2), "batch_size");
	mako_require_value(!PG_ARGISNULL(4), "in_flight_only");
	mako_require_value(!PG_ARGISNULL(6), "pause");
	mako_require_value(!PG_ARGISNULL(7), "lock_timeout");
	request.batch_size = PG_GETARG_INT32(2);
	request.tenant_id = PG_ARGISNULL(3) ? NULL : PG_GETARG_UUID_P(3);
	request.update_registry = true;
	request.in_flight_only = PG_GETARG_BOOL(4);
	request.max_errors = PG_ARGISNULL(5) ? -1 : PG_GETARG_INT64(5);
	call->pause = read_milliseconds(PG_GETARG_INTERVAL_P(6), "pause");
	call->lock_timeout = (int) read_milliseconds(PG_GETARG_INTERVAL_P(7), "lock_timeout");
	request.expect = PG_ARGISNULL(8) ? NULL : TextDatumGetCString(PG_GETARG_DATUM(8));
	request.reason = PG_ARGISNULL(9) ? NULL : PG_GETARG_TEXT_P_COPY(9);

	mako_migrate_check_arguments(request.source_wf, request.target_wf,
								 PG_ARGISNULL(5) ? NULL : &request.max_errors);
	if (request.batch_size < 1 || request.batch_size > MOST_AT_ONCE)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("batch_size must be between 1 and %d", MOST_AT_ONCE),
				 errdetail("It is %d.", request.batch_size),
				 errhint("It is how many streams are locked at once, "
						 "and migrated in one transaction; the default is 1000.")));
	return request;
}

/* The reports of a call's runs as an array of mako_migration_report, in the context of the call. */
static Datum
reports_to_datum(Call *call, List *reports, Oid type)
{
	TupleDesc	tupdesc = lookup_rowtype_tupdesc_copy(type, -1);
	NullableDatum *elements = palloc(sizeof(NullableDatum) * (list_length(reports) + 1));
	int			count = 0;
	MemoryContext old;
	Datum		array;
	ListCell   *cell;

	foreach(cell, reports)
	{
		NullableDatum values[MAKO_REPORT_COLUMNS];

		mako_report_columns(lfirst(cell), tupdesc, values);
		elements[count++] = mako_datum(mako_result_row(tupdesc, values));
	}
	old = MemoryContextSwitchTo(call->context);
	array = mako_array(elements, count, type).value;
	MemoryContextSwitchTo(old);
	return array;
}

/* Makes the runs of a call, in the current transaction: one, or one a workflow of a version. */
static void
make_runs(Call *call, const MakoRequest *request, bool whole_version)
{
	const MakoRequest *requests = request;

	MemoryContextSwitchTo(call->context);
	call->count = 1;
	if (whole_version)
	{
		List	   *workflows = mako_migrate_workflows(request);

		requests = mako_migrate_requests(request, workflows);
		call->count = list_length(workflows);
	}
	else
		mako_store_check_for_run();
	call->runs = palloc0(sizeof(MakoBatchedRun) * (call->count + 1));
	for (int i = 0; i < call->count; i++)
		call->runs[i].request = requests[i];
	MemoryContextSwitchTo(call->batch_context);
}

/* Carries out a call; returns its reports as an array of this type. */
static Datum
run_call(Call *call, const MakoRequest *request, bool whole_version, Oid report_type)
{
	List	   *reports = NIL;
	Datum		array;

	mako_sql_connect_procedure();
	mako_sql_commit();			/* the current transaction has a snapshot already, so it cannot
								 * become READ COMMITTED */
	begin_transaction(call);
	make_runs(call, request, whole_version);
	for (int i = 0; i < call->count; i++)
		mako_fence_hold_source(call->runs[i].request.source_wf);
	if (call->count > 0)
		mako_run_begin_batched(call->runs, call->count);
	commit(call);
	for (int i = 0; i < call->count; i++)
		migrate_run(call, &call->runs[i]);
	begin_transaction(call);
	if (call->count > 0)
		reports = mako_run_end_batched(call->runs, call->count);
	array = reports_to_datum(call, reports, report_type);
	commit(call);
	mako_fence_release_sources();
	mako_sql_disconnect_procedure();
	return array;
}

/* The call of a procedure: returns its reports as an array, and the columns of its result. */
static Datum
call_procedure(FunctionCallInfo fcinfo, const char *procedure, bool whole_version,
			   TupleDesc *columns)
{
	MemoryContext old = CurrentMemoryContext;
	MemoryContext context = AllocSetContextCreate(old, "mako batched run", ALLOCSET_DEFAULT_SIZES);
	Call		call = {
		.context = context,
		.batch_context = AllocSetContextCreate(context, "mako run", ALLOCSET_DEFAULT_SIZES)
	};
	MakoRequest request;
	Oid			type;
	Datum		array = (Datum) 0;

	mako_call_check(procedure);
	check_may_commit(fcinfo, procedure);
	*columns = mako_result_type(fcinfo);
	type = TupleDescAttr(*columns, 0)->atttypid;
	request = read_batched_request(fcinfo, &call, whole_version ? "source_fv" : "source_wf",
								   whole_version ? "target_fv" : "target_wf");
	mako_call_enter();
	PG_TRY();
	{
		array = run_call(&call, &request, whole_version,
						 whole_version ? get_element_type(type) : type);
	}
	PG_FINALLY();
	{
		mako_call_leave();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
	return array;
}

MAKO_FUNCTION(mako_migrate_batched);
MAKO_FUNCTION(mako_migrate_version_batched);

/* Migrates the streams of one workflow: see the install script. */
Datum
mako_migrate_batched(PG_FUNCTION_ARGS)
{
	TupleDesc	columns;
	Datum		reports = call_procedure(fcinfo, "mako_migrate_batched", false, &columns);
	int			first = 1;
	NullableDatum report;

	report.value = array_get_element(reports, 1, &first, -1, -1, false, TYPALIGN_DOUBLE,
									 &report.isnull);
	PG_RETURN_DATUM(mako_result_row(columns, &report));
}

/* Migrates the workflows of a format version: see the install script. */
Datum
mako_migrate_version_batched(PG_FUNCTION_ARGS)
{
	TupleDesc	columns;
	NullableDatum reports = mako_datum(call_procedure(fcinfo, "mako_migrate_version_batched",
													  true, &columns));

	PG_RETURN_DATUM(mako_result_row(columns, &reports));
}
