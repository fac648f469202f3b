/*
 * events.c
 *	  Events in key order: a reader hands out those of one stream after another.
 *
 * Events are looked up in their index, stream by stream (event_index.c), so that few matches cost
 * little and memory stays bounded however long a stream is. Where only a statement can read them,
 * it is one cursor a batch: the heads of the batch drive one index lookup each, which come in the
 * order of the heads, and within a stream in the order of the events. Where many streams match,
 * heap_order.c has collected the events, and a reader only hands them out.
 */
#include "read/events.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

/* Events fetched at once. */
#define EVENT_FETCH 256

/* Bytes of a gathered event that are asked for in advance: most payloads are no larger. */
#define EVENT_AHEAD 512

const char *const mako_event_columns[MAKO_EVENT_COLUMNS] = {
	"stream_no", "sequence_number", "workflow_id", "event_type", "schema_version", "payload"
};

/*
 * The same for statements, and their types there. Of an attached event store, stamp is the workflow
 * that an event says, or null.
 */
#define EVENT_COLUMNS(workflow_id) \
	"v.stream_no, v.sequence_number, " workflow_id ", v.event_type, v.schema_version, v.payload"

static const Oid event_types[MAKO_EVENT_COLUMNS] = {
	INT8OID, INT8OID, TEXTOID, TEXTOID, INT4OID, JSONBOID
};

#define SELECT_EVENTS_OF_ONE(workflow_id) \
	"SELECT " EVENT_COLUMNS(workflow_id) " FROM mako.event v" \
	" WHERE v.stream_no OPERATOR(pg_catalog.=) $1 AND v.sequence_number OPERATOR(pg_catalog.>) $2" \
	" ORDER BY v.sequence_number", \
	2, {INT8OID, INT8OID}

static MakoStatement select_events_of_one = {SELECT_EVENTS_OF_ONE("v.workflow_id")};
static MakoStatement select_attached_of_one = {SELECT_EVENTS_OF_ONE("v.stamp")};

/*
 * The lateral subquery can only be the inner side of a nested loop, so the order of the heads is
 * kept.
 */
#define SELECT_EVENTS(workflow_id) \
	"SELECT v.*" \
	" FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS h (stream_no, start)" \
	" CROSS JOIN LATERAL (" \
	"   SELECT " EVENT_COLUMNS(workflow_id) \
	"   FROM mako.event v" \
	"   WHERE v.stream_no OPERATOR(pg_catalog.=) h.stream_no" \
	"   AND v.sequence_number OPERATOR(pg_catalog.>) h.start" \
	"   ORDER BY v.sequence_number) v", \
	2, {INT8ARRAYOID, INT8ARRAYOID}, true

static MakoStatement select_events = {SELECT_EVENTS("v.workflow_id")};
static MakoStatement select_attached = {SELECT_EVENTS("v.stamp")};

/* Streams with events beyond their heads, in a range of numbers. */
static MakoStatement select_beyond = {
	"SELECT s.stream_no FROM mako.stream s"
	" WHERE s.stream_no OPERATOR(pg_catalog.>=) $1 AND s.stream_no OPERATOR(pg_catalog.<=) $2"
	" AND EXISTS ("
	"   SELECT FROM mako.event v"
	"   WHERE v.stream_no OPERATOR(pg_catalog.=) s.stream_no"
	"   AND v.sequence_number OPERATOR(pg_catalog.>) s.version)",
	2, {INT8OID, INT8OID}, true
};

/* Those of some streams. */
static MakoStatement select_beyond_of = {
	"SELECT o.stream_no"
	" FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS o (stream_no, version)"
	" CROSS JOIN LATERAL (SELECT FROM mako.event v"
	"   WHERE v.stream_no OPERATOR(pg_catalog.=) o.stream_no"
	"   AND v.sequence_number OPERATOR(pg_catalog.>) o.version LIMIT 1) l",
	2, {INT8ARRAYOID, INT8ARRAYOID}, true
};

/* The moves of some streams without a snapshot of their last event, in the order of the runs. */
static MakoStatement select_repointed = {
	MAKO_FOR_EACH
	" SELECT p.stream_no, p.sequence_number, r.source_wf, r.target_wf"
	" FROM mako.repointed p JOIN mako.migration_run r ON r.run_id OPERATOR(pg_catalog.=) p.run_id"
	" WHERE p.stream_no OPERATOR(pg_catalog.=) o.stream_no AND " MAKO_STANDS("p")
	" ORDER BY p.run_id" MAKO_END_EACH,
	1, {INT8ARRAYOID}, true
};

