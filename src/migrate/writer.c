/*
 * writer.c
 *	  Writing: snapshots, heads, dependents and sinks of many streams at once, in key order.
 *
 * Results of all runs of a pass wait in the writer's context until there are enough of them. A
 * flush is one subtransaction; only when it fails is it halved, again and again, until the stream
 * that cannot be written stands alone. So a pass over a million streams has some dozens of writing
 * subtransactions, not a million, however many workflows they belong to.
 *
 * Snapshots and heads go straight to their tables (table_write.c), and by a statement where its
 * owner has given a table more to do. Either way of the one goes with either way of the other, and
 * is chosen at every flush.
 */
#include "migrate/migrate.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"

static MakoStatement insert_snapshots = {
	"INSERT INTO mako.snapshot (stream_no, sequence_number, run_id, workflow_id,"
	" state_schema_version, state, taken_at)"
	" SELECT u.*, pg_catalog.now()"
	" FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3),"
	" pg_catalog.unnest($4), pg_catalog.unnest($5), pg_catalog.unnest($6)) AS u",
	6, {INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, TEXTARRAYOID, INT4ARRAYOID, JSONBARRAYOID}
};

static MakoStatement insert_repointed = {
	"INSERT INTO mako.repointed (run_id, stream_no, sequence_number)"
	" SELECT u.* FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2),"
	" pg_catalog.unnest($3)) AS u",
	3, {INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID}
};

/* What undoes a run: what it has written stays, but does not count any more. */
static MakoStatement insert_reverted = {
	"INSERT INTO mako.reverted (stream_no, run_id, reverted_by)"
	" SELECT u.stream_no, $2, $3 FROM pg_catalog.unnest($1) AS u (stream_no)",
	3, {INT8ARRAYOID, INT8OID, INT8OID}
};

/* Only where a head is as it was folded: a trigger may have appended an event meanwhile. */
static MakoStatement update_heads = {
	"UPDATE mako.stream AS s SET workflow_id = h.target_wf"
	" FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3))"
	" AS h (stream_no, target_wf, version)"
	" WHERE s.stream_no OPERATOR(pg_catalog.=) h.stream_no"
	" AND s.version OPERATOR(pg_catalog.=) h.version AND s.stream_no OPERATOR(pg_catalog.>=) $4"
	" AND s.stream_no OPERATOR(pg_catalog.<=) $5",
	5, {INT8ARRAYOID, TEXTARRAYOID, INT8ARRAYOID, INT8OID, INT8OID}, true
};

static MakoStatement select_moved_heads = {
	"SELECT FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS h (stream_no, version)"
	" JOIN mako.stream s ON s.stream_no OPERATOR(pg_catalog.=) h.stream_no"
	" AND s.version OPERATOR(pg_catalog.<>) h.version LIMIT 1",
	2, {INT8ARRAYOID, INT8ARRAYOID}
};

/*
 * The states that a run has written of some streams, in their order. Each is looked up by its key:
 * right after the run, statistics know nothing of its snapshots, and a join would look through all
 * of them for each. LIMIT keeps the subquery from becoming one.
 */
static MakoStatement select_states_of_run = {
	"SELECT n.state_schema_version, n.state"
	" FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3)) WITH ORDINALITY"
	" AS u (stream_no, sequence_number, ordinal)"
	" LEFT JOIN LATERAL (SELECT n.state_schema_version, n.state FROM mako.snapshot n"
	"   WHERE n.stream_no OPERATOR(pg_catalog.=) u.stream_no"
	"   AND n.sequence_number OPERATOR(pg_catalog.=) u.sequence_number"
	"   AND n.run_id OPERATOR(pg_catalog.=) $1 LIMIT 1) AS n ON true"
	" ORDER BY u.ordinal",
	3, {INT8OID, INT8ARRAYOID, INT8ARRAYOID}, true
};

/* What undoes the writing of one stream. */
static MakoStatement delete_snapshot = {
	"DELETE FROM mako.snapshot n WHERE n.stream_no OPERATOR(pg_catalog.=) $1"
	" AND n.run_id OPERATOR(pg_catalog.=) ANY ($2)"
	" RETURNING n.run_id, n.sequence_number, n.state_schema_version, n.state",
	2, {INT8OID, INT8ARRAYOID}
};

