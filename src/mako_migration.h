/*
 * mako_migration.h
 *	  The map of the extension: words, flow, data in the order of the flow, functions by file.
 *
 * Words. A *stream* is the events of one process; its *head* says which workflow it runs under now and its last sequence number.
 * *Folding* applies the events in order to a state, from the initial state or from the *boundary*: the newest unreverted migration
 * snapshot whose workflow is the head's. A *state migration* is one registered step from a workflow version to another; the *path*
 * is the shortest chain of steps from source to target. A *run* migrates one source to one target; a *pass* reads heads and events once
 * for all runs of a call, which is one of mako_migrate(), or one a workflow of mako_migrate_version().
 *
 * Flow of a run, from the call to the report. Further below, a file stands behind those that it calls.
 *
 *	  migrate.c    the call: arguments, reports as rows
 *	  call_guard.c       not twice, and not inside another one
 *	  run.c        plans -> heads -> events, in either order -> report         (MakoRequest)
 *	  migration_path.c       definitions on the path, verified and fingerprinted         (MakoPlan)
 *	  match.c     how many streams run under which workflow; which match, if
 *				   they are few                                                (MakoCensus)
 *	  seen.c       which ones the pass has met                                 (MakoSeen)
 *	  stream.c     heads in stream_no order, locked; boundaries; few matches:
 *				   events in key order                                         (MakoStream, MakoEvent)
 *	  event_index.c     ... from their index, without a statement                   (MakoLookup)
 *	  heap_order.c     many matches: events in heap order, until a stream has all  (MakoGathered)
 *	  chunk.c      ... in small chunks of memory                               (MakoChunks)
 *	  batch.c      many streams in few subtransactions                         (MakoBatch)
 *	  move.c       one stream, from its events to its state under the target   (MakoMover, MakoMove)
 *	  replay.c     ... from what it starts from to its head                    (MakoReplay)
 *	  fold.c       upcast, apply, migrate, check: one event, one state         (MakoFold)
 *	  writer.c   snapshots, heads, dependents: many streams of all runs, in
 *				   key order                                                   (MakoWriter)
 *	  table_write.c     rows to tables that do nothing but hold rows                (MakoDirect)
 *	  report.c     counts and errors                                           (MakoReport)
 *	  audit.c      the runs, for those who ask later
 *	  progress.c   how far it has come, for others to see
 *
 * batched.c is the call of a procedure instead, which goes that way once a batch, and commits (MakoBatchedRun: batched.h).
 *
 * What fold.c calls, from a function's name to a value:
 *
 *	  function.c         registered functions, found and checked               (MakoFunction)
 *	  inline.c           the call as one expression; what is used often, bound (MakoBinding)
 *	  sql_body.c         ... and the bodies that it is made of                 (MakoSqlBody)
 *	  shared_lookup.c            ... in which no lookup stands twice
 *	  operand.c          fields, found without the executor                    (MakoField)
 *	  case_table.c           CASE and comparisons over constants, by hash          (MakoChoice)
 *	  program.c          planned, and evaluated as the function's owner        (MakoProgram)
 *	  drop_in.c          ... with drop-ins for the server's jsonb functions:
 *	  json_read.c, json_build.c, json_edit.c
 *	  json_value.c    the values that those work on                         (MakoJson)
 *	  refusal.c          mako_reject(), mako_required() and null, not raised   (MakoRefusal)
 *
 * What is registered (definition.c) is compared with what it is now at every use: fingerprint.c has it as text, which describe.c makes of
 * everything that a function's results depend on (describe.h).
 *
 * explain.c takes a function the same way and says what became of it, call by call; plan.c, of which functions, streams and events a
 * migration would need, and what stands against it.
 *
 * verify.c proves what runs and applications have stored: history.c computes it again, through every recorded move. transitions.c tells
 * which states follow which.
 *
 * What an engine calls goes the same way: append.c writes through the tables' own triggers (triggers.c), behind the fence around a
 * version (fence.c), with the numbers of sequence.c; state.c reads through replay.c, with folds that fold_cache.c keeps; routing.c finds; streams.c
 * looks at many streams in passing, for coverage.c, which tells what is left on a version, and retires it; for dry_run.c, which moves them
 * without writing (merge_patch.c says what has changed); and for check.c, which looks for what is wrong with definitions and store
 * (check_values.c tries the former with values that instances.c makes of type definitions). revert.c undoes a run, with the writer of writer.c.
 *
 * Memory. The run context lives as long as the call. Below it hang the batch context (heads, boundaries; reset per batch), the gathering
 * (streams and events in chunks of its own, free for others when the stream is folded or left; seven eighths of the setting), the fold's
 * two stream contexts (reset per stream), the writer's context (states of all runs that wait to be written; reset per flush) and the
 * contexts of the compiled functions (reset after an error). A fold copies the state that it begins with before it resets anything: the
 * state may be its own. Whoever owns a context resets it; nobody else switches into it for longer than one allocation. A cached fold has
 * a context of its own, which hangs below its borrower's; what fingerprint.c keeps hangs below the transaction's.
 *
 * A state is an expanded value while its stream is folded. It has no context of its own but lies in the stream's, and points into
 * payloads (there, or gathered), stored states and constants of the programs; nothing changes once it is made. It becomes flat when it is
 * checked, when the stream's context has grown too large, and when it waits to be written. What is bound is valid for one evaluation.
 *
 * Errors. What goes wrong in one stream is caught by batch.c (reading, folding) or writer.c (writing), becomes a MakoError and
 * ends nothing but that stream. fold.c and below raise ordinary errors and know nothing of transactions, with two exceptions: a refusal
 * is taken down instead, where the caller wants it so; and inline.c isolates each call that it tries, which may never be made.
 */
