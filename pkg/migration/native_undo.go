package migration

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/checkpoint"
	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/schema"
	"github.com/pgshadow/pgshadow/pkg/shadow"
)

// undoNative takes back what an unfinished run has made, where it leads PostgreSQL
// itself through the change: what is on record as made, by its identity, and the indexes
// that have the run's id in their names. It tells what is kept, because others use it.
func (m *Migration) undoNative(ctx context.Context, names shadow.Names) (kept []string, err error) {
	plan, err := m.nativePlan(ctx, names.RunID)
	if err != nil || plan == nil {
		return nil, err
	}
	if err := m.endStale(ctx, names.RunID); err != nil {
		return nil, err
	}
	if plan, err = m.nativePlan(ctx, names.RunID); err != nil || plan == nil { // as the last of those sessions left it
		return nil, err
	}
	n := &nativeRun{m: m, plan: plan, store: checkpoint.NewStore(names.RunID), undoing: true}
	m.undoing = true
	if kept, err = n.undo(ctx); err != nil {
		return nil, fmt.Errorf("taking back what run %s has made: %w", names.RunID, err)
	}
	m.undoing, m.kept = false, append(m.kept, kept...)
	for _, what := range kept {
		m.report.Warnings = append(m.report.Warnings, what)
		m.config.Observer.Observe(Noted{Note: what})
	}
	return kept, nil
}

// nativePlan is the plan of a run that is open and native, else nil.
func (m *Migration) nativePlan(ctx context.Context, runID string) (*shadow.Plan, error) {
	recorded, err := checkpoint.FindRun(ctx, m.control, runID)
	if err != nil || recorded == nil || recorded.EndedAt != nil {
		return nil, err
	}
	plan, err := planOf(recorded)
	if err != nil || plan == nil || plan.Recipe == nil {
		return nil, err
	}
	return plan, nil
}

// undo begins with what holds the application up, a constraint that its rows may violate.
func (n *nativeRun) undo(ctx context.Context) (kept []string, err error) {
	if err := n.beginUndo(ctx); errors.Is(err, errGone) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	made := slices.Clone(n.plan.Recipe.Made)
	slices.Reverse(made)
	of := func(kind shadow.ObjectKind) []shadow.Made {
		return slices.DeleteFunc(slices.Clone(made), func(object shadow.Made) bool { return object.Kind != kind })
	}
	for _, constraint := range of(shadow.MadeConstraint) {
		if err := n.dropConstraint(ctx, constraint); err != nil {
			return nil, err
		}
	}
	for _, name := range n.plan.Recipe.Indexes() {
		if err := n.dropIndex(ctx, name); pg.Is(err, pg.DependentObjects) {
			kept = append(kept, fmt.Sprintf("index %s of %s, which run %s has built, is kept: %s", name, n.plan.Original, n.plan.Names.RunID, oneLine(pg.Server(err).Detail)))
		} else if err != nil {
			return nil, err
		}
	}
	for _, column := range of(shadow.MadeColumn) {
		why, err := n.dropColumn(ctx, column)
		if err != nil {
			return nil, err
		}
		if why != "" {
			kept = append(kept, fmt.Sprintf("column %q of %s, which run %s has added, is kept: %s", column.Name, n.plan.Original, n.plan.Names.RunID, why))
		}
	}
	return kept, nil
}

// beginUndo records that the run is not gone on with, and makes anew what confines the
// code of the table's owner, who may be another one by now.
func (n *nativeRun) beginUndo(ctx context.Context) error {
	if err := n.locate(ctx, n.m.control); err != nil {
		return err
	}
	if err := n.advance(ctx, n.plan.Recipe.Back()); err != nil {
		return err
	}
	if err := n.m.dropCode(ctx, n.plan.Names); err != nil {
		return err
	}
	return pg.InTx(ctx, n.m.control, pgx.TxOptions{}, func(tx pgx.Tx) error {
		var login string
		if err := tx.QueryRow(ctx, "SELECT session_user").Scan(&login); err != nil {
			return fmt.Errorf("asking for the login role: %w", err)
		}
		bare := *n.plan.Original
		bare.Attached = schema.Attached{} // nothing is run as anybody else
		for _, statement := range shadow.Confine(&bare, n.plan.Names, login) {
			if err := pg.ExecAs(ctx, tx, statement.Role, statement.Settings, statement.SQL); err != nil {
				return fmt.Errorf("confining the owner's code, %s (%s): %w", statement.Why, statement.SQL, err)
			}
		}
		return refuseOpenCodeOf(ctx, tx, n.plan.Names, n.plan.Owner, login)
	})
}

