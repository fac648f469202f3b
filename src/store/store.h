/*
 * store.h
 *	  Room store/: what keeps the tables of schema mako whole. It knows neither functions nor folds.
 *
 *	  store_check.c  the store as a whole: is everything there that mako_create_store() makes
 *	  fence.c        the fence around a format version, and the locks of runs
 *	  table_write.c  writes rows without a statement                          (MakoTableWrite)
 *	  head.c         advances heads                                           (MakoHead)
 *	  sequence.c     the numbers of streams and runs
 *	  triggers.c     the triggers of the tables
 *	  new_events.c   ... events that continue their streams
 *	  attached.c     ... those of an attached event store
 *	  attach.c       attaching and detaching it
 *	  adopt.c        heads for imported events, and for those of an attached event store
 *
 * Locks live as long as the transaction; those of a batched run's source as long as the session or
 * until it releases them.
 */
#ifndef MAKO_STORE_H
#define MAKO_STORE_H

#include "gate/gate.h"

/* ---- what a run has done to a stream, and no later one has undone ---------------------------- */

/*
 * Conditions of statements about a row of mako.snapshot or mako.repointed. Where a statement is
 * about a range of streams, those that were taken back are looked for in the same range.
 */
#define MAKO_UNDONE(row, more) \
	"EXISTS (SELECT FROM mako.reverted x" \
	" WHERE x.stream_no OPERATOR(pg_catalog.=) " row ".stream_no" \
	" AND x.run_id OPERATOR(pg_catalog.=) " row ".run_id" more ")"
#define MAKO_IS_UNDONE(row) MAKO_UNDONE(row, "")
#define MAKO_STANDS(row) "NOT " MAKO_UNDONE(row, "")
#define MAKO_STANDS_BETWEEN(row, first, last) \
	"NOT " MAKO_UNDONE(row, " AND x.stream_no OPERATOR(pg_catalog.>=) " first \
					   " AND x.stream_no OPERATOR(pg_catalog.<=) " last)

/* ---- statements about many streams ---------------------------------------------------------- */

/*
 * Between these stands a query about each of some streams, whose numbers are $1: o.stream_no is the
 * one that is asked for. Each is looked up by its key, whatever statistics say, because OFFSET 0
 * keeps the server from joining tables as wholes: of a table that it knows nothing of, it expects
 * an array of a thousand numbers to find most rows.
 */
#define MAKO_FOR_EACH \
	"SELECT l.* FROM pg_catalog.unnest($1) AS o (stream_no) CROSS JOIN LATERAL ("
#define MAKO_END_EACH_LOCKED(locked) " OFFSET 0" locked ") l"
#define MAKO_END_EACH MAKO_END_EACH_LOCKED("")

/* ---- store_check.c: the store as a whole ---------------------------------------------------- */

extern bool mako_store_is_whole(void);
extern const char *mako_store_problems(void);
extern void mako_store_check(void);
extern void mako_store_check_for_run(void);

/* ---- fence.c: the fence around a format version --------------------------------------------- */

/*
 * What a transaction is about to do under a version; a retired version refuses more than a
 * draining one.
 */
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

/* ---- table_write.c: writing rows without a statement ---------------------------------------- */

typedef struct MakoTableWrite MakoTableWrite;

extern MakoTableWrite *mako_table_write_open(const char *table, CmdType command,
											 const char *const *columns, int count);
extern void mako_table_write_insert(MakoTableWrite *target, const Datum *values);
extern bool mako_table_write_update(MakoTableWrite *target, ItemPointer tid, Datum value);
extern void mako_table_write_close(MakoTableWrite *target);

/* ---- head.c: changes heads ------------------------------------------------------------------ */

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
extern MakoTableWrite *mako_head_open(void);

/* ---- sequence.c: the numbers of streams and runs -------------------------------------------- */

extern const char *mako_sequence_problems(void);
extern void mako_sequence_catch_up(void);
extern void mako_sequence_pass(Relation stream, int64 highest, Oid role);

/* ---- attach.c: an attached event store ------------------------------------------------------ */

extern void mako_attached_forbid(void);
extern bool mako_attached_is_whole(void);

/* ---- triggers.c: the store's triggers ------------------------------------------------------- */

extern MakoRows mako_store_query(MakoStatement *statement, const NullableDatum *values);
extern uint64 mako_store_write(MakoStatement *statement, const NullableDatum *values);
extern MakoRows mako_store_adopt(MakoStatement *statement, const NullableDatum *values,
								 MakoFence fence);
extern uint64 mako_store_advances(void);
extern uint64 mako_store_append(MakoStatement *statement, const NullableDatum *values,
								const MakoHead *head);
pg_noreturn extern void mako_store_raise_moved(int64 stream_no, const char *stream_id,
											   const char *workflow_id, const char *detail);

#endif							/* MAKO_STORE_H */
