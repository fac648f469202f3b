/*
 * compat.h
 *	  Every difference between PostgreSQL 13 and 18 that the extension meets, with its reason.
 */
#ifndef MAKO_COMPAT_H
#define MAKO_COMPAT_H

#include "catalog/namespace.h"
#include "utils/guc.h"
#include "utils/regproc.h"

/* 14 lets callers ask for procedures' OUT arguments too. */
#if PG_VERSION_NUM >= 140000
#define MakoFuncnameGetCandidates(names) \
	FuncnameGetCandidates(names, -1, NIL, false, false, false, true)
#else
#define MakoFuncnameGetCandidates(names) FuncnameGetCandidates(names, -1, NIL, false, false, true)
#endif

/* 16 can report a malformed name softly. */
#if PG_VERSION_NUM >= 160000
#define MakoQualifiedNameList(name) stringToQualifiedNameList(name, NULL)
#else
#define MakoQualifiedNameList(name) stringToQualifiedNameList(name)
#endif

/* 14 tells an index whether a row is the new version of one with the same keys. */
#if PG_VERSION_NUM >= 140000
#define MakoIndexInsert(index, values, nulls, tid, relation, unique, unchanged, info) \
	index_insert(index, values, nulls, tid, relation, unique, unchanged, info)
#else
#define MakoIndexInsert(index, values, nulls, tid, relation, unique, unchanged, info) \
	index_insert(index, values, nulls, tid, relation, unique, info)
#endif

/* 18 can count what an index scan does. */
#if PG_VERSION_NUM >= 180000
#define MakoIndexBeginScan(relation, index, snapshot, nkeys) \
	index_beginscan(relation, index, snapshot, NULL, nkeys, 0)
#else
#define MakoIndexBeginScan(relation, index, snapshot, nkeys) \
	index_beginscan(relation, index, snapshot, nkeys, 0)
#endif

/* 17 lets an index keep resources from one insertion to the next. */
#if PG_VERSION_NUM >= 170000
#define MakoIndexInsertCleanup(index, info) index_insert_cleanup(index, info)
#else
#define MakoIndexInsertCleanup(index, info) ((void) 0)
#endif

/*
 * 16 says which indexes need entries for a tuple that was updated; before, all of them do unless
 * the tuple is heap-only.
 */
#if PG_VERSION_NUM >= 160000
#include "access/heapam.h"
static inline bool
MakoHeapUpdate(Relation relation, ItemPointer tid, HeapTuple tuple, bool *only_summarizing)
{
	TU_UpdateIndexes update;

	simple_heap_update(relation, tid, tuple, &update);
	*only_summarizing = update == TU_Summarizing;
	return update != TU_None;
}
#define MakoIsSummarizing(info) ((info)->ii_Summarizing)
#else
#define MakoIsSummarizing(info) false
#define MakoHeapUpdate(relation, tid, tuple, only_summarizing) \
	(simple_heap_update(relation, tid, tuple), *(only_summarizing) = false, \
	 !HeapTupleIsHeapOnly(tuple))
#endif

/* 16 keeps the columns of summarizing indexes, which do not forbid heap-only tuples, apart. */
#if PG_VERSION_NUM >= 160000
#define MakoIndexedAttributes(relation) \
	bms_join(RelationGetIndexAttrBitmap(relation, INDEX_ATTR_BITMAP_HOT_BLOCKING), \
			 RelationGetIndexAttrBitmap(relation, INDEX_ATTR_BITMAP_SUMMARIZED))
#else
#define MakoIndexedAttributes(relation) RelationGetIndexAttrBitmap(relation, INDEX_ATTR_BITMAP_ALL)
#endif

/* 18 has generated columns that are computed when they are read. */
#if PG_VERSION_NUM >= 180000
#define MakoHasGenerated(constraints) \
	((constraints)->has_generated_stored || (constraints)->has_generated_virtual)
#else
#define MakoHasGenerated(constraints) ((constraints)->has_generated_stored)
#endif

/*
 * 14 closes the relations that triggers were fired for together with the other results of a
 * statement.
 */
#if PG_VERSION_NUM >= 140000
#define MakoCloseTriggerRelations(estate) ExecCloseResultRelations(estate)
#else
#define MakoCloseTriggerRelations(estate) ExecCleanUpTriggerState(estate)
#endif

