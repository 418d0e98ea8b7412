// Package alter builds the real pgshadow and runs its alter command, or one like it, as a child, for the demo and the benchmark.
package alter

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/pgshadow/pgshadow/pkg/migration"
)

const (
	program = "github.com/pgshadow/pgshadow/cmd/pgshadow"
	// stopLimit is how long a run that was told to stop may take for it.
	stopLimit = 15 * time.Second
)

// Build compiles pgshadow into dir and returns the binary's path. It needs the go command.
func Build(ctx context.Context, dir string) (string, error) {
	binary := filepath.Join(dir, "pgshadow")
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", binary, program)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if output, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building %s: %w\n%s", program, errors.Join(err, ctx.Err()), output)
	}
	return binary, nil
}

// Command is one run of pgshadow alter, or of another command with its flags.
type Command struct {
	Binary string        // of pgshadow, as Build returns it
	Name   string        // of the command; default: alter
	DSN    string        // goes into the child's environment
	Table  string        // --table
	Alter  string        // --alter
	Args   []string      // more flags
	Log    io.Writer     // the child's stderr: its log, and on a terminal (an *os.File) its display; default: nowhere
	Began  func(pid int) // called once the child runs, if set
}

// Result is what a run came to.
type Result struct {
	migration.Report
	Elapsed time.Duration // of the process, from its start to its exit
	// Largest is the highest peak resident set, in bytes, of the process and of those it started itself (the parser).
	// Not known (0) on systems whose unit is not known.
	Largest int64
}

// String is the command as one would type it.
func (c Command) String() string {
	return fmt.Sprintf("pgshadow %s --table %s --alter %q", c.name(), c.Table, c.Alter)
}

func (c Command) name() string { return cmp.Or(c.Name, "alter") }

// Run runs the command and blocks until it has exited. Its report is complete also when err says that the change is not
// done. When ctx ends the child is told to stop, and killed when it does not.
func (c Command) Run(ctx context.Context) (Result, error) {
	args := append([]string{c.name(), "--table", c.Table, "--alter", c.Alter, "--output", "json"}, c.Args...)
	cmd := exec.CommandContext(ctx, c.Binary, args...)
	// An interrupt typed at the terminal reaches the child once, through Cancel: a second signal would end it at once.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = stopLimit
	cmd.Env = environment(c.DSN)
	var stdout bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, c.Log
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return Result{}, fmt.Errorf("starting %s: %w", c, err)
	}
	if c.Began != nil {
		c.Began(cmd.Process.Pid)
	}
	ended := cmd.Wait()
	result := Result{Elapsed: time.Since(began), Largest: largest(cmd.ProcessState)}
	if err := json.Unmarshal(stdout.Bytes(), &result.Report); err != nil {
		return result, fmt.Errorf("reading the report of %s: %w", c, errors.Join(err, ended, ctx.Err()))
	}
	if ended == nil && result.Outcome == migration.Done {
		return result, nil
	}
	message := "no error is reported"
	if result.Error != nil {
		message = result.Error.Message
	}
	return result, fmt.Errorf("running %s: %w: outcome %s: %s", c, errors.Join(ended, ctx.Err()), result.Outcome, message)
}

// environment is this process's own without what would steer the child elsewhere, and with the connection.
func environment(dsn string) []string {
	var kept []string
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "PG") {
			kept = append(kept, entry)
		}
	}
	return append(kept, "PGSHADOW_DSN="+dsn)
}

// largest reads ru_maxrss, whose unit is a kilobyte on Linux (getrusage(2)).
func largest(state *os.ProcessState) int64 {
	usage, ok := state.SysUsage().(*syscall.Rusage)
	if !ok || runtime.GOOS != "linux" {
		return 0
	}
	return int64(usage.Maxrss) << 10
}
