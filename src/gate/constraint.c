/*
 * constraint.c
 *	  Deferrable constraints, which are checked while a statement, a run or a revert lasts: later,
 *	  no stream could fail any more.
 */
#include "gate/gate.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_namespace.h"
#include "commands/trigger.h"
#include "nodes/makefuncs.h"
#include "utils/acl.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

/*
 * Adds the name of a constraint (RangeVar), which is in the schema of the table that it stands on:
 * a foreign key has triggers on the other table, too. The server finds a name only for a role that
 * may use its schema; for other roles a constraint stays deferred, and fails what would have to be
 * checked later.
 */
static List *
add_constraint(List *names, Oid constraint)
{
	HeapTuple	tuple = SearchSysCache1(CONSTROID, ObjectIdGetDatum(constraint));
	Form_pg_constraint form;

	if (!HeapTupleIsValid(tuple))
		return names;
	form = (Form_pg_constraint) GETSTRUCT(tuple);
	if (form->condeferrable && MakoSchemaAclCheck(form->connamespace, GetUserId()) == ACLCHECK_OK)
		names = lappend(names, makeRangeVar(get_namespace_name(form->connamespace),
											pstrdup(NameStr(form->conname)), -1));
	ReleaseSysCache(tuple);
	return names;
}

/* The names of the deferrable constraints of a relation and its children (RangeVar). */
List *
mako_constraints_deferrable(List *names, Oid parent)
{
	ListCell   *cell;

	foreach(cell, find_all_inheritors(parent, NoLock, NULL))
	{
		Relation	relation = relation_open(lfirst_oid(cell), AccessShareLock);
		const TriggerDesc *triggers = relation->trigdesc;

		for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
			if (triggers->triggers[i].tgdeferrable &&
				OidIsValid(triggers->triggers[i].tgconstraint))
				names = add_constraint(names, triggers->triggers[i].tgconstraint);
		relation_close(relation, NoLock);
	}
	return names;
}

/*
 * Makes the deferrable constraints of what a statement writes immediate, until the transaction
 * ends. Deferred, they would be checked when no stream can fail any more, and not as the tables'
 * owner: the server lets nothing be deferred in a security-restricted operation.
 */
void
mako_constraints_make_immediate(const List *written)
{
	ConstraintsSetStmt *set = makeNode(ConstraintsSetStmt);
	ListCell   *cell;

	foreach(cell, written)
		set->constraints = mako_constraints_deferrable(set->constraints, lfirst_oid(cell));
	/* No names would stand for all constraints. */
	if (set->constraints != NIL)
		AfterTriggerSetState(set);
}

/*
 * Makes all deferrable constraints immediate, until mako_constraints_defer_again() or the end of
 * the transaction: what a trigger of a dependent or of the store writes may lead to any table. What
 * the caller's transaction has deferred so far is checked at once, as the caller, whose settings
 * must be the current ones. From outside it cannot be told whose event a deferred one is, so it
 * could not be told from a run's.
 */
void
mako_constraints_check_deferred(void)
{
	AfterTriggerSetState(makeNode(ConstraintsSetStmt));
}

static MakoStatement select_deferred = {
	"SELECT pg_catalog.min(c.oid) FROM pg_catalog.pg_constraint c"
	" WHERE NOT pg_catalog.pg_is_other_temp_schema(c.connamespace)"
	" GROUP BY c.connamespace, c.conname"
	" HAVING pg_catalog.bool_and(c.condeferrable AND c.condeferred)",
	0, {0}
};

/*
 * Returns true if any constraint is deferred at the beginning of a transaction: most databases
 * have none, and planning the query takes longer.
 */
static bool
has_deferred(void)
{
	Relation	constraints = table_open(ConstraintRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(constraints, InvalidOid, false, NULL, 0, NULL);
	HeapTuple	tuple;
	bool		found = false;

	while (!found && HeapTupleIsValid(tuple = systable_getnext(scan)))
		found = ((Form_pg_constraint) GETSTRUCT(tuple))->condeferred;
	systable_endscan(scan);
	table_close(constraints, AccessShareLock);
	return found;
}

/*
 * Lets those constraints be deferred again that are so at the beginning of a transaction. What SET
 * CONSTRAINTS has made of others cannot be found out. A name that a constraint of another kind has
 * in the same schema, too, stays immediate: names are all that can be set.
 */
void
mako_constraints_defer_again(void)
{
	MakoRows	rows;
	ConstraintsSetStmt *set;
	Oid			user;
	int			security;

	if (!has_deferred())
		return;
	rows = mako_sql_query(&select_deferred, NULL);
	set = makeNode(ConstraintsSetStmt);
	set->deferred = true;
	/* Nothing fires now; names are found only by those who may use their schemas. */
	GetUserIdAndSecContext(&user, &security);
	SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID, security | SECURITY_LOCAL_USERID_CHANGE);
	/* An old snapshot shows constraints that others have dropped meanwhile. */
	AcceptInvalidationMessages();
	for (uint64 row = 0; row < rows.count; row++)
		set->constraints = add_constraint(set->constraints, mako_row_oid(&rows, row, 1));
	if (set->constraints != NIL)
		AfterTriggerSetState(set);
	SetUserIdAndSecContext(user, security);
	mako_rows_free(&rows);
}
