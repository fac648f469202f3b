EXTENSION = mako_migration
MODULE_big = mako_migration
DATA = $(wildcard sql/mako_migration--*.sql)

OBJS = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c src/*/*.c)))

REGRESS = ids definitions store types migrate process cutover
REGRESS_OPTS = --inputdir=. --encoding=UTF8
ISOLATION = append batched fence neighbours two_migrations process retire revert scan_order verify
ISOLATION_OPTS = --inputdir=test

# Fields that an initializer does not name are zero, on purpose.
PG_CPPFLAGS = -I$(srcdir)/src
PG_CFLAGS = -fvisibility=hidden -Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

$(OBJS): $(wildcard src/*.h src/*/*.h)

# The layout of the C code, and the list of types that it needs: see test/indent.
.PHONY: indent typedefs
indent:
	$(srcdir)/test/indent
typedefs:
	$(srcdir)/test/indent --typedefs
