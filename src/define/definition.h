/*
 * definition.h
 *	  What owners.c, definition.c and register.c share.
 */
#ifndef MAKO_DEFINITION_H
#define MAKO_DEFINITION_H

#include "define/define.h"

/* ---- owners.c ------------------------------------------------------------------------------- */

/* A function with the rights of whose owner a definition is computed. */
typedef struct MakoActor
{
	const char *signature;
	Oid			owner;
} MakoActor;

extern List *mako_actors_of(MakoFunction *const *functions, int count, const List *helpers);
extern void mako_actors_bind(const List *actors, int parameter, NullableDatum *values);
extern const MakoActor *mako_actors_find_other(const MakoOwners *owners,
											   const List *actors, int *number);
extern bool mako_owners_are_callers(const MakoOwners *owners);

/* ---- definition.c --------------------------------------------------------------------------- */

/* The functions of a workflow, NULL where it has none. */
#define MAKO_WORKFLOW_FUNCTIONS(workflow) \
	{(workflow)->apply, (workflow)->upcast, (workflow)->in_flight}

/* What is registered already under the name of a definition. */
typedef enum MakoRegistered
{
	MAKO_REGISTERED_NONE,
	MAKO_REGISTERED_SAME,
	MAKO_REGISTERED_OTHER,
} MakoRegistered;

extern char *mako_definition_describe_workflow(MakoWorkflow *workflow, bool tell_unseen);
extern char *mako_definition_describe_migration(MakoStateMigration *migration, bool tell_unseen);
extern void mako_definition_compile_types(MakoWorkflow *workflow);
extern void mako_definition_add_context(void *name);
pg_noreturn extern void mako_definition_raise_unknown(const char *workflow_id);
extern MakoRegistered mako_definition_compare_workflow(const MakoWorkflow *workflow,
													   const List *actors);
extern MakoRegistered mako_definition_compare_migration(const MakoStateMigration *migration,
														const List *actors);

#endif							/* MAKO_DEFINITION_H */
