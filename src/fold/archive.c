/*
 * archive.c
 *	  What is recorded of runs, and of the moves of streams.
 *
 * Moves are read for many streams at once and live in the current memory context, with the stored
 * states that the caller asks for. Runs live in the context of the archive.
 */
#include "fold/fold.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

/*
 * The moves of some streams that stand, in their order, with the states of one run (or of all: a
 * negative number), and of one workflow: of those in a range, or each stream looked up.
 */
#define MARKS(is_asked_for, stands) \
	"SELECT m.stream_no, m.sequence_number, m.run_id, m.workflow_id, m.state_schema_version," \
	" CASE WHEN $2 OPERATOR(pg_catalog.<) 0 OR m.run_id OPERATOR(pg_catalog.=) $2" \
	"  OR m.workflow_id OPERATOR(pg_catalog.=) $3" \
	"  OR m.run_id OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT r.run_id FROM mako.migration_run r" \
	"   WHERE r.source_wf OPERATOR(pg_catalog.=) r.target_wf)) THEN m.state END" \
	" FROM mako.snapshot m WHERE " is_asked_for \
	" AND m.run_id OPERATOR(pg_catalog.>) 0 AND " stands \
	" UNION ALL" \
	" SELECT m.stream_no, m.sequence_number, m.run_id, NULL, NULL, NULL FROM mako.repointed m" \
	" WHERE " is_asked_for " AND " stands
#define IN_RANGE \
	"m.stream_no OPERATOR(pg_catalog.>=) $1 AND m.stream_no OPERATOR(pg_catalog.<=) $4"

static MakoStatement select_marks = {
	MARKS(IN_RANGE, MAKO_STANDS_BETWEEN("m", "$1", "$4")) " ORDER BY 1, 2, 3",
	4, {INT8OID, INT8OID, TEXTOID, INT8OID}, true,.way = MAKO_BY_TABLES
};

static MakoStatement select_marks_apart = {
	MAKO_FOR_EACH MARKS("m.stream_no OPERATOR(pg_catalog.=) o.stream_no", MAKO_STANDS("m"))
	MAKO_END_EACH " ORDER BY 1, 2, 3",
	3, {INT8ARRAYOID, INT8OID, TEXTOID}, true
};

/* What a run did to a stream: a role that reads histories may read no more of it. */
static MakoStatement select_run = {
	"SELECT r.source_wf, r.target_wf, r.update_registry,"
	" r.source_wf OPERATOR(pg_catalog.=) r.target_wf"
	" FROM mako.migration_run r WHERE r.run_id OPERATOR(pg_catalog.=) $1",
	1, {INT8OID}
};

static MakoStatement select_details = {
	"SELECT r.kind, r.fingerprint, r.finished_at IS NOT NULL, r.migrated"
	" FROM mako.migration_run r WHERE r.run_id OPERATOR(pg_catalog.=) $1",
	1, {INT8OID}
};

/* Whether runs have taken streams from one workflow to another and back. */
static MakoStatement select_return = {
	"SELECT pg_catalog.count(DISTINCT r.source_wf) OPERATOR(pg_catalog.=) 2"
	" FROM mako.migration_run r"
	" WHERE r.update_registry AND r.migrated OPERATOR(pg_catalog.>) 0"
	" AND r.kind OPERATOR(pg_catalog.<>) 'revert'"
	" AND (r.source_wf OPERATOR(pg_catalog.=) $1 AND r.target_wf OPERATOR(pg_catalog.=) $2"
	"  OR r.source_wf OPERATOR(pg_catalog.=) $2 AND r.target_wf OPERATOR(pg_catalog.=) $1)",
	2, {TEXTOID, TEXTOID}
};

/* What is recorded of a run, in the context of the archive; NULL where there is none. */
MakoRunRow *
mako_archive_run(MakoArchive *archive, int64 run_id)
{
	NullableDatum value = mako_bigint(run_id);
	ListCell   *cell;
	MakoRows	rows;
	MakoRunRow *run = NULL;

	foreach(cell, archive->runs)
		if (((MakoRunRow *) lfirst(cell))->run_id == run_id)
			return lfirst(cell);

	rows = mako_sql_query_snapshot(&select_run, &value);
	if (rows.count > 0)
	{
		MemoryContext old = MemoryContextSwitchTo(archive->context);

		run = palloc0(sizeof(MakoRunRow));
		run->run_id = run_id;
		run->source_wf = mako_row_text(&rows, 0, 1);
		run->target_wf = mako_row_text(&rows, 0, 2);
		run->update_registry = mako_row_boolean(&rows, 0, 3);
		run->is_given = mako_row_boolean(&rows, 0, 4);
		archive->runs = lappend(archive->runs, run);
		MemoryContextSwitchTo(old);
	}
	mako_rows_free(&rows);
	return run;
}

