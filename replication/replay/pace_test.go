package replay

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/pgshadow/pgshadow/pkg/keyset"
	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/shadow"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func after(seconds float64) time.Time {
	return epoch.Add(time.Duration(seconds * float64(time.Second)))
}

func near(got, want float64) bool { return math.Abs(got-want) <= want/100 }

// TestDirtiedRate gives the meter marks as Run does, and asks for the rate.
func TestDirtiedRate(t *testing.T) {
	steady := func(m *meter) {
		for i := range 300 { // ten a second, of 100 keys/s
			m.mark(after(float64(i)/10), uint64(i*10))
		}
	}
	for name, c := range map[string]struct {
		marks   func(m *meter)
		at      float64
		dirtied uint64
		want    float64
	}{
		"nothing is known": {func(*meter) {}, 5, 7, 0},
		"steady":           {steady, 30, 3000, 100},
		"a burst in the window": {func(m *meter) {
			for i := range 20 {
				m.mark(after(float64(i)), 0)
			}
		}, 19.9, 4950, 500},
		"a batch that takes longer than the window": {func(m *meter) {
			m.mark(after(0), 0)
		}, 40, 4000, 100},
		"the batch after it": {func(m *meter) {
			m.mark(after(0), 0)
			m.mark(after(40), 4000)
		}, 40.5, 4050, 100},
		"a burst after an hour of rest": {func(m *meter) {
			steady(m)
			m.mark(after(3600), 2990)
		}, 3602, 4990, 1000},
	} {
		t.Run(name, func(t *testing.T) {
			var m meter
			c.marks(&m)
			if got := m.pace(after(c.at), reading{dirtied: c.dirtied}).Dirtied; got != c.want && !near(got, c.want) {
				t.Errorf("%.1f keys/s, want %.1f", got, c.want)
			}
			if len(m.marks) > 15 {
				t.Errorf("%d marks are kept", len(m.marks))
			}
		})
	}
}

// TestReplayedRate gives the meter batches, and asks what so many keys will take.
func TestReplayedRate(t *testing.T) {
	const ms = time.Millisecond
	type costs []batchCost
	many := func(n int, c batchCost) (all costs) {
		for range n {
			all = append(all, c)
		}
		return all
	}
	slow := batchCost{keys: 2000, took: 4 * time.Second}
	for name, c := range map[string]struct {
		batches  costs
		keys     int
		replayed float64
		takes    time.Duration
	}{
		"nothing was replayed":                        {nil, 1000, 0, 0},
		"nothing is dirty":                            {costs{slow}, 0, 500, 0},
		"a slow conversion":                           {many(3, slow), 1500, 500, 3 * time.Second},
		"more keys than a batch holds":                {many(3, batchCost{keys: 5000, took: 100 * ms}), 50_000, 50_000, time.Second},
		"one batch that waited for a lock":            {append(many(2, batchCost{keys: 10, took: 10 * ms}), batchCost{keys: 10, took: 5 * time.Second}), 10, 1000, 10 * ms},
		"small batches say nothing of a large one":    {many(80, batchCost{keys: 2, took: 10 * ms}), 1000, 0, 0},
		"the large ones among the small do":           {append(costs{slow}, many(20, batchCost{keys: 1, took: 10 * ms})...), 2000, 500, 4 * time.Second},
		"a server far away":                           {many(3, batchCost{keys: 100, took: 260 * ms, overhead: 50 * ms}), 100, 384.6, 260 * ms},
		"fewer batches of a server far away":          {many(3, batchCost{keys: 2500, took: 300 * ms, overhead: 50 * ms}), 10_000, 8333, 1100 * ms},
		"replay that became fast":                     {append(many(40, slow), many(9, batchCost{keys: 2000, took: 40 * ms})...), 2000, 50_000, 40 * ms},
		"round trips that seem longer than the batch": {costs{{keys: 100, took: 10 * ms, overhead: 30 * ms}}, 100, 10_000, 10 * ms},
	} {
		t.Run(name, func(t *testing.T) {
			var m meter
			for _, b := range c.batches {
				m.worked(b.keys, b.took, b.overhead/batchTrips)
			}
			pace := m.pace(epoch, reading{keys: c.keys})
			if pace.Replayed != c.replayed && !near(pace.Replayed, c.replayed) || !near(float64(pace.Takes), float64(c.takes)) {
				t.Errorf("%.1f keys/s, and %s for %d keys; want %.1f and %s", pace.Replayed, pace.Takes, c.keys, c.replayed, c.takes)
			}
			if len(m.costs) > costsKept {
				t.Errorf("%d batches are kept", len(m.costs))
			}
		})
	}
}

