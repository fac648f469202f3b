/*
 * routing.c
 *	  Routing: keys lead to one stream, tags to many; mako_lookup() says whether a message may go
 *	  there.
 *
 * Keys belong to a tenant, and lead to streams of that tenant only. With the format version of a
 * message, the dispatch policy of the process's workflow is enforced. What is refused here, the
 * store's tables refuse later, too; this says so before the message is handled.
 */
#include "process/process.h"

#include "access/detoast.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

static MakoStatement select_stream = {
	"SELECT s.stream_id, s.process_id, s.workflow_id, s.version"
	" FROM mako.registry r JOIN mako.stream s ON s.stream_no OPERATOR(pg_catalog.=) r.stream_no"
	" AND s.tenant_id OPERATOR(pg_catalog.=) r.tenant_id"
	" WHERE r.tenant_id OPERATOR(pg_catalog.=) $1 AND r.key OPERATOR(pg_catalog.=) $2"
	" AND (r.expires_at IS NULL"
	" OR r.expires_at OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp())",
	2, {UUIDOID, TEXTOID}
};

/*
 * The policy, what it says in words, and whether a message of version $3 may reach a process of
 * version $2.
 */
static MakoStatement select_policy = {
	"SELECT w.dispatch, CASE w.dispatch WHEN 'forward_compatible'"
	" THEN 'messages of the process''s version and later ones'"
	"   WHEN 'pinned' THEN 'messages of the process''s own version'"
	"   ELSE 'messages of ' || array_to_string(w.dispatch_versions, ', ') END,"
	"  CASE w.dispatch WHEN 'any' THEN true WHEN 'pinned' THEN $3 = $2 WHEN 'forward_compatible'"
	" THEN $3 COLLATE \"C\" >= $2"
	"   ELSE $3 = ANY (w.dispatch_versions) END"
	" FROM %s.mako_workflow w WHERE w.workflow_id::text = $1",
	3, {TEXTOID, TEXTOID, TEXTOID}
};

static MakoStatement select_number = {
	"SELECT s.stream_no FROM mako.stream s WHERE s.stream_id OPERATOR(pg_catalog.=) $2"
	" AND s.tenant_id OPERATOR(pg_catalog.=) $1",
	2, {UUIDOID, TEXTOID}
};

/* The same again renews a key; one that has expired is free. */
static MakoStatement upsert_key = {
	"INSERT INTO mako.registry AS r (tenant_id, key, stream_no, expires_at) VALUES ($1, $2, $3, $4)"
	" ON CONFLICT ON CONSTRAINT registry_pkey DO UPDATE"
	" SET stream_no = EXCLUDED.stream_no, expires_at = EXCLUDED.expires_at"
	" WHERE r.stream_no OPERATOR(pg_catalog.=) EXCLUDED.stream_no"
	" OR r.expires_at OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp()",
	4, {UUIDOID, TEXTOID, INT8OID, TIMESTAMPTZOID},.may_defer = true
};

static MakoStatement select_key = {
	"SELECT s.stream_id FROM mako.registry r"
	" JOIN mako.stream s ON s.stream_no OPERATOR(pg_catalog.=) r.stream_no"
	" WHERE r.tenant_id OPERATOR(pg_catalog.=) $1 AND r.key OPERATOR(pg_catalog.=) $2",
	2, {UUIDOID, TEXTOID}
};

static MakoStatement delete_key = {
	"DELETE FROM mako.registry r WHERE r.tenant_id OPERATOR(pg_catalog.=) $1"
	" AND r.key OPERATOR(pg_catalog.=) $2",
	2, {UUIDOID, TEXTOID},.may_defer = true
};

static MakoStatement delete_expired = {
	"DELETE FROM mako.registry r"
	" WHERE r.expires_at OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp()",
	0, {0},.may_defer = true
};

static MakoStatement insert_tag = {
	"INSERT INTO mako.correlation (tenant_id, tag, stream_no) VALUES ($1, $2, $3)"
	" ON CONFLICT ON CONSTRAINT correlation_pkey DO NOTHING",
	3, {UUIDOID, TEXTOID, INT8OID},.may_defer = true
};

static MakoStatement select_tagged = {
	"SELECT s.stream_id, s.process_id, s.workflow_id, s.version FROM mako.correlation c"
	" JOIN mako.stream s ON s.stream_no OPERATOR(pg_catalog.=) c.stream_no"
	" AND s.tenant_id OPERATOR(pg_catalog.=) c.tenant_id"
	" WHERE c.tenant_id OPERATOR(pg_catalog.=) $1 AND c.tag OPERATOR(pg_catalog.=) $2"
	" ORDER BY s.stream_no",
	2, {UUIDOID, TEXTOID}
};