static MakoStatement delete_repointed = {
	"DELETE FROM mako.repointed p WHERE p.stream_no OPERATOR(pg_catalog.=) $1"
	" AND p.run_id OPERATOR(pg_catalog.=) ANY ($2)"
	" RETURNING p.run_id, p.sequence_number, NULL::pg_catalog.int4, NULL::pg_catalog.jsonb",
	2, {INT8OID, INT8ARRAYOID}
};

static MakoStatement put_head_back = {
	"UPDATE mako.stream AS s SET workflow_id = $3"
	" WHERE s.stream_no OPERATOR(pg_catalog.=) $1 AND s.workflow_id OPERATOR(pg_catalog.=) $2"
	" RETURNING s.stream_id, s.tenant_id, s.process_id, s.version",
	3, {INT8OID, TEXTOID, TEXTOID}
};

/* Opens the snapshots to insert some; NULL where only a statement can do it. */
static MakoTableWrite *
open_snapshots(void)
{
	static const char *const columns[] = {
		"stream_no", "sequence_number", "run_id", "workflow_id", "state_schema_version",
		"state", "taken_at"
	};

	return mako_table_write_open("snapshot", CMD_INSERT, columns, lengthof(columns));
}

/* Returns true if rows can go straight to this table. Closes it. */
static bool
is_direct(MakoTableWrite *table)
{
	if (table == NULL)
		return false;
	mako_table_write_close(table);
	return true;
}

/*
 * Where the results of a run go, in the current memory context; the report may get its number
 * later.
 */
MakoDestination
mako_writer_destination(MakoReport *report, const MakoWorkflow *target)
{
	MakoDestination destination = {
		report, CStringGetTextDatum(report->source_wf), CStringGetTextDatum(report->target_wf),
		target->state_schema_version
	};

	return destination;
}

/*
 * A writer without results, in the current memory context. The destinations go by the sources of
 * the streams.
 */
MakoWriter *
mako_writer_create(const MakoDestination *destinations, int count, bool update_registry,
				   MakoSinks *sinks)
{
	MakoWriter *writer = palloc0(sizeof(MakoWriter));

	writer->destinations = destinations;
	writer->destination_count = count;
	writer->update_registry = update_registry;
	writer->is_direct = is_direct(open_snapshots());
	writer->in_order = true;
	writer->context = AllocSetContextCreate(CurrentMemoryContext, "mako results",
											ALLOCSET_DEFAULT_SIZES);
	if (update_registry)
		writer->dependents = mako_dependent_followers();
	writer->sinks = sinks;
	return writer;
}

/* Returns true if what is added needs the names of its stream. */
bool
mako_writer_names_streams(const MakoWriter *writer)
{
	return writer->dependents != NIL || writer->sinks != NULL;
}

/* A copy of a uuid in the current memory context; NULL stays NULL. */
static pg_uuid_t *
copy_uuid(const pg_uuid_t *uuid)
{
	return uuid == NULL ? NULL : memcpy(palloc(sizeof(pg_uuid_t)), uuid, sizeof(pg_uuid_t));
}

/* What dependents and sinks know a stream by, in the current memory context. */
static MakoStreamName *
copy_name(const MakoStream *stream)
{
	MakoStreamName *name = palloc(sizeof(MakoStreamName));

	name->stream_id = pstrdup(stream->stream_id);
	name->tenant_id = copy_uuid(stream->tenant_id);
	name->process_id = copy_uuid(stream->process_id);
	return name;
}

/* Orders results by stream. */
static int
compare_results(const void *a, const void *b)
{
	int64		x = ((const MakoResult *) a)->stream_no;
	int64		y = ((const MakoResult *) b)->stream_no;

	return x < y ? -1 : x > y;
}

