/*
 * history.c
 *	  The states of a stream, computed again: from its events, and through its recorded moves.
 *
 * This is what a migration did, told a second time and without trusting what the first time left
 * behind: at a recorded move the state is folded under the source and taken along the registered
 * path, or, where only what came after the moves is in question, it is the one that the move has
 * stored. Which workflow folds an event, and what becomes of a move that was never recorded, is as
 * in replay.c.
 *
 * Moves are read for many streams at once and live in the current memory context, with the stored
 * states that the caller asks for. A history belongs to one stream; its state is in the memory of
 * the current fold.
 */
#include "fold/fold.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

/* The moves of some streams that stand, with the states of one run or of one workflow. */
static MakoStatement select_marks = {
	"SELECT n.stream_no, n.sequence_number, n.run_id, n.workflow_id, n.state_schema_version,"
	" CASE WHEN n.run_id OPERATOR(pg_catalog.=) $2 OR n.workflow_id OPERATOR(pg_catalog.=) $3 THEN n.state END"
	" FROM mako.snapshot n"
	" WHERE n.stream_no OPERATOR(pg_catalog.=) ANY ($1) AND n.run_id OPERATOR(pg_catalog.>) 0 AND n.reverted_by IS NULL"
	" UNION ALL"
	" SELECT p.stream_no, p.sequence_number, p.run_id, NULL, NULL, NULL FROM mako.repointed p"
	" WHERE p.stream_no OPERATOR(pg_catalog.=) ANY ($1) AND p.reverted_by IS NULL"
	" ORDER BY 1, 2, 3",
	3, {INT8ARRAYOID, INT8OID, TEXTOID}, true
};

static MakoStatement select_run = {
	"SELECT r.kind, r.source_wf, r.target_wf, r.update_registry, r.fingerprint, r.finished_at IS NOT NULL, r.migrated"
	" FROM mako.migration_run r WHERE r.run_id OPERATOR(pg_catalog.=) $1",
	1, {INT8OID}
};

/* A stored state of a stream: the application's own, or that of a run. */
static MakoStatement select_stored = {
	"SELECT n.state FROM mako.snapshot n WHERE n.stream_no OPERATOR(pg_catalog.=) $1"
	" AND n.sequence_number OPERATOR(pg_catalog.=) $2 AND n.run_id OPERATOR(pg_catalog.=) $3 AND n.workflow_id OPERATOR(pg_catalog.=) $4",
	4, {INT8OID, INT8OID, INT8OID, TEXTOID}
};

/* ---- runs and moves ------------------------------------------------------------------------- */

/* What is recorded of a run, in the context of the archive; NULL where there is none. */
MakoRunRow *
mako_history_run(MakoArchive *archive, int64 run_id)
{
	Datum		value = Int64GetDatum(run_id);
	ListCell   *cell;
	MakoRows	rows;
	MakoRunRow *run = NULL;

	foreach(cell, archive->runs)
		if (((MakoRunRow *) lfirst(cell))->run_id == run_id)
			return lfirst(cell);

	rows = mako_sql_query_snapshot(&select_run, &value, NULL);
	if (rows.count > 0)
	{
		MemoryContext old = MemoryContextSwitchTo(archive->context);

		run = palloc0(sizeof(MakoRunRow));
		run->run_id = run_id;
		run->kind = mako_row_text(&rows, 0, 1);
		run->source_wf = mako_row_text(&rows, 0, 2);
		run->target_wf = mako_row_text(&rows, 0, 3);
		run->update_registry = mako_row_boolean(&rows, 0, 4);
		run->fingerprint = mako_row_text(&rows, 0, 5);
		run->finished = mako_row_boolean(&rows, 0, 6);
		run->migrated = mako_row_bigint_or(&rows, 0, 7, 0);
		archive->runs = lappend(archive->runs, run);
		MemoryContextSwitchTo(old);
	}
	mako_rows_free(&rows);
	return run;
}

/* An archive of runs, in the current memory context. */
MakoArchive *
mako_history_archive(void)
{
	MakoArchive *archive = palloc0(sizeof(MakoArchive));

	archive->context = CurrentMemoryContext;
	return archive;
}

