/*
 * functions.c
 *	  gpke-supplier-change in C, as a user would write it: jsonb in, jsonb out, with the server's jsonb functions.
 *
 * Built and registered by test/bench/run only. Everything is allocated in the caller's context.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(bench_apply);
PG_FUNCTION_INFO_V1(bench_migrate);

/* The keys of the master data, as payloads and as states name them. */
static const char *const data_keys[][2] = {
	{"location_id", "location_id"},
	{"new_supplier", "new_supplier"},
	{"grid_operator", "grid_operator"},
	{"document_date", "document_date_utc"},
	{"process_date", "process_date"},
	{"transaktionsgrund", "transaktionsgrund"},
	{"pruefidentifikator", "pruefidentifikator"},
};

/* Reads a key of an object; NULL when there is none. */
static JsonbValue *
get(JsonbContainer *object, const char *key)
{
	return getKeyJsonValueFromContainer(object, key, strlen(key), NULL);
}

/* Reads a key that must hold an object. */
static JsonbContainer *
get_object(JsonbContainer *object, const char *key)
{
	JsonbValue *value = get(object, key);

	if (value == NULL || value->type != jbvBinary)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("key \"%s\" holds no object", key)));
	return value->val.binary.data;
}

/* Compares a value with a text. */
static bool
is_text(const JsonbValue *value, const char *text)
{
	return value != NULL && value->type == jbvString && value->val.string.len == (int) strlen(text) &&
		memcmp(value->val.string.val, text, value->val.string.len) == 0;
}

/* A text as a value. */
static JsonbValue
text_value(const char *text)
{
	JsonbValue	value;

	value.type = jbvString;
	value.val.string.val = unconstify(char *, text);
	value.val.string.len = strlen(text);
	return value;
}

/* Adds a key with a value to the object that is being built; no value is null, as in jsonb_build_object(). */
static void
add(JsonbParseState **state, const char *key, JsonbValue *value)
{
	JsonbValue	name = text_value(key);
	JsonbValue	null = {.type = jbvNull};

	pushJsonbValue(state, WJB_KEY, &name);
	pushJsonbValue(state, WJB_VALUE, value == NULL ? &null : value);
}

/* Adds a key with a text. */
static void
add_text(JsonbParseState **state, const char *key, const char *text)
{
	JsonbValue	value = text_value(text);

	add(state, key, &value);
}

/* Begins the object that is a state, up to its data. */
static JsonbParseState *
begin_state(const char *status)
{
	JsonbParseState *state = NULL;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	add_text(&state, "status", status);
	return state;
}

/* Ends the object that is a state. */
static Datum
end_state(JsonbParseState *state)
{
	return JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)));
}

/* A state with this status and these data. */
static Datum
make_state(const char *status, JsonbValue *data)
{
	JsonbParseState *state = begin_state(status);

	add(&state, "data", data);
	return end_state(state);
}

/* A state whose data have one text. */
static Datum
make_ended(const char *status, const char *key, JsonbValue *text)
{
	JsonbParseState *state = begin_state(status);
	JsonbValue	name = text_value("data");

	pushJsonbValue(&state, WJB_KEY, &name);
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	add(&state, key, text);
	pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return end_state(state);
}

/* The state that the event Initiated leads to. */
static Datum
make_initiated(JsonbContainer *data)
{
	JsonbParseState *state = begin_state("Initiated");
	JsonbValue	name = text_value("data");

	pushJsonbValue(&state, WJB_KEY, &name);
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (size_t i = 0; i < lengthof(data_keys); i++)
		add(&state, data_keys[i][1], get(data, data_keys[i][0]));
	add_text(&state, "sparte", "STROM");
	pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return end_state(state);
}

