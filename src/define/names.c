/*
 * names.c
 *	  What a parse tree names: functions, operators, types, collations, casts, relations and the
 *	  objects in reg* constants.
 *
 * The server finds the same when it records what a view depends on, but only for what is stored.
 * Besides, it leaves casts out, because the parser has resolved them; here they say why a value is
 * converted the way it is.
 */
#include "define/describe.h"

#include "access/htup_details.h"
#include "catalog/pg_cast.h"
#include "catalog/pg_class.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_opfamily.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_ts_config.h"
#include "catalog/pg_ts_dict.h"
#include "catalog/pg_type.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_agg.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

/* A search under way. */
typedef struct Search
{
	MakoNameCallback callback;
	void	   *context;
} Search;

/* Reports an object. */
static void
report_object(const Search *search, Oid catalog, Oid object)
{
	if (OidIsValid(object))
		search->callback(search->context, catalog, object, NULL);
}

/* Reports the objects of a list of OIDs. */
static void
report_all(const Search *search, Oid catalog, const List *objects)
{
	ListCell   *cell;

	foreach(cell, objects)
		report_object(search, catalog, lfirst_oid(cell));
}

/* Reports a function with the node that calls it. */
static void
report_call(const Search *search, Oid function, void *call)
{
	if (OidIsValid(function))
		search->callback(search->context, ProcedureRelationId, function, call);
}

/* Reports an operator, and its function with the node that calls it. */
static void
report_operator(const Search *search, Oid operator, void *call)
{
	report_object(search, OperatorRelationId, operator);
	report_call(search, get_opcode(operator), call);
}

/* Reports the type and the collation of a node. */
static void
report_type(const Search *search, Oid type, Oid collation)
{
	report_object(search, TypeRelationId, type);
	report_object(search, CollationRelationId, collation);
}

/* Reports a conversion: the types, and the cast where one is declared. */
static void
report_conversion(const Search *search, Node *from, Oid to)
{
	Oid			type = exprType(from);
	HeapTuple	cast = SearchSysCache2(CASTSOURCETARGET, ObjectIdGetDatum(type),
									   ObjectIdGetDatum(to));

	report_type(search, type, InvalidOid);
	report_type(search, to, InvalidOid);
	if (HeapTupleIsValid(cast))
	{
		report_object(search, CastRelationId, ((Form_pg_cast) GETSTRUCT(cast))->oid);
		ReleaseSysCache(cast);
	}
}

/* Reports a constant: its type, and the object that a reg* constant stands for. */
static void
report_constant(const Search *search, const Const *constant)
{
	static const struct
	{
		Oid			type;
		Oid			catalog;
	}			kinds[] = {
		{REGPROCOID, ProcedureRelationId}, {REGPROCEDUREOID, ProcedureRelationId},
		{REGOPEROID, OperatorRelationId}, {REGOPERATOROID, OperatorRelationId},
		{REGCLASSOID, RelationRelationId}, {REGTYPEOID, TypeRelationId},
		{REGCOLLATIONOID, CollationRelationId}, {REGCONFIGOID, TSConfigRelationId},
		{REGDICTIONARYOID, TSDictionaryRelationId}
	};

	report_type(search, constant->consttype, constant->constcollid);
	for (size_t i = 0; i < lengthof(kinds) && !constant->constisnull; i++)
		if (kinds[i].type == constant->consttype)
			report_object(search, kinds[i].catalog, DatumGetObjectId(constant->constvalue));
}

/* Reports what an item of FROM names by itself; what it contains is walked through. */
static void
report_entry(const Search *search, const RangeTblEntry *entry)
{
	if (entry->rtekind == RTE_RELATION)
		report_object(search, RelationRelationId, entry->relid);
	report_all(search, TypeRelationId, entry->coltypes);
	report_all(search, CollationRelationId, entry->colcollations);
}

/*
 * Reports what an expression with operators, or a part of ORDER BY and the like, names; false for
 * other nodes.
 */
static bool
report_operators(const Search *search, Node *node)
{
	ListCell   *cell;

	switch (nodeTag(node))
	{
		case T_OpExpr:
		case T_DistinctExpr:	/* the same struct, like the next one */
		case T_NullIfExpr:
			report_operator(search, ((OpExpr *) node)->opno, node);
			report_type(search, ((OpExpr *) node)->opresulttype, ((OpExpr *) node)->inputcollid);
			return true;
		case T_ScalarArrayOpExpr:
			report_operator(search, ((ScalarArrayOpExpr *) node)->opno, node);
			report_type(search, InvalidOid, ((ScalarArrayOpExpr *) node)->inputcollid);
			return true;
		case T_RowCompareExpr:
			foreach(cell, ((RowCompareExpr *) node)->opnos)
				report_operator(search, lfirst_oid(cell), NULL);
			report_all(search, OperatorFamilyRelationId, ((RowCompareExpr *) node)->opfamilies);
			report_all(search, CollationRelationId, ((RowCompareExpr *) node)->inputcollids);
			return true;
		case T_SortGroupClause:
			report_object(search, OperatorRelationId, ((SortGroupClause *) node)->eqop);
			report_object(search, OperatorRelationId, ((SortGroupClause *) node)->sortop);
			return true;
		default:
			return false;
	}
}

