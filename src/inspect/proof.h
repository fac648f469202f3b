/*
 * proof.h
 *	  What proof.c, proof_pass.c and verify.c share: a proof on its way.
 */
#ifndef MAKO_PROOF_H
#define MAKO_PROOF_H

#include "inspect/inspect.h"

struct MakoProofMember;

/* One thing that is wrong with a stream; lives in the batch context. */
typedef struct MakoProofFinding
{
	int64		sequence_number;
	const char *problem;
	Datum		stored;			/* jsonb, flat; (Datum) 0 for none, like the next */
	Datum		computed;
} MakoProofFinding;

/* A proof on its way. */
typedef struct MakoProof
{
	MakoRowSet *rows;
	MakoRunRow *run;			/* whose snapshots are proven; NULL: those of applications */
	MakoReplay *replay;
	MakoFold   *fold;			/* from the source of the run to its target, or of the workflow */
	const char *workflow_id;	/* that it folds */
	MemoryContext batch_context;	/* marks, states, findings */
	MemoryContext scratch;		/* flat states; reset for each stream */
	MakoStream *streams;		/* the current batch */
	struct MakoProofMember *members;	/* as many */
} MakoProof;

extern void mako_proof_add(const MakoProof *proof, const char *stream_id,
						   const MakoProofFinding *finding, int64 differs_from);
extern Datum mako_proof_number(int64 number);
extern MakoStream mako_proof_head(const MakoRows *rows, uint64 row);
extern void mako_proof_take(MakoProof *proof, MakoStream *streams, int count, bool gathered);
extern void mako_proof_streams(MakoProof *proof, MakoCursor *cursor);
extern bool mako_proof_is_for_heap_order(const MakoProof *proof);
extern MakoNumbers mako_proof_in_heap_order(MakoProof *proof, MakoCursor *moved, Oid function);

#endif							/* MAKO_PROOF_H */
