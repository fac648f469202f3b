/*
 * proof.c
 *	  Proofs: what runs have stored, and what applications have stored, against what the events say.
 *
 * Streams come in batches of a cursor, each with its recorded moves, and are computed again by
 * history.c; batch.c isolates what fails alone. Nothing is locked or written, and everything is
 * read with one snapshot, so what others append meanwhile does not matter. What is found of a
 * stream becomes rows when the stream is done. A batch's memory is in a context of its own, which
 * is reset for the next.
 */
#include "inspect/proof.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"

/*
 * What they have saved, and whether it is the state that a migration gave which was undone since.
 */
static MakoStatement select_saved = {
	MAKO_FOR_EACH
	" SELECT n.stream_no, n.sequence_number, n.state_schema_version, n.state,"
	" EXISTS (SELECT FROM mako.snapshot u"
	"   WHERE u.stream_no OPERATOR(pg_catalog.=) n.stream_no"
	"   AND u.sequence_number OPERATOR(pg_catalog.=) n.sequence_number"
	"   AND " MAKO_IS_UNDONE("u") " AND u.workflow_id OPERATOR(pg_catalog.=) n.workflow_id"
	"   AND u.run_id OPERATOR(pg_catalog.>) 0 AND u.state OPERATOR(pg_catalog.=) n.state)"
	" FROM mako.snapshot n"
	" WHERE n.stream_no OPERATOR(pg_catalog.=) o.stream_no AND n.run_id OPERATOR(pg_catalog.=) 0"
	" AND n.workflow_id OPERATOR(pg_catalog.=) $2 ORDER BY n.sequence_number" MAKO_END_EACH,
	2, {INT8ARRAYOID, TEXTOID}, true
};

/* The states of a stream that are older than the snapshot of a run. */
static MakoStatement select_earlier = {
	"SELECT n.sequence_number, n.workflow_id, n.state FROM mako.snapshot n"
	" WHERE n.stream_no OPERATOR(pg_catalog.=) $1 AND n.sequence_number OPERATOR(pg_catalog.<=) $2"
	" AND n.run_id OPERATOR(pg_catalog.<) $3 AND " MAKO_STANDS("n")
	" ORDER BY n.sequence_number, n.run_id",
	3, {INT8OID, INT8OID, INT8OID}
};

/* Under which workflows the events before and after a move were written. */
static MakoStatement select_sides = {
	"SELECT (SELECT v.workflow_id FROM mako.event v WHERE v.stream_no OPERATOR(pg_catalog.=) $1"
	"  AND v.sequence_number OPERATOR(pg_catalog.=) $2),"
	" (SELECT v.workflow_id FROM mako.event v WHERE v.stream_no OPERATOR(pg_catalog.=) $1"
	"  AND v.sequence_number OPERATOR(pg_catalog.=) ($2 OPERATOR(pg_catalog.+) 1))",
	2, {INT8OID, INT8OID}
};

/* What may be wrong, as users see it; errors follow a colon. */
#define STATE_DIFFERS "state differs"
#define SCHEMA_VERSION_DIFFERS "state schema version differs"
#define WORKFLOW_DIFFERS "workflow differs"
#define BEYOND_HEAD "beyond the head"
#define MISPLACED "not where the workflow changed"
#define OTHER_HEAD "the head is under another workflow"
#define NO_HEAD "there is no head"
#define NEVER_THERE "the stream was not under the workflow there"
#define NO_EVENTS "events missing or damaged"
#define NOT_COMPUTED "cannot be recomputed"

/* A state that an application has saved. */
typedef struct Saved
{
	int64		sequence_number;
	const char *workflow_id;
	int			state_schema_version;
	Datum		state;			/* as it is stored */
	bool		is_undone;		/* of a migration that was undone since */
	bool		met;			/* the stream was there, under the workflow */
	MakoProofFinding *difference;	/* noted; NULL while there is none */
} Saved;

/* What is known of a stream beside its head. */
typedef struct MakoProofMember
{
	const MakoRecordedMove *marks;
	int			mark_count;
	const MakoRecordedMove *snapshot;	/* of the run; NULL without one, like the next two */
	const MakoRecordedMove *repointing;
	const MakoRecordedMove *start;	/* the moves before this one are taken as they are */
	Saved	   *saved;
	int			saved_count;
	List	   *findings;
	int64		differs_from;	/* 0: nothing differs */
	bool		sides_known;
} MakoProofMember;

