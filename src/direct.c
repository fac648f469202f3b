/*
 * direct.c
 *	  Writing rows of the store's tables without a statement: where that is the same, and how it is done.
 *
 * A statement parses, plans, and prepares every check of its table, and it moves rows through arrays and executor nodes. Where nobody
 * has given a table more to do than to hold its rows, they go straight to its storage: rows to insert in bulk, as COPY does, and one
 * that is updated as the server updates its catalogs. Triggers, rules, checks, foreign keys, children, generated columns, row
 * security, or a storage of somebody else's leave the table to a statement, which is every caller's other way.
 *
 * What is opened lives in the current memory context. It is closed in the (sub)transaction that opened it, or ends with it.
 */
#include "mako_migration.h"

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
	ExprState  *predicate;		/* NULL: every row has an entry */
} TableIndex;

struct MakoDirect
{
	Relation	relation;
	int			count;			/* columns that are written */
	AttrNumber *attributes;		/* which they are */
	EState	   *estate;			/* for index expressions; NULL until the indexes are opened */
	TableIndex *indexes;
	int			index_count;
	TupleTableSlot *slot;		/* UPDATE: the row at hand */
	Datum	   *values;			/* INSERT: a row's defaults, and the columns of the row at hand; like the next ones */
	bool	   *nulls;
	TupleTableSlot **rows;		/* that wait to be inserted; the first slot_count slots exist */
	int			slot_count;
	int			row_count;
	Size		bytes;			/* of these rows */
	MemoryContext row_context;	/* they live here; reset when they are inserted */
};

/* ---- may it be done? -------------------------------------------------------------------------------------------------------- */

/* Is this name among those? */
static bool
is_among(const char *name, const char *const *names, int count)
{
	for (int i = 0; i < count; i++)
		if (strcmp(name, names[i]) == 0)
			return true;
	return false;
}

/*
 * Has the table no check but the store's own? What we write keeps those by construction: they are about what does not change, about
 * numbers that are not negative, and about the syntax of workflow ids, which are registered ones.
 */
static bool
has_own_checks_only(const TupleConstr *constraints)
{
	static const char *const own[] = {
		"stream_stream_id_check", "stream_process_id_check", "stream_tenant_id_check", "stream_version_check",
		"stream_workflow_id_check", "stream_stream_no_check", "snapshot_sequence_number_check", "snapshot_state_schema_version_check",
	};

	for (int i = 0; constraints != NULL && i < constraints->num_check; i++)
		if (!is_among(constraints->check[i].ccname, own, lengthof(own)))
			return false;
	return true;
}

/* Does no trigger have a say but the store's own, which let us pass? */
static bool
has_own_triggers_only(const TriggerDesc *triggers, CmdType command)
{
	static const char *const own[] = {"stream_guard", "snapshot_insert_guard", "snapshot_saved"};

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		const Trigger *trigger = &triggers->triggers[i];
		bool		fires = command == CMD_INSERT ? TRIGGER_FOR_INSERT(trigger->tgtype) : TRIGGER_FOR_UPDATE(trigger->tgtype);

		/* Who refers to our rows refers to their keys, which stay. What they refer to would have to be checked. */
		if (fires && RI_FKey_trigger_type(trigger->tgfoid) != RI_TRIGGER_PK && !is_among(trigger->tgname, own, lengthof(own)))
			return false;
	}
	return true;
}

/* May the current role write these columns, and see every row? */
static bool
is_permitted(const MakoDirect *direct, CmdType command)
{
	Oid			table = RelationGetRelid(direct->relation);
	AclMode		mode = command == CMD_INSERT ? ACL_INSERT : ACL_UPDATE;

	if (check_enable_rls(table, InvalidOid, true) == RLS_ENABLED)
		return false;
	if (pg_class_aclcheck(table, GetUserId(), mode) == ACLCHECK_OK)
		return true;
	for (int i = 0; i < direct->count; i++)
		if (pg_attribute_aclcheck(table, direct->attributes[i], GetUserId(), mode) != ACLCHECK_OK)
			return false;
	return true;
}

/* Would a statement do nothing but write these columns? */
static bool
is_plain(const MakoDirect *direct, CmdType command)
{
	Relation	relation = direct->relation;
	const TupleConstr *constraints = RelationGetDescr(relation)->constr;

	return relation->rd_rel->relkind == RELKIND_RELATION && relation->rd_rel->relam == HEAP_TABLE_AM_OID &&
		relation->rd_rules == NULL && !relation->rd_rel->relhassubclass && !relation->rd_rel->relispartition &&
		(constraints == NULL || !MakoHasGenerated(constraints)) && has_own_checks_only(constraints) &&
		has_own_triggers_only(relation->trigdesc, command) && is_permitted(direct, command);
}

