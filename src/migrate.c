/*
 * migrate.c
 *	  mako_migrate() and its loop: guard, plan, lock, fold, write, report.
 *
 * The heads come from one cursor over the run, a batch at a time; the batch's events are read with a snapshot taken after its heads
 * were locked, so that nothing is missed that others committed while we waited. One subtransaction holds the fold of a batch. When a
 * stream fails, the streams before it are done (a fold writes nothing), its error is recorded, and the next subtransaction starts
 * behind it: what isolation costs grows with the number of failures only.
 */
#include "mako_migration.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

static MakoStatement insert_run = {
	"INSERT INTO mako.migration_run (source_wf, target_wf, path, tenant_id, update_registry, in_flight_only, max_errors, reason,"
	" fingerprint, extension_version, started_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) RETURNING run_id",
	11, {TEXTOID, TEXTOID, TEXTARRAYOID, UUIDOID, BOOLOID, BOOLOID, INT8OID, TEXTOID, TEXTOID, TEXTOID, TIMESTAMPTZOID}
};

static MakoStatement finish_run = {
	"UPDATE mako.migration_run SET finished_at = $2, migrated = $3, skipped = $4, failed = $5"
	" WHERE run_id OPERATOR(pg_catalog.=) $1",
	5, {INT8OID, TIMESTAMPTZOID, INT8OID, INT8OID, INT8OID}
};

static MakoStatement count_streams = {
	"SELECT pg_catalog.count(*) FROM mako.stream s WHERE $1 IS NULL OR s.tenant_id OPERATOR(pg_catalog.=) $1", 1, {UUIDOID}, true
};

/* What the caller asked for. */
typedef struct Request
{
	const char *source_wf;
	const char *target_wf;
	pg_uuid_t  *tenant_id;		/* NULL: all */
	bool		update_registry;
	bool		in_flight_only;
	int64		max_errors;		/* -1: any number */
	const char *expect;			/* fingerprint, or NULL */
	text	   *reason;			/* or NULL */
} Request;

/* A run under way; lives in the run context. */
typedef struct Run
{
	const Request *request;
	const MakoPlan *plan;
	MakoReport *report;
	MakoWriter *writer;
	MakoFold   *fold;
	bool		needs_state;	/* false: an identity migration without apply only repoints */
	MemoryContext batch_context;
	MakoStream *streams;		/* of the batch, in batch_context */
	int			next;			/* the stream at hand */
	int			end;			/* where the subtransaction at hand stops */
} Run;

/* ---- one stream ------------------------------------------------------------------------------------------------------------- */

/* Raises that the events of a stream are not what its head says. */
static void
raise_gap(const MakoStream *stream, int64 expected, int64 found)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("the events of the stream do not run to its head without a gap"),
			 found == 0 ?
			 errdetail("The head is at version " INT64_FORMAT ". Expected sequence number " INT64_FORMAT ", found none.",
					   stream->version, expected) :
			 expected > stream->version ?
			 errdetail("The head is at version " INT64_FORMAT ", but there is an event " INT64_FORMAT ".",
					   stream->version, found) :
			 errdetail("The head is at version " INT64_FORMAT ". Expected sequence number " INT64_FORMAT ", found " INT64_FORMAT ".",
					   stream->version, expected, found)));
}

/* Raises unless a stored state was written under the state schema version that its workflow has now. */
static void
check_schema_version(const Run *run, const MakoStream *stream)
{
	const MakoWorkflow *source = run->plan->workflows[0];

	if (stream->start_schema_version != source->state_schema_version)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the snapshot at sequence number " INT64_FORMAT " has state schema version %d",
						stream->start, stream->start_schema_version),
				 errdetail("Workflow \"%s\" is registered with state schema version %d.",
						   source->workflow_id, source->state_schema_version)));
}

/* Folds a stream's events, from its boundary or from the first, to its head. */
static void
fold_stream(Run *run, const MakoStream *stream, MakoReader *reader)
{
	MakoFold   *fold = run->fold;
	const MakoEvent *event;
	int64		expected = stream->start + 1;

	if (stream->start > stream->version)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("the boundary of the stream is beyond its head"),
				 errdetail("The head is at version " INT64_FORMAT ", the migration snapshot at sequence number " INT64_FORMAT ".",
						   stream->version, stream->start)));
	if (stream->start > 0)
	{
		check_schema_version(run, stream);
		mako_fold_begin(fold, stream->start_state, stream->start);
	}
	else
		mako_fold_begin(fold, JsonbPGetDatum(run->plan->workflows[0]->initial_state), 0);

	while ((event = mako_stream_next_event(reader, stream->stream_no)) != NULL)
	{
		if (event->sequence_number != expected || expected > stream->version)
		{
			fold->sequence_number = event->sequence_number;
			raise_gap(stream, expected, event->sequence_number);
		}
		mako_fold_event(fold, event);
		expected++;
		fold->phase = MAKO_PHASE_LOAD;
	}
	if (expected <= stream->version)
		raise_gap(stream, expected, 0);
}