/* All moves of some streams, in the order of the runs: of those in a range, or each looked up. */
#define MOVES_OF(table, condition, stands) \
	"SELECT m.stream_no, m.sequence_number, m.run_id FROM mako." table " m WHERE " condition \
	" AND m.run_id OPERATOR(pg_catalog.>) 0 AND " stands
#define SELECT_MOVES(moves) \
	"SELECT m.stream_no, m.sequence_number, r.source_wf FROM (" moves ") m" \
	" JOIN mako.migration_run r ON r.run_id OPERATOR(pg_catalog.=) m.run_id" \
	" WHERE r.update_registry ORDER BY m.stream_no, m.run_id"
#define IN_RANGE \
	"m.stream_no OPERATOR(pg_catalog.>=) $1 AND m.stream_no OPERATOR(pg_catalog.<=) $2"
#define IS_OF_STREAM "m.stream_no OPERATOR(pg_catalog.=) h.stream_no"

static MakoStatement select_moves = {
	SELECT_MOVES(MOVES_OF("snapshot", IN_RANGE, MAKO_STANDS_BETWEEN("m", "$1", "$2")) " UNION ALL "
				 MOVES_OF("repointed", IN_RANGE, MAKO_STANDS_BETWEEN("m", "$1", "$2"))),
	2, {INT8OID, INT8OID}, true
};

static MakoStatement select_moves_apart = {
	SELECT_MOVES("SELECT l.* FROM pg_catalog.unnest($1) AS h (stream_no) CROSS JOIN LATERAL ("
				 MOVES_OF("snapshot", IS_OF_STREAM, MAKO_STANDS("m")) " UNION ALL "
				 MOVES_OF("repointed", IS_OF_STREAM, MAKO_STANDS("m")) ") l"),
	1, {INT8ARRAYOID}, true
};

/* One move: events up to a sequence number were written under the source, if they say none. */
typedef struct Move
{
	int64		stream_no;
	int64		sequence_number;
	char	   *source_wf;
} Move;

/*
 * One move without a snapshot: events up to a sequence number belong to the target as they did to
 * the source.
 */
typedef struct Repointing
{
	int64		stream_no;
	int64		sequence_number;
	char	   *source_wf;
	char	   *target_wf;
} Repointing;

/* Events of some streams, in order; lives in the context in which it was opened. */
struct MakoReader
{
	const MakoStream *streams;
	int			count;
	int			at;				/* the stream that was asked for last, where there is no cursor */
	const MakoGathered *gathered;	/* its next event */
	Repointing *repointings;	/* of all streams; NULL until they are asked for */
	int			repointing_count;
	Move	   *moves;			/* the same, of an attached event store */
	int			move_count;
	int			next_move;		/* the first one of the current stream, or of one after it */
	const char *unstamped;		/* what the last event without a workflow was written under */
	Datum		unstamped_text; /* the same */
	MemoryContext context;
	MakoEventIndex *lookup;		/* NULL where events are gathered or a statement reads them */
	bool		looking_up;		/* the events of event.stream_no */
	MakoCursor *cursor;			/* of that statement, or NULL */
	MakoRows	rows;
	uint64		next;			/* row of rows */
	MakoEvent	event;			/* the one at next, unless at_end */
	bool		at_end;
};

/*
 * The numbers of the streams in a range that have events beyond their heads, with the active
 * snapshot.
 */
MakoRows
mako_stream_find_beyond(int64 first, int64 last)
{
	NullableDatum values[] = {mako_bigint(first), mako_bigint(last)};

	return mako_sql_query_snapshot(&select_beyond, values);
}

/* The same as mako_stream_beyond(), by a statement. */
static void
ask_for_beyond(const MakoStream *streams, int count, int64 *numbers, int *found)
{
	int64	   *versions = palloc(sizeof(int64) * (count + 1));
	MakoRows	rows;

	for (int i = 0; i < count; i++)
		versions[i] = streams[i].version;
	{
		NullableDatum values[] = {
			mako_stream_numbers(streams, count), mako_bigint_array(versions, count)
		};

		rows = mako_sql_query_snapshot(&select_beyond_of, values);
	}
	*found = (int) rows.count;
	for (int i = 0; i < *found; i++)
		numbers[i] = mako_row_bigint(&rows, i, 1);
	mako_rows_free(&rows);
}

