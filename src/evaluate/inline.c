/*
 * inline.c
 *	  SQL functions as expressions: what the server's planner inlines, and what it gives up.
 *
 * Stands between function.c and program.c: takes the call that a program is made of and returns
 * one expression in which no SQL function is called any more that could be seen through. The
 * server's own inlining stops where an argument is used more than once and costs something, and
 * where a body has a FROM. Here such arguments, and the columns of subselects without tables,
 * become *bindings*: expressions of their own, evaluated at most once per evaluation of the
 * program and only where they are used. Whatever else keeps the server from inlining a function
 * does so here; how a body is parsed, coerced and collated is the server's way, too.
 *
 * An inlining runs in three steps. The server plans the expression while we keep it from inlining;
 * then every call is replaced by its planned body, from the inside out, in which each argument
 * that is neither a constant nor a parameter is a reference to a *value*; last, values that turned
 * out to be used once take their place, and the others become bindings.
 *
 * The bodies are parsed and planned in a memory context of their own; what is returned is copied
 * out of it. What goes wrong in a body must not go wrong before the function would have been
 * called, so every call is inlined in a subtransaction of its own, and left as it is when that
 * fails.
 */
#include "evaluate/inline.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "parser/parsetree.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

/*
 * An argument or a column that is more than a constant or a parameter; references to it are
 * parameters.
 */
typedef struct InlineValue
{
	Oid			function;		/* whose argument or column it is */
	Expr	   *expression;		/* planned; may refer to other values */
	int			uses;			/* in what is evaluated */
	int			binding;		/* number among the bindings, from 1; 0 for none yet */
} InlineValue;

/* The first parameter that stands for a value, and after the last step for a binding. */
#define FIRST_VALUE (MAKO_PARAMETER_PAYLOAD + 1)

/* An inlining, from a call to an expression. */
typedef struct Inliner
{
	List	   *values;			/* of InlineValue */
	List	   *bodies;			/* of MakoSqlBody, those that calls can share */
	List	   *active;			/* functions whose bodies are being inlined */
	List	   *notes;			/* of MakoInlineNote */
	int			nodes;			/* in all expressions so far */
	int			inlined;		/* calls, ever */
	MakoObstacle obstacle;		/* why the current call cannot be inlined */
} Inliner;

/* A body that is being turned into an expression. */
typedef struct Body
{
	Inliner    *inliner;
	List	   *arguments;		/* what stands for $1, $2 ... */
	Bitmapset  *used;			/* of these, from 0 */
} Body;

/* A column that was referred to. */
typedef struct Column
{
	Index		relation;
	AttrNumber	number;
	Node	   *expression;
} Column;

/* A query level of a body. */
typedef struct Scope
{
	Body	   *body;
	struct Scope *outer;
	const Query *query;
	struct Scope **subqueries;	/* by range table index - 1; NULL until it is looked at */
	List	   *columns;		/* of Column */
} Scope;

/* One call that is being inlined. */
typedef struct Attempt
{
	Inliner    *inliner;
	FuncExpr   *call;
	bool		arguments_changed;	/* because a call in them was inlined */
	HeapTuple	tuple;			/* of the function */
	Expr	   *result;
} Attempt;

static Node *inline_calls(Node *node, void *context);
static Node *substitute(Node *node, void *context);

/* ---- planning ------------------------------------------------------------------------------- */

static needs_fmgr_hook_type other_hook; /* while ours stands in its place */

/* Returns true if this is a function in SQL. */
static bool
is_sql_function(Oid oid)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(oid));
	bool		result = HeapTupleIsValid(tuple) &&
		((Form_pg_proc) GETSTRUCT(tuple))->prolang == SQLlanguageId;

	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	return result;
}

/* A needs_fmgr_hook: the server does not inline what another extension wants to see called. */
static bool
keep_call(Oid oid)
{
	return is_sql_function(oid) || (other_hook != NULL && other_hook(oid));
}

