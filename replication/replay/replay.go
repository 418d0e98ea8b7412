package replay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgshadow/pgshadow/pkg/keyset"
	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/shadow"
)

const (
	// batchKeys is how many keys one transaction replays.
	batchKeys = 5000
	// visibilityPoll is how often keys are tried again whose transaction is in
	// the WAL and not yet visible. No event tells when a commit becomes visible.
	visibilityPoll = 20 * time.Millisecond
)

// Watermarks tells how far the copy is. Low is at or behind what is committed;
// High is at or beyond what has been handed out.
type Watermarks interface {
	Watermarks() (low, high keyset.Watermark)
}

// Fencer emits a fence and waits until it has come out of the stream.
type Fencer interface {
	Fence(ctx context.Context) (time.Duration, error)
}

// ConflictError says that rows of the original, as one snapshot saw them, do not
// fit a unique index of the shadow together: the change's new constraint does
// not hold.
type ConflictError struct{ Cause *pgconn.PgError }

func (e *ConflictError) Error() string {
	return fmt.Sprintf("rows of the original conflict on %q of the new table: %s %s", e.Cause.ConstraintName, e.Cause.Message, e.Cause.Detail)
}

func (e *ConflictError) Unwrap() error { return e.Cause }

// Replayer replays the dirty set on a session of its own.
type Replayer struct {
	plan       *shadow.Plan
	confined   pg.Confined
	set        *Set
	conn       *pgx.Conn
	watermarks Watermarks
	fencer     Fencer
	sql        statements

	gate       chan struct{} // one token: who holds it may replay
	progress   chan struct{} // a token after every step
	conflicted bool          // a batch conflicted: when caughtUp says so, all is replayed exactly
	caughtUp   chan error    // of a fence emitted after the conflict; nil when none is on its way
	replayed   atomic.Uint64
	invisible  invisible
	meter      meter
}

// New makes a Replayer. conn is a session of the login role, and is the
// Replayer's from here on.
func New(plan *shadow.Plan, set *Set, conn *pgx.Conn, watermarks Watermarks, fencer Fencer) *Replayer {
	r := &Replayer{plan: plan, confined: plan.Confined(), set: set, conn: conn, watermarks: watermarks, fencer: fencer,
		sql: newStatements(plan), gate: make(chan struct{}, 1), progress: make(chan struct{}, 1)}
	r.gate <- struct{}{}
	return r
}

// Replayed counts the keys replayed so far.
func (r *Replayer) Replayed() uint64 { return r.replayed.Load() }

// Close ends the session. Run and whoever paused it must have returned.
func (r *Replayer) Close(ctx context.Context) error { return pg.Close(ctx, r.conn) }

// Run replays until ctx ends, which is no error, or something fails.
func (r *Replayer) Run(ctx context.Context) error {
	for {
		r.meter.mark(time.Now(), r.set.reading().dirtied)
		if err := r.Pause(ctx); err != nil {
			return nil //nolint:nilerr // the context has ended: a clean stop
		}
		worked, err := r.step(ctx)
		r.Resume()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return shadow.Rejected(err)
		}
		notify(r.progress)
		if !worked {
			r.await(ctx)
		}
	}
}

