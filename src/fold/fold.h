/*
 * fold.h
 *	  Room fold/: from events to a state. It reads and writes nothing by itself, and knows no run.
 *
 *	  fold.c        upcast, apply, migrate, check: one event, one state      (MakoFold)
 *	  fold_cache.c  compiled folds, kept for the session or for a replay     (MakoReplay)
 *	  archive.c     what is recorded of runs and moves                       (MakoArchive)
 *	  expect.c      what a stream must be before it is folded
 *	  history.c     states computed again through recorded moves             (MakoHistory)
 *	  replay.c      a stream, from what it starts from to its head
 *	  batch.c       many streams in few subtransactions                      (MakoBatch)
 *	  streams.c     the streams of a workflow in passing                     (MakoStreamsWalk)
 *	  author.c      the SQL functions that fold events of the caller
 *
 * A fold has two contexts for the current stream, which are reset for each one, and one for the
 * evaluation state of its programs, which is reset after an error. A state is an expanded value
 * while its stream is folded. It lies in the stream's context, and points into payloads, stored
 * states and constants of the programs. A fold copies the state that it begins with before it
 * resets anything: the state may be its own. A cached fold has a context of its own, below its
 * borrower's.
 */
#ifndef MAKO_FOLD_H
#define MAKO_FOLD_H

#include "define/define.h"
#include "read/read.h"

/* ---- fold.c: upcast, apply, migrate and check, one stream at a time ------------------------- */

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
	MemoryContext stream_context;	/* state and payloads of the current stream */
	MemoryContext spare_context;	/* takes over when stream_context has grown */
	Datum		state;			/* jsonb in stream_context, flat or expanded */
	bool		takes_refusals; /* down in refusal, instead of raising them */
	MakoRefusal refusal;		/* of the current stream */
	MemoryContext context;		/* of a cached fold: its own; see fold_cache.c, like the next */
	uint64		generation;		/* of what it was compiled from */
	bool		native;			/* compiled with mako_native_evaluation */
	MakoPhase	phase;			/* where the fold is; read by the handler of an error */
	int64		sequence_number;	/* of the current event or folded last */
} MakoFold;

extern MakoFold *mako_fold_create(const MakoPlan *plan);
extern void mako_fold_recover(MakoFold *fold);
extern void mako_fold_release(MakoFold *fold);
extern void mako_fold_require_apply(const MakoFold *fold);
extern const char *mako_fold_unsafe_function(const MakoFold *fold);
extern void mako_fold_context(void *argument);
extern void mako_fold_begin(MakoFold *fold, Datum state, int64 sequence_number);
extern bool mako_fold_event(MakoFold *fold, const MakoEvent *event);
extern void mako_fold_check_domain(MakoFold *fold);
extern bool mako_fold_is_in_flight(MakoFold *fold, bool *in_flight);
extern bool mako_fold_migrate(MakoFold *fold);

/* ---- archive.c: what is recorded of runs, and of the moves of streams ------------------------ */

/* Asks mako_archive_moves() for the states of all runs. */
#define MAKO_ALL_RUNS (-1)

/* What is recorded of a run; lives in its archive's context. */
typedef struct MakoRunRow
{
	int64		run_id;
	char	   *source_wf;
	char	   *target_wf;
	bool		update_registry;
	bool		is_given;		/* no migration: its states were given, and no event tells them */
	bool		warned;			/* that the definitions are others now */
	/* The details. */
	char	   *kind;			/* NULL until they are read */
	char	   *fingerprint;
	bool		finished;
	int64		migrated;
} MakoRunRow;

/* The runs that have been met. */
typedef struct MakoArchive
{
	List	   *runs;
	MemoryContext context;
} MakoArchive;

/*
 * What a run has left with a stream, unless it was reverted: a snapshot, or a row in
 * mako.repointed.
 */
typedef struct MakoRecordedMove
{
	int64		sequence_number;
	int64		run_id;
	MakoRunRow *run;			/* NULL where it is not recorded */
	bool		repoints;		/* the stream moved without a snapshot of its last event */
	bool		is_copy;		/* the snapshot that it took along then: no move by itself */
	char	   *workflow_id;	/* of the snapshot, like the next two */
	int			state_schema_version;
	Datum		state;			/* as it is stored; (Datum) 0 where it was not asked for */
} MakoRecordedMove;

/* The marks of some streams, in the order of sequence numbers and runs. */
typedef struct MakoRecordedMoves
{
	MakoRecordedMove *marks;
	int		   *first;			/* of each stream, and one more */
} MakoRecordedMoves;

extern MakoArchive *mako_archive_create(void);
extern MakoRunRow *mako_archive_run(MakoArchive *archive, int64 run_id);
extern void mako_archive_read_details(MakoArchive *archive, MakoRunRow *run);
extern void mako_archive_warn(MakoArchive *archive, MakoRunRow *run, const MakoPlan *plan);
extern MakoRecordedMoves mako_archive_moves(MakoArchive *archive, const MakoStream *streams,
											int count, int64 run_id, const char *workflow_id);
extern const MakoRecordedMove *mako_archive_given(const MakoRecordedMove *marks, int count);
extern bool mako_archive_may_have_returned(const char *workflow_id, const char *other);

/* ---- fold_cache.c: compiled folds, kept for the session or for a replay --------------------- */

/*
 * One point in the history of a stream: what it looks like after an event, or after it moved to
 * another workflow.
 */
typedef struct MakoMoment
{
	int64		sequence_number;	/* of the event, or of the last one before the move */
	Datum		event_type;		/* (Datum) 0 for a move */
	int64		run_id;			/* of a move; 0 where its snapshot is missing */
	const char *workflow_id;	/* the state belongs to */
	Datum		state;			/* (Datum) 0 where it is unknown */
} MakoMoment;

