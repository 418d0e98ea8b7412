package replay

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/keyset"
	"github.com/pgshadow/pgshadow/pkg/shadow"
)

const (
	codes = "CREATE TABLE t (id int PRIMARY KEY, code int UNIQUE); INSERT INTO t SELECT i, i * 100 FROM generate_series(1, 10) i"
	// swap exchanges two values of a unique column, which no single batch of
	// replay can follow unless it holds both rows.
	swap = "UPDATE t SET code = -1 WHERE id = 1; UPDATE t SET code = 100 WHERE id = 2; UPDATE t SET code = 200 WHERE id = 1"
)

// TestSwappedUniqueValues of two rows in one batch: deleting both makes room.
func TestSwappedUniqueValues(t *testing.T) {
	t.Parallel()
	r := newRig(t, codes, toBigint)
	r.write(t, swap, 1, 2)
	r.steps(t)
	r.requireDirty(t)
	r.requireEqual(t)
	if r.replayer.conflicted {
		t.Error("it counts as a conflict")
	}
}

// TestConflictWithARowYetToCome: one of two swapped rows is known, the stream
// brings the other one with the fence. Nothing is written until then but other keys.
func TestConflictWithARowYetToCome(t *testing.T) {
	t.Parallel()
	r := newRig(t, codes, toBigint)
	xid := r.silently(t, swap)
	r.dirty(xid, 1)
	release := make(chan struct{})
	fences := 0
	r.fence = func(context.Context) error {
		if fences++; fences == 1 {
			<-release
			r.dirty(xid, 2)
		}
		return nil
	}
	r.steps(t)
	r.requireDirty(t, 1)
	r.write(t, "UPDATE t SET code = 555 WHERE id = 5", 5)
	if worked, err := r.replayer.step(t.Context()); worked || err != nil { // conflicts still
		t.Fatalf("worked %t, error %v", worked, err)
	}
	close(release)
	for len(r.replayer.caughtUp) == 0 {
		runtime.Gosched()
	}
	for r.set.Len() > 0 {
		if _, err := r.replayer.step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	r.requireEqual(t)
	if fences != 2 {
		t.Errorf("%d fences were waited for, want 2: to catch up, and in the exact replay's snapshot", fences)
	}
}

// TestRealDuplicate: the change's new UNIQUE does not hold.
func TestRealDuplicate(t *testing.T) {
	t.Parallel()
	r := newRig(t, codes+"; ALTER TABLE t DROP CONSTRAINT t_code_key", shadow.Change{Alters: []string{"ADD CONSTRAINT one_code UNIQUE (code)"}})
	r.fence = func(context.Context) error { return nil }
	r.write(t, "UPDATE t SET code = 100 WHERE id = 2", 2)
	err := r.replayer.Run(t.Context())
	var conflict *ConflictError
	if !errors.As(err, &conflict) || conflict.Cause.ConstraintName != "one_code" {
		t.Fatalf("Run returned %v, want a conflict on one_code", err)
	}
	if want := `rows of the original conflict on "one_code" of the new table: duplicate key value violates unique constraint "one_code" Key (code)=(100) already exists.`; conflict.Error() != want {
		t.Errorf("it says %s", conflict)
	}
	r.requireDirty(t, 2)
	if got := r.shadowRow(t, 2); got != "(2,200)" {
		t.Errorf("the shadow's row is %s", got)
	}
}

// TestDuplicateThatComesAndGoes is there as of one moment and gone later; the
// exact replay sees the later one.
func TestDuplicateThatComesAndGoes(t *testing.T) {
	t.Parallel()
	r := newRig(t, codes+"; ALTER TABLE t DROP CONSTRAINT t_code_key", shadow.Change{Alters: []string{"ADD CONSTRAINT one_code UNIQUE (code)"}})
	r.write(t, "UPDATE t SET code = 100 WHERE id = 2", 2)
	r.fence = func(context.Context) error { return nil }
	r.steps(t)
	r.requireDirty(t, 2)
	r.write(t, "UPDATE t SET code = 101 WHERE id = 1", 1)
	r.steps(t)
	r.requireDirty(t)
	r.requireEqual(t)
}

// TestExactIsOneSnapshot: what commits after the snapshot of an exact replay is
// not in what its work sees, and its keys stay dirty.
func TestExactIsOneSnapshot(t *testing.T) {
	t.Parallel()
	r := newRig(t, codes, toBigint)
	r.write(t, "UPDATE t SET code = 111 WHERE id = 1", 1)
	r.fence = func(context.Context) error {
		r.write(t, "UPDATE t SET code = 222 WHERE id = 2", 2) // after the snapshot
		return nil
	}
	var sum int
	err := r.replayer.Exact(t.Context(), func(tx pgx.Tx) error {
		return tx.QueryRow(t.Context(), "SELECT sum(code) FROM "+r.Plan.Names.Shadow()).Scan(&sum)
	})
	if err != nil {
		t.Fatal(err)
	}
	if sum != 5511 {
		t.Errorf("the codes add up to %d, want 5511: the first change and not the second", sum)
	}
	r.requireDirty(t, 2)
	r.steps(t)
	r.requireEqual(t)
}

// TestExactThatFails leaves the shadow and the dirty set as they were.
func TestExactThatFails(t *testing.T) {
	t.Parallel()
	r := newRig(t, codes, toBigint)
	errWork := errors.New("the work failed")
	r.write(t, "UPDATE t SET code = 111 WHERE id = 1", 1)
	for name, c := range map[string]struct {
		fence func(context.Context) error
		work  func(pgx.Tx) error
		want  error
	}{
		"in its work":  {fence: func(context.Context) error { return nil }, work: func(pgx.Tx) error { return errWork }, want: errWork},
		"at its fence": {fence: func(context.Context) error { return errWork }, want: errWork},
		"truncated": {fence: func(context.Context) error { r.set.truncated = &Truncation{}; return nil },
			want: ErrTruncated},
	} {
		r.fence = c.fence
		if err := r.replayer.Exact(t.Context(), c.work); !errors.Is(err, c.want) {
			t.Errorf("%s: Exact returned %v", name, err)
		}
		r.set.truncated = nil
		r.requireDirty(t, 1)
		if got := r.shadowRow(t, 1); got != "(1,100)" {
			t.Errorf("%s: the shadow's row is %s", name, got)
		}
	}
	r.steps(t) // the key is in the queue again
	r.requireEqual(t)
}

// finish runs Finish as the cutover does, and commits or rolls back.
func (r *rig) finish(t *testing.T, commit bool) (int, error) {
	t.Helper()
	tx, err := r.Owner(t).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	keys, err := r.replayer.Finish(t.Context(), tx)
	if err == nil && commit {
		return keys, tx.Commit(t.Context())
	}
	return keys, errors.Join(err, tx.Rollback(t.Context()))
}

func TestFinish(t *testing.T) {
	t.Parallel()
	r := newRig(t, codes, toBigint)
	r.write(t, "UPDATE t SET code = 111 WHERE id = 1", 1)
	r.write(t, "DELETE FROM t WHERE id = 3", 3)
	r.write(t, "UPDATE t SET code = -1 WHERE id = 4; UPDATE t SET code = 400 WHERE id = 5; UPDATE t SET code = 500 WHERE id = 4", 4, 5)

	if keys, err := r.finish(t, false); keys != 4 || err != nil {
		t.Fatalf("Finish replayed %d keys, error %v", keys, err)
	}
	if n := r.Differences(t); n != 7 {
		t.Errorf("after the rollback %d rows differ, want 7", n)
	}
	r.requireDirty(t, 1, 3, 4, 5)
	if keys, err := r.finish(t, true); keys != 4 || err != nil {
		t.Fatalf("Finish replayed %d keys, error %v", keys, err)
	}
	r.requireEqual(t)
	r.requireDirty(t, 1, 3, 4, 5) // a caller whose COMMIT is lost may need them
	r.steps(t)
	r.requireEqual(t)
}

func TestFinishRefuses(t *testing.T) {
	t.Parallel()
	r := newRig(t, codes+"; ALTER TABLE t DROP CONSTRAINT t_code_key", shadow.Change{Alters: []string{"ADD CONSTRAINT one_code UNIQUE (code)"}})
	open := r.begin(t, "UPDATE t SET code = 999 WHERE id = 9")
	r.dirty(xidOf(t, open), 9)
	if _, err := r.finish(t, true); err == nil {
		t.Error("it replayed a transaction that is not visible")
	}
	if err := open.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.write(t, "UPDATE t SET code = 100 WHERE id = 2", 2)
	_, err := r.finish(t, true)
	var conflict *ConflictError
	if !errors.As(err, &conflict) {
		t.Errorf("with a real duplicate it returned %v", err)
	}
	r.requireDirty(t, 2, 9)
	r.set.Truncate(1, 1)
	if _, err := r.finish(t, true); !errors.Is(err, ErrTruncated) {
		t.Errorf("after a truncation it returned %v", err)
	}
}

// TestManyBatches replays more keys than one batch holds, by each way.
func TestManyBatches(t *testing.T) {
	t.Parallel()
	const rows = 2*batchKeys + 10
	r := newRig(t, fmt.Sprintf("CREATE TABLE t (id int PRIMARY KEY, code int); INSERT INTO t SELECT i, i FROM generate_series(1, %d) i", rows), toBigint)
	r.fence = func(context.Context) error { return nil }
	all := make([]int, rows)
	for i := range all {
		all[i] = i + 1
	}
	for name, replay := range map[string]func() error{
		"by Finish": func() error { _, err := r.finish(t, true); return err },
		"by Exact":  func() error { return r.replayer.Exact(t.Context(), nil) },
		"by step":   func() error { r.steps(t); return nil },
	} {
		r.write(t, "UPDATE t SET code = code + 1; DELETE FROM t WHERE id % 100 = 0 AND random() < 0.1", all...)
		if n := r.Differences(t); n == 0 {
			t.Fatalf("%s: there is nothing to replay", name)
		}
		if err := replay(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		r.requireEqual(t)
	}
}

// TestEqualKeysOfUnequalText: to the server they are one key.
func TestEqualKeysOfUnequalText(t *testing.T) {
	t.Parallel()
	r := newRig(t, "CREATE TABLE t (id numeric PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'), (2, 'b')", shadow.Change{Alters: []string{"ALTER COLUMN v TYPE varchar(9)"}})
	r.fence = func(context.Context) error { return nil }
	for name, replay := range map[string]func() error{
		"by step":   func() error { r.steps(t); return nil },
		"by Exact":  func() error { return r.replayer.Exact(t.Context(), nil) },
		"by Finish": func() error { _, err := r.finish(t, true); return err },
	} {
		r.silently(t, "UPDATE t SET id = id + 0.00, v = v || '.' WHERE id = 1")
		r.set.Doubt([]keyset.Key{keyset.NewKey("1"), keyset.NewKey("1.0"), keyset.NewKey("1.00")})
		if err := replay(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		r.requireEqual(t)
		r.steps(t)
	}
}
