package shadow

import (
	"fmt"
	"slices"
	"strings"

	pgquery "github.com/wasilibs/go-pgquery"

	nodes "github.com/pganalyze/pg_query_go/v6"
)

// parse reads a statement, with PostgreSQL 17's own parser. Of PostgreSQL 18's grammar it reads what ALTER TABLE has new;
// the tree has what is nearest to it in the older one, and newer is true. The error is about the statement as it stands.
func parse(statement string) (tree *nodes.ParseResult, newer bool, err error) {
	tree, err = pgquery.Parse(statement)
	if err == nil {
		return tree, false, nil
	}
	older, scanErr := inOlderGrammar(statement)
	if scanErr != nil || older == statement {
		return nil, false, err
	}
	tree, olderErr := pgquery.Parse(older)
	if olderErr != nil {
		return nil, false, err
	}
	return tree, true, nil
}

// inOlderGrammar takes out what only PostgreSQL 18 reads: generated columns that are VIRTUAL, or do not say, become
// STORED; [NOT] ENFORCED goes, and WITHOUT OVERLAPS and PERIOD; a NOT NULL constraint of the table becomes a CHECK.
// Nothing but names and types is learned from the tree, and those stay.
func inOlderGrammar(statement string) (string, error) {
	w, err := scan(statement)
	if err != nil {
		return "", err
	}
	for i := range w.tokens {
		switch {
		case w.are(i, "generated", "always", "as", "("):
			w.generated(w.closing(i + 3))
		case w.are(i, "not", "enforced"):
			w.replace(i, i+1, "")
		case w.are(i, ")", "enforced"):
			w.replace(i+1, i+1, "")
		case w.are(i, "without", "overlaps"):
			w.replace(i, i+1, "")
		case w.are(i, ",", "period") && w.is(i+3, ")"):
			w.replace(i+1, i+1, "")
		case w.addsNotNull(i):
			w.replace(i, i+2, "CHECK (true)")
		}
	}
	return w.text(), nil
}

// words are the tokens of a statement, without comments, and what is to stand in their places.
type words struct {
	statement string
	tokens    []*nodes.ScanToken
	edits     map[int]edit // by the first byte of what is replaced
}

type edit struct {
	end  int
	text string
}

func scan(statement string) (*words, error) {
	scanned, err := pgquery.Scan(statement)
	if err != nil {
		return nil, fmt.Errorf("taking a statement apart: %w", err)
	}
	tokens := slices.DeleteFunc(scanned.Tokens, func(t *nodes.ScanToken) bool {
		return t.Token == nodes.Token_SQL_COMMENT || t.Token == nodes.Token_C_COMMENT
	})
	return &words{statement: statement, tokens: tokens, edits: map[int]edit{}}, nil
}

// is tells whether the i-th token is a word that is not quoted, or a sign.
func (w *words) is(i int, word string) bool {
	return i >= 0 && i < len(w.tokens) && strings.EqualFold(w.statement[w.tokens[i].Start:w.tokens[i].End], word)
}

// are tells it of a sequence of them.
func (w *words) are(i int, sequence ...string) bool {
	for j, word := range sequence {
		if !w.is(i+j, word) {
			return false
		}
	}
	return true
}

// addsNotNull tells whether a NOT NULL constraint of the table stands at a token.
func (w *words) addsNotNull(i int) bool {
	return w.are(i, "not", "null") && (w.is(i-1, "add") || w.are(i-3, "add", "constraint"))
}

// closing is the token that closes the parenthesis which the i-th opens, or the end.
func (w *words) closing(i int) int {
	for depth := 0; i < len(w.tokens); i++ {
		switch {
		case w.is(i, "("):
			depth++
		case w.is(i, ")"):
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return i
}

// generated has a column STORED whose expression ends at a token.
func (w *words) generated(end int) {
	switch {
	case end >= len(w.tokens) || w.is(end+1, "stored"):
	case w.is(end+1, "virtual"):
		w.replace(end+1, end+1, "STORED")
	default:
		w.replace(end, end, ") STORED")
	}
}

func (w *words) replace(first, last int, text string) {
	if last < len(w.tokens) {
		w.edits[int(w.tokens[first].Start)] = edit{int(w.tokens[last].End), text}
	}
}

func (w *words) text() string {
	var b strings.Builder
	for at := 0; at < len(w.statement); {
		if e, replaced := w.edits[at]; replaced {
			b.WriteString(e.text)
			at = e.end
			continue
		}
		b.WriteByte(w.statement[at])
		at++
	}
	return b.String()
}
