/*
 * state.c
 *	  Reading a process: its state, what an engine resumes from, its events, its history; and its
 *	  periodic snapshots.
 *
 * The state of a stream is its newest valid snapshot and the events after it. Migration snapshots
 * are final; a periodic one is only a cache: it counts if it lies after the boundary, belongs to
 * the workflow that the stream runs under now and fits that workflow's state schema version, type
 * and domain. So losing periodic snapshots, or keeping bad ones, changes no state. Everything is
 * read with the statement's snapshot: head, stored state and events are of one moment.
 */
#include "process/process.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"

/* Events fetched at once. */
#define EVENT_FETCH 256

/*
 * The newest periodic snapshot between two sequence numbers; of any state schema version where $5
 * is null.
 */
static MakoStatement select_periodic = {
	"SELECT n.sequence_number, n.state_schema_version, n.state FROM mako.snapshot n"
	" WHERE n.stream_no OPERATOR(pg_catalog.=) $1 AND n.run_id OPERATOR(pg_catalog.=) 0"
	" AND n.sequence_number OPERATOR(pg_catalog.>) $2"
	" AND n.sequence_number OPERATOR(pg_catalog.<=) $3 AND n.workflow_id OPERATOR(pg_catalog.=) $4"
	" AND ($5 IS NULL OR n.state_schema_version OPERATOR(pg_catalog.=) $5)"
	" ORDER BY n.sequence_number DESC LIMIT 1",
	5, {INT8OID, INT8OID, INT8OID, TEXTOID, INT4OID}
};

#define EVENT_COLUMNS_OF_LOAD 10

static MakoStatement select_events = {
	"SELECT e.sequence_number, e.event_id, e.recorded_at, e.workflow_id, e.event_type,"
	" e.schema_version, e.payload, e.correlation_id, e.causation_id, e.conversation_id"
	" FROM mako.event e"
	" WHERE e.stream_no OPERATOR(pg_catalog.=) $1 AND e.sequence_number OPERATOR(pg_catalog.>) $2"
	" ORDER BY e.sequence_number",
	2, {INT8OID, INT8OID}
};

static MakoStatement save_snapshot = {
	"INSERT INTO mako.snapshot (stream_no, sequence_number, run_id, workflow_id,"
	" state_schema_version, state)"
	" VALUES ($1, $2, 0, $3, $4, $5)"
	" ON CONFLICT (stream_no, sequence_number, run_id) DO UPDATE"
	" SET workflow_id = $3, state_schema_version = $4, state = $5, taken_at = pg_catalog.now()",
	5, {INT8OID, INT8OID, TEXTOID, INT4OID, JSONBOID},.may_defer = true
};

/*
 * Whether events begin after a sequence number, and the run under which states are kept that
 * streams of a workflow were given to start from.
 */
static MakoStatement select_begins_after = {
	"SELECT NOT EXISTS (SELECT FROM mako.event e WHERE e.stream_no OPERATOR(pg_catalog.=) $1"
	" AND e.sequence_number OPERATOR(pg_catalog.<=) $2)",
	2, {INT8OID, INT8OID}
};

static MakoStatement select_giving_run = {
	"SELECT pg_catalog.max(r.run_id) FROM mako.migration_run r"
	" WHERE r.kind OPERATOR(pg_catalog.=) 'attach' AND r.target_wf OPERATOR(pg_catalog.=) $1",
	1, {TEXTOID}
};

static MakoStatement insert_giving_run = {
	"INSERT INTO mako.migration_run (kind, source_wf, target_wf, path, update_registry,"
	" in_flight_only, fingerprint, definitions, effective_role, extension_version, started_at,"
	" finished_at, migrated, skipped, failed)"
	" VALUES ('attach', $1, $1, ARRAY[$1], true, false, '', '{}', $2, $3, pg_catalog.now(),"
	" pg_catalog.now(), 0, 0, 0) RETURNING run_id",
	3, {TEXTOID, TEXTOID, TEXTOID}
};

static MakoStatement give_snapshot = {
	"INSERT INTO mako.snapshot (stream_no, sequence_number, run_id, workflow_id,"
	" state_schema_version, state)"
	" VALUES ($1, $2, $6, $3, $4, $5)"
	" ON CONFLICT (stream_no, sequence_number, run_id) DO UPDATE"
	" SET state_schema_version = $4, state = $5, taken_at = pg_catalog.now()",
	6, {INT8OID, INT8OID, TEXTOID, INT4OID, JSONBOID, INT8OID}
};

