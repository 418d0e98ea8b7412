package migration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/checkpoint"
	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/shadow"
	"github.com/pgshadow/pgshadow/pkg/verify"
	"github.com/pgshadow/pgshadow/replication"
)

// resume takes up an unfinished run of the same change, if there is one. It
// refuses when the open run is of another change.
func (m *Migration) resume(ctx context.Context) (resumed bool, err error) {
	open := m.target.found
	if open == nil || open.EndedAt != nil {
		return false, nil
	}
	names := shadow.Names{RunID: open.ID, Table: open.TableName}
	recorded, err := readChange(open)
	if err != nil {
		return false, err
	}
	switch {
	case m.recovery.again:
	case m.config.Restart:
		m.report.RunID = ""
		return false, m.remove(ctx, names, string(Aborted), "restarted")
	case recorded.Rehearsal || m.rehearsal != nil:
		return false, m.meetRehearsal(ctx, open, names, recorded)
	}
	if !m.sameChange(recorded) {
		return false, refuseUnfinished(open)
	}
	return true, m.takeUp(ctx, open, names)
}

func refuseUnfinished(open *checkpoint.Run) error {
	recorded, err := readChange(open)
	if err != nil {
		return err
	}
	return &shadow.Refusal{Check: "unfinished run", Reason: fmt.Sprintf("run %s of another change to this table is not finished, since %s: %s",
		open.ID, open.CreatedAt.Format("2006-01-02 15:04:05 MST"), strings.Join(recorded.Alters, "; ")),
		Remedy: "resume it with its own --alter, remove it with pgshadow cleanup, or give --restart"}
}

// finishEarlier ends a run of the same change whose swap is committed and whose
// process was not given the time to clean up. There is nothing left to change.
func (m *Migration) finishEarlier(ctx context.Context) (finished bool, err error) {
	done := m.target.found
	if done == nil || done.EndedAt == nil {
		return false, nil
	}
	recorded, err := readChange(done)
	left, leftErr := m.leftOf(ctx, done.ID)
	if err = errors.Join(err, leftErr); err != nil {
		return false, err
	}
	plan := &shadow.Plan{}
	if err := json.Unmarshal(done.Plan, plan); err != nil {
		return false, fmt.Errorf("reading the plan of run %s: %w", done.ID, err)
	}
	if !left && len(plan.Completions) == 0 {
		return false, nil
	}
	if !m.sameChange(recorded) {
		m.config.Observer.Observe(Noted{Note: fmt.Sprintf("run %s of an earlier change to this table is done, and has left something: pgshadow cleanup removes it", done.ID)})
		return false, nil
	}
	if plan.Recipe != nil {
		m.config.Observer.Observe(RunStarted{RunID: done.ID, Table: m.report.Table, Resumed: true})
		m.finishNative(ctx, done, plan)
		return true, nil
	}
	m.run = run{store: checkpoint.NewStore(done.ID), names: shadow.Names{RunID: done.ID, Table: done.TableName}, plan: plan}
	m.report.RunID, m.report.RetiredTable = done.ID, pg.Readable(m.run.names.RetiredSchema(), done.TableName)
	m.config.Observer.Observe(RunStarted{RunID: done.ID, Table: m.report.Table, Resumed: true})
	m.config.Observer.Observe(Noted{Note: fmt.Sprintf("the swap of run %s was committed on %s: what is left is to clean up", done.ID, done.EndedAt.Format("2006-01-02 15:04:05 MST"))})
	m.phase = Cutover
	m.tidy(ctx)
	return true, nil
}

// recordedChange is a change as the run's row has it. A rehearsal of a change is not
// the same as the change.
type recordedChange struct {
	shadow.Change
	Given     map[string]string `json:"given,omitempty"` // --set as it was written; Set has it qualified
	Rehearsal bool              `json:"rehearsal,omitempty"`
}

