/*
 * sink.c
 *	  Sinks (migrate.h): added and removed, and the statements that take what a run has moved, or
 *	  take it back.
 *
 * A sink belongs to the role that added it. What it says is parsed, planned and executed as that
 * role, with no more privileges, on the path on which it was written. It sees what has moved as
 * the relation "moved", and so all states: its role must be one that may select them anyway.
 *
 * Sinks are kept among the definitions, whose tables no role may write directly: whoever wrote a
 * row there could have any role execute anything. A sink that is removed stays, because the runs
 * that wrote to it can be undone still. For the same reason a number is given once.
 */
#include "migrate/migrate.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

#define SINK_COLUMNS \
	"k.statement, k.undo, k.lock, k.search_path, k.owner, k.owner_identity FROM "

static MakoStatement select_sinks = {
	"SELECT k.sink_no, " SINK_COLUMNS "%s.mako_sink k WHERE k.removed_at IS NULL ORDER BY k.sink_no"
};

/* Those that a run writes to; of one that is not there any more, the number alone. */
static MakoStatement select_sinks_of_run = {
	"SELECT u.sink_no, " SINK_COLUMNS "mako.migration_run r"
	" CROSS JOIN LATERAL unnest(r.sinks) AS u (sink_no)"
	" LEFT JOIN %s.mako_sink k ON k.sink_no = u.sink_no WHERE r.run_id = $1 ORDER BY u.sink_no",
	1, {INT8OID}
};

static MakoStatement select_same = {
	"SELECT k.sink_no FROM %s.mako_sink k WHERE k.removed_at IS NULL AND k.statement = $1"
	" AND k.undo IS NOT DISTINCT FROM $2 AND k.lock IS NOT DISTINCT FROM $3"
	" AND k.search_path = $4 AND k.owner = $5 AND k.owner_identity = $6 ORDER BY k.sink_no LIMIT 1",
	6, {TEXTOID, TEXTOID, TEXTOID, TEXTARRAYOID, TEXTOID, TEXTOID}
};

static MakoStatement select_next_number = {
	"SELECT greatest((SELECT max(k.sink_no) FROM %s.mako_sink k),"
	" (SELECT max(u.sink_no) FROM mako.migration_run r, unnest(r.sinks) AS u (sink_no)), 0) + 1"
};

static MakoStatement insert_sink = {
	"INSERT INTO %s.mako_sink"
	" (statement, undo, lock, search_path, owner, owner_identity, sink_no)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7)",
	7, {TEXTOID, TEXTOID, TEXTOID, TEXTARRAYOID, TEXTOID, TEXTOID, INT4OID}
};

static MakoStatement select_owner = {
	"SELECT owner, owner_identity, '{}'::text[], '{}'::text[] FROM %s.mako_sink"
	" WHERE sink_no = $1 AND removed_at IS NULL",
	1, {INT4OID}
};

static MakoStatement remove_sink = {
	"UPDATE %s.mako_sink SET removed_at = now() WHERE sink_no = $1 AND removed_at IS NULL",
	1, {INT4OID}
};

/* How many rows a plan is made for: 1, 10, 100 ... */
#define SIZES 9

/* One of the texts of a sink. */
typedef struct Text
{
	char	   *text;			/* NULL: it has none */
	MakoStatement of_size[SIZES];	/* without a text until it is needed */
} Text;

struct MakoSink
{
	int			number;			/* 0: it is about to be added */
	char	   *owner_name;		/* NULL: the sink is not there any more */
	Oid			owner;			/* InvalidOid: the role does not exist any more */
	const char *path;
	Text		texts[MAKO_SINK_TEXTS];
};

/* ---- what there is -------------------------------------------------------------------------- */

/* Reads one sink, in the current memory context. */
static MakoSink
read_sink(const MakoRows *rows, uint64 row)
{
	MakoSink	sink = {.number = mako_row_integer(rows, row, 1)};

	sink.owner_name = mako_row_text(rows, row, 6);
	if (sink.owner_name == NULL)
		return sink;
	sink.owner = mako_role_find(sink.owner_name, mako_row_text(rows, row, 7));
	sink.path = mako_extension_path_of(mako_row_datum(rows, row, 5, TEXTARRAYOID));
	for (int i = 0; i < MAKO_SINK_TEXTS; i++)
		sink.texts[i].text = mako_row_text(rows, row, 2 + i);
	return sink;
}

