package pgserver

import (
	"context"
	"errors"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

func begin(t *testing.T, opts Options) *Server {
	t.Helper()
	s, err := Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// openTempDir is a temporary folder that the server's user can enter when the test runs as root.
func openTempDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// ask runs a statement and returns the last row's first value as text, "" without one.
func ask(t *testing.T, dsn, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background()) //nolint:errcheck // nothing depends on it
	results, err := conn.PgConn().Exec(t.Context(), sql).ReadAll()
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	if rows := results[len(results)-1].Rows; len(rows) > 0 {
		return string(rows[len(rows)-1][0])
	}
	return ""
}

func TestDefaultSettings(t *testing.T) {
	t.Parallel()
	s := begin(t, Options{})
	for name, want := range map[string]string{
		"wal_level": "logical", "max_wal_senders": "32", "max_replication_slots": "32", "max_connections": "200",
		"max_prepared_transactions": "20", "fsync": "off", "synchronous_commit": "on", "shared_buffers": "128MB",
		"max_wal_size": "2GB", "TimeZone": "UTC", "server_encoding": "UTF8", "port": strconv.Itoa(s.Port()),
	} {
		if got := ask(t, s.DSN("postgres"), "SHOW "+name); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	if got := ask(t, s.DSN("template1"), "SELECT current_database() || ' ' || current_user"); got != "template1 postgres" {
		t.Errorf("DSN of template1 leads to %s", got)
	}
	socket := url.Values{"host": {s.SocketDir()}, "port": {strconv.Itoa(s.Port())}, "user": {"postgres"}}
	if got := ask(t, "postgres:///postgres?"+socket.Encode(), "SELECT inet_client_addr() IS NULL"); got != "t" {
		t.Errorf("the session through %s does not use the socket", s.SocketDir())
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(openTempDir(t), strings.Repeat("long", 30)) // too long for a socket
	logFile := filepath.Join(t.TempDir(), "server.log")
	s := begin(t, Options{Dir: dir, LogFile: logFile, Fsync: true, Locale: "C", Encoding: "LATIN1",
		InitdbArgs: []string{"--data-checksums"},
		Settings:   map[string]string{"wal_level": "replica", "cluster_name": "it's"}})
	for name, want := range map[string]string{"wal_level": "replica", "fsync": "on", "data_checksums": "on",
		"server_encoding": "LATIN1", "cluster_name": "it's", "data_directory": filepath.Join(dir, "data")} {
		if got := ask(t, s.DSN("postgres"), "SHOW "+name); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	if s.SocketDir() != "" {
		t.Errorf("socket in %s, want none", s.SocketDir())
	}
	if !strings.Contains(s.Log(), "database system is ready to accept connections") {
		t.Errorf("unexpected log: %s", s.Log())
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, kept := range []string{logFile, filepath.Join(dir, "data", "PG_VERSION")} {
		if _, err := os.Stat(kept); err != nil {
			t.Errorf("after Close: %v", err)
		}
	}
}

func TestStopAndRestart(t *testing.T) {
	t.Parallel()
	s := begin(t, Options{})
	ask(t, s.DSN("postgres"), "CREATE TABLE orders AS SELECT generate_series(1, 1000) AS id")
	port := s.Port()
	for _, mode := range []StopMode{Immediate, Fast} {
		if err := s.Stop(mode); err != nil {
			t.Fatalf("stop %v: %v", mode, err)
		}
		if _, err := pgx.Connect(t.Context(), s.DSN("postgres")); err == nil {
			t.Fatalf("stop %v: the server still accepts connections", mode)
		}
		if err := s.Restart(t.Context()); err != nil {
			t.Fatalf("restart after stop %v: %v", mode, err)
		}
		if got := ask(t, s.DSN("postgres"), "SELECT count(*) FROM orders"); got != "1000" || s.Port() != port {
			t.Errorf("after stop %v: %s rows, port %d; want 1000 rows, port %d", mode, got, s.Port(), port)
		}
	}
	if log := s.Log(); !strings.Contains(log, "automatic recovery in progress") {
		t.Errorf("no crash recovery in the log: %s", log)
	}
	ask(t, s.DSN("postgres"), "ALTER SYSTEM SET max_connections = 55")
	if err := s.Restart(t.Context()); err != nil { // of a running server
		t.Fatal(err)
	}
	if got := ask(t, s.DSN("postgres"), "SHOW max_connections"); got != "55" {
		t.Errorf("max_connections is %s after ALTER SYSTEM and a restart, want 55", got)
	}
}

func TestRestartOnATakenPort(t *testing.T) {
	t.Parallel()
	s := begin(t, Options{})
	if err := s.Stop(Fast); err != nil {
		t.Fatal(err)
	}
	var config net.ListenConfig
	thief, err := config.Listen(t.Context(), "tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port())))
	if err != nil {
		t.Fatal(err)
	}
	if err = s.Restart(t.Context()); !errors.Is(err, errPortTaken) {
		t.Errorf("restart on a taken port: got %v, want %v", err, errPortTaken)
	}
	if err = thief.Close(); err != nil {
		t.Fatal(err)
	}
	if err = s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	ask(t, s.DSN("postgres"), "SELECT 1")
}

func TestStartErrors(t *testing.T) {
	t.Setenv("TMPDIR", openTempDir(t))
	for name, c := range map[string]struct {
		opts Options
		want string
	}{
		"a bad setting": {Options{Settings: map[string]string{"work_mem": "plenty"}}, "work_mem"},
		"a bad locale":  {Options{Locale: "xx_XX.nonsense"}, "xx_XX.nonsense"},
	} {
		_, err := Start(t.Context(), c.opts)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, c.want)
		}
	}
	left, err := os.ReadDir(os.Getenv("TMPDIR"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