static MakoStatement delete_tag = {
	"DELETE FROM mako.correlation c USING mako.stream s"
	" WHERE c.tenant_id OPERATOR(pg_catalog.=) $1 AND c.tag OPERATOR(pg_catalog.=) $2"
	" AND s.stream_no OPERATOR(pg_catalog.=) c.stream_no AND s.stream_id OPERATOR(pg_catalog.=) $3",
	3, {UUIDOID, TEXTOID, TEXTOID},.may_defer = true
};

/* Bytes of a routing key or tag. */
#define MOST_KEY_BYTES 256

/* Raises when a message of a format version must not reach a process of a workflow. */
static void
check_dispatch(const char *stream_id, const char *workflow_id, const char *message)
{
	const char *process = mako_workflow_id_version(workflow_id);
	const char *status = mako_fence_status(process);
	const char *closed = mako_fence_closed(message);
	NullableDatum values[] = {mako_text(workflow_id), mako_text(process), mako_text(message)};
	MakoRows	rows;

	if (status != NULL && strcmp(status, "retired") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("process \"%s\" takes no messages", stream_id),
				 errdetail("It runs under \"%s\", whose format version is retired. "
						   "The message is of version \"%s\".",
						   workflow_id, message),
				 errhint("The process was left behind. "
						 "mako_migrate() takes it away from the retired version.")));
	if (closed != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("messages of format version \"%s\" are not accepted any more", message),
				 errdetail("They were until %s. Process \"%s\" runs under \"%s\".",
						   closed, stream_id, workflow_id),
				 errhint("Ask the sender for the message in the current format.")));

	rows = mako_sql_query_snapshot(&select_policy, values);
	if (rows.count > 0 && !mako_row_boolean(&rows, 0, 3))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("process \"%s\" does not take messages of format version \"%s\"",
						stream_id, message),
				 errdetail("It runs under \"%s\", whose dispatch policy \"%s\" allows %s.",
						   workflow_id, mako_row_text(&rows, 0, 1), mako_row_text(&rows, 0, 2)),
				 errhint("The policy is set with mako_set_dispatch().")));
	mako_rows_free(&rows);
}

MAKO_FUNCTION(mako_lookup);

/* The stream that a key leads to; no row for an unknown or expired one. */
Datum
mako_lookup(PG_FUNCTION_ARGS)
{
	MakoRowSet *result = mako_rowset_begin(fcinfo);
	NullableDatum key[] = {fcinfo->args[0], fcinfo->args[1]};
	MakoConnection connection;
	MakoRows	rows;

	mako_require_value(!PG_ARGISNULL(0), "tenant_id");
	mako_require_value(!PG_ARGISNULL(1), "key");
	(void) mako_door_table("registry");
	connection = mako_sql_connect_visible();
	rows = mako_sql_query_snapshot(&select_stream, key);
	if (rows.count > 0 && !PG_ARGISNULL(2))
		check_dispatch(mako_row_text(&rows, 0, 1), mako_row_text(&rows, 0, 3),
					   TextDatumGetCString(PG_GETARG_DATUM(2)));
	mako_rowset_add_rows(result, rows);
	mako_sql_disconnect(connection);
	PG_RETURN_NULL();
}

/* ---- keys and tags -------------------------------------------------------------------------- */

MAKO_FUNCTION(mako_register_key);
MAKO_FUNCTION(mako_unregister_key);
MAKO_FUNCTION(mako_expire_keys);
MAKO_FUNCTION(mako_add_tag);
MAKO_FUNCTION(mako_find_tag);
MAKO_FUNCTION(mako_remove_tag);
MAKO_FUNCTION(mako_stream_of);

/* Connects to change routing. */
static MakoConnection
connect_to_route(const char *function)
{
	mako_gate_require_change(function);
	return mako_sql_connect_own();
}

/*
 * The number of the stream that two arguments name by tenant and id; an error when the tenant has
 * none.
 */
