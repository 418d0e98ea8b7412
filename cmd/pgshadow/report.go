package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/pkg/verify"
)

// writeReport writes the report to stdout, in one write.
func (p *program) writeReport(form string, report migration.Report) error {
	if report.Phases == nil {
		report.Phases = []migration.PhaseDuration{} // in JSON a list, whatever happened
	}
	if form == "json" {
		return p.writeJSON(report)
	}
	if _, err := p.stdout.Write([]byte(textReport(report))); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}

// sheet is text in two columns.
type sheet struct{ strings.Builder }

// row writes a label and its value; a value of several lines stays in its column.
func (s *sheet) row(label, format string, args ...any) {
	for line := range strings.SplitSeq(fmt.Sprintf(format, args...), "\n") {
		fmt.Fprintf(&s.Builder, "%-14s  %s\n", label, printable(line))
		label = ""
	}
}

func textReport(r migration.Report) string {
	s := &sheet{}
	s.row("table", "%s", r.Table)
	if r.RunID != "" {
		s.row("run", "%s", r.RunID)
	}
	outcome := string(r.Outcome)
	if r.Rehearsal != nil {
		outcome += ", a rehearsal"
	}
	if r.ExitCode != 0 {
		outcome += fmt.Sprintf(" (exit code %d)", r.ExitCode)
	}
	s.row("outcome", "%s", outcome)
	for _, warning := range r.Warnings {
		s.row("warning", "%s", warning)
	}
	if r.Error != nil {
		s.failure(*r.Error)
	}
	switch {
	case r.Method == "native":
		s.native(r)
	case r.RunID != "":
		s.work(r)
	}
	if r.Rehearsal != nil {
		s.rehearsal(*r.Rehearsal)
	}
	s.row("duration", "%s", took(r.DurationMS))
	if len(r.Phases) > 0 {
		s.phases(r.Phases)
	}
	return s.String()
}

// failure says what is wrong, what was checked, what to do, and what is left.
func (s *sheet) failure(e migration.ReportError) {
	switch {
	case len(e.Refusals) > 0:
		for _, refusal := range e.Refusals {
			s.row("refused", "%s", refusal.Reason)
			s.row("  check", "%s", refusal.Check)
			s.row("  remedy", "%s", refusal.Remedy)
		}
	default:
		s.row("error", "%s", e.Message)
		if e.SQLState != "" {
			s.row("sqlstate", "%s", e.SQLState)
		}
		if e.Check != "" {
			s.row("check", "%s", e.Check)
		}
		if e.Remedy != "" {
			s.row("remedy", "%s", e.Remedy)
		}
	}
	if e.State != "" {
		s.row("state", "%s", e.State)
	}
}

// native is for a run without a copy.
func (s *sheet) native(r migration.Report) {
	s.row("method", "native: PostgreSQL's own ALTER TABLE, without a copy")
	if c := r.Cutover; c.Attempts > 0 {
		s.row("lock", "%s; waited for at most %.1f ms and held for at most %.1f ms", times(c.Attempts, "attempt"), c.LockWaitMS, c.LockHoldMS)
	}
}

func (s *sheet) work(r migration.Report) {
	s.row("rows copied", "%s", grouped(r.RowsCopied))
	s.row("changes", "%s received, %s keys replayed", grouped(r.ChangesReceived), grouped(r.KeysReplayed))
	switch v := r.Verify; {
	case v.Mode == verify.Off:
		s.row("verification", "off")
	case v.Mode != "":
		s.row("verification", "%s: %s rows compared, %s mismatches, %s compared again", v.Mode, grouped(v.RowsCompared), grouped(v.Mismatches), grouped(v.Rechecked))
		s.row("  digests", "original %s, shadow %s", orNone(v.DigestOriginal), orNone(v.DigestShadow))
	}
	if c := r.Cutover; c.Attempts > 0 {
		s.row("cutover", "%s; the last waited %.1f ms for the lock and held it %.1f ms, %.1f ms of that for the fence",
			times(c.Attempts, "attempt"), c.LockWaitMS, c.LockHoldMS, c.FenceMS)
		if c.CommitMS > 0 {
			s.row("", "it was rolled back; %.1f ms of the hold are a COMMIT that was measured after it", c.CommitMS)
		}
	}
	if r.Rehearsal == nil && (r.Outcome == migration.Done || r.RetiredTable != "") {
		s.retired(r)
	}
}

// retired says where the original is, and how to be rid of it.
func (s *sheet) retired(r migration.Report) {
	if r.RetiredTable == "" {
		s.row("retired table", "dropped")
		return
	}
	s.row("retired table", "%s", r.RetiredTable)
	s.row("  drop it with", "pgshadow finish --table %s", r.Table)
}

func (s *sheet) phases(phases []migration.PhaseDuration) {
	s.WriteString("\n")
	widest := 0
	for _, phase := range phases {
		widest = max(widest, len(took(phase.DurationMS)))
	}
	for _, phase := range phases {
		s.row(phase.Name, "%*s", widest, took(phase.DurationMS))
	}
}

func times(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return grouped(n) + " " + what + "s"
}

func orNone(text string) string {
	if text == "" {
		return "none"
	}
	return text
}

// took is a duration as precise as one wants to read it.
func took(milliseconds int64) string {
	d := time.Duration(milliseconds) * time.Millisecond
	if d < time.Minute {
		return fmt.Sprintf("%.3f s", d.Seconds())
	}
	return clock(d)
}
