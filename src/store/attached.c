/*
 * attached.c
 *	  The triggers on the table of an attached event store: heads follow the events that its
 *	  application writes, and events that do not fit are refused.
 *
 * The view mako.attached_event says what of the table is an event, by columns of our names. The
 * triggers evaluate its query over the rows that a statement has just written: the table's place in
 * the query is taken by the transition table. So new events are what the view shows of them later.
 *
 * They act as the owner of the view, to whom the table belongs as well (gate/view.c), and so need
 * no privileges of the role that writes.
 */
#include "store/new_events.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "rewrite/rewriteHandler.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

/* The columns of the view that the triggers read, with their places in a row that is received. */
enum
{
	STREAM_ID,
	SEQUENCE_NUMBER,
	WORKFLOW_ID,
	TENANT_ID,
	COLUMNS
};

static const MakoViewColumn columns[COLUMNS] = {
	[STREAM_ID] = {"stream_id", TEXTOID},[SEQUENCE_NUMBER] = {"sequence_number", INT8OID},
	[WORKFLOW_ID] = {"workflow_id", TEXTOID},[TENANT_ID] = {"tenant_id", UUIDOID},
};

/* The numbers of streams, by the places of their ids. */
static MakoStatement select_numbers = {
	"SELECT u.place, s.stream_no"
	" FROM pg_catalog.unnest($1) WITH ORDINALITY AS u (stream_id, place)"
	" JOIN mako.stream s ON s.stream_id OPERATOR(pg_catalog.=) u.stream_id",
	1, {TEXTARRAYOID}, true
};

static MakoStatement select_number = {
	"SELECT CAST(1 AS bigint), s.stream_no FROM mako.stream s"
	" WHERE s.stream_id OPERATOR(pg_catalog.=) $1",
	1, {TEXTOID}
};

static MakoStatement insert_heads = {
	"INSERT INTO mako.stream (stream_id, tenant_id, workflow_id, version)"
	" SELECT u.stream_id, u.tenant_id, u.workflow_id, u.version"
	" FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3),"
	" pg_catalog.unnest($4)) WITH ORDINALITY"
	" AS u (stream_id, tenant_id, workflow_id, version, place)"
	" ORDER BY u.place ON CONFLICT ON CONSTRAINT stream_stream_id_key DO NOTHING"
	" RETURNING stream_no",
	4, {TEXTARRAYOID, UUIDARRAYOID, TEXTARRAYOID, INT8ARRAYOID}
};

/* Those of some streams, or of all, that have no event any more. */
#define FIND_GONE(streams) \
	"SELECT s.stream_no FROM mako.stream s WHERE " streams \
	" AND NOT EXISTS (SELECT FROM mako.event v" \
	"   WHERE v.stream_no OPERATOR(pg_catalog.=) s.stream_no)" \
	" ORDER BY s.stream_no FOR UPDATE OF s"

static MakoStatement select_gone = {
	FIND_GONE("s.stream_no OPERATOR(pg_catalog.=) ANY ($1)"), 1, {INT8ARRAYOID}, true
};

static MakoStatement select_all_gone = {
	FIND_GONE("s.version OPERATOR(pg_catalog.>) 0"), 0, {0}, true
};

#define DELETE_OF(table) \
	"DELETE FROM mako." table " t WHERE t.stream_no OPERATOR(pg_catalog.=) ANY ($1)"

static MakoStatement delete_streams[] = {
	{DELETE_OF("registry"), 1, {INT8ARRAYOID}, true},
	{DELETE_OF("correlation"), 1, {INT8ARRAYOID}, true},
	{DELETE_OF("snapshot"), 1, {INT8ARRAYOID}, true},
	{DELETE_OF("repointed"), 1, {INT8ARRAYOID}, true},
	{DELETE_OF("stream"), 1, {INT8ARRAYOID}, true},
};

/* ---- the events among some rows ------------------------------------------------------------- */

/* Takes the rows of the query as new events. */
typedef struct Receiver
{
	DestReceiver receiver;
	MemoryContext context;		/* of what is received */
	MakoNewEvents *events;
	int64		capacity;
} Receiver;

static void
start_receiving(DestReceiver *self, int operation, TupleDesc type)
{
}

static void
end_receiving(DestReceiver *self)
{
}

