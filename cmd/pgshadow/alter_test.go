package main

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// orders makes a table of the given number of rows and returns the environment
// that leads to it.
func orders(t *testing.T, rows int) (*pgtest.DB, []string) {
	t.Helper()
	db := pgtest.New(t)
	db.Exec(t, `CREATE TABLE orders (id serial PRIMARY KEY, customer_id int NOT NULL, note text)`)
	db.Exec(t, `INSERT INTO orders (customer_id, note) SELECT i, md5(i::text) FROM generate_series(1, $1) i`, rows)
	db.Exec(t, `CREATE INDEX ON orders (customer_id); ANALYZE orders`)
	return db, []string{"PGSHADOW_DSN=" + db.DSN}
}

var toBigint = []string{"alter", "--table", "orders", "--alter", "ALTER COLUMN customer_id TYPE bigint"}

func with(args []string, more ...string) []string {
	return append(append([]string{}, args...), more...)
}

// startSlow starts a run and returns when it has copied a chunk, and waits for
// ten seconds before the next because of its pace.
func startSlow(t *testing.T, env []string, more ...string) *process {
	t.Helper()
	slow := start(t, env, with(toBigint, append(more, "--max-rows-per-second", "100", "--copy-workers", "1", "--log-level", "debug")...)...)
	slow.await("a chunk", func(line string) bool { return strings.Contains(line, "chunk copied") })
	return slow
}

// A change that is done ends with 0. Values with commas, several alters and --set
// reach the server as they are.
func TestDone(t *testing.T) {
	t.Parallel()
	db, env := orders(t, 2000)
	got := runProgram(t, env, with(toBigint, "--alter", "ADD COLUMN price numeric(12,2), DROP COLUMN note",
		"--set", "Price=round(id / 3.0, 2)", "--output", "json", "--log-format", "json")...)
	report := got.report(t)
	if got.code != 0 || report.Outcome != migration.Done || report.RowsCopied != 2000 || report.RunID == "" || report.Error != nil {
		t.Fatalf("got %s", got)
	}
	if sum := pgtest.Scalar[string](t, db, "SELECT sum(customer_id + price) || ' ' || pg_typeof(min(customer_id)) FROM orders"); sum != "2668000.00 bigint" {
		t.Errorf("the new table holds %s", sum)
	}
	for _, want := range []string{`"phase":"cutover"`, `"message":"run ended"`, `"run_id":"` + report.RunID + `"`} {
		if !strings.Contains(got.stderr, want) {
			t.Errorf("the log has no %s:\n%s", want, got.stderr)
		}
	}
}

