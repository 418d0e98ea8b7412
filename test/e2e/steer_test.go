package e2e

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/pkg/shadow"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// background is a run in a goroutine of the test.
type background struct {
	events chan migration.Event
	stop   context.CancelFunc
	ended  chan struct{}
	report migration.Report
	err    error
}

// launch starts a run. Every event but progress and chunks waits to be read by
// await, so the run stands still at an event until the test has got there.
func launch(t *testing.T, config migration.Config) *background {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	b := &background{events: make(chan migration.Event), stop: stop, ended: make(chan struct{})}
	config.Observer = migration.ObserverFunc(func(event migration.Event) {
		logEvent(t, event)
		if _, progress := event.(migration.Progressed); progress {
			return
		}
		select {
		case b.events <- event:
		case <-ctx.Done():
		}
	})
	go func() {
		defer close(b.ended)
		b.report, b.err = migration.Run(ctx, config)
	}()
	t.Cleanup(func() { stop(); <-b.ended })
	return b
}

// await reads events until one is as wanted.
func (b *background) await(t *testing.T, what string, wanted func(migration.Event) bool) {
	t.Helper()
	deadline := time.After(limit)
	for {
		select {
		case event := <-b.events:
			if wanted(event) {
				return
			}
		case <-b.ended:
			t.Fatalf("the run ended before %s: %v", what, b.err)
		case <-deadline:
			t.Fatalf("no %s", what)
		}
	}
}

// end reads the rest of the events and returns how the run ended.
func (b *background) end(t *testing.T) (migration.Report, error) {
	t.Helper()
	deadline := time.After(limit)
	for {
		select {
		case <-b.events:
		case <-b.ended:
			return b.report, b.err
		case <-deadline:
			t.Fatal("the run does not end")
		}
	}
}

func (b *background) done(t *testing.T) migration.Report {
	t.Helper()
	report, err := b.end(t)
	if err != nil {
		t.Fatalf("%v (%+v)", err, report.Error)
	}
	return report
}

func phaseStart(phase migration.Phase) func(migration.Event) bool {
	return func(event migration.Event) bool {
		e, ok := event.(migration.PhaseStarted)
		return ok && e.Phase == phase
	}
}

func chunk(event migration.Event) bool {
	_, ok := event.(migration.ChunkCopied)
	return ok
}

func waitingFor(text string) func(migration.Event) bool {
	return func(event migration.Event) bool {
		e, ok := event.(migration.Waiting)
		return ok && strings.Contains(e.For, text)
	}
}

const theOperator = "the operator to release the cutover"

// command issues a command while the run goes on, and requires a yes.
func (b *background) command(t *testing.T, db *pgtest.DB, name, argument string) migration.Commanded {
	t.Helper()
	type result struct {
		done migration.Commanded
		err  error
	}
	answered := make(chan result, 1)
	go func() {
		done, err := migration.Command(t.Context(), login(t, db), "t", name, argument)
		answered <- result{done, err}
	}()
	for {
		select {
		case <-b.events:
		case r := <-answered:
			if r.err != nil || !r.done.Accepted {
				t.Fatalf("%s: %+v, %v", name, r.done, r.err)
			}
			return r.done
		}
	}
}

func statusOf(t *testing.T, db *pgtest.DB) migration.RunStatus {
	t.Helper()
	statuses, err := migration.Status(t.Context(), login(t, db), "t")
	if err != nil || len(statuses) != 1 {
		t.Fatalf("the status is %+v, %v", statuses, err)
	}
	return statuses[0]
}

// awaitStatus asks until the last checkpoint says what is wanted.
func awaitStatus(t *testing.T, db *pgtest.DB, what string, wanted func(migration.RunStatus) bool) {
	t.Helper()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(time.Minute)
	for {
		if wanted(statusOf(t, db)) {
			return
		}
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("no %s: %+v", what, statusOf(t, db))
		}
	}
}

func manual(t *testing.T, db *pgtest.DB) migration.Config {
	config := tableT(t, db, nil)
	config.Cutover.Mode = migration.CutoverManual
	return config
}

func isOriginal(t *testing.T, db *pgtest.DB) bool {
	t.Helper()
	return pgtest.Scalar[string](t, db, "SELECT format_type(atttypid, NULL) FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'id'") == "integer"
}

// TestPauseAndResume holds a run in the copy from another session; the writes made
// meanwhile get through all the same.
func TestPauseAndResume(t *testing.T) {
	t.Parallel()
	db := createT(t)
	config := tableT(t, db, nil)
	config.Throttle.MaxRowsPerSecond = 500
	run := launch(t, config)
	run.await(t, "chunk", chunk)
	if answer := run.command(t, db, migration.CommandPause, "").Answer; !strings.Contains(answer, "paused in phase copy") {
		t.Errorf("the answer is %q", answer)
	}
	if status := statusOf(t, db); status.State != migration.StatePaused {
		t.Errorf("the status is %+v", status)
	}
	db.Exec(t, "UPDATE t SET v = 'later' WHERE id IN (1, 2000)")
	run.command(t, db, migration.CommandSet, "max-rows-per-second=0")
	run.command(t, db, migration.CommandResume, "")
	requireClean(t, db, run.done(t))
	if n := pgtest.Scalar[int](t, db, "SELECT count(*) FROM t WHERE v = 'later'"); n != 2 {
		t.Errorf("%d writes got through", n)
	}
}

