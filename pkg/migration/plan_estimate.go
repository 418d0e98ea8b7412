package migration

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/checkpoint"
	"github.com/pgshadow/pgshadow/pkg/keyset"
	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/schema"
	"github.com/pgshadow/pgshadow/pkg/shadow"
	"github.com/pgshadow/pgshadow/pkg/verify"
)

// trialRows are the rows that are tried, and what they take.
type trialRows struct {
	*planner
	tx     pgx.Tx
	plan   *shadow.Plan
	builds []shadow.IndexBuild // of a native change the new ones alone
	checks []string            // for which it reads the rows
	sum    tried
}

// measured is what a shadow takes as it is filled.
type measured struct {
	copied, built, read time.Duration
	table, indexes      int64 // bytes
	wal                 int64 // of the copy
}

// take fills the shadow with the rows of some ranges, and estimates from them what the
// whole table takes. What an empty shadow takes does not grow with the rows.
func (s *trialRows) take(ctx context.Context, spots []keyset.Range) error {
	if err := s.scope(ctx); err != nil {
		return err
	}
	empty, err := s.measure(ctx, nil)
	if err != nil {
		return err
	}
	first, err := s.nth(ctx, s.tx, s.plan, keyset.Range{}, 1)
	if err != nil || first == nil {
		return err
	}
	nothing := keyset.Range{Lo: first, Hi: first}
	for range 2 { // the second one meets what the first has had to load
		_, idle, err := s.insert(ctx, s.tx, s.plan, nothing, nil, "")
		if err != nil {
			return err
		}
		empty.copied = idle.took * time.Duration(len(spots))
	}
	if empty.read, err = s.referencesTake(ctx, empty.read, slices.Repeat([]keyset.Range{nothing}, len(spots))); err != nil {
		return err
	}
	for _, spot := range spots {
		if err := s.fill(ctx, s.tx, s.plan, spot, &s.sum); err != nil {
			return err
		}
	}
	s.report.Rows.Tried = s.sum.rows
	full, err := s.measure(ctx, &s.report.Rows.Failures)
	if err != nil {
		return err
	}
	full.copied, full.wal = s.sum.took, s.sum.wal
	if full.read, err = s.referencesTake(ctx, full.read, spots); err != nil {
		return err
	}
	s.estimate(empty, full)
	return nil
}

// referencesTake tries foreign keys, and adds how long it takes.
func (s *trialRows) referencesTake(ctx context.Context, read time.Duration, spots []keyset.Range) (time.Duration, error) {
	took, err := s.tryReferences(ctx, s.tx, s.plan, spots)
	return read + took, err
}

// native tells that PostgreSQL itself is led through the change.
func (s *trialRows) native() bool { return s.report.Method == checkpoint.MethodNative }

// scope finds what of the shadow a run builds and reads.
func (s *trialRows) scope(ctx context.Context) error {
	s.builds = s.plan.Builds
	if !s.native() {
		return nil
	}
	original := s.plan.Original
	changed, err := s.loadShadow(ctx, s.tx, s.plan.Names)
	if err != nil {
		return err
	}
	s.builds = slices.DeleteFunc(slices.Clone(s.builds), func(b shadow.IndexBuild) bool {
		return slices.ContainsFunc(original.Indexes, func(i schema.Index) bool { return i.Name == b.Name })
	})
	for range s.builds {
		s.checks = append(s.checks, "CHECK (true)") // an index that is built beside writers reads the rows once more
	}
	s.checks = append(s.checks, newChecks(original, changed)...)
	return nil
}

// newChecks are what the rows are read for.
func newChecks(original, changed *schema.Table) (checks []string) {
	for _, c := range changed.Constraints {
		if c.Type == "c" && c.Valid && !slices.ContainsFunc(original.Constraints, func(was schema.Constraint) bool { return was.Name == c.Name && was.Valid }) {
			checks = append(checks, c.Definition)
		}
	}
	for _, column := range changed.Columns {
		if i := slices.IndexFunc(original.Columns, func(was schema.Column) bool { return was.Name == column.Name }); i >= 0 && column.NotNull && !original.Columns[i].NotNull {
			checks = append(checks, "CHECK ("+pg.Ident(column.Name)+" IS NOT NULL)")
		}
	}
	return checks
}

// measure builds the indexes, and reads the rows as a run does, and takes that back.
// failures, if any, takes in the indexes that cannot be built.
func (s *trialRows) measure(ctx context.Context, failures *[]PlanFailure) (m measured, err error) {
	err = undone(ctx, s.tx, func(tx pgx.Tx) error {
		if m.built, err = s.buildIndexes(ctx, tx, failures); err != nil {
			return err
		}
		if m.read, err = s.readRows(ctx, tx); err != nil {
			return err
		}
		if err := s.plan.Confined().Leave(ctx, tx); err != nil {
			return err
		}
		err = tx.QueryRow(ctx, `SELECT pg_catalog.pg_table_size(c.oid), (SELECT coalesce(pg_catalog.sum(pg_catalog.pg_relation_size(i.oid)), 0)::pg_catalog.int8 FROM pg_catalog.pg_class i WHERE i.relnamespace = n.oid AND i.relkind = 'i'
				AND ($3 OR i.relname = ANY ($4)))
			FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2`,
			s.plan.Names.ShadowSchema(), s.plan.Names.Table, !s.native(), names(s.builds)).Scan(&m.table, &m.indexes)
		if err != nil {
			return fmt.Errorf("reading the size of what was tried: %w", err)
		}
		return nil
	})
	return m, err
}

