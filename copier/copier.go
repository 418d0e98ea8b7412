package copier

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

// patience is how many times the target time a chunk may take before it is
// stopped and cut smaller: no snapshot is held for longer.
const patience = 20

// Throttle is asked before every chunk.
type Throttle interface {
	// Wait blocks until work may go on. rows is what the last chunk copied.
	Wait(ctx context.Context, rows int) error
}

// Recorder writes a chunk's record in the chunk's own transaction, so that the
// rows and the record are there together or not at all.
type Recorder interface {
	RecordChunk(ctx context.Context, tx pgx.Tx, chunk keyset.Range, rows int64) error
}

// Tuning says how hard a Copier works. Its answers may change while it does.
type Tuning interface {
	// Workers is how many sessions copy side by side, at most MaxWorkers.
	Workers() int
	// ChunkTime is the target time of one chunk.
	ChunkTime() time.Duration
	// Changed returns a channel that is closed when an answer changes.
	Changed() <-chan struct{}
}

// MaxWorkers bounds Tuning.Workers.
const MaxWorkers = 32

// Config of a Copier.
type Config struct {
	Tuning Tuning
	// OnChunk is told of every committed chunk, by several goroutines. May be nil.
	OnChunk func(chunk keyset.Range, rows int64, took time.Duration)
	// OnRefused, where it is set, has the copy leave out the rows that the new schema
	// refuses and go on behind them. It is told of each, by several goroutines; once it
	// wants no more, the copy ends with the last one's *DataError.
	OnRefused func(refused *DataError) (more bool)
}

// Copier copies the original into the shadow.
type Copier struct {
	config   Config
	plan     *shadow.Plan
	confined pg.Confined
	connect  func(ctx context.Context, purpose string) (*pgx.Conn, error)
	recorder Recorder
	throttle Throttle
	chunks   *Chunks
	cutter   *Cutter
	cutting  sync.Mutex

	handedOut chan struct{} // closed once no chunk is left to hand out
	once      sync.Once
}

// New makes a Copier. connect opens sessions of the login role. chunks says where an earlier process left off.
func New(config Config, plan *shadow.Plan, connect func(ctx context.Context, purpose string) (*pgx.Conn, error),
	recorder Recorder, throttle Throttle, chunks *Chunks) *Copier {
	return &Copier{config: config, plan: plan, confined: plan.Confined(), connect: connect, recorder: recorder, throttle: throttle,
		chunks: chunks, cutter: NewCutter(plan, config.Tuning.ChunkTime), handedOut: make(chan struct{})}
}

// DataError says that the new schema refuses a row of the original.
type DataError struct {
	Key   keyset.Key
	Cause error
}

func (e *DataError) Error() string {
	if pgErr := pg.Server(e.Cause); pgErr != nil {
		return fmt.Sprintf("the new schema refuses the row with key %s: %s (SQLSTATE %s) %s", e.Key, pgErr.Message, pgErr.Code, pgErr.Detail)
	}
	return fmt.Sprintf("the new schema refuses the row with key %s: %v", e.Key, e.Cause)
}

func (e *DataError) Unwrap() error { return e.Cause }

// Run copies until the whole key space is committed. It returns a *DataError
// when the new schema refuses a row, unless there is an OnRefused.
func (c *Copier) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for worker := range MaxWorkers {
		group.Go(func() error { return c.work(ctx, worker) })
	}
	return group.Wait()
}

// work copies chunk after chunk while the worker is one of those that are wanted;
// it has a session only then.
func (c *Copier) work(ctx context.Context, worker int) error {
	for {
		changed := c.config.Tuning.Changed()
		if worker < c.config.Tuning.Workers() {
			if done, err := c.copyWhileWanted(ctx, worker); done || err != nil {
				return err
			}
			continue
		}
		select {
		case <-changed:
		case <-c.handedOut:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("copying: %w", ctx.Err())
		}
	}
}

// copyWhileWanted copies until nothing is left (done), or fewer workers are wanted.
func (c *Copier) copyWhileWanted(ctx context.Context, worker int) (done bool, err error) {
	conn, err := c.connect(ctx, fmt.Sprintf("copy %d", worker+1))
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, pg.Close(ctx, conn)) }()
	copied := 0
	for worker < c.config.Tuning.Workers() {
		if err := c.throttle.Wait(ctx, copied); err != nil {
			return false, err
		}
		if err := c.limit(ctx, conn); err != nil {
			return false, err
		}
		chunk, err := c.next(ctx, conn)
		if err != nil {
			return false, err
		}
		if chunk == nil {
			c.once.Do(func() { close(c.handedOut) })
			return true, nil
		}
		rows, err := c.copyChunk(ctx, conn, chunk)
		if err != nil {
			return false, err
		}
		copied = int(rows)
	}
	return false, nil
}

// limit bounds the statements of one chunk.
func (c *Copier) limit(ctx context.Context, conn *pgx.Conn) error {
	limit := max(patience*c.config.Tuning.ChunkTime(), 10*time.Second)
	if _, err := conn.Exec(ctx, "SET statement_timeout = "+pg.Milliseconds(limit)); err != nil {
		return fmt.Errorf("setting the chunk's time limit: %w", err)
	}
	return nil
}

