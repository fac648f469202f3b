/*
 * invariants.c
 *	  What the store's tables guarantee, whoever writes to them: the triggers, and the fence around a version.
 *
 * A statement-level trigger on mako.event checks a whole INSERT or COPY at once from its transition table: per stream, sequence
 * numbers continue at the head's version, and the workflow is the head's. Then it advances the heads. Like referential integrity,
 * it reads and writes the heads as the table's owner, so that a writer needs INSERT on mako.event only.
 *
 * The fence: whoever writes under a version holds a shared lock for it until the transaction ends and then reads the version's status
 * with a snapshot of now; whoever drains or retires the version holds the lock exclusively. So an old snapshot slips nothing through.
 *
 * Everything else that the tables refuse, mako_guard() refuses, unless one of our own statements is being executed.
 */
#include "mako_migration.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "common/hashfn.h"
#include "executor/executor.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/tuplestore.h"

/*
 * Heads that one statement locks and advances. One head alone, the everyday case, has statements whose plan can be kept; for many,
 * the range lets the planner read a dense chunk in one index scan.
 */
#define HEADS_AT_ONCE 1000

static MakoStatement select_status = {
	"SELECT f.status FROM mako.format_version f WHERE f.format_version OPERATOR(pg_catalog.=) $1", 1, {TEXTOID}
};

static MakoStatement lock_head = {
	"SELECT s.stream_no, s.stream_id, s.workflow_id, s.version FROM mako.stream s"
	" WHERE s.stream_no OPERATOR(pg_catalog.=) $1 FOR NO KEY UPDATE",
	1, {INT8OID}
};

static MakoStatement lock_heads = {
	"SELECT s.stream_no, s.stream_id, s.workflow_id, s.version"
	" FROM pg_catalog.unnest($1) AS u (stream_no) JOIN mako.stream s ON s.stream_no OPERATOR(pg_catalog.=) u.stream_no"
	" WHERE s.stream_no OPERATOR(pg_catalog.>=) $3 AND s.stream_no OPERATOR(pg_catalog.<=) $4"
	" ORDER BY s.stream_no FOR NO KEY UPDATE OF s",
	4, {INT8ARRAYOID, INT8ARRAYOID, INT8OID, INT8OID}, true
};

static MakoStatement advance_head = {
	"UPDATE mako.stream AS s SET version = $2 WHERE s.stream_no OPERATOR(pg_catalog.=) $1", 2, {INT8OID, INT8OID}
};

static MakoStatement advance_heads = {
	"UPDATE mako.stream AS s SET version = u.version"
	" FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS u (stream_no, version)"
	" WHERE s.stream_no OPERATOR(pg_catalog.=) u.stream_no"
	" AND s.stream_no OPERATOR(pg_catalog.>=) $3 AND s.stream_no OPERATOR(pg_catalog.<=) $4",
	4, {INT8ARRAYOID, INT8ARRAYOID, INT8OID, INT8OID}, true
};

static MakoStatement select_problems = {
	"SELECT object || ' ' || problem FROM %s.mako_store_problem()", 0, {0}
};

/* One of our own statements is being executed: the guards let it pass. */
static bool writing = false;

/* ---- the guards ------------------------------------------------------------------------------------------------------------- */

/* Executes a statement that the store's guards refuse to everybody else, and returns its rows. */
MakoRows
mako_invariants_query(MakoStatement *statement, Datum *values, const char *nulls)
{
	bool		outer = writing;
	MakoRows	rows = {0};

	writing = true;
	PG_TRY();
	{
		rows = mako_sql_query(statement, values, nulls);
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
mako_invariants_write(MakoStatement *statement, Datum *values, const char *nulls)
{
	MakoRows	rows = mako_invariants_query(statement, values, nulls);
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
 * The trigger after INSERT on a table of the store, with its transition table. On another table it would let that table's owner
 * advance heads.
 */
static TriggerData *
insert_trigger(FunctionCallInfo fcinfo, const char *function, const char *table)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_AFTER(trigger->tg_event) ||
		!TRIGGER_FIRED_BY_INSERT(trigger->tg_event) || !TRIGGER_FIRED_FOR_STATEMENT(trigger->tg_event) ||
		trigger->tg_newtable == NULL ||
		RelationGetRelid(trigger->tg_relation) != get_relname_relid(table, get_namespace_oid("mako", true)))
		raise_no_trigger(function);
	return trigger;
}

MAKO_FUNCTION(mako_guard);
MAKO_FUNCTION(mako_stream_inserted);
MAKO_FUNCTION(mako_event_inserted);

/* Refuses a change that only this extension may make; the trigger's arguments are detail and hint. */
Datum
mako_guard(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	Trigger    *definition;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BEFORE(trigger->tg_event))
		raise_no_trigger("mako_guard");
	definition = trigger->tg_trigger;
	if (!writing)
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
	return PointerGetDatum(TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ? trigger->tg_newtuple : trigger->tg_trigtuple);
}

