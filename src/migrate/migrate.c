/*
 * migrate.c
 *	  The call: mako_migrate(), mako_migrate_version(). Reads the arguments and turns reports into
 *	  rows; run.c does the work. Memory is that of the call. What batched.c has in common with it
 *	  is exported.
 */
#include "migrate/migrate.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

/* The workflows of a format version that are to be migrated, if a way leads on. */
static MakoStatement select_workflows = {
	"SELECT w.workflow_id::text FROM %s.mako_workflow w"
	" WHERE %s.mako_workflow_version(w.workflow_id) = $1"
	" AND NOT EXISTS (SELECT FROM %s.mako_exemption x WHERE x.workflow_id = w.workflow_id)"
	" ORDER BY w.workflow_id",
	1, {TEXTOID}
};

/* ---- the call ------------------------------------------------------------------------------- */

/*
 * Raises unless two workflow ids or format versions differ, and max_errors, where it is given, is
 * a number of streams.
 */
void
mako_migrate_check_arguments(const char *source, const char *target, const int64 *max_errors)
{
	mako_plan_require_pair(source, target);
	if (max_errors != NULL && *max_errors < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_errors must not be negative"),
				 errdetail("It is " INT64_FORMAT ".", *max_errors),
				 errhint("0 allows no stream to fail, null allows any number.")));
}

/* Reads and checks the arguments; source and target are two workflow ids or two format versions. */
static MakoRequest
read_request(FunctionCallInfo fcinfo, const char *source_name, const char *target_name)
{
	MakoRequest request = {0};

	request.source_wf = mako_argument_text(fcinfo, 0, source_name);
	request.target_wf = mako_argument_text(fcinfo, 1, target_name);
	mako_require_value(!PG_ARGISNULL(3), "update_registry");
	mako_require_value(!PG_ARGISNULL(4), "in_flight_only");
	request.tenant_id = PG_ARGISNULL(2) ? NULL : PG_GETARG_UUID_P(2);
	request.update_registry = PG_GETARG_BOOL(3);
	request.in_flight_only = PG_GETARG_BOOL(4);
	request.max_errors = PG_ARGISNULL(5) ? -1 : PG_GETARG_INT64(5);
	request.expect = PG_ARGISNULL(6) ? NULL : TextDatumGetCString(PG_GETARG_DATUM(6));
	request.reason = PG_ARGISNULL(7) ? NULL : PG_GETARG_TEXT_PP(7);
	mako_migrate_check_arguments(request.source_wf, request.target_wf,
								 PG_ARGISNULL(5) ? NULL : &request.max_errors);
	return request;
}

/* The runs of a call. */
typedef struct Work
{
	const MakoRequest *requests;
	int			count;
	List	   *reports;
} Work;

/* Carries them out. */
static void
migrate_runs(void *argument)
{
	Work	   *runs = argument;

	runs->reports = mako_run(runs->requests, runs->count);
}

/* What must not be migrated twice in one statement. */
static char *
subject_of(const MakoRequest *request)
{
	return psprintf("%s %s", request->source_wf, request->target_wf);
}

