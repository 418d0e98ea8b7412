package e2e

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/pkg/verify"
	"github.com/pgshadow/pgshadow/test/pgserver"
	"github.com/pgshadow/pgshadow/test/pgtest"
	"github.com/pgshadow/pgshadow/test/workload"
)

func mustRun(t *testing.T, config migration.Config) migration.Report {
	t.Helper()
	report, err := migration.Run(t.Context(), config)
	if err != nil {
		t.Fatalf("%v (%+v)", err, report.Error)
	}
	return report
}

// dropSlot takes a stopped run's slot away; its walsender may not have ended yet.
func dropSlot(t *testing.T, db *pgtest.DB, stopped migration.Report) {
	t.Helper()
	slot := "pgshadow_" + stopped.RunID
	db.Exec(t, "SELECT pg_terminate_backend(active_pid, 10000) FROM pg_replication_slots WHERE slot_name = $1 AND active", slot)
	db.Exec(t, "SELECT pg_drop_replication_slot($1)", slot)
}

// TestHealingSurvivesAnotherStop loses the slot, and stops the run that heals
// before it could: the next one still knows, even with verification off.
func TestHealingSurvivesAnotherStop(t *testing.T) {
	t.Parallel()
	db := createT(t)
	stopped := stopAt(t, db, migration.CatchUp)
	dropSlot(t, db, stopped)
	db.Exec(t, "UPDATE t SET v = 'missed' WHERE id = 1; DELETE FROM t WHERE id = 2")
	stopAt(t, db, migration.Copy)
	config := tableT(t, db, func(migration.Event) {})
	config.Verify = verify.Off
	mustRun(t, config)
	if got := pgtest.Scalar[string](t, db, "SELECT count(*) || ' ' || count(*) FILTER (WHERE v = 'missed') FROM t"); got != "1999 1" {
		t.Errorf("the table holds %s", got)
	}
}

// TestHealingWithAUniqueIndex: a row that went while there was no slot must not
// stand in the way of the one that took its value.
func TestHealingWithAUniqueIndex(t *testing.T) {
	t.Parallel()
	for _, phase := range []migration.Phase{migration.Index, migration.Cutover} {
		db := pgtest.New(t)
		db.Exec(t, "CREATE TABLE t (id int PRIMARY KEY, v text, u int UNIQUE); INSERT INTO t SELECT i, 'v', i FROM generate_series(1, 2000) i")
		stopped := stopAt(t, db, phase)
		dropSlot(t, db, stopped)
		db.Exec(t, "DELETE FROM t WHERE id = 1; INSERT INTO t VALUES (5000, 'v', 1)")
		requireClean(t, db, mustRun(t, tableT(t, db, func(migration.Event) {})))
	}
}

// TestCleanupWithoutRecords never drops a table that may be the only copy.
func TestCleanupWithoutRecords(t *testing.T) {
	t.Parallel()
	db := createT(t)
	report := mustRun(t, tableT(t, db, func(migration.Event) {}))
	db.Exec(t, "DROP SCHEMA pgshadow CASCADE")
	left, err := migration.Cleanup(t.Context(), login(t, db), false)
	if err != nil || len(left) != 1 || left[0].Removed || len(left[0].Kept) != 1 || !strings.Contains(left[0].Kept[0], "table "+report.RetiredTable) {
		t.Errorf("a schema with a table was taken for a leftover, or it is not told that it stays: %v, %+v", err, left)
	}
	if rows := pgtest.Scalar[int](t, db, "SELECT count(*) FROM "+report.RetiredTable); rows != 2000 {
		t.Errorf("the retired table holds %d rows", rows)
	}
}

// TestRoundingKey changes a numeric key's scale while rows are written: the key
// has another text on the other side.
func TestRoundingKey(t *testing.T) {
	t.Parallel()
	change{spec: workload.NumericKey(), rows: 3000, alters: []string{"ADD COLUMN added boolean"}}.run(t)
	db := pgtest.New(t)
	db.Exec(t, "CREATE TABLE t (id numeric(10,2) PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 2000) i")
	config := tableT(t, db, func(event migration.Event) {
		if e, ok := event.(migration.PhaseStarted); ok && e.Phase == migration.Verify {
			db.Exec(t, "UPDATE t SET v = 'new' WHERE id < 100")
		}
	})
	config.Alters = []string{"ALTER COLUMN id TYPE numeric(14,4)"}
	requireClean(t, db, mustRun(t, config))
}

// TestKeysWhoseTextDependsOnSettings has the login role see dates and bytes in
// formats of its own.
func TestKeysWhoseTextDependsOnSettings(t *testing.T) {
	t.Parallel()
	for _, spec := range []*workload.Spec{workload.TimestamptzKey(), workload.ByteaKey()} {
		change{spec: spec, rows: 1000, alters: []string{"ADD COLUMN added int"}, setup: func(t *testing.T, db *pgtest.DB) {
			db.Exec(t, "ALTER DATABASE "+db.Name+" SET DateStyle = 'SQL, DMY'; ALTER DATABASE "+db.Name+" SET TimeZone = 'Asia/Kolkata'; ALTER DATABASE "+db.Name+" SET bytea_output = 'escape'")
		}}.run(t)
	}
}

