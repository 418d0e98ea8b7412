package migration

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/checkpoint"
	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/schema"
	"github.com/pgshadow/pgshadow/pkg/shadow"
)

// chooseMethod decides whether PostgreSQL itself is led through the change. A run that
// is open keeps to its method.
func (m *Migration) chooseMethod(ctx context.Context) error {
	m.target.recipe, m.target.resumes = nil, false
	if settled, err := m.meetOpenRun(ctx); settled || err != nil {
		return err
	}
	if m.config.Native == NativeNever {
		return nil
	}
	possible, err := m.mayBeTried(ctx)
	if err != nil {
		return err
	}
	if possible {
		if err := m.judgeMethod(ctx); err != nil {
			return err
		}
	}
	if m.config.Native == NativeOnly && m.target.recipe == nil {
		return m.refuseShadow()
	}
	return nil
}

// openRun is the table's unfinished run.
type openRun struct {
	*checkpoint.Run
	plan   *shadow.Plan // nil: it was not made yet
	change recordedChange
}

func (r openRun) native() bool { return r.plan != nil && r.plan.Recipe != nil }

func (r openRun) method() string {
	if r.native() {
		return checkpoint.MethodNative
	}
	return ""
}

// undoing tells that it is no more to be gone on with.
func (r openRun) undoing() bool { return r.native() && r.plan.Recipe.Undoing }

func (r openRun) names() shadow.Names { return shadow.Names{RunID: r.ID, Table: r.TableName} }

func readOpenRun(run *checkpoint.Run) (open openRun, err error) {
	open.Run = run
	if open.plan, err = planOf(run); err != nil {
		return open, err
	}
	open.change, err = readChange(run)
	return open, err
}

// meetOpenRun tells whether the table's open run decides. What is native and of no more
// use is taken back here, since the table is judged without it.
func (m *Migration) meetOpenRun(ctx context.Context) (settled bool, err error) {
	if m.target.found == nil {
		return false, nil
	}
	if m.target.found.EndedAt != nil {
		return m.meetDoneRun(ctx)
	}
	open, err := readOpenRun(m.target.found)
	if err != nil {
		return false, err
	}
	m.report.Method = open.method() // for what is said when it is not got rid of
	switch {
	case m.recovery.again && !open.undoing():
	case m.config.Restart:
		return false, m.takeBackForRestart(ctx, open)
	case open.change.Rehearsal || m.rehearsal != nil:
		return false, m.takeOver(ctx, m.meetRehearsal(ctx, open.Run, open.names(), open.change))
	case !m.sameChange(open.change):
		return false, refuseUnfinished(open.Run)
	}
	if why := m.noMoreUse(open); why != "" {
		return false, m.takeOver(ctx, m.remove(ctx, open.names(), string(Aborted), why))
	}
	return true, m.keepTo(open)
}

// noMoreUse tells why a run of this change is not gone on with; empty: it is.
func (m *Migration) noMoreUse(open openRun) string {
	switch {
	case open.undoing():
		return "taken back"
	case open.native() && m.config.Native == NativeNever && !m.recovery.again:
		return "begun anew, with a shadow"
	default:
		return ""
	}
}

// meetDoneRun tells whether all that is left to do of the change is to clean up after an
// earlier process. The table has its new form, in which there is nothing to judge.
func (m *Migration) meetDoneRun(ctx context.Context) (settled bool, err error) {
	done, err := readOpenRun(m.target.found)
	if err != nil || !done.native() || !m.sameChange(done.change) {
		return false, err
	}
	if settled, err = m.leftOf(ctx, done.ID); settled {
		m.target.recipe, m.target.resumes = done.plan.Recipe, true
	}
	return settled, err
}

// takeBackForRestart leaves a copy to whatever follows.
func (m *Migration) takeBackForRestart(ctx context.Context, open openRun) error {
	if !open.native() {
		return nil
	}
	return m.takeOver(ctx, m.remove(ctx, open.names(), string(Aborted), "restarted"))
}

// keepTo has an open run go on by its method.
func (m *Migration) keepTo(open openRun) error {
	if open.native() {
		m.target.recipe, m.target.resumes = open.plan.Recipe, true
		return nil
	}
	if m.config.Native == NativeOnly {
		return &shadow.Refusal{Check: "native", Reason: fmt.Sprintf("run %s of this change is not finished, and copies the table", open.ID), Remedy: "leave --native at auto to resume it, or give --restart as well"}
	}
	return nil
}

// takeOver reads the table again, after an earlier run was removed.
func (m *Migration) takeOver(ctx context.Context, removed error) (err error) {
	if removed != nil {
		return removed
	}
	m.target.found, m.report.RunID, m.report.Method = nil, "", ""
	m.target.table, err = schema.Load(ctx, m.control, m.target.table.OID)
	return err
}

// mayBeTried tells whether PostgreSQL can be let try a change of this table, by this
// role.
func (m *Migration) mayBeTried(ctx context.Context) (bool, error) {
	table, server := m.target.table, m.target.server
	if len(nativeRefusals(server, table)) > 0 {
		return false, nil
	}
	obstacles, err := schema.LoadObstacles(ctx, m.control, table.OID)
	return !slices.ContainsFunc(obstacles, func(o schema.Obstacle) bool { return o.Check == "inheritance" || o.Check == "extension member" }), err
}

