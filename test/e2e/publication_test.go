package e2e

import (
	"strings"
	"testing"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// TestPublicationOfAllTables: without a slot that may send it the change is made under load, with a warning, and the new
// table is published as the original was.
func TestPublicationOfAllTables(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t SELECT i, i FROM generate_series(1, 1000) i; CREATE PUBLICATION everything FOR ALL TABLES")
	dsn := login(t, db)
	report := mustRun(t, migration.Config{DSN: dsn, Table: "t", Alters: []string{"ALTER COLUMN n TYPE bigint"},
		Observer: migration.ObserverFunc(func(event migration.Event) { // replay inserts, updates and deletes in the published copy
			if started, ok := event.(migration.PhaseStarted); ok && started.Phase == migration.CatchUp {
				db.Exec(t, "INSERT INTO t VALUES (2000, 1); UPDATE t SET n = -n WHERE id < 100; DELETE FROM t WHERE id BETWEEN 100 AND 200; UPDATE t SET id = 3000 WHERE id = 300")
			}
		})})
	if len(report.Warnings) != 2 || !strings.Contains(report.Warnings[0], "publication everything goes on") || !strings.Contains(report.Warnings[1], "everything is FOR ALL TABLES, and no slot sends it now") {
		t.Errorf("it warns %q", report.Warnings)
	}
	if report.KeysReplayed == 0 {
		t.Error("nothing was replayed")
	}
	if n := pgtest.Scalar[int](t, db, "SELECT count(*) FROM pg_publication_tables WHERE pubname = 'everything' AND schemaname = 'public' AND tablename = 't'"); n != 1 {
		t.Errorf("the new table is published %d times", n)
	}
	if sum := pgtest.Scalar[string](t, db, "SELECT format('%s %s %s', count(*), sum(id), sum(n)) FROM t"); sum != "900 490050 475451" {
		t.Errorf("the rows come to %s", sum)
	}
}

// TestSlotForAllTablesMeanwhile: a slot that comes during the run may send the copy to who has no such table. The run
// ends, and names it.
func TestSlotForAllTablesMeanwhile(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t SELECT i, i FROM generate_series(1, 1000) i; CREATE PUBLICATION everything FOR ALL TABLES")
	report, err := migration.Run(t.Context(), migration.Config{DSN: login(t, db), Table: "t", Alters: []string{"ALTER COLUMN n TYPE bigint"},
		Observer: migration.ObserverFunc(func(event migration.Event) {
			if started, ok := event.(migration.PhaseStarted); ok && started.Phase == migration.Index {
				db.Exec(t, "SELECT pg_create_logical_replication_slot($1, 'pgoutput')", db.Name+"_sub")
			}
		})})
	if report.Outcome != migration.Aborted || !strings.Contains(err.Error(), "publication everything (FOR ALL TABLES), which slot "+db.Name+"_sub may send") {
		t.Fatalf("%v, report %+v", err, report)
	}
	db.Exec(t, "SELECT pg_drop_replication_slot($1)", db.Name+"_sub")
	requireNothingLeft(t, db)
}