typedef MakoProofMember Member;

/* ---- what is found -------------------------------------------------------------------------- */

/* Adds a row. */
void
mako_proof_add(const MakoProof *proof, const char *stream_id, const MakoProofFinding *finding,
			   int64 differs_from)
{
	NullableDatum values[] = {
		mako_text(stream_id),
		mako_unless(finding->sequence_number < 0, mako_bigint(finding->sequence_number)),
		mako_text(finding->problem), mako_reference(finding->stored),
		mako_reference(finding->computed), mako_unless(differs_from == 0, mako_bigint(differs_from))
	};

	mako_rowset_add(proof->rows, values);
}

/* Notes what is wrong with a stream; the values are copied. */
static MakoProofFinding *
note(const MakoProof *proof, Member *member, int64 sequence_number, const char *problem,
	 Datum stored, Datum computed)
{
	MemoryContext old = MemoryContextSwitchTo(proof->batch_context);
	MakoProofFinding *finding = palloc(sizeof(MakoProofFinding));

	*finding = (MakoProofFinding) {sequence_number, problem};
	if (stored != (Datum) 0)
		finding->stored = JsonbPGetDatum(DatumGetJsonbPCopy(stored));
	if (computed != (Datum) 0)
		finding->computed = JsonbPGetDatum(DatumGetJsonbPCopy(computed));
	member->findings = lappend(member->findings, finding);
	MemoryContextSwitchTo(old);
	return finding;
}

/* A number as jsonb, in the current memory context. */
Datum
mako_proof_number(int64 number)
{
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(psprintf(INT64_FORMAT, number)));
}

/* A text as jsonb. */
static Datum
json_text(const char *string)
{
	JsonbValue	value = {.type = jbvString};

	value.val.string.val = unconstify(char *, string);
	value.val.string.len = (int) strlen(string);
	return JsonbPGetDatum(JsonbValueToJsonb(&value));
}

/* Adds the rows of a stream that is done. */
static void
add_findings(const MakoProof *proof, const MakoStream *stream, Member *member)
{
	ListCell   *cell;

	for (int i = 0; i < member->saved_count && member->differs_from == 0; i++)
		if (member->saved[i].difference != NULL)
			member->differs_from = member->saved[i].sequence_number;
	foreach(cell, member->findings)
	{
		const MakoProofFinding *finding = lfirst(cell);

		mako_proof_add(proof, stream->stream_id, finding,
					   strcmp(finding->problem, STATE_DIFFERS) == 0 ? member->differs_from : 0);
	}
	member->findings = NIL;
}

/*
 * Returns true if a stored state is the same as a computed one. Nearly always their bytes are,
 * which is found out fastest. Gives both as flat values in the scratch context.
 */
static bool
is_same(const MakoProof *proof, Datum stored, Datum computed, Datum *flat_stored,
		Datum *flat_computed)
{
	MemoryContext old = MemoryContextSwitchTo(proof->scratch);
	Jsonb	   *a = DatumGetJsonbP(stored);
	Jsonb	   *b = DatumGetJsonbP(computed);

	MemoryContextSwitchTo(old);
	*flat_stored = JsonbPGetDatum(a);
	*flat_computed = JsonbPGetDatum(b);
	if (VARSIZE(a) == VARSIZE(b) && memcmp(a, b, VARSIZE(a)) == 0)
		return true;
	/* Equal numbers may be written differently. */
	return compareJsonbContainers(&a->root, &b->root) == 0;
}

/* Compares a state, and notes it if it differs; NULL if it does not. */
static MakoProofFinding *
compare_state(const MakoProof *proof, Member *member, int64 sequence_number, Datum stored,
			  Datum computed)
{
	Datum		flat_stored;
	Datum		flat_computed;

	if (is_same(proof, stored, computed, &flat_stored, &flat_computed))
		return NULL;
	return note(proof, member, sequence_number, STATE_DIFFERS, flat_stored, flat_computed);
}

/* ---- the snapshots of a run ----------------------------------------------------------------- */

