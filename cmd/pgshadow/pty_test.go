package main

import (
	"io"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/creack/pty"
)

// onTerminal starts the program on a terminal of 70 columns, in its foreground.
func onTerminal(t *testing.T, env []string, args ...string) (cmd *process, keys *os.File, output *strings.Builder) {
	t.Helper()
	p := &process{Cmd: command(t, env, args...), t: t}
	keys, err := pty.StartWithSize(p.Cmd, &pty.Winsize{Rows: 24, Cols: 70})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = keys.Close() })
	return p, keys, &strings.Builder{}
}

// readUntil reads what comes to the terminal, until text has come; without text
// until the program has ended, which Linux reports as EIO.
func readUntil(t *testing.T, from io.Reader, output *strings.Builder, text string) {
	t.Helper()
	buffer := make([]byte, 4096)
	for text == "" || !strings.Contains(output.String(), text) {
		n, err := from.Read(buffer)
		output.Write(buffer[:n])
		if err != nil {
			if text != "" {
				t.Fatalf("%q never came: %v\n%q", text, err, output.String())
			}
			return
		}
	}
}

// On a terminal one line lives below the log, as wide as the terminal at most. It
// is gone after Ctrl-C, and the cursor is back.
func TestTerminal(t *testing.T) {
	t.Parallel()
	_, env := orders(t, 5000)
	cmd, keys, output := onTerminal(t, append(env, "TERM=xterm"), with(toBigint, "--max-rows-per-second", "100", "--copy-workers", "1")...)
	readUntil(t, keys, output, "held to 100 rows/s")
	if _, err := keys.WriteString("\x03"); err != nil {
		t.Fatal(err)
	}
	readUntil(t, keys, output, "")
	if code := exitCode(t, cmd.Wait()); code != 5 {
		t.Errorf("it ended with %d", code)
	}
	seen := newTerminal(t, 70)
	_, _ = io.WriteString(seen, output.String())
	if !seen.cursor || strings.Count(output.String(), hideCursor) != 1 || strings.Count(output.String(), showCursor) != 1 {
		t.Errorf("the cursor is not back")
	}
	live := regexp.MustCompile(`^copy  \d+s  20\.0%(  1\.0k of 5\.0k rows)?.*  held to 100 rows/s$`)
	lived := 0
	for _, row := range seen.drawn {
		if live.MatchString(row) {
			lived++
		}
	}
	if lived == 0 {
		t.Errorf("no live line was drawn in %q", seen.drawn)
	}
	var starts []string
	for _, row := range seen.rows {
		text := string(row)
		if words := strings.Fields(text); regexp.MustCompile(`^\d{4}-`).MatchString(text) && len(words) > 4 {
			starts = append(starts, strings.Join(words[2:5], " "))
		} else if regexp.MustCompile(`^(preflight|prepare|copy)  \d+s`).MatchString(text) {
			t.Errorf("a live line is left: %q", text)
		}
	}
	want := "INF phase started|INF phase finished|INF phase started|INF run started|INF phase finished|INF phase started|WRN stopping cleanly;|ERR run ended"
	if got := strings.Join(starts, "|"); got != want {
		t.Errorf("the log's lines begin with %s\nwant %s\nin\n%s", got, want, seen)
	}
	if !regexp.MustCompile(`\x1b\[\d+m`).MatchString(output.String()) {
		t.Error("the log has no colors")
	}
	if !strings.Contains(seen.String(), "\noutcome         stopped (exit code 5)\n") {
		t.Errorf("no report in\n%s", seen)
	}
}

// Colors go with NO_COLOR and on a dumb terminal, which has no live line either.
func TestScreenOfTerminal(t *testing.T) {
	t.Parallel()
	keys, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = keys.Close(); _ = tty.Close() })
	if err := pty.Setsize(tty, &pty.Winsize{Rows: 24, Cols: 70}); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		env         map[string]string
		log         logOptions
		color, live bool
	}{
		"terminal":       {map[string]string{"TERM": "xterm"}, logOptions{console, "info"}, true, true},
		"no TERM":        {nil, logOptions{console, "debug"}, true, true},
		"no color":       {map[string]string{"TERM": "xterm", "NO_COLOR": "1"}, logOptions{console, "info"}, false, true},
		"empty NO_COLOR": {map[string]string{"NO_COLOR": ""}, logOptions{console, "info"}, true, true},
		"dumb":           {map[string]string{"TERM": "dumb"}, logOptions{console, "info"}, false, false},
		"JSON":           {map[string]string{"TERM": "xterm"}, logOptions{jsonLog, "info"}, false, false},
		"quiet":          {map[string]string{"TERM": "xterm"}, logOptions{console, "warn"}, true, false},
	} {
		s := newScreen(tty, c.log, func(name string) (string, bool) { value, ok := c.env[name]; return value, ok })
		if s.color != c.color || s.live != c.live || s.live && s.width() != 70 {
			t.Errorf("%s: color %t, live %t, width %d", name, s.color, s.live, s.width())
		}
	}
}
