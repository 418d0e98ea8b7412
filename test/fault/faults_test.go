package fault

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"testing"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/pkg/verify"
	"github.com/pgshadow/pgshadow/test/pgserver"
)

// fault is what goes wrong.
type fault struct {
	name   string
	may    func(p point) bool // happen there; nil: anywhere
	strike func(c *combination)
	ends   end
}

// end is how a process may end that a fault has struck.
type end int

const (
	killed    end = iota // it says nothing any more
	told                 // it was told to stop; too late, it is done
	recovered            // it takes the run up again and is done, unless there was no run yet: then it stops
	open                 // as the case itself says
)

// may tells whether a process may end with an outcome.
func (p pair) may(outcome migration.Outcome) bool {
	switch p.fault.ends {
	case killed:
		return false
	case told:
		return outcome == migration.Done || outcome == migration.Stopped
	case recovered:
		return outcome == migration.Done || outcome == migration.Stopped && p.point.has&record == 0
	case open:
		return true
	default:
		return false
	}
}

func faults() []fault {
	return []fault{
		{name: "kill -9", strike: func(c *combination) { c.must(c.child.signal(syscall.SIGKILL)) }},
		{name: "SIGTERM", ends: told, strike: func(c *combination) {
			c.must(c.child.signal(syscall.SIGTERM))
			c.must(c.child.await(c.ctx, lineCancelled))
		}},
		{name: "context cancelled", ends: told, strike: func(c *combination) {
			c.must(c.child.tell("cancel"))
			c.must(c.child.await(c.ctx, lineCancelled))
		}},
		{name: "walsender terminated", may: at(stream), ends: recovered, strike: func(c *combination) { c.terminate("stream") }},
		{name: "control terminated", ends: recovered, strike: func(c *combination) { c.terminate("control") }},
		{name: "worker terminated", may: func(p point) bool { return p.worker != "" }, ends: recovered,
			strike: func(c *combination) { c.terminate(c.point.worker) }},
		{name: connectionsCut, ends: recovered, strike: func(c *combination) {
			c.proxy.Refuse()
			c.proxy.CutAll()
		}},
		{name: serverStopped, ends: recovered, strike: func(c *combination) { c.must(c.db.Server().Stop(pgserver.Immediate)) }},
		{name: slotDropped, may: at(slot), ends: recovered, strike: func(c *combination) { c.dropSlot() }},
	}
}

// Faults that need something of their own.
const (
	connectionsCut = "connections cut"
	serverStopped  = "server stopped with immediate"
	slotDropped    = "slot dropped"
)

func at(needed has) func(p point) bool {
	return func(p point) bool { return p.has&needed == needed }
}

// pair is a point and a fault.
type pair struct {
	point   point
	fault   fault
	cleanup bool // afterwards the run is not resumed but cleaned up
	// verify is off in every other run: what a fault has lost, verification would find and mend.
	verify verify.Mode
	rate   float64 // of the writers; 0: the usual one
}

func (p pair) String() string { return p.fault.name + " at " + p.point.name }

// alone tells whether others on the server would be disturbed.
func (p pair) alone() bool { return p.fault.name == serverStopped || p.point.stage == openTransaction }

// pairs are all combinations that can be.
func pairs() []pair {
	var all []pair
	for _, f := range faults() {
		for _, p := range points() {
			if f.may == nil || f.may(p) {
				one := pair{point: p, fault: f, cleanup: len(all)%5 == 4 && f.name != slotDropped, verify: verify.Full}
				if len(all)%2 == 0 && p.stage != throttleVerify {
					one.verify = verify.Off
				}
				all = append(all, one)
			}
		}
	}
	return all
}

// few are combinations in which every point and every fault occurs.
func few() []pair {
	var chosen []pair
	used := map[string]int{}
	everything := pairs()
	for _, p := range points() {
		var best *pair
		for i := range everything {
			candidate := &everything[i]
			if candidate.point.name == p.name && (best == nil || used[candidate.fault.name] < used[best.fault.name]) {
				best = candidate
			}
		}
		used[best.fault.name]++
		chosen = append(chosen, *best)
	}
	return chosen
}

// TestSelection holds the number of combinations, and that the few of every day leave out no point and no fault.
func TestSelection(t *testing.T) {
	t.Parallel()
	if n := len(pairs()); n < 200 {
		t.Errorf("there are %d combinations, want 200", n)
	}
	count := func(chosen []pair) (pointsSeen, faultsSeen []string, cleanups int) {
		for _, p := range chosen {
			pointsSeen, faultsSeen = append(pointsSeen, p.point.name), append(faultsSeen, p.fault.name)
			if p.cleanup {
				cleanups++
			}
		}
		slices.Sort(pointsSeen)
		slices.Sort(faultsSeen)
		return slices.Compact(pointsSeen), slices.Compact(faultsSeen), cleanups
	}
	for name, chosen := range map[string][]pair{"all": pairs(), "few": few()} {
		seenPoints, seenFaults, cleanups := count(chosen)
		if len(seenPoints) != len(points()) || len(seenFaults) != len(faults()) || cleanups == 0 {
			t.Errorf("%s: %d points, %d faults, %d cleanups: %v %v", name, len(seenPoints), len(seenFaults), cleanups, seenPoints, seenFaults)
		}
	}
}

// terminate ends the sessions of the run that have a purpose, as a DBA would. They may not have come yet.
func (c *combination) terminate(purpose string) {
	c.t.Helper()
	const sql = `SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity
		WHERE datname = current_database() AND application_name LIKE 'pgshadow %' AND application_name LIKE '% ' || $1`
	c.must(c.poll("a session of "+purpose, func(ctx context.Context) (bool, error) {
		var ended int
		err := c.conn.QueryRow(ctx, sql, purpose).Scan(&ended)
		return ended > 0, err
	}))
}

// dropSlot takes the slot from under the run; one that connects again meanwhile loses it all the same.
func (c *combination) dropSlot() {
	c.t.Helper()
	const mine = " FROM pg_replication_slots WHERE database = current_database()"
	c.must(c.poll("the slot", func(ctx context.Context) (bool, error) {
		if _, err := c.conn.Exec(ctx, "SELECT pg_terminate_backend(active_pid, 10000)"+mine+" AND active"); err != nil {
			return false, err
		}
		var dropped int
		if err := c.conn.QueryRow(ctx, "SELECT count(pg_drop_replication_slot(slot_name))"+mine).Scan(&dropped); err != nil {
			c.note(fmt.Sprintf("dropping the slot: %v", err)) // in use again
			return false, nil
		}
		return dropped > 0, nil
	}))
}