/* Takes a row. One without stream or number is none of an event that belongs to a stream. */
static bool
receive_row(TupleTableSlot *slot, DestReceiver *self)
{
	Receiver   *receiver = (Receiver *) self;
	MakoNewEvents *events = receiver->events;
	MemoryContext old = MemoryContextSwitchTo(receiver->context);
	MakoNewRow *row;

	CHECK_FOR_INTERRUPTS();
	slot_getallattrs(slot);
	if (!slot->tts_isnull[STREAM_ID] && !slot->tts_isnull[SEQUENCE_NUMBER])
	{
		if (events->count == receiver->capacity)
		{
			receiver->capacity *= 2;
			events->rows = repalloc_huge(events->rows, sizeof(MakoNewRow) * receiver->capacity);
		}
		row = &events->rows[events->count++];
		memset(row, 0, sizeof(MakoNewRow));
		row->stream_id = TextDatumGetCString(slot->tts_values[STREAM_ID]);
		row->number = DatumGetInt64(slot->tts_values[SEQUENCE_NUMBER]);
		if (!slot->tts_isnull[WORKFLOW_ID])
		{
			(void) DirectFunctionCall1(mako_assert_workflow_id, slot->tts_values[WORKFLOW_ID]);
			row->workflow_id = TextDatumGetCString(slot->tts_values[WORKFLOW_ID]);
		}
		if (!slot->tts_isnull[TENANT_ID])
		{
			row->tenant_id = palloc(sizeof(pg_uuid_t));
			*row->tenant_id = *DatumGetUUIDP(slot->tts_values[TENANT_ID]);
		}
	}
	MemoryContextSwitchTo(old);
	return true;
}

/* A table whose place in a query others rows take. */
typedef struct Replacement
{
	Oid			table;
	const char *name;			/* of those rows in the query's environment */
	int			count;			/* places that were found */
} Replacement;

/* Lets an entry of a range table stand for the rows. */
static void
replace_entry(RangeTblEntry *entry, const Replacement *replacement)
{
	Relation	table = relation_open(entry->relid, NoLock);
	TupleDesc	type = RelationGetDescr(table);

	entry->rtekind = RTE_NAMEDTUPLESTORE;
	entry->enrname = pstrdup(replacement->name);
	entry->relkind = 0;
	entry->rellockmode = 0;
	entry->inh = false;
	MakoNeedNoPrivileges(entry);
	for (int i = 0; i < type->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(type, i);
		bool		is_dropped = attribute->attisdropped;

		entry->coltypes = lappend_oid(entry->coltypes,
									  is_dropped ? InvalidOid : attribute->atttypid);
		entry->coltypmods = lappend_int(entry->coltypmods, is_dropped ? 0 : attribute->atttypmod);
		entry->colcollations = lappend_oid(entry->colcollations,
										   is_dropped ? InvalidOid : attribute->attcollation);
	}
	relation_close(table, NoLock);
}

/* Replaces the table wherever a query names it. */
static bool
replace_table(Node *node, void *argument)
{
	Replacement *replacement = argument;

	if (node == NULL)
		return false;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, replace_table, argument,
								 QTW_EXAMINE_RTES_BEFORE);
	if (IsA(node, RangeTblEntry))
	{
		RangeTblEntry *entry = (RangeTblEntry *) node;

		if (entry->rtekind == RTE_RELATION && entry->relid == replacement->table)
		{
			replacement->count++;
			if (replacement->name != NULL)
				replace_entry(entry, replacement);
		}
		return false;
	}
	return expression_tree_walker(node, replace_table, argument);
}

/* How often a query names a table itself, not through another view. */
static int
places_of(Query *query, Oid table)
{
	Replacement replacement = {.table = table};

	(void) replace_table((Node *) query, &replacement);
	return replacement.count;
}

/* The plan that was made last, for a view and a table; it lasts until something changes. */
static struct
{
	uint64		generation;		/* of the door */
	Oid			view;
	Oid			table;
	PlannedStmt *plan;
	MemoryContext context;
}			kept = {0};

/* Returns true if a plan reads nothing but the rows: there is nothing to lock before it is used. */
static bool
reads_rows_only(const PlannedStmt *plan, Oid view)
{
	ListCell   *cell;

	foreach(cell, plan->rtable)
	{
		const RangeTblEntry *entry = lfirst_node(RangeTblEntry, cell);

		/* Until 16, the rule of a view names the view itself. */
		if (entry->rtekind == RTE_RELATION && entry->relid != view)
			return false;
	}
	return true;
}