/* Warns, once a run, that what is proven is not what ran. */
void
mako_history_warn(MakoRunRow *run, const MakoPlan *plan)
{
	if (run->warned || strcmp(plan->fingerprint, run->fingerprint) == 0)
		return;
	run->warned = true;
	ereport(WARNING,
			(errcode(ERRCODE_WARNING),
			 errmsg("the definitions are not those of migration run " INT64_FORMAT, run->run_id),
			 errdetail("Its fingerprint is %s, that of the definitions of today %s.", run->fingerprint, plan->fingerprint),
			 errhint("A difference may come from the definitions; mako.migration_run has those that ran, as text.")));
}

/*
 * A jsonb as it is stored, copied: a damaged toasted value must fail its own stream, when it is
 * read.
 */
static Datum
copy_stored(Datum value)
{
	const struct varlena *bytes = (const struct varlena *) DatumGetPointer(value);

	return PointerGetDatum(memcpy(palloc(VARSIZE_ANY(bytes)), bytes, VARSIZE_ANY(bytes)));
}

/*
 * Reads the moves of some streams, which are in stream_no order, with the active snapshot; with
 * the stored states of a run, and of a workflow where one is given. Returns where the moves of
 * each begin; there is one more at the end.
 */
MakoRecordedMoves
mako_history_load(MakoArchive *archive, const MakoStream *streams, int count, int64 run_id, const char *workflow_id)
{
	Datum		values[] = {
		mako_stream_numbers(streams, count), Int64GetDatum(run_id),
		workflow_id == NULL ? (Datum) 0 : CStringGetTextDatum(workflow_id)
	};
	MakoRecordedMoves marks;
	MakoRows	rows;
	int			stream = 0;

	rows = mako_sql_query_snapshot(&select_marks, values, workflow_id == NULL ? "  n" : NULL);
	marks.marks = palloc0(sizeof(MakoRecordedMove) * (rows.count + 1));
	marks.first = palloc0(sizeof(int) * (count + 1));

	for (int i = 0; i < (int) rows.count; i++)
	{
		MakoRecordedMove *mark = &marks.marks[i];
		int64		stream_no;
		bool		isnull;
		Datum		schema_version;
		Datum		state;

		stream_no = mako_row_bigint(&rows, i, 1);
		while (streams[stream].stream_no != stream_no)
			marks.first[++stream] = i;
		mark->sequence_number = mako_row_bigint(&rows, i, 2);
		mark->run_id = mako_row_bigint(&rows, i, 3);
		mark->workflow_id = mako_row_text(&rows, i, 4);
		mark->repoints = mark->workflow_id == NULL;
		schema_version = mako_row_value(&rows, i, 5, INT4OID, &isnull);
		mark->state_schema_version = isnull ? 0 : DatumGetInt32(schema_version);
		state = mako_row_value(&rows, i, 6, JSONBOID, &isnull);
		mark->state = isnull ? (Datum) 0 : copy_stored(state);
		mark->run = mako_history_run(archive, mark->run_id);
	}
	while (stream < count)
		marks.first[++stream] = (int) rows.count;
	mako_rows_free(&rows);

	/* A snapshot beside a repointing is a copy of the boundary: the stream moved after it. */
	for (int i = 0; i < count; i++)
		for (int k = marks.first[i]; k < marks.first[i + 1]; k++)
			for (int j = marks.first[i]; j < k; j++)
				if (marks.marks[k].repoints && marks.marks[j].run_id == marks.marks[k].run_id)
					marks.marks[j].is_copy = true;
	return marks;
}

/* ---- one stream ----------------------------------------------------------------------------- */

/* Returns true if the stream moved here, as far as this history is concerned. */
static bool
is_move(const MakoHistory *history, const MakoRecordedMove *mark)
{
	return mark->run != NULL && mark->run->update_registry && !mark->is_copy && mark->run_id < history->before_run;
}

/*
 * The workflow that an event of this one is folded under: where the stream went from there without
 * a snapshot.
 */
static const char *
folding_workflow(const MakoHistory *history, const char *workflow_id, int64 sequence_number)
{
	for (int i = 0; i < history->mark_count; i++)
	{
		const MakoRecordedMove *mark = &history->marks[i];

		if (mark->repoints && is_move(history, mark) && mark->sequence_number >= sequence_number &&
			strcmp(mark->run->source_wf, workflow_id) == 0)
			workflow_id = mark->run->target_wf;
	}
	return workflow_id;
}

