package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/pgshadow/pgshadow/cutover"
	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/pkg/shadow"
	"github.com/pgshadow/pgshadow/pkg/verify"
)

func TestTextReport(t *testing.T) {
	t.Parallel()
	done := migration.Report{RunID: "abc", Table: "public.orders", Method: "shadow", Outcome: migration.Done, RowsCopied: 1234567, ChangesReceived: 1000, KeysReplayed: 900,
		Verify:  verify.Report{Mode: verify.Full, RowsCompared: 1234567, OriginalRows: 1234567, ShadowRows: 1234567, DigestOriginal: "0a", DigestShadow: "0a", Rechecked: 12},
		Cutover: cutover.Report{Attempts: 1, LockWaitMS: 1.25, LockHoldMS: 14.5, FenceMS: 3}, RetiredTable: "pgshadow_abc_retired.orders", DurationMS: 83_000,
		Phases: []migration.PhaseDuration{{Name: "copy", DurationMS: 80_123}, {Name: "catch_up", DurationMS: 7}}}
	dropped := done
	dropped.RetiredTable, dropped.Verify = "", verify.Report{Mode: verify.Off}
	dropped.Cutover.Attempts = 3
	dropped.Phases = nil
	warned := dropped
	warned.Warnings = []string{"the change is done, but:\nsomething is left behind", "look"}
	for name, c := range map[string]struct {
		report migration.Report
		want   string
	}{
		"warned": {warned, `
table           public.orders
run             abc
outcome         done
warning         the change is done, but:
                something is left behind
warning         look
rows copied     1,234,567
changes         1,000 received, 900 keys replayed
verification    off
cutover         3 attempts; the last waited 1.2 ms for the lock and held it 14.5 ms, 3.0 ms of that for the fence
retired table   dropped
duration        1m23s
`},
		"done": {done, `
table           public.orders
run             abc
outcome         done
rows copied     1,234,567
changes         1,000 received, 900 keys replayed
verification    full: 1,234,567 rows compared, 0 mismatches, 12 compared again
  digests       original 0a, shadow 0a
cutover         1 attempt; the last waited 1.2 ms for the lock and held it 14.5 ms, 3.0 ms of that for the fence
retired table   pgshadow_abc_retired.orders
  drop it with  pgshadow finish --table public.orders
duration        1m23s

copy              1m20s
catch_up        0.007 s
`},
		"dropped": {dropped, `
table           public.orders
run             abc
outcome         done
rows copied     1,234,567
changes         1,000 received, 900 keys replayed
verification    off
cutover         3 attempts; the last waited 1.2 ms for the lock and held it 14.5 ms, 3.0 ms of that for the fence
retired table   dropped
duration        1m23s
`},
		"refused": {migration.Report{Table: "orders", Outcome: migration.Refused, ExitCode: 3, DurationMS: 5, Error: &migration.ReportError{
			Message: "preflight: ...", Check: "trigger", State: "nothing was created, orders is untouched",
			Refusals: []*shadow.Refusal{{Check: "trigger", Reason: "it has a trigger", Remedy: "drop it"}, {Check: "view", Reason: "it has a view", Remedy: "drop that"}}}}, `
table           orders
outcome         refused (exit code 3)
refused         it has a trigger
  check         trigger
  remedy        drop it
refused         it has a view
  check         view
  remedy        drop that
state           nothing was created, orders is untouched
duration        0.005 s
`},
		"syntax error": {migration.Report{Table: "orders", Outcome: migration.Refused, ExitCode: 3, DurationMS: 5, Error: &migration.ReportError{
			Message: (&shadow.SyntaxError{Message: `syntax error at or near "TIPE"`, Text: "ALTER a TIPE bigint", Position: 9}).Error(), Check: "alter", Remedy: "correct it"}}, `
table           orders
outcome         refused (exit code 3)
error           syntax error at or near "TIPE" at character 9 of --alter:
                  ALTER a TIPE bigint
                          ^
check           alter
remedy          correct it
duration        0.005 s
`},
		"aborted": {migration.Report{RunID: "abc", Table: "orders", Outcome: migration.Aborted, ExitCode: 4, DurationMS: 5, RowsCopied: 7, Error: &migration.ReportError{
			Message: "copy: the new schema refuses a row: \x1b[2Joverflow\n  in detail", SQLState: "22003", State: "all has been removed"}}, `
table           orders
run             abc
outcome         aborted (exit code 4)
error           copy: the new schema refuses a row:  [2Joverflow
                  in detail
sqlstate        22003
state           all has been removed
rows copied     7
changes         0 received, 0 keys replayed
duration        0.005 s
`},
	} {
		if got := textReport(c.report); got != strings.TrimPrefix(c.want, "\n") {
			t.Errorf("%s: got\n%s\nwant%s", name, got, c.want)
		}
	}
}

// Lists are lists in JSON, and the text is not escaped for the web.
func TestJSONReport(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	p := &program{stdout: &out}
	if err := p.writeReport("json", migration.Report{Table: "orders", Error: &migration.ReportError{Message: "a < b"}}); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); !strings.Contains(got, "\n  \"phases\": []\n") || !strings.HasSuffix(got, "}\n") || !strings.Contains(got, "a < b") {
		t.Errorf("got\n%s", got)
	}
}

// Each warning is a line of the log, before the last one.
func TestLogEnd(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	logEnd(zerolog.New(&out), migration.Report{Table: "orders", Outcome: migration.Done, Warnings: []string{"one", "two"}})
	want := `{"level":"warn","warning":"one","message":"warned"}
{"level":"warn","warning":"two","message":"warned"}
{"level":"info","table":"orders","outcome":"done","exit_code":0,"duration_ms":0,"message":"run ended"}
`
	if out.String() != want {
		t.Errorf("got\n%s", out.String())
	}
}