/* Finds the columns; false when one is missing or of another type, which a statement must cast to. */
static bool
find_columns(MakoDirect *direct, const MakoDirectColumn *columns, int count)
{
	direct->count = count;
	direct->attributes = palloc(sizeof(AttrNumber) * count);
	for (int i = 0; i < count; i++)
	{
		AttrNumber	attribute = get_attnum(RelationGetRelid(direct->relation), columns[i].name);

		if (attribute <= 0 || TupleDescAttr(RelationGetDescr(direct->relation), attribute - 1)->atttypid != columns[i].type)
			return false;
		direct->attributes[i] = attribute;
	}
	return true;
}

/* ---- indexes ---------------------------------------------------------------------------------------------------------------- */

/* Opens the indexes that take entries; false when one of them is an exclusion constraint, which a statement must check. */
static bool
open_indexes(MakoDirect *direct)
{
	List	   *oids = RelationGetIndexList(direct->relation);
	ListCell   *cell;
	bool		without_exclusion = true;

	direct->estate = CreateExecutorState();
	direct->indexes = palloc(sizeof(TableIndex) * (list_length(oids) + 1));
	foreach(cell, oids)
	{
		TableIndex *index = &direct->indexes[direct->index_count];

		index->relation = index_open(lfirst_oid(cell), RowExclusiveLock);
		index->info = BuildIndexInfo(index->relation);
		/* One that is being built, or was left behind half-built, takes no entries. */
		if (!index->info->ii_ReadyForInserts)
		{
			index_close(index->relation, NoLock);
			continue;
		}
		index->predicate = ExecPrepareQual(index->info->ii_Predicate, direct->estate);
		direct->index_count++;
		without_exclusion = without_exclusion && index->info->ii_ExclusionOps == NULL;
	}
	return without_exclusion;
}

/* Adds the index entries of a row; is_update: it is the new version of one with the same keys. */
static void
insert_index_entries(MakoDirect *direct, TupleTableSlot *slot, bool is_update, bool only_summarizing)
{
	ExprContext *context = GetPerTupleExprContext(direct->estate);

	context->ecxt_scantuple = slot;
	for (int i = 0; i < direct->index_count; i++)
	{
		TableIndex *index = &direct->indexes[i];
		Datum		values[INDEX_MAX_KEYS];
		bool		nulls[INDEX_MAX_KEYS];

		if ((only_summarizing && !MakoIsSummarizing(index->info)) || !ExecQual(index->predicate, context))
			continue;
		FormIndexDatum(index->info, slot, direct->estate, values, nulls);
		(void) MakoIndexInsert(index->relation, values, nulls, &slot->tts_tid, direct->relation,
							   index->info->ii_Unique ? UNIQUE_CHECK_YES : UNIQUE_CHECK_NO, is_update, index->info);
	}
	ResetExprContext(context);
}

/* ---- inserting -------------------------------------------------------------------------------------------------------------- */

/*
 * Fills a row with what an INSERT gives to the columns that it does not name; false when that differs from row to row, or may be
 * refused.
 */
static bool
prepare_defaults(MakoDirect *direct)
{
	TupleDesc	tupdesc = RelationGetDescr(direct->relation);

	direct->values = palloc0(sizeof(Datum) * tupdesc->natts);
	direct->nulls = palloc(sizeof(bool) * tupdesc->natts);
	memset(direct->nulls, true, sizeof(bool) * tupdesc->natts);
	for (int i = 0; i < direct->count; i++)
		direct->nulls[direct->attributes[i] - 1] = false;
	for (int i = 0; i < tupdesc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(tupdesc, i);
		Expr	   *expression;

		if (attribute->attisdropped || !direct->nulls[i])
			continue;
		expression = (Expr *) build_column_default(direct->relation, attribute->attnum);
		if (expression != NULL)
		{
			if (contain_volatile_functions((Node *) expression))
				return false;
			direct->values[i] = ExecEvalExpr(ExecPrepareExpr(expression, direct->estate),
											 GetPerTupleExprContext(direct->estate), &direct->nulls[i]);
		}
		if (direct->nulls[i] && (attribute->attnotnull || get_typtype(attribute->atttypid) == TYPTYPE_DOMAIN))
			return false;
	}
	return true;
}

/* Inserts the rows that wait. */
static void
insert_rows(MakoDirect *direct)
{
	MemoryContext old = MemoryContextSwitchTo(direct->row_context);

	CHECK_FOR_INTERRUPTS();
	table_multi_insert(direct->relation, direct->rows, direct->row_count, GetCurrentCommandId(true), 0, NULL);
	for (int i = 0; i < direct->row_count; i++)
	{
		insert_index_entries(direct, direct->rows[i], false, false);
		ExecClearTuple(direct->rows[i]);
	}
	MemoryContextSwitchTo(old);
	MemoryContextReset(direct->row_context);
	direct->row_count = 0;
	direct->bytes = 0;
}

