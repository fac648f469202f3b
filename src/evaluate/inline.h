/*
 * inline.h
 *	  From the call of a function to one expression: what is inlined, what is bound, what drops in.
 */
#ifndef MAKO_INLINE_H
#define MAKO_INLINE_H

#include "evaluate/evaluate.h"

/* ---- inline.c: SQL functions as expressions ------------------------------------------------- */

/* A value that is evaluated at most once per evaluation of a program, and only where it is used. */
typedef struct MakoBinding
{
	Expr	   *expression;		/* planned; may refer to other bindings */
	int16		typlen;			/* of its type */
	struct MakoField *field;	/* NULL unless it is one: operand.c */
	Expr	   *chosen;			/* the expression with choices in it, which is evaluated */
	const struct MakoProgram *program;
	ExprState  *state;			/* lives as long as the program's; NULL for fields */
	uint64		evaluation;		/* of the program, whose value this is */
	Datum		value;			/* in the memory context of that evaluation */
	bool		isnull;
} MakoBinding;

/* What became of a call of an SQL function. */
typedef struct MakoInlineNote
{
	Oid			function;
	Oid			caller;			/* in whose body it stands; InvalidOid for the expression itself */
	bool		bound;			/* inlined with bindings */
	bool		is_void;		/* the caller is called after all */
	MakoObstacle obstacle;		/* why it is still called; none when it is inlined */
} MakoInlineNote;

extern Expr *mako_inline(Expr *expression, List **bindings, List **notes);
extern bool mako_depends_on_context(Node *node);

/* ---- shared_lookup.c: lookups that an expression repeats ------------------------------------ */

extern void mako_share_lookups(Expr **expression, List **bindings);

/* ---- drop_in.c ------------------------------------------------------------------------------ */

extern Expr *mako_drop_in_rewrite(Expr *expression);
extern void mako_drop_in_replace(ExprState *state, MakoRefusals *sink);

#endif							/* MAKO_INLINE_H */
