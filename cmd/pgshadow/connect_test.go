package main

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgshadow/pgshadow/test/pgtest"
)

// oddPassword has whatever a URL, a key=value string, a password file or SQL takes for its own.
const oddPassword = `hunter2 p:a\s'w"ö@/%?#&=$x`

// TestEveryWayToConnect has whole runs, whose replication connections come the same way as all others, by passwords from
// a file, a service, a URL and a key=value string, or a certificate; over TLS with a private CA, IPv6 and a socket; to
// the second host of several. The password is in nothing that anybody else can read.
func TestEveryWayToConnect(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, strings.ReplaceAll(oddPassword, "'", "''"))
	dir, port, ca := t.TempDir(), g.server.Port(), g.trusted.file("trusted", "pem")
	passwords, services := filepath.Join(dir, "pgpass"), filepath.Join(dir, "services")
	write(t, passwords, "wrong:*:*:*:nothing\n*:"+fmt.Sprint(port)+":"+g.Name+":"+g.role+":"+strings.NewReplacer(`\`, `\\`, ":", `\:`).Replace(oddPassword)+"\n")
	write(t, services, fmt.Sprintf("[shop]\nhost=::1\nport=%d\nuser=%s\ndbname=%s\nsslmode=verify-full\nsslrootcert=%s\n", port, g.role, g.Name, ca))
	inURL := url.URL{Scheme: "postgres", User: url.UserPassword(g.role, oddPassword), Host: fmt.Sprintf("localhost:%d", port), Path: "/" + g.Name,
		RawQuery: url.Values{"sslmode": {"verify-full"}, "sslrootcert": {ca}}.Encode()}
	quoted := "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(oddPassword) + "'"
	byCertificate := fmt.Sprintf("host=localhost,localhost port=%d,%d target_session_attrs=read-write user=%s dbname=%s sslmode=verify-full sslrootcert=%s sslcert=%s sslkey=%s",
		closedPort(t), port, g.certed, g.Name, ca, g.trusted.file(g.certed, "pem"), g.trusted.file(g.certed, "key"))
	for _, way := range []struct {
		name string
		env  []string
		tls  bool
		from string // what pg_stat_activity has of the client's address
	}{
		{"a service on IPv6, a password file", []string{"PGSERVICE=shop", "PGSERVICEFILE=" + services, "PGPASSFILE=" + passwords}, true, "::1"},
		{"a URL", []string{"PGSHADOW_DSN=" + inURL.String()}, true, ""},
		{"a socket", []string{fmt.Sprintf("PGSHADOW_DSN=host=%s port=%d user=%s dbname=%s password=%s", g.server.SocketDir(), port, g.role, g.Name, quoted)}, false, "socket"},
		{"variables, a socket, a password file", []string{"PGHOST=" + g.server.SocketDir(), fmt.Sprintf("PGPORT=%d", port), "PGUSER=" + g.role, "PGDATABASE=" + g.Name, "PGPASSFILE=" + passwords}, false, "socket"},
	} {
		t.Run(way.name, func(t *testing.T) { g.runsBy(t, way.env, way.tls, way.from) })
	}
	t.Run("the second host, a certificate", func(t *testing.T) {
		g.Exec(t, "DROP SCHEMA IF EXISTS pgshadow CASCADE; GRANT CREATE ON DATABASE "+g.Name+" TO "+g.certed)
		g.runsBy(t, []string{"PGSHADOW_DSN=" + byCertificate}, true, "")
	})
	kept := pgtest.Scalar[string](t, g.DB, `SELECT string_agg(query_to_xml(format('TABLE %I.%I', schemaname, tablename), true, true, '')::text, '')
		FROM pg_tables WHERE schemaname LIKE 'pgshadow%'`)
	logged, err := os.ReadFile(filepath.Join(filepath.Dir(g.server.DataDir()), "postgres.log"))
	if err != nil {
		t.Fatal(err)
	}
	for where, text := range map[string]string{"state tables": kept, "server's log": string(logged)} {
		if text == "" || strings.Contains(text, "hunter2") {
			t.Errorf("the password is in the %s, or they are empty", where)
		}
	}
}

// runsBy makes a change, and looks at its sessions and at the processes while it waits for the operator.
func (g *guarded) runsBy(t *testing.T, env []string, tls bool, from string) {
	t.Helper()
	run := start(t, env, with(toBigint, "--native", "never", "--cutover", "manual", "--retire", "drop", "--log-level", "debug")...)
	run.await("the wait for the operator", func(line string) bool { return strings.Contains(line, "operator to release the cutover") })
	sessions := pgtest.Scalar[string](t, g.DB, `SELECT string_agg(format('%s %s %s', application_name, ssl, coalesce(host(client_addr), 'socket')), E'\n')
		FROM pg_stat_activity JOIN pg_stat_ssl USING (pid) WHERE application_name LIKE 'pgshadow%'`)
	if !strings.Contains(sessions, " stream ") || strings.Count(sessions, fmt.Sprintf(" %s %s", map[bool]string{true: "t", false: "f"}[tls], from)) != 1+strings.Count(sessions, "\n") {
		t.Errorf("want TLS %t from %q, the sessions are\n%s", tls, from, sessions)
	}
	activity := pgtest.Scalar[string](t, g.DB, "SELECT string_agg(a::text, '') FROM pg_stat_activity a")
	if shown := activity + commandLines(t); strings.Contains(shown, "hunter2") {
		t.Errorf("the password can be seen in\n%s", shown)
	}
	if released := runProgram(t, env, "cutover", "--table", "orders"); released.code != 0 {
		t.Errorf("releasing the cutover: %s", released)
	}
	if got := run.end(); got.code != 0 || strings.Contains(got.stdout+got.stderr, "hunter2") {
		t.Errorf("got %s", got)
	}
}

// commandLines are those of all processes, where the system has them in files.
func commandLines(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, file := range files {
		line, err := os.ReadFile(file)
		if err == nil { // else it has ended
			fmt.Fprintf(&all, "%s\n", strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return all.String()
}

func closedPort(t *testing.T) int {
	t.Helper()
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() //nolint:errcheck // only its number is of interest
	return listener.Addr().(*net.TCPAddr).Port
}

// TestConnectionsThatMustNotBe: a server that another CA vouches for, or under another name, is not talked to; a wrong
// password and a connection without TLS are said so.
func TestConnectionsThatMustNotBe(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, "hunter2")
	dsn := func(host, mode string, ca *authority, password string) string {
		return fmt.Sprintf("host=%s port=%d user=%s dbname=%s sslmode=%s sslrootcert=%s password=%s", host, g.server.Port(), g.role, g.Name, mode, ca.file(ca.name, "pem"), password)
	}
	for name, c := range map[string]struct{ dsn, says string }{
		"another CA":        {dsn("localhost", "verify-full", g.other, "hunter2"), "certificate signed by unknown authority"},
		"another CA, by CA": {dsn("localhost", "verify-ca", g.other, "hunter2"), "certificate signed by unknown authority"},
		"another name":      {dsn("127.0.0.1", "verify-full", g.trusted, "hunter2"), "127.0.0.1"},
		"a wrong password":  {dsn("localhost", "verify-full", g.trusted, "hunter3"), "28P01"},
		"no TLS":            {dsn("localhost", "disable", g.trusted, "hunter2"), "no encryption"},
		"no client's own":   {strings.Replace(dsn("localhost", "verify-full", g.trusted, "hunter2"), g.role, g.certed, 1), "28000"},
		"standbys only":     {dsn("localhost", "verify-full", g.trusted, "hunter2") + " target_session_attrs=standby", "standby"},
		"no such service":   {"service=nowhere servicefile=" + os.DevNull, "nowhere"},
		"no such CA's file": {strings.Replace(dsn("localhost", "verify-full", g.trusted, "hunter2"), "trusted.pem", "gone.pem", 1), "gone.pem"},
	} {
		got := runProgram(t, []string{"PGSHADOW_DSN=" + c.dsn}, "status")
		if got.code == 0 || !strings.Contains(got.stderr, c.says) || strings.Contains(got.stdout+got.stderr, "hunter") {
			t.Errorf("%s: want %q, got %s", name, c.says, got)
		}
	}
	if got := runProgram(t, []string{"PGSHADOW_DSN=" + dsn("127.0.0.1", "verify-ca", g.trusted, "hunter2")}, "status"); got.code != 0 {
		t.Errorf("whatever the name: %s", got)
	}
}