/* Takes the state that the application stored for a workflow without apply. */
static void
take_stored_state(Run *run, const MakoStream *stream)
{
	if (stream->start != stream->version)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("there is no snapshot at the stream's version " INT64_FORMAT, stream->version),
				 stream->start > 0 ? errdetail("The newest one is at sequence number " INT64_FORMAT ".", stream->start) : 0,
				 errhint("Workflow \"%s\" has no apply function, so its application must save the state before the migration.",
						 run->plan->workflows[0]->workflow_id)));
	check_schema_version(run, stream);
	mako_fold_begin(run->fold, stream->start_state, stream->start);
}

/* Takes one stream from its events to a result that waits to be written. */
static void
migrate_stream(Run *run, const MakoStream *stream, MakoReader *reader)
{
	MakoFold   *fold = run->fold;

	fold->phase = MAKO_PHASE_LOAD;
	fold->sequence_number = 0;
	if (stream->version == 0)
	{
		/* Nothing happened yet, so there is no state to migrate; the stream moves, so that nothing is left behind. */
		const MakoEvent *event = reader == NULL ? NULL : mako_stream_next_event(reader, stream->stream_no);

		if (event != NULL)
		{
			fold->sequence_number = event->sequence_number;
			raise_gap(stream, 1, event->sequence_number);
		}
		mako_writer_add(run->writer, stream, 0, NULL, false);
		return;
	}

	if (reader != NULL)
		fold_stream(run, stream, reader);
	else if (run->needs_state)
		take_stored_state(run, stream);
	else if (stream->start > 0)
	{
		/* The boundary holds for the target too: the events behind it belong to the same state as before. */
		check_schema_version(run, stream);
		mako_writer_add(run->writer, stream, stream->start, DatumGetJsonbP(stream->start_state), true);
		return;
	}
	else
	{
		mako_writer_add(run->writer, stream, stream->version, NULL, true);
		return;
	}

	if (run->request->in_flight_only && !mako_fold_is_in_flight(fold))
		return;
	mako_fold_migrate(fold);
	mako_writer_add(run->writer, stream, stream->version, DatumGetJsonbP(fold->state), true);
}

/* ---- one batch -------------------------------------------------------------------------------------------------------------- */

/*
 * Migrates the streams from next to end, or until the results must be written; runs in a subtransaction, and leaves next at the
 * stream that failed.
 */
static void
migrate_streams(void *argument)
{
	Run		   *run = argument;
	MakoReader *reader = NULL;

	run->fold->phase = MAKO_PHASE_LOAD;
	run->fold->sequence_number = 0;
	if (run->plan->workflows[0]->apply != NULL)
		reader = mako_stream_open_events(&run->streams[run->next], run->end - run->next);
	for (; run->next < run->end && !mako_writer_is_full(run->writer); run->next++)
	{
		CHECK_FOR_INTERRUPTS();
		migrate_stream(run, &run->streams[run->next], reader);
	}
	if (reader != NULL)
		mako_stream_close_events(reader);
}

/* Migrates a batch of streams whose heads are locked. */
static void
migrate_batch(Run *run, int count)
{
	const MakoWorkflow *source = run->plan->workflows[0];
	bool		alone = false;

	/* A snapshot of after the locks, for states, events and whatever the functions read. */
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	mako_stream_load_states(run->streams, count, source->workflow_id, source->apply == NULL && run->needs_state);

	run->next = 0;
	while (run->next < count)
	{
		const MakoStream *stream;
		ErrorData  *error;

		run->end = alone ? run->next + 1 : count;
		error = mako_isolation_run(migrate_streams, run);
		if (error == NULL)
		{
			alone = false;
			if (mako_writer_is_full(run->writer))
				mako_writer_flush(run->writer);
			continue;
		}

		/*
		 * The reader fetches some events ahead, so an error in loading may belong to a later stream: only alone does the stream at
		 * hand fail.
		 */
		mako_fold_recover(run->fold);
		alone = !alone && run->fold->phase == MAKO_PHASE_LOAD && run->end - run->next > 1;
		if (!alone)
		{
			stream = &run->streams[run->next];
			mako_report_error(run->report, stream->stream_no, stream->stream_id, run->fold->phase,
							  run->fold->sequence_number, error);
			run->next++;
		}
		FreeErrorData(error);
	}
	PopActiveSnapshot();
}

