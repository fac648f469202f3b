/*
 * attach.c
 *	  Creating the store, attaching an event store that is there already, and detaching it.
 *
 * A query of the user's becomes the view mako.attached_event, and his table gets triggers. That is
 * DDL, and so SQL: mako_attach_rows() and mako_detach_rows() of the install script. They run as the
 * owner of the store, restricted, like everything that evaluates what an owner has written, and
 * only when they are called from here.
 */
#include "store/new_events.h"

#include "access/relation.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

/* The functions of these read and change the store for the caller, who owns it. */
static MakoStatement attach_rows = {
	"SELECT * FROM %s.mako_attach_rows($1, $2, $3, $4, $5)",
	5, {TEXTOID, TEXTOID, REGCLASSOID, BOOLOID, TEXTARRAYOID},
	.needs = "mako.stream mako.attached"
};

static MakoStatement create_rows = {"SELECT %s.mako_create_rows()", 0, {0},.needs = ""};

static MakoStatement detach_rows = {
	"SELECT %s.mako_detach_rows($1)", 1, {REGCLASSOID},
	.needs = "mako.stream mako.attached"
};

static MakoStatement select_attached = {
	"SELECT a.query, a.initial, a.appended_to, a.wait, a.search_path FROM mako.attached a"
};

static MakoStatement insert_attached = {
	"INSERT INTO mako.attached (query, initial, appended_to, wait, search_path, attached_by)"
	" VALUES ($1, $2, $3, $4, $5, SESSION_USER)",
	5, {TEXTOID, TEXTOID, REGCLASSOID, BOOLOID, TEXTARRAYOID}
};

static MakoStatement delete_attached = {"DELETE FROM mako.attached"};

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

/* ---- what is wrong with one that is attached ------------------------------------------------ */

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
	const char *obstacle;
	ListCell   *cell;
	bool		has_inserted = false;
	bool		has_changed = false;

	*object = "view mako.attached_event";
	if (!OidIsValid(oid))
		return "is missing";
	view = relation_open(oid, AccessShareLock);
	relations = mako_view_relations(view);
	obstacle = mako_view_row_obstacle(view);
	relation_close(view, NoLock);
	if (obstacle != NULL)
		return obstacle;
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

MAKO_FUNCTION(mako_is_attached);
MAKO_FUNCTION(mako_attached_problem);

/* Whether the events are those of an attached event store. */
Datum
mako_is_attached(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(mako_door_is_attached());
}

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

/* ---- what can be attached ------------------------------------------------------------------- */

/* Raises that a query cannot be attached. */
pg_noreturn static void
raise_not_attachable(const char *detail, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("the query cannot be attached"),
			 errdetail_internal("%s", detail), errhint("%s", hint)));
}

/* Raises unless the triggers of a table see every event that is written to it. */
static void
require_whole_table(Oid oid)
{
	Relation	table = relation_open(oid, AccessShareLock);
	const char *name = RelationGetRelationName(table);
	char		kind = table->rd_rel->relkind;

	if (kind != RELKIND_RELATION && kind != RELKIND_PARTITIONED_TABLE)
		raise_not_attachable(psprintf("\"%s\" is not a table.", name),
							 "Name the table that events are appended to.");
	if (table->rd_rel->relispartition || has_superclass(oid))
		raise_not_attachable(psprintf("Table \"%s\" has a parent, through which rows come past its "
									  "triggers.", name),
							 "Name the parent.");
	for (int i = 0; i < RelationGetDescr(table)->natts; i++)
		if (MakoIsVirtual(TupleDescAttr(RelationGetDescr(table), i)))
			raise_not_attachable(psprintf("Table \"%s\" has a virtual generated column.", name),
								 "Let it be STORED.");
	if (kind == RELKIND_RELATION && list_length(find_all_inheritors(oid, NoLock, NULL)) > 1)
		raise_not_attachable(psprintf("Table \"%s\" has children, whose rows come past its "
									  "triggers.", name),
							 "Partitions are possible, inheritance is not.");
	relation_close(table, NoLock);
}

/* Returns true if a relation is of schema mako. */
static bool
is_of_store(Oid relation)
{
	return get_rel_namespace(relation) == mako_door_schema();
}

MAKO_FUNCTION(mako_attached_table);

/*
 * The table that events are appended to, of those that the view mako.attached_event reads; raises
 * where new rows of it do not tell new events: see the install script.
 */
