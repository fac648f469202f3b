/*
 * states.c
 *	  The stored states that streams start from: their boundaries, or the newest states there are.
 */
#include "read/read.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"

/*
 * The state that a stream starts from. Newest first: what was folded furthest, and of that what
 * was written last. A snapshot of a run that left the heads alone is no boundary, and a periodic
 * one from beyond the head or of another workflow is of no use. For many streams, the range lets
 * the planner read a dense batch in one index scan instead of looking up every stream; the plan
 * for one can be kept.
 */
#define STATE_COLUMNS(workflow_id) \
	"n.stream_no, n.sequence_number, n.state, n.state_schema_version," \
	" n.workflow_id OPERATOR(pg_catalog.<>) " workflow_id
#define IS_STATE(version, workflow_id, periodic_too, moved) \
	"CASE n.run_id WHEN 0" \
	" THEN " periodic_too " AND n.sequence_number OPERATOR(pg_catalog.<=) " version \
	" AND n.workflow_id OPERATOR(pg_catalog.=) " workflow_id \
	" ELSE " moved " END"

static MakoStatement select_state = {
	"SELECT " STATE_COLUMNS("$3") " FROM mako.snapshot n"
	" WHERE n.stream_no OPERATOR(pg_catalog.=) $1 AND " IS_STATE("$2", "$3", "$4",
																 "EXISTS"
																 " (SELECT"
																 " FROM mako.migration_run r WHERE"
																 " r.run_id OPERATOR(pg_catalog.=)"
																 " n.run_id AND r.update_registry)"
																 " AND " MAKO_STANDS("n"))
	" ORDER BY n.sequence_number DESC, n.run_id DESC LIMIT 1",
	4, {INT8OID, INT8OID, TEXTOID, BOOLOID}
};

static MakoStatement select_states = {
	"SELECT DISTINCT ON (n.stream_no) " STATE_COLUMNS("h.workflow_id")
	" FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3),"
	" pg_catalog.unnest($4))"
	" AS h (stream_no, version, workflow_id, periodic_too)"
	" JOIN mako.snapshot n ON n.stream_no OPERATOR(pg_catalog.=) h.stream_no"
	" WHERE n.stream_no OPERATOR(pg_catalog.>=) $5 AND n.stream_no OPERATOR(pg_catalog.<=) $6"
	" AND " MAKO_STANDS_BETWEEN("n", "$5", "$6") " AND "
	IS_STATE("h.version", "h.workflow_id", "h.periodic_too",
			 "n.run_id OPERATOR(pg_catalog.=) ANY (SELECT r.run_id FROM mako.migration_run r"
			 " WHERE r.update_registry)")
	" ORDER BY n.stream_no, n.sequence_number DESC, n.run_id DESC",
	6, {INT8ARRAYOID, INT8ARRAYOID, TEXTARRAYOID, BOOLARRAYOID, INT8OID, INT8OID}, true
};

/* The same for streams that lie far apart, such as a sample: each is looked up. */
static MakoStatement select_states_apart = {
	"SELECT s.* FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2),"
	" pg_catalog.unnest($3), pg_catalog.unnest($4))"
	" AS h (stream_no, version, workflow_id, periodic_too)"
	" CROSS JOIN LATERAL (SELECT " STATE_COLUMNS("h.workflow_id") " FROM mako.snapshot n"
	"   WHERE n.stream_no OPERATOR(pg_catalog.=) h.stream_no AND " MAKO_STANDS("n") " AND "
	IS_STATE("h.version", "h.workflow_id", "h.periodic_too",
			 "n.run_id OPERATOR(pg_catalog.=) ANY (SELECT r.run_id FROM mako.migration_run r"
			 " WHERE r.update_registry)")
	"   ORDER BY n.sequence_number DESC, n.run_id DESC LIMIT 1) s"
	" ORDER BY s.stream_no",
	4, {INT8ARRAYOID, INT8ARRAYOID, TEXTARRAYOID, BOOLARRAYOID}, true
};

/* Whether any is in a range: in a first migration, none is. */
static MakoStatement select_any_state = {
	"SELECT FROM mako.snapshot n WHERE n.stream_no OPERATOR(pg_catalog.>=) $1"
	" AND n.stream_no OPERATOR(pg_catalog.<=) $2 LIMIT 1",
	2, {INT8OID, INT8OID},.way = MAKO_BY_KEYS
};

/* Returns true if one of some streams may have a state. */
static bool
may_have_state(const MakoStream *streams, int count)
{
	NullableDatum values[] = {
		mako_bigint(streams[0].stream_no), mako_bigint(streams[count - 1].stream_no)
	};
	MakoRows	rows = mako_sql_query_snapshot(&select_any_state, values);
	bool		found = rows.count > 0;

	mako_rows_free(&rows);
	return found;
}

/* Queries the states of some streams: of one by values, of many by arrays of them. */
static MakoRows
query_states(const MakoStream *streams, int count)
{
	static const Oid types[] = {INT8OID, INT8OID, TEXTOID, BOOLOID};
	NullableDatum *columns[lengthof(types)];
	NullableDatum values[lengthof(types) + 2];

	for (size_t column = 0; column < lengthof(types); column++)
		columns[column] = palloc(sizeof(NullableDatum) * count);
	for (int i = 0; i < count; i++)
	{
		bool		is_same = i > 0 && streams[i].workflow_id == streams[i - 1].workflow_id;

		columns[0][i] = mako_bigint(streams[i].stream_no);
		columns[1][i] = mako_bigint(streams[i].version);
		columns[2][i] = is_same ? columns[2][i - 1] : mako_text(streams[i].workflow_id);
		columns[3][i] = mako_boolean(streams[i].periodic_too);
	}
	for (size_t column = 0; column < lengthof(types); column++)
		values[column] = count == 1 ? columns[column][0] :
			mako_array(columns[column], count, types[column]);
	values[4] = mako_bigint(streams[0].stream_no);
	values[5] = mako_bigint(streams[count - 1].stream_no);
	return mako_sql_query_snapshot(count == 1 ? &select_state :
								   mako_streams_are_dense(streams, count) ? &select_states :
								   &select_states_apart, values);
}

/*
 * Finds the stored state that each stream starts from: its boundary, or where periodic_too is set
 * the newest state there is. Reads with the active snapshot.
 */
void
mako_stream_load_states(MakoStream *streams, int count)
{
	MakoRows	rows;
	int			i = 0;

	if (count > 1 && !may_have_state(streams, count))
		return;
	rows = query_states(streams, count);
	/* Both are in stream_no order. */
	for (uint64 row = 0; row < rows.count; row++)
	{
		int64		stream_no = mako_row_bigint(&rows, row, 1);

		while (streams[i].stream_no != stream_no)
			i++;
		streams[i].start = mako_row_bigint(&rows, row, 2);
		streams[i].start_state = mako_copy_stored(mako_row_datum(&rows, row, 3, JSONBOID));
		streams[i].start_schema_version = mako_row_integer(&rows, row, 4);
		streams[i].boundary_missing = mako_row_boolean(&rows, row, 5);
	}
	mako_rows_free(&rows);
}