/* Carries out the runs of a call, in the current memory context; returns their reports. */
static List *
run(const MakoRequest *requests, int count, CommandId command)
{
	Work		runs = {requests, count};

	for (int i = 0; i < count; i++)
		mako_call_check_once(command, "mako_migrate", "pair", subject_of(&requests[i]));
	mako_call_run(migrate_runs, &runs);
	for (int i = 0; i < count; i++)
		mako_call_remember(command, "mako_migrate", subject_of(&requests[i]));
	return runs.reports;
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
	MakoRequest request;
	TupleDesc	tupdesc;
	NullableDatum values[MAKO_REPORT_COLUMNS];
	Datum		row;

	mako_call_check("mako_migrate");
	request = read_request(fcinfo, "source_wf", "target_wf");
	tupdesc = mako_result_type(fcinfo);
	context = AllocSetContextCreate(CurrentMemoryContext, "mako run", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(context);
	mako_constraints_check_deferred();
	connection = mako_sql_connect();
	mako_store_check_for_run();
	mako_report_columns(linitial(run(&request, 1, command)), tupdesc, values);
	mako_constraints_defer_again();
	mako_sql_disconnect(connection);
	MemoryContextSwitchTo(old);
	row = mako_result_row(tupdesc, values);
	MemoryContextDelete(context);
	PG_RETURN_DATUM(row);
}

/* ---- all workflows of a format version ------------------------------------------------------ */

/*
 * The workflows from which a way leads from one format version to another, in the order of their
 * names.
 */
static List *
workflows_on_the_way(const char *source_fv, const char *target_fv)
{
	NullableDatum values[] = {mako_text(source_fv)};
	MakoRows	rows = mako_sql_query(&select_workflows, values);
	List	   *workflows = NIL;

	for (uint64 row = 0; row < rows.count; row++)
	{
		char	   *workflow_id = mako_row_text(&rows, row, 1);

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

		appendStringInfo(&text, "%s\n",
						 mako_plan_create(workflow_id,
										  mako_workflow_id_at(workflow_id,
															  target_fv))->fingerprint);
	}
	return mako_fingerprint_digest(text.data);
}

/* Raises while something in flight has no decision: nothing must be left behind unnoticed. */
static void
check_decisions(const char *source_fv, const char *target_fv)
{
	const char *undecided = mako_coverage_obstacles(mako_coverage_read(source_fv, target_fv, true),
													true);

	if (undecided != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("workflows of format version \"%s\" in flight are undecided", source_fv),
				 errdetail_internal("%s", undecided),
				 errhint("Register a way to \"%s\" with mako_register_migration(), "
						 "or exempt them with mako_exempt().", target_fv)));
}

/* A request for each of these workflows of a format version, from one for the version. */
MakoRequest *
mako_migrate_requests(const MakoRequest *version, List *workflows)
{
	MakoRequest *requests = palloc(sizeof(MakoRequest) * list_length(workflows));
	int			count = 0;
	ListCell   *cell;

	foreach(cell, workflows)
	{
		MakoRequest *request = &requests[count++];

		*request = *version;
		request->source_wf = lfirst(cell);
		request->target_wf = mako_workflow_id_at(request->source_wf, version->target_wf);
		request->expect = NULL;
		request->one_of_version = true;
	}
	return requests;
}

/* Migrates these workflows of a format version in one pass, one report a row. */
static void
migrate_workflows(const MakoRequest *version, List *workflows, CommandId command,
				  MakoRowSet *result)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "mako run",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	ListCell   *cell;

	foreach(cell, run(mako_migrate_requests(version, workflows), list_length(workflows), command))
	{
		NullableDatum values[MAKO_REPORT_COLUMNS];

		mako_report_columns(lfirst(cell), mako_rowset_type(result), values);
		mako_rowset_add(result, values);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

/*
 * The workflows that a migration of a version is about, in the order of their names; an error when
 * it must not begin.
 */
List *
mako_migrate_workflows(const MakoRequest *version)
{
	List	   *workflows;

	mako_store_check_for_run();
	mako_coverage_require_version(version->source_wf);
	mako_coverage_require_version(version->target_wf);
	check_decisions(version->source_wf, version->target_wf);
	workflows = workflows_on_the_way(version->source_wf, version->target_wf);
	if (version->expect != NULL)
		mako_run_check_fingerprint(version_fingerprint(workflows, version->target_wf),
								   version->expect, MAKO_UNEXPECTED_DEFINITIONS);
	return workflows;
}

/* Migrates every workflow of a format version for which a way is registered, one report a row. */
Datum
mako_migrate_version(PG_FUNCTION_ARGS)
{
	CommandId	command = GetActiveSnapshot()->curcid;
	MakoRowSet *result = mako_rowset_begin(fcinfo);
	MakoRequest version;
	MakoConnection connection;
	List	   *workflows;

	mako_call_check("mako_migrate_version");
	version = read_request(fcinfo, "source_fv", "target_fv");
	mako_constraints_check_deferred();
	connection = mako_sql_connect();
	workflows = mako_migrate_workflows(&version);
	if (workflows != NIL)
		migrate_workflows(&version, workflows, command, result);
	mako_constraints_defer_again();
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
				 errmsg("no workflow has a way from format version \"%s\" to \"%s\"",
						source_fv, target_fv),
				 errhint("Use mako_register_migration().")));
	fingerprint = cstring_to_text(version_fingerprint(workflows, target_fv));
	mako_sql_disconnect(connection);
	PG_RETURN_TEXT_P(fingerprint);
}
