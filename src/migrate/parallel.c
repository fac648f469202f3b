/*
 * parallel.c
 *	  A pass in heap order whose streams are folded by workers (worker.c), while their leader
 *	  writes.
 *
 * The leader locks all heads first; then workers go, with a snapshot of after that, so they see the
 * heads that are locked. Each has a range of the streams, with as many heads as the others, reads
 * the part of the events that those of the range lie in, gathers, folds and migrates them, and
 * sends the states. The leader hands them to the writer, as if it had folded them itself.
 *
 * Whatever is out of the ordinary a worker does not judge. A stream that fails, or was not
 * complete, or of which there are more events than its head says, is left, and so is one that a
 * worker has not sent because it has ended early; the leader reads what is left in key order. So
 * results and errors are those of a pass without workers.
 */
#include "migrate/pass.h"

#include "access/table.h"
#include "access/xact.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

/* It takes so many streams to be worth a worker, which has to connect and to compile. */
#define STREAMS_OF_WORKER 5000

/* What becomes of a stream. */
typedef enum Outcome
{
	MOVES,
	STAYS,						/* it is not in flight */
	FAILS,						/* or the leader must look at it for another reason */
} Outcome;

/* A message, followed by the state and by the stream's id, where there are such. */
typedef struct Message
{
	int64		stream_no;
	int64		version;
	int64		sequence_number;
	int32		outcome;
	int32		source;
	ItemPointerData tid;
	bool		counts;
	bool		has_tenant;
	bool		has_process;
	pg_uuid_t	tenant_id;
	pg_uuid_t	process_id;
	Size		state_size;		/* 0 without one, like the next */
	Size		id_size;
} Message;

/* What a worker is told. */
typedef struct Task
{
	int			count;			/* of runs */
	Size		texts;			/* where source, target and fingerprint of each run are, as
								 * strings */
	bool		in_flight_only;
	bool		with_names;
	bool		has_tenant;
	pg_uuid_t	tenant_id;
	MakoRange	ranges[FLEXIBLE_ARRAY_MEMBER];	/* by worker; known when they may go */
} Task;

/* ---- a worker ------------------------------------------------------------------------------- */

/* A worker's part of a pass. */
typedef struct Part
{
	MakoPass   *pass;
	MakoWorker *worker;
	const MakoRange *range;
} Part;

/* Tells the leader of a stream. */
static void
tell(const Part *part, int64 stream_no, Outcome outcome)
{
	Message		message = {.stream_no = stream_no,.outcome = outcome};
	MakoPart	whole = {&message, sizeof(Message)};

	mako_worker_send(part->worker, &whole, 1);
}

/* Sends what becomes of a stream that moves. */
static void
send_move(const Part *part, const MakoStream *stream, const MakoMove *move)
{
	Message		message = {
		.stream_no = stream->stream_no,.version = stream->version,
		.sequence_number = move->sequence_number,.outcome = MOVES,.source = stream->source,
		.tid = stream->tid,.counts = move->counts
	};
	Jsonb	   *state = NULL;
	MakoPart	parts[3];

	if (move->new_state != (Datum) 0)
	{
		/* Toasted and expanded ones become flat. */
		state = DatumGetJsonbP(move->new_state);
		message.state_size = VARSIZE(state);
	}
	if (stream->stream_id != NULL)
		message.id_size = strlen(stream->stream_id) + 1;
	if (stream->tenant_id != NULL)
	{
		message.has_tenant = true;
		message.tenant_id = *stream->tenant_id;
	}
	if (stream->process_id != NULL)
	{
		message.has_process = true;
		message.process_id = *stream->process_id;
	}
	parts[0] = (MakoPart) { & message, sizeof(Message)};
	parts[1] = (MakoPart) {state, message.state_size};
	parts[2] = (MakoPart) {stream->stream_id, message.id_size};
	mako_worker_send(part->worker, parts, 3);
}

/* Takes a stream; see MakoBatch. */
static bool
fold_stream(void *argument, const MakoStream *stream, MakoReader *reader)
{
	const Part *part = argument;
	const MakoPass *pass = part->pass;
	MakoReplay *replay = pass->replays[stream->source];
	int64		rebuilt = replay->rebuilt;
	MakoMove	move;

	if (!mako_mover_take(&pass->runs[stream->source].mover, pass->folds[stream->source], replay,
						 stream, reader, &move))
		return false;
	if (replay->rebuilt > rebuilt)
		tell(part, stream->stream_no, FAILS);	/* the leader counts those */
	else if (move.moves)
		send_move(part, stream, &move);
	else
		tell(part, stream->stream_no, STAYS);
	return true;
}

