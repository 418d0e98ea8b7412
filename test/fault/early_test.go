package fault

import (
	"slices"
	"testing"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/test/pgtest"
	"github.com/pgshadow/pgshadow/test/proxy"
)

// TestLostBeforeTheTableIsFound loses the connection that reads the table's name, before any event: that is no refusal
// of the name.
func TestLostBeforeTheTableIsFound(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, "CREATE TABLE orders (id integer PRIMARY KEY)")
	change, err := parsed()
	if err != nil {
		t.Fatal(err)
	}
	p, dsn := proxy.New(t, db.DSN, proxy.Before)
	p.ArmAt("parse_ident")
	report, err := migration.Run(t.Context(), task{DSN: dsn, Change: change}.config())
	if !p.Done() {
		t.Fatal("no connection was cut")
	}
	if !slices.Contains([]migration.Outcome{migration.Stopped, migration.Done}, report.Outcome) {
		t.Errorf("the run is told to be %s: %v", report.Outcome, err)
	}
}
