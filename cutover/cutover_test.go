package cutover

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/shadow"
	"github.com/pgshadow/pgshadow/replication/replay"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// writeAtPause writes to the original once the replay has been paused: only the
// replay under the lock can still carry that over.
type writeAtPause struct {
	*rig
	t   *testing.T
	sql string
}

func (w *writeAtPause) Pause(ctx context.Context) error {
	if err := w.rig.Pause(ctx); err != nil {
		return err
	}
	w.DB.Exec(w.t, w.sql)
	return nil
}

func TestSwap(t *testing.T) {
	t.Parallel()
	r := newRig(t, pgtest.New(t), rows, toBigint)
	c := r.cutover(t)
	c.replay = &writeAtPause{rig: r, t: t, sql: "UPDATE t SET code = -1 WHERE id = 1; UPDATE t SET code = 100 WHERE id = 2; UPDATE t SET code = 200 WHERE id = 1; DELETE FROM t WHERE id = 3; INSERT INTO t VALUES (11, 11)"}
	report, err := c.Run(t.Context())
	r.requireSwapped(t, err)
	if report.Attempts != 1 || report.Keys != 4 || report.LockHoldMS <= 0 || report.FenceMS <= 0 || report.FenceMS > report.LockHoldMS {
		t.Errorf("the report is %+v", report)
	}
	if len(r.events) != 1 || r.events[0] != (Event{Attempt: 1}) {
		t.Errorf("the events are %+v", r.events)
	}
	// The replay rests for good: the shadow is the table now.
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := r.Pause(short); err == nil {
		t.Error("the replay goes on after the swap")
	}
}

// TestLockTimeout: an attempt that does not get the lock gives up soon, says who
// has it, and lets the replay go on until the next.
func TestLockTimeout(t *testing.T) {
	t.Parallel()
	r := newRig(t, pgtest.New(t), rows, toBigint)
	reader := r.open(t, "SELECT * FROM t")
	r.onEvent = func(event Event) {
		if event.Attempt == 1 {
			r.requireInPlace(t)
			end(t, reader)
		}
	}
	report, err := r.run(t)
	r.requireSwapped(t, err)
	r.requireReason(t, "no lock on public.t within 100ms; it is locked by pid "+fmt.Sprint(reader.PgConn().PID()))
	r.requireReason(t, "an old client, idle in transaction")
	if report.Attempts < 2 || r.events[0].Backoff <= 0 {
		t.Errorf("the report is %+v, the events %+v", report, r.events)
	}
}

type fenceFunc func(ctx context.Context) (time.Duration, error)

func (f fenceFunc) Fence(ctx context.Context) (time.Duration, error)    { return f(ctx) }
func (f fenceFunc) Locked(context.Context, int32, uint32) (bool, error) { return true, nil }

// elsewhere is a stream of another server than the cutover's sessions are on.
type elsewhere struct{ Fencer }

func (elsewhere) Locked(context.Context, int32, uint32) (bool, error) { return false, nil }

// TestSwapOnAnotherServer: the fence proves nothing for a lock that is held
// somewhere else, as after a failover that the stream has not noticed.
func TestSwapOnAnotherServer(t *testing.T) {
	t.Parallel()
	r := newRig(t, pgtest.New(t), rows, toBigint)
	r.fencer = elsewhere{r.fencer}
	if _, err := r.run(t); !pg.IsConnection(err) || !strings.Contains(err.Error(), "not on the server whose changes are read") {
		t.Errorf("Run returned %v", err)
	}
	r.requireInPlace(t)
}

// TestAttemptTakenBack: right before the lock the operator wants it no more.
func TestAttemptTakenBack(t *testing.T) {
	t.Parallel()
	r := newRig(t, pgtest.New(t), rows, toBigint)
	asked := 0
	r.wanted = func() bool { asked++; return asked > 2 }
	_, err := r.run(t)
	r.requireSwapped(t, err)
	r.requireReason(t, "taken it back")
}