/* Returns true if another extension wants to see the calls of this function. */
static bool
is_watched(Oid oid)
{
	return needs_fmgr_hook == keep_call ? other_hook != NULL && other_hook(oid) :
		FmgrHookIsNeeded(oid);
}

/*
 * Plans an expression but leaves the calls of SQL functions to us: once the server has inlined
 * one, an argument that looks cheap to it stands there as often as the body uses it.
 */
static Expr *
plan(Node *expression)
{
	needs_fmgr_hook_type before = needs_fmgr_hook;
	Expr	   *volatile planned = NULL;

	if (before != keep_call)
		other_hook = before;
	needs_fmgr_hook = keep_call;
	PG_TRY();
	{
		planned = mako_gate_plan(expression);
	}
	PG_FINALLY();
	{
		needs_fmgr_hook = before;
	}
	PG_END_TRY();
	return planned;
}

/* Counts the nodes of an expression. */
static bool
count_nodes(Node *node, void *context)
{
	if (node == NULL)
		return false;
	++*(int *) context;
	return expression_tree_walker(node, count_nodes, context);
}

/* Plans an expression and inlines its calls. */
static Node *
finish(Inliner *inliner, Node *expression)
{
	int			inlined = inliner->inlined;
	Node	   *planned = (Node *) plan(expression);

	(void) count_nodes(planned, &inliner->nodes);
	if (inliner->nodes > MAKO_INLINE_NODES)
	{
		mako_obstruct(&inliner->obstacle, "too large",
					  "Split what it does, or call fewer functions.");
		return NULL;
	}
	planned = inline_calls(planned, inliner);
	/* What has become constant is evaluated now. */
	return inliner->inlined == inlined ? planned : (Node *) plan(planned);
}

/* ---- values --------------------------------------------------------------------------------- */

/*
 * Returns true if evaluating this costs nothing, so that it can stand anywhere, as often as it is
 * used.
 */
static bool
is_free(const Node *node)
{
	while (IsA(node, RelabelType))
		node = (const Node *) ((const RelabelType *) node)->arg;
	return IsA(node, Const) || IsA(node, Param);
}

/*
 * A reference to an expression that may be used several times: the expression itself where it is
 * free.
 */
static Node *
value_of(Inliner *inliner, Node *expression)
{
	InlineValue *value;
	Param	   *reference;

	if (is_free(expression))
		return expression;
	value = palloc0(sizeof(InlineValue));
	value->function = llast_oid(inliner->active);
	value->expression = (Expr *) expression;
	inliner->values = lappend(inliner->values, value);

	reference = makeNode(Param);
	reference->paramkind = PARAM_EXTERN;
	reference->paramid = FIRST_VALUE + list_length(inliner->values) - 1;
	reference->paramtype = exprType(expression);
	reference->paramtypmod = exprTypmod(expression);
	reference->paramcollid = exprCollation(expression);
	reference->location = -1;
	return (Node *) reference;
}

/* The value that a node refers to; NULL where it is no reference. */
static InlineValue *
referenced_value(const Inliner *inliner, const Node *node)
{
	const Param *param = (const Param *) node;

	if (!IsA(node, Param) || param->paramkind != PARAM_EXTERN || param->paramid < FIRST_VALUE)
		return NULL;
	return list_nth(inliner->values, param->paramid - FIRST_VALUE);
}

/* ---- a body without tables as an expression ------------------------------------------------- */

/* Begins a query level. */
static Scope *
open_scope(Body *body, Scope *outer, const Query *query)
{
	Scope	   *scope = palloc0(sizeof(Scope));

	scope->body = body;
	scope->outer = outer;
	scope->query = query;
	scope->subqueries = palloc0(sizeof(Scope *) * (list_length(query->rtable) + 1));
	return scope;
}

