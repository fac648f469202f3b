/*
 * report.c
 *	  Counts and errors of a run: collected, saved in the audit trail, and turned into a
 *	  mako_migration_report.
 */
#include "migrate/migrate.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/typcache.h"

static MakoStatement insert_errors = {
	"INSERT INTO mako.migration_error (run_id, error_no, stream_no, stream_id, phase,"
	" sequence_number, sqlstate, message, detail, hint, context)"
	" SELECT $1, $2 OPERATOR(pg_catalog.+) u.ordinality, u.stream_no, u.stream_id, u.phase,"
	" u.sequence_number, u.sqlstate, u.message, u.detail, u.hint, u.context"
	" FROM ROWS FROM (pg_catalog.unnest($3), pg_catalog.unnest($4), pg_catalog.unnest($5),"
	" pg_catalog.unnest($6), pg_catalog.unnest($7), pg_catalog.unnest($8), pg_catalog.unnest($9),"
	" pg_catalog.unnest($10), pg_catalog.unnest($11))"
	" WITH ORDINALITY AS u (stream_no, stream_id, phase, sequence_number, sqlstate, message,"
	" detail, hint, context, ordinality)",
	11, {INT8OID, INT8OID, INT8ARRAYOID, TEXTARRAYOID, TEXTARRAYOID, INT8ARRAYOID, TEXTARRAYOID,
	TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID}
};

static MakoStatement select_error = {
	"SELECT FROM mako.migration_error e WHERE e.run_id OPERATOR(pg_catalog.=) ANY ($1)"
	" AND e.stream_no OPERATOR(pg_catalog.=) $2 LIMIT 1",
	2, {INT8ARRAYOID, INT8OID}
};

/* The errors that a report shows, in its order: stands_before(). */
static MakoStatement select_errors = {
	"SELECT e.stream_no, e.stream_id, e.phase, COALESCE(e.sequence_number, 0), e.sqlstate,"
	" e.message, e.detail, e.hint, e.context"
	" FROM mako.migration_error e WHERE e.run_id OPERATOR(pg_catalog.=) $1"
	" ORDER BY e.phase OPERATOR(pg_catalog.=) ANY (ARRAY['snapshot', 'registry']), e.stream_no"
	" LIMIT $2",
	2, {INT8OID, INT4OID}
};

/* What errors may need before they are saved. */
#define UNSAVED_LIMIT (1024 * 1024)

/* Columns of mako_migration_error, in order. */
enum
{
	ERROR_STREAM_ID,
	ERROR_PHASE,
	ERROR_SEQUENCE_NUMBER,
	ERROR_SQLSTATE,
	ERROR_MESSAGE,
	ERROR_DETAIL,
	ERROR_HINT,
	ERROR_CONTEXT,
	ERROR_COLUMNS
};

/*
 * A report without counts or errors, in a context below the current one. The tally is that of the
 * call, whose reports are made in the order of its runs.
 */
MakoReport *
mako_report_create(const char *source_wf, const char *target_wf, MakoTally *tally)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "mako report",
												  ALLOCSET_DEFAULT_SIZES);
	MakoReport *report = MemoryContextAllocZero(context, sizeof(MakoReport));

	report->source_wf = source_wf;
	report->target_wf = target_wf;
	report->tally = tally;
	tally->reports = lappend(tally->reports, report);
	report->context = context;
	report->unsaved_context = AllocSetContextCreate(context, "mako unsaved errors",
													ALLOCSET_DEFAULT_SIZES);
	report->started_at = GetCurrentTimestamp();
	return report;
}

/* A copy of a text, cut at limit bytes between characters; NULL stays NULL. */
static char *
copy_text(const char *text, int limit)
{
	int			length;

	if (text == NULL)
		return NULL;
	length = strlen(text);
	return pnstrdup(text, length <= limit ? length : pg_mbcliplen(text, length, limit));
}

/* A copy of an error with its texts cut, in the current memory context. */
static MakoError *
copy_error(const MakoError *error, int limit)
{
	MakoError  *copy = palloc(sizeof(MakoError));

	*copy = *error;
	copy->stream_id = pstrdup(error->stream_id);
	copy->message = copy_text(error->message, limit);
	copy->detail = copy_text(error->detail, limit);
	copy->hint = copy_text(error->hint, limit);
	copy->context = copy_text(error->context, limit);
	return copy;
}

