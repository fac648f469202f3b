/*
 * head.c
 *	  Advances one head: what an engine pays for with every event.
 *
 * The head is locked, and nothing but its version changes. An UPDATE statement would parse and prepare every check constraint of the
 * table for that, none of which is about a version, and take a third of the time of appending an event. So the tuple is updated
 * directly, as the server updates its catalogs, unless somebody has given the table triggers, rules, checks, foreign keys, children,
 * generated columns or a storage of its own.
 */
#include "mako_migration.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/index.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/reltrigger.h"
#include "utils/snapmgr.h"

/* Checks that the store puts on heads, of which none is about the version but that it is not negative. */
#define STORE_CHECKS 5

/* Would an UPDATE of a version do nothing but that? */
static bool
is_plain(Relation stream)
{
	const TriggerDesc *triggers = stream->trigdesc;
	const TupleConstr *constraints = RelationGetDescr(stream)->constr;

	if (stream->rd_rel->relkind != RELKIND_RELATION || stream->rd_rel->relam != HEAP_TABLE_AM_OID || stream->rd_rules != NULL ||
		stream->rd_rel->relhassubclass || stream->rd_rel->relispartition ||
		(constraints != NULL && (constraints->has_generated_stored || constraints->num_check > STORE_CHECKS)))
		return false;
	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		const Trigger *trigger = &triggers->triggers[i];

		/* Who refers to a head refers to its keys, which stay. What a head refers to may have to be checked later. */
		if (TRIGGER_FOR_UPDATE(trigger->tgtype) && RI_FKey_trigger_type(trigger->tgfoid) != RI_TRIGGER_PK &&
			strcmp(trigger->tgname, "stream_guard") != 0)
			return false;
	}
	return true;
}

/* Adds index entries for a tuple that is not found through those of its former version. */
static void
insert_index_entries(Relation stream, TupleTableSlot *slot, bool only_summarizing)
{
	EState	   *estate = CreateExecutorState();
	List	   *indexes = RelationGetIndexList(stream);
	ListCell   *cell;

	GetPerTupleExprContext(estate)->ecxt_scantuple = slot;
	foreach(cell, indexes)
	{
		Relation	index = index_open(lfirst_oid(cell), RowExclusiveLock);
		IndexInfo  *info = BuildIndexInfo(index);
		Datum		values[INDEX_MAX_KEYS];
		bool		nulls[INDEX_MAX_KEYS];

		/* One that is being built, or was left behind half-built, takes no entries. */
		if (info->ii_ReadyForInserts && (!only_summarizing || MakoIsSummarizing(info)) &&
			(info->ii_Predicate == NIL ||
			 ExecQual(ExecPrepareQual(info->ii_Predicate, estate), GetPerTupleExprContext(estate))))
		{
			FormIndexDatum(info, slot, estate, values, nulls);
			(void) MakoIndexInsert(index, values, nulls, &slot->tts_tid, stream,
								   info->ii_Unique ? UNIQUE_CHECK_YES : UNIQUE_CHECK_NO, info);
			MakoIndexInsertCleanup(index, info);
		}
		index_close(index, NoLock);
	}
	FreeExecutorState(estate);
}

/* Updates the version in the tuple at hand. */
static void
update_tuple(Relation stream, ItemPointer tid, int64 version)
{
	TupleTableSlot *slot = table_slot_create(stream, NULL);
	int			column = get_attnum(RelationGetRelid(stream), "version");
	Datum		value = Int64GetDatum(version);
	bool		isnull = false;
	bool		only_summarizing;
	HeapTuple	tuple;

	if (!table_tuple_fetch_row_version(stream, tid, SnapshotAny, slot))
		elog(ERROR, "could not find a tuple that is locked");	/* cannot happen */
	tuple = heap_modify_tuple_by_cols(ExecFetchSlotHeapTuple(slot, true, NULL), RelationGetDescr(stream), 1, &column, &value, &isnull);
	if (MakoHeapUpdate(stream, tid, tuple, &only_summarizing))
	{
		ExecForceStoreHeapTuple(tuple, slot, false);
		slot->tts_tid = tuple->t_self;
		insert_index_entries(stream, slot, only_summarizing);
	}
	ExecDropSingleTupleTableSlot(slot);
	CommandCounterIncrement();
}

/* Sets the version of the head at tid, which this transaction has locked; false where only an UPDATE statement can do it. */
bool
mako_head_advance(ItemPointer tid, int64 version)
{
	Relation	stream = table_open(mako_store_table("stream"), RowExclusiveLock);
	bool		plain = is_plain(stream);

	if (plain)
	{
		CheckCmdReplicaIdentity(stream, CMD_UPDATE);
		update_tuple(stream, tid, version);
	}
	table_close(stream, NoLock);
	return plain;
}
