package workload

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Column is one column of a Spec.
type Column struct {
	// Name, as in the catalog (the package quotes it).
	Name string
	// Type is the SQL type the writers cast their values to ('...'::text::Type), and the one in which table and mirror are
	// compared while they run. It stays, whatever becomes of the column's own type. Empty: the literal has no type, the
	// server reads it as the type the column has at that moment (for a change like text to enum).
	Type string
	// Def is what follows the name in CREATE TABLE. Empty: Type, and NOT NULL unless Null. It needs a default that is the same
	// all through a transaction, if the column is NOT NULL and to be left out of Options.Columns.
	Def string
	// Fill is the value of the initial row with the ordinal ord (bigint), in SQL; it must depend on nothing else.
	// {big} stands for CreateOptions.BigEvery. For a key column it must agree with Spec.KeyOf.
	Fill string
	// Gen returns a value in its type's canonical text form (as the server would print it, with TimeZone UTC). It must not
	// depend on anything but r. Not used for key columns.
	Gen func(r *rand.Rand) string
	// Null: the writers set it to NULL too, one time in eight; if Toast, most of the time.
	Null bool
	// Unique: has a unique constraint of its own, in the table (the mirror needs none). Gen must seldom repeat itself.
	Unique bool
	// Toast: long, stored out of line, seldom updated.
	Toast bool
	// Server: Insert and MultiRow leave it to the column's default and read what the server made of it.
	Server bool
	// Blind: not compared while the writers run, for a change after which the table holds another value than the one
	// written (rounded, cut off). Check still compares it, through its Map.
	Blind bool
}

// Spec is a table, its mirror, and how to write to them. Make one with a ready-made constructor, change its exported
// fields before Create, and leave it alone from then on. A Spec is for one table in one database; it is safe for
// concurrent use after Create.
type Spec struct {
	// Name of the spec, for subtests.
	Name string
	// Table and Mirror are names as written in SQL: quoted, and with a schema if need be.
	Table, Mirror string
	// Key columns in the order of the key.
	Key []Column
	// Values are the other columns.
	Values []Column
	// Layout is the order of all columns in the table. Empty: Key, then Values.
	Layout []string
	// KeyOf returns the key of an ordinal, in canonical text form, ascending in the server's order. The ordinals used are
	// 1 to twice the number of initial rows and on, and from 1<<30 on (not if Limit is set).
	KeyOf func(ord int64) []string
	// Respell returns another spelling of the same key, one that compares equal. nil: there is none.
	Respell func(r *rand.Rand, key []string) []string
	// Edges are extreme keys that no ordinal has; each gets an initial row.
	Edges [][]string
	// Limit is the highest ordinal there can be; 0: none.
	Limit int64
	// FixedKey: the key cannot be updated (identity ALWAYS); explicit keys are inserted with OVERRIDING SYSTEM VALUE.
	FixedKey bool
	// UniqueKey: the key is a unique index and the replica identity, there is no primary key.
	UniqueKey bool
	// Before and After are statements run before the table is created and after it is filled; {table} is its name.
	Before, After []string

	space *space // set by Create
}

// columns returns all columns in the table's order.
func (s *Spec) columns() []Column {
	all := slices.Concat(s.Key, s.Values)
	if len(s.Layout) == 0 {
		return all
	}
	ordered := make([]Column, 0, len(all))
	for _, name := range s.Layout {
		if i := slices.IndexFunc(all, func(c Column) bool { return c.Name == name }); i >= 0 {
			ordered = append(ordered, all[i])
		}
	}
	return ordered
}

// validate returns all problems, joined.
func (s *Spec) validate() error {
	var errs []error
	report := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if s.Table == "" || s.Mirror == "" || s.Table == s.Mirror {
		report("table %q and mirror %q must be two names", s.Table, s.Mirror)
	}
	if len(s.Key) == 0 || s.KeyOf == nil || len(s.KeyOf(1)) != len(s.Key) {
		report("KeyOf must return one value per key column")
	}
	if n := len(s.columns()); n != len(s.Key)+len(s.Values) {
		report("the layout must name every column once")
	}
	for _, c := range s.columns() {
		if c.Name == "" || c.Fill == "" {
			report("column %q must have a name and a fill", c.Name)
		}
		if c.Type == "" && c.Def == "" {
			report("column %q must have a type or a definition", c.Name)
		}
	}
	for _, c := range s.Values {
		if c.Gen == nil {
			report("column %q must have a generator", c.Name)
		}
	}
	if len(errs) > 0 {
		return fmt.Errorf("checking spec %q: %w", s.Name, errors.Join(errs...))
	}
	return nil
}

// writable returns the value columns with the given names, in the spec's order; nil names: all of them.
func (s *Spec) writable(names []string) ([]Column, error) {
	if names == nil {
		return s.Values, nil
	}
	var cols []Column
	for _, c := range s.Values {
		if slices.Contains(names, c.Name) {
			cols = append(cols, c)
		}
	}
	if len(cols) != len(names) {
		return nil, fmt.Errorf("choosing the written columns of %s: %q are not all value columns", s.Table, names)
	}
	return cols, nil
}

// Columns returns the names of all value columns but the given ones: what to set Options.Columns to when a change
// renames or drops these.
func (s *Spec) Columns(except ...string) []string {
	names := []string{}
	for _, c := range s.Values {
		if !slices.Contains(except, c.Name) {
			names = append(names, c.Name)
		}
	}
	return names
}

// Column returns the column with that name, to be changed before Create; nil if there is none.
func (s *Spec) Column(name string) *Column {
	for _, cols := range [][]Column{s.Key, s.Values} {
		for i := range cols {
			if cols[i].Name == name {
				return &cols[i]
			}
		}
	}
	return nil
}

// plain reports whether a column is one that any row can be given any value of.
func plain(c Column) bool { return !c.Unique && !c.Toast }

// value returns a new value for the column as a query argument: a string, or nil for NULL.
func (c Column) value(r *rand.Rand) any {
	if c.Null && (r.IntN(8) == 0 || c.Toast && r.IntN(16) > 0) {
		return nil
	}
	return c.Gen(r)
}

func quote(name string) string { return pgx.Identifier{name}.Sanitize() }

// definition returns the column's line in CREATE TABLE.
func (c Column) definition() string {
	def := c.Def
	if def == "" {
		def = c.Type
		if !c.Null {
			def += " NOT NULL"
		}
	}
	return quote(c.Name) + " " + def
}

func quoted(cols []Column) string {
	names := make([]string, len(cols))
	for i, c := range cols {
		names[i] = quote(c.Name)
	}
	return strings.Join(names, ", ")
}
