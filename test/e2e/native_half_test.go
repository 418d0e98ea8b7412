package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// halfMade stops a native run when its index is about to be built.
func halfMade(t *testing.T, db *pgtest.DB, config migration.Config) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	config.Observer = duringBuild(stop)
	if _, err := migration.Run(ctx, config); !errors.Is(err, context.Canceled) {
		t.Fatalf("not stopped: %v", err)
	}
}

// TestHalfUndone: a run that is being taken back is not gone on with.
func TestHalfUndone(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, nativeSchema)
	config := migration.Config{DSN: login(t, db), Table: "t", Alters: []string{"ADD COLUMN z int CHECK (z <> 1), ADD CONSTRAINT mine CHECK (b > 0), ADD UNIQUE (b)"}, Native: migration.NativeOnly}
	halfMade(t, db, config)
	// The constraints go first. Then the column is to be looked at, and somebody is in the way.
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	left := func() int {
		return pgtest.Scalar[int](t, db, "SELECT count(*) FROM pg_constraint WHERE conrelid = 't'::regclass AND conname IN ('mine', 't_z_check')")
	}
	reader := db.Conn(t)
	mustExec(t, reader, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM other")
	cleaning := make(chan error, 1)
	go func() {
		_, err := migration.Cleanup(ctx, config.DSN, false)
		cleaning <- err
	}()
	const building = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'CREATE INDEX CONCURRENTLY%' AND wait_event_type = 'Lock'"
	for pgtest.Scalar[int](t, db, building) == 0 {
		if t.Context().Err() != nil {
			t.Fatal("the guard is not built")
		}
	}
	stop()
	if err := <-cleaning; err == nil || left() != 0 {
		t.Fatalf("not stopped in the middle: %v, %d constraints are left", err, left())
	}
	mustExec(t, reader, "COMMIT")
	report := mustRun(t, config)
	if left() != 2 || pgtest.Scalar[int](t, db, "SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'z'") != 1 {
		t.Errorf("done, and not all of it is there: %+v", report)
	}
	requireNothingLeft(t, db)
}

// TestUndoByTheTableItself: what is taken back is that of the table by its OID, whatever
// has become of its name, and of its owner.
func TestUndoByTheTableItself(t *testing.T) {
	t.Parallel()
	for name, meanwhile := range map[string]string{
		"renamed": "ALTER TABLE t RENAME TO t_old; CREATE TABLE t (LIKE t_old INCLUDING ALL); INSERT INTO t (id, nn, z) VALUES (1, 1, 5)",
		"moved":   "CREATE SCHEMA s2; ALTER TABLE t SET SCHEMA s2",
		"dropped": "DROP TABLE t",
		"code":    "DO $$ BEGIN EXECUTE (SELECT 'DROP SCHEMA ' || nspname || ' CASCADE' FROM pg_namespace WHERE nspname LIKE 'pgshadow%code'); END $$",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			db.Exec(t, nativeSchema)
			config := migration.Config{DSN: db.DSN, Table: "t", Alters: []string{"ADD COLUMN z int CHECK (z <> 1), ADD UNIQUE (b)"}, Native: migration.NativeOnly}
			oid := pgtest.Scalar[uint32](t, db, "SELECT 't'::regclass::oid")
			halfMade(t, db, config)
			db.Exec(t, meanwhile)
			left, err := migration.Cleanup(t.Context(), db.DSN, false)
			if err != nil || len(left) != 1 || !left[0].Removed {
				t.Fatalf("%v: %+v", err, left)
			}
			if n := pgtest.Scalar[int](t, db, fmt.Sprintf("SELECT count(*) FROM pg_attribute WHERE attrelid = %d AND attname = 'z'", oid)); n != 0 {
				t.Error("the column is still there")
			}
			if name == "renamed" {
				if got := pgtest.Scalar[string](t, db, "SELECT count(z) || ' ' || (SELECT count(*) FROM pg_constraint WHERE conrelid = 't'::regclass AND conname = 't_z_check') FROM t"); got != "1 1" {
					t.Errorf("of the other table there is %s", got)
				}
			}
			if n := pgtest.Scalar[int](t, db, "SELECT count(*) FROM pg_class WHERE relname LIKE 'pgshadow%'"); n != 0 {
				t.Error("an index is left")
			}
			requireNothingLeft(t, db)
		})
	}
}

