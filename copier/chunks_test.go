package copier

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/pgshadow/pgshadow/pkg/keyset"
)

func bound(n int) *keyset.Key {
	key := keyset.NewKey(strconv.Itoa(n))
	return &key
}

func upTo(lo, hi *keyset.Key) keyset.Range { return keyset.Range{Lo: lo, Hi: hi} }

func shown(mark keyset.Watermark) string {
	switch {
	case mark.End:
		return "end"
	case mark.Key == nil:
		return "nothing"
	default:
		return mark.Key.String()
	}
}

func requireMarks(t *testing.T, c *Chunks, low, high string) {
	t.Helper()
	gotLow, gotHigh := c.Watermarks()
	if shown(gotLow) != low || shown(gotHigh) != high {
		t.Fatalf("the watermarks are %s and %s, want %s and %s", shown(gotLow), shown(gotHigh), low, high)
	}
}

func requireFrontier(t *testing.T, c *Chunks, want string) {
	t.Helper()
	lo, end := c.frontier()
	if got := shown(keyset.Watermark{Key: lo, End: end}); got != want {
		t.Fatalf("the next chunk begins at %s, want %s", got, want)
	}
}

func TestChunksThatCompleteOutOfOrder(t *testing.T) {
	c := NewChunks(nil)
	requireMarks(t, c, "nothing", "nothing")
	requireFrontier(t, c, "nothing")
	first := c.extend(upTo(nil, bound(10)))
	requireMarks(t, c, "nothing", "(10)")
	second := c.extend(upTo(bound(10), bound(20)))
	last := c.extend(upTo(bound(20), nil))
	requireMarks(t, c, "nothing", "end")
	requireFrontier(t, c, "end")
	c.finish(last, 3)
	requireMarks(t, c, "nothing", "end") // parked
	c.finish(first, 1)
	requireMarks(t, c, "(10)", "end")
	if c.Complete() {
		t.Error("it is complete with a chunk missing")
	}
	c.finish(second, 2)
	requireMarks(t, c, "end", "end")
	if !c.Complete() || c.Rows() != 6 || len(c.pieces) != 0 {
		t.Errorf("complete %t, %d rows, %d pieces", c.Complete(), c.Rows(), len(c.pieces))
	}
}

func TestSplitChunk(t *testing.T) {
	c := NewChunks(nil)
	chunk := c.extend(upTo(nil, bound(30)))
	after := c.extend(upTo(bound(30), nil))
	c.split(chunk, *bound(10))
	requireMarks(t, c, "nothing", "end")
	c.finish(after, 0)
	c.finish(chunk, 10)
	requireMarks(t, c, "(10)", "end")
	rest, ok := c.reuse()
	if !ok || rest.String() != "((10), (30)]" {
		t.Fatalf("the rest is %v", rest)
	}
	if _, ok := c.reuse(); ok {
		t.Fatal("it was handed out twice")
	}
	c.split(rest, *bound(20))
	c.finish(rest, 10)
	requireMarks(t, c, "(20)", "end")
	rest, _ = c.reuse()
	c.finish(rest, 10)
	requireMarks(t, c, "end", "end")
}

// TestResume starts from what an earlier process committed. What it had handed
// out besides is handed out again.
func TestResume(t *testing.T) {
	done := func(lo, hi *keyset.Key) Done { return Done{Range: upTo(lo, hi), Rows: 5} }
	for name, c := range map[string]struct {
		committed           []Done
		low, high, frontier string
		again               []string
	}{
		"nothing":           {nil, "nothing", "nothing", "nothing", nil},
		"a prefix":          {[]Done{done(nil, bound(10)), done(bound(10), bound(20))}, "(20)", "(20)", "(20)", nil},
		"without the first": {[]Done{done(bound(10), bound(20))}, "nothing", "(20)", "(20)", []string{"(-infinity, (10)]"}},
		"with two gaps": {[]Done{done(nil, bound(10)), done(bound(20), bound(30)), done(bound(40), bound(50))}, "(10)", "(50)", "(50)",
			[]string{"((10), (20)]", "((30), (40)]"}},
		"without the one before the last": {[]Done{done(nil, bound(10)), done(bound(20), nil)}, "(10)", "end", "end", []string{"((10), (20)]"}},
		"the last alone":                  {[]Done{done(bound(20), nil)}, "nothing", "end", "end", []string{"(-infinity, (20)]"}},
		"one chunk of everything":         {[]Done{done(nil, nil)}, "end", "end", "end", nil},
	} {
		t.Run(name, func(t *testing.T) {
			chunks := NewChunks(c.committed)
			requireMarks(t, chunks, c.low, c.high)
			requireFrontier(t, chunks, c.frontier)
			if want := int64(5 * len(c.committed)); chunks.Rows() != want {
				t.Errorf("%d rows are counted, want %d", chunks.Rows(), want)
			}
			for _, want := range c.again {
				p, ok := chunks.reuse()
				if !ok || p.String() != want {
					t.Fatalf("handed out again is %v, want %s", p, want)
				}
				chunks.finish(p, 1)
			}
			if p, ok := chunks.reuse(); ok {
				t.Errorf("handed out again is %s too", p)
			}
			requireMarks(t, chunks, c.high, c.high)
		})
	}
}

