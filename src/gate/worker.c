/*
 * worker.c
 *	  Workers: other processes that read and compute for the transaction of this one.
 *
 * A worker is a background worker, and sees what its leader sees: it is connected as the role that
 * has logged in, acts as the role that the leader acts as, with the leader's settings, and reads
 * with the snapshot that the leader had when it let it go. It writes nothing. The server's own
 * parallel mode is not enough: in it no leader may write, and no worker may let one stream fail by
 * itself, which takes a subtransaction. So what the leader has changed in its transaction before
 * is not there for a worker, and there are none where it has changed something. Of what a run
 * itself has written by then, only its own row, a worker sees nothing either.
 *
 * Leader and workers are one group for the lock manager, as those of a parallel query are: they do
 * not wait for each other's locks, and a deadlock of one with others is one of all.
 *
 * A worker sends messages to its leader through a queue, and waits where that is full. What it or
 * the code of others in it reports, notices and the like, goes through another one to the leader's
 * client. A worker that ends early, or has not started at all because there is no place for it,
 * sends no more: the leader has to do what has not been done. When the leader's transaction (or
 * subtransaction) ends, or its process, so do the workers.
 *
 * All that they share lies in one segment of dynamic shared memory: a head, the leader's settings
 * and snapshot, the task, and two queues for each worker.
 */
#include "gate/gate.h"

#include "access/parallel.h"
#include "access/xact.h"
#include "libpq/pqformat.h"
#include "libpq/pqmq.h"
#include "mb/pg_wchar.h"
#include "optimizer/cost.h"
#include "optimizer/planner.h"
#include "pgstat.h"
#include "port/atomics.h"
#include "postmaster/bgworker.h"
#include "storage/condition_variable.h"
#include "storage/dsm.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/shm_mq.h"
#include "tcop/tcopprot.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

/* A library of another version, put in place meanwhile, knows another layout. */
#define LAYOUT 2

/* Bytes of a queue: so many states may wait for a leader that writes. */
#define QUEUE_SIZE ((Size) 4 * 1024 * 1024)

/* ... and of one for reports, as parallel queries have it. */
#define REPORT_QUEUE_SIZE ((Size) 16 * 1024)

/* The head of the segment, whose other parts are told by where they begin. */
typedef struct Shared
{
	int			layout;
	pg_atomic_uint32 count;		/* of workers; 0 until they may go, */
	ConditionVariable go;		/* which they wait for */
	Oid			database;
	Oid			authenticated;	/* role that has logged in */
	Oid			role;			/* of SET ROLE; InvalidOid without */
	Oid			user;			/* current one */
	int			security;
	PGPROC	   *leader;
	int			leader_pid;
	TimestampTz transaction_started;	/* as functions are told, like the next one */
	TimestampTz statement_started;
	Size		settings;
	Size		snapshot;
	Size		task;
	Size		queues;
} Shared;

/* The workers of a leader; lives as long as its transaction. */
struct MakoWorkers
{
	dsm_segment *segment;
	int			count;			/* that have been started */
	int			open;			/* whose queues may bring more */
	int			next;			/* whose queue is asked next */
	BackgroundWorkerHandle **handles;
	shm_mq_handle **queues;		/* NULL where one is at its end */
	shm_mq_handle **reports;	/* the same */
};

/* How many messages of one worker are taken before those of the next. */
#define MESSAGES_AT_ONCE 64

/* ---- can it be done ------------------------------------------------------------------------- */

/*
 * How many workers the caller may have, if there is work for so many; 0 where the current
 * transaction cannot have any, and why. To be asked before the transaction writes.
 */
int
mako_workers_wanted(const char **why_not)
{
	int			count = mako_max_workers >= 0 ? mako_max_workers : max_parallel_workers_per_gather;

	if (count == 0)
		*why_not = mako_max_workers >= 0 ? "mako_migration.max_workers is 0" :
			"max_parallel_workers_per_gather is 0";
	else if (TransactionIdIsValid(GetTopTransactionIdIfAny()))
		*why_not = "the transaction has changed something already";
	else if (IsolationIsSerializable())
		*why_not = "the transaction is serializable";
	else if (IsInParallelMode())
		*why_not = "the call is part of a parallel query";
	else if (MyProc->lockGroupLeader != NULL && MyProc->lockGroupLeader != MyProc)
		*why_not = "the call is part of what a worker does";
	else if (GetSessionUserId() != GetAuthenticatedUserId())
		*why_not = "SET SESSION AUTHORIZATION is in effect";
	else
		return count;
	return 0;
}

