package pg_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// kinds is what each predicate says of an error, as a word.
func kinds(err error) string {
	var words []string
	for _, p := range []struct {
		word string
		is   func(error) bool
	}{{"data", pg.IsData}, {"conflict", pg.IsUniqueConflict}, {"lock", pg.IsLockFailure}, {"connection", pg.IsConnection}} {
		if p.is(err) {
			words = append(words, p.word)
		}
	}
	return strings.Join(words, " ")
}

func TestKindsOfServerErrors(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, `CREATE TABLE t (id int PRIMARY KEY, v varchar(3) NOT NULL CHECK (v <> 'no'), EXCLUDE USING btree (v WITH =)); INSERT INTO t VALUES (1, 'a'); CREATE TABLE child (id int REFERENCES t)`)
	conn := connect(t, open(t, db))
	for sql, want := range map[string]string{
		"INSERT INTO public.t VALUES (1, 'b')":                                  "data conflict", // 23505
		"INSERT INTO public.t VALUES (2, 'a')":                                  "data conflict", // 23P01
		"INSERT INTO public.t VALUES (2, NULL)":                                 "data",
		"INSERT INTO public.t VALUES (2, 'no')":                                 "data",
		"INSERT INTO public.t VALUES (2, 'long')":                               "data",
		"INSERT INTO public.child VALUES (7)":                                   "data",
		"SELECT 'x'::int":                                                       "data",
		"DO $$ BEGIN RAISE 'no'; END $$":                                        "data",
		"SELECT nothing":                                                        "",
		"SELECT * FROM public.nowhere":                                          "",
		"SET statement_timeout = 10; SELECT pg_sleep(10)":                       "",
		"SET statement_timeout = 0; SET lock_timeout = 10; LOCK TABLE public.t": "lock",
		"DO $$ BEGIN RAISE USING ERRCODE = 'deadlock_detected'; END $$":         "lock",
		"DO $$ BEGIN RAISE USING ERRCODE = 'cannot_connect_now'; END $$":        "connection",
		"DO $$ BEGIN RAISE USING ERRCODE = 'too_many_connections'; END $$":      "",
		"DO $$ BEGIN RAISE USING ERRCODE = 'connection_failure'; END $$":        "connection",
		"SELECT pg_terminate_backend(pg_backend_pid())":                         "connection",
	} {
		holder := db.Conn(t)
		if _, err := holder.Exec(t.Context(), "BEGIN; LOCK TABLE t IN ACCESS SHARE MODE"); err != nil {
			t.Fatal(err)
		}
		if conn.IsClosed() {
			conn = connect(t, open(t, db))
		}
		_, err := conn.Exec(t.Context(), "BEGIN; "+sql)
		if got := kinds(fmt.Errorf("doing: %w", errors.Join(errors.New("other"), err))); err == nil || got != want {
			t.Errorf("%s: %v is %q, want %q", sql, err, got, want)
		}
		_, _ = conn.Exec(t.Context(), "ROLLBACK") // the session may be gone
		if err := holder.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestKindsOfOtherErrors(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	refused, err := pg.Open("postgres://postgres@127.0.0.1:1/x?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	_, errRefused := refused.Connect(t.Context(), "test")
	_, errDatabase := open(t, &pgtest.DB{DSN: strings.Replace(db.DSN, db.Name, "nowhere_at_all", 1)}).Connect(t.Context(), "test")
	for _, c := range []struct {
		err  error
		want string
	}{
		{errRefused, "connection"},
		{errDatabase, ""},
		{io.ErrUnexpectedEOF, "connection"},
		{fmt.Errorf("reading: %w", net.ErrClosed), "connection"},
		{&net.OpError{Op: "read", Err: errors.New("reset")}, "connection"},
		{context.Canceled, ""},
		{errors.Join(context.Canceled, io.EOF), ""},
		{errors.New("other"), ""},
		{nil, ""},
	} {
		if got := kinds(c.err); got != c.want {
			t.Errorf("%v is %q, want %q", c.err, got, c.want)
		}
	}
	if pg.Server(errRefused) != nil || !pg.Is(errDatabase, "3D000") || pg.Is(nil, "3D000") || pg.Is(errDatabase) {
		t.Errorf("the server's own error is taken for another: %v", errDatabase)
	}
}

// TestHostileNames go to the server and come back the same.
func TestHostileNames(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	conn := connect(t, open(t, db))
	for _, name := range []string{`a"b`, `"`, `a"; DROP TABLE x; --`, "select", "Mixed Case", "näme", "a.b", `back\slash`, "new\nline", "$1", "'", `'; DROP TABLE x; --`, `\'`, "%s", strings.Repeat("ä", 31)} {
		var got string
		sql := fmt.Sprintf("CREATE TABLE %s (%s int); SELECT 1", pg.Ident("public", name), pg.Idents([]string{name}))
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Errorf("%q: %v", name, err)
			continue
		}
		err := conn.QueryRow(t.Context(), "SELECT c.relname || ' ' || a.attname FROM pg_class c JOIN pg_attribute a ON attrelid = c.oid AND attnum = 1 WHERE c.oid = "+pg.Literal(pg.Ident("public", name))+"::regclass").Scan(&got)
		if err != nil || got != name+" "+name {
			t.Errorf("%q comes back as %q, %v", name, got, err)
		}
		for _, standard := range []string{"on", "off"} {
			if _, err := conn.Exec(t.Context(), "SET standard_conforming_strings = "+standard+"; SET escape_string_warning = off"); err != nil {
				t.Fatal(err)
			}
			if err := conn.QueryRow(t.Context(), "SELECT "+pg.Literal(name)).Scan(&got); err != nil || got != name {
				t.Errorf("literal %q comes back as %q, %v", name, got, err)
			}
		}
		if _, err := conn.Exec(t.Context(), "SET standard_conforming_strings = on"); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := pg.Idents([]string{"a", `b"`, "c"}), `"a", "b""", "c"`; got != want {
		t.Errorf("idents are %s", got)
	}
}

// TestSnapshotAgreesWithTheServer about every transaction of some that are open,
// committed, rolled back, prepared and not begun.
func TestSnapshotAgreesWithTheServer(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	conn := connect(t, open(t, db))
	var first, last int64
	ends := []string{"COMMIT", "ROLLBACK", "SELECT 1", "PREPARE TRANSACTION '" + db.Name + "'"}
	for i := range 12 {
		var xid int64
		writer := db.Conn(t)
		if _, err := writer.Exec(t.Context(), "BEGIN"); err != nil {
			t.Fatal(err)
		}
		if err := writer.QueryRow(t.Context(), "SELECT pg_current_xact_id()::text::bigint").Scan(&xid); err != nil {
			t.Fatal(err)
		}
		end := ends[i%4]
		if i > 4 && i%4 == 3 {
			end = "COMMIT"
		}
		if _, err := writer.Exec(t.Context(), end); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = xid
		}
		last = xid
	}
	var text string
	var seen []bool
	err := conn.QueryRow(t.Context(), `SELECT s::text, array_agg(pg_visible_in_snapshot(x::text::xid8, s) ORDER BY x)
		FROM pg_current_snapshot() s, generate_series($1::bigint, $2 + 50) x GROUP BY s::text`, first, last).Scan(&text, &seen)
	if err != nil {
		t.Fatal(err)
	}
	snapshot, err := pg.ParseSnapshot(text)
	if err != nil {
		t.Fatal(err)
	}
	visible := 0
	for i, want := range seen {
		xid := uint32(first + int64(i)) //nolint:gosec // the low half is meant
		if got := snapshot.Sees(xid); got != want {
			t.Errorf("%s sees %d: %t, the server says %t", text, xid, got, want)
		}
		if want {
			visible++
		}
	}
	if visible == 0 || visible == len(seen) {
		t.Errorf("%d of %d transactions are visible", visible, len(seen))
	}
}

// TestParseOneTakesOneStatement: the server itself refuses a second, and runs none.
func TestParseOneTakesOneStatement(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	conn := connect(t, open(t, db))
	if err := pg.ParseOne(t.Context(), conn, "CREATE TABLE public.a ()"); err != nil {
		t.Error(err)
	}
	for _, sql := range []string{"CREATE TABLE public.b (); CREATE TABLE public.c ()", "SELECT 1; SELECT 2", "CREATE TABEL x"} {
		if err := pg.ParseOne(t.Context(), conn, sql); pg.Server(err) == nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
	if n := pgtest.Scalar[int](t, db, "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"); n != 0 {
		t.Errorf("there are %d tables", n)
	}
}

// TestExecAsThatFails leaves neither role nor settings behind.
func TestExecAsThatFails(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	conn := connect(t, open(t, db))
	err := pg.InTx(t.Context(), conn, pgx.TxOptions{}, func(tx pgx.Tx) error {
		return pg.ExecAs(t.Context(), tx, "pg_monitor", map[string]string{"work_mem": "4321kB"}, "SELECT 1/0")
	})
	if !pg.Is(err, "22012") {
		t.Errorf("it returned %v", err)
	}
	var role string
	if err := conn.QueryRow(t.Context(), "SELECT current_user").Scan(&role); err != nil || role != "postgres" || setting(t, conn, "work_mem") != "4MB" {
		t.Errorf("the session is %s with work_mem %s, %v", role, setting(t, conn, "work_mem"), err)
	}
}

// TestCleanUpAfterTheEnd: a context that has ended keeps nobody from rolling back
// and closing, and a session that is gone has rolled back by itself.
func TestCleanUpAfterTheEnd(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	database := open(t, db)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	conn := connect(t, database)
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "CREATE TABLE public.t ()"); err != nil {
		t.Fatal(err)
	}
	if err := pg.Rollback(ended, tx); err != nil || pgtest.Scalar[*string](t, db, "SELECT to_regclass('t')::text") != nil {
		t.Errorf("rolled back with %v", err)
	}
	if err := pg.Rollback(ended, tx); err != nil {
		t.Errorf("a second time: %v", err)
	}
	if tx, err = conn.Begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	db.Exec(t, "SELECT pg_terminate_backend($1)", conn.PgConn().PID())
	if _, err := tx.Exec(t.Context(), "SELECT 1"); !pg.IsConnection(err) {
		t.Errorf("on a terminated session: %v", err)
	}
	if err := pg.Rollback(ended, tx); err != nil {
		t.Errorf("rolling back on a session that is gone: %v", err)
	}
	if err := pg.Close(ended, connect(t, database)); err != nil {
		t.Errorf("closing: %v", err)
	}
	clean, release := pg.Cleanup(ended)
	defer release()
	if deadline, bounded := clean.Deadline(); clean.Err() != nil || !bounded || time.Until(deadline) > pg.CleanupTimeout {
		t.Errorf("the clean-up's context ends at %v, %v", deadline, clean.Err())
	}
}

// TestSessionSurvivesACancelledTransaction: the rollback works, and so does the session.
func TestSessionSurvivesACancelledTransaction(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	conn := connect(t, open(t, db))
	pid := conn.PgConn().PID()
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		err := pg.InTx(ctx, conn, pgx.TxOptions{}, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "SELECT pg_sleep(60)")
			return err
		})
		cancel()
		if !pg.Is(err, pg.QueryCanceled) && !pgconn.Timeout(err) {
			t.Errorf("the transaction returned %v", err)
		}
	}
	if conn.IsClosed() || conn.PgConn().PID() != pid || setting(t, conn, "application_name") != "pgshadow test" {
		t.Error("the session is gone")
	}
}

// TestSearchPath: the connection string's own counts where a user's name is looked
// up, and nowhere else.
func TestSearchPath(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	separator := "?"
	if strings.Contains(db.DSN, "?") {
		separator = "&"
	}
	for dsn, want := range map[string]string{db.DSN: `"$user", public`, db.DSN + separator + "search_path=app": "app"} {
		database, err := pg.Open(dsn)
		if err != nil {
			t.Fatal(err)
		}
		login, err := database.ConnectAsLogin(t.Context(), "test")
		if err != nil {
			t.Fatal(err)
		}
		if got := setting(t, login, "search_path"); got != want {
			t.Errorf("the login's search_path is %s, want %s", got, want)
		}
		if got := setting(t, connect(t, database), "search_path"); got != "" && got != `""` {
			t.Errorf("a session's search_path is %s", got)
		}
		if err := pg.Close(t.Context(), login); err != nil {
			t.Error(err)
		}
	}
}
