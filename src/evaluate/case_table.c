/*
 * case_table.c
 *	  CASE and comparisons over constant texts, as one look into a hash table.
 *
 * Functions that handle events ask again and again what a text is: CASE payload->>'type' WHEN 'a'
 * THEN ..., x = 'a', x IN ('a', 'b'). The executor compares one after the other. Here each of them
 * is a *choice*: a test, and a result for each constant, for any other text, and for null.
 * Comparisons are choices between true, false and null; a CASE composes the choices of its
 * conditions, and that of its ELSE, as long as they test the same. A choice stands in the
 * expression as a parameter. Its test and one of its results are evaluated where the CASE would
 * have been, and nothing else.
 *
 * Planned as the owner of the function, in the memory context of the program.
 */
#include "evaluate/operand.h"

#include "catalog/pg_collation.h"
#include "catalog/pg_proc.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"

/* ---- choices and their options -------------------------------------------------------------- */

/* Adds a result; returns its number. */
static int
add_result(MakoChoice *choice, Expr *expression)
{
	MakoOperand *operand = palloc0(sizeof(MakoOperand));

	operand->expression = expression;
	choice->results = lappend(choice->results, operand);
	return list_length(choice->results) - 1;
}

/*
 * A hash of a text: its length and some of its bytes tell those apart that programs compare with.
 */
static inline uint32
hash(const char *text, uint32 length)
{
	uint32		bytes = length;

	if (length > 0)
		bytes += (uint32) (unsigned char) text[0] << 8 |
			(uint32) (unsigned char) text[length / 2] << 16 |
			(uint32) (unsigned char) text[length - 1] << 24;
	return (bytes * 0x9E3779B1u) >> 16;
}

/* The place of a text in the table, or the free one where it belongs. */
static inline uint32
slot_of(const MakoChoice *choice, const char *text, uint32 length)
{
	uint32		place = hash(text, length) & choice->mask;

	for (;; place = (place + 1) & choice->mask)
	{
		const MakoOption *option = choice->table[place];

		if (option == NULL ||
			(option->length == length && mako_json_same_bytes(option->text, text, length)))
			return place;
	}
}

/* Makes the table, or a larger one, so that half of it stays free. */
static void
grow_table(MakoChoice *choice)
{
	MakoOption **options = choice->table;
	uint32		size = options == NULL ? 0 : choice->mask + 1;

	choice->mask = size == 0 ? 3 : 2 * size - 1;
	choice->table = palloc0(sizeof(MakoOption *) * (choice->mask + 1));
	for (uint32 i = 0; i < size; i++)
		if (options[i] != NULL)
			choice->table[slot_of(choice, options[i]->text, options[i]->length)] = options[i];
}

/* A choice over a test, so far without options. */
static MakoChoice *
new_choice(Expr *test)
{
	MakoChoice *choice = palloc0(sizeof(MakoChoice));

	choice->test.expression = test;
	grow_table(choice);
	return choice;
}

/* Adds an option; of several for the same text the first one counts. */
static void
add_option(MakoChoice *choice, const char *text, uint32 length, int result)
{
	MakoOption *option;
	uint32		place;

	if (2 * (choice->count + 1) > (int) choice->mask + 1)
		grow_table(choice);
	place = slot_of(choice, text, length);
	if (choice->table[place] != NULL)
		return;
	option = palloc(sizeof(MakoOption));
	option->text = text;
	option->length = length;
	option->result = result;
	choice->table[place] = option;
	choice->count++;
}

/* The number of the result for a text. */
static inline int
result_for(const MakoChoice *choice, const char *text, uint32 length)
{
	const MakoOption *option = choice->table[slot_of(choice, text, length)];

	return option == NULL ? choice->else_result : option->result;
}

/* The choice that a node stands for; NULL for any other node. */
static MakoChoice *
choice_of(const MakoProgram *program, const Node *node)
{
	const Param *param = (const Param *) node;

	if (node == NULL || !IsA(node, Param) || param->paramkind != PARAM_EXTERN ||
		param->paramid >= 0)
		return NULL;
	return list_nth(program->choices, -param->paramid - 1);
}

/* What stands for a choice, in the place of a node. */
static Node *
reference_to(MakoProgram *program, MakoChoice *choice, const Node *node)
{
	Param	   *reference = makeNode(Param);

	program->choices = lappend(program->choices, choice);
	reference->paramkind = PARAM_EXTERN;
	reference->paramid = -list_length(program->choices);
	reference->paramtype = exprType(node);
	reference->paramtypmod = exprTypmod(node);
	reference->paramcollid = exprCollation(node);
	reference->location = -1;
	return (Node *) reference;
}

/* ---- comparisons ---------------------------------------------------------------------------- */

/*
 * Returns true if a comparison of texts means that of their bytes, and the current role may make
 * it.
 */
static bool
compares_bytes(Oid function, Oid collation, bool *is_negated)
{
	return (collation == DEFAULT_COLLATION_OID || collation == C_COLLATION_OID) &&
		mako_json_function_compares_texts(function, is_negated) &&
		MakoFunctionAclCheck(function, GetUserId()) == ACLCHECK_OK;
}

