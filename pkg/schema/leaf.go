package schema

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pgshadow/pgshadow/pkg/pg"
)

// Leaf is what ties a table to the partitioned table that it is a partition of.
type Leaf struct {
	Bound     string     `json:"bound"`     // as ATTACH PARTITION spells it
	Ancestors []Ancestor `json:"ancestors"` // its parent first, the root last
	// Siblings are the bounds of the other partitions, wherever the leaf or an ancestor
	// is a default partition: they say what it takes.
	Siblings    []string         `json:"siblings"`
	Beside      *Beside          `json:"beside"` // the parent's default partition, unless it is the leaf
	Indexes     []InheritedIndex `json:"indexes"`
	Constraints []string         `json:"constraints"` // checks, and from PostgreSQL 18 on not-null constraints, that the parent has too
	Triggers    []ClonedTrigger  `json:"triggers"`    // that PostgreSQL has cloned from the parent
}

// Ancestor is a partitioned table. Key is what follows PARTITION BY; Bound is its own
// one, empty for a root.
type Ancestor struct {
	Table Relation `json:"table"`
	Key   string   `json:"key"`
	Bound string   `json:"bound"`
}

// Beside is a default partition beside a leaf. ATTACH PARTITION reads its rows, unless
// its valid checks and its not-null columns show that none belongs to the leaf.
type Beside struct {
	Table   Relation `json:"table"`
	Checks  []string `json:"checks"`
	NotNull []string `json:"not_null"`
}

// InheritedIndex is an index of the parent, and the leaf's that is its partition;
// Leaf is empty where there is none.
type InheritedIndex struct {
	Name string `json:"name"`
	Leaf string `json:"leaf"`
}

// ClonedTrigger is a trigger of the parent as the leaf has it. Enabled and
// ParentEnabled are letters of pg_trigger.tgenabled.
type ClonedTrigger struct {
	Name          string  `json:"name"`
	Enabled       string  `json:"enabled"`
	Parent        string  `json:"parent"` // the name of the parent's
	ParentEnabled string  `json:"parent_enabled"`
	Comment       *string `json:"comment"`
}

// Parent is the table that the leaf is a partition of.
func (l *Leaf) Parent() Relation { return l.Ancestors[0].Table }

// compared is a copy without what does not count.
func (l *Leaf) compared() *Leaf {
	if l == nil {
		return nil
	}
	facts := *l
	facts.Ancestors = slices.Clone(l.Ancestors)
	for i := range facts.Ancestors {
		facts.Ancestors[i].Table.OID, facts.Ancestors[i].Table.Kind = 0, ""
	}
	if l.Beside != nil {
		beside := *l.Beside
		beside.Table.OID, beside.Table.Kind = 0, ""
		facts.Beside = &beside
	}
	return &facts
}

// facts are the same for a table that is no partition, and empty.
func (l *Leaf) facts() []fact {
	if l == nil {
		l = &Leaf{}
	}
	chain := make([]string, len(l.Ancestors))
	for i, a := range l.Ancestors {
		chain[i] = fmt.Sprintf("%s of %s by %s %s", a.Table, role(a.Table.Owner), a.Key, a.Bound)
	}
	beside := ""
	if l.Beside != nil {
		beside = fmt.Sprintf("%s of %s with %s, not null (%s)", l.Beside.Table, role(l.Beside.Table.Owner), strings.Join(l.Beside.Checks, ", "), strings.Join(l.Beside.NotNull, ", "))
	}
	return []fact{
		{name: "parent", value: strings.TrimSpace(strings.Join(chain, ", "))},
		{name: "bound", value: l.Bound},
		{name: "bounds of the partitions beside it", value: strings.Join(l.Siblings, ", ")},
		{name: "default partition beside it", value: beside},
		{name: "inherited constraints", value: strings.Join(l.Constraints, ", ")},
	}
}

// inherited are the parts that a leaf has of its parent.
func (t *Table) inherited() (parts []part) {
	if t.Leaf == nil {
		return nil
	}
	for _, x := range t.Leaf.Indexes {
		parts = append(parts, newPart("index of the parent", pg.Readable(x.Name), "here "+either(x.Leaf == "", "none", pg.Readable(x.Leaf)), nil, x))
	}
	for _, x := range t.Leaf.Triggers {
		p := newPart("trigger of the parent", pg.Readable(x.Parent), "here "+pg.Readable(x.Name), x.Comment, x)
		p.facts = append(p.facts, fact{name: "state", value: in(states, x.Enabled)}, fact{name: "state at the parent", value: in(states, x.ParentEnabled)})
		parts = append(parts, p)
	}
	return parts
}
