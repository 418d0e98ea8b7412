package e2e

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/test/pgtest"
	"github.com/pgshadow/pgshadow/test/workload"
)

// rehearse goes through a change without making it. It returns the report of a
// rehearsal that came to its end.
func rehearse(t *testing.T, config migration.Config) migration.Report {
	t.Helper()
	config.Rehearsal = &migration.Rehearsal{ScaleTo: migration.Scale{Rows: 1_000_000}}
	report := mustRun(t, config)
	requireRehearsed(t, report)
	return report
}

func requireRehearsed(t *testing.T, report migration.Report) {
	t.Helper()
	c := report.Cutover
	if report.Outcome != migration.Done || report.ExitCode != 0 || report.RetiredTable != "" || report.Rehearsal == nil {
		t.Fatalf("the report is %+v", report)
	}
	if c.Attempts < 1 || c.LockWaitMS <= 0 || c.CommitMS <= 0 || c.LockHoldMS <= c.CommitMS+c.FenceMS {
		t.Errorf("the cutover was %+v", c)
	}
	if report.Verify.Mismatches != 0 || report.Verify.DigestOriginal != report.Verify.DigestShadow {
		t.Errorf("verification: %+v", report.Verify)
	}
	if holds := report.Rehearsal.LockHoldsMS; len(holds) != 3 || holds[1] != c.LockHoldMS || !slices.IsSorted(holds) {
		t.Errorf("the lock was held for %v, and %.1f ms", holds, c.LockHoldMS)
	}
	var phases []string
	for _, phase := range report.Phases {
		phases = append(phases, phase.Name)
	}
	if want := []string{"preflight", "prepare", "copy", "index", "catch_up", "verify", "cutover", "clean_up"}; !slices.Equal(phases, want) {
		t.Errorf("the phases were %v", phases)
	}
	r := report.Rehearsal
	if r.Estimate == nil || r.Estimate.LockHoldMS != c.LockHoldMS || r.OriginalBytes <= 0 || r.ShadowBytes <= 0 || r.WALBytes <= 0 ||
		len(r.FailingRows) != 0 || r.FailingRowsTotal != 0 || !r.FailingRowsComplete {
		t.Errorf("the rehearsal found %+v", r)
	}
	if (r.Scaled == nil) != (report.RowsCopied == 0) || r.Scaled != nil && (r.Scaled.Rows != 1_000_000 || r.Scaled.DurationMS < r.Estimate.DurationMS) {
		t.Errorf("it is scaled to %+v", r.Scaled)
	}
}