// dropMade drops one object under the table's lock, and records that with it. find gives
// its name now, drop the statement; nothing is done when it is gone.
func (n *nativeRun) dropMade(ctx context.Context, object shadow.Made, find string, drop func(ctx context.Context, tx pgx.Tx, name string) error) error {
	gone := n.plan.Recipe.Without(object)
	err := n.underLock(ctx, shadow.AccessExclusive, false, func(ctx context.Context, tx pgx.Tx, hurry func() error) error {
		var name string
		err := tx.QueryRow(ctx, find, n.plan.Original.OID, object.ID).Scan(&name)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return fmt.Errorf("looking for %s %q of %s: %w", object.Kind, object.Name, n.plan.Original, err)
		}
		if err == nil {
			if err := hurry(); err != nil {
				return err
			}
			if err := drop(ctx, tx, name); err != nil {
				return err
			}
		}
		if err := n.plan.Confined().Leave(ctx, tx); err != nil {
			return err
		}
		return n.keep(ctx, tx, gone)
	})
	if err == nil {
		n.plan.Recipe = gone
	}
	return err
}

func (n *nativeRun) dropConstraint(ctx context.Context, object shadow.Made) error {
	return n.dropMade(ctx, object, "SELECT conname FROM pg_catalog.pg_constraint WHERE conrelid = $1 AND oid = $2", func(ctx context.Context, tx pgx.Tx, name string) error {
		return n.execAsOwner(ctx, tx, "ALTER TABLE %s DROP CONSTRAINT %s", n.plan.Original.Quoted(), pg.Ident(name))
	})
}

func (n *nativeRun) execAsOwner(ctx context.Context, tx pgx.Tx, sql string, args ...any) error {
	sql = fmt.Sprintf(sql, args...)
	if _, err := n.plan.Confined().Exec(ctx, tx, sql); err != nil {
		return fmt.Errorf("changing the table, %s: %w", sql, err)
	}
	return nil
}

// keptError keeps a column.
type keptError struct{ why string }

func (e *keptError) Error() string { return e.why }

// dropColumn drops a column, unless anybody uses it. Whether somebody has written to it is
// found with an index of the values that are not those which the rows were given: built
// beside writers, it tells at once under the lock. why is why the column is kept.
func (n *nativeRun) dropColumn(ctx context.Context, object shadow.Made) (why string, err error) {
	var kept *keptError
	written, err := n.writtenTo(ctx, object)
	if err != nil && !errors.As(err, &kept) {
		return "", err
	}
	index := fmt.Sprintf("%s_%s_written%d", shadow.Prefix, n.plan.Names.RunID, object.ID)
	if err := n.dropIndex(ctx, index); err != nil { // of an earlier attempt
		return "", err
	}
	if written != "" { // else it is kept, or somebody else has dropped it
		err = n.retried(ctx, func() error {
			if err := n.locate(ctx, n.m.control); err != nil {
				return err
			}
			return n.alone(ctx, fmt.Sprintf("CREATE INDEX CONCURRENTLY %s ON %s ((1)) WHERE %s", pg.Ident(index), n.plan.Original.Quoted(), written))
		})
		if pg.IsRefused(err) { // there is no telling
			err = &keptError{pg.Server(err).Message}
		}
	}
	if err == nil {
		err = n.dropUnlessUsed(ctx, object, index, written)
	}
	if !errors.As(err, &kept) {
		return "", err // the index went with the column
	}
	if err := n.dropIndex(ctx, index); err != nil {
		return "", err
	}
	return kept.why, n.advance(ctx, n.plan.Recipe.Without(object))
}

