/*
 * settings.c
 *	  The settings that the extension defines.
 */
#include "util/util.h"

#include "utils/guc.h"

int			mako_max_memory = 64 * 1024;
int			mako_batch_size = 1000;
bool		mako_native_evaluation = true;
int			mako_scan_order = MAKO_SCAN_AUTO;
int			mako_progress_interval = 0;
int			mako_max_workers = -1;
char	   *mako_writer = NULL;

static const struct config_enum_entry scan_orders[] = {
	{"auto", MAKO_SCAN_AUTO, false},
	{"heap", MAKO_SCAN_HEAP, false},
	{"key", MAKO_SCAN_KEY, false},
	{NULL, 0, false}
};

/* Accepts a format version, or nothing. */
static bool
check_writer(char **value, void **extra, GucSource source)
{
	const char *fault = **value == '\0' ? NULL :
		mako_format_version_fault(*value, (int) strlen(*value));

	if (fault != NULL)
		GUC_check_errdetail("%s", fault);
	return fault == NULL;
}

/* Defines them. Called when the library is loaded. */
void
mako_settings_init(void)
{
	/*
	 * A run keeps migrated states until there are enough of them to be written together, and
	 * where it reads events in heap order, those of streams that are not complete yet. More
	 * memory means fewer, larger writes, fewer subtransactions and fewer streams that must be
	 * looked up one by one; a state larger than this is still migrated.
	 */
	DefineCustomIntVariable("mako_migration.max_memory",
							"Memory that a migration may use for events that wait for others "
							"and states that wait to be written.",
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
	 * Plain SQL functions are inlined, and jsonb functions in them work on expanded values. Off,
	 * functions are called and jsonb is serialized in every step: several times slower, with the
	 * same results, except that a called function evaluates arguments that it does not use, which
	 * may be errors. To be switched off if a result is ever in doubt.
	 */
	DefineCustomBoolVariable("mako_migration.native_evaluation",
							 "Evaluates plain SQL functions without calling them, "
							 "on expanded JSON values.",
							 NULL,
							 &mako_native_evaluation,
							 true,
							 PGC_USERSET, 0,
							 NULL, NULL, NULL);

	/*
	 * For tests and measurements: statistics tell which order is faster, and both give the same
	 * result.
	 */
	DefineCustomEnumVariable("mako_migration.scan_order",
							 "Order in which a migration reads events.",
							 "\"heap\" is the order in which they lie, wherever that is possible; "
							 "\"key\" looks up every stream.",
							 &mako_scan_order,
							 MAKO_SCAN_AUTO, scan_orders,
							 PGC_USERSET, GUC_NOT_IN_SAMPLE,
							 NULL, NULL, NULL);

	/*
	 * A user who waits for a migration in psql sees how far it is. All others look at
	 * mako_progress, which costs no messages.
	 */
	DefineCustomIntVariable("mako_migration.progress_interval",
							"Time between notices of how far a migration has come; 0 for none.",
							NULL,
							&mako_progress_interval,
							0, 0, INT_MAX,
							PGC_USERSET, GUC_UNIT_MS,
							NULL, NULL, NULL);

	/*
	 * A migration has as much to compute as a parallel query, so it may take as many processes,
	 * unless it is said otherwise.
	 */
	DefineCustomIntVariable("mako_migration.max_workers",
							"Number of background workers that fold streams for a migration.",
							"0 for none; -1 for as many as max_parallel_workers_per_gather.",
							&mako_max_workers,
							-1, -1, 1024,
							PGC_USERSET, 0,
							NULL, NULL, NULL);

	/*
	 * The events of an attached event store seldom say under which version they were written. A
	 * program says it once, in the options of its connection.
	 */
	DefineCustomStringVariable("mako.writer",
							   "Format version of a program whose events carry none.",
							   "Events in the table of an attached event store are taken for "
							   "those of the workflow that it was attached with, where nothing "
							   "says otherwise.",
							   &mako_writer,
							   "",
							   PGC_USERSET, 0,
							   check_writer, NULL, NULL);

	MarkGUCPrefixReserved("mako_migration");
}
