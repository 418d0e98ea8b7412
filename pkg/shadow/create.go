package shadow

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/schema"
)

// builder collects statements on one table that the owner runs.
type builder struct {
	owner      string
	table      string // quoted
	statements []Statement
}

func (b *builder) add(why, sql string, args ...any) {
	b.addWith(nil, why, sql, args...)
}

func (b *builder) addWith(settings map[string]string, why, sql string, args ...any) {
	b.statements = append(b.statements, Statement{
		SQL: fmt.Sprintf(sql, args...), Lock: "ACCESS EXCLUSIVE on " + b.table, Why: why, Role: b.owner, Settings: settings,
	})
}

// takes says of the last statement which lock it takes, where that is not ACCESS EXCLUSIVE
// on the builder's table.
func (b *builder) takes(format string, args ...any) {
	b.statements[len(b.statements)-1].Lock = fmt.Sprintf(format, args...)
}

// noLock is for statements that take no lock on a table.
const noLock = "none"

// Create lists the statements that build an empty, complete copy of the
// original in the run's own schema, where every object keeps its own name.
func Create(original *schema.Table, names Names) []Statement {
	b := &builder{owner: original.Owner, table: names.Shadow()}
	for _, name := range []string{names.ShadowSchema(), names.RetiredSchema()} {
		b.statements = append(b.statements, Statement{
			SQL: fmt.Sprintf("CREATE SCHEMA %s AUTHORIZATION %s", pg.Ident(name), pg.Ident(original.Owner)),
			Why: "a schema of the run's own, so that every object keeps its name",
		})
	}
	b.add("whoever has granted or owns something is at work in it too, until the shadow is built", "GRANT USAGE ON SCHEMA %s TO PUBLIC", pg.Ident(names.ShadowSchema()))
	b.takes(noLock)
	b.createTable(original)
	for _, column := range original.Columns {
		b.column(original, column)
	}
	b.lateConstraints(original)
	for _, index := range original.Indexes {
		build := newIndexBuild(original, index, b.owner, b.table)
		b.statements = append(append(b.statements, build.Create...), build.Attach...)
	}
	for _, statistic := range original.Statistics {
		b.statistic(names.ShadowSchema(), statistic)
	}
	b.marks(original)
	if original.Comment != nil {
		b.add("the table's comment", "COMMENT ON TABLE %s IS %s", b.table, pg.Literal(*original.Comment))
	}
	return b.statements
}

// Seal lists the statements after which nobody but the owner gets at the shadow.
func Seal(original *schema.Table, names Names) []Statement {
	b := &builder{owner: original.Owner, table: names.Shadow()}
	b.add("nobody else gets at the shadow", "REVOKE USAGE ON SCHEMA %s FROM PUBLIC", pg.Ident(names.ShadowSchema()))
	b.takes(noLock)
	return b.statements
}

func (b *builder) createTable(original *schema.Table) {
	var with []string
	for _, option := range original.Storage.Options {
		with = append(with, reloption("", option))
	}
	for _, option := range original.Storage.ToastOptions {
		with = append(with, reloption("toast.", option))
	}
	clause := ""
	if with != nil {
		clause = " WITH (" + strings.Join(with, ", ") + ")"
	}
	b.addWith(map[string]string{"default_tablespace": original.Storage.Tablespace, "default_table_access_method": original.Storage.AccessMethod},
		"the shadow table: columns, defaults, generated columns, checks, storage",
		"CREATE TABLE %s (LIKE %s INCLUDING DEFAULTS INCLUDING GENERATED INCLUDING STORAGE INCLUDING COMPRESSION INCLUDING CONSTRAINTS INCLUDING COMMENTS)%s",
		b.table, pg.Ident(original.Schema, original.Name), clause)
	b.takes("ACCESS SHARE on %s", original.Quoted())
}

// reloption renders a stored option, name=value, for WITH (...).
func reloption(namespace, option string) string {
	name, value, _ := strings.Cut(option, "=")
	return namespace + pg.Ident(name) + " = " + pg.Literal(value)
}

func (b *builder) column(original *schema.Table, column schema.Column) {
	name := pg.Ident(column.Name)
	if column.Identity != "" {
		b.identity(original, column)
	}
	if column.Details.Statistics >= 0 {
		b.add("statistics target", "ALTER TABLE %s ALTER COLUMN %s SET STATISTICS %d", b.table, name, column.Details.Statistics)
	}
	if len(column.Details.Options) > 0 {
		options := make([]string, len(column.Details.Options))
		for i, option := range column.Details.Options {
			options[i] = reloption("", option)
		}
		b.add("column options", "ALTER TABLE %s ALTER COLUMN %s SET (%s)", b.table, name, strings.Join(options, ", "))
	}
}

