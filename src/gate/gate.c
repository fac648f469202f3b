/*
 * gate.c
 *	  The gate (gate.h): whose rights and which settings the code of others runs under.
 *
 * Role, security context and settings belong to the (sub)transaction that entered the gate, which
 * puts them back when an error ends it. Nothing here is caught.
 */
#include "gate/gate.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_database.h"
#include "catalog/pg_language.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_proc.h"
#include "executor/executor.h"
#include "executor/functions.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/analyze.h"
#include "parser/parse_coerce.h"
#include "parser/parse_node.h"
#include "rewrite/rewriteHandler.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

/* ---- entering and leaving ------------------------------------------------------------------- */

/*
 * The subtransaction in which the outermost evaluation that runs code of others began; invalid
 * outside of one. It counts as long as that subtransaction is active, so an error need not reset
 * it.
 */
static SubTransactionId evaluating = InvalidSubTransactionId;

/* The same for a statement of the extension whose functions read the store for it. */
static SubTransactionId delegating = InvalidSubTransactionId;

/*
 * The number of transactions that have ended in this session: numbers of subtransactions begin
 * anew in each.
 */
static uint64 transactions = 0;

/* Forgets what the end of the transaction has ended. */
static void
forget_evaluation(XactEvent event, void *argument)
{
	evaluating = delegating = InvalidSubTransactionId;
	transactions++;
}

/* The number of the transaction in this session. */
uint64
mako_gate_transaction(void)
{
	return transactions;
}

/* Acts as an owner, restricted, with settings of its own. */
MakoGate
mako_gate_enter(Oid owner)
{
	MakoGate	gate;

	mako_temporary_require_safe(owner);
	GetUserIdAndSecContext(&gate.user, &gate.security);
	gate.guc_level = NewGUCNestLevel();
	SetUserIdAndSecContext(owner,
						   gate.security | SECURITY_RESTRICTED_OPERATION | SECURITY_NOFORCE_RLS);
	return gate;
}

/*
 * The same for a trigger of the store, as the owner of its table. What a superuser or the caller
 * himself wrote lends no rights; so it need not be restricted, and constraints may be deferred. A
 * caller after SET ROLE or SET SESSION AUTHORIZATION is not himself: what he leaves behind could
 * go on after RESET.
 */
MakoGate
mako_gate_enter_table(Oid owner)
{
	MakoGate	gate = mako_gate_enter(owner);

	if ((owner == gate.user && owner == GetAuthenticatedUserId()) || superuser_arg(owner))
		SetUserIdAndSecContext(owner,
							   gate.security | SECURITY_LOCAL_USERID_CHANGE | SECURITY_NOFORCE_RLS);
	return gate;
}

/*
 * Acts as the caller, who evaluates policies of others. After SET ROLE or SET SESSION
 * AUTHORIZATION they must not be able to go back to the role that has logged in.
 */
void
mako_gate_restrict_caller(const MakoGate *gate)
{
	int			security = gate->security;

	if (gate->user != GetAuthenticatedUserId() && !superuser_arg(gate->user))
		security |= SECURITY_RESTRICTED_OPERATION;
	SetUserIdAndSecContext(gate->user, security);
}

/*
 * Acts as another process of the same transaction does, which has told the role and in which
 * operation: a worker, which has logged in as the same role.
 */
void
mako_gate_join(Oid user, int security)
{
	SetUserIdAndSecContext(user, security);
}

/* Acts as before, with the settings of before. */
void
mako_gate_leave(const MakoGate *gate)
{
	AtEOXact_GUC(false, gate->guc_level);
	SetUserIdAndSecContext(gate->user, gate->security);
}

/* Returns true if code of others is being evaluated. */
static bool
is_evaluating(void)
{
	return evaluating != InvalidSubTransactionId && SubTransactionIsActive(evaluating);
}

/*
 * Begins to let code of others compute: it writes nothing, whatever it says of its volatility,
 * because reading a state, or looking at a function, would do so each time. The end of the
 * (sub)transaction puts that back, too.
 */
MakoComputation
mako_gate_begin_computation(void)
{
	MakoComputation computation = {!is_evaluating(), XactReadOnly};

	if (computation.is_outermost)
		evaluating = GetCurrentSubTransactionId();
	XactReadOnly = true;
	return computation;
}

/* Ends what the last one began. */
void
mako_gate_end_computation(const MakoComputation *computation)
{
	if (computation->is_outermost)
		evaluating = InvalidSubTransactionId;
	XactReadOnly = computation->was_read_only;
}

