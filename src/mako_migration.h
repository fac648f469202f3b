/*
 * mako_migration.h
 *	  The map of the extension: words, flow, data in the order of the flow, functions by file.
 *
 * Words. A *stream* is the events of one process; its *head* says which workflow it runs under now and its last sequence number.
 * *Folding* applies the events in order to a state, from the initial state or from the *boundary*: the newest unreverted migration
 * snapshot whose workflow is the head's. A *state migration* is one registered step from a workflow version to another; the *path*
 * is the shortest chain of steps from source to target. A *run* is one call of mako_migrate().
 *
 * Flow of a run; each arrow is a file below, and files call downwards only.
 *
 *	  migrate.c    guard -> plan -> lock heads -> batch of streams -> report
 *	  plan.c       definitions on the path, verified and fingerprinted         (MakoPlan)
 *	  stream.c     heads in stream_no order, locked; boundaries; events        (MakoStream, MakoEvent)
 *	  fold.c       upcast, apply, migrate, check: one stream at a time         (MakoFold)
 *	  snapshot.c   snapshots, heads, dependents: set-based, many streams       (MakoWriter)
 *	  report.c     counts and errors                                           (MakoReport)
 *
 * Memory. The run context lives as long as the call. Below it hang the batch context (heads, boundaries; reset per batch), the
 * fold's two stream contexts (reset per stream), the writer's context (states that wait to be written; reset per flush) and the
 * contexts of the compiled functions (reset after an error). Whoever owns a context resets it; nobody else switches into it for
 * longer than one allocation.
 *
 * Errors. What goes wrong in one stream is caught by migrate.c (reading, folding) or snapshot.c (writing), becomes a MakoError and
 * ends nothing but that stream. fold.c and below raise ordinary errors and know nothing of transactions.
 */
#ifndef MAKO_MIGRATION_H
#define MAKO_MIGRATION_H

#include "postgres.h"

#include "fmgr.h"
#include "lib/stringinfo.h"
#include "nodes/execnodes.h"
#include "nodes/params.h"
#include "nodes/pg_list.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "compat.h"

/* Limits. */
#define MAKO_MAX_NAME 200			/* bytes of a workflow name */
#define MAKO_FORMAT_VERSION_LENGTH 12	/* bytes of FV2025-10-01 */
#define MAKO_REPORT_ERRORS 1000		/* errors in the report's array; the table has all of them */
#define MAKO_DETAIL_ERRORS 20		/* errors in the detail of a run ended by max_errors */
#define MAKO_ERROR_TEXT 1024		/* bytes of each text of an error in the report's array */

/* Error codes of our own; the others are the server's. */
#define MAKO_ERRCODE_NULL_RESULT MAKE_SQLSTATE('M','K','0','0','1')	/* a function returned null */
#define MAKO_ERRCODE_REJECTED MAKE_SQLSTATE('M','K','0','0','2')	/* refused by mako_reject() */
#define MAKO_ERRCODE_REQUIRED MAKE_SQLSTATE('M','K','0','0','3')	/* required path missing */
#define MAKO_ERRCODE_TYPE_MISMATCH MAKE_SQLSTATE('M','K','0','0','4')	/* value outside its type definition */
#define MAKO_ERRCODE_STREAM_MOVED MAKE_SQLSTATE('M','K','0','0','5')	/* stream runs under another workflow now */
#define MAKO_ERRCODE_NOT_OK MAKE_SQLSTATE('M','K','0','0','6')	/* too many streams failed */

/* Settings: mako_migration.c. */
extern int	mako_max_memory;	/* kB for states that wait to be written */
extern int	mako_batch_size;	/* heads locked and read at once */

/*
 * Where a stream is on its way; the phase of an error is where it happened.
 */
