/*
 * describe_kinds.c
 *	  What a description says of each kind of object, and which others it notes.
 *
 * A property is there if a result can depend on it. So owners, comments, privileges, costs and
 * estimators are not, nor is what a table holds: that a table is read is said when its function is
 * registered. Compiled code is known by its file and symbol. That a helper runs as another role is
 * said, but not as whom: roles are renamed. definition.c remembers them.
 */
#include "define/describe.h"

#include "access/htup_details.h"
#include "access/genam.h"
#include "access/hash.h"
#include "access/nbtree.h"
#include "access/table.h"
#include "access/transam.h"
#include "catalog/indexing.h"
#include "catalog/pg_aggregate.h"
#include "catalog/pg_amop.h"
#include "catalog/pg_amproc.h"
#include "catalog/pg_attrdef.h"
#include "catalog/pg_cast.h"
#include "catalog/pg_class.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_enum.h"
#include "catalog/pg_language.h"
#include "catalog/pg_opclass.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_opfamily.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_range.h"
#include "catalog/pg_rewrite.h"
#include "catalog/pg_transform.h"
#include "catalog/pg_ts_config.h"
#include "catalog/pg_ts_config_map.h"
#include "catalog/pg_ts_dict.h"
#include "catalog/pg_ts_parser.h"
#include "catalog/pg_ts_template.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "commands/proclang.h"
#include "miscadmin.h"
#include "parser/parse_agg.h"
#include "rewrite/rewriteSupport.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/catcache.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

/* A kind of object. */
typedef struct Kind
{
	Oid			catalog;
	void		(*describe) (MakoDescription *description, MakoItem *item, const MakoRow *row);
} Kind;

/* Adds the name of an object as a property, and notes the object; nothing for none. */
static void
add_object(MakoDescription *description, MakoItem *item, const char *property,
		   Oid catalog, Oid object)
{
	if (!OidIsValid(object))
		return;
	mako_describe_add(item, property, mako_describe_name(catalog, object));
	(void) mako_describe_note(description, catalog, object);
}

/* Adds a function that belongs to the object and that no expression calls. */
static void
add_support(MakoDescription *description, MakoItem *item, const char *property, Oid function)
{
	bool		is_quiet = description->is_quiet;

	description->is_quiet = true;
	add_object(description, item, property, ProcedureRelationId, function);
	description->is_quiet = is_quiet;
}

/* Adds a column of the row as a property; nothing for null. */
static void
add_column(MakoItem *item, const char *property, const MakoRow *row, int column)
{
	const char *text = mako_describe_column(row, column);

	if (text != NULL)
		mako_describe_add(item, property, text);
}

/* Adds a tree that is kept in a column of the row; nothing for null. */
static void
add_tree(MakoDescription *description, MakoItem *item, const MakoRow *row, int column)
{
	const char *text = mako_describe_column(row, column);

	if (text != NULL)
		mako_describe_tree(description, item, stringToNode(text));
}

/*
 * An expression that is kept in a column of the row, deparsed, and the relation (InvalidOid for
 * none) whose columns are in it.
 */
static char *
expression_of(const MakoRow *row, int column, Oid relation)
{
	bool		isnull;
	Datum		tree = heap_getattr(row->tuple, column, row->tupdesc, &isnull);

	return TextDatumGetCString(DirectFunctionCall2(pg_get_expr, tree, ObjectIdGetDatum(relation)));
}

/* A type with its modifier. */
static char *
type_name(Oid type, int32 modifier)
{
	return format_type_extended(type, modifier,
								FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY);
}

/* ---- functions ------------------------------------------------------------------------------ */

