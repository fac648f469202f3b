/*
 * function.c
 *	  Registered functions: found by name and checked against their role.
 *
 * A function is known by its signature, schema.name(types), and resolved at every use: a dropped
 * one is a clear error, and nothing here blocks pg_upgrade.
 */
#include "evaluate/evaluate.h"

#include "access/htup_details.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

/* What a role asks of a function; argument types may be domains over these. */
typedef struct RoleSignature
{
	const char *role;
	int			nargs;
	Oid			argtypes[3];
	Oid			rettype;
	const char *text;
} RoleSignature;

static const RoleSignature role_signature[] = {
	[MAKO_ROLE_APPLY] = {"apply", 3, {JSONBOID, TEXTOID, JSONBOID}, JSONBOID,
	"(state jsonb, event_type text, payload jsonb) RETURNS jsonb"},
	[MAKO_ROLE_UPCAST] = {"upcast", 3, {TEXTOID, INT4OID, JSONBOID}, JSONBOID,
	"(event_type text, schema_version int, payload jsonb) RETURNS jsonb"},
	[MAKO_ROLE_MIGRATE] = {"migrate", 1, {JSONBOID}, JSONBOID, "(state jsonb) RETURNS jsonb"},
	[MAKO_ROLE_IN_FLIGHT] = {"in_flight", 1, {JSONBOID}, BOOLOID, "(state jsonb) RETURNS boolean"},
};

/* Returns true if these argument types fit the role. A domain fits its base type. */
static bool
arguments_fit(const RoleSignature *wanted, int nargs, const Oid *argtypes)
{
	if (nargs != wanted->nargs)
		return false;
	for (int i = 0; i < nargs; i++)
		if (getBaseType(argtypes[i]) != wanted->argtypes[i])
			return false;
	return true;
}

/* The catalog row of a function, to be released; an error where it was dropped a moment ago. */
HeapTuple
mako_function_tuple(Oid oid)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(oid));

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("function with OID %u does not exist", oid)));
	return tuple;
}

/* Returns a function's signature as it is kept, whatever the session quotes. */
static char *
signature_of(Oid function)
{
	MakoConnection settings = {.guc_level = NewGUCNestLevel()};
	char	   *signature;

	mako_sql_set(settings, "quote_all_identifiers", "off");
	signature = format_procedure_qualified(function);
	AtEOXact_GUC(true, settings.guc_level);
	return signature;
}

/* Checks everything that a role asks of a function, and fills in who owns it. */
static MakoFunction *
checked_function(Oid oid, MakoRole role)
{
	const RoleSignature *wanted = &role_signature[role];
	HeapTuple	tuple = mako_function_tuple(oid);
	Form_pg_proc form = (Form_pg_proc) GETSTRUCT(tuple);
	MakoFunction *function = palloc(sizeof(MakoFunction));

	function->role = role;
	function->oid = oid;
	function->owner = form->proowner;
	function->signature = signature_of(oid);

	if (form->prokind != PROKIND_FUNCTION || form->proretset ||
		getBaseType(form->prorettype) != wanted->rettype ||
		!arguments_fit(wanted, form->pronargs, form->proargtypes.values))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("function %s cannot be used as %s", function->signature, wanted->role),
				 errdetail("Expected is a function %s; domains over these types are allowed.",
						   wanted->text)));
	if (form->provolatile == PROVOLATILE_VOLATILE)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("function %s is volatile", function->signature),
				 errdetail("The result of %s must depend on its arguments only.", wanted->role),
				 errhint("Declare it STABLE.")));
	ReleaseSysCache(tuple);
	return function;
}

/*
 * Finds the function that is meant at registration, by schema.name or schema.name(types). The
 * caller must act for its owner.
 */
MakoFunction *
mako_function_resolve(const char *name, MakoRole role)
{
	const RoleSignature *wanted = &role_signature[role];
	MakoFunction *function;
	Oid			found = InvalidOid;

	if (strchr(name, '(') != NULL)
		found = mako_gate_find_function(name);
	else
	{
		List	   *names = MakoQualifiedNameList(name);
		FuncCandidateList candidates = MakoFuncnameGetCandidates(names);
		int			fitting = 0;

		if (candidates == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_FUNCTION),
					 errmsg("function \"%s\" does not exist", name),
					 errhint("Functions are named as schema.name or schema.name(types).")));
		for (FuncCandidateList c = candidates; c != NULL; c = c->next)
			if (arguments_fit(wanted, c->nargs, c->args))
			{
				found = c->oid;
				fitting++;
			}
		if (fitting > 1)
			ereport(ERROR,
					(errcode(ERRCODE_AMBIGUOUS_FUNCTION),
					 errmsg("function name \"%s\" is not unique", name),
					 errdetail("%d functions of this name can be used as %s.",
							   fitting, wanted->role),
					 errhint("Add the argument types: schema.name(types).")));
		if (fitting == 0)
			found = candidates->oid;	/* whose check below says what does not fit */
	}

	function = checked_function(found, role);
	if (!has_privs_of_role(GetUserId(), function->owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for function %s", function->signature),
				 errdetail("It will run with the rights of its owner \"%s\", "
						   "so registering it needs that role's privileges.",
						   GetUserNameFromId(function->owner, false))));
	return function;
}

/*
 * A registration being looked up, for the context of an error: a type of the signature may be
 * gone.
 */
typedef struct Registration
{
	const char *signature;
	MakoRole	role;
	const char *registered_for;
} Registration;

/* Says what a function was looked up for. */
static void
add_function_context(void *argument)
{
	const Registration *registration = argument;

	errcontext("function %s, registered as %s of %s",
			   registration->signature, role_signature[registration->role].role,
			   registration->registered_for);
}

/* Finds a function again that is registered for this workflow or step. */
MakoFunction *
mako_function_lookup(const char *signature, MakoRole role, const char *registered_for)
{
	Registration registration = {signature, role, registered_for};
	ErrorContextCallback context = {error_context_stack, add_function_context, &registration};
	MakoFunction *function;
	Oid			oid;

	error_context_stack = &context;
	oid = mako_gate_find_signature(signature);
	if (!OidIsValid(oid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("function %s does not exist", signature),
				 errdetail("It is registered as %s of %s.",
						   role_signature[role].role, registered_for),
				 errhint("Restore it, or register another one with replace => true.")));
	function = checked_function(oid, role);
	error_context_stack = context.previous;
	return function;
}

/* What a role is called. */
const char *
mako_function_role(MakoRole role)
{
	return role_signature[role].role;
}

/* The declared type of a function's state, jsonb or a domain over it. */
Oid
mako_function_state_type(const MakoFunction *function)
{
	Oid		   *argtypes;
	int			nargs;
	Oid			type;

	(void) get_func_signature(function->oid, &argtypes, &nargs);
	type = argtypes[0];
	pfree(argtypes);
	return type;
}
