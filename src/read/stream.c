/*
 * stream.c
 *	  Reading: the matching heads, locked in stream_no order; the states they start from; their
 *	  events in key order.
 *
 * Heads come from one cursor over the whole pass, so that they are found in one pass whichever
 * plan the server takes. Events are looked up in their index, stream by stream (event_index.c), so
 * that few matches cost little and memory stays bounded however long a stream is. Where only a
 * statement can read them, it is one cursor a batch: the heads of the batch drive one index lookup
 * each, which come in the order of the heads, and within a stream in the order of the events.
 * Where many streams match, heap_order.c has collected the events, and a reader only hands them
 * out.
 */
#include "read/events.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/rls.h"

/* Events fetched at once. */
#define EVENT_FETCH 256

/* Bytes of a gathered event that are asked for in advance: most payloads are no larger. */
#define EVENT_AHEAD 512

/*
 * The columns of a head, as much as is needed: a caller may have privileges for some only, and for
 * the tid it takes the privilege to read the whole table.
 */
#define HEAD(names, tid) \
	"SELECT s.stream_no, s.version, s.workflow_id, " names ", " tid " FROM mako.stream s"
#define NAMES "s.stream_id, s.tenant_id, s.process_id"
#define NO_NAMES "NULL::pg_catalog.text, NULL::pg_catalog.uuid, NULL::pg_catalog.uuid"
#define TID "s.ctid"
#define NO_TID "NULL::pg_catalog.tid"
#define LOCKED " FOR NO KEY UPDATE"

static MakoStatement select_head = {
	HEAD(NAMES, TID) " WHERE s.stream_id OPERATOR(pg_catalog.=) $1", 1, {TEXTOID}
};

static MakoStatement lock_head = {
	HEAD(NAMES, TID) " WHERE s.stream_id OPERATOR(pg_catalog.=) $1" LOCKED, 1, {TEXTOID}
};

/* The heads of some workflows, of one tenant or all, and among some streams or all. */
#define OF_WORKFLOWS \
	" WHERE s.workflow_id OPERATOR(pg_catalog.=) ANY ($1)" \
	" AND ($2 IS NULL OR s.tenant_id OPERATOR(pg_catalog.=) $2)" \
	" AND ($3 IS NULL OR s.stream_no OPERATOR(pg_catalog.=) ANY ($3)) ORDER BY s.stream_no"
#define OF_WORKFLOWS_TYPES 3, {TEXTARRAYOID, UUIDOID, INT8ARRAYOID}, true

static MakoStatement select_bare = {HEAD(NO_NAMES, NO_TID) OF_WORKFLOWS, OF_WORKFLOWS_TYPES};
static MakoStatement select_named = {HEAD(NAMES, NO_TID) OF_WORKFLOWS, OF_WORKFLOWS_TYPES};
static MakoStatement lock_bare = {HEAD(NO_NAMES, NO_TID) OF_WORKFLOWS LOCKED, OF_WORKFLOWS_TYPES};
static MakoStatement lock_named = {HEAD(NAMES, NO_TID) OF_WORKFLOWS LOCKED, OF_WORKFLOWS_TYPES};
static MakoStatement lock_placed = {HEAD(NO_NAMES, TID) OF_WORKFLOWS LOCKED, OF_WORKFLOWS_TYPES};
static MakoStatement lock_whole = {HEAD(NAMES, TID) OF_WORKFLOWS LOCKED, OF_WORKFLOWS_TYPES};

/* Some of them, the same for the same seed. */
static MakoStatement select_sample = {
	"SELECT * FROM (" HEAD(NAMES, NO_TID)
	" WHERE s.workflow_id OPERATOR(pg_catalog.=) $1 AND ($2 IS NULL OR s.tenant_id OPERATOR(pg_catalog.=) $2)"
	" ORDER BY pg_catalog.hashint8extended(s.stream_no, $3), s.stream_no LIMIT $4) AS h ORDER BY h.stream_no",
	4, {TEXTOID, UUIDOID, INT8OID, INT8OID}, true
};