/* Room for one more result, which counts as migrated or not. */
static MakoResult *
new_result(MakoWriter *writer, int64 stream_no, int source, bool counts)
{
	MakoResult *result;

	if (writer->count == writer->capacity)
	{
		writer->capacity = Max(writer->capacity * 2, 1024);
		writer->results = writer->results == NULL ? palloc(writer->capacity * sizeof(MakoResult)) :
			repalloc_huge(writer->results, writer->capacity * sizeof(MakoResult));
	}
	result = &writer->results[writer->count];
	writer->in_order = writer->in_order &&
		(writer->count == 0 || result[-1].stream_no < stream_no);
	writer->count++;
	writer->destinations[source].report->migrated += counts;
	return result;
}

/*
 * Adds a stream that is to be written. Without a state it moves without a snapshot; counts says
 * whether it counts as migrated.
 */
void
mako_writer_add(MakoWriter *writer, const MakoStream *stream, int64 sequence_number,
				Datum state, bool counts)
{
	MemoryContext old = MemoryContextSwitchTo(writer->context);
	MakoResult *result = new_result(writer, stream->stream_no, stream->source, counts);

	result->source = stream->source;
	result->stream_no = stream->stream_no;
	result->sequence_number = sequence_number;
	result->version = stream->version;
	/* Toasted and expanded ones become flat. */
	result->state = state == (Datum) 0 ? NULL : DatumGetJsonbPCopy(state);
	result->name = mako_writer_names_streams(writer) ? copy_name(stream) : NULL;
	result->tid = stream->tid;
	result->repointed = false;
	result->counts = counts;
	MemoryContextSwitchTo(old);
}

/* Adds one that another writer has handed over; what it points to must last until it is written. */
void
mako_writer_add_result(MakoWriter *writer, const MakoResult *result)
{
	MemoryContext old = MemoryContextSwitchTo(writer->context);

	*new_result(writer, result->stream_no, result->source, result->counts) = *result;
	MemoryContextSwitchTo(old);
}

/*
 * Hands over what waits, in the order of the streams, with the context that it is in; the writer is
 * of no use then.
 */
MemoryContext
mako_writer_hand_over(MakoWriter *writer, MakoResult **results, int *count)
{
	if (!writer->in_order)
		qsort(writer->results, writer->count, sizeof(MakoResult), compare_results);
	*results = writer->results;
	*count = writer->count;
	return writer->context;
}

/*
 * Returns true if it is time to write the results. They may take an eighth of the memory of a
 * pass, because the rest may be needed for what is gathered. A statement needs the states twice
 * more, as an array and as rows; the table itself takes them as they are, but a few at once.
 */
bool
mako_writer_is_full(const MakoWriter *writer)
{
	return MemoryContextMemAllocated(writer->context, false) >
		(Size) mako_max_memory * 1024 / (writer->is_direct ? 8 : 24);
}

/* Where a result goes. */
static const MakoDestination *
destination_of(const MakoWriter *writer, const MakoResult *result)
{
	return &writer->destinations[result->source];
}

/* A part of the results, as columns for the statements. */
typedef struct Part
{
	MakoWriter *writer;
	int			first;
	int			count;
	MakoPhase	phase;			/* reached so far, for the handler of an error */
} Part;

/* Which of the results a statement wants. */
typedef enum Which
{
	WITH_STATE,					/* the snapshots */
	REPOINTED,					/* what moved without a snapshot of its last event */
	LEFT,						/* heads that a statement must repoint */
	ALL,
} Which;

/* Returns true if a result has what a statement wants. */
static bool
wants(Which which, const MakoResult *result)
{
	switch (which)
	{
		case WITH_STATE:
			return result->state != NULL;
		case REPOINTED:
			return result->state == NULL || result->sequence_number < result->version;
		case LEFT:
			return !result->repointed;
		case ALL:
			return true;
	}
	return true;
}

/* One column of a part. */
typedef enum Column
{
	STREAM_NO,
	STREAM_ID,
	TENANT_ID,
	PROCESS_ID,
	SEQUENCE_NUMBER,
	VERSION,
	RUN_ID,
	SOURCE_WF,
	TARGET_WF,
	STATE_SCHEMA_VERSION,
	STATE,
} Column;

