package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// historyOf lists the runs of a table, the newest first, and requires as many.
func historyOf(t *testing.T, db *pgtest.DB, table string, count int) []migration.RunRecord {
	t.Helper()
	records, err := migration.History(t.Context(), login(t, db), table, 0)
	if err != nil || len(records) != count {
		t.Fatalf("the history of %q is %+v, %v; want %d runs", table, records, err, count)
	}
	return records
}

// runT makes one more change to table t.
func runT(t *testing.T, db *pgtest.DB, alters ...string) (migration.Report, error) {
	t.Helper()
	return migration.Run(t.Context(), migration.Config{DSN: login(t, db), Table: "t", Alters: alters, Set: map[string]string{"Twice": "2 * id"}})
}

// phaseNames are the phases in their order, from copy on.
func phaseNames(r migration.RunRecord) string {
	var names []string
	for _, phase := range r.Phases {
		names = append(names, phase.Name)
	}
	return strings.Join(names, " ")
}

// asJSON is a value as its reader sees it.
func asJSON(t *testing.T, value any) string {
	t.Helper()
	document, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(document)
}

// TestHistory follows a table through a run that is done and one that the data does
// not fit, and on when it is gone.
func TestHistory(t *testing.T) {
	t.Parallel()
	db := createT(t)
	if records := historyOf(t, db, "", 0); records != nil {
		t.Errorf("before any run: %+v", records)
	}
	done, err := runT(t, db, `ADD COLUMN "Twice" bigint`, "ALTER COLUMN id TYPE bigint")
	if err != nil {
		t.Fatal(err)
	}
	r := historyOf(t, db, "t", 1)[0]
	role := pgtest.Scalar[string](t, db, "SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'pgshadow'")
	if got := fmt.Sprintf("%s %s %s %q %q %s %s", r.RunID, r.Table, r.Method, r.Alters, r.Set, r.Role, r.Outcome); got !=
		fmt.Sprintf(`%s public.t shadow ["ADD COLUMN \"Twice\" bigint" "ALTER COLUMN id TYPE bigint"] map["Twice":"2 * id"] %s done`, done.RunID, role) {
		t.Errorf("the run is %s", got)
	}
	if r.EndedAt == nil || r.EndedAt.Before(r.StartedAt) || r.PID == 0 || r.Host == "" || len(r.Fingerprint) != 32 || r.Detail != "" || *r.ExitCode != 0 || r.Phase != "ended" {
		t.Errorf("the run is %+v", r)
	}
	if got, want := asJSON(t, []any{r.RowsCopied, r.ChangesReceived, r.KeysReplayed, r.Verify, r.Cutover, r.RetiredTable, r.DurationMS, r.Phases}),
		asJSON(t, []any{done.RowsCopied, done.ChangesReceived, done.KeysReplayed, done.Verify, done.Cutover, done.RetiredTable, done.DurationMS, done.Phases}); got != want {
		t.Errorf("it has reported\n%s\nand recorded is\n%s", want, got)
	}

	db.Exec(t, "UPDATE t SET v = 'x' WHERE id = 7")
	before := pgtest.Dump(t, db)
	aborted, err := runT(t, db, `ADD COLUMN "Twice" bigint, ALTER COLUMN v TYPE int USING nullif(v, 'v')::int`)
	if err == nil || aborted.Outcome != migration.Refused {
		t.Fatalf("the column is there already, and yet: %v", err)
	}
	aborted, err = migration.Run(t.Context(), migration.Config{DSN: login(t, db), Table: "t", Alters: []string{"ALTER COLUMN v TYPE int USING nullif(v, 'v')::int"}, AllowLossy: true})
	if err == nil || aborted.Outcome != migration.Aborted {
		t.Fatalf("not aborted: %v", err)
	}
	if after := pgtest.Dump(t, db); after != before {
		t.Errorf("the database was changed:\n%s", lineDiff(before, after))
	}
	records := historyOf(t, db, "t", 2) // not the one that was refused: it has made nothing
	if r = records[0]; r.RunID != aborted.RunID || r.Outcome != "aborted" || *r.ExitCode != 4 || !strings.Contains(r.Detail, "key (7)") || r.Cutover != nil || r.Verify != nil ||
		r.RetiredTable != "" || r.EndedAt == nil || !strings.HasPrefix(phaseNames(r), "preflight prepare copy") {
		t.Errorf("the aborted run is %+v", r)
	}
	if r.Fingerprint == records[1].Fingerprint {
		t.Error("the fingerprint is that of the table before the first change")
	}

	requireSQLOfDocs(t, db, 2)

	// Neither the end of the retired table nor that of the table is one of the history.
	if _, err := migration.Finish(t.Context(), login(t, db), "t"); err != nil {
		t.Fatal(err)
	}
	if _, err := migration.Cleanup(t.Context(), login(t, db), false); err != nil {
		t.Fatal(err)
	}
	db.Exec(t, "ALTER TABLE t RENAME TO renamed")
	for _, table := range []string{"renamed", "t", "public.t", "PUBLIC . T"} {
		if got := historyOf(t, db, table, 2); asJSON(t, got) != asJSON(t, records) {
			t.Errorf("the history of %s is %s", table, asJSON(t, got))
		}
	}
	db.Exec(t, "DROP TABLE renamed")
	historyOf(t, db, "t", 2)
	historyOf(t, db, "", 2)
	historyOf(t, db, "renamed", 0)
	historyOf(t, db, `public."T"`, 0)
	if one, err := migration.History(t.Context(), login(t, db), "", 1); err != nil || len(one) != 1 || one[0].RunID != aborted.RunID {
		t.Errorf("the last run is %+v, %v", one, err)
	}
	// The state tables are a role's own: another one neither trusts them, nor may read a superuser's.
	if records, err := migration.History(t.Context(), db.As(db.Role(t, "other", "LOGIN")), "", 0); err == nil || !strings.Contains(err.Error(), "schema pgshadow") {
		t.Errorf("another role reads %+v, %v", records, err)
	}
	for _, table := range []string{"a.b.c", "1"} {
		if records, err := migration.History(t.Context(), login(t, db), table, 0); err == nil || !strings.Contains(err.Error(), "is not a table's name") {
			t.Errorf("the history of %s is %+v, %v", table, records, err)
		}
	}
}

