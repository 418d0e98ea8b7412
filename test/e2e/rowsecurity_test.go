package e2e

import (
	"strings"
	"testing"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/test/pgtest"
	"github.com/pgshadow/pgshadow/test/workload"
)

// force hides every row of a table from its owner: row security without a policy.
func force(t *testing.T, db *pgtest.DB, table string) {
	t.Helper()
	db.Exec(t, "ALTER TABLE "+table+" ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
}

// TestForcedRowSecurity copies, replays, compares and swaps a table whose owner sees no row of it, for login roles that
// bypass row security.
func TestForcedRowSecurity(t *testing.T) {
	for _, kind := range []string{asSuperuser, asMember} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			spec := workload.Orders()
			change{spec: spec, rows: 3000, alters: []string{"ALTER COLUMN id TYPE bigint"}, setup: func(t *testing.T, db *pgtest.DB) {
				loginAs(t, db, kind)
				if kind == asSuperuser {
					owner := db.Role(t, "owner", "")
					handOver(t, db, owner, owner)
				} else {
					db.Exec(t, "ALTER ROLE "+db.Name+"_login BYPASSRLS")
				}
				force(t, db, spec.Table)
			}}.run(t)
		})
	}
}

// TestForcedRowSecurityStops stops a run of such a table, and removes it: nothing stays behind, and the view that it was
// read by keeps nobody from the original.
func TestForcedRowSecurityStops(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 100) i")
	dsn := loginAs(t, db, asMember)
	db.Exec(t, "ALTER ROLE "+db.Name+"_login BYPASSRLS")
	force(t, db, "t")
	before := pgtest.Dump(t, db)
	stopAt(t, db, migration.Verify)
	if n := pgtest.Scalar[int](t, db, `SELECT count(*) FROM pg_views WHERE schemaname LIKE 'pgshadow\_%\_source' AND viewname = 't' AND viewowner = $1`, db.Name+"_login"); n != 1 {
		t.Errorf("the table is read by %d views", n)
	}
	if removed, err := migration.Cleanup(t.Context(), dsn, false); err != nil || len(removed) != 1 || !removed[0].Removed {
		t.Fatalf("cleanup: %+v, %v", removed, err)
	}
	requireUntouched(t, db, before)
}

// TestForcedRowSecurityIsRefused: somebody must see every row.
func TestForcedRowSecurityIsRefused(t *testing.T) {
	t.Parallel()
	for kind, c := range map[string]struct{ arrange, reason, remedy string }{
		asOwner:     {"", "does not bypass it either", "NO FORCE ROW LEVEL SECURITY"},
		asMember:    {"", "does not bypass it either", "_login\" BYPASSRLS"},
		asNoInherit: {"ALTER ROLE {login} BYPASSRLS", "may not read the table", "GRANT SELECT ON \"public\".\"t\" TO "},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			db.Exec(t, "CREATE TABLE t (id int PRIMARY KEY)")
			config := migration.Config{DSN: loginAs(t, db, kind), Table: "t", Alters: []string{"ADD COLUMN x int"}}
			force(t, db, "t")
			db.Exec(t, strings.ReplaceAll(c.arrange, "{login}", db.Name+"_login"))
			report := refused(t, db, config)
			if report.Error.Check != "row security" || !strings.Contains(report.Error.Message, c.reason) || !strings.Contains(report.Error.Remedy, c.remedy) {
				t.Errorf("refused by %s: %s; %s", report.Error.Check, report.Error.Message, report.Error.Remedy)
			}
		})
	}
}
