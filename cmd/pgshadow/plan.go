package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/pgshadow/pgshadow/pkg/migration"
)

const planHelp = `Tell what a change would come to, and change nothing: what PostgreSQL itself would do
with it, by trial; every statement of the run with its lock; sizes, disk space, WAL and
time; what is refused; and which rows do not fit. What is tried is rolled back.

Usage: pgshadow plan --table [schema.]name --alter "..." [flags]

It is the same as pgshadow alter --dry-run, and takes the flags of alter.
`

const planTail = `Exit codes:
  0  nothing refuses the change; look at the rows that do not fit, if any
  1  the plan could not be made
  2  wrong usage
  3  the change would be refused
  5  it was interrupted, or the server cannot be reached
`

// planForms are the forms of a plan.
var planForms = []string{"text", "json", "sql"}

// notOfPlan are the flags of alter and rehearse that a plan has no use for.
var notOfPlan = []string{"dry-run", "log-format", "log-level", scaleToName}

func (p *program) planCommand() spec {
	o := &alterOptions{dryRun: true}
	return spec{
		name: "plan", brief: "what a change would come to", help: planHelp, tail: planTail,
		sections: []section{
			{"What to change", append(o.changeSettings(), checkDataSetting(&o.checkData))},
			{"Where", connectionSettings(&o.config.DSN)},
			{"Work", o.workSettings()},
			{"Load", o.loadSettings()},
			{"Cutover", o.cutoverSettings()},
			{"Output", []setting{
				{name: "output", words: planForms, preset: "text", take: oneOf(&o.output, planForms...), help: "form of the plan on stdout; sql is for psql\non a small table"},
				configSetting(&o.file)}},
		},
		ignores: notOfPlan,
		check:   func(string) error { return errors.Join(checkDSN(o.config.DSN), o.config.Validate(), o.readPlan()) },
		run:     func(ctx context.Context, _ string, _ origins) error { return p.plan(ctx, o) },
	}
}

func checkDataSetting(into *bool) setting {
	return setting{name: "check-data", take: toggle(into), help: "try every row, not a sample; one transaction is open meanwhile"}
}

func (p *program) plan(ctx context.Context, o *alterOptions) error {
	o.config.Parse = parseInChild(p.executable)
	var report migration.PlanReport
	stopping := func(which os.Signal) { p.tell("pgshadow: %s: what is being tried is rolled back\n", which) }
	err, abandoned := supervise(ctx, stopSignals(), stopping, func(ctx context.Context) (err error) {
		report, err = migration.Plan(ctx, migration.PlanConfig{Config: o.config, CheckData: o.checkData})
		return err
	})
	if abandoned {
		return &exitError{migration.Stopped.ExitCode()}
	}
	if err != nil {
		p.tell("pgshadow: no plan could be made, and nothing was created: %v\n", err)
		return &exitError{report.ExitCode}
	}
	if err := p.writePlan(o.output, report); err != nil {
		return err
	}
	if report.ExitCode != 0 {
		return &exitError{report.ExitCode}
	}
	return nil
}

func (p *program) writePlan(form string, report migration.PlanReport) error {
	text := ""
	switch form {
	case "json":
		return p.writeJSON(report)
	case "sql":
		text = report.Script()
	default:
		text = textPlan(report)
	}
	if _, err := p.stdout.Write([]byte(text)); err != nil {
		return fmt.Errorf("writing the plan: %w", err)
	}
	return nil
}

// readPlan reads the plan that --expect-plan names.
func (o *alterOptions) readPlan() error {
	if o.expect == "" {
		return nil
	}
	content, err := os.ReadFile(o.expect)
	if err != nil {
		return fmt.Errorf("expect-plan: %w", err)
	}
	var plan migration.PlanReport
	if err := json.Unmarshal(content, &plan); err != nil || plan.Facts == nil {
		return fmt.Errorf("expect-plan is %q: want a file that pgshadow plan --output json has written", o.expect)
	}
	o.config.Expect = &plan
	return nil
}

var verdictWords = map[string]string{
	"instant":       "instant: PostgreSQL changes its catalog, and no rows",
	"index_rebuild": "index_rebuild: PostgreSQL builds indexes, under its lock",
	"scan":          "scan: PostgreSQL reads every row, under its lock",
	"rewrite":       "rewrite: PostgreSQL writes every row anew, under its lock",
	"refused":       "refused: PostgreSQL does not make it in place",
	"unknown":       "unknown: it is found by trial, which needs the primary",
}

var methodWords = map[migration.PlanMethod]string{
	"native": "native: pgshadow leads PostgreSQL itself through it, with short locks",
	"shadow": "shadow: pgshadow copies the table, and swaps the two",
	"":       "none: the change would be refused, see below",
}

