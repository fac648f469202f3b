/*
 * migration_path.c
 *	  From a pair of workflow ids to the definitions that a migration needs: the shortest path
 *	  through the registered steps.
 */
#include "define/define.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"

/*
 * Of one workflow: its versions are those from "name@" to "nameA" in the order of bytes, which is
 * the domain's.
 */
static MakoStatement select_edges = {
	"SELECT source_wf::text, target_wf::text FROM %s.mako_state_migration"
	" WHERE source_wf::text >= $1 AND source_wf::text < $2 ORDER BY source_wf, target_wf",
	2, {TEXTOID, TEXTOID}
};

/*
 * The registered steps of one workflow as a graph, and how far the search from the source has
 * come.
 */
typedef struct Graph
{
	int			nodes;
	char	  **node;			/* workflow ids; the source is number 0 */
	int		   *distance;		/* steps from the source; -1 not reached */
	int		   *previous;		/* on a shortest path */
	int		   *paths;			/* how many shortest paths lead here, counted up to 2 */
	int			edges;
	int		   *edge_source;
	int		   *edge_target;
} Graph;

/* The number of a workflow id, which is added when it is new. */
static int
node_number(Graph *graph, char *workflow_id)
{
	for (int i = 0; i < graph->nodes; i++)
		if (strcmp(graph->node[i], workflow_id) == 0)
			return i;
	graph->node[graph->nodes] = workflow_id;
	return graph->nodes++;
}

/* Reads the registered steps of the source's workflow. */
static Graph *
read_graph(const char *source_wf)
{
	Graph	   *graph = palloc0(sizeof(Graph));
	int			name_length = mako_workflow_id_version(source_wf) - source_wf - 1;
	NullableDatum values[] = {
		mako_text(psprintf("%.*s@", name_length, source_wf)),
		mako_text(psprintf("%.*sA", name_length, source_wf))
	};
	MakoRows	rows = mako_sql_query(&select_edges, values);
	int			most_nodes = 2 * (int) rows.count + 2;	/* of the edges, source and target */

	graph->node = palloc(sizeof(char *) * most_nodes);
	graph->distance = palloc(sizeof(int) * most_nodes);
	graph->previous = palloc(sizeof(int) * most_nodes);
	graph->paths = palloc0(sizeof(int) * most_nodes);
	graph->edge_source = palloc(sizeof(int) * (rows.count + 1));
	graph->edge_target = palloc(sizeof(int) * (rows.count + 1));
	graph->edges = (int) rows.count;

	(void) node_number(graph, pstrdup(source_wf));
	for (int i = 0; i < graph->edges; i++)
	{
		graph->edge_source[i] = node_number(graph, mako_row_text(&rows, i, 1));
		graph->edge_target[i] = node_number(graph, mako_row_text(&rows, i, 2));
	}
	mako_rows_free(&rows);
	return graph;
}

/*
 * Breadth first from the source: distances, one shortest path, and whether there is another one as
 * short.
 */
static void
search(Graph *graph)
{
	bool		reached = true;

	for (int i = 1; i < graph->nodes; i++)
		graph->distance[i] = -1;
	graph->distance[0] = 0;
	graph->paths[0] = 1;
	for (int step = 1; reached; step++)
	{
		reached = false;
		for (int i = 0; i < graph->edges; i++)
		{
			int			from = graph->edge_source[i];
			int			to = graph->edge_target[i];

			if (graph->distance[from] != step - 1 ||
				(graph->distance[to] >= 0 && graph->distance[to] < step))
				continue;
			graph->distance[to] = step;
			graph->previous[to] = from;
			graph->paths[to] = Min(graph->paths[to] + graph->paths[from], 2);
			reached = true;
		}
	}
}

/* What leads out of the source, for an error. */
static const char *
ways_out(const Graph *graph)
{
	StringInfoData text;

	initStringInfo(&text);
	for (int i = 0; i < graph->edges; i++)
		if (graph->edge_source[i] == 0)
			appendStringInfo(&text, "%s\"%s\"",
							 text.len > 0 ? ", " : "", graph->node[graph->edge_target[i]]);
	return text.len > 0 ? psprintf("Registered steps from it lead to %s.", text.data) :
		"No step is registered from it.";
}

/* Returns true if a chain of registered steps leads from one workflow to another. */
bool
mako_plan_leads(const char *source_wf, const char *target_wf)
{
	Graph	   *graph = read_graph(source_wf);
	int			node = node_number(graph, pstrdup(target_wf));

	search(graph);
	return graph->distance[node] > 0;
}