/* What sinks see of a stream that has moved. */
static TupleDesc
type_of_moved(void)
{
	static const struct
	{
		const char *name;
		Oid			type;
	}			columns[MAKO_MOVED_COLUMNS] = {
		{"run_id", INT8OID}, {"stream_id", TEXTOID}, {"tenant_id", UUIDOID},
		{"process_id", UUIDOID}, {"source_wf", TEXTOID}, {"target_wf", TEXTOID},
		{"sequence_number", INT8OID}, {"state_schema_version", INT4OID}, {"state", JSONBOID},
	};
	TupleDesc	type = CreateTemplateTupleDesc(MAKO_MOVED_COLUMNS);

	for (int i = 0; i < MAKO_MOVED_COLUMNS; i++)
		TupleDescInitEntry(type, i + 1, columns[i].name, columns[i].type, -1, 0);
	return type;
}

/* Sinks in the current memory context; their statements may name "moved" from now on. */
static MakoSinks *
make_sinks(MakoSink *list, int count)
{
	MakoSinks  *sinks = palloc(sizeof(MakoSinks));

	sinks->context = CurrentMemoryContext;
	sinks->list = list;
	sinks->count = count;
	sinks->moved_type = type_of_moved();
	sinks->nothing = tuplestore_begin_heap(false, false, work_mem);
	sinks->moved = mako_sql_name_rows("moved", sinks->moved_type);
	return sinks;
}

/* The sinks that a query finds, in the current memory context; NULL for none. */
static MakoSinks *
read_sinks(MakoStatement *select, const NullableDatum *values)
{
	MakoRows	rows = mako_sql_query(select, values);
	MakoSink   *list = palloc(sizeof(MakoSink) * (rows.count + 1));
	int			count = (int) rows.count;

	for (int i = 0; i < count; i++)
		list[i] = read_sink(&rows, i);
	mako_rows_free(&rows);
	return count == 0 ? NULL : make_sinks(list, count);
}

/*
 * The sinks of a run that begins now, in the current memory context, which must last as long as the
 * connection; NULL for none.
 */
MakoSinks *
mako_sinks_current(void)
{
	return read_sinks(&select_sinks, NULL);
}

/* The sinks of a run that has begun. */
MakoSinks *
mako_sinks_of_run(int64 run_id)
{
	NullableDatum value = mako_bigint(run_id);

	return read_sinks(&select_sinks_of_run, &value);
}

/* The numbers of sinks, as integer[]. */
NullableDatum
mako_sinks_numbers(const MakoSinks *sinks)
{
	int			count = sinks == NULL ? 0 : sinks->count;
	NullableDatum *numbers = palloc(sizeof(NullableDatum) * (count + 1));

	for (int i = 0; i < count; i++)
		numbers[i] = mako_integer(sinks->list[i].number);
	return mako_array(numbers, count, INT4OID);
}

/* Why what a sink has written cannot be taken back, as a sentence; NULL where it can. */
static const char *
why_no_undo(const MakoSink *sink)
{
	if (sink->owner_name == NULL)
		return "It does not exist any more.";
	if (!OidIsValid(sink->owner))
		return psprintf("Its role \"%s\" does not exist any more.", sink->owner_name);
	if (sink->texts[MAKO_SINK_UNDO].text == NULL)
		return "It has no undo.";
	return NULL;
}

/* Returns true if everything that sinks write can be taken back. Says what cannot. */
bool
mako_sinks_can_undo(const MakoSinks *sinks, const char **why_not)
{
	for (int i = 0; sinks != NULL && i < sinks->count; i++)
	{
		if (why_no_undo(&sinks->list[i]) == NULL)
			continue;
		*why_not = psprintf("sink %d has no undo", sinks->list[i].number);
		return false;
	}
	return true;
}