/* The workflow that the stream ran under when it moved with a snapshot next, or in the end. */
static const char *
workflow_to_come(const MakoHistory *history, int64 sequence_number)
{
	for (int i = 0; i < history->mark_count; i++)
		if (!history->marks[i].repoints && is_move(history, &history->marks[i]) && history->marks[i].sequence_number >= sequence_number)
			return history->marks[i].run->source_wf;
	return history->final_wf;
}

/* The fold for the events of a workflow. */
static MakoFold *
fold_of(const MakoHistory *history, const char *workflow_id)
{
	return strcmp(history->main->workflow->workflow_id, workflow_id) == 0 ? history->main :
		mako_replay_fold(history->replay, workflow_id, workflow_id);
}

/*
 * Goes on under a workflow, from a state or from an unknown one: (Datum) 0. A workflow whose
 * states are unknown need not be registered.
 */
static void
enter(MakoHistory *history, const char *workflow_id, Datum state)
{
	MakoFold   *fold = state == (Datum) 0 ? NULL : fold_of(history, workflow_id);

	history->workflow_id = workflow_id;
	history->known = fold != NULL;
	history->fold = fold;
	if (fold != NULL)
		mako_fold_begin(fold, state, history->sequence_number);
}

/* Raises that nothing tells a state. */
static void
raise_unknown(const MakoHistory *history)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("workflow \"%s\" has no apply function, and its application's snapshot at sequence number " INT64_FORMAT
					" is not there",
					history->workflow_id, history->sequence_number)));
}

/* Takes the state along the registered path to another workflow; false when it is refused. */
static bool
migrate(MakoHistory *history, const char *target_wf, MakoRunRow *run)
{
	MakoFold   *steps = mako_replay_fold(history->replay, history->workflow_id, target_wf);

	if (run != NULL)
		mako_history_warn(run, steps->plan);
	if (steps != history->fold)
	{
		mako_fold_begin(steps, history->fold->state, history->sequence_number);
		history->fold = steps;
	}
	return mako_fold_migrate(steps);
}

/*
 * Goes to a workflow without a move of its own: by repointings, where the state is the same, or
 * through the registered steps; false when one of those refuses the state.
 */
static bool
go_to(MakoHistory *history, const char *workflow_id)
{
	if (history->workflow_id != NULL && strcmp(history->workflow_id, workflow_id) == 0)
		return true;
	if (history->workflow_id == NULL)
	{
		const MakoFold *fold = fold_of(history, workflow_id);

		enter(history, workflow_id, fold->apply == NULL ? (Datum) 0 : JsonbPGetDatum(fold->workflow->initial_state));
	}
	else if (!history->known)
		enter(history, workflow_id, (Datum) 0);
	else
	{
		if (strcmp(folding_workflow(history, history->workflow_id, 0), workflow_id) != 0 && !migrate(history, workflow_id, NULL))
			return false;
		enter(history, workflow_id, history->fold->state);
	}
	return true;
}

/*
 * A stored state under a workflow at this point: the application's, or that of a run; (Datum) 0
 * without one.
 */
static Datum
read_stored(const MakoHistory *history, const char *workflow_id, int64 run_id)
{
	Datum		values[] = {
		Int64GetDatum(history->stream->stream_no), Int64GetDatum(history->sequence_number), Int64GetDatum(run_id),
		CStringGetTextDatum(workflow_id)
	};
	MakoRows	rows = mako_sql_query_snapshot(&select_stored, values, NULL);
	Datum		state = (Datum) 0;

	if (rows.count > 0)
		state = JsonbPGetDatum(DatumGetJsonbPCopy(mako_row_jsonb(&rows, 0, 1)));
	mako_rows_free(&rows);
	return state;
}

/* Follows one recorded move with a snapshot; false when the state is refused. */
static bool
follow(MakoHistory *history, const MakoRecordedMove *mark)
{
	MakoRunRow *run = mark->run;

	if (history->trusts_moves)
	{
		/* Only the states under one workflow are wanted, and those are known. */
		enter(history, run->target_wf, mark->state);
		return true;
	}
	if (!go_to(history, run->source_wf))
		return false;
	if (!history->known)
		enter(history, run->source_wf, read_stored(history, run->source_wf, 0));
	if (history->known)
	{
		if (!migrate(history, run->target_wf, run))
			return false;
		enter(history, run->target_wf, history->fold->state);
		return true;
	}

	/*
	 * Nothing but the application could compute the state, and its own is gone: what the run made
	 * of it is all that there is.
	 */
	enter(history, run->target_wf, read_stored(history, run->target_wf, run->run_id));
	return true;
}

