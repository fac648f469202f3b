/*
 * definition.c
 *	  What is registered: workflows and state migrations, written by the registration functions and verified at every use.
 *
 * Nobody may write the definition tables directly, because a row decides which function runs with its owner's rights. The
 * registration functions check that the caller has those rights himself and then write the row as the tables' owner, as referential
 * integrity does. That one statement is all that does not run with the caller's rights.
 *
 * A definition belongs to the role that registered it, whose privileges it takes to change it. The owners of its functions may, too:
 * they could change those anyway. The owners of helpers that are SECURITY DEFINER are remembered behind them, and may not.
 */
#include "gate/door.h"
#include "gate/gate.h"

#include "access/htup_details.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

static MakoStatement select_workflow = {
	"SELECT apply, upcast, in_flight, initial_state, event_type_definition, state_type_definition, state_schema_version,"
	" function_owner, function_owner_identity, fingerprint FROM %s.mako_workflow WHERE workflow_id::text = $1",
	1, {TEXTOID}
};

/* Runs on the caller's path, too. */
static MakoStatement select_fingerprint = {
	"SELECT fingerprint FROM %s.mako_workflow WHERE workflow_id::pg_catalog.text OPERATOR(pg_catalog.=) $1", 1, {TEXTOID}
};

static MakoStatement select_migration = {
	"SELECT migrate, function_owner, function_owner_identity, fingerprint"
	" FROM %s.mako_state_migration WHERE source_wf::text = $1 AND target_wf::text = $2",
	2, {TEXTOID, TEXTOID}
};

static MakoStatement insert_workflow = {
	"INSERT INTO %s.mako_workflow (workflow_id, apply, upcast, in_flight, initial_state, event_type_definition,"
	" state_type_definition, state_schema_version, function_owner, function_owner_identity, fingerprint, registered_by,"
	" registered_by_identity)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"
	" ON CONFLICT (workflow_id) DO UPDATE SET apply = $2, upcast = $3, in_flight = $4, initial_state = $5,"
	" event_type_definition = $6, state_type_definition = $7, state_schema_version = $8, function_owner = $9,"
	" function_owner_identity = $10, fingerprint = $11, registered_by = $12, registered_by_identity = $13, registered_at = now()",
	13, {TEXTOID, TEXTOID, TEXTOID, TEXTOID, JSONBOID, JSONBOID, JSONBOID, INT4OID, TEXTARRAYOID, TEXTARRAYOID, TEXTOID, TEXTOID,
	TEXTOID}
};

static MakoStatement insert_migration = {
	"INSERT INTO %s.mako_state_migration (source_wf, target_wf, migrate, function_owner, function_owner_identity, fingerprint,"
	" registered_by, registered_by_identity)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
	" ON CONFLICT (source_wf, target_wf) DO UPDATE SET migrate = $3, function_owner = $4, function_owner_identity = $5,"
	" fingerprint = $6, registered_by = $7, registered_by_identity = $8, registered_at = now()",
	8, {TEXTOID, TEXTOID, TEXTOID, TEXTARRAYOID, TEXTARRAYOID, TEXTOID, TEXTOID, TEXTOID}
};

/* Whose a definition is: who registered it, and the owners of its functions, without those of helpers. */
static MakoStatement select_owners_of_workflow = {
	"SELECT registered_by, registered_by_identity, function_owner[:num_nonnulls(apply, upcast, in_flight)],"
	" function_owner_identity[:num_nonnulls(apply, upcast, in_flight)] FROM %s.mako_workflow WHERE workflow_id::text = $1",
	1, {TEXTOID}
};

static MakoStatement select_owners_of_migration = {
	"SELECT registered_by, registered_by_identity, function_owner[:num_nonnulls(migrate)],"
	" function_owner_identity[:num_nonnulls(migrate)] FROM %s.mako_state_migration WHERE source_wf::text = $1 AND target_wf::text = $2",
	2, {TEXTOID, TEXTOID}
};

static MakoStatement select_owner_of_exemption = {
	"SELECT exempted_by, exempted_by_identity, '{}'::text[], '{}'::text[] FROM %s.mako_exemption WHERE workflow_id::text = $1",
	1, {TEXTOID}
};

static MakoStatement delete_workflow = {
	"DELETE FROM %s.mako_workflow WHERE workflow_id::text = $1", 1, {TEXTOID}
};

static MakoStatement delete_migration = {
	"DELETE FROM %s.mako_state_migration WHERE source_wf::text = $1 AND target_wf::text = $2", 2, {TEXTOID, TEXTOID}
};

static MakoStatement select_steps_of_workflow = {
	"SELECT source_wf || ' -> ' || target_wf FROM %s.mako_state_migration"
	" WHERE $1 IN (source_wf::text, target_wf::text) ORDER BY source_wf, target_wf",
	1, {TEXTOID}
};

static MakoStatement select_uses_of_workflow = {
	"SELECT EXISTS (SELECT FROM mako.migration_run WHERE path @> ARRAY[$1] AND migrated > 0)"
	" OR EXISTS (SELECT FROM mako.stream WHERE workflow_id = $1)",
	1, {TEXTOID}
};

