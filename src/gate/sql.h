/*
 * sql.h
 *	  Statements, connections, rows and cursors: what sql.c offers, the only file with SPI.
 */
#ifndef MAKO_SQL_H
#define MAKO_SQL_H

#include "postgres.h"

#include "nodes/pg_list.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "compat.h"

/*
 * A statement, prepared at its first use. %s in the text stands for the extension's schema. A static one keeps its plan for the
 * session, a transient one until the connection ends.
 */
typedef struct MakoStatement
{
	const char *text;
	int			nargs;
	Oid			argtypes[16];
	bool		plan_each_time;	/* the best plan depends on the sizes of arguments and tables */
	bool		transient;
	bool		may_defer;		/* constraints of what it writes may be checked when the transaction ends */
	bool		verbatim;		/* the text has names of others: %s and mako. in it stand for themselves */
	const char *needs;			/* "mako.x mako.y": tables that functions in it read for the caller; or NULL */
	Oid			relation;		/* somebody's relation that it is about; InvalidOid: ours */
	/* Private to sql.c, as is the plan. */
	bool		is_known;		/* what it names: the next two */
	bool		names_schema;
	uint32		tables;			/* of the store, as a set */
	void	   *plan;			/* SPIPlanPtr */
	Oid			schema;			/* of the extension, when the plan was made */
	SubTransactionId executing; /* in which its outermost execution began, like the next one */
	uint64		transaction;
	uint64		checked_generation; /* of the store, when the privileges of a role were checked; 0: never */
	Oid			checked_user;
	bool		checked_row_security;
	bool		by_caller;		/* a policy concerns that role */
	bool		hides_rows;		/* that role may not select from what is written */
	List	   *written;		/* relations that it writes */
} MakoStatement;

/* The rows of a result, or how many rows a statement without result was about; free them with mako_rows_free(). */
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

extern Oid	mako_sql_extension_schema(void);
extern Oid	mako_sql_extension_owner(void);
extern const char *mako_sql_extension_version(void);
extern MakoConnection mako_sql_connect(void);
extern MakoConnection mako_sql_connect_visible(void);
extern MakoConnection mako_sql_connect_own(void);
extern void mako_sql_set(MakoConnection connection, const char *name, const char *value);
extern void mako_sql_disconnect(MakoConnection connection);
extern void mako_sql_connect_procedure(void);
extern void mako_sql_disconnect_procedure(void);
extern void mako_sql_commit(void);
extern void mako_sql_check_deferred(void);
extern void mako_sql_defer_again(void);
extern void mako_sql_check(MakoStatement *statement);
pg_noreturn extern void mako_sql_raise_swallowed(const char *table, uint64 expected);
extern uint64 mako_sql_execute(MakoStatement *statement, Datum *values, const char *nulls);
extern void mako_sql_execute_together(const List *statements, Datum *values);
extern MakoRows mako_sql_query(MakoStatement *statement, Datum *values, const char *nulls);
extern MakoRows mako_sql_query_waiting(MakoStatement *statement, Datum *values, const char *nulls, int milliseconds);
extern double mako_sql_estimate(MakoStatement *statement, Datum *values, const char *nulls);
extern MakoRows mako_sql_query_snapshot(MakoStatement *statement, Datum *values, const char *nulls);
extern Datum mako_row_value(const MakoRows *rows, uint64 row, int column, Oid type, bool *isnull);
extern int64 mako_row_bigint(const MakoRows *rows, uint64 row, int column);
extern int64 mako_row_bigint_or(const MakoRows *rows, uint64 row, int column, int64 other);
extern int32 mako_row_integer(const MakoRows *rows, uint64 row, int column);
extern bool mako_row_boolean(const MakoRows *rows, uint64 row, int column);
extern Oid	mako_row_oid(const MakoRows *rows, uint64 row, int column);
extern TimestampTz mako_row_timestamptz(const MakoRows *rows, uint64 row, int column);
extern Datum mako_row_jsonb(const MakoRows *rows, uint64 row, int column);
extern Datum mako_row_array(const MakoRows *rows, uint64 row, int column, Oid type);
extern char *mako_row_text(const MakoRows *rows, uint64 row, int column);
extern pg_uuid_t *mako_row_uuid(const MakoRows *rows, uint64 row, int column);
extern void mako_rows_free(MakoRows *rows);
extern MakoCursor *mako_cursor_open(MakoStatement *statement, Datum *values, const char *nulls, bool own_snapshot);
extern MakoRows mako_cursor_fetch(MakoCursor *cursor, long count);
extern void mako_cursor_close(MakoCursor *cursor);

#endif							/* MAKO_SQL_H */
