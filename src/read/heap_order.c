/*
 * heap_order.c
 *	  Many matches: one pass over the events in heap order, which collects them until a stream has
 *	  all of them.
 *
 * A stream is open from the moment its head is locked until there are as many events after its
 * start as its head's version says; then it is complete, is handed out to be folded like any
 * other, and its memory is freed. Heads come in stream_no order, whenever an event of a stream
 * after the last one arrives: numbers are given in the order of the first events, so that the open
 * streams are a window that moves over the table. Events may lie in any order; that costs memory,
 * and then time.
 *
 * Whatever is out of the ordinary is not judged here. A stream whose events are not exactly those
 * that its head speaks of, that is not complete when the scan ends (events that the scan's
 * snapshot does not see), or that needs too much memory, is left: its number is remembered, and
 * the caller reads it in key order. So errors are the same in both orders. A stream that was
 * complete, and of which one more event comes, is doubtful: what was made of it must be withdrawn,
 * before it is read again.
 *
 * A scan that ends early, because too few streams have room or a page is damaged, does not see the
 * rest of the events: then an index tells of which streams that were complete there are more.
 *
 * The scan runs in subtransactions of its own, so that a damaged page ends the scan and not the
 * run; what it holds (pins, snapshot, the relation) belongs to a resource owner below that of the
 * caller. All memory is in one context below the caller's: a chunk a stream, a chunk an event
 * (chunk.c), sets of stream numbers.
 */
#include "read/events.h"

#include "access/relscan.h"
#include "access/table.h"
#include "access/tableam.h"
#include "common/hashfn.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

/* A stream that is being gathered, in one chunk with everything that its head points to. */
typedef struct OpenStream
{
	MakoStream	stream;
	MakoGathered *events;		/* once it is complete */
	bool		backwards;		/* until it is taken */
	Size		size;			/* of the chunk */
} OpenStream;

/*
 * The open streams by number, with what an event needs to know: other memory would have to be
 * fetched for it.
 */
typedef struct OpenEntry
{
	int64		stream_no;
	int64		start;
	int64		version;
	int64		missing;		/* events */
	int64		newest;			/* sequence number of the event that came last */
	MakoGathered *events;		/* in the reverse order of their coming */
	OpenStream *open;
	bool		in_order;		/* they came in the order of their numbers */
	char		status;
} OpenEntry;

#define SH_PREFIX open_table
#define SH_ELEMENT_TYPE OpenEntry
#define SH_KEY_TYPE int64
#define SH_KEY stream_no
#define SH_HASH_KEY(table, key) mako_hash_number(key)
#define SH_EQUAL(table, a, b) ((a) == (b))
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

/* Texts that many events have in common. */
#define SHARED_TEXTS 256
#define SHARED_LENGTH 256

struct MakoHeapOrder
{
	MemoryContext context;		/* of everything here */
	ResourceOwner owner;		/* of what the scan holds; NULL while it holds nothing */
	Snapshot	snapshot;
	MakoEventScan *scan;
	MakoAttachedScan *attached; /* the same, where it evaluates a query of others; or NULL */
	const MakoEventLeaf *leaf;	/* whose slot has the current event */
	bool		pending;		/* which waits for its head */
	bool		ended;			/* at the last event, or early */
	bool		early;			/* because gathering is not worth its memory, or by an error */
	bool		broken;			/* by an error */
	MakoHeapOrderNeed need;

	MakoRange	range;			/* of the streams that are gathered */
	int64		covered;		/* heads up to this number are known */
	int64		heads;			/* that wait for events, or waited */
	open_table_hash *open;
	MakoComplete *complete;
	OpenStream **ready;			/* streams that are complete */
	int			ready_count;
	int			take_streams;	/* so many are taken together */
	int			ready_capacity;
	MakoStream *taken;			/* those that are being taken, or NULL */
	MakoNumbers left;
	MakoNumbers doubtful;
	struct varlena *shared[SHARED_TEXTS];	/* by hash */
	struct varlena *workflow;	/* of the last event, among them */
	const char *unstamped;		/* of the last event that says none */
	struct varlena *unstamped_text; /* the same */
	MakoChunks	chunks;			/* streams and events */
	Size		sets;			/* memory of the sets of stream numbers */
};

