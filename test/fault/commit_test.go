package fault

import (
	"testing"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/test/proxy"
)

// lostCommit is a connection that is lost around the COMMIT of the swap.
type lostCommit struct {
	name      string
	cut       proxy.Cut
	away      bool // everything is lost with it, for good: nobody can be asked what became of it
	committed bool // in truth
}

// TestCommitCut loses the connection that runs the swap before, in and after its COMMIT. Whether it is committed is
// told right, and that nobody knows when nobody can.
func TestCommitCut(t *testing.T) {
	t.Parallel()
	for _, l := range []lostCommit{
		{name: "in COMMIT, the server away", cut: proxy.In, away: true, committed: true}, // the longest ones first
		{name: "before COMMIT, the server away", cut: proxy.Before, away: true},
		{name: "before COMMIT", cut: proxy.Before},
		{name: "before COMMIT, the server not knowing", cut: proxy.Unheard},
		{name: "in COMMIT", cut: proxy.In, committed: true},
		{name: "after COMMIT", cut: proxy.After, committed: true},
	} {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			l.run(t)
		})
	}
}

func (l lostCommit) run(t *testing.T) {
	c := newCombination(t, pair{fault: fault{name: "connection cut " + l.name, ends: open}, point: point{name: "the swap"}}, nil)
	c.proxy, c.task.DSN = proxy.New(t, c.db.DSN, l.cut)
	c.proxy.ArmSwap(l.away)
	c.start()
	c.must(c.child.wait(c.ctx))
	if !c.proxy.Done() {
		t.Fatal("no connection was cut in a COMMIT")
	}
	c.proxy.Allow()
	c.judge()
	if c.child.report == nil {
		t.Fatal("the process ended without a report")
	}
	l.judge(c, *c.child.report)
	c.conclude("")
	tally.combination(c.point.name, c.fault.name)
}

func (l lostCommit) judge(c *combination, report migration.Report) {
	c.t.Helper()
	switch {
	case l.away:
		if report.Outcome != migration.Unknown || report.ExitCode != 6 || c.swapped() != l.committed {
			c.t.Errorf("told: %s, exit code %d; swapped: %t", report.Outcome, report.ExitCode, c.swapped())
		}
	case report.Outcome != migration.Done: // at once, or when the run was taken up again
		c.t.Errorf("told: %s", report.Outcome)
	}
}
