/*
 * progress.c
 *	  How far the migration of this session has come, for others to see: as the statement's text in
 *	  pg_stat_activity, where the view mako_progress finds it, and as notices for those who want
 *	  them. Needs no shared memory, so the library need not be preloaded.
 *
 * run.c tells of every stream; a text is made only once in a while. The statement's own text comes
 * back at the end. Memory is in TopMemoryContext, because a batched run outlives its transactions.
 */
#include "migrate/migrate.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/memutils.h"

/* Milliseconds between two texts. */
#define REPORT_INTERVAL 100

/* Of this session; one migration is under way at a time. */
static struct
{
	char	   *statement;		/* its text before; NULL while nothing is under way */
	char	   *what;			/* function, source and target */
	int64		run_id;
	int64		done;			/* streams */
	int64		total;
	int64		failed;
	int64		done_before;	/* by earlier calls */
	TimestampTz since;			/* this call */
	TimestampTz started_at;		/* the run */
	TimestampTz reported_at;
	TimestampTz noticed_at;
} progress;

/* Frees one of the texts, if it is there: an error may have come before it was made. */
static void
forget_text(char **text)
{
	char	   *old = *text;

	*text = NULL;
	if (old != NULL)
		pfree(old);
}

/* Shows how far it is; the view mako_progress takes it apart again. */
static void
report_progress(TimestampTz now)
{
	double		seconds = (now - progress.since) / (double) USECS_PER_SEC;
	double		rate = seconds > 0 ? (progress.done - progress.done_before) / seconds : 0;
	char	   *text = psprintf("%s: run " INT64_FORMAT ", " INT64_FORMAT " of " INT64_FORMAT
								" streams, " INT64_FORMAT " failed, %.1f a second, since %s",
								progress.what, progress.run_id, Min(progress.done, progress.total),
								progress.total, progress.failed, rate,
								timestamptz_to_str(progress.started_at));

	MakoReportActivity(text);
	progress.reported_at = now;
	if (mako_progress_interval > 0 &&
		TimestampDifferenceExceeds(progress.noticed_at, now, mako_progress_interval))
	{
		ereport(NOTICE, (errmsg_internal("%s", text)));
		progress.noticed_at = now;
	}
	pfree(text);
}

/*
 * Begins to show a run, or goes on with another one: which run, how many streams, how many of them
 * are done and have failed. All runs of a pass are shown as one, the first of them, with format
 * versions instead of workflows.
 */
void
mako_progress_begin(const MakoRequest *request, int64 run_id, int64 done, int64 total, int64 failed,
					TimestampTz started_at)
{
	bool		whole_version = request->one_of_version && request->batch_size == 0;
	MemoryContext old;

	if (progress.statement == NULL)
	{
		/* The server answers with a copy, which is the caller's to forget. */
		progress.statement = MemoryContextStrdup(TopMemoryContext, MakoCurrentActivity());
		progress.noticed_at = GetCurrentTimestamp();
	}
	old = MemoryContextSwitchTo(TopMemoryContext);
	if (progress.what != NULL)
		pfree(progress.what);
	progress.what = psprintf("%s %s -> %s",
							 request->batch_size > 0 ? "mako_migrate_batched" : "mako_migrate",
							 whole_version ? mako_workflow_id_version(request->source_wf) :
							 request->source_wf,
							 whole_version ? mako_workflow_id_version(request->target_wf) :
							 request->target_wf);
	MemoryContextSwitchTo(old);
	progress.run_id = run_id;
	progress.done = progress.done_before = done;
	progress.total = total;
	progress.failed = failed;
	progress.since = GetCurrentTimestamp();
	progress.started_at = started_at;
	report_progress(progress.since);
}

/* One more stream is done with; so many have failed. */
void
mako_progress_advance(int64 failed)
{
	TimestampTz now = GetCurrentTimestamp();

	progress.done++;
	progress.failed = failed;
	if (TimestampDifferenceExceeds(progress.reported_at, now, REPORT_INTERVAL))
		report_progress(now);
}

