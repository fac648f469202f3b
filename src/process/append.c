/*
 * append.c
 *	  mako_spawn(), mako_append() and mako_append_batch(): processes that an engine starts, and
 *	  events that it adds to them.
 *
 * An event's number follows from the head, so the head is locked first, as the owner of its table:
 * a writer needs SELECT on mako.stream and INSERT on mako.event only. The INSERT itself runs with
 * the caller's rights, and the triggers of the store check it like any other.
 */
#include "process/process.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/snapmgr.h"
#include "utils/typcache.h"
#include "utils/uuid.h"

static MakoStatement insert_stream = {
	"INSERT INTO mako.stream (stream_id, tenant_id, process_id, workflow_id)"
	" VALUES ($1, $2, $3, $4)"
	" ON CONFLICT ON CONSTRAINT stream_stream_id_key DO NOTHING RETURNING stream_no",
	4, {TEXTOID, UUIDOID, UUIDOID, TEXTOID},.may_defer = true
};

static MakoStatement select_stream = {
	"SELECT FROM mako.stream s WHERE s.stream_id OPERATOR(pg_catalog.=) $1", 1, {TEXTOID}
};

static MakoStatement insert_key = {
	"INSERT INTO mako.registry (tenant_id, key, stream_no) VALUES ($1, $2, $3)",
	3, {UUIDOID, TEXTOID, INT8OID},.may_defer = true
};

/* What an event consists of, in the order of mako_new_event and of the INSERT. */
enum
{
	EVENT_TYPE,
	PAYLOAD,
	SCHEMA_VERSION,
	EVENT_ID,
	CORRELATION_ID,
	CAUSATION_ID,
	CONVERSATION_ID,
	EVENT_COLUMNS
};

static const Oid event_column_type[] = {
	[EVENT_TYPE] = TEXTOID,[PAYLOAD] = JSONBOID,[SCHEMA_VERSION] = INT4OID,[EVENT_ID] = UUIDOID,
	[CORRELATION_ID] = UUIDOID,[CAUSATION_ID] = UUIDOID,[CONVERSATION_ID] = UUIDOID,
};

#define INSERT_EVENTS \
	"INSERT INTO mako.event (stream_no, sequence_number, workflow_id, event_type, payload," \
	" schema_version, event_id," \
	" correlation_id, causation_id, conversation_id) "

static MakoStatement insert_event = {
	INSERT_EVENTS
	"VALUES ($1, $2, $3, $4, $5, COALESCE($6, 1), COALESCE($7, pg_catalog.gen_random_uuid()),"
	" $8, $9, $10)",
	10, {INT8OID, INT8OID, TEXTOID, TEXTOID, JSONBOID, INT4OID, UUIDOID, UUIDOID, UUIDOID, UUIDOID},
	.may_defer = true
};

static MakoStatement insert_events = {
	INSERT_EVENTS
	"SELECT $1, $2 OPERATOR(pg_catalog.+) u.ordinality OPERATOR(pg_catalog.-) 1, $3, u.event_type,"
	" u.payload, COALESCE(u.schema_version, 1), COALESCE(u.event_id, pg_catalog.gen_random_uuid()),"
	" u.correlation_id, u.causation_id, u.conversation_id"
	" FROM ROWS FROM (pg_catalog.unnest($4), pg_catalog.unnest($5), pg_catalog.unnest($6),"
	" pg_catalog.unnest($7), pg_catalog.unnest($8), pg_catalog.unnest($9),"
	" pg_catalog.unnest($10)) WITH ORDINALITY"
	" AS u (event_type, payload, schema_version, event_id, correlation_id, causation_id,"
	" conversation_id, ordinality)",
	10, {INT8OID, INT8OID, TEXTOID, TEXTARRAYOID, JSONBARRAYOID, INT4ARRAYOID, UUIDARRAYOID,
	UUIDARRAYOID, UUIDARRAYOID, UUIDARRAYOID},.may_defer = true
};

