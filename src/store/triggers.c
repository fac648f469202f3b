/*
 * triggers.c
 *	  What the store's tables guarantee, whichever role writes to them: the triggers.
 *
 * A statement-level trigger on mako.event checks a whole INSERT or COPY at once from its
 * transition table: per stream, sequence numbers continue at the head's version, and the workflow
 * is the head's. Then it advances the heads. Like referential integrity, it reads and writes the
 * heads as the table's owner, so that a writer needs INSERT on mako.event only.
 *
 * Everything else that the tables refuse, mako_guard() refuses, unless one of our own statements
 * is being executed.
 */
#include "store/new_events.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "parser/scansup.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/catcache.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/tuplestore.h"

/* One of our own statements is being executed: the guards let it pass. */
static bool writing = false;

/* It inserts heads of streams that have events already, under versions that must allow this. */
static bool adopting = false;
static MakoFence adopting_fence;

/* ---- the guards ----------------------------------------------------------------------------- */

/* Executes a statement that the store's guards refuse otherwise, and returns its rows. */
MakoRows
mako_store_query(MakoStatement *statement, const NullableDatum *values)
{
	bool		outer = writing;
	MakoRows	rows = {0};

	writing = true;
	PG_TRY();
	{
		rows = mako_sql_query(statement, values);
	}
	PG_FINALLY();
	{
		writing = outer;
	}
	PG_END_TRY();
	return rows;
}

/* The same without rows; returns how many were written. */
uint64
mako_store_write(MakoStatement *statement, const NullableDatum *values)
{
	MakoRows	rows = mako_store_query(statement, values);
	uint64		written = rows.count;

	mako_rows_free(&rows);
	return written;
}

/*
 * Executes a statement that inserts heads of streams that have events already, where their versions
 * allow what is to be done; returns its rows.
 */
MakoRows
mako_store_adopt(MakoStatement *statement, const NullableDatum *values, MakoFence fence)
{
	bool		outer = adopting;
	MakoFence	outer_fence = adopting_fence;
	MakoRows	rows = {0};

	adopting = true;
	adopting_fence = fence;
	PG_TRY();
	{
		rows = mako_sql_query(statement, values);
	}
	PG_FINALLY();
	{
		adopting = outer;
		adopting_fence = outer_fence;
	}
	PG_END_TRY();
	return rows;
}

/* Raises that a trigger function was not called by the trigger that it is made for. */
void
mako_store_raise_no_trigger(const char *function)
{
	ereport(ERROR,
			(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
			 errmsg("function \"%s\" was not called by its trigger", function),
			 errhint("The store's triggers are made by mako_create_store().")));
}

/*
 * The trigger after INSERT on a table of the store, with its transition table. On another table it
 * would let that table's owner advance heads.
 */
static TriggerData *
insert_trigger(FunctionCallInfo fcinfo, const char *function, const char *table)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_AFTER(trigger->tg_event) ||
		!TRIGGER_FIRED_BY_INSERT(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_STATEMENT(trigger->tg_event) || trigger->tg_newtable == NULL ||
		!mako_door_is_table(trigger->tg_relation, table))
		mako_store_raise_no_trigger(function);
	mako_gate_forbid(psprintf("table \"mako.%s\"", table));
	return trigger;
}

MAKO_FUNCTION(mako_guard);
MAKO_FUNCTION(mako_stream_inserted);
MAKO_FUNCTION(mako_event_inserted);

/*
 * Refuses a change that only this extension may make; the trigger's arguments are detail and hint.
 * With a third one it is refused to all.
 */
Datum
mako_guard(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	Trigger    *definition;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BEFORE(trigger->tg_event))
		mako_store_raise_no_trigger("mako_guard");
	mako_gate_forbid(psprintf("table \"mako.%s\"", RelationGetRelationName(trigger->tg_relation)));
	definition = trigger->tg_trigger;
	if (!writing || definition->tgnargs > 2)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot %s table \"%s.%s\"",
						TRIGGER_FIRED_BY_INSERT(trigger->tg_event) ? "insert into" :
						TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ? "update" :
						TRIGGER_FIRED_BY_DELETE(trigger->tg_event) ? "delete from" : "truncate",
						get_namespace_name(RelationGetNamespace(trigger->tg_relation)),
						RelationGetRelationName(trigger->tg_relation)),
				 definition->tgnargs > 0 ? errdetail_internal("%s", definition->tgargs[0]) : 0,
				 definition->tgnargs > 1 ? errhint("%s", definition->tgargs[1]) : 0));

	if (TRIGGER_FIRED_FOR_STATEMENT(trigger->tg_event))
		return PointerGetDatum(NULL);
	return PointerGetDatum(TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ? trigger->tg_newtuple :
						   trigger->tg_trigtuple);
}

/* ---- new rows ------------------------------------------------------------------------------- */

