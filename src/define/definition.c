/*
 * definition.c
 *	  What is registered: workflows and state migrations, verified at every use.
 */
#include "define/definition.h"

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
	"SELECT apply, upcast, in_flight, initial_state, event_type_definition, state_type_definition,"
	" state_schema_version, function_owner, function_owner_identity, fingerprint"
	" FROM %s.mako_workflow WHERE workflow_id::text = $1",
	1, {TEXTOID}
};

/* Runs on the caller's path, too. */
static MakoStatement select_fingerprint = {
	"SELECT fingerprint FROM %s.mako_workflow"
	" WHERE workflow_id::pg_catalog.text OPERATOR(pg_catalog.=) $1",
	1, {TEXTOID}
};

static MakoStatement select_migration = {
	"SELECT migrate, function_owner, function_owner_identity, fingerprint"
	" FROM %s.mako_state_migration WHERE source_wf::text = $1 AND target_wf::text = $2",
	2, {TEXTOID, TEXTOID}
};

/* ---- what a definition is ------------------------------------------------------------------- */

/*
 * Adds the functions of a definition to its text. Returns their helpers (OIDs) that run as another
 * role, in the order of the text.
 */
static List *
add_functions(StringInfo text, MakoFunction *const *functions, int count, bool tell_unseen)
{
	List	   *helpers = NIL;

	for (int i = 0; i < count; i++)
		if (functions[i] != NULL)
		{
			appendStringInfo(text, "%s under %s\n",
							 mako_function_role(functions[i]->role), mako_gate_settings_text());
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
char *
mako_definition_describe_workflow(MakoWorkflow *workflow, bool tell_unseen)
{
	MakoFunction *functions[] = MAKO_WORKFLOW_FUNCTIONS(workflow);
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfo(&text, "workflow %s\nstate schema version %d\n",
					 workflow->workflow_id, workflow->state_schema_version);
	add_document(&text, "initial state", workflow->initial_state);
	add_document(&text, "event type definition", workflow->event_type_source);
	add_document(&text, "state type definition", workflow->state_type_source);
	workflow->helpers = add_functions(&text, functions, lengthof(functions), tell_unseen);
	return text.data;
}

/* A state migration as it is now, as text; notes its helpers. */
char *
mako_definition_describe_migration(MakoStateMigration *migration, bool tell_unseen)
{
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfo(&text, "state migration %s -> %s\n",
					 migration->source_wf, migration->target_wf);
	migration->helpers = add_functions(&text, &migration->migrate, 1, tell_unseen);
	return text.data;
}

/* ---- use ------------------------------------------------------------------------------------ */

/* Finds the function that a column of a definition names; NULL for none. */
static MakoFunction *
lookup_column(const MakoRows *rows, int column, MakoRole role, const char *registered_for)
{
	char	   *signature = mako_row_text(rows, 0, column);

	return signature == NULL ? NULL : mako_function_lookup(signature, role, registered_for);
}

/*
 * Raises when the functions of a definition, or its helpers that run as another role, have other
 * owners than when they were registered. The helpers are those that were registered only if the
 * text is the same.
 */
static void
verify_owners(const MakoRows *rows, int column, MakoFunction *const *functions, int count,
			  const List *helpers)
{
	MakoOwners	owners = mako_definition_owners(rows, 0, column);
	int			number;
	const MakoActor *other = mako_actors_find_other(&owners,
													mako_actors_of(functions, count, helpers),
													&number);

	if (other != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg(MAKO_OTHER_OWNER, other->signature),
				 errdetail("It would run with the rights of \"%s\"; registered was \"%s\".",
						   GetUserNameFromId(other->owner, false),
						   number < owners.count ? owners.name[number] : ""),
				 errhint("Register it again with replace => true.")));
}

/* Raises when a definition, as text, is not what was registered. */
static void
verify_fingerprint(const char *kind, const char *name, const char *registered,
				   const char *description)
{
	if (strcmp(registered, mako_fingerprint_digest(description)) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the definition of %s \"%s\" has changed since it was registered",
						kind, name),
				 errdetail("A function, or something that its results depend on, "
						   "is not what was registered."),
				 errhint("Review the change, then register it again with replace => true.")));
}

/* A JSON document of a definition's row, copied; NULL for null. */
static Jsonb *
row_document(const MakoRows *rows, int column)
{
	NullableDatum value = mako_row_value(rows, 0, column, JSONBOID);

	return value.isnull ? NULL : DatumGetJsonbPCopy(value.value);
}

/* Compiles the type definitions of a workflow. */
void
mako_definition_compile_types(MakoWorkflow *workflow)
{
	if (workflow->event_type_source != NULL)
		workflow->event_type = mako_type_definition_compile(workflow->event_type_source);
	if (workflow->state_type_source != NULL)
		workflow->state_type = mako_type_definition_compile(workflow->state_type_source);
}

/* Says which definition an error is in: a function or type that it names may be gone. */
void
mako_definition_add_context(void *name)
{
	errcontext("definition of \"%s\"", (const char *) name);
}

