package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/pkg/shadow"
	"github.com/pgshadow/pgshadow/pkg/verify"
)

// historyOptions are the flags of history.
type historyOptions struct {
	dsn    string
	table  string
	limit  int
	output string
}

const historyHelp = `List the runs that there have been in the database, the newest first: who began each,
when, with which statement, how it ended, and for how long it held its lock. Changes
nothing.

Usage: pgshadow history [--table [schema.]name] [flags]

The table need not exist any more; the history of one that was renamed has what was
done to it under its earlier names.
`

func (p *program) historyCommand() spec {
	o := &historyOptions{}
	return spec{
		name: "history", brief: "the runs that there have been", help: historyHelp,
		sections: []section{
			{"Which runs", []setting{
				{name: "table", value: "[schema.]name", take: text(&o.table), help: "only those of this table"},
				{name: "limit", value: "N", preset: "20", take: number(&o.limit, 1), help: "at most so many"},
			}},
			{"Where", connectionSettings(&o.dsn)},
			{"Output", []setting{reportSetting(&o.output)}},
		},
		check: func(string) error { return checkDSN(o.dsn) },
		run: func(ctx context.Context, _ string, _ origins) error {
			records, err := migration.History(ctx, o.dsn, o.table, o.limit)
			return p.endHistory(o.output, records, err)
		},
	}
}

func (p *program) endHistory(form string, records []migration.RunRecord, err error) error {
	var refusal *shadow.Refusal
	if errors.As(err, &refusal) {
		p.tell("pgshadow: %v\n", refusal)
		return &exitError{migration.Refused.ExitCode()}
	}
	if err != nil {
		return err
	}
	if form == "json" {
		if records == nil {
			records = []migration.RunRecord{}
		}
		return p.writeJSON(records)
	}
	if _, err := p.stdout.Write([]byte(textHistory(records))); err != nil {
		return fmt.Errorf("writing the history: %w", err)
	}
	return nil
}

func textHistory(records []migration.RunRecord) string {
	if len(records) == 0 {
		return "no runs\n"
	}
	s := &sheet{}
	for i, record := range records {
		if i > 0 {
			s.WriteString("\n")
		}
		s.record(record)
	}
	return s.String()
}

// record is a run in a few lines: the JSON has more.
func (s *sheet) record(r migration.RunRecord) {
	s.row("started", "%s", r.StartedAt.Local().Format(time.DateTime))
	if r.EndedAt != nil {
		s.row("ended", "%s", r.EndedAt.Local().Format(time.DateTime))
	}
	if r.DurationMS != nil {
		s.row("duration", "%s", took(*r.DurationMS))
	}
	s.row("table", "%s", r.Table)
	s.row("run", "%s, %s", r.RunID, r.Method)
	s.row("statement", "%s", strings.Join(r.Alters, "\n"))
	for _, column := range slices.Sorted(maps.Keys(r.Set)) {
		s.row("  set", "%s = %s", column, r.Set[column])
	}
	s.row("outcome", "%s", outcomeText(r))
	if r.Detail != "" {
		s.row("  because", "%s", r.Detail)
	}
	for _, warning := range r.Warnings {
		s.row("  warning", "%s", warning)
	}
	by := fmt.Sprintf("process %d on %s", r.PID, r.Host)
	if r.Role != "" {
		by = fmt.Sprintf("%s, %s", r.Role, by)
	}
	s.row("by", "%s", by)
	s.recorded(r)
	if r.RetiredTable != "" {
		s.row("retired table", "%s", r.RetiredTable)
	}
}

func outcomeText(r migration.RunRecord) string {
	switch {
	case r.Outcome == migration.StillOpen:
		return "open, in phase " + r.Phase
	case r.ExitCode != nil && *r.ExitCode != 0:
		return fmt.Sprintf("%s (exit code %d)", r.Outcome, *r.ExitCode)
	default:
		return r.Outcome
	}
}

// recorded is what the run's processes have reported.
func (s *sheet) recorded(r migration.RunRecord) {
	if r.RowsCopied != nil {
		s.row("rows copied", "%s; %s changes received, %s keys replayed", grouped(*r.RowsCopied), grouped(*r.ChangesReceived), grouped(*r.KeysReplayed))
	}
	switch v := r.Verify; {
	case v == nil:
	case v.Mode == verify.Off:
		s.row("verification", "off")
	default:
		s.row("verification", "%s: %s rows compared, %s mismatches", v.Mode, grouped(v.RowsCompared), grouped(v.Mismatches))
	}
	if c := r.Cutover; c != nil {
		s.row("lock", "held %.1f ms, after %.1f ms of waiting for it; %s", c.LockHoldMS, c.LockWaitMS, times(c.Attempts, "attempt"))
	}
}
