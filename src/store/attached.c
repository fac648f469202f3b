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
#include "optimizer/optimizer.h"
#include "rewrite/rewriteHandler.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/rls.h"

/*
 * What the triggers read of the view: events among new rows; those that others do not tell, too;
 * and of the streams of such ones, or of all rows, the ids.
 */
#define COLUMNS_OF_EVENT "a.stream_id, a.sequence_number, a.workflow_id, a.tenant_id"
#define COLUMNS_OF_STREAM \
	"DISTINCT a.stream_id, CAST(1 AS pg_catalog.int8), CAST(NULL AS pg_catalog.text)," \
	" CAST(NULL AS pg_catalog.uuid)"
#define SELECT_OF_VIEW(columns) "SELECT " columns " FROM mako.attached_event a"
#define THAT_OTHERS_DO_NOT_TELL \
	" WHERE NOT EXISTS (SELECT FROM mako.attached_event b" \
	" WHERE b.stream_id OPERATOR(pg_catalog.=) a.stream_id" \
	" AND b.sequence_number OPERATOR(pg_catalog.=) a.sequence_number)"

#define SELECT_NEW SELECT_OF_VIEW(COLUMNS_OF_EVENT)
#define SELECT_ADDED SELECT_OF_VIEW(COLUMNS_OF_EVENT) THAT_OTHERS_DO_NOT_TELL
#define SELECT_REDUCED SELECT_OF_VIEW(COLUMNS_OF_STREAM) THAT_OTHERS_DO_NOT_TELL
#define SELECT_STREAMS SELECT_OF_VIEW(COLUMNS_OF_STREAM)

/* Their columns, by their places in a row. */
enum
{
	STREAM_ID,
	SEQUENCE_NUMBER,
	WORKFLOW_ID,
	TENANT_ID,
	COLUMNS
};

static const Oid column_types[COLUMNS] = {TEXTOID, INT8OID, TEXTOID, UUIDOID};

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

/*
 * Heads of some streams, or of all, with the last event that there is, and the one behind which
 * they were moved last. Events that are added at the same time are not counted.
 */
#define SELECT_HEADS(condition, last) \
	"SELECT s.stream_no, s.stream_id, s.version, COALESCE(" last ", 0)," \
	" COALESCE((SELECT pg_catalog.max(n.sequence_number) FROM mako.snapshot n" \
	"   WHERE n.stream_no OPERATOR(pg_catalog.=) s.stream_no" \
	"   AND n.run_id OPERATOR(pg_catalog.>) 0 AND " MAKO_STANDS("n") "), 0)" \
	" FROM mako.stream s WHERE " condition " ORDER BY s.stream_no"
#define LAST_EVENT \
	"(SELECT pg_catalog.max(v.sequence_number) FROM mako.event v" \
	"   WHERE v.stream_no OPERATOR(pg_catalog.=) s.stream_no" \
	"   AND v.sequence_number OPERATOR(pg_catalog.<=) s.version)"

#define LOCK_HEADS(condition) \
	"SELECT FROM mako.stream s WHERE " condition " ORDER BY s.stream_no FOR UPDATE"

static MakoStatement lock_heads_of = {
	LOCK_HEADS("s.stream_no OPERATOR(pg_catalog.=) ANY ($1)"), 1, {INT8ARRAYOID}, true
};

static MakoStatement lock_all_heads = {
	LOCK_HEADS("s.version OPERATOR(pg_catalog.>) 0"), 0, {0}, true
};

static MakoStatement select_heads_of = {
	SELECT_HEADS("s.stream_no OPERATOR(pg_catalog.=) ANY ($1)", LAST_EVENT),
	1, {INT8ARRAYOID}, true
};

static MakoStatement select_all_heads = {
	SELECT_HEADS("s.version OPERATOR(pg_catalog.>) 0", LAST_EVENT), 0, {0}, true
};

static MakoStatement set_back = {
	"UPDATE mako.stream AS s SET version = $2 WHERE s.stream_no OPERATOR(pg_catalog.=) $1",
	2, {INT8OID, INT8OID}
};

#define DELETE_OF(table) \
	"DELETE FROM mako." table " t WHERE t.stream_no OPERATOR(pg_catalog.=) ANY ($1)"

