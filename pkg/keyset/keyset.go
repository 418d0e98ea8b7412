// Package keyset owns the key by which rows are followed: a tuple of values, the
// range (lo, hi] that makes a chunk, and the SQL that compares them. Keys are
// compared by the server only (collations and types decide), never in Go.
package keyset

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// separator joins the values of a Key. PostgreSQL text never holds a zero byte.
const separator = "\x00"

// Key is one key tuple: the text form of each value, in the key's column order.
// It is comparable, so it can index a map; equal text means equal key, unequal
// text may still be equal to the server (1.0 and 1.00).
type Key string

// NewKey makes a Key of the text form of each value.
func NewKey(values ...string) Key { return Key(strings.Join(values, separator)) }

// Values returns the text form of each value.
func (k Key) Values() []string { return strings.Split(string(k), separator) }

// String shows the key for people: (42) or (eu, 42).
func (k Key) String() string { return "(" + strings.Join(k.Values(), ", ") + ")" }

// MarshalJSON writes the key as an array of strings.
func (k Key) MarshalJSON() ([]byte, error) { return json.Marshal(k.Values()) }

// UnmarshalJSON reads what MarshalJSON wrote.
func (k *Key) UnmarshalJSON(data []byte) error {
	var values []string
	if err := json.Unmarshal(data, &values); err != nil {
		return fmt.Errorf("reading a key: %w", err)
	}
	*k = NewKey(values...)
	return nil
}

// Range is the half-open chunk (Lo, Hi]. A nil bound is infinity.
type Range struct {
	Lo *Key `json:"lo"`
	Hi *Key `json:"hi"`
}

// String shows the range for people.
func (r Range) String() string {
	lo, hi := "(-infinity", "+infinity)"
	if r.Lo != nil {
		lo = "(" + r.Lo.String()
	}
	if r.Hi != nil {
		hi = r.Hi.String() + "]"
	}
	return lo + ", " + hi
}

// Column is one column of a key: its name, its type as SQL spells it, and its
// collation (a quoted name) where that is not the type's own.
type Column struct {
	Name      string `json:"name"`
	Type      string `json:"type"`
	Collation string `json:"collation,omitempty"`
}

// Cast renders a text expression as a value of the column: right type, right order.
func (c Column) Cast(text string) string {
	cast := text + "::" + c.Type
	if c.Collation == "" {
		return cast
	}
	return "(" + cast + " COLLATE " + c.Collation + ")"
}

// Watermark is a point in the key space: nothing yet (the zero value), a key, or
// the end, beyond every key there can be.
type Watermark struct {
	Key *Key `json:"key,omitempty"`
	End bool `json:"end,omitempty"`
}

// Columns is the key's column list, in key order.
type Columns []Column

// Names returns the column names.
func (c Columns) Names() []string {
	names := make([]string, len(c))
	for i, column := range c {
		names[i] = column.Name
	}
	return names
}

// Tuple renders the key columns of a relation or alias: ("o"."region", "o"."id").
func (c Columns) Tuple(alias string) string {
	parts := make([]string, len(c))
	for i, column := range c {
		parts[i] = pgx.Identifier{alias, column.Name}.Sanitize()
	}
	return "(" + strings.Join(parts, ", ") + ")"
}

// Text renders an expression's text as its type's output function gives it, which
// is how the stream spells it; a cast to text differs (boolean, character).
func Text(expression string) string { return "pg_catalog.concat(" + expression + ")" }

// List renders the text of the key columns of an alias, to be scanned into strings.
func (c Columns) List(alias string) string {
	parts := make([]string, len(c))
	for i, column := range c {
		parts[i] = Text(pgx.Identifier{alias, column.Name}.Sanitize())
	}
	return strings.Join(parts, ", ")
}

// Compare renders "tuple operator key" with the key as text parameters from
// $first on, and returns those parameters.
func (c Columns) Compare(tuple, operator string, key Key, first int) (string, []any) {
	args := make([]any, 0, len(c))
	for _, value := range key.Values() {
		args = append(args, value)
	}
	return tuple + " " + operator + " " + c.params(first), args
}

// Order renders the key columns of an alias for ORDER BY.
func (c Columns) Order(alias string) string {
	return strings.TrimSuffix(strings.TrimPrefix(c.Tuple(alias), "("), ")")
}

// Predicate renders "tuple lies in r" with the bounds as text parameters from
// $first on, and returns those parameters. The unbounded range gives "true".
func (c Columns) Predicate(tuple string, r Range, first int) (string, []any) {
	var conditions []string
	var args []any
	bound := func(operator string, key *Key) {
		if key == nil {
			return
		}
		condition, values := c.Compare(tuple, operator, *key, first+len(args))
		conditions = append(conditions, condition)
		args = append(args, values...)
	}
	bound(">", r.Lo)
	bound("<=", r.Hi)
	if conditions == nil {
		return "true", nil
	}
	return strings.Join(conditions, " AND "), args
}

func (c Columns) params(first int) string {
	parts := make([]string, len(c))
	for i, column := range c {
		parts[i] = column.Cast(fmt.Sprintf("$%d::pg_catalog.text", first+i))
	}
	return "(" + strings.Join(parts, ", ") + ")"
}

// Ordinal is the column of Rows that counts the keys from 1, in the order given.
const Ordinal = "pgshadow_ordinal"

// Rows renders a set of keys given as one text array per column, parameters
// $first on, as a subquery whose columns have the key's own names and types,
// and Ordinal.
func (c Columns) Rows(first int) string {
	arrays := make([]string, len(c))
	names := make([]string, len(c))
	casts := make([]string, len(c))
	for i, column := range c {
		arrays[i] = fmt.Sprintf("pg_catalog.unnest($%d::pg_catalog.text[])", first+i)
		names[i] = fmt.Sprintf("v%d", i+1)
		casts[i] = column.Cast(fmt.Sprintf("t.v%d", i+1)) + " AS " + pgx.Identifier{column.Name}.Sanitize()
	}
	return fmt.Sprintf("(SELECT %s, t.n AS %s FROM ROWS FROM (%s) WITH ORDINALITY AS t(%s, n))",
		strings.Join(casts, ", "), Ordinal, strings.Join(arrays, ", "), strings.Join(names, ", "))
}

// Arrays turns keys into the parameters of Rows: one slice per column.
func (c Columns) Arrays(keys []Key) []any {
	columns := make([][]string, len(c))
	for i := range columns {
		columns[i] = make([]string, len(keys))
	}
	for row, key := range keys {
		for i, value := range key.Values() {
			columns[i][row] = value
		}
	}
	args := make([]any, len(c))
	for i := range columns {
		args[i] = columns[i]
	}
	return args
}
