/*
 * heads.c
 *	  Heads: found and locked, in the order of their numbers.
 *
 * Heads come from one cursor over the whole pass, so that they are found in one pass whichever
 * plan the server takes. What is read of each is what its caller needs and may read.
 */
#include "read/read.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/rls.h"

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

/* Those of a worker: a range, and a share. */
#define OF_PART(part) \
	" WHERE s.workflow_id OPERATOR(pg_catalog.=) ANY ($1)" \
	" AND ($2 IS NULL OR s.tenant_id OPERATOR(pg_catalog.=) $2)" part " ORDER BY s.stream_no", \
	4, {TEXTARRAYOID, UUIDOID, INT8OID, INT8OID}, true
#define OF_RANGE \
	OF_PART(" AND s.stream_no OPERATOR(pg_catalog.>=) $3" \
			" AND s.stream_no OPERATOR(pg_catalog.<=) $4")

/* The dimensions are whether they have names, and whether they have places. */
static MakoStatement select_range[2][2] = {
	{{HEAD(NO_NAMES, NO_TID) OF_RANGE}, {HEAD(NO_NAMES, TID) OF_RANGE}},
	{{HEAD(NAMES, NO_TID) OF_RANGE}, {HEAD(NAMES, TID) OF_RANGE}},
};

static MakoStatement select_share = {
	HEAD(NAMES, NO_TID)
	OF_PART(" AND " MAKO_IN_SHARE("s.stream_no", "$3", "$4"))
};

/* Some of them, the same for the same seed. */
static MakoStatement select_sample = {
	"SELECT * FROM (" HEAD(NAMES, NO_TID)
	" WHERE s.workflow_id OPERATOR(pg_catalog.=) $1"
	" AND ($2 IS NULL OR s.tenant_id OPERATOR(pg_catalog.=) $2)"
	" ORDER BY pg_catalog.hashint8extended(s.stream_no, $3), s.stream_no LIMIT $4) AS h"
	" ORDER BY h.stream_no",
	4, {TEXTOID, UUIDOID, INT8OID, INT8OID}, true
};

/*
 * The streams that a batch of a run is made of, by their numbers. One that a later run has brought
 * is not among them: of the runs that moved a stream, the last one has the highest number. The
 * second time around, those that have failed are left alone.
 */
#define LATER_RUNS \
	"SELECT r.run_id FROM mako.migration_run r" \
	" WHERE r.run_id OPERATOR(pg_catalog.>) $6 AND r.target_wf OPERATOR(pg_catalog.=) $1" \
	" AND r.update_registry"
#define IS_OF_LATER_RUN(row) \
	row ".stream_no OPERATOR(pg_catalog.=) s.stream_no" \
	" AND " row ".run_id OPERATOR(pg_catalog.=) ANY (" LATER_RUNS ")"

#define SELECT_NEXT(head) \
	head \
	" WHERE s.workflow_id OPERATOR(pg_catalog.=) $1" \
	" AND ($2 IS NULL OR s.tenant_id OPERATOR(pg_catalog.=) $2)" \
	" AND s.stream_no OPERATOR(pg_catalog.>) $3 AND s.stream_no OPERATOR(pg_catalog.<=) $4" \
	" AND (NOT EXISTS (" LATER_RUNS ")" \
	"  OR (NOT EXISTS (SELECT FROM mako.snapshot n WHERE " IS_OF_LATER_RUN("n") ")" \
	"   AND NOT EXISTS (SELECT FROM mako.repointed p WHERE " IS_OF_LATER_RUN("p") ")" \
	"   AND NOT EXISTS (SELECT FROM mako.reverted u" \
	"    WHERE u.stream_no OPERATOR(pg_catalog.=) s.stream_no" \
	"    AND u.reverted_by OPERATOR(pg_catalog.=) ANY (" LATER_RUNS "))))" \
	" AND NOT EXISTS (SELECT FROM mako.migration_error e" \
	"  WHERE $7 AND e.run_id OPERATOR(pg_catalog.=) $6" \
	"  AND e.stream_no OPERATOR(pg_catalog.=) s.stream_no)" \
	" ORDER BY s.stream_no LIMIT $5", \
	7, {TEXTOID, UUIDOID, INT8OID, INT8OID, INT4OID, INT8OID, BOOLOID}, true,.way = MAKO_BY_KEYS

