package shadow

import (
	nodes "github.com/pganalyze/pg_query_go/v6"

	"github.com/pgshadow/pgshadow/pkg/pg"
)

// Reference is a foreign key that a change adds.
type Reference struct {
	Columns []string `json:"columns"`
	Schema  string   `json:"schema,omitempty"` // of the referenced table; empty: the search_path's
	Table   string   `json:"table"`
	// Referenced are the columns there; none: those of its primary key.
	Referenced []string `json:"referenced,omitempty"`
	// Full is MATCH FULL: no column of a key is null, or all are.
	Full bool `json:"full,omitempty"`
	// Late is NOT VALID: no rows are read for it.
	Late bool `json:"late,omitempty"`
}

// Quoted is the referenced table's name, as a statement has it.
func (r Reference) Quoted() string {
	if r.Schema == "" {
		return pg.Ident(r.Table)
	}
	return pg.Ident(r.Schema, r.Table)
}

// references lists the foreign keys of an --alter.
func references(statement *nodes.AlterTableStmt) []Reference {
	var all []Reference
	for _, node := range statement.Cmds {
		command := node.GetAlterTableCmd()
		if constraint := added(command); isForeignKey(constraint) {
			all = append(all, newReference(constraint, texts(constraint.FkAttrs)))
		}
		column := command.GetDef().GetColumnDef()
		for _, node := range column.GetConstraints() {
			if isForeignKeyNode(node) {
				all = append(all, newReference(node.GetConstraint(), []string{column.Colname}))
			}
		}
	}
	return all
}

func newReference(constraint *nodes.Constraint, columns []string) Reference {
	to := constraint.GetPktable()
	return Reference{Columns: columns, Schema: to.GetSchemaname(), Table: to.GetRelname(), Referenced: texts(constraint.PkAttrs), Full: constraint.FkMatchtype == "f", Late: constraint.SkipValidation}
}