/* Reports what a call names; false for other nodes. */
static bool
report_function(const Search *search, Node *node)
{
	switch (nodeTag(node))
	{
		case T_FuncExpr:
			report_call(search, ((FuncExpr *) node)->funcid, node);
			report_type(search, ((FuncExpr *) node)->funcresulttype,
						((FuncExpr *) node)->inputcollid);
			return true;
		case T_Aggref:
			report_call(search, ((Aggref *) node)->aggfnoid, node);
			report_type(search, ((Aggref *) node)->aggtype, ((Aggref *) node)->inputcollid);
			return true;
		case T_WindowFunc:
			report_call(search, ((WindowFunc *) node)->winfnoid, node);
			report_type(search, ((WindowFunc *) node)->wintype, ((WindowFunc *) node)->inputcollid);
			return true;
		case T_TableSampleClause:
			report_call(search, ((TableSampleClause *) node)->tsmhandler, NULL);
			return true;
		case T_WindowClause:
			report_call(search, ((WindowClause *) node)->startInRangeFunc, NULL);
			report_call(search, ((WindowClause *) node)->endInRangeFunc, NULL);
			report_type(search, InvalidOid, ((WindowClause *) node)->inRangeColl);
			return true;
		default:
			return false;
	}
}

/* Reports what a conversion names; false for other nodes. */
static bool
report_coercion(const Search *search, Node *node)
{
	switch (nodeTag(node))
	{
		case T_RelabelType:
			report_conversion(search, (Node *) ((RelabelType *) node)->arg,
							  ((RelabelType *) node)->resulttype);
			report_type(search, InvalidOid, ((RelabelType *) node)->resultcollid);
			return true;
		case T_CoerceViaIO:
			report_conversion(search, (Node *) ((CoerceViaIO *) node)->arg,
							  ((CoerceViaIO *) node)->resulttype);
			report_type(search, InvalidOid, ((CoerceViaIO *) node)->resultcollid);
			return true;
		case T_ArrayCoerceExpr:
			report_conversion(search, (Node *) ((ArrayCoerceExpr *) node)->arg,
							  ((ArrayCoerceExpr *) node)->resulttype);
			report_type(search, InvalidOid, ((ArrayCoerceExpr *) node)->resultcollid);
			return true;
		case T_ConvertRowtypeExpr:
			report_conversion(search, (Node *) ((ConvertRowtypeExpr *) node)->arg,
							  ((ConvertRowtypeExpr *) node)->resulttype);
			return true;
		case T_CoerceToDomain:
			report_type(search, ((CoerceToDomain *) node)->resulttype,
						((CoerceToDomain *) node)->resultcollid);
			return true;
		default:
			return false;
	}
}

/* Reports the type of a value that is not called or converted. */
static void
report_value(const Search *search, Node *node)
{
	switch (nodeTag(node))
	{
		case T_Const:
			report_constant(search, (Const *) node);
			break;
		case T_Var:
			report_type(search, ((Var *) node)->vartype, ((Var *) node)->varcollid);
			break;
		case T_Param:
			report_type(search, ((Param *) node)->paramtype, ((Param *) node)->paramcollid);
			break;
		case T_CollateExpr:
			report_type(search, InvalidOid, ((CollateExpr *) node)->collOid);
			break;
		case T_FieldSelect:
			report_type(search, exprType((Node *) ((FieldSelect *) node)->arg), InvalidOid);
			report_type(search, ((FieldSelect *) node)->resulttype,
						((FieldSelect *) node)->resultcollid);
			break;
		case T_FieldStore:
			report_type(search, ((FieldStore *) node)->resulttype, InvalidOid);
			break;
		case T_SubscriptingRef:
			report_type(search, ((SubscriptingRef *) node)->refcontainertype,
						((SubscriptingRef *) node)->refcollid);
			report_type(search, exprType(node), InvalidOid);
			break;
		case T_RowExpr:
			report_type(search, ((RowExpr *) node)->row_typeid, InvalidOid);
			break;
		case T_MinMaxExpr:
			report_type(search, ((MinMaxExpr *) node)->minmaxtype,
						((MinMaxExpr *) node)->inputcollid);
			break;
		case T_NextValueExpr:
			report_object(search, RelationRelationId, ((NextValueExpr *) node)->seqid);
			break;
		default:
			report_type(search, MakoSqlJsonType(node), InvalidOid);
			break;
	}
}