/*
 * Enters the gate to evaluate a registered function. A policy that would hide rows from its owner
 * raises: a state must not depend on which rows a role may see.
 */
MakoEvaluation
mako_gate_begin_evaluation(Oid owner)
{
	MakoEvaluation evaluation;

	mako_temporary_require_safe(owner);
	evaluation.gate.guc_level = NewGUCNestLevel();
	GetUserIdAndSecContext(&evaluation.gate.user, &evaluation.gate.security);
	SetUserIdAndSecContext(owner, evaluation.gate.security | SECURITY_RESTRICTED_OPERATION);
	evaluation.computation = mako_gate_begin_computation();
	if (row_security)
		(void) set_config_option("row_security", "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
								 true, 0, false);
	return evaluation;
}

/* Leaves the gate after an evaluation. */
void
mako_gate_end_evaluation(const MakoEvaluation *evaluation)
{
	mako_gate_end_computation(&evaluation->computation);
	mako_gate_leave(&evaluation->gate);
}

/*
 * Raises while a registered function is being evaluated. The server lets a function that is not
 * volatile call one that is; so a function that lies about its volatility could change the stream
 * whose state it computes.
 */
void
mako_gate_forbid(const char *function)
{
	if (is_evaluating())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s cannot be used while a registered function is evaluated", function),
				 errdetail("The result of apply, upcast, migrate and in_flight "
						   "depends on their arguments only."),
				 errhint("Remove the call from the function, or from what it calls.")));
}

/* Raises unless a function may change something here: not on a standby, nor in what only reads. */
void
mako_gate_require_change(const char *function)
{
	mako_gate_forbid(function);
	PreventCommandDuringRecovery(function);
	PreventCommandIfReadOnly(function);
}

/*
 * Begins the execution of a statement whose functions read the store for it. Returns what
 * mako_gate_end_delegation() puts back.
 */
SubTransactionId
mako_gate_delegate(void)
{
	SubTransactionId outer = delegating;

	delegating = GetCurrentSubTransactionId();
	return outer;
}

/* Ends it. */
void
mako_gate_end_delegation(SubTransactionId outer)
{
	delegating = outer;
}

/* Returns true while such a statement is executed. */
bool
mako_gate_is_delegated(void)
{
	return delegating != InvalidSubTransactionId && SubTransactionIsActive(delegating);
}

/* Raises unless such a statement is executed. */
void
mako_gate_require_delegated(void)
{
	if (!mako_gate_is_delegated())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the function is for the extension's own use"),
				 errhint("doc/reference.md tells which function is for yours.")));
}

/* Raises outside of the gate. */
static void
require_gate(void)
{
	if (!InSecurityRestrictedOperation())
		elog(ERROR, "code of others was about to run outside of the gate"); /* cannot happen */
}

/* Called when the library is loaded. */
void
mako_gate_init(void)
{
	mako_extension_init();
	mako_temporary_init();
	RegisterXactCallback(forget_evaluation, NULL);
}

/* ---- settings ------------------------------------------------------------------------------- */

/*
 * What reaches results or deparsed text, and the value that the extension gives it. TimeZone,
 * styles and lc_* decide how values are read and printed, the others what a text in a body means.
 * Dates must be unambiguous: with YMD, 01/02/2024 is an error instead of a guess. A function can
 * catch an error and read its message, and reports keep messages: hence lc_messages. The settings
 * of PL/pgSQL exist once its library is loaded, or once they have been set: fix_setting().
 */
static const struct
{
	const char *name;
	const char *value;
}			fixed_settings[] = {
	{"TimeZone", "UTC"},
	{"timezone_abbreviations", "Default"},
	{"DateStyle", "ISO, YMD"},
	{"IntervalStyle", "postgres"},
	{"extra_float_digits", "1"},
	{"bytea_output", "hex"},
	{"standard_conforming_strings", "on"},
	{"backslash_quote", "safe_encoding"},
	{"quote_all_identifiers", "off"},
	{"transform_null_equals", "off"},
	{"array_nulls", "on"},
	{"xmloption", "content"},
	{"xmlbinary", "base64"},
	{"default_text_search_config", "pg_catalog.simple"},
	{"lc_messages", "C"},
	{"lc_monetary", "C"},
	{"lc_numeric", "C"},
	{"lc_time", "C"},
	{"plpgsql.check_asserts", "on"},
	{"plpgsql.extra_errors", "none"},
	{"plpgsql.print_strict_params", "off"},
	{"plpgsql.variable_conflict", "error"},
};

