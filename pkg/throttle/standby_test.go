package throttle

import (
	"context"
	"fmt"
	"os"
	command "os/exec"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/test/pgserver"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// startStandby makes a hot standby that streams from the primary: a server of
// pgserver's whose "initdb" takes a copy of the primary's files. The primary is
// restarted for that; pg_basebackup is not among the programs of every version.
func startStandby(t *testing.T, primary *pgserver.Server, name string) *pgserver.Server {
	t.Helper()
	dir := t.TempDir()
	for _, open := range []string{dir, filepath.Dir(dir)} { // the server may run as another user
		if err := os.Chmod(open, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := primary.Stop(pgserver.Fast); err != nil {
		t.Fatal(err)
	}
	if output, err := command.Command("cp", "-Rp", primary.DataDir(), filepath.Join(dir, "copy")).CombinedOutput(); err != nil {
		t.Fatalf("copying the primary: %v: %s", err, output)
	}
	if err := primary.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	programs := map[string]string{
		"initdb": fmt.Sprintf(`to=${1#--pgdata=}; cp -Rp %s/copy "$to" && touch "$to/standby.signal" && chmod 700 "$to" &&
			echo "primary_conninfo = 'host=127.0.0.1 port=%d user=postgres application_name=%s'" >>"$to/postgresql.conf"`, dir, primary.Port(), name),
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