static MakoStatement select_uses_of_migration = {
	"SELECT EXISTS (SELECT FROM mako.migration_run r, generate_series(1, cardinality(r.path) - 1) AS i"
	" WHERE r.path[i] = $1 AND r.path[i + 1] = $2 AND r.migrated > 0)",
	2, {TEXTOID, TEXTOID}
};

static MakoStatement is_known = {
	"SELECT EXISTS (SELECT FROM %s.mako_workflow WHERE workflow_id::text = $1)"
	" OR EXISTS (SELECT FROM mako.stream WHERE workflow_id = $1)",
	1, {TEXTOID}
};

static MakoStatement select_steps_from = {
	"SELECT FROM %s.mako_state_migration WHERE source_wf::text = $1", 1, {TEXTOID}
};

static MakoStatement insert_exemption = {
	"INSERT INTO %s.mako_exemption (workflow_id, reason, exempted_by, exempted_by_identity) VALUES ($1, $2, $3, $4)"
	" ON CONFLICT (workflow_id) DO UPDATE SET reason = $2, exempted_by = $3, exempted_by_identity = $4, exempted_at = now()",
	4, {TEXTOID, TEXTOID, TEXTOID, TEXTOID}
};

static MakoStatement delete_exemption = {
	"DELETE FROM %s.mako_exemption WHERE workflow_id::text = $1", 1, {TEXTOID}
};

static MakoStatement update_dispatch = {
	"UPDATE %s.mako_workflow SET dispatch = $2, dispatch_versions = $3 WHERE workflow_id::text = $1",
	3, {TEXTOID, TEXTOID, TEXTARRAYOID}
};

/* ---- what a definition is --------------------------------------------------------------------------------------------------- */

/* The functions of a workflow, NULL where it has none. */
#define WORKFLOW_FUNCTIONS(workflow) {(workflow)->apply, (workflow)->upcast, (workflow)->in_flight}

/* Adds the functions of a definition to its text. Returns their helpers (OIDs) that run as another role, in the order of the text. */
static List *
add_functions(StringInfo text, MakoFunction *const *functions, int count, bool tell_unseen)
{
	List	   *helpers = NIL;

	for (int i = 0; i < count; i++)
		if (functions[i] != NULL)
		{
			appendStringInfo(text, "%s under %s\n", mako_function_role(functions[i]->role), mako_gate_settings_text());
			helpers = list_concat(helpers, mako_fingerprint_add(text, functions[i], tell_unseen));
		}
	return helpers;
}

/* Adds a JSON document of a definition to its text, where there is one. */
static void
add_document(StringInfo text, const char *label, Jsonb *document)
{
	if (document == NULL)
		return;
	appendStringInfo(text, "%s ", label);
	(void) JsonbToCString(text, &document->root, VARSIZE(document));
	appendStringInfoChar(text, '\n');
}

/* A workflow as it is now, as text; notes its helpers. */
static char *
describe_workflow(MakoWorkflow *workflow, bool tell_unseen)
{
	MakoFunction *functions[] = WORKFLOW_FUNCTIONS(workflow);
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfo(&text, "workflow %s\nstate schema version %d\n", workflow->workflow_id, workflow->state_schema_version);
	add_document(&text, "initial state", workflow->initial_state);
	add_document(&text, "event type definition", workflow->event_type_source);
	add_document(&text, "state type definition", workflow->state_type_source);
	workflow->helpers = add_functions(&text, functions, lengthof(functions), tell_unseen);
	return text.data;
}

/* A state migration as it is now, as text; notes its helpers. */
static char *
describe_migration(MakoStateMigration *migration, bool tell_unseen)
{
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfo(&text, "state migration %s -> %s\n", migration->source_wf, migration->target_wf);
	migration->helpers = add_functions(&text, &migration->migrate, 1, tell_unseen);
	return text.data;
}

/* A function with the rights of whose owner a definition is computed. */
typedef struct Actor
{
	const char *signature;
	Oid			owner;
} Actor;

/* Adds an actor to a list. */
static List *
add_actor(List *actors, const char *signature, Oid owner)
{
	Actor	   *actor = palloc(sizeof(Actor));

	actor->signature = signature;
	actor->owner = owner;
	return lappend(actors, actor);
}

/* The actors of a definition: its functions, then the helpers that run as another role. */
static List *
actors_of(MakoFunction *const *functions, int count, const List *helpers)
{
	List	   *actors = NIL;
	ListCell   *cell;

	for (int i = 0; i < count; i++)
		if (functions[i] != NULL)
			actors = add_actor(actors, functions[i]->signature, functions[i]->owner);
	foreach(cell, helpers)
	{
		HeapTuple	tuple = mako_function_tuple(lfirst_oid(cell));

		actors = add_actor(actors, format_procedure_qualified(lfirst_oid(cell)), ((Form_pg_proc) GETSTRUCT(tuple))->proowner);
		ReleaseSysCache(tuple);
	}
	return actors;
}

