/*
 * sql.c
 *	  The only file with SPI: connections, prepared statements, rows and cursors.
 *
 * Statements name every schema, operators included where they run on a path that is not ours. Results are freed by whoever asked for
 * them; in a long run a forgotten tuptable is a leak that nobody sees until it is a gigabyte. SPI leaves its own memory context as the
 * current one, which lasts as long as the connection; every function here puts the caller's back.
 */
#include "mako_migration.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

struct MakoCursor
{
	Portal		portal;
};

/* Reads one column of the extension's row in pg_extension. */
static Datum
extension_attribute(int column, const char **version)
{
	Relation	relation = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	Datum		value;
	bool		isnull;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ, CStringGetDatum("mako_migration"));
	scan = systable_beginscan(relation, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"%s\" is not installed in this database", "mako_migration"),
				 errhint("Use CREATE EXTENSION mako_migration.")));
	value = heap_getattr(tuple, column, RelationGetDescr(relation), &isnull);
	if (version != NULL)
		*version = TextDatumGetCString(value);
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
	return value;
}

/* The schema that CREATE EXTENSION chose. */
Oid
mako_sql_extension_schema(void)
{
	return DatumGetObjectId(extension_attribute(Anum_pg_extension_extnamespace, NULL));
}

/* Who owns the extension. */
Oid
mako_sql_extension_owner(void)
{
	return DatumGetObjectId(extension_attribute(Anum_pg_extension_extowner, NULL));
}

/* The installed version of the extension. */
const char *
mako_sql_extension_version(void)
{
	const char *version;

	(void) extension_attribute(Anum_pg_extension_extversion, &version);
	return version;
}

/* Changes a setting while a connection lasts. */
void
mako_sql_set(MakoConnection connection, const char *name, const char *value)
{
	Assert(connection.guc_level > 0);
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

/* Connects on a path that nobody else decides; row security hides what it hides from the caller. */
MakoConnection
mako_sql_connect_visible(void)
{
	MakoConnection connection;
	char	   *path = psprintf("pg_catalog, %s, pg_temp", quote_identifier(get_namespace_name(mako_sql_extension_schema())));

	connection.guc_level = NewGUCNestLevel();
	mako_sql_set(connection, "search_path", path);
	mako_sql_connect_plain();
	return connection;
}

/* The same for what is about all rows: row security raises instead of hiding some. */
MakoConnection
mako_sql_connect(void)
{
	MakoConnection connection = mako_sql_connect_visible();

	mako_sql_set(connection, "row_security", "off");
	return connection;
}

/* Ends a connection; after an error the server does it. */
void
mako_sql_disconnect(MakoConnection connection)
{
	mako_sql_disconnect_plain();
	AtEOXact_GUC(true, connection.guc_level);
}

/*
 * Connects with the settings of whoever is running: for triggers and the appending of events, whose statements are few, hot and fully
 * qualified. The caller's memory context stays the current one.
 */
void
mako_sql_connect_plain(void)
{
	MemoryContext context = CurrentMemoryContext;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");	/* cannot happen */
	MemoryContextSwitchTo(context);
}

/* Ends such a connection. */
void
mako_sql_disconnect_plain(void)
{
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "SPI_finish failed");	/* cannot happen */
}

/* Connects for a procedure that commits: below this connection, every transaction has one of its own. */
void
mako_sql_connect_procedure(void)
{
	MemoryContext context = CurrentMemoryContext;

	if (SPI_connect_ext(SPI_OPT_NONATOMIC) != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect_ext failed");	/* cannot happen */
	MemoryContextSwitchTo(context);
}

/*
 * Commits what such a procedure has done; the next transaction reads what others commit meanwhile, whatever the session's default is.
 * No snapshot of the procedure's may be active.
 */
void
mako_sql_commit(void)
{
	SPI_commit();
	SPI_start_transaction();	/* done already, except by early minor releases of 13 and 14 */
	(void) set_config_option("transaction_isolation", "read committed", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
}

/* The text of a statement with the extension's schema in the place of %s. */
static char *
text_for_schema(const char *text, Oid schema)
{
	const char *schema_name = quote_identifier(get_namespace_name(schema));
	const char *placeholder;
	StringInfoData buffer;

	initStringInfo(&buffer);
	for (; (placeholder = strstr(text, "%s")) != NULL; text = placeholder + 2)
	{
		appendBinaryStringInfo(&buffer, text, placeholder - text);
		appendStringInfoString(&buffer, schema_name);
	}
	appendStringInfoString(&buffer, text);
	return buffer.data;
}

/* The statement's plan, made at its first use and again when the extension has come back in another schema. */
static SPIPlanPtr
plan_of(MakoStatement *statement)
{
	bool		names_schema = strstr(statement->text, "%s") != NULL;
	Oid			schema = names_schema ? mako_sql_extension_schema() : InvalidOid;

	if (statement->plan != NULL && statement->schema != schema)
	{
		SPI_freeplan((SPIPlanPtr) statement->plan);
		statement->plan = NULL;
	}
	if (statement->plan == NULL)
	{
		MemoryContext context = CurrentMemoryContext;
		SPIPlanPtr	plan = SPI_prepare_cursor(names_schema ? text_for_schema(statement->text, schema) : statement->text,
											  statement->nargs, statement->argtypes,
											  statement->plan_each_time ? CURSOR_OPT_CUSTOM_PLAN : 0);

		if (plan == NULL)
			elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));	/* cannot happen */
		if (!statement->transient && SPI_keepplan(plan) != 0)
			elog(ERROR, "SPI_keepplan failed");	/* cannot happen */
		statement->plan = plan;
		statement->schema = schema;
		MemoryContextSwitchTo(context);
	}
	return (SPIPlanPtr) statement->plan;
}