/* What a column of a FROM item is computed from, in the scope that it belongs to. */
static Node *
column_source(Scope *scope, Index relation, AttrNumber number)
{
	const RangeTblEntry *entry = rt_fetch(relation, scope->query->rtable);
	Scope	  **subquery = &scope->subqueries[relation - 1];

	switch (entry->rtekind)
	{
		case RTE_SUBQUERY:
			if (*subquery == NULL)
				*subquery = open_scope(scope->body, scope, entry->subquery);
			return substitute((Node *) get_tle_by_resno(entry->subquery->targetList, number)->expr,
							  *subquery);
		case RTE_VALUES:
			return substitute(list_nth(linitial(entry->values_lists), number - 1), scope);
		case RTE_FUNCTION:
			return substitute(((RangeTblFunction *) linitial(entry->functions))->funcexpr, scope);
		case RTE_JOIN:
			return substitute(list_nth(entry->joinaliasvars, number - 1), scope);
		default:
			Assert(false);		/* mako_sql_query_check() lets nothing else in */
			return NULL;
	}
}

/*
 * A reference to a column. Only columns that are used are looked at: no other one is evaluated,
 * not even while planning.
 */
static Node *
column_value(Scope *scope, Index relation, AttrNumber number)
{
	Inliner    *inliner = scope->body->inliner;
	Node	   *expression;
	Column	   *column;
	ListCell   *cell;

	foreach(cell, scope->columns)
	{
		column = lfirst(cell);
		if (column->relation == relation && column->number == number)
			return copyObject(column->expression);
	}
	expression = column_source(scope, relation, number);
	if (inliner->obstacle.reason == NULL)
		expression = finish(inliner, expression);
	if (inliner->obstacle.reason != NULL)
		return NULL;
	column = palloc(sizeof(Column));
	column->relation = relation;
	column->number = number;
	column->expression = value_of(inliner, expression);
	scope->columns = lappend(scope->columns, column);
	return copyObject(column->expression);
}

/* A whole row of a FROM item. */
static Node *
row_value(Scope *scope, const Var *var)
{
	const RangeTblEntry *entry = rt_fetch(var->varno, scope->query->rtable);
	RowExpr    *row = makeNode(RowExpr);

	if (entry->rtekind == RTE_FUNCTION || var->vartype != RECORDOID)
	{
		mako_obstruct(&scope->body->inliner->obstacle, "a whole row", "Name the columns.");
		return NULL;
	}
	row->row_typeid = RECORDOID;
	row->row_format = COERCE_IMPLICIT_CAST;
	row->colnames = copyObject(entry->eref->colnames);
	row->location = -1;
	for (int i = 1; i <= list_length(entry->eref->colnames); i++)
		row->args = lappend(row->args, column_value(scope, var->varno, i));
	return (Node *) row;
}

/* Puts what they stand for in the place of parameters, columns and scalar subselects. */
static Node *
substitute(Node *node, void *context)
{
	Scope	   *scope = context;
	Body	   *body = scope->body;

	if (node == NULL || body->inliner->obstacle.reason != NULL)
		return NULL;
	if (IsA(node, Param))
	{
		const Param *param = (const Param *) node;

		if (param->paramkind != PARAM_EXTERN || param->paramid < 1 ||
			param->paramid > list_length(body->arguments))
		{
			mako_obstruct(&body->inliner->obstacle, "a parameter that it does not have", NULL);
			return NULL;
		}
		body->used = bms_add_member(body->used, param->paramid - 1);
		return copyObject(list_nth(body->arguments, param->paramid - 1));
	}
	if (IsA(node, Var))
	{
		const Var  *var = (const Var *) node;

		for (Index level = 0; level < var->varlevelsup; level++)
			scope = scope->outer;
		return var->varattno == 0 ? row_value(scope, var) :
			column_value(scope, var->varno, var->varattno);
	}
	if (IsA(node, SubLink))
	{
		const SubLink *link = (const SubLink *) node;
		const Query *query = (const Query *) link->subselect;

		if (!mako_sql_query_check(query, &body->inliner->obstacle) ||
			(link->subLinkType != EXPR_SUBLINK &&
			 !mako_obstruct(&body->inliner->obstacle,
							"EXISTS, IN or ARRAY with a subselect", NULL)))
			return NULL;
		return substitute((Node *) linitial_node(TargetEntry, query->targetList)->expr,
						  open_scope(body, scope, query));
	}
	return expression_tree_mutator(node, substitute, context);
}

