package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pgshadow/pgshadow/cutover"
	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

var rehearsal = append([]string{"rehearse"}, toBigint[1:]...)

// A rehearsal ends with 0 and changes nothing; log and report call it one.
func TestRehearse(t *testing.T) {
	t.Parallel()
	db, env := orders(t, 2000)
	got := runProgram(t, env, with(rehearsal, "--output", "json", "--scale-to", "2e9")...)
	report := got.report(t)
	if got.code != 0 || report.Outcome != migration.Done || report.Rehearsal == nil || report.Rehearsal.Scaled == nil || report.Rehearsal.Scaled.Rows != 2_000_000_000 {
		t.Fatalf("got %s", got)
	}
	for _, want := range []string{"rehearsal started", "swap rehearsed and rolled back", "rehearsal ended"} {
		if !strings.Contains(got.stderr, want) {
			t.Errorf("the log has no %q:\n%s", want, got.stderr)
		}
	}
	// What other programs read is there, whatever the rehearsal found.
	for _, field := range []string{`"failing_rows": []`, `"failing_rows_total": 0`, `"failing_rows_complete": true`, `"after_swap": []`, `"lock_hold_ms":`, `"commit_ms":`, `"shadow_bytes":`} {
		if !strings.Contains(got.stdout, field) {
			t.Errorf("the report has no %s:\n%s", field, got.stdout)
		}
	}
	if kind := pgtest.Scalar[string](t, db, "SELECT pg_typeof(min(customer_id))::text FROM orders"); kind != "integer" {
		t.Errorf("the column is a %s", kind)
	}
	// The file of the change serves the rehearsal too.
	file := filepath.Join(t.TempDir(), "change.yaml")
	if err := os.WriteFile(file, []byte("retire: drop\ncutover: auto\nrestart: true\nalter: DROP COLUMN note\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if again := runProgram(t, env, "rehearse", "--table", "orders", "--config", file, "--output", "json"); again.code != 0 || again.report(t).Rehearsal.Scaled != nil {
		t.Errorf("with the file of the change: got %s", again)
	}
	if changed := runProgram(t, env, with(toBigint, "--output", "json")...); changed.code != 0 || changed.report(t).Rehearsal != nil {
		t.Errorf("the change: got %s", changed)
	}
}

// Flags of alter that a rehearsal has no use for do not exist.
func TestFlagsOfRehearse(t *testing.T) {
	t.Parallel()
	p := &program{}
	of, flags := p.alterCommand().flags(), p.rehearseCommand().flags()
	for _, flag := range of {
		if slices.Contains(flags, flag) == slices.Contains(forRealAlone, strings.TrimPrefix(flag, "--")) {
			t.Errorf("%s: alter has it, and rehearse: %t", flag, slices.Contains(flags, flag))
		}
	}
	if len(flags) != len(of)-len(forRealAlone)+1 || !slices.Contains(flags, "--scale-to") {
		t.Errorf("the flags are %v", flags)
	}
	got := runProgram(t, nil, with(rehearsal, "--scale-to", "a lot")...)
	if want := "pgshadow rehearse: scale-to is \"a lot\": want a number of rows such as 2e9, or a size such as 1.5TB\nsee: pgshadow rehearse --help\n"; got != (ended{2, "", want}) {
		t.Errorf("got %s", got)
	}
}

// A rehearsal takes what is for a plan no more than a run does.
func TestRehearseIsNoPlan(t *testing.T) {
	t.Parallel()
	for want, flags := range map[string][]string{
		"output is \"sql\": want text or json; sql is for --dry-run": {"--output", "sql"},
		"check-data is for --dry-run: a run checks every row anyway": {"--check-data"},
	} {
		if got := runProgram(t, nil, with(rehearsal, flags...)...); got != (ended{2, "", "pgshadow rehearse: " + want + "\nsee: pgshadow rehearse --help\n"}) {
			t.Errorf("%s: got %s", flags, got)
		}
	}
}

// killed leaves a rehearsal as kill -9 does, in the middle of the copy.
func killed(t *testing.T, env []string) {
	t.Helper()
	slow := start(t, env, with(rehearsal, "--max-rows-per-second", "100", "--copy-workers", "1", "--log-level", "debug")...)
	slow.await("a chunk", func(line string) bool { return strings.Contains(line, "chunk copied") })
	if err := slow.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	slow.end()
}

// What a killed rehearsal has left is told, is not taken up by a change, and goes with
// cleanup, or with another rehearsal.
func TestKilledRehearsal(t *testing.T) {
	t.Parallel()
	const left = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'pgshadow\\_%'"
	db, env := orders(t, 20_000)
	killed(t, env)
	var statuses []migration.RunStatus
	status := runProgram(t, env, "status", "--output", "json")
	if err := json.Unmarshal([]byte(status.stdout), &statuses); err != nil || len(statuses) != 1 || !statuses[0].Rehearsal {
		t.Errorf("%v: got %s", err, status)
	}
	if text := runProgram(t, env, "status"); !strings.Contains(text.stdout, ", a rehearsal\n") || !strings.Contains(text.stdout, "another pgshadow rehearse does it too") {
		t.Errorf("got %s", text)
	}
	refused := runProgram(t, env, with(toBigint, "--output", "json")...)
	if report := refused.report(t); refused.code != 3 || report.Error.Check != "unfinished run" || !strings.Contains(report.Error.Message, "is a rehearsal") ||
		!strings.Contains(report.Error.Remedy, "pgshadow cleanup") {
		t.Errorf("the change: got %s", refused)
	}
	if cleaned := runProgram(t, env, "cleanup"); cleaned.code != 0 || pgtest.Scalar[int](t, db, left) != 0 {
		t.Errorf("cleanup: got %s", cleaned)
	}

	killed(t, env)
	again := runProgram(t, env, with(rehearsal, "--output", "json")...)
	if report := again.report(t); again.code != 0 || report.RowsCopied != 20_000 || report.Rehearsal.Estimate == nil || pgtest.Scalar[int](t, db, left) != 0 {
		t.Errorf("another rehearsal: got %s", again)
	}

	killed(t, env)
	if changed := runProgram(t, env, with(toBigint, "--restart", "--output", "json")...); changed.code != 0 || changed.report(t).Rehearsal != nil {
		t.Errorf("the change with --restart: got %s", changed)
	}
}

func TestTextReportOfARehearsal(t *testing.T) {
	t.Parallel()
	done := migration.Report{RunID: "abc", Table: "public.orders", Outcome: migration.Done, RowsCopied: 1000, DurationMS: 3000,
		Cutover: cutover.Report{Attempts: 1, LockWaitMS: 1, LockHoldMS: 14.5, FenceMS: 3, CommitMS: 2.5},
		Rehearsal: &migration.RehearsalReport{LockHoldsMS: []float64{12, 14.5, 20}, AfterSwap: []string{"refreshing materialized view public.mv"},
			Estimate: &migration.Estimate{Factor: 1, Rows: 1000, OriginalBytes: 1 << 20, ShadowBytes: 2 << 20, WALBytes: 3 << 20, DurationMS: 2500, LockHoldMS: 14.5},
			Scaled: &migration.Estimate{Factor: 2000, Rows: 2_000_000, OriginalBytes: 2000 << 20, ShadowBytes: 4000 << 20, WALBytes: 6000 << 20, DurationMS: 3_600_000, LockHoldMS: 14.5,
				Phases: []migration.PhaseDuration{{Name: "copy", DurationMS: 3_500_000}, {Name: "prepare", DurationMS: 7}}}}}
	aborted := migration.Report{RunID: "abc", Table: "public.orders", Outcome: migration.Aborted, ExitCode: 4, Error: &migration.ReportError{Message: "copy: no", SQLState: "22P02"},
		Rehearsal: &migration.RehearsalReport{FailingRowsTotal: 1000, FailingRows: []migration.FailingRow{{Key: "(7)", SQLState: "22P02", Message: "no"}, {SQLState: "23505", Message: "twice"}}}}
	for name, c := range map[string]struct {
		report migration.Report
		want   string
	}{
		"done": {done, `
table           public.orders
run             abc
outcome         done, a rehearsal
rows copied     1,000
changes         0 received, 0 keys replayed
cutover         1 attempt; the last waited 1.0 ms for the lock and held it 14.5 ms, 3.0 ms of that for the fence
                it was rolled back; 2.5 ms of the hold are a COMMIT that was measured after it
  all holds     12.0, 14.5, 20.0 ms; the cutover above is the median
a run here      about 2.500 s for 1,000 rows, 1.0 MB with indexes; the lock is held for 14.5 ms
  disk          2.0 MB for the shadow, 3.0 MB of WAL
2,000 times     about 1h00m00s for 2,000,000 rows, 2.0 GB with indexes; the lock is held for 14.5 ms
  disk          3.9 GB for the shadow, 5.9 GB of WAL
  copy          58m20s
  prepare       0.007 s
after the swap  refreshing materialized view public.mv, which is not in the estimates
duration        3.000 s
`},
		"aborted": {aborted, `
table           public.orders
run             abc
outcome         aborted, a rehearsal (exit code 4)
error           copy: no
sqlstate        22P02
rows copied     0
changes         0 received, 0 keys replayed
failing rows    key (7): no (SQLSTATE 22P02)
                twice (SQLSTATE 23505)
  in all        at least 1,000
duration        0.000 s
`},
	} {
		if got := textReport(c.report); got != strings.TrimPrefix(c.want, "\n") {
			t.Errorf("%s:\n%s", name, got)
		}
	}
}
