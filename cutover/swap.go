package cutover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/shadow"
)

// swap is the one transaction of the cutover. Whatever goes wrong before its
// COMMIT is a ROLLBACK: the original stays in place (INV-7).
func (c *Cutover) swap(ctx context.Context, conn *pgx.Conn, attempt int) (report Report, err error) {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return report, fmt.Errorf("beginning the swap: %w", err)
	}
	asked := time.Now()
	if err := c.takeLocks(ctx, tx, attempt); err != nil {
		err = errors.Join(err, pg.Rollback(ctx, tx))
		if pg.IsLockFailure(err) {
			return report, &notYetError{fmt.Sprintf("no lock on %s within %s%s", c.locked(), c.config.LockTimeout, c.holders(ctx, conn))}
		}
		return report, err
	}
	locked := time.Now()
	report.LockWaitMS = milliseconds(locked.Sub(asked))
	holding, cancel := context.WithDeadline(ctx, locked.Add(c.config.MaxHold))
	defer cancel()
	xid, err := c.underLock(holding, tx, &report)
	if err != nil {
		err = errors.Join(err, pg.Rollback(ctx, tx))
		if holding.Err() != nil && ctx.Err() == nil {
			err = &overBudgetError{budget: c.config.MaxHold, cause: err}
		}
		return report, err
	}
	if c.undone != nil {
		return c.undo(ctx, tx, report, locked)
	}
	// The COMMIT is not cut short by the budget: its outcome must be known.
	err = c.commit(ctx, tx, xid)
	report.LockHoldMS = milliseconds(time.Since(locked))
	return report, err
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// takeLocks takes every lock of the swap up front, never a weaker one first, and
// gives up when that has taken longer than the lock timeout in all. Statements of
// the application lock a referencing table before the referenced one, or in one
// transaction the other way round, so every second attempt does the latter.
//
// With one lock held it waits for the others for less than the deadlock_timeout: a
// transaction that waits for that one, and has one of the others, looks for a
// deadlock after it at the earliest, and would be the one that the server ends.
func (c *Cutover) takeLocks(ctx context.Context, tx pgx.Tx, attempt int) error {
	settings := []string{
		// Should this process or its host vanish, the server gives the locks back.
		"SET LOCAL statement_timeout = " + pg.Milliseconds(c.config.LockTimeout+c.config.MaxHold),
		"SET LOCAL idle_in_transaction_session_timeout = " + pg.Milliseconds(c.config.LockTimeout+c.config.MaxHold),
	}
	for _, sql := range settings {
		if _, err := tx.Exec(ctx, sql); err != nil {
			return fmt.Errorf("preparing the swap: %w", err)
		}
	}
	var deadlockTimeout int64 // ms
	if err := tx.QueryRow(ctx, "SELECT setting::pg_catalog.int8 FROM pg_catalog.pg_settings WHERE name = 'deadlock_timeout'").Scan(&deadlockTimeout); err != nil {
		return fmt.Errorf("asking for the deadlock_timeout: %w", err)
	}
	deadline := time.Now().Add(c.config.LockTimeout)
	for i, lock := range lockOrder(c.plan.Locks, attempt) {
		left := max(time.Until(deadline), time.Millisecond) // zero would be no limit
		settings := map[string]string{"lock_timeout": pg.Milliseconds(left)}
		if err := pg.ExecAs(ctx, tx, lock.Statement.Role, settings, lock.Statement.SQL); err != nil {
			return fmt.Errorf("taking %s: %w", lock.Statement.Lock, err)
		}
		if early := time.Now().Add(time.Duration(deadlockTimeout) * time.Millisecond / 2); i == 0 && early.Before(deadline) {
			deadline = early
		}
	}
	if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = "+pg.Milliseconds(c.config.LockTimeout)); err != nil {
		return fmt.Errorf("preparing the swap: %w", err)
	}
	return nil
}

