/*
 * match.c
 *	  One look at every head before a pass: how many streams run under which workflow, and which ones match where those are few.
 *
 * What a run skips, which order of reading is the better one, and the heads to lock: three questions that take three scans of
 * mako.stream if statements ask them, and a statement pays for each of a million heads that it passes over more than the scan itself
 * costs. So the table is scanned here, with a snapshot of its own, wherever it is a plain one that the caller may read. Otherwise a
 * statement counts, and so it does for one tenant, whose heads an index finds. A census only counts and finds: which heads are locked,
 * the cursor of stream.c decides by what they are then.
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

/* From which share of all heads on, or from which number, it is better to find the matching ones once more than to look up each. */
#define FEW_SHARE 0.1
#define MOST_FEW 100000

static MakoStatement count_heads = {
	"SELECT s.workflow_id, pg_catalog.count(*) FROM mako.stream s WHERE $1 IS NULL OR s.tenant_id OPERATOR(pg_catalog.=) $1"
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
	Id			id;				/* the key; terminated, in the context of the census */
	int64		streams;		/* in scope */
	bool		wanted;			/* it is one of the sources */
	char		status;
} Workflow;

#define SH_PREFIX workflow_table
#define SH_ELEMENT_TYPE Workflow
#define SH_KEY_TYPE Id
#define SH_KEY id
#define SH_HASH_KEY(table, key) hash_bytes((const unsigned char *) (key).data, (key).length)
#define SH_EQUAL(table, a, b) ((a).length == (b).length && memcmp((a).data, (b).data, (a).length) == 0)
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

struct MakoCensus
{
	workflow_table_hash *workflows;
	int64		in_scope;		/* heads */
	double		all;			/* the same, of whichever tenant; roughly, where only a tenant's are counted */
	int64	   *found;			/* stream numbers of the matching ones; NULL where there are too many */
	int			found_count;
	int			capacity;
};

/* The entry of a workflow, which is added when it is new. */
static Workflow *
workflow_entry(MakoCensus *census, Id id)
{
	bool		found;
	Workflow   *workflow = workflow_table_insert(census->workflows, id, &found);

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
add_found(MakoCensus *census, int64 stream_no)
{
	if (census->found == NULL)
		return;
	if (census->found_count == MOST_FEW)
	{
		pfree(census->found);
		census->found = NULL;
		return;
	}
	if (census->found_count == census->capacity)
	{
		census->capacity *= 2;
		census->found = repalloc(census->found, sizeof(int64) * census->capacity);
	}
	census->found[census->found_count++] = stream_no;
}

/*
 * Counts all heads in the table itself, by workflow if somebody asks for that, which costs most of it; false where only a statement can
 * do it.
 */
static bool
scan_heads(MakoCensus *census, Relation relation, bool by_workflow)
{
	AttrNumber	stream_no = mako_door_column(relation, "stream_no");
	AttrNumber	workflow_id = mako_door_column(relation, "workflow_id");
	TupleDesc	tupdesc = RelationGetDescr(relation);
	Workflow   *workflow = NULL;
	TableScanDesc scan;
	HeapTuple	head;

	if (!mako_door_may_read_plainly(relation))
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
		census->in_scope++;
		if (!by_workflow)
			continue;
		value = heap_getattr(head, workflow_id, tupdesc, &isnull);
		if (isnull)
			continue;
		text_value = DatumGetTextPP(value);
		id.data = VARDATA_ANY(text_value);
		id.length = VARSIZE_ANY_EXHDR(text_value);
		/* Most heads run under the workflow of the one before. */
		if (workflow == NULL || workflow->id.length != id.length || memcmp(workflow->id.data, id.data, id.length) != 0)
			workflow = workflow_entry(census, id);
		if (text_value != (text *) DatumGetPointer(value))
			pfree(text_value);
		workflow->streams++;
		if (workflow->wanted)
			add_found(census, DatumGetInt64(heap_getattr(head, stream_no, tupdesc, &isnull)));
	}
	table_endscan(scan);
	census->all = (double) census->in_scope;
	return true;
}