/*
 * The numbers of those of some streams that have events beyond their heads, in the order of the
 * streams; with a new snapshot.
 */
int64 *
mako_stream_beyond(const MakoStream *streams, int count, int *found)
{
	int64	   *numbers = palloc(sizeof(int64) * (count + 1));
	MakoEventIndex *lookup;

	*found = 0;
	PushActiveSnapshot(GetTransactionSnapshot());
	lookup = mako_event_index_open();
	if (lookup != NULL)
	{
		*found = mako_event_index_beyond(lookup, streams, count, numbers);
		mako_event_index_close(lookup);
	}
	else
		ask_for_beyond(streams, count, numbers, found);
	PopActiveSnapshot();
	return numbers;
}

/* Meets the privileges and policies that reading events needs. */
void
mako_stream_rehearse(void)
{
	if (!mako_event_index_is_possible())
		mako_sql_check(mako_door_is_attached() ? &select_attached : &select_events);
}

/* A reader of the events of these streams that have been gathered. */
MakoReader *
mako_stream_open_gathered(const MakoStream *streams, int count)
{
	MakoReader *reader = palloc0(sizeof(MakoReader));

	reader->streams = streams;
	reader->count = count;
	reader->context = CurrentMemoryContext;
	reader->gathered = streams[0].gathered;
	return reader;
}

/*
 * Opens the cursor over the events of some streams; of those whose workflow has an apply, where
 * that is given.
 */
static MakoCursor *
open_cursor(const MakoStream *streams, int count, const bool *has_apply)
{
	int64	   *stream_nos = palloc(sizeof(int64) * count);
	int64	   *starts = palloc(sizeof(int64) * count);
	NullableDatum values[2];
	int			wanted = 0;

	for (int i = 0; i < count; i++)
	{
		if (has_apply != NULL && !has_apply[streams[i].source])
			continue;
		stream_nos[wanted] = streams[i].stream_no;
		starts[wanted++] = streams[i].start;
	}
	values[0] = wanted == 1 ? mako_bigint(stream_nos[0]) : mako_bigint_array(stream_nos, wanted);
	values[1] = wanted == 1 ? mako_bigint(starts[0]) : mako_bigint_array(starts, wanted);
	if (mako_door_is_attached())
		return mako_cursor_open(wanted == 1 ? &select_attached_of_one : &select_attached, values,
								false);
	return mako_cursor_open(wanted == 1 ? &select_events_of_one : &select_events, values, false);
}

/*
 * Opens a reader of the events of these streams after the states that they start from, with the
 * active snapshot. Where has_apply is given, by the source of a stream, streams whose workflow has
 * no apply are left out.
 */
MakoReader *
mako_stream_open_events(const MakoStream *streams, int count, const bool *has_apply)
{
	MakoReader *reader = mako_stream_open_gathered(streams, count);

	reader->lookup = mako_event_index_open();
	if (reader->lookup == NULL)
		reader->cursor = open_cursor(streams, count, has_apply);
	return reader;
}

/*
 * Raises when a value of the current event is null, which it may be only if mako.event is not the
 * table that it should be.
 */
static void
require_value(const MakoReader *reader, bool isnull, const char *name)
{
	if (isnull)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("column \"%s\" of an event is null", name),
				 errdetail("It is event " INT64_FORMAT " of stream number " INT64_FORMAT ".",
						   reader->event.sequence_number, reader->event.stream_no)));
}

/* Reads the moves of all streams of a reader; of more, where they lie dense. */
static void
load_moves(MakoReader *reader)
{
	const MakoStream *streams = reader->streams;
	bool		is_dense = mako_streams_are_dense(streams, reader->count);
	NullableDatum values[] = {
		is_dense ? mako_bigint(streams[0].stream_no) : mako_stream_numbers(streams, reader->count),
		mako_bigint(streams[reader->count - 1].stream_no)
	};
	MakoRows	rows = mako_sql_query_snapshot(is_dense ? &select_moves : &select_moves_apart,
											   values);
	MemoryContext old = MemoryContextSwitchTo(reader->context);

	reader->moves = palloc(sizeof(Move) * (rows.count + 1));
	reader->move_count = (int) rows.count;
	for (int i = 0; i < reader->move_count; i++)
	{
		reader->moves[i].stream_no = mako_row_bigint(&rows, i, 1);
		reader->moves[i].sequence_number = mako_row_bigint(&rows, i, 2);
		reader->moves[i].source_wf = mako_row_text(&rows, i, 3);
	}
	mako_rows_free(&rows);
	MemoryContextSwitchTo(old);
}

