/*
 * mako_migration.c
 *	  Module magic and settings.
 */
#include "mako_migration.h"

PG_MODULE_MAGIC;

PGDLLEXPORT void _PG_init(void);

int			mako_max_memory = 64 * 1024;
int			mako_batch_size = 1000;
bool		mako_native_evaluation = true;

/* Called once a session, when the library is loaded. */
void
_PG_init(void)
{
	/*
	 * A run keeps migrated states until there are enough of them to be written together. More memory means fewer, larger writes and
	 * fewer subtransactions; a state larger than this is still migrated.
	 */
	DefineCustomIntVariable("mako_migration.max_memory",
							"Memory that a migration may use for states that wait to be written.",
							NULL,
							&mako_max_memory,
							64 * 1024, 1024, MAX_KILOBYTES,
							PGC_USERSET, GUC_UNIT_KB,
							NULL, NULL, NULL);

	/* For tests: with small batches, a few streams meet every border between batches. */
	DefineCustomIntVariable("mako_migration.batch_size",
							"Number of streams that a migration locks and reads at once.",
							NULL,
							&mako_batch_size,
							1000, 1, 100000,
							PGC_USERSET, GUC_NOT_IN_SAMPLE,
							NULL, NULL, NULL);

	/*
	 * Plain SQL functions are inlined, and jsonb functions in them work on expanded values. Off, functions are called and jsonb is
	 * serialized in every step: several times slower, with the same results. To be switched off if a result is ever in doubt.
	 */
	DefineCustomBoolVariable("mako_migration.native_evaluation",
							 "Evaluates plain SQL functions without calling them, on expanded JSON values.",
							 NULL,
							 &mako_native_evaluation,
							 true,
							 PGC_USERSET, 0,
							 NULL, NULL, NULL);

	MarkGUCPrefixReserved("mako_migration");
	mako_fold_cache_init();
	mako_migrate_init();
}