static MakoStatement select_older = {
	"SELECT EXISTS (SELECT FROM mako.snapshot n"
	" WHERE n.stream_no OPERATOR(pg_catalog.=) $1 AND n.sequence_number OPERATOR(pg_catalog.=) $2"
	" AND n.run_id OPERATOR(pg_catalog.=) 0 AND n.workflow_id OPERATOR(pg_catalog.<>) $3)",
	3, {INT8OID, INT8OID, TEXTOID}
};

/* ---- where a stream starts ------------------------------------------------------------------ */

/* Takes a stored state as the start of a stream. */
static void
start_from(MakoStream *stream, const MakoRows *rows)
{

	stream->start = mako_row_bigint(rows, 0, 1);
	stream->start_schema_version = mako_row_integer(rows, 0, 2);
	stream->start_state = JsonbPGetDatum(DatumGetJsonbPCopy(mako_row_datum(rows, 0, 3, JSONBOID)));
	stream->boundary_missing = false;
}

/* See mako_fold_check_domain(); a callback. */
static void
check_domain(void *fold)
{
	mako_fold_check_domain(fold);
}

/* Returns true if a stored state is one that its workflow can have. */
static bool
is_valid(MakoFold *fold, Datum state)
{
	const MakoTypeDefinition *type = fold->workflow->state_type;
	ErrorData  *error;

	if (type != NULL && !mako_type_definition_check(type, DatumGetJsonbP(state), NULL, NULL))
		return false;
	if (fold->state_check == NULL)
		return true;
	mako_fold_begin(fold, state, 0);
	error = mako_subtransaction_run(check_domain, fold);
	if (error != NULL)
		mako_fold_recover(fold);
	return error == NULL;
}

/*
 * Finds the stored state that a stream starts from: the newest valid periodic snapshot after the
 * boundary, or the boundary. The fold is NULL where the workflow is not registered: then nothing
 * is known that a snapshot would have to fit.
 */
static void
find_stored_state(MakoStream *stream, MakoFold *fold)
{
	const MakoWorkflow *workflow = fold == NULL ? NULL : fold->workflow;
	int64		newest = stream->version;

	mako_stream_load_states(stream, 1);
	/* A boundary is never ignored, whatever lies after it. */
	if (workflow != NULL && stream->start > 0 && !stream->boundary_missing)
		mako_expect_schema_version(workflow, stream->start, stream->start_schema_version);
	for (;;)
	{
		NullableDatum values[] = {
			mako_bigint(stream->stream_no), mako_bigint(stream->start),
			mako_bigint(newest), mako_text(stream->workflow_id),
			workflow == NULL ? mako_null() : mako_integer(workflow->state_schema_version)
		};
		MakoRows	rows = mako_sql_query_snapshot(&select_periodic, values);
		bool		valid;

		if (rows.count == 0)
			break;
		valid = fold == NULL || is_valid(fold, mako_row_datum(&rows, 0, 3, JSONBOID));
		newest = mako_row_bigint(&rows, 0, 1) - 1;
		if (valid)
			start_from(stream, &rows);
		mako_rows_free(&rows);
		if (valid)
			break;
	}
}

/* ---- the state ------------------------------------------------------------------------------ */

/* A stream that is being read; lives in the caller's memory context. */
typedef struct Reading
{
	MakoConnection connection;
	MakoStream	stream;
	MakoReplay *replay;
	MakoFold   *fold;			/* of the workflow that the stream runs under */
	bool		known;			/* false: nothing has happened yet, and there is no initial state */
	ErrorContextCallback context;
} Reading;

