/*
 * attached_scan.c
 *	  The events of an attached event store in the order in which their rows lie.
 *
 * The view mako.attached_event says what of the table is an event. Where the server's plan for it
 * is nothing but a scan of the table, or of partitions one after the other, its rows are taken from
 * the executor one by one. They have the ids of streams, which a directory turns into numbers:
 * heads were numbered in the order of such a scan, so streams come nearly in the order of their
 * numbers.
 *
 * What the view evaluates is evaluated as its owner. What is opened belongs to the resource owner
 * and the memory context that are current.
 */
#include "read/events.h"

#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/plannodes.h"
#include "parser/parsetree.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

/*
 * From which share of the table's rows on it is worth reading all of them, where there are many.
 */
#define EVENT_SHARE 0.05
#define MANY_ROWS 100000

/* In the order of our numbers of columns. */
#define SELECT_EVENTS \
	"SELECT a.stream_id, a.sequence_number, a.workflow_id, a.event_type, a.schema_version," \
	" a.payload FROM mako.attached_event a"

static const Oid column_types[MAKO_EVENT_COLUMNS] = {
	TEXTOID, INT8OID, TEXTOID, TEXTOID, INT4OID, JSONBOID
};

/* The number of a stream by a hash of its id. */
typedef struct Entry
{
	uint64		hash;
	int64		stream_no;		/* MAKO_NO_STREAM: several streams have this hash */
	char		status;
} Entry;

#define SH_PREFIX directory
#define SH_ELEMENT_TYPE Entry
#define SH_KEY_TYPE uint64
#define SH_KEY hash
#define SH_HASH_KEY(table, key) ((uint32) (key))
#define SH_EQUAL(table, a, b) ((a) == (b))
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

struct MakoAttachedScan
{
	Oid			owner;			/* of the view */
	Snapshot	snapshot;
	QueryDesc  *started;
	directory_hash *streams;
};

/* ---- the plan ------------------------------------------------------------------------------- */

/* Plans the view's query, as its owner. */
static PlannedStmt *
plan_view(Oid *owner)
{
	Relation	view = relation_open(mako_door_attached_view(), AccessShareLock);
	PlannedStmt *plan;
	MakoGate	gate;

	*owner = view->rd_rel->relowner;
	relation_close(view, NoLock);
	gate = mako_gate_enter(*owner);
	plan = mako_gate_plan_scan(mako_gate_expand_view(SELECT_EVENTS, column_types));
	mako_gate_leave(&gate);
	return plan;
}

/* Returns true if a plan gives rows as they lie in tables; adds how many rows those have. */
static bool
is_scan(const Plan * plan, const PlannedStmt *statement, double *rows)
{
	ListCell   *cell;

	if (IsA(plan, SeqScan))
	{
		Index		place = ((const Scan *) plan)->scanrelid;
		Oid			relation = rt_fetch(place, statement->rtable)->relid;
		Relation	table = relation_open(relation, AccessShareLock);

		*rows += Max(table->rd_rel->reltuples, 0);
		relation_close(table, NoLock);
		return true;
	}
	if (IsA(plan, SubqueryScan))
		return is_scan(((const SubqueryScan *) plan)->subplan, statement, rows);
	if (IsA(plan, Result))
		return plan->lefttree != NULL && is_scan(plan->lefttree, statement, rows);
	if (!IsA(plan, Append))
		return false;
	foreach(cell, ((const Append *) plan)->appendplans)
		if (!is_scan(lfirst(cell), statement, rows))
			return false;
	return true;
}

/*
 * Says why the events of an attached event store cannot be read as they lie, or are better not;
 * NULL if they can.
 */
