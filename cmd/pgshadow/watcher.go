package main

import (
	"cmp"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/pgshadow/pgshadow/pkg/migration"
)

const (
	// lineInterval is the least time between two progress lines of a log.
	lineInterval = 10 * time.Second
	tickInterval = time.Second
	// queueLimit bounds what waits for a stderr that takes nothing.
	queueLimit = 1000
)

// watcher is the run's observer: it turns events into log lines, and progress
// into the live line of a terminal or into a line now and then. Observe only
// queues; one goroutine writes.
type watcher struct {
	log    zerolog.Logger
	screen *screen
	wake   chan struct{}
	done   chan struct{}

	mu       sync.Mutex
	queue    []migration.Event
	dropped  int
	progress *migration.Progress // not shown yet
	stop     os.Signal           // not told yet
	closed   bool
	runID    string
	rehearse bool
	swapped  bool

	// Only the goroutine has these.
	now      situation
	began    time.Time // of the phase
	lastLine time.Time
}

// situation is what a progress line tells.
type situation struct {
	phase    migration.Phase
	elapsed  time.Duration       // in the phase
	progress *migration.Progress // nil while the phase has told nothing
	waits    string              // why the run waits
}

func newWatcher(log zerolog.Logger, screen *screen) *watcher {
	now := time.Now()
	w := &watcher{log: log, screen: screen, wake: make(chan struct{}, 1), done: make(chan struct{}), began: now, lastLine: now}
	go w.work()
	return w
}

// Observe implements migration.Observer. It never waits for stderr: of progress
// only the newest is kept, and beyond queueLimit events are counted and dropped.
func (w *watcher) Observe(event migration.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch e := event.(type) {
	case migration.RunStarted:
		w.runID, w.rehearse = e.RunID, e.Rehearsal
	case migration.Swapped:
		w.swapped = true
	case migration.Progressed:
		w.progress = &e.Progress
		w.signal()
		return
	default:
	}
	if len(w.queue) >= queueLimit {
		w.dropped++
		return
	}
	w.queue = append(w.queue, event)
	w.signal()
}

// signal is called with mu held.
func (w *watcher) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// stopping says that a signal has ended the run's context.
func (w *watcher) stopping(received os.Signal) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stop = received
	w.signal()
}

// batch is what has come since the last one.
type batch struct {
	events   []migration.Event
	dropped  int
	progress *migration.Progress
	stop     os.Signal
	closed   bool // it is the last
}

func (w *watcher) take() batch {
	w.mu.Lock()
	defer w.mu.Unlock()
	taken := batch{w.queue, w.dropped, w.progress, w.stop, w.closed}
	w.queue, w.dropped, w.progress, w.stop = nil, 0, nil, nil
	return taken
}

func (w *watcher) work() {
	defer close(w.done)
	ticker := time.NewTicker(tickInterval)
	defer ticker.Stop()
	for {
		select {
		case <-w.wake:
		case <-ticker.C:
		}
		taken := w.take()
		w.write(taken)
		if taken.closed {
			w.screen.close()
			return
		}
		w.show(taken.progress)
	}
}

// write writes the log lines of a batch.
func (w *watcher) write(taken batch) {
	for _, event := range taken.events {
		w.follow(event)
		logEvent(w.log, event)
	}
	if taken.dropped > 0 {
		w.log.Warn().Int("events", taken.dropped).Msg("events dropped, the log was not read in time")
	}
	if taken.stop != nil {
		w.log.Warn().Stringer("signal", taken.stop).Msg("stopping cleanly; a second signal, one second later or more, stops at once")
	}
}

// follow keeps what the live line shows besides progress.
func (w *watcher) follow(event migration.Event) {
	switch e := event.(type) {
	case migration.PhaseStarted:
		w.now, w.began = situation{phase: e.Phase}, time.Now()
	case migration.Waiting:
		w.now.waits = "waiting for " + e.For
	case migration.Throttled:
		w.now.waits = e.Reason
	default:
	}
}

// show redraws the live line, or writes a progress line when one is due.
func (w *watcher) show(progress *migration.Progress) {
	if progress != nil && progress.Phase == w.now.phase {
		w.now.progress, w.now.waits = progress, cmp.Or(progress.Throttle, progress.Waiting)
	}
	now := time.Now()
	w.now.elapsed = now.Sub(w.began)
	switch {
	case w.screen.live:
		w.screen.draw(func(width int) string { return liveLine(w.now, width) })
	case now.Sub(w.lastLine) >= lineInterval:
		w.lastLine = now
		logProgress(w.log, zerolog.InfoLevel, w.now)
	case progress != nil:
		logProgress(w.log, zerolog.DebugLevel, w.now)
	}
}

// close writes what is queued and takes the live line away.
func (w *watcher) close() {
	w.mu.Lock()
	w.closed = true
	w.signal()
	w.mu.Unlock()
	<-w.done
}

// abandoned is the report of a run that was not given the time to end.
func (w *watcher) abandoned(table string) migration.Report {
	w.mu.Lock()
	defer w.mu.Unlock()
	state := "nothing is known to be left on the server; look with pgshadow cleanup --dry-run"
	switch {
	case w.swapped:
		state = fmt.Sprintf("the swap is committed: %s has the new form; the slot and the publication of run %s may be left, "+
			"and a slot holds WAL back: remove them with pgshadow cleanup", table, w.runID)
	case w.runID != "" && w.rehearse:
		state = fmt.Sprintf("the original is untouched; the shadow, the publication and the slot of rehearsal %s may be left, and the slot "+
			"holds WAL back: pgshadow cleanup removes them, and so does another pgshadow rehearse", w.runID)
	case w.runID != "":
		state = fmt.Sprintf("everything is as it was at that moment: the shadow, the publication and the slot of run %s are kept, and the slot "+
			"holds WAL back: run the same pgshadow alter again to resume, or pgshadow cleanup to remove them", w.runID)
	}
	return migration.Report{RunID: w.runID, Table: table, Method: "shadow", Outcome: migration.Stopped, ExitCode: migration.Stopped.ExitCode(),
		Error: &migration.ReportError{Message: "stopped at once by a second signal", State: state}}
}