/* Tells of the sinks whose writing stays, although the run is undone. */
void
mako_sinks_warn_of_rest(const MakoSinks *sinks)
{
	for (int i = 0; sinks != NULL && i < sinks->count; i++)
	{
		const char *why = why_no_undo(&sinks->list[i]);

		if (why != NULL)
			ereport(WARNING,
					(errcode(ERRCODE_WARNING),
					 errmsg("what sink %d has written stays", sinks->list[i].number),
					 errdetail_internal("%s", why)));
	}
}

/* ---- executing ------------------------------------------------------------------------------ */

/* Says which sink an error is about. */
static void
add_context(void *argument)
{
	const MakoSink *sink = argument;

	if (sink->number > 0)
		errcontext("sink %d", sink->number);
	else
		errcontext("the sink that is to be added");
}

/*
 * The statement of a text for this many rows. A plan is made for the next power of ten, so that it
 * fits a batch as well as a run, and does not depend on which came first.
 */
static MakoStatement *
statement_of(const MakoSinks *sinks, MakoSink *sink, MakoSinkText kind, int64 count,
			 double *expected)
{
	Text	   *text = &sink->texts[kind];
	MakoStatement *statement = text->of_size;

	for (*expected = 1; *expected < count && statement < &text->of_size[SIZES - 1]; statement++)
		*expected *= 10;
	if (statement->text == NULL)
	{
		statement->text = text->text;
		statement->transient = sinks->context;
		statement->verbatim = true;
		statement->role = sink->owner;
		statement->path = sink->path;
		statement->may_lock = kind == MAKO_SINK_LOCK;
	}
	return statement;
}

/* Raises if a sink has lost what it needs, whatever it says. */
static void
require_usable(const MakoSink *sink)
{
	MakoGate	gate;

	if (!OidIsValid(sink->owner))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 sink->owner_name == NULL ?
				 errmsg("sink %d does not exist any more", sink->number) :
				 errmsg("role \"%s\" of sink %d does not exist any more", sink->owner_name,
						sink->number),
				 errhint("Use mako_remove_sink(%d), and add it again as a role that exists.",
						 sink->number)));
	gate = mako_gate_enter(sink->owner);
	if (mako_door_require_select("mako.stream mako.snapshot"))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("row security hides streams from the role of the sink"),
				 errdetail("A sink sees every stream that moves.")));
	mako_gate_leave(&gate);
}

/* Prepares the texts of a sink, which meets the privileges that they need. */
static void
rehearse_sink(MakoSinks *sinks, MakoSink *sink, bool undo)
{
	ErrorContextCallback context = {error_context_stack, add_context, sink};

	if (undo && why_no_undo(sink) != NULL)
		return;
	error_context_stack = &context;
	require_usable(sink);
	for (int kind = 0; kind < MAKO_SINK_TEXTS; kind++)
	{
		double		expected;

		if (sink->texts[kind].text == NULL || (undo && kind == MAKO_SINK_STATEMENT))
			continue;
		mako_named_rows_set(sinks->moved, sinks->nothing, 1);
		mako_sql_check(statement_of(sinks, sink, kind, 1, &expected));
	}
	error_context_stack = context.previous;
}

/* Raises what sinks would raise before they write, or take back. */
void
mako_sinks_rehearse(MakoSinks *sinks, bool undo)
{
	for (int i = 0; sinks != NULL && i < sinks->count; i++)
		rehearse_sink(sinks, &sinks->list[i], undo);
}

/* Executes a text of a sink, if it has it. */
static void
execute_text(MakoSinks *sinks, MakoSink *sink, MakoSinkText kind, Tuplestorestate *moved,
			 int64 count)
{
	ErrorContextCallback context = {error_context_stack, add_context, sink};
	MakoStatement *statement;
	double		expected;

	if (sink->texts[kind].text == NULL || !OidIsValid(sink->owner))
		return;
	error_context_stack = &context;
	statement = statement_of(sinks, sink, kind, count, &expected);
	mako_named_rows_set(sinks->moved, moved, expected);
	(void) mako_sql_execute(statement, NULL);
	mako_named_rows_set(sinks->moved, sinks->nothing, 0);
	error_context_stack = context.previous;
}

/* Takes the locks of sinks, which go before all others of a run. */
void
mako_sinks_lock(MakoSinks *sinks)
{
	for (int i = 0; sinks != NULL && i < sinks->count; i++)
		execute_text(sinks, &sinks->list[i], MAKO_SINK_LOCK, sinks->nothing, 0);
}