// next hands out a chunk, or nil when none is left to hand out.
func (c *Copier) next(ctx context.Context, conn *pgx.Conn) (*piece, error) {
	c.cutting.Lock()
	defer c.cutting.Unlock()
	if chunk, ok := c.chunks.reuse(); ok {
		return chunk, c.shorten(ctx, conn, chunk, c.cutter.size.size())
	}
	lo, end := c.chunks.frontier()
	if end {
		return nil, nil //nolint:nilnil // nothing left is an answer
	}
	hi, err := c.cutter.Cut(ctx, conn, keyset.Range{Lo: lo})
	if err != nil {
		return nil, err
	}
	return c.chunks.extend(keyset.Range{Lo: lo, Hi: hi}), nil
}

// shorten cuts a chunk that is there already down to n rows.
func (c *Copier) shorten(ctx context.Context, conn *pgx.Conn, chunk *piece, n int) error {
	hi, err := c.cutter.cut(ctx, conn, chunk.Range, n)
	if err != nil || hi == nil || (chunk.Hi != nil && *chunk.Hi == *hi) {
		return err
	}
	c.chunks.split(chunk, *hi)
	return nil
}

func (c *Copier) copyChunk(ctx context.Context, conn *pgx.Conn, chunk *piece) (rows int64, err error) {
	refusals := search{rows: c.cutter.size.size()}
	for {
		began := time.Now()
		rows, err = c.tryChunk(ctx, conn, chunk.Range)
		switch {
		case err == nil:
			c.finished(chunk, rows, time.Since(began))
			return rows, nil
		case pg.Is(err, pg.QueryCanceled) && ctx.Err() == nil:
			c.cutting.Lock()
			err := c.shorten(ctx, conn, chunk, c.cutter.size.halve())
			c.cutting.Unlock()
			if err != nil {
				return 0, err
			}
		case pg.IsLockFailure(err) && ctx.Err() == nil:
			// Somebody holds the original exclusively; the chunk waits for its turn.
		case pg.IsData(err):
			if done, err := c.leaveOut(ctx, conn, chunk, &refusals, err); done || err != nil {
				return 0, err
			}
		default:
			return 0, err
		}
	}
}

func (c *Copier) finished(chunk *piece, rows int64, took time.Duration) {
	c.chunks.finish(chunk, rows)
	c.cutter.Observe(int(rows), took)
	if c.config.OnChunk != nil {
		c.config.OnChunk(chunk.Range, rows, took)
	}
}

func (c *Copier) tryChunk(ctx context.Context, conn *pgx.Conn, chunk keyset.Range) (rows int64, err error) {
	err = c.confined.InTx(ctx, conn, pgx.TxOptions{}, func(tx pgx.Tx) error {
		sql, args := CopySQL(c.plan, chunk)
		var err error
		if rows, err = c.confined.Exec(ctx, tx, sql, args...); err != nil {
			return fmt.Errorf("copying chunk %s: %w", chunk, err)
		}
		// The record is the session role's own; the owner's code has run.
		if err := c.confined.Leave(ctx, tx); err != nil {
			return err
		}
		return c.recorder.RecordChunk(ctx, tx, chunk, rows)
	})
	return rows, err
}

// locate narrows a refused chunk down to one refused row.
func (c *Copier) locate(ctx context.Context, conn *pgx.Conn, chunk keyset.Range, cause error) error {
	for n := max(c.cutter.size.size()/2, 1); ; n = max(n/2, 1) {
		hi, err := c.cutter.cut(ctx, conn, chunk, n)
		if err != nil {
			return errors.Join(cause, err)
		}
		if hi == nil && n == 1 {
			return cause // the row has gone meanwhile
		}
		lower := keyset.Range{Lo: chunk.Lo, Hi: hi}
		if hi == nil {
			lower = chunk
		}
		refused, err := c.refuses(ctx, conn, lower)
		switch {
		case err != nil:
			return errors.Join(cause, err)
		case refused != nil && n == 1:
			return &DataError{Key: *hi, Cause: refused}
		case refused != nil:
			chunk = lower
		default:
			chunk.Lo = hi
			if hi == nil {
				return cause
			}
			n *= 2
		}
	}
}

// refuses tries to copy a range and rolls back. It returns the refusal, if any.
func (c *Copier) refuses(ctx context.Context, conn *pgx.Conn, chunk keyset.Range) (refusal, err error) {
	errTried := errors.New("tried")
	err = pg.InTx(ctx, conn, pgx.TxOptions{}, func(tx pgx.Tx) error {
		sql, args := CopySQL(c.plan, chunk)
		if _, err := c.confined.Exec(ctx, tx, sql, args...); err != nil {
			return err
		}
		if err := c.confined.Leave(ctx, tx); err != nil {
			return err // what is checked at the end of the transaction refuses rows too
		}
		return errTried
	})
	switch {
	case errors.Is(err, errTried):
		return nil, nil
	case pg.IsData(err):
		return err, nil
	default:
		return nil, err
	}
}
