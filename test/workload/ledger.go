package workload

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// FirstPhase is the phase before the first call of Workload.Phase.
const FirstPhase = "start"

var errEnded = errors.New("the workload has ended")

// stamp is a moment as the ledger counts them.
type stamp struct {
	phase string
	tick  int
}

// waiter waits for commits sent at its tick or later.
type waiter struct {
	tick int
	left map[Kind]int
	done chan struct{}
}

// ledger counts, and wakes those who wait for counts. Safe for concurrent use.
type ledger struct {
	mu      sync.Mutex
	now     stamp
	stats   Stats
	waiters []*waiter
	err     error         // the first unexpected error
	ended   chan struct{} // closed by end or fail
	holdIn  []string
	moved   chan struct{} // closed and made anew by enter and release
	free    bool          // release was called in this phase
}

func newLedger(seed int64, kinds []Kind, columns []string, holdIn []string) *ledger {
	l := &ledger{
		now: stamp{phase: FirstPhase}, ended: make(chan struct{}), moved: make(chan struct{}), holdIn: holdIn,
		stats: Stats{
			Seed: seed, Kinds: kinds, Phases: []string{FirstPhase}, Commits: map[string]map[Kind]int{FirstPhase: {}},
			Columns: map[string]int{}, Aborts: map[string]int{}, Slowest: map[string]time.Duration{},
		},
	}
	for _, name := range columns {
		l.stats.Columns[name] = 0
	}
	return l
}

func (l *ledger) stamp() stamp {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now
}

// enter begins a phase.
func (l *ledger) enter(phase string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now = stamp{phase, l.now.tick + 1}
	l.stats.Phases = append(l.stats.Phases, phase)
	if l.stats.Commits[phase] == nil {
		l.stats.Commits[phase] = map[Kind]int{}
	}
	l.free = false
	l.move()
	if l.held() {
		for _, w := range l.waiters {
			delete(w.left, LongOpen)
		}
		l.wake()
	}
}

// release lets LongOpen commit, and not hold again until the next phase.
func (l *ledger) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.free = true
	l.move()
}

func (l *ledger) move() {
	close(l.moved)
	l.moved = make(chan struct{})
}

func (l *ledger) held() bool { return !l.free && slices.Contains(l.holdIn, l.now.phase) }

// hold reports whether LongOpen is to stay open, and returns a channel that is closed when that may have changed.
func (l *ledger) hold() (bool, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.held(), l.moved
}

// commit counts one transaction of a kind; column is the one an UpdateEach changed, or "".
func (l *ledger) commit(kind Kind, at stamp, column string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stats.Commits[at.phase][kind]++
	if column != "" {
		l.stats.Columns[column]++
	}
	for _, w := range l.waiters {
		if n, ok := w.left[kind]; !ok || at.tick < w.tick {
			continue
		} else if n > 1 {
			w.left[kind] = n - 1
		} else {
			delete(w.left, kind)
		}
	}
	l.wake()
}

// wake ends the waiters that have what they wanted.
func (l *ledger) wake() {
	l.waiters = slices.DeleteFunc(l.waiters, func(w *waiter) bool {
		if len(w.left) == 0 {
			close(w.done)
			return true
		}
		return false
	})
}

func (l *ledger) took(at stamp, d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stats.Slowest[at.phase] = max(l.stats.Slowest[at.phase], d)
}

func (l *ledger) abort(code string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stats.Aborts[code]++
}

func (l *ledger) miss() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stats.Misses++
}

func (l *ledger) reconnected() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stats.Reconnects++
}

// end tells everybody to come to an end; err, if any, is why. Only the first error is kept.
func (l *ledger) end(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
	}
	select {
	case <-l.ended:
	default:
		close(l.ended)
	}
}

// failure returns the unexpected error that ended the workload, with the seed; nil if none did.
func (l *ledger) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		return nil
	}
	return fmt.Errorf("running the workload (seed %d): %w", l.stats.Seed, l.err)
}

func (l *ledger) snapshot() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stats.clone()
}

// await blocks until the wanted number of every kind has been committed, sent after the call.
func (l *ledger) await(ctx context.Context, want map[Kind]int) error {
	l.mu.Lock()
	l.now.tick++
	w := &waiter{tick: l.now.tick, left: want, done: make(chan struct{})}
	if l.held() {
		delete(w.left, LongOpen)
	}
	l.waiters = append(l.waiters, w)
	l.wake()
	l.mu.Unlock()
	select {
	case <-w.done:
		return nil
	case <-l.ended:
	case <-ctx.Done():
	}
	l.mu.Lock()
	l.waiters = slices.DeleteFunc(l.waiters, func(other *waiter) bool { return other == w })
	left := fmt.Sprintf("%v", w.left)
	l.mu.Unlock()
	if err := l.failure(); err != nil {
		return err
	}
	cause := errEnded
	if ctx.Err() != nil {
		cause = context.Cause(ctx)
	}
	return fmt.Errorf("awaiting commits, still missing %s (seed %d): %w", left, l.snapshot().Seed, cause)
}