static MakoStatement delete_streams[] = {
	{DELETE_OF("registry"), 1, {INT8ARRAYOID}, true},
	{DELETE_OF("correlation"), 1, {INT8ARRAYOID}, true},
	{DELETE_OF("snapshot"), 1, {INT8ARRAYOID}, true},
	{DELETE_OF("repointed"), 1, {INT8ARRAYOID}, true},
	{DELETE_OF("reverted"), 1, {INT8ARRAYOID}, true},
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
	bool		shows_ids;
} Receiver;

static void
start_receiving(DestReceiver *self, int operation, TupleDesc type)
{
}

static void
end_receiving(DestReceiver *self)
{
}

/* Raises unless an event has the id of a stream, a number, and a workflow if it says one. */
static void
require_good(const MakoNewRow *row)
{
	if (row->stream_id[0] == '\0' || row->number < 1)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("an event has no stream id, or a sequence number below 1"),
				 errdetail("Its sequence number is " INT64_FORMAT ".", row->number),
				 errhint("Ids of streams are not empty, and numbers are 1, 2, 3 ... "
						 "in every stream.")));
	if (row->workflow_id == NULL)
		return;
	if (!row->shows_id && mako_workflow_id_fault(row->workflow_id) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
				 errmsg("an event has an invalid workflow id"),
				 errdetail("Its sequence number is " INT64_FORMAT ".", row->number)));
	(void) DirectFunctionCall1(mako_assert_workflow_id, CStringGetTextDatum(row->workflow_id));
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
		row->shows_id = receiver->shows_ids;
		if (!slot->tts_isnull[WORKFLOW_ID])
			row->workflow_id = TextDatumGetCString(slot->tts_values[WORKFLOW_ID]);
		require_good(row);
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
	double		expected;		/* so many */
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
	entry->enrtuples = replacement->expected;
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

/* How often the view, whose owner this is, reads a table, by itself or through other views. */
int
mako_attached_places(Oid owner, Oid table)
{
	MakoGate	gate = mako_gate_enter(owner);
	Replacement replacement = {.table = table};

	(void) replace_table((Node *) mako_gate_expand_view("SELECT FROM mako.attached_event a", NULL),
						 &replacement);
	mako_gate_leave(&gate);
	return replacement.count;
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

/* The names of the rows that a query sees. */
static const char *const row_names[] = {"changed", "others"};

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

/*
 * The plan for a query over rows of the table in the place of the table, and over others in a
 * subselect. Raises where the view does not tell the events of the table.
 */
static PlannedStmt *
plan_rows(Relation view, Oid table, const char *select, const double *counts, bool *shows_ids)
{
	Query	   *query = mako_gate_expand_view(select, column_types);
	Replacement changed = {.table = table,.name = row_names[0],.expected = counts[0]};
	Replacement others = {.table = table,.name = row_names[1],.expected = counts[1]};
	PlannedStmt *plan;

	(void) replace_table(query->jointree->quals, &others);
	(void) replace_table((Node *) query, &changed);
	if (changed.count != 1 || mako_view_row_obstacle(view) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("view \"mako.attached_event\" does not tell the events of table \"%s\"",
						get_rel_name(table)),
				 errhint("Repair the store with SELECT mako_create_store(), "
						 "or drop the trigger.")));
	/* A function that reads could bring what the writer may not read. */
	*shows_ids = !contain_mutable_functions((Node *) query);
	plan = mako_gate_plan_query(copyObject(query));
	if (!reads_rows_only(plan, RelationGetRelid(view)))
	{
		*shows_ids = false;
		return plan;
	}
	return counts[1] > 0 ? mako_gate_plan_sets(query) : plan;
}

/* The plan for new rows that was made last; it lasts until something changes. */
static struct
{
	uint64		generation;		/* of the door */
	Oid			view;
	Oid			table;
	bool		shows_ids;
	PlannedStmt *plan;
	MemoryContext context;
}			kept = {0};

/* The plan for new rows, which is kept for the session where it can be. */
static PlannedStmt *
plan_new_rows(Relation view, Oid table, const double *counts, bool *shows_ids)
{
	uint64		begun = mako_door_generation();
	PlannedStmt *plan;
	MemoryContext old;

	if (kept.plan != NULL && kept.generation == begun && kept.view == RelationGetRelid(view) &&
		kept.table == table)
	{
		*shows_ids = kept.shows_ids;
		return kept.plan;
	}
	kept.plan = NULL;
	plan = plan_rows(view, table, SELECT_NEW, counts, shows_ids);
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
	kept.table = table;
	kept.shows_ids = *shows_ids;
	kept.plan = plan;
	return plan;
}

