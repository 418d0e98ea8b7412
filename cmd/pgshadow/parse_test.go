package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/pkg/shadow"
)

func childParser(path string) migration.ParseFunc {
	return parseInChild(func() (string, error) { return path, nil })
}

// script makes a program of shell commands that stands in for pgshadow.
func script(t *testing.T, commands string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pgshadow")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+commands+"\n"), 0o700); err != nil { //nolint:gosec // it is to be run
		t.Fatal(err)
	}
	return path
}

// The child gives what shadow.Parse gives, errors and their types included.
func TestParseInChild(t *testing.T) {
	t.Parallel()
	parseThere := childParser(binary)
	for name, c := range map[string]struct {
		alters []string
		set    map[string]string
	}{
		"change":  {[]string{"alter a type bigint using (b + a)::bigint, add d int", "drop column c"}, map[string]string{"d": "lower(b) || '\"€<&'"}},
		"syntax":  {[]string{"alter ä tipe bigint"}, nil},
		"refusal": {[]string{"alter a type int using (select 1)"}, nil},
		"two":     {[]string{"drop a; drop table b"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := parseThere(t.Context(), "orders", c.alters, c.set)
			want, wantErr := shadow.Parse("orders", c.alters, c.set)
			if want != nil {
				if err != nil || !reflect.DeepEqual(got.Alters, want.Alters) || !reflect.DeepEqual(got.Using, want.Using) || !reflect.DeepEqual(got.Set, want.Set) {
					t.Errorf("got %+v, %v\nwant %+v", got, err, want)
				}
				return
			}
			var syntax, wantSyntax *shadow.SyntaxError
			if errors.As(wantErr, &wantSyntax) && (!errors.As(err, &syntax) || *syntax != *wantSyntax) {
				t.Errorf("got %#v, want %#v", err, wantErr)
			}
			var refusal, wantRefusal *shadow.Refusal
			if errors.As(wantErr, &wantRefusal) && (!errors.As(err, &refusal) || *refusal != *wantRefusal) {
				t.Errorf("got %#v, want %#v", err, wantErr)
			}
			if wantSyntax == nil && wantRefusal == nil {
				t.Errorf("it gives %v", wantErr)
			}
		})
	}
}

func TestParseInChildFails(t *testing.T) {
	t.Parallel()
	const prefix = "parsing in a process of its own"
	for name, c := range map[string]struct{ commands, want string }{
		"killed":       {"kill -KILL $$", prefix + ", which died: signal: killed; the parser needs 250 MB for a moment, and a system that is short of memory kills it"},
		"panics":       {"printf 'panic: no more\\n\\ngoroutine 1\\n' >&2; exit 2", prefix + ", which died: exit status 2: panic: no more"},
		"empty":        {"cat >/dev/null", "reading the answer of the parsing process: unexpected end of JSON input"},
		"empty answer": {"echo '{}'", "the parsing process gave an empty answer"},
		"other error":  {`echo '{"error":"no such thing"}'`, "no such thing"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := childParser(script(t, c.commands))(t.Context(), "t", []string{"drop a"}, nil)
			if err == nil || err.Error() != c.want {
				t.Errorf("got %v\nwant %s", err, c.want)
			}
		})
	}
	_, err := childParser("/nowhere/pgshadow")(t.Context(), "t", nil, nil)
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	_, err = parseInChild(func() (string, error) { return "", os.ErrPermission })(t.Context(), "t", nil, nil)
	if !errors.Is(err, os.ErrPermission) {
		t.Errorf("got %v", err)
	}
}

// The end of the run's context ends the child, and is what comes back.
func TestParseInChildIsCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	fifo := filepath.Join(t.TempDir(), "running")
	if output, err := exec.Command("mkfifo", fifo).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	go func() {
		_, _ = os.ReadFile(fifo) // returns once the child has written
		cancel()
	}()
	began := time.Now()
	_, err := childParser(script(t, "echo >"+fifo+"; exec sleep 3600"))(ctx, "t", nil, nil)
	if !errors.Is(err, context.Canceled) || time.Since(began) > parseLimit/2 {
		t.Errorf("after %s: %v", time.Since(began), err)
	}
}

// A signal to all processes of a terminal ends the run, not the parsing, even when
// the child dies of it first.
func TestParseInChildIsInterrupted(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	died := exec.Command(script(t, "kill -INT $$")).Run()
	defer cancel()
	go cancel()
	if err := childError(ctx, ctx, died, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// The child's arguments and environment hold nothing that leads to a database.
func TestChildKnowsNoConnection(t *testing.T) {
	for _, name := range []string{"PGPASSWORD", "PGSHADOW_DSN", "PGHOST", "PGPASSFILE", "PGSERVICE"} {
		t.Setenv(name, "hunter2")
	}
	t.Setenv("KEPT", "kept")
	seen := filepath.Join(t.TempDir(), "seen")
	path := script(t, `{ echo "$0 $*"; env; cat; } >`+seen+`; echo '{"change":{}}'`)
	if _, err := childParser(path)(t.Context(), "orders", []string{"drop a"}, nil); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(seen)
	if err != nil {
		t.Fatal(err)
	}
	text := string(content)
	if strings.Contains(text, "hunter2") || strings.Contains(text, "\nPG") || !strings.Contains(text, "KEPT=kept") ||
		!strings.HasPrefix(text, path+" internal-parse\n") || !strings.Contains(text, `{"table":"orders","alters":["drop a"],"set":null}`) {
		t.Errorf("it sees\n%s", text)
	}
}

// By hand the hidden command says what is wrong with its input.
func TestParseCommand(t *testing.T) {
	t.Parallel()
	cmd := command(t, nil, parseName)
	cmd.Stdin = strings.NewReader("no JSON")
	output, err := cmd.CombinedOutput()
	if exitCode(t, err) != 1 || !strings.HasPrefix(string(output), "pgshadow: reading what to parse: ") {
		t.Errorf("got %v\n%s", err, output)
	}
	if got := runProgram(t, nil, "help", parseName); got.code != 2 {
		t.Errorf("it has a help: %s", got)
	}
}
