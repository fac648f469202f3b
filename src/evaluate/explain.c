/*
 * explain.c
 *	  mako_explain_function(): how a function will run, and what to change.
 *
 * The function is compiled as a program is, but never evaluated. What was inlined is in the
 * inliner's notes; what is called stands in the planned expressions. Everything lives in the
 * memory context of the call.
 */
#include "evaluate/inline.h"

#include "access/htup_details.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_language.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/proclang.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_coerce.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

/* How a call is evaluated, in the order of the rows. */
typedef enum Evaluation
{
	EVALUATION_INLINED,			/* it is part of the expression */
	EVALUATION_BOUND,			/* the same, with values that are evaluated once */
	EVALUATION_NATIVE,			/* by a function of ours, on expanded JSON */
	EVALUATION_SERVER,			/* by a function of the server */
	EVALUATION_CALLED,			/* whatever else */
} Evaluation;

static const char *const evaluation_name[] = {
	[EVALUATION_INLINED] = "inlined",
	[EVALUATION_BOUND] = "bound",
	[EVALUATION_NATIVE] = "native",
	[EVALUATION_SERVER] = "server",
	[EVALUATION_CALLED] = "called",
};

/* A row of the result. */
typedef struct Row
{
	const char *call;
	bool		is_first;		/* the function itself */
	Evaluation	evaluation;
	int			calls;
	const char *reason;			/* may be NULL, like hint */
	const char *hint;
} Row;

typedef struct Explanation
{
	Oid			function;
	bool		is_ours;		/* the inlining; else it is the server's */
	List	   *notes;			/* of MakoInlineNote */
	List	   *called;			/* functions in the planned expressions */
	List	   *rows;
} Explanation;

/* Counts a call. */
static void
add_row(Explanation *explanation, const char *call, bool is_first, Evaluation evaluation,
		const char *reason, const char *hint)
{
	Row		   *row;
	ListCell   *cell;

	foreach(cell, explanation->rows)
	{
		row = lfirst(cell);
		if (row->evaluation == evaluation && strcmp(row->call, call) == 0)
		{
			row->calls++;
			return;
		}
	}
	row = palloc(sizeof(Row));
	row->call = call;
	row->is_first = is_first;
	row->evaluation = evaluation;
	row->calls = 1;
	row->reason = reason;
	row->hint = hint;
	explanation->rows = lappend(explanation->rows, row);
}

/* Returns true if this is a JSON type, or a domain over one. */
static bool
is_json(Oid type)
{
	Oid			base = getBaseType(type);

	return base == JSONBOID || base == JSONOID;
}

/* What a function that knows nothing of expanded JSON costs; NULL where no JSON is concerned. */
static const char *
json_reason(const List *arguments, Oid result)
{
	ListCell   *cell;

	foreach(cell, arguments)
		if (lfirst(cell) != NULL && is_json(exprType(lfirst(cell))))
			return "its JSON argument is made flat for it";
	return is_json(result) ? "its JSON result is flat" : NULL;
}

/* Why an SQL function is called; NULL where we would inline it. */
static const MakoInlineNote *
obstacle(const Explanation *explanation, Oid function)
{
	ListCell   *cell;

	foreach(cell, explanation->notes)
	{
		const MakoInlineNote *note = lfirst(cell);

		if (note->function == function && note->obstacle.reason != NULL)
			return note;
	}
	return NULL;
}

/*
 * Adds the call of a function that was not inlined, in whatever form it stands in the expression.
 */
static void
add_call(Explanation *explanation, const char *call, Oid function,
		 const List *arguments, Oid result)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	bool		is_first = function == explanation->function;
	const MakoInlineNote *note;
	Oid			language;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", function);	/* cannot happen */
	language = ((Form_pg_proc) GETSTRUCT(tuple))->prolang;
	ReleaseSysCache(tuple);
	explanation->called = list_append_unique_oid(explanation->called, function);

	if (mako_native_evaluation && mako_json_function_is_native(function))
		add_row(explanation, call, is_first, EVALUATION_NATIVE, NULL, NULL);
	else if (language == INTERNALlanguageId)
		add_row(explanation, call, is_first, EVALUATION_SERVER,
				json_reason(arguments, result), NULL);
	else if (language == ClanguageId)
		add_row(explanation, call, is_first, EVALUATION_CALLED, "language c", NULL);
	else if (language != SQLlanguageId)
		add_row(explanation, call, is_first, EVALUATION_CALLED,
				psprintf("language %s", get_language_name(language, false)),
				"Write it in SQL, as one SELECT of one expression.");
	else if ((note = obstacle(explanation, function)) != NULL)
		add_row(explanation, call, is_first, EVALUATION_CALLED, note->obstacle.reason,
				note->obstacle.hint);
	else
		add_row(explanation, call, is_first, EVALUATION_CALLED,
				"mako_migration.native_evaluation is off", "Set it to on.");
}

