package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/pkg/shadow"
)

// leftoverOptions are the flags of cleanup and finish.
type leftoverOptions struct {
	dsn    string
	table  string
	dryRun bool
	output string
}

const cleanupHelp = `List what runs have left in the database, and remove what belongs to unfinished
or orphaned ones. A live run and the retired table of a change that is done stay.

Usage: pgshadow cleanup [--dry-run] [flags]
`

const finishHelp = `Drop the retired table: what was the original before the change.

Usage: pgshadow finish --table [schema.]name [flags]
`

func (p *program) cleanupCommand() spec {
	o := &leftoverOptions{}
	return spec{
		name: "cleanup", brief: "list and remove what abandoned runs left", help: cleanupHelp,
		sections: []section{
			{"What to do", []setting{{name: "dry-run", take: toggle(&o.dryRun), help: "only list"}}},
			{"Where", connectionSettings(&o.dsn)},
			{"Output", []setting{reportSetting(&o.output)}},
		},
		check: func(string) error { return checkDSN(o.dsn) },
		run: func(ctx context.Context, _ string, _ origins) error {
			leftovers, err := migration.Cleanup(ctx, o.dsn, o.dryRun)
			return p.endLeftovers(o.output, leftovers, err)
		},
	}
}

func (p *program) finishCommand() spec {
	o := &leftoverOptions{}
	return spec{
		name: "finish", brief: "drop the retired table of a change that is done", help: finishHelp,
		sections: []section{
			{"What to finish", []setting{{name: "table", value: "[schema.]name", take: text(&o.table), help: "the table that was changed"}}},
			{"Where", connectionSettings(&o.dsn)},
			{"Output", []setting{reportSetting(&o.output)}},
		},
		check: func(string) error { return errors.Join(checkDSN(o.dsn), checkTable(o.table)) },
		run: func(ctx context.Context, _ string, _ origins) error {
			removed, err := migration.Finish(ctx, o.dsn, o.table)
			return p.endLeftovers(o.output, removed, err)
		},
	}
}

// endLeftovers writes the list, complete or not, and says what went wrong. A list that
// could not be made is not an empty one.
func (p *program) endLeftovers(form string, leftovers []migration.Leftover, err error) error {
	if err == nil || len(leftovers) > 0 {
		if writeErr := p.writeLeftovers(form, leftovers); writeErr != nil {
			return writeErr
		}
	}
	var refusal *shadow.Refusal
	switch {
	case errors.As(err, &refusal):
		p.tell("pgshadow: %v\n", refusal)
		return &exitError{migration.Refused.ExitCode()}
	default:
		return err
	}
}

func (p *program) writeLeftovers(form string, leftovers []migration.Leftover) error {
	if form == "json" {
		if leftovers == nil {
			leftovers = []migration.Leftover{}
		}
		return p.writeJSON(leftovers)
	}
	if _, err := p.stdout.Write([]byte(textLeftovers(leftovers))); err != nil {
		return fmt.Errorf("writing the list: %w", err)
	}
	return nil
}

func textLeftovers(leftovers []migration.Leftover) string {
	if len(leftovers) == 0 {
		return "nothing is left behind\n"
	}
	s := &sheet{}
	for _, leftover := range leftovers {
		done := "kept"
		if leftover.Removed {
			done = "removed"
		}
		s.row("run", "%s, %s: %s", leftover.RunID, leftover.State, done)
		if leftover.Table != "" {
			s.row("  table", "%s", leftover.Table)
		}
		if len(leftover.Artifacts) > 0 {
			s.row("  artifacts", "%s", strings.Join(leftover.Artifacts, "\n"))
		}
		for _, kept := range leftover.Kept {
			s.row("  kept", "%s", kept)
		}
	}
	return s.String()
}
