/*
 * revert.c
 *	  mako_revert(): undoes a run, stream by stream, where nothing came after it.
 *
 * The streams of the run come from one cursor, a batch at a time, in stream_no order, and their
 * heads are locked. What stands against a stream is looked for after the locks, so that nothing is
 * missed that others committed while we waited. The others wait in a writer, which records that
 * they are taken back instead of writing snapshots, and repoints heads and dependents as it does
 * for a migration the other way; sinks take back what they wrote. The run itself holds the locks of
 * such a migration, so neither overtakes the other.
 *
 * A batch lives in a context that is reset for the next, below that of the call.
 */
#include "migrate/migrate.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

static MakoStatement select_run = {
	"SELECT r.kind, r.source_wf, r.target_wf, r.update_registry, r.finished_at IS NOT NULL"
	" FROM mako.migration_run r WHERE r.run_id OPERATOR(pg_catalog.=) $1",
	1, {INT8OID}
};

static MakoStatement insert_run = {
	"INSERT INTO mako.migration_run (kind, source_wf, target_wf, path, tenant_id, update_registry,"
	"   in_flight_only, reverts, reason, fingerprint, definitions, extension_version, started_at,"
	"   effective_role)"
	" SELECT 'revert', r.target_wf, r.source_wf,"
	"   ARRAY(SELECT p.workflow_id FROM pg_catalog.unnest(r.path) WITH ORDINALITY"
	"     AS p (workflow_id, ordinal) ORDER BY p.ordinal DESC),"
	"   r.tenant_id, r.update_registry, false, r.run_id, $2, r.fingerprint, '{}', $3, $4, $5"
	" FROM mako.migration_run r WHERE r.run_id OPERATOR(pg_catalog.=) $1 RETURNING run_id",
	5, {INT8OID, TEXTOID, TEXTOID, TIMESTAMPTZOID, TEXTOID}
};

/* Whether a workflow is registered, and its states can be folded. */
static MakoStatement select_workflow = {
	"SELECT w.apply IS NOT NULL FROM %s.mako_workflow w"
	" WHERE w.workflow_id::pg_catalog.text OPERATOR(pg_catalog.=) $1",
	1, {TEXTOID}
};

/*
 * Where a run left its streams: with a snapshot, without one of the last event, or both. Right
 * after the run, statistics know nothing of what it has written.
 */
#define STREAMS_OF_RUN(columns) \
	"SELECT " columns " FROM (" \
	"   SELECT n.stream_no, n.sequence_number AS snapshot_at, n.sequence_number AS moved_at" \
	"   FROM mako.snapshot n WHERE n.run_id OPERATOR(pg_catalog.=) $1" \
	"   UNION ALL SELECT p.stream_no, 0, p.sequence_number" \
	"   FROM mako.repointed p WHERE p.run_id OPERATOR(pg_catalog.=) $1) m"

static MakoStatement count_streams = {
	STREAMS_OF_RUN("pg_catalog.count(DISTINCT m.stream_no)"), 1, {INT8OID}
};

static MakoStatement select_streams = {
	STREAMS_OF_RUN("m.stream_no, pg_catalog.max(m.snapshot_at), pg_catalog.max(m.moved_at)")
	" WHERE NOT EXISTS (SELECT FROM mako.reverted x"
	"   WHERE x.run_id OPERATOR(pg_catalog.=) $1"
	"   AND x.stream_no OPERATOR(pg_catalog.=) m.stream_no)"
	" GROUP BY m.stream_no ORDER BY m.stream_no",
	1, {INT8OID}, true,.way = MAKO_BY_TABLES
};

/* Whether a later run has led away from where this one led. */
static MakoStatement select_later = {
	"SELECT EXISTS (SELECT FROM mako.migration_run r"
	" WHERE r.run_id OPERATOR(pg_catalog.>) $1 AND r.source_wf OPERATOR(pg_catalog.=) $2"
	" AND r.kind OPERATOR(pg_catalog.<>) 'revert')",
	2, {INT8OID, TEXTOID}
};

/*
 * Of some streams: the last run after this one that still counts, and, if that is asked, whether
 * the source has a state at the head, and whether one that the target has saved since may have
 * taken its place.
 */
