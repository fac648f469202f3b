/*
 * fence.c
 *	  The fence around a format version, and the lock that lets one migration of a source run at a
 *	  time, which a batched one holds from one transaction to the next.
 *
 * A transaction that writes under a version holds a shared lock for it until it ends, and then
 * reads the version's status with a snapshot of now. One that drains or retires the version holds
 * the lock exclusively. So an old snapshot slips nothing through. A transaction that takes several
 * locks takes those of versions before those of heads, which drain and retire never wait for.
 */
#include "store/store.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

static MakoStatement select_status = {
	"SELECT f.status FROM mako.format_version f WHERE f.format_version OPERATOR(pg_catalog.=) $1",
	1, {TEXTOID}
};

static MakoStatement select_closed = {
	"SELECT f.messages_until::pg_catalog.text FROM mako.format_version f"
	" WHERE f.format_version OPERATOR(pg_catalog.=) $1"
	" AND f.messages_until OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp()",
	1, {TEXTOID}
};

/* Whether another session, or a prepared transaction, holds a lock exclusively. */
static MakoStatement select_holder = {
	"SELECT FROM pg_catalog.pg_locks l WHERE l.locktype OPERATOR(pg_catalog.=) 'advisory'"
	" AND l.database OPERATOR(pg_catalog.=) $1 AND l.classid OPERATOR(pg_catalog.=) $2"
	" AND l.objid OPERATOR(pg_catalog.=) $3 AND l.objsubid OPERATOR(pg_catalog.=) 3"
	" AND l.mode OPERATOR(pg_catalog.=) 'ExclusiveLock' AND l.granted"
	" AND (l.pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid()) IS NOT FALSE",
	3, {OIDOID, OIDOID, OIDOID}
};

/* What the session holds of sources, as lock tags; in TopMemoryContext. */
static List *held = NIL;

/* What is locked for a name. */
static uint64
key_of(const char *kind, const char *name)
{
	char	   *text = psprintf("mako_migration %s %s", kind, name);
	uint64		key = DatumGetUInt64(hash_any_extended((const unsigned char *) text,
													   strlen(text), 0));

	pfree(text);
	return key;
}

/*
 * The advisory lock on a name. The functions for advisory locks have 1 and 2 in the last place:
 * these locks cannot be taken with them.
 */
static LOCKTAG
tag_of(const char *kind, const char *name)
{
	uint64		key = key_of(kind, name);
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) (key >> 32), (uint32) key, 3);
	return tag;
}

/*
 * Takes a transaction-level advisory lock on a name; false when it is not to be had and wait is
 * false.
 */
static bool
lock_name(const char *kind, const char *name, LOCKMODE mode, bool wait)
{
	LOCKTAG		tag = tag_of(kind, name);

	return LockAcquire(&tag, mode, false, !wait) != LOCKACQUIRE_NOT_AVAIL;
}

/* Raises that another session migrates from here. */
static void
raise_source_locked(const char *workflow_id)
{
	ereport(ERROR,
			(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			 errmsg("another migration of \"%s\" is running", workflow_id),
			 errhint("Wait until it is finished.")));
}

/* Lets one migration of a source run at a time. */
void
mako_fence_lock_source(const char *workflow_id)
{
	if (!lock_name("source", workflow_id, ExclusiveLock, false))
		raise_source_locked(workflow_id);
}

/* Gives back the sources that the session holds. */
void
mako_fence_release_sources(void)
{
	while (held != NIL)
	{
		LOCKTAG    *tag = linitial(held);

		held = list_delete_first(held);
		(void) LockRelease(tag, ExclusiveLock, true);
		pfree(tag);
	}
}

/* An error has ended the transaction, and with it the procedure that held sources. */
static void
release_after_abort(XactEvent event, void *argument)
{
	if (event == XACT_EVENT_ABORT)
		mako_fence_release_sources();
}

/* Called when the library is loaded. */
void
mako_fence_init(void)
{
	RegisterXactCallback(release_after_abort, NULL);
}

/*
 * Lets the session hold a lock on a name until mako_fence_release_sources(), or an error; false
 * when it is not to be had.
 */