/*
 * The workflow of the current event, which says none: what its stream ran under then. The first
 * move behind the event led away from it; without one, it is what the stream runs under.
 */
static Datum
workflow_then(MakoReader *reader)
{
	const MakoEvent *event = &reader->event;
	const char *workflow_id;

	if (reader->moves == NULL)
		load_moves(reader);
	while (reader->streams[reader->at].stream_no != event->stream_no)
		reader->at++;
	while (reader->next_move < reader->move_count &&
		   reader->moves[reader->next_move].stream_no < event->stream_no)
		reader->next_move++;
	workflow_id = reader->streams[reader->at].workflow_id;
	for (int i = reader->next_move;
		 i < reader->move_count && reader->moves[i].stream_no == event->stream_no; i++)
		if (reader->moves[i].sequence_number >= event->sequence_number)
		{
			workflow_id = reader->moves[i].source_wf;
			break;
		}
	if (workflow_id != reader->unstamped)
	{
		MemoryContext old = MemoryContextSwitchTo(reader->context);

		reader->unstamped = workflow_id;
		reader->unstamped_text = CStringGetTextDatum(workflow_id);
		MemoryContextSwitchTo(old);
	}
	return reader->unstamped_text;
}

/* Takes the event whose stream is known from the values of its other columns. */
static const MakoEvent *
take_values(MakoReader *reader, const NullableDatum *values)
{
	MakoEvent  *event = &reader->event;

	event->sequence_number = DatumGetInt64(values[MAKO_EVENT_SEQUENCE_NUMBER].value);
	for (int i = MAKO_EVENT_SEQUENCE_NUMBER; i < MAKO_EVENT_COLUMNS; i++)
		if (i != MAKO_EVENT_WORKFLOW_ID || reader->lookup != NULL)
			require_value(reader, values[i].isnull, mako_event_columns[i]);
	event->workflow_id = values[MAKO_EVENT_WORKFLOW_ID].isnull ? workflow_then(reader) :
		values[MAKO_EVENT_WORKFLOW_ID].value;
	event->event_type = values[MAKO_EVENT_TYPE].value;
	event->schema_version = DatumGetInt32(values[MAKO_EVENT_SCHEMA_VERSION].value);
	event->payload = values[MAKO_EVENT_PAYLOAD].value;
	return event;
}

/* Goes to the first event that is not of a stream before this one; false at the end. */
static bool
go_to_stream(MakoReader *reader, int64 stream_no)
{
	for (; !reader->at_end; reader->next++)
	{
		if (reader->next == reader->rows.count)
		{
			mako_rows_free(&reader->rows);
			reader->rows = mako_cursor_fetch(reader->cursor, EVENT_FETCH);
			reader->next = 0;
			reader->at_end = reader->rows.count == 0;
			if (reader->at_end)
				return false;
		}
		reader->event.stream_no = mako_row_bigint(&reader->rows, reader->next, 1);
		if (reader->event.stream_no >= stream_no)
			return true;
	}
	return false;
}

/* Asks for the memory of the event after this one, which is gathered long before it is folded. */
static void
prefetch_next(const MakoReader *reader)
{
	const MakoGathered *next = reader->gathered;

	if (next == NULL && reader->at + 1 < reader->count)
		next = reader->streams[reader->at + 1].gathered;
	mako_prefetch(next, EVENT_AHEAD);
}

/* The next gathered event of this stream. */
static const MakoEvent *
next_gathered(MakoReader *reader, int64 stream_no)
{
	const MakoGathered *gathered;

	while (reader->streams[reader->at].stream_no != stream_no)
		reader->gathered = reader->streams[++reader->at].gathered;
	gathered = reader->gathered;
	if (gathered == NULL)
		return NULL;
	reader->event = gathered->event;
	reader->gathered = gathered->next;
	prefetch_next(reader);
	return &reader->event;
}

