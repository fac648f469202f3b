/*
 * define.h
 *	  Room define/: what is registered, and what it is now. It knows no stream.
 *
 *	  generation.c      when definitions may have changed
 *	  function_body.c   the parse trees of a function
 *	  names.c           what the names in a function's text mean
 *	  describe.c, describe_kinds.c
 *	                    what a function's results depend on, as text           (describe.h)
 *	  fingerprint.c     ... kept for a transaction, and as sha256
 *	  owners.c          with whose rights a definition is computed (MakoOwners)
 *	  definition.c      what is registered, verified at every use (MakoWorkflow, MakoStateMigration)
 *	  register.c        writes them
 *	  migration_path.c  the path from source to target (MakoPlan)
 *
 * A definition lives in the context in which it was read, and a path with its definitions in one,
 * too. Descriptions are kept below the transaction's context, until something changes.
 */
#ifndef MAKO_DEFINE_H
#define MAKO_DEFINE_H

#include "evaluate/evaluate.h"
#include "types/types.h"

/* ---- generation.c: when definitions may have changed ---------------------------------------- */

extern void mako_generation_init(void);
extern uint64 mako_generation(void);

/* ---- function_body.c ------------------------------------------------------------------------ */

extern bool mako_function_body(Oid function, FuncExpr *call, List *columns, List **trees);

/* ---- fingerprint.c: what a definition is, as text and as sha256 ----------------------------- */

extern List *mako_fingerprint_add(StringInfo out, const MakoFunction *function, bool tell_unseen);
extern char *mako_fingerprint_digest(const char *description);

/* ---- definition.c: what is registered ------------------------------------------------------- */

/*
 * The owners of a definition's functions, as they are registered, in the order of the functions;
 * then those of helpers of other roles.
 */
typedef struct MakoOwners
{
	int			count;
	char	  **name;
	char	  **identity;		/* role.c */
} MakoOwners;

typedef struct MakoWorkflow
{
	char	   *workflow_id;
	MakoFunction *apply;		/* NULL where none is registered, like the next two */
	MakoFunction *upcast;
	MakoFunction *in_flight;
	Jsonb	   *initial_state;	/* NULL without apply */
	Jsonb	   *event_type_source;	/* NULL where none is registered, like the next three */
	Jsonb	   *state_type_source;
	MakoTypeDefinition *event_type; /* compiled */
	MakoTypeDefinition *state_type;
	int			state_schema_version;
	char	   *description;	/* all of it as text */
	char	   *fingerprint;	/* sha256 of that */
	List	   *helpers;		/* (OIDs) in it that run as another role */
} MakoWorkflow;

/* One registered step. */
typedef struct MakoStateMigration
{
	char	   *source_wf;
	char	   *target_wf;
	MakoFunction *migrate;		/* NULL: identity */
	char	   *description;	/* like those of a workflow */
	char	   *fingerprint;
	List	   *helpers;
} MakoStateMigration;

/* What is said when a function has another owner: mako_check() knows it by that. */
#define MAKO_OTHER_OWNER "function %s has another owner than when it was registered"

extern MakoWorkflow *mako_definition_workflow(const char *workflow_id);
extern MakoOwners mako_definition_owners(const MakoRows *rows, uint64 row, int column);
extern char *mako_definition_fingerprint(const char *workflow_id);
extern void mako_definition_require(const char *workflow_id);
extern MakoStateMigration *mako_definition_migration(const char *source_wf, const char *target_wf);

/* ---- register.c, owners.c: what changes a definition, or what belongs to it ----------------- */

extern MakoConnection mako_register_begin(const char *function);
extern uint64 mako_register_write(MakoStatement *statement, const NullableDatum *values);
extern bool mako_register_is_used(MakoStatement *statement, const NullableDatum *values);
extern bool mako_register_require(MakoStatement *select, const NullableDatum *key, const char *kind,
								  const char *name, const char *done);
extern bool mako_register_require_workflow(const char *workflow_id);
extern void mako_actors_bind_caller(int parameter, NullableDatum *values);

/* ---- migration_path.c: the path from source to target --------------------------------------- */

typedef struct MakoPlan
{
	int			steps;
	MakoWorkflow **workflows;	/* steps + 1, from source to target */
	MakoStateMigration **migrations;	/* steps */
	bool		identity;		/* no step has a function */
	char	   *fingerprint;	/* over all of the above */
} MakoPlan;

extern void mako_plan_require_pair(const char *source, const char *target);
extern const char **mako_plan_ids(const char *source_wf, const char *target_wf, int *steps);
extern MakoPlan *mako_plan_create(const char *source_wf, const char *target_wf);
extern bool mako_plan_leads(const char *source_wf, const char *target_wf);
extern List *mako_plan_junctions(const char *source_wf);
extern NullableDatum mako_plan_path(const MakoPlan *plan);
extern NullableDatum mako_plan_definitions(const MakoPlan *plan);

#endif							/* MAKO_DEFINE_H */
