/*
 * program.c
 *	  A registered function as a planned expression over parameters.
 *
 * The server's planner and inline.c turn the call f($1, $2, $4) into an expression, in which SQL
 * functions are inlined; the executor evaluates it, and parameters above the fold's own are
 * bindings: what inline.c wants evaluated once. All of it happens as the function's owner behind
 * the gate (gate.h), so that a role that runs a migration lends its rights to no author of a
 * function. The planned expression lasts for the run; its evaluation state is made anew after an
 * error, because a function that was left in the middle has left its caches there too.
 */
#include "evaluate/operand.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "executor/execExpr.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_coerce.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

/* Types of the parameters, by number. */
static const Oid parameter_type[] = {
	[MAKO_PARAMETER_STATE] = JSONBOID,
	[MAKO_PARAMETER_EVENT_TYPE] = TEXTOID,
	[MAKO_PARAMETER_SCHEMA_VERSION] = INT4OID,
	[MAKO_PARAMETER_PAYLOAD] = JSONBOID,
};

/* Which parameters a role takes, in the order of its arguments. */
static const MakoParameter role_parameters[][3] = {
	[MAKO_ROLE_APPLY] = {MAKO_PARAMETER_STATE, MAKO_PARAMETER_EVENT_TYPE, MAKO_PARAMETER_PAYLOAD},
	[MAKO_ROLE_UPCAST] = {
		MAKO_PARAMETER_EVENT_TYPE, MAKO_PARAMETER_SCHEMA_VERSION, MAKO_PARAMETER_PAYLOAD
	},
	[MAKO_ROLE_MIGRATE] = {MAKO_PARAMETER_STATE},
	[MAKO_ROLE_IN_FLIGHT] = {MAKO_PARAMETER_STATE},
};

/* The binding that a parameter refers to. */
static inline MakoBinding *
binding_of(const MakoProgram *program, const Param *param)
{
	return list_nth(program->bindings, param->paramid - MAKO_PARAMETER_PAYLOAD - 1);
}

/* Puts a binding's value where a step wants it. */
static void
fetch_binding(ExprState *state, struct ExprEvalStep *step, ExprContext *context)
{
	*step->resvalue = mako_binding_value(step->d.cparam.paramarg, context, step->resnull);
}

/* Puts a choice's value where a step wants it. */
static void
fetch_choice(ExprState *state, struct ExprEvalStep *step, ExprContext *context)
{
	*step->resvalue = mako_choice_value(step->d.cparam.paramarg, context, step->resnull);
}

/* Puts a parameter where a step wants it. */
static void
fetch_parameter(ExprState *state, struct ExprEvalStep *step, ExprContext *context)
{
	const ParamExternData *parameter = step->d.cparam.paramarg;

	*step->resvalue = parameter->value;
	*step->resnull = parameter->isnull;
}

static MakoChoice *prepare_choice(const MakoProgram *program, const Param *param,
								  ParamListInfo parameters);

/*
 * A ParamCompileHook: the step that evaluates a parameter, binding or choice of the program that
 * is being prepared.
 */
static void
compile_parameter(ParamListInfo parameters, Param *param, ExprState *state,
				  Datum *value, bool *isnull)
{
	const MakoProgram *program = parameters->paramCompileArg;
	ExprEvalStep step = {.opcode = EEOP_PARAM_CALLBACK,.resvalue = value,.resnull = isnull};

	step.d.cparam.paramid = param->paramid;
	step.d.cparam.paramtype = param->paramtype;
	if (param->paramid > MAKO_PARAMETER_PAYLOAD)
	{
		step.d.cparam.paramfunc = fetch_binding;
		step.d.cparam.paramarg = binding_of(program, param);
	}
	else if (param->paramid < 0)
	{
		step.d.cparam.paramfunc = fetch_choice;
		step.d.cparam.paramarg = prepare_choice(program, param, parameters);
	}
	else
	{
		step.d.cparam.paramfunc = fetch_parameter;
		step.d.cparam.paramarg = &parameters->params[param->paramid - 1];
	}
	ExprEvalPushStep(state, &step);
}

/* The parameters that all programs of a fold share. */
ParamListInfo
mako_program_parameters(void)
{
	ParamListInfo parameters = makeParamList(lengthof(parameter_type) - 1);

	for (int i = 0; i < parameters->numParams; i++)
	{
		parameters->params[i].ptype = parameter_type[i + 1];
		parameters->params[i].isnull = true;
	}
	parameters->paramCompile = compile_parameter;
	return parameters;
}

/* Sets a parameter; no value of a fold is null. */
void
mako_program_bind(ParamListInfo parameters, MakoParameter parameter, Datum value)
{
	parameters->params[parameter - 1].value = value;
	parameters->params[parameter - 1].isnull = false;
}

/*
 * A reference to a parameter, as an argument of the given type: the parameter's own or a domain
 * over it.
 */
