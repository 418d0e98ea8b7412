package shadow

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	nodes "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// RowAlias is what the original's row is called in every expression.
const RowAlias = "o"

// timeFunctions change from one statement to the next though PostgreSQL does not
// call them volatile.
var timeFunctions = []string{"now", "transaction_timestamp", "statement_timestamp"}

// expression rewrites column references to the original's columns and deparses.
// names are the column names in force where the expression stands; nil means the
// original's own.
func (p *changeParser) expression(node *nodes.Node, names map[string]origin, index int, text string) (Expression, error) {
	node, _ = proto.Clone(node).(*nodes.Node)
	result := Expression{Columns: []string{}}
	var failure error
	walk(node.ProtoReflect(), func(message proto.Message) {
		switch n := message.(type) {
		case *nodes.ColumnRef:
			name, err := p.resolve(n, names, index, text)
			if err != nil && failure == nil {
				failure = err
			}
			n.Fields = []*nodes.Node{nodes.MakeStrNode(RowAlias), nodes.MakeStrNode(name)}
			if !slices.Contains(result.Columns, name) {
				result.Columns = append(result.Columns, name)
			}
		case *nodes.FuncCall:
			result.Functions = append(result.Functions, n.Funcname[len(n.Funcname)-1].GetString_().GetSval())
		case *nodes.SQLValueFunction:
			failure = unstable("the current time or role", text)
		case *nodes.SubLink:
			failure = &Refusal{Check: "expression", Reason: fmt.Sprintf("a subquery stands in the expression of %q", text),
				Remedy: "use an expression over the row's own columns; PostgreSQL takes no subquery there either"}
		default:
		}
	})
	if failure != nil {
		return Expression{}, failure
	}
	for _, name := range timeFunctions {
		if slices.Contains(result.Functions, name) {
			return Expression{}, unstable(name+"()", text)
		}
	}
	var err error
	result.SQL, err = overOriginal(node, text)
	return result, err
}

// overOriginal writes an expression of an --alter's text, whose columns are those of the
// original now.
func overOriginal(node *nodes.Node, text string) (string, error) {
	sql, err := deparse(node)
	if errors.Is(err, errUnlike) {
		return "", &Refusal{Check: "expression", Reason: fmt.Sprintf("the expression of %q cannot be written over the original's columns: %v", text, err),
			Remedy: "write it in another way, types without pg_catalog for one"}
	}
	return sql, err
}

func unstable(what, text string) *Refusal {
	return &Refusal{Check: "expression",
		Reason: fmt.Sprintf("the expression of %q depends on %s, so a row would not convert to the same value twice", text, what),
		Remedy: "write a constant, or set the column with an UPDATE in batches after the change"}
}

// resolve finds the original's column behind a reference.
func (p *changeParser) resolve(ref *nodes.ColumnRef, names map[string]origin, index int, text string) (string, error) {
	fields := make([]string, 0, len(ref.Fields))
	for _, field := range ref.Fields {
		if field.GetAStar() != nil {
			return "", &Refusal{Check: "expression", Reason: fmt.Sprintf("the whole row is used in %q", text),
				Remedy: "name the columns that the expression needs"}
		}
		fields = append(fields, field.GetString_().GetSval())
	}
	name := fields[len(fields)-1]
	if len(fields) > 1 && fields[len(fields)-2] != p.table {
		return "", &Refusal{Check: "expression", Reason: fmt.Sprintf("%s in %q is of another table", strings.Join(fields, "."), text),
			Remedy: "use the columns of the table itself"}
	}
	found, touched := names[name]
	switch {
	case !touched:
		return name, nil
	case found.name == "" || found.gone:
		return "", &Refusal{Check: "expression", Reason: fmt.Sprintf("%q uses column %q, which the original does not have", text, name),
			Remedy: "use the original's columns, with --set for the value of a new one"}
	case found.retyped > 0 && found.retyped <= index:
		return "", &Refusal{Check: "expression", Reason: fmt.Sprintf("%q uses column %q, whose type an earlier --alter changes", text, name),
			Remedy: "put both changes into one --alter: its USING expressions see the row as it was"}
	default:
		return found.name, nil
	}
}

// isPlainCast tells that a USING is its own column, or only casts it to the type that
// the column takes, as one writes it where PostgreSQL asks for a USING. A cast to any
// other type, on the way to that one, may change the value.
func isPlainCast(node *nodes.Node, column string, to *nodes.TypeName) bool {
	return isColumn(withoutCastsTo(node, to), column)
}

// isAtUTC tells that a USING is its own column AT TIME ZONE 'UTC', or only casts that
// to the type that the column takes.
func isAtUTC(node *nodes.Node, column string, to *nodes.TypeName) bool {
	call := withoutCastsTo(node, to).GetFuncCall()
	name, args := call.GetFuncname(), call.GetArgs()
	if len(name) != 2 || name[0].GetString_().GetSval() != "pg_catalog" || name[1].GetString_().GetSval() != "timezone" || len(args) != 2 {
		return false
	}
	zone := strings.ToLower(args[0].GetAConst().GetSval().GetSval())
	return slices.Contains([]string{"utc", "etc/utc", "gmt"}, zone) && isColumn(args[1], column)
}

func isColumn(node *nodes.Node, column string) bool {
	fields := node.GetColumnRef().GetFields()
	return len(fields) > 0 && fields[len(fields)-1].GetString_().GetSval() == column
}

func withoutCastsTo(node *nodes.Node, to *nodes.TypeName) *nodes.Node {
	for node.GetTypeCast() != nil && sameType(node.GetTypeCast().TypeName, to) {
		node = node.GetTypeCast().Arg
	}
	return node
}

// sameType tells that two spellings are of one type and modifier, int8 and bigint for
// one. Which type another name stands for is known to the server alone.
func sameType(a, b *nodes.TypeName) bool {
	return a != nil && b != nil && proto.Equal(bareType(a), bareType(b))
}

// bareType takes off a name what does not tell types apart: where it stands, and
// pg_catalog, which the parser writes for keywords and where the server looks first.
func bareType(name *nodes.TypeName) *nodes.TypeName {
	name = withoutPositions(name)
	if len(name.Names) == 2 && name.Names[0].GetString_().GetSval() == "pg_catalog" {
		name.Names = name.Names[1:]
	}
	return name
}

func deparse(node *nodes.Node) (string, error) {
	const head = "SELECT "
	sql, err := write(&nodes.Node{Node: &nodes.Node_SelectStmt{SelectStmt: &nodes.SelectStmt{
		TargetList:  []*nodes.Node{{Node: &nodes.Node_ResTarget{ResTarget: &nodes.ResTarget{Val: node}}}},
		LimitOption: nodes.LimitOption_LIMIT_OPTION_DEFAULT, Op: nodes.SetOperation_SETOP_NONE,
	}}})
	if err != nil || !strings.HasPrefix(sql, head) {
		return "", fmt.Errorf("writing the expression back as SQL: %w", err)
	}
	return strings.TrimPrefix(sql, head), nil
}

// walk calls visit for every message of a parse tree, parents first.
func walk(message protoreflect.Message, visit func(proto.Message)) {
	visit(message.Interface())
	message.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		if field.Kind() != protoreflect.MessageKind {
			return true
		}
		if field.IsList() {
			for i := range value.List().Len() {
				walk(value.List().Get(i).Message(), visit)
			}
			return true
		}
		walk(value.Message(), visit)
		return true
	})
}
