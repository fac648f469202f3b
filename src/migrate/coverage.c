/*
 * coverage.c
 *	  What is left on a format version, and the ways in which a version ends: drain, retire,
 *	  reactivate.
 *
 * Whether a process is in flight is told by its workflow's own predicate over its state, so its
 * events are folded. What cannot be folded counts as in flight: it cannot be told that it is
 * finished.
 */
#include "migrate/migrate.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

static MakoStatement select_workflows = {
	"SELECT s.workflow_id, count(*), w.workflow_id IS NOT NULL AND w.in_flight IS NOT NULL,"
	" x.reason,"
	" ARRAY(SELECT m.target_wf::text FROM %s.mako_state_migration m"
	"   WHERE m.source_wf = s.workflow_id ORDER BY 1),"
	" EXISTS (SELECT FROM %s.mako_state_migration m"
	"   WHERE m.source_wf = s.workflow_id AND m.migrate IS NOT NULL)"
	" FROM mako.stream s"
	" LEFT JOIN %s.mako_workflow w ON w.workflow_id = s.workflow_id"
	" LEFT JOIN %s.mako_exemption x ON x.workflow_id = s.workflow_id"
	" WHERE split_part(s.workflow_id, '@', 2) = $1"
	" GROUP BY s.workflow_id, w.workflow_id, w.in_flight, x.reason ORDER BY s.workflow_id",
	1, {TEXTOID}, true
};

static MakoStatement is_known = {
	"SELECT EXISTS (SELECT FROM %s.mako_workflow w"
	" WHERE split_part(w.workflow_id::text, '@', 2) = $1)"
	" OR EXISTS (SELECT FROM mako.stream s WHERE split_part(s.workflow_id, '@', 2) = $1)"
	" OR EXISTS (SELECT FROM mako.format_version f WHERE f.format_version = $1)",
	1, {TEXTOID}, true
};

static MakoStatement set_status = {
	"INSERT INTO mako.format_version"
	" AS f (format_version, status, messages_until, reason, changed_by)"
	" VALUES ($1, $2, $3, $4, session_user)"
	" ON CONFLICT (format_version) DO UPDATE"
	" SET status = $2, messages_until = CASE WHEN f.status = $2 THEN COALESCE($3, f.messages_until)"
	" ELSE $3 END,"
	"  reason = $4, changed_by = session_user, changed_at = now()",
	4, {TEXTOID, TEXTOID, TIMESTAMPTZOID, TEXTOID}
};

/* ---- in flight ------------------------------------------------------------------------------ */

/* A count of the streams in flight, on its way. */
typedef struct Count
{
	MakoFold   *fold;
	MakoReplay *replay;
	int64		in_flight;
} Count;

/* Counts a stream that is in flight. */
static bool
count_stream(void *argument, const MakoStream *stream, MakoReader *reader)
{
	Count	   *count = argument;
	MakoFold   *fold = count->fold;
	const MakoWorkflow *workflow = fold->workflow;
	bool		in_flight = true;

	if (stream->version > 0 && reader != NULL)
	{
		if (!mako_replay_stream(count->replay, fold, stream, reader))
			return false;
	}
	else if (stream->version > 0)
		mako_replay_stored(fold, stream);
	else if (workflow->initial_state != NULL)
		mako_fold_begin(fold, JsonbPGetDatum(workflow->initial_state), 0);
	if ((stream->version > 0 || workflow->initial_state != NULL) &&
		!mako_fold_is_in_flight(fold, &in_flight))
		return false;
	count->in_flight += in_flight;
	return true;
}

/* Counts a stream whose state cannot be told. */
static void
count_failure(void *argument, const MakoStream *stream, MakoPhase phase, int64 sequence_number,
			  const ErrorData *error)
{
	((Count *) argument)->in_flight++;
}

/* How many streams of a workflow with a predicate are in flight; reads with the active snapshot. */
int64
mako_coverage_in_flight(const char *workflow_id, const pg_uuid_t *tenant_id)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "mako coverage",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	MakoReplay *replay = mako_replay_create();
	MakoFold   *fold = mako_fold_create(mako_plan_create(workflow_id, workflow_id));
	Count		count = {fold, replay};
	MakoStreamsWalk walk = {
		.fold = fold,.replay = replay,.tenant_id = tenant_id,.sample = -1,
		.periodic_too = fold->apply == NULL,.take = count_stream,.fail = count_failure,
		.argument = &count
	};

	mako_streams_walk(&walk);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return count.in_flight;
}

