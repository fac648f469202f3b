/*
 * plan.c
 *	  mako_plan(): what a migration would use and read, and what stands against it, before
 *	  anything is run or rehearsed.
 *
 * What makes a plan impossible, a workflow that is not registered or a way that there is not, is
 * the error that mako_migrate() raises. Everything else that it would refuse is a blocker, a
 * sentence each; so definitions are verified one by one, each in a subtransaction. While one of
 * them has changed, nothing is compiled from it: what is in flight and what is to be read stays
 * unknown. Nothing is locked or written. Memory is that of the call; that of a batch of heads is
 * reset for the next.
 */
#include "inspect/inspect.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

static MakoStatement select_functions = {
	"SELECT apply, upcast, in_flight FROM %s.mako_workflow WHERE workflow_id::text = $1",
	1, {TEXTOID}
};

static MakoStatement select_migrate = {
	"SELECT migrate FROM %s.mako_state_migration"
	" WHERE source_wf::text = $1 AND target_wf::text = $2",
	2, {TEXTOID, TEXTOID}
};

static MakoStatement select_exemption = {
	"SELECT reason FROM %s.mako_exemption WHERE workflow_id::text = $1", 1, {TEXTOID}
};

static MakoStatement select_unfinished = {
	"SELECT r.run_id::text, r.target_wf FROM mako.migration_run r"
	" WHERE r.kind = 'batched' AND r.finished_at IS NULL AND r.source_wf = $1"
	" ORDER BY r.run_id",
	1, {TEXTOID}
};

/* Columns of the result, in order. */
enum
{
	PLAN_STEP,
	PLAN_KIND,
	PLAN_SOURCE_WF,
	PLAN_TARGET_WF,
	PLAN_FUNCTION,
	PLAN_EVALUATION,
	PLAN_STREAMS,
	PLAN_IN_FLIGHT,
	PLAN_EVENTS,
	PLAN_SCAN_ORDER,
	PLAN_WORKERS,
	PLAN_BLOCKERS,
	PLAN_FINGERPRINT,
	PLAN_COLUMNS
};

/* A plan on its way to its rows; lives in the memory of the call. */
typedef struct Preview
{
	MakoRowSet *rows;
	const char *source_wf;
	const char *target_wf;
	const pg_uuid_t *tenant_id; /* NULL: all */
	bool		in_flight_only;
	int			steps;
	const char **ids;			/* steps + 1, from source to target */
	const MakoPlan *plan;		/* NULL while a definition on the path cannot be used */
	bool		has_apply;		/* the source, like the next one */
	bool		has_predicate;
	List	   *blockers;		/* of char *, a sentence each */
	MakoSinks  *sinks;			/* that a run would write to; NULL for none */
	int			workers;		/* that a run may have, by its transaction; */
	const char *why_no_workers; /* if that is 0 */
	int64		events;			/* after the boundaries, of the streams that match */
	int64		without_state;	/* streams of a workflow without apply that have no snapshot at
								 * their version */
} Preview;

/* What a subtransaction is about: a definition, a function or the fence. */
typedef struct Attempt
{
	const char *source_wf;
	const char *target_wf;		/* NULL for what is about one workflow */
	const char *signature;
	MakoRole	role;
	const char *evaluation;		/* the result, for a function */
} Attempt;

/* ---- blockers ------------------------------------------------------------------------------- */

/* Adds a sentence. */
static void
block(Preview *preview, char *sentence)
{
	preview->blockers = lappend(preview->blockers, sentence);
}

/* Adds what an error says, as sentences that begin like this. */
static void
block_error(Preview *preview, const char *begins, const ErrorData *error)
{
	const char *detail = error->detail;
	char	   *sentence = psprintf("%s%s.%s%s", begins, error->message, detail != NULL ? " " : "",
									detail != NULL ? detail : "");

	sentence[0] = pg_toupper((unsigned char) sentence[0]);
	block(preview, sentence);
}

/* Verifies one definition. */
static void
verify_definition(void *argument)
{
	const Attempt *attempt = argument;

	if (attempt->target_wf == NULL)
		(void) mako_definition_workflow(attempt->source_wf);
	else
		(void) mako_definition_migration(attempt->source_wf, attempt->target_wf);
}

