package throttle

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/pg"
)

// open gives the Database of a DSN.
func open(t *testing.T, dsn string) *pg.Database {
	t.Helper()
	db, err := pg.Open(dsn)
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// connect opens a session that is closed at the test's end.
func connect(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) }) // the test may have had it terminated
	return conn
}

// exec runs a statement on a server.
func exec(t *testing.T, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("executing %q: %v", sql, err)
	}
}

// scalar is a query's one value.
func scalar[T any](t *testing.T, conn *pgx.Conn, sql string, args ...any) T {
	t.Helper()
	var value T
	if err := conn.QueryRow(t.Context(), sql, args...).Scan(&value); err != nil {
		t.Fatalf("querying %q: %v", sql, err)
	}
	return value
}
