package migration

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/replication"
)

const (
	progressInterval = time.Second
	// watchTicks and driftTicks are how many progress intervals apart the slot, the
	// locks and the original are looked at.
	watchTicks = 5
	driftTicks = 15
)

// WALError says that the slot held back more WAL than it may.
type WALError struct {
	Retained, Limit int64 // bytes
}

func (e *WALError) Error() string {
	return fmt.Sprintf("the slot held back %s of WAL, and may hold back %s (--max-wal-retained, and nine tenths of max_slot_wal_keep_size)",
		readableBytes(e.Retained), readableBytes(e.Limit))
}

// watch tells once a second how far the run is, and sees to it that nothing goes
// wrong unnoticed: the WAL that the slot holds back, the original's definition,
// the table's lock, who keeps the run's sessions waiting, and commits that do not
// become visible.
func (m *Migration) watch(ctx context.Context, l *live) (err error) {
	conn, err := m.db.Connect(ctx, m.run.names.RunID+" watch")
	if err != nil {
		return ignoreCancel(ctx, err)
	}
	defer func() { err = errors.Join(err, pg.Close(ctx, conn)) }()
	ticker := time.NewTicker(progressInterval)
	defer ticker.Stop()
	wal, hidden := &walWatch{m: m}, &hiddenWatch{m: m}
	waits := convergence{window: m.config.convergeWindow}
	for tick := 1; ; tick++ {
		select {
		case <-ctx.Done():
			return nil
		case now := <-ticker.C:
			measured := m.measure(ctx, conn, l, now)
			measured.WALRetained = wal.retained
			m.progress.keep(measured)
			m.config.Observer.Observe(Progressed{Progress: measured})
			m.watchConvergence(&waits, l.draining.Load() > 0, l.backlog(now, measured.LagBytes))
			err = hidden.look(ctx, conn, now, l)
		}
		if tick%watchTicks == 0 {
			err = errors.Join(err, wal.look(ctx, conn), m.stillLocked(ctx, conn), m.nameLockHolders(ctx, conn))
		}
		if err == nil && tick%driftTicks == 0 {
			err = m.lookForChanges(ctx, conn)
		}
		if err != nil {
			return ignoreCancel(ctx, err)
		}
	}
}

func (m *Migration) measure(ctx context.Context, conn *pgx.Conn, l *live, now time.Time) Progress {
	result := m.progress.measure(now, l.chunks.Load().Rows())
	positions := l.stream.Positions()
	result.Confirmed = positions.Confirmed
	result.DirtyKeys, result.InvisibleKeys = l.Len(), l.Invisible()
	result.ChangesReceived = l.stream.Received()
	result.Throttle = m.throttle.Reason()
	var text string
	if err := conn.QueryRow(ctx, "SELECT pg_catalog.pg_current_wal_insert_lsn()::pg_catalog.text").Scan(&text); err == nil {
		if lsn, err := pg.ParseLSN(text); err == nil && lsn > positions.Applied {
			result.LagBytes = int64(lsn - positions.Applied)
		}
	}
	return result
}

// lookForChanges compares the original with the plan. While somebody has it
// exclusively, that has to wait.
func (m *Migration) lookForChanges(ctx context.Context, conn *pgx.Conn) error {
	err := m.unchanged(ctx, conn)
	if ctx.Err() != nil || !pg.IsLockFailure(err) {
		return err
	}
	var holders string
	err = conn.QueryRow(ctx, `SELECT coalesce(pg_catalog.string_agg(pg_catalog.format('pid %s (%s, %s)', a.pid, a.application_name, a.state), ', '), '')
		FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
		WHERE l.relation = $1 AND l.mode = 'AccessExclusiveLock' AND l.granted`, m.run.plan.Original.OID).Scan(&holders)
	if err != nil {
		return fmt.Errorf("looking who has %s exclusively: %w", m.report.Table, err)
	}
	m.config.Observer.Observe(Waiting{For: "a lock, to see whether " + m.report.Table + " was changed", Reason: holders})
	return nil
}

// walWatch keeps an eye on the WAL that the slot holds back (hazard H23).
type walWatch struct {
	m        *Migration
	retained int64
	warned   bool
}

