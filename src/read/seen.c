/*
 * seen.c
 *	  Sets of stream numbers: which ones a pass has met, and which ones are done. A bit for each
 *	  where they are dense.
 *
 * A cursor that locks leaves out a row that the transaction itself has changed since it was
 * opened, without a word. So what a pass has met is kept, to tell what is left when there is
 * reason to ask. A set lives in the memory context in which it was made.
 */
#include "read/events.h"

/* The numbers of a block of them, as bits. */
#define BLOCK_BITS 6

typedef struct SeenBlock
{
	int64		number;
	uint64		members;
	char		status;
} SeenBlock;

#define SH_PREFIX block_table
#define SH_ELEMENT_TYPE SeenBlock
#define SH_KEY_TYPE int64
#define SH_KEY number
#define SH_HASH_KEY(table, key) mako_hash_number(key)
#define SH_EQUAL(table, a, b) ((a) == (b))
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

struct MakoSeen
{
	block_table_hash *blocks;
	int64		count;
};

/* The bit of a number in its block. */
static uint64
bit_of(int64 number)
{
	return UINT64CONST(1) << (number & ((1 << BLOCK_BITS) - 1));
}

/* An empty set. */
MakoSeen *
mako_seen_create(void)
{
	MakoSeen   *seen = palloc0(sizeof(MakoSeen));

	seen->blocks = block_table_create(CurrentMemoryContext, 64, NULL);
	return seen;
}

/* Adds a number. */
void
mako_seen_add(MakoSeen *seen, int64 number)
{
	bool		found;
	SeenBlock  *block = block_table_insert(seen->blocks, number >> BLOCK_BITS, &found);

	if (!found)
		block->members = 0;
	seen->count += (block->members & bit_of(number)) == 0;
	block->members |= bit_of(number);
}

/* Returns true if this number is in the set. */
bool
mako_seen_has(const MakoSeen *seen, int64 number)
{
	const SeenBlock *block = block_table_lookup(seen->blocks, number >> BLOCK_BITS);

	return block != NULL && (block->members & bit_of(number)) != 0;
}

/* How many there are. */
int64
mako_seen_count(const MakoSeen *seen)
{
	return seen->count;
}

/* Adds those to a list that are not in another set, in their order; it grows in that context. */
void
mako_seen_without(const MakoSeen *seen, const MakoSeen *other, MakoNumbers *list,
				  MemoryContext context)
{
	block_table_iterator iterator;
	const SeenBlock *block;

	block_table_start_iterate(seen->blocks, &iterator);
	while ((block = block_table_iterate(seen->blocks, &iterator)) != NULL)
	{
		const SeenBlock *same = block_table_lookup(other->blocks, block->number);
		uint64		members = block->members & ~(same == NULL ? 0 : same->members);

		for (int i = 0; members != 0; i++, members >>= 1)
			if ((members & 1) != 0)
				mako_numbers_add(list, context, (block->number << BLOCK_BITS) + i);
	}
	mako_numbers_sort(list);
}