/*
 * Gives a setting a value in the current level, unless it has that value already. The setting of a
 * library that is not loaded does not exist, and will begin with the server's default, unless it
 * has been set nevertheless: what holds that value until then gets ours on top, and the library
 * takes over both. Some settings are a superuser's to change; these values are no choice of a
 * user's.
 */
static void
fix_setting(const char *name, const char *value)
{
	const char *current = GetConfigOption(name, true, false);

	if (current != NULL && strcmp(current, value) != 0)
		(void) set_config_option(name, value, PGC_SUSET, PGC_S_SESSION, GUC_ACTION_SAVE,
								 true, 0, false);
}

/*
 * Fixes the settings in the current level. With row_security_hides, row security hides from the
 * caller what it hides from him elsewhere; without it, it raises instead.
 */
void
mako_gate_fix_settings(bool row_security_hides)
{
	for (size_t i = 0; i < lengthof(fixed_settings); i++)
		fix_setting(fixed_settings[i].name, fixed_settings[i].value);
	fix_setting("row_security", row_security_hides ? "on" : "off");
}

/* Fixes the search path in the current level. */
void
mako_gate_fix_path(const char *path)
{
	if (strcmp(namespace_search_path, path) != 0)
		(void) set_config_option("search_path", path, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
								 true, 0, false);
}

/* The fixed settings as text, for a fingerprint; the same on every server. */
char *
mako_gate_settings_text(void)
{
	StringInfoData text;

	initStringInfo(&text);
	for (size_t i = 0; i < lengthof(fixed_settings); i++)
		appendStringInfo(&text, "%s%s = %s",
						 i > 0 ? ", " : "", fixed_settings[i].name, fixed_settings[i].value);
	return text.data;
}

/* ---- parsing, planning, preparing ----------------------------------------------------------- */

/* A body being parsed, for the context of an error: most often a name that is not qualified. */
typedef struct Body
{
	const char *signature;
	const char *source;
} Body;

/*
 * Says whose body an error is in, and moves its position from the caller's statement into that
 * body.
 */
static void
add_body_context(void *argument)
{
	const Body *body = argument;
	int			position = geterrposition();

	if (position > 0)
	{
		errposition(0);
		internalerrposition(position);
		internalerrquery(body->source);
	}
	errcontext("body of function %s, parsed on the path on which it will run", body->signature);
}

/* Analyzes one statement of a body. */
static Query *
analyze(RawStmt *statement, const char *source, SQLFunctionParseInfoPtr parse_info)
{
	ParseState *state = make_parsestate(NULL);
	Query	   *query;

	state->p_sourcetext = source;
	sql_fn_parser_setup(state, parse_info);
	query = transformTopLevelStmt(state, statement);
	free_parsestate(state);
	return query;
}

/* The statements of a body that is kept as text, under the function's own settings. */
static List *
parse_source(HeapTuple function, FuncExpr *call, bool single)
{
	bool		isnull;
	char	   *source = TextDatumGetCString(SysCacheGetAttr(PROCOID, function,
															 Anum_pg_proc_prosrc, &isnull));
	Datum		config = SysCacheGetAttr(PROCOID, function, Anum_pg_proc_proconfig, &isnull);
	Body		body = {
		format_procedure_qualified(((Form_pg_proc) GETSTRUCT(function))->oid), source
	};
	ErrorContextCallback context = {error_context_stack, add_body_context, &body};
	SQLFunctionParseInfoPtr parse_info = prepare_sql_fn_parse_info(function, (Node *) call,
																   call == NULL ?
																   DEFAULT_COLLATION_OID :
																   call->inputcollid);
	MakoComputation computation = mako_gate_begin_computation();
	int			guc_level = NewGUCNestLevel();
	List	   *statements;
	List	   *queries = NIL;
	ListCell   *cell;

	error_context_stack = &context;
	if (!isnull)
		ProcessGUCArray(DatumGetArrayTypeP(config), PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE);
	statements = pg_parse_query(source);
	if (!single || list_length(statements) == 1)
		foreach(cell, statements)
			queries = lappend(queries, analyze(lfirst_node(RawStmt, cell), source, parse_info));
	AtEOXact_GUC(false, guc_level);
	mako_gate_end_computation(&computation);
	error_context_stack = context.previous;
	return queries;
}

