/*
 * mako_migration.h
 *	  Words, flow, floors, memory and errors of the extension; what every file needs.
 *
 * Words. A *stream* is the events of one process; its *head* says which workflow it runs under now
 * and its last sequence number. *Folding* applies the events in order to a state, from the initial
 * state or from the *boundary*: the newest unreverted migration snapshot whose workflow is the
 * head's. A *state migration* is one registered step from a workflow version to another; the
 * *path* is the shortest chain of steps from source to target. A *run* migrates one source to one
 * target; a *pass* reads heads and events once for all runs of a call, which is one of
 * mako_migrate(), or one a workflow of mako_migrate_version().
 *
 * Floors. Every folder of src/ is a room with one header, whose head comment says what the room is
 * for, what it holds and what it does not know. A file includes headers of its own room and of
 * rooms below it (a rule of test/rules). From the top:
 *
 *	  inspect/   planning, checking, proving, telling
 *	  process/   what an engine calls every day
 *	  migrate/   runs, from the call to the report, and back
 *	  fold/      from events to a state
 *	  read/      heads, boundaries, events
 *	  store/     what keeps the tables whole
 *	  define/    what is registered, and what it is now
 *	  evaluate/  from a function's name to a value
 *	  types/     JSON Type Definition
 *	  gate/      the only ways to the code and the tables of others
 *	  json/      jsonb values without serializing
 *	  util/      what every room needs
 *
 * Flow of a run. migrate.c takes the call, call_guard.c sees to it that it does not run inside of
 * itself, and run.c makes a pass of it. migration_path.c reads and verifies the definitions on the
 * path, and program.c compiles their functions. match.c counts the streams, heads.c locks their
 * heads, states.c finds what they start from, and their events come in the order of the heap
 * (heap_order.c) or of the key (events.c, event_index.c). batch.c puts many streams into few
 * subtransactions. move.c takes one stream on its way: replay.c folds it to its head, and fold.c
 * does what is due at one event. writer.c keeps the results until there are enough, and writes
 * snapshots, heads and dependents. report.c counts and keeps errors, audit.c records the run, and
 * progress.c shows how far it is. A batched run (batched.c) goes that way once a batch, and
 * commits. src/README.md walks it with one stream.
 *
 * Memory. The context of a run lives as long as the call. Below it hang the contexts of a batch, a
 * gathering, a fold and a writer; the headers of their rooms say when each is reset. The owner of
 * a context resets it. Other code switches into it for one allocation at most. A state is an
 * expanded value while its stream is folded; it becomes flat when it is checked, when the stream's
 * context has grown too large, and when it waits to be written.
 *
 * State of a session. Plans of statements (sql.c), what is known of the tables (door.c,
 * store_check.c), compiled folds (fold_cache.c) and descriptions (fingerprint.c) are kept until
 * something changes that they depend on. call_guard.c knows the call that is running, triggers.c
 * the head that is being appended to, fence.c the source that a batched run holds, and progress.c
 * what it shows.
 *
 * Errors. What goes wrong in one stream is caught by batch.c (reading, folding) or writer.c
 * (writing), becomes a MakoError and ends nothing but that stream. fold.c and below raise ordinary
 * errors and know nothing of transactions, with two exceptions: a refusal is taken down instead,
 * where the caller wants it so; and inline.c isolates each call that it tries, which may never be
 * made.
 */
#ifndef MAKO_MIGRATION_H
#define MAKO_MIGRATION_H

#include "postgres.h"

#include "access/htup.h"
#include "access/tupdesc.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "nodes/execnodes.h"
#include "nodes/params.h"
#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"
#include "storage/itemptr.h"
#include "utils/jsonb.h"
#include "utils/relcache.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "compat.h"

/* Our messages are told from the server's own by their domain: see subtransaction.c. */
#undef TEXTDOMAIN
#define TEXTDOMAIN PG_TEXTDOMAIN("mako_migration")

/* Limits. */
#define MAKO_MAX_NAME 200		/* bytes of a workflow name */
#define MAKO_FORMAT_VERSION_LENGTH 12	/* bytes of FV2025-10-01 */
#define MAKO_REPORT_ERRORS 1000 /* errors in the report's array; the table has all of them */
#define MAKO_DETAIL_ERRORS 20	/* errors in the detail of a run ended by max_errors */
#define MAKO_ERROR_TEXT 1024	/* bytes of each text of an error in the report's array */
#define MAKO_INLINE_NODES 20000 /* of an expression into which functions are inlined */

/* Error codes of our own; the others are the server's. */
#define MAKO_ERRCODE_NULL_RESULT MAKE_SQLSTATE('M','K','0','0','1') /* a function returned null */
#define MAKO_ERRCODE_REJECTED MAKE_SQLSTATE('M','K','0','0','2')	/* refused by mako_reject() */
#define MAKO_ERRCODE_REQUIRED MAKE_SQLSTATE('M','K','0','0','3')	/* required path missing */
#define MAKO_ERRCODE_TYPE_MISMATCH MAKE_SQLSTATE('M','K','0','0','4')	/* value outside its type
																		 * definition */
#define MAKO_ERRCODE_STREAM_MOVED MAKE_SQLSTATE('M','K','0','0','5')	/* stream runs under
																		 * another workflow now */
#define MAKO_ERRCODE_NOT_OK MAKE_SQLSTATE('M','K','0','0','6')	/* too many streams failed */
#define MAKO_ERRCODE_PROCESS_EXISTS MAKE_SQLSTATE('M','K','0','0','7')	/* mako_spawn() of one
																		 * that is there */

/*
 * Where a stream is on its way; the phase of an error is where it happened.
 */
typedef enum MakoPhase
{
	MAKO_PHASE_LOAD,			/* head, boundary, events */
	MAKO_PHASE_UPCAST,
	MAKO_PHASE_EVENT,			/* the payload's type definition */
	MAKO_PHASE_APPLY,
	MAKO_PHASE_MIGRATE,
	MAKO_PHASE_STATE,			/* the state's type definition, domain and in-flight predicate */
	MAKO_PHASE_SNAPSHOT,
	MAKO_PHASE_REGISTRY,		/* head and dependents */
} MakoPhase;

extern const char *const mako_phase_name[];

#endif							/* MAKO_MIGRATION_H */
