package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/pkg/throttle"
)

// given reads a command line of alter and returns what it comes to.
func given(t *testing.T, env map[string]string, args ...string) (alterOptions, error) {
	t.Helper()
	p := &program{stdout: io.Discard, stderr: io.Discard, env: func(name string) (string, bool) { value, ok := env[name]; return value, ok }}
	var o alterOptions
	var loaded error
	app := p.app()
	app.Commands = []*cli.Command{{Name: "alter", HideHelp: true, Flags: cliFlags(o.sections()), OnUsageError: onUsageError,
		Action: func(c *cli.Context) error {
			_, loaded = p.load(c, o.sections())
			return nil
		}}}
	err := app.Run(append([]string{"pgshadow", "alter"}, args...))
	return o, errors.Join(err, loaded)
}

func configFileOf(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "alter.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// samples is a value of every flag of alter, and what it comes to.
func samples() map[string]struct {
	texts []string
	want  func(o *alterOptions)
} {
	type sample = struct {
		texts []string
		want  func(o *alterOptions)
	}
	return map[string]sample{
		"table": {[]string{`public."Order Items"`}, func(o *alterOptions) { o.config.Table = `public."Order Items"` }},
		"alter": {[]string{" add c numeric(12,2), add d text", "drop e"}, func(o *alterOptions) {
			o.config.Alters = []string{" add c numeric(12,2), add d text", "drop e"}
		}},
		"set": {[]string{"Total = round(a, 2)", `"A=""B" = c = 'x,y'`}, func(o *alterOptions) {
			o.config.Set = map[string]string{"total": "round(a, 2)", `A="B`: "c = 'x,y'"}
		}},
		"native":              {[]string{"only"}, func(o *alterOptions) { o.config.Native = migration.NativeOnly }},
		"allow-lossy":         {[]string{"true"}, func(o *alterOptions) { o.config.AllowLossy = true }},
		"expect-plan":         {[]string{"/tmp/plan.json"}, func(o *alterOptions) { o.expect = "/tmp/plan.json" }},
		"dry-run":             {[]string{"true"}, func(o *alterOptions) { o.dryRun = true }},
		"check-data":          {[]string{"true"}, func(o *alterOptions) { o.checkData = true }},
		"restart":             {[]string{"true"}, func(o *alterOptions) { o.config.Restart = true }},
		"dsn":                 {[]string{"host=a,b"}, func(o *alterOptions) { o.config.DSN = "host=a,b" }},
		"copy-workers":        {[]string{"3"}, func(o *alterOptions) { o.config.Copy.Workers = 3 }},
		"index-workers":       {[]string{"4"}, func(o *alterOptions) { o.config.Copy.IndexWorkers = 4 }},
		"chunk-time":          {[]string{"1s"}, func(o *alterOptions) { o.config.Copy.ChunkTime = time.Second }},
		"reconnect-for":       {[]string{"3m"}, func(o *alterOptions) { o.config.ReconnectFor = 3 * time.Minute }},
		"verify":              {[]string{"sample"}, func(o *alterOptions) { o.config.Verify = "sample" }},
		"max-replica-lag":     {[]string{"0"}, func(o *alterOptions) { o.config.Throttle.MaxReplicaLag = 0 }},
		"max-active-sessions": {[]string{"5"}, func(o *alterOptions) { o.config.Throttle.MaxActiveSessions = 5 }},
		"throttle-query":      {[]string{"SELECT 1, 2"}, func(o *alterOptions) { o.config.Throttle.Query = "SELECT 1, 2" }},
		"throttle-file":       {[]string{"/tmp/a,b"}, func(o *alterOptions) { o.config.Throttle.File = "/tmp/a,b" }},
		"max-rows-per-second": {[]string{"6"}, func(o *alterOptions) { o.config.Throttle.MaxRowsPerSecond = 6 }},
		"max-wal-retained":    {[]string{"3GB"}, func(o *alterOptions) { o.config.MaxWALRetained = 3 << 30 }},
		"cutover":             {[]string{"manual"}, func(o *alterOptions) { o.config.Cutover.Mode = migration.CutoverManual }},
		"lock-timeout":        {[]string{"7ms"}, func(o *alterOptions) { o.config.Cutover.LockTimeout = 7 * time.Millisecond }},
		"max-lock-hold":       {[]string{"8s"}, func(o *alterOptions) { o.config.Cutover.MaxLockHold = 8 * time.Second }},
		"cutover-attempts":    {[]string{"9"}, func(o *alterOptions) { o.config.Cutover.Attempts = 9 }},
		"matviews":            {[]string{"recreate"}, func(o *alterOptions) { o.config.MatViews = migration.RecreateMatViews }},
		"retire":              {[]string{"drop"}, func(o *alterOptions) { o.config.Retire = migration.Drop }},
		"output":              {[]string{"json"}, func(o *alterOptions) { o.output = "json" }},
		"log-format":          {[]string{"json"}, func(o *alterOptions) { o.log.format = "json" }},
		"log-level":           {[]string{"debug"}, func(o *alterOptions) { o.log.level = "debug" }},
	}
}

// presets are the defaults of the contract.
func presets() alterOptions {
	return alterOptions{output: "text", log: logOptions{"console", "info"}, config: migration.Config{Native: migration.NativeAuto, Verify: "full", Retire: migration.Keep, MatViews: migration.RefuseMatViews,
		MaxWALRetained: 50 << 30, ReconnectFor: 5 * time.Minute,
		Copy:     migration.CopyConfig{Workers: 2, IndexWorkers: 2, ChunkTime: 500 * time.Millisecond},
		Cutover:  migration.CutoverConfig{Mode: migration.CutoverAuto, LockTimeout: 500 * time.Millisecond, MaxLockHold: time.Second, Attempts: 60},
		Throttle: throttle.Config{MaxReplicaLag: 10 * time.Second}}}
}

func check(t *testing.T, what string, got alterOptions, err error, want alterOptions) {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v", what, err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: got %+v\nwant %+v", what, got, want)
	}
}

