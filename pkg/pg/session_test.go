package pg_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

func open(t *testing.T, db *pgtest.DB) *pg.Database {
	t.Helper()
	database, err := pg.Open(db.DSN)
	if err != nil {
		t.Fatal(err)
	}
	return database
}

func connect(t *testing.T, database *pg.Database) *pgx.Conn {
	t.Helper()
	conn, err := database.Connect(t.Context(), "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pg.Close(context.Background(), conn); err != nil {
			t.Error(err)
		}
	})
	return conn
}

func setting(t *testing.T, conn *pgx.Conn, name string) string {
	t.Helper()
	var value string
	if err := conn.QueryRow(t.Context(), "SELECT current_setting($1)", name).Scan(&value); err != nil {
		t.Fatal(err)
	}
	return value
}

// TestHostileSettingsArePinned: whatever the role's or the database's settings
// are, a session has pgshadow's own, and keeps the login's way to convert values.
func TestHostileSettingsArePinned(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	for _, hostile := range []string{"lock_timeout = '1ms'", "default_transaction_isolation = 'serializable'",
		"search_path = 'nowhere'", "default_transaction_deferrable = on", "default_transaction_read_only = on", "quote_all_identifiers = on", "role = 'pg_monitor'", "synchronous_commit = 'remote_apply'", "TimeZone = 'Asia/Tokyo'", "row_security = on", "statement_timeout = '1ms'"} { // the last one would end the others
		db.Exec(t, "SET transaction_read_only = off; SET ROLE NONE; ALTER DATABASE "+pg.Ident(db.Name)+" SET "+hostile)
	}
	conn := connect(t, open(t, db).With(map[string]string{"lock_timeout": "1234"}))
	for name, want := range map[string]string{"statement_timeout": "0", "lock_timeout": "1234ms", "transaction_isolation": "read committed",
		"search_path": "", "synchronous_commit": "local", "TimeZone": "Asia/Tokyo", "row_security": "off", "role": "none", "quote_all_identifiers": "off", "default_transaction_deferrable": "off", "transaction_read_only": "off"} {
		if got := setting(t, conn, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

func TestExecAsLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	role := db.Name + "_r"
	db.Exec(t, "CREATE ROLE "+role+"; CREATE TABLE caught (who text, timeout text); GRANT INSERT ON caught TO "+role)
	t.Cleanup(func() { db.Exec(t, "DROP OWNED BY "+role+"; DROP ROLE "+role) })
	conn := connect(t, open(t, db))
	err := pg.InTx(t.Context(), conn, pgx.TxOptions{}, func(tx pgx.Tx) error {
		err := pg.ExecAs(t.Context(), tx, role, map[string]string{"statement_timeout": "7000"}, "INSERT INTO public.caught VALUES (current_user, current_setting('statement_timeout'))")
		if err != nil {
			return err
		}
		return pg.ExecAs(t.Context(), tx, "", nil, "INSERT INTO public.caught VALUES (current_user, current_setting('statement_timeout'))")
	})
	if err != nil {
		t.Fatal(err)
	}
	want := role + " 7s, postgres 0"
	if got := pgtest.Scalar[string](t, db, "SELECT string_agg(who || ' ' || timeout, ', ' ORDER BY timeout DESC) FROM caught"); got != want {
		t.Errorf("ran as %s, want %s", got, want)
	}
}

// TestCancelReachesTheServer: a context that ends stops the statement on the
// server, and the session can be used on.
func TestCancelReachesTheServer(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	conn := connect(t, open(t, db))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := conn.Exec(ctx, "SELECT pg_sleep(60)"); err == nil {
		t.Fatal("not cancelled")
	}
	if n := pgtest.Scalar[int](t, db, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'SELECT pg_sleep%' AND state = 'active'"); n != 0 {
		t.Errorf("%d statements run on", n)
	}
	if got := setting(t, conn, "application_name"); got != "pgshadow test" {
		t.Errorf("the session is %q", got)
	}
}

func TestInTxRollsBackAndKeepsTheError(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	conn := connect(t, open(t, db))
	cause := errors.New("cause")
	err := pg.InTx(t.Context(), conn, pgx.TxOptions{}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), "CREATE TABLE public.t ()"); err != nil {
			return err
		}
		return cause
	})
	if !errors.Is(err, cause) || pgtest.Scalar[bool](t, db, "SELECT to_regclass('t') IS NOT NULL") {
		t.Errorf("not rolled back: %v", err)
	}
}

func TestTryLockNamesTheHolder(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	first, second := connect(t, open(t, db)), connect(t, open(t, db))
	const table = 4_000_000_000 // an OID beyond the signed range
	if held, _, err := pg.TryLock(t.Context(), first, table); err != nil || !held {
		t.Fatalf("not taken: %v", err)
	}
	held, holder, err := pg.TryLock(t.Context(), second, table)
	if err != nil || held || holder != int32(first.PgConn().PID()) { //nolint:gosec // a process id
		t.Errorf("second: held %v by %d, %v", held, holder, err)
	}
	if locked, err := pg.Locked(t.Context(), second, table); err != nil || !locked {
		t.Errorf("not seen as locked: %v", err)
	}
}

// TestReleaseLetsTheNextIn at once: a session that is only closed keeps its lock for a moment.
func TestReleaseLetsTheNextIn(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	for range 50 {
		first, second := db.Conn(t), db.Conn(t)
		for _, conn := range []*pgx.Conn{first, second} {
			held, holder, err := pg.TryLock(t.Context(), conn, 7)
			if err != nil || !held {
				t.Fatalf("held %t by %d: %v", held, holder, err)
			}
			if err := pg.Release(t.Context(), conn); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestErrorsHoldNoPassword(t *testing.T) {
	t.Parallel()
	for _, dsn := range []string{"postgres://u:s3cret@127.0.0.1:1/x", "postgres://u:s3cret@127.0.0.1:port/x", "host=127.0.0.1 port=1 password=s3cret user=u bad",
		"postgres://u:s3cret/x@127.0.0.1:1/x", "postgres://u:s3cret#x@127.0.0.1:1/x", "postgres://u:s3cret?x@127.0.0.1:1/x", "postgres://u:100%s3cret@127.0.0.1:1/x", "postgres://u:s3cret x@127.0.0.1:1/x",
		"postgres://u:s3cret@127.0.0.1:1/x?sslmode=wrong", "host=127.0.0.1 port=x password=s3cret", "host=127.0.0.1 user=u password='s3cret", "host=127.0.0.1 password=s3cret's x"} {
		database, err := pg.Open(dsn)
		if err == nil {
			_, err = database.Connect(t.Context(), "test")
		}
		if err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%v", err)
		}
	}
}
