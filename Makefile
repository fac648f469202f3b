EXTENSION = mako_migration
MODULE_big = mako_migration
DATA = $(wildcard sql/mako_migration--*.sql)
DOCS = $(wildcard doc/*.md)

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

# A folder of its own: all extensions share the one that PGXS takes, and our pages have names such as speed.md.
docmoduledir := extension/$(EXTENSION)

$(OBJS): $(wildcard src/*.h src/*/*.h)