#ifndef MAKO_MIGRATION_H
#define MAKO_MIGRATION_H

#include "postgres.h"

#include "access/htup.h"
#include "access/tupdesc.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "nodes/execnodes.h"
#include "nodes/params.h"
#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"
#include "storage/itemptr.h"
#include "utils/jsonb.h"
#include "utils/relcache.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "compat.h"
#include "gate/sql.h"

/* Our messages are told from the server's own by their domain: see subtransaction.c. */
#undef TEXTDOMAIN
#define TEXTDOMAIN PG_TEXTDOMAIN("mako_migration")

/* Limits. */
#define MAKO_MAX_NAME 200			/* bytes of a workflow name */
#define MAKO_FORMAT_VERSION_LENGTH 12	/* bytes of FV2025-10-01 */
#define MAKO_REPORT_ERRORS 1000		/* errors in the report's array; the table has all of them */
#define MAKO_DETAIL_ERRORS 20		/* errors in the detail of a run ended by max_errors */
#define MAKO_ERROR_TEXT 1024		/* bytes of each text of an error in the report's array */
#define MAKO_INLINE_NODES 20000	/* of an expression into which functions are inlined */

/* Error codes of our own; the others are the server's. */
#define MAKO_ERRCODE_NULL_RESULT MAKE_SQLSTATE('M','K','0','0','1')	/* a function returned null */
#define MAKO_ERRCODE_REJECTED MAKE_SQLSTATE('M','K','0','0','2')	/* refused by mako_reject() */
#define MAKO_ERRCODE_REQUIRED MAKE_SQLSTATE('M','K','0','0','3')	/* required path missing */
#define MAKO_ERRCODE_TYPE_MISMATCH MAKE_SQLSTATE('M','K','0','0','4')	/* value outside its type definition */
#define MAKO_ERRCODE_STREAM_MOVED MAKE_SQLSTATE('M','K','0','0','5')	/* stream runs under another workflow now */
#define MAKO_ERRCODE_NOT_OK MAKE_SQLSTATE('M','K','0','0','6')	/* too many streams failed */
#define MAKO_ERRCODE_PROCESS_EXISTS MAKE_SQLSTATE('M','K','0','0','7')	/* mako_spawn() of one that is there */

/* Settings: settings.c. */
extern void mako_settings_init(void);
extern int	mako_max_memory;	/* kB for events that wait for others and states that wait to be written */
extern int	mako_batch_size;	/* heads locked and read at once */
extern bool mako_native_evaluation; /* programs run on expanded values */
extern int	mako_scan_order;	/* MakoScanOrder */
extern int	mako_progress_interval; /* ms between notices of progress; 0: none */

/* In which order a pass reads events. */
typedef enum MakoScanOrder
{
	MAKO_SCAN_AUTO,
	MAKO_SCAN_HEAP,				/* wherever it is possible */
	MAKO_SCAN_KEY,
} MakoScanOrder;

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

extern char *mako_workflow_id_at(const char *workflow_id, const char *format_version);
extern const char *mako_workflow_id_version(const char *workflow_id);
extern bool mako_workflow_id_same_name(const char *a, const char *b);
extern Datum mako_assert_workflow_id(PG_FUNCTION_ARGS);

/* ---- rowset.c: arguments and results of functions -------------------------------------------------------------------------- */

typedef struct MakoRowSet MakoRowSet;

extern void mako_require_value(bool has_value, const char *name);
extern char *mako_argument_text(FunctionCallInfo fcinfo, int argument, const char *name);
extern MakoRowSet *mako_rowset_begin(FunctionCallInfo fcinfo);
extern TupleDesc mako_rowset_type(const MakoRowSet *rows);
extern void mako_rowset_add(MakoRowSet *rows, const Datum *values, const bool *nulls);
extern void mako_rowset_add_rows(MakoRowSet *rows, MakoRows added);

/* ---- subtransaction.c: what may fail alone -------------------------------------------------------------------------------------- */

/*
 * Runs callback(argument) in a subtransaction. Returns NULL when it succeeded, else the error, in the current context, after
 * everything it did is rolled back. Errors that concern the whole run are raised again.
 */
extern ErrorData *mako_isolation_run(void (*callback) (void *argument), void *argument);
extern bool mako_isolation_is_servers_error(MemoryContext context);

/* ---- role.c: roles that are remembered in tables --------------------------------------------------------------------------- */

extern char *mako_identity(Oid object);
extern Oid	mako_role_find(const char *name, const char *identity);
extern bool mako_role_is(Oid now, const char *name, const char *identity);

/* ---- fence.c: the fence around a format version ---------------------------------------------------------------------------- */

/* What a transaction is about to do under a version; a retired version refuses more than a draining one. */
typedef enum MakoFence
{
	MAKO_FENCE_ENTER,			/* append events, move streams here: not when retired */
	MAKO_FENCE_START,			/* start processes: not when draining either */
} MakoFence;

extern void mako_fence_init(void);
extern void mako_fence_lock_source(const char *workflow_id);
extern bool mako_fence_source_is_locked(const char *workflow_id);
extern void mako_fence_hold_source(const char *workflow_id);
extern void mako_fence_release_sources(void);
extern void mako_fence_lock(const char *workflow_id);
extern void mako_fence_check(const char *workflow_id, MakoFence fence);
extern void mako_fence_pass(const char *workflow_id, MakoFence fence);
extern void mako_fence_close(const char *format_version);
extern const char *mako_fence_status(const char *format_version);
extern const char *mako_fence_closed(const char *format_version);

