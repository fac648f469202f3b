/*
 * route.c
 *	  mako_lookup(): where a routing key leads, and whether a message may go there.
 *
 * Keys belong to a tenant, and lead to streams of that tenant only. With the format version of a message, the dispatch policy of the
 * process's workflow is enforced. What is refused here, the store's tables refuse later, too; this says so before the message is handled.
 */
#include "mako_migration.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"

static MakoStatement select_stream = {
	"SELECT s.stream_id, s.process_id, s.workflow_id, s.version"
	" FROM mako.registry r JOIN mako.stream s ON s.stream_no OPERATOR(pg_catalog.=) r.stream_no"
	" AND s.tenant_id OPERATOR(pg_catalog.=) r.tenant_id"
	" WHERE r.tenant_id OPERATOR(pg_catalog.=) $1 AND r.key OPERATOR(pg_catalog.=) $2"
	" AND (r.expires_at IS NULL OR r.expires_at OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp())",
	2, {UUIDOID, TEXTOID}
};

/* The policy, what it says in words, and whether a message of version $3 may reach a process of version $2. */
static MakoStatement select_policy = {
	"SELECT w.dispatch, CASE w.dispatch WHEN 'forward_compatible' THEN 'messages of the process''s version and later ones'"
	"   WHEN 'pinned' THEN 'messages of the process''s own version'"
	"   ELSE 'messages of ' || array_to_string(w.dispatch_versions, ', ') END,"
	"  CASE w.dispatch WHEN 'any' THEN true WHEN 'pinned' THEN $3 = $2 WHEN 'forward_compatible' THEN $3 COLLATE \"C\" >= $2"
	"   ELSE $3 = ANY (w.dispatch_versions) END"
	" FROM %s.mako_workflow w WHERE w.workflow_id::text = $1",
	3, {TEXTOID, TEXTOID, TEXTOID}
};

/* Raises when a message of a format version must not reach a process of a workflow. */
static void
check_dispatch(const char *stream_id, const char *workflow_id, const char *message)
{
	const char *process = mako_workflow_id_version(workflow_id);
	const char *status = mako_fence_status(process);
	const char *closed = mako_fence_closed(message);
	Datum		values[] = {CStringGetTextDatum(workflow_id), CStringGetTextDatum(process), CStringGetTextDatum(message)};
	MakoRows	rows;
	bool		isnull;

	if (status != NULL && strcmp(status, "retired") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("process \"%s\" takes no messages", stream_id),
				 errdetail("It runs under \"%s\", whose format version is retired. The message is of version \"%s\".",
						   workflow_id, message),
				 errhint("The process was left behind. mako_migrate() takes it away from the retired version.")));
	if (closed != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("messages of format version \"%s\" are not accepted any more", message),
				 errdetail("They were until %s. Process \"%s\" runs under \"%s\".", closed, stream_id, workflow_id),
				 errhint("Ask the sender for the message in the current format.")));

	rows = mako_sql_query_snapshot(&select_policy, values, NULL);
	if (rows.count > 0 && !DatumGetBool(mako_rows_get(&rows, 0, 3, &isnull)))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("process \"%s\" does not take messages of format version \"%s\"", stream_id, message),
				 errdetail("It runs under \"%s\", whose dispatch policy \"%s\" allows %s.", workflow_id,
						   mako_rows_text(&rows, 0, 1), mako_rows_text(&rows, 0, 2)),
				 errhint("The policy is set with mako_set_dispatch().")));
	mako_rows_free(&rows);
}

MAKO_FUNCTION(mako_lookup);

/* The stream that a key leads to; no row for an unknown or expired one. */
Datum
mako_lookup(PG_FUNCTION_ARGS)
{
	static const char *const names[] = {"tenant_id", "key"};
	MakoRowSet *result = mako_rowset_begin(fcinfo);
	Datum		key[] = {PG_GETARG_DATUM(0), PG_GETARG_DATUM(1)};
	MakoConnection connection;
	MakoRows	rows;

	for (size_t i = 0; i < lengthof(names); i++)
		mako_require_value(!PG_ARGISNULL(i), names[i]);
	(void) mako_store_table("registry");
	connection = mako_sql_connect_visible();
	rows = mako_sql_query_snapshot(&select_stream, key, NULL);
	if (rows.count > 0)
	{
		Datum		values[4];
		bool		nulls[4];

		for (int i = 0; i < 4; i++)
			values[i] = mako_rows_get(&rows, 0, i + 1, &nulls[i]);
		if (!PG_ARGISNULL(2))
			check_dispatch(TextDatumGetCString(values[0]), TextDatumGetCString(values[2]), TextDatumGetCString(PG_GETARG_DATUM(2)));
		mako_rowset_add(result, values, nulls);
	}
	mako_rows_free(&rows);
	mako_sql_disconnect(connection);
	PG_RETURN_NULL();
}
