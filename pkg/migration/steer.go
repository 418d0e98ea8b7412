package migration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/cutover"
	"github.com/pgshadow/pgshadow/pkg/checkpoint"
	"github.com/pgshadow/pgshadow/pkg/pg"
)

const (
	// commandPoll makes up for a notification that went to a lost session.
	commandPoll = 5 * time.Second
	// commandLife is how old a command may be and still be carried out: who issued
	// it waits no longer.
	commandLife = time.Minute
)

// wishes are what the operator has asked of a run. They stand until the run ends,
// in whichever process.
type wishes struct {
	Paused   string   `json:"paused,omitempty"`   // by whom, since when
	Released string   `json:"released,omitempty"` // the cutover, by whom, when
	Aborted  string   `json:"aborted,omitempty"`  // by whom, when: the next process has to do it
	Settings Settings `json:"settings,omitempty"`
}

// steering keeps the operator's wishes, for every goroutine of the run.
type steering struct {
	keeping sync.Mutex // held while the wishes are changed and kept

	mu      sync.Mutex
	wishes  wishes
	changed chan struct{} // closed, and another one made, at every change
}

func newSteering() *steering { return &steering{changed: make(chan struct{})} }

// now returns the wishes, and a channel that is closed when they change.
func (s *steering) now() (wishes, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wishes, s.changed
}

// change replaces the wishes. The one goroutine that obeys is the only writer.
func (s *steering) change(to wishes) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wishes = to
	close(s.changed)
	s.changed = make(chan struct{})
}

// current is the configuration as the operator's wishes have left it.
func (m *Migration) current() Config {
	now, _ := m.steering.now()
	config := m.config
	for name, value := range now.Settings {
		if changed, err := config.with(name, value); err == nil { // it was checked when it was set
			config = changed
		}
	}
	return config
}

// recall takes over the wishes that an earlier process of the run was told. A
// release of the cutover was given to that process, in its time.
func (m *Migration) recall(ctx context.Context, run *checkpoint.Run) error {
	var earlier wishes
	if err := json.Unmarshal(run.Steering, &earlier); err != nil {
		return fmt.Errorf("reading what the operator of run %s asked for: %w", run.ID, err)
	}
	m.steering.change(earlier)
	if earlier.Aborted != "" {
		return &AbortError{By: earlier.Aborted}
	}
	if !m.recovery.again {
		if err := m.takeReleaseBack(ctx); err != nil {
			return err
		}
	}
	if earlier.Paused != "" {
		m.config.Observer.Observe(Noted{Note: "the run is paused, as it was left: " + earlier.Paused + "; pgshadow resume lets it go on"})
	}
	if len(earlier.Settings) > 0 {
		m.config.Observer.Observe(Noted{Note: fmt.Sprintf("settings stand as they were last set during the run: %v", earlier.Settings)})
	}
	return m.steerThrottle()
}

// takeReleaseBack makes a released cutover wait for the operator again.
func (m *Migration) takeReleaseBack(ctx context.Context) error {
	m.steering.keeping.Lock()
	defer m.steering.keeping.Unlock()
	wanted, _ := m.steering.now()
	if wanted.Released == "" {
		return nil
	}
	wanted.Released = ""
	m.config.Observer.Observe(Noted{Note: "the cutover was released, and is not any more: with --cutover manual it waits for another pgshadow cutover"})
	m.steering.change(wanted)
	return m.run.store.SetSteering(ctx, m.control, wanted)
}

// steerThrottle has the throttle's sources follow the wishes.
func (m *Migration) steerThrottle() error {
	now, _ := m.steering.now()
	sources, config := m.throttle.Sources, m.current().Throttle
	if now.Paused != "" {
		sources.Pause.Set(now.Paused)
	} else {
		sources.Pause.Clear()
	}
	return errors.Join(
		sources.ReplicaLag.SetLimit(config.MaxReplicaLag),
		sources.ActiveSessions.SetLimit(config.MaxActiveSessions),
		sources.Rate.SetLimit(config.MaxRowsPerSecond),
		sources.Query.SetText(config.Query),
		sources.File.SetPath(config.File),
	)
}

// awaitGo blocks while the operator has paused the run.
func (m *Migration) awaitGo(ctx context.Context) error {
	for {
		now, changed := m.steering.now()
		if now.Paused == "" {
			return nil
		}
		m.waits("the operator to resume the run", now.Paused)
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("waiting for the operator to resume the run: %w", ctx.Err())
		}
		m.waited()
	}
}