typedef enum MakoPhase
{
	MAKO_PHASE_LOAD,			/* head, boundary, events */
	MAKO_PHASE_UPCAST,
	MAKO_PHASE_EVENT,			/* the payload's type definition */
	MAKO_PHASE_APPLY,
	MAKO_PHASE_MIGRATE,
	MAKO_PHASE_STATE,			/* the state's type definition, domain and in-flight predicate */
	MAKO_PHASE_SNAPSHOT,
	MAKO_PHASE_REGISTRY,		/* head and dependents */
} MakoPhase;

extern const char *const mako_phase_name[];

/* ---- workflow_id.c: parsing and checking ids ------------------------------------------------------------------------------- */

extern const char *mako_workflow_id_version(const char *workflow_id);
extern bool mako_workflow_id_same_name(const char *a, const char *b);
extern Datum mako_assert_workflow_id(PG_FUNCTION_ARGS);

/* ---- sql.c: the only file with SPI ----------------------------------------------------------------------------------------- */

/*
 * A statement, prepared at its first use. %s in the text stands for the extension's schema. A static one keeps its plan for the
 * session, a transient one until the connection ends.
 */
typedef struct MakoStatement
{
	const char *text;
	int			nargs;
	Oid			argtypes[16];
	bool		plan_each_time;	/* the best plan depends on the sizes of arguments and tables */
	bool		transient;
	void	   *plan;			/* SPIPlanPtr, private to sql.c */
	Oid			schema;			/* of the extension, when the plan was made */
} MakoStatement;

/* The rows of a result, or how many rows a statement without result was about; free them with mako_rows_free(). */
typedef struct MakoRows
{
	uint64		count;
	void	   *table;			/* SPITupleTable, private to sql.c */
} MakoRows;

/* A connection: SPI, a pinned search_path and row_security = off, until it is closed or the (sub)transaction ends. */
typedef struct MakoConnection
{
	int			guc_level;
} MakoConnection;

typedef struct MakoCursor MakoCursor;

extern Oid	mako_sql_extension_schema(void);
extern const char *mako_sql_extension_version(void);
extern MakoConnection mako_sql_connect(void);
extern void mako_sql_disconnect(MakoConnection connection);
extern void mako_sql_connect_plain(void);
extern void mako_sql_disconnect_plain(void);
extern void mako_sql_rehearse(const MakoStatement *statement);
extern uint64 mako_sql_execute(MakoStatement *statement, Datum *values, const char *nulls);
extern MakoRows mako_sql_query(MakoStatement *statement, Datum *values, const char *nulls);
extern MakoRows mako_sql_query_snapshot(MakoStatement *statement, Datum *values, const char *nulls);
extern Datum mako_rows_get(const MakoRows *rows, uint64 row, int column, bool *isnull);
extern char *mako_rows_text(const MakoRows *rows, uint64 row, int column);
extern void mako_rows_free(MakoRows *rows);
extern MakoCursor *mako_cursor_open(MakoStatement *statement, Datum *values, const char *nulls, bool own_snapshot);
extern MakoRows mako_cursor_fetch(MakoCursor *cursor, long count);
extern void mako_cursor_close(MakoCursor *cursor);

/* ---- isolation.c: what may fail alone -------------------------------------------------------------------------------------- */

/*
 * Runs callback(argument) in a subtransaction. Returns NULL when it succeeded, else the error, in the current context, after
 * everything it did is rolled back. Errors that concern the whole run are raised again.
 */
extern ErrorData *mako_isolation_run(void (*callback) (void *argument), void *argument);

/* ---- invariants.c: the store's triggers, and the version fence ------------------------------------------------------------- */

/* What a transaction is about to do under a version; a retired version refuses more than a draining one. */
typedef enum MakoFence
{
	MAKO_FENCE_LEAVE,			/* take streams away */
	MAKO_FENCE_ENTER,			/* append events, move streams here: not when retired */
	MAKO_FENCE_START,			/* start processes: not when draining either */
} MakoFence;