/* Frees such a copy. */
static void
free_error(MakoError *error)
{
	char	   *const texts[] = {
		error->stream_id, error->message, error->detail, error->hint, error->context
	};

	for (size_t i = 0; i < lengthof(texts); i++)
		if (texts[i] != NULL)
			pfree(texts[i]);
	pfree(error);
}

/* Appends an error as JSON. */
static void
append_error(StringInfo json, const MakoError *error)
{
	appendStringInfoString(json, "{\"stream_id\": ");
	escape_json(json, error->stream_id);
	appendStringInfo(json, ", \"phase\": \"%s\", \"sequence_number\": ",
					 mako_phase_name[error->phase]);
	if (error->sequence_number > 0)
		appendStringInfo(json, INT64_FORMAT, error->sequence_number);
	else
		appendStringInfoString(json, "null");
	appendStringInfo(json, ", \"sqlstate\": \"%s\", \"message\": ", error->sqlstate);
	escape_json(json, error->message);
	appendStringInfoChar(json, '}');
}

/*
 * Ends the call because of max_errors; the detail has the counts and the first errors of all its
 * runs as JSON.
 */
static void
raise_too_many_errors(const MakoTally *tally)
{
	StringInfoData json;
	StringInfoData errors;
	int64		migrated = 0;
	int64		failed = 0;
	int			shown = 0;
	ListCell   *cell;

	initStringInfo(&errors);
	foreach(cell, tally->reports)
	{
		const MakoReport *report = lfirst(cell);

		migrated += report->migrated;
		failed += report->failed;
		for (int i = 0; i < list_length(report->errors) && shown < MAKO_DETAIL_ERRORS; i++)
		{
			appendStringInfoString(&errors, shown++ > 0 ? ", " : "");
			append_error(&errors, list_nth(report->errors, i));
		}
	}
	initStringInfo(&json);
	appendStringInfo(&json, "{\"migrated\": " INT64_FORMAT ", \"failed\": " INT64_FORMAT,
					 migrated, failed);
	if (tally->in_batches)
		appendStringInfo(&json, ", \"committed\": {\"migrated\": " INT64_FORMAT
						 ", \"failed\": " INT64_FORMAT "}",
						 tally->committed_migrated, tally->committed_failed);
	appendStringInfo(&json, ", \"errors\": [%s]}", errors.data);
	ereport(ERROR,
			(errcode(MAKO_ERRCODE_NOT_OK),
			 errmsg("more than " INT64_FORMAT " streams could not be migrated", tally->max_errors),
			 errdetail_internal("%s", json.data),
			 tally->in_batches ?
			 errhint("What is committed stays. Correct the cause, or allow more with max_errors, "
					 "and call it again to go on.") :
			 errhint("Nothing was changed. Correct the cause, or allow more with max_errors.")));
}

/*
 * Returns true if an error stands before another one. What cannot be folded comes before what
 * cannot be written, each in the order of the streams, whichever was met first.
 */
static bool
stands_before(const MakoError *error, const MakoError *other)
{
	bool		unwritten = error->phase >= MAKO_PHASE_SNAPSHOT;
	bool		other_unwritten = other->phase >= MAKO_PHASE_SNAPSHOT;

	return unwritten == other_unwritten ? error->stream_no < other->stream_no : other_unwritten;
}

/* Adds an error to a list in this order, which is nearly that in which they come. */
static List *
add_error(List *list, MakoError *error)
{
	int			place = list_length(list);

	while (place > 0 && stands_before(error, list_nth(list, place - 1)))
		place--;
	return list_insert_nth(list, place, error);
}

/* An error that points into what it is made of. */
static MakoError
make_error(int64 stream_no, const char *stream_id, MakoPhase phase, int64 sequence_number,
		   const ErrorData *data)
{
	MakoError	error = {stream_no, unconstify(char *, stream_id), phase, sequence_number};

	memcpy(error.sqlstate, unpack_sql_state(data->sqlerrcode), sizeof(error.sqlstate));
	error.message = data->message != NULL ? data->message : "missing error text";
	error.detail = data->detail;
	error.hint = data->hint;
	error.context = data->context;
	return error;
}

