package migration

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/copier"
	"github.com/pgshadow/pgshadow/pkg/keyset"
	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/shadow"
)

// PlanRows says how rows fit the new schema. Only those that were tried are counted.
type PlanRows struct {
	Tried   int64 `json:"tried"`
	All     bool  `json:"all"` // of the table
	Failing int64 `json:"failing"`
	// More tells that rows were no longer tried when so many had failed.
	More bool `json:"more,omitempty"`
	// Failures are the first of them, and indexes that could not be built.
	Failures []PlanFailure `json:"failures"`
}

// PlanFailure is a row that does not fit, or an index that rows do not.
type PlanFailure struct {
	Key      *keyset.Key `json:"key,omitempty"`
	Index    string      `json:"index,omitempty"`
	SQLState string      `json:"sqlstate"`
	Message  string      `json:"message"`
}

// PlanLoss is a column that may lose something, and how many of the rows tried do.
type PlanLoss struct {
	shadow.Loss
	Rows *int64 `json:"rows"` // null where rows do not fit, or PostgreSQL does not convert back
}

// PlanEstimate is what the run takes, as far as the rows that were tried tell.
type PlanEstimate struct {
	DurationMS int64 `json:"duration_ms"`
	CopyMS     int64 `json:"copy_ms"`
	IndexMS    int64 `json:"index_ms"`
	VerifyMS   int64 `json:"verify_ms"`  // of a native change: to read the rows
	WALBytes   int64 `json:"wal_bytes"`  // that the run itself writes
	DiskBytes  int64 `json:"disk_bytes"` // of the shadow, or of new indexes, beside the original
	SampleRows int64 `json:"sample_rows"`
	SampleMS   int64 `json:"sample_ms"`
}

const (
	// planTimeout bounds each statement of a plan.
	planTimeout = 30 * time.Second
	sampleSpots = 4
	sampleRows  = 20_000    // in all
	sampleBytes = 100 << 20 // as the table has them, with indexes
	// failuresListed is the most rows that a plan names, failuresCounted the most that
	// it looks for.
	failuresListed  = 10
	failuresCounted = 1000
)

// tryRows puts rows of the original into the empty shadow, and builds its indexes. What
// takes too long is left out of the plan, which says so.
func (p *planner) tryRows(ctx context.Context, tx pgx.Tx, plan *shadow.Plan) error {
	p.run.plan, p.run.names = plan, plan.Names
	err := p.trySample(ctx, tx, plan)
	if pg.Is(err, pg.QueryCanceled) && ctx.Err() == nil {
		p.report.Rows, p.report.Estimate = nil, nil
		p.note("rows are not tried, and the time is not estimated: a sample of them takes the server longer than %s", planTimeout)
		return nil
	}
	return err
}

func (p *planner) trySample(ctx context.Context, tx pgx.Tx, plan *shadow.Plan) error {
	spots, all, err := p.spots(ctx, tx, plan)
	if err != nil {
		return err
	}
	if err := p.countLosses(ctx, tx, plan, spots); err != nil {
		return err
	}
	lasting, err := p.lasting(ctx, tx, plan)
	if err != nil {
		return err
	}
	if len(lasting) > 0 {
		p.note("rows are not tried, and the time is not estimated, for what that does may last beyond a ROLLBACK: %s", strings.Join(lasting, "; "))
		return nil
	}
	p.report.Rows = &PlanRows{Failures: []PlanFailure{}, All: all}
	sample := &trialRows{planner: p, tx: tx, plan: plan}
	return sample.take(ctx, spots)
}

// sampled is how many rows are tried at most. They are written: of wide ones fewer will do.
func (p *planner) sampled() int {
	width := p.report.Sizes.TotalBytes / max(p.report.Sizes.Rows, 1)
	return int(max(200, min(sampleRows, sampleBytes/max(width, 1))))
}

func (p *planner) note(format string, args ...any) {
	p.report.Notices = append(p.report.Notices, fmt.Sprintf(format, args...))
}