// TestRehearsalUnderLoad goes through a change while clients write. The table stays
// the one it was, with every write, and what hangs on it too; then the same change is
// made.
func TestRehearsalUnderLoad(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	db := pgtest.New(t)
	conn := db.Conn(t)
	spec := workload.Orders()
	if err := spec.Create(ctx, conn, 10000, workload.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	db.Exec(t, `CREATE TABLE status (name text PRIMARY KEY); INSERT INTO status SELECT DISTINCT status FROM orders ON CONFLICT DO NOTHING; INSERT INTO status VALUES ('new'), ('it''s'), ('back\slash') ON CONFLICT DO NOTHING;
		ALTER TABLE orders ADD CONSTRAINT "known status" FOREIGN KEY (status) REFERENCES status;
		CREATE TABLE line (orders int REFERENCES orders ON DELETE CASCADE ON UPDATE CASCADE); INSERT INTO line SELECT id FROM orders LIMIT 100;
		CREATE TABLE log (n bigint); CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.log VALUES (1); RETURN NULL; END';
		CREATE TRIGGER noted AFTER INSERT OR UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION note(); GRANT INSERT ON log TO PUBLIC;
		CREATE VIEW paid AS SELECT id, amount FROM orders WHERE status = 'paid'; CREATE PUBLICATION told FOR TABLE orders`)
	config := migration.Config{DSN: login(t, db), Table: "orders", Alters: []string{"ALTER COLUMN id TYPE bigint, ALTER COLUMN customer_id TYPE bigint"}}
	before, oid := pgtest.Dump(t, db), pgtest.Scalar[uint32](t, db, "SELECT 'orders'::regclass::oid")
	w, err := workload.Start(ctx, db.DSN, spec, workload.Options{Rate: 300})
	if err != nil {
		t.Fatal(err)
	}
	var paceErr error
	config.Observer = migration.ObserverFunc(func(event migration.Event) {
		logEvent(t, event)
		if e, started := event.(migration.PhaseStarted); started && slices.Contains(livePhases, e.Phase.String()) {
			w.Phase(e.Phase.String())
			paceErr = errors.Join(paceErr, w.AwaitEach(ctx, 1))
		}
	})
	report := rehearse(t, config)
	w.Phase("after")
	paceErr = errors.Join(paceErr, w.AwaitEach(ctx, 1))
	if after := pgtest.Dump(t, db); after != before {
		t.Errorf("the database was changed:\n%s", lineDiff(before, after))
	}
	if now := pgtest.Scalar[uint32](t, db, "SELECT 'orders'::regclass::oid"); now != oid {
		t.Errorf("the table is %d, was %d", now, oid)
	}
	if got := strings.Join(report.Rehearsal.AfterSwap, ", "); got != `validating foreign key "known status" on public.orders, validating foreign key line_orders_fkey on public.line` {
		t.Errorf("after the swap: %s", got)
	}
	config.Observer = nil
	changed := mustRun(t, config)
	stats, stopErr := w.Stop(ctx)
	if err := errors.Join(paceErr, stopErr, workload.Check(ctx, conn, spec, nil), workload.RequireRan(stats, append(slices.Clone(livePhases), "after")...)); err != nil {
		t.Error(err)
	}
	if changed.RunID == report.RunID || changed.RetiredTable == "" {
		t.Errorf("the change went on as the rehearsal: %+v", changed)
	}
	t.Logf("lock held for %.1f ms in the rehearsal, %.1f ms in the change", report.Cutover.LockHoldMS, changed.Cutover.LockHoldMS)
}

// TestRehearsalLeavesEverythingAsItWas: with whatever hangs on a table, and whatever
// table it is.
func TestRehearsalLeavesEverythingAsItWas(t *testing.T) {
	for _, c := range slices.Concat(attachedCases, dumpCases) {
		if c.table != "" {
			continue // withRows looks at table t
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			c.table = "t"
			c.create(t, db)
			config := c.config(t, db)
			before := withRows(t, db)
			rehearse(t, config)
			if after := withRows(t, db); after != before {
				t.Errorf("the database was changed:\n%s", lineDiff(before, after))
			}
			requireNothingLeft(t, db)
		})
	}
}

