/*
 * operand.h
 *	  What programs are made of besides the executor's expressions: fields and choices.
 *
 * Both stand in an expression as a parameter, and are evaluated where that is. They are planned
 * with the program, and live as long.
 */
#ifndef MAKO_OPERAND_H
#define MAKO_OPERAND_H

#include "evaluate/inline.h"

#include "executor/executor.h"

typedef struct MakoField MakoField;
typedef struct MakoChoice MakoChoice;
typedef struct MakoOperand MakoOperand;

/* What a binding is that stands for jsonb -> 'key' or jsonb ->> 'key'. */
struct MakoField
{
	MakoBinding *object;		/* NULL: a parameter of the fold */
	int			parameter;		/* ... of this number */
	const char *key;
	uint32		length;			/* of the key */
	uint32		number;			/* of the member that it was last; a guess for the next object */
	bool		is_text;		/* ->> */
	MakoJson   *box;			/* of the binding's datum, for ->; good for one evaluation */
	uint64		evaluation;		/* of the program, whose field this is */
	bool		found;
	bool		has_datum;		/* the binding's datum has been made */
	MakoJsonValue value;		/* if found */
};

/* How an operand is evaluated. */
typedef enum MakoOperandKind
{
	MAKO_OPERAND_CONSTANT,
	MAKO_OPERAND_PARAMETER,		/* of the fold */
	MAKO_OPERAND_BINDING,
	MAKO_OPERAND_CHOICE,
	MAKO_OPERAND_EXPRESSION,	/* by the executor */
} MakoOperandKind;

/* An expression whose value is wanted now and then. */
struct MakoOperand
{
	Expr	   *expression;
	MakoOperandKind kind;
	bool		isnull;			/* the constant is */
	Datum		value;			/* the constant */
	const ParamExternData *parameter;
	MakoBinding *binding;
	const MakoChoice *choice;
	ExprState  *state;			/* of an expression; lives as long as the program's context */
};

/* A text for which a choice has a result of its own. */
typedef struct MakoOption
{
	const char *text;
	uint32		length;
	int			result;			/* number among the results */
} MakoOption;

/* One of several results, by what a text is. */
struct MakoChoice
{
	MakoOperand test;			/* the text */
	List	   *results;		/* of MakoOperand */
	int			null_result;	/* number among them, if the text is null */
	int			else_result;	/* if it is no option */
	bool		is_equality;	/* a comparison that is true for its options only */
	int			count;			/* of options */
	uint32		mask;			/* of hashes */
	MakoOption **table;			/* by hash, at the next free place; half of it is NULL */
};

extern void mako_binding_plan(MakoBinding *binding, List *bindings);
extern Datum mako_binding_value(MakoBinding *binding, ExprContext *context, bool *isnull);
extern const char *mako_binding_bytes(MakoBinding *binding, ExprContext *context, uint32 *length);
extern void mako_case_tables(MakoProgram *program);
extern Datum mako_operand_value(const MakoOperand *operand, ExprContext *context, bool *isnull);
extern Datum mako_choice_value(const MakoChoice *choice, ExprContext *context, bool *isnull);

#endif							/* MAKO_OPERAND_H */
