package migration

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/copier"
	"github.com/pgshadow/pgshadow/pkg/keyset"
	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/schema"
	"github.com/pgshadow/pgshadow/pkg/shadow"
)

// tried is what trying rows has come to.
type tried struct {
	rows, wal int64
	took      time.Duration
}

func (t *tried) add(more tried) {
	t.rows, t.wal, t.took = t.rows+more.rows, t.wal+more.wal, t.took+more.took
}

// fill copies a range into the shadow as a run does, but for the rows that do not fit. It
// writes in three subtransactions at most.
func (p *planner) fill(ctx context.Context, tx pgx.Tx, plan *shadow.Plan, within keyset.Range, into *tried) error {
	refused, copied, err := p.insert(ctx, tx, plan, within, nil, "")
	if err != nil || refused == nil {
		into.add(copied)
		return err
	}
	found, err := p.findMisfits(ctx, tx, plan, within)
	if err != nil || p.report.Rows.More {
		into.rows += found.rows
		return err
	}
	refused, copied, err = p.insert(ctx, tx, plan, within, found.keys, "")
	copied.rows = found.rows
	into.add(copied)
	if refused != nil { // it is one of rows together
		p.report.Rows.Failures = append(p.report.Rows.Failures, *refused)
	}
	return err
}

// misfits are rows that do not fit. To look for them takes many tries, each of them in a
// subtransaction, and one transaction must not write in many (hazard H20): other sessions
// would no longer know by heart which of them are running. So all tries but the first meet
// a row with which every other conflicts: the server computes the row, checks it, and lets
// it be.
type misfits struct {
	*planner
	tx   pgx.Tx
	plan *shadow.Plan
	keys []keyset.Key
	rows int64 // tried
}

const conflicts = " ON CONFLICT ((1)) DO NOTHING"

// findMisfits tries the rows of a range, and leaves the shadow as it was. It adds to the
// report what it finds, up to failuresCounted.
func (p *planner) findMisfits(ctx context.Context, tx pgx.Tx, plan *shadow.Plan, within keyset.Range) (*misfits, error) {
	m := &misfits{planner: p, plan: plan}
	err := undone(ctx, tx, func(tx pgx.Tx) error {
		m.tx = tx
		if err := m.exec(ctx, "TRUNCATE ONLY "+plan.Names.Shadow()); err != nil {
			return err
		}
		rest, err := m.seed(ctx, within)
		if err != nil || rest == nil {
			return err
		}
		if err := m.exec(ctx, "CREATE UNIQUE INDEX ON "+plan.Names.Shadow()+" ((1))"); err != nil {
			return err
		}
		return m.walk(ctx, *rest)
	})
	return m, err
}

func (m *misfits) exec(ctx context.Context, sql string) error {
	if _, err := m.plan.Confined().Exec(ctx, m.tx, sql); err != nil {
		return fmt.Errorf("trying rows (%s): %w", sql, err)
	}
	return nil
}

// seed writes the first row that fits, and returns the range behind it; nil when there is
// none. Rows before it do not fit, and so are not written.
func (m *misfits) seed(ctx context.Context, within keyset.Range) (rest *keyset.Range, err error) {
	for !m.enough() {
		first, err := m.nth(ctx, m.tx, m.plan, within, 1)
		if err != nil || first == nil {
			return nil, err
		}
		refused, _, err := m.insert(ctx, m.tx, m.plan, keyset.Range{Lo: within.Lo, Hi: first}, nil, "")
		if err != nil {
			return nil, err
		}
		m.rows++
		within.Lo = first
		if refused == nil {
			return &within, nil
		}
		m.found(refused, first)
	}
	return nil, nil //nolint:nilnil // no row that fits is an answer
}

func (m *misfits) found(refused *PlanFailure, key *keyset.Key) {
	refused.Key = key
	m.keys = append(m.keys, *key)
	m.fails(*refused)
}