// requireSQLOfDocs runs the statements of the documentation on the runs there are:
// one lists them, one keeps what has not ended a year ago, or has left something.
func requireSQLOfDocs(t *testing.T, db *pgtest.DB, count int) {
	t.Helper()
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## History\n")
	section, _, _ = strings.Cut(section, "\n## ")
	parts := strings.Split(section, "```")
	if len(parts) != 5 {
		t.Fatalf("the documentation has %d blocks, want 2", len(parts)/2)
	}
	list, forget := strings.TrimPrefix(parts[1], "sql"), strings.TrimPrefix(parts[3], "sql")
	if got := pgtest.Scalar[string](t, db, "SELECT string_agg(format('%s %s', outcome, lock_hold_ms > '0'), ', ' ORDER BY created_at) FROM ("+strings.TrimRight(list, "; \n")+") AS listed"); got != "done t, aborted f" {
		t.Errorf("the list is %s", got)
	}
	conn := db.Conn(t)
	for ended, want := range map[string]int{"now()": count, "now() - interval '2 years'": count - 1} { // one has a retired table
		tx, err := conn.Begin(t.Context())
		if err == nil {
			_, err = tx.Exec(t.Context(), "UPDATE pgshadow.run SET ended_at = "+ended+"; "+forget)
		}
		var left int
		if err == nil {
			err = tx.QueryRow(t.Context(), "SELECT count(*) FROM pgshadow.run").Scan(&left)
		}
		if err = errors.Join(err, tx.Rollback(t.Context())); err != nil || left != want {
			t.Errorf("of %d runs that ended %s, %d are left, want %d: %v", count, ended, left, want, err)
		}
	}
}

// TestHistoryOfAResumedRun has what every process of the run has reported.
func TestHistoryOfAResumedRun(t *testing.T) {
	t.Parallel()
	db := createT(t)
	stopped := stopAt(t, db, migration.Index)
	r := historyOf(t, db, "t", 1)[0]
	if r.Outcome != migration.StillOpen || r.Phase != "index" || r.EndedAt != nil || *r.ExitCode != 5 || r.Detail != stopped.Error.Message ||
		*r.RowsCopied != 2000 || *r.DurationMS != stopped.DurationMS || r.Cutover != nil {
		t.Errorf("the stopped run is %s", asJSON(t, r))
	}
	// Who is refused because of it leaves nothing in its record.
	if other, err := runT(t, db, `ADD COLUMN "Twice" bigint`); err == nil || other.RunID != stopped.RunID || other.Error.Check != "unfinished run" {
		t.Fatalf("another change: %v, %+v", err, other)
	}
	if got := historyOf(t, db, "t", 1)[0]; asJSON(t, got) != asJSON(t, r) {
		t.Errorf("the refusal is in the record: %s", asJSON(t, got))
	}
	db.Exec(t, "UPDATE t SET v = 'later' WHERE id < 10")
	report, err := migration.Run(t.Context(), tableT(t, db, func(migration.Event) {}))
	if err != nil {
		t.Fatal(err)
	}
	r = historyOf(t, db, "t", 1)[0]
	if r.RunID != stopped.RunID || r.Outcome != "done" || *r.ExitCode != 0 || r.Detail != "" || *r.DurationMS != stopped.DurationMS+report.DurationMS ||
		*r.ChangesReceived != stopped.ChangesReceived+report.ChangesReceived || *r.KeysReplayed != stopped.KeysReplayed+report.KeysReplayed || *r.RowsCopied != 2000 {
		t.Errorf("the run is %s", asJSON(t, r))
	}
	if got, want := asJSON(t, r.Phases), asJSON(t, slices.Concat(stopped.Phases, report.Phases)); got != want {
		t.Errorf("its phases are %s, want %s", got, want)
	}
	if got, want := asJSON(t, []any{r.Verify, r.Cutover, r.RetiredTable}), asJSON(t, []any{report.Verify, report.Cutover, report.RetiredTable}); got != want {
		t.Errorf("it ended with %s, want %s", got, want)
	}
}

