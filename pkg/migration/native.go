package migration

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/checkpoint"
	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/shadow"
)

// nativeRun is a run without a shadow.
type nativeRun struct {
	m     *Migration
	plan  *shadow.Plan
	store *checkpoint.Store
	// overruns is how often a step was given up because it held its lock for too long.
	overruns int
	undoing  bool // which a pause does not hold up
}

// maxOverruns is how often a step may hold its lock for too long: what takes so long
// once may be the machine, and what does every time is the step.
const maxOverruns = 3

// changeNatively is the whole of a run without a shadow.
func (m *Migration) changeNatively(ctx context.Context) error {
	if err := m.enter(ctx, Native, m.native); err != nil {
		return err
	}
	if m.rehearsal != nil {
		return m.endRehearsal(ctx)
	}
	m.tidyNative(ctx)
	return nil
}

// native leads PostgreSQL itself through the change, from where an earlier process
// stopped. What has been committed of it when a later step fails is taken back; what a
// lost connection leaves is on record.
func (m *Migration) native(ctx context.Context) error {
	m.report.Method = checkpoint.MethodNative
	if err := m.resumeOrPrepareNative(ctx); err != nil {
		return err
	}
	n := &nativeRun{m: m, plan: m.run.plan, store: m.run.store}
	err := m.whileSteered(ctx, func(ctx context.Context) error {
		if err := n.awaitRelease(ctx); err != nil {
			return err
		}
		for n.plan.Recipe.Done < len(n.plan.Recipe.Steps) {
			if err := n.step(ctx); err != nil {
				return n.refuse(err)
			}
		}
		return nil
	})
	switch {
	case err == nil, outcomeOf(err) == Aborted, pg.IsConnection(err), ctx.Err() != nil:
		return err // what is aborted is undone by who sees it end so
	default:
		return m.giveUp(ctx, err)
	}
}

// refuse makes a refusal of what the server says of the change before anything of it is
// made: the trial on an empty copy does not show everything that is in its way.
func (n *nativeRun) refuse(err error) error {
	if said := pg.Server(err); n.plan.Recipe.Done == 0 && said != nil && (strings.HasPrefix(said.Code, "42") || strings.HasPrefix(said.Code, "0A") || strings.HasPrefix(said.Code, "2B") ||
		strings.HasPrefix(said.Code, "3F") || said.Code == pg.NotInPrerequisiteState) {
		return &shadow.Refusal{Check: "alter", Reason: fmt.Sprintf("PostgreSQL refuses it: %v", err), Remedy: cmp.Or(said.Hint, "correct the --alter, or what the message names")}
	}
	return err
}

// awaitRelease blocks while the change is the operator's to release. Nothing of it is
// made yet.
func (n *nativeRun) awaitRelease(ctx context.Context) error {
	m := n.m
	if n.plan.Recipe.Done > 0 {
		return nil // it was released once, and a part is made
	}
	for {
		released, changed := m.released()
		if released {
			m.waited()
			return nil
		}
		m.waits("the operator to release the cutover", fmt.Sprintf("nothing is changed yet; pgshadow cutover --table %s has PostgreSQL make the change", m.report.Table))
		if err := n.store.Touch(ctx, m.control, 0, m.progress.now()); err != nil { // for pgshadow status
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("waiting for the operator to release the cutover: %w", ctx.Err())
		}
	}
}

// giveUp takes back what the run has made, after an error that did not keep the server
// from being asked.
func (m *Migration) giveUp(ctx context.Context, cause error) error {
	if err := m.takeBack(ctx, cause.Error()); err != nil {
		return fmt.Errorf("%w: %w; %w", cause, errNotRemoved, err)
	}
	m.removed = true
	return cause
}