/* Puts the owners of a definition's actors into two parameters: text[] of names and of identities. */
static void
bind_owners(const List *actors, int parameter, Datum *values)
{
	Datum	   *names = palloc(sizeof(Datum) * (list_length(actors) + 1));
	Datum	   *identities = palloc(sizeof(Datum) * (list_length(actors) + 1));
	int			count = 0;
	ListCell   *cell;

	foreach(cell, actors)
	{
		const Actor *actor = lfirst(cell);

		names[count] = CStringGetTextDatum(GetUserNameFromId(actor->owner, false));
		identities[count++] = CStringGetTextDatum(mako_identity(actor->owner));
	}
	values[parameter] = PointerGetDatum(construct_array(names, count, TEXTOID, -1, false, TYPALIGN_INT));
	values[parameter + 1] = PointerGetDatum(construct_array(identities, count, TEXTOID, -1, false, TYPALIGN_INT));
}

/* Puts the caller into two parameters: name and identity. */
static void
bind_caller(int parameter, Datum *values)
{
	values[parameter] = CStringGetTextDatum(GetUserNameFromId(GetUserId(), false));
	values[parameter + 1] = CStringGetTextDatum(mako_identity(GetUserId()));
}

/* ---- use -------------------------------------------------------------------------------------------------------------------- */

/* Finds the function that a column of a definition names; NULL for none. */
static MakoFunction *
lookup_column(const MakoRows *rows, int column, MakoRole role, const char *registered_for)
{
	char	   *signature = mako_row_text(rows, 0, column);

	return signature == NULL ? NULL : mako_function_lookup(signature, role, registered_for);
}

/* The elements of a text[] column. */
static char **
texts_of(const MakoRows *rows, uint64 row, int column, int *count)
{
	Datum	   *elements;
	char	  **texts;

	deconstruct_array(DatumGetArrayTypeP(mako_row_array(rows, row, column, TEXTARRAYOID)), TEXTOID, -1, false, TYPALIGN_INT,
					  &elements, NULL, count);
	texts = palloc(sizeof(char *) * (*count + 1));
	for (int i = 0; i < *count; i++)
		texts[i] = TextDatumGetCString(elements[i]);
	return texts;
}

/* The registered owners of a definition's functions and helpers, from the column of their names and, behind it, that of their identities. */
MakoOwners
mako_definition_owners(const MakoRows *rows, uint64 row, int column)
{
	MakoOwners	owners;
	int			identities;

	owners.name = texts_of(rows, row, column, &owners.count);
	owners.identity = texts_of(rows, row, column + 1, &identities);
	owners.count = Min(owners.count, identities);
	return owners;
}

/*
 * The first actor that belongs to another role than it is registered with, whose number among the owners is told; NULL for none. Texts that
 * are the same have the same number of actors.
 */
static const Actor *
find_other_owner(const MakoOwners *owners, const List *actors, int *number)
{
	ListCell   *cell;

	*number = 0;
	foreach(cell, actors)
	{
		const Actor *actor = lfirst(cell);

		if (*number >= owners->count || !mako_role_is(actor->owner, owners->name[*number], owners->identity[*number]))
			return actor;
		(*number)++;
	}
	return NULL;
}

/*
 * Raises when the functions of a definition, or its helpers that run as another role, have other owners than when they were registered.
 * The helpers are those that were registered only if the text is the same.
 */
static void
verify_owners(const MakoRows *rows, int column, MakoFunction *const *functions, int count, const List *helpers)
{
	MakoOwners	owners = mako_definition_owners(rows, 0, column);
	int			number;
	const Actor *other = find_other_owner(&owners, actors_of(functions, count, helpers), &number);

	if (other != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg(MAKO_OTHER_OWNER, other->signature),
				 errdetail("It would run with the rights of \"%s\"; registered was \"%s\".", GetUserNameFromId(other->owner, false),
						   number < owners.count ? owners.name[number] : ""),
				 errhint("Register it again with replace => true.")));
}

/* Raises when a definition, as text, is not what was registered. */
static void
verify_fingerprint(const char *kind, const char *name, const char *registered, const char *description)
{
	if (strcmp(registered, mako_fingerprint_digest(description)) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the definition of %s \"%s\" has changed since it was registered", kind, name),
				 errdetail("A function, or something that its results depend on, is not what was registered."),
				 errhint("Review the change, then register it again with replace => true.")));
}

/* A JSON document of a definition's row, copied; NULL for null. */
static Jsonb *
row_document(const MakoRows *rows, int column)
{
	bool		isnull;
	Datum		value = mako_row_value(rows, 0, column, JSONBOID, &isnull);

	return isnull ? NULL : DatumGetJsonbPCopy(value);
}

/* Compiles the type definitions of a workflow. */
static void
compile_types(MakoWorkflow *workflow)
{
	if (workflow->event_type_source != NULL)
		workflow->event_type = mako_type_definition_compile(workflow->event_type_source);
	if (workflow->state_type_source != NULL)
		workflow->state_type = mako_type_definition_compile(workflow->state_type_source);
}

