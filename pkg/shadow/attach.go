package shadow

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/schema"
)

// Rider is one attached object that fires on a table or reads it, and the
// statements that make it. Cannot says what it is that fails when they do.
type Rider struct {
	Cannot     string
	Statements []Statement
}

func newRider(cannot, on, role string, build func(b *builder)) Rider {
	b := &builder{owner: role, table: on}
	build(b)
	return Rider{Cannot: cannot, Statements: b.statements}
}

// riders lists, in the order in which they can be made, what is attached to a
// table but foreign keys, publications, and what other tables have.
func riders(table, owner string, a schema.Attached) []Rider {
	var all []Rider
	rider := func(kind, name, on, role string, build func(b *builder)) {
		all = append(all, newRider(fmt.Sprintf("%s %s cannot be on the changed table", kind, name), on, role, build))
	}
	for _, view := range a.Views {
		rider("view", view.String(), view.Quoted(), view.Owner, func(b *builder) { b.view(view) })
	}
	on := func(object, owner string, triggers []schema.Trigger, rules []schema.Rule) {
		for _, trigger := range triggers {
			rider("trigger", pg.Ident(trigger.Name), object, owner, func(b *builder) { b.trigger(trigger) })
		}
		for _, rule := range rules {
			rider("rule", pg.Ident(rule.Name), object, owner, func(b *builder) { b.rule(rule) })
		}
	}
	for _, view := range a.Views { // which may speak of any of the views
		on(view.Quoted(), view.Owner, view.Triggers, view.Rules)
	}
	on(table, owner, a.Triggers, a.Rules)
	for _, policy := range a.Policies {
		rider("policy", pg.Ident(policy.Name), table, owner, func(b *builder) { b.policy(policy) })
	}
	return all
}

// The letters of pg_trigger.tgenabled and pg_rewrite.ev_enabled; O is the default.
var enabledWords = map[string]string{"D": "DISABLE", "R": "ENABLE REPLICA", "A": "ENABLE ALWAYS"}

func (b *builder) trigger(trigger schema.Trigger) {
	b.add("trigger", "%s", trigger.Definition)
	if words, given := enabledWords[trigger.Enabled]; given {
		b.add("when the trigger fires", "ALTER TABLE %s %s TRIGGER %s", b.table, words, pg.Ident(trigger.Name))
	}
	if trigger.Comment != nil {
		b.add("trigger comment", "COMMENT ON TRIGGER %s ON %s IS %s", pg.Ident(trigger.Name), b.table, pg.Literal(*trigger.Comment))
	}
}

func (b *builder) rule(rule schema.Rule) {
	b.add("rule", "%s", rule.Definition)
	if words, given := enabledWords[rule.Enabled]; given {
		b.add("when the rule applies", "ALTER TABLE %s %s RULE %s", b.table, words, pg.Ident(rule.Name))
	}
	if rule.Comment != nil {
		b.add("rule comment", "COMMENT ON RULE %s ON %s IS %s", pg.Ident(rule.Name), b.table, pg.Literal(*rule.Comment))
	}
}

// The letters of pg_policy.polcmd.
var policyCommands = map[string]string{"*": "ALL", "r": "SELECT", "a": "INSERT", "w": "UPDATE", "d": "DELETE"}

func (b *builder) policy(policy schema.Policy) {
	kind := "PERMISSIVE"
	if !policy.Permissive {
		kind = "RESTRICTIVE"
	}
	roles := make([]string, len(policy.Roles))
	for i, role := range policy.Roles {
		roles[i] = grantee(schema.Grant{Grantee: role})
	}
	clauses := ""
	if policy.Using != nil {
		clauses += " USING (" + *policy.Using + ")"
	}
	if policy.Check != nil {
		clauses += " WITH CHECK (" + *policy.Check + ")"
	}
	b.add("policy", "CREATE POLICY %s ON %s AS %s FOR %s TO %s%s", pg.Ident(policy.Name), b.table, kind, policyCommands[policy.Command], strings.Join(roles, ", "), clauses)
	if policy.Comment != nil {
		b.add("policy comment", "COMMENT ON POLICY %s ON %s IS %s", pg.Ident(policy.Name), b.table, pg.Literal(*policy.Comment))
	}
}

func (b *builder) view(view schema.View) {
	if view.Stored != nil {
		b.materialized(view)
	} else {
		with := ""
		if len(view.Options) > 0 {
			with = " WITH (" + options(view.Options) + ")"
		}
		b.add("view", "CREATE VIEW %s%s AS %s", b.table, with, view.Definition)
	}
	b.viewGrants(view)
	if view.Comment != nil {
		b.add("view comment", "COMMENT ON %s %s IS %s", view.Kind(), b.table, pg.Literal(*view.Comment))
	}
	for _, column := range view.Columns {
		if column.Default != nil {
			b.add("default of a view's column", "ALTER VIEW %s ALTER COLUMN %s SET DEFAULT %s", b.table, pg.Ident(column.Name), *column.Default)
		}
		if column.Comment != nil {
			b.add("column comment", "COMMENT ON COLUMN %s.%s IS %s", b.table, pg.Ident(column.Name), pg.Literal(*column.Comment))
		}
	}
}

