package examples

import (
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgshadow/pgshadow/test/pgtest"
)

// tool is a migration tool, or how one runs a file.
type tool struct {
	name, file string
	run        func(t *testing.T, db *pgtest.DB, file string) error
}

var tools = []tool{
	{"flyway", "flyway/V42__orders_customer_id_bigint.sql", inTransaction(flyway)},
	{"liquibase", "liquibase/0042_orders_customer_id_bigint.sql", inTransaction(liquibase)},
	{"prisma", "prisma/migrations/20260801120000_orders_customer_id_bigint/migration.sql", asScript},
	{"psql", "sql/0042_orders_customer_id_bigint.sql", withPsql},
}

// inTransaction runs the statements that a tool makes of a file, and its own record of them, in one transaction. The
// session's search_path leads elsewhere.
func inTransaction(statements func(t *testing.T, text string) []string) func(*testing.T, *pgtest.DB, string) error {
	return func(t *testing.T, db *pgtest.DB, file string) error {
		t.Helper()
		conn := elsewhere(t, db)
		return pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
			for _, sql := range append(statements(t, read(t, file)), "INSERT INTO elsewhere.history VALUES (42)") {
				if _, err := tx.Exec(t.Context(), sql); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

// elsewhere opens a session with a search_path that has another table of the name.
func elsewhere(t *testing.T, db *pgtest.DB) *pgx.Conn {
	t.Helper()
	conn := db.Conn(t)
	if _, err := conn.Exec(t.Context(), `CREATE SCHEMA IF NOT EXISTS elsewhere; CREATE TABLE IF NOT EXISTS elsewhere.orders (customer_id int);
		CREATE TABLE IF NOT EXISTS elsewhere.history (version int); SET search_path = elsewhere`); err != nil {
		t.Fatal(err)
	}
	return conn
}

// flyway sends a file as it is, after it has put in the values of ${placeholders}.
func flyway(t *testing.T, text string) []string {
	t.Helper()
	if strings.Contains(text, "${") {
		t.Error("the file has what Flyway takes for a placeholder")
	}
	return []string{text}
}

var wholeLineComment = regexp.MustCompile(`(?m)^\s*--.*$`)

// liquibase makes one statement of a changeset with splitStatements:false, without its comments.
func liquibase(t *testing.T, text string) []string {
	t.Helper()
	head, _, _ := strings.Cut(text, "DO ")
	if !strings.HasPrefix(head, "--liquibase formatted sql\n") || !regexp.MustCompile(`\n--changeset \S+:\S+ splitStatements:false\n`).MatchString(head) {
		t.Errorf("no head of a changeset that is not split:\n%s", head)
	}
	return []string{wholeLineComment.ReplaceAllString(text, "")}
}

// asScript sends a file in one message of the simple protocol.
func asScript(t *testing.T, db *pgtest.DB, file string) error {
	t.Helper()
	_, err := elsewhere(t, db).PgConn().Exec(t.Context(), read(t, file)).ReadAll()
	return err
}

// withPsql runs the command that the file itself gives.
func withPsql(t *testing.T, db *pgtest.DB, file string) error {
	t.Helper()
	elsewhere(t, db)
	line := regexp.MustCompile(`(?m)^--   (psql .*)$`).FindStringSubmatch(read(t, file))
	if line == nil {
		t.Fatal("the file does not say how it is run")
	}
	words := strings.Fields(line[1])
	cmd := command(t, append(environment(t, db), "PGOPTIONS=-c search_path=elsewhere"), psql(t, db), words[1:]...)
	cmd.Dir = filepath.Join(folder, filepath.Dir(file))
	output, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return errors.New(string(output))
	}
	return err
}

// identity tells whether a table was rewritten, or another took its place.
func identity(t *testing.T, db *pgtest.DB) string {
	t.Helper()
	return pgtest.Scalar[string](t, db, `SELECT oid || ' ' || pg_relation_filenode(oid) || ' ' || xmin FROM pg_class WHERE oid = 'public.orders'::regclass`)
}

// The file changes a table that is small, and does nothing to it the second time.
func TestSmallTableIsChangedByTheFile(t *testing.T) {
	t.Parallel()
	for _, tool := range tools {
		t.Run(tool.name, func(t *testing.T) {
			t.Parallel()
			db := orders(t, small)
			before := rows(t, db)
			if err := tool.run(t, db, tool.file); err != nil {
				t.Fatal(err)
			}
			changed := identity(t, db)
			if form(t, db) != "bigint" || rows(t, db) != before {
				t.Errorf("customer_id is %s, the rows are %s, before %s", form(t, db), rows(t, db), before)
			}
			if err := tool.run(t, db, tool.file); err != nil {
				t.Fatal(err)
			}
			if now := identity(t, db); now != changed {
				t.Errorf("the second time makes %s of %s", now, changed)
			}
		})
	}
}

// The file refuses a table that is large, and says what to run; when that has been run, the file does nothing.
func TestLargeTableIsChangedByPgshadow(t *testing.T) {
	t.Parallel()
	for _, tool := range tools {
		t.Run(tool.name, func(t *testing.T) {
			t.Parallel()
			db := orders(t, large)
			untouched, before := identity(t, db), rows(t, db)
			remedy := ""
			for range 2 {
				err := tool.run(t, db, tool.file)
				if err == nil {
					t.Fatal("it has not refused")
				}
				found := regexp.MustCompile(`public\.orders is too large .* first run: (pgshadow alter .*bigint")`).FindStringSubmatch(err.Error())
				if found == nil || form(t, db) != "integer" || identity(t, db) != untouched {
					t.Fatalf("it says %v, and makes customer_id %s, %s of %s", err, form(t, db), identity(t, db), untouched)
				}
				remedy = found[1]
			}
			if got := run(t, environment(t, db), "sh", "-c", remedy); got.code != 0 {
				t.Fatalf("%s: %s", remedy, got)
			}
			changed := identity(t, db)
			if changed == untouched || form(t, db) != "bigint" {
				t.Fatalf("%s has not changed the table", remedy)
			}
			for range 2 {
				if err := tool.run(t, db, tool.file); err != nil {
					t.Fatalf("after the change: %v", err)
				}
			}
			if now := identity(t, db); now != changed || rows(t, db) != before {
				t.Errorf("the file makes %s of %s, and rows %s of %s", now, changed, rows(t, db), before)
			}
			if kind := pgtest.Scalar[string](t, db, "SELECT atttypid::regtype::text FROM pg_attribute WHERE attrelid = 'elsewhere.orders'::regclass AND attname = 'customer_id'"); kind != "integer" {
				t.Errorf("a table of another schema has become %s", kind)
			}
		})
	}
}

// A table that somebody reads for long is not waited for with everybody else behind.
func TestFileDoesNotWaitForALock(t *testing.T) {
	t.Parallel()
	db := orders(t, small)
	reader, err := db.Conn(t).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Rollback(context.WithoutCancel(t.Context())) //nolint:errcheck // it only reads
	if _, err := reader.Exec(t.Context(), "SELECT FROM public.orders LIMIT 1"); err != nil {
		t.Fatal(err)
	}
	tool := tools[0]
	var refused *pgconn.PgError
	if err := tool.run(t, db, tool.file); !errors.As(err, &refused) || refused.Code != "55P03" {
		t.Errorf("got %v, want lock_not_available", err)
	}
}

// All files have the same statement, so that what one tool shows holds for all.
func TestOneGuard(t *testing.T) {
	t.Parallel()
	_, guard, _ := strings.Cut(read(t, tools[0].file), "\nDO $guard$")
	for _, tool := range tools {
		if _, text, found := strings.Cut(read(t, tool.file), "\nDO $guard$"); !found || text != guard {
			t.Errorf("%s differs from %s", tool.file, tools[0].file)
		}
	}
}
