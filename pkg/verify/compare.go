package verify

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/keyset"
	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/shadow"
)

// oneSnapshot is how both tables are read: as of the same moment.
var oneSnapshot = pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}

// chunk compares one range: counts and digests first, row by row where they differ.
func (v *Verifier) chunk(ctx context.Context, conn *pgx.Conn, within keyset.Range) error {
	began := time.Now()
	var result comparison
	err := v.confined.InTx(ctx, conn, oneSnapshot, func(tx pgx.Tx) error {
		var err error
		result, err = v.compareRange(ctx, tx, within)
		return err
	})
	if err != nil {
		return fmt.Errorf("comparing chunk %s: %w", within, err)
	}
	v.cutter.Observe(int(result.original.rows), time.Since(began))
	if v.count(result) >= recheckAt {
		return v.recheck(ctx, conn)
	}
	return nil
}

// comparison is the outcome for a set of rows: the totals of those that agree on
// each side, and the keys that do not.
type comparison struct {
	original, shadow sum
	differing        []keyset.Key
}

type sum struct {
	rows int64
	hash int64
}

// count adds the outcome of a chunk, and returns how many suspects there are now.
func (v *Verifier) count(c comparison) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.totals.compared += c.original.rows + int64(len(c.differing))
	v.agreed(c)
	v.suspects = append(v.suspects, c.differing...)
	return len(v.suspects)
}

// suspected takes the suspects, to be compared again.
func (v *Verifier) suspected() []keyset.Key {
	v.mu.Lock()
	defer v.mu.Unlock()
	keys := v.suspects
	v.suspects = nil
	v.totals.rechecked += int64(len(keys))
	return keys
}

// agreed adds rows whose last comparison found no difference. The caller holds
// v.mu.
func (v *Verifier) agreed(c comparison) {
	v.totals.originalRows += c.original.rows
	v.totals.shadowRows += c.shadow.rows
	v.totals.originalHash ^= c.original.hash
	v.totals.shadowHash ^= c.shadow.hash
}

func (v *Verifier) compareRange(ctx context.Context, tx pgx.Tx, within keyset.Range) (comparison, error) {
	var c comparison
	for _, side := range []struct {
		side
		sum *sum
	}{{v.original, &c.original}, {v.shadow, &c.shadow}} {
		sql, args := side.totals(within)
		err := reader{tx, v.confined}.each(ctx, []string{"int8", "int8"}, query{sql, args}, []any{&side.sum.rows, &side.sum.hash}, func() {})
		if err != nil {
			return c, err
		}
	}
	if c.original == c.shadow {
		return c, nil
	}
	originalSQL, originalArgs := v.original.rows(within)
	shadowSQL, shadowArgs := v.shadow.rows(within)
	return compareRows(ctx, reader{tx, v.confined}, len(v.original.key), query{originalSQL, originalArgs}, query{shadowSQL, shadowArgs})
}

type query struct {
	sql  string
	args []any
}

// seen is a row of the original: its digest, and its key in the original's form.
type seen struct {
	hash int64
	key  keyset.Key
}

// compareRows compares row by row. Both queries give digest, the key in the
// shadow's form, by which rows are matched, and the key in the original's.
func compareRows(ctx context.Context, r reader, width int, original, shadowQuery query) (comparison, error) {
	rows := map[keyset.Key]seen{}
	err := eachRow(ctx, r, width, original, func(match, key keyset.Key, hash int64) { rows[match] = seen{hash, key} })
	if err != nil {
		return comparison{}, err
	}
	var c comparison
	err = eachRow(ctx, r, width, shadowQuery, func(match, key keyset.Key, hash int64) {
		expected, there := rows[match]
		switch {
		case !there:
			c.differing = append(c.differing, key)
		case expected.hash == hash:
			c.original = sum{c.original.rows + 1, c.original.hash ^ hash}
		default:
			c.differing = append(c.differing, expected.key)
		}
		delete(rows, match)
	})
	if err != nil {
		return comparison{}, err
	}
	for _, missing := range rows {
		c.differing = append(c.differing, missing.key)
	}
	c.shadow = c.original
	return c, nil
}

