package examples

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
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
		"usage":   {args: with(sample, "--retire", "burn"), code: 2, says: []string{"--help", "wrong usage"}},
		"refused": {args: []string{"--table", "public.orders", "--alter", "ALTER customer_id TIPE bigint"}, code: 3, says: []string{`"remedy":`, "TIPE", "refused"}},
		"aborted": {args: with(sample, "--alter", "ADD CHECK (customer_id < 50)"), code: 4, says: []string{`"message":`, "aborted and cleaned up"}},
		"a wrong question": {args: sample, env: "CHANGED=SELECT 1 FROM nowhere", code: 1,
			says: []string{"nowhere", "could not be asked"}},
		"a DSN": {args: sample, env: "PGSHADOW_DSN=" + db.DSN, code: 2, says: []string{"PGSHADOW_DSN is set"}},
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
	if got.code != 5 || strings.Count(got.stderr, "it is resumed") != 1 || report(t, env).ExitCode != 5 {
		t.Errorf("got %s", got)
	}
}

// The run waits for the deploy, and the deploy's step for the swap.
func TestDeployReleasesTheCutover(t *testing.T) {
	t.Parallel()
	db := orders(t, small)
	env, before := environment(t, db), rows(t, db)
	release := func(code int, says string) {
		t.Helper()
		if got := run(t, env, releaseScript, "public.orders"); got.code != code || !strings.Contains(got.stderr, says) {
			t.Fatalf("want %d and %q, got %s", code, says, got)
		}
	}
	release(3, "no run of public.orders waits for its release: []")
	wait, letGo := held(t)
	step := start(t, with(env, wait), changeScript, with(sample, "--cutover", "manual")...)
	step.await("throttled")
	release(3, `"phase": "copy"`)
	letGo()
	step.await("the operator to release the cutover")
	if form(t, db) != "integer" {
		t.Error("swapped before it was released")
	}
	release(0, "the tables are swapped")
	if got := step.end(); got.code != 0 || form(t, db) != "bigint" || rows(t, db) != before {
		t.Errorf("the change: got %s", got)
	}
	release(0, "the change is made already")
}

// A release that comes to nothing in time is not carried out after the deploy has failed.
func TestDeployThatFails(t *testing.T) {
	t.Parallel()
	db := orders(t, small)
	env := environment(t, db)
	step := start(t, env, changeScript, with(sample, "--cutover", "manual", "--lock-timeout", "10ms")...)
	step.await("the operator to release the cutover")
	reader, err := db.Conn(t).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reader.Exec(t.Context(), "SELECT FROM public.orders LIMIT 1"); err != nil {
		t.Fatal(err)
	}
	got := run(t, with(env, "LIMIT="+strconv.Itoa(1)), releaseScript, "public.orders")
	if got.code != 5 || !strings.Contains(got.stderr, "the run is paused") {
		t.Errorf("got %s", got)
	}
	if err := reader.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := run(t, env, releaseScript, "public.orders"); got.code != 3 || !strings.Contains(got.stderr, "the run is paused: pgshadow resume") || form(t, db) != "integer" {
		t.Errorf("paused: got %s", got)
	}
	if got := run(t, env, binary, "resume", "--table", "public.orders"); got.code != 0 {
		t.Fatalf("resume: got %s", got)
	}
	if got := step.end(); got.code != 0 || form(t, db) != "bigint" {
		t.Errorf("the change: got %s", got)
	}
}