// TestOverBudget: what takes too long under the lock is cancelled on the server
// and rolled back.
func TestOverBudget(t *testing.T) {
	t.Parallel()
	r := newRig(t, pgtest.New(t), rows, toBigint)
	r.config.MaxHold = 800 * time.Millisecond
	r.compare = func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "SELECT pg_sleep(600)")
		return err
	}
	var held []time.Duration
	r.onEvent = func(event Event) {
		if !strings.Contains(event.Reason, "budget") {
			return
		}
		held = append(held, time.Duration(pgtest.Scalar[int](t, r.DB, "SELECT count(*) FROM pg_locks WHERE relation = 't'::regclass AND mode = 'AccessExclusiveLock'")))
		r.requireInPlace(t)
		r.compare = nil
	}
	_, err := r.run(t)
	r.requireSwapped(t, err)
	r.requireReason(t, "the lock was given back after 800ms, its budget")
	if len(held) == 0 || held[0] != 0 {
		t.Error("the lock was still held after the rollback")
	}
}

// TestSlowFence: while the stream is slow the lock is not asked for at all.
func TestSlowFence(t *testing.T) {
	t.Parallel()
	r := newRig(t, pgtest.New(t), rows, toBigint)
	r.config.Attempts = 1
	r.fencer = fenceFunc(func(context.Context) (time.Duration, error) { return r.config.MaxHold/4 + 1, nil })
	r.unchanged = func(context.Context, pgx.Tx) error { t.Error("it went on"); return nil }
	_, err := r.run(t)
	if want := "a fence takes 1.25s to come out of the stream, more than 1.25s of the hold budget"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("Run returned %v", err)
	}
	r.unchanged = nil
	r.requireInPlace(t)
}

// TestOldSnapshot: a transaction that could not see the shadow's rows holds the
// swap back, whatever table it has read so far; a later one does not.
func TestOldSnapshot(t *testing.T) {
	t.Parallel()
	r := newRig(t, pgtest.New(t), rows, toBigint)
	before := r.open(t, "SELECT 1")
	r.DB.Exec(t, "SELECT pg_current_xact_id()") // so that the horizon is beyond the snapshot
	r.horizon = r.now(t)
	r.DB.Exec(t, "SELECT pg_current_xact_id()")
	after := r.open(t, "SELECT 1")
	r.onEvent = func(event Event) {
		if event.Attempt == 1 {
			end(t, before)
		}
	}
	_, err := r.run(t)
	r.requireSwapped(t, err)
	r.requireReason(t, fmt.Sprintf("public.t cannot be swapped yet: pid %d (an old client, idle in transaction) has had a snapshot since 20", before.PgConn().PID()))
	for _, event := range r.events {
		if strings.Contains(event.Reason, fmt.Sprintf("pid %d ", after.PgConn().PID())) {
			t.Errorf("a later snapshot was named: %s", event.Reason)
		}
	}
}

// TestPreparedTransaction holds a lock that no timeout ends.
func TestPreparedTransaction(t *testing.T) {
	t.Parallel()
	r := newRig(t, pgtest.New(t), rows+"; CREATE TABLE other (id int)", toBigint)
	gid, unrelated := r.DB.Name, r.DB.Name+"_other"
	_, err := r.open(t, "UPDATE t SET code = 101 WHERE id = 1").Exec(t.Context(), "PREPARE TRANSACTION '"+gid+"'")
	must(t, err)
	_, err = r.open(t, "INSERT INTO other VALUES (1)").Exec(t.Context(), "PREPARE TRANSACTION '"+unrelated+"'")
	must(t, err)
	r.onEvent = func(event Event) {
		if event.Attempt == 1 {
			r.DB.Exec(t, "COMMIT PREPARED '"+gid+"'")
		}
	}
	_, err = r.run(t)
	r.requireSwapped(t, err)
	r.requireReason(t, "public.t cannot be swapped yet: prepared transaction '"+gid+"' holds a lock on it")
	for _, event := range r.events {
		if strings.Contains(event.Reason, unrelated) {
			t.Errorf("an unrelated transaction was named: %s", event.Reason)
		}
	}
}

