package shadow

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/schema"
)

// Membership is what the shadow of a leaf partition needs, to take the leaf's place
// under its parent.
type Membership struct {
	// Role detaches and attaches: it has the rights of the owners of both the leaf and
	// its parent.
	Role string
	// Constraint is the leaf's partition constraint, which every row satisfies. Empty:
	// it takes every row, as a default partition without siblings does.
	Constraint string
}

// BoundCheck is the constraint that the shadow of a leaf carries for the length of
// the run, so that ATTACH PARTITION need not read its rows.
func (n Names) BoundCheck() string { return Prefix + "_bound" }

// bind puts the partition constraint on the shadow.
func (m Membership) bind(b *builder, names Names) {
	if m.Constraint != "" {
		b.add("the bound of the partition, so that it is attached without reading rows", "ALTER TABLE %s ADD CONSTRAINT %s CHECK (%s)", b.table, pg.Ident(names.BoundCheck()), m.Constraint)
	}
}

// leave takes a leaf off its parent.
func (p *Plan) leave(b *builder, in Inputs) {
	leaf := p.Original.Leaf
	if leaf == nil {
		return
	}
	b.add("a table with checks outstanding cannot change its parent", "SET CONSTRAINTS ALL IMMEDIATE")
	b.takes(noLock)
	c := &builder{owner: in.Membership.Role, table: leaf.Parent().Quoted()}
	c.add("the original is no partition any more", "ALTER TABLE %s DETACH PARTITION %s", c.table, p.Original.Quoted())
	b.statements = append(b.statements, c.statements...)
}

// join puts the table that has taken the leaf's place under its parent, which clones
// its triggers.
func (p *Plan) join(b *builder, in Inputs) {
	leaf, table := p.Original.Leaf, p.Original.Quoted()
	if leaf == nil {
		return
	}
	c := &builder{owner: in.Membership.Role, table: leaf.Parent().Quoted()}
	c.add("the new table is the partition", "ALTER TABLE %s ATTACH PARTITION %s %s", c.table, table, leaf.Bound)
	c = &builder{owner: p.Owner, table: table, statements: c.statements}
	if in.Membership.Constraint != "" {
		c.add("the partition has its bound", "ALTER TABLE %s DROP CONSTRAINT %s", table, pg.Ident(p.Names.BoundCheck()))
	}
	for _, trigger := range leaf.Triggers {
		c.clonedTrigger(trigger)
	}
	b.statements = append(b.statements, c.statements...)
}

// clonedTrigger gives a trigger that ATTACH PARTITION has cloned what only the leaf's
// own had.
func (b *builder) clonedTrigger(trigger schema.ClonedTrigger) {
	if trigger.Enabled != trigger.ParentEnabled {
		words, given := enabledWords[trigger.Enabled]
		if !given {
			words = "ENABLE"
		}
		b.add("when the trigger fires", "ALTER TABLE %s %s TRIGGER %s", b.table, words, pg.Ident(trigger.Name))
	}
	if trigger.Comment != nil {
		b.add("trigger comment", "COMMENT ON TRIGGER %s ON %s IS %s", pg.Ident(trigger.Name), b.table, pg.Literal(*trigger.Comment))
	}
}

// lockTree lists what of a leaf's tree the swap locks before the leaf, from the root
// down, as statements of the application do, and after it. DETACH PARTITION keeps
// everybody off the parent and its default partition; to know the leaf's bound,
// PostgreSQL looks at what is above.
func (p *Plan) lockTree(add func(kind LockKind, table schema.Relation, mode string)) (after func()) {
	leaf := p.Original.Leaf
	if leaf == nil {
		return func() {}
	}
	for i, ancestor := range slices.Backward(leaf.Ancestors) {
		mode := "ACCESS SHARE"
		if i == 0 {
			mode = "ACCESS EXCLUSIVE"
		}
		add(LockTree, ancestor.Table, mode)
	}
	return func() {
		if leaf.Beside != nil {
			add(LockTree, leaf.Beside.Table, "ACCESS EXCLUSIVE")
		}
	}
}

// LeafTrial tries out, on empty stand-ins for a leaf's ancestors and the default
// partition beside it, what PostgreSQL says of the shadow as a partition. All of it
// lives in a transaction that is rolled back.
type LeafTrial struct {
	leaf   *schema.Leaf
	names  Names
	role   string
	parent *schema.Table
	beside *schema.Table // nil: there is none
}

// NewLeafTrial prepares a trial. parent and beside are the facts of the leaf's parent
// and of the default partition beside it, nil where there is none.
func NewLeafTrial(original *schema.Table, names Names, role string, parent, beside *schema.Table) *LeafTrial {
	return &LeafTrial{leaf: original.Leaf, names: names, role: role, parent: parent, beside: beside}
}

// standIn is the i-th ancestor's; the default partition's comes before them.
func (t *LeafTrial) standIn(i int, of schema.Relation) schema.Relation {
	of.Schema = t.names.ShadowSchema() + "_tree" + strconv.Itoa(i+1)
	return of
}

