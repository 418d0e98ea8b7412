package main

import (
	"slices"
	"time"
)

// window is what the clients saw in a span of time. Times are in milliseconds.
type window struct {
	rate    float64 // transactions finished per second
	p99     float64 // of what a transaction took, once a client was free for it
	worst   float64 // the longest that one took, once a client was free for it
	overdue float64 // the longest that one took, from when it was due
	gap     float64 // the longest time without one that finished
}

// look looks at the transactions, sorted by their end, that were open at some time of the span.
func look(all []finished, from, to time.Time) window {
	var took, ran []time.Duration
	var gap time.Duration
	ended := 0
	for i, tx := range all {
		if !tx.at.Before(from) && !tx.at.Add(-tx.took).After(to) {
			took, ran = append(took, tx.took), append(ran, tx.ran)
		}
		if !tx.at.Before(from) && !tx.at.After(to) {
			ended++
		}
		if i > 0 && !tx.at.Before(from) && !all[i-1].at.After(to) {
			gap = max(gap, tx.at.Sub(all[i-1].at))
		}
	}
	w := window{gap: milliseconds(gap)}
	if span := to.Sub(from).Seconds(); span > 0 {
		w.rate = float64(ended) / span
	}
	if n := len(took); n > 0 {
		slices.Sort(took)
		slices.Sort(ran)
		w.p99, w.worst, w.overdue = milliseconds(ran[n*99/100]), milliseconds(ran[n-1]), milliseconds(took[n-1])
	}
	return w
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
