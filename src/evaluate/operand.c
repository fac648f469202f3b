/*
 * operand.c
 *	  What a program evaluates at most once: bindings, among them fields of JSON, which need no
 *	  executor.
 *
 * A field, jsonb -> 'key' or jsonb ->> 'key' of a parameter or of another binding, is what
 * programs consist of. It is found where it lies; a datum is made only if the executor asks for
 * one: of a jsonb in a box that belongs to the binding and is used again by the next evaluation,
 * of a text in the current memory context. A comparison with constants looks at the bytes of a
 * field (case_table.c).
 */
#include "evaluate/operand.h"

#include "catalog/pg_proc.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"

/*
 * Lets a binding find its field itself, if that is what its expression is and the current role may
 * call the function for it.
 */
void
mako_binding_plan(MakoBinding *binding, List *bindings)
{
	List	   *arguments;
	bool		is_text;
	Oid			function = mako_json_call((Node *) binding->expression, &arguments);
	const Param *object;
	const text *key;
	MakoField  *field;

	if (!mako_json_is_field((Node *) binding->expression, &is_text) ||
		MakoFunctionAclCheck(function, GetUserId()) != ACLCHECK_OK)
		return;
	object = linitial_node(Param, arguments);
	key = DatumGetTextPP(lsecond_node(Const, arguments)->constvalue);
	field = palloc0(sizeof(MakoField));
	field->parameter = object->paramid;
	if (object->paramid > MAKO_PARAMETER_PAYLOAD)
		field->object = list_nth(bindings, object->paramid - MAKO_PARAMETER_PAYLOAD - 1);
	field->key = VARDATA_ANY(key);
	field->length = VARSIZE_ANY_EXHDR(key);
	field->is_text = is_text;
	field->box = mako_json_box();
	binding->field = field;
}

static bool look_for_field(MakoBinding *binding, ExprContext *context);

/*
 * Finds the field of a binding, which is then valid for one evaluation of the program; false when
 * there is none.
 */
static inline bool
find_field(MakoBinding *binding, ExprContext *context)
{
	return binding->field->evaluation == binding->program->evaluation ? binding->field->found :
		look_for_field(binding, context);
}

/* The same for one that is not known. */
static bool
look_for_field(MakoBinding *binding, ExprContext *context)
{
	MakoField  *field = binding->field;
	MakoBinding *outer = field->object;
	MakoJsonValue whole;
	const MakoJsonValue *object = &whole;
	Datum		datum;
	bool		isnull;

	if (outer == NULL)
	{
		const ParamExternData *parameter =
		&context->ecxt_param_list_info->params[field->parameter - 1];

		isnull = parameter->isnull;
		if (!isnull)
			whole = mako_json_read(parameter->value);
	}
	else if (outer->field != NULL)
	{
		if (outer->field->evaluation != binding->program->evaluation)
			check_stack_depth();
		isnull = !find_field(outer, context);
		object = &outer->field->value;
	}
	else
	{
		datum = mako_binding_value(outer, context, &isnull);
		if (!isnull)
			whole = mako_json_read(datum);
	}
	field->found = !isnull && mako_json_is_object(object) &&
		mako_json_field_near(object, field->key, field->length, &field->value, &field->number);
	field->has_datum = false;
	field->evaluation = binding->program->evaluation;
	return field->found;
}

/* The value of a binding, evaluated at its first use in an evaluation of the program. */
Datum
mako_binding_value(MakoBinding *binding, ExprContext *context, bool *isnull)
{
	MakoField  *field = binding->field;

	if (field != NULL)
	{
		if (!find_field(binding, context))
		{
			*isnull = true;
			return (Datum) 0;
		}
		if (!field->has_datum)
		{
			text	   *found;

			if (field->is_text)
			{
				found = mako_json_to_text(&field->value);
				binding->value = PointerGetDatum(found);
				binding->isnull = found == NULL;
			}
			else
			{
				binding->value = mako_json_put_into(field->box, &field->value);
				binding->isnull = false;
			}
			field->has_datum = true;
		}
	}
	else if (binding->evaluation != binding->program->evaluation)
	{
		check_stack_depth();
		binding->value = ExecEvalExpr(binding->state, context, &binding->isnull);
		/* Code that may write to an expanded value would change it for the next user. */
		binding->value = MakeExpandedObjectReadOnly(binding->value, binding->isnull,
													binding->typlen);
		binding->evaluation = binding->program->evaluation;
	}
	*isnull = binding->isnull;
	return binding->value;
}

/* The bytes of a text binding, where they lie if it is a field; NULL when it is null. */
const char *
mako_binding_bytes(MakoBinding *binding, ExprContext *context, uint32 *length)
{
	MakoField  *field = binding->field;
	Datum		value;
	bool		isnull;
	const text *bytes;

	if (field != NULL)
	{
		if (!find_field(binding, context))
			return NULL;
		switch (field->value.kind)
		{
			case MAKO_JSON_STRING:
				*length = field->value.length;
				return field->value.at.string;
			case MAKO_JSON_TRUE:
				*length = strlen("true");
				return "true";
			case MAKO_JSON_FALSE:
				*length = strlen("false");
				return "false";
			case MAKO_JSON_NULL:
				return NULL;
			default:
				break;
		}
	}
	value = mako_binding_value(binding, context, &isnull);
	if (isnull)
		return NULL;
	bytes = DatumGetTextPP(value);
	*length = VARSIZE_ANY_EXHDR(bytes);
	return VARDATA_ANY(bytes);
}