static MakoStatement select_event = {
	"SELECT e.sequence_number, e.event_type OPERATOR(pg_catalog.=) $3"
	" AND e.payload OPERATOR(pg_catalog.=) $4"
	" AND e.schema_version OPERATOR(pg_catalog.=) COALESCE($5, 1)"
	" FROM mako.event e WHERE e.stream_no OPERATOR(pg_catalog.=) $1"
	" AND e.event_id OPERATOR(pg_catalog.=) $2",
	5, {INT8OID, UUIDOID, TEXTOID, JSONBOID, INT4OID}
};

/* An event that is to be appended; null columns have their defaults. */
typedef struct NewEvent
{
	NullableDatum values[EVENT_COLUMNS];
} NewEvent;

/* What the caller asked for. */
typedef struct Request
{
	Datum		stream_id;		/* text */
	const char *workflow_id;
	int64		expected_version;	/* -1: any */
	const NewEvent *events;
	int			count;
} Request;

/* ---- starting ------------------------------------------------------------------------------- */

/*
 * Raises why the head of a new process was not inserted: it is there already, under whatever
 * tenant, or a trigger of another owner has swallowed it.
 */
static void
raise_not_inserted(Datum stream_id)
{
	MakoGate	gate = mako_gate_enter(mako_door_open_tables(mako_door_tables_in("mako.stream")));
	NullableDatum value = mako_datum(stream_id);
	MakoRows	rows = mako_sql_query(&select_stream, &value);

	mako_gate_leave(&gate);
	if (rows.count == 0)
		mako_sql_raise_swallowed("stream", 1);
	ereport(ERROR,
			(errcode(MAKO_ERRCODE_PROCESS_EXISTS),
			 errmsg("stream \"%s\" already exists", TextDatumGetCString(stream_id)),
			 errhint("Append to it, or start a process with an id of its own.")));
}

MAKO_FUNCTION(mako_spawn);

/* Starts a process, and registers its id as a routing key; returns the id of its stream. */
Datum
mako_spawn(PG_FUNCTION_ARGS)
{
	static const char *const names[] = {"workflow_id", "tenant_id", "process_id"};
	char	   *process_id;
	Datum		stream_id;
	MakoConnection connection;
	MakoRows	rows;

	mako_gate_require_change("mako_spawn()");
	mako_attached_forbid();
	for (size_t i = 0; i < lengthof(names); i++)
		mako_require_value(!PG_ARGISNULL(i), names[i]);
	process_id = DatumGetCString(DirectFunctionCall1(uuid_out, PG_GETARG_DATUM(2)));
	stream_id =
		CStringGetTextDatum(psprintf("process/%s/%s",
									 DatumGetCString(DirectFunctionCall1(uuid_out,
																		 PG_GETARG_DATUM(1))),
									 process_id));
	(void) mako_door_table("stream");
	connection = mako_sql_connect_own();
	mako_definition_require(TextDatumGetCString(PG_GETARG_DATUM(0)));
	{
		NullableDatum stream[] = {
			mako_datum(stream_id), fcinfo->args[1], fcinfo->args[2], fcinfo->args[0]
		};
		NullableDatum key[] = {fcinfo->args[1], mako_text(process_id), mako_null()};

		rows = mako_sql_query(&insert_stream, stream);
		if (rows.count == 0)
			raise_not_inserted(stream_id);
		key[2] = mako_bigint(mako_row_bigint(&rows, 0, 1));
		if (mako_sql_execute(&insert_key, key) == 0)
			mako_sql_raise_swallowed("registry", 1);
		mako_rows_free(&rows);
	}
	mako_sql_disconnect(connection);
	PG_RETURN_DATUM(stream_id);
}

/* ---- appending ------------------------------------------------------------------------------ */

/* Reads the arguments that both functions have: stream, workflow, expected version. */
static Request
read_append(FunctionCallInfo fcinfo, int expected_version)
{
	Request		request = {0};

	mako_require_value(!PG_ARGISNULL(0), "stream_id");
	request.stream_id = PG_GETARG_DATUM(0);
	request.workflow_id = mako_argument_text(fcinfo, 1, "workflow_id");
	request.expected_version = PG_ARGISNULL(expected_version) ? -1 :
		PG_GETARG_INT64(expected_version);
	if (!PG_ARGISNULL(expected_version) && request.expected_version < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("expected_version must not be negative"),
				 errdetail("It is " INT64_FORMAT ".", request.expected_version),
				 errhint("0 means that there are no events yet, null that any version will do.")));
	return request;
}

