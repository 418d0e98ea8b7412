package migration

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/schema"
	"github.com/pgshadow/pgshadow/pkg/shadow"
)

// alterAll runs the user's ALTERs on the shadow, and tries out on it what is
// attached to the original. It returns what the new table is to get at the swap.
func (m *Migration) alterAll(ctx context.Context, tx pgx.Tx, names shadow.Names) (schema.Attached, error) {
	trial, confined := shadow.NewTrial(m.target.table, names), m.confined(names)
	if !trial.Needed() {
		for _, text := range m.target.change.Alters {
			if err := m.alter(ctx, tx, names, text); err != nil {
				return schema.Attached{}, err
			}
		}
		return trial.Attached(), nil
	}
	if err := execAll(ctx, tx, confined, trial.Open()); err != nil {
		return schema.Attached{}, m.refuseTrial("foreign keys cannot be on the changed table", err)
	}
	for i, text := range m.target.change.Alters {
		if slices.Contains(m.target.change.Renames, i) {
			err := m.try(ctx, tx, names, trial, func() error { return m.alter(ctx, tx, names, text) })
			if err != nil {
				return schema.Attached{}, inReal(trial, err)
			}
		}
		if err := m.alter(ctx, tx, names, text); err != nil {
			return schema.Attached{}, inReal(trial, err)
		}
	}
	if err := m.try(ctx, tx, names, trial, func() error { return nil }); err != nil {
		return schema.Attached{}, inReal(trial, err)
	}
	changed, err := m.loadShadow(ctx, tx, names)
	if err != nil {
		return schema.Attached{}, err
	}
	trial.LearnKeys(changed)
	return trial.Attached(), execAll(ctx, tx, confined, trial.Close(changed))
}

// inReal has a refusal speak of the real objects.
func inReal(trial *shadow.Trial, err error) error {
	var refusal *shadow.Refusal
	if !errors.As(err, &refusal) {
		return err
	}
	return &shadow.Refusal{Check: refusal.Check, Reason: trial.Real(refusal.Reason), Remedy: refusal.Remedy}
}

// errTried undoes a try.
var errTried = errors.New("tried")

// try puts everything that is attached on the shadow, has work done, learns how
// the definitions read then, and undoes all of it.
func (m *Migration) try(ctx context.Context, tx pgx.Tx, names shadow.Names, trial *shadow.Trial, work func() error) error {
	confined := m.confined(names)
	return undone(ctx, tx, func(tx pgx.Tx) error {
		for _, rider := range trial.Riders() {
			if err := execAll(ctx, tx, confined, rider.Statements); err != nil {
				return m.refuseTrial(rider.Cannot, err)
			}
		}
		if err := m.label(ctx, tx, confined, trial.Labels(m.target.server.Superuser)); err != nil {
			return err
		}
		if err := work(); err != nil {
			return err
		}
		facts, err := m.loadShadow(ctx, tx, names)
		if err != nil {
			return err
		}
		return trial.Learn(facts)
	})
}

// undone does work and rolls it back.
func undone(ctx context.Context, tx pgx.Tx, work func(tx pgx.Tx) error) error {
	err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
		if err := work(tx); err != nil {
			return err
		}
		return errTried
	})
	if errors.Is(err, errTried) {
		return nil
	}
	return err
}

// refuseTrial makes a refusal of the server's no to an attached object on the
// changed table.
func (m *Migration) refuseTrial(cannot string, err error) error {
	pgErr := pg.Judged(err)
	if pgErr == nil {
		return err
	}
	return &shadow.Refusal{Check: "attached", Reason: cannot + ": " + pgErr.Message,
		Remedy: "make a change that it can live with, or drop it before the change and create it again after"}
}

// complete does what the swap has left to do. The change is done whatever becomes
// of it: what is left is a warning that says how to do it.
func (m *Migration) complete(ctx context.Context) {
	for _, completion := range m.run.plan.Completions {
		err := m.onControl(ctx, func(ctx context.Context) error { return m.completeOne(ctx, completion) })
		if err != nil {
			reason := err.Error()
			if pgErr := pg.Server(err); pgErr != nil && pgErr.Detail != "" {
				reason += " " + pgErr.Detail
			}
			m.report.Warnings = append(m.report.Warnings, fmt.Sprintf("the change is done, and %s is left to do; until then %s: %s; %s does it",
				completion.What, completion.Left, reason, completion.Statement.SQL))
		}
	}
}

// completeOne waits for its lock for as long as others hold it: nothing queues
// behind it for longer than the session's lock_timeout.
func (m *Migration) completeOne(ctx context.Context, completion shadow.Completion) error {
	for {
		var done bool
		err := m.control.QueryRow(ctx, completion.Done).Scan(&done)
		if done || errors.Is(err, pgx.ErrNoRows) {
			return nil // done before, or dropped since
		}
		if err != nil {
			return fmt.Errorf("%s: %w", completion.What, err)
		}
		m.config.Observer.Observe(Noted{Note: completion.What})
		confined := m.run.plan.Confined()
		err = confined.InTx(ctx, m.control, pgx.TxOptions{}, func(tx pgx.Tx) error {
			return confined.ExecAs(ctx, tx, completion.Statement.Role, completion.Statement.Settings, completion.Statement.SQL)
		})
		if !pg.IsLockFailure(err) {
			return err
		}
		m.config.Observer.Observe(Waiting{For: "a lock, for " + completion.What, Reason: err.Error()})
		if err := pause(ctx, time.Second); err != nil {
			return err
		}
	}
}
