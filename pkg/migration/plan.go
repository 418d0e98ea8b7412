package migration

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/cutover"
	"github.com/pgshadow/pgshadow/pkg/checkpoint"
	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/schema"
	"github.com/pgshadow/pgshadow/pkg/shadow"
)

// PlanReport is what a change would come to. Its JSON form is a contract
// (docs/operations.md).
type PlanReport struct {
	Table    string            `json:"table"`
	Alters   []string          `json:"alters"`
	Set      map[string]string `json:"set,omitempty"`
	Verdict  string            `json:"verdict"`            // a shadow.Verdict, or unknown
	Reason   string            `json:"reason,omitempty"`   // for which PostgreSQL refuses the change in place
	InPlace  string            `json:"in_place,omitempty"` // the lock that the change as it is written would take
	Method   PlanMethod        `json:"method"`
	ExitCode int               `json:"exit_code"`

	Statements []PlanStatement    `json:"statements"`
	Undo       []shadow.Statement `json:"undo,omitempty"` // takes back a native change that is half made
	Settings   map[string]string  `json:"settings"`       // of the sessions that make the change
	Sizes      PlanSizes          `json:"sizes"`
	Estimate   *PlanEstimate      `json:"estimate"` // null where no rows could be tried
	Rows       *PlanRows          `json:"rows,omitempty"`
	Refusals   []*shadow.Refusal  `json:"refusals"`
	Losses     []PlanLoss         `json:"losses,omitempty"`
	Notices    []string           `json:"notices,omitempty"` // what others will notice
	// NeedsPrimary lists what a standby cannot answer.
	NeedsPrimary []string `json:"needs_primary,omitempty"`

	Fingerprint string        `json:"fingerprint"` // of Facts
	Facts       *schema.Table `json:"facts"`       // of the table, for --expect-plan

	retired string // the schema in which the script leaves what was the original
}

// PlanMethod is shadow or native. It is empty, in JSON null, when the change is refused
// and where nothing can be tried.
type PlanMethod string

// MarshalJSON makes an empty method null.
func (m PlanMethod) MarshalJSON() ([]byte, error) {
	if m == "" {
		return []byte("null"), nil
	}
	return json.Marshal(string(m))
}

// PlanSizes are in bytes.
type PlanSizes struct {
	Rows       int64 `json:"rows"` // an estimate
	HeapBytes  int64 `json:"heap_bytes"`
	ToastBytes int64 `json:"toast_bytes"`
	IndexBytes int64 `json:"index_bytes"`
	TotalBytes int64 `json:"total_bytes"`
}

// verdictUnknown is what a standby says, where nothing can be tried.
const verdictUnknown = "unknown"

// PlanConfig says what to plan.
type PlanConfig struct {
	Config
	CheckData bool // try every row, not a sample
}

// planner makes one plan.
type planner struct {
	*Migration
	checkData bool
	oid       uint32 // of the table
	report    PlanReport
	wait      string // for a short lock on the table
	guessed   bool   // how many rows there are is no more than a guess
	keys      []*foreignKey
}

// Plan tells what a change would come to, and changes nothing: what is tried is rolled
// back. A change that would be refused is a report with its refusals, not an error.
func Plan(ctx context.Context, config PlanConfig) (report PlanReport, err error) {
	m, err := connectControl(ctx, config.DSN)
	if err != nil {
		return concludePlan(newPlanReport(config), err)
	}
	defer func() { err = errors.Join(err, pg.Close(ctx, m.control)) }()
	m.config = config.withDefaults()
	p := &planner{Migration: m, checkData: config.CheckData, report: newPlanReport(config)}
	return concludePlan(p.report, byUs(ctx, p.nameHolders(ctx, p.plan(ctx))))
}

// nameHolders says who has the lock that a plan did not get.
func (p *planner) nameHolders(ctx context.Context, err error) error {
	if !pg.IsLockFailure(err) {
		return err
	}
	oids := []uint32{p.oid}
	if p.target.table != nil {
		for _, key := range slices.Concat(p.target.table.Attached.References, p.target.table.Attached.ReferencedBy) {
			oids = append(oids, key.Table.OID)
		}
	}
	return fmt.Errorf("reading %s and the tables at the other ends of its foreign keys, for %s at most%s: %w", p.report.Table, pg.DefaultLockTimeout, cutover.Holders(ctx, p.control, oids), err)
}

// concludePlan makes refusals of an error that says no.
func concludePlan(report PlanReport, err error) (PlanReport, error) {
	if refused := refusalsOf(err); refused != nil {
		report.Refusals, err = append(report.Refusals, refused...), nil
	}
	switch {
	case err != nil:
		report.ExitCode = outcomeOf(err).ExitCode()
	case len(report.Refusals) > 0:
		report.Method, report.ExitCode = "", Refused.ExitCode()
	default:
		report.ExitCode = Done.ExitCode()
	}
	return report, err
}