// TestHistoryOfAnOpenRun is read while the run is on, and knows no more of it than
// that it began.
func TestHistoryOfAnOpenRun(t *testing.T) {
	t.Parallel()
	db := createT(t)
	run := launch(t, tableT(t, db, func(migration.Event) {}))
	run.await(t, "the index", phaseStart(migration.Index))
	r := historyOf(t, db, "t", 1)[0]
	if r.Outcome != "open" || r.Phase != "index" || r.EndedAt != nil || len(r.Fingerprint) != 32 {
		t.Errorf("the run is %+v", r)
	}
	if got := asJSON(t, []any{r.ExitCode, r.RowsCopied, r.ChangesReceived, r.KeysReplayed, r.Verify, r.Cutover, r.DurationMS, r.Phases, r.Warnings}); got !=
		"[null,null,null,null,null,null,null,[],[]]" {
		t.Errorf("it has reported %s", got)
	}
	run.done(t)
	if got := historyOf(t, db, "t", 1)[0]; got.Outcome != "done" || *got.ExitCode != 0 {
		t.Errorf("in the end the run is %+v", got)
	}
}

// TestHistoryWithoutTheControlSession stops a run and ends the session that writes its
// state rows: the report gets there on another one.
func TestHistoryWithoutTheControlSession(t *testing.T) {
	t.Parallel()
	db := createT(t)
	run := launch(t, tableT(t, db, nil))
	run.await(t, "the copy", phaseStart(migration.Copy))
	if ended := pgtest.Scalar[int](t, db, "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid, 10000)) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'pgshadow control'"); ended != 1 {
		t.Fatalf("%d sessions were ended", ended)
	}
	run.stop()
	report, err := run.end(t)
	if err == nil || report.Outcome != migration.Stopped {
		t.Fatalf("not stopped: %v", err)
	}
	if r := historyOf(t, db, "t", 1)[0]; r.ExitCode == nil || *r.ExitCode != 5 || r.Detail != report.Error.Message {
		t.Errorf("the run is %s", asJSON(t, r))
	}
	requireNoSessions(t, db)
}

// TestHistoryOfARunThatWasTakenUp has another process take up a run: how the first
// has ended is no matter of the run's any more.
func TestHistoryOfARunThatWasTakenUp(t *testing.T) {
	t.Parallel()
	db := createT(t)
	run := launch(t, tableT(t, db, nil))
	run.await(t, "the copy", phaseStart(migration.Copy))
	db.Exec(t, "UPDATE pgshadow.run SET host = 'elsewhere'")
	run.stop()
	if report, err := run.end(t); err == nil || report.Outcome != migration.Stopped {
		t.Fatalf("not stopped: %v", err)
	}
	if r := historyOf(t, db, "t", 1)[0]; r.Host != "elsewhere" || r.ExitCode != nil || len(r.Phases) != 0 {
		t.Errorf("the run is %s", asJSON(t, r))
	}
}

