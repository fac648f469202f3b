/*
 * table_write.c
 *	  Writing rows of the store's tables without a statement: where that is the same, and how it is
 *	  done.
 *
 * A statement parses, plans, and prepares every check of its table, and it moves rows through
 * arrays and executor nodes. Where a table does nothing but hold its rows, they go straight to its
 * storage: rows to insert in bulk, as COPY does, and one that is updated as the server updates its
 * catalogs. Triggers, rules, checks, foreign keys, children, generated columns, defaults, index
 * expressions, row security, or another storage leave the table to a statement, which is every
 * caller's other way. So does another extension that wants to see who writes what.
 *
 * The current role must be allowed to write. What remains to the table's owner are the operator
 * classes of its indexes, so their entries are made as the owner, behind the gate.
 *
 * What is opened lives in the current memory context. It is closed in the (sub)transaction that
 * opened it, or ends with it.
 */
#include "store/store.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/index.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "optimizer/optimizer.h"
#include "rewrite/rewriteHandler.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/reltrigger.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"

/* Rows that are inserted at once: as many as fill some dozens of pages. */
#define ROWS_AT_ONCE 1000
#define BYTES_AT_ONCE (256 * 1024)

/* An index of the table. */
typedef struct TableIndex
{
	Relation	relation;
	IndexInfo  *info;
} TableIndex;

struct MakoTableWrite
{
	Relation	relation;
	int			count;			/* columns that are written */
	AttrNumber *attributes;		/* which they are */
	TableIndex *indexes;		/* NULL until they are opened */
	int			index_count;
	TupleTableSlot *slot;		/* UPDATE: the current row */
	Datum	   *values;			/* INSERT: the columns of the current row; like the next ones */
	bool	   *nulls;
	TupleTableSlot **rows;		/* that wait to be inserted; the first slot_count slots exist */
	int			slot_count;
	int			row_count;
	Size		bytes;			/* of these rows */
	MemoryContext row_context;	/* they live here; reset when they are inserted */
};

/* ---- what may be done ----------------------------------------------------------------------- */

/* Returns true if this name is among those. */
static bool
is_among(const char *name, const char *const *names, int count)
{
	for (int i = 0; i < count; i++)
		if (strcmp(name, names[i]) == 0)
			return true;
	return false;
}

/*
 * Returns true if the table has no check but the store's own, which mako_store_is_whole() knows by
 * their definitions. What we write keeps those by construction: they are about what does not
 * change, about numbers that are not negative, and about the syntax of workflow ids, which are
 * registered ones.
 */
static bool
has_own_checks_only(const TupleConstr *constraints)
{
	static const char *const own[] = {
		"stream_stream_id_check", "stream_process_id_check", "stream_tenant_id_check",
		"stream_version_check", "stream_workflow_id_check", "stream_stream_no_check",
		"snapshot_sequence_number_check", "snapshot_state_schema_version_check",
	};

	for (int i = 0; constraints != NULL && i < constraints->num_check; i++)
		if (!is_among(constraints->check[i].ccname, own, lengthof(own)))
			return false;
	return true;
}

/*
 * Returns true if no trigger fires but the store's own, which let us pass; mako_store_is_whole()
 * knows those, too.
 */
static bool
has_own_triggers_only(const TriggerDesc *triggers, CmdType command)
{
	static const char *const own[] = {
		"stream_guard", "snapshot_insert_guard", "snapshot_saved", "reverted_guard"
	};

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		const Trigger *trigger = &triggers->triggers[i];
		bool		fires = command == CMD_INSERT ? TRIGGER_FOR_INSERT(trigger->tgtype) :
			TRIGGER_FOR_UPDATE(trigger->tgtype);

		/*
		 * Rows of other tables refer to the keys of these, which stay. What they refer to would
		 * have to be checked.
		 */
		if (fires && RI_FKey_trigger_type(trigger->tgfoid) != RI_TRIGGER_PK &&
			!is_among(trigger->tgname, own, lengthof(own)))
			return false;
	}
	return true;
}

/* Returns true if the current role may write these columns, and sees every row. */
static bool
is_permitted(const MakoTableWrite *target, CmdType command)
{
	Oid			table = RelationGetRelid(target->relation);
	AclMode		mode = command == CMD_INSERT ? ACL_INSERT : ACL_UPDATE;

	if (check_enable_rls(table, InvalidOid, true) == RLS_ENABLED || ExecutorCheckPerms_hook != NULL)
		return false;
	if (pg_class_aclcheck(table, GetUserId(), mode) == ACLCHECK_OK)
		return true;
	for (int i = 0; i < target->count; i++)
		if (pg_attribute_aclcheck(table, target->attributes[i], GetUserId(), mode) != ACLCHECK_OK)
			return false;
	return true;
}

/*
 * Returns true if a statement would do nothing but write these columns. mako_door_read_obstacle()
 * asks less of the table, which may have triggers and checks, and more of the current role, which
 * may read it all.
 */
