/*
 * check.c
 *	  mako_check(): what is wrong, or will be, with store, definitions and steps; one row a cause.
 *
 * What is to be found in tables and catalogs is asked in SQL: mako_step_finding(),
 * mako_store_finding(). Here is what needs parse trees and programs: the functions, looked through
 * as fingerprint.c does; and whether apply and migrate take everything that the type definitions
 * allow, tried with generated instances and with a sample of the store (check_values.c). Whatever
 * is examined is examined in a subtransaction, so that an error in it is a finding and not an
 * error of the check. Nothing is written or locked.
 */
#include "inspect/inspect.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

static MakoStatement select_store_problems = {
	"SELECT object, problem, repairable, split_part(object, ' ', 1) IN ('trigger', 'constraint',"
	" 'sequence') FROM %s.mako_store_problem()"
};

static MakoStatement select_store_findings = {
	.text = "SELECT severity, code, subject, message, hint FROM %s.mako_store_finding_rows()",
	.needs = "mako.stream mako.event mako.snapshot mako.repointed mako.reverted mako.dependent"
	" mako.migration_run"
};

static MakoStatement select_step_findings = {
	"SELECT severity, code, subject, message, hint FROM %s.mako_step_finding($1)", 1, {TEXTARRAYOID}
};

static MakoStatement select_retired = {
	"SELECT ARRAY(SELECT format_version FROM mako.format_version WHERE status = 'retired'"
	" ORDER BY 1)"
};

/* Workflows on a retired version that streams still run under. */
static MakoStatement select_left_behind = {
	"SELECT s.workflow_id, count(*), bool_or(w.in_flight IS NOT NULL)"
	" FROM mako.stream s JOIN mako.format_version f"
	" ON f.format_version = split_part(s.workflow_id, '@', 2) AND f.status = 'retired'"
	" JOIN %s.mako_workflow w ON w.workflow_id::text = s.workflow_id"
	" WHERE NOT EXISTS (SELECT FROM %s.mako_exemption x WHERE x.workflow_id::text = s.workflow_id)"
	" GROUP BY s.workflow_id ORDER BY s.workflow_id"
};

/* Workflows and steps, with their functions in the order of definition_roles. */
static MakoStatement select_definitions = {
	"SELECT workflow_id::text, NULL::text, apply, upcast, in_flight, NULL::text, function_owner,"
	" function_owner_identity"
	" FROM %s.mako_workflow"
	" UNION ALL SELECT source_wf::text, target_wf::text, NULL, NULL, NULL, migrate, function_owner,"
	" function_owner_identity"
	" FROM %s.mako_state_migration"
};

static const MakoRole definition_roles[] = {
	MAKO_ROLE_APPLY, MAKO_ROLE_UPCAST, MAKO_ROLE_IN_FLIGHT, MAKO_ROLE_MIGRATE
};

/* ---- the store ------------------------------------------------------------------------------ */

/* Looks at the store's objects; true when its tables can be read. */
static bool
check_store(MakoCheck *check)
{
	MakoRows	rows;
	bool		readable = true;
	const char *owner;

	if (!mako_door_exists())
	{
		mako_check_add(check, MAKO_INFO, "store_missing", "mako",
					   "there is no store in this database",
					   "Use SELECT mako_create_store(), unless only definitions are kept here.");
		return false;
	}
	owner = mako_door_untrusted_owner();
	if (owner != NULL)
	{
		mako_check_add(check, MAKO_ERROR, "store_owner", "mako",
					   psprintf("the store belongs to role \"%s\", "
								"of which role \"%s\" is not a member by grant", owner,
								GetUserNameFromId(GetUserId(), false)),
					   psprintf("Its tables do what that role wants, so they are not looked at. "
								"Use SET ROLE %s.", quote_identifier(owner)));
		return false;
	}
	rows = mako_sql_query_snapshot(&select_store_problems, NULL);
	for (uint64 row = 0; row < rows.count; row++)
	{

		readable = readable && mako_row_boolean(&rows, row, 4);
		mako_check_add(check, MAKO_ERROR, "store_damaged", mako_row_text(&rows, row, 1),
					   psprintf("%s %s",
								mako_row_text(&rows, row, 1), mako_row_text(&rows, row, 2)),
					   mako_row_boolean(&rows, row, 3) ?
					   "Repair the store with SELECT mako_create_store()." :
					   "Restore the store from a backup.");
	}
	mako_rows_free(&rows);
	return readable;
}