/* The plan for the view's query over rows of the table, under their name. */
static PlannedStmt *
plan_rows(Relation view, Replacement *replacement)
{
	uint64		begun = mako_door_generation();
	Query	   *query;
	PlannedStmt *plan;
	MemoryContext old;

	if (kept.plan != NULL && kept.generation == begun && kept.view == RelationGetRelid(view) &&
		kept.table == replacement->table)
		return kept.plan;
	kept.plan = NULL;
	query = mako_view_query(view, columns, COLUMNS);
	(void) replace_table((Node *) query, replacement);
	plan = mako_gate_plan_query(query);
	if (!reads_rows_only(plan, RelationGetRelid(view)) || begun != mako_door_generation())
		return plan;
	if (kept.context == NULL)
		kept.context = AllocSetContextCreate(TopMemoryContext, "mako attached plan",
											 ALLOCSET_SMALL_SIZES);
	MemoryContextReset(kept.context);
	old = MemoryContextSwitchTo(kept.context);
	plan = copyObject(plan);
	MemoryContextSwitchTo(old);
	kept.generation = begun;
	kept.view = RelationGetRelid(view);
	kept.table = replacement->table;
	kept.plan = plan;
	return plan;
}

/* Adds the events that the view would show of some rows of the table. */
static void
add_events(MakoNewEvents *events, Relation view, Relation table, Tuplestorestate *rows)
{
	Replacement replacement = {.table = RelationGetRelid(table),.name = "appended"};
	EphemeralNamedRelationData relation = {{0}};
	QueryEnvironment *environment = create_queryEnv();
	Receiver	receiver = {
		{receive_row, start_receiving, end_receiving, end_receiving, DestNone},
		CurrentMemoryContext, events, events->count + 64
	};
	MakoGate	gate;

	events->rows = events->rows == NULL ? palloc(sizeof(MakoNewRow) * receiver.capacity) :
		repalloc_huge(events->rows, sizeof(MakoNewRow) * receiver.capacity);
	relation.md.name = unconstify(char *, replacement.name);
	relation.md.reliddesc = replacement.table;
	relation.md.enrtype = ENR_NAMED_TUPLESTORE;
	relation.md.enrtuples = (double) tuplestore_tuple_count(rows);
	relation.reldata = rows;
	register_ENR(environment, &relation);
	gate = mako_gate_enter(view->rd_rel->relowner);
	mako_gate_execute(plan_rows(view, &replacement), environment, (DestReceiver *) &receiver);
	mako_gate_leave(&gate);
}

/* ---- the triggers --------------------------------------------------------------------------- */

MAKO_FUNCTION(mako_attached_inserted);
MAKO_FUNCTION(mako_attached_changed);

/* What a trigger does as the owner of the view. */
typedef struct Work
{
	MakoGate	gate;
	MakoConnection connection;
	Relation	view;
	MemoryContext context;
	MemoryContext old;
} Work;

/* Begins the work of a trigger on the table of the attached event store. */
static Work
begin_work(FunctionCallInfo fcinfo, const char *function)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	Relation	table;
	Oid			view;
	Work		work;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_AFTER(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_STATEMENT(trigger->tg_event))
		mako_store_raise_no_trigger(function);
	table = trigger->tg_relation;
	view = mako_door_attached_view();
	if (!OidIsValid(view))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("no event store is attached"),
				 errdetail("Table \"%s\" has a trigger of one.", RelationGetRelationName(table)),
				 errhint("Repair the store with SELECT mako_create_store(), "
						 "or drop the trigger.")));
	mako_gate_forbid(psprintf("table \"%s\"", RelationGetRelationName(table)));
	work.context = AllocSetContextCreate(CurrentMemoryContext, "mako attached events",
										 ALLOCSET_DEFAULT_SIZES);
	work.old = MemoryContextSwitchTo(work.context);
	work.view = relation_open(view, AccessShareLock);
	if (places_of(get_view_query(work.view), RelationGetRelid(table)) != 1)
		mako_store_raise_no_trigger(function);
	work.gate = mako_gate_enter_table(work.view->rd_rel->relowner);
	/* Which finds out whether the view names what belongs to others. */
	(void) mako_door_table("event");
	work.connection = mako_sql_connect_own();
	return work;
}

