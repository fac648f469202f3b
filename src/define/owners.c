/*
 * owners.c
 *	  With whose rights a definition is computed: the owners of its functions, now and when it was
 *	  registered.
 */
#include "define/definition.h"

#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/syscache.h"

/* Adds an actor to a list. */
static List *
add_actor(List *actors, const char *signature, Oid owner)
{
	MakoActor  *actor = palloc(sizeof(MakoActor));

	actor->signature = signature;
	actor->owner = owner;
	return lappend(actors, actor);
}

/* The actors of a definition: its functions, then the helpers that run as another role. */
List *
mako_actors_of(MakoFunction *const *functions, int count, const List *helpers)
{
	List	   *actors = NIL;
	ListCell   *cell;

	for (int i = 0; i < count; i++)
		if (functions[i] != NULL)
			actors = add_actor(actors, functions[i]->signature, functions[i]->owner);
	foreach(cell, helpers)
	{
		HeapTuple	tuple = mako_function_tuple(lfirst_oid(cell));

		actors = add_actor(actors, format_procedure_qualified(lfirst_oid(cell)),
						   ((Form_pg_proc) GETSTRUCT(tuple))->proowner);
		ReleaseSysCache(tuple);
	}
	return actors;
}

/*
 * Puts the owners of a definition's actors into two parameters: text[] of names and of identities.
 */
void
mako_actors_bind(const List *actors, int parameter, NullableDatum *values)
{
	const char **names = palloc(sizeof(char *) * (list_length(actors) + 1));
	const char **identities = palloc(sizeof(char *) * (list_length(actors) + 1));
	int			count = 0;
	ListCell   *cell;

	foreach(cell, actors)
	{
		const MakoActor *actor = lfirst(cell);

		names[count] = GetUserNameFromId(actor->owner, false);
		identities[count++] = mako_identity(actor->owner);
	}
	values[parameter] = mako_text_array(names, count);
	values[parameter + 1] = mako_text_array(identities, count);
}

/* Puts the caller into two parameters: name and identity. */
void
mako_actors_bind_caller(int parameter, NullableDatum *values)
{
	values[parameter] = mako_text(GetUserNameFromId(GetUserId(), false));
	values[parameter + 1] = mako_text(mako_identity(GetUserId()));
}

/* The elements of a text[] column. */
static char **
texts_of(const MakoRows *rows, uint64 row, int column, int *count)
{
	Datum	   *elements;
	char	  **texts;

	deconstruct_array(DatumGetArrayTypeP(mako_row_datum(rows, row, column, TEXTARRAYOID)), TEXTOID,
					  -1, false, TYPALIGN_INT, &elements, NULL, count);
	texts = palloc(sizeof(char *) * (*count + 1));
	for (int i = 0; i < *count; i++)
		texts[i] = TextDatumGetCString(elements[i]);
	return texts;
}

/*
 * The registered owners of a definition's functions and helpers, from the column of their names
 * and, after it, that of their identities.
 */
MakoOwners
mako_definition_owners(const MakoRows *rows, uint64 row, int column)
{
	MakoOwners	owners;
	int			identities;

	owners.name = texts_of(rows, row, column, &owners.count);
	owners.identity = texts_of(rows, row, column + 1, &identities);
	owners.count = Min(owners.count, identities);
	return owners;
}

/*
 * The first actor that belongs to another role than it is registered with, whose number among the
 * owners is told; NULL for none. Texts that are the same have the same number of actors.
 */
const MakoActor *
mako_actors_find_other(const MakoOwners *owners, const List *actors, int *number)
{
	ListCell   *cell;

	*number = 0;
	foreach(cell, actors)
	{
		const MakoActor *actor = lfirst(cell);

		if (*number >= owners->count ||
			!mako_role_is(actor->owner, owners->name[*number], owners->identity[*number]))
			return actor;
		(*number)++;
	}
	return NULL;
}

/*
 * Returns true if the caller has the privileges of all of these roles, and there is at least one.
 */
bool
mako_owners_are_callers(const MakoOwners *owners)
{
	for (int i = 0; i < owners->count; i++)
	{
		Oid			owner = mako_role_find(owners->name[i], owners->identity[i]);

		if (!OidIsValid(owner) || !has_privs_of_role(GetUserId(), owner))
			return false;
	}
	return owners->count > 0;
}
