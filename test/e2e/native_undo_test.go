package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/test/pgserver"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// duringBuild is an observer that does something when the first index is about to be
// built.
func duringBuild(what func()) migration.Observer {
	return migration.ObserverFunc(func(event migration.Event) {
		if step, is := event.(migration.StepStarted); is && strings.HasPrefix(step.SQL, "CREATE UNIQUE INDEX CONCURRENTLY") && what != nil {
			what()
			what = nil
		}
	})
}

// TestTakenNames: a name that the table has already is refused before anything is made,
// so that nothing of the user's can be taken for the run's own.
func TestTakenNames(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, nativeSchema+"; ALTER TABLE t ADD CONSTRAINT mine FOREIGN KEY (n) REFERENCES other; CREATE INDEX t_b_key ON t (v)")
	config := migration.Config{DSN: login(t, db), Table: "t", Native: migration.NativeOnly}
	before := pgtest.Dump(t, db)
	for _, alter := range []string{
		"ADD CONSTRAINT t_pkey FOREIGN KEY (n) REFERENCES other", "ADD CONSTRAINT later FOREIGN KEY (n) REFERENCES other", "ADD CONSTRAINT mine FOREIGN KEY (n) REFERENCES other",
		"ADD CONSTRAINT later CHECK (b > 0)", "ADD COLUMN q int DEFAULT 1 CONSTRAINT mine REFERENCES other", "ADD CONSTRAINT t_v UNIQUE (id, b)", "ADD FOREIGN KEY (n) REFERENCES nowhere",
	} {
		config.Alters = []string{alter}
		if report, err := migration.Run(t.Context(), config); err == nil || report.Outcome != migration.Refused {
			t.Errorf("%s: not refused: %v, report %+v", alter, err, report)
		}
		if after := pgtest.Dump(t, db); after != before {
			t.Fatalf("%s has changed something:\n%s", alter, lineDiff(before, after))
		}
	}
	config.Alters = []string{"ADD UNIQUE (b)"}
	mustRun(t, config)
	if n := pgtest.Scalar[int](t, db, "SELECT count(*) FROM pg_constraint WHERE conname = 't_b_key1'"); n != 1 {
		t.Error("the constraint is not called as PostgreSQL would")
	}
}

// TestMadeByOthersMeanwhile: what somebody else makes while a run waits, under a name that
// the run would use, is never taken for the run's own.
func TestMadeByOthersMeanwhile(t *testing.T) {
	t.Parallel()
	for name, theirs := range map[string]string{
		"column": "ALTER TABLE t ADD COLUMN z int; UPDATE t SET z = 7", "constraint": "ALTER TABLE t ADD CONSTRAINT t_b_check CHECK (b > 0)", "index": "CREATE UNIQUE INDEX t_b_key ON t (b)",
	} {
		for _, then := range []string{"cutover", "cleanup", "alter", "restart"} {
			t.Run(name+" "+then, func(t *testing.T) {
				t.Parallel()
				db := pgtest.New(t)
				db.Exec(t, nativeSchema)
				config := manual(t, db)
				config.Alters, config.Native = []string{"ADD COLUMN z int CHECK (z > 0), ADD CHECK (b > 0), ADD UNIQUE (b)"}, migration.NativeOnly
				run := launch(t, config)
				run.await(t, "the operator's turn", waitingFor(theOperator))
				if then != "cutover" {
					run.stop()
					run.end(t) //nolint:errcheck // what is left is looked at
				}
				db.Exec(t, theirs)
				after := pgtest.Dump(t, db)
				switch then {
				case "cutover":
					run.command(t, db, migration.CommandCutover, "")
					run.end(t) //nolint:errcheck // what is left is looked at
				case "cleanup":
					if _, err := migration.Cleanup(t.Context(), config.DSN, false); err != nil {
						t.Fatal(err)
					}
				default:
					config.Restart, config.Cutover.Mode, config.Observer = then == "restart", migration.CutoverAuto, nil
					if report, err := migration.Run(t.Context(), config); then == "alter" && (err == nil || report.Outcome == migration.Done) {
						t.Errorf("%v, report %+v", err, report)
					} else if then == "restart" && name != "column" && err != nil {
						t.Error(err)
					} else if err == nil {
						return // all of it was added beside theirs
					}
				}
				if got := pgtest.Dump(t, db); got != after {
					t.Errorf("something of theirs is gone, or something is left:\n%s", lineDiff(after, got))
				}
				if name == "column" && pgtest.Scalar[int](t, db, "SELECT count(z) FROM t") != 2000 {
					t.Error("values are gone")
				}
			})
		}
	}
}

