/*
 * exemption.c
 *	  Workflows that need no migration: their streams stand in the way of no retirement.
 */
#include "migrate/migrate.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"

static MakoStatement is_known = {
	"SELECT EXISTS (SELECT FROM %s.mako_workflow WHERE workflow_id::text = $1)"
	" OR EXISTS (SELECT FROM mako.stream WHERE workflow_id = $1)",
	1, {TEXTOID}
};

static MakoStatement select_steps_from = {
	"SELECT FROM %s.mako_state_migration WHERE source_wf::text = $1", 1, {TEXTOID}
};

static MakoStatement select_owner_of_exemption = {
	"SELECT exempted_by, exempted_by_identity, '{}'::text[], '{}'::text[] FROM %s.mako_exemption"
	" WHERE workflow_id::text = $1",
	1, {TEXTOID}
};

static MakoStatement insert_exemption = {
	"INSERT INTO %s.mako_exemption (workflow_id, reason, exempted_by, exempted_by_identity)"
	" VALUES ($1, $2, $3, $4)"
	" ON CONFLICT (workflow_id) DO UPDATE"
	" SET reason = $2, exempted_by = $3, exempted_by_identity = $4, exempted_at = now()",
	4, {TEXTOID, TEXTOID, TEXTOID, TEXTOID}
};

static MakoStatement delete_exemption = {
	"DELETE FROM %s.mako_exemption WHERE workflow_id::text = $1", 1, {TEXTOID}
};

/*
 * Raises unless the caller may change the exemption of a workflow: it is the workflow's or, of one
 * that is not registered, its own.
 */
static void
require_rights_on_exemption(const char *workflow_id)
{
	NullableDatum key = mako_text(workflow_id);

	if (!mako_register_require_workflow(workflow_id))
		(void) mako_register_require(&select_owner_of_exemption, &key, "the exemption of",
									 workflow_id, "made");
}

MAKO_FUNCTION(mako_exempt);
MAKO_FUNCTION(mako_unexempt);

/* This workflow needs no migration: its streams stand in the way of no retirement. */
Datum
mako_exempt(PG_FUNCTION_ARGS)
{
	char	   *workflow_id = mako_argument_text(fcinfo, 0, "workflow_id");
	char	   *reason = mako_argument_text(fcinfo, 1, "reason");
	NullableDatum values[4] = {mako_text(workflow_id), mako_text(reason)};
	MakoConnection connection = mako_register_begin("mako_exempt()");
	MakoRows	rows;

	if (reason[strspn(reason, " \t\n")] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("reason must not be empty"),
				 errhint("Say why the processes of \"%s\" may stay where they are.", workflow_id)));
	if (!mako_door_has_table("stream"))
		(void) mako_definition_workflow(workflow_id);
	else if (!mako_register_is_used(&is_known, values))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("workflow \"%s\" is neither registered nor in the store", workflow_id),
				 errhint("mako_coverage() shows which workflows streams run under.")));
	require_rights_on_exemption(workflow_id);
	rows = mako_sql_query(&select_steps_from, values);
	if (rows.count > 0)
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("state migrations of \"%s\" are registered", workflow_id),
				 errdetail("mako_migrate_version() leaves exempt workflows where they "
						   "are, all of their streams."),
				 errhint("To let them be migrated, use mako_unexempt().")));
	mako_rows_free(&rows);
	mako_actors_bind_caller(2, values);
	(void) mako_register_write(&insert_exemption, values);
	mako_sql_disconnect(connection);
	PG_RETURN_VOID();
}

/* Takes an exemption back, while the version is not retired because of it. */
Datum
mako_unexempt(PG_FUNCTION_ARGS)
{
	char	   *workflow_id = mako_argument_text(fcinfo, 0, "workflow_id");
	NullableDatum values[] = {mako_text(workflow_id)};
	MakoConnection connection = mako_register_begin("mako_unexempt()");
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
	if (mako_register_write(&delete_exemption, values) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("workflow \"%s\" is not exempt", workflow_id),
				 errhint("The table mako_exemption shows what is.")));
	mako_sql_disconnect(connection);
	PG_RETURN_VOID();
}
