/*
 * verify.c
 *	  mako_verify() and mako_verify_snapshots(): which streams are proven (proof.c), and by whom:
 *	  by workers where a run could have some (shared_rows.c).
 */
#include "inspect/proof.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

/*
 * The streams that a run moved, with their heads. Names are long, and sorted along: where nobody is
 * told any, each is empty.
 */
#define SELECT_MOVED(name, condition) \
	"SELECT m.stream_no, " name ", s.workflow_id, s.version, 1 FROM (" \
	"   SELECT n.stream_no FROM mako.snapshot n" \
	"   WHERE n.run_id OPERATOR(pg_catalog.=) $1" \
	"   UNION SELECT p.stream_no FROM mako.repointed p" \
	"   WHERE p.run_id OPERATOR(pg_catalog.=) $1) m" \
	" LEFT JOIN mako.stream s ON s.stream_no OPERATOR(pg_catalog.=) m.stream_no" \
	" WHERE NOT EXISTS (SELECT FROM mako.reverted v" \
	"   WHERE v.stream_no OPERATOR(pg_catalog.=) m.stream_no" \
	"   AND v.run_id OPERATOR(pg_catalog.=) $1)" condition \
	" ORDER BY m.stream_no"

static MakoStatement select_moved = {
	SELECT_MOVED("s.stream_id", ""), 1, {INT8OID}, true,.way = MAKO_BY_TABLES
};

static MakoStatement select_moved_nameless = {
	SELECT_MOVED("CASE WHEN s.stream_no IS NOT NULL THEN '' END", ""), 1, {INT8OID}, true,
	.way = MAKO_BY_TABLES
};

static MakoStatement select_moved_share = {
	SELECT_MOVED("s.stream_id", " AND " MAKO_IN_SHARE("m.stream_no", "$2", "$3")),
	3, {INT8OID, INT8OID, INT8OID}, true,.way = MAKO_BY_TABLES
};

/* Those of some numbers. */
static MakoStatement select_moved_left = {
	SELECT_MOVED("s.stream_id", " AND m.stream_no OPERATOR(pg_catalog.=) ANY ($2)"),
	2, {INT8OID, INT8ARRAYOID}, true,.way = MAKO_BY_TABLES
};

/* How many of them count as migrated, those of which the move was undone too. */
static MakoStatement count_moved = {
	"SELECT count(*) FROM (SELECT n.stream_no FROM mako.snapshot n"
	"   WHERE n.run_id OPERATOR(pg_catalog.=) $1"
	"   UNION SELECT p.stream_no FROM mako.repointed p"
	"   WHERE p.run_id OPERATOR(pg_catalog.=) $1 AND p.sequence_number OPERATOR(pg_catalog.>) 0) m",
	1, {INT8OID}, true,.way = MAKO_BY_TABLES
};

/* The streams of which an application has saved states under a workflow, with their heads. */
static MakoStatement select_saved_streams = {
	"SELECT m.stream_no, s.stream_id, s.workflow_id, s.version, m.snapshots FROM ("
	"   SELECT n.stream_no, CAST(pg_catalog.count(*) AS integer) AS snapshots FROM mako.snapshot n"
	"   WHERE n.run_id OPERATOR(pg_catalog.=) 0 AND n.workflow_id OPERATOR(pg_catalog.=) $1"
	"   GROUP BY n.stream_no) m"
	" LEFT JOIN mako.stream s ON s.stream_no OPERATOR(pg_catalog.=) m.stream_no"
	" ORDER BY m.stream_no",
	1, {TEXTOID}, true,.way = MAKO_BY_TABLES
};

/* ---- the calls ------------------------------------------------------------------------------ */

/* A run that can be proven. */
static MakoRunRow *
find_run(MakoArchive *archive, int64 run_id)
{
	MakoRunRow *run = mako_archive_run(archive, run_id);

	if (run == NULL)
		mako_audit_raise_unknown(run_id);
	mako_archive_read_details(archive, run);
	if (strcmp(run->kind, "revert") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("run " INT64_FORMAT " undid another one and has no snapshots", run_id),
				 errhint("Verify the run that it undid, or the later ones.")));
	if (run->is_given)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the states of run " INT64_FORMAT " were given", run_id),
				 errdetail("No event tells them, so they cannot be computed again."),
				 errhint("Verify the runs that migrated the streams.")));
	if (!run->finished)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("migration run " INT64_FORMAT " is not finished", run_id),
				 errhint("Verify it when it is; a batched run that was interrupted goes on when it "
						 "is called again, and mako_revert() gives it up.")));
	return run;
}

/*
 * Compares how many streams a run says that it migrated with what it has left. Without an apply, a
 * run that left the heads alone has left nothing of identity migrations.
 */
static void
check_count(const MakoProof *proof)
{
	const MakoRunRow *run = proof->run;
	NullableDatum value = mako_bigint(run->run_id);
	MakoRows	rows;
	int64		found;

	if (!run->update_registry && proof->fold->apply == NULL && proof->fold->plan->identity)
		return;
	rows = mako_sql_query_snapshot(&count_moved, &value);
	found = mako_row_bigint(&rows, 0, 1);
	mako_rows_free(&rows);
	if (found != run->migrated)
	{
		MakoProofFinding finding = {
			-1, "count of migrated streams differs", mako_proof_number(run->migrated),
			mako_proof_number(found)
		};

		mako_proof_add(proof, NULL, &finding, 0);
	}
}

