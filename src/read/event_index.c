/*
 * event_index.c
 *	  Few matches: the events of one stream after another, from the index on their numbers.
 *
 * A statement that looks up the events of many streams pays twice as much for its nodes, and for
 * rows that are formed and taken apart again, as the index and the table cost. So they are asked
 * here, wherever mako.event is a plain table that the caller may read and its primary key is what
 * it should be; otherwise a statement of events.c does it.
 *
 * What is opened lives in the current memory context. It is closed in the (sub)transaction that
 * opened it, or ends with it. Values point into the table's pages and last until the next event is
 * read.
 */
#include "read/events.h"

#include "access/genam.h"
#include "access/relscan.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_am.h"
#include "catalog/pg_opfamily.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/snapmgr.h"

struct MakoEventIndex
{
	Relation	relation;
	Relation	index;
	IndexScanDesc scan;
	TupleTableSlot *slot;
	AttrNumber	attributes[MAKO_EVENT_COLUMNS];
	AttrNumber	last_attribute;
};

/* Returns true if an index holds every event by stream and sequence number, ascending. */
static bool
is_by_number(Relation index, const AttrNumber *attributes)
{
	Form_pg_index form = index->rd_index;

	if (index->rd_rel->relam != BTREE_AM_OID || !form->indisvalid || form->indcheckxmin ||
		form->indnkeyatts < 2 || !heap_attisnull(index->rd_indextuple, Anum_pg_index_indpred, NULL))
		return false;
	for (int i = 0; i < 2; i++)
		if (form->indkey.values[i] != attributes[i] || index->rd_indoption[i] != 0 ||
			index->rd_opfamily[i] != INTEGER_BTREE_FAM_OID)
			return false;
	return true;
}

/* Opens such an index; NULL without one. */
static Relation
open_index(Relation relation, const AttrNumber *attributes)
{
	List	   *indexes = RelationGetIndexList(relation);
	ListCell   *cell;

	foreach(cell, indexes)
	{
		Relation	index = index_open(lfirst_oid(cell), AccessShareLock);

		if (is_by_number(index, attributes))
			return index;
		index_close(index, NoLock);
	}
	return NULL;
}

/* Opens table and index; false where a statement must read the events. */
static bool
open_relations(MakoEventIndex *lookup)
{
	Relation	relation = table_open(mako_door_table("event"), AccessShareLock);

	lookup->relation = relation;
	lookup->last_attribute = mako_door_columns(relation, mako_event_columns, MAKO_EVENT_COLUMNS,
											   lookup->attributes);
	lookup->index = mako_door_read_obstacle(relation, false) != NULL ? NULL :
		open_index(relation, lookup->attributes);
	if (lookup->index == NULL)
		table_close(relation, NoLock);
	return lookup->index != NULL;
}

/*
 * Returns true if events can be looked up without a statement, and the caller may read all of
 * them.
 */
bool
mako_event_index_is_possible(void)
{
	MakoEventIndex lookup = {0};

	if (!open_relations(&lookup))
		return false;
	index_close(lookup.index, NoLock);
	table_close(lookup.relation, NoLock);
	return true;
}

/*
 * Opens the events to look some up with the active snapshot, which lasts longer; NULL where a
 * statement must do it.
 */
MakoEventIndex *
mako_event_index_open(void)
{
	MakoEventIndex *lookup = palloc0(sizeof(MakoEventIndex));

	if (!open_relations(lookup))
	{
		pfree(lookup);
		return NULL;
	}
	lookup->scan = MakoIndexBeginScan(lookup->relation, lookup->index, GetActiveSnapshot(), 2);
	lookup->slot = table_slot_create(lookup->relation, NULL);
	return lookup;
}

/* Goes to the events of a stream after a sequence number. */
void
mako_event_index_stream(MakoEventIndex *lookup, int64 stream_no, int64 start)
{
	ScanKeyData keys[2];

	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(stream_no));
	ScanKeyInit(&keys[1], 2, BTGreaterStrategyNumber, F_INT8GT, Int64GetDatum(start));
	index_rescan(lookup->scan, keys, 2, NULL, 0);
}

/* The next event's values, in the order of mako_event_columns; false when there is none. */
bool
mako_event_index_next(MakoEventIndex *lookup, NullableDatum *values)
{
	TupleTableSlot *slot = lookup->slot;

	if (!index_getnext_slot(lookup->scan, ForwardScanDirection, slot))
		return false;
	slot_getsomeattrs(slot, lookup->last_attribute);
	for (int i = 0; i < MAKO_EVENT_COLUMNS; i++)
	{
		values[i].value = slot->tts_values[lookup->attributes[i] - 1];
		values[i].isnull = slot->tts_isnull[lookup->attributes[i] - 1];
	}
	return true;
}

/* Returns true if a stream has an event after its version. */
static bool
has_beyond(MakoEventIndex *lookup, const MakoStream *stream)
{
	mako_event_index_stream(lookup, stream->stream_no, stream->version);
	return index_getnext_slot(lookup->scan, ForwardScanDirection, lookup->slot);
}

