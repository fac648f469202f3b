/*
 * door.h
 *	  The door of the store: the only way to a table of schema mako.
 *
 * A table is not trusted because of its name. Its owner decides what its triggers, checks, defaults
 * and index expressions do, which types its columns have, and whether it is a table at all. So the
 * door opens one only if
 *
 *	  - its owner is the caller, a role that the caller is a member of by grant (being superuser does
 *		not count), the owner of the extension, or a superuser,
 *	  - it is an ordinary or partitioned table without a parent, through which rows could be changed
 *		past its triggers, and
 *	  - each column that the extension knows has its type, and cannot be null where that is expected.
 *
 * What the caller is told is an error; what is opened is locked until the transaction ends, so that it
 * stays as it was found. The findings are kept for the session until the table changes.
 */
#ifndef MAKO_DOOR_H
#define MAKO_DOOR_H

#include "mako_migration.h"

extern void mako_door_init(void);
extern Oid	mako_door_schema(void);
extern Oid	mako_door_table(const char *name);
extern bool mako_door_is_table(Relation relation, const char *table);
extern bool mako_door_exists(void);
extern bool mako_door_has_table(const char *name);
extern bool mako_door_may_use(void);
extern uint32 mako_door_tables_in(const char *text);
extern Oid	mako_door_open_tables(uint32 tables);
extern uint64 mako_door_generation(void);
extern const char *mako_door_untrusted_owner(void);
extern void mako_door_require_trusted(void);
extern Oid	mako_door_relation(const char *name);
extern bool mako_door_is_good(const char *table, Relation relation);
extern bool mako_door_would_open(const char *name);
extern bool mako_door_may_read_plainly(Relation relation);
extern AttrNumber mako_door_column(Relation relation, const char *name);
extern bool mako_door_require_select(const char *tables);

#endif							/* MAKO_DOOR_H */
