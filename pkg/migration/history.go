package migration

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/cutover"
	"github.com/pgshadow/pgshadow/pkg/checkpoint"
	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/shadow"
	"github.com/pgshadow/pgshadow/pkg/verify"
)

// RunRecord is what the database keeps of a run, an unfinished one too. What no
// process of the run has reported is null: it was killed, is still at work, or was
// an earlier pgshadow. Sums and phases are over the processes that have reported.
type RunRecord struct {
	RunID           string            `json:"run_id"`
	Table           string            `json:"table"` // as it was called then
	Method          string            `json:"method"`
	Alters          []string          `json:"alters"` // the texts of --alter
	Set             map[string]string `json:"set"`    // the expressions of --set
	Role            string            `json:"role"`   // that began it; empty when not known
	Host            string            `json:"host"`   // of the last process
	PID             int               `json:"pid"`
	StartedAt       time.Time         `json:"started_at"`
	EndedAt         *time.Time        `json:"ended_at"`
	Phase           string            `json:"phase"`       // the last one
	Outcome         string            `json:"outcome"`     // StillOpen while it can be resumed
	ExitCode        *int              `json:"exit_code"`   // of the last process
	Detail          string            `json:"detail"`      // why it is not done
	Fingerprint     string            `json:"fingerprint"` // of the table as it was planned for
	RowsCopied      *int64            `json:"rows_copied"`
	ChangesReceived *uint64           `json:"changes_received"`
	KeysReplayed    *uint64           `json:"keys_replayed"`
	Verify          *verify.Report    `json:"verify"`        // of the last process that got there
	Cutover         *cutover.Report   `json:"cutover"`       // likewise
	RetiredTable    string            `json:"retired_table"` // as the run has left it
	Warnings        []string          `json:"warnings"`
	DurationMS      *int64            `json:"duration_ms"`
	Phases          []PhaseDuration   `json:"phases"`
}

// StillOpen stands for the outcome of a run that has none yet.
const StillOpen = "open"

// recordedReport is the form of a run's report in its record.
type recordedReport struct {
	Report
	Earlier []Report `json:"earlier"` // of the run's earlier processes, the oldest first
}

// History lists the runs of the database, ended or not, the newest first; at most
// limit, unless that is zero. Of one table when it is given: the runs that were made
// to it, under whatever name, and those that were made to one of the name, which
// need not exist any more. It changes nothing.
func History(ctx context.Context, dsn, table string, limit int) (records []RunRecord, err error) {
	m, err := connectControl(ctx, dsn)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, pg.Close(ctx, m.control)) }()
	var which checkpoint.Which
	if table != "" {
		m.config.Table = table
		if which, err = m.which(ctx); err != nil {
			return nil, err
		}
	}
	exists, err := m.stateExists(ctx)
	if err != nil || !exists {
		return nil, err
	}
	runs, err := checkpoint.RunsOf(ctx, m.control, which, limit)
	if err != nil {
		return nil, err
	}
	for _, run := range runs {
		record, err := recordOf(run)
		if err != nil {
			return nil, fmt.Errorf("reading the record of run %s: %w", run.ID, err)
		}
		records = append(records, record)
	}
	return records, nil
}

// which finds the table, as it is or as it was called.
func (m *Migration) which(ctx context.Context) (checkpoint.Which, error) {
	oid, err := m.resolve(ctx)
	var refusal *shadow.Refusal
	switch {
	case errors.As(err, &refusal) && refusal.Check == "table":
		return m.whichWas(ctx, err)
	case err != nil:
		return checkpoint.Which{}, err
	}
	var schemaName, name string
	err = m.control.QueryRow(ctx, "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1", oid).
		Scan(&schemaName, &name)
	if errors.Is(err, pgx.ErrNoRows) {
		return m.whichWas(ctx, fmt.Errorf("looking up table %s: it was dropped just now", m.config.Table))
	}
	if err != nil {
		return checkpoint.Which{}, fmt.Errorf("looking up the name of table %s: %w", m.config.Table, err)
	}
	return checkpoint.Which{OID: oid, Table: pg.Readable(schemaName, name)}, nil
}

