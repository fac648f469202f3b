/*
 * sql_body.c
 *	  The body of an SQL function: parsed as the server does, and checked whether it is one
 *	  expression.
 *
 * A body is one expression when it is one SELECT of one column that gives exactly one row,
 * whatever happens, and is computed from the arguments: no table, no condition, nothing volatile.
 * What it may have is a FROM with subselects of the same kind. Everything lives in the current
 * memory context.
 */
#include "evaluate/inline.h"

#include "access/htup_details.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "executor/functions.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/analyze.h"
#include "parser/parse_node.h"
#include "parser/parsetree.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

/* States why something is left as it is, unless a reason is known already; always false. */
bool
mako_obstruct(MakoObstacle *obstacle, const char *reason, const char *hint)
{
	if (obstacle->reason == NULL)
	{
		obstacle->reason = reason;
		obstacle->hint = hint;
	}
	return false;
}

/* Returns true if the types of a function's arguments depend on the call. */
bool
mako_sql_body_is_polymorphic(HeapTuple tuple)
{
	Form_pg_proc form = (Form_pg_proc) GETSTRUCT(tuple);

	for (int i = 0; i < form->pronargs; i++)
		if (IsPolymorphicType(form->proargtypes.values[i]))
			return true;
	return false;
}

/* Returns true if a condition is missing, or is true. */
static bool
is_true(const Node *condition)
{
	const Const *constant = (const Const *) condition;

	return condition == NULL ||
		(IsA(condition, Const) && !constant->constisnull && DatumGetBool(constant->constvalue));
}

/* Returns true if a function in FROM is one value, so that it is like a column. */
static bool
is_one_value(const RangeTblEntry *entry)
{
	const RangeTblFunction *function = linitial(entry->functions);

	return list_length(entry->functions) == 1 && !entry->funcordinality &&
		function->funccolcount == 1 && function->funccolnames == NIL &&
		!expression_returns_set(function->funcexpr) &&
		!type_is_rowtype(exprType(function->funcexpr));
}

/* Checks that an item of FROM is exactly one row, whatever happens. */
static bool
check_from(const Query *query, const Node *item, MakoObstacle *obstacle)
{
	const JoinExpr *join;
	const RangeTblEntry *entry;

	if (IsA(item, JoinExpr))
	{
		join = (const JoinExpr *) item;
		if (!is_true(join->quals))
			return mako_obstruct(obstacle, "JOIN with a condition",
								 "Join without one, and use CASE.");
		return check_from(query, join->larg, obstacle) && check_from(query, join->rarg, obstacle);
	}
	entry = rt_fetch(((const RangeTblRef *) item)->rtindex, query->rtable);
	switch (entry->rtekind)
	{
		case RTE_SUBQUERY:
			return mako_sql_query_check(entry->subquery, obstacle);
		case RTE_VALUES:
			return list_length(entry->values_lists) == 1 ||
				mako_obstruct(obstacle, "VALUES with several rows", NULL);
		case RTE_FUNCTION:
			return is_one_value(entry) ||
				mako_obstruct(obstacle, "FROM with a function that returns rows",
							  "Use functions that return one value.");
		case RTE_CTE:
			return mako_obstruct(obstacle, "WITH", "Use a subselect.");
		case RTE_RELATION:
			return mako_obstruct(obstacle, "FROM with a table", "Depend on the arguments only.");
		default:
			return mako_obstruct(obstacle, "FROM with more than subselects", NULL);
	}
}

/*
 * Checks that a query is exactly one row, computed from what it is given; subselects in its
 * expressions are not looked at.
 */