/* Finds what is wrong with the schema of the extension. */
static void
check_extension_schema(MakoCheck *check)
{
	bool		may_create;
	const char *why = mako_extension_schema_is_open(&may_create);

	if (why == NULL)
		return;
	mako_check_add(check, may_create ? MAKO_ERROR : MAKO_WARNING, "schema_open",
				   get_namespace_name(mako_extension_schema()),
				   psprintf("the extension is in a schema that is open to others: %s", why),
				   may_create ?
				   "REVOKE CREATE on it, or create the extension in a schema of its own." :
				   "Registered functions do not have it on their path. "
				   "Create the extension in a schema of its own.");
}

/* Finds dependents that cannot follow. */
static void
check_dependents(MakoCheck *check)
{
	ListCell   *cell;

	foreach(cell, mako_dependent_read())
	{
		const MakoDependent *dependent = lfirst(cell);

		if (dependent->problem != NULL)
			mako_check_add(check, MAKO_ERROR, dependent->is_missing ? "dependent_missing" :
						   "dependent_unusable", dependent->name,
						   psprintf("it cannot follow its processes: %s", dependent->problem),
						   "Mend it and add it again, or use mako_remove_dependent(): "
						   "migrations fail until then.");
	}
	{
		const char *shared = mako_dependent_shared_process();

		if (shared != NULL)
			mako_check_add(check, MAKO_ERROR, "dependent_ambiguous", "mako.dependent", shared,
						   "Add it again with its tenant column, "
						   "or with a column of stream ids or stream numbers.");
	}
}

/* Finds sinks that cannot be used. */
static void
check_sinks(MakoCheck *check)
{
	MakoSinks  *sinks = mako_sinks_current();

	for (int i = 0; sinks != NULL && i < sinks->count; i++)
	{
		int			number;
		const ErrorData *error = mako_sinks_find_problem(sinks, i, &number);

		if (error != NULL)
			mako_check_add(check, MAKO_ERROR, "sink_unusable", psprintf("sink %d", number),
						   psprintf("it cannot be used: %s%s%s", error->message,
									error->detail != NULL ? ": " : "",
									error->detail != NULL ? error->detail : ""),
						   "Mend what it needs, or use mako_remove_sink(): "
						   "migrations fail until then.");
	}
}

/* A workflow whose streams in flight are to be counted. */
typedef struct LeftBehind
{
	const char *workflow_id;
	int64		in_flight;
} LeftBehind;

/* Counts them. */
static void
count_in_flight(void *argument)
{
	LeftBehind *left = argument;

	left->in_flight = mako_coverage_in_flight(left->workflow_id, NULL);
}

/* Finds what is in flight on retired versions. */
static void
check_left_behind(MakoCheck *check)
{
	MakoRows	rows = mako_sql_query_snapshot(&select_left_behind, NULL);

	for (uint64 row = 0; row < rows.count; row++)
	{
		LeftBehind	left = {mako_row_text(&rows, row, 1), mako_row_bigint(&rows, row, 2)};

		/* A definition that is broken has findings of its own. */
		if (mako_row_boolean(&rows, row, 3) &&
			mako_subtransaction_run(count_in_flight, &left) != NULL)
			continue;
		if (left.in_flight > 0)
			mako_check_add(check, MAKO_ERROR, "in_flight_on_retired", left.workflow_id,
						   psprintf(INT64_FORMAT " streams are in flight on a retired version",
									left.in_flight),
						   "Reactivate the version with mako_reactivate(), "
						   "then migrate them or exempt the workflow.");
	}
	mako_rows_free(&rows);
}

/* ---- definitions ---------------------------------------------------------------------------- */

/* A function being looked up. */
typedef struct Lookup
{
	const char *signature;
	MakoRole	role;
	const char *registered_for;
	MakoFunction *function;
} Lookup;

/* Looks it up. */
static void
look_up(void *argument)
{
	Lookup	   *lookup = argument;

	lookup->function = mako_function_lookup(lookup->signature, lookup->role,
											lookup->registered_for);
}

