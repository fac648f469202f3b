/*
 * register.c
 *	  The functions that register workflows and state migrations, and that change what is
 *	  registered.
 *
 * No role may write the definition tables directly, because a row decides which function runs with
 * its owner's rights. The registration functions check that the caller has those rights himself
 * and then write the row as the tables' owner, as referential integrity does. That one statement
 * is all that does not run with the caller's rights.
 *
 * A definition belongs to the role that registered it, whose privileges it takes to change it. The
 * owners of its functions may, too: they could change those anyway. The owners of helpers that are
 * SECURITY DEFINER are remembered after them, and may not.
 */
#include "define/definition.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

static MakoStatement insert_workflow = {
	"INSERT INTO %s.mako_workflow (workflow_id, apply, upcast, in_flight, initial_state,"
	" event_type_definition, state_type_definition, state_schema_version, function_owner,"
	" function_owner_identity, fingerprint, registered_by, registered_by_identity)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"
	" ON CONFLICT (workflow_id) DO UPDATE"
	" SET apply = $2, upcast = $3, in_flight = $4, initial_state = $5,"
	" event_type_definition = $6, state_type_definition = $7, state_schema_version = $8,"
	" function_owner = $9, function_owner_identity = $10, fingerprint = $11, registered_by = $12,"
	" registered_by_identity = $13, registered_at = now()",
	13, {TEXTOID, TEXTOID, TEXTOID, TEXTOID, JSONBOID, JSONBOID, JSONBOID, INT4OID, TEXTARRAYOID,
	TEXTARRAYOID, TEXTOID, TEXTOID, TEXTOID}
};

static MakoStatement insert_migration = {
	"INSERT INTO %s.mako_state_migration (source_wf, target_wf, migrate, function_owner,"
	" function_owner_identity, fingerprint, registered_by, registered_by_identity)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
	" ON CONFLICT (source_wf, target_wf) DO UPDATE"
	" SET migrate = $3, function_owner = $4, function_owner_identity = $5,"
	" fingerprint = $6, registered_by = $7, registered_by_identity = $8, registered_at = now()",
	8, {TEXTOID, TEXTOID, TEXTOID, TEXTARRAYOID, TEXTARRAYOID, TEXTOID, TEXTOID, TEXTOID}
};

/*
 * Whose a definition is: who registered it, and the owners of its functions, without those of
 * helpers.
 */
static MakoStatement select_owners_of_workflow = {
	"SELECT registered_by, registered_by_identity,"
	" function_owner[:num_nonnulls(apply, upcast, in_flight)],"
	" function_owner_identity[:num_nonnulls(apply, upcast, in_flight)] FROM %s.mako_workflow"
	" WHERE workflow_id::text = $1",
	1, {TEXTOID}
};

static MakoStatement select_owners_of_migration = {
	"SELECT registered_by, registered_by_identity, function_owner[:num_nonnulls(migrate)],"
	" function_owner_identity[:num_nonnulls(migrate)] FROM %s.mako_state_migration"
	" WHERE source_wf::text = $1 AND target_wf::text = $2",
	2, {TEXTOID, TEXTOID}
};

static MakoStatement delete_workflow = {
	"DELETE FROM %s.mako_workflow WHERE workflow_id::text = $1", 1, {TEXTOID}
};

static MakoStatement delete_migration = {
	"DELETE FROM %s.mako_state_migration WHERE source_wf::text = $1 AND target_wf::text = $2",
	2, {TEXTOID, TEXTOID}
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
	"SELECT EXISTS (SELECT FROM mako.migration_run r,"
	" generate_series(1, cardinality(r.path) - 1) AS i"
	" WHERE r.path[i] = $1 AND r.path[i + 1] = $2 AND r.migrated > 0)",
	2, {TEXTOID, TEXTOID}
};

static MakoStatement update_dispatch = {
	"UPDATE %s.mako_workflow SET dispatch = $2, dispatch_versions = $3"
	" WHERE workflow_id::text = $1",
	3, {TEXTOID, TEXTOID, TEXTARRAYOID}
};

/* ---- what all of them do -------------------------------------------------------------------- */

/*
 * Connects, and lets one session at a time change definitions, so that none loses what it refers
 * to.
 */
MakoConnection
mako_register_begin(const char *function)
{
	MakoConnection connection;

	mako_gate_require_change(function);
	connection = mako_sql_connect();
	LockRelationOid(get_relname_relid("mako_workflow", mako_extension_schema()),
					ShareRowExclusiveLock);
	return connection;
}

/* Writes a definition as the owner of the definition tables. */
uint64
mako_register_write(MakoStatement *statement, const NullableDatum *values)
{
	MakoGate	gate = mako_gate_enter(mako_extension_owner());
	uint64		written = mako_sql_execute(statement, values);

	mako_gate_leave(&gate);
	return written;
}

