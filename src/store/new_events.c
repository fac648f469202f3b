/*
 * new_events.c
 *	  Events that continue their streams: checked against the heads, which advance.
 *
 * Rows come from a trigger, of mako.event (triggers.c) or of the table of an attached event store
 * (attached.c). Like referential integrity, heads are read and written as their owner; errors tell
 * the role that inserts nothing that it may not know.
 */
#include "store/new_events.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rls.h"

/*
 * Heads that one statement locks and advances. One head alone, the everyday case, has statements
 * whose plan can be kept; for many, the range lets the planner read a dense chunk in one index
 * scan.
 */
#define HEADS_AT_ONCE 1000

#define LOCK_HEAD \
	"SELECT s.stream_no, s.stream_id, s.workflow_id, s.version, s.ctid FROM mako.stream s" \
	" WHERE s.stream_no OPERATOR(pg_catalog.=) $1 FOR NO KEY UPDATE"

static MakoStatement lock_head = {LOCK_HEAD, 1, {INT8OID}};
static MakoStatement lock_head_at_once = {LOCK_HEAD " NOWAIT", 1, {INT8OID}};

#define LOCK_HEADS \
	"SELECT s.stream_no, s.stream_id, s.workflow_id, s.version" \
	" FROM pg_catalog.unnest($1) AS u (stream_no)" \
	" JOIN mako.stream s ON s.stream_no OPERATOR(pg_catalog.=) u.stream_no" \
	" WHERE s.stream_no OPERATOR(pg_catalog.>=) $3 AND s.stream_no OPERATOR(pg_catalog.<=) $4" \
	" ORDER BY s.stream_no FOR NO KEY UPDATE OF s"
#define LOCK_HEADS_TYPES 4, {INT8ARRAYOID, INT8ARRAYOID, INT8OID, INT8OID}, true

static MakoStatement lock_heads = {LOCK_HEADS, LOCK_HEADS_TYPES};
static MakoStatement lock_heads_at_once = {LOCK_HEADS " NOWAIT", LOCK_HEADS_TYPES};

static MakoStatement advance_head = {
	"UPDATE mako.stream AS s SET version = $2 WHERE s.stream_no OPERATOR(pg_catalog.=) $1",
	2, {INT8OID, INT8OID},
	.may_defer = true
};

static MakoStatement advance_heads = {
	"UPDATE mako.stream AS s SET version = u.version"
	" FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS u (stream_no, version)"
	" WHERE s.stream_no OPERATOR(pg_catalog.=) u.stream_no"
	" AND s.stream_no OPERATOR(pg_catalog.>=) $3 AND s.stream_no OPERATOR(pg_catalog.<=) $4",
	4, {INT8ARRAYOID, INT8ARRAYOID, INT8OID, INT8OID}, true,.may_defer = true
};

/* The run that brought a stream to the workflow that it runs under. */
static MakoStatement select_last_run = {
	"SELECT pg_catalog.max(m.run_id)"
	" FROM (SELECT n.run_id FROM mako.snapshot n"
	"   WHERE n.stream_no OPERATOR(pg_catalog.=) $1"
	"   UNION ALL SELECT p.run_id FROM mako.repointed p"
	"   WHERE p.stream_no OPERATOR(pg_catalog.=) $1"
	"   UNION ALL SELECT u.reverted_by FROM mako.reverted u"
	"   WHERE u.stream_no OPERATOR(pg_catalog.=) $1) m (run_id)"
	" JOIN mako.migration_run r ON r.run_id OPERATOR(pg_catalog.=) m.run_id"
	" WHERE r.update_registry AND r.target_wf OPERATOR(pg_catalog.=) $2",
	2, {INT8OID, TEXTOID}
};

/* How often this session has advanced heads. */
static uint64 advances = 0;

/*
 * A head that this session has locked for the current INSERT, together with its version: the
 * trigger need not do it again.
 */
static const MakoHead *held = NULL;