/* bench.apply_c(state jsonb, event_type text, payload jsonb): the state after an event. */
Datum
bench_apply(PG_FUNCTION_ARGS)
{
	Jsonb	   *state = PG_GETARG_JSONB_P(0);
	Jsonb	   *payload = PG_GETARG_JSONB_P(2);
	JsonbValue *type = get(&payload->root, "type");
	JsonbValue *status = get(&state->root, "status");

	if (is_text(type, "Initiated"))
		return make_initiated(get_object(&payload->root, "data"));
	if (is_text(type, "ValidationPassed"))
	{
		if (is_text(status, "Initiated"))
			return make_state("ValidationPassed", get(&state->root, "data"));
	}
	else if (is_text(type, "AntwortGesendet"))
	{
		JsonbContainer *data = get_object(&payload->root, "data");
		JsonbValue *accepted = get(data, "accepted");

		if (accepted != NULL && accepted->type == jbvBool && !accepted->val.boolean)
		{
			JsonbValue	reason = text_value("Anfrage abgelehnt");

			return make_ended("Rejected", "reason", &reason);
		}
		if (is_text(status, "ValidationPassed"))
		{
			JsonbParseState *answered = begin_state("AntwortGesendet");
			JsonbValue	name = text_value("data");

			pushJsonbValue(&answered, WJB_KEY, &name);
			pushJsonbValue(&answered, WJB_BEGIN_OBJECT, NULL);
			add(&answered, "data", get(&state->root, "data"));
			add(&answered, "response_pid", get(data, "response_pid"));
			pushJsonbValue(&answered, WJB_END_OBJECT, NULL);
			return end_state(answered);
		}
	}
	else if (is_text(type, "Activated"))
	{
		if (is_text(status, "AntwortGesendet"))
			return make_state("Active", get(get_object(&state->root, "data"), "data"));
	}
	else if (is_text(type, "AperakFehlerDispatched"))
	{
		JsonbValue *reason = get(get_object(&payload->root, "data"), "reason");
		JsonbValue	whole;

		if (reason == NULL || reason->type != jbvString)
			PG_RETURN_NULL();
		whole = text_value(psprintf("APERAK 29001: %s", pnstrdup(reason->val.string.val, reason->val.string.len)));
		return make_ended("Rejected", "reason", &whole);
	}
	else if (is_text(type, "Rejected"))
		return make_ended("Rejected", "reason", get(get_object(&payload->root, "data"), "reason"));
	else if (is_text(type, "DeadlineExpired"))
	{
		if (!is_text(status, "Active") && !is_text(status, "Rejected") && !is_text(status, "DeadlineExpired"))
			return make_ended("DeadlineExpired", "label", get(get_object(&payload->root, "data"), "label"));
	}
	else if (!is_text(type, "VollzugsmeldungReceived"))
		PG_RETURN_NULL();
	PG_RETURN_DATUM(PG_GETARG_DATUM(0));
}

/* Adds the key "data" with master data in which "sparte" is called "commodity". */
static void
add_migrated(JsonbParseState **state, JsonbContainer *data)
{
	JsonbIterator *iterator = JsonbIteratorInit(data);
	JsonbValue	name = text_value("data");
	JsonbValue	key;
	JsonbIteratorToken token;

	pushJsonbValue(state, WJB_KEY, &name);
	pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	while ((token = JsonbIteratorNext(&iterator, &key, true)) != WJB_DONE)
	{
		JsonbValue	value;

		if (token != WJB_KEY)
			continue;
		(void) JsonbIteratorNext(&iterator, &value, true);
		if (is_text(&key, "sparte"))
			add(state, "commodity", &value);
		else
		{
			pushJsonbValue(state, WJB_KEY, &key);
			pushJsonbValue(state, WJB_VALUE, &value);
		}
	}
	pushJsonbValue(state, WJB_END_OBJECT, NULL);
}

/* bench.migrate_c(state jsonb): the state under FV2026-10-01. */
Datum
bench_migrate(PG_FUNCTION_ARGS)
{
	Jsonb	   *old = PG_GETARG_JSONB_P(0);
	JsonbValue *status = get(&old->root, "status");
	JsonbContainer *data;
	JsonbParseState *state;

	if (is_text(status, "New") || is_text(status, "Rejected") || is_text(status, "DeadlineExpired"))
		PG_RETURN_DATUM(PG_GETARG_DATUM(0));
	data = get_object(&old->root, "data");
	if (is_text(status, "AntwortGesendet"))
	{
		JsonbValue	name = text_value("data");
		JsonbValue *response_pid = get(data, "response_pid");

		if (response_pid != NULL && response_pid->type == jbvNull)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("AntwortGesendet without response_pid cannot be migrated")));
		state = begin_state("AntwortGesendet");
		pushJsonbValue(&state, WJB_KEY, &name);
		pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
		add_migrated(&state, get_object(data, "data"));
		add(&state, "response_pid", response_pid);
		pushJsonbValue(&state, WJB_END_OBJECT, NULL);
		return end_state(state);
	}
	if (is_text(status, "Active"))
	{
		JsonbValue *pid = get(data, "pruefidentifikator");
		bool		produces = pid != NULL && pid->type == jbvNumeric &&
			DatumGetInt32(DirectFunctionCall1(numeric_int4, NumericGetDatum(pid->val.numeric))) == 55077;

		state = begin_state(produces ? "ActiveErzeugend" : "ActiveVerbrauchend");
	}
	else if (is_text(status, "Initiated") || is_text(status, "ValidationPassed"))
		state = begin_state(is_text(status, "Initiated") ? "Initiated" : "ValidationPassed");
	else
		PG_RETURN_NULL();
	add_migrated(&state, data);
	return end_state(state);
}