/* Opens a stream, and finds its state: the current one, in reading->fold. */
static void
read_state(Reading *reading, Datum stream_id)
{
	MakoStream *stream = &reading->stream;
	const MakoWorkflow *workflow;

	reading->connection = mako_sql_connect_visible();
	mako_stream_find(stream_id, stream);
	reading->replay = mako_replay_create();
	reading->fold = mako_fold_borrow(stream->workflow_id);
	workflow = reading->fold->workflow;
	reading->context = (ErrorContextCallback) {error_context_stack, mako_fold_context,
		reading->fold};
	error_context_stack = &reading->context;
	reading->fold->phase = MAKO_PHASE_LOAD;
	reading->fold->sequence_number = 0;
	reading->known = stream->version > 0 || workflow->initial_state != NULL;

	if (stream->version == 0)
	{
		MakoReader *reader = mako_stream_open_events(stream, 1, NULL);

		mako_replay_empty(reading->fold, stream, reader);
		mako_stream_close_events(reader);
		if (reading->known)
			mako_fold_begin(reading->fold, JsonbPGetDatum(workflow->initial_state), 0);
	}
	else if (workflow->apply == NULL)
	{
		stream->periodic_too = true;
		mako_stream_load_states(stream, 1);
		mako_replay_stored(reading->fold, stream);
	}
	else
	{
		MakoReader *reader;

		find_stored_state(stream, reading->fold);
		reader = mako_stream_open_events(stream, 1, NULL);
		(void) mako_replay_stream(reading->replay, reading->fold, stream, reader);
		mako_stream_close_events(reader);
	}
	error_context_stack = reading->context.previous;
	mako_replay_warn(reading->replay, stream->stream_id);
}

/* Ends the reading of a state, which is gone then. */
static void
end_reading(Reading *reading)
{
	mako_fold_return(reading->fold);
	mako_sql_disconnect(reading->connection);
}

MAKO_FUNCTION(mako_state);
MAKO_FUNCTION(mako_resume);
MAKO_FUNCTION(mako_load);
MAKO_FUNCTION(mako_trace);
MAKO_FUNCTION(mako_take_snapshot);
MAKO_FUNCTION(mako_save_snapshot);

/*
 * The authoritative state of a stream: (state, sequence_number, workflow_id,
 * state_schema_version).
 */
Datum
mako_state(PG_FUNCTION_ARGS)
{
	Reading		reading;
	NullableDatum values[4];
	TupleDesc	tupdesc = mako_result_type(fcinfo);

	mako_require_value(!PG_ARGISNULL(0), "stream_id");
	read_state(&reading, PG_GETARG_DATUM(0));
	values[0] = reading.known ?
		mako_datum(JsonbPGetDatum(DatumGetJsonbPCopy(reading.fold->state))) : mako_null();
	values[1] = mako_bigint(reading.stream.version);
	values[2] = mako_text(reading.stream.workflow_id);
	values[3] = mako_integer(reading.fold->workflow->state_schema_version);
	end_reading(&reading);
	PG_RETURN_DATUM(mako_result_row(tupdesc, values));
}

/* ---- events --------------------------------------------------------------------------------- */

/*
 * Adds the events of a stream after a sequence number; column says where each of their columns
 * goes in the row.
 */
static void
add_events(MakoRowSet *result, const MakoStream *stream, int64 after, const int *column)
{
	NullableDatum parameters[] = {mako_bigint(stream->stream_no), mako_bigint(after)};
	MakoCursor *cursor = mako_cursor_open(&select_events, parameters, false);
	int			width = mako_rowset_type(result)->natts;
	NullableDatum *values = palloc(sizeof(NullableDatum) * width);
	MakoRows	rows;

	for (int i = 0; i < width; i++)
		values[i] = mako_null();
	while ((rows = mako_cursor_fetch(cursor, EVENT_FETCH)).count > 0)
	{
		CHECK_FOR_INTERRUPTS();
		for (uint64 row = 0; row < rows.count; row++)
		{
			for (int i = 0; i < EVENT_COLUMNS_OF_LOAD; i++)
				values[column[i]] =
					mako_row_value(&rows, row, i + 1,
								   TupleDescAttr(mako_rowset_type(result), column[i])->atttypid);
			mako_rowset_add(result, values);
		}
		mako_rows_free(&rows);
	}
	mako_rows_free(&rows);
	mako_cursor_close(cursor);
}

/* The events of a stream after a sequence number. */
Datum
mako_load(PG_FUNCTION_ARGS)
{
	static const int column[EVENT_COLUMNS_OF_LOAD] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
	MakoRowSet *result = mako_rowset_begin(fcinfo);
	MakoConnection connection = mako_sql_connect_visible();
	MakoStream	stream;

	mako_require_value(!PG_ARGISNULL(0), "stream_id");
	mako_require_value(!PG_ARGISNULL(1), "after");
	mako_stream_find(PG_GETARG_DATUM(0), &stream);
	add_events(result, &stream, PG_GETARG_INT64(1), column);
	mako_sql_disconnect(connection);
	PG_RETURN_NULL();
}