/* Adds what an aggregate is made of. */
static void
add_aggregate(MakoDescription *description, MakoItem *item)
{
	HeapTuple	tuple = SearchSysCache1(AGGFNOID, ObjectIdGetDatum(item->object));
	Form_pg_aggregate form;
	bool		isnull;
	Datum		value;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for aggregate %u", item->object);	/* cannot happen */
	form = (Form_pg_aggregate) GETSTRUCT(tuple);
	mako_describe_add(item, "aggregate",
					  psprintf("%c direct %d final %c%s moving final %c%s",
							   form->aggkind, form->aggnumdirectargs, form->aggfinalmodify,
							   form->aggfinalextra ? " extra" : "", form->aggmfinalmodify,
							   form->aggmfinalextra ? " extra" : ""));
	add_object(description, item, "state", TypeRelationId, form->aggtranstype);
	add_object(description, item, "moving state", TypeRelationId, form->aggmtranstype);
	add_object(description, item, "transition", ProcedureRelationId, form->aggtransfn);
	add_object(description, item, "final function", ProcedureRelationId, form->aggfinalfn);
	add_object(description, item, "combine", ProcedureRelationId, form->aggcombinefn);
	add_object(description, item, "serialize", ProcedureRelationId, form->aggserialfn);
	add_object(description, item, "deserialize", ProcedureRelationId, form->aggdeserialfn);
	add_object(description, item, "moving transition", ProcedureRelationId, form->aggmtransfn);
	add_object(description, item, "moving inverse", ProcedureRelationId, form->aggminvtransfn);
	add_object(description, item, "moving final function", ProcedureRelationId, form->aggmfinalfn);
	add_object(description, item, "sort operator", OperatorRelationId, form->aggsortop);
	value = SysCacheGetAttr(AGGFNOID, tuple, Anum_pg_aggregate_agginitval, &isnull);
	if (!isnull)
		mako_describe_add(item, "initial", TextDatumGetCString(value));
	value = SysCacheGetAttr(AGGFNOID, tuple, Anum_pg_aggregate_aggminitval, &isnull);
	if (!isnull)
		mako_describe_add(item, "moving initial", TextDatumGetCString(value));
	ReleaseSysCache(tuple);
}

/* Notes the calls of an aggregate's functions in a call of it, for those that are polymorphic. */
void
mako_describe_note_parts(MakoDescription *description, Oid aggregate, const List *arguments)
{
	HeapTuple	tuple = SearchSysCache1(AGGFNOID, ObjectIdGetDatum(aggregate));
	Form_pg_aggregate form;
	Oid			inputs[FUNC_MAX_ARGS];
	int			count = 0;
	Oid			states[2];
	ListCell   *cell;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for aggregate %u", aggregate); /* cannot happen */
	form = (Form_pg_aggregate) GETSTRUCT(tuple);
	foreach(cell, arguments)
		inputs[count++] = lfirst_oid(cell);
	states[0] = form->aggtranstype;
	states[1] = form->aggmtranstype;
	for (int i = 0; i < 2 && OidIsValid(states[i]); i++)
	{
		Oid			state = resolve_aggregate_transtype(aggregate, states[i], inputs, count);
		bool		extra = i == 0 ? form->aggfinalextra : form->aggmfinalextra;
		List	   *transition = list_make1_oid(state);
		List	   *final = list_make1_oid(state);

		for (int j = 0; j < count; j++)
		{
			if (j >= form->aggnumdirectargs)
				transition = lappend_oid(transition, inputs[j]);
			if (j < form->aggnumdirectargs || extra)
				final = lappend_oid(final, inputs[j]);
		}
		mako_describe_note_call(description, i == 0 ? form->aggtransfn : form->aggmtransfn,
								transition, NIL);
		mako_describe_note_call(description, i == 0 ? form->aggcombinefn : form->aggminvtransfn,
								i == 0 ? list_make2_oid(state, state) : transition, NIL);
		mako_describe_note_call(description, i == 0 ? form->aggfinalfn : form->aggmfinalfn,
								final, NIL);
	}
	ReleaseSysCache(tuple);
}

/* Adds the transforms that a function is declared with. */
static void
add_transforms(MakoDescription *description, MakoItem *item, const MakoRow *row, Oid language)
{
	bool		isnull;
	Datum		types = heap_getattr(row->tuple, Anum_pg_proc_protrftypes, row->tupdesc, &isnull);
	Datum	   *elements;
	int			count = 0;

	if (!isnull)
		deconstruct_array(DatumGetArrayTypeP(types), OIDOID, sizeof(Oid), true, TYPALIGN_INT,
						  &elements, NULL, &count);
	for (int i = 0; i < count; i++)
		add_object(description, item, "transform", TransformRelationId,
				   get_transform_oid(DatumGetObjectId(elements[i]), language, true));
}

