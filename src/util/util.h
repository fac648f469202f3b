/*
 * util.h
 *	  Room util/: what every room needs. It knows no table.
 *
 *	  settings.c        the settings that the extension defines
 *	  rowset.c          arguments that must not be null, and rows as a result
 *	  array.c           arrays of values, and copies of stored ones
 *	  subtransaction.c  runs something that may fail alone
 *	  workflow_id.c     ids: a name and a format version
 *	  refusal.c         how a function refuses a stream, raised or not
 *
 * A row set lives in the context in which it was begun, and its rows in that of the query. The
 * error that a subtransaction returns is in the caller's context. The texts of a refusal live in
 * the memory of the stream that is refused.
 */
#ifndef MAKO_UTIL_H
#define MAKO_UTIL_H

#include "mako_migration.h"

#include "access/htup.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

/* ---- settings.c ----------------------------------------------------------------------------- */

extern void mako_settings_init(void);
extern int	mako_max_memory;	/* kB for events that wait for others and states that wait to be
								 * written */
extern int	mako_batch_size;	/* heads locked and read at once */
extern bool mako_native_evaluation; /* programs run on expanded values */
extern int	mako_scan_order;	/* MakoScanOrder */
extern int	mako_progress_interval; /* ms between notices of progress; 0: none */
extern int	mako_max_workers;	/* processes that fold for a run; -1: see settings.c */
extern char *mako_writer;		/* format version of events that say none; empty: none */

/* In which order a pass reads events. */
typedef enum MakoScanOrder
{
	MAKO_SCAN_AUTO,
	MAKO_SCAN_HEAP,				/* wherever it is possible */
	MAKO_SCAN_KEY,
} MakoScanOrder;

/* ---- values of SQL -------------------------------------------------------------------------- */

/*
 * A value of SQL with its null, as statements take it and rows give it. These make one: a NULL
 * pointer and a Datum 0 of mako_reference() are null.
 */
static inline NullableDatum
mako_datum(Datum value)
{
	return (NullableDatum) {value, false};
}

static inline NullableDatum
mako_null(void)
{
	return (NullableDatum) {(Datum) 0, true};
}

static inline NullableDatum
mako_reference(Datum value)
{
	return (NullableDatum) {value, value == (Datum) 0};
}

static inline NullableDatum
mako_bigint(int64 value)
{
	return mako_datum(Int64GetDatum(value));
}

static inline NullableDatum
mako_integer(int32 value)
{
	return mako_datum(Int32GetDatum(value));
}

static inline NullableDatum
mako_boolean(bool value)
{
	return mako_datum(BoolGetDatum(value));
}

static inline NullableDatum
mako_oid(Oid value)
{
	return mako_datum(ObjectIdGetDatum(value));
}

static inline NullableDatum
mako_timestamptz(TimestampTz value)
{
	return mako_datum(TimestampTzGetDatum(value));
}

static inline NullableDatum
mako_text(const char *value)
{
	return value == NULL ? mako_null() : mako_datum(CStringGetTextDatum(value));
}

static inline NullableDatum
mako_uuid(const pg_uuid_t *value)
{
	return mako_reference(UUIDPGetDatum(value));
}

/* The same value, or null. */
static inline NullableDatum
mako_unless(bool is_null, NullableDatum value)
{
	return is_null ? mako_null() : value;
}

/* ---- rowset.c: arguments and results of functions ------------------------------------------- */

typedef struct MakoRowSet MakoRowSet;

/* Sends a row about a stream to where it belongs. */
typedef void (*MakoRowSender) (void *argument, int64 stream_no, MinimalTuple row);

extern void mako_require_value(bool has_value, const char *name);
extern char *mako_argument_text(FunctionCallInfo fcinfo, int argument, const char *name);
extern TupleDesc mako_result_type(FunctionCallInfo fcinfo);
extern Datum mako_result_row(TupleDesc type, const NullableDatum *values);
extern MakoRowSet *mako_rowset_begin(FunctionCallInfo fcinfo);
extern TupleDesc mako_rowset_type(const MakoRowSet *rows);
extern void mako_rowset_add(MakoRowSet *rows, const NullableDatum *values);
extern MakoRowSet *mako_rowset_begin_sending(Oid function, MakoRowSender send, void *argument);
extern void mako_rowset_at(MakoRowSet *rows, int64 stream_no);
extern void mako_rowset_add_tuple(MakoRowSet *rows, MinimalTuple row);
extern void mako_rowset_clear(MakoRowSet *rows);

/* ---- array.c: arrays, and copies ------------------------------------------------------------ */

extern NullableDatum mako_array(const NullableDatum *values, int count, Oid type);
extern NullableDatum mako_bigint_array(const int64 *numbers, int count);
extern NullableDatum mako_text_array(const char *const *strings, int count);
extern Datum mako_copy_stored(Datum value);

/* ---- subtransaction.c: what may fail alone -------------------------------------------------- */

/*
 * Runs callback(argument) in a subtransaction. Returns NULL when it succeeded, else the error, in
 * the current context, after everything it did is rolled back. Errors that concern the whole run
 * are raised again.
 */
extern ErrorData *mako_subtransaction_run(void (*callback) (void *argument), void *argument);
extern bool mako_subtransaction_is_servers_error(MemoryContext context);

/* ---- refusal.c: how a function refuses a stream --------------------------------------------- */

/* A refusal that was taken down instead of raised; its texts live in the stream's memory. */
typedef struct MakoRefusal
{
	int			sqlerrcode;		/* 0: none */
	char	   *message;
	char	   *hint;			/* or NULL */
} MakoRefusal;

/*
 * Where the refusals of a program go: the context of its calls that may refuse. Not a global
 * variable, because programs can call others, and errors can end those.
 */
typedef struct MakoRefusals
{
	NodeTag		type;			/* none: T_Invalid */
	MakoRefusal *refusal;		/* NULL: refusals are raised */
} MakoRefusals;

extern void mako_refuse(MakoRefusal *refusal, int sqlerrcode, char *message, char *hint);
extern ErrorData *mako_refusal_to_error(const MakoRefusal *refusal);
extern Datum mako_reject(PG_FUNCTION_ARGS);
extern Datum mako_reject_in_program(PG_FUNCTION_ARGS);
extern Datum mako_required(PG_FUNCTION_ARGS);
extern Datum mako_required_in_program(PG_FUNCTION_ARGS);

/* ---- workflow_id.c: parsing and checking ids ------------------------------------------------ */

extern const char *mako_workflow_id_fault(const char *workflow_id);
extern const char *mako_format_version_fault(const char *id, int length);
extern char *mako_workflow_id_at(const char *workflow_id, const char *format_version);
extern const char *mako_workflow_id_version(const char *workflow_id);
extern bool mako_workflow_id_same_name(const char *a, const char *b);
extern Datum mako_assert_workflow_id(PG_FUNCTION_ARGS);

#endif							/* MAKO_UTIL_H */