static MakoStatement select_obstacles = {
	"SELECT (SELECT pg_catalog.max(l.run_id) FROM ("
	"     SELECT n.run_id FROM mako.snapshot n WHERE n.stream_no OPERATOR(pg_catalog.=) h.stream_no"
	"     AND n.run_id OPERATOR(pg_catalog.>) $3 AND " MAKO_STANDS("n")
	"     UNION ALL SELECT p.run_id FROM mako.repointed p"
	"     WHERE p.stream_no OPERATOR(pg_catalog.=) h.stream_no"
	"     AND p.run_id OPERATOR(pg_catalog.>) $3 AND " MAKO_STANDS("p") ") AS l),"
	" $5 AND EXISTS (SELECT FROM mako.snapshot n"
	"   WHERE n.stream_no OPERATOR(pg_catalog.=) h.stream_no"
	"   AND n.sequence_number OPERATOR(pg_catalog.=) h.version"
	"   AND n.workflow_id OPERATOR(pg_catalog.=) $4"
	"   AND n.run_id OPERATOR(pg_catalog.<>) $3 AND " MAKO_STANDS("n")
	"   AND (n.run_id OPERATOR(pg_catalog.=) 0 OR EXISTS (SELECT FROM mako.migration_run r"
	"       WHERE r.run_id OPERATOR(pg_catalog.=) n.run_id AND r.update_registry))),"
	" $5 AND EXISTS (SELECT FROM mako.snapshot n"
	"   WHERE n.stream_no OPERATOR(pg_catalog.=) h.stream_no"
	"   AND n.sequence_number OPERATOR(pg_catalog.=) h.version"
	"   AND n.workflow_id OPERATOR(pg_catalog.=) $6 AND n.run_id OPERATOR(pg_catalog.=) 0)"
	" FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS h (stream_no, version)"
	" ORDER BY h.stream_no",
	6, {INT8ARRAYOID, INT8ARRAYOID, INT8OID, TEXTOID, BOOLOID, TEXTOID}, true
};

/* A run that is being undone; lives in the context of the call. */
typedef struct Revert
{
	int64		run_id;			/* of the run that is undone */
	const text *reason;			/* or NULL */
	const char *source_wf;		/* of that run, like the next four */
	const char *target_wf;
	bool		update_registry;
	bool		finished;		/* or a batched run that was left half-way, or is under way */
	bool		source_folds;	/* states of its source can be folded: it has an apply */
	bool		came_later;		/* a run that may have taken streams of this one on */
	ErrorData  *no_way;			/* what stands against every stream, or NULL */
	MakoTally	tally;
	MakoReport *report;
	MakoDestination destination;
	MakoSinks  *sinks;			/* that the run wrote to; NULL for none */
	MakoWriter *writer;
	MemoryContext batch_context;
} Revert;

/* A stream of the run, locked; lives in the batch context. */
typedef struct Candidate
{
	MakoStream	stream;			/* with the workflow that it runs under now */
	int64		snapshot_at;	/* sequence number of its snapshot, 0 for none */
	int64		moved_at;		/* where the run left it */
} Candidate;

/* ---- what stands against it ----------------------------------------------------------------- */

/* Why a stream stays where it is, as an error in the current memory context. */
static ErrorData *
refuse(char *message, char *detail, char *hint)
{
	ErrorData  *error = palloc0(sizeof(ErrorData));

	error->elevel = ERROR;
	error->sqlerrcode = ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
	error->message = message;
	error->detail = detail;
	error->hint = hint;
	error->assoc_context = CurrentMemoryContext;
	return error;
}

/* Returns true if a workflow is registered. Says, too, whether it has an apply. */
static bool
is_registered(const char *workflow_id, bool *has_apply)
{
	NullableDatum value = mako_text(workflow_id);
	MakoRows	rows = mako_sql_query(&select_workflow, &value);
	bool		found = rows.count > 0;

	*has_apply = found && mako_row_boolean(&rows, 0, 1);
	mako_rows_free(&rows);
	return found;
}

/*
 * What keeps every stream from going back: definitions that are gone, or a retired version, which
 * is held; NULL for nothing.
 */
static ErrorData *
find_no_way(Revert *revert)
{
	const char *version = mako_workflow_id_version(revert->source_wf);
	const char *status = mako_fence_status(version);
	bool		target_folds;
	const char *missing = NULL;

	if (!is_registered(revert->target_wf, &target_folds))
		missing = revert->target_wf;
	if (!is_registered(revert->source_wf, &revert->source_folds))
		missing = revert->source_wf;
	if (missing != NULL)
		return refuse("a workflow of the run is not registered any more",
					  psprintf("Workflow \"%s\" is missing; run " INT64_FORMAT " led "
							   "from \"%s\" to \"%s\".", missing, revert->run_id,
							   revert->source_wf, revert->target_wf),
					  "Register it again with mako_register_workflow(), and revert again.");
	if (status != NULL && strcmp(status, "retired") == 0)
		return refuse("the format version that the stream would go back to is retired",
					  psprintf("Run " INT64_FORMAT " led from \"%s\", and \"%s\" is retired.",
							   revert->run_id, revert->source_wf, version),
					  "Use mako_reactivate(), and revert again.");
	return NULL;
}

