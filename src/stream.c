/*
 * stream.c
 *	  Reading: the matching heads, locked in stream_no order; the states they start from; their events in key order.
 *
 * Heads come from one cursor over the whole run, so that they are found in one pass whichever plan the server takes. Events come
 * from one cursor a batch: the heads of the batch drive one index lookup each, so that few matches cost little and memory stays
 * bounded however long a stream is. The lookups come in the order of the heads, and within a stream in the order of the events.
 */
#include "mako_migration.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/rls.h"

/* Events fetched at once. */
#define EVENT_FETCH 256

#define SELECT_HEAD \
	"SELECT s.stream_no, s.stream_id, s.tenant_id, s.process_id, s.version, s.workflow_id, s.ctid FROM mako.stream s"

static MakoStatement select_head = {
	SELECT_HEAD " WHERE s.stream_id OPERATOR(pg_catalog.=) $1", 1, {TEXTOID}
};

static MakoStatement lock_head = {
	SELECT_HEAD " WHERE s.stream_id OPERATOR(pg_catalog.=) $1 FOR NO KEY UPDATE", 1, {TEXTOID}
};

#define SELECT_HEADS \
	"SELECT s.stream_no, s.stream_id, s.tenant_id, s.process_id, s.version" \
	" FROM mako.stream s" \
	" WHERE s.workflow_id OPERATOR(pg_catalog.=) $1 AND ($2 IS NULL OR s.tenant_id OPERATOR(pg_catalog.=) $2)" \
	" ORDER BY s.stream_no"

static MakoStatement select_heads = {SELECT_HEADS, 2, {TEXTOID, UUIDOID}, true};

static MakoStatement lock_heads = {SELECT_HEADS " FOR NO KEY UPDATE", 2, {TEXTOID, UUIDOID}, true};

/*
 * The state that a stream starts from. Newest first: what was folded furthest, and of that what was written last. A snapshot of a run
 * that left the heads alone is no boundary, and a periodic one from beyond the head or of another workflow is of no use. For many
 * streams, the range lets the planner read a dense batch in one index scan instead of looking up every stream; the plan for one can be
 * kept.
 */
#define STATE_COLUMNS \
	"n.stream_no, n.sequence_number, n.state, n.state_schema_version, n.workflow_id OPERATOR(pg_catalog.<>) $3"
#define IS_STATE(version, moved) \
	"n.reverted_by IS NULL" \
	" AND CASE n.run_id WHEN 0 THEN $4 AND n.sequence_number OPERATOR(pg_catalog.<=) " version \
	" AND n.workflow_id OPERATOR(pg_catalog.=) $3" \
	" ELSE " moved " END"

static MakoStatement select_state = {
	"SELECT " STATE_COLUMNS " FROM mako.snapshot n WHERE n.stream_no OPERATOR(pg_catalog.=) $1 AND " IS_STATE("$2",
	"EXISTS (SELECT FROM mako.migration_run r WHERE r.run_id OPERATOR(pg_catalog.=) n.run_id AND r.update_registry)")
	" ORDER BY n.sequence_number DESC, n.run_id DESC LIMIT 1",
	4, {INT8OID, INT8OID, TEXTOID, BOOLOID}
};

static MakoStatement select_states = {
	"SELECT DISTINCT ON (n.stream_no) " STATE_COLUMNS
	" FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS h (stream_no, version)"
	" JOIN mako.snapshot n ON n.stream_no OPERATOR(pg_catalog.=) h.stream_no"
	" WHERE n.stream_no OPERATOR(pg_catalog.>=) $5 AND n.stream_no OPERATOR(pg_catalog.<=) $6 AND " IS_STATE("h.version",
	"n.run_id OPERATOR(pg_catalog.=) ANY (SELECT r.run_id FROM mako.migration_run r WHERE r.update_registry)")
	" ORDER BY n.stream_no, n.sequence_number DESC, n.run_id DESC",
	6, {INT8ARRAYOID, INT8ARRAYOID, TEXTOID, BOOLOID, INT8OID, INT8OID}, true
};

#define EVENT_COLUMNS "v.stream_no, v.sequence_number, v.workflow_id, v.event_type, v.schema_version, v.payload"