/* ---- one call ------------------------------------------------------------------------------- */

/* Finds something that belongs to an expression around this one. */
static bool
depends_on_context(Node *node, void *context)
{
	bool		inside = context != NULL;

	if (node == NULL)
		return false;
	if (IsA(node, CaseTestExpr))
		return !inside;
	if (IsA(node, CoerceToDomainValue))
		return true;
	if (IsA(node, CaseExpr) && ((CaseExpr *) node)->arg != NULL)
		return depends_on_context((Node *) ((CaseExpr *) node)->arg, context) ||
			expression_tree_walker(node, depends_on_context, node);
	if (IsA(node, ArrayCoerceExpr))
		return depends_on_context((Node *) ((ArrayCoerceExpr *) node)->arg, context) ||
			expression_tree_walker(node, depends_on_context, node);
	return expression_tree_walker(node, depends_on_context, context);
}

/* Returns true if a part of an expression belongs to another one around it. */
bool
mako_depends_on_context(Node *node)
{
	return depends_on_context(node, NULL);
}

/* A check_function_callback: notes a function that the current role must not call. */
static bool
note_denied(Oid function, void *context)
{
	if (MakoFunctionAclCheck(function, GetUserId()) == ACLCHECK_OK)
		return false;
	*(Oid *) context = function;
	return true;
}

/* Finds a function that the current role must not call. */
static bool
find_denied(Node *node, void *context)
{
	if (node == NULL)
		return false;
	return check_functions_in_node(node, note_denied, context) ||
		expression_tree_walker(node, find_denied, context);
}

/* What helps a role that must not call a function. */
static char *
grant_hint(void)
{
	return psprintf("Grant EXECUTE on it to \"%s\".", GetUserNameFromId(GetUserId(), false));
}

/* Checks whatever can be known without the body. */
static bool
check_function(Inliner *inliner, const FuncExpr *call, HeapTuple tuple)
{
	Form_pg_proc form = (Form_pg_proc) GETSTRUCT(tuple);

	if (form->prokind != PROKIND_FUNCTION || form->pronargs != list_length(call->args))
		return mako_obstruct(&inliner->obstacle, "not an ordinary function", NULL);
	if (form->provolatile == PROVOLATILE_VOLATILE)
		return mako_obstruct(&inliner->obstacle, "VOLATILE", "Declare it STABLE.");
	if (form->prosecdef)
		return mako_obstruct(&inliner->obstacle, "SECURITY DEFINER",
							 "Registered functions run as their owner anyway.");
	if (!heap_attisnull(tuple, Anum_pg_proc_proconfig, NULL))
		return mako_obstruct(&inliner->obstacle, "SET clause",
							 "Qualify the names in the body, and remove it.");
	if (form->proretset)
		return mako_obstruct(&inliner->obstacle, "returns a set", "Return one value.");
	if (form->prorettype == RECORDOID)
		return mako_obstruct(&inliner->obstacle, "returns a record", "Return jsonb.");
	if (list_member_oid(inliner->active, call->funcid))
		return mako_obstruct(&inliner->obstacle, "calls itself", NULL);
	if (MakoFunctionAclCheck(call->funcid, GetUserId()) != ACLCHECK_OK)
		return mako_obstruct(&inliner->obstacle, "permission denied", grant_hint());
	if (is_watched(call->funcid))
		return mako_obstruct(&inliner->obstacle, "another extension watches its calls", NULL);
	if (mako_depends_on_context((Node *) call->args))
		return mako_obstruct(&inliner->obstacle, "part of a conversion", NULL);
	return true;
}

