package migration

import (
	"context"
	"errors"
	"fmt"

	"github.com/pgshadow/pgshadow/pkg/checkpoint"
	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/shadow"
	"github.com/pgshadow/pgshadow/replication"
)

// tidy is the last phase. The swap is committed, so the run is done whatever
// becomes of this: what could not be removed is a warning, and pgshadow cleanup
// will list it.
func (m *Migration) tidy(ctx context.Context) {
	if err := m.enter(ctx, CleanUp, m.cleanUp); err != nil {
		m.report.Warnings = append(m.report.Warnings, fmt.Sprintf("the change is done, but something is left behind; pgshadow cleanup removes it: %v", err))
		return
	}
	if err := m.run.store.SetPhase(ctx, m.control, Ended.String(), m.owner()); err != nil {
		m.report.Warnings = append(m.report.Warnings, err.Error())
	}
}

// cleanUp removes what only the run needed. The swap is committed: whatever
// fails here is listed by pgshadow cleanup.
func (m *Migration) cleanUp(ctx context.Context) error {
	ctx, cancel := pg.Cleanup(ctx)
	defer cancel()
	// The shadow has moved out: its schema is empty, and RESTRICT makes sure of it.
	err := errors.Join(m.dropReplication(ctx, m.run.names), m.dropSchema(ctx, m.run.names.ShadowSchema(), "RESTRICT"))
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
	return m.remove(ctx, m.run.names, fmt.Sprintf("%s: %v", Aborted, cause))
}

// remove drops every artifact of an unfinished run and closes its record. Before
// the swap the retired schema is empty, so RESTRICT guards what it holds after.
func (m *Migration) remove(ctx context.Context, names shadow.Names, detail string) error {
	ctx, cancel := pg.Cleanup(ctx)
	defer cancel()
	open, err := checkpoint.NewStore(names.RunID).Claim(ctx, m.control)
	if err != nil {
		return err
	}
	if !open {
		return fmt.Errorf("removing the artifacts of run %s: it has ended meanwhile; see pgshadow cleanup --dry-run", names.RunID)
	}
	if err := m.endStale(ctx, names.RunID); err != nil {
		return err
	}
	err = errors.Join(
		m.dropReplication(ctx, names),
		m.dropSchema(ctx, names.RetiredSchema(), "RESTRICT"),
		m.dropSchema(ctx, names.ShadowSchema(), "CASCADE"),
	)
	if err != nil {
		return fmt.Errorf("removing the artifacts of run %s: %w", names.RunID, err)
	}
	return checkpoint.NewStore(names.RunID).End(ctx, m.control, string(Aborted), detail)
}

func (m *Migration) dropReplication(ctx context.Context, names shadow.Names) error {
	return errors.Join(
		replication.DropSlot(ctx, m.control, names.Slot()),
		replication.DropPublication(ctx, m.control, names.Publication()),
	)
}

func (m *Migration) dropSchema(ctx context.Context, name, behavior string) error {
	if _, err := m.control.Exec(ctx, "DROP SCHEMA IF EXISTS "+pg.Ident(name)+" "+behavior); err != nil {
		return fmt.Errorf("dropping schema %q: %w", name, err)
	}
	return nil
}
