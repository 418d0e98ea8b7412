package throttle

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// advance lets fake time pass, in a bubble only.
func advance(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestWaitBlocksUntilMeasured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := newFake()
		source.hang = make(chan struct{})
		r := begin(t, Config{}, source)
		defer r.end(t)
		w := r.wait(t.Context(), 0)
		advance(time.Second)
		w.mustBlock(t)
		if got := r.Reason(); got != "fake source is not measured yet" {
			t.Errorf("reason %q", got)
		}
		close(source.hang)
		w.mustReturn(t, time.Second, nil)
		if len(r.told()) != 0 {
			t.Errorf("the observer was told %q of a start that did not wait for a source", r.told())
		}
	})
}

func TestWaitsWhileASourceSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := newFake(), newFake()
		r := begin(t, Config{Interval: 3 * time.Second}, one, two)
		defer r.end(t)
		r.wait(t.Context(), 0).mustReturn(t, 0, nil)
		one.set(func(f *fake) { f.reason = "one is slow" })
		two.set(func(f *fake) { f.reason = "two is slow" })
		advance(3 * time.Second)
		waiters := []*waiter{r.wait(t.Context(), 0), r.wait(t.Context(), 0), r.wait(t.Context(), 0)}
		if got := r.Reason(); got != "one is slow; two is slow" {
			t.Errorf("reason %q", got)
		}
		one.set(func(f *fake) { f.reason = "" })
		advance(3 * time.Second)
		waiters[0].mustBlock(t)
		two.set(func(f *fake) { f.reason = "" })
		advance(3 * time.Second)
		for _, w := range waiters {
			w.mustReturn(t, 6*time.Second, nil)
		}
		if one.checked() != 4 {
			t.Errorf("%d checks in 9 s at 3 s, want 4", one.checked())
		}
	})
}

func TestFailsClosedAndRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := newFake()
		r := begin(t, Config{}, source)
		defer r.end(t)
		source.set(func(f *fake) { f.err = errors.New("asking:\n\tno route to host") })
		advance(time.Second)
		w := r.wait(t.Context(), 0)
		w.mustBlock(t)
		if got, want := r.Reason(), "measuring fake source: asking: no route to host"; got != want {
			t.Errorf("reason %q, want %q", got, want)
		}
		source.set(func(f *fake) { f.err = nil })
		advance(time.Second)
		w.mustReturn(t, time.Second, nil)
	})
}

// A source that hangs must not leave its last answer, go, standing.
func TestLateMeasure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := newFake()
		r := begin(t, Config{}, source)
		defer r.end(t)
		source.set(func(f *fake) { f.hang = make(chan struct{}) })
		advance(time.Second + checkLimit - 1)
		r.wait(t.Context(), 0).mustReturn(t, 0, nil)
		advance(1)
		w := r.wait(t.Context(), 0)
		w.mustBlock(t)
		if got, want := r.Reason(), "measuring fake source: no answer within 5s"; got != want {
			t.Errorf("reason %q, want %q", got, want)
		}
		close(source.hang)
		w.mustReturn(t, 0, nil)
	})
}

func TestWaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := newFake()
		source.reason = "slow"
		r := begin(t, Config{MaxRowsPerSecond: 1}, source)
		defer r.end(t)
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Minute)
		defer cancel()
		w := r.wait(ctx, 0)
		advance(90*time.Minute - 1)
		w.mustBlock(t)
		advance(1)
		w.mustReturn(t, 90*time.Minute, context.DeadlineExceeded)
		source.set(func(f *fake) { f.reason = "" })
		advance(time.Second)
		r.wait(ctx, 0).mustReturn(t, 0, context.DeadlineExceeded) // though nothing says no
		paced, stop := context.WithCancel(t.Context())
		w = r.wait(paced, 1_000_000)
		w.mustBlock(t)
		stop()
		w.mustReturn(t, 0, context.Canceled)
	})
}

func TestOnChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := newFake(), newFake()
		r := begin(t, Config{}, one, two)
		defer r.end(t)
		for i, step := range []struct {
			one, two string
			err      error // of two
			told     string
		}{ // one source changes at a time, for they are asked side by side
			{one: "lags 11s", told: "lags 11s"},
			{one: "lags 12s"},
			{one: "lags 12s", two: "35 sessions", told: "lags 12s; 35 sessions"},
			{two: "35 sessions", told: "35 sessions"},
			{two: "36 sessions"},
			{two: "36 sessions", err: errors.New("gone"), told: "measuring fake source: gone"},
			{told: "go"},
			{},
			{one: "lags 14s", told: "lags 14s"},
		} {
			before := len(r.told())
			one.set(func(f *fake) { f.reason = step.one })
			two.set(func(f *fake) { f.reason, f.err = step.two, step.err })
			advance(time.Second)
			var want []string
			if step.told != "" {
				want = []string{strings.TrimPrefix(step.told, "go")}
			}
			if told := r.told()[before:]; !slices.Equal(told, want) {
				t.Errorf("step %d: the observer was told %q, want %q", i, told, want)
			}
			if want := strings.Trim(step.one+"; "+step.two, "; "); step.err == nil && r.Reason() != want {
				t.Errorf("step %d: reason %q, want %q", i, r.Reason(), want)
			}
		}
	})
}

func TestChangedSourceIsAskedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := newFake()
		source.off, source.reason = true, "slow"
		r := begin(t, Config{Interval: time.Hour}, source)
		defer r.end(t)
		advance(3 * time.Hour)
		r.wait(t.Context(), 0).mustReturn(t, 0, nil)
		if source.checked() != 0 {
			t.Errorf("a source that is off was checked %d times", source.checked())
		}
		source.set(func(f *fake) { f.off = false })
		w := r.wait(t.Context(), 0) // before it has been asked
		w.mustBlock(t)
		if got := r.Reason(); got != "fake source is not measured yet" {
			t.Errorf("reason %q", got)
		}
		source.changed <- struct{}{}
		w.mustBlock(t)
		if got := r.Reason(); got != "slow" {
			t.Errorf("reason %q", got)
		}
		source.set(func(f *fake) { f.off = true })
		source.changed <- struct{}{}
		w.mustReturn(t, 0, nil)
		source.set(func(f *fake) { f.off, f.reason = false, "" })
		source.changed <- struct{}{}
		r.wait(t.Context(), 0).mustReturn(t, 0, nil)
		if !slices.Equal(r.told(), []string{"slow", ""}) {
			t.Errorf("the observer was told %q", r.told())
		}
	})
}

func TestPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := begin(t, Config{Interval: time.Hour})
		pause := r.Sources.Pause
		pause.Set("")
		w := r.wait(t.Context(), 0)
		advance(time.Minute)
		w.mustBlock(t)
		if got := r.Reason(); got != "paused by the operator" {
			t.Errorf("reason %q", got)
		}
		pause.Clear()
		w.mustReturn(t, time.Minute, nil)
		for range 100 { // in a race with Run, which is told of every change
			pause.Set("night shift")
			if r.Reason() == "" {
				t.Fatal("the pause is set and nothing says no")
			}
			pause.Clear()
			if r.Reason() != "" {
				t.Fatalf("the pause is over and %q says no", r.Reason())
			}
		}
		pause.Set("night shift")
		w = r.wait(t.Context(), 0)
		w.mustBlock(t)
		if got := r.Reason(); got != "night shift" {
			t.Errorf("reason %q", got)
		}
		pause.Clear()
		w.mustReturn(t, 0, nil)
		if told := r.told(); len(told) < 2 || told[0] != "paused by the operator" || told[len(told)-1] != "" {
			t.Errorf("the observer was told %q", told)
		}
		r.end(t)
		pause.Set("for the next Run") // also without one
		r.start(t)
		defer r.end(t)
		r.wait(t.Context(), 0).mustBlock(t)
		pause.Clear()
	})
}

// An answer that crosses a Clear must not say go to the Set after it.
func TestPauseNeverSaysGo(t *testing.T) {
	t.Parallel()
	pause := newPause()
	pause.Set("night shift")
	pause.Clear()
	if reason, err := pause.Check(t.Context()); reason == "" && err == nil || pause.Enabled() {
		t.Errorf("says %q (%v), enabled %t", reason, err, pause.Enabled())
	}
}

func TestWithoutSources(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		throttle, err := New(open(t, ""), Config{})
		if err != nil {
			t.Fatal(err)
		}
		r := &rig{Throttle: throttle, ended: make(chan error, 1)}
		r.wait(t.Context(), 1_000_000).mustReturn(t, 0, nil) // without Run
		r.start(t)
		advance(time.Hour)
		r.wait(t.Context(), 1_000_000).mustReturn(t, 0, nil)
		if got := r.Reason(); got != "" {
			t.Errorf("reason %q", got)
		}
		r.end(t)
	})
}

// Without Run nothing is measured, whatever was measured before.
func TestRunAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := newFake()
		r := begin(t, Config{}, source)
		r.wait(t.Context(), 0).mustReturn(t, 0, nil)
		r.end(t)
		w := r.wait(t.Context(), 0)
		advance(time.Minute)
		w.mustBlock(t)
		source.set(func(f *fake) { f.hang = make(chan struct{}) })
		r.start(t)
		w.mustBlock(t)
		close(source.hang)
		w.mustReturn(t, time.Minute, nil)
		r.end(t)
		source.set(func(f *fake) { f.off = true })
		r.wait(t.Context(), 0).mustReturn(t, 0, nil)
	})
}

func TestProbe(t *testing.T) {
	broken, slow, off := newFake(), newFake(), newFake()
	broken.err, slow.reason = errors.New("no rights"), "slow"
	off.off, off.err = true, errors.New("off")
	throttle, err := New(open(t, ""), Config{}, broken, slow, off)
	if err != nil {
		t.Fatal(err)
	}
	err = throttle.Probe(t.Context())
	if !errors.Is(err, broken.err) || err.Error() != "measuring fake source: no rights" {
		t.Errorf("Probe returned %v", err)
	}
	broken.err = nil
	if err := throttle.Probe(t.Context()); err != nil {
		t.Errorf("Probe returned %v", err)
	}
}
