package replay

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
	// paceWindow is over how long the rate of dirtied keys is taken.
	paceWindow = 10 * time.Second
	// readingEvery is the least time between two readings of that window.
	readingEvery = time.Second
	// costsKept is how many batches are remembered, and costsCompared how many of
	// the last comparable ones are asked.
	costsKept     = 64
	costsCompared = 9
	// comparable batches are at least this share of those to come: much smaller
	// ones say little about what a key costs.
	comparableShare = 4
	// batchTrips is how many round trips a batch takes, whatever is in it: BEGIN,
	// the snapshot, two statements, COMMIT.
	batchTrips = 5
)

// Remedy is what an operator can do about a replay that is too slow.
const Remedy = "slow down what writes to the table, run pgshadow nearer to the server, give the server more CPU or I/O, " +
	"or make the change cheaper for a row (its USING and --set expressions, its indexes)"

// Pace is how fast keys get dirty and how fast replay is, as measured at one
// moment.
type Pace struct {
	// Dirtied is keys/s that get dirty, or get dirty again after replay took them.
	// While the set is full, no more are read than replay makes room for.
	Dirtied float64
	// Replayed is keys/s that replay manages while it works, in batches as large
	// as those that Keys will be; 0 when it has not replayed any such yet.
	Replayed float64
	Keys     int           // dirty now, those not visible yet included
	Full     bool          // the dirty set is
	Takes    time.Duration // to replay Keys in one go; 0 when Replayed is
}

// Rates says the two rates, for a message about the table.
func (p Pace) Rates(table string) string {
	more := ""
	if p.Full {
		more = " or more"
	}
	return fmt.Sprintf("rows of %s get dirty at %s keys/s%s and replay manages %s keys/s", table, rate(p.Dirtied), more, rate(p.Replayed))
}

func rate(keys float64) string {
	if keys < 10 {
		return fmt.Sprintf("%.1f", keys)
	}
	return fmt.Sprintf("%.0f", keys)
}

// BehindError says that what is dirty cannot be replayed in the time there is.
type BehindError struct {
	Table  string
	Budget time.Duration
	Pace   Pace
}

func (e *BehindError) Error() string {
	return fmt.Sprintf("replaying the %d dirty keys would take about %s under the lock, more than the %s that --max-lock-hold leaves for it: %s; "+
		"it will not converge unless the rates or the limit change: %s, or allow a longer --max-lock-hold",
		e.Pace.Keys, e.Pace.Takes.Round(time.Millisecond), e.Budget, e.Pace.Rates(e.Table), Remedy)
}

// Pace measures how fast keys get dirty and replay is.
func (r *Replayer) Pace() Pace { return r.meter.pace(time.Now(), r.set.reading()) }

// Fits returns a *BehindError when replaying what is dirty now would take longer
// than the budget, by what replay has managed lately. Where nothing is known of
// that it returns nil.
func (r *Replayer) Fits(budget time.Duration) error {
	pace := r.Pace()
	if pace.Takes <= budget {
		return nil
	}
	return &BehindError{Table: r.plan.Original.String(), Budget: budget, Pace: pace}
}

// reading is what the dirty set says of itself at one moment.
type reading struct {
	keys    int
	dirtied uint64 // keys that got dirty so far, and again after they were taken
	full    bool
}

// batchCost is what one batch took.
type batchCost struct {
	keys           int
	took, overhead time.Duration // overhead: what it would have taken with no key in it
}

// perKey is the time that a further key takes.
func (c batchCost) perKey() float64 { return float64(c.took-c.overhead) / float64(c.keys) }

// meter keeps what the pace is computed from. It is safe for concurrent use.
type meter struct {
	mu    sync.Mutex
	costs []batchCost // oldest first, at most costsKept
	marks []mark      // oldest first, a paceWindow of them and one before
}

// mark is how many keys had got dirty at one moment.
type mark struct {
	at      time.Time
	dirtied uint64
}

// worked records a batch that was replayed. roundTrip is how long the server
// takes to answer at all.
func (m *meter) worked(keys int, took, roundTrip time.Duration) {
	if keys == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.costs = append(m.costs, batchCost{keys: keys, took: max(took, 1), overhead: min(batchTrips*roundTrip, took)})
	m.costs = m.costs[max(0, len(m.costs)-costsKept):]
}

// mark records how many keys had got dirty by now.
func (m *meter) mark(now time.Time, dirtied uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := len(m.marks); n > 0 && now.Sub(m.marks[n-1].at) < readingEvery {
		return
	}
	m.marks = append(m.marks, mark{now, dirtied})
	for len(m.marks) > 1 && now.Sub(m.marks[1].at) >= paceWindow {
		m.marks = m.marks[1:]
	}
}

func (m *meter) pace(now time.Time, r reading) Pace {
	m.mu.Lock()
	defer m.mu.Unlock()
	pace := Pace{Keys: r.keys, Full: r.full, Dirtied: m.dirtiedRate(now, r.dirtied)}
	cost, known := m.costOf(r.keys)
	if !known {
		return pace
	}
	pace.Replayed = float64(cost.keys) / cost.took.Seconds()
	batches := (r.keys + batchKeys - 1) / batchKeys
	pace.Takes = time.Duration(batches)*cost.overhead + time.Duration(float64(r.keys)*cost.perKey())
	return pace
}

// dirtiedRate is over the marks of the window. After a pause, in which nothing
// was marked, it is over what came after it, as soon as that is long enough.
func (m *meter) dirtiedRate(now time.Time, dirtied uint64) float64 {
	var since *mark
	for i, mark := range m.marks {
		age := now.Sub(mark.at)
		if since == nil || age >= readingEvery && now.Sub(since.at) > paceWindow {
			since = &m.marks[i]
		}
	}
	if since == nil || !now.After(since.at) {
		return 0
	}
	return float64(dirtied-since.dirtied) / now.Sub(since.at).Seconds()
}

// costOf is the median, by what a key costs, of the last batches that are
// comparable with those that so many keys make. A median, so that one batch that
// waited for a lock does not count.
func (m *meter) costOf(keys int) (cost batchCost, known bool) {
	var alike []batchCost
	for i := len(m.costs) - 1; i >= 0 && len(alike) < costsCompared; i-- {
		if m.costs[i].keys*comparableShare >= min(keys, batchKeys) {
			alike = append(alike, m.costs[i])
		}
	}
	if len(alike) == 0 {
		return batchCost{}, false
	}
	slices.SortFunc(alike, func(a, b batchCost) int { return cmp.Compare(a.perKey(), b.perKey()) })
	return alike[(len(alike)-1)/2], true
}