/*
 * What stands against one stream; NULL for nothing. later_run is 0 where there is none; replaced:
 * the target has saved a state there.
 */
static ErrorData *
find_obstacle(const Revert *revert, const Candidate *candidate, int64 later_run,
			  bool has_state, bool replaced)
{
	const MakoStream *stream = &candidate->stream;

	if (later_run > 0)
		return refuse("the stream has been migrated again since",
					  psprintf("Run " INT64_FORMAT " came after run " INT64_FORMAT "; the stream "
							   "runs under \"%s\" now.", later_run,
							   revert->run_id, stream->workflow_id),
					  psprintf("Revert run " INT64_FORMAT " first.", later_run));
	if (strcmp(stream->workflow_id, revert->target_wf) != 0)
		return refuse("the stream does not run under the target of the run",
					  psprintf("Run " INT64_FORMAT " led to \"%s\"; "
							   "the stream runs under \"%s\" now.", revert->run_id,
							   revert->target_wf, stream->workflow_id),
					  "Look at the head of the stream in mako.stream: "
					  "nothing but a migration may move it.");
	if (stream->version > candidate->moved_at)
		return refuse("an event came after the migration",
					  psprintf("Run " INT64_FORMAT " migrated the stream at sequence "
							   "number " INT64_FORMAT "; it is at " INT64_FORMAT " now.",
							   revert->run_id, candidate->moved_at, stream->version),
					  "What was written under the new rules cannot be read under the old ones: "
					  "go on from here.");
	if (revert->no_way != NULL)
		return revert->no_way;
	if (!revert->source_folds && !has_state &&
		(replaced || (candidate->snapshot_at > 0 && candidate->snapshot_at == stream->version)))
		return refuse("the state to go back to is lost",
					  psprintf("Workflow \"%s\" has no apply, and its snapshot at sequence "
							   "number " INT64_FORMAT " is not there any more.",
							   revert->source_wf, stream->version),
					  "Let the application write it to mako.snapshot again, "
					  "with run_id 0, and revert again.");
	return NULL;
}

/* ---- one batch ------------------------------------------------------------------------------ */

/*
 * Fetches the next streams of the run, of which there are *fetched, and locks their heads; returns
 * how many have one.
 */
static int
fetch_candidates(MakoCursor *cursor, Candidate **candidates, int *fetched)
{
	MakoRows	rows = mako_cursor_fetch(cursor, mako_batch_size);
	int64	   *numbers = palloc(sizeof(int64) * (rows.count + 1));
	MakoStream *streams = palloc(sizeof(MakoStream) * (rows.count + 1));
	int			count;

	*fetched = (int) rows.count;
	for (int i = 0; i < *fetched; i++)
		numbers[i] = mako_row_bigint(&rows, i, 1);
	count = *fetched == 0 ? 0 : mako_stream_lock_heads(numbers, *fetched, streams);
	*candidates = palloc0(sizeof(Candidate) * (count + 1));
	for (int i = 0, row = 0; i < count; i++)
	{
		while (numbers[row] != streams[i].stream_no)
			row++;
		(*candidates)[i].stream = streams[i];
		(*candidates)[i].snapshot_at = mako_row_bigint(&rows, row, 2);
		(*candidates)[i].moved_at = mako_row_bigint(&rows, row, 3);
	}
	mako_rows_free(&rows);
	return count;
}

/*
 * Looks for what stands against some streams, with a snapshot of after their locks; a row for
 * each, in their order.
 */
static MakoRows
select_obstacles_of(const Revert *revert, const Candidate *candidates, int count)
{
	int64	   *stream_nos = palloc(sizeof(int64) * count);
	int64	   *versions = palloc(sizeof(int64) * count);

	for (int i = 0; i < count; i++)
	{
		stream_nos[i] = candidates[i].stream.stream_no;
		versions[i] = candidates[i].stream.version;
	}
	{
		NullableDatum values[] = {
			mako_bigint_array(stream_nos, count), mako_bigint_array(versions, count),
			mako_bigint(revert->run_id), mako_text(revert->source_wf),
			mako_boolean(!revert->source_folds), mako_text(revert->target_wf)
		};

		return mako_sql_query(&select_obstacles, values);
	}
}

