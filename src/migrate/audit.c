/*
 * audit.c
 *	  The runs in the audit trail: begun, counted batch by batch, ended, or closed because another
 *	  one takes their place.
 *
 * A row of mako.migration_run is final once its run has ended. That of a batched run is, with its
 * batches, all that a later call needs to go on with it; of each source at most one is unfinished.
 * A trigger of another owner that swallows a row of the trail ends the run.
 */
#include "migrate/batched.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"

static MakoStatement insert_run = {
	"INSERT INTO mako.migration_run (source_wf, target_wf, path, tenant_id, update_registry,"
	" in_flight_only, max_errors, reason, fingerprint, definitions, extension_version, started_at,"
	" kind, batch_size, through_stream_no, effective_role, sinks)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)"
	" RETURNING run_id",
	17, {TEXTOID, TEXTOID, TEXTARRAYOID, UUIDOID, BOOLOID, BOOLOID, INT8OID, TEXTOID, TEXTOID,
	TEXTARRAYOID, TEXTOID, TIMESTAMPTZOID, TEXTOID, INT4OID, INT8OID, TEXTOID, INT4ARRAYOID}
};

static MakoStatement finish_run = {
	"UPDATE mako.migration_run SET finished_at = $2, migrated = $3, skipped = $4, failed = $5"
	" WHERE run_id OPERATOR(pg_catalog.=) $1",
	5, {INT8OID, TIMESTAMPTZOID, INT8OID, INT8OID, INT8OID}
};

/*
 * Batched runs that have not come to their end, by their source; whether a later run may have
 * brought streams there, or left snapshots of those that are there; and whether they write to these
 * sinks.
 */
static MakoStatement select_unfinished = {
	"SELECT r.run_id, r.target_wf, r.fingerprint, r.tenant_id, r.in_flight_only,"
	" r.through_stream_no, r.started_at, r.migrated, r.failed, b.batches, b.last_stream_no, b.busy,"
	" EXISTS (SELECT FROM mako.migration_run l WHERE l.run_id OPERATOR(pg_catalog.>) r.run_id"
	"   AND CASE WHEN l.update_registry THEN l.target_wf"
	"     ELSE l.source_wf END OPERATOR(pg_catalog.=) r.source_wf),"
	" r.sinks OPERATOR(pg_catalog.=) $2"
	" FROM mako.migration_run r CROSS JOIN LATERAL ("
	"   SELECT pg_catalog.count(*), COALESCE(pg_catalog.max(b.last_stream_no), 0),"
	"   COALESCE(pg_catalog.sum(b.busy), 0)::pg_catalog.int8"
	"   FROM mako.migration_batch b WHERE b.run_id OPERATOR(pg_catalog.=) r.run_id)"
	" AS b (batches, last_stream_no, busy)"
	" WHERE r.source_wf OPERATOR(pg_catalog.=) $1 AND r.kind OPERATOR(pg_catalog.=) 'batched'"
	" AND r.finished_at IS NULL ORDER BY r.run_id",
	2, {TEXTOID, INT4ARRAYOID}
};

/* Of a batched run, unless it has come to its end after all. */
static MakoStatement close_run = {
	"UPDATE mako.migration_run SET finished_at = $2, closed_by = $3"
	" WHERE run_id OPERATOR(pg_catalog.=) $1 AND finished_at IS NULL",
	3, {INT8OID, TIMESTAMPTZOID, INT8OID}
};

static MakoStatement resume_run = {
	"UPDATE mako.migration_run SET batch_size = $2, max_errors = $3, reason = COALESCE($4, reason)"
	" WHERE run_id OPERATOR(pg_catalog.=) $1",
	4, {INT8OID, INT4OID, INT8OID, TEXTOID}
};

static MakoStatement count_run = {
	"UPDATE mako.migration_run SET migrated = $2, failed = $3"
	" WHERE run_id OPERATOR(pg_catalog.=) $1",
	3, {INT8OID, INT8OID, INT8OID}
};

static MakoStatement insert_batch = {
	"INSERT INTO mako.migration_batch (run_id, batch_no, last_stream_no, migrated, failed, busy,"
	" started_at, finished_at, effective_role) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
	9,
	{INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID, TEXTOID}
};

/*
 * What there is to do for a run: the last stream, how many there are, and how many of them after
 * the one that it has come to.
 */
static MakoStatement select_population = {
	"SELECT COALESCE(pg_catalog.max(s.stream_no), 0), pg_catalog.count(*),"
	" pg_catalog.count(*) FILTER (WHERE s.stream_no OPERATOR(pg_catalog.>) $3)"
	" FROM mako.stream s WHERE s.workflow_id OPERATOR(pg_catalog.=) $1 AND ($2 IS NULL"
	" OR s.tenant_id OPERATOR(pg_catalog.=) $2) AND s.stream_no OPERATOR(pg_catalog.<=) $4",
	4, {TEXTOID, UUIDOID, INT8OID, INT8OID}, true
};

