/*
 * progress.c
 *	  How far the migration of this session has come, for others to see: as the statement's text in pg_stat_activity, where the view
 *	  mako_progress finds it, and as notices for those who want them. Needs no shared memory, so the library need not be preloaded.
 *
 * run.c tells of every stream; a text is made only once in a while. The statement's own text comes back at the end. Memory is in
 * TopMemoryContext, because a batched run outlives its transactions.
 */
#include "mako_migration.h"

#include "miscadmin.h"
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
forget(char **text)
{
	char	   *old = *text;

	*text = NULL;
	if (old != NULL)
		pfree(old);
}

/* Shows how far it is; the view mako_progress takes it apart again. */
static void
report(TimestampTz now)
{
	double		seconds = (now - progress.since) / (double) USECS_PER_SEC;
	double		rate = seconds > 0 ? (progress.done - progress.done_before) / seconds : 0;
	char	   *text = psprintf("%s: run " INT64_FORMAT ", " INT64_FORMAT " of " INT64_FORMAT " streams, " INT64_FORMAT
								" failed, %.1f a second, since %s",
								progress.what, progress.run_id, Min(progress.done, progress.total), progress.total, progress.failed, rate,
								timestamptz_to_str(progress.started_at));

	MakoReportActivity(text);
	progress.reported_at = now;
	if (mako_progress_interval > 0 && TimestampDifferenceExceeds(progress.noticed_at, now, mako_progress_interval))
	{
		ereport(NOTICE, (errmsg_internal("%s", text)));
		progress.noticed_at = now;
	}
	pfree(text);
}

/*
 * Begins to show a run, or goes on with another one: which run, how many streams, how many of them are done and have failed. All runs of
 * a pass are shown as one, the first of them, with format versions instead of workflows.
 */
void
mako_progress_begin(const MakoRequest *request, int64 run_id, int64 done, int64 total, int64 failed,
					TimestampTz started_at)
{
	bool		whole_version = request->one_of_version && request->batch_size == 0;
	char	   *what;

	if (progress.statement == NULL)
	{
		/* The activity is a copy already, but in whichever context is current. */
		progress.statement = MemoryContextStrdup(TopMemoryContext, MakoCurrentActivity());
		progress.noticed_at = GetCurrentTimestamp();
	}
	what = psprintf("%s %s -> %s", request->batch_size > 0 ? "mako_migrate_batched" : "mako_migrate",
					whole_version ? mako_workflow_id_version(request->source_wf) : request->source_wf,
					whole_version ? mako_workflow_id_version(request->target_wf) : request->target_wf);
	forget(&progress.what);
	progress.what = MemoryContextStrdup(TopMemoryContext, what);
	pfree(what);
	progress.run_id = run_id;
	progress.done = progress.done_before = done;
	progress.total = total;
	progress.failed = failed;
	progress.since = GetCurrentTimestamp();
	progress.started_at = started_at;
	report(progress.since);
}

/* One more stream is done with; so many have failed. */
void
mako_progress_advance(int64 failed)
{
	TimestampTz now = GetCurrentTimestamp();

	progress.done++;
	progress.failed = failed;
	if (TimestampDifferenceExceeds(progress.reported_at, now, REPORT_INTERVAL))
		report(now);
}

/* Shows the statement again, whether the run has come to its end or an error has ended it. */
void
mako_progress_end(void)
{
	if (progress.statement == NULL)
		return;
	MakoReportActivity(progress.statement);
	forget(&progress.statement);
	forget(&progress.what);
}