// The text report goes to stdout and says how to be rid of the original; the
// console log on a pipe has no escape sequences.
func TestDoneInText(t *testing.T) {
	t.Parallel()
	db, env := orders(t, 100)
	got := runProgram(t, env, toBigint...)
	if got.code != 0 || !strings.HasPrefix(got.stdout, "table           public.orders\n") || !strings.Contains(got.stdout, "rows copied     100\n") {
		t.Fatalf("got %s", got)
	}
	if strings.Contains(got.stderr, "\x1b") || !strings.Contains(got.stderr, " INF phase finished phase=copy duration_ms=") {
		t.Errorf("the log is:\n%s", got.stderr)
	}
	_, after, _ := strings.Cut(got.stdout, "drop it with  ")
	drop, _, _ := strings.Cut(after, "\n")
	args, ok := strings.CutPrefix(drop, "pgshadow ")
	if !ok {
		t.Fatalf("it says to drop with %q", drop)
	}
	if finished := runProgram(t, env, strings.Fields(args)...); finished.code != 0 || finished.stderr != "" || !strings.Contains(finished.stdout, ": removed\n") {
		t.Errorf("%s: got %s", drop, finished)
	}
	if left := pgtest.Scalar[int](t, db, "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'pgshadow\\_%\\_retired'"); left != 0 {
		t.Error("the retired table is still there")
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	_, env := orders(t, 1)
	got := runProgram(t, env, "alter", "--table", "nowhere", "--alter", "ADD c int", "--output", "json")
	report := got.report(t)
	if got.code != 3 || report.Outcome != migration.Refused || report.Error == nil || report.Error.Check != "table" ||
		!strings.Contains(report.Error.Remedy, "search_path") || !strings.Contains(report.Error.State, "nothing was created") {
		t.Errorf("missing table: got %s", got)
	}

	got = runProgram(t, env, "alter", "--table", "orders", "--alter", "ALTER customer_id TIPE bigint", "--output", "json")
	report = got.report(t)
	if got.code != 3 || report.Error == nil || report.Error.Check != "alter" || report.Error.Remedy == "" ||
		!strings.Contains(report.Error.Message, `syntax error at or near "TIPE" at character 19 of --alter:`) {
		t.Errorf("syntax error: got %s", got)
	}
}

// A server that is not there stops the run; stdout has the report all the same.
func TestNoServer(t *testing.T) {
	t.Parallel()
	got := runProgram(t, []string{"PGSHADOW_DSN=host=" + t.TempDir()}, with(toBigint, "--output", "json")...)
	if report := got.report(t); got.code != 5 || report.Outcome != migration.Stopped || report.Error == nil || report.Phases == nil {
		t.Errorf("got %s", got)
	}
}

// SIGINT in the middle of the copy stops cleanly with 5 and says what is held;
// the same command again resumes the run and ends it.
func TestInterruptAndResume(t *testing.T) {
	t.Parallel()
	db, env := orders(t, 20_000)
	slow := startSlow(t, env, "--output", "json")
	if err := slow.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	stopped := slow.end()
	first := stopped.report(t)
	if stopped.code != 5 || first.Outcome != migration.Stopped || first.RowsCopied <= 0 || first.RowsCopied >= 20_000 {
		t.Fatalf("got %s", stopped)
	}
	last := strings.TrimSuffix(stopped.stderr, "\n")
	last = last[strings.LastIndex(last, "\n")+1:]
	for _, want := range []string{"run ended", "exit_code=5", "the slot of run " + first.RunID + " are kept", "run the same pgshadow alter again to resume", "pgshadow cleanup"} {
		if !strings.Contains(last, want) {
			t.Errorf("the last line of the log does not say %q: %s", want, last)
		}
	}
	if !strings.Contains(stopped.stderr, "stopping cleanly; a second signal, one second later or more, stops at once") {
		t.Errorf("the log does not tell of the signal:\n%s", stopped.stderr)
	}

	resumed := runProgram(t, env, with(toBigint, "--output", "json")...)
	second := resumed.report(t)
	if resumed.code != 0 || second.RunID != first.RunID || !strings.Contains(resumed.stderr, "run resumed") {
		t.Fatalf("got %s", resumed)
	}
	if rows := pgtest.Scalar[int](t, db, "SELECT count(DISTINCT customer_id::bigint) FROM orders WHERE note = md5(id::text)"); rows != 20_000 {
		t.Errorf("the new table has %d rows", rows)
	}
}

// No password comes out anywhere, whether the run is done or fails; one on the
// command line is warned of.
func TestPasswordStaysIn(t *testing.T) {
	t.Parallel()
	const secret = "hunter2%2Fx"
	db, _ := orders(t, 10)
	role := db.Name + "_login"
	db.Exec(t, "CREATE ROLE "+role+" LOGIN SUPERUSER PASSWORD 'hunter2/x'")
	t.Cleanup(func() { db.Exec(t, "DROP OWNED BY "+role+" CASCADE; DROP ROLE "+role) })
	config, err := pgx.ParseConfig(db.DSN)
	if err != nil {
		t.Fatal(err)
	}
	given := fmt.Sprintf("postgres://%s:%s@/%s?host=%s&port=%d&sslmode=disable", role, secret, db.Name, url.QueryEscape(config.Host), config.Port)
	away := strings.Replace(given, "host="+url.QueryEscape(config.Host), "host=/nowhere", 1)
	const warning = "the password in --dsn may be seen by other users of this host, in the process list"
	for name, c := range map[string]struct {
		env, args []string
		code      int
		warned    bool
	}{
		"no server":    {args: []string{"--dsn", away, "--log-format", "json"}, code: 5, warned: true},
		"refused":      {args: []string{"--dsn", given, "--table", "nowhere", "--output", "json"}, code: 3, warned: true},
		"in a key":     {args: []string{"--dsn", "host=/nowhere password=" + secret}, code: 5, warned: true},
		"PGPASSWORD":   {env: []string{"PGPASSWORD=" + secret, "PGHOST=/nowhere"}, code: 5},
		"done":         {env: []string{"PGSHADOW_DSN=" + given}, args: []string{"--log-level", "debug"}},
		"a wrong flag": {env: []string{"PGSHADOW_DSN=" + given}, args: []string{"--retire", "burn"}, code: 2},
		"a wrong URL":  {args: []string{"--dsn", strings.Replace(given, secret, "hunter2/x", 1)}, code: 2},
	} {
		got := runProgram(t, c.env, with(toBigint, c.args...)...)
		if got.code != c.code || strings.Contains(got.stderr, warning) != c.warned {
			t.Errorf("%s: got %s", name, got)
		}
		if strings.Contains(got.stdout+got.stderr, "hunter2") {
			t.Errorf("%s: the password is in\n%s", name, got)
		}
	}
	kept := pgtest.Scalar[string](t, db, `SELECT string_agg(query_to_xml(format('TABLE %I.%I', schemaname, tablename), true, true, '')::text, '')
		FROM pg_tables WHERE schemaname LIKE 'pgshadow%'`)
	if kept == "" || strings.Contains(kept, "hunter2") {
		t.Errorf("the server keeps %q", kept)
	}
}

// Neither a log nor a report that nobody reads any more ends a run.
func TestReaderIsGone(t *testing.T) {
	t.Parallel()
	db, env := orders(t, 10)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = read.Close()
	cmd := command(t, env, toBigint...)
	cmd.Stdout, cmd.Stderr = write, write
	if code := exitCode(t, cmd.Run()); code != 0 {
		t.Errorf("it ended with %d", code)
	}
	_ = write.Close()
	if kind := pgtest.Scalar[string](t, db, "SELECT pg_typeof(customer_id)::text FROM orders LIMIT 1"); kind != "bigint" {
		t.Errorf("customer_id is %s", kind)
	}
}

// A second signal ends a stop that takes long, here because the server does not
// answer. What is known is said all the same.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	db, _ := orders(t, 5000)
	dsn, freeze := frozenNetwork(t, db)
	slow := startSlow(t, []string{"PGSHADOW_DSN=" + dsn}, "--output", "json")
	<-freeze()
	go func() { // as somebody does who presses Ctrl-C until it ends
		for range time.Tick(100 * time.Millisecond) {
			if slow.Process.Signal(os.Interrupt) != nil {
				return
			}
		}
	}()
	got := slow.end()
	report := got.report(t)
	if got.code != 5 || report.Outcome != migration.Stopped || report.RunID == "" || report.Error.Message != "stopped at once by a second signal" ||
		!strings.Contains(got.stderr, "the slot of run "+report.RunID+" are kept, and the slot holds WAL back: run the same pgshadow alter again") {
		t.Errorf("got %s", got)
	}
}