// takeBack removes everything that the run has made. What is native of it waits for
// others, until ctx ends; what is left then is on record.
func (m *Migration) takeBack(ctx context.Context, detail string) error {
	if ctx.Err() != nil {
		short, cancel := pg.Cleanup(ctx)
		defer cancel()
		ctx = short
	}
	err := m.onControl(ctx, func(ctx context.Context) error {
		_, err := m.undoNative(ctx, m.run.names)
		return err
	})
	if err != nil {
		return err
	}
	return m.onControl(context.WithoutCancel(ctx), func(ctx context.Context) error {
		return m.remove(ctx, m.run.names, string(Aborted), strings.Join(append([]string{detail}, m.kept...), "; "))
	})
}

// resumeOrPrepareNative takes up the table's unfinished run, or begins one.
func (m *Migration) resumeOrPrepareNative(ctx context.Context) error {
	open := m.target.found
	switch {
	case m.target.resumes:
		return m.takeUpNative(ctx, open)
	case m.recovery.again:
		return fmt.Errorf("%w: run %s", errRemoved, m.report.RunID)
	case open != nil && open.EndedAt == nil: // a copy, and --restart
		m.report.RunID = ""
		if err := m.remove(ctx, shadow.Names{RunID: open.ID, Table: open.TableName}, string(Aborted), "restarted"); err != nil {
			return err
		}
	}
	return m.prepareNative(ctx)
}

func (m *Migration) takeUpNative(ctx context.Context, open *checkpoint.Run) error {
	plan, err := planOf(open)
	if err != nil {
		return err
	}
	m.run = run{store: checkpoint.NewStore(open.ID), names: plan.Names, plan: plan}
	m.report.RunID = open.ID
	if err := m.setPhase(ctx, Native.String()); err != nil {
		return err
	}
	m.recovery.streaming = time.Now() // it is taken up: what goes wrong from here on is the change's
	m.config.Observer.Observe(RunStarted{RunID: open.ID, Table: m.report.Table, Resumed: true, Rehearsal: m.rehearsal != nil})
	return m.recall(ctx, open)
}

// prepareNative records the run, and how it is led, before it makes anything.
func (m *Migration) prepareNative(ctx context.Context) error {
	table := m.target.table
	names := m.target.recipe.Names
	plan := &shadow.Plan{Names: names, Original: table, Owner: table.Owner, Others: m.otherOwners(), SearchPath: m.sessionPath(), Recipe: m.target.recipe}
	store := checkpoint.NewStore(names.RunID)
	err := pg.InTx(ctx, m.control, pgx.TxOptions{}, func(tx pgx.Tx) error {
		if err := m.record(ctx, tx, names); err != nil {
			return err
		}
		if err := m.confine(ctx, tx, names); err != nil {
			return m.refuseRights(err)
		}
		return store.SetPlan(ctx, tx, plan)
	})
	if err != nil {
		return err
	}
	m.run = run{store: store, names: names, plan: plan}
	m.report.RunID = names.RunID
	m.config.Observer.Observe(RunStarted{RunID: names.RunID, Table: m.report.Table, Rehearsal: m.rehearsal != nil})
	return m.setPhase(ctx, Native.String())
}

// step makes the next step, and records that it is made.
func (n *nativeRun) step(ctx context.Context) error {
	step := n.plan.Recipe.Steps[n.plan.Recipe.Done]
	for _, statement := range step.Statements {
		n.m.config.Observer.Observe(StepStarted{SQL: statement.SQL})
	}
	if step.Index != "" {
		return shadow.Rejected(detailed(n.buildIndex(ctx, step)))
	}
	var next *shadow.Recipe
	err := n.underLock(ctx, step.Lock, step.Reads, func(ctx context.Context, tx pgx.Tx, hurry func() error) (err error) {
		next, err = n.make(ctx, tx, step, hurry)
		return err
	})
	if err == nil {
		n.plan.Recipe = next
	}
	return shadow.Rejected(detailed(err))
}

// detailed adds which value it is that does not fit.
func detailed(err error) error {
	if said := pg.Server(err); said != nil && said.Detail != "" {
		return fmt.Errorf("%w: %s", err, oneLine(said.Detail))
	}
	return err
}