/* Adds the source of a function, and its body as the server has kept it. */
static void
add_source(MakoItem *item, const MakoRow *row)
{
	add_column(item, "library", row, Anum_pg_proc_probin);
	add_column(item, "source", row, Anum_pg_proc_prosrc);
#ifdef MAKO_SQL_BODY
	if (mako_describe_column(row, Anum_pg_proc_prosqlbody) != NULL)
		mako_describe_add(item, "body",
						  TextDatumGetCString(DirectFunctionCall1(pg_get_function_sqlbody,
																  ObjectIdGetDatum(item->object))));
#endif
}

/* Notes the types of a function's arguments and result. */
static void
note_signature(MakoDescription *description, Oid function, Oid result)
{
	Oid		   *types;
	int			count;

	(void) get_func_signature(function, &types, &count);
	for (int i = 0; i < count; i++)
		mako_describe_note_type(description, types[i]);
	mako_describe_note_type(description, result);
}

/* How a function behaves. */
static char *
behaviour_of(const MakoItem *item, Form_pg_proc form)
{
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfo(&text, "%c volatility %c parallel %c%s%s%s",
					 form->prokind, form->provolatile, form->proparallel,
					 form->proretset ? " set" : "", form->proisstrict ? " strict" : "",
					 form->proleakproof ? " leakproof" : "");
	if (form->prosecdef)
		appendStringInfoString(&text, " security definer");
	if (item->is_other)
		appendStringInfoString(&text, " as another role");
	return text.data;
}

/* Describes a function: what it is declared as, its source, and what that names. */
static void
describe_function(MakoDescription *description, MakoItem *item, const MakoRow *row)
{
	Form_pg_proc form = (Form_pg_proc) GETSTRUCT(row->tuple);
	Datum		function = ObjectIdGetDatum(item->object);
	List	   *trees;

	mako_describe_add(item, "arguments",
					  TextDatumGetCString(DirectFunctionCall1(pg_get_function_arguments,
															  function)));
	if (form->prokind != PROKIND_PROCEDURE)
		mako_describe_add(item, "returns",
						  TextDatumGetCString(DirectFunctionCall1(pg_get_function_result,
																  function)));
	mako_describe_add(item, "language", get_language_name(form->prolang, false));
	item->is_other = form->prosecdef && form->proowner != description->owner;
	mako_describe_add(item, "kind", behaviour_of(item, form));
	add_column(item, "settings", row, Anum_pg_proc_proconfig);
	add_support(description, item, "support", form->prosupport);
	add_transforms(description, item, row, form->prolang);
	(void) mako_describe_note(description, LanguageRelationId, form->prolang);
	note_signature(description, item->object, form->prorettype);
	add_tree(description, item, row, Anum_pg_proc_proargdefaults);
	if (form->prokind == PROKIND_AGGREGATE)
		add_aggregate(description, item);
	else
	{
		add_source(item, row);
		if (mako_function_body(item->object, NULL, NIL, &trees))
			mako_describe_tree(description, item, (Node *) trees);
		else
			item->is_unseen = true;
	}
}

/* Describes a language of the users'. */
static void
describe_language(MakoDescription *description, MakoItem *item, const MakoRow *row)
{
	add_support(description, item, "handler",
				((Form_pg_language) GETSTRUCT(row->tuple))->lanplcallfoid);
}

/* Describes how values of a type are handed to a language. */
static void
describe_transform(MakoDescription *description, MakoItem *item, const MakoRow *row)
{
	Form_pg_transform form = (Form_pg_transform) GETSTRUCT(row->tuple);

	add_support(description, item, "from SQL", form->trffromsql);
	add_support(description, item, "to SQL", form->trftosql);
}

/* ---- operators ------------------------------------------------------------------------------ */

/*
 * Returns true if a member of a family is listed. Of a family of the server's, only what users
 * have added is.
 */
static bool
is_listed(Oid family, Oid member)
{
	return family >= FirstNormalObjectId || member >= FirstNormalObjectId;
}