/* Inserts a row, now or before the table is closed; the values are those of the columns, and none is null. */
void
mako_direct_insert(MakoDirect *direct, const Datum *values)
{
	MemoryContext old = MemoryContextSwitchTo(direct->row_context);
	HeapTuple	tuple;

	for (int i = 0; i < direct->count; i++)
		direct->values[direct->attributes[i] - 1] = values[i];
	tuple = heap_form_tuple(RelationGetDescr(direct->relation), direct->values, direct->nulls);
	MemoryContextSwitchTo(old);
	if (direct->row_count == direct->slot_count)
		direct->rows[direct->slot_count++] = MakeSingleTupleTableSlot(RelationGetDescr(direct->relation), &TTSOpsHeapTuple);
	ExecStoreHeapTuple(tuple, direct->rows[direct->row_count++], true);
	direct->bytes += tuple->t_len;
	if (direct->row_count == ROWS_AT_ONCE || direct->bytes > BYTES_AT_ONCE)
		insert_rows(direct);
}

/* ---- updating --------------------------------------------------------------------------------------------------------------- */

/*
 * Sets the column in the row at tid, which this transaction has locked; false when there is no such row or not any more, because the
 * transaction has updated it since. Where the row is now, *tid tells.
 */
bool
mako_direct_update(MakoDirect *direct, ItemPointer tid, Datum value)
{
	Relation	relation = direct->relation;
	TupleTableSlot *slot = direct->slot;
	int			column = direct->attributes[0];
	bool		isnull = false;
	bool		only_summarizing;
	HeapTuple	tuple;

	if (!ItemPointerIsValid(tid) || !table_tuple_fetch_row_version(relation, tid, SnapshotSelf, slot))
		return false;
	tuple = heap_modify_tuple_by_cols(ExecFetchSlotHeapTuple(slot, false, NULL), RelationGetDescr(relation), 1, &column, &value,
									  &isnull);
	if (MakoHeapUpdate(relation, tid, tuple, &only_summarizing))
	{
		if (direct->estate == NULL)
			(void) open_indexes(direct);	/* the former version has met exclusion constraints */
		ExecForceStoreHeapTuple(tuple, slot, false);
		slot->tts_tid = tuple->t_self;
		insert_index_entries(direct, slot, true, only_summarizing);
	}
	*tid = tuple->t_self;
	ExecClearTuple(slot);
	heap_freetuple(tuple);
	return true;
}

/* ---- the table -------------------------------------------------------------------------------------------------------------- */

/* Is one of the columns in an index? Then an update would need entries, and whatever the index forbids would have to be checked. */
static bool
is_indexed(const MakoDirect *direct)
{
	Bitmapset  *indexed = MakoIndexedAttributes(direct->relation);
	bool		found = false;

	for (int i = 0; i < direct->count; i++)
		found = found || bms_is_member(direct->attributes[i] - FirstLowInvalidHeapAttributeNumber, indexed);
	bms_free(indexed);
	return found;
}

/*
 * Opens a table of the store to insert rows or to update a column with the rights of the current role; NULL where a statement must do
 * it. The caller has seen to it that the role may read what a statement would read.
 */
MakoDirect *
mako_direct_open(const char *table, CmdType command, const MakoDirectColumn *columns, int count)
{
	MakoDirect *direct = palloc0(sizeof(MakoDirect));
	bool		usable;

	direct->relation = table_open(mako_store_table(table), RowExclusiveLock);
	usable = find_columns(direct, columns, count) && is_plain(direct, command);
	if (command == CMD_INSERT)
		usable = usable && open_indexes(direct) && prepare_defaults(direct);
	else
		usable = usable && !is_indexed(direct);
	if (!usable)
	{
		mako_direct_close(direct);
		return NULL;
	}
	CheckCmdReplicaIdentity(direct->relation, command);
	if (command == CMD_INSERT)
	{
		direct->rows = palloc(sizeof(TupleTableSlot *) * ROWS_AT_ONCE);
		direct->row_context = AllocSetContextCreate(CurrentMemoryContext, "mako rows", ALLOCSET_DEFAULT_SIZES);
	}
	else
		direct->slot = table_slot_create(direct->relation, NULL);
	return direct;
}

/* Inserts what waits, and closes the table; what was written can be seen from the next command on. */
void
mako_direct_close(MakoDirect *direct)
{
	if (direct->row_count > 0)
		insert_rows(direct);
	for (int i = 0; i < direct->slot_count; i++)
		ExecDropSingleTupleTableSlot(direct->rows[i]);
	if (direct->slot != NULL)
		ExecDropSingleTupleTableSlot(direct->slot);
	for (int i = 0; i < direct->index_count; i++)
	{
		MakoIndexInsertCleanup(direct->indexes[i].relation, direct->indexes[i].info);
		index_close(direct->indexes[i].relation, NoLock);
	}
	if (direct->estate != NULL)
		FreeExecutorState(direct->estate);
	table_close(direct->relation, NoLock);
	if (direct->row_context != NULL)
		MemoryContextDelete(direct->row_context);
	pfree(direct);
}
