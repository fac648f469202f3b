/*
 * read.h
 *	  Room read/: heads, boundaries and events, as they are read. It knows neither functions nor
 *	  states: of a workflow it is told only whether events are folded at all.
 *
 *	  match.c        how many streams run under which workflow, and which match (MakoMatches)
 *	  numbers.c      lists of stream numbers (MakoNumbers)
 *	  seen.c         sets of them (MakoSeen), and parts of them (MakoRange, MakoShare)
 *	  heads.c        heads in order, locked (MakoStream)
 *	  states.c       the states that streams start from: boundaries
 *	  events.c       events in key order (MakoReader, MakoEvent)
 *	  event_index.c  ... of few streams from their index (MakoEventIndex: events.h)
 *	  event_scan.c   ... of all streams as they lie, in one table or in partitions (MakoEventScan)
 *	  attached_scan.c  ... of an attached event store, as its rows lie (MakoAttachedScan: events.h)
 *	  heap_order.c   events of many streams in heap order, until a stream has all (MakoHeapOrder)
 *	  complete.c     ... which ones have had all (MakoComplete: events.h)
 *	  chunk.c        ... in small chunks of memory (MakoChunks: events.h)
 *
 * Heads and boundaries live in the caller's batch context. An event is valid until the next one,
 * unless it says that it lasts. What is gathered lives in chunks that are free for others when the
 * stream is folded or left, within seven eighths of the setting max_memory.
 */
#ifndef MAKO_READ_H
#define MAKO_READ_H

#include "store/store.h"

/* ---- match.c: how many streams run under which workflow ------------------------------------- */

typedef struct MakoMatches MakoMatches;

extern MakoMatches *mako_matches_take(const char *const *sources, int source_count,
									  const pg_uuid_t *tenant_id);
extern MakoMatches *mako_matches_repeat(const pg_uuid_t *tenant_id, bool by_workflow);
extern double mako_matches_all(const MakoMatches *matches);
extern int64 mako_matches_under(const MakoMatches *matches, const char *workflow_id);
extern int64 mako_matches_scope(const MakoMatches *matches, const char *workflow_id);
extern const int64 *mako_matches_found(const MakoMatches *matches, int *count);

/* ---- numbers.c: lists of stream numbers ----------------------------------------------------- */

typedef struct MakoNumbers
{
	int64	   *numbers;		/* NULL while there are none */
	int			count;
	int			capacity;
} MakoNumbers;

extern void mako_numbers_add(MakoNumbers *list, MemoryContext context, int64 number);
extern int	mako_numbers_compare(const void *a, const void *b);
extern void mako_numbers_sort(MakoNumbers *list);
extern NullableDatum mako_numbers_array(const MakoNumbers *list);

/* ---- seen.c: sets of stream numbers --------------------------------------------------------- */

typedef struct MakoSeen MakoSeen;

extern MakoSeen *mako_seen_create(void);
extern void mako_seen_add(MakoSeen *seen, int64 number);
extern bool mako_seen_has(const MakoSeen *seen, int64 number);
extern int64 mako_seen_count(const MakoSeen *seen);
extern void mako_seen_without(const MakoSeen *seen, const MakoSeen *other, MakoNumbers *list,
							  MemoryContext context);

/* The streams from one number to another: those of a worker that reads in heap order. */
typedef struct MakoRange
{
	int64		first;
	int64		last;
} MakoRange;

/*
 * The streams of a worker that reads in key order: of so many numbers that follow one another each
 * worker has its turn, so that all of them send the streams in their order.
 */
typedef struct MakoShare
{
	int			number;			/* of the worker, from 0 on */
	int			count;			/* of workers */
} MakoShare;

/* A condition of SQL: a number is in a share. */
#define MAKO_IN_SHARE(stream_no, number, count) \
	"((" stream_no " OPERATOR(pg_catalog.>>) 9) OPERATOR(pg_catalog.&) 1073741823)" \
	" OPERATOR(pg_catalog.%) " count " OPERATOR(pg_catalog.=) " number

/* ---- what is read --------------------------------------------------------------------------- */

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

/* An event that has been gathered; lives as long as its stream is being gathered. */
typedef struct MakoGathered
{
	struct MakoGathered *next;	/* of the stream; NULL for the last one */
	Size		size;			/* with what the event points to */
	MakoEvent	event;
} MakoGathered;

/*
 * A stream: its head and where folding starts. Those of a run are locked and live in the batch
 * context.
 */
