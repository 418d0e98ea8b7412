package copier

import (
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
		{time.Second, minChunk},
		{time.Nanosecond, maxChunk},
	} {
		got := settle(s, c.perRow, 40)
		if got < c.want*95/100 || got > c.want*105/100 {
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
