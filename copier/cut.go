package copier

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/keyset"
	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/shadow"
)

// Cutter cuts the original's key space into ranges of a size that is led by
// time. It is safe for concurrent use.
type Cutter struct {
	source   string
	key      keyset.Columns
	confined pg.Confined
	size     *sizer
}

// NewCutter cuts ranges that take about target to work through.
func NewCutter(plan *shadow.Plan, target func() time.Duration) *Cutter {
	return &Cutter{source: plan.Source(), key: plan.Key, confined: plan.Confined(), size: newSizer(target)}
}

// Observe tells how long a range of so many rows took.
func (c *Cutter) Observe(rows int, took time.Duration) { c.size.observe(rows, took) }

// Cut finds where a range of the current size ends that begins at within.Lo: the
// key of its last row. It returns nil when fewer rows are left up to within.Hi,
// to which the range then reaches.
func (c *Cutter) Cut(ctx context.Context, conn *pgx.Conn, within keyset.Range) (*keyset.Key, error) {
	return c.cut(ctx, conn, within, c.size.size())
}

func (c *Cutter) cut(ctx context.Context, conn *pgx.Conn, within keyset.Range, n int) (*keyset.Key, error) {
	hi, err := c.nth(ctx, conn, within, n)
	for pg.IsLockFailure(err) && ctx.Err() == nil {
		hi, err = c.nth(ctx, conn, within, n) // somebody holds the original exclusively
	}
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil //nolint:nilnil // no bound is an answer
	}
	if err != nil {
		return nil, fmt.Errorf("cutting a chunk of %d rows out of %s: %w", n, within, err)
	}
	return &hi, nil
}

// nth reads the key of the n-th row of a range.
func (c *Cutter) nth(ctx context.Context, conn *pgx.Conn, within keyset.Range, n int) (key keyset.Key, err error) {
	sql, args := CutSQL(c.source, c.key, within, n)
	types := slices.Repeat([]string{"text"}, len(c.key))
	err = c.confined.InTx(ctx, conn, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		rows, err := c.confined.Query(ctx, tx, types, sql, args...)
		if err != nil {
			return err
		}
		key, err = pgx.CollectOneRow(rows, scanKey)
		return err
	})
	return key, err
}

func scanKey(row pgx.CollectableRow) (keyset.Key, error) {
	values := make([]string, len(row.FieldDescriptions()))
	targets := make([]any, len(values))
	for i := range values {
		targets[i] = &values[i]
	}
	err := row.Scan(targets...)
	return keyset.NewKey(values...), err
}
