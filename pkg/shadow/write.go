package shadow

import (
	"errors"
	"fmt"

	pgquery "github.com/wasilibs/go-pgquery"

	nodes "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
)

// errUnlike says that a parse tree, written as SQL, reads as another one.
var errUnlike = errors.New("written as SQL it would be another statement")

// write writes a parse tree as SQL, and reads that again: the writer does not know
// everything that the parser does. Where it comes to another tree, the error is errUnlike.
func write(statement *nodes.Node) (string, error) {
	sql, err := pgquery.Deparse(&nodes.ParseResult{Stmts: []*nodes.RawStmt{{Stmt: statement}}})
	if err != nil {
		return "", fmt.Errorf("writing a parse tree as SQL: %w", err)
	}
	again, err := pgquery.Parse(sql)
	if err != nil || len(again.Stmts) != 1 || !proto.Equal(withoutPositions(again.Stmts[0].Stmt), withoutPositions(statement)) {
		return "", fmt.Errorf("%w: %s", errUnlike, sql)
	}
	return sql, nil
}

// withoutPositions is a copy of a tree in which nothing says where in a text it was.
func withoutPositions[T proto.Message](tree T) T {
	bare, _ := proto.Clone(tree).(T)
	walk(bare.ProtoReflect(), func(message proto.Message) {
		reflected := message.ProtoReflect()
		if position := reflected.Descriptor().Fields().ByName("location"); position != nil {
			reflected.Clear(position)
		}
	})
	return bare
}

// actionTexts cuts the text of an --alter into those of its actions, as the user has
// written them; nil when they are not so many.
func actionTexts(text string, actions int) ([]string, error) {
	w, err := scan(text)
	if err != nil {
		return nil, err
	}
	var all []string
	first, depth := 0, 0
	for i := range len(w.tokens) + 1 {
		switch {
		case w.is(i, "("), w.is(i, "["):
			depth++
		case w.is(i, ")"), w.is(i, "]"):
			depth--
		case i == len(w.tokens) || w.is(i, ";"), w.is(i, ",") && depth == 0:
			if first < i {
				all = append(all, text[w.tokens[first].Start:w.tokens[i-1].End])
			}
			first = i + 1
		}
	}
	if len(all) != actions {
		return nil, nil
	}
	return all, nil
}