/* Migrates every matching stream. */
static void
migrate_all(Run *run, MakoCursor *heads)
{
	for (;;)
	{
		MemoryContext old;
		int			count;

		MemoryContextReset(run->batch_context);
		old = MemoryContextSwitchTo(run->batch_context);
		run->streams = palloc(sizeof(MakoStream) * mako_batch_size);
		count = mako_stream_fetch_heads(heads, run->streams, mako_batch_size);
		if (count > 0)
			migrate_batch(run, count);
		MemoryContextSwitchTo(old);
		if (count == 0)
			break;
		mako_report_save_errors(run->report);
	}
	mako_writer_flush(run->writer);
	mako_report_save_errors(run->report);
	mako_cursor_close(heads);
}

/* ---- the run ---------------------------------------------------------------------------------------------------------------- */

/* Raises unless the plan is the one that was reviewed. */
static void
check_fingerprint(const MakoPlan *plan, const char *expected, const char *message)
{
	if (expected != NULL && strcmp(plan->fingerprint, expected) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg_internal("%s", message),
				 errdetail("Expected fingerprint %s, found %s.", expected, plan->fingerprint),
				 errhint("Review the definitions again; mako_fingerprint() shows the fingerprint.")));
}

/* Opens the run in the audit trail. */
static int64
start_run(const Request *request, const MakoPlan *plan, TimestampTz started_at)
{
	Datum		values[] = {
		CStringGetTextDatum(request->source_wf), CStringGetTextDatum(request->target_wf), mako_plan_path(plan),
		UUIDPGetDatum(request->tenant_id), BoolGetDatum(request->update_registry), BoolGetDatum(request->in_flight_only),
		Int64GetDatum(request->max_errors), PointerGetDatum(request->reason), CStringGetTextDatum(plan->fingerprint),
		CStringGetTextDatum(mako_sql_extension_version()), TimestampTzGetDatum(started_at)
	};
	char		nulls[] = "           ";
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

/* Counts what was skipped, and closes the run in the audit trail. */
static void
end_run(const Request *request, MakoReport *report)
{
	Datum		scope[] = {UUIDPGetDatum(request->tenant_id)};
	MakoRows	rows = mako_sql_query(&count_streams, scope, request->tenant_id == NULL ? "n" : NULL);
	bool		isnull;

	/* Everything in scope that was neither migrated nor failed, whichever the reason. */
	report->skipped = DatumGetInt64(mako_rows_get(&rows, 0, 1, &isnull)) - report->migrated - report->failed;
	mako_rows_free(&rows);
	report->finished_at = GetCurrentTimestamp();
	{
		Datum		values[] = {
			Int64GetDatum(report->run_id), TimestampTzGetDatum(report->finished_at), Int64GetDatum(report->migrated),
			Int64GetDatum(report->skipped), Int64GetDatum(report->failed)
		};

		(void) mako_invariants_write(&finish_run, values, NULL);
	}
}

/* The whole run; the current memory context is the run's. */
static MakoReport *
run_migration(const Request *request)
{
	Run			run = {request};
	const MakoWorkflow *source;
	MakoCursor *heads;

	run.report = mako_report_create(request->source_wf, request->target_wf, request->max_errors);
	mako_invariants_check_store();
	mako_invariants_lock_source(request->source_wf);
	run.plan = mako_plan_create(request->source_wf, request->target_wf);
	check_fingerprint(run.plan, request->expect, "the definitions are not those that were expected");
	mako_invariants_fence(request->source_wf, MAKO_FENCE_LEAVE);
	mako_invariants_fence(request->target_wf, MAKO_FENCE_ENTER);

	source = run.plan->workflows[0];
	run.needs_state = source->apply != NULL || !run.plan->identity || (request->in_flight_only && source->in_flight != NULL);
	/* In this order: then the runs that have moved a stream to our source before all have smaller numbers than ours. */
	heads = mako_stream_open_heads(request->source_wf, request->tenant_id);
	run.report->run_id = start_run(request, run.plan, run.report->started_at);
	run.writer = mako_writer_create(run.report, run.plan->workflows[run.plan->steps], request->update_registry);
	run.fold = mako_fold_create(run.plan);
	run.batch_context = AllocSetContextCreate(CurrentMemoryContext, "mako batch", ALLOCSET_DEFAULT_SIZES);
	/* What is refused to the caller ends the run here, instead of failing every stream. */
	if (source->apply != NULL)
		mako_stream_rehearse();
	mako_writer_rehearse(run.writer);
	migrate_all(&run, heads);

	check_fingerprint(mako_plan_create(request->source_wf, request->target_wf), run.plan->fingerprint,
					  "the definitions have changed during the migration");
	end_run(request, run.report);
	return run.report;
}

/* ---- the call --------------------------------------------------------------------------------------------------------------- */

/* A migration that this transaction has run; lives in TopTransactionContext. */
typedef struct Call
{
	CommandId	command;		/* of the statement's snapshot */
	char	   *source_wf;
	char	   *target_wf;
} Call;

static List *calls = NIL;		/* of this transaction */
static bool running = false;	/* a migration is under way in this session */

/* Forgets the calls of a transaction at its end. */
static void
forget_calls(XactEvent event, void *argument)
{
	calls = NIL;
}

/* Called when the library is loaded. */
void
mako_migrate_init(void)
{
	RegisterXactCallback(forget_calls, NULL);
}

/*
 * Raises when this pair was migrated in this very statement: SELECT (mako_migrate(...)).* calls once per column. Every run writes,
 * so a later statement of the transaction sees a later command.
 */
static void
check_once_per_statement(const Request *request, CommandId command)
{
	ListCell   *cell;

	foreach(cell, calls)
	{
		const Call *call = lfirst(cell);

		if (call->command == command && strcmp(call->source_wf, request->source_wf) == 0 &&
			strcmp(call->target_wf, request->target_wf) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("mako_migrate() was called twice for the same pair in one statement"),
					 errdetail("SELECT (mako_migrate(...)).* calls it once for every column."),
					 errhint("Use SELECT * FROM mako_migrate(...).")));
	}
}

