package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/test/pgserver"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

func attemptFailed(reason string) func(migration.Event) bool {
	return func(event migration.Event) bool {
		e, ok := event.(migration.AttemptFailed)
		return ok && strings.Contains(e.Reason, reason)
	}
}

// TestSnapshotFromBeforeTheCopy: a transaction that has not touched the table would find
// none of the copied rows in the new one. The swap waits for its end, and until then it
// sees the table as it was when it began (hazard H34).
func TestSnapshotFromBeforeTheCopy(t *testing.T) {
	for _, level := range []string{"REPEATABLE READ", "SERIALIZABLE"} {
		t.Run(level, func(t *testing.T) {
			t.Parallel()
			db := pgtest.NewOn(t, pgtest.NewServer(t, pgserver.Options{}))
			db.Exec(t, "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 2000) i; CREATE TABLE other (n int)")
			config := tableT(t, db, nil)
			config.Cutover.LockTimeout = time.Minute
			old := db.Conn(t)
			mustExec(t, old, "BEGIN ISOLATION LEVEL "+level+"; TABLE other")
			db.Exec(t, "UPDATE t SET v = 'later' WHERE id <= 10; DELETE FROM t WHERE id = 2000")
			run := launch(t, config)
			run.await(t, "attempt that is put off", attemptFailed("has had a snapshot since"))
			if !isOriginal(t, db) {
				t.Error("the tables were swapped")
			}
			if got, err := text(t.Context(), old, "SELECT count(*), count(*) FILTER (WHERE v = 'v'), max(id) FROM t; COMMIT"); err != nil || got != "2000|2000|2000\n" {
				t.Errorf("the old snapshot has %q, %v", got, err)
			}
			requireClean(t, db, run.done(t))
			if got, err := text(t.Context(), old, "SELECT count(*), count(*) FILTER (WHERE v = 'v'), max(id) FROM t"); err != nil || got != "1999|1989|1999\n" {
				t.Errorf("the table holds %q, %v", got, err)
			}
		})
	}
}

// TestSnapshotBetweenCopyAndSwap: a transaction with a snapshot of a table that is in step
// sees just that after the swap, and cannot overwrite what it does not see.
func TestSnapshotBetweenCopyAndSwap(t *testing.T) {
	for _, level := range []string{"REPEATABLE READ", "SERIALIZABLE"} {
		t.Run(level, func(t *testing.T) {
			t.Parallel()
			db := pgtest.NewOn(t, pgtest.NewServer(t, pgserver.Options{}))
			db.Exec(t, "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 2000) i; CREATE TABLE other (n int)")
			login(t, db)
			run := launch(t, manual(t, db))
			run.await(t, "wait for the operator", waitingFor(theOperator))
			between := db.Conn(t)
			mustExec(t, between, "BEGIN ISOLATION LEVEL "+level+"; TABLE other")
			db.Exec(t, "UPDATE t SET v = 'later' WHERE id <= 10; DELETE FROM t WHERE id = 2000; INSERT INTO t VALUES (2001, 'new')")
			run.command(t, db, migration.CommandCutover, "")
			requireClean(t, db, run.done(t))
			if got, err := text(t.Context(), between, "SELECT count(*), count(*) FILTER (WHERE v = 'v'), max(id) FROM t"); err != nil || got != "2000|2000|2000\n" {
				t.Errorf("the snapshot has %q, %v", got, err)
			}
			for _, sql := range []string{"UPDATE t SET v = 'lost' WHERE id = 1", "DELETE FROM t WHERE id = 2000", "INSERT INTO t VALUES (2001, 'x') ON CONFLICT (id) DO UPDATE SET v = 'lost'", "SELECT FROM t WHERE id = 2 FOR UPDATE"} {
				mustExec(t, between, "SAVEPOINT s")
				if got, err := text(t.Context(), between, sql); sqlState(err) != "40001" {
					t.Errorf("%s: %q, %v", sql, got, err)
				}
				mustExec(t, between, "ROLLBACK TO s")
			}
			mustExec(t, between, "ROLLBACK")
			if got, err := text(t.Context(), between, "SELECT count(*), count(*) FILTER (WHERE v = 'v'), max(id) FROM t"); err != nil || got != "2000|1989|2001\n" {
				t.Errorf("the table holds %q, %v", got, err)
			}
		})
	}
}

// TestOpenCursors: the swap waits for a transaction that reads through a cursor, whose rows
// are those of the moment when it was opened. One WITH HOLD outlives the swap.
func TestOpenCursors(t *testing.T) {
	t.Parallel()
	// Where others write, a role that does not see their transactions takes the cursor's for an older one.
	db := pgtest.NewOn(t, pgtest.NewServer(t, pgserver.Options{}))
	db.Exec(t, "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 2000) i")
	login(t, db)
	cursors := map[string]*pgx.Conn{"WITHOUT HOLD": db.Conn(t), "WITH HOLD": db.Conn(t)}
	read := map[string]string{}
	fetch := func(hold string, rows int) {
		t.Helper()
		got, err := text(t.Context(), cursors[hold], fmt.Sprintf("FETCH %d FROM c", rows))
		if err != nil {
			t.Fatal(err)
		}
		read[hold] += got
	}
	config := manual(t, db)
	config.Cutover.LockTimeout = 50 * time.Millisecond
	run := launch(t, config)
	run.await(t, "wait for the operator", waitingFor(theOperator))
	want, err := text(t.Context(), db.Conn(t), "SELECT id, v FROM t ORDER BY id")
	if err != nil {
		t.Fatal(err)
	}
	for hold, conn := range cursors {
		mustExec(t, conn, "BEGIN; DECLARE c CURSOR "+hold+" FOR SELECT id, v FROM t ORDER BY id")
		fetch(hold, 700)
	}
	mustExec(t, cursors["WITH HOLD"], "COMMIT")
	db.Exec(t, "UPDATE t SET v = 'later' WHERE id > 1000; DELETE FROM t WHERE id = 1999")
	run.command(t, db, migration.CommandCutover, "")
	run.await(t, "attempt without a lock", attemptFailed(fmt.Sprintf("it is locked by pid %d", cursors["WITHOUT HOLD"].PgConn().PID())))
	fetch("WITHOUT HOLD", 2000)
	mustExec(t, cursors["WITHOUT HOLD"], "COMMIT")
	requireClean(t, db, run.done(t))
	fetch("WITH HOLD", 2000)
	for hold, got := range read {
		if got != want {
			t.Errorf("the cursor %s read other rows than there were when it was opened", hold)
		}
	}
}
