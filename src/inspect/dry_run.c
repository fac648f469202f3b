/*
 * dry_run.c
 *	  mako_dry_run(): what a migration would do, stream by stream, without doing it.
 *
 * Streams are taken by streams.c and moved by move.c, as a run moves them, by workers where a run
 * could have some (shared_rows.c), so the outcome is that
 * of a run up to phase "state". Nothing is locked or written, so it works in READ ONLY
 * transactions and on a standby. Rows go to the result as they are made, in the order of the
 * streams: a stream that is refused asks for a pause, so that its error comes before the next
 * stream's row. A row's memory is in a context of its own that is reset for the next one.
 */
#include "inspect/inspect.h"

#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/typcache.h"

/* Columns of the result, in order. */
enum
{
	DRY_STREAM_ID,
	DRY_SEQUENCE_NUMBER,
	DRY_OLD_STATE,
	DRY_NEW_STATE,
	DRY_CHANGES,
	DRY_ERROR,
	DRY_COLUMNS
};

typedef struct DryRun
{
	MakoMover	mover;
	MakoFold   *fold;
	MakoReplay *replay;
	MakoRowSet *rows;
	TupleDesc	error_type;		/* mako_migration_error */
	MemoryContext row_context;
} DryRun;

/* Adds the row of a stream that would be migrated, or repointed, which is without states. */
static void
add_move(DryRun *run, const MakoStream *stream, const MakoMove *move)
{
	NullableDatum values[DRY_COLUMNS] = {
		mako_text(stream->stream_id), mako_bigint(move->sequence_number), mako_null(), mako_null(),
		mako_null(), mako_null()
	};

	if (move->new_state != (Datum) 0)
	{
		/* Toasted and expanded ones become flat. */
		Jsonb	   *old_state = DatumGetJsonbP(move->old_state);
		Jsonb	   *new_state = DatumGetJsonbP(move->new_state);

		values[DRY_OLD_STATE] = mako_datum(JsonbPGetDatum(old_state));
		values[DRY_NEW_STATE] = mako_datum(JsonbPGetDatum(new_state));
		values[DRY_CHANGES] = mako_datum(JsonbPGetDatum(mako_merge_patch_between(old_state,
																				 new_state)));
	}
	mako_rowset_add(run->rows, values);
}

/* Takes a stream; see MakoStreamsWalk. */
static bool
preview_stream(void *argument, const MakoStream *stream, MakoReader *reader)
{
	DryRun	   *run = argument;
	MakoMove	move;

	mako_rowset_at(run->rows, stream->stream_no);
	if (!mako_mover_take(&run->mover, run->fold, run->replay, stream, reader, &move))
		return false;
	if (move.moves)
	{
		MemoryContext old;

		MemoryContextReset(run->row_context);
		old = MemoryContextSwitchTo(run->row_context);
		add_move(run, stream, &move);
		MemoryContextSwitchTo(old);
	}
	return true;
}

/* Adds the row of a stream that would fail. */
static void
add_failure(void *argument, const MakoStream *stream, MakoPhase phase, int64 sequence_number,
			const ErrorData *error)
{
	DryRun	   *run = argument;
	NullableDatum values[DRY_COLUMNS] = {
		mako_null(), mako_null(), mako_null(), mako_null(), mako_null(), mako_null()
	};
	MemoryContext old;

	mako_rowset_at(run->rows, stream->stream_no);
	MemoryContextReset(run->row_context);
	old = MemoryContextSwitchTo(run->row_context);
	values[DRY_STREAM_ID] = mako_text(stream->stream_id);
	values[DRY_ERROR] = mako_report_error_value(stream->stream_id, phase, sequence_number, error,
												run->error_type);
	mako_rowset_add(run->rows, values);
	MemoryContextSwitchTo(old);
}

/* How many streams are to be taken; -1 for all. */
static int64
sample_argument(FunctionCallInfo fcinfo, int argument)
{
	int64		sample;

	if (PG_ARGISNULL(argument))
		return -1;
	sample = PG_GETARG_INT64(argument);
	if (sample <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("sample must be positive"),
				 errdetail("It is " INT64_FORMAT ".", sample),
				 errhint("Leave it out for all streams.")));
	return sample;
}

/* What a dry run is asked for; followed by source and target, as strings, for a worker. */
typedef struct Asked
{
	bool		in_flight_only;
	bool		has_tenant;
	pg_uuid_t	tenant_id;
	int64		sample;			/* -1 for all streams */
	int64		seed;
} Asked;

/* A dry run along a plan, whose rows go there. */
static DryRun
begin_run(const MakoPlan *plan, bool in_flight_only, MakoRowSet *rows)
{
	DryRun		run = {
		.mover = mako_mover(plan, in_flight_only),.fold = mako_fold_create(plan),
		.replay = mako_replay_create(),.rows = rows,
		.error_type = lookup_rowtype_tupdesc_copy(TupleDescAttr(mako_rowset_type(rows),
																DRY_ERROR)->atttypid, -1),
		.row_context = AllocSetContextCreate(CurrentMemoryContext, "mako row",
											 ALLOCSET_DEFAULT_SIZES)
	};

	return run;
}

