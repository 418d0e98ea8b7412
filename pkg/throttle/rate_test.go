package throttle

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := begin(t, Config{MaxRowsPerSecond: 1000})
		defer r.end(t)
		advance(time.Hour) // saves up one second's worth, no more
		r.wait(t.Context(), 1000).mustReturn(t, 0, nil)
		if got := r.Reason(); got != "" {
			t.Errorf("reason %q", got)
		}
		w := r.wait(t.Context(), 2500)
		if got := r.Reason(); got != "held to 1000 rows/s" {
			t.Errorf("reason %q", got)
		}
		advance(2500*time.Millisecond - time.Nanosecond)
		w.mustBlock(t)
		advance(time.Microsecond)
		if !w.returned() || w.err != nil {
			t.Error("2500 rows at 1000/s are still held after 2.5 s")
		}
		if len(r.told()) != 0 {
			t.Errorf("the observer was told %q of the pace", r.told())
		}
	})
}

// The pace holds over all who report rows, in chunks larger than a second's worth.
func TestPaceIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const perSecond, chunk, workers = 1000, 3000, 4
		r := begin(t, Config{MaxRowsPerSecond: perSecond})
		defer r.end(t)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		var mu sync.Mutex
		var group sync.WaitGroup
		total := 0
		for range workers {
			group.Go(func() {
				for rows := 0; r.Wait(ctx, rows) == nil; rows = chunk {
					mu.Lock()
					total += chunk
					mu.Unlock()
				}
			})
		}
		group.Wait()
		if least, most := 600*perSecond, 601*perSecond+workers*chunk; total < least || total > most {
			t.Errorf("%d rows in 600 s at %d/s, want %d to %d", total, perSecond, least, most)
		}
	})
}

func TestPaceChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := begin(t, Config{})
		defer r.end(t)
		rate := r.Sources.Rate
		r.wait(t.Context(), 1_000_000).mustReturn(t, 0, nil) // not owed later
		set := func(limit int) {
			t.Helper()
			if err := rate.SetLimit(limit); err != nil {
				t.Fatal(err)
			}
		}
		set(10)
		w := r.wait(t.Context(), 600)
		advance(20 * time.Second) // 400 rows are owed
		set(100)
		advance(4*time.Second - time.Millisecond)
		w.mustBlock(t)
		advance(2 * time.Millisecond)
		if !w.returned() {
			t.Error("400 rows at 100/s are still held after 4 s")
		}
		w = r.wait(t.Context(), 1_000_000)
		w.mustBlock(t)
		set(0)
		w.mustReturn(t, 0, nil)
		set(1)
		r.wait(t.Context(), 0).mustReturn(t, 0, nil) // what was owed is forgotten
		if err := rate.SetLimit(-1); err == nil {
			t.Error("a negative pace was taken")
		}
	})
}

func TestPauseHoldsThePace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := begin(t, Config{MaxRowsPerSecond: 100})
		defer r.end(t)
		advance(time.Second)
		w := r.wait(t.Context(), 300) // owes 2 s
		advance(time.Second)
		r.Sources.Pause.Set("")
		advance(time.Minute)
		w.mustBlock(t)
		r.Sources.Pause.Clear()
		w.mustReturn(t, time.Minute+time.Second, nil)
	})
}
