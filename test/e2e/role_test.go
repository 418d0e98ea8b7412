package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/pkg/shadow"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// TestPlainRole has each kind of plain role do everything that there is to do: stop
// and resume a run, steer it, remove one, swap, list, and drop the retired table.
func TestPlainRole(t *testing.T) {
	for _, kind := range plainRoles {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			db.Exec(t, `CREATE TABLE t (id serial PRIMARY KEY, n int, u int UNIQUE DEFAULT 5 CHECK (u > 0), g int GENERATED ALWAYS AS (n + 1) STORED);
				CREATE INDEX ON t (n); CREATE STATISTICS t_s ON n, u FROM t; INSERT INTO t(n, u) SELECT i, i FROM generate_series(1, 1000) i`)
			dsn := loginAs(t, db, kind)
			before := pgtest.Dump(t, db)

			stopAt(t, db, migration.Index)
			if removed, err := migration.Cleanup(t.Context(), dsn, false); err != nil || len(removed) != 1 || !removed[0].Removed {
				t.Fatalf("cleanup: %+v, %v", removed, err)
			}
			requireUntouched(t, db, before)

			stopAt(t, db, migration.Verify)
			run := launch(t, manual(t, db))
			run.await(t, "wait for the operator", waitingFor(theOperator))
			run.command(t, db, migration.CommandPause, "")
			if status := statusOf(t, db); status.State != migration.StatePaused {
				t.Errorf("the status is %+v", status)
			}
			run.command(t, db, migration.CommandAbort, "")
			if report, err := run.end(t); report.Outcome != migration.Aborted {
				t.Fatalf("the run is %s: %v", report.Outcome, err)
			}
			requireUntouched(t, db, before)

			run = launch(t, manual(t, db))
			run.await(t, "wait for the operator", waitingFor(theOperator))
			db.Exec(t, "TRUNCATE t; INSERT INTO t(n, u) VALUES (1, 1)")
			run.await(t, "another copy", phaseStart(migration.Copy))
			run.await(t, "wait for the operator", waitingFor(theOperator))
			run.command(t, db, migration.CommandCutover, "")
			requireClean(t, db, run.done(t))
			if got := pgtest.Scalar[string](t, db, "SELECT string_agg(DISTINCT tableowner, ' ') FROM pg_tables WHERE tablename = 't'"); got != db.Name+"_owner" {
				t.Errorf("the tables belong to %s", got)
			}
			if removed, err := migration.Finish(t.Context(), dsn, "t"); err != nil || len(removed) != 1 || !removed[0].Removed {
				t.Errorf("finish: %+v, %v", removed, err)
			}
		})
	}
}

// TestOwnersCodeRunsAsTheOwner sets traps in a default, a generated column, a
// CHECK, an index expression and a USING expression, and runs as superuser: each
// writes down as whom it ran (INV-6).
func TestOwnersCodeRunsAsTheOwner(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	owner := db.Name + "_owner"
	db.Exec(t, "CREATE ROLE "+owner)
	t.Cleanup(func() {
		db.Exec(t, "DROP OWNED BY "+owner+" CASCADE")
		db.Exec(t, "DROP ROLE "+owner)
	})
	db.Exec(t, `GRANT CREATE, USAGE ON SCHEMA public TO `+owner+`;
		CREATE TABLE caught (who text, what text); GRANT INSERT ON caught TO PUBLIC; GRANT SELECT ON caught TO PUBLIC;
		CREATE FUNCTION note(what text) RETURNS void LANGUAGE sql AS 'INSERT INTO public.caught VALUES (current_user, what)';
		CREATE FUNCTION trap(what text, n int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN
			IF NOT current_setting('transaction_read_only')::bool AND current_setting('trap.quiet', true) IS DISTINCT FROM 'yes' THEN
				PERFORM public.note(what); END IF;
			RETURN n; END $$;
		SET ROLE `+owner+`; SET trap.quiet = 'yes';
		CREATE TABLE t (id int PRIMARY KEY, n int, d int DEFAULT trap('default', 1), g int GENERATED ALWAYS AS (trap('generated', n)) STORED, CHECK (trap('check', n) >= 0));
		CREATE INDEX t_i ON t (trap('index', n));
		INSERT INTO t(id, n) SELECT i, i FROM generate_series(1, 100) i`)
	report, err := migration.Run(t.Context(), migration.Config{AllowLossy: true, DSN: superuser(t, db, "whose rights the traps are after"), Table: "t",
		Alters: []string{"ALTER COLUMN id TYPE bigint, ADD COLUMN e int DEFAULT trap('new default', 2)"}})
	if err != nil {
		t.Fatalf("%v (%+v)", err, report.Error)
	}
	for _, what := range []string{"generated", "check", "index", "new default"} {
		who := pgtest.Scalar[string](t, db, "SELECT coalesce(string_agg(DISTINCT who, ' '), 'nobody') FROM caught WHERE what = $1", what)
		if who != owner {
			t.Errorf("the code in the %s ran as %s, want %s", what, who, owner)
		}
	}
}

// TestStateTablesOfAnotherRole: whoever may create schemas could lay out the state
// tables with triggers or as views, before a superuser's first run. No command
// touches them.
func TestStateTablesOfAnotherRole(t *testing.T) {
	t.Parallel()
	for name, lay := range map[string]string{
		"schema": "CREATE SCHEMA pgshadow AUTHORIZATION %s",
		"tables": "CREATE SCHEMA pgshadow; GRANT ALL ON SCHEMA pgshadow TO %[1]s; SET ROLE %[1]s; CREATE VIEW pgshadow.command AS SELECT public.note('command') AS run_id; RESET ROLE",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := createT(t)
			other := db.Name + "_other"
			db.Exec(t, "CREATE ROLE "+other+"; CREATE TABLE caught (what text); CREATE FUNCTION note(what text) RETURNS text LANGUAGE sql AS 'INSERT INTO public.caught VALUES (what) RETURNING what'")
			t.Cleanup(func() { db.Exec(t, "DROP OWNED BY "+other+" CASCADE; DROP ROLE "+other) })
			db.Exec(t, "GRANT CREATE ON DATABASE "+db.Name+" TO "+other+"; "+fmt.Sprintf(lay, other))
			report, err := migration.Run(t.Context(), tableT(t, db, func(migration.Event) {}))
			if report.ExitCode != 3 || report.Error.Check != "state tables" || !strings.Contains(err.Error(), other) {
				t.Errorf("alter: %v", err)
			}
			_, status := migration.Status(t.Context(), login(t, db), "")
			_, cleanup := migration.Cleanup(t.Context(), login(t, db), false)
			_, command := migration.Command(t.Context(), login(t, db), "t", migration.CommandAbort, "")
			for _, err := range []error{status, cleanup, command} {
				var refusal *shadow.Refusal
				if !errors.As(err, &refusal) || refusal.Check != "state tables" {
					t.Errorf("not refused: %v", err)
				}
			}
			if n := pgtest.Scalar[int](t, db, "SELECT count(*) FROM caught"); n != 0 {
				t.Errorf("the trap was sprung %d times", n)
			}
		})
	}
}