// judgeMethod has the change tried, and finds the recipe for what it costs.
func (m *Migration) judgeMethod(ctx context.Context) error {
	var err error
	if m.target.judged, err = m.judge(ctx); err != nil {
		return err
	}
	m.target.recipe, err = m.recipe(ctx)
	return err
}

// recipe is how PostgreSQL is led through the change; nil when it would read or write
// rows under a lock that keeps others out, or does not make the change at all.
func (m *Migration) recipe(ctx context.Context) (*shadow.Recipe, error) {
	if len(m.target.change.Set) > 0 || m.target.judged.creates && !m.target.server.Rights.OwnerCreateOnSchema {
		return nil, nil //nolint:nilnil // values for rows that there are need a copy; what the owner may not create, a copy has moved in
	}
	if m.forced() && slices.ContainsFunc(m.target.change.References, func(r shadow.Reference) bool { return !r.Late }) {
		return nil, nil //nolint:nilnil // the owner, in whose role rows are looked for, does not see them
	}
	names := shadow.Names{RunID: newRunID(), Table: m.target.table.Name}
	var recipe *shadow.Recipe
	var err error
	switch m.target.judged.verdict {
	case shadow.Instant:
		recipe = shadow.AtOnce(names, m.target.table, m.target.change)
	case shadow.IndexRebuild, shadow.Scan:
		taken, err := m.takenNames(ctx)
		if err != nil {
			return nil, err
		}
		if recipe, err = shadow.NewRecipe(names, m.target.table, m.target.change, taken); err != nil || recipe == nil {
			return nil, err
		}
	case shadow.Rewrite, shadow.Refused:
		return nil, nil //nolint:nilnil // no recipe is an answer
	}
	recipe.Verdict = m.target.judged.verdict
	recipe.Others, err = m.lockedToo(ctx)
	return recipe, err
}

// lockedToo finds the other tables that the change locks: those to which it adds foreign
// keys, and, where it drops columns or constraints, those at the other ends of the keys
// that there are.
func (m *Migration) lockedToo(ctx context.Context) (all []shadow.Locked, err error) {
	for _, reference := range m.target.change.References {
		oid, err := m.find(ctx, reference.Quoted())
		if err != nil {
			return nil, err
		}
		all = append(all, shadow.Locked{OID: oid, Name: reference.Quoted()})
	}
	for _, alter := range m.target.change.InPlace {
		if !alter.Drops {
			continue
		}
		attached := m.target.table.Attached
		for _, key := range slices.Concat(attached.References, attached.ReferencedBy) {
			all = append(all, shadow.Locked{OID: key.Table.OID, Name: pg.Ident(key.Table.Schema, key.Table.Name)})
		}
	}
	all = slices.DeleteFunc(all, func(other shadow.Locked) bool { return other.OID == m.target.table.OID })
	slices.SortFunc(all, func(a, b shadow.Locked) int { return cmp.Compare(a.OID, b.OID) })
	return slices.CompactFunc(all, func(a, b shadow.Locked) bool { return a.OID == b.OID }), nil
}

// find resolves a quoted name as the --alter means it.
func (m *Migration) find(ctx context.Context, name string) (uint32, error) {
	var oid *uint32
	err := pg.InTx(ctx, m.control, pgx.TxOptions{}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_catalog.set_config('search_path', $1, true)", m.sessionPath()); err != nil {
			return fmt.Errorf("setting the search_path: %w", err)
		}
		if err := tx.QueryRow(ctx, "SELECT pg_catalog.to_regclass($1)::pg_catalog.oid", name).Scan(&oid); err != nil {
			return fmt.Errorf("looking for table %s: %w", name, err)
		}
		return nil
	})
	if err == nil && oid == nil {
		err = &shadow.Refusal{Check: "alter", Reason: fmt.Sprintf("there is no table %s to reference", name), Remedy: "write [schema.]table"}
	}
	if err != nil {
		return 0, err
	}
	return *oid, nil
}

func (m *Migration) takenNames(ctx context.Context) (taken shadow.Taken, err error) {
	err = m.control.QueryRow(ctx, `SELECT ARRAY(SELECT relname::pg_catalog.text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE nspname = $1),
		ARRAY(SELECT conname::pg_catalog.text FROM pg_catalog.pg_constraint c JOIN pg_catalog.pg_namespace n ON n.oid = c.connamespace WHERE nspname = $1)`, m.target.table.Schema).Scan(&taken.Relations, &taken.Constraints)
	if err != nil {
		return taken, fmt.Errorf("listing the names in schema %q: %w", m.target.table.Schema, err)
	}
	return taken, nil
}

// refuseShadow is for --native only.
func (m *Migration) refuseShadow() error {
	reason := "PostgreSQL does not make it without a shadow"
	if m.target.judged.lock != "" {
		reason = fmt.Sprintf("made in place it is: %s, under %s", m.target.judged.verdict, m.target.judged.lock)
	}
	if m.target.judged.reason != nil {
		reason = m.target.judged.reason.Error()
	}
	return &shadow.Refusal{Check: "native", Reason: "the change is not native: " + reason, Remedy: "leave --native at auto, which makes it with a shadow; pgshadow plan says how"}
}
