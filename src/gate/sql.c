/*
 * sql.c
 *	  The only file with SPI: connections, prepared statements, rows and cursors.
 *
 * Every statement is parsed, planned and executed on one path, pg_catalog alone, and as the owner
 * of the tables that it names, restricted: what the server runs because of it (triggers, rules,
 * defaults, generated columns, checks, index expressions) is what that owner wrote, and runs as
 * him. Before, the door has opened the tables, and the caller's own privileges on everything that
 * the statement names have been checked. A caller whom a policy of a table concerns executes the
 * statement himself, as he would without the extension: the policy asks who he is.
 *
 * The caller that asked for results frees them; in a long run a forgotten tuptable is a leak that
 * is not seen until it is a gigabyte. Values are read with the type that the reader expects, which
 * is checked. SPI leaves its own memory context as the current one, which lasts as long as the
 * connection; every function here puts the caller's back.
 */
#include "gate/gate.h"

#include "access/xact.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "parser/parsetree.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/plancache.h"
#include "utils/queryenvironment.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

struct MakoCursor
{
	Portal		portal;
	Oid			owner;			/* executes it; InvalidOid: the caller */
	bool		computes;		/* code of others that must not write */
};

struct MakoNamedRows
{
	EphemeralNamedRelationData relation;
};

/* Changes a setting while a connection lasts. */
void
mako_sql_set(MakoConnection connection, const char *name, const char *value)
{
	Assert(connection.guc_level > 0);
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
							 true, 0, false);
}

/* Connects SPI. The caller's memory context stays the current one. */
static void
connect_spi(void)
{
	MemoryContext context = CurrentMemoryContext;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");	/* cannot happen */
	MemoryContextSwitchTo(context);
}

/* Connects under fixed settings, on the path of users' functions. */
static MakoConnection
connect_for_functions(bool row_security_hides)
{
	MakoConnection connection = {NewGUCNestLevel()};

	mako_gate_fix_settings(row_security_hides);
	mako_gate_fix_path(mako_extension_function_path());
	mako_planning_fix(connection);
	connect_spi();
	return connection;
}

/* Connects under fixed settings; row security hides what it hides from the caller. */
MakoConnection
mako_sql_connect_visible(void)
{
	return connect_for_functions(true);
}

/* The same for what is about all rows: row security raises instead of hiding some. */
MakoConnection
mako_sql_connect(void)
{
	return connect_for_functions(false);
}

/*
 * Connects for statements alone, without functions of users: for the triggers and for what an
 * engine calls most, whose statements are few and hot.
 */
MakoConnection
mako_sql_connect_own(void)
{
	MakoConnection connection = {NewGUCNestLevel()};

	mako_gate_fix_path(mako_extension_own_path());
	mako_planning_fix(connection);
	connect_spi();
	return connection;
}

/* Ends the SPI connection of a procedure. */
void
mako_sql_disconnect_procedure(void)
{
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "SPI_finish failed");	/* cannot happen */
}

/* Ends a connection; after an error the server does it. */
void
mako_sql_disconnect(MakoConnection connection)
{
	mako_sql_disconnect_procedure();
	AtEOXact_GUC(false, connection.guc_level);
}

/*
 * Connects for a procedure that commits: below this connection, every transaction has one of its
 * own.
 */