/* Ends it. */
static Datum
end_work(const Work *work)
{
	mako_sql_disconnect(work->connection);
	mako_gate_leave(&work->gate);
	relation_close(work->view, NoLock);
	MemoryContextSwitchTo(work->old);
	MemoryContextDelete(work->context);
	return PointerGetDatum(NULL);
}

/* Orders new events by the ids of their streams, and their numbers. */
static int
compare_by_id(const void *a, const void *b)
{
	const MakoNewRow *x = a;
	const MakoNewRow *y = b;
	int			order = strcmp(x->stream_id, y->stream_id);

	if (order != 0)
		return order;
	return x->number < y->number ? -1 : x->number > y->number;
}

/* Gives events of one id after the other the numbers of their streams, as far as there are. */
static void
find_numbers(MakoNewEvents *events)
{
	NullableDatum *ids = palloc(sizeof(NullableDatum) * events->count);
	int64	   *numbers;
	int			count = 0;
	NullableDatum value;
	MakoRows	rows;

	for (int64 i = 0; i < events->count; i++)
		if (i == 0 || strcmp(events->rows[i].stream_id, events->rows[i - 1].stream_id) != 0)
			ids[count++] = mako_text(events->rows[i].stream_id);
	numbers = palloc0(sizeof(int64) * (count + 1));
	value = count == 1 ? ids[0] : mako_array(ids, count, TEXTOID);
	rows = mako_sql_query(count == 1 ? &select_number : &select_numbers, &value);
	for (uint64 row = 0; row < rows.count; row++)
		numbers[mako_row_bigint(&rows, row, 1)] = mako_row_bigint(&rows, row, 2);
	mako_rows_free(&rows);
	count = 0;
	for (int64 i = 0; i < events->count; i++)
	{
		if (i == 0 || strcmp(events->rows[i].stream_id, events->rows[i - 1].stream_id) != 0)
			count++;
		events->rows[i].stream_no = numbers[count];
	}
}

/* Inserts the heads of streams without one, as they were before these events. */
static void
start_streams(const MakoNewEvents *events)
{
	NullableDatum *values[4];
	NullableDatum parameters[4];
	static const Oid types[] = {TEXTOID, UUIDOID, TEXTOID, INT8OID};
	MakoRows	inserted;
	int			count = 0;

	for (int i = 0; i < 4; i++)
		values[i] = palloc(sizeof(NullableDatum) * events->count);
	for (int64 i = 0; i < events->count; i++)
	{
		const MakoNewRow *row = &events->rows[i];

		if (row->stream_no != 0 ||
			(i > 0 && strcmp(row->stream_id, events->rows[i - 1].stream_id) == 0))
			continue;
		values[0][count] = mako_text(row->stream_id);
		values[1][count] = mako_uuid(row->tenant_id);
		values[2][count] = mako_text(row->workflow_id != NULL ? row->workflow_id :
									 events->unstamped);
		values[3][count++] = mako_bigint(Max(row->number - 1, 0));
	}
	if (count == 0)
		return;
	for (int i = 0; i < 4; i++)
		parameters[i] = mako_array(values[i], count, types[i]);
	inserted = mako_store_adopt(&insert_heads, parameters, MAKO_FENCE_START);
	mako_rows_free(&inserted);
}

/* Returns true if the streams of all these events have a head. */
static bool
has_all_numbers(const MakoNewEvents *events)
{
	for (int64 i = 0; i < events->count; i++)
		if (events->rows[i].stream_no == 0)
			return false;
	return true;
}

/* Gives events the numbers of their streams, which begin where there are none. */
static void
resolve(MakoNewEvents *events)
{
	qsort(events->rows, events->count, sizeof(MakoNewRow), compare_by_id);
	find_numbers(events);
	if (has_all_numbers(events))
		return;
	start_streams(events);
	find_numbers(events);
}

/* A workflow of the version under which events are written that say none. */
static const char *
unstamped_of(const char *initial)
{
	return mako_writer == NULL || mako_writer[0] == '\0' ? initial :
		mako_workflow_id_at(initial, mako_writer);
}

/*
 * After INSERT on the table of an attached event store: the events continue their streams, whose
 * heads advance. The arguments are the workflow that a new stream runs under if nothing else says
 * so, and "nowait" for a writer that shall not wait for a migration.
 */
