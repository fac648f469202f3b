/*
 * evaluate.h
 *	  Room evaluate/: from the name of a registered function to a value. It knows neither
 *	  definitions nor streams.
 *
 *	  function.c       registered functions, found and checked               (MakoFunction)
 *	  sql_body.c       the bodies of SQL functions                           (MakoSqlBody)
 *	  inline.c         a call as one expression; what is used often, bound   (MakoBinding: inline.h)
 *	  shared_lookup.c  lookups that an expression repeats, done once
 *	  operand.c        fields, found without the executor                    (MakoField: operand.h)
 *	  case_table.c     CASE and comparisons over constants, by hash          (MakoChoice: operand.h)
 *	  drop_in.c        how drop-ins get into a prepared expression
 *	  program.c        planned, and evaluated as the function's owner        (MakoProgram)
 *	  explain.c        what becomes of a function, call by call
 *
 * A program lives in the context in which it was compiled, its evaluation state in the one that it
 * is prepared with. The latter is thrown away after an error, and the program is prepared again.
 * What is bound is valid for one evaluation.
 */
#ifndef MAKO_EVALUATE_H
#define MAKO_EVALUATE_H

#include "gate/gate.h"
#include "json/json.h"

/* ---- function.c: registered functions, found and checked ------------------------------------ */

typedef enum MakoRole
{
	MAKO_ROLE_APPLY,			/* (state jsonb, event_type text, payload jsonb) -> jsonb */
	MAKO_ROLE_UPCAST,			/* (event_type text, schema_version int, payload jsonb) -> jsonb */
	MAKO_ROLE_MIGRATE,			/* (state jsonb) -> jsonb */
	MAKO_ROLE_IN_FLIGHT,		/* (state jsonb) -> boolean */
} MakoRole;

typedef struct MakoFunction
{
	MakoRole	role;
	Oid			oid;			/* InvalidOid when none is registered */
	Oid			owner;			/* runs it */
	char	   *signature;		/* schema.name(types), how it is registered */
} MakoFunction;

extern MakoFunction *mako_function_resolve(const char *name, MakoRole role);
extern MakoFunction *mako_function_lookup(const char *signature, MakoRole role,
										  const char *registered_for);
extern const char *mako_function_role(MakoRole role);
extern HeapTuple mako_function_tuple(Oid oid);
extern Oid	mako_function_state_type(const MakoFunction *function);

/* ---- sql_body.c: the body of an SQL function ------------------------------------------------ */

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

/* ---- program.c: a function as a planned expression ------------------------------------------ */

/* What the expressions refer to, as $1 to $4. */
typedef enum MakoParameter
{
	MAKO_PARAMETER_STATE = 1,
	MAKO_PARAMETER_EVENT_TYPE,
	MAKO_PARAMETER_SCHEMA_VERSION,
	MAKO_PARAMETER_PAYLOAD,
} MakoParameter;

typedef struct MakoProgram
{
	Expr	   *expression;		/* planned: SQL functions are inlined */
	bool		is_inlined;		/* by inline.c */
	List	   *bindings;		/* of MakoBinding; $5 and so on */
	List	   *choices;		/* of MakoChoice; $-1 and so on */
	bool		is_json;		/* the result is a jsonb */
	uint64		evaluation;		/* number of the current one */
	struct MakoOperand *operand;	/* the expression with choices in it, which is evaluated */
	ExprContext *context;
	MakoRefusals sink;			/* of the current evaluation */
	Oid			owner;			/* evaluates it, in a security-restricted operation */
	bool		plain;			/* calls nothing that could change a setting */
} MakoProgram;

extern ParamListInfo mako_program_parameters(void);
extern void mako_program_bind(ParamListInfo parameters, MakoParameter parameter, Datum value);
extern MakoProgram *mako_program_plan(Expr *expression, Oid owner, List **notes);
extern MakoProgram *mako_program_compile(const MakoFunction *function);
extern MakoProgram *mako_program_compile_check(const MakoFunction *function);
extern const char *mako_program_unsafe(const MakoFunction *function);
extern const char *mako_program_unsafe_check(const MakoFunction *function);
extern void mako_program_require_state(const MakoFunction *function, Datum state);
extern ExprContext *mako_program_context(ParamListInfo parameters);
extern void mako_program_prepare(MakoProgram *program, ExprContext *context);
extern Datum mako_program_evaluate(MakoProgram *program, MakoRefusal *refusal, bool *isnull);

/* ---- explain.c ------------------------------------------------------------------------------ */

/* A call that remains of a function. */
typedef struct MakoCalled
{
	const char *call;
	const char *reason;			/* may be NULL, like hint */
	const char *hint;
} MakoCalled;

extern char *mako_explain_evaluation(Oid function);
extern List *mako_explain_called(Oid function);

#endif							/* MAKO_EVALUATE_H */