/*
 * The body of a function, parsed once for all calls for which it means the same; NULL where it is
 * no expression.
 */
static const MakoSqlBody *
body_of(Inliner *inliner, FuncExpr *call, HeapTuple tuple)
{
	const MakoSqlBody *body;
	ListCell   *cell;

	foreach(cell, inliner->bodies)
	{
		body = lfirst(cell);
		if (body->function == call->funcid && body->collation == call->inputcollid)
			return body;
	}
	body = mako_sql_body_parse(call, tuple, &inliner->obstacle);
	if (body != NULL && !mako_sql_body_is_polymorphic(tuple))
		inliner->bodies = lappend(inliner->bodies, unconstify(MakoSqlBody *, body));
	return body;
}

/* A strict function's body, which is null when an argument is. */
static Node *
strict_body(const FuncExpr *call, const Body *body, Node *expression)
{
	List	   *tests = NIL;
	CaseExpr   *result;
	CaseWhen   *when;
	ListCell   *cell;

	foreach(cell, body->arguments)
	{
		NullTest   *test;

		if (IsA(lfirst(cell), Const) && !lfirst_node(Const, cell)->constisnull)
			continue;
		test = makeNode(NullTest);
		test->arg = copyObject(lfirst(cell));
		test->nulltesttype = IS_NULL;
		test->location = -1;
		tests = lappend(tests, test);
	}
	if (tests == NIL)
		return expression;
	when = makeNode(CaseWhen);
	when->expr = list_length(tests) == 1 ? linitial(tests) : makeBoolExpr(OR_EXPR, tests, -1);
	when->result = (Expr *) makeNullConst(call->funcresulttype, -1, call->funccollid);
	when->location = -1;
	result = makeNode(CaseExpr);
	result->casetype = call->funcresulttype;
	result->casecollid = call->funccollid;
	result->args = list_make1(when);
	result->defresult = (Expr *) expression;
	result->location = -1;
	return (Node *) result;
}

/* An expression that shows the collation of the call in whose place it stands. */
static Node *
collated(const FuncExpr *call, Node *expression)
{
	Oid			collation = exprCollation(expression);
	CollateExpr *result;

	if (!OidIsValid(call->funccollid) || !OidIsValid(collation) || collation == call->funccollid)
		return expression;
	result = makeNode(CollateExpr);
	result->arg = (Expr *) expression;
	result->collOid = call->funccollid;
	result->location = -1;
	return (Node *) result;
}

/*
 * Plans a call whose arguments were planned before what they call was inlined. As with the
 * server's own inlining, an argument that has become a null decides a strict call, and none of the
 * others is evaluated. Returns true if the call is still a call.
 */
static bool
plan_arguments(Attempt *attempt)
{
	Oid			function = attempt->call->funcid;
	Expr	   *planned = plan((Node *) attempt->call);

	if (IsA(planned, FuncExpr) && ((FuncExpr *) planned)->funcid == function)
	{
		attempt->call = (FuncExpr *) planned;
		return true;
	}
	attempt->result = planned;
	return false;
}

