package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/shadow"
	"github.com/pgshadow/pgshadow/test/pgserver"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// TestLostConnectionsAreRecovered ends sessions of a run in each phase: it takes
// itself up again and ends well, in the same process, with no write lost.
func TestLostConnectionsAreRecovered(t *testing.T) {
	for _, session := range []string{"control", "% stream", "% replay", "% copy %", "% verify %", "% watch", "% steer", "% checkpoint", "%"} {
		t.Run(strings.Trim(session, "% "), func(t *testing.T) {
			t.Parallel()
			db := createT(t)
			ended := 0
			end := func() {
				ended += pgtest.Scalar[int](t, db, "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'pgshadow ' || $1", session)
				db.Exec(t, "UPDATE t SET v = v || 'x' WHERE id % 10 = 0")
			}
			var runs []string
			config := tableT(t, db, nil)
			config.Copy.ChunkTime = time.Millisecond
			at := map[string]bool{}
			once := func(point string) {
				if !at[point] {
					at[point] = true
					end()
				}
			}
			run := launch(t, config)
			run.await(t, "swap", func(event migration.Event) bool {
				switch e := event.(type) {
				case migration.RunStarted:
					runs = append(runs, e.RunID)
				case migration.ChunkCopied:
					once("chunk")
				case migration.PhaseStarted:
					if e.Phase > migration.Copy && e.Phase < migration.CleanUp {
						once(e.Phase.String())
					}
				case migration.Swapped:
					return true
				}
				return false
			})
			report := run.done(t)
			requireClean(t, db, report)
			if ended == 0 {
				t.Error("no session was ended")
			}
			for _, id := range runs {
				if id != report.RunID {
					t.Errorf("the run went on as %s", id)
				}
			}
			if got := pgtest.Scalar[string](t, db, "SELECT string_agg(DISTINCT v, ' ') FROM t WHERE id % 10 = 0"); got != "v"+strings.Repeat("x", len(at)) {
				t.Errorf("the rows hold %q after %d updates", got, len(at))
			}
		})
	}
}

// TestServerRestart stops the server as a crash would, in the middle of a run, and
// starts it again.
func TestServerRestart(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t, pgserver.Options{})
	db := pgtest.NewOn(t, server)
	db.Exec(t, "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 2000) i; CREATE INDEX ON t (v)")
	run := launch(t, tableT(t, db, nil))
	run.await(t, "phase verify", phaseStart(migration.Verify))
	if err := server.Stop(pgserver.Immediate); err != nil {
		t.Fatal(err)
	}
	run.await(t, "wait for the server", waitingFor("the server"))
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	requireClean(t, db, run.done(t))
}

// TestServerStaysAway: a run gives up after ReconnectFor, resumable.
func TestServerStaysAway(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t, pgserver.Options{})
	db := pgtest.NewOn(t, server)
	db.Exec(t, "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 2000) i; CREATE INDEX ON t (v)")
	config := tableT(t, db, nil)
	config.ReconnectFor = time.Second
	run := launch(t, config)
	run.await(t, "phase index", phaseStart(migration.Index))
	if err := server.Stop(pgserver.Fast); err != nil {
		t.Fatal(err)
	}
	report, err := run.end(t)
	if report.Outcome != migration.Stopped || report.ExitCode != 5 || !strings.Contains(err.Error(), "could not be taken up again within 1s") {
		t.Errorf("the run is %s: %v", report.Outcome, err)
	}
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	requireClean(t, db, mustRun(t, tableT(t, db, func(migration.Event) {})))
}

// TestRemovedWhileTheConnectionWasLost: another session removes the run when its
// process has lost the lock. It must not begin anew.
func TestRemovedWhileTheConnectionWasLost(t *testing.T) {
	t.Parallel()
	db := createT(t)
	before := pgtest.Dump(t, db, "--no-publications")
	run := launch(t, manual(t, db))
	run.await(t, "wait for the operator", waitingFor(theOperator))
	db.Exec(t, "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'pgshadow%'")
	run.await(t, "wait for the server", waitingFor("the server"))
	if _, err := migration.Cleanup(t.Context(), login(t, db), false); err != nil {
		t.Fatal(err)
	}
	report, err := run.end(t)
	if report.Outcome != migration.Aborted || !strings.Contains(err.Error(), "removed by somebody else") {
		t.Errorf("the run is %s: %v", report.Outcome, err)
	}
	requireUntouched(t, db, before)
}

