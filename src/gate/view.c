/*
 * view.c
 *	  What a view names (gate.h): relations, functions and types, which are evaluated as the view's
 *	  owner when the extension reads it.
 *
 * The server lets functions in a view run as the role that asks. Behind the gate, that is the owner
 * of the view, whoever asks: so they must be code of roles that can do all that the owner can. So
 * must relations and their children be, whose policies, rules and indexes would run as well, and
 * types, with their checks and casts.
 */
#include "gate/gate.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "nodes/nodeFuncs.h"
#include "nodes/primnodes.h"
#include "optimizer/optimizer.h"
#include "rewrite/rewriteHandler.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/regproc.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

/* A look at what a view names. */
typedef struct Look
{
	Oid			view;
	Oid			owner;			/* as whom it is evaluated */
	List	   *relations;		/* that were met, of the view itself and of those in it */
	List	   *types;			/* that were met */
	char	   *foreign;		/* what belongs to another role; NULL: nothing yet */
	const char *obstacle;		/* why a row of the view does not follow from one of a table */
} Look;

static void look_at_relation(Look *look, Oid relation);
static void look_at_type(Look *look, Oid type);

/*
 * A check_functions_in_node() callback: notes a function of a role that cannot act for the owner.
 */
static bool
look_at_function(Oid function, void *argument)
{
	Look	   *look = argument;
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Oid			role = look->owner;

	if (HeapTupleIsValid(tuple))
	{
		role = ((Form_pg_proc) GETSTRUCT(tuple))->proowner;
		ReleaseSysCache(tuple);
	}
	if (!mako_door_acts_for(role, look->owner))
		look->foreign = psprintf("calls function %s of another role",
								 format_procedure_qualified(function));
	return false;
}

/* Looks at the types of a row type's columns. */
static void
look_at_columns(Look *look, Oid relation)
{
	Relation	row = relation_open(relation, AccessShareLock);
	TupleDesc	columns = RelationGetDescr(row);

	for (int i = 0; i < columns->natts; i++)
		if (!TupleDescAttr(columns, i)->attisdropped)
			look_at_type(look, TupleDescAttr(columns, i)->atttypid);
	relation_close(row, NoLock);
}

/* Looks at a type, and at those that it is made of. */
static void
look_at_type(Look *look, Oid type)
{
	HeapTuple	tuple;
	Form_pg_type form;
	Oid			row;

	if (!OidIsValid(type) || list_member_oid(look->types, type))
		return;
	look->types = lappend_oid(look->types, type);
	tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
	if (!HeapTupleIsValid(tuple))
		return;
	form = (Form_pg_type) GETSTRUCT(tuple);
	if (!mako_door_acts_for(form->typowner, look->owner))
		look->foreign = psprintf("has type %s of another role", format_type_be_qualified(type));
	look_at_type(look, form->typbasetype);
	look_at_type(look, form->typelem);
	if (form->typtype == TYPTYPE_RANGE)
		look_at_type(look, get_range_subtype(type));
	look_at_type(look, MakoRangeOfMultirange(type));
	row = form->typrelid;
	ReleaseSysCache(tuple);
	if (OidIsValid(row))
		look_at_columns(look, row);
}

/* The type of a node's value; InvalidOid for one that has none. */
static Oid
type_of(const Node *node)
{
	switch (nodeTag(node))
	{
		case T_Var:
		case T_Const:
		case T_Param:
		case T_Aggref:
		case T_WindowFunc:
		case T_SubscriptingRef:
		case T_FuncExpr:
		case T_NamedArgExpr:
		case T_OpExpr:
		case T_DistinctExpr:
		case T_NullIfExpr:
		case T_SubLink:
		case T_FieldSelect:
		case T_FieldStore:
		case T_RelabelType:
		case T_CoerceViaIO:
		case T_ArrayCoerceExpr:
		case T_ConvertRowtypeExpr:
		case T_CollateExpr:
		case T_CaseExpr:
		case T_CaseTestExpr:
		case T_ArrayExpr:
		case T_RowExpr:
		case T_CoalesceExpr:
		case T_MinMaxExpr:
		case T_XmlExpr:
		case T_CoerceToDomain:
			return exprType(node);
		default:
			return MakoSqlJsonType(node);
	}
}

/* Looks at the types in a list. */
static void
look_at_types(Look *look, const List *types)
{
	ListCell   *cell;

	foreach(cell, types)
		look_at_type(look, lfirst_oid(cell));
}