Datum
mako_attached_inserted(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	MakoNewEvents events = {.role = GetUserId()};
	Work		work = begin_work(fcinfo, "mako_attached_inserted");
	const char *const *arguments = (const char *const *) trigger->tg_trigger->tgargs;
	List	   *versions;

	if (!TRIGGER_FIRED_BY_INSERT(trigger->tg_event) || trigger->tg_newtable == NULL ||
		trigger->tg_trigger->tgnargs != 2)
		mako_store_raise_no_trigger("mako_attached_inserted");
	add_events(&events, work.view, trigger->tg_relation, trigger->tg_newtable);
	if (events.count > 0)
	{
		events.unstamped = unstamped_of(arguments[0]);
		events.at_once = strcmp(arguments[1], "nowait") == 0;
		versions = mako_new_events_hold_versions(&events);
		resolve(&events);
		mako_new_events_advance(&events);
		mako_new_events_check_versions(versions);
	}
	return end_work(&work);
}

/* The numbers of the streams of some events, as bigint[]. */
static NullableDatum
numbers_of(const MakoNewEvents *events)
{
	int64	   *numbers = palloc(sizeof(int64) * (events->count + 1));
	int			count = 0;

	for (int64 i = 0; i < events->count; i++)
		if (events->rows[i].stream_no != 0)
			numbers[count++] = events->rows[i].stream_no;
	return mako_bigint_array(numbers, count);
}

/* Removes the streams of a result, with all that is kept of them but the audit trail. */
static void
remove_streams(MakoRows rows)
{
	int64	   *numbers = palloc(sizeof(int64) * (rows.count + 1));
	NullableDatum value;

	for (uint64 row = 0; row < rows.count; row++)
		numbers[row] = mako_row_bigint(&rows, row, 1);
	value = mako_bigint_array(numbers, (int) rows.count);
	for (size_t i = 0; i < lengthof(delete_streams) && rows.count > 0; i++)
		(void) mako_store_write(&delete_streams[i], &value);
	mako_rows_free(&rows);
}

/*
 * After UPDATE, DELETE and TRUNCATE on the table of an attached event store: streams without an
 * event any more, because they were archived or erased, are forgotten; those that have come back
 * get a head.
 */
Datum
mako_attached_changed(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	MakoNewEvents events = {.role = GetUserId()};
	Work		work = begin_work(fcinfo, "mako_attached_changed");
	NullableDatum value;

	if (TRIGGER_FIRED_BY_TRUNCATE(trigger->tg_event))
	{
		remove_streams(mako_sql_query(&select_all_gone, NULL));
		return end_work(&work);
	}
	if (trigger->tg_oldtable == NULL || trigger->tg_trigger->tgnargs != 1)
		mako_store_raise_no_trigger("mako_attached_changed");
	add_events(&events, work.view, trigger->tg_relation, trigger->tg_oldtable);
	if (trigger->tg_newtable != NULL)
		add_events(&events, work.view, trigger->tg_relation, trigger->tg_newtable);
	if (events.count > 0)
	{
		qsort(events.rows, events.count, sizeof(MakoNewRow), compare_by_id);
		find_numbers(&events);
		value = numbers_of(&events);
		remove_streams(mako_sql_query(&select_gone, &value));
		if (trigger->tg_newtable != NULL && !has_all_numbers(&events))
			mako_adopt_attached(unstamped_of(trigger->tg_trigger->tgargs[0]));
	}
	return end_work(&work);
}

/* ---- attaching ------------------------------------------------------------------------------ */

/* Raises if events are those of an attached event store, where only its application writes. */
void
mako_attached_forbid(void)
{
	if (mako_door_is_attached())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the events are those of an attached event store"),
				 errhint("Its application starts and continues streams, with its own client.")));
}

/* The number of triggers of a relation that are enabled and call one of our functions. */
static int
count_triggers(Oid oid, const char *function)
{
	Relation	relation = relation_open(oid, AccessShareLock);
	const TriggerDesc *triggers = relation->trigdesc;
	int			count = 0;

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		const Trigger *trigger = &triggers->triggers[i];

		if ((trigger->tgenabled == TRIGGER_FIRES_ON_ORIGIN ||
			 trigger->tgenabled == TRIGGER_FIRES_ALWAYS) &&
			get_func_namespace(trigger->tgfoid) == mako_extension_schema() &&
			strcmp(get_func_name(trigger->tgfoid), function) == 0)
			count++;
	}
	relation_close(relation, NoLock);
	return count;
}

