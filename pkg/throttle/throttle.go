package throttle

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/pgshadow/pgshadow/pkg/pg"
)

// checkLimit is how long a measure may take; then the run waits for want of one.
const checkLimit = 5 * time.Second

// Sources are the ones of the command line, to be changed while the run is on.
type Sources struct {
	Pause          *Pause
	ReplicaLag     *ReplicaLag
	ActiveSessions *ActiveSessions
	Query          *Query
	File           *File
	Rate           *Rate // not asked by Run: Wait itself keeps the pace
}

// Throttle makes callers wait while any source says so. Its methods may be called
// from several goroutines.
type Throttle struct {
	// Sources may be set at any time; Run need not be running.
	Sources  Sources
	config   Config
	sessions []*session

	mu      sync.Mutex
	watched []*watched
	changed chan struct{} // closed, and another one made, when any answer is recorded
}

// watched is a source and its last answer.
type watched struct {
	source    Source
	measured  bool // since it was enabled
	measuring bool
	reason    string
	failed    bool // the reason is that it could not be measured
}

// New is the throttle of all sources: those of the config, the operator's pause,
// and more. It does not connect; sessions come from db once a source needs one.
func New(db *pg.Database, config Config, more ...Source) (*Throttle, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	config = config.withDefaults()
	shared, own := newSession(db), newSession(db)
	t := &Throttle{
		Sources: Sources{
			Pause:          newPause(),
			ReplicaLag:     newReplicaLag(shared, config.MaxReplicaLag, config.OnNote),
			ActiveSessions: newActiveSessions(shared, config.MaxActiveSessions),
			Query:          newQuery(own, config.Query),
			File:           newFile(config.File),
			Rate:           newRate(config.MaxRowsPerSecond),
		},
		config:   config,
		sessions: []*session{shared, own},
		changed:  make(chan struct{}),
	}
	s := t.Sources
	for _, source := range append([]Source{s.Pause, s.ReplicaLag, s.ActiveSessions, s.Query, s.File}, more...) {
		t.watched = append(t.watched, &watched{source: source})
	}
	return t, nil
}

// Wait counts rows that the caller has written since its last Wait, and blocks
// until no enabled source says to wait, all of them have been measured, and the
// pace allows more. It returns at once where nothing is enabled; where something
// is, and Run is not running, nothing is measured. The error is always ctx's.
func (t *Throttle) Wait(ctx context.Context, rows int) error {
	t.Sources.Rate.charge(rows)
	for {
		now := t.verdict()
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("waiting for the throttle: %w", ctx.Err())
		case now.reason != "":
			await(ctx, 0, now.changed, nil)
			continue
		}
		delay, faster := t.Sources.Rate.delay()
		if delay == 0 {
			return nil
		}
		await(ctx, delay, now.changed, faster)
	}
}

// await returns when ctx ends, either channel is closed, or, unless it is zero,
// the delay is over.
func await(ctx context.Context, delay time.Duration, either, or <-chan struct{}) {
	var over <-chan time.Time
	if delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-ctx.Done():
	case <-either:
	case <-or:
	case <-over:
	}
}

// Reason is why Wait would block now, on one line, "" when it would not.
func (t *Throttle) Reason() string {
	if reason := t.verdict().reason; reason != "" {
		return reason
	}
	return t.Sources.Rate.reason()
}

// verdict is what all sources say together, at one moment.
type verdict struct {
	reason  string          // of all that block
	told    string          // the reason, without those not measured yet
	blamed  string          // who told gives, and whether they could measure
	changed <-chan struct{} // closed when there may be another verdict
}

func (t *Throttle) verdict() verdict {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all, told, blamed []string
	for _, w := range t.watched {
		switch {
		case !w.source.Enabled():
		case !w.measured:
			all = append(all, w.source.Name()+" is not measured yet")
		case w.reason != "":
			all, told = append(all, w.reason), append(told, w.reason)
			blamed = append(blamed, fmt.Sprintf("%s failed=%t", w.source.Name(), w.failed))
		}
	}
	return verdict{
		reason:  strings.Join(all, "; "),
		told:    strings.Join(told, "; "),
		blamed:  strings.Join(blamed, "; "),
		changed: t.changed,
	}
}