/*
 * The statements (Query) of the body of an SQL function, as a call sees them, or by itself without
 * one; with single, none unless there is exactly one.
 */
List *
mako_gate_parse_body(HeapTuple function, FuncExpr *call, bool single)
{
	require_gate();
#ifdef MAKO_SQL_BODY
	{
		bool		isnull;
		Datum		body = SysCacheGetAttr(PROCOID, function, Anum_pg_proc_prosqlbody, &isnull);

		if (!isnull)
		{
			Node	   *tree = stringToNode(TextDatumGetCString(body));
			List	   *queries = IsA(tree, List) ? linitial_node(List, (List *) tree) :
				list_make1(tree);

			return single && list_length(queries) != 1 ? NIL : queries;
		}
	}
#endif
	return parse_source(function, call, single);
}

/* The arguments of a call in the order of the function, with those that the call leaves out. */
List *
mako_gate_expand_arguments(HeapTuple function, List *arguments, Oid result)
{
	require_gate();
	return MakoExpandArguments(arguments, result, function);
}

/*
 * Lets the last statement of an SQL function's body give what a call of it returns: values of a
 * type, or rows of a row type. Changes the list, and the statements in it.
 */
void
mako_gate_coerce_result(HeapTuple function, List *queries, Oid type, TupleDesc rowtype)
{
	Body		body = {format_procedure_qualified(((Form_pg_proc) GETSTRUCT(function))->oid), ""};
	ErrorContextCallback context = {error_context_stack, add_body_context, &body};

	MakoComputation computation;

	require_gate();
	error_context_stack = &context;
	computation = mako_gate_begin_computation();
	(void) MakoCheckSqlReturn(queries, type, rowtype);
	mako_gate_end_computation(&computation);
	error_context_stack = context.previous;
}

/* Plans an expression. */
Expr *
mako_gate_plan(Node *expression)
{
	MakoComputation computation;
	Expr	   *planned;

	require_gate();
	computation = mako_gate_begin_computation();
	planned = expression_planner((Expr *) expression);
	mako_gate_end_computation(&computation);
	return planned;
}

/* Evaluates the constant parts of a planned expression. */
Node *
mako_gate_simplify(Node *expression)
{
	MakoComputation computation;
	Node	   *simplified;

	require_gate();
	computation = mako_gate_begin_computation();
	simplified = eval_const_expressions(NULL, expression);
	mako_gate_end_computation(&computation);
	return simplified;
}

/* Makes a planned expression ready for evaluation. */
ExprState *
mako_gate_prepare(Expr *expression, ParamListInfo parameters)
{
	MakoComputation computation;
	ExprState  *state;

	require_gate();
	computation = mako_gate_begin_computation();	/* checks of domains are planned here */
	state = ExecInitExprWithParams(expression, parameters);
	mako_gate_end_computation(&computation);
	return state;
}

/* Lets an expression of a type be one of a domain over it. */
Node *
mako_gate_coerce(Node *expression, Oid type)
{
	require_gate();
	return coerce_to_target_type(NULL, expression, exprType(expression), type, -1,
								 COERCION_IMPLICIT, COERCE_IMPLICIT_CAST, -1);
}

/* The text of a value, by the output function of its type. */
char *
mako_gate_output(Oid output_function, Datum value)
{
	MakoComputation computation;
	char	   *text;

	require_gate();
	computation = mako_gate_begin_computation();
	text = OidOutputFunctionCall(output_function, value);
	mako_gate_end_computation(&computation);
	return text;
}

/* Lets a setting have a value in the current level. */
static void
set(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
							 true, 0, false);
}

/*
 * The query of a SELECT of the extension that reads columns of a view, with the query of the view
 * in its place. Raises unless its columns have these types.
 */
Query *
mako_gate_expand_view(const char *select, const Oid *types)
{
	MakoComputation computation;
	ParseState *state = make_parsestate(NULL);
	Query	   *query;
	ListCell   *cell;

	require_gate();
	computation = mako_gate_begin_computation();
	state->p_sourcetext = select;
	query = transformTopLevelStmt(state, linitial_node(RawStmt, pg_parse_query(select)));
	free_parsestate(state);
	foreach(cell, query->targetList)
	{
		const TargetEntry *target = lfirst_node(TargetEntry, cell);

		if (exprType((Node *) target->expr) != types[target->resno - 1])
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("column \"%s\" of view \"mako.attached_event\" has another type",
							target->resname),
					 errhint("Repair the store with SELECT mako_create_store().")));
	}
	query = linitial_node(Query, QueryRewrite(query));
	mako_gate_end_computation(&computation);
	return query;
}