/* Looks at an entry of a range table; what it consists of is looked at after that. */
static void
look_at_entry(Look *look, RangeTblEntry *entry)
{
	ListCell   *cell;

	if (entry->rtekind == RTE_RELATION)
		look_at_relation(look, entry->relid);
	if (entry->tablesample != NULL)
		look->obstacle = "takes a sample";
	foreach(cell, entry->functions)
		look_at_types(look, lfirst_node(RangeTblFunction, cell)->funccoltypes);
	if (entry->tablefunc != NULL)
		look_at_types(look, entry->tablefunc->coltypes);
}

/* Looks at a node of a query. */
static bool
look_at_node(Node *node, void *argument)
{
	Look	   *look = argument;

	if (node == NULL)
		return false;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, look_at_node, argument,
								 QTW_EXAMINE_RTES_BEFORE);
	if (IsA(node, RangeTblEntry))
	{
		look_at_entry(look, (RangeTblEntry *) node);
		return false;
	}
	if (IsA(node, CommonTableExpr) && ((CommonTableExpr *) node)->cterefcount > 1)
		look->obstacle = "reads a part of it several times";
	if (IsA(node, Var) && ((Var *) node)->varattno < 0)
		look->obstacle = "reads a system column";
	look_at_type(look, type_of(node));
	(void) check_functions_in_node(node, look_at_function, argument);
	return expression_tree_walker(node, look_at_node, argument);
}

/* Looks at a relation that a query names, at its children, and at what it names itself. */
static void
look_at_relation(Look *look, Oid oid)
{
	ListCell   *cell;

	/* Until 16, the rule of a view names the view itself. */
	if (oid == look->view || list_member_oid(look->relations, oid))
		return;
	look->relations = lappend_oid(look->relations, oid);
	foreach(cell, find_all_inheritors(oid, AccessShareLock, NULL))
	{
		Relation	relation = relation_open(lfirst_oid(cell), NoLock);

		if (!mako_door_acts_for(relation->rd_rel->relowner, look->owner))
			look->foreign = psprintf("reads \"%s.%s\" of another role",
									 get_namespace_name(RelationGetNamespace(relation)),
									 RelationGetRelationName(relation));
		else if (relation->rd_rel->relkind == RELKIND_VIEW)
		{
			Oid			outer = look->view;

			look->view = oid;
			(void) look_at_node((Node *) get_view_query(relation), look);
			look->view = outer;
		}
		relation_close(relation, NoLock);
	}
}

/* Looks at all that a view names. */
static Look
look_at_view(Relation view, Oid owner)
{
	Look		look = {.view = RelationGetRelid(view),.owner = owner};

	(void) look_at_node((Node *) get_view_query(view), &look);
	return look;
}

/* Says what of a view is the work of a role that cannot act for an owner; NULL for nothing. */
const char *
mako_view_foreign_part(Relation view, Oid owner)
{
	return look_at_view(view, owner).foreign;
}

/* The tables and views that a view names, and those that they name. */
List *
mako_view_relations(Relation view)
{
	return look_at_view(view, view->rd_rel->relowner).relations;
}

/* Says what of a query, or of one in its FROM, needs more than one row at a time; NULL: nothing. */
static const char *
level_obstacle(const Query *query)
{
	ListCell   *cell;
	const char *obstacle = NULL;

	if (query->hasAggs || query->groupClause != NIL || query->groupingSets != NIL)
		return "has aggregates";
	if (query->hasWindowFuncs)
		return "has window functions";
	if (query->hasTargetSRFs)
		return "makes several rows of one";
	if (query->distinctClause != NIL || query->setOperations != NULL)
		return "removes or unites rows";
	if (query->limitCount != NULL || query->limitOffset != NULL || query->sortClause != NIL)
		return "orders or limits rows";
	if (query->hasRecursive || query->rowMarks != NIL)
		return "is recursive, or locks rows";
	foreach(cell, query->rtable)
	{
		const RangeTblEntry *entry = lfirst_node(RangeTblEntry, cell);

		if (entry->rtekind == RTE_SUBQUERY && obstacle == NULL)
			obstacle = level_obstacle(entry->subquery);
	}
	foreach(cell, query->cteList)
	{
		Node	   *part = lfirst_node(CommonTableExpr, cell)->ctequery;

		if (obstacle == NULL)
			obstacle = level_obstacle(castNode(Query, part));
	}
	return obstacle;
}

/*
 * Says why the rows of a view do not follow from one row each of what it reads, so that new ones
 * cannot be told by themselves; NULL if they do.
 */
const char *
mako_view_row_obstacle(Relation view)
{
	Query	   *query = get_view_query(view);
	const char *obstacle = level_obstacle(query);

	if (obstacle == NULL && contain_volatile_functions((Node *) query))
		obstacle = "calls a volatile function";
	return obstacle != NULL ? obstacle : look_at_view(view, view->rd_rel->relowner).obstacle;
}