/* ---- table_write.c: writing rows without a statement ---------------------------------------------------------------------------- */

typedef struct MakoDirect MakoDirect;

extern MakoDirect *mako_direct_open(const char *table, CmdType command, const char *const *columns, int count);
extern void mako_direct_insert(MakoDirect *direct, const Datum *values);
extern bool mako_direct_update(MakoDirect *direct, ItemPointer tid, Datum value);
extern void mako_direct_close(MakoDirect *direct);

/* ---- head.c: changes heads ------------------------------------------------------------------------------------------------- */

/* A head that is locked, as it is now. */
typedef struct MakoHead
{
	int64		stream_no;
	const char *stream_id;
	const char *workflow_id;
	int64		version;		/* last sequence number */
	ItemPointerData tid;
} MakoHead;

extern bool mako_head_advance(const ItemPointerData *tid, int64 version);
extern MakoDirect *mako_head_open(void);

/* ---- sequence.c: the numbers of streams and runs ------------------------------------------------------------------------------ */

extern const char *mako_sequence_problems(void);
extern void mako_sequence_catch_up(void);
extern void mako_sequence_pass(Relation stream, int64 highest, Oid role);

/* ---- store_check.c: the store as a whole ------------------------------------------------------------------------------------ */

extern bool mako_store_is_whole(void);
extern const char *mako_store_problems(void);
extern void mako_store_check(void);
extern void mako_store_check_for_run(void);

/* ---- triggers.c: the store's triggers ------------------------------------------------------------------------------------ */

extern MakoRows mako_invariants_query(MakoStatement *statement, Datum *values, const char *nulls);
extern uint64 mako_invariants_write(MakoStatement *statement, Datum *values, const char *nulls);
extern uint64 mako_invariants_advances(void);
extern uint64 mako_invariants_append(MakoStatement *statement, Datum *values, const char *nulls, const MakoHead *head);
pg_noreturn extern void mako_invariants_raise_moved(int64 stream_no, const char *stream_id, const char *workflow_id,
													const char *detail);

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

#define MAKO_REPORT_COLUMNS 9	/* of mako_migration_report */

/* What the runs of a call have in common: how many streams may fail. */
typedef struct MakoTally
{
	int64		max_errors;		/* -1: any number */
	int64		failed;			/* in all runs */
	bool		in_batches;		/* something is committed already; by the run at hand: */
	int64		committed_migrated;
	int64		committed_failed;
	List	   *reports;		/* in the order of the runs */
} MakoTally;

typedef struct MakoReport
{
	int64		run_id;
	const char *source_wf;
	const char *target_wf;
	int64		migrated;
	int64		skipped;
	int64		failed;
	MakoTally  *tally;
	List	   *errors;			/* the first MAKO_REPORT_ERRORS in an order that report.c knows, cut */
	List	   *unsaved;		/* errors not yet in mako.migration_error, in that order, in full */
	int64		saved;			/* errors there */
	TimestampTz started_at;
	TimestampTz finished_at;
	MemoryContext context;		/* of the report and its errors */
	MemoryContext unsaved_context;	/* of the errors not yet saved */
} MakoReport;

extern MakoReport *mako_report_create(const char *source_wf, const char *target_wf, MakoTally *tally);
extern void mako_report_error(MakoReport *report, int64 stream_no, const char *stream_id, MakoPhase phase,
							  int64 sequence_number, const ErrorData *error);
extern void mako_report_save_errors(MakoReport *report);
extern Datum mako_report_error_datum(const char *stream_id, MakoPhase phase, int64 sequence_number, const ErrorData *error,
									 TupleDesc tupdesc);
extern void mako_report_load_errors(MakoReport *report);
extern bool mako_report_has(const MakoTally *tally, int64 stream_no);
extern void mako_report_columns(const MakoReport *report, TupleDesc tupdesc, Datum *values, bool *nulls);

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
extern HeapTuple mako_function_tuple(Oid oid);
extern Oid	mako_function_state_type(const MakoFunction *function);

/* ---- fingerprint.c: what a definition is, as text and as sha256 ------------------------------------------------------------ */

extern void mako_fingerprint_init(void);
extern uint64 mako_fingerprint_generation(void);
extern List *mako_fingerprint_add(StringInfo out, const MakoFunction *function, bool tell_unseen);
extern char *mako_fingerprint_digest(const char *description);
extern void mako_fingerprint_watch(Oid relation);
extern bool mako_fingerprint_body(Oid function, FuncExpr *call, List *columns, List **trees);

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

/* ---- instances.c: values that a type definition allows --------------------------------------------------------------------- */

#define MAKO_INSTANCES 1000		/* of a definition, at most */

typedef struct MakoInstance
{
	Jsonb	   *value;
	char	   *variant;		/* of a discriminator, or the value of an enum; NULL for other definitions */
	text	   *event_type;		/* of a variant: of its metadata, or its name; else NULL */
} MakoInstance;

extern List *mako_instances_generate(const MakoTypeDefinition *definition, int limit);

/* ---- definition.c: what is registered -------------------------------------------------------------------------------------- */

/* The owners of a definition's functions, as they are registered, in the order of the functions; then those of helpers of other roles. */
typedef struct MakoOwners
{
	int			count;
	char	  **name;
	char	  **identity;		/* role.c */
} MakoOwners;

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
	char	   *description;	/* all of it as text */
	char	   *fingerprint;	/* sha256 of that */
	List	   *helpers;		/* (OIDs) in it that run as another role */
} MakoWorkflow;