/*
 * The streams that a batch of a run is made of, by their numbers. One that a later run has brought
 * is not among them: of the runs that moved a stream, the last one has the highest number. The
 * second time around, those that have failed are left alone.
 */
#define LATER_RUNS \
	"SELECT r.run_id FROM mako.migration_run r" \
	" WHERE r.run_id OPERATOR(pg_catalog.>) $6 AND r.target_wf OPERATOR(pg_catalog.=) $1 AND r.update_registry"
#define IS_OF_LATER_RUN(row) \
	row ".stream_no OPERATOR(pg_catalog.=) s.stream_no AND (" row ".run_id OPERATOR(pg_catalog.=) ANY (" LATER_RUNS ")" \
	" OR " row ".reverted_by OPERATOR(pg_catalog.=) ANY (" LATER_RUNS "))"

static MakoStatement select_next = {
	"SELECT s.stream_no FROM mako.stream s WHERE s.workflow_id OPERATOR(pg_catalog.=) $1"
	" AND ($2 IS NULL OR s.tenant_id OPERATOR(pg_catalog.=) $2)"
	" AND s.stream_no OPERATOR(pg_catalog.>) $3 AND s.stream_no OPERATOR(pg_catalog.<=) $4"
	" AND (NOT EXISTS (" LATER_RUNS ")"
	"  OR (NOT EXISTS (SELECT FROM mako.snapshot n WHERE " IS_OF_LATER_RUN("n") ")"
	"   AND NOT EXISTS (SELECT FROM mako.repointed p WHERE " IS_OF_LATER_RUN("p") ")))"
	" AND NOT EXISTS (SELECT FROM mako.migration_error e"
	"  WHERE $7 AND e.run_id OPERATOR(pg_catalog.=) $6"
	"  AND e.stream_no OPERATOR(pg_catalog.=) s.stream_no)"
	" ORDER BY s.stream_no LIMIT $5",
	7, {TEXTOID, UUIDOID, INT8OID, INT8OID, INT4OID, INT8OID, BOOLOID}, true
};

/* Those of some streams that no other transaction has locked, or all of them. */
#define LOCK_SOME \
	"SELECT s.stream_no FROM mako.stream s" \
	" WHERE s.stream_no OPERATOR(pg_catalog.=) ANY ($1) AND s.workflow_id OPERATOR(pg_catalog.=) $2 ORDER BY s.stream_no FOR NO KEY UPDATE"

static MakoStatement lock_some = {LOCK_SOME, 2, {INT8ARRAYOID, TEXTOID}, true};
static MakoStatement lock_free = {LOCK_SOME " SKIP LOCKED", 2, {INT8ARRAYOID, TEXTOID}, true};

/* Heads that are locked already, once more. */
static MakoStatement select_heads_again = {
	HEAD(NAMES, NO_TID) " WHERE s.stream_no OPERATOR(pg_catalog.=) ANY ($1) ORDER BY s.stream_no",
	1, {INT8ARRAYOID}, true
};

static MakoStatement select_stream_id = {
	"SELECT s.stream_id FROM mako.stream s WHERE s.stream_no OPERATOR(pg_catalog.=) $1", 1, {INT8OID}
};

/*
 * The state that a stream starts from. Newest first: what was folded furthest, and of that what
 * was written last. A snapshot of a run that left the heads alone is no boundary, and a periodic
 * one from beyond the head or of another workflow is of no use. For many streams, the range lets
 * the planner read a dense batch in one index scan instead of looking up every stream; the plan
 * for one can be kept.
 */
#define STATE_COLUMNS(workflow_id) \
	"n.stream_no, n.sequence_number, n.state, n.state_schema_version, n.workflow_id OPERATOR(pg_catalog.<>) " workflow_id