/* Looks for events beyond heads one by one. */
static int
find_beyond_each(MakoEventIndex *lookup, const MakoStream *streams, int count, int64 *numbers)
{
	int			found = 0;

	for (int i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (has_beyond(lookup, &streams[i]))
			numbers[found++] = streams[i].stream_no;
	}
	return found;
}

/*
 * The same for dense streams with few events each: by passing over the entries of all of them,
 * which takes a third of the instructions. An entry alone does not tell whether there is an event.
 */
static int
find_beyond_in_range(MakoEventIndex *lookup, const MakoStream *streams, int count, int64 *numbers)
{
	IndexScanDesc scan = MakoIndexBeginScan(lookup->relation, lookup->index, GetActiveSnapshot(),
											2);
	ScanKeyData keys[2];
	int64		noticed = -1;
	int			found = 0;

	ScanKeyInit(&keys[0], 1, BTGreaterEqualStrategyNumber, F_INT8GE,
				Int64GetDatum(streams[0].stream_no));
	ScanKeyInit(&keys[1], 1, BTLessEqualStrategyNumber, F_INT8LE,
				Int64GetDatum(streams[count - 1].stream_no));
	scan->xs_want_itup = true;
	index_rescan(scan, keys, 2, NULL, 0);
	for (int i = 0; i < count && index_getnext_tid(scan, ForwardScanDirection) != NULL;)
	{
		bool		isnull;
		int64		stream_no = DatumGetInt64(index_getattr(scan->xs_itup, 1, scan->xs_itupdesc,
															&isnull));
		int64		number = DatumGetInt64(index_getattr(scan->xs_itup, 2, scan->xs_itupdesc,
														 &isnull));

		CHECK_FOR_INTERRUPTS();
		while (i < count && streams[i].stream_no < stream_no)
			i++;
		if (i == count || streams[i].stream_no != stream_no || number <= streams[i].version ||
			noticed == i)
			continue;
		noticed = i;
		if (has_beyond(lookup, &streams[i]))
			numbers[found++] = stream_no;
	}
	index_endscan(scan);
	return found;
}

/*
 * Which of some streams, in the order of their numbers, have events beyond their heads: their
 * numbers, and how many.
 */
int
mako_event_index_beyond(MakoEventIndex *lookup, const MakoStream *streams, int count,
						int64 *numbers)
{
	int64		events = 0;

	for (int i = 0; i < count; i++)
		events += streams[i].version;
	if (count > 0 && mako_streams_are_dense(streams, count) && events < (int64) count * 32)
		return find_beyond_in_range(lookup, streams, count, numbers);
	return find_beyond_each(lookup, streams, count, numbers);
}

/* ---- where the events of a range lie -------------------------------------------------------- */

/* So many events at each end of a range tell where the range lies. */
#define EVENTS_OF_EDGE 2000

/*
 * Widens a range of pages by those of the events at one end of a range of streams, by their
 * entries.
 */
static void
add_edge(const MakoEventIndex *lookup, const MakoRange *range, ScanDirection direction,
		 BlockNumber *first, BlockNumber *last)
{
	IndexScanDesc scan = MakoIndexBeginScan(lookup->relation, lookup->index, GetActiveSnapshot(),
											2);
	ScanKeyData keys[2];
	ItemPointer tid;

	ScanKeyInit(&keys[0], 1, BTGreaterEqualStrategyNumber, F_INT8GE, Int64GetDatum(range->first));
	ScanKeyInit(&keys[1], 1, BTLessEqualStrategyNumber, F_INT8LE, Int64GetDatum(range->last));
	index_rescan(scan, keys, 2, NULL, 0);
	for (int i = 0; i < EVENTS_OF_EDGE && (tid = index_getnext_tid(scan, direction)) != NULL; i++)
	{
		*first = Min(*first, ItemPointerGetBlockNumber(tid));
		*last = Max(*last, ItemPointerGetBlockNumber(tid));
	}
	index_endscan(scan);
}

/*
 * The pages that the events of a range of streams are in, but for those that lie far from the
 * others; false where that is not known, or where there are no events.
 */
bool
mako_event_index_blocks(const MakoRange *range, BlockNumber *first, BlockNumber *last)
{
	MakoEventIndex lookup = {0};

	if (!open_relations(&lookup))
		return false;
	*first = InvalidBlockNumber;
	*last = 0;
	add_edge(&lookup, range, ForwardScanDirection, first, last);
	add_edge(&lookup, range, BackwardScanDirection, first, last);
	index_close(lookup.index, NoLock);
	table_close(lookup.relation, NoLock);
	return *first != InvalidBlockNumber;
}

/* Closes them. */
void
mako_event_index_close(MakoEventIndex *lookup)
{
	ExecDropSingleTupleTableSlot(lookup->slot);
	index_endscan(lookup->scan);
	index_close(lookup->index, NoLock);
	table_close(lookup->relation, NoLock);
	pfree(lookup);
}
