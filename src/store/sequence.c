/*
 * sequence.c
 *	  The sequences that number streams and runs: which of them give no new numbers, and who may
 *	  choose a number beyond them.
 *
 * A sequence is not part of its table. Logical replication does not carry it, so on a replica that
 * has become the server it lags, and numbers that are there would be given again; and a row that
 * brings its own number goes past it. Its owner may have made it count backwards, or have used it
 * up. Sequences are found as what they are to their columns, whatever they are called, and are
 * read and set as the owner of the table.
 */
#include "store/store.h"

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

/* With fewer left, a sequence is as good as used up. */
#define LITTLE_ROOM 1000000

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

/* Why a column gets no new numbers. */
typedef enum Trouble
{
	NO_TROUBLE,
	NO_NUMBERS,					/* neither a sequence nor a default gives any */
	DESCENDING,					/* the sequence counts backwards */
	BEHIND,						/* it lags behind the numbers in the table */
	BEHIND_WITHOUT_ROOM,		/* and there is not enough left after them */
	USED_UP,					/* it has given nearly all that it can give */
} Trouble;

/* A sequence and its column. */
typedef struct Lag
{
	Oid			owner;			/* of the relation */
	Oid			sequence;		/* or InvalidOid */
	int64		highest;		/* number in the table */
	Trouble		trouble;
} Lag;

/*
 * The sequence of an identity column; InvalidOid where another default of its owner's numbers the
 * rows.
 */
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

/* The last number that a sequence can give, and by how much it counts. */
static int64
end_of(Oid sequence, int64 *increment)
{
	HeapTuple	tuple = SearchSysCache1(SEQRELID, ObjectIdGetDatum(sequence));
	int64		end;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for sequence %u", sequence);	/* cannot happen */
	end = ((Form_pg_sequence) GETSTRUCT(tuple))->seqmax;
	*increment = ((Form_pg_sequence) GETSTRUCT(tuple))->seqincrement;
	ReleaseSysCache(tuple);
	return end;
}

/* Returns true if there is enough left after a number. */
static bool
leaves_room(Oid sequence, int64 number)
{
	int64		increment;

	return number <= end_of(sequence, &increment) - ROOM;
}

/* The name of a sequence, with its schema. */
static char *
name_of(Oid sequence)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(sequence)),
									  get_rel_name(sequence));
}

/*
 * Lets a sequence go on after a number, never backwards: those who set it wait for each other.
 * Those who take numbers from it meanwhile do not; to pass this one before it is set they would
 * have to take every number up to it.
 */
static void
advance(Oid sequence, int64 number)
{
	int64		increment;

	if (!leaves_room(sequence, number))
		ereport(ERROR,
				(errcode(ERRCODE_SEQUENCE_GENERATOR_LIMIT_EXCEEDED),
				 errmsg("number " INT64_FORMAT " leaves no room for new ones", number),
				 errdetail("The numbers of sequence %s end at " INT64_FORMAT ".",
						   name_of(sequence), end_of(sequence, &increment)),
				 errhint("Choose a smaller number, at least %d before that.", ROOM)));
	LockRelationOid(sequence, ShareUpdateExclusiveLock);
	if (last_number(sequence) < number)
		(void) DirectFunctionCall2(setval_oid, ObjectIdGetDatum(sequence), Int64GetDatum(number));
	UnlockRelationOid(sequence, ShareUpdateExclusiveLock);
}

/* Returns true if a column has a default of its owner's. */
static bool
has_default(Relation relation, const char *column)
{
	AttrNumber	attribute = get_attnum(RelationGetRelid(relation), column);

	return attribute == InvalidAttrNumber ||
		TupleDescAttr(RelationGetDescr(relation), attribute - 1)->atthasdef;
}

/*
 * What is wrong with a sequence that has given this number, 0 before the first, and whose column
 * has that one.
 */
static Trouble
find_trouble(Oid sequence, int64 last, int64 highest)
{
	int64		increment;
	int64		end = end_of(sequence, &increment);

	if (increment < 0)
		return DESCENDING;
	if (last < highest)
		return leaves_room(sequence, highest) ? BEHIND : BEHIND_WITHOUT_ROOM;
	return (end - last) / increment >= LITTLE_ROOM ? NO_TROUBLE : USED_UP;
}

/*
 * Finds out whether a column gets new numbers. A table that the door would not open is another
 * problem of the store's.
 */