func eachRow(ctx context.Context, r reader, width int, q query, visit func(match, key keyset.Key, hash int64)) error {
	var hash int64
	types := []string{"int8"}
	values := make([]string, 2*width)
	targets := []any{&hash}
	for i := range values {
		targets, types = append(targets, &values[i]), append(types, "text")
	}
	return r.each(ctx, types, q, targets, func() {
		visit(keyset.NewKey(values[:width]...), keyset.NewKey(values[width:]...), hash)
	})
}

// reader is a transaction whose queries run as the owner (INV-6).
type reader struct {
	tx       pgx.Tx
	confined pg.Confined
}

// each scans the rows of a query into targets, one after the other.
func (r reader) each(ctx context.Context, types []string, q query, targets []any, visit func()) error {
	rows, err := r.confined.Query(ctx, r.tx, types, q.sql, q.args...) //nolint:rowserrcheck // ForEachRow does
	if err != nil {
		return err
	}
	_, err = pgx.ForEachRow(rows, targets, func() error {
		visit()
		return nil
	})
	return err
}

// recheck settles the suspects: read again and compared again, in rounds. A key
// that still differs although no change of it is on its way is a mismatch; one
// that keeps changing stays in doubt.
func (v *Verifier) recheck(ctx context.Context, conn *pgx.Conn) error {
	v.rechecking.Lock()
	defer v.rechecking.Unlock()
	keys := v.suspected()
	for round := 0; len(keys) > 0 && round < rounds; round++ {
		// The watch begins before the fence of the drain, so a change that the
		// drain does not wait for is recorded.
		v.replay.Watch(keys)
		v.replay.Doubt(keys)
		if err := v.replay.Drain(ctx); err != nil {
			return err
		}
		differing, err := v.again(ctx, conn, keys)
		if err != nil {
			return err
		}
		if len(differing) == 0 {
			return nil
		}
		// Every change that the comparison's snapshot saw has been received now.
		if _, err := v.replay.Fence(ctx); err != nil {
			return err
		}
		keys = v.judge(keys, differing)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.inDoubt = append(v.inDoubt, keys...)
	return nil
}

// judge returns those of the differing keys that were written meanwhile; the
// others are mismatches. One that was not watched is a watched one written another
// way (281.5 and 281.50 are equal), and there is no telling before it is watched.
func (v *Verifier) judge(watched, differing []keyset.Key) (touched []keyset.Key) {
	known := make(map[keyset.Key]bool, len(watched))
	for _, key := range watched {
		known[key] = true
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, key := range differing {
		if !known[key] || v.replay.Touched(key) {
			touched = append(touched, key)
		} else {
			v.mismatches = append(v.mismatches, key)
		}
	}
	return touched
}

func (v *Verifier) again(ctx context.Context, conn *pgx.Conn, keys []keyset.Key) ([]keyset.Key, error) {
	var result comparison
	err := v.confined.InTx(ctx, conn, oneSnapshot, func(tx pgx.Tx) error {
		var err error
		result, err = compareKeys(ctx, reader{tx, v.confined}, v.original, v.shadow, keys)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("comparing %d rows again: %w", len(keys), err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.agreed(result)
	return result.differing, nil
}

func compareKeys(ctx context.Context, r reader, original, shadowSide side, keys []keyset.Key) (comparison, error) {
	args := original.key.Arrays(keys)
	return compareRows(ctx, r, len(original.key), query{original.some(), args}, query{shadowSide.some(), args})
}

// UnderLock compares rows in the transaction that holds the lock on both tables.
// It returns a *MismatchError when any differs: there is no "not yet" there.
func UnderLock(ctx context.Context, tx pgx.Tx, plan *shadow.Plan, keys []keyset.Key) error {
	if len(keys) == 0 {
		return nil
	}
	result, err := compareKeys(ctx, reader{tx, plan.Confined()}, originalSide(plan), shadowSide(plan), keys)
	if err != nil {
		return fmt.Errorf("comparing %d rows under the lock: %w", len(keys), err)
	}
	if len(result.differing) > 0 {
		return &MismatchError{Keys: result.differing}
	}
	return nil
}