// TestPauseOutlivesTheProcess: a run that is resumed in another process is still
// paused, and its settings stand.
func TestPauseOutlivesTheProcess(t *testing.T) {
	t.Parallel()
	db := createT(t)
	run := launch(t, tableT(t, db, nil))
	run.await(t, "chunk", chunk)
	run.command(t, db, migration.CommandPause, "")
	run.command(t, db, migration.CommandSet, "cutover=manual")
	run.stop()
	if report, _ := run.end(t); report.Outcome != migration.Stopped {
		t.Fatalf("the run is %s", report.Outcome)
	}
	if status := statusOf(t, db); status.State != migration.StateStopped || status.Settings["cutover"] != "manual" {
		t.Errorf("the status is %+v", status)
	}
	run = launch(t, tableT(t, db, nil))
	run.await(t, "note of the pause", func(event migration.Event) bool {
		e, ok := event.(migration.Noted)
		return ok && strings.Contains(e.Note, "paused")
	})
	run.command(t, db, migration.CommandResume, "")
	run.await(t, "wait for the operator", waitingFor(theOperator))
	run.command(t, db, migration.CommandCutover, "")
	requireClean(t, db, run.done(t))
}

// TestManualCutover waits in step and verified until the operator says so, and
// compares the tables again meanwhile: a row that went missing comes back.
func TestManualCutover(t *testing.T) {
	t.Parallel()
	db := createT(t)
	config := manual(t, db)
	config.Cutover.CompareEvery = 10 * time.Millisecond
	run := launch(t, config)
	run.await(t, "wait for the operator", waitingFor(theOperator))
	db.Exec(t, "UPDATE t SET v = 'later' WHERE id <= 10")
	names := shadow.Names{RunID: statusOf(t, db).RunID, Table: "t"}
	db.Exec(t, "DELETE FROM "+names.Shadow()+" WHERE id = 77")
	for pgtest.Scalar[int](t, db, "SELECT count(*) FROM "+names.Shadow()+" WHERE id = 77") == 0 {
		run.await(t, "another comparison", waitingFor(theOperator))
	}
	if !isOriginal(t, db) {
		t.Error("the tables were swapped unasked")
	}
	run.command(t, db, migration.CommandCutover, "")
	requireClean(t, db, run.done(t))
	if isOriginal(t, db) || pgtest.Scalar[int](t, db, "SELECT count(*) FROM t WHERE v = 'later'") != 10 {
		t.Error("the swap lost something")
	}
}

// TestReleaseBeforehand: a cutover that was released in the copy does not wait.
func TestReleaseBeforehand(t *testing.T) {
	t.Parallel()
	db := createT(t)
	run := launch(t, manual(t, db))
	run.await(t, "chunk", chunk)
	run.command(t, db, migration.CommandCutover, "")
	requireClean(t, db, run.done(t))
}

// TestTruncateWhileTheCutoverWaits begins the copy anew, and waits again.
func TestTruncateWhileTheCutoverWaits(t *testing.T) {
	t.Parallel()
	db := createT(t)
	run := launch(t, manual(t, db))
	run.await(t, "wait for the operator", waitingFor(theOperator))
	db.Exec(t, "TRUNCATE t; INSERT INTO t VALUES (1, 'new')")
	run.await(t, "another copy", phaseStart(migration.Copy))
	run.await(t, "wait for the operator", waitingFor(theOperator))
	run.command(t, db, migration.CommandCutover, "")
	requireClean(t, db, run.done(t))
}

// TestAbort ends a run in several phases, and one that has stopped: the command
// returns when nothing is left.
func TestAbort(t *testing.T) {
	for name, at := range map[string]func(migration.Event) bool{
		"copy": chunk, "index": phaseStart(migration.Index), "waiting for the operator": waitingFor(theOperator), "stopped": nil,
		"waiting for the slot": waitingFor("the slot"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := createT(t)
			before := pgtest.Dump(t, db, "--no-publications")
			if name == "waiting for the slot" {
				holder := db.Conn(t)
				if _, err := holder.Exec(t.Context(), "BEGIN; SELECT pg_current_xact_id()"); err != nil {
					t.Fatal(err)
				}
			}
			if at == nil {
				stopAt(t, db, migration.Index)
				done, err := migration.Command(t.Context(), login(t, db), "t", migration.CommandAbort, "")
				if err != nil || !done.Accepted {
					t.Fatalf("%+v, %v", done, err)
				}
				requireUntouched(t, db, before)
				return
			}
			run := launch(t, manual(t, db))
			run.await(t, name, at)
			run.command(t, db, migration.CommandAbort, "")
			requireUntouched(t, db, before)
			report, err := run.end(t)
			var abort *migration.AbortError
			if report.Outcome != migration.Aborted || report.ExitCode != 4 || !errors.As(err, &abort) || abort.By == "" {
				t.Errorf("the run is %s: %v", report.Outcome, err)
			}
		})
	}
}

