package migration

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/schema"
	"github.com/pgshadow/pgshadow/pkg/shadow"
	"github.com/pgshadow/pgshadow/replication/replay"
)

// index builds the secondary indexes and constraints, then the marks, and has
// the planner's statistics and the visibility map made. CREATE INDEX keeps
// writers off the shadow, so replay rests during each wave; the stream goes on
// being read, and what came meanwhile is replayed before the next.
func (m *Migration) index(ctx context.Context, l *live) error {
	if m.run.heal {
		if err := m.heal(ctx, l); err != nil {
			return err
		}
	}
	create, attach, err := m.missingBuilds(ctx)
	if err != nil {
		return err
	}
	for len(create) > 0 {
		if err := m.awaitGo(ctx); err != nil {
			return err
		}
		wave := create[:min(len(create), m.current().Copy.IndexWorkers)]
		create = create[len(wave):]
		if err := m.buildWave(ctx, l, wave); err != nil {
			return err
		}
	}
	for _, build := range attach {
		if err := m.awaitGo(ctx); err != nil {
			return err
		}
		if err := m.attach(ctx, l, build); err != nil {
			return err
		}
	}
	if err := l.Drain(ctx); err != nil {
		return err
	}
	return m.finishShadow(ctx)
}

// missingBuilds leaves out what an earlier process of the run has done.
func (m *Migration) missingBuilds(ctx context.Context) (create, attach []shadow.IndexBuild, err error) {
	oid, err := schema.Resolve(ctx, m.control, m.run.names.ShadowSchema(), m.run.names.Table)
	if err != nil {
		return nil, nil, fmt.Errorf("finding the shadow table: %w", err)
	}
	facts, err := schema.Load(ctx, m.control, oid)
	if err != nil {
		return nil, nil, err
	}
	there := map[string]bool{}
	for _, index := range facts.Indexes {
		there[index.Name] = index.Usable
	}
	attached := map[string]bool{}
	for _, constraint := range facts.Constraints {
		attached[constraint.Name] = true
	}
	for _, build := range m.run.plan.Builds {
		if len(build.Create) > 0 && !there[build.Name] {
			create = append(create, build)
		}
		if len(build.Attach) > 0 && (build.Constraint == "" || !attached[build.Constraint]) {
			attach = append(attach, build)
		}
	}
	return create, attach, nil
}

// buildWave creates some indexes side by side.
func (m *Migration) buildWave(ctx context.Context, l *live, wave []shadow.IndexBuild) error {
	conflicts := make([]bool, len(wave))
	err := whilePaused(ctx, l, func() error {
		group, groupCtx := errgroup.WithContext(ctx)
		for i, build := range wave {
			group.Go(func() error {
				err := m.runBuild(groupCtx, build.Name, build.Create)
				conflicts[i] = pg.IsUniqueConflict(err)
				if conflicts[i] {
					return nil
				}
				return err
			})
		}
		return group.Wait()
	})
	if err != nil {
		return err
	}
	for i, conflicted := range conflicts {
		if conflicted {
			if err := m.buildExactly(ctx, l, wave[i].Name, wave[i].Create); err != nil {
				return err
			}
		}
	}
	return l.Drain(ctx)
}

// attach does what takes the shadow's exclusive lock, one at a time.
func (m *Migration) attach(ctx context.Context, l *live, build shadow.IndexBuild) error {
	err := whilePaused(ctx, l, func() error { return m.runBuild(ctx, build.Name, build.Attach) })
	if pg.IsUniqueConflict(err) {
		return m.buildExactly(ctx, l, build.Name, build.Attach)
	}
	return err
}

func whilePaused(ctx context.Context, l *live, work func() error) error {
	if err := l.Pause(ctx); err != nil {
		return err
	}
	defer l.Resume()
	return work()
}

// buildExactly builds an index that duplicates stood in the way of. The shadow's
// rows were read at different moments; as of one snapshot of the original the
// duplicates may not exist. Those that do are the change's to answer for.
func (m *Migration) buildExactly(ctx context.Context, l *live, name string, statements []shadow.Statement) error {
	for {
		if err := l.Drain(ctx); err != nil {
			return err
		}
		err := whilePaused(ctx, l, func() error {
			return l.Exact(ctx, func(tx pgx.Tx) error { return m.execBuild(ctx, tx, statements) })
		})
		switch {
		case errors.Is(err, replay.ErrFenceLate):
			m.config.Observer.Observe(Waiting{For: fmt.Sprintf("replay to catch up before index %q is built", name), Reason: err.Error()})
		case err != nil:
			return fmt.Errorf("building index %q: %w", name, err)
		default:
			return nil
		}
	}
}

func (m *Migration) runBuild(ctx context.Context, name string, statements []shadow.Statement) (err error) {
	conn, err := m.worker(ctx, "index "+name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pg.Close(ctx, conn)) }()
	err = m.run.plan.Confined().InTx(ctx, conn, pgx.TxOptions{}, func(tx pgx.Tx) error { return m.execBuild(ctx, tx, statements) })
	if err != nil {
		return shadow.Rejected(fmt.Errorf("building index %q: %w", name, err))
	}
	return nil
}

func (m *Migration) execBuild(ctx context.Context, tx pgx.Tx, statements []shadow.Statement) error {
	confined := m.run.plan.Confined()
	for _, statement := range statements {
		if err := confined.ExecAs(ctx, tx, statement.Role, statement.Settings, statement.SQL); err != nil {
			return err
		}
	}
	return nil
}

// finishShadow sets the marks on the indexes, gathers statistics and sets the
// visibility map, so that the new table does not start slow.
func (m *Migration) finishShadow(ctx context.Context) (err error) {
	if err := m.runBuild(ctx, "marks", m.run.plan.Marks); err != nil {
		return err
	}
	conn, err := m.asOwner(ctx, "analyze")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pg.Close(ctx, conn)) }()
	if _, err := conn.Exec(ctx, "VACUUM (ANALYZE) "+m.run.names.Shadow()); err != nil {
		return shadow.Rejected(fmt.Errorf("vacuuming and analyzing the shadow: %w", err))
	}
	return nil
}