/* An operator with its types, as it is written. */
static char *
operator_text(Oid oid)
{
	HeapTuple	tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(oid));
	Form_pg_operator form;
	StringInfoData text;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for operator %u", oid);	/* cannot happen */
	form = (Form_pg_operator) GETSTRUCT(tuple);
	initStringInfo(&text);
	if (OidIsValid(form->oprleft))
		appendStringInfo(&text, "%s ", format_type_be(form->oprleft));
	if (!OperatorIsVisible(oid))
		appendStringInfo(&text, "%s.", quote_identifier(get_namespace_name(form->oprnamespace)));
	appendStringInfoString(&text, NameStr(form->oprname));
	if (OidIsValid(form->oprright))
		appendStringInfo(&text, " %s", format_type_be(form->oprright));
	ReleaseSysCache(tuple);
	return text.data;
}

/* Adds every call in an expression. */
static bool
add_calls(Node *node, void *context)
{
	Explanation *explanation = context;

	if (node == NULL)
		return false;
	switch (nodeTag(node))
	{
		case T_FuncExpr:
			{
				FuncExpr   *call = (FuncExpr *) node;

				add_call(explanation, format_procedure(call->funcid), call->funcid, call->args,
						 call->funcresulttype);
				break;
			}
		case T_OpExpr:
		case T_DistinctExpr:
		case T_NullIfExpr:
			{
				OpExpr	   *call = (OpExpr *) node;

				add_call(explanation, operator_text(call->opno), call->opfuncid, call->args,
						 call->opresulttype);
				break;
			}
		case T_ScalarArrayOpExpr:
			{
				ScalarArrayOpExpr *call = (ScalarArrayOpExpr *) node;

				add_call(explanation, operator_text(call->opno), call->opfuncid,
						 call->args, BOOLOID);
				break;
			}
		case T_CoerceViaIO:
			{
				CoerceViaIO *cast = (CoerceViaIO *) node;
				Oid			type = exprType((Node *) cast->arg);
				Oid			output;
				bool		is_varlena;

				getTypeOutputInfo(type, &output, &is_varlena);
				add_call(explanation, psprintf("CAST(%s AS %s)", format_type_be(type),
											   format_type_be(cast->resulttype)), output,
						 list_make1(cast->arg), cast->resulttype);
				break;
			}
		case T_SubscriptingRef:
			{
				SubscriptingRef *subscript = (SubscriptingRef *) node;
				Oid			type = exprType((Node *) subscript->refexpr);
				Oid			handler = MakoSubscriptHandler(type);

				if (OidIsValid(handler))
					add_call(explanation, psprintf("%s[]", format_type_be(type)), handler,
							 list_make1(subscript->refexpr), exprType(node));
				break;
			}
		default:
			break;
	}
	return expression_tree_walker(node, add_calls, context);
}

/* Returns true if a call is part of the expression in which these functions are. */
static bool
is_inlined(const Explanation *explanation, const MakoInlineNote *note, const List *inlined)
{
	if (explanation->is_ours)
		return note->obstacle.reason == NULL && !note->is_void;
	return list_member_oid(inlined, note->caller) &&
		!list_member_oid(explanation->called, note->function);
}

/* Adds what is part of the expression. */
static void
add_inlined(Explanation *explanation)
{
	List	   *inlined = list_make1_oid(InvalidOid);	/* the expression itself */
	int			found = 0;
	ListCell   *cell;

	/*
	 * The server has inlined what is not called and stands in the body of what it has inlined,
	 * too.
	 */
	while (found < list_length(inlined))
	{
		found = list_length(inlined);
		foreach(cell, explanation->notes)
			if (is_inlined(explanation, lfirst(cell), inlined))
				inlined = list_append_unique_oid(inlined,
												 ((MakoInlineNote *) lfirst(cell))->function);
	}
	foreach(cell, explanation->notes)
	{
		const MakoInlineNote *note = lfirst(cell);

		if (is_inlined(explanation, note, inlined))
			add_row(explanation, format_procedure(note->function),
					note->function == explanation->function, explanation->is_ours && note->bound ?
					EVALUATION_BOUND : EVALUATION_INLINED, NULL, NULL);
	}
}

/* Inlined and bound functions stand together. */
static int
rank(const Row *row)
{
	return row->is_first ? -1 : row->evaluation == EVALUATION_BOUND ? EVALUATION_INLINED :
		(int) row->evaluation;
}

/* The order of the rows: the function itself, then by evaluation, then by name. */
static int
compare_rows(const ListCell *a, const ListCell *b)
{
	const Row  *row_a = lfirst(a);
	const Row  *row_b = lfirst(b);
	int			by_name = strcmp(row_a->call, row_b->call);

	if (rank(row_a) != rank(row_b))
		return rank(row_a) - rank(row_b);
	return by_name != 0 ? by_name : (int) row_a->evaluation - (int) row_b->evaluation;
}

/* An argument of a call that is only planned: no parameter of a program is meant. */
static Node *
placeholder(int number, Oid type)
{
	Param	   *param = makeNode(Param);

	param->paramkind = PARAM_EXEC;
	param->paramid = number;
	param->paramtype = type;
	param->paramtypmod = -1;
	param->paramcollid = get_typcollation(type);
	param->location = -1;
	return (Node *) param;
}

