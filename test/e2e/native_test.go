package e2e

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

const nativeSchema = `CREATE TABLE other (id int PRIMARY KEY, a int, b int, UNIQUE (a, b)); INSERT INTO other SELECT i, i, i FROM generate_series(1, 10) i;
	CREATE TABLE t (id int PRIMARY KEY, n int, b int, v text, w varchar(20), nn int CHECK (nn IS NOT NULL), "Odd Name" int, g int GENERATED ALWAYS AS (n + 1) STORED);
	CREATE TABLE taken (x int CONSTRAINT t_n_check CHECK (x > 0));
	ALTER TABLE t ADD CONSTRAINT later CHECK (b > 0) NOT VALID; CREATE INDEX t_v ON t (v);
	INSERT INTO t SELECT i, 1 + i % 10, i, 'v' || i, i, i, 1 + i % 10 FROM generate_series(1, 2000) i`

// natives are changes that PostgreSQL is led through itself, one after the other.
var natives = [][]string{
	{"ADD COLUMN z int DEFAULT 5"},
	{"ADD COLUMN y text, DROP COLUMN z"},
	{"RENAME COLUMN y TO yy"},
	{"ALTER COLUMN w TYPE varchar(40)", "ALTER COLUMN w SET DEFAULT 'x'"},
	{"ALTER COLUMN nn SET NOT NULL"},
	{"SET (fillfactor = 70)"},
	{"ALTER COLUMN v SET STATISTICS 200"},
	{"VALIDATE CONSTRAINT later"},
	{"ADD CHECK (n > 0)"},
	{"ADD CHECK ((ARRAY[n, b])[1] > 0)"},
	{"ADD CONSTRAINT positive CHECK (n + b > 0)", "ADD CHECK (b > id - 1)"},
	{"ALTER COLUMN n SET NOT NULL, ALTER COLUMN b SET NOT NULL"},
	{"ADD FOREIGN KEY (n) REFERENCES other"},
	{`ADD CONSTRAINT "to other" FOREIGN KEY ("Odd Name", n) REFERENCES other (a, b) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED`},
	{"ADD UNIQUE (b)"},
	{"ADD UNIQUE (id) INCLUDE (id, id)"},
	{`ADD CONSTRAINT "Un" UNIQUE (id, "Odd Name") INCLUDE (v) WITH (fillfactor = 80) DEFERRABLE INITIALLY DEFERRED`},
	{"ADD COLUMN c int DEFAULT 3 CHECK (c > 2) REFERENCES other, ADD COLUMN d int UNIQUE"},
	{"ADD COLUMN e int NOT NULL DEFAULT 7, ADD CHECK (e = 7)"},
	{"DROP CONSTRAINT t_pkey"},
	{"ADD PRIMARY KEY (nn)"},
	{"ADD COLUMN " + strings.Repeat("long_", 12) + "name int, ADD UNIQUE (" + strings.Repeat("long_", 12) + "name)"},
	{"REPLICA IDENTITY FULL"},
	{"ENABLE ROW LEVEL SECURITY"},
}

// TestNative makes changes without a copy, and holds the dump against that after a plain
// ALTER TABLE.
func TestNative(t *testing.T) {
	t.Parallel()
	native, plain := pgtest.New(t), pgtest.New(t)
	native.Exec(t, nativeSchema)
	plain.Exec(t, nativeSchema)
	dsn := login(t, native)
	reown(t, plain, native.Name+"_owner")
	for _, alters := range natives {
		for _, text := range alters {
			plain.Exec(t, "ALTER TABLE t "+text)
		}
		plan, err := migration.Plan(t.Context(), migration.PlanConfig{Config: migration.Config{DSN: dsn, Table: "t", Alters: alters, Native: migration.NativeAuto}})
		if err != nil || plan.Method != "native" {
			t.Errorf("%s: the plan says %q: %v %+v", alters, plan.Method, err, plan.Refusals)
		}
		report, err := migration.Run(t.Context(), migration.Config{DSN: dsn, Table: "t", Alters: alters, Native: migration.NativeAuto})
		if err != nil || report.Method != "native" || report.Outcome != migration.Done {
			t.Fatalf("%s: %v, report %+v", alters, err, report)
		}
		if got, want := pgtest.Dump(t, native), pgtest.Dump(t, plain); got != want {
			t.Fatalf("%s: the dump differs from that after a plain ALTER TABLE:\n%s", alters, lineDiff(want, got))
		}
		if len(plan.Statements) == 0 || !strings.Contains(plan.Script(), plan.Statements[0].SQL+";") {
			t.Errorf("%s: the plan has %d statements:\n%s", alters, len(plan.Statements), plan.Script())
		}
	}
	requireNothingLeft(t, native)
}