void
mako_sql_connect_procedure(void)
{
	MemoryContext context = CurrentMemoryContext;

	if (SPI_connect_ext(SPI_OPT_NONATOMIC) != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect_ext failed");	/* cannot happen */
	MemoryContextSwitchTo(context);
}

/*
 * Commits what such a procedure has done; the next transaction reads what others commit meanwhile,
 * whatever the session's default is. No snapshot of the procedure's may be active.
 */
void
mako_sql_commit(void)
{
	SPI_commit();
	SPI_start_transaction();	/* done already, except by early minor releases of 13 and 14 */
	(void) set_config_option("transaction_isolation", "read committed", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
}

/*
 * Lets statements of the current connection see rows of this type as a relation, under a name that
 * goes before those of tables; there are none until they are set. The current memory context must
 * last as long as the connection.
 */
MakoNamedRows *
mako_sql_name_rows(const char *name, TupleDesc type)
{
	MakoNamedRows *named = palloc0(sizeof(MakoNamedRows));
	EphemeralNamedRelation relation = &named->relation;

	relation->md.name = pstrdup(name);
	relation->md.tupdesc = type;
	relation->md.enrtype = ENR_NAMED_TUPLESTORE;
	if (SPI_register_relation(relation) != SPI_OK_REL_REGISTER)
		elog(ERROR, "SPI_register_relation failed");	/* cannot happen */
	return named;
}

/*
 * Sets the rows, and how many of them a statement is planned for. They are the caller's, and must
 * last while statements that name them are executed.
 */
void
mako_named_rows_set(MakoNamedRows *named, Tuplestorestate *rows, double expected)
{
	named->relation.reldata = rows;
	named->relation.md.enrtuples = expected;
}

/* ---- statements ----------------------------------------------------------------------------- */

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

/* Finds out what a statement names. */
static void
know_statement(MakoStatement *statement)
{
	statement->names_schema = !statement->verbatim && strstr(statement->text, "%s") != NULL;
	statement->tables = statement->verbatim ? 0 : mako_door_tables_in(statement->text);
	if (statement->needs != NULL)
		statement->tables |= mako_door_tables_in(statement->needs);
	statement->only_reads = !statement->verbatim &&
		strstr(statement->text, " FOR UPDATE") == NULL &&
		(strncmp(statement->text, "SELECT ", 7) == 0 ||
		 strncmp(statement->text, "EXPLAIN ", 8) == 0);
	statement->is_known = true;
}

/* The owner of a relation. */
static Oid
owner_of(Oid relation)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relation));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", relation)));
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

/*
 * Opens what a statement names; returns who owns it, InvalidOid where that is neither store nor
 * dependent.
 */
static Oid
open_tables(MakoStatement *statement)
{
	if (!statement->is_known)
		know_statement(statement);
	if (OidIsValid(statement->relation))
		return owner_of(statement->relation);
	return mako_door_open_tables(statement->tables);
}

/*
 * Returns true while a statement is executed, of which this is another execution: a trigger may
 * have come back to it.
 */
static bool
is_executing(const MakoStatement *statement)
{
	return statement->executing != InvalidSubTransactionId &&
		statement->transaction == mako_gate_transaction() &&
		SubTransactionIsActive(statement->executing);
}

/*
 * Raises unless a plan is of one statement that only reads and writes rows, or locks tables where
 * that is allowed: what else there is would change the session or the transaction.
 */
static void
check_one_statement(SPIPlanPtr plan, bool may_lock)
{
	List	   *sources = SPI_plan_get_plan_sources(plan);
	ListCell   *cell;

	if (list_length(sources) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("exactly one statement is expected"),
				 errdetail("There are %d.", list_length(sources)),
				 errhint("Put what belongs together into WITH, or into a function.")));
	/* A rule may have made other queries of it, or none. */
	foreach(cell, ((CachedPlanSource *) linitial(sources))->query_list)
	{
		const Query *query = lfirst_node(Query, cell);

		if (query->commandType != CMD_UTILITY || (may_lock && IsA(query->utilityStmt, LockStmt)))
			continue;
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s cannot be used here", CreateCommandName(query->utilityStmt)),
				 may_lock ?
				 errdetail("Allowed are SELECT, INSERT, UPDATE, DELETE, MERGE and LOCK.") :
				 errdetail("Allowed are SELECT, INSERT, UPDATE, DELETE and MERGE.")));
	}
}

/*
 * Parses and analyzes a statement. One of a user is looked at, too: while code of his runs because
 * of that, nothing can be written.
 */
