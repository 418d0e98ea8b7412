package examples

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

const theOperator = "the operator to release the cutover"

// inPlace puts a program before another one in PATH. In its script $real is the other one, $dir a folder of the
// test's, which it shares with those that are put in place with the same folder.
func inPlace(t *testing.T, db *pgtest.DB, env []string, dir, name, script string) {
	t.Helper()
	other := map[string]string{"pgshadow": binary, "psql": psql(t, db)}[name]
	programs := t.TempDir()
	script = "#!/bin/sh\nreal='" + other + "' dir='" + dir + "'\n" + script + "\nexec \"$real\" \"$@\"\n"
	if err := os.WriteFile(filepath.Join(programs, name), []byte(script), 0o700); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	env[0] = strings.Replace(env[0], "PATH=", "PATH="+programs+":", 1)
}

// waiting starts the change, and returns when it waits for its release.
func waiting(t *testing.T, db *pgtest.DB, args ...string) *process {
	t.Helper()
	step := start(t, environment(t, db), changeScript, with(with(sample, args...), "--cutover", "manual")...)
	step.await(theOperator)
	return step
}

// atEnd is what the change came to. Where the test has failed already the run may wait for ever, and is aborted.
func atEnd(t *testing.T, db *pgtest.DB, step *process) ended {
	t.Helper()
	if t.Failed() {
		t.Logf("aborting the run: %s", run(t, environment(t, db), binary, "abort", "--table", "public.orders"))
	}
	return step.end()
}

// inUse keeps the table from being swapped until the returned function is called.
func inUse(t *testing.T, db *pgtest.DB) (letGo func()) {
	t.Helper()
	reader, err := db.Conn(t).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reader.Exec(t.Context(), "SELECT FROM public.orders LIMIT 1"); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := reader.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// isPaused tells that the deploy's step has ended with the run paused, and has the run go on to its end.
func isPaused(t *testing.T, db *pgtest.DB, step *process, got ended) {
	t.Helper()
	env := environment(t, db)
	if got.code != 5 || !strings.Contains(got.stderr, "the run is paused") {
		t.Errorf("got %s", got)
	}
	if now := status(t, env); now.State != migration.StatePaused || form(t, db) != "integer" {
		t.Errorf("the run is %+v, customer_id is %s", now, form(t, db))
	}
	if got := run(t, env, binary, "resume", "--table", "public.orders"); got.code != 0 {
		t.Errorf("resume: got %s", got)
	}
	if got := atEnd(t, db, step); got.code != 0 || form(t, db) != "bigint" {
		t.Errorf("the change: got %s", got)
	}
}

// The run waits for the deploy, and the deploy's step for the swap.
func TestDeployReleasesTheCutover(t *testing.T) {
	t.Parallel()
	db := orders(t, small)
	env, before := environment(t, db), rows(t, db)
	release := func(code int, says string) {
		t.Helper()
		if got := run(t, env, releaseScript, "public.orders"); got.code != code || !strings.Contains(got.stderr, says) || strings.ContainsAny(got.stderr, "[]{}") {
			t.Fatalf("want %d and %q, got %s", code, says, got)
		}
	}
	release(3, "no run of public.orders waits for its release: there is none.")
	wait, letGo := held(t)
	step := start(t, with(env, wait), changeScript, with(sample, "--cutover", "manual")...)
	step.await("throttled")
	release(3, "no run of public.orders waits for its release yet; run "+status(t, env).RunID+" is in phase copy\n")
	letGo()
	step.await(theOperator)
	if form(t, db) != "integer" {
		t.Error("swapped before it was released")
	}
	release(0, "the change is made")
	if got := atEnd(t, db, step); got.code != 0 || form(t, db) != "bigint" || rows(t, db) != before {
		t.Errorf("the change: got %s", got)
	}
	release(0, "the change is made already")
}

// A native change waits before its first statement, in a phase of its own.
func TestDeployReleasesANativeChange(t *testing.T) {
	t.Parallel()
	db := orders(t, small)
	env := environment(t, db, "CHANGED=SELECT attnotnull FROM pg_attribute WHERE attrelid = 'public.orders'::regclass AND attname = 'note'")
	step := start(t, env, changeScript, "--table", "public.orders", "--alter", "ALTER COLUMN note SET NOT NULL", "--cutover", "manual")
	step.await(theOperator)
	if got := run(t, env, releaseScript, "public.orders"); got.code != 0 || !strings.Contains(got.stderr, "the change is made") {
		t.Errorf("got %s", got)
	}
	if got := atEnd(t, db, step); got.code != 0 || report(t, env).Method != "native" {
		t.Errorf("the change: got %s", got)
	}
}

// A question that has no answer releases nothing.
func TestDeployAsksFirst(t *testing.T) {
	t.Parallel()
	db := orders(t, small)
	step := waiting(t, db)
	for _, c := range []struct {
		env, says string
		code      int
	}{
		{"CHANGED=SELECT true WHERE false", `but "": correct it`, 2},
		{"CHANGED=SELECT 1 FROM nowhere", "neither t nor f", 2},
		{"PGHOST=" + t.TempDir(), "could not be asked", 1},
		{"LIMIT=5m", "want seconds", 2},
	} {
		env := environment(t, db, c.env)
		if got := run(t, env, releaseScript, "public.orders"); got.code != c.code || !strings.Contains(got.stderr, c.says) {
			t.Errorf("%s: want %d and %q, got %s", c.env, c.code, c.says, got)
		}
	}
	if now := status(t, environment(t, db)); now.CutoverReleased || now.State == migration.StatePaused {
		t.Errorf("the run is %+v", now)
	}
	if got := run(t, environment(t, db), releaseScript, "public.orders"); got.code != 0 {
		t.Errorf("got %s", got)
	}
	if got := atEnd(t, db, step); got.code != 0 {
		t.Errorf("the change: got %s", got)
	}
}

// A release that comes to nothing in time is not carried out after the deploy has failed.
func TestDeployThatFails(t *testing.T) {
	t.Parallel()
	db := orders(t, small)
	step := waiting(t, db, "--lock-timeout", "10ms")
	letGo := inUse(t, db)
	got := run(t, environment(t, db, "LIMIT=1"), releaseScript, "public.orders")
	letGo()
	if got := run(t, environment(t, db), releaseScript, "public.orders"); got.code != 3 || !strings.Contains(got.stderr, "the run is paused: pgshadow resume") {
		t.Errorf("paused: got %s", got)
	}
	isPaused(t, db, step, got)
}

// A deploy that is cancelled leaves nothing released.
func TestDeployThatIsCancelled(t *testing.T) {
	t.Parallel()
	for name, signal := range map[string]syscall.Signal{"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "HUP": syscall.SIGHUP} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := orders(t, small)
			step := waiting(t, db, "--lock-timeout", "10ms", "--cutover-attempts", "10000")
			letGo := inUse(t, db)
			deploy := start(t, environment(t, db), releaseScript, "public.orders")
			step.await("cutover attempt failed")
			deploy.signal(signal)
			got := deploy.end()
			letGo()
			isPaused(t, db, step, got)
		})
	}
}