/* A number that changes whenever this session advances heads. */
uint64
mako_store_advances(void)
{
	return advances;
}

/*
 * Inserts events of a stream whose version and head are locked; returns how many. The trigger
 * checks them against this head.
 */
uint64
mako_store_append(MakoStatement *statement, const NullableDatum *values, const MakoHead *head)
{
	uint64		written = 0;

	held = head;
	PG_TRY();
	{
		written = mako_sql_execute(statement, values);
		if (written > 0 && held == head)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("the trigger \"event_inserted\" of table \"mako.event\" did not fire"),
					 errdetail("The head of stream \"%s\" would not advance.", head->stream_id),
					 SessionReplicationRole == SESSION_REPLICATION_ROLE_REPLICA ?
					 errhint("Reset the setting session_replication_role.") :
					 errhint("Enable it, or repair the store with SELECT mako_create_store().")));
	}
	PG_FINALLY();
	{
		held = NULL;
	}
	PG_END_TRY();
	return written;
}

/*
 * The versions that rows name, or that unstamped names for those that name none: the workflow ids
 * of one row each.
 */
List *
mako_new_rows_versions(const MakoNewRow *rows, int64 count, const char *unstamped)
{
	List	   *versions = NIL;
	const char *last = NULL;

	for (int64 i = 0; i < count; i++)
	{
		const char *workflow_id = rows[i].workflow_id != NULL ? rows[i].workflow_id : unstamped;
		bool		known = workflow_id == last;
		ListCell   *cell;

		CHECK_FOR_INTERRUPTS();
		foreach(cell, versions)
			known = known || strcmp(mako_workflow_id_version(lfirst(cell)),
									mako_workflow_id_version(workflow_id)) == 0;
		if (!known)
			versions = lappend(versions, unconstify(char *, workflow_id));
		last = workflow_id;
	}
	return versions;
}

/* Orders new events by stream and sequence number. */
static int
compare_new_events(const void *a, const void *b)
{
	const MakoNewRow *x = a;
	const MakoNewRow *y = b;

	if (x->stream_no != y->stream_no)
		return x->stream_no < y->stream_no ? -1 : 1;
	return x->number < y->number ? -1 : x->number > y->number;
}

/* The new events of one stream: consecutive rows. */
typedef struct StreamEvents
{
	const MakoNewRow *rows;
	int64		count;
} StreamEvents;

/* The owner of the heads. */
static Oid
owner_of_heads(void)
{
	return mako_door_open_tables(mako_door_tables_in("mako.stream"));
}

/*
 * Raises that a stream runs under another workflow than a writer or reader believes; detail says
 * what that one is.
 */
void
mako_store_raise_moved(int64 stream_no, const char *stream_id, const char *workflow_id,
					   const char *detail)
{
	NullableDatum values[] = {mako_bigint(stream_no), mako_text(workflow_id)};
	MakoRows	rows;
	int64		run_id;

	(void) mako_gate_enter(owner_of_heads());
	rows = mako_sql_query(&select_last_run, values);
	run_id = mako_row_bigint_or(&rows, 0, 1, 0);
	ereport(ERROR,
			(errcode(MAKO_ERRCODE_STREAM_MOVED),
			 errmsg("stream \"%s\" runs under workflow \"%s\"", stream_id, workflow_id),
			 run_id == 0 ? errdetail_internal("%s", detail) :
			 errdetail("%s Migration run " INT64_FORMAT " moved the stream.", detail, run_id),
			 errhint("Load the process again and continue under the workflow "
					 "that it runs under now.")));
}

/*
 * Returns true if a role may know what is in the heads, which are read for it as their owner.
 * Otherwise errors tell nothing but what it has written itself, as those of foreign keys do.
 * InvalidOid is one that has found the current head with its own rights.
 */
