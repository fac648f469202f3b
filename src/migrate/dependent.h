/*
 * dependent.h
 *	  Dependents: tables of others whose workflow column follows a migrated process.
 *
 * A dependent belongs to somebody else than the store. Whatever the server runs because of the change (its
 * triggers, rules, defaults, policies) runs as its owner, who is recorded when it is added.
 */
#ifndef MAKO_DEPENDENT_H
#define MAKO_DEPENDENT_H

#include "mako_migration.h"

typedef struct MakoDependent
{
	char	   *name;			/* schema.table */
	Oid			relation;		/* InvalidOid where it is gone */
	char	   *process_column;
	char	   *workflow_column;
	char	   *tenant_column;	/* NULL without one */
	Oid			process_type;	/* of its process column: uuid, text or bigint */
	bool		is_missing;		/* it, or a column of it */
	char	   *problem;		/* why it cannot follow, as a sentence; NULL where it can */
} MakoDependent;

/* A dependent that can follow. */
typedef struct MakoFollower
{
	char	   *name;			/* schema.table */
	MakoStatement *update;		/* lets it follow */
	MakoStatement *select_left; /* finds a row that has not followed; NULL where none can stay behind */
} MakoFollower;

extern List *mako_dependent_read(void);
extern List *mako_dependent_followers(void);
extern void mako_dependent_rehearse(const List *followers);
extern void mako_dependent_follow(const List *followers, Datum *values);
extern char *mako_dependent_shared_process(void);
extern void mako_dependent_check_scope(void);

#endif							/* MAKO_DEPENDENT_H */