static bool
is_plain(const MakoTableWrite *target, CmdType command)
{
	Relation	relation = target->relation;
	const TupleConstr *constraints = RelationGetDescr(relation)->constr;

	return relation->rd_rel->relkind == RELKIND_RELATION &&
		relation->rd_rel->relam == HEAP_TABLE_AM_OID &&
		relation->rd_rules == NULL && !relation->rd_rel->relhassubclass &&
		!relation->rd_rel->relispartition &&
		(constraints == NULL || !MakoHasGenerated(constraints)) &&
		has_own_checks_only(constraints) && has_own_triggers_only(relation->trigdesc, command) &&
		is_permitted(target, command) && mako_store_is_whole();
}

/* ---- indexes -------------------------------------------------------------------------------- */

/*
 * Returns true if entries of an index are columns alone, of every row; a statement evaluates
 * anything else, and checks exclusions.
 */
static bool
is_plain_index(Relation index)
{
	return heap_attisnull(index->rd_indextuple, Anum_pg_index_indexprs, NULL) &&
		heap_attisnull(index->rd_indextuple, Anum_pg_index_indpred, NULL) &&
		!index->rd_index->indisexclusion;
}

/* Opens the indexes that take entries; false when a statement must make them. */
static bool
open_indexes(MakoTableWrite *target)
{
	List	   *oids = RelationGetIndexList(target->relation);
	ListCell   *cell;

	target->indexes = palloc(sizeof(TableIndex) * (list_length(oids) + 1));
	foreach(cell, oids)
	{
		Relation	relation = index_open(lfirst_oid(cell), RowExclusiveLock);

		/* One that is being built, or was left half-built, takes no entries. */
		if (!relation->rd_index->indisready)
			index_close(relation, NoLock);
		else if (!is_plain_index(relation))
		{
			index_close(relation, NoLock);
			return false;
		}
		else
			target->indexes[target->index_count++] = (TableIndex) {relation,
				BuildIndexInfo(relation)};
	}
	return true;
}

/* Adds the index entries of a row; is_update: it is the new version of one with the same keys. */
static void
insert_index_entries(MakoTableWrite *target, TupleTableSlot *slot, bool is_update,
					 bool only_summarizing)
{
	for (int i = 0; i < target->index_count; i++)
	{
		TableIndex *index = &target->indexes[i];
		Datum		values[INDEX_MAX_KEYS];
		bool		nulls[INDEX_MAX_KEYS];

		if (only_summarizing && !MakoIsSummarizing(index->info))
			continue;
		FormIndexDatum(index->info, slot, NULL, values, nulls);
		(void) MakoIndexInsert(index->relation, values, nulls, &slot->tts_tid, target->relation,
							   index->info->ii_Unique ? UNIQUE_CHECK_YES : UNIQUE_CHECK_NO,
							   is_update, index->info);
	}
}

/* ---- inserting ------------------------------------------------------------------------------ */

/*
 * Prepares a row of nulls; false when a column that is not written has a default or cannot be
 * null.
 */
static bool
prepare_row(MakoTableWrite *target)
{
	TupleDesc	tupdesc = RelationGetDescr(target->relation);

	target->values = palloc0(sizeof(Datum) * tupdesc->natts);
	target->nulls = palloc(sizeof(bool) * tupdesc->natts);
	memset(target->nulls, true, sizeof(bool) * tupdesc->natts);
	for (int i = 0; i < target->count; i++)
		target->nulls[target->attributes[i] - 1] = false;
	for (int i = 0; i < tupdesc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(tupdesc, i);

		if (!attribute->attisdropped && target->nulls[i] &&
			(attribute->atthasdef || attribute->attidentity != '\0' || attribute->attnotnull ||
			 get_typtype(attribute->atttypid) == TYPTYPE_DOMAIN))
			return false;
	}
	return true;
}

/* Inserts the rows that wait. */
static void
insert_rows(MakoTableWrite *target)
{
	MemoryContext old = MemoryContextSwitchTo(target->row_context);
	MakoGate	gate = mako_gate_enter(target->relation->rd_rel->relowner);

	CHECK_FOR_INTERRUPTS();
	table_multi_insert(target->relation, target->rows, target->row_count,
					   GetCurrentCommandId(true), 0, NULL);
	for (int i = 0; i < target->row_count; i++)
	{
		insert_index_entries(target, target->rows[i], false, false);
		ExecClearTuple(target->rows[i]);
	}
	mako_gate_leave(&gate);
	MemoryContextSwitchTo(old);
	MemoryContextReset(target->row_context);
	target->row_count = 0;
	target->bytes = 0;
}

/*
 * Inserts a row, now or before the table is closed; the values are those of the columns, and none
 * is null.
 */