// frozenNetwork leads to the database's server until it is frozen: then nothing
// passes any more, and no connection ends. What freeze returns is closed when
// somebody waits for an answer.
func frozenNetwork(t *testing.T, db *pgtest.DB) (dsn string, freeze func() <-chan struct{}) {
	t.Helper()
	config, err := pgx.ParseConfig(db.DSN)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var frozen atomic.Bool
	asked, over := make(chan struct{}), make(chan struct{})
	var once sync.Once
	t.Cleanup(func() { close(over); _ = listener.Close() })
	pass := func(to, from net.Conn, fromClient bool) {
		defer to.Close() //nolint:errcheck // the test is over, or the other side has closed
		buffer := make([]byte, 1<<16)
		for {
			n, err := from.Read(buffer)
			if frozen.Load() {
				if fromClient && n > 0 && buffer[0] != 'd' { // not CopyData, the stream's report
					once.Do(func() { close(asked) })
				}
				<-over
				return
			}
			if _, writeErr := to.Write(buffer[:n]); err != nil || writeErr != nil {
				return
			}
		}
	}
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			network, address := pgconn.NetworkAddress(config.Host, config.Port)
			server, err := net.Dial(network, address)
			if err != nil {
				_ = client.Close()
				continue
			}
			go pass(server, client, true)
			go pass(client, server, false)
		}
	}()
	port := listener.Addr().(*net.TCPAddr).Port
	return fmt.Sprintf("postgres://%s:%s@127.0.0.1:%d/%s?sslmode=disable", config.User, url.QueryEscape(config.Password), port, db.Name),
		func() <-chan struct{} { frozen.Store(true); return asked }
}

// SIGTERM and SIGHUP stop like SIGINT.
func TestOtherSignals(t *testing.T) {
	t.Parallel()
	_, env := orders(t, 5000)
	for _, which := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP} {
		slow := startSlow(t, env)
		if err := slow.Process.Signal(which); err != nil {
			t.Fatal(err)
		}
		if got := slow.end(); got.code != 5 || !strings.Contains(got.stderr, "signal="+which.String()) {
			t.Errorf("%s: got %s", which, got)
		}
	}
}
