package e2e

import (
	"strings"
	"testing"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// TestDataThatTheNewSchemaRejects aborts, names an offending key or value, and
// leaves the original as it was and nothing else.
func TestDataThatTheNewSchemaRejects(t *testing.T) {
	for _, c := range []struct {
		name, setup, alter string
		says               []string
	}{
		{"type", "UPDATE t SET v = 'x' WHERE id = 777", "ALTER COLUMN v TYPE int USING v::int", []string{"key (777)", `invalid input syntax for type integer: "x"`}},
		{"too long", "UPDATE t SET v = repeat('9', 50) WHERE id = 4321", "ALTER COLUMN v TYPE varchar(40)", []string{"key (4321)", "value too long"}},
		{"out of range", "UPDATE t SET n = 70000 WHERE id = 2", "ALTER COLUMN n TYPE smallint", []string{"key (2)", "smallint out of range"}},
		{"check", "UPDATE t SET n = -1 WHERE id = 5000", "ADD CONSTRAINT positive CHECK (n >= 0)", []string{"key (5000)", "positive"}},
		{"not null", "UPDATE t SET n = NULL WHERE id = 1", "ALTER COLUMN n SET NOT NULL", []string{"key (1)", "null value in column \"n\""}},
		{"unique", "UPDATE t SET n = 17 WHERE id = 18", "ADD CONSTRAINT n_once UNIQUE (n)", []string{"n_once", "(n)=(17)"}},
		{"exclusion", "UPDATE t SET n = 17 WHERE id = 18", "ADD CONSTRAINT n_once EXCLUDE USING btree (n WITH =)", []string{"n_once", "(n)=(17)"}},
		{"key of another type", "INSERT INTO t VALUES (70000, '1', 1)", "ALTER COLUMN id TYPE smallint", []string{"key (70000)", "smallint out of range"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			db.Exec(t, "CREATE TABLE t (id int PRIMARY KEY, v text, n int); INSERT INTO t SELECT i, i::text, i FROM generate_series(1, 5000) i; CREATE INDEX ON t (v)")
			db.Exec(t, c.setup)
			login(t, db)
			before := pgtest.Dump(t, db)
			report, err := migration.Run(t.Context(), migration.Config{DSN: login(t, db), Table: "t", Alters: []string{c.alter}, AllowLossy: true})
			if err == nil || report.Outcome != migration.Aborted || report.ExitCode != 4 {
				t.Fatalf("not aborted: %v, report %+v", err, report)
			}
			for _, text := range c.says {
				if !strings.Contains(report.Error.Message, text) {
					t.Errorf("the message lacks %q: %s", text, report.Error.Message)
				}
			}
			requireUntouched(t, db, before)
		})
	}
}

// requireUntouched fails unless the original is as it was and nothing but the
// state rows is left.
func requireUntouched(t *testing.T, db *pgtest.DB, before string) {
	t.Helper()
	if after := pgtest.Dump(t, db); after != before {
		t.Errorf("the database was changed:\n%s", lineDiff(before, after))
	}
	requireNothingLeft(t, db)
}

// requireNothingLeft fails if there is anything of a run but the state rows.
func requireNothingLeft(t *testing.T, db *pgtest.DB) {
	t.Helper()
	const left = `SELECT coalesce(string_agg(x, ', '), '') FROM (
		SELECT nspname FROM pg_namespace WHERE nspname LIKE 'pgshadow\_%'
		UNION ALL SELECT pubname FROM pg_publication WHERE pubname LIKE 'pgshadow%'
		UNION ALL SELECT slot_name FROM pg_replication_slots WHERE database = current_database()) AS s(x)`
	if artifacts := pgtest.Scalar[string](t, db, left); artifacts != "" {
		t.Errorf("left behind: %s", artifacts)
	}
	requireNoSessions(t, db)
}