/* How many streams are handed out together: see mako_heap_order_at_once(). */
#define TAKE_STREAMS 128
#define TAKE_STREAMS_OF_ONE 32
#define MOST_TAKE_STREAMS 4096

/* What may be gathered; the rest of the setting is for results. */
#define GATHER_LIMIT ((Size) mako_max_memory * 1024 / 8 * 7)

/* The memory of streams, events and sets. */
static Size
used_memory(const MakoHeapOrder *heap_order)
{
	return heap_order->chunks.used + heap_order->sets;
}

/*
 * Returns true if it is time to hand out what is complete, or to leave streams. Chunks of sizes
 * that are not needed any more count too, in the end.
 */
static bool
is_full(const MakoHeapOrder *heap_order)
{
	return used_memory(heap_order) > GATHER_LIMIT ||
		heap_order->chunks.blocks > GATHER_LIMIT / 4 * 5;
}

/*
 * From which share of all streams on reading every event costs less than looking up those that
 * match.
 */
#define HEAP_ORDER_SHARE 0.18

/* ---- can it be done ------------------------------------------------------------------------- */

/*
 * Returns true if events can be read in heap order. A statement that meets the privileges has been
 * rehearsed.
 */
bool
mako_heap_order_is_possible(const char **why_not)
{
	Relation	relation;

	if (mako_door_is_attached())
	{
		*why_not = mako_attached_scan_obstacle();
		return *why_not == NULL;
	}
	relation = table_open(mako_door_table("event"), AccessShareLock);
	*why_not = mako_door_read_obstacle(relation, true);
	table_close(relation, NoLock);
	return *why_not == NULL;
}

/*
 * Returns true if it is better to read all events in heap order, for so many of all streams. Says
 * why.
 */
bool
mako_heap_order_is_better(const MakoMatches *matches, int64 matching, const char **why)
{
	double		all = mako_matches_all(matches);

	*why = "mako_migration.scan_order says so";
	if (mako_scan_order == MAKO_SCAN_KEY)
		return false;
	if (!mako_heap_order_is_possible(why))
		return false;
	*why = "mako_migration.scan_order says so";
	if (mako_scan_order == MAKO_SCAN_HEAP)
		return true;
	*why = psprintf(INT64_FORMAT " of %.0f streams match, from %.0f on all events are read",
					matching, all, all * HEAP_ORDER_SHARE);
	return matching >= all * HEAP_ORDER_SHARE;
}

/* ---- sets of stream numbers ----------------------------------------------------------------- */

/* Adds a stream to such a list. */
static void
add_number(MakoHeapOrder *heap_order, MakoNumbers *list, int64 stream_no)
{
	int			before = list->capacity;

	mako_numbers_add(list, heap_order->context, stream_no);
	heap_order->sets += sizeof(int64) * (list->capacity - before);
}

/*
 * Lets a stream go that was complete and has failed: whatever its other events are, they change
 * nothing.
 */
void
mako_heap_order_forget(MakoHeapOrder *heap_order, int64 stream_no)
{
	(void) mako_complete_start(heap_order->complete, stream_no, true);
}

/* ---- open streams --------------------------------------------------------------------------- */

/* Frees events of a stream. */
static void
free_events(MakoHeapOrder *heap_order, MakoGathered *events)
{
	while (events != NULL)
	{
		MakoGathered *next = events->next;

		mako_chunk_free(&heap_order->chunks, events, events->size);
		events = next;
	}
}

/* Leaves an open stream to be read in key order. */
static void
leave(MakoHeapOrder *heap_order, int64 stream_no)
{
	OpenEntry  *entry = open_table_lookup(heap_order->open, stream_no);

	add_number(heap_order, &heap_order->left, stream_no);
	free_events(heap_order, entry->events);
	mako_chunk_free(&heap_order->chunks, entry->open, entry->open->size);
	(void) open_table_delete(heap_order->open, stream_no);
}

/* Hands out a stream that is complete. */
static void
add_ready(MakoHeapOrder *heap_order, OpenStream *open)
{
	if (heap_order->ready_count == heap_order->ready_capacity)
	{
		heap_order->ready_capacity = Max(heap_order->ready_capacity * 2, 1024);
		heap_order->ready = heap_order->ready == NULL ?
			MemoryContextAlloc(heap_order->context,
							   sizeof(OpenStream *) * heap_order->ready_capacity) :
			repalloc(heap_order->ready, sizeof(OpenStream *) * heap_order->ready_capacity);
	}
	heap_order->ready[heap_order->ready_count++] = open;
}

