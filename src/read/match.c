/*
 * match.c
 *	  One look at every head before a pass: how many streams run under which workflow, and which
 *	  ones match where those are few.
 *
 * What a run skips, which order of reading is the better one, and the heads to lock: three
 * questions that take three scans of mako.stream if statements ask them, and a statement pays for
 * each of a million heads that it passes over more than the scan itself costs. So the table is
 * scanned here, with a snapshot of its own, wherever it is a plain one that the caller may read.
 * Otherwise a statement counts, and so it does for one tenant, whose heads an index finds. A
 * search only counts and finds: which heads are locked, the cursor of heads.c decides by what
 * they are then.
 *
 * It lives in the memory context that is current when it is taken.
 */
#include "read/read.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/*
 * From which share of all heads on, or from which number, it is better to find the matching ones
 * once more than to look up each.
 */
#define FEW_SHARE 0.1
#define MOST_FEW 100000

static MakoStatement count_heads = {
	"SELECT s.workflow_id, pg_catalog.count(*) FROM mako.stream s"
	" WHERE $1 IS NULL OR s.tenant_id OPERATOR(pg_catalog.=) $1"
	" GROUP BY s.workflow_id",
	1, {UUIDOID}, true
};

static MakoStatement select_all_heads = {"SELECT FROM mako.stream", 0, {0}, true};

/* A workflow id where it lies. */
typedef struct Id
{
	const char *data;
	int			length;
} Id;

/* The heads under one workflow. */
typedef struct Workflow
{
	Id			id;				/* the key; terminated, in the context of the matches */
	int64		streams;		/* in scope */
	bool		wanted;			/* it is one of the sources */
	char		status;
} Workflow;

#define SH_PREFIX workflow_table
#define SH_ELEMENT_TYPE Workflow
#define SH_KEY_TYPE Id
#define SH_KEY id
#define SH_HASH_KEY(table, key) hash_bytes((const unsigned char *) (key).data, (key).length)
#define SH_EQUAL(table, a, b) \
	((a).length == (b).length && memcmp((a).data, (b).data, (a).length) == 0)
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

struct MakoMatches
{
	workflow_table_hash *workflows;
	int64		in_scope;		/* heads */
	double		all;			/* the same, of whichever tenant; roughly, where only a tenant's
								 * are counted */
	int64	   *found;			/* stream numbers of the matching ones; NULL where there are too
								 * many */
	int			found_count;
	int			capacity;
};

/* The entry of a workflow, which is added when it is new. */
static Workflow *
workflow_entry(MakoMatches *matches, Id id)
{
	bool		found;
	Workflow   *workflow = workflow_table_insert(matches->workflows, id, &found);

	if (!found)
	{
		workflow->id.data = pnstrdup(id.data, id.length);
		workflow->streams = 0;
		workflow->wanted = false;
	}
	return workflow;
}

/* Remembers a stream that matches, unless there are too many. */
static void
add_found(MakoMatches *matches, int64 stream_no)
{
	if (matches->found == NULL)
		return;
	if (matches->found_count == MOST_FEW)
	{
		pfree(matches->found);
		matches->found = NULL;
		return;
	}
	if (matches->found_count == matches->capacity)
	{
		matches->capacity *= 2;
		matches->found = repalloc(matches->found, sizeof(int64) * matches->capacity);
	}
	matches->found[matches->found_count++] = stream_no;
}

/*
 * Counts all heads in the table itself, by workflow if that is asked for, which costs most of it;
 * false where only a statement can do it.
 */
