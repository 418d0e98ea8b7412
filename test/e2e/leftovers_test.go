package e2e

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/pkg/shadow"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// stopAt runs a change and stops it, as a signal would, at the start of a phase.
func stopAt(t *testing.T, db *pgtest.DB, phase migration.Phase) migration.Report {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	report, err := migration.Run(ctx, tableT(t, db, func(event migration.Event) {
		if e, ok := event.(migration.PhaseStarted); ok && e.Phase == phase {
			cancel()
		}
	}))
	if err == nil || report.Outcome != migration.Stopped || report.ExitCode != 5 {
		t.Fatalf("not stopped: %v, report %+v", err, report)
	}
	return report
}

func tableT(t *testing.T, db *pgtest.DB, observe func(migration.Event)) migration.Config {
	return migration.Config{DSN: login(t, db), Table: "t", Alters: []string{"ALTER COLUMN id TYPE bigint"}, Observer: migration.ObserverFunc(observe)}
}

func createT(t *testing.T) *pgtest.DB {
	db := pgtest.New(t)
	db.Exec(t, "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 2000) i; CREATE INDEX ON t (v)")
	login(t, db)
	return db
}

// TestStoppedRunResumes stops a run at the start of each phase; the same command
// takes it up and ends it, with writes made in between.
func TestStoppedRunResumes(t *testing.T) {
	for _, phase := range []migration.Phase{migration.Copy, migration.Index, migration.CatchUp, migration.Verify, migration.Cutover} {
		t.Run(phase.String(), func(t *testing.T) {
			t.Parallel()
			db := createT(t)
			stopped := stopAt(t, db, phase)
			db.Exec(t, "UPDATE t SET v = 'later' WHERE id < 10; DELETE FROM t WHERE id = 11; INSERT INTO t VALUES (5000, 'new')")
			var resumed migration.RunStarted
			report, err := migration.Run(t.Context(), tableT(t, db, func(event migration.Event) {
				if e, ok := event.(migration.RunStarted); ok {
					resumed = e
				}
			}))
			if err != nil {
				t.Fatal(err)
			}
			if !resumed.Resumed || report.RunID != stopped.RunID {
				t.Errorf("run %s was not resumed: %+v", stopped.RunID, resumed)
			}
			requireClean(t, db, report)
			if got := pgtest.Scalar[string](t, db, "SELECT count(*) || ' ' || count(*) FILTER (WHERE v = 'later') || ' ' || max(id) FROM t"); got != "2000 9 5000" {
				t.Errorf("the table holds %s", got)
			}
		})
	}
}

// TestLostSlotHeals drops the slot of a stopped run: what it missed is found by
// the full comparison, and nothing is lost.
func TestLostSlotHeals(t *testing.T) {
	t.Parallel()
	db := createT(t)
	stopped := stopAt(t, db, migration.Cutover)
	dropSlot(t, db, stopped)
	db.Exec(t, "UPDATE t SET v = 'missed' WHERE id < 10; DELETE FROM t WHERE id = 11; INSERT INTO t VALUES (5000, 'missed')")
	report, err := migration.Run(t.Context(), tableT(t, db, func(migration.Event) {}))
	if err != nil {
		t.Fatal(err)
	}
	if report.Healed < 11 {
		t.Errorf("healed %d rows, want the 11 that were missed", report.Healed)
	}
	if got := pgtest.Scalar[string](t, db, "SELECT count(*) || ' ' || count(*) FILTER (WHERE v = 'missed') FROM t"); got != "2000 10" {
		t.Errorf("the table holds %s", got)
	}
}

func TestAnotherChangeIsRefusedWhileOneIsOpen(t *testing.T) {
	t.Parallel()
	db := createT(t)
	stopped := stopAt(t, db, migration.Index)
	config := tableT(t, db, func(migration.Event) {})
	config.Alters = []string{"ADD COLUMN x int"}
	report, err := migration.Run(t.Context(), config)
	if err == nil || report.ExitCode != 3 || report.Error.Check != "unfinished run" || !strings.Contains(report.Error.Message, stopped.RunID) {
		t.Fatalf("not refused: %v", err)
	}
	config.Restart = true
	if report, err = migration.Run(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	requireClean(t, db, report)
}

// TestSecondProcessIsToldWhoRunsTheFirst starts a run while another works on the
// table.
func TestSecondProcessIsToldWhoRunsTheFirst(t *testing.T) {
	t.Parallel()
	db := createT(t)
	var once sync.Once
	report, err := migration.Run(t.Context(), tableT(t, db, func(event migration.Event) {
		if e, ok := event.(migration.PhaseStarted); ok && e.Phase == migration.Copy {
			once.Do(func() {
				second, err := migration.Run(t.Context(), tableT(t, db, func(migration.Event) {}))
				if err == nil || second.ExitCode != 3 || second.Error.Check != "second run" || !strings.Contains(second.Error.Message, "process ") {
					t.Errorf("the second was not refused: %v", err)
				}
				listed, err := migration.Cleanup(t.Context(), login(t, db), false)
				if err != nil || len(listed) != 1 || listed[0].State != "live" || listed[0].Removed {
					t.Errorf("cleanup of a live run: %+v, %v", listed, err)
				}
			})
		}
	}))
	if err != nil {
		t.Fatal(err)
	}
	requireClean(t, db, report)
}

// TestCleanup lists what a stopped run left, removes it, and touches neither the
// original nor a retired table; finish drops that.
func TestCleanup(t *testing.T) {
	t.Parallel()
	db := createT(t)
	before := pgtest.Dump(t, db)
	stopped := stopAt(t, db, migration.Verify)
	for _, dryRun := range []bool{true, false} {
		listed, err := migration.Cleanup(t.Context(), login(t, db), dryRun)
		if err != nil {
			t.Fatal(err)
		}
		if len(listed) != 1 || listed[0].RunID != stopped.RunID || listed[0].Table != "public.t" || len(listed[0].Artifacts) != 5 ||
			listed[0].State != "unfinished" || listed[0].Removed == dryRun {
			t.Errorf("listed %+v", listed)
		}
	}
	requireUntouched(t, db, before)

	report, err := migration.Run(t.Context(), tableT(t, db, func(migration.Event) {}))
	if err != nil {
		t.Fatal(err)
	}
	listed, err := migration.Cleanup(t.Context(), login(t, db), false)
	if err != nil || len(listed) != 1 || listed[0].State != "retired" || listed[0].Removed {
		t.Errorf("cleanup with a retired table: %+v, %v", listed, err)
	}
	if rows := pgtest.Scalar[int](t, db, "SELECT count(*) FROM "+report.RetiredTable); rows != 2000 {
		t.Errorf("the retired table holds %d rows", rows)
	}
	if removed, err := migration.Finish(t.Context(), login(t, db), "t"); err != nil || len(removed) != 1 || !removed[0].Removed {
		t.Errorf("finish: %+v, %v", removed, err)
	}
	var refusal *shadow.Refusal
	if _, err := migration.Finish(t.Context(), login(t, db), "t"); !errors.As(err, &refusal) {
		t.Errorf("the second finish: %v", err)
	}
	if left, err := migration.Cleanup(t.Context(), login(t, db), true); err != nil || len(left) != 0 {
		t.Errorf("left: %+v, %v", left, err)
	}
}
