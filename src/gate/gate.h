/*
 * gate.h
 *	  Room gate/: the only ways to the code and the tables of others. It knows neither workflows
 *	  nor streams.
 *
 *	  extension.c  the extension's schema, owner and version, and the paths on which code runs
 *	  harmless.c   expressions that are known to be harmless
 *	  gate.c       the gate: what others wrote is parsed, planned, prepared and evaluated here
 *	  temporary.c  temporary objects of the session that code of another role could take for its own
 *	  door.c       the door: opens tables of schema mako
 *	  view.c       what a view names, and whose it is
 *	  sql.c        statements, connections, rows, cursors; the only file with SPI
 *	  planning.c   how statements are planned
 *	  row.c        values of rows
 *	  constraint.c deferrable constraints
 *	  role.c       roles that are remembered in tables
 *	  worker.c     other processes that read and compute for the transaction of this one
 *
 * A plan and what is known of a table live for the session, until something changes. Rows live
 * until they are freed or the connection ends, and a connection until it is closed or the
 * (sub)transaction ends.
 */
#ifndef MAKO_GATE_H
#define MAKO_GATE_H

#include "util/util.h"

#include "access/tupdesc.h"
#include "executor/execdesc.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"
#include "tcop/dest.h"
#include "utils/queryenvironment.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "utils/uuid.h"

/* ---- extension.c ---------------------------------------------------------------------------- */

extern void mako_extension_init(void);
extern Oid	mako_extension_schema(void);
extern Oid	mako_extension_owner(void);
extern const char *mako_extension_version(void);
extern const char *mako_extension_own_path(void);
extern const char *mako_extension_function_path(void);
extern List *mako_extension_current_path(void);
extern NullableDatum mako_extension_current_schemas(void);
extern char *mako_extension_path_of(Datum schemas);
extern const char *mako_extension_schema_is_open(bool *may_create);

/* ---- sql.c: statements, connections, rows, cursors ------------------------------------------ */

/* What the planner must do where it does not know better. */
typedef enum MakoWay
{
	MAKO_ANY_WAY,
	MAKO_BY_TABLES,				/* join tables as wholes */
	MAKO_BY_KEYS,				/* take rows in the order of an index, as many as are wanted */
} MakoWay;

/*
 * A statement, prepared at its first use. %s in the text stands for the extension's schema. A
 * static one keeps its plan for the session, a transient one until the connection ends.
 */
typedef struct MakoStatement
{
	const char *text;
	int			nargs;
	Oid			argtypes[17];
	bool		plan_each_time; /* the best plan depends on the sizes of arguments and tables */
	MakoWay		way;			/* how it shall be planned, whatever statistics say */
	MemoryContext transient;	/* in which it lives, for such a one; NULL for a static one */
	bool		may_defer;		/* constraints of what it writes may be checked when the
								 * transaction ends */
	bool		verbatim;		/* the text has names of others: %s and mako. in it stand for
								 * themselves */
	const char *needs;			/* "mako.x mako.y": tables that functions in it read for the
								 * caller; or NULL */
	Oid			relation;		/* a relation of another owner that it is about; InvalidOid: ours */
	Oid			role;			/* whose statement it is, with what that role may do; InvalidOid:
								 * ours */
	const char *path;			/* on which names in it are looked up; for one of a role, like the
								 * next */
	bool		may_lock;		/* LOCK TABLE is allowed, too */
	/* Private to sql.c, as is the plan. */
	bool		is_known;		/* what it names: the next two */
	bool		names_schema;
	bool		only_reads;
	uint32		tables;			/* of the store, as a set */
	void	   *plan;			/* SPIPlanPtr */
	Oid			schema;			/* of the extension, when the plan was made */
	SubTransactionId executing; /* in which its outermost execution began, like the next one */
	uint64		transaction;
	uint64		checked_generation; /* of the store, when the privileges of a role were checked;
									 * 0: never */
	Oid			checked_user;
	bool		checked_row_security;
	bool		by_caller;		/* a policy concerns that role */
	bool		hides_rows;		/* that role may not select from what is written */
	List	   *written;		/* relations that it writes */
} MakoStatement;

/*
 * The rows of a result, or how many rows a statement without result was about; free them with
 * mako_rows_free().
 */
typedef struct MakoRows
{
	uint64		count;
	void	   *table;			/* SPITupleTable, private to sql.c */
} MakoRows;

/* A connection: SPI and settings of its own, until it is closed or the (sub)transaction ends. */
typedef struct MakoConnection
{
	int			guc_level;
} MakoConnection;

typedef struct MakoCursor MakoCursor;

/* Rows that statements see as a relation, while the connection lasts. */
typedef struct MakoNamedRows MakoNamedRows;