/* One registered step. */
typedef struct MakoStateMigration
{
	char	   *source_wf;
	char	   *target_wf;
	MakoFunction *migrate;		/* NULL: identity */
	char	   *description;	/* like those of a workflow */
	char	   *fingerprint;
	List	   *helpers;
} MakoStateMigration;

/* What is said when a function has another owner: mako_check() knows it by that. */
#define MAKO_OTHER_OWNER "function %s has another owner than when it was registered"

extern MakoWorkflow *mako_definition_workflow(const char *workflow_id);
extern MakoOwners mako_definition_owners(const MakoRows *rows, uint64 row, int column);
extern char *mako_definition_fingerprint(const char *workflow_id);
extern void mako_definition_require(const char *workflow_id);
extern MakoStateMigration *mako_definition_migration(const char *source_wf, const char *target_wf);

/* ---- register.c, owners.c: what changes a definition, or what belongs to it ---------------------------------------------------- */

extern MakoConnection mako_register_begin(const char *function);
extern uint64 mako_register_write(MakoStatement *statement, Datum *values, const char *nulls);
extern bool mako_register_is_used(MakoStatement *statement, Datum *values);
extern bool mako_register_require(MakoStatement *select, Datum *key, const char *kind, const char *name, const char *done);
extern bool mako_register_require_workflow(const char *workflow_id);
extern void mako_actors_bind_caller(int parameter, Datum *values);

/* ---- migration_path.c: the path from source to target -------------------------------------------------------------------------------- */

typedef struct MakoPlan
{
	int			steps;
	MakoWorkflow **workflows;	/* steps + 1, from source to target */
	MakoStateMigration **migrations;	/* steps */
	bool		identity;		/* no step has a function */
	char	   *fingerprint;	/* over all of the above */
} MakoPlan;

extern void mako_plan_require_pair(const char *source, const char *target);
extern const char **mako_plan_ids(const char *source_wf, const char *target_wf, int *steps);
extern MakoPlan *mako_plan_create(const char *source_wf, const char *target_wf);
extern bool mako_plan_leads(const char *source_wf, const char *target_wf);
extern List *mako_plan_junctions(const char *source_wf);
extern Datum mako_plan_path(const MakoPlan *plan);
extern Datum mako_plan_definitions(const MakoPlan *plan);

/* ---- refusal.c: how a function refuses a stream ---------------------------------------------------------------------------- */

/* A refusal that was taken down instead of raised; its texts live in the stream's memory. */
typedef struct MakoRefusal
{
	int			sqlerrcode;		/* 0: none */
	char	   *message;
	char	   *hint;			/* or NULL */
} MakoRefusal;

/*
 * Where the refusals of a program go: the context of its calls that may refuse. Not a global variable, because programs can call others,
 * and errors can end those.
 */
typedef struct MakoRefusalSink
{
	NodeTag		type;			/* none: T_Invalid */
	MakoRefusal *refusal;		/* NULL: refusals are raised */
} MakoRefusalSink;

extern void mako_refuse(MakoRefusal *refusal, int sqlerrcode, char *message, char *hint);
extern ErrorData *mako_refusal_to_error(const MakoRefusal *refusal);
extern Datum mako_reject(PG_FUNCTION_ARGS);
extern Datum mako_reject_in_program(PG_FUNCTION_ARGS);
extern Datum mako_required(PG_FUNCTION_ARGS);
extern Datum mako_required_in_program(PG_FUNCTION_ARGS);

/* ---- json_value.c, json_functions.c, json_read.c, json_build.c, json_edit.c: jsonb without serializing ------------------ */

extern bool mako_json_function_is_native(Oid function);
extern Oid	mako_json_call(const Node *node, List **arguments);
extern bool mako_json_function_is_lookup(Oid function);
extern bool mako_json_function_compares_texts(Oid function, bool *is_negated);
extern bool mako_json_is_field(const Node *node, bool *is_text);
extern PGFunction mako_json_drop_in(PGFunction function);
extern Expr *mako_json_functions_rewrite(Expr *expression);
extern void mako_json_functions_replace(ExprState *state, MakoRefusalSink *sink);

/* ---- sql_body.c, inline.c, shared_lookup.c, operand.c, case_table.c: from a call to a program (inline.h, operand.h) ------------------------ */

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
	Expr	   *expression;		/* planned: SQL functions are inlined */
	bool		is_inlined;		/* by inline.c */
	List	   *bindings;		/* of MakoBinding; $5 and so on */
	List	   *choices;		/* of MakoChoice; $-1 and so on */
	bool		is_json;		/* the result is a jsonb */
	uint64		evaluation;		/* number of the one at hand */
	struct MakoOperand *operand;	/* the expression with choices in it, which is evaluated */
	ExprContext *context;
	MakoRefusalSink sink;		/* of the evaluation at hand */
	Oid			owner;			/* evaluates it, in a security-restricted operation */
	bool		plain;			/* calls nothing that could change a setting */
} MakoProgram;

extern ParamListInfo mako_program_parameters(void);
extern void mako_program_bind(ParamListInfo parameters, MakoParameter parameter, Datum value);
extern MakoProgram *mako_program_plan(Expr *expression, Oid owner, List **notes);
extern MakoProgram *mako_program_compile(const MakoFunction *function);
extern MakoProgram *mako_program_compile_check(const MakoFunction *function);
extern void mako_program_require_state(const MakoFunction *function, Datum state);
extern ExprContext *mako_program_context(ParamListInfo parameters);
extern void mako_program_prepare(MakoProgram *program, ExprContext *context);
extern Datum mako_program_evaluate(MakoProgram *program, MakoRefusal *refusal, bool *isnull);

