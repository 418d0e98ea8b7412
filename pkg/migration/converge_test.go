package migration

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/replication/replay"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// hot is a steady backlog: as many keys get dirty as are replayed.
func hot(second int) backlog {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(second) * time.Second)
	return backlog{at: at, pace: replay.Pace{Dirtied: 490, Replayed: 500, Keys: 2000 + second%2}, replayed: uint64(500 * second),
		received: pg.LSN(1000 * (second + 1)), written: pg.LSN(1<<20 + 1000*second), lag: 1 << 20}
}

// full is one whose set is full, and what is left in the WAL grows.
func full(second int) backlog {
	b := hot(second)
	b.pace.Full, b.pace.Keys, b.lag, b.written = true, 100_000-second%7, int64(1<<30+second*1000), pg.LSN(1<<30+2000*second)
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
			watched := convergence{window: convergeWindow}
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
	watched := convergence{window: convergeWindow}
	for second := range 100 {
		m.watchConvergence(&watched, second%29 != 0, hot(second)) // many short waits
	}
	if len(told) != 0 {
		t.Fatalf("it was told of %v", told)
	}
	m.watchConvergence(&watched, false, full(99))
	for second := 100; second <= 135; second++ {
		m.watchConvergence(&watched, true, full(second))
	}
	if len(told) != 1 || told[0].For != "replay to catch up" {
		t.Fatalf("it was told of %v", told)
	}
	for _, want := range []string{"rows of public.orders get dirty at 1000 keys/s or more and replay manages 500 keys/s (dirty keys: ",
		", lag 1073.9 MB): it will not converge unless", "slow down what writes to the table", "nearer to the server"} {
		if !strings.Contains(told[0].Reason, want) {
			t.Errorf("%q is not in %q", want, told[0].Reason)
		}
	}
}

// TestCatchUpThatDoesNotEndIsTold has a writer dirty rows faster than a slow
// conversion replays them, in a phase that waits for replay without a limit.
func TestCatchUpThatDoesNotEndIsTold(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, `CREATE FUNCTION slow(n int) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS 'BEGIN PERFORM pg_sleep(0.002); RETURN n; END';
		CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t SELECT i, 0 FROM generate_series(1, 1000) i`)
	conn := db.Conn(t)
	write := func(ctx context.Context, round int) error { // another hundred rows each time
		sql := fmt.Sprintf("UPDATE t SET n = n + 1 WHERE id %% 10 = %d; SELECT pg_sleep(%f)", round%10, float64(min(round/100, 1))/50)
		_, err := conn.Exec(context.WithoutCancel(ctx), sql)
		return err
	}
	ctx, stop := context.WithTimeout(t.Context(), 5*time.Minute)
	var writer sync.WaitGroup
	t.Cleanup(func() { stop(); writer.Wait() }) // before the session is closed
	var told []Waiting
	config := Config{DSN: db.DSN, Table: "t", Alters: []string{"ALTER COLUMN n TYPE bigint USING slow(n)"}, AllowLossy: true, convergeWindow: 2 * time.Second,
		Copy: CopyConfig{DirtyMemory: 8000}, // some fifty keys
		Observer: ObserverFunc(func(event Event) {
			switch e := event.(type) {
			case Waiting:
				if e.For == "replay to catch up" {
					told = append(told, e)
					stop()
				}
			case PhaseStarted:
				if e.Phase != CatchUp {
					return
				}
				for round := range 100 { // more than is replayed in a window
					if err := write(ctx, round); err != nil {
						t.Error(err)
					}
				}
				writer.Go(func() {
					for round := 100; ctx.Err() == nil; round++ {
						if err := write(ctx, round); err != nil {
							t.Error(err)
							return
						}
					}
				})
			default:
			}
		})}
	report, err := Run(ctx, config)
	if err == nil || report.Outcome != Stopped || !strings.Contains(report.Error.Message, "catch_up") || len(told) == 0 {
		t.Fatalf("Run returned %v, report %+v, and told of %v", err, report, told)
	}
	for _, want := range []string{"rows of public.t get dirty at ", " and replay manages ", "(dirty keys: ", "it will not converge unless"} {
		if !strings.Contains(told[0].Reason, want) {
			t.Errorf("%q is not in %q", want, told[0].Reason)
		}
	}
}