/* Copies a value of variable length to a place, and moves the place on. */
static void *
put(char **place, const void *value, Size length)
{
	char	   *copy = *place;

	memcpy(copy, value, length);
	*place += MAXALIGN(length);
	return copy;
}

/* A copy of a stream in one chunk. */
static OpenStream *
copy_stream(MakoHeapOrder *heap_order, const MakoStream *stream)
{
	struct varlena *state = (struct varlena *) DatumGetPointer(stream->start_state);
	Size		id_size = stream->stream_id == NULL ? 0 : strlen(stream->stream_id) + 1;
	Size		state_size = state == NULL ? 0 : VARSIZE_ANY(state);
	Size		size = MAXALIGN(sizeof(OpenStream)) + MAXALIGN(state_size) +
		2 * MAXALIGN(sizeof(pg_uuid_t)) + MAXALIGN(id_size);
	OpenStream *open = mako_chunk_allocate(&heap_order->chunks, size);
	char	   *place;

	place = (char *) open + MAXALIGN(sizeof(OpenStream));
	memset(open, 0, sizeof(OpenStream));
	open->stream = *stream;
	open->size = size;
	if (state != NULL)
		open->stream.start_state = PointerGetDatum(put(&place, state, state_size));
	if (stream->tenant_id != NULL)
		open->stream.tenant_id = put(&place, stream->tenant_id, sizeof(pg_uuid_t));
	if (stream->process_id != NULL)
		open->stream.process_id = put(&place, stream->process_id, sizeof(pg_uuid_t));
	if (stream->stream_id != NULL)
		open->stream.stream_id = put(&place, stream->stream_id, id_size);
	return open;
}

/* What an open stream will need. */
typedef struct Need
{
	int64		stream_no;
	double		size;
} Need;

/* What a stream will need when it is complete, and the less the nearer it is to that. */
static double
need_of(const OpenEntry *entry)
{
	double		expected = entry->version - entry->start;
	double		size = entry->open->size;

	for (const MakoGathered *gathered = entry->events; gathered != NULL; gathered = gathered->next)
		size += gathered->size;
	return size * expected / Max(expected - entry->missing, 1) * entry->missing / expected;
}

/* For qsort(): the largest first. */
static int
compare_needs(const void *a, const void *b)
{
	double		one = ((const Need *) a)->size;
	double		other = ((const Need *) b)->size;

	return one > other ? -1 : one < other;
}

/*
 * Leaves the open streams that need most until there is room again; gives the scan up when most
 * streams had to be left.
 */
static void
make_room(MakoHeapOrder *heap_order)
{
	Need	   *needs = MemoryContextAllocHuge(heap_order->context,
											   sizeof(Need) * (heap_order->open->members + 1));
	open_table_iterator iterator;
	OpenEntry  *entry;
	int			count = 0;

	open_table_start_iterate(heap_order->open, &iterator);
	while ((entry = open_table_iterate(heap_order->open, &iterator)) != NULL)
		needs[count++] = (Need) {entry->stream_no, need_of(entry)};
	qsort(needs, count, sizeof(Need), compare_needs);
	for (int i = 0; i < count && used_memory(heap_order) > GATHER_LIMIT / 4 * 3; i++)
		leave(heap_order, needs[i].stream_no);
	pfree(needs);
	if (heap_order->left.count > heap_order->heads / 2 || is_full(heap_order))
	{
		ereport(DEBUG1,
				(errmsg_internal("stopped reading events in heap order: "
								 "%d of " INT64_FORMAT " streams had no room",
								 heap_order->left.count, heap_order->heads)));
		heap_order->ended = heap_order->early = true;
	}
}

/*
 * Takes the next heads, with the states that they start from, in the order of their numbers;
 * without any, there are no more. Whether a workflow has an apply goes by the source of a stream.
 * What waits for no event is complete at once.
 */