/* Returns true if the store holds anything that depends on a definition. */
bool
mako_register_is_used(MakoStatement *statement, const NullableDatum *values)
{
	MakoRows	rows;
	bool		used;

	if (!mako_door_has_table("migration_run"))
		return false;
	rows = mako_sql_query(statement, values);
	used = mako_row_boolean(&rows, 0, 1);
	mako_rows_free(&rows);
	return used;
}

/*
 * Raises unless the caller may change what is registered: with the privileges of the role that did
 * it, of the owners of its functions, or of the extension's owner. Returns false when there is
 * nothing.
 */
bool
mako_register_require(MakoStatement *select, const NullableDatum *key, const char *kind,
					  const char *name, const char *done)
{
	MakoRows	rows = mako_sql_query(select, key);
	MakoOwners	owners;
	char	   *by;
	Oid			role;

	if (rows.count == 0)
		return false;
	by = mako_row_text(&rows, 0, 1);
	role = mako_role_find(by, mako_row_text(&rows, 0, 2));
	owners = mako_definition_owners(&rows, 0, 3);
	mako_rows_free(&rows);
	if ((OidIsValid(role) && has_privs_of_role(GetUserId(), role)) ||
		mako_owners_are_callers(&owners) || has_privs_of_role(GetUserId(), mako_extension_owner()))
		return true;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for %s \"%s\"", kind, name),
			 OidIsValid(role) ?
			 errdetail("It was %s by role \"%s\".", done, GetUserNameFromId(role, false)) :
			 errdetail("It was %s by role \"%s\", which does not exist any more.", done, by),
			 errhint("It takes the privileges of that role, of all owners of its functions, "
					 "or of the extension's owner. Use SET ROLE if you have them.")));
}

/* Raises unless the caller may change a workflow, if it is registered; false if it is not. */
bool
mako_register_require_workflow(const char *workflow_id)
{
	NullableDatum key = mako_text(workflow_id);

	return mako_register_require(&select_owners_of_workflow, &key, "workflow", workflow_id,
								 "registered");
}

/* Raises unless a definition may take the place of another one. */
static void
require_replace(MakoRegistered registered, bool replace, const char *kind, const char *name)
{
	if (registered == MAKO_REGISTERED_OTHER && !replace)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("%s \"%s\" is already registered with another definition", kind, name),
				 errhint("Register it with replace => true to replace it.")));
}

/* Warns if something in the store was made with the definition that is replaced. */
static void
warn_if_used(MakoRegistered registered, MakoStatement *uses, const NullableDatum *key,
			 const char *kind, const char *name)
{
	if (registered == MAKO_REGISTERED_OTHER && mako_register_is_used(uses, key))
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("replaced %s \"%s\", which the store already depends on", kind, name),
				 errdetail("States that were computed with the old definition "
						   "are not computed again.")));
}

/* The function that an argument names; NULL for null. */
static MakoFunction *
function_argument(FunctionCallInfo fcinfo, int argument, MakoRole role)
{
	return PG_ARGISNULL(argument) ? NULL :
		mako_function_resolve(TextDatumGetCString(PG_GETARG_DATUM(argument)), role);
}

/* The JSON document of an argument; NULL for null. */
static Jsonb *
document_argument(FunctionCallInfo fcinfo, int argument)
{
	return PG_ARGISNULL(argument) ? NULL : PG_GETARG_JSONB_P(argument);
}

/* The signature of a function as a parameter; null for NULL. */
static NullableDatum
signature_of(const MakoFunction *function)
{
	return mako_text(function == NULL ? NULL : format_procedure_qualified(function->oid));
}

/* A JSON document as a parameter; null for NULL. */
static NullableDatum
document_of(const Jsonb *document)
{
	return mako_reference(PointerGetDatum(document));
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
	if (workflow->apply == NULL &&
		(workflow->upcast != NULL || workflow->event_type_source != NULL))
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
		mako_type_definition_require_state(workflow->state_type, workflow->workflow_id,
										   workflow->initial_state);
}

/*
 * Raises unless the state that a workflow begins with fits the domain that apply declares for it.
 */