/* Takes the streams of the source, a sample or a share of them. */
static void
rehearse_streams(DryRun *run, const Asked *asked, const MakoShare *share)
{
	MakoStreamsWalk walk = {
		.fold = run->fold,.replay = run->replay,
		.tenant_id = asked->has_tenant ? &asked->tenant_id : NULL,.sample = asked->sample,
		.seed = asked->seed,.with_names = true,.periodic_too = run->mover.periodic_too,
		.share = share,.take = preview_stream,.wants_pause = mako_batch_tells_refusal,
		.fail = add_failure,.argument = run
	};

	mako_streams_walk(&walk);
}

/* ---- with workers --------------------------------------------------------------------------- */

/* What a worker does; a MakoSharedWork. */
static int64
rehearse_share(const void *given, const MakoShare *share, MakoRowSet *rows)
{
	const Asked *asked = given;
	const char *source_wf = (const char *) given + sizeof(Asked);
	const char *target_wf = source_wf + strlen(source_wf) + 1;
	DryRun		run = begin_run(mako_plan_create(source_wf, target_wf), asked->in_flight_only,
								rows);

	rehearse_streams(&run, asked, share);
	return run.replay->rebuilt;
}

/* The work of a worker. */
static void
work(MakoWorker *worker)
{
	mako_shared_rows_work(worker, rehearse_share);
}

PGDLLEXPORT void mako_dry_run_worker(Datum argument);

/* Its main function. */
void
mako_dry_run_worker(Datum argument)
{
	mako_worker_main(argument, work);
}

/* Lets workers take the streams; false where there are none. */
static bool
rehearse_with_workers(const DryRun *run, const Asked *asked, int wanted, Oid function)
{
	const MakoPlan *plan = run->mover.plan;
	const char *source_wf = plan->workflows[0]->workflow_id;
	const char *why_not = NULL;
	MakoMatches *matches;
	StringInfoData given;
	int			workers;
	int64		rebuilt;

	if (wanted == 0 || asked->sample >= 0)
		return false;
	matches = mako_matches_take(&source_wf, 1, asked->has_tenant ? &asked->tenant_id : NULL);
	workers = mako_parallel_workers(wanted, mako_matches_under(matches, source_wf), &run->fold, 1,
									&why_not);
	initStringInfo(&given);
	appendBinaryStringInfo(&given, (const char *) asked, sizeof(Asked));
	appendBinaryStringInfo(&given, source_wf, (int) strlen(source_wf) + 1);
	appendBinaryStringInfo(&given, plan->workflows[plan->steps]->workflow_id,
						   (int) strlen(plan->workflows[plan->steps]->workflow_id) + 1);
	rebuilt = mako_shared_rows("mako_dry_run_worker", workers, function, given.data, given.len,
							   run->rows);
	run->replay->rebuilt += Max(rebuilt, 0);
	return rebuilt >= 0;
}

/* ---- the call ------------------------------------------------------------------------------- */

MAKO_FUNCTION(mako_dry_run);

/* What mako_migrate() would do, a row a stream. */
Datum
mako_dry_run(PG_FUNCTION_ARGS)
{
	MakoRowSet *rows = mako_rowset_begin(fcinfo);
	Asked		asked = {0};
	DryRun		run;
	const char *why_not;
	int			wanted = mako_workers_wanted(&why_not);
	const char *source_wf = mako_argument_text(fcinfo, 0, "source_wf");
	const char *target_wf = mako_argument_text(fcinfo, 1, "target_wf");
	MemoryContext context;
	MemoryContext old;
	MakoConnection connection;

	mako_require_value(!PG_ARGISNULL(3), "in_flight_only");
	mako_require_value(!PG_ARGISNULL(5), "seed");
	mako_plan_require_pair(source_wf, target_wf);
	asked.in_flight_only = PG_GETARG_BOOL(3);
	asked.has_tenant = !PG_ARGISNULL(2);
	if (asked.has_tenant)
		asked.tenant_id = *PG_GETARG_UUID_P(2);
	asked.sample = sample_argument(fcinfo, 4);
	asked.seed = PG_GETARG_INT64(5);

	context = AllocSetContextCreate(CurrentMemoryContext, "mako dry run", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(context);
	connection = mako_sql_connect();
	mako_store_check();
	run = begin_run(mako_plan_create(source_wf, target_wf), asked.in_flight_only, rows);
	/* What is refused to the caller ends the call here, instead of failing every stream. */
	if (run.fold->apply != NULL)
		mako_stream_rehearse();
	if (!rehearse_with_workers(&run, &asked, wanted, fcinfo->flinfo->fn_oid))
		rehearse_streams(&run, &asked, NULL);
	mako_replay_warn(run.replay, NULL);
	mako_sql_disconnect(connection);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	PG_RETURN_NULL();
}
