package copier

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/keyset"
	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/shadow"
)

// Cutter cuts the original's key space into ranges of a size that is led by
// time. It is safe for concurrent use.
type Cutter struct {
	original string
	key      keyset.Columns
	size     *sizer
}

// NewCutter cuts ranges that take about target to work through.
func NewCutter(plan *shadow.Plan, target func() time.Duration) *Cutter {
	return &Cutter{original: plan.Original.Quoted(), key: plan.Key, size: newSizer(target)}
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
	sql, args := cutSQL(c.original, c.key, within, n)
	values := make([]string, len(c.key))
	targets := make([]any, len(c.key))
	for i := range values {
		targets[i] = &values[i]
	}
	err := conn.QueryRow(ctx, sql, args...).Scan(targets...)
	for pg.IsLockFailure(err) && ctx.Err() == nil {
		err = conn.QueryRow(ctx, sql, args...).Scan(targets...) // somebody holds the original exclusively
	}
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil //nolint:nilnil // no bound is an answer
	}
	if err != nil {
		return nil, fmt.Errorf("cutting a chunk of %d rows out of %s: %w", n, within, err)
	}
	hi := keyset.NewKey(values...)
	return &hi, nil
}