/* The operators of a family as lines; notes them, if there is a description. */
static List *
family_operators(MakoDescription *description, Oid family)
{
	CatCList   *list = SearchSysCacheList1(AMOPSTRATEGY, ObjectIdGetDatum(family));
	List	   *lines = NIL;

	for (int i = 0; i < list->n_members; i++)
	{
		Form_pg_amop form = (Form_pg_amop) GETSTRUCT(&list->members[i]->tuple);

		if (!is_listed(family, form->amopopr))
			continue;
		lines = lappend(lines, psprintf("operator %d %s %c %s", form->amopstrategy,
										mako_describe_name(OperatorRelationId, form->amopopr),
										form->amoppurpose,
										mako_describe_name(OperatorFamilyRelationId,
														   form->amopsortfamily)));
		if (description != NULL)
			(void) mako_describe_note(description, OperatorRelationId, form->amopopr);
	}
	ReleaseSysCacheList(list);
	return lines;
}

/* The functions of a family as lines; notes them, if there is a description. */
static List *
family_functions(MakoDescription *description, Oid family)
{
	CatCList   *list = SearchSysCacheList1(AMPROCNUM, ObjectIdGetDatum(family));
	List	   *lines = NIL;

	for (int i = 0; i < list->n_members; i++)
	{
		Form_pg_amproc form = (Form_pg_amproc) GETSTRUCT(&list->members[i]->tuple);

		if (!is_listed(family, form->amproc))
			continue;
		lines = lappend(lines, psprintf("function %d for %s, %s: %s", form->amprocnum,
										mako_describe_name(TypeRelationId, form->amproclefttype),
										mako_describe_name(TypeRelationId, form->amprocrighttype),
										mako_describe_name(ProcedureRelationId, form->amproc)));
		if (description != NULL)
			(void) mako_describe_note(description, ProcedureRelationId, form->amproc);
	}
	ReleaseSysCacheList(list);
	return lines;
}

/*
 * Notes an operator family of the users', or one of the server's to which they have added
 * something.
 */
static void
note_family(MakoDescription *description, Oid family)
{
	if (family >= FirstNormalObjectId || family_operators(NULL, family) != NIL ||
		family_functions(NULL, family) != NIL)
		(void) mako_describe_item(description, OperatorFamilyRelationId, family);
}

/*
 * Notes the families in which an operator stands: the server sorts, hashes and compares with what
 * else is there.
 */
static void
note_families(MakoDescription *description, Oid operator)
{
	CatCList   *list = SearchSysCacheList1(AMOPOPID, ObjectIdGetDatum(operator));

	for (int i = 0; i < list->n_members; i++)
		note_family(description, ((Form_pg_amop) GETSTRUCT(&list->members[i]->tuple))->amopfamily);
	ReleaseSysCacheList(list);
}

/* Describes an operator. */
static void
describe_operator(MakoDescription *description, MakoItem *item, const MakoRow *row)
{
	Form_pg_operator form = (Form_pg_operator) GETSTRUCT(row->tuple);

	mako_describe_add(item, "operator",
					  psprintf("%c%s%s", form->oprkind, form->oprcanmerge ? " merges" : "",
							   form->oprcanhash ? " hashes" : ""));
	add_object(description, item, "function", ProcedureRelationId, form->oprcode);
	add_object(description, item, "commutator", OperatorRelationId, form->oprcom);
	add_object(description, item, "negator", OperatorRelationId, form->oprnegate);
	note_families(description, item->object);
}

/* Describes an operator family. */
static void
describe_family(MakoDescription *description, MakoItem *item, const MakoRow *row)
{
	mako_describe_add_lines(item, family_operators(description, item->object));
	mako_describe_add_lines(item, family_functions(description, item->object));
}

/* Describes an operator class, which a range type names. */
static void
describe_operator_class(MakoDescription *description, MakoItem *item, const MakoRow *row)
{
	Form_pg_opclass form = (Form_pg_opclass) GETSTRUCT(row->tuple);

	add_object(description, item, "family", OperatorFamilyRelationId, form->opcfamily);
	add_object(description, item, "for", TypeRelationId, form->opcintype);
}

/* ---- types ---------------------------------------------------------------------------------- */