/* Executes a statement; read_only takes the active snapshot as it is, otherwise a new one is taken. */
static uint64
execute(MakoStatement *statement, Datum *values, const char *nulls, bool read_only)
{
	MemoryContext context = CurrentMemoryContext;
	int			result = SPI_execute_plan(plan_of(statement), values, nulls, read_only, 0);

	MemoryContextSwitchTo(context);
	if (result < 0)
		elog(ERROR, "SPI_execute_plan failed: %s", SPI_result_code_string(result));	/* cannot happen */
	return SPI_processed;
}

/* The rows of the statement just executed. */
static MakoRows
take_rows(void)
{
	MakoRows	rows = {SPI_processed, SPI_tuptable};

	return rows;
}

/* Executes a statement whose rows nobody wants; returns how many rows it was about. */
uint64
mako_sql_execute(MakoStatement *statement, Datum *values, const char *nulls)
{
	uint64		processed = execute(statement, values, nulls, false);

	SPI_freetuptable(SPI_tuptable);
	return processed;
}

/* Raises that a statement wrote fewer rows than it should have: a trigger or rule of somebody else's has swallowed some. */
void
mako_sql_raise_swallowed(const char *table, uint64 expected)
{
	ereport(ERROR,
			(errcode(ERRCODE_TRIGGERED_ACTION_EXCEPTION),
			 errmsg("table \"mako.%s\" did not take every row", table),
			 errdetail("Fewer than " UINT64_FORMAT " rows were written.", expected),
			 errhint("Look for a trigger or rule on the table that suppresses rows.")));
}

/* Executes a statement and returns its rows. */
MakoRows
mako_sql_query(MakoStatement *statement, Datum *values, const char *nulls)
{
	(void) execute(statement, values, nulls, false);
	return take_rows();
}

/* The same, waiting for each lock so many milliseconds at most, and at least one. */
MakoRows
mako_sql_query_waiting(MakoStatement *statement, Datum *values, const char *nulls, int milliseconds)
{
	MakoConnection settings = {NewGUCNestLevel()};
	MakoRows	rows;

	mako_sql_set(settings, "lock_timeout", psprintf("%d", Max(milliseconds, 1)));
	rows = mako_sql_query(statement, values, nulls);
	AtEOXact_GUC(true, settings.guc_level);
	return rows;
}

/*
 * Meets every privilege and policy that a statement needs, without executing it: EXPLAIN plans and starts it, but runs no trigger.
 * What is refused is an error of the run here, rather than of every stream later.
 */
void
mako_sql_rehearse(const MakoStatement *statement)
{
	MakoStatement explain = *statement;
	Datum		values[lengthof(explain.argtypes)] = {0};
	char		nulls[lengthof(explain.argtypes)];
	MakoRows	rows;

	explain.text = psprintf("EXPLAIN %s", statement->text);
	explain.transient = true;
	explain.plan = NULL;
	memset(nulls, 'n', sizeof(nulls));
	rows = mako_sql_query(&explain, values, nulls);
	mako_rows_free(&rows);
}

/* How many rows the server expects of a query with these parameters; it is planned and started, but not executed. */
double
mako_sql_estimate(MakoStatement *statement, Datum *values, const char *nulls)
{
	MakoCursor *cursor = mako_cursor_open(statement, values, nulls, true);
	double		rows = linitial_node(PlannedStmt, cursor->portal->stmts)->planTree->plan_rows;

	mako_cursor_close(cursor);
	return rows;
}

/* Reads with the active snapshot. */
MakoRows
mako_sql_query_snapshot(MakoStatement *statement, Datum *values, const char *nulls)
{
	(void) execute(statement, values, nulls, true);
	return take_rows();
}

/* One value of a row; it lives as long as the rows. */
Datum
mako_rows_get(const MakoRows *rows, uint64 row, int column, bool *isnull)
{
	SPITupleTable *table = (SPITupleTable *) rows->table;

	return SPI_getbinval(table->vals[row], table->tupdesc, column, isnull);
}

/* A text value of a row, copied; NULL for null. */
char *
mako_rows_text(const MakoRows *rows, uint64 row, int column)
{
	bool		isnull;
	Datum		value = mako_rows_get(rows, row, column, &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}

/* Frees rows. */
void
mako_rows_free(MakoRows *rows)
{
	SPI_freetuptable((SPITupleTable *) rows->table);
	rows->table = NULL;
	rows->count = 0;
}

/* Opens a cursor; with own_snapshot on a new snapshot, otherwise on the active one. It ends with its (sub)transaction. */
MakoCursor *
mako_cursor_open(MakoStatement *statement, Datum *values, const char *nulls, bool own_snapshot)
{
	MemoryContext context = CurrentMemoryContext;
	MakoCursor *cursor = palloc(sizeof(MakoCursor));

	cursor->portal = SPI_cursor_open(NULL, plan_of(statement), values, nulls, !own_snapshot);
	MemoryContextSwitchTo(context);
	return cursor;
}

/* The next rows of a cursor; none at its end. */
MakoRows
mako_cursor_fetch(MakoCursor *cursor, long count)
{
	MemoryContext context = CurrentMemoryContext;

	SPI_cursor_fetch(cursor->portal, true, count);
	MemoryContextSwitchTo(context);
	return take_rows();
}

/* Closes a cursor. */
void
mako_cursor_close(MakoCursor *cursor)
{
	SPI_cursor_close(cursor->portal);
	pfree(cursor);
}
