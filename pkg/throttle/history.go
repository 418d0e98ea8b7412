package throttle

import (
	"slices"
	"time"

	"github.com/pgshadow/pgshadow/pkg/pg"
)

// historySize bounds the samples: at one a second and a busy server, 17 minutes.
const historySize = 1024

// history is when the server's WAL had reached which position. It bounds a
// standby's lag by the position that it has replayed, for the server's own figure
// is missing after an idle time and stands still while nothing is reported.
type history struct{ samples []sample }

// sample is a position and the first and last time at which the WAL ended there.
type sample struct {
	lsn         pg.LSN
	first, last time.Time
}

func (h *history) add(at time.Time, lsn pg.LSN) {
	if n := len(h.samples); n > 0 {
		newest := &h.samples[n-1]
		switch {
		case lsn == newest.lsn:
			newest.last = at
			return
		case lsn < newest.lsn: // another server, or timeline
			h.samples = h.samples[:0]
		case n == historySize:
			h.samples = slices.Delete(h.samples, 0, 1)
		}
	}
	h.samples = append(h.samples, sample{lsn: lsn, first: at, last: at})
}

func (h *history) clear() { h.samples = nil }

// bounds says, for a standby that has replayed up to lsn, how long it has lagged
// at least, and, when the history goes back that far, at most.
func (h *history) bounds(now time.Time, lsn pg.LSN) (least, most time.Duration, known bool) {
	for i, s := range h.samples {
		if s.lsn <= lsn {
			most, known = now.Sub(s.last), true
			continue
		}
		least = now.Sub(h.samples[i].first)
		break
	}
	return least, most, known
}