static MakoStatement select_events_of_one = {
	"SELECT " EVENT_COLUMNS " FROM mako.event v"
	" WHERE v.stream_no OPERATOR(pg_catalog.=) $1 AND v.sequence_number OPERATOR(pg_catalog.>) $2 ORDER BY v.sequence_number",
	2, {INT8OID, INT8OID}
};

/* The lateral subquery can only be the inner side of a nested loop, so the order of the heads is kept. */
static MakoStatement select_events = {
	"SELECT v.*"
	" FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS h (stream_no, start)"
	" CROSS JOIN LATERAL ("
	"  SELECT " EVENT_COLUMNS
	"  FROM mako.event v"
	"  WHERE v.stream_no OPERATOR(pg_catalog.=) h.stream_no AND v.sequence_number OPERATOR(pg_catalog.>) h.start"
	"  ORDER BY v.sequence_number) v",
	2, {INT8ARRAYOID, INT8ARRAYOID}, true
};

/* The moves of some streams without a snapshot of their last event, in the order of the runs. */
static MakoStatement select_repointed = {
	"SELECT p.stream_no, p.sequence_number, r.source_wf, r.target_wf"
	" FROM mako.repointed p JOIN mako.migration_run r ON r.run_id OPERATOR(pg_catalog.=) p.run_id"
	" WHERE p.stream_no OPERATOR(pg_catalog.=) ANY ($1) ORDER BY p.stream_no, p.run_id",
	1, {INT8ARRAYOID}, true
};

/* One move without a snapshot: events up to a sequence number belong to the target as they did to the source. */
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
	Repointing *repointings;	/* of all streams; NULL until somebody asks */
	int			repointing_count;
	MemoryContext context;
	MakoCursor *cursor;
	MakoRows	rows;
	uint64		next;			/* row of rows */
	MakoEvent	event;			/* the one at next, unless at_end */
	bool		at_end;
};

/* A uuid of a row, copied; NULL for null. */
static pg_uuid_t *
row_uuid(const MakoRows *rows, uint64 row, int column)
{
	bool		isnull;
	Datum		value = mako_rows_get(rows, row, column, &isnull);
	pg_uuid_t  *uuid;

	if (isnull)
		return NULL;
	uuid = palloc(sizeof(pg_uuid_t));
	*uuid = *DatumGetUUIDP(value);
	return uuid;
}

/*
 * Opens the cursor over the matching heads: for a run on a new snapshot, each locked when it is fetched; otherwise with the active
 * snapshot.
 */
MakoCursor *
mako_stream_open_heads(const char *source_wf, const pg_uuid_t *tenant_id, bool lock)
{
	Datum		values[] = {CStringGetTextDatum(source_wf), UUIDPGetDatum(tenant_id)};

	return mako_cursor_open(lock ? &lock_heads : &select_heads, values, tenant_id == NULL ? " n" : NULL, lock);
}

/* Reads a head from a row of the statements above. */
static void
read_head(const MakoRows *rows, uint64 row, MakoStream *stream)
{
	bool		isnull;

	memset(stream, 0, sizeof(MakoStream));
	stream->stream_no = DatumGetInt64(mako_rows_get(rows, row, 1, &isnull));
	stream->stream_id = mako_rows_text(rows, row, 2);
	stream->tenant_id = row_uuid(rows, row, 3);
	stream->process_id = row_uuid(rows, row, 4);
	stream->version = DatumGetInt64(mako_rows_get(rows, row, 5, &isnull));
}

/* Raises that there is no stream of this id, or none that the caller may see. */
static void
raise_no_stream(Datum stream_id)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("stream \"%s\" does not exist", TextDatumGetCString(stream_id)),
			 errhint("The stream of a process is process/<tenant id>/<process id>; mako_spawn() starts one.")));
}

/* Reads the one head of a result. */
static void
read_one_head(MakoRows rows, Datum stream_id, MakoStream *stream)
{
	bool		isnull;

	if (rows.count == 0)
		raise_no_stream(stream_id);
	read_head(&rows, 0, stream);
	stream->workflow_id = mako_rows_text(&rows, 0, 6);
	stream->tid = *(ItemPointer) DatumGetPointer(mako_rows_get(&rows, 0, 7, &isnull));
	mako_rows_free(&rows);
}