Datum
mako_attached_table(PG_FUNCTION_ARGS)
{
	Oid			table = PG_ARGISNULL(0) ? InvalidOid : PG_GETARG_OID(0);
	Relation	view;
	const char *foreign;
	const char *obstacle;
	int			tables = 0;
	ListCell   *cell;

	mako_gate_require_delegated();
	view = relation_open(mako_door_attached_view(), AccessShareLock);
	foreign = mako_view_foreign_part(view, view->rd_rel->relowner);
	obstacle = mako_view_row_obstacle(view);
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

		if (is_of_store(lfirst_oid(cell)))
			raise_not_attachable("It reads a table of the store.", "Attach another table.");
		if (kind == RELKIND_VIEW)
			continue;
		tables++;
		if (PG_ARGISNULL(0))
			table = lfirst_oid(cell);
	}
	if (!OidIsValid(table))
		raise_not_attachable("It reads no table.", "Name the table that events are appended to.");
	if (tables > 1 && PG_ARGISNULL(0))
		raise_not_attachable("It reads several tables.",
							 "Say in appended_to which of them events are appended to.");
	if (!list_member_oid(mako_view_relations(view), table))
		raise_not_attachable("It does not read the table of appended_to.",
							 "Name a table that the query reads.");
	require_whole_table(table);
	if (mako_attached_places(view->rd_rel->relowner, table) != 1)
		raise_not_attachable(psprintf("It names the table \"%s\" %d times.", get_rel_name(table),
									  mako_attached_places(view->rd_rel->relowner, table)),
							 "Name the table that events are appended to once.");
	relation_close(view, NoLock);
	PG_RETURN_OID(table);
}

static MakoStatement explain_lookup = {
	"EXPLAIN (FORMAT JSON) SELECT FROM mako.event e WHERE e.stream_no OPERATOR(pg_catalog.=) 1"
};

MAKO_FUNCTION(mako_attached_plan);

/* How the server would look up the events of one stream: see the install script. */
Datum
mako_attached_plan(PG_FUNCTION_ARGS)
{
	MakoConnection connection;
	MakoRows	rows;
	char	   *plan;

	mako_gate_require_delegated();
	connection = mako_sql_connect_own();
	mako_sql_set(connection, "enable_seqscan", "off");
	rows = mako_sql_query(&explain_lookup, NULL);
	plan = TextDatumGetCString(mako_row_datum(&rows, 0, 1, JSONOID));
	mako_rows_free(&rows);
	mako_sql_disconnect(connection);
	PG_RETURN_DATUM(DirectFunctionCall1(jsonb_in, CStringGetDatum(plan)));
}

/* ---- the calls ------------------------------------------------------------------------------ */

/* Raises unless the current role owns the schema of the store. */
static void
require_owner(void)
{
	HeapTuple	tuple = SearchSysCache1(NAMESPACEOID, ObjectIdGetDatum(mako_door_schema()));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for schema \"mako\""); /* cannot happen */
	owner = ((Form_pg_namespace) GETSTRUCT(tuple))->nspowner;
	ReleaseSysCache(tuple);
	if (owner != GetUserId())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("schema \"mako\" belongs to role \"%s\"", GetUserNameFromId(owner, true)),
				 errdetail("The current role is \"%s\".", GetUserNameFromId(GetUserId(), false)),
				 errhint("An event store is attached and detached by the role that owns the store: "
						 "use SET ROLE %s.", quote_identifier(GetUserNameFromId(owner, true)))));
}

/* Raises unless a text is one query, on a path, by itself. */
static void
require_query(const char *text, const char *path)
{
	MakoStatement query = {
		.text = text,.verbatim = true,.transient = CurrentMemoryContext,
		.role = GetUserId(),.path = path
	};

	mako_sql_check(&query);
}

/* Attaches, with the arguments of insert_attached; returns streams, events and damaged ones. */
static void
attach(NullableDatum *values, NullableDatum *counts)
{
	const char *path = mako_extension_path_of(values[4].value);
	MakoRows	rows;

	if (mako_door_is_attached())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("an event store is attached already"),
				 errhint("SELECT mako_detach_store() first; heads, states and runs stay.")));
	/* Events that are older than the triggers must be seen. */
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("an event store is attached in a READ COMMITTED transaction"),
				 errdetail("The snapshot of this one may be older than events of the table.")));
	require_query(TextDatumGetCString(values[0].value), path);
	rows = mako_sql_query(&attach_rows, values);
	values[2] = mako_oid(mako_row_oid_of(&rows, 0, 1, REGCLASSOID));
	for (int i = 0; counts != NULL && i < 3; i++)
		counts[i] = mako_bigint(mako_row_bigint(&rows, 0, i + 2));
	mako_rows_free(&rows);
	(void) mako_store_write(&insert_attached, values);
}

