package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgshadow/pgshadow/pkg/migration"
)

var (
	update = flag.Bool("update", false, "write the golden files anew")
	binary string // the program, built
)

const runLimit = 2 * time.Minute

func TestMain(m *testing.M) {
	flag.Parse()
	// A test run under nohup must not hand its ignored SIGHUP on to the programs that it starts.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	code, err := buildAndRun(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func buildAndRun(m *testing.M) (code int, err error) {
	dir, err := os.MkdirTemp("", "pgshadow-cmd")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	binary = filepath.Join(dir, "pgshadow")
	if output, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		return 0, fmt.Errorf("building pgshadow: %w\n%s", err, output)
	}
	return m.Run(), nil
}

// command is the built program with arguments, and an environment that has no
// settings of pgshadow or libpq but the given ones.
func command(t *testing.T, env []string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), runLimit)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = append(withoutConnection(os.Environ()), env...)
	return cmd
}

// ended is what a process came to.
type ended struct {
	code           int
	stdout, stderr string
}

func (e ended) String() string {
	return fmt.Sprintf("exit code %d\nstdout:\n%s\nstderr:\n%s", e.code, e.stdout, e.stderr)
}

func runProgram(t *testing.T, env []string, args ...string) ended {
	t.Helper()
	cmd := command(t, env, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	return ended{exitCode(t, err), stdout.String(), stderr.String()}
}

func exitCode(t *testing.T, err error) int {
	t.Helper()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if exit == nil {
		return 0
	}
	return exit.ExitCode()
}

// process is a running program whose stderr is followed.
type process struct {
	*exec.Cmd
	t      *testing.T
	lines  chan string
	seen   strings.Builder
	stdout bytes.Buffer
}

func start(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	p := &process{Cmd: command(t, env, args...), t: t, lines: make(chan string, 10000)}
	p.Stdout = &p.stdout
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.Stderr = write
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	_ = write.Close()
	go func() {
		defer close(p.lines)
		defer read.Close() //nolint:errcheck // it was only read
		for scanner := bufio.NewScanner(read); scanner.Scan(); {
			p.lines <- scanner.Text()
		}
	}()
	return p
}

// await returns the first line of stderr from here on for which found says so.
func (p *process) await(what string, found func(line string) bool) string {
	p.t.Helper()
	for line := range p.lines {
		fmt.Fprintln(&p.seen, line)
		if found(line) {
			return line
		}
	}
	p.t.Fatalf("no line with %s in:\n%s", what, p.seen.String())
	return ""
}

// end waits for the process's end.
func (p *process) end() ended {
	p.t.Helper()
	for line := range p.lines {
		fmt.Fprintln(&p.seen, line)
	}
	err := p.Wait()
	return ended{exitCode(p.t, err), p.stdout.String(), p.seen.String()}
}

// report reads stdout, which must hold one JSON document and nothing else.
func (e ended) report(t *testing.T) migration.Report {
	t.Helper()
	var report migration.Report
	decoder := json.NewDecoder(strings.NewReader(e.stdout))
	if err := decoder.Decode(&report); err != nil {
		t.Fatalf("reading the report: %v\n%s", err, e)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		t.Fatalf("stdout holds more than the report:\n%s", e.stdout)
	}
	if report.ExitCode != e.code {
		t.Errorf("the report says exit code %d, the process %d", report.ExitCode, e.code)
	}
	return report
}

// golden compares text with a file of testdata.
func golden(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Errorf("%s differs; with -update it is written anew. Now:\n%s", path, text)
	}
}