/*
 * Adds a cast that the server looks up when it runs, without a call in the tree, if it is
 * declared.
 */
static void
note_hidden_cast(MakoDescription *description, Oid source, Oid target)
{
	HeapTuple	tuple = SearchSysCache2(CASTSOURCETARGET, ObjectIdGetDatum(source),
										ObjectIdGetDatum(target));

	if (!HeapTupleIsValid(tuple))
		return;
	(void) mako_describe_note(description, CastRelationId, ((Form_pg_cast) GETSTRUCT(tuple))->oid);
	ReleaseSysCache(tuple);
}

/*
 * Returns true if users made the operator class of a family with which values of a type are
 * compared. Its first function tells.
 */
static bool
is_class_of_users(Oid family, Oid type)
{
	return OidIsValid(family) &&
		(family >= FirstNormalObjectId ||
		 get_opfamily_proc(family, type, type, BTORDER_PROC) >= FirstNormalObjectId);
}

/*
 * Notes what values of one of the server's types are compared with, where no operator is named, if
 * users have made that.
 */
void
mako_describe_note_comparison(MakoDescription *description, Oid type)
{
	TypeCacheEntry *entry = lookup_type_cache(type,
											  TYPECACHE_BTREE_OPFAMILY | TYPECACHE_HASH_OPFAMILY);

	StaticAssertStmt(BTORDER_PROC == HASHSTANDARD_PROC,
					 "both kinds of operator classes have a first function");
	if (is_class_of_users(entry->btree_opf, entry->btree_opintype))
		note_family(description, entry->btree_opf);
	if (is_class_of_users(entry->hash_opf, entry->hash_opintype))
		note_family(description, entry->hash_opf);
}

/*
 * Notes what values of a type are compared and made JSON with, where no operator or cast is named.
 */
static void
note_hidden_use(MakoDescription *description, Oid type)
{
	TypeCacheEntry *entry = lookup_type_cache(type,
											  TYPECACHE_BTREE_OPFAMILY | TYPECACHE_HASH_OPFAMILY);

	if (OidIsValid(entry->btree_opf))
		note_family(description, entry->btree_opf);
	if (OidIsValid(entry->hash_opf))
		note_family(description, entry->hash_opf);
	note_hidden_cast(description, type, JSONOID);
	note_hidden_cast(description, type, JSONBOID);
}

/* Adds a base type, or an array. */
static void
add_base_type(MakoDescription *description, MakoItem *item, Form_pg_type form)
{
	Oid			subscript = MakoSubscriptHandler(item->object);

	add_object(description, item, "element", TypeRelationId, form->typelem);
	if (form->typinput == F_ARRAY_IN)
		return;
	mako_describe_add(item, "values",
					  psprintf("length %d%s alignment %c storage %c delimiter %c", form->typlen,
							   form->typbyval ? " by value" : "", form->typalign,
							   form->typstorage, form->typdelim));
	add_support(description, item, "input", form->typinput);
	add_support(description, item, "output", form->typoutput);
	add_support(description, item, "receive", form->typreceive);
	add_support(description, item, "send", form->typsend);
	add_support(description, item, "modifier input", form->typmodin);
	add_support(description, item, "modifier output", form->typmodout);
	if (subscript >= FirstNormalObjectId)
		add_support(description, item, "subscript", subscript);
}

/* Compares two constraints by name. */
static int
compare_constraints(const ListCell *a, const ListCell *b)
{
	return strcmp(NameStr(((Form_pg_constraint) GETSTRUCT((HeapTuple) lfirst(a)))->conname),
				  NameStr(((Form_pg_constraint) GETSTRUCT((HeapTuple) lfirst(b)))->conname));
}

/* The checks of a domain (HeapTuple), in the order in which the server evaluates them. */
static List *
checks_of(Relation catalog, Oid domain)
{
	List	   *checks = NIL;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_constraint_contypid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(domain));
	scan = systable_beginscan(catalog, ConstraintTypidIndexId, true, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		if (((Form_pg_constraint) GETSTRUCT(tuple))->contype == CONSTRAINT_CHECK)
			checks = lappend(checks, heap_copytuple(tuple));
	systable_endscan(scan);
	list_sort(checks, compare_constraints);
	return checks;
}