/*
 * Takes some streams back, or reports what stands against it. Of a run that left the heads alone
 * that is only recorded.
 */
static void
take_back(Revert *revert, const Candidate *candidates, int count)
{
	MakoRows	obstacles = {0};
	bool		may_have_some = revert->update_registry &&
		(revert->came_later || !revert->source_folds);

	if (may_have_some)
		obstacles = select_obstacles_of(revert, candidates, count);
	for (int i = 0; i < count; i++)
	{
		const Candidate *candidate = &candidates[i];
		ErrorData  *error = NULL;

		if (revert->update_registry)
		{
			int64		later_run = may_have_some ? mako_row_bigint_or(&obstacles, i, 1, 0) : 0;

			error = find_obstacle(revert, candidate, later_run,
								  may_have_some && mako_row_boolean(&obstacles, i, 2),
								  may_have_some && mako_row_boolean(&obstacles, i, 3));
		}
		if (error != NULL)
			mako_report_error(revert->report, candidate->stream.stream_no,
							  candidate->stream.stream_id, MAKO_PHASE_REGISTRY,
							  candidate->moved_at, error);
		else
			mako_writer_add(revert->writer, &candidate->stream, candidate->snapshot_at, (Datum) 0,
							candidate->moved_at > 0);
	}
	if (may_have_some)
		mako_rows_free(&obstacles);
}

/* Takes back every stream of the run that has not been taken back before. */
static void
take_all_back(Revert *revert)
{
	NullableDatum run_id = mako_bigint(revert->run_id);
	MakoCursor *cursor = mako_cursor_open(&select_streams, &run_id, true);
	int			fetched;

	do
	{
		MemoryContext old;
		Candidate  *candidates;
		int			count;

		MemoryContextReset(revert->batch_context);
		old = MemoryContextSwitchTo(revert->batch_context);
		CHECK_FOR_INTERRUPTS();
		count = fetch_candidates(cursor, &candidates, &fetched);
		if (count > 0)
			take_back(revert, candidates, count);
		MemoryContextSwitchTo(old);
		if (mako_writer_is_full(revert->writer))
			mako_writer_flush(revert->writer);
	} while (fetched == mako_batch_size);
	mako_cursor_close(cursor);
	mako_writer_flush(revert->writer);
	mako_report_save_errors(revert->report);
}

/* ---- the run -------------------------------------------------------------------------------- */

/* Reads the run that is to be undone; an error when that cannot be. */
static void
read_run(Revert *revert)
{
	NullableDatum run_id = mako_bigint(revert->run_id);
	MakoRows	rows = mako_sql_query(&select_run, &run_id);
	const char *kind;

	if (rows.count == 0)
		mako_audit_raise_unknown(revert->run_id);
	kind = mako_row_text(&rows, 0, 1);
	revert->source_wf = mako_row_text(&rows, 0, 2);
	revert->target_wf = mako_row_text(&rows, 0, 3);
	revert->update_registry = mako_row_boolean(&rows, 0, 4);
	if (strcmp(kind, "revert") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("migration run " INT64_FORMAT " cannot be reverted", revert->run_id),
				 errdetail("It has itself taken streams back from \"%s\" to \"%s\".",
						   revert->source_wf, revert->target_wf),
				 errhint("Migrate them again with mako_migrate().")));
	if (strcmp(kind, "attach") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("migration run " INT64_FORMAT " cannot be reverted", revert->run_id),
				 errdetail("It has migrated nothing: it is the states that streams were given "
						   "to start from."),
				 errhint("Give a stream another state with mako_save_snapshot().")));
	revert->finished = mako_row_boolean(&rows, 0, 5);
	mako_rows_free(&rows);
}

/* Opens the run that undoes the other one in the audit trail. */
static int64
start_run(const Revert *revert)
{
	NullableDatum values[] = {
		mako_bigint(revert->run_id), mako_reference(PointerGetDatum(revert->reason)),
		mako_text(mako_extension_version()), mako_timestamptz(revert->report->started_at),
		mako_text(GetUserNameFromId(GetUserId(), false))
	};
	MakoRows	rows = mako_store_query(&insert_run, values);
	int64		run_id;

	if (rows.count != 1)
		mako_sql_raise_swallowed("migration_run", 1);
	run_id = mako_row_bigint(&rows, 0, 1);
	mako_rows_free(&rows);
	return run_id;
}