/* Raises that there is nothing to detach. */
pg_noreturn static void
raise_not_attached(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("no event store is attached"),
			 errhint("mako_attach_store() attaches one.")));
}

/* Detaches what is attached to a table. */
static void
detach(NullableDatum table)
{
	MakoRows	rows;

	/* Another session may have been faster. */
	if (mako_store_write(&delete_attached, NULL) == 0)
		raise_not_attached();
	rows = mako_sql_query(&detach_rows, &table);
	mako_rows_free(&rows);
}

MAKO_FUNCTION(mako_create_store);
MAKO_FUNCTION(mako_attach_store);
MAKO_FUNCTION(mako_detach_store);
MAKO_FUNCTION(mako_attach_again);

/*
 * Creates the store, or repairs it: see the install script. What the server evaluates because of
 * that is what the owner has written, who may not be the role that has logged in.
 */
Datum
mako_create_store(PG_FUNCTION_ARGS)
{
	MakoGate	gate;
	MakoConnection connection;
	MakoRows	rows;

	mako_gate_require_change("mako_create_store()");
	gate = mako_gate_enter(GetUserId());
	connection = mako_sql_connect_own();
	rows = mako_sql_query(&create_rows, NULL);
	mako_rows_free(&rows);
	mako_sql_disconnect(connection);
	mako_gate_leave(&gate);
	PG_RETURN_VOID();
}

/* Lets the events of another event store be those of the store: see the install script. */
Datum
mako_attach_store(PG_FUNCTION_ARGS)
{
	MakoRowSet *result = mako_rowset_begin(fcinfo);
	NullableDatum values[] = {
		fcinfo->args[0], fcinfo->args[1], fcinfo->args[2], fcinfo->args[3],
		mako_extension_current_schemas()
	};
	NullableDatum counts[3];
	MakoConnection connection;

	mako_require_value(!PG_ARGISNULL(0), "query");
	mako_require_value(!PG_ARGISNULL(1), "initial");
	mako_require_value(!PG_ARGISNULL(3), "wait");
	mako_gate_require_change("mako_attach_store()");
	require_owner();
	connection = mako_sql_connect_own();
	mako_store_check();
	attach(values, counts);
	mako_sql_disconnect(connection);
	mako_rowset_add(result, counts);
	PG_RETURN_NULL();
}

/* Takes the triggers from the table of an attached event store: see the install script. */
Datum
mako_detach_store(PG_FUNCTION_ARGS)
{
	MakoConnection connection;
	MakoRows	rows;

	mako_gate_require_change("mako_detach_store()");
	require_owner();
	connection = mako_sql_connect_own();
	rows = mako_sql_query(&select_attached, NULL);
	if (rows.count == 0)
		raise_not_attached();
	detach(mako_row_value(&rows, 0, 3, REGCLASSOID));
	mako_rows_free(&rows);
	mako_sql_disconnect(connection);
	PG_RETURN_VOID();
}

/*
 * Detaches an event store that lacks something, and attaches it again: a part of
 * mako_create_store().
 */
Datum
mako_attach_again(PG_FUNCTION_ARGS)
{
	static const Oid types[] = {TEXTOID, TEXTOID, REGCLASSOID, BOOLOID, TEXTARRAYOID};
	MakoConnection connection;
	MakoRows	rows;
	NullableDatum values[lengthof(types)];

	mako_gate_require_change("mako_create_store()");
	require_owner();
	connection = mako_sql_connect_own();
	rows = mako_sql_query(&select_attached, NULL);
	if (rows.count > 0 && (!mako_door_is_attached() || !mako_attached_is_whole()))
	{
		for (size_t i = 0; i < lengthof(types); i++)
			values[i] = mako_row_value(&rows, 0, i + 1, types[i]);
		detach(values[2]);
		attach(values, NULL);
	}
	mako_rows_free(&rows);
	mako_sql_disconnect(connection);
	PG_RETURN_VOID();
}
