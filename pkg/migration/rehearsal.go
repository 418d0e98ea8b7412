package migration

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/copier"
	"github.com/pgshadow/pgshadow/cutover"
	"github.com/pgshadow/pgshadow/pkg/checkpoint"
	"github.com/pgshadow/pgshadow/pkg/keyset"
	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/schema"
	"github.com/pgshadow/pgshadow/pkg/shadow"
)

const (
	// rehearsed is the outcome in the row of a rehearsal that came to its end.
	rehearsed = "rehearsed"
	// namedRows is how many of the rows that the new schema refuses a rehearsal names,
	// and refusedRows how many it looks for.
	namedRows   = 20
	refusedRows = 1000
	// swapsRehearsed is how many times a rehearsal makes the swap and rolls it back: one
	// alone would tell little of the next.
	swapsRehearsed = 3
)

// Rehearsal says what a rehearsal is for.
type Rehearsal struct {
	ScaleTo Scale // the production table's size; default: none is reckoned with
}

// rehearsal is what one process has found out in a rehearsal. A nil one is that of
// a run that is none.
type rehearsal struct {
	scale    Scale
	begun    pg.LSN // end of the WAL when the run began to write; zero: it has not
	measured bool
	report   RehearsalReport

	mu       sync.Mutex
	refusals map[keyset.Key]bool
	first    *copier.DataError
}

func newRehearsal(config *Rehearsal) *rehearsal {
	if config == nil {
		return nil
	}
	return &rehearsal{scale: config.ScaleTo, refusals: map[keyset.Key]bool{}}
}

// ends tells whether a failed rehearsal is to remove what it has made. It would not
// be resumed: what it measures is a whole run.
func (r *rehearsal) ends(err error) bool {
	return r != nil && err != nil && !errors.Is(err, errNotRemoved)
}

// remedies says of a standby what else can be done for a rehearsal.
func (r *rehearsal) remedies(all []*shadow.Refusal) {
	for _, refusal := range all {
		if r != nil && refusal.Check == "standby" {
			refusal.Reason += ", a physical replica, and a rehearsal writes"
			refusal.Remedy = "promote the replica, if it is only for this: SELECT pg_promote(); or rehearse on a clone: a pg_basebackup or snapshot, " +
				"started without standby.signal or promoted"
		}
	}
}

// beginRehearsal notes where the WAL ends before the run writes any.
func (m *Migration) beginRehearsal(ctx context.Context) (err error) {
	if m.rehearsal == nil || m.rehearsal.begun > 0 {
		return nil
	}
	m.rehearsal.begun, err = m.walEnd(ctx)
	return err
}

func (m *Migration) walEnd(ctx context.Context) (pg.LSN, error) {
	var text string
	if err := m.control.QueryRow(ctx, "SELECT pg_catalog.pg_current_wal_insert_lsn()::pg_catalog.text").Scan(&text); err != nil {
		return 0, fmt.Errorf("asking for the end of the WAL: %w", err)
	}
	return pg.ParseLSN(text)
}

// meetRehearsal is for an open run that is a rehearsal, or is met by one. A
// rehearsal that was killed is of no more use: another removes what it has left.
func (m *Migration) meetRehearsal(ctx context.Context, open *checkpoint.Run, names shadow.Names, recorded recordedChange) error {
	since := open.CreatedAt.Format("2006-01-02 15:04:05 MST")
	switch {
	case !recorded.Rehearsal:
		return &shadow.Refusal{Check: "unfinished run", Reason: fmt.Sprintf("run %s of pgshadow alter is not finished, since %s: %s", open.ID, since, strings.Join(recorded.Alters, "; ")),
			Remedy: "end it with its own pgshadow alter, or remove it with pgshadow cleanup; on a clone its record is all that there is of it"}
	case m.rehearsal == nil:
		return &shadow.Refusal{Check: "unfinished run", Reason: fmt.Sprintf("run %s is a rehearsal, begun %s, that was not ended: %s", open.ID, since, strings.Join(recorded.Alters, "; ")),
			Remedy: "remove what it has left with pgshadow cleanup, or give --restart"}
	default:
		m.report.RunID = ""
		m.config.Observer.Observe(Noted{Note: fmt.Sprintf("rehearsal %s was not ended: what it has left is removed, and another begins", open.ID)})
		return m.remove(ctx, names, string(Aborted), "another rehearsal has begun")
	}
}

// undone records that the swap of a rehearsal is rolled back; nil: the run is none.
func (m *Migration) undone() func(ctx context.Context, tx pgx.Tx) error {
	if m.rehearsal == nil {
		return nil
	}
	return func(ctx context.Context, tx pgx.Tx) error {
		return m.run.store.NoteIn(ctx, tx, "the swap was rehearsed and rolled back")
	}
}

// swaps runs the cutover: once in a run that is no rehearsal, else several times, for
// the one whose hold is the median.
func (r *rehearsal) swaps(run func() (cutover.Report, error)) (report cutover.Report, err error) {
	if r == nil {
		return run()
	}
	var all []cutover.Report
	for range swapsRehearsed {
		if report, err = run(); err != nil {
			return report, err
		}
		all = append(all, report)
	}
	slices.SortFunc(all, func(a, b cutover.Report) int { return cmp.Compare(a.LockHoldMS, b.LockHoldMS) })
	r.report.LockHoldsMS = nil
	for _, one := range all {
		r.report.LockHoldsMS = append(r.report.LockHoldsMS, one.LockHoldMS)
	}
	return all[len(all)/2], nil
}

