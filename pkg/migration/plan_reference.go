package migration

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/keyset"
	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/schema"
	"github.com/pgshadow/pgshadow/pkg/shadow"
)

// foreignKey is one that rows are tried against.
type foreignKey struct {
	shadow.Reference
	from string // the original; the shadow where the key has a new column
	to   string
	// notNull is of the rows that need a partner, and same of what they have in common.
	notNull, same string
	// sampled tells that only rows in the shadow can be tried; orphans are those of them
	// that have no partner.
	sampled bool
	orphans []PlanFailure
	untried bool // for it cannot be
}

// findReferences finds the foreign keys for which the change reads rows: those that it adds,
// and those that it validates.
func (p *planner) findReferences(ctx context.Context, tx pgx.Tx, plan *shadow.Plan, whole *shadow.Change) error {
	if err := plan.Confined().Leave(ctx, tx); err != nil {
		return err
	}
	all := slices.DeleteFunc(slices.Clone(whole.References), func(r shadow.Reference) bool { return r.Late })
	for _, alter := range whole.InPlace {
		for _, piece := range alter.Pieces {
			if piece.Kind != shadow.Validates {
				continue
			}
			found, err := p.late(ctx, tx, piece.Name)
			if err != nil {
				return err
			}
			all = append(all, found...)
		}
	}
	for _, reference := range all {
		err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
			key, err := p.newForeignKey(ctx, tx, plan, reference)
			if key != nil {
				p.keys = append(p.keys, key)
			}
			return err
		})
		if judged := pg.Judged(err); judged != nil {
			p.note("foreign key (%s): rows are not tried: %s", strings.Join(reference.Columns, ", "), judged.Message)
		} else if err != nil {
			return err
		}
	}
	return nil
}

// late reads a foreign key that the table has, and that is not validated.
func (p *planner) late(ctx context.Context, tx pgx.Tx, name string) ([]shadow.Reference, error) {
	rows, err := tx.Query(ctx, `SELECT n.nspname::pg_catalog.text, r.relname::pg_catalog.text, c.confmatchtype = 'f',
			ARRAY(SELECT a.attname::pg_catalog.text FROM pg_catalog.unnest(c.conkey) WITH ORDINALITY AS k(attnum, n) JOIN pg_catalog.pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.attnum ORDER BY k.n),
			ARRAY(SELECT a.attname::pg_catalog.text FROM pg_catalog.unnest(c.confkey) WITH ORDINALITY AS k(attnum, n) JOIN pg_catalog.pg_attribute a ON a.attrelid = c.confrelid AND a.attnum = k.attnum ORDER BY k.n)
		FROM pg_catalog.pg_constraint c JOIN pg_catalog.pg_class r ON r.oid = c.confrelid JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace
		WHERE c.conrelid = $1 AND c.conname = $2 AND c.contype = 'f' AND NOT c.convalidated`, p.target.table.OID, name)
	if err != nil {
		return nil, fmt.Errorf("reading foreign key %q: %w", name, err)
	}
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r shadow.Reference, err error) {
		return r, row.Scan(&r.Schema, &r.Table, &r.Full, &r.Columns, &r.Referenced)
	})
	if err != nil {
		return nil, fmt.Errorf("reading foreign key %q: %w", name, err)
	}
	return found, nil
}

// newForeignKey finds the other end, as the owner's search_path does.
func (p *planner) newForeignKey(ctx context.Context, tx pgx.Tx, plan *shadow.Plan, reference shadow.Reference) (*foreignKey, error) {
	to := reference.Quoted()
	partitioned, primary, err := otherEnd(ctx, tx, plan, to)
	if err != nil {
		return nil, err
	}
	if len(reference.Referenced) == 0 {
		reference.Referenced = primary
	}
	if len(reference.Referenced) != len(reference.Columns) {
		p.note("foreign key (%s): rows are not tried: %s has no such key", strings.Join(reference.Columns, ", "), to)
		return nil, nil //nolint:nilnil // the note says why there is none
	}
	key := &foreignKey{Reference: reference, from: plan.Source(), to: to}
	if !partitioned {
		key.to = "ONLY " + to
	}
	var notNull, same []string
	for i, name := range reference.Columns {
		own := pg.Ident(shadow.RowAlias, name)
		notNull, same = append(notNull, own+" IS NOT NULL"), append(same, pg.Ident("r", reference.Referenced[i])+" = "+own)
		if !slices.ContainsFunc(plan.Original.Columns, func(c schema.Column) bool { return c.Name == name }) {
			key.from, key.sampled = "ONLY "+plan.Names.Shadow(), true
		}
	}
	key.notNull, key.same = strings.Join(notNull, " AND "), strings.Join(same, " AND ")
	if reference.Full {
		key.notNull = strings.Join(notNull, " OR ")
	}
	return key, nil
}