func readChange(run *checkpoint.Run) (change recordedChange, err error) {
	if err := json.Unmarshal(run.Change, &change); err != nil {
		return change, fmt.Errorf("reading the change of run %s: %w", run.ID, err)
	}
	return change, nil
}

func (m *Migration) sameChange(change recordedChange) bool {
	same := change.Rehearsal == (m.rehearsal != nil) && reflect.DeepEqual(change.Alters, m.target.change.Alters) && len(change.Set) == len(m.target.change.Set)
	for column, expression := range m.target.change.Set {
		same = same && change.Set[column].SQL == expression.SQL
	}
	return same
}

// takeUp continues a run. A slot that is gone is made anew: the changes that it
// missed are found by a full comparison, which makes every differing row dirty.
func (m *Migration) takeUp(ctx context.Context, open *checkpoint.Run, names shadow.Names) error {
	if _, err := parsePhase(open.Phase); err != nil {
		return err
	}
	var plan shadow.Plan
	if err := json.Unmarshal(open.Plan, &plan); err != nil {
		return fmt.Errorf("reading the plan of run %s: %w", open.ID, err)
	}
	m.run = run{store: checkpoint.NewStore(open.ID), names: names, plan: &plan, heal: open.Heal}
	m.report.RunID = open.ID
	if err := m.setPhase(ctx, open.Phase); err != nil {
		return err
	}
	if err := m.recall(ctx, open); err != nil {
		return err
	}
	if err := m.unchanged(ctx, m.control); err != nil {
		return err
	}
	m.config.Observer.Observe(RunStarted{RunID: open.ID, Table: m.report.Table, Resumed: true, Rehearsal: m.rehearsal != nil})
	if serves, err := m.slotServes(ctx, open); serves || err != nil {
		return err
	}
	if open.Phase != Prepare.String() {
		m.config.Observer.Observe(Noted{Note: "the slot is gone, lost, or of another server: a new one is made, and a full comparison will find what it missed"})
		if err := m.startHealing(ctx); err != nil {
			return err
		}
	}
	if err := replication.DropSlot(ctx, m.control, names.Slot()); err != nil {
		return err
	}
	return m.createSlot(ctx)
}

// slotServes tells whether the run's slot has every change that it has not been
// told to be replayed. One that came along in a failover may be ahead of the shadow:
// the slot is told a position a moment before the standby has what makes it durable
// (INV-4).
func (m *Migration) slotServes(ctx context.Context, open *checkpoint.Run) (bool, error) {
	slot, err := replication.LoadSlot(ctx, m.control, m.run.names.Slot())
	if err != nil {
		return false, err
	}
	server, err := replication.Identify(ctx, m.db)
	if err != nil {
		return false, err
	}
	return slot.Exists && !slot.Lost && (open.Server == server || open.Server == ""), nil
}

// startHealing records that changes were missed, before there is a slot again
// that would make it look as if none were. The indexes come off: rows that the
// shadow holds still, and the original no longer does, must not conflict.
func (m *Migration) startHealing(ctx context.Context) error {
	m.run.heal = true
	return pg.InTx(ctx, m.control, pgx.TxOptions{}, func(tx pgx.Tx) error {
		if err := m.unbuild(ctx, tx); err != nil {
			return err
		}
		return m.run.store.SetHeal(ctx, tx, true)
	})
}

// heal makes up for changes that were missed: a full comparison makes every
// differing row dirty, and replay reads it again.
func (m *Migration) heal(ctx context.Context, l *live) error {
	report, err := m.compare(ctx, l, verify.Full)
	if err != nil {
		return err
	}
	m.config.Observer.Observe(Noted{Note: fmt.Sprintf("the full comparison found %d rows that had to be read again", report.Rechecked)})
	m.report.Healed = report.Rechecked
	m.run.heal = false
	return pg.InTx(ctx, m.control, pgx.TxOptions{}, func(tx pgx.Tx) error { return m.run.store.SetHeal(ctx, tx, false) })
}