static MakoStatement select_next = {SELECT_NEXT("SELECT s.stream_no FROM mako.stream s")};
static MakoStatement select_next_bare = {SELECT_NEXT(HEAD(NO_NAMES, NO_TID))};
static MakoStatement select_next_named = {SELECT_NEXT(HEAD(NAMES, NO_TID))};

/* Those of some streams that no other transaction has locked, or all of them. */
#define LOCK_SOME(locked) \
	MAKO_FOR_EACH "SELECT s.stream_no FROM mako.stream s" \
	" WHERE s.stream_no OPERATOR(pg_catalog.=) o.stream_no" \
	" AND s.workflow_id OPERATOR(pg_catalog.=) $2" MAKO_END_EACH_LOCKED(locked), \
	2, {INT8ARRAYOID, TEXTOID}, true

static MakoStatement lock_some = {LOCK_SOME(LOCKED)};
static MakoStatement lock_free = {LOCK_SOME(LOCKED " SKIP LOCKED")};

/*
 * Some heads as they are now: each looked up; or where they are dense, out of their range, in one
 * scan of the index. The addition keeps the server from looking up each there, too.
 */
#define HEADS_EACH(names, tid, condition, locked) \
	MAKO_FOR_EACH HEAD(names, tid) " WHERE s.stream_no OPERATOR(pg_catalog.=) o.stream_no" \
	condition MAKO_END_EACH_LOCKED(locked)
#define HEADS_DENSE(names, tid, condition, locked) \
	HEAD(names, tid) \
	" WHERE s.stream_no OPERATOR(pg_catalog.>=) $2 AND s.stream_no OPERATOR(pg_catalog.<=) $3" \
	" AND (s.stream_no OPERATOR(pg_catalog.+) 0) OPERATOR(pg_catalog.=) ANY ($1)" \
	condition " ORDER BY s.stream_no" locked
#define BY_RANGE(count) count, {INT8ARRAYOID, INT8OID, INT8OID, TEXTOID}, true,.way = MAKO_BY_KEYS

/* Locked, whatever they run under; the first dimension is whether they are dense. */
static MakoStatement lock_all[2][2] = {
	{
		{HEADS_EACH(NAMES, NO_TID, "", LOCKED), BY_RANGE(3)},
		{HEADS_EACH(NAMES, TID, "", LOCKED), BY_RANGE(3)},
	},
	{
		{HEADS_DENSE(NAMES, NO_TID, "", LOCKED), BY_RANGE(3)},
		{HEADS_DENSE(NAMES, TID, "", LOCKED), BY_RANGE(3)},
	}
};

/* Those that run under a workflow, and that no other transaction has locked. */
#define OF_WORKFLOW " AND s.workflow_id OPERATOR(pg_catalog.=) $4"

static MakoStatement lock_all_free[2][2] = {
	{
		{HEADS_EACH(NO_NAMES, NO_TID, OF_WORKFLOW, LOCKED " SKIP LOCKED"), BY_RANGE(4)},
		{HEADS_EACH(NO_NAMES, TID, OF_WORKFLOW, LOCKED " SKIP LOCKED"), BY_RANGE(4)},
	},
	{
		{HEADS_DENSE(NO_NAMES, NO_TID, OF_WORKFLOW, LOCKED " SKIP LOCKED"), BY_RANGE(4)},
		{HEADS_DENSE(NO_NAMES, TID, OF_WORKFLOW, LOCKED " SKIP LOCKED"), BY_RANGE(4)},
	}
};

/* Heads that are locked already, once more. */
static MakoStatement select_heads_again = {
	HEADS_EACH(NAMES, NO_TID, "", ""), 1, {INT8ARRAYOID}, true
};

static MakoStatement select_stream_id = {
	"SELECT s.stream_id FROM mako.stream s WHERE s.stream_no OPERATOR(pg_catalog.=) $1",
	1, {INT8OID}
};

/* Returns true if the current role may know where the heads lie. */
static bool
may_know_tids(void)
{
	Relation	relation = table_open(mako_door_table("stream"), AccessShareLock);
	bool		may_know = mako_door_read_obstacle(relation, false) == NULL;

	table_close(relation, NoLock);
	return may_know;
}

/*
 * Opens the cursor over the heads that run under some workflows, with the active snapshot; with
 * names, they tell those of their streams. Those of a share have names.
 */
