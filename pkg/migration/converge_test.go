package migration

import (
	"strings"
	"testing"
	"time"

	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/replication/replay"
)

// hot is a steady backlog: as many keys get dirty as are replayed.
func hot(second int) backlog {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(second) * time.Second)
	return backlog{at: at, pace: replay.Pace{Dirtied: 490, Replayed: 500, Keys: 2000 + second%2}, replayed: uint64(500 * second),
		received: pg.LSN(1000 * (second + 1)), lag: 1 << 20}
}

// full is one whose set is full, and what is left in the WAL grows.
func full(second int) backlog {
	b := hot(second)
	b.pace.Full, b.pace.Keys, b.lag = true, 100_000-second%7, int64(1<<30+second*1000)
	return b
}

func TestConvergence(t *testing.T) {
	for name, c := range map[string]struct {
		at       func(second int) backlog
		diverges bool
	}{
		"a hot set": {hot, true},
		"a backlog that grows": {func(i int) backlog {
			b := hot(i)
			b.pace.Dirtied, b.pace.Keys = 12000, 3000*i
			return b
		}, true},
		"a full set, and the lag grows": {full, true},
		"a set that becomes full, and the lag grows": {func(i int) backlog {
			b := full(i)
			b.pace.Full = i > 25
			return b
		}, true},
		"a backlog that shrinks": {func(i int) backlog {
			b := hot(i)
			b.pace.Keys -= 2 * i
			return b
		}, false},
		"few keys come again and again, and replay has time to spare": {func(i int) backlog {
			b := hot(i)
			b.pace.Keys, b.pace.Dirtied = 5, 100
			return b
		}, false},
		"a full set, and the lag shrinks": {func(i int) backlog {
			b := full(i)
			b.lag = int64(1<<30 - i*1000)
			return b
		}, false},
		"a full set that has room by now": {func(i int) backlog {
			b := full(i)
			if i >= 15 {
				b.pace.Full, b.pace.Keys = false, 90_000-100*i
			}
			return b
		}, false},
		"one transaction far larger than the set": {func(i int) backlog {
			b := full(i)
			b.received = 1000
			return b
		}, false},
		"keys that are not visible": {func(i int) backlog {
			b := hot(i)
			b.replayed = 7
			return b
		}, false},
		"nothing was replayed yet": {func(i int) backlog {
			b := hot(i)
			b.pace.Replayed = 0
			return b
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			var watched convergence
			var told []int
			for second := range 100 {
				if watched.add(c.at(second)) {
					told = append(told, second)
				}
			}
			if want := c.diverges; want && (len(told) != 3 || told[0] != 30 || told[1] != 60 || told[2] != 90) || !want && len(told) != 0 {
				t.Errorf("it was told at %v", told)
			}
			if len(watched.backlogs) > 31 {
				t.Errorf("%d backlogs are kept", len(watched.backlogs))
			}
		})
	}
}

// TestWaitingForReplayIsTold only while the run waits for it, and for long.
func TestWaitingForReplayIsTold(t *testing.T) {
	var told []Waiting
	m := &Migration{report: Report{Table: "public.orders"}, config: Config{Observer: ObserverFunc(func(event Event) { told = append(told, event.(Waiting)) })}}
	var watched convergence
	for second := range 100 {
		m.watchConvergence(&watched, second%29 != 0, hot(second)) // many short waits
	}
	if len(told) != 0 {
		t.Fatalf("it was told of %v", told)
	}
	for second := 100; second <= 135; second++ {
		m.watchConvergence(&watched, true, full(second))
	}
	if len(told) != 1 || told[0].For != "replay to catch up" {
		t.Fatalf("it was told of %v", told)
	}
	for _, want := range []string{"rows of public.orders get dirty at 490 keys/s or more and replay manages 500 keys/s (dirty keys: ",
		", lag 1073.9 MB): it will not converge unless", "slow down what writes to the table", "nearer to the server"} {
		if !strings.Contains(told[0].Reason, want) {
			t.Errorf("%q is not in %q", want, told[0].Reason)
		}
	}
}