// failing are changes of which a later step fails, and what the error says.
var failing = map[string]string{
	"ADD CHECK (b < 2000)":                               "is violated by some row",
	"ALTER COLUMN v SET NOT NULL, ADD UNIQUE (id, v)":    "is violated by some row",
	"ADD UNIQUE (n)":                                     "is duplicated",
	"ADD FOREIGN KEY (b) REFERENCES other":               "is not present in table",
	"ADD COLUMN z int DEFAULT 3 CHECK (z > 3)":           "is violated by some row",
	"ADD COLUMN z int DEFAULT 3, ADD UNIQUE (z, n)":      "could not create unique index",
	"ADD CONSTRAINT fine CHECK (id > 0), ADD UNIQUE (n)": "could not create unique index",
}

// TestNativeIsTakenBack: nothing is left of a change that rows do not fit.
func TestNativeIsTakenBack(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, nativeSchema+"; UPDATE t SET v = NULL WHERE id = 1000; CREATE SCHEMA pgshadow")
	dsn := login(t, db)
	db.Exec(t, "DROP SCHEMA pgshadow")
	mustRun(t, migration.Config{DSN: dsn, Table: "t", Alters: []string{"SET (fillfactor = 90)"}, Native: migration.NativeAuto}) // makes the state tables
	before := everything(t, db)
	for alter, says := range failing {
		report, err := migration.Run(t.Context(), migration.Config{DSN: dsn, Table: "t", Alters: []string{alter}, Native: migration.NativeAuto})
		if err == nil || report.Outcome != migration.Aborted || report.Method != "native" || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: not aborted by %q: %v, report %+v", alter, says, err, report)
		}
		if after := everything(t, db); after != before {
			t.Errorf("%s has left something:\n%s", alter, lineDiff(before, after))
		}
	}
	requireNothingLeft(t, db)
}

// TestNativeWaitsForItsLock: who holds the table is named, writers do not queue for long,
// and when the attempts are used up nothing is left.
func TestNativeWaitsForItsLock(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, nativeSchema)
	dsn := login(t, db)
	reader := db.Conn(t)
	if _, err := reader.Exec(t.Context(), "SET application_name = 'the reader'; BEGIN; SELECT count(*) FROM t"); err != nil {
		t.Fatal(err)
	}
	config := migration.Config{DSN: dsn, Table: "t", Alters: []string{"ADD COLUMN z int, ADD CHECK (n > 0)"}, Native: migration.NativeOnly}
	config.Cutover.Attempts, config.Cutover.LockTimeout = 2, 50*time.Millisecond
	failed := 0
	config.Observer = migration.ObserverFunc(func(event migration.Event) {
		if e, is := event.(migration.AttemptFailed); is && strings.Contains(e.Reason, "the reader") {
			failed++
		}
	})
	report, err := migration.Run(t.Context(), config)
	if err == nil || report.Outcome != migration.Stopped || failed != 1 || !strings.Contains(err.Error(), "the reader") || !strings.Contains(report.Error.State, "taken back") {
		t.Errorf("%d attempts named the reader: %v, report %+v", failed, err, report)
	}
	requireNothingLeft(t, db)
	if _, err := reader.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	if report := mustRun(t, config); report.Method != "native" {
		t.Errorf("report %+v", report)
	}
}