static bool
is_in_trouble(Numbered *column, Lag *lag)
{
	Relation	relation;
	MakoGate	gate;
	MakoRows	rows;

	if (!mako_door_would_open(column->table))
		return false;
	relation = table_open(mako_door_table(column->table), AccessShareLock);
	lag->owner = relation->rd_rel->relowner;
	lag->sequence = find_sequence(relation, column->column);
	if (OidIsValid(lag->sequence))
	{
		gate = mako_gate_enter(lag->owner);
		rows = mako_sql_query(&column->select_highest, NULL);
		lag->highest = mako_row_bigint_or(&rows, 0, 1, 0);
		mako_rows_free(&rows);
		lag->trouble = find_trouble(lag->sequence, last_number(lag->sequence), lag->highest);
		mako_gate_leave(&gate);
	}
	else
		lag->trouble = has_default(relation, column->column) ? NO_TROUBLE : NO_NUMBERS;
	table_close(relation, AccessShareLock);
	return lag->trouble != NO_TROUBLE;
}

/* What is in trouble, as mako_store_problem() names it. */
static char *
sequence_subject(const Numbered *column, const Lag *lag)
{
	return OidIsValid(lag->sequence) ? psprintf("sequence %s", name_of(lag->sequence)) :
		psprintf("column mako.%s.%s", column->table, column->column);
}

/* What is wrong with it. */
static char *
describe(const Numbered *column, const Lag *lag)
{
	switch (lag->trouble)
	{
		case NO_NUMBERS:
			return pstrdup("has neither an identity nor a default: nothing numbers its rows");
		case DESCENDING:
			return psprintf("of column mako.%s.%s counts backwards", column->table, column->column);
		case USED_UP:
			return psprintf("of column mako.%s.%s leaves no room for new numbers",
							column->table, column->column);
		case BEHIND_WITHOUT_ROOM:
			return psprintf("is behind column mako.%s.%s, whose highest number "
							"leaves no room for new ones", column->table, column->column);
		default:
			return psprintf("is behind column mako.%s.%s", column->table, column->column);
	}
}

/* The columns that get no new numbers, as a list; NULL for none. Within a connection. */
const char *
mako_sequence_problems(void)
{
	StringInfoData list;

	initStringInfo(&list);
	for (size_t i = 0; i < lengthof(numbered); i++)
	{
		Lag			lag;

		if (is_in_trouble(&numbered[i], &lag))
			appendStringInfo(&list, "%s%s %s", list.len > 0 ? ", " : "",
							 sequence_subject(&numbered[i], &lag), describe(&numbered[i], &lag));
	}
	return list.len > 0 ? list.data : NULL;
}

/*
 * Lets every sequence go on after the numbers that are in its table, for those who have its
 * owner's rights. Within a connection.
 */
void
mako_sequence_catch_up(void)
{
	for (size_t i = 0; i < lengthof(numbered); i++)
	{
		Lag			lag;
		MakoGate	gate;

		(void) mako_door_table(numbered[i].table);	/* raises where the door does not open it */
		if (!is_in_trouble(&numbered[i], &lag) ||
			(lag.trouble != BEHIND && lag.trouble != BEHIND_WITHOUT_ROOM))
			continue;
		if (!has_privs_of_role(GetUserId(), lag.owner))
			aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, numbered[i].table);
		gate = mako_gate_enter(lag.owner);
		advance(lag.sequence, lag.highest);
		mako_gate_leave(&gate);
	}
}

/*
 * Checks the highest number of new streams, as the owner of their table. Beyond the sequence,
 * streams of other roles would meet it later. Only a role with the owner's rights may go there, as
 * an import does, and takes the sequence along.
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
				 errdetail("Number " INT64_FORMAT " is beyond those that sequence %s has given.",
						   highest, name_of(sequence)),
				 errhint("Insert the head without a number, or as the owner of its table, \"%s\".",
						 GetUserNameFromId(stream->rd_rel->relowner, false))));
	advance(sequence, highest);
}

MAKO_FUNCTION(mako_sequence_problem);
MAKO_FUNCTION(mako_advance_sequences);

/* The columns that get no new numbers, one a row. */
Datum
mako_sequence_problem(PG_FUNCTION_ARGS)
{
	MakoRowSet *result = mako_rowset_begin(fcinfo);
	MakoConnection connection = mako_sql_connect();

	for (size_t i = 0; i < lengthof(numbered); i++)
	{
		Lag			lag;

		if (is_in_trouble(&numbered[i], &lag))
		{
			NullableDatum values[] = {
				mako_text(sequence_subject(&numbered[i], &lag)),
				mako_text(describe(&numbered[i], &lag)), mako_boolean(lag.trouble == BEHIND)
			};

			mako_rowset_add(result, values);
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
