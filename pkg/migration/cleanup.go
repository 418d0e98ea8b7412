package migration

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pgshadow/pgshadow/pkg/checkpoint"
	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/shadow"
	"github.com/pgshadow/pgshadow/replication"
)

// tidy is the last phase. The swap is committed, so the run is done whatever
// becomes of this: what could not be removed is a warning, and pgshadow cleanup
// will list it. When ctx ends, only what may take long is left undone.
func (m *Migration) tidy(ctx context.Context) {
	err := m.onControl(context.WithoutCancel(ctx), func(ctx context.Context) error { return m.enter(ctx, CleanUp, m.cleanUp) })
	if err != nil {
		m.report.Warnings = append(m.report.Warnings, fmt.Sprintf("the change is done, but something is left behind; pgshadow cleanup removes it: %v", err))
		return
	}
	m.complete(ctx)
	if ctx.Err() != nil && len(m.run.plan.Completions) > 0 {
		return // the same command completes it
	}
	err = m.onControl(context.WithoutCancel(ctx), func(ctx context.Context) error {
		return errors.Join(m.dropCode(ctx, m.run.names), m.setPhase(ctx, Ended.String()))
	})
	if err != nil {
		m.report.Warnings = append(m.report.Warnings, err.Error())
	}
}

// cleanUp removes what only the run needed, but for what confines the owner's code
// in complete. The swap is committed: whatever fails here is listed by pgshadow
// cleanup.
func (m *Migration) cleanUp(ctx context.Context) error {
	ctx, cancel := pg.Cleanup(ctx)
	defer cancel()
	// The shadow has moved out: its schema is empty, and RESTRICT makes sure of it.
	err := errors.Join(m.dropReplication(ctx, m.run.names), m.dropSource(ctx, m.run.names), m.dropSchema(ctx, m.run.names.ShadowSchema(), "RESTRICT"))
	if m.current().Retire == Drop {
		if dropped := m.dropRetired(ctx, m.run.names); dropped != nil {
			err = errors.Join(err, dropped)
		} else {
			m.report.RetiredTable = ""
		}
	}
	return err
}

// abort removes everything that the run made. The original is untouched.
func (m *Migration) abort(ctx context.Context, cause error) error {
	if m.run.store == nil {
		return nil
	}
	err := m.takeBack(ctx, fmt.Sprintf("%s: %v", outcomeOf(cause), cause))
	m.removed = err == nil
	return err
}

// onControl does work that must not be left undone because the control session is
// lost: it gets another one, and the table's lock, and does the work again. What
// the work has done already must do no harm.
func (m *Migration) onControl(ctx context.Context, work func(ctx context.Context) error) error {
	deadline := time.Now().Add(controlLimit)
	for {
		err := work(ctx)
		if !pg.IsConnection(err) || time.Now().After(deadline) {
			return err
		}
		if err := pause(ctx, reconnectMin); err != nil {
			return err
		}
		if lost := m.renewControl(ctx); lost != nil {
			m.config.Observer.Observe(Waiting{For: "another control session", Reason: lost.Error()})
		}
	}
}

// controlLimit bounds how long onControl tries.
const controlLimit = time.Minute

// renewControl puts another control session in the place of a lost one.
func (m *Migration) renewControl(ctx context.Context) error {
	_ = pg.Close(ctx, m.control) // it is broken
	conn, err := m.db.Connect(ctx, "control")
	if err != nil {
		return err // the lost one stays, so that the next use of it says so
	}
	m.control, m.recovery.lost = conn, m.recovery.control
	held, holder, err := pg.TryLock(ctx, conn, m.target.table.OID)
	if err != nil || !held {
		// Without the lock the session is of no use: the next use of it says so.
		return errors.Join(err, m.refuseSecond(ctx, m.target.table.OID, holder), pg.Close(ctx, conn))
	}
	m.recovery.control, err = pg.LoadBackend(ctx, conn, holder)
	return err
}

// remove drops every artifact of an unfinished run and closes its record with an
// outcome. Before the swap the retired schema is empty, so RESTRICT guards what it
// holds after.
func (m *Migration) remove(ctx context.Context, names shadow.Names, outcome, detail string) error {
	kept, err := m.undoNative(ctx, names) // which waits for others
	if err != nil {
		return err
	}
	detail = strings.Join(append([]string{detail}, kept...), "; ")
	ctx, cancel := pg.Cleanup(ctx)
	defer cancel()
	store := checkpoint.NewStore(names.RunID)
	open, err := store.Claim(ctx, m.control)
	if err != nil {
		return err
	}
	if earlier, ended, err := store.LoadEnd(ctx, m.control); !open && err == nil && ended && earlier == outcome {
		return nil // it was removed, and the connection lost before that was known
	}
	if !open {
		return fmt.Errorf("removing the artifacts of run %s: it has ended meanwhile; see pgshadow cleanup --dry-run", names.RunID)
	}
	if err := m.endStale(ctx, names.RunID); err != nil {
		return err
	}
	err = errors.Join(
		m.dropReplication(ctx, names),
		m.dropSource(ctx, names),
		m.dropCode(ctx, names),
		m.dropSchema(ctx, names.RetiredSchema(), "RESTRICT"),
		m.dropSchema(ctx, names.ShadowSchema(), "CASCADE"),
	)
	if err != nil {
		return fmt.Errorf("removing the artifacts of run %s: %w", names.RunID, err)
	}
	return store.End(ctx, m.control, outcome, detail)
}

func (m *Migration) dropReplication(ctx context.Context, names shadow.Names) error {
	return errors.Join(
		replication.DropSlot(ctx, m.control, names.Slot()),
		replication.DropPublication(ctx, m.control, names.Publication()),
	)
}

func (m *Migration) dropSchema(ctx context.Context, name, behavior string) error {
	const owner = "SELECT pg_catalog.pg_get_userbyid(nspowner) FROM pg_catalog.pg_namespace WHERE nspname = $1"
	if err := pg.DropAsOwner(ctx, m.control, owner, name, "DROP SCHEMA IF EXISTS "+pg.Ident(name)+" "+behavior); err != nil {
		return fmt.Errorf("dropping schema %q: %w", name, err)
	}
	return nil
}
