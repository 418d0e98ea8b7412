package shadow

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

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
	// Fills tells that it gives rows values: it retypes a column, or adds one with a value.
	Fills bool `json:"fills,omitempty"`
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
	own, err := actionTexts(text, len(statement.Cmds))
	if err != nil {
		return in, err
	}
	for _, node := range statement.Cmds {
		in.note(node.GetAlterTableCmd(), newer && notEnforced.MatchString(text))
	}
	if !newer && own != nil {
		if in.Pieces, err = pieces(statement, own); err != nil {
			return in, err
		}
	}
	in.Trial, err = trialOf(statement, own, text)
	return in, err
}

// note takes in what one action takes.
func (in *InPlace) note(command *nodes.AlterTableCmd, notEnforced bool) {
	in.Lock = Stronger(in.Lock, lockOf(command))
	in.ValidatesKey = in.ValidatesKey || validatesKey(command) && !notEnforced
	in.Fills = in.Fills || command.Subtype == nodes.AlterTableType_AT_AlterColumnType || hasValue(command.Def.GetColumnDef())
	in.Drops = in.Drops || command.Subtype == nodes.AlterTableType_AT_DropColumn || command.Subtype == nodes.AlterTableType_AT_DropConstraint
}

// trialOf is the text of an --alter, of whose actions own are the texts, without what speaks
// of other tables.
func trialOf(statement *nodes.AlterTableStmt, own []string, text string) (string, error) {
	if !slices.ContainsFunc(statement.Cmds, func(node *nodes.Node) bool {
		_, same := withoutOthers(node.GetAlterTableCmd())
		return !same
	}) {
		return text, nil
	}
	var tried []string
	for i, node := range statement.Cmds {
		rest, same := withoutOthers(node.GetAlterTableCmd())
		switch {
		case rest == nil:
		case same && own != nil:
			tried = append(tried, own[i])
		default:
			written, err := textOf(statement, rest)
			if err != nil {
				return "", refuseUnlike(err, text)
			}
			tried = append(tried, written)
		}
	}
	return strings.Join(tried, ", "), nil
}

// refuseUnlike asks for another form of what cannot be taken apart.
func refuseUnlike(err error, text string) error {
	if !errors.Is(err, errUnlike) {
		return err
	}
	return &Refusal{Check: "alter", Reason: fmt.Sprintf("%q cannot be taken apart: %v", text, err), Remedy: "give the foreign key of a new column as ADD FOREIGN KEY, and write types as PostgreSQL itself does"}
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
	constraint := added(command)
	return isForeignKey(constraint) && !constraint.SkipValidation || hasValue(column) && slices.ContainsFunc(column.GetConstraints(), isForeignKeyNode)
}

// hasValue tells of a column's definition that rows get a value from it.
func hasValue(column *nodes.ColumnDef) bool {
	return column.GetRawDefault() != nil || slices.ContainsFunc(column.GetConstraints(), func(node *nodes.Node) bool {
		return slices.Contains([]nodes.ConstrType{nodes.ConstrType_CONSTR_DEFAULT, nodes.ConstrType_CONSTR_IDENTITY, nodes.ConstrType_CONSTR_GENERATED}, node.GetConstraint().GetContype())
	})
}

// added is the constraint of ADD CONSTRAINT; ALTER CONSTRAINT speaks of one too.
func added(command *nodes.AlterTableCmd) *nodes.Constraint {
	if command.GetSubtype() != nodes.AlterTableType_AT_AddConstraint {
		return nil
	}
	return command.GetDef().GetConstraint()
}

func isForeignKey(constraint *nodes.Constraint) bool {
	return constraint.GetContype() == nodes.ConstrType_CONSTR_FOREIGN
}

func isForeignKeyNode(node *nodes.Node) bool { return isForeignKey(node.GetConstraint()) }

// withoutOthers takes out of an action what speaks of other tables; nil when nothing
// is left.
func withoutOthers(command *nodes.AlterTableCmd) (rest *nodes.AlterTableCmd, same bool) {
	switch {
	case ofOthers[command.Subtype] || isForeignKey(added(command)):
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

// textOf writes an action as the text of an --alter; the error may be errUnlike.
func textOf(statement *nodes.AlterTableStmt, command *nodes.AlterTableCmd) (string, error) {
	part := &nodes.AlterTableStmt{Relation: statement.Relation, Cmds: []*nodes.Node{{Node: &nodes.Node_AlterTableCmd{AlterTableCmd: command}}}, Objtype: statement.Objtype}
	sql, err := write(&nodes.Node{Node: &nodes.Node_AlterTableStmt{AlterTableStmt: part}})
	if err != nil {
		return "", err
	}
	text, is := strings.CutPrefix(sql, placeholder)
	if !is {
		return "", fmt.Errorf("writing a part of an --alter as SQL: %q", sql)
	}
	return text, nil
}
