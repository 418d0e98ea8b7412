package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// TestUndoKeepsTheOwnersCodeConfined: a column is not looked at where that could have the server check a value of a
// domain while it reads a statement, with the rights of the login role (INV-6). The column is kept, and told.
func TestUndoKeepsTheOwnersCodeConfined(t *testing.T) {
	t.Parallel()
	for name, column := range map[string]string{"array": "e dom[] DEFAULT '{1}'", "composite": "e held DEFAULT ROW(1)", "array of composites": "e held[] DEFAULT ARRAY[ROW(1)::held]"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			owner := trappedTable(t, db)
			db.Exec(t, "SET SESSION AUTHORIZATION "+owner+"; CREATE TYPE held AS (d dom)")
			heard := db.Conn(t)
			mustExec(t, heard, "LISTEN trap")
			report, err := migration.Run(t.Context(), migration.Config{DSN: db.DSN, Table: "t", Alters: []string{"ADD COLUMN " + column + ", ADD CHECK (e IS NOT NULL AND n < 50)"}, Native: migration.NativeOnly})
			if err == nil || report.Outcome != migration.Aborted {
				t.Errorf("%v, report %+v", err, report)
			}
			for _, hit := range listen(t, db, heard) {
				if hit.who != owner {
					t.Errorf("in session %q the %s ran as %s (%s)", hit.session, hit.kind, hit.who, hit.what)
				}
			}
			if !slices.ContainsFunc(report.Warnings, func(w string) bool {
				return strings.Contains(w, `column "e"`) && strings.Contains(w, "not one of PostgreSQL's own")
			}) {
				t.Errorf("nothing says that the column is kept: %q", report.Warnings)
			}
			requireNothingLeft(t, db)
		})
	}
}

// TestChangedWhileTheLockIsWaitedFor: what was judged is the table that it was judged of. Whoever held the lock may have
// altered it, so that the same change is another one.
func TestChangedWhileTheLockIsWaitedFor(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, "CREATE TABLE t (id int PRIMARY KEY, n numeric(8,2)); INSERT INTO t VALUES (1, 1.25)")
	config := tableT(t, db, nil)
	config.Alters, config.Native = []string{"ALTER COLUMN n TYPE numeric(10,2)"}, migration.NativeOnly
	config.Cutover.LockTimeout = time.Minute
	other := db.Conn(t)
	mustExec(t, other, "BEGIN; SELECT count(*) FROM t")
	run := launch(t, config)
	go func() {
		for range run.events { // the run goes on when they are read
		}
	}()
	awaitOne(t, db, run, "wait for the lock", "SELECT count(*) FROM pg_locks WHERE relation = 't'::regclass AND mode = 'AccessExclusiveLock' AND NOT granted")
	mustExec(t, other, "ALTER TABLE t ALTER n TYPE numeric(12,4); INSERT INTO t VALUES (2, 1.2345); COMMIT")
	<-run.ended
	if run.err == nil || run.report.Outcome != migration.Aborted || !strings.Contains(run.err.Error(), "column n changed its type") {
		t.Errorf("not given up: %v, report %+v", run.err, run.report)
	}
	if got := pgtest.Scalar[string](t, db, "SELECT string_agg(n::text, ' ' ORDER BY id) FROM t"); got != "1.2500 1.2345" {
		t.Errorf("the table holds %s", got)
	}
	requireNothingLeft(t, db)
}

