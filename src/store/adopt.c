/*
 * adopt.c
 *	  mako_adopt_events() and mako_attach_heads(): heads for histories that are there already.
 *
 * An import of millions of events disables the trigger event_inserted and loads as fast as the
 * disk allows. What the trigger would have proved event by event is proved here for all of them at
 * once, and the heads are set. The histories of an attached event store are as its application
 * wrote them: heads are set whatever gaps there are, and those are counted.
 */
#include "store/new_events.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"

/* Keeps writers out, so that what is proved stays true until the heads are set. */
static MakoStatement lock_events = {"LOCK TABLE mako.event IN SHARE ROW EXCLUSIVE MODE", 0, {0}};

static MakoStatement check_ids = {
	"SELECT count(*) FROM (SELECT DISTINCT e.workflow_id FROM mako.event e) e"
	" WHERE NOT %s.mako_assert_workflow_id(e.workflow_id)",
	0, {0}, true
};

/*
 * What is to be adopted, one row for each of the problems below: how many streams and events, how
 * many of them span several workflows, and the first streams with the problem.
 */
static MakoStatement select_histories = {
	"SELECT p.problem, count(*), sum(p.last - p.version),"
	" count(*) FILTER (WHERE p.first_workflow <> p.last_workflow),"
	" array_to_string((array_agg(CASE p.problem"
	"         WHEN 1 THEN 'stream number ' || p.stream_no"
	"         WHEN 2 THEN '\"' || p.stream_id || '\" has ' || p.events || ' events, numbered '"
	"           || p.first || ' to ' || p.last"
	"         WHEN 3 THEN '\"' || p.stream_id || '\" is at version ' || p.version"
	"           || ' and has events up to ' || COALESCE(p.last, 0)"
	"         WHEN 4 THEN '\"' || p.stream_id || '\" runs under \"' || p.workflow_id || '\"' END"
	"       ORDER BY p.stream_no) FILTER (WHERE p.problem > 0))[1:10], ', ')"
	" FROM ("
	"   SELECT h.*, s.stream_id, s.version, s.workflow_id,"
	"   CASE WHEN s.stream_no IS NULL THEN 1"
	"     WHEN h.stream_no IS NULL AND s.version > 0 THEN 3"
	"     WHEN h.first <> 1 OR h.last <> h.events THEN 2"
	"     WHEN h.last < s.version THEN 3"
	"     WHEN s.version > 0 AND h.last > s.version AND EXISTS (SELECT FROM mako.event n"
	"       WHERE n.stream_no = s.stream_no AND n.sequence_number > s.version"
	"       AND n.workflow_id <> s.workflow_id) THEN 4"
	"     ELSE 0 END AS problem"
	"   FROM (SELECT e.stream_no, count(*) AS events, min(e.sequence_number) AS first,"
	"     max(e.sequence_number) AS last,"
	"     min(e.workflow_id) AS first_workflow, max(e.workflow_id) AS last_workflow"
	"     FROM mako.event e GROUP BY e.stream_no) h"
	"   FULL JOIN mako.stream s ON s.stream_no = h.stream_no) p"
	" WHERE p.problem > 0 OR p.last > p.version"
	" GROUP BY p.problem ORDER BY p.problem DESC",
	0, {0}, true
};

static MakoStatement set_heads = {
	"WITH adopted AS ("
	"   UPDATE mako.stream s SET version = h.last,"
	"   workflow_id = CASE WHEN s.version > 0 THEN s.workflow_id ELSE"
	"   (SELECT e.workflow_id FROM mako.event e"
	"     WHERE e.stream_no = h.stream_no AND e.sequence_number = h.last) END"
	"   FROM (SELECT e.stream_no, max(e.sequence_number) AS last FROM mako.event e"
	"     GROUP BY e.stream_no) h"
	"   WHERE s.stream_no = h.stream_no AND s.version < h.last RETURNING s.workflow_id)"
	" SELECT a.workflow_id, count(*) FROM adopted a GROUP BY a.workflow_id ORDER BY a.workflow_id",
	0, {0}, true
};

/* What can be wrong with a history; the numbers are those of select_histories. */
typedef struct Problem
{
	int			sqlerrcode;
	const char *message;
	const char *hint;
} Problem;

static const Problem problems[] = {
	{0},
	{
		ERRCODE_UNDEFINED_OBJECT, "there are events of streams that do not exist",
		"Insert the streams' heads into mako.stream first."
	},
	{
		ERRCODE_DATA_CORRUPTED, "there are streams whose events are not numbered 1, 2, 3 ...",
		"Number the events of every stream without gap."
	},
	{
		ERRCODE_DATA_CORRUPTED, "there are streams whose last events are missing",
		"Load every event of a stream."
	},
	{
		MAKO_ERRCODE_STREAM_MOVED,
		"there are streams with new events of a workflow that they do not run under",
		"Only a stream without events can be given a history of another workflow."
	},
};

MAKO_FUNCTION(mako_adopt_events);

/*
 * Proves the invariants of all histories, and sets the heads of those that were loaded past the
 * triggers.
 */