// newPlanReport has in it what every plan has.
func newPlanReport(config PlanConfig) PlanReport {
	return PlanReport{Table: config.Table, Alters: config.Alters, Set: config.Set, Verdict: verdictUnknown, Statements: []PlanStatement{}, Refusals: []*shadow.Refusal{}}
}

// refusalsOf takes an error apart that says no; nil for any other.
func refusalsOf(err error) []*shadow.Refusal {
	var refusal *shadow.Refusal
	var refusals Refusals
	var syntax *shadow.SyntaxError
	switch {
	case errors.As(err, &refusals):
		return refusals
	case errors.As(err, &refusal):
		return []*shadow.Refusal{refusal}
	case errors.As(err, &syntax):
		return []*shadow.Refusal{{Check: "alter", Reason: syntax.Error(), Remedy: remedySyntax}}
	default:
		return nil
	}
}

func (p *planner) plan(ctx context.Context) error {
	if err := p.facts(ctx); err != nil {
		return err
	}
	var err error
	if p.target.change, err = p.config.Parse(ctx, p.target.table.Name, p.config.Alters, p.config.Set); err != nil {
		return err
	}
	if err := p.refuseOtherPlan(); err != nil {
		return err
	}
	if p.target.server.InRecovery {
		return p.planOnStandby(ctx)
	}
	p.wait = p.waitNow(ctx, p.config.Cutover.LockTimeout)
	if half, err := p.unfinished(ctx); half || err != nil {
		return cmp.Or(err, p.refuseUnexpected())
	}
	if err := p.verdict(ctx); err != nil {
		return err
	}
	return p.planMethod(ctx)
}

// planMethod plans by the method that the verdict leads to.
func (p *planner) planMethod(ctx context.Context) error {
	if p.config.Native == NativeNever {
		p.target.recipe = nil
	}
	if err := p.refuseUnexpected(); err != nil {
		return err
	}
	switch {
	case p.target.recipe != nil:
		return p.planNative(ctx)
	case p.config.Native == NativeOnly:
		return p.refuseShadow()
	default:
		return p.planShadow(ctx)
	}
}

// verdict has the change tried, where it can be.
func (p *planner) verdict(ctx context.Context) error {
	possible, err := p.mayBeTried(ctx)
	if err != nil || !possible {
		return err
	}
	if err := p.judgeMethod(ctx); err != nil {
		return err
	}
	judged := p.target.judged
	p.report.Verdict, p.report.InPlace = judged.verdict.String(), judged.lock
	if judged.reason != nil {
		p.report.Reason = refusalsOf(judged.reason)[0].Reason
	}
	return nil
}

func (p *planner) planNative(ctx context.Context) error {
	p.report.Method = checkpoint.MethodNative
	if err := p.nativeStatements(ctx); err != nil {
		return err
	}
	return p.tryRecipe(ctx)
}

// facts reads what there is, which a standby can tell too.
func (p *planner) facts(ctx context.Context) error {
	oid, err := p.resolve(ctx)
	if err != nil {
		return err
	}
	p.oid = oid
	if p.target.table, err = schema.Load(ctx, p.control, oid); err != nil {
		return err
	}
	p.report.Table, p.report.Facts, p.report.Fingerprint = p.target.table.String(), p.target.table, p.target.table.Fingerprint()
	if p.target.server, err = schema.LoadServer(ctx, p.control, oid); err != nil {
		return err
	}
	if err := p.settings(ctx); err != nil {
		return err
	}
	size, err := schema.LoadSize(ctx, p.control, oid)
	p.guessed = size.EstimatedRows == 0
	p.report.Sizes = PlanSizes{Rows: cmp.Or(size.EstimatedRows, size.GuessedRows), HeapBytes: size.TableBytes - size.ToastBytes, ToastBytes: size.ToastBytes, IndexBytes: size.IndexBytes, TotalBytes: size.TableBytes + size.IndexBytes}
	return err
}

// unfinished tells of the table's unfinished run. Of one that has made a part of the
// change without a copy it lists the rest: the table is no longer the one that was judged.
func (p *planner) unfinished(ctx context.Context) (half bool, err error) {
	exists, err := p.stateExists(ctx)
	if err != nil || !exists {
		return false, err
	}
	found, err := checkpoint.OpenRun(ctx, p.control, p.target.table.OID)
	if err != nil || found == nil || p.config.Restart {
		return false, err
	}
	open, err := readOpenRun(found)
	if err != nil {
		return false, err
	}
	if !p.sameChange(open.change) {
		return false, refuseUnfinished(found)
	}
	p.target.found = found
	p.report.Notices = append(p.report.Notices, fmt.Sprintf("run %s of this change is not finished, since %s: the same pgshadow alter resumes it", found.ID, found.CreatedAt.Format("2006-01-02 15:04:05 MST")))
	if !open.native() || p.config.Native == NativeNever {
		return false, nil
	}
	p.target.recipe, p.target.table = open.plan.Recipe, open.plan.Original
	p.report.Method, p.report.Verdict = checkpoint.MethodNative, open.plan.Recipe.Verdict.String()
	p.report.Facts, p.report.Fingerprint = p.target.table, p.target.table.Fingerprint()
	return true, p.nativeStatements(ctx)
}