// Every flag works as a flag, as a variable, and as a key of the file.
func TestEverySettingFromEverySource(t *testing.T) {
	t.Parallel()
	got, err := given(t, nil)
	check(t, "nothing given", got, err, presets())
	all := samples()
	var o alterOptions
	for _, section := range o.sections() {
		for _, s := range section.settings {
			sample, ok := all[s.name]
			if s.name == configName {
				continue
			}
			if !ok {
				t.Errorf("%s has no sample", s.name)
				continue
			}
			want := presets()
			sample.want(&want)

			var args []string
			for _, text := range sample.texts {
				args = append(args, "--"+s.name+"="+text)
			}
			got, err := given(t, nil, args...)
			check(t, "flag "+s.name, got, err, want)

			var lines strings.Builder
			fmt.Fprintf(&lines, "%s:\n", s.name)
			for _, text := range sample.texts {
				fmt.Fprintf(&lines, "- %q\n", text)
			}
			path := configFileOf(t, lines.String())
			got, err = given(t, nil, "--config", path)
			want.file = path
			check(t, "file "+s.name, got, err, want)

			if len(sample.texts) == 1 {
				variable := "PGSHADOW_" + strings.ReplaceAll(strings.ToUpper(s.name), "-", "_")
				got, err = given(t, map[string]string{variable: sample.texts[0]})
				want.file = ""
				check(t, variable, got, err, want)
			}
		}
	}
}

func TestVariablesOfRepeatedFlags(t *testing.T) {
	t.Parallel()
	got, err := given(t, map[string]string{"PGSHADOW_ALTER": "add c numeric(12,2), add d text", "PGSHADOW_SET": "c=round(a, 2)"})
	want := presets()
	want.config.Alters = []string{"add c numeric(12,2), add d text"}
	want.config.Set = map[string]string{"c": "round(a, 2)"}
	check(t, "one value each", got, err, want)
}

// A flag wins over a variable, a variable over the file, the file over the preset.
func TestPrecedence(t *testing.T) {
	t.Parallel()
	path := configFileOf(t, "table: from_file\nalter: [drop a, drop b]\ncopy-workers: 5\nrestart: true\nchunk-time: 2s\n")
	env := map[string]string{"PGSHADOW_CONFIG": path, "PGSHADOW_TABLE": "from_env", "PGSHADOW_ALTER": "drop c", "PGSHADOW_COPY_WORKERS": "6",
		"PGSHADOW_CHUNK_TIME": ""}
	want := presets()
	want.file = path
	want.config.Copy.ChunkTime = 2 * time.Second // an empty variable counts as none

	want.config.Table, want.config.Alters, want.config.Copy.Workers, want.config.Restart = "from_file", []string{"drop a", "drop b"}, 5, true
	got, err := given(t, map[string]string{"PGSHADOW_CONFIG": path})
	check(t, "file", got, err, want)

	want.config.Table, want.config.Alters, want.config.Copy.Workers = "from_env", []string{"drop c"}, 6
	got, err = given(t, env)
	check(t, "variables", got, err, want)

	want.config.Table, want.config.Alters, want.config.Copy.Workers, want.config.Restart = "from_flag", []string{"drop d", "drop e"}, 7, false
	got, err = given(t, env, "--table", "from_flag", "--alter", "drop d", "--alter", "drop e", "--copy-workers", "7", "--restart=false")
	check(t, "flags", got, err, want)

	other := configFileOf(t, "table: other\n")
	want = presets()
	want.config.Table, want.file = "other", other
	got, err = given(t, map[string]string{"PGSHADOW_CONFIG": path}, "--config", other)
	check(t, "the file itself", got, err, want)
}

