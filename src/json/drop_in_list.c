/*
 * drop_in_list.c
 *	  Which functions of the server have a drop-in, and what a function does.
 */
#include "json/drop_in.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/dependency.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "commands/extension.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/syscache.h"

#define DROP_IN(function) {function, native_##function}

static const struct
{
	PGFunction	server;
	PGFunction	native;
}			drop_ins[] = {

	DROP_IN(jsonb_object_field),
	DROP_IN(jsonb_object_field_text),
	DROP_IN(jsonb_array_element),
	DROP_IN(jsonb_array_element_text),
	DROP_IN(jsonb_extract_path),
	DROP_IN(jsonb_extract_path_text),
	DROP_IN(jsonb_typeof),
	DROP_IN(jsonb_array_length),
	DROP_IN(jsonb_exists),
	DROP_IN(jsonb_exists_any),
	DROP_IN(jsonb_exists_all),
	DROP_IN(jsonb_eq),
	DROP_IN(jsonb_ne),
	DROP_IN(jsonb_contains),
	DROP_IN(jsonb_contained),
	DROP_IN(jsonb_build_object),
	DROP_IN(jsonb_build_object_noargs),
	DROP_IN(jsonb_build_array),
	DROP_IN(jsonb_build_array_noargs),
	DROP_IN(to_jsonb),
	DROP_IN(jsonb_concat),
	DROP_IN(jsonb_delete),
	DROP_IN(jsonb_delete_array),
	DROP_IN(jsonb_delete_idx),
	DROP_IN(jsonb_delete_path),
	DROP_IN(jsonb_set),
	DROP_IN(jsonb_insert),
	DROP_IN(jsonb_strip_nulls),
	DROP_IN(jsonb_bool),
	DROP_IN(jsonb_int2),
	DROP_IN(jsonb_int4),
	DROP_IN(jsonb_int8),
	DROP_IN(jsonb_float4),
	DROP_IN(jsonb_float8),
	DROP_IN(jsonb_numeric),
	DROP_IN(jsonb_out),
	DROP_IN(mako_required),
	{mako_reject, mako_reject_in_program},
	DROP_IN(texteq),
	DROP_IN(textne),
};

/* The drop-in for a function, or the function itself. */
PGFunction
mako_json_drop_in(PGFunction function)
{
	for (size_t i = 0; i < lengthof(drop_ins); i++)
		if (drop_ins[i].server == function)
			return drop_ins[i].native;
	return function;
}

/* Returns true if a drop-in may refuse: it takes the sink from the context of its call. */
bool
mako_json_may_refuse(PGFunction drop_in)
{
	return drop_in == mako_reject_in_program || drop_in == native_mako_required;
}

/*
 * Returns true if a function is the server's own or the extension's: only of these the address is
 * asked for, which may load a library.
 */
static bool
is_known_function(Oid function)
{
	HeapTuple	tuple;
	bool		is_compiled;

	if (function < FirstNormalObjectId)
		return true;
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	if (!HeapTupleIsValid(tuple))
		return false;
	is_compiled = ((Form_pg_proc) GETSTRUCT(tuple))->prolang == ClanguageId;
	ReleaseSysCache(tuple);
	return is_compiled &&
		getExtensionOfObject(ProcedureRelationId, function) ==
		get_extension_oid("mako_migration", true);
}

/* The address of a function; NULL for one that cannot have a drop-in. */
static PGFunction
address_of(Oid function)
{
	FmgrInfo	info;

	if (!is_known_function(function))
		return NULL;
	fmgr_info(function, &info);
	return info.fn_addr;
}

/* Returns true if a function has a drop-in. */
bool
mako_json_function_is_native(Oid function)
{
	PGFunction	address = address_of(function);

	return mako_json_drop_in(address) != address;
}

/*
 * Returns true if a function only looks into a value, whatever that is, so that it may as well do
 * so once.
 */
bool
mako_json_function_is_lookup(Oid function)
{
	static const PGFunction lookups[] = {
		jsonb_object_field, jsonb_object_field_text, jsonb_array_element, jsonb_array_element_text,
		jsonb_extract_path, jsonb_extract_path_text, jsonb_typeof,
	};
	PGFunction	address = address_of(function);

	for (size_t i = 0; i < lengthof(lookups); i++)
		if (address == lookups[i])
			return true;
	return false;
}

/* Returns true if this is a field of a parameter, jsonb -> 'key' or, as text, jsonb ->> 'key'. */
bool
mako_json_is_field(const Node *node, bool *is_text)
{
	List	   *arguments;
	Oid			function = mako_json_call(node, &arguments);
	PGFunction	address;

	if (!OidIsValid(function) || list_length(arguments) != 2 ||
		!IsA(linitial(arguments), Param) ||
		linitial_node(Param, arguments)->paramkind != PARAM_EXTERN ||
		!IsA(lsecond(arguments), Const) || lsecond_node(Const, arguments)->constisnull)
		return false;
	address = address_of(function);
	*is_text = address == jsonb_object_field_text;
	return *is_text || address == jsonb_object_field;
}

/* Returns true if a function compares texts. A negated one says whether they differ. */
bool
mako_json_function_compares_texts(Oid function, bool *is_negated)
{
	PGFunction	address = address_of(function);

	*is_negated = address == textne;
	return *is_negated || address == texteq;
}
