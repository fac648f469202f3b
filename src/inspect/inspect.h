/*
 * inspect.h
 *	  Room inspect/: planning, checking, proving and telling, without a change. No other room calls
 *	  it.
 *
 *	  plan.c          mako_plan(): what a migration would need, and what stands against it
 *	  dry_run.c       mako_dry_run(): moves streams, and writes nothing
 *	  check.c         mako_check(): what is wrong with definitions and store   (MakoCheck)
 *	  finding.c       ... one finding
 *	  check_body.c    ... in the bodies of functions
 *	  check_values.c  ... by values that definitions allow or that are stored
 *	  verify.c        mako_verify(): computes what is stored again
 *	  proof.c         ... of many streams                              (MakoProof: proof.h)
 *	  proof_pass.c    ... as their events lie
 *	  shared_rows.c   rows of streams, made by workers
 *	  transitions.c   mako_transitions(): which states follow which
 */
#ifndef MAKO_INSPECT_H
#define MAKO_INSPECT_H

#include "migrate/migrate.h"

/* ---- finding.c, check_body.c, check_values.c ------------------------------------------------ */

/* In the order of the rows. */
typedef enum MakoSeverity
{
	MAKO_ERROR,					/* something fails, or already is wrong */
	MAKO_WARNING,				/* something may fail */
	MAKO_INFO,
} MakoSeverity;

extern const char *const mako_severity_name[];

/* A row of the result. */
typedef struct MakoFinding
{
	MakoSeverity severity;
	const char *code;
	const char *subject;
	const char *message;
	const char *hint;			/* may be NULL */
} MakoFinding;

typedef struct MakoCheck
{
	MemoryContext context;		/* of the findings */
	List	   *findings;
	bool		has_store;		/* whose tables can be read */
	List	   *functions;		/* oids: looked through already */
	bool		skip_owner_check;	/* the owner of the current function may call everything */
} MakoCheck;

/* A registered workflow or step. */
typedef struct MakoDefinition
{
	const char *name;
	const char *source_wf;		/* the workflow itself, when it is one */
	const char *target_wf;		/* NULL for a workflow */
	bool		has_apply;
	bool		usable;			/* it is what was registered */
} MakoDefinition;

extern void mako_check_add(MakoCheck *check, MakoSeverity severity, const char *code,
						   const char *subject, const char *message, const char *hint);
extern char *mako_check_text(const ErrorData *error);
extern void mako_check_add_rows(MakoCheck *check, MakoRows rows);
extern int	mako_check_compare(const ListCell *a, const ListCell *b);
extern void mako_check_body(MakoCheck *check, const MakoFunction *function);
extern void mako_check_values(MakoCheck *check, const List *definitions, int64 sample);

/* ---- shared_rows.c: rows of streams, made by workers ---------------------------------------- */

/*
 * Takes a share of the streams, as a worker has been given them, and adds their rows in the order
 * of the streams. Returns how many it has rebuilt.
 */
typedef int64 (*MakoSharedWork) (const void *given, const MakoShare *share, MakoRowSet *rows);

extern int64 mako_shared_rows(const char *entry, int workers, Oid function, const void *given,
							  int size, MakoRowSet *rows);
extern void mako_shared_rows_work(MakoWorker *worker, MakoSharedWork work);

#endif							/* MAKO_INSPECT_H */
