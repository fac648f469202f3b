/*
 * dependent.c
 *	  Dependents (migrate.h): added, looked at, and the statement that lets one follow.
 *
 * What can never follow is refused when it is added. A table may become so later: then a run
 * refuses, mako_plan() has a blocker and mako_check() a finding, all with the same sentence.
 */
#include "migrate/migrate.h"

#include "access/relation.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

static MakoStatement select_dependents = {
	"SELECT coalesce(quote_ident(n.nspname) || '.' || quote_ident(c.relname), d.relation), c.oid,"
	" d.process_column, d.workflow_column,"
	" d.tenant_column, d.owner, d.owner_identity, p.problem, p.sqlstate IN ('42P01', '42703'),"
	" p.process_type, c.relowner, d.process_type"
	" FROM mako.dependent d"
	" LEFT JOIN (pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace)"
	" ON c.oid = %s.mako_remembered_relation(d.relation, d.relation_identity)"
	" CROSS JOIN LATERAL %s.mako_dependent_problem(c.oid, d.process_column, d.workflow_column,"
	"   d.tenant_column)"
	" AS p (sqlstate, problem, hint, process_type)"
	" ORDER BY d.relation, d.process_column, d.workflow_column",
	0, {0}
};

static MakoStatement select_problem = {
	"SELECT p.sqlstate, p.problem, p.hint, quote_ident(n.nspname) || '.' || quote_ident(c.relname),"
	" c.relowner, p.process_type"
	" FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
	" CROSS JOIN LATERAL %s.mako_dependent_problem(c.oid, $2, $3, $4)"
	" AS p (sqlstate, problem, hint, process_type) WHERE c.oid = $1",
	4, {OIDOID, TEXTOID, TEXTOID, TEXTOID}
};

static MakoStatement insert_dependent = {
	"INSERT INTO mako.dependent (relation, relation_identity, process_column, workflow_column,"
	"   tenant_column, owner, owner_identity,"
	"   process_type) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
	" ON CONFLICT ON CONSTRAINT dependent_pkey"
	" DO UPDATE SET relation_identity = $2, tenant_column = $5, owner = $6, owner_identity = $7,"
	" process_type = $8",
	8, {TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID}
};

/*
 * By the name that it has or, renamed or dropped, had when it was added. The name is compared
 * only: it may be none at all.
 */
static MakoStatement delete_dependent = {
	"DELETE FROM mako.dependent d WHERE d.process_column = $2 AND d.workflow_column = $3"
	" AND (d.relation = $1 OR $1 = (SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname)"
	"  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
	"  WHERE c.oid = %s.mako_remembered_relation(d.relation, d.relation_identity)))",
	3, {TEXTOID, TEXTOID, TEXTOID}
};

/* A process id that streams of several tenants have: only those can have the same one. */
static MakoStatement select_shared_process = {
	"SELECT s.process_id::text FROM mako.stream s WHERE s.process_id IS NOT NULL"
	" GROUP BY s.process_id HAVING count(*) > 1 ORDER BY s.process_id LIMIT 1",
	0, {0}, true
};

/* ---- what there is -------------------------------------------------------------------------- */

/* Reads one dependent, in the current memory context. */
static MakoDependent *
read_dependent(const MakoRows *rows, uint64 row)
{
	MakoDependent *dependent = palloc0(sizeof(MakoDependent));
	const char *owner = mako_row_text(rows, row, 6);
	NullableDatum relation = mako_row_value(rows, row, 2, OIDOID);

	dependent->name = mako_row_text(rows, row, 1);
	dependent->process_column = mako_row_text(rows, row, 3);
	dependent->workflow_column = mako_row_text(rows, row, 4);
	dependent->tenant_column = mako_row_text(rows, row, 5);
	dependent->problem = mako_row_text(rows, row, 8);
	if (dependent->problem != NULL)
		dependent->is_missing = mako_row_boolean(rows, row, 9);
	if (relation.isnull)
		return dependent;
	dependent->relation = DatumGetObjectId(relation.value);
	if (dependent->problem == NULL)
	{
		Oid			now = mako_row_oid(rows, row, 11);
		const char *added_type = mako_row_text(rows, row, 12);

		dependent->process_type = mako_row_oid(rows, row, 10);
		if (strcmp(format_type_be(dependent->process_type), added_type) != 0)
			dependent->problem = psprintf("Column \"%s\" has type %s; when it "
										  "was added, it had type %s.", dependent->process_column,
										  format_type_be(dependent->process_type), added_type);
		if (!mako_role_is(now, owner, mako_row_text(rows, row, 7)))
			dependent->problem = psprintf("It belongs to role \"%s\"; "
										  "when it was added, it belonged to \"%s\".",
										  GetUserNameFromId(now, true), owner);
	}
	return dependent;
}

