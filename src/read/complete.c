/*
 * complete.c
 *	  Streams that were complete, with where they started: one more event of such a stream must be
 *	  noticed, and for each event of another stream the answer is no.
 *
 * They are kept as pages of neighbours: a bit each, and a number where a stream did not start with
 * its first event. All of it ends with the context.
 */
#include "read/events.h"

#include "miscadmin.h"

#define PAGE_STREAMS 512

typedef struct CompletePage
{
	int64		page_no;
	uint64		members[PAGE_STREAMS / 64];
	uint32	   *starts;			/* where each of them started; NULL while all started with their
								 * first event */
	char		status;
} CompletePage;

#define SH_PREFIX page_table
#define SH_ELEMENT_TYPE CompletePage
#define SH_KEY_TYPE int64
#define SH_KEY page_no
#define SH_HASH_KEY(table, key) mako_hash_number(key)
#define SH_EQUAL(table, a, b) ((a) == (b))
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

struct MakoComplete
{
	MemoryContext context;
	Size	   *memory;			/* counts ours, too */
	page_table_hash *pages;
};

/* No stream is complete yet. Adds the memory that will be needed to *memory. */
MakoComplete *
mako_complete_create(MemoryContext context, Size *memory)
{
	MakoComplete *complete = MemoryContextAlloc(context, sizeof(MakoComplete));

	complete->context = context;
	complete->memory = memory;
	complete->pages = page_table_create(context, 128, NULL);
	return complete;
}

/* The page of a stream, and its place there. */
static int64
page_of(int64 stream_no, int *place)
{
	int64		page_no = stream_no / PAGE_STREAMS;

	*place = (int) (stream_no - page_no * PAGE_STREAMS);
	if (*place < 0)
	{
		page_no--;
		*place += PAGE_STREAMS;
	}
	return page_no;
}

/* Remembers that a stream is complete, so that one more event of it is noticed. */
void
mako_complete_add(MakoComplete *complete, int64 stream_no, int64 start)
{
	int			place;
	int64		page_no = page_of(stream_no, &place);
	bool		found;
	CompletePage *page = page_table_insert(complete->pages, page_no, &found);

	if (!found)
	{
		memset(page->members, 0, sizeof(page->members));
		page->starts = NULL;
		*complete->memory += sizeof(CompletePage) * 2;
	}
	if (start > 0 && page->starts == NULL)
	{
		page->starts = MemoryContextAllocZero(complete->context, sizeof(uint32) * PAGE_STREAMS);
		*complete->memory += sizeof(uint32) * PAGE_STREAMS;
	}
	if (page->starts != NULL)
		page->starts[place] = (uint32) Min(start, (int64) PG_UINT32_MAX);
	page->members[place / 64] |= UINT64CONST(1) << place % 64;
}

/*
 * Where a stream started that was complete; -1 for another one. With forget it is another one from
 * now on.
 */
int64
mako_complete_start(MakoComplete *complete, int64 stream_no, bool forget)
{
	int			place;
	CompletePage *page = page_table_lookup(complete->pages, page_of(stream_no, &place));
	uint64		bit = UINT64CONST(1) << place % 64;

	if (page == NULL || (page->members[place / 64] & bit) == 0)
		return -1;
	if (forget)
		page->members[place / 64] &= ~bit;
	return page->starts == NULL ? 0 : page->starts[place];
}

/* A page, and what is found about it. */
typedef struct Check
{
	int64		first;			/* stream on the page */
	int			count;
	int64		stream_nos[PAGE_STREAMS];	/* with more events */
} Check;

/* Looks for events beyond the heads of a page; runs in a subtransaction. */
static void
check_page(void *argument)
{
	Check	   *check = argument;
	MakoRows	rows = mako_stream_find_beyond(check->first, check->first + PAGE_STREAMS - 1);

	check->count = (int) rows.count;
	for (int i = 0; i < check->count; i++)
		check->stream_nos[i] = mako_row_bigint(&rows, i, 1);
	mako_rows_free(&rows);
}

/*
 * Forgets the streams that have events beyond their heads, with the active snapshot, and tells of
 * each. What cannot be told of a page counts as such.
 */
void
mako_complete_check(MakoComplete *complete, void (*tell) (void *argument, int64 stream_no),
					void *argument)
{
	page_table_iterator iterator;
	CompletePage *page;

	page_table_start_iterate(complete->pages, &iterator);
	while ((page = page_table_iterate(complete->pages, &iterator)) != NULL)
	{
		Check		check = {page->page_no * PAGE_STREAMS};
		ErrorData  *error = mako_subtransaction_run(check_page, &check);

		CHECK_FOR_INTERRUPTS();
		if (error != NULL)
		{
			FreeErrorData(error);
			for (check.count = 0; check.count < PAGE_STREAMS; check.count++)
				check.stream_nos[check.count] = check.first + check.count;
		}
		for (int i = 0; i < check.count; i++)
			if (mako_complete_start(complete, check.stream_nos[i], true) >= 0)
				tell(argument, check.stream_nos[i]);
	}
}
