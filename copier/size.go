package copier

import (
	"sync"
	"time"
)

const (
	firstChunk = 1_000
	minChunk   = 1
	maxChunk   = 100_000
)

// sizer leads the chunk size, in rows, towards the target time of one chunk.
type sizer struct {
	target func() time.Duration

	mu   sync.Mutex
	rows int
}

func newSizer(target func() time.Duration) *sizer { return &sizer{target: target, rows: firstChunk} }

func (s *sizer) size() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rows
}

// observe learns from a chunk of the given size. It grows at most threefold at a
// time, and shrinks as far as it must.
func (s *sizer) observe(rows int, took time.Duration) {
	if rows == 0 || took <= 0 {
		return
	}
	wanted := float64(rows) * float64(s.target()) / float64(took)
	s.mu.Lock()
	defer s.mu.Unlock()
	next := int(min(wanted, 3*float64(s.rows)))
	s.rows = min(max((s.rows+next)/2, minChunk), maxChunk)
	if next < s.rows/2 {
		s.rows = max(next, minChunk)
	}
}

// halve answers a chunk that ran into its statement timeout.
func (s *sizer) halve() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rows = max(s.rows/2, minChunk)
	return s.rows
}
