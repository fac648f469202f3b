/*
 * numbers.c
 *	  Lists of stream numbers, in the order in which they were added until they are brought in their
 *	  own.
 */
#include "read/read.h"

#include "utils/memutils.h"

/* Adds a number; the list lives in the memory context. */
void
mako_numbers_add(MakoNumbers *list, MemoryContext context, int64 number)
{
	if (list->count == list->capacity)
	{
		list->capacity = Max(list->capacity * 2, 128);
		list->numbers = list->numbers == NULL ?
			MemoryContextAlloc(context, sizeof(int64) * list->capacity) :
			repalloc_huge(list->numbers, sizeof(int64) * list->capacity);
	}
	list->numbers[list->count++] = number;
}

/* For qsort(): the order of numbers. */
int
mako_numbers_compare(const void *a, const void *b)
{
	int64		one = *(const int64 *) a;
	int64		other = *(const int64 *) b;

	return one < other ? -1 : one > other;
}

/* Brings a list in order. */
void
mako_numbers_sort(MakoNumbers *list)
{
	/* Where nothing is in it, there are no numbers. */
	if (list->count > 0)
		qsort(list->numbers, list->count, sizeof(int64), mako_numbers_compare);
}

/* The numbers as an array. */
NullableDatum
mako_numbers_array(const MakoNumbers *list)
{
	return mako_bigint_array(list->numbers, list->count);
}