// planOnStandby says what can be said without trying anything.
func (p *planner) planOnStandby(ctx context.Context) error {
	p.report.NeedsPrimary = []string{"the verdict, which is found by trial", "the method and its statements", "the time, WAL and disk space that it takes", "rows that do not fit the new schema"}
	all := slices.DeleteFunc(serverRefusals(p.target.server, p.target.table), func(r *shadow.Refusal) bool { return slices.Contains(onPrimaryOnly, r.Check) })
	all = append(kindRefusals(p.target.table), all...)
	changed, err := p.changedSince(ctx)
	if err != nil {
		return err
	}
	all = append(all, changed...)
	p.report.Notices = append(p.report.Notices, "this is a hot standby: free slots and WAL senders are the primary's own, and were not looked at; alter runs on the primary")
	if p.target.table.Storage.Kind == "r" && len(all) == 0 {
		obstacles, err := schema.LoadObstacles(ctx, p.control, p.target.table.OID)
		if err != nil {
			return err
		}
		for _, refusal := range obstacleRefusals(p.inTheWay(obstacles)) {
			p.report.Notices = append(p.report.Notices, "unless it is native, the change is refused: "+refusal.Reason)
		}
		if _, err := shadow.ChooseKey(p.target.table); err != nil {
			p.report.Notices = append(p.report.Notices, "unless it is native, the change is refused: "+err.Error())
		}
	}
	return refuseAll(all)
}

// changedSince is refuseUnexpected without the method, which a standby does not know.
func (p *planner) changedSince(ctx context.Context) ([]*shadow.Refusal, error) {
	if p.config.Expect == nil {
		return nil, nil
	}
	exists, err := p.stateExists(ctx)
	if err == nil && exists {
		p.target.found, err = checkpoint.OpenRun(ctx, p.control, p.target.table.OID)
	}
	if err != nil {
		return nil, err
	}
	expect := *p.config.Expect
	expect.Method, p.config.Expect = "", &expect
	return refusalsOf(p.refuseUnexpected()), nil
}

// onPrimaryOnly are the checks of serverRefusals whose answer is the primary's.
var onPrimaryOnly = []string{"standby", "wal_level", "max_replication_slots", "max_wal_senders"}

// planShadow drafts the run: everything that prepare makes is made, looked at, and
// rolled back.
func (p *planner) planShadow(ctx context.Context) error {
	p.report.Method = checkpoint.MethodShadow
	if err := p.makeThrottle(); err != nil {
		return err
	}
	measured := p.throttle.Probe(ctx)
	if err := p.refusals(ctx, measured); err != nil {
		return err
	}
	if refusal := p.target.change.NoShadow; refusal != nil {
		return refusal
	}
	if err := cmp.Or(p.refuseVolatile(ctx), p.refuseClosedSchemas(ctx), refuseThrottle(ctx, measured)); err != nil {
		return err
	}
	names := shadow.Names{RunID: newRunID(), Table: p.target.table.Name}
	err := p.tryOut(ctx, func(tx pgx.Tx) error { return p.draft(ctx, tx, names) })
	if err != nil {
		return p.refuseRights(err)
	}
	if err := p.tryEvery(ctx); err != nil {
		return err
	}
	if err := p.notices(ctx); err != nil {
		return err
	}
	return p.refuseLosses(p.run.plan.Losses)
}

// tryOut does work in a transaction that is rolled back.
func (p *planner) tryOut(ctx context.Context, work func(tx pgx.Tx) error) (err error) {
	conn, err := p.db.With(map[string]string{"statement_timeout": pg.Milliseconds(planTimeout)}).Connect(ctx, "plan")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pg.Close(ctx, conn)) }()
	var worked error
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		worked = work(tx)
		return errTried
	})
	if worked != nil || errors.Is(err, errTried) {
		return worked
	}
	return err
}

// notices say what others will notice of the run and of the new table.
func (p *planner) notices(ctx context.Context) error {
	subscribers, err := p.publicationNotes(ctx)
	if err != nil {
		return err
	}
	triggers, err := p.eventTriggerNotes(ctx)
	if err != nil {
		return err
	}
	p.report.Notices = append(append(p.report.Notices, subscribers...), triggers...)
	p.report.Notices = append(p.report.Notices, "the table gets another OID: sessions plan their prepared statements again; one that returns a column whose type has changed fails once with \"cached plan must not change result type\", unless its driver prepares it again",
		"statements that wait for the swap go on with the new table; those in a transaction with an older snapshot hold the swap back")
	if note, newer := versionNote(p.target.server.Version); newer {
		p.report.Notices = append(p.report.Notices, note)
	}
	return nil
}