// fails adds a row to the report.
func (p *planner) fails(row PlanFailure) {
	rows := p.report.Rows
	if rows.Failing++; rows.Failing <= failuresListed {
		rows.Failures = append(rows.Failures, row)
	}
}

// enough tells that so many rows have failed that no more are tried.
func (p *planner) enough() bool {
	if p.report.Rows.Failing < failuresCounted {
		return false
	}
	p.report.Rows.More, p.report.Rows.All = true, false
	return true
}

// walk tries a range part by part.
func (m *misfits) walk(ctx context.Context, within keyset.Range) error {
	for {
		hi, err := m.nth(ctx, m.tx, m.plan, within, sampleRows)
		if err != nil {
			return err
		}
		part, rows := within, sampleRows
		if hi != nil {
			part.Hi = hi
		} else if rows, err = m.count(ctx, within); err != nil {
			return err
		}
		if err := m.try(ctx, part, rows); err != nil || hi == nil || m.report.Rows.More {
			return err
		}
		within.Lo = hi
	}
}

// try halves a range of so many rows until it knows which of them do not fit. Others may
// write meanwhile: a row more or less is tried then.
func (m *misfits) try(ctx context.Context, within keyset.Range, rows int) error {
	if m.enough() {
		return nil
	}
	refused, sum, err := m.insert(ctx, m.tx, m.plan, within, nil, conflicts)
	if err != nil || refused == nil {
		m.rows += sum.rows
		return err
	}
	middle, err := m.nth(ctx, m.tx, m.plan, within, max(1, rows/2))
	if err != nil || middle == nil {
		return err
	}
	if rows <= 1 {
		m.rows++
		m.found(refused, middle)
		return nil
	}
	if err := m.try(ctx, keyset.Range{Lo: within.Lo, Hi: middle}, rows/2); err != nil {
		return err
	}
	return m.try(ctx, keyset.Range{Lo: middle, Hi: within.Hi}, rows-rows/2)
}

func (m *misfits) count(ctx context.Context, within keyset.Range) (int, error) {
	predicate, args := m.plan.Key.Predicate(m.plan.Key.Tuple(shadow.RowAlias), within, 1)
	rows, err := m.plan.Confined().Query(ctx, m.tx, []string{"int8"}, fmt.Sprintf("SELECT count(*) FROM %s AS o WHERE %s", m.plan.Source(), predicate), args...)
	if err != nil {
		return 0, fmt.Errorf("counting rows of %s: %w", m.plan.Original, err)
	}
	n, err := pgx.CollectOneRow(rows, pgx.RowTo[int])
	if err != nil {
		return 0, fmt.Errorf("counting rows of %s: %w", m.plan.Original, err)
	}
	return n, nil
}

// insert returns what the server has against the rows of a range but those left out, or
// what it took to copy them.
func (p *planner) insert(ctx context.Context, tx pgx.Tx, plan *shadow.Plan, within keyset.Range, without []keyset.Key, conflict string) (refused *PlanFailure, sum tried, err error) {
	sql, args := copier.CopySQL(plan, within)
	if len(without) > 0 {
		sql += fmt.Sprintf(" AND %s NOT IN (SELECT %s FROM %s AS k)", plan.Key.Tuple(shadow.RowAlias), plan.Key.Order("k"), plan.Key.Rows(len(args)+1))
		args = append(args, plan.Key.Arrays(without)...)
	}
	var explained []struct {
		Plan struct {
			WALBytes int64 `json:"WAL Bytes"`
			Plans    []struct {
				Rows float64 `json:"Actual Rows"`
			}
		}
		ExecutionTime float64 `json:"Execution Time"` // ms
	}
	err = pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
		rows, err := plan.Confined().Query(ctx, tx, []string{"json"}, "EXPLAIN (ANALYZE, WAL, TIMING OFF, FORMAT JSON) "+sql+conflict, args...)
		if err != nil {
			return err
		}
		document, err := pgx.CollectOneRow(rows, pgx.RowTo[string])
		if err != nil {
			return err
		}
		return json.Unmarshal([]byte(document), &explained)
	})
	switch {
	case pg.IsData(err):
		return failure(err), sum, nil
	case err != nil:
		return nil, sum, fmt.Errorf("trying rows %s of %s: %w", within, plan.Original, err)
	}
	for _, e := range explained {
		sum.wal += e.Plan.WALBytes
		sum.took += time.Duration(e.ExecutionTime * float64(time.Millisecond))
		for _, source := range e.Plan.Plans {
			sum.rows += int64(source.Rows)
		}
	}
	return nil, sum, nil
}

