package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/pkg/shadow"
)

// steerOptions are the flags of the commands that steer a run.
type steerOptions struct {
	dsn    string
	table  string
	output string
}

const pauseHelp = `Have a run wait: the copy, the building of indexes, the verification and the
cutover. Changes are still replayed, so that the slot does not hold back more WAL.

Usage: pgshadow pause --table [schema.]name [flags]
`

const resumeHelp = `Let a run go on that was paused.

Usage: pgshadow resume --table [schema.]name [flags]

A run whose process has stopped is resumed by its own pgshadow alter.
`

const cutoverHelp = `Let a run swap the tables that waits for it (--cutover manual). Given earlier, the
run does not wait when it gets there.

Usage: pgshadow cutover --table [schema.]name [flags]
`

const abortHelp = `End a run and remove what it made. The original is untouched. Returns when that is
done.

Usage: pgshadow abort --table [schema.]name [flags]
`

const setHelp = `Change a setting of a run while it is on. It stands until the run ends, also when
another process resumes it.

Usage: pgshadow set NAME=VALUE --table [schema.]name [flags]

The names are those of the flags of pgshadow alter: copy-workers, index-workers,
chunk-time, max-replica-lag, max-active-sessions, max-rows-per-second,
throttle-query, throttle-file, max-wal-retained, verify, lock-timeout,
max-lock-hold, cutover-attempts, cutover, retire.
`

const steerTail = `A command reaches the run through the database, from any host. Exit codes: 0 done,
1 failed (no answer within 30 seconds, for one), 2 wrong usage, 3 refused: there is no
such run, no process works on it, or it says no.
`

func (p *program) steerCommands() []spec {
	set := p.steerCommand(migration.CommandSet, "change a setting of a run while it is on", setHelp, "NAME=VALUE")
	for _, name := range migration.SettingNames() {
		set.offers = append(set.offers, name+"=")
	}
	return []spec{
		p.steerCommand(migration.CommandPause, "have a run wait", pauseHelp, ""),
		p.steerCommand(migration.CommandResume, "let it go on", resumeHelp, ""),
		p.steerCommand(migration.CommandCutover, "let a run swap the tables that waits for it", cutoverHelp, ""),
		p.steerCommand(migration.CommandAbort, "end a run and remove what it made", abortHelp, ""),
		set,
	}
}

// steerCommand makes one of the commands; argument is what its argument stands for,
// empty when it takes none.
func (p *program) steerCommand(name, brief, help, argument string) spec {
	o := &steerOptions{}
	return spec{
		name: name, brief: brief, help: help, tail: steerTail, argument: argument,
		sections: []section{
			{"Which run", []setting{tableSetting(&o.table)}},
			{"Where", connectionSettings(&o.dsn)},
			{"Output", []setting{reportSetting(&o.output)}},
		},
		check: func(given string) error {
			err := errors.Join(checkDSN(o.dsn), checkTable(o.table))
			if argument != "" {
				_, _, wrong := migration.ParseSetting(given)
				err = errors.Join(err, wrong)
			}
			return err
		},
		run: func(ctx context.Context, given string, _ origins) error {
			done, err := migration.Command(ctx, o.dsn, o.table, name, given)
			return p.endSteering(o.output, done, err)
		},
	}
}

func tableSetting(table *string) setting {
	return setting{name: "table", value: "[schema.]name", take: text(table), help: "the table; double quotes around names that need them"}
}

func checkTable(table string) error {
	if table == "" {
		return errors.New("table is missing: say which with --table [schema.]name")
	}
	return nil
}

func (p *program) endSteering(form string, done migration.Commanded, err error) error {
	var refusal *shadow.Refusal
	if errors.As(err, &refusal) {
		done.Answer = refusal.Error()
	}
	switch {
	case form == "json" && (err == nil || refusal != nil):
		if err := p.writeJSON(done); err != nil {
			return err
		}
	case err == nil:
		if _, err := fmt.Fprintf(p.stdout, "run %s of %s: %s\n", done.RunID, done.Table, printable(done.Answer)); err != nil {
			return fmt.Errorf("writing the answer: %w", err)
		}
	}
	if refusal != nil {
		p.tell("pgshadow: %v\n", refusal)
		return &exitError{migration.Refused.ExitCode()}
	}
	return err
}

// writeJSON writes one document to stdout, in one write.
func (p *program) writeJSON(document any) error {
	var body strings.Builder
	encoder := json.NewEncoder(&body)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false) // SQL has many a < in it
	if err := encoder.Encode(document); err != nil {
		return fmt.Errorf("encoding the output: %w", err)
	}
	if _, err := p.stdout.Write([]byte(body.String())); err != nil {
		return fmt.Errorf("writing the output: %w", err)
	}
	return nil
}

// argumentLast moves the argument of pgshadow set behind the flags, where the flag
// parser looks for it: people write it first.
func argumentLast(args []string) []string {
	if len(args) < 3 || args[1] != migration.CommandSet {
		return args
	}
	var flags, others []string
	rest := args[2:]
	for len(rest) > 0 {
		n := 1
		switch flag := rest[0]; {
		case !strings.HasPrefix(flag, "-"):
			others, rest = append(others, flag), rest[1:]
			continue
		case !strings.Contains(flag, "=") && !slices.Contains([]string{"-h", "-help", "--help"}, flag):
			n = min(2, len(rest)) // its value comes next
		}
		flags, rest = append(flags, rest[:n]...), rest[n:]
	}
	return slices.Concat(args[:2], flags, others)
}