extern MakoConnection mako_sql_connect(void);
extern MakoConnection mako_sql_connect_visible(void);
extern MakoConnection mako_sql_connect_own(void);
extern void mako_sql_set(MakoConnection connection, const char *name, const char *value);
extern void mako_sql_disconnect(MakoConnection connection);
extern void mako_sql_connect_procedure(void);
extern void mako_sql_disconnect_procedure(void);
extern void mako_sql_commit(void);
extern void mako_sql_check(MakoStatement *statement);
pg_noreturn extern void mako_sql_raise_swallowed(const char *table, uint64 expected);
extern MakoNamedRows *mako_sql_name_rows(const char *name, TupleDesc type);
extern void mako_named_rows_set(MakoNamedRows *named, Tuplestorestate *rows, double expected);
extern uint64 mako_sql_execute(MakoStatement *statement, const NullableDatum *values);
extern void mako_sql_execute_together(const List *statements, const NullableDatum *values);
extern MakoRows mako_sql_query(MakoStatement *statement, const NullableDatum *values);
extern MakoRows mako_sql_query_waiting(MakoStatement *statement, const NullableDatum *values,
									   int milliseconds);
extern double mako_sql_estimate(MakoStatement *statement, const NullableDatum *values);
extern MakoRows mako_sql_query_snapshot(MakoStatement *statement, const NullableDatum *values);
extern NullableDatum mako_row_value(const MakoRows *rows, uint64 row, int column, Oid type);
extern Datum mako_row_datum(const MakoRows *rows, uint64 row, int column, Oid type);
extern int64 mako_row_bigint(const MakoRows *rows, uint64 row, int column);
extern int64 mako_row_bigint_or(const MakoRows *rows, uint64 row, int column, int64 other);
extern int32 mako_row_integer(const MakoRows *rows, uint64 row, int column);
extern bool mako_row_boolean(const MakoRows *rows, uint64 row, int column);
extern Oid	mako_row_oid(const MakoRows *rows, uint64 row, int column);
extern Oid	mako_row_oid_of(const MakoRows *rows, uint64 row, int column, Oid type);
extern TimestampTz mako_row_timestamptz(const MakoRows *rows, uint64 row, int column);
extern char *mako_row_text(const MakoRows *rows, uint64 row, int column);
extern pg_uuid_t *mako_row_uuid(const MakoRows *rows, uint64 row, int column);
extern void mako_rows_free(MakoRows *rows);
extern void mako_rowset_add_rows(MakoRowSet *rows, MakoRows added);
extern MakoCursor *mako_cursor_open(MakoStatement *statement, const NullableDatum *values,
									bool own_snapshot);
extern MakoRows mako_cursor_fetch(MakoCursor *cursor, long count);
extern void mako_cursor_close(MakoCursor *cursor);

/* ---- constraint.c: deferrable constraints --------------------------------------------------- */

extern List *mako_constraints_deferrable(List *names, Oid parent);
extern void mako_constraints_make_immediate(const List *written);
extern void mako_constraints_check_deferred(void);
extern void mako_constraints_defer_again(void);

/* ---- role.c: roles that are remembered in tables -------------------------------------------- */

extern char *mako_identity(Oid object);
extern Oid	mako_role_find(const char *name, const char *identity);
extern bool mako_role_is(Oid now, const char *name, const char *identity);

/* ---- worker.c: processes that work for the transaction of this one ------------------------- */

/* The leader's side. */
typedef struct MakoWorkers MakoWorkers;

/* A worker's own side. */
typedef struct MakoWorker
{
	int			number;			/* from 0 on */
	int			count;			/* of workers */
	const void *task;			/* what the leader has given to each of them */
	struct shm_mq_handle *queue;
} MakoWorker;

/* A part of a message. */
typedef struct MakoPart
{
	const void *data;
	Size		size;
} MakoPart;

#define MAKO_MOST_PARTS 4		/* of a message */

extern int	mako_workers_wanted(const char **why_not);
extern MakoWorkers *mako_workers_start(const char *entry, int count, const void *task, Size size);
extern void *mako_workers_task(const MakoWorkers *workers);
extern void mako_workers_go(MakoWorkers *workers);
extern const void *mako_workers_receive(MakoWorkers *workers, Size *size);
extern const void *mako_workers_receive_from(MakoWorkers *workers, int worker, Size *size);
extern int	mako_workers_count(const MakoWorkers *workers);
extern void mako_workers_wait(MakoWorkers *workers);
extern void mako_workers_end(MakoWorkers *workers);
extern void mako_worker_main(Datum argument, void (*work) (MakoWorker *worker));
extern bool mako_worker_is_one(void);
extern void mako_worker_give_up(const char *why);
extern void mako_worker_send(MakoWorker *worker, const MakoPart *parts, int count);

/* ---- gate.c, temporary.c, harmless.c -------------------------------------------------------- */