// TestReindexDuringTheRun rebuilds an index of the original concurrently: its OID
// changes, the table does not.
func TestReindexDuringTheRun(t *testing.T) {
	t.Parallel()
	db := createT(t)
	requireClean(t, db, mustRun(t, tableT(t, db, func(event migration.Event) {
		if e, ok := event.(migration.PhaseStarted); ok && e.Phase == migration.Verify {
			db.Exec(t, "REINDEX INDEX CONCURRENTLY t_v_idx")
		}
	})))
}

// TestSlotWaitsForATransaction: a transaction that is open for longer than any
// lock_timeout of the run's holds slot creation up, and does not fail it.
func TestSlotWaitsForATransaction(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t, pgserver.Options{})
	db := pgtest.NewOn(t, server)
	db.Exec(t, "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 100) i; CREATE TABLE other (x int)")
	login(t, db) // before its tables are in use
	conn := db.Conn(t)
	if _, err := conn.Exec(t.Context(), "BEGIN; INSERT INTO other VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	report := mustRun(t, tableT(t, db, func(event migration.Event) {
		if e, ok := event.(migration.Waiting); ok && strings.Contains(e.Reason, db.Name) {
			once.Do(func() {
				if _, err := conn.Exec(context.WithoutCancel(t.Context()), "COMMIT"); err != nil {
					t.Error(err)
				}
			})
		}
	}))
	requireClean(t, db, report)
}

// TestLongWriterElsewhereDoesNotHoldUpTheCutover keeps a transaction open that
// writes another table: every new snapshot has its old xmin, and is not old.
func TestLongWriterElsewhereDoesNotHoldUpTheCutover(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t, pgserver.Options{})
	db := pgtest.NewOn(t, server)
	db.Exec(t, "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 100) i; CREATE TABLE other (x int)")
	loginAs(t, db, asMember)
	db.Exec(t, "GRANT pg_read_all_stats TO "+db.Name+"_login") // else every snapshot looks old
	writer, reader := db.Conn(t), db.Conn(t)
	reading, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var readers sync.WaitGroup
	t.Cleanup(func() { stop(); readers.Wait() }) // before the session is closed
	config := tableT(t, db, func(event migration.Event) {
		e, ok := event.(migration.PhaseStarted)
		switch {
		case ok && e.Phase == migration.Copy:
			if _, err := writer.Exec(t.Context(), "BEGIN; INSERT INTO other VALUES (1)"); err != nil {
				t.Error(err)
			}
		case ok && e.Phase == migration.Cutover:
			readers.Go(func() {
				for reading.Err() == nil {
					if _, err := reader.Exec(context.WithoutCancel(reading), "SELECT pg_sleep(0.05)"); err != nil {
						return
					}
				}
			})
		}
	})
	config.Cutover.Attempts = 3
	report := mustRun(t, config)
	if _, err := writer.Exec(t.Context(), "COMMIT"); err != nil {
		t.Error(err)
	}
	requireClean(t, db, report)
}

// TestOldSnapshotHoldsUpTheCutover: a REPEATABLE READ transaction from before the
// copy would find the new table empty; the cutover waits for it and says so.
func TestOldSnapshotHoldsUpTheCutover(t *testing.T) {
	t.Parallel()
	db := createT(t)
	conn := db.Conn(t)
	if _, err := conn.Exec(t.Context(), "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1"); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	waited := ""
	report := mustRun(t, tableT(t, db, func(event migration.Event) {
		if e, ok := event.(migration.AttemptFailed); ok {
			once.Do(func() {
				waited = e.Reason
				if _, err := conn.Exec(context.WithoutCancel(t.Context()), "COMMIT"); err != nil {
					t.Error(err)
				}
			})
		}
	}))
	if !strings.Contains(waited, "has had a snapshot since") {
		t.Errorf("the cutover did not wait: %q", waited)
	}
	requireClean(t, db, report)
}

// TestStoppedInTheMiddleOfAQuery is a clean stop too.
func TestStoppedInTheMiddleOfAQuery(t *testing.T) {
	t.Parallel()
	db := createT(t)
	db.Exec(t, "INSERT INTO t SELECT i, repeat('x', 500) FROM generate_series(10000, 60000) i")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	report, err := migration.Run(ctx, tableT(t, db, func(event migration.Event) {
		if _, ok := event.(migration.ChunkCopied); ok {
			cancel()
		}
	}))
	if err == nil || report.Outcome != migration.Stopped {
		t.Fatalf("not stopped: %v", err)
	}
	requireClean(t, db, mustRun(t, tableT(t, db, func(migration.Event) {})))
}

// TestRenumbering shifts a unique column by one, over more rows than the dirty
// set may hold: every row conflicts with its neighbour until all are replayed.
func TestRenumbering(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, "CREATE TABLE t (id int PRIMARY KEY, pos int UNIQUE); INSERT INTO t SELECT i, i FROM generate_series(1, 50000) i")
	config := tableT(t, db, func(event migration.Event) {
		if e, ok := event.(migration.PhaseStarted); ok && e.Phase == migration.Verify {
			db.Exec(t, "UPDATE t SET pos = pos + 10000000")
			db.Exec(t, "UPDATE t SET pos = pos - 9999999")
		}
	})
	config.Copy.DirtyMemory = 2 << 20
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	report, err := migration.Run(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	requireClean(t, db, report)
	if got := pgtest.Scalar[bool](t, db, "SELECT bool_and(pos = id + 1) FROM t"); !got {
		t.Error("the table was not renumbered")
	}
}
