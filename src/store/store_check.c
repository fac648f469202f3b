/*
 * store_check.c
 *	  The store as a whole: whether everything that mako_create_store() makes is there, as it makes
 *	  it.
 *
 * The door (gate.h) opens one table at a time, and looks at what C reads of it. Whether triggers,
 * constraints and the layout version are those of the list in mako_store_object() is found out
 * here, once until something changes.
 */
#include "store/store.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "parser/scansup.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/syscache.h"

/* The generation of the door in which the store was found whole; 0 for none. */
static uint64 whole_generation = 0;

static MakoStatement select_objects = {
	"SELECT kind, relation, name, definition FROM %s.mako_store_object()", 0, {0}
};

static MakoStatement select_layout = {
	"SELECT CAST(%s.mako_store_layout() AS bigint)", 0, {0}
};

static MakoStatement select_problems = {
	"SELECT object || ' ' || problem FROM %s.mako_store_problem()", 0, {0}
};

/* A statement that creates something, with the white space that the server gives it. */
static char *
with_plain_spaces(const char *definition)
{
	char	   *plain = palloc(strlen(definition) + 1);
	char	   *end = plain;

	for (; *definition != '\0'; definition++)
	{
		if (!scanner_isspace(*definition))
			*end++ = *definition;
		else if (end > plain && end[-1] != ' ' && end[-1] != '(')
			*end++ = ' ';
	}
	while (end > plain && end[-1] == ' ')
		end--;
	*end = '\0';
	return plain;
}

/* Returns true if a table has this trigger, enabled. */
static bool
has_trigger(Oid relation, const char *name, const char *definition)
{
	Relation	triggers = table_open(TriggerRelationId, AccessShareLock);
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		found = false;

	ScanKeyInit(&keys[0], Anum_pg_trigger_tgrelid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relation));
	ScanKeyInit(&keys[1], Anum_pg_trigger_tgname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum(name));
	scan = systable_beginscan(triggers, TriggerRelidNameIndexId, true, NULL, 2, keys);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		Form_pg_trigger form = (Form_pg_trigger) GETSTRUCT(tuple);
		Datum		actual = DirectFunctionCall1(pg_get_triggerdef, ObjectIdGetDatum(form->oid));

		found = (form->tgenabled == TRIGGER_FIRES_ON_ORIGIN ||
				 form->tgenabled == TRIGGER_FIRES_ALWAYS) &&
			strcmp(TextDatumGetCString(actual), with_plain_spaces(definition)) == 0;
	}
	systable_endscan(scan);
	table_close(triggers, AccessShareLock);
	return found;
}

/*
 * Returns true if a table has this constraint. The server shows no constraint that is younger than
 * the snapshot of a transaction: such a one is not known to be this one.
 */
static bool
has_constraint(Oid relation, const char *name, const char *definition)
{
	LOCAL_FCINFO(call, 1);
	Oid			constraint = get_relation_constraint_oid(relation, name, true);
	char	   *added = psprintf("ADD CONSTRAINT %s ", name);
	const char *expected = strstr(with_plain_spaces(definition), added);
	Datum		actual;

	if (!OidIsValid(constraint) || expected == NULL)
		return false;
	InitFunctionCallInfoData(*call, NULL, 1, InvalidOid, NULL, NULL);
	call->args[0] = mako_oid(constraint);
	actual = pg_get_constraintdef(call);
	return !call->isnull && strcmp(TextDatumGetCString(actual), expected + strlen(added)) == 0;
}

/* Returns true if the layout version can be read. */
static bool
has_layout(void)
{
	MakoRows	rows = mako_sql_query(&select_layout, NULL);
	bool		known = mako_row_bigint_or(&rows, 0, 1, -1) >= 0;

	mako_rows_free(&rows);
	return known;
}

/* Returns true if an object of the store is there as mako_store_object() describes it in a row. */
static bool
is_good_object(const MakoRows *objects, uint64 row)
{
	const char *kind = mako_row_text(objects, row, 1);
	const char *relation_name = mako_row_text(objects, row, 2);
	const char *name = mako_row_text(objects, row, 3);
	const char *definition = mako_row_text(objects, row, 4);
	Oid			relation;

	if (strcmp(kind, "function") == 0)
		return has_layout();
	relation = mako_door_relation(relation_name);
	if (!OidIsValid(relation))
		return false;
	if (strcmp(kind, "table") == 0)
	{
		Relation	table = relation_open(relation, AccessShareLock);
		bool		good = mako_door_is_good(relation_name, table);

		relation_close(table, NoLock);
		return good;
	}
	if (strcmp(kind, "constraint") == 0)
		return has_constraint(relation, name, definition);
	return strcmp(kind, "trigger") != 0 || has_trigger(relation, name, definition);
}

/*
 * Returns true if the store is as it should be. mako_store_problem() asks the same and can tell
 * what is wrong, but takes a third of a short run to be planned; and as a statement it sees the
 * catalogs as they were when a REPEATABLE READ transaction began, where a trigger of the same name
 * may be another one by now. Found once, it holds until something changes.
 */
