/*
 * planning.c
 *	  How the extension's statements are planned: always in the same way.
 *
 * A session chooses settings for its own statements, and statistics are often those of before a
 * run. Neither may decide how long a run takes.
 */
#include "gate/gate.h"

#include "jit/jit.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/planmain.h"
#include "utils/plancache.h"

/* Settings that statements are planned under, as the server has them by default. */
static const struct
{
	const char *name;
	const char *value;
}			planning[] = {
	{"enable_seqscan", "on"},
	{"enable_indexscan", "on"},
	{"enable_indexonlyscan", "on"},
	{"enable_bitmapscan", "on"},
	{"enable_tidscan", "on"},
	{"enable_sort", "on"},
	{"enable_hashagg", "on"},
	{"enable_material", "on"},
	{"enable_nestloop", "on"},
	{"enable_mergejoin", "on"},
	{"enable_hashjoin", "on"},
	{"enable_partition_pruning", "on"},
	{"seq_page_cost", "1"},
	{"random_page_cost", "4"},
	{"cpu_tuple_cost", "0.01"},
	{"cpu_index_tuple_cost", "0.005"},
	{"cpu_operator_cost", "0.0025"},
	{"from_collapse_limit", "8"},
	{"join_collapse_limit", "8"},
	{"plan_cache_mode", "auto"},
};

/* Returns true if all of them are what they are by default. */
static bool
is_default_planning(void)
{
	return enable_seqscan && enable_indexscan && enable_indexonlyscan && enable_bitmapscan &&
		enable_tidscan && enable_sort && enable_hashagg && enable_material && enable_nestloop &&
		enable_mergejoin && enable_hashjoin && enable_partition_pruning &&
		seq_page_cost == DEFAULT_SEQ_PAGE_COST && random_page_cost == DEFAULT_RANDOM_PAGE_COST &&
		cpu_tuple_cost == DEFAULT_CPU_TUPLE_COST &&
		cpu_index_tuple_cost == DEFAULT_CPU_INDEX_TUPLE_COST &&
		cpu_operator_cost == DEFAULT_CPU_OPERATOR_COST &&
		from_collapse_limit == 8 && join_collapse_limit == 8 &&
		plan_cache_mode == PLAN_CACHE_MODE_AUTO;
}

/*
 * Fixes how statements are planned while a connection lasts, whatever the session has chosen for
 * its own. They are not compiled: they are short, and asked for every batch. Statistics that know
 * nothing yet of what a run writes make them look dear, and compiling each anew takes ten times as
 * long as the run.
 */
void
mako_planning_fix(MakoConnection connection)
{
	if (jit_enabled)
		mako_sql_set(connection, "jit", "off");
	for (size_t i = 0; i < lengthof(planning) && !is_default_planning(); i++)
		mako_sql_set(connection, planning[i].name, planning[i].value);
}

/*
 * Lets a statement go its way, until the gate is left. Of rows that statistics do not know yet, the
 * server expects one: so it would look through one table for each row of another; or it would
 * collect all rows that there are, and sort them, where the first ones are wanted.
 */
void
mako_planning_go(MakoWay way, const MakoGate *gate)
{
	static const char *const avoided[][4] = {
		[MAKO_ANY_WAY] = {NULL},
		[MAKO_BY_TABLES] = {"enable_nestloop", NULL},
		[MAKO_BY_KEYS] = {"enable_seqscan", "enable_bitmapscan", "enable_sort", NULL},
	};

	for (const char *const *name = avoided[way]; *name != NULL; name++)
		mako_sql_set((MakoConnection) {gate->guc_level}, *name, "off");
}
