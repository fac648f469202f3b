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
#include "store/store.h"

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

/*
 * Heads that one statement locks and advances. One head alone, the everyday case, has statements
 * whose plan can be kept; for many, the range lets the planner read a dense chunk in one index
 * scan.
 */
#define HEADS_AT_ONCE 1000

static MakoStatement lock_head = {
	"SELECT s.stream_no, s.stream_id, s.workflow_id, s.version, s.ctid FROM mako.stream s"
	" WHERE s.stream_no OPERATOR(pg_catalog.=) $1 FOR NO KEY UPDATE",
	1, {INT8OID}
};

static MakoStatement lock_heads = {
	"SELECT s.stream_no, s.stream_id, s.workflow_id, s.version"
	" FROM pg_catalog.unnest($1) AS u (stream_no)"
	" JOIN mako.stream s ON s.stream_no OPERATOR(pg_catalog.=) u.stream_no"
	" WHERE s.stream_no OPERATOR(pg_catalog.>=) $3 AND s.stream_no OPERATOR(pg_catalog.<=) $4"
	" ORDER BY s.stream_no FOR NO KEY UPDATE OF s",
	4, {INT8ARRAYOID, INT8ARRAYOID, INT8OID, INT8OID}, true
};

static MakoStatement advance_head = {
	"UPDATE mako.stream AS s SET version = $2 WHERE s.stream_no OPERATOR(pg_catalog.=) $1",
	2, {INT8OID, INT8OID},
	.may_defer = true
};

static MakoStatement advance_heads = {
	"UPDATE mako.stream AS s SET version = u.version"
	" FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS u (stream_no, version)"
	" WHERE s.stream_no OPERATOR(pg_catalog.=) u.stream_no"
	" AND s.stream_no OPERATOR(pg_catalog.>=) $3 AND s.stream_no OPERATOR(pg_catalog.<=) $4",
	4, {INT8ARRAYOID, INT8ARRAYOID, INT8OID, INT8OID}, true,.may_defer = true
};

/* The run that brought a stream to the workflow that it runs under. */
static MakoStatement select_last_run = {
	"SELECT pg_catalog.max(m.run_id)"
	" FROM (SELECT COALESCE(n.reverted_by, n.run_id) FROM mako.snapshot n"
	"   WHERE n.stream_no OPERATOR(pg_catalog.=) $1"
	"   UNION ALL SELECT COALESCE(p.reverted_by, p.run_id) FROM mako.repointed p"
	"   WHERE p.stream_no OPERATOR(pg_catalog.=) $1) m (run_id)"
	" JOIN mako.migration_run r ON r.run_id OPERATOR(pg_catalog.=) m.run_id"
	" WHERE r.update_registry AND r.target_wf OPERATOR(pg_catalog.=) $2",
	2, {INT8OID, TEXTOID}
};

/* One of our own statements is being executed: the guards let it pass. */
static bool writing = false;

/* How often this session has advanced heads. */
static uint64 advances = 0;

/*
 * A head that this session has locked for the current INSERT, together with its version: the
 * trigger need not do it again.
 */
static const MakoHead *held = NULL;

/* A number that changes whenever this session advances heads. */
uint64
mako_store_advances(void)
{
	return advances;
}

/* ---- the guards ----------------------------------------------------------------------------- */

/*
 * Inserts events of a stream whose version and head are locked; returns how many. The trigger
 * checks them against this head.
 */
uint64
mako_store_append(MakoStatement *statement, const NullableDatum *values, const MakoHead *head)
{
	uint64		written = 0;

	held = head;
	PG_TRY();
	{
		written = mako_sql_execute(statement, values);
		if (written > 0 && held == head)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("the trigger \"event_inserted\" of table \"mako.event\" did not fire"),
					 errdetail("The head of stream \"%s\" would not advance.", head->stream_id),
					 SessionReplicationRole == SESSION_REPLICATION_ROLE_REPLICA ?
					 errhint("Reset the setting session_replication_role.") :
					 errhint("Enable it, or repair the store with SELECT mako_create_store().")));
	}
	PG_FINALLY();
	{
		held = NULL;
	}
	PG_END_TRY();
	return written;
}

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

