package migration

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/copier"
	"github.com/pgshadow/pgshadow/cutover"
	"github.com/pgshadow/pgshadow/pkg/keyset"
	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/shadow"
	"github.com/pgshadow/pgshadow/pkg/verify"
	"github.com/pgshadow/pgshadow/replication"
	"github.com/pgshadow/pgshadow/replication/replay"
)

// PlanStatement is one statement of a run.
type PlanStatement struct {
	Phase         string            `json:"phase"`
	SQL           string            `json:"sql"`
	Role          string            `json:"role,omitempty"` // that it runs in; empty: the login role
	Settings      map[string]string `json:"settings,omitempty"`
	Lock          string            `json:"lock"`            // mode and table
	LockTimeoutMS int64             `json:"lock_timeout_ms"` // 0: it waits for no lock that others queue behind
	ExpectedWait  string            `json:"expected_wait,omitempty"`
	Why           string            `json:"why"`
	// Alone is for a statement that no transaction can hold.
	Alone bool `json:"alone,omitempty"`
	// Begins tells that a transaction begins with it.
	Begins bool `json:"begins,omitempty"`
	// Online is for a statement that is needed only while the table is written.
	Online bool `json:"online,omitempty"`
}

// add lists the statements of one transaction, and returns them.
func (p *planner) add(phase Phase, timeout time.Duration, wait string, statements ...shadow.Statement) []PlanStatement {
	first := len(p.report.Statements)
	for i, s := range statements {
		p.report.Statements = append(p.report.Statements, PlanStatement{Phase: phase.String(), SQL: s.SQL, Role: s.Role, Settings: s.Settings, Lock: s.Lock,
			LockTimeoutMS: timeout.Milliseconds(), ExpectedWait: wait, Why: s.Why, Begins: i == 0})
	}
	return p.report.Statements[first:]
}

// more goes on in the same transaction.
func (p *planner) more(phase Phase, timeout time.Duration, wait string, statements ...shadow.Statement) []PlanStatement {
	added := p.add(phase, timeout, wait, statements...)
	if len(added) > 0 {
		added[0].Begins = false
	}
	return added
}

// online marks statements that only a run needs.
func online(added []PlanStatement) {
	for i := range added {
		added[i].Online = true
	}
}

func (p *planner) alone(phase Phase, wait string, s shadow.Statement) {
	p.add(phase, 0, wait, s)
	p.report.Statements[len(p.report.Statements)-1].Alone = true
}

// waitNow says for how long a lock of the table is waited for, and who holds one now.
func (p *planner) waitNow(ctx context.Context, timeout time.Duration) string {
	return p.waitFor(ctx, timeout, "the table", p.target.table.OID)
}

func (p *planner) waitFor(ctx context.Context, timeout time.Duration, what string, oid uint32) string {
	held := cutover.Holders(ctx, p.control, []uint32{oid})
	if held == "" {
		held = "; nobody has a lock on it now"
	}
	return fmt.Sprintf("for transactions that use %s, at most %s in each of %d attempts%s", what, timeout, p.config.Cutover.Attempts, held)
}

// nativeStatements lists the recipe.
func (p *planner) nativeStatements(ctx context.Context) error {
	recipe := p.target.recipe
	for _, step := range recipe.Steps[recipe.Done:] {
		if step.Index != "" {
			p.alone(Native, forOthers, step.Statements[0])
			continue
		}
		wait := p.wait
		if step.Reads {
			wait = "for schema changes and VACUUM of the table; readers and writers go on"
		}
		lock := shadow.Statement{SQL: lockSQL(p.target.table, step.Lock), Role: p.target.table.Owner, Lock: step.Lock + " on " + p.target.table.Quoted(), Why: "it is asked for before anything is done"}
		p.add(Native, p.config.Cutover.LockTimeout, wait, append([]shadow.Statement{lock}, step.Statements...)...)
	}
	p.report.Undo = recipe.Undo(p.target.table)
	if recipe.Verdict == shadow.Instant {
		p.report.Notices = append(p.report.Notices, "readers and writers wait while the catalog is changed, for some milliseconds")
	}
	if p.target.change.Reshapes {
		p.report.Notices = append(p.report.Notices, "prepared statements are planned again; one that returns all columns of the table (SELECT *, RETURNING *), or one whose type has changed, "+
			"fails once with \"cached plan must not change result type\", unless its driver prepares it again")
	}
	notes, err := p.publicationNotes(ctx)
	p.report.Notices = append(p.report.Notices, notes...)
	return err
}

