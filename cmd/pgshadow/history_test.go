package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/pgshadow/pgshadow/cutover"
	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/pkg/verify"
)

func TestTextHistory(t *testing.T) {
	t.Parallel()
	at := func(minute int) time.Time { return time.Date(2026, 3, 1, 14, minute, 0, 0, time.Local) }
	ended, done, stopped := at(2), 0, 5
	rows, duration, changes, keys := int64(1234567), int64(83_000), uint64(1000), uint64(900)
	record := migration.RunRecord{RunID: "abc", Table: "public.orders", Method: "shadow", Alters: []string{"ADD COLUMN total numeric", "DROP COLUMN\nnote"},
		Set: map[string]string{"total": "net + tax", "a": "b"}, Role: "mover", Host: "db1", PID: 7, StartedAt: at(0), EndedAt: &ended, Phase: "ended", Outcome: "done", ExitCode: &done,
		RowsCopied: &rows, ChangesReceived: &changes, KeysReplayed: &keys, Verify: &verify.Report{Mode: verify.Full, RowsCompared: 1234567},
		Cutover: &cutover.Report{Attempts: 2, LockWaitMS: 1.25, LockHoldMS: 14.5}, RetiredTable: "pgshadow_abc_retired.orders", Warnings: []string{"an event trigger"}, DurationMS: &duration}
	open := migration.RunRecord{RunID: "def", Table: "public.orders", Method: "shadow", Alters: []string{"ADD c int"}, Host: "db1", PID: 8, StartedAt: at(0), Phase: "copy", Outcome: migration.StillOpen,
		ExitCode: &stopped, Detail: "copy:\x1b context canceled"}
	aborted := migration.RunRecord{RunID: "ghi", Table: "public.orders", Method: "native", Alters: []string{"ADD c int"}, Host: "db1", PID: 8, StartedAt: at(0), EndedAt: &ended, Outcome: "aborted",
		ExitCode: new(int), Verify: &verify.Report{Mode: verify.Off}}
	*aborted.ExitCode = 4
	want := `
started         2026-03-01 14:00:00
ended           2026-03-01 14:02:00
duration        1m23s
table           public.orders
run             abc, shadow
statement       ADD COLUMN total numeric
                DROP COLUMN
                note
  set           a = b
  set           total = net + tax
outcome         done
  warning       an event trigger
by              mover, process 7 on db1
rows copied     1,234,567; 1,000 changes received, 900 keys replayed
verification    full: 1,234,567 rows compared, 0 mismatches
lock            held 14.5 ms, after 1.2 ms of waiting for it; 2 attempts
retired table   pgshadow_abc_retired.orders

started         2026-03-01 14:00:00
table           public.orders
run             def, shadow
statement       ADD c int
outcome         open, in phase copy
  because       copy:  context canceled
by              process 8 on db1

started         2026-03-01 14:00:00
ended           2026-03-01 14:02:00
table           public.orders
run             ghi, native
statement       ADD c int
outcome         aborted (exit code 4)
by              process 8 on db1
verification    off
`
	if got := textHistory([]migration.RunRecord{record, open, aborted}); got != strings.TrimPrefix(want, "\n") {
		t.Errorf("got\n%s\nwant%s", got, want)
	}
}

// The history has every run of the database, and is read by other processes, which
// know only the database.
func TestHistory(t *testing.T) {
	t.Parallel()
	db, env := orders(t, 100)
	for _, c := range []struct {
		args []string
		want ended
	}{
		{nil, ended{0, "no runs\n", ""}},
		{[]string{"--output", "json"}, ended{0, "[]\n", ""}},
		{[]string{"--table", "nowhere"}, ended{0, "no runs\n", ""}},
	} {
		if got := runProgram(t, env, with([]string{"history"}, c.args...)...); got != c.want {
			t.Errorf("before, %v: got %s", c.args, got)
		}
	}
	report := runProgram(t, env, with(toBigint, "--output", "json")...).report(t)
	db.Exec(t, "UPDATE orders SET note = 'no number' WHERE id = 5")
	aborted := runProgram(t, env, "alter", "--table", "orders", "--alter", "ALTER COLUMN note TYPE int USING substr(note, 40)::int", "--allow-lossy", "--output", "json").report(t)
	if report.Outcome != migration.Done || aborted.Outcome != migration.Aborted {
		t.Fatalf("%+v, %+v", report, aborted)
	}
	var records []map[string]any
	got := runProgram(t, env, "history", "--output", "json")
	if err := json.Unmarshal([]byte(got.stdout), &records); err != nil || got.code != 0 || len(records) != 2 || records[0]["run_id"] != aborted.RunID || records[1]["run_id"] != report.RunID {
		t.Fatalf("history: %v, got %s", err, got)
	}
	for _, field := range []string{"run_id", "table", "method", "alters", "set", "role", "host", "pid", "started_at", "ended_at", "phase", "outcome", "exit_code", "detail", "fingerprint",
		"rows_copied", "changes_received", "keys_replayed", "verify", "cutover", "retired_table", "warnings", "duration_ms", "phases"} {
		if _, ok := records[0][field]; !ok {
			t.Errorf("history has no field %s: %s", field, got.stdout)
		}
	}
	text := runProgram(t, env, "history", "--table", "orders", "--limit", "1")
	for _, want := range []string{"run             " + aborted.RunID + ", shadow\n", "statement       ALTER COLUMN note TYPE int USING substr(note, 40)::int\n", "outcome         aborted (exit code 4)\n"} {
		if text.code != 0 || text.stderr != "" || !strings.Contains(text.stdout, want) {
			t.Errorf("the last run has no %q: got %s", want, text)
		}
	}
	if strings.Contains(text.stdout, report.RunID) {
		t.Errorf("more than one run: got %s", text)
	}
	if got := runProgram(t, env, "history", "--limit", "0"); got.code != 2 || !strings.Contains(got.stderr, `limit is "0": want a whole number of at least 1`) {
		t.Errorf("no limit: got %s", got)
	}
	if got := runProgram(t, env, "history", "--table", "a.b.c"); got.code != 3 || !strings.Contains(got.stderr, "is not a table's name") {
		t.Errorf("no name: got %s", got)
	}
}