/* The name of the current role: the row is written as the owner of its table. */
static NullableDatum
caller_name(void)
{
	return mako_text(GetUserNameFromId(GetUserId(), false));
}

/* Writes one row. */
static void
write_row(MakoStatement *statement, const char *table, const NullableDatum *values)
{
	if (mako_store_write(statement, values) != 1)
		mako_sql_raise_swallowed(table, 1);
}

/* How many streams may fail; null for any number. */
static NullableDatum
max_errors_of(const MakoRequest *request)
{
	return mako_unless(request->max_errors < 0, mako_bigint(request->max_errors));
}

/* ---- runs ----------------------------------------------------------------------------------- */

/* Opens a run; through_stream_no is that of a batched one. Returns its number. */
int64
mako_audit_begin(const MakoRequest *request, const MakoPlan *plan, const MakoSinks *sinks,
				 TimestampTz started_at, int64 through_stream_no)
{
	bool		batched = request->batch_size > 0;
	NullableDatum values[] = {
		mako_text(request->source_wf), mako_text(request->target_wf), mako_plan_path(plan),
		mako_uuid(request->tenant_id), mako_boolean(request->update_registry),
		mako_boolean(request->in_flight_only), max_errors_of(request),
		mako_reference(PointerGetDatum(request->reason)), mako_text(plan->fingerprint),
		mako_plan_definitions(plan), mako_text(mako_extension_version()),
		mako_timestamptz(started_at), mako_text(batched ? "batched" : "single"),
		mako_unless(!batched, mako_integer(request->batch_size)),
		mako_unless(!batched, mako_bigint(through_stream_no)), caller_name(),
		mako_sinks_numbers(sinks)
	};
	MakoRows	rows = mako_store_query(&insert_run, values);
	int64		run_id;

	if (rows.count != 1)
		mako_sql_raise_swallowed("migration_run", 1);
	run_id = mako_row_bigint(&rows, 0, 1);
	mako_rows_free(&rows);
	return run_id;
}

/* Raises that there is no such run. */
void
mako_audit_raise_unknown(int64 run_id)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("migration run " INT64_FORMAT " does not exist", run_id),
			 errhint("The table mako.migration_run has all runs.")));
}

/* Ends a run, with what its report says. */
void
mako_audit_end(MakoReport *report)
{
	report->finished_at = GetCurrentTimestamp();
	{
		NullableDatum values[] = {
			mako_bigint(report->run_id), mako_timestamptz(report->finished_at),
			mako_bigint(report->migrated), mako_bigint(report->skipped), mako_bigint(report->failed)
		};

		write_row(&finish_run, "migration_run", values);
	}
}

/*
 * Closes a batched run that is not going to be finished, on behalf of the run that is begun
 * instead. Its batches count what they have done, so its counts are right; what it skips is never
 * counted.
 */
void
mako_audit_close(int64 run_id, const char *source_wf, int64 closed_by, const char *why)
{
	NullableDatum values[] = {
		mako_bigint(run_id), mako_timestamptz(GetCurrentTimestamp()), mako_bigint(closed_by)
	};

	if (mako_store_write(&close_run, values) > 0)
		ereport(NOTICE,
				(errmsg("run " INT64_FORMAT " of \"%s\" was not finished and is closed",
						run_id, source_wf),
				 errdetail_internal("%s", why)));
}

/* ---- batched runs --------------------------------------------------------------------------- */

/* Whether this tenant, or all of them, is that of a request. */
static bool
same_tenant(const MakoRequest *request, const pg_uuid_t *tenant_id)
{
	if (request->tenant_id == NULL || tenant_id == NULL)
		return request->tenant_id == tenant_id;
	return memcmp(request->tenant_id, tenant_id, sizeof(pg_uuid_t)) == 0;
}

/*
 * Why a call cannot go on with an unfinished run; NULL when it can. Two of the same source cannot
 * go on side by side.
 */
static const char *
why_not(const MakoRequest *request, const MakoPlan *plan, const MakoRows *rows, uint64 row)
{
	const pg_uuid_t *tenant_id = mako_row_uuid(rows, row, 4);

	if (strcmp(mako_row_text(rows, row, 2), request->target_wf) != 0)
		return "Its target was another one.";
	if (strcmp(mako_row_text(rows, row, 3), plan->fingerprint) != 0)
		return "The definitions have changed since.";
	if (!same_tenant(request, tenant_id) ||
		mako_row_boolean(rows, row, 5) != request->in_flight_only)
		return "Its options were others.";
	if (mako_row_boolean(rows, row, 13))
		return "Another run to or from its source came in between.";
	if (!mako_row_boolean(rows, row, 14))
		return "Its sinks were others.";
	return NULL;
}