// tryEvery tries every row of the table, where that is asked for, and writes none: nothing
// of it is in the WAL.
func (p *planner) tryEvery(ctx context.Context) error {
	if !p.checkData || p.report.Rows == nil {
		return nil
	}
	plan, names := p.run.plan, p.run.names
	every := func(tx pgx.Tx) error {
		if err := p.countLosses(ctx, tx, plan, []keyset.Range{{}}); err != nil {
			return err
		}
		return p.tryAll(ctx, tx, plan)
	}
	err := p.tryOut(ctx, func(tx pgx.Tx) error {
		if err := p.remake(ctx, tx, plan); err != nil {
			return err
		}
		return every(tx)
	})
	if refusalsOf(err) == nil {
		return err
	}
	return p.tryOut(ctx, func(tx pgx.Tx) error { // the change needs the foreign keys
		if _, err := p.build(ctx, tx, names); err != nil {
			return err
		}
		return every(tx)
	})
}

// remake makes the shadow once more, without what was tried out on it, so that for all the
// time that its transaction takes it has a lock on no table but the original.
func (p *planner) remake(ctx context.Context, tx pgx.Tx, plan *shadow.Plan) error {
	confined := p.confined(plan.Names)
	if _, err := p.create(ctx, tx, plan.Names, confined); err != nil {
		return err
	}
	for _, text := range p.target.change.Alters {
		if err := p.alter(ctx, tx, plan.Names, text); err != nil {
			return err
		}
	}
	return execAll(ctx, tx, confined, plan.Strip)
}

func (p *planner) tryAll(ctx context.Context, tx pgx.Tx, plan *shadow.Plan) error {
	sampled := p.report.Rows
	ofIndexes := slices.DeleteFunc(sampled.Failures, func(f PlanFailure) bool { return f.Index == "" })
	p.report.Rows = &PlanRows{Failures: ofIndexes, All: true}
	found, err := p.findMisfits(ctx, tx, plan, keyset.Range{})
	p.report.Rows.Tried = found.rows
	if err != nil {
		return err
	}
	onSample := false
	for _, key := range p.keys {
		if onSample = onSample || key.sampled; !key.sampled {
			continue
		}
		key.untried = true // the shadow is empty now
		for _, orphan := range key.orphans {
			p.fails(orphan)
		}
	}
	if together := newTogether(plan); len(together) > 0 && !sampled.All {
		onSample = true
		p.note("whether rows stand in each other's way (%s) was tried on the sample only", strings.Join(together, ", "))
	}
	if onSample {
		p.report.Rows.All = false
	}
	_, err = p.tryReferences(ctx, tx, plan, []keyset.Range{{}})
	return err
}

// newTogether are new indexes that look at rows together: unique ones, and those of
// exclusion constraints.
func newTogether(plan *shadow.Plan) []string {
	var all []string
	for _, build := range plan.Builds {
		there := slices.ContainsFunc(plan.Original.Indexes, func(index schema.Index) bool { return index.Name == build.Name })
		statements := slices.Concat(build.Create, build.Attach)
		if !there && slices.ContainsFunc(statements, func(s shadow.Statement) bool {
			return strings.HasPrefix(s.SQL, "CREATE UNIQUE") || strings.Contains(s.SQL, " EXCLUDE ")
		}) {
			all = append(all, build.Name)
		}
	}
	return all
}
