package copier

import (
	"sync"
	"time"
)

func always(d time.Duration) func() time.Duration { return func() time.Duration { return d } }

// tuned is a Tuning that a test sets.
type tuned struct {
	mu      sync.Mutex
	workers int
	time    time.Duration
	changed chan struct{}
}

func newTuned(workers int, chunk time.Duration) *tuned {
	return &tuned{workers: workers, time: chunk, changed: make(chan struct{})}
}

func (t *tuned) Workers() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.workers
}

func (t *tuned) ChunkTime() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.time
}

func (t *tuned) Changed() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.changed
}

func (t *tuned) set(workers int, chunk time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.workers, t.time = workers, chunk
	close(t.changed)
	t.changed = make(chan struct{})
}
