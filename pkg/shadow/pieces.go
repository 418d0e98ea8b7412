package shadow

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	nodes "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
)

// PieceKind says what a Piece adds.
type PieceKind string

// The kinds.
const (
	AddsColumn     PieceKind = "column"
	AddsConstraint PieceKind = "constraint" // a check or a foreign key
	AddsNotNull    PieceKind = "not null"
	AddsKey        PieceKind = "key" // a primary key or a unique constraint
	Validates      PieceKind = "validate"
)

// Piece is one action of an --alter that has a way of being made without reading rows
// under a lock that keeps others out (see Recipe).
type Piece struct {
	Kind PieceKind `json:"kind"`
	// SQL is the action; that of a constraint reads no rows (NOT VALID), that of a key
	// is what follows ON table in CREATE UNIQUE INDEX.
	SQL string `json:"sql"`
	// Name is the constraint's; where none was given, NamedAfter are the columns that
	// its name is made of, and Label what it ends with.
	Name       string   `json:"name,omitempty"`
	NamedAfter []string `json:"named_after,omitempty"`
	Label      string   `json:"label,omitempty"`
	Columns    []string `json:"columns,omitempty"`    // that must not be null; or the one that is added
	Uses       []string `json:"uses,omitempty"`       // the columns that it speaks of
	Late       bool     `json:"late,omitempty"`       // it is NOT VALID, and stays so
	Constraint string   `json:"constraint,omitempty"` // of a key: PRIMARY KEY or UNIQUE
	Deferral   string   `json:"deferral,omitempty"`   // of a key
}