/* Tells of a stream that failed; see MakoBatch. */
static void
leave_stream(void *argument, const MakoStream *stream, MakoPhase phase, int64 sequence_number,
			 const ErrorData *error)
{
	const Part *part = argument;

	tell(part, stream->stream_no, FAILS);
}

/* Leaves those of the current streams that have events beyond their heads. */
static void
leave_beyond(const Part *part)
{
	MakoPass   *pass = part->pass;
	int			beyond_count;
	const int64 *beyond = mako_stream_beyond(pass->streams, pass->stream_count, &beyond_count);
	int			count = 0;

	for (int i = 0, next = 0; i < pass->stream_count; i++)
	{
		if (next < beyond_count && beyond[next] == pass->streams[i].stream_no)
		{
			tell(part, beyond[next], FAILS);
			next++;
		}
		else
			pass->streams[count++] = pass->streams[i];
	}
	pass->stream_count = count;
}

/* Gives the next heads of the range to the scan, if there are any. */
static void
expect_heads(const Part *part)
{
	MakoPass   *pass = part->pass;
	MemoryContext old;

	MemoryContextReset(pass->batch_context);
	old = MemoryContextSwitchTo(pass->batch_context);
	pass->streams = palloc(sizeof(MakoStream) * mako_batch_size);
	do
	{
		pass->stream_count = mako_stream_fetch_heads(pass->heads, pass->sources, pass->count,
													 pass->streams, mako_batch_size);
		pass->heads_ended = pass->stream_count == 0;
		if (!pass->heads_ended)
			leave_beyond(part);
	} while (pass->stream_count == 0 && !pass->heads_ended);
	if (pass->stream_count > 0)
		mako_pass_load_states(pass);
	mako_heap_order_expect(pass->heap_order, pass->streams, pass->stream_count, pass->has_apply);
	MemoryContextSwitchTo(old);
}

/* Folds the streams that are complete. */
static void
fold_complete(Part *part)
{
	MakoPass   *pass = part->pass;
	MemoryContext old = MemoryContextSwitchTo(pass->batch_context);
	MakoBatch	batch = {
		.gathered = true,.folds = pass->folds,.replays = pass->replays,.sources = pass->count,
		.take = fold_stream,.fail = leave_stream,.argument = part
	};

	batch.streams = mako_heap_order_take(pass->heap_order, &batch.count);
	mako_batch_run(&batch);
	mako_heap_order_release(pass->heap_order);
	MemoryContextSwitchTo(old);
	MemoryContextReset(pass->batch_context);
}

/* Goes over the events, and folds the streams of the range. */
static void
fold_range(Part *part)
{
	MakoPass   *pass = part->pass;
	MakoHeapOrderNeed need;
	int			count;

	pass->heap_order = mako_heap_order_open(mako_heap_order_at_once(pass->count), part->range);
	while ((need = mako_heap_order_advance(pass->heap_order)) != MAKO_HEAP_ORDER_END)
	{
		if (need == MAKO_HEAP_ORDER_TAKE)
			fold_complete(part);
		else
			expect_heads(part);
	}
	(void) mako_heap_order_close(pass->heap_order, &count);
}

/* The pass of a task, with its definitions, which must be those of the leader. */
static MakoPass *
open_pass(const Task *task)
{
	MakoPass   *pass = palloc0(sizeof(MakoPass));
	const char *next = (const char *) task + task->texts;

	pass->count = task->count;
	pass->runs = palloc0(sizeof(MakoRun) * pass->count);
	pass->sources = palloc(sizeof(char *) * pass->count);
	pass->folds = palloc(sizeof(MakoFold *) * pass->count);
	pass->has_apply = palloc(sizeof(bool) * pass->count);
	pass->replays = palloc(sizeof(MakoReplay *) * pass->count);
	for (int i = 0; i < pass->count; i++)
	{
		const char *source_wf = next;
		const char *target_wf = source_wf + strlen(source_wf) + 1;
		const char *fingerprint = target_wf + strlen(target_wf) + 1;

		next = fingerprint + strlen(fingerprint) + 1;
		pass->sources[i] = source_wf;
		pass->runs[i].plan = mako_plan_create(source_wf, target_wf);
		mako_run_check_fingerprint(pass->runs[i].plan->fingerprint, fingerprint,
								   MAKO_CHANGED_DEFINITIONS);
		pass->runs[i].mover = mako_mover(pass->runs[i].plan, task->in_flight_only);
	}
	mako_pass_compile(pass);
	return pass;
}

