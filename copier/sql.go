package copier

import (
	"fmt"
	"strings"

	"github.com/pgshadow/pgshadow/pkg/keyset"
	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/shadow"
)

// CutSQL finds the key of the n-th row of the original within a range.
func CutSQL(source string, key keyset.Columns, within keyset.Range, n int) (sql string, args []any) {
	tuple := key.Tuple(shadow.RowAlias)
	predicate, args := key.Predicate(tuple, within, 1)
	return fmt.Sprintf("SELECT %s FROM %s AS o WHERE %s ORDER BY %s OFFSET %d LIMIT 1",
		key.List(shadow.RowAlias), source, predicate, key.Order(shadow.RowAlias), n-1), args
}

// CopySQL copies one chunk. Replay writes nothing above the low watermark
// (INV-2), so a plain INSERT is enough.
func CopySQL(plan *shadow.Plan, chunk keyset.Range) (sql string, args []any) {
	predicate, args := plan.Key.Predicate(plan.Key.Tuple(shadow.RowAlias), chunk, 1)
	names := make([]string, len(plan.Columns))
	values := make([]string, len(plan.Columns))
	for i, column := range plan.Columns {
		names[i], values[i] = column.Name, column.Value
	}
	return fmt.Sprintf("INSERT INTO %s (%s) SELECT %s FROM %s AS o WHERE %s",
		plan.Names.Shadow(), pg.Idents(names), strings.Join(values, ", "), plan.Source(), predicate), args
}