/* Inlines a call; states a reason where it cannot be. A callback of mako_subtransaction_run(). */
static void
inline_call(void *argument)
{
	Attempt    *attempt = argument;
	Inliner    *inliner = attempt->inliner;
	FuncExpr   *call;
	Body		body = {inliner};
	Scope	   *scope;
	const MakoSqlBody *parsed;
	Node	   *expression;
	Oid			function = InvalidOid;
	bool		denied;
	int			before = list_length(inliner->values);
	int			arguments_end;
	ListCell   *cell;

	if (attempt->arguments_changed && !plan_arguments(attempt))
		return;
	call = attempt->call;
	parsed = body_of(inliner, call, attempt->tuple);
	if (parsed == NULL)
		return;
	scope = open_scope(&body, NULL, parsed->query);
	inliner->active = lappend_oid(inliner->active, call->funcid);
	foreach(cell, call->args)
		body.arguments = lappend(body.arguments, value_of(inliner, lfirst(cell)));
	arguments_end = list_length(inliner->values);
	expression = substitute(parsed->column, scope);
	if (inliner->obstacle.reason != NULL)
		return;
	/* The server's test of strictness cannot see through columns. */
	if (((Form_pg_proc) GETSTRUCT(attempt->tuple))->proisstrict &&
		(bms_num_members(body.used) < list_length(body.arguments) ||
		 list_length(inliner->values) > arguments_end || contain_nonstrict_functions(expression)))
		expression = strict_body(call, &body, expression);
	expression = finish(inliner, collated(call, expression));
	/* The executor would refuse the whole program, and not only the call. */
	denied = find_denied(expression, &function);
	for (int i = before; !denied && i < list_length(inliner->values); i++)
		denied = find_denied((Node *) ((InlineValue *) list_nth(inliner->values, i))->expression,
							 &function);
	if (denied)
		mako_obstruct(&inliner->obstacle, psprintf("calls %s, for which permission is denied",
												   format_procedure(function)), grant_hint());
	attempt->result = (Expr *) expression;
	inliner->active = list_delete_last(inliner->active);
}

/* Notes what became of a call. */
static void
note(Inliner *inliner, Oid function)
{
	MakoInlineNote *note = palloc0(sizeof(MakoInlineNote));

	note->function = function;
	note->caller = inliner->active == NIL ? InvalidOid : llast_oid(inliner->active);
	note->obstacle = inliner->obstacle;
	inliner->notes = lappend(inliner->notes, note);
}

/* The expression that a call of an SQL function amounts to; NULL where it must stay a call. */
static Expr *
try_call(Inliner *inliner, FuncExpr *call, bool arguments_changed)
{
	Inliner		before = *inliner;
	int			values = list_length(inliner->values);
	int			active = list_length(inliner->active);
	int			notes = list_length(inliner->notes);
	Attempt		attempt = {inliner, call, arguments_changed};
	ErrorData  *error;

	attempt.tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(call->funcid));
	if (!HeapTupleIsValid(attempt.tuple))
		elog(ERROR, "cache lookup failed for function %u", call->funcid);	/* cannot happen */
	if (check_function(inliner, call, attempt.tuple))
	{
		error = mako_subtransaction_run(inline_call, &attempt);
		if (error != NULL)
			mako_obstruct(&inliner->obstacle, psprintf("error: %s", error->message), NULL);
	}
	ReleaseSysCache(attempt.tuple);
	if (inliner->obstacle.reason != NULL)
	{
		attempt.result = NULL;
		inliner->values = list_truncate(inliner->values, values);
		inliner->active = list_truncate(inliner->active, active);
		for (int i = notes; i < list_length(inliner->notes); i++)
			((MakoInlineNote *) list_nth(inliner->notes, i))->is_void = true;
		inliner->nodes = before.nodes;
	}
	else
		inliner->inlined++;
	note(inliner, call->funcid);
	inliner->obstacle = before.obstacle;
	return attempt.result;
}

/* Inlines the calls of an expression, from the inside out. */
static Node *
inline_calls(Node *node, void *context)
{
	Inliner    *inliner = context;
	int			inlined = inliner->inlined;
	FuncExpr   *call = NULL;
	Expr	   *result = NULL;

	if (node == NULL)
		return NULL;
	node = expression_tree_mutator(node, inline_calls, context);
	if (IsA(node, FuncExpr))
		call = (FuncExpr *) node;
	else if (IsA(node, OpExpr))
	{
		OpExpr	   *operator = (OpExpr *) node;

		call = makeFuncExpr(operator->opfuncid, operator->opresulttype, operator->args,
							operator->opcollid, operator->inputcollid, COERCE_EXPLICIT_CALL);
		call->funcretset = operator->opretset;
	}
	if (call != NULL && is_sql_function(call->funcid))
		result = try_call(inliner, call, inliner->inlined != inlined);
	return result == NULL ? node : (Node *) result;
}