void
mako_heap_order_expect(MakoHeapOrder *heap_order, const MakoStream *streams, int count,
					   const bool *has_apply)
{
	for (int i = 0; i < count; i++)
	{
		const MakoStream *stream = &streams[i];
		OpenStream *open = copy_stream(heap_order, stream);
		OpenEntry  *entry;
		bool		found;

		if (!has_apply[stream->source] || stream->boundary_missing)
			add_ready(heap_order, open);
		else if (stream->start >= stream->version)
		{
			mako_complete_add(heap_order->complete, stream->stream_no, stream->start);
			add_ready(heap_order, open);
		}
		else
		{
			heap_order->heads++;
			entry = open_table_insert(heap_order->open, stream->stream_no, &found);
			entry->start = stream->start;
			entry->version = stream->version;
			entry->missing = stream->version - stream->start;
			entry->newest = stream->start;
			entry->events = NULL;
			entry->open = open;
			entry->in_order = true;
		}
	}
	heap_order->covered = count == 0 ? PG_INT64_MAX : streams[count - 1].stream_no;
}

/* ---- events --------------------------------------------------------------------------------- */

/*
 * A text that many events have in common, kept for all of them; NULL when it is not one of those.
 */
static struct varlena *
share(MakoHeapOrder *heap_order, struct varlena *value, Size size)
{
	struct varlena **place;

	if (size > SHARED_LENGTH)
		return NULL;
	place = &heap_order->shared[hash_bytes((unsigned char *) value, (int) size) % SHARED_TEXTS];
	if (*place == NULL)
		*place = memcpy(MemoryContextAlloc(heap_order->context, size), value, size);
	return VARSIZE_ANY(*place) == size && memcmp(*place, value, size) == 0 ? *place : NULL;
}

/* Like share(), for the workflow of an event, which is mostly that of the event before. */
static struct varlena *
share_workflow(MakoHeapOrder *heap_order, struct varlena *value, Size size)
{
	struct varlena *before = heap_order->workflow;

	if (before == NULL || VARSIZE_ANY(before) != size || memcmp(before, value, size) != 0)
	{
		before = share(heap_order, value, size);
		if (before != NULL)
			heap_order->workflow = before;
	}
	return before;
}

/*
 * What a stream runs under: the workflow of its events that say none, because all that are gathered
 * come after its last move.
 */
static struct varlena *
workflow_of_stream(MakoHeapOrder *heap_order, const MakoStream *stream)
{
	if (heap_order->unstamped != stream->workflow_id)
	{
		MemoryContext old = MemoryContextSwitchTo(heap_order->context);

		heap_order->unstamped = stream->workflow_id;
		heap_order->unstamped_text = (struct varlena *) cstring_to_text(stream->workflow_id);
		MemoryContextSwitchTo(old);
	}
	return heap_order->unstamped_text;
}

/*
 * Adds the current event to its stream; false when it lacks a value. Values are copied as they
 * are stored.
 */
static bool
add_event(MakoHeapOrder *heap_order, OpenEntry *entry, int64 sequence_number)
{
	const MakoEventLeaf *leaf = heap_order->leaf;
	TupleTableSlot *slot = leaf->slot;
	struct varlena *values[MAKO_EVENT_COLUMNS] = {NULL};
	struct varlena *kept[MAKO_EVENT_COLUMNS] = {NULL};
	static const int variable[] = {MAKO_EVENT_PAYLOAD, MAKO_EVENT_WORKFLOW_ID, MAKO_EVENT_TYPE};
	Size		size = MAXALIGN(sizeof(MakoGathered));
	MakoGathered *gathered;
	char	   *place;

	slot_getsomeattrs(slot, leaf->last_attribute);
	for (int i = 0; i < MAKO_EVENT_COLUMNS; i++)
		if (slot->tts_isnull[leaf->attributes[i] - 1] &&
			(i != MAKO_EVENT_WORKFLOW_ID || heap_order->attached == NULL))
			return false;
	for (size_t i = 0; i < lengthof(variable); i++)
	{
		int			column = variable[i];

		values[column] =
			(struct varlena *) DatumGetPointer(slot->tts_values[leaf->attributes[column] - 1]);
		if (slot->tts_isnull[leaf->attributes[column] - 1])
			kept[column] = workflow_of_stream(heap_order, &entry->open->stream);
		else if (column == MAKO_EVENT_WORKFLOW_ID)
			kept[column] = share_workflow(heap_order, values[column], VARSIZE_ANY(values[column]));
		else if (column == MAKO_EVENT_TYPE)
			kept[column] = share(heap_order, values[column], VARSIZE_ANY(values[column]));
		if (kept[column] == NULL)
			size += MAXALIGN(VARSIZE_ANY(values[column]));
	}
	gathered = mako_chunk_allocate(&heap_order->chunks, size);
	gathered->size = size;
	place = (char *) gathered + MAXALIGN(sizeof(MakoGathered));
	for (size_t i = 0; i < lengthof(variable); i++)
		if (kept[variable[i]] == NULL)
			kept[variable[i]] = put(&place, values[variable[i]], VARSIZE_ANY(values[variable[i]]));
	gathered->next = entry->events;
	gathered->event.stream_no = entry->stream_no;
	gathered->event.sequence_number = sequence_number;
	gathered->event.workflow_id = PointerGetDatum(kept[MAKO_EVENT_WORKFLOW_ID]);
	gathered->event.event_type = PointerGetDatum(kept[MAKO_EVENT_TYPE]);
	gathered->event.schema_version =
		DatumGetInt32(slot->tts_values[leaf->attributes[MAKO_EVENT_SCHEMA_VERSION] - 1]);
	gathered->event.payload = PointerGetDatum(kept[MAKO_EVENT_PAYLOAD]);
	gathered->event.lasts = true;

	entry->events = gathered;
	entry->in_order = entry->in_order && entry->newest < sequence_number;
	entry->newest = sequence_number;
	entry->missing--;
	return true;
}