/* ---- coverage ------------------------------------------------------------------------------- */

/* What is to become of one workflow that runs under a version. */
static MakoCoverage *
read_row(const MakoRows *rows, uint64 row, const char *target_fv)
{
	MakoCoverage *coverage = palloc0(sizeof(MakoCoverage));
	Datum		targets;

	coverage->workflow_id = mako_row_text(rows, row, 1);
	coverage->streams = mako_row_bigint(rows, row, 2);
	coverage->has_predicate = mako_row_boolean(rows, row, 3);
	coverage->reason = mako_row_text(rows, row, 4);
	targets = mako_row_datum(rows, row, 5, TEXTARRAYOID);
	coverage->targets = PointerGetDatum(DatumGetArrayTypePCopy(targets));
	if (coverage->reason != NULL)
		coverage->decision = "exempt";
	else if (target_fv != NULL ?
			 !mako_plan_leads(coverage->workflow_id,
							  mako_workflow_id_at(coverage->workflow_id, target_fv)) :
			 ARR_NDIM(DatumGetArrayTypeP(coverage->targets)) == 0)
		coverage->decision = "undecided";
	else
		coverage->decision = mako_row_boolean(rows, row, 6) ? "migration" : "identity";
	return coverage;
}

/*
 * Every workflow that streams still run under in a format version, in the order of their names;
 * reads with the active snapshot. With a target, a workflow is decided when a way leads there,
 * otherwise when any step leads out of it. Counts what is in flight of all, or of the undecided
 * ones only.
 */
List *
mako_coverage_read(const char *format_version, const char *target_fv, bool count_undecided_only)
{
	NullableDatum values[] = {mako_text(format_version)};
	MakoRows	rows = mako_sql_query_snapshot(&select_workflows, values);
	List	   *list = NIL;

	for (uint64 row = 0; row < rows.count; row++)
	{
		MakoCoverage *coverage = read_row(&rows, row, target_fv);

		coverage->in_flight = coverage->streams;
		if (coverage->has_predicate &&
			(!count_undecided_only || strcmp(coverage->decision, "undecided") == 0))
			coverage->in_flight = mako_coverage_in_flight(coverage->workflow_id, NULL);
		list = lappend(list, coverage);
	}
	mako_rows_free(&rows);
	return list;
}

/* What stands in the way, one workflow a line, for the detail of an error; NULL for nothing. */
const char *
mako_coverage_obstacles(List *list, bool undecided_only)
{
	StringInfoData text;
	ListCell   *cell;

	initStringInfo(&text);
	foreach(cell, list)
	{
		const MakoCoverage *coverage = lfirst(cell);
		bool		undecided = strcmp(coverage->decision, "undecided") == 0;

		if (coverage->in_flight > 0 && coverage->reason == NULL && (undecided || !undecided_only))
			appendStringInfo(&text,
							 "%s%s: " INT64_FORMAT " of " INT64_FORMAT " streams in flight, %s",
							 text.len > 0 ? "\n" : "", coverage->workflow_id, coverage->in_flight,
							 coverage->streams, coverage->decision);
	}
	return text.len > 0 ? text.data : NULL;
}

/*
 * Raises unless a version is known: a mistyped one must not look like one that nothing is left on.
 */
void
mako_coverage_require_version(const char *format_version)
{
	NullableDatum values[] = {mako_text(format_version)};
	MakoRows	rows = mako_sql_query(&is_known, values);

	if (!mako_row_boolean(&rows, 0, 1))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("format version \"%s\" is not known", format_version),
				 errdetail("No workflow is registered with it, and no stream runs under it."),
				 errhint("The tables mako_workflow and mako.stream show "
						 "which versions there are.")));
	mako_rows_free(&rows);
}

MAKO_FUNCTION(mako_coverage);