MakoCursor *
mako_stream_open_heads(const char *const *workflow_ids, int count, const pg_uuid_t *tenant_id,
					   bool with_names, const MakoShare *share)
{
	NullableDatum values[4] = {mako_text_array(workflow_ids, count), mako_uuid(tenant_id)};

	if (share == NULL)
	{
		values[2] = mako_null();
		return mako_cursor_open(with_names ? &select_named : &select_bare, values, false);
	}
	values[2] = mako_bigint(share->number);
	values[3] = mako_bigint(share->count);
	return mako_cursor_open(&select_share, values, false);
}

/* The same over those of a range, which tell where they lie if the current role may know. */
MakoCursor *
mako_stream_open_range(const char *const *workflow_ids, int count, const pg_uuid_t *tenant_id,
					   bool with_names, const MakoRange *range)
{
	NullableDatum values[] = {
		mako_text_array(workflow_ids, count), mako_uuid(tenant_id), mako_bigint(range->first),
		mako_bigint(range->last)
	};

	return mako_cursor_open(&select_range[with_names][may_know_tids()], values, false);
}

/* The same over some of them, with names: so many, chosen by a seed. */
MakoCursor *
mako_stream_open_sample(const char *workflow_id, const pg_uuid_t *tenant_id, int64 size, int64 seed)
{
	NullableDatum values[] = {
		mako_text(workflow_id), mako_uuid(tenant_id), mako_bigint(seed), mako_bigint(size)
	};

	return mako_cursor_open(&select_sample, values, false);
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
mako_stream_next(const char *workflow_id, const pg_uuid_t *tenant_id, int64 after, int64 through,
				 int64 run_id, bool but_not_failed, int *count)
{
	NullableDatum values[] = {
		mako_text(workflow_id), mako_uuid(tenant_id), mako_bigint(after), mako_bigint(through),
		mako_integer(*count), mako_bigint(run_id), mako_boolean(but_not_failed)
	};

	return read_numbers(mako_sql_query(&select_next, values), count);
}

/*
 * Locks those of some heads that run under a workflow, with a new snapshot, and tells which. A
 * transaction that has one is waited for so many milliseconds, which then is error 55P03; or it is
 * left out, where that is negative.
 */
int64 *
mako_stream_lock_some(const int64 *stream_nos, int count, const char *workflow_id, int wait,
					  int *locked_count)
{
	NullableDatum values[] = {
		mako_bigint_array(stream_nos, count), mako_text(workflow_id)
	};

	return read_numbers(wait < 0 ? mako_sql_query(&lock_free, values) :
						mako_sql_query_waiting(&lock_some, values, wait),
						locked_count);
}

/*
 * Opens the cursor over the heads of some workflows, with a new snapshot: each head is locked when
 * it is fetched. Where it is known which ones match (found is not NULL), they are looked up.
 */
MakoCursor *
mako_stream_open_locking(const char *const *sources, int count, const pg_uuid_t *tenant_id,
						 const int64 *found, int found_count, bool with_names)
{
	MakoStatement *statement = may_know_tids() ? (with_names ? &lock_whole : &lock_placed) :
		(with_names ? &lock_named : &lock_bare);
	NullableDatum values[] = {
		mako_text_array(sources, count), mako_uuid(tenant_id),
		found == NULL ? mako_null() : mako_bigint_array(found, found_count)
	};

	return mako_cursor_open(statement, values, true);
}

/* The id of a stream, in the current memory context. */
char *
mako_stream_id(int64 stream_no)
{
	NullableDatum value = mako_bigint(stream_no);
	MakoRows	rows = mako_sql_query(&select_stream_id, &value);
	char	   *stream_id = mako_row_text(&rows, 0, 1);

	mako_rows_free(&rows);
	return stream_id;
}

/* The numbers of some streams, as bigint[]. */
NullableDatum
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
	NullableDatum tid = mako_row_value(rows, row, 7, TIDOID);

	memset(stream, 0, sizeof(MakoStream));
	stream->stream_no = mako_row_bigint(rows, row, 1);
	stream->version = mako_row_bigint(rows, row, 2);
	stream->stream_id = mako_row_text(rows, row, 4);
	stream->tenant_id = mako_row_uuid(rows, row, 5);
	stream->process_id = mako_row_uuid(rows, row, 6);
	if (!tid.isnull)
		stream->tid = *(ItemPointer) DatumGetPointer(tid.value);
}