/* Adds the checks of a domain. */
static void
add_checks(MakoDescription *description, MakoItem *item)
{
	Relation	catalog = table_open(ConstraintRelationId, AccessShareLock);
	ListCell   *cell;

	foreach(cell, checks_of(catalog, item->object))
	{
		HeapTuple	tuple = lfirst(cell);
		Form_pg_constraint form = (Form_pg_constraint) GETSTRUCT(tuple);
		MakoRow		row = {form->oid, tuple, RelationGetDescr(catalog)};

		mako_describe_add(item, "check", psprintf("%s %s", quote_identifier(NameStr(form->conname)),
												  expression_of(&row, Anum_pg_constraint_conbin,
																InvalidOid)));
		add_tree(description, item, &row, Anum_pg_constraint_conbin);
	}
	table_close(catalog, AccessShareLock);
}

/* Adds a domain. */
static void
add_domain(MakoDescription *description, MakoItem *item, const MakoRow *row)
{
	Form_pg_type form = (Form_pg_type) GETSTRUCT(row->tuple);

	mako_describe_add(item, "domain over", type_name(form->typbasetype, form->typtypmod));
	if (form->typnotnull)
		mako_describe_add(item, "null", "refused");
	add_column(item, "default", row, Anum_pg_type_typdefault);
	add_tree(description, item, row, Anum_pg_type_typdefaultbin);
	add_checks(description, item);
	mako_describe_note_type(description, form->typbasetype);
}

/* Adds the labels of an enum in their order. */
static void
add_labels(MakoItem *item)
{
	Relation	catalog = table_open(EnumRelationId, AccessShareLock);
	Relation	index = index_open(EnumTypIdSortOrderIndexId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_enum_enumtypid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(item->object));
	scan = systable_beginscan_ordered(catalog, index, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext_ordered(scan, ForwardScanDirection)))
		mako_describe_add(item, "label", NameStr(((Form_pg_enum) GETSTRUCT(tuple))->enumlabel));
	systable_endscan_ordered(scan);
	index_close(index, AccessShareLock);
	table_close(catalog, AccessShareLock);
}

/* Adds a range type. */
static void
add_range(MakoDescription *description, MakoItem *item)
{
	HeapTuple	tuple = SearchSysCache1(RANGETYPE, ObjectIdGetDatum(item->object));
	Form_pg_range form;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for range type %u", item->object); /* cannot happen */
	form = (Form_pg_range) GETSTRUCT(tuple);
	add_object(description, item, "range over", TypeRelationId, form->rngsubtype);
	add_object(description, item, "operator class", OperatorClassRelationId, form->rngsubopc);
	add_object(description, item, "collation", CollationRelationId, form->rngcollation);
	add_object(description, item, "canonical", ProcedureRelationId, form->rngcanonical);
	add_object(description, item, "difference", ProcedureRelationId, form->rngsubdiff);
	add_object(description, item, "multirange", TypeRelationId,
			   MakoMultirangeOfRange(item->object));
	ReleaseSysCache(tuple);
}

/* Describes a type. */
static void
describe_type(MakoDescription *description, MakoItem *item, const MakoRow *row)
{
	Form_pg_type form = (Form_pg_type) GETSTRUCT(row->tuple);

	if (!form->typisdefined)
		return;
	mako_describe_add(item, "category", psprintf("%c%s", form->typcategory,
												 form->typispreferred ? " preferred" : ""));
	add_object(description, item, "collation", CollationRelationId, form->typcollation);
	switch (form->typtype)
	{
		case TYPTYPE_BASE:
			add_base_type(description, item, form);
			break;
		case TYPTYPE_COMPOSITE:
			(void) mako_describe_note(description, RelationRelationId, form->typrelid);
			break;
		case TYPTYPE_DOMAIN:
			add_domain(description, item, row);
			break;
		case TYPTYPE_ENUM:
			add_labels(item);
			break;
		case TYPTYPE_RANGE:
			add_range(description, item);
			break;
		default:
			add_object(description, item, "multirange over", TypeRelationId,
					   MakoRangeOfMultirange(item->object));
	}
	note_hidden_use(description, item->object);
}