static bool
hold_name(const char *kind, const char *name)
{
	LOCKTAG		tag = tag_of(kind, name);
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	LOCKTAG    *copy = palloc(sizeof(LOCKTAG));

	*copy = tag;
	held = lappend(held, copy);
	MemoryContextSwitchTo(old);
	if (LockAcquire(&tag, ExclusiveLock, true, true) != LOCKACQUIRE_NOT_AVAIL)
		return true;
	held = list_delete_ptr(held, copy);
	pfree(copy);
	return false;
}

/*
 * Keeps every other migration of a source out until mako_fence_release_sources() or an error,
 * whatever is committed meanwhile. It is not to be caught: an error that ends with a
 * subtransaction only would leave the source held. A second lock tells others that it is a batched
 * run that holds it.
 */
void
mako_fence_hold_source(const char *workflow_id)
{
	if (!hold_name("source", workflow_id) || !hold_name("batched", workflow_id))
		raise_source_locked(workflow_id);
}

MAKO_FUNCTION(mako_source_lock);

/*
 * What pg_locks says of the lock of a batched run on its source, as classid and objid in one
 * number.
 */
Datum
mako_source_lock(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64((int64) key_of("batched", TextDatumGetCString(PG_GETARG_DATUM(0))));
}

/* Returns true if another session migrates a source now. Does not take the lock. */
bool
mako_fence_source_is_locked(const char *workflow_id)
{
	uint64		key = key_of("source", workflow_id);
	NullableDatum values[] = {
		mako_oid(MyDatabaseId), mako_oid((uint32) (key >> 32)), mako_oid((uint32) key)
	};
	MakoRows	rows = mako_sql_query(&select_holder, values);
	bool		is_locked = rows.count > 0;

	mako_rows_free(&rows);
	return is_locked;
}

/*
 * One text about a version as committed now, whatever the age of the transaction's snapshot; NULL
 * for none.
 */
static char *
latest(MakoStatement *statement, const char *format_version)
{
	NullableDatum values[] = {mako_text(format_version)};
	MakoRows	rows;
	char	   *text = NULL;

	PushActiveSnapshot(GetLatestSnapshot());
	rows = mako_sql_query_snapshot(statement, values);
	if (rows.count > 0)
		text = mako_row_text(&rows, 0, 1);
	mako_rows_free(&rows);
	PopActiveSnapshot();
	return text;
}

/* The status of a version as committed now; NULL where none was set, which is active. */
const char *
mako_fence_status(const char *format_version)
{
	return latest(&select_status, format_version);
}

/* Since when messages of a version are refused; NULL when they are not. */
const char *
mako_fence_closed(const char *format_version)
{
	return latest(&select_closed, format_version);
}

/* Holds a version as it is until the transaction ends. */
void
mako_fence_lock(const char *workflow_id)
{
	(void) lock_name("version", mako_workflow_id_version(workflow_id), ShareLock, true);
}

/* Waits for all that write under a version, and keeps others out until the transaction ends. */
void
mako_fence_close(const char *format_version)
{
	(void) lock_name("version", format_version, ExclusiveLock, true);
}

/* Raises when the version of a workflow, which is held, does not allow what is to be done. */
void
mako_fence_check(const char *workflow_id, MakoFence fence)
{
	const char *version = mako_workflow_id_version(workflow_id);
	const char *status = mako_fence_status(version);

	if (status == NULL || strcmp(status, "active") == 0)
		return;
	if (strcmp(status, "retired") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("format version \"%s\" is retired", version),
				 errdetail("Nothing can be written under workflow \"%s\" any more.", workflow_id),
				 errhint("Use a format version that is not retired.")));
	if (fence == MAKO_FENCE_START)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("format version \"%s\" is draining", version),
				 errdetail("No new process can start under workflow \"%s\".", workflow_id),
				 errhint("Start the process under a newer format version.")));
}

/* Holds the version of a workflow, and raises when it does not allow what is to be done. */
void
mako_fence_pass(const char *workflow_id, MakoFence fence)
{
	mako_fence_lock(workflow_id);
	mako_fence_check(workflow_id, fence);
}
