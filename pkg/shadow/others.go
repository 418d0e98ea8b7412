package shadow

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/schema"
)

// otherRiders list what of another table, which people know by its name, speaks of
// the original.
func otherRiders(other schema.Other, known schema.Relation) []Rider {
	var all []Rider
	rider := func(kind, name string, build func(b *builder)) {
		cannot := fmt.Sprintf("%s %s on %s cannot speak of the changed table", kind, pg.Ident(name), known.Quoted())
		all = append(all, newRider(cannot, other.Table.Quoted(), other.Table.Owner, build))
	}
	for _, rule := range other.Rules {
		rider("rule", rule.Name, func(b *builder) { b.rule(rule) })
	}
	for _, policy := range other.Policies {
		rider("policy", policy.Name, func(b *builder) { b.policy(policy) })
	}
	return all
}

// dropOther lists the statements that take it off.
func dropOther(other schema.Other) []Statement {
	b := &builder{owner: other.Table.Owner, table: other.Table.Quoted()}
	for _, rule := range other.Rules {
		b.add("a rule that speaks of the original", "DROP RULE %s ON %s", pg.Ident(rule.Name), b.table)
	}
	for _, policy := range other.Policies {
		b.add("a policy that speaks of the original", "DROP POLICY %s ON %s", pg.Ident(policy.Name), b.table)
	}
	return b.statements
}

// speakingOfViews parts the tables and views whose policies and rules speak of views
// of the original from those that speak of itself alone.
func speakingOfViews(a schema.Attached) (ofViews, others []schema.Relation) {
	views := renaming{}
	for _, view := range a.Views {
		views[relation{view.Schema, view.Name}] = relation{}
	}
	names := func(sql *string) bool { return sql != nil && views.apply(*sql) != *sql }
	speaks := func(other schema.Other) bool {
		return slices.ContainsFunc(other.Rules, func(r schema.Rule) bool { return names(&r.Definition) }) ||
			slices.ContainsFunc(other.Policies, func(p schema.Policy) bool { return names(p.Using) || names(p.Check) })
	}
	for _, other := range a.Others {
		if speaks(other) {
			ofViews = append(ofViews, other.Table)
		} else {
			others = append(others, other.Table)
		}
	}
	return inLockOrder(ofViews), others
}

// inLockOrder puts views before tables, and each in the order of their OIDs.
func inLockOrder(relations []schema.Relation) []schema.Relation {
	slices.SortFunc(relations, func(a, b schema.Relation) int {
		if (a.Kind == "v") != (b.Kind == "v") {
			return cmp.Compare(b.Kind, a.Kind) // no other letter is behind v
		}
		return cmp.Compare(a.OID, b.OID)
	})
	return relations
}

// standIn is what of another table speaks of the original, on its stand-in.
func (t *Trial) standIn(other schema.Other) schema.Other {
	table := other.Table
	table.Schema = t.schema(table.Schema)
	return moved(other, table)
}

// moved is the same on another table.
func moved(other schema.Other, table schema.Relation) schema.Other {
	other.Table = table
	other.Rules = mapped(other.Rules, func(r schema.Rule) schema.Rule {
		r.Definition = moveRule(r.Definition, relation{table.Schema, table.Name})
		return r
	})
	return other
}

// otherRiders make an empty table for each other table and view, and on it what
// speaks of the original. It reads every other table itself: only the row of its own
// table is the stand-in's, which a cast lets pass for a real one.
func (t *Trial) otherRiders() []Rider {
	var all []Rider
	for i, other := range t.attached.Others {
		known := t.original.Attached.Others[i].Table
		cannot := fmt.Sprintf("policies and rules on %s cannot speak of the changed table", known.Quoted())
		all = append(all, newRider(cannot, other.Table.Quoted(), other.Table.Owner, func(b *builder) {
			if !slices.ContainsFunc(t.ends(), func(end schema.Relation) bool { return end.OID == known.OID }) {
				b.add("a stand-in for a table whose policies or rules speak of the original", "CREATE TABLE %s (LIKE %s)", b.table, known.Quoted())
			}
			b.add("its rows pass for real ones", "CREATE CAST (%s AS %s) WITH INOUT AS IMPLICIT", b.table, known.Quoted())
		}))
		all = append(all, otherRiders(other, known)...)
	}
	return all
}

// learnOther takes the definitions of another table's from the facts of the shadow.
func learnOther(facts []schema.Other, other schema.Other, lost *[]string) schema.Other {
	var found schema.Other
	for _, now := range facts {
		if now.Table.Schema == other.Table.Schema && now.Table.Name == other.Table.Name {
			found = now
		}
	}
	other.Rules = mapped(other.Rules, func(r schema.Rule) schema.Rule {
		return learn(found.Rules, r, func(r schema.Rule) string { return r.Name }, "rule", lost)
	})
	other.Policies = mapped(other.Policies, func(p schema.Policy) schema.Policy {
		return learn(found.Policies, p, func(p schema.Policy) string { return p.Name }, "policy", lost)
	})
	return other
}
