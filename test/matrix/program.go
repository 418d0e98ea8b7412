package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// program is the tests of one package, compiled.
type program struct {
	pkg, path string
}

// build compiles the tests of the packages, once for all versions.
func build(ctx context.Context, dir string, packages []string) ([]program, error) {
	programs := make([]program, len(packages))
	for i, pkg := range packages {
		programs[i] = program{pkg: pkg, path: filepath.Join(dir, fmt.Sprintf("tests%d", i))}
		cmd := exec.CommandContext(ctx, "go", "test", "-c", "-o", programs[i].path, pkg)
		if output, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("compiling the tests of %s: %w\n%s", pkg, err, output)
		}
	}
	return programs, nil
}

// list names the tests.
func (p program) list(ctx context.Context) ([]string, error) {
	list := exec.CommandContext(ctx, p.path, "-test.list=^Test")
	list.Dir = folder(p.pkg)
	output, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("listing the tests of %s: %w", p.pkg, err)
	}
	return strings.Fields(string(output)), nil
}

// share is a part of the tests: of so many parts the one at a place.
type share struct{ at, of int }

// whole is all of them.
var whole = share{of: 1}

// nowhereLeftOut is the test that is part of every share: what PostgreSQL does with an ALTER TABLE is a version's own.
const nowhereLeftOut = "TestVerdicts"

// take takes the share's tests.
func (s share) take(tests []string) (taken []string) {
	for i, test := range tests {
		if i%s.of == s.at || test == nowhereLeftOut {
			taken = append(taken, test)
		}
	}
	return taken
}

// run runs the tests with the server programs of a folder. Tests that fail are part of the result; the error is about
// running them at all.
func (p program) run(ctx context.Context, binDir string, args []string) (result, error) {
	tests := exec.CommandContext(ctx, p.path, args...)
	tests.Dir = folder(p.pkg)
	tests.Env = append(os.Environ(), "PGSHADOW_TEST_PGBIN="+binDir)
	// An end before time is the tests' own to carry out: their servers go with them.
	tests.Cancel = func() error { return tests.Process.Signal(syscall.SIGTERM) }
	tests.WaitDelay = time.Minute
	output, err := tests.StdoutPipe()
	if err != nil {
		return result{}, fmt.Errorf("running the tests of %s: %w", p.pkg, err)
	}
	var complaint bytes.Buffer
	tests.Stderr = &complaint
	convert := exec.CommandContext(ctx, "go", "tool", "test2json", "-p", p.pkg)
	convert.Stdin = output
	events, err := convert.StdoutPipe()
	if err != nil {
		return result{}, fmt.Errorf("running the tests of %s: %w", p.pkg, err)
	}
	if err := errors.Join(tests.Start(), convert.Start()); err != nil {
		return result{}, fmt.Errorf("running the tests of %s: %w", p.pkg, err)
	}
	got, err := count(events, os.Stdout)
	converted, ended := convert.Wait(), tests.Wait()
	if err := errors.Join(err, converted, ctx.Err()); err != nil {
		return got, fmt.Errorf("reading the results of %s: %w", p.pkg, err)
	}
	if ended != nil && (got.failed == 0 || complaint.Len() > 0) { // it broke beside its tests, or hung in one
		got.failed = max(got.failed, 1)
		fmt.Printf("%s: %v\n%s", p.pkg, ended, complaint.String())
	}
	return got, nil
}

// result is what became of a number of tests; the parts of a test count one by one.
type result struct {
	passed, failed, skipped int
}

func (r *result) add(other result) {
	r.passed += other.passed
	r.failed += other.failed
	r.skipped += other.skipped
}

func (r result) line(version string, took time.Duration) string {
	text := fmt.Sprintf("PostgreSQL %s: %d tests passed", version, r.passed)
	if r.failed > 0 {
		text += fmt.Sprintf(", %d failed", r.failed)
	}
	if r.skipped > 0 {
		text += fmt.Sprintf(", %d skipped", r.skipped)
	}
	return fmt.Sprintf("%s (%s)", text, took.Round(time.Second))
}

// event is a line of go tool test2json.
type event struct {
	Action, Package, Test, Output string
}

// count reads the events to their end, and writes the output of each test that failed, or of the whole package where
// none is to blame.
func count(events io.Reader, out io.Writer) (result, error) {
	var r result
	said := map[string]*strings.Builder{}
	decoder := json.NewDecoder(events)
	for {
		var e event
		if err := decoder.Decode(&e); errors.Is(err, io.EOF) {
			return r, nil
		} else if err != nil {
			return r, fmt.Errorf("decoding a line of test2json: %w", err)
		}
		name := e.Package + " " + e.Test
		if said[name] == nil {
			said[name] = &strings.Builder{}
		}
		said[name].WriteString(e.Output)
		if err := r.take(e, said[name].String(), out); err != nil {
			return r, err
		}
	}
}

// take counts one event; output is what its test, or its package, has said.
func (r *result) take(e event, output string, out io.Writer) error {
	switch {
	case e.Test == "" && e.Action == "fail" && r.failed == 0:
		r.failed++
	case e.Test != "" && e.Action == "fail":
		r.failed++
	case e.Test != "" && e.Action == "pass":
		r.passed++
		return nil
	case e.Test != "" && e.Action == "skip":
		r.skipped++
		return nil
	default:
		return nil
	}
	_, err := fmt.Fprintf(out, "--- %s %s failed:\n%s", e.Package, e.Test, output)
	return err
}

// exactVersion asks the server program, as in "PostgreSQL 16.14".
func exactVersion(ctx context.Context, binDir string) (string, error) {
	output, err := exec.CommandContext(ctx, filepath.Join(binDir, "postgres"), "--version").Output()
	if err != nil {
		return "", fmt.Errorf("asking postgres for its version: %w", err)
	}
	_, version, found := strings.Cut(string(output), "(PostgreSQL) ")
	if !found {
		return "", fmt.Errorf("asking postgres for its version: it says %q", output)
	}
	version, _, _ = strings.Cut(strings.TrimSpace(version), " ")
	return version, nil
}
