package e2e

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// hotWriter writes every row of t, again and again. rounds is for after stop.
type hotWriter struct {
	rounds int
	stop   func()
}

// startHotWriter returns once every row has been written.
func startHotWriter(t *testing.T, db *pgtest.DB) *hotWriter {
	w := &hotWriter{}
	conn := db.Conn(t)
	writing, cancel := context.WithCancel(t.Context())
	first, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for writing.Err() == nil {
			if _, err := conn.Exec(context.WithoutCancel(writing), "UPDATE t SET n = n + 1"); err != nil {
				t.Error(err)
				cancel()
			}
			if w.rounds++; w.rounds == 1 {
				close(first)
			}
			if _, err := conn.Exec(context.WithoutCancel(writing), "SELECT pg_sleep(0.05)"); err != nil {
				t.Error(err)
				cancel()
			}
		}
	}()
	w.stop = func() { cancel(); <-ended }
	t.Cleanup(w.stop) // before the session is closed
	<-first
	return w
}

// TestHotRowsThatAreReplayedTooSlowly: writers dirty every row faster than a slow
// conversion replays them. The run stops and names the rates, and the cutover has
// never asked for the lock: a reader stands in its way, and would be the reason of
// the attempt. When the writers rest, the same command is done.
func TestHotRowsThatAreReplayedTooSlowly(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, `CREATE FUNCTION slow(n int) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS 'BEGIN PERFORM pg_sleep(0.002); RETURN n; END';
		CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t SELECT i, 0 FROM generate_series(1, 1000) i`)
	var writer *hotWriter
	var reader *pgx.Conn
	var reasons []string
	config := tableT(t, db, func(event migration.Event) {
		logEvent(t, event)
		switch e := event.(type) {
		case migration.PhaseStarted:
			if e.Phase == migration.Cutover && writer == nil {
				reader = db.Conn(t)
				if _, err := reader.Exec(t.Context(), "BEGIN; SELECT FROM t LIMIT 1"); err != nil {
					t.Error(err)
				}
				writer = startHotWriter(t, db)
			}
		case migration.AttemptFailed:
			reasons = append(reasons, e.Reason)
		}
	})
	config.Alters = []string{"ALTER COLUMN n TYPE bigint USING slow(n)"}
	config.AllowLossy = true
	config.Cutover.Attempts = 5
	report, err := migration.Run(t.Context(), config)
	if err == nil || report.Outcome != migration.Stopped || report.ExitCode != 5 || report.Cutover.Attempts != 5 || len(reasons) != 4 {
		t.Fatalf("not stopped after 5 attempts: %v, report %+v, attempts %q", err, report, reasons)
	}
	// The writer may have been in the middle of a transaction when the phase began:
	// until that has ended, it is what the cutover waits for.
	spanning := slices.IndexFunc(reasons, func(reason string) bool { return !strings.Contains(reason, "has had a snapshot since") })
	if spanning < 0 {
		t.Fatalf("the attempts never got to the backlog: %q", reasons)
	}
	requireTooSlow(t, append(reasons[spanning:], report.Error.Message)...)
	if report.Cutover.LockWaitMS != 0 || report.Cutover.LockHoldMS != 0 {
		t.Errorf("the lock was asked for: %+v", report.Cutover)
	}

	writer.stop()
	if _, err := reader.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	config.Cutover.Attempts = 0 // as many as there are
	resumed := mustRun(t, config)
	if resumed.RunID != report.RunID {
		t.Errorf("run %s was not resumed: %+v", report.RunID, resumed)
	}
	requireClean(t, db, resumed)
	const right = "SELECT count(*) = 1000 AND min(id) = 1 AND max(id) = 1000 AND bool_and(n = $1) AND min(pg_typeof(n)::text) = 'bigint' FROM t"
	if !pgtest.Scalar[bool](t, db, right, writer.rounds) {
		t.Errorf("the rows are not those of %d rounds", writer.rounds)
	}
}

var bothRates = regexp.MustCompile(`rows of public\.t get dirty at [1-9][0-9.]* keys/s( or more)? and replay manages [1-9][0-9.]* keys/s`)

func requireTooSlow(t *testing.T, reasons ...string) {
	t.Helper()
	for _, reason := range reasons {
		if !bothRates.MatchString(reason) {
			t.Errorf("the rates are not named: %s", reason)
		}
		for _, want := range []string{"would take about ", "it will not converge unless", "slow down what writes to the table", "a longer --max-lock-hold"} {
			if !strings.Contains(reason, want) {
				t.Errorf("the reason lacks %q: %s", want, reason)
			}
		}
	}
}
