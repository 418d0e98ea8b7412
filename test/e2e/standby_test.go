package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/pkg/shadow"
	"github.com/pgshadow/pgshadow/test/pgserver"
	"github.com/pgshadow/pgshadow/test/pgtest"
	"github.com/pgshadow/pgshadow/test/workload"
)

// pair is a primary with a database, and a hot standby called s1.
type pair struct {
	primary, standby *pgserver.Server
	db               *pgtest.DB
}

func newPair(t *testing.T, settings map[string]string) *pair {
	t.Helper()
	p := &pair{primary: pgtest.NewServer(t, pgserver.Options{})}
	p.db = pgtest.NewOn(t, p.primary)
	p.standby = pgtest.NewStandby(t, p.primary, "s1", settings)
	return p
}

// waitFor has commits wait for standbys, none with empty names.
func (p *pair) waitFor(t *testing.T, names string) {
	t.Helper()
	p.db.Exec(t, "ALTER SYSTEM SET synchronous_standby_names = '"+names+"'")
	p.db.Exec(t, "SELECT pg_reload_conf()")
	if names != "" {
		p.await(t, p.db, "the standby to be synchronous", "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE sync_state = 'sync')")
	}
}

// await polls a query until it is true.
func (p *pair) await(t *testing.T, db *pgtest.DB, what, sql string, args ...any) {
	t.Helper()
	deadline := time.After(limit)
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for !pgtest.Scalar[bool](t, db, sql, args...) {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("no end to waiting for %s", what)
		}
	}
}

// awaitReplay waits until the standby has replayed what the primary has written.
func (p *pair) awaitReplay(t *testing.T) {
	t.Helper()
	written := pgtest.Scalar[string](t, p.db, "SELECT pg_current_wal_flush_lsn()::text")
	p.await(t, p.db.At(p.standby), "the standby to replay all", "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn", written)
}

// login has pgshadow log in as a plain role that sees the standbys.
func (p *pair) login(t *testing.T) string {
	t.Helper()
	dsn := loginAs(t, p.db, asMember)
	p.db.Exec(t, "GRANT pg_read_all_stats TO "+p.db.Name+"_login")
	return dsn
}

func (p *pair) config(t *testing.T) migration.Config {
	t.Helper()
	p.login(t)
	return tableT(t, p.db, nil)
}

func (p *pair) stopStandby(t *testing.T) {
	t.Helper()
	if err := p.standby.Stop(pgserver.Immediate); err != nil {
		t.Fatal(err)
	}
	p.await(t, p.db, "the standby to be gone", "SELECT NOT EXISTS (SELECT FROM pg_stat_replication WHERE application_name = 's1')")
}

func (p *pair) startStandby(t *testing.T) {
	t.Helper()
	if err := p.standby.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestStandbyLags: the copy waits for a standby that does not replay, says for
// which, and goes on when it has caught up.
func TestStandbyLags(t *testing.T) {
	t.Parallel()
	p := newPair(t, nil)
	p.db.Exec(t, "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 20000) i")
	p.awaitReplay(t)
	standby := p.db.At(p.standby)
	lag := &lagging{throttled: make(chan struct{})}
	config := p.config(t)
	config.Copy.Workers, config.Copy.ChunkTime = 1, time.Millisecond
	config.Throttle.MaxReplicaLag = 300 * time.Millisecond
	config.Observer = migration.ObserverFunc(func(event migration.Event) {
		logEvent(t, event)
		switch {
		case lag.firstChunk(event): // the copy stands still here until the throttle has noticed
			standby.Exec(t, "SELECT pg_wal_replay_pause()")
			p.await(t, standby, "replay to pause", "SELECT pg_get_wal_replay_pause_state() = 'paused'")
			p.db.Exec(t, "UPDATE t SET v = 'w' WHERE id = 20000")
			<-lag.throttled
		case lag.resumes(event):
			standby.Exec(t, "SELECT pg_wal_replay_resume()")
		}
	})
	report := mustRun(t, config)
	requireClean(t, p.db, report)
	if lag.chunks < 3 || lag.early != 0 || !lag.over {
		t.Errorf("%d chunks were copied, %d of them while the standby lagged; the end of the lag was told: %t", lag.chunks, lag.early, lag.over)
	}
}

// lagging is what a run's observer has heard of a standby that lags.
type lagging struct {
	throttled chan struct{} // closed when the run says that it waits

	mu            sync.Mutex
	chunks, early int // copied; of those while the run was to wait
	ticks         int // of progress since then
	waits, over   bool
}

func (l *lagging) firstChunk(event migration.Event) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, copied := event.(migration.ChunkCopied); !copied {
		return false
	}
	l.chunks++
	if l.waits && l.ticks < 2 && l.chunks > 1 {
		l.early++
	}
	return l.chunks == 1
}

