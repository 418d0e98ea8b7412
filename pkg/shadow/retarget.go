package shadow

import (
	"regexp"
	"strings"

	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/schema"
)

// relation is a schema and a name in it.
type relation [2]string

func (r relation) quoted() string { return pg.Ident(r[0], r[1]) }

// renaming says where relations are to be found instead.
type renaming map[relation]relation

// inverse leads back.
func (r renaming) inverse() renaming {
	back := renaming{}
	for from, to := range r {
		back[to] = from
	}
	return back
}

// deparsed splits what PostgreSQL deparses, with standard_conforming_strings on:
// literals, names, and everything else character by character.
var deparsed = regexp.MustCompile(`(?s)E'(?:[^'\\]|''|\\.)*'|'(?:[^']|'')*'|"(?:[^"]|"")*"|[\pL_][\pL\pN_$]*|.`)

// apply renames relations in a definition that PostgreSQL has deparsed with every
// name qualified. A name that stands right before a parenthesis is a function's,
// unless it follows REFERENCES.
func (r renaming) apply(sql string) string {
	tokens := deparsed.FindAllString(sql, -1)
	var b strings.Builder
	word := "" // the last one
	for i := 0; i < len(tokens); {
		next := [4]string{} // of this and the three after it
		copy(next[:], tokens[i:])
		part := i == 0 || tokens[i-1] != "." // or the rest of a longer name
		if isQualified(next) && part && (next[3] != "(" || word == "REFERENCES") {
			b.WriteString(r.name(next[0], next[2]))
			i += 3
			continue
		}
		if isRegclass(next) {
			name := strings.ReplaceAll(next[0][1:len(next[0])-1], "''", "'")
			next[0] = pg.Literal(r.apply(name))
		}
		b.WriteString(next[0])
		if strings.TrimSpace(next[0]) != "" {
			word = next[0]
		}
		i++
	}
	return b.String()
}

// moveRule is a rule's definition on another table: the first qualified name in it
// is that of its own.
func moveRule(definition string, to relation) string {
	tokens := deparsed.FindAllString(definition, -1)
	for i := range tokens {
		next := [4]string{}
		copy(next[:], tokens[i:])
		if isQualified(next) {
			return strings.Join(tokens[:i], "") + to.quoted() + strings.Join(tokens[i+3:], "")
		}
	}
	return definition
}

// name is a qualified name, or the one that it is renamed to.
func (r renaming) name(schemaName, name string) string {
	if to, found := r[relation{unquoted(schemaName), unquoted(name)}]; found {
		return to.quoted()
	}
	return schemaName + "." + name
}

func isQualified(tokens [4]string) bool {
	return isName(tokens[0]) && tokens[1] == "." && isName(tokens[2])
}

func isRegclass(tokens [4]string) bool {
	return len(tokens[0]) > 1 && tokens[0][0] == '\'' && tokens[1] == ":" && tokens[2] == ":" && tokens[3] == "regclass"
}

func isName(token string) bool {
	return token != "" && (token[0] == '"' && len(token) > 2 || token[0] == '_' || token[0] >= 'a' && token[0] <= 'z' || token[0] >= 'A' && token[0] <= 'Z')
}

func unquoted(name string) string {
	if name[0] == '"' {
		return strings.ReplaceAll(name[1:len(name)-1], `""`, `"`)
	}
	return name
}

func (r renaming) relation(of schema.Relation) schema.Relation {
	if to, found := r[relation{of.Schema, of.Name}]; found {
		of.Schema, of.Name = to[0], to[1]
	}
	return of
}

// attached renames relations in everything that is attached to a table.
func (r renaming) attached(a schema.Attached) schema.Attached {
	a.Triggers = mapped(a.Triggers, r.trigger)
	a.Rules = mapped(a.Rules, r.rule)
	a.Policies = mapped(a.Policies, r.policy)
	a.Others = mapped(a.Others, func(o schema.Other) schema.Other {
		o.Policies, o.Rules = mapped(o.Policies, r.policy), mapped(o.Rules, r.rule)
		return o
	})
	foreignKey := func(k schema.ForeignKey) schema.ForeignKey {
		k.Definition, k.Table = r.apply(k.Definition), r.relation(k.Table)
		return k
	}
	a.References, a.ReferencedBy = mapped(a.References, foreignKey), mapped(a.ReferencedBy, foreignKey)
	a.Views = mapped(a.Views, func(v schema.View) schema.View {
		if to, found := r[relation{v.Schema, v.Name}]; found {
			v.Schema, v.Name = to[0], to[1]
		}
		v.Definition = r.apply(v.Definition)
		v.Columns = mapped(v.Columns, func(c schema.ViewColumn) schema.ViewColumn {
			c.Default = r.optional(c.Default)
			return c
		})
		if v.Stored != nil {
			stored := *v.Stored
			stored.Indexes = mapped(stored.Indexes, func(i schema.ViewIndex) schema.ViewIndex {
				i.Schema, i.Definition = v.Schema, r.apply(i.Definition)
				return i
			})
			v.Stored = &stored
		}
		v.Triggers, v.Rules = mapped(v.Triggers, r.trigger), mapped(v.Rules, r.rule)
		return v
	})
	return a
}

func (r renaming) trigger(t schema.Trigger) schema.Trigger {
	t.Definition = r.apply(t.Definition)
	return t
}

func (r renaming) rule(rule schema.Rule) schema.Rule {
	rule.Definition = r.apply(rule.Definition)
	return rule
}

func (r renaming) policy(p schema.Policy) schema.Policy {
	p.Using, p.Check = r.optional(p.Using), r.optional(p.Check)
	return p
}

func (r renaming) optional(sql *string) *string {
	if sql == nil {
		return nil
	}
	renamed := r.apply(*sql)
	return &renamed
}

func mapped[T any](all []T, f func(T) T) []T {
	out := make([]T, len(all))
	for i, one := range all {
		out[i] = f(one)
	}
	return out
}