// spots are the ranges that are tried, which do not overlap: all that there is of a small
// table, and of a larger one some that lie apart.
func (p *planner) spots(ctx context.Context, tx pgx.Tx, plan *shadow.Plan) (spots []keyset.Range, all bool, err error) {
	rows := p.sampled()
	if p.report.Sizes.Rows <= int64(2*rows) || plan.Forced {
		hi, err := p.nth(ctx, tx, plan, keyset.Range{}, 2*rows)
		return []keyset.Range{{Hi: hi}}, hi == nil, err
	}
	starts, err := p.starts(ctx, tx, plan)
	if err != nil {
		return nil, false, err
	}
	apart := false
	for _, lo := range starts {
		if len(spots) > 0 {
			// The table may have fewer rows than its statistics say.
			before := spots[len(spots)-1].Hi
			if between, err := p.nth(ctx, tx, plan, keyset.Range{Lo: before, Hi: lo}, 1); err != nil {
				return nil, false, err
			} else if between == nil {
				lo = before
			} else {
				apart = true
			}
		}
		hi, err := p.nth(ctx, tx, plan, keyset.Range{Lo: lo}, rows/sampleSpots)
		if err != nil {
			return nil, false, err
		}
		if spots = append(spots, keyset.Range{Lo: lo, Hi: hi}); hi == nil {
			break
		}
	}
	return spots, !apart && spots[len(spots)-1].Hi == nil, nil
}

// starts are where spots begin: at the first row, and at some that lie as many rows apart.
func (p *planner) starts(ctx context.Context, tx pgx.Tx, plan *shadow.Plan) ([]*keyset.Key, error) {
	percent := min(100, 100*4000/float64(p.report.Sizes.Rows))
	rows, err := plan.Confined().Query(ctx, tx, slices.Repeat([]string{"text"}, len(plan.Key)), fmt.Sprintf("SELECT %s FROM %s AS o TABLESAMPLE SYSTEM (%g) ORDER BY %s",
		plan.Key.List(shadow.RowAlias), plan.Source(), percent, plan.Key.Order(shadow.RowAlias)))
	if err != nil {
		return nil, fmt.Errorf("sampling %s: %w", plan.Original, err)
	}
	keys, err := pgx.CollectRows(rows, scanKey)
	if err != nil {
		return nil, fmt.Errorf("sampling %s: %w", plan.Original, err)
	}
	starts := []*keyset.Key{nil}
	for i := 1; i < sampleSpots && len(keys) > sampleSpots; i++ {
		starts = append(starts, &keys[len(keys)*i/sampleSpots])
	}
	return starts, nil
}

func scanKey(row pgx.CollectableRow) (keyset.Key, error) {
	values := make([]string, len(row.FieldDescriptions()))
	targets := make([]any, len(values))
	for i := range values {
		targets[i] = &values[i]
	}
	err := row.Scan(targets...)
	return keyset.NewKey(values...), err
}

// nth is the key of the n-th row of a range; nil when there are fewer.
func (p *planner) nth(ctx context.Context, tx pgx.Tx, plan *shadow.Plan, within keyset.Range, n int) (*keyset.Key, error) {
	sql, args := copier.CutSQL(plan.Source(), plan.Key, within, n)
	rows, err := plan.Confined().Query(ctx, tx, slices.Repeat([]string{"text"}, len(plan.Key)), sql, args...)
	if err != nil {
		return nil, fmt.Errorf("reading keys of %s: %w", plan.Original, err)
	}
	key, err := pgx.CollectOneRow(rows, scanKey)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil //nolint:nilnil // no such row is an answer
	}
	if err != nil {
		return nil, fmt.Errorf("reading keys of %s: %w", plan.Original, err)
	}
	return &key, nil
}

// failure is what the server says, without the values of the row.
func failure(err error) *PlanFailure {
	said := pg.Server(err)
	refused := &PlanFailure{SQLState: said.Code, Message: oneLine(said.Message)}
	if pg.IsUniqueConflict(err) {
		refused.Index = said.ConstraintName
	}
	return refused
}