bool
mako_sql_query_check(const Query *query, MakoObstacle *obstacle)
{
	const char *reason = NULL;
	ListCell   *cell;

	check_stack_depth();
	if (query->commandType != CMD_SELECT || query->utilityStmt != NULL)
		reason = "not a SELECT";
	else if (query->cteList != NIL)
		reason = "WITH";
	else if (query->setOperations != NULL)
		reason = "UNION, INTERSECT or EXCEPT";
	else if (query->hasAggs)
		reason = "an aggregate";
	else if (query->hasWindowFuncs)
		reason = "a window function";
	else if (query->hasTargetSRFs)
		reason = "a function that returns rows";
	else if (query->groupClause != NIL || query->groupingSets != NIL || query->havingQual != NULL)
		reason = "GROUP BY or HAVING";
	else if (query->distinctClause != NIL)
		reason = "DISTINCT";
	else if (query->sortClause != NIL)
		reason = "ORDER BY";
	else if (query->limitOffset != NULL || query->limitCount != NULL)
		reason = "LIMIT or OFFSET";
	else if (query->rowMarks != NIL)
		reason = "FOR UPDATE or FOR SHARE";

	/* Tables first: that is what an author has to change. */
	if (query->commandType == CMD_SELECT)
		foreach(cell, query->jointree->fromlist)
			if (!check_from(query, lfirst(cell), obstacle))
				return false;
	if (reason == NULL && !is_true(query->jointree->quals))
		reason = "WHERE";
	if (reason != NULL)
		return mako_obstruct(obstacle, reason, "Write one SELECT of one expression.");
	return true;
}

/* A check_function_callback: notes a function that is volatile. */
static bool
note_volatile(Oid function, void *context)
{
	if (func_volatile(function) != PROVOLATILE_VOLATILE)
		return false;
	*(Oid *) context = function;
	return true;
}

/* Finds a volatile function in a tree. */
static bool
find_volatile(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, find_volatile, context, 0);
	return check_functions_in_node(node, note_volatile, context) ||
		expression_tree_walker(node, find_volatile, context);
}

/* The one query that is the body of a function. */
static Query *
parse_body(FuncExpr *call, HeapTuple tuple, MakoObstacle *obstacle)
{
	List	   *queries = mako_gate_parse_body(tuple, call, true);

	if (queries == NIL)
	{
		mako_obstruct(obstacle, "not one statement", "Write one SELECT of one expression.");
		return NULL;
	}
	return linitial_node(Query, queries);
}

/* The query's only column, of the type that the function declares. */
static Node *
result_column(FuncExpr *call, Query *query, MakoObstacle *obstacle)
{
	List	   *queries = list_make1(query);
	TupleDesc	rowtype;
	Node	   *column;

	(void) get_expr_result_type((Node *) call, NULL, &rowtype);
	if (MakoCheckSqlReturn(queries, call->funcresulttype, rowtype) || linitial(queries) != query ||
		list_length(query->targetList) != 1)
	{
		mako_obstruct(obstacle, "returns a row", "Return jsonb.");
		return NULL;
	}
	column = (Node *) linitial_node(TargetEntry, query->targetList)->expr;
	/* A void function may select anything. */
	if (exprType(column) != call->funcresulttype && !mako_obstruct(obstacle, "returns void", NULL))
		return NULL;
	return column;
}

/* The body of a function as it is called, where it is one expression; NULL otherwise. */
MakoSqlBody *
mako_sql_body_parse(FuncExpr *call, HeapTuple tuple, MakoObstacle *obstacle)
{
	Oid			function = InvalidOid;
	MakoSqlBody *body;
	Query	   *query = parse_body(call, tuple, obstacle);
	Node	   *column;

	if (query == NULL || !mako_sql_query_check(query, obstacle))
		return NULL;
	column = result_column(call, query, obstacle);
	if (column == NULL)
		return NULL;
	if (contain_volatile_functions((Node *) query))
	{
		(void) find_volatile((Node *) query, &function);
		mako_obstruct(obstacle, OidIsValid(function) ?
					  psprintf("calls %s, which is volatile", format_procedure(function)) :
					  "takes the next value of a sequence",
					  "If its result depends on its arguments only, declare it STABLE.");
		return NULL;
	}
	body = palloc(sizeof(MakoSqlBody));
	body->function = call->funcid;
	body->collation = call->inputcollid;
	body->query = query;
	body->column = column;
	return body;
}