/* Reads the transition table of a statement, and validates each workflow id that it meets. */
static MakoNewRow *
read_new_rows(TriggerData *trigger, const char *number_column, int64 *count)
{
	Relation	relation = trigger->tg_relation;
	Tuplestorestate *store = trigger->tg_newtable;
	int			stream_no = mako_door_column(relation, "stream_no");
	int			number = mako_door_column(relation, number_column);
	int			workflow_id = mako_door_column(relation, "workflow_id");
	TupleTableSlot *slot = MakeSingleTupleTableSlot(RelationGetDescr(relation),
													&TTSOpsMinimalTuple);
	int64		most = tuplestore_tuple_count(store) + 1;
	MakoNewRow *rows = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(MakoNewRow) * most);
	MakoNewRow *row = rows;
	const char *last = NULL;

	tuplestore_select_read_pointer(store, tuplestore_alloc_read_pointer(store, EXEC_FLAG_REWIND));
	tuplestore_rescan(store);
	while (tuplestore_gettupleslot(store, true, false, slot))
	{
		bool		isnull;
		text	   *workflow;

		CHECK_FOR_INTERRUPTS();
		memset(row, 0, sizeof(MakoNewRow));
		row->stream_no = DatumGetInt64(slot_getattr(slot, stream_no, &isnull));
		row->number = DatumGetInt64(slot_getattr(slot, number, &isnull));
		workflow = DatumGetTextPP(slot_getattr(slot, workflow_id, &isnull));
		if (last == NULL ||
			strncmp(last, VARDATA_ANY(workflow), VARSIZE_ANY_EXHDR(workflow)) != 0 ||
			last[VARSIZE_ANY_EXHDR(workflow)] != '\0')
		{
			(void) DirectFunctionCall1(mako_assert_workflow_id, PointerGetDatum(workflow));
			last = text_to_cstring(workflow);
		}
		row->workflow_id = last;
		row++;
	}
	ExecDropSingleTupleTableSlot(slot);
	*count = row - rows;
	return rows;
}

/*
 * After INSERT on mako.stream: new heads start at version 0, under a version that takes new
 * processes; unless the extension adopts streams that are there already.
 */
Datum
mako_stream_inserted(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = insert_trigger(fcinfo, "mako_stream_inserted", "stream");
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "mako new streams",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	int64		count;
	MakoNewRow *rows = read_new_rows(trigger, "version", &count);
	int64		highest = 0;
	Oid			role = GetUserId();
	ListCell   *cell;

	if (!adopting)
		mako_attached_forbid();
	for (int64 i = 0; i < count; i++)
	{
		highest = Max(highest, rows[i].stream_no);
		if (rows[i].number != 0 && !adopting)
			ereport(ERROR,
					(errcode(ERRCODE_CHECK_VIOLATION),
					 errmsg("a new stream must have version 0"),
					 errdetail("The version of stream number " INT64_FORMAT " is " INT64_FORMAT ".",
							   rows[i].stream_no, rows[i].number),
					 errhint("The version advances with the stream's events.")));
	}
	if (count > 0)
	{
		MakoGate	gate = mako_gate_enter_table(trigger->tg_relation->rd_rel->relowner);
		MakoConnection connection = mako_sql_connect_own();

		mako_sequence_pass(trigger->tg_relation, highest, role);
		foreach(cell, mako_new_rows_versions(rows, count, NULL))
			mako_fence_pass(lfirst(cell), adopting ? adopting_fence : MAKO_FENCE_START);
		mako_sql_disconnect(connection);
		mako_gate_leave(&gate);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return PointerGetDatum(NULL);
}

/* After INSERT on mako.event: the events continue their streams, whose heads advance. */
Datum
mako_event_inserted(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = insert_trigger(fcinfo, "mako_event_inserted", "event");
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "mako new events",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	MakoNewEvents events = {.role = GetUserId()};

	events.rows = read_new_rows(trigger, "sequence_number", &events.count);
	if (events.count > 0)
	{
		MakoGate	gate = mako_gate_enter_table(trigger->tg_relation->rd_rel->relowner);
		MakoConnection connection = mako_sql_connect_own();
		List	   *versions = mako_new_events_hold_versions(&events);

		mako_new_events_advance(&events);
		mako_new_events_check_versions(versions);
		mako_sql_disconnect(connection);
		mako_gate_leave(&gate);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return PointerGetDatum(NULL);
}

MAKO_FUNCTION(mako_snapshot_saved);

/*
 * Before a periodic snapshot is written: not under a retired version. Of a workflow without apply
 * it is the state, so it could bring a finished process back to life.
 */
Datum
mako_snapshot_saved(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	HeapTuple	tuple;
	MakoGate	gate;
	MakoConnection connection;
	char	   *workflow_id;
	Datum		value;
	bool		isnull;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BEFORE(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		!mako_door_is_table(trigger->tg_relation, "snapshot"))
		mako_store_raise_no_trigger("mako_snapshot_saved");
	tuple = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ? trigger->tg_newtuple :
		trigger->tg_trigtuple;
	value = heap_getattr(tuple, mako_door_column(trigger->tg_relation, "workflow_id"),
						 RelationGetDescr(trigger->tg_relation), &isnull);
	if (isnull)
		return PointerGetDatum(tuple);	/* which the column refuses */
	workflow_id = TextDatumGetCString(value);
	(void) DirectFunctionCall1(mako_assert_workflow_id, CStringGetTextDatum(workflow_id));
	gate = mako_gate_enter_table(trigger->tg_relation->rd_rel->relowner);
	connection = mako_sql_connect_own();
	mako_fence_pass(workflow_id, MAKO_FENCE_ENTER);
	mako_sql_disconnect(connection);
	mako_gate_leave(&gate);
	return PointerGetDatum(tuple);
}