/*
 * The gate: the only way in which what others wrote is parsed, planned, prepared or evaluated.
 *
 * Bodies, expressions, defaults, checks of domains, casts, input functions, policies and triggers
 * are code of others, and so is every type that runs some of it. Parsing or planning such a text
 * runs it as much as calling it does. So all of it happens
 *
 *	  - as the owner of the function or relation that it belongs to, unless a temporary object
 *		of the session could do something as that role (temporary.c),
 *	  - in a security-restricted operation, as the server's own maintenance commands do it,
 *	  - in a level of settings of its own, so that no setting it changes outlives it, and
 *	  - under fixed settings, so that a result does not depend on the session that asks for it.
 *
 * mako_gate_enter() sees to the first three; a connection (sql.c) sets the fixed settings once with
 * mako_gate_fix_settings(). What parses, plans and prepares raises outside of the gate. A rule in
 * test/rules keeps the server's functions for that out of every other file.
 */

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
extern void mako_gate_join(Oid user, int security);
extern void mako_gate_leave(const MakoGate *gate);
extern MakoEvaluation mako_gate_begin_evaluation(Oid owner);
extern void mako_gate_end_evaluation(const MakoEvaluation *evaluation);
extern MakoComputation mako_gate_begin_computation(void);
extern void mako_gate_end_computation(const MakoComputation *computation);
extern void mako_gate_forbid(const char *function);
extern void mako_gate_require_change(const char *function);
extern uint64 mako_gate_transaction(void);
extern SubTransactionId mako_gate_delegate(void);
extern void mako_gate_end_delegation(SubTransactionId outer);
extern bool mako_gate_is_delegated(void);
extern void mako_gate_require_delegated(void);
extern void mako_gate_fix_settings(bool row_security_hides);
extern void mako_gate_fix_path(const char *path);
extern char *mako_gate_settings_text(void);

/*
 * The gate around an evaluation that is known to be harmless (mako_gate_is_harmless()): only the
 * role is put back. Settings cannot have changed, and looking for changes takes longer than most
 * programs.
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
extern Query *mako_gate_expand_view(const char *select, const Oid *types);
extern PlannedStmt *mako_gate_plan_scan(Query *query);
extern MakoEvaluation mako_gate_begin_scan(Oid owner, Snapshot snapshot);
extern void mako_gate_end_scan(const MakoEvaluation *evaluation);
extern QueryDesc *mako_gate_start_plan(PlannedStmt *plan);
extern TupleTableSlot *mako_gate_next_row(QueryDesc *started);
extern void mako_gate_end_plan(QueryDesc *started);
extern PlannedStmt *mako_gate_plan_query(Query *query);
extern PlannedStmt *mako_gate_plan_sets(Query *query);
extern void mako_gate_execute(PlannedStmt *plan, QueryEnvironment *environment,
							  DestReceiver *receiver);

/* These are about names of functions: nothing is evaluated. */
extern Oid	mako_gate_find_function(const char *name);
extern Oid	mako_gate_find_signature(const char *signature);

/* ---- planning.c: how statements are planned ------------------------------------------------- */

extern void mako_planning_fix(MakoConnection connection);
extern void mako_planning_go(MakoWay way, const MakoGate *gate);

/* ---- door.c --------------------------------------------------------------------------------- */

/*
 * The door of the store: the only way to a table of schema mako.
 *
 * A table is not trusted because of its name. Its owner decides what its triggers, checks, defaults
 * and index expressions do, which types its columns have, and whether it is a table at all. So the
 * door opens one only if
 *
 *	  - its owner is the caller, a role that the caller is a member of by grant (being superuser
 *		does not count), the owner of the extension, or a superuser,
 *	  - it is an ordinary or partitioned table without a parent, through which rows could be changed
 *		past its triggers, and
 *	  - each column that the extension knows has its type, and cannot be null where that is
 *		expected.
 *
 * What the caller is told is an error; what is opened is locked until the transaction ends, so
 * that it stays as it was found. The findings are kept for the session until the table changes.
 */

extern void mako_door_init(void);
extern Oid	mako_door_schema(void);
extern Oid	mako_door_table(const char *name);
extern bool mako_door_is_table(Relation relation, const char *table);
extern bool mako_door_exists(void);
extern bool mako_door_has_table(const char *name);
extern bool mako_door_is_attached(void);
extern Oid	mako_door_attached_view(void);
extern bool mako_door_acts_for(Oid role, Oid owner);
extern bool mako_door_may_use(void);
extern uint32 mako_door_tables_in(const char *text);
extern Oid	mako_door_open_tables(uint32 tables);
extern uint64 mako_door_generation(void);
extern const char *mako_door_untrusted_owner(void);
extern void mako_door_require_trusted(void);
extern Oid	mako_door_relation(const char *name);
extern bool mako_door_is_good(const char *table, Relation relation);
extern bool mako_door_would_open(const char *name);
extern const char *mako_door_read_obstacle(Relation relation, bool leaves);
extern AttrNumber mako_door_column(Relation relation, const char *name);
extern AttrNumber mako_door_columns(Relation relation, const char *const *names, int count,
									AttrNumber *numbers);
extern bool mako_door_require_select(const char *tables);

/* ---- view.c --------------------------------------------------------------------------------- */

extern const char *mako_view_foreign_part(Relation view, Oid owner);
extern List *mako_view_relations(Relation view);
extern const char *mako_view_row_obstacle(Relation view);

#endif							/* MAKO_GATE_H */
