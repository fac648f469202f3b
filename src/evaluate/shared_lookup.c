/*
 * shared_lookup.c
 *	  Lookups that an expression repeats, done once.
 *
 * Functions over JSON say payload->'data' and state->>'status' again and again, and inlining puts
 * their bodies side by side. A lookup in a parameter or in a binding that stands in a program more
 * than once becomes a binding itself: it is done where it is needed first. So does a field that
 * stands there once, because bindings find fields without the executor. Nothing that can fail is
 * shared, and nothing volatile could be here. Pure; works on the planned expression of a program.
 */
#include "evaluate/inline.h"

#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "utils/lsyscache.h"

/* A lookup that was met. */
typedef struct Lookup
{
	Expr	   *expression;
	int			uses;
	Param	   *reference;		/* to its binding; NULL while it has none */
} Lookup;

/* One round: lookups in what is no lookup itself. */
typedef struct Sharing
{
	List	   *lookups;
	List	  **bindings;		/* of the program */
	bool		changed;
} Sharing;

/* Returns true if this is a lookup with the simplest arguments. */
static bool
is_lookup(const Node *node)
{
	List	   *arguments;
	Oid			function = mako_json_call(node, &arguments);
	ListCell   *cell;

	if (!OidIsValid(function))
		return false;
	foreach(cell, arguments)
		if (!IsA(lfirst(cell), Param) && !IsA(lfirst(cell), Const))
			return false;
	return mako_json_function_is_lookup(function);
}

/* The entry of a lookup; NULL where there is none. */
static Lookup *
find_lookup(const Sharing *sharing, const Node *node)
{
	ListCell   *cell;

	foreach(cell, sharing->lookups)
		if (equal(((Lookup *) lfirst(cell))->expression, node))
			return lfirst(cell);
	return NULL;
}

/* Counts the lookups of an expression. */
static bool
count_lookups(Node *node, void *context)
{
	Sharing    *sharing = context;
	Lookup	   *lookup;

	if (node == NULL)
		return false;
	if (!is_lookup(node))
		return expression_tree_walker(node, count_lookups, context);
	lookup = find_lookup(sharing, node);
	if (lookup == NULL)
	{
		lookup = palloc0(sizeof(Lookup));
		lookup->expression = (Expr *) node;
		sharing->lookups = lappend(sharing->lookups, lookup);
	}
	lookup->uses++;
	return false;
}

/* A reference to the binding of this number. */
static Param *
reference_to(const Sharing *sharing, int number)
{
	const MakoBinding *binding = list_nth(*sharing->bindings, number);
	Param	   *reference = makeNode(Param);

	reference->paramkind = PARAM_EXTERN;
	reference->paramid = MAKO_PARAMETER_PAYLOAD + 1 + number;
	reference->paramtype = exprType((Node *) binding->expression);
	reference->paramtypmod = -1;
	reference->paramcollid = exprCollation((Node *) binding->expression);
	reference->location = -1;
	return reference;
}

/* Counts the lookups of a binding; what is bound already needs no other binding. */
static void
count_in_binding(Sharing *sharing, int number)
{
	Node	   *expression = (Node *) ((MakoBinding *) list_nth(*sharing->bindings,
																number))->expression;

	(void) count_lookups(expression, sharing);
	if (is_lookup(expression))
		find_lookup(sharing, expression)->reference = reference_to(sharing, number);
}

/* Makes a binding of a lookup. */
static void
bind_lookup(const Sharing *sharing, Lookup *lookup)
{
	MakoBinding *binding = palloc0(sizeof(MakoBinding));

	binding->expression = lookup->expression;
	binding->typlen = get_typlen(exprType((Node *) binding->expression));
	*sharing->bindings = lappend(*sharing->bindings, binding);
	lookup->reference = reference_to(sharing, list_length(*sharing->bindings) - 1);
}

/* Puts references in the places of fields, and of other lookups that are used more than once. */
static Node *
replace_lookups(Node *node, void *context)
{
	Sharing    *sharing = context;
	Lookup	   *lookup;
	bool		is_text;

	if (node == NULL)
		return NULL;
	if (!is_lookup(node))
		return expression_tree_mutator(node, replace_lookups, context);
	lookup = find_lookup(sharing, node);
	if (lookup->uses == 1 && !mako_json_is_field(node, &is_text))
		return node;
	if (lookup->reference == NULL)
		bind_lookup(sharing, lookup);
	sharing->changed = true;
	return (Node *) lookup->reference;
}

/* Shares what can be shared now; false when there was nothing. */
static bool
share_once(Expr **expression, List **bindings)
{
	Sharing		sharing = {NIL, bindings};
	int			before = list_length(*bindings);

	(void) count_lookups((Node *) *expression, &sharing);
	for (int i = 0; i < before; i++)
		count_in_binding(&sharing, i);
	*expression = (Expr *) replace_lookups((Node *) *expression, &sharing);
	for (int i = 0; i < before; i++)
	{
		MakoBinding *binding = list_nth(*bindings, i);

		if (!is_lookup((Node *) binding->expression))
			binding->expression = (Expr *) replace_lookups((Node *) binding->expression, &sharing);
	}
	return sharing.changed;
}

/*
 * Lets an expression and its bindings do every lookup once: innermost first, because a lookup in a
 * lookup is one in a binding then.
 */
void
mako_share_lookups(Expr **expression, List **bindings)
{
	while (share_once(expression, bindings))
		;
}