// A signal is not held up by a program that hangs, be it on the release, or after it.
func TestDeployIsCancelledWhileItAsks(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ pgshadow, psql string }{
		"releasing": {pgshadow: `if [ "$1" = cutover ]; then "$real" "$@"; echo it hangs >&2; exec tail -f /dev/null; fi`},
		"looking":   {pgshadow: `if [ "$1" = cutover ]; then : >"$dir/released"; elif [ "$1" = status ] && [ -e "$dir/released" ] && mkdir "$dir/once" 2>/dev/null; then echo it hangs >&2; exec tail -f /dev/null; fi`},
		"asking": {pgshadow: `if [ "$1" = cutover ]; then : >"$dir/released"; fi`,
			psql: `if [ -e "$dir/released" ] && mkdir "$dir/once" 2>/dev/null; then echo it hangs >&2; exec tail -f /dev/null; fi`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := orders(t, small)
			step := waiting(t, db, "--lock-timeout", "10ms", "--cutover-attempts", "10000")
			letGo := inUse(t, db)
			env, dir := environment(t, db), t.TempDir()
			inPlace(t, db, env, dir, "pgshadow", c.pgshadow)
			inPlace(t, db, env, dir, "psql", c.psql)
			deploy := start(t, env, releaseScript, "public.orders")
			deploy.await("it hangs")
			deploy.signal(syscall.SIGTERM)
			got := deploy.end()
			letGo()
			isPaused(t, db, step, got)
		})
	}
}

// A deploy that is cancelled before it has released anything leaves the run as it is.
func TestDeployIsCancelledBeforeTheRelease(t *testing.T) {
	t.Parallel()
	db := orders(t, small)
	step := waiting(t, db)
	env := environment(t, db)
	inPlace(t, db, env, "", "psql", "echo it hangs >&2; exec tail -f /dev/null")
	deploy := start(t, env, releaseScript, "public.orders")
	deploy.await("it hangs")
	deploy.signal(syscall.SIGTERM)
	if got := deploy.end(); got.code != 5 || !strings.Contains(got.stderr, "nothing was released") {
		t.Errorf("got %s", got)
	}
	if now := status(t, environment(t, db)); now.CutoverReleased || now.State == migration.StatePaused {
		t.Errorf("the run is %+v", now)
	}
	if got := run(t, environment(t, db), releaseScript, "public.orders"); got.code != 0 {
		t.Errorf("got %s", got)
	}
	if got := atEnd(t, db, step); got.code != 0 {
		t.Errorf("the change: got %s", got)
	}
}

