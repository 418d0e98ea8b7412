package migration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/pgshadow/pgshadow/pkg/checkpoint"
	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/shadow"
	"github.com/pgshadow/pgshadow/replication"
)

// RunStatus is where an unfinished run is, as of its last checkpoint.
type RunStatus struct {
	RunID           string    `json:"run_id"`
	Table           string    `json:"table"`
	Rehearsal       bool      `json:"rehearsal,omitempty"`
	State           string    `json:"state"` // working, paused, waiting, or stopped when no process works on it
	Phase           string    `json:"phase"`
	Percent         float64   `json:"percent"`
	ETASeconds      *float64  `json:"eta_seconds"` // of the phase; null when unknown
	Rows            int64     `json:"rows"`
	EstimatedRows   int64     `json:"estimated_rows"`
	LagBytes        int64     `json:"lag_bytes"`
	DirtyKeys       int       `json:"dirty_keys"`
	Throttle        string    `json:"throttle"`
	Waiting         string    `json:"waiting"`
	WALRetained     int64     `json:"wal_retained_bytes"`
	SlotLost        bool      `json:"slot_lost"` // it is made anew, and the copy healed, when the run is resumed
	Host            string    `json:"host"`
	PID             int       `json:"pid"`
	StartedAt       time.Time `json:"started_at"`
	UpdatedAt       time.Time `json:"updated_at"`
	Settings        Settings  `json:"settings,omitempty"` // set while the run was on
	CutoverReleased bool      `json:"cutover_released"`
}

// Settings are what the operator has set, by name.
type Settings map[string]string

// SettingTexts are the settings as NAME=VALUE, in order.
func (r RunStatus) SettingTexts() []string {
	var texts []string
	for _, name := range slices.Sorted(maps.Keys(r.Settings)) {
		texts = append(texts, name+"="+r.Settings[name])
	}
	return texts
}

// The states of an unfinished run.
const (
	StateWorking = "working"
	StatePaused  = "paused"
	StateWaiting = "waiting"
	StateStopped = "stopped"
)

// Status lists the unfinished runs of the database, of one table when it is
// given. It changes nothing.
func Status(ctx context.Context, dsn, table string) (statuses []RunStatus, err error) {
	m, err := connectControl(ctx, dsn)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, pg.Close(ctx, m.control)) }()
	var oid uint32
	if table != "" {
		m.config.Table = table
		if oid, err = m.resolve(ctx); err != nil {
			return nil, err
		}
	}
	exists, err := m.stateExists(ctx)
	if err != nil || !exists {
		return nil, err
	}
	runs, err := checkpoint.Runs(ctx, m.control, true)
	if err != nil {
		return nil, err
	}
	for _, run := range runs {
		if oid != 0 && run.TableOID != oid {
			continue
		}
		status, err := m.statusOf(ctx, run)
		if err != nil {
			return nil, err
		}
		statuses = append(statuses, status)
	}
	return statuses, nil
}

func (m *Migration) statusOf(ctx context.Context, run checkpoint.Run) (RunStatus, error) {
	var now Progress
	var asked wishes
	if err := errors.Join(json.Unmarshal(run.Progress, &now), json.Unmarshal(run.Steering, &asked)); err != nil {
		return RunStatus{}, fmt.Errorf("reading the state of run %s: %w", run.ID, err)
	}
	slot, err := replication.LoadSlot(ctx, m.control, shadow.Names{RunID: run.ID}.Slot())
	if err != nil {
		return RunStatus{}, err
	}
	atWork, err := pg.Locked(ctx, m.control, run.TableOID)
	if err != nil {
		return RunStatus{}, err
	}
	change, err := readChange(&run)
	if err != nil {
		return RunStatus{}, err
	}
	status := RunStatus{RunID: run.ID, Table: run.Table, Rehearsal: change.Rehearsal, State: StateWorking, Phase: run.Phase, Rows: now.Rows, EstimatedRows: now.EstimatedRows,
		LagBytes: now.LagBytes, DirtyKeys: now.DirtyKeys, Throttle: now.Throttle, Waiting: now.Waiting, WALRetained: slot.Retained, SlotLost: slot.Lost,
		Host: run.Owner.Host, PID: run.Owner.PID, StartedAt: run.CreatedAt, UpdatedAt: run.UpdatedAt, CutoverReleased: asked.Released != "", Settings: asked.Settings}
	if now.Phase.String() == run.Phase {
		status.Percent = now.Percent
		if eta := now.ETA.Seconds(); now.ETA >= 0 && len(run.Progress) > len("null") {
			status.ETASeconds = &eta
		}
	}
	switch {
	case !atWork:
		status.State, status.ETASeconds = StateStopped, nil
	case asked.Paused != "":
		status.State = StatePaused
	case now.Waiting != "" || now.Throttle != "":
		status.State = StateWaiting
	}
	return status, nil
}