/* The value of one column of a result; (Datum) 0 for a null. */
static Datum
column_value(const MakoResult *result, const MakoDestination *destination, Column column)
{
	switch (column)
	{
		case STREAM_NO:
			return Int64GetDatum(result->stream_no);
		case STREAM_ID:
			return CStringGetTextDatum(result->name->stream_id);
		case TENANT_ID:
			return UUIDPGetDatum(result->name->tenant_id);
		case PROCESS_ID:
			return UUIDPGetDatum(result->name->process_id);
		case SEQUENCE_NUMBER:
			return Int64GetDatum(result->sequence_number);
		case VERSION:
			return Int64GetDatum(result->version);
		case RUN_ID:
			return Int64GetDatum(destination->report->run_id);
		case SOURCE_WF:
			return destination->source_wf;
		case TARGET_WF:
			return destination->target_wf;
		case STATE_SCHEMA_VERSION:
			return Int32GetDatum(destination->state_schema_version);
		case STATE:
			return JsonbPGetDatum(result->state);
	}
	return (Datum) 0;
}

/* One column of a part as an array; *count is how many rows it has. */
static NullableDatum
column_array(const Part *part, Which which, Column column, int *count)
{
	static const Oid types[] = {
		[STREAM_NO] = INT8OID,[STREAM_ID] = TEXTOID,[TENANT_ID] = UUIDOID,[PROCESS_ID] = UUIDOID,
		[SEQUENCE_NUMBER] = INT8OID,[VERSION] = INT8OID,[RUN_ID] = INT8OID,[SOURCE_WF] = TEXTOID,
		[TARGET_WF] = TEXTOID,[STATE_SCHEMA_VERSION] = INT4OID,[STATE] = JSONBOID,
	};
	NullableDatum *values = palloc(part->count * sizeof(NullableDatum));
	int			rows = 0;

	for (int i = part->first; i < part->first + part->count; i++)
	{
		const MakoResult *result = &part->writer->results[i];

		if (!wants(which, result))
			continue;
		values[rows].value = column_value(result, destination_of(part->writer, result), column);
		values[rows].isnull = (column == TENANT_ID || column == PROCESS_ID) &&
			values[rows].value == (Datum) 0;
		rows++;
	}
	*count = rows;
	return mako_array(values, rows, types[column]);
}

/* Executes a statement that must write this many rows. */
static void
write_rows(MakoStatement *statement, const NullableDatum *values, int count, const char *table)
{
	if (count > 0 && mako_store_write(statement, values) != (uint64) count)
		mako_sql_raise_swallowed(table, count);
}

/*
 * What of a result is in its snapshot, in the order of open_snapshots() and of insert_snapshots;
 * taken_at comes last.
 */
static const Column snapshot_columns[] = {
	STREAM_NO, SEQUENCE_NUMBER, RUN_ID, TARGET_WF, STATE_SCHEMA_VERSION, STATE
};

#define SNAPSHOT_COLUMNS lengthof(snapshot_columns)

/* Writes the snapshots of a part straight to their table. */
static void
insert_directly(const Part *part, MakoTableWrite *snapshots)
{
	const MakoWriter *writer = part->writer;

	for (int i = part->first; i < part->first + part->count; i++)
	{
		const MakoResult *result = &writer->results[i];
		Datum		values[SNAPSHOT_COLUMNS + 1];

		if (result->state == NULL)
			continue;
		for (size_t column = 0; column < SNAPSHOT_COLUMNS; column++)
			values[column] = column_value(result, destination_of(writer, result),
										  snapshot_columns[column]);
		values[SNAPSHOT_COLUMNS] = TimestampTzGetDatum(GetCurrentTransactionStartTimestamp());
		mako_table_write_insert(snapshots, values);
	}
	mako_table_write_close(snapshots);
}

/* Writes the snapshots of a part by a statement. */
static void
insert_by_statement(const Part *part)
{
	NullableDatum values[SNAPSHOT_COLUMNS];
	int			count = 0;

	for (size_t column = 0; column < SNAPSHOT_COLUMNS; column++)
		values[column] = column_array(part, WITH_STATE, snapshot_columns[column], &count);
	write_rows(&insert_snapshots, values, count, "snapshot");
}