/* A definition being verified. */
static void
verify_registered(void *argument)
{
	const MakoDefinition *definition = argument;

	if (definition->target_wf == NULL)
		(void) mako_definition_workflow(definition->source_wf);
	else
		(void) mako_definition_migration(definition->source_wf, definition->target_wf);
}

/* Adds what an error means that a function was not found with. */
static void
add_lookup_error(MakoCheck *check, const char *name, const ErrorData *error)
{
	const char *code = "function_unusable";

	if (error->sqlerrcode == ERRCODE_UNDEFINED_FUNCTION ||
		error->sqlerrcode == ERRCODE_UNDEFINED_OBJECT ||
		error->sqlerrcode == ERRCODE_UNDEFINED_SCHEMA)
		code = "function_missing";
	else if (error->sqlerrcode == ERRCODE_INVALID_OBJECT_DEFINITION)
		code = "function_volatile";
	mako_check_add(check, MAKO_ERROR, code, name, mako_check_text(error),
				   error->hint != NULL ? error->hint :
				   "Restore it, or register another one with replace => true.");
}

/* Adds what an error means that a definition was not verified with. */
static void
add_definition_error(MakoCheck *check, const char *name, const ErrorData *error)
{
	const char *code = "definition_broken";

	if (error->sqlerrcode == ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE)
		code = "definition_changed";
	else if (error->message_id != NULL && strcmp(error->message_id, MAKO_OTHER_OWNER) == 0)
		code = "owner_changed"; /* of a helper */
	else if (ERRCODE_TO_CATEGORY(error->sqlerrcode) ==
			 ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION &&
			 error->sqlerrcode != ERRCODE_INSUFFICIENT_PRIVILEGE)
		code = "name_not_found";
	mako_check_add(check, MAKO_ERROR, code, name,
				   error->context == NULL || strcmp(code, "definition_changed") == 0 ||
				   strcmp(code, "owner_changed") == 0 ? mako_check_text(error) :
				   psprintf("%s (%s)", mako_check_text(error),
							pnstrdup(error->context, strcspn(error->context, "\n"))),
				   strcmp(code, "name_not_found") == 0 ?
				   "Qualify the names in the body: it runs on a path of its own." : error->hint);
}

/* Checks a definition and its functions; notes it when it can be used. */
static void
check_definition(MakoCheck *check, MakoDefinition *definition, const MakoRows *rows, uint64 row)
{
	MakoOwners	owners = mako_definition_owners(rows, row, 7);
	int			owner = 0;
	ErrorData  *error;

	definition->usable = true;
	for (size_t i = 0; i < lengthof(definition_roles); i++)
	{
		Lookup		lookup = {
			mako_row_text(rows, row, 3 + i), definition_roles[i], definition->name
		};
		int			number;

		if (lookup.signature == NULL)
			continue;
		number = owner++;
		error = mako_subtransaction_run(look_up, &lookup);
		if (error != NULL)
		{
			add_lookup_error(check, definition->name, error);
			definition->usable = false;
			continue;
		}
		if (number >= owners.count ||
			!mako_role_is(lookup.function->owner, owners.name[number], owners.identity[number]))
		{
			mako_check_add(check, MAKO_ERROR, "owner_changed", definition->name,
						   psprintf("function %s belongs to role \"%s\", "
									"but belonged to \"%s\" when it was registered",
									lookup.signature,
									GetUserNameFromId(lookup.function->owner, false),
									number < owners.count ? owners.name[number] : ""),
						   "It would run with other rights. "
						   "Register it again with replace => true.");
			definition->usable = false;
		}
		mako_check_body(check, lookup.function);
		if (definition->target_wf == NULL && definition_roles[i] == MAKO_ROLE_APPLY)
			definition->has_apply = true;
	}
	if (!definition->usable)
		return;
	error = mako_subtransaction_run(verify_registered, definition);
	if (error != NULL)
	{
		add_definition_error(check, definition->name, error);
		definition->usable = false;
	}
}

