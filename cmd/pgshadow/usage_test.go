package main

import (
	"encoding/json"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
)

func TestHelp(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{
		"help":          {"--help"},
		"help_alter":    {"alter", "--help"},
		"help_plan":     {"plan", "--help"},
		"help_cleanup":  {"cleanup", "--help"},
		"help_rehearse": {"rehearse", "--help"},
		"help_finish":   {"finish", "--help"},
		"help_version":  {"version", "-h"},
		"help_status":   {"status", "--help"},
		"help_history":  {"history", "--help"},
		"help_pause":    {"pause", "--help"},
		"help_resume":   {"resume", "--help"},
		"help_cutover":  {"cutover", "--help"},
		"help_abort":    {"abort", "--help"},
		"help_set":      {"set", "--help"},
		"help_man":      {"man", "--help"},

		"help_completion": {"completion", "--help"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := runProgram(t, []string{"PGSHADOW_DSN=postgres://u:hunter2@h/d", "PGSHADOW_TABLE=orders"}, args...)
			if got.code != 0 || got.stderr != "" {
				t.Errorf("got %s", got)
			}
			golden(t, name, got.stdout)
			for line := range strings.Lines(got.stdout) {
				if len(line) > 101 {
					t.Errorf("a line of more than 100 columns: %s", line)
				}
			}
		})
	}
	for _, args := range [][]string{{"help"}, {"help", "alter"}} {
		other := append(append([]string{}, args[1:]...), "--help")
		if got, want := runProgram(t, nil, args...), runProgram(t, nil, other...); got != want {
			t.Errorf("%v: got %s", args, got)
		}
	}
}

// Everything that is built is in the help, and nothing else.
func TestHelpIsComplete(t *testing.T) {
	t.Parallel()
	help := runProgram(t, nil, "alter", "--help").stdout
	for _, flag := range []string{"dsn", "table", "alter", "set", "copy-workers", "index-workers", "chunk-time", "max-replica-lag",
		"max-active-sessions", "throttle-query", "throttle-file", "max-rows-per-second", "verify", "lock-timeout", "max-lock-hold",
		"cutover", "cutover-attempts", "max-wal-retained", "reconnect-for", "retire", "restart", "native", "allow-lossy", "expect-plan", "dry-run", "check-data", "config", "output", "log-format", "log-level"} {
		if !strings.Contains(help, "  --"+flag+" ") {
			t.Errorf("the help does not name --%s", flag)
		}
	}
	for _, flag := range []string{"kill-blockers", "rollback-window", "hooks", "http"} {
		got := runProgram(t, nil, "alter", "--"+flag)
		if want := "pgshadow alter: there is no flag --" + flag + "\nsee: pgshadow alter --help\n"; got != (ended{2, "", want}) {
			t.Errorf("--%s: got %s", flag, got)
		}
	}
	for _, command := range []string{"verify", "rollback"} {
		got := runProgram(t, nil, command)
		if want := "pgshadow: there is no command \"" + command + "\"\nsee: pgshadow --help\n"; got != (ended{2, "", want}) {
			t.Errorf("%s: got %s", command, got)
		}
	}
}

// pgshadow set takes its argument before the flags, after them, and between them.
func TestArgumentOfSet(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args string
		want string // what is wrong
	}{
		{"set", `"": want NAME=VALUE, such as chunk-time=1s`},
		{"set chunk-time", `"chunk-time": want NAME=VALUE, such as chunk-time=1s`},
		{"set chunk-time=x", `chunk-time is "x": want a duration of at least 1ms, such as 500ms, 10s or 2m`},
		{"set --dsn host=h chunk-time=x --output json", `chunk-time is "x": want a duration of at least 1ms, such as 500ms, 10s or 2m`},
		{"set --output=json copy-workers=33", "copy-workers is 33: want 1 to 32"},
		{"set cutover=", "cutover is empty: want a word"},
		{"set chunk-time=1s verify=full", `unexpected argument "verify=full": every value belongs to a flag`},
		{"set chunk-time=1s --bogus x", "there is no flag --bogus"},
		{"pause now", `unexpected argument "now": every value belongs to a flag`},
	} {
		args := strings.Fields(c.args)
		got := runProgram(t, []string{"PGSHADOW_TABLE=t"}, args...)
		command := "pgshadow " + args[0]
		if want := command + ": " + c.want + "\nsee: " + command + " --help\n"; got != (ended{2, "", want}) {
			t.Errorf("%s: got %s", c.args, got)
		}
	}
	if got := runProgram(t, nil, "set", "chunk-time=1s"); got.code != 2 || !strings.Contains(got.stderr, "table is missing") {
		t.Errorf("without a table: got %s", got)
	}
	if got := runProgram(t, nil, "set", "speed=1", "--table", "t"); got.code != 2 || !strings.Contains(got.stderr, "speed cannot be set while a run is on; these can: chunk-time, copy-workers,") {
		t.Errorf("an unknown name: got %s", got)
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"version"}, {"--version"}} {
		got := runProgram(t, nil, args...)
		if got.code != 0 || got.stderr != "" || !strings.HasPrefix(got.stdout, "pgshadow ") || strings.Count(got.stdout, "\n") != 1 {
			t.Errorf("%v: got %s", args, got)
		}
	}
}