#define IS_STATE(version, workflow_id, periodic_too, moved) \
	"n.reverted_by IS NULL" \
	" AND CASE n.run_id WHEN 0 THEN " periodic_too " AND n.sequence_number OPERATOR(pg_catalog.<=) " version \
	" AND n.workflow_id OPERATOR(pg_catalog.=) " workflow_id \
	" ELSE " moved " END"

static MakoStatement select_state = {
	"SELECT " STATE_COLUMNS("$3") " FROM mako.snapshot n WHERE n.stream_no OPERATOR(pg_catalog.=) $1 AND " IS_STATE("$2", "$3", "$4",
																													"EXISTS (SELECT FROM mako.migration_run r WHERE r.run_id OPERATOR(pg_catalog.=) n.run_id AND r.update_registry)")
	" ORDER BY n.sequence_number DESC, n.run_id DESC LIMIT 1",
	4, {INT8OID, INT8OID, TEXTOID, BOOLOID}
};

static MakoStatement select_states = {
	"SELECT DISTINCT ON (n.stream_no) " STATE_COLUMNS("h.workflow_id")
	" FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4))"
	" AS h (stream_no, version, workflow_id, periodic_too)"
	" JOIN mako.snapshot n ON n.stream_no OPERATOR(pg_catalog.=) h.stream_no"
	" WHERE n.stream_no OPERATOR(pg_catalog.>=) $5 AND n.stream_no OPERATOR(pg_catalog.<=) $6 AND "
	IS_STATE("h.version", "h.workflow_id", "h.periodic_too",
			 "n.run_id OPERATOR(pg_catalog.=) ANY (SELECT r.run_id FROM mako.migration_run r WHERE r.update_registry)")
	" ORDER BY n.stream_no, n.sequence_number DESC, n.run_id DESC",
	6, {INT8ARRAYOID, INT8ARRAYOID, TEXTARRAYOID, BOOLARRAYOID, INT8OID, INT8OID}, true
};

const char *const mako_event_columns[MAKO_EVENT_COLUMNS] = {
	"stream_no", "sequence_number", "workflow_id", "event_type", "schema_version", "payload"
};

/* The same for statements, and their types there. */
#define EVENT_COLUMNS "v.stream_no, v.sequence_number, v.workflow_id, v.event_type, v.schema_version, v.payload"

static const Oid event_types[MAKO_EVENT_COLUMNS] = {
	INT8OID, INT8OID, TEXTOID, TEXTOID, INT4OID, JSONBOID
};

static MakoStatement select_events_of_one = {
	"SELECT " EVENT_COLUMNS " FROM mako.event v"
	" WHERE v.stream_no OPERATOR(pg_catalog.=) $1 AND v.sequence_number OPERATOR(pg_catalog.>) $2 ORDER BY v.sequence_number",
	2, {INT8OID, INT8OID}
};

/*
 * The lateral subquery can only be the inner side of a nested loop, so the order of the heads is
 * kept.
 */
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

/* Streams with events beyond their heads, in a range of numbers. */
static MakoStatement select_beyond = {
	"SELECT s.stream_no FROM mako.stream s"
	" WHERE s.stream_no OPERATOR(pg_catalog.>=) $1 AND s.stream_no OPERATOR(pg_catalog.<=) $2 AND EXISTS ("
	"  SELECT FROM mako.event v"
	"  WHERE v.stream_no OPERATOR(pg_catalog.=) s.stream_no AND v.sequence_number OPERATOR(pg_catalog.>) s.version)",
	2, {INT8OID, INT8OID}, true
};

/* The moves of some streams without a snapshot of their last event, in the order of the runs. */
static MakoStatement select_repointed = {
	"SELECT p.stream_no, p.sequence_number, r.source_wf, r.target_wf"
	" FROM mako.repointed p JOIN mako.migration_run r ON r.run_id OPERATOR(pg_catalog.=) p.run_id"
	" WHERE p.stream_no OPERATOR(pg_catalog.=) ANY ($1) AND p.reverted_by IS NULL ORDER BY p.stream_no, p.run_id",
	1, {INT8ARRAYOID}, true
};

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
	MemoryContext context;
	MakoEventIndex *lookup;		/* NULL where events are gathered, or where a statement reads them */
	bool		looking_up;		/* the events of event.stream_no */
	MakoCursor *cursor;			/* of that statement, or NULL */
	MakoRows	rows;
	uint64		next;			/* row of rows */
	MakoEvent	event;			/* the one at next, unless at_end */
	bool		at_end;
};