/* The dependents of the store, in the current memory context. */
List *
mako_dependent_read(void)
{
	MakoRows	rows = mako_sql_query(&select_dependents, NULL);
	List	   *list = NIL;

	for (uint64 row = 0; row < rows.count; row++)
		list = lappend(list, read_dependent(&rows, row));
	mako_rows_free(&rows);
	return list;
}

/* ---- following ------------------------------------------------------------------------------ */

/*
 * A statement about the rows of a dependent that belong to the streams of its parameters, which
 * are those of write_dependents() in writer.c.
 */
static MakoStatement *
statement_of(const MakoDependent *dependent, const char *begins, const char *between,
			 const char *ends)
{
	static const Oid argtypes[] = {
		INT8ARRAYOID, TEXTARRAYOID, UUIDARRAYOID, UUIDARRAYOID, TEXTARRAYOID, TEXTARRAYOID
	};
	MakoStatement *statement = palloc0(sizeof(MakoStatement));
	StringInfoData text;
	const char *schema = get_namespace_name(get_rel_namespace(dependent->relation));

	initStringInfo(&text);
	appendStringInfo(&text,
					 "%s%s AS d%s"
					 " ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2),"
					 " pg_catalog.unnest($3), pg_catalog.unnest($4), pg_catalog.unnest($5),"
					 " pg_catalog.unnest($6))"
					 " AS m (stream_no, stream_id, process_id, tenant_id, target_wf, source_wf)"
					 " WHERE d.%s OPERATOR(pg_catalog.=) m.%s"
					 " AND d.%s OPERATOR(pg_catalog.=) m.source_wf",
					 begins,
					 quote_qualified_identifier(schema, get_rel_name(dependent->relation)),
					 between, quote_identifier(dependent->process_column),
					 dependent->process_type == UUIDOID ? "process_id" :
					 dependent->process_type == INT8OID ? "stream_no" : "stream_id",
					 quote_identifier(dependent->workflow_column));
	if (dependent->tenant_column != NULL)
		appendStringInfo(&text, " AND d.%s OPERATOR(pg_catalog.=) m.tenant_id",
						 quote_identifier(dependent->tenant_column));
	appendStringInfoString(&text, ends);
	statement->text = text.data;
	statement->nargs = lengthof(argtypes);
	memcpy(statement->argtypes, argtypes, sizeof(argtypes));
	statement->plan_each_time = true;
	statement->transient = CurrentMemoryContext;
	statement->verbatim = true;
	statement->relation = dependent->relation;
	return statement;
}

/*
 * Returns true if something can keep a row from being updated without an error: a view, a rule,
 * another server, or a trigger before it.
 */
static bool
may_swallow(Oid relation)
{
	bool		may = false;
	ListCell   *cell;

	foreach(cell, find_all_inheritors(relation, AccessShareLock, NULL))
	{
		Relation	table = relation_open(lfirst_oid(cell), AccessShareLock);
		const TriggerDesc *triggers = table->trigdesc;

		may = may || table->rd_rel->relkind == RELKIND_VIEW ||
			table->rd_rel->relkind == RELKIND_FOREIGN_TABLE || table->rd_rules != NULL;
		/* A row that goes to another partition is deleted and inserted. */
		may = may || (triggers != NULL &&
					  (triggers->trig_update_before_row || triggers->trig_delete_before_row ||
					   triggers->trig_insert_before_row));
		relation_close(table, NoLock);
	}
	return may;
}