// await blocks until something was added to an empty set, or until keys that
// could not be replayed are worth another try.
func (r *Replayer) await(ctx context.Context) {
	if r.set.Len() == 0 {
		select {
		case <-ctx.Done():
		case <-r.set.wake:
		}
		return
	}
	timer := time.NewTimer(visibilityPoll)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// Pause waits for the batch under way and keeps the Replayer from the next one
// until Resume.
func (r *Replayer) Pause(ctx context.Context) error {
	select {
	case <-r.gate:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for replay to pause: %w", ctx.Err())
	}
}

// Resume lets a paused Replayer go on.
func (r *Replayer) Resume() { r.gate <- struct{}{} }

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// step replays one batch. It tells whether any key left the set.
func (r *Replayer) step(ctx context.Context) (worked bool, err error) {
	if r.set.Truncated() != nil {
		return false, nil // the shadow is about to be emptied
	}
	if r.conflicted {
		if resolved, err := r.resolve(ctx); resolved || err != nil {
			return resolved, err
		}
	}
	batch := r.set.take(batchKeys)
	if len(batch) == 0 {
		r.invisible.clear()
		return false, nil
	}
	finished, err := r.batch(ctx, batch)
	r.set.done(finished)
	if err != nil {
		r.set.giveBack(batch)
		if pg.IsLockFailure(err) {
			return false, nil // somebody holds a table exclusively: later
		}
		return false, err
	}
	r.set.giveBack(batch)
	return len(finished) > 0, nil
}

// resolve answers a conflict: once the stream has caught up with the moment of
// the conflict, everything is replayed as one snapshot has it. Until then other
// keys are replayed on, so that the stream is not held up.
func (r *Replayer) resolve(ctx context.Context) (resolved bool, err error) {
	if r.caughtUp == nil {
		r.set.lift(true) // the stream must reach the fence, however many keys come before it
		caughtUp := make(chan error, 1)
		r.caughtUp = caughtUp
		go func() {
			_, err := r.fencer.Fence(ctx)
			caughtUp <- err
		}()
	}
	select {
	case err := <-r.caughtUp:
		r.caughtUp = nil
		if err != nil {
			return false, err
		}
	default:
		if r.set.overflows() {
			return false, ErrOverflow
		}
		return false, nil
	}
	err = r.exact(ctx, nil)
	if errors.Is(err, ErrFenceLate) {
		return false, nil
	}
	r.conflicted = err != nil
	r.set.lift(false)
	return true, err
}

// batch replays what of a batch can be replayed, and returns the keys that are
// done: replayed, or left to the copy.
func (r *Replayer) batch(ctx context.Context, batch []taken) (finished []taken, err error) {
	began := time.Now()
	finished, err = r.tryBatch(ctx, began, batch, r.writeUpsert)
	if !pg.IsUniqueConflict(err) {
		return finished, err
	}
	// Keys are read at different moments, so the shadow can hold two rows that
	// never were there together. Without this batch's rows there may be room.
	finished, err = r.tryBatch(ctx, began, batch, r.writeAnew)
	if !pg.IsUniqueConflict(err) {
		return finished, err
	}
	r.conflicted = true
	return nil, nil
}

// tryBatch replays a batch that was begun at began, in one transaction.
func (r *Replayer) tryBatch(ctx context.Context, began time.Time, batch []taken, write func(context.Context, pgx.Tx, []keyset.Key) error) (finished []taken, err error) {
	var written int
	var roundTrip time.Duration
	err = r.confined.InTx(ctx, r.conn, pgx.TxOptions{}, func(tx pgx.Tx) error {
		// INV-1: this snapshot decides what is visible, the rows are read in later ones.
		asked := time.Now()
		snapshot, err := snapshotOf(ctx, tx)
		if err != nil {
			return err
		}
		roundTrip = time.Since(asked)
		visible := seenBy(snapshot, batch)
		r.invisible.note(asked, snapshot, batch)
		// INV-3: the watermarks are read after the snapshot.
		below, above, err := r.sort(ctx, tx, visible)
		if err != nil {
			return err
		}
		finished, written = slices.Concat(below, above), len(below)
		if len(below) == 0 {
			return nil
		}
		return write(ctx, tx, keysOf(below))
	})
	if err != nil {
		return nil, err
	}
	r.meter.worked(written, time.Since(began), roundTrip)
	return finished, nil
}

func snapshotOf(ctx context.Context, tx pgx.Tx) (pg.Snapshot, error) {
	var text string
	if err := tx.QueryRow(ctx, "SELECT pg_catalog.pg_current_snapshot()::pg_catalog.text").Scan(&text); err != nil {
		return pg.Snapshot{}, fmt.Errorf("taking a snapshot: %w", err)
	}
	return pg.ParseSnapshot(text)
}

func seenBy(snapshot pg.Snapshot, batch []taken) []taken {
	visible := make([]taken, 0, len(batch))
	for _, t := range batch {
		if snapshot.Sees(t.xid) {
			visible = append(visible, t)
		}
	}
	return visible
}

// sort splits keys: at or below the low watermark, to be written (INV-2); above
// the high one, to be left to the copy (INV-3). Those between stay dirty.
func (r *Replayer) sort(ctx context.Context, tx pgx.Tx, batch []taken) (below, above []taken, err error) {
	low, high := r.watermarks.Watermarks()
	if low.End || len(batch) == 0 {
		return batch, nil, nil
	}
	sql, args := classify(r.plan, low, high)
	rows, err := r.confined.Query(ctx, tx, []string{"bool", "bool"}, sql, append(r.plan.Key.Arrays(keysOf(batch)), args...)...)
	if err != nil {
		return nil, nil, fmt.Errorf("comparing dirty keys with the watermarks: %w", err)
	}
	defer rows.Close()
	for i := 0; rows.Next(); i++ {
		var isBelow, isAbove bool
		if err := rows.Scan(&isBelow, &isAbove); err != nil {
			return nil, nil, fmt.Errorf("comparing dirty keys with the watermarks: %w", err)
		}
		switch {
		case isBelow:
			below = append(below, batch[i])
		case isAbove:
			above = append(above, batch[i])
		}
	}
	if err := rows.Err(); err != nil {
		return nil, nil, fmt.Errorf("comparing dirty keys with the watermarks: %w", err)
	}
	return below, above, nil
}

func keysOf(batch []taken) []keyset.Key {
	keys := make([]keyset.Key, len(batch))
	for i, t := range batch {
		keys[i] = t.key
	}
	return keys
}

func (r *Replayer) writeUpsert(ctx context.Context, tx pgx.Tx, keys []keyset.Key) error {
	return r.exec(ctx, tx, keys, r.sql.deleteGone, r.sql.upsert)
}

func (r *Replayer) writeAnew(ctx context.Context, tx pgx.Tx, keys []keyset.Key) error {
	return r.exec(ctx, tx, keys, r.sql.deleteAll, r.sql.insert)
}

func (r *Replayer) exec(ctx context.Context, tx pgx.Tx, keys []keyset.Key, statements ...string) error {
	args := r.plan.Key.Arrays(keys)
	for _, sql := range statements {
		if _, err := r.confined.Exec(ctx, tx, sql, args...); err != nil {
			return fmt.Errorf("replaying %d keys: %w", len(keys), err)
		}
	}
	r.replayed.Add(uint64(len(keys)))
	return nil
}

// Drain waits until every change that was committed before the call has been
// replayed: a fence emitted now has passed, and the keys dirty then are gone.
func (r *Replayer) Drain(ctx context.Context) error {
	if _, err := r.fencer.Fence(ctx); err != nil {
		return err
	}
	target := r.set.now()
	for !r.set.drainedTo(target) {
		if truncated := r.set.Truncated(); truncated != nil {
			return ErrTruncated
		}
		select {
		case <-r.progress:
		case <-ctx.Done():
			return fmt.Errorf("replaying what was committed before the fence: %w", ctx.Err())
		}
	}
	return nil
}

// ErrOverflow says that so many rows changed while keys conflicted on a unique
// index that their keys do not fit in memory. The run can be resumed.
var ErrOverflow = errors.New("too many dirty keys while rows conflict on a unique index: give the run more memory for them, or resume it when fewer rows of the table change")

// ErrTruncated says that the original was truncated: the copy starts again.
var ErrTruncated = errors.New("the original was truncated")
