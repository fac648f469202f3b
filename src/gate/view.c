/*
 * view.c
 *	  What a view names (gate.h): relations and functions, which are evaluated as the view's owner
 *	  when the extension reads it.
 *
 * The server lets functions in a view run as the role that asks. Behind the gate, that is the owner
 * of the view, whoever asks: so they must be code of roles that can do all that the owner can, and
 * so must relations, whose policies and rules would run as well.
 */
#include "gate/gate.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "catalog/pg_class.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "nodes/primnodes.h"
#include "optimizer/optimizer.h"
#include "rewrite/rewriteHandler.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/regproc.h"
#include "utils/syscache.h"

/* A look at what a view names. */
typedef struct Look
{
	Oid			view;
	Oid			owner;			/* as whom it is evaluated */
	List	   *relations;		/* that were met, of the view itself and of those in it */
	char	   *foreign;		/* what belongs to another role; NULL: nothing yet */
	bool		has_system_column;
} Look;

static void look_at_relation(Look *look, Oid relation);

/* Returns true if a function belongs to a role that cannot act for the owner, and says so. */
static bool
is_foreign_function(Oid function, void *argument)
{
	Look	   *look = argument;
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Oid			role = look->owner;

	if (HeapTupleIsValid(tuple))
	{
		role = ((Form_pg_proc) GETSTRUCT(tuple))->proowner;
		ReleaseSysCache(tuple);
	}
	if (mako_door_acts_for(role, look->owner))
		return false;
	look->foreign = psprintf("calls function %s of another role",
							 format_procedure_qualified(function));
	return true;
}

/* Returns true if the checks of a domain are those of another role. */
static bool
is_foreign_type(Oid type, const Look *look)
{
	HeapTuple	tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
	Oid			role = look->owner;

	if (HeapTupleIsValid(tuple))
	{
		role = ((Form_pg_type) GETSTRUCT(tuple))->typowner;
		ReleaseSysCache(tuple);
	}
	return !mako_door_acts_for(role, look->owner);
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
		if (((RangeTblEntry *) node)->rtekind == RTE_RELATION)
			look_at_relation(look, ((RangeTblEntry *) node)->relid);
		return false;
	}
	if (IsA(node, Var) && ((Var *) node)->varattno < 0)
		look->has_system_column = true;
	(void) check_functions_in_node(node, is_foreign_function, argument);
	if (IsA(node, CoerceToDomain) && is_foreign_type(((CoerceToDomain *) node)->resulttype, look))
		look->foreign = psprintf("checks domain %s of another role",
								 format_type_be(((CoerceToDomain *) node)->resulttype));
	return expression_tree_walker(node, look_at_node, argument);
}

/* Looks at a relation that a query names, and at what it names itself. */
static void
look_at_relation(Look *look, Oid oid)
{
	Relation	relation;

	/* Until 16, the rule of a view names the view itself. */
	if (oid == look->view || list_member_oid(look->relations, oid))
		return;
	look->relations = lappend_oid(look->relations, oid);
	relation = relation_open(oid, AccessShareLock);
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

/* The query of a view, reduced to these columns in their order. */
Query *
mako_view_query(Relation view, const MakoViewColumn *columns, int count)
{
	Query	   *query = copyObject(get_view_query(view));
	List	   *targets = NIL;

	for (int i = 0; i < count; i++)
	{
		TargetEntry *found = NULL;
		ListCell   *cell;

		foreach(cell, query->targetList)
		{
			TargetEntry *target = lfirst_node(TargetEntry, cell);

			if (!target->resjunk && strcmp(target->resname, columns[i].name) == 0)
				found = target;
		}
		if (found == NULL || exprType((Node *) found->expr) != columns[i].type)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("view \"mako.%s\" has no column \"%s\" of type %s",
							RelationGetRelationName(view), columns[i].name,
							format_type_be(columns[i].type)),
					 errhint("Repair the store with SELECT mako_create_store().")));
		found = flatCopyTargetEntry(found);
		found->resno = i + 1;
		targets = lappend(targets, found);
	}
	query->targetList = targets;
	return query;
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

	if (obstacle != NULL)
		return obstacle;
	if (contain_volatile_functions((Node *) query))
		return "calls a volatile function";
	return look_at_view(view, view->rd_rel->relowner).has_system_column ?
		"reads a system column" : NULL;
}
