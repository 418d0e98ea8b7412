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

// sizer leads the chunk size, in rows, towards the target time of one chunk. Where a chunk costs more by itself than
// half the target, however few its rows, it leads it to the size at which the rows cost as much as the chunk: chunks
// that are cut smaller would take hardly less time each, and the copy would come to a stand.
type sizer struct {
	target func() time.Duration

	mu   sync.Mutex
	rows int
	cost cost
}

func newSizer(target func() time.Duration) *sizer { return &sizer{target: target, rows: firstChunk} }

func (s *sizer) size() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rows
}

// observe learns from a chunk of the given size. It grows at most twofold at a
// time, and shrinks as far as it must.
func (s *sizer) observe(rows int, took time.Duration) {
	if rows == 0 || took <= 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cost.observe(float64(rows), took.Seconds())
	chunk, row := s.cost.split()
	wanted := max(s.target().Seconds()-chunk, chunk) / row
	least := minChunk
	if s.rows == minChunk {
		least++ // for good at one size, it would never learn that more rows take no longer
	}
	s.rows = int(min(max(wanted, float64(least)), 2*float64(s.rows), maxChunk))
}

// halve answers a chunk that ran into its statement timeout.
func (s *sizer) halve() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rows = max(s.rows/2, minChunk)
	return s.rows
}

const (
	// memory is how much an observation still counts when the next has come.
	memory = 0.8
	// surprise is how many times the expected time, or what part of it, tells that the past no longer does.
	surprise = 4
	// doubt is the square of the relative spread of sizes from which on they tell more than their mean does.
	doubt = 0.05 * 0.05
)

// cost tells what a chunk costs by itself from what each of its rows adds: the line through the sizes and times of the
// last chunks, by least squares. While they are of one size, which shows no line, it is the one through zero.
type cost struct {
	weight, rows, seconds, squares, products float64 // sums over the observations, in which the old ones fade
}

func (c *cost) observe(rows, seconds float64) {
	if c.weight > 0 {
		chunk, row := c.split()
		if ratio := seconds / (chunk + rows*row); ratio > surprise || ratio < 1.0/surprise {
			*c = cost{}
		}
	}
	for sum, term := range map[*float64]float64{
		&c.weight: 1, &c.rows: rows, &c.seconds: seconds, &c.squares: rows * rows, &c.products: rows * seconds,
	} {
		*sum = memory**sum + term
	}
}

// split returns the seconds of a chunk without rows, and those of a row. Both together explain the mean of what was
// observed.
func (c *cost) split() (chunk, row float64) {
	rows, seconds := c.rows/c.weight, c.seconds/c.weight
	variance := c.squares/c.weight - rows*rows
	covariance := c.products/c.weight - rows*seconds
	through := seconds / rows
	row = (covariance + doubt*rows*seconds) / (variance + doubt*rows*rows)
	row = min(max(row, through/maxChunk), through)
	return seconds - row*rows, row
}
