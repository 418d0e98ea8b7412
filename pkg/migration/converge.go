package migration

import (
	"context"
	"fmt"
	"time"

	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/replication/replay"
)

const (
	// convergeWindow is for how long what is left to replay must not have shrunk
	// before the run says so, and how often it says so again.
	convergeWindow = 30 * time.Second
	// rateTolerance is how far the rate of dirtied keys may be measured below that
	// of replay while the two are the same.
	rateTolerance = 0.1
)

// Drain is that of the Replayer; while it waits, the run watches whether what is
// left to replay shrinks.
func (l *live) Drain(ctx context.Context) error {
	l.draining.Add(1)
	defer l.draining.Add(-1)
	return l.Replayer.Drain(ctx)
}

// backlog is what was left to replay at one moment.
type backlog struct {
	at       time.Time
	pace     replay.Pace
	replayed uint64 // keys so far
	received pg.LSN // end of the last transaction that was read whole
	lag      int64  // bytes
	written  pg.LSN // end of the WAL
}

func (l *live) backlog(now time.Time, lag int64) backlog {
	positions := l.stream.Positions()
	return backlog{at: now, pace: l.Pace(), replayed: l.Replayed(), received: positions.Received, lag: lag, written: positions.Applied + pg.LSN(lag)}
}

// convergence watches the backlog while the run waits for replay.
type convergence struct {
	window   time.Duration
	backlogs []backlog // of this wait, oldest first, a window of them
	told     time.Time
}

// rest says that nobody waits for replay.
func (c *convergence) rest() { c.backlogs = nil }

// add takes one more backlog, and tells whether it is time to say that replay
// does not converge.
func (c *convergence) add(b backlog) (tell bool) {
	c.backlogs = append(c.backlogs, b)
	for len(c.backlogs) > 1 && b.at.Sub(c.backlogs[1].at) >= c.window {
		c.backlogs = c.backlogs[1:]
	}
	if b.at.Sub(c.backlogs[0].at) < c.window || b.at.Sub(c.told) < c.window || converges(c.backlogs) {
		return false
	}
	c.told = b.at
	return true
}

// converges tells whether what is left to replay shrinks, or may: it compares the
// first third with the last, since both keys and lag go up and down with every
// batch.
func converges(b []backlog) bool {
	first, last := b[0], b[len(b)-1]
	if last.pace.Replayed == 0 || last.replayed == first.replayed {
		return true // whatever holds it up, it is not the pace of replay
	}
	third := max(len(b)/3, 1)
	begin, end := b[:third], b[len(b)-third:]
	if !everFull(b) {
		return mean(end, dirtyKeys) < mean(begin, dirtyKeys) || last.pace.Dirtied < (1-rateTolerance)*last.pace.Replayed
	}
	// A full set is as large as it may be, and takes in no more than replay gives
	// out. What is left is in the WAL; but within one transaction, however large,
	// no position moves.
	return !everFull(end) || last.received == first.received || mean(end, lagBytes) < mean(begin, lagBytes)
}

// pace is that of the last backlog. While the set is full, keys get dirty in it as
// fast as they are replayed; how fast they do in the WAL is told by how much of
// that is written, and how much read.
func (c *convergence) pace() replay.Pace {
	first, last := c.backlogs[0], c.backlogs[len(c.backlogs)-1]
	pace := last.pace
	if pace.Full && last.received > first.received && last.written > first.written {
		replayed := float64(last.replayed-first.replayed) / last.at.Sub(first.at).Seconds()
		pace.Dirtied = max(pace.Dirtied, replayed*float64(last.written-first.written)/float64(last.received-first.received))
	}
	return pace
}

func everFull(b []backlog) bool {
	for _, one := range b {
		if one.pace.Full {
			return true
		}
	}
	return false
}

func dirtyKeys(b backlog) float64 { return float64(b.pace.Keys) }
func lagBytes(b backlog) float64  { return float64(b.lag) }

func mean(b []backlog, of func(backlog) float64) (mean float64) {
	for _, one := range b {
		mean += of(one) / float64(len(b))
	}
	return mean
}

// watchConvergence tells the observer when what the run waits for does not come
// nearer. It goes on waiting: writers may become slower.
func (m *Migration) watchConvergence(c *convergence, waiting bool, b backlog) {
	if !waiting {
		c.rest()
		return
	}
	if !c.add(b) {
		return
	}
	m.config.Observer.Observe(Waiting{For: "replay to catch up", Reason: fmt.Sprintf(
		"%s (dirty keys: %d, lag %.1f MB): it will not converge unless the rates change: %s",
		c.pace().Rates(m.report.Table), b.pace.Keys, float64(b.lag)/1e6, replay.Remedy)})
}