/*
 * Opens the cursor over the heads that run under some workflows, with the active snapshot; with
 * names, they tell those of their streams.
 */
MakoCursor *
mako_stream_open_heads(const char *const *workflow_ids, int count, const pg_uuid_t *tenant_id, bool with_names)
{
	Datum		values[] = {
		mako_text_array(workflow_ids, count), UUIDPGetDatum(tenant_id), (Datum) 0
	};

	return mako_cursor_open(with_names ? &select_named : &select_bare, values,
							tenant_id == NULL ? " nn" : "  n", false);
}

/* The same over some of them, with names: so many, chosen by a seed. */
MakoCursor *
mako_stream_open_sample(const char *workflow_id, const pg_uuid_t *tenant_id, int64 size, int64 seed)
{
	Datum		values[] = {CStringGetTextDatum(workflow_id), UUIDPGetDatum(tenant_id), Int64GetDatum(seed), Int64GetDatum(size)};

	return mako_cursor_open(&select_sample, values, tenant_id == NULL ? " n  " : NULL, false);
}

/* The numbers in a result. */
static int64 *
read_numbers(MakoRows rows, int *count)
{
	int64	   *numbers = palloc(sizeof(int64) * (rows.count + 1));

	*count = (int) rows.count;
	for (int i = 0; i < *count; i++)
		numbers[i] = mako_row_bigint(&rows, i, 1);
	mako_rows_free(&rows);
	return numbers;
}

/*
 * The next streams of a run in a range that run under a workflow, at most as many as *count, which
 * tells how many there are; without those that a later run has brought there, and with
 * but_not_failed without those that the run failed on.
 */
int64 *
mako_stream_next(const char *workflow_id, const pg_uuid_t *tenant_id, int64 after, int64 through, int64 run_id, bool but_not_failed,
				 int *count)
{
	Datum		values[] = {
		CStringGetTextDatum(workflow_id), UUIDPGetDatum(tenant_id), Int64GetDatum(after), Int64GetDatum(through), Int32GetDatum(*count),
		Int64GetDatum(run_id), BoolGetDatum(but_not_failed)
	};
	const char *nulls = tenant_id == NULL ? " n     " : NULL;

	return read_numbers(mako_sql_query(&select_next, values, nulls), count);
}

/*
 * Locks those of some heads that run under a workflow, with a new snapshot, and tells which. A
 * transaction that has one is waited for so many milliseconds, which then is error 55P03; or it is
 * left out, where that is negative.
 */
int64 *
mako_stream_lock_some(const int64 *stream_nos, int count, const char *workflow_id, int wait, int *locked_count)
{
	Datum		values[] = {
		mako_bigint_array(stream_nos, count), CStringGetTextDatum(workflow_id)
	};

	return read_numbers(wait < 0 ? mako_sql_query(&lock_free, values, NULL) : mako_sql_query_waiting(&lock_some, values, NULL, wait),
						locked_count);
}

/*
 * Opens the cursor over the heads of some workflows, with a new snapshot: each head is locked when
 * it is fetched. Where it is known which ones match (found is not NULL), they are looked up.
 */
MakoCursor *
mako_stream_open_locking(const char *const *sources, int count, const pg_uuid_t *tenant_id, const int64 *found, int found_count,
						 bool with_names)
{
	Relation	relation = table_open(mako_door_table("stream"), AccessShareLock);
	bool		has_tid = mako_door_read_obstacle(relation) == NULL;
	MakoStatement *statement = has_tid ? (with_names ? &lock_whole : &lock_placed) :
		(with_names ? &lock_named : &lock_bare);
	Datum		values[] = {
		mako_text_array(sources, count), UUIDPGetDatum(tenant_id),
		found == NULL ? (Datum) 0 : mako_bigint_array(found, found_count)
	};
	const char	nulls[] = {' ', tenant_id == NULL ? 'n' : ' ', found == NULL ? 'n' : ' '};

	table_close(relation, NoLock);
	return mako_cursor_open(statement, values, nulls, true);
}