/* Plans such a query. */
PlannedStmt *
mako_gate_plan_query(Query *query)
{
	MakoComputation computation;
	PlannedStmt *plan;

	require_gate();
	computation = mako_gate_begin_computation();
	PushActiveSnapshot(GetTransactionSnapshot());
	plan = pg_plan_query(query, "", 0, NULL);
	PopActiveSnapshot();
	mako_gate_end_computation(&computation);
	return plan;
}

/* The same, so that rows come as they lie in their tables as far as that is possible. */
PlannedStmt *
mako_gate_plan_scan(Query *query)
{
	PlannedStmt *plan;
	int			guc_level = NewGUCNestLevel();

	set("enable_indexscan", "off");
	set("enable_indexonlyscan", "off");
	set("enable_bitmapscan", "off");
	plan = mako_gate_plan_query(query);
	AtEOXact_GUC(false, guc_level);
	return plan;
}

/*
 * Enters the gate to read rows of a scan as an owner. A scan that is synchronized with others could
 * begin in the middle of a table.
 */
MakoEvaluation
mako_gate_begin_scan(Oid owner, Snapshot snapshot)
{
	MakoEvaluation evaluation = mako_gate_begin_evaluation(owner);

	set("synchronize_seqscans", "off");
	PushActiveSnapshot(snapshot);
	return evaluation;
}

/* Leaves it. */
void
mako_gate_end_scan(const MakoEvaluation *evaluation)
{
	PopActiveSnapshot();
	mako_gate_end_evaluation(evaluation);
}

/* The same, without going through rows once for each other row. */
PlannedStmt *
mako_gate_plan_sets(Query *query)
{
	PlannedStmt *plan;
	int			guc_level = NewGUCNestLevel();

	set("enable_nestloop", "off");
	plan = mako_gate_plan_query(query);
	AtEOXact_GUC(false, guc_level);
	return plan;
}

/* Starts a plan, with the active snapshot. */
QueryDesc *
mako_gate_start_plan(PlannedStmt *plan)
{
	QueryDesc  *started = CreateQueryDesc(plan, "", GetActiveSnapshot(), InvalidSnapshot,
										  None_Receiver, NULL, NULL, 0);

	require_gate();
	ExecutorStart(started, 0);
	return started;
}

/* The next row of a plan; NULL at the end. */
TupleTableSlot *
mako_gate_next_row(QueryDesc *started)
{
	TupleTableSlot *slot = ExecProcNode(started->planstate);

	return TupIsNull(slot) ? NULL : slot;
}

/* Ends a plan. */
void
mako_gate_end_plan(QueryDesc *started)
{
	require_gate();
	ExecutorFinish(started);
	ExecutorEnd(started);
	FreeQueryDesc(started);
}

/*
 * Executes a plan with a new snapshot, and gives its rows to a receiver. It sees the relations of
 * an environment.
 */
void
mako_gate_execute(PlannedStmt *plan, QueryEnvironment *environment, DestReceiver *receiver)
{
	MakoComputation computation;
	QueryDesc  *description;

	require_gate();
	computation = mako_gate_begin_computation();
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	description = CreateQueryDesc(plan, "", GetActiveSnapshot(), InvalidSnapshot, receiver, NULL,
								  environment, 0);
	ExecutorStart(description, 0);
	MakoExecutorRun(description);
	ExecutorFinish(description);
	ExecutorEnd(description);
	FreeQueryDesc(description);
	PopActiveSnapshot();
	mako_gate_end_computation(&computation);
}

/* The function that a user's text names: schema.name(types), on the path of the session. */
Oid
mako_gate_find_function(const char *name)
{
	return DatumGetObjectId(DirectFunctionCall1(regprocedurein, CStringGetDatum(name)));
}

/* The function of a signature that the extension wrote down; InvalidOid where there is none. */
Oid
mako_gate_find_signature(const char *signature)
{
	LOCAL_FCINFO(fcinfo, 1);
	Datum		function;

	InitFunctionCallInfoData(*fcinfo, NULL, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = CStringGetTextDatum(signature);
	fcinfo->args[0].isnull = false;
	function = to_regprocedure(fcinfo);
	return fcinfo->isnull ? InvalidOid : DatumGetObjectId(function);
}