void
mako_table_write_insert(MakoTableWrite *target, const Datum *values)
{
	MemoryContext old = MemoryContextSwitchTo(target->row_context);
	HeapTuple	tuple;

	for (int i = 0; i < target->count; i++)
		target->values[target->attributes[i] - 1] = values[i];
	tuple = heap_form_tuple(RelationGetDescr(target->relation), target->values, target->nulls);
	MemoryContextSwitchTo(old);
	if (target->row_count == target->slot_count)
		target->rows[target->slot_count++] =
			MakeSingleTupleTableSlot(RelationGetDescr(target->relation), &TTSOpsHeapTuple);
	ExecStoreHeapTuple(tuple, target->rows[target->row_count++], true);
	target->bytes += tuple->t_len;
	if (target->row_count == ROWS_AT_ONCE || target->bytes > BYTES_AT_ONCE)
		insert_rows(target);
}

/* ---- updating ------------------------------------------------------------------------------- */

/*
 * Sets the column in the row at tid, which this transaction has locked; false when there is no
 * such row or not any more, because the transaction has updated it since. Where the row is now,
 * *tid tells.
 */
bool
mako_table_write_update(MakoTableWrite *target, ItemPointer tid, Datum value)
{
	Relation	relation = target->relation;
	TupleTableSlot *slot = target->slot;
	int			column = target->attributes[0];
	bool		isnull = false;
	bool		only_summarizing;
	HeapTuple	tuple;

	if (!ItemPointerIsValid(tid) ||
		!table_tuple_fetch_row_version(relation, tid, SnapshotSelf, slot))
		return false;
	tuple = heap_modify_tuple_by_cols(ExecFetchSlotHeapTuple(slot, false, NULL),
									  RelationGetDescr(relation), 1, &column, &value, &isnull);
	if (MakoHeapUpdate(relation, tid, tuple, &only_summarizing))
	{
		MakoGate	gate = mako_gate_enter(relation->rd_rel->relowner);

		ExecForceStoreHeapTuple(tuple, slot, false);
		slot->tts_tid = tuple->t_self;
		insert_index_entries(target, slot, true, only_summarizing);
		mako_gate_leave(&gate);
	}
	*tid = tuple->t_self;
	ExecClearTuple(slot);
	heap_freetuple(tuple);
	return true;
}

/* ---- the table ------------------------------------------------------------------------------ */

/*
 * Returns true if one of the columns is in an index. Then an update would need entries, and
 * whatever the index forbids would have to be checked.
 */
static bool
is_indexed(const MakoTableWrite *target)
{
	Bitmapset  *indexed = MakoIndexedAttributes(target->relation);
	bool		found = false;

	for (int i = 0; i < target->count; i++)
		found = found ||
			bms_is_member(target->attributes[i] - FirstLowInvalidHeapAttributeNumber, indexed);
	bms_free(indexed);
	return found;
}

/*
 * Opens a table of the store to insert rows or to update a column with the rights of the current
 * role; NULL where a statement must do it. The caller has seen to it that the role may read what a
 * statement would read.
 */
MakoTableWrite *
mako_table_write_open(const char *table, CmdType command, const char *const *columns, int count)
{
	MakoTableWrite *target = palloc0(sizeof(MakoTableWrite));
	bool		usable;

	target->relation = table_open(mako_door_table(table), RowExclusiveLock);
	target->count = count;
	target->attributes = palloc(sizeof(AttrNumber) * count);
	(void) mako_door_columns(target->relation, columns, count, target->attributes);
	usable = is_plain(target, command) && open_indexes(target) &&
		(command == CMD_INSERT ? prepare_row(target) : !is_indexed(target));
	if (!usable)
	{
		mako_table_write_close(target);
		return NULL;
	}
	CheckCmdReplicaIdentity(target->relation, command);
	if (command == CMD_INSERT)
	{
		target->rows = palloc(sizeof(TupleTableSlot *) * ROWS_AT_ONCE);
		target->row_context = AllocSetContextCreate(CurrentMemoryContext, "mako rows",
													ALLOCSET_DEFAULT_SIZES);
	}
	else
		target->slot = table_slot_create(target->relation, NULL);
	return target;
}

/*
 * Inserts what waits, and closes the table; what was written can be seen from the next command on.
 */
void
mako_table_write_close(MakoTableWrite *target)
{
	if (target->row_count > 0)
		insert_rows(target);
	for (int i = 0; i < target->slot_count; i++)
		ExecDropSingleTupleTableSlot(target->rows[i]);
	if (target->slot != NULL)
		ExecDropSingleTupleTableSlot(target->slot);
	for (int i = 0; i < target->index_count; i++)
	{
		MakoIndexInsertCleanup(target->indexes[i].relation, target->indexes[i].info);
		index_close(target->indexes[i].relation, NoLock);
	}
	table_close(target->relation, NoLock);
	if (target->row_context != NULL)
		MemoryContextDelete(target->row_context);
	pfree(target);
}