/* ---- fold.c: upcast, apply, migrate and check, one stream at a time -------------------------------------------------------- */

/* One event as it is read; points into the reader's memory, valid until the next one. */
typedef struct MakoEvent
{
	int64		stream_no;
	int64		sequence_number;
	Datum		workflow_id;	/* the event was written under */
	Datum		event_type;
	int32		schema_version;
	bool		lasts;			/* longer than the next one: as long as its stream is folded */
	Datum		payload;		/* possibly toasted */
} MakoEvent;

typedef struct MakoFold
{
	const MakoPlan *plan;
	const MakoWorkflow *workflow;	/* the plan's first, of the streams that are folded */
	ParamListInfo parameters;
	MakoProgram *upcast;		/* NULL where the workflow has none, like the next two */
	MakoProgram *apply;
	MakoProgram *in_flight;
	MakoProgram *state_check;	/* the source's state domain; NULL where it has none */
	MakoProgram **migrate;		/* by step; NULL for identity */
	MakoProgram **check;		/* by step: the target's state domain; NULL where it has none */
	MemoryContext program_context;	/* evaluation state of the programs; reset after an error */
	ExprContext *expression_context;	/* there */
	MemoryContext stream_context;	/* state and payloads of the stream at hand */
	MemoryContext spare_context;	/* takes over when stream_context has grown */
	Datum		state;			/* jsonb in stream_context, flat or expanded */
	bool		takes_refusals; /* down in refusal, instead of raising them */
	MakoRefusal refusal;		/* of the stream at hand */
	MemoryContext context;		/* of a cached fold: its own; see fold_cache.c, like the next */
	uint64		generation;		/* of what it was compiled from */
	bool		native;			/* compiled with mako_native_evaluation */
	MakoPhase	phase;			/* where the fold is; read by the handler of an error */
	int64		sequence_number;	/* of the event at hand or folded last */
} MakoFold;

extern MakoFold *mako_fold_create(const MakoPlan *plan);
extern void mako_fold_recover(MakoFold *fold);
extern void mako_fold_release(MakoFold *fold);
extern void mako_fold_require_apply(const MakoFold *fold);
extern void mako_fold_context(void *argument);
extern void mako_fold_begin(MakoFold *fold, Datum state, int64 sequence_number);
extern bool mako_fold_event(MakoFold *fold, const MakoEvent *event);
extern void mako_fold_check_domain(MakoFold *fold);
extern bool mako_fold_is_in_flight(MakoFold *fold);
extern bool mako_fold_migrate(MakoFold *fold);

/* ---- fold_cache.c: compiled folds, kept for the session -------------------------------------------------------------------- */

extern MakoFold *mako_fold_borrow(const char *workflow_id);
extern void mako_fold_return(MakoFold *fold);

/* ---- chunk.c: memory in small chunks -------------------------------------------------------------------------------------- */

#define MAKO_CHUNK_STEP 32		/* bytes: sizes are multiples of it */
#define MAKO_CHUNK_LIMIT 1024	/* bytes: larger ones are the context's own */

/* Zero but for the context, to begin with. */
typedef struct MakoChunks
{
	MemoryContext context;
	void	   *free[MAKO_CHUNK_LIMIT / MAKO_CHUNK_STEP + 1];	/* by size */
	char	   *block;			/* what is left of the last block */
	Size		left;
	Size		blocks;			/* memory of all blocks */
	Size		used;			/* by chunks */
} MakoChunks;

/* Asks the processor for memory that will be used soon; nothing happens where there is none. */
static inline void
mako_prefetch(const void *start, Size size)
{
	const char *bytes = start;

	for (Size offset = 0; bytes != NULL && offset < size; offset += 64)
		__builtin_prefetch(bytes + offset);
}

extern void *mako_chunk_allocate(MakoChunks *chunks, Size size);
extern void mako_chunk_free(MakoChunks *chunks, void *chunk, Size size);

/* ---- match.c: how many streams run under which workflow ------------------------------------------------------------------- */

typedef struct MakoCensus MakoCensus;

extern MakoCensus *mako_census_take(const char *const *sources, int source_count, const pg_uuid_t *tenant_id);
extern MakoCensus *mako_census_repeat(const pg_uuid_t *tenant_id, bool by_workflow);
extern double mako_census_all(const MakoCensus *census);
extern int64 mako_census_under(const MakoCensus *census, const char *workflow_id);
extern int64 mako_census_scope(const MakoCensus *census, const char *workflow_id);
extern const int64 *mako_census_found(const MakoCensus *census, int *count);

/* ---- seen.c: which streams a pass has met ----------------------------------------------------------------------------------- */

typedef struct MakoSeen MakoSeen;

extern MakoSeen *mako_seen_create(void);
extern void mako_seen_add(MakoSeen *seen, int64 number);
extern bool mako_seen_has(const MakoSeen *seen, int64 number);
extern int64 mako_seen_count(const MakoSeen *seen);

/* ---- event_index.c: the events of one stream after another, from an index ------------------------------------------------------- */

typedef struct MakoLookup MakoLookup;

#define MAKO_EVENT_COLUMNS 6		/* stream_no, sequence_number, workflow_id, event_type, schema_version, payload */