/* Where the stream moved. */
static int64
place_of(const Member *member)
{
	return member->repointing != NULL ? member->repointing->sequence_number :
		member->snapshot->sequence_number;
}

/* Which number its rows show: that of the snapshot, if there is one. */
static int64
number_of(const Member *member)
{
	return member->snapshot != NULL ? member->snapshot->sequence_number :
		member->repointing->sequence_number;
}

/* Returns true if another run, before this one or later, has moved the stream at the same place. */
static bool
has_neighbour(const MakoProof *proof, const Member *member, bool later)
{
	for (int i = 0; i < member->mark_count; i++)
	{
		const MakoRecordedMove *mark = &member->marks[i];

		if (mark->run != NULL && mark->run->update_registry &&
			!mark->is_copy && mark->sequence_number == place_of(member) &&
			(later ? mark->run_id > proof->run->run_id : mark->run_id < proof->run->run_id))
			return true;
	}
	return false;
}

/* Returns true if the stream has moved on since. */
static bool
has_moved_on(const MakoProof *proof, const Member *member)
{
	for (int i = 0; i < member->mark_count; i++)
		if (member->marks[i].run != NULL && member->marks[i].run->update_registry &&
			member->marks[i].run_id > proof->run->run_id)
			return true;
	return false;
}

/*
 * Notes a move that is not where the workflow changed; before and after tell whether the event
 * before it is the source's, and the one after it the target's.
 */
static void
check_sides(const MakoProof *proof, Member *member, bool before, bool after)
{
	const MakoRunRow *run = proof->run;

	member->sides_known = true;
	before = before || place_of(member) == 0 || has_neighbour(proof, member, false);
	after = after || !run->update_registry || has_neighbour(proof, member, true);
	if (!before || !after)
		note(proof, member, number_of(member), MISPLACED, (Datum) 0, (Datum) 0);
}

/*
 * Checks what a run has left with a stream, as far as no event is needed; false when the events
 * cannot tell more.
 */
static bool
check_marks(const MakoProof *proof, const MakoStream *stream, Member *member)
{
	const MakoRunRow *run = proof->run;
	const MakoWorkflow *target = proof->fold->plan->workflows[proof->fold->plan->steps];
	const MakoRecordedMove *snapshot = member->snapshot;

	/*
	 * Where it took a boundary along, the stream moved after that; what is damaged may say
	 * otherwise.
	 */
	int64		last = Max(place_of(member), number_of(member));

	if (last > stream->version)
	{
		note(proof, member, number_of(member), BEYOND_HEAD, mako_proof_number(last),
			 mako_proof_number(stream->version));
		return false;
	}
	if (snapshot != NULL && strcmp(snapshot->workflow_id, run->target_wf) != 0)
		note(proof, member, number_of(member), WORKFLOW_DIFFERS, json_text(snapshot->workflow_id),
			 json_text(run->target_wf));
	if (snapshot != NULL && snapshot->state_schema_version != target->state_schema_version)
		note(proof, member, number_of(member), SCHEMA_VERSION_DIFFERS,
			 mako_proof_number(snapshot->state_schema_version),
			 mako_proof_number(target->state_schema_version));
	/* A stream moves once in a run. */
	for (int i = 0; i < member->mark_count; i++)
		if (member->marks[i].run_id == run->run_id && !member->marks[i].repoints &&
			&member->marks[i] != snapshot)
			note(proof, member, member->marks[i].sequence_number, MISPLACED, (Datum) 0, (Datum) 0);
	if (run->update_registry && !has_moved_on(proof, member) &&
		strcmp(stream->workflow_id, run->target_wf) != 0)
		note(proof, member, number_of(member), OTHER_HEAD, json_text(stream->workflow_id),
			 json_text(run->target_wf));
	return true;
}

/* The history of a stream up to the run. */
static MakoHistory
retrace_of(const MakoProof *proof, const MakoStream *stream, const Member *member)
{
	MakoHistory history = {
		.replay = proof->replay,.main = proof->fold,.stream = stream,
		.marks = member->marks,.mark_count = member->mark_count,
		.before_run = proof->run != NULL ? proof->run->run_id : PG_INT64_MAX,
		.final_wf = proof->run != NULL ? proof->run->source_wf : stream->workflow_id,
		.trusts_moves = proof->run == NULL
	};

	return history;
}

