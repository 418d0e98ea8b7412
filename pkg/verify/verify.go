// Package verify owns the comparison of the two tables: counts and row digests,
// chunk by chunk, both in one snapshot, and what becomes of rows that differ.
package verify

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/pgshadow/pgshadow/pkg/keyset"
	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/shadow"
)

const (
	// recheckAt is how many differing keys are gathered before they are rechecked.
	recheckAt = 10_000
	// rounds is how often a key that keeps changing is rechecked before it is left
	// to be compared under the cutover's lock.
	rounds = 10
	// sampleEvery is how many chunks go by for one that is compared in sample mode.
	sampleEvery = 10
)

// Mode says how much is compared.
type Mode string

// The modes of --verify.
const (
	Full   Mode = "full"
	Sample Mode = "sample"
	Off    Mode = "off"
)

// Cutter cuts the original's key space.
type Cutter interface {
	Cut(ctx context.Context, conn *pgx.Conn, within keyset.Range) (*keyset.Key, error)
	Observe(rows int, took time.Duration)
}

// Replay is what verification needs of the live side: a key that differs may
// only be one whose change has not been replayed yet.
type Replay interface {
	// Doubt makes keys dirty, so that they are read again.
	Doubt(keys []keyset.Key)
	// Watch starts recording which of the keys the stream dirties; Touched tells.
	Watch(keys []keyset.Key)
	Touched(key keyset.Key) bool
	// Drain waits until all that was committed before the call is replayed.
	Drain(ctx context.Context) error
	// Fence waits until all that was committed before the call has been received.
	Fence(ctx context.Context) (time.Duration, error)
}

// Throttle is asked before every chunk.
type Throttle interface {
	Wait(ctx context.Context, rows int) error
}

// Report is what was compared. Digests are the XOR over all rows as they were
// when they were last compared.
type Report struct {
	Mode           Mode         `json:"mode"`
	RowsCompared   int64        `json:"rows_compared"`
	OriginalRows   int64        `json:"original_rows"`
	ShadowRows     int64        `json:"shadow_rows"`
	DigestOriginal string       `json:"digest_original"`
	DigestShadow   string       `json:"digest_shadow"`
	Rechecked      int64        `json:"rechecked"`
	Mismatches     int64        `json:"mismatches"`
	InDoubt        []keyset.Key `json:"-"` // to be compared under the lock
}

// MismatchError says that rows differ though every change has been replayed.
type MismatchError struct{ Keys []keyset.Key }

func (e *MismatchError) Error() string {
	shown := e.Keys[:min(len(e.Keys), 5)]
	return fmt.Sprintf("verification found %d rows that differ from the original with no change pending, such as %v", len(e.Keys), shown)
}

// Verifier compares the two tables of a run.
type Verifier struct {
	mode     Mode
	workers  int
	confined pg.Confined
	connect  func(ctx context.Context, purpose string) (*pgx.Conn, error)
	cutter   Cutter
	replay   Replay
	throttle Throttle

	original, shadow side

	cutting sync.Mutex // guards next, cuts and end
	next    *keyset.Key
	cuts    int
	end     bool

	rechecking sync.Mutex // one recheck at a time: there is one watch of keys

	mu         sync.Mutex // guards what follows; nothing is waited for under it
	totals     totals
	suspects   []keyset.Key
	inDoubt    []keyset.Key
	mismatches []keyset.Key
}

// totals is what has been compared on each side.
type totals struct {
	compared     int64
	originalRows int64
	shadowRows   int64
	originalHash int64
	shadowHash   int64
	rechecked    int64
}

// Config of a Verifier.
type Config struct {
	Mode    Mode
	Workers int // sessions that compare side by side
}

// New makes a Verifier for one pass. connect opens sessions of the login role.
func New(config Config, plan *shadow.Plan, connect func(ctx context.Context, purpose string) (*pgx.Conn, error),
	cutter Cutter, replay Replay, throttle Throttle) *Verifier {
	return &Verifier{mode: config.Mode, workers: config.Workers, confined: plan.Confined(), connect: connect, cutter: cutter, replay: replay, throttle: throttle,
		original: originalSide(plan), shadow: shadowSide(plan)}
}

// Run compares and reports. Rows that differ with nothing pending give a
// *MismatchError; rows that keep changing are in the report as in doubt.
func (v *Verifier) Run(ctx context.Context) (Report, error) {
	if v.mode == Off {
		return v.report(), nil
	}
	group, groupCtx := errgroup.WithContext(ctx)
	for worker := range v.workers {
		group.Go(func() error { return v.work(groupCtx, worker) })
	}
	if err := group.Wait(); err != nil {
		return v.report(), err
	}
	if err := v.settle(ctx); err != nil {
		return v.report(), err
	}
	report := v.report()
	if len(v.mismatches) > 0 {
		return report, &MismatchError{Keys: v.mismatches}
	}
	return report, nil
}

// settle rechecks the last suspects on a session of its own.
func (v *Verifier) settle(ctx context.Context) (err error) {
	conn, err := v.connect(ctx, "verify recheck")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pg.Close(ctx, conn)) }()
	return v.recheck(ctx, conn)
}

// Rows counts the rows compared so far, for progress.
func (v *Verifier) Rows() int64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.totals.compared
}

func (v *Verifier) report() Report {
	v.mu.Lock()
	defer v.mu.Unlock()
	t := v.totals
	return Report{Mode: v.mode, RowsCompared: t.compared, OriginalRows: t.originalRows, ShadowRows: t.shadowRows,
		DigestOriginal: fmt.Sprintf("%016x", uint64(t.originalHash)), DigestShadow: fmt.Sprintf("%016x", uint64(t.shadowHash)),
		Rechecked: t.rechecked, Mismatches: int64(len(v.mismatches)), InDoubt: v.inDoubt}
}

func (v *Verifier) work(ctx context.Context, worker int) (err error) {
	conn, err := v.connect(ctx, fmt.Sprintf("verify %d", worker+1))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pg.Close(ctx, conn)) }()
	for {
		if err := v.throttle.Wait(ctx, 0); err != nil {
			return err
		}
		chunk, more, err := v.cut(ctx, conn)
		if err != nil || !more {
			return err
		}
		if chunk == nil {
			continue // passed over in sample mode
		}
		err = v.chunk(ctx, conn, *chunk)
		for pg.IsLockFailure(err) && ctx.Err() == nil {
			err = v.chunk(ctx, conn, *chunk) // somebody holds a table exclusively: the chunk waits for its turn
		}
		if err != nil {
			return err
		}
	}
}

// cut hands out the next chunk; nil where sampling passes it over.
func (v *Verifier) cut(ctx context.Context, conn *pgx.Conn) (chunk *keyset.Range, more bool, err error) {
	v.cutting.Lock()
	defer v.cutting.Unlock()
	if v.end {
		return nil, false, nil
	}
	hi, err := v.cutter.Cut(ctx, conn, keyset.Range{Lo: v.next})
	if err != nil {
		return nil, false, err
	}
	chunk = &keyset.Range{Lo: v.next, Hi: hi}
	if v.mode == Sample && v.cuts%sampleEvery != 0 && hi != nil {
		chunk = nil
	}
	v.next, v.end, v.cuts = hi, hi == nil, v.cuts+1
	return chunk, true, nil
}