/* For qsort(): the order of events. */
static int
compare_events(const void *a, const void *b)
{
	return mako_numbers_compare(&(*(MakoGathered *const *) a)->event.sequence_number,
								&(*(MakoGathered *const *) b)->event.sequence_number);
}

/* The events of a stream in the order of their numbers. */
static MakoGathered *
sort_events(MakoGathered *first, int64 count)
{
	MakoGathered **events = palloc_extended(sizeof(MakoGathered *) * count, MCXT_ALLOC_HUGE);
	int64		i = 0;

	for (MakoGathered *gathered = first; gathered != NULL; gathered = gathered->next)
		events[i++] = gathered;
	qsort(events, count, sizeof(MakoGathered *), compare_events);
	for (i = 0; i < count; i++)
		events[i]->next = i + 1 < count ? events[i + 1] : NULL;
	first = events[0];
	pfree(events);
	return first;
}

/* Returns true if these are the events that the head of their stream speaks of. */
static bool
is_without_gap(const MakoGathered *events, int64 expected)
{
	for (; events != NULL; events = events->next)
		if (events->event.sequence_number != expected++)
			return false;
	return true;
}

/*
 * Closes a stream that has as many events as it should. If they came in order, they are those that
 * its head speaks of.
 */
static void
complete_stream(MakoHeapOrder *heap_order, OpenEntry *entry)
{
	OpenStream *open = entry->open;

	if (!entry->in_order)
	{
		entry->events = sort_events(entry->events, entry->version - entry->start);
		if (!is_without_gap(entry->events, entry->start + 1))
		{
			leave(heap_order, entry->stream_no);
			return;
		}
	}
	open->events = entry->events;
	open->backwards = entry->in_order;
	(void) open_table_delete(heap_order->open, entry->stream_no);
	mako_complete_add(heap_order->complete, open->stream.stream_no, open->stream.start);
	add_ready(heap_order, open);
}

/* Takes the current event; false when its head is not known yet. */
static bool
gather_event(MakoHeapOrder *heap_order)
{
	bool		number_isnull;
	const MakoEventLeaf *leaf = heap_order->leaf;
	int64		stream_no = leaf->stream_no;
	int64		sequence_number;
	OpenEntry  *entry;

	if (stream_no == MAKO_NO_STREAM ||
		stream_no < heap_order->range.first || stream_no > heap_order->range.last)
		return true;
	if (stream_no > heap_order->covered)
		return false;
	entry = open_table_lookup(heap_order->open, stream_no);
	sequence_number = DatumGetInt64(slot_getattr(leaf->slot,
												 leaf->attributes[MAKO_EVENT_SEQUENCE_NUMBER],
												 &number_isnull));
	if (entry == NULL)
	{
		int64		start = mako_complete_start(heap_order->complete, stream_no, false);

		if (start >= 0 && (number_isnull || sequence_number > start))
		{
			(void) mako_complete_start(heap_order->complete, stream_no, true);
			add_number(heap_order, &heap_order->doubtful, stream_no);
		}
	}
	else if (number_isnull || sequence_number > entry->version ||
			 (sequence_number > entry->start && !add_event(heap_order, entry, sequence_number)))
		leave(heap_order, stream_no);
	else if (entry->missing == 0)
		complete_stream(heap_order, entry);
	return true;
}

