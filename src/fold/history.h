/*
 * history.h
 *	  The states of a stream, computed again through its recorded moves. For history.c and what proves by it: verify.c.
 */
#ifndef MAKO_RETRACE_H
#define MAKO_RETRACE_H

#include "mako_migration.h"

/* What is recorded of a run; lives in its archive's context. */
typedef struct MakoRun
{
	int64		run_id;
	char	   *kind;
	char	   *source_wf;
	char	   *target_wf;
	bool		update_registry;
	bool		finished;
	bool		warned;			/* that the definitions are others now */
	char	   *fingerprint;
	int64		migrated;
} MakoRun;

/* The runs that have been met. */
typedef struct MakoArchive
{
	List	   *runs;
	MemoryContext context;
} MakoArchive;

/* What a run has left with a stream, unless it was reverted: a snapshot, or a row in mako.repointed. */
typedef struct MakoMark
{
	int64		sequence_number;
	int64		run_id;
	MakoRun    *run;			/* NULL where it is not recorded */
	bool		repoints;		/* the stream moved without a snapshot of its last event */
	bool		is_copy;		/* the snapshot that it took along then: no move by itself */
	char	   *workflow_id;	/* of the snapshot, like the next two */
	int			state_schema_version;
	Datum		state;			/* as it is stored; (Datum) 0 where nobody asked for it */
} MakoMark;

/* The marks of some streams, in the order of sequence numbers and runs. */
typedef struct MakoMarks
{
	MakoMark   *marks;
	int		   *first;			/* of each stream, and one more */
} MakoMarks;

typedef struct MakoRetrace MakoRetrace;

/* One stream on its way; the first part is for the caller to fill in, the second for him to read. */
struct MakoRetrace
{
	MakoReplay *replay;			/* has all folds */
	MakoFold   *main;			/* of the workflow that most of it is about, or from there */
	const MakoStream *stream;
	const MakoMark *marks;
	int			mark_count;
	int64		before_run;		/* only these runs have moved the stream yet */
	const char *final_wf;		/* where they have taken it */
	bool		trusts_moves;	/* the states are those of the marks */
	void		(*visit) (void *argument, const MakoRetrace *trace);	/* or NULL */
	void	   *argument;

	int64		sequence_number;
	const char *workflow_id;	/* NULL before the first event */
	bool		known;			/* is its state */
	MakoFold   *fold;			/* whose state it is, if it is known */
	bool		is_source;		/* the last event was written under final_wf */
	int			next_mark;
};

extern MakoArchive *mako_retrace_archive(void);
extern MakoRun *mako_retrace_run(MakoArchive *archive, int64 run_id);
extern void mako_retrace_warn(MakoRun *run, const MakoPlan *plan);
extern MakoMarks mako_retrace_load(MakoArchive *archive, const MakoStream *streams, int count, int64 run_id, const char *workflow_id);
extern void mako_retrace_begin(MakoRetrace *trace, const MakoMark *from);
extern bool mako_retrace_until(MakoRetrace *trace, MakoReader *reader, int64 sequence_number);
extern bool mako_retrace_finish(MakoRetrace *trace);
extern bool mako_retrace_migrate(MakoRetrace *trace);

#endif							/* MAKO_RETRACE_H */
