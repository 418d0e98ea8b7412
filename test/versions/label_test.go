package versions

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/test/pgtest"
	"github.com/pgshadow/pgshadow/test/seclabel"
)

// provider is the beginning of a script: it gives the database the two label providers, in this session and in all
// that begin later.
func provider(t *testing.T, db *pgtest.DB) string {
	t.Helper()
	library, err := seclabel.Build(t.Context(), db.Server(), db.Name)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`LOAD '%[1]s'; DO $$ BEGIN EXECUTE format('ALTER DATABASE %%I SET session_preload_libraries = %%L', current_database(), '%[1]s'); END $$;`, library)
}

// labels lists what is labelled in the database outside pgshadow's schemas, or within them.
func labels(t *testing.T, db *pgtest.DB, within bool) string {
	t.Helper()
	return pgtest.Scalar[string](t, db, `SELECT coalesce(string_agg(format('%s %s: %s', i.type, regexp_replace(i.identity, '^pgshadow_\w+?\.', ''), l.label) COLLATE "C", '; ' ORDER BY i.type COLLATE "C", i.identity COLLATE "C", l.provider COLLATE "C"), '')
		FROM pg_seclabel l, pg_identify_object(l.classoid, l.objoid, l.objsubid) i WHERE starts_with(i.identity, 'pgshadow') = $1`, within)
}

// TestSecurityLabels of everything that a run makes anew and PostgreSQL labels, set by a superuser of a table that is
// not its own.
func TestSecurityLabels(t *testing.T) {
	t.Parallel()
	on(t, oldest, newest, func(t *testing.T, db *pgtest.DB) {
		keeper := db.Role(t, "keeper", "")
		sameAsPlain(t, db, provider(t, db)+`CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, s serial, "V v" text, gone int, swapped int);
			INSERT INTO t ("V v", gone, swapped) SELECT 'v' || i, i, i FROM generate_series(1, 300) i; GRANT CREATE ON SCHEMA public TO `+keeper+`; ALTER TABLE t OWNER TO `+keeper+`;
			CREATE VIEW "The View" AS SELECT id, "V v" AS "W w" FROM t; CREATE VIEW over AS SELECT count(*) AS c FROM "The View"; ALTER VIEW over OWNER TO `+keeper+`;
			SECURITY LABEL FOR pgshadow_test ON TABLE t IS 'secret'; SECURITY LABEL FOR "pgshadow test 2" ON TABLE t IS 'it''s \ "x"'; SECURITY LABEL FOR pgshadow_test ON TYPE t IS 'row';
			SECURITY LABEL FOR pgshadow_test ON COLUMN t."V v" IS 'v'; SECURITY LABEL FOR pgshadow_test ON COLUMN t.gone IS 'gone'; SECURITY LABEL FOR "pgshadow test 2" ON COLUMN t.swapped IS 'former';
			SECURITY LABEL FOR pgshadow_test ON SEQUENCE t_id_seq IS 'ids'; SECURITY LABEL FOR pgshadow_test ON SEQUENCE t_s_seq IS 'serial';
			SECURITY LABEL FOR pgshadow_test ON VIEW "The View" IS 'secret'; SECURITY LABEL FOR pgshadow_test ON COLUMN "The View"."W w" IS 'w'; SECURITY LABEL FOR pgshadow_test ON TYPE "The View" IS 'row of a view';
			SECURITY LABEL FOR "pgshadow test 2" ON VIEW over IS 'over'`,
			`RENAME COLUMN "V v" TO w`, "DROP COLUMN gone", "ALTER COLUMN s TYPE bigint", "DROP COLUMN swapped, ADD COLUMN swapped text")
		const want = `sequence public.t_id_seq: ids; sequence public.t_s_seq: serial; table public.t: it's \ "x"; table public.t: secret; table column public.t.w: v; ` +
			`type public."The View": row of a view; type public.t: row; view public."The View": secret; view public.over: over; view column public."The View"."W w": w`
		if got := labels(t, db, false); got != want {
			t.Errorf("there are the labels\n%s\nwant\n%s", got, want)
		}
	})
}

// labelled is a table of a plain role that pgshadow logs in as, with labels that its owner may set.
func labelled(t *testing.T, db *pgtest.DB) migration.Config {
	t.Helper()
	owner := db.Role(t, "owner", "LOGIN REPLICATION")
	db.Exec(t, provider(t, db)+"GRANT CREATE ON DATABASE "+db.Name+" TO "+owner+"; GRANT CREATE ON SCHEMA public TO "+owner+`;
		CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t SELECT i, i FROM generate_series(1, 300) i; CREATE VIEW v AS SELECT n FROM t; CREATE MATERIALIZED VIEW mv AS SELECT id FROM t;
		ALTER TABLE t OWNER TO `+owner+"; ALTER VIEW v OWNER TO "+owner+"; ALTER MATERIALIZED VIEW mv OWNER TO "+owner+`;
		SECURITY LABEL FOR pgshadow_test ON TABLE t IS 'plain'; SECURITY LABEL FOR pgshadow_test ON COLUMN t.n IS 'n'; SECURITY LABEL FOR pgshadow_test ON VIEW v IS 'v';
		SECURITY LABEL FOR pgshadow_test ON MATERIALIZED VIEW mv IS 'mv'; SECURITY LABEL FOR pgshadow_test ON COLUMN mv.id IS 'id'; SECURITY LABEL FOR pgshadow_test ON TYPE mv IS 'row'`)
	return migration.Config{DSN: db.As(owner), Table: "t", Alters: []string{"ALTER COLUMN id TYPE bigint"}, MatViews: migration.RecreateMatViews}
}