// countLosses counts in what was tried the rows that a conversion back does not restore.
func (p *planner) countLosses(ctx context.Context, tx pgx.Tx, plan *shadow.Plan, spots []keyset.Range) error {
	p.report.Losses = nil
	for _, loss := range plan.Losses {
		counted := PlanLoss{Loss: loss}
		err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
			var lost int64
			for _, spot := range spots {
				err := p.parts(ctx, tx, plan, spot, func(part keyset.Range) (bool, error) {
					n, err := p.lostIn(ctx, tx, plan, loss, part)
					lost += n
					return true, err
				})
				if err != nil {
					return err
				}
			}
			counted.Rows = &lost
			return nil
		})
		if err != nil && (pg.Server(err) == nil || pg.Is(err, pg.QueryCanceled)) {
			return fmt.Errorf("counting what column %q loses: %w", loss.Column, err)
		}
		p.report.Losses = append(p.report.Losses, counted)
	}
	return nil
}

func (p *planner) lostIn(ctx context.Context, tx pgx.Tx, plan *shadow.Plan, loss shadow.Loss, part keyset.Range) (int64, error) {
	predicate, args := plan.Key.Predicate(plan.Key.Tuple(shadow.RowAlias), part, 1)
	rows, err := plan.Confined().Query(ctx, tx, []string{"int8"}, fmt.Sprintf(`SELECT count(*) FROM %s AS o WHERE %s AND (%s)::pg_catalog.text IS DISTINCT FROM (%s)::pg_catalog.text COLLATE pg_catalog."C"`,
		plan.Source(), predicate, loss.Back, pg.Ident(shadow.RowAlias, loss.Column)), args...)
	if err != nil {
		return 0, err
	}
	return pgx.CollectOneRow(rows, pgx.RowTo[int64])
}

// parts does work on one part of a range after the other, each small enough for the
// timeout of a statement, until it says that it has enough.
func (p *planner) parts(ctx context.Context, tx pgx.Tx, plan *shadow.Plan, within keyset.Range, work func(part keyset.Range) (more bool, err error)) error {
	for {
		hi, err := p.nth(ctx, tx, plan, within, sampleRows)
		if err != nil {
			return err
		}
		part := within
		if hi != nil {
			part.Hi = hi
		}
		if more, err := work(part); err != nil || !more || hi == nil {
			return err
		}
		within.Lo = hi
	}
}

// tryRecipe tries rows against what a recipe adds, where a shadow could have it. Foreign
// keys are tried by themselves: on the shadow they would lock the other table.
func (p *planner) tryRecipe(ctx context.Context) error {
	if p.target.judged.verdict == shadow.Instant {
		return nil
	}
	if _, err := shadow.ChooseKey(p.target.table); err != nil {
		p.note("rows are not tried: the table has no key by which one that does not fit could be named")
		return nil
	}
	whole := p.target.change
	defer func() { p.target.change = whole }()
	p.target.change = withoutReferences(whole)
	names := shadow.Names{RunID: newRunID(), Table: p.target.table.Name}
	err := p.refuseRights(p.tryOut(ctx, func(tx pgx.Tx) error {
		plan, err := p.build(ctx, tx, names)
		if err != nil {
			return err
		}
		if err := p.findReferences(ctx, tx, plan, whole); err != nil {
			return err
		}
		return p.tryRows(ctx, tx, plan)
	}))
	if refused := refusalsOf(err); refused != nil { // of a shadow, which it does not need
		p.note("rows are not tried: %s", refused[0].Reason)
		return nil
	}
	if err != nil {
		return err
	}
	return p.tryEvery(ctx)
}

// withoutReferences is the part of a change that an empty copy of the table is let try.
func withoutReferences(whole *shadow.Change) *shadow.Change {
	part := *whole
	part.Alters = nil
	for _, alter := range whole.InPlace {
		if alter.Trial != "" {
			part.Alters = append(part.Alters, alter.Trial)
		}
	}
	return &part
}