const char *
mako_attached_scan_obstacle(void)
{
	Relation	heads = table_open(mako_door_table("stream"), AccessShareLock);
	const char *obstacle = mako_door_read_obstacle(heads, false);
	PlannedStmt *plan;
	double		rows = 0;
	Oid			owner;

	table_close(heads, NoLock);
	if (obstacle != NULL)
		return obstacle;
	if (pg_class_aclcheck(mako_door_table("event"), GetUserId(), ACL_SELECT) != ACLCHECK_OK)
		return "the privilege to read mako.event covers columns only";
	plan = plan_view(&owner);
	if (plan->subplans != NIL || !is_scan(plan->planTree, plan, &rows))
		return "the events are not the rows of one table";
	if (rows > MANY_ROWS && plan->planTree->plan_rows < rows * EVENT_SHARE)
		return "few rows of the table are events";
	return NULL;
}

/* ---- the directory -------------------------------------------------------------------------- */

/* A hash of a stream's id. */
static uint64
hash_id(const text *id)
{
	return hash_bytes_extended((const unsigned char *) VARDATA_ANY(id), VARSIZE_ANY_EXHDR(id), 0);
}

/* Enters the streams of all heads. */
static directory_hash *
read_directory(Snapshot snapshot)
{
	Relation	heads = table_open(mako_door_table("stream"), AccessShareLock);
	AttrNumber	id_column = mako_door_column(heads, "stream_id");
	AttrNumber	number_column = mako_door_column(heads, "stream_no");
	directory_hash *streams = directory_create(CurrentMemoryContext,
											   (uint32) Max(heads->rd_rel->reltuples, 1024), NULL);
	TableScanDesc scan = table_beginscan_strat(heads, snapshot, 0, NULL, true, false);
	TupleTableSlot *slot = table_slot_create(heads, NULL);

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;
		bool		found;
		Datum		id = slot_getattr(slot, id_column, &isnull);
		text	   *plain = DatumGetTextPP(id);
		Entry	   *entry = directory_insert(streams, hash_id(plain), &found);

		CHECK_FOR_INTERRUPTS();
		entry->stream_no = found ? MAKO_NO_STREAM :
			DatumGetInt64(slot_getattr(slot, number_column, &isnull));
		if (plain != (text *) DatumGetPointer(id))
			pfree(plain);
	}
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	table_close(heads, NoLock);
	return streams;
}

/* ---- the scan ------------------------------------------------------------------------------- */

/* Opens the events, as a snapshot sees them. */
MakoAttachedScan *
mako_attached_scan_open(Snapshot snapshot)
{
	MakoAttachedScan *scan = palloc0(sizeof(MakoAttachedScan));
	PlannedStmt *plan = plan_view(&scan->owner);
	MakoEvaluation evaluation;

	scan->snapshot = snapshot;
	scan->streams = read_directory(snapshot);
	evaluation = mako_attached_scan_enter(scan);
	scan->started = mako_gate_start_plan(plan);
	mako_gate_end_scan(&evaluation);
	return scan;
}

/* Begins to evaluate as the owner of the view; mako_gate_end_scan() ends it. */
MakoEvaluation
mako_attached_scan_enter(const MakoAttachedScan *scan)
{
	return mako_gate_begin_scan(scan->owner, scan->snapshot);
}

/*
 * The next event with its stream's number, in a row with the columns of an event; NULL at the end.
 * Rows of streams without a head are passed over.
 */
TupleTableSlot *
mako_attached_scan_next(MakoAttachedScan *scan, int64 *stream_no)
{
	TupleTableSlot *slot;

	while ((slot = mako_gate_next_row(scan->started)) != NULL)
	{
		bool		isnull;
		Datum		id = slot_getattr(slot, MAKO_EVENT_STREAM_NO + 1, &isnull);
		text	   *plain;
		const Entry *entry;

		CHECK_FOR_INTERRUPTS();
		if (isnull)
			continue;
		plain = DatumGetTextPP(id);
		entry = directory_lookup(scan->streams, hash_id(plain));
		if (plain != (text *) DatumGetPointer(id))
			pfree(plain);
		if (entry == NULL)
			continue;
		*stream_no = entry->stream_no;
		return slot;
	}
	return NULL;
}

/* Closes the events. */
void
mako_attached_scan_close(MakoAttachedScan *scan)
{
	MakoEvaluation evaluation = mako_attached_scan_enter(scan);

	mako_gate_end_plan(scan->started);
	mako_gate_end_scan(&evaluation);
}