typedef struct MakoStream
{
	int64		stream_no;
	char	   *stream_id;		/* NULL where names are not needed, like tenant_id and process_id */
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

/*
 * Returns true if streams in the order of their numbers are so many of those in their range that
 * all in it are better read than each looked up.
 */
static inline bool
mako_numbers_are_dense(int64 first, int64 last, int count)
{
	return last - first < (int64) count * 8;
}

static inline bool
mako_streams_are_dense(const MakoStream *streams, int count)
{
	return mako_numbers_are_dense(streams[0].stream_no, streams[count - 1].stream_no, count);
}

/* ---- heads.c: heads in order, locked -------------------------------------------------------- */

/* Returns true if an event was written under this workflow. */
static inline bool
mako_event_written_under(const MakoEvent *event, const char *workflow_id)
{
	const text *actual = DatumGetTextPP(event->workflow_id);
	size_t		length = strlen(workflow_id);

	return VARSIZE_ANY_EXHDR(actual) == length &&
		memcmp(VARDATA_ANY(actual), workflow_id, length) == 0;
}

extern void mako_stream_find(Datum stream_id, MakoStream *stream);
extern void mako_stream_lock(Datum stream_id, MakoStream *stream);
extern MakoCursor *mako_stream_open_heads(const char *const *workflow_ids, int count,
										  const pg_uuid_t *tenant_id, bool with_names,
										  const MakoShare *share);
extern MakoCursor *mako_stream_open_range(const char *const *workflow_ids, int count,
										  const pg_uuid_t *tenant_id, bool with_names,
										  const MakoRange *range);
extern MakoCursor *mako_stream_open_sample(const char *workflow_id, const pg_uuid_t *tenant_id,
										   int64 size, int64 seed);
extern MakoCursor *mako_stream_open_locking(const char *const *sources, int count,
											const pg_uuid_t *tenant_id, const int64 *found,
											int found_count, bool with_names);
extern int64 *mako_stream_next(const char *workflow_id, const pg_uuid_t *tenant_id, int64 after,
							   int64 through, int64 run_id, bool but_not_failed, int *count);
extern int64 *mako_stream_lock_some(const int64 *stream_nos, int count, const char *workflow_id,
									int wait, int *locked_count);
extern int	mako_stream_next_heads(const char *const *source, const pg_uuid_t *tenant_id,
								   int64 after, int64 through, int64 run_id,
								   bool but_not_failed, bool with_names, MakoStream *streams,
								   int capacity);
extern int	mako_stream_lock_free(const int64 *stream_nos, int count, const char *const *source,
								  MakoStream *streams);
extern int	mako_stream_lock_heads(const int64 *stream_nos, int count, MakoStream *streams);
extern char *mako_stream_id(int64 stream_no);
extern NullableDatum mako_stream_numbers(const MakoStream *streams, int count);
extern int	mako_stream_fetch_heads(MakoCursor *cursor, const char *const *sources,
									int source_count, MakoStream *streams, int capacity);
extern int	mako_stream_fetch_heads_again(const int64 *stream_nos, int count,
										  const char *const *sources, int source_count,
										  MakoStream *streams);

/* ---- states.c: the states that streams start from ------------------------------------------- */

extern void mako_stream_load_states(MakoStream *streams, int count);

/* ---- events.c: events in key order ---------------------------------------------------------- */

typedef struct MakoReader MakoReader;

extern MakoRows mako_stream_find_beyond(int64 first, int64 last);
extern void mako_stream_rehearse(void);
extern int64 *mako_stream_beyond(const MakoStream *streams, int count, int *found);
extern MakoReader *mako_stream_open_events(const MakoStream *streams, int count,
										   const bool *has_apply);
extern MakoReader *mako_stream_open_gathered(const MakoStream *streams, int count);
extern const MakoEvent *mako_stream_next_event(MakoReader *reader, int64 stream_no);
extern const char *mako_stream_folding_workflow(MakoReader *reader);
extern void mako_stream_close_events(MakoReader *reader);

/* ---- heap_order.c: events in heap order, for many streams at once --------------------------- */

typedef struct MakoHeapOrder MakoHeapOrder;

/* What gathering needs next. */
typedef enum MakoHeapOrderNeed
{
	MAKO_HEAP_ORDER_HEADS,		/* more heads: mako_heap_order_expect() */
	MAKO_HEAP_ORDER_TAKE,		/* that streams that are complete are taken:
								 * mako_heap_order_take() */
	MAKO_HEAP_ORDER_END,		/* nothing more: mako_heap_order_close() */
} MakoHeapOrderNeed;

extern bool mako_heap_order_is_possible(const char **why_not);
extern bool mako_heap_order_is_better(const MakoMatches *matches, int64 matching,
									  const char **why);
extern int	mako_heap_order_at_once(int sources);
extern MakoHeapOrder *mako_heap_order_open(int at_once, const MakoRange *range);
extern MakoHeapOrderNeed mako_heap_order_advance(MakoHeapOrder *heap_order);
extern void mako_heap_order_expect(MakoHeapOrder *heap_order, const MakoStream *streams, int count,
								   const bool *has_apply);
extern MakoStream *mako_heap_order_take(MakoHeapOrder *heap_order, int *count);
extern void mako_heap_order_release(MakoHeapOrder *heap_order);
extern void mako_heap_order_forget(MakoHeapOrder *heap_order, int64 stream_no);
extern const int64 *mako_heap_order_doubtful(MakoHeapOrder *heap_order, int *count);
extern void mako_heap_order_leave(MakoHeapOrder *heap_order, int64 stream_no);
extern void mako_heap_order_suspend(MakoHeapOrder *heap_order);
extern void mako_heap_order_resume(MakoHeapOrder *heap_order);
extern int64 *mako_heap_order_close(MakoHeapOrder *heap_order, int *count);

#endif							/* MAKO_READ_H */