const (
	noteRelease = `if [ "$1" = cutover ]; then : >"$dir/released"; fi`
	failOnce    = `if [ -e "$dir/released" ] && mkdir "$dir/once" 2>/dev/null; then echo it fails >&2; exit 2; fi`
)

// One look that fails is not the end of the deploy.
func TestDeployLooksAgain(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ pgshadow, psql string }{
		"the run":      {pgshadow: noteRelease + "\n" + `if [ "$1" = status ]; then ` + failOnce + "; fi"},
		"the question": {pgshadow: noteRelease, psql: failOnce},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := orders(t, small)
			step := waiting(t, db)
			env, dir := environment(t, db), t.TempDir()
			inPlace(t, db, env, dir, "pgshadow", c.pgshadow)
			inPlace(t, db, env, dir, "psql", c.psql)
			got := run(t, env, releaseScript, "public.orders")
			if got.code != 0 || strings.Count(got.stderr, "it fails") != 1 || !strings.Contains(got.stderr, "the change is made") {
				t.Errorf("got %s", got)
			}
			if got := atEnd(t, db, step); got.code != 0 || form(t, db) != "bigint" {
				t.Errorf("the change: got %s", got)
			}
		})
	}
}

// Looks that fail to the end, and a release of which nobody knows, end in a pause.
func TestDeployDoesNotKnow(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ pgshadow, psql string }{
		"the run":      {pgshadow: noteRelease + "\n" + `if [ "$1" = status ] && [ -e "$dir/released" ]; then exit 1; fi`},
		"the question": {pgshadow: noteRelease, psql: `if [ -e "$dir/released" ]; then exit 2; fi`},
		"the release":  {pgshadow: `if [ "$1" = cutover ]; then "$real" "$@"; exit 1; fi`},
		"the pause":    {pgshadow: noteRelease + "\n" + `if [ "$1" = pause ]; then ` + failOnce + "; fi"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := orders(t, small)
			step := waiting(t, db, "--lock-timeout", "10ms", "--cutover-attempts", "10000")
			letGo := inUse(t, db)
			env, dir := environment(t, db, "LIMIT=0"), t.TempDir()
			inPlace(t, db, env, dir, "pgshadow", c.pgshadow)
			inPlace(t, db, env, dir, "psql", c.psql)
			got := run(t, env, releaseScript, "public.orders")
			letGo()
			isPaused(t, db, step, got)
		})
	}
}

// A swap that comes just before the pause is the deploy's.
func TestDeployThatIsChangedAtLast(t *testing.T) {
	t.Parallel()
	db := orders(t, small)
	step := waiting(t, db)
	env, dir := environment(t, db, "LIMIT=0"), t.TempDir()
	// Nothing is known before the pause, and that comes when the run has ended.
	inPlace(t, db, env, dir, "pgshadow", noteRelease+"\n"+`if [ "$1" = pause ]; then
	until [ "$("$real" status --output json)" = '[]' ]; do :; done
	rm "$dir/released"
fi`)
	inPlace(t, db, env, dir, "psql", `if [ -e "$dir/released" ]; then exit 2; fi`)
	if got := run(t, env, releaseScript, "public.orders"); got.code != 0 || !strings.Contains(got.stderr, "but the change is made") {
		t.Errorf("got %s", got)
	}
	if got := atEnd(t, db, step); got.code != 0 || form(t, db) != "bigint" {
		t.Errorf("the change: got %s", got)
	}
}

// A run that is gone is told from one that could not be paused.
func TestDeployOfARunThatEnds(t *testing.T) {
	t.Parallel()
	db := orders(t, small)
	step := waiting(t, db)
	env := environment(t, db)
	inPlace(t, db, env, "", "pgshadow", `if [ "$1" = cutover ]; then "$real" abort --table public.orders; exit 1; fi`)
	if got := run(t, env, releaseScript, "public.orders"); got.code != 4 || !strings.Contains(got.stderr, "the run has ended") {
		t.Errorf("got %s", got)
	}
	if got := atEnd(t, db, step); got.code != 4 || form(t, db) != "integer" {
		t.Errorf("the change: got %s", got)
	}
}