/* The id of a stream, in the current memory context. */
char *
mako_stream_id(int64 stream_no)
{
	Datum		value = Int64GetDatum(stream_no);
	MakoRows	rows = mako_sql_query(&select_stream_id, &value, NULL);
	char	   *stream_id = mako_row_text(&rows, 0, 1);

	mako_rows_free(&rows);
	return stream_id;
}

/* The numbers of some streams, as bigint[]. */
Datum
mako_stream_numbers(const MakoStream *streams, int count)
{
	int64	   *numbers = palloc(sizeof(int64) * (count + 1));

	for (int i = 0; i < count; i++)
		numbers[i] = streams[i].stream_no;
	return mako_bigint_array(numbers, count);
}

/* Reads a head from a row of the statements above. */
static void
read_head(const MakoRows *rows, uint64 row, MakoStream *stream)
{
	ItemPointer tid;
	bool		isnull;

	memset(stream, 0, sizeof(MakoStream));
	stream->stream_no = mako_row_bigint(rows, row, 1);
	stream->version = mako_row_bigint(rows, row, 2);
	stream->stream_id = mako_row_text(rows, row, 4);
	stream->tenant_id = mako_row_uuid(rows, row, 5);
	stream->process_id = mako_row_uuid(rows, row, 6);
	tid = (ItemPointer) DatumGetPointer(mako_row_value(rows, row, 7, TIDOID, &isnull));
	if (!isnull)
		stream->tid = *tid;
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
	if (rows.count == 0)
		raise_no_stream(stream_id);
	read_head(&rows, 0, stream);
	stream->workflow_id = mako_row_text(&rows, 0, 3);
	mako_rows_free(&rows);
}

/*
 * Finds a stream that the caller may see by its id (text), with the active snapshot; an error when
 * there is none.
 */
void
mako_stream_find(Datum stream_id, MakoStream *stream)
{
	(void) mako_door_table("stream");
	read_one_head(mako_sql_query_snapshot(&select_head, &stream_id, NULL), stream_id, stream);
}

/*
 * Finds a stream that the caller may see, and locks its head, as the owner of the table where the
 * caller may not; reads it as it is now.
 */
void
mako_stream_lock(Datum stream_id, MakoStream *stream)
{
	Oid			relation = mako_door_table("stream");
	bool		may_lock = pg_class_aclcheck(relation, GetUserId(), ACL_UPDATE) == ACLCHECK_OK &&
		check_enable_rls(relation, InvalidOid, true) == RLS_NONE;
	MakoGate	gate;

	if (!may_lock)
	{
		read_one_head(mako_sql_query(&select_head, &stream_id, NULL), stream_id, stream);
		gate = mako_gate_enter(mako_door_open_tables(mako_door_tables_in("mako.stream")));
	}
	read_one_head(mako_sql_query(&lock_head, &stream_id, NULL), stream_id, stream);
	if (!may_lock)
		mako_gate_leave(&gate);
}

/* Finds which of some workflows, in the order of their names, is the one in a row. */
static int
find_source(const MakoRows *rows, uint64 row, int column, const char *const *sources, int count)
{
	bool		isnull;
	const text *workflow_id = (const text *) DatumGetTextPP(mako_row_value(rows, row, column, TEXTOID, &isnull));
	int			length = VARSIZE_ANY_EXHDR(workflow_id);
	int			low = 0;
	int			high = count - 1;

	while (low < high)
	{
		int			middle = low + (high - low) / 2;
		int			order = strncmp(sources[middle], VARDATA_ANY(workflow_id), length);

		if (order < 0)
			low = middle + 1;
		else if (order > 0 || sources[middle][length] != '\0')
			high = middle;
		else
			return middle;
	}
	return low;
}

