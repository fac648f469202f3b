/*
 * mako_migration.c
 *	  What happens when the library is loaded.
 */
#include "define/define.h"
#include "migrate/migrate.h"

PG_MODULE_MAGIC;

PGDLLEXPORT void _PG_init(void);

/* Called once a session. */
void
_PG_init(void)
{
	mako_settings_init();
	mako_gate_init();
	mako_door_init();
	mako_generation_init();
	mako_fence_init();
	mako_call_init();
}