/* Says which definition an error is in: a function or type that it names may be gone. */
static void
add_context(void *name)
{
	errcontext("definition of \"%s\"", (const char *) name);
}

/* Raises that there is no such workflow. */
static void
raise_not_registered(const char *workflow_id)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("workflow \"%s\" is not registered", workflow_id),
			 errhint("Use mako_register_workflow().")));
}

/* The registered workflow, verified; an error when there is none. */
MakoWorkflow *
mako_definition_workflow(const char *workflow_id)
{
	ErrorContextCallback context = {error_context_stack, add_context, unconstify(char *, workflow_id)};
	MakoWorkflow *workflow = palloc0(sizeof(MakoWorkflow));
	Datum		values[] = {CStringGetTextDatum(workflow_id)};
	MakoRows	rows = mako_sql_query(&select_workflow, values, NULL);

	if (rows.count == 0)
		raise_not_registered(workflow_id);
	error_context_stack = &context;
	workflow->workflow_id = pstrdup(workflow_id);
	workflow->apply = lookup_column(&rows, 1, MAKO_ROLE_APPLY, workflow_id);
	workflow->upcast = lookup_column(&rows, 2, MAKO_ROLE_UPCAST, workflow_id);
	workflow->in_flight = lookup_column(&rows, 3, MAKO_ROLE_IN_FLIGHT, workflow_id);
	workflow->initial_state = row_document(&rows, 4);
	workflow->event_type_source = row_document(&rows, 5);
	workflow->state_type_source = row_document(&rows, 6);
	compile_types(workflow);
	workflow->state_schema_version = mako_row_integer(&rows, 0, 7);
	{
		MakoFunction *functions[] = WORKFLOW_FUNCTIONS(workflow);

		verify_owners(&rows, 8, functions, lengthof(functions), NIL);
		workflow->fingerprint = mako_row_text(&rows, 0, 10);
		workflow->description = describe_workflow(workflow, false);
		verify_fingerprint("workflow", workflow_id, workflow->fingerprint, workflow->description);
		verify_owners(&rows, 8, functions, lengthof(functions), workflow->helpers);
	}
	error_context_stack = context.previous;
	mako_rows_free(&rows);
	return workflow;
}

/* The fingerprint with which a workflow is registered; NULL when it is not. */
char *
mako_definition_fingerprint(const char *workflow_id)
{
	Datum		values[] = {CStringGetTextDatum(workflow_id)};
	MakoRows	rows = mako_sql_query(&select_fingerprint, values, NULL);
	char	   *fingerprint = rows.count == 0 ? NULL : mako_row_text(&rows, 0, 1);

	mako_rows_free(&rows);
	return fingerprint;
}

/* Raises unless a workflow is registered. */
void
mako_definition_require(const char *workflow_id)
{
	if (mako_definition_fingerprint(workflow_id) == NULL)
		raise_not_registered(workflow_id);
}

/* The registered state migration, verified; an error when there is none. */
MakoStateMigration *
mako_definition_migration(const char *source_wf, const char *target_wf)
{
	MakoStateMigration *migration = palloc0(sizeof(MakoStateMigration));
	Datum		values[] = {CStringGetTextDatum(source_wf), CStringGetTextDatum(target_wf)};
	MakoRows	rows = mako_sql_query(&select_migration, values, NULL);
	char	   *name = psprintf("%s -> %s", source_wf, target_wf);
	ErrorContextCallback context = {error_context_stack, add_context, name};

	if (rows.count == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("state migration \"%s\" is not registered", name),
				 errhint("Use mako_register_migration().")));
	error_context_stack = &context;
	migration->source_wf = pstrdup(source_wf);
	migration->target_wf = pstrdup(target_wf);
	migration->migrate = lookup_column(&rows, 1, MAKO_ROLE_MIGRATE, name);
	verify_owners(&rows, 2, &migration->migrate, 1, NIL);
	migration->fingerprint = mako_row_text(&rows, 0, 4);
	migration->description = describe_migration(migration, false);
	verify_fingerprint("state migration", name, migration->fingerprint, migration->description);
	verify_owners(&rows, 2, &migration->migrate, 1, migration->helpers);
	error_context_stack = context.previous;
	mako_rows_free(&rows);
	return migration;
}

/* ---- registration ----------------------------------------------------------------------------------------------------------- */

MAKO_FUNCTION(mako_register_workflow);
MAKO_FUNCTION(mako_unregister_workflow);
MAKO_FUNCTION(mako_register_migration);
MAKO_FUNCTION(mako_unregister_migration);

/* Connects, and lets one session at a time change definitions, so that none loses what it refers to. */
static MakoConnection
connect_to_change(const char *function)
{
	MakoConnection connection;

	mako_gate_require_change(function);
	connection = mako_sql_connect();
	LockRelationOid(get_relname_relid("mako_workflow", mako_sql_extension_schema()), ShareRowExclusiveLock);
	return connection;
}

