package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/pkg/shadow"
)

const statusHelp = `List the unfinished runs of the database: phase, progress, lag, what they wait for,
and the WAL that their slots hold back. Changes nothing.

Usage: pgshadow status [--table [schema.]name] [flags]
`

func (p *program) statusCommand() spec {
	o := &steerOptions{}
	return spec{
		name: "status", brief: "where the unfinished runs are", help: statusHelp,
		sections: []section{
			{"Which runs", []setting{{name: "table", value: "[schema.]name", take: text(&o.table), help: "only that of this table"}}},
			{"Where", connectionSettings(&o.dsn)},
			{"Output", []setting{reportSetting(&o.output)}},
		},
		check: func(string) error { return checkDSN(o.dsn) },
		run: func(ctx context.Context, _ string, _ origins) error {
			statuses, err := migration.Status(ctx, o.dsn, o.table)
			return p.endStatus(o.output, statuses, err)
		},
	}
}

func (p *program) endStatus(form string, statuses []migration.RunStatus, err error) error {
	var refusal *shadow.Refusal
	if errors.As(err, &refusal) {
		p.tell("pgshadow: %v\n", refusal)
		return &exitError{migration.Refused.ExitCode()}
	}
	if err != nil {
		return err
	}
	if form == "json" {
		if statuses == nil {
			statuses = []migration.RunStatus{}
		}
		return p.writeJSON(statuses)
	}
	if _, err := p.stdout.Write([]byte(textStatus(statuses, time.Now()))); err != nil {
		return fmt.Errorf("writing the status: %w", err)
	}
	return nil
}

func textStatus(statuses []migration.RunStatus, now time.Time) string {
	if len(statuses) == 0 {
		return "there is no unfinished run\n"
	}
	s := &sheet{}
	for i, status := range statuses {
		if i > 0 {
			s.WriteString("\n")
		}
		s.status(status, now)
	}
	return s.String()
}

func (s *sheet) status(r migration.RunStatus, now time.Time) {
	s.row("table", "%s", r.Table)
	s.row("run", "%s", runText(r))
	s.row("state", "%s, in phase %s", r.State, r.Phase)
	if r.EstimatedRows > 0 {
		progress := fmt.Sprintf("%s of about %s rows", grouped(r.Rows), grouped(r.EstimatedRows))
		if r.Percent > 0 {
			progress = fmt.Sprintf("%.1f %%, %s", r.Percent, progress)
		}
		if r.ETASeconds != nil {
			progress += fmt.Sprintf(", %s left in this phase", clock(time.Duration(*r.ETASeconds*float64(time.Second))))
		}
		s.row("progress", "%s", progress)
	}
	s.row("lag", "%s, %s dirty keys", bytesText(r.LagBytes), grouped(r.DirtyKeys))
	slot := "holds back " + bytesText(r.WALRetained) + " of WAL"
	if r.SlotLost {
		slot = "is lost; it is made anew when the run is resumed, and a full comparison finds what it missed"
	}
	s.row("slot", "%s", slot)
	if r.Throttle != "" {
		s.row("throttled", "%s", r.Throttle)
	}
	if r.Waiting != "" {
		s.row("waiting for", "%s", r.Waiting)
	}
	if r.CutoverReleased {
		s.row("cutover", "released")
	}
	if len(r.Settings) > 0 {
		s.row("set", "%s", strings.Join(r.SettingTexts(), "\n"))
	}
	s.row("process", "%d on %s, last checkpoint %s ago", r.PID, r.Host, clock(max(now.Sub(r.UpdatedAt), 0)))
	s.row("started", "%s", r.StartedAt.Local().Format(time.DateTime))
	if r.State == migration.StateStopped {
		s.row("to do", "%s", toDo(r))
	}
}

func runText(r migration.RunStatus) string {
	if r.Rehearsal {
		return r.RunID + ", a rehearsal"
	}
	return r.RunID
}

// toDo says what becomes of a run that has stopped.
func toDo(r migration.RunStatus) string {
	if r.Rehearsal {
		return "remove what it has left with pgshadow cleanup; another pgshadow rehearse does it too"
	}
	return fmt.Sprintf("run the same pgshadow alter again to resume it, or remove it with pgshadow abort --table %s", r.Table)
}
