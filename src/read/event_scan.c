/*
 * event_scan.c
 *	  Every event in heap order: those of one table, of the leaves of a partitioned one, or of an
 *	  attached event store (attached_scan.c).
 *
 * The leaves are scanned side by side, and the next event is that of the lowest stream which any
 * of them has next. Where each leaf has its streams in order, so has the whole, as if it were one
 * table: the streams that wait for more of their events stay few.
 *
 * What is opened belongs to the resource owner and the memory context that are current, and is
 * closed under the same owner.
 */
#include "read/events.h"

#include "access/heapam.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "executor/tuptable.h"
#include "lib/binaryheap.h"
#include "storage/bufmgr.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

struct MakoEventScan
{
	MakoEventLeaf *leaves;
	int			count;
	bool		begun;
	binaryheap *next;			/* leaves that have a next event, by its stream; NULL for one */
	MakoAttachedScan *attached; /* its rows stand for those of one leaf; or NULL */
};

/* The lowest stream is the first. */
static int
compare_leaves(Datum a, Datum b, void *argument)
{
	int64		x = ((const MakoEventLeaf *) DatumGetPointer(a))->stream_no;
	int64		y = ((const MakoEventLeaf *) DatumGetPointer(b))->stream_no;

	return x < y ? 1 : x == y ? 0 : -1;
}

/* Opens one table for the scan. */
static void
open_leaf(MakoEventLeaf *leaf, Relation relation, Snapshot snapshot)
{
	leaf->table = RelationGetRelid(relation);
	leaf->relation = relation;
	leaf->last_attribute = mako_door_columns(relation, mako_event_columns, MAKO_EVENT_COLUMNS,
											 leaf->attributes);
	/* A synchronized scan could start in the middle of the table. */
	leaf->scan = table_beginscan_strat(relation, snapshot, 0, NULL, true, false);
	leaf->slot = table_slot_create(relation, NULL);
}

/* Opens those of an attached event store: their columns come in the order of our numbers. */
static void
open_attached(MakoEventScan *scan, Snapshot snapshot)
{
	scan->attached = mako_attached_scan_open(snapshot);
	scan->leaves = palloc0(sizeof(MakoEventLeaf));
	for (int i = 0; i < MAKO_EVENT_COLUMNS; i++)
		scan->leaves->attributes[i] = i + 1;
	scan->leaves->last_attribute = MAKO_EVENT_COLUMNS;
}

/* What an attached event store is read with; NULL where the events are our own. */
MakoAttachedScan *
mako_event_scan_attached(const MakoEventScan *scan)
{
	return scan->attached;
}

/* Opens the events, as a snapshot sees them. */
MakoEventScan *
mako_event_scan_open(Snapshot snapshot)
{
	MakoEventScan *scan = palloc0(sizeof(MakoEventScan));
	List	   *tables;
	ListCell   *cell;

	if (mako_door_is_attached())
	{
		open_attached(scan, snapshot);
		return scan;
	}
	tables = find_all_inheritors(mako_door_table("event"), AccessShareLock, NULL);
	scan->leaves = palloc0(sizeof(MakoEventLeaf) * list_length(tables));
	foreach(cell, tables)
		if (get_rel_relkind(lfirst_oid(cell)) == RELKIND_RELATION)
			open_leaf(&scan->leaves[scan->count++], table_open(lfirst_oid(cell), NoLock), snapshot);
	if (scan->count != 1)
		scan->next = binaryheap_allocate(Max(scan->count, 1), compare_leaves, NULL);
	return scan;
}

/*
 * Lets the scan, which has not begun, read only those pages of the table that nearly all events of
 * a range of streams are in, if it is known which those are.
 */
void
mako_event_scan_limit(MakoEventScan *scan, const MakoRange *range)
{
	BlockNumber first;
	BlockNumber last;

	if (scan->count == 1 && mako_event_index_blocks(range, &first, &last))
		heap_setscanlimits(scan->leaves[0].scan, first, last - first + 1);
}

/* Goes to the next event of a leaf; false at its end. */
static bool
advance(MakoEventLeaf *leaf)
{
	bool		isnull;

	do
	{
		leaf->at_end = leaf->at_end ||
			!table_scan_getnextslot(leaf->scan, ForwardScanDirection, leaf->slot);
		if (leaf->at_end)
			return false;
	} while (ItemPointerIsValid(&leaf->from) &&
			 ItemPointerCompare(&leaf->slot->tts_tid, &leaf->from) < 0);
	ItemPointerSetInvalid(&leaf->from);
	leaf->stream_no = DatumGetInt64(slot_getattr(leaf->slot,
												 leaf->attributes[MAKO_EVENT_STREAM_NO], &isnull));
	if (isnull)
		leaf->stream_no = MAKO_NO_STREAM;
	return true;
}