/* 14 stores SQL-standard bodies (BEGIN ATOMIC) as parse trees. */
#if PG_VERSION_NUM >= 140000
#define MAKO_SQL_BODY 1
#endif

/*
 * 14 has a role that stands for the owner of the database, to whom schema public belongs from 15
 * on.
 */
#if PG_VERSION_NUM >= 140000
#define MAKO_ROLE_DATABASE_OWNER ROLE_PG_DATABASE_OWNER
#else
#define MAKO_ROLE_DATABASE_OWNER InvalidOid
#endif

/* 14 knows infinite numerics. */
#if PG_VERSION_NUM >= 140000
#define MakoNumericIsInfinite(number) numeric_is_inf(number)
#else
#define MakoNumericIsInfinite(number) false
#endif

/* 18 has steps of their own for strict functions of one and two arguments. */
#if PG_VERSION_NUM >= 180000
#define MAKO_STRICT_STEPS 1
#endif

/*
 * 17 asks for the sequence of a column of an opened relation, because partitions have the one of
 * their parent.
 */
#if PG_VERSION_NUM >= 170000
#define MakoIdentitySequence(relation, attribute) getIdentitySequence(relation, attribute, true)
#else
#define MakoIdentitySequence(relation, attribute) \
	getIdentitySequence(RelationGetRelid(relation), attribute, true)
#endif

/* 14 lets types say how they are subscripted; before, only arrays are. */
#if PG_VERSION_NUM >= 140000
#define MakoSubscriptHandler(type) get_typsubscript(type, NULL)
#else
#define MakoSubscriptHandler(type) InvalidOid
#endif

/* 14 lets callers ask for objects that may be gone. */
#if PG_VERSION_NUM >= 140000
#define MakoObjectIdentity(address) getObjectIdentity(address, true)
#define MakoObjectKind(address) getObjectTypeDescription(address, true)
#else
#define MakoObjectIdentity(address) getObjectIdentity(address)
#define MakoObjectKind(address) getObjectTypeDescription(address)
#endif

/* 14 has multiranges. */
#if PG_VERSION_NUM >= 140000
#define MakoMultirangeOfRange(type) get_range_multirange(type)
#define MakoRangeOfMultirange(type) get_multirange_range(type)
#else
#define MakoMultirangeOfRange(type) InvalidOid
#define MakoRangeOfMultirange(type) InvalidOid
#endif

/*
 * 16 has the constructors of SQL/JSON, 17 its queries: the type that a node returns; InvalidOid
 * for other nodes.
 */
#if PG_VERSION_NUM >= 170000
#define MakoSqlJsonType(node) \
	(IsA(node, JsonConstructorExpr) ? ((JsonConstructorExpr *) (node))->returning->typid : \
	 IsA(node, JsonExpr) ? ((JsonExpr *) (node))->returning->typid : InvalidOid)
#elif PG_VERSION_NUM >= 160000
#define MakoSqlJsonType(node) \
	(IsA(node, JsonConstructorExpr) ? ((JsonConstructorExpr *) (node))->returning->typid : \
	 InvalidOid)
#else
#define MakoSqlJsonType(node) InvalidOid
#endif

/* 16 asks for the privileges on all kinds of objects in one way. */
#if PG_VERSION_NUM >= 160000
#define MakoFunctionAclCheck(function, role) \
	object_aclcheck(ProcedureRelationId, function, role, ACL_EXECUTE)
#define MakoSchemaAclCheck(schema, role) \
	object_aclcheck(NamespaceRelationId, schema, role, ACL_USAGE)
#else
#define MakoFunctionAclCheck(function, role) pg_proc_aclcheck(function, role, ACL_EXECUTE)
#define MakoSchemaAclCheck(schema, role) pg_namespace_aclcheck(schema, role, ACL_USAGE)
#endif

/* 16 keeps what privileges a query needs beside its range table. */
#if PG_VERSION_NUM >= 160000
#define MakoCheckPermissions(query) \
	ExecCheckPermissions((query)->rtable, (query)->rteperminfos, true)
#else
#define MakoCheckPermissions(query) ExecCheckRTPerms((query)->rtable, true)
#endif

