/*
 * inline.h
 *	  From the call of a function to one expression: its body, what is inlined, what is bound. For sql_body.c, inline.c, shared_lookup.c, and those
 *	  that explain or evaluate what they make.
 */
#ifndef MAKO_INLINE_H
#define MAKO_INLINE_H

#include "mako_migration.h"

/* ---- sql_body.c: the body of an SQL function ------------------------------------------------------------------------------- */

/* Why something is left as it is, for mako_explain_function(). */
typedef struct MakoObstacle
{
	const char *reason;			/* NULL while there is none */
	const char *hint;			/* what would help; may be NULL */
} MakoObstacle;

/* A body that is one expression. */
typedef struct MakoSqlBody
{
	Oid			function;
	Oid			collation;		/* of the call's arguments */
	const Query *query;
	Node	   *column;			/* of the query, its only one */
} MakoSqlBody;

extern bool mako_obstruct(MakoObstacle *obstacle, const char *reason, const char *hint);
extern bool mako_sql_body_is_polymorphic(HeapTuple tuple);
extern bool mako_sql_query_check(const Query *query, MakoObstacle *obstacle);
extern MakoSqlBody *mako_sql_body_parse(FuncExpr *call, HeapTuple tuple, MakoObstacle *obstacle);

/* ---- inline.c: SQL functions as expressions -------------------------------------------------------------------------------- */

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

/* ---- shared_lookup.c: lookups that an expression repeats --------------------------------------------------------------------------- */

extern void mako_share(Expr **expression, List **bindings);

#endif							/* MAKO_INLINE_H */