/*
 * Where an event with this id is in the stream already, 0 for nowhere. The same event again is
 * what a writer sends that did not hear the answer; another one with the same id would be lost if
 * it were taken for it.
 */
static int64
find_event(const MakoStream *head, const NewEvent *event)
{
	NullableDatum values[] = {
		mako_bigint(head->stream_no), event->values[EVENT_ID], event->values[EVENT_TYPE],
		event->values[PAYLOAD], event->values[SCHEMA_VERSION]
	};
	MakoRows	rows;
	int64		sequence_number = 0;

	if (event->values[EVENT_ID].isnull)
		return 0;
	rows = mako_sql_query(&select_event, values);
	if (rows.count > 0)
	{
		sequence_number = mako_row_bigint(&rows, 0, 1);
		if (!mako_row_boolean(&rows, 0, 2))
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_OBJECT),
					 errmsg("event id %s is another event of stream \"%s\"",
							DatumGetCString(DirectFunctionCall1(uuid_out,
																event->values[EVENT_ID].value)),
							head->stream_id),
					 errdetail("Event " INT64_FORMAT " has this id, and another type, "
							   "schema version or payload.", sequence_number),
					 errhint("Give every event an id of its own.")));
	}
	mako_rows_free(&rows);
	return sequence_number;
}

/*
 * The number of the last event if all are in the stream already, 0 if none is; an error for
 * anything in between.
 */
static int64
find_events(const MakoStream *head, const Request *request)
{
	int64		last = 0;
	int			found = 0;

	for (int i = 0; i < request->count; i++)
	{
		int64		sequence_number = find_event(head, &request->events[i]);

		found += sequence_number > 0;
		last = Max(last, sequence_number);
	}
	if (found > 0 && found < request->count)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("a part of the events is in stream \"%s\" already", head->stream_id),
				 errdetail("%d of %d event ids are there.", found, request->count),
				 errhint("Append the same events together again, or only those that are new.")));
	return last;
}

/* Raises unless the stream is where the writer believes it to be. */
static void
check_head(const MakoStream *head, const Request *request)
{
	if (strcmp(head->workflow_id, request->workflow_id) != 0)
		mako_store_raise_moved(head->stream_no, head->stream_id, head->workflow_id,
							   psprintf("The writer works under \"%s\".", request->workflow_id));
	if (request->expected_version >= 0 && request->expected_version != head->version)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("stream \"%s\" has another version than expected", head->stream_id),
				 errdetail("Expected version " INT64_FORMAT ", found " INT64_FORMAT ".",
						   request->expected_version, head->version),
				 errhint("Load the process again and retry.")));
}

/* The parameter for one column of the events: a value for one event, an array for many. */
static NullableDatum
column_parameter(const Request *request, int column)
{
	NullableDatum *values;

	if (request->count == 1)
		return request->events[0].values[column];
	values = palloc(sizeof(NullableDatum) * request->count);
	for (int i = 0; i < request->count; i++)
		values[i] = request->events[i].values[column];
	return mako_array(values, request->count, event_column_type[column]);
}

/* Inserts the events after the head, with the caller's rights. */
static void
insert(const MakoStream *stream, const Request *request)
{
	MakoHead	head = {
		stream->stream_no, stream->stream_id, stream->workflow_id, stream->version, stream->tid
	};
	NullableDatum values[3 + EVENT_COLUMNS] = {
		mako_bigint(head.stream_no), mako_bigint(head.version + 1), mako_text(request->workflow_id)
	};

	for (int column = 0; column < EVENT_COLUMNS; column++)
		values[3 + column] = column_parameter(request, column);
	if (mako_store_append(request->count == 1 ? &insert_event : &insert_events, values, &head) !=
		(uint64) request->count)
		mako_sql_raise_swallowed("event", request->count);
}

/* Raises unless the caller may insert events, before a head is locked for him. */
static void
check_privilege(void)
{
	Oid			event = mako_door_table("event");

	if (pg_class_aclcheck(event, GetUserId(), ACL_INSERT) != ACLCHECK_OK &&
		pg_attribute_aclcheck_all(event, GetUserId(), ACL_INSERT, ACLMASK_ANY) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, "event");
}

