/*
 * shared_rows.c
 *	  The rows of a function that takes streams one after the other in their order, made by workers
 *	  (worker.c), each of which takes a share of the streams.
 *
 * A worker sends its rows with the number of the stream that they are about. The leader merges
 * them, so they come as if one process had made them; they are not kept in between, a worker that
 * is ahead waits. All is read with one snapshot, the leader's. A worker that ends early has the
 * call begin anew without any: nothing has been written.
 */
#include "inspect/inspect.h"

#include "access/htup_details.h"
#include "utils/snapmgr.h"

/* The head of a message, followed by the row as the server keeps one in memory. */
typedef struct Message
{
	int64		stream_no;
	int64		rebuilt;		/* at the end: streams whose migration snapshot is missing */
	bool		is_end;
} Message;

/* What a worker is told; followed by the caller's part. */
typedef struct Task
{
	Oid			function;		/* whose rows they are */
	int			size;			/* of the caller's part */
} Task;

/* ---- a worker ------------------------------------------------------------------------------- */

/* Sends a row to the leader. */
static void
send_row(void *argument, int64 stream_no, MinimalTuple row)
{
	Message		message = {.stream_no = stream_no};
	MakoPart	parts[] = {{&message, sizeof(Message)}, {row, row->t_len}};

	mako_worker_send(argument, parts, lengthof(parts));
}

/* Takes the streams of a share, which sends its rows, and ends. */
void
mako_shared_rows_work(MakoWorker *worker, MakoSharedWork work)
{
	const Task *task = worker->task;
	MakoShare	share = {worker->number, worker->count};
	MakoConnection connection = mako_sql_connect();
	MakoRowSet *rows = mako_rowset_begin_sending(task->function, send_row, worker);
	Message		end = {.is_end = true};
	MakoPart	whole = {&end, sizeof(Message)};

	end.rebuilt = work((const char *) task + MAXALIGN(sizeof(Task)), &share, rows);
	mako_worker_send(worker, &whole, 1);
	mako_sql_disconnect(connection);
}

/* ---- the leader ----------------------------------------------------------------------------- */

/*
 * Adds the rows of all workers, in the order of their streams, and what they have rebuilt; false if
 * one has ended early.
 */
static bool
merge(MakoWorkers *workers, MakoRowSet *rows, int64 *rebuilt)
{
	int			count = mako_workers_count(workers);
	const Message **next = palloc(sizeof(Message *) * count);
	bool		is_whole = true;
	Size		size;

	for (int i = 0; i < count; i++)
	{
		next[i] = mako_workers_receive_from(workers, i, &size);
		is_whole = is_whole && next[i] != NULL;
	}
	while (is_whole)
	{
		int			first = -1;

		for (int i = 0; i < count; i++)
			if (!next[i]->is_end && (first < 0 || next[i]->stream_no < next[first]->stream_no))
				first = i;
		if (first < 0)
			break;
		CHECK_FOR_INTERRUPTS();
		mako_rowset_add_tuple(rows, (MinimalTuple) unconstify(Message *, next[first] + 1));
		next[first] = mako_workers_receive_from(workers, first, &size);
		is_whole = next[first] != NULL;
	}
	for (int i = 0; is_whole && i < count; i++)
		*rebuilt += next[i]->rebuilt;
	pfree(next);
	return is_whole;
}

/*
 * Lets so many workers make the rows of a function; entry is their main function, which calls
 * mako_shared_rows_work(). Returns how many streams they have rebuilt; or -1 where no worker can
 * be had or one has ended early, without any row.
 */
int64
mako_shared_rows(const char *entry, int workers, Oid function, const void *given, int size,
				 MakoRowSet *rows)
{
	Size		begin = MAXALIGN(sizeof(Task));
	Task	   *task = palloc0(begin + size);
	MakoWorkers *started;
	int64		rebuilt = 0;
	bool		is_whole;

	*task = (Task) {function, size};
	memcpy((char *) task + begin, given, size);
	started = workers == 0 ? NULL : mako_workers_start(entry, workers, task, begin + size);
	if (started == NULL)
	{
		mako_rowset_clear(rows);
		return -1;
	}
	mako_workers_go(started);
	is_whole = merge(started, rows, &rebuilt);
	if (is_whole)
		mako_workers_wait(started);
	else
		mako_rowset_clear(rows);
	mako_workers_end(started);
	return is_whole ? rebuilt : -1;
}