/* Writes the snapshots of a part. */
static void
write_snapshots(const Part *part)
{
	MakoTableWrite *snapshots = open_snapshots();

	if (snapshots != NULL)
		insert_directly(part, snapshots);
	else
		insert_by_statement(part);
}

/*
 * Records the streams of a part that move without a snapshot of their last event: older events
 * belong to what comes then.
 */
static void
write_repointed(const Part *part)
{
	int			count;
	NullableDatum values[] = {
		column_array(part, REPOINTED, RUN_ID, &count),
		column_array(part, REPOINTED, STREAM_NO, &count),
		column_array(part, REPOINTED, VERSION, &count)
	};

	write_rows(&insert_repointed, values, count, "repointed");
}

/* Records that the streams of a part are taken back from where the run that is undone left them. */
static void
write_reverted(const Part *part)
{
	static const char *const columns[] = {"stream_no", "run_id", "reverted_by"};
	const MakoWriter *writer = part->writer;
	int64		undone_by = writer->destinations[0].report->run_id;
	MakoTableWrite *reverted = mako_table_write_open("reverted", CMD_INSERT, columns,
													 lengthof(columns));
	NullableDatum values[] = {
		mako_null(), mako_bigint(writer->undoes), mako_bigint(undone_by)
	};
	int			count;

	if (reverted == NULL)
	{
		values[0] = column_array(part, ALL, STREAM_NO, &count);
		write_rows(&insert_reverted, values, count, "reverted");
		return;
	}
	for (int i = part->first; i < part->first + part->count; i++)
	{
		Datum		row[] = {
			Int64GetDatum(writer->results[i].stream_no), values[1].value, values[2].value
		};

		mako_table_write_insert(reverted, row);
	}
	mako_table_write_close(reverted);
}

/* Repoints the heads of a part straight in their table, as far as that is possible. */
static void
repoint_directly(const Part *part)
{
	MakoTableWrite *heads = mako_head_open();

	for (int i = part->first; i < part->first + part->count; i++)
	{
		MakoResult *result = &part->writer->results[i];
		ItemPointerData tid = result->tid;

		CHECK_FOR_INTERRUPTS();
		result->repointed = heads != NULL &&
			mako_table_write_update(heads, &tid, destination_of(part->writer, result)->target_wf);
	}
	if (heads != NULL)
		mako_table_write_close(heads);
}

/*
 * Raises that a statement has not repointed every head: an event was appended while its stream
 * moved, or a row was swallowed.
 */
static void
raise_heads_left(NullableDatum stream_nos, NullableDatum versions, int count)
{
	NullableDatum values[] = {stream_nos, versions};

	if (mako_sql_query(&select_moved_heads, values).count == 0)
		mako_sql_raise_swallowed("stream", count);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("an event was appended to the stream while it was moved"),
			 errdetail("Its state was computed without that event."),
			 errhint("Look for a trigger on a table of the store or on "
					 "a dependent that appends events.")));
}

/* Repoints the heads of a part, and with them every routing key. */
static void
write_heads(const Part *part)
{
	const MakoResult *results = &part->writer->results[part->first];
	int			count;

	repoint_directly(part);
	{
		NullableDatum values[] = {
			column_array(part, LEFT, STREAM_NO, &count),
			column_array(part, LEFT, TARGET_WF, &count), column_array(part, LEFT, VERSION, &count),
			mako_bigint(results[0].stream_no), mako_bigint(results[part->count - 1].stream_no)
		};

		if (count > 0 && mako_store_write(&update_heads, values) != (uint64) count)
			raise_heads_left(values[0], values[2], count);
	}
}

/* Lets the dependents of a part follow. */
static void
write_dependents(const Part *part)
{
	int			count;
	NullableDatum values[] = {
		column_array(part, ALL, STREAM_NO, &count), column_array(part, ALL, STREAM_ID, &count),
		column_array(part, ALL, PROCESS_ID, &count), column_array(part, ALL, TENANT_ID, &count),
		column_array(part, ALL, TARGET_WF, &count), column_array(part, ALL, SOURCE_WF, &count)
	};

	mako_dependent_follow(part->writer->dependents, values);
}

