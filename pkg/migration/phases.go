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
		config := copier.Config{Workers: m.config.Copy.Workers, ChunkTime: m.config.Copy.ChunkTime,
			OnChunk: func(chunk keyset.Range, rows int64, took time.Duration) {
				m.config.Observer.Observe(ChunkCopied{Chunk: chunk.String(), Rows: rows, Duration: took})
			}}
		c := copier.New(config, m.run.plan, m.asOwner, m.run.store, m.throttle, l.chunks.Load())
		return c.Run(groupCtx)
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

// index builds the secondary indexes and constraints side by side, then the
// marks, and has the planner's statistics and the visibility map made.
func (m *Migration) index(ctx context.Context, l *live) error {
	todo, err := m.missingBuilds(ctx)
	if err != nil {
		return err
	}
	for len(todo) > 0 {
		wave := todo[:min(len(todo), m.config.Copy.IndexWorkers)]
		todo = todo[len(wave):]
		if err := m.buildWave(ctx, l, wave); err != nil {
			return err
		}
		if err := l.Drain(ctx); err != nil {
			return err
		}
	}
	return m.finishShadow(ctx)
}

// missingBuilds leaves out what an earlier process of the run has built.
func (m *Migration) missingBuilds(ctx context.Context) ([]shadow.IndexBuild, error) {
	oid, err := schema.Resolve(ctx, m.control, m.run.names.ShadowSchema(), m.run.names.Table)
	if err != nil {
		return nil, fmt.Errorf("finding the shadow table: %w", err)
	}
	facts, err := schema.Load(ctx, m.control, oid)
	if err != nil {
		return nil, err
	}
	there := map[string]bool{}
	for _, index := range facts.Indexes {
		there[index.Name] = index.Usable
	}
	var todo []shadow.IndexBuild
	for _, build := range m.run.plan.Builds {
		if !there[build.Name] {
			todo = append(todo, build)
		}
	}
	return todo, nil
}

// buildWave builds some indexes at once. CREATE INDEX keeps writers off the
// shadow, so replay rests meanwhile; the stream goes on being read.
func (m *Migration) buildWave(ctx context.Context, l *live, wave []shadow.IndexBuild) error {
	if err := l.Pause(ctx); err != nil {
		return err
	}
	defer l.Resume()
	conflicts := make([]bool, len(wave))
	group, groupCtx := errgroup.WithContext(ctx)
	for i, build := range wave {
		group.Go(func() error {
			err := m.buildIndex(groupCtx, build)
			conflicts[i] = pg.IsUniqueConflict(err)
			if conflicts[i] {
				return nil
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for i, conflicted := range conflicts {
		if !conflicted {
			continue
		}
		// The shadow's rows were read at different moments; as of one snapshot
		// the duplicates may not exist.
		err := l.Exact(ctx, func(tx pgx.Tx) error { return m.execBuild(ctx, tx, wave[i]) })
		if err != nil {
			return fmt.Errorf("building index %q: %w", wave[i].Name, err)
		}
	}
	return nil
}

func (m *Migration) buildIndex(ctx context.Context, build shadow.IndexBuild) (err error) {
	conn, err := m.asOwner(ctx, "index "+build.Name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pg.Close(ctx, conn)) }()
	err = pg.InTx(ctx, conn, pgx.TxOptions{}, func(tx pgx.Tx) error { return m.execBuild(ctx, tx, build) })
	if err != nil {
		return fmt.Errorf("building index %q: %w", build.Name, err)
	}
	return nil
}

func (m *Migration) execBuild(ctx context.Context, tx pgx.Tx, build shadow.IndexBuild) error {
	for _, statement := range build.Statements {
		if err := pg.ExecAs(ctx, tx, statement.Role, statement.Settings, statement.SQL); err != nil {
			return err
		}
	}
	return nil
}

// finishShadow sets the marks on the indexes, gathers statistics and sets the
// visibility map, so that the new table does not start slow.
func (m *Migration) finishShadow(ctx context.Context) (err error) {
	conn, err := m.asOwner(ctx, "analyze")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pg.Close(ctx, conn)) }()
	err = pg.InTx(ctx, conn, pgx.TxOptions{}, func(tx pgx.Tx) error { return execAll(ctx, tx, m.run.plan.Marks) })
	if err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, "VACUUM (ANALYZE) "+m.run.names.Shadow()); err != nil {
		return fmt.Errorf("vacuuming and analyzing the shadow: %w", err)
	}
	return nil
}

// catchUp replays until everything that was committed before it began is in the
// shadow.
func (m *Migration) catchUp(ctx context.Context, l *live) error {
	return l.Drain(ctx)
}

// verify compares the two tables while both are written.
func (m *Migration) verify(ctx context.Context, l *live) error {
	mode := m.config.Verify
	if m.run.heal {
		mode = verify.Full
	}
	v := verify.New(verify.Config{Mode: mode, Workers: m.config.Copy.Workers}, m.run.plan, m.asOwner,
		copier.NewCutter(m.run.plan, m.config.Copy.ChunkTime), l, m.throttle)
	m.progress.verifying(v)
	report, err := v.Run(ctx)
	m.report.Verify = report
	if err == nil {
		m.run.heal = false
	}
	return err
}

// cutOver swaps the tables.
func (m *Migration) cutOver(ctx context.Context, l *live) error {
	oid, err := schema.Resolve(ctx, m.control, m.run.names.ShadowSchema(), m.run.names.Table)
	if err != nil {
		return fmt.Errorf("finding the shadow table: %w", err)
	}
	horizon, err := m.horizon(ctx)
	if err != nil {
		return err
	}
	config := cutover.Config{LockTimeout: m.config.Cutover.LockTimeout, MaxHold: m.config.Cutover.MaxLockHold, Attempts: m.config.Cutover.Attempts}
	c := cutover.New(config, cutover.Swap{Plan: m.run.plan, ShadowOID: oid, Horizon: horizon}, m.asLogin, l, l, &guard{m}, func(event cutover.Event) {
		if event.Reason != "" {
			m.config.Observer.Observe(AttemptFailed(event))
		}
	})
	m.report.Cutover, err = c.Run(ctx)
	if err != nil {
		return err
	}
	m.report.RetiredTable = m.run.names.RetiredSchema() + "." + m.run.names.Table
	m.config.Observer.Observe(Swapped{Retired: m.report.RetiredTable})
	return nil
}

// horizon is a transaction id that every row of the copy is older than.
func (m *Migration) horizon(ctx context.Context) (uint64, error) {
	var text string
	if err := m.control.QueryRow(ctx, "SELECT pg_catalog.pg_current_snapshot()::pg_catalog.text").Scan(&text); err != nil {
		return 0, fmt.Errorf("taking a snapshot: %w", err)
	}
	snapshot, err := pg.ParseSnapshot(text)
	return snapshot.Xmax(), err
}

// guard is what else must hold under the cutover's lock.
type guard struct{ m *Migration }

func (g *guard) Unchanged(ctx context.Context, tx pgx.Tx) error { return g.m.unchanged(ctx, tx) }

func (g *guard) Compare(ctx context.Context, tx pgx.Tx) error {
	return verify.UnderLock(ctx, tx, g.m.run.plan, g.m.report.Verify.InDoubt)
}

func (g *guard) Record(ctx context.Context, tx pgx.Tx) error {
	return g.m.run.store.EndIn(ctx, tx, string(Done))
}
