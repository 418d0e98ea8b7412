package main

import (
	"context"
	_ "embed" // the SQL
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/test/bench/alter"
	"github.com/pgshadow/pgshadow/test/pgserver"
)

//go:embed seed.sql
var seedSQL string

const (
	table  = "orders"
	change = "ALTER COLUMN customer_id TYPE bigint"
	undo   = "ALTER COLUMN customer_id TYPE int"
)

// bench is what the parts share.
type bench struct {
	options
	out    io.Writer
	server *pgserver.Server
	conn   *pgx.Conn
	dir    string // goes with the server
	binary string
}

// open starts the server, builds pgshadow, and prints what is measured on.
func open(ctx context.Context, o options) (b *bench, err error) {
	b = &bench{options: o, out: os.Stdout, binary: o.binary}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close(ctx))
		}
	}()
	b.server, err = pgserver.Start(ctx, pgserver.Options{Fsync: true, Settings: map[string]string{
		"wal_level": "logical", "shared_buffers": "1GB", "max_wal_size": "8GB", "maintenance_work_mem": "256MB",
	}})
	if err != nil {
		return b, err
	}
	b.dir = filepath.Dir(b.server.DataDir())
	if b.conn, err = pgx.Connect(ctx, b.server.DSN("postgres")); err != nil {
		return b, fmt.Errorf("connecting to the server: %w", err)
	}
	if b.binary == "" {
		if b.binary, err = alter.Build(ctx, b.dir); err != nil {
			return b, err
		}
	}
	return b, b.printMachine(ctx)
}

func (b *bench) printMachine(ctx context.Context) error {
	version, _, _ := strings.Cut(b.conn.PgConn().ParameterStatus("server_version"), " ")
	var fsync, walLevel, buffers, maxWAL, workMem string
	err := b.conn.QueryRow(ctx, `SELECT current_setting('fsync'), current_setting('wal_level'), current_setting('shared_buffers'),
		current_setting('max_wal_size'), current_setting('maintenance_work_mem')`).Scan(&fsync, &walLevel, &buffers, &maxWAL, &workMem)
	if err != nil {
		return fmt.Errorf("reading the settings: %w", err)
	}
	b.printf("%d cores, %s/%s, PostgreSQL %s, fsync=%s, wal_level=%s, shared_buffers=%s, max_wal_size=%s, maintenance_work_mem=%s\n",
		runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, version, fsync, walLevel, buffers, maxWAL, workMem)
	return nil
}

// printf writes to the report. That nobody reads it is no reason to fail.
func (b *bench) printf(format string, args ...any) { _, _ = fmt.Fprintf(b.out, format, args...) }

// heading begins a part, with what else the machine is busy with.
func (b *bench) heading(format string, args ...any) {
	b.printf("\n%s\n%s\n\n", fmt.Sprintf(format, args...), "load average "+loadAverage())
}

// loadAverage is that of the last minute, from the system.
func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(text), " ")
	return first
}

// seed makes the table, anew, and removes what a run before has left.
func (b *bench) seed(ctx context.Context, rows int) error {
	if err := b.tidy(ctx); err != nil {
		return err
	}
	began := time.Now()
	for sql := range strings.SplitSeq(strings.ReplaceAll(seedSQL, ":rows", strconv.Itoa(rows)), ";\n") {
		if err := b.exec(ctx, sql); err != nil {
			return fmt.Errorf("seeding the table: %w", err)
		}
	}
	b.note("seeded %s rows in %s", grouped(int64(rows)), seconds(time.Since(began)))
	return nil
}

// note goes to stderr: what is going on, not a figure.
func (b *bench) note(format string, args ...any) {
	_, _ = fmt.Fprintf(os.Stderr, "bench: %s\n", fmt.Sprintf(format, args...))
}

// tidy drops the retired tables of finished runs.
func (b *bench) tidy(ctx context.Context) error {
	rows, err := b.conn.Query(ctx, `SELECT quote_ident(nspname) FROM pg_namespace WHERE nspname LIKE 'pgshadow\_%'`)
	if err != nil {
		return fmt.Errorf("looking for retired tables: %w", err)
	}
	schemas, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("looking for retired tables: %w", err)
	}
	for _, schema := range schemas {
		if err := b.exec(ctx, "DROP SCHEMA "+schema+" CASCADE"); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) exec(ctx context.Context, sql string) error {
	if _, err := b.conn.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol); err != nil {
		return fmt.Errorf("running %q: %w", sql, err)
	}
	return nil
}

// reset brings the table back to where the change begins.
func (b *bench) reset(ctx context.Context) error {
	if err := b.tidy(ctx); err != nil {
		return err
	}
	if err := b.exec(ctx, "ALTER TABLE "+table+" "+undo); err != nil {
		return err
	}
	return b.freshen(ctx)
}

// freshen leaves nothing for the server to do after what came before.
func (b *bench) freshen(ctx context.Context) error {
	return errors.Join(b.exec(ctx, "VACUUM (ANALYZE) "+table), b.exec(ctx, "CHECKPOINT"))
}

// command is the change, made by pgshadow.
func (b *bench) command(log *runLog) alter.Command {
	return alter.Command{Binary: b.binary, DSN: b.server.DSN("postgres"), Table: table, Alter: change,
		Args: []string{"--log-format", "json"}, Log: log}
}

// close stops the server, which takes its files with it.
func (b *bench) close(ctx context.Context) error {
	var err error
	if b.conn != nil {
		err = b.conn.Close(context.WithoutCancel(ctx))
	}
	if b.server != nil {
		err = errors.Join(err, b.server.Close())
	}
	return err
}

// pause waits, under the context.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting: %w", ctx.Err())
	}
}