/* What a worker does. */
static void
work(MakoWorker *worker)
{
	const Task *task = worker->task;
	MakoConnection connection = mako_sql_connect();
	Part		part = {.worker = worker,.range = &task->ranges[worker->number]};

	part.pass = open_pass(task);
	part.pass->heads = mako_stream_open_range(part.pass->sources, part.pass->count,
											  task->has_tenant ? &task->tenant_id : NULL,
											  task->with_names, part.range);
	fold_range(&part);
	mako_cursor_close(part.pass->heads);
	mako_sql_disconnect(connection);
}

PGDLLEXPORT void mako_migration_worker(Datum argument);

/* The main function of a worker. */
void
mako_migration_worker(Datum argument)
{
	mako_worker_main(argument, work);
}

/* ---- the leader ----------------------------------------------------------------------------- */

/* What the leader knows while workers fold. */
typedef struct Leader
{
	MakoPass   *pass;
	MakoSeen   *done;			/* streams of which there is nothing left to do */
	MakoNumbers failed;			/* not looked at yet */
	MakoNumbers left;
	MemoryContext context;		/* of these */
} Leader;

/*
 * Says why the caller's workers may not see what he sees: a policy may ask for what only his
 * session knows, and another extension may watch him. NULL where they may.
 */
static const char *
store_obstacle(void)
{
	static const char *const tables[] = {"stream", "event", "snapshot"};
	const char *obstacle = NULL;

	for (size_t i = 0; i < lengthof(tables) && obstacle == NULL; i++)
	{
		Relation	relation = table_open(mako_door_table(tables[i]), AccessShareLock);

		obstacle = mako_door_read_obstacle(relation, true);
		table_close(relation, NoLock);
	}
	return obstacle;
}

/*
 * How many workers may fold so many streams; 0, and why not, where there are none. That none is
 * wanted has its reason already.
 */
int
mako_parallel_workers(int wanted, int64 streams, MakoFold *const *folds, int count,
					  const char **why_not)
{
	if (wanted == 0)
		return 0;
	if (mako_door_is_attached())
	{
		*why_not = "the events are those of an attached event store";
		return 0;
	}
	if (mako_scan_order != MAKO_SCAN_HEAP)
		wanted = (int) Min((int64) wanted, streams / STREAMS_OF_WORKER);
	if (wanted < 1)
	{
		*why_not = psprintf("there are fewer than %d streams", STREAMS_OF_WORKER);
		return 0;
	}
	if ((*why_not = store_obstacle()) != NULL)
		return 0;
	for (int i = 0; i < count; i++)
		if ((*why_not = mako_fold_unsafe_function(folds[i])) != NULL)
			return 0;
	return wanted;
}

/* Adds a string with its end. */
static void
add_text(StringInfo out, const char *text)
{
	appendBinaryStringInfo(out, text, (int) strlen(text) + 1);
}

/* Starts the workers of a pass; NULL where none can be had. */
MakoWorkers *
mako_parallel_start(const MakoPass *pass)
{
	Size		texts = MAXALIGN(offsetof(Task, ranges) + sizeof(MakoRange) * pass->workers);
	Task	   *task = palloc0(texts);
	StringInfoData out;

	*task = (Task) {
		.count = pass->count,.texts = texts,.in_flight_only = pass->runs[0].mover.in_flight_only,
		.with_names = mako_writer_names_streams(pass->writer)
		};
	if (pass->tenant_id != NULL)
	{
		task->has_tenant = true;
		task->tenant_id = *pass->tenant_id;
	}
	initStringInfo(&out);
	appendBinaryStringInfo(&out, (const char *) task, (int) texts);
	for (int i = 0; i < pass->count; i++)
	{
		add_text(&out, pass->sources[i]);
		add_text(&out, pass->runs[i].request->target_wf);
		add_text(&out, pass->runs[i].plan->fingerprint);
	}
	return mako_workers_start("mako_migration_worker", pass->workers, out.data, out.len);
}