/* Writes a definition as the owner of the definition tables. */
static uint64
write_definition(MakoStatement *statement, Datum *values, const char *nulls)
{
	MakoGate	gate = mako_gate_enter(mako_sql_extension_owner());
	uint64		written = mako_sql_execute(statement, values, nulls);

	mako_gate_leave(&gate);
	return written;
}

/* Does the store hold anything that depends on a definition? */
static bool
is_used(MakoStatement *statement, Datum *values)
{
	MakoRows	rows;
	bool		used;

	if (!mako_door_has_table("migration_run"))
		return false;
	rows = mako_sql_query(statement, values, NULL);
	used = mako_row_boolean(&rows, 0, 1);
	mako_rows_free(&rows);
	return used;
}

/* Has the caller the privileges of all of these roles, and are there any? */
static bool
acts_for(const MakoOwners *owners)
{
	for (int i = 0; i < owners->count; i++)
	{
		Oid			owner = mako_role_find(owners->name[i], owners->identity[i]);

		if (!OidIsValid(owner) || !has_privs_of_role(GetUserId(), owner))
			return false;
	}
	return owners->count > 0;
}

/*
 * Raises unless the caller may change what is registered: with the privileges of the role that did it, of the owners of its functions, or
 * of the extension's owner. Returns false when there is nothing.
 */
static bool
require_rights(MakoStatement *select, Datum *key, const char *kind, const char *name, const char *done)
{
	MakoRows	rows = mako_sql_query(select, key, NULL);
	MakoOwners	owners;
	char	   *by;
	Oid			role;

	if (rows.count == 0)
		return false;
	by = mako_row_text(&rows, 0, 1);
	role = mako_role_find(by, mako_row_text(&rows, 0, 2));
	owners = mako_definition_owners(&rows, 0, 3);
	mako_rows_free(&rows);
	if ((OidIsValid(role) && has_privs_of_role(GetUserId(), role)) || acts_for(&owners) ||
		has_privs_of_role(GetUserId(), mako_sql_extension_owner()))
		return true;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for %s \"%s\"", kind, name),
			 OidIsValid(role) ? errdetail("It was %s by role \"%s\".", done, GetUserNameFromId(role, false)) :
			 errdetail("It was %s by role \"%s\", which does not exist any more.", done, by),
			 errhint("It takes the privileges of that role, of all owners of its functions, or of the extension's owner."
					 " Use SET ROLE if you have them.")));
}

/* Raises unless the caller may change a workflow, if it is registered; false if it is not. */
static bool
require_rights_on_workflow(const char *workflow_id)
{
	Datum		key = CStringGetTextDatum(workflow_id);

	return require_rights(&select_owners_of_workflow, &key, "workflow", workflow_id, "registered");
}

/* Raises unless the caller may change the exemption of a workflow: it is the workflow's or, of one that is not registered, its own. */
static void
require_rights_on_exemption(const char *workflow_id)
{
	Datum		key = CStringGetTextDatum(workflow_id);

	if (!require_rights_on_workflow(workflow_id))
		(void) require_rights(&select_owner_of_exemption, &key, "the exemption of", workflow_id, "made");
}

/* What is registered already under the name of a definition. */
typedef enum Registered
{
	REGISTERED_NONE,
	REGISTERED_SAME,
	REGISTERED_OTHER,
} Registered;

/* Compares a definition with what is registered: its text, in the column behind those of the owners, and these. */
static Registered
compare_registered(MakoStatement *existing, Datum *key, int owner_column, const char *fingerprint,
				   const List *actors)
{
	MakoRows	rows = mako_sql_query(existing, key, NULL);
	Registered	registered = REGISTERED_NONE;
	int			number;

	if (rows.count > 0)
	{
		MakoOwners	owners = mako_definition_owners(&rows, 0, owner_column);

		registered = strcmp(mako_row_text(&rows, 0, owner_column + 2), fingerprint) == 0 &&
			find_other_owner(&owners, actors, &number) == NULL ? REGISTERED_SAME : REGISTERED_OTHER;
	}
	mako_rows_free(&rows);
	return registered;
}

/* Raises unless a definition may take the place of another one. */
static void
require_replace(Registered registered, bool replace, const char *kind, const char *name)
{
	if (registered == REGISTERED_OTHER && !replace)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("%s \"%s\" is already registered with another definition", kind, name),
				 errhint("Use replace => true to replace it.")));
}

/* Warns if something in the store was made with the definition that is replaced. */
static void
warn_if_used(Registered registered, MakoStatement *uses, Datum *key, const char *kind, const char *name)
{
	if (registered == REGISTERED_OTHER && is_used(uses, key))
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("replaced %s \"%s\", which the store already depends on", kind, name),
				 errdetail("States that were computed with the old definition are not computed again.")));
}

