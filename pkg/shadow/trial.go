package shadow

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/schema"
)

// Trial tries out, on the empty shadow, everything that is attached to the
// original, so that PostgreSQL itself says what the change breaks, and how a
// definition reads when columns have been renamed. Its own schemas stand in for
// those of views, of the tables at the other ends of foreign keys, and of tables whose
// policies and rules speak of the original; they live within the transaction that
// builds the shadow.
type Trial struct {
	original *schema.Table
	names    Names
	schemas  []string // the real ones; the i-th has the trial schema i
	keys     renaming // for foreign keys
	others   renaming // for everything else
	attached schema.Attached
}

// NewTrial prepares a trial; nothing is run yet.
func NewTrial(original *schema.Table, names Names) *Trial {
	t := &Trial{original: original, names: names}
	itself := relation{original.Schema, original.Name}
	standIn := relation{names.ShadowSchema(), names.Table}
	t.keys, t.others = renaming{itself: standIn}, renaming{itself: standIn}
	for _, other := range t.ends() {
		t.keys[relation{other.Schema, other.Name}] = relation{t.schema(other.Schema), other.Name}
	}
	for _, view := range original.Attached.Views {
		t.others[relation{view.Schema, view.Name}] = relation{t.schema(view.Schema), view.Name}
	}
	for _, sequence := range original.Sequences {
		if sequence.Identity {
			t.others[relation{sequence.Schema, sequence.Name}] = relation{names.ShadowSchema(), sequence.Name}
		}
	}
	keys := t.keys.attached(original.Attached)
	t.attached = t.others.attached(original.Attached)
	t.attached.References, t.attached.ReferencedBy = keys.References, keys.ReferencedBy
	t.attached.Others = mapped(t.attached.Others, t.standIn)
	for i, publication := range original.Attached.Publications {
		if publication.Filter != nil {
			t.attached.Policies = append(t.attached.Policies, schema.Policy{Name: filterName(i), Permissive: true, Command: "r", Roles: []string{""}, Using: t.others.optional(publication.Filter)})
		}
	}
	return t
}

// filterName is the policy as which the row filter of the i-th publication is tried.
func filterName(i int) string { return fmt.Sprintf("%s row filter %d", Prefix, i+1) }

// schema is the trial schema that stands in for a real one.
func (t *Trial) schema(name string) string {
	i := slices.Index(t.schemas, name)
	if i < 0 {
		i = len(t.schemas)
		t.schemas = append(t.schemas, name)
	}
	return fmt.Sprintf("%s_trial%d", t.names.ShadowSchema(), i+1)
}

func (t *Trial) ends() []schema.Relation {
	return ends(t.original.OID, append(slices.Clone(t.original.Attached.References), t.original.Attached.ReferencedBy...))
}

// Real is a text of the server's with the names of the real objects in it.
func (t *Trial) Real(text string) string {
	for i, name := range slices.Backward(t.schemas) {
		text = strings.ReplaceAll(text, fmt.Sprintf("%s_trial%d", t.names.ShadowSchema(), i+1), name)
	}
	return strings.ReplaceAll(text, t.names.ShadowSchema(), t.original.Schema)
}

// Open lists the statements that set the scene, with the foreign keys, which stay
// while the user's ALTERs run.
func (t *Trial) Open() []Statement {
	var statements []Statement
	for _, name := range t.schemas {
		trial := pg.Ident(t.schema(name))
		statements = append(statements, Statement{SQL: "CREATE SCHEMA " + trial, Why: "a schema to try in, dropped in the same transaction"},
			Statement{SQL: "GRANT ALL ON SCHEMA " + trial + " TO PUBLIC", Why: "what is attached is tried as its owners"})
	}
	for _, end := range t.ends() {
		clone := t.keys.relation(end)
		b := &builder{owner: end.Owner, table: clone.Quoted()}
		b.add("a stand-in for the other end of a foreign key", "CREATE TABLE %s (LIKE %s INCLUDING INDEXES)", b.table, end.Quoted())
		b.add("a stand-in for the other end of a foreign key", "GRANT REFERENCES ON %s TO PUBLIC", b.table)
		statements = append(statements, b.statements...)
	}
	for _, key := range t.attached.References {
		b := &builder{owner: t.original.Owner, table: t.names.Shadow()}
		b.foreignKey(key, key.Definition)
		statements = append(statements, b.statements...)
	}
	for _, key := range t.attached.ReferencedBy {
		b := &builder{owner: key.Table.Owner, table: key.Table.Quoted()}
		b.foreignKey(key, key.Definition)
		statements = append(statements, b.statements...)
	}
	return statements
}