/*
 * Reads the heads of a result; sources are the workflows that they run under. Returns how many
 * there are.
 */
static int
read_heads(MakoRows rows, const char *const *sources, int source_count, MakoStream *streams)
{
	int			count = (int) rows.count;

	for (int i = 0; i < count; i++)
	{
		read_head(&rows, i, &streams[i]);
		streams[i].source = find_source(&rows, i, 3, sources, source_count);
		streams[i].workflow_id = sources[streams[i].source];
	}
	mako_rows_free(&rows);
	return count;
}

/*
 * Fetches (and locks, if the cursor does) the next heads; they are allocated in the current memory
 * context. The sources are those of the cursor, in the order of their names. Returns how many; 0
 * at the end.
 */
int
mako_stream_fetch_heads(MakoCursor *cursor, const char *const *sources, int source_count, MakoStream *streams, int capacity)
{
	return read_heads(mako_cursor_fetch(cursor, capacity), sources, source_count, streams);
}

/* Reads heads that are locked already once more, with the active snapshot. */
int
mako_stream_fetch_heads_again(const int64 *stream_nos, int count, const char *const *sources, int source_count, MakoStream *streams)
{
	Datum		parameter = mako_bigint_array(stream_nos, count);

	return read_heads(mako_sql_query_snapshot(&select_heads_again, &parameter, NULL), sources, source_count, streams);
}

/* Queries the states of some streams: of one by values, of many by arrays of them. */
static MakoRows
query_states(const MakoStream *streams, int count)
{
	static const Oid types[] = {INT8OID, INT8OID, TEXTOID, BOOLOID};
	Datum	   *columns[lengthof(types)];
	Datum		values[lengthof(types) + 2];

	for (size_t column = 0; column < lengthof(types); column++)
		columns[column] = palloc(sizeof(Datum) * count);
	for (int i = 0; i < count; i++)
	{
		bool		is_same = i > 0 && streams[i].workflow_id == streams[i - 1].workflow_id;

		columns[0][i] = Int64GetDatum(streams[i].stream_no);
		columns[1][i] = Int64GetDatum(streams[i].version);
		columns[2][i] = is_same ? columns[2][i - 1] : CStringGetTextDatum(streams[i].workflow_id);
		columns[3][i] = BoolGetDatum(streams[i].periodic_too);
	}
	for (size_t column = 0; column < lengthof(types); column++)
		values[column] = count == 1 ? columns[column][0] :
			mako_array(columns[column], NULL, count, types[column]);
	values[4] = Int64GetDatum(streams[0].stream_no);
	values[5] = Int64GetDatum(streams[count - 1].stream_no);
	return mako_sql_query_snapshot(count == 1 ? &select_state : &select_states, values, NULL);
}

/*
 * Finds the stored state that each stream starts from: its boundary, or where periodic_too is set
 * the newest state there is. Reads with the active snapshot.
 */
void
mako_stream_load_states(MakoStream *streams, int count)
{
	MakoRows	rows = query_states(streams, count);
	int			i = 0;

	/* Both are in stream_no order. */
	for (uint64 row = 0; row < rows.count; row++)
	{
		int64		stream_no = mako_row_bigint(&rows, row, 1);
		struct varlena *state = (struct varlena *) DatumGetPointer(mako_row_jsonb(&rows, row, 3));

		while (streams[i].stream_no != stream_no)
			i++;
		streams[i].start = mako_row_bigint(&rows, row, 2);

		/*
		 * Copied as it is stored: a damaged toasted value must fail its own stream, when it is
		 * read.
		 */
		streams[i].start_state = PointerGetDatum(memcpy(palloc(VARSIZE_ANY(state)), state, VARSIZE_ANY(state)));
		streams[i].start_schema_version = mako_row_integer(&rows, row, 4);
		streams[i].boundary_missing = mako_row_boolean(&rows, row, 5);
	}
	mako_rows_free(&rows);
}