bool
mako_may_know_heads(Oid role)
{
	Oid			heads;

	if (!OidIsValid(role))
		return true;
	heads = mako_door_table("stream");
	return pg_class_aclcheck(heads, role, ACL_SELECT) == ACLCHECK_OK &&
		check_enable_rls(heads, role, true) != RLS_ENABLED;
}

/* Raises that an event was written under another workflow than its stream runs under. */
pg_noreturn static void
raise_event_moved(const MakoNewRow *row, const char *written_under, const char *stream_id,
				  const char *workflow_id, Oid role)
{
	bool		known = mako_may_know_heads(role);
	char	   *detail = psprintf("Event " INT64_FORMAT " was written under \"%s\".", row->number,
								  known || row->workflow_id != NULL ? written_under :
								  mako_workflow_id_version(written_under));

	if (known)
		mako_store_raise_moved(row->stream_no, stream_id, workflow_id, detail);
	ereport(ERROR,
			(errcode(MAKO_ERRCODE_STREAM_MOVED),
			 row->shows_id ?
			 errmsg("stream \"%s\" runs under another workflow", row->stream_id) :
			 errmsg("stream number " INT64_FORMAT " runs under another workflow", row->stream_no),
			 errdetail_internal("%s", detail),
			 errhint("Load the process again and continue under the workflow "
					 "that it runs under now.")));
}

/* Raises that an event does not come next in its stream. */
pg_noreturn static void
raise_not_next(const MakoNewRow *row, const char *stream_id, int64 version, int64 before, Oid role)
{
	bool		known = mako_may_know_heads(role);

	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 known || row->shows_id ?
			 errmsg("events of stream \"%s\" do not continue it", stream_id) :
			 errmsg("events of stream number " INT64_FORMAT " do not continue it", row->stream_no),
			 known ? errdetail("Expected sequence number " INT64_FORMAT ", found " INT64_FORMAT ".",
							   version + 1 + before, row->number) :
			 errdetail("Found sequence number " INT64_FORMAT ".", row->number),
			 errhint("Sequence numbers are 1, 2, 3 ... in every stream, without gap.")));
}

/*
 * Raises unless new events continue their stream under the workflow that it runs under; the role
 * is the one that inserts them.
 */
static void
check_new_events(const StreamEvents *events, const char *stream_id, const char *workflow_id,
				 int64 version, const char *unstamped, Oid role)
{
	for (int64 i = 0; i < events->count; i++)
	{
		const MakoNewRow *row = &events->rows[i];
		const char *written_under = row->workflow_id != NULL ? row->workflow_id :
			mako_workflow_id_at(workflow_id, mako_workflow_id_version(unstamped));

		if (strcmp(written_under, workflow_id) != 0)
			raise_event_moved(row, written_under, stream_id, workflow_id, role);
		if (row->number - 1 - i != version)
			raise_not_next(row, stream_id, version, i, role);
	}
}

/*
 * One bigint of some streams' events as a statement's parameter: bigint[], or bigint when there is
 * one stream.
 */
static NullableDatum
bigint_parameter(const StreamEvents *events, int count, bool last_number)
{
	int64	   *values = palloc(sizeof(int64) * count);

	for (int i = 0; i < count; i++)
		values[i] = last_number ? events[i].rows[events[i].count - 1].number :
			events[i].rows[0].stream_no;
	return count == 1 ? mako_bigint(values[0]) : mako_bigint_array(values, count);
}

/* Tells a writer that does not wait what holds its stream. */
static void
add_hint(void *argument)
{
	if (geterrcode() == ERRCODE_LOCK_NOT_AVAILABLE)
		errhint("A migration, or another writer, has locked a stream of these events. "
				"Try again later.");
}

/*
 * Locks the heads of some streams, and checks their events; where there is one, tells where its
 * head is.
 */