/* Earlier states of a stream, to be compared on its way. */
typedef struct Earlier
{
	const MakoProof *proof;
	Saved	   *saved;
	int			count;
	int64		differs_from;	/* 0: nothing differs */
} Earlier;

/* Compares the earlier states at this point; a MakoMomentCallback. */
static void
visit_earlier(void *argument, const MakoMoment *moment)
{
	Earlier    *earlier = argument;

	for (int i = 0; i < earlier->count && moment->state != (Datum) 0 && earlier->differs_from == 0;
		 i++)
	{
		const Saved *saved = &earlier->saved[i];
		Datum		stored;
		Datum		computed;

		if (saved->sequence_number == moment->sequence_number &&
			strcmp(saved->workflow_id, moment->workflow_id) == 0 &&
			!is_same(earlier->proof, saved->state, moment->state, &stored, &computed))
			earlier->differs_from = moment->sequence_number;
	}
}

/*
 * Finds the first sequence number at which a stream's stored states part from the computed ones;
 * if none is before the snapshot's, it is that. Returns false if the stream is refused.
 */
static bool
find_difference(const MakoProof *proof, const MakoStream *stream, Member *member)
{
	int64		last = member->snapshot->sequence_number;
	NullableDatum values[] = {
		mako_bigint(stream->stream_no), mako_bigint(last), mako_bigint(proof->run->run_id)
	};
	MakoRows	rows = mako_sql_query_snapshot(&select_earlier, values);
	Earlier		earlier = {proof, palloc0(sizeof(Saved) * (rows.count + 1)), (int) rows.count};
	MakoHistory history = retrace_of(proof, stream, member);
	bool		accepted = true;

	for (int i = 0; i < earlier.count; i++)
	{
		earlier.saved[i].sequence_number = mako_row_bigint(&rows, i, 1);
		earlier.saved[i].workflow_id = mako_row_text(&rows, i, 2);
		earlier.saved[i].state = mako_row_value(&rows, i, 3, JSONBOID).value;
	}
	if (earlier.count > 0)
	{
		MakoReader *reader = mako_stream_open_events(stream, 1, NULL);

		history.visit = visit_earlier;
		history.argument = &earlier;
		mako_history_begin(&history, member->start);
		accepted = mako_history_until(&history, reader, last);
		mako_stream_close_events(reader);
	}
	mako_rows_free(&rows);
	member->differs_from = earlier.differs_from != 0 ? earlier.differs_from : last;
	return accepted;
}

/* Computes the snapshot of a run again and compares it; false when that is refused. */
static bool
check_snapshot(const MakoProof *proof, const MakoStream *stream, Member *member,
			   MakoHistory *history, MakoReader *reader)
{
	if (!mako_history_until(history, reader, member->snapshot->sequence_number) ||
		!mako_history_finish(history))
		return false;
	/* A copy of the boundary went along as it was. */
	if (member->repointing == NULL && !mako_history_migrate(history))
		return false;
	return compare_state(proof, member, member->snapshot->sequence_number, member->snapshot->state,
						 history->fold->state) == NULL ||
		find_difference(proof, stream, member);
}

/*
 * Reads on to the event after the move, and checks under which workflows the events there were
 * written.
 */
static void
check_place(const MakoProof *proof, const MakoStream *stream, Member *member, MakoHistory *history,
			MakoReader *reader)
{
	int64		place = place_of(member);
	int64		number = history->sequence_number;
	const MakoEvent *event;
	bool		before = history->is_source;

	/* Nothing is folded on the way to a repointing: the state there is not stored. */
	while ((event = mako_stream_next_event(reader, stream->stream_no)) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		mako_expect_next(stream, ++number, event);
		if (number > place)
			break;
		before = mako_event_written_under(event, proof->run->source_wf);
	}
	if (event == NULL)
		mako_expect_end(stream, number + 1);
	check_sides(proof, member, before,
				event == NULL || mako_event_written_under(event, proof->run->target_wf));
}