/* Raises that a trigger function was not called by the trigger that it is made for. */
static void
raise_no_trigger(const char *function)
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
		raise_no_trigger(function);
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
		raise_no_trigger("mako_guard");
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

/*
 * A new row: of mako.stream (number is its version) or of mako.event (number is its sequence
 * number).
 */
typedef struct NewRow
{
	int64		stream_no;
	int64		number;
	const char *workflow_id;	/* shared by rows that follow each other */
} NewRow;

/* Reads the transition table of a statement, and validates each workflow id that it meets. */
static NewRow *
read_new_rows(TriggerData *trigger, const char *number_column, int64 *count)
{
	Relation	relation = trigger->tg_relation;
	Tuplestorestate *store = trigger->tg_newtable;
	int			stream_no = mako_door_column(relation, "stream_no");
	int			number = mako_door_column(relation, number_column);
	int			workflow_id = mako_door_column(relation, "workflow_id");
	TupleTableSlot *slot = MakeSingleTupleTableSlot(RelationGetDescr(relation),
													&TTSOpsMinimalTuple);
	NewRow	   *rows = MemoryContextAllocHuge(CurrentMemoryContext,
											  sizeof(NewRow) * (tuplestore_tuple_count(store) + 1));
	NewRow	   *row = rows;
	const char *last = NULL;

	tuplestore_select_read_pointer(store, tuplestore_alloc_read_pointer(store, EXEC_FLAG_REWIND));
	tuplestore_rescan(store);
	while (tuplestore_gettupleslot(store, true, false, slot))
	{
		bool		isnull;
		text	   *workflow;

		CHECK_FOR_INTERRUPTS();
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

/* The versions that the rows name: the workflow ids of one row each. */
static List *
versions_of(const NewRow *rows, int64 count)
{
	List	   *versions = NIL;

	for (int64 i = 0; i < count; i++)
	{
		const char *workflow_id = rows[i].workflow_id;
		bool		known = i > 0 && workflow_id == rows[i - 1].workflow_id;
		ListCell   *cell;

		foreach(cell, versions)
			known = known || strcmp(mako_workflow_id_version(lfirst(cell)),
									mako_workflow_id_version(workflow_id)) == 0;
		if (!known)
			versions = lappend(versions, unconstify(char *, workflow_id));
	}
	return versions;
}

/*
 * After INSERT on mako.stream: new heads start at version 0, under a version that takes new
 * processes.
 */
Datum
mako_stream_inserted(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = insert_trigger(fcinfo, "mako_stream_inserted", "stream");
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "mako new streams",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	int64		count;
	NewRow	   *rows = read_new_rows(trigger, "version", &count);
	int64		highest = 0;
	Oid			role = GetUserId();
	ListCell   *cell;

	for (int64 i = 0; i < count; i++)
	{
		highest = Max(highest, rows[i].stream_no);
		if (rows[i].number != 0)
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
		foreach(cell, versions_of(rows, count))
			mako_fence_pass(lfirst(cell), MAKO_FENCE_START);
		mako_sql_disconnect(connection);
		mako_gate_leave(&gate);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return PointerGetDatum(NULL);
}

/* Orders new events by stream and sequence number. */
static int
compare_new_events(const void *a, const void *b)
{
	const NewRow *x = a;
	const NewRow *y = b;

	if (x->stream_no != y->stream_no)
		return x->stream_no < y->stream_no ? -1 : 1;
	return x->number < y->number ? -1 : x->number > y->number;
}

/* The new events of one stream: consecutive rows. */
typedef struct NewEvents
{
	const NewRow *rows;
	int64		count;
} NewEvents;

/* The owner of the heads. */
static Oid
owner_of_heads(void)
{
	return mako_door_open_tables(mako_door_tables_in("mako.stream"));
}

/*
 * Raises that a stream runs under another workflow than a writer or reader believes; detail says
 * what that one is.
 */
void
mako_store_raise_moved(int64 stream_no, const char *stream_id, const char *workflow_id,
					   const char *detail)
{
	NullableDatum values[] = {mako_bigint(stream_no), mako_text(workflow_id)};
	MakoRows	rows;
	int64		run_id;

	(void) mako_gate_enter(owner_of_heads());
	rows = mako_sql_query(&select_last_run, values);
	run_id = mako_row_bigint_or(&rows, 0, 1, 0);
	ereport(ERROR,
			(errcode(MAKO_ERRCODE_STREAM_MOVED),
			 errmsg("stream \"%s\" runs under workflow \"%s\"", stream_id, workflow_id),
			 run_id == 0 ? errdetail_internal("%s", detail) :
			 errdetail("%s Migration run " INT64_FORMAT " moved the stream.", detail, run_id),
			 errhint("Load the process again and continue under the workflow "
					 "that it runs under now.")));
}

/*
 * Returns true if a role may know what is in the heads, which are read for it as their owner.
 * Otherwise errors tell nothing but what it has written itself, as those of foreign keys do.
 * InvalidOid is one that has found the current head with its own rights.
 */
static bool
may_know_heads(Oid role)
{
	Oid			heads;

	if (!OidIsValid(role))
		return true;
	heads = mako_door_table("stream");
	return pg_class_aclcheck(heads, role, ACL_SELECT) == ACLCHECK_OK &&
		check_enable_rls(heads, role, true) != RLS_ENABLED;
}

/* Raises that an event was written under another workflow than its stream runs under. */
pg_noreturn static void
raise_event_moved(const NewRow *row, const char *stream_id, const char *workflow_id, Oid role)
{
	char	   *detail = psprintf("Event " INT64_FORMAT " was written under \"%s\".",
								  row->number, row->workflow_id);

	if (may_know_heads(role))
		mako_store_raise_moved(row->stream_no, stream_id, workflow_id, detail);
	ereport(ERROR,
			(errcode(MAKO_ERRCODE_STREAM_MOVED),
			 errmsg("stream number " INT64_FORMAT " runs under another workflow", row->stream_no),
			 errdetail_internal("%s", detail),
			 errhint("Load the process again and continue under the workflow "
					 "that it runs under now.")));
}

/* Raises that an event does not come next in its stream. */
pg_noreturn static void
raise_not_next(const NewRow *row, const char *stream_id, int64 expected, Oid role)
{
	bool		known = may_know_heads(role);

	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 known ? errmsg("events of stream \"%s\" do not continue it", stream_id) :
			 errmsg("events of stream number " INT64_FORMAT " do not continue it", row->stream_no),
			 known ? errdetail("Expected sequence number " INT64_FORMAT ", found " INT64_FORMAT ".",
							   expected, row->number) :
			 errdetail("Found sequence number " INT64_FORMAT ".", row->number),
			 errhint("Sequence numbers are 1, 2, 3 ... in every stream, without gap.")));
}

/*
 * Raises unless new events continue their stream under the workflow that it runs under; the role
 * is the one that inserts them.
 */
static void
check_new_events(const NewEvents *events, const char *stream_id, const char *workflow_id,
				 int64 version, Oid role)
{
	for (int64 i = 0; i < events->count; i++)
	{
		const NewRow *row = &events->rows[i];

		if (strcmp(row->workflow_id, workflow_id) != 0)
			raise_event_moved(row, stream_id, workflow_id, role);
		if (row->number != version + 1 + i)
			raise_not_next(row, stream_id, version + 1 + i, role);
	}
}

/*
 * One bigint of some streams' events as a statement's parameter: bigint[], or bigint when there is
 * one stream.
 */
static NullableDatum
bigint_parameter(const NewEvents *events, int count, bool last_number)
{
	int64	   *values = palloc(sizeof(int64) * count);

	for (int i = 0; i < count; i++)
		values[i] = last_number ? events[i].rows[events[i].count - 1].number :
			events[i].rows[0].stream_no;
	return count == 1 ? mako_bigint(values[0]) : mako_bigint_array(values, count);
}

/*
 * Locks the heads of some streams, and checks their events; where there is one, tells where its
 * head is.
 */
static void
check_heads(const NewEvents *events, int count, const NullableDatum *values,
			ItemPointer tid, Oid role)
{
	MakoRows	heads = mako_sql_query(count == 1 ? &lock_head : &lock_heads, values);
	uint64		head = 0;

	for (int i = 0; i < count; i++, head++)
	{
		if (head == heads.count || mako_row_bigint(&heads, head, 1) != events[i].rows[0].stream_no)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("stream number " INT64_FORMAT " does not exist",
							events[i].rows[0].stream_no),
					 errhint("Insert the stream's head into mako.stream first.")));
		check_new_events(&events[i], mako_row_text(&heads, head, 2), mako_row_text(&heads, head, 3),
						 mako_row_bigint(&heads, head, 4), role);
	}
	if (count == 1)
		*tid = *(ItemPointer) DatumGetPointer(mako_row_value(&heads, 0, 5, TIDOID).value);
	mako_rows_free(&heads);
}