/* Takes up an unfinished run where it was left. */
static void
take_up(MakoBatchedRun *run, const MakoRows *rows, uint64 row)
{

	run->run_id = mako_row_bigint(rows, row, 1);
	run->through_stream_no = mako_row_bigint(rows, row, 6);
	run->started_at = mako_row_timestamptz(rows, row, 7);
	run->migrated = mako_row_bigint_or(rows, row, 8, 0);
	run->failed = mako_row_bigint_or(rows, row, 9, 0);
	run->batches = mako_row_bigint(rows, row, 10);
	run->last_stream_no = mako_row_bigint(rows, row, 11);
	run->busy = mako_row_bigint(rows, row, 12);
}

/* Counts what there is to do, and fixes it for a new run. */
static void
count_population(MakoBatchedRun *run)
{
	const MakoRequest *request = &run->request;
	NullableDatum values[] = {
		mako_text(request->source_wf), mako_uuid(request->tenant_id),
		mako_bigint(run->last_stream_no),
		mako_bigint(run->run_id > 0 ? run->through_stream_no : PG_INT64_MAX)
	};
	MakoRows	rows = mako_sql_query(&select_population, values);

	if (run->run_id == 0)
		run->through_stream_no = mako_row_bigint(&rows, 0, 1);
	run->total = run->migrated + mako_row_bigint(&rows, 0, 2);
	run->done = run->total - mako_row_bigint(&rows, 0, 3);
	mako_rows_free(&rows);
}

/* Opens a batched run, or the one again that was left unfinished. Others that were are closed. */
void
mako_audit_begin_batched(MakoBatchedRun *run, const MakoPlan *plan, const MakoSinks *sinks)
{
	const MakoRequest *request = &run->request;
	NullableDatum key[] = {mako_text(request->source_wf), mako_sinks_numbers(sinks)};
	MakoRows	unfinished = mako_sql_query(&select_unfinished, key);

	for (uint64 row = 0; row < unfinished.count; row++)
		if (why_not(request, plan, &unfinished, row) == NULL)
			take_up(run, &unfinished, row);
	count_population(run);
	if (run->run_id > 0)
	{
		NullableDatum values[] = {
			mako_bigint(run->run_id), mako_integer(request->batch_size), max_errors_of(request),
			mako_reference(PointerGetDatum(request->reason))
		};

		write_row(&resume_run, "migration_run", values);
	}
	else
	{
		NullableDatum values[] = {mako_null(), mako_bigint(0), mako_bigint(0)};

		run->started_at = GetCurrentTimestamp();
		run->run_id = mako_audit_begin(request, plan, sinks, run->started_at,
									   run->through_stream_no);
		values[0] = mako_bigint(run->run_id);
		write_row(&count_run, "migration_run", values);
	}
	for (uint64 row = 0; row < unfinished.count; row++)
	{
		const char *why = why_not(request, plan, &unfinished, row);

		if (why != NULL)
			mako_audit_close(mako_row_bigint(&unfinished, row, 1), request->source_wf,
							 run->run_id, why);
	}
	mako_rows_free(&unfinished);
	snprintf(run->fingerprint, sizeof(run->fingerprint), "%s", plan->fingerprint);
}

/* Writes what a transaction of a batched run has done. */
void
mako_audit_record_batch(MakoBatchedRun *run, const MakoReport *report, int64 last_stream_no,
						int64 busy, TimestampTz started_at)
{
	NullableDatum counts[] = {
		mako_bigint(run->run_id), mako_bigint(report->migrated), mako_bigint(report->failed)
	};
	NullableDatum batch[] = {
		mako_bigint(run->run_id), mako_bigint(run->batches + 1),
		mako_unless(last_stream_no == 0, mako_bigint(last_stream_no)),
		mako_bigint(report->migrated - run->migrated), mako_bigint(report->failed - run->failed),
		mako_bigint(busy), mako_timestamptz(started_at), mako_timestamptz(GetCurrentTimestamp()),
		caller_name()
	};

	write_row(&count_run, "migration_run", counts);
	write_row(&insert_batch, "migration_batch", batch);
	run->batches++;
	run->migrated = report->migrated;
	run->failed = report->failed;
	if (last_stream_no > 0)
		run->last_stream_no = last_stream_no;
	run->busy += busy;
}