func lockOrder(locks []shadow.Lock, attempt int) []shadow.Lock {
	if attempt%2 == 1 {
		return locks
	}
	referencing := func(lock shadow.Lock) bool { return lock.Kind == shadow.LockReferencing }
	others := slices.DeleteFunc(slices.Clone(locks), referencing)
	return append(others, slices.DeleteFunc(slices.Clone(locks), func(lock shadow.Lock) bool { return !referencing(lock) })...)
}

// underLock does everything between LOCK and COMMIT and returns the
// transaction's id.
func (c *Cutover) underLock(ctx context.Context, tx pgx.Tx, report *Report) (xid uint64, err error) {
	if err := c.sameServer(ctx, tx); err != nil {
		return 0, err
	}
	fence, err := c.fencer.Fence(ctx)
	if err != nil {
		return 0, err
	}
	report.FenceMS = milliseconds(fence)
	if report.Keys, err = c.replay.Finish(ctx, tx); err != nil {
		return 0, err
	}
	if err := c.guard.Compare(ctx, tx); err != nil {
		return 0, err
	}
	confined := c.plan.Confined()
	if err := confined.Leave(ctx, tx); err != nil {
		return 0, err
	}
	if err := c.guard.Unchanged(ctx, tx); err != nil {
		return 0, err
	}
	confined.SearchPath = "" // the swap names every object by its schema
	if !c.guard.Wanted() {
		return 0, &notYetError{"the operator has taken it back"}
	}
	for _, statement := range c.plan.Swap {
		if err := confined.ExecAs(ctx, tx, statement.Role, statement.Settings, statement.SQL); err != nil {
			return 0, fmt.Errorf("swapping, %s (%s): %w", statement.Why, statement.SQL, err)
		}
	}
	return c.conclude(ctx, tx, confined)
}

// conclude records the swap, and leaves nothing for the COMMIT to run.
func (c *Cutover) conclude(ctx context.Context, tx pgx.Tx, confined pg.Confined) (xid uint64, err error) {
	if err := confined.Leave(ctx, tx); err != nil {
		return 0, err
	}
	if err := c.guard.Record(ctx, tx); err != nil {
		return 0, err
	}
	var text string
	if err := tx.QueryRow(ctx, "SELECT pg_catalog.pg_current_xact_id()::pg_catalog.text").Scan(&text); err != nil {
		return 0, fmt.Errorf("reading the swap's transaction id: %w", err)
	}
	if xid, err = strconv.ParseUint(text, 10, 64); err != nil {
		return 0, fmt.Errorf("reading the swap's transaction id: %w", err)
	}
	return xid, confined.Settle(ctx, tx)
}

// sameServer makes sure that the lock is held on the server whose stream is fenced:
// after a failover a connection string may lead to another one than it did.
func (c *Cutover) sameServer(ctx context.Context, tx pgx.Tx) error {
	var backend int32
	if err := tx.QueryRow(ctx, "SELECT pg_catalog.pg_backend_pid()").Scan(&backend); err != nil {
		return fmt.Errorf("asking for the swap's own backend: %w", err)
	}
	locked, err := c.fencer.Locked(ctx, backend, c.plan.Original.OID)
	if err != nil {
		return err
	}
	if !locked {
		return fmt.Errorf("the swap's session is not on the server whose changes are read, as after a failover: %w", pg.ErrSessionLost)
	}
	return nil
}

// commit commits and, when the connection dies in it, finds out what became of
// the transaction.
func (c *Cutover) commit(ctx context.Context, tx pgx.Tx, xid uint64) error {
	committing, cancel := pg.Cleanup(ctx)
	defer cancel()
	err := tx.Commit(committing)
	if err == nil {
		return nil
	}
	if pg.Server(err) != nil && !tx.Conn().IsClosed() {
		return fmt.Errorf("committing the swap: %w", err)
	}
	outcome, askErr := c.outcome(ctx, xid)
	switch outcome {
	case Committed:
		return nil
	case NotCommitted:
		return fmt.Errorf("committing the swap, which the server undid: %w", errors.Join(err, askErr))
	case Unknown:
		return fmt.Errorf("%w: transaction %d: %w", ErrUnknown, xid, errors.Join(err, askErr))
	default:
		return fmt.Errorf("%w: %s", ErrUnknown, outcome)
	}
}
