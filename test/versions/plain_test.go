package versions

import (
	"strings"
	"testing"

	"github.com/pgshadow/pgshadow/test/pgtest"
)

// sameAsPlain runs the script and the change here, and with a plain ALTER TABLE in a database beside it: the two must be
// alike in schema and rows.
func sameAsPlain(t *testing.T, db *pgtest.DB, script string, alters ...string) {
	t.Helper()
	plain := pgtest.NewOn(t, db.Server())
	db.Exec(t, script)
	plain.Exec(t, script)
	for _, text := range alters {
		plain.Exec(t, "ALTER TABLE t "+text)
	}
	alter(t, db, alters...)
	if got, want := pgtest.Dump(t, db), pgtest.Dump(t, plain); got != want {
		t.Errorf("the schema differs from that after a plain ALTER TABLE:\n%s", difference(want, got))
	}
	const rows = "SELECT coalesce(string_agg(t::text, E'\n' ORDER BY id), '') FROM t"
	if got, want := pgtest.Scalar[string](t, db, rows), pgtest.Scalar[string](t, plain, rows); got != want {
		t.Errorf("the rows differ from those after a plain ALTER TABLE:\n%s", difference(want, got))
	}
}

// difference lists the lines that only one of two texts has.
func difference(want, got string) string {
	only := func(sign, of, than string) (text string) {
		for line := range strings.Lines(of) {
			if !strings.Contains("\n"+than, "\n"+line) {
				text += sign + line
			}
		}
		return text
	}
	return only("- ", want, got) + only("+ ", got, want)
}