/* A stream that has moved, as sinks see it. */
typedef struct Moved
{
	int64		run_id;
	const MakoStreamName *name;
	Datum		source_wf;
	Datum		target_wf;
	int64		sequence_number;
	NullableDatum state_schema_version; /* null without a state */
	NullableDatum state;
} Moved;

/* Adds a row of the relation "moved". */
static void
add_moved(Tuplestorestate *rows, TupleDesc type, const Moved *moved)
{
	NullableDatum columns[MAKO_MOVED_COLUMNS] = {
		mako_bigint(moved->run_id), mako_text(moved->name->stream_id),
		mako_uuid(moved->name->tenant_id), mako_uuid(moved->name->process_id),
		mako_datum(moved->source_wf), mako_datum(moved->target_wf),
		mako_bigint(moved->sequence_number), moved->state_schema_version, moved->state
	};
	Datum		values[MAKO_MOVED_COLUMNS];
	bool		nulls[MAKO_MOVED_COLUMNS];

	for (int i = 0; i < MAKO_MOVED_COLUMNS; i++)
	{
		values[i] = columns[i].value;
		nulls[i] = columns[i].isnull;
	}
	tuplestore_putvalues(rows, type, values, nulls);
}

/* What of a result that is written sinks see. */
static Moved
moved_of(const MakoDestination *destination, const MakoResult *result)
{
	bool		has_state = result->state != NULL;

	return (Moved) {
		.run_id = destination->report->run_id,.name = result->name,
		.source_wf = destination->source_wf,.target_wf = destination->target_wf,
		.sequence_number = has_state ? result->sequence_number : result->version,
		.state_schema_version = mako_unless(!has_state,
											mako_integer(destination->state_schema_version)),
		.state = mako_reference(JsonbPGetDatum(result->state))
		};
}

/* What sinks saw of a result that is taken back, when its run wrote this state. */
static Moved
moved_before(const MakoWriter *writer, const MakoResult *result, const MakoRows *states,
			 uint64 row)
{
	const MakoDestination *back = destination_of(writer, result);
	NullableDatum state = mako_row_value(states, row, 2, JSONBOID);

	return (Moved) {
		.run_id = writer->undoes,.name = result->name,
		.source_wf = back->target_wf,.target_wf = back->source_wf,
		.sequence_number = state.isnull ? result->version : result->sequence_number,
		.state_schema_version = mako_row_value(states, row, 1, INT4OID),.state = state
		};
}

/* The states that the run that is undone has written of a part; a row for each of its results. */
static MakoRows
states_of_run(const Part *part)
{
	int			count;
	NullableDatum values[] = {
		mako_bigint(part->writer->undoes), column_array(part, ALL, STREAM_NO, &count),
		column_array(part, ALL, SEQUENCE_NUMBER, &count)
	};

	return mako_sql_query(&select_states_of_run, values);
}

/* Lets the sinks of a part take what has moved, or take it back. */
static void
write_sinks(const Part *part)
{
	const MakoWriter *writer = part->writer;
	MakoSinks  *sinks = writer->sinks;
	bool		undo = writer->undoes > 0;
	Tuplestorestate *rows = tuplestore_begin_heap(false, false, work_mem);
	MemoryContext row_context = AllocSetContextCreate(CurrentMemoryContext, "mako moved",
													  ALLOCSET_DEFAULT_SIZES);
	MakoRows	states = {0};

	if (undo)
		states = states_of_run(part);
	for (int i = 0; i < part->count; i++)
	{
		const MakoResult *result = &writer->results[part->first + i];
		MemoryContext old = MemoryContextSwitchTo(row_context);
		Moved		moved = undo ? moved_before(writer, result, &states, i) :
			moved_of(destination_of(writer, result), result);

		add_moved(rows, sinks->moved_type, &moved);
		MemoryContextSwitchTo(old);
		MemoryContextReset(row_context);
	}
	if (undo)
		mako_rows_free(&states);
	mako_sinks_write(sinks, undo, rows, part->count);
	tuplestore_end(rows);
}