/* The text of an argument that must not be null. */
static char *
required_text(FunctionCallInfo fcinfo, int argument, const char *name)
{
	mako_require_value(!PG_ARGISNULL(argument), name);
	return TextDatumGetCString(PG_GETARG_DATUM(argument));
}

/* The function that an argument names; NULL for null. */
static MakoFunction *
function_argument(FunctionCallInfo fcinfo, int argument, MakoRole role)
{
	return PG_ARGISNULL(argument) ? NULL : mako_function_resolve(TextDatumGetCString(PG_GETARG_DATUM(argument)), role);
}

/* The JSON document of an argument; NULL for null. */
static Jsonb *
document_argument(FunctionCallInfo fcinfo, int argument)
{
	return PG_ARGISNULL(argument) ? NULL : PG_GETARG_JSONB_P(argument);
}

/* Puts a function's signature into a parameter. */
static void
bind_function(const MakoFunction *function, int parameter, Datum *values, char *nulls)
{
	if (function == NULL)
		nulls[parameter] = 'n';
	else
		values[parameter] = CStringGetTextDatum(format_procedure_qualified(function->oid));
}

/* Puts a JSON document into a parameter. */
static void
bind_document(const Jsonb *document, int parameter, Datum *values, char *nulls)
{
	if (document == NULL)
		nulls[parameter] = 'n';
	else
		values[parameter] = JsonbPGetDatum(document);
}

/* Checks what a workflow without apply cannot have, and one with apply must have. */
static void
check_workflow(const MakoWorkflow *workflow)
{
	if (workflow->state_schema_version < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("state_schema_version must be 1 or more"),
				 errdetail("It is %d.", workflow->state_schema_version)));
	if (workflow->apply == NULL && (workflow->upcast != NULL || workflow->event_type_source != NULL))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a workflow without apply cannot have %s",
						workflow->upcast != NULL ? "upcast" : "event_type_definition"),
				 errdetail("Events are upcast and checked to be applied.")));
	if (workflow->apply != NULL && workflow->initial_state == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("a workflow with apply needs an initial_state"),
				 errhint("Give the state that the first event is applied to, for example '{}'.")));
	if (workflow->initial_state != NULL && workflow->state_type != NULL)
		mako_type_definition_require_state(workflow->state_type, workflow->workflow_id, workflow->initial_state);
}

/* Raises unless the state that a workflow begins with fits the domain that apply declares for it. */
static void
check_initial_state(const MakoWorkflow *workflow)
{
	ErrorContextCallback context = {error_context_stack, add_context, workflow->workflow_id};

	if (workflow->initial_state == NULL)
		return;
	error_context_stack = &context;
	mako_program_require_state(workflow->apply, JsonbPGetDatum(workflow->initial_state));
	error_context_stack = context.previous;
}

/* Writes a workflow, unless it is there already. */
static void
write_workflow(MakoWorkflow *workflow, bool replace)
{
	MakoFunction *functions[] = WORKFLOW_FUNCTIONS(workflow);
	Datum		values[13] = {CStringGetTextDatum(workflow->workflow_id)};
	char		nulls[] = "             ";
	List	   *actors = actors_of(functions, lengthof(functions), workflow->helpers);
	Registered	registered = compare_registered(&select_workflow, values, 8, workflow->fingerprint, actors);

	if (registered == REGISTERED_SAME)
		return;
	require_replace(registered, replace, "workflow", workflow->workflow_id);
	(void) require_rights_on_workflow(workflow->workflow_id);
	warn_if_used(registered, &select_uses_of_workflow, values, "workflow", workflow->workflow_id);
	for (size_t i = 0; i < lengthof(functions); i++)
		bind_function(functions[i], i + 1, values, nulls);
	bind_document(workflow->initial_state, 4, values, nulls);
	bind_document(workflow->event_type_source, 5, values, nulls);
	bind_document(workflow->state_type_source, 6, values, nulls);
	values[7] = Int32GetDatum(workflow->state_schema_version);
	bind_owners(actors, 8, values);
	values[10] = CStringGetTextDatum(workflow->fingerprint);
	bind_caller(11, values);
	(void) write_definition(&insert_workflow, values, nulls);
	(void) describe_workflow(workflow, true);	/* says what it cannot see */
}

/* Registers a workflow version: see the install script. */
Datum
mako_register_workflow(PG_FUNCTION_ARGS)
{
	MakoWorkflow workflow = {0};
	MakoConnection connection;
	bool		replace = !PG_ARGISNULL(8) && PG_GETARG_BOOL(8);

	workflow.workflow_id = required_text(fcinfo, 0, "workflow_id");
	/* The caller's path decides what his names mean; afterwards ours decides. */
	workflow.apply = function_argument(fcinfo, 1, MAKO_ROLE_APPLY);
	workflow.upcast = function_argument(fcinfo, 2, MAKO_ROLE_UPCAST);
	workflow.in_flight = function_argument(fcinfo, 3, MAKO_ROLE_IN_FLIGHT);
	workflow.initial_state = document_argument(fcinfo, 4);
	workflow.state_schema_version = PG_ARGISNULL(5) ? 1 : PG_GETARG_INT32(5);
	workflow.event_type_source = document_argument(fcinfo, 6);
	workflow.state_type_source = document_argument(fcinfo, 7);
	compile_types(&workflow);
	check_workflow(&workflow);
	connection = connect_to_change("mako_register_workflow()");
	workflow.fingerprint = mako_fingerprint_digest(describe_workflow(&workflow, false));
	check_initial_state(&workflow);

	write_workflow(&workflow, replace);
	mako_sql_disconnect(connection);
	PG_RETURN_VOID();
}