func (b *builder) identity(original *schema.Table, column schema.Column) {
	i := slices.IndexFunc(original.Sequences, func(s schema.Sequence) bool { return s.Identity && s.Attnum == column.Attnum })
	if i < 0 {
		return
	}
	sequence := original.Sequences[i]
	kind, cycle := "BY DEFAULT", "NO CYCLE"
	if column.Identity == "a" {
		kind = "ALWAYS"
	}
	if sequence.Cycle {
		cycle = "CYCLE"
	}
	schemaName, _ := splitQualified(b.table)
	name := schemaName + "." + pg.Ident(sequence.Name)
	b.add("identity column with a sequence of the same name",
		"ALTER TABLE %s ALTER COLUMN %s ADD GENERATED %s AS IDENTITY (SEQUENCE NAME %s START WITH %d INCREMENT BY %d MINVALUE %d MAXVALUE %d CACHE %d %s)",
		b.table, pg.Ident(column.Name), kind, name, sequence.Start, sequence.Increment, sequence.Min, sequence.Max, sequence.Cache, cycle)
	if sequence.Comment != nil {
		b.add("sequence comment", "COMMENT ON SEQUENCE %s IS %s", name, pg.Literal(*sequence.Comment))
	}
	for _, grant := range inChain(sequence.Grants, original.Owner) {
		if grant.Grantee != original.Owner {
			b.grant(grant, "SEQUENCE "+name, "")
		}
	}
}

// lateConstraints makes the checks, and from PostgreSQL 18 on the not-null
// constraints, NOT VALID again that LIKE made valid.
func (b *builder) lateConstraints(original *schema.Table) {
	for _, constraint := range original.Constraints {
		if constraint.Late() {
			b.add("LIKE made it valid", "ALTER TABLE %s DROP CONSTRAINT %s", b.table, pg.Ident(constraint.Name))
			b.late(constraint)
		}
	}
}

// late adds a constraint that is not to be validated.
func (b *builder) late(constraint schema.Constraint) {
	b.add("a constraint that is not validated", "ALTER TABLE %s ADD CONSTRAINT %s %s", b.table, pg.Ident(constraint.Name), constraint.Definition)
	if constraint.Comment != nil {
		b.add("constraint comment", "COMMENT ON CONSTRAINT %s ON %s IS %s", pg.Ident(constraint.Name), b.table, pg.Literal(*constraint.Comment))
	}
}

func (b *builder) statistic(schemaName string, statistic schema.Statistic) {
	name := pg.Ident(schemaName, statistic.Name)
	b.add("extended statistics "+statistic.Name, "CREATE STATISTICS %s %s FROM %s", name, statistic.Definition, b.table)
	if statistic.Target >= 0 {
		b.add("statistics target", "ALTER STATISTICS %s SET STATISTICS %d", name, statistic.Target)
	}
	if statistic.Comment != nil {
		b.add("statistics comment", "COMMENT ON STATISTICS %s IS %s", name, pg.Literal(*statistic.Comment))
	}
}

// marks points the table at the indexes that it clusters on and is identified by.
func (b *builder) marks(table *schema.Table) {
	for _, index := range table.Indexes {
		if index.Marks.Clustered {
			b.add("cluster mark", "ALTER TABLE %s CLUSTER ON %s", b.table, pg.Ident(index.Name))
		}
		if index.Marks.ReplicaIdentity && table.Storage.ReplicaIdentity == "i" {
			b.add("replica identity", "ALTER TABLE %s REPLICA IDENTITY USING INDEX %s", b.table, pg.Ident(index.Name))
		}
	}
	switch table.Storage.ReplicaIdentity {
	case "f":
		b.add("replica identity", "ALTER TABLE %s REPLICA IDENTITY FULL", b.table)
	case "n":
		b.add("replica identity", "ALTER TABLE %s REPLICA IDENTITY NOTHING", b.table)
	default:
	}
}

// splitQualified takes a quoted schema.name apart.
func splitQualified(qualified string) (schemaName, name string) {
	i := strings.Index(qualified, `"."`)
	return qualified[:i+1], qualified[i+2:]
}