/* The fold of a workflow, or NULL where it is not registered. */
static MakoFold *
fold_if_registered(const char *workflow_id)
{
	return mako_definition_fingerprint(workflow_id) == NULL ? NULL : mako_fold_borrow(workflow_id);
}

/* What an engine that folds itself goes on from: a row with a state, and the events after it. */
Datum
mako_resume(PG_FUNCTION_ARGS)
{
	static const int column[EVENT_COLUMNS_OF_LOAD] = {0, 4, 5, 1, 6, 7, 8, 9, 10, 11};
	MakoRowSet *result = mako_rowset_begin(fcinfo);
	MakoConnection connection = mako_sql_connect_visible();
	MakoFold   *fold;
	const MakoWorkflow *workflow;
	MakoStream	stream;
	Datum		state = (Datum) 0;
	NullableDatum values[12];

	mako_require_value(!PG_ARGISNULL(0), "stream_id");
	mako_stream_find(PG_GETARG_DATUM(0), &stream);
	fold = fold_if_registered(stream.workflow_id);
	workflow = fold == NULL ? NULL : fold->workflow;
	find_stored_state(&stream, fold);
	if (mako_replay_is_needed(&stream))
	{
		MakoReplay *replay = mako_replay_create();

		state = mako_history_replay(replay, &stream, NULL, NULL);
		stream.start = stream.version;
		mako_replay_warn(replay, stream.stream_id);
	}
	else if (stream.start > 0)
		state = JsonbPGetDatum(DatumGetJsonbP(stream.start_state));
	else if (workflow != NULL && workflow->initial_state != NULL)
		state = JsonbPGetDatum(workflow->initial_state);

	for (size_t i = 0; i < lengthof(values); i++)
		values[i] = mako_null();
	values[0] = mako_bigint(stream.start);
	values[1] = mako_text(stream.workflow_id);
	values[2] = mako_reference(state);
	if (workflow != NULL)
		values[3] = mako_integer(workflow->state_schema_version);
	else if (stream.start > 0)
		values[3] = mako_integer(stream.start_schema_version);
	mako_rowset_add(result, values);
	add_events(result, &stream, stream.start, column);
	if (fold != NULL)
		mako_fold_return(fold);
	mako_sql_disconnect(connection);
	PG_RETURN_NULL();
}

/* ---- the history ---------------------------------------------------------------------------- */

/* Adds a moment of a stream as a row of mako_trace(). */
static void
add_moment(void *argument, const MakoMoment *moment)
{
	NullableDatum values[] = {
		mako_bigint(moment->sequence_number),
		mako_reference(moment->event_type), mako_text(moment->workflow_id),
		mako_unless(moment->run_id == 0, mako_bigint(moment->run_id)), mako_reference(moment->state)
	};

	mako_rowset_add((MakoRowSet *) argument, values);
	pfree(DatumGetPointer(values[2].value));
}

/* The state after every event and every move. */
Datum
mako_trace(PG_FUNCTION_ARGS)
{
	MakoRowSet *result = mako_rowset_begin(fcinfo);
	MakoConnection connection = mako_sql_connect_visible();
	MakoStream	stream;

	mako_require_value(!PG_ARGISNULL(0), "stream_id");
	mako_stream_find(PG_GETARG_DATUM(0), &stream);
	(void) mako_history_replay(mako_replay_create(), &stream, add_moment, result);
	mako_sql_disconnect(connection);
	PG_RETURN_NULL();
}

/* ---- periodic snapshots --------------------------------------------------------------------- */

/* Stores a periodic snapshot. */
static void
save(const MakoStream *stream, int64 sequence_number, const char *workflow_id,
	 int state_schema_version, Datum state)
{
	NullableDatum values[] = {
		mako_bigint(stream->stream_no), mako_bigint(sequence_number), mako_text(workflow_id),
		mako_integer(state_schema_version), mako_datum(state)
	};

	if (mako_sql_execute(&save_snapshot, values) != 1)
		mako_sql_raise_swallowed("snapshot", 1);
}

/*
 * Returns true if a state is that of a stream of an attached event store before its first event:
 * its application has compacted what came before, and no event tells that state.
 */
static bool
is_given(const MakoStream *stream, int64 sequence_number)
{
	NullableDatum values[] = {mako_bigint(stream->stream_no), mako_bigint(sequence_number)};
	MakoRows	rows;
	bool		given;

	if (!mako_door_is_attached())
		return false;
	rows = mako_sql_query(&select_begins_after, values);
	given = mako_row_boolean(&rows, 0, 1);
	mako_rows_free(&rows);
	return given;
}