/*
 * A comparison with constants, as a choice: what it is for one of them, for another text, and for
 * null.
 */
static MakoChoice *
new_comparison(Expr *test, Datum *constants, const bool *nulls, int count, bool is_negated)
{
	MakoChoice *choice = new_choice(test);
	int			found = add_result(choice, (Expr *) makeBoolConst(!is_negated, false));
	bool		has_null = false;

	choice->is_equality = !is_negated;
	for (int i = 0; i < count; i++)
	{
		const text *constant;

		has_null = has_null || nulls[i];
		if (nulls[i])
			continue;
		constant = DatumGetTextPP(constants[i]);
		add_option(choice, VARDATA_ANY(constant), VARSIZE_ANY_EXHDR(constant), found);
	}
	choice->null_result = add_result(choice, (Expr *) makeBoolConst(false, true));
	choice->else_result = has_null ? choice->null_result :
		add_result(choice, (Expr *) makeBoolConst(is_negated, false));
	return choice;
}

/*
 * The comparison of a parameter or binding with a constant, or with several; NULL where a node is
 * none.
 */
static MakoChoice *
comparison(const Node *node)
{
	bool		is_negated;
	bool		nulls[1] = {false};

	if (IsA(node, OpExpr))
	{
		const OpExpr *operator = (const OpExpr *) node;
		Node	   *test;
		Node	   *constant;

		if (list_length(operator->args) != 2)
			return NULL;
		test = linitial(operator->args);
		constant = lsecond(operator->args);
		if (IsA(test, Const))
		{
			test = lsecond(operator->args);
			constant = linitial(operator->args);
		}
		if (!IsA(test, Param) || !IsA(constant, Const) || ((Const *) constant)->constisnull ||
			!compares_bytes(operator->opfuncid, operator->inputcollid, &is_negated))
			return NULL;
		return new_comparison((Expr *) test, &((Const *) constant)->constvalue, nulls,
							  1, is_negated);
	}
	if (IsA(node, ScalarArrayOpExpr))
	{
		const ScalarArrayOpExpr *operator = (const ScalarArrayOpExpr *) node;
		const Const *array = lsecond(operator->args);
		ArrayType  *texts;
		Datum	   *elements;
		bool	   *element_nulls;
		int			count;

		/* ANY of those that are equal, or ALL of those that are not. */
		if (!IsA(linitial(operator->args), Param) || !IsA(array, Const) || array->constisnull ||
			!compares_bytes(operator->opfuncid, operator->inputcollid, &is_negated) ||
			operator->useOr == is_negated)
			return NULL;
		texts = DatumGetArrayTypeP(array->constvalue);
		deconstruct_array(texts, ARR_ELEMTYPE(texts), -1, false, TYPALIGN_INT, &elements,
						  &element_nulls, &count);
		/* Of none, it is never null. */
		return count == 0 ? NULL :
			new_comparison(linitial(operator->args), elements, element_nulls, count, is_negated);
	}
	return NULL;
}

/* ---- CASE ----------------------------------------------------------------------------------- */

/*
 * The condition of CASE test WHEN constant, as a comparison of the test; NULL where it is another
 * one.
 */
static MakoChoice *
case_condition(const CaseExpr *node, const CaseWhen *when)
{
	const OpExpr *operator = (const OpExpr *) when->expr;
	bool		nulls[1] = {false};
	bool		is_negated;

	if (!IsA(operator, OpExpr) || list_length(operator->args) != 2 ||
		!IsA(linitial(operator->args), CaseTestExpr) ||
		!IsA(lsecond(operator->args), Const) || lsecond_node(Const, operator->args)->constisnull ||
		!compares_bytes(operator->opfuncid, operator->inputcollid, &is_negated))
		return NULL;
	return new_comparison(node->arg, &lsecond_node(Const, operator->args)->constvalue, nulls,
						  1, is_negated);
}

/* The comparison that a WHEN makes; NULL where nothing can be made of it in a choice. */
static MakoChoice *
condition_of(const MakoProgram *program, const CaseExpr *node, const CaseWhen *when)
{
	MakoChoice *condition = node->arg == NULL ? choice_of(program, (Node *) when->expr) :
		case_condition(node, when);

	return condition != NULL && condition->is_equality &&
		!mako_depends_on_context((Node *) when->result) ? condition : NULL;
}

/* Adds what happens for the texts of a comparison. */
static void
add_condition(MakoChoice *choice, const MakoChoice *condition, Expr *result)
{
	int			number = add_result(choice, result);

	for (uint32 i = 0; i <= condition->mask; i++)
		if (condition->table[i] != NULL)
			add_option(choice, condition->table[i]->text, condition->table[i]->length, number);
}

