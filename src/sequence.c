/*
 * sequence.c
 *	  The sequences that number streams and runs: which of them lag behind their tables, and who may choose a number beyond them.
 *
 * A sequence is not part of its table. Logical replication does not carry it, so on a replica that has become the server it lags, and
 * numbers that are there would be given again; and a row that brings its own number goes past it. Sequences are found as what they are to
 * their columns, whatever they are called, and are read and set as the owner of the table.
 */
#include "door.h"
#include "gate.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_sequence.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

/* Numbers that must be left after the highest one. */
#define ROOM 1000000000

/* A column that a sequence numbers. */
typedef struct Numbered
{
	const char *table;
	const char *column;
	MakoStatement select_highest;
} Numbered;

static Numbered numbered[] = {
	{"stream", "stream_no", {"SELECT pg_catalog.max(s.stream_no) FROM mako.stream s"}},
	{"migration_run", "run_id", {"SELECT pg_catalog.max(r.run_id) FROM mako.migration_run r"}},
};

/* How a sequence lags behind its column. */
typedef struct Lag
{
	Oid			relation;
	Oid			owner;			/* of the relation */
	Oid			sequence;
	int64		highest;		/* number in the table */
	bool		leaves_room;	/* for new ones */
} Lag;

/* The sequence of an identity column; InvalidOid where another default of its owner's numbers the rows. */
static Oid
find_sequence(Relation relation, const char *column)
{
	AttrNumber	attribute = get_attnum(RelationGetRelid(relation), column);

	return attribute == InvalidAttrNumber ? InvalidOid : MakoIdentitySequence(relation, attribute);
}

/* The last number that a sequence has given; 0 before the first. */
static int64
last_number(Oid sequence)
{
	LOCAL_FCINFO(call, 1);
	Datum		last;

	InitFunctionCallInfoData(*call, NULL, 1, InvalidOid, NULL, NULL);
	call->args[0].value = ObjectIdGetDatum(sequence);
	call->args[0].isnull = false;
	last = pg_sequence_last_value(call);
	return call->isnull ? 0 : DatumGetInt64(last);
}

/* The last number that a sequence can give. */
static int64
end_of(Oid sequence)
{
	HeapTuple	tuple = SearchSysCache1(SEQRELID, ObjectIdGetDatum(sequence));
	int64		end;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for sequence %u", sequence);	/* cannot happen */
	end = ((Form_pg_sequence) GETSTRUCT(tuple))->seqmax;
	ReleaseSysCache(tuple);
	return end;
}

/* Returns true if there is enough left after a number. */
static bool
leaves_room(Oid sequence, int64 number)
{
	return number <= end_of(sequence) - ROOM;
}

/* The name of a sequence, with its schema. */
static char *
name_of(Oid sequence)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(sequence)), get_rel_name(sequence));
}

/*
 * Lets a sequence go on after a number, never backwards: those who set it wait for each other. Those who take numbers from it meanwhile do
 * not; to pass this one before it is set they would have to take every number up to it.
 */
static void
advance(Oid sequence, int64 number)
{
	if (!leaves_room(sequence, number))
		ereport(ERROR,
				(errcode(ERRCODE_SEQUENCE_GENERATOR_LIMIT_EXCEEDED),
				 errmsg("number " INT64_FORMAT " leaves no room for new ones", number),
				 errdetail("The numbers of sequence %s end at " INT64_FORMAT ".", name_of(sequence), end_of(sequence)),
				 errhint("Choose a smaller number, at least %d before that.", ROOM)));
	LockRelationOid(sequence, ShareUpdateExclusiveLock);
	if (last_number(sequence) < number)
		(void) DirectFunctionCall2(setval_oid, ObjectIdGetDatum(sequence), Int64GetDatum(number));
	UnlockRelationOid(sequence, ShareUpdateExclusiveLock);
}