extern bool mako_lookup_is_possible(void);
extern MakoLookup *mako_lookup_open(void);
extern void mako_lookup_stream(MakoLookup *lookup, int64 stream_no, int64 start);
extern bool mako_lookup_next(MakoLookup *lookup, Datum *values, bool *nulls);
extern void mako_lookup_close(MakoLookup *lookup);

/* ---- stream.c: heads, boundaries, events ----------------------------------------------------------------------------------- */

/* An event that has been gathered; lives as long as its stream is being gathered. */
typedef struct MakoGathered
{
	struct MakoGathered *next;	/* of the stream; NULL for the last one */
	Size		size;			/* with what the event points to */
	MakoEvent	event;
} MakoGathered;

/* A stream: its head and where folding starts. Those of a run are locked and live in the batch context. */
typedef struct MakoStream
{
	int64		stream_no;
	char	   *stream_id;		/* NULL where nobody needs names, like tenant_id and process_id */
	const char *workflow_id;	/* what it runs under */
	int			source;			/* in a pass: which of its workflows that is */
	ItemPointerData tid;		/* of a head that is locked; invalid where it is not known */
	pg_uuid_t  *tenant_id;		/* NULL where the stream has none, like process_id */
	pg_uuid_t  *process_id;
	int64		version;		/* last sequence number */
	int64		start;			/* sequence number of the stored state, 0 without one */
	Datum		start_state;	/* jsonb, possibly toasted */
	int			start_schema_version;
	bool		boundary_missing;	/* the newest migration snapshot is of another workflow */
	bool		periodic_too;	/* it may start from a periodic snapshot */
	const MakoGathered *gathered;	/* its events in order, where they have been gathered */
} MakoStream;

typedef struct MakoReader MakoReader;

extern void mako_stream_find(Datum stream_id, MakoStream *stream);
extern void mako_stream_lock(Datum stream_id, MakoStream *stream);
extern MakoCursor *mako_stream_open_heads(const char *const *workflow_ids, int count, const pg_uuid_t *tenant_id, bool with_names);
extern MakoCursor *mako_stream_open_sample(const char *workflow_id, const pg_uuid_t *tenant_id, int64 size, int64 seed);
extern MakoCursor *mako_stream_open_locking(const char *const *sources, int count, const pg_uuid_t *tenant_id, const int64 *found,
											int found_count, bool with_names);
extern int64 *mako_stream_next(const char *workflow_id, const pg_uuid_t *tenant_id, int64 after, int64 through, int64 run_id,
							   bool but_not_failed, int *count);
extern int64 *mako_stream_lock_some(const int64 *stream_nos, int count, const char *workflow_id, int wait, int *locked_count);
extern char *mako_stream_id(int64 stream_no);
extern int	mako_stream_fetch_heads(MakoCursor *cursor, const char *const *sources, int source_count, MakoStream *streams,
									int capacity);
extern int	mako_stream_fetch_heads_again(const int64 *stream_nos, int count, const char *const *sources, int source_count,
										  MakoStream *streams);
extern void mako_stream_load_states(MakoStream *streams, int count);
extern MakoRows mako_stream_find_beyond(int64 first, int64 last);
extern void mako_stream_rehearse(void);
extern MakoReader *mako_stream_open_events(const MakoStream *streams, int count, const bool *has_apply);
extern MakoReader *mako_stream_open_gathered(const MakoStream *streams, int count);
extern const MakoEvent *mako_stream_next_event(MakoReader *reader, int64 stream_no);
extern const char *mako_stream_folding_workflow(MakoReader *reader);
extern void mako_stream_close_events(MakoReader *reader);

/* ---- heap_order.c: events in heap order, for many streams at once -------------------------------------------------------------- */

typedef struct MakoGather MakoGather;

/* What gathering needs next. */
typedef enum MakoGatherNeed
{
	MAKO_GATHER_HEADS,			/* more heads: mako_gather_expect() */
	MAKO_GATHER_TAKE,			/* that streams that are complete are taken: mako_gather_take() */
	MAKO_GATHER_END,			/* nothing more: mako_gather_close() */
} MakoGatherNeed;

extern bool mako_gather_is_possible(const char **why_not);
extern MakoGather *mako_gather_open(int sources);
extern MakoGatherNeed mako_gather_advance(MakoGather *gather);
extern void mako_gather_expect(MakoGather *gather, const MakoStream *streams, int count, const bool *has_apply);
extern MakoStream *mako_gather_take(MakoGather *gather, int *count);
extern void mako_gather_release(MakoGather *gather);
extern void mako_gather_forget(MakoGather *gather, int64 stream_no);
extern const int64 *mako_gather_doubtful(MakoGather *gather, int *count);
extern void mako_gather_leave(MakoGather *gather, int64 stream_no);
extern int64 *mako_gather_close(MakoGather *gather, int *count);

/* ---- replay.c: the state of a stream, from what it starts from to its head ------------------------------------------------- */

/* One point in the history of a stream: what it looks like after an event, or after it moved to another workflow. */
typedef struct MakoMoment
{
	int64		sequence_number;	/* of the event, or of the last one before the move */
	Datum		event_type;		/* (Datum) 0 for a move */
	int64		run_id;			/* of a move; 0 where its snapshot is missing */
	const char *workflow_id;	/* the state belongs to */
	Datum		state;
} MakoMoment;

typedef void (*MakoMomentCallback) (void *argument, const MakoMoment *moment);

