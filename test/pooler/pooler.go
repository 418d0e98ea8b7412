// Package pooler starts a PgBouncer in front of a test's database. It ends with the test, and with the test's process
// however that ends.
package pooler

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/test/pgtest"
)

const (
	program      = "pgbouncer"
	port         = 6432 // of the socket, which is in a folder of its own
	readyLimit   = 30 * time.Second
	pollInterval = 20 * time.Millisecond
)

// folders are where packages put the program, besides PATH.
var folders = []string{"/usr/sbin", "/usr/local/sbin", "/opt/homebrew/bin", "/usr/local/bin"}

// keeper runs the program until its own input ends, which comes when the process that started it is gone. The program
// holds nothing that a kill could lose. When the program ends by itself, so does the keeper.
const keeper = `exec 3<&0; "$@" </dev/null 3<&- & pid=$!; (read -r _ <&3; kill -KILL "$pid") & wait "$pid"`

// Options of one pooler.
type Options struct {
	Mode     string            // session, transaction or statement
	Ignore   []string          // startup parameters that it takes and does not pass on; others that it does not know it refuses
	Settings map[string]string // further ones of its configuration
	OnServer string            // SQL that it runs once on each new session of the server
}

// Start starts a pooler in front of the database, which lets everybody in as the user of the database's DSN, and
// returns the DSN that leads through it.
func Start(t testing.TB, db *pgtest.DB, opts Options) string {
	t.Helper()
	path, err := find()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "pooler-") // a test's own folder has too long a path for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("removing the pooler's folder: %v", err)
		}
	})
	text, err := configuration(db, dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "pgbouncer.ini")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	command := []string{path, file}
	if os.Geteuid() == 0 { // which it refuses to run as
		name, err := giveAway(dir)
		if err != nil {
			t.Fatal(err)
		}
		command = append(command, "-u", name)
	}
	keep(t, dir, command)
	dsn := url.URL{Scheme: "postgres", User: url.User("anybody"), Path: "/" + db.Name,
		RawQuery: url.Values{"host": {dir}, "port": {strconv.Itoa(port)}, "sslmode": {"disable"}}.Encode()}
	return dsn.String()
}

// Warm gives the pooler n sessions on the server, idle at its return, unless it may not have so many.
func Warm(t testing.TB, dsn string, n int) {
	t.Helper()
	conns := make([]*pgx.Conn, n)
	for i := range conns {
		var err error
		if conns[i], err = pgx.Connect(t.Context(), dsn); err != nil {
			t.Fatalf("connecting through the pooler: %v", err)
		}
		if _, err := conns[i].PgConn().Exec(t.Context(), "BEGIN; SELECT 1").ReadAll(); err != nil {
			t.Fatalf("beginning a transaction through the pooler: %v", err)
		}
	}
	for _, conn := range conns {
		if _, err := conn.PgConn().Exec(t.Context(), "ROLLBACK").ReadAll(); err != nil {
			t.Fatalf("rolling back through the pooler: %v", err)
		}
		if err := conn.Close(t.Context()); err != nil {
			t.Fatalf("closing a connection through the pooler: %v", err)
		}
	}
}

func find() (string, error) {
	if path, err := exec.LookPath(program); err == nil {
		return path, nil
	}
	for _, folder := range folders {
		if path, err := exec.LookPath(filepath.Join(folder, program)); err == nil {
			return path, nil
		}
	}
	return "", errors.New("finding pgbouncer: it is neither in PATH nor in " + strings.Join(folders, ", ") +
		"; remedy: install it (apt-get install pgbouncer)")
}

func configuration(db *pgtest.DB, dir string, opts Options) (string, error) {
	server, err := pgx.ParseConfig(db.DSN)
	if err != nil {
		return "", fmt.Errorf("reading the DSN of the pooler's database: %w", err)
	}
	settings := map[string]string{
		"listen_addr": "", "listen_port": strconv.Itoa(port), "unix_socket_dir": dir,
		"auth_type": "any", "pool_mode": opts.Mode,
		"ignore_startup_parameters": strings.Join(opts.Ignore, ","),
	}
	for name, value := range opts.Settings {
		settings[name] = value
	}
	var text strings.Builder
	fmt.Fprintf(&text, "[databases]\n%s = host=%s port=%d user=%s", db.Name, server.Host, server.Port, quote(server.User))
	if server.Password != "" { // an empty one is a syntax error
		fmt.Fprintf(&text, " password=%s", quote(server.Password))
	}
	if opts.OnServer != "" {
		fmt.Fprintf(&text, " connect_query=%s", quote(opts.OnServer))
	}
	text.WriteString("\n[pgbouncer]\n")
	for name, value := range settings {
		fmt.Fprintf(&text, "%s = %s\n", name, value)
	}
	return text.String(), nil
}

func quote(value string) string { return "'" + strings.ReplaceAll(value, "'", "''") + "'" }

// giveAway gives the folder to the user postgres, else nobody, and names the user.
func giveAway(dir string) (string, error) {
	found, err := user.Lookup("postgres")
	if err != nil {
		found, err = user.Lookup("nobody")
	}
	if err != nil {
		return "", fmt.Errorf("looking for a user to run pgbouncer as, instead of root: %w", err)
	}
	uid, uidErr := strconv.Atoi(found.Uid)
	gid, gidErr := strconv.Atoi(found.Gid)
	if err := errors.Join(uidErr, gidErr); err != nil {
		return "", fmt.Errorf("reading the ids of user %s: %w", found.Username, err)
	}
	if err := os.Chown(dir, uid, gid); err != nil {
		return "", fmt.Errorf("giving the pooler's folder to user %s: %w", found.Username, err)
	}
	return found.Username, nil
}

// keep runs the command until the test's end, and returns once it listens.
func keep(t testing.TB, dir string, command []string) {
	t.Helper()
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close() //nolint:errcheck // the child has its own descriptor and nothing is written to this one
	cmd := exec.Command("/bin/sh", append([]string{"-c", keeper, "pooler-keeper"}, command...)...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt typed at the terminal is for the test
	cmd.Stdout, cmd.Stderr = log, log
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // what there is to say of its end is in the log
	}()
	t.Cleanup(func() {
		_ = input.Close() // Wait has closed it when the pooler has ended
		<-ended
		if t.Failed() {
			text, err := os.ReadFile(log.Name())
			t.Logf("the pooler says:\n%s(%v)", text, err)
		}
	})
	if err := awaitSocket(t.Context(), filepath.Join(dir, fmt.Sprintf(".s.PGSQL.%d", port)), ended); err != nil {
		t.Fatal(err)
	}
}

func awaitSocket(ctx context.Context, path string, ended <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ended:
			return errors.New("pgbouncer has ended before it listened")
		case <-ctx.Done():
			return fmt.Errorf("waiting for pgbouncer to listen: %w", errors.Join(ctx.Err(), err))
		case <-ticker.C:
		}
	}
}