static SPIPlanPtr
prepare(MakoStatement *statement, Oid schema)
{
	MakoComputation computation;
	SPIPlanPtr	plan;

	if (OidIsValid(statement->role))
		computation = mako_gate_begin_computation();
	plan = SPI_prepare_cursor(statement->names_schema ? text_for_schema(statement->text, schema) :
							  statement->text,
							  statement->nargs, statement->argtypes,
							  statement->plan_each_time ? CURSOR_OPT_CUSTOM_PLAN : 0);
	if (plan == NULL)
		elog(ERROR, "SPI_prepare failed: %s",
			 SPI_result_code_string(SPI_result));	/* cannot happen */
	if (OidIsValid(statement->role))
	{
		mako_gate_end_computation(&computation);
		check_one_statement(plan, statement->may_lock);
	}
	return plan;
}

/*
 * The statement's plan, made at its first use and again when the extension has come back in
 * another schema, or when what the statement names has changed: its privileges are checked on what
 * it names now.
 */
static SPIPlanPtr
plan_of(MakoStatement *statement)
{
	Oid			schema = statement->names_schema ? mako_extension_schema() : InvalidOid;

	if (statement->plan != NULL &&
		(statement->schema != schema || !SPI_plan_is_valid((SPIPlanPtr) statement->plan)))
	{
		if (!is_executing(statement))
			SPI_freeplan((SPIPlanPtr) statement->plan);
		statement->plan = NULL;
	}
	if (statement->plan == NULL)
	{
		MemoryContext context = CurrentMemoryContext;
		SPIPlanPtr	plan = prepare(statement, schema);

		if (statement->transient == NULL && SPI_keepplan(plan) != 0)
			elog(ERROR, "SPI_keepplan failed"); /* cannot happen */
		statement->plan = plan;
		statement->schema = schema;
		statement->checked_generation = 0;
		MemoryContextSwitchTo(context);
	}
	return (SPIPlanPtr) statement->plan;
}

/* ---- privileges ----------------------------------------------------------------------------- */

/* What the queries of a statement need. */
typedef struct Needs
{
	Oid			reader;			/* the role that is told of errors */
	bool		row_security;	/* a policy concerns the current role */
	bool		hides_rows;		/* the reader may not select all of a table that is written */
	List	   *written;		/* written relations, if they have deferrable constraints */
} Needs;

/* Checks the privileges of the current role on what a query names. */
static bool
check_query(Node *node, void *context)
{
	Needs	   *needs = context;
	Query	   *query = (Query *) node;
	ListCell   *cell;

	if (node == NULL)
		return false;
	if (!IsA(node, Query))
		return expression_tree_walker(node, check_query, context);
	(void) MakoCheckPermissions(query);
	if (query->resultRelation > 0)
	{
		Oid			relation = rt_fetch(query->resultRelation, query->rtable)->relid;

		if (pg_class_aclcheck(relation, needs->reader, ACL_SELECT) != ACLCHECK_OK)
			needs->hides_rows = true;
		if (get_rel_relkind(relation) != RELKIND_VIEW &&
			mako_constraints_deferrable(NIL, relation) != NIL)
			needs->written = list_append_unique_oid(needs->written, relation);
	}
	foreach(cell, query->rtable)
	{
		const RangeTblEntry *entry = lfirst_node(RangeTblEntry, cell);

		if (entry->rtekind == RTE_RELATION && entry->relkind != RELKIND_VIEW &&
			check_enable_rls(entry->relid, InvalidOid, false) == RLS_ENABLED)
			needs->row_security = true;
	}
	return query_tree_walker(query, check_query, context, 0);
}

/*
 * Returns true if a statement reads the events of an attached event store: what the view evaluates
 * is code of others.
 */
static bool
reads_attached_events(const MakoStatement *statement)
{
	return mako_door_is_attached() &&
		((statement->tables & mako_door_tables_in("mako.event")) != 0 ||
		 strstr(statement->text, "mako.attached_event") != NULL);
}

/* Returns true if a statement does that, and writes or locks nothing itself. */
static bool
computes_events(const MakoStatement *statement)
{
	return statement->only_reads && reads_attached_events(statement);
}

/*
 * Raises unless the current role may do what a statement does; finds out whether it must do it
 * itself, and what is hidden from the reader of its errors.
 */
