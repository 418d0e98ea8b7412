package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pgshadow/pgshadow/pkg/migration"
)

const rehearseHelp = `Rehearse a change on a clone or a staging server: the whole run of pgshadow alter,
the cutover's lock, fence and swap too, then ROLLBACK, and everything that the run
made is removed. The report says how long each phase took and for how long the table
was locked, names rows that the new schema refuses, and what a run would cost on a
table of another size.

Usage: pgshadow rehearse --table [schema.]name --alter "..." [flags]

A physical replica takes no writes: promote it first, or take a clone. A rehearsal is
not resumed. One that is stopped removes what it made; what one that was killed has
left goes with the next, or with pgshadow cleanup.
`

const rehearseTail = `Every flag can also come from a variable and from the --config file, as those of
pgshadow alter; the same file serves both.

Exit codes:
  0  done: the change would have been made
  1  failed; what is left is in the message
  2  wrong usage
  3  refused before anything was created
  4  aborted and cleaned up, as by rows that the new schema refuses
  5  stopped, as when the cutover's attempts are used up
`

// forRealAlone are the flags of alter that a rehearsal has no use for.
var forRealAlone = []string{"restart", "cutover", "retire"}

// scaleToName is the setting that a rehearsal alone has.
const scaleToName = "scale-to"

func (p *program) rehearseCommand() spec {
	o := &alterOptions{}
	rehearsal := &migration.Rehearsal{}
	o.config.Rehearsal = rehearsal
	sections := o.sections()
	for i := range sections {
		sections[i].settings = slices.DeleteFunc(sections[i].settings, func(s setting) bool { return slices.Contains(forRealAlone, s.name) })
	}
	scaleTo := setting{name: scaleToName, value: "SIZE", take: scale(&rehearsal.ScaleTo),
		help: "size of the table that the estimates are for: rows (2e9), or a\nsize with its indexes (1.5TB)"}
	sections[0].settings = append(sections[0].settings, scaleTo)
	return spec{
		name:     "rehearse",
		brief:    "go through a change on a copy, and roll it back",
		help:     rehearseHelp,
		tail:     rehearseTail,
		sections: sections,
		ignores:  forRealAlone,
		check: func(string) error {
			return errors.Join(checkDSN(o.config.DSN), o.config.Validate(), o.checkDryRun(), o.readPlan())
		},
		run: func(ctx context.Context, _ string, from origins) error { return p.alter(ctx, o, from) },
	}
}

func scale(into *migration.Scale) func([]string) error {
	return func(texts []string) (err error) {
		*into, err = migration.ParseScale(texts[0])
		return err
	}
}

// rehearsal says what the rehearsal found, and what a run would cost.
func (s *sheet) rehearsal(r migration.RehearsalReport) {
	if len(r.LockHoldsMS) > 1 {
		var holds []string
		for _, hold := range r.LockHoldsMS {
			holds = append(holds, fmt.Sprintf("%.1f", hold))
		}
		s.row("  all holds", "%s ms; the cutover above is the median", strings.Join(holds, ", "))
	}
	for i, row := range r.FailingRows {
		label := ""
		if i == 0 {
			label = "failing rows"
		}
		s.row(label, "%s", failingText(row))
	}
	if r.FailingRowsTotal > 0 {
		least := ""
		if !r.FailingRowsComplete {
			least = "at least "
		}
		s.row("  in all", "%s%s", least, grouped(r.FailingRowsTotal))
	}
	if r.Estimate != nil {
		s.estimate("a run here", *r.Estimate)
	}
	if r.Scaled != nil {
		s.estimate(timesAsLarge(r.Scaled.Factor), *r.Scaled)
	}
	for _, what := range r.AfterSwap {
		s.row("after the swap", "%s, which is not in the estimates", what)
	}
}

func timesAsLarge(factor float64) string {
	if factor >= 1000 {
		return grouped(int64(factor)) + " times"
	}
	return fmt.Sprintf("%.4g times", factor)
}

func failingText(row migration.FailingRow) string {
	text := fmt.Sprintf("%s (SQLSTATE %s)", row.Message, row.SQLState)
	if row.Key != "" {
		text = "key " + row.Key + ": " + text
	}
	return text
}

func (s *sheet) estimate(label string, e migration.Estimate) {
	s.row(label, "about %s for %s rows, %s with indexes; the lock is held for %.1f ms", took(e.DurationMS),
		grouped(e.Rows), bytesText(e.OriginalBytes), e.LockHoldMS)
	s.row("  disk", "%s for the shadow, %s of WAL", bytesText(e.ShadowBytes), bytesText(e.WALBytes))
	if e.Factor == 1 {
		return
	}
	for _, phase := range e.Phases {
		s.row("  "+phase.Name, "%s", took(phase.DurationMS))
	}
}