/* Looks at the streams that have failed itself, so that their errors are the pass's. */
static void
take_failed(Leader *leader)
{
	mako_numbers_sort(&leader->failed);
	for (int i = 0; i < leader->failed.count; i++)
		mako_seen_add(leader->done, leader->failed.numbers[i]);
	mako_pass_take_left(leader->pass, leader->failed.numbers, leader->failed.count);
	leader->failed.count = 0;
}

/* Returns true if the pass ends when those that have failed fail once more. */
static bool
has_too_many_failed(const Leader *leader)
{
	const MakoTally *tally = &leader->pass->tally;

	return tally->max_errors >= 0 && tally->failed + leader->failed.count > tally->max_errors;
}

/* Hands a result to the writer. */
static void
add_result(const MakoPass *pass, const Message *message)
{
	char	   *state = (char *) message + sizeof(Message);
	pg_uuid_t	tenant_id = message->tenant_id;
	pg_uuid_t	process_id = message->process_id;
	MakoStream	stream = {
		.stream_no = message->stream_no,.version = message->version,.source = message->source,
		.tid = message->tid,
		.stream_id = message->id_size == 0 ? NULL : state + message->state_size,
		.tenant_id = message->has_tenant ? &tenant_id : NULL,
		.process_id = message->has_process ? &process_id : NULL
	};

	mako_writer_add(pass->writer, &stream, message->sequence_number,
					message->state_size == 0 ? (Datum) 0 : PointerGetDatum(state),
					message->counts);
}

/*
 * Takes a message. A head that the cursor has not brought is not locked: it has come since. Where
 * a trigger has moved heads on, what was folded may not be what they say any more.
 */
static void
take_message(Leader *leader, const Message *message)
{
	MakoPass   *pass = leader->pass;

	if (!mako_seen_has(pass->seen, message->stream_no) ||
		(message->outcome != FAILS && mako_store_advances() != pass->advances))
		return;
	switch ((Outcome) message->outcome)
	{
		case FAILS:
			mako_numbers_add(&leader->failed, leader->context, message->stream_no);
			if (has_too_many_failed(leader))
				take_failed(leader);
			return;
		case MOVES:
			add_result(pass, message);
			break;
		case STAYS:
			break;
	}
	mako_seen_add(leader->done, message->stream_no);
	mako_progress_advance(pass->tally.failed);
}

/* Takes the results of the workers, and writes them. */
static void
take_results(Leader *leader, MakoWorkers *workers)
{
	const Message *message;
	Size		size;

	while ((message = mako_workers_receive(workers, &size)) != NULL)
	{
		take_message(leader, message);
		mako_pass_write(leader->pass);
	}
}

/* Takes what the workers have left, in key order. */
static void
take_left(Leader *leader)
{
	MakoPass   *pass = leader->pass;

	mako_seen_without(pass->seen, leader->done, &leader->left, leader->context);
	ereport(DEBUG1,
			(errmsg_internal("workers have folded " INT64_FORMAT " streams, %d are left",
							 mako_seen_count(leader->done), leader->left.count)));
	mako_pass_take_left(pass, leader->left.numbers, leader->left.count);
}

/* Notes that some more heads are locked, up to this number, and how many of all those are. */
void
mako_parallel_expect(MakoWorkers *workers, int64 last, double part)
{
	Task	   *task = mako_workers_task(workers);
	int			count = mako_workers_count(workers);

	for (int i = 0; i < count; i++)
		if (part * count <= i + 1)
			task->ranges[i].last = last;
}

/* Lets each range begin where the one before ends, so that there is no stream without a worker. */
static void
join_ranges(MakoWorkers *workers)
{
	Task	   *task = mako_workers_task(workers);
	int			count = mako_workers_count(workers);

	task->ranges[0].first = PG_INT64_MIN;
	for (int i = 1; i < count; i++)
		task->ranges[i].first = task->ranges[i - 1].last + 1;
	task->ranges[count - 1].last = PG_INT64_MAX;
}

/* Migrates all streams of a pass, whose heads are locked, with its workers. */
void
mako_parallel_migrate(MakoPass *pass, MakoWorkers *workers)
{
	Leader		leader = {
		.pass = pass,.done = mako_seen_create(),.context = CurrentMemoryContext
	};

	join_ranges(workers);
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	mako_workers_go(workers);
	PopActiveSnapshot();
	take_results(&leader, workers);
	mako_workers_end(workers);
	take_left(&leader);
}
