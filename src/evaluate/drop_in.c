/*
 * drop_in.c
 *	  How drop-ins for the server's jsonb functions get into an expression.
 *
 * An expression keeps naming the server's functions: only the address that is called changes, once
 * it has been prepared for evaluation. Subscripts, which are no function, become one before.
 */
#include "evaluate/inline.h"

#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "executor/execExpr.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "utils/fmgroids.h"

/* The text of a subscript: a key, or the number of an element. */
static Node *
subscript_to_text(Node *subscript)
{
	CoerceViaIO *text;

	if (exprType(subscript) == TEXTOID)
		return subscript;
	text = makeNode(CoerceViaIO);
	text->arg = (Expr *) subscript;
	text->resulttype = TEXTOID;
	text->resultcollid = DEFAULT_COLLATION_OID;
	text->coerceformat = COERCE_IMPLICIT_CAST;
	text->location = -1;
	return (Node *) text;
}

/*
 * Puts jsonb_extract_path() in the place of subscripts, which cannot be replaced in a prepared
 * expression.
 */
static Node *
rewrite_subscripts(Node *node, void *context)
{
	SubscriptingRef *subscripting;
	ArrayExpr  *path;
	FuncExpr   *call;
	ListCell   *cell;

	if (node == NULL)
		return NULL;
	node = expression_tree_mutator(node, rewrite_subscripts, context);
	subscripting = (SubscriptingRef *) node;
	if (!IsA(node, SubscriptingRef) || subscripting->refcontainertype != JSONBOID ||
		subscripting->refassgnexpr != NULL || subscripting->reflowerindexpr != NIL)
		return node;

	path = makeNode(ArrayExpr);
	path->array_typeid = TEXTARRAYOID;
	path->array_collid = DEFAULT_COLLATION_OID;
	path->element_typeid = TEXTOID;
	foreach(cell, subscripting->refupperindexpr)
		path->elements = lappend(path->elements, subscript_to_text(lfirst(cell)));
	path->location = -1;
	call = makeFuncExpr(F_JSONB_EXTRACT_PATH, JSONBOID,
						list_make2(subscripting->refexpr, mako_gate_simplify((Node *) path)),
						InvalidOid, DEFAULT_COLLATION_OID, COERCE_EXPLICIT_CALL);
	call->funcvariadic = true;
	return (Node *) call;
}

/* A planned expression in which everything that has a drop-in is a call. */
Expr *
mako_drop_in_rewrite(Expr *expression)
{
	return (Expr *) rewrite_subscripts((Node *) expression, NULL);
}

/*
 * Lets a prepared expression call the drop-ins; those that refuse find the sink in the context of
 * their call.
 */
void
mako_drop_in_replace(ExprState *state, MakoRefusals *sink)
{
	for (int i = 0; i < state->steps_len; i++)
	{
		ExprEvalStep *step = &state->steps[i];

		switch (ExecEvalStepOp(state, step))
		{
			case EEOP_FUNCEXPR:
			case EEOP_FUNCEXPR_STRICT:
#ifdef MAKO_STRICT_STEPS
			case EEOP_FUNCEXPR_STRICT_1:
			case EEOP_FUNCEXPR_STRICT_2:
#endif
			case EEOP_FUNCEXPR_FUSAGE:
			case EEOP_FUNCEXPR_STRICT_FUSAGE:
			case EEOP_DISTINCT:
			case EEOP_NOT_DISTINCT:
			case EEOP_NULLIF:
				step->d.func.fn_addr = mako_json_drop_in(step->d.func.fn_addr);
				if (mako_json_may_refuse(step->d.func.fn_addr))
					step->d.func.fcinfo_data->context = (fmNodePtr) sink;
				break;
			case EEOP_SCALARARRAYOP:
				step->d.scalararrayop.fn_addr = mako_json_drop_in(step->d.scalararrayop.fn_addr);
				break;
			case EEOP_IOCOERCE:
				step->d.iocoerce.finfo_out->fn_addr =
					mako_json_drop_in(step->d.iocoerce.finfo_out->fn_addr);
				break;
			default:
				break;
		}
	}
}