Datum
mako_adopt_events(PG_FUNCTION_ARGS)
{
	MakoConnection connection;
	MakoRows	rows;
	TupleDesc	tupdesc;
	NullableDatum values[] = {mako_bigint(0), mako_bigint(0), mako_bigint(0)};

	mako_gate_require_change("mako_adopt_events()");
	mako_attached_forbid();
	tupdesc = mako_result_type(fcinfo);
	connection = mako_sql_connect();
	mako_store_check();
	/* This is maintenance: it goes through all events, as CREATE INDEX does. */
	mako_sql_set(connection, "work_mem", GetConfigOption("maintenance_work_mem", false, false));
	(void) mako_sql_execute(&lock_events, NULL);
	(void) mako_sql_execute(&check_ids, NULL);

	rows = mako_sql_query(&select_histories, NULL);
	if (rows.count > 0)
	{
		int			number = mako_row_integer(&rows, 0, 1);

		if (number > 0)
			ereport(ERROR,
					(errcode(problems[number].sqlerrcode),
					 errmsg_internal("%s", problems[number].message),
					 errdetail(INT64_FORMAT " streams, among them: %s.",
							   mako_row_bigint(&rows, 0, 2), mako_row_text(&rows, 0, 5)),
					 errhint("%s", problems[number].hint)));
		values[0] = mako_bigint(mako_row_bigint(&rows, 0, 2));
		values[1].value = DirectFunctionCall1(numeric_int8,
											  mako_row_value(&rows, 0, 3, NUMERICOID).value);
		values[2] = mako_bigint(mako_row_bigint(&rows, 0, 4));
	}
	mako_rows_free(&rows);

	rows = mako_store_query(&set_heads, NULL);
	for (uint64 row = 0; row < rows.count; row++)
		mako_fence_pass(mako_row_text(&rows, row, 1), MAKO_FENCE_ENTER);
	mako_rows_free(&rows);
	mako_sequence_catch_up();	/* with numbers that the import chose itself, past the triggers */
	mako_sql_disconnect(connection);
	PG_RETURN_DATUM(mako_result_row(tupdesc, values));
}

/* ---- an attached event store ---------------------------------------------------------------- */

/*
 * The histories of an attached event store in the order in which their first events lie in the
 * table, so that a run that reads the table meets streams in the order of their numbers. A stream
 * runs under what its last stamped event says.
 */
static MakoStatement select_attached = {
	"SELECT e.stream_id, (array_agg(e.tenant_id))[1],"
	" COALESCE((array_agg(e.workflow_id ORDER BY e.sequence_number DESC)"
	"   FILTER (WHERE e.workflow_id IS NOT NULL"
	"     AND %s.mako_assert_workflow_id(e.workflow_id)))[1], $1),"
	" max(e.sequence_number), min(e.sequence_number), count(*)"
	" FROM (SELECT a.stream_id, a.sequence_number, a.tenant_id, a.workflow_id,"
	"   row_number() OVER () AS place FROM mako.attached_event a) e"
	" WHERE e.stream_id IS NOT NULL AND e.sequence_number IS NOT NULL"
	" GROUP BY e.stream_id ORDER BY min(e.place)",
	1, {TEXTOID}, true
};

static MakoStatement insert_heads = {
	"INSERT INTO mako.stream (stream_id, tenant_id, workflow_id, version)"
	" SELECT u.stream_id, u.tenant_id, u.workflow_id, u.version"
	" FROM ROWS FROM (unnest($1), unnest($2), unnest($3), unnest($4)) WITH ORDINALITY"
	" AS u (stream_id, tenant_id, workflow_id, version, place)"
	" WHERE NOT EXISTS (SELECT FROM mako.stream s WHERE s.stream_id = u.stream_id)"
	" ORDER BY u.place",
	4, {TEXTARRAYOID, UUIDARRAYOID, TEXTARRAYOID, INT8ARRAYOID}, true
};

static MakoStatement select_any_head = {"SELECT FROM mako.stream LIMIT 1", 0, {0}};

/* Heads that were there already, and whose streams went on meanwhile, or have lost all events. */
static MakoStatement select_behind = {
	"SELECT s.stream_no, COALESCE(h.last, 0) FROM mako.stream s"
	" LEFT JOIN (SELECT e.stream_no, max(e.sequence_number) AS last FROM mako.event e"
	"   GROUP BY e.stream_no) h ON h.stream_no = s.stream_no"
	" WHERE s.version < h.last OR (h.last IS NULL AND s.version > 0)",
	0, {0}, true
};

static MakoStatement set_versions = {
	"UPDATE mako.stream s SET version = u.version"
	" FROM ROWS FROM (unnest($1), unnest($2)) AS u (stream_no, version)"
	" WHERE s.stream_no = u.stream_no",
	2, {INT8ARRAYOID, INT8ARRAYOID}, true
};

/* Rows that are fetched and written at once. */
#define AT_ONCE 10000

/* What attaching counts, in the order of its result. */
enum
{
	STREAMS,
	EVENTS,
	DAMAGED,
	GONE,
	COUNTS
};