/* Remembers a call that has succeeded. */
static void
remember_call(const Request *request, CommandId command)
{
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);
	Call	   *call = palloc(sizeof(Call));

	call->command = command;
	call->source_wf = pstrdup(request->source_wf);
	call->target_wf = pstrdup(request->target_wf);
	calls = lappend(calls, call);
	MemoryContextSwitchTo(old);
}

/* Reads and checks the arguments. */
static Request
read_request(FunctionCallInfo fcinfo)
{
	static const char *const names[] = {"source_wf", "target_wf", NULL, "update_registry", "in_flight_only"};
	Request		request = {0};

	for (size_t i = 0; i < lengthof(names); i++)
		if (names[i] != NULL && PG_ARGISNULL(i))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("%s must not be null", names[i])));
	request.source_wf = TextDatumGetCString(PG_GETARG_DATUM(0));
	request.target_wf = TextDatumGetCString(PG_GETARG_DATUM(1));
	request.tenant_id = PG_ARGISNULL(2) ? NULL : PG_GETARG_UUID_P(2);
	request.update_registry = PG_GETARG_BOOL(3);
	request.in_flight_only = PG_GETARG_BOOL(4);
	request.max_errors = PG_ARGISNULL(5) ? -1 : PG_GETARG_INT64(5);
	request.expect = PG_ARGISNULL(6) ? NULL : TextDatumGetCString(PG_GETARG_DATUM(6));
	request.reason = PG_ARGISNULL(7) ? NULL : PG_GETARG_TEXT_PP(7);

	if (strcmp(request.source_wf, request.target_wf) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("source and target must differ"),
				 errdetail("Both are \"%s\".", request.source_wf)));
	if (!PG_ARGISNULL(5) && request.max_errors < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_errors must not be negative"),
				 errdetail("It is " INT64_FORMAT ".", request.max_errors)));
	return request;
}

MAKO_FUNCTION(mako_migrate);

/* Migrates every stream that runs under the source to the target: see the install script. */
Datum
mako_migrate(PG_FUNCTION_ARGS)
{
	CommandId	command = GetActiveSnapshot()->curcid;
	MemoryContext context;
	MemoryContext old;
	Request		request;
	MakoReport *report = NULL;
	Datum		result;

	PreventCommandDuringRecovery("mako_migrate()");
	PreventCommandIfReadOnly("mako_migrate()");
	request = read_request(fcinfo);
	check_once_per_statement(&request, command);
	if (running)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("mako_migrate() cannot be called while a migration is under way in this session")));

	context = AllocSetContextCreate(CurrentMemoryContext, "mako run", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(context);
	running = true;
	PG_TRY();
	{
		MakoConnection connection = mako_sql_connect();

		report = run_migration(&request);
		mako_sql_disconnect(connection);
	}
	PG_FINALLY();
	{
		running = false;
	}
	PG_END_TRY();
	remember_call(&request, command);
	MemoryContextSwitchTo(old);
	result = mako_report_to_datum(report, fcinfo);
	MemoryContextDelete(context);
	return result;
}