// Beside is the stand-in for the default partition.
func (t *LeafTrial) Beside() schema.Relation { return t.standIn(-1, t.leaf.Beside.Table) }

// Open lists the statements that make the stand-ins, and attach the shadow to its
// parent's.
func (t *LeafTrial) Open() []Statement {
	b := &builder{}
	tables := len(t.leaf.Ancestors)
	for i := range tables + 1 {
		trial := pg.Ident(t.standIn(i-1, schema.Relation{}).Schema)
		b.statements = append(b.statements, Statement{SQL: "CREATE SCHEMA " + trial, Why: "a schema to try in, rolled back"},
			Statement{SQL: "GRANT ALL ON SCHEMA " + trial + " TO PUBLIC", Why: "the tree is tried as the role that attaches"})
	}
	for i, ancestor := range t.leaf.Ancestors {
		b.owner, b.table = t.role, t.standIn(i, ancestor.Table).Quoted()
		indexes := ""
		if i == 0 {
			indexes = " INCLUDING INDEXES"
		}
		b.add("a stand-in for a partitioned table", "CREATE TABLE %s (LIKE %s INCLUDING GENERATED INCLUDING CONSTRAINTS INCLUDING IDENTITY%s) PARTITION BY %s", b.table, ancestor.Table.Quoted(), indexes, ancestor.Key)
	}
	b.table = t.standIn(0, t.leaf.Parent()).Quoted()
	b.lateConstraints(t.parent)
	if t.beside != nil {
		b.table = t.Beside().Quoted()
		b.add("a stand-in for the default partition", "CREATE TABLE %s (LIKE %s INCLUDING GENERATED INCLUDING CONSTRAINTS)", b.table, t.leaf.Beside.Table.Quoted())
		b.lateConstraints(t.beside)
		b.add("a stand-in for the default partition", "ALTER TABLE %s ATTACH PARTITION %s DEFAULT", t.standIn(0, t.leaf.Parent()).Quoted(), b.table)
	}
	t.cloneTriggers(b)
	return append(b.statements, t.Attach())
}

// cloneTriggers makes the parent's triggers on its stand-in.
func (t *LeafTrial) cloneTriggers(b *builder) {
	parent := t.leaf.Parent()
	standIn := t.standIn(0, parent)
	there := renaming{relation{parent.Schema, parent.Name}: relation{standIn.Schema, standIn.Name}}
	b.table = standIn.Quoted()
	for _, trigger := range t.parent.Attached.Triggers {
		b.add("a trigger that is cloned", "%s", there.trigger(trigger).Definition)
	}
}

// Raise lists the statements that put the stand-ins together, up to the root's.
func (t *LeafTrial) Raise() []Statement {
	b := &builder{owner: t.role}
	for i, ancestor := range t.leaf.Ancestors[:len(t.leaf.Ancestors)-1] {
		b.table = t.standIn(i+1, t.leaf.Ancestors[i+1].Table).Quoted()
		b.add("the stand-ins make a tree", "ALTER TABLE %s ATTACH PARTITION %s %s", b.table, t.standIn(i, ancestor.Table).Quoted(), ancestor.Bound)
	}
	return b.statements
}

// Attach attaches the shadow to its parent's stand-in.
func (t *LeafTrial) Attach() Statement { return t.change("ATTACH", " "+t.leaf.Bound) }

// Detach takes it off again.
func (t *LeafTrial) Detach() Statement { return t.change("DETACH", "") }

func (t *LeafTrial) change(verb, bound string) Statement {
	b := &builder{owner: t.role, table: t.standIn(0, t.leaf.Parent()).Quoted()}
	b.add("the shadow is tried as a partition", "ALTER TABLE %s %s PARTITION %s%s", b.table, verb, t.names.Shadow(), bound)
	return b.statements[0]
}

// Bind puts the partition constraint of the stand-ins' tree on the shadow. It reads
// the shadow.
func (t *LeafTrial) Bind(original *schema.Table, constraint string) []Statement {
	b := &builder{owner: original.Owner, table: t.names.Shadow()}
	Membership{Constraint: constraint}.bind(b, t.names)
	return b.statements
}

// RefuseBeside refuses a default partition whose rows ATTACH PARTITION would read.
// bound is the leaf's partition constraint within its parent.
func (t *LeafTrial) RefuseBeside(bound string) *Refusal {
	table := t.leaf.Beside.Table
	return &Refusal{Check: "default partition", Reason: fmt.Sprintf("PostgreSQL would read every row of %s, the default partition beside it, under the lock, to see that none belongs to the leaf", table),
		Remedy: fmt.Sprintf("ALTER TABLE %[1]s ADD CONSTRAINT %[2]s CHECK (NOT %[3]s) NOT VALID, and then ALTER TABLE %[1]s VALIDATE CONSTRAINT %[2]s; drop it after the change", table.Quoted(), pg.Ident("not_"+t.names.Table), bound)}
}