/* Checks what a run has left with a stream; false when that is refused. */
static bool
check_moved(const MakoProof *proof, const MakoStream *stream, Member *member, MakoReader *reader)
{
	MakoHistory history = retrace_of(proof, stream, member);

	if (!check_marks(proof, stream, member))
		return true;
	mako_history_begin(&history, member->start);
	if (member->snapshot != NULL && !check_snapshot(proof, stream, member, &history, reader))
		return false;
	check_place(proof, stream, member, &history, reader);
	return true;
}

/* Checks the sides of a move whose stream has failed before its events were read that far. */
static void
check_unread_sides(const MakoProof *proof, const MakoStream *stream, Member *member)
{
	NullableDatum values[] = {mako_bigint(stream->stream_no), mako_bigint(place_of(member))};
	MakoRows	rows = mako_sql_query_snapshot(&select_sides, values);
	const char *before = mako_row_text(&rows, 0, 1);
	const char *after = mako_row_text(&rows, 0, 2);

	check_sides(proof, member, before == NULL || strcmp(before, proof->run->source_wf) == 0,
				after == NULL || strcmp(after, proof->run->target_wf) == 0);
	mako_rows_free(&rows);
}

/* ---- the states of applications ------------------------------------------------------------- */

/* What the visitor of a stream's saved states needs. */
typedef struct Visit
{
	const MakoProof *proof;
	Member	   *member;
} Visit;

/*
 * Compares the saved states at this point; a MakoMomentCallback. A stream that left the workflow
 * and came back without an event in between had two states there, and it is not known which of
 * them was saved.
 */
static void
visit_saved(void *argument, const MakoMoment *moment)
{
	const Visit *visit = argument;
	Member	   *member = visit->member;

	if (moment->state == (Datum) 0 || strcmp(moment->workflow_id, visit->proof->workflow_id) != 0)
		return;
	for (int i = 0; i < member->saved_count; i++)
	{
		Saved	   *saved = &member->saved[i];

		if (saved->sequence_number != moment->sequence_number ||
			(saved->met && saved->difference == NULL))
			continue;
		saved->met = true;
		if (saved->difference != NULL)
			member->findings = list_delete_ptr(member->findings, saved->difference);
		saved->difference = compare_state(visit->proof, member, saved->sequence_number,
										  saved->state, moment->state);
	}
}

/* Checks what an application has saved of a stream; false when that is refused. */
static bool
check_saved(const MakoProof *proof, const MakoStream *stream, Member *member, MakoReader *reader)
{
	const MakoFold *fold = proof->fold;
	int			state_schema_version = fold->workflow->state_schema_version;
	Visit		visit = {proof, member};
	MakoHistory history = retrace_of(proof, stream, member);
	int64		last = 0;

	for (int i = 0; i < member->saved_count; i++)
	{
		Saved	   *saved = &member->saved[i];

		saved->difference = NULL;
		saved->met = saved->is_undone || saved->sequence_number > stream->version;
		if (saved->sequence_number > stream->version)
			note(proof, member, saved->sequence_number, BEYOND_HEAD,
				 mako_proof_number(saved->sequence_number), mako_proof_number(stream->version));
		else if (!saved->is_undone)
			last = saved->sequence_number;
		if (saved->state_schema_version != state_schema_version)
			note(proof, member, saved->sequence_number, SCHEMA_VERSION_DIFFERS,
				 mako_proof_number(saved->state_schema_version),
				 mako_proof_number(state_schema_version));
	}
	history.visit = visit_saved;
	history.argument = &visit;
	mako_history_begin(&history, member->start);
	if (!mako_history_until(&history, reader, last))
		return false;
	for (int i = 0; i < member->saved_count; i++)
		if (!member->saved[i].met)
			note(proof, member, member->saved[i].sequence_number, NEVER_THERE,
				 (Datum) 0, (Datum) 0);
	return true;
}

/* ---- batches -------------------------------------------------------------------------------- */

/* Takes a stream; see MakoBatch. */
static bool
verify_stream(void *argument, const MakoStream *stream, MakoReader *reader)
{
	const MakoProof *proof = argument;
	Member	   *member = &proof->members[stream - proof->streams];

	/* What was gathered begins with the first event. */
	MakoReader *own = reader != NULL && (stream->gathered == NULL || stream->start == 0) ? NULL :
		mako_stream_open_events(stream, 1, NULL);
	bool		accepted;

	mako_rowset_at(proof->rows, stream->stream_no);
	/* It may be the second time, after another stream's error. */
	member->findings = NIL;
	member->differs_from = 0;
	member->sides_known = false;
	MemoryContextReset(proof->scratch);
	if (proof->run != NULL)
		accepted = check_moved(proof, stream, member, own != NULL ? own : reader);
	else
		accepted = check_saved(proof, stream, member, own != NULL ? own : reader);
	if (own != NULL)
		mako_stream_close_events(own);
	if (accepted)
		add_findings(proof, stream, member);
	return accepted;
}