// TestKilledAfterTheSwap leaves a run as a process does that is killed between
// COMMIT and clean-up: the same command ends it, and changes nothing again.
func TestKilledAfterTheSwap(t *testing.T) {
	t.Parallel()
	db := createT(t)
	first := mustRun(t, tableT(t, db, func(migration.Event) {}))
	names := shadow.Names{RunID: first.RunID, Table: "t"}
	db.Exec(t, "UPDATE pgshadow.run SET phase = 'cutover'")
	db.Exec(t, "CREATE SCHEMA "+pg.Ident(names.ShadowSchema())+" AUTHORIZATION "+db.Name+"_owner")
	db.Exec(t, "SELECT pg_create_logical_replication_slot($1, 'pgoutput')", names.Slot())
	oid := pgtest.Scalar[uint32](t, db, "SELECT 't'::regclass::oid")
	second := mustRun(t, tableT(t, db, func(migration.Event) {}))
	if second.RunID != first.RunID || second.RetiredTable != first.RetiredTable || pgtest.Scalar[uint32](t, db, "SELECT 't'::regclass::oid") != oid {
		t.Errorf("the second command did %+v", second)
	}
	second.Verify = first.Verify
	requireClean(t, db, second)
	// Once it is tidy, the same command is a new change.
	if third := mustRun(t, tableT(t, db, func(migration.Event) {})); third.RunID == first.RunID {
		t.Error("the third command did nothing")
	}
}

// TestRetainedWAL warns at half of the limit, and aborts at it: an open transaction
// keeps the slot from moving on while others write.
func TestRetainedWAL(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t, pgserver.Options{})
	db := pgtest.NewOn(t, server)
	db.Exec(t, "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 2000) i; CREATE TABLE filler (v text)")
	login(t, db)
	before := pgtest.Dump(t, db, "--no-publications")
	config := manual(t, db)
	config.MaxWALRetained = 64 << 20
	run := launch(t, config)
	run.await(t, "wait for the operator", waitingFor(theOperator))
	holder := db.Conn(t)
	if _, err := holder.Exec(t.Context(), "BEGIN; SELECT pg_current_xact_id()"); err != nil {
		t.Fatal(err)
	}
	fill := func(megabytes int) {
		db.Exec(t, "SELECT pg_logical_emit_message(false, 'filler', repeat('x', 1 << 20)) FROM generate_series(1, $1::int)", megabytes)
	}
	fill(40)
	run.await(t, "warning", func(event migration.Event) bool {
		e, ok := event.(migration.Noted)
		return ok && strings.Contains(e.Note, "more than half of the 64 MB")
	})
	fill(40)
	report, err := run.end(t)
	if report.Outcome != migration.Aborted || !strings.Contains(err.Error(), "the slot held back 8") || !strings.Contains(err.Error(), "may hold back 64 MB") {
		t.Errorf("the run is %s: %v", report.Outcome, err)
	}
	requireUntouched(t, db, before)
}

// TestChangeIsFoundByPolling: nobody writes to the table, so neither the stream
// nor a lock would show that it was altered.
func TestChangeIsFoundByPolling(t *testing.T) {
	t.Parallel()
	db := createT(t)
	run := launch(t, manual(t, db))
	run.await(t, "wait for the operator", waitingFor(theOperator))
	db.Exec(t, "ALTER TABLE t ADD COLUMN y int")
	before := pgtest.Dump(t, db, "--no-publications")
	if report, err := run.end(t); report.Outcome != migration.Aborted {
		t.Errorf("the run is %s: %v", report.Outcome, err)
	}
	requireUntouched(t, db, before)
}

// TestLockHoldersAreNamed: somebody has the original exclusively during the copy.
func TestLockHoldersAreNamed(t *testing.T) {
	t.Parallel()
	db := createT(t)
	config := tableT(t, db, nil)
	config.Copy.ChunkTime = time.Millisecond
	run := launch(t, config)
	run.await(t, "phase copy", phaseStart(migration.Copy))
	holder := db.Conn(t)
	if _, err := holder.Exec(t.Context(), "SET application_name = 'greedy'; BEGIN; LOCK TABLE t"); err != nil {
		t.Fatal(err)
	}
	run.await(t, "the holder's name", func(event migration.Event) bool {
		e, ok := event.(migration.Waiting)
		return ok && strings.Contains(e.For, "a lock, in session pgshadow") && strings.Contains(e.Reason, "greedy")
	})
	if _, err := holder.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	requireClean(t, db, run.done(t))
}