// whichWas takes the table for one that is gone; unresolved says why it was not
// found, and is returned when its name is none.
func (m *Migration) whichWas(ctx context.Context, unresolved error) (checkpoint.Which, error) {
	var parts []string
	err := m.control.QueryRow(ctx, "SELECT pg_catalog.parse_ident($1)", m.config.Table).Scan(&parts)
	switch {
	case pg.IsData(err) || len(parts) > 2:
		return checkpoint.Which{}, unresolved
	case err != nil:
		return checkpoint.Which{}, fmt.Errorf("reading the name of the table: %w", err)
	case len(parts) == 2:
		return checkpoint.Which{Table: pg.Readable(parts...)}, nil
	default:
		return checkpoint.Which{Name: parts[0]}, nil
	}
}

// recordOf makes one of what a run's processes have left.
func recordOf(run checkpoint.Run) (RunRecord, error) {
	change, err := readChange(&run)
	if err != nil {
		return RunRecord{}, err
	}
	r := RunRecord{RunID: run.ID, Table: run.Table, Method: run.Method, Alters: append([]string{}, change.Alters...), Set: change.Given, Role: run.Role,
		Host: run.Owner.Host, PID: run.Owner.PID, StartedAt: run.CreatedAt, EndedAt: run.EndedAt, Phase: run.Phase,
		Outcome: cmp.Or(run.Outcome, StillOpen), Detail: run.Detail, Fingerprint: run.Fingerprint,
		Warnings: []string{}, Phases: []PhaseDuration{}}
	if r.Set == nil {
		r.Set = map[string]string{} // an earlier pgshadow has kept only what it made of the texts
		for column, expression := range change.Set {
			r.Set[column] = expression.SQL
		}
	}
	var last *recordedReport
	if err := json.Unmarshal(run.Report, &last); err != nil {
		return RunRecord{}, fmt.Errorf("reading its report: %w", err)
	}
	if last != nil {
		r.add(append(last.Earlier, last.Report))
	}
	return r, nil
}

// add takes over the reports of a run's processes, the oldest first. At least one.
func (r *RunRecord) add(reports []Report) {
	var changes, keys uint64
	var copied, duration int64
	for _, report := range reports {
		changes += report.ChangesReceived
		keys += report.KeysReplayed
		duration += report.DurationMS
		if report.RowsCopied > 0 {
			copied = report.RowsCopied // those of the processes before it too
		}
		if report.Verify.Mode != "" {
			r.Verify = &report.Verify
		}
		if report.Cutover.Attempts > 0 {
			r.Cutover = &report.Cutover
		}
		r.Warnings = append(r.Warnings, report.Warnings...)
		r.Phases = append(r.Phases, report.Phases...)
	}
	last := reports[len(reports)-1]
	r.ExitCode, r.RowsCopied, r.ChangesReceived, r.KeysReplayed, r.DurationMS = &last.ExitCode, &copied, &changes, &keys, &duration
	r.RetiredTable = last.RetiredTable
	if last.Error != nil {
		r.Detail = cmp.Or(r.Detail, last.Error.Message)
	}
}

// keepReport leaves the report in the run's record, for the history: on the control
// session, or on another one when that is lost. It changes no outcome; when it does
// not work within pg.CleanupTimeout that is noted.
func (m *Migration) keepReport(ctx context.Context, report Report) {
	if m.run.store == nil && !m.recovery.owner {
		return // there is no run, or it was never this process's
	}
	ctx, cancel := pg.Cleanup(ctx)
	defer cancel()
	var err error
	if m.control != nil {
		err = m.keepOn(ctx, m.control, report)
	}
	if m.control == nil || pg.IsConnection(err) {
		err = m.keepElsewhere(ctx, report)
	}
	if err != nil {
		m.config.Observer.Observe(Noted{Note: fmt.Sprintf("the run's report is not in its record, and so not in pgshadow history: %v", err)})
	}
}

// keepElsewhere keeps the report on a session of its own.
func (m *Migration) keepElsewhere(ctx context.Context, report Report) (err error) {
	conn, err := m.db.Connect(ctx, "report")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pg.Close(ctx, conn)) }()
	return m.keepOn(ctx, conn, report)
}

// keepOn keeps the report, unless another process has taken the run up.
func (m *Migration) keepOn(ctx context.Context, conn *pgx.Conn, report Report) error {
	run, err := checkpoint.FindRun(ctx, conn, report.RunID)
	if err != nil || run == nil || run.Owner != m.owner() {
		return err
	}
	return checkpoint.NewStore(run.ID).SetReport(ctx, conn, report)
}
