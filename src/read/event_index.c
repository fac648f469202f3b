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