// TestWrittenMeanwhile: a column that a run has added is not dropped once it holds
// anything, whatever becomes of the run.
func TestWrittenMeanwhile(t *testing.T) {
	t.Parallel()
	for _, column := range []string{"z int CHECK (z <> 1)", "z int DEFAULT 3 CHECK (z <> 1)", `z json DEFAULT '{"a": 1}' CHECK (z IS NOT NULL)`} {
		for _, end := range []string{"resumed", "abort", "duplicates"} {
			t.Run(column+" "+end, func(t *testing.T) {
				t.Parallel()
				db := pgtest.New(t)
				db.Exec(t, nativeSchema)
				config := migration.Config{DSN: login(t, db), Table: "t", Alters: []string{"ADD COLUMN " + column + ", ADD UNIQUE (b)"}, Native: migration.NativeOnly}
				if end == "duplicates" {
					config.Alters = []string{"ADD COLUMN " + column + ", ADD UNIQUE (n)"}
				}
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				config.Observer = duringBuild(func() {
					db.Exec(t, "UPDATE t SET z = '7' WHERE id = 1000")
					if end != "duplicates" {
						stop()
					}
				})
				report, err := migration.Run(ctx, config)
				config.Observer = nil
				switch end {
				case "resumed":
					if !errors.Is(err, context.Canceled) || !strings.Contains(report.Error.State, "goes on with the rest") {
						t.Fatalf("not stopped: %v, report %+v", err, report)
					}
					mustRun(t, config)
				case "abort":
					done, err := migration.Command(t.Context(), config.DSN, "t", migration.CommandAbort, "")
					if err != nil || !done.Accepted {
						t.Fatalf("%v: %+v", err, done)
					}
				default:
					if err == nil || report.Outcome != migration.Aborted || !strings.Contains(report.Error.State, `column "z"`) || len(report.Warnings) == 0 {
						t.Fatalf("%v, report %+v", err, report)
					}
				}
				if got := pgtest.Scalar[string](t, db, "SELECT z::text FROM t WHERE id = 1000"); got != "7" {
					t.Errorf("the value is %q", got)
				}
				if end != "resumed" {
					if n := pgtest.Scalar[int](t, db, "SELECT count(*) FROM pg_constraint WHERE conrelid = 't'::regclass AND (conname LIKE 't_z%' OR conname LIKE 't_b%')"); n != 0 {
						t.Error("a constraint is left")
					}
				}
				if n := pgtest.Scalar[int](t, db, "SELECT count(*) FROM pg_class WHERE relname LIKE 'pgshadow%'"); n != 0 {
					t.Error("an index is left")
				}
				requireNothingLeft(t, db)
			})
		}
	}
}

// TestUndoWaits: what is taken back waits for whoever is in the way, who is named, for as
// long as it takes, and not for the seconds that a clean-up has.
func TestUndoWaits(t *testing.T) {
	t.Parallel()
	db := pgtest.NewOn(t, pgtest.NewServer(t, pgserver.Options{Settings: map[string]string{"max_prepared_transactions": "5"}}))
	db.Exec(t, nativeSchema)
	config := migration.Config{DSN: login(t, db), Table: "t", Alters: []string{"ADD CONSTRAINT mine CHECK (b > 0), ADD UNIQUE (n)"}, Native: migration.NativeOnly}
	config.Cutover.LockTimeout = 50 * time.Millisecond
	// The reader comes after the index has failed, when the check is to be dropped.
	reading, gone, prepared := false, false, 0
	config.Observer = migration.ObserverFunc(func(event migration.Event) {
		failed, is := event.(migration.AttemptFailed)
		if step, starts := event.(migration.StepStarted); starts && strings.HasPrefix(step.SQL, "CREATE UNIQUE") && !reading {
			reading = true
			db.Exec(t, "BEGIN; LOCK TABLE t IN ACCESS SHARE MODE; PREPARE TRANSACTION 'reader'")
		}
		if is && strings.Contains(failed.Reason, "prepared transaction 'reader'") {
			if prepared++; prepared == 3 && !gone {
				gone = true
				db.Exec(t, "ROLLBACK PREPARED 'reader'")
			}
		}
	})
	report, err := migration.Run(t.Context(), config)
	if err == nil || report.Outcome != migration.Aborted || !gone {
		t.Errorf("%v, the transaction was named %d times, report %+v", err, prepared, report)
	}
	requireNothingLeft(t, db)
}