/* How a dependent follows, in the current memory context. */
static MakoFollower *
follower_of(const MakoDependent *dependent)
{
	MakoFollower *follower = palloc0(sizeof(MakoFollower));

	follower->name = dependent->name;
	follower->update = statement_of(dependent, "UPDATE ",
									psprintf(" SET %s = m.target_wf"
											 " FROM", quote_identifier(dependent->workflow_column)),
									"");
	if (may_swallow(dependent->relation))
		follower->select_left = statement_of(dependent, "SELECT FROM ", ",", " LIMIT 1");
	return follower;
}

/* How the dependents follow (MakoFollower); an error when one of them cannot. */
List *
mako_dependent_followers(void)
{
	List	   *followers = NIL;
	ListCell   *cell;

	foreach(cell, mako_dependent_read())
	{
		const MakoDependent *dependent = lfirst(cell);

		if (dependent->problem != NULL)
			ereport(ERROR,
					(errcode(dependent->is_missing ? ERRCODE_UNDEFINED_OBJECT :
							 ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("dependent %s of the store cannot be followed", dependent->name),
					 errdetail_internal("%s", dependent->problem),
					 dependent->is_missing ?
					 errhint("Restore it, or use mako_remove_dependent().") :
					 errhint("Mend it and add it again with mako_add_dependent(), "
							 "or use mako_remove_dependent().")));
		followers = lappend(followers, follower_of(dependent));
	}
	return followers;
}

/* Meets the privileges and policies that following needs. */
void
mako_dependent_rehearse(const List *followers)
{
	ListCell   *cell;

	foreach(cell, followers)
	{
		const MakoFollower *follower = lfirst(cell);

		mako_sql_check(follower->update);
		if (follower->select_left != NULL)
			mako_sql_check(follower->select_left);
	}
}

/* Raises if a row of a dependent has not followed. */
static void
check_followed(const MakoFollower *follower, const NullableDatum *values)
{
	MakoRows	rows;

	if (follower->select_left == NULL)
		return;
	rows = mako_sql_query(follower->select_left, values);
	if (rows.count > 0)
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_ACTION_EXCEPTION),
				 errmsg("dependent %s did not take every row", follower->name),
				 errdetail("A row of the stream has the same workflow id as before."),
				 errhint("Look for a trigger or rule on it, or on what it is a view of, "
						 "that suppresses or changes rows.")));
	mako_rows_free(&rows);
}

/* Lets the dependents follow streams, whose columns are the parameters. */
void
mako_dependent_follow(const List *followers, const NullableDatum *values)
{
	List	   *updates = NIL;
	ListCell   *cell;

	foreach(cell, followers)
		updates = lappend(updates, ((const MakoFollower *) lfirst(cell))->update);
	mako_sql_execute_together(updates, values);
	list_free(updates);
	foreach(cell, followers)
		check_followed(lfirst(cell), values);
}

/*
 * Where a dependent knows processes by their ids alone, and a process id belongs to several
 * tenants, a row does not tell whose process it follows: returns that as a sentence, NULL where it
 * cannot happen.
 */
char *
mako_dependent_shared_process(void)
{
	const MakoDependent *ambiguous = NULL;
	char	   *sentence = NULL;
	MakoRows	rows;
	ListCell   *cell;

	foreach(cell, mako_dependent_read())
	{
		const MakoDependent *dependent = lfirst(cell);

		if (dependent->problem == NULL && dependent->process_type == UUIDOID &&
			dependent->tenant_column == NULL)
			ambiguous = dependent;
	}
	if (ambiguous == NULL)
		return NULL;
	rows = mako_sql_query(&select_shared_process, NULL);
	if (rows.count > 0)
		sentence = psprintf("Dependent %s has no tenant column, "
							"but process id %s belongs to several tenants.", ambiguous->name,
							mako_row_text(&rows, 0, 1));
	mako_rows_free(&rows);
	return sentence;
}

