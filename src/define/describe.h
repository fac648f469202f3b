/*
 * describe.h
 *	  What a definition depends on, as text: names.c finds what parse trees name, describe.c and
 *	  describe_kinds.c say what that is.
 *
 * A description is a list of objects. The first one is the registered function. Describing an
 * object notes others that its results depend on, until nothing new is found. Objects of the
 * server end the search: they change with its major version only.
 */
#ifndef MAKO_DESCRIBE_H
#define MAKO_DESCRIBE_H

#include "define/define.h"

#include "access/tupdesc.h"
#include "nodes/primnodes.h"

/* ---- function_body.c, generation.c ---------------------------------------------------------- */

extern void mako_generation_watch(Oid relation);

/* ---- names.c: what a parse tree names ------------------------------------------------------- */

/*
 * Takes an object that a tree names, in the order of the tree; a function with the node that calls
 * it.
 */
typedef void (*MakoNameCallback) (void *context, Oid catalog, Oid object, Node *call);

extern void mako_names_find(Node *tree, MakoNameCallback callback, void *context);
extern List *mako_names_arguments(Node *call);
extern List *mako_names_columns(Node *call);

/* ---- describe.c: the objects of a description ----------------------------------------------- */

/* One object. */
typedef struct MakoItem
{
	Oid			catalog;		/* of the object's row */
	Oid			object;
	List	   *arguments;		/* types (OIDs) in the call of a function that is described with
								 * it; else NIL */
	List	   *columns;		/* Params like the columns that such a call takes a record for;
								 * else NIL */
	const char *label;			/* kind and qualified name */
	bool		is_called;		/* an expression can call it: a function of which it is said that
								 * it is not seen through */
	bool		is_unseen;		/* what it calls is not described by itself */
	bool		has_unseen_call;	/* nor, with a call, for one of its calls */
	bool		is_other;		/* a helper that runs as another role than the function */
	StringInfoData text;		/* each property a line, indented by a tab */
} MakoItem;

/* One description under way; everything lies in a memory context of its own. */
typedef struct MakoDescription
{
	List	   *items;			/* of MakoItem, in the order in which they were found */
	List	   *server_types;	/* (OIDs) that were found; how their values compare is noted */
	Oid			owner;			/* of the registered function: runs it */
	bool		is_quiet;		/* what is noted now cannot be called by an expression */
} MakoDescription;

/* A row of the catalog that an item is described from. */
typedef struct MakoRow
{
	Oid			oid;
	HeapTuple	tuple;
	TupleDesc	tupdesc;
} MakoRow;

extern List *mako_describe(StringInfo out, Oid function, Oid owner, bool tell_unseen);
extern MakoItem *mako_describe_item(MakoDescription *description, Oid catalog, Oid object);
extern MakoItem *mako_describe_note(MakoDescription *description, Oid catalog, Oid object);
extern void mako_describe_note_type(MakoDescription *description, Oid type);
extern void mako_describe_note_call(MakoDescription *description, Oid function, List *arguments,
									List *columns);
extern void mako_describe_tree(MakoDescription *description, MakoItem *item, Node *tree);
extern void mako_describe_add(MakoItem *item, const char *property, const char *text);
extern void mako_describe_add_lines(MakoItem *item, List *lines);
extern char *mako_describe_name(Oid catalog, Oid object);
extern char *mako_describe_column(const MakoRow *row, int column);

/* ---- describe_kinds.c: what is said of each kind of object ---------------------------------- */

extern void mako_describe_kind(MakoDescription *description, MakoItem *item, const MakoRow *row);
extern bool mako_describe_has_kind(Oid catalog);
extern void mako_describe_note_comparison(MakoDescription *description, Oid type);
extern void mako_describe_note_parts(MakoDescription *description, Oid aggregate,
									 const List *arguments);

#endif							/* MAKO_DESCRIBE_H */
