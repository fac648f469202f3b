/*
 * pass.h
 *	  What run.c, ahead.c and parallel.c share: the runs of a call while they are under way.
 */
#ifndef MAKO_PASS_H
#define MAKO_PASS_H

#include "migrate/batched.h"

#include "utils/snapshot.h"

/* One run of a pass. */
typedef struct MakoRun
{
	const MakoRequest *request;
	const MakoPlan *plan;
	MakoReport *report;
	MakoMover	mover;
} MakoRun;

/* The runs of a call; lives in the context that was current when it began. */
typedef struct MakoPass
{
	MakoRun    *runs;			/* in the order of the names of their sources, like the next five */
	const char **sources;
	MakoFold  **folds;
	bool	   *has_apply;
	MakoReplay **replays;
	MakoDestination *destinations;
	int			count;
	MakoWriter *writer;			/* of all runs */
	MakoTally	tally;
	const pg_uuid_t *tenant_id;
	MakoMatches *matches;		/* of the heads when it began; NULL in a batched run */
	const int64 *found;			/* numbers of the streams that match; NULL where only a snapshot
								 * knows them */
	int			found_count;
	Snapshot	snapshot;		/* that one, of when the cursor was opened */
	uint64		advances;		/* mako_store_advances(), then */
	MakoCursor *heads;
	bool		heads_ended;
	int			workers;		/* that may fold, where events are read in heap order */
	MakoSeen   *seen;			/* heads that it has brought */
	MemoryContext batch_context;	/* heads and boundaries */
	MakoStream *streams;		/* the current batch, there */
	int			stream_count;
	MakoHeapOrder *heap_order;	/* or NULL */
	MakoAhead  *ahead;			/* results are kept there; NULL: they are written */
} MakoPass;

extern MakoPass *mako_pass_open_batch(const MakoBatchedRun *run, int64 failed_in_all,
									  bool lock_sinks);
extern void mako_pass_compile(MakoPass *pass);
extern void mako_pass_rehearse(const MakoPass *pass);
extern void mako_pass_load_states(MakoPass *pass);
extern void mako_pass_take_batch(MakoPass *pass, MakoStream *streams, int count, bool gathered);
extern void mako_pass_take_left(MakoPass *pass, const int64 *stream_nos, int count);
extern void mako_pass_write(const MakoPass *pass);
extern void mako_pass_check_definitions(const MakoPass *pass);

/* ---- parallel.c: streams that workers fold -------------------------------------------------- */

extern MakoWorkers *mako_parallel_start(const MakoPass *pass);
extern void mako_parallel_expect(MakoWorkers *workers, int64 last, double part);
extern void mako_parallel_migrate(MakoPass *pass, MakoWorkers *workers);

#endif							/* MAKO_PASS_H */