static Node *
parameter_as(MakoParameter parameter, Oid type)
{
	Param	   *param = makeNode(Param);

	param->paramkind = PARAM_EXTERN;
	param->paramid = parameter;
	param->paramtype = parameter_type[parameter];
	param->paramtypmod = -1;
	param->paramcollid = get_typcollation(param->paramtype);
	param->location = -1;
	return mako_gate_coerce((Node *) param, type);
}

/*
 * Plans an expression as the role that will evaluate it: planning evaluates immutable functions.
 * Notes on SQL functions go to notes, unless that is NULL.
 */
MakoProgram *
mako_program_plan(Expr *expression, Oid owner, List **notes)
{
	MakoProgram *program = palloc0(sizeof(MakoProgram));
	MakoGate	gate = mako_gate_enter(owner);
	List	   *bindings = NIL;
	Expr	   *inlined = NULL;
	ListCell   *cell;

	program->owner = owner;
	if (mako_native_evaluation || notes != NULL)
		inlined = mako_inline(expression, &bindings, notes);
	program->is_inlined = mako_native_evaluation && inlined != NULL;
	program->expression = program->is_inlined ? inlined : mako_gate_plan((Node *) expression);
	program->bindings = program->is_inlined ? bindings : NIL;
	if (mako_native_evaluation)
	{
		program->expression = mako_drop_in_rewrite(program->expression);
		foreach(cell, program->bindings)
		{
			MakoBinding *binding = lfirst(cell);

			binding->expression = mako_drop_in_rewrite(binding->expression);
		}
		mako_share_lookups(&program->expression, &program->bindings);
	}
	program->is_json = getBaseType(exprType((Node *) program->expression)) == JSONBOID;
	program->plain = mako_gate_is_harmless((Node *) program->expression);
	foreach(cell, program->bindings)
	{
		MakoBinding *binding = lfirst(cell);

		binding->program = program;
		program->plain = program->plain && mako_gate_is_harmless((Node *) binding->expression);
		mako_binding_plan(binding, program->bindings);
		binding->chosen = binding->expression;
	}
	program->operand = palloc0(sizeof(MakoOperand));
	program->operand->expression = program->expression;
	if (mako_native_evaluation)
		mako_case_tables(program);
	mako_gate_leave(&gate);
	return program;
}

/* The program that calls a function; NULL for none. */
MakoProgram *
mako_program_compile(const MakoFunction *function)
{
	List	   *arguments = NIL;
	Oid		   *argtypes;
	int			nargs;
	MakoGate	gate;

	if (function == NULL)
		return NULL;
	(void) get_func_signature(function->oid, &argtypes, &nargs);
	gate = mako_gate_enter(function->owner);
	for (int i = 0; i < nargs; i++)
		arguments = lappend(arguments,
							parameter_as(role_parameters[function->role][i], argtypes[i]));
	mako_gate_leave(&gate);
	return mako_program_plan((Expr *) makeFuncExpr(function->oid, get_func_rettype(function->oid),
												   arguments, InvalidOid, DEFAULT_COLLATION_OID,
												   COERCE_EXPLICIT_CALL),
							 function->owner, NULL);
}

/*
 * The program that checks a state against the domain that a function declares for it; NULL where
 * it declares none.
 */
MakoProgram *
mako_program_compile_check(const MakoFunction *function)
{
	Oid			type = function == NULL ? JSONBOID : mako_function_state_type(function);
	MakoGate	gate;
	Node	   *state;

	if (type == JSONBOID)
		return NULL;
	gate = mako_gate_enter(function->owner);
	state = parameter_as(MAKO_PARAMETER_STATE, type);
	mako_gate_leave(&gate);
	return mako_program_plan((Expr *) state, function->owner, NULL);
}

/* For check_functions_in_node(). */
static bool
is_unsafe(Oid function, void *context)
{
	if (func_parallel(function) == PROPARALLEL_SAFE)
		return false;
	*(Oid *) context = function;
	return true;
}

/* Finds a function that an expression calls and that is not PARALLEL SAFE. */
static bool
find_unsafe(Node *node, void *context)
{
	return node != NULL &&
		(check_functions_in_node(node, is_unsafe, context) ||
		 expression_tree_walker(node, find_unsafe, context));
}

/*
 * Says why a worker cannot evaluate the check of the domain that a function declares for a state;
 * NULL where it can.
 */
const char *
mako_program_unsafe_check(const MakoFunction *function)
{
	Oid			type = function == NULL ? JSONBOID : mako_function_state_type(function);
	Oid			unsafe = InvalidOid;
	DomainConstraintRef *domain;
	MakoGate	gate;
	ListCell   *cell;

	if (type == JSONBOID)
		return NULL;
	/* The server may plan the constraints; it keeps a reference until the context is reset. */
	domain = palloc(sizeof(DomainConstraintRef));
	gate = mako_gate_enter(function->owner);
	InitDomainConstraintRef(type, domain, CurrentMemoryContext, false);
	mako_gate_leave(&gate);
	foreach(cell, domain->constraints)
		(void) find_unsafe((Node *) ((DomainConstraintState *) lfirst(cell))->check_expr, &unsafe);
	return !OidIsValid(unsafe) ? NULL :
		psprintf("function %s, in a check of %s, is not PARALLEL SAFE",
				 format_procedure(unsafe), format_type_be(type));
}

