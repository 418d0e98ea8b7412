package shadow

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	pgquery "github.com/wasilibs/go-pgquery"

	nodes "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
)

// The locks that ALTER TABLE takes on its table, by strength (PostgreSQL manual
// section 13.3.1).
const (
	ShareUpdateExclusive = "SHARE UPDATE EXCLUSIVE"
	ShareRowExclusive    = "SHARE ROW EXCLUSIVE"
	AccessExclusive      = "ACCESS EXCLUSIVE"
)

var locksByStrength = []string{ShareUpdateExclusive, ShareRowExclusive, AccessExclusive}

// InPlace is what PostgreSQL's own ALTER TABLE takes for the text of one --alter.
type InPlace struct {
	Lock string `json:"lock"` // of the table
	// Trial is the part of the text whose cost an empty copy of the table shows. Not
	// in it is what would lock another table; that is read off the text.
	Trial string `json:"trial,omitempty"`
	// ValidatesKey tells that it adds a foreign key and reads the table for it.
	ValidatesKey bool `json:"validates_key,omitempty"`
	// Drops tells that it drops columns or constraints, and foreign keys maybe.
	Drops bool `json:"drops,omitempty"`
	// Pieces are all of its actions, when each has a way of being made without reading
	// rows under a lock that keeps others out.
	Pieces []Piece `json:"pieces,omitempty"`
}

var notEnforced = regexp.MustCompile(`(?i)\bnot\s+enforced\b`)

// newInPlace reads a parsed --alter. One in a newer grammar than the parser's own has
// no pieces, and the tree does not say what is NOT ENFORCED in it.
func newInPlace(statement *nodes.AlterTableStmt, newer bool, text string) (in InPlace, err error) {
	in = InPlace{Lock: ShareUpdateExclusive, Trial: text}
	var tried []*nodes.Node
	whole := true
	for _, node := range statement.Cmds {
		command := node.GetAlterTableCmd()
		in.Lock = Stronger(in.Lock, lockOf(command))
		in.ValidatesKey = in.ValidatesKey || validatesKey(command) && (!newer || !notEnforced.MatchString(text))
		in.Drops = in.Drops || command.Subtype == nodes.AlterTableType_AT_DropColumn || command.Subtype == nodes.AlterTableType_AT_DropConstraint
		rest, same := withoutOthers(command)
		whole = whole && same
		if rest != nil {
			tried = append(tried, &nodes.Node{Node: &nodes.Node_AlterTableCmd{AlterTableCmd: rest}})
		}
	}
	if !newer {
		if in.Pieces, err = pieces(statement); err != nil {
			return in, err
		}
	}
	if !whole {
		in.Trial, err = textOf(statement, tried)
	}
	return in, err
}

// Stronger is the stronger one of two locks; empty is none.
func Stronger(a, b string) string {
	if slices.Index(locksByStrength, a) > slices.Index(locksByStrength, b) {
		return a
	}
	return b
}

// ofOthers are actions that lock another table, or speak of one, which the table's
// empty copy must not do. None of them reads rows.
var ofOthers = map[nodes.AlterTableType]bool{
	nodes.AlterTableType_AT_AddInherit: true, nodes.AlterTableType_AT_DropInherit: true,
	nodes.AlterTableType_AT_AddOf: true, nodes.AlterTableType_AT_DropOf: true,
	nodes.AlterTableType_AT_AttachPartition: true, nodes.AlterTableType_AT_DetachPartition: true, nodes.AlterTableType_AT_DetachPartitionFinalize: true,
	nodes.AlterTableType_AT_ChangeOwner: true,
}