// make runs the statements of a step, under its lock, and records with them what they
// have made. That of the last one records that the run is done; in a rehearsal it is
// rolled back.
func (n *nativeRun) make(ctx context.Context, tx pgx.Tx, step shadow.Step, hurry func() error) (*shadow.Recipe, error) {
	confined, recipe := n.plan.Confined(), n.plan.Recipe
	for _, statement := range step.Statements {
		if err := hurry(); err != nil {
			return nil, err
		}
		if err := confined.ExecAs(ctx, tx, statement.Role, statement.Settings, statement.SQL); err != nil {
			return nil, fmt.Errorf("changing the table, %s: %w", statement.SQL, err)
		}
	}
	if err := confined.Leave(ctx, tx); err != nil {
		return nil, err
	}
	if recipe.Done == len(recipe.Steps)-1 {
		err := n.store.EndIn(ctx, tx, string(Done), n.plan.Original.OID)
		if err == nil && n.m.rehearsal != nil {
			err = errTried
		}
		return recipe.After(nil), err
	}
	var made []shadow.Made
	for _, object := range step.Makes {
		id, err := n.identify(ctx, tx, object)
		if err != nil {
			return nil, err
		}
		made = append(made, shadow.Made{Object: object, ID: id})
	}
	next := recipe.After(made)
	return next, n.keep(ctx, tx, next)
}

// keep records what is done of the recipe.
func (n *nativeRun) keep(ctx context.Context, tx pgx.Tx, recipe *shadow.Recipe) error {
	plan := *n.plan
	plan.Recipe = recipe
	return n.store.SetPlan(ctx, tx, &plan)
}

// identify finds what tells an object that was just made from any other of its name.
func (n *nativeRun) identify(ctx context.Context, tx pgx.Tx, object shadow.Object) (id uint32, err error) {
	sql := "SELECT oid FROM pg_catalog.pg_constraint WHERE conrelid = $1 AND conname = $2"
	if object.Kind == shadow.MadeColumn {
		sql = "SELECT attnum::pg_catalog.int8::pg_catalog.oid FROM pg_catalog.pg_attribute WHERE attrelid = $1 AND attname = $2"
	}
	if err := tx.QueryRow(ctx, sql, n.plan.Original.OID, object.Name).Scan(&id); err != nil {
		return 0, fmt.Errorf("looking for %s %q of %s: %w", object.Kind, object.Name, n.plan.Original, err)
	}
	return id, nil
}

// tidyNative removes what confined the owner's code. The change is done, whatever
// becomes of this: what could not be removed is a warning, and pgshadow cleanup lists it.
func (m *Migration) tidyNative(ctx context.Context) {
	err := m.onControl(context.WithoutCancel(ctx), func(ctx context.Context) error {
		return m.enter(ctx, CleanUp, func(ctx context.Context) error {
			ctx, cancel := pg.Cleanup(ctx)
			defer cancel()
			return errors.Join(m.dropCode(ctx, m.run.names), m.setPhase(ctx, Ended.String()))
		})
	})
	if err != nil {
		m.report.Warnings = append(m.report.Warnings, fmt.Sprintf("the change is done, but something is left behind; pgshadow cleanup removes it: %v", err))
	}
}

// finishNative is for a native run whose last step is committed, and whose process did not
// come to know of it, or to clean up.
func (m *Migration) finishNative(ctx context.Context, done *checkpoint.Run, plan *shadow.Plan) {
	m.run = run{store: checkpoint.NewStore(done.ID), names: plan.Names, plan: plan}
	m.report.RunID, m.report.Method, m.phase = done.ID, checkpoint.MethodNative, Native
	m.tidyNative(ctx)
}

// planOf is the plan of a recorded run; nil when it was not made yet.
func planOf(recorded *checkpoint.Run) (*shadow.Plan, error) {
	var plan *shadow.Plan
	if err := json.Unmarshal(recorded.Plan, &plan); err != nil {
		return nil, fmt.Errorf("reading the plan of run %s: %w", recorded.ID, err)
	}
	return plan, nil
}