/* ---- the scan ------------------------------------------------------------------------------- */

/* Gives the scan a resource owner, which becomes the current one, and a snapshot of now. */
static void
own_snapshot(MakoHeapOrder *heap_order)
{
	heap_order->owner = ResourceOwnerCreate(CurrentResourceOwner, "mako gather");
	CurrentResourceOwner = heap_order->owner;
	heap_order->snapshot = RegisterSnapshot(GetTransactionSnapshot());
}

/*
 * How many streams of so many workflows are best folded together: few enough for the processor to
 * keep their events in its cache, enough for a subtransaction; and enough of each workflow, one
 * after the other, for the processor to keep its program in its cache, which is larger than many
 * a stream.
 */
int
mako_heap_order_at_once(int sources)
{
	return Max(TAKE_STREAMS,
			   Min(sources, MOST_TAKE_STREAMS / TAKE_STREAMS_OF_ONE) * TAKE_STREAMS_OF_ONE);
}

/*
 * Starts the scan for all streams, or for a range of them, with a snapshot of now; so many are
 * handed out together. Of a range only that part of the table is read
 * which nearly all of its events are in: the streams that have others are left, and the caller
 * looks for events beyond the heads himself.
 */
MakoHeapOrder *
mako_heap_order_open(int at_once, const MakoRange *range)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "mako gather",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	ResourceOwner outer = CurrentResourceOwner;
	MakoHeapOrder *heap_order = palloc0(sizeof(MakoHeapOrder));

	heap_order->context = heap_order->chunks.context = context;
	heap_order->range = range != NULL ? *range : (MakoRange) {PG_INT64_MIN, PG_INT64_MAX};
	heap_order->take_streams = at_once;
	heap_order->open = open_table_create(context, 1024, NULL);
	heap_order->complete = mako_complete_create(context, &heap_order->sets);
	heap_order->covered = PG_INT64_MIN;
	own_snapshot(heap_order);
	heap_order->scan = mako_event_scan_open(heap_order->snapshot);
	heap_order->attached = mako_event_scan_attached(heap_order->scan);
	if (range != NULL)
		mako_event_scan_limit(heap_order->scan, range);
	CurrentResourceOwner = outer;
	MemoryContextSwitchTo(old);
	return heap_order;
}

/* Reads on until something is needed; runs in a subtransaction. */
static void
scan(void *argument)
{
	MakoHeapOrder *heap_order = argument;
	ResourceOwner outer = CurrentResourceOwner;
	MemoryContext old = MemoryContextSwitchTo(heap_order->context);
	MakoEvaluation evaluation;

	CurrentResourceOwner = heap_order->owner;
	if (heap_order->attached != NULL)
		evaluation = mako_attached_scan_enter(heap_order->attached);
	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		if (!heap_order->pending &&
			(heap_order->leaf = mako_event_scan_next(heap_order->scan)) == NULL)
		{
			heap_order->ended = true;
			heap_order->need = MAKO_HEAP_ORDER_END;
			break;
		}
		heap_order->pending = !gather_event(heap_order);
		if (heap_order->pending)
		{
			heap_order->need = MAKO_HEAP_ORDER_HEADS;
			break;
		}
		if (heap_order->ready_count >= heap_order->take_streams || is_full(heap_order))
		{
			heap_order->need = MAKO_HEAP_ORDER_TAKE;
			break;
		}
	}
	if (heap_order->attached != NULL)
		mako_gate_end_scan(&evaluation);
	CurrentResourceOwner = outer;
	MemoryContextSwitchTo(old);
}