/*
 * The number that the error of a stream is shown with: that of the first state that could not be
 * told.
 */
static int64
failed_number(const MakoProof *proof, const Member *member)
{
	if (proof->run != NULL)
		return number_of(member);
	for (int i = 0; i < member->saved_count; i++)
		if (!member->saved[i].met)
			return member->saved[i].sequence_number;
	return member->saved[member->saved_count - 1].sequence_number;
}

/*
 * Notes a stream that cannot be computed again, after whatever else was found of it; see
 * MakoBatch.
 */
static void
note_failure(void *argument, const MakoStream *stream, MakoPhase phase, int64 sequence_number,
			 const ErrorData *error)
{
	const MakoProof *proof = argument;
	Member	   *member = &proof->members[stream - proof->streams];
	MakoProofFinding failure = {failed_number(proof, member)};

	mako_rowset_at(proof->rows, stream->stream_no);
	failure.problem = psprintf("%s: %s", error->sqlerrcode == ERRCODE_DATA_CORRUPTED ? NO_EVENTS :
							   NOT_COMPUTED, error->message);
	if (proof->run != NULL && !member->sides_known)
		check_unread_sides(proof, stream, member);
	add_findings(proof, stream, member);
	mako_proof_add(proof, stream->stream_id, &failure, sequence_number);
}

/* Finds the marks of the run, of each stream of the batch. */
static void
find_marks_of_run(const MakoProof *proof, int count)
{
	for (int i = 0; i < count; i++)
	{
		Member	   *member = &proof->members[i];

		for (int k = 0; k < member->mark_count; k++)
		{
			if (member->marks[k].run_id != proof->run->run_id)
				continue;
			if (member->marks[k].repoints)
				member->repointing = &member->marks[k];
			else
				member->snapshot = &member->marks[k];
		}
		member->start = mako_archive_given(member->marks, member->mark_count);
		proof->streams[i].start = member->start == NULL ? 0 : member->start->sequence_number;
	}
}

/*
 * The move after which everything is that an application has saved of a stream; NULL: from the
 * first event on.
 */
static const MakoRecordedMove *
find_first_move(const MakoProof *proof, const Member *member)
{
	const MakoRecordedMove *start = NULL;
	bool		was_there = false;	/* under the workflow, before it moved there */

	for (int i = 0; i < member->mark_count; i++)
	{
		const MakoRecordedMove *mark = &member->marks[i];

		if (mark->run == NULL || !mark->run->update_registry)
			continue;
		was_there = was_there || strcmp(mark->run->source_wf, proof->workflow_id) == 0;
		if (mark->state != (Datum) 0 &&
			(mark->sequence_number < member->saved[0].sequence_number ||
			 (mark->sequence_number == member->saved[0].sequence_number &&
			  start == NULL && !was_there)))
			start = mark;
	}
	return start;
}

/*
 * Reads what applications have saved of the streams of the batch, and finds the moves from which
 * on that has to be computed again.
 */
static void
load_saved(const MakoProof *proof, int count)
{
	NullableDatum values[] = {
		mako_stream_numbers(proof->streams, count), mako_text(proof->workflow_id)
	};
	MakoRows	rows;
	Saved	   *saved;
	uint64		row = 0;

	rows = mako_sql_query_snapshot(&select_saved, values);
	saved = palloc0(sizeof(Saved) * (rows.count + 1));
	for (int i = 0; i < count; i++)
	{
		Member	   *member = &proof->members[i];

		member->saved = &saved[row];
		for (; row < rows.count && mako_row_bigint(&rows, row, 1) == proof->streams[i].stream_no;
			 row++)
		{
			Datum		state = mako_row_datum(&rows, row, 4, JSONBOID);

			saved[row].sequence_number = mako_row_bigint(&rows, row, 2);
			saved[row].state_schema_version = mako_row_integer(&rows, row, 3);
			saved[row].state = mako_copy_stored(state);
			saved[row].is_undone = mako_row_boolean(&rows, row, 5);
			member->saved_count++;
		}
		member->start = find_first_move(proof, member);
		proof->streams[i].start = member->start == NULL ? 0 : member->start->sequence_number;
	}
	mako_rows_free(&rows);
}

