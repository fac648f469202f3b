/*
 * migrate.c
 *	  mako_migrate(), mako_migrate_version() and their loop: guard, plan, lock, fold, write, report.
 *
 * The heads come from one cursor over the run, a batch at a time; the batch's events are read with a snapshot taken after its heads
 * were locked, so that nothing is missed that others committed while we waited. What fails alone, batch.c isolates.
 */
#include "mako_migration.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
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
	"SELECT pg_catalog.count(*) FROM mako.stream s WHERE ($1 IS NULL OR s.tenant_id OPERATOR(pg_catalog.=) $1)"
	" AND ($2 IS NULL OR pg_catalog.split_part(s.workflow_id, '@', 1) OPERATOR(pg_catalog.=) pg_catalog.split_part($2, '@', 1))",
	2, {UUIDOID, TEXTOID}, true
};

/* The workflows of a format version that are to be migrated, if a way leads on. */
static MakoStatement select_workflows = {
	"SELECT w.workflow_id::text FROM %s.mako_workflow w WHERE mako_workflow_version(w.workflow_id) = $1"
	" AND NOT EXISTS (SELECT FROM %s.mako_exemption x WHERE x.workflow_id = w.workflow_id) ORDER BY w.workflow_id",
	1, {TEXTOID}
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
	bool		one_of_version; /* skipped counts this workflow's streams only */
	int64		failed_before;	/* streams of the workflows before it; they count for max_errors */
} Request;

/* A run under way; lives in the run context. */
typedef struct Run
{
	const Request *request;
	const MakoPlan *plan;
	MakoReport *report;
	MakoWriter *writer;
	MakoFold   *fold;
	MakoReplay *replay;
	bool		needs_state;	/* false: an identity migration without apply only repoints */
	MemoryContext batch_context;	/* heads and boundaries */
} Run;

/* ---- one stream ------------------------------------------------------------------------------------------------------------- */

/* Takes one stream from its events to a result that waits to be written. */
static void
migrate_stream(Run *run, const MakoStream *stream, MakoReader *reader)
{
	MakoFold   *fold = run->fold;

	if (stream->version == 0)
	{
		/* Nothing happened yet, so there is no state to migrate; the stream moves, so that nothing is left behind. */
		if (reader != NULL)
			mako_replay_empty(fold, stream, reader);
		mako_writer_add(run->writer, stream, 0, (Datum) 0, false);
		return;
	}

	if (reader != NULL)
	{
		if (!mako_replay_stream(run->replay, fold, stream, reader))
			return;
	}
	else if (run->needs_state || stream->boundary_missing)
		mako_replay_stored(fold, stream);
	else if (stream->start > 0)
	{
		/* The boundary holds for the target too: the events behind it belong to the same state as before. */
		mako_replay_check_schema_version(run->plan->workflows[0], stream);
		mako_writer_add(run->writer, stream, stream->start, stream->start_state, true);
		return;
	}
	else
	{
		mako_writer_add(run->writer, stream, stream->version, (Datum) 0, true);
		return;
	}

	if (run->request->in_flight_only && !mako_fold_is_in_flight(fold))
		return;
	if (mako_fold_migrate(fold))
		mako_writer_add(run->writer, stream, stream->version, fold->state, true);
}

/* ---- one batch -------------------------------------------------------------------------------------------------------------- */

/* Migrates a stream; false when the results so far must be written first. */
static bool
take_stream(void *argument, const MakoStream *stream, MakoReader *reader)
{
	Run		   *run = argument;

	migrate_stream(run, stream, reader);
	return !mako_writer_is_full(run->writer);
}

/* Writes what waits, when it is time to. */
static void
write_results(void *argument)
{
	Run		   *run = argument;

	if (mako_writer_is_full(run->writer))
		mako_writer_flush(run->writer);
}

/* Reports a stream that failed. */
static void
fail_stream(void *argument, const MakoStream *stream, const ErrorData *error)
{
	Run		   *run = argument;

	mako_report_error(run->report, stream->stream_no, stream->stream_id, run->fold->phase, run->fold->sequence_number, error);
}

/* Migrates a batch of streams whose heads are locked. */
static void
migrate_batch(Run *run, MakoStream *streams, int count)
{
	const MakoWorkflow *source = run->plan->workflows[0];
	MakoBatch	batch = {streams, count, run->fold, run->replay, take_stream, write_results, fail_stream, run};

	/* A snapshot of after the locks, for states, events and whatever the functions read. */
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	mako_stream_load_states(streams, count, source->workflow_id, source->apply == NULL && run->needs_state);
	mako_batch_run(&batch);
	PopActiveSnapshot();
}