/*
 * Records that a stream could not be migrated; if it had been counted as migrated, the caller
 * takes that back first.
 */
void
mako_report_error(MakoReport *report, int64 stream_no, const char *stream_id, MakoPhase phase,
				  int64 sequence_number, const ErrorData *data)
{
	MakoError	error = make_error(stream_no, stream_id, phase, sequence_number, data);
	MemoryContext old;

	report->failed++;
	report->tally->failed++;
	old = MemoryContextSwitchTo(report->context);
	if (list_length(report->errors) == MAKO_REPORT_ERRORS &&
		stands_before(&error, llast(report->errors)))
	{
		free_error(llast(report->errors));
		report->errors = list_truncate(report->errors, MAKO_REPORT_ERRORS - 1);
	}
	if (list_length(report->errors) < MAKO_REPORT_ERRORS)
		report->errors = add_error(report->errors, copy_error(&error, MAKO_ERROR_TEXT));
	MemoryContextSwitchTo(report->unsaved_context);
	report->unsaved = add_error(report->unsaved, copy_error(&error, MaxAllocSize - 1));
	MemoryContextSwitchTo(old);

	if (report->tally->max_errors >= 0 && report->tally->failed > report->tally->max_errors)
		raise_too_many_errors(report->tally);
	if (MemoryContextMemAllocated(report->unsaved_context, false) > UNSAVED_LIMIT)
		mako_report_save_errors(report);
}

/* The columns of an error, in the order of mako_migration_error. */
static void
error_columns(const MakoError *error, NullableDatum *values)
{
	const char *const texts[] = {
		[ERROR_STREAM_ID] = error->stream_id,
		[ERROR_PHASE] = mako_phase_name[error->phase],
		[ERROR_SEQUENCE_NUMBER] = NULL,
		[ERROR_SQLSTATE] = error->sqlstate,
		[ERROR_MESSAGE] = error->message,
		[ERROR_DETAIL] = error->detail,
		[ERROR_HINT] = error->hint,
		[ERROR_CONTEXT] = error->context,
	};

	for (int i = 0; i < ERROR_COLUMNS; i++)
		values[i] = mako_text(texts[i]);
	values[ERROR_SEQUENCE_NUMBER] = mako_unless(error->sequence_number == 0,
												mako_bigint(error->sequence_number));
}

/* Writes the errors that came since the last call into the audit trail. */
void
mako_report_save_errors(MakoReport *report)
{
	int			count = list_length(report->unsaved);
	MemoryContext old;
	NullableDatum parameters[3 + ERROR_COLUMNS] = {
		mako_bigint(report->run_id), mako_bigint(report->saved)
	};
	NullableDatum *values[ERROR_COLUMNS];
	int64	   *stream_nos;

	if (count == 0)
		return;
	old = MemoryContextSwitchTo(report->unsaved_context);
	stream_nos = palloc(sizeof(int64) * count);
	for (int column = 0; column < ERROR_COLUMNS; column++)
		values[column] = palloc(sizeof(NullableDatum) * count);
	for (int i = 0; i < count; i++)
	{
		const MakoError *error = list_nth(report->unsaved, i);
		NullableDatum row[ERROR_COLUMNS];

		stream_nos[i] = error->stream_no;
		error_columns(error, row);
		for (int column = 0; column < ERROR_COLUMNS; column++)
			values[column][i] = row[column];
	}
	parameters[2] = mako_bigint_array(stream_nos, count);
	for (int column = 0; column < ERROR_COLUMNS; column++)
		parameters[3 + column] = mako_array(values[column], count,
											column == ERROR_SEQUENCE_NUMBER ? INT8OID : TEXTOID);
	if (mako_store_write(&insert_errors, parameters) != (uint64) count)
		mako_sql_raise_swallowed("migration_error", count);
	report->saved += count;
	MemoryContextSwitchTo(old);
	report->unsaved = NIL;
	MemoryContextReset(report->unsaved_context);
}