func names(builds []shadow.IndexBuild) []string {
	all := make([]string, len(builds))
	for i, build := range builds {
		all[i] = build.Name
	}
	return all
}

// failingBuilds is the most indexes that are tried one by one: each try writes in a
// subtransaction of its own (hazard H20).
const failingBuilds = 32

// buildIndexes builds the indexes at once, or where rows do not fit one of them, one by
// one, and tells how long that takes.
func (s *trialRows) buildIndexes(ctx context.Context, tx pgx.Tx, failures *[]PlanFailure) (time.Duration, error) {
	if len(s.builds) == 0 {
		return 0, nil
	}
	began := time.Now()
	build := func(builds ...shadow.IndexBuild) error {
		return pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
			for _, build := range builds {
				if err := execAll(ctx, tx, s.plan.Confined(), append(slices.Clone(build.Create), build.Attach...)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err := build(s.builds...)
	if !pg.IsData(err) || failures == nil {
		return time.Since(began), err
	}
	for _, one := range s.builds[:min(len(s.builds), failingBuilds)] {
		if err := build(one); pg.IsData(err) {
			refused := failure(err)
			refused.Index = one.Name
			*failures = append(*failures, *refused)
		} else if err != nil {
			return 0, err
		}
	}
	return time.Since(began), nil
}

// readRows reads the rows as verification does, or as the server does for new constraints.
func (s *trialRows) readRows(ctx context.Context, tx pgx.Tx) (time.Duration, error) {
	reads := []string{fmt.Sprintf("SELECT pg_catalog.bit_xor(pg_catalog.hashtextextended(ROW(s.*)::pg_catalog.text, 0)) FROM ONLY %s AS s", s.plan.Names.Shadow())}
	if s.native() {
		reads = nil
		for i, check := range s.checks {
			reads = append(reads, fmt.Sprintf("ALTER TABLE %s ADD CONSTRAINT %s_tried%d %s", s.plan.Names.Shadow(), shadow.Prefix, i+1, check))
		}
	}
	began := time.Now()
	for _, sql := range reads {
		if _, err := s.plan.Confined().Exec(ctx, tx, sql); err != nil {
			return 0, fmt.Errorf("reading what was tried (%s): %w", sql, err)
		}
	}
	return time.Since(began), nil
}

// estimate reckons with the whole table.
func (s *trialRows) estimate(empty, full measured) {
	rows := float64(max(s.report.Sizes.Rows, s.sum.rows))
	sample := float64(full.table - empty.table)
	switch {
	case s.report.Rows.All:
		rows = float64(s.sum.rows)
	case s.guessed && sample > 0: // by the size of those that were copied
		rows = float64(s.sum.rows) * max(float64(s.report.Sizes.HeapBytes+s.report.Sizes.ToastBytes)/sample, 1)
	}
	if s.guessed {
		s.report.Sizes.Rows = int64(rows)
	}
	scale := rows / float64(s.sum.rows)
	// Building an index sorts the rows.
	sorted := scale * math.Log2(max(rows, 2)) / math.Log2(max(float64(s.sum.rows), 2))
	builders := float64(max(1, min(s.config.Copy.IndexWorkers, len(s.builds))))
	estimate := &PlanEstimate{SampleRows: s.sum.rows, SampleMS: s.sum.took.Milliseconds()}
	indexes := grown(empty.indexes, full.indexes, scale)
	if s.native() {
		estimate.IndexMS = milli(grown(empty.built, full.built, sorted))
		estimate.VerifyMS = milli(grown(empty.read, full.read, scale))
		estimate.DiskBytes, estimate.WALBytes = indexes, indexes
	} else {
		// What more workers gain, cutting chunks and committing each of them takes again.
		estimate.CopyMS = milli(grown(empty.copied, full.copied, scale))
		estimate.IndexMS = milli(grown(empty.built, full.built, sorted/builders))
		if s.config.Verify != verify.Off {
			estimate.VerifyMS = milli(grown(empty.read, full.read, 2*scale)) // both tables
		}
		estimate.DiskBytes = grown(empty.table, full.table, scale) + indexes
		estimate.WALBytes = grown(0, full.wal, scale) + indexes
	}
	estimate.DurationMS = estimate.CopyMS + estimate.IndexMS + estimate.VerifyMS
	s.report.Estimate = estimate
}

// grown is what something takes for so many times the rows for which it took full, when it
// took empty for none.
func grown[T ~int64](empty, full T, times float64) T {
	return empty + T(float64(max(full-empty, 0))*times)
}

func milli(d time.Duration) int64 { return d.Milliseconds() }