// TestColumnsThatAreKept: values that are not what the rows were given, although they
// compare as equal, and what somebody has made of the column.
func TestColumnsThatAreKept(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ column, write string }{
		"composite":        {"z pair CHECK (z IS NULL OR id > 0)", "UPDATE t SET z = ROW(7, NULL) WHERE id = 5"},
		"equal, not alike": {"z text COLLATE anycase DEFAULT 'abc' CHECK (z > '')", "UPDATE t SET z = 'ABC' WHERE id = 5"},
		"a type of theirs": {"z pair DEFAULT ROW(1, NULL) CHECK (z IS NULL OR id > 0)", ""},
		"json":             {`z json DEFAULT '{"a": 1}' CHECK (z IS NOT NULL)`, `UPDATE t SET z = '{"a":  1}' WHERE id = 5`},
		"index":            {"z int CHECK (z > 0)", "CREATE INDEX mine ON t (n, z)"},
		"check":            {"z int CHECK (z > 0)", "ALTER TABLE t ADD CONSTRAINT mine CHECK (z < 100)"},
		"sequence":         {"z int CHECK (z > 0)", "CREATE SEQUENCE mine OWNED BY t.z"},
		"child":            {"z int CHECK (z > 0)", "CREATE TABLE child () INHERITS (t)"},
		"view":             {"z int CHECK (z > 0)", "CREATE VIEW mine AS SELECT z FROM t"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			db.Exec(t, nativeSchema+"; CREATE TYPE pair AS (a int, b int); CREATE COLLATION anycase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
			config := migration.Config{DSN: db.DSN, Table: "t", Alters: []string{"ADD COLUMN " + c.column + ", ADD UNIQUE (b)"}, Native: migration.NativeOnly}
			halfMade(t, db, config)
			db.Exec(t, c.write)
			done, err := migration.Command(t.Context(), db.DSN, "t", migration.CommandAbort, "")
			if err != nil || !strings.Contains(done.Answer, `column "z"`) {
				t.Errorf("%v: %+v", err, done)
			}
			if n := pgtest.Scalar[int](t, db, "SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'z'"); n != 1 {
				t.Error("the column is gone")
			}
			requireNothingLeft(t, db)
		})
	}
}

// TestColumnsThatAreDropped: nobody has written to them, whatever rows were given.
func TestColumnsThatAreDropped(t *testing.T) {
	t.Parallel()
	for _, column := range []string{"z box DEFAULT '((1,1),(0,0))'", "z int[] DEFAULT '{1,2}'", "z char(5) DEFAULT 'a'", "z timestamptz DEFAULT now()", `z text DEFAULT 'a"b\c,{}'`, "z int NOT NULL DEFAULT 3", "z json"} {
		t.Run(column, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			db.Exec(t, nativeSchema+"; CREATE TYPE pair AS (a int, b int)")
			before := pgtest.Dump(t, db)
			config := migration.Config{DSN: db.DSN, Table: "t", Alters: []string{"ADD COLUMN " + column + " CHECK (z IS NULL OR true), ADD UNIQUE (n)"}, Native: migration.NativeOnly}
			if report, err := migration.Run(t.Context(), config); err == nil || report.Outcome != migration.Aborted || !strings.Contains(report.Error.State, "is as it was") {
				t.Errorf("%v, report %+v", err, report)
			}
			if after := pgtest.Dump(t, db); after != before {
				t.Errorf("left behind:\n%s", lineDiff(before, after))
			}
			requireNothingLeft(t, db)
		})
	}
}

// TestDoneOnce: a run that was killed after its last step is done, and the same alter makes
// nothing twice.
func TestDoneOnce(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, nativeSchema)
	config := migration.Config{DSN: login(t, db), Table: "t", Alters: []string{"ADD UNIQUE (b)"}, Native: migration.NativeAuto}
	plan, err := migration.Plan(t.Context(), migration.PlanConfig{Config: config})
	if err != nil {
		t.Fatal(err)
	}
	config.Expect = &plan
	first := mustRun(t, config)
	// As if it had not been given the time to clean up.
	db.Exec(t, "UPDATE pgshadow.run SET phase = 'native'; CREATE SCHEMA pgshadow_"+first.RunID+"_code")
	again := mustRun(t, config)
	if n := pgtest.Scalar[int](t, db, "SELECT count(*) FROM pg_constraint WHERE conrelid = 't'::regclass AND contype = 'u'"); n != 1 || again.RunID != first.RunID || again.Method != "native" {
		t.Errorf("%d constraints, report %+v", n, again)
	}
}