// TestNotValidStays: what NOT VALID says of a constraint is kept beside one that is
// validated.
func TestNotValidStays(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, nativeSchema)
	config := migration.Config{DSN: login(t, db), Table: "t", Alters: []string{"ADD CONSTRAINT loose CHECK (n > 5) NOT VALID, ADD CONSTRAINT strict CHECK (b > 0)"}, Native: migration.NativeOnly}
	mustRun(t, config)
	if got := pgtest.Scalar[string](t, db, "SELECT string_agg(conname || convalidated, ' ' ORDER BY conname) FROM pg_constraint WHERE conname IN ('loose', 'strict')"); got != "loosefalse stricttrue" {
		t.Errorf("they are %s", got)
	}
}

// TestNativeBesideACopy: an open run keeps to its method.
func TestNativeBesideACopy(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, nativeSchema)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	config := migration.Config{DSN: login(t, db), Table: "t", Alters: []string{"ADD COLUMN z int"}, Native: migration.NativeNever}
	config.Observer = migration.ObserverFunc(func(event migration.Event) {
		if started, is := event.(migration.PhaseStarted); is && started.Phase == migration.Index {
			stop()
		}
	})
	if _, err := migration.Run(ctx, config); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	config.Observer, config.Native = nil, migration.NativeOnly
	if report, err := migration.Run(t.Context(), config); err == nil || report.Error.Check != "native" {
		t.Fatalf("not refused: %v, report %+v", err, report)
	}
	config.Restart = true
	if report := mustRun(t, config); report.Method != "native" {
		t.Errorf("report %+v", report)
	}
	requireNothingLeft(t, db)
}

// TestExpectedPlanOfAResumedRun: the plan that a run began with is that of its end too.
func TestExpectedPlanOfAResumedRun(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, nativeSchema)
	config := migration.Config{DSN: login(t, db), Table: "t", Alters: []string{"ADD CHECK (b > 0), ADD UNIQUE (b)"}, Native: migration.NativeOnly}
	plan, err := migration.Plan(t.Context(), migration.PlanConfig{Config: config})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	config.Expect, config.Observer = &plan, duringBuild(stop)
	if _, err := migration.Run(ctx, config); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	config.Observer = nil
	rest, err := migration.Plan(t.Context(), migration.PlanConfig{Config: config})
	if err != nil || rest.ExitCode != 0 || rest.Verdict != plan.Verdict || rest.Fingerprint != plan.Fingerprint || len(rest.Statements) != len(plan.Statements)-4 || !strings.Contains(strings.Join(rest.Notices, " "), "resumes it") {
		t.Errorf("%v, the plan of the rest is %+v, refusals %+v", err, rest, rest.Refusals)
	}
	config.Expect = &rest
	mustRun(t, config)
	for _, changed := range []func(c *migration.Config){
		func(c *migration.Config) { c.Alters = []string{"ADD CHECK (b > 1)"} },
		func(c *migration.Config) { c.Set = map[string]string{"n": "n"} },
		func(*migration.Config) {}, // the table is another one now
	} {
		other := config
		changed(&other)
		if report, err := migration.Run(t.Context(), other); err == nil || report.Error.Check != "plan" {
			t.Errorf("not refused: %v, report %+v", err, report)
		}
	}
}

// TestNativeHold: a step that would hold its lock for too long is rolled back, a few
// times.
func TestNativeHold(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, nativeSchema+"; CREATE FUNCTION slow() RETURNS int STABLE LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.2); RETURN 1; END'")
	config := migration.Config{DSN: login(t, db), Table: "t", Alters: []string{"ADD COLUMN z int DEFAULT slow()"}, Native: migration.NativeOnly}
	config.Cutover.MaxLockHold = 20 * time.Millisecond
	report, err := migration.Run(t.Context(), config)
	if err == nil || report.Outcome != migration.Failed || report.Cutover.Attempts != 3 || !strings.Contains(err.Error(), "--max-lock-hold") {
		t.Errorf("%v, report %+v", err, report)
	}
	requireNothingLeft(t, db)
}