/* Finds out whether a sequence lags. A table that the door would not open is another problem of the store's. */
static bool
lags(Numbered *column, Lag *lag)
{
	Relation	relation;
	MakoGate	gate;
	MakoRows	rows;
	bool		behind = false;

	if (!mako_door_would_open(column->table))
		return false;
	lag->relation = mako_door_table(column->table);
	relation = table_open(lag->relation, AccessShareLock);
	lag->owner = relation->rd_rel->relowner;
	lag->sequence = find_sequence(relation, column->column);
	if (OidIsValid(lag->sequence))
	{
		gate = mako_gate_enter(lag->owner);
		rows = mako_sql_query(&column->select_highest, NULL, NULL);
		lag->highest = mako_row_bigint_or(&rows, 0, 1, 0);
		mako_rows_free(&rows);
		behind = last_number(lag->sequence) < lag->highest;
		lag->leaves_room = behind && leaves_room(lag->sequence, lag->highest);
		mako_gate_leave(&gate);
	}
	table_close(relation, AccessShareLock);
	return behind;
}

/* What is wrong with a sequence, as mako_store_problem() tells it. */
static char *
describe(const Numbered *column, const Lag *lag)
{
	return psprintf("is behind column mako.%s.%s%s", column->table, column->column,
					lag->leaves_room ? "" : ", whose highest number leaves no room for new ones");
}

/* The sequences that lag, as a list; NULL for none. Within a connection. */
const char *
mako_sequence_problems(void)
{
	StringInfoData list;

	initStringInfo(&list);
	for (size_t i = 0; i < lengthof(numbered); i++)
	{
		Lag			lag;

		if (lags(&numbered[i], &lag))
			appendStringInfo(&list, "%ssequence %s %s", list.len > 0 ? ", " : "", name_of(lag.sequence), describe(&numbered[i], &lag));
	}
	return list.len > 0 ? list.data : NULL;
}

/* Lets every sequence go on after the numbers that are in its table, for those who have its owner's rights. Within a connection. */
void
mako_sequence_catch_up(void)
{
	for (size_t i = 0; i < lengthof(numbered); i++)
	{
		Lag			lag;
		MakoGate	gate;

		(void) mako_door_table(numbered[i].table);	/* raises where the door does not open it */
		if (!lags(&numbered[i], &lag))
			continue;
		if (!has_privs_of_role(GetUserId(), lag.owner))
			aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, numbered[i].table);
		gate = mako_gate_enter(lag.owner);
		advance(lag.sequence, lag.highest);
		mako_gate_leave(&gate);
	}
}

/*
 * Checks the highest number of new streams, as the owner of their table. Beyond the sequence, others' streams would meet it later: only
 * who has the owner's rights may go there, as an import does, and takes the sequence along.
 */
void
mako_sequence_pass(Relation stream, int64 highest, Oid role)
{
	Oid			sequence = find_sequence(stream, "stream_no");

	if (!OidIsValid(sequence) || highest <= last_number(sequence))
		return;
	if (!has_privs_of_role(role, stream->rd_rel->relowner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to choose the number of a stream"),
				 errdetail("Number " INT64_FORMAT " is beyond those that sequence %s has given.", highest, name_of(sequence)),
				 errhint("Insert the head without a number, or as the owner of its table, \"%s\".",
						 GetUserNameFromId(stream->rd_rel->relowner, false))));
	advance(sequence, highest);
}

MAKO_FUNCTION(mako_sequence_problem);
MAKO_FUNCTION(mako_advance_sequences);

/* The sequences that lag, one a row. */
Datum
mako_sequence_problem(PG_FUNCTION_ARGS)
{
	MakoRowSet *result = mako_rowset_begin(fcinfo);
	MakoConnection connection = mako_sql_connect();

	for (size_t i = 0; i < lengthof(numbered); i++)
	{
		Lag			lag;

		if (lags(&numbered[i], &lag))
		{
			Datum		values[] = {
				CStringGetTextDatum(psprintf("sequence %s", name_of(lag.sequence))),
				CStringGetTextDatum(describe(&numbered[i], &lag)), BoolGetDatum(lag.leaves_room)
			};
			bool		nulls[3] = {false};

			mako_rowset_add(result, values, nulls);
		}
	}
	mako_sql_disconnect(connection);
	PG_RETURN_NULL();
}

/* Lets every sequence go on after the numbers that are in its table. */
Datum
mako_advance_sequences(PG_FUNCTION_ARGS)
{
	MakoConnection connection = mako_sql_connect();

	mako_sequence_catch_up();
	mako_sql_disconnect(connection);
	PG_RETURN_VOID();
}