/* Workflows at which several shortest paths from a source meet. */
List *
mako_plan_junctions(const char *source_wf)
{
	Graph	   *graph = read_graph(source_wf);
	List	   *junctions = NIL;

	search(graph);
	for (int node = 1; node < graph->nodes; node++)
	{
		int			ways = 0;

		for (int i = 0; i < graph->edges; i++)
		{
			int			from = graph->edge_source[i];

			ways += graph->edge_target[i] == node && graph->distance[from] >= 0 &&
				graph->distance[from] == graph->distance[node] - 1;
		}
		if (ways > 1)
			junctions = lappend(junctions, graph->node[node]);
	}
	return junctions;
}

/* Raises unless source and target, two workflow ids or two format versions, differ. */
void
mako_plan_require_pair(const char *source, const char *target)
{
	if (strcmp(source, target) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("source and target must differ"),
				 errdetail("Both are \"%s\".", source)));
}

/*
 * The workflow ids on the shortest path from source to target, which are steps + 1; an error when
 * there is none, or another one.
 */
const char **
mako_plan_ids(const char *source_wf, const char *target_wf, int *steps)
{
	Graph	   *graph = read_graph(source_wf);
	int			node = node_number(graph, pstrdup(target_wf));
	const char **ids;

	search(graph);
	if (graph->distance[node] < 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("no state migration leads from \"%s\" to \"%s\"", source_wf, target_wf),
				 errdetail_internal("%s", ways_out(graph)),
				 errhint("Use mako_register_migration().")));
	if (graph->paths[node] > 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("more than one shortest path leads from \"%s\" to \"%s\"",
						source_wf, target_wf),
				 errdetail("Each has %d steps.", graph->distance[node]),
				 errhint("Migrate step by step.")));
	*steps = graph->distance[node];
	ids = palloc(sizeof(char *) * (*steps + 1));
	for (int step = *steps; step >= 0; step--, node = graph->previous[node])
		ids[step] = graph->node[node];
	return ids;
}

/*
 * The plan for a pair: all definitions on the shortest path, verified. With equal ids it is the
 * workflow alone, for mako_fold().
 */
MakoPlan *
mako_plan_create(const char *source_wf, const char *target_wf)
{
	MakoPlan   *plan = palloc0(sizeof(MakoPlan));
	MakoWorkflow *source = mako_definition_workflow(source_wf);
	MakoWorkflow *target = mako_definition_workflow(target_wf);
	const char **ids = mako_plan_ids(source_wf, target_wf, &plan->steps);
	StringInfoData text;

	plan->workflows = palloc(sizeof(MakoWorkflow *) * (plan->steps + 1));
	plan->migrations = palloc(sizeof(MakoStateMigration *) * (plan->steps + 1));
	plan->identity = true;
	plan->workflows[0] = source;
	plan->workflows[plan->steps] = target;
	for (int step = plan->steps; step > 0; step--)
	{
		if (step < plan->steps)
			plan->workflows[step] = mako_definition_workflow(ids[step]);
		plan->migrations[step - 1] = mako_definition_migration(ids[step - 1], ids[step]);
		if (plan->migrations[step - 1]->migrate != NULL)
			plan->identity = false;
	}

	initStringInfo(&text);
	for (int i = 0; i <= plan->steps; i++)
	{
		appendStringInfo(&text, "%s\n", plan->workflows[i]->fingerprint);
		if (i < plan->steps)
			appendStringInfo(&text, "%s\n", plan->migrations[i]->fingerprint);
	}
	plan->fingerprint = mako_fingerprint_digest(text.data);
	return plan;
}

/* The workflow ids on the path, as text[]. */
NullableDatum
mako_plan_path(const MakoPlan *plan)
{
	const char **ids = palloc(sizeof(char *) * (plan->steps + 1));

	for (int i = 0; i <= plan->steps; i++)
		ids[i] = plan->workflows[i]->workflow_id;
	return mako_text_array(ids, plan->steps + 1);
}

/*
 * The definitions on the path as text[], workflows and the steps between them: their digests are
 * what the fingerprint is made of.
 */
NullableDatum
mako_plan_definitions(const MakoPlan *plan)
{
	const char **texts = palloc(sizeof(char *) * (2 * plan->steps + 1));

	for (int i = 0; i <= plan->steps; i++)
	{
		texts[2 * i] = plan->workflows[i]->description;
		if (i < plan->steps)
			texts[2 * i + 1] = plan->migrations[i]->description;
	}
	return mako_text_array(texts, 2 * plan->steps + 1);
}

MAKO_FUNCTION(mako_fingerprint);

/* sha256 over everything that a migration of this pair would use. */
Datum
mako_fingerprint(PG_FUNCTION_ARGS)
{
	char	   *source_wf = TextDatumGetCString(PG_GETARG_DATUM(0));
	char	   *target_wf = TextDatumGetCString(PG_GETARG_DATUM(1));
	MakoConnection connection = mako_sql_connect();
	const char *fingerprint = mako_plan_create(source_wf, target_wf)->fingerprint;

	mako_sql_disconnect(connection);
	PG_RETURN_TEXT_P(cstring_to_text(fingerprint));
}