// TestRehearsalNamesTheRowsThatFail: not the first alone, as the change itself would.
func TestRehearsalNamesTheRowsThatFail(t *testing.T) {
	for _, c := range []struct {
		name, setup, alter, state string
		keys                      []string // some of those that are named; empty: of none a key is known
		named                     int
		total                     int64
		complete                  bool
		says                      string
	}{
		{name: "three", setup: "UPDATE t SET v = 'x' || id WHERE id IN (1, 777, 5000)", alter: "ALTER COLUMN v TYPE int USING v::int", state: "22P02",
			keys: []string{"(1)", "(777)", "(5000)"}, named: 3, total: 3, complete: true, says: `invalid input syntax for type integer: "x`},
		{name: "more than are named", setup: "UPDATE t SET n = NULL WHERE id % 50 = 0", alter: "ALTER COLUMN n SET NOT NULL", state: "23502",
			named: 20, total: 100, complete: true, says: `null value in column "n"`},
		{name: "more than are looked for", setup: "UPDATE t SET n = -1", alter: "ADD CHECK (n > 0)", state: "23514", named: 20, total: 1000, says: "t_n_check"},
		{name: "an index", setup: "UPDATE t SET n = 17 WHERE id = 18", alter: "ADD CONSTRAINT n_once UNIQUE (n)", state: "23505", keys: []string{""}, named: 1, total: 1, says: "(n)=(17)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			db.Exec(t, "CREATE TABLE t (id int PRIMARY KEY, v text, n int); INSERT INTO t SELECT i, i::text, i FROM generate_series(1, 5000) i; "+c.setup)
			config := migration.Config{DSN: login(t, db), Table: "t", Alters: []string{c.alter}, AllowLossy: true, Rehearsal: &migration.Rehearsal{}}
			config.Copy.Workers = 1 // which rows are found first follows from that
			before := withRows(t, db)
			report, err := migration.Run(t.Context(), config)
			if err == nil || report.Outcome != migration.Aborted || report.ExitCode != 4 || report.Error.SQLState != c.state {
				t.Fatalf("not aborted: %v, report %+v", err, report)
			}
			r := report.Rehearsal
			if len(r.FailingRows) != c.named || r.FailingRowsTotal != c.total || r.FailingRowsComplete != c.complete || r.Estimate != nil {
				t.Errorf("it found %+v", r)
			}
			var keys []string
			for _, row := range r.FailingRows {
				keys = append(keys, row.Key)
				if row.SQLState != c.state || !strings.Contains(row.Message, c.says) {
					t.Errorf("a row fails with %+v", row)
				}
			}
			for _, key := range c.keys {
				if !slices.Contains(keys, key) {
					t.Errorf("row %s is not among %v", key, keys)
				}
			}
			if after := withRows(t, db); after != before {
				t.Errorf("the database was changed:\n%s", lineDiff(before, after))
			}
			requireNothingLeft(t, db)
		})
	}
}

// rehearsalAt stops a rehearsal, as a signal would, at an event.
func rehearsalAt(t *testing.T, db *pgtest.DB, at func(migration.Event) bool) (migration.Report, error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	config := tableT(t, db, func(event migration.Event) {
		logEvent(t, event)
		if at(event) {
			cancel()
		}
	})
	config.Rehearsal = &migration.Rehearsal{}
	return migration.Run(ctx, config)
}

// TestStoppedRehearsalLeavesNothing: nobody would resume it.
func TestStoppedRehearsalLeavesNothing(t *testing.T) {
	for _, phase := range []migration.Phase{migration.Prepare, migration.Copy, migration.Index, migration.Verify, migration.Cutover} {
		t.Run(phase.String(), func(t *testing.T) {
			t.Parallel()
			db := createT(t)
			before := withRows(t, db)
			report, err := rehearsalAt(t, db, phaseStart(phase))
			if err == nil || report.Outcome != migration.Stopped || report.ExitCode != 5 || strings.Contains(report.Error.State, "kept") {
				t.Errorf("not stopped: %v, report %+v", err, report.Error)
			}
			if after := withRows(t, db); after != before {
				t.Errorf("the database was changed:\n%s", lineDiff(before, after))
			}
			requireNothingLeft(t, db)
		})
	}
	t.Run("after the rollback", func(t *testing.T) {
		t.Parallel()
		db := createT(t)
		report, err := rehearsalAt(t, db, func(event migration.Event) bool { return event == migration.Rehearsed{} })
		if err != nil {
			t.Fatal(err)
		}
		requireNothingLeft(t, db)
		if !isOriginal(t, db) || report.Rehearsal.Estimate == nil {
			t.Errorf("the report is %+v", report)
		}
	})
}

