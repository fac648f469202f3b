/*
 * workflow_id.c
 *	  Parsing and checking format versions (FV2025-10-01) and workflow ids (name@FV2025-10-01).
 *	  Pure: text in, verdict out.
 */
#include "util/util.h"

#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/datetime.h"

#define FORMAT_VERSION_HINT "A format version is FV and a calendar date, for example FV2025-10-01."
#define WORKFLOW_ID_HINT \
	"A workflow id is a name and a format version, for example gpke-supplier-change@FV2025-10-01."

/* Says what is wrong with a format version, or returns NULL. */
const char *
mako_format_version_fault(const char *value, int length)
{
	int			year;
	int			month;
	int			day;

	if (length < 2 || memcmp(value, "FV", 2) != 0)
		return "The format version does not begin with FV.";
	if (length != MAKO_FORMAT_VERSION_LENGTH || value[6] != '-' || value[9] != '-')
		return "The format version is not of the form FVYYYY-MM-DD.";
	for (int i = 2; i < length; i++)
		if (i != 6 && i != 9 && !(value[i] >= '0' && value[i] <= '9'))
			return "The format version is not of the form FVYYYY-MM-DD.";

#define DIGIT(i) (value[i] - '0')
	year = DIGIT(2) * 1000 + DIGIT(3) * 100 + DIGIT(4) * 10 + DIGIT(5);
	month = DIGIT(7) * 10 + DIGIT(8);
	day = DIGIT(10) * 10 + DIGIT(11);
#undef DIGIT
	if (year < 2000)
		return "The year of the format version is before 2000.";
	if (month < 1 || month > MONTHS_PER_YEAR || day < 1 || day > day_tab[isleap(year)][month - 1])
		return "The format version is no date of the calendar.";
	return NULL;
}

/*
 * Returns true if this character is white space or a control character of ASCII or, in a UTF-8
 * database, of Unicode.
 */
static bool
is_space_or_control(const char *c)
{
	unsigned char first = (unsigned char) c[0];
	pg_wchar	code;

	if (!IS_HIGHBIT_SET(first))
		return first <= 0x20 || first == 0x7f;
	if (GetDatabaseEncoding() != PG_UTF8)
		return false;
	code = utf8_to_unicode((const unsigned char *) c);
	return code <= 0xa0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200a) || code == 0x2028 ||
		code == 0x2029 || code == 0x202f || code == 0x205f || code == 0x3000;
}

/*
 * Says what is wrong with a workflow id, or returns NULL. The name may hold any characters that
 * cannot be mistaken for layout.
 */
static const char *
workflow_id_fault(const char *value, int length)
{
	const char *at = memchr(value, '@', length);
	int			name_length;

	if (at == NULL)
		return "It has no @ between name and format version.";
	name_length = at - value;
	if (name_length == 0)
		return "The name is empty.";
	if (name_length > MAKO_MAX_NAME)
		return "The name is longer than 200 bytes.";
	if (memchr(at + 1, '@', length - name_length - 1) != NULL)
		return "It has more than one @.";

	for (const char *c = value; c < at; c += pg_mblen(c))
		if (is_space_or_control(c))
			return "The name contains white space or a control character.";
	return mako_format_version_fault(at + 1, length - name_length - 1);
}

/* Says what is wrong with a workflow id, or returns NULL. */
const char *
mako_workflow_id_fault(const char *workflow_id)
{
	return workflow_id_fault(workflow_id, (int) strlen(workflow_id));
}

MAKO_FUNCTION(mako_assert_format_version);
MAKO_FUNCTION(mako_assert_workflow_id);
MAKO_FUNCTION(mako_workflow_name);
MAKO_FUNCTION(mako_workflow_version);

/* The check of domain mako_format_version: true, or an error that says what is wrong. */
Datum
mako_assert_format_version(PG_FUNCTION_ARGS)
{
	text	   *value = PG_GETARG_TEXT_PP(0);
	const char *fault = mako_format_version_fault(VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));

	if (fault != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
				 errmsg("invalid format version: \"%s\"", text_to_cstring(value)),
				 errdetail_internal("%s", fault),
				 errhint(FORMAT_VERSION_HINT)));
	PG_RETURN_BOOL(true);
}

/* The check of domain mako_workflow_id: true, or an error that says what is wrong. */
Datum
mako_assert_workflow_id(PG_FUNCTION_ARGS)
{
	text	   *value = PG_GETARG_TEXT_PP(0);
	const char *fault = workflow_id_fault(VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));

	if (fault != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
				 errmsg("invalid workflow id: \"%s\"", text_to_cstring(value)),
				 errdetail_internal("%s", fault),
				 errhint(WORKFLOW_ID_HINT)));
	PG_RETURN_BOOL(true);
}

/* What stands before the @ of a workflow id. */
Datum
mako_workflow_name(PG_FUNCTION_ARGS)
{
	text	   *value = PG_GETARG_TEXT_PP(0);
	const char *start = VARDATA_ANY(value);
	const char *at = memchr(start, '@', VARSIZE_ANY_EXHDR(value));

	PG_RETURN_TEXT_P(cstring_to_text_with_len(start, at - start));
}

/* What stands after the @ of a workflow id. */
Datum
mako_workflow_version(PG_FUNCTION_ARGS)
{
	text	   *value = PG_GETARG_TEXT_PP(0);

	PG_RETURN_TEXT_P(cstring_to_text(mako_workflow_id_version(text_to_cstring(value))));
}

/* The format version within a workflow id. */
const char *
mako_workflow_id_version(const char *workflow_id)
{
	return strchr(workflow_id, '@') + 1;
}

/* The same workflow at another format version. */
char *
mako_workflow_id_at(const char *workflow_id, const char *format_version)
{
	return psprintf("%.*s@%s",
					(int) (strchr(workflow_id, '@') - workflow_id), workflow_id, format_version);
}

/* Returns true if two workflow ids name two versions of one workflow. */
bool
mako_workflow_id_same_name(const char *a, const char *b)
{
	size_t		length = strcspn(a, "@");

	return length == strcspn(b, "@") && memcmp(a, b, length) == 0;
}