/*
 * Stores a state that a stream starts from. Unlike a periodic snapshot, which is only a cache, it
 * takes the privilege to write runs.
 */
static void
give(const MakoStream *stream, int64 sequence_number, const char *workflow_id,
	 int state_schema_version, Datum state)
{
	NullableDatum run_values[] = {
		mako_text(workflow_id), mako_text(GetUserNameFromId(GetUserId(), false)),
		mako_text(mako_extension_version())
	};
	NullableDatum values[] = {
		mako_bigint(stream->stream_no), mako_bigint(sequence_number), mako_text(workflow_id),
		mako_integer(state_schema_version), mako_datum(state), mako_null()
	};
	MakoRows	rows = mako_sql_query(&select_giving_run, run_values);

	mako_sql_check(&insert_giving_run);
	values[5] = mako_row_value(&rows, 0, 1, INT8OID);
	mako_rows_free(&rows);
	if (values[5].isnull)
	{
		rows = mako_store_query(&insert_giving_run, run_values);
		values[5] = mako_bigint(mako_row_bigint(&rows, 0, 1));
		mako_rows_free(&rows);
	}
	if (mako_store_write(&give_snapshot, values) != 1)
		mako_sql_raise_swallowed("snapshot", 1);
}

/*
 * Whether there is a periodic snapshot at the stream's version that it had under another workflow.
 */
static bool
has_older(const MakoStream *stream)
{
	NullableDatum values[] = {
		mako_bigint(stream->stream_no), mako_bigint(stream->version), mako_text(stream->workflow_id)
	};
	MakoRows	rows = mako_sql_query(&select_older, values);
	bool		older = mako_row_boolean(&rows, 0, 1);

	mako_rows_free(&rows);
	return older;
}

/*
 * Stores the state of a stream, folded here; returns its sequence number. What an earlier workflow
 * has left there stays: of one without apply it is all that is known, and what a revert goes back
 * to.
 */
Datum
mako_take_snapshot(PG_FUNCTION_ARGS)
{
	Reading		reading;
	const MakoStream *stream = &reading.stream;

	mako_require_value(!PG_ARGISNULL(0), "stream_id");
	mako_gate_require_change("mako_take_snapshot()");
	read_state(&reading, PG_GETARG_DATUM(0));
	if (stream->version == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("stream \"%s\" has no events", stream->stream_id),
				 errdetail("A snapshot is the state after an event.")));
	mako_fold_require_apply(reading.fold);
	if (!has_older(stream))
		save(stream, stream->version, stream->workflow_id,
			 reading.fold->workflow->state_schema_version, reading.fold->state);
	end_reading(&reading);
	PG_RETURN_INT64(stream->version);
}

/* Raises unless a state can be stored as what a stream was at a sequence number. */
static void
check_saved_state(const MakoStream *stream, int64 sequence_number, const char *workflow_id,
				  int state_schema_version, Datum state)
{
	MakoFold   *fold;
	const MakoWorkflow *workflow;

	if (strcmp(stream->workflow_id, workflow_id) != 0)
		mako_store_raise_moved(stream->stream_no, stream->stream_id, stream->workflow_id,
							   psprintf("The snapshot is of workflow \"%s\".", workflow_id));
	if (sequence_number < 1 || sequence_number < stream->start || sequence_number > stream->version)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("sequence number " INT64_FORMAT " cannot have a snapshot of stream \"%s\"",
						sequence_number, stream->stream_id),
				 stream->start > 0 ?
				 errdetail("The stream is at version " INT64_FORMAT ", its migration snapshot "
						   "at sequence number " INT64_FORMAT ".",
						   stream->version, stream->start) :
				 errdetail("The stream is at version " INT64_FORMAT ".", stream->version),
				 errhint("Give the number of the last event that the state contains.")));

	fold = fold_if_registered(workflow_id);
	if (fold == NULL)
		return;
	workflow = fold->workflow;
	if (workflow->state_schema_version != state_schema_version)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("state schema version %d is not that of workflow \"%s\"",
						state_schema_version, workflow_id),
				 errdetail("The workflow is registered with state schema version %d.",
						   workflow->state_schema_version),
				 errhint("Save the state in the layout that is registered.")));
	if (workflow->state_type != NULL)
		mako_type_definition_require_state(workflow->state_type, workflow_id,
										   DatumGetJsonbP(state));
	mako_fold_begin(fold, state, sequence_number);
	mako_fold_check_domain(fold);
	mako_fold_return(fold);
}

