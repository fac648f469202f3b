/*
 * process.h
 *	  Room process/: what an engine calls every day. No other room calls it.
 *
 *	  append.c   appends events, through the triggers of the tables
 *	  state.c    reads states, and takes periodic snapshots
 *	  routing.c  finds the process that a message is for
 */
#ifndef MAKO_PROCESS_H
#define MAKO_PROCESS_H

#include "fold/fold.h"

#endif							/* MAKO_PROCESS_H */
