package migration

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/pgshadow/pgshadow/copier"
	"github.com/pgshadow/pgshadow/cutover"
	"github.com/pgshadow/pgshadow/pkg/keyset"
	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/schema"
	"github.com/pgshadow/pgshadow/replication"
	"github.com/pgshadow/pgshadow/replication/replay"
)

const (
	// checkpointInterval is how often what has been replayed is made durable and
	// the slot is told.
	checkpointInterval = 2 * time.Second
	// workerLockTimeout is how long copy, replay and index builds wait for a lock
	// on the two tables. They take none that an application would wait behind.
	workerLockTimeout = "5000"
)

// live is what flows while the phases run: the stream, the dirty set, its
// replay, and the state of the copy.
type live struct {
	*replay.Set
	*replay.Replayer
	stream   *replication.Stream
	chunks   atomic.Pointer[copier.Chunks]
	draining atomic.Int32 // calls of Drain under way
}

// Watermarks implements replay.Watermarks over the copy of the moment.
func (l *live) Watermarks() (low, high keyset.Watermark) { return l.chunks.Load().Watermarks() }

// Fence emits a fence and waits until it has come out of the stream.
func (l *live) Fence(ctx context.Context) (time.Duration, error) { return l.stream.Fence(ctx) }

// Locked tells whether a backend of the stream's server has a table exclusively.
func (l *live) Locked(ctx context.Context, backend int32, table uint32) (bool, error) {
	return l.stream.Locked(ctx, backend, table)
}

// whileStreaming runs work while the stream is read, replayed and confirmed. It
// is the one place that starts those and joins them. When one of them fails, work
// is cancelled and their error is the one returned.
func (m *Migration) whileStreaming(ctx context.Context, work func(ctx context.Context, l *live) error) error {
	flowing, stop := context.WithCancel(ctx)
	defer stop()
	l, err := m.open(flowing)
	if err != nil {
		return err
	}
	m.recovery.streaming = time.Now()
	group, groupCtx := errgroup.WithContext(flowing)
	group.Go(func() error { return l.stream.Run(groupCtx) })
	group.Go(func() error { return l.Run(groupCtx) })
	group.Go(func() error { return m.checkpoints(groupCtx, l) })
	group.Go(func() error { return m.throttle.Run(groupCtx) })
	group.Go(func() error { return m.watch(groupCtx, l) })
	worked := work(groupCtx, l)
	stop()
	flowed := errors.Join(group.Wait(), l.Close(ctx))
	m.report.ChangesReceived += l.stream.Received()
	m.report.KeysReplayed += l.Replayed()
	m.report.RowsCopied = l.chunks.Load().Rows()
	switch {
	case errors.Is(worked, cutover.ErrUnknown):
		return errors.Join(worked, flowed)
	case flowed != nil && (errors.Is(worked, context.Canceled) || pg.Is(worked, pg.QueryCanceled)):
		return flowed // it is why work was cancelled, here or on the server
	case worked != nil:
		return errors.Join(worked, flowed)
	case flowed != nil:
		// The swap is committed, or work would not have succeeded: what broke
		// afterwards is worth a note and no more.
		m.config.Observer.Observe(Noted{Note: flowed.Error()})
	}
	return nil
}

