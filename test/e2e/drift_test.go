package e2e

import (
	"strings"
	"testing"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// ddl is what somebody does to the original, table t of createT, during a run.
type ddl struct {
	sql   string
	says  []string        // in the message
	phase migration.Phase // at the beginning of which it is done; default Verify
}

var ddls = []ddl{
	{sql: "ALTER TABLE t ADD COLUMN y int", says: []string{"public.t: column y was added (integer)"}},
	{sql: "ALTER TABLE t ADD COLUMN y int; INSERT INTO t VALUES (9999, 'v', 1)", says: []string{"public.t: column y was added (int"}},
	{sql: "ALTER TABLE t DROP COLUMN v", says: []string{"column v was dropped", "index t_v_idx was dropped"}},
	{sql: "ALTER TABLE t DROP COLUMN v; INSERT INTO t VALUES (9999)", says: []string{"column v was dropped"}},
	{sql: "ALTER TABLE t ALTER v TYPE varchar(10)", says: []string{"column v changed its type from text to character varying(10)"}},
	{sql: "ALTER TABLE t ALTER id TYPE text; UPDATE t SET id = 'x' WHERE id = '1'", says: []string{"column id changed its type from int"}},
	{sql: "ALTER TABLE t RENAME COLUMN v TO w", says: []string{"column v was renamed to w", "index t_v_idx changed its definition from USING btree (v) to USING btree (w)"}},
	{sql: "ALTER TABLE t RENAME COLUMN id TO key", says: []string{"column id was renamed to key"}},
	{sql: "ALTER TABLE t RENAME COLUMN v TO w; INSERT INTO t VALUES (9999, 'v')", says: []string{"column v was renamed to w"}},
	{sql: "ALTER TABLE t RENAME TO u", says: []string{"public.t: the table was renamed to u"}},
	{sql: "ALTER TABLE t RENAME TO u", says: []string{"public.t: the table was renamed to u"}, phase: migration.Copy},
	{sql: "ALTER TABLE t RENAME TO u", says: []string{"public.t: the table was renamed to u"}, phase: migration.Cutover},
	{sql: "ALTER TABLE t RENAME TO u; UPDATE u SET v = 'x'", says: []string{"public.t: the table was renamed to u"}, phase: migration.Index},
	{sql: "ALTER TABLE t RENAME TO u; CREATE TABLE t (LIKE u INCLUDING ALL)", says: []string{"public.t: the table was renamed to u"}},
	{sql: "DROP TABLE t", says: []string{"public.t: the table was dropped"}},
	{sql: "DROP TABLE t", says: []string{"public.t: the table was dropped"}, phase: migration.Copy},
	{sql: "UPDATE t SET v = 'x'; DROP TABLE t", says: []string{"public.t: the table was dropped"}, phase: migration.CatchUp},
	{sql: "DROP TABLE t", says: []string{"public.t: the table was dropped"}, phase: migration.Cutover},
	{sql: "DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY, v text)", says: []string{"public.t: the table was dropped"}, phase: migration.Index},
	{sql: "CREATE SCHEMA s; ALTER TABLE t SET SCHEMA s", says: []string{"public.t: the table was moved to schema s"}},
	{sql: "CREATE SCHEMA s; ALTER TABLE t SET SCHEMA s", says: []string{"public.t: the table was moved to schema s"}, phase: migration.Copy},
	{sql: "CREATE INDEX later ON t (v, id)", says: []string{"public.t: index later was created (USING btree (v, id))"}},
	{sql: "DROP INDEX t_v_idx", says: []string{"public.t: index t_v_idx was dropped"}},
	{sql: "ALTER TABLE t ADD CONSTRAINT small CHECK (id < 0) NOT VALID", says: []string{"public.t: constraint small was added (CHECK ((id < 0)) NOT VALID)"}},
	{sql: "ALTER TABLE t SET (fillfactor = 50)", says: []string{"public.t: the table changed its options from none to fillfactor=50"}},
	{sql: "GRANT SELECT ON t TO PUBLIC", says: []string{"public.t: SELECT was granted to PUBLIC"}},
	{sql: "REVOKE TRUNCATE, DELETE ON t FROM {owner}", says: []string{"public.t: DELETE, TRUNCATE were revoked from"}},
	{sql: "COMMENT ON TABLE t IS 'mine'", says: []string{"public.t: the table changed its comment"}},
	{sql: "ALTER TABLE t ADD c1 int, ADD c2 int, ADD c3 int, ADD c4 int, ADD c5 int, ADD c6 int, ADD c7 int", says: []string{"column c5 was added (integer); and 2 more"}},
	{sql: "CREATE VIEW w AS SELECT id FROM t", says: []string{"view public.w was created (SELECT"}},
	{sql: "CREATE TABLE o (x int); CREATE POLICY p ON o USING (EXISTS (SELECT 1 FROM t))", says: []string{"policy p"}},
	{sql: "CREATE TABLE q (x int REFERENCES t)", says: []string{"foreign key q_x_fkey (public.q) was created"}},
	{sql: "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TRIGGER tr BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f()",
		says: []string{"trigger tr was created (CREATE TRIGGER tr BEFORE"}},
	{sql: "ALTER TABLE t ENABLE ROW LEVEL SECURITY", says: []string{"the table changed its row security from disabled to enabled"}},
	{sql: "CREATE PUBLICATION pub; ALTER PUBLICATION pub ADD TABLE t", says: []string{"publication pub was created"}},
}

// TestChangeOfTheOriginalDuringTheRun aborts, removes everything that the run
// made, leaves the original as the change left it, and says what changed.
func TestChangeOfTheOriginalDuringTheRun(t *testing.T) {
	for _, d := range ddls {
		if d.phase == 0 {
			d.phase = migration.Verify
		}
		t.Run(d.phase.String()+" "+d.sql, func(t *testing.T) {
			t.Parallel()
			d.run(t)
		})
	}
}

func (d ddl) run(t *testing.T) {
	db := createT(t)
	var before string
	report, err := migration.Run(t.Context(), tableT(t, db, func(event migration.Event) {
		if e, ok := event.(migration.PhaseStarted); ok && e.Phase == d.phase && before == "" {
			db.Exec(t, strings.ReplaceAll(d.sql, "{owner}", db.Name+"_owner"))
			before = withRows(t, db)
		}
	}))
	if err == nil || report.Outcome != migration.Aborted || report.ExitCode != 4 {
		t.Fatalf("not aborted: %v, report %+v", err, report)
	}
	for _, text := range append(d.says, "the original was changed during the run: ") {
		if !strings.Contains(report.Error.Message, text) {
			t.Errorf("the message lacks %q: %s", text, report.Error.Message)
		}
	}
	if after := withRows(t, db); after != before {
		t.Errorf("the database was changed:\n%s", lineDiff(before, after))
	}
	requireNothingLeft(t, db)
}

// TestChangeOfTheOriginalBetweenTwoProcesses of a run: the one that resumes knows
// from the plan what the original was.
func TestChangeOfTheOriginalBetweenTwoProcesses(t *testing.T) {
	t.Parallel()
	db := createT(t)
	stopAt(t, db, migration.CatchUp)
	db.Exec(t, "ALTER TABLE t ALTER v SET DEFAULT 'd'; GRANT SELECT, INSERT ON t TO PUBLIC")
	before := withRows(t, db)
	report, err := migration.Run(t.Context(), tableT(t, db, func(migration.Event) {}))
	const want = "the original was changed during the run: public.t: column v changed its default from none to 'd'::text; INSERT, SELECT were granted to PUBLIC"
	if err == nil || report.Outcome != migration.Aborted || report.Error.Message != want {
		t.Fatalf("not aborted: %v, report %+v", err, report)
	}
	if after := withRows(t, db); after != before {
		t.Errorf("the database was changed:\n%s", lineDiff(before, after))
	}
	requireNothingLeft(t, db)
}

// withRows is the dump of what is not the run's, with the number of rows and a
// digest of the original wherever it is now.
func withRows(t *testing.T, db *pgtest.DB) string {
	t.Helper()
	tables := pgtest.Scalar[string](t, db, `SELECT coalesce(string_agg(format('SELECT count(*), md5(string_agg(x::text, '','' ORDER BY x::text)) FROM %s x', oid::regclass), ' UNION ALL '), 'SELECT 0, ''''')
		FROM pg_class WHERE relkind = 'r' AND relname IN ('t', 'u') AND relnamespace::regnamespace::text IN ('public', 's')`)
	rows := pgtest.Scalar[string](t, db, "SELECT string_agg(concat_ws(' ', n, digest), ', ' ORDER BY n, digest) FROM ("+tables+") AS all_rows(n, digest)")
	return rows + "\n" + pgtest.Dump(t, db, "--no-publications")
}
