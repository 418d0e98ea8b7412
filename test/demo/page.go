package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/pgshadow/pgshadow/test/bench/alter"
	"github.com/pgshadow/pgshadow/test/workload"
)

// page is how the demo looks. That nobody reads it is no reason to fail.
type page struct{ out io.Writer }

func (p page) printf(format string, args ...any) { _, _ = fmt.Fprintf(p.out, format, args...) }

func (p page) title(text string) { p.printf("%s\n\n", text) }

// section begins a part of the page.
func (p page) section(heading string) { p.printf("\n%s\n\n", heading) }

// step tells what is there now, and how long that took.
func (p page) step(took time.Duration, format string, args ...any) {
	text := ""
	if took > 0 {
		text = seconds(took)
	}
	p.printf("%8s  %s\n", text, fmt.Sprintf(format, args...))
}

// more goes on below a step.
func (p page) more(format string, args ...any) {
	p.printf("          %s\n", fmt.Sprintf(format, args...))
}

// check is a line of the proof.
func (p page) check(ok bool, label, format string, args ...any) {
	verdict := "ok"
	if !ok {
		verdict = "FAILED"
	}
	p.printf("%8s  %-15s %s\n", verdict, label, fmt.Sprintf(format, args...))
}

// row is a line of the report.
func (p page) row(label, format string, args ...any) {
	p.printf("  %-15s %s\n", label, fmt.Sprintf(format, args...))
}

// report tells what pgshadow did, and what the clients did meanwhile.
func (p page) report(r alter.Result, load load) {
	p.section("Report")
	p.row("duration", "%s", seconds(r.Elapsed))
	p.row("copied", "%s rows", grouped(r.RowsCopied))
	p.row("followed", "%s changes made by the clients, by bringing %s rows up to date", grouped(r.ChangesReceived), grouped(r.KeysReplayed))
	p.row("verified", "%s rows before the cutover, %d mismatches", grouped(r.Verify.RowsCompared), r.Verify.Mismatches)
	p.row("lock", "held %.1f ms for the cutover, after a wait of %.1f ms; attempts: %d", r.Cutover.LockHoldMS, r.Cutover.LockWaitMS, r.Cutover.Attempts)
	p.row("client stall", "%s: the slowest transaction of a client around the cutover (%s before the change)",
		milliseconds(load.Slowest["cutover"]), milliseconds(load.Slowest[workload.FirstPhase]))
	p.row("original", "kept, as %s", r.RetiredTable)
	p.printf("\n  %-12s %8s %21s %21s\n", "phase", "time", "client transactions", "slowest of them")
	for _, phase := range order(load.Stats) {
		p.printf("  %-12s %8s %21s %21s\n", title(phase), seconds(load.took(phase, r.Phases)), grouped(load.InPhase(phase)), milliseconds(load.Slowest[phase]))
	}
}

// order is the phases in the order they were first entered.
func order(stats workload.Stats) []string {
	var phases []string
	for _, phase := range stats.Phases {
		if !slices.Contains(phases, phase) {
			phases = append(phases, phase)
		}
	}
	return phases
}

func title(phase string) string {
	if phase == workload.FirstPhase {
		return "before"
	}
	return phase
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
}

// grouped is a whole number with commas between its thousands.
func grouped[T int | int64 | uint64](n T) string {
	digits := strconv.FormatInt(int64(n), 10)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