// open connects the sessions that flow, from the slot's confirmed position.
func (m *Migration) open(ctx context.Context) (*live, error) {
	slot, err := replication.LoadSlot(ctx, m.control, m.run.names.Slot())
	if err != nil {
		return nil, err
	}
	if !slot.Exists || slot.Lost {
		return nil, fmt.Errorf("streaming from slot %q: %w", m.run.names.Slot(), errSlotGone)
	}
	committed, err := m.run.store.Chunks(ctx, m.control, m.run.plan.Key)
	if err != nil {
		return nil, err
	}
	done := make([]copier.Done, len(committed))
	for i, chunk := range committed {
		done[i] = copier.Done(chunk)
	}
	l := &live{Set: replay.NewSet(m.config.Copy.DirtyMemory)}
	l.chunks.Store(copier.NewChunks(done))

	conn, err := m.worker(ctx, "replay")
	if err != nil {
		return nil, err
	}
	l.stream, err = replication.Open(ctx, m.db, m.streamConfig(slot.Confirmed), l.Set)
	if err != nil {
		if pg.Is(err, pg.UndefinedObject, pg.NotInPrerequisiteState) {
			err = fmt.Errorf("%w: %w", errSlotGone, err)
		}
		return nil, errors.Join(err, pg.Close(ctx, conn))
	}
	l.Replayer = replay.New(m.run.plan, l.Set, conn, l, l.stream)
	return l, nil
}

func (m *Migration) streamConfig(start pg.LSN) replication.Config {
	config := replication.Config{Slot: m.run.names.Slot(), Publication: m.run.names.Publication(), RunID: m.run.names.RunID,
		Prefix: m.run.names.MessagePrefix(), Schema: m.run.plan.Original.Schema, Table: m.run.plan.Original.Name, Key: m.run.plan.Key, Start: start}
	for _, column := range m.target.table.Columns {
		if column.Generated == "" || column.Generated == "s" && m.publishesGenerated() {
			config.Columns = append(config.Columns, replication.StreamColumn{Name: column.Name, Type: column.TypeOID, Typmod: column.Typmod})
		}
	}
	return config
}

// publishesGenerated tells whether the publication must have the stored generated
// columns too. From PostgreSQL 18 on the server refuses every UPDATE and DELETE of
// the application on a published table whose replica identity, the full row, holds
// generated columns that are not published.
func (m *Migration) publishesGenerated() bool {
	table := m.target.table
	return m.target.server.Version >= 180000 && table.Storage.ReplicaIdentity == "f" && table.HasGenerated("s")
}

// byKey are the settings of sessions that read and write rows by key: their
// queries take the index on the key, whatever the planner believes of a table
// that is being filled.
var byKey = map[string]string{
	"lock_timeout": workerLockTimeout, "max_parallel_workers_per_gather": "0",
	"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off",
}

// worker opens a session that copies, replays, compares or builds. What may run
// the owner's code goes through the plan's Confined (INV-6). Its commits need not
// be durable at once: a checkpoint makes them so before the slot is told (INV-4).
func (m *Migration) worker(ctx context.Context, purpose string) (*pgx.Conn, error) {
	return m.session(ctx, purpose, map[string]string{"synchronous_commit": "off"})
}

// asOwner opens a worker that runs as the table's owner. It is for VACUUM, which
// no function can run: the server itself confines the owner's code in it (INV-6).
func (m *Migration) asOwner(ctx context.Context, purpose string) (*pgx.Conn, error) {
	conn, err := m.worker(ctx, purpose)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Exec(ctx, "SET search_path = "+m.run.plan.SearchPath); err != nil {
		return nil, errors.Join(fmt.Errorf("pinning search_path: %w", err), pg.Close(ctx, conn))
	}
	if _, err := conn.Exec(ctx, "SET ROLE "+pg.Ident(m.run.plan.Owner)); err != nil {
		return nil, errors.Join(fmt.Errorf("taking the role of owner %s: %w", m.run.plan.Owner, err), pg.Close(ctx, conn))
	}
	return conn, nil
}

// plansServe has the plans that a session keeps (pg.Keep) serve for whatever they are
// asked, so that none is made under a lock.
var plansServe = map[string]string{"plan_cache_mode": "force_generic_plan"}

// swapper opens the cutover's session.
func (m *Migration) swapper(ctx context.Context, purpose string) (*pgx.Conn, error) {
	return m.session(ctx, purpose, plansServe)
}

// session opens a session in the login role.
func (m *Migration) session(ctx context.Context, purpose string, settings map[string]string) (*pgx.Conn, error) {
	return m.db.With(byKey).With(settings).Connect(ctx, m.run.names.RunID+" "+purpose)
}

