package copier

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/keyset"
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

// TestWorkersFollowTheTuning begins with one worker, goes on with three once the
// first chunk is there, and ends with two: workers that are not wanted have no
// session.
func TestWorkersFollowTheTuning(t *testing.T) {
	t.Parallel()
	r := newRig(t, tenThousand, toBigint)
	tuning := newTuned(1, time.Millisecond)
	var mu sync.Mutex
	connected := map[string]bool{}
	three, two := make(chan struct{}), make(chan struct{})
	chunks := 0
	r.config = Config{Tuning: tuning, OnChunk: func(keyset.Range, int64, time.Duration) {
		mu.Lock()
		chunks++
		n := chunks
		if n == 1 {
			if len(connected) != 1 {
				t.Errorf("one worker has the sessions %v", connected)
			}
			tuning.set(3, time.Millisecond)
		}
		mu.Unlock()
		if n == 1 {
			<-three // the others have come by now
			tuning.set(2, time.Millisecond)
			close(two)
		}
	}}
	c := r.copier()
	c.connect = func(ctx context.Context, purpose string) (*pgx.Conn, error) {
		mu.Lock()
		connected[purpose] = true
		if len(connected) == 3 {
			close(three)
		}
		mu.Unlock()
		conn, err := r.AsLogin(ctx, purpose)
		if purpose == "copy 3" {
			<-two // it comes too late: two are enough
		}
		return conn, err
	}
	must(t, c.Run(t.Context()))
	r.requireCopied(t)
	if !connected["copy 1"] || !connected["copy 2"] || !connected["copy 3"] || len(connected) != 3 {
		t.Errorf("the sessions were %v", connected)
	}
}