/*
 * Describes a collation by all columns from the provider on, which differ by server version; 17
 * renamed that of the locale.
 */
static void
describe_collation(MakoDescription *description, MakoItem *item, const MakoRow *row)
{
	for (int column = Anum_pg_collation_collprovider; column <= row->tupdesc->natts; column++)
	{
		const char *name = NameStr(TupleDescAttr(row->tupdesc, column - 1)->attname);

		add_column(item, strstr(name, "locale") != NULL ? "locale" : name, row, column);
	}
}

/* Describes a cast. */
static void
describe_cast(MakoDescription *description, MakoItem *item, const MakoRow *row)
{
	Form_pg_cast form = (Form_pg_cast) GETSTRUCT(row->tuple);

	mako_describe_add(item, "cast",
					  psprintf("method %c context %c", form->castmethod, form->castcontext));
	add_object(description, item, "function", ProcedureRelationId, form->castfunc);
	mako_describe_note_type(description, form->castsource);
	mako_describe_note_type(description, form->casttarget);
}

/* ---- relations ------------------------------------------------------------------------------ */

/* Adds what a view selects. */
static void
add_view(MakoDescription *description, MakoItem *item)
{
	HeapTuple	tuple = SearchSysCache2(RULERELNAME, ObjectIdGetDatum(item->object),
										CStringGetDatum(ViewSelectRuleName));
	bool		isnull;
	char	   *actions;

	if (!HeapTupleIsValid(tuple))
		return;
	actions = TextDatumGetCString(SysCacheGetAttr(RULERELNAME, tuple,
												  Anum_pg_rewrite_ev_action, &isnull));
	ReleaseSysCache(tuple);
	mako_describe_add(item, "view",
					  TextDatumGetCString(DirectFunctionCall1(pg_get_viewdef,
															  ObjectIdGetDatum(item->object))));
	mako_describe_tree(description, item, stringToNode(actions));
}

/* Adds how a column is computed whenever it is read. */
static void
add_generated(MakoDescription *description, MakoItem *item, AttrNumber number)
{
	Relation	catalog = table_open(AttrDefaultRelationId, AccessShareLock);
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&keys[0], Anum_pg_attrdef_adrelid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(item->object));
	ScanKeyInit(&keys[1], Anum_pg_attrdef_adnum, BTEqualStrategyNumber, F_INT2EQ,
				Int16GetDatum(number));
	scan = systable_beginscan(catalog, AttrDefaultIndexId, true, NULL, 2, keys);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		MakoRow		row = {InvalidOid, tuple, RelationGetDescr(catalog)};

		mako_describe_add(item, "generated",
						  expression_of(&row, Anum_pg_attrdef_adbin, item->object));
		add_tree(description, item, &row, Anum_pg_attrdef_adbin);
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
}

/* Adds a column of a relation. */
static void
add_attribute(MakoDescription *description, MakoItem *item, Form_pg_attribute attribute)
{
	mako_describe_add(item, "column",
					  psprintf("%s %s collation %s", quote_identifier(NameStr(attribute->attname)),
							   type_name(attribute->atttypid, attribute->atttypmod),
							   mako_describe_name(CollationRelationId, attribute->attcollation)));
	mako_describe_note_type(description, attribute->atttypid);
	(void) mako_describe_note(description, CollationRelationId, attribute->attcollation);
	if (MakoIsVirtual(attribute))
		add_generated(description, item, attribute->attnum);
}

/* Describes a relation: its columns and, of a view, where they come from. */
static void
describe_relation(MakoDescription *description, MakoItem *item, const MakoRow *row)
{
	Form_pg_class form = (Form_pg_class) GETSTRUCT(row->tuple);

	mako_generation_watch(item->object);
	for (AttrNumber number = 1; number <= form->relnatts; number++)
	{
		HeapTuple	tuple = SearchSysCache2(ATTNUM, ObjectIdGetDatum(item->object),
											Int16GetDatum(number));

		if (!HeapTupleIsValid(tuple))
			continue;
		if (!((Form_pg_attribute) GETSTRUCT(tuple))->attisdropped)
			add_attribute(description, item, (Form_pg_attribute) GETSTRUCT(tuple));
		ReleaseSysCache(tuple);
	}
	if (form->relkind == RELKIND_VIEW)
	{
		add_column(item, "options", row, Anum_pg_class_reloptions);
		add_view(description, item);
	}
}