// TestNativeIsBrokenOff: a run that was broken off is ended by the same alter, or what it
// has made is taken back by cleanup, by another alter, or for a copy.
func TestNativeIsBrokenOff(t *testing.T) {
	t.Parallel()
	for _, tidy := range []string{"alter", "cleanup", "another alter", "copy"} {
		t.Run(tidy, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			db.Exec(t, nativeSchema)
			dsn := login(t, db)
			before := pgtest.Dump(t, db)
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			config := migration.Config{DSN: dsn, Table: "t", Alters: []string{"ADD COLUMN z int CHECK (z > 0), ADD UNIQUE (b)"}, Native: migration.NativeAuto}
			config.Observer = migration.ObserverFunc(func(event migration.Event) {
				if step, is := event.(migration.StepStarted); is && strings.Contains(step.SQL, "CONCURRENTLY") {
					stop()
				}
			})
			report, err := migration.Run(ctx, config)
			if !errors.Is(err, context.Canceled) || report.Outcome != migration.Stopped {
				t.Fatalf("not stopped: %v, report %+v", err, report)
			}
			if pgtest.Dump(t, db) == before {
				t.Fatal("nothing was made yet")
			}
			config.Observer = nil
			switch tidy {
			case "alter":
				if again := mustRun(t, config); again.RunID != report.RunID || again.Method != "native" {
					t.Errorf("another run: %+v", again)
				}
			case "copy":
				config.Native, config.Retire = migration.NativeNever, migration.Drop
				if again := mustRun(t, config); again.RunID == report.RunID || again.Method != "shadow" {
					t.Errorf("not copied: %+v", again)
				}
			case "cleanup":
				left, err := migration.Cleanup(t.Context(), dsn, false)
				if err != nil || !slices.ContainsFunc(left, func(l migration.Leftover) bool { return l.RunID == report.RunID && l.Removed }) {
					t.Fatalf("%v: %+v", err, left)
				}
				if after := pgtest.Dump(t, db); after != before {
					t.Errorf("left behind:\n%s", lineDiff(before, after))
				}
			default:
				config.Alters = []string{"ADD COLUMN other int"}
				if report, err := migration.Run(t.Context(), config); err == nil || report.Error.Check != "unfinished run" {
					t.Errorf("not refused: %v, report %+v", err, report)
				}
				config.Restart = true
				mustRun(t, config)
				if n := pgtest.Scalar[int](t, db, "SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'z'"); n != 0 {
					t.Error("the column of the change before is still there")
				}
			}
			requireNothingLeft(t, db)
		})
	}
}

// TestNativeCodeCannotLeaveTheOwner: what a native change evaluates runs as the owner
// (INV-6), in the trial too.
func TestNativeCodeCannotLeaveTheOwner(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	owner := trappedTable(t, db)
	heard := db.Conn(t)
	if _, err := heard.Exec(t.Context(), "LISTEN trap"); err != nil {
		t.Fatal(err)
	}
	db.Exec(t, "SET SESSION AUTHORIZATION "+owner+"; CREATE FUNCTION steady() RETURNS int STABLE LANGUAGE plpgsql AS $$ BEGIN PERFORM public.spring('new default'); RETURN 1; END $$")
	report := mustRun(t, migration.Config{DSN: login(t, db), Table: "t", Alters: []string{"ADD COLUMN e int DEFAULT steady(), ADD CHECK (public.trap('new check', n) >= 0), ADD UNIQUE (v)"}, Native: migration.NativeOnly})
	if report.Method != "native" {
		t.Fatalf("report %+v", report)
	}
	hits := listen(t, db, heard)
	for _, hit := range hits {
		if hit.who != owner {
			t.Errorf("in session %q the %s ran as %s (%s)", hit.session, hit.kind, hit.who, hit.what)
		}
	}
	for _, kind := range []string{"new default", "new check"} {
		if !slices.ContainsFunc(hits, func(h hit) bool { return h.session == "native" && h.kind == kind }) {
			t.Errorf("the trap in the %s was not sprung", kind)
		}
	}
}