typedef void (*MakoMomentCallback) (void *argument, const MakoMoment *moment);

/* What replaying needs beside the current fold; lives in the context in which it was created. */
typedef struct MakoReplay
{
	MemoryContext context;
	List	   *folds;			/* of its own, compiled when they are met; they raise refusals */
	MakoArchive *archive;
	int64		rebuilt;		/* streams whose migration snapshot is missing */
	MakoMomentCallback tell;	/* what mako_replay_stream() starts from, and folds; or NULL */
	void	   *argument;
} MakoReplay;

extern MakoFold *mako_fold_borrow(const char *workflow_id);
extern void mako_fold_return(MakoFold *fold);
extern MakoReplay *mako_replay_create(void);
extern MakoFold *mako_replay_fold(MakoReplay *replay, const char *source_wf, const char *target_wf);
extern void mako_replay_recover(MakoReplay *replay);

/* ---- expect.c: what a stream must be before it is folded ------------------------------------ */

extern void mako_expect_next(const MakoStream *stream, int64 expected, const MakoEvent *event);
extern void mako_expect_end(const MakoStream *stream, int64 expected);
extern void mako_expect_start(const MakoStream *stream);
extern void mako_expect_schema_version(const MakoWorkflow *workflow, int64 sequence_number,
									   int state_schema_version);

/* ---- history.c: the states of a stream, computed again through its recorded moves ----------- */

/*
 * One stream on its way; the caller fills in the first part and reads the second.
 */
typedef struct MakoHistory
{
	MakoReplay *replay;			/* has all folds */
	MakoFold   *main;			/* of the workflow that most of it is about, or from there; or
								 * NULL */
	const MakoStream *stream;
	const MakoRecordedMove *marks;
	int			mark_count;
	int64		before_run;		/* only these runs have moved the stream yet */
	const char *final_wf;		/* where they have taken it */
	bool		trusts_moves;	/* the states are those of the marks */
	bool		is_current;		/* it is that of the stream as it is now; see history.c */
	MakoMomentCallback visit;	/* or NULL */
	void	   *argument;

	int64		sequence_number;
	const char *workflow_id;	/* NULL before the first event */
	bool		known;			/* is its state */
	MakoFold   *fold;			/* whose state it is, if it is known */
	bool		is_source;		/* the last event was written under final_wf */
	bool		rebuilt;		/* it went through steps where a snapshot is missing */
	int			next_mark;
} MakoHistory;

extern void mako_history_begin(MakoHistory *history, const MakoRecordedMove *from);
extern bool mako_history_until(MakoHistory *history, MakoReader *reader, int64 sequence_number);
extern bool mako_history_finish(MakoHistory *history);
extern bool mako_history_migrate(MakoHistory *history);
extern Datum mako_history_replay(MakoReplay *replay, const MakoStream *stream,
								 MakoMomentCallback visit, void *argument);

/* ---- replay.c: the state of a stream, from what it starts from to its head ------------------ */

extern void mako_replay_warn(const MakoReplay *replay, const char *stream_id);
extern bool mako_replay_is_needed(const MakoStream *stream);
extern void mako_replay_stored(MakoFold *fold, const MakoStream *stream);
extern void mako_replay_empty(MakoFold *fold, const MakoStream *stream, MakoReader *reader);
extern bool mako_replay_stream(MakoReplay *replay, MakoFold *fold, const MakoStream *stream,
							   MakoReader *reader);

/* ---- batch.c: some streams in as few subtransactions as possible ---------------------------- */

typedef struct MakoBatch
{
	MakoStream *streams;		/* with the states that they start from */
	int			count;
	bool		gathered;		/* with their events */
	MakoFold  **folds;			/* by the source of a stream: from the workflow it runs under */
	MakoReplay **replays;		/* the same */
	int			sources;

	/*
	 * Takes a stream, which may fail; false when its fold refuses it. The reader is NULL where
	 * the workflow has no apply.
	 */
	bool		(*take) (void *argument, const MakoStream *stream, MakoReader *reader);
	/* After a stream: true ends the subtransaction there. NULL: never. */
	bool		(*wants_pause) (void *argument, bool accepted);
	void		(*pause) (void *argument);	/* between subtransactions; or NULL */
	void		(*fail) (void *argument, const MakoStream *stream, MakoPhase phase,
						 int64 sequence_number, const ErrorData *error);
	void	   *argument;
	List	   *refused;		/* streams that were refused in the current subtransaction */
	int			begin;			/* where the current subtransaction began */
	int			next;			/* the current stream */
	int			end;			/* where the subtransaction stops */
} MakoBatch;

extern bool mako_batch_tells_refusal(void *argument, bool accepted);
extern void mako_batch_run(MakoBatch *batch);

/* ---- streams.c: the streams of a workflow in passing ---------------------------------------- */

typedef struct MakoStreamsWalk
{
	MakoFold   *fold;			/* from the workflow whose streams these are */
	MakoReplay *replay;
	const pg_uuid_t *tenant_id; /* NULL: all */
	int64		sample;			/* so many streams, with names; -1: all */
	int64		seed;			/* the same seed, the same sample */
	bool		with_names;
	bool		periodic_too;	/* streams may start from periodic snapshots */
	const MakoShare *share;		/* of all streams; NULL: all of them */
	/* Like those of a batch. */
	bool		(*take) (void *argument, const MakoStream *stream, MakoReader *reader);
	bool		(*wants_pause) (void *argument, bool accepted);
	void		(*fail) (void *argument, const MakoStream *stream, MakoPhase phase,
						 int64 sequence_number, const ErrorData *error);
	void	   *argument;
} MakoStreamsWalk;

extern void mako_streams_walk(const MakoStreamsWalk *walk);

#endif							/* MAKO_FOLD_H */