/* A type that a polymorphic argument may have; others are what they are. */
static Oid
actual_type(Oid type)
{
	switch (type)
	{
		case ANYELEMENTOID:
		case ANYNONARRAYOID:
		case ANYCOMPATIBLEOID:
		case ANYCOMPATIBLENONARRAYOID:
			return JSONBOID;
		case ANYARRAYOID:
		case ANYCOMPATIBLEARRAYOID:
			return JSONBARRAYOID;
		default:
			return type;
	}
}

/* A call of a function with arguments of its types; jsonb where any will do. */
static Expr *
call_of(Oid function)
{
	Oid		   *types;
	int			nargs;
	Oid			result = get_func_signature(function, &types, &nargs);
	Oid		   *actual_types = palloc(sizeof(Oid) * (nargs + 1));
	List	   *arguments = NIL;
	FuncExpr   *call;

	for (int i = 0; i < nargs; i++)
		actual_types[i] = actual_type(types[i]);
	result = enforce_generic_type_consistency(actual_types, types, nargs, result, false);
	for (int i = 0; i < nargs; i++)
		arguments = lappend(arguments, placeholder(i, actual_types[i]));
	call = makeFuncExpr(function, result, arguments, get_typcollation(result),
						DEFAULT_COLLATION_OID, COERCE_EXPLICIT_CALL);
	call->funcretset = get_func_retset(function);
	return (Expr *) call;
}

/*
 * How a function will run: its rows, in order. Names are shown as they are visible on the current
 * path.
 */
static List *
explain(Oid function)
{
	Explanation explanation = {function};
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Form_pg_proc form;
	Oid			owner;
	bool		is_volatile;
	Expr	   *call;
	MakoProgram *program;
	ListCell   *cell;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("function with OID %u does not exist", function)));
	form = (Form_pg_proc) GETSTRUCT(tuple);
	if (form->prokind != PROKIND_FUNCTION)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("%s is not an ordinary function", format_procedure_qualified(function)),
				 errdetail("Procedures, aggregates and window functions cannot be used as apply, "
						   "upcast, migrate or in_flight.")));
	owner = form->proowner;
	is_volatile = form->provolatile == PROVOLATILE_VOLATILE;
	ReleaseSysCache(tuple);

	call = call_of(function);
	program = mako_program_plan(call, owner, &explanation.notes);
	explanation.is_ours = program->is_inlined;

	/*
	 * The server would inline a volatile function here, but not where another function calls it,
	 * and it cannot be registered.
	 */
	(void) add_calls((Node *) (is_volatile ? call : program->expression), &explanation);
	foreach(cell, program->bindings)
		(void) add_calls((Node *) ((MakoBinding *) lfirst(cell))->expression, &explanation);
	add_inlined(&explanation);
	list_sort(explanation.rows, compare_rows);
	return explanation.rows;
}

/* The calls that remain of a function (MakoCalled), in order. */
List *
mako_explain_called(Oid function)
{
	List	   *called = NIL;
	ListCell   *cell;

	foreach(cell, explain(function))
	{
		const Row  *row = lfirst(cell);
		MakoCalled *call;

		if (row->evaluation != EVALUATION_CALLED)
			continue;
		call = palloc(sizeof(MakoCalled));
		call->call = row->call;
		call->reason = row->reason;
		call->hint = row->hint;
		called = lappend(called, call);
	}
	return called;
}

/* How a function will run, in one text: native, or what is not, and why. */
char *
mako_explain_evaluation(Oid function)
{
	StringInfoData text;
	ListCell   *cell;

	initStringInfo(&text);
	foreach(cell, explain(function))
	{
		const Row  *row = lfirst(cell);

		if (row->reason != NULL)
			appendStringInfo(&text, "%s%s is %s: %s", text.len > 0 ? "; " : "", row->call,
							 row->evaluation == EVALUATION_SERVER ? "the server's" :
							 evaluation_name[row->evaluation], row->reason);
	}
	return text.len > 0 ? text.data : pstrdup(evaluation_name[EVALUATION_NATIVE]);
}

MAKO_FUNCTION(mako_explain_function);

/* How a function will run, call by call. */
Datum
mako_explain_function(PG_FUNCTION_ARGS)
{
	MakoRowSet *rows = mako_rowset_begin(fcinfo);
	MakoConnection connection = mako_sql_connect();
	Oid			function = PG_GETARG_OID(0);
	ListCell   *cell;

	/* Planning evaluates what is constant in it, and a function without arguments itself. */
	if (MakoFunctionAclCheck(function, GetUserId()) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FUNCTION, get_func_name(function));
	foreach(cell, explain(function))
	{
		const Row  *row = lfirst(cell);
		NullableDatum values[] = {
			mako_text(row->call), mako_text(evaluation_name[row->evaluation]),
			mako_integer(row->calls), mako_text(row->reason), mako_text(row->hint)
		};

		mako_rowset_add(rows, values);
	}
	mako_sql_disconnect(connection);
	PG_RETURN_NULL();
}