extern MakoRows mako_invariants_query(MakoStatement *statement, Datum *values, const char *nulls);
extern uint64 mako_invariants_write(MakoStatement *statement, Datum *values, const char *nulls);
extern void mako_invariants_fence(const char *workflow_id, MakoFence fence);
extern void mako_invariants_lock_source(const char *workflow_id);
extern void mako_invariants_check_store(void);

/* ---- report.c: counts and errors ------------------------------------------------------------------------------------------- */

/* One stream that could not be migrated; lives in the report's context. */
typedef struct MakoError
{
	int64		stream_no;
	char	   *stream_id;
	MakoPhase	phase;
	int64		sequence_number;	/* 0 when no event is concerned */
	char		sqlstate[6];
	char	   *message;
	char	   *detail;			/* these may be NULL */
	char	   *hint;
	char	   *context;
} MakoError;

typedef struct MakoReport
{
	int64		run_id;
	const char *source_wf;
	const char *target_wf;
	int64		migrated;
	int64		skipped;
	int64		failed;
	List	   *errors;			/* the first MAKO_REPORT_ERRORS, cut */
	List	   *unsaved;		/* errors not yet in mako.migration_error, in full */
	int64		saved;			/* errors there */
	int64		max_errors;		/* -1: any number */
	TimestampTz started_at;
	TimestampTz finished_at;
	MemoryContext context;		/* of the report and its errors */
	MemoryContext unsaved_context;	/* of the errors not yet saved */
} MakoReport;

extern MakoReport *mako_report_create(const char *source_wf, const char *target_wf, int64 max_errors);
extern void mako_report_error(MakoReport *report, int64 stream_no, const char *stream_id, MakoPhase phase,
							  int64 sequence_number, const ErrorData *error);
extern void mako_report_save_errors(MakoReport *report);
extern Datum mako_report_to_datum(const MakoReport *report, FunctionCallInfo fcinfo);

/* ---- function.c: registered functions, found and checked ------------------------------------------------------------------- */

typedef enum MakoRole
{
	MAKO_ROLE_APPLY,			/* (state jsonb, event_type text, payload jsonb) -> jsonb */
	MAKO_ROLE_UPCAST,			/* (event_type text, schema_version int, payload jsonb) -> jsonb */
	MAKO_ROLE_MIGRATE,			/* (state jsonb) -> jsonb */
	MAKO_ROLE_IN_FLIGHT,		/* (state jsonb) -> boolean */
} MakoRole;

typedef struct MakoFunction
{
	MakoRole	role;
	Oid			oid;			/* InvalidOid when none is registered */
	Oid			owner;			/* runs it */
	char	   *signature;		/* schema.name(types), how it is registered */
} MakoFunction;

extern MakoFunction *mako_function_resolve(const char *name, MakoRole role);
extern MakoFunction *mako_function_lookup(const char *signature, MakoRole role, const char *registered_for);
extern const char *mako_function_role(MakoRole role);
extern Oid	mako_function_state_type(const MakoFunction *function);

/* ---- fingerprint.c: what a definition is, as text and as sha256 ------------------------------------------------------------ */

extern void mako_fingerprint_add(StringInfo out, const MakoFunction *function, bool tell_unseen);
extern char *mako_fingerprint_digest(const char *description);

/* ---- type_definition.c, type_check.c: JSON Type Definition (RFC 8927) ------------------------------------------------------ */

/* A step into a document or definition; frames on the C stack, linked upwards. NULL is the root. */
typedef struct MakoPath
{
	const struct MakoPath *up;
	const char *name;			/* a key; NULL for an element of an array */
	int			length;			/* of name, or the number of the element */
} MakoPath;

typedef struct MakoTypeDefinition MakoTypeDefinition;
typedef void (*MakoTypeErrorCallback) (void *argument, const MakoPath *instance_path, const MakoPath *schema_path);

extern MakoTypeDefinition *mako_type_definition_compile(const Jsonb *source);

