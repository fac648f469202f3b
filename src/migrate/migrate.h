/*
 * migrate.h
 *	  Room migrate/: runs, from the call to the report, and back.
 *
 *	  migrate.c     the call: arguments, reports as rows
 *	  batched.c     the call of a procedure, a transaction a batch (MakoBatchedRun: batched.h)
 *	  ahead.c       ... whose streams are folded ahead (MakoAhead: batched.h)
 *	  call_guard.c  not twice, and not inside another one
 *	  run.c         the runs of a call, in one pass (MakoRequest; MakoPass: pass.h)
 *	  parallel.c    ... whose streams are folded by workers
 *	  move.c        one stream, from its events to its state under the target (MakoMover, MakoMove)
 *	  writer.c      snapshots, heads, dependents, sinks: many streams, in key order (MakoWriter)
 *	  dependent.c   the tables that follow (MakoFollower)
 *	  sink.c        statements of users that take what has moved (MakoSinks)
 *	  report.c      counts and errors (MakoReport)
 *	  audit.c       runs in the audit trail
 *	  progress.c    how far a run has come
 *	  revert.c      takes a run back
 *	  coverage.c    what is left on a version, and its retirement (MakoCoverage)
 *	  exemption.c   workflows that need no migration
 *
 * The context of a run lives as long as the call. Below it hang the batch context, which is reset
 * for each batch, the report's, and the writer's, which holds the states of all runs that wait to
 * be written and is reset by each flush.
 */
#ifndef MAKO_MIGRATE_H
#define MAKO_MIGRATE_H

#include "fold/fold.h"

/* ---- report.c: counts and errors ------------------------------------------------------------ */

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
	bool		in_batches;		/* something is committed already; by the current run: */
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
	List	   *errors;			/* the first MAKO_REPORT_ERRORS in an order that report.c knows,
								 * cut */
	List	   *unsaved;		/* errors not yet in mako.migration_error, in that order, in full */
	int64		saved;			/* errors there */
	TimestampTz started_at;
	TimestampTz finished_at;
	MemoryContext context;		/* of the report and its errors */
	MemoryContext unsaved_context;	/* of the errors not yet saved */
} MakoReport;

extern MakoReport *mako_report_create(const char *source_wf, const char *target_wf,
									  MakoTally *tally);
extern void mako_report_error(MakoReport *report, int64 stream_no, const char *stream_id,
							  MakoPhase phase, int64 sequence_number, const ErrorData *error);
extern void mako_report_save_errors(MakoReport *report);
extern NullableDatum mako_report_error_value(const char *stream_id, MakoPhase phase,
											 int64 sequence_number, const ErrorData *error,
											 TupleDesc tupdesc);
extern void mako_report_load_errors(MakoReport *report);
extern bool mako_report_has(const MakoTally *tally, int64 stream_no);
extern void mako_report_columns(const MakoReport *report, TupleDesc tupdesc, NullableDatum *values);

/* ---- move.c: one stream on its way to another workflow -------------------------------------- */

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
	Datum		old_state;		/* jsonb, flat or expanded; (Datum) 0: it moves without a state,
								 * like the next */
	Datum		new_state;
	bool		counts;			/* as migrated; a stream without events is skipped */
	bool		moves;			/* false: it is not in flight, so it stays where it is */
} MakoMove;

extern MakoMover mako_mover(const MakoPlan *plan, bool in_flight_only);
extern bool mako_mover_take(const MakoMover *mover, MakoFold *fold, MakoReplay *replay,
							const MakoStream *stream, MakoReader *reader, MakoMove *move);

/* ---- dependent.c: the tables that follow ---------------------------------------------------- */

/*
 * A dependent belongs to another owner than the store. Whatever the server runs because of the
 * change (its triggers, rules, defaults, policies) runs as its owner, who is recorded when it is
 * added.
 */

typedef struct MakoDependent
{
	char	   *name;			/* schema.table */
	Oid			relation;		/* InvalidOid where it is gone */
	char	   *process_column;
	char	   *workflow_column;
	char	   *tenant_column;	/* NULL without one */
	Oid			process_type;	/* of its process column: uuid, text or bigint */
	bool		is_missing;		/* it, or a column of it */
	char	   *problem;		/* why it cannot follow, as a sentence; NULL where it can */
} MakoDependent;

/* A dependent that can follow. */
typedef struct MakoFollower
{
	char	   *name;			/* schema.table */
	MakoStatement *update;		/* lets it follow */
	MakoStatement *select_left; /* finds a row that has not followed; NULL where none can stay
								 * behind */
} MakoFollower;

extern List *mako_dependent_read(void);
extern List *mako_dependent_followers(void);
extern void mako_dependent_rehearse(const List *followers);
extern void mako_dependent_follow(const List *followers, const NullableDatum *values);
extern char *mako_dependent_shared_process(void);
extern void mako_dependent_check_scope(void);

/* ---- sink.c: statements of users that take what has moved ----------------------------------- */

/* The texts of a sink, in the order of their columns. */
typedef enum MakoSinkText
{
	MAKO_SINK_STATEMENT,		/* takes what has moved */
	MAKO_SINK_UNDO,				/* takes back what that has written */
	MAKO_SINK_LOCK,				/* takes the locks that go before those of heads */
	MAKO_SINK_TEXTS
} MakoSinkText;

typedef struct MakoSink MakoSink;

#define MAKO_MOVED_COLUMNS 9	/* of the relation "moved" */

/* The sinks of a run, in the order of their numbers; they last as long as the connection. */
typedef struct MakoSinks
{
	MakoSink   *list;
	int			count;			/* at least 1 */
	MemoryContext context;		/* of all of it */
	TupleDesc	moved_type;
	MakoNamedRows *moved;		/* what they see */
	Tuplestorestate *nothing;	/* when there is nothing to see */
} MakoSinks;