// look warns once at half of the limit, and returns a *WALError at the limit,
// before the server would take the slot away or the disk is full.
func (w *walWatch) look(ctx context.Context, conn *pgx.Conn) error {
	slot, err := replication.LoadSlot(ctx, conn, w.m.run.names.Slot())
	if err != nil || !slot.Exists {
		return err // that the slot is gone is the stream's to find out
	}
	limit := w.m.current().MaxWALRetained
	if slot.KeepSize > 0 {
		limit = min(limit, slot.KeepSize/10*9)
	}
	before := w.retained
	w.retained = slot.Retained
	switch {
	case slot.Lost:
		return nil
	case slot.Retained >= limit && before > 0 && slot.Retained >= before: // a run that was resumed may be catching up
		return &WALError{Retained: slot.Retained, Limit: limit}
	case slot.Retained >= limit/2 && !w.warned:
		w.m.config.Observer.Observe(Noted{Note: fmt.Sprintf("the slot holds back %s of WAL, more than half of the %s at which the run is aborted",
			readableBytes(slot.Retained), readableBytes(limit))})
	}
	w.warned = slot.Retained >= limit/2
	return nil
}

// stillLocked makes sure that the control session, which nothing may have used
// for long, still holds the table's lock.
func (m *Migration) stillLocked(ctx context.Context, conn *pgx.Conn) error {
	holder, err := pg.LockHolder(ctx, conn, m.run.plan.Original.OID)
	if err != nil {
		return err
	}
	if holder != m.recovery.control.PID {
		return fmt.Errorf("keeping the advisory lock of %s: %w", m.report.Table, pg.ErrSessionLost)
	}
	return nil
}

// nameLockHolders tells who has the locks that sessions of the run wait for.
func (m *Migration) nameLockHolders(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, `SELECT a.application_name, pg_catalog.string_agg(pg_catalog.format('pid %s (%s, %s%s)', b.pid, b.application_name, b.state, `+pg.CommitWaits("b")+`), ', ')
		FROM pg_catalog.pg_stat_activity a, LATERAL pg_catalog.unnest(pg_catalog.pg_blocking_pids(a.pid)) AS blocker
		JOIN pg_catalog.pg_stat_activity b ON b.pid = blocker
		WHERE a.datname = pg_catalog.current_database() AND a.wait_event_type = 'Lock' AND pg_catalog.starts_with(a.application_name, $1)
		  AND NOT pg_catalog.starts_with(b.application_name, $1) GROUP BY 1`, pg.ApplicationName(m.run.names.RunID+" "))
	if err != nil {
		return fmt.Errorf("looking who holds locks: %w", err)
	}
	waits, err := pgx.CollectRows(rows, pgx.RowToStructByPos[struct{ Session, Holders string }])
	if err != nil {
		return fmt.Errorf("looking who holds locks: %w", err)
	}
	for _, wait := range waits {
		m.config.Observer.Observe(Waiting{For: "a lock, in session " + wait.Session, Reason: wait.Holders})
	}
	return nil
}

// waits tells the observer what the run waits for, and has status show it until
// waited.
func (m *Migration) waits(what, reason string) {
	m.progress.wait(what + ": " + reason)
	m.config.Observer.Observe(Waiting{For: what, Reason: reason})
}

func (m *Migration) waited() { m.progress.wait("") }

// whileNamed does work that waits for transactions of others. look, which tells of them,
// is called every so often; it has the control session to itself for that time.
func (m *Migration) whileNamed(ctx context.Context, look func(ctx context.Context) error, work func() error) error {
	watching, stop := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		m.lookOn(watching, look)
	}()
	err := work()
	stop()
	<-watched
	m.waited()
	return err
}

func (m *Migration) lookOn(ctx context.Context, look func(ctx context.Context) error) {
	ticker := time.NewTicker(blockerPoll)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		asking, cancel := pg.Cleanup(ctx) // a cancelled query must not reach the control session
		err := look(asking)
		cancel()
		if err != nil {
			m.config.Observer.Observe(Noted{Note: err.Error()})
		}
	}
}