/* ---- the leader ----------------------------------------------------------------------------- */

/* The place of a worker's queue. */
static void *
queue_place(Shared *shared, int worker)
{
	return (char *) shared + shared->queues + (QUEUE_SIZE + REPORT_QUEUE_SIZE) * worker;
}

/* The place of the one for its reports. */
static void *
report_place(Shared *shared, int worker)
{
	return (char *) queue_place(shared, worker) + QUEUE_SIZE;
}

/*
 * Ends the workers, whether they have come to their end or the leader's transaction has, and waits
 * for that; called when the segment goes.
 */
static void
end_workers(dsm_segment *segment, Datum argument)
{
	MakoWorkers *workers = (MakoWorkers *) DatumGetPointer(argument);

	for (int i = 0; i < workers->count; i++)
		TerminateBackgroundWorker(workers->handles[i]);
	HOLD_INTERRUPTS();
	for (int i = 0; i < workers->count; i++)
		(void) WaitForBackgroundWorkerShutdown(workers->handles[i]);
	RESUME_INTERRUPTS();
}

/*
 * A copy of a snapshot of this transaction for processes that are not in it. To them, what the
 * transaction has changed and will change is under way. Which of its subtransactions that is they
 * are to look up.
 */
static SnapshotData
snapshot_for_others(Snapshot snapshot)
{
	SnapshotData copy = *snapshot;
	TransactionId own = GetTopTransactionIdIfAny();

	if (!TransactionIdIsValid(own))
		return copy;
	copy.xip = palloc(sizeof(TransactionId) * (snapshot->xcnt + 1));
	if (snapshot->xcnt > 0)
		memcpy(copy.xip, snapshot->xip, sizeof(TransactionId) * snapshot->xcnt);
	copy.xip[copy.xcnt++] = own;
	copy.suboverflowed = true;
	return copy;
}

/* The size of the largest snapshot that there can be. */
static Size
most_snapshot_space(void)
{
	SnapshotData largest = {
		.snapshot_type = SNAPSHOT_MVCC,.xcnt = GetMaxSnapshotXidCount() + 1,
		.subxcnt = GetMaxSnapshotSubxidCount()
	};

	return EstimateSnapshotSpace(&largest);
}

/* Makes the segment; NULL where the server can have no more of them. */
static dsm_segment *
create_segment(int count, const void *task, Size size)
{
	Size		settings_size = EstimateGUCStateSpace();
	Size		settings = MAXALIGN(sizeof(Shared));
	Size		snapshot_place = settings + MAXALIGN(settings_size);
	Size		task_place = snapshot_place + MAXALIGN(most_snapshot_space());
	Size		queues = task_place + MAXALIGN(size);
	dsm_segment *segment = dsm_create(queues + (QUEUE_SIZE + REPORT_QUEUE_SIZE) * count,
									  DSM_CREATE_NULL_IF_MAXSEGMENTS);
	Shared	   *shared;

	if (segment == NULL)
		return NULL;
	shared = dsm_segment_address(segment);
	*shared = (Shared) {
		.layout = LAYOUT,.database = MyDatabaseId,
		.authenticated = GetAuthenticatedUserId(),.role = GetCurrentRoleId(),.leader = MyProc,
		.leader_pid = MyProcPid,
		.transaction_started = GetCurrentTransactionStartTimestamp(),
		.statement_started = GetCurrentStatementStartTimestamp(),
		.settings = settings,.snapshot = snapshot_place,.task = task_place,.queues = queues
		};
	pg_atomic_init_u32(&shared->count, 0);
	ConditionVariableInit(&shared->go);
	GetUserIdAndSecContext(&shared->user, &shared->security);
	SerializeGUCState(settings_size, (char *) shared + settings);
	memcpy((char *) shared + task_place, task, size);
	return segment;
}

