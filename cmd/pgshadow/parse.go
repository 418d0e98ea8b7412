package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/pkg/shadow"
)

const (
	// parseName is the hidden command that parses. The parser needs some 250 MB
	// for a second or two; in a process of its own they go back when it ends.
	parseName  = "internal-parse"
	parseLimit = 5 * time.Minute
	// parseMargin is how long a process that was killed may keep its pipes open.
	parseMargin = 5 * time.Second
)

// question is what the parsing process reads.
type question struct {
	Table  string            `json:"table"`
	Alters []string          `json:"alters"`
	Set    map[string]string `json:"set"`
}

// answer is what it writes: one of these.
type answer struct {
	Change  *shadow.Change      `json:"change,omitempty"`
	Syntax  *shadow.SyntaxError `json:"syntax_error,omitempty"`
	Refusal *shadow.Refusal     `json:"refusal,omitempty"`
	Error   string              `json:"error,omitempty"`
}

func (p *program) parseCommand() *cli.Command {
	return &cli.Command{
		Name: parseName, Hidden: true, HideHelp: true, OnUsageError: onUsageError,
		Action: func(*cli.Context) error { return p.answerParse() },
	}
}

// answerParse is the whole life of the parsing process. Signals that reach the
// whole group of processes are for its parent to answer.
func (p *program) answerParse() error {
	signal.Ignore(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	var asked question
	if err := json.NewDecoder(p.stdin).Decode(&asked); err != nil {
		return fmt.Errorf("reading what to parse: %w", err)
	}
	if err := json.NewEncoder(p.stdout).Encode(parse(asked)); err != nil {
		return fmt.Errorf("writing what was parsed: %w", err)
	}
	return nil
}

func parse(asked question) answer {
	change, err := shadow.Parse(asked.Table, asked.Alters, asked.Set)
	var syntax *shadow.SyntaxError
	var refusal *shadow.Refusal
	switch {
	case err == nil:
		return answer{Change: change}
	case errors.As(err, &syntax):
		return answer{Syntax: syntax}
	case errors.As(err, &refusal):
		return answer{Refusal: refusal}
	default:
		return answer{Error: err.Error()}
	}
}

// result is the answer as shadow.Parse would have given it.
func (a answer) result() (*shadow.Change, error) {
	switch {
	case a.Change != nil:
		return a.Change, nil
	case a.Syntax != nil:
		return nil, a.Syntax
	case a.Refusal != nil:
		return nil, a.Refusal
	case a.Error != "":
		return nil, errors.New(a.Error)
	default:
		return nil, errors.New("the parsing process gave an empty answer")
	}
}

// parseInChild is shadow.Parse in a process of its own, the program that
// executable names. It takes parseLimit at most and ends with ctx.
func parseInChild(executable func() (string, error)) migration.ParseFunc {
	return func(ctx context.Context, table string, alters []string, set map[string]string) (*shadow.Change, error) {
		path, err := executable()
		if err != nil {
			return nil, fmt.Errorf("finding the program to parse with: %w", err)
		}
		asked, err := json.Marshal(question{Table: table, Alters: alters, Set: set})
		if err != nil {
			return nil, fmt.Errorf("writing what to parse: %w", err)
		}
		limited, cancel := context.WithTimeout(ctx, parseLimit)
		defer cancel()
		var stdout, stderr bytes.Buffer
		child := exec.CommandContext(limited, path, parseName)
		child.Stdin, child.Stdout, child.Stderr = bytes.NewReader(asked), &stdout, &stderr
		child.Env = withoutConnection(os.Environ())
		child.WaitDelay = parseMargin
		if err := child.Run(); err != nil {
			return nil, childError(ctx, limited, err, stderr.String())
		}
		var given answer
		if err := json.Unmarshal(stdout.Bytes(), &given); err != nil {
			return nil, fmt.Errorf("reading the answer of the parsing process: %w", err)
		}
		return given.result()
	}
}

// childError says why there is no answer. What the process wrote on stderr is
// cut to its first line: below that, Go's own complaints are stacks.
func childError(ctx, limited context.Context, err error, complaint string) error {
	killed := killer(err)
	if killed == syscall.SIGINT || killed == syscall.SIGTERM || killed == syscall.SIGHUP {
		// Sent to the whole group of processes, it is on its way to the run as well.
		select {
		case <-ctx.Done():
		case <-time.After(parseMargin):
		}
	}
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("parsing in a process of its own: %w", ctx.Err())
	case limited.Err() != nil:
		return fmt.Errorf("parsing in a process of its own: no answer within %s", parseLimit)
	}
	first, _, _ := strings.Cut(strings.TrimSpace(complaint), "\n")
	if first != "" {
		first = ": " + first
	}
	if killed != 0 {
		first += "; the parser needs 250 MB for a moment, and a system that is short of memory kills it"
	}
	return fmt.Errorf("parsing in a process of its own, which died: %w%s", err, first)
}

// killer is the signal that ended a process, 0 when none did.
func killer(err error) syscall.Signal {
	var ended *exec.ExitError
	if !errors.As(err, &ended) {
		return 0
	}
	status, ok := ended.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() {
		return 0
	}
	return status.Signal()
}

// withoutConnection takes everything that could lead to a database, or hold a
// password, out of an environment.
func withoutConnection(environment []string) []string {
	var kept []string
	for _, variable := range environment {
		if !strings.HasPrefix(strings.ToUpper(variable), "PG") {
			kept = append(kept, variable)
		}
	}
	return kept
}