static bool
scan_heads(MakoMatches *matches, Relation relation, bool by_workflow)
{
	AttrNumber	stream_no = mako_door_column(relation, "stream_no");
	AttrNumber	workflow_id = mako_door_column(relation, "workflow_id");
	TupleDesc	tupdesc = RelationGetDescr(relation);
	Workflow   *workflow = NULL;
	TableScanDesc scan;
	HeapTuple	head;

	if (mako_door_read_obstacle(relation, false) != NULL)
		return false;

	/* Not synchronized with other scans: neighbours should come together. */
	scan = table_beginscan_strat(relation, GetActiveSnapshot(), 0, NULL, true, false);
	while ((head = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		bool		isnull;
		Datum		value;
		text	   *text_value;
		Id			id;

		CHECK_FOR_INTERRUPTS();
		matches->in_scope++;
		if (!by_workflow)
			continue;
		value = heap_getattr(head, workflow_id, tupdesc, &isnull);
		if (isnull)
			continue;
		text_value = DatumGetTextPP(value);
		id.data = VARDATA_ANY(text_value);
		id.length = VARSIZE_ANY_EXHDR(text_value);
		/* Most heads run under the workflow of the one before. */
		if (workflow == NULL || workflow->id.length != id.length ||
			memcmp(workflow->id.data, id.data, id.length) != 0)
			workflow = workflow_entry(matches, id);
		if (text_value != (text *) DatumGetPointer(value))
			pfree(text_value);
		workflow->streams++;
		if (workflow->wanted)
			add_found(matches, DatumGetInt64(heap_getattr(head, stream_no, tupdesc, &isnull)));
	}
	table_endscan(scan);
	matches->all = (double) matches->in_scope;
	return true;
}

/* Counts with a statement. */
static void
query_heads(MakoMatches *matches, const pg_uuid_t *tenant_id)
{
	NullableDatum value = mako_uuid(tenant_id);
	MakoRows	rows = mako_sql_query_snapshot(&count_heads, &value);

	for (uint64 row = 0; row < rows.count; row++)
	{
		const char *workflow_id = mako_row_text(&rows, row, 1);
		int64		streams = mako_row_bigint(&rows, row, 2);

		matches->in_scope += streams;
		if (workflow_id != NULL)
			workflow_entry(matches,
						   (Id) {workflow_id, (int) strlen(workflow_id)})->streams = streams;
	}
	mako_rows_free(&rows);
	matches->all = tenant_id == NULL ? (double) matches->in_scope :
		mako_sql_estimate(&select_all_heads, NULL);
}

/* Counts with a new snapshot. */
static MakoMatches *
count(MakoMatches *matches, const pg_uuid_t *tenant_id, bool by_workflow)
{
	Relation	relation = table_open(mako_door_table("stream"), AccessShareLock);
	bool		scanned;

	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	scanned = tenant_id == NULL && scan_heads(matches, relation, by_workflow);
	if (!scanned)
		query_heads(matches, tenant_id);
	PopActiveSnapshot();
	table_close(relation, NoLock);
	if (matches->found != NULL && (!scanned || matches->found_count > matches->all * FEW_SHARE))
	{
		pfree(matches->found);
		matches->found = NULL;
	}
	return matches;
}

/*
 * Counts the heads of a tenant, or of all, by workflow, and finds those under these workflows if
 * they are few.
 */
MakoMatches *
mako_matches_take(const char *const *sources, int source_count, const pg_uuid_t *tenant_id)
{
	MakoMatches *matches = palloc0(sizeof(MakoMatches));

	matches->workflows = workflow_table_create(CurrentMemoryContext, 2 * source_count, NULL);
	for (int i = 0; i < source_count; i++)
		workflow_entry(matches, (Id) {sources[i], (int) strlen(sources[i])})->wanted = true;
	matches->capacity = 1024;
	matches->found = palloc(sizeof(int64) * matches->capacity);
	return count(matches, tenant_id, true);
}

/* Counts them once more. By workflow it takes longer. */
MakoMatches *
mako_matches_repeat(const pg_uuid_t *tenant_id, bool by_workflow)
{
	MakoMatches *matches = palloc0(sizeof(MakoMatches));

	matches->workflows = workflow_table_create(CurrentMemoryContext, 16, NULL);
	return count(matches, tenant_id, by_workflow);
}

/* How many heads there are, of whichever tenant, if only roughly. */
double
mako_matches_all(const MakoMatches *matches)
{
	return matches->all;
}

/* How many streams in scope run under a workflow. */
int64
mako_matches_under(const MakoMatches *matches, const char *workflow_id)
{
	const Workflow *workflow = workflow_table_lookup(matches->workflows,
													 (Id) {workflow_id, (int) strlen(workflow_id)});

	return workflow == NULL ? 0 : workflow->streams;
}

/* How many streams are in scope: of workflows with the same name, or of all where that is NULL. */
int64
mako_matches_scope(const MakoMatches *matches, const char *workflow_id)
{
	workflow_table_iterator iterator;
	const Workflow *workflow;
	int64		streams = 0;

	if (workflow_id == NULL)
		return matches->in_scope;
	workflow_table_start_iterate(matches->workflows, &iterator);
	while ((workflow = workflow_table_iterate(matches->workflows, &iterator)) != NULL)
		if (mako_workflow_id_same_name(workflow_id, workflow->id.data))
			streams += workflow->streams;
	return streams;
}

/* The numbers of the streams that match, where they are few; NULL otherwise. */
const int64 *
mako_matches_found(const MakoMatches *matches, int *count)
{
	*count = matches->found_count;
	return matches->found;
}
