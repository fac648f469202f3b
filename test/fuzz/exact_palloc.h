/*
 * exact_palloc.h
 *	  Included before a source file of ours, so that a memory checker sees each of its allocations, and its arguments, to the byte.
 *
 * The server hands out pieces of large blocks, within which a checker notices nothing. Here each palloc() is a malloc() that is freed with
 * its memory context. Only for files that neither pfree() what they have got nor hand it to somebody who does.
 */
#ifndef EXACT_PALLOC_H
#define EXACT_PALLOC_H

#include "postgres.h"

#include "fmgr.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"

#include <stdlib.h>

/* A piece of memory, known to the context that it belongs to. */
typedef struct ExactPiece
{
	MemoryContextCallback callback;
	void	   *memory;
	Size		size;
	struct ExactPiece *next;
} ExactPiece;

/* All pieces, the youngest first. */
static ExactPiece *exact_pieces;

/* Frees a piece when its context goes. */
static inline void
exact_free(void *argument)
{
	ExactPiece *piece = argument;
	ExactPiece **link = &exact_pieces;

	while (*link != piece)
		link = &(*link)->next;
	*link = piece->next;
	free(piece->memory);
}

static inline void *
exact_alloc(Size size)
{
	ExactPiece *piece = MemoryContextAlloc(CurrentMemoryContext, sizeof(ExactPiece));

	piece->memory = malloc(size);
	piece->size = size;
	piece->next = exact_pieces;
	piece->callback.func = exact_free;
	piece->callback.arg = piece;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, &piece->callback);
	exact_pieces = piece;
	return piece->memory;
}

static inline void *
exact_alloc_zero(Size size)
{
	return memset(exact_alloc(size), 0, size);
}

/* Always moves, so that nobody gets away with an old pointer. */
static inline void *
exact_realloc(void *memory, Size size)
{
	ExactPiece *piece = exact_pieces;
	void	   *moved = malloc(size);

	while (piece->memory != memory)
		piece = piece->next;
	memcpy(moved, memory, Min(size, piece->size));
	free(memory);
	piece->memory = moved;
	piece->size = size;
	return moved;
}

static inline char *
exact_strndup(const char *text, Size length)
{
	Size		size = strnlen(text, length);
	char	   *copy = exact_alloc(size + 1);

	memcpy(copy, text, size);
	copy[size] = '\0';
	return copy;
}

/* A document, alone in its memory. */
static inline Jsonb *
exact_jsonb(Datum datum)
{
	Jsonb	   *document = DatumGetJsonbP(datum);

	return memcpy(exact_alloc(VARSIZE(document)), document, VARSIZE(document));
}

#undef PG_GETARG_JSONB_P
#define PG_GETARG_JSONB_P(n) exact_jsonb(PG_GETARG_DATUM(n))
#undef DatumGetJsonbPCopy
#define DatumGetJsonbPCopy(datum) exact_jsonb(datum)
#define palloc(size) exact_alloc(size)
#define palloc0(size) exact_alloc_zero(size)
#define repalloc(memory, size) exact_realloc(memory, size)
#define pnstrdup(text, length) exact_strndup(text, length)

#endif							/* EXACT_PALLOC_H */