// Close lists the statements that leave nothing of the trial. now are the facts
// of the shadow with the foreign keys still on it.
func (t *Trial) Close(now *schema.Table) []Statement {
	b := &builder{owner: t.original.Owner, table: t.names.Shadow()}
	for _, key := range now.Attached.References {
		if key.Table.OID == now.OID {
			b.add("the end of the trial", "ALTER TABLE %s DROP CONSTRAINT %s", b.table, pg.Ident(key.Name))
		}
	}
	for _, name := range t.schemas {
		b.statements = append(b.statements, Statement{SQL: "DROP SCHEMA " + pg.Ident(t.schema(name)) + " CASCADE", Why: "the end of the trial"})
	}
	return b.statements
}

// Riders lists what is tried: it would keep a column from changing its type, so
// it is made for each try, and rolled back.
func (t *Trial) Riders() []Rider {
	return append(riders(t.names.Shadow(), t.original.Owner, t.attached), t.otherRiders()...)
}

// Needed tells whether anything is attached at all.
func (t *Trial) Needed() bool {
	a := t.attached
	return len(a.References)+len(a.ReferencedBy)+len(a.Triggers)+len(a.Rules)+len(a.Policies)+len(a.Views)+len(a.Others) > 0
}

// LearnKeys takes the foreign keys from the facts of the shadow with all of the
// user's ALTERs made.
func (t *Trial) LearnKeys(now *schema.Table) {
	t.attached.References, t.attached.ReferencedBy = now.Attached.References, now.Attached.ReferencedBy
}

// Learn takes the definitions of the riders from the facts of the shadow with all
// of them on it. It returns a *Refusal for one that does not follow the shadow.
func (t *Trial) Learn(now *schema.Table) error {
	var lost []string
	for i, trigger := range t.attached.Triggers {
		t.attached.Triggers[i] = learn(now.Attached.Triggers, trigger, func(t schema.Trigger) string { return t.Name }, "trigger", &lost)
	}
	for i, rule := range t.attached.Rules {
		t.attached.Rules[i] = learn(now.Attached.Rules, rule, func(r schema.Rule) string { return r.Name }, "rule", &lost)
	}
	for i, policy := range t.attached.Policies {
		t.attached.Policies[i] = learn(now.Attached.Policies, policy, func(p schema.Policy) string { return p.Name }, "policy", &lost)
	}
	for i, view := range t.attached.Views {
		learned := learn(now.Attached.Views, view, schema.View.String, "view", &lost)
		if view.Stored != nil {
			learned.Stored.Populated = view.Stored.Populated
		}
		learned.Granted, learned.Grants, learned.DefaultGrantees = view.Granted, view.Grants, view.DefaultGrantees
		learned.Schemas = view.Schemas
		t.attached.Views[i] = learned
	}
	for i, other := range t.attached.Others {
		t.attached.Others[i] = learnOther(now.Attached.Others, other, &lost)
	}
	if len(lost) > 0 {
		return &Refusal{Check: "attached", Reason: fmt.Sprintf("the definition of %s cannot be made to speak of another table", lost[0]),
			Remedy: "drop it before the change and create it again after"}
	}
	return nil
}

// learn finds the same object among the facts.
func learn[T any](facts []T, object T, name func(T) string, kind string, lost *[]string) T {
	i := slices.IndexFunc(facts, func(f T) bool { return name(f) == name(object) })
	if i < 0 {
		*lost = append(*lost, kind+" "+name(object))
		return object
	}
	return facts[i]
}

// Attached is what is to be attached to the new table when it is in the place of
// the original: publications have the columns of the original still.
func (t *Trial) Attached() schema.Attached {
	back := t.keys.inverse()
	for from, to := range t.others.inverse() {
		back[from] = to
	}
	a := back.attached(t.attached)
	a.Publications = slices.Clone(t.original.Attached.Publications)
	a.Policies = slices.DeleteFunc(a.Policies, func(p schema.Policy) bool {
		for i := range a.Publications {
			if p.Name == filterName(i) {
				a.Publications[i].Filter = p.Using
				return true
			}
		}
		return false
	})
	for i, other := range a.Others {
		a.Others[i] = moved(other, t.original.Attached.Others[i].Table)
	}
	for i, key := range a.ReferencedBy {
		a.ReferencedBy[i].Table = t.real(key.Table)
	}
	for i, key := range a.References {
		a.References[i].Table = t.real(key.Table)
	}
	return a
}

// real is the table by that name, with its own OID and kind.
func (t *Trial) real(named schema.Relation) schema.Relation {
	for _, end := range t.ends() {
		if end.Schema == named.Schema && end.Name == named.Name {
			return end
		}
	}
	return named
}
