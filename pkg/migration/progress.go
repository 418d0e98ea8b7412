package migration

import (
	"cmp"
	"sync"
	"time"

	"github.com/pgshadow/pgshadow/pkg/verify"
)

// rateWindow is over how many seconds the rows per second are taken.
const rateWindow = 10

// progress keeps what is needed to say how far a run is.
type progress struct {
	mu        sync.Mutex
	phase     Phase
	estimated int64
	verifier  *verify.Verifier
	samples   []sample
	waiting   string
	hidden    string // see hide
	last      Progress
}

type sample struct {
	at   time.Time
	rows int64
}

func (p *progress) enter(phase Phase) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.phase, p.samples, p.waiting = phase, nil, ""
}

// wait notes what the run waits for; empty: it does not.
func (p *progress) wait(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting = text
}

// hide notes why changes are not visible yet; empty: they are. It shows as what
// the run waits for, unless a phase says something else.
func (p *progress) hide(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hidden = text
}

// keep keeps the last complete measure, for the checkpoint.
func (p *progress) keep(measured Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = measured
}

// now is the last complete measure, with phase and wait of this moment.
func (p *progress) now() Progress {
	p.mu.Lock()
	defer p.mu.Unlock()
	result := p.last
	result.Phase, result.Waiting = p.phase, cmp.Or(p.waiting, p.hidden)
	return result
}

func (p *progress) estimate(rows int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.estimated = rows
}

func (p *progress) verifying(v *verify.Verifier) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.verifier = v
}

// measure computes phase, rows, rate and ETA from the rows copied so far.
func (p *progress) measure(now time.Time, copied int64) Progress {
	p.mu.Lock()
	defer p.mu.Unlock()
	result := Progress{Phase: p.phase, Rows: copied, EstimatedRows: max(p.estimated, copied), ETA: -1, Waiting: cmp.Or(p.waiting, p.hidden)}
	if p.phase > Copy {
		result.EstimatedRows = copied // known by now
	}
	if p.phase == Verify && p.verifier != nil {
		result.Rows = p.verifier.Rows()
	}
	if p.phase != Copy && p.phase != Verify {
		return result
	}
	p.samples = append(p.samples, sample{now, result.Rows})
	if len(p.samples) > rateWindow {
		p.samples = p.samples[1:]
	}
	first := p.samples[0]
	if elapsed := now.Sub(first.at).Seconds(); elapsed > 0 {
		result.RowsPerSecond = float64(result.Rows-first.rows) / elapsed
	}
	if result.EstimatedRows > 0 {
		result.Percent = min(100*float64(result.Rows)/float64(result.EstimatedRows), 100)
	}
	if result.RowsPerSecond > 0 {
		result.ETA = time.Duration(float64(result.EstimatedRows-result.Rows) / result.RowsPerSecond * float64(time.Second))
	}
	return result
}
