// Package cutover owns the swap: the lock, the fence under it, the last replay,
// and the exchange of the two tables in one transaction; its outcome, and the
// attempts with back-off until it succeeds.
package cutover

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/shadow"
)

const (
	// fenceShare of the hold budget is the most that a fence may take before the
	// lock is asked for at all.
	fenceShare = 4
	// replayShare of the hold budget is the most that replaying what is dirty may
	// take by forecast.
	replayShare = 2
	// settleLimit bounds the wait for what has been written to be replayed before
	// an attempt.
	settleLimit = 5 * time.Minute
)

// Config of the cutover.
type Config struct {
	LockTimeout time.Duration // wait for the lock, per attempt; default 500 ms
	MaxHold     time.Duration // hold of the lock, then ROLLBACK; default 1 s
	Attempts    int           // default 60
}

// Replay is what the cutover needs of replay.
type Replay interface {
	Drain(ctx context.Context) error
	Pause(ctx context.Context) error
	Resume()
	// Warm has the server plan in this session what Finish will ask of it.
	Warm(ctx context.Context, tx pgx.Tx) error
	// Finish replays every dirty key in the transaction that holds the lock.
	Finish(ctx context.Context, tx pgx.Tx) (keys int, err error)
}

// Pacer knows how fast replay is.
type Pacer interface {
	// Fits returns an error that says why, when replaying what is dirty now would
	// take longer than the budget.
	Fits(budget time.Duration) error
}

// Fencer emits a fence and waits until it has come out of the stream (INV-5).
type Fencer interface {
	Fence(ctx context.Context) (time.Duration, error)
	// Locked tells whether a backend of the server whose stream this is has a table
	// in ACCESS EXCLUSIVE mode.
	Locked(ctx context.Context, backend int32, table uint32) (bool, error)
}

// Guard is what else must hold before an attempt, and under the lock.
type Guard interface {
	// Await blocks while the operator wants no attempt.
	Await(ctx context.Context) error
	// Wanted tells, right before the lock is taken and right before the swap, whether
	// the attempt still is.
	Wanted() bool
	// Unchanged returns an error when the original is no longer what was planned for.
	Unchanged(ctx context.Context, tx pgx.Tx) error
	// Compare compares the rows that verification left in doubt.
	Compare(ctx context.Context, tx pgx.Tx) error
	// Record writes into the state rows that the swap is done.
	Record(ctx context.Context, tx pgx.Tx) error
}

// Report is what the cutover cost.
type Report struct {
	Attempts   int     `json:"attempts"`
	LockWaitMS float64 `json:"lock_wait_ms"`
	LockHoldMS float64 `json:"lock_hold_ms"`
	FenceMS    float64 `json:"fence_ms"`
	Keys       int     `json:"keys"` // replayed under the lock
	// CommitMS is what a durable COMMIT took after the ROLLBACK of a rehearsal. It is part of LockHoldMS.
	CommitMS float64 `json:"commit_ms,omitempty"`
}

// Outcome of the swap's COMMIT.
type Outcome int

// The outcomes.
const (
	NotCommitted Outcome = iota
	Committed
	Unknown
)

func (o Outcome) String() string {
	switch o {
	case NotCommitted:
		return "not committed"
	case Committed:
		return "committed"
	case Unknown:
		return "unknown"
	default:
		return fmt.Sprintf("outcome %d", int(o))
	}
}

// ErrUnknown says that the connection was lost in COMMIT and the server could
// not be asked what became of it. Nothing may be dropped or tried again.
var ErrUnknown = errors.New("the outcome of the swap is unknown")

// Cutover swaps the two tables of a run.
type Cutover struct {
	tune    func() Config
	config  Config // of the attempt under way
	plan    *shadow.Plan
	connect func(ctx context.Context, purpose string) (*pgx.Conn, error)
	replay  Replay
	pacer   Pacer
	fencer  Fencer
	guard   Guard
	observe func(Event)
	tables  []uint32 // OIDs of the original and the shadow
	horizon Horizon
	undone  func(ctx context.Context, tx pgx.Tx) error // see Swap.Undone
	settle  time.Duration                              // the most that replay is waited for before an attempt
}

// Swap says which tables are exchanged. A snapshot older than the horizon would
// not see some of the shadow's rows.
type Swap struct {
	Plan      *shadow.Plan
	ShadowOID uint32
	Horizon   Horizon
	// Undone, where it is set, makes this a rehearsal: the swap is rolled back where it
	// would be committed, and Undone records that in a transaction of its own. That
	// one's COMMIT is measured in place of the swap's.
	Undone func(ctx context.Context, tx pgx.Tx) error
}

// Horizon is a moment when every row of the copy was there: the first transaction
// id not yet assigned then, and the server's clock.
type Horizon struct {
	XID uint64
	At  time.Time
}

// xid is the 32-bit form, as age() takes it.
func (h Horizon) xid() string { return strconv.FormatUint(uint64(uint32(h.XID)), 10) } //nolint:gosec // the low half is meant