/* Writes a part; runs in a subtransaction. */
static void
write_part(void *argument)
{
	Part	   *part = argument;
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "mako write",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);

	part->phase = MAKO_PHASE_SNAPSHOT;
	if (part->writer->undoes > 0)
		write_reverted(part);
	else
		write_snapshots(part);
	part->phase = MAKO_PHASE_REGISTRY;
	if (part->writer->update_registry)
	{
		if (part->writer->undoes == 0)
			write_repointed(part);
		write_heads(part);
		if (part->writer->dependents != NIL)
			write_dependents(part);
		if (part->writer->sinks != NULL)
			write_sinks(part);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

/* Meets the privileges and policies that a flush needs, and tells how it will write. */
void
mako_writer_rehearse(const MakoWriter *writer)
{
	if (writer->undoes > 0)
		mako_sql_check(&insert_reverted);
	else
	{
		mako_sql_check(&insert_snapshots);
		ereport(DEBUG1, (errmsg_internal("snapshots are written by %s",
										 writer->is_direct ? "bulk insert" : "statements")));
	}
	if (!writer->update_registry)
		return;
	if (writer->undoes == 0)
		ereport(DEBUG1, (errmsg_internal("heads are written by %s",
										 is_direct(mako_head_open()) ? "row" : "statements")));
	if (writer->undoes == 0)
		mako_sql_check(&insert_repointed);
	mako_sql_check(&update_heads);
	mako_dependent_rehearse(writer->dependents);
	mako_sinks_rehearse(writer->sinks, writer->undoes > 0);
}

/*
 * Writes a part of the results, and where that fails its halves, down to the streams that cannot
 * be written.
 */
static void
flush_part(MakoWriter *writer, int first, int count)
{
	Part		part = {writer, first, count, MAKO_PHASE_SNAPSHOT};
	ErrorData  *error = mako_subtransaction_run(write_part, &part);

	if (error == NULL)
		return;
	if (count == 1)
	{
		const MakoResult *result = &writer->results[first];
		MakoReport *report = destination_of(writer, result)->report;

		report->migrated -= result->counts;
		mako_report_error(report, result->stream_no, mako_stream_id(result->stream_no), part.phase,
						  result->sequence_number, error);
	}
	else
	{
		flush_part(writer, first, count / 2);
		flush_part(writer, first + count / 2, count - count / 2);
	}
	FreeErrorData(error);
}

/* Writes everything that waits. */
void
mako_writer_flush(MakoWriter *writer)
{
	MemoryContext old = MemoryContextSwitchTo(writer->context);

	if (!writer->in_order)
		qsort(writer->results, writer->count, sizeof(MakoResult), compare_results);
	if (writer->count > 0)
		flush_part(writer, 0, writer->count);
	MemoryContextSwitchTo(old);
	MemoryContextReset(writer->context);
	writer->results = NULL;
	writer->count = 0;
	writer->capacity = 0;
	writer->in_order = true;
}

/* ---- withdrawing ---------------------------------------------------------------------------- */

/* Lets the dependents of one stream, whose head was put back, follow it back. */
static void
put_dependents_back(const MakoWriter *writer, const MakoDestination *destination,
					MakoResult *result)
{
	MakoDestination back = {
		.source_wf = destination->target_wf,.target_wf = destination->source_wf
	};
	MakoWriter	alone = *writer;
	Part		part = {&alone, 0, 1, MAKO_PHASE_REGISTRY};

	alone.destinations = &back;
	alone.results = result;
	if (writer->dependents != NIL)
		write_dependents(&part);
}

/* What a run has written of a stream, and where that went. */
typedef struct Written
{
	const MakoDestination *destination; /* NULL: nothing */
	Moved		moved;			/* without a name */
} Written;

/* Lets the sinks of one stream take back what they have written. */
static void
put_sinks_back(const MakoWriter *writer, Moved *moved, const MakoStreamName *name)
{
	Tuplestorestate *rows = tuplestore_begin_heap(false, false, work_mem);

	moved->name = name;
	add_moved(rows, writer->sinks->moved_type, moved);
	mako_sinks_write(writer->sinks, true, rows, 1);
	tuplestore_end(rows);
}

/* Puts the head of a stream back, if it was repointed; returns whether it counted as migrated. */
static bool
put_back(const MakoWriter *writer, Written *written, int64 stream_no)
{
	const MakoDestination *destination = written->destination;
	NullableDatum values[] = {
		mako_bigint(stream_no), mako_datum(destination->target_wf),
		mako_datum(destination->source_wf)
	};
	MakoRows	rows = mako_store_query(&put_head_back, values);
	MakoStreamName name;
	MakoResult	result = {.stream_no = stream_no,.name = &name};

	if (rows.count > 0)
	{
		name.stream_id = mako_row_text(&rows, 0, 1);
		name.tenant_id = mako_row_uuid(&rows, 0, 2);
		name.process_id = mako_row_uuid(&rows, 0, 3);
		result.version = mako_row_bigint(&rows, 0, 4);
		put_dependents_back(writer, destination, &result);
		if (writer->sinks != NULL)
			put_sinks_back(writer, &written->moved, &name);
	}
	mako_rows_free(&rows);
	return result.version > 0;
}

/* The numbers of the runs, as bigint[]. */
static NullableDatum
run_ids(const MakoWriter *writer)
{
	int64	   *ids = palloc(sizeof(int64) * writer->destination_count);

	for (int i = 0; i < writer->destination_count; i++)
		ids[i] = writer->destinations[i].report->run_id;
	return mako_bigint_array(ids, writer->destination_count);
}

/* Deletes what the runs have written of a stream into a table, as its owner. */
static Written
delete_written(const MakoWriter *writer, const char *table, MakoStatement *statement,
			   int64 stream_no)
{
	NullableDatum values[] = {mako_bigint(stream_no), run_ids(writer)};
	Written		written = {0};
	MakoGate	gate = mako_gate_enter(mako_door_open_tables(mako_door_tables_in(table)));
	MakoRows	rows = mako_store_query(statement, values);

	mako_gate_leave(&gate);
	for (int i = 0; i < writer->destination_count && rows.count > 0; i++)
		if (writer->destinations[i].report->run_id == mako_row_bigint(&rows, 0, 1))
			written.destination = &writer->destinations[i];
	if (written.destination != NULL)
	{
		NullableDatum state = mako_row_value(&rows, 0, 4, JSONBOID);

		written.moved = (Moved) {
			.run_id = written.destination->report->run_id,
			.source_wf = written.destination->source_wf,
			.target_wf = written.destination->target_wf,
			.sequence_number = mako_row_bigint(&rows, 0, 2),
			.state_schema_version = mako_row_value(&rows, 0, 3, INT4OID),
			.state = state.isnull ? state : mako_datum(mako_copy_stored(state.value))
			};
	}
	mako_rows_free(&rows);
	return written;
}

/*
 * Takes back a stream that is written; returns false when there is nothing, or nothing that
 * counted as migrated.
 */
static bool
withdraw_written(const MakoWriter *writer, int64 stream_no)
{
	Written		written = delete_written(writer, "mako.snapshot", &delete_snapshot, stream_no);
	bool		counts = written.destination != NULL;

	if (writer->update_registry)
	{
		Written		repointed = delete_written(writer, "mako.repointed", &delete_repointed,
											   stream_no);

		if (written.destination == NULL)
			written = repointed;
		if (written.destination != NULL)
			counts = put_back(writer, &written, stream_no) || counts;
	}
	if (counts)
		written.destination->report->migrated--;
	return counts;
}

/*
 * Takes back what was made of a stream, whether it still waits or is written, which is the same as
 * if it had never been added. Returns false when there is nothing. What the caller wrote in this
 * transaction, the tables' owner deletes: a caller need not be allowed to.
 */
bool
mako_writer_withdraw(MakoWriter *writer, int64 stream_no)
{
	for (int i = 0; i < writer->count; i++)
	{
		if (writer->results[i].stream_no != stream_no)
			continue;
		destination_of(writer, &writer->results[i])->report->migrated -= writer->results[i].counts;
		writer->count--;
		memmove(&writer->results[i], &writer->results[i + 1],
				sizeof(MakoResult) * (writer->count - i));
		return true;
	}
	return withdraw_written(writer, stream_no);
}