func TestVersionJSON(t *testing.T) {
	t.Parallel()
	got := runProgram(t, nil, "version", "--output", "json")
	var printed build
	if err := json.Unmarshal([]byte(got.stdout), &printed); err != nil {
		t.Fatalf("%v in %s", err, got)
	}
	if line := runProgram(t, nil, "version").stdout; printed.String()+"\n" != line || printed.Go != runtime.Version() {
		t.Errorf("it is %+v, the line is %q", printed, line)
	}
}

func TestVersionLine(t *testing.T) {
	t.Parallel()
	noted := &debug.BuildInfo{Main: debug.Module{Version: "v1.0.0"}, Settings: []debug.BuildSetting{
		{Key: "vcs.revision", Value: "abc"}, {Key: "vcs.time", Value: "2026-01-31T12:00:00Z"}}}
	for _, c := range []struct {
		set  build
		want string
	}{
		{build{Go: "go1.26", Platform: "linux/arm64"}, "pgshadow v1.0.0, commit abc of 2026-01-31T12:00:00Z, go1.26 linux/arm64"},
		{build{"v2.0.0", "def", "2026-02-01T00:00:00Z", "go1.26", "linux/arm64"}, "pgshadow v2.0.0, commit def of 2026-02-01T00:00:00Z, go1.26 linux/arm64"},
	} {
		b := c.set
		b.complete(noted)
		if b.String() != c.want {
			t.Errorf("got %q, want %q", b, c.want)
		}
	}
}

// Usage errors end with 2, name every problem on a line of its own on stderr, and
// leave stdout empty, whatever the form of the output.
func TestUsageErrors(t *testing.T) {
	t.Parallel()
	const (
		noTable   = "table is missing: say which with --table [schema.]name"
		noAlter   = `alter is missing: say what to change with --alter "..."`
		badURL    = "dsn is not a URL as PostgreSQL takes it: want postgres://user:password@host:port/database, with %2F for / and %40 for @ in a password (%23 for #, %3F for ?)"
		needsText = " needs a value"
	)
	for name, c := range map[string]struct {
		args []string
		env  []string
		want []string
	}{
		"nothing":        {want: []string{noTable, noAlter}},
		"JSON":           {args: []string{"--output", "json"}, want: []string{noTable, noAlter}},
		"unknown flag":   {args: []string{"--tabel", "x"}, want: []string{"there is no flag --tabel"}},
		"no value":       {args: []string{"--table"}, want: []string{"--table" + needsText}},
		"argument":       {args: []string{"orders"}, want: []string{`unexpected argument "orders": every value belongs to a flag`, noTable, noAlter}},
		"DSN misplaced":  {args: []string{"postgres://u:hunter2@h/d"}, want: []string{"unexpected argument that looks like a connection string: every value belongs to a flag", noTable, noAlter}},
		"slash":          {args: []string{"--table", "t", "--alter", "a", "--dsn", "postgres://u:hun/ter2@h/d"}, want: []string{badURL}},
		"slash and port": {args: []string{"--table", "t", "--alter", "a", "--dsn", "postgres://u:12/hunter2@h/d"}, want: []string{badURL}},
		"question mark":  {args: []string{"--table", "t", "--alter", "a", "--dsn", "postgres://u:12?hunter2@h/d"}, want: []string{badURL}},
		"hash":           {args: []string{"--table", "t", "--alter", "a"}, env: []string{"PGSHADOW_DSN=postgres://u:12#hunter2@h/d"}, want: []string{badURL}},
		"sslmode":        {args: []string{"--table", "t", "--alter", "a", "--dsn", "host=h password=hunter2 sslmode=maybe"}, want: []string{"dsn is wrong: reading the connection settings: sslmode is invalid"}},
		"every kind": {
			args: []string{"--chunk-time", "5x", "--lock-timeout", "100us", "--max-replica-lag", "-1s", "--copy-workers", "0", "--index-workers", "33",
				"--set", "a", "--set", "B=1", "--set", "b=2", "--output", "xml", "--log-level", "loud", "--retire", "burn", "--verify", "maybe"},
			env: []string{"PGSHADOW_MAX_ACTIVE_SESSIONS=many"},
			want: []string{
				`set is "a": want column=expression`,
				`set is "b=2": column "b" has a value already`,
				`copy-workers is "0": want a whole number of at least 1`,
				`chunk-time is "5x": want a duration such as 500ms, 10s or 2m`,
				`max-replica-lag is "-1s": want a duration of zero (off) or more`,
				`PGSHADOW_MAX_ACTIVE_SESSIONS: max-active-sessions is "many": want a whole number of at least 0`,
				`lock-timeout is "100us": want a duration of at least 1ms`,
				`output is "xml": want text, json or sql`,
				`log-level is "loud": want debug, info, warn or error`,
				noTable, noAlter,
				"index-workers is 33: want 1 to 32",
				`verify is "maybe": want full, sample or off`,
				`retire is "burn": want keep or drop`,
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := runProgram(t, c.env, append([]string{"alter"}, c.args...)...)
			want := "pgshadow alter: " + strings.Join(c.want, "\npgshadow alter: ") + "\nsee: pgshadow alter --help\n"
			if got != (ended{2, "", want}) {
				t.Errorf("got %s\nwant on stderr:\n%s", got, want)
			}
		})
	}
	if got := runProgram(t, nil); got.code != 2 || got.stdout != "" || !strings.HasPrefix(got.stderr, "pgshadow: a command is missing") {
		t.Errorf("without a command: got %s", got)
	}
}