static int64
stream_argument(FunctionCallInfo fcinfo, int tenant, int stream)
{
	NullableDatum values[] = {fcinfo->args[tenant], fcinfo->args[stream]};
	MakoRows	rows;
	int64		stream_no;

	mako_require_value(!PG_ARGISNULL(tenant), "tenant_id");
	mako_require_value(!PG_ARGISNULL(stream), "stream_id");
	rows = mako_sql_query_snapshot(&select_number, values);
	if (rows.count == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("tenant %s has no stream \"%s\"",
						DatumGetCString(DirectFunctionCall1(uuid_out, values[0].value)),
						TextDatumGetCString(values[1].value)),
				 errhint("Keys and tags lead to streams of their own tenant only.")));
	stream_no = mako_row_bigint(&rows, 0, 1);
	mako_rows_free(&rows);
	return stream_no;
}

/* Raises unless an argument is a key or tag. */
static void
check_key(FunctionCallInfo fcinfo, int argument, const char *what)
{
	Size		bytes = PG_ARGISNULL(argument) ? 0 :
		toast_raw_datum_size(PG_GETARG_DATUM(argument)) - VARHDRSZ;

	if (bytes < 1 || bytes > MOST_KEY_BYTES)
		ereport(ERROR,
				(errcode(PG_ARGISNULL(argument) ? ERRCODE_NULL_VALUE_NOT_ALLOWED :
						 ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a %s must have 1 to %d bytes", what, MOST_KEY_BYTES)));
}

/* Lets a key lead to a stream: see the install script. */
Datum
mako_register_key(PG_FUNCTION_ARGS)
{
	MakoConnection connection = connect_to_route("mako_register_key()");
	NullableDatum values[] = {
		fcinfo->args[0], fcinfo->args[1], mako_bigint(stream_argument(fcinfo, 0, 2)),
		fcinfo->args[3]
	};

	check_key(fcinfo, 1, "routing key");
	if (mako_sql_execute(&upsert_key, values) == 0)
	{
		MakoRows	rows = mako_sql_query(&select_key, values);

		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("routing key \"%s\" leads to another stream",
						TextDatumGetCString(values[1].value)),
				 rows.count > 0 ? errdetail("It leads to \"%s\".", mako_row_text(&rows, 0, 1)) : 0,
				 errhint("Unregister it first.")));
	}
	mako_sql_disconnect(connection);
	PG_RETURN_VOID();
}

/*
 * Executes a statement with the arguments of a call as its parameters; returns how many rows it
 * was about.
 */
static uint64
change(FunctionCallInfo fcinfo, const char *function, MakoStatement *statement)
{
	MakoConnection connection = connect_to_route(function);
	uint64		changed = mako_sql_execute(statement, fcinfo->args);

	mako_sql_disconnect(connection);
	return changed;
}

/* Forgets a key; the next ones are the same for keys that have expired and for tags. */
Datum
mako_unregister_key(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(change(fcinfo, "mako_unregister_key()", &delete_key) > 0);
}

Datum
mako_expire_keys(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64((int64) change(fcinfo, "mako_expire_keys()", &delete_expired));
}

Datum
mako_remove_tag(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(change(fcinfo, "mako_remove_tag()", &delete_tag) > 0);
}

/* Tags a stream; false when it has the tag already. */
Datum
mako_add_tag(PG_FUNCTION_ARGS)
{
	MakoConnection connection = connect_to_route("mako_add_tag()");
	NullableDatum values[] = {
		fcinfo->args[0], fcinfo->args[1], mako_bigint(stream_argument(fcinfo, 0, 2))
	};
	uint64		added;

	check_key(fcinfo, 1, "tag");
	added = mako_sql_execute(&insert_tag, values);
	mako_sql_disconnect(connection);
	PG_RETURN_BOOL(added > 0);
}

/* The streams of a tenant that have a tag. */
Datum
mako_find_tag(PG_FUNCTION_ARGS)
{
	MakoRowSet *result = mako_rowset_begin(fcinfo);
	MakoConnection connection = mako_sql_connect_own();
	NullableDatum values[] = {fcinfo->args[0], fcinfo->args[1]};

	mako_rowset_add_rows(result, mako_sql_query_snapshot(&select_tagged, values));
	mako_sql_disconnect(connection);
	PG_RETURN_NULL();
}

/* The number of a stream of a tenant. */
Datum
mako_stream_of(PG_FUNCTION_ARGS)
{
	MakoConnection connection = mako_sql_connect_own();
	int64		stream_no = stream_argument(fcinfo, 0, 1);

	mako_sql_disconnect(connection);
	PG_RETURN_INT64(stream_no);
}