// draft builds the shadow, lists the statements of the whole run, and tries rows.
func (p *planner) draft(ctx context.Context, tx pgx.Tx, names shadow.Names) error {
	table := p.target.table
	made, err := p.made(ctx, tx, names)
	if err != nil {
		return err
	}
	plan, err := p.build(ctx, tx, names)
	if err != nil {
		return err
	}
	p.report.retired = names.RetiredSchema()
	for _, text := range p.target.change.Alters {
		made = append(made, shadow.Statement{SQL: "ALTER TABLE " + names.Shadow() + " " + text, Role: plan.Owner, Lock: "ACCESS EXCLUSIVE on " + names.Shadow(), Why: "the change, on the empty shadow"})
	}
	made = append(append(made, plan.Strip...), shadow.Seal(table, names)...)
	for i, listed := range p.add(Prepare, pg.DefaultLockTimeout, own, made...) {
		if strings.HasSuffix(listed.Lock, " on "+table.Quoted()) {
			p.report.Statements[i].ExpectedWait = "for schema changes of the table"
		}
	}
	p.listRun(ctx, plan)
	return p.tryRows(ctx, tx, plan)
}

// made lists what builds the shadow up to the user's ALTERs.
func (p *planner) made(ctx context.Context, tx pgx.Tx, names shadow.Names) ([]shadow.Statement, error) {
	table := p.target.table
	all := shadow.Confine(table, names, p.target.server.Role)
	if p.forced() {
		all = append(all, shadow.ConfineSource(table, names)...)
	}
	return all, undone(ctx, tx, func(tx pgx.Tx) error {
		created, err := p.create(ctx, tx, names, p.confined(names))
		all = append(all, created...)
		return err
	})
}

// listRun lists what comes after prepare has built the shadow.
func (p *planner) listRun(ctx context.Context, plan *shadow.Plan) {
	original, names, worker := plan.Original.Quoted(), plan.Names, 5*time.Second
	online(p.more(Prepare, pg.DefaultLockTimeout, "none: no reader or writer is in its way", shadow.Statement{Why: "what the stream carries", Lock: "SHARE UPDATE EXCLUSIVE on " + original,
		SQL: fmt.Sprintf("CREATE PUBLICATION %s FOR TABLE ONLY %s", pg.Ident(names.Publication()), original)}))
	p.alone(Prepare, "for every transaction of the server that writes now to end; nobody queues behind it", shadow.Statement{Why: "the stream begins, and WAL is held back from here on", Lock: "none",
		SQL: fmt.Sprintf("SELECT pg_catalog.pg_create_logical_replication_slot(%s, 'pgoutput')", pg.Literal(names.Slot()))})
	sql, _ := copier.CopySQL(plan, keyset.Range{})
	p.add(Copy, worker, beside, shadow.Statement{SQL: sql, Role: plan.Owner, Lock: "ACCESS SHARE on " + original + ", ROW EXCLUSIVE on " + names.Shadow(),
		Why: "the rows; in chunks of one key range each"})
	online(p.add(Copy, worker, beside, p.replays(plan, "from now on until the swap, as often as rows are written: $1 and on are their keys")...))
	for _, build := range plan.Builds {
		p.add(Index, worker, own, append(slices.Clone(build.Create), build.Attach...)...)
	}
	p.add(Index, worker, own, plan.Marks...)
	p.alone(Index, own, shadow.Statement{SQL: "VACUUM (ANALYZE) " + names.Shadow(), Role: plan.Owner, Lock: "SHARE UPDATE EXCLUSIVE on " + names.Shadow(), Why: "the new table does not start slow"})
	fence := shadow.Statement{SQL: replication.FenceSQL, Lock: "none", Why: "in a session of its own: when it comes out of the stream, every change before it has"}
	online(p.add(CatchUp, 0, "for the stream to bring it back", fence))
	if p.config.Verify != verify.Off {
		const why = "count and digest of both tables, in one snapshot; chunk by chunk"
		ofOriginal, ofShadow := verify.SQL(plan)
		online(p.add(Verify, worker, beside, shadow.Statement{SQL: ofOriginal, Role: plan.Owner, Lock: "ACCESS SHARE on " + original, Why: why},
			shadow.Statement{SQL: ofShadow, Role: plan.Owner, Lock: "ACCESS SHARE on " + names.Shadow(), Why: why}))
	}
	p.listSwap(ctx, plan, fence)
}

