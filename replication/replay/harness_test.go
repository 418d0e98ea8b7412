package replay

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/keyset"
	"github.com/pgshadow/pgshadow/pkg/shadow"
	"github.com/pgshadow/pgshadow/replication"
	"github.com/pgshadow/pgshadow/test/pgtest"
	"github.com/pgshadow/pgshadow/test/shadowtest"
)

// marks are fixed watermarks, and what to do when they are read.
type marks struct {
	low, high keyset.Watermark
	onRead    func(*marks)
}

func (m *marks) Watermarks() (low, high keyset.Watermark) {
	low, high = m.low, m.high
	if m.onRead != nil {
		m.onRead(m)
	}
	return low, high
}

func at(n int) keyset.Watermark {
	k := key(n)
	return keyset.Watermark{Key: &k}
}

var theEnd = keyset.Watermark{End: true}

// fenceFunc is a fence that the test itself lets pass.
type fenceFunc func(ctx context.Context) error

func (f fenceFunc) Fence(ctx context.Context) (time.Duration, error) { return 0, f(ctx) }

// rig is a Replayer on real tables, whose dirty keys and fences the test gives by
// hand: it says what the stream has delivered, and when.
type rig struct {
	*shadowtest.Pair
	set      *Set
	replayer *Replayer
	marks    *marks
	fence    func(ctx context.Context) error
}

// newRig makes a table, its shadow with all rows and indexes, and a Replayer for
// which the copy is complete.
func newRig(t *testing.T, table string, change shadow.Change) *rig {
	t.Helper()
	db := pgtest.New(t)
	db.Exec(t, table)
	r := &rig{Pair: shadowtest.New(t, db, "t", change), set: NewSet(roomy), marks: &marks{low: theEnd, high: theEnd}}
	r.Fill(t)
	r.Build(t)
	r.fence = func(context.Context) error { return errors.New("no fence was expected") }
	r.replayer = New(r.Plan, r.set, r.Owner(t), r.marks, fenceFunc(func(ctx context.Context) error { return r.fence(ctx) }))
	return r
}

// write changes the original, and dirties keys as the stream would for it.
func (r *rig) write(t *testing.T, sql string, keys ...int) {
	t.Helper()
	r.dirty(r.silently(t, sql), keys...)
}

// silently changes the original without a word of it from the stream.
func (r *rig) silently(t *testing.T, sql string) (xid uint32) {
	t.Helper()
	tx := r.begin(t, sql)
	xid = xidOf(t, tx)
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	return xid
}

// begin changes the original in a transaction that is left open.
func (r *rig) begin(t *testing.T, sql string) pgx.Tx {
	t.Helper()
	conn := r.DB.Conn(t)
	tx, err := conn.Begin(t.Context())
	if err == nil {
		_, err = tx.Exec(t.Context(), sql)
	}
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return tx
}

func xidOf(t *testing.T, tx pgx.Tx) uint32 {
	t.Helper()
	var xid int64
	if err := tx.QueryRow(t.Context(), "SELECT pg_current_xact_id()::text::bigint").Scan(&xid); err != nil {
		t.Fatal(err)
	}
	return uint32(xid)
}

func (r *rig) dirty(xid uint32, keys ...int) {
	for _, n := range keys {
		r.set.Add(replication.Change{Key: key(n), XID: xid, Commit: 1})
	}
}

// steps replays for as long as keys leave the set.
func (r *rig) steps(t *testing.T) {
	t.Helper()
	for worked := true; worked; {
		var err error
		if worked, err = r.replayer.step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func (r *rig) requireDirty(t *testing.T, want ...int) {
	t.Helper()
	for _, n := range want {
		if _, dirty := r.set.entries[key(n)]; !dirty {
			t.Errorf("key %d is not dirty any more", n)
		}
	}
	if r.set.Len() != len(want) {
		t.Errorf("%d keys are dirty, want %v", r.set.Len(), want)
	}
}

func (r *rig) requireEqual(t *testing.T) {
	t.Helper()
	if n := r.Differences(t); n != 0 {
		t.Errorf("the tables differ in %d rows", n)
	}
}

// shadowRow is the text of a row of the shadow; empty when it is not there.
func (r *rig) shadowRow(t *testing.T, id int) string {
	t.Helper()
	return pgtest.Scalar[string](t, r.DB, fmt.Sprintf("SELECT coalesce(max(s::text), '') FROM %s s WHERE id = $1", r.Plan.Names.Shadow()), id)
}
