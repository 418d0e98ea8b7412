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
	trial := shadow.NewTrial(m.target.table, names)
	if !trial.Needed() {
		for _, text := range m.target.change.Alters {
			if err := m.alter(ctx, tx, names, text); err != nil {
				return schema.Attached{}, err
			}
		}
		return trial.Attached(), nil
	}
	if err := execAll(ctx, tx, trial.Open()); err != nil {
		return schema.Attached{}, m.refuseTrial("foreign keys", err)
	}
	for i, text := range m.target.change.Alters {
		if slices.Contains(m.target.change.Renames, i) {
			err := m.try(ctx, tx, names, trial, func() error { return m.alter(ctx, tx, names, text) })
			if err != nil {
				return schema.Attached{}, err
			}
		}
		if err := m.alter(ctx, tx, names, text); err != nil {
			return schema.Attached{}, err
		}
	}
	if err := m.try(ctx, tx, names, trial, func() error { return nil }); err != nil {
		return schema.Attached{}, err
	}
	changed, err := m.loadShadow(ctx, tx, names)
	if err != nil {
		return schema.Attached{}, err
	}
	trial.LearnKeys(changed)
	return trial.Attached(), execAll(ctx, tx, trial.Close(changed))
}

// errTried undoes a try.
var errTried = errors.New("tried")

// try puts everything that is attached on the shadow, has work done, learns how
// the definitions read then, and undoes all of it.
func (m *Migration) try(ctx context.Context, tx pgx.Tx, names shadow.Names, trial *shadow.Trial, work func() error) error {
	err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
		for _, rider := range trial.Riders() {
			if err := execAll(ctx, tx, rider.Statements); err != nil {
				return m.refuseTrial(rider.Kind+" "+rider.Name, err)
			}
		}
		if err := work(); err != nil {
			return err
		}
		facts, err := m.loadShadow(ctx, tx, names)
		if err != nil {
			return err
		}
		if err := trial.Learn(facts); err != nil {
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
func (m *Migration) refuseTrial(what string, err error) error {
	pgErr := pg.Server(err)
	if pgErr == nil || pg.IsConnection(err) || pg.IsLockFailure(err) {
		return err
	}
	return &shadow.Refusal{Check: "attached", Reason: fmt.Sprintf("%s cannot be on the changed table: %s", what, pgErr.Message),
		Remedy: "make a change that it can live with, or drop it before the change and create it again after"}
}

// notePublications tells once which publications subscribers get the table by.
func (m *Migration) notePublications(ctx context.Context) error {
	if m.recovery.again {
		return nil
	}
	var names *string
	err := m.control.QueryRow(ctx, `SELECT pg_catalog.string_agg(pg_catalog.quote_ident(pubname), ', ' ORDER BY pubname)
		FROM pg_catalog.pg_publication_tables WHERE schemaname = $1 AND tablename = $2 AND NOT pg_catalog.starts_with(pubname, 'pgshadow')`,
		m.target.table.Schema, m.target.table.Name).Scan(&names)
	if err != nil {
		return fmt.Errorf("looking up the publications of %s: %w", m.target.table, err)
	}
	if names != nil {
		note := fmt.Sprintf("publication %s goes on with the new table: on every subscriber make the same change to its table before the cutover, and ALTER SUBSCRIPTION ... REFRESH PUBLICATION after it", *names)
		m.config.Observer.Observe(Noted{Note: note})
		m.report.Warnings = append(m.report.Warnings, note)
	}
	return nil
}

// validate validates the foreign keys that the swap has added without reading
// rows. The change is done whatever becomes of it: what is left is a warning that
// says how to do it.
func (m *Migration) validate(ctx context.Context) {
	for _, validation := range m.run.plan.Validations {
		err := m.onControl(ctx, func(ctx context.Context) error { return m.validateOne(ctx, validation) })
		if err != nil {
			m.report.Warnings = append(m.report.Warnings, fmt.Sprintf("the change is done, and foreign key %s on %s is enforced, but not validated for older rows: %v; %s validates it",
				pg.Readable(validation.Constraint), validation.On, err, validation.Statement.SQL))
		}
	}
}

// validateOne waits for the lock, which blocks no reader or writer, for as long
// as others hold it.
func (m *Migration) validateOne(ctx context.Context, validation shadow.Validation) error {
	for {
		valid, err := m.isValid(ctx, validation)
		if valid || err != nil {
			return err
		}
		m.config.Observer.Observe(Noted{Note: fmt.Sprintf("validating foreign key %s on %s", pg.Readable(validation.Constraint), validation.On)})
		err = pg.InTx(ctx, m.control, pgx.TxOptions{}, func(tx pgx.Tx) error {
			return pg.ExecAs(ctx, tx, validation.Statement.Role, nil, validation.Statement.SQL)
		})
		if !pg.IsLockFailure(err) {
			return err
		}
		m.config.Observer.Observe(Waiting{For: "a lock, to validate foreign key " + pg.Readable(validation.Constraint), Reason: err.Error()})
		if err := pause(ctx, time.Second); err != nil {
			return err
		}
	}
}

func (m *Migration) isValid(ctx context.Context, validation shadow.Validation) (valid bool, err error) {
	table := validation.Table
	if table == 0 {
		if table, err = schema.Resolve(ctx, m.control, m.run.plan.Original.Schema, m.run.plan.Original.Name); err != nil {
			return false, err
		}
	}
	err = m.control.QueryRow(ctx, "SELECT convalidated FROM pg_catalog.pg_constraint WHERE conrelid = $1 AND conname = $2 AND contype = 'f'", table, validation.Constraint).Scan(&valid)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, errors.New("it is gone")
	}
	if err != nil {
		return false, fmt.Errorf("looking up foreign key %s: %w", validation.Constraint, err)
	}
	return valid, nil
}
