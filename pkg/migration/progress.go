package migration

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/pg"
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
}

type sample struct {
	at   time.Time
	rows int64
}

func (p *progress) enter(phase Phase) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.phase, p.samples = phase, nil
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
	result := Progress{Phase: p.phase, Rows: copied, EstimatedRows: max(p.estimated, copied), ETA: -1}
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

// watchProgress tells the observer once a second how far the run is.
func (m *Migration) watchProgress(ctx context.Context, l *live) error {
	conn, err := m.db.Connect(ctx, m.run.names.RunID+" progress")
	if err != nil {
		return ignoreCancel(ctx, err)
	}
	ticker := time.NewTicker(progressInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return pg.Close(ctx, conn)
		case now := <-ticker.C:
			m.config.Observer.Observe(Progressed{Progress: m.measure(ctx, conn, l, now)})
		}
	}
}

func (m *Migration) measure(ctx context.Context, conn *pgx.Conn, l *live, now time.Time) Progress {
	result := m.progress.measure(now, l.chunks.Load().Rows())
	positions := l.stream.Positions()
	result.Confirmed = positions.Confirmed
	result.DirtyKeys, result.InvisibleKeys = l.Len(), l.Invisible()
	result.ChangesReceived = l.stream.Received()
	result.Throttle = m.throttle.Reason()
	var text string
	if err := conn.QueryRow(ctx, "SELECT pg_catalog.pg_current_wal_insert_lsn()::pg_catalog.text").Scan(&text); err == nil {
		if lsn, err := pg.ParseLSN(text); err == nil && lsn > positions.Applied {
			result.LagBytes = int64(lsn - positions.Applied)
		}
	}
	return result
}