/* Begins a proof in a context of its own below the current one. */
static MakoProof
begin_proof(MakoRowSet *rows)
{
	MakoProof	proof = {.rows = rows};

	MemoryContextSwitchTo(AllocSetContextCreate(CurrentMemoryContext, "mako proof",
												ALLOCSET_DEFAULT_SIZES));
	proof.batch_context = AllocSetContextCreate(CurrentMemoryContext, "mako batch",
												ALLOCSET_DEFAULT_SIZES);
	proof.scratch = AllocSetContextCreate(CurrentMemoryContext, "mako scratch",
										  ALLOCSET_DEFAULT_SIZES);
	proof.replay = mako_replay_create();
	return proof;
}

/* Finds the run that is to be proven, and compiles what it takes. */
static void
take_run(MakoProof *proof, int64 run_id)
{
	(void) mako_door_table("snapshot");
	proof->run = find_run(proof->replay->archive, run_id);
	proof->workflow_id = proof->run->source_wf;
	proof->fold = mako_replay_fold(proof->replay, proof->run->source_wf, proof->run->target_wf);
}

/* Proves the streams of a run. */
static void
prove_run(MakoProof *proof, Oid function)
{
	NullableDatum values[] = {mako_bigint(proof->run->run_id), mako_null()};
	MakoNumbers left;

	check_count(proof);
	if (!mako_proof_is_for_heap_order(proof))
	{
		mako_proof_streams(proof, mako_cursor_open(&select_moved, values, false));
		return;
	}
	left = mako_proof_in_heap_order(proof, mako_cursor_open(&select_moved_nameless, values, false),
									function);
	if (left.count == 0)
		return;
	values[1] = mako_numbers_array(&left);
	mako_proof_streams(proof, mako_cursor_open(&select_moved_left, values, false));
}

/* ---- with workers --------------------------------------------------------------------------- */

/* What a worker does; a MakoSharedWork. */
static int64
prove_share(const void *given, const MakoShare *share, MakoRowSet *rows)
{
	MemoryContext old = CurrentMemoryContext;
	MakoProof	proof = begin_proof(rows);
	NullableDatum values[] = {
		mako_bigint(*(const int64 *) given), mako_bigint(share->number), mako_bigint(share->count)
	};

	take_run(&proof, *(const int64 *) given);
	mako_proof_streams(&proof, mako_cursor_open(&select_moved_share, values, false));
	MemoryContextSwitchTo(old);
	return 0;
}

/* The work of a worker. */
static void
work(MakoWorker *worker)
{
	mako_shared_rows_work(worker, prove_share);
}

PGDLLEXPORT void mako_verify_worker(Datum argument);

/* Its main function. */
void
mako_verify_worker(Datum argument)
{
	mako_worker_main(argument, work);
}

/* Lets workers prove the streams of a run; false where there are none. */
static bool
prove_with_workers(const MakoProof *proof, int wanted, Oid function)
{
	const char *why_not = NULL;
	int			workers = mako_parallel_workers(wanted, proof->run->migrated, &proof->fold, 1,
												&why_not);

	if (workers == 0)
		return false;
	check_count(proof);
	return mako_shared_rows("mako_verify_worker", workers, function, &proof->run->run_id,
							sizeof(int64), proof->rows) >= 0;
}

/* ---- the functions -------------------------------------------------------------------------- */

MAKO_FUNCTION(mako_verify);
MAKO_FUNCTION(mako_verify_snapshots);

/* Computes every snapshot of a run again from the events, and tells what differs. */
Datum
mako_verify(PG_FUNCTION_ARGS)
{
	MemoryContext old = CurrentMemoryContext;
	MakoConnection connection;
	MakoProof	proof;
	const char *why_not;
	int			wanted = mako_workers_wanted(&why_not);

	mako_require_value(!PG_ARGISNULL(0), "run_id");
	proof = begin_proof(mako_rowset_begin(fcinfo));
	connection = mako_sql_connect();
	take_run(&proof, PG_GETARG_INT64(0));
	mako_archive_warn(proof.replay->archive, proof.run, proof.fold->plan);
	if (!prove_with_workers(&proof, wanted, fcinfo->flinfo->fn_oid))
		prove_run(&proof, fcinfo->flinfo->fn_oid);
	mako_sql_disconnect(connection);
	MemoryContextSwitchTo(old);
	PG_RETURN_NULL();
}

/* Computes every state that was saved under a workflow again, and tells what differs. */
Datum
mako_verify_snapshots(PG_FUNCTION_ARGS)
{
	MemoryContext old = CurrentMemoryContext;
	MakoConnection connection;
	MakoProof	proof;
	NullableDatum value;

	mako_require_value(!PG_ARGISNULL(0), "workflow_id");
	proof = begin_proof(mako_rowset_begin(fcinfo));
	proof.workflow_id = TextDatumGetCString(PG_GETARG_DATUM(0));
	connection = mako_sql_connect();
	(void) mako_door_table("snapshot");
	proof.fold = mako_replay_fold(proof.replay, proof.workflow_id, proof.workflow_id);
	mako_fold_require_apply(proof.fold);
	value = mako_text(proof.workflow_id);
	mako_proof_streams(&proof, mako_cursor_open(&select_saved_streams, &value, false));
	mako_sql_disconnect(connection);
	MemoryContextSwitchTo(old);
	PG_RETURN_NULL();
}