/* Checks all definitions, and returns them. */
static List *
check_registered(MakoCheck *check)
{
	MakoRows	rows = mako_sql_query_snapshot(&select_definitions, NULL);
	List	   *definitions = NIL;

	for (uint64 row = 0; row < rows.count; row++)
	{
		MakoDefinition *definition = palloc0(sizeof(MakoDefinition));

		CHECK_FOR_INTERRUPTS();
		definition->source_wf = mako_row_text(&rows, row, 1);
		definition->target_wf = mako_row_text(&rows, row, 2);
		definition->name = definition->target_wf == NULL ? definition->source_wf :
			psprintf("%s -> %s", definition->source_wf, definition->target_wf);
		check_definition(check, definition, &rows, row);
		definitions = lappend(definitions, definition);
	}
	mako_rows_free(&rows);
	return definitions;
}

/* Finds pairs that cannot be migrated in one call, because there are two ways. */
static void
check_ways(MakoCheck *check, const List *definitions)
{
	ListCell   *cell;

	foreach(cell, definitions)
	{
		const MakoDefinition *definition = lfirst(cell);
		ListCell   *junction;

		if (definition->target_wf != NULL)
			continue;
		foreach(junction, mako_plan_junctions(definition->source_wf))
			mako_check_add(check, MAKO_WARNING, "ambiguous_path",
						   psprintf("%s -> %s",
									definition->source_wf, (const char *) lfirst(junction)),
						   "more than one shortest path leads there",
						   "Migrate step by step, or register a direct step.");
	}
}

/* ---- the call ------------------------------------------------------------------------------- */

MAKO_FUNCTION(mako_store_finding);

/* What is wrong in the tables of the store. */
Datum
mako_store_finding(PG_FUNCTION_ARGS)
{
	MakoRowSet *rows = mako_rowset_begin(fcinfo);
	MakoConnection connection = mako_sql_connect();

	mako_rowset_add_rows(rows, mako_sql_query_snapshot(&select_store_findings, NULL));
	mako_sql_disconnect(connection);
	PG_RETURN_NULL();
}

MAKO_FUNCTION(mako_check);

/* What is wrong, one cause a row. */
Datum
mako_check(PG_FUNCTION_ARGS)
{
	MakoRowSet *rows;
	MakoConnection connection;
	MakoCheck	check = {.context = CurrentMemoryContext};
	const MakoFinding *last = NULL;
	NullableDatum retired;
	List	   *definitions;
	ListCell   *cell;

	mako_require_value(!PG_ARGISNULL(0), "sample");
	if (PG_GETARG_INT32(0) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("sample must not be negative"),
				 errdetail("It is %d.", PG_GETARG_INT32(0))));
	rows = mako_rowset_begin(fcinfo);
	connection = mako_sql_connect();
	retired = mako_datum(PointerGetDatum(construct_empty_array(TEXTOID)));

	check_extension_schema(&check);
	check.has_store = check_store(&check);
	if (check.has_store)
	{
		MakoRows	versions = mako_sql_query_snapshot(&select_retired, NULL);

		retired.value = PointerGetDatum(DatumGetArrayTypePCopy(mako_row_datum(&versions, 0, 1,
																			  TEXTARRAYOID)));
		mako_rows_free(&versions);
		mako_check_add_rows(&check, mako_sql_query_snapshot(&select_store_findings, NULL));
		check_dependents(&check);
		check_sinks(&check);
		check_left_behind(&check);
	}
	definitions = check_registered(&check);
	mako_check_add_rows(&check, mako_sql_query_snapshot(&select_step_findings, &retired));
	check_ways(&check, definitions);
	mako_check_values(&check, definitions, PG_GETARG_INT32(0));

	list_sort(check.findings, mako_check_compare);
	foreach(cell, check.findings)
	{
		const MakoFinding *finding = lfirst(cell);
		NullableDatum values[] = {
			mako_text(mako_severity_name[finding->severity]), mako_text(finding->code),
			mako_text(finding->subject), mako_text(finding->message), mako_text(finding->hint)
		};

		/* What several definitions share is found with each of them. */
		if (last == NULL ||
			mako_check_compare(cell,
							   &(ListCell) {.ptr_value = unconstify(MakoFinding *, last)}) != 0)
			mako_rowset_add(rows, values);
		last = finding;
	}
	mako_sql_disconnect(connection);
	PG_RETURN_NULL();
}
