/*
 * temporary.c
 *	  Temporary objects of the session that code of another role could take for its own.
 *
 * The server looks for relations and types in the session's temporary schema, too: first of all,
 * where a path does not name it, and last, where it does. A function that names a table or type
 * without its schema may find one that another role made. In an ordinary call, that does no harm:
 * the function runs as its caller, who made it. Behind the gate it runs as its owner, and so would
 * what the temporary object evaluates: a domain's check, a view, a default. So nothing is run as a
 * role while an object that evaluates something is there and belongs to a role without the rights
 * of that one. A plain temporary table evaluates nothing; nor do defaults and checks that call
 * harmless functions of the server only.
 */
#include "gate/gate.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/transam.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_index.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/syscache.h"

/* Grows with every change of a relation, type, role or membership. */
static uint64 generation = 1;

/* Roles that were found to have nothing to fear, and when. */
static struct
{
	Oid			role;
	uint64		generation;
}			safe[4];

/* The place in `safe` that is overwritten next. */
static int	next_place = 0;

/* A relation has changed. */
static void
forget_relation(Datum argument, Oid relation)
{
	generation++;
}

/* A type, role or membership has changed. */
static void
forget_object(Datum argument, int cacheid, uint32 hash)
{
	generation++;
}

/* Called when the library is loaded. */
void
mako_temporary_init(void)
{
	CacheRegisterRelcacheCallback(forget_relation, (Datum) 0);
	CacheRegisterSyscacheCallback(TYPEOID, forget_object, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHOID, forget_object, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, forget_object, (Datum) 0);
}

/*
 * Returns true if what a role has made can do nothing as another role that it could not do itself.
 */
static bool
maker_is_trusted(Oid maker, Oid role)
{
	return maker == mako_extension_owner() || has_privs_of_role(maker, role);
}

/* The owner of a type, and its kind. */
static Oid
owner_of_type(Oid type, char *kind)
{
	HeapTuple	tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for type %u", type);	/* cannot happen */
	owner = ((Form_pg_type) GETSTRUCT(tuple))->typowner;
	*kind = ((Form_pg_type) GETSTRUCT(tuple))->typtype;
	ReleaseSysCache(tuple);
	return owner;
}

/* Returns true if an index evaluates an expression. */
static bool
has_expression(Oid oid)
{
	Relation	index = relation_open(oid, AccessShareLock);
	bool		found = !heap_attisnull(index->rd_indextuple, Anum_pg_index_indexprs, NULL) ||
		!heap_attisnull(index->rd_indextuple, Anum_pg_index_indpred, NULL);

	relation_close(index, AccessShareLock);
	return found;
}

/*
 * Returns true for one of the server's functions that defaults are often made of: volatile, but
 * harmless.
 */
static bool
is_usual_default(Oid function)
{
	static const char *const names[] = {
		"clock_timestamp", "gen_random_uuid", "nextval", "random", "statement_timestamp"
	};

	if (function >= FirstNormalObjectId)
		return false;
	for (size_t i = 0; i < lengthof(names); i++)
		if (strcmp(get_func_name(function), names[i]) == 0)
			return true;
	return false;
}

/* Returns true if a default or check evaluates only what is the server's own and harmless. */
static bool
is_harmless(const char *tree)
{
	Node	   *node = stringToNode(tree);

	/* The cast of a serial column. */
	while (IsA(node, FuncExpr) && ((FuncExpr *) node)->funcformat != COERCE_EXPLICIT_CALL &&
		   ((FuncExpr *) node)->funcid < FirstNormalObjectId &&
		   list_length(((FuncExpr *) node)->args) == 1)
		node = linitial(((FuncExpr *) node)->args);
	if (IsA(node, FuncExpr) && is_usual_default(((FuncExpr *) node)->funcid))
		return mako_gate_is_harmless((Node *) ((FuncExpr *) node)->args);
	return IsA(node, SQLValueFunction) || mako_gate_is_harmless(node);
}

/* Returns true if every default and check of a table is harmless. */
static bool
has_harmless_constraints(const TupleConstr *constraints)
{
	for (int i = 0; i < constraints->num_defval; i++)
		if (!is_harmless(constraints->defval[i].adbin))
			return false;
	for (int i = 0; i < constraints->num_check; i++)
		if (!is_harmless(constraints->check[i].ccbin))
			return false;
	return true;
}

