/*
 * finding.c
 *	  The rows of mako_check().
 */
#include "inspect/inspect.h"

const char *const mako_severity_name[] = {
	[MAKO_ERROR] = "error",
	[MAKO_WARNING] = "warning",
	[MAKO_INFO] = "info",
};

/* Adds a finding, copied; the same twice is one. */
void
mako_check_add(MakoCheck *check, MakoSeverity severity, const char *code, const char *subject,
			   const char *message, const char *hint)
{
	MemoryContext old = MemoryContextSwitchTo(check->context);
	MakoFinding *finding = palloc(sizeof(MakoFinding));

	finding->severity = severity;
	finding->code = pstrdup(code);
	finding->subject = pstrdup(subject);
	finding->message = pstrdup(message);
	finding->hint = hint == NULL ? NULL : pstrdup(hint);
	check->findings = lappend(check->findings, finding);
	MemoryContextSwitchTo(old);
}

/* What an error says, with its detail. */
char *
mako_check_text(const ErrorData *error)
{
	return error->detail == NULL ? pstrdup(error->message) :
		psprintf("%s: %s", error->message, error->detail);
}

/* Adds the rows of a query. */
void
mako_check_add_rows(MakoCheck *check, MakoRows rows)
{
	for (uint64 row = 0; row < rows.count; row++)
	{
		const char *severity = mako_row_text(&rows, row, 1);
		MakoSeverity rank = MAKO_ERROR;

		while (strcmp(mako_severity_name[rank], severity) != 0)
			rank++;
		mako_check_add(check, rank, mako_row_text(&rows, row, 2), mako_row_text(&rows, row, 3),
					   mako_row_text(&rows, row, 4), mako_row_text(&rows, row, 5));
	}
	mako_rows_free(&rows);
}

/* The order of the rows: what is worst first, then by bytes. */
int
mako_check_compare(const ListCell *a, const ListCell *b)
{
	const MakoFinding *x = lfirst(a);
	const MakoFinding *y = lfirst(b);
	int			order = (int) x->severity - (int) y->severity;

	if (order == 0)
		order = strcmp(x->code, y->code);
	if (order == 0)
		order = strcmp(x->subject, y->subject);
	return order != 0 ? order : strcmp(x->message, y->message);
}
