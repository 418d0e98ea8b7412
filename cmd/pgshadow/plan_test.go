package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgshadow/pgshadow/pkg/keyset"
	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/pkg/schema"
	"github.com/pgshadow/pgshadow/pkg/shadow"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// written is a file of the given content.
func written(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Whatever takes --expect-plan reads the file, and refuses with check plan what is not
// as planned.
func TestExpectPlan(t *testing.T) {
	t.Parallel()
	db, env := orders(t, 100)
	db.Exec(t, "CREATE TABLE others (LIKE orders INCLUDING ALL)")
	planned := runProgram(t, env, "plan", "--table", "orders", "--alter", "ADD COLUMN z int", "--output", "json")
	if planned.code != 0 {
		t.Fatalf("got %s", planned)
	}
	file, bad := written(t, "plan.json", planned.stdout), written(t, "bad.json", "{}")
	for _, command := range [][]string{{"plan"}, {"alter", "--dry-run"}, {"rehearse"}, {"alter"}} {
		change := func(table, alter, expect string, more ...string) ended {
			t.Helper()
			return runProgram(t, env, with(command, append(more, "--table", table, "--alter", alter, "--expect-plan", expect)...)...)
		}
		if got := change("orders", "ADD COLUMN z int", bad); got.code != 2 || !strings.Contains(got.stderr, "want a file that pgshadow plan --output json has written") {
			t.Errorf("%s, a bad file: got %s", command, got)
		}
		for says, got := range map[string]ended{
			"it is the plan of public.orders, and not of public.others": change("others", "ADD COLUMN z int", file),
			"the plan is for another change: ADD COLUMN z int":          change("orders", "ADD COLUMN y int", file),
			"by the plan the method is native, and now it would be":     change("orders", "ADD COLUMN z int", file, "--native", "never"),
		} {
			if got.code != 3 || !strings.Contains(got.stdout, says) || !strings.Contains(got.stdout, "  check         plan\n") && !strings.Contains(got.stdout, "check           plan\n") {
				t.Errorf("%s, %s: got %s", command, says, got)
			}
		}
		if command[0] != "alter" || len(command) > 1 {
			if got := change("orders", "ADD COLUMN z int", file); got.code != 0 {
				t.Errorf("%s, as planned: got %s", command, got)
			}
		}
	}
	db.Exec(t, "COMMENT ON COLUMN orders.note IS 'new'")
	if got := runProgram(t, env, "plan", "--table", "orders", "--alter", "ADD COLUMN z int", "--expect-plan", file, "--output", "json"); got.code != 3 || !strings.Contains(got.stdout, "public.orders has changed since the plan") {
		t.Errorf("a changed table: got %s", got)
	}
}

// One file serves the plan, the rehearsal and the change.
func TestOneFileForAll(t *testing.T) {
	t.Parallel()
	_, env := orders(t, 100)
	file := written(t, "change.yaml", "table: orders\nalter: ALTER COLUMN customer_id TYPE bigint\nscale-to: 2e9\ncutover: auto\nretire: drop\nlog-format: json\nlog-level: warn\ndry-run: false\n")
	for _, command := range []string{"plan", "rehearse", "alter"} {
		if got := runProgram(t, env, command, "--config", file); got.code != 0 {
			t.Errorf("%s: got %s", command, got)
		}
	}
}

// A server that cannot be reached stops a plan as it does a run, and a list that could
// not be made is not an empty one.
func TestNoServerForOthers(t *testing.T) {
	t.Parallel()
	env := []string{"PGSHADOW_DSN=host=" + t.TempDir()}
	for command, code := range map[string]int{"plan --table orders --alter=ADD_x": 5, "cleanup": 1, "cleanup --dry-run": 1, "cleanup --output json": 1, "finish --table orders": 1} {
		got := runProgram(t, env, strings.Fields(command)...)
		if got.code != code || got.stdout != "" || !strings.Contains(got.stderr, "connecting") {
			t.Errorf("%s: got %s", command, got)
		}
	}
	_, there := orders(t, 1)
	if got := runProgram(t, there, "finish", "--table", "nowhere"); got.code != 3 || got.stdout != "" || got.stderr == "" {
		t.Errorf("finish, refused: got %s", got)
	}
}

// What is not known of the table is left out.
func TestPlanOfNothing(t *testing.T) {
	t.Parallel()
	_, env := orders(t, 1)
	missing := runProgram(t, env, "plan", "--table", "nowhere", "--alter", "ADD c int")
	if missing.code != 3 || !strings.Contains(missing.stdout, "there is no table nowhere") {
		t.Errorf("got %s", missing)
	}
	wrong := runProgram(t, env, "plan", "--table", "orders", "--alter", "ALTER customer_id TIPE bigint")
	if wrong.code != 3 || !strings.Contains(wrong.stdout, "\nsize ") || !strings.Contains(wrong.stdout, "\nfingerprint ") {
		t.Errorf("got %s", wrong)
	}
	for _, got := range []ended{missing, wrong} {
		if strings.Contains(got.stdout, "verdict") || strings.Contains(got.stdout, "primary") {
			t.Errorf("got %s", got)
		}
	}
	if strings.Contains(missing.stdout, "\nsize ") || strings.Contains(missing.stdout, "fingerprint") {
		t.Errorf("got %s", missing)
	}
}

func TestTextPlan(t *testing.T) {
	t.Parallel()
	key := keyset.NewKey("7")
	native := migration.PlanReport{Table: "public.t", Alters: []string{"ADD CHECK (n > 0)"}, Verdict: "scan", Method: "native", Facts: &schema.Table{}, Fingerprint: "abc",
		Estimate: &migration.PlanEstimate{DiskBytes: 1 << 20},
		Rows:     &migration.PlanRows{Tried: 1000, Failing: 1, Failures: []migration.PlanFailure{{Key: &key, SQLState: "23514", Message: "no"}}}}
	copied := native
	copied.Method, copied.Verdict = "shadow", "rewrite"
	copied.Rows = &migration.PlanRows{Tried: 1000, Failures: []migration.PlanFailure{{Index: "t_n", SQLState: "23505", Message: "twice"}}}
	standby := migration.PlanReport{Table: "public.t", Verdict: "unknown", NeedsPrimary: []string{"the verdict"}, Facts: &schema.Table{}, Refusals: []*shadow.Refusal{}}
	for name, c := range map[string]struct {
		report    migration.PlanReport
		has, lack []string
	}{
		"native": {native, []string{"  disk          1.0 MB beside the table\n",
			"rows            1,000 tried, a sample: 1 do not fit\n                the run would abort, with exit code 4\n  failing       row (7): no (SQLSTATE 23514)\n"}, []string{"slot"}},
		"shadow": {copied, []string{"; and what the slot holds back of the server's WAL\n",
			"a sample: each of them fits, but not all of them together\n                the run would abort, with exit code 4\n  failing       index t_n: twice"}, nil},
		"standby": {standby, []string{"which needs the primary\n", "\nsize "}, []string{"\nmethod"}},
	} {
		got := textPlan(c.report)
		for _, part := range c.has {
			if !strings.Contains(got, part) {
				t.Errorf("%s has no %q:\n%s", name, part, got)
			}
		}
		for _, part := range c.lack {
			if strings.Contains(got, part) {
				t.Errorf("%s has %q:\n%s", name, part, got)
			}
		}
	}
}

// The lists of a plan are lists in JSON also where the server refuses the connection.
func TestJSONPlanOfNothing(t *testing.T) {
	t.Parallel()
	_, env := orders(t, 1)
	got := runProgram(t, env, "plan", "--table", "nowhere", "--alter", "ADD c int", "--output", "json")
	var report migration.PlanReport
	if err := json.Unmarshal([]byte(got.stdout), &report); err != nil || got.code != 3 || report.ExitCode != 3 || report.Facts != nil || len(report.Refusals) != 1 {
		t.Errorf("%v: got %s", err, got)
	}
}

// An interrupted plan leaves nothing running on the server, and says that there is none.
func TestInterruptedPlan(t *testing.T) {
	t.Parallel()
	db, env := orders(t, 100)
	db.Exec(t, "CREATE FUNCTION slow(bigint) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM pg_sleep(60); RETURN true; END $$")
	plan := start(t, env, "plan", "--table", "orders", "--alter", "ALTER COLUMN customer_id TYPE bigint, ADD CHECK (slow(id))")
	const trying = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'pgshadow plan'"
	awaitCount(t, db, trying+" AND wait_event = 'PgSleep'", 1)
	if err := plan.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	ended := plan.end()
	if ended.code != 5 || !strings.Contains(ended.stderr, "rolled back") || !strings.Contains(ended.stderr, "nothing was created") {
		t.Errorf("got %s", ended)
	}
	awaitCount(t, db, trying, 0)
}

func awaitCount(t *testing.T, db *pgtest.DB, sql string, want int) {
	t.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(time.Minute)
	for pgtest.Scalar[int](t, db, sql) != want {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("it never came to %d: %s", want, sql)
		}
	}
}