// TestAttemptsOfARehearsalAreUsedUp: it tells that the swap would not get through, and
// leaves nothing.
func TestAttemptsOfARehearsalAreUsedUp(t *testing.T) {
	t.Parallel()
	db := createT(t)
	config := tableT(t, db, nil)
	config.Observer, config.Rehearsal, config.Cutover.Attempts = nil, &migration.Rehearsal{}, 2
	reader := db.Conn(t)
	if _, err := reader.Exec(t.Context(), "BEGIN; SELECT FROM t"); err != nil {
		t.Fatal(err)
	}
	report, err := migration.Run(t.Context(), config)
	if err == nil || report.Outcome != migration.Stopped || report.Cutover.Attempts != 2 || !strings.Contains(report.Error.Message, "it is locked by pid") {
		t.Errorf("it ends with %v, report %+v", err, report)
	}
	if _, err := reader.Exec(t.Context(), "ROLLBACK"); err != nil {
		t.Error(err)
	}
	requireNothingLeft(t, db)
}

// TestRehearsalSurvivesLostSessions: it takes itself up again, as a change does.
func TestRehearsalSurvivesLostSessions(t *testing.T) {
	t.Parallel()
	db := createT(t)
	var runs []string
	lost := map[migration.Phase]bool{}
	config := tableT(t, db, func(event migration.Event) {
		switch e := event.(type) {
		case migration.RunStarted:
			runs = append(runs, e.RunID)
			if !e.Rehearsal {
				t.Errorf("it starts as %+v", e)
			}
		case migration.PhaseStarted:
			if e.Phase > migration.Prepare && !lost[e.Phase] {
				lost[e.Phase] = true
				db.Exec(t, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'pgshadow %'")
			}
		}
	})
	config.Rehearsal = &migration.Rehearsal{}
	report := mustRun(t, config)
	for _, id := range runs {
		if id != report.RunID {
			t.Errorf("it went on as %v", runs)
		}
	}
	if len(lost) != 6 || report.Rehearsal.Estimate == nil || !isOriginal(t, db) {
		t.Errorf("after losses in %v the report is %+v", lost, report)
	}
	requireNothingLeft(t, db)
}

// TestRehearsalOfAnOpenRun is refused, and the run is kept.
func TestRehearsalOfAnOpenRun(t *testing.T) {
	t.Parallel()
	db := createT(t)
	stopped := stopAt(t, db, migration.Verify)
	config := tableT(t, db, func(migration.Event) {})
	config.Rehearsal = &migration.Rehearsal{}
	report, err := migration.Run(t.Context(), config)
	if err == nil || report.ExitCode != 3 || report.Error.Check != "unfinished run" || !strings.Contains(report.Error.Message, "run "+stopped.RunID+" of pgshadow alter is not finished") ||
		!strings.Contains(report.Error.Message, ": "+strings.Join(config.Alters, "; ")+";") {
		t.Errorf("not refused: %v", err)
	}
	config.Rehearsal = nil
	if report := mustRun(t, config); report.RunID != stopped.RunID {
		t.Errorf("run %s went on as %s", stopped.RunID, report.RunID)
	}
}

// TestRehearsalOnAStandby is refused, until the standby is promoted.
func TestRehearsalOnAStandby(t *testing.T) {
	t.Parallel()
	p := createPairT(t, nil)
	p.login(t)
	p.awaitReplay(t)
	standby := p.db.At(p.standby)
	config := migration.Config{DSN: standby.As(p.db.Name + "_login"), Table: "t", Alters: []string{"ALTER COLUMN id TYPE bigint"}, Rehearsal: &migration.Rehearsal{}}
	report, err := migration.Run(t.Context(), config)
	if err == nil || report.ExitCode != 3 || report.Error.Check != "standby" || !strings.Contains(report.Error.Message, "physical replica") ||
		!strings.Contains(report.Error.Remedy, "promote") || !strings.Contains(report.Error.Remedy, "clone") {
		t.Fatalf("not refused: %v, %+v", err, report.Error)
	}
	standby.Exec(t, "SELECT pg_promote()")
	rehearse(t, config)
	requireNothingLeft(t, standby)
	if !isOriginal(t, standby) {
		t.Error("the table was changed")
	}
}

// TestRehearsalOfANativeChange: it is made without a copy, and taken back.
func TestRehearsalOfANativeChange(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, nativeSchema+"; ANALYZE t")
	config := migration.Config{DSN: login(t, db), Table: "t", Native: migration.NativeAuto, Rehearsal: &migration.Rehearsal{ScaleTo: migration.Scale{Rows: 2_000_000}}}
	before := pgtest.Dump(t, db)
	for _, alter := range []string{"ADD COLUMN z int", "ADD CHECK (n > 0), ADD UNIQUE (b)"} {
		config.Alters = []string{alter}
		report, err := migration.Run(t.Context(), config)
		if err != nil || report.Method != "native" || report.Outcome != migration.Done || report.Cutover.LockHoldMS <= 0 || report.Rehearsal == nil || report.Rehearsal.Scaled == nil || report.Rehearsal.Scaled.Factor != 1000 {
			t.Fatalf("%s: %v, report %+v", alter, err, report)
		}
		if after := pgtest.Dump(t, db); after != before {
			t.Errorf("%s: something was changed:\n%s", alter, lineDiff(before, after))
		}
		requireNothingLeft(t, db)
	}
	config.Alters = []string{"ADD UNIQUE (n)"}
	if report, err := migration.Run(t.Context(), config); err == nil || report.Outcome != migration.Aborted || report.Rehearsal.FailingRowsTotal == 0 {
		t.Errorf("%v, report %+v", err, report)
	}
	requireNothingLeft(t, db)
}

