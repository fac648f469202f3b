/*
 * new_events.h
 *	  What the triggers on tables of events share.
 */
#ifndef MAKO_NEW_EVENTS_H
#define MAKO_NEW_EVENTS_H

#include "store/store.h"

#include "commands/trigger.h"
#include "nodes/pg_list.h"

/*
 * A new row: of mako.stream (number is its version) or an event (number is its sequence number).
 */
typedef struct MakoNewRow
{
	int64		stream_no;
	int64		number;
	const char *workflow_id;	/* shared by rows that follow each other; NULL for an event that
								 * says none */
	const char *stream_id;		/* NULL where the writer wrote its number */
	bool		shows_id;		/* the writer may be told the id, which he wrote himself */
	pg_uuid_t  *tenant_id;		/* of an event that brings it */
} MakoNewRow;

/* New events, and how they are taken. */
typedef struct MakoNewEvents
{
	MakoNewRow *rows;
	int64		count;
	Oid			role;			/* inserts them */
	const char *unstamped;		/* a workflow of the version of events that say none; or NULL */
	bool		at_once;		/* a head that another transaction has locked is an error */
} MakoNewEvents;

/* ---- triggers.c ----------------------------------------------------------------------------- */

pg_noreturn extern void mako_store_raise_no_trigger(const char *function);

/* ---- attached.c ----------------------------------------------------------------------------- */

extern int	mako_attached_places(Oid owner, Oid table);

/* ---- new_events.c --------------------------------------------------------------------------- */

extern List *mako_new_rows_versions(const MakoNewRow *rows, int64 count, const char *unstamped);
extern List *mako_new_events_hold_versions(const MakoNewEvents *events);
extern void mako_new_events_advance(const MakoNewEvents *events);
extern bool mako_may_know_heads(Oid role);
extern void mako_new_events_check_versions(const List *versions);

#endif							/* MAKO_NEW_EVENTS_H */