/* Raises where that would happen. */
void
mako_dependent_check_scope(void)
{
	char	   *sentence = mako_dependent_shared_process();

	if (sentence != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("rows of a dependent do not tell whose process they follow"),
				 errdetail_internal("%s", sentence),
				 errhint("Add the dependent again with its tenant column, "
						 "or with a column of stream ids or stream numbers.")));
}

/* ---- adding and removing -------------------------------------------------------------------- */

MAKO_FUNCTION(mako_add_dependent);
MAKO_FUNCTION(mako_remove_dependent);

/* The name in an argument, as text. */
static NullableDatum
name_argument(FunctionCallInfo fcinfo, int argument)
{
	return mako_text(PG_ARGISNULL(argument) ? NULL : NameStr(*PG_GETARG_NAME(argument)));
}

/* Raises why a relation cannot be a dependent, as mako_dependent_problem() says in a row. */
static void
raise_problem(const MakoRows *rows)
{
	const char *sqlstate = mako_row_text(rows, 0, 1);
	const char *hint = mako_row_text(rows, 0, 3);

	ereport(ERROR,
			(errcode(MAKE_SQLSTATE(sqlstate[0], sqlstate[1], sqlstate[2], sqlstate[3],
								   sqlstate[4])),
			 errmsg("relation %s cannot be a dependent", mako_row_text(rows, 0, 4)),
			 errdetail_internal("%s", mako_row_text(rows, 0, 2)),
			 hint != NULL ? errhint("%s", hint) : 0));
}

/* Lets a column of another table follow its process: see the install script. */
Datum
mako_add_dependent(PG_FUNCTION_ARGS)
{
	NullableDatum wanted[] = {
		fcinfo->args[0], name_argument(fcinfo, 1), name_argument(fcinfo, 2),
		name_argument(fcinfo, 3)
	};
	MakoConnection connection;
	MakoRows	rows;
	Oid			owner;

	mako_gate_require_change("mako_add_dependent()");
	mako_require_value(!PG_ARGISNULL(0) && !PG_ARGISNULL(1) && !PG_ARGISNULL(2),
					   "relation, process_column and workflow_column");
	connection = mako_sql_connect();
	mako_store_check();
	rows = mako_sql_query(&select_problem, wanted);
	if (rows.count == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", PG_GETARG_OID(0))));
	if (mako_row_text(&rows, 0, 2) != NULL)
		raise_problem(&rows);
	owner = mako_row_oid(&rows, 0, 5);
	if (!has_privs_of_role(GetUserId(), owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for relation %s", mako_row_text(&rows, 0, 4)),
				 errdetail("It will be updated as its owner \"%s\", "
						   "so adding it needs that role's privileges.",
						   GetUserNameFromId(owner, true))));
	{
		NullableDatum name = mako_text(mako_row_text(&rows, 0, 4));
		NullableDatum older[] = {name, wanted[1], wanted[2]};
		NullableDatum values[] = {
			name, mako_text(mako_identity(PG_GETARG_OID(0))), wanted[1], wanted[2], wanted[3],
			mako_text(GetUserNameFromId(owner, false)), mako_text(mako_identity(owner)),
			mako_text(format_type_be(mako_row_oid(&rows, 0, 6)))
		};

		/* It may be there under the name that it had. */
		(void) mako_store_write(&delete_dependent, older);
		(void) mako_store_write(&insert_dependent, values);
	}
	mako_rows_free(&rows);
	mako_sql_disconnect(connection);
	PG_RETURN_VOID();
}

/* Undoes that. */
Datum
mako_remove_dependent(PG_FUNCTION_ARGS)
{
	NullableDatum values[] = {fcinfo->args[0], name_argument(fcinfo, 1), name_argument(fcinfo, 2)};
	MakoConnection connection;
	uint64		removed;

	mako_gate_require_change("mako_remove_dependent()");
	connection = mako_sql_connect();
	mako_store_check();
	removed = mako_store_write(&delete_dependent, values);
	mako_sql_disconnect(connection);
	PG_RETURN_BOOL(removed > 0);
}