/* The events that a query tells of changed rows of the table, and of others. */
static MakoNewEvents
read_events(Relation view, Oid table, const char *select, Tuplestorestate *changed,
			Tuplestorestate *others)
{
	MakoNewEvents events = {0};
	Tuplestorestate *rows[] = {changed, others};
	double		counts[lengthof(rows)] = {0};
	QueryEnvironment *environment = create_queryEnv();
	Receiver	receiver = {
		{receive_row, start_receiving, end_receiving, end_receiving, DestNone},
		CurrentMemoryContext, &events, 64
	};
	MakoGate	gate;
	PlannedStmt *plan;

	events.rows = palloc(sizeof(MakoNewRow) * receiver.capacity);
	for (size_t i = 0; i < lengthof(rows) && rows[i] != NULL; i++)
	{
		EphemeralNamedRelation relation = palloc0(sizeof(EphemeralNamedRelationData));

		relation->md.name = pstrdup(row_names[i]);
		relation->md.reliddesc = table;
		relation->md.enrtype = ENR_NAMED_TUPLESTORE;
		relation->md.enrtuples = counts[i] = (double) tuplestore_tuple_count(rows[i]);
		relation->reldata = rows[i];
		register_ENR(environment, relation);
	}
	gate = mako_gate_enter(view->rd_rel->relowner);
	/* What is an event does not depend on the writer's settings. */
	mako_gate_fix_settings(row_security);
	plan = others == NULL && strcmp(select, SELECT_NEW) == 0 ?
		plan_new_rows(view, table, counts, &receiver.shows_ids) :
		plan_rows(view, table, select, counts, &receiver.shows_ids);
	mako_gate_execute(plan, environment, (DestReceiver *) &receiver);
	mako_gate_leave(&gate);
	qsort(events.rows, events.count, sizeof(MakoNewRow), compare_by_id);
	return events;
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
	if ((kept.generation != mako_door_generation() || kept.view != view ||
		 kept.table != RelationGetRelid(table)) &&
		!list_member_oid(mako_view_relations(work.view), RelationGetRelid(table)))
		mako_store_raise_no_trigger(function);
	if (trigger->tg_trigger->tgnargs < 1)
		mako_store_raise_no_trigger(function);
	(void) DirectFunctionCall1(mako_assert_workflow_id,
							   CStringGetTextDatum(trigger->tg_trigger->tgargs[0]));
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

/*
 * Inserts the heads of streams without one: as they were before these events, or as they are with
 * them, where they have come back.
 */
static void
start_streams(const MakoNewEvents *events, bool with_events)
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
		int64		other = with_events ? i + 1 : i - 1;

		if (row->stream_no != 0 ||
			(other >= 0 && other < events->count &&
			 strcmp(row->stream_id, events->rows[other].stream_id) == 0))
			continue;
		values[0][count] = mako_text(row->stream_id);
		values[1][count] = mako_uuid(row->tenant_id);
		values[2][count] = mako_text(row->workflow_id != NULL ? row->workflow_id :
									 events->unstamped);
		values[3][count++] = mako_bigint(with_events ? row->number : row->number - 1);
	}
	if (count == 0)
		return;
	for (int i = 0; i < 4; i++)
		parameters[i] = mako_array(values[i], count, types[i]);
	inserted = mako_store_adopt(&insert_heads, parameters,
								with_events ? MAKO_FENCE_ENTER : MAKO_FENCE_START);
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
	find_numbers(events);
	if (has_all_numbers(events))
		return;
	start_streams(events, false);
	find_numbers(events);
}