/* Returns true if a later run may have moved streams of this one on, whose target is locked. */
static bool
is_followed(const Revert *revert)
{
	NullableDatum values[] = {mako_bigint(revert->run_id), mako_text(revert->target_wf)};
	MakoRows	rows = mako_sql_query(&select_later, values);
	bool		followed = mako_row_boolean(&rows, 0, 1);

	mako_rows_free(&rows);
	return followed;
}

/* How many streams the run that is undone has moved, or written snapshots of. */
static int64
count_all(const Revert *revert)
{
	NullableDatum run_id = mako_bigint(revert->run_id);
	MakoRows	rows = mako_sql_query(&count_streams, &run_id);
	int64		count = mako_row_bigint(&rows, 0, 1);

	mako_rows_free(&rows);
	return count;
}

/* Undoes the run. */
static void
revert_run(void *argument)
{
	Revert	   *revert = argument;

	read_run(revert);
	if (revert->update_registry)
		revert->sinks = mako_sinks_of_run(revert->run_id);
	mako_sinks_lock(revert->sinks);
	revert->tally.max_errors = -1;
	revert->report = mako_report_create(revert->target_wf, revert->source_wf, &revert->tally);

	/*
	 * The session that is at a batched run holds its source; once we do, the run can only have
	 * come to its end.
	 */
	if (!revert->finished)
		mako_fence_lock_source(revert->source_wf);
	mako_fence_lock_source(revert->target_wf);
	mako_fence_lock(revert->target_wf);
	mako_fence_lock(revert->source_wf);
	revert->no_way = find_no_way(revert);
	revert->came_later = is_followed(revert);

	revert->destination = (MakoDestination) {
		.report = revert->report,.source_wf = CStringGetTextDatum(revert->target_wf),
		.target_wf = CStringGetTextDatum(revert->source_wf)
		};
	revert->writer = mako_writer_create(&revert->destination, 1, revert->update_registry,
										revert->sinks);
	if (revert->update_registry)
		mako_dependent_check_scope();
	revert->writer->undoes = revert->run_id;
	revert->report->run_id = start_run(revert);
	if (!revert->finished)
		mako_audit_close(revert->run_id, revert->source_wf, revert->report->run_id,
						 "It is reverted.");
	mako_writer_rehearse(revert->writer);
	revert->batch_context = AllocSetContextCreate(CurrentMemoryContext, "mako batch",
												  ALLOCSET_DEFAULT_SIZES);
	take_all_back(revert);
	revert->report->skipped = count_all(revert) - revert->report->migrated - revert->report->failed;
	mako_audit_end(revert->report);
	if (revert->report->migrated > 0)
		mako_sinks_warn_of_rest(revert->sinks);
}

MAKO_FUNCTION(mako_revert);

/* Undoes a run: see the install script. */
Datum
mako_revert(PG_FUNCTION_ARGS)
{
	CommandId	command = GetActiveSnapshot()->curcid;
	Revert		revert = {0};
	MemoryContext context;
	MemoryContext old;
	MakoConnection connection;
	TupleDesc	tupdesc;
	NullableDatum values[MAKO_REPORT_COLUMNS];
	Datum		row;
	char	   *subject;

	mako_call_check("mako_revert");
	mako_require_value(!PG_ARGISNULL(0), "run_id");
	tupdesc = mako_result_type(fcinfo);
	context = AllocSetContextCreate(CurrentMemoryContext, "mako run", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(context);
	revert.run_id = PG_GETARG_INT64(0);
	revert.reason = PG_ARGISNULL(1) ? NULL : PG_GETARG_TEXT_PP(1);
	subject = psprintf(INT64_FORMAT, revert.run_id);
	mako_constraints_check_deferred();
	connection = mako_sql_connect();
	mako_store_check_for_run();
	mako_call_check_once(command, "mako_revert", "run", subject);
	mako_call_run(revert_run, &revert);
	mako_call_remember(command, "mako_revert", subject);
	mako_constraints_defer_again();
	mako_report_columns(revert.report, tupdesc, values);
	mako_sql_disconnect(connection);
	MemoryContextSwitchTo(old);
	row = mako_result_row(tupdesc, values);
	MemoryContextDelete(context);
	PG_RETURN_DATUM(row);
}