/* What replaying needs beside the fold at hand; lives in the context in which it was created. */
typedef struct MakoReplay
{
	MemoryContext context;
	List	   *folds;			/* of its own, compiled when they are met; they raise refusals */
	int64		rebuilt;		/* streams whose migration snapshot is missing */
	MakoMomentCallback tell;	/* what mako_replay_stream() starts from, and folds; or NULL */
	void	   *argument;
} MakoReplay;

extern void mako_replay_check_next(const MakoStream *stream, int64 expected, const MakoEvent *event);
extern void mako_replay_check_end(const MakoStream *stream, int64 expected);
extern bool mako_replay_written_under(const MakoEvent *event, const char *workflow_id);
extern bool mako_replay_may_have_returned(const char *workflow_id, const char *other);
extern MakoReplay *mako_replay_create(void);
extern MakoFold *mako_replay_fold(MakoReplay *replay, const char *source_wf, const char *target_wf);
extern void mako_replay_recover(MakoReplay *replay);
extern void mako_replay_warn(const MakoReplay *replay, const char *stream_id);
extern void mako_replay_check_schema_version(const MakoWorkflow *workflow, const MakoStream *stream);
extern bool mako_replay_is_needed(const MakoStream *stream);
extern void mako_replay_stored(MakoFold *fold, const MakoStream *stream);
extern void mako_replay_empty(MakoFold *fold, const MakoStream *stream, MakoReader *reader);
extern bool mako_replay_stream(MakoReplay *replay, MakoFold *fold, const MakoStream *stream, MakoReader *reader);
extern Datum mako_replay_history(MakoReplay *replay, const MakoStream *stream, MakoMomentCallback callback, void *argument);

/* ---- move.c: one stream on its way to another workflow ---------------------------------------------------------------------- */

/* How the streams of a workflow move along a plan. */
typedef struct MakoMover
{
	const MakoPlan *plan;
	bool		in_flight_only;
	bool		needs_state;	/* false: an identity migration without apply only repoints */
	bool		periodic_too;	/* the application's snapshots tell the states */
} MakoMover;

/* What becomes of a stream. */
typedef struct MakoMove
{
	int64		sequence_number;	/* of the states */
	Datum		old_state;		/* jsonb, flat or expanded; (Datum) 0: it moves without a state, like the next */
	Datum		new_state;
	bool		counts;			/* as migrated; a stream without events is skipped */
} MakoMove;

extern MakoMover mako_mover(const MakoPlan *plan, bool in_flight_only);
extern bool mako_mover_take(const MakoMover *mover, MakoFold *fold, MakoReplay *replay, const MakoStream *stream, MakoReader *reader,
							MakoMove *move);

/* ---- batch.c: some streams in as few subtransactions as possible ----------------------------------------------------------- */

typedef struct MakoBatch
{
	MakoStream *streams;		/* with the states that they start from */
	int			count;
	bool		gathered;		/* with their events */
	MakoFold  **folds;			/* by the source of a stream: from the workflow that it runs under */
	MakoReplay **replays;		/* the same */
	int			sources;
	/* Takes a stream, which may fail; false asks for a pause. The reader is NULL where the workflow has no apply. */
	bool		(*take) (void *argument, const MakoStream *stream, MakoReader *reader);
	void		(*pause) (void *argument);	/* between subtransactions; or NULL */
	void		(*fail) (void *argument, const MakoStream *stream, MakoPhase phase, int64 sequence_number, const ErrorData *error);
	void	   *argument;
	List	   *refused;		/* streams that were refused in the subtransaction at hand */
	int			begin;			/* where the subtransaction at hand began */
	int			next;			/* the stream at hand */
	int			end;			/* where the subtransaction stops */
} MakoBatch;

extern void mako_batch_run(MakoBatch *batch);

/* ---- streams.c: the streams of a workflow in passing -------------------------------------------------------------------------- */

typedef struct MakoSurvey
{
	MakoFold   *fold;			/* from the workflow whose streams these are */
	MakoReplay *replay;
	const pg_uuid_t *tenant_id; /* NULL: all */
	int64		sample;			/* so many streams, with names; -1: all */
	int64		seed;			/* the same seed, the same sample */
	bool		with_names;
	bool		periodic_too;	/* streams may start from periodic snapshots */
	/* Like those of a batch. */
	bool		(*take) (void *argument, const MakoStream *stream, MakoReader *reader);
	void		(*fail) (void *argument, const MakoStream *stream, MakoPhase phase, int64 sequence_number, const ErrorData *error);
	void	   *argument;
} MakoSurvey;

extern void mako_survey_run(const MakoSurvey *survey);

/* ---- history.c: the states of a stream, computed again through its recorded moves (history.h) ----------------------------------- */

/* ---- coverage.c: what is left on a format version -------------------------------------------------------------------------- */

/* A workflow that streams still run under. */
typedef struct MakoCoverage
{
	char	   *workflow_id;
	int64		streams;
	int64		in_flight;
	bool		has_predicate;	/* without one, every stream is in flight */
	const char *decision;		/* migration, identity, exempt, undecided */
	Datum		targets;		/* text[]: where registered steps lead */
	char	   *reason;			/* of the exemption, or NULL */
} MakoCoverage;

extern List *mako_coverage_read(const char *format_version, const char *target_fv, bool count_undecided_only);
extern int64 mako_coverage_in_flight(const char *workflow_id, const pg_uuid_t *tenant_id);
extern void mako_coverage_require_version(const char *format_version);
extern const char *mako_coverage_obstacles(List *list, bool undecided_only);

/* ---- merge_patch.c: what has changed, for dry_run.c -------------------------------------------------------------------------- */