// pieces takes an --alter apart, of whose actions own are the texts; nil when it has an
// action without such a way, or one that cannot be written otherwise than it is.
func pieces(statement *nodes.AlterTableStmt, own []string) ([]Piece, error) {
	var all []Piece
	for i, node := range statement.Cmds {
		some, err := piecesOf(statement, node.GetAlterTableCmd(), own[i])
		if errors.Is(err, errUnlike) {
			return nil, nil
		}
		if err != nil || some == nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}

func piecesOf(statement *nodes.AlterTableStmt, command *nodes.AlterTableCmd, own string) ([]Piece, error) {
	switch command.Subtype {
	case nodes.AlterTableType_AT_SetNotNull:
		return []Piece{{Kind: AddsNotNull, Columns: []string{command.Name}, Uses: []string{command.Name}}}, nil
	case nodes.AlterTableType_AT_ValidateConstraint:
		return []Piece{{Kind: Validates, Name: command.Name}}, nil
	case nodes.AlterTableType_AT_AddConstraint:
		piece, err := constraintPiece(command.Def.GetConstraint(), own)
		if err != nil || piece == nil {
			return nil, err
		}
		return []Piece{*piece}, nil
	case nodes.AlterTableType_AT_AddColumn:
		return columnPieces(statement, command)
	default:
		return nil, nil
	}
}

// columnPieces adds a column first, and its constraints as the table's. One that must
// not be null and has no value is no piece: it does not fit a table with rows.
func columnPieces(statement *nodes.AlterTableStmt, command *nodes.AlterTableCmd) ([]Piece, error) {
	if command.MissingOk {
		return nil, nil
	}
	bare, _ := proto.Clone(command).(*nodes.AlterTableCmd)
	column := bare.Def.GetColumnDef()
	kept, moved, possible := splitConstraints(column.Constraints)
	if !possible {
		return nil, nil
	}
	column.Constraints = kept
	sql, err := textOf(statement, bare)
	if err != nil {
		return nil, err
	}
	all := []Piece{{Kind: AddsColumn, SQL: sql, Columns: []string{column.Colname}}}
	name := &nodes.Node{Node: &nodes.Node_String_{String_: &nodes.String{Sval: column.Colname}}}
	for _, node := range moved {
		constraint := node.GetConstraint()
		switch constraint.Contype {
		case nodes.ConstrType_CONSTR_FOREIGN:
			constraint.FkAttrs = []*nodes.Node{name}
		case nodes.ConstrType_CONSTR_UNIQUE:
			constraint.Keys = []*nodes.Node{name}
		default:
		}
		text, err := textOf(statement, &nodes.AlterTableCmd{Subtype: nodes.AlterTableType_AT_AddConstraint,
			Def: &nodes.Node{Node: &nodes.Node_Constraint{Constraint: constraint}}, Behavior: nodes.DropBehavior_DROP_RESTRICT})
		if err != nil {
			return nil, err
		}
		piece, err := constraintPiece(constraint, text)
		if err != nil || piece == nil {
			return nil, err
		}
		all = append(all, *piece)
	}
	return all, nil
}

// splitConstraints tells which of a new column's constraints stay with it, and which are
// added as the table's.
func splitConstraints(constraints []*nodes.Node) (kept, moved []*nodes.Node, possible bool) {
	hasDefault := slices.ContainsFunc(constraints, func(n *nodes.Node) bool { return n.GetConstraint().Contype == nodes.ConstrType_CONSTR_DEFAULT })
	for _, node := range constraints {
		switch contype := node.GetConstraint().Contype; {
		case slices.Contains(movable, contype):
			moved = append(moved, node)
		case contype == nodes.ConstrType_CONSTR_NOTNULL && hasDefault, contype == nodes.ConstrType_CONSTR_NULL, contype == nodes.ConstrType_CONSTR_DEFAULT:
			kept = append(kept, node)
		default: // a key, an identity, and what says of the constraint before it that it is deferrable
			return nil, nil, false
		}
	}
	return kept, moved, true
}

var movable = []nodes.ConstrType{nodes.ConstrType_CONSTR_CHECK, nodes.ConstrType_CONSTR_FOREIGN, nodes.ConstrType_CONSTR_UNIQUE}

// constraintPiece is ADD CONSTRAINT, of which text is the action as it is written.
func constraintPiece(constraint *nodes.Constraint, text string) (*Piece, error) {
	switch constraint.Contype {
	case nodes.ConstrType_CONSTR_CHECK, nodes.ConstrType_CONSTR_FOREIGN:
		piece := &Piece{Kind: AddsConstraint, SQL: text, Name: constraint.Conname, Label: "check", Late: constraint.SkipValidation, Uses: columnsOf(constraint.RawExpr)}
		if !piece.Late {
			piece.SQL += " NOT VALID"
		}
		if constraint.Contype == nodes.ConstrType_CONSTR_FOREIGN {
			piece.Label, piece.NamedAfter, piece.Uses = "fkey", texts(constraint.FkAttrs), texts(constraint.FkAttrs)
		} else if len(piece.Uses) == 1 {
			piece.NamedAfter = piece.Uses
		}
		return piece, nil
	case nodes.ConstrType_CONSTR_UNIQUE, nodes.ConstrType_CONSTR_PRIMARY:
		if constraint.Indexname != "" {
			return nil, nil
		}
		return keyPiece(constraint)
	default:
		return nil, nil
	}
}

// keyPiece writes the index of a key, which can be built beside writers.
func keyPiece(constraint *nodes.Constraint) (*Piece, error) {
	piece := &Piece{Kind: AddsKey, Name: constraint.Conname, Constraint: "UNIQUE", Label: "key", NamedAfter: numbered(append(texts(constraint.Keys), texts(constraint.Including)...))}
	if constraint.Contype == nodes.ConstrType_CONSTR_PRIMARY {
		piece.Constraint, piece.Label, piece.NamedAfter, piece.Columns = "PRIMARY KEY", "pkey", nil, texts(constraint.Keys)
	}
	piece.Uses = append(texts(constraint.Keys), texts(constraint.Including)...)
	if constraint.Deferrable {
		piece.Deferral = " DEFERRABLE"
	}
	if constraint.Initdeferred {
		piece.Deferral += " INITIALLY DEFERRED"
	}
	index := &nodes.IndexStmt{Relation: &nodes.RangeVar{Relname: placeholderTable, Inh: true, Relpersistence: "p"}, AccessMethod: "btree", Idxname: placeholderIndex,
		Unique: true, NullsNotDistinct: constraint.NullsNotDistinct, Options: constraint.Options, TableSpace: constraint.Indexspace,
		IndexParams: elements(texts(constraint.Keys)), IndexIncludingParams: elements(texts(constraint.Including))}
	sql, err := write(&nodes.Node{Node: &nodes.Node_IndexStmt{IndexStmt: index}})
	if err != nil {
		return nil, err
	}
	_, definition, is := strings.Cut(sql, "CREATE UNIQUE INDEX "+placeholderIndex+" ON "+placeholderTable+" ")
	if !is {
		return nil, fmt.Errorf("writing the index of a key as SQL: %q", sql)
	}
	piece.SQL = definition
	return piece, nil
}

// numbered tells names apart that come more than once, as PostgreSQL does with the columns
// of an index.
func numbered(columns []string) []string {
	var all []string
	for _, column := range columns {
		name := column
		for n := 1; slices.Contains(all, name); n++ {
			digits := fmt.Sprint(n)
			name = cut(column, min(len(column), nameLimit-len(digits))) + digits
		}
		all = append(all, name)
	}
	return all
}

func elements(columns []string) []*nodes.Node {
	all := make([]*nodes.Node, len(columns))
	for i, name := range columns {
		all[i] = &nodes.Node{Node: &nodes.Node_IndexElem{IndexElem: &nodes.IndexElem{Name: name, Ordering: nodes.SortByDir_SORTBY_DEFAULT, NullsOrdering: nodes.SortByNulls_SORTBY_NULLS_DEFAULT}}}
	}
	return all
}

func texts(list []*nodes.Node) []string {
	var all []string
	for _, node := range list {
		all = append(all, node.GetString_().GetSval())
	}
	return all
}

// columnsOf are the columns that an expression speaks of, without repeats.
func columnsOf(expression *nodes.Node) []string {
	var all []string
	walk(expression.ProtoReflect(), func(message proto.Message) {
		if ref, is := message.(*nodes.ColumnRef); is && len(ref.Fields) > 0 {
			name := ref.Fields[len(ref.Fields)-1].GetString_().GetSval()
			if !slices.Contains(all, name) {
				all = append(all, name)
			}
		}
	})
	return all
}