/* Migrates every matching stream. */
static void
migrate_all(Run *run, MakoCursor *heads)
{
	for (;;)
	{
		MemoryContext old;
		MakoStream *streams;
		int			count;

		MemoryContextReset(run->batch_context);
		old = MemoryContextSwitchTo(run->batch_context);
		streams = palloc(sizeof(MakoStream) * mako_batch_size);
		count = mako_stream_fetch_heads(heads, run->request->source_wf, streams, mako_batch_size);
		if (count > 0)
			migrate_batch(run, streams, count);
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

#define UNEXPECTED_DEFINITIONS "the definitions are not those that were expected"

/* Raises unless the definitions are those that were reviewed. */
static void
check_fingerprint(const char *fingerprint, const char *expected, const char *message)
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
	Datum		scope[] = {UUIDPGetDatum(request->tenant_id), CStringGetTextDatum(request->source_wf)};
	char		nulls[] = {request->tenant_id == NULL ? 'n' : ' ', request->one_of_version ? ' ' : 'n', '\0'};
	MakoRows	rows = mako_sql_query(&count_streams, scope, nulls);
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
	run.report->failed_before = request->failed_before;
	mako_fence_lock_source(request->source_wf);
	run.plan = mako_plan_create(request->source_wf, request->target_wf);
	check_fingerprint(run.plan->fingerprint, request->expect, UNEXPECTED_DEFINITIONS);
	mako_fence_lock(request->source_wf);
	mako_fence_pass(request->target_wf, MAKO_FENCE_ENTER);

	source = run.plan->workflows[0];
	run.needs_state = source->apply != NULL || !run.plan->identity || (request->in_flight_only && source->in_flight != NULL);
	/* In this order: then the runs that have moved a stream to our source before all have smaller numbers than ours. */
	heads = mako_stream_open_heads(request->source_wf, request->tenant_id, true);
	run.report->run_id = start_run(request, run.plan, run.report->started_at);
	run.writer = mako_writer_create(run.report, run.plan->workflows[run.plan->steps], request->update_registry);
	run.fold = mako_fold_create(run.plan);
	run.replay = mako_replay_create();
	run.batch_context = AllocSetContextCreate(CurrentMemoryContext, "mako batch", ALLOCSET_DEFAULT_SIZES);
	/* What is refused to the caller ends the run here, instead of failing every stream. */
	if (source->apply != NULL)
		mako_stream_rehearse();
	mako_writer_rehearse(run.writer);
	migrate_all(&run, heads);

	check_fingerprint(mako_plan_create(request->source_wf, request->target_wf)->fingerprint, run.plan->fingerprint,
					  "the definitions have changed during the migration");
	end_run(request, run.report);
	mako_replay_warn(run.replay, NULL);
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

/* Reads and checks the arguments; source and target are two workflow ids or two format versions. */
static Request
read_request(FunctionCallInfo fcinfo, const char *source_name, const char *target_name)
{
	const char *const names[] = {source_name, target_name, NULL, "update_registry", "in_flight_only"};
	Request		request = {0};

	for (size_t i = 0; i < lengthof(names); i++)
		mako_require_value(names[i] == NULL || !PG_ARGISNULL(i), names[i]);
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

/* Raises unless a migration can begin now. */
static void
check_call(const char *function)
{
	PreventCommandDuringRecovery(function);
	PreventCommandIfReadOnly(function);
	if (running)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s cannot be called while a migration is under way in this session", function)));
}

/* Runs one migration, in the current memory context. */
static MakoReport *
run_one(const Request *request, CommandId command)
{
	MakoReport *report = NULL;

	check_once_per_statement(request, command);
	running = true;
	PG_TRY();
	{
		report = run_migration(request);
	}
	PG_FINALLY();
	{
		running = false;
	}
	PG_END_TRY();
	remember_call(request, command);
	return report;
}

MAKO_FUNCTION(mako_migrate);
MAKO_FUNCTION(mako_migrate_version);
MAKO_FUNCTION(mako_version_fingerprint);

/* Migrates every stream that runs under the source to the target: see the install script. */
Datum
mako_migrate(PG_FUNCTION_ARGS)
{
	CommandId	command = GetActiveSnapshot()->curcid;
	MemoryContext context;
	MemoryContext old;
	MakoConnection connection;
	Request		request;
	TupleDesc	tupdesc;
	Datum		values[MAKO_REPORT_COLUMNS];
	bool		nulls[MAKO_REPORT_COLUMNS];
	HeapTuple	row;

	check_call("mako_migrate()");
	request = read_request(fcinfo, "source_wf", "target_wf");
	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");	/* cannot happen */
	context = AllocSetContextCreate(CurrentMemoryContext, "mako run", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(context);
	connection = mako_sql_connect();
	mako_invariants_check_store();
	mako_report_columns(run_one(&request, command), tupdesc, values, nulls);
	mako_sql_disconnect(connection);
	MemoryContextSwitchTo(old);
	row = heap_form_tuple(BlessTupleDesc(tupdesc), values, nulls);
	MemoryContextDelete(context);
	PG_RETURN_DATUM(HeapTupleGetDatum(row));
}

/* ---- all workflows of a format version -------------------------------------------------------------------------------------- */

/* The workflows from which a way leads from one format version to another, in the order of their names. */
static List *
workflows_on_the_way(const char *source_fv, const char *target_fv)
{
	Datum		values[] = {CStringGetTextDatum(source_fv)};
	MakoRows	rows = mako_sql_query(&select_workflows, values, NULL);
	List	   *workflows = NIL;

	for (uint64 row = 0; row < rows.count; row++)
	{
		char	   *workflow_id = mako_rows_text(&rows, row, 1);

		if (mako_plan_leads(workflow_id, mako_workflow_id_at(workflow_id, target_fv)))
			workflows = lappend(workflows, workflow_id);
	}
	mako_rows_free(&rows);
	return workflows;
}

/* sha256 over everything that a migration of these workflows would use. */
static char *
version_fingerprint(List *workflows, const char *target_fv)
{
	StringInfoData text;
	ListCell   *cell;

	initStringInfo(&text);
	foreach(cell, workflows)
	{
		const char *workflow_id = lfirst(cell);

		appendStringInfo(&text, "%s\n", mako_plan_create(workflow_id, mako_workflow_id_at(workflow_id, target_fv))->fingerprint);
	}
	return mako_fingerprint_digest(text.data);
}

/* Raises while something in flight has no decision: nothing must be left behind unnoticed. */
static void
check_decisions(const char *source_fv, const char *target_fv)
{
	const char *undecided = mako_coverage_obstacles(mako_coverage_read(source_fv, target_fv, true), true);

	if (undecided != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("workflows of format version \"%s\" in flight are undecided", source_fv),
				 errdetail_internal("%s", undecided),
				 errhint("Register a way to \"%s\" with mako_register_migration(), or exempt them with mako_exempt().", target_fv)));
}

/* Migrates every workflow of a format version for which a way is registered, one report a row. */
Datum
mako_migrate_version(PG_FUNCTION_ARGS)
{
	CommandId	command = GetActiveSnapshot()->curcid;
	MakoRowSet *result = mako_rowset_begin(fcinfo);
	Request		version;
	MakoConnection connection;
	List	   *workflows;
	ListCell   *cell;
	int64		failed = 0;

	check_call("mako_migrate_version()");
	version = read_request(fcinfo, "source_fv", "target_fv");
	connection = mako_sql_connect();
	mako_invariants_check_store();
	mako_coverage_require_version(version.source_wf);
	mako_coverage_require_version(version.target_wf);
	check_decisions(version.source_wf, version.target_wf);
	workflows = workflows_on_the_way(version.source_wf, version.target_wf);
	if (version.expect != NULL)
		check_fingerprint(version_fingerprint(workflows, version.target_wf), version.expect, UNEXPECTED_DEFINITIONS);
	foreach(cell, workflows)
	{
		MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "mako run", ALLOCSET_DEFAULT_SIZES);
		MemoryContext old = MemoryContextSwitchTo(context);
		Request		request = version;
		MakoReport *report;
		Datum		values[MAKO_REPORT_COLUMNS];
		bool		nulls[MAKO_REPORT_COLUMNS];

		request.source_wf = lfirst(cell);
		request.target_wf = mako_workflow_id_at(request.source_wf, version.target_wf);
		request.expect = NULL;
		request.one_of_version = true;
		request.failed_before = failed;
		report = run_one(&request, command);
		failed += report->failed;
		mako_report_columns(report, mako_rowset_type(result), values, nulls);
		mako_rowset_add(result, values, nulls);
		MemoryContextSwitchTo(old);
		MemoryContextDelete(context);
	}
	mako_sql_disconnect(connection);
	PG_RETURN_NULL();
}

/* sha256 over everything that mako_migrate_version() would use. */
Datum
mako_version_fingerprint(PG_FUNCTION_ARGS)
{
	char	   *source_fv = TextDatumGetCString(PG_GETARG_DATUM(0));
	char	   *target_fv = TextDatumGetCString(PG_GETARG_DATUM(1));
	MakoConnection connection = mako_sql_connect();
	List	   *workflows = workflows_on_the_way(source_fv, target_fv);
	text	   *fingerprint;

	if (workflows == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("no workflow has a way from format version \"%s\" to \"%s\"", source_fv, target_fv),
				 errhint("Use mako_register_migration().")));
	fingerprint = cstring_to_text(version_fingerprint(workflows, target_fv));
	mako_sql_disconnect(connection);
	PG_RETURN_TEXT_P(fingerprint);
}
