package migration

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/pgshadow/pgshadow/copier"
	"github.com/pgshadow/pgshadow/cutover"
	"github.com/pgshadow/pgshadow/pkg/keyset"
	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/schema"
	"github.com/pgshadow/pgshadow/pkg/shadow"
	"github.com/pgshadow/pgshadow/pkg/verify"
	"github.com/pgshadow/pgshadow/replication/replay"
)

// copy copies the original in chunks. A TRUNCATE that the stream brings ends it
// with replay.ErrTruncated.
func (m *Migration) copy(ctx context.Context, l *live) error {
	copying, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	truncated := l.AwaitTruncation()
	group, groupCtx := errgroup.WithContext(copying)
	finished := make(chan struct{})
	group.Go(func() error {
		defer close(finished)
		config := copier.Config{Tuning: &tuning{m},
			OnChunk: func(chunk keyset.Range, rows int64, took time.Duration) {
				m.config.Observer.Observe(ChunkCopied{Chunk: chunk.String(), Rows: rows, Duration: took})
			}}
		if m.rehearsal != nil {
			if l.chunks.Load().Rows() == 0 {
				m.rehearsal.forget()
			}
			config.OnRefused = m.rehearsal.refused
		}
		c := copier.New(config, m.run.plan, m.worker, m.run.store, m.throttle, l.chunks.Load())
		return m.rehearsal.judge(c.Run(groupCtx))
	})
	group.Go(func() error {
		select {
		case <-truncated:
			return replay.ErrTruncated
		case <-finished:
			return nil
		}
	})
	return group.Wait()
}

// tuning is how hard the copy works, as the operator has left it.
type tuning struct{ m *Migration }

func (t *tuning) Workers() int { return t.m.current().Copy.Workers }

func (t *tuning) ChunkTime() time.Duration { return t.m.current().Copy.ChunkTime }

func (t *tuning) Changed() <-chan struct{} {
	_, changed := t.m.steering.now()
	return changed
}

// catchUp replays until everything that was committed before it began is in the
// shadow.
func (m *Migration) catchUp(ctx context.Context, l *live) error {
	return l.Drain(ctx)
}

// verify compares the two tables while both are written.
func (m *Migration) verify(ctx context.Context, l *live) error {
	var err error
	m.report.Verify, err = m.compare(ctx, l, m.current().Verify)
	return err
}

func (m *Migration) compare(ctx context.Context, l *live, mode verify.Mode) (verify.Report, error) {
	tuned := &tuning{m}
	v := verify.New(verify.Config{Mode: mode, Workers: tuned.Workers()}, m.run.plan, m.worker, copier.NewCutter(m.run.plan, tuned.ChunkTime), l, m.throttle)
	m.progress.verifying(v)
	report, err := v.Run(ctx)
	return report, shadow.Rejected(err)
}

// cutOver swaps the tables, once the operator lets it.
func (m *Migration) cutOver(ctx context.Context, l *live) error {
	oid, err := schema.Resolve(ctx, m.control, m.run.names.ShadowSchema(), m.run.names.Table)
	if err != nil {
		return fmt.Errorf("finding the shadow table: %w", err)
	}
	horizon, err := m.horizon(ctx)
	if err != nil {
		return err
	}
	guard := &guard{m: m, live: l, result: oid}
	config := func() cutover.Config {
		tuned := m.current().Cutover
		return cutover.Config{LockTimeout: tuned.LockTimeout, MaxHold: tuned.MaxLockHold, Attempts: tuned.Attempts}
	}
	swap := cutover.Swap{Plan: m.run.plan, ShadowOID: oid, Horizon: horizon, Undone: m.undone()}
	c := cutover.New(config, swap, m.swapper, l, l, l, guard, func(event cutover.Event) {
		if event.Reason != "" {
			m.config.Observer.Observe(AttemptFailed(event))
		}
	})
	m.report.Cutover, err = m.rehearsal.swaps(func() (cutover.Report, error) { return c.Run(ctx) })
	var attempts *cutover.AttemptsError
	if errors.As(err, &attempts) {
		return errors.Join(err, m.takeReleaseBack(ctx)) // who releases it again knows of this
	}
	if err != nil {
		return err
	}
	if m.rehearsal != nil {
		m.config.Observer.Observe(Rehearsed{})
		return nil
	}
	m.report.RetiredTable = pg.Readable(m.run.names.RetiredSchema(), m.run.names.Table)
	m.config.Observer.Observe(Swapped{Retired: m.report.RetiredTable})
	return nil
}

// horizon is now: every row of the copy is older.
func (m *Migration) horizon(ctx context.Context) (cutover.Horizon, error) {
	var text string
	var horizon cutover.Horizon
	err := m.control.QueryRow(ctx, "SELECT pg_catalog.pg_current_snapshot()::pg_catalog.text, pg_catalog.clock_timestamp()").Scan(&text, &horizon.At)
	if err != nil {
		return horizon, fmt.Errorf("taking a snapshot: %w", err)
	}
	snapshot, err := pg.ParseSnapshot(text)
	horizon.XID = snapshot.Xmax()
	return horizon, err
}

// guard is what else must hold under the cutover's lock.
type guard struct {
	m      *Migration
	live   *live
	result uint32 // the table that the swap puts in place
}

func (g *guard) Await(ctx context.Context) error {
	if err := g.m.awaitGo(ctx); err != nil {
		return err
	}
	return g.m.awaitRelease(ctx, g.live)
}

func (g *guard) Wanted() bool {
	now, _ := g.m.steering.now()
	released, _ := g.m.released()
	return released && now.Paused == ""
}

func (g *guard) Unchanged(ctx context.Context, tx pgx.Tx) error {
	kept, err := pg.Keep(ctx, tx) // planning these queries takes longer than the rest under the lock
	if err != nil {
		return err
	}
	return g.m.unchanged(ctx, kept)
}

func (g *guard) Compare(ctx context.Context, tx pgx.Tx) error {
	return shadow.Rejected(verify.UnderLock(ctx, tx, g.m.run.plan, g.m.report.Verify.InDoubt))
}

func (g *guard) Record(ctx context.Context, tx pgx.Tx) error {
	return g.m.run.store.EndIn(ctx, tx, string(Done), g.result)
}
