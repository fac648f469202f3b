# Turns the DDL of src/store/tables into the rows of mako_store_object(): one for each object, with
# the statements that create it. Objects of one rank keep the order in which they are read.

function fail(what) {
  print FILENAME ":" FNR ": " what >"/dev/stderr"
  exit failed = 1
}

# Keys come before the foreign keys that refer to them. What calls the extension comes last, and goes
# with it.
function rank_of(kind, text) {
  if (kind == "function") return 1
  if (kind == "table") return 2
  if (kind == "view") return 3
  if (kind == "trigger") return 9
  if (text ~ /@extschema@/) return 8
  if (text ~ /^[^(]*[ \n]PRIMARY KEY/) return 4
  if (text ~ /^[^(]*[ \n]UNIQUE/) return 5
  if (text ~ /^[^(]*[ \n]CHECK/) return 6
  if (text ~ /^[^(]*[ \n]FOREIGN KEY/) return 7
  fail("unknown kind of constraint")
}

function begin_object() {
  finish_object()
  kind = tolower($2)
  name = relation = $3
  if ($1 == "ALTER" && kind == "table" && $4 == "ADD" && $5 == "CONSTRAINT") {
    kind = "constraint"
    name = $6
  }
  else if ($1 != "CREATE" || kind !~ /^(function|table|trigger|view)$/)
    fail("unknown statement")
  sub(/\(.*/, "", relation)
  if (kind != "trigger" && relation !~ /^mako\./)
    fail("not in schema mako")
  sub(/^mako\./, "", relation)
  sub(/^mako\./, "", name)
  sub(/\(.*/, "", name)
}

function finish_object(   rank, row) {
  if (text == "") return
  sub(/;$/, "", text)
  if (kind == "trigger") {
    if (!match(text, / ON mako\.[a-z_]+/))
      fail("the trigger before is on no table of schema mako")
    relation = substr(text, RSTART + 9, RLENGTH - 9)
  }
  rank = rank_of(kind, text)
  row = "'" kind "', '" relation "', '" name "',"
  if (kind == "constraint") {
    gsub(/\n/, "\n        ", text)
    row = row "\n     $$ " text " $$"
  }
  else if (kind == "view") {
    # The option is for versions that have it, as mako_store_object() finds out.
    gsub(/%/, "%%", text)
    if (!sub(/ WITH \(security_invoker = true\) AS/, " %1$s AS", text))
      fail("the view before is not WITH (security_invoker = true)")
    row = row " pg_catalog.format($$\n" text " $$, v.invoker)"
  }
  else
    row = row " $$\n" text " $$"
  rows[rank, ++count[rank]] = row
  text = ""
}

FNR == 1 {
  if (is_open) fail("the last statement of the file before has no end")
  finish_object()
}
!is_open && (/^$/ || /^--/) { next }
!is_open && (!/^COMMENT ON / || text == "") { begin_object() }
/\$\$/ { fail("$$ would end the definition") }

{
  text = text (text == "" ? "" : "\n") $0
  is_open = !/;$/
}

END {
  if (failed) exit 1
  if (is_open) fail("the last statement has no end")
  finish_object()
  for (rank = 1; rank <= 9; rank++)
    for (i = 1; i <= count[rank]; i++) {
      printf "%s    (%d, %s)", (ordinal > 0 ? ",\n" : ""), ordinal + 1, rows[rank, i]
      ordinal++
    }
  print ""
}
