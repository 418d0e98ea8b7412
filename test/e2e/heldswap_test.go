package e2e

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// heldSwap is a run whose swap the test holds: first before its lock, then under all of
// its locks, when everything is replayed and nothing is exchanged yet.
type heldSwap struct {
	*background
	db   *pgtest.DB
	gate *pgx.Conn // has the advisory lock that the swap waits for
}

const cutoverSession = "application_name LIKE 'pgshadow%cutover'"

// holdSwap starts a run and returns when it waits for the operator.
func holdSwap(t *testing.T, db *pgtest.DB, config migration.Config) *heldSwap {
	t.Helper()
	config.Cutover.Mode = migration.CutoverManual
	config.Cutover.LockTimeout, config.Cutover.MaxLockHold = time.Minute, time.Minute
	// The swap waits for no more than half of it when it has its first lock.
	db.Exec(t, "ALTER DATABASE "+db.Name+" SET deadlock_timeout = '10min'")
	h := &heldSwap{background: launch(t, config), db: db, gate: db.Conn(t)}
	h.await(t, "wait for the operator", waitingFor(theOperator))
	mustExec(t, h.gate, "SELECT pg_advisory_lock(7)")
	db.Exec(t, `CREATE FUNCTION hold() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
		IF current_setting('application_name') LIKE 'pgshadow%cutover' THEN PERFORM pg_advisory_xact_lock(7); END IF; END $$;
		CREATE EVENT TRIGGER hold ON ddl_command_start WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION hold()`)
	return h
}

// begin releases the cutover. The events are read from here on.
func (h *heldSwap) begin(t *testing.T) {
	t.Helper()
	h.command(t, h.db, migration.CommandCutover, "")
	h.drain()
}

// drain reads the events from here on, so that the run stands still at none. The channel
// is closed at the first attempt that fails.
func (b *background) drain() (failed chan struct{}) {
	failed = make(chan struct{})
	go func() {
		var once sync.Once
		for {
			select {
			case event := <-b.events:
				if _, ok := event.(migration.AttemptFailed); ok {
					once.Do(func() { close(failed) })
				}
			case <-b.ended:
				return
			}
		}
	}()
	return failed
}

// awaitQueue returns when the swap waits for a lock on the table, or on what is attached
// to it.
func (h *heldSwap) awaitQueue(t *testing.T) {
	t.Helper()
	h.awaitOne(t, "wait for the lock", "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT granted AND locktype = 'relation' AND datname = current_database() AND "+cutoverSession)
}

// awaitHeld returns when the swap has its locks, and has replayed everything.
func (h *heldSwap) awaitHeld(t *testing.T) {
	t.Helper()
	h.awaitOne(t, "swap under its locks", "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT granted AND locktype = 'advisory' AND datname = current_database() AND "+cutoverSession)
}

// awaitBlocked returns when so many of the test's sessions wait for a lock.
func awaitBlocked(t *testing.T, db *pgtest.DB, sessions int) {
	t.Helper()
	awaitOne(t, db, nil, fmt.Sprintf("%d blocked sessions", sessions), `SELECT (count(*) >= $1)::int FROM pg_stat_activity
		WHERE datname = current_database() AND wait_event_type = 'Lock' AND application_name NOT LIKE 'pgshadow%'`, sessions)
}

func (h *heldSwap) awaitOne(t *testing.T, what, sql string) {
	t.Helper()
	awaitOne(t, h.db, h.background, what, sql)
}

// awaitOne asks until a query gives another number than zero.
func awaitOne(t *testing.T, db *pgtest.DB, run *background, what, sql string, args ...any) {
	t.Helper()
	var ended chan struct{}
	if run != nil {
		ended = run.ended
	}
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(time.Minute)
	for pgtest.Scalar[int](t, db, sql, args...) == 0 {
		select {
		case <-ticker.C:
		case <-ended:
			t.Fatalf("the run ended before %s: %v", what, run.err)
		case <-deadline:
			t.Fatalf("no %s; the sessions are %s", what, pgtest.Scalar[string](t, db, `SELECT string_agg(concat_ws(' ', application_name, state, wait_event, left(query, 60)), E'\n')
				FROM pg_stat_activity WHERE datname = current_database()`))
		}
	}
}

// release lets the swap commit, and returns when the run is done.
func (h *heldSwap) release(t *testing.T) migration.Report {
	t.Helper()
	mustExec(t, h.gate, "SELECT pg_advisory_unlock(7)")
	report := h.done(t)
	h.db.Exec(t, "DROP EVENT TRIGGER hold; DROP FUNCTION hold()")
	return report
}

func mustExec(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := text(t.Context(), conn, sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// text runs statements by the simple protocol and gives the rows of all of them.
func text(ctx context.Context, conn *pgx.Conn, sql string) (string, error) {
	results, err := conn.PgConn().Exec(ctx, sql).ReadAll()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, result := range results {
		b.WriteString(lines(result.Rows))
	}
	return b.String(), nil
}

func lines(rows [][][]byte) string {
	var b strings.Builder
	for _, row := range rows {
		for i, value := range row {
			if i > 0 {
				b.WriteByte('|')
			}
			b.Write(value)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// sqlState is the SQLSTATE of a server's error, else what the error says.
func sqlState(err error) string {
	if err == nil {
		return ""
	}
	if pgErr, ok := err.(*pgconn.PgError); ok { //nolint:errorlint // nothing wraps it here
		return pgErr.Code
	}
	return err.Error()
}
