package shadow

import (
	"slices"
	"strconv"
	"strings"

	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/schema"
)

// IndexBuild is one index with its constraint and comments.
type IndexBuild struct {
	Name       string `json:"name"`
	Constraint string `json:"constraint,omitempty"` // that it backs
	// Create takes SHARE on the table: several can run side by side. Attach takes
	// ACCESS EXCLUSIVE, and runs alone; an exclusion constraint is built there.
	Create []Statement `json:"create"`
	Attach []Statement `json:"attach"`
}

func newIndexBuild(table *schema.Table, index schema.Index, owner, shadowTable string) IndexBuild {
	build := IndexBuild{Name: index.Name}
	create, attach := &builder{owner: owner, table: shadowTable}, &builder{owner: owner, table: shadowTable}
	schemaName, _ := splitQualified(shadowTable)
	qualified := schemaName + "." + pg.Ident(index.Name)
	settings := map[string]string{"default_tablespace": index.Details.Tablespace}
	constraint, backs := table.ConstraintOf(index)
	if backs {
		build.Constraint = constraint.Name
	}
	if backs && (constraint.Type == "x" || index.Method != "btree") {
		attach.addWith(settings, "constraint "+constraint.Name, "ALTER TABLE %s ADD CONSTRAINT %s %s", shadowTable, pg.Ident(constraint.Name), constraint.Definition)
		if len(index.Details.Options) > 0 {
			attach.add("index options", "ALTER INDEX %s SET (%s)", qualified, options(index.Details.Options))
		}
	} else {
		create.addWith(settings, "index "+index.Name, "CREATE %sINDEX %s ON %s %s", uniqueWord(index), pg.Ident(index.Name), shadowTable, index.Definition)
		create.statements[0].Lock = "SHARE on " + shadowTable
		if backs {
			attach.add("constraint "+constraint.Name, "ALTER TABLE %s ADD CONSTRAINT %s %s USING INDEX %s%s",
				shadowTable, pg.Ident(constraint.Name), constraintKind(constraint), pg.Ident(index.Name), deferral(constraint))
		}
	}
	for _, column := range sortedKeys(index.Details.Statistics) {
		attach.add("statistics target of an index expression", "ALTER INDEX %s ALTER COLUMN %s SET STATISTICS %d", qualified, column, index.Details.Statistics[column])
	}
	if index.Details.Comment != nil {
		attach.add("index comment", "COMMENT ON INDEX %s IS %s", qualified, pg.Literal(*index.Details.Comment))
	}
	if backs && constraint.Comment != nil {
		attach.add("constraint comment", "COMMENT ON CONSTRAINT %s ON %s IS %s", pg.Ident(constraint.Name), shadowTable, pg.Literal(*constraint.Comment))
	}
	build.Create, build.Attach = create.statements, attach.statements
	return build
}

func uniqueWord(index schema.Index) string {
	if index.Unique {
		return "UNIQUE "
	}
	return ""
}

func options(stored []string) string {
	rendered := make([]string, len(stored))
	for i, option := range stored {
		rendered[i] = reloption("", option)
	}
	return strings.Join(rendered, ", ")
}

func sortedKeys(m map[string]int) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		if _, err := strconv.Atoi(key); err == nil {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

func constraintKind(constraint schema.Constraint) string {
	if constraint.Type == "p" {
		return "PRIMARY KEY"
	}
	return "UNIQUE"
}

func deferral(constraint schema.Constraint) string {
	switch {
	case constraint.Deferred:
		return " DEFERRABLE INITIALLY DEFERRED"
	case constraint.Deferrable:
		return " DEFERRABLE"
	default:
		return ""
	}
}
