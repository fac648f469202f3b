/*
 * function_body.c
 *	  The parse trees of a function's body, as a description needs them: converted to what the
 *	  function returns.
 */
#include "define/describe.h"

#include "access/htup_details.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "funcapi.h"
#include "utils/syscache.h"

/* Returns true if a function's body can be parsed, as a call sees it or, without one, by itself. */
static bool
is_visible(HeapTuple tuple, const FuncExpr *call)
{
	if (((Form_pg_proc) GETSTRUCT(tuple))->prolang != SQLlanguageId)
		return false;
#ifdef MAKO_SQL_BODY
	if (!heap_attisnull(tuple, Anum_pg_proc_prosqlbody, NULL))
		return true;
#endif
	return call != NULL || !mako_sql_body_is_polymorphic(tuple);
}

/*
 * Converts what a body gives into what its function returns, as the server does when it is called.
 */
static void
coerce_result(HeapTuple tuple, List *body, FuncExpr *call, List *columns)
{
	Form_pg_proc form = (Form_pg_proc) GETSTRUCT(tuple);
	TupleDesc	rowtype = NULL;
	Oid			type;

	/* Procedures are not called. */
	if (form->prokind != PROKIND_FUNCTION)
		return;
	if (call == NULL)
		(void) get_func_result_type(form->oid, &type, &rowtype);
	else
		(void) get_expr_result_type((Node *) call, &type, &rowtype);
	if (type == RECORDOID && columns != NIL)
		rowtype = ExecTypeFromExprList(columns);
	mako_gate_coerce_result(tuple, body, type, rowtype);
}

/*
 * The parse trees of the body of a function that is visible, parsed as its owner: it may have
 * changed since its caller relied on it.
 */
static List *
body_of(HeapTuple tuple, FuncExpr *call, List *columns)
{
	MakoGate	gate = mako_gate_enter(((Form_pg_proc) GETSTRUCT(tuple))->proowner);
	List	   *body = mako_gate_parse_body(tuple, call, false);

	coerce_result(tuple, body, call, columns);
	mako_gate_leave(&gate);
	return body;
}

/*
 * The parse trees of a function's body, as a call sees it or, without one, by itself; false where
 * it cannot be seen. What it gives is converted to what the function returns, for a record to what
 * the call takes it for: columns like these expressions, NIL for none. Raises where a name in it
 * is not found.
 */
bool
mako_function_body(Oid function, FuncExpr *call, List *columns, List **trees)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	bool		visible = HeapTupleIsValid(tuple) && is_visible(tuple, call);

	if (visible)
		*trees = body_of(tuple, call, columns);
	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	return visible;
}
