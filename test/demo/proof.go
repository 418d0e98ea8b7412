package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/test/workload"
)

// written are the phases in which the clients must have committed. In the others, which take some milliseconds, they
// may not have come to it.
var written = []string{workload.FirstPhase, "copy", "index", "verify", afterwards}

// facts are what the demo compares of the table's definition.
type facts struct {
	columnType string
	indexes    []string // the names of those that are valid, sorted
}

func readFacts(ctx context.Context, conn *pgx.Conn) (f facts, err error) {
	err = conn.QueryRow(ctx, `SELECT
		(SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'orders'::regclass AND attname = 'customer_id'),
		(SELECT array_agg(c.relname::text ORDER BY c.relname) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
		  WHERE i.indrelid = 'orders'::regclass AND i.indisvalid)`).Scan(&f.columnType, &f.indexes)
	if err != nil {
		return f, fmt.Errorf("reading the table's definition: %w", err)
	}
	return f, nil
}

// prove compares the table with its mirror, and its definition with the one before. The error says what did not hold.
func (d *demo) prove(ctx context.Context, before facts, did load) error {
	d.page.section("Proof")
	took := stopwatch()
	var inTable, inMirror int
	if err := d.conn.QueryRow(ctx, "SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM orders_mirror)").Scan(&inTable, &inMirror); err != nil {
		return fmt.Errorf("counting the rows: %w", err)
	}
	differing, different := 0, workload.Check(ctx, d.conn, d.spec, nil)
	var diff *workload.DiffError
	if errors.As(different, &diff) {
		differing = diff.Rows
	} else if different != nil {
		return different
	}
	after, err := readFacts(ctx, d.conn)
	if err != nil {
		return err
	}
	ran := workload.RequireRan(did.Stats, written...)
	d.page.check(inTable == inMirror, "rows compared", "%s in orders, %s in orders_mirror, every column", grouped(inTable), grouped(inMirror))
	d.page.check(different == nil, "differences", "%d", differing)
	d.page.check(ran == nil, "clients", "%s", did.summary())
	d.page.check(after.columnType == "bigint", "customer_id", "%s, was %s", after.columnType, before.columnType)
	d.page.check(slices.Equal(after.indexes, before.indexes), "indexes", "%s", strings.Join(after.indexes, ", "))
	if err := errors.Join(different, ran, compare(before, after), equalCounts(inTable, inMirror)); err != nil {
		return err
	}
	d.page.step(took(), "Nothing was lost.")
	return nil
}

func compare(before, after facts) error {
	var err error
	if after.columnType != "bigint" {
		err = fmt.Errorf("column customer_id is of type %s after the change, want bigint", after.columnType)
	}
	if !slices.Equal(after.indexes, before.indexes) {
		err = errors.Join(err, fmt.Errorf("the indexes are %s after the change, want %s",
			strings.Join(after.indexes, ", "), strings.Join(before.indexes, ", ")))
	}
	return err
}

func equalCounts(inTable, inMirror int) error {
	if inTable == inMirror {
		return nil
	}
	return fmt.Errorf("orders has %d rows, its mirror %d", inTable, inMirror)
}