// lockOf is the lock of one action (PostgreSQL manual, ALTER TABLE). What is not
// listed takes the strongest.
func lockOf(command *nodes.AlterTableCmd) string {
	switch command.Subtype {
	case nodes.AlterTableType_AT_SetStatistics, nodes.AlterTableType_AT_SetOptions, nodes.AlterTableType_AT_ResetOptions,
		nodes.AlterTableType_AT_ClusterOn, nodes.AlterTableType_AT_DropCluster, nodes.AlterTableType_AT_ValidateConstraint:
		return ShareUpdateExclusive
	case nodes.AlterTableType_AT_SetRelOptions, nodes.AlterTableType_AT_ResetRelOptions:
		if slices.ContainsFunc(command.Def.GetList().GetItems(), func(item *nodes.Node) bool { return item.GetDefElem().GetDefname() == "user_catalog_table" }) {
			return AccessExclusive
		}
		return ShareUpdateExclusive
	case nodes.AlterTableType_AT_EnableTrig, nodes.AlterTableType_AT_EnableAlwaysTrig, nodes.AlterTableType_AT_EnableReplicaTrig,
		nodes.AlterTableType_AT_EnableTrigAll, nodes.AlterTableType_AT_EnableTrigUser, nodes.AlterTableType_AT_DisableTrig,
		nodes.AlterTableType_AT_DisableTrigAll, nodes.AlterTableType_AT_DisableTrigUser:
		return ShareRowExclusive
	case nodes.AlterTableType_AT_AddConstraint:
		if isForeignKey(command.Def.GetConstraint()) {
			return ShareRowExclusive
		}
		return AccessExclusive
	default:
		return AccessExclusive
	}
}

// validatesKey tells whether an action adds a foreign key whose validation reads the
// table. That of a new column without a value has nothing to validate.
func validatesKey(command *nodes.AlterTableCmd) bool {
	column := command.Def.GetColumnDef()
	hasValue := column.GetRawDefault() != nil || slices.ContainsFunc(column.GetConstraints(), func(node *nodes.Node) bool {
		return slices.Contains([]nodes.ConstrType{nodes.ConstrType_CONSTR_DEFAULT, nodes.ConstrType_CONSTR_IDENTITY, nodes.ConstrType_CONSTR_GENERATED}, node.GetConstraint().GetContype())
	})
	constraint := command.Def.GetConstraint()
	return isForeignKey(constraint) && !constraint.SkipValidation || hasValue && slices.ContainsFunc(column.GetConstraints(), isForeignKeyNode)
}

func isForeignKey(constraint *nodes.Constraint) bool {
	return constraint.GetContype() == nodes.ConstrType_CONSTR_FOREIGN
}

func isForeignKeyNode(node *nodes.Node) bool { return isForeignKey(node.GetConstraint()) }

// withoutOthers takes out of an action what speaks of other tables; nil when nothing
// is left.
func withoutOthers(command *nodes.AlterTableCmd) (rest *nodes.AlterTableCmd, same bool) {
	switch {
	case ofOthers[command.Subtype] || isForeignKey(command.Def.GetConstraint()):
		return nil, false
	case slices.ContainsFunc(command.Def.GetColumnDef().GetConstraints(), isForeignKeyNode):
		rest, _ = proto.Clone(command).(*nodes.AlterTableCmd)
		column := rest.Def.GetColumnDef()
		column.Constraints = slices.DeleteFunc(column.Constraints, isForeignKeyNode)
		return rest, false
	default:
		return command, true
	}
}

// textOf writes some of a statement's actions as the text of an --alter.
func textOf(statement *nodes.AlterTableStmt, commands []*nodes.Node) (string, error) {
	if len(commands) == 0 {
		return "", nil
	}
	part := &nodes.AlterTableStmt{Relation: statement.Relation, Cmds: commands, Objtype: statement.Objtype}
	sql, err := pgquery.Deparse(&nodes.ParseResult{Stmts: []*nodes.RawStmt{{Stmt: &nodes.Node{Node: &nodes.Node_AlterTableStmt{AlterTableStmt: part}}}}})
	text, is := strings.CutPrefix(sql, placeholder)
	if err != nil || !is {
		return "", fmt.Errorf("writing a part of an --alter as SQL (%q): %w", sql, err)
	}
	return text, nil
}