extern Jsonb *mako_merge_patch_between(Jsonb *source, Jsonb *target);

/* ---- writer.c: writing snapshots, heads, dependents ---------------------------------------------------------------------- */

/* What a stream is known by to dependents; lives in the writer's context. */
typedef struct MakoStreamName
{
	char	   *stream_id;
	pg_uuid_t  *tenant_id;		/* NULL where the stream has none, like process_id */
	pg_uuid_t  *process_id;
} MakoStreamName;

/* Where the results of a run go. */
typedef struct MakoDestination
{
	MakoReport *report;			/* has the number of the run */
	Datum		source_wf;		/* text, like the next */
	Datum		target_wf;
	int			state_schema_version;	/* of the target */
} MakoDestination;

/* A stream that waits to be written; lives in the writer's context. */
typedef struct MakoResult
{
	int			source;			/* of the stream: which of the destinations it has */
	int64		stream_no;
	int64		sequence_number;	/* of the state */
	int64		version;		/* of the head */
	Jsonb	   *state;			/* NULL: the stream moves without a snapshot */
	MakoStreamName *name;		/* NULL without dependents */
	ItemPointerData tid;		/* of the head */
	bool		repointed;		/* is the head, without a statement */
	bool		counts;			/* as migrated; a stream without events is skipped */
} MakoResult;

typedef struct MakoWriter
{
	const MakoDestination *destinations;	/* by run; the writer's caller keeps them */
	int			destination_count;
	bool		update_registry;
	int64		undoes;			/* a run whose snapshots are marked; 0: snapshots are written */
	bool		is_direct;		/* snapshots will not have to be copied to be written */
	List	   *dependents;		/* MakoFollower, one a dependent */
	MemoryContext context;		/* of the results */
	MakoResult *results;
	int			count;
	int			capacity;
	bool		in_order;		/* of stream_no, are the results */
} MakoWriter;

extern MakoDestination mako_writer_destination(MakoReport *report, const MakoWorkflow *target);
extern MakoWriter *mako_writer_create(const MakoDestination *destinations, int count, bool update_registry);
extern void mako_writer_add(MakoWriter *writer, const MakoStream *stream, int64 sequence_number, Datum state, bool counts);
extern void mako_writer_rehearse(const MakoWriter *writer);
extern bool mako_writer_is_full(const MakoWriter *writer);
extern void mako_writer_flush(MakoWriter *writer);
extern bool mako_writer_withdraw(MakoWriter *writer, int64 stream_no);

/* ---- audit.c: what a call asks for, and its runs in the audit trail ---------------------------------------------------------- */

/* What the caller asked for. */
typedef struct MakoRequest
{
	const char *source_wf;
	const char *target_wf;
	pg_uuid_t  *tenant_id;		/* NULL: all */
	bool		update_registry;
	bool		in_flight_only;
	int64		max_errors;		/* -1: any number */
	const char *expect;			/* fingerprint, or NULL */
	text	   *reason;			/* or NULL */
	bool		one_of_version; /* skipped counts this workflow's streams only */
	int			batch_size;		/* streams a transaction; 0: all in one */
} MakoRequest;

extern int64 mako_audit_begin(const MakoRequest *request, const MakoPlan *plan, TimestampTz started_at, int64 through_stream_no);
extern void mako_audit_end(MakoReport *report);
extern void mako_audit_close(int64 run_id, const char *source_wf, int64 closed_by, const char *why);
pg_noreturn extern void mako_audit_raise_unknown(int64 run_id);

/* ---- progress.c: how far a migration has come -------------------------------------------------------------------------------- */

extern void mako_progress_begin(const MakoRequest *request, int64 run_id, int64 done, int64 total, int64 failed,
								TimestampTz started_at);
extern void mako_progress_advance(int64 failed);
extern void mako_progress_end(void);

/* ---- run.c: the runs of a call, in one pass -------------------------------------------------------------------------------- */

#define MAKO_UNEXPECTED_DEFINITIONS "the definitions are not those that were expected"
#define MAKO_CHANGED_DEFINITIONS "the definitions have changed during the migration"

extern void mako_run_check_fingerprint(const char *fingerprint, const char *expected, const char *message);
extern bool mako_run_choose_heap_order(const MakoCensus *census, const char *const *folded, int count, const char **why);
extern List *mako_run(const MakoRequest *requests, int count);

/* ---- call_guard.c: not twice, and not inside another one -------------------------------------------------------------------------- */

extern void mako_call_init(void);
extern void mako_call_check(const char *function);
extern void mako_call_check_once(CommandId command, const char *function, const char *kind, const char *subject);
extern void mako_call_remember(CommandId command, const char *function, const char *subject);
extern void mako_call_run(void (*work) (void *argument), void *argument);
extern void mako_call_enter(void);
extern void mako_call_leave(void);

/* ---- migrate.c: the call, and what batched.c has in common with it --------------------------------------------------------- */

extern void mako_migrate_check_arguments(const char *source, const char *target, const int64 *max_errors);
extern MakoRequest *mako_migrate_requests(const MakoRequest *version, List *workflows);
extern List *mako_migrate_workflows(const MakoRequest *version);

/* ---- explain.c: how a function will run, for plan.c ---------------------------------------------------------------------- */

/* A call that remains of a function. */
typedef struct MakoCalled
{
	const char *call;
	const char *reason;			/* may be NULL, like hint */
	const char *hint;
} MakoCalled;

extern char *mako_explain_evaluation(Oid function);
extern List *mako_explain_called(Oid function);

#endif							/* MAKO_MIGRATION_H */