/* Shows the statement again, whether the run has come to its end or an error has ended it. */
void
mako_progress_end(void)
{
	if (progress.statement == NULL)
		return;
	MakoReportActivity(progress.statement);
	forget_text(&progress.statement);
	forget_text(&progress.what);
}

/* ---- the view ------------------------------------------------------------------------------- */

/* What sessions show, as far as the caller may see them. */
static MakoStatement select_active = {
	"SELECT t.m[4]::bigint, CASE WHEN t.m[1] IS NULL THEN 'single' ELSE 'batched' END, t.m[2],"
	" t.m[3], t.m[5]::bigint, t.m[6]::bigint, t.m[7]::bigint, t.m[8]::double precision,"
	" t.m[9]::timestamptz, clock_timestamp() + make_interval(secs => (t.m[6]::bigint -"
	"     t.m[5]::bigint) / NULLIF(t.m[8]::double precision, 0)), t.pid"
	" FROM (SELECT a.pid, regexp_match(a.query,"
	"     '^mako_migrate(_batched)? (\\S+) -> (\\S+): run (\\d+), (\\d+) of (\\d+) streams,"
	" (\\d+) failed, (\\d+\\.\\d) a second, since (\\S.*)$') AS m"
	"   FROM pg_stat_activity a WHERE a.datname = current_database() AND a.state = 'active') t"
	" WHERE t.m IS NOT NULL ORDER BY 1",
	0, {0}
};

/*
 * Batched runs that no session is at, but for those shown, and those of a version that wait for
 * their turn.
 */
#define UNFINISHED(total) \
	"SELECT r.run_id, r.kind, r.source_wf, r.target_wf," \
	" r.migrated + r.failed, " total ", r.failed, NULL::double precision," \
	" r.started_at, NULL::timestamptz," \
	" (SELECT l.pid FROM pg_locks l CROSS JOIN %s.mako_source_lock(r.source_wf) AS k (key)" \
	"   WHERE l.locktype = 'advisory' AND l.objsubid = 3 AND l.granted" \
	"   AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())" \
	"   AND l.classid = (k.key >> 32 & 4294967295)::oid AND l.objid = (k.key & 4294967295)::oid" \
	"   LIMIT 1)" \
	" FROM mako.migration_run r" \
	" WHERE r.kind = 'batched' AND r.finished_at IS NULL AND r.run_id <> ALL ($1) ORDER BY r.run_id"

static MakoStatement select_unfinished = {UNFINISHED("NULL::bigint"), 1, {INT8ARRAYOID}};

static MakoStatement select_unfinished_counted = {
	UNFINISHED("r.migrated + (SELECT count(*) FROM mako.stream s WHERE s.workflow_id = r.source_wf"
			   " AND s.stream_no <= r.through_stream_no"
			   " AND (r.tenant_id IS NULL OR s.tenant_id = r.tenant_id))"),
	1, {INT8ARRAYOID}
};

/* Returns true if the caller may look at a table of a store that he trusts. */
static bool
may_look_at(const char *table)
{
	return mako_door_has_table(table) && mako_door_may_use() &&
		mako_door_untrusted_owner() == NULL &&
		pg_class_aclcheck(mako_door_table(table), GetUserId(), ACL_SELECT) == ACLCHECK_OK;
}

MAKO_FUNCTION(mako_current_progress);

/* What the view mako_progress shows. */
Datum
mako_current_progress(PG_FUNCTION_ARGS)
{
	MakoRowSet *result = mako_rowset_begin(fcinfo);
	MakoConnection connection = mako_sql_connect_visible();
	MakoRows	active = mako_sql_query(&select_active, NULL);
	int64	   *run_ids = palloc(sizeof(int64) * (active.count + 1));
	NullableDatum shown;

	for (uint64 row = 0; row < active.count; row++)
		run_ids[row] = mako_row_bigint(&active, row, 1);
	shown = mako_bigint_array(run_ids, (int) active.count);
	mako_rowset_add_rows(result, active);
	if (may_look_at("migration_run"))
		mako_rowset_add_rows(result,
							 mako_sql_query(may_look_at("stream") ? &select_unfinished_counted :
											&select_unfinished, &shown));
	mako_sql_disconnect(connection);
	PG_RETURN_NULL();
}