/* Finds a stream that the caller may see by its id (text), with the active snapshot; an error when there is none. */
void
mako_stream_find(Datum stream_id, MakoStream *stream)
{
	(void) mako_store_table("stream");
	read_one_head(mako_sql_query_snapshot(&select_head, &stream_id, NULL), stream_id, stream);
}

/*
 * Finds a stream that the caller may see, and locks its head, as the owner of the table where the caller may not; reads it as it is now.
 */
void
mako_stream_lock(Datum stream_id, MakoStream *stream)
{
	Oid			relation = mako_store_table("stream");
	bool		may_lock = pg_class_aclcheck(relation, GetUserId(), ACL_UPDATE) == ACLCHECK_OK &&
		check_enable_rls(relation, InvalidOid, true) == RLS_NONE;
	MakoUser	user;

	if (!may_lock)
	{
		read_one_head(mako_sql_query(&select_head, &stream_id, NULL), stream_id, stream);
		user = mako_become_owner(relation);
	}
	read_one_head(mako_sql_query(&lock_head, &stream_id, NULL), stream_id, stream);
	if (!may_lock)
		mako_become(&user);
}

/* Fetches (and locks, if the cursor does) the next heads; they are allocated in the current memory context. Returns how many; 0 at the end. */
int
mako_stream_fetch_heads(MakoCursor *cursor, const char *source_wf, MakoStream *streams, int capacity)
{
	MakoRows	rows = mako_cursor_fetch(cursor, capacity);
	int			count = (int) rows.count;

	for (int i = 0; i < count; i++)
	{
		read_head(&rows, i, &streams[i]);
		streams[i].workflow_id = source_wf;
	}
	mako_rows_free(&rows);
	return count;
}

/* One bigint of every stream as a statement's parameter: bigint[], or bigint where the statement is for one stream. */
static Datum
bigint_parameter(const MakoStream *streams, int count, size_t offset)
{
	Datum	   *values = palloc(sizeof(Datum) * count);

	for (int i = 0; i < count; i++)
		values[i] = Int64GetDatum(*(const int64 *) ((const char *) &streams[i] + offset));
	if (count == 1)
		return values[0];
	return PointerGetDatum(construct_array(values, count, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/*
 * Finds the stored state that each stream starts from: its boundary, or with periodic_too the newest state there is. Reads with the
 * active snapshot.
 */
void
mako_stream_load_states(MakoStream *streams, int count, const char *source_wf, bool periodic_too)
{
	Datum		values[] = {
		bigint_parameter(streams, count, offsetof(MakoStream, stream_no)),
		bigint_parameter(streams, count, offsetof(MakoStream, version)),
		CStringGetTextDatum(source_wf),
		BoolGetDatum(periodic_too),
		Int64GetDatum(streams[0].stream_no),
		Int64GetDatum(streams[count - 1].stream_no),
	};
	MakoRows	rows = mako_sql_query_snapshot(count == 1 ? &select_state : &select_states, values, NULL);
	int			i = 0;

	/* Both are in stream_no order. */
	for (uint64 row = 0; row < rows.count; row++)
	{
		bool		isnull;
		int64		stream_no = DatumGetInt64(mako_rows_get(&rows, row, 1, &isnull));
		struct varlena *state = (struct varlena *) DatumGetPointer(mako_rows_get(&rows, row, 3, &isnull));

		while (streams[i].stream_no != stream_no)
			i++;
		streams[i].start = DatumGetInt64(mako_rows_get(&rows, row, 2, &isnull));
		/* Copied as it is stored: a damaged toasted value must fail its own stream, when it is read. */
		streams[i].start_state = PointerGetDatum(memcpy(palloc(VARSIZE_ANY(state)), state, VARSIZE_ANY(state)));
		streams[i].start_schema_version = DatumGetInt32(mako_rows_get(&rows, row, 4, &isnull));
		streams[i].boundary_missing = DatumGetBool(mako_rows_get(&rows, row, 5, &isnull));
	}
	mako_rows_free(&rows);
}

/* Meets the privileges and policies that reading events needs. */
void
mako_stream_rehearse(void)
{
	mako_sql_rehearse(&select_events);
}

/* Opens a reader of the events of these streams behind the states that they start from, with the active snapshot. */
MakoReader *
mako_stream_open_events(const MakoStream *streams, int count)
{
	Datum		values[] = {bigint_parameter(streams, count, offsetof(MakoStream, stream_no)),
		bigint_parameter(streams, count, offsetof(MakoStream, start))};
	MakoReader *reader = palloc0(sizeof(MakoReader));

	reader->streams = streams;
	reader->count = count;
	reader->context = CurrentMemoryContext;
	reader->cursor = mako_cursor_open(count == 1 ? &select_events_of_one : &select_events, values, NULL, false);
	return reader;
}

/* One value of the event at hand, which may be null only if mako.event is not the table that it should be. */
static Datum
event_value(const MakoReader *reader, int column, const char *name)
{
	bool		isnull;
	Datum		value = mako_rows_get(&reader->rows, reader->next, column, &isnull);

	if (isnull)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("column \"%s\" of an event is null", name),
				 errdetail("It is event " INT64_FORMAT " of stream number " INT64_FORMAT ".",
						   reader->event.sequence_number, reader->event.stream_no)));
	return value;
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
		reader->event.stream_no = DatumGetInt64(event_value(reader, 1, "stream_no"));
		if (reader->event.stream_no >= stream_no)
			return true;
	}
	return false;
}

