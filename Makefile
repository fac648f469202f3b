EXTENSION = mako_migration
MODULE_big = mako_migration
DATA = $(wildcard sql/mako_migration--*.sql)

# In the order of src/mako_migration.h, the map: a file stands behind those that it calls.
OBJS = $(addprefix src/, mako_migration.o workflow_id.o sql.o result.o isolation.o role.o gate.o temporary.o door.o fence.o direct.o head.o sequence.o invariants.o \
	report.o \
	function.o sql_body.o names.o describe_kinds.o describe.o fingerprint.o type_definition.o type_check.o instances.o definition.o plan.o refusal.o expanded_json.o \
	json_functions.o json_read.o json_build.o json_edit.o inline.o share.o binding.o choice.o program.o fold.o fold_cache.o \
	census.o seen.o lookup.o stream.o chunk.o gather.o replay.o move.o batch.o \
	survey.o retrace.o verify.o transitions.o coverage.o probe.o diagnose.o merge_patch.o dry_run.o \
	dependent.o snapshot.o audit.o progress.o run.o call.o migrate.o batched.o revert.o \
	append.o state.o route.o adopt.o \
	author.o validate.o explain.o preview.o)

REGRESS = ids definitions store types migrate process cutover
REGRESS_OPTS = --inputdir=. --encoding=UTF8
ISOLATION = append batched fence neighbours two_migrations process retire revert scan_order verify
ISOLATION_OPTS = --inputdir=test

# Fields that an initializer does not name are zero, on purpose.
PG_CFLAGS = -fvisibility=hidden -Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

$(OBJS): $(wildcard src/*.h)