// TestChunksCoverTheKeySpace hands out, splits, finishes, and breaks off at
// random; whatever happens, every key is copied exactly once, and the low
// watermark never passes one that is not.
func TestChunksCoverTheKeySpace(t *testing.T) {
	const keys = 60
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 300 {
		var committed []Done
		copied := [keys + 2]int{}
		for crash := range 4 {
			c := NewChunks(sortedChunks(committed))
			var flying []*piece
			last := 0
			for step := 0; !c.Complete() && (crash == 3 || step < 20); step++ {
				switch random.IntN(3) {
				case 0:
					if p := handOut(c, random, keys); p != nil {
						flying = append(flying, p)
					}
				case 1:
					if len(flying) > 0 {
						p := flying[random.IntN(len(flying))]
						if lo, hi := ends(p.Range, keys); hi-lo > 1 {
							c.split(p, *bound(lo + 1 + random.IntN(hi-lo-1)))
						}
					}
				case 2:
					if len(flying) > 0 {
						i := random.IntN(len(flying))
						p := flying[i]
						flying = append(flying[:i], flying[i+1:]...)
						lo, hi := ends(p.Range, keys)
						for k := lo + 1; k <= hi; k++ {
							copied[k]++
						}
						committed = append(committed, Done{Range: p.Range})
						c.finish(p, int64(hi-lo))
					}
				}
				low, high := c.Watermarks()
				if err := checkMarks(low, high, copied[:], keys, &last); err != nil {
					t.Fatalf("round %d, process %d, step %d: %v", round, crash, step, err)
				}
			}
		}
		for k := 1; k <= keys+1; k++ {
			if copied[k] != 1 {
				t.Fatalf("round %d: key %d was copied %d times", round, k, copied[k])
			}
		}
	}
}

func handOut(c *Chunks, random *rand.Rand, keys int) *piece {
	if p, ok := c.reuse(); ok {
		return p
	}
	lo, end := c.frontier()
	if end {
		return nil
	}
	from, _ := ends(keyset.Range{Lo: lo}, keys)
	hi := bound(from + 1 + random.IntN(10))
	if from+10 >= keys {
		hi = nil
	}
	return c.extend(upTo(lo, hi))
}

// ends gives a range of whole numbers as (lo, hi]; beyond the last key lies one more.
func ends(r keyset.Range, keys int) (lo, hi int) {
	hi = keys + 1
	if r.Lo != nil {
		lo, _ = strconv.Atoi(string(*r.Lo))
	}
	if r.Hi != nil {
		hi, _ = strconv.Atoi(string(*r.Hi))
	}
	return lo, hi
}

func sortedChunks(chunks []Done) []Done {
	sorted := append([]Done(nil), chunks...)
	for i := range sorted {
		for j := i; j > 0; j-- {
			a, _ := ends(sorted[j-1].Range, 0)
			b, _ := ends(sorted[j].Range, 0)
			if a > b {
				sorted[j-1], sorted[j] = sorted[j], sorted[j-1]
			}
		}
	}
	return sorted
}

func checkMarks(low, high keyset.Watermark, copied []int, keys int, last *int) error {
	at := func(mark keyset.Watermark) int {
		if mark.End {
			return keys + 1
		}
		lo, _ := ends(keyset.Range{Lo: mark.Key}, keys)
		return lo
	}
	if at(low) < *last || at(low) > at(high) {
		return fmt.Errorf("the low watermark is %d after %d, the high one is %d", at(low), *last, at(high))
	}
	*last = at(low)
	for k := 1; k < len(copied); k++ {
		switch {
		case k <= at(low) && copied[k] != 1:
			return fmt.Errorf("key %d, below the low watermark %d, was copied %d times", k, at(low), copied[k])
		case k > at(high) && copied[k] != 0:
			return fmt.Errorf("key %d, above the high watermark %d, was copied", k, at(high))
		}
	}
	return nil
}