// The letters of pg_attribute.attstorage and attcompression.
var (
	storages     = map[string]string{"p": "PLAIN", "e": "EXTERNAL", "m": "MAIN", "x": "EXTENDED"}
	compressions = map[string]string{"p": "pglz", "l": "lz4"}
)

// materialized makes a materialized view without its rows, which come after the
// swap, and its indexes.
func (b *builder) materialized(view schema.View) {
	var with []string
	for _, option := range view.Options {
		with = append(with, reloption("", option))
	}
	for _, option := range view.Stored.ToastOptions {
		with = append(with, reloption("toast.", option))
	}
	clause := ""
	if with != nil {
		clause = " WITH (" + strings.Join(with, ", ") + ")"
	}
	b.addWith(map[string]string{"default_tablespace": view.Stored.Tablespace, "default_table_access_method": view.Stored.AccessMethod},
		"materialized view, empty until it is refreshed", "CREATE MATERIALIZED VIEW %s%s AS %s WITH NO DATA", b.table, clause, strings.TrimSuffix(view.Definition, ";"))
	for _, column := range view.Columns {
		b.storedColumn(column)
	}
	for _, index := range view.Stored.Indexes {
		name := pg.Ident(index.Schema, index.Name)
		b.addWith(map[string]string{"default_tablespace": index.Tablespace}, "index of a materialized view", "%s", index.Definition)
		for _, column := range sortedKeys(index.Statistics) {
			b.add("statistics target of an index expression", "ALTER INDEX %s ALTER COLUMN %s SET STATISTICS %d", name, column, index.Statistics[column])
		}
		if index.Comment != nil {
			b.add("index comment", "COMMENT ON INDEX %s IS %s", name, pg.Literal(*index.Comment))
		}
		if index.Clustered {
			b.add("cluster mark", "ALTER MATERIALIZED VIEW %s CLUSTER ON %s", b.table, pg.Ident(index.Name))
		}
	}
}

func (b *builder) storedColumn(column schema.ViewColumn) {
	alter := func(why, format string, args ...any) {
		b.add(why, "ALTER MATERIALIZED VIEW %s ALTER COLUMN %s "+format, append([]any{b.table, pg.Ident(column.Name)}, args...)...)
	}
	if column.Statistics >= 0 {
		alter("statistics target", "SET STATISTICS %d", column.Statistics)
	}
	if len(column.Options) > 0 {
		alter("column options", "SET (%s)", options(column.Options))
	}
	if column.Storage != "" {
		alter("storage", "SET STORAGE %s", storages[column.Storage])
	}
	if column.Compression != "" {
		alter("compression", "SET COMPRESSION %s", compressions[column.Compression])
	}
}

// viewGrants gives a new view the privileges that it had, whatever default
// privileges have given it.
func (b *builder) viewGrants(view schema.View) {
	if !view.Granted && len(view.DefaultGrantees) == 0 {
		return
	}
	revoked := []string{pg.Ident(view.Owner)}
	for _, role := range view.DefaultGrantees {
		if role != view.Owner {
			revoked = append(revoked, grantee(schema.Grant{Grantee: role}))
		}
	}
	b.add("what default privileges gave", "REVOKE ALL ON %s FROM %s", b.table, strings.Join(revoked, ", "))
	for _, grant := range inChain(view.Grants, view.Owner) {
		b.grant(grant, b.table, "")
	}
	for _, column := range view.Columns {
		for _, grant := range inChain(column.Grants, view.Owner) {
			b.grant(grant, b.table, fmt.Sprintf(" (%s)", pg.Ident(column.Name)))
		}
	}
}

// inChain orders grants so that every grantor has got the grant option before it
// gives, as far as the grants themselves say so.
func inChain(grants []schema.Grant, owner string) []schema.Grant {
	left, ordered := slices.Clone(grants), make([]schema.Grant, 0, len(grants))
	may := func(grant schema.Grant) bool {
		return grant.Grantor == owner || slices.ContainsFunc(ordered, func(g schema.Grant) bool {
			return g.Grantee == grant.Grantor && g.Privilege == grant.Privilege && g.Grantable
		})
	}
	for len(left) > 0 {
		i := max(slices.IndexFunc(left, may), 0)
		ordered = append(ordered, left[i])
		left = slices.Delete(left, i, i+1)
	}
	return ordered
}

// foreignKey adds one to a table.
func (b *builder) foreignKey(key schema.ForeignKey, definition string) {
	b.add("foreign key", "ALTER TABLE %s ADD CONSTRAINT %s %s", b.table, pg.Ident(key.Name), definition)
	b.takes("SHARE ROW EXCLUSIVE on %s, and on the table that it references", b.table)
	if key.Comment != nil {
		b.add("constraint comment", "COMMENT ON CONSTRAINT %s ON %s IS %s", pg.Ident(key.Name), b.table, pg.Literal(*key.Comment))
	}
}
