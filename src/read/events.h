/*
 * events.h
 *	  What the files that read events share.
 */
#ifndef MAKO_EVENTS_H
#define MAKO_EVENTS_H

#include "read/read.h"

#include "access/relscan.h"
#include "executor/tuptable.h"
#include "utils/rel.h"
#include "utils/snapshot.h"

/* The columns of an event that are read, in the order in which they are handed out. */
enum
{
	MAKO_EVENT_STREAM_NO,
	MAKO_EVENT_SEQUENCE_NUMBER,
	MAKO_EVENT_WORKFLOW_ID,
	MAKO_EVENT_TYPE,
	MAKO_EVENT_SCHEMA_VERSION,
	MAKO_EVENT_PAYLOAD,
	MAKO_EVENT_COLUMNS
};

extern const char *const mako_event_columns[MAKO_EVENT_COLUMNS];

/* ---- event_scan.c: every event in heap order ------------------------------------------------ */

/* The stream of an event without one: below all others. */
#define MAKO_NO_STREAM PG_INT64_MIN

/* A table with events. */
typedef struct MakoEventLeaf
{
	Oid			table;
	Relation	relation;
	TableScanDesc scan;
	TupleTableSlot *slot;		/* its next event */
	int64		stream_no;		/* of that, or MAKO_NO_STREAM */
	AttrNumber	attributes[MAKO_EVENT_COLUMNS];
	AttrNumber	last_attribute;
	ItemPointerData from;		/* a scan that goes on begins there; otherwise invalid */
	Oid			file;			/* in which that place is */
	bool		at_end;
} MakoEventLeaf;

typedef struct MakoEventScan MakoEventScan;
typedef struct MakoAttachedScan MakoAttachedScan;

extern MakoEventScan *mako_event_scan_open(Snapshot snapshot);
extern MakoAttachedScan *mako_event_scan_attached(const MakoEventScan *scan);
extern void mako_event_scan_limit(MakoEventScan *scan, const MakoRange *range);
extern MakoEventLeaf *mako_event_scan_next(MakoEventScan *scan);
extern void mako_event_scan_close(MakoEventScan *scan);
extern void mako_event_scan_suspend(MakoEventScan *scan, const MakoEventLeaf *consumed);
extern bool mako_event_scan_resume(MakoEventScan *scan, Snapshot snapshot);

/* ---- attached_scan.c: the same of an attached event store ----------------------------------- */

extern const char *mako_attached_scan_obstacle(void);
extern MakoAttachedScan *mako_attached_scan_open(Snapshot snapshot);
extern MakoEvaluation mako_attached_scan_enter(const MakoAttachedScan *scan);
extern TupleTableSlot *mako_attached_scan_next(MakoAttachedScan *scan, int64 *stream_no);
extern void mako_attached_scan_close(MakoAttachedScan *scan);

/* ---- complete.c: streams that were complete ------------------------------------------------- */

typedef struct MakoComplete MakoComplete;

/* Spreads numbers that follow one another, for a hash table. */
static inline uint32
mako_hash_number(int64 number)
{
	return (uint32) (((uint64) number * UINT64CONST(0x9E3779B97F4A7C15)) >> 32);
}

extern MakoComplete *mako_complete_create(MemoryContext context, Size *memory);
extern void mako_complete_add(MakoComplete *complete, int64 stream_no, int64 start);
extern int64 mako_complete_start(MakoComplete *complete, int64 stream_no, bool forget);
extern void mako_complete_check(MakoComplete *complete,
								void (*tell) (void *argument, int64 stream_no), void *argument);

/* ---- chunk.c: memory in small chunks -------------------------------------------------------- */

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

/* ---- event_index.c: the events of one stream after another, from an index ------------------- */

typedef struct MakoEventIndex MakoEventIndex;

extern bool mako_event_index_is_possible(void);
extern MakoEventIndex *mako_event_index_open(void);
extern void mako_event_index_stream(MakoEventIndex *lookup, int64 stream_no, int64 start);
extern bool mako_event_index_next(MakoEventIndex *lookup, NullableDatum *values);
extern int	mako_event_index_beyond(MakoEventIndex *lookup, const MakoStream *streams, int count,
									int64 *numbers);
extern bool mako_event_index_blocks(const MakoRange *range, BlockNumber *first, BlockNumber *last);
extern void mako_event_index_close(MakoEventIndex *lookup);

#endif							/* MAKO_EVENTS_H */
