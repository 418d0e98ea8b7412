// Package e2e runs whole changes on a real server while clients write, and holds
// the result against the writers' own mirror of every write.
package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/test/pgserver"
	"github.com/pgshadow/pgshadow/test/pgtest"
	"github.com/pgshadow/pgshadow/test/workload"
)

// limit bounds one change under load, far above what any takes.
const limit = 15 * time.Minute

// livePhases are the phases in which every kind of write must have happened.
var livePhases = []string{"copy", "index", "catch_up", "verify"}

// change is one test: a table, what is done to it, and how to compare after.
type change struct {
	spec    *workload.Spec
	rows    int
	alters  []string
	set     map[string]string
	columns []string // the writers'; nil: all
	mapping workload.Mapping
	options workload.Options
	config  func(*migration.Config)
	setup   func(t *testing.T, db *pgtest.DB)
	server  *pgserver.Server // nil: the one that tests share
	// onEvent runs in the observer, after the harness's own work.
	onEvent func(ctx context.Context, db *pgtest.DB, w *workload.Workload, event migration.Event) error
}

// pacer makes sure that every kind of write happens in every phase: it holds the
// run at the beginning of each, and once in the middle of the copy, until the
// writers have done them all.
type pacer struct {
	w      *workload.Workload
	chunks int
	mu     sync.Mutex
	errs   []error
}

func (p *pacer) observe(ctx context.Context, event migration.Event) error {
	switch e := event.(type) {
	case migration.PhaseStarted:
		p.w.Phase(e.Phase.String())
		if slices.Contains(livePhases, e.Phase.String()) {
			return p.w.AwaitEach(ctx, 1)
		}
	case migration.ChunkCopied:
		p.mu.Lock()
		p.chunks++
		middle := p.chunks == 2
		p.mu.Unlock()
		if middle {
			return p.w.AwaitEach(ctx, 1)
		}
	}
	return nil
}

func (p *pacer) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.errs = append(p.errs, err)
}

// run carries a change through under load and checks it against the oracle. It
// returns the database for further checks.
func (c change) run(t *testing.T) (*pgtest.DB, migration.Report) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	db := c.database(t)
	conn := db.Conn(t)
	if err := c.spec.Create(ctx, conn, c.rows, workload.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if c.setup != nil {
		c.setup(t, db)
	}
	c.options.Columns = c.columns
	if c.options.Rate == 0 { // without a bound the writers, not pgshadow, take the machine
		c.options.Rate = 300
	}
	w, err := workload.Start(ctx, db.DSN, c.spec, c.options)
	if err != nil {
		t.Fatal(err)
	}
	p := &pacer{w: w}
	config := c.migration(login(t, db))
	config.Observer = migration.ObserverFunc(func(event migration.Event) {
		logEvent(t, event)
		if err := p.observe(ctx, event); err != nil {
			p.fail(fmt.Errorf("at %T: %w", event, err))
			cancel()
		}
		if c.onEvent != nil {
			if err := c.onEvent(ctx, db, w, event); err != nil {
				p.fail(fmt.Errorf("at %T: %w", event, err))
				cancel()
			}
		}
	})
	report, runErr := migration.Run(ctx, config)
	if runErr == nil {
		w.Phase("after")
		runErr = w.AwaitEach(ctx, 1)
	}
	stats, stopErr := w.Stop(ctx)
	if err := errors.Join(append(p.errs, runErr, stopErr)...); err != nil {
		t.Fatalf("%v\nreport: %+v\nworkload: %s", err, report, stats)
	}
	if err := workload.RequireRan(stats, append(slices.Clone(livePhases), "after")...); err != nil {
		t.Fatal(err)
	}
	if err := workload.Check(ctx, conn, c.spec, c.mapping); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d rows copied, %d changes, %d keys replayed, lock held %.1f ms; %s", report.RowsCopied, report.ChangesReceived, report.KeysReplayed, report.Cutover.LockHoldMS, stats)
	requireClean(t, db, report)
	return db, report
}

func (c change) database(t *testing.T) *pgtest.DB {
	t.Helper()
	if c.server != nil {
		return pgtest.NewOn(t, c.server)
	}
	return pgtest.New(t)
}

func (c change) migration(dsn string) migration.Config {
	config := migration.Config{DSN: dsn, Table: c.spec.Table, Alters: c.alters, Set: c.set, AllowLossy: true}
	config.Copy.ChunkTime = 20 * time.Millisecond // many chunks of few rows
	if c.config != nil {
		c.config(&config)
	}
	return config
}

func logEvent(t *testing.T, event migration.Event) {
	switch event.(type) {
	case migration.ChunkCopied, migration.Progressed:
	default:
		t.Logf("%T%+v", event, event)
	}
}

// requireClean fails unless nothing is left on the server but the retired table
// and the state rows.
func requireClean(t *testing.T, db *pgtest.DB, report migration.Report) {
	t.Helper()
	if report.Verify.Mismatches != 0 || report.Verify.DigestOriginal != report.Verify.DigestShadow || report.Verify.RowsCompared == 0 {
		t.Errorf("verification: %+v", report.Verify)
	}
	if n := pgtest.Scalar[int](t, db, "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()"); n != 0 {
		t.Errorf("%d slots are left", n)
	}
	if n := pgtest.Scalar[int](t, db, "SELECT count(*) FROM pg_publication"); n != 0 {
		t.Errorf("%d publications are left", n)
	}
	requireNoSessions(t, db)
	schemas := pgtest.Scalar[string](t, db, "SELECT string_agg(nspname, ' ' ORDER BY nspname) FROM pg_namespace WHERE nspname LIKE 'pgshadow%'")
	if want := "pgshadow pgshadow_" + report.RunID + "_retired"; schemas != want {
		t.Errorf("schemas left: %s, want %s", schemas, want)
	}
}

// requireNoSessions fails unless every session of pgshadow is gone, or goes now:
// a backend ends a moment after its client has.
func requireNoSessions(t *testing.T, db *pgtest.DB) {
	t.Helper()
	const query = "SELECT coalesce(string_agg(application_name, ', '), '') FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'pgshadow%'"
	deadline := time.After(10 * time.Second)
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		left := pgtest.Scalar[string](t, db, query)
		if left == "" {
			return
		}
		select {
		case <-ticker.C:
		case <-deadline:
			t.Errorf("sessions are left: %s", left)
			return
		}
	}
}