/* 14 lets callers ask for procedures' OUT arguments too. */
#if PG_VERSION_NUM >= 140000
#define MakoExpandArguments(arguments, result, function) \
	expand_function_arguments(arguments, false, result, function)
#else
#define MakoExpandArguments(arguments, result, function) \
	expand_function_arguments(arguments, result, function)
#endif

/* 18 executes a plan once in any case. */
#if PG_VERSION_NUM >= 180000
#define MakoExecutorRun(description) ExecutorRun(description, ForwardScanDirection, 0)
#else
#define MakoExecutorRun(description) ExecutorRun(description, ForwardScanDirection, 0, true)
#endif

/* 16 keeps the privileges that a relation needs apart from its place in a query. */
#if PG_VERSION_NUM >= 160000
#define MakoNeedNoPrivileges(entry) ((entry)->perminfoindex = 0)
#else
#define MakoNeedNoPrivileges(entry) ((entry)->requiredPerms = 0)
#endif

/* 17 asks for the kind of routine, 18 no longer offers a target list. */
#if PG_VERSION_NUM >= 180000
#define MakoCheckSqlReturn(queries, type, rowtype) \
	check_sql_fn_retval(list_make1(queries), type, rowtype, PROKIND_FUNCTION, false)
#elif PG_VERSION_NUM >= 170000
#define MakoCheckSqlReturn(queries, type, rowtype) \
	check_sql_fn_retval(list_make1(queries), type, rowtype, PROKIND_FUNCTION, false, NULL)
#else
#define MakoCheckSqlReturn(queries, type, rowtype) \
	check_sql_fn_retval(list_make1(queries), type, rowtype, false, NULL)
#endif

/*
 * 14 keeps the statement's query id beside its text, and clears it when the text is reported; the
 * functions are in another header.
 */
#if PG_VERSION_NUM >= 140000
#include "utils/backend_status.h"
static inline void
MakoReportActivity(const char *text)
{
	uint64		query_id = pgstat_get_my_query_id();

	pgstat_report_activity(STATE_RUNNING, text);
	pgstat_report_query_id(query_id, true);
}
#else
#include "pgstat.h"
#define MakoReportActivity(text) pgstat_report_activity(STATE_RUNNING, text)
#endif
#define MakoCurrentActivity() pgstat_get_backend_current_activity(MyProcPid, true)

/* 15 lets a sender collect messages before it wakes the receiver. */
#if PG_VERSION_NUM >= 150000
#define MakoQueueSend(queue, parts, count) shm_mq_sendv(queue, parts, count, false, false)
#else
#define MakoQueueSend(queue, parts, count) shm_mq_sendv(queue, parts, count, false)
#endif

/* 18 can leave room in front of a row. */
#if PG_VERSION_NUM >= 180000
#define MakoFormMinimalTuple(tupdesc, values, nulls) \
	heap_form_minimal_tuple(tupdesc, values, nulls, 0)
#else
#define MakoFormMinimalTuple(tupdesc, values, nulls) heap_form_minimal_tuple(tupdesc, values, nulls)
#endif

/* 18 has generated columns that are not stored. */
#if PG_VERSION_NUM >= 180000
#define MakoIsVirtual(attribute) ((attribute)->attgenerated == ATTRIBUTE_GENERATED_VIRTUAL)
#else
#define MakoIsVirtual(attribute) false
#endif

/* 18 marks functions that do not return in front of their declaration, as C11 does. */
#if PG_VERSION_NUM < 180000
#define pg_noreturn __attribute__((noreturn))
#endif

/* 15 renamed it, because it now also keeps others from using the prefix. */
#if PG_VERSION_NUM < 150000
#define MarkGUCPrefixReserved(prefix) EmitWarningsOnPlaceholders(prefix)
#endif

/*
 * 16 hides what is not marked, and marks functions itself; before, the mark was empty outside
 * Windows.
 */
#if PG_VERSION_NUM < 160000
#undef PGDLLEXPORT
#define PGDLLEXPORT __attribute__((visibility("default")))
#endif
#define MAKO_FUNCTION(name) \
	PGDLLEXPORT Datum name(PG_FUNCTION_ARGS); \
	PG_FUNCTION_INFO_V1(name)

#endif							/* MAKO_COMPAT_H */