/* What is left on a format version, one workflow a row. */
Datum
mako_coverage(PG_FUNCTION_ARGS)
{
	MakoRowSet *result = mako_rowset_begin(fcinfo);
	MakoConnection connection = mako_sql_connect();
	ListCell   *cell;

	(void) mako_door_table("stream");
	foreach(cell, mako_coverage_read(TextDatumGetCString(PG_GETARG_DATUM(0)), NULL, false))
	{
		const MakoCoverage *coverage = lfirst(cell);
		NullableDatum values[] = {
			mako_text(coverage->workflow_id), mako_bigint(coverage->streams),
			mako_bigint(coverage->in_flight), mako_text(coverage->decision),
			mako_datum(coverage->targets), mako_text(coverage->reason)
		};

		mako_rowset_add(result, values);
	}
	mako_sql_disconnect(connection);
	PG_RETURN_NULL();
}

/* ---- drain, retire, reactivate -------------------------------------------------------------- */

/* Connects, and keeps out all that would write under the version until the transaction ends. */
static MakoConnection
close_version(const char *format_version, const char *function)
{
	MakoConnection connection;

	mako_gate_require_change(function);
	connection = mako_sql_connect();
	mako_store_check();
	mako_coverage_require_version(format_version);
	mako_fence_close(format_version);
	return connection;
}

/* Sets the status of a version, with who, when and why. */
static void
write_status(FunctionCallInfo fcinfo, const char *status, int reason, int messages_until)
{
	NullableDatum values[] = {
		fcinfo->args[0], mako_text(status),
		messages_until < 0 ? mako_null() : fcinfo->args[messages_until], fcinfo->args[reason]
	};

	if (mako_store_write(&set_status, values) != 1)
		mako_sql_raise_swallowed("format_version", 1);
}

MAKO_FUNCTION(mako_drain);
MAKO_FUNCTION(mako_retire);
MAKO_FUNCTION(mako_reactivate);

/* From now on no process starts under the version. */
Datum
mako_drain(PG_FUNCTION_ARGS)
{
	const char *version = mako_argument_text(fcinfo, 0, "format_version");
	MakoConnection connection = close_version(version, "mako_drain()");
	const char *status = mako_fence_status(version);

	if (status != NULL && strcmp(status, "retired") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("format version \"%s\" is retired", version),
				 errdetail("A retired version takes no process and no event."),
				 errhint("To take the retirement back, use mako_reactivate().")));
	write_status(fcinfo, "draining", 1, -1);
	mako_sql_disconnect(connection);
	PG_RETURN_VOID();
}

/* Says what stays behind in flight because it is exempt. */
static void
note_exempt(List *list)
{
	ListCell   *cell;

	foreach(cell, list)
	{
		const MakoCoverage *coverage = lfirst(cell);

		if (coverage->reason != NULL && coverage->in_flight > 0)
			ereport(NOTICE,
					(errmsg_plural("%ld stream of \"%s\" stays behind in flight",
								   "%ld streams of \"%s\" stay behind in flight",
								   (long) coverage->in_flight, (long) coverage->in_flight,
								   coverage->workflow_id),
					 errdetail("The workflow is exempt: %s", coverage->reason)));
	}
}

/* From now on nothing is written under the version; refused while anything there is in flight. */
Datum
mako_retire(PG_FUNCTION_ARGS)
{
	const char *version = mako_argument_text(fcinfo, 0, "format_version");
	MakoConnection connection = close_version(version, "mako_retire()");
	const char *obstacles;
	List	   *coverage;

	/* What has committed until now, which is all that can have been written under the version. */
	PushActiveSnapshot(GetLatestSnapshot());
	coverage = mako_coverage_read(version, NULL, false);
	obstacles = mako_coverage_obstacles(coverage, false);
	PopActiveSnapshot();
	if (obstacles != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("format version \"%s\" cannot be retired", version),
				 errdetail_internal("%s", obstacles),
				 errhint("Migrate what is in flight, or exempt it with mako_exempt(). "
						 "mako.migration_error tells what could not be migrated.")));
	note_exempt(coverage);
	write_status(fcinfo, "retired", 1, 2);
	mako_sql_disconnect(connection);
	PG_RETURN_VOID();
}

/* Takes drain or retirement back. */
Datum
mako_reactivate(PG_FUNCTION_ARGS)
{
	const char *version = mako_argument_text(fcinfo, 0, "format_version");
	MakoConnection connection = close_version(version, "mako_reactivate()");

	if (mako_fence_status(version) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("format version \"%s\" is active", version),
				 errdetail("It was never drained or retired.")));
	write_status(fcinfo, "active", 1, -1);
	mako_sql_disconnect(connection);
	PG_RETURN_VOID();
}
