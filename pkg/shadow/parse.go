package shadow

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/wasilibs/go-pgquery/parser"

	nodes "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// What stands for the table, and for an index, while text is parsed and written.
const (
	placeholderTable = "pgshadow_table"
	placeholderIndex = "pgshadow_index"
	placeholder      = "ALTER TABLE " + placeholderTable + " "
)

// Change is what the user asked for, parsed. It is plain data, so that it can be
// parsed in another process and kept in a checkpoint.
type Change struct {
	// Alters are the texts after ALTER TABLE name, in the order they apply.
	Alters []string `json:"alters"`
	// Using holds the conversion of each column that has one, by the original's
	// column name. Expressions speak of the original's columns as o.column.
	Using map[string]Expression `json:"using,omitempty"`
	// Set holds the value of each new column that was given one.
	Set map[string]Expression `json:"set,omitempty"`
	// Renames are the indices of those Alters that rename a column.
	Renames []int `json:"renames,omitempty"`
	// Schemas are those that names in the texts are qualified with, without repeats.
	Schemas []string `json:"schemas,omitempty"`
	// Reshapes tells that it adds, drops, renames or retypes columns.
	Reshapes bool `json:"reshapes,omitempty"`
	// References are the foreign keys that it adds.
	References []Reference `json:"references,omitempty"`
	// InPlace says of each alter what PostgreSQL's own ALTER TABLE takes.
	InPlace []InPlace `json:"in_place"`
	// NoShadow is why a shadow is the wrong means for the change; nil: it is not.
	NoShadow *Refusal `json:"no_shadow,omitempty"`
}

// Expression is a piece of SQL over the original's row, which it calls o.
type Expression struct {
	SQL       string   `json:"sql"`
	Columns   []string `json:"columns"`             // of the original, without repeats
	Functions []string `json:"functions,omitempty"` // names called
	PlainCast bool     `json:"plain_cast,omitempty"`
	AtUTC     bool     `json:"at_utc,omitempty"` // it is the column AT TIME ZONE 'UTC'
}

// SyntaxError is PostgreSQL's own complaint about the text of an --alter.
type SyntaxError struct {
	Message  string
	Text     string
	Position int // characters from the start of Text, from 1; 0 when unknown
}

func (e *SyntaxError) Error() string {
	if e.Position <= 0 {
		return fmt.Sprintf("%s in --alter %q", e.Message, e.Text)
	}
	return fmt.Sprintf("%s at character %d of --alter:\n  %s\n  %s^", e.Message, e.Position, e.Text, strings.Repeat(" ", e.Position-1))
}

// parsing keeps calls from running side by side: each would load a parser of its own.
var parsing sync.Mutex

// Parse checks that every text is actions of ALTER TABLE and nothing else, takes
// out the USING expressions, and notes what a shadow cannot take. table is the name that the expressions may
// qualify their columns with. It uses PostgreSQL's own parser, whose first use
// in a process costs one to two seconds and some 250 MB for that time.
func Parse(table string, alters []string, set map[string]string) (*Change, error) {
	parsing.Lock()
	defer parsing.Unlock()
	p := changeParser{table: table, names: map[string]origin{}, change: &Change{
		Alters: alters, Using: map[string]Expression{}, Set: map[string]Expression{},
	}}
	for i, text := range alters {
		if err := p.alter(i, text); err != nil {
			return nil, err
		}
	}
	if p.moves != "" && len(alters) > 1 {
		return nil, &Refusal{Check: "alter", Reason: fmt.Sprintf("after %q the table has another name than the one that the other --alters are for", p.moves), Remedy: "give it in a run of its own"}
	}
	for column, text := range set {
		if err := p.set(column, text); err != nil {
			return nil, err
		}
	}
	return p.change, nil
}

// origin is what is known of a column name at some point in the list of alters.
type origin struct {
	name    string // in the original; empty for a new column
	retyped int    // 1 + the alter that changed its type, 0 for none
	gone    bool
}