/* ---- from values to bindings ---------------------------------------------------------------- */

/* Counts how often values are used in what is evaluated. */
static bool
count_uses(Node *node, void *context)
{
	InlineValue *value;

	if (node == NULL)
		return false;
	value = referenced_value(context, node);
	if (value == NULL)
		return expression_tree_walker(node, count_uses, context);
	return ++value->uses == 1 && count_uses((Node *) value->expression, context);
}

/* The bindings of an inlining, as they grow. */
typedef struct Bindings
{
	const Inliner *inliner;
	List	   *list;			/* of MakoBinding */
} Bindings;

/* Notes that a function was inlined with bindings. */
static void
note_bound(const Inliner *inliner, Oid function)
{
	ListCell   *cell;

	foreach(cell, inliner->notes)
	{
		MakoInlineNote *note = lfirst(cell);

		if (note->function == function && note->obstacle.reason == NULL)
			note->bound = true;
	}
}

/* Puts values that are used once in their places, and makes bindings of the others. */
static Node *
resolve(Node *node, void *context)
{
	Bindings   *bindings = context;
	InlineValue *value;
	Param	   *reference;

	if (node == NULL)
		return NULL;
	value = referenced_value(bindings->inliner, node);
	if (value == NULL)
		return expression_tree_mutator(node, resolve, context);
	if (value->uses == 1)
		return resolve((Node *) value->expression, context);
	if (value->binding == 0)
	{
		MakoBinding *binding = palloc0(sizeof(MakoBinding));

		binding->expression = (Expr *) resolve((Node *) value->expression, context);
		binding->typlen = get_typlen(exprType((Node *) binding->expression));
		bindings->list = lappend(bindings->list, binding);
		value->binding = list_length(bindings->list);
		note_bound(bindings->inliner, value->function);
	}
	reference = copyObject((Param *) node);
	reference->paramid = FIRST_VALUE + value->binding - 1;
	return (Node *) reference;
}

/*
 * Inlines SQL functions in an expression that is not planned yet. Returns the planned expression
 * and adds its bindings, all in the current memory context; NULL where no call could be inlined.
 * Notes of every SQL function met go to notes, unless that is NULL.
 */
Expr *
mako_inline(Expr *expression, List **bindings, List **notes)
{
	Inliner		inliner = {NIL};
	Bindings	made = {&inliner};
	MemoryContext context = CurrentMemoryContext;
	MemoryContext scratch;
	Node	   *result;
	ListCell   *cell;

	/* Not every version allows subtransactions there. */
	if (IsInParallelMode())
		return NULL;
	scratch = AllocSetContextCreate(context, "mako inline", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(scratch);
	result = inline_calls((Node *) plan((Node *) expression), &inliner);
	(void) count_uses(result, &inliner);
	result = resolve(result, &made);
	MemoryContextSwitchTo(context);

	foreach(cell, notes == NULL ? NIL : inliner.notes)
	{
		MakoInlineNote *note = palloc(sizeof(MakoInlineNote));

		*note = *(MakoInlineNote *) lfirst(cell);
		if (note->obstacle.reason != NULL)
			note->obstacle.reason = pstrdup(note->obstacle.reason);
		if (note->obstacle.hint != NULL)
			note->obstacle.hint = pstrdup(note->obstacle.hint);
		*notes = lappend(*notes, note);
	}
	foreach(cell, made.list)
	{
		MakoBinding *binding = palloc(sizeof(MakoBinding));

		*binding = *(MakoBinding *) lfirst(cell);
		binding->expression = copyObject(binding->expression);
		*bindings = lappend(*bindings, binding);
	}
	result = inliner.inlined == 0 ? NULL : copyObject(result);
	MemoryContextDelete(scratch);
	return (Expr *) result;
}