/* Locks some heads, at least one, by one of these statements. */
static MakoRows
lock_heads(MakoStatement (*statements)[2], const int64 *stream_nos, int count,
		   const char *workflow_id)
{
	int64		last = stream_nos[count - 1];
	NullableDatum values[] = {
		mako_bigint_array(stream_nos, count), mako_bigint(stream_nos[0]), mako_bigint(last),
		mako_text(workflow_id)
	};
	bool		dense = mako_numbers_are_dense(stream_nos[0], last, count);

	return mako_sql_query(&statements[dense][may_know_tids()], values);
}

/*
 * Locks some heads, which are told in the order of their numbers, with a new snapshot, and reads
 * them; returns how many of them there are.
 */
int
mako_stream_lock_heads(const int64 *stream_nos, int count, MakoStream *streams)
{
	MakoRows	rows = lock_heads(lock_all, stream_nos, count, NULL);
	int			found = (int) rows.count;

	for (int i = 0; i < found; i++)
	{
		read_head(&rows, i, &streams[i]);
		streams[i].workflow_id = mako_row_text(&rows, i, 3);
	}
	mako_rows_free(&rows);
	return found;
}

/* Raises that there is no stream of this id, or none that the caller may see. */
static void
raise_no_stream(Datum stream_id)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("stream \"%s\" does not exist", TextDatumGetCString(stream_id)),
			 errhint("The stream of a process is process/<tenant id>/<process id>; "
					 "mako_spawn() starts one.")));
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
	NullableDatum value = mako_datum(stream_id);

	(void) mako_door_table("stream");
	read_one_head(mako_sql_query_snapshot(&select_head, &value), stream_id, stream);
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
	NullableDatum value = mako_datum(stream_id);
	MakoGate	gate;

	if (!may_lock)
	{
		read_one_head(mako_sql_query(&select_head, &value), stream_id, stream);
		gate = mako_gate_enter(mako_door_open_tables(mako_door_tables_in("mako.stream")));
	}
	read_one_head(mako_sql_query(&lock_head, &value), stream_id, stream);
	if (!may_lock)
		mako_gate_leave(&gate);
}

/* Finds which of some workflows, in the order of their names, is the one in a row. */
static int
find_source(const MakoRows *rows, uint64 row, int column, const char *const *sources, int count)
{
	const text *workflow_id = (const text *) DatumGetTextPP(mako_row_value(rows, row, column,
																		   TEXTOID).value);
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
 * The next heads of a run in a range, as mako_stream_next() chooses them; at most so many, in the
 * current memory context. Returns how many.
 */
int
mako_stream_next_heads(const char *const *source, const pg_uuid_t *tenant_id, int64 after,
					   int64 through, int64 run_id, bool but_not_failed, bool with_names,
					   MakoStream *streams, int capacity)
{
	MakoStatement *select = with_names ? &select_next_named : &select_next_bare;
	NullableDatum values[] = {
		mako_text(source[0]), mako_uuid(tenant_id), mako_bigint(after), mako_bigint(through),
		mako_integer(capacity), mako_bigint(run_id), mako_boolean(but_not_failed)
	};

	return read_heads(mako_sql_query(select, values), source, 1, streams);
}

/*
 * Locks those of some heads that run under a workflow and that no other transaction has locked,
 * with a new snapshot, and reads them; returns how many.
 */
int
mako_stream_lock_free(const int64 *stream_nos, int count, const char *const *source,
					  MakoStream *streams)
{
	return read_heads(lock_heads(lock_all_free, stream_nos, count, source[0]), source, 1, streams);
}

/*
 * Fetches (and locks, if the cursor does) the next heads; they are allocated in the current memory
 * context. The sources are those of the cursor, in the order of their names. Returns how many; 0
 * at the end.
 */
int
mako_stream_fetch_heads(MakoCursor *cursor, const char *const *sources, int source_count,
						MakoStream *streams, int capacity)
{
	return read_heads(mako_cursor_fetch(cursor, capacity), sources, source_count, streams);
}

/* Reads heads that are locked already once more, with the active snapshot. */
int
mako_stream_fetch_heads_again(const int64 *stream_nos, int count, const char *const *sources,
							  int source_count, MakoStream *streams)
{
	NullableDatum parameter = mako_bigint_array(stream_nos, count);

	return read_heads(mako_sql_query_snapshot(&select_heads_again, &parameter), sources,
					  source_count, streams);
}