/* Says what an attached event store lacks; NULL for nothing. The object is what is not right. */
static const char *
problem_of(const char **object)
{
	Oid			oid = mako_door_attached_view();
	Relation	view;
	List	   *relations;
	ListCell   *cell;
	bool		has_inserted = false;
	bool		has_changed = false;

	*object = "view mako.attached_event";
	if (!OidIsValid(oid))
		return "is missing";
	view = relation_open(oid, AccessShareLock);
	relations = mako_view_relations(view);
	relation_close(view, NoLock);
	foreach(cell, relations)
	{
		has_inserted = has_inserted ||
			count_triggers(lfirst_oid(cell), "mako_attached_inserted") == 1;
		has_changed = has_changed ||
			count_triggers(lfirst_oid(cell), "mako_attached_changed") == 3;
	}
	*object = has_inserted ? "triggers mako_deleted, mako_truncated and mako_updated" :
		"trigger mako_inserted";
	return has_inserted && has_changed ? NULL : "is missing or disabled";
}

/* Returns true if nothing of an attached event store is missing. */
bool
mako_attached_is_whole(void)
{
	const char *object;

	return !mako_door_is_attached() || problem_of(&object) == NULL;
}

MAKO_FUNCTION(mako_attached_problem);
MAKO_FUNCTION(mako_attached_table);

/* What an attached event store lacks: see the install script. */
Datum
mako_attached_problem(PG_FUNCTION_ARGS)
{
	MakoRowSet *rows = mako_rowset_begin(fcinfo);
	const char *object;
	const char *problem = mako_door_is_attached() ? problem_of(&object) : NULL;

	if (problem != NULL)
	{
		NullableDatum values[] = {mako_text(object), mako_text(problem), mako_boolean(true)};

		mako_rowset_add(rows, values);
	}
	PG_RETURN_NULL();
}

/* Raises that a query cannot be attached. */
pg_noreturn static void
raise_not_attachable(const char *detail, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("the query cannot be attached"),
			 errdetail_internal("%s", detail), errhint("%s", hint)));
}

/*
 * The table that events are appended to, of those that the view mako.attached_event reads; raises
 * where new rows of it do not tell new events: see the install script.
 */
Datum
mako_attached_table(PG_FUNCTION_ARGS)
{
	Oid			oid = mako_door_attached_view();
	Oid			table = PG_ARGISNULL(0) ? InvalidOid : PG_GETARG_OID(0);
	Relation	view = relation_open(oid, AccessShareLock);
	Query	   *query = get_view_query(view);
	const char *foreign = mako_view_foreign_part(view, view->rd_rel->relowner);
	const char *obstacle = mako_view_row_obstacle(view);
	ListCell   *cell;

	if (foreign != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the query %s", foreign),
				 errdetail("What it names is evaluated as role \"%s\", to whom the store belongs.",
						   GetUserNameFromId(view->rd_rel->relowner, true)),
				 errhint("Let the role that owns the table make the store and attach it.")));
	if (obstacle != NULL)
		raise_not_attachable(psprintf("It %s.", obstacle),
							 "Every row of the table must be an event by itself, or none, "
							 "and always the same one.");
	foreach(cell, mako_view_relations(view))
	{
		char		kind = get_rel_relkind(lfirst_oid(cell));

		if (!OidIsValid(table) && list_length(query->rtable) > 0 &&
			(kind == RELKIND_RELATION || kind == RELKIND_PARTITIONED_TABLE) &&
			places_of(query, lfirst_oid(cell)) > 0)
			table = lfirst_oid(cell);
		else if (OidIsValid(table) && PG_ARGISNULL(0) && places_of(query, lfirst_oid(cell)) > 0)
			raise_not_attachable("It reads several tables.",
								 "Say in appended_to which of them events are appended to.");
	}
	if (!OidIsValid(table))
		raise_not_attachable("It reads no table.", "Name the table that events are appended to.");
	if (places_of(query, table) != 1)
		raise_not_attachable(psprintf("It names the table \"%s\" %d times.",
									  get_rel_name(table), places_of(query, table)),
							 "Name the table that events are appended to once, "
							 "itself and not a view over it.");
	relation_close(view, NoLock);
	PG_RETURN_OID(table);
}

MAKO_FUNCTION(mako_is_attached);

/* Whether the events are those of an attached event store. */
Datum
mako_is_attached(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(mako_door_is_attached());
}
