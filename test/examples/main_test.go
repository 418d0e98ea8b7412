// Package examples runs what the folder examples holds as the reader would: the migrations as their tools run them, the
// scripts with the built pgshadow, and the Kubernetes Job's command with pods that are lost.
package examples

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

const (
	folder   = "../../examples/"
	runLimit = 2 * time.Minute
	// changedQuery is the CHANGED of the sample change.
	changedQuery = `SELECT format_type(atttypid, atttypmod) = 'bigint' FROM pg_attribute
		WHERE attrelid = 'public.orders'::regclass AND attname = 'customer_id'`
)

var binary string // the program, built, in a folder of its own

func TestMain(m *testing.M) {
	// A test run under nohup must not hand its ignored SIGHUP on to the scripts that it starts, which could not trap it.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	code, err := buildAndRun(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func buildAndRun(m *testing.M) (code int, err error) {
	dir, err := os.MkdirTemp("", "pgshadow-examples")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	binary = filepath.Join(dir, "pgshadow")
	if output, err := exec.Command("go", "build", "-o", binary, "../../cmd/pgshadow").CombinedOutput(); err != nil {
		return 0, fmt.Errorf("building pgshadow: %w\n%s", err, output)
	}
	return m.Run(), nil
}

// read is a file of the examples.
func read(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(folder, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

const (
	small = 100
	large = 5000 // some 20 MB
)

// orders makes the table of the sample change, with as many rows of 4 kB.
func orders(t *testing.T, rows int) *pgtest.DB {
	t.Helper()
	db := pgtest.New(t)
	db.Exec(t, `CREATE TABLE public.orders (id serial PRIMARY KEY, customer_id int NOT NULL, note text);
		ALTER TABLE public.orders ALTER note SET STORAGE EXTERNAL; CREATE INDEX ON public.orders (customer_id)`)
	db.Exec(t, `INSERT INTO public.orders (customer_id, note) SELECT i, repeat(md5(i::text), 125) FROM generate_series(1, $1) i`, rows)
	db.Exec(t, `ANALYZE public.orders`)
	return db
}

// form is the type of the column that the sample change changes.
func form(t *testing.T, db *pgtest.DB) string {
	t.Helper()
	return pgtest.Scalar[string](t, db, `SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'public.orders'::regclass AND attname = 'customer_id'`)
}

// rows is a digest of the table's rows, the same before and after the sample change.
func rows(t *testing.T, db *pgtest.DB) string {
	t.Helper()
	return pgtest.Scalar[string](t, db, `SELECT count(*) || ' ' || md5(string_agg(concat_ws(' ', id, customer_id, note), ',' ORDER BY id)) FROM public.orders`)
}

// environment leads psql and pgshadow to the database by libpq's variables, and has both in PATH.
func environment(t *testing.T, db *pgtest.DB, more ...string) []string {
	t.Helper()
	config, err := pgx.ParseConfig(db.DSN)
	if err != nil {
		t.Fatal(err)
	}
	env := []string{"PATH=" + filepath.Dir(binary) + ":" + filepath.Dir(psql(t, db)) + ":" + os.Getenv("PATH"),
		"PGHOST=" + config.Host, fmt.Sprintf("PGPORT=%d", config.Port), "PGUSER=" + config.User, "PGDATABASE=" + config.Database,
		"PGPASSWORD=" + config.Password, "CHANGED=" + changedQuery, "REPORT=" + filepath.Join(t.TempDir(), "report.json"), "PAUSE=0"}
	return append(env, more...)
}

// psql is the program, the server's own where that is at hand.
func psql(t *testing.T, db *pgtest.DB) string {
	t.Helper()
	if server := db.Server(); server != nil {
		if program := filepath.Join(server.BinDir(), "psql"); isFile(program) {
			return program
		}
	}
	program, err := exec.LookPath("psql")
	if err != nil {
		t.Fatalf("no psql: install PostgreSQL's client programs (apt-get install postgresql-client): %v", err)
	}
	return program
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// command has no settings of pgshadow or libpq but the given ones.
func command(t *testing.T, env []string, program string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), runLimit)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, program, args...)
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "PG") {
			cmd.Env = append(cmd.Env, variable)
		}
	}
	cmd.Env = append(cmd.Env, env...)
	cmd.WaitDelay = 10 * time.Second // a child of a script that was killed may have its output still
	return cmd
}

// ended is what a process came to.
type ended struct {
	code           int
	stdout, stderr string
}

func (e ended) String() string {
	return fmt.Sprintf("exit code %d\nstdout:\n%s\nstderr:\n%s", e.code, e.stdout, e.stderr)
}

func run(t *testing.T, env []string, program string, args ...string) ended {
	t.Helper()
	cmd := command(t, env, program, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	return ended{exitCode(t, err), stdout.String(), stderr.String()}
}

func exitCode(t *testing.T, err error) int {
	t.Helper()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if exit == nil {
		return 0
	}
	return exit.ExitCode()
}

// process is a running program whose stderr is followed.
type process struct {
	*exec.Cmd
	t      *testing.T
	lines  chan string
	seen   strings.Builder
	stdout bytes.Buffer
}

func start(t *testing.T, env []string, program string, args ...string) *process {
	t.Helper()
	p := &process{Cmd: command(t, env, program, args...), t: t, lines: make(chan string, 10000)}
	p.Stdout = &p.stdout
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.Stderr = write
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	_ = write.Close()
	go func() {
		defer close(p.lines)
		defer read.Close() //nolint:errcheck // it was only read
		for scanner := bufio.NewScanner(read); scanner.Scan(); {
			p.lines <- scanner.Text()
		}
	}()
	return p
}

// await returns when a line of stderr, from here on, holds the text.
func (p *process) await(text string) {
	p.t.Helper()
	for line := range p.lines {
		fmt.Fprintln(&p.seen, line)
		if strings.Contains(line, text) {
			return
		}
	}
	p.t.Fatalf("no line with %q in:\n%s", text, p.seen.String())
}

func (p *process) signal(which os.Signal) {
	p.t.Helper()
	if err := p.Process.Signal(which); err != nil {
		p.t.Fatal(err)
	}
}

// end waits for the process's end, and for that of all that has its stderr.
func (p *process) end() ended {
	p.t.Helper()
	for line := range p.lines {
		fmt.Fprintln(&p.seen, line)
	}
	err := p.Wait()
	return ended{exitCode(p.t, err), p.stdout.String(), p.seen.String()}
}

// report is the JSON document in the file that REPORT names.
func report(t *testing.T, env []string) migration.Report {
	t.Helper()
	path := ""
	for _, variable := range env {
		if value, ok := strings.CutPrefix(variable, "REPORT="); ok {
			path = value
		}
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, content)
}

// decode reads a report, with nothing behind it.
func decode(t *testing.T, content []byte) (read migration.Report) {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(content))
	if err := decoder.Decode(&read); err != nil {
		t.Fatalf("reading the report: %v\n%s", err, content)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		t.Fatalf("more than the report:\n%s", content)
	}
	return read
}