/* Asks the fence whether streams may be moved to the target. */
static void
ask_fence(void *argument)
{
	mako_fence_check(((const Attempt *) argument)->source_wf, MAKO_FENCE_ENTER);
}

/* Returns true if a callback succeeds. Adds what it raises. */
static bool
passes(Preview *preview, void (*callback) (void *argument), const char *source_wf,
	   const char *target_wf)
{
	Attempt		attempt = {.source_wf = source_wf,.target_wf = target_wf};
	ErrorData  *error = mako_subtransaction_run(callback, &attempt);

	if (error != NULL)
		block_error(preview, "", error);
	return error == NULL;
}

/* Verifies every definition on the path; makes the plan if each can be used. */
static void
verify_definitions(Preview *preview)
{
	bool		usable = true;

	for (int i = 0; i <= preview->steps; i++)
	{
		usable = passes(preview, verify_definition, preview->ids[i], NULL) && usable;
		if (i < preview->steps)
			usable = passes(preview, verify_definition, preview->ids[i], preview->ids[i + 1]) &&
				usable;
	}
	if (usable)
		preview->plan = mako_plan_create(preview->source_wf, preview->target_wf);
}

/* Adds what is decided about the source, or is going on there. */
static void
block_source(Preview *preview)
{
	NullableDatum source_wf = mako_text(preview->source_wf);
	MakoRows	rows = mako_sql_query(&select_exemption, &source_wf);

	if (rows.count > 0)
		block(preview,
			  psprintf("Workflow \"%s\" is exempt (%s), so mako_migrate_version() leaves it out.",
					   preview->source_wf, mako_row_text(&rows, 0, 1)));
	mako_rows_free(&rows);

	if (mako_fence_source_is_locked(preview->source_wf))
		block(preview, psprintf("Another migration of \"%s\" is running.", preview->source_wf));

	rows = mako_sql_query(&select_unfinished, &source_wf);
	for (uint64 row = 0; row < rows.count; row++)
		block(preview,
			  psprintf("Batched run %s, to \"%s\", is not finished.", mako_row_text(&rows, row, 1),
					   mako_row_text(&rows, row, 2)));
	mako_rows_free(&rows);
}

/* Adds what the store lacks. */
static void
block_store(Preview *preview)
{
	const char *problems = mako_store_problems();

	if (problems == NULL)
		problems = mako_sequence_problems();
	if (problems != NULL)
		block(preview, psprintf("The store is damaged: %s.", problems));
	/* Without these tables there is nothing to say. */
	(void) mako_door_table("migration_run");
	(void) mako_door_table("snapshot");
}

/* Adds dependents that cannot follow. */
static void
block_dependents(Preview *preview)
{
	char	   *shared;
	ListCell   *cell;

	foreach(cell, mako_dependent_read())
	{
		const MakoDependent *dependent = lfirst(cell);

		if (dependent->problem != NULL)
			block(preview,
				  psprintf("Dependent %s cannot follow. %s", dependent->name, dependent->problem));
	}
	shared = mako_dependent_shared_process();
	if (shared != NULL)
		block(preview, shared);
}

/* Adds sinks that cannot be used. */
static void
block_sinks(Preview *preview)
{
	preview->sinks = mako_sinks_current();
	for (int i = 0; preview->sinks != NULL && i < preview->sinks->count; i++)
	{
		int			number;
		ErrorData  *error = mako_sinks_find_problem(preview->sinks, i, &number);

		if (error != NULL)
			block_error(preview, psprintf("Sink %d cannot be used: ", number), error);
	}
}

/* ---- functions ------------------------------------------------------------------------------ */

/* Finds out how a registered function is evaluated. */
static void
evaluate(void *argument)
{
	Attempt    *attempt = argument;
	const char *registered_for = attempt->target_wf == NULL ? attempt->source_wf :
		psprintf("%s -> %s", attempt->source_wf, attempt->target_wf);

	attempt->evaluation = mako_explain_evaluation(mako_function_lookup(attempt->signature,
																	   attempt->role,
																	   registered_for)->oid);
}

/*
 * Adds the row of a step, or of a function of the source; a function that cannot be used is a
 * blocker already.
 */