/* Inserts the heads of some histories, and counts them. */
static void
adopt_histories(const MakoRows *rows, int64 *counts)
{
	static const Oid types[] = {TEXTOID, UUIDOID, TEXTOID, INT8OID};
	NullableDatum values[lengthof(types)];
	NullableDatum *column = palloc(sizeof(NullableDatum) * rows->count);
	MakoRows	inserted;

	for (uint64 row = 0; row < rows->count; row++)
	{
		int64		last = mako_row_bigint(rows, row, 4);
		int64		first = mako_row_bigint(rows, row, 5);
		int64		events = mako_row_bigint(rows, row, 6);

		if (first < 1)
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("there are events with a number below 1"),
					 errdetail("The first one of stream \"%s\" is " INT64_FORMAT ".",
							   mako_row_text(rows, row, 1), first),
					 errhint("Let the query number them 1, 2, 3 ..., as by position + 1.")));
		counts[STREAMS]++;
		counts[EVENTS] += events;
		counts[DAMAGED] += first != 1 || last != events;
	}
	for (size_t i = 0; i < lengthof(types); i++)
	{
		for (uint64 row = 0; row < rows->count; row++)
			column[row] = mako_row_value(rows, row, i + 1, types[i]);
		values[i] = mako_array(column, (int) rows->count, types[i]);
	}
	inserted = mako_store_adopt(&insert_heads, values, MAKO_FENCE_ENTER);
	mako_rows_free(&inserted);
}

/* Brings heads up to date that were there before, and counts those without an event. */
static void
catch_up(const MakoRows *rows, int64 *counts)
{
	int64	   *numbers = palloc(sizeof(int64) * rows->count);
	int64	   *versions = palloc(sizeof(int64) * rows->count);
	NullableDatum values[2];
	int			count = 0;

	for (uint64 row = 0; row < rows->count; row++)
	{
		numbers[count] = mako_row_bigint(rows, row, 1);
		versions[count] = mako_row_bigint(rows, row, 2);
		if (versions[count] == 0)
			counts[GONE]++;
		else
			count++;
	}
	values[0] = mako_bigint_array(numbers, count);
	values[1] = mako_bigint_array(versions, count);
	if (count > 0)
		(void) mako_store_write(&set_versions, values);
}

/*
 * Reads what a query finds to its end, and hands over some rows at a time. What is read is
 * evaluated by code of others, which writes nothing.
 */
static void
for_rows(MakoStatement *select, const NullableDatum *values,
		 void (*take) (const MakoRows *rows, int64 *counts), int64 *counts)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "mako histories",
												  ALLOCSET_DEFAULT_SIZES);
	MakoCursor *cursor = mako_cursor_open(select, values, true);
	MemoryContext old = MemoryContextSwitchTo(context);

	for (;;)
	{
		MakoRows	rows = mako_cursor_fetch(cursor, AT_ONCE);

		if (rows.count == 0)
			break;
		take(&rows, counts);
		mako_rows_free(&rows);
		MemoryContextReset(context);
	}
	MemoryContextSwitchTo(old);
	mako_cursor_close(cursor);
	MemoryContextDelete(context);
}

/*
 * Sets the heads of an attached event store. Their order needs a scan from the beginning of the
 * table, alone.
 */
static void
adopt_attached(MakoConnection connection, const char *initial, int64 *counts)
{
	NullableDatum value = mako_text(initial);
	MakoRows	rows = mako_sql_query(&select_any_head, NULL);
	bool		has_heads = rows.count > 0;

	mako_rows_free(&rows);
	mako_sql_set(connection, "work_mem", GetConfigOption("maintenance_work_mem", false, false));
	mako_sql_set(connection, "synchronize_seqscans", "off");
	mako_sql_set(connection, "max_parallel_workers_per_gather", "0");
	mako_sql_set(connection, "enable_indexscan", "off");
	mako_sql_set(connection, "enable_indexonlyscan", "off");
	mako_sql_set(connection, "enable_bitmapscan", "off");
	/* All rows are wanted, not the first ones soon. */
	mako_sql_set(connection, "cursor_tuple_fraction", "1");
	for_rows(&select_attached, &value, adopt_histories, counts);
	if (has_heads)
		for_rows(&select_behind, NULL, catch_up, counts);
}

MAKO_FUNCTION(mako_attach_heads);

/* The same for a store that has just been attached: see the install script. */
Datum
mako_attach_heads(PG_FUNCTION_ARGS)
{
	char	   *initial = mako_argument_text(fcinfo, 0, "initial");
	MakoConnection connection;
	TupleDesc	tupdesc;
	int64		counts[COUNTS] = {0};
	NullableDatum values[COUNTS];

	mako_gate_require_delegated();
	tupdesc = mako_result_type(fcinfo);
	connection = mako_sql_connect();
	/* Which finds out whether the view names what belongs to others. */
	(void) mako_door_table("event");
	adopt_attached(connection, initial, counts);
	for (int i = 0; i < COUNTS; i++)
		values[i] = mako_bigint(counts[i]);
	mako_sql_disconnect(connection);
	PG_RETURN_DATUM(mako_result_row(tupdesc, values));
}
