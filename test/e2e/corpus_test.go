package e2e

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// corpusEnv set to "all" takes every table of the corpus through both runs, not one.
const corpusEnv = "PGSHADOW_CORPUS"

// fixtures are the schemas of the corpus, in testdata/corpus.
var fixtures = []string{"forge", "music", "rental", "social"}

// TestCorpus takes every table of some applications' schemas through a run that
// changes nothing and through one with a real ALTER. After each the whole database
// must be as after a plain ALTER TABLE: its dump, every row of every table, and its
// sequences. Without PGSHADOW_CORPUS=all each table has one of the two runs.
func TestCorpus(t *testing.T) {
	for _, name := range fixtures {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := loadFixture(t, name)
			for i, table := range f.tables {
				all, even := os.Getenv(corpusEnv) == "all", i%2 == 0
				if check, refused := f.refused[table]; refused {
					t.Run(table+"/refused", func(t *testing.T) {
						t.Parallel()
						f.refuses(t, table, check)
					})
					continue
				}
				if all || even {
					t.Run(table+"/unchanged", func(t *testing.T) {
						t.Parallel()
						f.leavesAsItIs(t, table)
					})
				}
				if all || !even {
					t.Run(table+"/changed", func(t *testing.T) {
						t.Parallel()
						f.changes(t, table)
					})
				}
			}
		})
	}
}

// TestCorpusFixtures shows that every ALTER of the corpus works without pgshadow, also
// those that TestCorpus leaves out.
func TestCorpusFixtures(t *testing.T) {
	for _, name := range fixtures {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := loadFixture(t, name)
			conn := f.copy(t).Conn(t)
			var recreated []string
			for _, table := range f.tables {
				if f.plainAlter(t, conn, table) {
					recreated = append(recreated, table)
				}
				execute(t, conn, "ROLLBACK")
			}
			t.Logf("%d tables, %d of them refused; with what hangs on them created again: %s", len(f.tables), len(f.refused), strings.Join(recreated, " "))
		})
	}
}

func (f *fixture) leavesAsItIs(t *testing.T, table string) {
	db := f.copy(t)
	before := contents(t, db)
	f.run(t, db, migration.Config{Table: table})
	requireSame(t, db, f.dump, before)
}

func (f *fixture) changes(t *testing.T, table string) {
	db, twin := f.copy(t), f.copy(t)
	conn := twin.Conn(t)
	f.plainAlter(t, conn, table)
	execute(t, conn, "COMMIT")
	dump := pgtest.Dump(t, twin)
	if dump == f.dump {
		t.Fatal("the ALTER changes nothing")
	}
	f.run(t, db, migration.Config{Table: table, Alters: f.alters[table], AllowLossy: true})
	requireSame(t, db, dump, contents(t, twin))
}

func (f *fixture) refuses(t *testing.T, table, check string) {
	db := f.copy(t)
	before := contents(t, db)
	report, err := migration.Run(t.Context(), migration.Config{DSN: f.login(t, db), Table: table})
	if err == nil || report.Outcome != migration.Refused || report.Error == nil {
		t.Fatalf("not refused: %v, report %+v", err, report)
	}
	checks := []string{report.Error.Check}
	for _, refusal := range report.Error.Refusals {
		checks = append(checks, refusal.Check)
	}
	if !slices.Contains(checks, check) {
		t.Errorf("refused by %q, want %q: %s", checks, check, report.Error.Message)
	}
	requireSame(t, db, f.dump, before)
}

// run changes the table with pgshadow.
func (f *fixture) run(t *testing.T, db *pgtest.DB, config migration.Config) {
	t.Helper()
	config.DSN = f.login(t, db)
	config.Observer = migration.ObserverFunc(func(event migration.Event) { logEvent(t, event) })
	report, err := migration.Run(t.Context(), config)
	if err != nil {
		t.Fatalf("%v (report %+v)", err, report)
	}
	if len(report.Warnings) > 0 {
		t.Logf("warnings: %s", strings.Join(report.Warnings, "; "))
	}
}

// requireSame fails unless the database has that dump, and those contents.
func requireSame(t *testing.T, db *pgtest.DB, dump, rows string) {
	t.Helper()
	if got := pgtest.Dump(t, db); got != dump {
		t.Errorf("the dump is not that of before, or after a plain ALTER TABLE:\n%s", lineDiff(dump, got))
	}
	if got := contents(t, db); got != rows {
		t.Errorf("rows or sequences are not those of before, or after a plain ALTER TABLE:\n%s", lineDiff(rows, got))
	}
	if n := pgtest.Scalar[int](t, db, "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()"); n != 0 {
		t.Errorf("%d slots are left", n)
	}
}

// contents are all rows and the positions of all sequences, a line each.
func contents(t *testing.T, db *pgtest.DB) string {
	t.Helper()
	query := pgtest.Scalar[string](t, db, `SELECT string_agg(CASE relkind WHEN 'S' THEN format('SELECT %1$L || format('' at %%s, called: %%s'', last_value, is_called) FROM %1$s', oid::regclass)
		ELSE format('SELECT %1$L || '' '' || x::text FROM ONLY %1$s AS x', oid::regclass) END, ' UNION ALL ') FROM pg_class
		WHERE relkind IN ('r', 'S') AND relnamespace::regnamespace::text NOT IN ('pg_catalog', 'information_schema', 'pg_toast') AND relnamespace::regnamespace::text !~ '^pgshadow'`)
	return pgtest.Scalar[string](t, db, `SELECT string_agg(line, E'\n' ORDER BY line COLLATE "C") FROM (`+query+`) AS l(line)`)
}