/* Goes to the first event of every leaf. */
static MakoEventLeaf *
begin(MakoEventScan *scan)
{
	scan->begun = true;
	for (int i = 0; i < scan->count; i++)
		if (advance(&scan->leaves[i]))
			binaryheap_add_unordered(scan->next, PointerGetDatum(&scan->leaves[i]));
	binaryheap_build(scan->next);
	return binaryheap_empty(scan->next) ? NULL :
		(MakoEventLeaf *) DatumGetPointer(binaryheap_first(scan->next));
}

/* The leaf whose slot has the next event; NULL at the end. */
MakoEventLeaf *
mako_event_scan_next(MakoEventScan *scan)
{
	MakoEventLeaf *leaf = &scan->leaves[0];

	if (scan->attached != NULL)
	{
		leaf->slot = mako_attached_scan_next(scan->attached, &leaf->stream_no);
		return leaf->slot == NULL ? NULL : leaf;
	}
	if (scan->next == NULL)
		return advance(&scan->leaves[0]) ? &scan->leaves[0] : NULL;
	if (!scan->begun)
		return begin(scan);
	if (binaryheap_empty(scan->next))
		return NULL;
	leaf = (MakoEventLeaf *) DatumGetPointer(binaryheap_first(scan->next));
	if (advance(leaf))
		binaryheap_replace_first(scan->next, PointerGetDatum(leaf));
	else
		(void) binaryheap_remove_first(scan->next);
	return binaryheap_empty(scan->next) ? NULL :
		(MakoEventLeaf *) DatumGetPointer(binaryheap_first(scan->next));
}

/* Closes the events. */
void
mako_event_scan_close(MakoEventScan *scan)
{
	if (scan->attached != NULL)
		mako_attached_scan_close(scan->attached);
	for (int i = 0; i < scan->count; i++)
	{
		ExecDropSingleTupleTableSlot(scan->leaves[i].slot);
		table_endscan(scan->leaves[i].scan);
		table_close(scan->leaves[i].relation, NoLock);
	}
}

/* ---- from one transaction to the next ------------------------------------------------------- */

/*
 * Closes events of our own, to go on in another transaction behind those that were brought; only
 * the event of the leaf that was brought last may not be consumed yet, and is brought again then.
 */
void
mako_event_scan_suspend(MakoEventScan *scan, const MakoEventLeaf *consumed)
{
	for (int i = 0; i < scan->count; i++)
	{
		MakoEventLeaf *leaf = &scan->leaves[i];

		if (leaf->at_end || TTS_EMPTY(leaf->slot))
			continue;
		leaf->from = leaf->slot->tts_tid;
		leaf->file = leaf->relation->rd_rel->relfilenode;
		if (leaf == consumed)
			leaf->from.ip_posid++;
	}
	mako_event_scan_close(scan);
}

/*
 * Returns true if the tables of the events are those that they were, and events have their places
 * still, which a table that is written anew does not keep.
 */
static bool
has_same_leaves(const MakoEventScan *scan)
{
	int			found = 0;
	ListCell   *cell;

	foreach(cell, find_all_inheritors(mako_door_table("event"), AccessShareLock, NULL))
	{
		const MakoEventLeaf *leaf = &scan->leaves[found];
		Relation	relation;
		bool		is_same;

		if (get_rel_relkind(lfirst_oid(cell)) == RELKIND_PARTITIONED_TABLE)
			continue;
		if (found++ == scan->count || leaf->table != lfirst_oid(cell))
			return false;
		relation = relation_open(leaf->table, NoLock);
		is_same = !ItemPointerIsValid(&leaf->from) ||
			leaf->file == relation->rd_rel->relfilenode;
		relation_close(relation, NoLock);
		if (!is_same)
			return false;
	}
	return found == scan->count;
}

/*
 * Opens them again, as another snapshot sees them; false where it is not known what has been
 * brought.
 */
bool
mako_event_scan_resume(MakoEventScan *scan, Snapshot snapshot)
{
	if (!has_same_leaves(scan))
		return false;
	for (int i = 0; i < scan->count; i++)
	{
		MakoEventLeaf *leaf = &scan->leaves[i];
		Relation	relation = table_open(leaf->table, NoLock);
		BlockNumber first = ItemPointerIsValid(&leaf->from) ?
			ItemPointerGetBlockNumber(&leaf->from) : 0;
		BlockNumber blocks = RelationGetNumberOfBlocks(relation);

		open_leaf(leaf, relation, snapshot);
		leaf->at_end = leaf->at_end || first >= blocks;
		if (first > 0 && !leaf->at_end)
			heap_setscanlimits(leaf->scan, first, blocks - first);
	}
	if (scan->next != NULL)
		binaryheap_reset(scan->next);
	scan->begun = false;
	return true;
}
