package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/test/pgtest"
	"github.com/pgshadow/pgshadow/test/proxy"
)

const endSessions = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'pgshadow%'"

// disconnected is a run that waits for the server, with all of its sessions gone.
func disconnected(t *testing.T, db *pgtest.DB) *background {
	t.Helper()
	run := launch(t, manual(t, db))
	run.await(t, "wait for the operator", waitingFor(theOperator))
	db.Exec(t, endSessions)
	run.await(t, "wait for the server", waitingFor("the server"))
	return run
}

// TestEndedByAnotherProcess: while one process has lost its connection, another one
// takes the run up and swaps. The first says that it is done.
func TestEndedByAnotherProcess(t *testing.T) {
	t.Parallel()
	db := createT(t)
	first := disconnected(t, db)
	second := mustRun(t, tableT(t, db, func(migration.Event) {}))
	report, err := first.end(t)
	if err != nil || report.Outcome != migration.Done || report.RunID != second.RunID || report.RetiredTable != second.RetiredTable {
		t.Errorf("the first process says %s: %v (%+v)", report.Outcome, err, report)
	}
	requireClean(t, db, second)
}

// TestTakenUpByAnotherProcess: the run is the second process's from then on, also
// when that has been stopped.
func TestTakenUpByAnotherProcess(t *testing.T) {
	t.Parallel()
	db := createT(t)
	first := disconnected(t, db)
	takeUp(t, db)
	requireTaken(t, first)
}

// TestTakenUpJustBeforeTheLock: the same, while the first one is connected again and about
// to ask for the table's lock.
func TestTakenUpJustBeforeTheLock(t *testing.T) {
	t.Parallel()
	db := createT(t)
	config := manual(t, db)
	p, dsn := proxy.New(t, config.DSN, proxy.Held)
	config.DSN = dsn
	first := launch(t, config)
	first.await(t, "wait for the operator", waitingFor(theOperator))
	p.ArmAt("pg_try_advisory_lock")
	db.Exec(t, endSessions)
	first.await(t, "wait for the server", waitingFor("the server"))
	select {
	case <-p.Holding():
	case <-time.After(limit):
		t.Fatal("it does not ask for the lock")
	}
	takeUp(t, db)
	p.Release()
	requireTaken(t, first)
}

// takeUp takes the run up in a second process, and stops that.
func takeUp(t *testing.T, db *pgtest.DB) {
	t.Helper()
	second := launch(t, manual(t, db))
	second.await(t, "phase copy", phaseStart(migration.Copy))
	// The record names this process for both; make it another one's.
	db.Exec(t, "UPDATE pgshadow.run SET pid = pid + 1, host = 'elsewhere'")
	second.stop()
	if report, _ := second.end(t); report.Outcome != migration.Stopped {
		t.Fatalf("the second is %s", report.Outcome)
	}
}

func requireTaken(t *testing.T, first *background) {
	t.Helper()
	report, err := first.end(t)
	if report.Outcome != migration.Stopped || !strings.Contains(err.Error(), "on host elsewhere has taken run") || !strings.Contains(report.Error.State, "pgshadow status") {
		t.Errorf("the first process says %s: %v", report.Outcome, err)
	}
}

// TestSameChangeAfterCleanup: a process was killed after COMMIT, cleanup tidied up,
// and the table was changed back by hand. The same command changes it again.
func TestSameChangeAfterCleanup(t *testing.T) {
	t.Parallel()
	db := createT(t)
	first := mustRun(t, tableT(t, db, func(migration.Event) {}))
	db.Exec(t, "UPDATE pgshadow.run SET phase = 'cutover'")
	if _, err := migration.Finish(t.Context(), login(t, db), "t"); err != nil {
		t.Fatal(err)
	}
	db.Exec(t, "ALTER TABLE t ALTER id TYPE int")
	if second := mustRun(t, tableT(t, db, func(migration.Event) {})); second.RunID == first.RunID || isOriginal(t, db) {
		t.Errorf("the second command did %+v", second)
	}
	// Removed by hand, nothing is left that the record could speak of.
	db.Exec(t, "UPDATE pgshadow.run SET phase = 'cutover'; DO $$ DECLARE s name; BEGIN FOR s IN SELECT nspname FROM pg_namespace WHERE nspname LIKE 'pgshadow\\_%' LOOP EXECUTE format('DROP SCHEMA %I CASCADE', s); END LOOP; END $$")
	db.Exec(t, "ALTER TABLE t ALTER id TYPE int")
	mustRun(t, tableT(t, db, func(migration.Event) {}))
	if isOriginal(t, db) {
		t.Error("the third command changed nothing")
	}
}

// TestAbortOutlivesTheProcess: it was accepted, and the process was killed before it
// had removed anything. The next one does it.
func TestAbortOutlivesTheProcess(t *testing.T) {
	t.Parallel()
	db := createT(t)
	before := pgtest.Dump(t, db, "--no-publications")
	stopAt(t, db, migration.Index)
	db.Exec(t, `UPDATE pgshadow.run SET steering = '{"aborted": "somebody"}'`)
	report, err := migration.Run(t.Context(), tableT(t, db, func(migration.Event) {}))
	if report.Outcome != migration.Aborted || !strings.Contains(err.Error(), "aborted by somebody") {
		t.Errorf("the run is %s: %v", report.Outcome, err)
	}
	requireUntouched(t, db, before)
}

