package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/test/bench/alter"
	"github.com/pgshadow/pgshadow/test/pgserver"
	"github.com/pgshadow/pgshadow/test/workload"
)

const (
	change = "ALTER COLUMN customer_id TYPE bigint"
	// warmUp is how long the writers run before the change, to have something to compare with.
	warmUp = 2 * time.Second
	// eachAgain is how long every kind of write may take to happen once more after the change.
	eachAgain = 30 * time.Second
)

// options are the flags.
type options struct {
	out    *os.File // the display of the child is live where this is a terminal
	rows   int
	rate   float64
	binary string
}

// demo is one run of it.
type demo struct {
	options
	page   page
	server *pgserver.Server
	conn   *pgx.Conn
	spec   *workload.Spec
	binary string
}

// run tells the story from beginning to end. An error means that it cannot be told, or that the proof failed.
func run(ctx context.Context, o options) (err error) {
	d := &demo{options: o, page: page{o.out}, spec: workload.Orders()}
	d.page.title("pgshadow changes a column's type from int to bigint, in a table that is being written to all the time.")
	defer func() { err = errors.Join(err, d.close(ctx)) }()
	if err := d.prepare(ctx); err != nil {
		return err
	}
	before, err := readFacts(ctx, d.conn)
	if err != nil {
		return err
	}
	result, did, err := d.changeUnderLoad(ctx)
	if err != nil {
		return err
	}
	d.page.report(result, did)
	return d.prove(ctx, before, did)
}

// prepare starts the server, builds pgshadow and fills the table.
func (d *demo) prepare(ctx context.Context) (err error) {
	took := stopwatch()
	d.server, err = pgserver.Start(ctx, pgserver.Options{Settings: map[string]string{"shared_buffers": "256MB", "max_wal_size": "4GB"}})
	if err != nil {
		return err
	}
	if d.conn, err = pgx.Connect(ctx, d.server.DSN("postgres")); err != nil {
		return fmt.Errorf("connecting to the server: %w", err)
	}
	version, _, _ := strings.Cut(d.conn.PgConn().ParameterStatus("server_version"), " ")
	d.page.step(took(), "a throwaway PostgreSQL %s, on 127.0.0.1:%d", version, d.server.Port())

	if d.binary = d.options.binary; d.binary == "" {
		took = stopwatch()
		// Into the server's folder, which goes with the server however this process ends.
		if d.binary, err = alter.Build(ctx, filepath.Dir(d.server.DataDir())); err != nil {
			return err
		}
		d.page.step(took(), "pgshadow, built from this checkout")
	}
	took = stopwatch()
	if err := d.spec.Create(ctx, d.conn, d.rows, workload.CreateOptions{}); err != nil {
		return err
	}
	var size string
	if err := d.conn.QueryRow(ctx, "SELECT pg_size_pretty(pg_total_relation_size('orders'))").Scan(&size); err != nil {
		return fmt.Errorf("measuring the table: %w", err)
	}
	d.page.step(took(), "table orders, %s rows, %s with its 4 indexes; beside it orders_mirror, the same rows", grouped(d.rows), size)
	return nil
}

// changeUnderLoad has the clients write before, while and after pgshadow changes the table.
func (d *demo) changeUnderLoad(ctx context.Context) (result alter.Result, did load, err error) {
	writers, err := workload.Start(ctx, d.server.DSN("postgres"), d.spec, workload.Options{Rate: d.rate})
	if err != nil {
		return result, did, err
	}
	defer func() {
		var stopErr error
		did.Stats, stopErr = writers.Stop(context.WithoutCancel(ctx))
		err = errors.Join(err, stopErr)
	}()
	d.page.step(0, "clients that write: inserts, updates, deletes, upserts, COPY, changed keys, swapped unique values,")
	d.page.more("many-row statements, savepoints, rollbacks, long transactions. Each transaction writes the same to")
	d.page.more("both tables; pgshadow knows nothing of the mirror. In the end the two must hold the same rows.")
	if err := pause(ctx, writers, warmUp); err != nil {
		return result, did, err
	}
	command := alter.Command{Binary: d.binary, DSN: d.server.DSN("postgres"), Table: d.spec.Table, Alter: change, Log: d.out}
	d.page.section("$ " + command.String())
	result, err = d.follow(ctx, writers, command)
	if err != nil {
		return result, did, err
	}
	writers.Phase(afterwards)
	took := stopwatch()
	settling, cancel := context.WithTimeout(ctx, eachAgain)
	defer cancel()
	err = writers.AwaitEach(settling, 1)
	did.after = took()
	return result, did, err
}

// close stops the server, which takes its files with it.
func (d *demo) close(ctx context.Context) error {
	var err error
	if d.conn != nil {
		err = d.conn.Close(context.WithoutCancel(ctx))
	}
	if d.server != nil {
		err = errors.Join(err, d.server.Close())
	}
	return err
}

// pause lets the writers write for a while.
func pause(ctx context.Context, writers *workload.Workload, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-writers.Done():
		return writers.Err()
	case <-ctx.Done():
		return fmt.Errorf("letting the clients write: %w", ctx.Err())
	}
}

func stopwatch() func() time.Duration {
	began := time.Now()
	return func() time.Duration { return time.Since(began) }
}