/* The same of a function, with that check where there is one. */
const char *
mako_program_unsafe(const MakoFunction *function)
{
	if (function == NULL)
		return NULL;
	if (func_parallel(function->oid) != PROPARALLEL_SAFE)
		return psprintf("function %s is not PARALLEL SAFE", function->signature);
	return function->role == MAKO_ROLE_APPLY ? mako_program_unsafe_check(function) : NULL;
}

/* What the programs of a fold are evaluated in, in the current memory context. */
ExprContext *
mako_program_context(ParamListInfo parameters)
{
	ExprContext *context = CreateStandaloneExprContext();

	context->ecxt_param_list_info = parameters;
	return context;
}

/* An expression ready for evaluation, with drop-ins in their places. */
static ExprState *
prepare(const MakoProgram *program, Expr *expression, ParamListInfo parameters)
{
	ExprState  *state = mako_gate_prepare(expression, parameters);

	if (mako_native_evaluation)
		mako_drop_in_replace(state, unconstify(MakoRefusals *, &program->sink));
	return state;
}

/* Makes a program or an operand of a choice ready for evaluation. */
static void
prepare_operand(const MakoProgram *program, MakoOperand *operand, ParamListInfo parameters)
{
	const Const *constant = (const Const *) operand->expression;
	const Param *param = (const Param *) operand->expression;

	if (IsA(constant, Const))
	{
		operand->kind = MAKO_OPERAND_CONSTANT;
		operand->value = constant->constvalue;
		operand->isnull = constant->constisnull;
	}
	else if (!IsA(param, Param) || param->paramkind != PARAM_EXTERN)
	{
		operand->kind = MAKO_OPERAND_EXPRESSION;
		operand->state = prepare(program, operand->expression, parameters);
	}
	else if (param->paramid > MAKO_PARAMETER_PAYLOAD)
	{
		operand->kind = MAKO_OPERAND_BINDING;
		operand->binding = binding_of(program, param);
	}
	else if (param->paramid < 0)
	{
		operand->kind = MAKO_OPERAND_CHOICE;
		operand->choice = prepare_choice(program, param, parameters);
	}
	else
	{
		operand->kind = MAKO_OPERAND_PARAMETER;
		operand->parameter = &parameters->params[param->paramid - 1];
	}
}

/*
 * Makes the choice that a parameter refers to ready for evaluation, when whatever it stands in is.
 */
static MakoChoice *
prepare_choice(const MakoProgram *program, const Param *param, ParamListInfo parameters)
{
	MakoChoice *choice = list_nth(program->choices, -param->paramid - 1);
	ListCell   *cell;

	prepare_operand(program, &choice->test, parameters);
	foreach(cell, choice->results)
		prepare_operand(program, lfirst(cell), parameters);
	return choice;
}

/*
 * Makes a program ready for evaluation, in the current memory context. Here the executor checks
 * who may call the functions that are left: the owner, not the role that runs a migration.
 */
void
mako_program_prepare(MakoProgram *program, ExprContext *context)
{
	ParamListInfo parameters = context->ecxt_param_list_info;
	MakoGate	gate;
	ListCell   *cell;

	if (program == NULL)
		return;
	gate = mako_gate_enter(program->owner);
	parameters->paramCompileArg = program;
	program->context = context;
	prepare_operand(program, program->operand, parameters);
	foreach(cell, program->bindings)
	{
		MakoBinding *binding = lfirst(cell);

		if (binding->field == NULL)
			binding->state = prepare(program, binding->chosen, parameters);
	}
	mako_gate_leave(&gate);
}

/*
 * Evaluates a program with the parameters as they are; the result is in the current memory
 * context. A refusal is taken down if that is wanted, and raised otherwise.
 */
Datum
mako_program_evaluate(MakoProgram *program, MakoRefusal *refusal, bool *isnull)
{
	Datum		result;

	program->evaluation++;
	program->sink.refusal = refusal;
	if (program->plain)
	{
		MakoGate	gate = mako_gate_enter_harmless(program->owner);

		result = mako_operand_value(program->operand, program->context, isnull);
		mako_gate_leave_harmless(&gate);
	}
	else
	{
		MakoEvaluation evaluation = mako_gate_begin_evaluation(program->owner);

		result = mako_operand_value(program->operand, program->context, isnull);
		mako_gate_end_evaluation(&evaluation);
	}
	return program->is_json && !*isnull ? mako_json_take_out(result) : result;
}

/*
 * Raises unless a state fits the domain that a function declares for it; does nothing without a
 * function.
 */
void
mako_program_require_state(const MakoFunction *function, Datum state)
{
	MakoProgram *check = mako_program_compile_check(function);
	ParamListInfo parameters;
	bool		isnull;

	if (check == NULL)
		return;
	parameters = mako_program_parameters();
	mako_program_bind(parameters, MAKO_PARAMETER_STATE, state);
	mako_program_prepare(check, mako_program_context(parameters));
	(void) mako_program_evaluate(check, NULL, &isnull);
}