// TestCommandsThatAreRefused: there is no run, nobody works on it, or it says no.
func TestCommandsThatAreRefused(t *testing.T) {
	t.Parallel()
	db := createT(t)
	require := func(name, argument, says string) {
		t.Helper()
		done, err := migration.Command(t.Context(), login(t, db), "t", name, argument)
		var refusal *shadow.Refusal
		if !errors.As(err, &refusal) || done.Accepted || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %+v, %v", name, done, err)
		}
	}
	require(migration.CommandPause, "", "no unfinished run of t")
	stopAt(t, db, migration.Index)
	require(migration.CommandCutover, "", "no process works on run")
	run := launch(t, manual(t, db))
	run.await(t, "wait for the operator", waitingFor(theOperator))
	var wg sync.WaitGroup
	wg.Go(func() {
		require(migration.CommandResume, "", "is not paused")
		require(migration.CommandSet, "alter=DROP COLUMN v", "alter cannot be set while a run is on")
		require("dance", "", `does not know the command "dance"`)
		run.stop()
	})
	if report, _ := run.end(t); report.Outcome != migration.Stopped {
		t.Errorf("the run is %s", report.Outcome)
	}
	wg.Wait()
}

// TestStatus tells of a run at work, of one that has stopped, and of none.
func TestStatus(t *testing.T) {
	t.Parallel()
	db := createT(t)
	if none, err := migration.Status(t.Context(), login(t, db), ""); err != nil || len(none) != 0 {
		t.Errorf("before any run: %+v, %v", none, err)
	}
	db.Exec(t, "ANALYZE t")
	config := tableT(t, db, nil)
	config.Copy.Workers, config.Throttle.MaxRowsPerSecond = 1, 50 // the second chunk waits for long
	run := launch(t, config)
	run.await(t, "chunk", chunk)
	awaitStatus(t, db, "progress of the copy", func(s migration.RunStatus) bool {
		return s.Phase == "copy" && s.Table == "public.t" && s.Percent > 0 && s.Percent < 100 && s.Rows > 0 && s.EstimatedRows == 2000 &&
			s.PID > 0 && s.Host != ""
	})
	run.stop()
	report, _ := run.end(t)
	db.Exec(t, "SELECT pg_logical_emit_message(false, 'filler', repeat('x', 1000000))")
	stopped := statusOf(t, db)
	if stopped.RunID != report.RunID || stopped.State != migration.StateStopped || stopped.ETASeconds != nil || stopped.WALRetained < 1_000_000 {
		t.Errorf("stopped: %+v", stopped)
	}
	if !strings.Contains(report.Error.State, "holds back") || !strings.Contains(report.Error.State, "pgshadow cleanup") {
		t.Errorf("the report says %q", report.Error.State)
	}
	dropSlot(t, db, report)
	mustRun(t, tableT(t, db, func(migration.Event) {}))
	if none, err := migration.Status(t.Context(), login(t, db), "t"); err != nil || len(none) != 0 {
		t.Errorf("after the run: %+v, %v", none, err)
	}
}

// TestPausedCutover: attempts fail, the run is paused, and no further attempt is
// made until it is resumed with more patience.
func TestPausedCutover(t *testing.T) {
	t.Parallel()
	db := createT(t)
	holder := db.Conn(t)
	if _, err := holder.Exec(t.Context(), "BEGIN; LOCK TABLE t IN ACCESS SHARE MODE"); err != nil {
		t.Fatal(err)
	}
	config := tableT(t, db, nil)
	config.Cutover.LockTimeout = 50 * time.Millisecond
	run := launch(t, config)
	run.await(t, "failed attempt", func(event migration.Event) bool {
		_, ok := event.(migration.AttemptFailed)
		return ok
	})
	run.command(t, db, migration.CommandPause, "")
	run.await(t, "wait for the operator", waitingFor("the operator to resume"))
	run.command(t, db, migration.CommandSet, "lock-timeout=1m")
	run.command(t, db, migration.CommandResume, "")
	run.await(t, "the swap's wait for its lock", func(event migration.Event) bool {
		e, ok := event.(migration.Waiting)
		return ok && strings.Contains(e.For, "cutover")
	})
	if _, err := holder.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	requireClean(t, db, run.done(t))
}