// TestNativeLocksOthers: who holds a table at the other end of a foreign key is named.
func TestNativeLocksOthers(t *testing.T) {
	t.Parallel()
	for _, alter := range []string{"ADD COLUMN z int REFERENCES other", "DROP CONSTRAINT mine"} {
		t.Run(alter, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			db.Exec(t, nativeSchema+"; ALTER TABLE t ADD CONSTRAINT mine FOREIGN KEY (n) REFERENCES other")
			config := migration.Config{DSN: login(t, db), Table: "t", Alters: []string{alter}, Native: migration.NativeOnly}
			config.Cutover.Attempts, config.Cutover.LockTimeout = 1, 50*time.Millisecond
			writer := db.Conn(t)
			mustExec(t, writer, "SET application_name = 'the writer'; BEGIN; UPDATE other SET a = a")
			if report, err := migration.Run(t.Context(), config); err == nil || report.Outcome != migration.Stopped || !strings.Contains(err.Error(), "the writer") || !strings.Contains(err.Error(), `"other"`) {
				t.Errorf("%v, report %+v", err, report)
			}
			mustExec(t, writer, "COMMIT")
			mustRun(t, config)
		})
	}
}

// TestRefusedAtTheFirstStep: what the trial does not show is refused all the same, with
// nothing made.
func TestRefusedAtTheFirstStep(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, nativeSchema+`; CREATE FUNCTION body() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT sum(b) FROM t; END`)
	config := migration.Config{DSN: login(t, db), Table: "t", Native: migration.NativeOnly}
	for _, alter := range []string{"DROP COLUMN b", "SET SCHEMA nowhere"} {
		config.Alters = []string{alter}
		if report, err := migration.Run(t.Context(), config); err == nil || report.Outcome != migration.Refused || report.Error.Check != "alter" || !strings.Contains(report.Error.State, "as it was") {
			t.Errorf("%s: %v, report %+v", alter, err, report)
		}
	}
	config.Alters = []string{"RENAME TO tt", "ADD COLUMN z int"}
	if report, err := migration.Run(t.Context(), config); err == nil || report.Outcome != migration.Refused || !strings.Contains(fmt.Sprint(err), "another name") {
		t.Errorf("%v, report %+v", err, report)
	}
	requireNothingLeft(t, db)
}

// TestIndexBuildWaits: the transactions that CREATE INDEX CONCURRENTLY waits for are
// named, and so is a prepared one, which no session has.
func TestIndexBuildWaits(t *testing.T) {
	t.Parallel()
	db := pgtest.NewOn(t, pgtest.NewServer(t, pgserver.Options{Settings: map[string]string{"max_prepared_transactions": "5"}}))
	db.Exec(t, nativeSchema)
	config := migration.Config{DSN: login(t, db), Table: "t", Alters: []string{"ADD UNIQUE (b)"}, Native: migration.NativeOnly}
	writer := db.Conn(t)
	mustExec(t, writer, "SET application_name = 'the writer'; BEGIN; UPDATE t SET v = v WHERE id = 1")
	db.Exec(t, "BEGIN; UPDATE t SET v = v WHERE id = 2; PREPARE TRANSACTION 'forgotten'")
	named := map[string]bool{}
	config.Observer = migration.ObserverFunc(func(event migration.Event) {
		waiting, is := event.(migration.Waiting)
		if is && !named["the writer"] && strings.Contains(waiting.Reason, "the writer") {
			named["the writer"] = true
			mustExec(t, writer, "COMMIT")
		}
		if is && !named["forgotten"] && strings.Contains(waiting.Reason, "prepared transaction 'forgotten'") {
			named["forgotten"] = true
			db.Exec(t, "ROLLBACK PREPARED 'forgotten'")
		}
	})
	mustRun(t, config)
	if len(named) != 2 {
		t.Errorf("named were %v", named)
	}
}