// otherEnd tells of a table whether it is partitioned, and the columns of its primary key.
func otherEnd(ctx context.Context, tx pgx.Tx, plan *shadow.Plan, name string) (partitioned bool, primary []string, err error) {
	rows, err := plan.Confined().Query(ctx, tx, []string{"bool", "text"}, `SELECT c.relkind = 'p', a.attname::pg_catalog.text FROM pg_catalog.pg_class c
		LEFT JOIN pg_catalog.pg_index i ON i.indrelid = c.oid AND i.indisprimary LEFT JOIN pg_catalog.unnest(i.indkey) WITH ORDINALITY AS k(attnum, n) ON k.n <= i.indnkeyatts
		LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum WHERE c.oid = $1::pg_catalog.text::pg_catalog.regclass ORDER BY k.n`, name)
	if err != nil {
		return false, nil, err
	}
	columns, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (column *string, err error) {
		return column, row.Scan(&partitioned, &column)
	})
	for _, column := range columns {
		if column != nil {
			primary = append(primary, *column)
		}
	}
	return partitioned, primary, err
}

// tryReferences finds rows of some ranges that have no partner, and tells how long it took.
func (p *planner) tryReferences(ctx context.Context, tx pgx.Tx, plan *shadow.Plan, spots []keyset.Range) (took time.Duration, err error) {
	began := time.Now()
	for _, key := range p.keys {
		for _, spot := range spots {
			if key.untried || p.enough() {
				continue
			}
			err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error { return p.findOrphans(ctx, tx, plan, key, spot) })
			if judged := pg.Judged(err); judged != nil { // the owner may not read the other table, say
				key.untried = true
				p.note("foreign key (%s): rows are not tried: %s", strings.Join(key.Columns, ", "), judged.Message)
			} else if err != nil {
				return 0, err
			}
		}
	}
	return time.Since(began), nil
}

// findOrphans finds the rows of a range that have no partner, part by part.
func (p *planner) findOrphans(ctx context.Context, tx pgx.Tx, plan *shadow.Plan, key *foreignKey, within keyset.Range) error {
	return p.parts(ctx, tx, plan, within, func(part keyset.Range) (bool, error) {
		predicate, args := plan.Key.Predicate(plan.Key.Tuple(shadow.RowAlias), part, 1)
		rows, err := plan.Confined().Query(ctx, tx, slices.Repeat([]string{"text"}, len(plan.Key)), fmt.Sprintf("SELECT %s FROM %s AS o WHERE %s AND (%s) AND NOT EXISTS (SELECT FROM %s AS r WHERE %s) ORDER BY %s LIMIT %d",
			plan.Key.List(shadow.RowAlias), key.from, predicate, key.notNull, key.to, key.same, plan.Key.Order(shadow.RowAlias), failuresCounted-p.report.Rows.Failing), args...)
		if err != nil {
			return false, fmt.Errorf("looking for rows without a partner: %w", err)
		}
		orphans, err := pgx.CollectRows(rows, scanKey)
		if err != nil {
			return false, fmt.Errorf("looking for rows without a partner: %w", err)
		}
		for _, orphan := range orphans {
			failed := PlanFailure{Key: &orphan, SQLState: pg.ForeignKeyViolation, Message: fmt.Sprintf("no row of %s for foreign key (%s)", strings.TrimPrefix(key.to, "ONLY "), strings.Join(key.Columns, ", "))}
			p.fails(failed)
			if key.sampled {
				key.orphans = append(key.orphans, failed)
			}
		}
		return !p.enough(), nil
	})
}
