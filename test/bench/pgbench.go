package main

import (
	"bytes"
	"context"
	_ "embed" // the script
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

//go:embed load.sql
var loadSQL string

const (
	clients = 8
	// longest is when pgbench ends by itself, should nobody end it.
	longest = time.Hour
	// flushed is how long pgbench goes on after what is of interest: it keeps its log in a buffer of 4 kB, some hundred
	// transactions, and an interrupt loses it.
	flushed = 1500 * time.Millisecond
)

// traffic is a running pgbench.
type traffic struct {
	cmd    *exec.Cmd
	output bytes.Buffer
	dir    string
	done   chan struct{} // closed when it has exited
}

// finished is one transaction of a client.
type finished struct {
	at   time.Time     // of its end
	took time.Duration // from when it was due
	ran  time.Duration // from when a client was free to begin it
}

// findPgbench looks beside the server's programs, then in PATH.
func (b *bench) findPgbench() (string, error) {
	beside := filepath.Join(b.server.BinDir(), "pgbench")
	if _, err := os.Stat(beside); err == nil {
		return beside, nil
	}
	found, err := exec.LookPath("pgbench")
	if err != nil {
		return "", fmt.Errorf("looking for pgbench in %s and PATH: not there; it comes with PostgreSQL's contrib programs "+
			"(Debian: apt-get install postgresql, Fedora: postgresql-contrib, Homebrew: postgresql)", b.server.BinDir())
	}
	return found, nil
}

// traffic starts the load on a table of so many rows.
func (b *bench) traffic(rows int) (*traffic, error) {
	program, err := b.findPgbench()
	if err != nil {
		return nil, err
	}
	t := &traffic{done: make(chan struct{})}
	if t.dir, err = os.MkdirTemp(b.dir, "pgbench-"); err != nil {
		return nil, fmt.Errorf("making pgbench's folder: %w", err)
	}
	script := filepath.Join(t.dir, "load.sql")
	if err := os.WriteFile(script, []byte(loadSQL), 0o600); err != nil {
		return nil, fmt.Errorf("writing pgbench's script: %w", err)
	}
	t.cmd = exec.Command(program, "--no-vacuum", "--client="+strconv.Itoa(clients), "--jobs=1", "--rate="+strconv.Itoa(b.rate),
		"--time="+strconv.Itoa(int(longest.Seconds())), "--define=rows="+strconv.Itoa(rows), "--file="+script,
		"--log", "--log-prefix="+filepath.Join(t.dir, "latency"), b.server.DSN("postgres"))
	t.cmd.Env = slices.DeleteFunc(os.Environ(), func(entry string) bool { return strings.HasPrefix(entry, "PG") })
	t.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	t.cmd.Stdout, t.cmd.Stderr = &t.output, &t.output
	if err := t.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting pgbench: %w", err)
	}
	go func() {
		defer close(t.done)
		_ = t.cmd.Wait() // an interrupt is how it ends; what it printed is looked at
	}()
	return t, nil
}

// interrupt ends pgbench without waiting for its log. A pgbench that has ended is no error.
func (t *traffic) interrupt() error {
	if err := t.cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("interrupting pgbench: %w", err)
	}
	<-t.done
	return nil
}

// stop ends pgbench once its log has what happened so far, and returns that, sorted by time. A client that had to give
// up is an error.
func (t *traffic) stop(ctx context.Context) ([]finished, error) {
	waited := pause(ctx, flushed)
	if err := errors.Join(waited, t.interrupt()); err != nil {
		return nil, err
	}
	if output := t.output.String(); strings.Contains(output, "abort") || strings.Contains(output, "ERROR") {
		return nil, fmt.Errorf("running pgbench: clients got errors:\n%s", output)
	}
	logs, err := filepath.Glob(filepath.Join(t.dir, "latency.*"))
	if err != nil || len(logs) == 0 {
		return nil, fmt.Errorf("looking for pgbench's log: %w", errors.Join(err, errors.New(t.output.String())))
	}
	var all []finished
	for _, log := range logs {
		read, err := readLatencies(log)
		if err != nil {
			return nil, err
		}
		all = append(all, read...)
	}
	slices.SortFunc(all, func(x, y finished) int { return x.at.Compare(y.at) })
	return all, nil
}

// readLatencies reads a log of pgbench: client, transaction, microseconds taken, script, seconds and microseconds of its
// end, and the lag behind the schedule, which is part of what it took. The last line may be cut off, and is left out.
func readLatencies(path string) ([]finished, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("opening pgbench's log: %w", err)
	}
	var all []finished
	for line := range strings.Lines(string(text)) {
		if !strings.HasSuffix(line, "\n") {
			break
		}
		tx, err := parseLatency(strings.Fields(line))
		if err != nil {
			return nil, fmt.Errorf("reading %q in pgbench's log: %w", line, err)
		}
		all = append(all, tx)
	}
	return all, nil
}

func parseLatency(fields []string) (finished, error) {
	if len(fields) < 7 {
		return finished{}, errors.New("want 7 fields")
	}
	numbers := make([]int64, len(fields))
	for i, field := range fields {
		var err error
		if numbers[i], err = strconv.ParseInt(field, 10, 64); err != nil {
			return finished{}, fmt.Errorf("reading field %d: %w", i+1, err)
		}
	}
	return finished{
		at:   time.Unix(numbers[4], numbers[5]*1000),
		took: time.Duration(numbers[2]) * time.Microsecond,
		ran:  time.Duration(numbers[2]-numbers[6]) * time.Microsecond,
	}, nil
}