/* Lets streams without a head, which have come back, have one, and leaves their events out. */
static void
take_back(MakoNewEvents *events)
{
	int64		left = 0;

	find_numbers(events);
	start_streams(events, true);
	for (int64 i = 0; i < events->count; i++)
		if (events->rows[i].stream_no != 0)
			events->rows[left++] = events->rows[i];
	events->count = left;
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
	Oid			role = GetUserId();
	MakoNewEvents events;
	Work		work = begin_work(fcinfo, "mako_attached_inserted");
	const char *const *arguments = (const char *const *) trigger->tg_trigger->tgargs;
	List	   *versions;

	if (!TRIGGER_FIRED_BY_INSERT(trigger->tg_event) || trigger->tg_newtable == NULL ||
		trigger->tg_trigger->tgnargs != 2)
		mako_store_raise_no_trigger("mako_attached_inserted");
	events = read_events(work.view, RelationGetRelid(trigger->tg_relation), SELECT_NEW,
						 trigger->tg_newtable, NULL);
	if (events.count > 0)
	{
		events.role = role;
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

/* Removes streams, with all that is kept of them but the audit trail. */
static void
remove_streams(const int64 *numbers, int count)
{
	NullableDatum value = mako_bigint_array(numbers, count);

	for (size_t i = 0; i < lengthof(delete_streams) && count > 0; i++)
		(void) mako_store_write(&delete_streams[i], &value);
}

/*
 * Lets heads follow events that have gone: a stream without any is forgotten, one without its last
 * ones goes back; unless it has moved behind them, because the state then rests upon them.
 */
static void
follow_removal(MakoStatement *lock, MakoStatement *select, const NullableDatum *values, Oid role)
{
	MakoRows	heads = mako_sql_query(lock, values);
	int64	   *gone;
	int			count = 0;

	/* What others have written until then is seen only now. */
	mako_rows_free(&heads);
	heads = mako_sql_query(select, values);
	gone = palloc(sizeof(int64) * (heads.count + 1));

	for (uint64 row = 0; row < heads.count; row++)
	{
		int64		last = mako_row_bigint(&heads, row, 4);
		NullableDatum back[] = {
			mako_bigint(mako_row_bigint(&heads, row, 1)), mako_bigint(last)
		};

		if (last == 0)
			gone[count++] = mako_row_bigint(&heads, row, 1);
		else if (mako_row_bigint(&heads, row, 5) > last)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 mako_may_know_heads(role) ?
					 errmsg("events of stream \"%s\" cannot be removed",
							mako_row_text(&heads, row, 2)) :
					 errmsg("events of a stream cannot be removed"),
					 errdetail("A migration has moved the stream behind the last event that would "
							   "stay."),
					 errhint("Remove all events of the stream, or revert the migration first.")));
		else if (last < mako_row_bigint(&heads, row, 3))
			(void) mako_store_write(&set_back, back);
	}
	mako_rows_free(&heads);
	remove_streams(gone, count);
}

/*
 * After UPDATE, DELETE and TRUNCATE on the table of an attached event store. Heads follow the
 * events that are not there any more, because they were archived or erased. Those that were not
 * there before are new events.
 */
Datum
mako_attached_changed(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	Tuplestorestate *before = NULL;
	Tuplestorestate *after = NULL;
	Oid			role = GetUserId();
	Work		work = begin_work(fcinfo, "mako_attached_changed");
	Oid			table = RelationGetRelid(trigger->tg_relation);
	MakoNewEvents reduced;
	MakoNewEvents added = {0};
	List	   *versions = NIL;
	NullableDatum value;

	if (TRIGGER_FIRED_BY_TRUNCATE(trigger->tg_event))
	{
		follow_removal(&lock_all_heads, &select_all_heads, NULL, role);
		return end_work(&work);
	}
	before = trigger->tg_oldtable;
	after = trigger->tg_newtable;
	if (before == NULL)
		mako_store_raise_no_trigger("mako_attached_changed");
	if (after != NULL)
	{
		added = read_events(work.view, table, SELECT_ADDED, after, before);
		added.role = role;
		added.unstamped = unstamped_of(trigger->tg_trigger->tgargs[0]);
		versions = mako_new_events_hold_versions(&added);
	}
	reduced = read_events(work.view, table, after == NULL ? SELECT_STREAMS : SELECT_REDUCED,
						  before, after);
	if (reduced.count > 0)
	{
		find_numbers(&reduced);
		value = numbers_of(&reduced);
		follow_removal(&lock_heads_of, &select_heads_of, &value, role);
	}
	if (added.count > 0)
	{
		take_back(&added);
		mako_new_events_advance(&added);
	}
	mako_new_events_check_versions(versions);
	return end_work(&work);
}
