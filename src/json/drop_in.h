/*
 * drop_in.h
 *	  What the drop-ins for the server's jsonb functions share.
 *
 * A drop-in native_f() does what the server's f() does, but copies nothing and serializes nothing:
 * it looks into the value where it is, and answers with one that points there. Whatever is rare,
 * and every error, it leaves to f() itself, which takes expanded values like all functions do, by
 * detoasting them. So results and errors are the server's, by construction or because both are
 * compared in the tests. What is made lives in the current memory context; what is cached for a
 * place in an expression, in that of its evaluation state.
 */
#ifndef MAKO_DROP_IN_H
#define MAKO_DROP_IN_H

#include "json/json.h"

#include "utils/fmgrprotos.h"

#define ARGUMENT_JSON(n) mako_json_read(PG_GETARG_DATUM(n))
#define RETURN_JSON(value) PG_RETURN_DATUM(mako_json_datum(value))

/* One element of a path: a key, or the number of an element where the value is an array. */
typedef struct MakoJsonStep
{
	const char *key;
	uint32		length;
	bool		is_number;
	int			number;
} MakoJsonStep;

/* A path without nulls. */
typedef struct MakoJsonPath
{
	bool		valid;			/* false: the server is to see to it */
	int			count;
	MakoJsonStep *steps;
} MakoJsonPath;

/* What following a path ends with. */
typedef enum MakoJsonFound
{
	FOUND,
	NOTHING,
	ASK_SERVER,					/* an unusual number */
} MakoJsonFound;

/*
 * The number of the element that a whole number means in an array of this size, where negative
 * ones count from the end; or -1.
 */
static inline int64
mako_json_element_number(int number, uint32 count)
{
	int64		index = number < 0 ? (int64) count + number : number;

	return index >= 0 && index < (int64) count ? index : -1;
}

extern List *mako_json_call_arguments(FunctionCallInfo fcinfo);
extern const char *mako_json_argument_text(FunctionCallInfo fcinfo, int argument, uint32 *length);
extern const MakoJsonPath *mako_json_argument_path(FunctionCallInfo fcinfo, int argument);
extern MakoJsonFound mako_json_take_step(const MakoJsonValue *value, const MakoJsonStep *step,
										 MakoJsonValue *next);
extern MakoJsonFound mako_json_follow_path(MakoJsonValue *value, const MakoJsonPath *path);
extern bool mako_json_has_key(const MakoJsonValue *value, const char *key, uint32 length);

/* json_read.c */
extern Datum native_jsonb_object_field(PG_FUNCTION_ARGS);
extern Datum native_jsonb_object_field_text(PG_FUNCTION_ARGS);
extern Datum native_jsonb_array_element(PG_FUNCTION_ARGS);
extern Datum native_jsonb_array_element_text(PG_FUNCTION_ARGS);
extern Datum native_jsonb_extract_path(PG_FUNCTION_ARGS);
extern Datum native_jsonb_extract_path_text(PG_FUNCTION_ARGS);
extern Datum native_jsonb_typeof(PG_FUNCTION_ARGS);
extern Datum native_jsonb_array_length(PG_FUNCTION_ARGS);
extern Datum native_jsonb_exists(PG_FUNCTION_ARGS);
extern Datum native_jsonb_exists_any(PG_FUNCTION_ARGS);
extern Datum native_jsonb_exists_all(PG_FUNCTION_ARGS);
extern Datum native_jsonb_eq(PG_FUNCTION_ARGS);
extern Datum native_jsonb_ne(PG_FUNCTION_ARGS);
extern Datum native_texteq(PG_FUNCTION_ARGS);
extern Datum native_textne(PG_FUNCTION_ARGS);
extern Datum native_jsonb_contains(PG_FUNCTION_ARGS);
extern Datum native_jsonb_contained(PG_FUNCTION_ARGS);
extern Datum native_jsonb_numeric(PG_FUNCTION_ARGS);
extern Datum native_jsonb_bool(PG_FUNCTION_ARGS);
extern Datum native_jsonb_out(PG_FUNCTION_ARGS);
extern Datum native_mako_required(PG_FUNCTION_ARGS);
extern Datum native_jsonb_int2(PG_FUNCTION_ARGS);
extern Datum native_jsonb_int4(PG_FUNCTION_ARGS);
extern Datum native_jsonb_int8(PG_FUNCTION_ARGS);
extern Datum native_jsonb_float4(PG_FUNCTION_ARGS);
extern Datum native_jsonb_float8(PG_FUNCTION_ARGS);

/* json_build.c */
extern Datum native_jsonb_build_object(PG_FUNCTION_ARGS);
extern Datum native_jsonb_build_array(PG_FUNCTION_ARGS);
extern Datum native_jsonb_build_object_noargs(PG_FUNCTION_ARGS);
extern Datum native_jsonb_build_array_noargs(PG_FUNCTION_ARGS);
extern Datum native_to_jsonb(PG_FUNCTION_ARGS);

/* json_edit.c */
extern Datum native_jsonb_concat(PG_FUNCTION_ARGS);
extern Datum native_jsonb_delete(PG_FUNCTION_ARGS);
extern Datum native_jsonb_delete_array(PG_FUNCTION_ARGS);
extern Datum native_jsonb_delete_idx(PG_FUNCTION_ARGS);
extern Datum native_jsonb_delete_path(PG_FUNCTION_ARGS);
extern Datum native_jsonb_set(PG_FUNCTION_ARGS);
extern Datum native_jsonb_insert(PG_FUNCTION_ARGS);
extern Datum native_jsonb_strip_nulls(PG_FUNCTION_ARGS);

#endif							/* MAKO_DROP_IN_H */