static void
check_initial_state(const MakoWorkflow *workflow)
{
	ErrorContextCallback context = {
		error_context_stack, mako_definition_add_context, workflow->workflow_id
	};

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
	MakoFunction *functions[] = MAKO_WORKFLOW_FUNCTIONS(workflow);
	NullableDatum values[13] = {mako_text(workflow->workflow_id)};
	List	   *actors = mako_actors_of(functions, lengthof(functions), workflow->helpers);
	MakoRegistered registered = mako_definition_compare_workflow(workflow, actors);

	if (registered == MAKO_REGISTERED_SAME)
		return;
	require_replace(registered, replace, "workflow", workflow->workflow_id);
	(void) mako_register_require_workflow(workflow->workflow_id);
	warn_if_used(registered, &select_uses_of_workflow, values, "workflow", workflow->workflow_id);
	for (size_t i = 0; i < lengthof(functions); i++)
		values[i + 1] = signature_of(functions[i]);
	values[4] = document_of(workflow->initial_state);
	values[5] = document_of(workflow->event_type_source);
	values[6] = document_of(workflow->state_type_source);
	values[7] = mako_integer(workflow->state_schema_version);
	mako_actors_bind(actors, 8, values);
	values[10] = mako_text(workflow->fingerprint);
	mako_actors_bind_caller(11, values);
	(void) mako_register_write(&insert_workflow, values);
	(void) mako_definition_describe_workflow(workflow, true);	/* says what it cannot see */
}

/* ---- the functions -------------------------------------------------------------------------- */

MAKO_FUNCTION(mako_register_workflow);
MAKO_FUNCTION(mako_unregister_workflow);
MAKO_FUNCTION(mako_register_migration);
MAKO_FUNCTION(mako_unregister_migration);
MAKO_FUNCTION(mako_set_dispatch);

/* Registers a workflow version: see the install script. */
Datum
mako_register_workflow(PG_FUNCTION_ARGS)
{
	MakoWorkflow workflow = {0};
	MakoConnection connection;
	bool		replace = !PG_ARGISNULL(8) && PG_GETARG_BOOL(8);

	workflow.workflow_id = mako_argument_text(fcinfo, 0, "workflow_id");
	/* The caller's path decides what his names mean; afterwards ours decides. */
	workflow.apply = function_argument(fcinfo, 1, MAKO_ROLE_APPLY);
	workflow.upcast = function_argument(fcinfo, 2, MAKO_ROLE_UPCAST);
	workflow.in_flight = function_argument(fcinfo, 3, MAKO_ROLE_IN_FLIGHT);
	workflow.initial_state = document_argument(fcinfo, 4);
	workflow.state_schema_version = PG_ARGISNULL(5) ? 1 : PG_GETARG_INT32(5);
	workflow.event_type_source = document_argument(fcinfo, 6);
	workflow.state_type_source = document_argument(fcinfo, 7);
	mako_definition_compile_types(&workflow);
	check_workflow(&workflow);
	connection = mako_register_begin("mako_register_workflow()");
	workflow.fingerprint = mako_fingerprint_digest(mako_definition_describe_workflow(&workflow,
																					 false));
	check_initial_state(&workflow);

	write_workflow(&workflow, replace);
	mako_sql_disconnect(connection);
	PG_RETURN_VOID();
}

/* Forgets a workflow that nothing refers to. */
Datum
mako_unregister_workflow(PG_FUNCTION_ARGS)
{
	char	   *workflow_id = mako_argument_text(fcinfo, 0, "workflow_id");
	NullableDatum values[] = {mako_text(workflow_id)};
	MakoConnection connection = mako_register_begin("mako_unregister_workflow()");
	MakoRows	rows;

	(void) mako_register_require_workflow(workflow_id);
	rows = mako_sql_query(&select_steps_of_workflow, values);
	if (rows.count > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("workflow \"%s\" cannot be unregistered", workflow_id),
				 errdetail("State migration \"%s\" is registered.", mako_row_text(&rows, 0, 1)),
				 errhint("Unregister its state migrations first.")));
	mako_rows_free(&rows);
	if (mako_register_is_used(&select_uses_of_workflow, values))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("workflow \"%s\" cannot be unregistered", workflow_id),
				 errdetail("Streams or migration snapshots in the store depend on it.")));
	if (mako_register_write(&delete_workflow, values) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("workflow \"%s\" is not registered", workflow_id),
				 errhint("The table mako_workflow shows what is registered.")));
	mako_sql_disconnect(connection);
	PG_RETURN_VOID();
}

/*
 * Writes a step, unless it is there already. It decides what becomes of the states of both
 * workflows, so it takes the rights to change those as well.
 */