/* Proves some streams, which have heads; their events may have been gathered. */
void
mako_proof_take(MakoProof *proof, MakoStream *streams, int count, bool gathered)
{
	MakoBatch	batch = {
		.streams = streams,.count = count,.folds = &proof->fold,.replays = &proof->replay,
		.sources = 1,.gathered = gathered,.take = verify_stream,
		.wants_pause = mako_batch_tells_refusal,.fail = note_failure,
		.argument = proof
	};
	MemoryContext old;
	MakoRecordedMoves marks;

	MemoryContextReset(proof->batch_context);
	old = MemoryContextSwitchTo(proof->batch_context);
	marks = mako_archive_moves(proof->replay->archive, streams, count,
							   proof->run != NULL ? proof->run->run_id : 0,
							   proof->run != NULL ? NULL : proof->workflow_id);
	proof->streams = streams;
	proof->members = palloc0(sizeof(Member) * count);
	for (int i = 0; i < count; i++)
	{
		proof->members[i].marks = &marks.marks[marks.first[i]];
		proof->members[i].mark_count = marks.first[i + 1] - marks.first[i];
	}
	if (proof->run != NULL)
		find_marks_of_run(proof, count);
	else
		load_saved(proof, count);
	mako_batch_run(&batch);
	MemoryContextSwitchTo(old);
}

/* The head in a row; without a name where there is none. */
MakoStream
mako_proof_head(const MakoRows *rows, uint64 row)
{
	return (MakoStream) {
		.stream_no = mako_row_bigint(rows, row, 1),.stream_id = mako_row_text(rows, row, 2),
		.workflow_id = mako_row_text(rows, row, 3),.version = mako_row_bigint_or(rows, row, 4, 0)
		};
}

/* Proves the streams of some rows: as many at once as have so many states to be compared. */
static void
prove_rows(MakoProof *proof, const MakoRows *rows)
{
	MakoStream *streams = palloc0(sizeof(MakoStream) * rows->count);
	int64		states = 0;
	int			count = 0;

	for (uint64 row = 0; row < rows->count; row++)
	{
		streams[count] = mako_proof_head(rows, row);
		if (streams[count].stream_id == NULL)
		{
			MakoProofFinding finding = {
				-1, psprintf("%s: stream number " INT64_FORMAT, NO_HEAD,
							 mako_row_bigint(rows, row, 1))
			};

			/* After those before it. */
			if (count > 0)
				mako_proof_take(proof, streams, count, false);
			streams += count;
			states = count = 0;
			mako_rowset_at(proof->rows, mako_row_bigint(rows, row, 1));
			mako_proof_add(proof, NULL, &finding, 0);
			continue;
		}
		count++;
		states += mako_row_integer(rows, row, 5);
		if (states < mako_batch_size && row + 1 < rows->count)
			continue;
		mako_proof_take(proof, streams, count, false);
		streams += count;
		states = count = 0;
	}
	if (count > 0)
		mako_proof_take(proof, streams, count, false);
}

/* Proves the streams of a cursor. */
void
mako_proof_streams(MakoProof *proof, MakoCursor *cursor)
{
	MemoryContext context = CurrentMemoryContext;
	MemoryContext heads_context = AllocSetContextCreate(context, "mako heads",
														ALLOCSET_DEFAULT_SIZES);
	bool		at_end = false;

	while (!at_end)
	{
		MakoRows	rows;

		MemoryContextReset(heads_context);
		MemoryContextSwitchTo(heads_context);
		rows = mako_cursor_fetch(cursor, mako_batch_size);
		at_end = rows.count == 0;
		if (!at_end)
			prove_rows(proof, &rows);
		mako_rows_free(&rows);
		MemoryContextSwitchTo(context);
	}
	mako_cursor_close(cursor);
}
