/*
 * proof_pass.c
 *	  What a run has left, proven in heap order: every event is read once.
 *
 * Most streams are as they should be. That is found out here. Nothing is said of the others: they
 * are left, and proven once more in key order, so that their rows come in the order of the streams
 * and say the same. What appends meanwhile is not in the active snapshot, though it may be in that
 * of the scan; such a stream is left, too.
 */
#include "inspect/proof.h"

#include "utils/memutils.h"
#include "utils/snapmgr.h"

/* A proof in heap order on its way. */
typedef struct ProofPass
{
	MakoProof  *proof;
	MakoCursor *moved;			/* heads of the streams that the run has moved */
	MakoHeapOrder *heap_order;
	MemoryContext context;		/* of the next two, and of the numbers that are left */
	MemoryContext heads_context;
	List	   *workflows;		/* that heads are under */
	MakoNumbers left;
} ProofPass;

/* Returns true if it is better to prove a run in heap order. */
bool
mako_proof_is_for_heap_order(const MakoProof *proof)
{
	const char *why = "without an apply function, no event is read";
	bool		heap = proof->fold->apply != NULL &&
		mako_heap_order_is_better(mako_matches_repeat(NULL, false), proof->run->migrated, &why);

	ereport(DEBUG1,
			(errmsg_internal("reading events in %s order: %s", heap ? "heap" : "key", why)));
	return heap;
}

/* Leaves a stream. */
static void
leave(ProofPass *pass, int64 stream_no)
{
	mako_numbers_add(&pass->left, pass->context, stream_no);
}

/* Leaves a stream of which there is something to say; a MakoRowSender. */
static void
leave_for_row(void *argument, int64 stream_no, MinimalTuple row)
{
	leave(argument, stream_no);
}

/* A workflow that a head is under, kept as long as the proof. */
static const char *
keep_workflow(ProofPass *pass, const char *workflow_id)
{
	MemoryContext old;
	ListCell   *cell;

	foreach(cell, pass->workflows)
		if (strcmp(lfirst(cell), workflow_id) == 0)
			return lfirst(cell);
	old = MemoryContextSwitchTo(pass->context);
	pass->workflows = lappend(pass->workflows, pstrdup(workflow_id));
	MemoryContextSwitchTo(old);
	return llast(pass->workflows);
}

/* Gives the next heads to the scan. */
static void
expect_heads(ProofPass *pass)
{
	static const bool has_apply[] = {true};
	MemoryContext old;
	MakoRows	rows;
	MakoStream *streams;
	int			count = 0;

	MemoryContextReset(pass->heads_context);
	old = MemoryContextSwitchTo(pass->heads_context);
	rows = mako_cursor_fetch(pass->moved, mako_batch_size);
	streams = palloc(sizeof(MakoStream) * (rows.count + 1));
	for (uint64 row = 0; row < rows.count; row++)
	{
		streams[count] = mako_proof_head(&rows, row);
		if (streams[count].stream_id == NULL)
		{
			leave(pass, streams[count].stream_no);
			continue;
		}
		streams[count].workflow_id = keep_workflow(pass, streams[count].workflow_id);
		count++;
	}
	/* A batch without any head is not the end. */
	if (count > 0 || rows.count == 0)
		mako_heap_order_expect(pass->heap_order, streams, count, has_apply);
	mako_rows_free(&rows);
	MemoryContextSwitchTo(old);
}

/* Proves the streams that are complete. */
static void
prove_complete(const ProofPass *pass)
{
	int			count;
	MakoStream *streams = mako_heap_order_take(pass->heap_order, &count);

	if (count > 0)
		mako_proof_take(pass->proof, streams, count, true);
	mako_heap_order_release(pass->heap_order);
}

/* Leaves what the scan has not brought in whole, or brought more of. */
static void
leave_unread(ProofPass *pass)
{
	int			count;
	const int64 *stream_nos;

	PushActiveSnapshot(GetTransactionSnapshot());
	stream_nos = mako_heap_order_doubtful(pass->heap_order, &count);
	PopActiveSnapshot();
	for (int i = 0; i < count; i++)
		leave(pass, stream_nos[i]);
	stream_nos = mako_heap_order_close(pass->heap_order, &count);
	for (int i = 0; i < count; i++)
		leave(pass, stream_nos[i]);
}

/*
 * Proves the streams of a cursor, rows of a function, in heap order. Returns the numbers of those
 * that are left, in their order, each once, in the current memory context.
 */
MakoNumbers
mako_proof_in_heap_order(MakoProof *proof, MakoCursor *moved, Oid function)
{
	ProofPass	pass = {.proof = proof,.moved = moved,.context = CurrentMemoryContext};
	MakoRowSet *rows = proof->rows;
	MakoHeapOrderNeed need;
	int			count = 0;

	pass.heads_context = AllocSetContextCreate(pass.context, "mako heads",
											   ALLOCSET_DEFAULT_SIZES);
	proof->rows = mako_rowset_begin_sending(function, leave_for_row, &pass);
	mako_stream_rehearse();
	pass.heap_order = mako_heap_order_open(mako_batch_size, NULL);
	while ((need = mako_heap_order_advance(pass.heap_order)) != MAKO_HEAP_ORDER_END)
		if (need == MAKO_HEAP_ORDER_HEADS)
			expect_heads(&pass);
		else
			prove_complete(&pass);
	leave_unread(&pass);
	mako_cursor_close(moved);
	MemoryContextDelete(pass.heads_context);
	proof->rows = rows;

	mako_numbers_sort(&pass.left);
	for (int i = 0; i < pass.left.count; i++)
		if (count == 0 || pass.left.numbers[count - 1] != pass.left.numbers[i])
			pass.left.numbers[count++] = pass.left.numbers[i];
	pass.left.count = count;
	return pass.left;
}
