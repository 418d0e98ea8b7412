package throttle

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/test/pgserver"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// startStandby makes a hot standby that streams from the primary: a server of
// pgserver's whose "initdb" is a pg_basebackup.
func startStandby(t *testing.T, primary *pgserver.Server, name string) *pgserver.Server {
	t.Helper()
	dir := t.TempDir()
	for _, open := range []string{dir, filepath.Dir(dir)} { // the server may run as another user
		if err := os.Chmod(open, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	source := fmt.Sprintf("host=127.0.0.1 port=%d user=postgres application_name=%s", primary.Port(), name)
	programs := map[string]string{
		"initdb": fmt.Sprintf("exec %s/pg_basebackup \"$1\" --dbname='%s' --write-recovery-conf --checkpoint=fast --no-sync",
			primary.BinDir(), source), // $1 is --pgdata
		"postgres": fmt.Sprintf("exec %s/postgres \"$@\"", primary.BinDir()),
	}
	for program, script := range programs {
		if err := os.WriteFile(filepath.Join(dir, program), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return pgtest.NewServer(t, pgserver.Options{BinDir: dir})
}

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
