package replay

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

// fenceLimit bounds how long a snapshot is held while a fence is awaited.
const fenceLimit = 30 * time.Second

// ErrFenceLate says that the stream was too far behind to hold a snapshot until a
// fence passed: Drain, and try again.
var ErrFenceLate = errors.New("the stream is too far behind for an exact replay")

// Exact brings the shadow to what one snapshot of the original holds, runs work
// in the same transaction, and commits. It is for what must not be fooled by rows
// that were read at different moments: building a unique index. The Replayer must
// be paused, and caught up: ErrFenceLate says that it was not.
func (r *Replayer) Exact(ctx context.Context, work func(tx pgx.Tx) error) error {
	return r.exact(ctx, work)
}

// exact takes a snapshot, then waits for a fence: every change that the snapshot
// sees is dirty or replayed by then. All dirty keys are deleted and read again
// in that snapshot; after it the shadow is the original as of the snapshot, so a
// conflict that is left is one of the original's rows (design section 5).
func (r *Replayer) exact(ctx context.Context, work func(tx pgx.Tx) error) error {
	var all []taken
	options := pgx.TxOptions{IsoLevel: pgx.RepeatableRead}
	err := r.confined.InTx(ctx, r.conn, options, func(tx pgx.Tx) error {
		snapshot, err := snapshotOf(ctx, tx)
		if err != nil {
			return err
		}
		waiting, cancel := context.WithTimeout(ctx, fenceLimit)
		defer cancel()
		if _, err := r.fencer.Fence(waiting); err != nil {
			if waiting.Err() != nil && ctx.Err() == nil {
				return ErrFenceLate
			}
			return err
		}
		if r.set.Truncated() != nil {
			return ErrTruncated // the snapshot is older than the truncation, which no snapshot shows
		}
		all = r.set.take(r.set.Len())
		below, _, err := r.sort(ctx, tx, all)
		if err != nil {
			return err
		}
		if err := r.rewrite(ctx, tx, keysOf(below)); err != nil {
			return err
		}
		// Keys that the snapshot does not see yet are right as of the snapshot,
		// and stay dirty; so do those between the watermarks.
		all = seenBy(snapshot, below)
		if work != nil {
			return work(tx)
		}
		return nil
	})
	return r.settle(all, err)
}

func (r *Replayer) settle(all []taken, err error) error {
	if err == nil {
		r.set.done(all)
		r.set.requeueAll()
		return nil
	}
	r.set.requeueAll()
	if pg.IsUniqueConflict(err) {
		return &ConflictError{Cause: pg.Server(err)}
	}
	return shadow.Rejected(err)
}

// rewrite deletes every key given, then writes all anew, in batches.
func (r *Replayer) rewrite(ctx context.Context, tx pgx.Tx, keys []keyset.Key) error {
	for _, sql := range []string{r.sql.deleteAll, r.sql.insert} {
		for start := 0; start < len(keys); start += batchKeys {
			part := keys[start:min(start+batchKeys, len(keys))]
			if _, err := r.confined.Exec(ctx, tx, sql, r.plan.Key.Arrays(part)...); err != nil {
				return fmt.Errorf("replaying %d keys in one transaction: %w", len(keys), err)
			}
		}
	}
	r.replayed.Add(uint64(len(keys)))
	return nil
}

// Warm runs the statements of Finish for no key at all, so that the session that
// will hold the lock has planned them.
func (r *Replayer) Warm(ctx context.Context, tx pgx.Tx) error {
	if _, err := snapshotOf(ctx, tx); err != nil {
		return err
	}
	return r.writeUpsert(ctx, tx, nil)
}

// Finish replays every dirty key in the caller's transaction, which holds the
// lock on the original: what is dirty now is all that there will be. The
// Replayer must be paused. It returns how many keys it replayed; the keys leave
// the set only by Finished, after the commit.
func (r *Replayer) Finish(ctx context.Context, tx pgx.Tx) (keys int, err error) {
	if r.set.Truncated() != nil {
		return 0, ErrTruncated
	}
	snapshot, err := snapshotOf(ctx, tx)
	if err != nil {
		return 0, err
	}
	all := r.set.take(r.set.Len())
	defer r.set.giveBack(all)
	if visible := seenBy(snapshot, all); len(visible) != len(all) {
		return 0, fmt.Errorf("replaying under the lock: %d dirty keys are of transactions that are not visible yet", len(all)-len(visible))
	}
	savepoint, err := tx.Begin(ctx)
	if err != nil {
		return 0, fmt.Errorf("setting a savepoint: %w", err)
	}
	err = r.inBatches(ctx, savepoint, keysOf(all))
	if err == nil {
		return len(all), savepoint.Commit(ctx)
	}
	if err := errors.Join(err, savepoint.Rollback(ctx)); !pg.IsUniqueConflict(err) {
		return 0, shadow.Rejected(err)
	}
	if err := r.rewrite(ctx, tx, keysOf(all)); err != nil {
		if pg.IsUniqueConflict(err) {
			return 0, &ConflictError{Cause: pg.Server(err)}
		}
		return 0, shadow.Rejected(err)
	}
	return len(all), nil
}

func (r *Replayer) inBatches(ctx context.Context, tx pgx.Tx, keys []keyset.Key) error {
	for start := 0; start < len(keys); start += batchKeys {
		if err := r.writeUpsert(ctx, tx, keys[start:min(start+batchKeys, len(keys))]); err != nil {
			return err
		}
	}
	return nil
}