/*
 * Returns true if reading or writing a relation evaluates something that is not the server's own.
 */
static bool
evaluates(Relation relation, Oid role)
{
	TupleDesc	tupdesc = RelationGetDescr(relation);
	ListCell   *cell;

	if (relation->rd_rel->relkind == RELKIND_SEQUENCE)
		return false;
	if ((relation->rd_rel->relkind != RELKIND_RELATION &&
		 relation->rd_rel->relkind != RELKIND_PARTITIONED_TABLE) ||
		relation->rd_rel->relhasrules || relation->rd_rel->relhastriggers ||
		relation->rd_rel->relrowsecurity ||
		(tupdesc->constr != NULL && !has_harmless_constraints(tupdesc->constr)))
		return true;
	for (int i = 0; i < tupdesc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(tupdesc, i);
		char		kind;

		if (!attribute->attisdropped && attribute->atttypid >= FirstNormalObjectId &&
			!maker_is_trusted(owner_of_type(attribute->atttypid, &kind), role))
			return true;
	}
	foreach(cell, RelationGetIndexList(relation))
		if (has_expression(lfirst_oid(cell)))
			return true;
	return false;
}

/*
 * Returns true if a temporary object could do something as a role that its owner could not; sets
 * the owner.
 */
static bool
is_dangerous(const ObjectAddress *object, Oid role, Oid *owner)
{
	bool		dangerous;

	if (object->classId == TypeRelationId)
	{
		char		kind;

		*owner = owner_of_type(object->objectId, &kind);
		dangerous = kind != TYPTYPE_ENUM;
	}
	else if (object->classId == RelationRelationId)
	{
		Relation	relation = relation_open(object->objectId, AccessShareLock);

		*owner = relation->rd_rel->relowner;
		dangerous = evaluates(relation, role);
		relation_close(relation, AccessShareLock);
	}
	else
		return false;			/* found by its schema only */
	return dangerous && !maker_is_trusted(*owner, role);
}

/* Raises that a temporary object could do something as a role. */
static void
raise_dangerous(const ObjectAddress *object, Oid role, Oid owner)
{
	const char *name = GetUserNameFromId(role, true);

	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("a temporary object of this session could run code as role \"%s\"", name),
			 errdetail("The %s \"%s\" belongs to role \"%s\" and evaluates code of its own. Code "
					   "of role \"%s\" may find it where it names another one without a schema.",
					   object->classId == TypeRelationId ? "type" : "relation",
					   object->classId == TypeRelationId ? format_type_be(object->objectId) :
					   get_rel_name(object->objectId),
					   GetUserNameFromId(owner, true), name),
			 errhint("Drop it, or use a session without it.")));
}

/*
 * Raises if a temporary object of the session could do something as a role that its owner could
 * not.
 */
void
mako_temporary_require_safe(Oid role)
{
	Oid			schema;
	Oid			toast;
	uint64		begun = generation;
	Relation	depend;
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;

	GetTempNamespaceState(&schema, &toast);
	if (!OidIsValid(schema))
		return;
	for (size_t i = 0; i < lengthof(safe); i++)
		if (safe[i].role == role && safe[i].generation == generation)
			return;
	depend = table_open(DependRelationId, AccessShareLock);
	ScanKeyInit(&keys[0], Anum_pg_depend_refclassid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(NamespaceRelationId));
	ScanKeyInit(&keys[1], Anum_pg_depend_refobjid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(schema));
	scan = systable_beginscan(depend, DependReferenceIndexId, true, NULL, 2, keys);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_depend form = (Form_pg_depend) GETSTRUCT(tuple);
		ObjectAddress object = {form->classid, form->objid, 0};
		Oid			owner;

		if (is_dangerous(&object, role, &owner))
			raise_dangerous(&object, role, owner);
	}
	systable_endscan(scan);
	table_close(depend, AccessShareLock);
	safe[next_place].role = role;
	safe[next_place].generation = begun;
	next_place = (next_place + 1) % (int) lengthof(safe);
}