/* Starts one worker; false where there is no place for it. */
static bool
start_worker(MakoWorkers *workers, const char *entry, int number)
{
	Shared	   *shared = dsm_segment_address(workers->segment);
	shm_mq	   *queue = shm_mq_create(queue_place(shared, number), QUEUE_SIZE);
	shm_mq	   *reports = shm_mq_create(report_place(shared, number), REPORT_QUEUE_SIZE);
	BackgroundWorker worker = {
		.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION,
		.bgw_start_time = BgWorkerStart_ConsistentState,.bgw_restart_time = BGW_NEVER_RESTART,
		.bgw_main_arg = UInt32GetDatum(dsm_segment_handle(workers->segment)),
		.bgw_notify_pid = MyProcPid
	};

	snprintf(worker.bgw_name, BGW_MAXLEN, "mako_migration worker for PID %d", MyProcPid);
	snprintf(worker.bgw_type, BGW_MAXLEN, "mako_migration worker");
	snprintf(worker.bgw_library_name, sizeof(worker.bgw_library_name), "mako_migration");
	snprintf(worker.bgw_function_name, BGW_MAXLEN, "%s", entry);
	memcpy(worker.bgw_extra, &number, sizeof(number));
	shm_mq_set_receiver(queue, MyProc);
	shm_mq_set_receiver(reports, MyProc);
	if (!RegisterDynamicBackgroundWorker(&worker, &workers->handles[number]))
		return false;
	workers->queues[number] = shm_mq_attach(queue, workers->segment, workers->handles[number]);
	workers->reports[number] = shm_mq_attach(reports, workers->segment, workers->handles[number]);
	return true;
}

/*
 * Starts so many workers for a task, as many as there are places for; NULL where there is none.
 * Each calls the function of that name, which the library exports and which calls
 * mako_worker_main(). They get ready, and wait until they may go.
 */
MakoWorkers *
mako_workers_start(const char *entry, int count, const void *task, Size size)
{
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);
	MakoWorkers *workers = palloc0(sizeof(MakoWorkers));

	count = Min(count, max_worker_processes);
	workers->handles = palloc0(sizeof(BackgroundWorkerHandle *) * count);
	workers->queues = palloc0(sizeof(shm_mq_handle *) * count);
	workers->reports = palloc0(sizeof(shm_mq_handle *) * count);
	BecomeLockGroupLeader();
	workers->segment = create_segment(count, task, size);
	if (workers->segment == NULL)
	{
		MemoryContextSwitchTo(old);
		return NULL;
	}
	on_dsm_detach(workers->segment, end_workers, PointerGetDatum(workers));
	while (workers->count < count && start_worker(workers, entry, workers->count))
		workers->count++;
	workers->open = workers->count;
	MemoryContextSwitchTo(old);
	ereport(DEBUG1,
			(errmsg_internal("started %d of %d workers", workers->count, count)));
	if (workers->count > 0)
		return workers;
	mako_workers_end(workers);
	return NULL;
}

/* What the workers have been given, which can be changed until they may go. */
void *
mako_workers_task(const MakoWorkers *workers)
{
	Shared	   *shared = dsm_segment_address(workers->segment);

	return (char *) shared + shared->task;
}

/* Lets the workers go, which read with the active snapshot. */
void
mako_workers_go(MakoWorkers *workers)
{
	Shared	   *shared = dsm_segment_address(workers->segment);
	SnapshotData snapshot = snapshot_for_others(GetActiveSnapshot());

	SerializeSnapshot(&snapshot, (char *) shared + shared->snapshot);
	pg_write_barrier();
	pg_atomic_write_u32(&shared->count, workers->count);
	ConditionVariableBroadcast(&shared->go);
}

/* How many have been started. */
int
mako_workers_count(const MakoWorkers *workers)
{
	return workers->count;
}

/*
 * Passes on what a worker has reported; why it has ended early is for whoever looks for it: the
 * leader does its work, and meets the same.
 */