/* Lets sinks take these rows, one after the other, or take them back, the last one first. */
void
mako_sinks_write(MakoSinks *sinks, bool undo, Tuplestorestate *moved, int64 count)
{
	for (int i = 0; i < sinks->count; i++)
	{
		MakoSink   *sink = &sinks->list[undo ? sinks->count - 1 - i : i];

		execute_text(sinks, sink, undo ? MAKO_SINK_UNDO : MAKO_SINK_STATEMENT, moved, count);
	}
}

/* ---- looking -------------------------------------------------------------------------------- */

/* A sink that is rehearsed alone. */
typedef struct Rehearsal
{
	MakoSinks  *sinks;
	MakoSink   *sink;
} Rehearsal;

static void
rehearse_alone(void *argument)
{
	const Rehearsal *rehearsal = argument;

	rehearse_sink(rehearsal->sinks, rehearsal->sink, false);
}

/* Why the sink of this place cannot be used, as an error; NULL where it can. Says its number. */
ErrorData *
mako_sinks_find_problem(MakoSinks *sinks, int place, int *number)
{
	Rehearsal	rehearsal = {sinks, &sinks->list[place]};

	*number = sinks->list[place].number;
	return mako_subtransaction_run(rehearse_alone, &rehearsal);
}

/* ---- adding and removing -------------------------------------------------------------------- */

MAKO_FUNCTION(mako_add_sink);
MAKO_FUNCTION(mako_remove_sink);

/* Raises what a sink that is about to be added would raise. */
static void
rehearse_new(const NullableDatum *values)
{
	MakoSink	sink = {.owner = GetUserId(),.path = mako_extension_path_of(values[3].value)};

	for (int i = 0; i < MAKO_SINK_TEXTS; i++)
		if (!values[i].isnull)
			sink.texts[i].text = TextDatumGetCString(values[i].value);
	sink.owner_name = GetUserNameFromId(sink.owner, false);
	mako_sinks_rehearse(make_sinks(&sink, 1), false);
}

/*
 * The number of a new sink: the next one, also after those that runs remember of an extension that
 * was dropped since. The caller need not be allowed to see runs: their owner looks.
 */
static int32
next_number(void)
{
	uint32		runs = mako_door_tables_in("mako.migration_run");
	MakoGate	gate = mako_gate_enter(mako_door_open_tables(runs));
	MakoRows	rows = mako_sql_query(&select_next_number, NULL);
	int32		number = mako_row_integer(&rows, 0, 1);

	mako_gate_leave(&gate);
	mako_rows_free(&rows);
	return number;
}

/* Lets what runs move go on to tables of the caller's: see the install script. */
Datum
mako_add_sink(PG_FUNCTION_ARGS)
{
	NullableDatum values[7] = {
		fcinfo->args[0], fcinfo->args[1], fcinfo->args[2], mako_extension_current_schemas()
	};
	MakoConnection connection;
	MakoRows	rows;
	int32		number;

	mako_require_value(!PG_ARGISNULL(0), "statement");
	mako_actors_bind_caller(4, values);
	connection = mako_register_begin("mako_add_sink()");
	mako_store_check();
	rehearse_new(values);
	rows = mako_sql_query(&select_same, values);
	if (rows.count > 0)
		number = mako_row_integer(&rows, 0, 1);
	else
	{
		number = next_number();
		values[6] = mako_integer(number);
		(void) mako_register_write(&insert_sink, values);
	}
	mako_rows_free(&rows);
	mako_sql_disconnect(connection);
	PG_RETURN_INT32(number);
}

/* Lets later runs leave a sink out: see the install script. */
Datum
mako_remove_sink(PG_FUNCTION_ARGS)
{
	NullableDatum number = fcinfo->args[0];
	char	   *name = psprintf("%d", PG_GETARG_INT32(0));
	MakoConnection connection = mako_register_begin("mako_remove_sink()");
	uint64		removed = 0;

	if (mako_register_require(&select_owner, &number, "sink", name, "added"))
		removed = mako_register_write(&remove_sink, &number);
	mako_sql_disconnect(connection);
	PG_RETURN_BOOL(removed > 0);
}
