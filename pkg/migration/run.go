package migration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/checkpoint"
	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/schema"
	"github.com/pgshadow/pgshadow/pkg/shadow"
	"github.com/pgshadow/pgshadow/pkg/throttle"
	"github.com/pgshadow/pgshadow/replication/replay"
)

// Migration is one run of pgshadow alter in this process.
type Migration struct {
	config   Config
	db       *pg.Database
	control  *pgx.Conn // holds the advisory lock, and writes the state rows
	throttle *throttle.Throttle
	began    time.Time
	phase    Phase
	report   Report
	progress progress
	steering *steering
	target   target
	run      run
	removed  bool     // everything that the run made, after it failed
	kept     []string // of that: what others use now
	undoing  bool     // a native run is being taken back, and will not go on

	recovery  recovery
	rehearsal *rehearsal // nil: the run is none
}

// target is what preflight found out.
type target struct {
	table      *schema.Table
	server     *schema.Server
	change     *shadow.Change
	judged     judgement
	recipe     *shadow.Recipe // by which PostgreSQL itself makes the change; nil: with a shadow
	resumes    bool           // the recipe is that of found, a part of which may be made
	searchPath string
	found      *checkpoint.Run // an unfinished run of the table; ended, when only its clean-up is not done
}

// run is what exists on the server once prepare is done.
type run struct {
	store *checkpoint.Store
	names shadow.Names
	plan  *shadow.Plan
	heal  bool // the slot was lost: changes are missing until a full comparison
}

// Run changes the table and reports. It blocks until the run has ended, stopped
// or failed; the report is complete either way, and err is what it reports. When
// ctx ends the run stops cleanly and can be resumed.
func Run(ctx context.Context, config Config) (Report, error) {
	m := &Migration{config: config.withDefaults(), began: time.Now(), steering: newSteering(), report: Report{Table: config.Table}}
	m.rehearsal = newRehearsal(config.Rehearsal)
	err := byUs(ctx, m.persist(ctx))
	if !m.removed && (outcomeOf(err) == Aborted || m.rehearsal.ends(err)) {
		if left := m.abort(ctx, err); left != nil {
			err = fmt.Errorf("%w: %w; %w", err, errNotRemoved, left)
		}
	}
	report := m.conclude(err, m.held(ctx))
	m.keepReport(ctx, report)
	if m.control != nil {
		// The session only held the lock: when it is already gone, so is the lock.
		if closed := pg.Release(ctx, m.control); closed != nil {
			report.Warnings = append(report.Warnings, closed.Error())
		}
	}
	return report, err
}

// flow is the whole run. Its lines are the headings of docs/how-it-works.md.
func (m *Migration) flow(ctx context.Context) error {
	if err := m.connect(ctx); err != nil {
		return err
	}
	if done, err := m.endedElsewhere(ctx); done || err != nil {
		return err
	}
	if err := m.lockTable(ctx); err != nil {
		return err
	}
	if done, err := m.endedElsewhere(ctx); done || err != nil { // until the lock was had
		return err
	}
	if err := m.enter(ctx, Preflight, m.preflight); err != nil {
		return err
	}
	if finished, err := m.finishEarlier(ctx); finished || err != nil {
		return err
	}
	if err := m.beginRehearsal(ctx); err != nil {
		return err
	}
	if m.target.recipe != nil {
		return m.changeNatively(ctx)
	}
	return m.changeByShadow(ctx)
}

// changeByShadow is the flow from prepare on.
func (m *Migration) changeByShadow(ctx context.Context) error {
	if err := m.resumeOrPrepare(ctx); err != nil {
		return err
	}
	err := m.whileSteered(ctx, func(ctx context.Context) error {
		return m.whileStreaming(ctx, m.changeAll)
	})
	if err != nil {
		return m.blameChange(ctx, err)
	}
	if m.rehearsal != nil {
		return m.endRehearsal(ctx)
	}
	m.tidy(ctx)
	return nil
}

// resumeOrPrepare takes up the table's unfinished run, or begins one.
func (m *Migration) resumeOrPrepare(ctx context.Context) error {
	resumed, err := m.resume(ctx)
	switch {
	case resumed || err != nil:
		return err
	case m.recovery.again:
		return fmt.Errorf("%w: run %s", errRemoved, m.report.RunID)
	default:
		return m.enter(ctx, Prepare, m.prepare)
	}
}

// changeAll changes the table, and begins anew when the original is truncated.
func (m *Migration) changeAll(ctx context.Context, l *live) error {
	for {
		err := m.change(ctx, l)
		if !errors.Is(err, replay.ErrTruncated) {
			return err
		}
		if err := m.restartCopy(ctx, l); err != nil {
			return err
		}
	}
}

// change is what happens while the stream flows.
func (m *Migration) change(ctx context.Context, l *live) error {
	for _, step := range []struct {
		phase Phase
		run   func(ctx context.Context, l *live) error
	}{
		{Copy, m.copy},
		{Index, m.index},
		{CatchUp, m.catchUp},
		{Verify, m.verify},
		{Cutover, m.cutOver},
	} {
		if err := m.enter(ctx, step.phase, func(ctx context.Context) error { return step.run(ctx, l) }); err != nil {
			return err
		}
	}
	return nil
}

// enter is the bracket around every phase: it checks the transition, writes the
// checkpoint, tells the observer, takes the time and wraps the error.
func (m *Migration) enter(ctx context.Context, phase Phase, work func(ctx context.Context) error) error {
	if phase != m.phase && !m.phase.mayFollow(phase) {
		return fmt.Errorf("phase %s cannot follow %s", phase, m.phase)
	}
	m.phase = phase
	m.progress.enter(phase)
	if m.run.store != nil {
		if err := m.setPhase(ctx, phase.String()); err != nil {
			return err
		}
	}
	m.config.Observer.Observe(PhaseStarted{Phase: phase})
	began := time.Now()
	err := work(ctx)
	took := time.Since(began)
	m.report.Phases = append(m.report.Phases, PhaseDuration{Name: phase.String(), DurationMS: took.Milliseconds()})
	if err != nil {
		return fmt.Errorf("%s: %w", phase, err)
	}
	m.config.Observer.Observe(PhaseFinished{Phase: phase, Duration: took})
	return nil
}

// setPhase records the phase, and that this process works on the run.
func (m *Migration) setPhase(ctx context.Context, phase string) error {
	err := m.run.store.SetPhase(ctx, m.control, phase, m.owner())
	m.recovery.owner = m.recovery.owner || err == nil
	return err
}

func (m *Migration) owner() checkpoint.Owner {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown host"
	}
	return checkpoint.Owner{Host: host, PID: os.Getpid()}
}