/*
 * The next event of this stream, or NULL when it has no more; streams must be asked for in the order of the reader, and need not be
 * read to their end.
 */
const MakoEvent *
mako_stream_next_event(MakoReader *reader, int64 stream_no)
{
	MakoEvent  *event = &reader->event;

	if (!go_to_stream(reader, stream_no) || event->stream_no != stream_no)
		return NULL;
	event->sequence_number = DatumGetInt64(event_value(reader, 2, "sequence_number"));
	event->workflow_id = event_value(reader, 3, "workflow_id");
	event->event_type = event_value(reader, 4, "event_type");
	event->schema_version = DatumGetInt32(event_value(reader, 5, "schema_version"));
	event->payload = event_value(reader, 6, "payload");
	reader->next++;
	return event;
}

/* Reads the moves without a snapshot, of all streams of a reader: hardly anybody asks. */
static void
load_repointings(MakoReader *reader)
{
	Datum	   *stream_nos = palloc(sizeof(Datum) * reader->count);
	Datum		parameter;
	MakoRows	rows;
	MemoryContext old;

	for (int i = 0; i < reader->count; i++)
		stream_nos[i] = Int64GetDatum(reader->streams[i].stream_no);
	parameter = PointerGetDatum(construct_array(stream_nos, reader->count, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	rows = mako_sql_query_snapshot(&select_repointed, &parameter, NULL);
	old = MemoryContextSwitchTo(reader->context);
	reader->repointings = palloc(sizeof(Repointing) * (rows.count + 1));
	reader->repointing_count = (int) rows.count;
	for (int i = 0; i < reader->repointing_count; i++)
	{
		Repointing *repointing = &reader->repointings[i];
		bool		isnull;

		repointing->stream_no = DatumGetInt64(mako_rows_get(&rows, i, 1, &isnull));
		repointing->sequence_number = DatumGetInt64(mako_rows_get(&rows, i, 2, &isnull));
		repointing->source_wf = mako_rows_text(&rows, i, 3);
		repointing->target_wf = mako_rows_text(&rows, i, 4);
	}
	mako_rows_free(&rows);
	MemoryContextSwitchTo(old);
}

/* The first move of a stream, or of one behind it. */
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
 * The workflow whose apply folds the event at hand: the one that it was written under, or the last one that its stream moved to since
 * without a snapshot.
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

		if (repointing->sequence_number >= event->sequence_number && strcmp(repointing->source_wf, workflow_id) == 0)
			workflow_id = repointing->target_wf;
	}
	return workflow_id;
}

/* Closes a reader; after an error the subtransaction does it. */
void
mako_stream_close_events(MakoReader *reader)
{
	mako_rows_free(&reader->rows);
	mako_cursor_close(reader->cursor);
	pfree(reader);
}