static void
pass_on(const void *report, Size size)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "mako report",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	StringInfoData message;
	ErrorData	data;
	char		kind;

	initStringInfo(&message);
	appendBinaryStringInfo(&message, report, (int) size);
	kind = pq_getmsgbyte(&message);
	if (kind == 'N' || kind == 'E')
	{
		pq_parse_errornotice(&message, &data);
		if (kind == 'N')
			ThrowErrorData(&data);
		else
			ereport(DEBUG1,
					(errmsg_internal("a worker has ended early: %s", data.message)));
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

/* Passes on what the workers have reported; true if that was anything. */
static bool
take_reports(MakoWorkers *workers)
{
	bool		taken = false;

	for (int i = 0; i < workers->count; i++)
	{
		shm_mq_result result = SHM_MQ_SUCCESS;

		while (workers->reports[i] != NULL && result == SHM_MQ_SUCCESS)
		{
			Size		size;
			void	   *report;

			result = shm_mq_receive(workers->reports[i], &size, &report, true);
			if (result == SHM_MQ_SUCCESS)
			{
				pass_on(report, size);
				taken = true;
			}
			else if (result == SHM_MQ_DETACHED)
			{
				shm_mq_detach(workers->reports[i]);
				workers->reports[i] = NULL;
			}
		}
	}
	return taken;
}

/* Takes a message of one worker, if there is one; notes where it sends no more. */
static const void *
try_receive(MakoWorkers *workers, int worker, Size *size)
{
	void	   *message = NULL;

	if (workers->queues[worker] == NULL)
		return NULL;
	switch (shm_mq_receive(workers->queues[worker], size, &message, true))
	{
		case SHM_MQ_SUCCESS:
			return message;
		case SHM_MQ_WOULD_BLOCK:
			return NULL;
		case SHM_MQ_DETACHED:
			break;
	}
	shm_mq_detach(workers->queues[worker]);
	workers->queues[worker] = NULL;
	workers->open--;
	return NULL;
}

/*
 * Waits until some worker has sent something, or has ended. A report that is passed on may wait for
 * the client, and take the latch that said so: after one, the caller looks again first.
 */
static void
wait_for_message(MakoWorkers *workers)
{
	CHECK_FOR_INTERRUPTS();
	if (take_reports(workers))
		return;
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH, 0, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/*
 * The next message of whichever worker, waiting for it; NULL when all of them have ended. It lasts
 * until the next call.
 */
const void *
mako_workers_receive(MakoWorkers *workers, Size *size)
{
	while (workers->open > 0)
	{
		for (int i = 0; i < workers->count; i++)
		{
			int			worker = workers->next / MESSAGES_AT_ONCE % workers->count;
			const void *message = try_receive(workers, worker, size);

			if (message != NULL)
			{
				workers->next++;
				return message;
			}
			workers->next = (worker + 1) % workers->count * MESSAGES_AT_ONCE;
		}
		if (workers->open > 0)
			wait_for_message(workers);
	}
	(void) take_reports(workers);
	return NULL;
}

/* The next message of one worker, waiting for it; NULL when that has ended. */
const void *
mako_workers_receive_from(MakoWorkers *workers, int worker, Size *size)
{
	const void *message;

	while ((message = try_receive(workers, worker, size)) == NULL &&
		   workers->queues[worker] != NULL)
		wait_for_message(workers);
	if (message == NULL)
		(void) take_reports(workers);
	return message;
}

/* Waits for the workers, which have sent all that was wanted, to come to their end. */
void
mako_workers_wait(MakoWorkers *workers)
{
	Size		size;

	while (mako_workers_receive(workers, &size) != NULL)
		;
}

/* Ends the workers, those too that are not done. */
void
mako_workers_end(MakoWorkers *workers)
{
	dsm_detach(workers->segment);
}

/* ---- a worker ------------------------------------------------------------------------------- */

/* Sends a message of some parts to the leader; where that has gone, the worker ends. */
void
mako_worker_send(MakoWorker *worker, const MakoPart *parts, int count)
{
	shm_mq_iovec vector[MAKO_MOST_PARTS];

	for (int i = 0; i < count; i++)
		vector[i] = (shm_mq_iovec) {parts[i].data, parts[i].size};
	if (MakoQueueSend(worker->queue, vector, count) != SHM_MQ_SUCCESS)
		proc_exit(0);
}

/* Ends a wait while the segment, in which the condition variable lies, is still there. */
static void
cancel_wait(int code, Datum argument)
{
	ConditionVariableCancelSleep();
}

/* Waits until the leader lets the workers go; returns how many they are. */
static int
wait_to_go(Shared *shared)
{
	uint32		count;

	before_shmem_exit(cancel_wait, (Datum) 0);
	while ((count = pg_atomic_read_u32(&shared->count)) == 0)
		ConditionVariableSleep(&shared->go, PG_WAIT_EXTENSION);
	ConditionVariableCancelSleep();
	pg_read_barrier();
	return (int) count;
}

/* Takes the leader's settings, but reports in the encoding of the database, as he expects it. */
static void
take_settings(Shared *shared)
{
	StartTransactionCommand();
	/* The hooks of some settings are less strict then. */
	InitializingParallelWorker = true;
	RestoreGUCState((char *) shared + shared->settings);
	InitializingParallelWorker = false;
	SetClientEncoding(GetDatabaseEncoding());
	CommitTransactionCommand();
}

static planner_hook_type next_planner = NULL;

/*
 * Plans a statement of a function without parallel workers: whoever leads a group for the lock
 * manager must not be in another one.
 */
static PlannedStmt *
plan_alone(Query *query, const char *text, int options, ParamListInfo parameters)
{
	planner_hook_type planner = next_planner != NULL ? next_planner : standard_planner;

	return planner(query, text, options & ~CURSOR_OPT_PARALLEL_OK, parameters);
}

/*
 * Begins a transaction that sees what the leader sees, as the role that it acts as, at the time
 * that it is there.
 */
static void
begin_transaction(Shared *shared)
{
	Snapshot	snapshot;

	next_planner = planner_hook;
	planner_hook = plan_alone;
	StartTransactionCommand();
	/* The server takes these from what it knows as a parallel worker only. */
	ParallelWorkerNumber = 0;
	SetParallelStartTimestamps(shared->transaction_started, shared->statement_started);
	ParallelWorkerNumber = -1;
	XactIsoLevel = XACT_REPEATABLE_READ;
	XactReadOnly = true;
	snapshot = RestoreSnapshot((char *) shared + shared->snapshot);
	RestoreTransactionSnapshot(snapshot, shared->leader);
	PushActiveSnapshot(snapshot);
	SetCurrentRoleId(shared->role, OidIsValid(shared->role) && superuser_arg(shared->role));
	mako_gate_join(shared->user, shared->security);
}

static bool is_worker = false;

/* Returns true in a worker. */
bool
mako_worker_is_one(void)
{
	return is_worker;
}

/* Ends a worker, which may not do what there is to do: the leader does it. */
void
mako_worker_give_up(const char *why)
{
	ereport(DEBUG1,
			(errmsg_internal("a worker gives up: %s", why)));
	proc_exit(0);
}

/* The main function of all workers, which do their work in a transaction. */
void
mako_worker_main(Datum argument, void (*work) (MakoWorker *worker))
{
	dsm_segment *segment;
	Shared	   *shared;
	MakoWorker	worker;
	shm_mq	   *queue;
	shm_mq	   *reports;

	is_worker = true;
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	CurrentResourceOwner = ResourceOwnerCreate(NULL, "mako worker");
	segment = dsm_attach(DatumGetUInt32(argument));
	if (segment == NULL)
		return;					/* the leader has gone */
	dsm_pin_mapping(segment);
	shared = dsm_segment_address(segment);
	if (shared->layout != LAYOUT)
		return;
	memcpy(&worker.number, MyBgworkerEntry->bgw_extra, sizeof(worker.number));
	worker.task = (char *) shared + shared->task;
	queue = queue_place(shared, worker.number);
	shm_mq_set_sender(queue, MyProc);
	worker.queue = shm_mq_attach(queue, segment, NULL);
	reports = report_place(shared, worker.number);
	shm_mq_set_sender(reports, MyProc);
	pq_redirect_to_shm_mq(segment, shm_mq_attach(reports, segment, NULL));
	if (!BecomeLockGroupMember(shared->leader, shared->leader_pid))
		return;
	BackgroundWorkerInitializeConnectionByOid(shared->database, shared->authenticated, 0);
	take_settings(shared);
	worker.count = wait_to_go(shared);
	begin_transaction(shared);
	pgstat_report_activity(STATE_RUNNING, psprintf("mako_migration worker for PID %d",
												   shared->leader_pid));
	work(&worker);
	/* Nothing of it stays, whatever a function has tried. */
	AbortCurrentTransaction();
	pgstat_report_activity(STATE_IDLE, NULL);
	shm_mq_detach(worker.queue);
}