extern bool mako_type_definition_check(const MakoTypeDefinition *definition, const Jsonb *document,
									   MakoTypeErrorCallback report, void *argument);
extern void mako_type_definition_require_state(const MakoTypeDefinition *definition, const char *workflow_id,
											   const Jsonb *state);
extern void mako_type_definition_require_event(const MakoTypeDefinition *definition, const text *event_type,
											   const Jsonb *payload);
extern char *mako_path_to_text(const MakoPath *path);
extern char *mako_path_describe(const MakoPath *path);

/* ---- definition.c: what is registered -------------------------------------------------------------------------------------- */

typedef struct MakoWorkflow
{
	char	   *workflow_id;
	MakoFunction *apply;		/* NULL where none is registered, like the next two */
	MakoFunction *upcast;
	MakoFunction *in_flight;
	Jsonb	   *initial_state;	/* NULL without apply */
	Jsonb	   *event_type_source;	/* NULL where none is registered, like the next three */
	Jsonb	   *state_type_source;
	MakoTypeDefinition *event_type; /* compiled */
	MakoTypeDefinition *state_type;
	int			state_schema_version;
	char	   *fingerprint;
} MakoWorkflow;

/* One registered step. */
typedef struct MakoStateMigration
{
	char	   *source_wf;
	char	   *target_wf;
	MakoFunction *migrate;		/* NULL: identity */
	char	   *fingerprint;
} MakoStateMigration;

extern MakoWorkflow *mako_definition_workflow(const char *workflow_id);
extern MakoStateMigration *mako_definition_migration(const char *source_wf, const char *target_wf);

/* ---- plan.c: the path from source to target -------------------------------------------------------------------------------- */

typedef struct MakoPlan
{
	int			steps;
	MakoWorkflow **workflows;	/* steps + 1, from source to target */
	MakoStateMigration **migrations;	/* steps */
	bool		identity;		/* no step has a function */
	char	   *fingerprint;	/* over all of the above */
} MakoPlan;

extern MakoPlan *mako_plan_create(const char *source_wf, const char *target_wf);
extern Datum mako_plan_path(const MakoPlan *plan);

/* ---- program.c: a function as a planned expression ------------------------------------------------------------------------- */

/* What the expressions refer to, as $1 to $4. */
typedef enum MakoParameter
{
	MAKO_PARAMETER_STATE = 1,
	MAKO_PARAMETER_EVENT_TYPE,
	MAKO_PARAMETER_SCHEMA_VERSION,
	MAKO_PARAMETER_PAYLOAD,
} MakoParameter;

typedef struct MakoProgram
{
	Expr	   *expression;		/* planned: simple SQL functions are inlined */
	ExprState  *state;			/* lives as long as the expression context */
	ExprContext *context;
	Oid			owner;			/* evaluates it, in a security-restricted operation */
} MakoProgram;

extern ParamListInfo mako_program_parameters(void);
extern void mako_program_bind(ParamListInfo parameters, MakoParameter parameter, Datum value);
extern MakoProgram *mako_program_compile(const MakoFunction *function);
extern MakoProgram *mako_program_compile_check(const MakoFunction *function);
extern ExprContext *mako_program_context(ParamListInfo parameters);
extern void mako_program_prepare(MakoProgram *program, ExprContext *context);
extern Datum mako_program_evaluate(MakoProgram *program, bool *isnull);

/* ---- fold.c: upcast, apply, migrate and check, one stream at a time -------------------------------------------------------- */

/* One event as it is read; points into the reader's memory, valid until the next one. */
typedef struct MakoEvent
{
	int64		stream_no;
	int64		sequence_number;
	Datum		event_type;
	int32		schema_version;
	Datum		payload;		/* possibly toasted */
} MakoEvent;