/* Begins with a stream from its first event, or after a stored state; see MakoHistory. */
void
mako_history_begin(MakoHistory *history, const MakoRecordedMove *from)
{
	history->sequence_number = from == NULL ? 0 : from->sequence_number;
	history->next_mark = from == NULL ? 0 : (int) (from - history->marks) + 1;
	history->workflow_id = NULL;
	history->fold = NULL;
	history->known = false;
	if (from != NULL)
		enter(history, from->workflow_id, from->state);
}

/* Tells what the stream looks like now. */
static void
tell(const MakoHistory *history)
{
	if (history->visit != NULL)
		history->visit(history->argument, history);
}

/* Folds the next event; false when it is refused. */
static bool
take_event(MakoHistory *history, const MakoEvent *event)
{
	const char *written_under = NULL;
	const char *workflow_id;

	/* Before the stream goes anywhere: the state is none after a gap. */
	mako_replay_check_next(history->stream, history->sequence_number + 1, event);
	/* Nearly always it is the current workflow, which no text has to be made for. */
	if (history->workflow_id == NULL || !mako_replay_written_under(event, history->workflow_id))
		written_under = TextDatumGetCString(event->workflow_id);
	workflow_id = folding_workflow(history, written_under != NULL ? written_under : history->workflow_id, event->sequence_number);
	if ((history->workflow_id == NULL ||
		 (workflow_id != history->workflow_id && strcmp(workflow_id, history->workflow_id) != 0 &&
		  (strcmp(history->workflow_id, workflow_to_come(history, event->sequence_number)) != 0 ||
		   mako_replay_may_have_returned(history->workflow_id, workflow_id)))) &&
		!go_to(history, workflow_id))
		return false;

	history->known = history->known && history->fold->apply != NULL;
	if (history->known && !mako_fold_event(history->fold, event))
		return false;
	history->main->phase = MAKO_PHASE_LOAD;
	history->sequence_number = event->sequence_number;
	return true;
}

/*
 * Goes on to a sequence number, and through the moves there; false when something on the way is
 * refused, which the main fold knows then. The reader is at the event after the one folded last.
 * Calls back after every event and every move, and at the beginning.
 */
bool
mako_history_until(MakoHistory *history, MakoReader *reader, int64 sequence_number)
{
	for (;;)
	{
		const MakoEvent *event;

		tell(history);
		while (history->next_mark < history->mark_count && history->marks[history->next_mark].sequence_number <= history->sequence_number)
		{
			const MakoRecordedMove *mark = &history->marks[history->next_mark++];

			if (mark->repoints || !is_move(history, mark))
				continue;
			if (!follow(history, mark))
				return false;
			tell(history);
		}
		if (history->sequence_number >= sequence_number)
			return true;

		CHECK_FOR_INTERRUPTS();
		event = mako_stream_next_event(reader, history->stream->stream_no);
		if (event == NULL)
			mako_replay_check_end(history->stream, history->sequence_number + 1);
		history->main->sequence_number = event->sequence_number;
		history->is_source = mako_replay_written_under(event, history->final_wf);
		if (!take_event(history, event))
			return false;
	}
}

/*
 * Goes to the workflow where the stream was in the end, with its state; where only the application
 * knows that, with its snapshot. False when a step on the way refuses the state.
 */
bool
mako_history_finish(MakoHistory *history)
{
	if (!go_to(history, history->final_wf))
		return false;
	if (!history->known)
		enter(history, history->final_wf, read_stored(history, history->final_wf, 0));
	if (!history->known)
		raise_unknown(history);
	return true;
}

/* Takes the state to the target of the main fold; false when it is refused. */
bool
mako_history_migrate(MakoHistory *history)
{
	if (history->fold != history->main)
		enter(history, history->final_wf, history->fold->state);
	return mako_fold_migrate(history->main);
}
