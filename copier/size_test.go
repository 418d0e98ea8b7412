package copier

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// settle observes chunks of the sizer's own size at a speed, and returns where it ends.
func settle(s *sizer, perRow time.Duration, chunks int) int {
	for range chunks {
		s.observe(s.size(), time.Duration(s.size())*perRow)
	}
	return s.size()
}

func TestChunkSizeFollowsTheTime(t *testing.T) {
	s := newSizer(always(500 * time.Millisecond))
	for _, c := range []struct {
		perRow time.Duration
		want   int
	}{
		{10 * time.Microsecond, 50_000},
		{time.Millisecond, 500},
		{100 * time.Microsecond, 5_000},
		{time.Second, minChunk + 1}, // or minChunk, in turns
		{time.Nanosecond, maxChunk},
	} {
		got := settle(s, c.perRow, 40)
		if got < c.want*95/100 && got != minChunk || got > c.want*105/100 {
			t.Errorf("at %s a row the size settles at %d, want %d", c.perRow, got, c.want)
		}
	}
}

func TestChunkSizeGrowsSlowlyAndShrinksAtOnce(t *testing.T) {
	s := newSizer(always(500 * time.Millisecond))
	s.observe(firstChunk, time.Microsecond)
	if got := s.size(); got > 3*firstChunk || got <= firstChunk {
		t.Errorf("after one fast chunk the size is %d", got)
	}
	s.observe(s.size(), 500*time.Second)
	if got := s.size(); got > 10 {
		t.Errorf("after one chunk that took a thousand times as long as it should the size is %d", got)
	}
	before := s.size()
	for _, nothing := range []struct {
		rows int
		took time.Duration
	}{{0, time.Second}, {5, 0}} {
		s.observe(nothing.rows, nothing.took)
	}
	if s.size() != before {
		t.Errorf("a chunk that tells nothing changed the size to %d", s.size())
	}
}

func TestHalve(t *testing.T) {
	s := newSizer(always(time.Second))
	if got := s.halve(); got != firstChunk/2 {
		t.Errorf("half is %d", got)
	}
	for range 20 {
		s.halve()
	}
	if got := s.size(); got != minChunk {
		t.Errorf("the least is %d", got)
	}
}

// TestChunkSizeWhereAChunkIsDearByItself: smaller chunks do not help where commits wait for a distant standby, or the
// server is short of CPU. Cut down to a row each, they would copy nothing but themselves.
func TestChunkSizeWhereAChunkIsDearByItself(t *testing.T) {
	const target, chunks = 500 * time.Millisecond, 500
	random := rand.New(rand.NewPCG(1, 2))
	for _, c := range []struct {
		chunk, row time.Duration
		noise      float64       // standard deviation of the logarithm of a chunk's time
		mean       time.Duration // that a chunk may take, and half of what it must
	}{
		{chunk: 0, row: time.Millisecond, mean: target},
		{chunk: 0, row: time.Millisecond, noise: 0.3, mean: target},
		{chunk: 100 * time.Millisecond, row: 100 * time.Microsecond, noise: 0.3, mean: target},
		{chunk: time.Second, row: 100 * time.Microsecond, mean: 2 * time.Second},
		{chunk: time.Second, row: 100 * time.Microsecond, noise: 0.3, mean: 2 * time.Second},
		{chunk: 2 * time.Second, row: 100 * time.Millisecond, noise: 0.3, mean: 4 * time.Second},
	} {
		s := newSizer(always(target))
		var rows, seconds float64
		for i := range chunks {
			n := s.size()
			took := (c.chunk.Seconds() + float64(n)*c.row.Seconds()) * math.Exp(random.NormFloat64()*c.noise)
			s.observe(n, time.Duration(took*float64(time.Second)))
			if i >= chunks/10 { // once it has settled
				rows, seconds = rows+float64(n), seconds+took
			}
		}
		mean := seconds / (chunks - chunks/10)
		share := rows * c.row.Seconds() / seconds
		t.Logf("a chunk %s and a row %s, noise %.1f: a chunk takes %.3f s on average, %.0f %% of it for its rows",
			c.chunk, c.row, c.noise, mean, 100*share)
		if limit := c.mean.Seconds(); mean > 1.3*limit || mean < limit/2 {
			t.Errorf("a chunk takes %.3f s on average, want about %.3f", mean, limit)
		}
		if share < 0.3 {
			t.Errorf("only %.0f %% of the time goes to the rows", 100*share)
		}
	}
}