// TestReleaseIsForOneProcess: attempts that were released are used up. The next
// process waits for the operator again.
func TestReleaseIsForOneProcess(t *testing.T) {
	t.Parallel()
	db := createT(t)
	holder := db.Conn(t)
	config := manual(t, db)
	config.Cutover.Attempts = 1
	run := launch(t, config)
	run.await(t, "wait for the operator", waitingFor(theOperator))
	if _, err := holder.Exec(t.Context(), "BEGIN; LOCK TABLE t IN ROW EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	run.command(t, db, migration.CommandCutover, "")
	if report, err := run.end(t); report.Outcome != migration.Stopped {
		t.Fatalf("the run is %s: %v", report.Outcome, err)
	}
	if _, err := holder.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	run = launch(t, manual(t, db))
	run.await(t, "wait for the operator", waitingFor(theOperator))
	if statusOf(t, db).CutoverReleased {
		t.Error("the cutover is still released")
	}
	run.command(t, db, migration.CommandCutover, "")
	requireClean(t, db, run.done(t))
}

// TestManualAgain: attempts have begun, and the operator wants to release them after
// all.
func TestManualAgain(t *testing.T) {
	t.Parallel()
	db := createT(t)
	holder := db.Conn(t)
	if _, err := holder.Exec(t.Context(), "BEGIN; LOCK TABLE t IN ACCESS SHARE MODE"); err != nil {
		t.Fatal(err)
	}
	run := launch(t, tableT(t, db, nil))
	run.await(t, "failed attempt", func(event migration.Event) bool {
		_, ok := event.(migration.AttemptFailed)
		return ok
	})
	run.command(t, db, migration.CommandSet, "cutover=manual")
	if _, err := holder.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	run.await(t, "wait for the operator", waitingFor(theOperator))
	if !isOriginal(t, db) {
		t.Error("the tables were swapped")
	}
	run.command(t, db, migration.CommandCutover, "")
	requireClean(t, db, run.done(t))
}

// TestExclusiveLockWhileWaiting: somebody has the original exclusively for longer
// than any lock is waited for, when the run looks whether it was changed.
func TestExclusiveLockWhileWaiting(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, "CREATE TABLE t (id int PRIMARY KEY, v text DEFAULT 'd' || 'e' CHECK (v <> 'q')); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 2000) i")
	run := launch(t, manual(t, db))
	run.await(t, "wait for the operator", waitingFor(theOperator))
	holder := db.Conn(t)
	if _, err := holder.Exec(t.Context(), "SET application_name = 'vacuum full'; BEGIN; LOCK TABLE t"); err != nil {
		t.Fatal(err)
	}
	run.await(t, "the holder's name", func(event migration.Event) bool {
		e, ok := event.(migration.Waiting)
		return ok && strings.Contains(e.For, "was changed") && strings.Contains(e.Reason, "vacuum full")
	})
	if _, err := holder.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	run.command(t, db, migration.CommandCutover, "")
	requireClean(t, db, run.done(t))
}

// TestAnotherServersSlot: the run was recorded on another server or timeline, as
// after a failover that took the slot along. It is not trusted.
func TestAnotherServersSlot(t *testing.T) {
	t.Parallel()
	db := createT(t)
	stopAt(t, db, migration.Verify)
	db.Exec(t, "UPDATE t SET v = 'missed' WHERE id <= 10; UPDATE pgshadow.run SET server = '1/2'")
	// The slot is ahead of the shadow.
	db.Exec(t, "SELECT pg_replication_slot_advance(slot_name, pg_current_wal_lsn()) FROM pg_replication_slots WHERE database = current_database()")
	report := mustRun(t, tableT(t, db, func(migration.Event) {}))
	if report.Healed < 10 {
		t.Errorf("healed %d rows", report.Healed)
	}
	requireClean(t, db, report)
	if n := pgtest.Scalar[int](t, db, "SELECT count(*) FROM t WHERE v = 'missed'"); n != 10 {
		t.Errorf("%d rows got through", n)
	}
}

// TestEventTriggerInTheSwap raises in the middle of the swap: that is no row that
// the new schema refuses, so the copy is kept.
func TestEventTriggerInTheSwap(t *testing.T) {
	t.Parallel()
	db := createT(t)
	db.Exec(t, `CREATE FUNCTION no() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no DDL by day'; END $$`)
	var once bool
	config := tableT(t, db, func(event migration.Event) {
		if e, ok := event.(migration.PhaseStarted); ok && e.Phase == migration.Cutover && !once {
			once = true
			db.Exec(t, "CREATE EVENT TRIGGER no ON ddl_command_start EXECUTE FUNCTION no()")
		}
	})
	report, err := migration.Run(t.Context(), config)
	if report.Outcome != migration.Failed || !strings.Contains(err.Error(), "no DDL by day") || statusOf(t, db).RunID != report.RunID {
		t.Errorf("the run is %s: %v", report.Outcome, err)
	}
	db.Exec(t, "DROP EVENT TRIGGER no")
	requireClean(t, db, mustRun(t, tableT(t, db, func(migration.Event) {})))
}
