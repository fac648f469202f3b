/*
 * check_body.c
 *	  What mako_check() finds in the bodies of registered functions and of their helpers.
 */
#include "inspect/inspect.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/dependency.h"
#include "catalog/pg_class.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

/* A registered function being looked through, with its helpers. */
typedef struct Inspection
{
	MakoCheck  *check;
	Oid			owner;			/* who runs all of it */
	List	   *functions;		/* looked through or about to be */
	Oid			function;		/* the current one */
	List	   *trees;			/* its body */
	bool		visible;
} Inspection;

/* Adds a finding about the current function. */
static void
add_about_body(Inspection *inspection, const char *code, const char *message, const char *hint)
{
	mako_check_add(inspection->check, MAKO_WARNING, code,
				   format_procedure_qualified(inspection->function), message, hint);
}

/*
 * Returns true if the result of a function of the server depends on the caller, the time or the
 * session. The function is not immutable. Texts of dates, times and numbers do not depend on the
 * session: a registered function runs under settings that are the same everywhere.
 */
static bool
depends_on_session(Form_pg_proc form)
{
	const char *name = NameStr(form->proname);
	size_t		length = strlen(name);

	if (form->provolatile == PROVOLATILE_VOLATILE || form->pronargs == 0)
		return true;
	return strcmp(name, "current_setting") == 0 || strcmp(name, "current_schemas") == 0 ||
		strcmp(name, "pg_has_role") == 0 || (strcmp(name, "age") == 0 && form->pronargs == 1) ||
		(strncmp(name, "has_", 4) == 0 && length > 10 &&
		 strcmp(name + length - 10, "_privilege") == 0);
}

/* Judges a function that is called in the current body; a callback of check_functions_in_node(). */
static bool
judge_function(Oid function, void *context)
{
	Inspection *inspection = context;
	HeapTuple	tuple = mako_function_tuple(function);
	Form_pg_proc form = (Form_pg_proc) GETSTRUCT(tuple);
	const char *name = format_procedure(function);

	if (function >= FirstNormalObjectId && !inspection->check->skip_owner_check &&
		MakoFunctionAclCheck(function, inspection->owner) != ACLCHECK_OK)
		mako_check_add(inspection->check, MAKO_ERROR, "not_executable",
					   format_procedure_qualified(inspection->function),
					   psprintf("calls %s, which role \"%s\" may not execute",
								name, GetUserNameFromId(inspection->owner, false)),
					   "A registered function runs as its owner: GRANT EXECUTE to that role.");
	if (function >= FirstNormalObjectId)
	{
		inspection->functions = list_append_unique_oid(inspection->functions, function);
		if (form->provolatile == PROVOLATILE_VOLATILE)
			add_about_body(inspection, "calls_volatile",
						   psprintf("calls %s, which is volatile", name),
						   "If its result depends on its arguments only, declare it STABLE.");
	}
	else if (form->provolatile != PROVOLATILE_IMMUTABLE && depends_on_session(form))
		add_about_body(inspection, "not_repeatable",
					   psprintf("calls %s, whose result is another one next time", name),
					   "Take what changes from the event: "
					   "a state must be the same whenever it is computed.");
	ReleaseSysCache(tuple);
	return false;
}

/* Judges a relation that is read in the current body. */
static void
judge_relation(Inspection *inspection, Oid relation)
{
	const char *kind = get_rel_relkind(relation) == RELKIND_VIEW ? "view" : "table";

	add_about_body(inspection, "reads_table",
				   psprintf("reads %s %s.%s",
							kind, quote_identifier(get_namespace_name(get_rel_namespace(relation))),
							quote_identifier(get_rel_name(relation))),
				   "Put what is read into the event or the function: "
				   "a state must be the same whenever it is computed.");
}

/* Judges everything in a body. */
static bool
judge_tree(Node *node, void *context)
{
	Inspection *inspection = context;
	ListCell   *cell;

	if (node == NULL)
		return false;
	(void) check_functions_in_node(node, judge_function, context);
	if (IsA(node, SQLValueFunction))
		add_about_body(inspection, "not_repeatable",
					   "uses CURRENT_DATE, CURRENT_TIMESTAMP, CURRENT_USER or the like",
					   "Take what changes from the event: "
					   "a state must be the same whenever it is computed.");
	if (IsA(node, NextValueExpr))
		add_about_body(inspection, "calls_volatile", "takes the next value of a sequence",
					   "Take the value from the event.");
	if (IsA(node, Query))
	{
		foreach(cell, ((Query *) node)->rtable)
			if (lfirst_node(RangeTblEntry, cell)->rtekind == RTE_RELATION)
				judge_relation(inspection, lfirst_node(RangeTblEntry, cell)->relid);
		return query_tree_walker((Query *) node, judge_tree, context, 0);
	}
	return expression_tree_walker(node, judge_tree, context);
}

/* Looks through the body of the current function. */
static void
inspect_body(void *argument)
{
	Inspection *inspection = argument;

	inspection->visible = mako_function_body(inspection->function, NULL, NIL, &inspection->trees);
	if (inspection->visible)
		(void) judge_tree((Node *) inspection->trees, inspection);
}

/* Explains the current function. */
static void
inspect_speed(void *argument)
{
	Inspection *inspection = argument;
	ListCell   *cell;

	foreach(cell, mako_explain_called(inspection->function))
	{
		const MakoCalled *called = lfirst(cell);

		mako_check_add(inspection->check, MAKO_INFO, "not_inlined",
					   format_procedure_qualified(inspection->function),
					   called->reason == NULL ?
					   psprintf("%s is called for every event or state", called->call) :
					   psprintf("%s is called for every event or state: %s",
								called->call, called->reason),
					   called->hint);
	}
}

/* Returns true if a function is written in SQL. */
static bool
is_sql(Oid function)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	bool		is_sql = HeapTupleIsValid(tuple) &&
		((Form_pg_proc) GETSTRUCT(tuple))->prolang == SQLlanguageId;

	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	return is_sql;
}

/* Looks through a registered function and its helpers. */
void
mako_check_body(MakoCheck *check, const MakoFunction *function)
{
	Inspection	inspection = {check, function->owner, list_make1_oid(function->oid)};
	Oid			extension = get_extension_oid("mako_migration", false);

	if (list_member_oid(check->functions, function->oid))
		return;
	check->functions = lappend_oid(check->functions, function->oid);
	check->skip_owner_check = superuser_arg(function->owner);

	/* The list grows while it is read. */
	for (int i = 0; i < list_length(inspection.functions); i++)
	{
		inspection.function = list_nth_oid(inspection.functions, i);
		if (getExtensionOfObject(ProcedureRelationId, inspection.function) == extension)
			continue;
		/* What is not found in a body is a finding of the definition. */
		if (mako_subtransaction_run(inspect_body, &inspection) == NULL && !inspection.visible)
			mako_check_add(check, MAKO_INFO, "body_unseen",
						   format_procedure_qualified(inspection.function),
						   is_sql(inspection.function) ? "its argument types are polymorphic, "
						   "so its body cannot be looked through by itself" :
						   "its body cannot be looked through, "
						   "so a change of what it calls goes unnoticed",
						   "Write it in SQL, with arguments of definite types.");
	}
	inspection.function = function->oid;
	(void) mako_subtransaction_run(inspect_speed, &inspection);
}