func TestFileProblems(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ text, want string }{
		"unknown keys":   {"table: t\ntabel: t\ncopy_workers: 2\n", "FILE line 2: there is no setting \"tabel\"\nFILE line 3: there is no setting \"copy_workers\""},
		"itself":         {"config: other.yaml\n", `FILE line 1: there is no setting "config"`},
		"twice":          {"table: a\ntable: b\n", `FILE line 2: "table" is given twice`},
		"a list":         {"table: [a, b]\n", "FILE line 1: table is given 2 times: want one value"},
		"a map":          {"set: {a: b}\n", `FILE line 1: "set" is neither a text nor a list of texts`},
		"a list of maps": {"alter:\n- add: c\n", `FILE line 1: "alter" is neither a text nor a list of texts`},
		"an empty list":  {"alter: []\n", `FILE line 1: "alter" has no value`},
		"an empty item":  {"alter: [drop a, ]\nset: [~]\n", `FILE line 2: "set" has no value`},
		"no value":       {"table:\n", `FILE line 1: "table" has no value`},
		"wrong values":   {"chunk-time: 5\nrestart: maybe\n", "FILE line 2: restart is \"maybe\": want true or false\nFILE line 1: chunk-time is \"5\": want a duration such as 500ms, 10s or 2m"},
		"a text":         {"table\n", "reading the --config file FILE: want lines of name: value"},
		"two documents":  {"table: a\n---\ntable: b\n", "reading the --config file FILE: want one YAML document"},
		"no YAML":        {"table: [a\n", "reading the --config file FILE: yaml: line 1: did not find expected ',' or ']'"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := configFileOf(t, c.text)
			_, err := given(t, nil, "--config", path)
			if want := strings.ReplaceAll(c.want, "FILE", path); err == nil || err.Error() != want {
				t.Errorf("got %v\nwant %s", err, want)
			}
		})
	}
	if _, err := given(t, nil, "--config", "/nowhere/a.yaml"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	got, err := given(t, nil, "--config", configFileOf(t, "# nothing yet\n"))
	if err != nil || got.config.Copy.Workers != 2 {
		t.Errorf("of an empty file: %+v, %v", got, err)
	}
}

func TestAssignment(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][2]string{
		"a=b":              {"a", "b"},
		" A = b = c ":      {"a", "b = c"},
		`"A b"=1`:          {"A b", "1"},
		`"A""=" = 1`:       {`A"=`, "1"},
		"ÄB=1":             {"Äb", "1"},
		"=1":               {},
		"a=":               {},
		"a = ":             {},
		"a":                {},
		"":                 {},
		`"a=1`:             {},
		`""=1`:             {},
		`"a"b=1`:           {},
		`a"=1`:             {`a"`, "1"}, // the server says what it thinks of it
		"x=CASE WHEN a=b,": {"x", "CASE WHEN a=b,"},
	} {
		column, expression, err := assignment(text)
		if (err == nil) != (want[0] != "") || column != want[0] || expression != want[1] {
			t.Errorf("%q: got %q, %q, %v", text, column, expression, err)
		}
	}
}

func TestPasswordInDSN(t *testing.T) {
	t.Parallel()
	for dsn, want := range map[string]bool{
		"postgres://u:p@h/d":             true,
		"postgresql://u:@h/d":            true,
		"postgres://u@h/d":               false,
		"postgres://h/d?password=p":      true,
		"postgres://h/d?sslpassword=p":   true,
		"host=h password=p":              true,
		"host=h PassWord = p":            true,
		"sslpassword=p":                  true,
		"host=h passfile=/home/password": false,
		"host=password user=u":           false,
		"":                               false,
	} {
		if got := hasPassword(dsn); got != want {
			t.Errorf("%s: got %t", dsn, got)
		}
	}
	for _, dsn := range []string{"postgres:///d?host=/tmp&user=me@corp", "postgres://me%40corp:a%2Fb@h:1/d?application_name=a@b", "host=h user=me@corp", ""} {
		if err := checkDSN(dsn); err != nil {
			t.Errorf("%s: %v", dsn, err)
		}
	}
}