// TestSecurityLabelsByTheOwner: a plain role sets them as the owner, and the copy has them before its first row.
func TestSecurityLabelsByTheOwner(t *testing.T) {
	t.Parallel()
	on(t, oldest, newest, func(t *testing.T, db *pgtest.DB) {
		config := labelled(t, db)
		before, copied := labels(t, db, false), ""
		config.Observer = migration.ObserverFunc(func(event migration.Event) {
			if started, ok := event.(migration.PhaseStarted); ok && started.Phase == migration.Copy {
				copied = labels(t, db, true)
			}
		})
		report, err := migration.Run(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		requireClean(t, db, report)
		if copied != "table t: plain; table column t.n: n" {
			t.Errorf("when the copy begins the shadow has the labels %s", copied)
		}
		if after := labels(t, db, false); after != before || strings.Count(after, ";") != 5 {
			t.Errorf("there are the labels\n%s\nwant\n%s", after, before)
		}
	})
}

// TestSecurityLabelsRefused: a label that cannot be set again is refused by its object and provider, with PostgreSQL's
// reason, before anything is left.
func TestSecurityLabelsRefused(t *testing.T) {
	t.Parallel()
	on(t, oldest, newest, func(t *testing.T, db *pgtest.DB) {
		config := labelled(t, db)
		for _, c := range []struct{ label, says, remedy, undo string }{
			{"SECURITY LABEL FOR pgshadow_test ON COLUMN t.n IS 'secret'", `the label of pgshadow_test on column n cannot be set on the new one: label "secret" is not for you`, "log in as a role that may set it, a superuser",
				"SECURITY LABEL FOR pgshadow_test ON COLUMN t.n IS 'n'"},
			{"SECURITY LABEL FOR pgshadow_test ON VIEW v IS 'secret'", `of pgshadow_test on view public.v cannot be set`, "a superuser", "SECURITY LABEL FOR pgshadow_test ON VIEW v IS 'v'"},
			{`SECURITY LABEL FOR "pgshadow test 2" ON TYPE _t IS 'array'`, `security label of "pgshadow test 2" on type public.t[]`, "remove the label", `SECURITY LABEL FOR "pgshadow test 2" ON TYPE _t IS NULL`},
			{"ALTER DATABASE " + db.Name + " RESET session_preload_libraries", `on the table cannot be set on the new one: security label provider "pgshadow_test" is not loaded`, "session_preload_libraries", ""},
		} {
			db.Exec(t, c.label)
			if says := refused(t, db, config, "security label"); !strings.Contains(says, c.says) || !strings.Contains(says, c.remedy) {
				t.Errorf("after %s it says %s\nwant %s; %s", c.label, says, c.says, c.remedy)
			}
			db.Exec(t, c.undo)
		}
	})
}

// TestSecurityLabelSetMeanwhile ends the run, as a change of a comment does: the new table would lack it.
func TestSecurityLabelSetMeanwhile(t *testing.T) {
	t.Parallel()
	on(t, newest, newest, func(t *testing.T, db *pgtest.DB) {
		for _, c := range []struct{ sql, says string }{
			{"SECURITY LABEL FOR pgshadow_test ON COLUMN t.n IS 'm'", `column n changed its security labels from pgshadow_test: "n" to pgshadow_test: "m"`},
			{`SECURITY LABEL FOR "pgshadow test 2" ON TYPE t IS 'r'`, `the table changed its security labels from pgshadow_test: "plain" to pgshadow_test: "plain", "pgshadow test 2": "r" (row type)`},
			{"SECURITY LABEL FOR pgshadow_test ON COLUMN v.n IS 'w'", "view public.v changed"},
		} {
			db := newDatabase(t, major(t, db))
			config := labelled(t, db)
			config.Observer = migration.ObserverFunc(func(event migration.Event) {
				if started, ok := event.(migration.PhaseStarted); ok && started.Phase == migration.Copy {
					db.Exec(t, c.sql)
				}
			})
			report, err := migration.Run(t.Context(), config)
			if report.Outcome != migration.Aborted || !strings.Contains(err.Error(), c.says) {
				t.Errorf("after %s: outcome %s, %v, want %s", c.sql, report.Outcome, err, c.says)
			}
		}
	})
}