static void
write_migration(MakoStateMigration *migration, bool replace)
{
	NullableDatum values[8] = {mako_text(migration->source_wf), mako_text(migration->target_wf)};
	char	   *name = psprintf("%s -> %s", migration->source_wf, migration->target_wf);
	List	   *actors = mako_actors_of(&migration->migrate, 1, migration->helpers);
	MakoRegistered registered = mako_definition_compare_migration(migration, actors);

	if (registered == MAKO_REGISTERED_SAME)
		return;
	require_replace(registered, replace, "state migration", name);
	(void) mako_register_require(&select_owners_of_migration, values, "state migration",
								 name, "registered");
	(void) mako_register_require_workflow(migration->source_wf);
	(void) mako_register_require_workflow(migration->target_wf);
	warn_if_used(registered, &select_uses_of_migration, values, "state migration", name);
	values[2] = signature_of(migration->migrate);
	mako_actors_bind(actors, 3, values);
	values[5] = mako_text(migration->fingerprint);
	mako_actors_bind_caller(6, values);
	(void) mako_register_write(&insert_migration, values);
	(void) mako_definition_describe_migration(migration, true); /* says what it cannot see */
}

/* Registers one step from a workflow version to another. */
Datum
mako_register_migration(PG_FUNCTION_ARGS)
{
	MakoStateMigration migration = {0};
	MakoConnection connection;
	bool		replace = !PG_ARGISNULL(3) && PG_GETARG_BOOL(3);

	migration.source_wf = mako_argument_text(fcinfo, 0, "source_wf");
	migration.target_wf = mako_argument_text(fcinfo, 1, "target_wf");
	if (strcmp(migration.source_wf, migration.target_wf) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("source and target of a state migration must differ"),
				 errdetail("Both are \"%s\".", migration.source_wf)));
	if (!mako_workflow_id_same_name(migration.source_wf, migration.target_wf))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("source and target of a state migration must be versions of one workflow"),
				 errdetail("They are \"%s\" and \"%s\".",
						   migration.source_wf, migration.target_wf)));

	migration.migrate = function_argument(fcinfo, 2, MAKO_ROLE_MIGRATE);
	connection = mako_register_begin("mako_register_migration()");
	(void) mako_definition_workflow(migration.source_wf);
	(void) mako_definition_workflow(migration.target_wf);
	migration.fingerprint = mako_fingerprint_digest(mako_definition_describe_migration(&migration,
																					   false));

	write_migration(&migration, replace);
	mako_sql_disconnect(connection);
	PG_RETURN_VOID();
}

/* Forgets a step that no run went through. */
Datum
mako_unregister_migration(PG_FUNCTION_ARGS)
{
	char	   *source_wf = mako_argument_text(fcinfo, 0, "source_wf");
	char	   *target_wf = mako_argument_text(fcinfo, 1, "target_wf");
	NullableDatum values[] = {mako_text(source_wf), mako_text(target_wf)};
	MakoConnection connection = mako_register_begin("mako_unregister_migration()");

	(void) mako_register_require(&select_owners_of_migration, values, "state migration",
								 psprintf("%s -> %s", source_wf, target_wf), "registered");
	if (mako_register_is_used(&select_uses_of_migration, values))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("state migration \"%s -> %s\" cannot be unregistered",
						source_wf, target_wf),
				 errdetail("Migration runs in the store went through it.")));
	if (mako_register_write(&delete_migration, values) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("state migration \"%s -> %s\" is not registered", source_wf, target_wf),
				 errhint("The table mako_state_migration shows what is registered.")));
	mako_sql_disconnect(connection);
	PG_RETURN_VOID();
}

/* Says which messages reach the processes of a workflow. */
Datum
mako_set_dispatch(PG_FUNCTION_ARGS)
{
	char	   *workflow_id = mako_argument_text(fcinfo, 0, "workflow_id");
	char	   *policy = mako_argument_text(fcinfo, 1, "policy");
	bool		is_explicit = strcmp(policy, "explicit") == 0;
	NullableDatum values[] = {mako_text(workflow_id), mako_text(policy), mako_null()};
	MakoConnection connection;

	if (!is_explicit && strcmp(policy, "any") != 0 && strcmp(policy, "forward_compatible") != 0 &&
		strcmp(policy, "pinned") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("there is no dispatch policy \"%s\"", policy),
				 errhint("The policies are any, forward_compatible, pinned and explicit.")));
	if (is_explicit == PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg(is_explicit ? "the dispatch policy explicit needs format_versions" :
						"only the dispatch policy explicit has format_versions"),
				 errhint("List the format versions whose messages are accepted "
						 "with the policy explicit.")));
	if (is_explicit)
	{
		ArrayType  *versions = PG_GETARG_ARRAYTYPE_P_COPY(2);

		ARR_ELEMTYPE(versions) = TEXTOID;	/* the domain's base type: no column has one of ours */
		values[2] = mako_datum(PointerGetDatum(versions));
	}
	connection = mako_register_begin("mako_set_dispatch()");
	(void) mako_register_require_workflow(workflow_id);
	if (mako_register_write(&update_dispatch, values) == 0)
		mako_definition_raise_unknown(workflow_id);
	mako_sql_disconnect(connection);
	PG_RETURN_VOID();
}