/* Locks, checks and advances the heads of some streams, whose events a role inserts. */
static void
advance_heads_of(const NewEvents *events, int count, Oid role)
{
	NullableDatum values[] = {
		bigint_parameter(events, count, false), bigint_parameter(events, count, true),
		mako_bigint(events[0].rows[0].stream_no), mako_bigint(events[count - 1].rows[0].stream_no)
	};
	ItemPointerData tid;

	if (count == 1 && held != NULL && held->stream_no == events[0].rows[0].stream_no)
	{
		check_new_events(&events[0], held->stream_id, held->workflow_id, held->version, InvalidOid);
		tid = held->tid;
	}
	else
		check_heads(events, count, values, &tid, role);
	held = NULL;				/* not where it was any more */
	advances++;
	if (count > 1 || !mako_head_advance(&tid, DatumGetInt64(values[1].value)))
		(void) mako_store_write(count == 1 ? &advance_head : &advance_heads, values);
}

/* After INSERT on mako.event: the events continue their streams, whose heads advance. */
Datum
mako_event_inserted(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = insert_trigger(fcinfo, "mako_event_inserted", "event");
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "mako new events",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext chunk_context = AllocSetContextCreate(context, "mako heads",
														ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	int64		count;
	NewRow	   *rows = read_new_rows(trigger, "sequence_number", &count);
	NewEvents	streams[HEADS_AT_ONCE];
	Oid			role = GetUserId();
	ListCell   *cell;

	if (count > 0)
	{
		List	   *versions = versions_of(rows, count);
		MakoGate	gate = mako_gate_enter_table(trigger->tg_relation->rd_rel->relowner);
		MakoConnection connection = mako_sql_connect_own();

		/*
		 * The locks come before those of the heads, the refusal after: a writer whose stream has
		 * moved shall hear that.
		 */
		foreach(cell, versions)
			mako_fence_lock(lfirst(cell));
		qsort(rows, count, sizeof(NewRow), compare_new_events);
		for (int64 next = 0; next < count;)
		{
			int			filled = 0;

			MemoryContextReset(chunk_context);
			MemoryContextSwitchTo(chunk_context);
			CHECK_FOR_INTERRUPTS();
			for (; next < count && filled < HEADS_AT_ONCE; filled++)
			{
				NewEvents  *events = &streams[filled];

				events->rows = &rows[next];
				for (events->count = 0;
					 next < count && rows[next].stream_no == events->rows->stream_no; next++)
					events->count++;
			}
			advance_heads_of(streams, filled, role);
		}
		foreach(cell, versions)
			mako_fence_check(lfirst(cell), MAKO_FENCE_ENTER);
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
		raise_no_trigger("mako_snapshot_saved");
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