/* Raises that there is no such workflow. */
void
mako_definition_raise_unknown(const char *workflow_id)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("workflow \"%s\" is not registered", workflow_id),
			 errhint("The table mako_workflow shows what is registered; "
					 "mako_register_workflow() adds to it.")));
}

/* The registered workflow, verified; an error when there is none. */
MakoWorkflow *
mako_definition_workflow(const char *workflow_id)
{
	ErrorContextCallback context = {
		error_context_stack, mako_definition_add_context, unconstify(char *, workflow_id)
	};
	MakoWorkflow *workflow = palloc0(sizeof(MakoWorkflow));
	NullableDatum values[] = {mako_text(workflow_id)};
	MakoRows	rows = mako_sql_query(&select_workflow, values);

	if (rows.count == 0)
		mako_definition_raise_unknown(workflow_id);
	error_context_stack = &context;
	workflow->workflow_id = pstrdup(workflow_id);
	workflow->apply = lookup_column(&rows, 1, MAKO_ROLE_APPLY, workflow_id);
	workflow->upcast = lookup_column(&rows, 2, MAKO_ROLE_UPCAST, workflow_id);
	workflow->in_flight = lookup_column(&rows, 3, MAKO_ROLE_IN_FLIGHT, workflow_id);
	workflow->initial_state = row_document(&rows, 4);
	workflow->event_type_source = row_document(&rows, 5);
	workflow->state_type_source = row_document(&rows, 6);
	mako_definition_compile_types(workflow);
	workflow->state_schema_version = mako_row_integer(&rows, 0, 7);
	{
		MakoFunction *functions[] = MAKO_WORKFLOW_FUNCTIONS(workflow);

		verify_owners(&rows, 8, functions, lengthof(functions), NIL);
		workflow->fingerprint = mako_row_text(&rows, 0, 10);
		workflow->description = mako_definition_describe_workflow(workflow, false);
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
	NullableDatum values[] = {mako_text(workflow_id)};
	MakoRows	rows = mako_sql_query(&select_fingerprint, values);
	char	   *fingerprint = rows.count == 0 ? NULL : mako_row_text(&rows, 0, 1);

	mako_rows_free(&rows);
	return fingerprint;
}

/* Raises unless a workflow is registered. */
void
mako_definition_require(const char *workflow_id)
{
	if (mako_definition_fingerprint(workflow_id) == NULL)
		mako_definition_raise_unknown(workflow_id);
}

/* The registered state migration, verified; an error when there is none. */
MakoStateMigration *
mako_definition_migration(const char *source_wf, const char *target_wf)
{
	MakoStateMigration *migration = palloc0(sizeof(MakoStateMigration));
	NullableDatum values[] = {mako_text(source_wf), mako_text(target_wf)};
	MakoRows	rows = mako_sql_query(&select_migration, values);
	char	   *name = psprintf("%s -> %s", source_wf, target_wf);
	ErrorContextCallback context = {error_context_stack, mako_definition_add_context, name};

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
	migration->description = mako_definition_describe_migration(migration, false);
	verify_fingerprint("state migration", name, migration->fingerprint, migration->description);
	verify_owners(&rows, 2, &migration->migrate, 1, migration->helpers);
	error_context_stack = context.previous;
	mako_rows_free(&rows);
	return migration;
}

/* ---- comparison ----------------------------------------------------------------------------- */

/*
 * Compares a definition with what is registered: its text, in the column after those of the
 * owners, and these.
 */
static MakoRegistered
compare_registered(MakoStatement *existing, const NullableDatum *key, int owner_column,
				   const char *fingerprint, const List *actors)
{
	MakoRows	rows = mako_sql_query(existing, key);
	MakoRegistered registered = MAKO_REGISTERED_NONE;
	int			number;

	if (rows.count > 0)
	{
		MakoOwners	owners = mako_definition_owners(&rows, 0, owner_column);

		registered = strcmp(mako_row_text(&rows, 0, owner_column + 2), fingerprint) == 0 &&
			mako_actors_find_other(&owners, actors, &number) == NULL ? MAKO_REGISTERED_SAME :
			MAKO_REGISTERED_OTHER;
	}
	mako_rows_free(&rows);
	return registered;
}

/* Compares a workflow with what is registered under its name. */
MakoRegistered
mako_definition_compare_workflow(const MakoWorkflow *workflow, const List *actors)
{
	NullableDatum key[] = {mako_text(workflow->workflow_id)};

	return compare_registered(&select_workflow, key, 8, workflow->fingerprint, actors);
}

/* Compares a state migration with what is registered between its workflows. */
MakoRegistered
mako_definition_compare_migration(const MakoStateMigration *migration, const List *actors)
{
	NullableDatum key[] = {mako_text(migration->source_wf), mako_text(migration->target_wf)};

	return compare_registered(&select_migration, key, 2, migration->fingerprint, actors);
}