// whileSteered runs work, and carries out the operator's commands meanwhile.
func (m *Migration) whileSteered(ctx context.Context, work func(ctx context.Context) error) error {
	working, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	obeying, stop := context.WithCancel(working)
	obeyed := make(chan error, 1)
	go func() {
		err := m.obey(obeying)
		if err != nil {
			cancel(err)
		}
		obeyed <- err
	}()
	err := work(working)
	stop()
	steered := <-obeyed
	switch {
	case errors.Is(err, cutover.ErrUnknown):
		return errors.Join(err, steered) // nothing that was lost with it makes it known
	case err != nil && steered != nil:
		return steered // it is why work was cancelled
	default:
		return err
	}
}

// obey waits for commands and carries them out, until ctx ends (nil), the
// session is lost, or the operator aborts the run (*AbortError).
func (m *Migration) obey(ctx context.Context) (err error) {
	conn, err := m.db.Listen(ctx, m.run.names.RunID+" steer", checkpoint.Channel)
	if err != nil {
		return ignoreCancel(ctx, err)
	}
	defer func() { err = errors.Join(err, pg.Close(ctx, conn)) }()
	for {
		commands, err := m.run.store.Pending(ctx, conn)
		if err != nil {
			return ignoreCancel(ctx, err)
		}
		for _, command := range commands {
			err := m.carryOut(ctx, conn, command)
			var abort *AbortError
			if errors.As(err, &abort) {
				return err // accepted, whatever else has ended the work
			}
			if err != nil {
				return ignoreCancel(ctx, err)
			}
		}
		if err := pg.AwaitNotification(ctx, conn, commandPoll); err != nil {
			return ignoreCancel(ctx, err)
		}
	}
}

// AbortError says that the operator has ended the run.
type AbortError struct{ By string }

func (e *AbortError) Error() string { return fmt.Sprintf("aborted by %s with pgshadow abort", e.By) }

// carryOut does what a command asks for, keeps it, and answers, both or neither.
func (m *Migration) carryOut(ctx context.Context, conn *pgx.Conn, command checkpoint.Command) error {
	m.steering.keeping.Lock()
	defer m.steering.keeping.Unlock()
	wanted, answer, refused := m.consider(command)
	if command.Age > commandLife {
		refused = errors.New("the command came too late to be carried out")
	}
	if refused != nil {
		_, err := m.run.store.Answer(ctx, conn, command.ID, false, refused.Error())
		return err
	}
	given := false
	err := pg.InTx(ctx, conn, pgx.TxOptions{}, func(tx pgx.Tx) error {
		var err error
		// A command that was taken back meanwhile is not carried out.
		if given, err = m.run.store.Answer(ctx, tx, command.ID, true, answer); err != nil || !given {
			return err
		}
		return m.run.store.SetSteering(ctx, tx, wanted)
	})
	if err != nil || !given {
		return err
	}
	m.steering.change(wanted)
	m.config.Observer.Observe(Steered{Command: command.Name, Argument: command.Argument, By: command.By})
	if command.Name == CommandAbort {
		return &AbortError{By: command.By}
	}
	return m.steerThrottle()
}

// releasedIn answers who releases the cutover. A native run waits in its one phase.
func releasedIn(phase Phase) string {
	if phase == Cutover || phase == Native {
		return "the cutover is released, and attempts begin now"
	}
	return fmt.Sprintf("the cutover is released; the run is in phase %s, and swaps the tables without waiting when it gets there", phase)
}

// consider works out what a command makes of the wishes, and what to answer.
func (m *Migration) consider(command checkpoint.Command) (wanted wishes, answer string, err error) {
	wanted, _ = m.steering.now()
	by := fmt.Sprintf("by %s at %s", command.By, time.Now().UTC().Format("2006-01-02 15:04:05 MST"))
	phase := m.progress.now().Phase
	switch command.Name {
	case CommandPause:
		wanted.Paused = "paused " + by
		return wanted, fmt.Sprintf("paused in phase %s; changes are still replayed, so the slot does not hold back more WAL", phase), nil
	case CommandResume:
		if wanted.Paused == "" {
			return wanted, "", errors.New("the run is not paused")
		}
		wanted.Paused = ""
		return wanted, fmt.Sprintf("goes on in phase %s", phase), nil
	case CommandCutover:
		wanted.Released = "released " + by
		return wanted, releasedIn(phase), nil
	case CommandAbort:
		wanted.Aborted = command.By
		return wanted, fmt.Sprintf("the run is aborted in phase %s", phase), nil
	case CommandSet:
		name, value, err := ParseSetting(command.Argument)
		if err != nil {
			return wanted, "", err
		}
		if _, err := m.current().with(name, value); err != nil {
			return wanted, "", err
		}
		settings := maps.Clone(wanted.Settings)
		if settings == nil {
			settings = Settings{}
		}
		settings[name] = value
		wanted.Settings = settings
		return wanted, fmt.Sprintf("%s is %s from now on", name, value), nil
	default:
		return wanted, "", fmt.Errorf("this pgshadow does not know the command %q; a newer one issued it", command.Name)
	}
}