/* Reads on, and tells what is needed before the next call. */
MakoHeapOrderNeed
mako_heap_order_advance(MakoHeapOrder *heap_order)
{
	if (is_full(heap_order) && heap_order->ready_count == 0 && !heap_order->ended)
		make_room(heap_order);
	if (heap_order->ended)
		heap_order->need = MAKO_HEAP_ORDER_END;
	else if (heap_order->ready_count >= heap_order->take_streams || is_full(heap_order))
		heap_order->need = MAKO_HEAP_ORDER_TAKE;
	else
	{
		ErrorData  *error = mako_subtransaction_run(scan, heap_order);

		if (error != NULL)
		{
			ereport(DEBUG1,
					(errmsg_internal("stopped reading events in heap order: %s", error->message)));
			FreeErrorData(error);
			heap_order->ended = heap_order->early = heap_order->broken = true;
			heap_order->need = MAKO_HEAP_ORDER_END;
		}
	}
	if (heap_order->need == MAKO_HEAP_ORDER_END && heap_order->ready_count > 0)
		return MAKO_HEAP_ORDER_TAKE;
	return heap_order->need;
}

/* For qsort(): the order of streams that are taken. */
static int
compare_streams(const void *a, const void *b)
{
	const MakoStream *x = &(*(OpenStream *const *) a)->stream;
	const MakoStream *y = &(*(OpenStream *const *) b)->stream;

	return x->source != y->source ? x->source - y->source :
		mako_numbers_compare(&x->stream_no, &y->stream_no);
}

/*
 * Turns the events of the streams that are complete to the order of their numbers. Each event
 * leads to the one before, all are long out of the processor's cache: so this goes over the
 * streams again and again, one event of each at a time, and asks for the next ones.
 */
static void
turn_events(MakoHeapOrder *heap_order)
{
	MakoGathered **rest = palloc(sizeof(MakoGathered *) * heap_order->ready_count);
	bool		more = true;

	for (int i = 0; i < heap_order->ready_count; i++)
	{
		OpenStream *open = heap_order->ready[i];

		rest[i] = NULL;
		if (!open->backwards)
			continue;
		rest[i] = open->events;
		open->events = NULL;
	}
	while (more)
	{
		more = false;
		for (int i = 0; i < heap_order->ready_count; i++)
		{
			MakoGathered *event = rest[i];

			if (event == NULL)
				continue;
			rest[i] = event->next;
			mako_prefetch(event->next, sizeof(MakoGathered));
			event->next = heap_order->ready[i]->events;
			heap_order->ready[i]->events = event;
			more = true;
		}
	}
	pfree(rest);
}

/*
 * The streams that are complete, by workflow and in the order of their numbers, as a batch that
 * lives until it is released.
 */
MakoStream *
mako_heap_order_take(MakoHeapOrder *heap_order, int *count)
{
	turn_events(heap_order);
	qsort(heap_order->ready, heap_order->ready_count, sizeof(OpenStream *), compare_streams);
	heap_order->taken = MemoryContextAlloc(heap_order->context,
										   sizeof(MakoStream) * (heap_order->ready_count + 1));
	for (int i = 0; i < heap_order->ready_count; i++)
	{
		heap_order->taken[i] = heap_order->ready[i]->stream;
		heap_order->taken[i].gathered = heap_order->ready[i]->events;
	}
	*count = heap_order->ready_count;
	return heap_order->taken;
}

/* Frees a batch that was taken. */
void
mako_heap_order_release(MakoHeapOrder *heap_order)
{
	for (int i = 0; i < heap_order->ready_count; i++)
	{
		/* Cold by now: what the next streams need is asked for before. */
		if (i + 4 < heap_order->ready_count)
			mako_prefetch(heap_order->ready[i + 4], sizeof(OpenStream));
		if (i + 2 < heap_order->ready_count)
			mako_prefetch(heap_order->ready[i + 2]->events, sizeof(MakoGathered));
		free_events(heap_order, heap_order->ready[i]->events);
		mako_chunk_free(&heap_order->chunks, heap_order->ready[i], heap_order->ready[i]->size);
	}
	heap_order->ready_count = 0;
	pfree(heap_order->taken);
	heap_order->taken = NULL;
}

/* Notes a stream that was complete before one more event of it came. */
static void
add_doubtful(void *argument, int64 stream_no)
{
	MakoHeapOrder *heap_order = argument;

	add_number(heap_order, &heap_order->doubtful, stream_no);
}

/*
 * The streams that were complete before one more event of them came; reads with the active
 * snapshot.
 */