/* Reports the columns of what stands in FROM, and those of UNION and the like. */
static void
report_columns(const Search *search, Node *node)
{
	if (IsA(node, RangeTblFunction))
	{
		const FuncExpr *call = (const FuncExpr *) ((RangeTblFunction *) node)->funcexpr;

		/* A record's columns are known here only. */
		if (((RangeTblFunction *) node)->funccoltypes != NIL && IsA(call, FuncExpr))
			report_call(search, call->funcid, node);
		report_all(search, TypeRelationId, ((RangeTblFunction *) node)->funccoltypes);
		report_all(search, CollationRelationId, ((RangeTblFunction *) node)->funccolcollations);
	}
	else if (IsA(node, TableFunc))
	{
		report_all(search, TypeRelationId, ((TableFunc *) node)->coltypes);
		report_all(search, CollationRelationId, ((TableFunc *) node)->colcollations);
	}
	else if (IsA(node, SetOperationStmt))
	{
		report_all(search, TypeRelationId, ((SetOperationStmt *) node)->colTypes);
		report_all(search, CollationRelationId, ((SetOperationStmt *) node)->colCollations);
	}
}

/* Walks through a tree. */
static bool
find_names(Node *node, void *context)
{
	const Search *search = context;

	if (node == NULL)
		return false;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, find_names, context,
								 QTW_EXAMINE_RTES_BEFORE | QTW_EXAMINE_SORTGROUP);
	if (IsA(node, RangeTblEntry))
	{
		report_entry(search, (RangeTblEntry *) node);
		return false;
	}
	report_columns(search, node);
	if (!report_function(search, node) && !report_operators(search, node) &&
		!report_coercion(search, node))
		report_value(search, node);
	/* The server's walker leaves these out. */
	if (IsA(node, SetOperationStmt))
		(void) find_names((Node *) ((SetOperationStmt *) node)->groupClauses, context);
	return expression_tree_walker(node, find_names, context);
}

/* Finds what a tree names. */
void
mako_names_find(Node *tree, MakoNameCallback callback, void *context)
{
	Search		search = {callback, context};

	(void) find_names(tree, &search);
}

/* The types of expressions, in their order. */
static List *
types_of(const List *expressions)
{
	List	   *types = NIL;
	ListCell   *cell;

	foreach(cell, expressions)
		types = lappend_oid(types, exprType(lfirst(cell)));
	return types;
}

/* Returns true if all arguments of a function are there, in its order. */
static bool
are_in_order(Oid function, const List *arguments)
{
	ListCell   *cell;

	foreach(cell, arguments)
		if (IsA(lfirst(cell), NamedArgExpr))
			return false;
	return list_length(arguments) == get_func_nargs(function);
}

/*
 * The types of the arguments with which a function runs that is called with these, some of which
 * may be named and others left out.
 */
static List *
types_with_defaults(Oid function, List *arguments, Oid result)
{
	HeapTuple	tuple;

	if (are_in_order(function, arguments))
		return types_of(arguments);
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	if (!HeapTupleIsValid(tuple))
		return NIL;
	arguments = mako_gate_expand_arguments(tuple, arguments, result);
	ReleaseSysCache(tuple);
	return types_of(arguments);
}

/* The types of the arguments of a call; NIL where they are not known. */
List *
mako_names_arguments(Node *call)
{
	if (call == NULL)
		return NIL;
	switch (nodeTag(call))
	{
		case T_FuncExpr:
			return types_with_defaults(((FuncExpr *) call)->funcid, ((FuncExpr *) call)->args,
									   ((FuncExpr *) call)->funcresulttype);
		case T_OpExpr:
		case T_DistinctExpr:
		case T_NullIfExpr:
			return types_of(((OpExpr *) call)->args);
		case T_Aggref:
			return list_copy(((Aggref *) call)->aggargtypes);
		case T_WindowFunc:
			return types_with_defaults(((WindowFunc *) call)->winfnoid, ((WindowFunc *) call)->args,
									   ((WindowFunc *) call)->wintype);
		case T_RangeTblFunction:
			return mako_names_arguments(((RangeTblFunction *) call)->funcexpr);
		case T_ScalarArrayOpExpr:
			{
				const List *args = ((ScalarArrayOpExpr *) call)->args;
				Oid			array_type = getBaseType(exprType(lsecond(args)));

				return list_make2_oid(exprType(linitial(args)), get_element_type(array_type));
			}
		default:
			return NIL;
	}
}

/*
 * What a call in FROM takes a record for: a parameter for each column, of its type; NIL for other
 * calls.
 */
List *
mako_names_columns(Node *call)
{
	List	   *columns = NIL;
	const RangeTblFunction *entry = (const RangeTblFunction *) call;
	ListCell   *type;
	ListCell   *modifier;
	ListCell   *collation;

	if (call == NULL || !IsA(call, RangeTblFunction))
		return NIL;
	forthree(type, entry->funccoltypes, modifier, entry->funccoltypmods, collation,
			 entry->funccolcollations)
	{
		Param	   *column = makeNode(Param);

		column->paramkind = PARAM_EXTERN;
		column->paramid = list_length(columns) + 1;
		column->paramtype = lfirst_oid(type);
		column->paramtypmod = lfirst_int(modifier);
		column->paramcollid = lfirst_oid(collation);
		columns = lappend(columns, column);
	}
	return columns;
}