// TestIndexThatIsKept: what somebody has come to need of a change that is taken back is left to them, and all else goes.
func TestIndexThatIsKept(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, nativeSchema)
	config := migration.Config{DSN: db.DSN, Table: "t", Alters: []string{"ADD COLUMN z int CHECK (z > 0), ADD UNIQUE (b), ADD UNIQUE (n)"}, Native: migration.NativeOnly}
	// While the second index is about to be built, which does not come to be, the first one is there.
	builds := 0
	config.Observer = migration.ObserverFunc(func(event migration.Event) {
		if step, is := event.(migration.StepStarted); is && strings.HasPrefix(step.SQL, "CREATE UNIQUE INDEX CONCURRENTLY") {
			if builds++; builds == 2 {
				db.Exec(t, "CREATE TABLE theirs (b int REFERENCES t (b))")
			}
		}
	})
	report, err := migration.Run(t.Context(), config)
	if err == nil || report.Outcome != migration.Aborted {
		t.Fatalf("%v, report %+v", err, report)
	}
	if !slices.ContainsFunc(report.Warnings, func(w string) bool { return strings.Contains(w, "index") && strings.Contains(w, "theirs") }) {
		t.Errorf("nothing says that the index is kept, and for whom: %q", report.Warnings)
	}
	if n := pgtest.Scalar[int](t, db, "SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'z'"); n != 0 {
		t.Error("the column is left")
	}
	if left, err := migration.Cleanup(t.Context(), db.DSN, false); err != nil || len(left) != 1 || left[0].Removed || len(left[0].Kept) != 1 {
		t.Errorf("%v, left is %+v", err, left)
	}
}

// TestNativeWhereTheOwnerMayNotCreate: an index or a sequence of the table's is its owner's to create in the schema.
// Where it may not, the table is copied.
func TestNativeWhereTheOwnerMayNotCreate(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	owner := db.Role(t, "owner", "")
	superuser(t, db, "who may create what the owner may not")
	db.Exec(t, "CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL, b int NOT NULL); INSERT INTO t SELECT i, i, i FROM generate_series(1, 100) i; ALTER TABLE t OWNER TO "+owner+"; REVOKE CREATE ON SCHEMA public FROM PUBLIC")
	for alter, method := range map[string]string{"ADD UNIQUE (n)": "shadow", "ALTER COLUMN b ADD GENERATED ALWAYS AS IDENTITY": "shadow", "ADD CHECK (n > 0)": "native"} {
		config := migration.Config{DSN: db.DSN, Table: "t", Alters: []string{alter}, Native: migration.NativeAuto, Retire: migration.Drop}
		plan, err := migration.Plan(t.Context(), migration.PlanConfig{Config: config})
		if err != nil || string(plan.Method) != method {
			t.Errorf("%s: the plan says %q: %v %+v", alter, plan.Method, err, plan.Refusals)
		}
		if report, err := migration.Run(t.Context(), config); err != nil || report.Method != method {
			t.Errorf("%s: %v, report %+v", alter, err, report)
		}
	}
	requireNothingLeft(t, db)
}

// TestTiedByTypes: PostgreSQL gives no new values to a table whose row type a column has, nor other columns to a typed
// table, and plan and run say so alike.
func TestTiedByTypes(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, "CREATE TABLE t (id int PRIMARY KEY, v varchar(10)); INSERT INTO t VALUES (1, 'x'); CREATE TABLE holder (x t);"+
		"CREATE TYPE pair AS (a int, b int); CREATE TABLE typed OF pair (a PRIMARY KEY)")
	config := migration.Config{DSN: login(t, db), Native: migration.NativeAuto}
	for change, exit := range map[string]int{"t ALTER COLUMN v TYPE varchar(20)": 3, "t ADD COLUMN a int DEFAULT 5": 3, "t ADD COLUMN b int": 0, "t ADD CHECK (id > 0)": 0,
		"typed ADD COLUMN c int": 3, "typed DROP COLUMN b": 3, "typed RENAME COLUMN b TO c": 3, "typed ADD CHECK (b > 0)": 0} {
		table, alter, _ := strings.Cut(change, " ")
		config.Table, config.Alters = table, []string{alter}
		plan, err := migration.Plan(t.Context(), migration.PlanConfig{Config: config})
		if err != nil || plan.ExitCode != exit || (exit == 3) != (plan.Verdict == "refused") {
			t.Errorf("%s: %v, the plan ends with %d, verdict %s: %+v", alter, err, plan.ExitCode, plan.Verdict, plan.Refusals)
		}
		if report, err := migration.Run(t.Context(), config); report.ExitCode != exit {
			t.Errorf("%s: %v, report %+v", alter, err, report)
		}
	}
	requireNothingLeft(t, db)
}
