// Package versions runs whole changes on servers of every version that pgshadow knows: a short part on each, and what
// only some of them have.
package versions

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/test/pgserver"
	"github.com/pgshadow/pgshadow/test/pgtest"
	"github.com/pgshadow/pgshadow/test/workload"
)

// limit bounds one change under load, far above what any takes.
const limit = 10 * time.Minute

// newest is the newest version; a test that holds from some version on names it as the last.
var newest = pgserver.Versions[len(pgserver.Versions)-1]

// oldest is the oldest version.
var oldest = pgserver.Versions[0]

// servers has a server of each version, started when the first test asks for it. It ends with this process.
var servers = func() map[int]func() (*pgserver.Server, error) {
	all := map[int]func() (*pgserver.Server, error){}
	for _, major := range pgserver.Versions {
		all[major] = sync.OnceValues(func() (*pgserver.Server, error) {
			dir, err := pgserver.FindVersion(major)
			if err != nil {
				return nil, err
			}
			return pgserver.Start(context.Background(), pgserver.Options{BinDir: dir})
		})
	}
	return all
}()

// on runs a test on a new database of each version from first to last.
func on(t *testing.T, first, last int, run func(t *testing.T, db *pgtest.DB)) {
	t.Helper()
	for _, major := range pgserver.Versions {
		if major < first || major > last {
			continue
		}
		t.Run(fmt.Sprintf("PostgreSQL_%d", major), func(t *testing.T) {
			t.Parallel()
			run(t, newDatabase(t, major))
		})
	}
}

func newDatabase(t *testing.T, major int) *pgtest.DB {
	t.Helper()
	server, err := servers[major]()
	if err != nil {
		t.Fatal(err)
	}
	return pgtest.NewOn(t, server)
}

// alter changes table t, which must succeed, and requires that nothing is left.
func alter(t *testing.T, db *pgtest.DB, alters ...string) migration.Report {
	t.Helper()
	report, err := migration.Run(t.Context(), migration.Config{DSN: db.DSN, Table: "t", Alters: alters})
	if err != nil {
		t.Fatalf("%v (%+v)", err, report.Error)
	}
	requireClean(t, db, report)
	return report
}

// stopInCopy begins to change table t, and stops when the first chunk is copied.
func stopInCopy(t *testing.T, db *pgtest.DB, alters ...string) migration.Report {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	config := migration.Config{DSN: db.DSN, Table: "t", Alters: alters}
	config.Copy.ChunkTime = time.Millisecond
	config.Observer = migration.ObserverFunc(func(event migration.Event) {
		if _, ok := event.(migration.ChunkCopied); ok {
			stop()
		}
	})
	report, err := migration.Run(ctx, config)
	if report.Outcome != migration.Stopped {
		t.Fatalf("not stopped: %v, report %+v", err, report)
	}
	return report
}

// requireClean fails unless the comparison found both tables equal, and no slot and publication is left.
func requireClean(t *testing.T, db *pgtest.DB, report migration.Report) {
	t.Helper()
	if report.Verify.Mismatches != 0 || report.Verify.DigestOriginal != report.Verify.DigestShadow || report.Verify.RowsCompared == 0 {
		t.Errorf("verification: %+v", report.Verify)
	}
	const left = `SELECT (SELECT count(*) FROM pg_replication_slots WHERE database = current_database())
		+ (SELECT count(*) FROM pg_publication WHERE pubname LIKE 'pgshadow%')`
	if n := pgtest.Scalar[int](t, db, left); n != 0 {
		t.Errorf("%d slots and publications are left", n)
	}
}

// refused runs a change of table t that must be refused by that check, with nothing created, and returns the message
// with the remedy.
func refused(t *testing.T, db *pgtest.DB, config migration.Config, check string) string {
	t.Helper()
	before := schemas(t, db)
	config.Table = "t"
	if config.DSN == "" {
		config.DSN = db.DSN
	}
	report, err := migration.Run(t.Context(), config)
	if err == nil || report.Outcome != migration.Refused || report.Error.Check != check {
		t.Fatalf("not refused by %s: %v, report %+v", check, err, report)
	}
	if after := schemas(t, db); after != before {
		t.Errorf("created: %s, before: %s", after, before)
	}
	return report.Error.Message + "; " + report.Error.Remedy
}

func schemas(t *testing.T, db *pgtest.DB) string {
	t.Helper()
	return pgtest.Scalar[string](t, db, "SELECT string_agg(nspname, ' ' ORDER BY nspname) FROM pg_namespace WHERE nspname LIKE 'pgshadow%' OR nspname = 'public'")
}

// underLoad changes a table of the spec while its writers run, with every kind of write in every phase that works, and
// checks it against their mirror.
func underLoad(t *testing.T, db *pgtest.DB, spec *workload.Spec, rows int, alters ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	conn := db.Conn(t)
	if err := spec.Create(ctx, conn, rows, workload.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	w, err := workload.Start(ctx, db.DSN, spec, workload.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var unpaced error
	config := migration.Config{DSN: db.DSN, Table: spec.Table, Alters: alters}
	config.Copy.ChunkTime = 20 * time.Millisecond
	phases := []string{"copy", "index", "catch_up", "verify"}
	config.Observer = migration.ObserverFunc(func(event migration.Event) {
		started, ok := event.(migration.PhaseStarted)
		if !ok {
			return
		}
		w.Phase(started.Phase.String())
		if started.Phase >= migration.Copy && started.Phase < migration.Cutover {
			unpaced = errors.Join(unpaced, w.AwaitEach(ctx, 1))
		}
	})
	report, failed := migration.Run(ctx, config)
	stats, stopErr := w.Stop(ctx)
	if err := errors.Join(unpaced, failed, stopErr); err != nil {
		t.Fatalf("%v\nreport: %+v\nworkload: %s", err, report, stats)
	}
	if err := errors.Join(workload.RequireRan(stats, phases...), workload.Check(ctx, conn, spec, nil)); err != nil {
		t.Fatal(err)
	}
	requireClean(t, db, report)
}
