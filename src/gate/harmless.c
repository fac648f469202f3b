/*
 * harmless.c
 *	  Expressions that are known to be harmless: evaluating one runs no code of others and changes
 *	  no setting.
 */
#include "gate/gate.h"
#include "json/json.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "nodes/nodeFuncs.h"
#include "utils/syscache.h"

/*
 * Functions of the server's own that are not immutable and yet neither run code of others nor
 * change a setting, given that no argument is of a foreign type. Results of those that are about
 * dates and times depend on fixed settings only.
 */
static const char *const harmless_functions[] = {
	"anytextcat", "array_out", "array_to_string", "concat", "concat_ws", "date", "date_in",
	"date_out", "date_part", "date_trunc", "extract", "format", "interval_in", "interval_out",
	"json_build_array", "json_build_object", "jsonb_build_array",
	"jsonb_build_object", "now", "quote_literal", "textanycat", "time_in", "time_out", "timestamp",
	"timestamp_in", "timestamp_out", "timestamptz", "timestamptz_in", "timestamptz_out",
	"timetz_in", "timetz_out", "timezone", "to_char",
	"to_date", "to_json", "to_jsonb", "to_number", "to_timestamp",
};

/* Returns true if a name is among those. */
static bool
is_listed(const char *name)
{
	for (size_t i = 0; i < lengthof(harmless_functions); i++)
		if (strcmp(name, harmless_functions[i]) == 0)
			return true;
	return false;
}

/*
 * A check_functions_in_node() callback: returns true for a function that is not known to be
 * harmless.
 */
static bool
is_suspicious_function(Oid function, void *argument)
{
	HeapTuple	tuple;
	Form_pg_proc form;
	bool		is_harmless;

	if (mako_json_function_is_native(function))
		return false;
	if (function >= FirstNormalObjectId)
		return true;
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	if (!HeapTupleIsValid(tuple))
		return true;
	form = (Form_pg_proc) GETSTRUCT(tuple);
	is_harmless = form->prolang == INTERNALlanguageId && !form->proretset &&
		(form->provolatile == PROVOLATILE_IMMUTABLE || is_listed(NameStr(form->proname)));
	ReleaseSysCache(tuple);
	return !is_harmless;
}

/* Returns true for a node that calls nothing but the functions that it names. */
static bool
is_known_node(const Node *node)
{
	switch (nodeTag(node))
	{
		case T_List:
		case T_CaseWhen:
			return true;
		case T_Const:
		case T_Param:
		case T_Var:
		case T_FuncExpr:
		case T_OpExpr:
		case T_DistinctExpr:
		case T_NullIfExpr:
		case T_ScalarArrayOpExpr:
		case T_BoolExpr:
		case T_CaseExpr:
		case T_CaseTestExpr:
		case T_CoalesceExpr:
		case T_MinMaxExpr:
		case T_NullTest:
		case T_BooleanTest:
		case T_RelabelType:
		case T_CollateExpr:
		case T_CoerceViaIO:
		case T_ArrayCoerceExpr:
		case T_ArrayExpr:
		case T_RowExpr:
		case T_FieldSelect:
		case T_SubscriptingRef:
			/* To a type belong the functions that are called for it: casts, comparisons, checks. */
			return exprType(node) < FirstNormalObjectId;
		default:
			return false;
	}
}

/* Finds what is not known to be harmless. */
static bool
find_suspicious(Node *node, void *argument)
{
	return node != NULL &&
		(!is_known_node(node) || check_functions_in_node(node, is_suspicious_function, NULL) ||
		 expression_tree_walker(node, find_suspicious, argument));
}

/*
 * Returns true if evaluating a planned expression can change no setting, run no code of others and
 * look up no name: then only the role need be the owner's, and nothing has to be put back but that.
 */
bool
mako_gate_is_harmless(Node *expression)
{
	return !find_suspicious(expression, NULL);
}