// resumes is true once, when the run has been waiting for a while.
func (l *lagging) resumes(event migration.Event) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch e := event.(type) {
	case migration.Throttled:
		if !l.waits && strings.HasPrefix(e.Reason, "replica s1 lags") {
			l.waits = true
			close(l.throttled)
		}
		l.over = l.waits && e.Reason == ""
	case migration.Progressed:
		if l.waits {
			l.ticks++
			return l.ticks == 2
		}
	}
	return false
}

// TestSynchronousStandby changes a table under load while every commit of the
// writers waits until the standby shows it. The standby has the same rows then.
func TestSynchronousStandby(t *testing.T) {
	t.Parallel()
	p := newPair(t, nil)
	p.db.Exec(t, "ALTER SYSTEM SET synchronous_commit = 'remote_apply'")
	p.waitFor(t, "s1")
	spec := workload.Orders()
	db, _ := change{spec: spec, rows: 10000, alters: []string{"ALTER COLUMN id TYPE bigint"}, server: p.primary}.run(t)
	p.db = db
	p.awaitReplay(t)
	if err := workload.Check(t.Context(), db.At(p.standby).Conn(t), spec, nil); err != nil {
		t.Errorf("on the standby: %v", err)
	}
}

// TestSynchronousStandbyGoesAway: the writers' commits hang, which is PostgreSQL's
// to do. The run goes on as far as it can without them, says what it waits for,
// and gets through when the standby is back, or no longer waited for.
func TestSynchronousStandbyGoesAway(t *testing.T) {
	comesBack := func(t *testing.T, p *pair) { p.startStandby(t) }
	isGivenUp := func(t *testing.T, p *pair) { p.waitFor(t, "") }
	for name, c := range map[string]struct {
		leaves, reaches func(migration.Event) bool // when it goes; how far the run must get without it
		release         func(*testing.T, *pair)
	}{
		"copy":    {leaves: chunk, reaches: phaseStart(migration.Index), release: comesBack},
		"verify":  {leaves: phaseStart(migration.Verify), reaches: hidden, release: isGivenUp},
		"cutover": {leaves: phaseStart(migration.Cutover), reaches: hidden, release: comesBack},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t, nil)
			spec := workload.Orders()
			conn := p.db.Conn(t)
			if err := spec.Create(t.Context(), conn, 10000, workload.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			dsn := p.login(t)
			p.waitFor(t, "s1")
			w, err := workload.Start(t.Context(), p.db.DSN, spec, workload.Options{})
			if err != nil {
				t.Fatal(err)
			}
			run := launch(t, change{spec: spec, alters: []string{"ALTER COLUMN id TYPE bigint"}}.migration(dsn))
			run.await(t, "the moment", c.leaves)
			p.stopStandby(t)
			told, reached := "", false
			run.await(t, "reason", func(event migration.Event) bool {
				if hidden(event) {
					told = event.(migration.Waiting).Reason
				}
				reached = reached || c.reaches(event)
				return reached && told != ""
			})
			for _, part := range []string{"commits that wait for a synchronous standby: pid ", `synchronous_standby_names is "s1", connected of those: none`} {
				if !strings.Contains(told, part) {
					t.Errorf("the reason lacks %q: %s", part, told)
				}
			}
			c.release(t, p)
			report := run.done(t)
			_, stopErr := w.Stop(t.Context())
			if err := errors.Join(stopErr, workload.Check(t.Context(), conn, spec, nil)); err != nil {
				t.Error(err)
			}
			requireClean(t, p.db, report)
		})
	}
}

func hidden(event migration.Event) bool {
	return waitingFor("transactions to become visible")(event)
}

func createPairT(t *testing.T, settings map[string]string) *pair {
	t.Helper()
	p := newPair(t, settings)
	p.db.Exec(t, "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 2000) i; CREATE INDEX ON t (v)")
	return p
}

// TestSwapWithoutTheSynchronousStandby: the swap commits although the standby is
// away, and is on the standby when it is back. Before that, a session whose commit
// hangs and has a row locked keeps the swap from its lock: an attempt says so.
func TestSwapWithoutTheSynchronousStandby(t *testing.T) {
	t.Parallel()
	p := createPairT(t, nil)
	p.waitFor(t, "s1")
	run := launch(t, p.config(t))
	run.await(t, "phase cutover", phaseStart(migration.Cutover))
	p.stopStandby(t)
	hangs := p.db.Conn(t)
	ended := make(chan error, 1)
	go func() {
		_, err := hangs.Exec(context.WithoutCancel(t.Context()), "SET application_name = 'shop'; SELECT FROM t WHERE id = 1 FOR UPDATE")
		ended <- err
	}()
	pid := hangs.PgConn().PID()
	p.await(t, p.db, "a commit to hang", "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'SyncRep')", pid)
	run.await(t, "attempt that fails", func(event migration.Event) bool {
		e, failed := event.(migration.AttemptFailed)
		for _, part := range []string{"it is locked by pid " + fmt.Sprint(pid), "shop, active, its commit waits for a synchronous standby", `synchronous_standby_names is "s1", connected of those: none`} {
			if failed && !strings.Contains(e.Reason, part) {
				t.Errorf("the reason lacks %q: %s", part, e.Reason)
			}
		}
		return failed
	})
	// A wait that is cancelled ends the transaction; the standby stays away.
	p.db.Exec(t, "SELECT pg_cancel_backend($1)", pid)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	requireClean(t, p.db, run.done(t))
	p.startStandby(t)
	p.awaitReplay(t)
	if isOriginal(t, p.db.At(p.standby)) {
		t.Error("the standby has no swap")
	}
}