/* ---- locks and the fence ---------------------------------------------------------------------------------------------------- */

/* Takes a transaction-level advisory lock on a name; false when it is not to be had and wait is false. */
static bool
lock_name(const char *kind, const char *name, LOCKMODE mode, bool wait)
{
	char	   *text = psprintf("mako_migration %s %s", kind, name);
	uint64		key = DatumGetUInt64(hash_any_extended((const unsigned char *) text, strlen(text), 0));
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) (key >> 32), (uint32) key, 1);
	pfree(text);
	return LockAcquire(&tag, mode, false, !wait) != LOCKACQUIRE_NOT_AVAIL;
}

/* Lets one migration of a source run at a time. */
void
mako_invariants_lock_source(const char *workflow_id)
{
	if (!lock_name("source", workflow_id, ExclusiveLock, false))
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("another migration of \"%s\" is running", workflow_id),
				 errhint("Wait until it is finished.")));
}

/* The status of a version as committed now, whatever the age of the transaction's snapshot. */
static char *
latest_status(const char *format_version)
{
	Datum		values[] = {CStringGetTextDatum(format_version)};
	MakoRows	rows;
	char	   *status = NULL;

	PushActiveSnapshot(GetLatestSnapshot());
	rows = mako_sql_query_snapshot(&select_status, values, NULL);
	if (rows.count > 0)
		status = mako_rows_text(&rows, 0, 1);
	mako_rows_free(&rows);
	PopActiveSnapshot();
	return status;
}

/* Holds the version of a workflow as it is until the transaction ends, and raises when it does not allow what is to be done. */
void
mako_invariants_fence(const char *workflow_id, MakoFence fence)
{
	const char *version = mako_workflow_id_version(workflow_id);
	const char *status;

	(void) lock_name("version", version, ShareLock, true);
	status = fence == MAKO_FENCE_LEAVE ? NULL : latest_status(version);
	if (status == NULL || strcmp(status, "active") == 0)
		return;
	if (strcmp(status, "retired") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("format version \"%s\" is retired", version),
				 errdetail("Nothing can be written under workflow \"%s\" any more.", workflow_id),
				 errhint("Use a format version that is not retired.")));
	if (fence == MAKO_FENCE_START)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("format version \"%s\" is draining", version),
				 errdetail("No new process can start under workflow \"%s\".", workflow_id),
				 errhint("Start the process under a newer format version.")));
}

/* ---- new rows --------------------------------------------------------------------------------------------------------------- */

/* Acts as the owner of the trigger's table, as referential integrity does. */
typedef struct OwnerRights
{
	Oid			user;
	int			security;
} OwnerRights;

static OwnerRights
become_owner(Relation relation)
{
	OwnerRights before;

	GetUserIdAndSecContext(&before.user, &before.security);
	SetUserIdAndSecContext(RelationGetForm(relation)->relowner,
						   before.security | SECURITY_LOCAL_USERID_CHANGE | SECURITY_NOFORCE_RLS);
	return before;
}

/* The number of a column of the trigger's table. */
static int
column_number(Relation relation, const char *name)
{
	int			number = get_attnum(RelationGetRelid(relation), name);

	if (number == InvalidAttrNumber)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of relation \"%s\" does not exist", name, RelationGetRelationName(relation))));
	return number;
}

