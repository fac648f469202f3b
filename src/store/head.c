/*
 * head.c
 *	  Changes heads: one column of a head that is locked.
 *
 * Advancing a head is what an engine pays for with every event, and repointing them is a good part
 * of a migration. An UPDATE statement would prepare every check constraint of the table, none of
 * which is about what changes, and take a third of the time of appending an event.
 */
#include "store/store.h"

#include "access/xact.h"
#include "catalog/pg_type.h"

/*
 * Sets the version of the head at tid, which this transaction has locked; false where only an
 * UPDATE statement can do it.
 */
bool
mako_head_advance(const ItemPointerData *tid, int64 version)
{
	static const char *const column = "version";
	MakoTableWrite *heads = mako_table_write_open("stream", CMD_UPDATE, &column, 1);
	ItemPointerData head = *tid;
	bool		advanced;

	if (heads == NULL)
		return false;
	advanced = mako_table_write_update(heads, &head, Int64GetDatum(version));
	mako_table_write_close(heads);
	if (advanced)
		CommandCounterIncrement();
	return advanced;
}

/*
 * Opens the heads to change the workflows that they run under; NULL where only an UPDATE statement
 * can do it.
 */
MakoTableWrite *
mako_head_open(void)
{
	static const char *const column = "workflow_id";

	return mako_table_write_open("stream", CMD_UPDATE, &column, 1);
}