// TestNativeAsked: --native never copies what would be instant, only refuses what would
// not, and a table without a key can be changed.
func TestNativeAsked(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t SELECT i, i FROM generate_series(1, 100) i; CREATE TABLE bare (n int); INSERT INTO bare VALUES (1); CREATE UNLOGGED TABLE fast (n int)")
	dsn := login(t, db)
	run := func(table, alter string, native migration.NativeMode) (migration.Report, error) {
		return migration.Run(t.Context(), migration.Config{DSN: dsn, Table: table, Alters: []string{alter}, Native: native, Retire: migration.Drop})
	}
	for _, table := range []string{"bare", "fast"} {
		if report, err := run(table, "ADD COLUMN z int DEFAULT 1, ADD PRIMARY KEY (n)", migration.NativeAuto); err != nil || report.Method != "native" {
			t.Errorf("%s: %v, report %+v", table, err, report)
		}
	}
	if report, err := run("t", "ADD COLUMN z int", migration.NativeNever); err != nil || report.Method != "shadow" || report.RowsCopied != 100 {
		t.Errorf("never: %v, report %+v", err, report)
	}
	if report, err := run("t", "ALTER COLUMN n TYPE bigint", migration.NativeOnly); err == nil || report.Outcome != migration.Refused || report.Error.Check != "native" || !strings.Contains(err.Error(), "rewrite") {
		t.Errorf("only: %v, report %+v", err, report)
	}
	if report, err := run("t", "ALTER COLUMN n TYPE bigint", migration.NativeAuto); err != nil || report.Method != "shadow" {
		t.Errorf("auto: %v, report %+v", err, report)
	}
	requireNothingLeft(t, db)
}

// TestNativeIsReleased: with --cutover manual nothing is changed before the operator says
// so.
func TestNativeIsReleased(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, nativeSchema)
	config := manual(t, db)
	config.Alters, config.Native = []string{"ADD COLUMN z int"}, migration.NativeOnly
	before := pgtest.Dump(t, db)
	run := launch(t, config)
	run.await(t, "the operator's turn", waitingFor(theOperator))
	if after := pgtest.Dump(t, db); after != before {
		t.Errorf("something is changed already:\n%s", lineDiff(before, after))
	}
	run.command(t, db, migration.CommandCutover, "")
	if report := run.done(t); report.Method != "native" || report.Outcome != migration.Done {
		t.Errorf("report %+v", report)
	}
	requireNothingLeft(t, db)
}

// TestNativeLeaf: of a leaf partition, what PostgreSQL does not do is refused by the plan
// and by the run alike, and what it does is done.
func TestNativeLeaf(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, "CREATE TABLE p (id int PRIMARY KEY, n int, CONSTRAINT ours CHECK (n > -5)) PARTITION BY RANGE (id); CREATE TABLE t PARTITION OF p FOR VALUES FROM (0) TO (1000); INSERT INTO p SELECT i, i FROM generate_series(1, 100) i")
	config := migration.Config{DSN: login(t, db), Table: "t", Native: migration.NativeAuto}
	for alter, exit := range map[string]int{"ADD COLUMN x int": 3, "DROP COLUMN n": 3, "RENAME COLUMN n TO m": 3, "ALTER COLUMN n TYPE bigint": 3, "DROP CONSTRAINT ours": 3, "DROP CONSTRAINT t_pkey": 3, "ADD CHECK (n > 0)": 0, "SET (fillfactor = 70)": 0, "ALTER COLUMN n SET NOT NULL": 0} {
		config.Alters = []string{alter}
		plan, err := migration.Plan(t.Context(), migration.PlanConfig{Config: config})
		if err != nil || plan.ExitCode != exit {
			t.Errorf("%s: %v, the plan ends with %d: %+v", alter, err, plan.ExitCode, plan.Refusals)
		}
		if report, err := migration.Run(t.Context(), config); report.ExitCode != exit {
			t.Errorf("%s: %v, report %+v", alter, err, report)
		}
	}
	requireNothingLeft(t, db)
}
