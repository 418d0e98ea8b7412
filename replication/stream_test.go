package replication

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/test/pgserver"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// TestNothingUnconfirmedIsLost is INV-4: whatever was not confirmed when the
// stream broke comes again, and nothing else does.
func TestNothingUnconfirmedIsLost(t *testing.T) {
	t.Parallel()
	r := newRig(t, pgtest.New(t), plain, idKey)
	confirmed := r.write(t, "UPDATE t SET v = 'x' WHERE id = 1")
	r.requireKeys(t, confirmed, "(1)")
	r.sink.apply(0)
	r.confirmPast(t, currentLSN(t, r.db))

	pending := r.write(t, "UPDATE t SET v = 'x' WHERE id IN (2, 3)")
	r.requireKeys(t, pending, "(2)", "(3)")
	r.sink.apply(1) // half a transaction
	later := r.write(t, "UPDATE t SET v = 'x' WHERE id = 4")
	r.requireKeys(t, later, "(4)")
	r.stream.Confirm(currentLSN(t, r.db)) // asked for far too much
	r.awaitStatus(t)

	r.db.Exec(t, "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1", r.config.Slot)
	if err := r.awaitEnd(t); !pg.IsConnection(err) {
		t.Errorf("the stream ended with %v", err)
	}
	r.reopen(t)
	r.fence(t)
	keys, changes := r.sink.drain()
	if len(keys) != 3 || keys[0] != "(2)" || keys[1] != "(3)" || keys[2] != "(4)" || changes[0].XID != pending || changes[2].XID != later {
		t.Errorf("after the break the stream brought %v, want (2), (3), (4) again", changes)
	}
}

// confirmPast confirms what is applied, until the slot has been told lsn.
func (r *rig) confirmPast(t *testing.T, lsn pg.LSN) {
	t.Helper()
	eventually(t, "the slot to be told "+lsn.String(), func() bool {
		r.stream.Confirm(r.stream.Applied())
		return r.slot(t).Confirmed >= lsn
	})
}

// awaitStatus returns when the server has had two more status messages.
func (r *rig) awaitStatus(t *testing.T) {
	t.Helper()
	const query = "SELECT coalesce(reply_time, 'epoch') FROM pg_stat_replication JOIN pg_replication_slots ON active_pid = pid WHERE slot_name = $1"
	for range 2 {
		before := pgtest.Scalar[time.Time](t, r.db, query, r.config.Slot)
		eventually(t, "a status message", func() bool {
			return pgtest.Scalar[time.Time](t, r.db, query, r.config.Slot).After(before)
		})
	}
}

// TestNothingIsConfirmedUnasked: applied is not durable yet.
func TestNothingIsConfirmedUnasked(t *testing.T) {
	t.Parallel()
	r := newRig(t, pgtest.New(t), plain, idKey)
	start := r.config.Start
	r.requireKeys(t, r.write(t, "UPDATE t SET v = 'x' WHERE id = 1"), "(1)")
	r.sink.apply(0)
	applied := currentLSN(t, r.db)
	eventually(t, "the change to count as applied", func() bool { return r.stream.Applied() >= applied })
	r.awaitStatus(t)
	if got := r.slot(t).Confirmed; got != start {
		t.Errorf("the slot was told %s, and began at %s", got, start)
	}
}

// TestKeepalivesDoNotMovePastAPendingChange, however far the server has come,
// nor does the rest of the transaction.
func TestKeepalivesDoNotMovePastAPendingChange(t *testing.T) {
	t.Parallel()
	r := newRig(t, pgtest.New(t), plain+"; CREATE TABLE other (id int)", idKey)
	r.requireKeys(t, r.write(t, "UPDATE t SET v = 'x' WHERE id = 1"), "(1)")
	pending, _ := r.sink.Oldest()
	r.db.Exec(t, "INSERT INTO other SELECT generate_series(1, 1000)")
	r.fence(t)
	busy := currentLSN(t, r.db)
	eventually(t, "the stream to be read to the end", func() bool { return r.stream.Positions().Received >= busy })
	r.awaitStatus(t)
	if got := r.stream.Positions(); got.Applied > pending || got.Received <= pending {
		t.Errorf("a change of %s is pending, and the positions are %+v", pending, got)
	}
	r.sink.apply(0)
	eventually(t, "the applied position to follow", func() bool { return r.stream.Applied() >= busy })
}

// TestIdleTableInABusyServer: a slot must not hold back WAL in which the table
// has no part.
func TestIdleTableInABusyServer(t *testing.T) {
	t.Parallel()
	r := newRig(t, pgtest.New(t), plain+"; CREATE TABLE other (id int)", idKey)
	r.db.Exec(t, "INSERT INTO other SELECT generate_series(1, 1000)")
	r.confirmPast(t, currentLSN(t, r.db))
}

// TestFullSink: the stream is not read, and the server is answered all the same.
func TestFullSink(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t, pgserver.Options{Settings: map[string]string{"wal_sender_timeout": "3s"}})
	r := newRig(t, pgtest.NewOn(t, server), plain, idKey)
	r.sink.fill(true)
	r.awaitStatus(t) // so that no read is under way
	r.db.Exec(t, "INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(10, 20000) i")
	began := time.Now()
	const walsender = "SELECT active_pid FROM pg_replication_slots"
	pid := pgtest.Scalar[int](t, r.db, walsender)
	for time.Since(began) < 4*time.Second {
		r.awaitStatus(t)
	}
	if keys, _ := r.sink.drain(); len(keys) > 1 {
		t.Errorf("%d changes came though the sink was full", len(keys))
	}
	r.sink.fill(false)
	r.fence(t)
	if keys, _ := r.sink.drain(); len(keys) < 19990 {
		t.Errorf("%d changes came, want 19991", len(keys))
	}
	if again := pgtest.Scalar[int](t, r.db, walsender); again != pid {
		t.Errorf("the walsender is %d, it was %d", again, pid)
	}
}