extern MakoSinks *mako_sinks_current(void);
extern MakoSinks *mako_sinks_of_run(int64 run_id);
extern NullableDatum mako_sinks_numbers(const MakoSinks *sinks);
extern bool mako_sinks_can_undo(const MakoSinks *sinks, const char **why_not);
extern void mako_sinks_warn_of_rest(const MakoSinks *sinks);
extern void mako_sinks_rehearse(MakoSinks *sinks, bool undo);
extern void mako_sinks_lock(MakoSinks *sinks);
extern void mako_sinks_write(MakoSinks *sinks, bool undo, Tuplestorestate *moved, int64 count);
extern ErrorData *mako_sinks_find_problem(MakoSinks *sinks, int place, int *number);

/* ---- writer.c: writing snapshots, heads, dependents, sinks ---------------------------------- */

/* What a stream is known by to dependents and sinks; lives in the writer's context. */
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
	MakoStreamName *name;		/* NULL without dependents and sinks */
	ItemPointerData tid;		/* of the head */
	bool		repointed;		/* is the head, without a statement */
	bool		counts;			/* as migrated; a stream without events is skipped */
} MakoResult;

typedef struct MakoWriter
{
	const MakoDestination *destinations;	/* by run; the writer's caller keeps them */
	int			destination_count;
	bool		update_registry;
	int64		undoes;			/* a run whose streams are taken back; 0: snapshots are written */
	bool		is_direct;		/* snapshots will not have to be copied to be written */
	List	   *dependents;		/* MakoFollower, one a dependent */
	MakoSinks  *sinks;			/* NULL without any */
	MemoryContext context;		/* of the results */
	MakoResult *results;
	int			count;
	int			capacity;
	bool		in_order;		/* of stream_no, are the results */
} MakoWriter;

extern MakoDestination mako_writer_destination(MakoReport *report, const MakoWorkflow *target);
extern MakoWriter *mako_writer_create(const MakoDestination *destinations, int count,
									  bool update_registry, MakoSinks *sinks);
extern bool mako_writer_names_streams(const MakoWriter *writer);
extern void mako_writer_add_result(MakoWriter *writer, const MakoResult *result);
extern MemoryContext mako_writer_hand_over(MakoWriter *writer, MakoResult **results, int *count);
extern void mako_writer_add(MakoWriter *writer, const MakoStream *stream, int64 sequence_number,
							Datum state, bool counts);
extern void mako_writer_rehearse(const MakoWriter *writer);
extern bool mako_writer_is_full(const MakoWriter *writer);
extern void mako_writer_flush(MakoWriter *writer);
extern bool mako_writer_withdraw(MakoWriter *writer, int64 stream_no);

/* ---- audit.c: what a call asks for, and its runs in the audit trail ------------------------- */

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

extern int64 mako_audit_begin(const MakoRequest *request, const MakoPlan *plan,
							  const MakoSinks *sinks, TimestampTz started_at,
							  int64 through_stream_no);
extern void mako_audit_end(MakoReport *report);
extern void mako_audit_close(int64 run_id, const char *source_wf, int64 closed_by, const char *why);
pg_noreturn extern void mako_audit_raise_unknown(int64 run_id);

/* ---- progress.c: how far a migration has come ----------------------------------------------- */

extern void mako_progress_begin(const MakoRequest *request, int64 run_id, int64 done, int64 total,
								int64 failed, TimestampTz started_at);
extern void mako_progress_advance(int64 failed);
extern void mako_progress_end(void);

/* ---- run.c: the runs of a call, in one pass ------------------------------------------------- */

#define MAKO_UNEXPECTED_DEFINITIONS "the definitions are not those that were expected"
#define MAKO_CHANGED_DEFINITIONS "the definitions have changed during the migration"

extern void mako_run_check_fingerprint(const char *fingerprint, const char *expected,
									   const char *message);
extern bool mako_run_choose_heap_order(const MakoMatches *matches, const char *const *folded,
									   int count, const MakoSinks *sinks, const char **why);
extern List *mako_run(const MakoRequest *requests, int count);

/* ---- parallel.c: streams that workers fold -------------------------------------------------- */

extern int	mako_parallel_workers(int wanted, int64 streams, MakoFold *const *folds, int count,
								  const char **why_not);

/* ---- call_guard.c: not twice, and not inside another one ------------------------------------ */

extern void mako_call_init(void);
extern void mako_call_check(const char *function);
extern void mako_call_check_once(CommandId command, const char *function, const char *kind,
								 const char *subject);
extern void mako_call_remember(CommandId command, const char *function, const char *subject);
extern void mako_call_run(void (*work) (void *argument), void *argument);
extern void mako_call_enter(void);
extern void mako_call_leave(void);

/* ---- migrate.c: the call, and what batched.c has in common with it -------------------------- */

extern void mako_migrate_check_arguments(const char *source, const char *target,
										 const int64 *max_errors);
extern MakoRequest *mako_migrate_requests(const MakoRequest *version, List *workflows);
extern List *mako_migrate_workflows(const MakoRequest *version);

/* ---- coverage.c: what is left on a format version ------------------------------------------- */

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

extern List *mako_coverage_read(const char *format_version, const char *target_fv,
								bool count_undecided_only);
extern int64 mako_coverage_in_flight(const char *workflow_id, const pg_uuid_t *tenant_id);
extern void mako_coverage_require_version(const char *format_version);
extern const char *mako_coverage_obstacles(List *list, bool undecided_only);

#endif							/* MAKO_MIGRATE_H */