// TestDirtiedKeysAreCounted: once for each time that replay must take them.
func TestDirtiedKeysAreCounted(t *testing.T) {
	s := NewSet(2 * cost(key(1)))
	require := func(keys int, dirtied uint64, full bool) {
		t.Helper()
		if got := s.reading(); got != (reading{keys, dirtied, full}) {
			t.Fatalf("the set says %+v, want %d keys, %d dirtied, full %t", got, keys, dirtied, full)
		}
	}
	require(0, 0, false)
	for commit := range pg.LSN(5) {
		s.Add(changed(1, commit+1)) // it waits for replay all the time
	}
	require(1, 1, false)
	batch := s.take(1)
	s.Add(changed(1, 10))
	s.Add(changed(1, 11))
	require(1, 2, false)
	s.done(batch)
	s.Add(changed(1, 12)) // waits again
	s.Doubt([]keyset.Key{key(2)})
	require(2, 2, true) // not the doubt of verification, which no writer made
	s.done(s.take(2))
	s.Add(changed(1, 13))
	require(1, 3, false)
	s.lift(true)
	s.Add(changed(2, 14))
	require(2, 4, false)
}

// TestFits replays a slow conversion, and asks whether its keys fit in less time
// than they take, and in more.
func TestFits(t *testing.T) {
	t.Parallel()
	r := newRig(t, slowTable, slowChange)
	all := make([]int, slowRows)
	for i := range all {
		all[i] = i + 1
	}
	r.write(t, "UPDATE t SET n = 1", all...)
	if err := r.replayer.Fits(0); err != nil {
		t.Errorf("before anything was replayed: %v", err)
	}
	r.steps(t)
	if err := r.replayer.Fits(0); err != nil {
		t.Errorf("with nothing dirty: %v", err)
	}
	r.write(t, "UPDATE t SET n = 2", all...)
	err := r.replayer.Fits(slowRows * time.Millisecond)
	var behind *BehindError
	if !errors.As(err, &behind) || behind.Table != "public.t" || behind.Pace.Keys != slowRows || behind.Pace.Replayed <= 0 ||
		behind.Pace.Replayed > 500 || behind.Pace.Takes < 2*slowRows*time.Millisecond {
		t.Fatalf("Fits returned %+v: %v", behind, err)
	}
	for _, want := range []string{"replaying the 200 dirty keys would take about ", "more than the 200ms that --max-lock-hold leaves",
		"rows of public.t get dirty at ", " and replay manages ", " keys/s", "it will not converge unless", "slow down what writes to the table"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %q", want, err)
		}
	}
	if err := r.replayer.Fits(10 * behind.Pace.Takes); err != nil {
		t.Errorf("within ten times what it takes: %v", err)
	}
}

// A table whose rows take two milliseconds each to convert.
const (
	slowRows  = 200
	slowTable = `CREATE FUNCTION slow(n int) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS 'BEGIN PERFORM pg_sleep(0.002); RETURN n; END';
		CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t SELECT i, 0 FROM generate_series(1, 200) i`
)

var slowChange = shadow.Change{Alters: []string{"ALTER COLUMN n TYPE bigint"},
	Using: map[string]shadow.Expression{"n": {SQL: "slow(o.n)", Columns: []string{"n"}, Functions: []string{"slow"}}}}

func TestRatesInWords(t *testing.T) {
	for want, pace := range map[string]Pace{
		"rows of public.t get dirty at 12000 keys/s and replay manages 9000 keys/s":       {Dirtied: 12000.4, Replayed: 8999.6},
		"rows of public.t get dirty at 9000 keys/s or more and replay manages 0.4 keys/s": {Dirtied: 9000, Replayed: 0.4, Full: true},
	} {
		if got := pace.Rates("public.t"); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