type changeParser struct {
	table  string
	names  map[string]origin // only names that an alter touched
	change *Change
	moves  string // the text that gives the table another name or schema
}

func (p *changeParser) lookup(name string) origin {
	if o, ok := p.names[name]; ok {
		return o
	}
	return origin{name: name}
}

func (p *changeParser) alter(index int, text string) error {
	tree, newer, err := parse(placeholder + text)
	if err != nil {
		return syntaxError(err, text, len(placeholder))
	}
	p.schemas(tree.ProtoReflect())
	if len(tree.Stmts) != 1 {
		return &Refusal{Check: "alter", Reason: fmt.Sprintf("--alter holds %d statements where one ALTER TABLE is meant: %q", len(tree.Stmts), text),
			Remedy: "give each ALTER TABLE in an --alter of its own, and run other statements yourself"}
	}
	switch statement := tree.Stmts[0].Stmt.Node.(type) {
	case *nodes.Node_AlterTableStmt:
		if err := onlyPlaceholder(statement.AlterTableStmt.Relation, text); err != nil {
			return err
		}
		return p.actions(index, text, newer, statement.AlterTableStmt)
	case *nodes.Node_RenameStmt:
		if err := onlyPlaceholder(statement.RenameStmt.Relation, text); err != nil {
			return err
		}
		p.change.InPlace = append(p.change.InPlace, InPlace{Lock: AccessExclusive, Trial: text})
		return p.rename(index, text, statement.RenameStmt)
	case *nodes.Node_AlterObjectSchemaStmt:
		if err := onlyPlaceholder(statement.AlterObjectSchemaStmt.Relation, text); err != nil {
			return err
		}
		p.change.InPlace = append(p.change.InPlace, InPlace{Lock: AccessExclusive})
		p.moves = text
		p.noShadow(refuseAction("it moves the table to another schema, which PostgreSQL does at once")(text))
		return nil
	default:
		return refuseAction("it is no ALTER TABLE on one table")(text)
	}
}

// noShadow notes the first reason why a shadow is the wrong means.
func (p *changeParser) noShadow(refusal *Refusal) {
	if p.change.NoShadow == nil {
		p.change.NoShadow = refusal
	}
}

// schemas notes what the names of types, functions, operators and collations are
// qualified with.
func (p *changeParser) schemas(tree protoreflect.Message) {
	walk(tree, func(message proto.Message) {
		var name []*nodes.Node
		switch node := message.(type) {
		case *nodes.TypeName:
			name = node.Names
		case *nodes.FuncCall:
			name = node.Funcname
		case *nodes.CollateClause:
			name = node.Collname
		case *nodes.A_Expr:
			name = node.Name
		}
		if len(name) < 2 {
			return
		}
		schemaName := name[len(name)-2].GetString_().GetSval()
		if schemaName != "pg_catalog" && !slices.Contains(p.change.Schemas, schemaName) {
			p.change.Schemas = append(p.change.Schemas, schemaName)
		}
	})
}

func (p *changeParser) actions(index int, text string, newer bool, statement *nodes.AlterTableStmt) error {
	before := make(map[string]origin, len(p.names))
	for name, o := range p.names {
		before[name] = o
	}
	for _, node := range statement.Cmds {
		command := node.GetAlterTableCmd()
		if refusal := checkAction(command, text); refusal != nil {
			p.noShadow(refusal)
		}
		if err := p.track(index, command, before, text); err != nil {
			return err
		}
	}
	p.change.References = append(p.change.References, references(statement)...)
	inPlace, err := newInPlace(statement, newer, text)
	p.change.InPlace = append(p.change.InPlace, inPlace)
	return err
}

// onlyPlaceholder refuses text that completes the table's name to another one.
func onlyPlaceholder(relation *nodes.RangeVar, text string) error {
	if relation.GetSchemaname() == "" && relation.GetRelname() == placeholderTable {
		return nil
	}
	return &Refusal{Check: "alter", Reason: fmt.Sprintf("the text names another table: %q", text),
		Remedy: "give only what follows ALTER TABLE name; the table itself is --table"}
}