// firstState is the DDL of the runs' table as the first pgshadow has made it.
const firstState = `CREATE SCHEMA pgshadow;
CREATE TABLE pgshadow.run (
  run_id      text PRIMARY KEY,
  table_oid   oid NOT NULL,
  table_title text NOT NULL,
  table_name  text NOT NULL,
  change      jsonb NOT NULL,
  phase       text NOT NULL,
  plan        jsonb,
  applied     pg_lsn,
  heal        boolean NOT NULL DEFAULT false,
  steering    jsonb NOT NULL DEFAULT '{}',
  progress    jsonb,
  server      text,
  result_oid  oid,
  host        text NOT NULL,
  pid         int NOT NULL,
  created_at  timestamptz NOT NULL DEFAULT pg_catalog.now(),
  updated_at  timestamptz NOT NULL DEFAULT pg_catalog.now(),
  ended_at    timestamptz,
  outcome     text,
  detail      text
);
CREATE UNIQUE INDEX run_open ON pgshadow.run (table_oid) WHERE ended_at IS NULL;
CREATE TABLE pgshadow.chunk (
  chunk_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  run_id   text NOT NULL REFERENCES pgshadow.run ON DELETE CASCADE,
  lo       text[],
  hi       text[],
  rows     bigint NOT NULL
);
CREATE INDEX chunk_run ON pgshadow.chunk (run_id);
CREATE TABLE pgshadow.command (
  command_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  run_id      text NOT NULL REFERENCES pgshadow.run ON DELETE CASCADE,
  name        text NOT NULL,
  argument    text NOT NULL,
  issued_by   text NOT NULL DEFAULT session_user,
  issued_at   timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  answered_at timestamptz,
  accepted    boolean,
  answer      text
);
CREATE INDEX command_open ON pgshadow.command (run_id) WHERE answered_at IS NULL;
INSERT INTO pgshadow.run (run_id, table_oid, table_title, table_name, change, phase, host, pid, created_at, ended_at, outcome, result_oid)
VALUES ('aaaaaaaaaa', 1, 'public.t', 't', '{"alters": ["ADD c int"], "set": {"c": {"sql": "o.id", "columns": ["id"]}}}', 'ended', 'afar', 5, '2020-01-01', '2020-01-02', 'done', 2);`

// TestHistoryOfAnEarlierPgshadow reads state tables that do not have the history's
// columns, with every command that reads, and leaves them so; a run brings them.
func TestHistoryOfAnEarlierPgshadow(t *testing.T) {
	t.Parallel()
	db := createT(t)
	conn, err := pgx.Connect(t.Context(), login(t, db))
	if err != nil {
		t.Fatal(err)
	}
	_, err = conn.Exec(t.Context(), firstState)
	if err := errors.Join(err, conn.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
	const added = "SELECT count(*) FROM pg_attribute WHERE attrelid = 'pgshadow.run'::regclass AND attname IN ('method', 'role', 'fingerprint', 'report')"
	r := historyOf(t, db, "t", 1)[0]
	if got := asJSON(t, r); r.Method != "shadow" || r.Role != "" || r.Fingerprint != "" || r.Outcome != "done" || r.Set["c"] != "o.id" || r.Alters[0] != "ADD c int" ||
		r.ExitCode != nil || r.Verify != nil || r.Host != "afar" || r.StartedAt.UTC().Year() > 2020 {
		t.Errorf("the run of the earlier pgshadow is %s", got)
	}
	if statuses, err := migration.Status(t.Context(), login(t, db), "t"); err != nil || len(statuses) != 0 {
		t.Errorf("the status is %+v, %v", statuses, err)
	}
	if listed, err := migration.Cleanup(t.Context(), login(t, db), true); err != nil || len(listed) != 0 {
		t.Errorf("left is %+v, %v", listed, err)
	}
	if _, err := migration.Command(t.Context(), login(t, db), "t", migration.CommandAbort, ""); err == nil || !strings.Contains(err.Error(), "there is no unfinished run") {
		t.Errorf("abort: %v", err)
	}
	if n := pgtest.Scalar[int](t, db, added); n != 0 {
		t.Errorf("reading has added %d columns", n)
	}
	stopAt(t, db, migration.Copy)
	if n := pgtest.Scalar[int](t, db, added); n != 4 {
		t.Errorf("a run has added %d columns", n)
	}
	records := historyOf(t, db, "t", 2)
	if r := records[0]; r.Role == "" || r.Fingerprint == "" || r.ExitCode == nil {
		t.Errorf("the new run is %+v", r)
	}
	if got := asJSON(t, records[1]); got != asJSON(t, r) {
		t.Errorf("the run of the earlier pgshadow has become %s", got)
	}

	// A run that an earlier pgshadow has begun is resumed by this one.
	db.Exec(t, "ALTER TABLE pgshadow.run DROP COLUMN method, DROP COLUMN role, DROP COLUMN fingerprint, DROP COLUMN report")
	report, err := migration.Run(t.Context(), tableT(t, db, func(migration.Event) {}))
	if err != nil {
		t.Fatal(err)
	}
	if r := historyOf(t, db, "t", 2)[0]; r.RunID != report.RunID || r.Role != "" || r.Outcome != "done" || asJSON(t, r.Phases) != asJSON(t, report.Phases) {
		t.Errorf("the resumed run is %s", asJSON(t, r))
	}
}