/* Adds what happens otherwise, which may be another choice over the same test. */
static void
add_otherwise(MakoChoice *choice, const MakoProgram *program, Expr *otherwise)
{
	const MakoChoice *other = choice_of(program, (Node *) otherwise);
	int			first = list_length(choice->results);

	if (other == NULL || !equal(other->test.expression, choice->test.expression))
	{
		choice->null_result = choice->else_result = add_result(choice, otherwise);
		return;
	}
	choice->results = list_concat(choice->results, other->results);
	for (uint32 i = 0; i <= other->mask; i++)
		if (other->table[i] != NULL)
			add_option(choice, other->table[i]->text, other->table[i]->length,
					   first + other->table[i]->result);
	choice->null_result = first + other->null_result;
	choice->else_result = first + other->else_result;
}

/*
 * A CASE whose last conditions, as many as test the same, are a choice in the place of its ELSE;
 * or just that choice, if these are all of them. What stands in a choice is prepared by itself, so
 * nothing in it may refer to an expression around it.
 */
static Node *
compose_case(MakoProgram *program, CaseExpr *node)
{
	Expr	   *otherwise = node->defresult;
	Expr	   *test = node->arg;
	MakoChoice *choice;
	int			first;

	if (otherwise == NULL)
		otherwise = (Expr *) makeNullConst(node->casetype, -1, node->casecollid);
	if (mako_depends_on_context((Node *) otherwise) || mako_depends_on_context((Node *) test))
		return (Node *) node;
	for (first = list_length(node->args); first > 0; first--)
	{
		const MakoChoice *condition = condition_of(program, node,
												   list_nth_node(CaseWhen, node->args, first - 1));

		if (condition == NULL || (test != NULL && !equal(condition->test.expression, test)))
			break;
		test = condition->test.expression;
	}
	/* A test that stands before all conditions is that of all of them, or of none. */
	if (first == list_length(node->args) || (first > 0 && node->arg != NULL))
		return (Node *) node;
	choice = new_choice(test);
	for (int i = first; i < list_length(node->args); i++)
	{
		const CaseWhen *when = list_nth_node(CaseWhen, node->args, i);

		add_condition(choice, condition_of(program, node, when), when->result);
	}
	add_otherwise(choice, program, otherwise);
	if (first == 0)
		return reference_to(program, choice, (Node *) node);
	node->defresult = (Expr *) reference_to(program, choice, (Node *) node);
	node->args = list_truncate(node->args, first);
	return (Node *) node;
}

/* Puts choices in the place of what they stand for, from the inside out. */
static Node *
choose(Node *node, void *context)
{
	MakoProgram *program = context;
	MakoChoice *choice;

	if (node == NULL)
		return NULL;
	node = expression_tree_mutator(node, choose, context);
	if (IsA(node, CaseExpr))
		return compose_case(program, (CaseExpr *) node);
	choice = comparison(node);
	return choice == NULL ? node : reference_to(program, choice, node);
}

/* Puts choices into a program and its bindings. */
void
mako_case_tables(MakoProgram *program)
{
	ListCell   *cell;

	program->operand->expression = (Expr *) choose((Node *) program->expression, program);
	foreach(cell, program->bindings)
	{
		MakoBinding *binding = lfirst(cell);

		if (binding->field == NULL)
			binding->chosen = (Expr *) choose((Node *) binding->expression, program);
	}
}

/* ---- evaluation ----------------------------------------------------------------------------- */

/* The value of an operand. */
Datum
mako_operand_value(const MakoOperand *operand, ExprContext *context, bool *isnull)
{
	switch (operand->kind)
	{
		case MAKO_OPERAND_CONSTANT:
			*isnull = operand->isnull;
			return operand->value;
		case MAKO_OPERAND_PARAMETER:
			*isnull = operand->parameter->isnull;
			return operand->parameter->value;
		case MAKO_OPERAND_BINDING:
			return mako_binding_value(operand->binding, context, isnull);
		case MAKO_OPERAND_CHOICE:
			check_stack_depth();
			return mako_choice_value(operand->choice, context, isnull);
		default:
			check_stack_depth();
			return ExecEvalExpr(operand->state, context, isnull);
	}
}

/* The bytes of the text that a choice tests; NULL when it is null. */
static inline const char *
test_bytes(const MakoOperand *test, ExprContext *context, uint32 *length)
{
	Datum		datum;
	bool		isnull;
	const text *value;

	if (test->kind == MAKO_OPERAND_BINDING)
		return mako_binding_bytes(test->binding, context, length);
	datum = mako_operand_value(test, context, &isnull);
	if (isnull)
		return NULL;
	value = DatumGetTextPP(datum);
	*length = VARSIZE_ANY_EXHDR(value);
	return VARDATA_ANY(value);
}

/* The value of a choice. */
Datum
mako_choice_value(const MakoChoice *choice, ExprContext *context, bool *isnull)
{
	uint32		length;
	const char *text;

	text = test_bytes(&choice->test, context, &length);
	return mako_operand_value(list_nth(choice->results, text == NULL ? choice->null_result :
									   result_for(choice, text, length)),
							  context, isnull);
}