static void
check_privileges(MakoStatement *statement, Oid reader)
{
	Needs		needs = {.reader = reader};
	ExecutorCheckPerms_hook_type hook = ExecutorCheckPerms_hook;
	List	   *sources = SPI_plan_get_plan_sources((SPIPlanPtr) statement->plan);
	ListCell   *cell;
	ListCell   *query;

	if (statement->checked_generation == mako_door_generation() &&
		statement->checked_user == GetUserId() && statement->checked_row_security == row_security)
		return;
	statement->checked_generation = 0;
	if (OidIsValid(statement->relation) &&
		MakoSchemaAclCheck(get_rel_namespace(statement->relation), GetUserId()) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_SCHEMA,
					   get_namespace_name(get_rel_namespace(statement->relation)));
	needs.row_security = statement->needs != NULL && mako_door_require_select(statement->needs);

	/*
	 * Another extension that watches who reads what sees the statement itself, not that it is
	 * about to be executed.
	 */
	ExecutorCheckPerms_hook = NULL;
	PG_TRY();
	{
		foreach(cell, sources)
			foreach(query, ((CachedPlanSource *) lfirst(cell))->query_list)
				(void) check_query(lfirst(query), &needs);
	}
	PG_FINALLY();
	{
		ExecutorCheckPerms_hook = hook;
	}
	PG_END_TRY();
	statement->by_caller = needs.row_security;
	if (needs.row_security && reads_attached_events(statement))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("row security cannot be applied to events of an attached event store"),
				 errdetail("A policy concerns role \"%s\".", GetUserNameFromId(GetUserId(), false)),
				 errhint("Ask as a role that may see all streams.")));
	statement->hides_rows = needs.hides_rows;
	list_free(statement->written);
	statement->written = NIL;
	if (needs.written != NIL)
	{
		MemoryContext old = MemoryContextSwitchTo(statement->transient != NULL ?
												  statement->transient : TopMemoryContext);

		statement->written = list_copy(needs.written);
		MemoryContextSwitchTo(old);
	}
	statement->checked_user = GetUserId();
	statement->checked_row_security = row_security;
	statement->checked_generation = mako_door_generation();
}

/* ---- execution ------------------------------------------------------------------------------ */

/* The parameters of a statement, as SPI takes them. */
typedef struct Parameters
{
	Datum		values[lengthof(((MakoStatement *) NULL)->argtypes)];
	char		nulls[lengthof(((MakoStatement *) NULL)->argtypes)];
} Parameters;

static Parameters
parameters_of(const MakoStatement *statement, const NullableDatum *values)
{
	Parameters	parameters;

	for (int i = 0; i < statement->nargs; i++)
	{
		parameters.values[i] = values[i].value;
		parameters.nulls[i] = values[i].isnull ? 'n' : ' ';
	}
	return parameters;
}

/* A statement that is being executed: as whom. */
typedef struct Execution
{
	MakoGate	gate;
	Oid			owner;			/* of what it names; InvalidOid: the caller executes it */
} Execution;

/*
 * Acts as the owner of what a statement names, on the path of our statements; without an owner as
 * the caller.
 */
static MakoGate
act_as(Oid owner, bool may_defer)
{
	MakoGate	gate;

	if (OidIsValid(owner))
		gate = may_defer ? mako_gate_enter_table(owner) : mako_gate_enter(owner);
	else
	{
		GetUserIdAndSecContext(&gate.user, &gate.security);
		gate.guc_level = NewGUCNestLevel();
		mako_gate_restrict_caller(&gate);
	}
	mako_gate_fix_path(mako_extension_own_path());
	return gate;
}

MAKO_FUNCTION(mako_assert_delegated);

/*
 * Raises unless a statement of the extension calls the function that asks: such a function reads
 * the store, whose door the statement has opened, and whose owner it acts as.
 */
Datum
mako_assert_delegated(PG_FUNCTION_ARGS)
{
	mako_gate_require_delegated();
	PG_RETURN_VOID();
}