/* A new row: of mako.stream (number is its version) or of mako.event (number is its sequence number). */
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
	int			stream_no = column_number(relation, "stream_no");
	int			number = column_number(relation, number_column);
	int			workflow_id = column_number(relation, "workflow_id");
	TupleTableSlot *slot = MakeSingleTupleTableSlot(RelationGetDescr(relation), &TTSOpsMinimalTuple);
	NewRow	   *rows = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(NewRow) * (tuplestore_tuple_count(store) + 1));
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
		if (last == NULL || strncmp(last, VARDATA_ANY(workflow), VARSIZE_ANY_EXHDR(workflow)) != 0 ||
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

/* Passes the fence for every version that the rows name. */
static void
fence_rows(const NewRow *rows, int64 count, MakoFence fence)
{
	List	   *passed = NIL;

	for (int64 i = 0; i < count; i++)
	{
		const char *workflow_id = rows[i].workflow_id;
		bool		known = i > 0 && workflow_id == rows[i - 1].workflow_id;
		ListCell   *cell;

		foreach(cell, passed)
			known = known || strcmp(lfirst(cell), mako_workflow_id_version(workflow_id)) == 0;
		if (!known)
		{
			mako_invariants_fence(workflow_id, fence);
			passed = lappend(passed, unconstify(char *, mako_workflow_id_version(workflow_id)));
		}
	}
}

/* After INSERT on mako.stream: new heads start at version 0, under a version that takes new processes. */
Datum
mako_stream_inserted(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = insert_trigger(fcinfo, "mako_stream_inserted", "stream");
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "mako new streams", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	int64		count;
	NewRow	   *rows = read_new_rows(trigger, "version", &count);
	OwnerRights before;

	for (int64 i = 0; i < count; i++)
		if (rows[i].number != 0)
			ereport(ERROR,
					(errcode(ERRCODE_CHECK_VIOLATION),
					 errmsg("a new stream must have version 0"),
					 errdetail("The version of stream number " INT64_FORMAT " is " INT64_FORMAT ".",
							   rows[i].stream_no, rows[i].number),
					 errhint("The version advances with the stream's events.")));
	if (count > 0)
	{
		before = become_owner(trigger->tg_relation);
		mako_sql_connect_plain();
		fence_rows(rows, count, MAKO_FENCE_START);
		mako_sql_disconnect_plain();
		SetUserIdAndSecContext(before.user, before.security);
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

/* Raises unless new events continue their stream under the workflow that it runs under. */
static void
check_new_events(const NewEvents *events, const char *stream_id, const char *workflow_id, int64 version)
{
	for (int64 i = 0; i < events->count; i++)
	{
		const NewRow *row = &events->rows[i];

		if (strcmp(row->workflow_id, workflow_id) != 0)
			ereport(ERROR,
					(errcode(MAKO_ERRCODE_STREAM_MOVED),
					 errmsg("stream \"%s\" runs under workflow \"%s\"", stream_id, workflow_id),
					 errdetail("Event " INT64_FORMAT " was written under \"%s\".", row->number, row->workflow_id),
					 errhint("Load the process again and continue under the workflow that it runs under now.")));
		if (row->number != version + 1 + i)
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("events of stream \"%s\" do not continue it", stream_id),
					 errdetail("Expected sequence number " INT64_FORMAT ", found " INT64_FORMAT ".",
							   version + 1 + i, row->number),
					 errhint("Sequence numbers are 1, 2, 3 ... in every stream, without gap.")));
	}
}

/* One bigint of some streams' events as a statement's parameter: bigint[], or bigint when there is one stream. */
static Datum
bigint_parameter(const NewEvents *events, int count, bool last_number)
{
	Datum	   *values = palloc(sizeof(Datum) * count);

	for (int i = 0; i < count; i++)
		values[i] = Int64GetDatum(last_number ? events[i].rows[events[i].count - 1].number : events[i].rows[0].stream_no);
	if (count == 1)
		return values[0];
	return PointerGetDatum(construct_array(values, count, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/* Locks, checks and advances the heads of some streams. */
static void
advance(const NewEvents *events, int count)
{
	Datum		values[] = {
		bigint_parameter(events, count, false), bigint_parameter(events, count, true),
		Int64GetDatum(events[0].rows[0].stream_no), Int64GetDatum(events[count - 1].rows[0].stream_no)
	};
	MakoRows	heads = mako_sql_query(count == 1 ? &lock_head : &lock_heads, values, NULL);
	uint64		head = 0;

	for (int i = 0; i < count; i++, head++)
	{
		bool		isnull;

		if (head == heads.count || DatumGetInt64(mako_rows_get(&heads, head, 1, &isnull)) != events[i].rows[0].stream_no)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("stream number " INT64_FORMAT " does not exist", events[i].rows[0].stream_no),
					 errhint("Insert the stream's head into mako.stream first.")));
		check_new_events(&events[i], mako_rows_text(&heads, head, 2), mako_rows_text(&heads, head, 3),
						 DatumGetInt64(mako_rows_get(&heads, head, 4, &isnull)));
	}
	mako_rows_free(&heads);
	(void) mako_invariants_write(count == 1 ? &advance_head : &advance_heads, values, NULL);
}

/* After INSERT on mako.event: the events continue their streams, whose heads advance. */
Datum
mako_event_inserted(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = insert_trigger(fcinfo, "mako_event_inserted", "event");
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "mako new events", ALLOCSET_DEFAULT_SIZES);
	MemoryContext chunk_context = AllocSetContextCreate(context, "mako heads", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	int64		count;
	NewRow	   *rows = read_new_rows(trigger, "sequence_number", &count);
	NewEvents	streams[HEADS_AT_ONCE];
	OwnerRights before;

	if (count > 0)
	{
		before = become_owner(trigger->tg_relation);
		mako_sql_connect_plain();
		fence_rows(rows, count, MAKO_FENCE_ENTER);
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
				for (events->count = 0; next < count && rows[next].stream_no == events->rows->stream_no; next++)
					events->count++;
			}
			advance(streams, filled);
		}
		mako_sql_disconnect_plain();
		SetUserIdAndSecContext(before.user, before.security);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return PointerGetDatum(NULL);
}

/* ---- the store as a whole --------------------------------------------------------------------------------------------------- */

/* Raises unless there is a store and all that belongs to it; warns when its owner could run code with the caller's rights. */
void
mako_invariants_check_store(void)
{
	Oid			schema = get_namespace_oid("mako", true);
	HeapTuple	tuple = OidIsValid(schema) ? SearchSysCache1(NAMESPACEOID, ObjectIdGetDatum(schema)) : NULL;
	MakoRows	problems;
	StringInfoData list;
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("there is no store in this database"),
				 errhint("Use SELECT mako_create_store().")));
	owner = ((Form_pg_namespace) GETSTRUCT(tuple))->nspowner;
	ReleaseSysCache(tuple);

	problems = mako_sql_query(&select_problems, NULL, NULL);
	if (problems.count > 0)
	{
		initStringInfo(&list);
		for (uint64 row = 0; row < problems.count; row++)
			appendStringInfo(&list, "%s%s", row > 0 ? ", " : "", mako_rows_text(&problems, row, 1));
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the store is damaged"),
				 errdetail_internal("%s.", list.data),
				 errhint("Repair it with SELECT mako_create_store(), as its owner \"%s\".", GetUserNameFromId(owner, false))));
	}
	mako_rows_free(&problems);

	if (owner != GetUserId() && !superuser_arg(owner))
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("the store belongs to role \"%s\"", GetUserNameFromId(owner, false)),
				 errdetail("Triggers and views that this role made on it run with the rights of role \"%s\".",
						   GetUserNameFromId(GetUserId(), false)),
				 errhint("Run migrations as the store's owner.")));
}

MAKO_FUNCTION(mako_assert_store);

/* Raises unless there is a store and all that belongs to it. */
Datum
mako_assert_store(PG_FUNCTION_ARGS)
{
	MakoConnection connection = mako_sql_connect();

	mako_invariants_check_store();
	mako_sql_disconnect(connection);
	PG_RETURN_VOID();
}
