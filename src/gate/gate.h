/*
 * gate.h
 *	  The gate: the only way in which what others wrote is parsed, planned, prepared or evaluated.
 *
 * Bodies, expressions, defaults, checks of domains, casts, input functions, policies and triggers
 * are code of others, and so is every type that runs some of it. Parsing or planning such a text
 * runs it as much as calling it does. So all of it happens
 *
 *	  - as the owner of the function or relation that it belongs to, unless a temporary object of the
 *		session could do something as that role (temporary.c),
 *	  - in a security-restricted operation, as the server's own maintenance commands do it,
 *	  - in a level of settings of its own, so that no setting it changes outlives it, and
 *	  - under fixed settings, so that a result does not depend on the session that asks for it.
 *
 * mako_gate_enter() sees to the first three; a connection (sql.c) sets the fixed settings once with
 * mako_gate_fix_settings(). What parses, plans and prepares raises outside of the gate. A rule in
 * test/rules keeps the server's functions for that out of every other file.
 */
#ifndef MAKO_GATE_H
#define MAKO_GATE_H

#include "mako_migration.h"

#include "miscadmin.h"

/* What is put back when the gate is left; after an error the (sub)transaction puts it back. */
typedef struct MakoGate
{
	Oid			user;
	int			security;
	int			guc_level;
} MakoGate;

/* What is put back when code of others has computed something. */
typedef struct MakoComputation
{
	bool		is_outermost;
	bool		was_read_only;
} MakoComputation;

/* What is put back after an evaluation. */
typedef struct MakoEvaluation
{
	MakoGate	gate;
	MakoComputation computation;
} MakoEvaluation;

extern void mako_gate_init(void);
extern void mako_temporary_init(void);
extern void mako_temporary_require_safe(Oid role);
extern MakoGate mako_gate_enter(Oid owner);
extern MakoGate mako_gate_enter_table(Oid owner);
extern void mako_gate_restrict_caller(const MakoGate *gate);
extern void mako_gate_leave(const MakoGate *gate);
extern MakoEvaluation mako_gate_begin_evaluation(Oid owner);
extern void mako_gate_end_evaluation(const MakoEvaluation *evaluation);
extern void mako_gate_forbid(const char *function);
extern void mako_gate_require_change(const char *function);
extern uint64 mako_gate_transaction(void);
extern void mako_gate_delegate(bool begins);
extern bool mako_gate_is_delegated(void);
extern void mako_gate_fix_settings(bool row_security_hides);
extern void mako_gate_fix_path(const char *path);
extern const char *mako_gate_own_path(void);
extern const char *mako_gate_function_path(void);
extern char *mako_gate_settings_text(void);
extern const char *mako_gate_schema_is_open(bool *may_create);

/*
 * The gate around an evaluation that is known to be harmless (mako_gate_is_harmless()): only the role is put
 * back. Settings cannot have changed, and looking for changes takes longer than most programs.
 */
static inline MakoGate
mako_gate_enter_harmless(Oid owner)
{
	MakoGate	gate;

	GetUserIdAndSecContext(&gate.user, &gate.security);
	gate.guc_level = 0;
	SetUserIdAndSecContext(owner, gate.security | SECURITY_RESTRICTED_OPERATION);
	return gate;
}

static inline void
mako_gate_leave_harmless(const MakoGate *gate)
{
	SetUserIdAndSecContext(gate->user, gate->security);
}

/* These raise outside of the gate. */
extern List *mako_gate_parse_body(HeapTuple function, FuncExpr *call, bool single);
extern List *mako_gate_expand_arguments(HeapTuple function, List *arguments, Oid result);
extern void mako_gate_coerce_result(HeapTuple function, List *queries, Oid type, TupleDesc rowtype);
extern Expr *mako_gate_plan(Node *expression);
extern Node *mako_gate_simplify(Node *expression);
extern ExprState *mako_gate_prepare(Expr *expression, ParamListInfo parameters);
extern Node *mako_gate_coerce(Node *expression, Oid type);
extern bool mako_gate_is_harmless(Node *expression);
extern char *mako_gate_output(Oid output_function, Datum value);

/* These are about names of functions: nothing is evaluated. */
extern Oid	mako_gate_find_function(const char *name);
extern Oid	mako_gate_find_signature(const char *signature);

#endif							/* MAKO_GATE_H */