// TestRehearsalOfANativeChangeIsScaled: without statistics too, and as far as what it
// writes grows with the rows.
func TestRehearsalOfANativeChangeIsScaled(t *testing.T) {
	for _, c := range []struct {
		name, alter string
		indexes     bool
	}{
		{"reads", "ADD CHECK (n > 0)", false},
		{"catalog", "ADD COLUMN z int", false},
		{"index", "ADD UNIQUE (b)", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			db.Exec(t, "CREATE TABLE t (id int PRIMARY KEY, n int, b int) WITH (autovacuum_enabled = off); INSERT INTO t SELECT i, i, i FROM generate_series(1, 2000) i")
			size := pgtest.Scalar[int64](t, db, "SELECT pg_table_size('t') + pg_indexes_size('t')")
			r := mustRun(t, migration.Config{DSN: login(t, db), Table: "t", Alters: []string{c.alter}, Native: migration.NativeOnly,
				Rehearsal: &migration.Rehearsal{ScaleTo: migration.Scale{Rows: 2_000_000}}}).Rehearsal
			if r.Rows < 1000 || r.Rows > 4000 || r.Scaled == nil || r.Scaled.Rows != 2_000_000 {
				t.Fatalf("it found %+v, scaled to %+v", r, r.Scaled)
			}
			// A free space map may come meanwhile.
			if r.OriginalBytes < size || r.OriginalBytes > size+32768 || (r.ShadowBytes > 0) != c.indexes || (r.Scaled.WALBytes > r.WALBytes) != c.indexes ||
				r.Scaled.ShadowBytes < r.ShadowBytes {
				t.Errorf("of %d bytes it found %+v, scaled to %+v", size, r, r.Scaled)
			}
		})
	}
}

// TestRehearsalOnAnEmptyCopy: that nothing is scaled is said.
func TestRehearsalOnAnEmptyCopy(t *testing.T) {
	for _, native := range []migration.NativeMode{migration.NativeNever, migration.NativeOnly} {
		t.Run(string(native), func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			db.Exec(t, "CREATE TABLE t (id int PRIMARY KEY, n int)")
			report := mustRun(t, migration.Config{DSN: login(t, db), Table: "t", Alters: []string{"ADD CHECK (n > 0)"}, Native: native,
				Rehearsal: &migration.Rehearsal{ScaleTo: migration.Scale{Bytes: 1 << 40}}})
			if said := strings.Join(report.Warnings, "; "); report.Rehearsal.Estimate == nil || report.Rehearsal.Scaled != nil || !strings.Contains(said, "the copy is empty: there is nothing to scale") {
				t.Errorf("it warns of %q, %+v", said, report.Rehearsal)
			}
		})
	}
}