// endRehearsal is the last phase of a rehearsal: it looks how large the shadow has
// become, and removes everything that the run has made.
func (m *Migration) endRehearsal(ctx context.Context) error {
	if err := m.onControl(context.WithoutCancel(ctx), m.measureRehearsal); err != nil {
		return err
	}
	if m.run.plan.Recipe != nil { // it waits for others, so a signal ends it
		if _, err := m.undoNative(ctx, m.run.names); err != nil {
			return fmt.Errorf("%w: %w", errNotRemoved, err)
		}
	}
	ctx = context.WithoutCancel(ctx)
	err := m.onControl(ctx, func(ctx context.Context) error {
		return m.enter(ctx, CleanUp, func(ctx context.Context) error {
			return m.remove(ctx, m.run.names, rehearsed, "the swap was rehearsed and rolled back")
		})
	})
	if err != nil {
		return fmt.Errorf("%w: %w", errNotRemoved, err)
	}
	return nil
}

func (m *Migration) measureRehearsal(ctx context.Context) error {
	ctx, cancel := pg.Cleanup(ctx)
	defer cancel()
	r := m.rehearsal
	end, err := m.walEnd(ctx)
	if err != nil {
		return err
	}
	r.report.WALBytes = int64(end - r.begun)
	measure := m.measureShadow
	if m.run.plan.Recipe != nil {
		measure = m.measureNative
	}
	if err := measure(ctx); err != nil {
		return err
	}
	m.report.Warnings = append(m.report.Warnings, r.scale.unscalable(r.report)...)
	r.measured = true
	return nil
}

func (m *Migration) measureShadow(ctx context.Context) error {
	r := m.rehearsal
	oid, err := schema.Resolve(ctx, m.control, m.run.names.ShadowSchema(), m.run.names.Table)
	if err != nil {
		return fmt.Errorf("finding the shadow table: %w", err)
	}
	err = m.control.QueryRow(ctx, "SELECT pg_catalog.pg_total_relation_size($1::pg_catalog.oid), pg_catalog.pg_total_relation_size($2::pg_catalog.oid)", m.run.plan.Original.OID, oid).
		Scan(&r.report.OriginalBytes, &r.report.ShadowBytes)
	if err != nil {
		return fmt.Errorf("measuring the two tables: %w", err)
	}
	r.report.Rows, r.report.empty = m.report.RowsCopied, m.report.RowsCopied == 0
	for _, completion := range m.run.plan.Completions {
		r.report.AfterSwap = append(r.report.AfterSwap, completion.What)
	}
	return nil
}

// measureNative is for a change without a shadow.
func (m *Migration) measureNative(ctx context.Context) error {
	r := m.rehearsal
	size, err := schema.LoadSize(ctx, m.control, m.target.table.OID)
	if err != nil {
		return err
	}
	var added []string
	for _, step := range m.run.plan.Recipe.Steps {
		r.report.reads = r.report.reads || step.Reads
		if step.Index != "" {
			added = append(added, step.Index)
		}
	}
	err = m.control.QueryRow(ctx, `SELECT coalesce(pg_catalog.sum(pg_catalog.pg_relation_size(i.indexrelid)), 0)::pg_catalog.int8 FROM pg_catalog.pg_index i
		JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = $1 AND c.relname = ANY ($2)`, m.target.table.OID, added).Scan(&r.report.ShadowBytes)
	if err != nil {
		return fmt.Errorf("measuring what the change adds: %w", err)
	}
	r.report.Rows, r.report.OriginalBytes = cmp.Or(size.EstimatedRows, size.GuessedRows), size.TableBytes+size.IndexBytes-r.report.ShadowBytes
	r.report.fixedWAL, r.report.empty = len(added) == 0, size.TableBytes == size.ToastBytes
	r.report.LockHoldsMS = []float64{m.report.Cutover.LockHoldMS}
	return nil
}

// rehearsalState says what is left of a rehearsal that failed.
func (m *Migration) rehearsalState(held string) string {
	if len(m.kept) > 0 && !m.undoing {
		return m.removedState()
	}
	if m.removed {
		return fmt.Sprintf("everything that the rehearsal made has been removed, %s is untouched", m.report.Table)
	}
	if m.report.Method == checkpoint.MethodNative {
		return fmt.Sprintf("what rehearsal %s has made of the change is not taken back yet: pgshadow cleanup does that, and so does another pgshadow rehearse", m.report.RunID)
	}
	return fmt.Sprintf("%s is untouched; the shadow, the publication and the slot of rehearsal %s are kept, and %s: pgshadow cleanup removes them, and so does another pgshadow rehearse",
		m.report.Table, m.report.RunID, held)
}

// forget begins a copy from nothing.
func (r *rehearsal) forget() {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refusals, r.first = map[keyset.Key]bool{}, nil
	r.report.FailingRows = nil
}

// refused takes in a row that the new schema refuses, and tells whether the copy is
// to go on behind it.
func (r *rehearsal) refused(data *copier.DataError) (more bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.first == nil {
		r.first = data
	}
	if !r.refusals[data.Key] && len(r.refusals) < namedRows {
		r.report.FailingRows = append(r.report.FailingRows, failingRow(data.Key.String(), data))
	}
	r.refusals[data.Key] = true
	return len(r.refusals) < refusedRows
}

// judge makes the error of a copy that has gone on behind refused rows.
func (r *rehearsal) judge(err error) error {
	if r == nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var data *copier.DataError
	given := errors.As(err, &data)
	if len(r.refusals) == 0 || err != nil && !given {
		return err
	}
	r.report.FailingRowsComplete = !given
	if len(r.refusals) == 1 {
		return r.first
	}
	least := ""
	if given {
		least = "at least "
	}
	return fmt.Errorf("%s%d rows do not fit; the first that was found: %w", least, len(r.refusals), r.first)
}