/* Stores a state that the application has computed. */
Datum
mako_save_snapshot(PG_FUNCTION_ARGS)
{
	static const char *const names[] = {
		"stream_id", "sequence_number", "workflow_id", "state_schema_version", "state"
	};
	MakoConnection connection;
	MakoStream	stream;
	char	   *workflow_id;

	for (size_t i = 0; i < lengthof(names); i++)
		mako_require_value(!PG_ARGISNULL(i), names[i]);
	workflow_id = TextDatumGetCString(PG_GETARG_DATUM(2));
	mako_gate_require_change("mako_save_snapshot()");
	connection = mako_sql_connect_visible();
	mako_stream_find(PG_GETARG_DATUM(0), &stream);
	mako_stream_load_states(&stream, 1);
	check_saved_state(&stream, PG_GETARG_INT64(1), workflow_id, PG_GETARG_INT32(3),
					  PG_GETARG_DATUM(4));
	if (is_given(&stream, PG_GETARG_INT64(1)))
		give(&stream, PG_GETARG_INT64(1), workflow_id, PG_GETARG_INT32(3), PG_GETARG_DATUM(4));
	else
		save(&stream, PG_GETARG_INT64(1), workflow_id, PG_GETARG_INT32(3), PG_GETARG_DATUM(4));
	mako_sql_disconnect(connection);
	PG_RETURN_VOID();
}

/* ---- pruning -------------------------------------------------------------------------------- */

/*
 * Only the application can compute the state of a workflow without apply again: there, one always
 * stays.
 */
static MakoStatement prune = {
	"DELETE FROM mako.snapshot n"
	" USING (SELECT p.stream_no, p.sequence_number,"
	"   CASE WHEN w.apply IS NULL THEN 1 ELSE 0 END AS least,"
	"   row_number() OVER (PARTITION BY p.stream_no"
	"     ORDER BY p.workflow_id = s.workflow_id DESC, p.sequence_number DESC) AS rank"
	"   FROM mako.snapshot p JOIN mako.stream s ON s.stream_no = p.stream_no"
	"   LEFT JOIN %s.mako_workflow w ON w.workflow_id::text = s.workflow_id"
	"   WHERE p.run_id = 0) AS r"
	" WHERE n.stream_no = r.stream_no AND n.sequence_number = r.sequence_number AND n.run_id = 0"
	" AND r.rank > GREATEST($1, r.least)",
	1, {INT4OID}, true
};

MAKO_FUNCTION(mako_prune_snapshots);

/* Deletes periodic snapshots but the newest ones of each stream; returns how many. */
Datum
mako_prune_snapshots(PG_FUNCTION_ARGS)
{
	NullableDatum value = fcinfo->args[0];
	MakoConnection connection;
	uint64		pruned;

	if (PG_GETARG_INT32(0) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("keep must not be negative"),
				 errdetail("It is %d.", PG_GETARG_INT32(0))));
	mako_gate_require_change("mako_prune_snapshots()");
	connection = mako_sql_connect_own();
	pruned = mako_sql_execute(&prune, &value);
	mako_sql_disconnect(connection);
	PG_RETURN_INT64((int64) pruned);
}

/* ---- the story of a stream ------------------------------------------------------------------ */

/* Every table of the store that the story is told from. */
static MakoStatement select_history = {
	.text = "SELECT * FROM %s.mako_history_rows($1)",.nargs = 1,.argtypes = {TEXTOID},
	.needs = "mako.stream mako.event mako.snapshot mako.repointed mako.reverted mako.migration_run "
	"mako.migration_error mako.migration_batch"
};

MAKO_FUNCTION(mako_history);

/* The story of one stream: see the install script. */
Datum
mako_history(PG_FUNCTION_ARGS)
{
	MakoRowSet *result = mako_rowset_begin(fcinfo);
	MakoConnection connection = mako_sql_connect_visible();
	NullableDatum value = fcinfo->args[0];

	mako_rowset_add_rows(result, mako_sql_query_snapshot(&select_history, &value));
	mako_sql_disconnect(connection);
	PG_RETURN_NULL();
}
