package verify

import (
	"fmt"
	"strings"

	"github.com/pgshadow/pgshadow/pkg/keyset"
	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/shadow"
)

// side is one of the two tables, described so that the same row gives the same
// key text and the same digest on both.
type side struct {
	from  string         // table and alias
	alias string         // of the table
	row   string         // the row's digest, a bigint
	keys  string         // the key as text: as the shadow has it, by which rows are matched, then as the original has it
	key   keyset.Columns // for ranges
	in    string         // predicate: the row's key is among those given from $1 on
}

func originalSide(plan *shadow.Plan) side {
	values := make([]string, len(plan.Columns))
	for i, column := range plan.Columns {
		values[i] = column.Compare
	}
	mapped := make([]string, len(plan.ShadowKey))
	for i, column := range plan.ShadowKey {
		mapped[i] = keyset.Text(column.Value)
	}
	return side{
		from: plan.Source() + " AS o", alias: shadow.RowAlias,
		row: digest(values), keys: strings.Join(mapped, ", ") + ", " + plan.Key.List(shadow.RowAlias), key: plan.Key,
		in: fmt.Sprintf("%s IN (SELECT %s FROM %s AS k)", plan.Key.Tuple(shadow.RowAlias), plan.Key.Order("k"), plan.Key.Rows(1)),
	}
}

func shadowSide(plan *shadow.Plan) side {
	values := make([]string, len(plan.Columns))
	for i, column := range plan.Columns {
		values[i] = pg.Ident("s", column.Name)
	}
	keys := make([]string, len(plan.ShadowKey))
	mapped := make([]string, len(plan.ShadowKey))
	for i, column := range plan.ShadowKey {
		keys[i] = keyset.Text(fmt.Sprintf("%s::%s", pg.Ident("s", column.Name), plan.Key[i].Type))
		mapped[i] = column.Value
	}
	columns := plan.ShadowKeyColumns()
	return side{
		from: fmt.Sprintf("ONLY %s AS s", plan.Names.Shadow()), alias: "s",
		row: digest(values), keys: columns.List("s") + ", " + strings.Join(keys, ", "), key: columns,
		in: fmt.Sprintf("%s IN (SELECT %s FROM %s AS o)", columns.Tuple("s"), strings.Join(mapped, ", "), plan.Key.Rows(1)),
	}
}

// digest hashes the text of a whole row: every type has a text form, and it is
// the same on both sides when the value is.
func digest(values []string) string {
	return fmt.Sprintf("pg_catalog.hashtextextended(ROW(%s)::pg_catalog.text, 0)", strings.Join(values, ", "))
}

// totals counts a range's rows and combines their digests. Rows of a table have
// different keys, so equal digests do not cancel out.
func (s side) totals(within keyset.Range) (sql string, args []any) {
	predicate, args := s.key.Predicate(s.key.Tuple(s.alias), within, 1)
	return fmt.Sprintf("SELECT count(*), coalesce(pg_catalog.bit_xor(%s), 0) FROM %s WHERE %s", s.row, s.from, predicate), args
}

// SQL are the two statements whose results are compared, for the whole of each table.
func SQL(plan *shadow.Plan) (original, shadowTable string) {
	original, _ = originalSide(plan).totals(keyset.Range{})
	shadowTable, _ = shadowSide(plan).totals(keyset.Range{})
	return original, shadowTable
}

// rows lists key and digest of every row of a range.
func (s side) rows(within keyset.Range) (sql string, args []any) {
	predicate, args := s.key.Predicate(s.key.Tuple(s.alias), within, 1)
	return fmt.Sprintf("SELECT %s, %s FROM %s WHERE %s", s.row, s.keys, s.from, predicate), args
}

// some lists key and digest of the rows with the keys given from $1 on.
func (s side) some() string {
	return fmt.Sprintf("SELECT %s, %s FROM %s WHERE %s", s.row, s.keys, s.from, s.in)
}