static void
add_step(const Preview *preview, int step, const char *kind, Attempt *attempt)
{
	NullableDatum values[PLAN_COLUMNS];

	for (int i = 0; i < PLAN_COLUMNS; i++)
		values[i] = mako_null();
	values[PLAN_STEP] = mako_integer(step);
	values[PLAN_KIND] = mako_text(kind);
	values[PLAN_SOURCE_WF] = mako_text(attempt->source_wf);
	values[PLAN_TARGET_WF] = mako_text(attempt->target_wf);
	values[PLAN_FUNCTION] = mako_text(attempt->signature);
	if (attempt->signature != NULL)
	{
		(void) mako_subtransaction_run(evaluate, attempt);
		values[PLAN_EVALUATION] = mako_text(attempt->evaluation);
	}
	mako_rowset_add(preview->rows, values);
}

/* Adds the functions of the source. */
static void
add_functions(Preview *preview)
{
	static const MakoRole roles[] = {MAKO_ROLE_APPLY, MAKO_ROLE_UPCAST, MAKO_ROLE_IN_FLIGHT};
	NullableDatum source_wf = mako_text(preview->source_wf);
	MakoRows	rows = mako_sql_query(&select_functions, &source_wf);

	for (size_t i = 0; i < lengthof(roles); i++)
	{
		Attempt		attempt = {
			.source_wf = preview->source_wf,.signature = mako_row_text(&rows, 0, i + 1),
			.role = roles[i]
		};

		if (attempt.signature == NULL)
			continue;
		preview->has_apply |= roles[i] == MAKO_ROLE_APPLY;
		preview->has_predicate |= roles[i] == MAKO_ROLE_IN_FLIGHT;
		add_step(preview, 0, mako_function_role(roles[i]), &attempt);
	}
	mako_rows_free(&rows);
}

/* Adds the steps of the path. */
static void
add_steps(const Preview *preview)
{
	for (int step = 1; step <= preview->steps; step++)
	{
		Attempt		attempt = {
			.source_wf = preview->ids[step - 1],.target_wf = preview->ids[step],
			.role = MAKO_ROLE_MIGRATE
		};
		NullableDatum values[] = {mako_text(attempt.source_wf), mako_text(attempt.target_wf)};
		MakoRows	rows = mako_sql_query(&select_migrate, values);

		attempt.signature = mako_row_text(&rows, 0, 1);
		mako_rows_free(&rows);
		add_step(preview, step, attempt.signature != NULL ? mako_function_role(MAKO_ROLE_MIGRATE) :
				 "identity", &attempt);
	}
}

/* ---- the total ------------------------------------------------------------------------------ */

/* Adds up what is to be read of some streams. */
static void
count_streams(Preview *preview, const MakoMover *mover, const MakoStream *streams, int count)
{
	for (int i = 0; i < count; i++)
	{
		const MakoStream *stream = &streams[i];

		if (preview->has_apply)
			preview->events += stream->boundary_missing ? stream->version :
				stream->version - stream->start;
		else if (stream->version > 0 && (mover->needs_state || stream->boundary_missing))
			preview->without_state += stream->start != stream->version || stream->boundary_missing;
	}
}

/* Looks at where every matching stream starts, with the active snapshot. */
static void
count_events(Preview *preview)
{
	MakoMover	mover = mako_mover(preview->plan, preview->in_flight_only);
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "mako batch",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = CurrentMemoryContext;
	MakoCursor *heads = mako_stream_open_heads(&preview->source_wf, 1, preview->tenant_id, false,
											   NULL);
	int			count;

	do
	{
		MakoStream *streams;

		CHECK_FOR_INTERRUPTS();
		MemoryContextReset(context);
		MemoryContextSwitchTo(context);
		streams = palloc(sizeof(MakoStream) * mako_batch_size);
		count = mako_stream_fetch_heads(heads, &preview->source_wf, 1, streams, mako_batch_size);
		for (int i = 0; i < count; i++)
			streams[i].periodic_too = mover.periodic_too;
		if (count > 0)
			mako_stream_load_states(streams, count);
		count_streams(preview, &mover, streams, count);
		MemoryContextSwitchTo(old);
	} while (count > 0);
	mako_cursor_close(heads);
	MemoryContextDelete(context);

	if (preview->without_state > 0)
		block(preview,
			  psprintf("The states of " INT64_FORMAT " streams are not known: workflow \"%s\" "
					   "has no apply function, and there is no snapshot at their version.",
					   preview->without_state, preview->source_wf));
}

