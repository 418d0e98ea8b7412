package throttle

import (
	"fmt"
	"sync"
	"time"
)

// Rate is the pace of a run: a bucket that fills by the limit each second, holds
// a second's worth, and may be overdrawn, for rows are counted once written.
type Rate struct {
	mu      sync.Mutex
	limit   int // rows per second; zero: none
	rows    float64
	at      time.Time     // when rows was right
	changed chan struct{} // closed, and another one made, when the limit changes
}

func newRate(limit int) *Rate {
	return &Rate{limit: limit, rows: float64(limit), at: time.Now(), changed: make(chan struct{})}
}

// SetLimit changes the rows per second; zero lifts the limit and forgets what is owed.
func (r *Rate) SetLimit(limit int) error {
	if err := validRows(limit); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fill()
	r.limit = limit
	r.rows = min(r.rows, float64(limit))
	close(r.changed)
	r.changed = make(chan struct{})
	return nil
}

// charge counts rows that were written.
func (r *Rate) charge(rows int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fill()
	r.rows -= float64(rows)
}

// delay is the time until nothing is owed, and a channel that is closed when
// that answer no longer holds.
func (r *Rate) delay() (time.Duration, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fill()
	if r.limit == 0 || r.rows >= 0 {
		return 0, r.changed
	}
	return time.Duration(-r.rows/float64(r.limit)*float64(time.Second)) + 1, r.changed
}

// reason is "" while nothing is owed.
func (r *Rate) reason() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fill()
	if r.limit == 0 || r.rows >= 0 {
		return ""
	}
	return fmt.Sprintf("held to %d rows/s", r.limit)
}

// fill is called with mu held.
func (r *Rate) fill() {
	now := time.Now()
	if r.limit == 0 {
		r.rows = 0
	} else {
		r.rows = min(r.rows+now.Sub(r.at).Seconds()*float64(r.limit), float64(r.limit))
	}
	r.at = now
}
