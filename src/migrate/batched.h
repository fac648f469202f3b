/*
 * batched.h
 *	  A batched run: batched.c goes through its streams and commits, run.c migrates a batch,
 *	  audit.c keeps what is needed to go on.
 */
#ifndef MAKO_BATCHED_H
#define MAKO_BATCHED_H

#include "migrate/migrate.h"

#define MAKO_FINGERPRINT_LENGTH 64	/* of sha256 in hexadecimal */

/*
 * A batched run between its transactions; it and what it points to lives as long as the
 * procedure's call.
 */
typedef struct MakoBatchedRun
{
	MakoRequest request;
	int64		run_id;
	char		fingerprint[MAKO_FINGERPRINT_LENGTH + 1];	/* of what it runs */
	int64		through_stream_no;	/* later streams are none of its business */
	int64		last_stream_no; /* it has come so far */
	TimestampTz started_at;
	int64		batches;		/* these four are in its row and its batches, and count earlier
								 * calls */
	int64		migrated;
	int64		failed;
	int64		busy;			/* how often a stream was passed over */
	int64		total;			/* streams, when this call began, and how many of them are done
								 * with */
	int64		done;
} MakoBatchedRun;

typedef struct MakoAhead MakoAhead;

/* ---- audit.c -------------------------------------------------------------------------------- */

extern void mako_audit_begin_batched(MakoBatchedRun *run, const MakoPlan *plan,
									 const MakoSinks *sinks);
extern void mako_audit_record_batch(MakoBatchedRun *run, const MakoReport *report,
									int64 last_stream_no, int64 busy, TimestampTz started_at);

/* ---- run.c ---------------------------------------------------------------------------------- */

extern void mako_run_begin_batched(MakoBatchedRun *runs, int count);
extern void mako_run_batch(MakoBatchedRun *run, int64 failed_in_all, const int64 *stream_nos,
						   int count, int64 last_stream_no, int wait, int64 *busy, int *busy_count);
extern List *mako_run_end_batched(MakoBatchedRun *runs, int count);

/* ---- ahead.c -------------------------------------------------------------------------------- */

extern MakoAhead *mako_ahead_begin(MakoBatchedRun *run, MemoryContext parent);
extern void mako_ahead_fail(MakoAhead *ahead, int64 stream_no);
extern const int64 *mako_ahead_failed(MakoAhead *ahead, int *count);
extern bool mako_ahead_fold(MakoAhead *ahead, int64 failed_in_all);
extern bool mako_ahead_waits(const MakoAhead *ahead);
extern void mako_ahead_write(MakoAhead *ahead, int64 failed_in_all);
extern const int64 *mako_ahead_end(MakoAhead *ahead, int *count);

#endif							/* MAKO_BATCHED_H */