/* How many workers would fold the streams of a run in heap order; 0, and why. */
static char *
workers_in_heap_order(const Preview *preview, int64 streams)
{
	const char *why_not = preview->why_no_workers;
	MakoFold   *fold = mako_fold_create(preview->plan);
	int			workers = mako_parallel_workers(preview->workers, streams, &fold, 1, &why_not);

	return workers > 0 ? psprintf("%d", workers) : psprintf("0: %s", why_not);
}

/* Adds the order in which a run would read events, and how many workers would fold. */
static void
add_ways(const Preview *preview, const MakoMatches *matches, NullableDatum *values)
{
	const char *why;
	bool		heap = mako_run_choose_heap_order(matches, &preview->source_wf,
												  preview->has_apply ? 1 : 0, preview->sinks,
												  &why);
	const char *workers = "0: events are read in key order";

	if (heap && preview->plan != NULL)
		workers = workers_in_heap_order(preview, mako_matches_under(matches, preview->source_wf));
	values[PLAN_SCAN_ORDER] = mako_text(psprintf("%s: %s", heap ? "heap" : "key", why));
	values[PLAN_WORKERS] = mako_text(preview->plan == NULL ? NULL : workers);
}

/* Adds the last row. */
static void
add_total(Preview *preview)
{
	const MakoMatches *matches = mako_matches_take(&preview->source_wf, 1, preview->tenant_id);
	int64		streams = mako_matches_under(matches, preview->source_wf);
	NullableDatum values[PLAN_COLUMNS];
	const char **blockers;
	int			count = 0;
	ListCell   *cell;

	for (int i = 0; i < PLAN_COLUMNS; i++)
		values[i] = mako_null();
	values[PLAN_KIND] = mako_text("total");
	values[PLAN_SOURCE_WF] = mako_text(preview->source_wf);
	values[PLAN_TARGET_WF] = mako_text(preview->target_wf);
	values[PLAN_STREAMS] = mako_bigint(streams);
	if (preview->plan != NULL)
	{
		count_events(preview);
		if (preview->has_predicate)
			streams = mako_coverage_in_flight(preview->source_wf, preview->tenant_id);
		values[PLAN_IN_FLIGHT] = mako_bigint(streams);
		values[PLAN_EVENTS] = mako_bigint(preview->events);
		values[PLAN_FINGERPRINT] = mako_text(preview->plan->fingerprint);
	}
	add_ways(preview, matches, values);
	blockers = palloc(sizeof(char *) * (list_length(preview->blockers) + 1));
	foreach(cell, preview->blockers)
		blockers[count++] = lfirst(cell);
	values[PLAN_BLOCKERS] = mako_text_array(blockers, count);
	mako_rowset_add(preview->rows, values);
}

MAKO_FUNCTION(mako_plan);

/* What mako_migrate() would use and read, and what stands against it. */
Datum
mako_plan(PG_FUNCTION_ARGS)
{
	Preview		preview = {.rows = mako_rowset_begin(fcinfo)};
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "mako plan",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	MakoConnection connection;

	preview.source_wf = mako_argument_text(fcinfo, 0, "source_wf");
	preview.target_wf = mako_argument_text(fcinfo, 1, "target_wf");
	mako_require_value(!PG_ARGISNULL(3), "in_flight_only");
	preview.tenant_id = PG_ARGISNULL(2) ? NULL : PG_GETARG_UUID_P(2);
	preview.in_flight_only = PG_GETARG_BOOL(3);
	preview.workers = mako_workers_wanted(&preview.why_no_workers);
	mako_plan_require_pair(preview.source_wf, preview.target_wf);

	connection = mako_sql_connect();
	block_store(&preview);
	mako_definition_require(preview.source_wf);
	mako_definition_require(preview.target_wf);
	preview.ids = mako_plan_ids(preview.source_wf, preview.target_wf, &preview.steps);
	verify_definitions(&preview);
	(void) passes(&preview, ask_fence, preview.target_wf, NULL);
	block_source(&preview);
	block_dependents(&preview);
	block_sinks(&preview);
	add_functions(&preview);
	add_steps(&preview);
	add_total(&preview);
	mako_sql_disconnect(connection);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	PG_RETURN_NULL();
}
