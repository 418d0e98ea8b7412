package replay

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/shadow"
)

const tenRows = "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, 10) i"

var toBigint = shadow.Change{Alters: []string{"ALTER COLUMN id TYPE bigint"}}

func TestReplayWritesWhatTheOriginalHolds(t *testing.T) {
	t.Parallel()
	r := newRig(t, tenRows, shadow.Change{
		Alters: []string{"ALTER COLUMN id TYPE bigint, ALTER COLUMN v TYPE varchar(20) USING upper(v), ADD COLUMN added int DEFAULT 7"},
		Using:  map[string]shadow.Expression{"v": {SQL: "upper(o.v)", Columns: []string{"v"}}},
	})
	for i := range 50 {
		r.write(t, fmt.Sprintf("UPDATE t SET v = 'hot %d' WHERE id = 1", i), 1)
	}
	r.write(t, "UPDATE t SET v = NULL WHERE id = 2", 2)
	r.write(t, "DELETE FROM t WHERE id = 3", 3)
	r.write(t, "INSERT INTO t VALUES (11, 'new'), (12, 'gone again')", 11, 12)
	r.write(t, "DELETE FROM t WHERE id = 12", 12)
	r.write(t, "UPDATE t SET id = 40 WHERE id = 4", 4, 40)
	r.write(t, "DELETE FROM t WHERE id = 5; INSERT INTO t VALUES (5, 'back')", 5)
	r.steps(t)
	r.requireDirty(t)
	r.requireEqual(t)
	if got := r.replayer.Replayed(); got != 8 {
		t.Errorf("%d keys were replayed, want 8: a hot row is replayed once", got)
	}
	if got := r.shadowRow(t, 11); got != "(11,NEW,7)" {
		t.Errorf("the shadow's row is %s", got)
	}
}

// TestInvisibleTransaction is INV-1: the stream has delivered a transaction that
// no snapshot sees yet.
func TestInvisibleTransaction(t *testing.T) {
	t.Parallel()
	r := newRig(t, tenRows, toBigint)
	tx := r.begin(t, "UPDATE t SET v = 'late' WHERE id = 1")
	r.dirty(xidOf(t, tx), 1)
	r.write(t, "UPDATE t SET v = 'soon' WHERE id = 2", 2)
	r.steps(t)
	r.requireDirty(t, 1)
	if n := r.replayer.Invisible(); n != 1 {
		t.Errorf("%d keys are said to be invisible, want 1", n)
	}
	r.write(t, "UPDATE t SET v = 'then' WHERE id = 3", 3)
	r.steps(t)
	first := r.replayer.InvisibleFor()
	if first <= 0 {
		t.Errorf("the transaction is said to be invisible for %v after two batches", first)
	}
	if got := r.shadowRow(t, 2); got != "(2,soon)" {
		t.Errorf("the visible change was not replayed: %s", got)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.steps(t)
	r.requireDirty(t)
	r.requireEqual(t)
	if n, length := r.replayer.Invisible(), r.replayer.InvisibleFor(); n != 0 || length != 0 {
		t.Errorf("%d keys are said to be invisible, for %v, want none", n, length)
	}
	// The next one is invisible for as long as replay has met it, not since the first.
	next := r.begin(t, "UPDATE t SET v = 'next' WHERE id = 1")
	r.dirty(xidOf(t, next), 1)
	r.steps(t)
	if length := r.replayer.InvisibleFor(); length != 0 {
		t.Errorf("another transaction is said to be invisible for %v", length)
	}
}

// TestLastTransactionDecides: of several transactions that wrote a row the last
// one must be visible.
func TestLastTransactionDecides(t *testing.T) {
	t.Parallel()
	r := newRig(t, tenRows, toBigint)
	r.write(t, "UPDATE t SET v = 'one' WHERE id = 1", 1)
	tx := r.begin(t, "UPDATE t SET v = 'two' WHERE id = 1")
	r.dirty(xidOf(t, tx), 1)
	r.steps(t)
	r.requireDirty(t, 1)
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.steps(t)
	r.requireDirty(t)
	r.requireEqual(t)
}

// TestWatermarks is INV-2 and INV-3 with the copy between 3 and 6.
func TestWatermarks(t *testing.T) {
	t.Parallel()
	r := newRig(t, tenRows, toBigint)
	r.marks.low, r.marks.high = at(3), at(6)
	r.write(t, "UPDATE t SET v = 'changed'", 3, 4, 6, 7, 10)
	r.steps(t)
	r.requireDirty(t, 4, 6)
	for id, want := range map[int]string{3: "(3,changed)", 4: "(4,v4)", 6: "(6,v6)", 7: "(7,v7)", 10: "(10,v10)"} {
		if got := r.shadowRow(t, id); got != want {
			t.Errorf("the shadow's row is %s, want %s", got, want)
		}
	}
	r.marks.low, r.marks.high = at(5), at(10)
	r.steps(t)
	r.requireDirty(t, 6)
	r.marks.low, r.marks.high = theEnd, theEnd
	r.steps(t)
	r.requireDirty(t)
	if got := r.shadowRow(t, 6); got != "(6,changed)" {
		t.Errorf("the shadow's row is %s", got)
	}
}

// TestNothingIsCopied has no watermark yet, and then only a high one: an
// invisible change above it must not be left to the copy (INV-3).
func TestNothingIsCopied(t *testing.T) {
	t.Parallel()
	r := newRig(t, tenRows, toBigint)
	r.marks.low, r.marks.high = at(0), at(0)
	r.marks.low.Key, r.marks.high.Key = nil, nil
	tx := r.begin(t, "UPDATE t SET v = 'late' WHERE id = 1")
	r.dirty(xidOf(t, tx), 1)
	r.write(t, "UPDATE t SET v = 'soon' WHERE id = 2", 2)
	r.steps(t)
	r.requireDirty(t, 1)
	if got := r.shadowRow(t, 2); got != "(2,v2)" {
		t.Errorf("a row that the copy has not reached was written: %s", got)
	}
	r.marks.high = theEnd // one chunk of everything is handed out, and has not seen the change
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.steps(t)
	r.requireDirty(t, 1)
}

// TestHighWatermarkIsReadAfterTheSnapshot lets a change become visible, and its
// key be handed out to the copy, at the moment the watermarks are read: the
// copy's snapshot may be from before the change, so the key must stay (INV-3).
func TestHighWatermarkIsReadAfterTheSnapshot(t *testing.T) {
	t.Parallel()
	r := newRig(t, tenRows, toBigint)
	tx := r.begin(t, "UPDATE t SET v = 'late' WHERE id = 5")
	r.dirty(xidOf(t, tx), 5)
	r.write(t, "UPDATE t SET v = 'soon' WHERE id = 1", 1)
	r.marks.low, r.marks.high = at(2), at(2)
	r.marks.onRead = func(m *marks) {
		if err := tx.Commit(t.Context()); err != nil {
			t.Error(err)
		}
		m.high, m.onRead = at(9), nil
	}
	r.steps(t)
	r.requireDirty(t, 5)
}

func TestLockedOutReplayTriesAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t, tenRows, toBigint)
	if _, err := r.replayer.conn.Exec(t.Context(), "SET lock_timeout = 20"); err != nil {
		t.Fatal(err)
	}
	r.write(t, "UPDATE t SET v = 'changed' WHERE id = 1", 1)
	tx := r.begin(t, "LOCK TABLE t")
	if worked, err := r.replayer.step(t.Context()); worked || err != nil {
		t.Fatalf("with the original locked: worked %t, error %v", worked, err)
	}
	r.requireDirty(t, 1)
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.steps(t)
	r.requireEqual(t)
}