/* Forgets a workflow that nothing refers to. */
Datum
mako_unregister_workflow(PG_FUNCTION_ARGS)
{
	char	   *workflow_id = required_text(fcinfo, 0, "workflow_id");
	Datum		values[] = {CStringGetTextDatum(workflow_id)};
	MakoConnection connection = connect_to_change("mako_unregister_workflow()");
	MakoRows	rows;

	(void) require_rights_on_workflow(workflow_id);
	rows = mako_sql_query(&select_steps_of_workflow, values, NULL);
	if (rows.count > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("workflow \"%s\" cannot be unregistered", workflow_id),
				 errdetail("State migration \"%s\" is registered.", mako_row_text(&rows, 0, 1)),
				 errhint("Unregister its state migrations first.")));
	mako_rows_free(&rows);
	if (is_used(&select_uses_of_workflow, values))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("workflow \"%s\" cannot be unregistered", workflow_id),
				 errdetail("Streams or migration snapshots in the store depend on it.")));
	if (write_definition(&delete_workflow, values, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("workflow \"%s\" is not registered", workflow_id),
				 errhint("The table mako_workflow shows what is registered.")));
	mako_sql_disconnect(connection);
	PG_RETURN_VOID();
}

/*
 * Writes a step, unless it is there already. It decides what becomes of the states of both workflows, so it takes the rights to change
 * those as well.
 */
static void
write_migration(MakoStateMigration *migration, bool replace)
{
	Datum		values[8] = {CStringGetTextDatum(migration->source_wf), CStringGetTextDatum(migration->target_wf)};
	char		nulls[] = "        ";
	char	   *name = psprintf("%s -> %s", migration->source_wf, migration->target_wf);
	List	   *actors = actors_of(&migration->migrate, 1, migration->helpers);
	Registered	registered = compare_registered(&select_migration, values, 2, migration->fingerprint, actors);

	if (registered == REGISTERED_SAME)
		return;
	require_replace(registered, replace, "state migration", name);
	(void) require_rights(&select_owners_of_migration, values, "state migration", name, "registered");
	(void) require_rights_on_workflow(migration->source_wf);
	(void) require_rights_on_workflow(migration->target_wf);
	warn_if_used(registered, &select_uses_of_migration, values, "state migration", name);
	bind_function(migration->migrate, 2, values, nulls);
	bind_owners(actors, 3, values);
	values[5] = CStringGetTextDatum(migration->fingerprint);
	bind_caller(6, values);
	(void) write_definition(&insert_migration, values, nulls);
	(void) describe_migration(migration, true); /* says what it cannot see */
}

/* Registers one step from a workflow version to another. */
Datum
mako_register_migration(PG_FUNCTION_ARGS)
{
	MakoStateMigration migration = {0};
	MakoConnection connection;
	bool		replace = !PG_ARGISNULL(3) && PG_GETARG_BOOL(3);

	migration.source_wf = required_text(fcinfo, 0, "source_wf");
	migration.target_wf = required_text(fcinfo, 1, "target_wf");
	if (strcmp(migration.source_wf, migration.target_wf) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("source and target of a state migration must differ"),
				 errdetail("Both are \"%s\".", migration.source_wf)));
	if (!mako_workflow_id_same_name(migration.source_wf, migration.target_wf))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("source and target of a state migration must be versions of one workflow"),
				 errdetail("They are \"%s\" and \"%s\".", migration.source_wf, migration.target_wf)));

	migration.migrate = function_argument(fcinfo, 2, MAKO_ROLE_MIGRATE);
	connection = connect_to_change("mako_register_migration()");
	(void) mako_definition_workflow(migration.source_wf);
	(void) mako_definition_workflow(migration.target_wf);
	migration.fingerprint = mako_fingerprint_digest(describe_migration(&migration, false));

	write_migration(&migration, replace);
	mako_sql_disconnect(connection);
	PG_RETURN_VOID();
}

/* Forgets a step that no run went through. */
Datum
mako_unregister_migration(PG_FUNCTION_ARGS)
{
	char	   *source_wf = required_text(fcinfo, 0, "source_wf");
	char	   *target_wf = required_text(fcinfo, 1, "target_wf");
	Datum		values[] = {CStringGetTextDatum(source_wf), CStringGetTextDatum(target_wf)};
	MakoConnection connection = connect_to_change("mako_unregister_migration()");

	(void) require_rights(&select_owners_of_migration, values, "state migration", psprintf("%s -> %s", source_wf, target_wf),
						  "registered");
	if (is_used(&select_uses_of_migration, values))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("state migration \"%s -> %s\" cannot be unregistered", source_wf, target_wf),
				 errdetail("Migration runs in the store went through it.")));
	if (write_definition(&delete_migration, values, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("state migration \"%s -> %s\" is not registered", source_wf, target_wf),
				 errhint("The table mako_state_migration shows what is registered.")));
	mako_sql_disconnect(connection);
	PG_RETURN_VOID();
}