// TestDefiniteFailures are not tried again, and leave the original in place.
func TestDefiniteFailures(t *testing.T) {
	for name, c := range map[string]struct {
		arrange func(r *rig)
		is      func(error) bool
	}{
		"a check under the lock": {
			func(r *rig) { r.compare = func(context.Context, pgx.Tx) error { return errStop } },
			func(err error) bool { return errors.Is(err, errStop) }},
		"the original changed": {
			func(r *rig) { r.unchanged = func(context.Context, pgx.Tx) error { return errStop } },
			func(err error) bool { return errors.Is(err, errStop) }},
		"a statement of the swap": {
			func(r *rig) {
				r.Plan.Swap = append(r.Plan.Swap, shadow.Statement{SQL: "ALTER TABLE public.t ADD CHECK (id > 5)", Why: "test"})
			},
			func(err error) bool {
				return pg.Is(err, "23514") && strings.Contains(err.Error(), "swapping, test (ALTER TABLE public.t ADD CHECK (id > 5))")
			}},
		"a deferred constraint": {
			func(r *rig) {
				r.record = func(ctx context.Context, tx pgx.Tx) error {
					_, err := tx.Exec(ctx, "CREATE TABLE public.late (id int UNIQUE DEFERRABLE); SET CONSTRAINTS ALL DEFERRED; INSERT INTO public.late VALUES (1), (1)")
					return err
				}
			},
			func(err error) bool {
				return pg.IsUniqueConflict(err) && strings.Contains(err.Error(), "running what was deferred")
			}},
		"a truncation": {
			func(r *rig) { r.Truncate(1, 1) },
			func(err error) bool { return errors.Is(err, replay.ErrTruncated) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, pgtest.New(t), rows, toBigint)
			c.arrange(r)
			report, err := r.run(t)
			if !c.is(err) || report.Attempts != 1 {
				t.Errorf("Run returned %v after %d attempts", err, report.Attempts)
			}
			if truncated := r.Truncated(); truncated != nil {
				r.ClearTruncated(truncated)
			}
			r.requireInPlace(t)
		})
	}
}

func TestCancelledCutover(t *testing.T) {
	t.Parallel()
	r := newRig(t, pgtest.New(t), rows, toBigint)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r.compare = func(ctx context.Context, tx pgx.Tx) error {
		cancel()
		_, err := tx.Exec(ctx, "SELECT pg_sleep(600)")
		return err
	}
	if _, err := r.cutover(t).Run(ctx); !pg.Is(err, pg.QueryCanceled) && !errors.Is(err, context.Canceled) {
		t.Errorf("Run returned %v", err)
	}
	r.requireInPlace(t)

	r.compare = nil
	r.open(t, "SELECT * FROM t")
	waiting, cancelWait := context.WithCancel(t.Context())
	defer cancelWait()
	r.onEvent = func(Event) { cancelWait() }
	if _, err := r.cutover(t).Run(waiting); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled between attempts Run returned %v", err)
	}
}

func TestRetryable(t *testing.T) {
	server := func(code string) error {
		return fmt.Errorf("doing: %w", errors.Join(errStop, &pgconn.PgError{Code: code}))
	}
	for _, c := range []struct {
		err  error
		want bool
	}{
		{server(pg.LockNotAvailable), true},
		{server(pg.DeadlockDetected), true},
		{server(pg.QueryCanceled), true},
		{&notYetError{"soon"}, true},
		{&overBudgetError{time.Second, errStop}, true},
		{server(pg.UniqueViolation), false},
		{server("57P01"), false},
		{errStop, false},
		{fmt.Errorf("%w: x", ErrUnknown), false},
		{context.Canceled, false},
	} {
		if got := retryable(c.err); got != c.want {
			t.Errorf("%v is retryable: %t", c.err, got)
		}
	}
}