/* Reads the rest of a run's row, unless it was read before. */
void
mako_archive_read_details(MakoArchive *archive, MakoRunRow *run)
{
	NullableDatum value = mako_bigint(run->run_id);
	MakoRows	rows;
	MemoryContext old;

	if (run->kind != NULL)
		return;
	rows = mako_sql_query_snapshot(&select_details, &value);
	old = MemoryContextSwitchTo(archive->context);
	run->fingerprint = mako_row_text(&rows, 0, 2);
	run->finished = mako_row_boolean(&rows, 0, 3);
	run->migrated = mako_row_bigint_or(&rows, 0, 4, 0);
	run->kind = mako_row_text(&rows, 0, 1);
	MemoryContextSwitchTo(old);
	mako_rows_free(&rows);
}

/* An archive of runs, in the current memory context. */
MakoArchive *
mako_archive_create(void)
{
	MakoArchive *archive = palloc0(sizeof(MakoArchive));

	archive->context = CurrentMemoryContext;
	return archive;
}

/* Warns, once a run, that what is proven is not what ran. */
void
mako_archive_warn(MakoArchive *archive, MakoRunRow *run, const MakoPlan *plan)
{
	mako_archive_read_details(archive, run);
	if (run->warned || strcmp(plan->fingerprint, run->fingerprint) == 0)
		return;
	run->warned = true;
	ereport(WARNING,
			(errcode(ERRCODE_WARNING),
			 errmsg("the definitions are not those of migration run " INT64_FORMAT, run->run_id),
			 errdetail("Its fingerprint is %s, that of the definitions of today %s.",
					   run->fingerprint, plan->fingerprint),
			 errhint("A difference may come from the definitions; "
					 "mako.migration_run has those that ran, as text.")));
}

/*
 * Reads the moves of some streams, which are in stream_no order, with the active snapshot; with
 * the stored states of a run or of MAKO_ALL_RUNS, and of a workflow where one is given. Returns
 * where the moves of each begin; there is one more at the end.
 */
MakoRecordedMoves
mako_archive_moves(MakoArchive *archive, const MakoStream *streams, int count, int64 run_id,
				   const char *workflow_id)
{
	bool		is_dense = count > 1 && mako_streams_are_dense(streams, count);
	NullableDatum values[] = {
		is_dense ? mako_bigint(streams[0].stream_no) : mako_stream_numbers(streams, count),
		mako_bigint(run_id), mako_text(workflow_id), mako_bigint(streams[count - 1].stream_no)
	};
	MakoRecordedMoves marks;
	MakoRows	rows;
	int			stream = 0;
	int			found = 0;

	rows = mako_sql_query_snapshot(is_dense ? &select_marks : &select_marks_apart, values);
	marks.marks = palloc0(sizeof(MakoRecordedMove) * (rows.count + 1));
	marks.first = palloc0(sizeof(int) * (count + 1));

	for (uint64 i = 0; i < rows.count; i++)
	{
		MakoRecordedMove *mark = &marks.marks[found];
		int64		stream_no = mako_row_bigint(&rows, i, 1);
		NullableDatum state;

		while (streams[stream].stream_no < stream_no)
			marks.first[++stream] = found;
		/* A range has others, too. */
		if (streams[stream].stream_no != stream_no)
			continue;
		state = mako_row_value(&rows, i, 6, JSONBOID);
		found++;
		mark->sequence_number = mako_row_bigint(&rows, i, 2);
		mark->run_id = mako_row_bigint(&rows, i, 3);
		mark->workflow_id = mako_row_text(&rows, i, 4);
		mark->repoints = mark->workflow_id == NULL;
		mark->state_schema_version = DatumGetInt32(mako_row_value(&rows, i, 5, INT4OID).value);
		mark->state = state.isnull ? (Datum) 0 : mako_copy_stored(state.value);
		mark->run = mako_archive_run(archive, mark->run_id);
	}
	while (stream < count)
		marks.first[++stream] = found;
	mako_rows_free(&rows);

	/* A snapshot beside a repointing is a copy of the boundary: the stream moved after it. */
	for (int i = 0; i < count; i++)
		for (int k = marks.first[i]; k < marks.first[i + 1]; k++)
			for (int j = marks.first[i]; j < k; j++)
				if (marks.marks[k].repoints && marks.marks[j].run_id == marks.marks[k].run_id)
					marks.marks[j].is_copy = true;
	return marks;
}

/*
 * The state that a stream was given to start from, because its first events are not there; NULL for
 * none.
 */
const MakoRecordedMove *
mako_archive_given(const MakoRecordedMove *marks, int count)
{
	return count > 0 && marks[0].run != NULL && marks[0].run->is_given ? &marks[0] : NULL;
}

/* Returns true if a stream can have left a workflow for another one and come back. */
bool
mako_archive_may_have_returned(const char *workflow_id, const char *other)
{
	NullableDatum values[] = {mako_text(workflow_id), mako_text(other)};
	MakoRows	rows = mako_sql_query_snapshot(&select_return, values);
	bool		returned = mako_row_boolean(&rows, 0, 1);

	mako_rows_free(&rows);
	return returned;
}
