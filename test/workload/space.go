package workload

import (
	"math/rand/v2"
	"slices"
	"sync/atomic"
)

const (
	// farBase is the first of the far ordinals: keys at the very end, above every sequence, that Copy and KeyUp take.
	farBase int64 = 1 << 30
	// bigBase is the first ordinal of Big, far from all others.
	bigBase   int64 = 3 << 29
	leastSize int64 = 64
	hotKeys         = 16
	longKeys        = 8
	toastKeys       = 128
)

// space is what is known in the client of the keys in use. Safe for concurrent use.
type space struct {
	size  atomic.Int64 // ordinals 1..size are in the ordinary range; about half of them have a row
	far   atomic.Int64 // far ordinals in use
	next  atomic.Int64 // the last ordinary ordinal handed out; up to size it is not used
	taken atomic.Int64 // far ordinals handed out
	large atomic.Int64 // ordinals handed out to Big
	bands atomic.Pointer[[]band]
	limit bool    // size is fixed, there are no far ordinals
	hot   []int64 // written more often than others, so that writers collide
	long  []int64 // left to LongOpen
	toast []int64 // written by ToastUnchanged, so that few rows become long
}

func newSpace(rows, limit int64) *space {
	size := max(2*rows, leastSize)
	sp := &space{limit: limit > 0}
	if limit > 0 {
		size = limit
	}
	sp.size.Store(size)
	sp.next.Store(size)
	filled := max(rows, leastSize/2)
	spread := func(n int, offset int64) []int64 {
		var ords []int64
		for i := range int64(n) {
			ord := 2 * (1 + (i*filled+offset)/int64(n)%filled)
			if !slices.Contains(ords, ord) && !slices.Contains(sp.long, ord) {
				ords = append(ords, ord)
			}
		}
		return ords
	}
	sp.long = spread(longKeys, filled/2)
	sp.hot = spread(hotKeys, 0)
	sp.toast = spread(toastKeys, 0)
	return sp
}

// takeNext reserves an ordinal at the end of the ordinary range.
func (sp *space) takeNext() int64 { return sp.next.Add(1) }

// takeFar reserves n far ordinals and returns the first.
func (sp *space) takeFar(n int64) int64 { return farBase + sp.taken.Add(n) - n }

// band is a run of ordinals that one Big has inserted.
type band struct{ first, n int64 }

// takeBand reserves n ordinals for Big.
func (sp *space) takeBand(n int64) band { return band{bigBase + sp.large.Add(n) - n, n} }

// publishBand lets others pick them once they are committed.
func (sp *space) publishBand(b band) {
	for {
		old := sp.bands.Load()
		bands := []band{b}
		if old != nil {
			bands = append(bands, *old...)
		}
		if sp.bands.CompareAndSwap(old, &bands) {
			return
		}
	}
}

// publish lets others pick the ordinals up to ord, of its range, once they are committed.
func (sp *space) publish(ord int64) {
	last := &sp.size
	if ord >= farBase {
		last, ord = &sp.far, ord-farBase+1
	} else if sp.limit {
		return
	}
	for {
		now := last.Load()
		if ord <= now || last.CompareAndSwap(now, ord) {
			return
		}
	}
}

// pick returns an ordinal to write to: mostly any one, now and then a hot or a far one. Never one of LongOpen's.
func (sp *space) pick(r *rand.Rand) int64 {
	switch far, bands := sp.far.Load(), sp.bands.Load(); {
	case r.IntN(8) == 0:
		return sp.hot[r.IntN(len(sp.hot))]
	case bands != nil && r.IntN(16) == 0:
		b := (*bands)[r.IntN(len(*bands))]
		return b.first + r.Int64N(b.n)
	case far > 0 && r.IntN(16) == 0:
		return farBase + r.Int64N(far)
	default:
		return sp.between(r, 1, sp.size.Load())
	}
}

// between returns an ordinal from lo to hi that is not one of LongOpen's.
func (sp *space) between(r *rand.Rand, lo, hi int64) int64 {
	for {
		ord := lo + r.Int64N(max(1, hi-lo+1))
		if !slices.Contains(sp.long, ord) {
			return ord
		}
		if lo >= hi {
			return ord + 1
		}
	}
}

// across returns two ordinals on either side of a random point of the key space, the lower one first.
func (sp *space) across(r *rand.Rand) (low, high int64) {
	size := sp.size.Load()
	point := 2 + r.Int64N(size-2)
	low = sp.between(r, 1, point-1)
	if far := sp.far.Load(); far > 0 && r.IntN(8) == 0 {
		return low, farBase + r.Int64N(far)
	}
	return low, sp.between(r, point, size)
}
