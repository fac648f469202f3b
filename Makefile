# mako_fleet is SQL only, and needs PL/Proxy and dblink only where it is created.
EXTENSION = mako_migration mako_fleet
MODULE_big = mako_migration
DATA = $(sort $(patsubst $(srcdir)/%,%,$(wildcard $(srcdir)/sql/mako_*--*.sql)) $(SCRIPT))
DOCS = $(patsubst $(srcdir)/%,%,$(wildcard $(srcdir)/doc/*.md))

EXTVERSION = $(shell sed -n "s/^default_version = '\(.*\)'/\1/p" $(srcdir)/mako_migration.control)
SCRIPT = sql/mako_migration--$(EXTVERSION).sql

SOURCES = $(sort $(wildcard $(srcdir)/src/*.c $(srcdir)/src/*/*.c))
OBJS = $(patsubst $(srcdir)/%.c,%.o,$(SOURCES))

REGRESS = ids definitions store types migrate process cutover
REGRESS_OPTS = --inputdir=. --encoding=UTF8
ISOLATION = append attached attached_sinks batched batched_ahead fence neighbours old_snapshot process retire revert scan_order sinks two_migrations verify
ISOLATION_OPTS = --inputdir=test

# Fields that an initializer does not name are zero, on purpose.
PG_CPPFLAGS = -I$(srcdir)/src
PG_CFLAGS = -fvisibility=hidden -Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

# A folder of its own: all extensions share the one that PGXS takes, and our pages have names such as speed.md.
docmoduledir := extension/$(MODULE_big)

$(OBJS): $(wildcard $(srcdir)/src/*.h $(srcdir)/src/*/*.h)

# Out of the tree, objects need folders.
$(shell mkdir -p $(sort $(dir $(OBJS))))

# The install script is checked in, and made of parts. It is written only if it differs: after a
# clone, the ages of files say nothing. Without a change to a part, neither bash nor awk is needed.
all: $(srcdir)/$(SCRIPT)

$(srcdir)/$(SCRIPT): $(srcdir)/sql/assemble $(srcdir)/sql/store_list.awk \
    $(wildcard $(srcdir)/src/*/*.sql $(srcdir)/src/store/tables/*.sql)
	@if command -v bash >/dev/null && command -v awk >/dev/null; then \
	  script=`$(srcdir)/sql/assemble` || exit; \
	  [ "$$script" = "`cat $@ 2>/dev/null`" ] || { echo "making $@"; printf '%s\n' "$$script" >$@; } \
	else echo "no bash or no awk: $@ is taken as it is"; fi

# The layout of the C code, and the list of types that it needs: see test/indent.
.PHONY: indent typedefs
indent:
	$(srcdir)/test/indent
typedefs:
	$(srcdir)/test/indent --typedefs
