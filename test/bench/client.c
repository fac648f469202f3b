/*
 * client.c
 *	  What an engine does that migrates with its own code: it loads, folds and saves stream by stream, in one transaction.
 *
 *	  client prepared|parsed SOURCE TARGET LAST_STREAM	  connection from the environment
 *
 * Three round trips a stream, in text format; statements are prepared once, or parsed and planned each time. The fold knows no more of
 * JSON than how the server prints it, and no more of the workflow than the benchmark's streams need: whatever a real engine does costs
 * more. Prints the server's process id, waits for a line, works, prints how many streams it saved, and waits for the end of its input,
 * so that its CPU time can be read before it ends.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libpq-fe.h"

static PGconn *connection;

/* What is done with each stream. */
typedef enum Step
{
	LOAD,
	SAVE,
	MOVE,
	STEPS
} Step;

static const char *const statement[STEPS] = {
	"SELECT event_type, payload FROM mako.event WHERE stream_no = $1 ORDER BY sequence_number",
	"INSERT INTO bench.snapshot (stream_no, sequence_number, run_id, workflow_id, state_schema_version, state, taken_at)"
	" VALUES ($1, $2, 1, $3, 3, $4, now())",
	"UPDATE bench.stream SET workflow_id = $2 WHERE stream_no = $1",
};
static const char *const name[STEPS] = {"load", "save", "move"};

/* Ends the program with the server's message. */
static void
fail(void)
{
	fputs(PQerrorMessage(connection), stderr);
	exit(1);
}

/* Keeps a result that is as expected. */
static PGresult *
expect(PGresult *result, ExecStatusType status)
{
	if (PQresultStatus(result) != status)
		fail();
	return result;
}

/* A statement without parameters and result. */
static void
execute(const char *sql)
{
	PQclear(expect(PQexec(connection, sql), PGRES_COMMAND_OK));
}

/* One round trip. */
static PGresult *
run(Step step, int prepared, int nparameters, const char *const *parameters)
{
	PGresult   *result = prepared ? PQexecPrepared(connection, name[step], nparameters, parameters, NULL, NULL, 0)
		: PQexecParams(connection, statement[step], nparameters, NULL, parameters, NULL, NULL, 0);

	return expect(result, step == LOAD ? PGRES_TUPLES_OK : PGRES_COMMAND_OK);
}

/* Copies the value of a key, as the server prints jsonb, to out, and returns its end; null for no value. The values hold no escape. */
static char *
copy_value(char *out, const char *json, const char *key)
{
	const char *from = strstr(json, key);
	const char *to;

	if (from == NULL)
		return stpcpy(out, "null");
	from += strlen(key) + 2;
	to = *from == '"' ? strchr(from + 1, '"') + 1 : from + strcspn(from, ",}");
	memcpy(out, from, to - from);
	out[to - from] = '\0';
	return out + (to - from);
}

/* Writes the migrated master data of the event Initiated. */
static char *
write_data(char *out, const char *initiated)
{
	static const char *const keys[][2] = {
		{"{\"location_id\": ", "\"location_id\""},
		{", \"new_supplier\": ", "\"new_supplier\""},
		{", \"grid_operator\": ", "\"grid_operator\""},
		{", \"document_date_utc\": ", "\"document_date\""},
		{", \"process_date\": ", "\"process_date\""},
		{", \"transaktionsgrund\": ", "\"transaktionsgrund\""},
		{", \"pruefidentifikator\": ", "\"pruefidentifikator\""},
	};

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		out = copy_value(stpcpy(out, keys[i][0]), initiated, keys[i][1]);
	return stpcpy(out, ", \"commodity\": \"STROM\"}");
}

/* Folds the events of a stream, and migrates the state. */
static void
fold(char *out, const PGresult *events)
{
	const char *initiated = "";
	const char *answer = NULL;
	const char *rejection = NULL;
	int			active = 0;

	for (int row = 0; row < PQntuples(events); row++)
	{
		const char *type = PQgetvalue(events, row, 0);
		const char *payload = PQgetvalue(events, row, 1);

		if (strcmp(type, "SupplierChangeInitiated") == 0)
			initiated = payload;
		else if (strcmp(type, "SupplierChangeAntwortGesendet") == 0)
			answer = payload;
		else if (strcmp(type, "SupplierChangeActivated") == 0)
			active = 1;
		else if (strcmp(type, "SupplierChangeRejected") == 0)
			rejection = payload;
	}
	if (rejection != NULL)
		out = copy_value(stpcpy(out, "{\"status\": \"Rejected\", \"data\": {\"reason\": "), rejection, "\"reason\"");
	else if (active)
	{
		char		pid[32];

		(void) copy_value(pid, initiated, "\"pruefidentifikator\"");
		out = stpcpy(stpcpy(out, "{\"status\": \""), strcmp(pid, "55077") == 0 ? "ActiveErzeugend" : "ActiveVerbrauchend");
		out = write_data(stpcpy(out, "\", \"data\": "), initiated);
		(void) stpcpy(out, "}");
		return;
	}
	else
	{
		out = write_data(stpcpy(out, "{\"status\": \"AntwortGesendet\", \"data\": {\"data\": "), initiated);
		out = copy_value(stpcpy(out, ", \"response_pid\": "), answer, "\"response_pid\"");
	}
	(void) stpcpy(out, "}}");
}

int
main(int argc, char **argv)
{
	char		line[16];
	int			prepared;
	PGresult   *streams;
	const char *parameters[4];

	if (argc != 5)
	{
		fputs("usage: client prepared|parsed SOURCE TARGET LAST_STREAM\n", stderr);
		return 2;
	}
	prepared = strcmp(argv[1], "prepared") == 0;
	connection = PQconnectdb("");
	if (PQstatus(connection) != CONNECTION_OK)
		fail();
	if (prepared)
		for (Step step = LOAD; step < STEPS; step++)
			PQclear(expect(PQprepare(connection, name[step], statement[step], 0, NULL), PGRES_COMMAND_OK));
	printf("%d\n", PQbackendPID(connection));
	fflush(stdout);
	if (fgets(line, sizeof(line), stdin) == NULL)
		return 1;

	execute("BEGIN");
	parameters[0] = argv[2];
	parameters[1] = argv[4];
	streams = expect(PQexecParams(connection, "SELECT stream_no, version FROM bench.stream"
								  " WHERE workflow_id = $1 AND stream_no <= $2::bigint ORDER BY stream_no FOR UPDATE",
								  2, NULL, parameters, NULL, NULL, 0), PGRES_TUPLES_OK);
	for (int row = 0; row < PQntuples(streams); row++)
	{
		char		state[2048];
		PGresult   *events;

		parameters[0] = PQgetvalue(streams, row, 0);
		events = run(LOAD, prepared, 1, parameters);
		fold(state, events);
		PQclear(events);
		parameters[1] = PQgetvalue(streams, row, 1);
		parameters[2] = argv[3];
		parameters[3] = state;
		PQclear(run(SAVE, prepared, 4, parameters));
		parameters[1] = argv[3];
		PQclear(run(MOVE, prepared, 2, parameters));
	}
	execute("COMMIT");
	printf("%d\n", PQntuples(streams));
	fflush(stdout);
	while (getchar() != EOF)
		;
	PQclear(streams);
	PQfinish(connection);
	return 0;
}