typedef struct MakoFold
{
	const MakoPlan *plan;
	ParamListInfo parameters;
	MakoProgram *upcast;		/* NULL where the workflow has none, like the next two */
	MakoProgram *apply;
	MakoProgram *in_flight;
	MakoProgram **migrate;		/* by step; NULL for identity */
	MakoProgram **check;		/* by step: the target's state domain; NULL where it has none */
	MemoryContext program_context;	/* evaluation state of the programs; reset after an error */
	ExprContext *expression_context;	/* there */
	MemoryContext stream_context;	/* state and payloads of the stream at hand */
	MemoryContext spare_context;	/* takes over when stream_context has grown */
	Datum		state;			/* jsonb in stream_context */
	MakoPhase	phase;			/* where the fold is; read by the handler of an error */
	int64		sequence_number;	/* of the event at hand or folded last */
} MakoFold;

extern MakoFold *mako_fold_create(const MakoPlan *plan);
extern void mako_fold_recover(MakoFold *fold);
extern void mako_fold_begin(MakoFold *fold, Datum state, int64 sequence_number);
extern void mako_fold_event(MakoFold *fold, const MakoEvent *event);
extern bool mako_fold_is_in_flight(MakoFold *fold);
extern void mako_fold_migrate(MakoFold *fold);

/* ---- stream.c: heads, boundaries, events ----------------------------------------------------------------------------------- */

/* A matching stream: its locked head and where folding starts. Lives in the batch context. */
typedef struct MakoStream
{
	int64		stream_no;
	char	   *stream_id;
	pg_uuid_t  *tenant_id;		/* NULL where the stream has none, like process_id */
	pg_uuid_t  *process_id;
	int64		version;		/* last sequence number */
	int64		start;			/* sequence number of the stored state, 0 without one */
	Datum		start_state;	/* jsonb, possibly toasted */
	int			start_schema_version;
} MakoStream;

typedef struct MakoReader MakoReader;

extern MakoCursor *mako_stream_open_heads(const char *source_wf, const pg_uuid_t *tenant_id);
extern int	mako_stream_fetch_heads(MakoCursor *cursor, MakoStream *streams, int capacity);
extern void mako_stream_load_states(MakoStream *streams, int count, const char *source_wf, bool periodic_too);
extern void mako_stream_rehearse(void);
extern MakoReader *mako_stream_open_events(const MakoStream *streams, int count);
extern const MakoEvent *mako_stream_next_event(MakoReader *reader, int64 stream_no);
extern void mako_stream_close_events(MakoReader *reader);

/* ---- snapshot.c: writing snapshots, heads, dependents ---------------------------------------------------------------------- */

/* A stream that waits to be written; lives in the writer's context. */
typedef struct MakoResult
{
	int64		stream_no;
	char	   *stream_id;
	pg_uuid_t  *tenant_id;
	pg_uuid_t  *process_id;
	int64		sequence_number;	/* of the state; of the head where there is none */
	Jsonb	   *state;			/* NULL: the stream moves without a snapshot */
	bool		counts;			/* as migrated; a stream without events is skipped */
} MakoResult;

typedef struct MakoWriter
{
	MakoReport *report;			/* has the ids of run, source and target */
	int			state_schema_version;	/* of the target */
	bool		update_registry;
	List	   *dependents;		/* MakoStatement, one a dependent */
	MemoryContext context;		/* of the results */
	MakoResult *results;
	int			count;
	int			capacity;
} MakoWriter;

extern MakoWriter *mako_writer_create(MakoReport *report, const MakoWorkflow *target, bool update_registry);
extern void mako_writer_add(MakoWriter *writer, const MakoStream *stream, int64 sequence_number, const Jsonb *state, bool counts);
extern void mako_writer_rehearse(const MakoWriter *writer);
extern bool mako_writer_is_full(const MakoWriter *writer);
extern void mako_writer_flush(MakoWriter *writer);

/* ---- migrate.c: the run ---------------------------------------------------------------------------------------------------- */

extern void mako_migrate_init(void);

#endif							/* MAKO_MIGRATION_H */
