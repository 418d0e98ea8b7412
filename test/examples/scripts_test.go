package examples

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

const (
	changeScript  = folder + "ci/change.sh"
	releaseScript = folder + "deploy/release.sh"
)

var sample = []string{"--table", "public.orders", "--alter", "ALTER COLUMN customer_id TYPE bigint"}

func with(args []string, more ...string) []string {
	return append(append([]string{}, args...), more...)
}

// held makes the copy of a run wait until the returned function is called.
func held(t *testing.T) (variable string, letGo func()) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "wait")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return "PGSHADOW_THROTTLE_FILE=" + file, func() {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
}

// status is the one unfinished run of the database.
func status(t *testing.T, env []string) migration.RunStatus {
	t.Helper()
	got := run(t, env, binary, "status", "--output", "json")
	var found []migration.RunStatus
	if err := json.Unmarshal([]byte(got.stdout), &found); err != nil || len(found) != 1 {
		t.Fatalf("want one run: %v, got %s", err, got)
	}
	return found[0]
}

// The step makes the change, and does nothing when it is run again.
func TestChange(t *testing.T) {
	t.Parallel()
	db := orders(t, small)
	env, before := environment(t, db), rows(t, db)
	got := run(t, env, changeScript, sample...)
	if done := report(t, env); got.code != 0 || done.Outcome != migration.Done || form(t, db) != "bigint" || rows(t, db) != before {
		t.Fatalf("got %s", got)
	}
	again := run(t, env, changeScript, sample...)
	if again.code != 0 || !strings.Contains(again.stderr, "the change is made already") {
		t.Errorf("again: got %s", again)
	}
	if runs := pgtest.Scalar[int](t, db, "SELECT count(*) FROM pgshadow.run"); runs != 1 {
		t.Errorf("there were %d runs", runs)
	}
}

// What is no use to try again ends the step at once, with pgshadow's own code and words.
func TestChangeIsNotMade(t *testing.T) {
	t.Parallel()
	db := orders(t, small)
	env := environment(t, db)
	for name, c := range map[string]struct {
		args []string
		env  string
		code int
		says []string
	}{
		"usage":            {args: with(sample, "--retire", "burn"), code: 2, says: []string{"--help", "wrong usage"}},
		"refused":          {args: []string{"--table", "public.orders", "--alter", "ALTER customer_id TIPE bigint"}, code: 3, says: []string{`"remedy":`, "TIPE", "refused"}},
		"aborted":          {args: with(sample, "--alter", "ADD CHECK (customer_id < 50)"), code: 4, says: []string{`"message":`, "aborted and cleaned up"}},
		"a wrong question": {args: sample, env: "CHANGED=SELECT 1 FROM nowhere", code: 2, says: []string{"nowhere", "Nothing was done"}},
		"no answer":        {args: sample, env: "CHANGED=SELECT true WHERE false", code: 2, says: []string{`but "": correct it`}},
		"two answers":      {args: sample, env: "CHANGED=VALUES (false), (false)", code: 2, says: []string{"neither t nor f"}},
		"another answer":   {args: sample, env: "CHANGED=SELECT 'bigint'", code: 2, says: []string{`but "bigint": correct it`}},
		"no server":        {args: sample, env: "PGHOST=" + t.TempDir(), code: 1, says: []string{"could not be asked"}},
		"a DSN":            {args: sample, env: "PGSHADOW_DSN=" + db.DSN, code: 2, says: []string{"PGSHADOW_DSN is set"}},
	} {
		own := with(env, "REPORT="+filepath.Join(t.TempDir(), "report.json"))
		if c.env != "" {
			own = append(own, c.env)
		}
		got := run(t, own, changeScript, c.args...)
		if got.code != c.code || form(t, db) != "integer" || strings.Contains(got.stderr, "it is resumed") {
			t.Errorf("%s: want %d, got %s", name, c.code, got)
		}
		for _, text := range c.says {
			if !strings.Contains(got.stderr, text) {
				t.Errorf("%s: no %q in %s", name, text, got)
			}
		}
	}
	if runs := pgtest.Scalar[int](t, db, "SELECT count(*) FROM pgshadow.run"); runs != 1 {
		t.Errorf("there were %d runs, want that of the aborted one only", runs)
	}
	if left := run(t, env, binary, "cleanup", "--dry-run"); left.stdout != "nothing is left behind\n" {
		t.Errorf("left: got %s", left)
	}
}

// A question that does not find the change would have each pipeline make it again.
func TestChangedMustBeTrue(t *testing.T) {
	t.Parallel()
	env := environment(t, orders(t, small), "CHANGED=SELECT false")
	if got := run(t, env, changeScript, sample...); got.code != 1 || !strings.Contains(got.stderr, "correct it") {
		t.Errorf("got %s", got)
	}
}

// A signal to the step stops the run cleanly; the step, run again, resumes it.
func TestChangeIsStoppedAndResumed(t *testing.T) {
	t.Parallel()
	db := orders(t, large)
	before := rows(t, db)
	env := environment(t, db)
	step := start(t, with(env, "PGSHADOW_MAX_ROWS_PER_SECOND=100", "PGSHADOW_COPY_WORKERS=1", "PGSHADOW_LOG_LEVEL=debug"), changeScript, sample...)
	step.await("chunk copied")
	step.signal(syscall.SIGTERM)
	got := step.end()
	stopped := report(t, env)
	if got.code != 5 || stopped.Outcome != migration.Stopped || !strings.Contains(got.stderr, "stopping cleanly") || !strings.Contains(got.stderr, "run this again") {
		t.Fatalf("got %s", got)
	}
	if run := status(t, env); run.RunID != stopped.RunID || run.State != migration.StateStopped {
		t.Errorf("the run is %+v", run)
	}
	got = run(t, env, changeScript, sample...)
	if done := report(t, env); got.code != 0 || done.RunID != stopped.RunID || form(t, db) != "bigint" || rows(t, db) != before {
		t.Errorf("resumed: got %s", got)
	}
}

// A run that dies is resumed by the step itself. The step's sleep lasts until the server has noticed that the process is
// gone, whose lock would refuse the next one.
func TestChangeResumesByItself(t *testing.T) {
	t.Parallel()
	db := orders(t, small)
	programs := t.TempDir()
	sleep := `#!/bin/sh
exec psql -XAtqc "SELECT pg_advisory_lock(x'70677368'::int, 'public.orders'::regclass::int); SELECT pg_advisory_unlock_all()"
`
	if err := os.WriteFile(filepath.Join(programs, "sleep"), []byte(sleep), 0o700); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	env := environment(t, db)
	env[0] = strings.Replace(env[0], "PATH=", "PATH="+programs+":", 1)
	wait, letGo := held(t)
	step := start(t, with(env, wait), changeScript, sample...)
	step.await("throttled")
	was := status(t, env)
	if err := syscall.Kill(was.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	step.await("it is resumed in 0 s")
	letGo()
	got := step.end()
	if done := report(t, env); got.code != 0 || done.RunID != was.RunID || form(t, db) != "bigint" {
		t.Errorf("got %s", got)
	}
}

// The step gives up after TRIES, where there is no server.
func TestChangeGivesUp(t *testing.T) {
	t.Parallel()
	db := orders(t, small)
	env := environment(t, db, "TRIES=2")
	got := run(t, env, changeScript, with(sample, "--dsn", "host="+t.TempDir())...)
	if got.code != 5 || strings.Count(got.stderr, "it is resumed") != 1 || report(t, env).ExitCode != 5 || !strings.Contains(got.stderr, "if the run had begun") {
		t.Errorf("got %s", got)
	}
}