// checkpoints makes what has been replayed durable, and then tells the slot
// (INV-4): the position is taken before the commit that covers it.
func (m *Migration) checkpoints(ctx context.Context, l *live) (err error) {
	conn, err := m.db.Connect(ctx, m.run.names.RunID+" checkpoint")
	if err != nil {
		return ignoreCancel(ctx, err)
	}
	defer func() { err = errors.Join(err, pg.Close(ctx, conn)) }()
	ticker := time.NewTicker(checkpointInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		applied := l.stream.Applied()
		if err := m.run.store.Touch(ctx, conn, applied, m.progress.now()); err != nil {
			return ignoreCancel(ctx, err)
		}
		l.stream.Confirm(applied)
	}
}

// ignoreCancel drops an error that the end of ctx has brought about.
func ignoreCancel(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// restartCopy answers a TRUNCATE of the original: the shadow is emptied, what was
// built is taken off, and the copy begins again (design section 4).
func (m *Migration) restartCopy(ctx context.Context, l *live) error {
	truncated := l.Truncated()
	if truncated == nil {
		return nil
	}
	m.config.Observer.Observe(Restarted{Reason: "the original was truncated"})
	if err := l.Pause(ctx); err != nil {
		return err
	}
	defer l.Resume()
	err := pg.InTx(ctx, m.control, pgx.TxOptions{}, func(tx pgx.Tx) error {
		if err := m.unbuild(ctx, tx); err != nil {
			return err
		}
		if err := pg.ExecAs(ctx, tx, m.run.plan.Owner, nil, "TRUNCATE ONLY "+m.run.names.Shadow()); err != nil {
			return fmt.Errorf("emptying the shadow: %w", err)
		}
		return m.run.store.ForgetChunks(ctx, tx)
	})
	if err != nil {
		return err
	}
	l.chunks.Store(copier.NewChunks(nil))
	l.ClearTruncated(truncated)
	return nil
}

// unbuild takes off the shadow what phase index builds, as far as it is there.
func (m *Migration) unbuild(ctx context.Context, tx pgx.Tx) error {
	for _, build := range m.run.plan.Builds {
		if err := pg.ExecAs(ctx, tx, m.run.plan.Owner, nil, unbuildSQL(m.run.names.Shadow(), m.run.names.ShadowSchema(), build.Name)); err != nil {
			return fmt.Errorf("taking index %q off the shadow: %w", build.Name, err)
		}
	}
	return nil
}

func unbuildSQL(table, schemaName, index string) string {
	return fmt.Sprintf("ALTER TABLE %s DROP CONSTRAINT IF EXISTS %s; DROP INDEX IF EXISTS %s", table, pg.Ident(index), pg.Ident(schemaName, index))
}

// unchanged compares the original's catalog facts, and what hangs on it, with
// what was planned for. Its error says what differs.
func (m *Migration) unchanged(ctx context.Context, q schema.Querier) error {
	original := m.run.plan.Original
	if err := sameFacts(ctx, q, original); err != nil {
		return err
	}
	attached, err := schema.LoadObstacles(ctx, q, original.OID)
	if err != nil {
		return err
	}
	if attached = m.inTheWay(attached); len(attached) > 0 {
		return fmt.Errorf("%w: %s %s has been attached to it", replication.ErrChanged, attached[0].Check, attached[0].Object)
	}
	return nil
}

// sameFacts compares a table with its facts from before.
func sameFacts(ctx context.Context, q schema.Querier, original *schema.Table) error {
	facts, err := schema.Load(ctx, q, original.OID)
	if errors.Is(err, schema.ErrNoTable) {
		return replication.Changed(original.String(), []string{"the table was dropped"})
	}
	if err != nil {
		return err
	}
	if facts.Fingerprint() != original.Fingerprint() {
		return replication.Changed(original.String(), original.Differences(facts))
	}
	return nil
}
