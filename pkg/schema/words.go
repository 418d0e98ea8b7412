package schema

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pgshadow/pgshadow/pkg/pg"
)

// The letters of the catalogs (PostgreSQL manual chapter 53), in words.
var (
	kinds          = map[string]string{"r": "table", "p": "partitioned table", "v": "view"}
	persistences   = map[string]string{"p": "logged", "u": "unlogged", "t": "temporary"}
	identities     = map[string]string{"d": "default", "f": "full", "i": "index", "n": "nothing"}
	generations    = map[string]string{"a": "always", "d": "by default", "s": "STORED", "v": "VIRTUAL"}
	storages       = map[string]string{"p": "PLAIN", "e": "EXTERNAL", "m": "MAIN", "x": "EXTENDED"}
	policyCommands = map[string]string{"*": "ALL", "r": "SELECT", "a": "INSERT", "w": "UPDATE", "d": "DELETE"}
	states         = map[string]string{"O": "enabled", "D": "disabled", "R": "enabled for replicas", "A": "enabled always"}
	compressions   = map[string]string{"": "default", "p": "pglz", "l": "lz4"}
)

// in is the word for a letter, or the letter.
func in(words map[string]string, letter string) string {
	if word, ok := words[letter]; ok {
		return word
	}
	return letter
}

func (t *Table) facts() []fact {
	return append([]fact{
		{name: "owner", value: role(t.Owner)},
		comment(t.Comment),
		labels(t.Labels),
		{name: "kind", value: in(kinds, t.Storage.Kind)},
		{name: "persistence", value: in(persistences, t.Storage.Persistence)},
		{name: "access method", value: t.Storage.AccessMethod},
		tablespace(t.Storage.Tablespace),
		{name: "options", value: strings.Join(t.Storage.Options, ", ")},
		{name: "TOAST options", value: strings.Join(t.Storage.ToastOptions, ", ")},
		{name: "replica identity", value: in(identities, t.Storage.ReplicaIdentity)},
		{name: "row security", value: either(t.Attached.RowSecurity, "enabled", "disabled")},
		{name: "row security for the owner", value: either(t.Attached.Forced, "forced", "not forced")},
	}, t.Leaf.facts()...)
}

func (t *Table) columns() []part {
	parts := make([]part, len(t.Columns))
	for i, c := range t.Columns {
		parts[i] = part{kind: "column", name: pg.Readable(c.Name), identity: strconv.Itoa(c.Attnum), sketch: c.Type, grants: c.Grants, facts: []fact{
			{name: "type", value: c.Type},
			{name: "collation", value: either(c.Collation == "", "the default", c.Collation)},
			{name: "nullability", value: either(c.NotNull, "NOT NULL", "NULL")},
			{name: "default", value: optional(c.Default)},
			{name: "generation expression", value: strings.TrimSpace(optional(c.Expression) + " " + in(generations, c.Generated))},
			{name: "identity", value: in(generations, c.Identity)},
			{name: "storage", value: in(storages, c.Details.Storage)},
			{name: "compression", value: in(compressions, c.Details.Compression)},
			statistics(c.Details.Statistics),
			{name: "options", value: strings.Join(c.Details.Options, ", ")},
			comment(c.Details.Comment),
			labels(c.Details.Labels),
		}}
		c.Name = ""
		parts[i].rest = encode(c)
	}
	return parts
}

func (t *Table) indexes() []part {
	parts := make([]part, len(t.Indexes))
	for i, x := range t.Indexes {
		definition := x.Definition
		switch {
		case x.Primary:
			definition = "PRIMARY KEY " + definition
		case x.Unique:
			definition = "UNIQUE " + definition
		}
		definition += either(x.Immediate, "", " DEFERRABLE")
		parts[i] = part{kind: "index", name: pg.Readable(x.Name), identity: x.Name, sketch: definition, facts: []fact{
			{name: "definition", value: definition},
			tablespace(x.Details.Tablespace),
			{name: "statistics targets", value: x.Details.targets()},
			{name: "cluster mark", value: either(x.Marks.Clustered, "set", "")},
			{name: "replica identity mark", value: either(x.Marks.ReplicaIdentity, "set", "")},
			comment(x.Details.Comment),
		}}
		x.Name = ""
		parts[i].rest = encode(x)
	}
	return parts
}

func (t *Table) constraints() []part {
	parts := make([]part, len(t.Constraints))
	for i, c := range t.Constraints {
		parts[i] = part{kind: "constraint", name: pg.Readable(c.Name), identity: c.Name, sketch: c.Definition,
			facts: []fact{{name: "definition", value: c.Definition}, comment(c.Comment)}}
		c.Name = ""
		parts[i].rest = encode(c)
	}
	return parts
}

func (t *Table) statistics() []part {
	parts := make([]part, len(t.Statistics))
	for i, s := range t.Statistics {
		name := pg.Readable(s.Schema, s.Name)
		parts[i] = part{kind: "statistics object", name: name, identity: name, sketch: s.Definition,
			facts: []fact{{name: "definition", value: s.Definition}, statistics(s.Target), comment(s.Comment)}}
		s.Schema, s.Name = "", ""
		parts[i].rest = encode(s)
	}
	return parts
}