// track follows what one action does to the column names. USING is evaluated
// over the row as it was before the whole statement, so names come from before.
func (p *changeParser) track(index int, command *nodes.AlterTableCmd, before map[string]origin, text string) error {
	switch command.Subtype {
	case nodes.AlterTableType_AT_AddColumn, nodes.AlterTableType_AT_DropColumn, nodes.AlterTableType_AT_AlterColumnType:
		p.change.Reshapes = true
	default:
	}
	switch command.Subtype {
	case nodes.AlterTableType_AT_AddColumn:
		p.names[command.Def.GetColumnDef().GetColname()] = origin{}
	case nodes.AlterTableType_AT_DropColumn:
		p.names[command.Name] = origin{gone: true}
	case nodes.AlterTableType_AT_AlterColumnType:
		return p.retype(index, command, before, text)
	default:
	}
	return nil
}

func (p *changeParser) retype(index int, command *nodes.AlterTableCmd, before map[string]origin, text string) error {
	current := p.lookup(command.Name)
	if current.retyped > 0 {
		return &Refusal{Check: "alter", Reason: fmt.Sprintf("column %q changes its type twice", command.Name),
			Remedy: "say the last type, and one USING expression over the original's columns"}
	}
	definition := command.Def.GetColumnDef()
	using := definition.GetRawDefault()
	if using != nil && current.name != "" {
		expression, err := p.expression(using, before, index, text)
		if err != nil {
			return err
		}
		expression.PlainCast = isPlainCast(using, command.Name, definition.GetTypeName())
		expression.AtUTC = isAtUTC(using, command.Name, definition.GetTypeName())
		p.change.Using[current.name] = expression
	}
	current.retyped = index + 1
	p.names[command.Name] = current
	return nil
}

func (p *changeParser) rename(index int, text string, statement *nodes.RenameStmt) error {
	switch statement.RenameType {
	case nodes.ObjectType_OBJECT_COLUMN:
		p.change.Renames, p.change.Reshapes = append(p.change.Renames, index), true
		p.names[statement.Newname] = p.lookup(statement.Subname)
		p.names[statement.Subname] = origin{gone: true}
		return nil
	case nodes.ObjectType_OBJECT_TABCONSTRAINT:
		return nil
	default:
		p.moves = text
		p.noShadow(refuseAction("it renames the table itself, which PostgreSQL does at once")(text))
		return nil
	}
}

func (p *changeParser) set(column, text string) error {
	const head = "SELECT "
	tree, _, err := parse(head + text)
	if err != nil {
		return syntaxError(err, text, len(head))
	}
	p.schemas(tree.ProtoReflect())
	var targets []*nodes.Node
	if len(tree.Stmts) == 1 {
		targets = tree.Stmts[0].Stmt.GetSelectStmt().GetTargetList()
	}
	if len(targets) != 1 || tree.Stmts[0].Stmt.GetSelectStmt().GetFromClause() != nil {
		return &Refusal{Check: "set", Reason: fmt.Sprintf("--set %s= holds more than one expression: %q", column, text),
			Remedy: "give one expression over the original's columns"}
	}
	expression, err := p.expression(targets[0].GetResTarget().GetVal(), nil, 0, text)
	if err != nil {
		return err
	}
	p.change.Set[column] = expression
	return nil
}

// syntaxError turns the parser's complaint into one about the user's own text.
func syntaxError(err error, text string, offset int) error {
	var parseErr *parser.Error
	if !errors.As(err, &parseErr) {
		return fmt.Errorf("parsing --alter %q: %w", text, err)
	}
	position := max(parseErr.Cursorpos-offset, 0)
	return &SyntaxError{Message: parseErr.Message, Text: text, Position: min(position, len([]rune(text))+1)}
}