/* ---- text search ---------------------------------------------------------------------------- */

/*
 * Describes a text search configuration: its parser, and the dictionaries by kind of token in
 * their order.
 */
static void
describe_ts_config(MakoDescription *description, MakoItem *item, const MakoRow *row)
{
	CatCList   *list = SearchSysCacheList1(TSCONFIGMAP, ObjectIdGetDatum(item->object));
	List	   *lines = NIL;

	for (int i = 0; i < list->n_members; i++)
	{
		Form_pg_ts_config_map form = (Form_pg_ts_config_map) GETSTRUCT(&list->members[i]->tuple);

		lines = lappend(lines, psprintf("token %04d.%04d %s", form->maptokentype, form->mapseqno,
										mako_describe_name(TSDictionaryRelationId, form->mapdict)));
		(void) mako_describe_note(description, TSDictionaryRelationId, form->mapdict);
	}
	ReleaseSysCacheList(list);
	mako_describe_add_lines(item, lines);
	add_object(description, item, "parser", TSParserRelationId,
			   ((Form_pg_ts_config) GETSTRUCT(row->tuple))->cfgparser);
}

/* Describes a text search dictionary; the files that its options name are not looked at. */
static void
describe_ts_dictionary(MakoDescription *description, MakoItem *item, const MakoRow *row)
{
	add_object(description, item, "template", TSTemplateRelationId,
			   ((Form_pg_ts_dict) GETSTRUCT(row->tuple))->dicttemplate);
	add_column(item, "options", row, Anum_pg_ts_dict_dictinitoption);
}

/* Describes a text search template. */
static void
describe_ts_template(MakoDescription *description, MakoItem *item, const MakoRow *row)
{
	Form_pg_ts_template form = (Form_pg_ts_template) GETSTRUCT(row->tuple);

	add_support(description, item, "init", form->tmplinit);
	add_support(description, item, "lexize", form->tmpllexize);
}

/* Describes a text search parser. */
static void
describe_ts_parser(MakoDescription *description, MakoItem *item, const MakoRow *row)
{
	Form_pg_ts_parser form = (Form_pg_ts_parser) GETSTRUCT(row->tuple);

	add_support(description, item, "start", form->prsstart);
	add_support(description, item, "token", form->prstoken);
	add_support(description, item, "end", form->prsend);
	add_support(description, item, "headline", form->prsheadline);
	add_support(description, item, "token types", form->prslextype);
}

/* ---- all kinds ------------------------------------------------------------------------------ */

static const Kind kinds[] = {
	{ProcedureRelationId, describe_function},
	{TypeRelationId, describe_type},
	{RelationRelationId, describe_relation},
	{OperatorRelationId, describe_operator},
	{OperatorFamilyRelationId, describe_family},
	{OperatorClassRelationId, describe_operator_class},
	{CollationRelationId, describe_collation},
	{CastRelationId, describe_cast},
	{LanguageRelationId, describe_language},
	{TransformRelationId, describe_transform},
	{TSConfigRelationId, describe_ts_config},
	{TSDictionaryRelationId, describe_ts_dictionary},
	{TSTemplateRelationId, describe_ts_template},
	{TSParserRelationId, describe_ts_parser},
};

/* The kind of the objects in a catalog; NULL for one that is not described. */
static const Kind *
find_kind(Oid catalog)
{
	for (size_t i = 0; i < lengthof(kinds); i++)
		if (kinds[i].catalog == catalog)
			return &kinds[i];
	return NULL;
}

/* Returns true if the objects in a catalog are described. */
bool
mako_describe_has_kind(Oid catalog)
{
	return find_kind(catalog) != NULL;
}

/* Describes an object from its row. */
void
mako_describe_kind(MakoDescription *description, MakoItem *item, const MakoRow *row)
{
	find_kind(item->catalog)->describe(description, item, row);
}