func (t *Table) sequences() []part {
	parts := make([]part, len(t.Sequences))
	for i, s := range t.Sequences {
		name := pg.Readable(s.Schema, s.Name)
		column, _ := t.Column(s.Attnum)
		number := func(name string, n int64) fact { return fact{name: name, value: strconv.FormatInt(n, 10)} }
		parts[i] = part{kind: "sequence", name: name, identity: name, sketch: "of column " + pg.Readable(column.Name), grants: s.Grants, facts: []fact{
			{name: "use", value: either(s.Identity, "identity", "default")},
			{name: "type", value: s.Type},
			number("start", s.Start), number("increment", s.Increment), number("maximum", s.Max), number("minimum", s.Min), number("cache", s.Cache),
			{name: "cycle option", value: either(s.Cycle, "CYCLE", "NO CYCLE")},
			comment(s.Comment),
			labels(s.Labels),
		}}
		s.Schema, s.Name = "", ""
		parts[i].rest = encode(s)
	}
	return parts
}

// attached are the parts that come to a new table at the swap.
func (t *Table) attached() (parts []part) {
	a := t.Attached
	for _, x := range a.Triggers {
		parts = append(parts, rider("trigger", x))
	}
	for _, x := range a.Rules {
		parts = append(parts, rider("rule", Trigger(x)))
	}
	for _, x := range a.Policies {
		parts = append(parts, policy(x))
	}
	for _, x := range a.Others {
		parts = append(parts, x.parts()...)
	}
	for _, x := range append(slices.Clone(a.References), a.ReferencedBy...) {
		parts = append(parts, newPart("foreign key", fmt.Sprintf("%s (%s)", pg.Readable(x.Name), x.Table), x.Definition, x.Comment, x))
	}
	for _, x := range a.Views {
		view := newPart("view", x.String(), strings.Join(strings.Fields(x.Definition), " "), x.Comment, x)
		view.grants = x.Grants
		view.facts = append(view.facts, fact{name: "owner", value: role(x.Owner)}, fact{name: "options", value: strings.Join(x.Options, ", ")}, labels(x.Labels))
		parts = append(parts, view)
	}
	for _, x := range a.Publications {
		definition := fmt.Sprintf("columns (%s) where (%s)", either(x.Columns == nil, "all", strings.Join(x.Columns, ", ")), optional(x.Filter))
		parts = append(parts, newPart("publication", pg.Readable(x.Name), definition, nil, x))
	}
	return parts
}

func newPart(kind, name, definition string, text *string, all any) part {
	return part{kind: kind, name: name, identity: kind + " " + name, sketch: definition, facts: []fact{{name: "definition", value: definition}, comment(text)}, rest: encode(all)}
}

func policy(x Policy) part {
	definition := fmt.Sprintf("%s for %s to %s USING (%s) WITH CHECK (%s)", either(x.Permissive, "permissive", "restrictive"), in(policyCommands, x.Command),
		strings.Join(roles(x.Roles), ", "), optional(x.Using), optional(x.Check))
	return newPart("policy", pg.Readable(x.Name), definition, x.Comment, x)
}

// parts are those of another table, which is named with each.
func (o Other) parts() (parts []part) {
	on := func(p part, x any) {
		p.name += " on " + o.Table.String()
		p.identity = p.String()
		p.rest = encode([]any{o.Table, o.Schemas, x})
		parts = append(parts, p)
	}
	for _, x := range o.Rules {
		on(rider("rule", Trigger(x)), x)
	}
	for _, x := range o.Policies {
		on(policy(x), x)
	}
	return parts
}

func rider(kind string, x Trigger) part {
	p := newPart(kind, pg.Readable(x.Name), x.Definition, x.Comment, x)
	p.facts = append(p.facts, fact{name: "state", value: in(states, x.Enabled)})
	return p
}

func roles(names []string) []string {
	words := make([]string, len(names))
	for i, name := range names {
		words[i] = role(name)
	}
	return words
}

func comment(text *string) fact { return fact{name: "comment", value: optional(text), quiet: true} }

// labels are in the order of their providers, each with its text.
func labels(all []Label) fact {
	words := make([]string, len(all))
	for i, l := range all {
		words[i] = fmt.Sprintf("%s: %q%s", pg.Readable(l.Provider), l.Text, either(l.RowType, " (row type)", ""))
	}
	return fact{name: "security labels", value: strings.Join(words, ", ")}
}

func tablespace(name string) fact {
	if name != "" {
		name = pg.Readable(name)
	}
	return fact{name: "tablespace", value: either(name == "", "the default", name)}
}

func statistics(target int) fact {
	return fact{name: "statistics target", value: either(target < 0, "the default", strconv.Itoa(target))}
}

// targets lists the statistics targets of an index's columns.
func (d IndexDetails) targets() string {
	var all []string
	for column, target := range d.Statistics {
		all = append(all, fmt.Sprintf("%d of column %s", target, column))
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

func optional(text *string) string {
	if text == nil {
		return ""
	}
	return *text
}

func either(holds bool, yes, no string) string {
	if holds {
		return yes
	}
	return no
}
