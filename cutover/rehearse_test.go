package cutover

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/test/pgtest"
)

// TestRehearsal does all that a swap does and leaves the original in place, its changes
// replayed on; then the swap itself is made.
func TestRehearsal(t *testing.T) {
	t.Parallel()
	r := newRig(t, pgtest.New(t), rows+"; CREATE TABLE noted (n int); CREATE VIEW v AS SELECT * FROM t", toBigint)
	var seen uint32
	r.record = func(ctx context.Context, tx pgx.Tx) error { // at the end of the locked part
		return tx.QueryRow(ctx, "SELECT 'public.t'::pg_catalog.regclass::pg_catalog.oid").Scan(&seen)
	}
	r.undone = func(ctx context.Context, tx pgx.Tx) error {
		if n := pgtest.Scalar[int](t, r.DB, "SELECT count(*) FROM pg_locks WHERE relation = 't'::regclass AND mode = 'AccessExclusiveLock'"); n != 0 {
			t.Error("the record is written under the lock")
		}
		_, err := tx.Exec(ctx, "INSERT INTO public.noted VALUES (1)")
		return err
	}
	c := r.cutover(t)
	c.replay = &writeAtPause{rig: r, t: t, sql: "UPDATE t SET code = -1 WHERE id = 1"}
	report, err := c.Run(t.Context())
	must(t, err)
	if report.Attempts != 1 || report.Keys != 1 || report.CommitMS <= 0 || report.LockHoldMS <= report.CommitMS+report.FenceMS {
		t.Errorf("the report is %+v", report)
	}
	if seen == 0 || seen == r.Plan.Original.OID {
		t.Error("the shadow was not in place under the lock")
	}
	if n := pgtest.Scalar[int](t, r.DB, "SELECT count(*) FROM noted"); n != 1 {
		t.Errorf("it is noted %d times", n)
	}
	r.requireInPlace(t)
	r.undone, r.record = nil, nil
	report, err = r.run(t)
	r.requireSwapped(t, err)
	if report.CommitMS != 0 {
		t.Errorf("the report of the swap is %+v", report)
	}
}

// TestRehearsalThatIsNotRecorded fails, and the original is in place.
func TestRehearsalThatIsNotRecorded(t *testing.T) {
	t.Parallel()
	r := newRig(t, pgtest.New(t), rows, toBigint)
	r.undone = func(context.Context, pgx.Tx) error { return errStop }
	if _, err := r.run(t); !errors.Is(err, errStop) {
		t.Errorf("Run returned %v", err)
	}
	r.requireInPlace(t)
}