/*
 * The numbers of the streams in a range that have events beyond their heads, with the active
 * snapshot.
 */
MakoRows
mako_stream_find_beyond(int64 first, int64 last)
{
	Datum		values[] = {Int64GetDatum(first), Int64GetDatum(last)};

	return mako_sql_query_snapshot(&select_beyond, values, NULL);
}

/* Meets the privileges and policies that reading events needs. */
void
mako_stream_rehearse(void)
{
	if (!mako_event_index_is_possible())
		mako_sql_check(&select_events);
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
	Datum		values[2];
	int			wanted = 0;

	for (int i = 0; i < count; i++)
	{
		if (has_apply != NULL && !has_apply[streams[i].source])
			continue;
		stream_nos[wanted] = streams[i].stream_no;
		starts[wanted++] = streams[i].start;
	}
	values[0] = wanted == 1 ? Int64GetDatum(stream_nos[0]) : mako_bigint_array(stream_nos, wanted);
	values[1] = wanted == 1 ? Int64GetDatum(starts[0]) : mako_bigint_array(starts, wanted);
	return mako_cursor_open(wanted == 1 ? &select_events_of_one : &select_events, values, NULL,
							false);
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

/* Takes the event whose stream is known from the values of its other columns. */
static const MakoEvent *
take_values(MakoReader *reader, const Datum *values, const bool *nulls)
{
	MakoEvent  *event = &reader->event;

	event->sequence_number = DatumGetInt64(values[MAKO_EVENT_SEQUENCE_NUMBER]);
	for (int i = MAKO_EVENT_SEQUENCE_NUMBER; i < MAKO_EVENT_COLUMNS; i++)
		require_value(reader, nulls[i], mako_event_columns[i]);
	event->workflow_id = values[MAKO_EVENT_WORKFLOW_ID];
	event->event_type = values[MAKO_EVENT_TYPE];
	event->schema_version = DatumGetInt32(values[MAKO_EVENT_SCHEMA_VERSION]);
	event->payload = values[MAKO_EVENT_PAYLOAD];
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
	Datum		values[MAKO_EVENT_COLUMNS];
	bool		nulls[MAKO_EVENT_COLUMNS];

	if (!reader->looking_up || event->stream_no != stream_no)
	{
		while (reader->streams[reader->at].stream_no != stream_no)
			reader->at++;
		mako_event_index_stream(reader->lookup, stream_no, reader->streams[reader->at].start);
		event->stream_no = stream_no;
		reader->looking_up = true;
		reader->at_end = false;
	}
	if (reader->at_end || !mako_event_index_next(reader->lookup, values, nulls))
	{
		reader->at_end = true;
		return NULL;
	}
	return take_values(reader, values, nulls);
}

/* The next event of this stream from the cursor. */
static const MakoEvent *
next_fetched(MakoReader *reader, int64 stream_no)
{
	const MakoEvent *event;
	Datum		values[MAKO_EVENT_COLUMNS];
	bool		nulls[MAKO_EVENT_COLUMNS];

	if (!go_to_stream(reader, stream_no) || reader->event.stream_no != stream_no)
		return NULL;
	for (int i = MAKO_EVENT_SEQUENCE_NUMBER; i < MAKO_EVENT_COLUMNS; i++)
		values[i] = mako_row_value(&reader->rows, reader->next, i + 1, event_types[i], &nulls[i]);
	event = take_values(reader, values, nulls);
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

/* Reads the moves without a snapshot, of all streams of a reader: hardly anybody asks. */
static void
load_repointings(MakoReader *reader)
{
	Datum		parameter = mako_stream_numbers(reader->streams, reader->count);
	MakoRows	rows = mako_sql_query_snapshot(&select_repointed, &parameter, NULL);
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

		if (repointing->sequence_number >= event->sequence_number && strcmp(repointing->source_wf, workflow_id) == 0)
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
