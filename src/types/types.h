/*
 * types.h
 *	  Room types/: JSON Type Definition (RFC 8927). It knows neither workflows nor tables.
 *
 *	  type_definition.c  compiles a definition
 *	  type_check.c       checks a value against one
 *	  validate.c         the same as SQL functions
 *	  instances.c        values that a definition allows
 *
 * A compiled definition lives in the context in which it was compiled. Paths are frames on the C
 * stack, valid during the call.
 */
#ifndef MAKO_TYPES_H
#define MAKO_TYPES_H

#include "util/util.h"

/* ---- type_definition.c, type_check.c: JSON Type Definition (RFC 8927) ----------------------- */

/* A step into a document or definition; frames on the C stack, linked upwards. NULL is the root. */
typedef struct MakoPath
{
	const struct MakoPath *up;
	const char *name;			/* a key; NULL for an element of an array */
	int			length;			/* of name, or the number of the element */
} MakoPath;

typedef struct MakoTypeDefinition MakoTypeDefinition;
typedef void (*MakoTypeErrorCallback) (void *argument, const MakoPath *instance_path,
									   const MakoPath *schema_path);

extern MakoTypeDefinition *mako_type_definition_compile(const Jsonb *source);

extern bool mako_type_definition_check(const MakoTypeDefinition *definition, const Jsonb *document,
									   MakoTypeErrorCallback report, void *argument);
extern void mako_type_definition_require_state(const MakoTypeDefinition *definition,
											   const char *workflow_id, const Jsonb *state);
extern void mako_type_definition_require_event(const MakoTypeDefinition *definition,
											   const text *event_type, const Jsonb *payload);
extern char *mako_path_to_text(const MakoPath *path);
extern char *mako_path_describe(const MakoPath *path);

/* ---- instances.c: values that a type definition allows -------------------------------------- */

#define MAKO_INSTANCES 1000		/* of a definition, at most */

typedef struct MakoInstance
{
	Jsonb	   *value;
	char	   *variant;		/* of a discriminator, or the value of an enum; NULL for other
								 * definitions */
	text	   *event_type;		/* of a variant: of its metadata, or its name; else NULL */
} MakoInstance;

extern List *mako_instances_generate(const MakoTypeDefinition *definition, int limit);

#endif							/* MAKO_TYPES_H */