bool
mako_store_is_whole(void)
{
	MemoryContext context;
	MemoryContext old;
	MakoRows	objects;
	MakoConnection connection;
	uint64		begun;
	bool		whole = true;

	AcceptInvalidationMessages();
	begun = mako_door_generation();
	if (whole_generation == begun)
		return true;
	context = AllocSetContextCreate(CurrentMemoryContext, "mako store", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(context);
	/* On its path and under its settings, definitions are as mako_store_object() has them. */
	connection = mako_sql_connect_own();
	mako_gate_fix_settings(row_security);
	objects = mako_sql_query(&select_objects, NULL);
	for (uint64 row = 0; row < objects.count && whole; row++)
		whole = is_good_object(&objects, row);
	mako_rows_free(&objects);
	whole = whole && mako_attached_is_whole();
	mako_sql_disconnect(connection);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	if (whole)
		whole_generation = begun;
	return whole;
}

/* What the store lacks, as a list; NULL for nothing. */
const char *
mako_store_problems(void)
{
	MakoRows	problems;
	StringInfoData list;

	if (mako_store_is_whole())
		return NULL;
	problems = mako_sql_query(&select_problems, NULL);
	initStringInfo(&list);
	for (uint64 row = 0; row < problems.count; row++)
		appendStringInfo(&list, "%s%s", row > 0 ? ", " : "", mako_row_text(&problems, row, 1));
	mako_rows_free(&problems);
	return list.len > 0 ? list.data : NULL;
}

/* Raises that the store has problems, unless there are none. */
static void
require_no_problems(const char *problems)
{
	HeapTuple	tuple;
	Oid			owner;

	if (problems == NULL)
		return;
	tuple = SearchSysCache1(NAMESPACEOID, ObjectIdGetDatum(mako_door_schema()));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for schema \"mako\""); /* cannot happen */
	owner = ((Form_pg_namespace) GETSTRUCT(tuple))->nspowner;
	ReleaseSysCache(tuple);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the store is damaged"),
			 errdetail_internal("%s.", problems),
			 errhint("Repair it with SELECT mako_create_store(), as its owner \"%s\".",
					 GetUserNameFromId(owner, false))));
}

/* Raises unless there is a store that the current role trusts, and all that belongs to it. */
void
mako_store_check(void)
{
	mako_door_require_trusted();
	require_no_problems(mako_store_problems());
}

/* The same at the start of a run, which writes: its number must not be there already. */
void
mako_store_check_for_run(void)
{
	mako_store_check();
	require_no_problems(mako_sequence_problems());
}

MAKO_FUNCTION(mako_assert_store);

/* Raises unless there is a store and all that belongs to it. */
Datum
mako_assert_store(PG_FUNCTION_ARGS)
{
	MakoConnection connection = mako_sql_connect();

	mako_store_check_for_run();
	mako_sql_disconnect(connection);
	PG_RETURN_VOID();
}

/* ---- the schema of the extension ------------------------------------------------------------ */

MAKO_FUNCTION(mako_open_schema);
MAKO_FUNCTION(mako_grant_triggers);

/* Why others may create in the schema of the extension; null where they may not. */
Datum
mako_open_schema(PG_FUNCTION_ARGS)
{
	bool		may_create;
	const char *why = mako_extension_schema_is_open(&may_create);

	if (why == NULL || !may_create)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(why));
}

static MakoStatement may_create_store = {
	"SELECT has_function_privilege($1, p.oid, 'EXECUTE')"
	" FROM pg_proc p JOIN pg_extension e ON e.extnamespace = p.pronamespace"
	" AND e.extname = 'mako_migration'"
	" WHERE p.proname = 'mako_create_store' AND p.pronargs = 0",
	1, {OIDOID}
};

/*
 * Lets the current role use the functions of the store's triggers, if it may create a store: no
 * other role is to give these functions to a table of his own.
 */
Datum
mako_grant_triggers(PG_FUNCTION_ARGS)
{
	NullableDatum role = mako_oid(GetUserId());
	MakoConnection connection = mako_sql_connect_own();
	MakoRows	rows = mako_sql_query(&may_create_store, &role);
	const char *schema = quote_identifier(get_namespace_name(mako_extension_schema()));
	MakoStatement grant = {.transient = CurrentMemoryContext,.verbatim = true};
	MakoGate	gate;

	if (mako_row_boolean(&rows, 0, 1) && !superuser())
	{
		grant.text = psprintf("GRANT EXECUTE ON FUNCTION %s.mako_stream_inserted(),"
							  " %s.mako_event_inserted(), %s.mako_snapshot_saved(),"
							  " %s.mako_attached_inserted(), %s.mako_attached_changed(),"
							  " %s.mako_guard() TO %s",
							  schema, schema, schema, schema, schema, schema,
							  quote_identifier(GetUserNameFromId(GetUserId(), false)));
		gate = mako_gate_enter(mako_extension_owner());
		(void) mako_sql_execute(&grant, NULL);
		mako_gate_leave(&gate);
	}
	mako_rows_free(&rows);
	mako_sql_disconnect(connection);
	PG_RETURN_VOID();
}