/*
 * Begins to act as the role whose statement this is, with no more rights than it has. What the
 * caller may not select is hidden from him nevertheless.
 */
static Execution
begin_as_role(MakoStatement *statement)
{
	Execution	execution = {mako_gate_enter(statement->role), statement->role};
	Oid			user;
	int			security;

	GetUserIdAndSecContext(&user, &security);
	SetUserIdAndSecContext(user, security & ~SECURITY_NOFORCE_RLS);
	mako_gate_fix_path(statement->path);
	(void) plan_of(statement);
	check_privileges(statement, execution.gate.user);
	mako_constraints_make_immediate(statement->written);
	return execution;
}

/* Opens, prepares and checks a statement, and begins to act as the one who executes it. */
static Execution
begin_execution(MakoStatement *statement)
{
	Oid			owner;
	Execution	execution;
	Oid			user;
	int			security;

	if (OidIsValid(statement->role))
		return begin_as_role(statement);
	owner = open_tables(statement);
	execution = (Execution) {act_as(owner, statement->may_defer), owner};
	mako_planning_go(statement->way, &execution.gate);
	(void) plan_of(statement);
	if (!OidIsValid(owner))
		return execution;
	/* The caller's privileges, as the caller. */
	GetUserIdAndSecContext(&user, &security);
	SetUserIdAndSecContext(execution.gate.user, execution.gate.security);
	check_privileges(statement, execution.gate.user);
	if (statement->by_caller)
	{
		execution.owner = InvalidOid;
		mako_gate_restrict_caller(&execution.gate);
		return execution;
	}
	if (statement->written != NIL && (security & SECURITY_RESTRICTED_OPERATION) != 0)
		mako_constraints_make_immediate(statement->written);
	SetUserIdAndSecContext(user, security);
	return execution;
}

/*
 * Leaves out of an error which row breaks a constraint. The server shows it to a role that may
 * select it, and takes the owner for that role. Called for every message, as those are that give
 * an error its context.
 */
static void
hide_row(void *argument)
{
	if (ERRCODE_TO_CATEGORY(geterrcode()) == ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION &&
		mako_subtransaction_is_servers_error(argument))
		errdetail("The row is shown to roles that may select all columns of the table.");
}

/*
 * Executes a statement; read_only takes the active snapshot as it is, otherwise a new one is
 * taken.
 */
static uint64
execute(MakoStatement *statement, const NullableDatum *values, bool read_only)
{
	MemoryContext context = CurrentMemoryContext;
	bool		outermost = !is_executing(statement);
	Execution	execution;
	ErrorContextCallback hiding = {error_context_stack, hide_row, context};
	Parameters	parameters = parameters_of(statement, values);
	MakoComputation computation;
	SubTransactionId delegating = InvalidSubTransactionId;
	bool		computes;
	int			result;

	if (outermost)
	{
		statement->executing = GetCurrentSubTransactionId();
		statement->transaction = mako_gate_transaction();
	}
	execution = begin_execution(statement);
	if (statement->needs != NULL)
		delegating = mako_gate_delegate();
	if (statement->hides_rows && OidIsValid(execution.owner))
		error_context_stack = &hiding;
	computes = computes_events(statement);
	if (computes)
		computation = mako_gate_begin_computation();
	result = SPI_execute_plan((SPIPlanPtr) statement->plan, parameters.values, parameters.nulls,
							  read_only, 0);
	if (computes)
		mako_gate_end_computation(&computation);
	error_context_stack = hiding.previous;
	if (statement->needs != NULL)
		mako_gate_end_delegation(delegating);
	if (outermost)
		statement->executing = InvalidSubTransactionId;
	MemoryContextSwitchTo(context);
	if (result < 0)
		elog(ERROR, "SPI_execute_plan failed: %s",
			 SPI_result_code_string(result));	/* cannot happen */
	mako_gate_leave(&execution.gate);
	return SPI_processed;
}

/*
 * Raises what a statement would raise to the current role for want of a privilege or because of a
 * policy.
 */
void
mako_sql_check(MakoStatement *statement)
{
	Execution	execution = begin_execution(statement);

	mako_gate_leave(&execution.gate);
}

