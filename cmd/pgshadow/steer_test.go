package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/pgshadow/pgshadow/pkg/migration"
)

// steer runs a command that steers a run and requires a yes.
func steer(t *testing.T, env []string, args ...string) migration.Commanded {
	t.Helper()
	got := runProgram(t, env, with(args, "--table", "orders", "--output", "json")...)
	var done migration.Commanded
	if err := json.Unmarshal([]byte(got.stdout), &done); err != nil || got.code != 0 || !done.Accepted || got.stderr != "" {
		t.Fatalf("%v: %v, got %s", args, err, got)
	}
	return done
}

// A run is paused, tuned, released and watched by other processes, which know only
// the database.
func TestSteering(t *testing.T) {
	t.Parallel()
	_, env := orders(t, 2000)
	if got := runProgram(t, env, "status"); got != (ended{0, "there is no unfinished run\n", ""}) {
		t.Errorf("before: got %s", got)
	}
	if got := runProgram(t, env, "status", "--output", "json"); got != (ended{0, "[]\n", ""}) {
		t.Errorf("before, as JSON: got %s", got)
	}
	run := startSlow(t, env, "--cutover", "manual", "--output", "json")
	if done := steer(t, env, "pause"); done.Table != "public.orders" || done.Command != "pause" || done.RunID == "" {
		t.Errorf("pause: %+v", done)
	}
	status := runProgram(t, env, "status", "--table", "orders")
	for _, want := range []string{"table           public.orders\n", "state           paused, in phase copy\n", "slot            holds back "} {
		if status.code != 0 || !strings.Contains(status.stdout, want) {
			t.Errorf("status has no %q: got %s", want, status)
		}
	}
	steer(t, env, "set", "max-rows-per-second=0")
	steer(t, env, "resume")
	run.await("the wait for the operator", func(line string) bool {
		return strings.Contains(line, "the operator to release the cutover") && strings.Contains(line, "pgshadow cutover --table public.orders")
	})
	var statuses []map[string]any
	got := runProgram(t, env, "status", "--output", "json")
	if err := json.Unmarshal([]byte(got.stdout), &statuses); err != nil || len(statuses) != 1 {
		t.Fatalf("status: %v, got %s", err, got)
	}
	for _, field := range []string{"run_id", "table", "phase", "percent", "eta_seconds", "lag_bytes", "dirty_keys", "throttle", "wal_retained_bytes"} {
		if _, ok := statuses[0][field]; !ok {
			t.Errorf("status has no field %s: %s", field, got.stdout)
		}
	}
	steer(t, env, "cutover")
	ended := run.end()
	if report := ended.report(t); ended.code != 0 || report.Outcome != migration.Done || report.RowsCopied != 2000 {
		t.Errorf("the run: got %s", ended)
	}
	for _, want := range []string{"steered command=pause", "steered command=set argument=max-rows-per-second=0", "steered command=cutover"} {
		if !strings.Contains(ended.stderr, want) {
			t.Errorf("the log has no %q:\n%s", want, ended.stderr)
		}
	}
	if got := runProgram(t, env, "pause", "--table", "orders"); got.code != 3 || !strings.Contains(got.stderr, "there is no unfinished run of orders") {
		t.Errorf("afterwards: got %s", got)
	}
}

func TestAbortFromElsewhere(t *testing.T) {
	t.Parallel()
	_, env := orders(t, 2000)
	run := startSlow(t, env, "--output", "json")
	aborted := runProgram(t, env, "abort", "--table", "orders")
	if aborted.code != 0 || !strings.Contains(aborted.stdout, "is aborted; what it made has been removed, and the original is untouched\n") {
		t.Errorf("abort: got %s", aborted)
	}
	ended := run.end()
	if report := ended.report(t); ended.code != 4 || report.Outcome != migration.Aborted || !strings.Contains(report.Error.Message, "aborted by postgres with pgshadow abort") {
		t.Errorf("the run: got %s", ended)
	}
	if left := runProgram(t, env, "cleanup", "--dry-run"); left.stdout != "nothing is left behind\n" {
		t.Errorf("left: got %s", left)
	}
}

// A native run that waits for the operator goes on when it is told to, and says so.
func TestCutoverOfANativeRun(t *testing.T) {
	t.Parallel()
	_, env := orders(t, 10)
	run := start(t, env, "alter", "--table", "orders", "--alter", "ADD COLUMN z int", "--cutover", "manual", "--output", "json")
	run.await("the wait for the operator", func(line string) bool { return strings.Contains(line, "the operator to release the cutover") })
	if done := steer(t, env, "cutover"); done.Answer != "the cutover is released, and attempts begin now" {
		t.Errorf("the answer is %q", done.Answer)
	}
	if ended := run.end(); ended.code != 0 || ended.report(t).Method != "native" {
		t.Errorf("the run: got %s", ended)
	}
}