// New makes a Cutover. config is asked before every attempt. connect opens sessions of the login role.
func New(config func() Config, swap Swap, connect func(ctx context.Context, purpose string) (*pgx.Conn, error),
	replay Replay, pacer Pacer, fencer Fencer, guard Guard, observe func(Event)) *Cutover {
	return &Cutover{tune: config, config: config(), plan: swap.Plan, connect: connect, replay: replay, pacer: pacer, fencer: fencer, guard: guard, observe: observe,
		tables: []uint32{swap.Plan.Original.OID, swap.ShadowOID}, horizon: swap.Horizon, undone: swap.Undone, settle: settleLimit}
}

// Run tries until the swap is committed, or rehearsed, the attempts are used up
// (*AttemptsError), or something makes further attempts pointless.
func (c *Cutover) Run(ctx context.Context) (report Report, err error) {
	conn, err := c.connect(ctx, "cutover")
	if err != nil {
		return report, err
	}
	defer func() {
		closed := pg.Close(ctx, conn)
		if err != nil {
			err = errors.Join(err, closed) // after a committed swap it is of no interest
		}
	}()
	attempts := func() int { return c.config.Attempts }
	err = Retry(ctx, attempts, c.observe, func(attempt int) error {
		if err := c.guard.Await(ctx); err != nil {
			return err
		}
		c.config = c.tune()
		report, err = c.once(ctx, conn, attempt)
		report.Attempts = attempt
		return err
	})
	return report, err
}

// overBudgetError says that the lock was held for as long as it may be.
type overBudgetError struct {
	budget time.Duration
	cause  error
}

func (e *overBudgetError) Error() string {
	return fmt.Sprintf("the lock was given back after %s, its budget: %v", e.budget, e.cause)
}

func (e *overBudgetError) Unwrap() error { return e.cause }

// once makes one attempt: what can be done without the lock, then the swap.
func (c *Cutover) once(ctx context.Context, conn *pgx.Conn, attempt int) (Report, error) {
	if err := c.prepare(ctx, conn); err != nil {
		return Report{}, err
	}
	if err := c.replay.Pause(ctx); err != nil {
		return Report{}, err
	}
	var report Report
	// Asked while replay rests: what it was at work on has left the dirty set, and
	// what came meanwhile is in it.
	err := c.forecast()
	if err == nil && !c.guard.Wanted() {
		err = &notYetError{"the operator has taken it back"}
	}
	if err == nil {
		report, err = c.swap(ctx, conn, attempt)
	}
	if c.undone != nil || err != nil && !errors.Is(err, ErrUnknown) {
		c.replay.Resume() // only while the shadow is certainly still the shadow
	}
	return report, err
}

// forecast puts an attempt off whose replay under the lock would take too long:
// the lock would be given back with nothing done, and the application would have
// waited for nothing.
func (c *Cutover) forecast() error {
	if err := c.pacer.Fits(c.config.MaxHold / replayShare); err != nil {
		return &notYetError{err.Error()}
	}
	return nil
}

// prepare brings the dirty set down and checks what can be checked unlocked.
func (c *Cutover) prepare(ctx context.Context, conn *pgx.Conn) error {
	settling, cancel := context.WithTimeout(ctx, c.settle)
	defer cancel()
	if err := c.replay.Drain(settling); err != nil {
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			return c.late("replay did not catch up within %s%s", c.settle, c.hanging(ctx, conn))
		}
		return err
	}
	took, err := c.fencer.Fence(settling)
	if err != nil && settling.Err() != nil && ctx.Err() == nil {
		return c.late("no fence came out of the stream within %s", c.settle)
	}
	if err != nil {
		return err
	}
	if limit := c.config.MaxHold / fenceShare; took > limit {
		return c.late("a fence takes %s to come out of the stream, more than %s of the hold budget", took.Round(time.Millisecond), limit)
	}
	if err := c.refuseOldSnapshots(ctx, conn); err != nil {
		return err
	}
	if err := ShooAutovacuum(ctx, conn, c.victims()); err != nil {
		return err
	}
	return c.rehearse(ctx, conn)
}

// late is that the stream or replay is behind; where replay is too slow for what
// is dirty, that is the cause, and it says so.
func (c *Cutover) late(format string, args ...any) error {
	reason := fmt.Sprintf(format, args...)
	if err := c.forecast(); err != nil {
		reason += ": " + err.Error()
	}
	return &notYetError{reason}
}

// rehearse runs the queries of the locked part without the lock: what they find
// wrong needs no lock, and what they leave in the session's caches shortens it.
func (c *Cutover) rehearse(ctx context.Context, conn *pgx.Conn) error {
	confined := c.plan.Confined()
	return confined.InTx(ctx, conn, pgx.TxOptions{}, func(tx pgx.Tx) error {
		if err := c.replay.Warm(ctx, tx); err != nil {
			return err
		}
		if err := confined.Leave(ctx, tx); err != nil {
			return err
		}
		return c.guard.Unchanged(ctx, tx)
	})
}
