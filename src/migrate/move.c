/*
 * move.c
 *	  One stream on its way to another workflow: from what it starts from to the state that it will
 *	  have there. Nothing is written here, so a migration and its rehearsal do the same.
 */
#include "migrate/migrate.h"

/* How the streams of a workflow move along a plan. */
MakoMover
mako_mover(const MakoPlan *plan, bool in_flight_only)
{
	const MakoWorkflow *source = plan->workflows[0];
	MakoMover	mover = {plan, in_flight_only};

	mover.needs_state = source->apply != NULL || !plan->identity ||
		(in_flight_only && source->in_flight != NULL);
	mover.periodic_too = source->apply == NULL && mover.needs_state;
	return mover;
}

/*
 * Folds a stream to its head; false when it is refused. The reader is NULL where the workflow has
 * no apply.
 */
static bool
fold_to_head(const MakoMover *mover, MakoFold *fold, MakoReplay *replay, const MakoStream *stream,
			 MakoReader *reader)
{
	if (reader != NULL)
		return mako_replay_stream(replay, fold, stream, reader);
	mako_replay_stored(fold, stream);
	return true;
}

/*
 * Takes one stream from its events to its move. Returns false if the fold refuses it. States are
 * in the fold's memory and last until its next stream.
 */
bool
mako_mover_take(const MakoMover *mover, MakoFold *fold, MakoReplay *replay,
				const MakoStream *stream, MakoReader *reader, MakoMove *move)
{
	*move = (MakoMove) {.sequence_number = stream->version,.counts = true,.moves = true};
	if (stream->version == 0)
	{
		/*
		 * Nothing happened yet, so there is no state to migrate; the stream moves, so that
		 * nothing is left behind.
		 */
		if (reader != NULL)
			mako_replay_empty(fold, stream, reader);
		move->counts = false;
		return true;
	}
	if (reader == NULL && !mover->needs_state && !stream->boundary_missing)
	{
		/*
		 * A boundary holds for the target too: the events after it belong to the same state as
		 * before.
		 */
		if (stream->start > 0)
		{
			mako_expect_schema_version(mover->plan->workflows[0], stream->start,
									   stream->start_schema_version);
			move->sequence_number = stream->start;
			move->old_state = move->new_state = stream->start_state;
		}
		return true;
	}
	if (!fold_to_head(mover, fold, replay, stream, reader))
		return false;
	if (mover->in_flight_only && !mako_fold_is_in_flight(fold, &move->moves))
		return false;
	if (!move->moves)
		return true;
	move->old_state = fold->state;
	if (!mako_fold_migrate(fold))
		return false;
	move->new_state = fold->state;
	return true;
}