// writtenTo is the condition on a row whose value of a new column is not that which the
// rows were given when it was added (pg_attribute.attmissingval); empty: the column is
// gone. Values that are equal and not the same are told apart, and so is a composite
// whose fields are null. A value of a type that has a part of the user's own is not written
// into a statement: the server reads it before it takes the owner's rights, and would
// check a domain by the owner's code with those of the login role (INV-6); what a name
// stands for can change while a lock is waited for. There is no telling of such a column.
func (n *nativeRun) writtenTo(ctx context.Context, object shadow.Made) (string, error) {
	var name, typeName string
	var given *string
	var users bool
	err := n.m.control.QueryRow(ctx, `WITH RECURSIVE col AS (
			SELECT * FROM pg_catalog.pg_attribute WHERE attrelid = $1 AND attnum = $2::pg_catalog.oid::pg_catalog.int8 AND NOT attisdropped
		), types(oid) AS (SELECT atttypid FROM col UNION `+typePartsSQL+`)
		SELECT attname, pg_catalog.format_type(atttypid, atttypmod), CASE WHEN atthasmissing THEN pg_catalog.array_to_string(attmissingval, '') END,
			EXISTS (SELECT FROM types WHERE oid >= 16384) FROM col`, n.plan.Original.OID, object.ID).Scan(&name, &typeName, &given, &users)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("reading column %q of %s: %w", object.Name, n.plan.Original, err)
	case given == nil:
		return pg.Ident(name) + " IS DISTINCT FROM NULL", nil
	case users:
		return "", &keptError{fmt.Sprintf("its type %s is not one of PostgreSQL's own, so whether it holds values that were written meanwhile is not looked for", typeName)}
	default:
		return fmt.Sprintf("pg_catalog.record_image_ne(ROW(%s), ROW(%s::%s))", pg.Ident(name), pg.Literal(*given), typeName), nil
	}
}

// usersSQL names what depends on a column of a table, but for its own default, its own
// NOT NULL and an index: DROP COLUMN would take some of it along.
const usersSQL = `SELECT coalesce(pg_catalog.min(CASE WHEN d.classid = 'pg_catalog.pg_inherits'::pg_catalog.regclass THEN 'a table inherits it' ELSE pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid) || ' uses it' END), '')
	FROM (SELECT classid, objid, objsubid FROM pg_catalog.pg_depend
		WHERE refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND refobjid = $1 AND refobjsubid = $2::pg_catalog.oid::pg_catalog.int8
		  AND classid <> 'pg_catalog.pg_attrdef'::pg_catalog.regclass
		  AND NOT (classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND objid IN (SELECT oid FROM pg_catalog.pg_class WHERE relname = $3 AND relkind = 'i'))
		  AND NOT (classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND objid IN (SELECT oid FROM pg_catalog.pg_constraint WHERE contype = 'n'))
		UNION ALL SELECT 'pg_catalog.pg_inherits'::pg_catalog.regclass, inhrelid, 0 FROM pg_catalog.pg_inherits WHERE inhparent = $1) AS d`

func (n *nativeRun) dropUnlessUsed(ctx context.Context, object shadow.Made, index, written string) error {
	const find = "SELECT attname FROM pg_catalog.pg_attribute WHERE attrelid = $1 AND attnum = $2::pg_catalog.oid::pg_catalog.int8 AND NOT attisdropped"
	return n.dropMade(ctx, object, find, func(ctx context.Context, tx pgx.Tx, name string) error {
		var user string
		if err := tx.QueryRow(ctx, usersSQL, n.plan.Original.OID, object.ID, index).Scan(&user); err != nil {
			return fmt.Errorf("looking for what uses column %q of %s: %w", name, n.plan.Original, err)
		}
		if user != "" {
			return &keptError{user}
		}
		if _, err := tx.Exec(ctx, "SET LOCAL enable_seqscan = off"); err != nil {
			return fmt.Errorf("preparing to look for values: %w", err)
		}
		found, err := n.anyRow(ctx, tx, written)
		switch {
		case pg.IsRefused(err):
			return &keptError{pg.Server(err).Message}
		case err != nil:
			return fmt.Errorf("looking for values in column %q of %s: %w", name, n.plan.Original, err)
		case found:
			return &keptError{"it holds values that were written meanwhile"}
		}
		return n.execAsOwner(ctx, tx, "ALTER TABLE %s DROP COLUMN %s", n.plan.Original.Quoted(), pg.Ident(name))
	})
}

func (n *nativeRun) anyRow(ctx context.Context, tx pgx.Tx, condition string) (bool, error) {
	rows, err := n.plan.Confined().Query(ctx, tx, []string{"bool"}, fmt.Sprintf("SELECT EXISTS (SELECT FROM ONLY %s WHERE %s)", n.plan.Original.Quoted(), condition))
	if err != nil {
		return false, err
	}
	return pgx.CollectExactlyOneRow(rows, pgx.RowTo[bool])
}