// TestSinkFillsInATransaction: the rest of it waits.
func TestSinkFillsInATransaction(t *testing.T) {
	t.Parallel()
	r := newRig(t, pgtest.New(t), plain, idKey)
	r.sink.fill(true)
	r.write(t, "INSERT INTO t SELECT generate_series(10, 1000)")
	r.awaitStatus(t)
	positions := r.stream.Positions()
	r.sink.fill(false)
	r.fence(t)
	_, changes := r.sink.drain()
	if len(changes) != 991 {
		t.Fatalf("%d changes came, want 991", len(changes))
	}
	if positions.Applied > changes[0].Commit {
		t.Errorf("before the transaction was read, %s counted as applied, beyond its commit %s", positions.Applied, changes[0].Commit)
	}
}

func TestFences(t *testing.T) {
	t.Parallel()
	r := newRig(t, pgtest.New(t), plain, idKey)
	first, err := r.stream.Emit(t.Context())
	must(t, err)
	took, err := first.Wait(t.Context())
	if must(t, err); took <= 0 || took > patience {
		t.Errorf("the fence took %s", took)
	}
	// Messages of others, and one of the run's that nobody waits for.
	r.db.Exec(t, "SELECT pg_logical_emit_message(true, 'pgshadow', $1)", first.name)
	r.db.Exec(t, "SELECT pg_logical_emit_message(false, 'other', 'x')")
	r.fence(t)
}

// TestFenceOfAnEarlierProcess comes out of the slot once more, after a restart;
// it must not pass for one that was emitted since.
func TestFenceOfAnEarlierProcess(t *testing.T) {
	t.Parallel()
	r := newRig(t, pgtest.New(t), plain, idKey)
	r.sink.fill(true)
	r.awaitStatus(t) // so that nothing is read any more
	earlier, err := r.stream.Emit(t.Context())
	must(t, err)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := earlier.Wait(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("with its context ended the wait returned %v", err)
	}
	if n := len(r.stream.fences.waiting); n != 0 { // nothing is read, so nothing else looks
		t.Errorf("%d fences are still waited for", n)
	}
	r.write(t, "INSERT INTO t VALUES (6)")
	r.reopen(t)
	again, err := r.stream.Emit(t.Context())
	must(t, err)
	if earlier.name == again.name {
		t.Errorf("both processes call their fence %s", again.name)
	}
	_, err = again.Wait(t.Context())
	must(t, err)
	if keys, _ := r.sink.drain(); len(keys) != 1 {
		t.Errorf("the fence passed with %d changes read, want 1", len(keys))
	}
	if _, err := earlier.Wait(t.Context()); err == nil {
		t.Error("the earlier fence has passed in a stream that has ended")
	}
}

// TestFenceIsFlushed: it does not wait for the WAL writer to come by.
func TestFenceIsFlushed(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t, pgserver.Options{Settings: map[string]string{"wal_writer_delay": "10s", "fsync": "on"}})
	r := newRig(t, pgtest.NewOn(t, server), plain, idKey)
	for range 3 {
		if took, err := r.stream.Fence(t.Context()); err != nil || took > 5*time.Second {
			t.Errorf("the fence took %s, %v", took, err)
		}
	}
}

// TestFenceSessionIsReplaced: fences go on after their session was terminated.
func TestFenceSessionIsReplaced(t *testing.T) {
	t.Parallel()
	r := newRig(t, pgtest.New(t), plain, idKey)
	r.fence(t)
	r.db.Exec(t, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'pgshadow test fence'")
	if _, err := r.stream.Fence(t.Context()); !pg.IsConnection(err) {
		t.Errorf("the fence on the terminated session returned %v", err)
	}
	r.fence(t)
}

// TestFenceFollowsEveryCommit: when it has passed, all that committed before it
// was emitted has been received (INV-5).
func TestFenceFollowsEveryCommit(t *testing.T) {
	t.Parallel()
	r := newRig(t, pgtest.New(t), plain, idKey)
	for i := range 30 {
		conn := r.db.Conn(t)
		_, err := conn.Exec(t.Context(), "SET synchronous_commit = off")
		must(t, err)
		_, err = conn.Exec(t.Context(), "INSERT INTO t SELECT generate_series($1::int, $1 + 20)", 100+100*i)
		must(t, err)
		r.fence(t)
		if keys, _ := r.sink.drain(); len(keys) != 21 {
			t.Fatalf("round %d: %d changes came before the fence, want 21", i, len(keys))
		}
	}
}

func TestStreamStops(t *testing.T) {
	t.Parallel()
	r := newRig(t, pgtest.New(t), plain, idKey)
	fence := &Fence{stream: r.stream, name: "never", passed: make(chan struct{})}
	r.stop()
	if err := r.awaitEnd(t); err != nil {
		t.Errorf("Run returned %v for an ended context", err)
	}
	if _, err := fence.Wait(t.Context()); err == nil {
		t.Error("a fence passed though the stream has ended")
	}
	eventually(t, "the slot to be free", func() bool { return !r.slot(t).Active })
}
