package workload_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/test/pgtest"
	"github.com/pgshadow/pgshadow/test/workload"
)

const patience = 2 * time.Minute

func create(t *testing.T, spec *workload.Spec, rows int) (*pgtest.DB, *pgx.Conn) {
	t.Helper()
	db := pgtest.New(t)
	conn := db.Conn(t)
	if err := spec.Create(t.Context(), conn, rows, workload.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	return db, conn
}

func start(t *testing.T, db *pgtest.DB, spec *workload.Spec, opts workload.Options) *workload.Workload {
	t.Helper()
	w, err := workload.Start(context.WithoutCancel(t.Context()), db.DSN, spec, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = w.Stop(deadline(t)) }) // a test that fails early
	return w
}

// deadline returns a context that outlives the test's own, but not for long.
func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func stop(t *testing.T, w *workload.Workload) workload.Stats {
	t.Helper()
	stats, err := w.Stop(deadline(t))
	t.Log(stats)
	must(t, err)
	return stats
}

func exec(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatalf("running %q: %v", sql, err)
	}
}

func count(t *testing.T, conn *pgx.Conn, sql string) int {
	t.Helper()
	var n int
	if err := conn.QueryRow(t.Context(), sql).Scan(&n); err != nil {
		t.Fatalf("running %q: %v", sql, err)
	}
	return n
}