const int64 *
mako_heap_order_doubtful(MakoHeapOrder *heap_order, int *count)
{
	if (heap_order->early)
		mako_complete_check(heap_order->complete, add_doubtful, heap_order);
	*count = heap_order->doubtful.count;
	return heap_order->doubtful.numbers;
}

/* Leaves a stream to be read in key order. */
void
mako_heap_order_leave(MakoHeapOrder *heap_order, int64 stream_no)
{
	add_number(heap_order, &heap_order->left, stream_no);
}

/* Lets everything go that the scan holds. After an error it is not known what that is. */
static void
release_scan(MakoHeapOrder *heap_order)
{
	bool		is_known = !heap_order->broken;

	ResourceOwnerRelease(heap_order->owner, RESOURCE_RELEASE_BEFORE_LOCKS, is_known, false);
	ResourceOwnerRelease(heap_order->owner, RESOURCE_RELEASE_LOCKS, is_known, false);
	ResourceOwnerRelease(heap_order->owner, RESOURCE_RELEASE_AFTER_LOCKS, is_known, false);
	ResourceOwnerDelete(heap_order->owner);
	heap_order->owner = NULL;
}

/* Ends the scan, or suspends it. */
static void
end_scan(MakoHeapOrder *heap_order, bool suspend)
{
	ResourceOwner outer = CurrentResourceOwner;

	if (!heap_order->broken)
	{
		CurrentResourceOwner = heap_order->owner;
		if (suspend)
			mako_event_scan_suspend(heap_order->scan,
									heap_order->pending ? NULL : heap_order->leaf);
		else
			mako_event_scan_close(heap_order->scan);
		UnregisterSnapshot(heap_order->snapshot);
		CurrentResourceOwner = outer;
	}
	release_scan(heap_order);
}

/*
 * Lets the scan hold nothing until it is resumed, which may be in another transaction. What is
 * gathered stays, and so do the events of the store. Not for an attached event store.
 */
void
mako_heap_order_suspend(MakoHeapOrder *heap_order)
{
	if (heap_order->owner != NULL)
		end_scan(heap_order, true);
}

/*
 * Goes on, with a snapshot of now. Where that is not possible, or not allowed any more, the scan
 * has ended early.
 */
void
mako_heap_order_resume(MakoHeapOrder *heap_order)
{
	const char *why_not;
	MemoryContext old = MemoryContextSwitchTo(heap_order->context);
	ResourceOwner outer = CurrentResourceOwner;
	bool		goes_on;

	own_snapshot(heap_order);
	goes_on = !heap_order->ended && mako_heap_order_is_possible(&why_not) &&
		mako_event_scan_resume(heap_order->scan, heap_order->snapshot);
	if (!goes_on)
		UnregisterSnapshot(heap_order->snapshot);
	CurrentResourceOwner = outer;
	MemoryContextSwitchTo(old);
	/* An event that waited for its head is brought again. */
	heap_order->pending = false;
	if (!goes_on)
	{
		heap_order->early = heap_order->early || !heap_order->ended;
		heap_order->ended = true;
		release_scan(heap_order);
	}
}

/*
 * Ends gathering. Returns the numbers of the streams that are left, in order, in the current
 * memory context.
 */
int64 *
mako_heap_order_close(MakoHeapOrder *heap_order, int *count)
{
	open_table_iterator iterator;
	OpenEntry  *entry;
	int64	   *left;

	open_table_start_iterate(heap_order->open, &iterator);
	while ((entry = open_table_iterate(heap_order->open, &iterator)) != NULL)
		add_number(heap_order, &heap_order->left, entry->stream_no);
	ereport(DEBUG1,
			(errmsg_internal("read events of " INT64_FORMAT " streams in heap order, %d of them "
							 "are read again in key order; %zu kB of chunks",
							 heap_order->heads, heap_order->left.count,
							 heap_order->chunks.blocks / 1024)));
	*count = heap_order->left.count;
	left = palloc_extended(sizeof(int64) * (heap_order->left.count + 1), MCXT_ALLOC_HUGE);
	mako_numbers_sort(&heap_order->left);
	if (*count > 0)
		memcpy(left, heap_order->left.numbers, sizeof(int64) * *count);
	if (heap_order->owner != NULL)
		end_scan(heap_order, false);
	MemoryContextDelete(heap_order->context);
	return left;
}