/* Appends, and returns the number of the last event; the one it has if it is there already. */
static int64
append(const Request *request, const char *function)
{
	MakoStream	head;
	MakoConnection connection;
	MakoGate	gate;
	int64		last;

	mako_gate_require_change(function);
	mako_attached_forbid();
	check_privilege();
	connection = mako_sql_connect_own();
	mako_fence_lock(request->workflow_id);
	mako_stream_lock(request->stream_id, &head);

	gate = mako_gate_enter(mako_door_open_tables(mako_door_tables_in("mako.stream")));
	last = find_events(&head, request);
	if (last == 0)
		check_head(&head, request);
	mako_gate_leave(&gate);

	if (last == 0)
	{
		if (request->count > 0)
			insert(&head, request);
		last = head.version + request->count;
	}
	mako_sql_disconnect(connection);
	return last;
}

MAKO_FUNCTION(mako_append);
MAKO_FUNCTION(mako_append_batch);

/* Appends one event. */
Datum
mako_append(PG_FUNCTION_ARGS)
{
	/* Where the columns of an event are among the arguments. */
	static const int argument[] = {
		[EVENT_TYPE] = 2,[PAYLOAD] = 3,[SCHEMA_VERSION] = 5,[EVENT_ID] = 6,[CORRELATION_ID] = 7,
		[CAUSATION_ID] = 8,[CONVERSATION_ID] = 9,
	};
	Request		request = read_append(fcinfo, 4);
	NewEvent	event;

	mako_require_value(!PG_ARGISNULL(2), "event_type");
	mako_require_value(!PG_ARGISNULL(3), "payload");
	for (int column = 0; column < EVENT_COLUMNS; column++)
		event.values[column] = fcinfo->args[argument[column]];
	request.events = &event;
	request.count = 1;
	PG_RETURN_INT64(append(&request, "mako_append()"));
}

/* Reads an element of mako_new_event[]. */
static NewEvent
read_event(HeapTupleHeader row, int number)
{
	NewEvent	event;
	Datum		values[EVENT_COLUMNS];
	bool		nulls[EVENT_COLUMNS];
	TupleDesc	tupdesc = lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(row),
												 HeapTupleHeaderGetTypMod(row));
	HeapTupleData tuple = {.t_len = HeapTupleHeaderGetDatumLength(row),.t_data = row};

	if (tupdesc->natts != EVENT_COLUMNS)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("type mako_new_event is not what it was when the extension was created"),
				 errdetail("It has %d attributes instead of %d.", tupdesc->natts, EVENT_COLUMNS)));
	heap_deform_tuple(&tuple, tupdesc, values, nulls);
	for (int column = 0; column < EVENT_COLUMNS; column++)
		event.values[column] = (NullableDatum) {values[column], nulls[column]};
	ReleaseTupleDesc(tupdesc);
	mako_require_value(!event.values[EVENT_TYPE].isnull,
					   psprintf("event_type of event %d", number));
	mako_require_value(!event.values[PAYLOAD].isnull, psprintf("payload of event %d", number));
	return event;
}

/* Appends some events, all or none. */
Datum
mako_append_batch(PG_FUNCTION_ARGS)
{
	Request		request = read_append(fcinfo, 3);
	NewEvent   *events;
	ArrayType  *array;
	Datum	   *elements;
	bool	   *nulls;

	mako_require_value(!PG_ARGISNULL(2), "events");
	array = PG_GETARG_ARRAYTYPE_P(2);
	deconstruct_array(array, ARR_ELEMTYPE(array), -1, false, TYPALIGN_DOUBLE, &elements, &nulls,
					  &request.count);
	events = palloc(sizeof(NewEvent) * (request.count + 1));
	for (int i = 0; i < request.count; i++)
	{
		mako_require_value(!nulls[i], psprintf("event %d", i + 1));
		events[i] = read_event(DatumGetHeapTupleHeader(elements[i]), i + 1);
	}
	request.events = events;
	PG_RETURN_INT64(append(&request, "mako_append_batch()"));
}