/* The next event of this stream from the index. */
static const MakoEvent *
next_looked_up(MakoReader *reader, int64 stream_no)
{
	MakoEvent  *event = &reader->event;
	NullableDatum values[MAKO_EVENT_COLUMNS];

	if (!reader->looking_up || event->stream_no != stream_no)
	{
		while (reader->streams[reader->at].stream_no != stream_no)
			reader->at++;
		mako_event_index_stream(reader->lookup, stream_no, reader->streams[reader->at].start);
		event->stream_no = stream_no;
		reader->looking_up = true;
		reader->at_end = false;
	}
	if (reader->at_end || !mako_event_index_next(reader->lookup, values))
	{
		reader->at_end = true;
		return NULL;
	}
	return take_values(reader, values);
}

/* The next event of this stream from the cursor. */
static const MakoEvent *
next_fetched(MakoReader *reader, int64 stream_no)
{
	const MakoEvent *event;
	NullableDatum values[MAKO_EVENT_COLUMNS];

	if (!go_to_stream(reader, stream_no) || reader->event.stream_no != stream_no)
		return NULL;
	for (int i = MAKO_EVENT_SEQUENCE_NUMBER; i < MAKO_EVENT_COLUMNS; i++)
		values[i] = mako_row_value(&reader->rows, reader->next, i + 1, event_types[i]);
	event = take_values(reader, values);
	reader->next++;
	return event;
}

/*
 * The next event of this stream, or NULL when it has no more; streams must be asked for in the
 * order of the reader, and need not be read to their end.
 */
const MakoEvent *
mako_stream_next_event(MakoReader *reader, int64 stream_no)
{
	if (reader->lookup != NULL)
		return next_looked_up(reader, stream_no);
	return reader->cursor == NULL ? next_gathered(reader, stream_no) :
		next_fetched(reader, stream_no);
}

/* Reads the moves without a snapshot, of all streams of a reader. They are seldom asked for. */
static void
load_repointings(MakoReader *reader)
{
	NullableDatum parameter = mako_stream_numbers(reader->streams, reader->count);
	MakoRows	rows = mako_sql_query_snapshot(&select_repointed, &parameter);
	MemoryContext old = MemoryContextSwitchTo(reader->context);

	reader->repointings = palloc(sizeof(Repointing) * (rows.count + 1));
	reader->repointing_count = (int) rows.count;
	for (int i = 0; i < reader->repointing_count; i++)
	{
		Repointing *repointing = &reader->repointings[i];

		repointing->stream_no = mako_row_bigint(&rows, i, 1);
		repointing->sequence_number = mako_row_bigint(&rows, i, 2);
		repointing->source_wf = mako_row_text(&rows, i, 3);
		repointing->target_wf = mako_row_text(&rows, i, 4);
	}
	mako_rows_free(&rows);
	MemoryContextSwitchTo(old);
}

/* The first move of a stream, or of one after it. */
static int
first_repointing(const MakoReader *reader, int64 stream_no)
{
	int			low = 0;
	int			high = reader->repointing_count;

	while (low < high)
	{
		int			middle = low + (high - low) / 2;

		if (reader->repointings[middle].stream_no < stream_no)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/*
 * The workflow whose apply folds the current event: the one that it was written under, or the last
 * one that its stream moved to since without a snapshot.
 */
const char *
mako_stream_folding_workflow(MakoReader *reader)
{
	const MakoEvent *event = &reader->event;
	const char *workflow_id = TextDatumGetCString(event->workflow_id);

	if (reader->repointings == NULL)
		load_repointings(reader);
	for (int i = first_repointing(reader, event->stream_no);
		 i < reader->repointing_count && reader->repointings[i].stream_no == event->stream_no; i++)
	{
		const Repointing *repointing = &reader->repointings[i];

		if (repointing->sequence_number >= event->sequence_number &&
			strcmp(repointing->source_wf, workflow_id) == 0)
			workflow_id = repointing->target_wf;
	}
	return workflow_id;
}

/* Closes a reader; after an error the subtransaction does it. */
void
mako_stream_close_events(MakoReader *reader)
{
	if (reader->lookup != NULL)
		mako_event_index_close(reader->lookup);
	if (reader->cursor != NULL)
	{
		mako_rows_free(&reader->rows);
		mako_cursor_close(reader->cursor);
	}
	pfree(reader);
}
