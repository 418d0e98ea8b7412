package throttle

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// Run measures every enabled source each interval, and at once when it is changed,
// until ctx ends, which is no error; then it closes its sessions and forgets what
// it measured. It runs once at a time, and may run again.
func (t *Throttle) Run(ctx context.Context) error {
	var sources sync.WaitGroup
	for _, w := range t.watched {
		sources.Go(func() { t.watch(ctx, w) })
	}
	t.announce(ctx)
	sources.Wait()
	t.end()
	return t.close(ctx)
}

// Probe measures every enabled source once and returns the errors of those that
// cannot be measured, joined: what preflight should refuse rather than wait for.
// A reason to wait is no error. It leaves no session open. Not beside Run.
func (t *Throttle) Probe(ctx context.Context) error {
	var failed []error
	for _, w := range t.watched {
		if !w.source.Enabled() {
			continue
		}
		if _, err := check(ctx, w.source); err != nil {
			failed = append(failed, err)
		}
	}
	return errors.Join(append(failed, t.close(ctx))...)
}

func check(ctx context.Context, source Source) (reason string, err error) {
	reason, err = source.Check(ctx)
	if err != nil {
		return "", fmt.Errorf("measuring %s: %w", source.Name(), err)
	}
	return reason, nil
}

// watch keeps the answer of one source fresh.
func (t *Throttle) watch(ctx context.Context, w *watched) {
	ticker := time.NewTicker(t.config.Interval)
	defer ticker.Stop()
	for ctx.Err() == nil {
		var tick <-chan time.Time
		if w.source.Enabled() {
			t.measure(ctx, w)
			tick = ticker.C
		} else {
			t.record(func() { w.measured = false })
		}
		select {
		case <-ctx.Done():
		case <-w.source.Changed():
		case <-tick:
		}
	}
}

// measure asks the source once. A source that takes too long does not leave its
// last answer standing.
func (t *Throttle) measure(ctx context.Context, w *watched) {
	t.mu.Lock()
	w.measuring = true
	t.mu.Unlock()
	limited, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	stop := context.AfterFunc(limited, func() {
		t.record(func() {
			if w.measuring && ctx.Err() == nil {
				w.answer("", fmt.Errorf("measuring %s: no answer within %v", w.source.Name(), checkLimit))
			}
		})
	})
	defer stop()
	reason, err := check(limited, w.source)
	t.record(func() {
		w.measuring = false
		if ctx.Err() == nil {
			w.answer(reason, err)
		}
	})
}

func (w *watched) answer(reason string, err error) {
	w.measured, w.reason, w.failed = true, reason, err != nil
	if err != nil {
		w.reason = strings.Join(strings.Fields(err.Error()), " ") // one line
	}
}

// record changes answers and wakes who waits for them.
func (t *Throttle) record(change func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	change()
	close(t.changed)
	t.changed = make(chan struct{})
}

// announce tells the observer of every verdict that blames others than the last.
func (t *Throttle) announce(ctx context.Context) {
	blamed := ""
	for ctx.Err() == nil {
		now := t.verdict()
		if now.blamed != blamed {
			blamed = now.blamed
			t.config.OnChange(now.told)
		}
		await(ctx, 0, now.changed, nil)
	}
}

// end makes all answers unknown: nobody keeps them fresh.
func (t *Throttle) end() {
	t.record(func() {
		for _, w := range t.watched {
			w.measured = false
		}
	})
}

func (t *Throttle) close(ctx context.Context) error {
	var failed []error
	for _, s := range t.sessions {
		failed = append(failed, s.close(ctx))
	}
	return errors.Join(failed...)
}