static void
check_heads(const MakoNewEvents *all, const StreamEvents *events, int count,
			const NullableDatum *values, ItemPointer tid)
{
	MakoStatement *lock = all->at_once ? (count == 1 ? &lock_head_at_once : &lock_heads_at_once) :
		(count == 1 ? &lock_head : &lock_heads);
	ErrorContextCallback hint = {error_context_stack, add_hint, NULL};
	MakoRows	heads;
	uint64		head = 0;

	if (all->at_once)
		error_context_stack = &hint;
	heads = mako_sql_query(lock, values);
	error_context_stack = hint.previous;

	for (int i = 0; i < count; i++, head++)
	{
		bool		found = head < heads.count &&
			mako_row_bigint(&heads, head, 1) == events[i].rows[0].stream_no;

		if (!found && events[i].rows[0].stream_id != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("a stream of these events has been removed meanwhile"),
					 errhint("Try again: it begins as a new stream.")));
		if (!found)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("stream number " INT64_FORMAT " does not exist",
							events[i].rows[0].stream_no),
					 errhint("Insert the stream's head into mako.stream first.")));
		check_new_events(&events[i], mako_row_text(&heads, head, 2), mako_row_text(&heads, head, 3),
						 mako_row_bigint(&heads, head, 4), all->unstamped, all->role);
	}
	if (count == 1)
		*tid = *(ItemPointer) DatumGetPointer(mako_row_value(&heads, 0, 5, TIDOID).value);
	mako_rows_free(&heads);
}

/* Locks, checks and advances the heads of some streams. */
static void
advance_heads_of(const MakoNewEvents *all, const StreamEvents *events, int count)
{
	NullableDatum values[] = {
		bigint_parameter(events, count, false), bigint_parameter(events, count, true),
		mako_bigint(events[0].rows[0].stream_no), mako_bigint(events[count - 1].rows[0].stream_no)
	};
	ItemPointerData tid;

	if (count == 1 && held != NULL && held->stream_no == events[0].rows[0].stream_no)
	{
		check_new_events(&events[0], held->stream_id, held->workflow_id, held->version,
						 all->unstamped, InvalidOid);
		tid = held->tid;
	}
	else
		check_heads(all, events, count, values, &tid);
	held = NULL;				/* not where it was any more */
	advances++;
	if (count > 1 || !mako_head_advance(&tid, DatumGetInt64(values[1].value)))
		(void) mako_store_write(count == 1 ? &advance_head : &advance_heads, values);
}

/*
 * Holds the versions under which events are written, as they are. That comes before the locks of
 * the heads, their check after: a writer whose stream has moved shall hear that.
 */
List *
mako_new_events_hold_versions(const MakoNewEvents *events)
{
	List	   *versions = mako_new_rows_versions(events->rows, events->count, events->unstamped);
	ListCell   *cell;

	foreach(cell, versions)
		mako_fence_lock(lfirst(cell));
	return versions;
}

/* Raises if one of these versions takes no events any more. */
void
mako_new_events_check_versions(const List *versions)
{
	ListCell   *cell;

	foreach(cell, versions)
		mako_fence_check(lfirst(cell), MAKO_FENCE_ENTER);
}

/* Advances the heads of the streams of new events, or raises why they do not continue them. */
void
mako_new_events_advance(const MakoNewEvents *events)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "mako heads",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = CurrentMemoryContext;
	MakoNewRow *rows = events->rows;
	StreamEvents streams[HEADS_AT_ONCE];

	qsort(rows, events->count, sizeof(MakoNewRow), compare_new_events);
	for (int64 next = 0; next < events->count;)
	{
		int			filled = 0;

		MemoryContextReset(context);
		MemoryContextSwitchTo(context);
		CHECK_FOR_INTERRUPTS();
		for (; next < events->count && filled < HEADS_AT_ONCE; filled++)
		{
			StreamEvents *stream = &streams[filled];

			stream->rows = &rows[next];
			for (stream->count = 0;
				 next < events->count && rows[next].stream_no == stream->rows->stream_no; next++)
				stream->count++;
		}
		advance_heads_of(events, streams, filled);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}
