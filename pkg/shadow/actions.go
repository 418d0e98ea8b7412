package shadow

import (
	"fmt"

	nodes "github.com/pganalyze/pg_query_go/v6"
)

// refuseAction makes the refusal of an ALTER TABLE action that a shadow table is
// the wrong means for, or cannot carry yet.
func refuseAction(why string) func(text string) *Refusal {
	return func(text string) *Refusal {
		return &Refusal{Check: "alter", Reason: fmt.Sprintf("%q: %s", text, why),
			Remedy: "run this part as a plain ALTER TABLE with a short lock_timeout, before or after the change"}
	}
}

// checkAction passes the actions that the shadow can take, and refuses the
// others. What is not listed is refused: PostgreSQL may learn new ones.
func checkAction(command *nodes.AlterTableCmd, text string) *Refusal {
	switch command.Subtype {
	case nodes.AlterTableType_AT_AddColumn:
		for _, node := range command.Def.GetColumnDef().GetConstraints() {
			if refusal := checkConstraint(node.GetConstraint(), text); refusal != nil {
				return refusal
			}
		}
		return nil
	case nodes.AlterTableType_AT_AddConstraint:
		return checkConstraint(command.Def.GetConstraint(), text)
	case nodes.AlterTableType_AT_DropColumn, nodes.AlterTableType_AT_AlterColumnType,
		nodes.AlterTableType_AT_ColumnDefault, nodes.AlterTableType_AT_SetNotNull, nodes.AlterTableType_AT_DropNotNull,
		nodes.AlterTableType_AT_SetExpression, nodes.AlterTableType_AT_DropExpression,
		nodes.AlterTableType_AT_AddIdentity, nodes.AlterTableType_AT_SetIdentity, nodes.AlterTableType_AT_DropIdentity,
		nodes.AlterTableType_AT_SetStatistics, nodes.AlterTableType_AT_SetOptions, nodes.AlterTableType_AT_ResetOptions,
		nodes.AlterTableType_AT_SetStorage, nodes.AlterTableType_AT_SetCompression,
		nodes.AlterTableType_AT_DropConstraint, nodes.AlterTableType_AT_ValidateConstraint,
		nodes.AlterTableType_AT_SetRelOptions, nodes.AlterTableType_AT_ResetRelOptions,
		nodes.AlterTableType_AT_SetTableSpace, nodes.AlterTableType_AT_SetAccessMethod,
		nodes.AlterTableType_AT_ClusterOn, nodes.AlterTableType_AT_DropCluster,
		nodes.AlterTableType_AT_ReplicaIdentity:
		return nil
	case nodes.AlterTableType_AT_SetUnLogged, nodes.AlterTableType_AT_SetLogged:
		return refuseAction("an unlogged table is not in the WAL, so its writes cannot be followed")(text)
	default:
		return refuseAction("this action is instant in PostgreSQL, or cannot be done on a shadow table")(text)
	}
}

func checkConstraint(constraint *nodes.Constraint, text string) *Refusal {
	if constraint.GetContype() == nodes.ConstrType_CONSTR_FOREIGN {
		return &Refusal{Check: "foreign key", Reason: fmt.Sprintf("%q adds a foreign key, which is not carried over yet", text),
			Remedy: "add it after the change: ALTER TABLE ... ADD CONSTRAINT ... NOT VALID, then VALIDATE CONSTRAINT"}
	}
	return nil
}