/* Counts with a statement. */
static void
query_heads(MakoCensus *census, const pg_uuid_t *tenant_id)
{
	Datum		value = UUIDPGetDatum(tenant_id);
	MakoRows	rows = mako_sql_query_snapshot(&count_heads, &value, tenant_id == NULL ? "n" : NULL);

	for (uint64 row = 0; row < rows.count; row++)
	{
		const char *workflow_id = mako_row_text(&rows, row, 1);
		int64		streams = mako_row_bigint(&rows, row, 2);

		census->in_scope += streams;
		if (workflow_id != NULL)
			workflow_entry(census, (Id) {workflow_id, (int) strlen(workflow_id)})->streams = streams;
	}
	mako_rows_free(&rows);
	census->all = tenant_id == NULL ? (double) census->in_scope : mako_sql_estimate(&select_all_heads, NULL, NULL);
}

/* Counts with a new snapshot. */
static MakoCensus *
count(MakoCensus *census, const pg_uuid_t *tenant_id, bool by_workflow)
{
	Relation	relation = table_open(mako_door_table("stream"), AccessShareLock);
	bool		scanned;

	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	scanned = tenant_id == NULL && scan_heads(census, relation, by_workflow);
	if (!scanned)
		query_heads(census, tenant_id);
	PopActiveSnapshot();
	table_close(relation, NoLock);
	if (census->found != NULL && (!scanned || census->found_count > census->all * FEW_SHARE))
	{
		pfree(census->found);
		census->found = NULL;
	}
	return census;
}

/* Counts the heads of a tenant, or of all, by workflow, and finds those under these workflows if they are few. */
MakoCensus *
mako_census_take(const char *const *sources, int source_count, const pg_uuid_t *tenant_id)
{
	MakoCensus *census = palloc0(sizeof(MakoCensus));

	census->workflows = workflow_table_create(CurrentMemoryContext, 2 * source_count, NULL);
	for (int i = 0; i < source_count; i++)
		workflow_entry(census, (Id) {sources[i], (int) strlen(sources[i])})->wanted = true;
	census->capacity = 1024;
	census->found = palloc(sizeof(int64) * census->capacity);
	return count(census, tenant_id, true);
}

/* Counts them once more; who does not want them by workflow gets them cheaper. */
MakoCensus *
mako_census_repeat(const pg_uuid_t *tenant_id, bool by_workflow)
{
	MakoCensus *census = palloc0(sizeof(MakoCensus));

	census->workflows = workflow_table_create(CurrentMemoryContext, 16, NULL);
	return count(census, tenant_id, by_workflow);
}

/* How many heads there are, of whichever tenant, if only roughly. */
double
mako_census_all(const MakoCensus *census)
{
	return census->all;
}

/* How many streams in scope run under a workflow. */
int64
mako_census_under(const MakoCensus *census, const char *workflow_id)
{
	const Workflow *workflow = workflow_table_lookup(census->workflows, (Id) {workflow_id, (int) strlen(workflow_id)});

	return workflow == NULL ? 0 : workflow->streams;
}

/* How many streams are in scope: of workflows with the same name, or of all where that is NULL. */
int64
mako_census_scope(const MakoCensus *census, const char *workflow_id)
{
	workflow_table_iterator iterator;
	const Workflow *workflow;
	int64		streams = 0;

	if (workflow_id == NULL)
		return census->in_scope;
	workflow_table_start_iterate(census->workflows, &iterator);
	while ((workflow = workflow_table_iterate(census->workflows, &iterator)) != NULL)
		if (mako_workflow_id_same_name(workflow_id, workflow->id.data))
			streams += workflow->streams;
	return streams;
}

/* The numbers of the streams that match, where they are few; NULL otherwise. */
const int64 *
mako_census_found(const MakoCensus *census, int *count)
{
	*count = census->found_count;
	return census->found;
}