// TestQueryOnTheStandby: the swap does not wait for a standby's query of the table.
// The standby replays it when the query is over (max_standby_streaming_delay).
func TestQueryOnTheStandby(t *testing.T) {
	t.Parallel()
	p := createPairT(t, map[string]string{"max_standby_streaming_delay": "-1"})
	p.awaitReplay(t)
	run := launch(t, p.config(t))
	run.await(t, "phase cutover", phaseStart(migration.Cutover))
	p.awaitReplay(t)
	standby := p.db.At(p.standby)
	reader := standby.Conn(t)
	const query = "SELECT count(*) FROM t WHERE v = 'v'"
	read := func(sql string) (n int) {
		t.Helper()
		if err := reader.QueryRow(t.Context(), sql).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if _, err := reader.Exec(t.Context(), "BEGIN ISOLATION LEVEL REPEATABLE READ"); err != nil {
		t.Fatal(err)
	}
	read(query)
	requireClean(t, p.db, run.done(t))
	p.db.Exec(t, "UPDATE t SET v = 'after' WHERE id <= 10")
	p.await(t, standby, "replay to meet the reader", "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'startup' AND wait_event_type IN ('Lock', 'IPC') AND wait_event <> 'RecoveryPause')")
	if n := read(query); n != 2000 {
		t.Errorf("the reader sees %d rows, want 2000", n)
	}
	if _, err := reader.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	p.awaitReplay(t)
	if n := read(query); n != 1990 || isOriginal(t, standby) {
		t.Errorf("on the standby %d rows are as before, want 1990", n)
	}
}

// TestFailover: the primary dies while changes are still to be replayed, and the
// standby takes its place. It has no slot; the same command takes the run up there
// and finds by comparison what was missed.
func TestFailover(t *testing.T) {
	t.Parallel()
	p := createPairT(t, nil)
	p.waitFor(t, "s1")
	config := p.config(t)
	config.ReconnectFor = time.Second
	run := launch(t, config)
	var runID string
	run.await(t, "phase catch_up", func(event migration.Event) bool {
		if e, ok := event.(migration.RunStarted); ok {
			runID = e.RunID
		}
		return phaseStart(migration.CatchUp)(event)
	})
	// Nothing can be replayed while the shadow is locked.
	holder := p.db.Conn(t)
	names := shadow.Names{RunID: runID, Table: "t"}
	if _, err := holder.Exec(t.Context(), "BEGIN; LOCK TABLE "+names.Shadow()); err != nil {
		t.Fatal(err)
	}
	p.db.Exec(t, "UPDATE t SET v = 'w' WHERE id <= 10; DELETE FROM t WHERE id = 11; INSERT INTO t VALUES (5000, 'new')") // is on the standby when it returns
	if err := p.primary.Stop(pgserver.Immediate); err != nil {
		t.Fatal(err)
	}
	if report, err := run.end(t); report.Outcome != migration.Stopped {
		t.Fatalf("the run is %s: %v", report.Outcome, err)
	}
	promoted := p.db.At(p.standby)
	promoted.Exec(t, "SELECT pg_promote()")
	var resumed migration.RunStarted
	config.DSN = promoted.As(p.db.Name + "_login")
	config.Observer = migration.ObserverFunc(func(event migration.Event) {
		if e, ok := event.(migration.RunStarted); ok {
			resumed = e
		}
	})
	report := mustRun(t, config)
	if resumed.RunID != runID || !resumed.Resumed || report.Healed != 12 {
		t.Errorf("run %s went on as %+v and made up for %d rows, want 12", runID, resumed, report.Healed)
	}
	const content = "SELECT string_agg(format('%s %s', v, n), ', ' ORDER BY v) FROM (SELECT v, count(*) AS n FROM t GROUP BY 1) c"
	if got := pgtest.Scalar[string](t, promoted, content); got != "new 1, v 1989, w 10" || isOriginal(t, promoted) {
		t.Errorf("the table holds %q", got)
	}
	requireClean(t, promoted, report)
}