/* Reads the first errors of a run from the audit trail, in their order. */
void
mako_report_load_errors(MakoReport *report)
{
	NullableDatum values[] = {mako_bigint(report->run_id), mako_integer(MAKO_REPORT_ERRORS)};
	MakoRows	rows = mako_sql_query(&select_errors, values);
	MemoryContext old = MemoryContextSwitchTo(report->context);

	for (uint64 row = 0; row < rows.count; row++)
	{
		char	   *phase = mako_row_text(&rows, row, 3);
		char	   *sqlstate = mako_row_text(&rows, row, 5);
		MakoError	error = {
			.stream_no = mako_row_bigint(&rows, row, 1),.stream_id = mako_row_text(&rows, row, 2),
			.sequence_number = mako_row_bigint(&rows, row, 4),
			.message = mako_row_text(&rows, row, 6),.detail = mako_row_text(&rows, row, 7),
			.hint = mako_row_text(&rows, row, 8),.context = mako_row_text(&rows, row, 9)
		};

		while (error.phase < MAKO_PHASE_REGISTRY &&
			   strcmp(mako_phase_name[error.phase], phase) != 0)
			error.phase++;
		snprintf(error.sqlstate, sizeof(error.sqlstate), "%s", sqlstate);
		report->errors = lappend(report->errors, copy_error(&error, MAKO_ERROR_TEXT));
	}
	MemoryContextSwitchTo(old);
	mako_rows_free(&rows);
}

/* Returns true if one of the runs has recorded an error of this stream. */
bool
mako_report_has(const MakoTally *tally, int64 stream_no)
{
	int64	   *run_ids = palloc(sizeof(int64) * list_length(tally->reports));
	int			count = 0;
	NullableDatum values[2];
	MakoRows	rows;
	bool		found;
	ListCell   *cell;

	foreach(cell, tally->reports)
	{
		const MakoReport *report = lfirst(cell);
		ListCell   *unsaved;

		foreach(unsaved, report->unsaved)
			if (((const MakoError *) lfirst(unsaved))->stream_no == stream_no)
				return true;
		run_ids[count++] = report->run_id;
	}
	values[0] = mako_bigint_array(run_ids, count);
	values[1] = mako_bigint(stream_no);
	rows = mako_sql_query(&select_error, values);
	found = rows.count > 0;
	mako_rows_free(&rows);
	return found;
}

/* An error as a mako_migration_error, in full. */
NullableDatum
mako_report_error_value(const char *stream_id, MakoPhase phase, int64 sequence_number,
						const ErrorData *data, TupleDesc tupdesc)
{
	MakoError	error = make_error(0, stream_id, phase, sequence_number, data);
	NullableDatum values[ERROR_COLUMNS];

	error_columns(&error, values);
	return mako_datum(mako_result_row(tupdesc, values));
}

/* The report's errors as mako_migration_error[]. */
static NullableDatum
errors_to_array(const MakoReport *report, Oid array_type)
{
	Oid			type = get_element_type(array_type);
	TupleDesc	tupdesc = lookup_rowtype_tupdesc_copy(type, -1);
	int			count = list_length(report->errors);
	NullableDatum *elements = palloc(sizeof(NullableDatum) * (count + 1));

	for (int i = 0; i < count; i++)
	{
		NullableDatum values[ERROR_COLUMNS];

		error_columns(list_nth(report->errors, i), values);
		elements[i] = mako_datum(mako_result_row(tupdesc, values));
	}
	return mako_array(elements, count, type);
}

/* The report as a row of its type. */
void
mako_report_columns(const MakoReport *report, TupleDesc tupdesc, NullableDatum *values)
{
	enum
	{
		RUN_ID, SOURCE_WF, TARGET_WF, MIGRATED, SKIPPED, FAILED, ERRORS, STARTED_AT, DURATION
	};

	values[RUN_ID] = mako_bigint(report->run_id);
	values[SOURCE_WF] = mako_text(report->source_wf);
	values[TARGET_WF] = mako_text(report->target_wf);
	values[MIGRATED] = mako_bigint(report->migrated);
	values[SKIPPED] = mako_bigint(report->skipped);
	values[FAILED] = mako_bigint(report->failed);
	values[ERRORS] = errors_to_array(report, TupleDescAttr(tupdesc, ERRORS)->atttypid);
	values[STARTED_AT] = mako_timestamptz(report->started_at);
	values[DURATION] = mako_datum(DirectFunctionCall2(timestamp_mi,
													  TimestampTzGetDatum(report->finished_at),
													  TimestampTzGetDatum(report->started_at)));
}