const (
	// own is the wait for a lock on what nobody else knows of.
	own = "none: nobody else uses it yet"
	// forOthers is that of what is built or dropped concurrently.
	forOthers = "for transactions that use the table to end; nobody queues behind it"
	// beside is that of statements that are in nobody's way.
	beside = "none: readers and writers go on"
	// under is that of statements under the cutover's lock.
	under = "none: it is locked by the statements before"
)

// replays are what replay consists of.
func (p *planner) replays(plan *shadow.Plan, why string) []shadow.Statement {
	gone, upsert := replay.SQL(plan)
	lock := "ACCESS SHARE on " + plan.Original.Quoted() + ", ROW EXCLUSIVE on " + plan.Names.Shadow()
	return []shadow.Statement{{SQL: gone, Role: plan.Owner, Lock: lock, Why: "replay of what is no longer there; " + why},
		{SQL: upsert, Role: plan.Owner, Lock: lock, Why: "replay of what is; " + why}}
}

// listSwap lists the cutover, and what comes after it.
func (p *planner) listSwap(ctx context.Context, plan *shadow.Plan, fence shadow.Statement) {
	names, worker, timeout := plan.Names, 5*time.Second, p.config.Cutover.LockTimeout
	for i, lock := range plan.Locks {
		wait := p.wait
		if lock.OID != 0 && lock.OID != plan.Original.OID {
			wait = p.waitFor(ctx, timeout, "it", lock.OID)
		}
		p.add(Cutover, timeout, wait, lock.Statement)[0].Begins = i == 0
	}
	online(p.more(Cutover, 0, "for the stream to bring it back, within --max-lock-hold", fence))
	online(p.more(Cutover, timeout, under, p.replays(plan, "what is left, under the lock")...))
	swap := p.more(Cutover, timeout, under, plan.Swap...)
	for i := range swap {
		if strings.HasPrefix(swap[i].SQL, "ALTER SEQUENCE") && strings.HasSuffix(swap[i].SQL, "OWNED BY NONE") {
			swap[i].ExpectedWait = "for transactions that have called nextval() of it"
		}
	}
	for _, completion := range plan.Completions {
		p.add(CleanUp, worker, "for schema changes of the table", completion.Statement)
	}
	p.alone(CleanUp, "none", shadow.Statement{Why: "WAL is no longer held back", Lock: "none", SQL: "SELECT pg_catalog.pg_drop_replication_slot(" + pg.Literal(names.Slot()) + ")"})
	const why = "only the run needed it"
	online(p.add(CleanUp, pg.DefaultLockTimeout, own, shadow.Statement{SQL: "DROP PUBLICATION " + pg.Ident(names.Publication()), Lock: "none", Why: why}))
	drop := func(role, sql string) {
		p.add(CleanUp, pg.DefaultLockTimeout, own, shadow.Statement{SQL: sql, Role: role, Lock: "none", Why: why})
	}
	drop(plan.Owner, "DROP SCHEMA "+pg.Ident(names.ShadowSchema()))
	if plan.Forced {
		drop("", "DROP SCHEMA "+pg.Ident(names.SourceSchema())+" CASCADE")
	}
	drop("", "DROP SCHEMA "+pg.Ident(names.CodeSchema())+" CASCADE")
}
