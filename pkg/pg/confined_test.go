package pg_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/schema"
	"github.com/pgshadow/pgshadow/pkg/shadow"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// confine makes the functions for a table of a role's, and returns what runs statements as that role.
func confine(t *testing.T, db *pgtest.DB, conn *pgx.Conn) pg.Confined {
	t.Helper()
	owner := db.Role(t, "owner", "")
	db.Exec(t, "CREATE TABLE t (id int PRIMARY KEY); ALTER TABLE t OWNER TO "+owner)
	names := shadow.Names{RunID: "test", Table: "t"}
	err := pg.InTx(t.Context(), conn, pgx.TxOptions{}, func(tx pgx.Tx) error {
		oid, err := schema.Resolve(t.Context(), tx, "public", "t")
		if err != nil {
			return err
		}
		table, err := schema.Load(t.Context(), tx, oid)
		if err != nil {
			return err
		}
		statements := shadow.Confine(table, names, pgtest.Scalar[string](t, db, "SELECT current_user::text"))
		for _, s := range statements {
			if err == nil {
				err = pg.ExecAs(t.Context(), tx, s.Role, nil, s.SQL)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names.Confined(owner, `"public", pg_temp`)
}

// TestConfined: parameters arrive as they are, whatever is in them, statements run as the role under their search_path,
// and the session has its own role and path before and after.
func TestConfined(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	conn := connect(t, open(t, db))
	c := confine(t, db, conn)
	values := []string{"", " ", "NULL", "null", `"`, `\`, `\\'`, "{", "}", "a,b", "'; DROP TABLE t; --", "$1", "new\nline", "tab\t", "näme"}
	err := c.InTx(t.Context(), conn, pgx.TxOptions{}, func(tx pgx.Tx) error {
		const query = "SELECT k.v, $2::pg_catalog.text, $3::pg_catalog.text IS NULL FROM pg_catalog.unnest($1::pg_catalog.text[]) AS k(v)"
		rows, err := c.Query(t.Context(), tx, []string{"text", "text", "bool"}, query, values, `it's "\`) //nolint:rowserrcheck // ForEachRow does
		if err != nil {
			return err
		}
		var value, same string
		var null bool
		var got []string
		if _, err = pgx.ForEachRow(rows, []any{&value, &same, &null}, func() error {
			got = append(got, value)
			if same != `it's "\` || !null {
				t.Errorf("the other parameters are %q, null %t", same, null)
			}
			return nil
		}); err != nil {
			return err
		}
		if !slices.Equal(got, values) {
			t.Errorf("got %q, want %q", got, values)
		}
		n, err := c.Exec(t.Context(), tx, "INSERT INTO t SELECT v::int FROM pg_catalog.unnest($1::pg_catalog.text[]) AS k(v)", []string{"1", "2"})
		if err != nil || n != 2 {
			t.Errorf("%d rows are written, %v", n, err)
		}
		if _, err := c.Exec(t.Context(), tx, "SELECT 1", 1); err == nil || !strings.Contains(err.Error(), "int is neither") {
			t.Errorf("with a number: %v", err)
		}
		_, err = c.Exec(t.Context(), tx, "SELECT 1/pg_catalog.length(current_setting('search_path')) WHERE current_user <> $1::pg_catalog.text OR current_setting('search_path') <> $2::pg_catalog.text", c.Role, c.SearchPath)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if path := setting(t, conn, "search_path"); path != "pg_temp" {
		t.Errorf("the search_path is %q", path)
	}
}

// TestConfinedExecAs has the settings of a statement of the role's for that statement alone, and runs others as ExecAs
// does, whatever the role's statements have set.
func TestConfinedExecAs(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	conn := connect(t, open(t, db))
	c := confine(t, db, conn)
	db.Exec(t, "CREATE TABLE caught (who text, limit_was text, path text, what text); GRANT INSERT ON caught TO PUBLIC")
	const note = `INSERT INTO public.caught VALUES (current_user, current_setting('statement_timeout'), current_setting('search_path'), '\')`
	err := c.InTx(t.Context(), conn, pgx.TxOptions{}, func(tx pgx.Tx) error {
		if err := c.ExecAs(t.Context(), tx, c.Role, map[string]string{"statement_timeout": "7000"}, note); err != nil {
			return err
		}
		if _, err := c.Exec(t.Context(), tx, "SET search_path = nowhere; SET standard_conforming_strings = off; SET escape_string_warning = off"); err != nil {
			return err
		}
		return c.ExecAs(t.Context(), tx, "", nil, note)
	})
	if err != nil {
		t.Fatal(err)
	}
	got := pgtest.Scalar[string](t, db, "SELECT string_agg(concat_ws(' ', CASE who WHEN current_user THEN 'login' WHEN $1 THEN 'role' END, limit_was, path, what), '; ' ORDER BY ctid) FROM caught", c.Role)
	if want := `role 7s "public", pg_temp \; login 0 pg_temp \`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestKeepTrustsItsOwnAlone: a statement that the role's code has prepared under a name of the session's own is not
// run in its place.
func TestKeepTrustsItsOwnAlone(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	conn := connect(t, open(t, db))
	c := confine(t, db, conn)
	const query = "SELECT 'right' WHERE $1::pg_catalog.text IS NOT NULL"
	ask := func(tx pgx.Tx) (got string) {
		kept, err := pg.Keep(t.Context(), tx)
		if err == nil {
			err = kept.QueryRow(t.Context(), query, "x").Scan(&got)
		}
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	err := c.InTx(t.Context(), conn, pgx.TxOptions{}, func(tx pgx.Tx) error {
		ask(tx)
		if got := ask(tx); got != "right" {
			t.Errorf("kept, it answers %q", got)
		}
		var names []string
		if err := tx.QueryRow(t.Context(), "SELECT array_agg(name) FROM pg_catalog.pg_prepared_statements").Scan(&names); err != nil || len(names) != 1 {
			t.Fatalf("prepared are %v, %v", names, err)
		}
		if _, err := c.Exec(t.Context(), tx, "DEALLOCATE ALL; PREPARE "+names[0]+"(text) AS SELECT 'wrong'::text"); err != nil {
			return err
		}
		if got := ask(tx); got != "right" {
			t.Errorf("with another statement in its place, it answers %q", got)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