// TestOtherErrorsEndTheReplay: what is not a lock or a conflict is not tried again.
func TestOtherErrorsEndTheReplay(t *testing.T) {
	t.Parallel()
	r := newRig(t, tenRows, shadow.Change{Alters: []string{"ALTER COLUMN v TYPE varchar(5)"}})
	r.write(t, "UPDATE t SET v = 'far too long' WHERE id = 1", 1)
	err := r.replayer.Run(t.Context())
	if !pg.Is(err, "22001") {
		t.Errorf("Run returned %v, want the server's refusal of the value", err)
	}
	r.requireDirty(t, 1)
}

func TestRunPausesDrainsAndStops(t *testing.T) {
	t.Parallel()
	r := newRig(t, tenRows, toBigint)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	if err := r.replayer.Pause(ctx); err != nil {
		t.Fatal(err)
	}
	go func() { ended <- r.replayer.Run(ctx) }()

	// The fence brings the change, as the stream would.
	r.fence = func(context.Context) error {
		r.write(t, "UPDATE t SET v = 'changed' WHERE id = 1", 1)
		return nil
	}
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if err := r.replayer.Drain(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Drain while paused returned %v", err)
	}
	if err := r.replayer.Pause(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a second Pause returned %v", err)
	}
	r.requireDirty(t, 1)
	r.replayer.Resume()
	if err := r.replayer.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	r.requireEqual(t)

	r.set.Truncate(1, 1)
	if err := r.replayer.Drain(ctx); !errors.Is(err, ErrTruncated) {
		t.Errorf("Drain after a truncation returned %v", err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("Run returned %v", err)
	}
}

// TestNothingIsReplayedAfterATruncation until the shadow has been emptied.
func TestNothingIsReplayedAfterATruncation(t *testing.T) {
	t.Parallel()
	r := newRig(t, tenRows, toBigint)
	r.write(t, "UPDATE t SET v = 'before' WHERE id = 1", 1)
	r.set.Truncate(r.silently(t, "TRUNCATE t"), 2)
	r.write(t, "INSERT INTO t VALUES (1, 'after')", 1)
	r.steps(t)
	r.requireDirty(t, 1)
	if got := r.shadowRow(t, 1); got != "(1,v1)" {
		t.Errorf("the shadow's row is %s", got)
	}
	r.DB.Exec(t, fmt.Sprintf("TRUNCATE %s", r.Plan.Names.Shadow()))
	r.set.ClearTruncated(r.set.Truncated())
	r.steps(t)
	r.requireDirty(t)
	r.requireEqual(t)
}