/* The rows of the statement just executed. */
static MakoRows
take_rows(void)
{
	MakoRows	rows = {SPI_processed, SPI_tuptable};

	return rows;
}

/* Executes a statement whose rows are not wanted; returns how many rows it was about. */
uint64
mako_sql_execute(MakoStatement *statement, const NullableDatum *values)
{
	uint64		processed = execute(statement, values, false);

	SPI_freetuptable(SPI_tuptable);
	return processed;
}

/* The role that has executed a statement. */
typedef struct Executor
{
	Oid			user;
	int			security;
	bool		hides_rows;		/* from the caller, in errors */
} Executor;

/*
 * Executes a statement, except for what the server does at the end of one, for which fire_queued()
 * is needed.
 */
static Executor
execute_queueing(MakoStatement *statement, const NullableDatum *values)
{
	MemoryContext context = CurrentMemoryContext;
	ErrorContextCallback hiding = {error_context_stack, hide_row, context};
	Execution	execution;
	Parameters	parameters = parameters_of(statement, values);
	Executor	executor;
	int			result;

	AfterTriggerBeginQuery();
	execution = begin_execution(statement);
	GetUserIdAndSecContext(&executor.user, &executor.security);
	executor.hides_rows = statement->hides_rows && OidIsValid(execution.owner);
	if (executor.hides_rows)
		error_context_stack = &hiding;
	result = SPI_execute_snapshot((SPIPlanPtr) statement->plan, parameters.values, parameters.nulls,
								  InvalidSnapshot, InvalidSnapshot, false, false, 0);
	error_context_stack = hiding.previous;
	MemoryContextSwitchTo(context);
	if (result < 0)
		elog(ERROR, "SPI_execute_snapshot failed: %s",
			 SPI_result_code_string(result));	/* cannot happen */
	mako_gate_leave(&execution.gate);
	SPI_freetuptable(SPI_tuptable);
	return executor;
}

/*
 * Does what the server does at the end of the statement that was begun last: checks constraints
 * and calls AFTER triggers, as the role that executed it.
 */
static void
fire_queued(const Executor *executor)
{
	EState	   *estate = CreateExecutorState();
	MakoGate	gate = act_as(InvalidOid, false);
	ErrorContextCallback hiding = {error_context_stack, hide_row, CurrentMemoryContext};

	SetUserIdAndSecContext(executor->user, executor->security);
	PushActiveSnapshot(GetTransactionSnapshot());
	if (executor->hides_rows)
		error_context_stack = &hiding;
	AfterTriggerEndQuery(estate);
	error_context_stack = hiding.previous;
	PopActiveSnapshot();
	mako_gate_leave(&gate);
	MakoCloseTriggerRelations(estate);
	ExecResetTupleTable(estate->es_tupleTable, false);
	FreeExecutorState(estate);
}

/*
 * Executes statements with the same parameters one after the other, as if they were one:
 * constraints are checked and AFTER triggers called when all of them have written, those of the
 * last statement first. So a constraint between two of their tables is met, whichever comes first.
 * Leaving that to the deferring of constraints is no way: the server defers nothing in a
 * security-restricted operation.
 */
void
mako_sql_execute_together(const List *statements, const NullableDatum *values)
{
	Executor   *executors = palloc(sizeof(Executor) * (list_length(statements) + 1));
	int			count = 0;
	ListCell   *cell;

	foreach(cell, statements)
		executors[count++] = execute_queueing(lfirst(cell), values);
	while (count > 0)
		fire_queued(&executors[--count]);
	pfree(executors);
}

/*
 * Raises that a statement wrote fewer rows than it should have: a trigger or rule of another owner
 * has swallowed some.
 */
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
mako_sql_query(MakoStatement *statement, const NullableDatum *values)
{
	(void) execute(statement, values, false);
	return take_rows();
}

