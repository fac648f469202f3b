/*
 * expect.c
 *	  What a stream must be before its events are folded: events up to its head without a gap, and
 *	  a stored state of today's schema version.
 */
#include "fold/fold.h"

/* Raises that the events of a stream are not what its head says. */
static void
raise_gap(const MakoStream *stream, int64 expected, int64 found)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("the events of the stream do not run to its head without a gap"),
			 found == 0 ?
			 errdetail("The head is at version " INT64_FORMAT ". Expected sequence "
					   "number " INT64_FORMAT ", found none.",
					   stream->version, expected) :
			 expected > stream->version ?
			 errdetail("The head is at version " INT64_FORMAT ", but there "
					   "is an event " INT64_FORMAT ".",
					   stream->version, found) :
			 errdetail("The head is at version " INT64_FORMAT ". Expected sequence "
					   "number " INT64_FORMAT ", found " INT64_FORMAT ".",
					   stream->version, expected, found)));
}

/* Raises unless this is the event that is expected next. */
void
mako_expect_next(const MakoStream *stream, int64 expected, const MakoEvent *event)
{
	if (event->sequence_number != expected || expected > stream->version)
		raise_gap(stream, expected, event->sequence_number);
}

/* Raises unless this was the last event that is expected. */
void
mako_expect_end(const MakoStream *stream, int64 expected)
{
	if (expected <= stream->version)
		raise_gap(stream, expected, 0);
}

/* Raises when a stream starts where it has not come yet. */
void
mako_expect_start(const MakoStream *stream)
{
	if (stream->start > stream->version)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("the boundary of the stream is beyond its head"),
				 errdetail("The head is at version " INT64_FORMAT ", the migration snapshot "
						   "at sequence number " INT64_FORMAT ".",
						   stream->version, stream->start)));
}

/*
 * Raises unless a stored state was written under the state schema version that its workflow has
 * now.
 */
void
mako_expect_schema_version(const MakoWorkflow *workflow, int64 sequence_number,
						   int state_schema_version)
{
	if (state_schema_version != workflow->state_schema_version)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the snapshot at sequence number " INT64_FORMAT " has "
						"state schema version %d",
						sequence_number, state_schema_version),
				 errdetail("Workflow \"%s\" is registered with state schema version %d.",
						   workflow->workflow_id, workflow->state_schema_version)));
}
