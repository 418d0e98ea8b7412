package workload

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestKindNames(t *testing.T) {
	for k := Insert; k < kindCount; k++ {
		if k.String() == "" {
			t.Errorf("kind %d has no name", int(k))
		}
	}
	if Truncate.String() != "Truncate" || Kind(-1).String() != "Kind(-1)" || kindCount.String() != "Kind(18)" {
		t.Error(Truncate, Kind(-1), kindCount)
	}
	if kinds := DefaultKinds(); slices.Contains(kinds, Prepared) || !slices.Contains(kinds, LongOpen) {
		t.Error(kinds)
	}
}

// TestAwaitCountsOnlyLaterCommits: one whose COMMIT was sent before the call proves nothing.
func TestAwaitCountsOnlyLaterCommits(t *testing.T) {
	l := newLedger(7, []Kind{Insert, LongOpen}, nil, []string{"hold"})
	before := l.stamp()
	done := make(chan error, 1)
	go func() { done <- l.await(t.Context(), map[Kind]int{Insert: 2, LongOpen: 1}) }()
	for l.stamp() == before { // the call has not been seen yet
		l.commit(Insert, before, "")
	}
	l.commit(Insert, before, "")
	l.commit(Insert, l.stamp(), "")
	l.commit(Delete, l.stamp(), "")
	select {
	case err := <-done:
		t.Fatalf("await returned too early: %v", err)
	default:
	}
	l.commit(Insert, l.stamp(), "")
	l.enter("hold") // LongOpen cannot commit any more: nobody may wait for it
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestAwaitEnds(t *testing.T) {
	l := newLedger(7, []Kind{Insert}, nil, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.await(ctx, map[Kind]int{Insert: 1}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	l.end(nil)
	if err := l.await(t.Context(), map[Kind]int{Insert: 1}); !errors.Is(err, errEnded) {
		t.Error(err)
	}
	boom := errors.New("boom")
	l.end(boom) // of a writer in its last transaction
	if err := l.await(t.Context(), map[Kind]int{Insert: 1}); !errors.Is(err, boom) {
		t.Error(err)
	}
}

func TestSpace(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, rows := range []int64{0, 1, 10, 1000, 1_000_000} {
		sp := newSpace(rows, 0)
		if len(sp.long) != longKeys || len(sp.hot) == 0 || len(sp.toast) == 0 {
			t.Errorf("%d rows: %v", rows, sp)
		}
		for range 10_000 {
			low, high := sp.across(r)
			ord := sp.pick(r)
			for _, o := range []int64{low, high, ord} {
				if o < 1 || o > sp.size.Load() || slices.Contains(sp.long, o) {
					t.Fatalf("%d rows: ordinal %d", rows, o)
				}
			}
			if low >= high {
				t.Fatalf("%d rows: %d is to be lower than %d", rows, low, high)
			}
		}
	}
	sp := newSpace(100, 0)
	if size := sp.size.Load(); sp.takeNext() != size+1 || sp.takeFar(3) != farBase || sp.takeFar(1) != farBase+3 || sp.size.Load() != size {
		t.Error("reserved ordinals are in use, or not in order")
	}
	sp.publish(250)
	sp.publish(farBase + 3)
	sp.publish(farBase + 1)
	if sp.size.Load() != 250 || sp.far.Load() != 4 {
		t.Errorf("published up to %d and %d", sp.size.Load(), sp.far.Load())
	}
	b := sp.takeBand(10)
	sp.publishBand(b)
	seen := map[bool]bool{}
	for range 1000 {
		ord := sp.pick(r)
		seen[ord >= b.first && ord < b.first+b.n] = true
	}
	if !seen[true] || !seen[false] {
		t.Error("the ordinals of Big are never picked, or only they are")
	}
}