func textPlan(r migration.PlanReport) string {
	s := &sheet{}
	s.row("table", "%s", r.Table)
	s.row("alter", "%s", strings.Join(r.Alters, "\n"))
	s.judged(r)
	if r.Facts != nil {
		s.row("size", "%s rows, about; heap %s, TOAST %s, indexes %s; %s in all", grouped(r.Sizes.Rows),
			bytesText(r.Sizes.HeapBytes), bytesText(r.Sizes.ToastBytes), bytesText(r.Sizes.IndexBytes), bytesText(r.Sizes.TotalBytes))
	}
	s.expected(r)
	for _, notice := range r.Notices {
		s.row("note", "%s", notice)
	}
	if r.Facts != nil {
		s.row("fingerprint", "%s", r.Fingerprint)
	}
	if len(r.Statements) > 0 {
		s.statements(r.Statements)
	}
	return s.String()
}

// judged says how the change would be made, or why it would not.
func (s *sheet) judged(r migration.PlanReport) {
	if r.Verdict != "unknown" || len(r.NeedsPrimary) > 0 {
		s.row("verdict", "%s", verdictWords[r.Verdict])
	}
	if r.Reason != "" {
		s.row("  says", "%s", r.Reason)
	}
	if r.InPlace != "" && r.Verdict != "refused" {
		s.row("  lock", "%s, as it is written", r.InPlace)
	}
	if r.Method != "" || len(r.Refusals) > 0 {
		s.row("method", "%s", methodWords[r.Method])
	}
	for _, refusal := range r.Refusals {
		s.row("refused", "%s", refusal.Reason)
		s.row("  check", "%s", refusal.Check)
		s.row("  remedy", "%s", refusal.Remedy)
	}
	for _, need := range r.NeedsPrimary {
		s.row("needs primary", "%s", need)
	}
}

// expected says what rows that were tried tell of the rest.
func (s *sheet) expected(r migration.PlanReport) {
	if e := r.Estimate; e != nil {
		s.row("estimate", "%s: copy %s, indexes %s, verification or reading %s; from %s rows in %s, on an idle server",
			took(e.DurationMS), took(e.CopyMS), took(e.IndexMS), took(e.VerifyMS), grouped(e.SampleRows), took(e.SampleMS))
		slot := "; and what the slot holds back of the server's WAL"
		if r.Method == "native" {
			slot = ""
		}
		s.row("  disk", "%s beside the table%s", bytesText(e.DiskBytes), slot)
		s.row("  WAL", "%s of its own", bytesText(e.WALBytes))
	}
	if r.Rows != nil {
		which := "a sample"
		if r.Rows.All {
			which = "all of the table"
		}
		s.row("rows", "%s tried, %s: %s", grouped(r.Rows.Tried), which, failing(r.Rows))
		if len(r.Rows.Failures) > 0 {
			s.row("", "the run would abort, with exit code %d", migration.Aborted.ExitCode())
		}
		for _, failure := range r.Rows.Failures {
			what := "index " + failure.Index
			if failure.Key != nil {
				what = "row " + failure.Key.String()
			}
			s.row("  failing", "%s: %s (SQLSTATE %s)", what, failure.Message, failure.SQLState)
		}
	}
	for _, loss := range r.Losses {
		lost := "nothing could be counted: rows tried do not fit, or PostgreSQL does not convert them back"
		if loss.Rows != nil {
			lost = grouped(*loss.Rows) + " of the rows tried lose something"
		}
		s.row("lossy", "column %q: %s; %s", loss.Column, loss.Reason, lost)
	}
}

func failing(rows *migration.PlanRows) string {
	switch {
	case rows.Failing == 0 && len(rows.Failures) == 0:
		return "all of them fit"
	case rows.Failing == 0:
		return "each of them fits, but not all of them together"
	case rows.More:
		return fmt.Sprintf("%s do not fit, after which no more were tried", grouped(rows.Failing))
	default:
		return grouped(rows.Failing) + " do not fit"
	}
}

// statements lists them by phase, with the lock of each.
func (s *sheet) statements(statements []migration.PlanStatement) {
	phase := ""
	for i, statement := range statements {
		if statement.Phase != phase {
			phase = statement.Phase
			fmt.Fprintf(&s.Builder, "\n%s\n", phase)
		}
		fmt.Fprintf(&s.Builder, "%4d  %s\n", i+1, strings.ReplaceAll(statement.SQL, "\n", "\n      "))
		lock := statement.Lock
		if lock == "" {
			lock = "none"
		}
		if statement.LockTimeoutMS > 0 && lock != "none" {
			lock += fmt.Sprintf(", lock_timeout %d ms", statement.LockTimeoutMS)
		}
		fmt.Fprintf(&s.Builder, "       %s\n       lock %s\n       wait %s\n", statement.Why, lock, orNone(statement.ExpectedWait))
	}
}