/* The same, waiting for each lock so many milliseconds at most, and at least one. */
MakoRows
mako_sql_query_waiting(MakoStatement *statement, const NullableDatum *values, int milliseconds)
{
	MakoConnection settings = {NewGUCNestLevel()};
	MakoRows	rows;

	mako_sql_set(settings, "lock_timeout", psprintf("%d", Max(milliseconds, 1)));
	rows = mako_sql_query(statement, values);
	AtEOXact_GUC(true, settings.guc_level);
	return rows;
}

/*
 * How many rows the server expects of a query with these parameters; it is planned and started,
 * but not executed.
 */
double
mako_sql_estimate(MakoStatement *statement, const NullableDatum *values)
{
	MakoCursor *cursor = mako_cursor_open(statement, values, true);
	double		rows = linitial_node(PlannedStmt, cursor->portal->stmts)->planTree->plan_rows;

	mako_cursor_close(cursor);
	return rows;
}

/* Reads with the active snapshot. */
MakoRows
mako_sql_query_snapshot(MakoStatement *statement, const NullableDatum *values)
{
	(void) execute(statement, values, true);
	return take_rows();
}

/* ---- rows ----------------------------------------------------------------------------------- */

/*
 * One value of a row, of this type or a domain over it; it lives as long as the rows. A value of
 * another type would be taken for what it is not.
 */
NullableDatum
mako_row_value(const MakoRows *rows, uint64 row, int column, Oid type)
{
	SPITupleTable *table = (SPITupleTable *) rows->table;
	NullableDatum value;
	Oid			actual;

	if (row >= rows->count)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("a row that was there a moment ago is not there any more"),
				 errdetail("Another session has removed it meanwhile."),
				 errhint("Try again.")));
	actual = TupleDescAttr(table->tupdesc, column - 1)->atttypid;
	if (actual != type && getBaseType(actual) != type)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column %d of a result has type %s", column, format_type_be(actual)),
				 errdetail("Expected is %s.", format_type_be(type))));
	value.value = SPI_getbinval(table->vals[row], table->tupdesc, column, &value.isnull);
	return value;
}

/* The same for a value that cannot be null. */
Datum
mako_row_datum(const MakoRows *rows, uint64 row, int column, Oid type)
{
	NullableDatum value = mako_row_value(rows, row, column, type);

	if (value.isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("column %d of a result is null", column)));
	return value.value;
}

/* Frees rows. */
void
mako_rows_free(MakoRows *rows)
{
	SPI_freetuptable((SPITupleTable *) rows->table);
	rows->table = NULL;
	rows->count = 0;
}

/* ---- cursors -------------------------------------------------------------------------------- */

/*
 * Opens a cursor; with own_snapshot on a new snapshot, otherwise on the active one. It ends with
 * its (sub)transaction.
 */
MakoCursor *
mako_cursor_open(MakoStatement *statement, const NullableDatum *values, bool own_snapshot)
{
	MemoryContext context = CurrentMemoryContext;
	MakoCursor *cursor = palloc(sizeof(MakoCursor));
	Parameters	parameters = parameters_of(statement, values);
	Execution	execution = begin_execution(statement);
	MakoComputation computation;

	cursor->computes = computes_events(statement);
	if (cursor->computes)
		computation = mako_gate_begin_computation();
	cursor->portal = SPI_cursor_open(NULL, (SPIPlanPtr) statement->plan, parameters.values,
									 parameters.nulls, !own_snapshot);
	if (cursor->computes)
		mako_gate_end_computation(&computation);
	cursor->owner = execution.owner;
	mako_gate_leave(&execution.gate);
	MemoryContextSwitchTo(context);
	return cursor;
}

/* The next rows of a cursor; none at its end. */
MakoRows
mako_cursor_fetch(MakoCursor *cursor, long count)
{
	MemoryContext context = CurrentMemoryContext;
	MakoGate	gate = act_as(cursor->owner, false);
	MakoComputation computation;

	if (cursor->computes)
		computation = mako_gate_begin_computation();
	SPI_cursor_fetch(cursor->portal, true, count);
	if (cursor->computes)
		mako_gate_end_computation(&computation);
	mako_gate_leave(&gate);
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