/* ---- exemption and dispatch ------------------------------------------------------------------------------------------------- */

MAKO_FUNCTION(mako_exempt);
MAKO_FUNCTION(mako_unexempt);
MAKO_FUNCTION(mako_set_dispatch);

/* This workflow needs no migration: its streams stand in the way of no retirement. */
Datum
mako_exempt(PG_FUNCTION_ARGS)
{
	char	   *workflow_id = required_text(fcinfo, 0, "workflow_id");
	char	   *reason = required_text(fcinfo, 1, "reason");
	Datum		values[4] = {CStringGetTextDatum(workflow_id), CStringGetTextDatum(reason)};
	MakoConnection connection = connect_to_change("mako_exempt()");
	MakoRows	rows;

	if (reason[strspn(reason, " \t\n")] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("reason must not be empty"),
				 errhint("Say why the processes of \"%s\" may stay where they are.", workflow_id)));
	if (!mako_door_has_table("stream"))
		(void) mako_definition_workflow(workflow_id);
	else if (!is_used(&is_known, values))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("workflow \"%s\" is neither registered nor in the store", workflow_id),
				 errhint("mako_coverage() shows which workflows streams run under.")));
	require_rights_on_exemption(workflow_id);
	rows = mako_sql_query(&select_steps_from, values, NULL);
	if (rows.count > 0)
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("state migrations of \"%s\" are registered", workflow_id),
				 errdetail("mako_migrate_version() leaves exempt workflows where they are, all of their streams."),
				 errhint("To let them be migrated, use mako_unexempt().")));
	mako_rows_free(&rows);
	bind_caller(2, values);
	(void) write_definition(&insert_exemption, values, NULL);
	mako_sql_disconnect(connection);
	PG_RETURN_VOID();
}

/* Takes an exemption back, while the version is not retired because of it. */
Datum
mako_unexempt(PG_FUNCTION_ARGS)
{
	char	   *workflow_id = required_text(fcinfo, 0, "workflow_id");
	Datum		values[] = {CStringGetTextDatum(workflow_id)};
	MakoConnection connection = connect_to_change("mako_unexempt()");
	const char *status = NULL;

	require_rights_on_exemption(workflow_id);
	if (mako_door_has_table("format_version"))
	{
		mako_fence_lock(workflow_id);
		status = mako_fence_status(mako_workflow_id_version(workflow_id));
	}
	if (status != NULL && strcmp(status, "retired") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the exemption of \"%s\" cannot be taken back", workflow_id),
				 errdetail("Its format version is retired, which the exemption may have allowed."),
				 errhint("Use mako_reactivate() first.")));
	if (write_definition(&delete_exemption, values, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("workflow \"%s\" is not exempt", workflow_id),
				 errhint("The table mako_exemption shows what is.")));
	mako_sql_disconnect(connection);
	PG_RETURN_VOID();
}

/* Says which messages reach the processes of a workflow. */
Datum
mako_set_dispatch(PG_FUNCTION_ARGS)
{
	char	   *workflow_id = required_text(fcinfo, 0, "workflow_id");
	char	   *policy = required_text(fcinfo, 1, "policy");
	bool		is_explicit = strcmp(policy, "explicit") == 0;
	Datum		values[] = {CStringGetTextDatum(workflow_id), CStringGetTextDatum(policy), (Datum) 0};
	MakoConnection connection;

	if (!is_explicit && strcmp(policy, "any") != 0 && strcmp(policy, "forward_compatible") != 0 && strcmp(policy, "pinned") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("there is no dispatch policy \"%s\"", policy),
				 errhint("The policies are any, forward_compatible, pinned and explicit.")));
	if (is_explicit == PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg(is_explicit ? "the dispatch policy explicit needs format_versions" :
						"only the dispatch policy explicit has format_versions"),
				 errhint("List the format versions whose messages are accepted with the policy explicit.")));
	if (is_explicit)
	{
		ArrayType  *versions = PG_GETARG_ARRAYTYPE_P_COPY(2);

		ARR_ELEMTYPE(versions) = TEXTOID;	/* the domain's base type: no column has one of ours */
		values[2] = PointerGetDatum(versions);
	}
	connection = connect_to_change("mako_set_dispatch()");
	(void) require_rights_on_workflow(workflow_id);
	if (write_definition(&update_dispatch, values, is_explicit ? NULL : "  n") == 0)
		raise_not_registered(workflow_id);
	mako_sql_disconnect(connection);
	PG_RETURN_VOID();
}
