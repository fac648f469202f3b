/*
 * chunk.c
 *	  Memory in small chunks: many of them, freed in another order than they were made.
 *
 * They are cut from blocks, in steps of a few bytes, where a memory context would round them up to
 * powers of two. A chunk that is free starts with a pointer to the next one of its size. Large
 * ones are the context's own. All of it ends with the context.
 */
#include "read/events.h"

#include "utils/memutils.h"

#define BLOCK (64 * 1024)

/* A chunk of this size. */
void *
mako_chunk_allocate(MakoChunks *chunks, Size size)
{
	void	  **list;
	void	   *chunk;

	size = TYPEALIGN(MAKO_CHUNK_STEP, size);
	chunks->used += size;
	if (size > MAKO_CHUNK_LIMIT)
		return MemoryContextAllocHuge(chunks->context, size);
	list = &chunks->free[size / MAKO_CHUNK_STEP];
	chunk = *list;
	if (chunk != NULL)
	{
		*list = *(void **) chunk;
		/* The next one of this size, which was used long ago. */
		mako_prefetch(*list, size);
		return chunk;
	}
	if (chunks->left < size)
	{
		chunks->block = MemoryContextAlloc(chunks->context, BLOCK);
		chunks->left = BLOCK;
		chunks->blocks += BLOCK;
	}
	chunk = chunks->block;
	chunks->block += size;
	chunks->left -= size;
	return chunk;
}

/* Frees a chunk of this size. */
void
mako_chunk_free(MakoChunks *chunks, void *chunk, Size size)
{
	void	  **list;

	size = TYPEALIGN(MAKO_CHUNK_STEP, size);
	chunks->used -= size;
	if (size > MAKO_CHUNK_LIMIT)
	{
		pfree(chunk);
		return;
	}
	list = &chunks->free[size / MAKO_CHUNK_STEP];
	*(void **) chunk = *list;
	*list = chunk;
}
